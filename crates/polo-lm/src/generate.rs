//! Generation: answers drawn token by token from a model, with the exact log-probability of every token.
//!
//! `polo generate`, `polo chat`, self-revision, judges that are models and every method that samples draw here. A
//! prompt is computed once for all its samples, all sequences of a wave go through the layers together, and finished
//! ones leave. Every sequence draws from a stream of its own, so that what it draws does not depend on what is drawn
//! beside it. On the CPU, shares of the prompts run in parallel.

use std::fmt;

use polo_nn::{
    Tensor,
    attention::{Attention, Segment},
    cache::Cache,
    device::is_cpu,
    logprob, ops, shares,
};
use polo_run::{
    Kind, Problem, Result,
    seed::{Seeds, unit},
};
use rand_chacha::ChaCha8Rng;

use crate::{model::LanguageModel, tokens::Tokenizer};

/// How tokens are drawn and when an answer ends.
#[derive(Clone, Debug)]
pub struct Sampling<'a> {
    /// Log-probabilities are divided by it; 0 takes the most probable token every time.
    pub temperature: f64,
    /// Draws from so many most probable tokens; 0 from all.
    pub top_k: usize,
    /// Draws from the fewest most probable tokens that together have at least this probability (after temperature and
    /// `top_k`), in (0, 1]; 1 from all.
    pub top_p: f64,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Tokens that end an answer; see [`Tokenizer::stop`].
    pub stop: Vec<u32>,
    /// Texts that end an answer.
    pub stop_texts: Option<StopTexts<'a>>,
    /// Another model that has a say in every token.
    pub mixture: Option<Mixture<'a>>,
}

/// Another model, of the same vocabulary, that has a say in every token: tokens are drawn in proportion to
/// p^(1 - share) q^share, p being the model's distribution and q the other's (the geometric mixture of Nash-MD and
/// IPO-MD).
#[derive(Clone, Copy)]
pub struct Mixture<'a> {
    /// The other model.
    pub model: &'a LanguageModel,
    /// Its share, from 0 to 1.
    pub share: f64,
}

impl fmt::Debug for Mixture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mixture").field("share", &self.share).finish_non_exhaustive()
    }
}

/// Texts that end an answer, and the tokenizer that tells when one has come.
#[derive(Clone, Copy, Debug)]
pub struct StopTexts<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The texts; an answer ends at the first of any of them.
    pub texts: &'a [String],
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// At a stop token or a stop text.
    Stop,
    /// At `max_new_tokens` or the end of the model's context.
    Length,
}

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Its tokens; the stop token, if one ended it, is the last.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the model itself, at temperature 1 and before `top_k` and `top_p`, in nats.
    pub logps: Vec<f32>,
    /// Why it ended.
    pub finished: Finished,
}

impl Default for Sampling<'_> {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            max_new_tokens: 256,
            stop: Vec::new(),
            stop_texts: None,
            mixture: None,
        }
    }
}

impl Sampling<'_> {
    /// Checks that the settings can be drawn with.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |key: &str, value: &dyn std::fmt::Display, range: &str| {
            Err(Problem::usage(format!("{key} is {value}, and must be {range}")))
        };
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", &self.temperature, "a number of at least 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", &self.top_p, "greater than 0 and at most 1");
        }
        if self.max_new_tokens == 0 {
            return refuse("max_new_tokens", &0, "at least 1");
        }
        if let Some(Mixture { share, .. }) = self.mixture
            && !(0.0..=1.0).contains(&share)
        {
            return refuse("mixture", &share, "from 0 to 1");
        }
        Ok(())
    }

    /// The tokens that may be drawn, with weights that are their probabilities up to a common factor.
    fn candidates(&self, logps: &[f32]) -> Vec<(u32, f64)> {
        if self.temperature == 0.0 {
            return vec![(best(logps), 1.0)];
        }
        let top = f64::from(logps.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let weight = |logp: &f32| ((f64::from(*logp) - top) / self.temperature).exp();
        let mut all: Vec<(u32, f64)> = (0..).zip(logps.iter().map(weight)).collect();
        let descending = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.top_k > 0 && self.top_k < all.len() {
            all.select_nth_unstable_by(self.top_k, descending);
            all.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            all.sort_unstable_by(descending);
            let needed = self.top_p * all.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut reached = 0.0;
            let enough = all.iter().position(|(_, weight)| {
                reached += weight;
                reached >= needed
            });
            all.truncate(enough.map_or(all.len(), |last| last + 1));
        } else if self.top_k > 0 {
            all.sort_unstable_by_key(|(token, _)| *token);
        }
        all
    }

    fn draw(&self, logps: &[f32], rng: &mut ChaCha8Rng) -> u32 {
        let candidates = self.candidates(logps);
        let mut left = match candidates.len() {
            1 => 0.0,
            _ => unit(rng) * candidates.iter().map(|(_, weight)| weight).sum::<f64>(),
        };
        for &(token, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        candidates.last().map_or(0, |(token, _)| *token)
    }

    /// Whether an answer ends with its last token.
    pub(crate) fn ends(&self, tokens: &[u32]) -> bool {
        if tokens.last().is_some_and(|last| self.stop.contains(last)) {
            return true;
        }
        self.stop_texts.is_some_and(|StopTexts { tokenizer, texts }| {
            // Tokens have a byte at least, special ones excepted, for which there is some slack.
            let longest = texts.iter().map(String::len).max().unwrap_or(0) + 8;
            let tail = tokenizer.decode(&tokens[tokens.len().saturating_sub(longest)..], false);
            texts.iter().any(|text| tail.contains(text.as_str()))
        })
    }
}

impl Completion {
    /// The answer as text: without special tokens and stop tokens, cut at the first stop text.
    pub fn text(&self, tokenizer: &Tokenizer, sampling: &Sampling) -> String {
        let tokens = match self.tokens.split_last() {
            Some((last, before)) if sampling.stop.contains(last) => before,
            _ => &self.tokens,
        };
        let mut text = tokenizer.decode(tokens, true);
        let stop_texts = sampling.stop_texts.iter().flat_map(|stop| stop.texts);
        if let Some(end) = stop_texts.filter_map(|stop| text.find(stop.as_str())).min() {
            text.truncate(end);
        }
        text
    }
}

/// The first of the most probable tokens.
fn best(logps: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logp) in logps.iter().enumerate() {
        if *logp > logps[best] {
            best = token;
        }
    }
    best as u32
}

/// Most sequences that grow together: enough to keep the matrix products busy, few enough for their caches to fit.
const WAVE: usize = 64;

/// Most tokens of prompts that are computed together.
const WAVE_TOKENS: usize = 8192;

/// A prompt and its number, which decides from which streams its samples draw.
pub(crate) type Numbered<'a> = (usize, &'a [u32]);

/// Cuts prompts into waves, of one prompt at least.
pub(crate) fn waves<'a, 'b>(prompts: &'a [Numbered<'b>], samples: usize) -> Vec<&'a [Numbered<'b>]> {
    let mut waves = Vec::new();
    let mut rest = prompts;
    while !rest.is_empty() {
        let mut tokens = 0;
        let fitting = rest.iter().take(WAVE / samples.max(1)).take_while(|(_, prompt)| {
            tokens += prompt.len();
            tokens <= WAVE_TOKENS
        });
        let (wave, more) = rest.split_at(fitting.count().max(1));
        waves.push(wave);
        rest = more;
    }
    waves
}

/// Draws `samples` answers to each prompt (token ids), which come out prompt after prompt. Sequence number i, counted in
/// that order, draws from the stream `generate` of `seeds` with counter i.
///
/// # Errors
/// Settings out of range; a prompt that is empty, fills the model's context or has tokens that the model lacks; a model
/// whose logits are not numbers.
pub fn generate(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    samples: usize,
    sampling: &Sampling,
    seeds: &Seeds,
    shares: usize,
) -> Result<Vec<Completion>> {
    let numbered: Vec<Numbered> = prompts.iter().map(Vec::as_slice).enumerate().collect();
    generate_numbered(model, &numbered, samples, sampling, seeds, shares)
}

/// As [`generate`]; sample s of the prompt with number n draws from stream n · samples + s.
pub(crate) fn generate_numbered(
    model: &LanguageModel,
    prompts: &[Numbered],
    samples: usize,
    sampling: &Sampling,
    seeds: &Seeds,
    shares: usize,
) -> Result<Vec<Completion>> {
    check(model, prompts, sampling)?;
    let wave = Wave { model, sampling, samples, padded: !is_cpu(model.device()) };
    let shares = if wave.padded { 1 } else { shares.max(1) };
    let parts = prompts.chunks(prompts.len().div_ceil(shares).max(1)).collect();
    let results = shares::map(parts, |part| -> Result<Vec<Completion>> {
        let mut answers = Vec::with_capacity(part.len() * samples);
        for prompts in waves(part, samples) {
            answers.extend(wave.run(prompts, seeds, &mut |_, _| {})?);
        }
        Ok(answers)
    });
    let mut answers = Vec::with_capacity(prompts.len() * samples);
    for result in results {
        answers.extend(result?);
    }
    Ok(answers)
}

/// As [`generate`] for one prompt; `on_token` gets every token as it is drawn, with the number of its sequence.
///
/// # Errors
/// As [`generate`].
pub fn stream(
    model: &LanguageModel,
    prompt: &[u32],
    samples: usize,
    sampling: &Sampling,
    seeds: &Seeds,
    on_token: &mut dyn FnMut(usize, u32),
) -> Result<Vec<Completion>> {
    let prompts = [(0, prompt)];
    check(model, &prompts, sampling)?;
    let padded = !is_cpu(model.device());
    Wave { model, sampling, samples, padded }.run(&prompts, seeds, on_token)
}

pub(crate) fn check(model: &LanguageModel, prompts: &[Numbered], sampling: &Sampling) -> Result<()> {
    sampling.check()?;
    let (mut context, vocabulary) = (model.architecture.context, model.architecture.vocabulary);
    if let Some(Mixture { model: other, .. }) = sampling.mixture {
        context = context.min(other.architecture.context);
        if other.architecture.vocabulary != vocabulary {
            return Err(Problem::input(format!(
                "the two models of a mixture know {vocabulary} and {} tokens",
                other.architecture.vocabulary
            ))
            .hint("mix models of one tokenizer"));
        }
    }
    for (number, prompt) in prompts {
        let problem = |what: String| Problem::input(format!("prompt {} {what}", number + 1));
        if prompt.is_empty() {
            return Err(problem("has no token".into())
                .hint("begin it with the beginning-of-text or end-of-text token"));
        }
        if prompt.len() >= context {
            return Err(problem(format!(
                "has {} tokens, which leave no room for an answer in the model's context of {context}",
                prompt.len()
            ))
            .hint("shorten the prompt"));
        }
        if let Some(unknown) = prompt.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(problem(format!("has token {unknown}, and the model knows {vocabulary} tokens"))
                .hint("tokenizer and model belong to different models; take both from one folder"));
        }
    }
    Ok(())
}

pub(crate) fn diverged() -> Problem {
    Problem::new(Kind::Diverged, "the model's logits are not numbers")
        .hint("its weights have diverged; go back to an earlier checkpoint")
}

/// Logarithms of a geometric mixture, up to a constant for each row.
fn mix(own: &[f32], other: &[f32], share: f64) -> Vec<f32> {
    let share = share as f32;
    own.iter().zip(other).map(|(own, other)| (1.0 - share) * own + share * other).collect()
}

/// Sequences that grow together.
#[derive(Clone, Copy)]
pub(crate) struct Wave<'a> {
    pub(crate) model: &'a LanguageModel,
    pub(crate) sampling: &'a Sampling<'a>,
    /// Rows of the cache for each prompt.
    pub(crate) samples: usize,
    /// Which form of cache; see [`Cache::new`].
    pub(crate) padded: bool,
}

/// A sequence that still grows.
struct Growing {
    /// Its place within the wave.
    index: usize,
    /// Its number among all sequences.
    number: usize,
    rng: ChaCha8Rng,
    /// Tokens of prompt and answer.
    length: usize,
}

impl Wave<'_> {
    /// Answers to `prompts`, as many as go through the layers together.
    fn run(
        &self,
        prompts: &[Numbered],
        seeds: &Seeds,
        on_token: &mut dyn FnMut(usize, u32),
    ) -> Result<Vec<Completion>> {
        let count = prompts.len() * self.samples;
        if count == 0 {
            return Ok(Vec::new());
        }
        let vocabulary = self.model.architecture.vocabulary;
        let contexts = self.sampling.mixture.map(|other| other.model.architecture.context);
        let context = contexts.into_iter().fold(self.model.architecture.context, usize::min);
        let (last, mut cache) = self.begin(prompts);
        let mut logps = self.distributions(&last);
        let other = self.sampling.mixture.map(|Mixture { model, share }| (Wave { model, ..*self }, share));
        let (mut other_cache, mut mixed) = (None, Vec::new());
        if let Some((wave, share)) = &other {
            let (last, cache) = wave.begin(prompts);
            mixed = mix(&logps, &wave.distributions(&last), *share);
            other_cache = Some(cache);
        }
        let mut answers =
            vec![Completion { tokens: Vec::new(), logps: Vec::new(), finished: Finished::Length }; count];
        let mut growing: Vec<Growing> = (0..count)
            .map(|index| {
                let (prompt, tokens) = prompts[index / self.samples];
                let number = prompt * self.samples + index % self.samples;
                let rng = seeds.rng("generate", number as u64);
                Growing { index, number, rng, length: tokens.len() }
            })
            .collect();
        // At first, all samples of a prompt draw from the same row.
        let mut rows: Vec<usize> = (0..count).map(|index| index / self.samples).collect();
        loop {
            let mut kept = Vec::with_capacity(growing.len());
            for (n, (sequence, row)) in growing.iter_mut().zip(&rows).enumerate() {
                let own = row * vocabulary..(row + 1) * vocabulary;
                let logps = &logps[own.clone()];
                let drawn_from = if mixed.is_empty() { logps } else { &mixed[own] };
                let token = self.sampling.draw(drawn_from, &mut sequence.rng);
                let logp = logps[token as usize];
                if !logp.is_finite() {
                    return Err(diverged());
                }
                let answer = &mut answers[sequence.index];
                answer.tokens.push(token);
                answer.logps.push(logp);
                sequence.length += 1;
                on_token(sequence.number, token);
                if self.sampling.ends(&answer.tokens) {
                    answer.finished = Finished::Stop;
                } else if answer.tokens.len() < self.sampling.max_new_tokens && sequence.length < context {
                    kept.push(n);
                }
            }
            if kept.is_empty() {
                return Ok(answers);
            }
            if kept.len() < growing.len() {
                cache.select(&kept);
                if let Some(cache) = &mut other_cache {
                    cache.select(&kept);
                }
                let mut numbers = 0..growing.len();
                growing.retain(|_| numbers.next().is_some_and(|n| kept.binary_search(&n).is_ok()));
            }
            let tokens: Vec<u32> = growing
                .iter()
                .filter_map(|sequence| answers[sequence.index].tokens.last().copied())
                .collect();
            let positions: Vec<u32> = growing.iter().map(|sequence| sequence.length as u32 - 1).collect();
            logps = self.distributions(&self.step(&mut cache, &tokens, &positions));
            if let (Some((wave, share)), Some(cache)) = (&other, &mut other_cache) {
                mixed = mix(&logps, &wave.distributions(&wave.step(cache, &tokens, &positions)), *share);
            }
            rows = (0..growing.len()).collect();
        }
    }

    /// Runs the prompts: last hidden states of their last tokens, `[prompts, width]`, and the cache.
    pub(crate) fn begin(&self, prompts: &[Numbered]) -> (Tensor<2>, Cache) {
        let model = self.model;
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        let (mut segments, mut ends) = (Vec::new(), Vec::new());
        for (_, prompt) in prompts {
            tokens.extend_from_slice(prompt);
            segments.push(Segment { start: positions.len(), length: prompt.len(), parent: None });
            positions.extend(0..prompt.len() as u32);
            ends.push(positions.len() - 1);
        }
        let heads = model.architecture.heads;
        let attention = Attention::new(segments, heads, model.device());
        let rotation = model.rotation(&positions);
        let mut x = model.embed(&tokens, &positions);
        let mut layers = Vec::with_capacity(model.layers.len());
        for layer in &model.layers {
            let (q, k, v, _) = model.queries_keys_values(layer, &x, rotation.as_ref());
            let (mixed, _) = attention.forward(&q, &k, &v);
            layers.push((k, v));
            x = model.mlp(layer, &(layer.output.forward(&model.parameters, &mixed) + x));
        }
        let lengths: Vec<usize> = prompts.iter().map(|(_, prompt)| prompt.len()).collect();
        (ops::gather(&x, &ends), Cache::new(&layers, &lengths, self.samples, heads, self.padded))
    }

    /// Feeds one token to each sequence; its last hidden states, `[sequences, width]`.
    pub(crate) fn step(&self, cache: &mut Cache, tokens: &[u32], positions: &[u32]) -> Tensor<2> {
        let model = self.model;
        let rotation = model.rotation(positions);
        let mut x = model.embed(tokens, positions);
        for (index, layer) in model.layers.iter().enumerate() {
            let (q, k, v, _) = model.queries_keys_values(layer, &x, rotation.as_ref());
            let mixed = cache.attend(index, &q, &k, &v);
            x = model.mlp(layer, &(layer.output.forward(&model.parameters, &mixed) + x));
        }
        x
    }

    pub(crate) fn distributions(&self, last: &Tensor<2>) -> Vec<f32> {
        let model = self.model;
        let normed = model.architecture.norm.forward(&model.parameters, model.final_norm, last);
        logprob::distributions(&normed, model.parameters.get(model.head))
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
