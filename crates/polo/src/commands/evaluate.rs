//! `polo evaluate`: loss and preference accuracy on pairs, and win rates.

use std::path::{Path, PathBuf};

use clap::builder::ArgPredicate;
use polo_control::policy::Policy;
use polo_decision::{
    evaluation::{self, Evaluation},
    logged::{Log, Policy as Decisions},
    stream::{applied::Decider, saved::Learned},
};
use polo_lm::{
    check::{RowKind, check},
    encode::{Limits, LongPrompt},
    judge::{Judge, JudgeSettings, Rule},
    read::{ReadOptions, read_pairs, read_prompts},
    rows::Text,
    winrate::{Answer, duels, read_answers, win_rate},
};
use polo_preference::{
    methods::dpo::Dpo,
    objective::{self, PairObjective},
    settings::Training,
    trainer,
};
use polo_run::{
    Problem, Result as Tried,
    config::{self, Layers},
    human,
    seed::Seeds,
    stats::{Estimate, t_interval, wilson},
};
use polo_sim::{
    film::{Film, Format},
    make, scores,
};
use serde_json::{Map, Value, json};

use super::generate::{Drawing, Speaker};
use crate::output::{End, Output};

/// Measure a model: loss and preference accuracy on pairs, and win rate against another model or a file; of a policy for
/// control (--episodes), returns in its environment; of a policy for decisions (--log), what it would have earned.
#[derive(Debug, clap::Args)]
#[command(mut_arg("model", |model| {
    model.required(false).required_unless_present("log").default_value_if("log", ArgPredicate::IsPresent, ".").conflicts_with("log")
}))]
pub struct Args {
    #[command(flatten)]
    drawing: Drawing,
    /// Held-out pairs, or prompts for a win rate alone; may be given many times.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["episodes", "log"])]
    data: Vec<PathBuf>,
    /// The model is a policy for control: let it act, without chance, in so many episodes of its environment, the first
    /// begun with --seed, the next with the seed after it.
    #[arg(long, value_name = "N", conflicts_with = "data", value_parser = clap::value_parser!(u32).range(1..))]
    episodes: Option<u32>,
    /// Film the first episode: FILE.gif moves, FILE.png has frames side by side.
    #[arg(long, value_name = "FILE", requires = "episodes", conflicts_with = "data")]
    film: Option<PathBuf>,
    /// Logged decisions: say what --policy would have earned, by every off-policy estimator. A CSV file with the columns
    /// `action`, `reward`, `propensity`, perhaps `position`, and numbers of the context; or one of the Open Bandit Dataset;
    /// or, for `uniform` and policies that a run left behind, what `train` reads: dsjson, text (.vw) and CSV.
    #[arg(long, value_name = "FILE", requires = "policy", conflicts_with_all = ["data", "episodes"])]
    log: Option<PathBuf>,
    /// The policy that is to be evaluated on --log: `uniform`, or a CSV file with the columns `action`, `probability` and
    /// perhaps `position`, or with `p0`, `p1`, ... for each row of the log, or another log of the Open Bandit Dataset; or
    /// the folder `final` that a scheme of exploration (squarecb, bag, ...) left behind.
    #[arg(long, value_name = "POLICY", requires = "log")]
    policy: Option<PathBuf>,
    /// With --log, and a policy that a run left behind: write what it would do, its probabilities and an action drawn from
    /// them, a JSON object to a decision.
    #[arg(long, value_name = "FILE", requires = "log")]
    decisions: Option<PathBuf>,
    /// With --log: write a page with the table and a chart of all estimates.
    #[arg(long, value_name = "FILE", requires = "log")]
    report: Option<PathBuf>,
    /// The model that margins are measured against.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// The opponent: a model folder, or a file of answers (`prompt`, `completion`).
    #[arg(long, value_name = "PATH", requires = "judge")]
    against: Option<PathBuf>,
    /// Who decides between two answers: exact, contains, shorter, longer, or a TOML file with the settings of a judge,
    /// e.g. of a model behind an OpenAI-compatible API.
    #[arg(long, value_name = "JUDGE", requires = "against")]
    judge: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Measures.
///
/// # Errors
/// Unusable models, data or judge.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    if let (Some(log), Some(policy)) = (&args.log, &args.policy) {
        let Some(found) = on_log(args, log, policy, output)? else { return Ok(()) };
        if let Some(page) = &args.report {
            found.report().write(page)?;
            output.remark(&format!("written to {}", page.display()));
        }
        return output.write(&match args.json {
            true => format!("{:#}\n", json!(found)),
            false => found.to_string(),
        });
    }
    if let Some(episodes) = args.episodes {
        return print(args, &returns(args, episodes as usize)?, output);
    }
    let speaker = Speaker::new(&args.drawing)?;
    let mut found: Vec<(&'static str, Estimate)> = Vec::new();
    if check(&args.data, None, &ReadOptions::default(), None)?.kind == RowKind::Pairs {
        found = on_pairs(args, &speaker)?;
    }
    if let (Some(against), Some(judge)) = (&args.against, &args.judge) {
        found.push(("win rate", contest(args, &speaker, against, &*judge_named(judge)?)?));
    }
    if found.is_empty() {
        return Err(Problem::usage("there is nothing to measure on prompts alone")
            .place("--data")
            .hint("give pairs, or an opponent with --against and --judge")
            .into());
    }
    print(args, &found, output)
}

/// The value of a policy on logged decisions; none if no decision has an outcome and decisions were all that was asked for.
fn on_log(args: &Args, log: &Path, policy: &Path, output: &mut Output<'_>) -> Tried<Option<Evaluation>> {
    let seeds = Seeds::new(args.drawing.seed);
    let uniform = policy.as_os_str() == "uniform";
    let name = log.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let rows = name.strip_suffix(".gz").unwrap_or(&name).ends_with(".csv");
    let decider = match (Learned::is_in(policy), uniform) {
        (true, _) => Decider::Learned(Box::new(Learned::load(policy)?)),
        (_, true) if !rows || args.decisions.is_some() => Decider::Uniform,
        _ if args.decisions.is_some() || !rows || !policy.is_file() && !uniform => {
            return Err(Learned::missing(policy));
        }
        _ => {
            let log = Log::read(log)?;
            let policy = if uniform { Decisions::uniform(&log) } else { Decisions::read(policy, &log)? };
            return evaluation::evaluate(&log, &policy, &[], &evaluation::Plan::new(&log), &seeds).map(Some);
        }
    };
    let applied = decider.apply(log, args.decisions.as_deref(), &seeds)?;
    if applied.even && !uniform {
        output.remark(
            "warning: the policy found all actions of every decision as likely: it is still exploring, or the log has \
             none of the features that it learnt from",
        );
    }
    match (&args.decisions, &applied.evaluation) {
        (Some(path), found) => {
            output.remark(&format!(
                "{} decisions written to {}",
                human::count(applied.decisions),
                path.display()
            ));
            if found.is_none() {
                output
                    .remark("no decision of the log has an outcome: nothing is known of the policy's value");
            }
        }
        (None, None) => {
            return Err(Problem::input("no decision of the log has an outcome")
                .place(log.display().to_string())
                .hint("--decisions FILE writes what the policy would do"));
        }
        (None, Some(_)) => {}
    }
    Ok(applied.evaluation)
}

/// Returns and lengths of a policy's episodes.
fn returns(args: &Args, episodes: usize) -> Tried<Vec<(&'static str, Estimate)>> {
    let policy = Policy::load(&args.drawing.model)?;
    let mut environment = make(&policy.environment)?;
    let shown = environment.observation_space().size();
    if shown != policy.network.mlp.shape().inputs || *environment.action_space() != policy.actions {
        return Err(Problem::input(format!("the policy was not made for `{}`", policy.environment))
            .place(args.drawing.model.display().to_string())
            .hint("the environment has changed since it was trained; train again"));
    }
    let format =
        args.film.as_deref().map(Format::of).transpose().map_err(|problem| problem.place("--film"))?;
    let mut film = Film::default();
    let found =
        policy.watched(&mut *environment, args.drawing.seed, episodes, &mut |episode, environment| {
            if format.is_none() || episode > 0 {
                return Ok(());
            }
            film.take(environment).map_err(|problem| problem.place(policy.environment.clone()))
        })?;
    if let (Some(path), Some(format)) = (&args.film, format) {
        film.write(path, format)?;
    }
    let (returns, lengths): (Vec<f64>, Vec<f64>) =
        found.into_iter().map(|(total, length)| (total, length as f64)).unzip();
    let mut found = vec![
        ("return", t_interval(&returns, "episodes")),
        ("length (steps)", t_interval(&lengths, "episodes")),
    ];
    let score = |&earned: &f64| scores::normalised(&policy.environment, earned);
    if let Some(scores) = returns.iter().map(score).collect::<Option<Vec<f64>>>() {
        found.push(("normalised score", t_interval(&scores, "episodes")));
    }
    Ok(found)
}

fn print(args: &Args, found: &[(&'static str, Estimate)], output: &mut Output<'_>) -> Result<(), End> {
    if args.json {
        let all: Map<String, Value> = found
            .iter()
            .map(|(name, estimate)| {
                let interval = estimate.interval.map(|(low, high)| json!([low, high]));
                ((*name).to_owned(), json!({ "mean": estimate.mean, "interval": interval, "n": estimate.n }))
            })
            .collect();
        return output.write(&format!("{:#}\n", Value::Object(all)));
    }
    let width = found.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    output.write(&found.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect::<String>())
}

fn on_pairs(args: &Args, speaker: &Speaker) -> Tried<Vec<(&'static str, Estimate)>> {
    let objective = Dpo::default();
    let (rows, _) = objective::read(&objective, &args.data, &ReadOptions::default())?;
    let context = Limits::new(speaker.model.architecture.context);
    let limits = Limits { long_prompt: LongPrompt::KeepEnd, ..context };
    let examples = objective.encode(&rows, &speaker.tokenizer, &limits)?.rows;
    let training = Training::default();
    let scores = trainer::score(&speaker.model, &examples, &training, |_| {});
    let reference = match &args.reference {
        Some(folder) => {
            let drawing = args.drawing.of(folder);
            trainer::score(&Speaker::new(&drawing)?.model, &examples, &training, |_| {})
        }
        None => vec![vec![0.0; 2]; examples.len()],
    };
    let margins: Vec<f64> =
        scores.iter().zip(&reference).map(|(own, base)| (own[0] - base[0]) - (own[1] - base[1])).collect();
    let losses: Vec<f64> = scores
        .iter()
        .zip(&examples)
        .map(|(own, example)| -own[0] / example.answer_tokens().next().unwrap_or(1) as f64)
        .collect();
    let right = margins.iter().filter(|&&margin| margin > 0.0).count();
    let mut found = vec![
        ("loss of chosen answers (nats per token)", t_interval(&losses, "pairs")),
        ("preference accuracy", wilson(right as f64, margins.len(), "pairs")),
        ("margin (nats per answer)", t_interval(&margins, "pairs")),
    ];
    if args.reference.is_some() {
        let dpo: Vec<f64> = margins.iter().map(|margin| (-objective.beta * margin).exp().ln_1p()).collect();
        found.push(("DPO loss at beta 0.1", t_interval(&dpo, "pairs")));
    }
    Ok(found)
}

pub(super) fn judge_named(name: &str) -> Tried<Box<dyn Judge>> {
    Ok(match name {
        "exact" => Box::new(Rule::Exact),
        "contains" => Box::new(Rule::Contains),
        "shorter" => Box::new(Rule::Shorter),
        "longer" => Box::new(Rule::Longer),
        file if Path::new(file).is_file() => {
            let layers = Layers { file: Some(file.into()), ..Layers::default() };
            config::load::<JudgeSettings>(&layers)?.settings.judge(|name| std::env::var(name).ok())?
        }
        other => {
            return Err(Problem::usage(format!("`{other}` is neither a judge nor a file"))
                .place("--judge")
                .hint(
                    "choose exact, contains, shorter, longer, or a TOML file with the settings of a judge",
                ));
        }
    })
}

/// Prompts of files of prompts or of pairs, with the right answers where the rows have them.
fn prompts(files: &[PathBuf]) -> Tried<Vec<(Text, Option<String>)>> {
    let options = ReadOptions::default();
    Ok(match check(files, None, &options, None)?.kind {
        RowKind::Pairs => {
            read_pairs(files, &options)?.rows.into_iter().map(|row| (row.prompt, None)).collect()
        }
        _ => read_prompts(files, &options)?.rows.into_iter().map(|row| (row.prompt, row.answer)).collect(),
    })
}

fn contest(args: &Args, speaker: &Speaker, against: &Path, judge: &dyn Judge) -> Tried<Estimate> {
    let asked = prompts(&args.data)?;
    let answered = |speaker: &Speaker| -> Tried<Vec<Answer>> {
        let texts: Vec<&Text> = asked.iter().map(|(prompt, _)| prompt).collect();
        let answers = speaker.answers(&texts)?;
        let answer = |((prompt, right), completion): (&(Text, Option<String>), String)| Answer {
            prompt: prompt.clone(),
            completion,
            answer: right.clone(),
            source: None,
        };
        Ok(asked.iter().zip(answers).map(answer).collect())
    };
    let own = answered(speaker)?;
    let other = match against.is_dir() {
        true => answered(&Speaker::new(&args.drawing.of(against))?)?,
        false => read_answers(&[against.to_path_buf()], &ReadOptions::default())?,
    };
    Ok(win_rate(judge, &duels(&own, &other)?, &Seeds::new(0))?.overall.wilson)
}
