//! SimPO: simple preference optimisation with a reference-free reward (Meng, Xia, Chen 2024, arXiv 2405.14734).
//!
//! The implicit reward is the mean log-prob of an answer's tokens, the same that ranks answers at generation:
//!
//! ```text
//! m(y) = (1 / |y|) sum over tokens of log pi(token | x, what stands before)        nats per token, end token included
//! u    = beta ( m(w) - m(l) - rho )                                                rho = gamma / beta
//! loss = - (1 - e) log sigmoid(u) - e log sigmoid(-u)  +  sft_weight * nll(w)
//! ```
//!
//! No reference model takes part.

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reduction, Rows, Scores, encode_as_pairs, mean},
    pairwise::{Link, NllReduction, labelled, smoothed},
    settings::MethodSettings,
};

/// Settings of `polo train simpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Simpo {
    /// Scale of the reward, which is a mean over tokens: one to two orders larger than DPO's beta. Usual range 2 to 10;
    /// default from the official code.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Margin rho = gamma / beta that the chosen answer must have, nats per token. Usual range 0 to 1; default from
    /// the official code. (TRL configures gamma itself.)
    #[schemars(range(min = 0.0))]
    pub gamma_beta_ratio: f64,
    /// Of u: `logistic` (default) or another.
    pub link: Link,
    /// Assumed share of flipped labels. 0 by default.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: f64,
    /// Weight of the chosen answers' negative log-likelihood, a mean over tokens. 0 by default; above 0 this is
    /// CPO-SimPO, which protects reasoning and hurts chat.
    #[schemars(range(min = 0.0))]
    pub sft_weight: f64,
    /// Over the answer's tokens. `mean` by default; `sum` is an ablation, whose rho is in nats per answer.
    pub reduction: Reduction,
}

impl Default for Simpo {
    fn default() -> Self {
        Self {
            beta: 2.0,
            gamma_beta_ratio: 0.25,
            link: Link::Logistic,
            label_smoothing: 0.0,
            sft_weight: 0.0,
            reduction: Reduction::Mean,
        }
    }
}

impl Settings for Simpo {}
impl MethodSettings for Simpo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Simpo {
    fn uses_reference(&self) -> bool {
        false
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        encode_as_pairs(rows, tokenizer, limits)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let q = smoothed(scores.labels.clone(), self.label_smoothing);
        let u = (scores.margin(0, 1, self.reduction) - self.gamma_beta_ratio) * self.beta;
        let mut each = labelled(q, u, |u| self.link.loss(u));
        let mut metrics = scores.metrics_of_rewards(self.beta, self.reduction, 0, 1);
        if self.sft_weight > 0.0 {
            let nll = scores.nll(0, NllReduction::TokenPool);
            metrics.set("nll_loss", mean(&nll));
            each = each + nll * self.sft_weight;
        }
        Loss::new(each, metrics)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "simpo",
    title: "Simple preference optimisation",
    paper: "Meng, Xia, Chen: SimPO: Simple Preference Optimization with a Reference-Free Reward",
    arxiv: "2405.14734",
    year: 2024,
    family: super::FAMILY,
    summary: "pairs told apart by the mean log-prob of their tokens and a margin; no reference model",
    claim: "ranks pairs as generation does, and beats DPO without longer answers",
    equation: "m(y) = (1 / |y|) sum over tokens of log pi(token | x, before)\n\
               loss = -log sigmoid(beta (m(w) - m(l) - rho)) + sft_weight nll(w)",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("m(y)", "mean log-prob of the answer's tokens, end token included, nats per token"),
        ("beta", "scale of the reward (method.beta)"),
        ("rho", "margin gamma / beta, nats per token (method.gamma_beta_ratio)"),
    ],
    metrics: &super::MEAN_METRICS,
    reach_for: "memory or time for a reference is short; DPO's answers grow too long",
    avoid_when: "the model must stay near its start (nothing anchors it): use dpo or ipo",
    failure_signs: &[
        "answers repeat themselves: learning rate too high; it is the most sensitive setting (3e-7 to 1e-6 for large \
         models)",
        "answers never end: the end token is missing from the data's answers",
        "no learning at TRL's numbers: there gamma is configured, here rho = gamma / beta",
    ],
    variants: &[
        ("without margin", "method.gamma_beta_ratio = 0.0"),
        ("CPO-SimPO", "method.sft_weight = 1.0"),
        ("hinge", "method.link = \"hinge\""),
        ("without length normalisation (ablation)", "method.reduction = \"sum\""),
    ],
};
