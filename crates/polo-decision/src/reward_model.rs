//! Models of rewards q̂(x, a) for [`crate::estimators`], fitted to the log itself: predictions for a row come from a fit to
//! other rows (cross-fitting), without which doubly robust estimators lose their freedom from bias.

use polo_run::{Problem, Result, seed::Seeds};
use serde::{Deserialize, Serialize};

use crate::{
    estimators::{chosen, mrdr_weights},
    linear::{Matrix, dot},
    logged::{Log, Policy},
    regression::{Regression, sigmoid},
};

/// What predicts a reward from context and action. Linear models see the context's numbers, those of the action (1 for
/// the action itself and 0 for all others, unless the actions have features) and a constant, which no penalty holds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardModel {
    /// The mean reward.
    Constant,
    /// For each action (Σ r + `rewards`) / (n + `rows`): its mean reward, as if `rows` more rows with the sum of rewards
    /// `rewards` were there. An action without any is given the mean reward.
    PerAction {
        /// Sum of rewards that is added.
        rewards: f64,
        /// Number of rows that is added.
        rows: f64,
    },
    /// Linear, least Σ (r - q̂)² + `penalty` |β|², `penalty` > 0.
    Ridge {
        /// Pull to 0.
        penalty: f64,
    },
    /// Logistic, least cross-entropy Σ + `penalty` |β|² / 2, `penalty` > 0, by damped Newton steps; rewards in [0, 1].
    Logistic {
        /// Pull to 0; the inverse of C elsewhere.
        penalty: f64,
    },
}

/// How much a row counts in the fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowWeights {
    /// All alike.
    #[default]
    Equal,
    /// By importance, π_e(a|x) / p.
    Importance,
    /// Those of MRDR, π_e(a|x) (1 - p) / p².
    Mrdr,
}

/// How predictions for a log are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitting {
    /// The model.
    pub model: RewardModel,
    /// How much a row counts.
    pub row_weights: RowWeights,
    /// Parts of the log; those of one are predicted from the others. 1: all from all, which costs estimators with a
    /// model their freedom from bias.
    pub folds: usize,
}

impl Fitting {
    /// Predictions for every row and action, `[rows, actions]`. `action_features` are `[actions, any]`; empty: one number
    /// for each action. How rows fall into parts is a function of the seeds.
    ///
    /// # Errors
    /// No part or more than rows; a penalty that is not positive; rewards outside [0, 1] for a logistic model; features
    /// of another number of actions; row weights under which nothing can be fitted.
    pub fn predictions(
        &self,
        log: &Log,
        policy: &Policy,
        action_features: &[f64],
        seeds: &Seeds,
    ) -> Result<Vec<f64>> {
        let (rows, actions) = (log.len(), policy.action_count);
        if self.folds == 0 || self.folds > rows {
            return Err(Problem::usage(format!("{} parts of {rows} rows for the reward model", self.folds)));
        }
        if !action_features.len().is_multiple_of(actions) {
            let text = format!("{} numbers are no features of {actions} actions", action_features.len());
            return Err(Problem::input(text));
        }
        let target = chosen(&policy.probabilities, &log.actions, actions);
        let weights = match self.row_weights {
            RowWeights::Equal => vec![1.0; rows],
            RowWeights::Importance => target.iter().zip(&log.propensities).map(|(e, p)| e / p).collect(),
            RowWeights::Mrdr => mrdr_weights(&target, &log.propensities),
        };
        let one_hot = Matrix::identity(actions, 1.0).numbers;
        let features = if action_features.is_empty() { &one_hot } else { action_features };
        let design = Design { log, actions, features, weights };

        let mut predictions = vec![0.0; rows * actions];
        let mut fill = |places: &[usize], fit: &Fit| {
            for &row in places {
                fit.predict(log.context(row), &mut predictions[row * actions..][..actions]);
            }
        };
        let order = seeds.shuffled(rows, "folds", 0);
        if self.folds == 1 {
            fill(&order, &design.fit(self.model, &order)?);
            return Ok(predictions);
        }
        for fold in 0..self.folds {
            let (start, end) = (fold * rows / self.folds, (fold + 1) * rows / self.folds);
            let others: Vec<usize> = order[..start].iter().chain(&order[end..]).copied().collect();
            fill(&order[start..end], &design.fit(self.model, &others)?);
        }
        Ok(predictions)
    }
}

/// A fitted model: link(x · `context` + `by_action`), with the constant in `by_action`.
struct Fit {
    context: Vec<f64>,
    by_action: Vec<f64>,
    logistic: bool,
}

impl Fit {
    fn predict(&self, context: &[f64], into: &mut [f64]) {
        let shared = if self.context.is_empty() { 0.0 } else { dot(&self.context, context) };
        for (prediction, own) in into.iter_mut().zip(&self.by_action) {
            *prediction = if self.logistic { sigmoid(shared + own) } else { shared + own };
        }
    }
}

/// What models are fitted to.
struct Design<'a> {
    log: &'a Log,
    actions: usize,
    /// `[actions, any]`.
    features: &'a [f64],
    /// `[rows]`.
    weights: Vec<f64>,
}

impl Design<'_> {
    fn fit(&self, model: RewardModel, rows: &[usize]) -> Result<Fit> {
        let by_action = match model {
            RewardModel::Constant => vec![self.mean(rows)?; self.actions],
            RewardModel::PerAction { rewards, rows: more } => {
                let (mut sums, mut counts) = (vec![rewards; self.actions], vec![more; self.actions]);
                for &row in rows {
                    let (action, weight) = (self.log.actions[row], self.weights[row]);
                    sums[action] += weight * self.log.rewards[row];
                    counts[action] += weight;
                }
                let overall = if counts.iter().all(|&n| n > 0.0) { 0.0 } else { self.mean(rows)? };
                sums.iter().zip(&counts).map(|(sum, &n)| if n > 0.0 { sum / n } else { overall }).collect()
            }
            RewardModel::Ridge { penalty } | RewardModel::Logistic { penalty } => {
                if penalty.is_nan() || penalty <= 0.0 {
                    return Err(Problem::usage(format!("the penalty must be above 0, not {penalty}")));
                }
                let logistic = matches!(model, RewardModel::Logistic { .. });
                return self.linear(rows, penalty, logistic);
            }
        };
        Ok(Fit { context: Vec::new(), by_action, logistic: false })
    }

    fn mean(&self, rows: &[usize]) -> Result<f64> {
        let total: f64 = rows.iter().map(|&row| self.weights[row]).sum();
        let sum: f64 = rows.iter().map(|&row| self.weights[row] * self.log.rewards[row]).sum();
        if total > 0.0 { Ok(sum / total) } else { Err(weightless()) }
    }

    fn linear(&self, rows: &[usize], penalty: f64, logistic: bool) -> Result<Fit> {
        let mean = self.mean(rows)?;
        let rewards: Vec<f64> = rows.iter().map(|&row| self.log.rewards[row]).collect();
        if let Some(reward) = rewards.iter().find(|r| logistic && !(0.0..=1.0).contains(*r)) {
            return Err(Problem::input(format!("a logistic model needs rewards in [0, 1], not {reward}"))
                .hint("a ridge model takes any"));
        }
        let mut heavy = rows.iter().filter(|row| self.weights[**row] > 0.0);
        if heavy.all(|row| self.log.rewards[*row] == mean) {
            // A logistic model's constant would be infinite.
            return Ok(Fit { context: Vec::new(), by_action: vec![mean; self.actions], logistic: false });
        }
        let (width, own) = (self.log.width, self.features.len() / self.actions);
        let size = width + own + 1;
        let mut inputs = Vec::with_capacity(rows.len() * size);
        for &row in rows {
            inputs.extend_from_slice(self.log.context(row));
            inputs.extend_from_slice(&self.features[self.log.actions[row] * own..][..own]);
            inputs.push(1.0);
        }
        let weights: Vec<f64> = rows.iter().map(|&row| self.weights[row]).collect();
        let mut penalties = vec![penalty; size];
        penalties[size - 1] = 0.0;
        let problem = Regression { inputs, rewards, weights, penalties, centre: vec![0.0; size], logistic };
        // Steps are cheap: on to the last bits.
        let beta = problem.solve(0.0, 100).ok_or_else(weightless)?;
        let by_action = self
            .features
            .chunks_exact(own)
            .map(|features| dot(features, &beta[width..width + own]) + beta[size - 1])
            .collect();
        Ok(Fit { context: beta[..width].to_vec(), by_action, logistic })
    }
}

fn weightless() -> Problem {
    Problem::input("the reward model cannot be fitted: the rows have no weight, or far too different ones")
        .hint("let all rows count alike, or take a simpler model")
}

#[cfg(test)]
#[path = "reward_model_tests.rs"]
mod tests;
