//! Mirror descent over policies as tables, where every step is known exactly: random Markov decision processes, the
//! closed form of a step, and the m gradient steps that stand for it.

use polo_run::seed::{Seeds, unit};

/// A Markov decision process with known rewards and transitions.
#[derive(Clone, Debug)]
pub struct Mdp {
    states: usize,
    actions: usize,
    /// `[states, actions]`.
    rewards: Vec<f64>,
    /// Probabilities of the next state, `[states, actions, states]`.
    transitions: Vec<f64>,
    gamma: f64,
}

/// Sweeps that bring values to their fixed point as far as f64 goes, for discounts up to 0.9.
const SWEEPS: usize = 400;

impl Mdp {
    /// Rewards uniform in (0, 1), next states with probabilities from a flat Dirichlet distribution.
    pub fn random(states: usize, actions: usize, gamma: f64, seeds: &Seeds) -> Self {
        let mut rng = seeds.rng("mdp", 0);
        let rewards = (0..states * actions).map(|_| unit(&mut rng)).collect();
        let mut transitions = Vec::with_capacity(states * actions * states);
        for _ in 0..states * actions {
            let row: Vec<f64> = (0..states).map(|_| -(1.0 - unit(&mut rng)).ln()).collect();
            let sum: f64 = row.iter().sum();
            transitions.extend(row.iter().map(|x| x / sum));
        }
        Self { states, actions, rewards, transitions, gamma }
    }

    /// The policy that takes every action as often, `[states, actions]`.
    pub fn uniform(&self) -> Vec<f64> {
        vec![1.0 / self.actions as f64; self.states * self.actions]
    }

    /// Q of values of next states, `[states, actions]`.
    fn backup(&self, values: &[f64]) -> Vec<f64> {
        let next = self.transitions.chunks_exact(self.states);
        next.zip(&self.rewards).map(|(row, reward)| reward + self.gamma * dot(row, values)).collect()
    }

    fn sweep(&self, value: impl Fn(usize, &[f64]) -> f64) -> Vec<f64> {
        let mut values = vec![0.0; self.states];
        for _ in 0..SWEEPS {
            let q = self.backup(&values);
            values = q.chunks_exact(self.actions).enumerate().map(|(state, q)| value(state, q)).collect();
        }
        values
    }

    /// V of a policy, `[states]`.
    pub fn values(&self, policy: &[f64]) -> Vec<f64> {
        self.sweep(|state, q| dot(&policy[state * self.actions..][..self.actions], q))
    }

    /// V of the best policy, `[states]`.
    pub fn best_values(&self) -> Vec<f64> {
        self.sweep(|_, q| q.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// A = Q - V of a policy, `[states, actions]`.
    pub fn advantages(&self, policy: &[f64]) -> Vec<f64> {
        let values = self.values(policy);
        let q = self.backup(&values);
        q.iter().enumerate().map(|(place, q)| q - values[place / self.actions]).collect()
    }

    /// One exact step of size t: pi_{k+1} in proportion to pi_k exp(t A).
    pub fn step(&self, policy: &[f64], t: f64) -> Vec<f64> {
        solution(policy, &self.advantages(policy), self.actions, 1.0 / t, 0.0)
    }

    /// The same step as m steps of gradient ascent on the logits, of length `rate`, from the policy itself.
    pub fn gradient_steps(&self, policy: &[f64], t: f64, m: usize, rate: f64) -> Vec<f64> {
        let advantages = self.advantages(policy);
        let mut now = policy.to_vec();
        for _ in 0..m {
            let slopes = objective_slopes(&now, policy, &advantages, self.actions, t);
            let moved: Vec<f64> = now.iter().zip(slopes).map(|(p, slope)| p * (rate * slope).exp()).collect();
            now = normalised(&moved, self.actions);
        }
        now
    }

    /// By how much a policy's value stays below the best one, in the worst state.
    pub fn gap(&self, policy: &[f64], best: &[f64]) -> f64 {
        self.values(policy)
            .iter()
            .zip(best)
            .map(|(value, best)| best - value)
            .fold(f64::NEG_INFINITY, f64::max)
    }
}

/// In each state, the policy that maximises E[f] + lam H(pi) - (c - lam) KL(pi || prior): in proportion to
/// exp(f / c) prior^((c - lam) / c). With lam = 0 a step of mirror descent of size 1 / c.
pub fn solution(prior: &[f64], f: &[f64], actions: usize, c: f64, lam: f64) -> Vec<f64> {
    let weights: Vec<f64> = prior.iter().zip(f).map(|(p, f)| f / c + (c - lam) / c * p.ln()).collect();
    let mut policy = Vec::with_capacity(weights.len());
    for row in weights.chunks_exact(actions) {
        let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        policy.extend(row.iter().map(|weight| (weight - most).exp()));
    }
    normalised(&policy, actions)
}

/// Slopes of E[A] - (1/t) KL(pi || prior) in the logits of pi, state by state.
pub fn objective_slopes(
    policy: &[f64],
    prior: &[f64],
    advantages: &[f64],
    actions: usize,
    t: f64,
) -> Vec<f64> {
    let gains: Vec<f64> =
        (0..policy.len()).map(|place| advantages[place] - (policy[place] / prior[place]).ln() / t).collect();
    let rows = policy.chunks_exact(actions).zip(gains.chunks_exact(actions));
    rows.flat_map(|(p, gains)| {
        let mean = dot(p, gains);
        p.iter().zip(gains).map(move |(p, gain)| p * (gain - mean))
    })
    .collect()
}

/// Largest total variation between two policies in a state.
pub fn apart(one: &[f64], other: &[f64], actions: usize) -> f64 {
    let rows = one.chunks_exact(actions).zip(other.chunks_exact(actions));
    rows.map(|(a, b)| 0.5 * a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>()).fold(0.0, f64::max)
}

fn normalised(weights: &[f64], actions: usize) -> Vec<f64> {
    weights
        .chunks_exact(actions)
        .flat_map(|row| {
            let sum: f64 = row.iter().sum();
            row.iter().map(move |weight| weight / sum)
        })
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(found: &[f64], expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-8), "{found:?} {expected:?}");
    }

    const PRIOR: [f64; 3] = [0.2, 0.3, 0.5];

    #[test]
    fn three_arms() {
        let advantages = [0.65, 0.15, -0.35];
        let policy = solution(&PRIOR, &advantages, 3, 1.0, 0.0);
        near(&policy, &[0.353_420_01, 0.321_540_11, 0.325_039_89]);
        let kl: f64 = policy.iter().zip(PRIOR).map(|(p, q)| p * (p / q).ln()).sum();
        near(&[dot(&policy, &advantages) - kl], &[0.080_660_194]);
        for t in [0.1, 1.0, 10.0] {
            near(&objective_slopes(&PRIOR, &PRIOR, &advantages, 3, t), &[0.13, 0.045, -0.175]);
        }
    }

    #[test]
    fn proximal_steps_with_entropy_end_at_the_soft_optimum() {
        let q = [1.0, 0.5, 0.0];
        let mut policy = solution(&PRIOR, &q, 3, 1.2, 0.2);
        near(&policy, &[0.350_034_18, 0.323_517_03, 0.326_448_79]);
        (0..500).for_each(|_| policy = solution(&policy, &q, 3, 1.2, 0.2));
        near(&policy, &[0.918_422_97, 0.075_388_75, 0.006_188_29]);
        // Without a divergence one step is enough.
        near(&solution(&PRIOR, &q, 3, 0.2, 0.2), &policy);
    }

    #[test]
    fn gradient_steps_approach_the_closed_form() {
        for draw in 0..5 {
            let mdp = Mdp::random(20, 4, 0.9, &Seeds::new(draw));
            let start = mdp.uniform();
            let exact = mdp.step(&start, 1.0);
            let apart = |m| apart(&mdp.gradient_steps(&start, 1.0, m, 0.5), &exact, 4);
            let found = [1, 5, 10, 50, 200].map(apart);
            assert!(found.windows(2).all(|pair| pair[1] < pair[0]), "{found:?}");
            assert!(found[0] > 0.05 && found[2] < 0.1 && found[4] < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn exact_steps_never_lose_and_end_at_the_best_policy() {
        for draw in 0..5 {
            let mdp = Mdp::random(20, 4, 0.9, &Seeds::new(draw));
            let best = mdp.best_values();
            for (t, most) in [(1.0, 0.05), (10.0, 1e-3), (100.0, 1e-7)] {
                let mut policy = mdp.uniform();
                let mut gap = mdp.gap(&policy, &best);
                assert!(gap > 0.1, "{gap}");
                for _ in 0..50 {
                    policy = mdp.step(&policy, t);
                    let now = mdp.gap(&policy, &best);
                    assert!(now <= gap + 1e-10, "{t}: {now} {gap}");
                    gap = now;
                }
                assert!(gap <= most, "{t}: {gap}");
            }
        }
    }
}
