//! What a decision's outcome teaches an oracle: the logged action's cost alone, or an estimate of every action's.

use polo_run::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    features::{Decision, Outcome},
    oracle::Oracle,
};

/// What the oracle is fitted to. `c` is the logged cost, `p` the probability of the logged action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Costs {
    /// The logged action's cost, with the weight 1/p times decisions per action so far.
    #[default]
    Mtr,
    /// Every action's cost: the logged one's is c/p, the others' 0.
    Ips,
    /// Every action's cost: the logged one's is c, the others' 0.
    Direct,
    /// Every action's cost: f + 1[logged] (c - f)/p, with f a second model of the same kind, fitted to logged costs.
    Dr,
    /// Every action's cost, so that the softmax of minus predictions climbs the estimated reward (supervised mode). Vowpal
    /// Wabbit 9.11 gives these targets to actions in the order of their predictions; here each action has its own.
    Sm,
}

/// A decision with its outcome, at the time when it is learnt.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// The decision.
    pub decision: &'a Decision,
    /// What was done and what it cost.
    pub outcome: Outcome,
    /// Probability that counts: the logged one, raised to the least that may be, or 1 for schemes without weights.
    pub probability: f32,
    /// Decisions over actions learnt so far, this decision included.
    pub ratio: f32,
    /// Decisions learnt before.
    pub learned: u64,
    /// What is regressed on.
    pub costs: Costs,
}

/// Targets of [`Costs::Sm`] lie within this.
const MOST_TARGET: f32 = 100.0;

impl Lesson<'_> {
    /// Teaches a model; `scorer` is the second model of [`Costs::Dr`].
    ///
    /// # Errors
    /// Those of the oracle.
    pub fn teach(&self, oracle: &mut dyn Oracle, model: usize, scorer: usize) -> Result<()> {
        let Self { decision, outcome: Outcome { action: logged, cost, .. }, probability, .. } = *self;
        let others_free = |cost: f32| -> Vec<f32> {
            (0..decision.actions.len()).map(|action| if action == logged { cost } else { 0.0 }).collect()
        };
        let targets = match self.costs {
            Costs::Mtr => {
                let importance = decision.weight * self.ratio / probability;
                return oracle.learn(model, decision, logged, cost, importance);
            }
            Costs::Sm => return self.supervise(oracle, model),
            Costs::Ips => others_free(cost / probability),
            Costs::Direct => others_free(cost),
            Costs::Dr => self.doubly_robust(oracle, scorer, true)?,
        };
        self.teach_all(oracle, model, &targets)
    }

    /// Teaches a model the cost of every action, `[actions]`.
    ///
    /// # Errors
    /// Those of the oracle.
    pub fn teach_all(&self, oracle: &mut dyn Oracle, model: usize, targets: &[f32]) -> Result<()> {
        let weight = self.decision.weight;
        targets
            .iter()
            .enumerate()
            .try_for_each(|(action, cost)| oracle.learn(model, self.decision, action, *cost, weight))
    }

    /// Every action's cost, f + 1[logged] (c - f)/p, `[actions]`, and the scorer f learns on the way if it is to. The
    /// prediction for the logged action is the one before that; those of later rows, as in Vowpal Wabbit, come after it.
    ///
    /// # Errors
    /// Those of the oracle.
    pub fn doubly_robust(&self, oracle: &mut dyn Oracle, scorer: usize, learn: bool) -> Result<Vec<f32>> {
        let Self { decision, outcome, probability, .. } = *self;
        let of = |action: usize| {
            let mut cost = oracle.estimate(scorer, decision, action);
            if action == outcome.action {
                cost += (outcome.cost - cost) / probability;
                if learn {
                    let importance = decision.weight / outcome.probability;
                    oracle.learn(scorer, decision, action, outcome.cost, importance)?;
                }
            }
            Ok(cost)
        };
        (0..decision.actions.len()).map(of).collect()
    }

    fn supervise(&self, oracle: &mut dyn Oracle, model: usize) -> Result<()> {
        let Self { decision, outcome, .. } = *self;
        let predicted = oracle.costs(model, decision);
        let least = predicted.iter().copied().fold(f32::INFINITY, f32::min);
        let powers: Vec<f32> = predicted.iter().map(|cost| (least - cost).exp()).collect();
        let sum: f32 = powers.iter().sum();
        // Weights cannot be negative: the sign of the cost turns the targets round.
        let sign = if outcome.cost < 0.0 { -1.0 } else { 1.0 };
        let common = (outcome.cost / outcome.probability).abs() * powers[outcome.action] / sum;
        for (action, (f, power)) in predicted.iter().zip(&powers).enumerate() {
            let share = power / sum;
            let (target, weight) = match action == outcome.action {
                true => (f + sign, common * (1.0 - share)),
                false => (f - sign, common * share),
            };
            let target = target.clamp(-MOST_TARGET, MOST_TARGET);
            oracle.learn(model, decision, action, target, decision.weight * weight)?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Models that say a fixed cost and write down what they are taught.
    #[derive(Default)]
    pub struct Spy {
        pub said: Vec<f32>,
        pub taught: Vec<(usize, usize, f32, f32)>,
    }

    impl Oracle for Spy {
        fn predict(&self, _: usize, _: &Decision, action: usize) -> f32 {
            self.said[action]
        }

        fn learn(
            &mut self,
            model: usize,
            _: &Decision,
            action: usize,
            cost: f32,
            importance: f32,
        ) -> Result<()> {
            self.taught.push((model, action, cost, importance));
            Ok(())
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

    #[track_caller]
    fn check(costs: Costs, said: &[f32], expected: &[(usize, usize, f32, f32)]) {
        // A decision that stands for two counts twice.
        for weight in [1.0, 2.0] {
            let decision = Decision { actions: vec![Default::default(); 3], weight, ..Decision::default() };
            let outcome = Outcome { action: 1, cost: 0.5, probability: 0.25 };
            let (probability, ratio) = (0.25, 1.0 / 3.0);
            let lesson = Lesson { decision: &decision, outcome, probability, ratio, learned: 0, costs };
            let mut spy = Spy { said: said.to_vec(), ..Spy::default() };
            lesson.teach(&mut spy, 0, 7).unwrap();
            let close = spy.taught.iter().zip(expected).all(|(a, b)| {
                (a.0, a.1) == (b.0, b.1) && (a.2 - b.2).abs() < 1e-6 && (a.3 - weight * b.3).abs() < 1e-6
            });
            assert!(close && spy.taught.len() == expected.len(), "{:?} is not {expected:?}", spy.taught);
        }
    }

    #[test]
    fn each_kind_of_costs_teaches_its_targets() {
        check(Costs::Mtr, &[0.0; 3], &[(0, 1, 0.5, 4.0 / 3.0)]);
        check(Costs::Ips, &[0.0; 3], &[(0, 0, 0.0, 1.0), (0, 1, 2.0, 1.0), (0, 2, 0.0, 1.0)]);
        check(Costs::Direct, &[0.0; 3], &[(0, 0, 0.0, 1.0), (0, 1, 0.5, 1.0), (0, 2, 0.0, 1.0)]);
        // f = 0.4: 0.4 + 0.1 / 0.25.
        let dr = [(7, 1, 0.5, 4.0), (0, 0, 0.3, 1.0), (0, 1, 0.8, 1.0), (0, 2, 0.2, 1.0)];
        check(Costs::Dr, &[0.3, 0.4, 0.2], &dr);
        // Even chances: |c|/p s (1 - s) = 2 x 1/3 x 2/3, and 2 x 1/3 x 1/3.
        let sm = [(0, 0, -1.0, 2.0 / 9.0), (0, 1, 1.0, 4.0 / 9.0), (0, 2, -1.0, 2.0 / 9.0)];
        check(Costs::Sm, &[0.0; 3], &sm);
    }
}
