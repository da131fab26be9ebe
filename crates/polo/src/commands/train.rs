//! `polo train METHOD` and `polo plan METHOD`.

use std::path::PathBuf;

use clap::ValueEnum;
use polo_run::{folder::Resume, human};

use super::settings;
use crate::{
    output::{End, Output},
    registry,
};

/// Train a model with a method.
///
/// Prints the folder of the trained model. Ctrl-c stops after the step with a checkpoint; the same command with
/// `--resume auto` goes on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A method of `polo methods`.
    method: String,
    #[command(flatten)]
    settings: settings::Args,
    /// The run folder [default: runs/METHOD].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What to do if the run folder holds a run already.
    #[arg(long, value_enum, default_value = "never")]
    resume: ResumeArgument,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ResumeArgument {
    /// Refuse it.
    Never,
    /// Continue from its newest good checkpoint, or begin anew where there is none.
    Auto,
}

/// Tell what `train` would do: parameters, steps, tokens, memory.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// A method of `polo methods`.
    method: String,
    #[command(flatten)]
    settings: settings::Args,
}

/// Trains.
///
/// # Errors
/// As [`polo_preference::train::train`].
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let method = registry::find(&args.method)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(method.card.slug));
    let resume = match args.resume {
        ResumeArgument::Never => Resume::Never,
        ResumeArgument::Auto => Resume::Auto,
    };
    let outcome = (method.train)(&args.settings.layers()?, &out, resume)?;
    for (name, value) in outcome.metrics.iter() {
        output.remark(&format!("{name:24}  {}", human::number(value)));
    }
    output.remark(&format!("report: {}", out.join("report.html").display()));
    output.write(&format!("{}\n", outcome.trained.display()))
}

/// Prints the plan.
///
/// # Errors
/// As [`polo_preference::train::plan`].
pub fn plan(args: &Plan, output: &mut Output<'_>) -> Result<(), End> {
    let lines = (registry::find(&args.method)?.plan)(&args.settings.layers()?)?;
    let width = lines.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    output.write(&lines.iter().map(|(what, much)| format!("{what:width$}  {much}\n")).collect::<String>())
}
