//! Cal-QL: calibrated Q-learning (Nakamoto et al. 2023, arXiv 2303.05479), CQL as a start for learning online.
//!
//! CQL's critics promise less than the data earned, and what is then met in the environment first destroys a policy that
//! was good. Cal-QL presses the values of the policy's actions down only as far as the return G(s) that the data's own
//! episode went on to earn:
//!
//! ```text
//! Q(s, a_c) <- max(Q(s, a_c), G(s)),   Q(s, a_n) <- max(Q(s, a_n), G(s))      in CQL's penalty, before densities
//! ```
//!
//! Values of uniform actions are left alone, and so is everything in an environment, where returns to go are not known.

use polo_run::{Problem, Result, card::MethodCard, config::Settings, seed::Seeds};
use polo_sim::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Control, Learner, Source,
    cql::{self, Cql, CqlLearner},
};
use crate::{data::Wishes, settings::MethodSettings};

/// Settings of `polo train cal-ql`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CalQl {
    /// An episode whose last reward is the least of all counts as failed, and as earning that for ever: r / (1 - gamma)
    /// at each of its steps. For tasks whose every step costs the same until they are done. Off by default.
    pub sparse: bool,
    /// What it shares with CQL.
    pub cql: Cql,
}

impl Settings for CalQl {
    fn check(&self) -> Result<()> {
        if self.sparse && self.cql.gamma >= 1.0 {
            return Err(Problem::usage("what failed episodes earn for ever has no bound without a discount")
                .place("method.sparse")
                .hint("leave it off, or set method.cql.gamma below 1"));
        }
        self.cql.check_under("method.cql")
    }
}

impl MethodSettings for CalQl {
    const SLUG: &'static str = CARD.slug;
}

impl Control for CalQl {
    fn source(&self) -> Source {
        self.cql.source()
    }

    fn wishes(&self) -> Wishes {
        Wishes { returns_to_go: Some(self.cql.gamma), sparse: self.sparse, ..self.cql.wishes() }
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let learner = CqlLearner::new(&self.cql, true, observations, actions, seeds)?;
        Ok(Learner::OffPolicy(Box::new(learner)))
    }
}

/// Raises values of the policy's actions to the returns to go, where there are any: of each row of `values`, the data's
/// action comes first, then `samples` uniform ones, then twice as many of the policy. Says which places were raised; no
/// slope passes through them.
pub(super) fn lift(values: &mut [f32], returns_to_go: &[f32], samples: usize) -> Vec<usize> {
    let (width, first) = (1 + 3 * samples, 1 + samples);
    let mut raised = Vec::new();
    for (row, (values, &floor)) in values.chunks_exact_mut(width).zip(returns_to_go).enumerate() {
        for (at, value) in values.iter_mut().enumerate().skip(first) {
            if *value < floor {
                *value = floor;
                raised.push(row * width + at);
            }
        }
    }
    raised
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "cal-ql",
    title: "Calibrated Q-learning",
    paper: "Nakamoto, Zhai, Singh, Sobol Mark, Ma, Finn, Kumar, Levine: Cal-QL: Calibrated Offline RL Pre-Training for \
            Efficient Online Fine-Tuning",
    arxiv: "2303.05479",
    year: 2023,
    summary: "CQL as a start for learning online: critics are pressed no lower than what the data earned",
    claim: "critics that never promise less than the data earned keep a policy from falling at the beginning of \
            fine-tuning; here a baseline",
    equation: "L of cql, in whose penalty first\n\
               Q(s,a_c) <- max(Q(s,a_c), G(s)),   Q(s,a_n) <- max(Q(s,a_n), G(s))",
    symbols: &[
        ("G(s)", "discounted return to go of the data's transition, in rewards as they are learnt from"),
        (
            "a_c, a_n",
            "actions of the policy at s and at s', as in cql; those drawn uniformly stay as they are",
        ),
        ("the rest", "as in cql, under method.cql"),
    ],
    metrics: &[
        (
            "losses/lifted",
            "share of the policy's values that lie below G(s) and were raised; 0 in an environment",
        ),
        ("those of cql", "see `polo explain cql`"),
    ],
    reach_for: "data first, then an environment: --env ID with data.offline_steps",
    avoid_when: "nothing follows the data (cql, td3-bc, iql), or episodes are cut long before their returns are earned: \
                 G(s) then is too low to matter",
    failure_signs: &[
        "losses/lifted near 0 from the beginning: values lie above returns; raise method.cql.alpha",
        "returns fall when steps in the environment begin: check that lifted is not 0 at the end of the data, and set \
         method.sparse if failure costs the same at every step",
    ],
    variants: &[
        ("failed episodes earn their reward for ever", "method.sparse = true"),
        (
            "as CORL on AntMaze",
            "method.sparse = true, method.cql.policy_rate = 1e-4, method.cql.alpha = 5, method.cql.critic_hidden = \
             [256, 256, 256, 256, 256], method.cql.gap = 0.8, method.cql.max_target = true, \
             method.cql.least_difference = -200, data.reward_scale = 10, data.reward_shift = -5",
        ),
        (
            "data first, then an environment",
            "--env ID --set data.offline_steps=100000 --set training.steps=200000",
        ),
        ("more or less of the data in later batches", "data.share = 0.25"),
    ],
    ..cql::CARD
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_policy_are_raised_to_the_return_to_go() {
        // One uniform action, two of the policy; the second row has a low return.
        let before = [0.0, -5.0, -5.0, 3.0, 0.0, -5.0, -5.0, 3.0];
        let mut values = before;
        assert_eq!(lift(&mut values, &[2.0, -9.0], 1), [2]);
        assert_eq!(values, [0.0, -5.0, 2.0, 3.0, 0.0, -5.0, -5.0, 3.0]);
        let mut values = before;
        assert!(lift(&mut values, &[], 1).is_empty());
        assert_eq!(values, before);
    }

    #[test]
    fn failure_without_a_discount_is_refused() {
        let mut method = CalQl { sparse: true, ..CalQl::default() };
        assert!(method.check().is_ok());
        method.cql.gamma = 1.0;
        assert_eq!(method.check().unwrap_err().place_text(), Some("method.sparse"));
        method.sparse = false;
        method.cql.critic_hidden = vec![0];
        assert_eq!(method.check().unwrap_err().place_text(), Some("method.cql.critic_hidden"));
    }
}
