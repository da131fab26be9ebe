//! polo as a program and as a library: the registry of all methods, the command line, and the crates of the
//! workspace under one name.
//!
//! The program's `main` calls [`run`]. Who embeds polo uses the re-exported crates: [`polo_run`] (what every run
//! needs), [`polo_lm`] (language models and their data) and the families of methods, such as [`polo_preference`].

mod cli;
pub mod commands;
pub mod output;
pub mod registry;

pub use cli::run;
pub use {polo_lm, polo_nn, polo_preference, polo_run};
