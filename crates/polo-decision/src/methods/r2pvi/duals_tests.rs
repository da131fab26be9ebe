use proptest::prelude::*;

use super::*;

/// One factor whose expectations are those of a distribution.
fn factor(probabilities: &[f64]) -> Regression {
    Regression { inverse: Matrix::identity(1, 1.0), rows: probabilities.to_vec() }
}

fn mean(probabilities: &[f64], values: &[f64]) -> f64 {
    dot(probabilities, values)
}

/// TV, KL and chi2.
fn duals(probabilities: &[f64], values: &[f64], lambda: f64) -> [f64; 3] {
    let (factor, most) = (factor(probabilities), values.iter().copied().fold(1e-9, f64::max));
    [
        total_variation(&factor, values, lambda, least_of(values))[0],
        kullback_leibler(&factor, values, lambda, false, most)[0],
        chi_square(&factor, values, lambda, most)[0],
    ]
}

#[track_caller]
fn near(found: f64, expected: f64, within: f64) {
    assert!((found - expected).abs() <= within, "{found} is not {expected}");
}

#[test]
fn two_points_give_the_known_values() {
    let half = [0.5, 0.5];
    let [tv, kl, chi2] = duals(&half, &[0.0, 1.0], 1.0);
    near(tv, 0.5, 1e-12);
    near(kl, 0.379_885_493, 1e-9);
    near(chi2, 0.4375, 1e-9);
    near(duals(&half, &[0.0, 1.0], 0.2)[0], 0.1, 1e-12);
}

#[test]
fn without_robustness_they_are_expectations() {
    let (probabilities, values) = ([0.2, 0.5, 0.3], [0.4, 2.0, 1.1]);
    for dual in duals(&probabilities, &values, 1e9) {
        near(dual, mean(&probabilities, &values), 1e-6);
    }
}

#[test]
fn constants_stay_themselves() {
    for lambda in [0.05, 1.0, 20.0] {
        duals(&[0.2, 0.5, 0.3], &[1.3; 3], lambda).iter().for_each(|dual| near(*dual, 1.3, 1e-9));
    }
}

#[test]
fn logarithms_survive_where_exponentials_do_not() {
    let found = kullback_leibler(&factor(&[0.5, 0.5]), &[1000.0, 2000.0], 1.0, false, 1e4)[0];
    near(found, 1000.0 + 2.0_f64.ln(), 1e-9);
    // No data at all: as good as can be, or as bad with the shift.
    let empty = factor(&[0.0, 0.0]);
    near(kullback_leibler(&empty, &[1.0, 2.0], 0.1, false, 3.0)[0], 3.0, 0.0);
    near(kullback_leibler(&empty, &[1.0, 2.0], 0.1, true, 3.0)[0], 0.0, 0.0);
}

#[test]
fn the_ridge_makes_kl_optimistic_and_the_shift_pessimistic() {
    let features = [1.0; 5];
    let values = [0.3, 0.5, 0.2, 0.9, 0.6];
    let fit = |ridge, shift| {
        let regression = Regression::new(&features, 1, None, ridge).unwrap();
        kullback_leibler(&regression, &values, 0.5, shift, 1.0)[0]
    };
    let exact = fit(0.0, false);
    near(fit(0.0, true), exact, 1e-12);
    assert!(fit(1.0, true) < exact && exact < fit(1.0, false));
}

/// The least of the penalised expectation over a grid on the simplex of three states.
fn brute_force(probabilities: &[f64; 3], values: &[f64; 3], lambda: f64) -> [f64; 3] {
    const STEPS: usize = 200;
    let mut best = [f64::INFINITY; 3];
    for i in 0..=STEPS {
        for j in 0..=STEPS - i {
            let mu = [i, j, STEPS - i - j].map(|count| count as f64 / STEPS as f64);
            let expected = mean(&mu, values);
            let over = |f: &dyn Fn(f64, f64) -> f64| {
                mu.iter().zip(probabilities).map(|(m, p)| f(*m, *p)).sum::<f64>()
            };
            let divergences = [
                over(&|m, p| 0.5 * (m - p).abs()),
                over(&|m, p| if m > 0.0 { m * (m / p).ln() } else { 0.0 }),
                over(&|m, p| (m / p - 1.0).powi(2) * p),
            ];
            for (best, divergence) in best.iter_mut().zip(divergences) {
                *best = best.min(expected + lambda * divergence);
            }
        }
    }
    best
}

#[test]
fn duals_equal_the_least_over_a_grid() {
    let probabilities = [0.213, 0.471, 0.316];
    for values in [[0.0, 0.7, 1.4], [2.0, 0.3, 0.4], [0.9, 1.0, 0.1]] {
        for lambda in [0.1, 0.5, 2.0] {
            let (found, grid) =
                (duals(&probabilities, &values, lambda), brute_force(&probabilities, &values, lambda));
            // The grid misses the kink of TV at the nominal point.
            near(found[0], grid[0], lambda / 200.0);
            near(found[1], grid[1], 1e-3);
            near(found[2], grid[2], 1e-3);
        }
    }
}

/// min mu.V + lambda TV(mu, p) as a linear programme over mass u >= 0 that comes to and v that leaves each of three
/// states, sum u = sum v, v + slack = p: the least over all its basic solutions.
fn linear_programme(probabilities: &[f64; 3], values: &[f64; 3], lambda: f64) -> f64 {
    let (columns, rows) = (9, 4);
    let entry = |row: usize, column: usize| match (row, column / 3) {
        (0, 0) => 1.0,
        (0, 1) => -1.0,
        (1.., 1 | 2) if column % 3 == row - 1 => 1.0,
        _ => 0.0,
    };
    let cost = |column: usize| match column / 3 {
        0 => values[column] + lambda / 2.0,
        1 => -values[column % 3] + lambda / 2.0,
        _ => 0.0,
    };
    let right = [0.0, probabilities[0], probabilities[1], probabilities[2]];
    let mut best = f64::INFINITY;
    for basis in (0..1_u32 << columns).filter(|basis| basis.count_ones() as usize == rows) {
        let chosen: Vec<usize> = (0..columns).filter(|column| basis >> column & 1 == 1).collect();
        let numbers = (0..rows * rows).map(|at| entry(at / rows, chosen[at % rows])).collect();
        let solution = Matrix { size: rows, numbers }.solve(&right);
        if solution.iter().all(|x| x.is_finite() && *x >= -1e-12) {
            let total: f64 = chosen.iter().zip(&solution).map(|(column, x)| cost(*column) * x).sum();
            best = best.min(mean(probabilities, values) + total);
        }
    }
    best
}

#[test]
fn the_tv_dual_equals_a_linear_programme() {
    for values in [[0.0, 0.7, 1.4], [2.0, 0.3, 0.4], [0.9, 1.0, 0.1], [0.5, 0.5, 0.5]] {
        for lambda in [0.05, 0.3, 1.0, 5.0] {
            let probabilities = [0.213, 0.471, 0.316];
            near(
                duals(&probabilities, &values, lambda)[0],
                linear_programme(&probabilities, &values, lambda),
                1e-12,
            );
        }
    }
}

#[test]
fn balls_equal_the_least_within_them() {
    let (probabilities, values) = ([0.213, 0.471, 0.316], [0.1, 0.9, 1.4]);
    let expected = mean(&probabilities, &values);
    // Of total variation: a mass of rho moves from the best states to the worst.
    for radius in [0.1_f64, 0.25] {
        let found = total_variation_ball(&factor(&probabilities), &values, radius, 0.1, 1.4)[0];
        near(found, expected - radius * (1.4 - 0.1), 1e-12);
    }
    // Of KL: two points, the least p with kl(p, 1/2) = rho found by halving.
    let radius = 0.2;
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..60 {
        let p: f64 = 0.5 * (low + high);
        let kl = p * (2.0 * p).ln() + (1.0 - p) * (2.0 * (1.0 - p)).ln();
        (low, high) = if kl > radius { (p, high) } else { (low, p) };
    }
    for shift in [false, true] {
        let found = kullback_leibler_ball(&factor(&[0.5, 0.5]), &[0.0, 1.0], radius, shift, 1.0)[0];
        near(found, low, 1e-6);
    }
}

#[test]
fn variances_weigh_rows() {
    let weighted = Regression::new(&[1.0, 1.0], 1, Some(&[1.0, 3.0]), 0.0).unwrap();
    near(weighted.fit([4.0, 8.0])[0], 5.0, 1e-12);
    assert!(Regression::new(&[1.0, 0.0, 2.0, 0.0], 2, None, 0.0).is_none());
}

proptest! {
    #[test]
    fn duals_lie_between_the_least_value_and_the_mean(
        weights in proptest::array::uniform4(0.01..1.0_f64),
        values in proptest::array::uniform4(0.0..3.0_f64),
        lambda in 0.02..5.0_f64,
    ) {
        let sum: f64 = weights.iter().sum();
        let probabilities = weights.map(|weight| weight / sum);
        for dual in duals(&probabilities, &values, lambda) {
            prop_assert!(dual <= mean(&probabilities, &values) + 1e-9);
            prop_assert!(dual >= least_of(&values) - 1e-9, "{} {}", dual, least_of(&values));
        }
    }
}
