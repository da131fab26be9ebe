//! RegCB: confidence ranges of a regression oracle (Foster, Agarwal, Dudik, Luo, Schapire 2018, arXiv 1803.01799).
//!
//! ```text
//! the cost of action a plausibly lies in [low(a), high(a)]: between the predictions of all regressors whose squared
//! error is not more than Delta = c_0 log(K t) (c_max - c_min)² above the best
//! elimination: p uniform over { a : low(a) <= min_b high(b) };   optimistic: all to the least low(a)
//! ```
//!
//! The range of a linear model is found by asking how important an example with the opposite cost must be to move the
//! prediction there (section 5 of the paper). At t = 0, Delta is 0.

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, Need, Ranges, Situation, cheapest},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train regcb`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegCb {
    /// Whether the action that may be the cheapest is taken, instead of any that may be.
    pub optimistic: bool,
    /// c_0: how wide the ranges are. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0))]
    pub mellowness: f64,
    /// Costs are not below.
    pub least_cost: f64,
    /// Costs are not above.
    pub most_cost: f64,
    /// Of several actions with the same least cost, whether the first alone is taken.
    pub first_only: bool,
}

impl Default for RegCb {
    fn default() -> Self {
        Self { optimistic: false, mellowness: 0.1, least_cost: 0.0, most_cost: 1.0, first_only: false }
    }
}

impl RegCb {
    fn ranges(&self) -> Ranges {
        Ranges { mellowness: self.mellowness, least: self.least_cost, most: self.most_cost }
    }
}

impl Settings for RegCb {
    fn check(&self) -> Result<()> {
        self.ranges().check()
    }
}

impl ExplorerSettings for RegCb {
    const SLUG: &'static str = CARD.slug;
}

impl Explorer for RegCb {
    fn probabilities(&self, costs: &[f32], _learned: u64) -> Vec<f64> {
        cheapest(costs, self.first_only)
    }

    fn decide(&self, situation: &Situation) -> Vec<f64> {
        let costs = situation.oracle.costs(0, situation.decision);
        if self.optimistic {
            let lows: Vec<f32> =
                self.ranges().of(situation, &costs).into_iter().map(|(low, _)| low).collect();
            return self.probabilities(&lows, situation.learned);
        }
        let survivors = self.ranges().survivors(situation, &costs);
        let share = 1.0 / survivors.iter().filter(|one| **one).count() as f64;
        survivors.into_iter().map(|one| if one { share } else { 0.0 }).collect()
    }

    fn need(&self) -> Need {
        Need::Sensitivity
    }

    fn costs_within(&self) -> Option<(f64, f64, &'static str)> {
        Some((self.least_cost, self.most_cost, "method.least_cost to method.most_cost"))
    }

    fn plain(&self) -> bool {
        true
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "regcb",
    title: "RegCB",
    paper: "Foster, Agarwal, Dudik, Luo, Schapire: Practical Contextual Bandits with Regression Oracles",
    arxiv: "1803.01799",
    year: 2018,
    family: super::FAMILY,
    summary: "contextual bandits from a log: takes what may be the cheapest, by confidence ranges of a regression oracle",
    claim: "confidence ranges of a regression oracle explore well in practice; here a baseline",
    equation: "p uniform over { a : low(a) <= min_b high(b) },   [low, high] by Delta = c_0 log(K t) (c_max - c_min)²",
    symbols: &[
        ("low, high", "the least and the most that an action plausibly costs"),
        ("c_0", "method.mellowness"),
        ("c_min, c_max", "method.least_cost, method.most_cost"),
    ],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "few actions, and costs whose range is known",
    avoid_when: "every action needs a probability above 0, for later evaluation (squarecb)",
    failure_signs: &[
        "all actions stay as likely: ranges are wide; lower method.mellowness, or set the true range of costs",
        "the loss is worse than the log's: the range of costs is wrong; for rewards of 0 or 1 it is -1 to 0",
    ],
    variants: &[
        ("the most hopeful action alone", "method.optimistic = true"),
        ("costs that are minus a reward of 0 or 1", "method.least_cost = -1, method.most_cost = 0"),
    ],
};

#[cfg(test)]
pub(crate) mod tests {
    use polo_run::seed::Seeds;

    use super::*;
    use crate::{
        explore::tests::{COSTS, check},
        features::Decision,
        oracle::Oracle,
    };

    /// Plain gradient descent with weights of 1 and one feature to an action, its cost: s = rate x² |c^ - target|.
    pub struct Descent(pub f32);

    impl Oracle for Descent {
        fn predict(&self, _: usize, _: &Decision, action: usize) -> f32 {
            COSTS[action]
        }

        fn learn(&mut self, _: usize, _: &Decision, _: usize, _: f32, _: f32) -> Result<()> {
            Ok(())
        }

        fn sensitivity(&self, _: usize, _: &Decision, action: usize, cost: f32) -> Option<f32> {
            Some(self.0 * COSTS[action].powi(2) * (cost - COSTS[action]).abs())
        }

        fn features(&self, _: &Decision, _: usize) -> Vec<crate::features::Feature> {
            Vec::new()
        }

        fn to_bytes(&self) -> Vec<u8> {
            Vec::new()
        }

        fn take_bytes(&mut self, _: &[u8]) -> bool {
            true
        }
    }

    #[test]
    fn what_survives_is_as_likely() {
        let decision = Decision { actions: vec![Default::default(); 4], ..Decision::default() };
        let of = |rate, mellowness, learned, optimistic| {
            let method = RegCb { mellowness, optimistic, ..RegCb::default() };
            let (oracle, seeds) = (Descent(rate), Seeds::new(0));
            method.decide(&Situation {
                oracle: &oracle,
                decision: &decision,
                learned,
                number: 0,
                seeds: &seeds,
            })
        };
        let (third, half) = (1.0 / 3.0, 0.5);
        check(&of(0.5, 1.0, 1, false), &[third, third, 0.0, third]);
        check(&of(0.5, 1.0, 4, false), &[0.25; 4]);
        check(&of(0.1, 0.1, 50, false), &[0.0, half, 0.0, half]);
        check(&of(0.1, 1.0, 4, false), &[0.0, half, 0.0, half]);
        check(&of(0.1, 1.0, 50, false), &[third, third, 0.0, third]);
        check(&of(0.1, 1.0, 0, false), &[0.0, half, 0.0, half]);
        check(&of(0.1, 0.1, 50, true), &[0.0, half, 0.0, half]);
    }
}
