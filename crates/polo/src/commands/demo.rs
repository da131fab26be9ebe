//! `polo demo`: the main job from nothing, offline: a tiny model is trained, preference pairs are collected from it,
//! and it is aligned by SRPO and by DPO.

use std::{fs, path::PathBuf};

use polo_lm::{
    tasks::{
        pairs_jsonl,
        permutation::{Form, Preference},
    },
    weights::{self, Format},
};
use polo_preference::claims::srpo::{Arm, Budget, Measured, Workbench};
use polo_run::{
    Problem, Result,
    folder::{Resume, RunFolder, write_atomic},
    progress::Progress,
    report::{LinePlot, Report, Series},
};

use crate::output::{End, Output};

/// See it work, offline, in about a minute: train a tiny model, align it with SRPO and DPO, compare.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the run goes.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
    /// Seed of every random draw.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Seconds instead of minutes: shows that everything works, teaches nothing.
    #[arg(long)]
    quick: bool,
}

const REGIONS: [&str; 2] = ["in distribution", "out of distribution"];

/// Runs the demo.
///
/// # Errors
/// The run folder is in use or cannot be written.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let folder = RunFolder::open(&args.out, Resume::Never)?;
    let settings = format!("seed = {}\nquick = {}\n", args.seed, args.quick);
    folder.settle(&settings, &settings, &[])?;
    let budget = match args.quick {
        true => Budget::quick(),
        false => Budget {
            imitation_steps: 1200,
            pairs: 6000,
            alignment_steps: 250,
            learning_rate: 3e-4,
            prompts: 500,
            ..Budget::full()
        },
    };
    output.remark(
        "The task: letters in, numbers out, by a hidden permutation. Demonstrations are right by intent in 35 % of\n\
         the places. Gold reward: right places of 8. Out of distribution, rare letters are frequent.\n",
    );
    let model = args.out.join("model");
    let bench = with_bar("1. imitate demonstrations", budget.imitation_steps, |progress| {
        Workbench::new(&model, args.seed, budget.clone(), progress)
    })?;
    weights::save(&bench.base, &bench.cipher.config, Format::F32, &model)?;
    output.remark(
        "2. collect preference pairs: two answers of the model to each prompt, labelled by gold reward",
    );
    let rows = bench.own_pairs(Preference::BradleyTerry, Form::Asked)?;
    write_atomic(&args.out.join("pairs.jsonl"), pairs_jsonl(&rows).as_bytes())?;
    let mut measured = vec![("before", bench.measure(&bench.base)?)];
    for (step, (method, beta)) in (3..).zip([("srpo", 0.1), ("dpo", 0.5)]) {
        let arm = Arm::new(method, beta);
        let rows = bench.own_pairs(Preference::BradleyTerry, arm.form())?;
        let label = format!("{step}. align with {}", method.to_uppercase());
        let aligned = with_bar(&label, budget.alignment_steps, |progress| {
            bench.align(&arm, rows, args.seed, progress)
        })?;
        let out = args.out.join(method);
        fs::create_dir_all(&out).map_err(|error| Problem::io("create", &out, &error))?;
        weights::save(&aligned, &bench.cipher.config, Format::F32, &out)?;
        bench.cipher.tokenizer.save(&out)?;
        measured.push((method, bench.measure(&aligned)?));
    }
    show(&measured, output)?;
    report(&measured).write(&folder.report())?;
    output.remark(&format!(
        "\nreport: {}\n\nNext, with your own model (a Hugging Face folder) and data (JSON lines of prompt, chosen, \
         rejected):\n  polo train srpo --model MODEL --data pairs.jsonl --val held-out.jsonl\n  polo generate \"your \
         prompt\" --model runs/srpo/final --revisions 2\nWithout a model at hand:\n  polo init-model MODEL \
         --tokenizer-from pairs.jsonl --preset small",
        folder.report().display()
    ));
    Ok(())
}

fn with_bar<T>(
    label: &str,
    total: usize,
    work: impl FnOnce(&mut dyn FnMut(usize, usize, f64)) -> Result<T>,
) -> Result<T> {
    let bar = Progress::new(label, total as u64, "steps");
    let done = work(&mut |step, _, loss| bar.step(step as u64, &[("loss", loss)]));
    bar.finish();
    done
}

fn show(measured: &[(&str, Measured)], output: &mut Output<'_>) -> Result<(), End> {
    output.write("after 0, 1, ... self-revisions:\n")?;
    for (region, name) in REGIONS.iter().enumerate() {
        output.write(&format!("\n{name}\n"))?;
        for (method, measured) in measured {
            let curve = &measured.curves[region];
            let gold: Vec<String> = curve.gold.iter().map(|gold| format!("{gold:4.2}")).collect();
            let wins: Vec<String> = curve.wins.iter().map(|share| format!("{:3.0}", 100.0 * share)).collect();
            output.write(&format!(
                "  {method:6}  gold reward (of 8)  {}   win rate (%)  {}\n",
                gold.join(" "),
                wins.join(" ")
            ))?;
        }
    }
    output.write("\nwin rates: against answers that are right by intent in 60 % of the places\n")?;
    for (method, measured) in measured.iter().skip(1) {
        output.write(&format!("\n{method}, samples ({:.1} nats from the start)\n", measured.kl))?;
        for (prompt, answers) in measured.samples.iter().step_by(3) {
            output.write(&format!("  {prompt}\n"))?;
            for (n, answer) in answers.iter().enumerate() {
                output.write(&format!("    {n} revisions: {answer}\n"))?;
            }
        }
    }
    Ok(())
}

fn report(measured: &[(&str, Measured)]) -> Report {
    let mut report = Report::new("polo demo");
    report.paragraph(
        "A tiny transformer imitated noisy demonstrations of a hidden permutation (before), and was then aligned with \
         SRPO and with DPO on preferences between its own answers. Each model answers held-out prompts, then revises its \
         answer again and again. One seed: for intervals, run polo reproduce srpo.",
    );
    for (region, name) in REGIONS.iter().enumerate() {
        let plot = |title: &str, y: &str, scale: f64, value: fn(&Measured, usize) -> &Vec<f64>| LinePlot {
            title: format!("{title}, {name}"),
            x_label: "self-revisions".into(),
            y_label: y.into(),
            series: measured
                .iter()
                .enumerate()
                .map(|(colour, (method, measured))| Series {
                    colour,
                    name: (*method).into(),
                    points: (0..)
                        .zip(value(measured, region))
                        .map(|(n, y)| (f64::from(n), scale * y))
                        .collect(),
                    ..Series::default()
                })
                .collect(),
        };
        report.line_plots(&[
            plot("Gold reward", "right places of 8", 1.0, |measured, region| &measured.curves[region].gold),
            plot("Win rate", "wins, %", 100.0, |measured, region| &measured.curves[region].wins),
        ]);
    }
    report.heading("Samples");
    for (method, measured) in measured {
        for (prompt, answers) in &measured.samples {
            report.sample(&format!("{method}: {prompt}"), &answers.join("\n"));
        }
    }
    report
}
