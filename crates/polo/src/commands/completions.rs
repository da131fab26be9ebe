//! `polo completions SHELL`: a script that teaches a shell to complete polo's commands.

use clap::Command;
use clap_complete::Shell;

use crate::output::{End, Output};

/// Print a completion script for a shell.
///
/// For bash: polo completions bash > ~/.local/share/bash-completion/completions/polo
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `program`.
///
/// # Errors
/// Only those of stdout.
pub fn run(args: &Args, mut program: Command, output: &mut Output<'_>) -> Result<(), End> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "polo", &mut script);
    output.write(&String::from_utf8_lossy(&script))
}
