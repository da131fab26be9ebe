//! What the papers' claims are re-tested with: one file for each method that has one.

pub mod adversarial_linear_mdp;
pub mod adyen_bandits;
pub mod martingale_td;
pub mod ope;
pub mod r2pvi;
pub mod randomized_pbrl;
pub mod streams;
pub mod weighted_tallying_bandits;
