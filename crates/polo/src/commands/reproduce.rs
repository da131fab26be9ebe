//! `polo reproduce METHOD`: re-tests the central claim of a method's paper.

use std::{fs, path::PathBuf};

use polo_run::{Problem, claims};

use crate::{
    output::{End, Output},
    registry,
};

/// Re-test the central claim of a method's paper at small scale.
///
/// Prints effects with 95 % intervals and the verdict, writes them into a file of claims, and a page with plots
/// (report.html) beside what the experiment keeps.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A method of `polo methods`, or `off-policy-evaluation`.
    method: String,
    /// Show in seconds that everything works; decides nothing and writes no claim.
    #[arg(long)]
    quick: bool,
    /// Seeds to report on; fewer than five decide nothing [default: 5, or 2 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Where the experiment keeps its files [default: runs/reproduce-METHOD].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The file of claims.
    #[arg(long, value_name = "FILE", default_value = "CLAIMS.md")]
    claims: PathBuf,
}

/// Runs the experiment.
///
/// # Errors
/// [`polo_run::Kind::Usage`] for a method without one; what the experiment says; files that cannot be written.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let (slug, reproduce) = experiment(&args.method)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("reproduce-{slug}")));
    let seeds = args.seeds.unwrap_or(if args.quick { 2 } else { claims::MIN_OBSERVATIONS as u64 });
    let result = reproduce(&out, seeds, args.quick, &mut |line| output.remark(line))?;
    fs::create_dir_all(&out).map_err(|error| Problem::io("create", &out, &error))?;
    let page = out.join("report.html");
    result.report(args.quick).write(&page)?;
    output.remark(&format!("written to {}", page.display()));
    if !args.quick {
        claims::update_claims_file(&args.claims, &result)?;
        output.remark(&format!("written to {}", args.claims.display()));
    }
    output.write(&result.to_text())
}

/// The experiment of a method, or one that is about no single method.
fn experiment(name: &str) -> Result<(&'static str, registry::Reproduce), Problem> {
    if let Some((slug, reproduce)) = registry::STUDIES.iter().find(|(slug, _)| *slug == name) {
        return Ok((slug, *reproduce));
    }
    let method = registry::find(name).map_err(|problem| {
        match registry::STUDIES.iter().find(|(study, _)| !name.is_empty() && study.starts_with(name)) {
            Some((study, _)) => problem.hint(format!("did you mean {study}?")),
            None => problem,
        }
    })?;
    let slug = method.card.slug;
    method.reproduce.map(|reproduce| (slug, reproduce)).ok_or_else(|| {
        let with = registry::METHODS.iter().filter(|method| method.reproduce.is_some());
        let names = with.map(|method| method.card.slug).chain(registry::STUDIES.iter().map(|study| study.0));
        let names: Vec<_> = names.collect();
        Problem::usage(format!("there is no experiment for the claim of {slug}"))
            .hint(format!("there is one for: {}", names.join(", ")))
    })
}
