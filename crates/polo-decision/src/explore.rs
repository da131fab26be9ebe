//! From predicted costs to probabilities: what exploration schemes share.

use polo_run::seed::Seeds;

/// A scheme of exploration: a method of this family that is one.
pub trait Explorer: Send + Sync {
    /// The probability of each action, given what each is predicted to cost, when `learned` decisions have been learnt
    /// from. There is one action or more.
    fn probabilities(&self, costs: &[f32], learned: u64) -> Vec<f64>;

    /// How many models the scheme keeps, each an oracle of its own.
    fn models(&self) -> usize {
        1
    }

    /// The probability of each action, given what each model predicts, `[models, actions]`, there being one model or more.
    fn together(&self, costs: &[Vec<f32>], learned: u64) -> Vec<f64> {
        self.probabilities(&costs[0], learned)
    }

    /// How many times a model learns from the decision that comes after `learned` others.
    fn repeats(&self, _model: usize, _learned: u64, _seeds: &Seeds) -> u32 {
        1
    }

    /// Whether the oracle learns every cost as it is, without the weight 1/p of what was unlikely.
    fn plain(&self) -> bool {
        false
    }
}

/// The first of the cheapest actions.
pub fn best(costs: &[f32]) -> usize {
    (1..costs.len()).fold(0, |best, at| if costs[at] < costs[best] { at } else { best })
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
