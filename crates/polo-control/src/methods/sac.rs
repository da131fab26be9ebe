//! SAC: soft actor-critic with a learnt temperature (Haarnoja et al. 2018, arXiv 1812.05905).
//!
//! Two critics learn the value of acting well and keeping one's options open; the policy climbs the lesser of them:
//!
//! ```text
//! y     = r + gamma (1 - terminated) [min Q'(s', a') - alpha log pi(a'|s')],   a' ~ pi(s')
//! L_Q   = mean (Q_1(s,a) - y)^2 + mean (Q_2(s,a) - y)^2
//! L_pi  = mean alpha log pi(a|s) - min Q(s,a),   a ~ pi(s), the noise held fixed
//! L_a   = mean -alpha (log pi(a|s) + H),   H the entropy that is aimed at
//! ```
//!
//! In CleanRL's order: critics at every update; at every second one two steps of policy and temperature; targets follow
//! at every update.

use polo_nn::{
    distributions::{Bounds, Gaussian, Squashed},
    files::Tensors,
    mlp::{Activation, Init, Shape},
};
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner};
use crate::{
    network::{Adam, Network, Scalar, beside, last_columns, least, regress},
    off_policy::{self, Schedule},
    policy::{Head, Policy},
    settings::MethodSettings,
    squashed,
};

/// Settings of `polo train sac`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sac {
    /// Step size of the policy's Adam. Default from CleanRL.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub policy_rate: f64,
    /// Step size of the critics' Adam, and of the temperature's. Default from CleanRL.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub critic_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far the targets move towards the critics at each update.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Temperature alpha, in units of reward per nat; unset by default: learnt.
    #[schemars(range(min = 0.0))]
    pub alpha: Option<f64>,
    /// Entropy that a learnt temperature aims at, nats; unset by default: minus the number of action dimensions.
    pub target_entropy: Option<f64>,
    /// Updates from one change of the policy to the next; it then takes as many steps. Default from CleanRL.
    #[schemars(range(min = 1))]
    pub policy_every: u64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Transitions that are remembered.
    #[schemars(range(min = 1))]
    pub buffer: usize,
    /// Steps of random actions at the beginning. Default from CleanRL.
    pub random_steps: u64,
    /// Learn every so many steps.
    #[schemars(range(min = 1))]
    pub train_every: u64,
    /// Updates each time.
    #[schemars(range(min = 1))]
    pub updates: u64,
    /// Widths of the hidden layers of policy and critics.
    pub hidden: Vec<usize>,
}

impl Default for Sac {
    fn default() -> Self {
        Self {
            policy_rate: 3e-4,
            critic_rate: 1e-3,
            gamma: 0.99,
            tau: 0.005,
            alpha: None,
            target_entropy: None,
            policy_every: 2,
            batch: 256,
            buffer: 1_000_000,
            random_steps: 5000,
            train_every: 1,
            updates: 1,
            hidden: vec![256, 256],
        }
    }
}

impl Settings for Sac {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Sac {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Sac {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let (inputs, low, high) = super::numbers_in_and_out(observations, actions)?;
        let shape = |inputs, outputs, members| Shape {
            inputs,
            hidden: self.hidden.clone(),
            outputs,
            members,
            activation: Activation::Relu,
            layer_norm: false,
            init: (Init::Torch, Init::Torch),
        };
        let width = low.len();
        let actor = Network::new(shape(inputs, 2 * width, 1), "policy", &seeds.child("policy"));
        let log_alpha = Scalar::new("log_alpha", self.alpha.map_or(0.0, f64::ln) as f32);
        let critic = Network::new(shape(inputs + width, 1, 2), "critic", &seeds.child("critic"));
        Ok(Learner::OffPolicy(Box::new(SacLearner {
            settings: self.clone(),
            bounds: Bounds::new(low, high),
            actions: actions.clone(),
            target: critic.clone(),
            actor,
            critic,
            log_alpha,
        })))
    }
}

struct SacLearner {
    settings: Sac,
    bounds: Bounds,
    actions: Space,
    actor: Network,
    critic: Network,
    target: Network,
    /// Logarithm of the temperature.
    log_alpha: Scalar,
}

impl SacLearner {
    fn width(&self) -> usize {
        self.bounds.scale.len()
    }

    fn gaussian(&self, outputs: &[f32]) -> Gaussian {
        squashed::gaussian(outputs, self.width())
    }

    fn alpha(&self) -> f32 {
        self.log_alpha.value().exp()
    }

    fn learn_critics(&mut self, batch: &Batch, noise: &[f32]) -> Metrics {
        let (n, d, alpha) = (batch.len(), self.width(), self.alpha());
        let observation = self.actor.mlp.shape().inputs;
        let next = self.gaussian(&self.actor.evaluate(&batch.next_observations));
        let next = Squashed::new(&next, noise, &self.bounds);
        let values = self.target.evaluate(&beside(&batch.next_observations, observation, &next.actions, d));
        let (lesser, _) = least(&values, n);
        let gamma = self.settings.gamma as f32;
        let aim = |row: usize| {
            batch.rewards[row]
                + gamma * (1.0 - batch.terminated[row]) * (lesser[row] - alpha * next.logps[row])
        };
        let aims: Vec<f32> = (0..n).map(aim).collect();
        let x = beside(&batch.observations, observation, &batch.actions, d);
        let adam = Adam { learning_rate: self.settings.critic_rate, epsilon: 1e-8 };
        regress(&mut self.critic, &x, &aims, adam)
    }

    fn learn_policy(&mut self, batch: &Batch, noise: &[f32], fresh: &[f32]) -> Metrics {
        let (n, d, alpha) = (batch.len(), self.width(), self.alpha());
        let observation = self.actor.mlp.shape().inputs;
        let tape = self.actor.forward(&batch.observations);
        let outputs = tape.outputs();
        let drawn = Squashed::new(&self.gaussian(&outputs), noise, &self.bounds);
        let judged = self.critic.forward(&beside(&batch.observations, observation, &drawn.actions, d));
        let (lesser, whose) = least(&judged.outputs(), n);
        let mut dvalues = vec![0.0; 2 * n];
        whose.iter().enumerate().for_each(|(row, member)| dvalues[member * n + row] = -1.0 / n as f32);
        let dactions = last_columns(&self.critic.slope(&judged, &dvalues), observation + d, d);
        let (dmeans, dlog_stds) = drawn.push_back(&dactions, &vec![alpha / n as f32; n]);
        let mut gradients = self.actor.gradients();
        self.actor.push_back(
            &tape,
            &squashed::through_heads(&outputs, &dmeans, &dlog_stds, d),
            &mut gradients,
        );
        self.actor.step(gradients, Adam { learning_rate: self.settings.policy_rate, epsilon: 1e-8 }, 1.0);
        let mean = |numbers: &[f32]| numbers.iter().sum::<f32>() / numbers.len() as f32;
        let loss = alpha * mean(&drawn.logps) - mean(&lesser);
        let mut metrics: Metrics = [("losses/actor_loss", loss), ("losses/entropy", -mean(&drawn.logps))]
            .into_iter()
            .map(|(name, value)| (name, f64::from(value)))
            .collect();
        if self.settings.alpha.is_none() {
            let target = self.settings.target_entropy.unwrap_or(-(d as f64)) as f32;
            let fresh =
                Squashed::new(&self.gaussian(&self.actor.evaluate(&batch.observations)), fresh, &self.bounds);
            let slope = -alpha * (mean(&fresh.logps) + target);
            let adam = Adam { learning_rate: self.settings.critic_rate, epsilon: 1e-8 };
            self.log_alpha.step(slope, adam);
            metrics.set("losses/alpha_loss", f64::from(slope));
        }
        metrics.set("losses/alpha", f64::from(self.alpha()));
        metrics
    }
}

impl off_policy::Learner for SacLearner {
    fn schedule(&self) -> Schedule {
        let Sac { random_steps, train_every, updates, batch, buffer, .. } = self.settings;
        Schedule { random_steps, every: train_every, updates, batch, capacity: buffer }
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        let noise = seeds.normal(self.width(), "policy/noise", step);
        Action::Continuous(
            Squashed::new(&self.gaussian(&self.actor.evaluate(observation)), &noise, &self.bounds).actions,
        )
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let count = batch.len() * self.width();
        let mut metrics = self.learn_critics(batch, &seeds.normal(count, "sac/next", update));
        if update.is_multiple_of(self.settings.policy_every) {
            for step in 0..self.settings.policy_every {
                let noise = seeds.normal(count, "sac/policy", update + step);
                let fresh = seeds.normal(count, "sac/temperature", update + step);
                metrics.merge(&self.learn_policy(batch, &noise, &fresh));
            }
        }
        self.target.parameters.move_towards(&self.critic.parameters, self.settings.tau);
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        super::policy_of(environment, &self.actions, Head::Squashed, &self.actor, None)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.actor.save("actor", tensors);
        self.critic.save("critic", tensors);
        self.target.save_weights("target", tensors);
        self.log_alpha.save("temperature", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.load("actor", tensors)?;
        self.critic.load("critic", tensors)?;
        self.target.load_weights("target", tensors)?;
        self.log_alpha.load("temperature", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "sac",
    title: "Soft actor-critic",
    paper: "Haarnoja, Zhou, Hartikainen, Tucker, Ha, Tan, Kumar, Zhu, Gupta, Abbeel, Levine: Soft Actor-Critic Algorithms \
            and Applications",
    arxiv: "1812.05905",
    year: 2018,
    family: super::FAMILY,
    summary: "off-policy control of numbers with a policy that keeps its entropy, the temperature being learnt",
    claim: "learns from few steps and stably where actions are numbers; here a baseline",
    equation: "y = r + gamma (1 - terminated) [min Q'(s',a') - alpha log pi(a'|s')]\n\
               L_Q = mean (Q_1 - y)^2 + mean (Q_2 - y)^2,   L_pi = mean alpha log pi(a|s) - min Q(s,a)\n\
               L_alpha = mean -alpha (log pi(a|s) + H)",
    symbols: &[
        ("Q, Q'", "two critics, and their slow copies (method.tau)"),
        ("a', a", "fresh actions of the policy, squashed by tanh into their bounds"),
        (
            "alpha, H",
            "temperature (method.alpha, or learnt), and entropy it aims at (method.target_entropy), nats",
        ),
    ],
    metrics: &[
        ("charts/episodic_return", "undiscounted return of an episode that ended"),
        ("losses/qf_loss, losses/qf_values", "loss of both critics, and their mean value"),
        ("losses/actor_loss", "loss of the policy"),
        ("losses/alpha", "temperature, reward per nat"),
        ("losses/entropy", "mean entropy of the actions drawn, nats"),
    ],
    reach_for: "actions that are numbers, and steps that are dear",
    avoid_when: "actions are choices (dqn, ppo), or the simulator is so fast that ppo wins by the clock",
    failure_signs: &[
        "qf_values grow without bound: lower method.critic_rate or method.gamma",
        "alpha falls to 0 at once: rewards are small; scale them, or set method.alpha",
    ],
    variants: &[
        ("a fixed temperature", "method.alpha = 0.1"),
        ("policy at every update", "method.policy_every = 1"),
    ],
};
