//! Bagging: many models, each learnt from its own resampling of the log, vote (Bietti, Agarwal, Langford 2021, arXiv
//! 1802.04064).
//!
//! ```text
//! model i learns from each decision k_i times, k_i ~ Poisson(1)
//! p(a) = 1/n sum_i 1[a is cheapest to model i] / (how many are),   none below epsilon / K
//! ```

use polo_run::{
    Result,
    card::MethodCard,
    config::Settings,
    seed::{Seeds, unit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, cheapest, floor},
    stream::ExplorerSettings,
};

/// `[method]` of `polo train bag`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bag {
    /// Models that vote. Each has as many weights as the oracle's settings say.
    #[schemars(range(min = 1, max = 1000))]
    pub models: usize,
    /// Whether the first model learns from every decision exactly once.
    pub greedify: bool,
    /// No action is less likely than this over the number of actions. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for Bag {
    fn default() -> Self {
        Self { models: 5, greedify: false, epsilon: 0.0 }
    }
}

impl Settings for Bag {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for Bag {
    const SLUG: &'static str = CARD.slug;
}

impl Explorer for Bag {
    fn models(&self) -> usize {
        self.models
    }

    fn probabilities(&self, costs: &[f32], learned: u64) -> Vec<f64> {
        self.together(&[costs.to_vec()], learned)
    }

    fn together(&self, costs: &[Vec<f32>], _learned: u64) -> Vec<f64> {
        let mut probabilities = vec![0.0; costs[0].len()];
        for costs in costs {
            probabilities.iter_mut().zip(cheapest(costs, false)).for_each(|(p, vote)| *p += vote);
        }
        let sum: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= sum);
        floor(&mut probabilities, self.epsilon);
        probabilities
    }

    fn repeats(&self, model: usize, learned: u64, seeds: &Seeds) -> u32 {
        if self.greedify && model == 0 {
            return 1;
        }
        let mut left = unit(&mut seeds.rng(&format!("bag {model}"), learned));
        // Poisson's probabilities e^-1 / k!, one after the other.
        let mut probability = (-1.0f64).exp();
        for count in 0..20 {
            if left < probability {
                return count;
            }
            left -= probability;
            probability /= f64::from(count + 1);
        }
        20
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "bag",
    title: "Bagging for contextual bandits",
    paper: "Bietti, Agarwal, Langford: A Contextual Bandit Bake-off",
    arxiv: "1802.04064",
    year: 2021,
    family: super::FAMILY,
    summary: "contextual bandits from a log: models that learnt from resamplings of the log vote for their cheapest actions",
    claim: "approximates Thompson sampling with any oracle; here a baseline",
    equation: "p(a) = 1/n sum_i 1[a is cheapest to model i] / (how many are),   none below epsilon / K",
    symbols: &[
        ("n", "method.models, each learning from a decision Poisson(1) times"),
        ("K", "actions of the decision"),
    ],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "oracles that may be wrong in ways that the gap between costs does not show",
    avoid_when: "memory or time is short: everything costs as many times as there are models (squarecb)",
    failure_signs: &["all models agree from early on: raise method.epsilon"],
    variants: &[
        ("one model as without chance", "method.greedify = true"),
        ("never below a share", "method.epsilon = 0.05"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explore::tests::{COSTS, check};

    #[test]
    fn models_vote() {
        let three = Bag { models: 3, epsilon: 0.1, ..Bag::default() };
        // The golden table: identical models.
        check(
            &three.together(&[COSTS.to_vec(), COSTS.to_vec(), COSTS.to_vec()], 0),
            &[0.025, 0.475, 0.025, 0.475],
        );
        let plain = Bag { models: 2, ..Bag::default() };
        check(&plain.together(&[vec![0.0, 1.0, 2.0], vec![3.0, 1.0, 1.0]], 0), &[0.5, 0.25, 0.25]);
    }

    #[test]
    fn a_decision_is_learnt_once_on_average() {
        let (bag, seeds) = (Bag::default(), Seeds::new(3));
        let drawn: Vec<u32> = (0..20_000).map(|decision| bag.repeats(1, decision, &seeds)).collect();
        let share = |count| drawn.iter().filter(|drawn| **drawn == count).count() as f64 / drawn.len() as f64;
        // Four standard errors.
        for (count, expected) in [(0, 0.3679), (1, 0.3679), (2, 0.1839), (3, 0.0613)] {
            assert!((share(count) - expected).abs() < 0.014, "{count}: {}", share(count));
        }
        // Each model has draws of its own.
        let same = (0..1000).filter(|at| bag.repeats(1, *at, &seeds) == bag.repeats(2, *at, &seeds)).count();
        assert!((200..450).contains(&same), "{same}");
        let first = Bag { greedify: true, ..Bag::default() };
        assert!((0..100).all(|decision| first.repeats(0, decision, &seeds) == 1));
    }
}
