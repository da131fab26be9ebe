//! RPO: regularised preference optimisation (Liu et al. 2024, arXiv 2405.16436).
//!
//! A policy that is best against the worst reward that still explains the data is found by DPO's loss plus a small
//! term of imitation on a baseline's answers (here the chosen ones):
//!
//! ```text
//! h    = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]               nats, summed over tokens
//! loss = - log sigmoid(beta h)  +  eta beta ( - log pi(w|x) )                      reduction = sum
//!        - log sigmoid(beta h)  +  nll_weight (mean over tokens of - log pi)       reduction = token-pool
//! ```
//!
//! The imitation puts a floor under DPO's vanishing weight: d loss / d log pi(w) = - beta (sigmoid(-beta h) + eta).
//! Not to be confused with iterative reasoning preference optimisation, which has the second form.

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reads, Reduction, Rows, Scores, encode_as_pairs, mean},
    pairwise::{Link, NllReduction, labelled},
    settings::MethodSettings,
};

/// Settings of `polo train rpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rpo {
    /// Pull towards the reference. The paper's models use 0.01 and 0.05.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Weight of the imitation under `sum`; it is multiplied by beta. Default from the paper; tiny models and short
    /// answers want 0.01 to 0.5. 0 is DPO.
    #[schemars(range(min = 0.0))]
    pub eta: f64,
    /// Of the imitation term: `sum` (default, weight eta beta) as in the paper's main text, or `token-pool` or
    /// `sequence-mean` (weight nll_weight), which its authors find better for reasoning.
    pub reduction: NllReduction,
    /// Weight of the imitation under `token-pool` and `sequence-mean`.
    #[schemars(range(min = 0.0))]
    pub nll_weight: f64,
    /// Whose answers are imitated: the `chosen` ones (default), or those in the field `gold`.
    pub baseline: Baseline,
}

/// Whose answers are imitated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The chosen answers.
    #[default]
    Chosen,
    /// The answers in the field `gold`; rows without one are left out.
    Gold,
}

impl Default for Rpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            eta: 0.005,
            reduction: NllReduction::Sum,
            nll_weight: 0.2,
            baseline: Baseline::Chosen,
        }
    }
}

impl Settings for Rpo {}
impl MethodSettings for Rpo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Rpo {
    fn reads(&self) -> Reads {
        match self.baseline {
            Baseline::Chosen => Reads::Pairs,
            Baseline::Gold => Reads::Lists,
        }
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        match self.baseline {
            Baseline::Chosen => encode_as_pairs(rows, tokenizer, limits),
            Baseline::Gold => super::encode_as_triples(rows, tokenizer, limits),
        }
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let (chosen, rejected, base) = match self.baseline {
            Baseline::Chosen => (0, 1, 0),
            Baseline::Gold => (1, 2, 0),
        };
        let z = scores.margin(chosen, rejected, Reduction::Sum) * self.beta;
        let preference = labelled(scores.labels.clone(), z, |z| Link::Logistic.loss(z));
        let nll = scores.nll(base, self.reduction);
        let weight = match self.reduction {
            NllReduction::Sum => self.eta * self.beta,
            _ => self.nll_weight,
        };
        let mut metrics = scores.pair_metrics(self.beta, chosen, rejected);
        metrics.set("nll_loss", mean(&nll));
        Loss::new(preference + nll * weight, metrics)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "rpo",
    title: "Regularised preference optimisation",
    paper: "Liu, Lu, Zhang, Liu, Guo, Yang, Blanchet, Wang: Provably Mitigating Overoptimization in RLHF: Your SFT \
            Loss is Implicitly an Adversarial Regularizer",
    arxiv: "2405.16436",
    year: 2024,
    family: super::FAMILY,
    summary: "DPO plus a small imitation of the chosen answers, which is pessimism about the reward",
    claim: "where few pairs cover the answers badly, a small imitation weight gives clearly more true reward than DPO, \
            and a large one clones the data",
    equation: "h    = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]\n\
               loss = -log sigmoid(beta h) - eta beta log pi(w|x)",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("pi, ref", "trained model, frozen copy of its start"),
        ("h", "margin of log-ratios, nats, summed over tokens"),
        ("beta", "pull towards the reference (method.beta)"),
        ("eta", "weight of the imitation, in units of beta (method.eta)"),
    ],
    metrics: &super::NLL_METRICS,
    reach_for: "DPO's chosen log-probs sink and its samples degrade; few pairs",
    avoid_when: "the chosen answers are poor: they are imitated",
    failure_signs: &[
        "the model merely copies the style of the data: eta too large",
        "no difference to DPO: eta is multiplied by beta; on sums of short answers 0.01 to 0.5 is needed",
    ],
    variants: &[
        ("imitation per token", "method.reduction = \"token-pool\""),
        ("another baseline's answers", "method.baseline = \"gold\""),
    ],
};
