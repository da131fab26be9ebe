//! What `polo train` says of input that cannot be used, with the real binary: the place, what to do, the exit code, and
//! no trace of a run.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, process::Command};

use insta::assert_snapshot;
use tempfile::TempDir;

fn polo(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
    let out = command.current_dir(folder).args(arguments).env_clear().output().unwrap();
    (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
}

fn pair(prompt: &str, chosen: &str, rejected: &str) -> String {
    format!("{{\"prompt\": \"{prompt}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
}

/// A folder with `pairs.jsonl` and a tiny `model`.
fn workplace() -> TempDir {
    let folder = TempDir::new().unwrap();
    let pairs: String = (0..8).map(|n| pair(&format!("{n} + 1 = "), &format!("{}", n + 1), "none")).collect();
    fs::write(folder.path().join("pairs.jsonl"), pairs).unwrap();
    let make =
        ["init-model", "model", "--tokenizer-from", "pairs.jsonl", "--preset", "tiny", "--vocab", "262"];
    assert_eq!(polo(folder.path(), &[&make[..], &["--context", "64"]].concat()).0, 0);
    folder
}

/// Exit code and error of a training after `spoil` had its way with the workplace.
fn spoilt(what: &str, more: &[&str], spoil: impl FnOnce(&Path)) -> String {
    let folder = workplace();
    spoil(folder.path());
    let train = ["train", "dpo", "--model", "model", "--data", "pairs.jsonl"];
    let (code, error) = polo(folder.path(), &[&train[..], more].concat());
    let error: String =
        error.lines().skip_while(|line| !line.starts_with("error:")).map(|l| format!("{l}\n")).collect();
    assert!(!folder.path().join("runs/dpo/final").exists(), "{what}: a model was written");
    format!("== {what}\n[exit {code}]\n{error}")
}

fn replace(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn of_a_model_that_cannot_be_used() {
    let weights = |folder: &Path| folder.join("model/model.safetensors");
    let sessions = [
        spoilt("no such folder", &[], |folder| {
            fs::rename(folder.join("model"), folder.join("moved")).unwrap()
        }),
        spoilt("no weights", &[], |folder| fs::remove_file(weights(folder)).unwrap()),
        spoilt("weights cut short", &[], |folder| {
            let bytes = fs::read(weights(folder)).unwrap();
            fs::write(weights(folder), &bytes[..bytes.len() - 1000]).unwrap();
        }),
        spoilt("a tensor renamed", &[], |folder| {
            replace(&weights(folder), "model.norm.weight", "model.nrom.weight");
        }),
        spoilt("another shape", &[], |folder| {
            replace(
                &folder.join("model/config.json"),
                "\"intermediate_size\": 176",
                "\"intermediate_size\": 192",
            );
        }),
        spoilt("not a number among the weights", &[], |folder| {
            let mut bytes = fs::read(weights(folder)).unwrap();
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
            fs::write(weights(folder), bytes).unwrap();
        }),
        spoilt("another model's tokenizer", &[], |folder| {
            let make = [
                "init-model",
                "other",
                "--tokenizer-from",
                "pairs.jsonl",
                "--vocab",
                "265",
                "--preset",
                "tiny",
            ];
            assert_eq!(polo(folder, &make).0, 0);
            fs::copy(folder.join("other/tokenizer.json"), folder.join("model/tokenizer.json")).unwrap();
        }),
        spoilt("no such device", &["--device", "abacus"], |_| {}),
    ];
    assert_snapshot!(sessions.join("\n"));
}

#[test]
fn of_data_that_cannot_be_used() {
    let good = pair("a", "b", "c");
    let data = |text: String| move |folder: &Path| fs::write(folder.join("pairs.jsonl"), text).unwrap();
    let long = "word ".repeat(80);
    let sessions = [
        spoilt("no such file", &["--data", "nowhere.jsonl"], |_| {}),
        spoilt("empty", &[], data(String::new())),
        spoilt("broken on line 3", &[], data(format!("{good}{good}{{\"prompt\": \n"))),
        spoilt("a field is missing", &[], data(format!("{good}{{\"prompt\": \"a\", \"chosen\": \"b\"}}\n"))),
        spoilt(
            "no string",
            &[],
            data(format!("{good}{{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": 1}}\n")),
        ),
        spoilt("equal answers", &[], data(pair("a", "b", "b"))),
        spoilt(
            "a prompt longer than the context",
            &["--set", "data.long_prompt=stop"],
            data(pair(&long, "b", "c")),
        ),
        spoilt("a held-out file that is none", &["--val", "model"], |_| {}),
    ];
    assert_snapshot!(sessions.join("\n"));
}

#[test]
fn of_a_run_folder_that_cannot_be_used() {
    let sessions = [
        spoilt("a file in the way", &["--out", "pairs.jsonl/run"], |_| {}),
        spoilt("a folder of something else", &["--out", "model"], |_| {}),
    ];
    assert_snapshot!(sessions.join("\n"));
    if cfg!(target_os = "linux") {
        let refused = spoilt("a folder that nobody may write to", &["--out", "/proc/run"], |_| {});
        assert!(refused.contains("[exit 4]"), "{refused}");
    }
}
