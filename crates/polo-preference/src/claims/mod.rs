//! Experiments that re-test the papers' central claims.

pub mod bench;
pub mod brain;
pub mod cipher;
pub mod curry_dpo;
pub mod dpo_survey;
mod dpo_survey_losses;
mod dpo_survey_task;
pub mod rdpo;
pub mod rpo;
pub mod rso;
pub mod self_supervised_po;
mod self_supervised_po_task;
pub mod simpo;
pub mod srpo;
pub mod srpo_exact;
pub mod tabular;
pub mod token_dpo_q;
pub mod token_dpo_q_mdp;
pub mod token_dpo_q_task;
pub mod tpo;
pub mod vpo;
