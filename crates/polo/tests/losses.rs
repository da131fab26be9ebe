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
    let mut steps = String::new();
    for n in 0..16 {
        for (last, right) in [(n + 6, true), (n + 7, false)] {
            let said = format!(r#""completions":["{n} + 3 = {}","{last}"],"labels":[true,{right}]"#, n + 3);
            writeln!(steps, r#"{{"prompt":"{n} + 3 + 3 = ",{said}}}"#).unwrap();
        }
    }
    let safe = pairs.replace("}\n", ",\"chosen_is_safe\":false,\"rejected_is_safe\":true,\"group\":\"a\"}\n");
    fs::write(folder.path().join("safe.jsonl"), safe).unwrap();
    fs::write(folder.path().join("steps.jsonl"), steps).unwrap();
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
        ("lists.jsonl", "dro-v", "value"),
        ("lists.jsonl", "nash-md", "logps/chosen"),
        ("pairs.jsonl", "tdpo1", "rewards/margins"),
        ("pairs.jsonl", "modpo", "rewards/margins"),
        ("safe.jsonl", "safe-dpo", "rewards/margins"),
        ("safe.jsonl", "apo-zero --set method.group_step=0.1", "rewards/margins"),
        ("steps.jsonl", "nca-pair", "rewards/margins"),
        (
            "pairs.jsonl",
            "exo-pair --set method.label_smoothing=0.1 --set method.tokens=tis --set method.tis_better=aot/final \
             --set method.tis_worse=model",
            "rewards/margins",
        ),
    ] {
        let out = loss.split(' ').next().unwrap();
        polo(folder.path(), &train(data, out, &format!("method.loss={loss}")));
        let metrics = fs::read_to_string(folder.path().join(out).join("metrics.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        assert!(last[logged].is_f64(), "{loss}: no {logged} in {last}");
    }
}

#[test]
fn the_reference_may_be_another_model() {
    let folder = workplace();
    let first = |out: &str, settings: &str| {
        polo(folder.path(), &train("pairs.jsonl", out, settings));
        let metrics = fs::read_to_string(folder.path().join(out).join("metrics.jsonl")).unwrap();
        let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
        first["rewards/margins"].as_f64().unwrap()
    };
    assert_eq!(first("own", "method.loss=sigmoid --set training.learning_rate=1e-2"), 0.0);
    let other = first("other", "method.loss=sigmoid --set model.reference=own/final");
    assert!(other.abs() > 0.01, "{other}");
    // Asked at every step, it says the same.
    let live =
        first("live", "method.loss=sigmoid --set method.sync_every=100 --set model.reference=own/final");
    assert!((live - other).abs() < 1e-5, "{live}, {other}");

    polo(folder.path(), "init-model small --tokenizer-from pairs.jsonl --preset small --vocab 270");
    for (settings, message) in [
        ("method.loss=simpo --set model.reference=own/final", "has no reference"),
        ("method.sync_every=2 --set model.reference=small", "of other sizes"),
        ("method.sync_every=2 --lora rank=2", "not adapters"),
    ] {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
        let line = train("pairs.jsonl", "none", settings);
        let out = command.current_dir(folder.path()).args(line.split(' ')).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(2) && said.contains(message), "{said}");
    }
}

#[test]
fn running_means_are_resumed() {
    let folder = workplace();
    for (data, loss, more) in [
        ("pairs.jsonl", "bco", ""),
        ("pairs.jsonl", "beta-dpo", ""),
        // The reference has moved before the checkpoint, and moves after it.
        ("pairs.jsonl", "tdpo2", " --set method.sync_every=1 --set training.learning_rate=1e-2"),
        ("safe.jsonl", "sigmoid", " --set method.group_step=0.5"),
    ] {
        let settings = format!("method.loss={loss}{more} --set training.checkpoint_every=2 --resume auto");
        let line = train(data, loss, &settings);
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
