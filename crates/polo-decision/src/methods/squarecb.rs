//! SquareCB: inverse-gap weighting over a regression oracle (Foster and Rakhlin 2020, arXiv 2002.04926).
//!
//! ```text
//! p(a) = 1 / (K + gamma (c^(a) - c^(b)))  for a != b,   p(b) = 1 - the rest;   b the first cheapest of K actions
//! gamma = gamma_scale t^gamma_exponent,   t decisions learnt from; uniform at t = 0
//! ```
//!
//! The oracle learns costs as they are: no importance weights, which is what the guarantee is about.

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, Need, Ranges, Situation, best, floor, gamma, inverse_gap},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train squarecb`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SquareCb {
    /// gamma after one decision: the larger, the less is explored. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0))]
    pub gamma_scale: f64,
    /// How gamma grows with decisions. Default from the theory.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub gamma_exponent: f64,
    /// No action is less likely than this over the number of actions.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
    /// Whether actions that plausibly cost more than the best are never taken; the floor is not used then.
    pub elimination: bool,
    /// How soon actions are eliminated: the less, the sooner.
    #[schemars(range(min = 0.0))]
    pub mellowness: f64,
    /// Costs are not below; for the elimination alone.
    pub least_cost: f64,
    /// Costs are not above; for the elimination alone.
    pub most_cost: f64,
}

impl Default for SquareCb {
    fn default() -> Self {
        Self {
            gamma_scale: 10.0,
            gamma_exponent: 0.5,
            epsilon: 0.0,
            elimination: false,
            mellowness: 0.001,
            least_cost: 0.0,
            most_cost: 1.0,
        }
    }
}

impl Settings for SquareCb {
    fn check(&self) -> Result<()> {
        self.ranges().check()
    }
}

impl ExplorerSettings for SquareCb {
    const SLUG: &'static str = CARD.slug;
}

impl SquareCb {
    fn ranges(&self) -> Ranges {
        Ranges { mellowness: self.mellowness, least: self.least_cost, most: self.most_cost }
    }

    fn weigh(&self, costs: &[f32], learned: u64) -> Vec<f64> {
        let (best, gamma) = (best(costs), gamma(self.gamma_scale, self.gamma_exponent, learned));
        inverse_gap(costs, best, |at| gamma * f64::from(costs[at] - costs[best]))
    }
}

impl Explorer for SquareCb {
    fn probabilities(&self, costs: &[f32], learned: u64) -> Vec<f64> {
        let mut probabilities = self.weigh(costs, learned);
        floor(&mut probabilities, self.epsilon);
        probabilities
    }

    fn decide(&self, situation: &Situation) -> Vec<f64> {
        let costs = situation.oracle.costs(0, situation.decision);
        if !self.elimination {
            return self.probabilities(&costs, situation.learned);
        }
        let survivors = self.ranges().survivors(situation, &costs);
        let some: Vec<f32> =
            costs.iter().zip(&survivors).filter(|(_, one)| **one).map(|(cost, _)| *cost).collect();
        let mut shares = self.weigh(&some, situation.learned).into_iter();
        survivors.into_iter().map(|one| if one { shares.next().unwrap_or(0.0) } else { 0.0 }).collect()
    }

    fn need(&self) -> Need {
        if self.elimination { Need::Sensitivity } else { Need::Guess }
    }

    fn costs_within(&self) -> Option<(f64, f64, &'static str)> {
        self.elimination.then_some((self.least_cost, self.most_cost, "method.least_cost to method.most_cost"))
    }

    fn plain(&self) -> bool {
        true
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "squarecb",
    title: "SquareCB",
    paper: "Foster, Rakhlin: Beyond UCB: Optimal and Efficient Contextual Bandits with Regression Oracles",
    arxiv: "2002.04926",
    year: 2020,
    family: super::FAMILY,
    summary: "contextual bandits from a log: explores less the more an action seems to cost, by a regression oracle",
    claim: "regret of a contextual bandit is no worse than what the oracle's regression error allows; here a baseline",
    equation: "p(a) = 1 / (K + gamma (c^(a) - c^(b))),   p(b) = 1 - the rest,   gamma = gamma_scale t^gamma_exponent",
    symbols: &[
        ("c^, b", "predicted cost of an action, and the first cheapest action"),
        ("K, t", "actions of the decision, and decisions learnt from so far"),
    ],
    metrics: &[
        (
            "losses/average",
            "mean of pi(a) c / p over the decisions so far, before each is learnt: cost per decision",
        ),
        (
            "stream/regret",
            "of a simulated stream: expected cost less that of the best action, mean over decisions so far",
        ),
        ("stream/decisions", "decisions taken"),
        ("stream/learned", "decisions learnt from"),
        ("stream/skipped", "bad lines left out"),
    ],
    reach_for: "the first to try on logged decisions with features",
    avoid_when: "costs are far from what the oracle can express; then cover many models (bag)",
    failure_signs: &[
        "the loss stays at that of the logging policy: gamma is small for costs of this size; raise method.gamma_scale",
        "the loss rises late: gamma grows too fast; lower method.gamma_exponent",
    ],
    variants: &[
        ("never below a share", "method.epsilon = 0.05"),
        (
            "hopeless actions are never taken",
            "method.elimination = true, method.least_cost = -1, method.most_cost = 0",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use polo_run::seed::Seeds;

    use super::*;
    use crate::{
        explore::tests::{COSTS, check},
        features::Decision,
        methods::regcb::tests::Descent,
    };

    #[test]
    fn the_golden_table() {
        let of = |t| SquareCb::default().probabilities(&COSTS, t);
        check(&of(0), &[0.25; 4]);
        check(&of(1), &[0.166_666_7, 0.45, 0.133_333_3, 0.25]);
        check(&of(4), &[0.125, 0.534_090_9, 0.090_909_1, 0.25]);
        check(&of(9), &[0.1, 0.581_034_5, 0.068_965_5, 0.25]);
        check(&SquareCb::default().probabilities(&[0.0, 0.1], 100), &[11.0 / 12.0, 1.0 / 12.0]);
        // K = 2, a gap of 0.5, gamma 10.
        check(&SquareCb::default().probabilities(&[0.0, 0.5], 1), &[6.0 / 7.0, 1.0 / 7.0]);
        check(&SquareCb { epsilon: 0.8, ..SquareCb::default() }.probabilities(&[0.0, 1e9], 100), &[0.6, 0.4]);
    }

    /// Those that are left share everything, by their own number, without a floor.
    #[test]
    fn what_is_eliminated_is_never_taken() {
        let decision = Decision { actions: vec![Default::default(); 4], ..Decision::default() };
        let (oracle, seeds) = (Descent(0.5), Seeds::new(0));
        let method = SquareCb { elimination: true, mellowness: 1.0, epsilon: 0.5, ..SquareCb::default() };
        let situation =
            Situation { oracle: &oracle, decision: &decision, learned: 1, number: 0, seeds: &seeds };
        // K = 3, gamma = 10, a gap of 0.2.
        let (far, tied) = (0.2, 1.0 / 3.0);
        check(&method.decide(&situation), &[far, 1.0 - far - tied, 0.0, tied]);
    }
}
