//! The world of language models: checkpoints, tokens, chat templates, data, generation, judges, tasks.
//! Floor 2: imports `polo-nn` and `polo-run`. Methods live above, in the families' crates.

pub mod beam;
pub mod chat;
pub mod check;
pub mod encode;
pub mod family;
pub mod generate;
pub mod judge;
pub mod model;
pub mod read;
pub mod revise;
pub mod rows;
pub mod sampled;
pub mod tasks;
pub mod templates;
pub mod tokens;
pub mod vocabulary;
pub mod weights;
pub mod winrate;
