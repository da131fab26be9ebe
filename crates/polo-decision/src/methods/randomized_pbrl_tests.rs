use polo_run::seed::{below, unit};
use serde_json::Value;

use super::*;
use crate::{
    draw::normal,
    linear::{Matrix, dot},
    regression::sigmoid,
    train::{load_state, save_state},
};

fn run(settings: &RandomizedPbrl, seed: u64) -> Learner {
    settings.check().unwrap();
    let mut learner = settings.learner(seed).unwrap();
    learner.play_until(u64::MAX).unwrap();
    learner
}

/// Mean regret of an episode over four instances, and mean number of preferences.
fn mean(settings: &RandomizedPbrl) -> (f64, f64) {
    let learners = (0..4).map(|seed| run(settings, seed));
    let sums = learners.fold((0.0, 0.0), |sum, learner| {
        (sum.0 + learner.regret() / (2.0 * settings.rounds as f64), sum.1 + learner.queries() as f64)
    });
    (sums.0 / 4.0, sums.1 / 4.0)
}

fn with(algorithm: Algorithm, posterior: Posterior) -> RandomizedPbrl {
    RandomizedPbrl { algorithm, posterior, ..RandomizedPbrl::default() }
}

fn kinds() -> [RandomizedPbrl; 5] {
    [
        with(Algorithm::PrLsvi, Posterior::Laplace),
        with(Algorithm::Pbts, Posterior::Laplace),
        with(Algorithm::Pbts, Posterior::Particles),
        networks(),
        with(Algorithm::Rlsvi, Posterior::Laplace),
    ]
}

/// PbTS with networks for rewards and transitions.
fn networks() -> RandomizedPbrl {
    RandomizedPbrl {
        transition_posterior: TransitionPosterior::Ensemble,
        ..with(Algorithm::Pbts, Posterior::Ensemble)
    }
}

/// Comparisons between differences with a few entries of ± 1, by rewards that are random.
fn preferences(count: usize, size: usize, link_scale: f64, seed: u64) -> (Preferences, Gaussian, Vec<f64>) {
    let mut rng = Seeds::new(seed).rng("preferences", 0);
    let truth: Vec<f64> = (0..size).map(|_| normal(&mut rng)).collect();
    let mut preferences = Preferences::new(size, link_scale, 1.0);
    let mut covariance = Gaussian::new(size, 1.0);
    for _ in 0..count {
        let x: Vec<f64> = (0..size).map(|_| below(&mut rng, 3) as f64 - 1.0).collect();
        preferences.outcomes.push(unit(&mut rng) < sigmoid(link_scale * dot(&x, &truth)));
        covariance.add(&x, 1.0);
        preferences.differences.push(x);
    }
    (preferences, covariance, truth)
}

/// Unit check 1.
#[test]
fn the_closed_form_of_the_disagreement_is_that_of_draws() {
    let (mut data, mut covariance, _) = preferences(20, 4, 4.0, 1);
    data.fit();
    let x = [1.0, -1.0, 0.0, 1.0];
    let mut rng = Seeds::new(2).rng("draws", 0);
    let mut sum = 0.0;
    for _ in 0..1_000_000 {
        let (one, other) =
            (covariance.noise(0.5, &mut rng).unwrap(), covariance.noise(0.5, &mut rng).unwrap());
        sum += (dot(&one, &x) - dot(&other, &x)).abs();
    }
    let rewards = Rewards::Perturbed { preferences: data, covariance };
    let closed = rewards.disagreement(0.5, &x);
    // The standard deviation of |normal| is 0.76 of its mean.
    assert!((sum / 1e6 / closed - 1.0).abs() < 0.004, "{} {closed}", sum / 1e6);
}

/// Unit check 2.
#[test]
fn identical_episodes_are_never_asked_about() {
    for kind in kinds() {
        for query in [Query::Active, Query::Always, Query::Random] {
            let settings =
                RandomizedPbrl { query, query_probability: 1.0, epsilon: 0.0, rounds: 200, ..kind.clone() };
            let mut learner = settings.learner(3).unwrap();
            let mut identical = 0;
            while learner.done() < learner.total() {
                let round = learner.play().unwrap();
                if round.disagreement == 0.0 {
                    identical += 1;
                    assert_eq!(round.outcome, None);
                }
            }
            assert!(identical > 0 && learner.queries() <= 200 - identical);
        }
    }
}

/// Unit check 3.
#[test]
fn the_gradient_and_curvature_are_those_of_the_density() {
    let (data, ..) = preferences(30, 3, 4.0, 4);
    let at = [0.3, -0.2, 0.5];
    let (gradient, hessian) = (data.gradient(&at), data.hessian(&at));
    let moved = |i: usize, by: f64| {
        let mut at = at;
        at[i] += by;
        at
    };
    for (i, expected) in gradient.iter().enumerate() {
        let slope = (data.log_density(&moved(i, 1e-5)) - data.log_density(&moved(i, -1e-5))) / 2e-5;
        assert!((slope - expected).abs() < 1e-6, "{slope} {expected}");
        let (above, below) = (data.gradient(&moved(i, 1e-5)), data.gradient(&moved(i, -1e-5)));
        for j in 0..3 {
            let bend = (below[j] - above[j]) / 2e-5;
            assert!((bend - hessian.at(i, j)).abs() < 1e-5, "{bend} {}", hessian.at(i, j));
        }
    }
    // By hand: c = 4, λ = 1, one preference for x = (1, 0) at θ = (0.25, 2).
    let mut one = Preferences::new(2, 4.0, 1.0);
    (one.differences, one.outcomes) = (vec![vec![1.0, 0.0]], vec![true]);
    let expected = [4.0 * (1.0 - sigmoid(1.0)) - 0.25, -2.0];
    assert!(one.gradient(&[0.25, 2.0]).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
}

#[test]
fn fits_end_where_the_gradient_does() {
    // Also where no preference contradicts another, which undamped Newton does not survive.
    for (count, size) in [(1, 3), (5, 6), (300, 4)] {
        let (mut data, ..) = preferences(count, size, 4.0, 7);
        data.fit();
        assert!(data.gradient(&data.estimate).iter().all(|slope| slope.abs() < 1e-6));
    }
    let (mut data, _, truth) = preferences(20_000, 3, 4.0, 8);
    data.fit();
    assert!(data.estimate.iter().zip(&truth).all(|(found, truth)| (found - truth).abs() < 0.1));
}

/// Unit check 4.
#[test]
fn without_data_rewards_are_drawn_from_the_ridge() {
    for (lambda, sigma) in [(1.0, 0.5), (4.0, 0.5)] {
        let learner = RandomizedPbrl { lambda, ..Default::default() }.learner(1).unwrap();
        let mut rewards = learner.state.rewards.clone();
        let mut rng = Seeds::new(5).rng("draws", 0);
        let draws: Vec<f64> = (0..5000).flat_map(|_| rewards.draw(sigma, &mut rng).unwrap()).collect();
        let n = draws.len() as f64;
        let centre = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / n;
        let expected = sigma * sigma / lambda;
        assert!(centre.abs() < 4.0 * (expected / n).sqrt(), "{centre}");
        assert!((variance / expected - 1.0).abs() < 0.03, "{variance} {expected}");
    }
}

/// Unit check 5: many visits of every pair and many comparisons, both as often as the process says.
#[test]
fn without_noise_and_with_enough_data_iteration_is_exact() {
    for (seed, algorithm) in [(1, Algorithm::PrLsvi), (2, Algorithm::PrLsvi), (3, Algorithm::Pbts)] {
        let settings =
            RandomizedPbrl { sigma_reward: 0.0, sigma_transition: 0.0, algorithm, ..Default::default() };
        let mut learner = settings.learner(seed).unwrap();
        let process = learner.process.clone();
        let visits = 1e9;
        match &mut learner.state.transitions {
            Transitions::Linear { covariances, sums } => {
                for h in 0..process.horizon {
                    covariances[h] = Gaussian::of(Matrix::identity(process.size(), 1.0 + visits)).unwrap();
                    for (at, p) in process.transitions[h].iter().enumerate() {
                        sums[h][at % process.states][at / process.states] = visits * p;
                    }
                }
            }
            Transitions::Dirichlet(counts) => {
                for (counts, step) in counts.iter_mut().zip(&process.transitions) {
                    counts.iter_mut().zip(step).for_each(|(count, p)| *count += visits * p);
                }
            }
            Transitions::Ensemble(_) => unreachable!(),
        }
        let rewards = process.rewards.clone();
        let truth: Vec<f64> = rewards.concat();
        let quiet = settings.iteration();
        let mut rng = Seeds::new(1).rng("unused", 0);
        let table = learner.state.transitions.plan(&process, &rewards, &quiet, &mut rng).unwrap();
        assert!((process.value(&Policy::Table(table)) - learner.best).abs() < 1e-9);
        // Rewards from preferences: only differences are identified, and they are enough.
        let mut rng = Seeds::new(seed).rng("comparisons", 0);
        let mut data = Preferences::new(truth.len(), 4.0, 1.0);
        for _ in 0..10_000 {
            let [zero, one] = [(); 2].map(|()| process.stacked(&process.play(&Policy::Uniform, &mut rng)));
            let x: Vec<f64> = one.iter().zip(&zero).map(|(one, zero)| one - zero).collect();
            data.outcomes.push(unit(&mut rng) < sigmoid(4.0 * dot(&x, &truth)));
            data.differences.push(x);
        }
        data.fit();
        let found = learner.state.rewards.by_pair(&process, &data.estimate);
        let table = learner.state.transitions.plan(&process, &found, &quiet, &mut rng).unwrap();
        let lost = learner.best - process.value(&Policy::Table(table));
        assert!(lost < 0.01, "{lost}");
    }
}

/// Unit check 6.
#[test]
fn a_threshold_that_no_pair_reaches_is_never_asked_at() {
    // ‖x‖² is at most 2 H for one-hot features.
    let most = 2.0 * 0.5 * 6_f64.sqrt() / std::f64::consts::PI.sqrt();
    for epsilon in [most * 1.001, 2.0 * most] {
        let settings = RandomizedPbrl { epsilon, rounds: 500, ..Default::default() };
        assert_eq!(settings.warnings().len(), 1);
        assert_eq!(run(&settings, 1).queries(), 0);
    }
    let below = RandomizedPbrl { epsilon: most * 0.9, rounds: 500, ..Default::default() };
    assert!(below.warnings().is_empty() && run(&below, 1).queries() > 0);
}

#[test]
fn the_method_asks_little_and_its_ablations_lose() {
    let method = RandomizedPbrl::default();
    let (active, asked) = mean(&method);
    let (always, all) = mean(&RandomizedPbrl { query: Query::Always, ..method.clone() });
    assert!(active < 0.05 && always < 0.05, "{active} {always}");
    assert!(asked < 0.25 * all, "{asked} {all}");
    for worse in [
        RandomizedPbrl { comparator: Comparator::New, ..method.clone() },
        RandomizedPbrl { comparator: Comparator::Uniform, ..method.clone() },
        RandomizedPbrl { query: Query::Always, sigma_reward: 0.0, sigma_transition: 0.0, ..method.clone() },
    ] {
        let (regret, _) = mean(&worse);
        assert!(regret > 2.0 * active, "{worse:?}: {regret} {active}");
    }
    for kind in kinds() {
        let (regret, _) = mean(&RandomizedPbrl { rounds: 600, ..kind.clone() });
        assert!(regret < 0.1, "{:?} {:?}: {regret}", kind.algorithm, kind.posterior);
    }
    assert_eq!(mean(&with(Algorithm::Rlsvi, Posterior::Laplace)).1, 0.0);
}

#[test]
fn particles_agree_with_the_normal_approximation_where_that_is_good() {
    let (data, ..) = preferences(200, 3, 1.0, 9);
    let process = Tabular::random(1, 1, 3, 0.5, &Seeds::new(1));
    let mut learnt = [
        Rewards::Laplace { preferences: Preferences::new(3, 1.0, 1.0), hessian: Gaussian::new(3, 1.0) },
        Rewards::particles(Preferences::new(3, 1.0, 1.0), 4000, &Seeds::new(1)).unwrap(),
    ];
    for (x, outcome) in data.differences.iter().zip(&data.outcomes) {
        for rewards in &mut learnt {
            rewards.prefer(&process, x, *outcome, 1, &Seeds::new(1)).unwrap();
        }
    }
    let [laplace, particles] = learnt;
    let x = [1.0, 0.0, -1.0];
    let (normal, exact) = (laplace.disagreement(1.0, &x), particles.disagreement(1.0, &x));
    assert!((exact / normal - 1.0).abs() < 0.2, "{exact} {normal}");
    assert!(laplace.centre().iter().zip(particles.centre()).all(|(a, b)| (a - b).abs() < 0.15));
    // Disagreement in order against all pairs.
    let small = Rewards::particles(Preferences::new(3, 4.0, 1.0), 5, &Seeds::new(1)).unwrap();
    let mut rng = Seeds::new(2).rng("pairs", 0);
    let mut drawn = small.clone();
    let pairs = 200_000;
    let sum: f64 = (0..pairs)
        .map(|_| {
            let (one, other) = (drawn.draw(1.0, &mut rng).unwrap(), drawn.draw(1.0, &mut rng).unwrap());
            (dot(&one, &x) - dot(&other, &x)).abs()
        })
        .sum();
    assert!((sum / f64::from(pairs) / small.disagreement(1.0, &x) - 1.0).abs() < 0.02);
}

/// One feature for each pair, and enough comparisons that the prior's form hardly matters.
#[test]
fn networks_agree_with_the_normal_approximation_where_that_is_good() {
    let process = Tabular::random(2, 2, 2, 0.5, &Seeds::new(1));
    let settings = RandomizedPbrl { members: 20, link_scale: 1.0, fit_steps: 60, ..networks() };
    let mut learnt = [Posterior::Laplace, Posterior::Ensemble].map(|posterior| {
        let settings = RandomizedPbrl { posterior, horizon: 2, states: 2, ..settings.clone() };
        settings.learner(1).unwrap().state.rewards
    });
    let mut rng = Seeds::new(2).rng("comparisons", 0);
    let episode = |rng: &mut _| process.play(&Policy::Uniform, rng);
    for count in 1..=200 {
        let episodes = [episode(&mut rng), episode(&mut rng)];
        let better = process.total(&episodes[1]) - process.total(&episodes[0]);
        let outcome = unit(&mut rng) < sigmoid(better);
        for rewards in &mut learnt {
            let x = rewards.difference(&process, &episodes);
            rewards.prefer(&process, &x, outcome, 50, &Seeds::new(1)).unwrap();
        }
        let all = learnt.iter().filter_map(|rewards| match rewards {
            Rewards::Ensemble(ensemble) => Some(ensemble.preferences()),
            rewards => rewards.preferences().map(|preferences| preferences.outcomes.len()),
        });
        assert!(all.eq([count, count]));
    }
    let [laplace, ensemble] = learnt;
    let (mut wide, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let episodes = [episode(&mut rng), episode(&mut rng)];
        let [one, other] =
            [&laplace, &ensemble].map(|rewards| (rewards, rewards.difference(&process, &episodes)));
        let normal = one.0.disagreement(1.0, &one.1);
        if normal > 0.0 {
            wide.push(other.0.disagreement(1.0, &other.1) / normal);
            apart.push((dot(&one.0.centre(), &one.1) - dot(&other.0.centre(), &other.1)).abs() / normal);
        }
    }
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    assert!((0.85..1.15).contains(&mean(&wide)) && mean(&apart) < 0.3, "{wide:?} {apart:?}");
}

#[test]
fn a_run_resumes_where_it_stopped_and_leaves_its_result() {
    for kind in kinds() {
        for comparator in [Comparator::Previous, Comparator::SecondDraw] {
            let settings = RandomizedPbrl { rounds: 150, comparator, ..kind.clone() };
            let mut whole = settings.learner(3).unwrap();
            let mut first = settings.learner(3).unwrap();
            first.play_until(61).unwrap();
            whole.play_until(61).unwrap();
            let folder = tempfile::tempdir().unwrap();
            first.save(folder.path()).unwrap();
            let mut second = settings.learner(3).unwrap();
            second.load(folder.path()).unwrap();
            while whole.done() < whole.total() {
                assert_eq!(whole.go_on().unwrap(), second.go_on().unwrap());
            }
            let text = |learner: &Learner| serde_json::to_string(&learner.state).unwrap();
            assert_eq!(text(&whole), text(&second), "{:?} {:?}", kind.algorithm, kind.posterior);
            let left = folder.path().join("final");
            second.finish(&left).unwrap();
            let policy: Value = load_state(&left.join("policy.json")).unwrap();
            assert!(policy["policy"][2][0].as_str().unwrap().starts_with("action "), "{policy}");
            assert_eq!(Tabular::read(&left.join("process.json"), 1.0).unwrap(), second.process);
            let (metrics, line) = second.evaluate().unwrap().unwrap();
            assert!(metrics.get("values/recommended") <= metrics.get("values/best"), "{line}");
        }
    }
}

#[test]
fn a_process_of_the_users_own_is_learnt_also_in_features() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("process.json");
    let with_file = |kind| RandomizedPbrl { file: Some(path.clone()), rounds: 400, ..kind };
    let settings = with_file(RandomizedPbrl::default());
    assert!(settings.learner(1).is_err());
    // A walk to the right pays at its end; the first step to the left pays a little at once.
    let table = r#"{"horizon": 2, "states": ["shop", "field"], "actions": ["wait", "walk"],
        "transitions": [[[1, 0], [0, 1]], [[0, 1], [0, 1]]], "rewards": [[0.2, 0], [1, 0.5]]"#;
    let features = r#", "features": [[[1, 0, 0], [0, 1, 0]], [[0, 0.8, 0.6], [0, 0.9, 0.3]]]"#;
    for text in [format!("{table}}}"), format!("{table}{features}}}")] {
        save_state(&path, &serde_json::from_str::<Value>(&text).unwrap()).unwrap();
        for kind in [RandomizedPbrl::default(), networks()] {
            let learner = run(&with_file(kind), 1);
            assert!(learner.regret() / 800.0 < 0.15, "{}", learner.regret());
            assert_eq!(learner.process.value(&learner.recommended().unwrap()), 1.0);
        }
        let plan = settings.plan(&Training::default()).unwrap();
        assert!(plan.iter().any(|line| line.0 == "states" && line.1 == "2"));
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let crossed = RandomizedPbrl { alpha_low: 2.0, ..Default::default() };
    assert_eq!(crossed.check().unwrap_err().place_text(), Some("method.alpha_low"));
    for hidden in [vec![], vec![8, 8, 8], vec![0], vec![4, 5000]] {
        let shape = RandomizedPbrl { hidden, ..Default::default() };
        assert_eq!(shape.check().unwrap_err().place_text(), Some("method.hidden"));
    }
    let large = RandomizedPbrl { horizon: 10, states: 50, actions: 5, ..Default::default() };
    assert!(large.learner(1).unwrap_err().message().contains("2500"));
    let quiet = RandomizedPbrl { sigma_reward: 0.0, ..Default::default() };
    assert!(quiet.warnings()[0].contains("nothing will be asked"));
}
