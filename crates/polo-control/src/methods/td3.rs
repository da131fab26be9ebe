//! TD3: twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477).
//!
//! ```text
//! a'   = clip(mu'(s') + clip(scale N(0, sigma^2), -c scale, c scale), low, high)
//! y    = r + gamma (1 - terminated) min Q'(s', a')
//! L_Q  = mean (Q_1(s,a) - y)^2 + mean (Q_2(s,a) - y)^2
//! L_mu = -mean Q_1(s, mu(s))      at every second update, when all targets follow
//! ```

use polo_nn::files::Tensors;
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner};
use crate::{
    deterministic::{Deterministic, Target, mean},
    network::Adam,
    off_policy::{self, Schedule},
    policy::Policy,
    settings::MethodSettings,
};

/// Settings of `polo train td3`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Td3 {
    /// Step size of both Adams. Default from CleanRL.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far targets move at each change of the policy.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Standard deviation of the noise of actions that are tried, in half widths of the action's range.
    #[schemars(range(min = 0.0))]
    pub exploration_noise: f64,
    /// Standard deviation of the noise of the target's actions, in half widths.
    #[schemars(range(min = 0.0))]
    pub target_noise: f64,
    /// Where that noise is cut, in half widths.
    #[schemars(range(min = 0.0))]
    pub noise_clip: f64,
    /// Updates from one change of the policy to the next.
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

impl Default for Td3 {
    fn default() -> Self {
        Self {
            learning_rate: 3e-4,
            gamma: 0.99,
            tau: 0.005,
            exploration_noise: 0.1,
            target_noise: 0.2,
            noise_clip: 0.5,
            policy_every: 2,
            batch: 256,
            buffer: 1_000_000,
            random_steps: 25_000,
            train_every: 1,
            updates: 1,
            hidden: vec![256, 256],
        }
    }
}

impl Settings for Td3 {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Td3 {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Td3 {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let networks = Deterministic::new(observations, actions, &self.hidden, seeds)?;
        Ok(Learner::OffPolicy(Box::new(Td3Learner { settings: self.clone(), networks })))
    }
}

struct Td3Learner {
    settings: Td3,
    networks: Deterministic,
}

impl off_policy::Learner for Td3Learner {
    fn schedule(&self) -> Schedule {
        let Td3 { random_steps, train_every, updates, batch, buffer, .. } = self.settings;
        Schedule { random_steps, every: train_every, updates, batch, capacity: buffer }
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        Action::Continuous(self.networks.explore(observation, self.settings.exploration_noise, step, seeds))
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let Td3 { gamma, tau, target_noise: noise, noise_clip: clip, policy_every, .. } = self.settings;
        let adam = Adam { learning_rate: self.settings.learning_rate, epsilon: 1e-8 };
        let target = Target { gamma, noise, clip };
        let mut metrics = self.networks.learn_critics(batch, target, update, seeds, adam).metrics;
        if update.is_multiple_of(policy_every) {
            let judged = self.networks.judge(batch);
            self.networks.climb(&judged, 1.0, &[], adam);
            self.networks.follow(tau);
            metrics.set("losses/actor_loss", -f64::from(mean(&judged.values)));
        }
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        self.networks.policy(environment)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.networks.save(tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.networks.load(tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "td3",
    title: "Twin delayed deep deterministic policy gradient",
    paper: "Fujimoto, van Hoof, Meger: Addressing Function Approximation Error in Actor-Critic Methods",
    arxiv: "1802.09477",
    year: 2018,
    family: super::FAMILY,
    summary: "off-policy control of numbers with a deterministic policy, two critics and smoothed targets",
    claim: "two critics, delayed policies and smoothed targets cure DDPG's overestimation; here a baseline",
    equation: "y = r + gamma (1 - terminated) min Q'(s', a'),   a' = clip(mu'(s') + clip(noise))\n\
               L_Q = mean (Q_1 - y)^2 + mean (Q_2 - y)^2,   L_mu = -mean Q_1(s, mu(s)) at every second update",
    symbols: &[
        ("Q, mu", "two critics, and the policy"),
        ("Q', mu'", "their slow copies (method.tau)"),
        ("noise", "normal, method.target_noise half widths, cut at method.noise_clip"),
    ],
    metrics: &[
        ("charts/episodic_return", "undiscounted return of an episode that ended"),
        ("losses/qf_loss, losses/qf_values", "loss of both critics, and their mean value"),
        ("losses/actor_loss", "minus the first critic's mean value of the policy's actions"),
    ],
    reach_for: "actions that are numbers, with a deterministic policy at the end",
    avoid_when: "exploration is hard: sac keeps its entropy; actions are choices: dqn or ppo",
    failure_signs: &[
        "qf_values grow without bound: lower method.learning_rate or method.gamma",
        "the policy sticks to the bounds: raise method.exploration_noise or method.random_steps",
    ],
    variants: &[("DDPG (with two critics)", "method.policy_every = 1, method.target_noise = 0")],
};
