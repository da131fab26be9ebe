//! `polo generate` and `polo chat`.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
};

use polo_lm::{
    beam::{self, Beams},
    encode::encode_prompt,
    generate::{Sampling, StopTexts, generate, stream},
    model::LanguageModel,
    read::{ReadOptions, read_prompts},
    revise::Revising,
    rows::{Message, PromptRow, Text},
    templates::RevisionTemplates,
    tokens::Tokenizer,
    weights,
};
use polo_nn::{device, shares};
use polo_run::{Kind, Problem, Result, seed::Seeds};
use serde_json::json;

use crate::output::{End, Output};

/// Prompts that are answered before their answers are printed.
pub(super) const GROUP: usize = 64;

/// How answers are drawn.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Drawing {
    /// The model: a Hugging Face folder, e.g. `final` of a run folder.
    #[arg(long, value_name = "DIR")]
    pub(super) model: PathBuf,
    /// Most tokens of an answer.
    #[arg(long, alias = "max-new-tokens", value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Divides the log-probabilities; 0 always takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = not_negative)]
    pub(super) temperature: f64,
    /// Draw among the K likeliest tokens only; 0: among all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(super) top_k: usize,
    /// Draw among the fewest likeliest tokens that hold the share P of the probability.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = share)]
    pub(super) top_p: f64,
    /// End an answer at this text; may be given many times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
    /// Where to compute: cpu, cuda, cuda:1, vulkan.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(super) device: String,
}

/// Answer prompts.
///
/// A single prompt is answered as text, as it is drawn. Files of prompts, --samples and --revisions give JSON lines:
/// `prompt`, `completion` and, with revisions, `revisions`, all answers from the first to the last. With --beams, answers
/// are the most probable ones that a beam search finds, nothing is drawn, and lines have a `score`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One prompt.
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    prompt: Option<String>,
    /// Files of prompts; may be given many times.
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Put the prompt to the model as a user's turn, through its chat template.
    #[arg(long, conflicts_with = "data")]
    chat: bool,
    /// Answers a prompt.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    samples: u16,
    /// Let the model revise each answer N times (SRPO's procedure at test time).
    #[arg(long, value_name = "N", default_value_t = 0)]
    revisions: usize,
    /// Prompts of answering and revising: instructions, dialogues, summaries or symbols [default: by the first prompt].
    #[arg(long, value_name = "NAME", requires = "revisions")]
    templates: Option<String>,
    /// Search for the most probable answer with N hypotheses side by side, instead of drawing; --samples then takes the
    /// best N answers, at most as many as beams.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        conflicts_with_all = ["revisions", "temperature", "top_k", "top_p", "seed"],
    )]
    beams: Option<u16>,
    /// Rank answers by log-probability over length to the power A: 0 takes sums, 1 means, more favours long answers.
    #[arg(long, value_name = "A", requires = "beams", default_value_t = 0.0, allow_negative_numbers = true, value_parser = finite)]
    length_penalty: f64,
    #[command(flatten)]
    drawing: Drawing,
}

/// Talk with a model.
///
/// A line is a turn; an empty line or the end of input ends the conversation.
#[derive(Debug, clap::Args)]
pub struct Chat {
    /// What the system turn says.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    drawing: Drawing,
}

impl Drawing {
    /// The same drawing from another model.
    pub(super) fn of(&self, model: &Path) -> Self {
        Self { model: model.into(), ..self.clone() }
    }
}

/// The model of a folder on a device of this name, and its tokenizer.
pub(super) fn open(folder: &Path, device: &str) -> Result<(LanguageModel, Tokenizer)> {
    let device = device::parse(device).map_err(|problem| problem.place("--device"))?;
    let model = weights::load(folder, &device)?.model;
    let tokenizer = Tokenizer::load(folder)?;
    tokenizer.check_vocabulary(model.architecture.vocabulary)?;
    Ok((model, tokenizer))
}

/// A model that is ready to answer.
pub(super) struct Speaker<'a> {
    drawing: &'a Drawing,
    pub(super) model: LanguageModel,
    pub(super) tokenizer: Tokenizer,
    pub(super) seeds: Seeds,
}

impl<'a> Speaker<'a> {
    pub(super) fn new(drawing: &'a Drawing) -> Result<Self> {
        let (model, tokenizer) = open(&drawing.model, &drawing.device)?;
        Ok(Self { drawing, model, tokenizer, seeds: Seeds::new(drawing.seed) })
    }

    pub(super) fn sampling(&self) -> Sampling<'_> {
        let Drawing { max_tokens, temperature, top_k, top_p, stop, .. } = self.drawing;
        Sampling {
            temperature: *temperature,
            top_k: *top_k,
            top_p: *top_p,
            max_new_tokens: *max_tokens as usize,
            stop: self.tokenizer.stop().to_vec(),
            stop_texts: (!stop.is_empty()).then_some(StopTexts { tokenizer: &self.tokenizer, texts: stop }),
            mixture: None,
        }
    }

    /// One answer to each prompt.
    pub(super) fn answers(&self, prompts: &[&Text]) -> Result<Vec<String>> {
        let sampling = self.sampling();
        let ids: Vec<_> =
            prompts.iter().map(|prompt| encode_prompt(prompt, &self.tokenizer)).collect::<Result<_>>()?;
        let drawn = generate(&self.model, &ids, 1, &sampling, &self.seeds, shares::default_count())?;
        Ok(drawn.iter().map(|answer| answer.text(&self.tokenizer, &sampling)).collect())
    }

    /// Answers one prompt, printing as it goes; `turn` numbers the prompts of a conversation.
    fn speak(&self, prompt: &Text, turn: u64, output: &mut Output<'_>) -> Result<String, End> {
        let ids = encode_prompt(prompt, &self.tokenizer)?;
        let sampling = self.sampling();
        let mut decoder = self.tokenizer.decoder(true);
        let mut printed = Ok(());
        let mut print = |text: &str| {
            if printed.is_ok() && !text.is_empty() {
                printed = output.write(text).and_then(|()| output.finish());
            }
        };
        let seeds = self.seeds.child(&format!("turn {turn}"));
        let answers =
            stream(&self.model, &ids, 1, &sampling, &seeds, &mut |_, token| print(&decoder.push(token)))?;
        print(&decoder.finish());
        print("\n");
        printed?;
        Ok(answers.first().map(|answer| answer.text(&self.tokenizer, &sampling)).unwrap_or_default())
    }
}

/// Answers prompts.
///
/// # Errors
/// A model or prompts that cannot be used; prompts that fill the context.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let speaker = Speaker::new(&args.drawing)?;
    let prompts: Vec<Text> = match &args.prompt {
        Some(prompt) if args.chat => vec![Text::Conversation(vec![Message::new("user", prompt)])],
        Some(prompt) => vec![Text::Plain(prompt.clone())],
        None => read_prompts(&args.data, &ReadOptions::default())?
            .rows
            .into_iter()
            .map(|PromptRow { prompt, .. }| prompt)
            .collect(),
    };
    if let Some(width) = args.beams {
        let beams =
            Beams { width: width.into(), length_penalty: args.length_penalty, answers: args.samples.into() };
        return search(args, &speaker, &beams, &prompts, output);
    }
    if let ([prompt], Some(_), 1, 0) = (&prompts[..], &args.prompt, args.samples, args.revisions) {
        return speaker.speak(prompt, 0, output).map(|_| ());
    }
    let templates = match (&args.templates, prompts.first()) {
        (Some(name), _) => RevisionTemplates::named(name)?,
        (None, Some(prompt)) => RevisionTemplates::suited_to(prompt),
        (None, None) => RevisionTemplates::default(),
    };
    let sampling = speaker.sampling();
    let workers = shares::default_count();
    for (group, prompts) in prompts.chunks(GROUP).enumerate() {
        // Streams are numbered within a group; the group's own seeds keep groups apart.
        let seeds = speaker.seeds.child(&format!("group {group}"));
        let repeated: Vec<&Text> =
            prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, args.samples.into())).collect();
        let answers: Vec<Vec<String>> = if args.revisions > 0 {
            let revising = Revising {
                revisions: args.revisions,
                stop_when_unchanged: false,
                sampling: &sampling,
                shares: workers,
            };
            let repeated: Vec<Text> = repeated.iter().copied().cloned().collect();
            revising.texts(&speaker.model, &speaker.tokenizer, &templates, &repeated, &seeds)?
        } else {
            let ids: Vec<_> = prompts
                .iter()
                .map(|prompt| encode_prompt(prompt, &speaker.tokenizer))
                .collect::<Result<_>>()?;
            let drawn = generate(&speaker.model, &ids, args.samples.into(), &sampling, &seeds, workers)?;
            drawn.iter().map(|answer| vec![answer.text(&speaker.tokenizer, &sampling)]).collect()
        };
        for (prompt, answers) in repeated.iter().zip(answers) {
            let mut line = json!({"prompt": prompt, "completion": answers.last()});
            if args.revisions > 0 {
                line["revisions"] = json!(answers);
            }
            output.write(&format!("{line}\n"))?;
        }
        output.finish()?;
    }
    Ok(())
}

/// Answers prompts by beam search.
fn search(
    args: &Args,
    speaker: &Speaker,
    beams: &Beams,
    prompts: &[Text],
    output: &mut Output<'_>,
) -> Result<(), End> {
    let sampling = speaker.sampling();
    for prompts in prompts.chunks(GROUP) {
        let ids: Vec<_> =
            prompts.iter().map(|prompt| encode_prompt(prompt, &speaker.tokenizer)).collect::<Result<_>>()?;
        let found = beam::search(&speaker.model, &ids, beams, &sampling, shares::default_count())?;
        for (prompt, found) in prompts.iter().zip(found) {
            for one in found {
                let text = one.completion.text(&speaker.tokenizer, &sampling);
                let line = match (&args.prompt, args.samples) {
                    (Some(_), 1) => text,
                    _ => json!({"prompt": prompt, "completion": text, "score": one.score}).to_string(),
                };
                output.write(&format!("{line}\n"))?;
            }
        }
        output.finish()?;
    }
    Ok(())
}

/// Talks until the person has nothing more to say.
///
/// # Errors
/// A model that cannot be used; a conversation that fills the context.
pub fn chat(args: &Chat, output: &mut Output<'_>) -> Result<(), End> {
    let speaker = Speaker::new(&args.drawing)?;
    let mut turns: Vec<Message> = args.system.iter().map(|text| Message::new("system", text)).collect();
    let mut lines = io::stdin().lock().lines();
    for turn in 0.. {
        if io::stdin().is_terminal() {
            write!(io::stderr(), "> ").ok();
        }
        let line = match lines.next() {
            None => break,
            Some(Ok(line)) if line.trim().is_empty() => break,
            Some(Ok(line)) => line,
            Some(Err(error)) => {
                return Err(Problem::new(Kind::Input, format!("cannot read stdin: {error}")).into());
            }
        };
        turns.push(Message::new("user", line));
        let answer = speaker.speak(&Text::Conversation(turns.clone()), turn, output)?;
        turns.push(Message::new("assistant", answer));
    }
    Ok(())
}

fn not_negative(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..f64::INFINITY).contains(&number) => Ok(number),
        _ => Err("a number >= 0 is needed".into()),
    }
}

fn finite(text: &str) -> std::result::Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| "a finite number is needed".into())
}

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err("a number > 0 and <= 1 is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_refused() {
        let check = |parse: fn(&str) -> Result<f64, String>, text, expected: Option<f64>| {
            assert_eq!(parse(text).ok(), expected, "{text}");
        };
        for (text, expected) in
            [("0", Some(0.0)), ("1.5", Some(1.5)), ("-1", None), ("inf", None), ("nan", None)]
        {
            check(not_negative, text, expected);
        }
        for (text, expected) in [("1", Some(1.0)), ("0", None), ("1.1", None), ("nan", None)] {
            check(share, text, expected);
        }
        for (text, expected) in [("-0.5", Some(-0.5)), ("inf", None), ("x", None)] {
            check(finite, text, expected);
        }
    }
}
