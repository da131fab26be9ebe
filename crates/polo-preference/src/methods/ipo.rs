//! IPO: identity preference optimisation (Azar et al. 2023, arXiv 2310.12036).
//!
//! Regresses the margin of a pair onto a fixed target, so that the pull towards the reference still works when labels
//! are deterministic (where DPO's margin runs away):
//!
//! ```text
//! h(w, l) = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]            nats
//! loss    = ( h(w, l) - (2p - 1) / (2 beta) )^2                      p: the row's label, 1 by default
//! ```
//!
//! The paper sums log-probs over an answer's tokens; TRL's `ipo` takes their mean.

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reduction, Rows, Scores, encode_as_pairs},
    settings::MethodSettings,
};

/// Settings of `polo train ipo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ipo {
    /// Pull towards the reference (the paper's tau). The margin aims at 1/(2 beta) nats: per answer under `sum`, per
    /// token under `mean`. Usual range 0.1 to 1; default from TRL.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Over the answer's tokens. The paper's `sum` by default; TRL has `mean` alone.
    pub reduction: Reduction,
}

impl Default for Ipo {
    fn default() -> Self {
        Self { beta: 0.1, reduction: Reduction::Sum }
    }
}

impl Settings for Ipo {}
impl MethodSettings for Ipo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Ipo {
    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        encode_as_pairs(rows, tokenizer, limits)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let target = (scores.labels.clone() * 2.0 - 1.0) / (2.0 * self.beta);
        let each = (scores.margin(0, 1, self.reduction) - target).square();
        Loss::new(each, scores.pair_metrics(self.beta, 0, 1))
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "ipo",
    title: "Identity preference optimisation",
    paper: "Azar, Rowland, Piot, Guo, Calandriello, Valko, Munos: A General Theoretical Paradigm to Understand \
            Learning from Human Preferences",
    arxiv: "2310.12036",
    year: 2023,
    family: super::FAMILY,
    summary: "squared regression of a pair's margin onto 1/(2 beta); does not run away on deterministic labels",
    claim: "with deterministic preferences IPO stays near the reference as beta asks, where DPO ignores beta",
    equation: "h    = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]\n\
               loss = (h - (2p - 1) / (2 beta))^2",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("pi, ref", "trained model, frozen copy of its start"),
        ("h", "margin of log-ratios, nats; sums over tokens, or means (method.reduction)"),
        ("beta", "pull towards the reference (method.beta)"),
        ("p", "label: probability that w beats l; 1 unless the row says otherwise"),
    ],
    metrics: &super::PAIR_METRICS,
    reach_for: "few, clean labels; preferences that no scalar score explains",
    avoid_when: "labels are noisy comparisons of a scalar quality (dpo fits them better)",
    failure_signs: &[
        "samples collapse although the loss falls: 1/(2 beta) nats are more than such short answers can give; raise \
         beta",
        "loss near 1/(4 beta^2) for long: learning rate too small for the target",
    ],
    variants: &[
        ("TRL's `ipo`", "method.reduction = \"mean\""),
        ("soft labels", "a field `label` in [0, 1] in the data"),
    ],
};
