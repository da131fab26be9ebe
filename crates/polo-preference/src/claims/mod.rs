//! Experiments that re-test the papers' central claims.

pub mod srpo;
pub mod srpo_exact;
