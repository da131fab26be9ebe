//! What the papers' claims are re-tested with: one file for each method that has one.

use polo_run::stats::{self, Estimate};

pub mod a2pr;
pub mod mdpo;
pub mod mdpo_table;
pub mod pendulum;
pub mod trajectory_weighting;

/// The mean over seeds.
fn interval(scores: &[f64]) -> Estimate {
    stats::t_interval(scores, "seeds")
}

/// The mean difference over seeds, each compared with itself.
fn paired(ours: &[f64], theirs: &[f64]) -> Estimate {
    let pairs: Vec<(f64, f64)> = ours.iter().copied().zip(theirs.iter().copied()).collect();
    stats::paired_difference(&pairs, "seeds")
}
