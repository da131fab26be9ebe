//! The folder of a run: who may use it, what lies where, and that no file in it is ever half written.
//!
//! The program opens a [`RunFolder`] before anything heavy starts, and holds it to the end: as long as it lives, no
//! other process can open the same folder. Everything that writes a whole file goes through [`write_atomic`].

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
};

use serde::{Deserialize, Serialize};

use crate::{Kind, Problem, Result};

const LOCK: &str = "run.lock";
const GIVEN: &str = "config.toml";
const RESOLVED: &str = "resolved.toml";

/// What to do with a folder that holds a run already (`--resume`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resume {
    /// Refuse it.
    #[default]
    Never,
    /// Continue from its newest good checkpoint; begin anew where there is none.
    Auto,
}

/// Whether a run begins or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was there.
    Fresh,
    /// The folder belongs to a run with the same settings.
    Resumed,
}

/// A run folder that this process alone may write to.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    // The lock ends with the handle, however the process ends.
    _lock: File,
}

impl RunFolder {
    /// Creates the folder if needed and takes its lock.
    ///
    /// # Errors
    /// [`Kind::Busy`] if another process holds it; [`Kind::Usage`] if it is in use already and `resume` is
    /// [`Resume::Never`], or if it holds something else than a run; [`Kind::System`] if it cannot be written to.
    pub fn open(path: &Path, resume: Resume) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| cannot_write("create the run folder", path, &error))?;
        let lock_path = path.join(LOCK);
        if !lock_path.exists() {
            // Looked at before the lock file is made, so that a folder refused is a folder left alone.
            refuse_if_used(path, resume)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|error| cannot_write("write to the run folder", path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(cannot_write("lock the run folder", path, &error)),
        }
        refuse_if_used(path, resume)?;
        lock.set_len(0)
            .and_then(|()| lock.write_all(process::id().to_string().as_bytes()))
            .map_err(|error| cannot_write("write to the run folder", path, &error))?;
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// Writes the configuration of a fresh run, as given and resolved; on a run that goes on, compares the resolved
    /// one with what stands there. Keys (or whole sections) in `free` may differ: their new values are stored.
    ///
    /// # Errors
    /// [`Kind::Usage`], naming the keys, if others differ.
    pub fn settle(&self, given: &str, resolved: &str, free: &[&str]) -> Result<Start> {
        let (stored, as_given) = (self.path.join(RESOLVED), self.path.join(GIVEN));
        let start = match fs::read_to_string(&stored) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Start::Fresh,
            Err(error) => return Err(Problem::io("read", &stored, &error)),
            Ok(before) if before == resolved && as_given.exists() => return Ok(Start::Resumed),
            Ok(before) => {
                self.compare(&stored, &before, resolved, free)?;
                Start::Resumed
            }
        };
        // This one first: it is what makes a folder a run, so that a kill in between leaves one that can go on.
        write_atomic(&stored, resolved.as_bytes())?;
        write_atomic(&as_given, given.as_bytes())?;
        Ok(start)
    }

    fn compare(&self, stored: &Path, before: &str, now: &str, free: &[&str]) -> Result<()> {
        let parse = |text: &str| {
            text.parse::<toml::Table>().map_err(|error| {
                Problem::input(format!("{} is damaged: {}", stored.display(), error.message()))
                    .hint("a run without its settings cannot be continued; choose a new run folder")
            })
        };
        let (before, now) = (flattened(&parse(before)?), flattened(&parse(now)?));
        let mut differences = Vec::new();
        let value = |keys: &[(String, String)], key: &str| {
            keys.iter()
                .find(|(k, _)| k == key)
                .map_or_else(|| "not set".to_owned(), |(_, value)| value.clone())
        };
        let added = now.iter().filter(|(key, _)| before.iter().all(|(k, _)| k != key));
        for (key, _) in before.iter().chain(added) {
            let (old, new) = (value(&before, key), value(&now, key));
            let is_free = free
                .iter()
                .any(|f| key.strip_prefix(f).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
            if old != new && !is_free {
                differences.push(format!("`{key}` was {old}, is {new}"));
            }
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Problem::usage(format!(
            "the run in {} was started with other settings: {}",
            self.path.display(),
            differences.join("; ")
        ))
        .hint("continue with the same settings, or start a new run in another folder"))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `metrics.jsonl`: one line of metrics a logged step.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `report.html`: what a person reads afterwards.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// `checkpoints/`, for [`crate::checkpoint::Checkpoints`].
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `samples/`, created if needed.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be created.
    pub fn samples(&self) -> Result<PathBuf> {
        self.created("samples")
    }

    /// `final/`: the trained model, created if needed.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be created.
    pub fn final_model(&self) -> Result<PathBuf> {
        self.created("final")
    }

    fn created(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(|error| cannot_write("create", &path, &error))?;
        Ok(path)
    }
}

/// Writes a file so that a reader, also after a crash, finds the old content or the new one, never a part.
///
/// # Errors
/// [`Kind::System`] (disk full, read-only); the old content is intact then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |temporary| {
        let written = File::create(temporary).and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| cannot_write("write", path, &error))
    })
}

/// [`write_atomic`] for files that a library writes by name: `write` writes the path it is given, which then takes the
/// place of `path`.
///
/// # Errors
/// Those of `write` and [`Kind::System`]; the old content is intact then.
pub fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Problem::new(Kind::System, format!("cannot write {}: not a file name", path.display())));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), process::id()));
    let written = write(&temporary).and_then(|()| {
        let kept = File::options().write(true).open(&temporary).and_then(|file| file.sync_all());
        let named = kept.and_then(|()| fs::rename(&temporary, path)).and_then(|()| sync_folder(folder));
        named.map_err(|error| cannot_write("write", path, &error))
    });
    written.inspect_err(|_| {
        // Gone after a successful rename; a leftover would hold space on a full disk.
        fs::remove_file(&temporary).ok();
    })
}

/// Makes renames and new names in `folder` survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A failed write is the machine's, whatever the error: [`Problem::io`] counts a missing folder as wrong input.
pub(crate) fn cannot_write(doing: &str, path: &Path, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Problem::new(Kind::System, format!("cannot {doing} {}: {error}", path.display()))
                .hint("a part of this path is missing, or is a file and not a folder")
        }
        _ => Problem::io(doing, path, error),
    }
}

fn refuse_if_used(path: &Path, resume: Resume) -> Result<()> {
    let entries =
        fs::read_dir(path).map_err(|error| cannot_write("look into the run folder", path, &error))?;
    let used = entries.flatten().any(|entry| {
        let name = entry.file_name();
        // A crash before the run began can leave the lock and temporary files behind.
        name != LOCK && !name.to_string_lossy().ends_with(".tmp")
    });
    let is_run = path.join(RESOLVED).exists();
    match (used || is_run, resume, is_run) {
        (false, ..) | (true, Resume::Auto, true) => Ok(()),
        (true, Resume::Never, true) => {
            let begun =
                fs::read_dir(path.join("checkpoints")).is_ok_and(|mut inside| inside.next().is_some());
            let hint = match begun {
                true => "continue that run with --resume auto, or choose another folder",
                false => {
                    "it has no checkpoint yet: --resume auto begins it anew with the same settings; or choose another \
                     folder"
                }
            };
            Err(Problem::usage(format!("the folder {} holds a run already", path.display())).hint(hint))
        }
        (true, _, false) => {
            Err(Problem::usage(format!("the folder {} is not empty and not a run", path.display()))
                .hint("choose a new folder for the run"))
        }
    }
}

fn busy(path: &Path, lock: &mut File) -> Problem {
    let mut holder = String::new();
    // Where locks are mandatory the file cannot be read; the id is a help, not a need.
    lock.read_to_string(&mut holder).ok();
    let holder = if holder.is_empty() { "another process".into() } else { format!("process {holder}") };
    Problem::new(Kind::Busy, format!("the run folder {} is in use by {holder}", path.display()))
        .hint("wait until it has ended, or choose another folder")
}

/// All values of a table as (dotted key, TOML text).
fn flattened(table: &toml::Table) -> Vec<(String, String)> {
    fn walk(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, out),
                leaf => out.push((format!("{prefix}{key}"), leaf.to_string())),
            }
        }
    }
    let mut out = Vec::new();
    walk("", table, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "seed = 1\n\n[log]\nevery = 10\n\n[model]\nwidth = 8\n";

    fn refused(path: &Path, resume: Resume) -> Problem {
        RunFolder::open(path, resume).unwrap_err()
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("runs/one");
        let folder = RunFolder::open(&path, Resume::Never).unwrap();
        for resume in [Resume::Never, Resume::Auto] {
            let problem = refused(&path, resume);
            assert_eq!(problem.kind(), Kind::Busy);
            assert!(problem.message().contains("runs/one"), "{problem}");
            assert!(problem.message().contains(&process::id().to_string()), "{problem}");
        }
        drop(folder);
        RunFolder::open(&path, Resume::Never).unwrap();
    }

    #[test]
    fn a_used_folder_needs_resume_auto() {
        let home = tempfile::tempdir().unwrap();
        let open = |resume| RunFolder::open(home.path(), resume);
        assert_eq!(open(Resume::Never).unwrap().settle("# mine", SETTINGS, &[]).unwrap(), Start::Fresh);
        let problem = refused(home.path(), Resume::Never);
        assert_eq!(problem.kind(), Kind::Usage);
        assert!(problem.hint_text().unwrap().contains("--resume auto"), "{problem}");
        // A kill may have come between the two files.
        fs::remove_file(home.path().join(GIVEN)).unwrap();
        assert_eq!(open(Resume::Auto).unwrap().settle("# mine", SETTINGS, &[]).unwrap(), Start::Resumed);
        assert_eq!(fs::read_to_string(home.path().join(GIVEN)).unwrap(), "# mine");
        assert_eq!(fs::read_to_string(home.path().join(RESOLVED)).unwrap(), SETTINGS);
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(GIVEN), "the file that a person keeps here").unwrap();
        for resume in [Resume::Never, Resume::Auto] {
            assert!(refused(home.path(), resume).message().contains("not a run"));
        }
        assert!(!home.path().join(LOCK).exists());
    }

    #[test]
    fn other_settings_are_refused_with_their_keys() {
        let home = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(home.path(), Resume::Auto).unwrap();
        folder.settle("", SETTINGS, &[]).unwrap();
        let other = "seed = 2\n\n[log]\nevery = 99\n\n[lora]\nrank = 4\n";
        let problem = folder.settle("", other, &["log"]).unwrap_err();
        assert_eq!(problem.kind(), Kind::Usage);
        for part in ["`seed` was 1, is 2", "`model.width` was 8, is not set", "`lora.rank` was not set, is 4"]
        {
            assert!(problem.message().contains(part), "{problem}");
        }
        assert!(!problem.message().contains("log.every"), "{problem}");
        assert_eq!(fs::read_to_string(home.path().join(RESOLVED)).unwrap(), SETTINGS);

        let free = SETTINGS.replace("10", "99");
        assert_eq!(folder.settle("", &free, &["log.every"]).unwrap(), Start::Resumed);
        assert_eq!(fs::read_to_string(home.path().join(RESOLVED)).unwrap(), free);
    }

    #[test]
    fn a_path_through_a_file_is_a_clear_error() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("run")] {
            let problem = refused(&path, Resume::Never);
            assert_eq!(problem.kind(), Kind::System, "{problem}");
            assert!(problem.hint_text().is_some(), "{problem}");
        }
    }

    /// `/proc` refuses new folders to everyone; permission bits would not stop a test that runs as root.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_place_that_cannot_be_written_to_is_a_system_error() {
        assert_eq!(refused(Path::new("/proc/polo-run"), Resume::Never).kind(), Kind::System);
    }

    #[test]
    fn atomic_writes_replace_and_leave_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("report.html");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            write_atomic(&home.path().join("none/report.html"), b"x").unwrap_err().kind(),
            Kind::System
        );
        fs::create_dir(home.path().join("taken")).unwrap();
        write_atomic(&home.path().join("taken"), b"x").unwrap_err();
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2);
    }

    /// Writes to `/dev/full` fail as on a full disk.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_with_what_to_do() {
        let error = fs::write("/dev/full", "x").unwrap_err();
        let problem = cannot_write("write", Path::new("run/metrics.jsonl"), &error);
        assert_eq!(problem.kind(), Kind::System);
        assert!(problem.hint_text().unwrap().contains("--resume auto"), "{problem}");
    }
}
