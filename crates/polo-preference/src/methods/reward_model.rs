//! Reward models: a Bradley-Terry score of whole answers, or a ranker of two answers side by side (Christiano et al. 2017, arXiv 1706.03741; Ouyang et al. 2022,
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
//! The ranker reads both answers, one after the other, and says how likely the first is the better one; it is taught and
//! asked in both orders, so that no position is favoured (SLiC's and RSO's pairwise ranking model):
//!
//! ```text
//! f(x, a, b)       = w . h(x, a, b)                                  logit of "a is better than b"
//! loss             = - (p log sigmoid(f(x, w, l)) + p log sigmoid(-f(x, l, w))) / 2, and 1 - p the other way round
//! logit P(a > b)   = (f(x, a, b) - f(x, b, a)) / 2
//! ```
//!
//! The whole network learns, and the readout with it. `final/` is a model folder with a tensor `score.weight`, which
//! transformers opens for sequence classification and `polo score --reward-model` uses.

use burn::tensor::Tensor;
use polo_lm::{
    encode::{Encoded, Limits, one_after_another},
    tokens::Tokenizer,
};
use polo_run::{Problem, Result, card::MethodCard, config::Settings, metrics::Metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{
        Example, Loss, PairObjective, ReadoutSettings, Rows, Scores, Tree, encode_as_pairs, mean, share,
    },
    pairwise::Link,
    settings::{MethodSettings, Training},
};

/// Settings of `polo train reward-model`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModel {
    /// What is learnt: a score of one answer (`bradley-terry`, default) or a comparison of two (`ranker`), whose rewards
    /// are against a baseline.
    pub kind: RewardKind,
    /// By how much the chosen answer's reward should be the larger. 0, the plain model, by default.
    #[schemars(range(min = 0.0))]
    pub margin: f64,
    /// Weight of the squared sum of both rewards, which keeps their mean at 0 (TRL's `center_rewards_coefficient`,
    /// usual value 0.01). 0 by default.
    #[schemars(range(min = 0.0))]
    pub centre: f64,
}

/// What a reward model reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RewardKind {
    /// One answer, which gets a score.
    #[default]
    BradleyTerry,
    /// Two answers, one after the other.
    Ranker,
}

impl Settings for RewardModel {
    fn check(&self) -> Result<()> {
        if self.kind == RewardKind::Ranker && (self.margin > 0.0 || self.centre > 0.0) {
            return Err(Problem::usage("a ranker has neither margin nor centre")
                .place("method.kind")
                .hint("set method.margin and method.centre to 0, or method.kind = \"bradley-terry\""));
        }
        Ok(())
    }
}

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
        let pairs = self.kind == RewardKind::Ranker;
        Some(ReadoutSettings { outputs: 1, std: 0.02, bias: false, keep: true, detached: false, pairs })
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        let mut encoded = encode_as_pairs(rows, tokenizer, limits)?;
        if self.kind == RewardKind::Ranker {
            let before = encoded.rows.len();
            encoded.rows.retain_mut(|example| {
                let Tree { prompt, answers } = &example.trees[0];
                let after = |first: usize| {
                    let (first, second) = (&answers[first], &answers[1 - first]);
                    let prompt = one_after_another(prompt, first, second, limits.max_length)?;
                    Some(Tree { prompt, answers: vec![second.clone()] })
                };
                let Some(trees) = after(0).zip(after(1)) else { return false };
                example.trees = vec![trees.0, trees.1];
                true
            });
            encoded.report.dropped += before - encoded.rows.len();
            encoded.report.rows = encoded.rows.len();
        }
        Ok(encoded)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let reward = |slot: usize| -> Tensor<1> { scores.readouts[slot].clone().squeeze_dim(1) };
        let (won, lost) = (reward(0), reward(1));
        if self.kind == RewardKind::Ranker {
            return ranked(won, lost, scores.labels.clone());
        }
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

/// The ranker's loss, from the logits of "the first is better" in both orders: chosen first, rejected first.
fn ranked(chosen_first: Tensor<1>, rejected_first: Tensor<1>, p: Tensor<1>) -> Loss {
    let loss = |z: Tensor<1>| Link::Logistic.loss(z);
    let in_order = loss(chosen_first.clone()) + loss(-rejected_first.clone());
    let turned = loss(-chosen_first.clone()) + loss(rejected_first.clone());
    let each = (p.clone() * in_order + (-p + 1.0) * turned) * 0.5;
    let logit = (chosen_first.clone() - rejected_first.clone()) * 0.5;
    let metrics: Metrics = [
        ("rewards/accuracies", share(logit.clone().greater_elem(0.0))),
        ("rewards/margins", mean(&logit)),
        ("rewards/first", mean(&((chosen_first + rejected_first) * 0.5))),
    ]
    .into_iter()
    .collect();
    Loss::new(each, metrics)
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
        (
            "rewards/margins",
            "rewards/chosen - rewards/rejected; of a ranker, mean logit of the chosen answer's winning",
        ),
        (
            "rewards/first",
            "ranker: mean logit of the first answer's winning, 0 where no position is favoured",
        ),
    ],
    reach_for: "answers that are yet to be drawn must be scored (rso, brain, best of n)",
    avoid_when: "only the given pairs are to be learnt from: dpo needs no reward model",
    failure_signs: &[
        "rewards/accuracies near 1 on training and near 0.5 on held-out pairs: fewer epochs",
        "scores drift far from 0: method.centre = 0.01",
        "longer answers always win: the data have a bias for length, and so has the score",
    ],
    variants: &[
        ("pairwise ranker", "method.kind = \"ranker\""),
        ("margin", "method.margin = 0.5"),
        ("centred rewards", "method.centre = 0.01"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        methods::tests::{close, encoded, of_ratios, pairs},
        objective::differentiate,
    };

    #[test]
    fn a_ranker_sees_both_orders() {
        let ranker = RewardModel { kind: RewardKind::Ranker, ..RewardModel::default() };
        let (example, trees) = encoded(&ranker, &pairs(1)).remove(0);
        let tree = |prompt: &str, answer: &str| (prompt.to_owned(), vec![answer.to_owned()]);
        assert_eq!(trees, [tree("x good", "bad"), tree("x bad", "good")]);
        assert_eq!(example.label, 0.9);
        // By hand, at f(x, w, l) = 1.2 and f(x, l, w) = -0.4; turning the label round turns the loss round.
        let mut batch = of_ratios(&[vec![0.0; 2], vec![0.0; 2]], &[1.0, 0.25]);
        batch.readouts = vec![vec![vec![1.2]; 2], vec![vec![-0.4]; 2]];
        let found = differentiate(&ranker, &batch);
        let softplus = |z: f64| z.exp().ln_1p();
        let (right, wrong) = ((softplus(-1.2) + softplus(-0.4)) / 2.0, (softplus(1.2) + softplus(0.4)) / 2.0);
        close(&found.each, &[right, 0.25 * right + 0.75 * wrong], 1e-12);
        let slopes = [found.readouts[0][0][0], found.readouts[1][0][0]];
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        close(&slopes, &[-0.5 * sigmoid(-1.2), 0.5 * sigmoid(-0.4)], 1e-12);
        assert_eq!(found.metrics.get("rewards/margins"), Some(0.8));
        let both = RewardModel { margin: 1.0, ..ranker };
        assert!(both.check().unwrap_err().message().contains("neither margin nor centre"));
    }

    #[test]
    fn what_fills_the_context_is_cut_or_left_out() {
        let check = |most, expected: Option<&[u32]>| {
            assert_eq!(one_after_another(&[1, 2, 3], &[4, 5], &[6], most).as_deref(), expected);
        };
        check(6, Some(&[1, 2, 3, 4, 5]));
        check(5, Some(&[2, 3, 4, 5]));
        check(4, Some(&[3, 4, 5]));
        check(3, None);
        check(0, None);
    }
}
