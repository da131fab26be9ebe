//! What a run of decisions leaves behind, and reading it again.

use std::path::Path;

use polo_run::{Problem, Result, config::Settings, seed::Seeds};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{columns::Columns, settings::OracleSettings};
use crate::{
    explore::{Explorer, Situation},
    features::Decision,
    methods,
    oracle::Oracle,
    train::load_state,
};

/// The file of weights.
pub const MODEL: &str = "model.bin";
/// The file that says what they are weights of.
pub const POLICY: &str = "policy.json";

/// What a run leaves behind beside the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPolicy {
    /// The scheme of exploration.
    pub method: String,
    /// Its settings.
    pub settings: serde_json::Value,
    /// The oracle's settings.
    pub oracle: OracleSettings,
    /// What columns of CSV files meant.
    pub columns: Columns,
    /// Decisions that were learnt from.
    pub learned: u64,
    /// Seed of all draws.
    pub seed: u64,
}

/// A policy that was learnt, to be asked.
pub struct Learned {
    /// What it is.
    pub saved: SavedPolicy,
    explorer: Box<dyn Explorer>,
    oracle: Box<dyn Oracle>,
    /// Where its draws come from.
    pub seeds: Seeds,
}

impl Learned {
    /// Whether there is one in this folder.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(POLICY).is_file()
    }

    /// The policy of a folder.
    ///
    /// # Errors
    /// Files that are missing, torn or of another program.
    pub fn load(folder: &Path) -> Result<Self> {
        let saved: SavedPolicy = load_state(&folder.join(POLICY))?;
        let explorer = methods::scheme(&saved.method, &saved.settings)
            .map_err(|problem| problem.place(folder.join(POLICY).display().to_string()))?;
        let seeds = Seeds::new(saved.seed);
        let mut oracle = saved.oracle.models(&*explorer, &seeds)?;
        read_models(&mut *oracle, &folder.join(MODEL))?;
        Ok(Self { saved, explorer, oracle, seeds })
    }

    /// How likely it takes each action of a decision, the `number`th it is asked for.
    pub fn probabilities(&self, decision: &Decision, number: u64) -> Vec<f64> {
        self.explorer.decide(&Situation {
            oracle: &*self.oracle,
            decision,
            learned: self.saved.learned,
            number,
            seeds: &self.seeds,
        })
    }

    /// What it predicts each action to cost.
    pub fn costs(&self, decision: &Decision) -> Vec<f32> {
        self.oracle.costs(0, decision)
    }
}

/// A scheme with settings as they were saved.
///
/// # Errors
/// Settings that are not its own.
pub fn scheme_of<E: Settings + Explorer + DeserializeOwned + 'static>(
    settings: &serde_json::Value,
) -> Result<Box<dyn Explorer>> {
    let scheme: E = serde_json::from_value(settings.clone())
        .map_err(|error| Problem::input(format!("the settings of the scheme cannot be used: {error}")))?;
    scheme.check()?;
    Ok(Box::new(scheme))
}

/// Takes up the weights of a file.
///
/// # Errors
/// A file that cannot be read, is torn, or of other models.
pub fn read_models(oracle: &mut dyn Oracle, path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    match oracle.take_bytes(&bytes) {
        true => Ok(()),
        false => Err(Problem::input("the model file is torn, or of an oracle of another size")
            .place(path.display().to_string())
            .hint("copy it again, or train anew")),
    }
}
