//! `polo train` for decisions: a problem in, a run folder with what was learnt out.

use std::{fs, path::Path};

use polo_run::{
    Problem, Result,
    config::Loaded,
    folder::{Resume, write_atomic},
    process::{self, Labels, Outcome},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::settings::{MethodSettings, TrainSettings};

/// Keys whose change does not change what a resumed run computes.
pub(crate) const FREE: [&str; 2] = ["training.checkpoint_every", "training.keep_checkpoints"];

/// Trains. `out` is the run folder.
///
/// # Errors
/// Those of the method; [`polo_run::Kind::Interrupted`] after a signal, with a checkpoint written.
pub fn train<M: MethodSettings>(
    loaded: &Loaded<TrainSettings<M>>,
    out: &Path,
    resume: Resume,
) -> Result<Outcome> {
    let TrainSettings { method, training } = &loaded.settings;
    let labels = Labels { method: M::SLUG, unit: M::UNIT, watched: M::WATCHED, free: &FREE };
    process::run(loaded, labels, training.cadence(), out, resume, || method.process(training))
}

/// What a run would do, as (what, how much) lines.
///
/// # Errors
/// As the beginning of [`train`].
pub fn plan<M: MethodSettings>(settings: &TrainSettings<M>) -> Result<Vec<(String, String)>> {
    settings.method.plan(&settings.training)
}

/// Writes a state of a run as JSON, every number to its last bit.
///
/// # Errors
/// The file cannot be written.
pub fn save_state(path: &Path, state: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(state)
        .map_err(|error| Problem::input(format!("the state of the run cannot be written: {error}")))?;
    write_atomic(path, &text)
}

/// Makes the folder that [`polo_run::process::Process::finish`] writes into.
///
/// # Errors
/// It cannot be made.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Problem::io("create", path, &error))
}

/// A file that a person gives, as text.
///
/// # Errors
/// It cannot be read.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| Problem::io("read", path, &error))
}

/// What is wrong with JSON that a person gives, and where. `lines` stand before it in the file.
pub fn wrong_json(what: &str, path: &Path, lines: usize, error: &serde_json::Error) -> Problem {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let column = Some(error.column()).filter(|column| *column > 0);
    Problem::input(format!("{what}: {said}")).at(path, lines + error.line(), column)
}

/// Reads what [`save_state`] wrote.
///
/// # Errors
/// A file that is missing, torn or of another run.
pub fn load_state<S: DeserializeOwned>(path: &Path) -> Result<S> {
    let bytes = fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Problem::input(format!("the state of the run cannot be used: {error}"))
            .place(path.display().to_string())
            .hint("this checkpoint belongs to another run")
    })
}
