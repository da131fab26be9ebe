//! Explore first, then commit: even chances for the first decisions, the cheapest action from then on.
//!
//! ```text
//! p(a) = 1/K until tau decisions are learnt from, then 1[a is the first cheapest];   none below epsilon / K
//! ```

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, best, floor},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train explore-first`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExploreFirst {
    /// All actions are as likely until so many decisions have been learnt from.
    pub decisions: u64,
    /// Afterwards no action is less likely than this over the number of actions. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for ExploreFirst {
    fn default() -> Self {
        Self { decisions: 1000, epsilon: 0.0 }
    }
}

impl Settings for ExploreFirst {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for ExploreFirst {
    const SLUG: &'static str = CARD.slug;
}

impl Explorer for ExploreFirst {
    fn probabilities(&self, costs: &[f32], learned: u64) -> Vec<f64> {
        if learned < self.decisions {
            return vec![1.0 / costs.len() as f64; costs.len()];
        }
        let mut probabilities = vec![0.0; costs.len()];
        probabilities[best(costs)] = 1.0;
        floor(&mut probabilities, self.epsilon);
        probabilities
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "explore-first",
    title: "Explore first, then commit",
    paper: "Langford, Zhang: The Epoch-Greedy Algorithm for Contextual Multi-armed Bandits",
    arxiv: "",
    year: 2007,
    family: super::FAMILY,
    summary: "contextual bandits from a log: even chances for the first decisions, the cheapest action from then on",
    claim: "the oldest plan of an experiment; here a baseline",
    equation: "p(a) = 1/K for the first method.decisions decisions, then 1[a is the first cheapest]",
    symbols: &[("K", "actions of the decision")],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "a baseline, and experiments that must end",
    avoid_when: "the world may change, or it is unknown how long to explore (squarecb)",
    failure_signs: &[
        "the loss does not fall after the first decisions: they were too few; raise method.decisions",
    ],
    variants: &[("goes on exploring a little", "method.epsilon = 0.05")],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::tests::{COSTS, check};

    #[test]
    fn the_golden_table() {
        let first = ExploreFirst { decisions: 10, epsilon: 0.1 };
        check(&first.probabilities(&COSTS, 9), &[0.25; 4]);
        check(&first.probabilities(&COSTS, 10), &[0.025, 0.925, 0.025, 0.025]);
    }
}
