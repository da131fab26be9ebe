//! `polo methods`: all methods, one a line; or the taxonomy of those that vary DPO.

use polo_preference::methods::dpo_survey::taxonomy;
use polo_run::card;

use crate::{
    output::{End, Output},
    registry,
};

/// List all methods.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List the published variants of DPO instead, with their formulas and how to run each.
    #[arg(long)]
    variants: bool,
}

/// Prints the table.
///
/// # Errors
/// Only those of stdout.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let cards = registry::cards();
    if args.variants {
        let slugs: Vec<_> = cards.iter().map(|card| card.slug).collect();
        return output.write(&taxonomy::table(&slugs));
    }
    output.write(&card::table(&cards))
}
