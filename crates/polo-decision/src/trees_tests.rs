use polo_run::seed::{Seeds, unit};
use proptest::prelude::*;

use super::*;

/// Rows of numbers in [-1, 1] and 0 or 1 by which side of a curve the first two lie.
fn rows(count: usize, width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut rng = Seeds::new(1).rng("rows", 0);
    let inputs: Vec<f64> = (0..count * width).map(|_| 2.0 * unit(&mut rng) - 1.0).collect();
    let targets = inputs
        .chunks_exact(width)
        .map(|x| f64::from(u8::from(x[0] * x[1] + 0.3 * (unit(&mut rng) - 0.5) > 0.0)))
        .collect();
    (inputs, targets)
}

fn fit(inputs: &[f64], targets: &[f64], logistic: bool) -> Trees {
    let weights = vec![1.0; targets.len()];
    Trees::fit(inputs, targets, &weights, &TreesSettings::default(), logistic, 0).unwrap()
}

#[test]
fn a_model_predicts_what_the_library_predicts() {
    let (inputs, targets) = rows(900, 3);
    let model = fit(&inputs, &targets, true);
    let columns: Vec<f64> = (0..3).flat_map(|c| inputs.iter().skip(c).step_by(3).copied()).collect();
    let matrix = Matrix::new(&columns, 900, 3);
    let mut booster = GradientBooster::default()
        .set_objective_type(ObjectiveType::LogLoss)
        .set_iterations(100)
        .set_learning_rate(0.3)
        .set_max_depth(4)
        .set_nbins(64)
        .set_parallel(false);
    booster.fit_unweighted(&matrix, &targets, None).unwrap();
    assert_eq!(model.count(), 100);
    for (row, expected) in inputs.chunks_exact(3).zip(booster.predict(&matrix, false)) {
        // The logit of the mean is rounded in another way.
        assert!((model.predict(row) - sigmoid(expected)).abs() < 1e-12);
    }
}

/// One split, at 0, of rows at -1 and 1; leaves by hand.
#[test]
fn a_leaf_by_hand() {
    let settings = TreesSettings { trees: 1, depth: 1, learning_rate: 0.5, ..TreesSettings::default() };
    let of = |logistic| {
        let targets = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let inputs = [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0];
        Trees::fit(&inputs, &targets, &[1.0; 8], &settings, logistic, 0).unwrap()
    };
    // Mean 5/8; of four rows below it is 1/4, above 1. Each leaf's step is n / (n + penalty) of the miss, halved.
    let real = of(false);
    let expected = [0.625 - 0.5 * 0.375 * 4.0 / 5.0, 0.625 + 0.5 * 0.375 * 4.0 / 5.0];
    assert!((real.predict(&[-0.5]) - expected[0]).abs() < 1e-6, "{}", real.predict(&[-0.5]));
    assert!((real.predict(&[2.0]) - expected[1]).abs() < 1e-6);
    // A curvature of 4 * 15/64 in each leaf is too little by default.
    assert_eq!(of(true).predict(&[1.0]), of(true).predict(&[-1.0]));
    let small = TreesSettings { least_weight: 0.5, ..settings };
    let targets = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    let inputs = [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0];
    let chance = Trees::fit(&inputs, &targets, &[1.0; 8], &small, true, 0).unwrap();
    let step = 0.5 * 1.5 / (1.0 + 60.0 / 64.0);
    let logit = (5.0_f64 / 3.0).ln();
    assert!((chance.predict(&[1.0]) - sigmoid(logit + step)).abs() < 1e-6);
    assert!((chance.predict(&[-1.0]) - sigmoid(logit - step)).abs() < 1e-6);
}

#[test]
fn a_fit_is_the_same_bit_for_bit_whatever_the_threads() {
    // Enough rows and columns for every loop of the library that can be split among threads.
    let (inputs, targets) = rows(4000, 20);
    let weights: Vec<f64> = (0..4000).map(|at| 1.0 + f64::from(at % 3)).collect();
    for logistic in [true, false] {
        let settings =
            TreesSettings { row_share: if logistic { 1.0 } else { 0.5 }, ..TreesSettings::default() };
        let fit = || Trees::fit(&inputs, &targets, &weights, &settings, logistic, 7).unwrap();
        let model = fit();
        assert_eq!(fit(), model);
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(fit), model, "{threads} threads");
        }
    }
}

#[test]
fn where_rows_are_drawn_the_seed_decides() {
    let (inputs, targets) = rows(1000, 2);
    let settings = TreesSettings { row_share: 0.5, trees: 5, ..TreesSettings::default() };
    let fit = |rows: usize, seed| {
        Trees::fit(&inputs[..2 * rows], &targets[..rows], &vec![1.0; rows], &settings, true, seed).unwrap()
    };
    assert_eq!(fit(1000, 1), fit(1000, 1));
    assert_ne!(fit(1000, 1), fit(1000, 2));
    // Too few rows to draw from.
    assert_eq!(fit(999, 1), fit(999, 2));
}

#[test]
fn products_are_learnt_and_beat_any_line() {
    let (inputs, targets) = rows(2000, 3);
    let model = fit(&inputs[..4500], &targets[..1500], true);
    let right = |(row, target): (&[f64], &f64)| (model.predict(row) > 0.5) == (*target > 0.5);
    let fresh = inputs[4500..].chunks_exact(3).zip(&targets[1500..]);
    let share = fresh.filter(|pair| right(*pair)).count() as f64 / 500.0;
    // No line is right more often than about a half.
    assert!(share > 0.8, "{share}");
    // The same numbers, moved and scaled: real targets.
    let moved: Vec<f64> = targets.iter().map(|t| 1e6 + 1e-3 * t).collect();
    let model = fit(&inputs, &moved, false);
    let miss = |(row, target): (&[f64], &f64)| ((model.predict(row) - target) / 1e-3).powi(2);
    let error = inputs.chunks_exact(3).zip(&moved).map(miss).sum::<f64>() / 2000.0;
    assert!(error < 0.15, "{error}, of 0.25 at most");
}

#[test]
fn rows_of_no_weight_are_not_there_and_weights_count_as_copies() {
    let (inputs, targets) = rows(400, 2);
    let weights: Vec<f64> = (0..400).map(|at| f64::from(at % 2)).collect();
    let weighted = Trees::fit(&inputs, &targets, &weights, &TreesSettings::default(), true, 0).unwrap();
    let kept: Vec<f64> = inputs.chunks_exact(4).flat_map(|two| two[2..].to_vec()).collect();
    let halves: Vec<f64> = targets.chunks_exact(2).map(|two| two[1]).collect();
    assert_eq!(weighted, fit(&kept, &halves, true));
    // The mean of 0 with weight 1 and 3 with weight 2.
    let mean = Trees::fit(&[], &[0.0, 3.0], &[1.0, 2.0], &TreesSettings::default(), false, 0).unwrap();
    assert_eq!(mean.predict(&[]), 2.0);
}

#[test]
fn what_does_not_vary_gives_a_constant() {
    #[track_caller]
    fn check(inputs: &[f64], targets: &[f64], logistic: bool, expected: f64) {
        let model = fit(inputs, targets, logistic);
        assert_eq!(model.count(), 0);
        let found = model.predict(&[0.5]);
        assert!((found - expected).abs() < 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
    }
    check(&[1.0], &[7.0], false, 7.0);
    check(&[1.0], &[0.25], true, 0.25);
    check(&[1.0, 2.0, 3.0], &[-1e99; 3], false, -1e99);
    check(&[1.0, 2.0, 3.0], &[1.0; 3], true, 1.0 - 1e-6);
    check(&[1.0, 2.0, 3.0], &[0.0; 3], true, 1e-6);
    check(&[], &[1.0, 0.0, 0.0, 0.0], true, 0.25);
    // Columns that do not vary.
    check(&[4.0; 8], &[1.0, 0.0, 0.0, 0.0], true, 0.25);
}

#[test]
fn bad_numbers_are_refused() {
    #[track_caller]
    fn check(inputs: &[f64], targets: &[f64], weights: &[f64], logistic: bool, expected: &str) {
        let fitted = Trees::fit(inputs, targets, weights, &TreesSettings::default(), logistic, 0);
        let text = fitted.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    check(&[], &[], &[], false, "no row");
    check(&[1.0], &[1.0, 2.0], &[1.0; 2], false, "differ in number");
    check(&[1.0; 2], &[1.0, 2.0], &[1.0], false, "differ in number");
    check(&[f64::NAN, 1.0], &[1.0, 2.0], &[1.0; 2], false, "input");
    check(&[f64::INFINITY, 1.0], &[1.0, 2.0], &[1.0; 2], false, "input");
    check(&[0.0, 1.0], &[f64::NAN, 2.0], &[1.0; 2], false, "target");
    check(&[0.0, 1.0], &[1e101, 2.0], &[1.0; 2], false, "target");
    check(&[0.0, 1.0], &[0.0, 1.1], &[1.0; 2], true, "[0, 1]");
    check(&[0.0, 1.0], &[0.0, 1.0], &[-1.0, 1.0], true, "weight");
    check(&[0.0, 1.0], &[0.0, 1.0], &[f64::NAN, 1.0], true, "weight");
    check(&[0.0, 1.0], &[0.0, 1.0], &[0.0; 2], true, "all are 0");
    let wild = TreesSettings { learning_rate: 0.0, ..TreesSettings::default() };
    assert!(Trees::fit(&[0.0, 1.0], &[0.0, 1.0], &[1.0; 2], &wild, true, 0).is_err());
    let large = TreesSettings { depth: 12, bins: 4096, ..TreesSettings::default() };
    let (inputs, targets) = rows(20_000, 30);
    let text = Trees::fit(&inputs, &targets, &vec![1.0; 20_000], &large, true, 0).unwrap_err().to_string();
    assert!(text.contains("4 GiB"), "{text}");
}

#[test]
fn a_stored_model_is_the_model_and_a_torn_one_is_refused() {
    let (inputs, targets) = rows(500, 3);
    let model = fit(&inputs, &targets, true);
    let text = serde_json::to_string(&model).unwrap();
    assert_eq!(serde_json::from_str::<Trees>(&text).unwrap(), model);
    assert!(serde_json::from_str::<Trees>(&text[..text.len() / 2]).is_err());
    let broken = |change: &dyn Fn(&mut Trees)| {
        let mut other = model.clone();
        change(&mut other);
        serde_json::from_str::<Trees>(&serde_json::to_string(&other).unwrap()).is_err()
    };
    assert!(broken(&|trees| trees.roots[0] = u32::MAX));
    assert!(broken(&|trees| trees.nodes[0].below = 0));
    assert!(broken(&|trees| trees.nodes[0].below = u32::MAX - 1));
    assert!(broken(&|trees| trees.nodes[0].feature = 3));
    // What a row lacks goes where the largest numbers go.
    assert_eq!(model.predict(&[]), model.predict(&[1e300; 3]));
    assert_eq!(model.predict(&[f64::NAN; 3]), model.predict(&[1e300; 3]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_small_table_breaks_a_fit(
        table in prop::collection::vec((prop::collection::vec(-1e300..1e300, 3), prop::bool::ANY, 0.0..1e50), 1..40),
        coarse in prop::bool::ANY,
        logistic in prop::bool::ANY,
        depth in 1_usize..6,
        bins in 2_u16..10,
        least_weight in 0.001..2.0,
        learning_rate in 0.001..1.0,
    ) {
        let inputs: Vec<f64> = table
            .iter()
            .flat_map(|(row, ..)| row.iter().map(|x: &f64| if coarse { (x / 1e300).round() } else { *x }))
            .collect();
        let targets: Vec<f64> = table.iter().map(|(_, target, _)| f64::from(u8::from(*target))).collect();
        let weights: Vec<f64> = table.iter().map(|(.., weight)| *weight + 1e-300).collect();
        let settings =
            TreesSettings { trees: 20, depth, bins, least_weight, learning_rate, penalty: 0.0, row_share: 1.0 };
        let model = Trees::fit(&inputs, &targets, &weights, &settings, logistic, 0).unwrap();
        for row in inputs.chunks_exact(3) {
            let found = model.predict(row);
            prop_assert!(found.is_finite() && (!logistic || (0.0..=1.0).contains(&found)), "{found}");
        }
    }
}
