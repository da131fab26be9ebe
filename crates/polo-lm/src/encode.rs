//! Rows to token ids, by the rules of TRL's trainers.
//!
//! The loaders of `polo train` and `polo evaluate` call this once, before the first step. A prompt and prompt +
//! answer are tokenized each as a whole, and the answer begins where the two diverge: tokens that merge across the
//! boundary count as answer. A plain answer gets the end token's name appended if it does not end with it; what ends
//! an answer in a conversation is the chat template's affair. An answer longer than the context keeps its beginning.
//!
//! One deviation: a prompt of no token at all (plain language modelling, mostly) becomes the BOS or end token, as
//! there must be something to predict the first token from; TRL leaves that token out of the loss.

use polo_run::{Problem, Result};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    rows::{CompletionRow, ListRow, Message, PairRow, Place, PromptRow, Text, UnpairedRow},
    tokens::Tokenizer,
};

/// What to do with a prompt that leaves no room for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongPrompt {
    /// Stop with an error that names the row.
    #[default]
    Stop,
    /// Leave out the row (TRL's behaviour).
    Drop,
    /// Cut the prompt to its end, so that the answer fits.
    KeepEnd,
    /// Cut the prompt to its beginning, so that the answer fits.
    KeepStart,
}

/// Limits in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most tokens of prompt and answer together; at most the model's context, at least 2.
    pub max_length: usize,
    /// Prompts longer than this are cut, whatever the answer's length: to their beginning under
    /// [`LongPrompt::KeepStart`], else to their end. None to cut no prompt for its length alone.
    pub max_prompt_length: Option<usize>,
    /// What to do with a prompt that leaves no room for an answer.
    pub long_prompt: LongPrompt,
}

impl Limits {
    /// No more than `max_length` tokens; longer prompts are an error.
    pub fn new(max_length: usize) -> Self {
        Self { max_length, max_prompt_length: None, long_prompt: LongPrompt::Stop }
    }

    /// Checks that prompt and answer can have a token each.
    ///
    /// # Errors
    /// `max_length` below 2.
    fn check(&self) -> Result<()> {
        if self.max_length < 2 {
            return Err(Problem::usage(format!(
                "max_length is {}, and a row needs at least 2 tokens",
                self.max_length
            )));
        }
        Ok(())
    }
}

/// A pair as token ids. The sequences of the two answers are `prompt + chosen` and `prompt + rejected`.
#[derive(Clone, Debug, PartialEq)]
pub struct PairTokens {
    /// The tokens that both share; never empty.
    pub prompt: Vec<u32>,
    /// The preferred answer with its end token, unless it is a step in the middle; never empty.
    pub chosen: Vec<u32>,
    /// The other answer, as the first; never empty.
    pub rejected: Vec<u32>,
    /// Probability that `chosen` beats `rejected`.
    pub label: f64,
    /// The row's [`PairRow::id`].
    pub id: u64,
}

/// A prompt and what is to be learnt after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletionTokens {
    /// Context, which is not learnt; never empty.
    pub prompt: Vec<u32>,
    /// What is learnt; never empty.
    pub completion: Vec<u32>,
    /// The row's [`CompletionRow::id`].
    pub id: u64,
}

/// A prompt and several answers to it, each with a score.
#[derive(Clone, Debug, PartialEq)]
pub struct ListTokens {
    /// The tokens that all share; never empty.
    pub prompt: Vec<u32>,
    /// The answers with their end tokens; never empty.
    pub answers: Vec<Vec<u32>>,
    /// [`ListRow::scores`].
    pub scores: Vec<f64>,
    /// [`ListRow::logps`].
    pub logps: Vec<f64>,
    /// The row's [`ListRow::id`].
    pub id: u64,
}

/// What happened to rows on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EncodeReport {
    /// Rows encoded.
    pub rows: usize,
    /// Rows left out because their prompt fills the context.
    pub dropped: usize,
    /// Rows whose prompt was cut.
    pub cut_prompts: usize,
    /// Rows of which an answer was cut.
    pub cut_answers: usize,
    /// Rows whose prompt is not a prefix of prompt + answer in tokens; its differing end was left out. Many of these
    /// mean that the model is trained on prompts that end otherwise than at generation.
    pub diverged: usize,
}

/// Encoded rows, in the order of the rows, and what happened to them.
#[derive(Clone, Debug)]
pub struct Encoded<T> {
    /// The rows that were kept.
    pub rows: Vec<T>,
    /// Counts.
    pub report: EncodeReport,
}

/// What happened to one row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    pub cut_prompt: bool,
    pub cut_answer: bool,
    pub diverged: bool,
}

/// Encodes pairs, in parallel, in order.
///
/// # Errors
/// The first row (in file order) that cannot be encoded: a conversation that the template refuses, or a prompt that
/// fills the context under [`LongPrompt::Stop`]; no row left; a missing end token.
pub fn encode_pairs(rows: &[PairRow], tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<PairTokens>> {
    encode_all(rows, limits, |row| {
        let (mut prompt, mut answers, mut fate) =
            split_ending(tokenizer, &row.prompt, &[&row.chosen, &row.rejected], !row.about.open)
                .map_err(|problem| row.place.mark(problem))?;
        if !fit(&mut prompt, &mut answers, tokenizer, limits, &row.place, &mut fate)? {
            return Ok(None);
        }
        let [chosen, rejected] = answers;
        Ok(Some((PairTokens { prompt, chosen, rejected, label: row.label, id: row.id }, fate)))
    })
}

/// Encodes scored lists, in parallel, in order.
///
/// # Errors
/// As [`encode_pairs`].
pub fn encode_lists(rows: &[ListRow], tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<ListTokens>> {
    encode_all(rows, limits, |row| {
        let answers: Vec<&Text> = row.completions.iter().collect();
        let (mut prompt, mut answers, mut fate) =
            split_all(tokenizer, &row.prompt, &answers, true).map_err(|problem| row.place.mark(problem))?;
        if !fit(&mut prompt, &mut answers, tokenizer, limits, &row.place, &mut fate)? {
            return Ok(None);
        }
        let (scores, logps) = (row.scores.clone(), row.logps.clone());
        Ok(Some((ListTokens { prompt, answers, scores, logps, id: row.id }, fate)))
    })
}

/// Encodes single answers, in parallel, in order; their labels stay with the rows.
///
/// # Errors
/// As [`encode_pairs`].
pub fn encode_unpaired(
    rows: &[UnpairedRow],
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Encoded<CompletionTokens>> {
    encode_all(rows, limits, |row| {
        encode_answer(&row.prompt, &row.completion, tokenizer, limits, &row.place, row.id)
    })
}

fn encode_answer(
    prompt: &Text,
    completion: &Text,
    tokenizer: &Tokenizer,
    limits: &Limits,
    place: &Place,
    id: u64,
) -> Result<Option<(CompletionTokens, Fate)>> {
    let (mut prompt, mut answers, mut fate) =
        split(tokenizer, prompt, &[completion]).map_err(|problem| place.mark(problem))?;
    if !fit(&mut prompt, &mut answers, tokenizer, limits, place, &mut fate)? {
        return Ok(None);
    }
    let [completion] = answers;
    Ok(Some((CompletionTokens { prompt, completion, id }, fate)))
}

/// Encodes rows of supervised fine-tuning, in parallel, in order.
///
/// # Errors
/// As [`encode_pairs`].
pub fn encode_completions(
    rows: &[CompletionRow],
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Encoded<CompletionTokens>> {
    encode_all(rows, limits, |row| {
        encode_answer(&row.prompt, &row.completion, tokenizer, limits, &row.place, row.id)
    })
}

/// Encodes prompts for generation, in parallel, in order. `limits.max_length` is what a prompt may take, less one
/// token for the answer; callers subtract what they want to generate.
///
/// # Errors
/// As [`encode_pairs`].
pub fn encode_prompts(
    rows: &[PromptRow],
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Encoded<(u64, Vec<u32>)>> {
    encode_all(rows, limits, |row| {
        let mut prompt = encode_prompt(&row.prompt, tokenizer).map_err(|problem| row.place.mark(problem))?;
        let mut fate = Fate::default();
        let kept = fit(&mut prompt, &mut [], tokenizer, limits, &row.place, &mut fate)?;
        Ok(kept.then_some(((row.id, prompt), fate)))
    })
}

/// Token ids of a prompt, ready to be continued by an answer; never empty.
///
/// # Errors
/// A conversation that the template refuses.
pub fn encode_prompt(prompt: &Text, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut ids = prompt_tokens(prompt, tokenizer)?;
    start_with_something(&mut ids, tokenizer)?;
    Ok(ids)
}

/// Token ids of a prompt; none for an empty one.
fn prompt_tokens(prompt: &Text, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    match prompt {
        Text::Plain(text) => tokenizer.encode(text, true),
        Text::Conversation(turns) => tokenizer.encode(&opened(turns, tokenizer)?, false),
    }
}

/// A conversation up to where the assistant goes on: at the beginning of its turn, or, where the last turn is its own,
/// within that one.
fn opened(turns: &[Message], tokenizer: &Tokenizer) -> Result<String> {
    match turns {
        [_, .., last] if last.role == "assistant" => {
            let whole = tokenizer.render(turns, false)?;
            let said = last.content.trim();
            match whole.rfind(said) {
                // Templates may trim what is said; what follows it here goes on where it really ended.
                Some(at) => {
                    let (end, space) = (at + said.len(), &last.content[last.content.trim_end().len()..]);
                    Ok(format!("{}{space}", &whole[..end]))
                }
                None => Err(Problem::input("the chat template leaves out the unfinished assistant turn")
                    .hint("use a template that renders assistant turns as they are")),
            }
        }
        _ => tokenizer.render(turns, true),
    }
}

/// Runs `encode` on all rows and adds up what happened; the rows keep their order, and so does the choice of the
/// error that is reported.
pub(crate) fn encode_all<R: Sync, T: Send>(
    rows: &[R],
    limits: &Limits,
    encode: impl Fn(&R) -> Result<Option<(T, Fate)>> + Sync + Send,
) -> Result<Encoded<T>> {
    limits.check()?;
    let outcomes: Vec<_> = rows.par_iter().map(encode).collect();
    let mut report = EncodeReport::default();
    let mut kept = Vec::with_capacity(rows.len());
    for outcome in outcomes {
        match outcome? {
            None => report.dropped += 1,
            Some((row, fate)) => {
                report.cut_prompts += usize::from(fate.cut_prompt);
                report.cut_answers += usize::from(fate.cut_answer);
                report.diverged += usize::from(fate.diverged);
                kept.push(row);
            }
        }
    }
    report.rows = kept.len();
    if kept.is_empty() {
        return Err(Problem::input("no row is left: every prompt fills the context").hint("raise max_length"));
    }
    Ok(Encoded { rows: kept, report })
}

/// Tokens of a prompt and of the answers after it.
pub(crate) fn split<const N: usize>(
    tokenizer: &Tokenizer,
    prompt: &Text,
    answers: &[&Text; N],
) -> Result<(Vec<u32>, [Vec<u32>; N], Fate)> {
    split_ending(tokenizer, prompt, answers, true)
}

/// As [`split`]; the answers have an end only if they are to `end`.
fn split_ending<const N: usize>(
    tokenizer: &Tokenizer,
    prompt: &Text,
    answers: &[&Text; N],
    end: bool,
) -> Result<(Vec<u32>, [Vec<u32>; N], Fate)> {
    let (prompt, answers, fate) = split_all(tokenizer, prompt, answers, end)?;
    match answers.try_into() {
        Ok(answers) => Ok((prompt, answers, fate)),
        Err(_) => unreachable!("as many answers come back as were given"),
    }
}

fn split_all(
    tokenizer: &Tokenizer,
    prompt: &Text,
    answers: &[&Text],
    end: bool,
) -> Result<(Vec<u32>, Vec<Vec<u32>>, Fate)> {
    let alone = prompt_tokens(prompt, tokenizer)?;
    let mut wholes = Vec::with_capacity(answers.len());
    for answer in answers {
        wholes.push(match (prompt, answer) {
            (Text::Conversation(turns), Text::Conversation(answer)) if !end => {
                let said = answer.iter().map(|turn| turn.content.as_str()).collect::<String>();
                tokenizer.encode(&format!("{}{said}", opened(turns, tokenizer)?), false)?
            }
            (Text::Conversation(turns), Text::Conversation(answer)) => {
                let mut whole = turns.clone();
                let mut rest = answer.as_slice();
                // An unfinished turn at the prompt's end is continued.
                if let ([.., last], [first, others @ ..]) = (&mut whole[..], rest)
                    && last.role == "assistant"
                    && first.role == "assistant"
                {
                    last.content += &first.content;
                    rest = others;
                }
                whole.extend_from_slice(rest);
                tokenizer.encode_chat(&whole, false)?
            }
            (Text::Plain(prompt), Text::Plain(answer)) if !end => {
                tokenizer.encode(&format!("{prompt}{answer}"), true)?
            }
            (Text::Plain(prompt), Text::Plain(answer)) => {
                tokenizer.encode(&format!("{prompt}{}", ended(answer, tokenizer)?), true)?
            }
            _ => {
                return Err(Problem::input(
                    "prompt and answer are of different forms, plain and conversation",
                ));
            }
        });
    }
    let shared = wholes.iter().map(|whole| common_prefix(&alone, whole)).min().unwrap_or(0);
    for whole in &mut wholes {
        whole.drain(..shared);
        if whole.is_empty() {
            return Err(Problem::input("the answer has no tokens").hint(
                "the chat template leaves it out, or renders it as a part of the prompt; check its assistant turns",
            ));
        }
    }
    let fate = Fate { diverged: shared < alone.len(), ..Fate::default() };
    let mut prompt = alone;
    prompt.truncate(shared);
    start_with_something(&mut prompt, tokenizer)?;
    Ok((prompt, wholes, fate))
}

/// A plain answer with the end token's name.
fn ended(answer: &str, tokenizer: &Tokenizer) -> Result<String> {
    let eos = tokenizer.eos_name();
    if eos.is_empty() {
        return Err(Problem::input("the tokenizer names no end token (eos_token)")
            .hint("add \"eos_token\" to tokenizer_config.json; without it the model cannot learn to stop"));
    }
    Ok(if answer.ends_with(eos) { answer.to_owned() } else { format!("{answer}{eos}") })
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn start_with_something(prompt: &mut Vec<u32>, tokenizer: &Tokenizer) -> Result<()> {
    if prompt.is_empty() {
        prompt.push(tokenizer.bos().or(tokenizer.eos()).ok_or_else(|| {
            Problem::input(
                "the prompt has no tokens, and the tokenizer has neither BOS nor end token to begin with",
            )
        })?);
    }
    Ok(())
}

/// Cuts a row to the limits; false if it is to be left out.
fn fit(
    prompt: &mut Vec<u32>,
    answers: &mut [Vec<u32>],
    tokenizer: &Tokenizer,
    limits: &Limits,
    place: &Place,
    fate: &mut Fate,
) -> Result<bool> {
    let keep_start = limits.long_prompt == LongPrompt::KeepStart;
    let mut cut = |prompt: &mut Vec<u32>, length: usize| {
        if prompt.len() > length {
            fate.cut_prompt = true;
            cut_prompt(prompt, length, keep_start, tokenizer.bos());
        }
    };
    if let Some(most) = limits.max_prompt_length {
        cut(prompt, most.max(1));
    }
    if prompt.len() >= limits.max_length {
        match limits.long_prompt {
            LongPrompt::Stop => return Err(too_long(prompt.len(), limits.max_length, place)),
            LongPrompt::Drop => return Ok(false),
            LongPrompt::KeepEnd | LongPrompt::KeepStart => {
                // The answers get what they need, but no more than half of the context.
                let need = answers.iter().map(Vec::len).max().unwrap_or(1);
                cut(prompt, limits.max_length - need.clamp(1, (limits.max_length / 2).max(1)));
            }
        }
    }
    let room = limits.max_length - prompt.len();
    for answer in answers {
        fate.cut_answer |= answer.len() > room;
        answer.truncate(room);
    }
    Ok(true)
}

/// The context in which `second` is read after `first`: the prompt, which loses its beginning if all three would have
/// more than `most` tokens, and `first`. None if the two answers leave no room for a prompt.
pub fn one_after_another(prompt: &[u32], first: &[u32], second: &[u32], most: usize) -> Option<Vec<u32>> {
    let room = most.checked_sub(first.len() + second.len()).filter(|room| *room > 0)?;
    let kept = &prompt[prompt.len().saturating_sub(room)..];
    Some([kept, first].concat())
}

pub(crate) fn too_long(tokens: usize, max_length: usize, place: &Place) -> Problem {
    let hint = "raise max_length if the model's context allows it, or set data.long_prompt to keep-end, keep-start or drop";
    place.mark(
        Problem::input(format!("the prompt has {tokens} tokens and fills the context of {max_length}"))
            .hint(hint),
    )
}

/// Keeps `length` tokens of a longer prompt, and a BOS at its beginning in any case.
fn cut_prompt(prompt: &mut Vec<u32>, length: usize, keep_start: bool, bos: Option<u32>) {
    if keep_start {
        prompt.truncate(length);
    } else {
        let first = usize::from(length > 1 && prompt.first().copied() == bos && bos.is_some());
        prompt.drain(first..prompt.len() - (length - first));
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
