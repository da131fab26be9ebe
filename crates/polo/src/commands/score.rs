//! `polo score`: a reward for every answer of a list.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use polo_lm::{
    judge::Rule,
    read::ReadOptions,
    rows::Text,
    sampled::{
        Judged, SampledRow, judged_rewards, model_rewards, ranked_rewards, read_sampled, rule_rewards,
    },
    tokens::Tokenizer,
    weights::{self, Loaded},
    winrate::read_answers,
};
use polo_nn::device;
use polo_preference::train::READS_PAIRS;
use polo_run::{Problem, Result, folder::write_atomic, human};
use serde_json::json;

use super::evaluate::judge_named;
use crate::output::{End, Output};

/// Give every answer of lists a reward.
///
/// Reads rows with `prompt` and `completions`, e.g. of `sample`, and writes them with `scores`, ready for `pairs` and
/// for methods that learn from lists. Rows whose answers are all equal are left out.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("by").required(true))]
pub struct Args {
    /// Files of lists; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Reward by a rule.
    #[arg(long, value_enum, group = "by")]
    reward: Option<Reward>,
    /// Reward by a model that `train reward-model` made.
    #[arg(long, value_name = "DIR", group = "by")]
    reward_model: Option<PathBuf>,
    /// Where the reward model computes: cpu, cuda, cuda:1, vulkan.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Reward by a judge of pairs, a TOML file with its settings: logit of the probability that an answer beats the
    /// baseline.
    #[arg(long, value_name = "FILE", group = "by")]
    judge: Option<PathBuf>,
    /// What a judge or a ranker compares with: a file of answers (`prompt`, `completion`) [default: the first answer of
    /// each list].
    #[arg(long, value_name = "FILE", conflicts_with = "reward")]
    baseline: Option<PathBuf>,
    /// A judge's probabilities are brought into [P, 1 - P].
    #[arg(long, value_name = "P", default_value_t = 0.01, value_parser = small, conflicts_with_all = ["reward", "reward_model"])]
    clip: f64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Reward {
    /// 1 for the row's `answer`, white space at the ends aside, else 0.
    Exact,
    /// 1 if the row's `answer` stands in it, else 0.
    Contains,
    /// Minus the number of characters.
    Shorter,
    /// The number of characters.
    Longer,
}

/// Scores.
///
/// # Errors
/// Rows or a judge that cannot be used; no row with answers that differ; a file that cannot be written.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let (rows, _) = read_sampled(&args.data, &ReadOptions::default())?;
    let read = rows.len();
    let rows: Vec<SampledRow> = rows.into_iter().filter(|row| !row.is_uniform()).collect();
    if rows.is_empty() {
        return Err(Problem::input(format!("none of {read} rows has two answers that differ"))
            .hint("draw more answers, or at a higher temperature")
            .into());
    }
    let rewards = match (args.reward, &args.reward_model, &args.judge) {
        (Some(reward), ..) => {
            let rule = match reward {
                Reward::Exact => Rule::Exact,
                Reward::Contains => Rule::Contains,
                Reward::Shorter => Rule::Shorter,
                Reward::Longer => Rule::Longer,
            };
            rule_rewards(rule, &rows)?
        }
        (None, Some(folder), _) => {
            let device = device::parse(&args.device).map_err(|problem| problem.place("--device"))?;
            let Loaded { model, config, .. } = weights::load(folder, &device)?;
            let tokenizer = Tokenizer::load(folder)?;
            tokenizer.check_vocabulary(model.architecture.vocabulary)?;
            if config[READS_PAIRS] == true {
                ranked_rewards(&model, &tokenizer, &rows, &baselines(args.baseline.as_deref(), &rows)?)?
            } else if args.baseline.is_some() {
                return Err(Problem::usage("a score of single answers has no baseline")
                    .place("--baseline")
                    .hint("rankers (method.kind = \"ranker\") and judges compare with one")
                    .into());
            } else {
                model_rewards(&model, &tokenizer, &rows)?
            }
        }
        (None, None, Some(judge)) => {
            let judge = judge_named(&judge.to_string_lossy())?;
            let Judged { rewards, unread } =
                judged_rewards(&*judge, &rows, &baselines(args.baseline.as_deref(), &rows)?, args.clip)?;
            if unread > 0 {
                output.remark(&format!(
                    "{} comparisons without a readable verdict count as ties",
                    human::count(unread as u64)
                ));
            }
            rewards
        }
        (None, None, None) => {
            return Err(Problem::usage("nothing is said to reward by")
                .hint("--reward, --reward-model or --judge")
                .into());
        }
    };
    let mut text = String::new();
    for (row, rewards) in rows.iter().zip(&rewards) {
        let mut fields = row.fields.clone();
        fields.insert("scores".into(), json!(rewards));
        text += &format!("{}\n", json!(fields));
    }
    write_atomic(&args.out, text.as_bytes())?;
    if rows.len() < read {
        output.remark(&format!(
            "{} rows left out: all their answers are equal",
            human::count((read - rows.len()) as u64)
        ));
    }
    let all: Vec<f64> = rewards.concat();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    output.remark(&format!(
        "{} answers to {} prompts, mean reward {}",
        human::count(all.len() as u64),
        human::count(rows.len() as u64),
        human::number(mean)
    ));
    Ok(())
}

/// What the answers of each row are compared with.
fn baselines(file: Option<&Path>, rows: &[SampledRow]) -> Result<Vec<String>> {
    let Some(file) = file else {
        return Ok(rows.iter().map(|row| row.completions[0].words()).collect());
    };
    let answers = read_answers(&[file.to_path_buf()], &ReadOptions::default())?;
    let of_prompt: HashMap<&Text, &String> =
        answers.iter().rev().map(|answer| (&answer.prompt, &answer.completion)).collect();
    let baseline = |row: &SampledRow| match of_prompt.get(&row.prompt) {
        Some(words) => Ok((*words).clone()),
        None => Err(row.place.mark(
            Problem::input(format!("{} has no answer to this row's prompt", file.display()))
                .hint("the prompts must agree letter by letter"),
        )),
    };
    rows.iter().map(baseline).collect()
}

fn small(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number < 0.5 => Ok(number),
        _ => Err("a number > 0 and < 0.5 is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certainty_is_cut_by_less_than_a_half() {
        for (text, expected) in [("0.01", Some(0.01)), ("0", None), ("0.5", None), ("nan", None), ("x", None)]
        {
            assert_eq!(small(text).ok(), expected, "{text}");
        }
    }
}
