//! Classic control against trajectories of Gymnasium; `golden/README.md` says how they were made and why the tolerances
//! are what they are.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;

use polo_sim::{Action, Environment, Space, make};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    episodes: Vec<Episode>,
}

#[derive(Deserialize)]
struct Episode {
    actions: Vec<GoldenAction>,
    observations: Vec<Vec<f32>>,
    rewards: Vec<f64>,
    ends: [bool; 2],
}

#[derive(Deserialize)]
#[serde(untagged)]
enum GoldenAction {
    Discrete(usize),
    Continuous(Vec<f32>),
}

/// Whether the mathematical functions are those that made the trajectories.
const SAME_FUNCTIONS: bool = cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"));

/// How far observations may lie apart after `step` steps of the episode.
fn tolerance(id: &str, step: usize) -> f32 {
    match (SAME_FUNCTIONS, id, step) {
        (true, "Acrobot-v1", 0) => 1e-7,
        (true, "Acrobot-v1", 1..=100) => 0.0,
        (true, "Acrobot-v1", _) => f32::INFINITY,
        (true, ..) => 0.0,
        (false, _, 0..=50) => 1e-5,
        (false, ..) => f32::INFINITY,
    }
}

fn check(id: &str) {
    let path = format!("{}/tests/golden/{id}.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Golden = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut environment = make(id).unwrap();
    let mut seed = Some(golden.seed);
    for (number, episode) in golden.episodes.iter().enumerate() {
        let near = |step: usize, shown: &[f32]| {
            let wanted = &episode.observations[step];
            let far = shown.iter().zip(wanted).any(|(a, b)| (a - b).abs() > tolerance(id, step));
            assert!(
                shown.len() == wanted.len() && !far,
                "{id}, episode {number}, step {step}: {shown:?} instead of {wanted:?}"
            );
        };
        near(0, &environment.reset(seed.take()).unwrap());
        let last = episode.actions.len() - 1;
        for (index, action) in episode.actions.iter().enumerate() {
            let step = environment
                .step(&match action {
                    GoldenAction::Discrete(choice) => Action::Discrete(*choice),
                    GoldenAction::Continuous(values) => Action::Continuous(values.clone()),
                })
                .unwrap();
            near(index + 1, &step.observation);
            let off = (step.reward - episode.rewards[index]).abs();
            let allowed = match (id, SAME_FUNCTIONS) {
                ("Pendulum-v1", true) => 1e-9,
                ("Pendulum-v1", false) => 1e-4,
                _ => 0.0,
            };
            assert!(off <= allowed, "{id}, episode {number}, step {index}: reward {}", step.reward);
            let ends = if index == last { episode.ends } else { [false; 2] };
            assert_eq!([step.terminated, step.truncated], ends, "{id}, episode {number}, step {index}");
        }
    }
}

#[test]
fn cart_pole_is_gymnasiums() {
    check("CartPole-v1");
}

#[test]
fn pendulum_is_gymnasiums() {
    check("Pendulum-v1");
}

#[test]
fn acrobot_is_gymnasiums() {
    check("Acrobot-v1");
}

#[test]
fn mountain_car_is_gymnasiums() {
    check("MountainCar-v0");
}

#[test]
fn mountain_car_continuous_is_gymnasiums() {
    check("MountainCarContinuous-v0");
}

/// Returns of a scripted policy from seeds 1000 to 1004, to one decimal.
fn check_returns(id: &str, policy: impl Fn(&[f32]) -> Action, wanted: [f64; 5]) {
    let mut environment = make(id).unwrap();
    let mut run = |seed| {
        let mut seen = environment.reset(Some(seed)).unwrap();
        let mut total = 0.0;
        loop {
            let step = environment.step(&policy(&seen)).unwrap();
            total += step.reward;
            if step.done() {
                return (total * 10.0_f64).round() / 10.0;
            }
            seen = step.observation;
        }
    };
    assert_eq!([1000, 1001, 1002, 1003, 1004].map(&mut run), wanted, "{id}");
}

#[test]
fn scripted_policies_earn_what_they_earn_in_gymnasium() {
    let choose = |yes, no, condition| Action::Discrete(if condition { yes } else { no });
    check_returns("CartPole-v1", |seen| choose(1, 0, seen[2] + 0.5 * seen[3] > 0.0), [500.0; 5]);
    check_returns("Acrobot-v1", |seen| choose(2, 0, seen[5] > 0.0), [-73.0, -72.0, -64.0, -72.0, -91.0]);
    check_returns(
        "MountainCar-v0",
        |seen| choose(2, 0, seen[1] >= 0.0),
        [-124.0, -123.0, -119.0, -114.0, -113.0],
    );
    check_returns(
        "MountainCarContinuous-v0",
        |seen| Action::Continuous(vec![if seen[1] >= 0.0 { 1.0 } else { -1.0 }]),
        [89.4, 89.4, 89.4, 89.2, 88.9],
    );
}

#[test]
fn spaces_are_gymnasiums() {
    let space = |id: &str| make(id).unwrap().observation_space().clone();
    let inf = f32::INFINITY;
    assert_eq!(space("CartPole-v1"), Space::symmetric(&[4.8, inf, 0.418_879_03, inf]));
    assert_eq!(space("Pendulum-v1"), Space::symmetric(&[1.0, 1.0, 8.0]));
    assert_eq!(space("Acrobot-v1"), Space::symmetric(&[1.0, 1.0, 1.0, 1.0, 12.566_371, 28.274_334]));
    let valley = Space::Box { low: vec![-1.2, -0.07], high: vec![0.6, 0.07] };
    assert_eq!([space("MountainCar-v0"), space("MountainCarContinuous-v0")], [valley.clone(), valley]);
}
