use polo_run::seed::{Seeds, unit};

use super::{
    super::layered::{Instance, Sizes},
    *,
};
use crate::draw::{categorical, dirichlet};

const SIZES: Sizes = Sizes { horizon: 3, states: 4, actions: 4, features: 3 };

#[track_caller]
fn near(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "{found} is not {expected}");
}

/// A random process and a random policy on it.
fn drawn(instance: Instance, seed: u64) -> (Layered, Table) {
    let process = Layered::make(instance, SIZES, &Seeds::new(seed));
    let mut rng = Seeds::new(seed).rng("policy", 0);
    let layer = |h: usize| {
        (0..process.states(h)).flat_map(|_| dirichlet(1.0, process.actions, &mut rng)).collect::<Vec<_>>()
    };
    let policy = (0..process.horizon()).map(layer).collect();
    (process, policy)
}

fn inverse(process: &Layered, h: usize, often: &[f64], gamma: f64) -> Matrix {
    regularised(process.covariance(h, often), gamma).unwrap()
}

#[test]
fn the_log_barrier_meets_its_first_order_condition() {
    let mut rng = Seeds::new(3).rng("losses", 0);
    for (eta, scale) in [(0.1, 1.0), (0.4, 100.0), (2.0, 1e4)] {
        let losses: Vec<f64> = (0..6).map(|_| scale * (unit(&mut rng) - 0.5)).collect();
        let policy = Regulariser::LogBarrier.policy(eta, &losses);
        near(policy.iter().sum(), 1.0, 1e-10);
        // eta L - 1/p + nu = 0 for one nu: the same difference for all actions.
        let nu = |at: usize| 1.0 / policy[at] - eta * losses[at];
        (1..6).for_each(|at| near(nu(at) / nu(0), 1.0, 1e-10));
    }
    for regulariser in [Regulariser::LogBarrier, Regulariser::Tsallis, Regulariser::Entropy] {
        regulariser.policy(0.4, &[7.0; 5]).iter().for_each(|p| near(*p, 0.2, 1e-12));
        let policy = regulariser.policy(0.4, &[3.0, 1.0, 2.0]);
        assert!(policy[1] > policy[2] && policy[2] > policy[0], "{policy:?}");
    }
    // Of Tsallis entropy: eta L - 1/sqrt(p) + nu = 0.
    let losses = [3.0, 1.0, 2.5];
    let policy = Regulariser::Tsallis.policy(0.7, &losses);
    let nu = |at: usize| 1.0 / policy[at].sqrt() - 0.7 * losses[at];
    (1..3).for_each(|at| near(nu(at), nu(0), 1e-10));
}

#[test]
fn both_estimates_have_one_mean_and_the_reduced_one_a_floor() {
    let (process, policy) = drawn(Instance::Random, 1);
    let occupancy = process.occupancy(&policy);
    let q = process.q(&policy, &process.phases[0]);
    let most = process.horizon() as f64;
    for gamma in [1e-4, 0.01, 0.3] {
        for (h, often) in occupancy.iter().enumerate() {
            let inverse = inverse(&process, h, often, gamma);
            let m = mean_negative_part(&process, h, &inverse, often);
            let mut means = [vec![0.0; often.len()], vec![0.0; often.len()]];
            for (visited, weight) in often.iter().enumerate() {
                let x = correlation(&process, h, &inverse, visited);
                // Any loss that is a function of the visit; here its mean.
                let loss = q[h][visited];
                let found = [standard(&x, loss), magnitude_reduced(&x, loss, most, &m)];
                for (pair, reduced) in found[1].iter().enumerate() {
                    assert!(*reduced >= most * m[pair] - 1e-9, "{reduced} {}", m[pair]);
                    let norm = inverse.quadratic(process.features(h, pair)).sqrt();
                    assert!(most * m[pair] >= -most * norm - 1e-9 && norm <= 1.0 / gamma.sqrt() + 1e-9);
                }
                for (mean, found) in means.iter_mut().zip(found) {
                    mean.iter_mut().zip(found).for_each(|(mean, found)| *mean += weight * found);
                }
            }
            let size = means[0].iter().fold(1.0_f64, |most, x| most.max(x.abs()));
            means[0].iter().zip(&means[1]).for_each(|(a, b)| near(*a, *b, 1e-12 * size.max(1.0 / gamma)));
        }
    }
}

#[test]
fn without_a_ridge_estimates_are_unbiased() {
    let (process, policy) = drawn(Instance::Random, 2);
    let (occupancy, q) = (process.occupancy(&policy), process.q(&policy, &process.phases[0]));
    for (h, often) in occupancy.iter().enumerate() {
        let inverse = process.covariance(h, often).inverse().unwrap();
        let m = mean_negative_part(&process, h, &inverse, often);
        let mut mean = vec![0.0; often.len()];
        for (visited, weight) in often.iter().enumerate() {
            let x = correlation(&process, h, &inverse, visited);
            let found = magnitude_reduced(&x, q[h][visited], 3.0, &m);
            mean.iter_mut().zip(found).for_each(|(mean, found)| *mean += weight * found);
        }
        mean.iter().zip(&q[h]).for_each(|(mean, q)| near(*mean, *q, 1e-9));
    }
}

#[test]
fn in_a_table_both_estimates_are_one() {
    let (process, policy) = drawn(Instance::Tabular, 4);
    let occupancy = process.occupancy(&policy);
    for (h, often) in occupancy.iter().enumerate() {
        let inverse = inverse(&process, h, often, 1e-3);
        let m = mean_negative_part(&process, h, &inverse, often);
        for visited in 0..often.len() {
            let x = correlation(&process, h, &inverse, visited);
            assert!(x.iter().all(|x| *x >= 0.0));
            assert_eq!(standard(&x, 2.0), magnitude_reduced(&x, 2.0, 3.0, &m));
        }
    }
    // Reachable pairs have unbiased estimates as the ridge vanishes.
    let q = process.q(&policy, &process.phases[1]);
    let inverse = inverse(&process, 1, &occupancy[1], 1e-12);
    for (pair, often) in occupancy[1].iter().enumerate().filter(|(_, often)| **often > 1e-3) {
        let estimate = standard(&correlation(&process, 1, &inverse, pair), q[1][pair])[pair];
        near(often * estimate, q[1][pair], 1e-6);
    }
}

#[test]
fn resampling_finds_the_inverse() {
    let (process, policy) = drawn(Instance::Random, 5);
    let often = &process.occupancy(&policy)[1];
    let exact = inverse(&process, 1, often, 0.1);
    // The bias alone first: with one feature, all draws are the same.
    let steps = enough_steps(0.1, 0.01);
    let one = geometric_resampling(1, 0.1, 1, steps, || &[0.7]);
    near(one.at(0, 0) * (0.1 + 0.49), 1.0, 0.01);
    let mut rng = Seeds::new(5).rng("resampling", 0);
    let fresh = || process.features(1, categorical(often, &mut rng));
    let found = geometric_resampling(3, 0.1, 400, steps, fresh);
    let norm = |numbers: &[f64]| numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
    let error: Vec<f64> = found.numbers.iter().zip(&exact.numbers).map(|(a, b)| a - b).collect();
    assert!(norm(&error) < 0.01 * norm(&exact.numbers), "{}", norm(&error) / norm(&exact.numbers));
}

#[test]
fn the_bonus_of_a_single_layer_is_not_dilated() {
    let sizes = Sizes { horizon: 1, ..SIZES };
    let process = Layered::make(Instance::Random, sizes, &Seeds::new(0));
    let policy = process.table(0.25);
    let inverse = inverse(&process, 0, &process.occupancy(&policy)[0], 0.1);
    let bonuses = vec![bonus(&process, 0, &inverse, &policy[0], 0.5)];
    assert_eq!(dilated(&process, &bonuses, &policy), bonuses);
    // Twice the norm on average over actions.
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / 4.0;
    let norms: Vec<f64> = (0..4).map(|pair| inverse.quadratic(process.features(0, pair))).collect();
    near(mean(&bonuses[0][..4]), 0.5 * 2.0 * mean(&norms), 1e-12);
}

#[test]
fn bonuses_dilate_from_layer_to_layer() {
    let (process, policy) = drawn(Instance::Random, 6);
    let ones = process.table(1.0);
    let found = dilated(&process, &ones, &policy);
    let d = 1.0 + 1.0 / 3.0;
    for (layer, expected) in found.iter().zip([1.0 + d + d * d, 1.0 + d, 1.0]) {
        layer.iter().for_each(|b| near(*b, expected, 1e-12));
    }
}
