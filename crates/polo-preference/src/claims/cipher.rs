//! The hidden permutation with a tiny model to learn it, and the cipher: its form of 16 symbols that the claims on ranked
//! and re-drawn answers share.
//!
//! A prompt is 8 letters, the right answer their images under a permutation that nobody tells; the gold reward counts
//! right positions. Answers of any quality can be made, so that what a method learns from is known exactly.

use std::{fs, path::Path};

use polo_lm::{
    encode::Limits,
    family::{Family, Preset, new_config},
    generate::Sampling,
    model::LanguageModel,
    rows::{ListRow, Text},
    tasks::permutation::{Demonstration, Form, Permutation, PermutationSettings, Region},
    tokens::Tokenizer,
    weights,
};
use polo_nn::device;
use polo_run::{Problem, Result, seed::Seeds};
use serde_json::Value;

use super::bench;
use crate::{
    methods::sft::Sft,
    objective::{Example, PairObjective, Rows},
    settings::Schedule,
};

/// Tokens that fit into a model of the cipher.
const CONTEXT: usize = 32;

/// Letters of the cipher, and symbols of its answers.
pub const SYMBOLS: usize = 16;

/// The task in words, for setups.
pub const TASK: &str = "A 2-layer transformer of width 64 on the cipher: 8 of 16 letters in, their images under a hidden \
                        permutation out; the gold reward is the number of right positions (0 to 8). An answer of quality \
                        c has each position right on purpose with probability c, else one of all symbols.";

/// The task of one seed, its tokenizer, and what its models look like.
pub struct Cipher {
    /// The task.
    pub task: Permutation,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// `config.json` of the models.
    pub config: Value,
    context: usize,
    seed: u64,
    seeds: Seeds,
}

/// How a model does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Mean gold reward, right positions of 8.
    pub gold: f64,
    /// KL divergence from where it started, nats per answer.
    pub kl: f64,
}

impl Cipher {
    /// The cipher of 16 symbols; writes its tokenizer into `folder`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(folder: &Path, seed: u64) -> Result<Self> {
        let settings = PermutationSettings { alphabet: SYMBOLS, ..PermutationSettings::default() };
        Self::with(folder, seed, settings, CONTEXT)
    }

    /// A hidden permutation of any size, for models of `context` tokens; writes its tokenizer into `folder`.
    ///
    /// # Errors
    /// Settings out of range; the folder cannot be written.
    pub fn with(folder: &Path, seed: u64, settings: PermutationSettings, context: usize) -> Result<Self> {
        let seeds = Seeds::new(seed);
        let task = Permutation::new(settings, &seeds.child("task"))?;
        fs::create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
        let vocabulary = task.write_vocabulary(folder)?;
        let tokenizer = Tokenizer::load(folder)?;
        let eos = tokenizer.eos().ok_or_else(|| Problem::input("the task's tokenizer has no end token"))?;
        let config = new_config(Family::Llama, Preset::Tiny, vocabulary, context, tokenizer.bos(), eos);
        Ok(Self { task, tokenizer, config, context, seed, seeds })
    }

    /// Seeds for what the claim itself draws.
    pub fn seeds(&self) -> &Seeds {
        &self.seeds
    }

    /// A model that has learnt nothing.
    ///
    /// # Errors
    /// None that the task can cause.
    pub fn untrained(&self) -> Result<LanguageModel> {
        weights::init(&self.config, &self.seeds.child("weights"), &device::parse("cpu")?)
    }

    /// An untrained model after `steps` steps of imitation of answers of this quality. Several `permutations` are each
    /// demonstrated in turn.
    ///
    /// # Errors
    /// A training that diverges.
    pub fn imitator(
        &self,
        permutations: &[&Permutation],
        quality: f64,
        steps: usize,
    ) -> Result<LanguageModel> {
        let examples = self.demonstrations(permutations, quality, steps * bench::BATCH, "imitation")?;
        let training = bench::training(self.seed, steps, 3e-3, Schedule::Cosine);
        bench::learn(&self.untrained()?, &Sft::default(), &examples, training, &mut |_, _| {})
    }

    /// Answers of this quality as examples to imitate, under each of the permutations in turn.
    ///
    /// # Errors
    /// None that the task can cause.
    pub fn demonstrations(
        &self,
        permutations: &[&Permutation],
        quality: f64,
        n: usize,
        part: &str,
    ) -> Result<Vec<Example>> {
        let channels: Vec<_> = permutations.iter().map(|task| task.noisy(quality)).collect();
        let demonstrate = |(index, prompt): (usize, Vec<usize>)| {
            let mut rng = self.seeds.rng(part, index as u64);
            let answer = channels[index % channels.len()].draw(&prompt, &mut rng);
            Demonstration { prompt, earlier: None, answer }
        };
        let prompts = self.task.prompts(Region::Even, n, part);
        let all: Vec<_> = prompts.into_iter().enumerate().map(demonstrate).collect();
        self.encode(&Sft::default(), Rows::Completions(self.task.completion_rows(&all)?))
    }

    /// `n` prompts with an answer of each quality. Scores are the gold rewards plus normal noise of that standard
    /// deviation; without noise, answers are drawn again until no two are equally good.
    pub fn lists(&self, n: usize, qualities: &[f64], noise: f64, part: &str) -> Vec<ListRow> {
        let channels: Vec<_> = qualities.iter().map(|&quality| self.task.noisy(quality)).collect();
        let prompts = self.task.prompts(Region::Even, n, part);
        let draw = |(index, prompt): (usize, &Vec<usize>)| {
            let mut rng = self.seeds.rng(part, index as u64);
            let luck = self.seeds.normal(qualities.len(), &format!("{part}: noise"), index as u64);
            loop {
                let answers: Vec<Vec<usize>> =
                    channels.iter().map(|channel| channel.draw(prompt, &mut rng)).collect();
                let gold: Vec<usize> = answers.iter().map(|answer| self.task.gold(prompt, answer)).collect();
                let tied = (1..gold.len()).any(|at| gold[..at].contains(&gold[at]));
                if noise > 0.0 || !tied {
                    let score = |(&gold, &luck): (&usize, &f32)| gold as f64 + noise * f64::from(luck);
                    return (answers, gold.iter().zip(&luck).map(score).collect());
                }
            }
        };
        let (answers, scores): (Vec<_>, Vec<_>) = prompts.iter().enumerate().map(draw).unzip();
        self.task.list_rows(&prompts, &answers, scores)
    }

    /// Rows to examples.
    ///
    /// # Errors
    /// As [`PairObjective::encode`].
    pub fn encode(&self, objective: &dyn PairObjective, rows: Rows) -> Result<Vec<Example>> {
        Ok(objective.encode(&rows, &self.tokenizer, &Limits::new(self.context))?.rows)
    }

    /// Trains a copy of `start`, the reference of objectives that have one, on the examples.
    ///
    /// # Errors
    /// A training that diverges.
    pub fn align(
        &self,
        start: &LanguageModel,
        objective: &dyn PairObjective,
        examples: &[Example],
        steps: usize,
        learning_rate: f64,
    ) -> Result<LanguageModel> {
        let training = bench::training(self.seed, steps, learning_rate, Schedule::Cosine);
        bench::learn(start, objective, examples, training, &mut |_, _| {})
    }

    /// Prompts as the model is asked.
    ///
    /// # Errors
    /// None that the task can cause.
    pub fn ask(&self, prompts: &[Vec<usize>]) -> Result<Vec<Vec<u32>>> {
        let ask = |prompt: &Vec<usize>| {
            let bare = Text::Plain(self.task.write_prompt(prompt, Form::Bare));
            let fitted = self.task.templates().encode_generate(&bare, &self.tokenizer, self.context)?;
            fitted
                .map(|fitted| fitted.ids)
                .ok_or_else(|| Problem::input("a prompt exceeds the model's context"))
        };
        prompts.iter().map(ask).collect()
    }

    /// How answers are drawn.
    pub fn sampling(&self) -> Sampling<'static> {
        let longest = self.task.settings().length + 1;
        Sampling { max_new_tokens: longest, stop: self.tokenizer.stop().to_vec(), ..Sampling::default() }
    }

    /// Lets a model answer `n` fresh prompts, the same for all models, at temperature 1.
    ///
    /// # Errors
    /// As generation.
    pub fn measure(&self, model: &LanguageModel, start: &LanguageModel, n: usize) -> Result<Measured> {
        let prompts = self.task.prompts(Region::Even, n, "held out");
        let (asked, sampling) = (self.ask(&prompts)?, self.sampling());
        let drawn = bench::draw(model, &asked, &sampling, &self.seeds.child("held out"))?;
        let mut gold = 0;
        for (prompt, answer) in prompts.iter().zip(&drawn) {
            let prompt = self.task.write_prompt(prompt, Form::Bare);
            gold += self.task.gold_of_text(&prompt, &answer.text(&self.tokenizer, &sampling))?;
        }
        Ok(Measured { gold: gold as f64 / n as f64, kl: bench::divergence(&asked, &drawn, start) })
    }
}

#[cfg(test)]
mod tests {
    use polo_run::stats;

    use super::*;

    fn cipher() -> (tempfile::TempDir, Cipher) {
        let folder = tempfile::tempdir().unwrap();
        let cipher = Cipher::new(folder.path(), 3).unwrap();
        (folder, cipher)
    }

    /// Expected gold is 8 (c + (1 - c) / 16); ties are drawn again.
    #[test]
    fn lists_have_the_asked_qualities() {
        let (_folder, cipher) = cipher();
        let noisy = cipher.lists(2000, &[0.9, 0.45], 0.0, "two");
        let mean =
            |at: usize| stats::mean(&noisy.iter().map(|row| row.scores[at]).collect::<Vec<_>>()).unwrap();
        // 0.9 alone would be 7.25 and 0.45 3.875; without ties, a little further apart.
        assert!((mean(0) - 7.26).abs() < 0.06 && (mean(1) - 3.85).abs() < 0.12, "{} {}", mean(0), mean(1));
        for row in cipher.lists(200, &[0.9, 0.65, 0.45, 0.25], 0.0, "four") {
            let mut scores = row.scores.clone();
            scores.sort_by(f64::total_cmp);
            scores.dedup();
            assert_eq!(scores.len(), 4);
        }
    }

    #[test]
    fn noise_moves_scores_and_not_answers() {
        let (_folder, cipher) = cipher();
        let rows = cipher.lists(1000, &[0.5, 0.5], 1.0, "noise");
        let mut errors = Vec::new();
        for row in &rows {
            let Text::Plain(prompt) = &row.prompt else { panic!("a conversation") };
            for (answer, score) in row.completions.iter().zip(&row.scores) {
                errors.push(score - cipher.task.gold_of_text(prompt, &answer.words()).unwrap() as f64);
            }
        }
        let spread = stats::sample_std(&errors).unwrap();
        assert!(stats::mean(&errors).unwrap().abs() < 0.12 && (spread - 1.0).abs() < 0.08, "{spread}");
        // The first of a longer list are the shorter list.
        assert_eq!(cipher.lists(10, &[0.5, 0.5], 1.0, "noise"), rows[..10]);
    }

    #[test]
    fn a_model_starts_at_no_distance_from_itself() {
        let (_folder, cipher) = cipher();
        let model = cipher.untrained().unwrap();
        let measured = cipher.measure(&model, &model, 64).unwrap();
        assert!(measured.kl.abs() < 1e-4, "{measured:?}");
    }
}
