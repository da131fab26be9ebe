//! `polo data check FILE...`: what data files are for, how long their texts are, and what is wrong with them. The other
//! commands of `polo data` are those of [`super::datasets`].

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use polo_lm::{
    check::{Checkup, RowKind, check},
    read::ReadOptions,
    tokens::Tokenizer,
};
use polo_run::{Kind, Problem, human};

use super::datasets;
use crate::output::{End, Output};

/// Look into data files; make datasets of transitions for offline methods, and look into them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
    Collect(datasets::Collect),
    Mix(datasets::Mix),
    Info(datasets::Info),
}

/// Report what files can be used for, and every kind of trouble in them.
///
/// Reads JSON lines, JSON, CSV and TSV (each also gzipped) and Parquet. Exit code 3 if a row cannot be used.
#[derive(Debug, clap::Args)]
struct Check {
    /// Files, or folders of files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the rows are [default: told by the fields of the first row].
    #[arg(long, value_enum)]
    kind: Option<KindArgument>,
    /// A model folder, whose tokenizer counts the tokens.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArgument {
    /// Preference pairs.
    Pairs,
    /// Prompts with the completions to be learnt.
    Completions,
    /// Prompts, with or without answers.
    Prompts,
    /// Several scored answers to each prompt.
    Lists,
    /// Single answers, each good or bad.
    Unpaired,
    /// Answers in steps, each right or wrong.
    Steps,
}

/// Runs `check`, `collect`, `mix` or `info`.
///
/// # Errors
/// Files, models, environments or policies that cannot be used; after the report of `check`, rows that cannot be used.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    match &args.command {
        Command::Check(args) => check_rows(args, output),
        Command::Collect(args) => datasets::collect(args, output),
        Command::Mix(args) => datasets::mix(args, output),
        Command::Info(args) => datasets::info(args, output),
    }
}

fn check_rows(args: &Check, output: &mut Output<'_>) -> Result<(), End> {
    let kind = args.kind.map(|kind| match kind {
        KindArgument::Pairs => RowKind::Pairs,
        KindArgument::Completions => RowKind::Completions,
        KindArgument::Prompts => RowKind::Prompts,
        KindArgument::Lists => RowKind::Lists,
        KindArgument::Unpaired => RowKind::Unpaired,
        KindArgument::Steps => RowKind::Steps,
    });
    let tokenizer = args.model.as_deref().map(Tokenizer::load).transpose()?;
    let checkup = check(&args.files, kind, &ReadOptions::default(), tokenizer.as_ref())?;
    if args.json {
        let json = serde_json::to_string_pretty(&checkup)
            .map_err(|error| Problem::new(Kind::System, format!("cannot write the report: {error}")))?;
        output.write(&format!("{json}\n"))?;
    } else {
        output.write(&as_text(&checkup))?;
    }
    let report = &checkup.report;
    if report.skipped == 0 {
        return Ok(());
    }
    let first = report.problems.first().map_or("", String::as_str);
    let (unusable, all) = (report.skipped as u64, (report.skipped + report.rows) as u64);
    let count = format!("{} of {} rows cannot be used", human::count(unusable), human::count(all));
    Err(Problem::input(format!("{count}; the first: {first}")).hint("mend or remove these rows").into())
}

fn as_text(checkup: &Checkup) -> String {
    let report = &checkup.report;
    let kind = match checkup.kind {
        RowKind::Pairs => "preference pairs",
        RowKind::Completions => "completions",
        RowKind::Prompts => "prompts",
        RowKind::Lists => "lists of scored answers",
        RowKind::Unpaired => "single answers, good or bad",
        RowKind::Steps => "answers in steps, right or wrong",
    };
    let count = |number: usize| human::count(number as u64);
    let mut text = String::new();
    for (name, value) in [
        ("holds", kind.to_owned()),
        ("files", count(report.files)),
        ("usable rows", count(report.rows)),
        ("  of strings", count(checkup.plain)),
        ("  of conversations", count(checkup.conversational)),
        ("unusable rows", count(report.skipped)),
        ("repeated rows", count(report.duplicates)),
        ("blank answers", count(report.blank_answers)),
        ("sha256 of the rows", report.sha256.clone()),
    ] {
        text += &format!("{name:18}  {value}\n");
    }
    text += &format!(
        "\n{:10}  {:10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}\n",
        "length of", "in", "mean", "median", "90 %", "99 %", "longest"
    );
    for one in &checkup.lengths {
        text += &format!(
            "{:10}  {:10}  {:>9.1}  {:>9}  {:>9}  {:>9}  {:>9}\n",
            one.part,
            one.unit,
            one.mean,
            count(one.p50),
            count(one.p90),
            count(one.p99),
            count(one.max)
        );
    }
    if !report.problems.is_empty() {
        text += "\nunusable:\n";
        for problem in &report.problems {
            text += &format!("  {problem}\n");
        }
        if report.skipped > report.problems.len() {
            text += &format!("  and {} more\n", count(report.skipped - report.problems.len()));
        }
    }
    text
}
