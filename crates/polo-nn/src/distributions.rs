//! Distributions of actions: what policies draw from, how likely it was, and how losses on that change with what the
//! policy's network puts out.
//!
//! Rows are states of a batch. Log-probs and entropies are in nats; slices are row-major.

use polo_run::seed::unit;
use rand_chacha::rand_core::Rng;

use crate::kernels;

/// log sqrt(2 pi).
const LOG_ROOT_2_PI: f32 = 0.918_938_5;

/// One of several actions, each as likely as the softmax of its logit.
#[derive(Clone, Debug)]
pub struct Categorical {
    actions: usize,
    /// `[rows, actions]`.
    logps: Vec<f32>,
}

impl Categorical {
    /// From logits, `[rows, actions]`.
    pub fn new(mut logits: Vec<f32>, actions: usize) -> Self {
        kernels::vectorised!({
            for row in logits.chunks_exact_mut(actions) {
                kernels::log_softmax(row);
            }
        });
        Self { actions, logps: logits }
    }

    /// Log-probs of all actions in a row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.logps[row * self.actions..][..self.actions]
    }

    /// Draws an action.
    pub fn sample(&self, row: usize, rng: &mut impl Rng) -> usize {
        let mut left = unit(rng) as f32;
        let logps = self.row(row);
        for (action, logp) in logps.iter().enumerate() {
            left -= logp.exp();
            if left < 0.0 {
                return action;
            }
        }
        self.mode(row)
    }

    /// The likeliest action; the first of several.
    pub fn mode(&self, row: usize) -> usize {
        let logps = self.row(row);
        (1..logps.len()).fold(0, |best, action| if logps[action] > logps[best] { action } else { best })
    }

    /// Entropy of a row.
    pub fn entropy(&self, row: usize) -> f32 {
        -self.row(row).iter().map(|logp| logp.exp() * logp).sum::<f32>()
    }

    /// KL(self ‖ other) of a row.
    pub fn divergence(&self, other: &Self, row: usize) -> f32 {
        self.row(row).iter().zip(other.row(row)).map(|(p, q)| p.exp() * (p - q)).sum()
    }

    /// dL/dlogits, `[rows, actions]`, of a loss with these slopes in the log-prob of the action taken and in the entropy
    /// of each row.
    pub fn push_back(&self, taken: &[usize], dlogps: &[f32], dentropies: &[f32]) -> Vec<f32> {
        let mut dlogits = vec![0.0; self.logps.len()];
        for (row, dlogits) in dlogits.chunks_exact_mut(self.actions).enumerate() {
            let entropy = self.entropy(row);
            for (dlogit, logp) in dlogits.iter_mut().zip(self.row(row)) {
                *dlogit = -logp.exp() * (dlogps[row] + dentropies[row] * (logp + entropy));
            }
            dlogits[taken[row]] += dlogps[row];
        }
        dlogits
    }

    /// dL/dlogits of a loss with this slope in KL(self ‖ other) of each row.
    pub fn push_back_divergence(&self, other: &Self, ddivergences: &[f32]) -> Vec<f32> {
        let mut dlogits = vec![0.0; self.logps.len()];
        for (row, dlogits) in dlogits.chunks_exact_mut(self.actions).enumerate() {
            let divergence = self.divergence(other, row);
            for (dlogit, (p, q)) in dlogits.iter_mut().zip(self.row(row).iter().zip(other.row(row))) {
                *dlogit = p.exp() * (p - q - divergence) * ddivergences[row];
            }
        }
        dlogits
    }

    /// The same of a loss with this slope in KL(other ‖ self).
    pub fn push_back_divergence_from(&self, other: &Self, ddivergences: &[f32]) -> Vec<f32> {
        let ours = self.logps.chunks_exact(self.actions).zip(other.logps.chunks_exact(self.actions));
        let of = |((own, other), slope): ((&[f32], &[f32]), &f32)| -> Vec<f32> {
            own.iter().zip(other).map(|(p, q)| slope * (p.exp() - q.exp())).collect()
        };
        ours.zip(ddivergences).flat_map(of).collect()
    }

    /// Fisher information times a change of the logits, `[rows, actions]`: (diag p - p pᵀ) d, which is the Hessian of
    /// the KL divergence from a distribution in the logits of one, where they are equal.
    pub fn fisher(&self, dlogits: &[f32]) -> Vec<f32> {
        let rows = self.logps.chunks_exact(self.actions).zip(dlogits.chunks_exact(self.actions));
        rows.flat_map(|(own, d)| {
            let mean: f32 = own.iter().zip(d).map(|(p, d)| p.exp() * d).sum();
            own.iter().zip(d).map(move |(p, d)| p.exp() * (d - mean))
        })
        .collect()
    }
}

/// A normal distribution of independent components; how wide may differ by row, or not.
#[derive(Clone, Debug)]
pub struct Gaussian {
    dimensions: usize,
    /// `[rows, dimensions]`.
    means: Vec<f32>,
    /// Logarithms of the standard deviations, `[rows, dimensions]`, or `[dimensions]` for all rows.
    log_stds: Vec<f32>,
}

impl Gaussian {
    /// From means, `[rows, dimensions]`, and logarithms of standard deviations of the same shape or of one row.
    pub fn new(means: Vec<f32>, log_stds: Vec<f32>, dimensions: usize) -> Self {
        Self { dimensions, means, log_stds }
    }

    /// Means of a row.
    pub fn mean(&self, row: usize) -> &[f32] {
        &self.means[row * self.dimensions..][..self.dimensions]
    }

    /// Logarithms of the standard deviations of a row.
    pub fn log_std(&self, row: usize) -> &[f32] {
        let first = if self.log_stds.len() == self.dimensions { 0 } else { row * self.dimensions };
        &self.log_stds[first..][..self.dimensions]
    }

    /// The point that lies `noise` standard deviations from the mean.
    pub fn at(&self, row: usize, noise: &[f32]) -> Vec<f32> {
        let parts = self.mean(row).iter().zip(self.log_std(row)).zip(noise);
        parts.map(|((mean, log_std), noise)| mean + log_std.exp() * noise).collect()
    }

    /// log N(x), summed over dimensions.
    pub fn logp(&self, row: usize, x: &[f32]) -> f32 {
        let parts = self.mean(row).iter().zip(self.log_std(row)).zip(x);
        parts
            .map(|((mean, log_std), x)| {
                let z = (x - mean) * (-log_std).exp();
                -0.5 * z * z - log_std - LOG_ROOT_2_PI
            })
            .sum()
    }

    /// Entropy, summed over dimensions.
    pub fn entropy(&self, row: usize) -> f32 {
        self.log_std(row).iter().map(|log_std| log_std + 0.5 + LOG_ROOT_2_PI).sum()
    }

    /// KL(self ‖ other) of a row.
    pub fn divergence(&self, other: &Self, row: usize) -> f32 {
        let ours = self.mean(row).iter().zip(self.log_std(row));
        let theirs = other.mean(row).iter().zip(other.log_std(row));
        ours.zip(theirs)
            .map(|((m, s), (n, t))| {
                let (distance, ratio) = ((m - n) * (-t).exp(), (2.0 * (s - t)).exp());
                t - s + 0.5 * (ratio + distance * distance - 1.0)
            })
            .sum()
    }

    /// dL/dmeans and dL/dlog_stds, `[rows, dimensions]` each, of a loss with these slopes in the log-prob of `x`,
    /// `[rows, dimensions]`, and in the entropy of each row. Where all rows share their widths, the caller adds up rows.
    pub fn push_back(&self, x: &[f32], dlogps: &[f32], dentropies: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut dmeans, mut dlog_stds) = (vec![0.0; self.means.len()], vec![0.0; self.means.len()]);
        for row in 0..dlogps.len() {
            let (mean, log_std) = (self.mean(row), self.log_std(row));
            for i in 0..self.dimensions {
                let place = row * self.dimensions + i;
                let inverse = (-log_std[i]).exp();
                let z = (x[place] - mean[i]) * inverse;
                dmeans[place] = dlogps[row] * z * inverse;
                dlog_stds[place] = dlogps[row] * (z * z - 1.0) + dentropies[row];
            }
        }
        (dmeans, dlog_stds)
    }

    /// The same of a loss with this slope in KL(self ‖ other) of each row.
    pub fn push_back_divergence(&self, other: &Self, ddivergences: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut dmeans, mut dlog_stds) = (vec![0.0; self.means.len()], vec![0.0; self.means.len()]);
        for (row, slope) in ddivergences.iter().enumerate() {
            for i in 0..self.dimensions {
                let place = row * self.dimensions + i;
                let (s, t) = (self.log_std(row)[i], other.log_std(row)[i]);
                dmeans[place] = slope * (self.mean(row)[i] - other.mean(row)[i]) * (-2.0 * t).exp();
                dlog_stds[place] = slope * ((2.0 * (s - t)).exp() - 1.0);
            }
        }
        (dmeans, dlog_stds)
    }

    /// The same of a loss with this slope in KL(other ‖ self) of each row.
    pub fn push_back_divergence_from(&self, other: &Self, ddivergences: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut dmeans, mut dlog_stds) = (vec![0.0; self.means.len()], vec![0.0; self.means.len()]);
        for (row, slope) in ddivergences.iter().enumerate() {
            for i in 0..self.dimensions {
                let place = row * self.dimensions + i;
                let (s, t) = (self.log_std(row)[i], other.log_std(row)[i]);
                let distance = self.mean(row)[i] - other.mean(row)[i];
                let inverse = (-2.0 * s).exp();
                dmeans[place] = slope * distance * inverse;
                dlog_stds[place] = slope * (1.0 - ((2.0 * t).exp() + distance * distance) * inverse);
            }
        }
        (dmeans, dlog_stds)
    }

    /// Fisher information times a change of means and of logarithms of standard deviations, `[rows, dimensions]` each:
    /// 1/sigma² and 2 on its diagonal.
    pub fn fisher(&self, dmeans: &[f32], dlog_stds: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let d = self.dimensions;
        let precision = |place: usize| (-2.0 * self.log_std(place / d)[place % d]).exp();
        let means = dmeans.iter().enumerate().map(|(place, dmean)| precision(place) * dmean).collect();
        (means, dlog_stds.iter().map(|d| 2.0 * d).collect())
    }
}

/// How far a bounded action reaches: action = centre + scale tanh(u).
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Middle of each component.
    pub centre: Vec<f32>,
    /// Half the width of each component.
    pub scale: Vec<f32>,
}

impl Bounds {
    /// From the least and the most of each component.
    pub fn new(low: &[f32], high: &[f32]) -> Self {
        let pairs = || low.iter().zip(high);
        Self {
            centre: pairs().map(|(low, high)| 0.5 * (low + high)).collect(),
            scale: pairs().map(|(low, high)| 0.5 * (high - low)).collect(),
        }
    }

    /// -1 to 1 in every component.
    pub fn unit(dimensions: usize) -> Self {
        Self { centre: vec![0.0; dimensions], scale: vec![1.0; dimensions] }
    }
}

/// Actions drawn from a squashed normal distribution with given noise, and what a loss needs to be pushed back.
#[derive(Clone, Debug)]
pub struct Squashed {
    /// `[rows, dimensions]`.
    pub actions: Vec<f32>,
    /// Log-prob of each row's action: sum of log N(u) - log(scale (1 - tanh² u) + 1e-6).
    pub logps: Vec<f32>,
    /// u, `[rows, dimensions]`.
    pub before: Vec<f32>,
    /// tanh u, `[rows, dimensions]`.
    tanhs: Vec<f32>,
    /// The action's slope in u: scale (1 - tanh² u).
    slopes: Vec<f32>,
    /// sigma times the noise.
    shifts: Vec<f32>,
}

/// Keeps the logarithm of the slope of tanh finite, as common implementations do.
const SLOPE_EPSILON: f32 = 1e-6;

impl Squashed {
    /// Draws u = mean + sigma noise and squashes it; `noise` is `[rows, dimensions]`.
    pub fn new(gaussian: &Gaussian, noise: &[f32], bounds: &Bounds) -> Self {
        let d = gaussian.dimensions;
        let rows = noise.len() / d;
        let [mut actions, mut before, mut tanhs, mut slopes, mut shifts] =
            [(); 5].map(|()| vec![0.0; noise.len()]);
        let mut logps = vec![0.0; rows];
        for (row, logp) in logps.iter_mut().enumerate() {
            let (mean, log_std) = (gaussian.mean(row), gaussian.log_std(row));
            for i in 0..d {
                let place = row * d + i;
                shifts[place] = log_std[i].exp() * noise[place];
                let u = mean[i] + shifts[place];
                before[place] = u;
                tanhs[place] = u.tanh();
                actions[place] = bounds.centre[i] + bounds.scale[i] * tanhs[place];
                // Where tanh is near 1, 1 - tanh² has no digits left.
                let e = (-2.0 * u.abs()).exp();
                slopes[place] = bounds.scale[i] * 4.0 * e / ((1.0 + e) * (1.0 + e));
                let slope = slopes[place] + SLOPE_EPSILON;
                *logp += -0.5 * noise[place] * noise[place] - log_std[i] - LOG_ROOT_2_PI - slope.ln();
            }
        }
        Self { actions, logps, before, tanhs, slopes, shifts }
    }

    /// dL/dmeans and dL/dlog_stds, `[rows, dimensions]` each, of a loss with these slopes in the actions,
    /// `[rows, dimensions]`, and in their log-probs, the noise held fixed.
    pub fn push_back(&self, dactions: &[f32], dlogps: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let d = dactions.len() / dlogps.len().max(1);
        self.push(|place| dactions[place] * self.slopes[place], |place| dlogps[place / d])
    }

    /// The same of a loss with these slopes in the actions, in u beside them ([`Squashed::slopes_under`]), and in the
    /// log-density of each component, `[rows, dimensions]` each.
    pub fn push_back_parts(
        &self,
        dactions: &[f32],
        dbefore: &[f32],
        dlog_densities: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        self.push(
            |place| dactions[place] * self.slopes[place] + dbefore[place],
            |place| dlog_densities[place],
        )
    }

    fn push(&self, du: impl Fn(usize) -> f32, dlog: impl Fn(usize) -> f32) -> (Vec<f32>, Vec<f32>) {
        let count = self.actions.len();
        let (mut dmeans, mut dlog_stds) = (vec![0.0; count], vec![0.0; count]);
        for place in 0..count {
            let (tanh, slope) = (self.tanhs[place], self.slopes[place]);
            let du = du(place) + dlog(place) * 2.0 * tanh * slope / (slope + SLOPE_EPSILON);
            dmeans[place] = du;
            dlog_stds[place] = du * self.shifts[place] - dlog(place);
        }
        (dmeans, dlog_stds)
    }

    /// Log-density of each component of the actions under the squashed `gaussian`, `[rows, dimensions]`.
    pub fn log_densities(&self, gaussian: &Gaussian) -> Vec<f32> {
        let d = gaussian.dimensions;
        let at = |place: usize| {
            let (mean, log_std) =
                (gaussian.mean(place / d)[place % d], gaussian.log_std(place / d)[place % d]);
            let z = (self.before[place] - mean) * (-log_std).exp();
            -0.5 * z * z - log_std - LOG_ROOT_2_PI - (self.slopes[place] + SLOPE_EPSILON).ln()
        };
        (0..self.before.len()).map(at).collect()
    }

    /// dL/du of a loss with these slopes in [`Squashed::log_densities`] under a `gaussian` that stands still.
    pub fn slopes_under(&self, gaussian: &Gaussian, dlog_densities: &[f32]) -> Vec<f32> {
        let d = gaussian.dimensions;
        let at = |(place, dlog): (usize, &f32)| {
            let (mean, log_std) =
                (gaussian.mean(place / d)[place % d], gaussian.log_std(place / d)[place % d]);
            let slope = self.slopes[place];
            let squash = 2.0 * self.tanhs[place] * slope / (slope + SLOPE_EPSILON);
            dlog * (squash - (self.before[place] - mean) * (-2.0 * log_std).exp())
        };
        dlog_densities.iter().enumerate().map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::{LN_2, PI};

    use polo_run::seed::Seeds;

    use super::*;

    fn noise(count: usize, stream: &str) -> Vec<f32> {
        Seeds::new(4).normal(count, stream, 0)
    }

    /// Checks slopes of a sum against central differences, number by number.
    #[track_caller]
    fn slopes(at: &[f32], found: &[f32], value: impl Fn(&[f32]) -> f64) {
        assert_eq!(at.len(), found.len());
        for i in 0..at.len() {
            let shifted = |by: f32| {
                let mut moved = at.to_vec();
                moved[i] += by;
                value(&moved)
            };
            let expected = (shifted(5e-3) - shifted(-5e-3)) / 1e-2;
            let error = (f64::from(found[i]) - expected).abs();
            assert!(error < 3e-3 * (1.0 + expected.abs()), "{i}: {} is not {expected}", found[i]);
        }
    }

    #[test]
    fn categorical_slopes() {
        let (rows, actions) = (4, 5);
        let (logits, others) = (noise(rows * actions, "logits"), noise(rows * actions, "others"));
        let taken = [0, 4, 2, 2];
        let (c, d) = (noise(rows, "c"), noise(rows, "d"));
        let of = |logits: &[f32]| Categorical::new(logits.to_vec(), actions);
        let dlogits = of(&logits).push_back(&taken, &c, &d);
        slopes(&logits, &dlogits, |logits| {
            let own = of(logits);
            (0..rows).map(|r| f64::from(c[r] * own.row(r)[taken[r]] + d[r] * own.entropy(r))).sum()
        });
        let other = of(&others);
        slopes(&logits, &of(&logits).push_back_divergence(&other, &c), |logits| {
            let own = of(logits);
            (0..rows).map(|r| f64::from(c[r] * own.divergence(&other, r))).sum()
        });
        slopes(&logits, &of(&logits).push_back_divergence_from(&other, &c), |logits| {
            let own = of(logits);
            (0..rows).map(|r| f64::from(c[r] * other.divergence(&own, r))).sum()
        });
        assert!((Categorical::new(vec![0.7; 4], 4).entropy(0) - 2.0 * LN_2).abs() < 1e-6);
        // Fisher information is how fast the slopes of the divergence from itself change.
        let (own, along) = (of(&logits), noise(rows * actions, "along"));
        let shifted = |by: f32| {
            let moved: Vec<f32> = logits.iter().zip(&along).map(|(x, a)| x + by * a).collect();
            of(&moved).push_back_divergence_from(&own, &[1.0; 4])
        };
        let (high, low) = (shifted(1e-2), shifted(-1e-2));
        for (place, found) in own.fisher(&along).iter().enumerate() {
            assert!((found - (high[place] - low[place]) / 2e-2).abs() < 1e-3);
        }
    }

    #[test]
    fn categorical_draws_as_told() {
        let own = Categorical::new(vec![0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()], 3);
        let mut rng = Seeds::new(1).rng("draws", 0);
        let mut counts = [0; 3];
        (0..20_000).for_each(|_| counts[own.sample(0, &mut rng)] += 1);
        for (count, share) in counts.iter().zip([0.1, 0.6, 0.3]) {
            assert!((f64::from(*count) / 20_000.0 - share).abs() < 0.012, "{counts:?}");
        }
        assert_eq!(own.mode(0), 1);
    }

    #[test]
    fn gaussian_slopes() {
        let (rows, d) = (3, 2);
        let (means, log_stds) = (noise(rows * d, "means"), noise(rows * d, "stds"));
        let other = Gaussian::new(noise(rows * d, "other means"), noise(d, "other stds"), d);
        let x = noise(rows * d, "x");
        let (c, e) = (noise(rows, "c"), noise(rows, "d"));
        let value = |own: &Gaussian| {
            (0..rows)
                .map(|r| f64::from(c[r] * own.logp(r, &x[r * d..][..d]) + e[r] * own.entropy(r)))
                .sum::<f64>()
        };
        let divergence =
            |own: &Gaussian| (0..rows).map(|r| f64::from(c[r] * own.divergence(&other, r))).sum::<f64>();
        let of = |means: &[f32], stds: &[f32]| Gaussian::new(means.to_vec(), stds.to_vec(), d);
        let own = of(&means, &log_stds);
        let (dmeans, dstds) = own.push_back(&x, &c, &e);
        slopes(&means, &dmeans, |means| value(&of(means, &log_stds)));
        slopes(&log_stds, &dstds, |stds| value(&of(&means, stds)));
        let (dmeans, dstds) = own.push_back_divergence(&other, &c);
        slopes(&means, &dmeans, |means| divergence(&of(means, &log_stds)));
        slopes(&log_stds, &dstds, |stds| divergence(&of(&means, stds)));
        let from =
            |own: &Gaussian| (0..rows).map(|r| f64::from(c[r] * other.divergence(own, r))).sum::<f64>();
        let (dmeans, dstds) = own.push_back_divergence_from(&other, &c);
        slopes(&means, &dmeans, |means| from(&of(means, &log_stds)));
        slopes(&log_stds, &dstds, |stds| from(&of(&means, stds)));
        let (along, beside) = (noise(rows * d, "along"), noise(rows * d, "beside"));
        let shifted = |by: f32| {
            let moved =
                |x: &[f32], along: &[f32]| x.iter().zip(along).map(|(x, a)| x + by * a).collect::<Vec<_>>();
            of(&moved(&means, &along), &moved(&log_stds, &beside)).push_back_divergence_from(&own, &[1.0; 3])
        };
        let (high, low, found) = (shifted(3e-3), shifted(-3e-3), own.fisher(&along, &beside));
        for (found, high, low) in [(&found.0, &high.0, &low.0), (&found.1, &high.1, &low.1)] {
            for place in 0..rows * d {
                let expected = (high[place] - low[place]) / 6e-3;
                assert!((found[place] - expected).abs() < 5e-3 * (1.0 + expected.abs()));
            }
        }
        // By hand: KL(N(.5, .8) || N(0, 1)), and the entropy and density of the standard normal.
        let standard = Gaussian::new(vec![0.0], vec![0.0], 1);
        let shifted = Gaussian::new(vec![0.5], vec![0.8f32.ln()], 1);
        assert!((shifted.divergence(&standard, 0) - 0.168_143_55).abs() < 1e-6);
        assert!((standard.entropy(0) - 0.5 * (2.0 * PI * std::f32::consts::E).ln()).abs() < 1e-6);
        assert!((standard.logp(0, &[0.0]) + LOG_ROOT_2_PI).abs() < 1e-7);
    }

    #[test]
    fn squashed_slopes() {
        let (rows, d) = (3, 2);
        let (means, log_stds, noise_) =
            (noise(rows * d, "means"), noise(rows * d, "stds"), noise(rows * d, "noise"));
        let bounds = Bounds::new(&[-2.0, 0.0], &[2.0, 1.0]);
        let (c, e) = (noise(rows * d, "c"), noise(rows, "d"));
        let of = |means: &[f32], stds: &[f32]| {
            Squashed::new(&Gaussian::new(means.to_vec(), stds.to_vec(), d), &noise_, &bounds)
        };
        let value = |own: &Squashed| {
            let actions: f64 = own.actions.iter().zip(&c).map(|(a, c)| f64::from(a * c)).sum();
            actions + own.logps.iter().zip(&e).map(|(l, e)| f64::from(l * e)).sum::<f64>()
        };
        let (dmeans, dstds) = of(&means, &log_stds).push_back(&c, &e);
        slopes(&means, &dmeans, |means| value(&of(means, &log_stds)));
        slopes(&log_stds, &dstds, |stds| value(&of(&means, stds)));
    }

    #[test]
    fn densities_of_components_under_another_distribution() {
        let (rows, d) = (3, 2);
        let (means, log_stds, noise_) =
            (noise(rows * d, "means"), noise(rows * d, "stds"), noise(rows * d, "noise"));
        let bounds = Bounds::new(&[-2.0, 0.0], &[2.0, 1.0]);
        let other = Gaussian::new(noise(rows * d, "other means"), noise(rows * d, "other stds"), d);
        let (c, e, f) = (noise(rows * d, "c"), noise(rows * d, "e"), noise(rows * d, "f"));
        let gaussian = |means: &[f32], stds: &[f32]| Gaussian::new(means.to_vec(), stds.to_vec(), d);
        let own = gaussian(&means, &log_stds);
        let drawn = Squashed::new(&own, &noise_, &bounds);
        for (row, logp) in drawn.logps.iter().enumerate() {
            let sum: f32 = drawn.log_densities(&own)[row * d..][..d].iter().sum();
            assert!((sum - logp).abs() < 1e-5);
        }
        let value = |own: &Gaussian| {
            let drawn = Squashed::new(own, &noise_, &bounds);
            let sum = |x: &[f32], c: &[f32]| x.iter().zip(c).map(|(x, c)| f64::from(x * c)).sum::<f64>();
            sum(&drawn.actions, &c)
                + sum(&drawn.log_densities(own), &e)
                + sum(&drawn.log_densities(&other), &f)
        };
        let (dmeans, dstds) = drawn.push_back_parts(&c, &drawn.slopes_under(&other, &f), &e);
        slopes(&means, &dmeans, |means| value(&gaussian(means, &log_stds)));
        slopes(&log_stds, &dstds, |stds| value(&gaussian(&means, stds)));
    }

    /// The density of squashed actions integrates to one.
    #[test]
    fn squashed_densities_are_densities() {
        let (mean, log_std) = (0.3f32, -0.4f32);
        let gaussian = Gaussian::new(vec![mean], vec![log_std], 1);
        let bounds = Bounds::unit(1);
        let cells = 4000;
        let total: f64 = (0..cells)
            .map(|cell| {
                let action = (2.0 * (cell as f32 + 0.5) / cells as f32) - 1.0;
                let noise = (action.atanh() - mean) * (-log_std).exp();
                f64::from(Squashed::new(&gaussian, &[noise], &bounds).logps[0].exp()) * 2.0 / f64::from(cells)
            })
            .sum();
        assert!((total - 1.0).abs() < 1e-3, "{total}");
    }
}
