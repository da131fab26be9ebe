//! Backward value iteration over the steps of logged episodes, one step at a time.

use polo_run::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    data::Dataset,
    duals::{
        Regression, chi_square, kullback_leibler, kullback_leibler_ball, total_variation,
        total_variation_ball,
    },
    worlds::Decide,
};
use crate::linear::{Matrix, dot};

/// Which method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// The method, with total variation.
    #[default]
    R2pviTv,
    /// The method, with KL.
    R2pviKl,
    /// The method, with chi-square.
    R2pviChi2,
    /// The method with total variation and regressions weighted by the values' variance, from a first run without.
    VaR2pviTv,
    /// Pessimistic, not robust.
    Pevi,
    /// Neither pessimistic nor robust: least-squares value iteration.
    Lsvi,
    /// Constrained: a total-variation ball around each factor.
    Drpvi,
    /// DRPVI with variance weights.
    VaDrpvi,
    /// Constrained: a KL ball around each factor.
    DrviL,
}

impl Algorithm {
    /// What estimates the variances of the second run, if there are two.
    fn first_run(self) -> Option<Self> {
        match self {
            Self::VaR2pviTv => Some(Self::R2pviTv),
            Self::VaDrpvi => Some(Self::Drpvi),
            _ => None,
        }
    }

    /// Runs over the data.
    pub fn runs(self) -> usize {
        1 + usize::from(self.first_run().is_some())
    }
}

/// How much an uncertain action is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Penalty {
    /// β Σᵢ φᵢ √(Λ⁻¹)ᵢᵢ, the paper's.
    Sum,
    /// β √(Σᵢ φᵢ² (Λ⁻¹)ᵢᵢ), that of the paper's code.
    Root,
    /// β √(φᵀ Λ⁻¹ φ), that of PEVI.
    Norm,
}

/// What stands for the least value of a state under total variation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Least {
    /// 0, the value of a fail state.
    Zero,
    /// The least over the data, as in the paper's code.
    Data,
}

/// How values are iterated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Which method.
    pub algorithm: Algorithm,
    /// λ, in units of value.
    pub lambda: f64,
    /// ρ of a ball.
    pub radius: f64,
    /// γ.
    pub ridge: f64,
    /// β.
    pub beta: f64,
    /// Its form.
    pub penalty: Penalty,
    /// Whether no Q is below 0.
    pub clip_low: bool,
    /// Whether exponentials are fitted as differences from 1.
    pub shift: bool,
    /// The least value; unset: 0 where the data have a fail state.
    pub least: Option<Least>,
}

/// Q of a step: φ·w less a penalty, within 0 and a cap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// w, `[d]`.
    pub weights: Vec<f64>,
    /// Λ⁻¹, `[d, d]`.
    pub inverse: Matrix,
    /// √(Λ⁻¹)ᵢᵢ, `[d]`.
    pub roots: Vec<f64>,
    /// β of the step.
    pub beta: f64,
    /// Form of the penalty.
    pub penalty: Penalty,
    /// Lower end of Q, if it is cut there.
    pub low: Option<f64>,
    /// Upper end of Q.
    pub cap: f64,
}

impl Model {
    /// Γ of an action.
    pub fn penalty(&self, features: &[f64]) -> f64 {
        self.beta
            * match self.penalty {
                Penalty::Sum => dot(features, &self.roots),
                Penalty::Root => {
                    features.iter().zip(&self.roots).map(|(x, root)| (x * root).powi(2)).sum::<f64>().sqrt()
                }
                Penalty::Norm => self.inverse.quadratic(features).max(0.0).sqrt(),
            }
    }

    /// Q of an action.
    pub fn q(&self, features: &[f64]) -> f64 {
        let q = (dot(features, &self.weights) - self.penalty(features)).min(self.cap);
        self.low.map_or(q, |low| q.max(low))
    }

    /// The largest Q of actions `[actions, d]`.
    pub fn value(&self, actions: &[f64]) -> f64 {
        actions.chunks_exact(self.weights.len()).map(|row| self.q(row)).fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Within this, two actions are worth the same.
const TIE: f64 = 1e-12;

/// The models of all steps, first step first.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a>(pub &'a [Model]);

impl Decide for Policy<'_> {
    fn best(&self, h: usize, actions: &[f64]) -> Vec<usize> {
        let model = &self.0[h];
        let q: Vec<f64> = actions.chunks_exact(model.weights.len()).map(|row| model.q(row)).collect();
        let most = q.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (0..q.len()).filter(|at| q[*at] >= most - TIE).collect()
    }

    fn goes_on(&self, h: usize, features: &[f64], payoff: f64) -> bool {
        self.0[h].q(features) >= payoff
    }
}

/// How far the iteration has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Models of the first of two runs, last step first.
    pub first: Vec<Model>,
    /// Models of the run that counts, last step first.
    pub models: Vec<Model>,
}

/// What a backward step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Mean value of the states that followed.
    pub value: f64,
    /// Mean penalty of what was done.
    pub penalty: f64,
}

impl Progress {
    /// Whether every step has its model.
    pub fn complete(&self, data: &Dataset) -> bool {
        self.models.len() == data.steps.len()
    }

    /// The models of all steps, first step first.
    pub fn policy(&self) -> Vec<Model> {
        self.models.iter().rev().cloned().collect()
    }

    /// Takes the next step backwards.
    ///
    /// # Errors
    /// Features whose matrix cannot be inverted.
    pub fn step(&mut self, data: &Dataset, rule: &Rule) -> Result<Stepped> {
        let horizon = data.steps.len();
        if let Some(algorithm) = rule.algorithm.first_run()
            && self.first.len() < horizon
        {
            let rule = Rule { algorithm, ..*rule };
            let (model, found) =
                backward(data, &rule, horizon - 1 - self.first.len(), self.first.last(), None)?;
            self.first.push(model);
            return Ok(found);
        }
        let h = horizon - 1 - self.models.len();
        let known = self.models.len().checked_sub(1).and_then(|before| self.first.get(before));
        let (model, found) = backward(data, rule, h, self.models.last(), known)?;
        self.models.push(model);
        Ok(found)
    }
}

/// Values of the states that followed step h, `[rows]`.
fn values(data: &Dataset, h: usize, next: Option<&Model>) -> Vec<f64> {
    let rows = &data.steps[h].next;
    let Some(model) = next else { return vec![0.0; rows.len()] };
    let value = |next: &super::data::Next| {
        let going_on = if next.actions.is_empty() { 0.0 } else { model.value(&next.actions) };
        next.stop.map_or(going_on, |stop| stop.max(going_on))
    };
    rows.iter().map(value).collect()
}

fn backward(
    data: &Dataset,
    rule: &Rule,
    h: usize,
    next: Option<&Model>,
    first: Option<&Model>,
) -> Result<(Model, Stepped)> {
    use Algorithm::*;
    let step = &data.steps[h];
    let singular = || {
        Problem::input(format!("the features of step {h} give no matrix that can be inverted"))
            .hint("raise method.ridge, or scale the features down")
    };
    let fit = |variances: Option<&[f64]>| {
        Regression::new(&step.features, data.size, variances, rule.ridge).ok_or_else(singular)
    };
    let most = data.caps.iter().copied().fold(0.0, f64::max);
    let mut regression = fit(None)?;
    if let Some(first) = first {
        let values = values(data, h, Some(first));
        let means = regression.fit(values.iter().copied());
        let squares = regression.fit(values.iter().map(|value| value * value));
        let variance = |row: &[f64]| {
            let mean = dot(row, &means).clamp(0.0, most);
            (dot(row, &squares).clamp(0.0, most * most) - mean * mean).max(1.0)
        };
        let variances: Vec<f64> = step.features.chunks_exact(data.size).map(variance).collect();
        regression = fit(Some(&variances))?;
    }
    let values = values(data, h, next);
    let least = match rule.least {
        Some(Least::Zero) => 0.0,
        Some(Least::Data) => f64::INFINITY,
        None => data.least.unwrap_or(f64::INFINITY),
    };
    // Infinite where it is to be seen from the data.
    let least = if least.is_finite() { least } else { values.iter().copied().fold(least, f64::min) };
    let last = next.is_none();
    let weights = if matches!(rule.algorithm, Pevi | Lsvi) {
        regression.fit(step.rewards.iter().zip(&values).map(|(reward, value)| reward + value))
    } else {
        let nu = match rule.algorithm {
            _ if last => vec![0.0; data.size],
            R2pviTv | VaR2pviTv => total_variation(&regression, &values, rule.lambda, least),
            R2pviKl => kullback_leibler(&regression, &values, rule.lambda, rule.shift, most),
            R2pviChi2 => chi_square(&regression, &values, rule.lambda, most),
            Drpvi | VaDrpvi => total_variation_ball(&regression, &values, rule.radius, least, most),
            DrviL => kullback_leibler_ball(&regression, &values, rule.radius, rule.shift, most),
            Pevi | Lsvi => unreachable!("fitted above"),
        };
        let theta = match &data.theta {
            Some(theta) => theta[h].clone(),
            None => regression.fit(step.rewards.iter().copied()),
        };
        theta.iter().zip(nu).map(|(theta, nu)| theta + nu).collect()
    };
    let exact = last && data.stopping || rule.algorithm == Lsvi;
    let roots = (0..data.size).map(|i| regression.inverse.at(i, i).max(0.0).sqrt()).collect();
    let model = Model {
        weights,
        roots,
        inverse: regression.inverse,
        beta: if exact { 0.0 } else { rule.beta },
        penalty: rule.penalty,
        low: rule.clip_low.then_some(0.0),
        cap: data.caps[h],
    };
    let rows = values.len() as f64;
    let penalties = step.features.chunks_exact(data.size).map(|row| model.penalty(row)).sum::<f64>();
    let found = Stepped { value: values.iter().sum::<f64>() / rows, penalty: penalties / rows };
    Ok((model, found))
}
