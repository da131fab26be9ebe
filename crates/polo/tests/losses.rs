//! Losses of `dpo-survey` through the real binary: each kind of rows, and running means that outlive an interruption.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path, process::Command};

use tempfile::TempDir;

/// What the program says to `line` in `folder`; it must succeed.
#[track_caller]
fn polo(folder: &Path, line: &str) -> String {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
    let out = command.current_dir(folder).args(line.split(' ')).env_clear().output().unwrap();
    assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A folder with pairs that have scores, lists, and a tiny model.
fn workplace() -> TempDir {
    let folder = TempDir::new().unwrap();
    let (mut pairs, mut lists) = (String::new(), String::new());
    for n in 0..16 {
        let (sum, near, far) = (n + 3, n + 4, n + 30);
        let scores = format!(r#""score_chosen":{},"score_rejected":1"#, 2 + n % 3);
        writeln!(pairs, r#"{{"prompt":"{n} + 3 = ","chosen":"{sum}","rejected":"{far}",{scores}}}"#).unwrap();
        let answers = format!(r#""completions":["{far}","{sum}","{near}"],"scores":[0,{},1]"#, 2 + n % 3);
        writeln!(lists, r#"{{"prompt":"{n} + 3 = ",{answers}}}"#).unwrap();
    }
    fs::write(folder.path().join("pairs.jsonl"), pairs).unwrap();
    fs::write(folder.path().join("lists.jsonl"), lists).unwrap();
    polo(folder.path(), "init-model model --tokenizer-from pairs.jsonl --preset tiny --vocab 270");
    folder
}

fn train(data: &str, out: &str, settings: &str) -> String {
    let sizes =
        "--set training.batch=8 --set training.micro_batch=4 --set training.steps=4 --set training.shares=2";
    format!("train dpo-survey --model model --data {data} --out {out} {sizes} --set {settings}")
}

#[test]
fn every_kind_of_rows_trains() {
    let folder = workplace();
    for (data, loss, logged) in [
        ("pairs.jsonl", "aot", "rewards/margins"),
        ("pairs.jsonl", "odpo", "rewards/margins"),
        ("pairs.jsonl", "orpo --set method.prompt_nll=true", "log_odds_ratio"),
        ("pairs.jsonl", "sigmoid --set method.weighting=true --set method.tokens=sampo", "rewards/margins"),
        ("pairs.jsonl", "hinge --set method.also=[\"sft\"] --set method.reference=false", "losses/sft"),
        ("pairs.jsonl", "kto", "kl"),
        ("lists.jsonl", "lipo --set method.answers=3", "rewards/accuracies"),
        ("lists.jsonl", "pro --set method.answers=3", "nll_loss"),
    ] {
        let out = loss.split(' ').next().unwrap();
        polo(folder.path(), &train(data, out, &format!("method.loss={loss}")));
        let metrics = fs::read_to_string(folder.path().join(out).join("metrics.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        assert!(last[logged].is_f64(), "{loss}: no {logged} in {last}");
    }
}

#[test]
fn running_means_are_resumed() {
    let folder = workplace();
    for loss in ["bco", "beta-dpo"] {
        let settings = format!("method.loss={loss} --set training.checkpoint_every=2 --resume auto");
        let line = train("pairs.jsonl", loss, &settings);
        polo(folder.path(), &line);
        let run = folder.path().join(loss);
        let read =
            || ["final/model.safetensors", "metrics.jsonl"].map(|file| fs::read(run.join(file)).unwrap());
        let before = read();
        fs::remove_dir_all(run.join("final")).unwrap();
        fs::remove_dir_all(run.join("checkpoints/step-00000004")).unwrap();
        polo(folder.path(), &line);
        assert!(read() == before, "{loss} resumes to something else");
    }
}
