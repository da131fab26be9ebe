//! Checkpoints that are whole or not there.
//!
//! A training loop fills a hidden staging folder, and [`Checkpoints::finish`] turns it into `step-N` in one rename,
//! after all content has reached the disk. `manifest.json`, written last, holds size and SHA-256 of every file and a
//! digest of itself, so that torn or altered checkpoints are recognised and skipped. What the files mean is the
//! caller's business; small state (data cursor, counters) goes into the manifest's `meta`.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{
    Problem, Result,
    folder::{cannot_write, sync_folder, write_atomic},
};

/// Version of the layout of a checkpoint folder and its manifest.
pub const SCHEMA: u64 = 1;

const MANIFEST: &str = "manifest.json";
const STAGING: &str = ".staging-";
const REPLACED: &str = ".replaced-";

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// A checkpoint in the making.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    step: u64,
}

/// A whole checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Steps done when it was written.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
    /// What the caller stored in the manifest.
    pub meta: Value,
}

/// What [`Checkpoints::latest`] found.
#[derive(Debug)]
pub struct Latest {
    /// The newest whole checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// One sentence for each newer checkpoint that was skipped.
    pub warnings: Vec<String>,
}

impl Checkpoints {
    /// Opens the checkpoints in `folder`, creating it if needed, and clears what a killed process left half done. The
    /// newest `keep` checkpoints are kept, 0 keeps all.
    ///
    /// # Errors
    /// [`crate::Kind::System`] if the folder cannot be written to.
    pub fn new(folder: impl Into<PathBuf>, keep: usize) -> Result<Self> {
        let folder = folder.into();
        let tidy = |error: io::Error| cannot_write("tidy up", &folder, &error);
        fs::create_dir_all(&folder).map_err(|error| cannot_write("create", &folder, &error))?;
        for entry in fs::read_dir(&folder).map_err(tidy)? {
            let entry = entry.map_err(tidy)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(original) = name.strip_prefix(REPLACED).map(|original| folder.join(original))
                && !original.exists()
            {
                fs::rename(entry.path(), original).map_err(tidy)?;
            } else if name.starts_with(STAGING) || name.starts_with(REPLACED) {
                fs::remove_dir_all(entry.path()).map_err(tidy)?;
            }
        }
        Ok(Self { folder, keep })
    }

    /// Looks at the checkpoints in `folder` and changes nothing: the run may be going on.
    pub fn view(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), keep: 0 }
    }

    /// Begins the checkpoint of `step`.
    ///
    /// # Errors
    /// [`crate::Kind::System`] if the staging folder cannot be created.
    pub fn begin(&self, step: u64) -> Result<Staging> {
        let path = self.folder.join(format!("{STAGING}{}", folder_name(step)));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|error| cannot_write("tidy up", &path, &error))?;
        }
        fs::create_dir(&path).map_err(|error| cannot_write("create", &path, &error))?;
        Ok(Staging { path, step })
    }

    /// Seals a checkpoint and removes those that are beyond the number to keep. `meta` is any JSON; floats in it come
    /// back bit for bit.
    ///
    /// # Errors
    /// [`crate::Kind::System`] if something cannot be written; older checkpoints are intact then.
    pub fn finish(&self, staging: Staging, meta: Value) -> Result<Checkpoint> {
        let Staging { path: staged, step } = staging;
        let mut files = Map::new();
        for name in file_names(&staged).map_err(|error| cannot_write("read back", &staged, &error))? {
            let path = staged.join(&name);
            let (bytes, sha256) = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .and_then(|file| {
                    file.sync_all()?;
                    digest(file)
                })
                .map_err(|error| cannot_write("seal", &path, &error))?;
            files.insert(name, json!({ "bytes": bytes, "sha256": sha256 }));
        }
        let mut manifest = json!({ "schema": SCHEMA, "step": step, "files": files, "meta": meta });
        manifest["sha256"] = hex(&Sha256::digest(manifest.to_string())).into();
        write_atomic(&staged.join(MANIFEST), format!("{manifest:#}\n").as_bytes())?;

        let name = folder_name(step);
        let path = self.folder.join(&name);
        let replaced = self.folder.join(format!("{REPLACED}{name}"));
        let sealed = || {
            if path.exists() {
                fs::rename(&path, &replaced)?;
            }
            fs::rename(&staged, &path)?;
            sync_folder(&self.folder)
        };
        sealed().map_err(|error| cannot_write("write", &path, &error))?;
        discard(&replaced);
        self.prune(step);
        Ok(Checkpoint { step, path, meta })
    }

    /// The newest checkpoint whose files are all as they were written.
    ///
    /// # Errors
    /// [`crate::Kind::Input`] if the newest readable one was written by a version of polo with another layout: to skip
    /// it would silently lose its steps.
    pub fn latest(&self) -> Result<Latest> {
        let mut latest = Latest { checkpoint: None, warnings: Vec::new() };
        for (step, path) in self.steps()?.into_iter().rev() {
            match verified(&path, step)? {
                Ok(meta) => {
                    latest.checkpoint = Some(Checkpoint { step, path, meta });
                    break;
                }
                Err(fault) => {
                    latest.warnings.push(format!("skipping the checkpoint {}: {fault}", path.display()));
                }
            }
        }
        Ok(latest)
    }

    /// All `step-N` folders, oldest first.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        let entries =
            fs::read_dir(&self.folder).map_err(|error| Problem::io("read", &self.folder, &error))?;
        let mut steps: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let step = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
                Some((step, entry.path()))
            })
            .collect();
        steps.sort();
        Ok(steps)
    }

    /// Looks only at steps up to `newest`: a torn checkpoint of a later step must not count among those to keep.
    fn prune(&self, newest: u64) {
        let Ok(mut steps) = self.steps() else { return };
        steps.retain(|&(step, _)| step <= newest);
        if self.keep > 0 && steps.len() > self.keep {
            for (step, path) in &steps[..steps.len() - self.keep] {
                // Hidden first, so that a kill in between leaves no checkpoint with half of its files.
                let hidden = self.folder.join(format!("{STAGING}{}", folder_name(*step)));
                if fs::rename(path, &hidden).is_ok() {
                    discard(&hidden);
                }
            }
        }
    }
}

impl Staging {
    /// The folder to write files into; subfolders are fine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one file. It reaches the disk in [`Checkpoints::finish`].
    ///
    /// # Errors
    /// [`crate::Kind::System`] if it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, bytes).map_err(|error| cannot_write("write", &path, &error))
    }
}

/// Removes a hidden folder. It may fail (a file held open on a network disk) without harm: [`Checkpoints::new`] tries
/// again, and a run must not die for it.
fn discard(path: &Path) {
    fs::remove_dir_all(path).ok();
}

fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The meta of the checkpoint in `path`, or what is wrong with it; fails only where skipping it would be wrong.
fn verified(path: &Path, step: u64) -> Result<std::result::Result<Value, String>> {
    let text = match fs::read(path.join(MANIFEST)) {
        Ok(text) => text,
        Err(error) => return Ok(Err(format!("{MANIFEST} cannot be read: {error}"))),
    };
    let mut manifest: Map<String, Value> = match serde_json::from_slice(&text) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Err(format!("{MANIFEST} is damaged: {error}"))),
    };
    match manifest.get("schema").and_then(Value::as_u64) {
        Some(SCHEMA) => {}
        Some(other) => {
            return Err(Problem::input(format!(
                "the checkpoint {} has layout version {other}; this polo reads version {SCHEMA}",
                path.display()
            ))
            .hint("continue with the version of polo that wrote it, or start a new run in another folder"));
        }
        None => return Ok(Err(format!("{MANIFEST} is damaged: it names no layout version"))),
    }
    let claimed = manifest.remove("sha256");
    let meta = manifest.get("meta").cloned().unwrap_or_default();
    let manifest = Value::Object(manifest);
    if claimed != Some(hex(&Sha256::digest(manifest.to_string())).into()) || manifest["step"] != step {
        return Ok(Err(format!("{MANIFEST} was altered")));
    }
    for (name, entry) in manifest["files"].as_object().into_iter().flatten() {
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            return Ok(Err(format!("{MANIFEST} names a file outside its folder")));
        }
        match fs::File::open(path.join(name)).and_then(digest) {
            Err(error) => return Ok(Err(format!("{name} cannot be read: {error}"))),
            Ok((bytes, _)) if entry["bytes"] != bytes => {
                return Ok(Err(format!("{name} has {bytes} bytes and should have {}", entry["bytes"])));
            }
            Ok((_, sha256)) if entry["sha256"] != sha256 => {
                return Ok(Err(format!("the content of {name} was altered")));
            }
            Ok(_) => {}
        }
    }
    Ok(Ok(meta))
}

/// Relative paths of all files below `folder`, with `/`, sorted. Folders are made durable on the way.
fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} is not UTF-8", name.to_string_lossy()))
            })?;
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), &format!("{prefix}{name}/"), names)?;
            } else {
                names.push(format!("{prefix}{name}"));
            }
        }
        sync_folder(folder)
    }
    let mut names = Vec::new();
    walk(folder, "", &mut names)?;
    names.sort();
    Ok(names)
}

/// Size and SHA-256 of what `source` yields.
fn digest(mut source: impl Read) -> io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hex(&hash.finalize()))),
            Ok(n) => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn save(checkpoints: &Checkpoints, step: u64) -> Checkpoint {
        let staging = checkpoints.begin(step).unwrap();
        staging.write("weights.safetensors", &vec![step as u8; 1000]).unwrap();
        fs::create_dir(staging.path().join("optimiser")).unwrap();
        staging.write("optimiser/state.bin", b"moments").unwrap();
        checkpoints.finish(staging, json!({ "cursor": step, "loss": 0.1 + 0.2 })).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Two checkpoints; `harm` does something to the newer one.
    fn after(harm: impl FnOnce(&Path)) -> Result<Latest> {
        let home = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(home.path(), 3).unwrap();
        save(&checkpoints, 10);
        harm(&save(&checkpoints, 20).path);
        checkpoints.latest()
    }

    #[track_caller]
    fn check_skipped(harm: impl FnOnce(&Path), reason: &str) {
        let latest = after(harm).unwrap();
        assert_eq!(latest.checkpoint.map(|checkpoint| checkpoint.step), Some(10));
        let [warning] = &latest.warnings[..] else { panic!("{:?}", latest.warnings) };
        assert!(warning.contains("step-00000020") && warning.contains(reason), "{warning}");
    }

    fn flip(path: &Path, position: usize) {
        let mut bytes = fs::read(path).unwrap();
        bytes[position] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_newest_is_found_with_its_meta() {
        let latest = after(|_| ()).unwrap();
        let checkpoint = latest.checkpoint.unwrap();
        assert_eq!(checkpoint.step, 20);
        assert_eq!(checkpoint.meta, json!({ "cursor": 20, "loss": 0.1 + 0.2 }));
        assert!(latest.warnings.is_empty());
    }

    #[test]
    fn no_checkpoint_is_no_error() {
        let home = tempfile::tempdir().unwrap();
        let latest = Checkpoints::new(home.path().join("checkpoints"), 1).unwrap().latest().unwrap();
        assert!(latest.checkpoint.is_none() && latest.warnings.is_empty());
    }

    #[test]
    fn damaged_ones_are_skipped() {
        check_skipped(|path| fs::write(path.join("weights.safetensors"), [20; 999]).unwrap(), "999 bytes");
        check_skipped(|path| flip(&path.join("weights.safetensors"), 500), "content of weights.safetensors");
        check_skipped(
            |path| fs::remove_file(path.join("optimiser/state.bin")).unwrap(),
            "state.bin cannot be read",
        );
        check_skipped(|path| fs::remove_file(path.join(MANIFEST)).unwrap(), "manifest.json cannot be read");
        check_skipped(
            |path| fs::write(path.join(MANIFEST), "{\"schema\": 1").unwrap(),
            "manifest.json is damaged",
        );
        check_skipped(|path| fs::write(path.join(MANIFEST), "{}").unwrap(), "no layout version");
        check_skipped(
            |path| {
                let manifest = path.join(MANIFEST);
                let text = fs::read_to_string(&manifest).unwrap();
                fs::write(&manifest, text.replace("\"cursor\": 20", "\"cursor\": 21")).unwrap();
            },
            "manifest.json was altered",
        );
    }

    #[test]
    fn an_unknown_layout_is_an_error() {
        let problem = after(|path| fs::write(path.join(MANIFEST), "{\"schema\": 999, \"new\": []}").unwrap())
            .unwrap_err();
        assert_eq!(problem.kind(), Kind::Input);
        assert!(problem.message().contains("999") && problem.hint_text().is_some(), "{problem}");
    }

    #[test]
    fn old_ones_go_and_torn_later_ones_do_not_count() {
        let home = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(home.path(), 2).unwrap();
        for step in [1, 2, 3] {
            save(&checkpoints, step);
        }
        assert_eq!(names(home.path()), ["step-00000002", "step-00000003"]);
        fs::create_dir(home.path().join("step-00000009")).unwrap();
        save(&checkpoints, 4);
        assert_eq!(names(home.path()), ["step-00000003", "step-00000004", "step-00000009"]);
        let keep_all = Checkpoints::new(home.path(), 0).unwrap();
        for step in [5, 6, 7] {
            save(&keep_all, step);
        }
        assert_eq!(names(home.path()).len(), 6);
    }

    #[test]
    fn a_step_can_be_written_again() {
        let home = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(home.path(), 2).unwrap();
        flip(&save(&checkpoints, 5).path.join("weights.safetensors"), 0);
        save(&checkpoints, 5);
        assert_eq!(checkpoints.latest().unwrap().checkpoint.unwrap().step, 5);
        assert_eq!(names(home.path()), ["step-00000005"]);
    }

    #[test]
    fn what_a_kill_left_behind_is_cleared() {
        let home = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(home.path(), 2).unwrap();
        save(&checkpoints, 5);
        checkpoints.begin(6).unwrap().write("weights.safetensors", b"half").unwrap();
        // Killed between the two renames of a replacement.
        fs::rename(home.path().join("step-00000005"), home.path().join(".replaced-step-00000005")).unwrap();
        let checkpoints = Checkpoints::new(home.path(), 2).unwrap();
        assert_eq!(names(home.path()), ["step-00000005"]);
        assert_eq!(checkpoints.latest().unwrap().checkpoint.unwrap().step, 5);
    }
}
