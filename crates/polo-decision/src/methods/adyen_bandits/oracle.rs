//! The regression oracle: for each action a logistic regression on its own rows, pulled to the window's positive rate; or
//! boosted trees, one model of context and action.
//!
//! Trees see the action as K columns of 0 and 1 beside the context, rather than K models their own rows each: an action
//! that a policy hardly plays has a handful of rows, of which a model of its own would make certainties, whereas one model
//! leaves it at what is known of all until its rows say otherwise. In the simulated stream, whose actions have nothing in
//! common, the greedy value after 3000 uniform requests is .903 with one model and .913 with one for each action; after 300,
//! .807 and .798 (5 seeds).
//!
//! What rewards are plausible, which elimination asks for, follows from the curvature H_a of an action's loss, in which
//! the excess loss is nearly quadratic:
//!
//! ```text
//! loss_a(theta) - loss_a(theta_a) <= beta   about where   |theta . x - theta_a . x| <= sqrt(2 beta x^T H_a^-1 x)
//! beta = mellowness ln(K n),   n rows of the window
//! ```

use polo_run::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Batch;
use crate::{
    linear::{Matrix, dot},
    regression::{Regression, sigmoid},
    trees::{Trees, TreesSettings},
};

/// What predicts rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Learner {
    /// A logistic regression for each action.
    #[default]
    Logistic,
    /// Gradient-boosted trees for all actions.
    Trees,
}

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
#[derive(Clone, Debug, PartialEq)]
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
    /// Grow trees in this way; none: logistic regressions.
    pub trees: Option<TreesSettings>,
    /// Say what is plausible, with this factor of beta.
    pub mellowness: Option<f64>,
}

/// f: probability of a reward of 1, sigmoid(theta_a . features), or what trees say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oracle {
    /// What it sees.
    pub features: Features,
    /// theta, `[actions][features]`, the constant first; none of trees.
    pub coefficients: Vec<Vec<f64>>,
    /// 2 beta H^-1 of each action, where elimination asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plausible: Vec<Matrix>,
    /// Trees on the features without the constant, and one column of 0 and 1 for each action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trees: Option<Trees>,
}

/// Gradient at which, and Newton steps after which, a fit ends.
const GRADIENT: f64 = 1e-6;
const MOST_STEPS: usize = 30;

impl Oracle {
    /// The predicted reward of each of these actions.
    pub fn predict(&self, context: &[f64], actions: &[usize]) -> Vec<f64> {
        let mut features = self.features.of(context);
        let Some(trees) = &self.trees else {
            return actions
                .iter()
                .map(|action| sigmoid(dot(&self.coefficients[*action], &features)))
                .collect();
        };
        let first = features.len();
        features.resize(1 + trees.width(), 0.0);
        let of = |action: &usize| {
            features[first + action] = 1.0;
            let predicted = trees.predict(&features[1..]);
            features[first + action] = 0.0;
            predicted
        };
        actions.iter().map(of).collect()
    }

    /// Which of these actions may be the best: those whose most plausible reward is no less than what some action earns at
    /// least. All of them where the oracle does not say what is plausible.
    pub fn survivors(&self, context: &[f64], actions: &[usize]) -> Vec<bool> {
        let features = self.features.of(context);
        let range = |action: &usize| {
            let score = dot(&self.coefficients[*action], &features);
            let width = self.plausible[*action].quadratic(&features).max(0.0).sqrt();
            (score - width, score + width)
        };
        if self.plausible.is_empty() {
            return vec![true; actions.len()];
        }
        // Scores, as the sigmoid keeps their order and may round their differences away.
        let ranges: Vec<(f64, f64)> = actions.iter().map(range).collect();
        let bar = ranges.iter().map(|(low, _)| *low).fold(f64::NEG_INFINITY, f64::max);
        ranges.into_iter().map(|(_, high)| high >= bar).collect()
    }
}

/// Numbers of a table of trees.
const MOST_NUMBERS: usize = 1 << 28;

impl Fitting {
    /// An oracle of `actions` actions fitted to these batches, which have a row; the seed is for trees.
    ///
    /// # Errors
    /// Numbers so far out that no finite fit is found; for trees, too many of them.
    pub fn fit(
        &self,
        window: &[Batch],
        actions: usize,
        previous: Option<&Oracle>,
        seed: u64,
    ) -> Result<Oracle> {
        let mut weights: Vec<f64> = window.iter().flat_map(|batch| self.weights(batch)).collect();
        let rewards = || window.iter().flat_map(|batch| &batch.rewards).copied();
        let total: f64 = weights.iter().sum();
        let positive: f64 = weights.iter().zip(rewards()).map(|(w, r)| w * r).sum();
        if self.balance_classes && positive > 0.0 && positive < total {
            let (ones, zeros) = (0.5 * total / positive, 0.5 * total / (total - positive));
            weights.iter_mut().zip(rewards()).for_each(|(w, r)| *w *= r * ones + (1.0 - r) * zeros);
        }
        if let Some(settings) = &self.trees {
            return self.grow(window, actions, &weights, settings, seed);
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
        let solve = || {
            let coefficients = problems
                .iter()
                .map(|problem| problem.solve(GRADIENT, MOST_STEPS))
                .collect::<Option<Vec<_>>>()?;
            let plausible = match self.mellowness {
                None => Some(Vec::new()),
                Some(mellowness) => {
                    let rows: usize = window.iter().map(|batch| batch.actions.len()).sum();
                    let excess = mellowness * ((actions * rows) as f64).ln();
                    let of = |(problem, theta): (&Regression, &Vec<f64>)| {
                        let mut matrix = problem.inverse_curvature(theta)?;
                        matrix.numbers.iter_mut().for_each(|number| *number *= 2.0 * excess);
                        Some(matrix)
                    };
                    problems.iter().zip(&coefficients).map(of).collect()
                }
            };
            Some(Oracle { features: self.features, coefficients, plausible: plausible?, trees: None })
        };
        solve().ok_or_else(|| {
            Problem::input("the oracle cannot be fitted: numbers of contexts are far too large")
                .hint("scale them to about 1")
        })
    }

    fn grow(
        &self,
        window: &[Batch],
        actions: usize,
        weights: &[f64],
        settings: &TreesSettings,
        seed: u64,
    ) -> Result<Oracle> {
        let first = self.features.size(window.first().map_or(0, |batch| batch.requests.width)) - 1;
        let (width, rows) = (first + actions, weights.len());
        if rows.saturating_mul(width) > MOST_NUMBERS {
            return Err(Problem::input(format!("{rows} rows of {width} numbers are too many for trees"))
                .hint("shorten method.window, or take method.oracle = \"logistic\""));
        }
        let mut inputs = vec![0.0; rows * width];
        let logged = window.iter().flat_map(|batch| batch.requests.iter().zip(&batch.actions));
        for (row, ((context, _), action)) in inputs.chunks_exact_mut(width).zip(logged) {
            row[..first].copy_from_slice(&self.features.of(context)[1..]);
            row[first + action] = 1.0;
        }
        let rewards: Vec<f64> = window.iter().flat_map(|batch| &batch.rewards).copied().collect();
        let trees = Trees::fit(&inputs, &rewards, weights, settings, true, seed)?;
        Ok(Oracle {
            features: self.features,
            coefficients: Vec::new(),
            plausible: Vec::new(),
            trees: Some(trees),
        })
    }

    fn weights(&self, batch: &Batch) -> Vec<f64> {
        let rows = batch.propensities.iter().zip(&batch.requests.admitted);
        rows.map(|(p, admitted)| {
            self.importance_clip.map_or(1.0, |most| (1.0 / (admitted.len() as f64 * p)).min(most))
        })
        .collect()
    }
}
