//! The complete configuration of `polo train` for a method of this family.

use polo_run::{
    Result,
    config::Settings,
    process::{Cadence, Process},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `[method]` section of a method: its settings are the method.
pub trait MethodSettings: Settings + Clone + 'static {
    /// The method's name.
    const SLUG: &'static str;
    /// What a run counts, in the plural: `rounds`, `episodes`, `decisions`.
    const UNIT: &'static str;
    /// What the metric that is shown on the way is called there, and the metric.
    const WATCHED: (&'static str, &'static str);

    /// A run before its first step. All its randomness comes from `training.seed`.
    ///
    /// # Errors
    /// A problem that the method is not made for; files that cannot be used.
    fn process(&self, training: &Training) -> Result<Box<dyn Process>>;

    /// What a run would do, as (what, how much) lines.
    ///
    /// # Errors
    /// As [`MethodSettings::process`].
    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>>;
}

/// Everything that decides how a run of method `M` goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound = "M: MethodSettings")]
#[schemars(bound = "M: MethodSettings")]
pub struct TrainSettings<M> {
    /// The method, and the problem that it is to solve.
    pub method: M,
    /// What to write down.
    pub training: Training,
}

impl<M: MethodSettings> Settings for TrainSettings<M> {
    fn check(&self) -> Result<()> {
        self.method.check()
    }
}

/// `[training]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Seed of every random draw of the run.
    pub seed: u64,
    /// Write metrics every so many steps at most. 0: after every hundredth of the run.
    pub log_every: u64,
    /// Evaluate every so many steps, where the method evaluates, and at the end. 0: at the end only.
    pub evaluate_every: u64,
    /// Write a checkpoint every so many steps, and at the end. 0: at the end only.
    pub checkpoint_every: u64,
    /// Checkpoints to keep; older ones are removed.
    #[schemars(range(min = 1))]
    pub keep_checkpoints: usize,
}

impl Training {
    /// How often a run writes what.
    pub fn cadence(&self) -> Cadence {
        let Self { log_every, evaluate_every, checkpoint_every, keep_checkpoints, .. } = *self;
        Cadence { log_every, evaluate_every, checkpoint_every, keep_checkpoints }
    }
}

impl Default for Training {
    fn default() -> Self {
        Self { seed: 0, log_every: 0, evaluate_every: 0, checkpoint_every: 0, keep_checkpoints: 2 }
    }
}
