//! Logged data, made ready to be learnt from: drawn from as asked, normalised, its rewards rescaled.

use std::path::PathBuf;

use polo_run::{Problem, Result, config::Settings, seed::unit};
use polo_sim::{
    Space,
    dataset::{Dataset, width},
    replay::Batch,
};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    methods::trajectory_weighting::{self, Sampling},
    normalise::Running,
};

/// `[data]`: what was logged before, for methods that learn from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Datasets, the same as `--data`; several of one environment are joined.
    pub train: Vec<PathBuf>,
    /// Which transitions are drawn more often: those of good episodes, or all alike.
    pub sampling: Sampling,
    /// Temperature alpha of `sampling` by return or advantage: a small one keeps the best episodes only. Default from
    /// the trajectory weighting paper.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// Share of the episodes that `sampling = "top"` keeps.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub top: f64,
    /// Let an episode's share of what is drawn not grow with its length.
    pub equal_lengths: bool,
    /// Show networks observations of mean 0 and deviation 1 over the data. Unset by default: as the method's reference
    /// implementation does.
    pub normalise: Option<bool>,
    /// First divide rewards so that the best and the worst episode's return are 1000 apart.
    pub reward_range: bool,
    /// Rewards are taken times this,
    pub reward_scale: f64,
    /// and then this is added to each.
    pub reward_shift: f64,
    /// Updates on the data alone at the beginning of `training.steps`; the steps after them are taken in the
    /// environment. Unset by default: all steps for offline methods, none for others.
    pub offline_steps: Option<u64>,
    /// Share of logged transitions in a batch once steps are taken in the environment.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            sampling: Sampling::Uniform,
            temperature: 0.1,
            top: 0.1,
            equal_lengths: false,
            normalise: None,
            reward_range: false,
            reward_scale: 1.0,
            reward_shift: 0.0,
            offline_steps: None,
            share: 0.5,
        }
    }
}

impl Settings for Data {}

/// What a method wants of logged data beside the transitions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wishes {
    /// Observations normalised, unless the person says otherwise.
    pub normalise: bool,
    /// Returns to go, for this discount.
    pub returns_to_go: Option<f64>,
    /// An episode whose last reward is the least of all earns that for ever.
    pub sparse: bool,
}

/// Data that batches are drawn from.
#[derive(Clone, Debug)]
pub struct Prepared {
    data: Dataset,
    /// Running sums of the transitions' weights; empty where all weigh the same.
    cumulative: Vec<f64>,
    /// What observations go through.
    pub normaliser: Option<Running>,
    /// Rewards r are taken as scale r + shift.
    reward: (f64, f64),
}

impl Prepared {
    /// Makes a dataset ready.
    ///
    /// # Errors
    /// Settings that do not fit the data.
    pub fn new(mut data: Dataset, settings: &Data, wishes: Wishes) -> Result<Self> {
        let weights = trajectory_weighting::weights(&data, settings);
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = Vec::new();
        if let Some(weights) = weights {
            cumulative.extend(weights.iter().map(|weight| {
                sum += weight;
                sum
            }));
        }
        let mut scale = settings.reward_scale;
        if settings.reward_range {
            let returns = data.returns();
            let range = returns.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                - returns.iter().copied().fold(f64::INFINITY, f64::min);
            if range <= 0.0 {
                return Err(Problem::input("all episodes have the same return, so there is no range")
                    .place("data.reward_range")
                    .hint("leave it off for this dataset"));
            }
            scale *= 1000.0 / range;
        }
        let reward = (scale, settings.reward_shift);
        data.map_rewards(|r| rescaled(reward, f64::from(r)));
        if let Some(gamma) = wishes.returns_to_go {
            let least = data.transitions().rewards.iter().copied().fold(f32::INFINITY, f32::min);
            data.carry_returns_to_go(gamma, wishes.sparse.then_some(least));
        }
        let normaliser = settings.normalise.unwrap_or(wishes.normalise).then(|| {
            let (mean, deviation) = data.observation_moments();
            Running::fixed(mean, deviation, data.len())
        });
        if let Some(normaliser) = &normaliser {
            data.map_observations(|rows| normaliser.normalise(rows));
        }
        Ok(Self { data, cumulative, normaliser, reward })
    }

    /// The data, as it is learnt from.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// A reward of the environment, as the data's were changed.
    pub fn reward(&self, reward: f64) -> f32 {
        rescaled(self.reward, reward)
    }

    /// Draws transitions, each anew.
    pub fn draw(&self, rows: usize, rng: &mut ChaCha8Rng) -> Batch {
        let count = self.data.len();
        let total = self.cumulative.last().copied().unwrap_or(count as f64);
        let place = |x: f64| match self.cumulative.is_empty() {
            true => x as usize,
            false => self.cumulative.partition_point(|&sum| sum <= x),
        };
        let places: Vec<usize> = (0..rows).map(|_| place(unit(rng) * total).min(count - 1)).collect();
        self.data.transitions().at(&places)
    }
}

fn rescaled((scale, shift): (f64, f64), reward: f64) -> f32 {
    (scale * reward + shift) as f32
}

/// Checks that a dataset was logged in an environment with such spaces; actions may leave their bounds by a rounding.
///
/// # Errors
/// Says what does not fit.
pub fn check_spaces(data: &Dataset, observations: &Space, actions: &Space) -> Result<()> {
    let wrong = |what: String| {
        Err(Problem::input(what)
            .place("data.train")
            .hint("the dataset was logged in another environment; see `polo data info`"))
    };
    let about = &data.about;
    if (width(&about.observations), &about.actions.size()) != (width(observations), &actions.size()) {
        return wrong(format!(
            "the dataset has observations of {} numbers and actions of {}, the environment {} and {}",
            width(&about.observations),
            about.actions.size(),
            width(observations),
            actions.size()
        ));
    }
    match (&about.actions, actions) {
        (Space::Discrete(_), Space::Discrete(_)) => Ok(()),
        (Space::Box { .. }, Space::Box { low, high }) => {
            let columns = low.len();
            for (place, &x) in data.transitions().actions.iter().enumerate() {
                let (low, high) = (low[place % columns], high[place % columns]);
                let rounding = 1e-4 * (high - low);
                if x < low - rounding || x > high + rounding {
                    return wrong(format!(
                        "action {} of the dataset is {x}, out of the environment's bounds {low} and {high}",
                        place / columns
                    ));
                }
            }
            Ok(())
        }
        _ => wrong("the actions of the dataset are choices and those of the environment are not, or the other way round".into()),
    }
}
