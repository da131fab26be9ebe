//! Policies as tables: what the exact experiments share.
//!
//! One prompt, a handful of answers ("arms") with known rewards, and a table of logits instead of a model, a row for
//! each policy. The losses are those of [`crate::methods`], differentiated as in training; equal examples are one
//! example with a weight. Many problems of the same kind are rows of one table and are solved in lockstep, since one
//! large batch costs little more than one small one.

use crate::objective::{Batch, PairObjective, differentiate};

/// Weighted examples whose answers are cells of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    /// `[slot][example]`: the cell that is scored, counted row by row through the table.
    pub cells: Vec<Vec<usize>>,
    /// `[example]`: factor of the example's loss.
    pub weights: Vec<f64>,
    /// `[example]`: [`crate::objective::Example::label`].
    pub labels: Vec<f64>,
    /// `[slot][example]`: [`crate::objective::Example::quality`]; empty where there is none.
    pub quality: Vec<Vec<f64>>,
    /// `[slot][example]`: [`crate::objective::Example::proposal`]; empty where there is none.
    pub proposal: Vec<Vec<f64>>,
}

impl Examples {
    /// No examples, of this many answers each.
    pub fn new(slots: usize) -> Self {
        Self { cells: vec![Vec::new(); slots], ..Self::default() }
    }

    /// Adds an example without quality and proposal, of label 1.
    pub fn push(&mut self, cells: &[usize], weight: f64) {
        self.cells.iter_mut().zip(cells).for_each(|(slot, &cell)| slot.push(cell));
        self.weights.push(weight);
        self.labels.push(1.0);
    }

    /// Adds an example with a quality and a proposal's log-prob (nats) for each answer, of label and weight 1.
    pub fn push_list(&mut self, cells: &[usize], quality: &[f64], proposal: &[f64]) {
        self.push(cells, 1.0);
        for (slots, values) in [(&mut self.quality, quality), (&mut self.proposal, proposal)] {
            slots.resize(values.len(), Vec::new());
            slots.iter_mut().zip(values).for_each(|(slot, &value)| slot.push(value));
        }
    }
}

/// How often each arm won against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Wins {
    arms: usize,
    counts: Vec<f64>,
    total: f64,
}

impl Wins {
    /// Of no comparison.
    pub fn new(arms: usize) -> Self {
        Self { arms, counts: vec![0.0; arms * arms], total: 0.0 }
    }

    /// Counts one comparison.
    pub fn add(&mut self, winner: usize, loser: usize) {
        self.counts[winner * self.arms + loser] += 1.0;
        self.total += 1.0;
    }

    /// Winner, loser, and the share of all comparisons that ended so, where there were any.
    pub fn shares(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let found = self.counts.iter().enumerate().filter(|(_, count)| **count > 0.0);
        found.map(|(cell, count)| (cell / self.arms, cell % self.arms, count / self.total))
    }

    /// How often each arm won, as shares of all comparisons.
    pub fn chosen(&self) -> Vec<f64> {
        self.counts.chunks_exact(self.arms).map(|row| row.iter().sum::<f64>() / self.total).collect()
    }
}

/// A joint distribution of these two on at most `a.len() + b.len() - 1` points, by the north-west corner rule. What is
/// a sum of a part in each has the same mean under it as under independence, for a fraction of the points.
pub fn couple(a: &[f64], b: &[f64]) -> Vec<(usize, usize, f64)> {
    let (mut i, mut j) = (0, 0);
    let (mut left_a, mut left_b) = (a.first().copied().unwrap_or(0.0), b.first().copied().unwrap_or(0.0));
    let mut points = Vec::with_capacity(a.len() + b.len());
    while i < a.len() && j < b.len() {
        let mass = left_a.min(left_b);
        if mass > 0.0 {
            points.push((i, j, mass));
        }
        (left_a, left_b) = (left_a - mass, left_b - mass);
        if left_a <= left_b {
            i += 1;
            left_a = a.get(i).copied().unwrap_or(0.0);
        } else {
            j += 1;
            left_b = b.get(j).copied().unwrap_or(0.0);
        }
    }
    points
}

/// The weighted sum of the examples' losses and its gradient with respect to `logits`, a table of rows of `arms`
/// logits, under the reference `log_reference` (log-probs of the same shape, nats).
pub fn loss(
    objective: &dyn PairObjective,
    examples: &Examples,
    log_reference: &[f64],
    arms: usize,
    logits: &[f64],
) -> (f64, Vec<f64>) {
    let log_policy = log_softmax(logits, arms);
    let gather = |table: &[f64]| -> Vec<Vec<f64>> {
        examples.cells.iter().map(|slot| slot.iter().map(|&cell| table[cell]).collect()).collect()
    };
    let count = examples.weights.len();
    let batch = Batch {
        policy: gather(&log_policy),
        reference: if objective.uses_reference() { gather(log_reference) } else { Vec::new() },
        tokens: vec![vec![1; count]; examples.cells.len()],
        labels: examples.labels.clone(),
        quality: examples.quality.clone(),
        proposal: examples.proposal.clone(),
        typicality: vec![vec![0.0; count]; examples.cells.len()],
        ..Batch::default()
    };
    let found = differentiate(objective, &batch);
    let total = found.each.iter().zip(&examples.weights).map(|(loss, weight)| loss * weight).sum();
    // Losses of different examples do not touch each other, so that weights may come after differentiation.
    let mut by_log_policy = vec![0.0; logits.len()];
    for (slot, cells) in found.policy.iter().zip(&examples.cells) {
        for ((derivative, &cell), weight) in slot.iter().zip(cells).zip(&examples.weights) {
            by_log_policy[cell] += weight * derivative;
        }
    }
    (total, through_softmax(&by_log_policy, &log_policy, arms))
}

/// A derivative with respect to log-probs as one with respect to their logits.
pub fn through_softmax(by_log_policy: &[f64], log_policy: &[f64], arms: usize) -> Vec<f64> {
    let rows = by_log_policy.chunks_exact(arms).zip(log_policy.chunks_exact(arms));
    rows.flat_map(|(gradient, log_policy)| {
        let total: f64 = gradient.iter().sum();
        gradient.iter().zip(log_policy).map(move |(gradient, log)| gradient - log.exp() * total)
    })
    .collect()
}

/// Log-probs of a table of rows of `arms` logits, nats.
pub fn log_softmax(logits: &[f64], arms: usize) -> Vec<f64> {
    let rows = logits.chunks_exact(arms).flat_map(|row| {
        let log_total = log_sum_exp(row);
        row.iter().map(move |logit| logit - log_total)
    });
    rows.collect()
}

/// Probabilities of a table of rows of `arms` logits.
pub fn softmax(logits: &[f64], arms: usize) -> Vec<f64> {
    log_softmax(logits, arms).into_iter().map(f64::exp).collect()
}

/// log sum exp, without overflow.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|value| (value - max).exp()).sum::<f64>().ln()
}

/// 1 / (1 + e^-z).
pub fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// The element at which the cumulative distribution passes `u`, uniform in [0, 1).
pub fn pick(distribution: &[f64], u: f64) -> usize {
    let mut below = 0.0;
    for (element, probability) in distribution.iter().enumerate() {
        below += probability;
        if u < below {
            return element;
        }
    }
    // Rounding may leave the sum below 1.
    distribution.iter().rposition(|probability| *probability > 0.0).unwrap_or(0)
}

/// sum of p x.
pub fn expectation(p: &[f64], x: &[f64]) -> f64 {
    p.iter().zip(x).map(|(p, x)| p * x).sum()
}

/// KL(p || q), nats.
pub fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum()
}

/// The policy that maximises E[r] - beta KL(pi || reference): pi proportional to reference exp(r / beta).
pub fn optimum(reference: &[f64], rewards: &[f64], beta: f64) -> Vec<f64> {
    let logits: Vec<f64> = reference.iter().zip(rewards).map(|(p, r)| p.ln() + r / beta).collect();
    softmax(&logits, logits.len())
}

/// By how much a policy misses the maximum of E[r] - beta KL(pi || reference), in units of r: beta KL(pi || optimum),
/// which is the difference without its cancellation.
pub fn gap(policy: &[f64], optimum: &[f64], beta: f64) -> f64 {
    beta * kl(policy, optimum)
}

/// Gradient descent from `x`: `steps` times `x -= rate * gradient(x)`.
pub fn descend(mut x: Vec<f64>, rate: f64, steps: usize, gradient: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    for _ in 0..steps {
        let gradient = gradient(&x);
        x.iter_mut().zip(gradient).for_each(|(x, g)| *x -= rate * g);
    }
    x
}

/// Adam (Kingma & Ba 2015) over a table.
#[derive(Clone, Debug)]
pub struct Adam {
    /// Learning rate.
    pub rate: f64,
    /// Decay of the mean gradient.
    pub beta1: f64,
    /// Decay of the mean squared gradient.
    pub beta2: f64,
    /// Per parameter: mean gradient, mean squared gradient.
    moments: Vec<(f64, f64)>,
    steps: i32,
}

impl Adam {
    /// Before its first step.
    pub fn new(parameters: usize, rate: f64, beta1: f64, beta2: f64) -> Self {
        Self { rate, beta1, beta2, moments: vec![(0.0, 0.0); parameters], steps: 0 }
    }

    /// One step.
    pub fn step(&mut self, x: &mut [f64], gradient: &[f64]) {
        self.steps += 1;
        let (scale1, scale2) = (1.0 - self.beta1.powi(self.steps), 1.0 - self.beta2.powi(self.steps));
        for ((x, g), (first, second)) in x.iter_mut().zip(gradient).zip(&mut self.moments) {
            *first = self.beta1 * *first + (1.0 - self.beta1) * g;
            *second = self.beta2 * *second + (1.0 - self.beta2) * g * g;
            *x -= self.rate * (*first / scale1) / ((*second / scale2).sqrt() + 1e-8);
        }
    }
}

/// When [`minimise`] ends; it also does when rounding hides any further fall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stop {
    /// Norm of the gradient.
    pub gradient: f64,
    /// Steps.
    pub steps: usize,
    /// A value that only functions without a minimum fall below.
    pub value: f64,
}

impl Stop {
    /// As exact as f64 allows.
    pub const EXACT: Stop = Stop { gradient: 1e-10, steps: 1000, value: f64::NEG_INFINITY };
}

/// L-BFGS (Nocedal & Wright 2006, algorithm 7.5). Returns where it ends and the value there.
/// A few smooth parameters do not need a library.
pub fn minimise(mut x: Vec<f64>, stop: Stop, f: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> (Vec<f64>, f64) {
    const MEMORY: usize = 12;
    const SEARCH: usize = 20;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let add = |a: &[f64], scale: f64, b: &[f64]| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| a + scale * b).collect()
    };
    let (mut value, mut gradient) = f(&x);
    // Steps, changes of the gradient along them, and 1 / (step . change).
    let mut memory: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    for _ in 0..stop.steps {
        if value < stop.value || dot(&gradient, &gradient).sqrt() < stop.gradient {
            break;
        }
        let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut shares = Vec::new();
        for (step, change, inverse) in memory.iter().rev() {
            let share = inverse * dot(step, &direction);
            direction = add(&direction, -share, change);
            shares.push(share);
        }
        if let Some((_, change, inverse)) = memory.last() {
            let scale = 1.0 / (inverse * dot(change, change));
            direction.iter_mut().for_each(|d| *d *= scale);
        }
        for ((step, change, inverse), share) in memory.iter().zip(shares.iter().rev()) {
            direction = add(&direction, share - inverse * dot(change, &direction), step);
        }
        // A point that falls enough and flattens enough (the weak Wolfe conditions), by bisection; else the last that
        // falls enough. Flattening keeps the curvature positive where the function is not convex.
        let slope = dot(&gradient, &direction);
        let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
        let mut next = None;
        for _ in 0..SEARCH {
            let candidate = add(&x, length, &direction);
            let (new_value, new_gradient) = f(&candidate);
            if new_value <= value + 1e-4 * length * slope {
                let flat = dot(&new_gradient, &direction) >= 0.9 * slope;
                next = Some((candidate, new_value, new_gradient));
                if flat {
                    break;
                }
                low = length;
            } else {
                high = length;
            }
            length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
        }
        let Some((candidate, new_value, new_gradient)) = next else { break };
        let (step, change) = (add(&candidate, -1.0, &x), add(&new_gradient, -1.0, &gradient));
        let curvature = dot(&step, &change);
        if curvature > 1e-300 {
            if memory.len() == MEMORY {
                memory.remove(0);
            }
            memory.push((step, change, 1.0 / curvature));
        }
        (x, value, gradient) = (candidate, new_value, new_gradient);
    }
    (x, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{dpo::Dpo, rdpo::Rdpo};

    fn close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (one, other) in found.iter().zip(expected) {
            assert!((one - other).abs() <= tolerance, "{found:?} is not {expected:?}");
        }
    }

    /// All pairs of different arms, equally often, each labelled by the Bradley-Terry probability and flipped.
    fn population(rewards: &[f64], flip_rate: f64) -> Examples {
        let mut examples = Examples::new(2);
        let arms = rewards.len();
        for (w, l) in (0..arms).flat_map(|w| (0..arms).map(move |l| (w, l))).filter(|(w, l)| w != l) {
            let wins = sigmoid(rewards[w] - rewards[l]);
            examples.push(&[w, l], (wins * (1.0 - flip_rate) + (1.0 - wins) * flip_rate) / arms as f64);
        }
        examples
    }

    const REFERENCE: [f64; 4] = [0.4, 0.1, 0.2, 0.3];
    const REWARDS: [f64; 4] = [0.1, 1.2, -0.7, 0.4];

    fn log_reference() -> Vec<f64> {
        REFERENCE.map(f64::ln).to_vec()
    }

    #[test]
    fn on_the_whole_population_dpo_finds_the_optimum() {
        let examples = population(&REWARDS, 0.0);
        let objective = Dpo { beta: 0.5, ..Dpo::default() };
        let loss = |x: &[f64]| loss(&objective, &examples, &log_reference(), 4, x);
        let (logits, _) = minimise(log_reference(), Stop::EXACT, loss);
        close(&softmax(&logits, 4), &optimum(&REFERENCE, &REWARDS, 0.5), 1e-8);
    }

    /// Of the whole population, flips included, robust DPO has the loss and the minimum of DPO without flips.
    #[test]
    fn robust_dpo_is_blind_to_flips_of_the_population() {
        let clean = population(&REWARDS, 0.0);
        let dpo = Dpo { beta: 0.5, ..Dpo::default() };
        let best: Vec<f64> = optimum(&REFERENCE, &REWARDS, 0.5).into_iter().map(f64::ln).collect();
        for flip_rate in [0.1, 0.2, 0.4] {
            let flipped = population(&REWARDS, flip_rate);
            let rdpo = Rdpo { beta: 0.5, flip_rate, ..Rdpo::default() };
            let robust = |x: &[f64]| loss(&rdpo, &flipped, &log_reference(), 4, x);
            let plain = |x: &[f64]| loss(&dpo, &clean, &log_reference(), 4, x);
            for logits in [vec![0.0; 4], vec![0.3, -2.0, 1.0, 0.0], best.clone()] {
                let (robust, plain) = (robust(&logits), plain(&logits));
                close(&[robust.0], &[plain.0], 1e-12);
                close(&robust.1, &plain.1, 1e-12);
            }
            close(&robust(&best).1, &[0.0; 4], 1e-12);
            type Function<'a> = &'a dyn Fn(&[f64]) -> (f64, Vec<f64>);
            let minimum = |f: Function| minimise(log_reference(), Stop::EXACT, f).0;
            close(&softmax(&minimum(&robust), 4), &softmax(&minimum(&plain), 4), 1e-8);
            // While DPO's own minimum moves.
            let naive = minimum(&|x| loss(&dpo, &flipped, &log_reference(), 4, x));
            assert!(gap(&softmax(&naive, 4), &optimum(&REFERENCE, &REWARDS, 0.5), 0.5) > 0.01);
        }
    }

    /// Three stages of DPO, each with the last one's policy as reference, are one stage at a third of the beta.
    #[test]
    fn stages_of_dpo_divide_beta() {
        let (start, rewards, beta) = ([0.5, 0.3, 0.2], [0.3, -0.4, 0.8], 0.5);
        let examples = population(&rewards, 0.0);
        let stage = |reference: Vec<f64>, beta: f64| {
            let objective = Dpo { beta, ..Dpo::default() };
            minimise(reference.clone(), Stop::EXACT, |x| loss(&objective, &examples, &reference, 3, x)).0
        };
        let log_start = start.map(f64::ln).to_vec();
        let log_stage = |reference: Vec<f64>, beta| log_softmax(&stage(reference, beta), 3);
        let third = log_stage(log_stage(log_stage(log_start.clone(), beta), beta), beta);
        close(&softmax(&third, 3), &[0.110580, 0.000995, 0.888425], 1e-6);
        close(&softmax(&third, 3), &optimum(&start, &rewards, beta / 3.0), 1e-6);
        close(&softmax(&log_stage(log_start, beta / 3.0), 3), &softmax(&third, 3), 1e-6);
    }

    #[test]
    fn lockstep_changes_nothing() {
        let objective = Dpo { beta: 0.5, ..Dpo::default() };
        let alone = |rewards: &[f64]| {
            let examples = population(rewards, 0.2);
            let gradient = |x: &[f64]| loss(&objective, &examples, &log_reference(), 4, x).1;
            descend(log_reference(), 3.0, 20, gradient)
        };
        let other = [0.0, 0.3, 0.9, -1.0];
        let mut both = population(&REWARDS, 0.2);
        for (at, weight) in population(&other, 0.2).weights.into_iter().enumerate() {
            let cells = [both.cells[0][at] + 4, both.cells[1][at] + 4];
            both.push(&cells, weight);
        }
        let twice = log_reference().repeat(2);
        let found = descend(twice.clone(), 3.0, 20, |x| loss(&objective, &both, &twice, 4, x).1);
        close(&found, &[alone(&REWARDS), alone(&other)].concat(), 1e-14);
    }

    #[test]
    fn a_coupling_has_both_marginals() {
        let (a, b) = ([0.2, 0.0, 0.5, 0.3], [0.7, 0.1, 0.2]);
        let joint = couple(&a, &b);
        assert!(joint.len() < a.len() + b.len(), "{joint:?}");
        let (mut left, mut right) = ([0.0; 4], [0.0; 3]);
        for (i, j, mass) in joint {
            left[i] += mass;
            right[j] += mass;
        }
        close(&left, &a, 1e-15);
        close(&right, &b, 1e-15);
        assert!(couple(&[], &b).is_empty());
    }

    #[test]
    fn wins_are_counted() {
        let mut wins = Wins::new(3);
        for (winner, loser) in [(0, 2), (0, 2), (2, 0), (1, 0)] {
            wins.add(winner, loser);
        }
        assert_eq!(wins.shares().collect::<Vec<_>>(), [(0, 2, 0.5), (1, 0, 0.25), (2, 0, 0.25)]);
        assert_eq!(wins.chosen(), [0.5, 0.25, 0.25]);
    }

    #[test]
    fn adam_steps_by_its_rate_at_first() {
        let mut x = [1.0, -2.0];
        Adam::new(2, 0.1, 0.9, 0.99).step(&mut x, &[0.3, -7.0]);
        close(&x, &[0.9, -1.9], 1e-7);
    }

    #[test]
    fn elements_are_picked_by_their_probability() {
        for (u, expected) in [(0.0, 0), (0.19, 0), (0.2, 2), (0.69, 2), (0.7, 3), (0.999_999, 3)] {
            assert_eq!(pick(&[0.2, 0.0, 0.5, 0.3, 0.0], u), expected, "{u}");
        }
        assert_eq!(pick(&[0.5, 0.4, 0.0], 0.95), 1);
    }
}
