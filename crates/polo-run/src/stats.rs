//! Honest statistics: how large an effect is, how far chance alone could have moved it, and over how many seeds.
//!
//! Claims, comparisons, evaluations and the demo report every figure as an [`Estimate`]: a value, its 95 % interval,
//! and the number of independent observations behind it. Too little data gives an estimate without an interval,
//! never a panic and never an interval of width zero that looks like certainty.

use std::fmt;

use rand::{Rng, RngExt};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Probability mass of every interval of this module.
pub const CONFIDENCE: f64 = 0.95;

/// A value with its 95 % interval and the observations it rests on.
///
/// Displays as `0.612 [0.581, 0.643] (n=5 seeds)`; a precision (`{:.1}`) fixes the decimals.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The estimated value; NaN when there was no observation.
    pub mean: f64,
    /// Lower and upper end of the 95 % interval; `None` where the data do not carry one (fewer than two
    /// observations, or values that are not finite).
    pub interval: Option<(f64, f64)>,
    /// Number of independent observations.
    pub n: usize,
    /// What was counted, in the plural: `seeds`, `pairs`, `prompts`.
    pub of: &'static str,
}

impl Estimate {
    /// A value that carries no sampling error, such as the error of an identity checked exactly. Its interval is
    /// the value itself.
    pub fn exact(value: f64) -> Self {
        Self { mean: value, interval: value.is_finite().then_some((value, value)), n: 1, of: EXACT }
    }

    /// Whether the value carries no sampling error, i.e. was made by [`Estimate::exact`].
    pub fn is_exact(&self) -> bool {
        self.of == EXACT
    }

    fn new(mean: f64, half_width: Option<f64>, n: usize, of: &'static str) -> Self {
        let interval = half_width.map(|half| (mean - half, mean + half));
        let interval = interval.filter(|(low, high)| low.is_finite() && high.is_finite());
        Self { mean, interval, n, of }
    }
}

const EXACT: &str = "exact";

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.n == 0 {
            return write!(f, "no data (n=0 {})", self.of);
        }
        if !self.mean.is_finite() {
            return write!(f, "not finite (n={} {})", self.n, self.of);
        }
        let (low, high) = self.interval.unwrap_or((self.mean, self.mean));
        let size = self.mean.abs().max(low.abs()).max(high.abs());
        let show = |value: f64| match f.precision() {
            Some(decimals) => format!("{value:.decimals$}"),
            None if size == 0.0 || (0.1..100.0).contains(&size) => format!("{value:.3}"),
            None if (100.0..1e6).contains(&size) => format!("{value:.1}"),
            None if (1e-3..0.1).contains(&size) => format!("{value:.5}"),
            None => format!("{value:.2e}"),
        };
        let mean = show(self.mean);
        if self.is_exact() {
            return write!(f, "{mean} (exact)");
        }
        match self.interval {
            Some(_) => write!(f, "{mean} [{}, {}] (n={} {})", show(low), show(high), self.n, self.of),
            None => write!(f, "{mean} [no interval] (n={} {})", self.n, self.of),
        }
    }
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation (divisor n - 1), in the unit of the values; `None` below two values.
pub fn sample_std(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let centre = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Median; the mean of the two middle values for an even count; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Mean with Student's t interval over independent observations, e.g. one value per seed.
pub fn t_interval(values: &[f64], of: &'static str) -> Estimate {
    let centre = mean(values).unwrap_or(f64::NAN);
    let half_width = sample_std(values)
        .and_then(|std| Some(t_quantile((values.len() - 1) as f64)? * std / (values.len() as f64).sqrt()));
    Estimate::new(centre, half_width, values.len(), of)
}

/// Mean of `left - right` over pairs that share their seed, with Student's t interval. Sharing the seed removes the
/// luck that both sides had in common.
pub fn paired_difference(pairs: &[(f64, f64)], of: &'static str) -> Estimate {
    let differences: Vec<f64> = pairs.iter().map(|(left, right)| left - right).collect();
    t_interval(&differences, of)
}

/// Welch's comparison of two independent samples with unequal variances.
#[derive(Clone, Debug, PartialEq)]
pub struct Welch {
    /// `mean(left) - mean(right)` with its 95 % interval; `n` counts both samples together.
    pub difference: Estimate,
    /// Welch-Satterthwaite degrees of freedom; `None` where a sample has fewer than two values or neither varies.
    pub degrees_of_freedom: Option<f64>,
    /// Two-sided p value of "no difference", under the same condition.
    pub p_value: Option<f64>,
}

/// Compares the means of two independent samples without assuming equal variances.
pub fn welch(left: &[f64], right: &[f64], of: &'static str) -> Welch {
    let n = left.len() + right.len();
    let difference = match (mean(left), mean(right)) {
        (Some(left), Some(right)) => left - right,
        _ => {
            return Welch {
                difference: Estimate::new(f64::NAN, None, 0, of),
                degrees_of_freedom: None,
                p_value: None,
            };
        }
    };
    let squared_error = |values: &[f64]| Some(sample_std(values)?.powi(2) / values.len() as f64);
    let test = squared_error(left).zip(squared_error(right)).and_then(|(a, b)| {
        let freedom =
            (a + b).powi(2) / (a.powi(2) / (left.len() - 1) as f64 + b.powi(2) / (right.len() - 1) as f64);
        let error = (a + b).sqrt();
        let distribution =
            StudentsT::new(0.0, 1.0, freedom).ok().filter(|_| error > 0.0 && error.is_finite())?;
        let p_value = 2.0 * distribution.cdf(-(difference / error).abs());
        Some((t_quantile(freedom)? * error, freedom, p_value))
    });
    Welch {
        difference: Estimate::new(difference, test.map(|(half, ..)| half), n, of),
        degrees_of_freedom: test.map(|(_, freedom, _)| freedom),
        p_value: test.map(|(.., p)| p),
    }
}

/// Probability that a score of `positive` exceeds one of `negative`, ties half: the area under the ROC curve. `None` if
/// either is empty or a score is no number.
pub fn auroc(positive: &[f64], negative: &[f64]) -> Option<f64> {
    let mut all: Vec<(f64, bool)> =
        positive.iter().map(|&x| (x, true)).chain(negative.iter().map(|&x| (x, false))).collect();
    if positive.is_empty() || negative.is_empty() || all.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    // 0 and -0 are one score.
    all.sort_by(|a, b| (a.0 + 0.0).total_cmp(&(b.0 + 0.0)));
    let (mut wins, mut below) = (0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let positives = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let negatives = tied.len() as f64 - positives;
        wins += positives * (below + negatives / 2.0);
        below += negatives;
    }
    Some(wins / (positive.len() * negative.len()) as f64)
}

/// Spearman's rank correlation of parallel values, in [-1, 1]; tied values share their mean rank. `None` below two
/// pairs, where one side does not vary, or where a value is no number.
pub fn spearman(left: &[f64], right: &[f64]) -> Option<f64> {
    if left.len() != right.len() || left.len() < 2 || left.iter().chain(right).any(|x| x.is_nan()) {
        return None;
    }
    let centre = (left.len() - 1) as f64 / 2.0;
    let ranks = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let (mut ranks, mut below) = (vec![0.0; values.len()], 0);
        for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
            let rank = below as f64 + (tied.len() - 1) as f64 / 2.0;
            tied.iter().for_each(|&at| ranks[at] = rank - centre);
            below += tied.len();
        }
        ranks
    };
    let (left, right) = (ranks(left), ranks(right));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = (product(&left, &left) * product(&right, &right)).sqrt();
    (scale > 0.0).then(|| product(&left, &right) / scale)
}

/// A proportion with Wilson's score interval. `successes` may be fractional: a tie counts one half.
pub fn wilson(successes: f64, trials: usize, of: &'static str) -> Estimate {
    let n = trials as f64;
    let share = successes / n;
    if trials == 0 || !(0.0..=1.0).contains(&share) {
        return Estimate { mean: f64::NAN, interval: None, n: trials, of };
    }
    let z = Normal::standard().inverse_cdf(0.5 + CONFIDENCE / 2.0);
    let scale = 1.0 + z * z / n;
    let centre = (share + z * z / (2.0 * n)) / scale;
    let half = z / scale * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    // Rounding may leave the interval a hair outside [0, 1] or off the share itself at 0 and 1.
    let interval = ((centre - half).clamp(0.0, share), (centre + half).clamp(share, 1.0));
    Estimate { mean: share, interval: Some(interval), n: trials, of }
}

/// Percentile bootstrap interval of any statistic of independent observations.
///
/// Draws `resamples` samples of the same size with replacement from `rng`; the ends of the interval are the 2.5 %
/// and 97.5 % points of the statistic. Without interval below two values or without resamples.
pub fn bootstrap(
    values: &[f64],
    statistic: impl Fn(&[f64]) -> f64,
    resamples: usize,
    rng: &mut impl Rng,
    of: &'static str,
) -> Estimate {
    if values.is_empty() {
        return Estimate::new(f64::NAN, None, 0, of);
    }
    let centre = statistic(values);
    if values.len() < 2 || resamples == 0 {
        return Estimate::new(centre, None, values.len(), of);
    }
    let mut sample = vec![0.0; values.len()];
    let mut drawn: Vec<f64> = (0..resamples)
        .map(|_| {
            sample.fill_with(|| values[rng.random_range(0..values.len())]);
            statistic(&sample)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let ends = (quantile(&drawn, tail), quantile(&drawn, 1.0 - tail));
    let interval = Some(ends).filter(|(low, high)| low.is_finite() && high.is_finite());
    Estimate { mean: centre, interval, n: values.len(), of }
}

/// Linear interpolation between order statistics of a sorted, non-empty slice.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

/// The two-sided 95 % point of Student's t; `None` without degrees of freedom.
fn t_quantile(degrees_of_freedom: f64) -> Option<f64> {
    let distribution = StudentsT::new(0.0, 1.0, degrees_of_freedom).ok()?;
    Some(distribution.inverse_cdf(0.5 + CONFIDENCE / 2.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    fn check(estimate: &Estimate, mean: f64, low: f64, high: f64) {
        close(estimate.mean, mean);
        let (found_low, found_high) = estimate.interval.unwrap();
        close(found_low, low);
        close(found_high, high);
    }

    #[test]
    fn auroc_counts_pairs_in_order() {
        fn check(positive: &[f64], negative: &[f64], expected: Option<f64>) {
            assert_eq!(auroc(positive, negative), expected, "{positive:?} {negative:?}");
        }
        check(&[2.0, 3.0], &[0.0, 1.0], Some(1.0));
        check(&[0.0], &[1.0], Some(0.0));
        check(&[1.0, 1.0], &[1.0], Some(0.5));
        check(&[-0.0], &[0.0], Some(0.5));
        check(&[1.0, 3.0], &[2.0, 3.0], Some(0.375));
        check(&[], &[1.0], None);
        check(&[f64::NAN], &[1.0], None);
    }

    #[test]
    fn spearman_correlates_ranks() {
        fn check(left: &[f64], right: &[f64], expected: Option<f64>) {
            match (spearman(left, right), expected) {
                (Some(found), Some(expected)) => close(found, expected),
                (found, expected) => assert_eq!(found, expected, "{left:?} {right:?}"),
            }
        }
        check(&[1.0, 2.0, 10.0], &[0.1, 0.2, 0.3], Some(1.0));
        check(&[1.0, 2.0, 3.0], &[9.0, 5.0, -4.0], Some(-1.0));
        // 1 - 6 sum d^2 / (n (n^2 - 1)) with d = (1, -1, 1, -1, 0).
        check(&[1.0, 2.0, 3.0, 4.0, 5.0], &[2.0, 1.0, 4.0, 3.0, 5.0], Some(0.8));
        // Ranks 1.5, 1.5, 3 and 1, 2, 3: scipy.stats.spearmanr.
        check(&[0.0, 0.0, 7.0], &[1.0, 2.0, 3.0], Some(0.866_025_404));
        check(&[1.0, 1.0], &[1.0, 2.0], None);
        check(&[1.0], &[1.0], None);
        check(&[1.0, f64::NAN], &[1.0, 2.0], None);
    }

    #[test]
    fn t_quantiles_equal_the_tables() {
        for (freedom, expected) in
            [(1.0, 12.706_204_736), (2.0, 4.302_652_730), (4.0, 2.776_445_105), (29.0, 2.045_229_642)]
        {
            close(t_quantile(freedom).unwrap(), expected);
        }
    }

    #[test]
    fn the_t_interval_of_one_to_five_is_known() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        close(sample_std(&values).unwrap(), 2.5_f64.sqrt());
        let half = 2.776_445_105_2 * (2.5_f64 / 5.0).sqrt();
        check(&t_interval(&values, "seeds"), 3.0, 3.0 - half, 3.0 + half);
        let pairs: Vec<_> = values.iter().map(|value| (value + 10.0, 10.0)).collect();
        check(&paired_difference(&pairs, "seeds"), 3.0, 3.0 - half, 3.0 + half);
    }

    #[test]
    fn wilson_equals_published_values() {
        // Newcombe 1998, table I: 81/263, 15/148, 0/20 and 1/29.
        for (successes, trials, low, high) in [
            (81.0, 263, 0.2553, 0.3662),
            (15.0, 148, 0.0624, 0.1605),
            (0.0, 20, 0.0, 0.1611),
            (1.0, 29, 0.0061, 0.1718),
        ] {
            let (found_low, found_high) = wilson(successes, trials, "pairs").interval.unwrap();
            assert!(
                (found_low - low).abs() < 6e-5 && (found_high - high).abs() < 6e-5,
                "{successes}/{trials}"
            );
        }
        assert_eq!(wilson(20.0, 20, "pairs").interval.unwrap().1, 1.0);
        assert_eq!(wilson(10.5, 20, "pairs").mean, 0.525);
    }

    #[test]
    fn welch_equals_the_closed_form() {
        // Both variances 2.5 and n = 5: degrees of freedom 8, standard error 1, t = -1, p = 0.346593507.
        let found = welch(&[1.0, 2.0, 3.0, 4.0, 5.0], &[2.0, 3.0, 4.0, 5.0, 6.0], "seeds");
        close(found.degrees_of_freedom.unwrap(), 8.0);
        close(found.p_value.unwrap(), 0.346_593_507);
        check(&found.difference, -1.0, -1.0 - 2.306_004_135, -1.0 + 2.306_004_135);
        assert_eq!(found.difference.n, 10);
    }

    #[test]
    fn bootstrap_is_reproducible_and_brackets_the_mean() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        let average = |sample: &[f64]| mean(sample).unwrap_or(f64::NAN);
        let run = |seed| bootstrap(&values, average, 2_000, &mut ChaCha8Rng::seed_from_u64(seed), "prompts");
        let found = run(1);
        assert_eq!(found, run(1));
        let normal = t_interval(&values, "prompts").interval.unwrap();
        let (low, high) = found.interval.unwrap();
        assert!((low - normal.0).abs() < 0.05 && (high - normal.1).abs() < 0.05, "{found}");
        assert_eq!(found.mean, 4.5);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn too_little_data_has_no_interval_and_no_panic() {
        fn check(estimate: &Estimate, expected: &str) {
            assert_eq!(estimate.to_string(), expected);
            assert_eq!(estimate.interval, None);
        }
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        let first = |sample: &[f64]| sample[0];
        check(&t_interval(&[], "seeds"), "no data (n=0 seeds)");
        check(&t_interval(&[0.5], "seeds"), "0.500 [no interval] (n=1 seeds)");
        check(&t_interval(&[0.5, f64::NAN], "seeds"), "not finite (n=2 seeds)");
        check(&paired_difference(&[], "seeds"), "no data (n=0 seeds)");
        check(&wilson(0.0, 0, "pairs"), "no data (n=0 pairs)");
        check(&bootstrap(&[], first, 10, rng, "seeds"), "no data (n=0 seeds)");
        check(&bootstrap(&[2.0], first, 10, rng, "seeds"), "2.000 [no interval] (n=1 seeds)");
        check(&bootstrap(&[2.0, 2.0], first, 0, rng, "seeds"), "2.000 [no interval] (n=2 seeds)");
        check(&welch(&[], &[1.0], "seeds").difference, "no data (n=0 seeds)");
        check(&welch(&[2.0], &[1.0, 1.5], "seeds").difference, "0.750 [no interval] (n=3 seeds)");
        check(&welch(&[2.0, 2.0], &[1.0, 1.0], "seeds").difference, "1.000 [no interval] (n=4 seeds)");
    }

    #[test]
    fn estimates_read_well() {
        let estimate = |mean, low, high| Estimate { mean, interval: Some((low, high)), n: 5, of: "seeds" };
        assert_eq!(estimate(0.612, 0.581, 0.643).to_string(), "0.612 [0.581, 0.643] (n=5 seeds)");
        assert_eq!(format!("{:.1}", estimate(0.612, 0.581, 0.643)), "0.6 [0.6, 0.6] (n=5 seeds)");
        assert_eq!(estimate(1234.5, 1200.0, 1300.0).to_string(), "1234.5 [1200.0, 1300.0] (n=5 seeds)");
        assert_eq!(estimate(2e-5, 1e-5, 3e-5).to_string(), "2.00e-5 [1.00e-5, 3.00e-5] (n=5 seeds)");
        assert_eq!(Estimate::exact(0.25).to_string(), "0.250 (exact)");
    }
}
