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

use polo_nn::{files::Tensors, mlp::Init};
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner};
use crate::{
    deterministic::mean,
    network::{Adam, regress},
    off_policy::{self, Schedule},
    policy::Policy,
    settings::MethodSettings,
    soft::{Design, Heads, Judgement, Soft},
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
        let design = Design {
            hidden: &self.hidden,
            critics: 2,
            layer_norm: false,
            policy_init: (Init::Torch, Init::Torch),
            critic_init: (Init::Torch, Init::Torch),
            heads: Heads::Squeezed,
            alpha: self.alpha,
            target_entropy: self.target_entropy.unwrap_or(-(actions.size() as f64)),
        };
        let soft = Soft::new(observations, actions, design, seeds)?;
        Ok(Learner::OffPolicy(Box::new(SacLearner { settings: self.clone(), soft })))
    }
}

struct SacLearner {
    settings: Sac,
    soft: Soft,
}

impl SacLearner {
    fn learn_critics(&mut self, batch: &Batch, noise: &[f32]) -> Metrics {
        let x = self.soft.pairs(&batch.observations, &batch.actions);
        let adam = Adam { learning_rate: self.settings.critic_rate, epsilon: 1e-8 };
        let aims = self.soft.aims(batch, noise, self.settings.gamma, self.soft.alpha(), None);
        regress(&mut self.soft.critic, &x, &aims, adam)
    }

    fn learn_policy(&mut self, batch: &Batch, noise: &[f32], fresh: &[f32]) -> Metrics {
        let Sac { policy_rate, critic_rate, .. } = self.settings;
        let (mut metrics, _) = self.soft.climb(&batch.observations, noise, Judgement::Least, policy_rate);
        let surprise = match self.soft.learns_temperature() {
            true => mean(&self.soft.draw(&batch.observations, fresh).logps),
            false => 0.0,
        };
        metrics.merge(&self.soft.learn_temperature(surprise, self.soft.alpha(), critic_rate));
        metrics
    }
}

impl off_policy::Learner for SacLearner {
    fn schedule(&self) -> Schedule {
        let Sac { random_steps, train_every, updates, batch, buffer, .. } = self.settings;
        Schedule { random_steps, every: train_every, updates, batch, capacity: buffer }
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        self.soft.explore(observation, step, seeds)
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let count = batch.len() * self.soft.width();
        let mut metrics = self.learn_critics(batch, &seeds.normal(count, "sac/next", update));
        if update.is_multiple_of(self.settings.policy_every) {
            for step in 0..self.settings.policy_every {
                let noise = seeds.normal(count, "sac/policy", update + step);
                let fresh = seeds.normal(count, "sac/temperature", update + step);
                metrics.merge(&self.learn_policy(batch, &noise, &fresh));
            }
        }
        self.soft.follow(self.settings.tau);
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        self.soft.policy(environment)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.soft.save(tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.soft.load(tensors)
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
