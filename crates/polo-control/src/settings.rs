//! The complete configuration of `polo train ppo|sac|...`.

use polo_run::{Problem, Result, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    data::Data,
    methods::{Control, Source, trajectory_weighting::Sampling},
};

/// The `[method]` section of a method: its settings are the method.
pub trait MethodSettings: Settings + Control + 'static {
    /// The method's name.
    const SLUG: &'static str;
    /// How transitions are drawn unless the person says otherwise.
    const SAMPLING: Sampling = Sampling::Uniform;
}

/// Everything that decides how a run of method `M` trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound = "M: MethodSettings")]
#[schemars(bound = "M: MethodSettings")]
pub struct TrainSettings<M> {
    /// The method.
    pub method: M,
    /// Where to act.
    pub environment: World,
    /// What was logged before.
    pub data: Data,
    /// How long to learn, and what to write down.
    pub training: Training,
}

impl<M: MethodSettings> Default for TrainSettings<M> {
    fn default() -> Self {
        Self {
            method: M::default(),
            environment: World::default(),
            data: Data { sampling: M::SAMPLING, ..Data::default() },
            training: Training::default(),
        }
    }
}

impl<M: MethodSettings> Settings for TrainSettings<M> {
    fn check(&self) -> Result<()> {
        self.method.check()?;
        let source = self.method.source();
        if self.data.train.is_empty() && source != Source::Environment {
            return Err(Problem::usage("the method learns from logged data, and none is given")
                .place("data.train")
                .hint("--data FILE; `polo data collect` makes one"));
        }
        let alone = source == Source::Data && self.data.offline_steps.is_none();
        if self.environment.id.is_empty() && !alone {
            return Err(Problem::usage("no environment is given")
                .place("environment.id")
                .hint("--env ID, e.g. CartPole-v1, or gym:ID for one of Gymnasium's in Python"));
        }
        Ok(())
    }
}

/// `[environment]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct World {
    /// Name of the environment, the same as `--env`: e.g. `CartPole-v1`. Offline methods use it for evaluation only, and
    /// know the one of their dataset unless another is given.
    pub id: String,
}

/// `[training]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Steps in the environment, those of all its copies together; for methods that learn from logged data, updates.
    #[schemars(range(min = 1))]
    pub steps: u64,
    /// Seed of every random draw of the run.
    pub seed: u64,
    /// Evaluate every so many steps, and at the end. 0: at the end only.
    pub evaluate_every: u64,
    /// Episodes of an evaluation, in which the policy acts without chance.
    #[schemars(range(min = 1, max = 100_000))]
    pub evaluation_episodes: usize,
    /// Write a checkpoint every so many steps, and at the end. 0: at the end only.
    pub checkpoint_every: u64,
    /// Checkpoints to keep; older ones are removed.
    #[schemars(range(min = 1))]
    pub keep_checkpoints: usize,
    /// Write metrics every so many steps at most.
    #[schemars(range(min = 1))]
    pub log_every: u64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            steps: 100_000,
            seed: 0,
            evaluate_every: 10_000,
            evaluation_episodes: 10,
            checkpoint_every: 50_000,
            keep_checkpoints: 2,
            log_every: 1000,
        }
    }
}
