//! Running mean and variance, for observations and rewards whose scale nobody knows beforehand.

use serde::{Deserialize, Serialize};

/// Mean and variance of everything seen so far, number by number. It begins with mean 0, variance 1 and a count of 1e-4,
/// as common implementations do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Means.
    pub mean: Vec<f64>,
    /// Variances, of the population.
    pub variance: Vec<f64>,
    /// Rows seen, and the 1e-4 of the beginning.
    pub count: f64,
    /// Normalised numbers are cut to plus or minus this, if it is given.
    #[serde(default = "usual_cut")]
    pub cut: Option<f32>,
}

/// Added to variances before their root is taken.
const EPSILON: f64 = 1e-8;
/// Running numbers are cut to this: the first ones may be far out.
const MOST: f32 = 10.0;
/// Added to the deviations of a dataset, as the field's offline implementations do.
const STANDING: f64 = 1e-3;

fn usual_cut() -> Option<f32> {
    Some(MOST)
}

impl Running {
    /// Nothing seen of rows of so many numbers.
    pub fn new(size: usize) -> Self {
        Self { mean: vec![0.0; size], variance: vec![1.0; size], count: 1e-4, cut: usual_cut() }
    }

    /// (x - mean) / (deviation + 1e-3) over a dataset of so many rows, never cut.
    pub fn fixed(mean: Vec<f64>, deviation: Vec<f64>, rows: usize) -> Self {
        let variance = deviation.iter().map(|deviation| (deviation + STANDING).powi(2) - EPSILON).collect();
        Self { mean, variance, count: rows as f64, cut: None }
    }

    /// Takes in rows, `[rows, size]`.
    pub fn update(&mut self, rows: &[f32]) {
        let size = self.mean.len();
        let count = (rows.len() / size) as f64;
        if count == 0.0 {
            return;
        }
        for i in 0..size {
            let column = || rows.iter().skip(i).step_by(size).map(|&x| f64::from(x));
            let mean = column().sum::<f64>() / count;
            let variance = column().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let (delta, total) = (mean - self.mean[i], self.count + count);
            let squares = self.variance[i] * self.count + variance * count;
            self.variance[i] = (squares + delta * delta * self.count * count / total) / total;
            self.mean[i] += delta * count / total;
        }
        self.count += count;
    }

    /// Rows with mean 0 and variance 1, cut.
    pub fn normalise(&self, rows: &mut [f32]) {
        let size = self.mean.len();
        for row in rows.chunks_exact_mut(size) {
            for ((x, mean), variance) in row.iter_mut().zip(&self.mean).zip(&self.variance) {
                let z = (f64::from(*x) - mean) / (variance + EPSILON).sqrt();
                *x = self.cut(z);
            }
        }
    }

    /// A number over the standard deviation of column 0, cut; its mean stays.
    pub fn scale(&self, number: f32) -> f32 {
        self.cut(f64::from(number) / (self.variance[0] + EPSILON).sqrt())
    }

    fn cut(&self, z: f64) -> f32 {
        self.cut.map_or(z as f32, |most| (z as f32).clamp(-most, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_normalised_as_offline_implementations_do() {
        let fixed = Running::fixed(vec![1.0, -2.0], vec![2.0, 0.0], 3);
        let mut rows = [5.0, -2.0, 1.0, 3.0];
        fixed.normalise(&mut rows);
        for (found, expected) in rows.iter().zip([4.0 / 2.001, 0.0, 0.0, 5000.0]) {
            assert!((found - expected).abs() <= 3e-2 * expected / 5.0 + 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn batches_add_up_to_one() {
        let rows = [1.0f32, 10.0, 2.0, 20.0, 4.0, -30.0, 8.0, 5.0];
        let mut whole = Running::new(2);
        whole.update(&rows);
        let mut parts = Running::new(2);
        parts.update(&rows[..2]);
        parts.update(&rows[2..]);
        for i in 0..2 {
            assert!((whole.mean[i] - parts.mean[i]).abs() < 1e-9);
            assert!((whole.variance[i] - parts.variance[i]).abs() < 1e-7, "{whole:?} {parts:?}");
        }
        // The batch formula with a prior row of weight 1e-4, mean 0 and variance 1.
        let (n, prior) = (4.0, 1e-4);
        let mean = (1.0 + 2.0 + 4.0 + 8.0) / (n + prior);
        let second = (1.0 + 4.0 + 16.0 + 64.0 + prior) / (n + prior);
        assert!((whole.mean[0] - mean).abs() < 1e-9);
        assert!((whole.variance[0] - (second - mean * mean)).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_cut() {
        let mut running = Running::new(1);
        running.update(&[0.0, 2.0]);
        let mut rows = [1.0, 1e9, f32::from_bits(0xff7f_ffff)];
        running.normalise(&mut rows);
        assert!(rows[0].abs() < 1e-3 && rows[1..] == [10.0, -10.0], "{rows:?}");
        assert!((running.scale(1.0) - 1.0).abs() < 1e-3);
    }
}
