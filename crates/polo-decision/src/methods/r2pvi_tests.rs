use std::fs;

use polo_run::Kind;

use super::*;

fn process(settings: &R2pvi, seed: u64) -> Learner {
    let seeds = Seeds::new(seed);
    let data = settings.dataset(&seeds, 0).unwrap();
    Learner { settings: settings.clone(), seeds, data, state: State::default() }
}

fn run(settings: &R2pvi, seed: u64) -> Learner {
    settings.check().unwrap();
    let mut learner = process(settings, seed);
    while learner.done() < learner.total() {
        learner.go_on().unwrap();
    }
    learner
}

/// Mean scores under q = 0, 0.5 and 1.
fn scores(settings: R2pvi) -> [f64; 3] {
    let learner = run(&R2pvi { shifts: vec![0.0, 0.5, 1.0], ..settings }, 0);
    [0, 1, 2].map(|at| polo_run::stats::mean(&learner.column(at)).unwrap())
}

#[test]
fn scores_are_those_of_the_card() {
    #[track_caller]
    fn check(algorithm: Algorithm, shift: Option<bool>, expected: [f64; 3]) {
        let found = scores(R2pvi { algorithm, shift, ..R2pvi::default() });
        // Between sets of 20 datasets means move by 0.03 at q = 0 and 0.055 at q = 1.
        for ((found, expected), within) in found.iter().zip(expected).zip([0.1, 0.05, 0.2]) {
            assert!((found - expected).abs() < within, "{algorithm:?}: {found} is not {expected}");
        }
    }
    check(Algorithm::Pevi, None, [1.61, 1.13, 0.65]);
    check(Algorithm::Lsvi, None, [1.61, 1.13, 0.65]);
    check(Algorithm::R2pviTv, None, [1.325, 1.225, 1.125]);
    check(Algorithm::R2pviKl, None, [1.505, 1.165, 0.825]);
    check(Algorithm::R2pviKl, Some(true), [1.325, 1.225, 1.125]);
    check(Algorithm::R2pviChi2, None, [1.52, 1.16, 0.80]);
    check(Algorithm::VaR2pviTv, None, [1.325, 1.225, 1.125]);
}

#[test]
fn without_robustness_all_are_the_same_regression() {
    let weights = |algorithm, lambda| {
        let shift = Some(true);
        let settings = R2pvi { algorithm, lambda, shift, beta: 0.0, replications: 1, ..R2pvi::default() };
        run(&settings, 3).state.progress.policy()[1].weights.clone()
    };
    let expected = weights(Algorithm::R2pviTv, 1e9);
    for algorithm in [Algorithm::R2pviKl, Algorithm::R2pviChi2] {
        for (found, expected) in weights(algorithm, 1e5).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-3, "{algorithm:?}: {found} is not {expected}");
        }
    }
}

#[test]
fn every_algorithm_runs_on_every_problem_with_every_penalty() {
    use Algorithm::*;
    for problem in [World::SimulatedMdp, World::AmericanPut, World::AmericanPutOfficial] {
        for algorithm in [R2pviTv, R2pviKl, R2pviChi2, VaR2pviTv, Pevi, Lsvi, Drpvi, VaDrpvi, DrviL] {
            for penalty in [Penalty::Sum, Penalty::Root, Penalty::Norm] {
                let settings = R2pvi {
                    algorithm,
                    problem,
                    lambda: 1.0,
                    penalty: Some(penalty),
                    trajectories: 10,
                    replications: 1,
                    coverage: 0.7,
                    clip_low: penalty == Penalty::Sum,
                    ..R2pvi::default()
                };
                let learner = run(&settings, 1);
                assert!(learner.state.scores[0].iter().all(|score| (0.0..40.0).contains(score)));
            }
        }
    }
}

#[test]
fn holders_of_a_put_exercise_in_time() {
    let settings = R2pvi {
        problem: World::AmericanPut,
        algorithm: Algorithm::R2pviTv,
        lambda: 5.0,
        beta: 0.02,
        replications: 3,
        ..R2pvi::default()
    };
    let learner = run(&settings, 0);
    let at = settings.scored_shifts().iter().position(|shift| *shift == 0.5).unwrap();
    // The best policy's value is about 3.9 at p = 0.5; exercising at once pays 1.25.
    let mean = polo_run::stats::mean(&learner.column(at)).unwrap();
    assert!(mean > 2.0, "{mean}");
}

#[test]
fn a_run_resumes_where_it_stopped() {
    for algorithm in [Algorithm::R2pviChi2, Algorithm::VaR2pviTv] {
        let settings = R2pvi { algorithm, replications: 3, ..R2pvi::default() };
        let whole = run(&settings, 5);
        for stop in [1, 4, 6, 7] {
            let mut one = process(&settings, 5);
            (0..stop).for_each(|_| drop(one.go_on().unwrap()));
            let folder = tempfile::tempdir().unwrap();
            one.save(folder.path()).unwrap();
            let mut other = process(&settings, 5);
            other.load(folder.path()).unwrap();
            while other.done() < other.total() {
                other.go_on().unwrap();
            }
            assert_eq!(other.state, whole.state, "{algorithm:?} after {stop}");
        }
    }
}

/// Two episodes of the simulated process's last two steps.
const EPISODES: &str = r#"{"features": [[0.5, 0.5], [0.2, 0.8]], "rewards": [0, 0.8], "next": [[[0.2, 0.8], [0.9, 0.1]], []], "start": [[0.5, 0.5], [1, 0]]}
{"features": [[1, 0], [0.9, 0.1]], "rewards": [0, 0.1], "next": [[[0.9, 0.1]], []]}
"#;

#[test]
fn own_episodes_become_a_policy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("episodes.jsonl");
    fs::write(&path, EPISODES).unwrap();
    let theta = folder.path().join("theta.json");
    fs::write(&theta, "[[0, 0], [0, 1]]").unwrap();
    let settings = R2pvi {
        data: Some(path.clone()),
        theta: Some(theta),
        lambda: 10.0,
        beta: 0.0,
        ridge: 1e-6,
        ..R2pvi::default()
    };
    let mut learner = run(&settings, 0);
    assert_eq!(learner.total(), 2);
    let (metrics, _) = learner.evaluate().unwrap().unwrap();
    // Of the first action's halves, one leads to 0.8 and the other to 0.1: the fit is exact, and all is known.
    assert!((metrics.get("charts/start_value").unwrap() - 0.8).abs() < 1e-3, "{metrics:?}");
    learner.finish(&folder.path().join("left")).unwrap();
    let left = fs::read_to_string(folder.path().join("left/policy.json")).unwrap();
    assert!(left.contains("\"weights\"") && !folder.path().join("left/robustness.csv").exists());
    fs::write(&path, EPISODES.replace("0.8", "0.9")).unwrap();
    assert_eq!(settings.process(&Training::default()).err().unwrap().kind(), Kind::Input);
}

#[test]
fn a_run_leaves_its_policy_and_curve() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("left");
    let learner = run(&R2pvi { replications: 2, ..R2pvi::default() }, 0);
    learner.finish(&left).unwrap();
    let curve = fs::read_to_string(left.join("robustness.csv")).unwrap();
    assert_eq!(curve.lines().count(), 12);
    assert!(curve.starts_with("shift,return,low,high,datasets\n0,1."), "{curve}");
    assert!(fs::read_to_string(left.join("policy.json")).unwrap().contains("\"algorithm\":\"r2pvi-tv\""));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    fn check(settings: R2pvi, place: &str) {
        assert_eq!(settings.check().unwrap_err().place_text(), Some(place));
    }
    check(R2pvi { xi: 0.4, ..R2pvi::default() }, "method.xi");
    check(R2pvi { shifts: vec![1.5], ..R2pvi::default() }, "method.shifts");
    check(R2pvi { theta: Some("x".into()), ..R2pvi::default() }, "method.theta");
    check(R2pvi { algorithm: Algorithm::Drpvi, radius: 2.0, ..R2pvi::default() }, "method.radius");
}
