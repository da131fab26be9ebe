//! What is told of a generation beside its reward.

use polo_run::stats::mean;

/// O = mean |V_{g+1} - 2 V_g + V_{g-1}| / 2, of values generation by generation; none below three.
pub fn oscillation(values: &[f64]) -> Option<f64> {
    let bends: Vec<f64> = values.windows(3).map(|v| (v[2] - 2.0 * v[1] + v[0]).abs() / 2.0).collect();
    mean(&bends)
}

/// Autocorrelation at lag 1 of V_{g+1} - V_g about their mean; none below four values or where they do not vary.
pub fn autocorrelation(values: &[f64]) -> Option<f64> {
    if values.len() < 4 {
        return None;
    }
    let steps: Vec<f64> = values.windows(2).map(|v| v[1] - v[0]).collect();
    let centre = mean(&steps)?;
    let spread: f64 = steps.iter().map(|d| (d - centre).powi(2)).sum();
    let lagged: f64 = steps.windows(2).map(|d| (d[0] - centre) * (d[1] - centre)).sum();
    (spread > 0.0).then(|| lagged / spread)
}

const BINS: usize = 10;

/// Predictions beside what came of them.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    log_loss: f64,
    /// Rows, sum of predictions and sum of rewards, in bins of equal width.
    bins: [(f64, f64, f64); BINS],
}

impl Calibration {
    /// Takes a row in.
    pub fn add(&mut self, predicted: f64, reward: f64) {
        let safe = predicted.clamp(1e-12, 1.0 - 1e-12);
        self.log_loss -= reward * safe.ln() + (1.0 - reward) * (1.0 - safe).ln();
        let bin = &mut self.bins[((predicted * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1.0, bin.1 + predicted, bin.2 + reward);
    }

    /// Expected calibration error and mean log loss; none without rows.
    pub fn errors(&self) -> Option<(f64, f64)> {
        let rows: f64 = self.bins.iter().map(|bin| bin.0).sum();
        let apart: f64 = self.bins.iter().map(|(_, predicted, rewards)| (predicted - rewards).abs()).sum();
        (rows > 0.0).then(|| (apart / rows, self.log_loss / rows))
    }
}

/// - sum p ln p.
pub fn entropy(probabilities: &[f64]) -> f64 {
    -probabilities.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}
