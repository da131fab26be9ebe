//! RLPD: online learning with logged data beside it from the first step (Ball et al. 2023, arXiv 2302.02948).
//!
//! Soft actor-critic, half of each batch being logged data (`data.share`), with many updates to a step, made stable by
//! layer norm in the critics and by many of them:
//!
//! ```text
//! y       = r + gamma (1 - terminated) [min over a random subset of Q'_i(s', a') - alpha log pi(a'|s')],   a' ~ pi(s')
//! L_Q     = mean over critics and rows of (Q_i(s,a) - y)²
//! L_pi    = mean alpha log pi(a|s) - mean over critics of Q_i(s,a),   a ~ pi(s)
//! L_alpha = -alpha (mean log pi(a|s) + H),   H minus half the number of action dimensions
//! ```
//!
//! The subset is drawn anew for each update of the critics, for all of its rows. Targets move after each; policy and
//! temperature step at the last of a step's updates, on its batch.

use polo_nn::{files::Tensors, mlp::Init};
use polo_run::{
    Result,
    card::MethodCard,
    config::Settings,
    metrics::Metrics,
    seed::{Seeds, below},
};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, Source};
use crate::{
    network::{Adam, squared},
    off_policy::{self, Schedule},
    policy::Policy,
    settings::MethodSettings,
    soft::{Design, Heads, Judgement, Soft, few_critics},
};

/// Settings of `polo train rlpd`. Defaults from the paper's locomotion runs, and where it is silent from its
/// implementation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rlpd {
    /// Number of critics.
    #[schemars(range(min = 1, max = 10_000))]
    pub critics: usize,
    /// How many of them, drawn anew for each update, the target is the least of. The paper: 1 or 2, by the task.
    #[schemars(range(min = 1))]
    pub subset: usize,
    /// Whether the critics' hidden layers are normalised.
    pub layer_norm: bool,
    /// Whether the target counts the entropy of the policy. The paper leaves it out where rewards are sparse.
    pub entropy_backup: bool,
    /// Updates of the critics to a step in the environment; policy and temperature step once.
    #[schemars(range(min = 1))]
    pub updates: u64,
    /// Step size of all Adams.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far the targets move towards the critics at each update.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Temperature alpha, in units of reward per nat; unset by default: learnt, from 1 on.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub alpha: Option<f64>,
    /// Entropy that a learnt temperature aims at, nats; unset by default: minus half the number of action dimensions.
    pub target_entropy: Option<f64>,
    /// Transitions of an update, of which `data.share` are logged ones.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Transitions that are remembered.
    #[schemars(range(min = 1))]
    pub buffer: usize,
    /// Steps of random actions at the beginning, in which nothing is learnt.
    pub random_steps: u64,
    /// Widths of the hidden layers of policy and critics.
    pub hidden: Vec<usize>,
}

impl Default for Rlpd {
    fn default() -> Self {
        Self {
            critics: 10,
            subset: 2,
            layer_norm: true,
            entropy_backup: true,
            updates: 20,
            learning_rate: 3e-4,
            gamma: 0.99,
            tau: 0.005,
            alpha: None,
            target_entropy: None,
            batch: 256,
            buffer: 1_000_000,
            random_steps: 10_000,
            hidden: vec![256, 256],
        }
    }
}

impl Settings for Rlpd {
    fn check(&self) -> Result<()> {
        if self.subset > self.critics {
            let what = format!("a subset of {} needs as many critics", self.subset);
            return Err(few_critics(&what, self.subset));
        }
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Rlpd {
    const SLUG: &'static str = CARD.slug;
}

/// Least and most of the logarithm of the policy's standard deviation.
const LOG_STD: (f32, f32) = (-20.0, 2.0);

impl Control for Rlpd {
    fn source(&self) -> Source {
        Source::Both
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        Ok(Learner::OffPolicy(Box::new(self.own(observations, actions, seeds)?)))
    }
}

impl Rlpd {
    fn own(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<RlpdLearner> {
        let init = (Init::Xavier(1.0), Init::Xavier(1.0));
        let design = Design {
            hidden: &self.hidden,
            critics: self.critics,
            layer_norm: self.layer_norm,
            policy_init: init,
            critic_init: init,
            heads: Heads::Clamped(LOG_STD),
            alpha: self.alpha,
            target_entropy: self.target_entropy.unwrap_or(-0.5 * actions.size() as f64),
        };
        let soft = Soft::new(observations, actions, design, seeds)?;
        Ok(RlpdLearner { settings: self.clone(), soft })
    }
}

struct RlpdLearner {
    settings: Rlpd,
    soft: Soft,
}

/// `count` of `of` numbers from 0 on, drawn without putting back.
fn subset(count: usize, of: usize, seeds: &Seeds, update: u64) -> Vec<usize> {
    let mut rng = seeds.rng("rlpd/subset", update);
    let mut all: Vec<usize> = (0..of).collect();
    for place in 0..count {
        all.swap(place, place + below(&mut rng, (of - place) as u64) as usize);
    }
    all.truncate(count);
    all
}

impl RlpdLearner {
    fn learn_critics(&mut self, batch: &Batch, noise: &[f32], members: &[usize]) -> Metrics {
        let Rlpd { critics, gamma, learning_rate, entropy_backup, .. } = self.settings;
        let alpha = if entropy_backup { self.soft.alpha() } else { 0.0 };
        let aims = self.soft.aims(batch, noise, gamma, alpha, Some(members));
        let x = self.soft.pairs(&batch.observations, &batch.actions);
        let critic = &mut self.soft.critic;
        let tape = critic.forward(&x);
        let (slopes, mut metrics) = squared(&tape.outputs(), &aims);
        let mut gradients = critic.gradients();
        critic.push_back(&tape, &slopes, &mut gradients);
        let share = (critics as f64).recip();
        critic.step(gradients, Adam { learning_rate, epsilon: 1e-8 }, share);
        let loss = metrics.get("losses/qf_loss").unwrap_or_default();
        metrics.set("losses/qf_loss", share * loss);
        metrics
    }
}

impl off_policy::Learner for RlpdLearner {
    fn schedule(&self) -> Schedule {
        let Rlpd { random_steps, updates, batch, buffer, .. } = self.settings;
        Schedule { random_steps, every: 1, updates, batch, capacity: buffer }
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        self.soft.explore(observation, step, seeds)
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let Rlpd { critics, subset: count, updates, tau, learning_rate, .. } = self.settings;
        let noise = |stream| seeds.normal(batch.len() * self.soft.width(), stream, update);
        let [own, next] = ["rlpd/policy", "rlpd/next"].map(noise);
        let mut metrics = self.learn_critics(batch, &next, &subset(count, critics, seeds, update));
        self.soft.follow(tau);
        if (update + 1).is_multiple_of(updates) {
            let (climbed, surprise) =
                self.soft.climb(&batch.observations, &own, Judgement::Mean, learning_rate);
            metrics.merge(&climbed);
            metrics.merge(&self.soft.learn_temperature(surprise, self.soft.alpha(), learning_rate));
        }
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
    slug: "rlpd",
    title: "Reinforcement learning with prior data",
    paper: "Ball, Smith, Kostrikov, Levine: Efficient Online Reinforcement Learning with Offline Data",
    arxiv: "2302.02948",
    year: 2023,
    family: super::FAMILY,
    summary: "online control with logged data in half of each batch, from the first step on",
    claim: "SAC with symmetric sampling, layer norm in its critics and many updates beats methods that learn offline first; \
            here a baseline",
    equation: "y = r + gamma (1 - terminated) [min over a random subset of Q'_i(s',a') - alpha log pi(a'|s')]\n\
               L_Q = mean over critics and rows of (Q_i - y)²,   L_pi = mean alpha log pi(a|s) - mean over critics of Q_i\n\
               L_alpha = -alpha (mean log pi(a|s) + H)",
    symbols: &[
        ("Q_i, Q'_i", "critics with layer norm (method.critics), and their slow copies (method.tau)"),
        ("subset", "method.subset of them, drawn anew for each update"),
        ("a', a", "fresh actions of the policy, squashed by tanh into their bounds"),
        (
            "alpha, H",
            "temperature (method.alpha, or learnt), and entropy it aims at (method.target_entropy), nats",
        ),
    ],
    metrics: &[
        ("charts/episodic_return", "undiscounted return of an episode that ended"),
        ("losses/qf_loss, losses/qf_values", "mean of the critics' losses, and their mean value"),
        ("losses/actor_loss", "loss of the policy"),
        ("losses/alpha", "temperature, reward per nat"),
        ("losses/entropy", "mean entropy of the actions drawn, nats"),
    ],
    reach_for: "an environment whose steps are dear, and data of it, good or bad",
    avoid_when: "there is no environment (iql, td3-bc, edac), or the simulator is so fast that ppo wins by the clock",
    failure_signs: &[
        "qf_values grow without bound: keep method.layer_norm, lower method.updates",
        "returns stay where random actions are: rewards are rare; method.subset = 1 and no method.entropy_backup",
    ],
    variants: &[
        ("sparse rewards", "method.subset = 1, method.entropy_backup = false"),
        ("few updates, for speed", "method.updates = 1"),
        ("offline first", "--set data.offline_steps=10000"),
    ],
};

#[cfg(test)]
#[path = "rlpd_tests.rs"]
mod tests;
