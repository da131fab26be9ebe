//! The normal distribution that a ridge regression leaves behind.

use polo_run::{Problem, Result};
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::{draw::normal, linear::Matrix};

/// A precision Σ = λ I + Σ w x xᵀ with its inverse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gaussian {
    precision: Matrix,
    inverse: Matrix,
    /// The lower factor of the precision, a function of it that is made when it is first asked for.
    #[serde(skip)]
    factor: Option<Matrix>,
}

impl Gaussian {
    /// Before any data: λ I.
    pub fn new(size: usize, lambda: f64) -> Self {
        Self {
            precision: Matrix::identity(size, lambda),
            inverse: Matrix::identity(size, 1.0 / lambda),
            factor: None,
        }
    }

    /// From a precision.
    ///
    /// # Errors
    /// One that is not positive definite.
    pub fn of(precision: Matrix) -> Result<Self> {
        let inverse = precision.inverse().ok_or_else(singular)?;
        Ok(Self { precision, inverse, factor: None })
    }

    /// Adds w x xᵀ (Sherman-Morrison).
    pub fn add(&mut self, x: &[f64], weight: f64) {
        self.precision.add_outer(x, weight);
        let scaled: Vec<f64> = x.iter().map(|x| x * weight.sqrt()).collect();
        self.inverse.update_inverse(&scaled);
        self.factor = None;
    }

    /// ‖x‖ in Σ⁻¹. Rounding may leave a hair below 0 under the root.
    pub fn norm(&self, x: &[f64]) -> f64 {
        self.inverse.quadratic(x).max(0.0).sqrt()
    }

    /// Σ⁻¹ x.
    pub fn solve(&self, x: &[f64]) -> Vec<f64> {
        self.inverse.times(x)
    }

    /// xᵀ Σ x.
    pub fn quadratic(&self, x: &[f64]) -> f64 {
        self.precision.quadratic(x)
    }

    /// A draw from N(0, scale² Σ⁻¹).
    ///
    /// # Errors
    /// A precision that rounding has ruined.
    pub fn noise(&mut self, scale: f64, rng: &mut impl Rng) -> Result<Vec<f64>> {
        if scale == 0.0 {
            return Ok(vec![0.0; self.precision.size]);
        }
        let factor = match self.factor.take() {
            Some(factor) => factor,
            None => self.precision.cholesky().ok_or_else(singular)?,
        };
        let standard: Vec<f64> = (0..factor.size).map(|_| scale * normal(rng)).collect();
        let draw = factor.solve_transposed_lower(&standard);
        self.factor = Some(factor);
        Ok(draw)
    }
}

fn singular() -> Problem {
    Problem::input("a covariance is no longer positive definite").place("method.lambda").hint("raise it")
}
