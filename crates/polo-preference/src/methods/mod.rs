//! The family's methods, one file each, and the registry that the program lists.

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard};

use crate::objective::{Example, Rows, best_first, encode_as_lists};

pub mod brain;
pub mod curry_dpo;
pub mod dpo;
pub mod dpo_survey;
pub mod ipo;
pub mod rdpo;
pub mod reward_model;
pub mod rpo;
pub mod rso;
pub mod self_supervised_po;
pub mod sft;
pub mod simpo;
pub mod srpo;
pub mod token_dpo_q;
pub mod tpo;
pub mod vpo;

/// The family's cards, the most general method first.
pub const METHODS: &[MethodCard] = &[
    srpo::CARD,
    dpo::CARD,
    token_dpo_q::CARD,
    ipo::CARD,
    rdpo::CARD,
    simpo::CARD,
    rpo::CARD,
    vpo::CARD,
    tpo::CARD,
    curry_dpo::CARD,
    rso::CARD,
    brain::CARD,
    dpo_survey::CARD,
    self_supervised_po::CARD,
    reward_model::CARD,
    sft::CARD,
];

/// Names on the cards.
const FAMILY: &str = "offline preferences (language models)";

/// What TRL's metrics of a pair mean, for the cards.
const PAIR_METRICS: [(&str, &str); 6] = [
    (
        "rewards/chosen",
        "beta * log pi/ref of the chosen answer, nats * beta; below 0: less likely than at the start",
    ),
    ("rewards/rejected", "the same for the rejected answer"),
    (
        "rewards/accuracies",
        "share of pairs whose chosen reward is the larger; 0 at the start, where all are equal",
    ),
    ("rewards/margins", "rewards/chosen - rewards/rejected"),
    ("logps/chosen", "log pi of the chosen answer, nats, summed over its tokens"),
    ("logps/rejected", "the same for the rejected answer"),
];

/// The same for methods whose reward is a log-prob without a reference.
const MEAN_METRICS: [(&str, &str); 6] = [
    ("rewards/chosen", "beta * log-prob of the chosen answer as the loss reduces it, without reference"),
    ("rewards/rejected", "the same for the rejected answer"),
    ("rewards/accuracies", "share of pairs whose chosen reward is the larger"),
    ("rewards/margins", "rewards/chosen - rewards/rejected"),
    ("logps/chosen", "log-prob of the chosen answer as the loss reduces it (per token for means), nats"),
    ("logps/rejected", "the same for the rejected answer"),
];

/// The same for methods that also imitate.
const NLL_METRICS: [(&str, &str); 7] = [
    PAIR_METRICS[0],
    PAIR_METRICS[1],
    PAIR_METRICS[2],
    PAIR_METRICS[3],
    PAIR_METRICS[4],
    PAIR_METRICS[5],
    (
        "nll_loss",
        "negative log-likelihood of the imitated answers, nats (per token, or per answer under `sum`)",
    ),
];

/// Lists to triples: slot 0 is the gold answer (the best), 1 the chosen (second), 2 the rejected (worst). Lists of
/// fewer than three are left out.
fn encode_as_triples(rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
    encode_as_lists(rows, tokenizer, limits, |row| {
        let order = best_first(&row.scores);
        (order.len() >= 3).then(|| vec![order[0], order[1], order[order.len() - 1]])
    })
}

#[cfg(test)]
mod degrees_tests;
#[cfg(test)]
mod offline_tests;
#[cfg(test)]
mod tests;
