//! SAC-N: soft actor-critic on logged data, pessimistic through the least of many critics (An et al. 2021, arXiv
//! 2110.01548).
//!
//! ```text
//! y       = r + gamma (1 - terminated) [min over N of Q'_i(s', a') - alpha log pi(a'|s')],   a' ~ pi(s')
//! L_Q     = sum over N of mean (Q_i(s,a) - y)²   (+ eta ES, see edac)
//! L_pi    = mean alpha log pi(a|s) - min over N of Q_i(s,a),   a ~ pi(s)
//! L_alpha = -log alpha (mean log pi(a|s) + H),   H minus the number of action dimensions
//! ```
//!
//! An update steps temperature, policy, critics and targets, in this order. Weights begin as the paper's: biases of
//! hidden layers 0.1, last layers of critics uniform in ±3e-3, of the policy in ±1e-3. Weights of hidden layers are
//! uniform in ±1/sqrt(inputs), for critics, too, whose released implementation divides by the root of the outputs.

use polo_nn::{files::Tensors, mlp::Init};
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, Source, edac::diversity};
use crate::{
    deterministic::mean,
    network::{Adam, squared},
    off_policy::{self, Schedule},
    policy::Policy,
    settings::MethodSettings,
    soft::{Design, Heads, Judgement, Soft, few_critics},
};

/// Settings of `polo train sac-n`. Defaults from the paper's halfcheetah runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SacN {
    /// Number of critics N: the more, the more pessimistic about actions that the data does not show. The paper: 10 for
    /// halfcheetah, 20 for walker2d, 200 to 500 for hopper; with diversity 10 to 50.
    #[schemars(range(min = 1, max = 10_000))]
    pub critics: usize,
    /// Weight eta of the diversity of the critics' slopes, EDAC's; 0 is SAC-N. It needs two critics.
    #[schemars(range(min = 0.0))]
    pub eta: f64,
    /// Step size of all Adams.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far the targets move towards the critics at each update.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Temperature alpha, in units of reward per nat; unset by default: learnt.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub alpha: Option<f64>,
    /// Entropy that a learnt temperature aims at, nats; unset by default: minus the number of action dimensions.
    pub target_entropy: Option<f64>,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Widths of the hidden layers of policy and critics.
    pub hidden: Vec<usize>,
}

impl Default for SacN {
    fn default() -> Self {
        Self {
            critics: 10,
            eta: 0.0,
            learning_rate: 3e-4,
            gamma: 0.99,
            tau: 0.005,
            alpha: None,
            target_entropy: None,
            batch: 256,
            hidden: vec![256, 256, 256],
        }
    }
}

impl Settings for SacN {
    fn check(&self) -> Result<()> {
        if self.eta > 0.0 && self.critics < 2 {
            return Err(few_critics("diversity is between two critics at least", 2));
        }
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for SacN {
    const SLUG: &'static str = CARD.slug;
}

/// Least and most of the logarithm of the policy's standard deviation.
const LOG_STD: (f32, f32) = (-5.0, 2.0);

impl Control for SacN {
    fn source(&self) -> Source {
        Source::Data
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        Ok(Learner::OffPolicy(Box::new(self.ensemble(observations, actions, seeds)?)))
    }
}

impl SacN {
    pub(super) fn ensemble(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Ensemble> {
        let design = Design {
            hidden: &self.hidden,
            critics: self.critics,
            layer_norm: false,
            policy_init: (Init::TorchWithBias(0.1), Init::Uniform(1e-3)),
            critic_init: (Init::TorchWithBias(0.1), Init::Uniform(3e-3)),
            heads: Heads::Clamped(LOG_STD),
            alpha: self.alpha,
            target_entropy: self.target_entropy.unwrap_or(-(actions.size() as f64)),
        };
        let soft = Soft::new(observations, actions, design, seeds)?;
        Ok(Ensemble { settings: self.clone(), soft })
    }
}

/// The learner of SAC-N and EDAC.
pub(super) struct Ensemble {
    settings: SacN,
    pub(super) soft: Soft,
}

impl Ensemble {
    fn learn_critics(&mut self, batch: &Batch, noise: &[f32]) -> Metrics {
        let SacN { gamma, eta, learning_rate, .. } = self.settings;
        let aims = self.soft.aims(batch, noise, gamma, self.soft.alpha(), None);
        let x = self.soft.pairs(&batch.observations, &batch.actions);
        let critic = &mut self.soft.critic;
        let tape = critic.forward(&x);
        let (slopes, mut metrics) = squared(&tape.outputs(), &aims);
        let mut gradients = critic.gradients();
        critic.push_back(&tape, &slopes, &mut gradients);
        if eta > 0.0 {
            let found = diversity(critic, &tape, &self.soft.bounds.scale, eta, &mut gradients);
            metrics.set("losses/diversity", f64::from(found));
        }
        critic.step(gradients, Adam { learning_rate, epsilon: 1e-8 }, 1.0);
        metrics
    }
}

impl off_policy::Learner for Ensemble {
    fn schedule(&self) -> Schedule {
        super::offline_schedule(self.settings.batch)
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        self.soft.explore(observation, step, seeds)
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let rate = self.settings.learning_rate;
        let noise = |stream| seeds.normal(batch.len() * self.soft.width(), stream, update);
        let [fresh, own, next] = ["sac-n/temperature", "sac-n/policy", "sac-n/next"].map(noise);
        let surprise = match self.soft.learns_temperature() {
            true => mean(&self.soft.draw(&batch.observations, &fresh).logps),
            false => 0.0,
        };
        let mut metrics = self.soft.learn_temperature(surprise, 1.0, rate);
        let (climbed, _) = self.soft.climb(&batch.observations, &own, Judgement::Least, rate);
        metrics.merge(&climbed);
        metrics.merge(&self.learn_critics(batch, &next));
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
    slug: "sac-n",
    title: "Soft actor-critic with N critics",
    paper: "An, Moon, Kim, Song: Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble",
    arxiv: "2110.01548",
    year: 2021,
    family: super::FAMILY,
    summary: "offline control: SAC that trusts the least of many critics",
    claim: "enough critics alone make SAC a strong offline method, without any term that imitates the data; here a baseline",
    equation: "y = r + gamma (1 - terminated) [min over N of Q'_i(s',a') - alpha log pi(a'|s')]\n\
               L_Q = sum over N of mean (Q_i - y)²,   L_pi = mean alpha log pi(a|s) - min over N of Q_i(s,a)\n\
               L_alpha = -log alpha (mean log pi(a|s) + H)",
    symbols: &[
        ("Q_i, Q'_i", "critics (method.critics), and their slow copies (method.tau)"),
        ("a', a", "fresh actions of the policy, squashed by tanh into their bounds"),
        (
            "alpha, H",
            "temperature (method.alpha, or learnt), and entropy it aims at (method.target_entropy), nats",
        ),
    ],
    metrics: &[
        ("losses/qf_loss, losses/qf_values", "sum of the critics' losses, and their mean value"),
        ("losses/actor_loss", "loss of the policy"),
        ("losses/alpha", "temperature, reward per nat"),
        ("losses/entropy", "mean entropy of the actions drawn, nats"),
    ],
    reach_for: "data of mixed quality, and time: no term has to be weighed against imitation",
    avoid_when: "time is short (td3-bc, iql), or data is narrow, as of one good policy (td3-bc)",
    failure_signs: &[
        "qf_values grow without bound: raise method.critics",
        "qf_values fall without bound: lower method.critics",
    ],
    variants: &[
        ("diverse critics", "polo train edac"),
        (
            "fine-tuned in an environment",
            "--env ID --set data.offline_steps=100000 --set training.steps=200000",
        ),
    ],
};
