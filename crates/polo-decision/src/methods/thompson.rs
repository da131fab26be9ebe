//! Thompson sampling with linear costs: an action is as likely as it is to be the best (Agrawal, Goyal 2013, arXiv
//! 1209.3352).
//!
//! ```text
//! theta ~ N(A⁻¹ Σ x c, v² A⁻¹),   p(a) = share of draws in which x_a · theta is the least,   none below epsilon / K
//! A = lambda I + Σ x xᵀ over the actions that were taken
//! ```
//!
//! What is drawn are the costs of a decision's actions, which are jointly normal, not theta: the same shares for less.

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    draw::normal,
    explore::{Explorer, Need, Situation, best, cheapest, floor},
    linear::Matrix,
    stream::ExplorerSettings,
};

/// `[method]` of `polo train thompson`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Thompson {
    /// v: standard deviation of a cost around its mean, as it is believed to be.
    #[schemars(range(min = 0.0))]
    pub noise: f64,
    /// Draws that probabilities are counted from. One is what Thompson sampling itself takes.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub draws: usize,
    /// No action is less likely than this over the number of actions.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for Thompson {
    fn default() -> Self {
        Self { noise: 0.5, draws: 100, epsilon: 0.0 }
    }
}

impl Settings for Thompson {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for Thompson {
    const SLUG: &'static str = CARD.slug;
}

/// Costs of more actions are drawn one by one, as if independent: their joint covariance would not fit.
const MOST_JOINT: usize = 1000;

impl Explorer for Thompson {
    fn probabilities(&self, costs: &[f32], _learned: u64) -> Vec<f64> {
        let mut probabilities = cheapest(costs, false);
        floor(&mut probabilities, self.epsilon);
        probabilities
    }

    fn decide(&self, situation: &Situation) -> Vec<f64> {
        let Situation { oracle, decision, learned, number, seeds } = *situation;
        let count = decision.actions.len();
        let joint = count <= MOST_JOINT;
        let Some(known) = oracle.posterior(0, decision, joint) else {
            return self.probabilities(&oracle.costs(0, decision), learned);
        };
        // Products of features may have no size.
        if !known.covariance.iter().all(|entry| entry.is_finite()) {
            return self.probabilities(&oracle.costs(0, decision), learned);
        }
        let mut rng = seeds.rng("thompson", number);
        let factor = joint.then(|| Factor::of(&known.covariance, count));
        let mut shares = vec![0.0; count];
        for _ in 0..self.draws {
            let noise: Vec<f64> = (0..count).map(|_| normal(&mut rng)).collect();
            let drawn = |action: usize| {
                let deviation = match &factor {
                    Some(factor) => factor.row(action, &noise),
                    None => known.covariance[action].max(0.0).sqrt() * noise[action],
                };
                (known.means[action] + self.noise * deviation) as f32
            };
            let costs: Vec<f32> = (0..count).map(drawn).collect();
            shares[best(&costs)] += 1.0 / self.draws as f64;
        }
        floor(&mut shares, self.epsilon);
        shares
    }

    fn need(&self) -> Need {
        Need::Posterior
    }

    fn plain(&self) -> bool {
        true
    }
}

/// L of a covariance L Lᵀ.
struct Factor(Matrix);

impl Factor {
    /// Actions with the same features make a covariance singular: a little is added to its diagonal.
    fn of(covariance: &[f64], size: usize) -> Self {
        let largest = (0..size).map(|at| covariance[at * size + at]).fold(1e-12, f64::max);
        let mut matrix = Matrix::of(size, covariance.to_vec());
        let mut added = 1e-12 * largest;
        loop {
            (0..size).for_each(|at| matrix.add_to_diagonal(at, added));
            if let Some(factor) = matrix.cholesky() {
                return Self(factor);
            }
            added *= 10.0;
        }
    }

    fn row(&self, row: usize, noise: &[f64]) -> f64 {
        noise[..=row].iter().enumerate().map(|(column, noise)| self.0.at(row, column) * noise).sum()
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "thompson",
    title: "Thompson sampling with linear costs",
    paper: "Agrawal, Goyal: Thompson Sampling for Contextual Bandits with Linear Payoffs",
    arxiv: "1209.3352",
    year: 2013,
    family: super::FAMILY,
    summary: "contextual bandits from a log: an action is as likely as it is to be the best, by Bayesian linear regression",
    claim: "sampling from beliefs explores about as well as optimism; here a baseline",
    equation: "theta ~ N(A^-1 sum x c, v^2 A^-1),   p(a) = chance that x_a theta is the least",
    symbols: &[
        ("v, lambda", "method.noise, oracle.ridge.penalty"),
        ("A", "lambda I + sum x x^T over the actions that were taken"),
    ],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "some hundreds of features, and probabilities that say how sure one is",
    avoid_when: "features are thousands (bag approximates it with any oracle)",
    failure_signs: &["one action from early on and a high loss: raise method.noise"],
    variants: &[
        (
            "costs are minus a reward of 0 or 1, by chance",
            "oracle.ridge.link = \"logistic\", method.noise = 1",
        ),
        ("never below a share", "method.epsilon = 0.05"),
    ],
};

#[cfg(test)]
mod tests {
    use polo_run::seed::Seeds;

    use super::*;
    use crate::{
        features::{Decision, Example, Feature, Interactions},
        oracle::Oracle,
        ridge::{Ridge, RidgeSettings},
    };

    /// Two actions, their costs independent: the chance that one normal number is below another is known.
    #[test]
    fn an_action_is_as_likely_as_it_is_to_be_the_best() {
        let action = |hash| Example { spaces: vec![(b'a', vec![Feature { hash, value: 1.0 }])] };
        let decision = Decision { actions: vec![action(1), action(2)], weight: 1.0, ..Decision::default() };
        let mut oracle = Ridge::new(1, &RidgeSettings::default(), Interactions::default());
        for _ in 0..4 {
            oracle.learn(0, &decision, 0, -0.6, 1.0).unwrap();
        }
        let known = oracle.posterior(0, &decision, true).unwrap();
        let [a, both, _, b] = known.covariance[..] else { panic!("four numbers") };
        let spread = 0.5 * (a + b - 2.0 * both).sqrt();
        let z = (known.means[1] - known.means[0]) / spread;
        let chance = 0.5 * (1.0 + statrs::function::erf::erf(z / 2f64.sqrt()));
        let seeds = Seeds::new(1);
        let situation =
            Situation { oracle: &oracle, decision: &decision, learned: 4, number: 0, seeds: &seeds };
        let found = Thompson { draws: 40_000, ..Thompson::default() }.decide(&situation);
        // Four standard errors.
        assert!((found[0] - chance).abs() < 0.01, "{found:?}, {chance}");
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    /// The product of two features may overflow: there is nothing to draw then, and no end of trying to.
    #[test]
    fn features_without_size_do_not_hang() {
        let action = Example { spaces: vec![(b'a', vec![Feature { hash: 1, value: 1e30 }])] };
        let decision = Decision { actions: vec![action; 2], weight: 1.0, ..Decision::default() };
        let mut oracle = Ridge::new(1, &RidgeSettings::default(), Interactions::new(&["aa".into()]).unwrap());
        let seeds = Seeds::new(1);
        let situation =
            Situation { oracle: &oracle, decision: &decision, learned: 0, number: 0, seeds: &seeds };
        let found = Thompson::default().decide(&situation);
        assert_eq!(found, [0.5, 0.5]);
        let problem = oracle.learn(0, &decision, 0, 1.0, 1.0).unwrap_err();
        assert!(problem.message().contains("too large"), "{problem}");
    }

    /// Beyond [`MOST_JOINT`] actions costs are drawn one by one, from their own means and variances.
    #[test]
    fn many_actions_are_drawn_one_by_one() {
        let action = |hash| Example { spaces: vec![(b'a', vec![Feature { hash, value: 1.0 }])] };
        let actions = (0..MOST_JOINT as u32 + 1).map(action).collect();
        let decision = Decision { actions, weight: 1.0, ..Decision::default() };
        let mut oracle = Ridge::new(1, &RidgeSettings::default(), Interactions::default());
        for _ in 0..500 {
            oracle.learn(0, &decision, 3, -8.0, 1.0).unwrap();
        }
        let seeds = Seeds::new(1);
        let situation =
            Situation { oracle: &oracle, decision: &decision, learned: 500, number: 0, seeds: &seeds };
        let found = Thompson { draws: 50, ..Thompson::default() }.decide(&situation);
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9 && found[3] > 0.9, "{}", found[3]);
    }

    /// Actions with the same features have the same cost in every draw, though their covariance is singular.
    #[test]
    fn equal_actions_do_no_harm() {
        let action = Example { spaces: vec![(b'a', vec![Feature { hash: 1, value: 1.0 }])] };
        let decision = Decision { actions: vec![action; 3], weight: 1.0, ..Decision::default() };
        let oracle = Ridge::new(1, &RidgeSettings::default(), Interactions::default());
        let seeds = Seeds::new(1);
        let situation =
            Situation { oracle: &oracle, decision: &decision, learned: 0, number: 0, seeds: &seeds };
        let found = Thompson::default().decide(&situation);
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{found:?}");
    }
}
