//! The worst expectation of the next value, factor by factor, through its dual: of a ridge regression on data, coordinate
//! i of which stands for the expectation under factor i.
//!
//! ```text
//! penalties   nu_i = inf_mu E_mu V + lambda D(mu || mu_i)
//!   TV        E min(V, least V + lambda)
//!   KL        -lambda log E exp(-V / lambda)
//!   chi2      sup_a E V_a + (E V_a)^2 / (4 lambda) - E V_a^2 / (4 lambda),   V_a = min(V, a)
//! balls       nu_i = inf_mu E_mu V  with  D(mu || mu_i) <= rho
//!   TV        max_a E V_a - rho (a - least V)
//!   KL        max_a -a log E exp(-V / a) - rho a
//! ```

use crate::linear::{Matrix, dot};

/// The ridge regression of one step: y -> (ridge I + Σ φ φᵀ / σ²)⁻¹ Σ φ y / σ².
#[derive(Clone, Debug)]
pub struct Regression {
    /// `[d, d]`.
    pub inverse: Matrix,
    /// φ / σ², `[rows, d]`.
    rows: Vec<f64>,
}

impl Regression {
    /// Of features `[rows, d]`, each row with the variance of its targets, or 1 for all. None where the matrix is
    /// singular, which a positive ridge excludes.
    pub fn new(features: &[f64], size: usize, variances: Option<&[f64]>, ridge: f64) -> Option<Self> {
        let mut gram = Matrix::identity(size, ridge);
        let mut rows = features.to_vec();
        for (at, (row, weighted)) in features.chunks_exact(size).zip(rows.chunks_exact_mut(size)).enumerate()
        {
            let weight = variances.map_or(1.0, |variances| 1.0 / variances[at]);
            gram.add_outer(row, weight);
            weighted.iter_mut().for_each(|x| *x *= weight);
        }
        Some(Self { inverse: gram.inverse()?, rows })
    }

    /// The fit to one target a row, `[d]`.
    pub fn fit(&self, targets: impl IntoIterator<Item = f64>) -> Vec<f64> {
        let mut sums = vec![0.0; self.inverse.size];
        for (row, y) in self.rows.chunks_exact(sums.len()).zip(targets) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * y);
        }
        self.inverse.times(&sums)
    }

    fn row_of_inverse(&self, factor: usize) -> &[f64] {
        &self.inverse.numbers[factor * self.inverse.size..][..self.inverse.size]
    }

    /// What each target counts in the fit's coordinate, `[rows]`.
    fn weights(&self, factor: usize) -> Vec<f64> {
        let own = self.row_of_inverse(factor);
        self.rows.chunks_exact(own.len()).map(|row| dot(own, row)).collect()
    }
}

/// TV penalty, `[d]`. `least` is the least value that a state can have.
pub fn total_variation(regression: &Regression, values: &[f64], lambda: f64, least: f64) -> Vec<f64> {
    regression.fit(values.iter().map(|value| value.min(least + lambda)))
}

/// KL penalty, `[d]`, no number above `most`. With `shift` the regression is of exp(-V/λ) - 1, which the ridge shrinks
/// towards V = 0; else of exp(-V/λ), which it shrinks towards V = ∞.
pub fn kullback_leibler(
    regression: &Regression,
    values: &[f64],
    lambda: f64,
    shift: bool,
    most: f64,
) -> Vec<f64> {
    let least = least_of(values);
    let fit = regression.fit(values.iter().map(|value| (-(value - least) / lambda).exp()));
    let lack = lack_of_data(regression, values.len(), shift);
    let risk = |(e, lack): (&f64, f64)| (-lambda * log_of(*e, -least / lambda, lack)).min(most);
    fit.iter().zip(lack).map(risk).collect()
}

fn least_of(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// By how much the fit to a target of 1 stays below 1, `[d]`; 0 without shift.
fn lack_of_data(regression: &Regression, rows: usize, shift: bool) -> Vec<f64> {
    if shift {
        regression.fit(std::iter::repeat_n(1.0, rows)).iter().map(|fit| 1.0 - fit).collect()
    } else {
        vec![0.0; regression.inverse.size]
    }
}

/// log(e exp(scale) + lack), where exp(scale) may underflow; -∞ of what is not positive.
fn log_of(e: f64, scale: f64, lack: f64) -> f64 {
    let sum = e * scale.exp() + lack;
    if sum > 0.0 {
        sum.ln()
    } else if e > 0.0 {
        e.ln() + scale
    } else {
        f64::NEG_INFINITY
    }
}

/// Points of a grid on which a maximum is sought before it is refined.
const GRID: usize = 100;

/// χ² penalty, `[d]`: the global maximum over a in [0, most], as the clipped dual is not concave.
pub fn chi_square(regression: &Regression, values: &[f64], lambda: f64, most: f64) -> Vec<f64> {
    let truncated = Truncated::new(regression, values);
    let dual = |first: f64, second: f64| {
        let first = first.clamp(0.0, most);
        first + (first * first - second.clamp(0.0, most * most)) / (4.0 * lambda)
    };
    let step = most / GRID as f64;
    let mut best = vec![(f64::NEG_INFINITY, 0.0); regression.inverse.size];
    for point in 0..=GRID {
        let a = step * point as f64;
        let (first, second) = truncated.sums(a);
        let fits = regression.inverse.times(&first).into_iter().zip(regression.inverse.times(&second));
        for (best, (first, second)) in best.iter_mut().zip(fits) {
            let value = dual(first, second);
            if value > best.0 {
                *best = (value, a);
            }
        }
    }
    let refine = |(factor, (value, a)): (usize, (f64, f64))| {
        let row = regression.row_of_inverse(factor);
        let at = |a: f64| {
            let (first, second) = truncated.sums(a);
            dual(dot(row, &first), dot(row, &second))
        };
        value.max(golden_section((a - step).max(0.0), (a + step).min(most), at))
    };
    best.into_iter().enumerate().map(refine).collect()
}

/// TV ball, `[d]`: the dual is linear between the values, so that the best of them is the maximum. `least` is the least
/// value that a state can have.
pub fn total_variation_ball(
    regression: &Regression,
    values: &[f64],
    radius: f64,
    least: f64,
    most: f64,
) -> Vec<f64> {
    let truncated = Truncated::new(regression, values);
    let mut best = vec![0.0; regression.inverse.size];
    let mut try_at = |a: f64, first: &[f64]| {
        for (best, first) in best.iter_mut().zip(regression.inverse.times(first)) {
            *best = f64::max(*best, first - radius * (a - least));
        }
    };
    truncated.sorted.iter().filter(|a| **a <= most).for_each(|&a| try_at(a, &truncated.sums(a).0));
    try_at(most, &truncated.sums(most).0);
    best
}

/// KL ball, `[d]`, by a search for each factor.
pub fn kullback_leibler_ball(
    regression: &Regression,
    values: &[f64],
    radius: f64,
    shift: bool,
    most: f64,
) -> Vec<f64> {
    let least = least_of(values);
    let lack = lack_of_data(regression, values.len(), shift);
    // Beyond, the dual is negative; near 0 it tends to the least value.
    let (low, high) = ((1e-3 * most).ln(), (most / radius).max(most).ln());
    let step = (high - low) / GRID as f64;
    let of_factor = |factor: usize| {
        let weights = regression.weights(factor);
        let dual = |log_a: f64| {
            let a = log_a.exp();
            let e = weights.iter().zip(values).map(|(w, v)| w * (-(v - least) / a).exp()).sum();
            (-a * log_of(e, -least / a, lack[factor])).min(most) - a * radius
        };
        let found = (0..=GRID).map(|point| low + step * point as f64).map(|at| (dual(at), at));
        let (value, at) = found.fold((0.0, low), |best, now| if now.0 > best.0 { now } else { best });
        value.max(golden_section(at - step, at + step, dual))
    };
    (0..regression.inverse.size).map(of_factor).collect()
}

/// The largest value of a function met in a search that finds the only maximum between `low` and `high`.
fn golden_section(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    const SHARE: f64 = 0.618_033_988_749_894_9;
    let (mut left, mut right) = (high - SHARE * (high - low), low + SHARE * (high - low));
    let (mut f_left, mut f_right) = (f(left), f(right));
    for _ in 0..30 {
        if f_left < f_right {
            (low, left, f_left) = (left, right, f_right);
            right = low + SHARE * (high - low);
            f_right = f(right);
        } else {
            (high, right, f_right) = (right, left, f_left);
            left = high - SHARE * (high - low);
            f_left = f(left);
        }
    }
    f_left.max(f_right)
}

/// Sums over rows of φ min(V, a) and φ min(V, a)² for any a, in the time of a search.
struct Truncated {
    sorted: Vec<f64>,
    /// Sums of φ, φ V, φ V² over the rows with the least values, `[rows + 1, 3, d]`.
    sums: Vec<f64>,
    size: usize,
}

impl Truncated {
    fn new(regression: &Regression, values: &[f64]) -> Self {
        let size = regression.inverse.size;
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut sums = Vec::with_capacity((values.len() + 1) * 3 * size);
        sums.resize(3 * size, 0.0);
        for &at in &order {
            let (row, before, value) =
                (&regression.rows[at * size..][..size], sums.len() - 3 * size, values[at]);
            for (power, factor) in [1.0, value, value * value].into_iter().enumerate() {
                for (i, x) in row.iter().enumerate() {
                    sums.push(sums[before + power * size + i] + factor * x);
                }
            }
        }
        Self { sorted: order.iter().map(|&at| values[at]).collect(), sums, size }
    }

    fn sums(&self, a: f64) -> (Vec<f64>, Vec<f64>) {
        let (size, below) = (self.size, self.sorted.partition_point(|value| *value <= a));
        let own = &self.sums[below * 3 * size..][..3 * size];
        let all = &self.sums[self.sorted.len() * 3 * size..];
        let sum = |power: usize, cut: f64| {
            (0..size).map(|i| own[power * size + i] + cut * (all[i] - own[i])).collect::<Vec<f64>>()
        };
        (sum(1, a), sum(2, a * a))
    }
}

#[cfg(test)]
#[path = "duals_tests.rs"]
mod tests;
