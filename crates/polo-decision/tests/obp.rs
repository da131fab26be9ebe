//! Estimators, bounds, tuning and reward models against the Open Bandit Pipeline, on a small log: `golden/make_obp.py`
//! says how the values were made.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::LazyLock;

use polo_decision::{
    estimators::Estimator,
    intervals::{LowerBound, Tuning, error_bound, tune},
    logged::{Log, Policy},
    reward_model::{Fitting, RewardModel, RowWeights},
};
use polo_run::seed::Seeds;
use serde::Deserialize;

const TOLERANCE: f64 = 1e-10;
/// The pipeline's own fits stop here.
const FIT_TOLERANCE: f64 = 1e-6;
const DELTA: f64 = 0.05;

#[derive(Deserialize)]
struct Golden {
    log: GoldenLog,
    predictions: Vec<Predictions>,
    values: Vec<Value>,
    bounds: Vec<Bound>,
    error_bounds: Vec<Value>,
    tuned: Vec<Tuned>,
}

#[derive(Deserialize)]
struct GoldenLog {
    action_count: usize,
    width: usize,
    contexts: Vec<f64>,
    actions: Vec<usize>,
    rewards: Vec<f64>,
    propensities: Vec<f64>,
    target: Vec<f64>,
    greedy: Vec<f64>,
}

#[derive(Deserialize)]
struct Predictions {
    model: String,
    weights: RowWeights,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Value {
    name: String,
    lambda: Option<f64>,
    value: f64,
}

#[derive(Deserialize)]
struct Bound {
    name: String,
    delta: f64,
    most: Option<f64>,
    value: f64,
}

#[derive(Deserialize)]
struct Tuned {
    name: String,
    method: String,
    lambdas: Vec<f64>,
    best: f64,
}

static GOLDEN: LazyLock<Golden> =
    LazyLock::new(|| serde_json::from_str(include_str!("golden/obp.json")).unwrap());

fn log() -> Log {
    let log = &GOLDEN.log;
    Log {
        action_count: log.action_count,
        actions: log.actions.clone(),
        rewards: log.rewards.clone(),
        propensities: log.propensities.clone(),
        positions: vec![0; log.actions.len()],
        width: log.width,
        contexts: log.contexts.clone(),
    }
}

fn policy(probabilities: &[f64]) -> Policy {
    Policy { action_count: GOLDEN.log.action_count, probabilities: probabilities.to_vec() }
}

fn estimator(name: &str, lambda: Option<f64>) -> Estimator {
    let plain = match name {
        "ips" => Estimator::Ips(0.0),
        "snips" => Estimator::Snips,
        "dm" => Estimator::Dm,
        "dr" => Estimator::Dr(0.0),
        "sndr" => Estimator::Sndr,
        "switch-dr" => Estimator::SwitchDr(0.0),
        "dr-os" => Estimator::DrOs(0.0),
        "sub-gaussian-ips" => Estimator::SubGaussianIps(0.0),
        "sub-gaussian-dr" => Estimator::SubGaussianDr(0.0),
        "replay" => Estimator::Replay,
        _ => panic!("{name}"),
    };
    lambda.map_or(plain, |lambda| plain.with_lambda(lambda))
}

#[track_caller]
fn near(what: &str, found: f64, expected: f64) {
    within(TOLERANCE, what, found, expected);
}

#[track_caller]
fn within(tolerance: f64, what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() < tolerance, "{what}: {found} is not {expected}");
}

#[test]
fn values() {
    let (log, model) = (log(), &GOLDEN.predictions[3].values);
    for golden in &GOLDEN.values {
        let estimator = estimator(&golden.name, golden.lambda);
        let probabilities =
            if estimator == Estimator::Replay { &GOLDEN.log.greedy } else { &GOLDEN.log.target };
        let evaluated = policy(probabilities).rows(&log, Some(model));
        near(&estimator.to_string(), estimator.value(&evaluated.with(&log)), golden.value);
    }
    assert_eq!(GOLDEN.values.len(), 34);
}

#[test]
fn bounds() {
    let log = log();
    let evaluated = policy(&GOLDEN.log.target).rows(&log, None);
    let terms = Estimator::Ips(f64::INFINITY).terms(&evaluated.with(&log));
    for golden in &GOLDEN.bounds {
        let bound = match golden.name.as_str() {
            "hoeffding" => LowerBound::Hoeffding,
            "bernstein" => LowerBound::Bernstein,
            _ => LowerBound::Student,
        };
        near(&golden.name, bound.of(&terms, golden.most, golden.delta), golden.value);
    }
    assert_eq!(GOLDEN.bounds.len(), 10);
}

#[test]
fn tuning() {
    let log = log();
    let evaluated = policy(&GOLDEN.log.target).rows(&log, Some(&GOLDEN.predictions[3].values));
    let rows = evaluated.with(&log);
    for golden in &GOLDEN.error_bounds {
        let estimator = estimator(&golden.name, golden.lambda);
        near(&estimator.to_string(), error_bound(estimator, &rows, DELTA), golden.value);
    }
    assert_eq!(GOLDEN.error_bounds.len(), 30);
    for golden in &GOLDEN.tuned {
        let tuning = if golden.method == "slope" { Tuning::Slope } else { Tuning::ErrorBound };
        let found = tune(estimator(&golden.name, None), &golden.lambdas, tuning, &rows, DELTA);
        assert_eq!(found.lambda(), Some(golden.best), "{}, {}", golden.name, golden.method);
    }
    assert_eq!(GOLDEN.tuned.len(), 12);
}

#[test]
fn reward_models() {
    for golden in &GOLDEN.predictions {
        let model = match golden.model.as_str() {
            "ridge" => RewardModel::Ridge { penalty: 0.7 },
            _ => RewardModel::Logistic { penalty: 0.7 },
        };
        let fitting = Fitting { model, row_weights: golden.weights, folds: 1 };
        let found = fitting.predictions(&log(), &policy(&GOLDEN.log.target), &[], &Seeds::new(0)).unwrap();
        for (found, expected) in found.iter().zip(&golden.values) {
            within(FIT_TOLERANCE, &format!("{model:?}, {:?}", golden.weights), *found, *expected);
        }
    }
    assert_eq!(GOLDEN.predictions.len(), 6);
}
