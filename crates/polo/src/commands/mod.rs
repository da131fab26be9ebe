//! The commands of the program, one module each: its arguments, and `run`, which does the work or calls the crate
//! that does it.

pub mod completions;
pub mod config;
pub mod data;
pub mod demo;
pub mod evaluate;
pub mod explain;
pub mod generate;
pub mod init_model;
pub mod methods;
pub mod reproduce;
pub mod settings;
pub mod train;
