//! How far an off-policy estimate can be trusted, and which λ to trust it with: intervals and bounds of the mean of the
//! terms of [`crate::estimators`], and two ways to choose among estimators.
//!
//! Self-normalised estimators have terms of which the mean weight is a part; it stays that of all rows, also in bootstrap
//! samples, as in the Open Bandit Pipeline. Variances here have divisor n, as there.

use polo_run::{
    seed::Seeds,
    stats::{self, Estimate},
};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::estimators::{Estimator, Rows, mean};

/// The mean of terms with its 95 % percentile interval over bootstrap samples.
pub fn bootstrap(terms: &[f64], resamples: usize, seeds: &Seeds) -> Estimate {
    stats::bootstrap(terms, mean, resamples, &mut seeds.rng("bootstrap", 0), "rows")
}

/// A one-sided lower bound of the mean of terms in [0, most], which holds with probability 1 - δ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowerBound {
    /// mean - most √(ln(1/δ) / 2n).
    Hoeffding,
    /// Empirical Bernstein: mean - 7 most ln(2/δ) / 3(n-1) - √(2 ln(2/δ) var / (n-1)).
    Bernstein,
    /// mean - t_{n-1, 1-δ} √(var / (n-1)): right for normal terms, in practice for many; does not use the range.
    Student,
}

impl LowerBound {
    /// The bound. `most` is the largest value a term can take; the largest one there is, without. NaN below two terms.
    pub fn of(self, terms: &[f64], most: Option<f64>, delta: f64) -> f64 {
        let (n, mean) = (terms.len() as f64, mean(terms));
        let most = most.unwrap_or_else(|| terms.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        if terms.len() < 2 {
            return f64::NAN;
        }
        match self {
            LowerBound::Hoeffding => mean - most * ((1.0 / delta).ln() / (2.0 * n)).sqrt(),
            LowerBound::Bernstein => {
                let log = (2.0 / delta).ln();
                let spread = (2.0 * log * variance(terms) / (n - 1.0)).sqrt();
                mean - 7.0 * most * log / (3.0 * (n - 1.0)) - spread
            }
            LowerBound::Student => mean - student_width(terms, delta),
        }
    }
}

/// t_{n-1, 1-δ} √(var / (n-1)), the one-sided width of the mean of terms.
fn student_width(terms: &[f64], delta: f64) -> f64 {
    let freedom = terms.len() as f64 - 1.0;
    let quantile = StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |t| t.inverse_cdf(1.0 - delta));
    quantile * (variance(terms) / freedom).sqrt()
}

/// Variance with divisor n.
fn variance(numbers: &[f64]) -> f64 {
    let centre = mean(numbers);
    numbers.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / numbers.len() as f64
}

/// What a changed weight costs at most in bias, with probability 1 - δ (Su et al. 2020):
/// |mean((w - ŵ)(r - q̂))| + √(2 mean(w²) ln(2/δ) / n) + 2 max(w) ln(2/δ) / 3n.
///
/// `residuals` are r - q̂, or r without a model.
pub fn bias_bound(weights: &[f64], changed: &[f64], residuals: &[f64], delta: f64) -> f64 {
    let (n, log) = (weights.len() as f64, (2.0 / delta).ln());
    let lost: f64 = weights.iter().zip(changed).zip(residuals).map(|((w, hat), r)| (w - hat) * r).sum();
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    let most = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (lost / n).abs() + (2.0 * squares / n * log / n).sqrt() + 2.0 * most * log / (3.0 * n)
}

/// A bound of an estimator's mean squared error: var / n + [`bias_bound`]².
pub fn error_bound(estimator: Estimator, rows: &Rows, delta: f64) -> f64 {
    let terms = estimator.terms(rows);
    let weights = rows.weights();
    let changed = estimator.weighting().map_or_else(|| vec![0.0; weights.len()], |w| w.apply(&weights));
    let residuals: Vec<f64> = match estimator.needs_model() {
        true => rows.rewards.iter().zip(rows.fitted).map(|(r, q)| r - q).collect(),
        false => rows.rewards.to_vec(),
    };
    variance(&terms) / terms.len() as f64 + bias_bound(&weights, &changed, &residuals, delta).powi(2)
}

/// How to choose λ among candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// The candidate with the least [`error_bound`].
    ErrorBound,
    /// SLOPE++ (Su et al. 2020, Tucker and Lee 2021), see [`slope`].
    Slope,
}

/// The estimator with the best λ among candidates, of which there must be one; itself where it has no λ.
pub fn tune(estimator: Estimator, lambdas: &[f64], tuning: Tuning, rows: &Rows, delta: f64) -> Estimator {
    let candidates: Vec<Estimator> = lambdas.iter().map(|&lambda| estimator.with_lambda(lambda)).collect();
    let best = match tuning {
        Tuning::ErrorBound => {
            let bounds: Vec<f64> = candidates.iter().map(|one| error_bound(*one, rows, delta)).collect();
            (0..bounds.len()).min_by(|&a, &b| bounds[a].total_cmp(&bounds[b]))
        }
        Tuning::Slope => {
            let terms: Vec<Vec<f64>> = candidates.iter().map(|one| one.terms(rows)).collect();
            slope(&terms, delta)
        }
    };
    best.map_or(estimator, |at| candidates[at])
}

/// The place of the candidate that SLOPE++ takes, given the terms of each. Candidates are visited from the widest
/// interval cᵢ (Student's, one-sided) to the narrowest, and thus from little to much bias; the last one before
/// |θⱼ - θᵢ| <= cᵢ + (√6 - 1) cⱼ fails for one visited before is taken.
pub fn slope(candidates: &[Vec<f64>], delta: f64) -> Option<usize> {
    let values: Vec<f64> = candidates.iter().map(|terms| mean(terms)).collect();
    let widths: Vec<f64> = candidates.iter().map(|terms| student_width(terms, delta)).collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| widths[b].total_cmp(&widths[a]));
    let agrees =
        |i: usize, j: usize| (values[j] - values[i]).abs() <= widths[i] + (6.0_f64.sqrt() - 1.0) * widths[j];
    let first_apart = (1..order.len()).find(|&at| order[..at].iter().any(|&j| !agrees(order[at], j)));
    order.get(first_apart.unwrap_or(order.len()).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bound stays below the mean, and tightens as rows are added.
    #[test]
    fn bounds_close_in_on_the_mean() {
        let terms = |n: usize| (0..n).map(|i| (i % 4) as f64 / 3.0).collect::<Vec<_>>();
        for bound in [LowerBound::Hoeffding, LowerBound::Bernstein, LowerBound::Student] {
            let far = [40, 400, 4000].map(|n| 0.5 - bound.of(&terms(n), None, 0.05));
            assert!(far[0] > 2.0 * far[1] && far[1] > 2.0 * far[2] && far[2] > 0.0, "{bound:?}: {far:?}");
            assert!(bound.of(&terms(1), None, 0.05).is_nan());
        }
        assert!(
            (LowerBound::Hoeffding.of(&terms(4), Some(2.0), 0.05) - (0.5 - 2.0 * 0.611_936_7)).abs() < 1e-6
        );
    }

    #[test]
    fn bootstrap_intervals_hold_the_mean() {
        let terms: Vec<f64> = (0..500).map(|i| f64::from(i % 10)).collect();
        let estimate = bootstrap(&terms, 1000, &Seeds::new(1));
        let (low, high) = estimate.interval.unwrap();
        // A normal interval: 1.96 · 2.872 / √500.
        assert!((low - (4.5 - 0.2518)).abs() < 0.03 && (high - (4.5 + 0.2518)).abs() < 0.03, "{estimate}");
        assert_eq!(estimate, bootstrap(&terms, 1000, &Seeds::new(1)));
    }

    #[test]
    fn slope_takes_the_last_candidate_that_agrees() {
        let around = |centre: f64, spread: f64| vec![centre - spread, centre + spread, centre, centre];
        let wide = around(1.0, 1.0);
        assert_eq!(slope(&[around(1.1, 0.01), wide.clone()], 0.05), Some(0));
        assert_eq!(slope(&[around(9.0, 0.01), wide.clone(), around(1.1, 0.5)], 0.05), Some(2));
        assert_eq!(slope(&[wide], 0.05), Some(0));
        assert_eq!(slope(&[], 0.05), None);
    }
}
