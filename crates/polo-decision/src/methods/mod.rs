//! The methods: one file each, to be read from top to bottom beside the paper.

use polo_run::card::MethodCard;

pub mod r2pvi;
pub mod weighted_tallying_bandits;

/// What the methods of this crate learn from.
pub const FAMILY: &str = "decisions (bandits, tables, linear models)";

/// The cards of all methods of the family.
pub const METHODS: &[MethodCard] = &[r2pvi::CARD, weighted_tallying_bandits::CARD];
