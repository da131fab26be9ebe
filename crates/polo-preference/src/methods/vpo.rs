//! VPO: value-incentivised preference optimisation (Cen et al. 2024, arXiv 2405.19320), its offline form.
//!
//! A reward is fitted to the pairs and, besides, to a high (optimism) or low (pessimism) optimal value. With rewards
//! centred under a calibration policy this is DPO's loss with a signed term on that policy's answers:
//!
//! ```text
//! h    = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]               nats, summed over tokens
//! loss = - log sigmoid(beta h)  +  sign alpha beta ( log pi(c|x) - log ref(c|x) )
//! ```
//!
//! with sign = -1 for pessimism, which belongs to a fixed set of pairs, and c an answer of the calibration policy. Here
//! alpha is per pair: the paper's is that times the number of pairs. With c the chosen answer and sign = -1 it is RPO
//! with eta = alpha, but for a constant.

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reads, Reduction, Rows, Scores, encode_as_pairs, mean},
    pairwise::{Link, labelled},
    settings::MethodSettings,
};

/// Settings of `polo train vpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vpo {
    /// Pull towards the reference.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Weight of the value, per pair; multiplied by beta. Usual range 0.001 to 0.5; 0 is DPO.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// `pessimism` (default), which raises the calibration answers' likelihood, or `optimism`, which lowers it and is
    /// unbounded below.
    pub attitude: Attitude,
    /// The calibration policy: the `chosen` answers (default), `both` answers of the pair (the policy that wrote
    /// them), or answers in the field `gold` (drawn from the reference, say).
    pub calibration: Calibration,
    /// Lowest log-ratio of a calibration answer that optimism still pushes down, nats; unset by default.
    #[schemars(range(max = 0.0))]
    pub floor: Option<f64>,
}

/// What is thought of answers that the data do not cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attitude {
    /// That they are bad: for a fixed set of pairs.
    #[default]
    Pessimism,
    /// That they are good: for exploring.
    Optimism,
}

/// Whose answers stand for the calibration policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Calibration {
    /// The chosen answers.
    #[default]
    Chosen,
    /// Both answers of each pair, half each.
    Both,
    /// The answers in the field `gold`; rows without one are left out.
    Gold,
}

impl Default for Vpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 0.05,
            attitude: Attitude::Pessimism,
            calibration: Calibration::Chosen,
            floor: None,
        }
    }
}

impl Settings for Vpo {}
impl MethodSettings for Vpo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Vpo {
    fn reads(&self) -> Reads {
        if self.calibration == Calibration::Gold { Reads::Lists } else { Reads::Pairs }
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        match self.calibration {
            Calibration::Gold => super::encode_as_triples(rows, tokenizer, limits),
            _ => encode_as_pairs(rows, tokenizer, limits),
        }
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let ratio = |slot| scores.log_ratio(slot, Reduction::Sum);
        let (chosen, rejected) = if self.calibration == Calibration::Gold { (1, 2) } else { (0, 1) };
        let z = scores.margin(chosen, rejected, Reduction::Sum) * self.beta;
        let preference = labelled(scores.labels.clone(), z, |z| Link::Logistic.loss(z));
        let mut calibration = match self.calibration {
            Calibration::Chosen | Calibration::Gold => ratio(0),
            Calibration::Both => (ratio(0) + ratio(1)) / 2.0,
        };
        let mut metrics = scores.pair_metrics(self.beta, chosen, rejected);
        // The optimal value of the reward under the calibration, J* = - beta E[log pi - log ref].
        metrics.set("value", -self.beta * mean(&calibration));
        if let (Some(floor), Attitude::Optimism) = (self.floor, self.attitude) {
            calibration = calibration.clamp_min(floor);
        }
        let sign = match self.attitude {
            Attitude::Pessimism => -1.0,
            Attitude::Optimism => 1.0,
        };
        Loss::new(preference + calibration * (sign * self.alpha * self.beta), metrics)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "vpo",
    title: "Value-incentivised preference optimisation",
    paper: "Cen, Mei, Goshvadi, Dai, Yang, Yang, Schuurmans, Chi, Dai: Value-Incentivized Preference Optimization: A \
            Unified Approach to Online and Offline RLHF",
    arxiv: "2405.19320",
    year: 2024,
    family: super::FAMILY,
    summary: "DPO with optimism or pessimism about the optimal value, as one signed log-likelihood term",
    claim: "offline, pessimism beats DPO where pairs cover the answers badly; online, optimism finds good answers that \
            the reference hardly ever gives",
    equation: "h    = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]\n\
               loss = -log sigmoid(beta h) + sign alpha beta [log pi(c|x) - log ref(c|x)]",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("c", "answer of the calibration policy (method.calibration)"),
        ("pi, ref", "trained model, frozen copy of its start"),
        ("sign", "-1 pessimism, +1 optimism (method.attitude)"),
        ("beta", "pull towards the reference (method.beta)"),
        ("alpha", "weight of the value, per pair (method.alpha)"),
    ],
    metrics: &[
        super::PAIR_METRICS[0],
        super::PAIR_METRICS[1],
        super::PAIR_METRICS[2],
        super::PAIR_METRICS[3],
        super::PAIR_METRICS[4],
        super::PAIR_METRICS[5],
        ("value", "estimate of the optimal value J* of the implicit reward, nats * beta"),
    ],
    reach_for: "few pairs from a narrow policy (pessimism)",
    avoid_when: "the calibration answers are poor and alpha is large",
    failure_signs: &[
        "logps/chosen falls without end under optimism: the term is unbounded below; smaller alpha, or method.floor",
        "no difference to DPO: alpha is multiplied by beta",
    ],
    variants: &[
        ("optimism", "method.attitude = \"optimism\""),
        ("calibrated by both answers", "method.calibration = \"both\""),
        ("calibrated by given answers", "method.calibration = \"gold\""),
    ],
};
