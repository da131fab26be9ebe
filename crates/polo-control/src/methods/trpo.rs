//! TRPO: trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477).
//!
//! One step of the natural gradient on each rollout, as long as a bound on the mean KL divergence lets it be:
//!
//! ```text
//! maximise  L(pi) = mean rho A    subject to  mean KL(pi_old(.|s) || pi(.|s)) <= d
//! (F + c I) x = grad L,           by conjugate gradients
//! step = sqrt(2 d / x'(F + c I)x) x, halved until L is above its old value and the divergence at most 1.5 d
//! ```
//!
//! F, the Fisher information of the policy, is never built: F v = J' M J v / rows, with J v by a forward pass of
//! derivatives, J' by the backward pass and M the information of softmax or normal distribution, exact and over all rows.
//! Steps are taken from the old policy, where this is the Hessian of the divergence. Values are fitted apart, as in
//! [`super::mdpo`].

use polo_nn::{files::Tensors, host, mlp::Tape, shares};
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner};
use crate::{
    actor_critic::{self, Actor, Said, ValueFit, explained_variance, standardise},
    network::{Adam, Network},
    normalise::Running,
    on_policy::{self, Acted, Plan, Rollout},
    policy::Policy,
    settings::MethodSettings,
};

/// Settings of `polo train trpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Trpo {
    /// Bound on the mean KL(previous || new) of a step, d, nats. Default from the paper.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub max_kl: f64,
    /// Steps of conjugate gradients. Default from the paper.
    #[schemars(range(min = 1, max = 1000))]
    pub cg_iterations: usize,
    /// Added to the diagonal of the Fisher information, c. Default from OpenAI's baselines.
    #[schemars(range(min = 0.0))]
    pub damping: f64,
    /// Lengths that are tried, each half the one before. Default from OpenAI's baselines.
    #[schemars(range(min = 1, max = 100))]
    pub line_search: usize,
    /// How often `max_kl` the divergence of a step may be. Default from OpenAI's baselines.
    #[schemars(range(min = 1.0))]
    pub slack: f64,
    /// Step size of the value's Adam. Default that of `mdpo`.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub value_rate: f64,
    /// Passes of the value over a rollout. Default that of `mdpo`.
    pub value_passes: usize,
    /// Steps of a minibatch of the value. Default that of `mdpo`.
    #[schemars(range(min = 1))]
    pub value_minibatch: usize,
    /// Copies of the environment. Default that of `mdpo`.
    #[schemars(range(min = 1, max = 4096))]
    pub copies: usize,
    /// Steps of each copy between updates. Default that of `mdpo`.
    #[schemars(range(min = 1))]
    pub rollout: usize,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// Lambda of the advantage estimate.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// Whether advantages have mean 0 and variance 1 over the rollout. Default true.
    pub normalise_advantages: bool,
    /// Whether what a time limit cut off counts by its value; false takes a cut for an end. Default true.
    pub bootstrap_truncated: bool,
    /// Whether observations are normalised by running mean and variance. Unset by default: true for numbers.
    pub normalise_observations: Option<bool>,
    /// Whether rewards are scaled by the deviation of their discounted sum. Unset by default: true for numbers.
    pub normalise_rewards: Option<bool>,
    /// Widths of the hidden layers of policy and value.
    pub hidden: Vec<usize>,
}

impl Default for Trpo {
    fn default() -> Self {
        Self {
            max_kl: 0.01,
            cg_iterations: 10,
            damping: 0.1,
            line_search: 10,
            slack: 1.5,
            value_rate: 3e-4,
            value_passes: 5,
            value_minibatch: 128,
            copies: 1,
            rollout: 2048,
            gamma: 0.99,
            lambda: 0.95,
            normalise_advantages: true,
            bootstrap_truncated: true,
            normalise_observations: None,
            normalise_rewards: None,
            hidden: vec![64, 64],
        }
    }
}

impl Settings for Trpo {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Trpo {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Trpo {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let inputs = super::numbers_in(observations)?;
        let actor = Actor::new(inputs, actions, &self.hidden, seeds);
        let critic = actor_critic::critic(inputs, &self.hidden, seeds);
        Ok(Learner::OnPolicy(Box::new(TrpoLearner { settings: self.clone(), actor, critic })))
    }
}

struct TrpoLearner {
    settings: Trpo,
    actor: Actor,
    critic: Network,
}

/// (F + damping) v, where F is the Fisher information of what was said, a mean over rows.
fn fisher_product(actor: &Actor, tape: &Tape, said: &Said, v: &[f64], damping: f64) -> Vec<f64> {
    let network = &actor.network;
    let flat: Vec<f32> = v.iter().map(|&x| x as f32).collect();
    let direction = network.shaped(&flat);
    let doutputs = network.mlp.jvp(&network.parameters, tape, &direction);
    let dlog_stds = actor.log_std.map_or_else(Vec::new, |id| host::numbers(direction.get(id)));
    let mut slopes = said.fisher(&doutputs, &dlog_stds);
    slopes.scale(network.mlp.shape().outputs as f32 / doutputs.len() as f32);
    let mut gradients = network.gradients();
    actor.push_back(tape, slopes, &mut gradients);
    network.flatten(&gradients).iter().zip(v).map(|(product, v)| f64::from(*product) + damping * v).collect()
}

/// An approximate solution of product(x) = b, where the product is with a positive definite matrix.
fn conjugate_gradients(product: impl Fn(&[f64]) -> Vec<f64>, b: &[f64], iterations: usize) -> Vec<f64> {
    let (mut x, mut residual, mut direction) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    let mut left = dot(b, b);
    for _ in 0..iterations {
        if left < 1e-20 {
            break;
        }
        let pushed = product(&direction);
        let length = left / dot(&direction, &pushed);
        for i in 0..x.len() {
            x[i] += length * direction[i];
            residual[i] -= length * pushed[i];
        }
        let now = dot(&residual, &residual);
        for i in 0..x.len() {
            direction[i] = residual[i] + now / left * direction[i];
        }
        left = now;
    }
    x
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Trpo {
    /// One step of the policy; says the gain of the surrogate, KL(previous ‖ new), the share of the full step that was
    /// taken (0: none) and the entropy after it.
    fn climb(&self, actor: &mut Actor, rollout: &Rollout) -> [f64; 4] {
        let mut advantages = rollout.advantages.clone();
        if self.normalise_advantages {
            standardise(&mut advantages, false, 0.0);
        }
        let (actions, width, count) = (&rollout.actions, actor.width(), advantages.len());
        let tape = actor.network.forward(&rollout.observations);
        let old = actor.say(tape.outputs());
        let mean =
            |of: &dyn Fn(usize) -> f32| (0..count).map(|row| f64::from(of(row))).sum::<f64>() / count as f64;
        let surrogate = |said: &Said| {
            let log_ratio = |row| said.logp(row, actions, width) - old.logp(row, actions, width);
            mean(&|row| advantages[row] * log_ratio(row).exp())
        };
        let mut slopes = old.push_back(actions, width, &advantages, &vec![0.0; count]);
        slopes.scale(1.0 / count as f32);
        let mut gradients = actor.network.gradients();
        actor.push_back(&tape, slopes, &mut gradients);
        let gradient: Vec<f64> = actor.network.flatten(&gradients).into_iter().map(f64::from).collect();
        let product = |v: &[f64]| fisher_product(actor, &tape, &old, v, self.damping);
        let way = conjugate_gradients(product, &gradient, self.cg_iterations);
        let curvature = dot(&way, &product(&way));
        let before = surrogate(&old);
        let entropy = |said: &Said| mean(&|row| said.entropy(row));
        // A gradient of nothing leads nowhere.
        if curvature > 0.0 {
            let full = (2.0 * self.max_kl / curvature).sqrt();
            let start = actor.network.parameters.clone();
            for halvings in 0..self.line_search {
                let share = 0.5f64.powi(halvings as i32);
                let step: Vec<f32> = way.iter().map(|x| (share * full * x) as f32).collect();
                let step = actor.network.shaped(&step);
                for ((own, from), by) in
                    actor.network.parameters.iter_mut().zip(start.iter()).zip(step.iter())
                {
                    own.value = from.value.clone() + by.value.clone();
                }
                let said = actor.say(actor.network.evaluate(&rollout.observations));
                let (gain, kl) = (surrogate(&said) - before, mean(&|row| old.divergence(&said, row)));
                if gain > 0.0 && kl <= self.slack * self.max_kl {
                    return [gain, kl, share, entropy(&said)];
                }
            }
            actor.network.parameters = start;
        }
        [0.0, 0.0, 0.0, entropy(&old)]
    }
}

impl on_policy::Learner for TrpoLearner {
    fn plan(&self) -> Plan {
        let (settings, numbers) = (&self.settings, self.actor.log_std.is_some());
        Plan {
            copies: settings.copies,
            steps: settings.rollout,
            gamma: settings.gamma as f32,
            lambda: settings.lambda as f32,
            bootstrap_truncated: settings.bootstrap_truncated,
            normalise_observations: settings.normalise_observations.unwrap_or(numbers),
            normalise_rewards: settings.normalise_rewards.unwrap_or(numbers),
        }
    }

    fn act(&self, observations: &[f32], step: u64, seeds: &Seeds) -> Acted {
        self.actor.act(observations, self.values(observations), step, seeds)
    }

    fn values(&self, observations: &[f32]) -> Vec<f32> {
        self.critic.evaluate(observations)
    }

    fn update(&mut self, rollout: &Rollout, iteration: u64, _iterations: u64, seeds: &Seeds) -> Metrics {
        let settings = &self.settings;
        let fit = ValueFit {
            passes: settings.value_passes,
            minibatch: settings.value_minibatch,
            adam: Adam { learning_rate: settings.value_rate, epsilon: 1e-5 },
            clip: None,
            max_grad_norm: 0.0,
        };
        let (actor, critic) = (&mut self.actor, &mut self.critic);
        let ([gain, kl, share, entropy], value_loss) =
            shares::both(|| settings.climb(actor, rollout), || fit.fit(critic, rollout, iteration, seeds));
        [
            ("losses/surrogate_gain", gain),
            ("losses/kl", kl),
            ("losses/entropy", entropy),
            ("losses/value_loss", f64::from(value_loss)),
            ("losses/explained_variance", explained_variance(rollout)),
            ("charts/step_share", share),
        ]
        .into_iter()
        .collect()
    }

    fn policy(&self, environment: &str, normaliser: Option<Running>) -> Policy {
        self.actor.policy(environment, normaliser)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.actor.network.save_weights("actor", tensors);
        self.critic.save("critic", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.network.load_weights("actor", tensors)?;
        self.critic.load("critic", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "trpo",
    title: "Trust region policy optimisation",
    paper: "Schulman, Levine, Moritz, Jordan, Abbeel: Trust Region Policy Optimization",
    arxiv: "1502.05477",
    year: 2015,
    family: super::FAMILY,
    summary: "one natural-gradient step on each rollout, as long as a bound on the KL divergence lets it be",
    claim: "a bound on the divergence of each step makes improvement nearly monotonic with little tuning; here a baseline",
    equation: "maximise L(pi) = mean rho A   subject to   mean KL(pi_old(.|s) || pi(.|s)) <= d\n\
               (F + c I) x = grad L,   step = sqrt(2 d / x'(F + c I)x) x, halved until L rises and KL <= s d",
    symbols: &[
        ("rho", "pi(a|s) / pi_old(a|s)"),
        ("A", "advantage by GAE, standardised over the rollout"),
        ("F", "Fisher information of the policy, a mean over the rollout"),
        ("d, c, s", "method.max_kl (nats), method.damping, method.slack"),
    ],
    metrics: &[
        ("charts/episodic_return", "mean undiscounted return of the episodes that ended in the rollout"),
        ("charts/step_share", "share of the full step that was taken; 0: no length was good"),
        ("losses/surrogate_gain", "by how much L rose, in standard deviations of the advantage"),
        ("losses/kl", "mean KL(previous || new) of the step, nats"),
        ("losses/value_loss", "half the mean squared error of the last pass of the value"),
        ("losses/entropy", "mean entropy, nats; falls as the policy decides"),
        ("losses/explained_variance", "1 - Var(R - V) / Var(R); near 1 the values foresee the returns"),
    ],
    reach_for: "a step size that needs no tuning: it is given in nats",
    avoid_when: "networks are large or rollouts short: ppo and mdpo need no curvature",
    failure_signs: &[
        "step_share is 0 again and again: raise method.cg_iterations or method.damping",
        "returns rise slowly and smoothly: raise method.max_kl",
        "explained_variance stays below 0: raise method.value_passes or method.value_rate",
    ],
    variants: &[
        (
            "natural policy gradient, nothing checked but the first length",
            "method.line_search = 1, method.slack = 1e9",
        ),
        ("larger regions", "method.max_kl = 0.05"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    fn lived(actions: &Space) -> (Actor, Rollout) {
        let seeds = Seeds::new(4);
        let mut actor = Actor::new(3, actions, &[8, 6], &seeds);
        // Away from the even policy of the beginning.
        for (id, parameter) in actor.network.parameters.iter_mut().enumerate() {
            let shape = parameter.value.dims();
            let noise = seeds.normal(shape[0] * shape[1], "weights", id as u64);
            parameter.value =
                parameter.value.clone() + host::tensor(noise, shape, &polo_nn::Device::flex()) * 0.3;
        }
        let observations = seeds.normal(40 * 3, "observations", 0);
        let acted = actor.act(&observations, vec![0.0; 40], 0, &seeds);
        let rollout = Rollout {
            observations,
            actions: acted.numbers,
            logps: acted.logps,
            values: acted.values,
            advantages: seeds.normal(40, "advantages", 0),
        };
        (actor, rollout)
    }

    /// F v is how fast the gradient of KL(old ‖ new) changes along v.
    #[test]
    fn fisher_products_are_those_of_finite_differences() {
        for actions in [Space::Discrete(4), Space::symmetric(&[1.0; 2])] {
            let (actor, rollout) = lived(&actions);
            let tape = actor.network.forward(&rollout.observations);
            let old = actor.say(tape.outputs());
            let size = actor.network.parameters.count().0;
            let v: Vec<f64> = Seeds::new(9).normal(size, "v", 0).into_iter().map(f64::from).collect();
            let slope = |by: f64| {
                let mut moved = actor.clone();
                let step: Vec<f32> = v.iter().map(|x| (by * x) as f32).collect();
                let step = moved.network.shaped(&step);
                for (own, by) in moved.network.parameters.iter_mut().zip(step.iter()) {
                    own.value = own.value.clone() + by.value.clone();
                }
                let tape = moved.network.forward(&rollout.observations);
                let said = moved.say(tape.outputs());
                let mut gradients = moved.network.gradients();
                let slopes = said.push_back_divergence(&old, &[1.0 / 40.0; 40], true);
                moved.push_back(&tape, slopes, &mut gradients);
                moved.network.flatten(&gradients)
            };
            let found = fisher_product(&actor, &tape, &old, &v, 0.0);
            let (high, low) = (slope(2e-3), slope(-2e-3));
            let most = found.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            for i in 0..size {
                let expected = f64::from(high[i] - low[i]) / 4e-3;
                assert!((found[i] - expected).abs() < 1e-2 * most, "{i}: {} {expected}", found[i]);
            }
            // Damping adds to the diagonal.
            let damped = fisher_product(&actor, &tape, &old, &v, 0.1);
            assert!((0..size).all(|i| (damped[i] - found[i] - 0.1 * v[i]).abs() < 1e-6));
        }
    }

    #[test]
    fn conjugate_gradients_solve_what_they_are_given() {
        let matrix = [[4.0, 1.0, 0.0], [1.0, 3.0, -1.0], [0.0, -1.0, 2.0]];
        let product = |v: &[f64]| matrix.iter().map(|row| dot(row, v)).collect::<Vec<_>>();
        let x = conjugate_gradients(product, &[1.0, 2.0, 3.0], 3);
        for (found, expected) in product(&x).iter().zip([1.0, 2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-9);
        }
        assert_eq!(conjugate_gradients(product, &[0.0; 3], 10), [0.0; 3]);
    }

    #[test]
    fn a_step_gains_and_keeps_to_its_bound() {
        for actions in [Space::Discrete(4), Space::symmetric(&[1.0; 2])] {
            let (actor, rollout) = lived(&actions);
            for (max_kl, damping) in [(1e-4, 1e-3), (0.01, 0.1), (0.5, 0.1)] {
                let settings = Trpo { max_kl, damping, ..Trpo::default() };
                let mut own = actor.clone();
                let [gain, kl, share, _] = settings.climb(&mut own, &rollout);
                assert!(gain > 0.0 && kl > 0.0 && kl <= 1.5 * max_kl && share > 0.0, "{gain} {kl} {share}");
                // A short full step is as long as the quadratic model says; what damping holds back is missing.
                if max_kl < 1e-3 {
                    assert!(share == 1.0 && kl > 0.5 * max_kl && kl < 1.1 * max_kl, "{kl}");
                }
            }
            // Nothing to gain, nothing done.
            let mut own = actor.clone();
            let flat = Rollout { advantages: vec![1.0; 40], ..rollout };
            assert_eq!(Trpo::default().climb(&mut own, &flat)[..3], [0.0; 3]);
            assert_eq!(own.network.evaluate(&[0.1, 0.2, 0.3]), actor.network.evaluate(&[0.1, 0.2, 0.3]));
        }
    }

    /// On a row of logits the natural gradient is the advantage itself, but for a constant.
    #[test]
    fn the_natural_gradient_of_arms_is_their_advantage() {
        let mut actor = Actor::new(1, &Space::Discrete(3), &[], &Seeds::new(2));
        let logits = [0.2f32.ln(), 0.3f32.ln(), 0.5f32.ln()];
        let bias = actor.network.parameters.iter_mut().nth(1).unwrap();
        bias.value = host::tensor(logits.to_vec(), [1, 3], &polo_nn::Device::flex());
        let arms = [0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0];
        let advantages = arms.map(|arm| [0.65, 0.15, -0.35][arm as usize]).to_vec();
        let rollout =
            Rollout { observations: vec![0.0; 10], actions: arms.to_vec(), advantages, ..Rollout::default() };
        let settings = Trpo { max_kl: 1e-3, damping: 1e-6, normalise_advantages: false, ..Trpo::default() };
        let [_, kl, share, _] = settings.climb(&mut actor, &rollout);
        assert!(share == 1.0 && (kl / 1e-3 - 1.0).abs() < 0.05, "{share} {kl}");
        let after = actor.network.evaluate(&[0.0]);
        let moved: Vec<f32> = after.iter().zip(logits).map(|(a, b)| a - b).collect();
        let ratio = (moved[0] - moved[1]) / (moved[1] - moved[2]);
        assert!((ratio - 1.0).abs() < 0.01, "{moved:?}");
    }
}
