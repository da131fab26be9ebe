//! `polo config METHOD`: the settings of a method, to start from or as a run would take them.

use polo_run::Result;

use super::settings;
use crate::{
    output::{End, Output},
    registry,
};

/// Print the settings of a method, with explanations, as a file to start from.
///
/// With a configuration file or `--set`, prints instead what a run would take: file < environment < command line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A method of `polo methods`.
    method: String,
    #[command(flatten)]
    settings: settings::Args,
}

/// Prints the commented default, or the resolved settings.
///
/// # Errors
/// [`polo_run::Kind::Usage`] for an unknown method, an unknown key or a bad value.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let method = registry::find(&args.method)?;
    if args.settings.is_empty() {
        return output.write(&(method.commented_default)());
    }
    output.write(&(method.resolve)(&args.settings.layers()?)?)
}
