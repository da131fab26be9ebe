use std::fs;

use super::*;

fn run(settings: &AdversarialLinearMdp, seed: u64) -> Learner {
    settings.check().unwrap();
    let mut learner = settings.learner(seed).unwrap();
    go_to(&mut learner, u64::MAX);
    learner
}

fn go_to(learner: &mut Learner, episode: u64) {
    while learner.done() < learner.total().min(episode) {
        let metrics = learner.go_on().unwrap();
        assert!(metrics.iter().all(|(_, value)| value.is_finite()));
    }
}

fn with(algorithm: Algorithm) -> AdversarialLinearMdp {
    AdversarialLinearMdp { algorithm, ..AdversarialLinearMdp::default() }
}

const ALL: [Algorithm; 7] = [
    Algorithm::LogBarrier,
    Algorithm::MagnitudeReduced,
    Algorithm::SimulatorFree,
    Algorithm::ExponentialWeights,
    Algorithm::Tsallis,
    Algorithm::Hedge,
    Algorithm::Uniform,
];

#[test]
fn the_algorithms_beat_the_old_one_and_that_beats_chance() {
    // The mean over four instances.
    let regret = |algorithm| {
        let settings = AdversarialLinearMdp { episodes: 2000, ..with(algorithm) };
        (0..4).map(|seed| run(&settings, seed).regret()).sum::<f64>() / 4.0
    };
    let (uniform, old) = (regret(Algorithm::Uniform), regret(Algorithm::ExponentialWeights));
    assert!(old < uniform, "{old} {uniform}");
    assert!(regret(Algorithm::LogBarrier) < old && regret(Algorithm::MagnitudeReduced) < old);
    assert!(regret(Algorithm::Hedge) < 0.5 * old && regret(Algorithm::SimulatorFree) < uniform);
}

#[test]
fn the_best_fixed_policy_is_that_of_exhaustion() {
    let settings = AdversarialLinearMdp { horizon: 2, states: 2, actions: 2, ..with(Algorithm::Uniform) };
    let process = settings.layered(&Seeds::new(5)).unwrap();
    let theta = &process.phases[0];
    let mut best = f64::INFINITY;
    for choice in 0..16_usize {
        let mut policy = process.table(0.0);
        for state in 0..4 {
            policy[state / 2][state % 2 * 2 + (choice >> state & 1)] = 1.0;
        }
        let value = process.value(&process.occupancy(&policy), theta);
        best = best.min(value);
        // Occupancies forward and Q backward agree.
        let q = &process.q(&policy, theta)[0];
        let first = policy[0][0] * q[0] + policy[0][1] * q[1];
        assert!((first - value).abs() < 1e-12);
    }
    assert!((process.best(theta) - best).abs() < 1e-12);
}

#[test]
fn every_algorithm_runs_on_every_instance_with_every_inverse() {
    for instance in [Instance::Random, Instance::Lock, Instance::Tabular] {
        for algorithm in ALL {
            for inverse in [Inverse::Exact, Inverse::Geometric, Inverse::Empirical] {
                let settings = AdversarialLinearMdp {
                    instance,
                    inverse,
                    episodes: 25,
                    epoch: 10,
                    gamma: Some(0.1),
                    beta: Some(0.02),
                    inverse_samples: 10,
                    inverse_steps: Some(20),
                    magnitude_rollouts: 10,
                    layers_left: true,
                    ..with(algorithm)
                };
                assert_eq!(run(&settings, 1).done(), 25);
            }
        }
    }
}

#[test]
fn a_run_resumes_where_it_stopped() {
    for algorithm in [Algorithm::LogBarrier, Algorithm::MagnitudeReduced, Algorithm::SimulatorFree] {
        let settings = AdversarialLinearMdp {
            episodes: 130,
            inverse: Inverse::Empirical,
            magnitude_rollouts: 20,
            beta: Some(0.01),
            ..with(algorithm)
        };
        let whole = run(&settings, 3);
        let mut one = settings.learner(3).unwrap();
        go_to(&mut one, 60);
        let folder = tempfile::tempdir().unwrap();
        one.save(folder.path()).unwrap();
        let mut other = settings.learner(3).unwrap();
        other.load(folder.path()).unwrap();
        go_to(&mut other, u64::MAX);
        assert_eq!(other.state, whole.state, "{algorithm:?}");
    }
}

#[test]
fn the_cover_reaches_the_end_of_the_lock() {
    let settings = AdversarialLinearMdp { instance: Instance::Lock, ..with(Algorithm::SimulatorFree) };
    let learner = settings.learner(0).unwrap();
    let cover = learner.cover.unwrap();
    let reached =
        cover.policies.iter().map(|policy| learner.process.occupancy(policy)[2][0..4].iter().sum::<f64>());
    assert!(reached.sum::<f64>() > 3.0);
    assert!(cover.known.iter().flatten().all(|known| *known), "{:?}", cover.known);
}

/// The first state's second action leads to the second state of the last layer.
const PROCESS: &str = r#"{"features": [[[[1, 0], [0, 1]]], [[[1, 0], [1, 0]], [[0, 1], [0, 1]]]],
"transitions": [[[[1, 0], [0, 1]]]],
"theta": [[[0.5, 0.5], [0.9, 0.1]]]}"#;

fn read(text: &str) -> Result<Layered> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    Layered::read(file.path())
}

#[test]
fn own_processes_are_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("process.json");
    fs::write(&path, PROCESS).unwrap();
    let settings = AdversarialLinearMdp { process: Some(path), episodes: 500, ..with(Algorithm::LogBarrier) };
    let mut learner = run(&settings, 0);
    assert!((learner.process.best(&learner.losses()) - 500.0 * 0.6).abs() < 1e-6);
    let (metrics, line) = learner.evaluate().unwrap().unwrap();
    assert!(
        metrics.get("charts/regret").unwrap() < 0.3 * metrics.get("charts/uniform_regret").unwrap(),
        "{line}"
    );
    learner.finish(&folder.path().join("left")).unwrap();
    assert!(fs::read_to_string(folder.path().join("left/policy.json")).unwrap().contains("\"uniform\":"));
}

#[test]
fn bad_processes_are_refused() {
    fn check(from: &str, to: &str, expected: &str) {
        assert!(PROCESS.contains(from));
        let error = read(&PROCESS.replacen(from, to, 1)).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
    assert_eq!(read(PROCESS).unwrap().horizon(), 2);
    check("\"theta\"", "\"thetas\"", "unknown field `thetas`");
    check("[[[1, 0], [0, 1]]]", "[[[1, 0]]]", "different numbers");
    check("[[[[1, 0], [0, 1]]]]", "[[[[1, 0], [0.5, 0.6]]]]", "no probabilities");
    check("[[[[1, 0], [0, 1]]]]", "[]", "transitions for 0");
    check("0.9", "1.9", "a loss outside");
    check("0.9", "null", "no layered process");
    check("[0.9, 0.1]", "[0.9]", "shape");
}
