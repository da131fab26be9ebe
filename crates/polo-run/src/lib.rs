//! What every run of polo needs, whatever it trains: configuration, seeds, run folder, metrics, progress,
//! checkpoints, interrupts, statistics and reports. Floor 0: imports no other crate of the workspace.

pub mod card;
pub mod checkpoint;
pub mod claims;
pub mod config;
pub mod folder;
pub mod guard;
pub mod human;
pub mod interrupt;
pub mod metrics;
mod plot;
pub mod problem;
pub mod process;
pub mod progress;
pub mod report;
pub mod seed;
pub mod stats;
mod tensorboard;

pub use problem::{Kind, Problem, Result};
