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
    /// Of CSV files: the names of all actions, in the order in which decisions number them.
    pub actions: Vec<String>,
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

    /// Why there is none at this path.
    pub fn missing(path: &Path) -> Problem {
        let left = path.join("final");
        let (what, hint) = if Self::is_in(&left) {
            ("this folder is a run, not a policy", format!("its policy is {}", left.display()))
        } else {
            let what = match (path.is_dir(), path.exists()) {
                (true, _) => "there is no policy.json in this folder",
                (_, true) => "the policy of such a log is no file",
                (_, false) => "nothing stands there",
            };
            let hint =
                "`uniform`, or the folder `final` of a run of squarecb or another scheme of exploration";
            (what, hint.to_owned())
        };
        Problem::usage(what).place(format!("--policy {}", path.display())).hint(hint)
    }

    /// The policy of a folder.
    ///
    /// # Errors
    /// Files that are missing, torn or of another program.
    pub fn load(folder: &Path) -> Result<Self> {
        let file = folder.join(POLICY);
        let bytes = std::fs::read(&file).map_err(|error| Problem::io("read", &file, &error))?;
        let wrong =
            |what: &str, hint: &str| Problem::input(what).place(file.display().to_string()).hint(hint);
        let torn = |error| wrong(&format!("the file is torn: {error}"), "copy it again, or train anew");
        let found: serde_json::Value = serde_json::from_slice(&bytes).map_err(torn)?;
        if found.get("method").is_none() {
            let what = "this policy is of another method, and cannot be asked about a log";
            return Err(wrong(what, "policies of squarecb and the other schemes of exploration can"));
        }
        let saved: SavedPolicy = serde_json::from_value(found).map_err(|error| {
            let what = format!("the policy was written by another version of polo: {error}");
            wrong(&what, "train it anew")
        })?;
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
