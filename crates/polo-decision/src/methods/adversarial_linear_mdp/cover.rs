//! What the simulator-free algorithm finds out before losses count: a set of policies that reach what can be reached, and
//! the states that they make known.

use polo_run::seed::Seeds;

use super::layered::{Layered, Table, Theta};
use crate::linear::{Matrix, dot};

/// The policies of the rounds, and what they know.
#[derive(Clone, Debug, PartialEq)]
pub struct Cover {
    /// One policy a round.
    pub policies: Vec<Table>,
    /// Whether every action's features of a state are well covered, `[layers][states]`.
    pub known: Vec<Vec<bool>>,
}

impl Cover {
    /// In each round plays `episodes` episodes of the policy that is greedy, by least-squares value iteration with ridge 1,
    /// for the reward min(1, ‖φ‖) in the norm of (I + Σ φ φᵀ)⁻¹; known are the states where ‖φ‖² <= `alpha` in the norm of
    /// (I / n + mean φ φᵀ)⁻¹ over all n episodes.
    pub fn explore(process: &Layered, rounds: usize, episodes: usize, alpha: f64, seeds: &Seeds) -> Self {
        let horizon = process.horizon();
        // Losses are not looked at.
        let nothing: Theta = vec![vec![0.0; process.size]; horizon];
        let mut grams: Vec<Matrix> = vec![Matrix::identity(process.size, 1.0); horizon];
        let mut seen: Vec<Vec<usize>> = Vec::new();
        let mut policies = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let policy = greedy(process, &grams, &seen);
            for at in 0..episodes {
                let mut rng = seeds.rng("exploration", (round * episodes + at) as u64);
                let pairs = process.play(&policy, &nothing, &mut rng).pairs;
                for (h, pair) in pairs.iter().enumerate() {
                    grams[h].add_outer(process.features(h, *pair), 1.0);
                }
                seen.push(pairs);
            }
            policies.push(policy);
        }
        let n = (rounds * episodes) as f64;
        let known = (0..horizon).map(|h| {
            // (I + Σ φ φᵀ) / n = I / n + mean φ φᵀ.
            let inverse = grams[h].inverse();
            let covered = |pair: usize| {
                inverse
                    .as_ref()
                    .is_some_and(|inverse| n * inverse.quadratic(process.features(h, pair)) <= alpha)
            };
            let state = |state: usize| (0..process.actions).all(|a| covered(state * process.actions + a));
            (0..process.states(h)).map(state).collect()
        });
        Self { known: known.collect(), policies }
    }
}

/// The policy that is greedy for what is uncertain.
fn greedy(process: &Layered, grams: &[Matrix], seen: &[Vec<usize>]) -> Table {
    let (horizon, actions) = (process.horizon(), process.actions);
    let mut policy = process.table(0.0);
    let mut after: Vec<f64> = Vec::new();
    for h in (0..horizon).rev() {
        // Positive definite by construction.
        let inverse = grams[h].inverse().unwrap_or_else(|| Matrix::identity(process.size, 1.0));
        let mut sum = vec![0.0; process.size];
        if h + 1 < horizon {
            for pairs in seen {
                let value = after[pairs[h + 1] / actions];
                sum.iter_mut().zip(process.features(h, pairs[h])).for_each(|(sum, x)| *sum += x * value);
            }
        }
        let weights = inverse.times(&sum);
        let q: Vec<f64> = (0..process.pairs(h))
            .map(|pair| {
                let features = process.features(h, pair);
                inverse.quadratic(features).max(0.0).sqrt().min(1.0) + dot(features, &weights)
            })
            .collect();
        let best = |row: &[f64]| (0..actions).fold(0, |best, at| if row[at] > row[best] { at } else { best });
        after = q.chunks_exact(actions).map(|row| row[best(row)]).collect();
        for (state, row) in q.chunks_exact(actions).enumerate() {
            policy[h][state * actions + best(row)] = 1.0;
        }
    }
    policy
}
