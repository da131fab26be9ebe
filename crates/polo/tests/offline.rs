//! Offline learning through the real binary: from a collected dataset to a policy that is evaluated, offline and then
//! online, stopped and gone on with, and what cannot be is refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{done, goes_on_as_if_never_killed, refused};
use tempfile::TempDir;

const ENVIRONMENT: &str = "polo/PendulumOffline-v0";

/// Mean normalised score of a run's policy over 20 episodes.
fn score(folder: &Path, run: &str) -> f64 {
    let said = done(folder, &format!("evaluate --model {run}/final --episodes 20 --seed 77 --json"));
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    found["normalised score"]["mean"].as_f64().unwrap()
}

fn collect(folder: &Path, behaviour: &str, episodes: usize) {
    done(
        folder,
        &format!(
            "data collect --env {ENVIRONMENT} --policy {behaviour} --episodes {episodes} --out {behaviour}.safetensors"
        ),
    );
}

const SMALL: &str = "--set data.reward_scale=0.1 --set method.hidden=[32,32] --set method.batch=64 --set training.evaluate_every=0";

#[test]
fn offline_methods_learn_from_a_dataset() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    collect(folder, "expert-noisy", 20);
    collect(folder, "random", 20);
    // Random behaviour scores 0, the expert 100. The data names its environment.
    for (method, data, settings, least) in [
        ("bc", "expert-noisy", "--set method.learning_rate=3e-3", 50.0),
        ("td3-bc", "expert-noisy", "--set method.learning_rate=3e-3 --set method.gamma=0.98", 50.0),
        ("iql", "expert-noisy", "--set method.learning_rate=3e-3 --set method.gamma=0.98", 50.0),
    ] {
        let line = format!(
            "train {method} --data {data}.safetensors --out {method} {SMALL} {settings} --set training.steps=1500"
        );
        assert_eq!(done(folder, &line), format!("{method}/final\n"));
        let found = score(folder, method);
        assert!(found > least, "{method}: {found}");
    }
    // Among random episodes the few good ones are found by weighting, and not without.
    done(folder, "data mix expert-noisy.safetensors:5 random.safetensors --out mixed.safetensors");
    let of = |name: &str, settings: &str| {
        let line = format!(
            "train bc --dataset mixed.safetensors --out {name} {SMALL} --set method.learning_rate=3e-3 --set training.steps=1500 {settings}"
        );
        done(folder, &line);
        score(folder, name)
    };
    let (uniform, top) = (of("uniform", ""), of("top", "--set data.sampling=top --set data.top=0.2"));
    assert!(top > uniform + 40.0, "{top} {uniform}");
}

#[test]
fn every_method_that_takes_data_runs_on_it_and_goes_on_online() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    collect(folder, "medium", 3);
    for (method, settings) in [
        ("bc", ""),
        ("percent-bc", ""),
        ("td3-bc", ""),
        ("iql", ""),
        ("iql", "--set method.deterministic=true"),
        ("awac", ""),
        ("sac-n", "--set method.critics=3"),
        ("edac", "--set method.critics=3"),
        ("rlpd", "--set method.critics=3 --set method.random_steps=20 --set data.offline_steps=0"),
        ("sac", "--set method.random_steps=20"),
        ("td3", "--set method.random_steps=20"),
        ("a2pr", "--set method.vae_hidden=[16]"),
    ] {
        let steps = if settings.contains("random_steps") { "" } else { "--set data.offline_steps=40" };
        let line = format!(
            "train {method} --env {ENVIRONMENT} --data medium.safetensors --out run-{method}-{} --set method.hidden=[16] --set method.batch=16 --set training.steps=100 --set training.evaluation_episodes=1 {settings} {steps}",
            settings.len()
        );
        done(folder, &line);
    }
    for method in ["trajectory-weighting", "cql", "cal-ql"] {
        let line = format!(
            "train {method} --data medium.safetensors --out run-{method} --set training.steps=20 --set training.evaluation_episodes=1"
        );
        done(folder, &line);
    }
}

#[test]
fn runs_that_were_stopped_go_on_as_if_they_never_were() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    collect(folder, "medium", 3);
    for (method, settings) in [
        ("td3-bc", "--set training.steps=3000 --set data.sampling=advantage"),
        ("iql", "--set training.steps=2000"),
        ("a2pr", "--set training.steps=1500 --set method.vae_hidden=[16,16]"),
        // Offline at first, then in the environment, stopped on either side.
        ("td3-bc", "--set training.steps=2500 --set data.offline_steps=900"),
    ] {
        let line = format!(
            "train {method} --env {ENVIRONMENT} --data medium.safetensors {settings} --set method.hidden=[16,16] --set method.batch=32 --set training.evaluate_every=0 --set training.evaluation_episodes=2 --set training.checkpoint_every=50"
        );
        goes_on_as_if_never_killed(folder, &format!("{method}-{}", settings.len()), &line);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    collect(folder, "medium", 2);
    let refused = |line: &str, message: &str, hint: &str| refused(folder, line, message, hint);
    refused("train td3-bc", "learns from logged data", "polo data collect");
    refused("train td3-bc --data nowhere.safetensors", "nowhere.safetensors", "");
    refused("train td3-bc --data medium.csv", "its name does not say", "safetensors");
    refused(
        "train ppo --env CartPole-v1 --data medium.safetensors",
        "observations of 3 numbers",
        "data info",
    );
    refused(
        &format!("train ppo --env {ENVIRONMENT} --data medium.safetensors"),
        "newest policy",
        "leave the data out",
    );
    refused("train iql --env Pendulum-v1 --data medium.safetensors --set data.top=0", "data.top", "> 0");
    refused("train td3-bc --data medium.safetensors --set data.sampling=best", "data.sampling", "advantage");
    refused("train rlpd --data medium.safetensors", "no environment", "--env ID");
    let bytes = fs::read(folder.join("medium.safetensors")).unwrap();
    fs::write(folder.join("torn.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    refused("train bc --data torn.safetensors", "not a whole safetensors file", "");
    done(folder, "data collect --env CartPole-v1 --episodes 2 --out poles.safetensors");
    refused("train td3-bc --data poles.safetensors", "actions are choices", "");
    refused("train bc --data poles.safetensors --data medium.safetensors", "not of the same spaces", "mix");
    done(
        folder,
        "train bc --data poles.safetensors --set training.steps=20 --set training.evaluation_episodes=2 --out poles",
    );
}
