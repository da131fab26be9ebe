//! FastCB: inverse-gap weighting relative to the best action's loss (Foster and Krishnamurthy 2021, arXiv 2107.02237).
//!
//! ```text
//! p(a) = l(b) / (K l(b) + gamma (l(a) - l(b)))  for a != b,   p(b) = 1 - the rest;   b the first best of K actions
//! gamma = gamma_scale t^gamma_exponent,   l predicted losses, cut to [1e-6, 1]
//! ```
//!
//! SquareCB with every gap divided by l(b): where the best action hardly ever loses, little is explored.

use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, best, floor, gamma, inverse_gap},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train fastcb`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FastCb {
    /// gamma after one decision: the larger, the less is explored. Default as SquareCB's.
    #[schemars(range(min = 0.0))]
    pub gamma_scale: f64,
    /// How gamma grows with decisions. Default as SquareCB's.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub gamma_exponent: f64,
    /// What is added to a cost to make it a loss between 0 and 1: 1 for costs that are minus a reward of 0 or 1.
    pub shift: f64,
    /// No action is less likely than this over the number of actions.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for FastCb {
    fn default() -> Self {
        Self { gamma_scale: 10.0, gamma_exponent: 0.5, shift: 1.0, epsilon: 0.0 }
    }
}

impl Settings for FastCb {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for FastCb {
    const SLUG: &'static str = CARD.slug;
}

impl FastCb {
    fn weigh(&self, costs: &[f32], gamma: f64) -> Vec<f64> {
        let losses: Vec<f32> = costs.iter().map(|cost| (cost + self.shift as f32).clamp(1e-6, 1.0)).collect();
        let best = best(&losses);
        let least = f64::from(losses[best]);
        let gap = |at: usize| gamma * (f64::from(losses[at]) - least) / least;
        let mut probabilities = inverse_gap(&losses, best, gap);
        floor(&mut probabilities, self.epsilon);
        probabilities
    }
}

impl Explorer for FastCb {
    fn probabilities(&self, costs: &[f32], learned: u64) -> Vec<f64> {
        let gamma = gamma(self.gamma_scale, self.gamma_exponent, learned);
        self.weigh(costs, gamma)
    }

    fn costs_within(&self) -> Option<(f64, f64, &'static str)> {
        Some((-self.shift, 1.0 - self.shift, "-method.shift to 1 - method.shift"))
    }

    fn plain(&self) -> bool {
        true
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "fastcb",
    title: "FastCB",
    paper: "Foster, Krishnamurthy: Efficient First-Order Contextual Bandits: Prediction, Allocation, and Triangular \
            Discrimination",
    arxiv: "2107.02237",
    year: 2021,
    family: super::FAMILY,
    summary: "contextual bandits from a log: SquareCB whose exploration shrinks with the loss of the best action",
    claim: "regret shrinks with the loss of the best policy instead of the number of decisions; here a baseline",
    equation: "p(a) = l(b) / (K l(b) + gamma (l(a) - l(b))),   p(b) = 1 - the rest,   gamma = gamma_scale t^gamma_exponent",
    symbols: &[
        ("l, b", "predicted loss of an action, cut to [1e-6, 1], and the first best action"),
        ("K, t", "actions of the decision, and decisions learnt from so far"),
    ],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "rewards of 0 or 1 of which the best action earns nearly all",
    avoid_when: "losses are not between 0 and 1 (squarecb)",
    failure_signs: &["one action is always taken: predicted losses are near 0; check method.shift"],
    variants: &[("never below a share", "method.epsilon = 0.05")],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::tests::check;

    #[test]
    fn probabilities_by_hand() {
        let plain = FastCb { shift: 0.0, ..FastCb::default() };
        check(&plain.weigh(&[0.1, 0.6], 10.0), &[1.0 - 0.019_230_77, 0.019_230_77]);
        check(&plain.weigh(&[0.3, 0.3, 0.3], 50.0), &[1.0 / 3.0; 3]);
        check(&plain.weigh(&[0.3, 0.9], 0.0), &[0.5, 0.5]);
        // Where the best action always loses, it is SquareCB.
        let square = crate::methods::squarecb::SquareCb::default().probabilities(&[0.0, 0.1], 1);
        let found = plain.weigh(&[0.9, 1.0], 9.0);
        check(&found, &square);
        // Losses are cut to [1e-6, 1].
        check(&plain.weigh(&[0.5, 7.0], 10.0), &plain.weigh(&[0.5, 1.0], 10.0));
        let few = 1e-6 / (2e-6 + 10.0 * (0.5 - 1e-6));
        let found = plain.weigh(&[-0.2, 0.5], 10.0);
        assert!((found[1] / few - 1.0).abs() < 1e-4, "{found:?}");
        check(&FastCb::default().weigh(&[-0.9, -0.4], 10.0), &[1.0 - 0.019_230_77, 0.019_230_77]);
    }
}
