//! `polo sample`: several answers of a model to each prompt, with their log-probs.

use std::path::PathBuf;

use polo_lm::{
    encode::{Limits, encode_lists, encode_prompt},
    generate::{Completion, Finished, Mixture, Sampling, generate},
    read::{ReadOptions, read_prompts},
    rows::{ListRow, PromptRow},
};
use polo_nn::shares;
use polo_preference::{
    objective::{Example, Tree},
    settings::Training,
    trainer,
};
use polo_run::{Problem, Result, folder::write_atomic, human, progress::Progress};
use serde_json::json;

use super::generate::{Drawing, GROUP, Speaker, open};
use crate::output::{End, Output};

/// Draw several answers to each prompt, with their log-probabilities.
///
/// Writes JSON lines: `prompt`, `completions`, `logps`, and `answer` where the prompt's row has one. Log-probs are in
/// nats, of the whole answer with its end token, tokenized as `train` does, under the model at temperature 1, whatever
/// the answers were drawn with.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files of prompts (or of pairs, of which the prompts are taken); may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Answers a prompt.
    #[arg(long, short = 'n', alias = "n", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// Folder of another model, with the same tokenizer, that has a say in every token: tokens are drawn in proportion to
    /// p^(1 - share) q^share (Nash-MD, IPO-MD).
    #[arg(long, value_name = "DIR")]
    mix_with: Option<PathBuf>,
    /// Its share, from 0 to 1.
    #[arg(long, value_name = "B", default_value_t = 0.5, requires = "mix_with")]
    mix_share: f64,
    #[command(flatten)]
    drawing: Drawing,
}

/// Answers that a person should know of.
#[derive(Default)]
struct Counts {
    all: usize,
    cut: usize,
    retokenized: usize,
    uniform: usize,
}

/// Draws.
///
/// # Errors
/// A model or prompts that cannot be used; no prompt that leaves room for an answer; a file that cannot be written.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let speaker = Speaker::new(&args.drawing)?;
    let other = args.mix_with.as_deref().map(|folder| open(folder, &args.drawing.device)).transpose()?;
    if let (Some((_, tokenizer)), Some(folder)) = (&other, &args.mix_with)
        && tokenizer.fingerprint() != speaker.tokenizer.fingerprint()
    {
        return Err(Problem::input("its tokenizer is not that of the other model")
            .place(folder.display().to_string())
            .hint("mix models that were trained from the same base")
            .into());
    }
    let mixture = other.as_ref().map(|(model, _)| Mixture { model, share: args.mix_share });
    let rows = read_prompts(&args.data, &ReadOptions::default())?.rows;
    let context = speaker.model.architecture.context;
    let (mut prompts, mut long) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let ids =
            encode_prompt(&row.prompt, &speaker.tokenizer).map_err(|problem| row.place.mark(problem))?;
        match ids.len() < context {
            true => prompts.push((row, ids)),
            false => long.push(&row.place),
        }
    }
    if prompts.is_empty() {
        return Err(Problem::input(format!("every prompt fills the context of {context} tokens"))
            .hint("shorten the prompts, or use a model of a longer context")
            .into());
    }
    let mut text = String::new();
    let mut counts = Counts::default();
    let bar = Progress::new("sampling", prompts.len() as u64, "prompts");
    for (number, group) in prompts.chunks(GROUP).enumerate() {
        text += &sampled(&speaker, args, mixture, number, group, &mut counts)?;
        bar.step((number * GROUP + group.len()) as u64, &[]);
    }
    bar.finish();
    write_atomic(&args.out, text.as_bytes())?;

    let Drawing { temperature, top_k, top_p, .. } = args.drawing;
    let remarks = [
        (counts.all, "answers written"),
        (long.len(), "prompts left out: they fill the model's context"),
        (counts.uniform, "prompts got equal answers alone; `polo score` leaves them out"),
        (
            counts.cut,
            "answers were cut at the most tokens; their log-probs are those of the text with an end token",
        ),
        (
            counts.retokenized,
            "answers were drawn as other tokens than their text has; their log-probs are the text's",
        ),
    ];
    for (count, what) in remarks.into_iter().filter(|(count, _)| *count > 0) {
        output.remark(&format!("{} {what}", human::count(count as u64)));
    }
    if (temperature, top_k, top_p) != (1.0, 0, 1.0) || mixture.is_some() {
        output.remark(
            "the answers were not drawn from the model as it is, but the log-probs are its own: importance weights, \
             as `brain` has them, are approximate",
        );
    }
    Ok(())
}

/// The lines of a group of prompts.
fn sampled(
    speaker: &Speaker<'_>,
    args: &Args,
    mixture: Option<Mixture<'_>>,
    number: usize,
    group: &[(&PromptRow, Vec<u32>)],
    counts: &mut Counts,
) -> Result<String> {
    let sampling = Sampling { mixture, ..speaker.sampling() };
    let samples = usize::from(args.samples);
    let ids: Vec<Vec<u32>> = group.iter().map(|(_, ids)| ids.clone()).collect();
    let seeds = speaker.seeds.child(&format!("group {number}"));
    let drawn = generate(&speaker.model, &ids, samples, &sampling, &seeds, shares::default_count())?;
    let list = |((row, _), answers): (&(&PromptRow, Vec<u32>), &[Completion])| ListRow {
        completions: answers
            .iter()
            .map(|answer| row.prompt.answered(answer.text(&speaker.tokenizer, &sampling)))
            .collect(),
        prompt: row.prompt.clone(),
        scores: vec![0.0; samples],
        logps: Vec::new(),
        place: row.place.clone(),
        id: row.id,
    };
    let lists: Vec<ListRow> = group.iter().zip(drawn.chunks(samples)).map(list).collect();
    let limits = Limits::new(speaker.model.architecture.context);
    let encoded = encode_lists(&lists, &speaker.tokenizer, &limits)?.rows;
    let examples: Vec<Example> = encoded
        .into_iter()
        .map(|row| Example {
            trees: vec![Tree { prompt: row.prompt, answers: row.answers }],
            ..Example::default()
        })
        .collect();
    let logps = trainer::score(&speaker.model, &examples, &Training::default(), |_| {});
    let scored = examples.iter().flat_map(|example| &example.trees[0].answers);
    counts.all += drawn.len();
    counts.cut += drawn.iter().filter(|answer| answer.finished == Finished::Length).count();
    // A template may well add tokens after the end.
    counts.retokenized +=
        drawn.iter().zip(scored).filter(|(drawn, scored)| !scored.starts_with(&drawn.tokens)).count();
    let mut text = String::new();
    for (((row, _), list), logps) in group.iter().zip(&lists).zip(&logps) {
        counts.uniform += usize::from(list.completions.iter().all(|answer| *answer == list.completions[0]));
        let completions: Vec<String> = list.completions.iter().map(|answer| answer.words()).collect();
        let mut line = json!({"prompt": row.prompt, "completions": completions, "logps": logps});
        if let Some(answer) = &row.answer {
            line["answer"] = json!(answer);
        }
        text += &format!("{line}\n");
    }
    Ok(text)
}
