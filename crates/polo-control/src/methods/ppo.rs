//! PPO: proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).
//!
//! Several epochs of minibatches on each rollout, with a ratio of new to old probabilities that earns nothing more once
//! it has moved beyond the clip range in the direction that the advantage asks for:
//!
//! ```text
//! rho  = exp(log pi(a|s) - log pi_old(a|s))
//! L    = mean max(-A rho, -A clip(rho, 1 - e, 1 + e))
//!      + c_v / 2 mean max((V - R)^2, (V_old + clip(V - V_old, -e, e) - R)^2) - c_e mean H(pi)
//! ```
//!
//! A is the advantage by GAE, normalised over the minibatch, R = A + V_old the return. As in CleanRL, but for episodes
//! that were cut by a time limit: their last reward gets the discounted value of what was cut off, as in
//! stable-baselines3.

use polo_nn::{files::Tensors, shares};
use polo_run::{Problem, Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner};
use crate::{
    actor_critic::{self, Actor, clipping, explained_variance, pick, standardise, value_loss},
    network::{Adam, Network},
    normalise::Running,
    on_policy::{self, Acted, Plan, Rollout},
    policy::Policy,
    settings::MethodSettings,
};

/// Settings of `polo train ppo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ppo {
    /// Step size of Adam. Unset by default: 2.5e-4 where actions are choices, 3e-4 where they are numbers (CleanRL's).
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: Option<f64>,
    /// Whether the step size falls to 0 in a line over the run. Default from CleanRL.
    pub anneal: bool,
    /// Copies of the environment. Unset by default: 4 for choices, 1 for numbers (CleanRL's).
    #[schemars(range(min = 1, max = 4096))]
    pub copies: Option<usize>,
    /// Steps of each copy between updates. Unset by default: 128 for choices, 2048 for numbers (CleanRL's).
    #[schemars(range(min = 1))]
    pub rollout: Option<usize>,
    /// Parts that a rollout is cut into at random in each epoch. Unset by default: 4 for choices, 32 for numbers.
    #[schemars(range(min = 1))]
    pub minibatches: Option<usize>,
    /// Passes over a rollout. Unset by default: 4 for choices, 10 for numbers.
    #[schemars(range(min = 1))]
    pub epochs: Option<usize>,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// Lambda of the advantage estimate.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// How far the ratio may move, e.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub clip: f64,
    /// Whether the value's change is clipped, too. Default from CleanRL.
    pub clip_value: bool,
    /// Weight of the entropy, c_e. Unset by default: 0.01 for choices, 0 for numbers.
    #[schemars(range(min = 0.0))]
    pub entropy: Option<f64>,
    /// Weight of the value loss, c_v.
    #[schemars(range(min = 0.0))]
    pub value: f64,
    /// Largest norm of a gradient over both networks; longer ones are scaled down. 0: never.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Ends the epochs of a rollout once the mean of (rho - 1) - log rho exceeds this after an epoch; unset by default.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub target_kl: Option<f64>,
    /// Whether advantages have mean 0 and variance 1 in each minibatch. Default true.
    pub normalise_advantages: bool,
    /// Whether what a time limit cut off counts by its value; false takes a cut for an end, as CleanRL does. Default
    /// true.
    pub bootstrap_truncated: bool,
    /// Whether observations are normalised by running mean and variance. Unset by default: true for numbers.
    pub normalise_observations: Option<bool>,
    /// Whether rewards are scaled by the deviation of their discounted sum. Unset by default: true for numbers.
    pub normalise_rewards: Option<bool>,
    /// Widths of the hidden layers of policy and value.
    pub hidden: Vec<usize>,
}

impl Default for Ppo {
    fn default() -> Self {
        Self {
            learning_rate: None,
            anneal: true,
            copies: None,
            rollout: None,
            minibatches: None,
            epochs: None,
            gamma: 0.99,
            lambda: 0.95,
            clip: 0.2,
            clip_value: true,
            entropy: None,
            value: 0.5,
            max_grad_norm: 0.5,
            target_kl: None,
            normalise_advantages: true,
            bootstrap_truncated: true,
            normalise_observations: None,
            normalise_rewards: None,
            hidden: vec![64, 64],
        }
    }
}

impl Settings for Ppo {
    fn check(&self) -> Result<()> {
        let size = self.copies.unwrap_or(1) * self.rollout.unwrap_or(usize::MAX / 8192);
        if self.minibatches.is_some_and(|parts| parts > size) {
            return Err(Problem::usage("more minibatches than steps in a rollout")
                .place("method.minibatches")
                .hint("a minibatch needs a step at least"));
        }
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Ppo {
    const SLUG: &'static str = CARD.slug;
}

/// The settings with what the kind of actions decides filled in.
#[derive(Clone, Debug)]
struct Filled {
    learning_rate: f64,
    minibatches: usize,
    epochs: usize,
    entropy: f32,
    plan: Plan,
}

impl Ppo {
    fn filled(&self, discrete: bool) -> Filled {
        let either = |choices: usize, numbers: usize| if discrete { choices } else { numbers };
        Filled {
            learning_rate: self.learning_rate.unwrap_or(if discrete { 2.5e-4 } else { 3e-4 }),
            minibatches: self.minibatches.unwrap_or(either(4, 32)),
            epochs: self.epochs.unwrap_or(either(4, 10)),
            entropy: self.entropy.unwrap_or(if discrete { 0.01 } else { 0.0 }) as f32,
            plan: Plan {
                copies: self.copies.unwrap_or(either(4, 1)),
                steps: self.rollout.unwrap_or(either(128, 2048)),
                gamma: self.gamma as f32,
                lambda: self.lambda as f32,
                bootstrap_truncated: self.bootstrap_truncated,
                normalise_observations: self.normalise_observations.unwrap_or(!discrete),
                normalise_rewards: self.normalise_rewards.unwrap_or(!discrete),
            },
        }
    }
}

impl Control for Ppo {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let inputs = super::numbers_in(observations)?;
        let actor = Actor::new(inputs, actions, &self.hidden, seeds);
        let critic = actor_critic::critic(inputs, &self.hidden, seeds);
        let filled = self.filled(actor.log_std.is_none());
        Ok(Learner::OnPolicy(Box::new(PpoLearner { settings: self.clone(), filled, actor, critic })))
    }
}

struct PpoLearner {
    settings: Ppo,
    filled: Filled,
    actor: Actor,
    critic: Network,
}

impl PpoLearner {
    /// Learns from the rows `rows` of a rollout; returns the losses and the mean of (rho - 1) - log rho.
    fn learn(&mut self, rollout: &Rollout, rows: &[usize], learning_rate: f64) -> Metrics {
        let (settings, width) = (&self.settings, self.actor.width());
        let count = rows.len();
        let observation = self.critic.mlp.shape().inputs;
        let pick = |from: &[f32], width| pick(from, rows, width);
        let observations = pick(&rollout.observations, observation);
        let (actions, old_logps) = (pick(&rollout.actions, width), pick(&rollout.logps, 1));
        let (old_values, mut advantages) = (pick(&rollout.values, 1), pick(&rollout.advantages, 1));
        let returns: Vec<f32> = advantages.iter().zip(&old_values).map(|(a, v)| a + v).collect();
        if settings.normalise_advantages && count > 1 {
            standardise(&mut advantages, true, 1e-8);
        }
        let (clip, n) = (settings.clip as f32, count as f32);

        let learn_actor = || {
            let tape = self.actor.network.forward(&observations);
            let said = self.actor.say(tape.outputs());
            let (mut policy_loss, mut kl, mut clipped, mut entropy) = (0.0, 0.0, 0.0, 0.0);
            let mut dlogps = vec![0.0; count];
            for row in 0..count {
                let log_ratio = said.logp(row, &actions, width) - old_logps[row];
                let (ratio, advantage) = (log_ratio.exp(), advantages[row]);
                let plain = -advantage * ratio;
                let cut = -advantage * ratio.clamp(1.0 - clip, 1.0 + clip);
                policy_loss += plain.max(cut) / n;
                // The clipped branch is constant in the ratio wherever it is the greater one.
                dlogps[row] = if plain >= cut { plain / n } else { 0.0 };
                kl += (ratio - 1.0 - log_ratio) / n;
                clipped += f32::from(u8::from((ratio - 1.0).abs() > clip)) / n;
                entropy += said.entropy(row) / n;
            }
            let dentropies = vec![-self.filled.entropy / n; count];
            let mut actor_gradients = self.actor.network.gradients();
            let slopes = said.push_back(&actions, width, &dlogps, &dentropies);
            self.actor.push_back(&tape, slopes, &mut actor_gradients);
            (actor_gradients, [policy_loss, entropy, kl, clipped])
        };
        let weight = settings.value as f32;
        let learn_critic = || {
            let tape = self.critic.forward(&observations);
            let clip = settings.clip_value.then_some(clip);
            let (loss, dvalues) = value_loss(&tape.outputs(), &old_values, &returns, clip, weight);
            let mut critic_gradients = self.critic.gradients();
            self.critic.push_back(&tape, &dvalues, &mut critic_gradients);
            (critic_gradients, loss)
        };
        let ((actor_gradients, [policy_loss, entropy, kl, clipped]), (critic_gradients, value_loss)) =
            shares::both(learn_actor, learn_critic);

        let norm = self.actor.network.norm(&actor_gradients).hypot(self.critic.norm(&critic_gradients));
        let scale = clipping(norm, settings.max_grad_norm);
        let adam = Adam { learning_rate, epsilon: 1e-5 };
        let (actor, critic) = (&mut self.actor.network, &mut self.critic);
        shares::both(
            || actor.step(actor_gradients, adam, scale),
            || critic.step(critic_gradients, adam, scale),
        );
        let loss = policy_loss + weight * value_loss - self.filled.entropy * entropy;
        [
            ("losses/loss", loss),
            ("losses/policy_loss", policy_loss),
            ("losses/value_loss", value_loss),
            ("losses/entropy", entropy),
            ("losses/approx_kl", kl),
            ("losses/clipfrac", clipped),
            ("losses/grad_norm", norm as f32),
        ]
        .into_iter()
        .map(|(name, value)| (name, f64::from(value)))
        .collect()
    }
}

impl on_policy::Learner for PpoLearner {
    fn plan(&self) -> Plan {
        self.filled.plan
    }

    fn act(&self, observations: &[f32], step: u64, seeds: &Seeds) -> Acted {
        self.actor.act(observations, self.values(observations), step, seeds)
    }

    fn values(&self, observations: &[f32]) -> Vec<f32> {
        self.critic.evaluate(observations)
    }

    fn update(&mut self, rollout: &Rollout, iteration: u64, iterations: u64, seeds: &Seeds) -> Metrics {
        let rows = rollout.logps.len();
        let left = 1.0 - iteration as f64 / iterations.max(1) as f64;
        let rate = self.filled.learning_rate * if self.settings.anneal { left.max(0.0) } else { 1.0 };
        let (epochs, size) = (self.filled.epochs, rows.div_ceil(self.filled.minibatches).max(1));
        let mut metrics = Metrics::new();
        for epoch in 0..epochs {
            let order = seeds.shuffled(rows, "ppo/minibatches", iteration * epochs as u64 + epoch as u64);
            for part in order.chunks(size) {
                metrics = self.learn(rollout, part, rate);
            }
            if self.settings.target_kl.is_some_and(|most| metrics.get("losses/approx_kl") > Some(most)) {
                break;
            }
        }
        metrics.set("losses/explained_variance", explained_variance(rollout));
        metrics.set("charts/learning_rate", rate);
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
    slug: "ppo",
    title: "Proximal policy optimisation",
    paper: "Schulman, Wolski, Dhariwal, Radford, Klimov: Proximal Policy Optimization Algorithms",
    arxiv: "1707.06347",
    year: 2017,
    family: super::FAMILY,
    summary: "several clipped steps on each rollout: sturdy, on-policy, for choices and numbers",
    claim: "clipping the ratio of new to old probabilities is as stable as a trust region and simpler; here a baseline",
    equation: "L = mean max(-A rho, -A clip(rho, 1-e, 1+e))\n\
               + c_v/2 mean max((V-R)^2, (V_old + clip(V-V_old, -e, e) - R)^2) - c_e mean H(pi)",
    symbols: &[
        ("rho", "pi(a|s) / pi_old(a|s)"),
        ("A, R", "advantage by GAE (method.gamma, method.lambda), and return A + V_old"),
        ("V, V_old", "value of the observation, now and when it was seen"),
        ("H", "entropy of the policy, nats"),
        ("e, c_v, c_e", "method.clip, method.value, method.entropy"),
    ],
    metrics: &[
        ("charts/episodic_return", "mean undiscounted return of the episodes that ended in the rollout"),
        ("losses/policy_loss, losses/value_loss", "parts of the loss in the last minibatch"),
        ("losses/entropy", "mean entropy, nats; falls as the policy decides"),
        ("losses/approx_kl", "mean (rho - 1) - log rho, nats; above 0.05 steps are too large"),
        ("losses/clipfrac", "share of ratios beyond the clip range"),
        ("losses/explained_variance", "1 - Var(R - V) / Var(R); near 1 the values foresee the returns"),
    ],
    reach_for: "a simulator that is fast, and a policy of choices or numbers",
    avoid_when: "steps are dear: sac and td3 learn from a tenth of them where actions are numbers",
    failure_signs: &[
        "approx_kl grows beyond 0.05: lower method.learning_rate or method.epochs, or set method.target_kl",
        "entropy falls to 0 early: raise method.entropy",
        "returns stay flat and explained_variance is below 0: scale rewards, or normalise them",
    ],
    variants: &[
        ("stop at a KL", "method.target_kl = 0.015"),
        ("without value clipping", "method.clip_value = false"),
        ("cuts taken for ends, as in CleanRL", "method.bootstrap_truncated = false"),
        (
            "A2C (but for its optimiser)",
            "method.epochs = 1, method.minibatches = 1, method.normalise_advantages = false, method.lambda = 1, method.rollout = 5",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use polo_nn::mlp::{Activation, Init, Shape};

    use super::*;

    fn learner(settings: &Ppo, actions: &Space) -> PpoLearner {
        let observations = Space::symmetric(&[1.0; 3]);
        let seeds = Seeds::new(1);
        let mut network = Network::new(
            Shape {
                inputs: observations.size(),
                hidden: vec![8],
                outputs: actions.size(),
                members: 1,
                activation: Activation::Tanh,
                layer_norm: false,
                init: (Init::Torch, Init::Torch),
            },
            "policy",
            &seeds,
        );
        let log_std = matches!(actions, Space::Box { .. }).then(|| network.add_row("log_std", vec![-0.3; 2]));
        let shape = Shape { outputs: 1, ..network.mlp.shape().clone() };
        let critic = Network::new(shape, "value", &seeds);
        let filled = settings.filled(log_std.is_none());
        let actor = Actor { actions: actions.clone(), network, log_std };
        PpoLearner { settings: settings.clone(), filled, actor, critic }
    }

    fn rollout(learner: &PpoLearner, shift: f32) -> Rollout {
        let seeds = Seeds::new(7);
        let observations = seeds.normal(6 * 3, "observations", 0);
        let acted = on_policy::Learner::act(learner, &observations, 0, &seeds);
        Rollout {
            observations,
            actions: acted.numbers,
            logps: acted.logps.iter().map(|logp| logp - shift).collect(),
            values: acted.values,
            advantages: seeds.normal(6, "advantages", 0),
        }
    }

    fn weights(learner: &PpoLearner) -> Vec<Vec<f32>> {
        learner
            .actor
            .network
            .parameters
            .iter()
            .map(|parameter| polo_nn::host::numbers(&parameter.value))
            .collect()
    }

    /// Beyond the clip range, in the direction that the advantage asks for, nothing is learnt any more.
    #[test]
    fn a_ratio_beyond_the_clip_has_no_gradient() {
        for actions in [Space::Discrete(4), Space::symmetric(&[1.0; 2])] {
            let settings = Ppo { entropy: Some(0.0), normalise_advantages: false, ..Ppo::default() };
            // Ratios of e^0.5 with advantages above 0, of e^-0.5 below.
            for (shift, sign) in [(0.5, 1.0), (-0.5, -1.0)] {
                let mut own = learner(&settings, &actions);
                let mut far = rollout(&own, shift);
                far.advantages.iter_mut().for_each(|advantage| *advantage = advantage.abs() * sign);
                let before = weights(&own);
                let metrics = own.learn(&far, &[0, 1, 2, 3, 4, 5], 1e-3);
                assert_eq!(weights(&own), before);
                assert_eq!(metrics.get("losses/clipfrac"), Some(1.0));
                // The other way round there is much to learn.
                far.advantages.iter_mut().for_each(|advantage| *advantage = -*advantage);
                own.learn(&far, &[0, 1, 2, 3, 4, 5], 1e-3);
                assert_ne!(weights(&own), before);
            }
        }
    }

    /// At ratio 1 the gradient is that of the vanilla policy gradient: -A grad log pi.
    #[test]
    fn at_ratio_one_it_is_the_policy_gradient() {
        let settings =
            Ppo { entropy: Some(0.0), normalise_advantages: false, max_grad_norm: 0.0, ..Ppo::default() };
        for actions in [Space::Discrete(4), Space::symmetric(&[1.0; 2])] {
            let mut own = learner(&settings, &actions);
            let lived = rollout(&own, 0.0);
            let value = |learner: &PpoLearner| -> f64 {
                let said = learner.actor.say(learner.actor.network.evaluate(&lived.observations));
                let logp = |row| said.logp(row, &lived.actions, learner.actor.width());
                (0..6).map(|row| -f64::from(lived.advantages[row] * logp(row)) / 6.0).sum()
            };
            // Adam's first step is the sign of the gradient: along it the surrogate falls as fast as finite differences
            // of the vanilla objective say, number by number in sign.
            let before = own.actor.clone();
            own.learn(&lived, &[0, 1, 2, 3, 4, 5], 1e-3);
            let mut checked = 0;
            for (id, parameter) in before.network.parameters.iter().enumerate() {
                let numbers = polo_nn::host::numbers(&parameter.value);
                let after = polo_nn::host::numbers(own.actor.network.parameters.get(id));
                for place in (0..numbers.len()).step_by(3) {
                    let at = |by: f32| {
                        let mut moved = learner(&settings, &actions);
                        moved.actor = before.clone();
                        let mut shifted = numbers.clone();
                        shifted[place] += by;
                        let parameter = moved.actor.network.parameters.iter_mut().nth(id).unwrap();
                        let shape = parameter.value.dims();
                        parameter.value = polo_nn::host::tensor(shifted, shape, &polo_nn::Device::flex());
                        value(&moved)
                    };
                    let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                    if slope.abs() > 1e-3 {
                        let step = f64::from(after[place] - numbers[place]);
                        assert!((step + 1e-3 * slope.signum()).abs() < 1e-4, "{slope} {step}");
                        checked += 1;
                    }
                }
            }
            assert!(checked > 10, "{checked}");
        }
    }
}
