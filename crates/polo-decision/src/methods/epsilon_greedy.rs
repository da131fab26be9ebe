//! Epsilon-greedy: the cheapest actions, and now and then any.
//!
//! ```text
//! p(a) = epsilon / K + (1 - epsilon) 1[a is cheapest] / (how many are)
//! ```

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, cheapest},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train epsilon-greedy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EpsilonGreedy {
    /// Share of decisions that are taken evenly among all actions. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
    /// Of several cheapest actions, whether the first alone is taken.
    pub first_only: bool,
}

impl Default for EpsilonGreedy {
    fn default() -> Self {
        Self { epsilon: 0.05, first_only: false }
    }
}

impl Settings for EpsilonGreedy {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for EpsilonGreedy {
    const SLUG: &'static str = CARD.slug;
}

impl Explorer for EpsilonGreedy {
    fn probabilities(&self, costs: &[f32], _learned: u64) -> Vec<f64> {
        let every = self.epsilon / costs.len() as f64;
        let best = cheapest(costs, self.first_only);
        best.into_iter().map(|share| every + (1.0 - self.epsilon) * share).collect()
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "epsilon-greedy",
    title: "Epsilon-greedy contextual bandits",
    paper: "Langford, Zhang: The Epoch-Greedy Algorithm for Contextual Multi-armed Bandits",
    arxiv: "",
    year: 2007,
    family: super::FAMILY,
    summary: "contextual bandits from a log: the cheapest action by a regression oracle, and now and then any",
    claim: "the simplest exploration that never stops; here a baseline",
    equation: "p(a) = epsilon / K + (1 - epsilon) 1[a is cheapest] / (how many are)",
    symbols: &[("K", "actions of the decision")],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "a baseline, and logs whose probabilities must have a floor that is easy to explain",
    avoid_when: "actions are many and exploration is dear (squarecb)",
    failure_signs: &["the loss stays above the best known by a fixed amount: that is epsilon's price"],
    variants: &[
        ("greedy", "method.epsilon = 0"),
        ("uniform", "method.epsilon = 1"),
        ("ties are not shared", "method.first_only = true"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::tests::{COSTS, check};

    #[test]
    fn the_golden_table() {
        check(&EpsilonGreedy::default().probabilities(&COSTS, 7), &[0.0125, 0.4875, 0.0125, 0.4875]);
        let first = EpsilonGreedy { first_only: true, ..EpsilonGreedy::default() };
        check(&first.probabilities(&COSTS, 7), &[0.0125, 0.9625, 0.0125, 0.0125]);
    }
}
