//! TPO: triple preference optimisation (Saeidi et al. 2024, arXiv 2405.16681), and its length-controlled form TPO-L.
//!
//! One stage from a base model, with three answers to each prompt: a gold one to imitate, and a pair. No reference.
//!
//! ```text
//! L(y), m(y) = sum, mean over tokens of log pi(y|x)                                nats
//! TPO:    loss = - log sigmoid( beta [L(w) - L(l)] )          + alpha nll(gold)
//! TPO-L:  loss = - log sigmoid( beta [m(w) - m(l)] - gamma )  + alpha nll(gold)
//! ```
//!
//! The paper writes the imitation as a sum over tokens, its code takes the mean over all gold tokens of the batch,
//! for which its alphas are made; `nll_reduction` has both. With two answers only (`gold = chosen`) it is CPO.

use burn::tensor::Tensor;
use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{
        Example, Loss, PairObjective, Reads, Reduction, Rows, Scores, best_first, encode_as_lists,
        encode_as_pairs, mean,
    },
    pairwise::{Link, NllReduction, labelled, smoothed},
    settings::MethodSettings,
};

/// Settings of `polo train tpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tpo {
    /// `tpo` (default) on sums over tokens, or `tpo-l` on means.
    pub form: Form,
    /// Scale of the margin. 0.01 for sums (long answers saturate otherwise; 0.1 for short ones), 2 to 10 for `tpo-l`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Margin of `tpo-l`, in units of beta times nats per token. Default from TRL.
    #[schemars(range(min = 0.0))]
    pub gamma: f64,
    /// Weight of the imitation. 1 for base models; the paper uses 0.05 for instruct models.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// Of the imitation. `token-pool` by default.
    pub nll_reduction: NllReduction,
    /// Of the preference: `logistic` (default), `hinge` (on sums, without gamma), or `ipo` (means against 1/(2 beta)).
    pub loss: Preference,
    /// Assumed share of flipped labels, under `logistic` only. 0 by default.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: f64,
    /// Answers per prompt: `three` (default), the best of a list being gold, or `two`: the chosen one is gold, too
    /// (CPO).
    pub answers: Answers,
    /// Rank of the answer that plays the chosen one, in lists of more than three: 2 (default) is the second best.
    #[schemars(range(min = 2))]
    pub chosen_rank: usize,
}

/// The paper's two forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Sums over tokens.
    #[default]
    Tpo,
    /// Means over tokens and a margin.
    TpoL,
}

/// The preference term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// -log sigmoid.
    #[default]
    Logistic,
    /// max(0, 1 - beta [L(w) - L(l)]).
    Hinge,
    /// (m(w) - m(l) - 1 / (2 beta))^2.
    Ipo,
}

/// Where the gold answer comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answers {
    /// Its own: rows have gold, chosen and rejected, or scores of three or more completions.
    #[default]
    Three,
    /// The chosen answer is gold.
    Two,
}

impl Default for Tpo {
    fn default() -> Self {
        Self {
            form: Form::Tpo,
            beta: 0.01,
            gamma: 0.5,
            alpha: 1.0,
            nll_reduction: NllReduction::TokenPool,
            loss: Preference::Logistic,
            label_smoothing: 0.0,
            answers: Answers::Three,
            chosen_rank: 2,
        }
    }
}

impl Settings for Tpo {}
impl MethodSettings for Tpo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Tpo {
    fn uses_reference(&self) -> bool {
        false
    }

    fn reads(&self) -> Reads {
        if self.answers == Answers::Two { Reads::Pairs } else { Reads::Lists }
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        if self.answers == Answers::Two {
            return encode_as_pairs(rows, tokenizer, limits);
        }
        encode_as_lists(rows, tokenizer, limits, |row| {
            let order = best_first(&row.scores);
            let roles = [order[0], *order.get(self.chosen_rank - 1)?, order[order.len() - 1]];
            // Roles that tie, or that one answer would play twice, are no triple.
            let falls = roles.windows(2).all(|two| row.scores[two[0]] > row.scores[two[1]]);
            falls.then(|| roles.to_vec())
        })
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let (gold, chosen, rejected) = match self.answers {
            Answers::Three => (0, 1, 2),
            Answers::Two => (0, 0, 1),
        };
        let reduction = match (self.form, self.loss) {
            (Form::Tpo, Preference::Logistic) | (_, Preference::Hinge) => Reduction::Sum,
            _ => Reduction::Mean,
        };
        let margin = scores.margin(chosen, rejected, reduction);
        let q = smoothed(scores.labels.clone(), self.label_smoothing);
        let preference: Tensor<1> = match (self.loss, self.form) {
            (Preference::Hinge, _) => Link::Hinge.loss(margin * self.beta),
            (Preference::Ipo, _) => (margin - 1.0 / (2.0 * self.beta)).square(),
            (Preference::Logistic, Form::Tpo) => labelled(q, margin * self.beta, |z| Link::Logistic.loss(z)),
            (Preference::Logistic, Form::TpoL) => {
                labelled(q, margin * self.beta - self.gamma, |z| Link::Logistic.loss(z))
            }
        };
        let mut metrics = scores.metrics_of_rewards(self.beta, reduction, chosen, rejected);
        let nll = scores.nll(gold, self.nll_reduction);
        metrics.set("nll_loss", mean(&nll));
        Loss::new(preference + nll * self.alpha, metrics)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "tpo",
    title: "Triple preference optimisation",
    paper: "Saeidi, Verma, RRV, Rasul, Baral: Triple Preference Optimization: Achieving Better Alignment using a \
            Single Step Optimization",
    arxiv: "2405.16681",
    year: 2024,
    family: super::FAMILY,
    summary: "imitates a gold answer and tells a pair apart in one stage from a base model; no reference",
    claim: "in one stage from a base model it reaches SFT followed by DPO with the same prompts and steps, or more",
    equation: "TPO:   loss = -log sigmoid(beta [L(w) - L(l)])         + alpha nll(gold)\n\
               TPO-L: loss = -log sigmoid(beta [m(w) - m(l)] - gamma) + alpha nll(gold)",
    symbols: &[
        ("gold, w, l", "answer to imitate, chosen answer, rejected answer"),
        ("L(y), m(y)", "sum, mean over tokens of the answer's log-probs, nats"),
        ("beta", "scale of the margin (method.beta)"),
        ("gamma", "margin of TPO-L (method.gamma)"),
        ("alpha", "weight of the imitation (method.alpha)"),
    ],
    metrics: &super::NLL_METRICS,
    reach_for: "a base model and several scored answers to each prompt, and no time for two stages",
    avoid_when: "a well-tuned reference is to be kept in reach (use dpo); only pairs are at hand (it is CPO then)",
    failure_signs: &[
        "loss stays: beta times the log-probs of long answers saturates the sigmoid; beta 0.01, or tpo-l",
        "samples collapse: alpha too small, nothing holds the likelihood up",
    ],
    variants: &[
        ("TPO-L", "method.form = \"tpo-l\", method.beta = 2.0"),
        ("CPO", "method.answers = \"two\""),
        ("hinge", "method.loss = \"hinge\""),
        ("IPO", "method.loss = \"ipo\""),
        ("imitation by sums", "method.nll_reduction = \"sum\""),
    ],
};
