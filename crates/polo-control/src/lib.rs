//! Methods for control: policies that act in an environment, learnt online from what they live through. Floor 3: may
//! import floors 0 to 2, no other family.
//!
//! A method is one file under [`methods`]: its settings are the method. Two loops carry all of them: [`on_policy`] for
//! methods that learn from what their newest policy just did, [`off_policy`] for those that learn from a replay buffer.
//! [`train`] wraps both into a run; [`policy`] is what a run leaves behind.

pub mod actor_critic;
pub mod claims;
pub mod data;
pub mod deterministic;
pub mod free_gaussian;
pub mod gae;
pub mod methods;
pub mod network;
pub mod normalise;
pub mod off_policy;
pub mod on_policy;
pub mod policy;
pub mod settings;
pub mod soft;
pub mod squashed;
pub mod train;
