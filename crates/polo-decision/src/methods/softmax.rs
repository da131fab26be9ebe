//! Softmax (Boltzmann) exploration: the cheaper, the likelier.
//!
//! ```text
//! p(a) proportional to exp(-lambda c^(a)),   none below epsilon / K
//! ```

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, floor, softmax},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train softmax`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Softmax {
    /// How sharply cheaper actions are preferred, per unit of cost. Default from Vowpal Wabbit; with costs between 0 and 1
    /// it explores hardly less than even chances, and 10 to 20 are common.
    #[schemars(range(min = 0.0))]
    pub lambda: f64,
    /// No action is less likely than this over the number of actions.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for Softmax {
    fn default() -> Self {
        Self { lambda: 1.0, epsilon: 0.0 }
    }
}

impl Settings for Softmax {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for Softmax {
    const SLUG: &'static str = CARD.slug;
}

impl Explorer for Softmax {
    fn probabilities(&self, costs: &[f32], _learned: u64) -> Vec<f64> {
        let mut weights = softmax(costs, self.lambda);
        floor(&mut weights, self.epsilon);
        weights
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "softmax",
    title: "Softmax exploration for contextual bandits",
    paper: "Cesa-Bianchi, Gentile, Lugosi, Neu: Boltzmann Exploration Done Right",
    arxiv: "1705.10257",
    year: 2017,
    family: super::FAMILY,
    summary: "contextual bandits from a log: the cheaper a regression oracle finds an action, the likelier it is",
    claim: "smooth exploration with one knob; here a baseline",
    equation: "p(a) proportional to exp(-lambda c^(a)),   none below epsilon / K",
    symbols: &[("c^", "predicted cost of an action"), ("K", "actions of the decision")],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "probabilities that change smoothly with predicted costs",
    avoid_when: "the scale of costs is unknown: lambda is per unit of cost (squarecb)",
    failure_signs: &["the loss is that of even chances: raise method.lambda"],
    variants: &[("never below a share", "method.epsilon = 0.05")],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::tests::{COSTS, check};

    #[test]
    fn the_golden_table() {
        let of = |lambda| Softmax { lambda, epsilon: 0.0 }.probabilities(&COSTS, 0);
        check(&of(1.0), &[0.232_368, 0.283_815, 0.200_001, 0.283_815]);
        check(&of(5.0), &[0.144_740, 0.393_445, 0.068_370, 0.393_445]);
        check(&Softmax::default().probabilities(&[2.0; 5], 0), &[0.2; 5]);
        check(&Softmax { lambda: 1e9, epsilon: 0.3 }.probabilities(&[0.0, 1.0, 1.0], 0), &[0.8, 0.1, 0.1]);
    }
}
