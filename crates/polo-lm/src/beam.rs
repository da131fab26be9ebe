//! Beam search: the most probable answers that a search of bounded width finds, instead of drawn ones.
//!
//! `polo generate --beams` and the claims that decode a policy by its likelihood come here. A search keeps a number of
//! growing hypotheses, continues all of them at once through the cache of [`crate::generate`], and keeps the best
//! continuations. The score of an answer of n tokens, its end token included, is
//!
//! ```text
//! (sum over tokens of log pi(token | x, what stands before)) / n^A          A: length penalty; 0, the sum, by default
//! ```
//!
//! A hypothesis that ends while it is among the best `width` continuations is kept aside. The search of a prompt is
//! over when no growing hypothesis can come to beat those kept aside, or at the limit of length; answers that ended
//! go before answers that were cut there, whatever their scores, since half a sentence is no answer. This is
//! transformers' beam search with `early_stopping="never"` but for that order: there, answers that reach `max_length`
//! compete with ended ones by score. Its `early_stopping=False` gives up earlier where A > 0, and `True` as soon as
//! `width` hypotheses have ended.

use polo_nn::{device::is_cpu, shares};
use polo_run::{Problem, Result};

use crate::{
    generate::{Completion, Finished, Numbered, Sampling, Wave, check, diverged, waves},
    model::LanguageModel,
};

/// How wide to search and what to return.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beams {
    /// Hypotheses that grow side by side; 1 without a length penalty is greedy decoding.
    pub width: usize,
    /// A: above 0 favours long answers, below 0 short ones. 0 compares the probabilities of whole answers.
    pub length_penalty: f64,
    /// Answers returned for each prompt, 1 to `width`.
    pub answers: usize,
}

impl Default for Beams {
    fn default() -> Self {
        Self { width: 5, length_penalty: 0.0, answers: 1 }
    }
}

/// An answer that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Tokens and their log-probs.
    pub completion: Completion,
    /// What answers are ranked by, nats (over tokens^A).
    pub score: f64,
}

impl Beams {
    fn check(&self) -> Result<()> {
        if self.width == 0 || self.answers == 0 || self.answers > self.width {
            return Err(Problem::usage(format!(
                "{} answers are asked of a beam of width {}",
                self.answers, self.width
            ))
            .hint("both must be at least 1, and answers at most the width"));
        }
        if !self.length_penalty.is_finite() {
            return Err(Problem::usage(format!("length_penalty is {}", self.length_penalty))
                .hint("give a finite number; 0 sums log-probs, 1 averages them"));
        }
        Ok(())
    }

    fn score(&self, sum: f64, tokens: usize) -> f64 {
        sum / (tokens as f64).powf(self.length_penalty)
    }
}

/// The best answers to each prompt (token ids), best first: [`Beams::answers`] of them, or fewer where the vocabulary
/// and the limit of length have no more. Of `sampling`, the limit of length and what ends an answer count.
///
/// # Errors
/// As [`crate::generate::generate`]; a width of 0, or less than the answers asked for.
pub fn search(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    beams: &Beams,
    sampling: &Sampling,
    shares: usize,
) -> Result<Vec<Vec<Hypothesis>>> {
    let numbered: Vec<Numbered> = prompts.iter().map(Vec::as_slice).enumerate().collect();
    beams.check()?;
    check(model, &numbered, sampling)?;
    let padded = !is_cpu(model.device());
    let wave = Wave { model, sampling, samples: 1, padded };
    let shares = if padded { 1 } else { shares.max(1) };
    let parts = numbered.chunks(numbered.len().div_ceil(shares).max(1)).collect();
    let results = shares::map(parts, |part| -> Result<Vec<Vec<Hypothesis>>> {
        let mut answers = Vec::with_capacity(part.len());
        for prompts in waves(part, beams.width) {
            answers.extend(run(&wave, beams, prompts)?);
        }
        Ok(answers)
    });
    let mut answers = Vec::with_capacity(prompts.len());
    for result in results {
        answers.extend(result?);
    }
    Ok(answers)
}

/// The search of one prompt.
struct Search<'a> {
    beams: &'a Beams,
    /// Tokens of the prompt.
    prompt: usize,
    /// Most tokens of an answer.
    longest: usize,
    growing: Vec<Growing>,
    /// Ended answers, best first; no more than are returned.
    ended: Vec<Hypothesis>,
    /// Answers that were cut at the limit of length, best first.
    cut: Vec<Hypothesis>,
}

/// A hypothesis that still grows.
#[derive(Clone, Default)]
struct Growing {
    tokens: Vec<u32>,
    logps: Vec<f32>,
    sum: f64,
}

impl Growing {
    fn with(&self, token: u32, logp: f32) -> Self {
        let mut longer = self.clone();
        longer.tokens.push(token);
        longer.logps.push(logp);
        longer.sum += f64::from(logp);
        longer
    }
}

impl Search<'_> {
    /// Continues all hypotheses by one token, given the distributions after them, `[hypotheses · vocabulary]`. Returns
    /// which of them each of the new ones continues; none when the search is over.
    fn step(&mut self, logps: &[f32], vocabulary: usize, sampling: &Sampling) -> Result<Vec<usize>> {
        let width = self.beams.width;
        // Every hypothesis has at most one ending continuation for each end token, so that enough others are left.
        let most = ((1 + sampling.stop.len()).max(2) * width).min(vocabulary);
        let mut candidates = Vec::with_capacity(most * self.growing.len());
        for (parent, (hypothesis, row)) in self.growing.iter().zip(logps.chunks_exact(vocabulary)).enumerate()
        {
            if row.iter().any(|logp| logp.is_nan()) {
                return Err(diverged());
            }
            let mut tokens: Vec<u32> = (0..vocabulary as u32).collect();
            let better = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            if most < vocabulary {
                tokens.select_nth_unstable_by(most, better);
                tokens.truncate(most);
            }
            candidates.extend(tokens.into_iter().map(|token| {
                let logp = row[token as usize];
                (hypothesis.sum + f64::from(logp), parent, token, logp)
            }));
        }
        candidates.retain(|(sum, ..)| sum.is_finite());
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));

        let (mut parents, mut grown) = (Vec::with_capacity(width), Vec::with_capacity(width));
        for (rank, (_, parent, token, logp)) in candidates.into_iter().enumerate() {
            let longer = self.growing[parent].with(token, logp);
            if sampling.ends(&longer.tokens) {
                if rank < width {
                    let ended = self.hypothesis(longer, Finished::Stop);
                    insert(&mut self.ended, ended, self.beams.answers);
                }
            } else if longer.tokens.len() == self.longest {
                if rank < width {
                    let cut = self.hypothesis(longer, Finished::Length);
                    insert(&mut self.cut, cut, self.beams.answers);
                }
            } else if grown.len() < width {
                grown.push(longer);
                parents.push(parent);
            }
            if rank >= width && grown.len() == width {
                break;
            }
        }
        self.growing = grown;
        if self.is_over() {
            self.growing.clear();
            parents.clear();
        }
        Ok(parents)
    }

    fn hypothesis(&self, Growing { tokens, logps, sum }: Growing, finished: Finished) -> Hypothesis {
        let score = self.beams.score(sum, tokens.len());
        Hypothesis { completion: Completion { tokens, logps, finished }, score }
    }

    /// Whether no growing hypothesis can come to be returned instead of an ended one: sums only fall, and the length
    /// that flatters them most is the longest under a positive penalty, else the next.
    fn is_over(&self) -> bool {
        let (Some(best), Some(worst)) = (self.growing.first(), self.ended.last()) else { return false };
        let length = if self.beams.length_penalty > 0.0 { self.longest } else { best.tokens.len() + 1 };
        self.ended.len() == self.beams.answers && self.beams.score(best.sum, length) <= worst.score
    }

    fn answers(mut self) -> Vec<Hypothesis> {
        self.ended.append(&mut self.cut);
        self.ended.truncate(self.beams.answers);
        self.ended
    }
}

/// Puts a hypothesis into its place among the best `most`; of equal ones, the first stays before.
fn insert(best: &mut Vec<Hypothesis>, new: Hypothesis, most: usize) {
    let place = best.partition_point(|one| one.score >= new.score);
    best.insert(place, new);
    best.truncate(most);
}

/// The searches of prompts that go through the layers together.
fn run(wave: &Wave, beams: &Beams, prompts: &[Numbered]) -> Result<Vec<Vec<Hypothesis>>> {
    let architecture = &wave.model.architecture;
    let vocabulary = architecture.vocabulary;
    let (last, mut cache) = wave.begin(prompts);
    let mut logps = wave.distributions(&last);
    let mut searches: Vec<Search> = prompts
        .iter()
        .map(|(_, prompt)| Search {
            beams,
            prompt: prompt.len(),
            longest: wave.sampling.max_new_tokens.min(architecture.context - prompt.len()),
            growing: vec![Growing::default()],
            ended: Vec::new(),
            cut: Vec::new(),
        })
        .collect();
    loop {
        let (mut rows, mut first) = (Vec::new(), 0);
        for search in &mut searches {
            let own = search.growing.len();
            if own > 0 {
                let logps = &logps[first * vocabulary..][..own * vocabulary];
                let parents = search.step(logps, vocabulary, wave.sampling)?;
                rows.extend(parents.into_iter().map(|parent| first + parent));
                first += own;
            }
        }
        if rows.is_empty() {
            return Ok(searches.into_iter().map(Search::answers).collect());
        }
        cache.select(&rows);
        let growing =
            || searches.iter().flat_map(|search| search.growing.iter().map(move |one| (search, one)));
        let tokens: Vec<u32> = growing().filter_map(|(_, one)| one.tokens.last().copied()).collect();
        let positions: Vec<u32> =
            growing().map(|(search, one)| (search.prompt + one.tokens.len() - 1) as u32).collect();
        logps = wave.distributions(&wave.step(&mut cache, &tokens, &positions));
    }
}

#[cfg(test)]
#[path = "beam_tests.rs"]
mod tests;
