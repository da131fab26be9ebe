//! The commands of the program, one module each: its arguments, and `run`, which does the work or calls the crate
//! that does it.

pub mod compare;
pub mod completions;
pub mod config;
pub mod data;
pub mod datasets;
pub mod demo;
pub mod evaluate;
pub mod explain;
pub mod explain_tokens;
pub mod generate;
pub mod init_model;
pub mod methods;
pub mod pairs;
pub mod reproduce;
pub mod sample;
pub mod score;
pub mod settings;
pub mod train;
