//! The family's methods, one file each, and the registry that the program lists.

use polo_run::card::MethodCard;

pub mod dpo;
pub mod ipo;
pub mod sft;
pub mod srpo;

/// The family's cards, the most general method first.
pub const METHODS: [MethodCard; 4] = [srpo::CARD, dpo::CARD, ipo::CARD, sft::CARD];

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

#[cfg(test)]
mod tests;
