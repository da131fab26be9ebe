//! MDPO: mirror descent policy optimisation, on-policy (Tomar et al. 2020, arXiv 2005.09814).
//!
//! A step of mirror descent over policies, of size t_k and with the KL divergence as its distance, is taken by m steps
//! of gradient ascent on the newest rollout, the previous policy pi_k standing still:
//!
//! ```text
//! J(pi) = mean rho A - (1/t_k) mean KL(pi(.|s) || pi_k(.|s)),   rho = pi(a|s) / pi_k(a|s)
//! t_k   = 1 - (k - 1) / K,   k = 0 .. K - 1
//! ```
//!
//! The divergence is that of whole distributions, the new policy first; nothing is clipped. The first of the m steps is
//! the policy gradient, since the divergence has none where the policies are equal. With tables the maximum is
//! pi_{k+1} in proportion to pi_k exp(t_k A), which [`crate::claims::mdpo_table`] checks. A is the advantage by GAE,
//! standardised over the rollout; values are fitted apart, by minibatches.
//!
//! With a Tsallis q' the divergence is that which belongs to the mean of log_q pi with q = 2 - q', estimated on the
//! actions taken, each term of which is 0 and flat where the policies are equal:
//!
//! ```text
//! D = mean rho (log_q pi - q' log_q pi_k - 1) + pi_k^(q'-1),   log_q x = (x^(1-q) - 1) / (1 - q)
//! ```
//!
//! The paper's code has mean log_q pi - log_q pi_k there, which is not flat: it pushes all that was done away, the more the
//! smaller t is, and on CartPole learnt nothing.

use polo_nn::{files::Tensors, shares};
use polo_run::{Problem, Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner};
use crate::{
    actor_critic::{self, Actor, Said, Slopes, ValueFit, clipping, explained_variance, standardise},
    network::{Adam, Network},
    normalise::Running,
    on_policy::{self, Acted, Plan, Rollout},
    policy::Policy,
    settings::MethodSettings,
};

/// Which way the divergence from the previous policy is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// KL(new || previous): the mirror map of negative entropy.
    #[default]
    Reverse,
    /// KL(previous || new).
    Forward,
}

/// What the m steps climb.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// The objective with its divergence.
    #[default]
    Proximal,
    /// The likelihood of actions weighted by exp(t A): a projection of the exact solution.
    ClosedForm,
}

/// Settings of `polo train mdpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mdpo {
    /// Steps of the policy on each rollout, m, all of them on the whole of it. Default from the paper, which takes 5 to 10.
    #[schemars(range(min = 1))]
    pub m: usize,
    /// A step size t that stays. Unset by default: it falls from 1 + 1/K in a line over the K rollouts of the run, as in
    /// the paper's code.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub step_size: Option<f64>,
    /// Which way the divergence is taken: `reverse` (the method) or `forward`.
    pub direction: Direction,
    /// What the m steps climb: `proximal` (the method) or `closed-form`, which fits the exact solution by weighted
    /// likelihood and knows no divergence.
    pub update: Update,
    /// q' of a Tsallis divergence, taken on the actions of the rollout; 1 by default: the KL divergence, exact.
    #[schemars(range(max = 3.0), extend("exclusiveMinimum" = 0.0))]
    pub tsallis: f64,
    /// Step size of the policy's Adam. Default from the paper's code.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Step size of the value's Adam. Default from the paper's code.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub value_rate: f64,
    /// Whether both step sizes of Adam fall to 0 in a line over the run. Default false, as in the paper's code: it is t
    /// that falls.
    pub anneal: bool,
    /// Copies of the environment. Default from the paper.
    #[schemars(range(min = 1, max = 4096))]
    pub copies: usize,
    /// Steps of each copy between updates. Default from the paper.
    #[schemars(range(min = 1))]
    pub rollout: usize,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// Lambda of the advantage estimate.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// Passes of the value over a rollout. Default from the paper's code.
    pub value_passes: usize,
    /// Steps of a minibatch of the value. Default from the paper's code.
    #[schemars(range(min = 1))]
    pub value_minibatch: usize,
    /// How far a value may move in the fit to a rollout, in units of (scaled) return; 0: as far as it will. Default from
    /// the paper's code.
    #[schemars(range(min = 0.0))]
    pub value_clip: f64,
    /// Largest norm of a gradient of either network; longer ones are scaled down. 0: never. Default from the paper's code.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
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

impl Default for Mdpo {
    fn default() -> Self {
        Self {
            m: 10,
            step_size: None,
            direction: Direction::Reverse,
            update: Update::Proximal,
            tsallis: 1.0,
            learning_rate: 3e-4,
            value_rate: 3e-4,
            anneal: false,
            copies: 1,
            rollout: 2048,
            gamma: 0.99,
            lambda: 0.95,
            value_passes: 5,
            value_minibatch: 128,
            value_clip: 0.2,
            max_grad_norm: 0.5,
            normalise_advantages: true,
            bootstrap_truncated: true,
            normalise_observations: None,
            normalise_rewards: None,
            hidden: vec![64, 64],
        }
    }
}

impl Settings for Mdpo {
    fn check(&self) -> Result<()> {
        let reversed = self.direction == Direction::Reverse;
        if self.tsallis != 1.0 && !(reversed && self.update == Update::Proximal) {
            return Err(Problem::usage("a Tsallis divergence is one of the method's own kind alone")
                .place("method.tsallis")
                .hint("leave method.tsallis at 1, or method.direction and method.update as they come"));
        }
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Mdpo {
    const SLUG: &'static str = CARD.slug;
}

/// Below this no step size falls: the objective divides by it.
const LEAST_STEP_SIZE: f64 = 1e-3;

/// What was done in a rollout, and how good it was.
struct Taken<'a> {
    /// `[rows, width]`.
    actions: &'a [f32],
    width: usize,
    advantages: &'a [f32],
}

impl Mdpo {
    /// t_k of rollout k of K.
    fn step_size(&self, k: u64, rollouts: u64) -> f64 {
        let annealed = 1.0 - (k as f64 - 1.0) / rollouts.max(1) as f64;
        self.step_size.unwrap_or(annealed).max(LEAST_STEP_SIZE)
    }

    /// Minus the objective for a step of size t from the policy that said `old`, and its slopes in what the policy says.
    fn loss(&self, said: &Said, old: &Said, taken: &Taken<'_>, t: f32) -> (f32, Slopes) {
        let Taken { actions, width, advantages } = *taken;
        let (count, n) = (advantages.len(), advantages.len() as f32);
        let logp = |row| said.logp(row, actions, width);
        let mut dlogps = vec![0.0; count];
        let no_entropy = vec![0.0; count];
        if self.update == Update::ClosedForm {
            // Weights of mean 1, whatever the step size.
            let most = advantages.iter().fold(f32::NEG_INFINITY, |most, a| most.max(*a));
            let weights: Vec<f32> = advantages.iter().map(|a| (t * (a - most)).exp()).collect();
            let sum: f32 = weights.iter().sum();
            dlogps.iter_mut().zip(&weights).for_each(|(dlogp, weight)| *dlogp = -weight / sum);
            let loss = (0..count).map(|row| dlogps[row] * logp(row)).sum();
            return (loss, said.push_back(actions, width, &dlogps, &no_entropy));
        }
        let mut loss = 0.0;
        for row in 0..count {
            let gain = advantages[row] * (logp(row) - old.logp(row, actions, width)).exp();
            loss -= gain / n;
            dlogps[row] = -gain / n;
        }
        if self.tsallis != 1.0 {
            let q = self.tsallis as f32;
            for (row, dlogp) in dlogps.iter_mut().enumerate() {
                let (own, before) = (logp(row), old.logp(row, actions, width));
                let [power, old_power] = [own, before].map(|logp| ((q - 1.0) * logp).exp());
                let ratio = (own - before).exp();
                let inner = ratio * (log_q(own, q) - q * log_q(before, q) - 1.0);
                loss += (inner + old_power) / (t * n);
                *dlogp += (inner + ratio * power) / (t * n);
            }
            return (loss, said.push_back(actions, width, &dlogps, &no_entropy));
        }
        let forward = self.direction == Direction::Forward;
        loss += (0..count)
            .map(|row| if forward { old.divergence(said, row) } else { said.divergence(old, row) } / (t * n))
            .sum::<f32>();
        let mut slopes = said.push_back(actions, width, &dlogps, &no_entropy);
        slopes.add(&said.push_back_divergence(old, &vec![1.0 / (t * n); count], forward));
        (loss, slopes)
    }
}

/// log_q x = (x^(1-q) - 1) / (1 - q) with q = 2 - q', of x whose logarithm is given; the logarithm itself for q' = 1.
pub(super) fn log_q(logarithm: f32, q_prime: f32) -> f32 {
    let power = q_prime - 1.0;
    if power == 0.0 { logarithm } else { (power * logarithm).exp_m1() / power }
}

impl Control for Mdpo {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let inputs = super::numbers_in(observations)?;
        let actor = Actor::new(inputs, actions, &self.hidden, seeds);
        let critic = actor_critic::critic(inputs, &self.hidden, seeds);
        Ok(Learner::OnPolicy(Box::new(MdpoLearner { settings: self.clone(), actor, critic })))
    }
}

struct MdpoLearner {
    settings: Mdpo,
    actor: Actor,
    critic: Network,
}

impl MdpoLearner {
    /// m steps of the policy; says the loss and the gradient's norm before the last of them, and the policy's entropy and
    /// KL(new ‖ previous) after it.
    fn learn_policy(actor: &mut Actor, settings: &Mdpo, rollout: &Rollout, t: f32, adam: Adam) -> [f32; 4] {
        let mut advantages = rollout.advantages.clone();
        if settings.normalise_advantages {
            standardise(&mut advantages, false, 0.0);
        }
        let taken = Taken { actions: &rollout.actions, width: actor.width(), advantages: &advantages };
        let mut tape = actor.network.forward(&rollout.observations);
        let old = actor.say(tape.outputs());
        let mut said = old.clone();
        let (mut loss, mut norm) = (0.0, 0.0);
        for _ in 0..settings.m {
            let slopes;
            (loss, slopes) = settings.loss(&said, &old, &taken, t);
            let mut gradients = actor.network.gradients();
            actor.push_back(&tape, slopes, &mut gradients);
            norm = actor.network.norm(&gradients);
            actor.network.step(gradients, adam, clipping(norm, settings.max_grad_norm));
            tape = actor.network.forward(&rollout.observations);
            said = actor.say(tape.outputs());
        }
        let n = advantages.len();
        let mean = |of: &dyn Fn(usize) -> f32| (0..n).map(of).sum::<f32>() / n as f32;
        [loss, norm as f32, mean(&|row| said.entropy(row)), mean(&|row| said.divergence(&old, row))]
    }
}

impl on_policy::Learner for MdpoLearner {
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

    fn update(&mut self, rollout: &Rollout, iteration: u64, iterations: u64, seeds: &Seeds) -> Metrics {
        let settings = &self.settings;
        let t = settings.step_size(iteration, iterations);
        let left = if settings.anneal { 1.0 - iteration as f64 / iterations.max(1) as f64 } else { 1.0 };
        let adam = |rate: f64| Adam { learning_rate: rate * left.max(0.0), epsilon: 1e-5 };
        let fit = ValueFit {
            passes: settings.value_passes,
            minibatch: settings.value_minibatch,
            adam: adam(settings.value_rate),
            clip: (settings.value_clip > 0.0).then_some(settings.value_clip as f32),
            max_grad_norm: settings.max_grad_norm,
        };
        let (actor, critic, rate) = (&mut self.actor, &mut self.critic, adam(settings.learning_rate));
        let ([loss, norm, entropy, kl], value_loss) = shares::both(
            || Self::learn_policy(actor, settings, rollout, t as f32, rate),
            || fit.fit(critic, rollout, iteration, seeds),
        );
        let mut metrics: Metrics = [
            ("losses/policy_loss", loss),
            ("losses/value_loss", value_loss),
            ("losses/entropy", entropy),
            ("losses/kl", kl),
            ("losses/grad_norm", norm),
        ]
        .into_iter()
        .map(|(name, value)| (name, f64::from(value)))
        .collect();
        metrics.set("losses/explained_variance", explained_variance(rollout));
        metrics.set("charts/step_size", t);
        metrics
    }

    fn policy(&self, environment: &str, normaliser: Option<Running>) -> Policy {
        self.actor.policy(environment, normaliser)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.actor.network.save("actor", tensors);
        self.critic.save("critic", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.network.load("actor", tensors)?;
        self.critic.load("critic", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "mdpo",
    title: "Mirror descent policy optimisation, on-policy",
    paper: "Tomar, Shani, Efroni, Ghavamzadeh: Mirror Descent Policy Optimization",
    arxiv: "2005.09814",
    year: 2020,
    family: super::FAMILY,
    summary: "several steps on each rollout, held near the last policy by a KL term in place of clips and constraints",
    claim: "several gradient steps on the KL-regularised objective do as well as TRPO and PPO, without a constraint and \
            without PPO's tricks; a single step does not",
    equation: "J(pi) = mean rho A - (1/t_k) mean KL(pi(.|s) || pi_k(.|s)),   m steps of Adam from pi_k\n\
               t_k = 1 - (k - 1) / K,   k = 0 .. K - 1,   at least 0.001\n\
               L_V = 1/2 mean max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2)",
    symbols: &[
        ("pi, pi_k", "the policy, and as it was before this rollout's steps"),
        ("rho", "pi(a|s) / pi_k(a|s)"),
        ("A, R", "advantage by GAE, standardised over the rollout, and return A + V_old before that"),
        ("t_k, K", "step size of mirror descent (method.step_size), and number of rollouts in the run"),
        ("m, c", "method.m, method.value_clip"),
    ],
    metrics: &[
        ("charts/episodic_return", "mean undiscounted return of the episodes that ended in the rollout"),
        ("charts/step_size", "t_k"),
        (
            "losses/kl",
            "mean KL(new || previous) after the m steps, nats; far above 0.1 the steps are too long",
        ),
        ("losses/policy_loss", "minus the objective, before the last of the m steps"),
        ("losses/value_loss", "half the mean squared error of the last pass of the value"),
        ("losses/entropy", "mean entropy, nats; falls as the policy decides"),
        ("losses/explained_variance", "1 - Var(R - V) / Var(R); near 1 the values foresee the returns"),
    ],
    reach_for: "a simulator that is fast, where PPO's clip and tricks are to be done without",
    avoid_when: "steps are dear: mdpo-off and sac learn from a tenth of them where actions are numbers",
    failure_signs: &[
        "kl grows beyond 0.5: lower method.learning_rate or method.m, or set method.step_size below 1",
        "returns rise slowly and kl stays below 0.001: raise method.m or method.learning_rate",
        "returns stay flat and explained_variance is below 0: scale rewards, or raise method.value_passes",
    ],
    variants: &[
        ("a fixed step size", "method.step_size = 1"),
        ("a single step", "method.m = 1"),
        ("KL(previous || new)", "method.direction = \"forward\""),
        ("a projection of the exact solution", "method.update = \"closed-form\""),
        ("Tsallis divergence", "method.tsallis = 1.5"),
        (
            "minimal (the paper's -M, but for orthogonal weights at the beginning)",
            "method.normalise_observations = false, method.normalise_rewards = false, method.value_clip = 0, method.max_grad_norm = 0",
        ),
        ("loaded (the paper's -LOADED)", "method.anneal = true"),
    ],
};

#[cfg(test)]
#[path = "mdpo_tests.rs"]
mod tests;
