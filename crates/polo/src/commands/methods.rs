//! `polo methods`: all methods, one a line.

use polo_run::card;

use crate::{
    output::{End, Output},
    registry,
};

/// List all methods.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the table.
///
/// # Errors
/// Only those of stdout.
pub fn run(_: &Args, output: &mut Output<'_>) -> Result<(), End> {
    output.write(&card::table(&registry::cards()))
}
