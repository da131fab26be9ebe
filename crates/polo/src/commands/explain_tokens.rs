//! `polo explain-tokens`: which tokens of an answer a trained model rewards.

use std::{io, path::PathBuf};

use polo_lm::{
    encode::{Limits, LongPrompt},
    read::{ReadOptions, read_pairs},
};
use polo_preference::{
    methods::token_dpo_q::TokenDpoQ,
    objective::{PairObjective, Rows},
    settings::Training,
    token_rewards::{explain_pairs, to_report, to_terminal},
};
use polo_run::{Problem, progress};

use super::generate::open;
use crate::output::{End, Output};

/// Show which tokens a DPO-trained model rewards.
///
/// The reward of a token is beta * log(model / reference), and DPO's reward of an answer is the sum over its tokens. On
/// a terminal, answers are coloured from red (lowers the reward) to blue (raises it); elsewhere each token is followed by
/// its reward.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The trained model: a Hugging Face folder, e.g. `final` of a run folder.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The model that it was trained from.
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// Preference pairs; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Explain the first N pairs; 0: all.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rows: usize,
    /// Beta of the training; it scales all rewards alike.
    #[arg(long, value_name = "B", default_value_t = 0.1, value_parser = positive)]
    beta: f64,
    /// Write a page with heat maps and all numbers, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON lines, a pair each: every token's reward and, to compare with, its -log-probs under both models.
    #[arg(long)]
    json: bool,
    /// Where to compute: cpu, cuda, cuda:1, vulkan.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,
}

/// Explains.
///
/// # Errors
/// Models that cannot be used or do not share their tokens; data that hold no pairs; a page that cannot be written.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let mut rows = read_pairs(&args.data, &ReadOptions::default())?.rows;
    if args.rows > 0 {
        rows.truncate(args.rows);
    }
    let rows = Rows::Pairs(rows);
    let (model, tokenizer) = open(&args.model, &args.device)?;
    let (reference, other) = open(&args.reference, &args.device)?;
    let (own, base) = (model.architecture.vocabulary, reference.architecture.vocabulary);
    if own != base {
        return Err(Problem::input(format!("the model has {own} tokens, its reference {base}"))
            .place("--reference")
            .hint("give the folder that training started from; the two share their tokenizer")
            .into());
    }
    let context = model.architecture.context.min(reference.architecture.context);
    let limits = Limits { long_prompt: LongPrompt::KeepEnd, ..Limits::new(context) };
    let examples = TokenDpoQ::default().encode(&rows, &tokenizer, &limits)?.rows;
    // Chat templates and names of special tokens may differ; what counts is that these rows are the same tokens.
    let others = TokenDpoQ::default().encode(&rows, &other, &limits)?.rows;
    if let Some((example, _)) = examples.iter().zip(&others).find(|(one, other)| one != other) {
        return Err(Problem::input(
            "the tokenizers of model and reference cut the row into different tokens",
        )
        .place(example.id.clone())
        .hint("give the folder that training started from; the two share their tokenizer")
        .into());
    }
    let pairs = explain_pairs(&model, &reference, &tokenizer, &examples, args.beta, &Training::default())?;
    if let Some(file) = &args.html {
        to_report(&pairs, args.beta).write(file)?;
        output.remark(&format!("written to {}", file.display()));
    }
    if !args.json {
        return output.write(&to_terminal(&pairs, args.beta, progress::colours_on(&io::stdout())));
    }
    for pair in &pairs {
        let line = serde_json::to_string(pair)
            .map_err(|error| Problem::input(format!("cannot write JSON: {error}")))?;
        output.write(&format!("{line}\n"))?;
    }
    Ok(())
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("a number > 0 is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_is_positive() {
        for (text, expected) in [("0.1", Some(0.1)), ("0", None), ("-1", None), ("nan", None), ("inf", None)]
        {
            assert_eq!(positive(text).ok(), expected, "{text}");
        }
    }
}
