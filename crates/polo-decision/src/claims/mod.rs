//! What the papers' claims are re-tested with: one file for each method that has one.

pub mod weighted_tallying_bandits;
