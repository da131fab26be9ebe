//! Online cover: policies that are each paid for what those before them do not do (Agarwal, Hsu, Kale, Langford, Li,
//! Schapire 2014, arXiv 1402.0555).
//!
//! ```text
//! p = 1/n sum_i best(policy i),   none below m = min(1/K, 1/sqrt(t K)), or epsilon/K
//! policy 1 learns costs as the oracle does; policy i > 1 learns c^_a - psi m / (max(p_a, m) / norm), where c^ are estimates
//! of all costs and p the shares of the policies before it; norm begins at (K - 1) m + 1/n and grows with what they add
//! ```

use polo_run::{Problem, Result, card::MethodCard, config::Settings, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    explore::{Explorer, cheapest, floor, floor_on_support},
    lesson::{Costs, Lesson},
    oracle::Oracle,
    stream::ExplorerSettings,
};

/// `[method]` of `polo train cover`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cover {
    /// Policies that share the decisions. Each has as many weights as the oracle's settings say.
    #[schemars(range(min = 1, max = 1000))]
    pub policies: usize,
    /// How much a policy is paid for what the ones before it do not do. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0))]
    pub psi: f64,
    /// No action is less likely than this over the number of actions; without it, than 1/sqrt(t K), and 1/K.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: Option<f64>,
    /// Whether the floor is for actions that some policy takes, and not for all.
    pub floor_on_support: bool,
    /// Of several cheapest actions, whether the first alone is taken.
    pub first_only: bool,
}

impl Default for Cover {
    fn default() -> Self {
        Self { policies: 5, psi: 1.0, epsilon: None, floor_on_support: false, first_only: false }
    }
}

impl Settings for Cover {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for Cover {
    const SLUG: &'static str = CARD.slug;

    fn takes(&self, costs: Costs) -> Result<()> {
        match costs {
            Costs::Mtr | Costs::Dr | Costs::Ips => Ok(()),
            Costs::Direct | Costs::Sm => {
                Err(Problem::usage("the policies of cover need estimates of all costs")
                    .place("oracle.costs")
                    .hint("mtr, dr or ips"))
            }
        }
    }
}

impl Cover {
    fn least(&self, actions: usize, learned: u64) -> f64 {
        let count = actions as f64;
        match self.epsilon {
            Some(epsilon) => epsilon / count,
            None => (1.0 / count).min(1.0 / (learned as f64 * count).sqrt()),
        }
    }

    fn share(&self, costs: &[f32]) -> Vec<f64> {
        let mut share = cheapest(costs, self.first_only);
        share.iter_mut().for_each(|p| *p /= self.policies as f64);
        share
    }

    /// What each policy but the first is taught, `[policies - 1, actions]`, given estimated costs `[actions]` and what the
    /// policies predict now, `[policies, actions]`.
    fn targets(&self, estimated: &[f32], predicted: &[Vec<f32>], learned: u64) -> Vec<Vec<f32>> {
        let count = estimated.len();
        let least = self.least(count, learned);
        let mut shares = self.share(&predicted[0]);
        let mut norm = (count as f64 - 1.0) * least + 1.0 / self.policies as f64;
        let mut of = |predicted: &Vec<f32>| {
            let paid = |share: f64| (self.psi * least / (share.max(least) / norm)) as f32;
            let targets = estimated.iter().zip(&shares).map(|(cost, share)| cost - paid(*share)).collect();
            for (share, more) in shares.iter_mut().zip(self.share(predicted)) {
                norm += (*share + more).max(least) - share.max(least);
                *share += more;
            }
            targets
        };
        predicted[1..].iter().map(&mut of).collect()
    }
}

impl Explorer for Cover {
    fn models(&self) -> usize {
        self.policies
    }

    fn scorers(&self, costs: Costs) -> usize {
        usize::from(costs != Costs::Ips)
    }

    fn probabilities(&self, costs: &[f32], learned: u64) -> Vec<f64> {
        self.together(&vec![costs.to_vec(); self.policies], learned)
    }

    fn together(&self, costs: &[Vec<f32>], learned: u64) -> Vec<f64> {
        let count = costs[0].len();
        let mut probabilities = vec![0.0; count];
        for costs in costs {
            probabilities.iter_mut().zip(self.share(costs)).for_each(|(p, share)| *p += share);
        }
        let epsilon = self.least(count, learned) * count as f64;
        match self.floor_on_support {
            true => floor_on_support(&mut probabilities, epsilon),
            false => floor(&mut probabilities, epsilon),
        }
        probabilities
    }

    fn teach(&self, oracle: &mut dyn Oracle, lesson: &Lesson, _seeds: &Seeds) -> Result<()> {
        let scorer = self.policies;
        let predicted: Vec<_> =
            (0..self.policies).map(|policy| oracle.costs(policy, lesson.decision)).collect();
        let estimated = match lesson.costs {
            Costs::Ips => {
                let mut costs = vec![0.0; lesson.decision.actions.len()];
                costs[lesson.outcome.action] = lesson.outcome.cost / lesson.probability;
                costs
            }
            // With Dr the first policy's own lesson teaches the scorer.
            costs => lesson.doubly_robust(oracle, scorer, costs == Costs::Mtr)?,
        };
        lesson.teach(oracle, 0, scorer)?;
        let targets = self.targets(&estimated, &predicted, lesson.learned);
        targets.iter().zip(1..).try_for_each(|(targets, policy)| lesson.teach_all(oracle, policy, targets))
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "cover",
    title: "Online cover",
    paper: "Agarwal, Hsu, Kale, Langford, Li, Schapire: Taming the Monster",
    arxiv: "1402.0555",
    year: 2014,
    family: super::FAMILY,
    summary: "contextual bandits from a log: several policies, each paid for doing what the ones before it do not",
    claim: "a small set of policies explores as well as the best distribution over all; here a baseline",
    equation: "p = 1/n sum_i best(policy i), none below m;   policy i learns c^_a - psi m / (max(p_a, m) / norm)",
    symbols: &[
        ("n, psi", "method.policies, method.psi"),
        ("m", "the least probability: min(1/K, 1/sqrt(t K)), or method.epsilon / K"),
        ("c^", "estimates of all costs, doubly robust unless oracle.costs = ips"),
        ("p, norm", "shares of the policies before, and the sum of max(p, m)"),
    ],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "exploration that should go where policies that are nearly as good disagree",
    avoid_when: "time is short: each policy learns every action of every decision (squarecb)",
    failure_signs: &[
        "all policies agree: raise method.psi",
        "probabilities stay flat: give method.epsilon, such as 0.05",
    ],
    variants: &[
        ("a fixed floor", "method.epsilon = 0.05"),
        ("the floor for what policies take", "method.floor_on_support = true"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explore::tests::{COSTS, check},
        lesson::tests::Spy,
    };

    #[test]
    fn the_golden_table() {
        let of = |epsilon, floor_on_support, t| {
            Cover { epsilon, floor_on_support, ..Cover::default() }.probabilities(&COSTS, t)
        };
        check(&of(Some(0.1), false, 7), &[0.025, 0.475, 0.025, 0.475]);
        check(&of(Some(0.1), true, 7), &[0.0, 0.5, 0.0, 0.5]);
        check(&of(None, false, 4), &[0.25; 4]);
        check(&of(None, false, 9), &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 6.0, 1.0 / 3.0]);
    }

    #[test]
    fn later_policies_are_paid_for_what_is_rare() {
        let check = |epsilon, psi, expected: [f32; 3]| {
            let cover = Cover { policies: 2, epsilon, psi, ..Cover::default() };
            let found = cover.targets(&[0.0, 2.0, 0.0], &[vec![0.0; 3], vec![0.0; 3]], 0);
            assert_eq!(found.len(), 1);
            let close = found[0].iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(close, "{found:?} is not {expected:?}");
        };
        check(Some(0.3), 1.0, [-0.42, 1.58, -0.42]);
        check(Some(0.3), 0.0, [0.0, 2.0, 0.0]);
        check(Some(0.3), 2.0, [-0.84, 1.16, -0.84]);
        check(None, 1.0, [-7.0 / 6.0, 5.0 / 6.0, -7.0 / 6.0]);
    }

    /// With costs by importance, the least probability that counts is that of the setting.
    #[test]
    fn probabilities_are_cut_in_all_costs() {
        let decision = crate::features::Decision {
            actions: vec![Default::default(); 2],
            weight: 1.0,
            ..Default::default()
        };
        let outcome = crate::features::Outcome { action: 0, cost: 1.0, probability: 0.01 };
        let cover = Cover { policies: 2, psi: 0.0, ..Cover::default() };
        let taught = |probability| {
            let lesson = Lesson {
                decision: &decision,
                outcome,
                probability,
                ratio: 0.5,
                learned: 0,
                costs: Costs::Ips,
            };
            let mut spy = Spy { said: vec![0.0; 2], ..Spy::default() };
            cover.teach(&mut spy, &lesson, &Seeds::new(0)).unwrap();
            spy.taught
        };
        assert_eq!(taught(0.5), [(0, 0, 2.0, 1.0), (0, 1, 0.0, 1.0), (1, 0, 2.0, 1.0), (1, 1, 0.0, 1.0)]);
    }

    /// With three policies the third sees what the first two take: norm = sum of max(p, m).
    #[test]
    fn the_third_policy_sees_both_before_it() {
        let cover = Cover { policies: 3, epsilon: Some(0.3), ..Cover::default() };
        let found = cover.targets(&[0.0; 3], &[vec![0.0, 1.0, 1.0], vec![0.0, 1.0, 1.0], vec![0.0; 3]], 0);
        let norm = 2.0 / 3.0 + 0.1 + 0.1;
        let expected = [-0.1 * norm * 1.5, -norm, -norm];
        assert!(found[1].iter().zip(expected).all(|(a, b)| (a - b as f32).abs() < 1e-6), "{found:?}");
    }
}
