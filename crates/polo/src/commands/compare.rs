//! `polo compare METHOD...`: trains several methods from the same model on the same data with the same budget, measures
//! all of them in the same way, and puts them into one table.
//!
//! Every training is a process of its own (this program's `train`), so that time and peak memory are its own and a
//! comparison that was stopped goes on where it was.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use polo_lm::{
    generate::{Sampling, generate},
    judge::{Comparison, Judge},
    model::LanguageModel,
    rows::Text,
    tokens::Tokenizer,
    weights,
};
use polo_nn::{device, shares};
use polo_preference::{
    methods::dpo::Dpo,
    objective::{self, Example, PairObjective, Rows, Tree},
    settings::{Data, Training},
    trainer::{self, References},
};
use polo_run::{
    Kind, Problem, Result,
    folder::write_atomic,
    human,
    report::{BarChart, LinePlot, Report, Series},
    seed::Seeds,
    stats::{Estimate, t_interval},
};
use serde_json::{Value, json};

use super::evaluate::judge_named;
use crate::{
    output::{End, Output},
    registry,
};

/// Train several methods with the same budget and compare them in one table.
///
/// Methods get the same model, data, seeds and settings of [training]; what differs stands behind their names, e.g.
/// `dpo simpo:method.beta=10,method.gamma_beta_ratio=0.3`. All are then measured on the held-out pairs: preference
/// accuracy and margin against the model that they started from, and, by their own answers to the held-out prompts,
/// divergence, length and win rate. Prints the table; writes report.html and comparison.json.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Methods of `polo methods`, each with settings of its own if need be.
    #[arg(required = true, value_name = "METHOD[:KEY=VALUE,...]")]
    methods: Vec<String>,
    /// The model that all start from: a Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Training data; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Held-out pairs; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    val: Vec<PathBuf>,
    /// Seeds, each a training of every method.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// One setting for all methods, e.g. training.steps=200; may be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Who decides between a model's answers and those of the model that it started from: shorter, longer, or a TOML
    /// file with the settings of a judge.
    #[arg(long, value_name = "JUDGE")]
    judge: Option<String>,
    /// Held-out prompts that are answered, at most; 0: none.
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompts: usize,
    /// Most tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// The folder of the comparison.
    #[arg(long, value_name = "DIR", default_value = "runs/compare")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One line of the table: a method with its settings.
struct Arm {
    /// As given.
    name: String,
    method: String,
    sets: Vec<String>,
}

impl Arm {
    fn parse(given: &str) -> Result<Self> {
        let (method, sets) = given.split_once(':').unwrap_or((given, ""));
        let slug = registry::find(method)?.card.slug;
        let sets: Vec<String> = sets.split(',').filter(|set| !set.is_empty()).map(str::to_owned).collect();
        if let Some(set) = sets.iter().find(|set| !set.contains('=')) {
            return Err(Problem::usage(format!("`{set}` is not KEY=VALUE"))
                .place(given.to_owned())
                .hint("e.g. simpo:method.beta=10,method.gamma_beta_ratio=0.3"));
        }
        Ok(Self { name: given.into(), method: slug.into(), sets })
    }

    /// A name that every file system takes and that differs where the settings do.
    fn folder(&self, seed: u64) -> String {
        let tame = |c: char| if c.is_ascii_alphanumeric() || "-_.=".contains(c) { c } else { '+' };
        format!("{}-seed-{seed}", self.name.chars().map(tame).collect::<String>())
    }
}

/// What is measured of one trained model; names and units are [`COLUMNS`].
type Measured = [Option<f64>; COLUMNS.len()];

/// Name, factor for people, unit.
const COLUMNS: [(&str, f64, &str); 9] = [
    ("accuracy", 100.0, "%"),
    ("margin", 1.0, "nats"),
    ("chosen log-ratio", 1.0, "nats"),
    ("rejected log-ratio", 1.0, "nats"),
    ("KL", 1.0, "nats"),
    ("length", 1.0, "tokens"),
    ("win rate", 100.0, "%"),
    ("seconds", 1.0, "s"),
    ("peak memory", 1e-6, "MB"),
];

/// Trains and measures.
///
/// # Errors
/// Unusable input; a training that fails, with its own error before.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let arms = args.methods.iter().map(|given| Arm::parse(given)).collect::<Result<Vec<_>>>()?;
    for (place, arm) in arms.iter().enumerate() {
        if arms[..place].iter().any(|earlier| earlier.name == arm.name) {
            return Err(Problem::usage(format!("`{}` is given twice", arm.name)).into());
        }
    }
    let judge = args.judge.as_deref().map(judge_named).transpose()?;
    let bench = Bench::new(args)?;
    fs::create_dir_all(&args.out).map_err(|error| Problem::io("create", &args.out, &error))?;
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); arms.len()];
    for seed in 0..args.seeds {
        for (arm, measured) in arms.iter().zip(&mut measured) {
            output.remark(&format!("{}, seed {seed}", arm.name));
            let folder = args.out.join(arm.folder(seed));
            train(args, arm, seed, &folder)?;
            measured.push(bench.measure(args, judge.as_deref(), &folder, seed)?);
        }
    }
    let estimates: Vec<Vec<Option<Estimate>>> = measured.iter().map(|runs| over_seeds(runs)).collect();
    let record = as_json(args, &arms, &measured, &estimates);
    let path = args.out.join("comparison.json");
    write_atomic(&path, format!("{record:#}\n").as_bytes())?;
    let page = args.out.join("report.html");
    report(args, &arms, &measured, &estimates).write(&page)?;
    output.remark(&format!("report: {}", page.display()));
    if args.json {
        return output.write(&format!("{record:#}\n"));
    }
    let (headers, rows) = table(&arms, &estimates);
    output.write(&human::table(&headers, &rows))
}

/// Runs `polo train`, which takes no step where the run is done and refuses one of other settings, data or model.
fn train(args: &Args, arm: &Arm, seed: u64, folder: &Path) -> Result<()> {
    let program =
        std::env::current_exe().map_err(|error| Problem::io("find", Path::new("this program"), &error))?;
    let mut command = Command::new(program);
    command.args(["--quiet", "train", &arm.method, "--resume", "auto", "--seed", &seed.to_string()]);
    command.arg("--model").arg(&args.model).arg("--out").arg(folder);
    args.data.iter().for_each(|file| {
        command.arg("--data").arg(file);
    });
    for set in args.set.iter().chain(&arm.sets) {
        command.args(["--set", set]);
    }
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(|error| Problem::new(Kind::System, format!("cannot start a training: {error}")))?;
    match status.code() {
        Some(0) => Ok(()),
        code => Err(Problem::new(
            match code {
                Some(2) => Kind::Usage,
                Some(3) => Kind::Input,
                Some(5) => Kind::Diverged,
                Some(6) => Kind::Busy,
                Some(75) | None => Kind::Interrupted,
                Some(_) => Kind::System,
            },
            format!("training {} with seed {seed} ended with the error above", arm.name),
        )
        .place(folder.display().to_string())
        .hint(
            "the same command goes on with what is missing; for other settings or data, name another --out",
        )),
    }
}

/// What all models are measured by.
struct Bench {
    tokenizer: Tokenizer,
    /// The held-out pairs and their log-probs under the model that all start from.
    pairs: Vec<Example>,
    references: References,
    base: LanguageModel,
    /// Held-out prompts, as texts and tokens.
    texts: Vec<Text>,
    prompts: Vec<Vec<u32>>,
    /// The first model's own answers to them.
    answers: Vec<String>,
    training: Training,
}

impl Bench {
    fn new(args: &Args) -> Result<Self> {
        let base = weights::load(&args.model, &device::parse("cpu")?)?.model;
        let tokenizer = Tokenizer::load(&args.model)?;
        tokenizer.check_vocabulary(base.architecture.vocabulary)?;
        let (data, training) = (Data::default(), Training::default());
        let (rows, _) = objective::read(&Dpo::default(), &args.val, &data.read_options())?;
        let limits = data.limits(base.architecture.context);
        let pairs = Dpo::default().encode(&rows, &tokenizer, &limits)?.rows;
        let references = trainer::score(&base, &pairs, &training, |_| {});
        let room = base.architecture.context.saturating_sub(args.max_tokens as usize);
        let Rows::Pairs(rows) = rows else { unreachable!("DPO reads pairs") };
        let mut asked: Vec<(Text, Vec<u32>)> = Vec::new();
        for row in &rows {
            if asked.len() >= args.prompts {
                break;
            }
            let prompt = polo_lm::encode::encode_prompt(&row.prompt, &tokenizer)?;
            if prompt.len() <= room {
                asked.push((row.prompt.clone(), prompt));
            }
        }
        let (texts, prompts) = asked.into_iter().unzip();
        let mut bench =
            Self { tokenizer, pairs, references, base, texts, prompts, answers: Vec::new(), training };
        // Answers from other draws than the trained models', lest a model that did not move ties with itself.
        let drawn = bench.answer(&bench.base, args, &Seeds::new(u64::MAX))?;
        bench.answers = drawn.into_iter().map(|(text, ..)| text).collect();
        Ok(bench)
    }

    /// Text, tokens and log-prob of one answer to each prompt.
    fn answer(
        &self,
        model: &LanguageModel,
        args: &Args,
        seeds: &Seeds,
    ) -> Result<Vec<(String, Vec<u32>, f64)>> {
        let sampling = Sampling {
            max_new_tokens: args.max_tokens as usize,
            stop: self.tokenizer.stop().to_vec(),
            ..Sampling::default()
        };
        let drawn = generate(model, &self.prompts, 1, &sampling, seeds, shares::default_count())?;
        let of = |answer: polo_lm::generate::Completion| {
            let logp = answer.logps.iter().map(|&logp| f64::from(logp)).sum();
            (answer.text(&self.tokenizer, &sampling), answer.tokens, logp)
        };
        Ok(drawn.into_iter().map(of).collect())
    }

    fn measure(&self, args: &Args, judge: Option<&dyn Judge>, folder: &Path, seed: u64) -> Result<Measured> {
        let model = weights::load(&folder.join("final"), self.base.device())?.model;
        let scores = trainer::score(&model, &self.pairs, &self.training, |_| {});
        let ratios: Vec<[f64; 2]> = scores
            .iter()
            .zip(&self.references)
            .map(|(own, base)| [own[0] - base[0], own[1] - base[1]])
            .collect();
        let n = ratios.len() as f64;
        let mean = |value: fn(&[f64; 2]) -> f64| Some(ratios.iter().map(value).sum::<f64>() / n);
        let mut measured: Measured = [None; COLUMNS.len()];
        measured[0] = mean(|[chosen, rejected]| f64::from(u8::from(chosen > rejected)));
        measured[1] = mean(|[chosen, rejected]| chosen - rejected);
        measured[2] = mean(|[chosen, _]| *chosen);
        measured[3] = mean(|[_, rejected]| *rejected);
        if !self.prompts.is_empty() {
            let drawn = self.answer(&model, args, &Seeds::new(seed))?;
            let n = drawn.len() as f64;
            let examples: Vec<Example> = self
                .prompts
                .iter()
                .zip(&drawn)
                .map(|(prompt, (_, tokens, _))| Example {
                    trees: vec![Tree { prompt: prompt.clone(), answers: vec![tokens.clone()] }],
                    ..Example::default()
                })
                .collect();
            let base = trainer::score(&self.base, &examples, &self.training, |_| {});
            let divergence = drawn.iter().zip(&base).map(|((.., own), base)| own - base[0]);
            measured[4] = Some(divergence.sum::<f64>() / n);
            measured[5] = Some(drawn.iter().map(|(_, tokens, _)| tokens.len() as f64).sum::<f64>() / n);
            if let Some(judge) = judge {
                let items = (0..).zip(&self.texts).zip(drawn.iter().zip(&self.answers));
                let items: Vec<Comparison> = items
                    .map(|((id, prompt), ((own, ..), base))| Comparison {
                        id,
                        prompt: prompt.clone(),
                        a: own.clone(),
                        b: base.clone(),
                        answer: None,
                    })
                    .collect();
                let verdicts: Vec<f64> = judge.compare(&items)?.into_iter().flatten().collect();
                measured[6] = polo_run::stats::mean(&verdicts);
            }
        }
        let (seconds, peak) = spent(&folder.join("timings.jsonl"))?;
        (measured[7], measured[8]) = (Some(seconds), peak);
        Ok(measured)
    }
}

/// Seconds of all steps and of the reference, and the highest memory of a run, bytes.
fn spent(path: &Path) -> Result<(f64, Option<f64>)> {
    let text = fs::read_to_string(path).map_err(|error| Problem::io("read", path, &error))?;
    let (mut seconds, mut peak) = (0.0, None::<f64>);
    for line in text.lines() {
        let Ok(row) = serde_json::from_str::<Value>(line) else { continue };
        for key in ["seconds", "reference_seconds"] {
            seconds += row[key].as_f64().unwrap_or(0.0);
        }
        if let Some(bytes) = row["peak_memory_bytes"].as_f64() {
            peak = Some(peak.unwrap_or(0.0).max(bytes));
        }
    }
    Ok((seconds, peak))
}

fn over_seeds(runs: &[Measured]) -> Vec<Option<Estimate>> {
    (0..COLUMNS.len())
        .map(|column| {
            let values: Option<Vec<f64>> = runs.iter().map(|run| run[column]).collect();
            values.map(|values| t_interval(&values, "seeds"))
        })
        .collect()
}

fn table(arms: &[Arm], estimates: &[Vec<Option<Estimate>>]) -> (Vec<String>, Vec<Vec<String>>) {
    let shown: Vec<usize> =
        (0..COLUMNS.len()).filter(|&column| estimates.iter().any(|row| row[column].is_some())).collect();
    let mut headers = vec!["method".to_owned()];
    headers.extend(shown.iter().map(|&column| format!("{}, {}", COLUMNS[column].0, COLUMNS[column].2)));
    let rows = arms.iter().zip(estimates).map(|(arm, row)| {
        let mut cells = vec![arm.name.clone()];
        cells.extend(shown.iter().map(|&column| {
            row[column].as_ref().map_or("-".into(), |estimate| {
                let factor = COLUMNS[column].1;
                match estimate.interval {
                    Some((low, high)) => {
                        format!("{:.1} [{:.1}, {:.1}]", factor * estimate.mean, factor * low, factor * high)
                    }
                    None => format!("{:.1}", factor * estimate.mean),
                }
            })
        }));
        cells
    });
    (headers, rows.collect())
}

fn setup(args: &Args) -> String {
    let files = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    format!(
        "From {} on {}, held out {}; {} seed{}, 95 % intervals over seeds{}. Accuracy and margin are of log-ratios to the \
         first model; KL and length of one answer to each of at most {} held-out prompts, {} tokens at most.",
        args.model.display(),
        files(&args.data),
        files(&args.val),
        args.seeds,
        if args.seeds == 1 { "" } else { "s" },
        if args.set.is_empty() { String::new() } else { format!("; {}", args.set.join(", ")) },
        args.prompts,
        args.max_tokens
    )
}

fn as_json(
    args: &Args,
    arms: &[Arm],
    measured: &[Vec<Measured>],
    estimates: &[Vec<Option<Estimate>>],
) -> Value {
    let arms: Vec<Value> = arms
        .iter()
        .zip(measured)
        .zip(estimates)
        .map(|((arm, runs), estimates)| {
            let of = |column: usize| {
                let (name, _, unit) = COLUMNS[column];
                let estimate = estimates[column].as_ref();
                let interval =
                    estimate.and_then(|estimate| estimate.interval).map(|(low, high)| json!([low, high]));
                let runs: Vec<Option<f64>> = runs.iter().map(|run| run[column]).collect();
                let mean = estimate.map(|estimate| estimate.mean);
                json!({ "name": name, "unit": unit, "mean": mean, "interval": interval, "seeds": runs })
            };
            json!({
                "method": arm.method, "settings": arm.sets,
                "measured": (0..COLUMNS.len()).map(of).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "setup": setup(args), "note": "shares are of 1, memory is in bytes", "methods": arms })
}

fn report(
    args: &Args,
    arms: &[Arm],
    measured: &[Vec<Measured>],
    estimates: &[Vec<Option<Estimate>>],
) -> Report {
    let mut report = Report::new("polo compare");
    report.paragraph(&setup(args));
    let (headers, rows) = table(arms, estimates);
    report.table(&headers, &rows);
    let scaled = |estimate: &Estimate, factor: f64| Estimate {
        mean: factor * estimate.mean,
        interval: estimate.interval.map(|(low, high)| (factor * low, factor * high)),
        ..estimate.clone()
    };
    let charts: Vec<BarChart> = [0, 6, 5]
        .into_iter()
        .filter_map(|column| {
            let (name, factor, unit) = COLUMNS[column];
            let groups: Option<Vec<_>> = arms
                .iter()
                .zip(estimates)
                .map(|(arm, row)| {
                    row[column].as_ref().map(|estimate| (arm.name.clone(), vec![scaled(estimate, factor)]))
                })
                .collect();
            groups.map(|groups| BarChart {
                title: name.into(),
                y_label: format!("{name}, {unit}"),
                series: vec![name.into()],
                groups,
            })
        })
        .collect();
    report.bar_charts(&charts);
    let points = |x: usize, y: usize| -> Vec<Series> {
        arms.iter()
            .zip(measured)
            .enumerate()
            .map(|(colour, (arm, runs))| {
                let mut points: Vec<(f64, f64)> = runs
                    .iter()
                    .filter_map(|run| Some((run[x]? * COLUMNS[x].1, run[y]? * COLUMNS[y].1)))
                    .collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Series { colour, name: arm.name.clone(), points, ..Series::default() }
            })
            .collect()
    };
    if measured.iter().flatten().any(|run| run[4].is_some()) {
        let plot = |y: usize| LinePlot {
            title: format!("{} over divergence", COLUMNS[y].0),
            x_label: "KL from the first model, nats".into(),
            y_label: format!("{}, {}", COLUMNS[y].0, COLUMNS[y].2),
            series: points(4, y),
        };
        let mut plots = vec![plot(0)];
        if measured.iter().flatten().any(|run| run[6].is_some()) {
            plots.push(plot(6));
        }
        report.line_plots(&plots);
    }
    report
}
