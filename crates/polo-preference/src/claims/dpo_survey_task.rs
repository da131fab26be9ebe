//! The task of [`super::dpo_survey`]: letters to be written together with their successors, and what the losses learn
//! from.
//!
//! A prompt is four different letters. Its patterns are each of them followed by the next letter of the alphabet; the
//! gold reward counts those that an answer holds, less a price on the length's distance from nine tokens, just enough
//! for all four. Every answer has one noisy score; all kinds of rows (pairs, lists, single answers) tell of the same
//! answers and the same scores.

use std::{fs, path::Path};

use polo_lm::{
    encode::{Limits, encode_prompt},
    family::{Family, Preset, new_config},
    generate::{Sampling, generate},
    model::LanguageModel,
    rows::{About, CompletionRow, ListRow, PairRow, Place, Text, UnpairedRow},
    tokens::Tokenizer,
    vocabulary::{NewSpecials, Symbols, write_symbols},
    weights,
};
use polo_nn::device;
use polo_run::{
    Problem, Result,
    seed::{Seeds, below, unit},
    stats,
};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::bench::{self, SHARES};
use crate::{
    methods::{
        dpo_survey::{Survey, TokenWeights},
        sft::Sft,
    },
    objective::{Example, PairObjective, Reads, Rows},
    settings::{Schedule, Training},
    trainer::{self, References},
};

/// How much is computed.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Steps of imitation of demonstrations, [`bench::BATCH`] each.
    pub imitation_steps: usize,
    /// Prompts with four answers each, of which two pairs are made.
    pub prompts: usize,
    /// Steps of a training on preferences.
    pub steps: usize,
    /// The same, where it is seen whether something goes on.
    pub long_steps: usize,
    /// Prompts of generation, and pairs that are scored.
    pub held_out: usize,
}

/// Pairs per step; as many answers in lists or alone.
pub const PAIRS: usize = 32;
/// Answers to each prompt.
pub const ANSWERS: usize = 4;
/// Labels are drawn by Bradley-Terry on so many times the gold reward.
pub const SLOPE: f64 = 2.0;
/// Share of labels flipped, and of pairs of which the longer answer wins whatever it is worth.
pub const FLIPPED: f64 = 0.3;
pub const LONGER: f64 = 0.4;

/// Letters in all, of a prompt, tokens of a perfect answer, its end included, and the price of a token more or less.
const LETTERS: usize = 17;
const PROMPT: usize = 4;
const TARGET: usize = 9;
const PRICE: f64 = 0.1;
/// Most tokens of an answer.
const LONGEST: usize = 24;
/// Fewest and most letters of a demonstration.
const SHOWN: (usize, usize) = (5, 11);
/// An answer of more tokens is unsafe, to the losses that ask.
const SAFE: usize = 10;
/// Tokens of prompt and answer that fit into the model, and its width.
const CONTEXT: usize = 32;
const WIDTH: usize = 32;

/// What labels tell of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Bradley-Terry.
    Plain,
    /// The same, [`FLIPPED`] of them wrong.
    Flipped,
    /// The same, but of [`LONGER`] of the pairs the longer answer wins.
    Longer,
    /// Which answer has the higher gold reward; equal ones are left out.
    Certain,
}

/// A letter as text, by its number.
fn letter(number: usize) -> char {
    char::from(b'a' + (number % LETTERS) as u8)
}

/// The pattern that a letter begins.
fn pattern(first: char) -> String {
    [first, letter(first as usize - usize::from(b'a') + 1)].iter().collect()
}

/// Patterns of the prompt in the answer, less the price of its length.
pub fn gold(prompt: &str, answer: &str) -> f64 {
    let found = prompt.chars().filter(|&first| answer.contains(&pattern(first))).count();
    found as f64 + off_target(answer)
}

/// The length's part of the gold reward.
fn off_target(answer: &str) -> f64 {
    -PRICE * tokens(answer).abs_diff(TARGET) as f64
}

/// Tokens of an answer, its end included.
fn tokens(answer: &str) -> usize {
    answer.len() + 1
}

fn prompts(n: usize, seeds: &Seeds, part: &str) -> Vec<String> {
    let one = |index| {
        let order = seeds.shuffled(LETTERS, &format!("{part}: prompts"), index);
        order[..PROMPT].iter().map(|&number| letter(number)).collect()
    };
    (0..n as u64).map(one).collect()
}

/// Each letter of the prompt stands in a demonstration with probability 1/2, and is followed by its successor with
/// probability 1/2, else by any letter; between these, any letters.
fn demonstrate(prompt: &str, seeds: &Seeds, index: u64) -> String {
    let mut rng = seeds.rng("demonstrations", index);
    let any = |rng: &mut ChaCha8Rng| letter(below(rng, LETTERS as u64) as usize);
    let length = SHOWN.0 + below(&mut rng, (SHOWN.1 - SHOWN.0) as u64 + 1) as usize;
    let mut parts: Vec<String> = Vec::new();
    for first in prompt.chars().filter(|_| unit(&mut rng) < 0.5).collect::<Vec<_>>() {
        parts.push(match unit(&mut rng) < 0.5 {
            true => pattern(first),
            false => [first, any(&mut rng)].iter().collect(),
        });
    }
    let mut left = length.saturating_sub(2 * parts.len());
    while left > 0 {
        parts.push(any(&mut rng).to_string());
        left -= 1;
    }
    let order = seeds.shuffled(parts.len(), "demonstrations: order", index);
    order.iter().map(|&place| parts[place].as_str()).collect()
}

/// Answers to one prompt, and what is known of them.
#[derive(Clone, Debug)]
struct Answered {
    prompt: String,
    answers: Vec<String>,
    gold: Vec<f64>,
    /// [`SLOPE`] times the gold reward plus Gumbel noise: of two answers, the one of higher score is a Bradley-Terry
    /// label.
    scores: Vec<f64>,
}

/// A model that has imitated demonstrations, and its answers.
pub struct Bench {
    seed: u64,
    seeds: Seeds,
    tokenizer: Tokenizer,
    /// The reference.
    pub start: LanguageModel,
    answered: Vec<Answered>,
    /// Pairs with certain labels that nobody learns from.
    held_out: Vec<Example>,
    /// What the start says of them.
    held_out_start: References,
}

/// How a model does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Mean gold reward.
    pub gold: f64,
    /// KL divergence from the start, nats per answer.
    pub kl: f64,
    /// Mean length of its answers, tokens.
    pub length: f64,
    /// Share of held-out pairs whose better answer gained more log-prob than the worse.
    pub accuracy: f64,
    /// Change of the mean log-prob of the chosen answers that were learnt from, nats.
    pub change: f64,
    /// Mean size of D over the pairs that were learnt from, nats.
    pub margin: f64,
}

fn place(line: usize) -> Place {
    Place { file: Path::new("letters").into(), line }
}

fn plain(text: &str) -> Text {
    Text::Plain(text.into())
}

fn scoring() -> Training {
    bench::training(0, 1, 1e-3, Schedule::Constant)
}

impl Bench {
    /// Trains the start of a seed and draws its answers; the tokenizer is written into `folder`.
    ///
    /// # Errors
    /// The folder cannot be written; a training that diverges.
    pub fn new(folder: &Path, seed: u64, budget: &Budget) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
        let seeds = Seeds::new(seed).child("letters");
        let letters: Vec<String> = (0..LETTERS).map(|number| letter(number).to_string()).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        let specials = NewSpecials { bos: None, ..NewSpecials::default() };
        let vocabulary = write_symbols(&letters, Symbols::Characters, &specials, folder)?;
        let tokenizer = Tokenizer::load(folder)?;
        let eos = tokenizer.eos().ok_or_else(|| Problem::input("the task's tokenizer has no end token"))?;
        let mut config = new_config(Family::Gpt2, Preset::Tiny, vocabulary, CONTEXT, None, eos);
        config["n_embd"] = json!(WIDTH);
        config["initializer_range"] = json!(0.05);
        let untrained = weights::init(&config, &seeds.child("weights"), &device::parse("cpu")?)?;
        let rows = prompts(budget.imitation_steps * bench::BATCH, &seeds, "imitation");
        let rows = (0..).zip(&rows).map(|(id, prompt)| CompletionRow {
            prompt: plain(prompt),
            completion: plain(&demonstrate(prompt, &seeds, id)),
            place: place(id as usize + 1),
            id,
        });
        let rows = Rows::Completions(rows.collect());
        let examples = Sft::default().encode(&rows, &tokenizer, &Limits::new(CONTEXT))?.rows;
        let training = bench::training(seed, budget.imitation_steps, 3e-3, Schedule::Cosine);
        let start = bench::learn(&untrained, &Sft::default(), &examples, training, &mut |_, _| {})?;
        let mut bench = Self {
            seed,
            seeds,
            tokenizer,
            start,
            answered: Vec::new(),
            held_out: Vec::new(),
            held_out_start: Vec::new(),
        };
        bench.answered = bench.answer(budget.prompts, "learnt from")?;
        let held_out = bench.answer(budget.held_out.div_ceil(ANSWERS / 2), "held-out pairs")?;
        bench.held_out = bench.encode_pairs(&held_out, Labels::Certain)?;
        bench.held_out_start = trainer::score(&bench.start, &bench.held_out, &scoring(), |_| {});
        Ok(bench)
    }

    fn sampling(&self) -> Sampling<'static> {
        Sampling { max_new_tokens: LONGEST, stop: self.tokenizer.stop().to_vec(), ..Sampling::default() }
    }

    fn ask(&self, prompts: &[String]) -> Result<Vec<Vec<u32>>> {
        prompts.iter().map(|prompt| encode_prompt(&plain(prompt), &self.tokenizer)).collect()
    }

    /// The start's answers to `n` fresh prompts, with scores.
    fn answer(&self, n: usize, part: &str) -> Result<Vec<Answered>> {
        let prompts = prompts(n, &self.seeds, part);
        let sampling = self.sampling();
        let drawn =
            generate(&self.start, &self.ask(&prompts)?, ANSWERS, &sampling, &self.seeds.child(part), SHARES)?;
        let mut rng = self.seeds.rng(&format!("{part}: scores"), 0);
        let mut answered = Vec::with_capacity(n);
        for (prompt, drawn) in prompts.into_iter().zip(drawn.chunks_exact(ANSWERS)) {
            let answers: Vec<String> =
                drawn.iter().map(|answer| answer.text(&self.tokenizer, &sampling)).collect();
            let gold: Vec<f64> = answers.iter().map(|answer| gold(&prompt, answer)).collect();
            let scores =
                gold.iter().map(|gold| SLOPE * gold - (-(1.0 - unit(&mut rng)).ln()).max(1e-300).ln());
            let scores = scores.collect();
            answered.push(Answered { prompt, answers, gold, scores });
        }
        Ok(answered)
    }

    /// Of each pair of answers, the prompt and the places of the chosen and the rejected one.
    fn order<'a>(&self, all: &'a [Answered], labels: Labels) -> Vec<(&'a Answered, [usize; 2])> {
        let mut rng = self.seeds.rng("labels", 0);
        let mut pairs = Vec::new();
        for answered in all {
            for first in (0..ANSWERS).step_by(2) {
                let Answered { answers, gold, scores, .. } = answered;
                let luck = unit(&mut rng);
                let of = |numbers: &[f64]| numbers[first] > numbers[first + 1];
                let lengths = [first, first + 1].map(|place| answers[place].len());
                let wins = match labels {
                    Labels::Flipped if luck < FLIPPED => !of(scores),
                    Labels::Longer if luck < LONGER && lengths[0] != lengths[1] => lengths[0] > lengths[1],
                    Labels::Certain => of(gold),
                    _ => of(scores),
                };
                let same = match labels {
                    Labels::Certain => (gold[first] - gold[first + 1]).abs() < 1e-9,
                    _ => answers[first] == answers[first + 1],
                };
                if !same {
                    pairs.push((answered, if wins { [first, first + 1] } else { [first + 1, first] }));
                }
            }
        }
        pairs
    }

    fn pair_rows(&self, all: &[Answered], labels: Labels) -> Vec<PairRow> {
        let row = |(id, (answered, places)): (u64, (&Answered, [usize; 2]))| {
            let [chosen, rejected] = places.map(|place| answered.answers[place].as_str());
            let about = About {
                scores: Some([chosen, rejected].map(|answer| SLOPE * off_target(answer))),
                safe: Some([chosen, rejected].map(|answer| tokens(answer) <= SAFE)),
                group: Some(["first", "second"][usize::from(places[0] >= 2)].into()),
                ..About::default()
            };
            let prompt = plain(&answered.prompt);
            let (chosen, rejected) = (plain(chosen), plain(rejected));
            PairRow { prompt, chosen, rejected, label: 1.0, about, place: place(id as usize + 1), id }
        };
        (0..).zip(self.order(all, labels)).map(row).collect()
    }

    fn encode_pairs(&self, all: &[Answered], labels: Labels) -> Result<Vec<Example>> {
        let rows = Rows::Pairs(self.pair_rows(all, labels));
        Ok(Survey::default().encode(&rows, &self.tokenizer, &Limits::new(CONTEXT))?.rows)
    }

    /// What a loss learns from, and how many of it to a step.
    fn examples(&self, survey: &Survey, labels: Labels) -> Result<(Vec<Example>, usize)> {
        let encode = |rows| -> Result<Vec<Example>> {
            Ok(survey.encode(&rows, &self.tokenizer, &Limits::new(CONTEXT))?.rows)
        };
        let lists = |rows: Vec<(&Answered, Vec<usize>)>| {
            let row = |(id, (answered, places)): (u64, (&Answered, Vec<usize>))| ListRow {
                prompt: plain(&answered.prompt),
                completions: places.iter().map(|&place| plain(&answered.answers[place])).collect(),
                scores: places.iter().map(|&place| answered.scores[place]).collect(),
                logps: Vec::new(),
                place: place(id as usize + 1),
                id,
            };
            Rows::Lists((0..).zip(rows).map(row).collect())
        };
        Ok(match survey.reads() {
            Reads::Pairs | Reads::Completions => {
                (encode(Rows::Pairs(self.pair_rows(&self.answered, labels)))?, PAIRS)
            }
            Reads::Lists => {
                let pairs = self.order(&self.answered, labels);
                let pairs = pairs.into_iter().map(|(answered, places)| (answered, places.to_vec()));
                let pairs = encode(lists(pairs.collect()))?;
                if pairs.is_empty() {
                    // It wants longer lists than two.
                    let all = self.answered.iter().map(|answered| (answered, (0..ANSWERS).collect()));
                    return Ok((encode(lists(all.collect()))?, 2 * PAIRS / ANSWERS));
                }
                (pairs, PAIRS)
            }
            Reads::Unpaired => {
                let pairs = self.order(&self.answered, labels).into_iter();
                let single = pairs.flat_map(|(answered, places)| {
                    places.into_iter().zip([true, false]).map(move |(place, label)| (answered, place, label))
                });
                let row = |(id, (answered, at, label)): (u64, (&Answered, usize, bool))| UnpairedRow {
                    prompt: plain(&answered.prompt),
                    completion: plain(&answered.answers[at]),
                    label,
                    score: answered.scores[at],
                    place: place(id as usize + 1),
                    id,
                };
                (encode(Rows::Unpaired((0..).zip(single).map(row).collect()))?, 2 * PAIRS)
            }
        })
    }

    /// Trains a copy of the start.
    ///
    /// # Errors
    /// A training that diverges.
    pub fn align(&self, survey: &Survey, labels: Labels, rate: f64, steps: usize) -> Result<LanguageModel> {
        let (mut examples, batch) = self.examples(survey, labels)?;
        let training = |batch| Training {
            batch,
            micro_batch: batch,
            ..bench::training(self.seed, steps, rate, Schedule::Cosine)
        };
        if survey.tokens == TokenWeights::Tis {
            let mut swapped = examples.clone();
            swapped.iter_mut().for_each(|example| example.trees[0].answers.swap(0, 1));
            let contrast = |pairs: &[Example]| -> Result<Vec<Vec<Vec<f32>>>> {
                let dpo = Survey::default();
                let model = bench::learn(&self.start, &dpo, pairs, training(PAIRS), &mut |_, _| {})?;
                Ok(trainer::score_tokens(&model, &examples, &scoring(), |_| {}))
            };
            let contrast = [contrast(&examples)?, contrast(&swapped)?];
            survey.weigh(&mut examples, contrast);
        }
        let mut model = bench::learn(&self.start, survey, &examples, training(batch), &mut |_, _| {})?;
        model.drop_readout();
        Ok(model)
    }

    /// How a model does that has learnt from these labels.
    ///
    /// # Errors
    /// As generation.
    pub fn measure(&self, model: &LanguageModel, labels: Labels, budget: &Budget) -> Result<Measured> {
        let prompts = prompts(budget.held_out, &self.seeds, "held out");
        let asked = self.ask(&prompts)?;
        let sampling = self.sampling();
        let drawn = bench::draw(model, &asked, &sampling, &self.seeds.child("held out"))?;
        let mean = |values: Vec<f64>| stats::mean(&values).unwrap_or(f64::NAN);
        let texts: Vec<String> = drawn.iter().map(|answer| answer.text(&self.tokenizer, &sampling)).collect();
        let golds = prompts.iter().zip(&texts).map(|(prompt, answer)| gold(prompt, answer));
        let gains = |pairs: &[Example], start: &References| -> Vec<[f64; 2]> {
            let own = trainer::score(model, pairs, &scoring(), |_| {});
            own.iter().zip(start).map(|(own, start)| [0, 1].map(|slot| own[slot] - start[slot])).collect()
        };
        let prompts_scored = self.answered.len().min(budget.held_out.div_ceil(ANSWERS / 2));
        let learnt = self.encode_pairs(&self.answered[..prompts_scored], labels)?;
        let learnt_start = trainer::score(&self.start, &learnt, &scoring(), |_| {});
        let learnt = gains(&learnt, &learnt_start);
        let held_out = gains(&self.held_out, &self.held_out_start);
        Ok(Measured {
            gold: mean(golds.collect()),
            kl: bench::divergence(&asked, &drawn, &self.start),
            length: mean(drawn.iter().map(|answer| answer.tokens.len() as f64).collect()),
            accuracy: mean(held_out.iter().map(|[w, l]| f64::from(w > l)).collect()),
            change: mean(learnt.iter().map(|[w, _]| *w).collect()),
            margin: mean(learnt.iter().map(|[w, l]| (w - l).abs()).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Budget = Budget { imitation_steps: 1, prompts: 400, steps: 1, long_steps: 1, held_out: 20 };

    #[test]
    fn gold_counts_patterns_and_prices_length() {
        let check = |answer: &str, expected: f64| {
            let found = gold("acqe", answer);
            assert!((found - expected).abs() < 1e-12, "{answer:?}: {found} is not {expected}");
        };
        check("abcdqaef", 4.0);
        // Nine letters are a token too many, and a pattern counts once.
        check("abcdqaefb", 3.9);
        check("abababab", 1.0);
        // The letter after the last is the first; of "ef" the e alone is not enough.
        check("qae", 1.0 - 0.5);
        check("", -0.8);
    }

    #[test]
    fn demonstrations_are_as_told() {
        let seeds = Seeds::new(2);
        let (mut length, mut found) = (0.0, 0.0);
        let prompts = prompts(2000, &seeds, "test");
        for (index, prompt) in (0..).zip(&prompts) {
            let answer = demonstrate(prompt, &seeds, index);
            // Four letters with what follows them fill more than the shortest.
            assert!((5..=11).contains(&answer.len()), "{answer}");
            length += answer.len() as f64 / 2000.0;
            found += gold(prompt, &answer) - off_target(&answer);
        }
        let found = found / 2000.0;
        // A quarter of the patterns on purpose, some by chance.
        assert!((length - 8.0).abs() < 0.4 && (1.0..1.4).contains(&found), "{length} {found}");
    }

    #[test]
    fn labels_are_as_told() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::new(folder.path(), 7, &SMALL).unwrap();
        let share = |labels, wins: &dyn Fn(&Answered, [usize; 2]) -> Option<bool>| {
            let pairs = bench.order(&bench.answered, labels);
            let decided: Vec<f64> =
                pairs.iter().filter_map(|(a, places)| wins(a, *places)).map(f64::from).collect();
            stats::mean(&decided).unwrap()
        };
        let by_score = |a: &Answered, [w, l]: [usize; 2]| Some(a.scores[w] > a.scores[l]);
        let by_gold = |a: &Answered, [w, l]: [usize; 2]| Some(a.gold[w] > a.gold[l]);
        let longer = |a: &Answered, [w, l]: [usize; 2]| {
            let (w, l) = (a.answers[w].len(), a.answers[l].len());
            (w != l).then_some(w > l)
        };
        assert!((share(Labels::Plain, &by_score) - 1.0).abs() < 1e-12);
        assert!((share(Labels::Certain, &by_gold) - 1.0).abs() < 1e-12);
        assert!((share(Labels::Flipped, &by_score) - 0.7).abs() < 0.05);
        let biased = share(Labels::Longer, &longer) - share(Labels::Plain, &longer);
        assert!(biased > 0.1, "{biased}");
    }

    #[test]
    fn all_kinds_of_rows_tell_of_the_same_answers() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::new(folder.path(), 7, &SMALL).unwrap();
        let count = |loss: &str| {
            let loss = serde_json::from_value(loss.into()).unwrap();
            let survey = Survey { loss, ..Survey::default() };
            let (examples, batch) = bench.examples(&survey, Labels::Plain).unwrap();
            (examples.len(), batch)
        };
        let (pairs, _) = count("sigmoid");
        assert!(pairs > 700, "{pairs}");
        assert_eq!(count("odpo"), (pairs, 32));
        assert_eq!(count("kto"), (2 * pairs, 64));
        assert_eq!(count("pro"), (400, 16));
    }
}
