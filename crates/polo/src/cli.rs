//! The command line: which commands there are, and how one invocation runs from arguments to exit code.
//!
//! Each command is a module of [`crate::commands`] with its arguments and a `run`. Data goes to stdout, talk to
//! stderr. Exit codes are those of [`polo_run::Kind`], 0, or 2 for arguments that clap refuses.

use std::{ffi::OsString, io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use polo_run::progress;

use crate::{
    commands::{
        compare, completions, config, data, demo, evaluate, explain, explain_tokens, generate, init_model,
        methods, pairs, reproduce, sample, score, train,
    },
    output::{End, Output},
};

const EXIT_CODES: &str = "Exit codes: 0 done, 2 wrong command line or settings, 3 unusable data or model, 4 refused \
                          by the machine (disk, permission, device), 5 training diverged, 6 run folder in use, \
                          75 stopped by a signal after a checkpoint.";

/// Improve a policy from feedback.
#[derive(Debug, Parser)]
#[command(name = "polo", version, about, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// No progress and no remarks on stderr, errors only.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Train(train::Args),
    Plan(train::Plan),
    Generate(generate::Args),
    Chat(generate::Chat),
    Evaluate(evaluate::Args),
    Compare(compare::Args),
    Sample(sample::Args),
    Score(score::Args),
    Pairs(pairs::Args),
    Reproduce(reproduce::Args),
    Methods(methods::Args),
    Explain(explain::Args),
    ExplainTokens(explain_tokens::Args),
    Config(config::Args),
    Data(data::Args),
    InitModel(init_model::Args),
    Completions(completions::Args),
}

/// Runs one invocation; `arguments` begin with the name of the program.
pub fn run<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        // Help and version come this way, too. A reader that has gone away misses nothing.
        Err(refusal) => {
            refusal.print().ok();
            return ExitCode::from(if refusal.use_stderr() { 2 } else { 0 });
        }
    };
    progress::set_quiet(cli.quiet);
    let mut stdout = io::stdout().lock();
    let mut output = Output::new(&mut stdout, cli.quiet);
    let done = match cli.command {
        Command::Demo(args) => demo::run(&args, &mut output),
        Command::Train(args) => train::run(&args, &mut output),
        Command::Plan(args) => train::plan(&args, &mut output),
        Command::Generate(args) => generate::run(&args, &mut output),
        Command::Chat(args) => generate::chat(&args, &mut output),
        Command::Evaluate(args) => evaluate::run(&args, &mut output),
        Command::Sample(args) => sample::run(&args, &mut output),
        Command::Score(args) => score::run(&args, &mut output),
        Command::Pairs(args) => pairs::run(&args, &mut output),
        Command::Compare(args) => compare::run(&args, &mut output),
        Command::Reproduce(args) => reproduce::run(&args, &mut output),
        Command::Methods(args) => methods::run(&args, &mut output),
        Command::Explain(args) => explain::run(&args, &mut output),
        Command::ExplainTokens(args) => explain_tokens::run(&args, &mut output),
        Command::Config(args) => config::run(&args, &mut output),
        Command::Data(args) => data::run(&args, &mut output),
        Command::InitModel(args) => init_model::run(&args, &mut output),
        Command::Completions(args) => completions::run(&args, Cli::command(), &mut output),
    };
    match done.and_then(|()| output.finish()) {
        Ok(()) | Err(End::ReaderGone) => ExitCode::SUCCESS,
        Err(End::Problem(problem)) => {
            crate::output::complain(&problem);
            ExitCode::from(problem.kind().exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_of_all_arguments_hold_together() {
        Cli::command().debug_assert();
    }
}
