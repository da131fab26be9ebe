//! The way of a user through the real binary: data, a new model, training, resuming, generating.
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

fn polo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
    command.current_dir(folder).args(arguments).env_clear();
    command
}

#[track_caller]
fn done(out: Output) -> String {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// A folder with `pairs.jsonl` and a tiny `model`.
fn workplace() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut pairs = String::new();
    for n in 0..24 {
        let (sum, wrong) = (n + 3, n + 5);
        writeln!(pairs, r#"{{"prompt":"{n} + 3 = ","chosen":"{sum}","rejected":"{wrong}"}}"#).unwrap();
    }
    fs::write(folder.path().join("pairs.jsonl"), pairs).unwrap();
    let make =
        ["init-model", "model", "--tokenizer-from", "pairs.jsonl", "--preset", "tiny", "--vocab", "270"];
    done(polo(folder.path(), &make).output().unwrap());
    folder
}

fn train<'a>(method: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base =
        ["train", method, "--model", "model", "--data", "pairs.jsonl", "--val", "pairs.jsonl", "--out", out];
    let sizes =
        ["--set", "training.batch=8", "--set", "training.micro_batch=4", "--set", "training.shares=2"];
    [&base[..], &sizes, more].concat()
}

#[test]
fn every_method_trains_and_its_model_answers() {
    let folder = workplace();
    let folder = folder.path();
    for method in ["sft", "dpo", "ipo", "srpo"] {
        let out = format!("runs/{method}");
        let printed = done(polo(folder, &train(method, &out, &[])).output().unwrap());
        assert_eq!(printed, format!("{out}/final\n"));
        for file in [
            "resolved.toml",
            "metrics.jsonl",
            "report.html",
            "final/model.safetensors",
            "final/tokenizer.json",
        ] {
            assert!(folder.join(&out).join(file).exists(), "{method} leaves no {file}");
        }
    }
    let model = ["--model", "runs/srpo/final", "--max-tokens", "5", "--seed", "3"];
    let one = done(polo(folder, &[&["generate", "1 + 3 = "], &model[..]].concat()).output().unwrap());
    assert!(one.ends_with('\n'));
    let many = [&["generate", "--data", "pairs.jsonl", "--revisions", "2"], &model[..]].concat();
    let many = done(polo(folder, &many).output().unwrap());
    assert_eq!(many.lines().count(), 24);
    for line in many.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let answers = line["revisions"].as_array().unwrap();
        assert_eq!((answers.len(), answers.last()), (3, Some(&line["completion"])));
    }
    let mut command = polo(folder, &[&["chat"], &model[..]].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"1 + 3\n2 + 3\n").unwrap();
    assert!(done(child.wait_with_output().unwrap()).lines().count() >= 2);
}

/// Starts a run and waits for its first logged step.
#[cfg(unix)]
fn begun(folder: &Path, run: &str, arguments: &[&str]) -> Child {
    let mut child = polo(folder, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = folder.join(run).join("metrics.jsonl");
    let logged = || fs::metadata(&metrics).map_or(0, |file| file.len());
    let before = logged();
    while logged() <= before {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended too early");
        thread::sleep(Duration::from_millis(1));
    }
    child
}

/// 60 steps, with a checkpoint at every fourth, so that a stop mostly finds metrics later than the last checkpoint.
#[cfg(unix)]
const LONG: [&str; 6] = [
    "--set",
    "training.epochs=20",
    "--set",
    "training.checkpoint_every=4",
    "--set",
    "training.learning_rate=1e-3",
];

#[test]
#[cfg(unix)]
fn a_run_that_was_stopped_goes_on_as_if_it_never_was() {
    let workplace = workplace();
    let folder = workplace.path();
    let arguments = train("dpo", "part", &[&LONG[..], &["--resume", "auto"]].concat());
    done(polo(folder, &train("dpo", "whole", &LONG)).output().unwrap());

    // Killed outright.
    let mut killed = begun(folder, "part", &arguments);
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().code(), None);
    // Not taken for a new run, nor run twice at a time.
    let refused = polo(folder, &train("dpo", "part", &LONG)).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--resume auto"));
    let mut running = begun(folder, "part", &arguments);
    assert_eq!(polo(folder, &arguments).output().unwrap().status.code(), Some(6));
    // Asked to stop.
    let asked = Command::new("sh").args(["-c", &format!("kill -TERM {}", running.id())]).status().unwrap();
    assert!(asked.success());
    assert_eq!(running.wait().unwrap().code(), Some(75));

    done(polo(folder, &arguments).output().unwrap());
    for file in ["metrics.jsonl", "final/model.safetensors", "checkpoints/step-00000060/manifest.json"] {
        let read = |run: &str| fs::read(folder.join(run).join(file)).unwrap();
        assert!(read("whole") == read("part"), "{file} differs");
    }
}

/// No file may outgrow 32 KiB, less than the weights of a checkpoint: to the run, a disk that fills.
#[test]
#[cfg(unix)]
fn a_disk_that_fills_costs_no_finished_step() {
    let workplace = workplace();
    let folder = workplace.path();
    let arguments = train("dpo", "full", &[&LONG[..], &["--resume", "auto"]].concat());
    done(polo(folder, &train("dpo", "roomy", &LONG)).output().unwrap());

    let mut child = begun(folder, "full", &arguments);
    while fs::read_dir(folder.join("full/checkpoints")).map_or(0, Iterator::count) < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let polo_binary = assert_cmd::cargo::cargo_bin!("polo").display().to_string();
    let full = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"", &polo_binary])
        .args(&arguments)
        .current_dir(folder)
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&full.stderr);
    assert_eq!(full.status.code(), Some(4), "{said}");
    assert!(
        said.contains("checkpoints/") && said.contains("hint:") && said.contains("--resume auto"),
        "{said}"
    );

    done(polo(folder, &arguments).output().unwrap());
    for file in ["metrics.jsonl", "final/model.safetensors", "checkpoints/step-00000060/manifest.json"] {
        let read = |run: &str| fs::read(folder.join(run).join(file)).unwrap();
        assert!(read("roomy") == read("full"), "{file} differs");
    }
}

/// A stage's reference is the model at its start, which a run that was stopped within the stage no longer has.
#[test]
#[cfg(unix)]
fn a_run_stopped_in_a_later_stage_goes_on_as_if_it_never_was() {
    let workplace = workplace();
    let folder = workplace.path();
    let mut lists = String::new();
    for n in 0..16 {
        let answers = [n + 3, n + 4, n + 5, n + 6];
        writeln!(
            lists,
            r#"{{"prompt":"{n} + 3 = ","completions":["{}","{}","{}","{}"],"scores":[4,3,2,1]}}"#,
            answers[0], answers[1], answers[2], answers[3]
        )
        .unwrap();
    }
    fs::write(folder.join("pairs.jsonl"), lists).unwrap();
    // Three stages of 20 steps.
    let long = [
        "--set",
        "training.epochs=10",
        "--set",
        "training.checkpoint_every=1",
        "--set",
        "training.learning_rate=1e-3",
    ];
    done(polo(folder, &train("curry-dpo", "whole", &long)).output().unwrap());
    let arguments = train("curry-dpo", "part", &[&long[..], &["--resume", "auto"]].concat());
    let mut child = begun(folder, "part", &arguments);
    let steps =
        || fs::read_to_string(folder.join("part/metrics.jsonl")).map_or(0, |text| text.lines().count());
    while steps() < 25 {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended too early");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    done(polo(folder, &arguments).output().unwrap());
    for file in ["metrics.jsonl", "final/model.safetensors"] {
        let read = |run: &str| fs::read(folder.join(run).join(file)).unwrap();
        assert!(read("whole") == read("part"), "{file} differs");
    }
    // Each stage begins at its own reference: the loss of its first step is ln 2.
    let metrics = fs::read_to_string(folder.join("whole/metrics.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> =
        metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let losses: Vec<f64> =
        rows.iter().filter(|row| row["split"] == "train").filter_map(|row| row["loss"].as_f64()).collect();
    assert_eq!(losses.len(), 60);
    for first in [0, 20, 40] {
        assert!((losses[first] - std::f64::consts::LN_2).abs() < 1e-5, "{losses:?}");
    }
    assert!(losses[19] < 0.68 && losses[39] < 0.68, "{losses:?}");
}

#[test]
fn a_plan_tells_what_a_run_would_do() {
    let folder = workplace();
    let plan = ["plan", "srpo", "--model", "model", "--data", "pairs.jsonl"];
    let text = done(polo(folder.path(), &plan).output().unwrap());
    for line in ["parameters ", "steps ", "peak memory "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line:?} is missing in\n{text}");
    }
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_claim_is_re_tested_in_seconds_where_there_is_one() {
    let folder = TempDir::new().unwrap();
    for method in ["srpo", "rdpo", "rpo", "vpo", "brain", "mdpo", "a2pr", "trajectory-weighting"] {
        let text = done(polo(folder.path(), &["reproduce", method, "--quick"]).output().unwrap());
        assert!(text.contains("Verdict: "), "{text}");
    }
    assert!(!folder.path().join("CLAIMS.md").exists());
    let refused = polo(folder.path(), &["reproduce", "sft"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is one for: srpo"));
}

#[test]
fn adapters_train_and_models_are_measured() {
    let folder = workplace();
    let folder = folder.path();
    let settings =
        ["--lora", "rank=4,alpha=8", "--set", "training.epochs=20", "--set", "training.learning_rate=1e-2"];
    done(polo(folder, &train("dpo", "runs/lora", &settings)).output().unwrap());
    for file in ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"] {
        assert!(folder.join("runs/lora/final").join(file).exists(), "no {file}");
    }
    let measure =
        ["evaluate", "--data", "pairs.jsonl", "--json", "--reference", "model", "--max-tokens", "4"];
    let measured = |model: &str, more: &[&str]| -> serde_json::Value {
        let arguments = [&measure[..], &["--model", model], more].concat();
        serde_json::from_str(&done(polo(folder, &arguments).output().unwrap())).unwrap()
    };
    // The base against itself has no margin; the adapters have learnt the training pairs.
    let base = measured("model", &[]);
    assert_eq!(base["margin (nats per answer)"]["mean"], 0.0);
    let tuned = measured("runs/lora/final", &["--against", "model", "--judge", "longer"]);
    assert!(tuned["preference accuracy"]["mean"].as_f64().unwrap() > 0.8, "{tuned}");
    assert!(tuned["DPO loss at beta 0.1"]["mean"].as_f64().unwrap() < 0.6, "{tuned}");
    assert_eq!(tuned["win rate"]["n"], 24);
}

#[test]
fn a_reward_model_tells_its_pairs_apart() {
    let workplace = workplace();
    let folder = workplace.path();
    let more = ["--set", "training.epochs=30", "--set", "training.learning_rate=1e-3", "--resume", "auto"];
    done(polo(folder, &train("reward-model", "whole", &more)).output().unwrap());
    let metrics = fs::read_to_string(folder.join("whole/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert!(last["rewards/accuracies"].as_f64().unwrap() > 0.9, "{last}");
    let config = fs::read_to_string(folder.join("whole/final/config.json")).unwrap();
    assert!(config.contains("LlamaForSequenceClassification"));
    // From a reward model, its readout is trained on; a method without one leaves it.
    let on = train("reward-model", "on", &["--set", "training.epochs=1"]);
    let on: Vec<&str> = on.iter().map(|word| if *word == "model" { "whole/final" } else { word }).collect();
    done(polo(folder, &on).output().unwrap());
    let metrics = fs::read_to_string(folder.join("on/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert!(first["rewards/accuracies"].as_f64().unwrap() > 0.8, "{first}");
}

#[test]
fn methods_are_compared_under_one_budget() {
    let workplace = workplace();
    let folder = workplace.path();
    let compare = [
        "compare",
        "dpo",
        "simpo:method.beta=10",
        "--model",
        "model",
        "--data",
        "pairs.jsonl",
        "--val",
        "pairs.jsonl",
        "--seeds",
        "2",
        "--set",
        "training.batch=8",
        "--set",
        "training.learning_rate=1e-3",
        "--set",
        "training.epochs=16",
        "--judge",
        "shorter",
        "--max-tokens",
        "8",
    ];
    let table = done(polo(folder, &compare).output().unwrap());
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(rows[0].contains("accuracy, %") && rows[0].contains("KL, nats"), "{table}");
    assert!(rows[2].trim_start().starts_with("simpo:method.beta=10"), "{table}");
    let record = fs::read_to_string(folder.join("runs/compare/comparison.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    for method in record["methods"].as_array().unwrap() {
        let measured = method["measured"].as_array().unwrap();
        assert_eq!(measured.len(), 9);
        for column in measured {
            assert!(column["mean"].is_number() && column["seeds"].as_array().unwrap().len() == 2, "{column}");
        }
        // Trained on these very pairs, each method tells most of them apart.
        assert!(measured[0]["mean"].as_f64().unwrap() > 0.8, "{method}");
    }
    let page = fs::read_to_string(folder.join("runs/compare/report.html")).unwrap();
    assert!(page.contains("simpo:method.beta=10") && page.contains("<svg"));
    // What is done is not done again: no step is logged twice, and all that is measured of the models is the same.
    let steps = || fs::read_to_string(folder.join("runs/compare/dpo-seed-0/metrics.jsonl")).unwrap();
    let before = steps();
    done(polo(folder, &compare).output().unwrap());
    assert_eq!(steps(), before);
    let again = fs::read_to_string(folder.join("runs/compare/comparison.json")).unwrap();
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    for method in 0..2 {
        // The last two columns are time and memory.
        for column in 0..7 {
            let of = |record: &serde_json::Value| record["methods"][method]["measured"][column].clone();
            assert_eq!(of(&again), of(&record));
        }
    }
    // Nor are results of other settings passed off as these.
    let other = [&compare[..], &["--set", "training.learning_rate=1e-4"]].concat();
    let refused = polo(folder, &other).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("training.learning_rate") && said.contains("--out"), "{said}");
    let refused =
        polo(folder, &["compare", "dop", "--model", "model", "--data", "pairs.jsonl", "--val", "x"])
            .output()
            .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("dpo"), "{refused}");
}
