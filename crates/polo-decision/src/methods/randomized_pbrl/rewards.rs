//! What is believed about rewards θ_r: from preferences through the logistic link, or, for the upper bound, from rewards.

use std::f64::consts::FRAC_2_SQRT_PI;

use polo_run::{
    Result,
    seed::{Seeds, unit},
};
use rand_chacha::rand_core::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ensembles::RewardEnsemble, gaussian::Gaussian, transitions};
use crate::{
    draw::categorical,
    linear::{Matrix, dot},
    regression::sigmoid,
    tabular::{Episode, Tabular},
};

/// Newton steps are no longer than this: undamped ones diverge where preferences are nearly separable.
const LONGEST_STEP: f64 = 2.0;
const MOST_STEPS: usize = 100;
/// As many preferences are refitted one by one; later ones every `refit_every`.
const FITTED_ONE_BY_ONE: usize = 50;
/// Moves of every particle when they are drawn anew, and their length: 0 stays, 1 is an independent proposal.
const MOVES: usize = 5;
const STRIDE: f64 = 0.4;

/// Preferences with their fit θ^ = argmax Σ log σ( c (2 o - 1) x·θ ) - λ/2 ‖θ‖², x = φ(τ¹) - φ(τ⁰).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preferences {
    /// c.
    link_scale: f64,
    /// λ.
    lambda: f64,
    /// Of each preference, x.
    pub differences: Vec<Vec<f64>>,
    /// Of each preference, whether τ¹ was preferred.
    pub outcomes: Vec<bool>,
    /// θ^.
    pub estimate: Vec<f64>,
}

impl Preferences {
    /// Before the first: θ^ = 0.
    pub fn new(size: usize, link_scale: f64, lambda: f64) -> Self {
        Self { link_scale, lambda, differences: Vec::new(), outcomes: Vec::new(), estimate: vec![0.0; size] }
    }

    /// log posterior density of θ under the prior N(0, I / λ), but for a constant.
    pub fn log_density(&self, theta: &[f64]) -> f64 {
        let likelihood = |(x, outcome): (&Vec<f64>, &bool)| self.log_likelihood(x, *outcome, theta);
        let data: f64 = self.differences.iter().zip(&self.outcomes).map(likelihood).sum();
        data - 0.5 * self.lambda * dot(theta, theta)
    }

    /// log σ( c (2 o - 1) x·θ ).
    fn log_likelihood(&self, x: &[f64], outcome: bool, theta: &[f64]) -> f64 {
        let margin = self.link_scale * dot(x, theta) * if outcome { 1.0 } else { -1.0 };
        margin.min(0.0) - (-margin.abs()).exp().ln_1p()
    }

    /// c Σ (o - σ(c x·θ)) x - λ θ.
    pub fn gradient(&self, theta: &[f64]) -> Vec<f64> {
        let mut gradient: Vec<f64> = theta.iter().map(|theta| -self.lambda * theta).collect();
        for (x, outcome) in self.differences.iter().zip(&self.outcomes) {
            let residual = f64::from(u8::from(*outcome)) - sigmoid(self.link_scale * dot(x, theta));
            gradient.iter_mut().zip(x).for_each(|(sum, x)| *sum += self.link_scale * residual * x);
        }
        gradient
    }

    /// c² σ(c x·θ) (1 - σ(c x·θ)).
    fn curvature(&self, x: &[f64], theta: &[f64]) -> f64 {
        let likely = sigmoid(self.link_scale * dot(x, theta));
        self.link_scale * self.link_scale * likely * (1.0 - likely)
    }

    /// λ I + c² Σ σ (1 - σ) x xᵀ.
    pub fn hessian(&self, theta: &[f64]) -> Matrix {
        let mut hessian = Matrix::identity(theta.len(), self.lambda);
        self.differences.iter().for_each(|x| hessian.add_outer(x, self.curvature(x, theta)));
        hessian
    }

    /// Adds a preference; whether it is time to fit again.
    fn push(&mut self, x: &[f64], outcome: bool, refit_every: usize) -> bool {
        self.differences.push(x.to_vec());
        self.outcomes.push(outcome);
        is_due(self.outcomes.len(), refit_every)
    }

    /// Damped Newton from the last estimate.
    pub fn fit(&mut self) {
        let mut density = self.log_density(&self.estimate);
        for _ in 0..MOST_STEPS {
            let step = self.hessian(&self.estimate).solve(&self.gradient(&self.estimate));
            let length = dot(&step, &step).sqrt();
            let mut scale = (LONGEST_STEP / length.max(LONGEST_STEP)).min(1.0);
            let taken = (0..40).find_map(|_| {
                let theta: Vec<f64> =
                    self.estimate.iter().zip(&step).map(|(at, step)| at + scale * step).collect();
                let found = self.log_density(&theta);
                scale *= 0.5;
                (found > density).then_some((theta, found))
            });
            // No step that rises: the top, to rounding.
            let Some((theta, found)) = taken else { return };
            (self.estimate, density) = (theta, found);
            if length < 1e-8 {
                return;
            }
        }
    }
}

/// Whether it is time to fit again after as many preferences.
fn is_due(count: usize, refit_every: usize) -> bool {
    count <= FITTED_ONE_BY_ONE || count.is_multiple_of(refit_every)
}

/// E |v - v'| over two independent draws from values with weights of sum 1, exact: with values in order, each is weighed
/// against those below.
fn spread(mut values: Vec<(f64, f64)>) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut mass, mut sum, mut total) = (0.0, 0.0, 0.0);
    for (value, weight) in values {
        total += weight * (value * mass - sum);
        mass += weight;
        sum += weight * value;
    }
    2.0 * total
}

/// A set of reward vectors that stands for the posterior.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Particles {
    thetas: Vec<Vec<f64>>,
    log_weights: Vec<f64>,
    /// How often they have been drawn anew.
    renewals: u64,
}

impl Particles {
    fn weights(&self) -> Vec<f64> {
        let most = self.log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let raw: Vec<f64> = self.log_weights.iter().map(|weight| (weight - most).exp()).collect();
        let sum: f64 = raw.iter().sum();
        raw.iter().map(|weight| weight / sum).collect()
    }

    /// E |x·θ - x·θ'| over two independent draws.
    fn disagreement(&self, x: &[f64]) -> f64 {
        spread(self.thetas.iter().map(|theta| dot(x, theta)).zip(self.weights()).collect())
    }

    fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.thetas[0].len()];
        for (theta, weight) in self.thetas.iter().zip(self.weights()) {
            mean.iter_mut().zip(theta).for_each(|(mean, theta)| *mean += weight * theta);
        }
        mean
    }

    /// Bayes' rule for the newest preference. Where few particles carry the weight, they are drawn anew and moved by
    /// Metropolis-Hastings steps that leave the posterior as it is: proposals θ^ + √(1 - b²)(θ - θ^) + b N(0, Hessian⁻¹) would
    /// leave the Laplace approximation as it is, and are accepted by how far the posterior differs from it.
    fn learn(&mut self, preferences: &mut Preferences, seeds: &Seeds) -> Result<()> {
        let (Some(x), Some(outcome)) = (preferences.differences.last(), preferences.outcomes.last()) else {
            return Ok(());
        };
        for (theta, weight) in self.thetas.iter().zip(&mut self.log_weights) {
            *weight += preferences.log_likelihood(x, *outcome, theta);
        }
        let weights = self.weights();
        let effective = 1.0 / dot(&weights, &weights);
        if effective >= 0.5 * weights.len() as f64 {
            return Ok(());
        }
        preferences.fit();
        let centre = &preferences.estimate;
        let mut laplace = Gaussian::of(preferences.hessian(centre))?;
        let mut rng = seeds.rng("particles", self.renewals);
        self.renewals += 1;
        let excess = |theta: &[f64], laplace: &Gaussian| {
            let off: Vec<f64> = theta.iter().zip(centre).map(|(theta, centre)| theta - centre).collect();
            preferences.log_density(theta) + 0.5 * laplace.quadratic(&off)
        };
        let mut drawn = Vec::with_capacity(weights.len());
        for _ in 0..weights.len() {
            let mut theta = self.thetas[categorical(&weights, &mut rng)].clone();
            let mut level = excess(&theta, &laplace);
            for _ in 0..MOVES {
                let noise = laplace.noise(STRIDE, &mut rng)?;
                let keep = (1.0 - STRIDE * STRIDE).sqrt();
                let moved: Vec<f64> =
                    (0..theta.len()).map(|i| centre[i] + keep * (theta[i] - centre[i]) + noise[i]).collect();
                let found = excess(&moved, &laplace);
                if unit(&mut rng).ln() < found - level {
                    (theta, level) = (moved, found);
                }
            }
            drawn.push(theta);
        }
        self.thetas = drawn;
        self.log_weights.fill(0.0);
        Ok(())
    }
}

/// How the posterior of rewards is represented in `pbts`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Posterior {
    /// A normal distribution around the most likely rewards, with the curvature there.
    #[default]
    Laplace,
    /// A set of weighted reward vectors, moved by Metropolis-Hastings steps when few carry the weight.
    Particles,
    /// Small networks, each fitted on preferences of its own weights.
    Ensemble,
}

/// What is believed about rewards. Their coordinates are those of θ, `[H · d]`, or, in an ensemble, of the rewards of all
/// pairs themselves, `[H · S · A]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rewards {
    /// PR-LSVI: N(θ^, σ² Σ⁻¹) with Σ = λ I + Σ x xᵀ of the preferences.
    Perturbed {
        /// θ^ and its data.
        preferences: Preferences,
        /// Σ.
        covariance: Gaussian,
    },
    /// Laplace approximation: N(θ^, Hessian⁻¹).
    Laplace {
        /// θ^ and its data.
        preferences: Preferences,
        /// The curvature of the log posterior at θ^, negated.
        hessian: Gaussian,
    },
    /// A particle filter.
    Particles {
        /// The data, and θ^ of the last renewal.
        preferences: Preferences,
        /// The posterior.
        particles: Particles,
    },
    /// Networks.
    Ensemble(RewardEnsemble),
    /// Rewards that are seen: N(θ^, σ² Σ⁻¹) of ridge regression.
    Seen {
        /// Σ r φ.
        sum: Vec<f64>,
        /// λ I + Σ φ φᵀ.
        covariance: Gaussian,
    },
}

impl Rewards {
    /// Particles before the first preference, from the prior N(0, I / λ).
    ///
    /// # Errors
    /// None for λ > 0.
    pub fn particles(preferences: Preferences, count: usize, seeds: &Seeds) -> Result<Self> {
        let mut rng = seeds.rng("prior", 0);
        let mut prior = Gaussian::new(preferences.estimate.len(), preferences.lambda);
        let thetas = (0..count).map(|_| prior.noise(1.0, &mut rng)).collect::<Result<Vec<_>>>()?;
        let particles = Particles { thetas, log_weights: vec![0.0; count], renewals: 0 };
        Ok(Self::Particles { preferences, particles })
    }

    /// How much more of every coordinate τ¹ has than τ⁰.
    pub fn difference(&self, process: &Tabular, episodes: &[Episode; 2]) -> Vec<f64> {
        let [zero, one] = episodes.each_ref().map(|episode| match self {
            Self::Ensemble(_) => process.visits(episode),
            _ => process.stacked(episode),
        });
        one.iter().zip(&zero).map(|(one, zero)| one - zero).collect()
    }

    /// Rewards of all pairs, `[H][S · A]`, from coordinates.
    pub fn by_pair(&self, process: &Tabular, coordinates: &[f64]) -> Vec<Vec<f64>> {
        match self {
            Self::Ensemble(_) => coordinates.chunks_exact(process.pairs()).map(<[f64]>::to_vec).collect(),
            _ => (0..process.horizon).map(|h| transitions::rewards(process, coordinates, h)).collect(),
        }
    }

    /// Its centre: θ^, or the mean of particles or members.
    pub fn centre(&self) -> Vec<f64> {
        match self {
            Self::Perturbed { preferences, .. } | Self::Laplace { preferences, .. } => {
                preferences.estimate.clone()
            }
            Self::Particles { particles, .. } => particles.mean(),
            Self::Ensemble(ensemble) => ensemble.mean(),
            Self::Seen { sum, covariance } => covariance.solve(sum),
        }
    }

    /// One draw for all steps of a round. `sigma` scales the noise of the regressions.
    ///
    /// # Errors
    /// A covariance that rounding has ruined.
    pub fn draw(&mut self, sigma: f64, rng: &mut impl Rng) -> Result<Vec<f64>> {
        let noise = match self {
            Self::Particles { particles, .. } => {
                return Ok(particles.thetas[categorical(&particles.weights(), rng)].clone());
            }
            Self::Ensemble(ensemble) => return Ok(ensemble.draw(rng)),
            Self::Perturbed { covariance, .. } | Self::Seen { covariance, .. } => {
                covariance.noise(sigma, rng)?
            }
            Self::Laplace { hessian, .. } => hessian.noise(1.0, rng)?,
        };
        Ok(self.centre().iter().zip(noise).map(|(centre, noise)| centre + noise).collect())
    }

    /// E |(θ - θ')·x| over two independent draws: 2/√π σ ‖x‖ in Σ⁻¹ of a normal distribution, the mean over all pairs of
    /// different members of an ensemble.
    pub fn disagreement(&self, sigma: f64, x: &[f64]) -> f64 {
        match self {
            Self::Perturbed { covariance, .. } | Self::Seen { covariance, .. } => {
                FRAC_2_SQRT_PI * sigma * covariance.norm(x)
            }
            Self::Laplace { hessian, .. } => FRAC_2_SQRT_PI * hessian.norm(x),
            Self::Particles { particles, .. } => particles.disagreement(x),
            Self::Ensemble(ensemble) => {
                let margins = ensemble.margins(x);
                let count = margins.len() as f64;
                // Members are draws themselves: one is not weighed against itself.
                spread(margins.into_iter().map(|margin| (margin, 1.0 / count)).collect()) * count
                    / (count - 1.0)
            }
        }
    }

    /// Learns from a preference for τ¹ (`outcome`) or τ⁰.
    ///
    /// # Errors
    /// A covariance that rounding has ruined.
    pub fn prefer(
        &mut self,
        process: &Tabular,
        x: &[f64],
        outcome: bool,
        refit_every: usize,
        seeds: &Seeds,
    ) -> Result<()> {
        match self {
            Self::Perturbed { preferences, covariance } => {
                covariance.add(x, 1.0);
                if preferences.push(x, outcome, refit_every) {
                    preferences.fit();
                }
            }
            Self::Laplace { preferences, hessian } => {
                if preferences.push(x, outcome, refit_every) {
                    preferences.fit();
                    *hessian = Gaussian::of(preferences.hessian(&preferences.estimate))?;
                } else {
                    hessian.add(x, preferences.curvature(x, &preferences.estimate));
                }
            }
            Self::Particles { preferences, particles } => {
                preferences.push(x, outcome, refit_every);
                particles.learn(preferences, seeds)?;
            }
            Self::Ensemble(ensemble) => {
                ensemble.push(x, outcome, seeds);
                if is_due(ensemble.preferences(), refit_every) {
                    ensemble.fit(process);
                }
            }
            Self::Seen { .. } => {}
        }
        Ok(())
    }

    /// Learns from a reward that was seen; only ridge regression does.
    pub fn see(&mut self, features: &[f64], reward: f64) {
        if let Self::Seen { sum, covariance } = self {
            sum.iter_mut().zip(features).for_each(|(sum, x)| *sum += reward * x);
            covariance.add(features, 1.0);
        }
    }

    /// Preferences so far.
    pub fn preferences(&self) -> Option<&Preferences> {
        match self {
            Self::Perturbed { preferences, .. }
            | Self::Laplace { preferences, .. }
            | Self::Particles { preferences, .. } => Some(preferences),
            Self::Ensemble(_) | Self::Seen { .. } => None,
        }
    }
}
