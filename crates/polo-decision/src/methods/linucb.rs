//! LinUCB: optimism by the confidence ellipsoid of ridge regression (Li, Chu, Langford, Schapire 2010, arXiv 1003.0146).
//!
//! ```text
//! all to the least c^(a) - alpha sqrt(x_a A⁻¹ x_a),   none below epsilon / K
//! A = lambda I + Σ x xᵀ over the actions that were taken,   c^ = x · A⁻¹ Σ x c
//! ```
//!
//! One model for all actions, over their features; with an indicator of the action multiplied with the context
//! (`oracle.interactions`), that is the paper's disjoint form beside a shared part.

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, Need, Situation, cheapest, floor},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train linucb`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LinUcb {
    /// How many widths an action is hoped to be better than predicted.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// No action is less likely than this over the number of actions. LinUCB itself takes one action for certain, which
    /// leaves nothing to evaluate other policies on.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for LinUcb {
    fn default() -> Self {
        Self { alpha: 1.0, epsilon: 0.0 }
    }
}

impl Settings for LinUcb {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for LinUcb {
    const SLUG: &'static str = CARD.slug;
}

impl Explorer for LinUcb {
    fn probabilities(&self, costs: &[f32], _learned: u64) -> Vec<f64> {
        let mut probabilities = cheapest(costs, false);
        floor(&mut probabilities, self.epsilon);
        probabilities
    }

    fn decide(&self, situation: &Situation) -> Vec<f64> {
        let Situation { oracle, decision, learned, .. } = *situation;
        let Some(known) = oracle.posterior(0, decision, false) else {
            return self.probabilities(&oracle.costs(0, decision), learned);
        };
        let hoped = known.means.iter().zip(&known.covariance);
        let hoped: Vec<f32> =
            hoped.map(|(mean, variance)| (mean - self.alpha * variance.max(0.0).sqrt()) as f32).collect();
        self.probabilities(&hoped, learned)
    }

    fn need(&self) -> Need {
        Need::Posterior
    }

    fn plain(&self) -> bool {
        true
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "linucb",
    title: "LinUCB",
    paper: "Li, Chu, Langford, Schapire: A Contextual-Bandit Approach to Personalized News Article Recommendation",
    arxiv: "1003.0146",
    year: 2010,
    family: super::FAMILY,
    summary: "contextual bandits from a log: takes the action that may be the best, by ridge regression's confidence",
    claim: "optimism with linear rewards; here a baseline",
    equation: "all to the least c^(a) - alpha sqrt(x_a A^-1 x_a),   A = lambda I + sum x x^T",
    symbols: &[
        ("x_a", "features of an action, products (oracle.interactions) included"),
        ("alpha, lambda", "method.alpha, oracle.ridge.penalty"),
    ],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "some hundreds of features, costs that are linear in them, and exploration that should end",
    avoid_when: "features are thousands (rnd), or logged probabilities are needed later (squarecb, or method.epsilon)",
    failure_signs: &[
        "one action from early on and a high loss: raise method.alpha",
        "the progressive loss jumps: it weighs the log by 1/p where the log agrees with one certain action; judge by the \
         regret of a simulated stream",
    ],
    variants: &[
        ("costs are minus a reward of 0 or 1, by chance", "oracle.ridge.link = \"logistic\""),
        ("never below a share", "method.epsilon = 0.05"),
    ],
};

#[cfg(test)]
mod tests {
    use polo_run::seed::Seeds;

    use super::*;
    use crate::{
        explore::tests::check,
        features::{Decision, Example, Feature, Interactions},
        oracle::Oracle,
        ridge::{Ridge, RidgeSettings},
    };

    #[test]
    fn an_action_that_is_little_known_is_hoped_for() {
        let action = |hash| Example { spaces: vec![(b'a', vec![Feature { hash, value: 1.0 }])] };
        let decision = Decision { actions: vec![action(1), action(2)], weight: 1.0, ..Decision::default() };
        let mut oracle = Ridge::new(1, &RidgeSettings::default(), Interactions::default());
        for _ in 0..10 {
            oracle.learn(0, &decision, 0, -0.3, 1.0).unwrap();
        }
        let seeds = Seeds::new(0);
        let of = |alpha, epsilon| {
            let situation =
                Situation { oracle: &oracle, decision: &decision, learned: 10, number: 0, seeds: &seeds };
            LinUcb { alpha, epsilon }.decide(&situation)
        };
        check(&of(1.0, 0.0), &[0.0, 1.0]);
        check(&of(0.01, 0.0), &[1.0, 0.0]);
        check(&of(0.01, 0.1), &[0.95, 0.05]);
    }
}
