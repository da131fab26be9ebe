//! What an episode says about all pairs of a layer: inverses of covariances, estimates of Q, bonuses; and the policies
//! that follow from sums of them.

use polo_run::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layered::{Layered, Table};
use crate::linear::{Matrix, dot};

/// (γ I + Σ)⁻¹.
///
/// # Errors
/// A covariance that is too large or not finite.
pub fn regularised(mut covariance: Matrix, gamma: f64) -> Result<Matrix> {
    (0..covariance.size).for_each(|i| covariance.numbers[i * covariance.size + i] += gamma);
    covariance.inverse().ok_or_else(|| {
        Problem::input("a covariance of features cannot be inverted").hint("raise method.gamma")
    })
}

/// S⁺ by matrix geometric resampling: the mean over repetitions, each of fresh features φ_1 .. φ_N, of
/// c I + c Σ_n Π_{j <= n} (I - c (γ I + φ_j φ_jᵀ)) with c = 1/2.
pub fn geometric_resampling<'a>(
    size: usize,
    gamma: f64,
    repetitions: usize,
    steps: usize,
    mut fresh: impl FnMut() -> &'a [f64],
) -> Matrix {
    const C: f64 = 0.5;
    let mut sum = Matrix::identity(size, 0.0);
    for _ in 0..repetitions {
        let mut product = Matrix::identity(size, 1.0);
        sum.numbers.iter_mut().zip(&product.numbers).for_each(|(sum, x)| *sum += C * x);
        for _ in 0..steps {
            let features = fresh();
            for row in product.numbers.chunks_exact_mut(size) {
                let along = dot(row, features);
                row.iter_mut().zip(features).for_each(|(x, f)| *x -= C * (gamma * *x + along * f));
            }
            sum.numbers.iter_mut().zip(&product.numbers).for_each(|(sum, x)| *sum += C * x);
        }
    }
    sum.numbers.iter_mut().for_each(|x| *x /= repetitions as f64);
    sum
}

/// Steps of a repetition after which no more than the share `left` of the inverse is missing.
pub fn enough_steps(gamma: f64, left: f64) -> usize {
    (2.0 / gamma * (1.0 / (left * gamma)).ln()).ceil().max(1.0) as usize
}

/// X of all pairs: φᵀ S⁺ φ of the pair that was visited.
pub fn correlation(process: &Layered, h: usize, inverse: &Matrix, visited: usize) -> Vec<f64> {
    process.along(h, &inverse.times(process.features(h, visited)))
}

/// The standard estimate X L.
pub fn standard(x: &[f64], loss: f64) -> Vec<f64> {
    x.iter().map(|x| x * loss).collect()
}

/// The magnitude-reduced estimate X L - H (X)₋ + H m, of the same mean, with no loss above `most` = H.
pub fn magnitude_reduced(x: &[f64], loss: f64, most: f64, m: &[f64]) -> Vec<f64> {
    x.iter().zip(m).map(|(x, m)| x * loss - most * x.min(0.0) + most * m).collect()
}

/// m of all pairs: the mean of (X)₋ over visits that come as often as `often` says.
pub fn mean_negative_part(process: &Layered, h: usize, inverse: &Matrix, often: &[f64]) -> Vec<f64> {
    let mut found = vec![0.0; often.len()];
    for (visited, weight) in often.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let x = correlation(process, h, inverse, visited);
        found.iter_mut().zip(x).for_each(|(m, x)| *m += weight * x.min(0.0));
    }
    found
}

/// b of all pairs of a layer: β (‖φ(s,a)‖² + its mean under the policy), in the norm of S⁺.
pub fn bonus(process: &Layered, h: usize, inverse: &Matrix, policy: &[f64], beta: f64) -> Vec<f64> {
    let norms: Vec<f64> =
        (0..policy.len()).map(|pair| inverse.quadratic(process.features(h, pair))).collect();
    let states = norms.chunks_exact(process.actions).zip(policy.chunks_exact(process.actions));
    states
        .flat_map(|(norms, policy)| {
            let mean = dot(norms, policy);
            norms.iter().map(move |norm| beta * (norm + mean))
        })
        .collect()
}

/// B: bonuses to the end of the episode under the policy, dilated by 1 + 1/H from layer to layer.
pub fn dilated(process: &Layered, bonuses: &Table, policy: &Table) -> Table {
    let dilation = 1.0 + 1.0 / process.horizon() as f64;
    process.backwards(|h| bonuses[h].clone(), dilation, process.under(policy))
}

/// What keeps a policy from going where the sums of estimates are least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Regulariser {
    /// (1/η) Σ ln(1/p).
    LogBarrier,
    /// -(2/η) Σ √p.
    Tsallis,
    /// (1/η) Σ p ln p: exponential weights.
    Entropy,
}

impl Regulariser {
    /// argmin over the simplex of p·L plus this.
    pub fn policy(self, eta: f64, losses: &[f64]) -> Vec<f64> {
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        let scaled = losses.iter().map(|loss| eta * (loss - least));
        let weights: Vec<f64> = match self {
            Self::Entropy => scaled.map(|loss| (-loss).exp()).collect(),
            Self::LogBarrier => barrier(scaled.collect(), 1),
            Self::Tsallis => barrier(scaled.collect(), 2),
        };
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    }

    /// The policy in every state.
    pub fn table(self, eta: f64, actions: usize, losses: &Table) -> Table {
        let layer =
            |losses: &Vec<f64>| losses.chunks_exact(actions).flat_map(|row| self.policy(eta, row)).collect();
        losses.iter().map(layer).collect()
    }
}

/// p = (x + ν)^-power of sum 1, for x of which the least is 0.
fn barrier(x: Vec<f64>, power: i32) -> Vec<f64> {
    // The sum falls and is convex in ν, and is at least 1 at ν = 1: Newton's steps from there never pass the root.
    let mut nu = 1.0;
    for _ in 0..100 {
        let sum: f64 = x.iter().map(|x| (x + nu).powi(-power)).sum();
        let slope: f64 = x.iter().map(|x| f64::from(power) * (x + nu).powi(-power - 1)).sum();
        let step = (sum - 1.0) / slope;
        nu += step;
        if step.abs() <= 1e-15 * nu {
            break;
        }
    }
    x.iter().map(|x| (x + nu).powi(-power)).collect()
}

#[cfg(test)]
#[path = "estimates_tests.rs"]
mod tests;
