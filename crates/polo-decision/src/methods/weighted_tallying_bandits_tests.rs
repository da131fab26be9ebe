use std::fs;

use std::collections::HashSet;

use super::*;

fn arm(name: &str, weights: &[f64], points: &[(f64, f64)]) -> Arm {
    Arm {
        name: name.into(),
        weights: weights.to_vec(),
        tallies: points.iter().map(|point| point.0).collect(),
        losses: points.iter().map(|point| point.1).collect(),
    }
}

/// Two arms with three rounds of memory, the first to be played for ever.
fn small(counts_current: bool) -> Instance {
    let weights = [1.0, 0.5, 0.25];
    let arms = vec![
        arm("x", &weights, &[(0.0, 0.9), (1.75, 0.2)]),
        arm("z", &weights, &[(0.0, 0.25), (1.0, 0.3), (1.75, 0.7)]),
    ];
    Instance { arms, counts_current, noise: Noise::Gaussian(0.0) }
}

fn quiet() -> WeightedTallyingBandits {
    WeightedTallyingBandits { rounds: 4000, noise: 0.0, noise_scale: Some(0.0), ..Default::default() }
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

#[test]
fn tallies_by_hand() {
    let (x, z) = (0, 1);
    let check = |counts_current: bool, history: &[usize], expected: f64| {
        assert_eq!(small(counts_current).tally(history, x), expected, "{counts_current} {history:?}");
    };
    check(true, &[], 1.0);
    check(true, &[x], 1.5);
    check(true, &[x, x], 1.75);
    check(true, &[x, z], 1.25);
    check(true, &[z, x], 1.5);
    check(false, &[], 0.0);
    check(false, &[x, x, x], 1.75);
    check(false, &[x, x, z], 0.75);
    check(false, &[x, z, x], 1.25);
}

#[test]
fn losses_are_straight_between_points_and_stay_outside() {
    let arm = arm("a", &[1.0], &[(0.5, 0.9), (1.0, 0.5), (2.0, 0.1)]);
    for (tally, expected) in
        [(0.0, 0.9), (0.5, 0.9), (0.75, 0.7), (1.0, 0.5), (1.5, 0.3), (2.0, 0.1), (9.0, 0.1)]
    {
        near(arm.loss(tally), expected);
    }
}

/// Expected losses of a sequence of pulls.
fn total(instance: &Instance, pulls: &[usize]) -> f64 {
    let past = instance.past();
    (0..pulls.len()).map(|t| instance.loss(&pulls[t.saturating_sub(past)..t], pulls[t])).sum()
}

#[test]
fn the_exact_optimum_is_that_of_all_sequences() {
    for counts_current in [true, false] {
        let instance = small(counts_current);
        for rounds in [1_usize, 2, 5, 10] {
            let sequences = (0..1_usize << rounds).map(|code| {
                let pulls: Vec<usize> = (0..rounds).map(|t| code >> t & 1).collect();
                total(&instance, &pulls)
            });
            let best = sequences.fold(f64::INFINITY, f64::min);
            near(instance.optimum(rounds as u64).unwrap(), best);
        }
        for arm in [0, 1] {
            for rounds in [0, 1, 2, 3, 9] {
                near(instance.always(arm, rounds), total(&instance, &vec![arm; rounds as usize]));
            }
        }
    }
    let large = WeightedTallyingBandits::default().instance(&Seeds::new(0)).unwrap();
    assert_eq!(large.optimum(100), None);
}

#[test]
fn under_repeated_exposure_the_best_arm_always_is_nearly_the_best() {
    let kinds = [Shape::RepeatedExposure, Shape::Improving, Shape::Rotting, Shape::NonMonotone];
    for shape in kinds {
        for seed in 0..10 {
            let settings =
                WeightedTallyingBandits { shape, arms: 2, memory: 3, rounds: 12, ..Default::default() };
            let instance = settings.instance(&Seeds::new(seed)).unwrap();
            let best = instance.repeated_exposure_optimum().unwrap();
            let (optimum, always) = (instance.optimum(12).unwrap(), instance.always(best, 12));
            assert!(optimum <= always + 1e-9 && optimum >= always - 2.0, "{optimum} {always}");
            assert!(optimum >= 12.0 * instance.arms[best].saturated() - 1e-9, "{optimum}");
        }
    }
}

fn every_kind(check: impl Fn(WeightedTallyingBandits)) {
    for shape in [Shape::RepeatedExposure, Shape::Improving, Shape::Rotting, Shape::NonMonotone] {
        for weights in [Weights::Uniform, Weights::Geometric, Weights::PowerLaw] {
            for (own_weights, counts_current) in [(false, true), (true, true), (true, false)] {
                check(WeightedTallyingBandits { shape, weights, own_weights, counts_current, ..quiet() });
            }
        }
    }
}

#[test]
fn drawn_arms_are_best_when_repeated_and_elimination_keeps_the_best() {
    every_kind(|settings| {
        for seed in 0..3 {
            let instance = settings.instance(&Seeds::new(seed)).unwrap();
            let best = instance.repeated_exposure_optimum().unwrap();
            near(instance.arms[best].saturated(), 0.2);
            for arm in &instance.arms {
                near(arm.weights.iter().sum(), 1.0);
                assert!(arm.losses.iter().all(|loss| (0.2 - 1e-9..=1.0).contains(loss)), "{arm:?}");
            }
            // As many pulls as a loss looks back on are enough.
            let bound = Some(instance.past() as u64);
            let mut game =
                WeightedTallyingBandits { memory_bound: bound, ..settings.clone() }.game(seed).unwrap();
            game.play_out();
            assert_eq!(game.left().unwrap(), [best], "{settings:?}");
        }
    });
}

#[test]
fn without_burn_in_the_best_arm_goes_and_a_warning_says_so() {
    let settings = WeightedTallyingBandits { memory: 50, first_epoch: 8, memory_bound: Some(0), ..quiet() };
    let mut game = settings.game(1).unwrap();
    let warnings = settings.warnings(&game.instance);
    assert!(warnings.len() == 1 && warnings[0].contains("need 49 pulls"), "{warnings:?}");
    game.play_out();
    assert!(!game.left().unwrap().contains(&game.best));
    let safe = WeightedTallyingBandits { memory_bound: Some(49), ..settings };
    assert!(safe.warnings(&game.instance).is_empty());
    let mut game = safe.game(1).unwrap();
    game.play_out();
    assert_eq!(game.left().unwrap(), [game.best]);
}

/// Successive elimination for ordinary bandits, from its description: the pulls it makes.
fn standard(
    instance: &Instance,
    seeds: &Seeds,
    rounds: u64,
    n_0: u64,
    growth: f64,
    sigma: f64,
) -> Vec<usize> {
    let arms = instance.arms.len();
    let epochs = ((rounds as f64).ln() / growth.ln()).ceil();
    let delta = 1.0 / rounds as f64;
    let (mut active, mut pulls, mut n) = ((0..arms).collect::<Vec<_>>(), Vec::new(), n_0 as f64);
    'game: while active.len() > 1 {
        let mut means = Vec::new();
        for &arm in &active {
            let mut sum = 0.0;
            for _ in 0..n.round() as u64 {
                if pulls.len() as u64 == rounds {
                    break 'game;
                }
                sum += instance.observe(instance.arms[arm].saturated(), pulls.len() as u64, seeds);
                pulls.push(arm);
            }
            means.push(sum / n.round());
        }
        let least = means.iter().copied().fold(f64::INFINITY, f64::min);
        let radius = (2.0 * sigma * sigma * (2.0 * arms as f64 * epochs / delta).ln() / n.round()).sqrt();
        active =
            active.iter().zip(&means).filter(|(_, m)| **m <= least + 2.0 * radius).map(|(a, _)| *a).collect();
        n *= growth;
    }
    pulls.resize(rounds as usize, active[0]);
    pulls
}

#[test]
fn without_memory_it_is_successive_elimination() {
    for (seed, growth) in [(0, 4.0), (1, 2.0), (2, 1.5)] {
        let settings = WeightedTallyingBandits {
            memory: 1,
            memory_bound: Some(0),
            rounds: 3000,
            growth,
            noise: 0.3,
            ..Default::default()
        };
        let mut game = settings.game(seed).unwrap();
        let pulls: Vec<usize> = (0..3000).map(|_| game.play().0).collect();
        assert_eq!(pulls, standard(&game.instance, &Seeds::new(seed), 3000, 16, growth, 0.3));
        assert!(pulls.iter().collect::<HashSet<_>>().len() == 5);
    }
}

#[test]
fn visits_are_contiguous_and_an_unfinished_epoch_drops_nothing() {
    let settings = WeightedTallyingBandits { rounds: 5 * 36 - 1, ..quiet() };
    let mut game = settings.game(0).unwrap();
    let pulls: Vec<usize> = (0..settings.rounds).map(|_| game.play().0).collect();
    let expected: Vec<usize> = (0..pulls.len()).map(|t| t / 36).collect();
    assert_eq!(pulls, expected);
    assert_eq!(game.left().unwrap().len(), 5);
    game.play();
    assert_eq!(game.left().unwrap(), [game.best]);
}

#[test]
fn sequences_find_an_alternation_that_single_arms_cannot() {
    // Each arm is good when it was not played in the round before.
    let arms = ["a", "b"].map(|name| arm(name, &[1.0, 1.0], &[(1.0, 0.1), (2.0, 0.9)])).to_vec();
    let instance = Instance { arms, counts_current: true, noise: Noise::Gaussian(0.05) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arms.json");
    save_state(&path, &instance).unwrap();
    let run = |player| {
        let settings =
            WeightedTallyingBandits { player, rounds: 3000, file: Some(path.clone()), ..Default::default() };
        assert_eq!(settings.warnings(&instance).len(), 1);
        let mut game = settings.game(3).unwrap();
        game.play_out();
        (game.exact_policy_regret().unwrap(), game.left().is_some())
    };
    let (sequences, _) = run(Player::Sequences);
    let (single, has_arms) = run(Player::Elimination);
    assert!(sequences < 200.0 && single > 1500.0 && has_arms, "{sequences} {single}");
    let many = WeightedTallyingBandits { player: Player::Sequences, ..Default::default() };
    assert!(many.game(0).unwrap_err().message().contains("5^20 sequences"));
}

const PLAYERS: [Player; 6] = [
    Player::Elimination,
    Player::ExploreThenCommit,
    Player::Ucb1,
    Player::Exp3,
    Player::BatchedExp3,
    Player::Sequences,
];

#[test]
fn every_player_finds_the_best_ordinary_arm() {
    for player in PLAYERS {
        for bernoulli in [false, true] {
            let settings = WeightedTallyingBandits {
                player,
                memory: 1,
                rounds: 20_000,
                weights: Weights::Uniform,
                bernoulli,
                ..Default::default()
            };
            let mut game = settings.game(7).unwrap();
            game.play_out();
            let share = game.state.pulls[game.best] as f64 / 20_000.0;
            assert!(share > 0.75, "{player:?} {bernoulli}: {share}");
        }
    }
}

#[test]
fn a_killed_game_goes_on_as_if_it_had_not_been() {
    for player in PLAYERS {
        let settings =
            WeightedTallyingBandits { player, arms: 3, memory: 4, rounds: 1000, ..Default::default() };
        let training = Training::default();
        let mut whole = settings.game(training.seed).unwrap();
        let mut first = settings.process(&training).unwrap();
        for _ in 0..417 {
            whole.go_on().unwrap();
            first.go_on().unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        first.save(folder.path()).unwrap();
        let mut second = settings.game(training.seed).unwrap();
        second.load(folder.path()).unwrap();
        assert_eq!(second.done(), 417);
        while whole.done() < whole.total() {
            assert_eq!(whole.go_on().unwrap(), second.go_on().unwrap());
        }
        assert_eq!(whole.state, second.state);
        let (metrics, line) = second.evaluate().unwrap().unwrap();
        assert!(metrics.get("regret/exact").is_some() && line.contains("policy regret"));
        second.finish(&folder.path().join("final")).unwrap();
        let kept = Instance::read(&folder.path().join("final/arms.json")).unwrap();
        assert_eq!(kept, second.instance);
    }
}

#[test]
fn unusable_files_are_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arms.json");
    let check = |text: &str, expected: &str| {
        fs::write(&path, text).unwrap();
        let problem = Instance::read(&path).unwrap_err();
        assert!(problem.message().contains(expected), "{text}: {}", problem.message());
        assert!(problem.place_text().unwrap().contains("arms.json"));
    };
    let arm = |name: &str, weights: &str, tallies: &str, losses: &str| {
        format!(r#"{{"name":"{name}","weights":{weights},"tallies":{tallies},"losses":{losses}}}"#)
    };
    let file = |one: String| {
        format!(
            r#"{{"arms":[{one},{}],"noise":{{"gaussian":0.1}}}}"#,
            arm("good", "[1]", "[0,1]", "[0.9,0.1]")
        )
    };
    check("", "EOF");
    check("{}", "missing field `arms`");
    check(r#"{"arms":[],"noise":"bernoulli"}"#, "two arms at least");
    check(&file(r#"{"name":"a","weights":[1],"tallies":[0]}"#.into()), "missing field `losses`");
    check(&file(arm("a", "[]", "[0]", "[0]")), "the weights of arm \"a\"");
    check(&file(arm("a", "[-1]", "[0]", "[0]")), "the weights of arm \"a\"");
    check(&file(arm("a", "[1]", "[0,1]", "[0]")), "2 tallies and 1 losses");
    check(&file(arm("a", "[1]", "[0,0]", "[0,0]")), "do not rise");
    check(&file(arm("a", "[1]", "[0]", "[1.5]")), "not all in [0, 1]");
    check(&file(arm("a", "[1]", "[0]", "[NaN]")), "expected value");
    check(&file(arm("good", "[1]", "[0]", "[0]")), "two arms are called \"good\"");
    check(&file(arm("a", "[1]", "[0]", "[0]")).replace("0.1}", "-1}"), "deviation of the noise");
    check(&file(arm("a", "[1]", "[0]", "[0]")).replace("noise", "nose"), "unknown field `nose`");
    assert!(Instance::read(&folder.path().join("none.json")).is_err());
}

#[test]
fn growing_geometric_weights_are_refused() {
    let problem = WeightedTallyingBandits { decay: 1.5, ..Default::default() }.check().unwrap_err();
    assert_eq!(problem.place_text(), Some("method.decay"));
    let settings = WeightedTallyingBandits { decay: 1.5, weights: Weights::PowerLaw, ..Default::default() };
    assert!(settings.check().is_ok());
    assert!(settings.plan(&Training::default()).unwrap().len() >= 7);
}
