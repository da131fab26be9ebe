//! `polo pairs`: preference pairs out of scored lists.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use polo_lm::{
    read::{ReadOptions, read_completions, read_rows},
    rows::{ListRow, Text},
    sampled::read_sampled,
};
use polo_preference::ranking::{Labels, Pairing, distinct, pair, rejection};
use polo_run::{Problem, Result, folder::write_atomic, human, seed::Seeds};
use serde_json::json;

use crate::output::{End, Output};

/// Make preference pairs out of scored lists.
///
/// Equal answers of a prompt count once, and blank ones not at all. With --keep, answers are first chosen by RSO's
/// rejection sampling. With --against, answers of people win against all of the lists', which need no scores then.
/// Writes JSON lines: `prompt`, `chosen`, `rejected`, and the two scores where they decided.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files of scored lists, e.g. of `score`; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Who is set against whom.
    #[arg(long, value_enum, default_value = "first-round")]
    how: How,
    /// Keep K answers of each prompt, by rejection sampling [default: all].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(2..))]
    keep: Option<u16>,
    /// Temperature of the policy that rejection sampling aims at, in units of the scores: 0 keeps the best, inf the
    /// first.
    #[arg(long, value_name = "B", default_value_t = 0.5, value_parser = temperature, requires = "keep")]
    beta: f64,
    /// Answers that win, one to a prompt: completions, or the chosen sides of pairs (SPIN).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["how", "keep", "labels"])]
    against: Option<PathBuf>,
    /// Who wins.
    #[arg(long, value_enum, default_value = "argmax")]
    labels: LabelArgument,
    /// Seed of all draws.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum How {
    /// Disjoint pairs at random.
    FirstRound,
    /// The winners of each round meet in the next.
    Tournament,
    /// The best against the worst.
    MaxMin,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LabelArgument {
    /// The higher score; equal ones make no pair.
    Argmax,
    /// Drawn, by the sigmoid of the difference in score.
    Bernoulli,
}

/// Makes pairs.
///
/// # Errors
/// Rows that cannot be used; not a single pair; a file that cannot be written.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    if let Some(people) = &args.against {
        return against(args, people, output);
    }
    let rows = read_rows::<ListRow>(&args.data, &ReadOptions::default())?.rows;
    let pairing = match args.how {
        How::FirstRound => Pairing::FirstRound,
        How::Tournament => Pairing::Tournament,
        How::MaxMin => Pairing::MaxMin,
    };
    let labels = match args.labels {
        LabelArgument::Argmax => Labels::Argmax,
        LabelArgument::Bernoulli => Labels::Bernoulli,
    };
    let seeds = Seeds::new(args.seed);
    let (mut text, mut pairs, mut ties, mut without) = (String::new(), 0, 0, 0);
    for row in &rows {
        let candidates: Vec<usize> =
            (0..row.completions.len()).filter(|&place| !row.completions[place].is_blank()).collect();
        let texts = candidates.iter().map(|&place| &row.completions[place]);
        let kept = match args.keep {
            None => distinct(texts),
            Some(keep) => {
                let rewards: Vec<f64> = candidates.iter().map(|&place| row.scores[place]).collect();
                rejection(texts, &rewards, keep.into(), args.beta, &mut seeds.rng("pairs/rejection", row.id))
            }
        };
        let kept: Vec<usize> = kept.into_iter().map(|kept| candidates[kept]).collect();
        let paired = pair(&row.scores, &kept, pairing, labels, &mut seeds.rng("pairs/meetings", row.id));
        pairs += paired.pairs.len();
        ties += paired.ties;
        without += usize::from(paired.pairs.is_empty());
        for (winner, loser) in paired.pairs {
            let (chosen, rejected) = (&row.completions[winner], &row.completions[loser]);
            let mut line = json!({"prompt": row.prompt, "chosen": chosen, "rejected": rejected});
            // A drawn winner may have the lower score, and a pair's scores must not contradict it.
            if labels == Labels::Argmax {
                line["score_chosen"] = json!(row.scores[winner]);
                line["score_rejected"] = json!(row.scores[loser]);
            }
            text += &format!("{line}\n");
        }
    }
    if pairs == 0 {
        return Err(Problem::input(format!("{} rows give no pair", rows.len()))
            .hint("their answers are blank, or have equal scores")
            .into());
    }
    write_atomic(&args.out, text.as_bytes())?;
    output.remark(&format!(
        "{} pairs from {} prompts",
        human::count(pairs as u64),
        human::count((rows.len() - without) as u64)
    ));
    for (count, what) in [(ties, "meetings of equal scores made no pair"), (without, "prompts gave no pair")]
    {
        if count > 0 {
            output.remark(&format!("{} {what}", human::count(count as u64)));
        }
    }
    Ok(())
}

/// Pairs of people's answers with those of lists.
fn against(args: &Args, people: &Path, output: &mut Output<'_>) -> Result<(), End> {
    let options = ReadOptions::default();
    let winners = read_completions(&[people.to_owned()], &options)?.rows;
    let answered = winners.iter().rev().filter(|row| !row.completion.is_blank());
    let of_prompt: HashMap<&Text, &Text> = answered.map(|row| (&row.prompt, &row.completion)).collect();
    let rows = read_sampled(&args.data, &options)?.0;
    let (mut text, mut pairs, mut unanswered) = (String::new(), 0, 0);
    for row in &rows {
        let Some(chosen) = of_prompt.get(&row.prompt) else {
            unanswered += 1;
            continue;
        };
        for place in distinct(&row.completions) {
            let rejected = &row.completions[place];
            if rejected == *chosen || rejected.is_blank() {
                continue;
            }
            pairs += 1;
            text += &format!("{}\n", json!({"prompt": row.prompt, "chosen": chosen, "rejected": rejected}));
        }
    }
    if pairs == 0 {
        return Err(Problem::input(format!(
            "{} rows give no pair, {unanswered} of them without an answer",
            rows.len()
        ))
        .place(people.display().to_string())
        .hint("prompts must be the same in both files: sample from the file of the answers")
        .into());
    }
    write_atomic(&args.out, text.as_bytes())?;
    output.remark(&format!("{} pairs", human::count(pairs)));
    if unanswered > 0 {
        output.remark(&format!("{} prompts have no answer to win", human::count(unanswered)));
    }
    Ok(())
}

fn temperature(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if number >= 0.0 => Ok(number),
        _ => Err("a number >= 0, or inf, is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_reach_from_nothing_to_infinity() {
        for (text, expected) in [("0", Some(0.0)), ("inf", Some(f64::INFINITY)), ("-1", None), ("nan", None)]
        {
            assert_eq!(temperature(text).ok(), expected, "{text}");
        }
    }
}
