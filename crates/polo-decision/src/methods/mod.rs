//! The methods: one file each, to be read from top to bottom beside the paper.

use polo_run::card::MethodCard;

pub mod adversarial_linear_mdp;
pub mod adyen_bandits;
pub mod bag;
pub mod epsilon_greedy;
pub mod explore_first;
pub mod fastcb;
pub mod martingale_td;
pub mod r2pvi;
pub mod randomized_pbrl;
pub mod softmax;
pub mod squarecb;
pub mod weighted_tallying_bandits;

/// What the methods of this crate learn from.
pub const FAMILY: &str = "decisions (bandits, tables, linear models)";

/// The cards of all methods of the family.
pub const METHODS: &[MethodCard] = &[
    squarecb::CARD,
    fastcb::CARD,
    epsilon_greedy::CARD,
    softmax::CARD,
    explore_first::CARD,
    bag::CARD,
    adversarial_linear_mdp::CARD,
    adyen_bandits::CARD,
    martingale_td::CARD,
    r2pvi::CARD,
    randomized_pbrl::CARD,
    weighted_tallying_bandits::CARD,
];
