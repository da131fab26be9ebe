//! From predicted costs to probabilities: what exploration schemes share.

use polo_run::{Result, seed::Seeds};

use crate::{
    features::Decision,
    lesson::{Costs, Lesson},
    oracle::Oracle,
};

/// A decision to be taken.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// What predicts costs.
    pub oracle: &'a dyn Oracle,
    /// What is known, and what can be done.
    pub decision: &'a Decision,
    /// Decisions learnt so far.
    pub learned: u64,
    /// Decisions taken so far: the counter of draws.
    pub number: u64,
    /// Where draws come from.
    pub seeds: &'a Seeds,
}

/// What a scheme asks of its oracle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// A guess of each cost.
    #[default]
    Guess,
    /// How far the guess would move ([`Oracle::sensitivity`]).
    Sensitivity,
    /// Beliefs ([`Oracle::posterior`]).
    Posterior,
}

/// A scheme of exploration: a method of this family that is one.
pub trait Explorer: Send + Sync {
    /// The probability of each action, given what each is predicted to cost, when `learned` decisions have been learnt
    /// from. There is one action or more.
    fn probabilities(&self, costs: &[f32], learned: u64) -> Vec<f64>;

    /// How many models the scheme keeps.
    fn models(&self) -> usize {
        1
    }

    /// How many more models it keeps to estimate costs with, numbered after its own, if `costs` are learnt.
    fn scorers(&self, costs: Costs) -> usize {
        if costs == Costs::Dr { self.models() } else { 0 }
    }

    /// What it asks of its oracle.
    fn need(&self) -> Need {
        Need::Guess
    }

    /// The probability of each action, given what each model predicts, `[models, actions]`, there being one model or more.
    fn together(&self, costs: &[Vec<f32>], learned: u64) -> Vec<f64> {
        self.probabilities(&costs[0], learned)
    }

    /// The probability of each action.
    fn decide(&self, situation: &Situation) -> Vec<f64> {
        let Situation { oracle, decision, learned, .. } = *situation;
        let costs: Vec<_> = (0..self.models()).map(|model| oracle.costs(model, decision)).collect();
        self.together(&costs, learned)
    }

    /// How many times a model learns from the decision that comes after `learned` others.
    fn repeats(&self, _model: usize, _learned: u64, _seeds: &Seeds) -> u32 {
        1
    }

    /// The least and the most that a cost may be by its settings, where it relies on them, and the settings.
    fn costs_within(&self) -> Option<(f64, f64, &'static str)> {
        None
    }

    /// Whether the oracle learns every cost as it is, without the weight 1/p of what was unlikely.
    fn plain(&self) -> bool {
        false
    }

    /// Teaches the models an outcome.
    ///
    /// # Errors
    /// Those of the oracle.
    fn teach(&self, oracle: &mut dyn Oracle, lesson: &Lesson, seeds: &Seeds) -> Result<()> {
        for model in 0..self.models() {
            for _ in 0..self.repeats(model, lesson.learned, seeds) {
                lesson.teach(oracle, model, self.models() + model)?;
            }
        }
        Ok(())
    }
}

/// The first of the cheapest actions.
pub fn best(costs: &[f32]) -> usize {
    (1..costs.len()).fold(0, |best, at| if costs[at] < costs[best] { at } else { best })
}

/// All to the cheapest actions, in equal shares, or to the first of them alone.
pub fn cheapest(costs: &[f32], first_only: bool) -> Vec<f64> {
    let best = best(costs);
    let is_one = |at: usize| if first_only { at == best } else { costs[at] <= costs[best] };
    let share = 1.0 / (0..costs.len()).filter(|at| is_one(*at)).count() as f64;
    (0..costs.len()).map(|at| if is_one(at) { share } else { 0.0 }).collect()
}

/// Proportional to exp(-lambda cost).
pub fn softmax(costs: &[f32], lambda: f64) -> Vec<f64> {
    let least = costs[best(costs)];
    let mut weights: Vec<f64> = costs.iter().map(|cost| (-lambda * f64::from(cost - least)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);
    weights
}

/// gamma = scale t^exponent after `learned` decisions: 0 before the first, when nothing is known, whatever the exponent.
pub fn gamma(scale: f64, exponent: f64, learned: u64) -> f64 {
    match learned {
        0 => 0.0,
        t => scale * (t as f64).powf(exponent),
    }
}

/// Inverse-gap weighting: 1/(K + gap) to every action but the `best`, which has the rest.
pub fn inverse_gap(costs: &[f32], best: usize, gap: impl Fn(usize) -> f64) -> Vec<f64> {
    let count = costs.len() as f64;
    let mut probabilities: Vec<f64> = (0..costs.len()).map(|at| 1.0 / (count + gap(at))).collect();
    probabilities[best] = 0.0;
    probabilities[best] = 1.0 - probabilities.iter().sum::<f64>();
    probabilities
}

/// The nearest probabilities of which none is below `epsilon`/K (a projection onto the simplex, no mixture).
pub fn floor(probabilities: &mut [f64], epsilon: f64) {
    let count = probabilities.len() as f64;
    if epsilon > 0.999 {
        probabilities.fill(1.0 / count);
        return;
    }
    let least = epsilon / count;
    if probabilities.iter().all(|p| *p >= least) {
        return;
    }
    let mut sorted = probabilities.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let (mut sum, mut cut) = (0.0, 0.0);
    for (i, p) in sorted.iter().enumerate() {
        sum += p;
        let tau = ((count - i as f64 - 1.0) * least + sum - 1.0) / (i as f64 + 1.0);
        if *p > tau + least {
            cut = tau;
        }
    }
    probabilities.iter_mut().for_each(|p| *p = (*p - cut).max(least));
}

/// [`floor`] among the actions that are possible at all; those with probability 0 keep it.
pub fn floor_on_support(probabilities: &mut [f64], epsilon: f64) {
    let mut some: Vec<f64> = probabilities.iter().copied().filter(|p| *p > 0.0).collect();
    floor(&mut some, epsilon);
    probabilities.iter_mut().filter(|p| **p > 0.0).zip(some).for_each(|(p, floored)| *p = floored);
}

/// How a range of plausible costs is found: by how important the opposite of what was predicted must be for the squared
/// error to rise by Δ (Foster, Agarwal, Dudik, Luo, Schapire 2018, arXiv 1803.01799, section 5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranges {
    /// c_0 of Δ = c_0 log(K t) (most - least)².
    pub mellowness: f64,
    /// Costs are not below.
    pub least: f64,
    /// Costs are not above.
    pub most: f64,
}

impl Ranges {
    /// The least and the most that each action may cost.
    pub fn of(&self, situation: &Situation, costs: &[f32]) -> Vec<(f32, f32)> {
        let (least, most) = (self.least as f32, self.most as f32);
        let known = costs.len() as f64 * situation.learned as f64;
        let delta = match situation.learned {
            0 => 0.0,
            _ => (self.mellowness * known.ln() * (self.most - self.least).powi(2)) as f32,
        };
        let sensitivity = |action: usize, cost: f32| {
            situation.oracle.sensitivity(0, situation.decision, action, cost).filter(|s| s.is_finite())
        };
        let of = |(action, &cost): (usize, &f32)| {
            let low = match sensitivity(action, least - 1.0) {
                Some(s) if cost >= least => cost - s * weight(cost - least + 1.0, delta, s),
                _ => least,
            };
            let high = match sensitivity(action, most + 1.0) {
                Some(s) if cost <= most => cost + s * weight(most + 1.0 - cost, delta, s),
                _ => most,
            };
            (low.clamp(least, most), high.clamp(least, most))
        };
        costs.iter().enumerate().map(of).collect()
    }

    /// Which actions may be the cheapest: those that may cost no more than what some action costs at most.
    pub fn survivors(&self, situation: &Situation, costs: &[f32]) -> Vec<bool> {
        let ranges = self.of(situation, costs);
        let bar = ranges.iter().map(|(_, high)| *high).fold(f32::INFINITY, f32::min);
        ranges.into_iter().map(|(low, _)| low <= bar).collect()
    }

    /// What is wrong with the settings, if anything is.
    ///
    /// # Errors
    /// The least cost is not below the most.
    pub fn check(&self) -> Result<()> {
        match self.least < self.most {
            true => Ok(()),
            false => Err(polo_run::Problem::usage("the least cost is not below the most")
                .place("method.least_cost")
                .hint("-1 and 0 for costs that are minus a reward between 0 and 1")),
        }
    }
}

/// The largest importance w with w (f² - (f - w s)²) <= delta, and at most f/s.
fn weight(f: f32, delta: f32, s: f32) -> f32 {
    let most = (f / s).min(f32::MAX);
    if most * f * f <= delta {
        return most;
    }
    let (mut low, mut high) = (0.0, most);
    for _ in 0..20 {
        let middle = (low + high) / 2.0;
        let over = middle * (f * f - (f - s * middle) * (f - s * middle)) - delta;
        if over > 0.0 {
            high = middle;
        } else {
            low = middle;
        }
        if over.abs() <= 1e-6 || high - low <= 1e-6 {
            break;
        }
    }
    low
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The costs of the golden table.
    pub const COSTS: [f32; 4] = [0.3, 0.1, 0.45, 0.1];

    #[track_caller]
    pub fn check(found: &[f64], expected: &[f64]) {
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{found:?} does not sum to 1");
        let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close && found.len() == expected.len(), "{found:?} is not {expected:?}");
    }

    #[test]
    fn a_floor_is_a_projection() {
        let of = |p: &[f64], epsilon| {
            let mut p = p.to_vec();
            floor(&mut p, epsilon);
            p
        };
        check(&of(&[1.0, 0.0, 0.0], 0.3), &[0.8, 0.1, 0.1]);
        check(&of(&[0.0, 0.5, 0.0, 0.5], 0.1), &[0.025, 0.475, 0.025, 0.475]);
        check(&of(&[0.7, 0.3], 0.1), &[0.7, 0.3]);
        check(&of(&[1.0, 0.0], 1.0), &[0.5, 0.5]);
    }
}
