//! Experiments that re-test the papers' central claims.

pub mod brain;
pub mod rdpo;
pub mod rpo;
pub mod srpo;
pub mod srpo_exact;
pub mod tabular;
pub mod vpo;
