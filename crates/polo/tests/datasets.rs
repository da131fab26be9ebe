//! Datasets through the real binary: they are collected, remembered, mixed and told of; a seed decides every byte; what
//! cannot be is refused before the work.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{done, refused};
use polo_sim::dataset::Dataset;
use serde_json::Value;
use tempfile::TempDir;

fn told(folder: &Path, path: &str) -> Value {
    serde_json::from_str(&done(folder, &format!("data info {path} --json"))).unwrap()
}

/// A short SAC run whose ring has gone round, in `run`.
fn trained(folder: &Path) {
    let settings = "--set training.steps=500 --set training.evaluate_every=0 --set training.evaluation_episodes=2 --set method.random_steps=100 --set method.batch=16 --set method.hidden=[8,8] --set method.buffer=450";
    done(folder, &format!("train sac --env polo/PendulumOffline-v0 --out run {settings}"));
}

#[test]
fn behaviours_are_collected_mixed_and_told_of() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let said =
        done(folder, "data collect --env polo/PendulumOffline-v0 --episodes 30 --out random.safetensors");
    assert!(said.contains("episodes               30\n") && said.contains("normalised score"), "{said}");
    done(folder, "data collect --policy expert --episodes 10 --seed 5 --out some/expert.safetensors");
    let (random, expert) = (told(folder, "random.safetensors"), told(folder, "some/expert.safetensors"));
    assert_eq!(expert["environment"], "polo/PendulumOffline-v0");
    assert_eq!((&expert["time_outs"], &expert["terminals"]), (&10.into(), &0.into()));
    let score = |facts: &Value| facts["normalised_score"].as_f64().unwrap();
    assert!(score(&random).abs() < 20.0 && score(&expert) > 80.0, "{random} {expert}");
    let mean = expert["returns"]["mean"].as_f64().unwrap();
    assert!((score(&expert) - 100.0 * (mean + 1226.0) / 1069.0).abs() < 1e-9);

    done(folder, "data mix --out mixed.safetensors random.safetensors:19 some/expert.safetensors:1");
    let mixed = Dataset::load(&folder.join("mixed.safetensors")).unwrap();
    assert_eq!((mixed.episodes().len(), mixed.len()), (20, 4000));
    assert_eq!(mixed.about.source, "19 of random + 1 of expert");
    let parts = [("random.safetensors", 0), ("some/expert.safetensors", 19)];
    for (part, at) in parts {
        assert_eq!(Dataset::load(&folder.join(part)).unwrap().returns()[0], mixed.returns()[at]);
    }
    let facts = told(folder, "mixed.safetensors");
    let returns = mixed.returns();
    let average = returns.iter().sum::<f64>() / 20.0;
    let upside = (returns.iter().map(|g| (g - average).max(0.0).powi(2)).sum::<f64>() / 20.0).sqrt();
    assert!((facts["positive_sided_deviation"].as_f64().unwrap() - upside).abs() < 1e-9);
    assert!((facts["normalised_positive_sided_deviation"].as_f64().unwrap() - upside / 10.69).abs() < 1e-9);

    let line =
        "train bc --data mixed.safetensors --out bc --set training.steps=50 --set training.evaluate_every=0";
    done(folder, line);
    let metrics = fs::read_to_string(folder.join("bc/metrics.jsonl")).unwrap();
    assert!(metrics.contains("charts/normalised_score"), "{metrics}");
    let said = done(folder, "evaluate --model bc/final --episodes 3 --json");
    let found: Value = serde_json::from_str(&said).unwrap();
    let (earned, score) = (&found["return"]["mean"], &found["normalised score"]["mean"]);
    assert!((score.as_f64().unwrap() - 100.0 * (earned.as_f64().unwrap() + 1226.0) / 1069.0).abs() < 1e-9);
    assert!(found["normalised score"]["interval"].is_array());
}

#[test]
fn ends_and_cuts_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    done(folder, "data collect --env CartPole-v1 --steps 333 --out poles.safetensors");
    let data = Dataset::load(&folder.join("poles.safetensors")).unwrap();
    let over: usize = data.transitions().terminated.iter().map(|&over| over as usize).sum();
    assert_eq!(
        (data.len(), over),
        (333, data.episodes().len() - 1),
        "a pole falls, and the last episode is cut"
    );
    let facts = told(folder, "poles.safetensors");
    assert_eq!((&facts["transitions"], &facts["time_outs"]), (&333.into(), &1.into()));
    assert_eq!(facts["normalised_score"], Value::Null);
    assert!(done(folder, "data info poles.safetensors").contains("one of 2 choices"));
}

#[test]
fn a_trained_policy_acts_and_a_run_remembers() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    trained(folder);
    done(folder, "data collect --policy run/final --episodes 2 --out plain.safetensors");
    done(
        folder,
        "data collect --policy run/final --episodes 2 --noise 0.5 --epsilon 0.3 --out noisy.safetensors",
    );
    let load = |name: &str| Dataset::load(&folder.join(name)).unwrap();
    let (plain, noisy) = (load("plain.safetensors"), load("noisy.safetensors"));
    assert_eq!((plain.len(), noisy.len()), (400, 400));
    assert_eq!(plain.transitions().observations[..3], noisy.transitions().observations[..3]);
    assert_ne!(plain.transitions().actions, noisy.transitions().actions);
    assert!(noisy.transitions().actions.iter().all(|a| a.abs() <= 1.0));
    assert_eq!(noisy.about.source, "trained policy, noise 0.5, epsilon 0.3");

    done(folder, "data collect --replay run --out replay.safetensors");
    let replay = load("replay.safetensors");
    assert_eq!((replay.len(), replay.about.environment.as_str()), (450, "polo/PendulumOffline-v0"));
    assert_eq!(replay.episodes(), [0..150, 150..350, 350..450], "the first 50 steps made room");
    assert!(replay.transitions().terminated.iter().all(|&over| over == 0.0));
    assert_eq!(replay.about.source, "replay buffer after step 500");
}

#[test]
fn a_seed_decides_every_byte() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    trained(folder);
    for (name, how) in [
        ("random", "--env Pendulum-v1 --steps 250"),
        ("medium", "--env polo/PendulumOffline-v0 --policy medium --episodes 2"),
        ("trained", "--policy run/final --episodes 2 --noise 0.2 --epsilon 0.1"),
    ] {
        let bytes = |seed: u64, copy: &str| {
            let file = format!("{name}-{copy}.safetensors");
            done(folder, &format!("data collect {how} --seed {seed} --out {file}"));
            fs::read(folder.join(file)).unwrap()
        };
        assert!(bytes(1, "a") == bytes(1, "b"), "{name}");
        assert!(bytes(1, "c") != bytes(2, "d"), "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused_before_the_work() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let check = |line: &str, message: &str, hint: &str| refused(folder, line, message, hint);
    // Nobody would wait for as many episodes as these.
    let collect = "data collect --episodes 1000000000 --out a.safetensors";
    check(collect, "no environment is given", "--env ID");
    check(&format!("{collect} --env Pendulum"), "no environment `Pendulum`", "Pendulum-v1");
    check(&format!("{collect} --env Pendulum-v1 --policy best"), "no policy in `best`", "expert-noisy");
    check(
        &format!("{collect} --env Pendulum-v1 --policy medium"),
        "behaviour of polo/PendulumOffline-v0",
        "final",
    );
    check(&format!("{collect} --env CartPole-v1 --noise 0.1"), "no range of actions", "--epsilon");
    check(&format!("{collect} --env CartPole-v1 --epsilon 1.1"), "--epsilon", "0 to 1");
    check("data collect --env Pendulum-v1 --episodes 0 --out a.safetensors", "--episodes", "");
    check("data collect --env Pendulum-v1 --out a.safetensors", "how much", "--episodes N, or --steps N");
    check(
        "data collect --env Pendulum-v1 --episodes 1000000000 --out a.csv",
        "does not say",
        "NAME.safetensors",
    );
    fs::write(folder.join("file"), "").unwrap();
    fs::create_dir(folder.join("folder.safetensors")).unwrap();
    for (out, message) in [("file/a.safetensors", "file"), ("folder.safetensors", "is a folder")] {
        check(&format!("data collect --env Pendulum-v1 --episodes 1000000000 --out {out}"), message, "");
    }

    trained(folder);
    check(&format!("{collect} --policy run"), "no policy in `run`", "did you mean run/final?");
    check(
        &format!("{collect} --policy run/final --env Pendulum-v1"),
        "trained in `polo/PendulumOffline-v0`",
        "--env",
    );
    check("data collect --replay nowhere --out a.safetensors", "resolved.toml", "folder of a run");
    done(folder, "train ppo --env CartPole-v1 --out ppo --set training.steps=512");
    check("data collect --replay ppo --out a.safetensors", "remembers nothing", "--policy RUN/final");
    done(folder, "data collect --policy medium --episodes 2 --out medium.safetensors");
    let line = "train td3-bc --data medium.safetensors --out offline --set training.steps=20 --set training.evaluation_episodes=1";
    done(folder, line);
    check(
        "data collect --replay offline --out a.safetensors",
        "learnt from data alone",
        "--policy RUN/final",
    );
    let line = line.replace("--out offline", "--out online")
        + " --set data.offline_steps=10 --env polo/PendulumOffline-v0";
    done(folder, &line);
    check("data collect --replay online --out a.safetensors", "settings changed", "data.normalise=false");

    check("data mix --out b.safetensors medium.safetensors:3", "has 2 episodes, not 3", "collect more");
    check("data mix --out b.safetensors medium.safetensors:0", "no number of episodes", "PATH:EPISODES");
    check("data mix --out b.safetensors", "PATH[:EPISODES]", "");
    done(folder, "data collect --env Pendulum-v1 --episodes 1 --out other.safetensors");
    check(
        "data mix --out b.safetensors medium.safetensors other.safetensors",
        "`Pendulum-v1`",
        "one environment",
    );
    check("data info a.safetensors", "a.safetensors", "");
    let bytes = fs::read(folder.join("medium.safetensors")).unwrap();
    fs::write(folder.join("torn.safetensors"), &bytes[..bytes.len() - 4]).unwrap();
    check("data info torn.safetensors", "safetensors", "");
    let mut spoilt = bytes.clone();
    let end = spoilt.len();
    spoilt[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.join("spoilt.safetensors"), spoilt).unwrap();
    check("data info spoilt.safetensors", "is NaN", "");
    assert!(!folder.join("a.safetensors").exists() && !folder.join("b.safetensors").exists());
}
