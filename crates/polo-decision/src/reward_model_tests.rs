use super::*;
use crate::{estimators::Estimator, synthetic::Synthetic};

fn log() -> (Log, Policy) {
    let bandit = Synthetic::new(4, 2, &Seeds::new(1)).unwrap();
    let log = bandit.log(0.5, 200, &Seeds::new(2));
    let policy = bandit.policy(4.0, &log);
    (log, policy)
}

fn fitting(model: RewardModel, row_weights: RowWeights, folds: usize) -> Fitting {
    Fitting { model, row_weights, folds }
}

const MODELS: [RewardModel; 4] = [
    RewardModel::Constant,
    RewardModel::PerAction { rewards: 1.0, rows: 2.0 },
    RewardModel::Ridge { penalty: 1.0 },
    RewardModel::Logistic { penalty: 1.0 },
];

fn predict(fitting: Fitting, log: &Log, policy: &Policy) -> Vec<f64> {
    fitting.predictions(log, policy, &[], &Seeds::new(3)).unwrap()
}

#[test]
fn means_are_means() {
    let log = Log {
        action_count: 3,
        actions: vec![0, 1, 1, 0],
        rewards: vec![1.0, 0.0, 1.0, 1.0],
        propensities: vec![0.5, 0.25, 0.5, 0.5],
        positions: vec![0; 4],
        ..Log::default()
    };
    let policy = Policy::by_position(&log, 3, &[0.25, 0.5, 0.25]);
    let first = |model, weights| {
        let found = predict(fitting(model, weights, 1), &log, &policy);
        assert!(found.chunks_exact(3).all(|row| row == &found[..3]));
        found[..3].to_vec()
    };
    assert_eq!(first(MODELS[0], RowWeights::Equal), [0.75; 3]);
    assert_eq!(first(MODELS[1], RowWeights::Equal), [3.0 / 4.0, 0.5, 0.5]);
    // Weights 0.5, 2, 1, 0.5.
    assert_eq!(first(MODELS[0], RowWeights::Importance), [0.5; 3]);
    // Weights 0.5, 6, 1, 0.5; an action without rows is given the mean.
    let plain = RewardModel::PerAction { rewards: 0.0, rows: 0.0 };
    assert_eq!(first(plain, RowWeights::Mrdr), [1.0, 1.0 / 7.0, 2.0 / 8.0]);
}

/// Rare rewards: a part of a log may have none at all.
#[test]
fn rewards_that_are_all_the_same_are_predicted() {
    let (mut log, policy) = log();
    for reward in [0.0, 1.0] {
        log.rewards.fill(reward);
        for model in [MODELS[2], MODELS[3]] {
            let found = predict(fitting(model, RowWeights::Equal, 3), &log, &policy);
            assert!(found.iter().all(|value| *value == reward), "{model:?}");
        }
    }
}

#[test]
fn cross_fitting_never_sees_the_row_itself() {
    let (mut log, policy) = log();
    for model in MODELS {
        for row_weights in [RowWeights::Equal, RowWeights::Importance, RowWeights::Mrdr] {
            let before = predict(fitting(model, row_weights, 4), &log, &policy);
            log.rewards[7] = 1.0 - log.rewards[7];
            let after = predict(fitting(model, row_weights, 4), &log, &policy);
            log.rewards[7] = 1.0 - log.rewards[7];
            let same = |row: usize| before[row * 4..][..4] == after[row * 4..][..4];
            assert!(same(7), "{model:?}");
            assert!((0..200).filter(|&row| !same(row)).count() >= 140, "{model:?}");
        }
    }
}

/// The gradient of the penalised loss is zero where the fit stands.
#[test]
fn linear_fits_are_stationary() {
    let (log, _) = log();
    for (logistic, model) in [(false, MODELS[2]), (true, MODELS[3])] {
        let weights: Vec<f64> = (0..200).map(|i| 0.1 + f64::from(i % 7)).collect();
        let features = Matrix::identity(4, 1.0).numbers;
        let design = Design { log: &log, actions: 4, features: &features, weights: weights.clone() };
        let rows: Vec<usize> = (0..200).collect();
        let fit = design.fit(model, &rows).unwrap();
        let mut slope = [0.0; 7];
        for row in 0..200 {
            let mut predictions = [0.0; 4];
            fit.predict(log.context(row), &mut predictions);
            let error = weights[row] * (predictions[log.actions[row]] - log.rewards[row]);
            slope[0] += error * log.context(row)[0];
            slope[1] += error * log.context(row)[1];
            slope[2 + log.actions[row]] += error;
            slope[6] += error;
        }
        // The constant is free: its slope is 0, which makes that of the actions sum to 0.
        assert!(slope[6].abs() < 1e-8, "{logistic}: {slope:?}");
        let constant = fit.by_action.iter().sum::<f64>() / 4.0;
        for (found, beta) in slope.iter().zip(&fit.context) {
            assert!((found + beta).abs() < 1e-8, "{logistic}: {slope:?}");
        }
        for (found, score) in slope[2..6].iter().zip(&fit.by_action) {
            assert!((found + score - constant).abs() < 1e-8, "{logistic}: {slope:?}");
        }
    }
}

#[test]
fn features_of_actions_take_the_place_of_their_numbers() {
    let (log, policy) = log();
    let ridge = fitting(MODELS[2], RowWeights::Equal, 2);
    let fit = |features: &[f64]| ridge.predictions(&log, &policy, features, &Seeds::new(3));
    assert_eq!(fit(&Matrix::identity(4, 1.0).numbers).unwrap(), fit(&[]).unwrap());
    let same = fit(&[1.0, 1.0, -1.0, -1.0]).unwrap();
    assert!(same.chunks_exact(4).all(|row| row[0] == row[1] && row[2] == row[3] && row[0] != row[2]));
    assert!(fit(&[1.0; 6]).is_err());
}

#[test]
fn models_that_cannot_be_fitted_say_so() {
    let (mut log, policy) = log();
    let found = |fitting: Fitting, log: &Log| {
        fitting.predictions(log, &policy, &[], &Seeds::new(3)).unwrap_err().to_string()
    };
    assert_eq!(
        found(fitting(MODELS[0], RowWeights::Equal, 0), &log),
        "0 parts of 200 rows for the reward model"
    );
    assert_eq!(
        found(fitting(MODELS[0], RowWeights::Equal, 201), &log),
        "201 parts of 200 rows for the reward model"
    );
    let free = RewardModel::Ridge { penalty: 0.0 };
    assert_eq!(found(fitting(free, RowWeights::Equal, 1), &log), "the penalty must be above 0, not 0");
    log.rewards[3] = 2.0;
    assert_eq!(
        found(fitting(MODELS[3], RowWeights::Equal, 1), &log),
        "a logistic model needs rewards in [0, 1], not 2"
    );
    log.propensities.fill(1.0);
    assert!(found(fitting(MODELS[0], RowWeights::Mrdr, 1), &log).contains("no weight"));
}

/// A good model takes variance away, also under weights made for it.
#[test]
fn doubly_robust_estimates_vary_less() {
    let bandit = Synthetic::new(4, 2, &Seeds::new(5)).unwrap();
    let mut spread = [0.0; 3];
    for repeat in 0..40 {
        let log = bandit.log(-2.0, 300, &Seeds::new(repeat));
        let policy = bandit.policy(6.0, &log);
        let error = |model: Option<RowWeights>, estimator: Estimator| {
            let predictions = model.map(|weights| predict(fitting(MODELS[3], weights, 2), &log, &policy));
            let evaluated = policy.rows(&log, predictions.as_deref());
            (estimator.value(&evaluated.with(&log)) - bandit.value(6.0)).powi(2)
        };
        spread[0] += error(None, Estimator::Ips(f64::INFINITY));
        spread[1] += error(Some(RowWeights::Equal), Estimator::Dr(f64::INFINITY));
        spread[2] += error(Some(RowWeights::Mrdr), Estimator::Dr(f64::INFINITY));
    }
    assert!(spread[1] < 0.8 * spread[0] && spread[2] < 0.8 * spread[0], "{spread:?}");
}
