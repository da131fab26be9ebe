//! DPO: direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).
//!
//! Fits the Bradley-Terry model whose reward is the policy's own log-ratio to the reference:
//!
//! ```text
//! h(w, l) = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]            nats, summed over tokens
//! loss    = - q log sigmoid(beta h) - (1 - q) log sigmoid(-beta h)
//! q       = (1 - e) p + e (1 - p)                      p: the row's label, 1 by default; e: label smoothing
//! ```
//!
//! With p = 1 and e = 0 this is the paper's loss; e > 0 is conservative DPO (cDPO, Mitchell 2023).

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reduction, Rows, Scores, encode_as_pairs},
    pairwise::{Link, labelled, smoothed},
    settings::MethodSettings,
};

/// Settings of `polo train dpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// Pull towards the reference; smaller lets the policy move further. Usual range 0.01 to 0.5; default from TRL.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Assumed share of flipped labels (cDPO): the margin then has a finite target. 0, the paper's loss, by default.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self { beta: 0.1, label_smoothing: 0.0 }
    }
}

impl Settings for Dpo {}
impl MethodSettings for Dpo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Dpo {
    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        encode_as_pairs(rows, tokenizer, limits)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let q = smoothed(scores.labels.clone(), self.label_smoothing);
        let z = scores.margin(0, 1, Reduction::Sum) * self.beta;
        let each = labelled(q, z, |z| Link::Logistic.loss(z));
        Loss::new(each, scores.pair_metrics(self.beta, 0, 1))
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "dpo",
    title: "Direct preference optimisation",
    paper: "Rafailov, Sharma, Mitchell, Ermon, Manning, Finn: Direct Preference Optimization: Your Language Model is \
            Secretly a Reward Model",
    arxiv: "2305.18290",
    year: 2023,
    family: super::FAMILY,
    summary: "classification of pairs by the policy's own log-ratio to a frozen reference; the usual first choice",
    claim: "reaches the reward of PPO-based RLHF or better at equal KL, without reward model or sampling",
    equation: "h    = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]\n\
               loss = - q log sigmoid(beta h) - (1 - q) log sigmoid(-beta h)\n\
               q    = (1 - e) p + e (1 - p)",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("pi, ref", "trained model, frozen copy of its start"),
        ("h", "margin of log-ratios, nats, summed over tokens"),
        ("beta", "pull towards the reference (method.beta)"),
        ("p", "label: probability that w beats l; 1 unless the row says otherwise"),
        ("e", "label smoothing (method.label_smoothing)"),
    ],
    metrics: &super::PAIR_METRICS,
    reach_for: "many pairs, labels that look like noisy comparisons of a scalar quality",
    avoid_when: "labels are deterministic and few (the margin grows without bound: use ipo), or the answers are to be \
                 improved by the model itself afterwards (use srpo)",
    failure_signs: &[
        "logps/chosen falls together with logps/rejected: usual to a degree; if samples degrade, raise beta or stop \
         earlier",
        "rewards/accuracies near 1 on training and near 0.5 on held-out pairs: overfit; fewer epochs, larger beta",
        "loss stays at 0.693: learning rate too small, or chosen and rejected are swapped at random",
    ],
    variants: &[
        ("conservative DPO (cDPO)", "method.label_smoothing = 0.1"),
        ("soft labels", "a field `label` in [0, 1] in the data"),
    ],
};
