//! The bridge to Python, on a stand-in for Gymnasium that misbehaves on demand; and on the real one, where
//! `POLO_PYTHON` names an interpreter that has it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{process::Command, time::Duration};

use polo_run::Problem;
use polo_sim::{
    Action, Environment, NumpyRandom, Space, Step,
    bridge::{Bridge, BridgeOptions},
    make,
};
use serde_json::Value;

const FAKES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake");

fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|run| run.status.success());
    if !found {
        eprintln!("no python3 here: the bridge is not tested");
    }
    found
}

fn options(python: &str) -> BridgeOptions {
    BridgeOptions { python: format!("{FAKES}/{python}"), ..BridgeOptions::default() }
}

fn fake(kind: &str) -> Result<Bridge, Problem> {
    Bridge::new(kind, &options("python"))
}

fn has(problem: &Problem, words: &str) {
    assert!(problem.message().contains(words), "`{words}` is missing in: {problem}");
    assert!(problem.hint_text().is_some(), "{problem}");
}

#[test]
fn an_environment_in_python_steps_and_ends() {
    if !has_python() {
        return;
    }
    let mut bridge = fake("plain").unwrap();
    let inf = f32::INFINITY;
    assert_eq!(bridge.observation_space(), &Space::Box { low: vec![-1.0, -inf], high: vec![1.0, inf] });
    assert_eq!(bridge.action_space(), &Space::Discrete(3));
    let one = Action::Discrete(1);
    has(&bridge.step(&one).unwrap_err(), "never reset");
    let first = bridge.reset(Some(3)).unwrap();
    has(&bridge.step(&Action::Discrete(3)).unwrap_err(), "action 3 is not one of the 3 choices");
    for step in 1..=5 {
        let seen = bridge.step(&one).unwrap();
        assert_eq!((seen.observation[0], seen.reward, seen.terminated), (step as f32, 2.0, step == 5));
    }
    has(&bridge.step(&one).unwrap_err(), "the episode has ended");
    let second = bridge.reset(None).unwrap();
    assert_ne!(first, second);
    assert_eq!(bridge.reset(Some(3)).unwrap(), first);
    assert_eq!(bridge.reset(None).unwrap(), second);
}

#[test]
fn arguments_reach_make() {
    if !has_python() {
        return;
    }
    let mut options = options("python");
    options.arguments.insert("length".to_owned(), 1.into());
    let mut bridge = Bridge::new("plain", &options).unwrap();
    bridge.reset(None).unwrap();
    assert!(bridge.step(&Action::Discrete(0)).unwrap().terminated);
}

#[test]
fn a_restored_bridge_goes_on_exactly() {
    if !has_python() {
        return;
    }
    let mut bridge = fake("plain").unwrap();
    bridge.reset(Some(1)).unwrap();
    bridge.reset(None).unwrap();
    bridge.step(&Action::Discrete(2)).unwrap();
    let saved: Value = serde_json::from_str(&bridge.save().to_string()).unwrap();
    let mut again = fake("plain").unwrap();
    again.restore(&saved).unwrap();
    for choice in [0, 1, 2, 0] {
        let action = Action::Discrete(choice);
        assert_eq!(bridge.step(&action).unwrap(), again.step(&action).unwrap());
    }
    assert_eq!(bridge.reset(None).unwrap(), again.reset(None).unwrap());

    let mut bridge = fake("entropy").unwrap();
    bridge.reset(Some(1)).unwrap();
    let saved = bridge.save();
    has(&bridge.restore(&saved).unwrap_err(), "led elsewhere");
    assert!(bridge.restore(&Value::Null).is_err());
}

#[test]
fn what_goes_wrong_in_python_is_told() {
    if !has_python() {
        return;
    }
    has(&fake("Unknown-v0").err().unwrap(), "Gymnasium does not know `Unknown-v0`");
    has(&fake("dictionary").err().unwrap(), "the observation space of the environment is a Dict");
    let mut wrong = options("python");
    wrong.arguments.insert("color".to_owned(), "red".into());
    has(&Bridge::new("plain", &wrong).err().unwrap(), "could not be made: TypeError");
    for (kind, words) in [
        ("nan", "observation[0] is NaN"),
        ("shape", "the environment shows 1 numbers, and its observation space has 2"),
        ("reward", "a reward that is not finite"),
        ("raise", "raised an error: ZeroDivisionError: no mass\n"),
        ("raise", "in step\n    raise ZeroDivisionError"),
        (
            "crash",
            "ended (exit status: 7); its process wrote:\n  a line that is no answer\n  segmentation fault, almost",
        ),
    ] {
        let mut bridge = fake(kind).unwrap();
        bridge.reset(Some(0)).unwrap();
        has(&bridge.step(&Action::Discrete(0)).unwrap_err(), words);
        has(&bridge.step(&Action::Discrete(0)).unwrap_err(), "the episode has ended");
    }
}

#[test]
fn a_hang_is_cut_short() {
    if !has_python() {
        return;
    }
    let mut bridge =
        Bridge::new("hang", &BridgeOptions { timeout: Duration::from_millis(500), ..options("python") })
            .unwrap();
    has(&bridge.reset(None).unwrap_err(), "did not answer within 0.5 s");
    has(&bridge.reset(None).unwrap_err(), "ended (signal: 9");
}

#[test]
fn a_missing_python_or_gymnasium_is_named() {
    let none = Bridge::new("CartPole-v1", &options("no-such-python")).err().unwrap();
    has(&none, "cannot start Python as");
    if has_python() {
        let bare = Bridge::new("CartPole-v1", &options("bare-python")).err().unwrap();
        has(&bare, "cannot import gymnasium");
    }
}

/// Random episodes in Gymnasium and in Rust: spaces, observations, rewards, ends.
#[test]
fn gymnasium_itself_agrees() {
    if std::env::var_os("POLO_PYTHON").is_none() {
        eprintln!("POLO_PYTHON is not set: the bridge is not tested on Gymnasium itself");
        return;
    }
    for id in ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"] {
        let (mut theirs, mut ours) = (make(&format!("gym:{id}")).unwrap(), make(id).unwrap());
        assert_eq!(theirs.observation_space(), ours.observation_space());
        assert_eq!(theirs.action_space(), ours.action_space());
        let mut random = NumpyRandom::new(0);
        for seed in 0..10 {
            let [first, wanted] = [&mut ours, &mut theirs].map(|run| run.reset(Some(seed)).unwrap());
            // Acrobot's first sine and cosine are NumPy's in f32.
            assert!(first.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-7), "{first:?} {wanted:?}");
            loop {
                let action = ours.action_space().sample(&mut random);
                let (step, wanted) = (ours.step(&action).unwrap(), theirs.step(&action).unwrap());
                assert!((step.reward - wanted.reward).abs() < 1e-9, "{id}");
                let exact = |step: &Step| (step.observation.clone(), step.terminated, step.truncated);
                assert_eq!(exact(&step), exact(&wanted), "{id}");
                if step.done() {
                    break;
                }
            }
        }
    }
    let unknown = make("gym:CartPol-v1").err().unwrap();
    has(&unknown, "CartPole");
}
