//! What tests of control through the real binary share.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// A command of the binary, in a folder, without the environment of the tests.
pub fn polo(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
    command.current_dir(folder).args(line.split_whitespace()).env_clear();
    command
}

/// What a command that must succeed prints.
#[track_caller]
pub fn done(folder: &Path, line: &str) -> String {
    let out = polo(folder, line).output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A command that must fail, and what its complaint must hold, however its lines are broken.
#[track_caller]
pub fn refused(folder: &Path, line: &str, message: &str, hint: &str) {
    let out = polo(folder, line).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!out.status.success(), "{line}");
    assert!(said.contains(message) && said.contains(hint) && !said.contains("panicked"), "{line}: {said}");
}

/// A run that is killed after its second checkpoint and gone on with must leave what the whole one leaves, byte for byte.
/// `line` is `train ...` without its folder, which begins with `name`.
#[track_caller]
pub fn goes_on_as_if_never_killed(folder: &Path, name: &str, line: &str) {
    let of = |run: &str| format!("{line} --out {name}-{run} --set training.log_every=100 --resume auto");
    done(folder, &of("whole"));
    let mut child = polo(folder, &of("part")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let checkpoints = folder.join(format!("{name}-part")).join("checkpoints");
    while fs::read_dir(&checkpoints).map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.path().join("manifest.json").exists()).count()
    }) < 2
    {
        assert_eq!(child.try_wait().unwrap(), None, "{line}: the run ended too early");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    done(folder, &of("part"));
    let of = |run: &str| folder.join(format!("{name}-{run}"));
    let left = fs::read_dir(of("whole").join("final")).unwrap();
    let left: Vec<_> = left.map(|entry| Path::new("final").join(entry.unwrap().file_name())).collect();
    assert!(!left.is_empty(), "{line}: nothing was left behind");
    for file in left.iter().map(|file| &**file).chain([Path::new("metrics.jsonl")]) {
        let read = |run: &str| fs::read(of(run).join(file)).unwrap();
        assert!(read("whole") == read("part"), "{line}: {} differs", file.display());
    }
}
