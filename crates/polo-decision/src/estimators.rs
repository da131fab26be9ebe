//! Off-policy estimators: what a policy π_e would have earned, from decisions that another policy took.
//!
//! Of row i are known the reward rᵢ, the probability pᵢ with which the logged action was taken, that with which π_e takes
//! it, and, for estimators with a model, q̂(xᵢ, aᵢ) and the model's value Σₐ π_e(a|xᵢ) q̂(xᵢ, a). With w = π_e(aᵢ|xᵢ) / pᵢ,
//! every estimator but replay is the mean over rows of
//!
//! ```text
//! termᵢ = valueᵢ + ŵᵢ (rᵢ - q̂ᵢ)              (value and q̂ are 0 without a model)
//!
//! IPS, DR            ŵ = min(w, λ)           SNIPS, SNDR   ŵ = w / mean(w), 0 if all w are
//! SWITCH-DR          ŵ = w 1{w <= λ}         DM            ŵ = 0
//! sub-Gaussian IPS, DR   ŵ = w / (1 - λ + λ w)
//! DRos               ŵ = λ w / (w² + λ)      (λ = ∞: w; λ = 0: 0)
//! ```
//!
//! as in the Open Bandit Pipeline (Saito et al. 2021, arXiv 2008.07146). Without bias are only IPS and DR with λ = ∞, DR
//! with a model of other rows ([`crate::reward_model`] fits such). MRDR is DR with a model fitted under
//! [`mrdr_weights`]. [`crate::intervals`] makes intervals of the terms.

use serde::{Deserialize, Serialize};

/// A change of importance weights against their variance, at the price of a bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weighting {
    /// min(w, λ), λ >= 0; with λ = ∞ the weights as they are.
    Clipped(f64),
    /// w / mean(w).
    SelfNormalised,
    /// w 1{w <= λ}.
    Switched(f64),
    /// λ w / (w² + λ), λ >= 0.
    Shrunk(f64),
    /// w / (1 - λ + λ w), λ in [0, 1].
    SubGaussian(f64),
}

impl Weighting {
    /// ŵ of every row.
    pub fn apply(self, weights: &[f64]) -> Vec<f64> {
        let each = |change: &dyn Fn(f64) -> f64| {
            // Rows that π_e never takes stay without weight, also where the formula is 0/0.
            weights.iter().map(|&w| if w == 0.0 { 0.0 } else { change(w) }).collect()
        };
        match self {
            Weighting::Clipped(most) => each(&|w| w.min(most)),
            Weighting::SelfNormalised => {
                let mean = mean(weights);
                each(&|w| w / mean)
            }
            Weighting::Switched(most) => each(&|w| if w <= most { w } else { 0.0 }),
            Weighting::Shrunk(f64::INFINITY) => weights.to_vec(),
            Weighting::Shrunk(lambda) => each(&|w| lambda * w / (w * w + lambda)),
            Weighting::SubGaussian(lambda) => each(&|w| w / (1.0 - lambda + lambda * w)),
        }
    }
}

/// An estimator of the value of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// Inverse propensity scores, weights clipped at λ (∞: not at all).
    Ips(f64),
    /// Self-normalised inverse propensity scores.
    Snips,
    /// Direct method: the model's value alone.
    Dm,
    /// Doubly robust, weights clipped at λ (∞: not at all).
    Dr(f64),
    /// Self-normalised doubly robust.
    Sndr,
    /// Doubly robust where w <= λ, the model's value elsewhere.
    SwitchDr(f64),
    /// Doubly robust with optimistic shrinkage λ.
    DrOs(f64),
    /// Sub-Gaussian inverse propensity scores, λ in [0, 1].
    SubGaussianIps(f64),
    /// Sub-Gaussian doubly robust, λ in [0, 1].
    SubGaussianDr(f64),
    /// Mean reward of the rows where a deterministic policy takes the logged action; 0 if there are none.
    Replay,
}

impl Estimator {
    /// How the estimator changes importance weights; none for the direct method and for replay.
    pub fn weighting(self) -> Option<Weighting> {
        Some(match self {
            Estimator::Ips(most) | Estimator::Dr(most) => Weighting::Clipped(most),
            Estimator::Snips | Estimator::Sndr => Weighting::SelfNormalised,
            Estimator::SwitchDr(most) => Weighting::Switched(most),
            Estimator::DrOs(lambda) => Weighting::Shrunk(lambda),
            Estimator::SubGaussianIps(lambda) | Estimator::SubGaussianDr(lambda) => {
                Weighting::SubGaussian(lambda)
            }
            Estimator::Dm | Estimator::Replay => return None,
        })
    }

    /// Whether it uses a model of rewards.
    pub fn needs_model(self) -> bool {
        !matches!(
            self,
            Estimator::Ips(_) | Estimator::Snips | Estimator::SubGaussianIps(_) | Estimator::Replay
        )
    }

    /// The same estimator with another λ; itself where it has none.
    #[must_use]
    pub fn with_lambda(self, lambda: f64) -> Self {
        match self {
            Estimator::Ips(_) => Estimator::Ips(lambda),
            Estimator::Dr(_) => Estimator::Dr(lambda),
            Estimator::SwitchDr(_) => Estimator::SwitchDr(lambda),
            Estimator::DrOs(_) => Estimator::DrOs(lambda),
            Estimator::SubGaussianIps(_) => Estimator::SubGaussianIps(lambda),
            Estimator::SubGaussianDr(_) => Estimator::SubGaussianDr(lambda),
            Estimator::Snips | Estimator::Dm | Estimator::Sndr | Estimator::Replay => self,
        }
    }

    /// λ, where there is one.
    pub fn lambda(self) -> Option<f64> {
        match self {
            Estimator::Ips(lambda)
            | Estimator::Dr(lambda)
            | Estimator::SwitchDr(lambda)
            | Estimator::DrOs(lambda)
            | Estimator::SubGaussianIps(lambda)
            | Estimator::SubGaussianDr(lambda) => Some(lambda),
            Estimator::Snips | Estimator::Dm | Estimator::Sndr | Estimator::Replay => None,
        }
    }

    /// The terms of all rows, whose mean is the estimate.
    pub fn terms(self, rows: &Rows) -> Vec<f64> {
        match (self, self.weighting()) {
            (Estimator::Dm, _) => rows.model_values.to_vec(),
            (_, None) => replay(rows.rewards, rows.target),
            (_, Some(weighting)) => {
                let weights = weighting.apply(&rows.weights());
                if self.needs_model() {
                    corrected(rows.model_values, &weights, rows.rewards, rows.fitted)
                } else {
                    weights.iter().zip(rows.rewards).map(|(w, r)| w * r).collect()
                }
            }
        }
    }

    /// The estimate: the mean of the terms.
    pub fn value(self, rows: &Rows) -> f64 {
        mean(&self.terms(rows))
    }
}

impl Estimator {
    /// What it is called, without its λ.
    pub fn name(self) -> &'static str {
        match self {
            Estimator::Ips(_) => "IPS",
            Estimator::Snips => "SNIPS",
            Estimator::Dm => "DM",
            Estimator::Dr(_) => "DR",
            Estimator::Sndr => "SNDR",
            Estimator::SwitchDr(_) => "SWITCH-DR",
            Estimator::DrOs(_) => "DRos",
            Estimator::SubGaussianIps(_) => "sub-Gaussian IPS",
            Estimator::SubGaussianDr(_) => "sub-Gaussian DR",
            Estimator::Replay => "replay",
        }
    }
}

/// A name with a λ in four digits, without the zeros at their end; one that is not finite is as none.
pub(crate) fn with_lambda(name: &str, lambda: Option<f64>) -> String {
    match lambda {
        Some(lambda) if lambda.is_finite() => {
            let rounded = format!("{lambda:.3e}").parse().unwrap_or(lambda);
            format!("{name}, λ {rounded}")
        }
        _ => name.to_owned(),
    }
}

impl std::fmt::Display for Estimator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&with_lambda(self.name(), self.lambda()))
    }
}

/// What estimators see of a log: slices of one number per row, those of the model empty where there is none.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Rewards r.
    pub rewards: &'a [f64],
    /// Probabilities p of the logged actions under the logging policy, in (0, 1].
    pub propensities: &'a [f64],
    /// Probabilities π_e(aᵢ|xᵢ) of the logged actions under the policy that is evaluated.
    pub target: &'a [f64],
    /// The model's values Σₐ π_e(a|xᵢ) q̂(xᵢ, a), see [`direct`].
    pub model_values: &'a [f64],
    /// The model's predictions q̂(xᵢ, aᵢ), see [`chosen`].
    pub fitted: &'a [f64],
}

impl Rows<'_> {
    /// Importance weights w = π_e(a|x) / p.
    pub fn weights(&self) -> Vec<f64> {
        self.target.iter().zip(self.propensities).map(|(e, p)| e / p).collect()
    }
}

/// Row by row, value + ŵ (r - q̂).
pub fn corrected(values: &[f64], weights: &[f64], rewards: &[f64], fitted: &[f64]) -> Vec<f64> {
    let residuals = rewards.iter().zip(fitted).map(|(r, q)| r - q);
    values.iter().zip(weights).zip(residuals).map(|((value, w), residual)| value + w * residual).collect()
}

/// Row by row, Σₐ π(a) q(a), of probabilities and predictions `[rows, actions]`.
pub fn direct(policy: &[f64], predictions: &[f64], actions: usize) -> Vec<f64> {
    let rows = policy.chunks_exact(actions).zip(predictions.chunks_exact(actions));
    rows.map(|(policy, predictions)| crate::linear::dot(policy, predictions)).collect()
}

/// Row by row, the number of the logged action, of numbers `[rows, actions]`.
pub fn chosen(numbers: &[f64], logged: &[usize], actions: usize) -> Vec<f64> {
    logged.iter().enumerate().map(|(row, action)| numbers[row * actions + action]).collect()
}

/// r where the policy takes the logged action with probability 1, over the share of such rows.
fn replay(rewards: &[f64], target: &[f64]) -> Vec<f64> {
    let agree: Vec<f64> = target.iter().map(|&e| f64::from(u8::from(e == 1.0))).collect();
    let weights = Weighting::SelfNormalised.apply(&agree);
    weights.iter().zip(rewards).map(|(w, r)| w * r).collect()
}

/// Weights of rows with which DR's model makes DR's variance least (Farajtabar et al. 2018): π_e(a|x) (1 - p) / p².
pub fn mrdr_weights(target: &[f64], propensities: &[f64]) -> Vec<f64> {
    target.iter().zip(propensities).map(|(e, p)| e * (1.0 - p) / (p * p)).collect()
}

/// Effective number of rows, (Σ ŵ)² / Σ ŵ²; 0 without weight.
pub fn effective_sample_size(weights: &[f64]) -> f64 {
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    if squares == 0.0 { 0.0 } else { weights.iter().sum::<f64>().powi(2) / squares }
}

/// Mean of a slice; NaN of an empty one.
pub(crate) fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

#[cfg(test)]
#[path = "estimators_tests.rs"]
mod tests;
