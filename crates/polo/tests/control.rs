//! Control through the real binary: methods learn and their policies are evaluated, stopped runs go on as if they never
//! were, and what cannot be is refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{done, goes_on_as_if_never_killed, polo, refused};
use tempfile::TempDir;

/// Mean return of a run's policy over 20 episodes.
fn evaluated(folder: &Path, run: &str) -> f64 {
    let said = done(folder, &format!("evaluate --model {run}/final --episodes 20 --seed 77 --json"));
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(found["return"]["n"], 20);
    found["return"]["mean"].as_f64().unwrap()
}

#[test]
fn methods_learn_and_their_policies_are_evaluated() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    for (method, environment, settings, least) in [
        // A pole falls after about 20 steps where nothing is learnt.
        ("ppo", "CartPole-v1", "--set training.steps=40000", 150.0),
        (
            "dqn",
            "CartPole-v1",
            "--set training.steps=12000 --set method.random_steps=500 --set method.train_every=2 --set method.learning_rate=1e-3 --set method.hidden=[32,32]",
            60.0,
        ),
        // A pendulum that nobody swings up earns about -1,200.
        (
            "sac",
            "Pendulum-v1",
            "--set training.steps=4000 --set method.random_steps=300 --set method.batch=64 --set method.hidden=[32,32] --set method.policy_rate=3e-3 --set method.critic_rate=3e-3 --set method.policy_every=1",
            -700.0,
        ),
        (
            "td3",
            "Pendulum-v1",
            "--set training.steps=5000 --set method.random_steps=500 --set method.batch=128 --set method.hidden=[64,64] --set method.learning_rate=1e-3",
            -800.0,
        ),
        ("ppo", "Pendulum-v1", "--set training.steps=2048 --set method.rollout=512", -2000.0),
        (
            "mdpo",
            "CartPole-v1",
            "--set training.steps=40960 --set method.rollout=1024 --set method.learning_rate=1e-3 --set method.value_rate=1e-3",
            150.0,
        ),
        ("mdpo", "Pendulum-v1", "--set training.steps=2048 --set method.rollout=512", -2000.0),
        (
            "trpo",
            "CartPole-v1",
            "--set training.steps=40960 --set method.rollout=1024 --set method.value_rate=1e-3",
            150.0,
        ),
        (
            "mdpo-off",
            "Pendulum-v1",
            "--set training.steps=4000 --set method.random_steps=300 --set method.batch=64 --set method.hidden=[32,32] --set method.policy_rate=3e-3 --set method.critic_rate=3e-3 --set method.c=0.5 --set method.m=50",
            -700.0,
        ),
    ] {
        let run = format!("{method}-{environment}");
        let line = format!(
            "train {method} --env {environment} --out {run} {settings} --set training.evaluate_every=0"
        );
        assert_eq!(done(folder, &line), format!("{run}/final\n"));
        let found = evaluated(folder, &run);
        assert!(found > least, "{run}: {found}");
        assert!(folder.join(&run).join("report.html").exists());
    }
}

#[test]
fn runs_that_were_stopped_go_on_as_if_they_never_were() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    for (method, environment, settings) in [
        ("ppo", "CartPole-v1", "--set training.steps=60000 --set training.checkpoint_every=512"),
        (
            "ppo",
            "Pendulum-v1",
            "--set training.steps=20000 --set training.checkpoint_every=256 --set method.rollout=128 --set method.copies=2 --set method.minibatches=4",
        ),
        (
            "sac",
            "Pendulum-v1",
            "--set training.steps=1500 --set training.checkpoint_every=50 --set method.random_steps=100 --set method.batch=32 --set method.hidden=[16,16] --set method.buffer=300",
        ),
        (
            "mdpo",
            "CartPole-v1",
            "--set training.steps=40000 --set training.checkpoint_every=512 --set method.rollout=256",
        ),
        (
            "trpo",
            "Pendulum-v1",
            "--set training.steps=20000 --set training.checkpoint_every=256 --set method.rollout=128 --set method.copies=2",
        ),
        (
            "mdpo-off",
            "Pendulum-v1",
            "--set training.steps=1500 --set training.checkpoint_every=50 --set method.random_steps=100 --set method.batch=32 --set method.hidden=[16,16] --set method.buffer=300 --set method.m=30",
        ),
        // Checkpoints just before a line of the log, which tells of an episode that ended before them.
        (
            "dqn",
            "CartPole-v1",
            "--set training.steps=6000 --set training.checkpoint_every=499 --set method.random_steps=200 --set method.batch=32 --set method.hidden=[16,16] --set method.buffer=500",
        ),
    ] {
        let line = format!("train {method} --env {environment} {settings}");
        goes_on_as_if_never_killed(folder, &format!("{method}-{environment}"), &line);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let refused = |line: &str, message: &str, hint: &str| refused(folder, line, message, hint);
    refused("train ppo", "no environment is given", "--env ID");
    refused("train ppo --env CartPole", "no environment `CartPole`", "CartPole-v1");
    refused("train sac --env CartPole-v1", "takes numbers", "dqn and ppo");
    refused("train dqn --env Pendulum-v1", "takes choices", "sac, td3");
    refused("train ppo --env CartPole-v1 --set method.clip=0", "method.clip", "> 0");
    refused("train ppo --env CartPole-v1 --set method.hidden=[0]", "width out of range", "[64, 64]");
    refused("train ppo --env CartPole-v1 --set method.hiden=[8]", "method.hiden", "method.hidden");
    refused("evaluate --model nowhere --episodes 3", "policy.json", "");
    let mut without = polo(folder, "train ppo --env gym:CartPole-v1");
    let out = without.env("POLO_PYTHON", "no-such-python").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("no-such-python"), "{said}");
    fs::create_dir(folder.join("torn")).unwrap();
    fs::write(folder.join("torn/policy.json"), "{\"environment\": 3").unwrap();
    refused(
        "evaluate --model torn --episodes 3",
        "not the description of a policy",
        "run of a control method",
    );
    done(folder, "train ppo --env CartPole-v1 --out run --set training.steps=512");
    let path = folder.join("run/final/policy.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    refused("evaluate --model run/final --episodes 3", "safetensors", "");
    let json = folder.join("run/final/policy.json");
    let described = fs::read_to_string(&json).unwrap();
    fs::write(&json, described.replace("CartPole-v1", "Acrobot-v1")).unwrap();
    fs::write(&path, bytes).unwrap();
    refused("evaluate --model run/final --episodes 3", "not made for `Acrobot-v1`", "train again");
}
