//! The regression oracle: for each action a logistic regression on its own rows, pulled to the window's positive rate.

use polo_run::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Batch;
use crate::{
    linear::dot,
    regression::{Regression, sigmoid},
};

/// What the oracle sees of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Features {
    /// A constant and the context.
    #[default]
    Lin,
    /// And all products of two of its numbers.
    Full,
}

impl Features {
    /// The constant 1 first.
    pub fn of(self, context: &[f64]) -> Vec<f64> {
        let mut features = vec![1.0];
        features.extend_from_slice(context);
        if self == Features::Full {
            for (at, x) in context.iter().enumerate() {
                features.extend(context[at..].iter().map(|y| x * y));
            }
        }
        features
    }

    /// How many there are, of a context of `width` numbers.
    pub fn size(self, width: usize) -> usize {
        match self {
            Features::Lin => 1 + width,
            Features::Full => 1 + width + width * (width + 1) / 2,
        }
    }
}

/// How the oracle is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitting {
    /// What it sees.
    pub features: Features,
    /// Pull of each coefficient to the centre.
    pub penalty: f64,
    /// Rows weigh 1 / (K p) and at most this; none: all alike.
    pub importance_clip: Option<f64>,
    /// Whether rewards of 0 weigh as much as those of 1 in all.
    pub balance_classes: bool,
    /// Share of the previous oracle in the centre.
    pub warm_start: f64,
}

/// f: probability of a reward of 1, sigmoid(theta_a . features).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oracle {
    /// What it sees.
    pub features: Features,
    /// theta, `[actions][features]`, the constant first.
    pub coefficients: Vec<Vec<f64>>,
}

/// Gradient at which, and Newton steps after which, a fit ends.
const GRADIENT: f64 = 1e-6;
const MOST_STEPS: usize = 30;

impl Oracle {
    /// The predicted reward of each of these actions.
    pub fn predict(&self, context: &[f64], actions: &[usize]) -> Vec<f64> {
        let features = self.features.of(context);
        actions.iter().map(|action| sigmoid(dot(&self.coefficients[*action], &features))).collect()
    }
}

impl Fitting {
    /// An oracle of `actions` actions fitted to these batches, which have a row.
    ///
    /// # Errors
    /// Numbers so far out that no finite fit is found.
    pub fn fit(&self, window: &[Batch], actions: usize, previous: Option<&Oracle>) -> Result<Oracle> {
        let mut weights: Vec<f64> = window.iter().flat_map(|batch| self.weights(batch)).collect();
        let rewards = || window.iter().flat_map(|batch| &batch.rewards).copied();
        let total: f64 = weights.iter().sum();
        let positive: f64 = weights.iter().zip(rewards()).map(|(w, r)| w * r).sum();
        if self.balance_classes && positive > 0.0 && positive < total {
            let (ones, zeros) = (0.5 * total / positive, 0.5 * total / (total - positive));
            weights.iter_mut().zip(rewards()).for_each(|(w, r)| *w *= r * ones + (1.0 - r) * zeros);
        }
        let rate = if self.balance_classes { 0.5 } else { (positive / total).clamp(0.01, 0.99) };

        let width = window.first().map_or(0, |batch| batch.requests.width);
        let size = self.features.size(width);
        let mut centre = vec![0.0; size];
        centre[0] = (rate / (1.0 - rate)).ln();
        let mut problems: Vec<Regression> = (0..actions)
            .map(|action| {
                let before = previous.map(|oracle| &oracle.coefficients[action]);
                let mixed = |(at, c): (usize, &f64)| {
                    before.map_or(*c, |old| (1.0 - self.warm_start) * c + self.warm_start * old[at])
                };
                Regression {
                    inputs: Vec::new(),
                    rewards: Vec::new(),
                    weights: Vec::new(),
                    penalties: vec![self.penalty; size],
                    centre: centre.iter().enumerate().map(mixed).collect(),
                    logistic: true,
                }
            })
            .collect();
        let rows = window.iter().flat_map(|batch| batch.requests.iter().zip(&batch.actions));
        for ((((context, _), action), reward), weight) in rows.zip(rewards()).zip(weights) {
            let problem = &mut problems[*action];
            problem.inputs.extend(self.features.of(context));
            problem.rewards.push(reward);
            problem.weights.push(weight);
        }
        let coefficients =
            problems.iter().map(|problem| problem.solve(GRADIENT, MOST_STEPS)).collect::<Option<Vec<_>>>();
        let coefficients = coefficients.ok_or_else(|| {
            Problem::input("the oracle cannot be fitted: numbers of contexts are far too large")
                .hint("scale them to about 1")
        })?;
        Ok(Oracle { features: self.features, coefficients })
    }

    fn weights(&self, batch: &Batch) -> Vec<f64> {
        let rows = batch.propensities.iter().zip(&batch.requests.admitted);
        rows.map(|(p, admitted)| {
            self.importance_clip.map_or(1.0, |most| (1.0 / (admitted.len() as f64 * p)).min(most))
        })
        .collect()
    }
}
