//! Reward model: a Bradley-Terry score of whole answers (Christiano et al. 2017, arXiv 1706.03741; Ouyang et al. 2022,
//! arXiv 2203.02155).
//!
//! A linear readout of the hidden state before the end token is fitted to pairs:
//!
//! ```text
//! r(x, y) = w . h(x, y)
//! loss    = - p log sigmoid(r(x, w) - r(x, l) - m) - (1 - p) log sigmoid(r(x, l) - r(x, w) - m)
//!           + centre (r(x, w) + r(x, l))^2                                          m: the margin asked for
//! ```
//!
//! The whole network learns, and the readout with it. `final/` is a model folder with a tensor `score.weight`, which
//! transformers opens for sequence classification and `polo score --reward-model` uses.

use burn::tensor::Tensor;
use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, ReadoutSettings, Rows, Scores, encode_as_pairs, mean, share},
    pairwise::Link,
    settings::{MethodSettings, Training},
};

/// Settings of `polo train reward-model`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModel {
    /// By how much the chosen answer's reward should be the larger. 0, the plain model, by default.
    #[schemars(range(min = 0.0))]
    pub margin: f64,
    /// Weight of the squared sum of both rewards, which keeps their mean at 0 (TRL's `center_rewards_coefficient`,
    /// usual value 0.01). 0 by default.
    #[schemars(range(min = 0.0))]
    pub centre: f64,
}

impl Settings for RewardModel {}
impl MethodSettings for RewardModel {
    const SLUG: &'static str = CARD.slug;

    fn training() -> Training {
        // TRL's default for reward models.
        Training { learning_rate: 1e-4, ..Training::default() }
    }
}

impl PairObjective for RewardModel {
    fn uses_reference(&self) -> bool {
        false
    }

    fn readout(&self) -> Option<ReadoutSettings> {
        // As transformers initialises heads.
        Some(ReadoutSettings { outputs: 1, std: 0.02, bias: false, keep: true, detached: false })
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        encode_as_pairs(rows, tokenizer, limits)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let reward = |slot: usize| -> Tensor<1> { scores.readouts[slot].clone().squeeze_dim(1) };
        let (won, lost) = (reward(0), reward(1));
        let z = won.clone() - lost.clone();
        let p = scores.labels.clone();
        let loss = |z: Tensor<1>| Link::Logistic.loss(z - self.margin);
        let centred = (won.clone() + lost.clone()).square() * self.centre;
        let each = p.clone() * loss(z.clone()) + (-p + 1.0) * loss(-z.clone()) + centred;
        let metrics: Metrics = [
            ("rewards/chosen", mean(&won)),
            ("rewards/rejected", mean(&lost)),
            ("rewards/accuracies", share(won.greater(lost))),
            ("rewards/margins", mean(&z)),
        ]
        .into_iter()
        .collect();
        Loss::new(each, metrics)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "reward-model",
    title: "Bradley-Terry reward model",
    paper: "Christiano, Leike, Brown, Martic, Legg, Amodei: Deep Reinforcement Learning from Human Preferences",
    arxiv: "1706.03741",
    year: 2017,
    family: super::FAMILY,
    summary: "a score of whole answers, fitted to pairs; judges new answers for sampling methods",
    claim: "a score fitted to comparisons stands in for the people who made them",
    equation: "r(x, y) = w . h(x, y)\n\
               loss    = -log sigmoid(r(x, w) - r(x, l) - margin) + centre (r(x, w) + r(x, l))^2",
    symbols: &[
        ("h(x, y)", "hidden state before the answer's end token, after the final norm"),
        ("w", "readout, trained with the network (score.weight)"),
        ("margin, centre", "method.margin, method.centre"),
    ],
    metrics: &[
        ("rewards/chosen", "mean score of the chosen answers"),
        ("rewards/rejected", "mean score of the rejected answers"),
        ("rewards/accuracies", "share of pairs whose chosen answer has the larger score"),
        ("rewards/margins", "rewards/chosen - rewards/rejected"),
    ],
    reach_for: "answers that are yet to be drawn must be scored (rso, brain, best of n)",
    avoid_when: "only the given pairs are to be learnt from: dpo needs no reward model",
    failure_signs: &[
        "rewards/accuracies near 1 on training and near 0.5 on held-out pairs: fewer epochs",
        "scores drift far from 0: method.centre = 0.01",
        "longer answers always win: the data have a bias for length, and so has the score",
    ],
    variants: &[("margin", "method.margin = 0.5"), ("centred rewards", "method.centre = 0.01")],
};
