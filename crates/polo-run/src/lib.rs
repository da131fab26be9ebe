//! What every run of polo needs, whatever it trains: configuration, seeds, run folder, metrics, progress,
//! checkpoints, interrupts, statistics and reports. Floor 0: imports no other crate of the workspace.

pub mod problem;

pub use problem::{Kind, Problem, Result};
