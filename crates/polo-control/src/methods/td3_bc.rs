//! TD3+BC: TD3 that stays near its data (Fujimoto & Gu 2021, arXiv 2106.06860).
//!
//! Critics are TD3's. The policy climbs the first critic, made comparable to an imitation term by lambda:
//!
//! ```text
//! L_mu   = -lambda mean Q_1(s, mu(s)) + mean over rows and dimensions of (mu(s) - a)²
//! lambda = alpha / mean |Q_1(s, mu(s))|, held fixed
//! ```
//!
//! Observations are normalised by the dataset's mean and deviation. Actions are in half widths of their range in the
//! imitation term, so that alpha means the same whatever the range.

use polo_nn::files::Tensors;
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, Source};
use crate::{
    data::Wishes,
    deterministic::{Deterministic, Target, mean},
    network::Adam,
    off_policy::{self, Schedule},
    policy::Policy,
    settings::MethodSettings,
};

/// Settings of `polo train td3-bc`. Defaults from the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Td3Bc {
    /// How much the critic's word counts against imitation.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// Step size of both Adams.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far targets move at each change of the policy.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Standard deviation of the noise of the target's actions, in half widths of the action's range.
    #[schemars(range(min = 0.0))]
    pub target_noise: f64,
    /// Where that noise is cut, in half widths.
    #[schemars(range(min = 0.0))]
    pub noise_clip: f64,
    /// Updates from one change of the policy to the next.
    #[schemars(range(min = 1))]
    pub policy_every: u64,
    /// Standard deviation of the noise of actions that are tried in an environment after the data, in half widths.
    #[schemars(range(min = 0.0))]
    pub exploration_noise: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Widths of the hidden layers of policy and critics.
    pub hidden: Vec<usize>,
}

impl Default for Td3Bc {
    fn default() -> Self {
        Self {
            alpha: 2.5,
            learning_rate: 3e-4,
            gamma: 0.99,
            tau: 0.005,
            target_noise: 0.2,
            noise_clip: 0.5,
            policy_every: 2,
            exploration_noise: 0.1,
            batch: 256,
            hidden: vec![256, 256],
        }
    }
}

impl Settings for Td3Bc {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Td3Bc {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Td3Bc {
    fn source(&self) -> Source {
        Source::Data
    }

    fn wishes(&self) -> Wishes {
        Wishes { normalise: true, ..Wishes::default() }
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let networks = Deterministic::new(observations, actions, &self.hidden, seeds)?;
        Ok(Learner::OffPolicy(Box::new(Td3BcLearner { settings: self.clone(), networks })))
    }
}

struct Td3BcLearner {
    settings: Td3Bc,
    networks: Deterministic,
}

/// lambda = alpha / mean |Q|.
pub(crate) fn lambda(alpha: f64, values: &[f32]) -> f32 {
    alpha as f32 / (values.iter().map(|value| value.abs()).sum::<f32>() / values.len() as f32)
}

/// The mean over rows and dimensions of ((own - imitated) / scale)², each row times its weight, and its slopes in `own`.
pub(crate) fn imitation(own: &[f32], imitated: &[f32], scale: &[f32], weights: &[f32]) -> (f32, Vec<f32>) {
    let (d, count) = (scale.len(), own.len() as f32);
    let mut loss = 0.0;
    let slopes = own
        .iter()
        .zip(imitated)
        .enumerate()
        .map(|(place, (own, imitated))| {
            let (weight, scale) = (weights[place / d] / count, scale[place % d]);
            let distance = (own - imitated) / scale;
            loss += weight * distance * distance;
            2.0 * weight * distance / scale
        })
        .collect();
    (loss, slopes)
}

impl off_policy::Learner for Td3BcLearner {
    fn schedule(&self) -> Schedule {
        super::offline_schedule(self.settings.batch)
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        Action::Continuous(self.networks.explore(observation, self.settings.exploration_noise, step, seeds))
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let Td3Bc { gamma, tau, target_noise: noise, noise_clip: clip, policy_every, .. } = self.settings;
        let adam = Adam { learning_rate: self.settings.learning_rate, epsilon: 1e-8 };
        let target = Target { gamma, noise, clip };
        let mut metrics = self.networks.learn_critics(batch, target, update, seeds, adam).metrics;
        if update.is_multiple_of(policy_every) {
            let judged = self.networks.judge(batch);
            let weight = lambda(self.settings.alpha, &judged.values);
            let ones = vec![1.0; batch.len()];
            let (loss, pulls) =
                imitation(&judged.actions, &batch.actions, &self.networks.bounds.scale, &ones);
            self.networks.climb(&judged, weight, &pulls, adam);
            self.networks.follow(tau);
            metrics.set("losses/actor_loss", f64::from(loss - weight * mean(&judged.values)));
            metrics.set("losses/imitation", f64::from(loss));
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
    slug: "td3-bc",
    title: "TD3 with behaviour cloning",
    paper: "Fujimoto, Gu: A Minimalist Approach to Offline Reinforcement Learning",
    arxiv: "2106.06860",
    year: 2021,
    family: super::FAMILY,
    summary: "offline control: TD3 whose policy also imitates the actions of the data",
    claim: "one imitation term and normalised observations make TD3 as good offline as far more involved methods; here a \
            baseline",
    equation: "L_mu = -lambda mean Q_1(s, mu(s)) + mean (mu(s) - a)²,   lambda = alpha / mean |Q_1(s, mu(s))|\n\
               Q_1, Q_2 as in td3",
    symbols: &[
        ("mu, Q", "policy and critics, as in td3"),
        ("a", "the action of the data"),
        ("alpha", "how much the critic counts (method.alpha)"),
    ],
    metrics: &[
        ("losses/qf_loss, losses/qf_values", "loss of both critics, and their mean value"),
        ("losses/actor_loss", "loss of the policy"),
        ("losses/imitation", "mean squared distance from the actions of the data, in half widths"),
    ],
    reach_for: "data of a reasonable policy and actions that are numbers: the first offline method to try",
    avoid_when: "most of the data is bad: imitation pulls towards it (a2pr, iql, or data.sampling = advantage)",
    failure_signs: &[
        "qf_values grow without bound: lower method.alpha",
        "the policy is no better than bc: raise method.alpha",
    ],
    variants: &[
        ("TD3 without imitation", "method.alpha = 1e4"),
        (
            "fine-tuned in an environment",
            "--env ID --set data.offline_steps=100000 --set training.steps=200000",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_makes_the_scale_of_values_not_matter() {
        let values = [1.0f32, -2.0, 3.0];
        let scaled = values.map(|value| 7.0 * value);
        let term = |values: &[f32]| lambda(2.5, values) * mean(values);
        assert!((term(&values) - term(&scaled)).abs() < 1e-6);
        assert_eq!(term(&values), 2.5 / 2.0 * (2.0 / 3.0));
    }

    #[test]
    fn imitation_is_a_mean_over_rows_and_dimensions() {
        let (loss, slopes) =
            imitation(&[1.0, 0.0, 0.5, 0.5], &[0.0, 0.0, 0.5, 1.5], &[1.0, 2.0], &[1.0, 1.0]);
        assert_eq!((loss, slopes), ((1.0 + 0.25) / 4.0, vec![0.5, 0.0, 0.0, -0.125]));
        assert_eq!(imitation(&[1.0], &[0.0], &[1.0], &[0.0]), (0.0, vec![0.0]));
    }
}
