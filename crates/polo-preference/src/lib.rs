//! Methods that learn from preferences.
//!
//! One method is one file under [`methods`]: its settings, its loss, its card. What the methods of a data regime share
//! stands in [`objective`], what their losses are made of in [`pairwise`], how scored answers become pairs in
//! [`ranking`], the configuration of a run in [`settings`], and the experiments that re-test the papers' claims under
//! [`claims`].

pub mod claims;
pub mod methods;
pub mod objective;
pub mod pairwise;
pub mod ranking;
pub mod settings;
pub mod token_rewards;
pub mod train;
pub mod trainer;
