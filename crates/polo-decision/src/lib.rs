//! Methods for decisions: bandits, tabular and linear decision processes, evaluation of policies. Floor 3: may import
//! floors 0 to 2, no other family.
//!
//! A method is one file under [`methods`]: its settings are the method, and [`settings::MethodSettings::process`] makes of
//! them a run that goes on round by round. [`train`] wraps it into a run folder; [`claims`] re-tests the papers' claims.

pub mod claims;
pub mod draw;
pub mod dsjson;
pub mod estimators;
pub mod evaluation;
pub mod explore;
pub mod features;
pub mod forest;
pub mod intervals;
pub mod lesson;
pub mod linear;
pub mod logged;
pub mod methods;
pub mod network;
pub mod obd;
pub mod oracle;
pub mod perceptron;
pub mod regression;
pub mod reward_model;
pub mod ridge;
pub mod settings;
pub mod stream;
pub mod synthetic;
pub mod tabular;
pub mod train;
pub mod trees;
