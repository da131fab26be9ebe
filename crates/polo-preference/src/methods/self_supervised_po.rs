//! Self-supervised preference optimisation (Li et al. 2024, arXiv 2409.17791): preference degrees from removed content.
//!
//! To any pair loss it adds a task that needs no label: to tell how much of an answer's key content was taken away. Of
//! the m key units of an answer y (words or tokens, by salience), version j lacks the first round(m j / (J - 1)):
//!
//! ```text
//! z_j   hidden state of (x, version j of y) before the end token, after the final norm
//! p_j = softmax(W z_j + b)                                          W, b: a readout, dropped after training
//! SPD(y) = - (1/J) sum over j of log p_j[j]
//! loss   = alignment loss + lambda ( SPD(w) + SPD(l) )
//! ```
//!
//! The paper's code was not public: the extractors, the number of degrees and the weights are reconstructions, which
//! the settings name. The gradient goes through z_j into the model (unless `detached`).

use std::{collections::HashMap, ops::Range};

use burn::tensor::{Tensor, activation::log_softmax};
use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{dpo::Dpo, ipo::Ipo, rso, simpo::Simpo};
use crate::{
    objective::{
        Example, Loss, PairObjective, ReadoutSettings, Rows, Scores, TokenScores, Tree, encode_as_pairs, mean,
    },
    settings::MethodSettings,
};

/// Settings of `polo train self-supervised-po`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SelfSupervisedPo {
    /// The alignment loss: `dpo` (default), `ipo`, `hinge` or `simpo` (with its own margin).
    pub align: Align,
    /// The alignment loss's beta: 0.1 for DPO and IPO (default), 2 for SimPO.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Weight of the task. 0 is the alignment loss alone. Usual range 0.03 to 1 (the paper's value is unverified).
    #[schemars(range(min = 0.0))]
    pub lambda: f64,
    /// Degrees J: versions of an answer, the whole one among them. Default 4 (the paper: 3 or 4, unverified).
    #[schemars(range(min = 2, max = 64))]
    pub degrees: usize,
    /// Share of an answer's units that are key units.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub key_share: f64,
    /// What makes a unit salient. `rake` by default, for text; `salience` for tasks over symbols.
    pub extractor: Extractor,
    /// What is done to a unit: `delete` (default) or `mask`, which keeps the length.
    pub removal: Removal,
    /// Whose degrees are told: `both` (default), `chosen` or `rejected`.
    pub of: Side,
    /// Whether chosen and rejected answers have degrees in common (`shared`, default) or classes of their own (`split`).
    pub labels: Labels,
    /// The task trains its readout alone, a control. False by default.
    pub detached: bool,
    /// Standard deviation of the readout's first weights. At 0 the model would not learn from the first step.
    #[schemars(range(min = 0.0))]
    pub readout_std: f64,
}

/// The alignment loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Align {
    /// DPO's.
    #[default]
    Dpo,
    /// IPO's, on sums.
    Ipo,
    /// The hinge with a reference.
    Hinge,
    /// SimPO's.
    Simpo,
}

/// What makes a unit salient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Extractor {
    /// Words by RAKE: those of phrases between stop words and punctuation, by degree over frequency, summed over the
    /// phrase.
    #[default]
    Rake,
    /// Words by their count in the answer times the logarithm of how rare they are among all answers.
    TfIdf,
    /// Tokens by how much the prompt matters for them: |log ref(u | x, before) - log ref(u | before)|.
    Salience,
    /// Words at random, a control.
    Random,
}

/// What is done to a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// It is left out.
    #[default]
    Delete,
    /// Each of its tokens becomes the answer's end token.
    Mask,
}

/// Whose degrees are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Both answers'.
    #[default]
    Both,
    /// The chosen answer's.
    Chosen,
    /// The rejected answer's.
    Rejected,
}

/// Classes of the two answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// J classes for both.
    #[default]
    Shared,
    /// J classes each.
    Split,
}

impl Default for SelfSupervisedPo {
    fn default() -> Self {
        Self {
            align: Align::Dpo,
            beta: 0.1,
            lambda: 0.1,
            degrees: 4,
            key_share: 0.5,
            extractor: Extractor::Rake,
            removal: Removal::Delete,
            of: Side::Both,
            labels: Labels::Shared,
            detached: false,
            readout_std: 0.02,
        }
    }
}

impl Settings for SelfSupervisedPo {}
impl MethodSettings for SelfSupervisedPo {
    const SLUG: &'static str = CARD.slug;
}

impl SelfSupervisedPo {
    fn alignment(&self) -> Box<dyn PairObjective> {
        match self.align {
            Align::Dpo => Box::new(Dpo { beta: self.beta, label_smoothing: 0.0 }),
            Align::Ipo => Box::new(Ipo { beta: self.beta, ..Ipo::default() }),
            Align::Hinge => Box::new(rso::Rso { gamma: self.beta, loss: rso::Form::HingeNorm }),
            Align::Simpo => Box::new(Simpo { beta: self.beta, ..Simpo::default() }),
        }
    }

    /// Slots (0 chosen, 1 rejected) whose degrees are told.
    fn sides(&self) -> &'static [usize] {
        match self.of {
            Side::Both => &[0, 1],
            Side::Chosen => &[0],
            Side::Rejected => &[1],
        }
    }

    /// Versions 1 to J - 1 of an answer, whose last token is its end. Of `units`, ranges of its tokens, the most
    /// salient are removed first; of equally salient ones, the first.
    fn versions(&self, answer: &[u32], units: &[Range<usize>], salience: &[f64]) -> Vec<Vec<u32>> {
        let mut order: Vec<usize> = (0..units.len()).collect();
        order.sort_by(|&a, &b| salience[b].total_cmp(&salience[a]));
        let key = (self.key_share * units.len() as f64).round();
        let end = answer[answer.len() - 1];
        (1..self.degrees)
            .map(|degree| {
                let count = (key * degree as f64 / (self.degrees - 1) as f64).round() as usize;
                let removed = |place: usize| order[..count].iter().any(|&unit| units[unit].contains(&place));
                let tokens = answer.iter().enumerate();
                match self.removal {
                    Removal::Delete => {
                        tokens.filter(|(place, _)| !removed(*place)).map(|(_, &token)| token).collect()
                    }
                    Removal::Mask => {
                        tokens.map(|(place, &token)| if removed(place) { end } else { token }).collect()
                    }
                }
            })
            .collect()
    }
}

impl PairObjective for SelfSupervisedPo {
    fn uses_reference(&self) -> bool {
        self.align != Align::Simpo
    }

    fn readout(&self) -> Option<ReadoutSettings> {
        let classes = if self.labels == Labels::Split { 2 * self.degrees } else { self.degrees };
        Some(ReadoutSettings {
            outputs: classes,
            std: self.readout_std,
            bias: true,
            keep: false,
            detached: self.detached,
            pairs: false,
        })
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        let mut encoded = encode_as_pairs(rows, tokenizer, limits)?;
        if self.extractor == Extractor::Salience {
            // The reference has to be asked: see `prepare`.
            return Ok(encoded);
        }
        let answers: Vec<Vec<Word>> = encoded
            .rows
            .iter()
            .flat_map(|example| &example.trees[0].answers)
            .map(|answer| words(answer, tokenizer))
            .collect();
        let mut documents: HashMap<&str, usize> = HashMap::new();
        for answer in &answers {
            let mut seen: Vec<&str> = answer.iter().map(|word| word.text.as_str()).collect();
            seen.sort_unstable();
            seen.dedup();
            seen.into_iter().for_each(|word| *documents.entry(word).or_default() += 1);
        }
        let salience = |number: usize| -> Vec<f64> {
            let words = &answers[number];
            match self.extractor {
                Extractor::TfIdf => words
                    .iter()
                    .map(|word| {
                        let count = words.iter().filter(|other| other.text == word.text).count() as f64;
                        count * (answers.len() as f64 / documents[word.text.as_str()] as f64).ln()
                    })
                    .collect(),
                Extractor::Random => Seeds::new(0)
                    .normal(words.len(), "self-supervised-po/units", number as u64)
                    .into_iter()
                    .map(f64::from)
                    .collect(),
                Extractor::Rake | Extractor::Salience => rake(words),
            }
        };
        for (number, example) in encoded.rows.iter_mut().enumerate() {
            for &side in self.sides() {
                let place = 2 * number + side;
                let units: Vec<Range<usize>> =
                    answers[place].iter().map(|word| word.tokens.clone()).collect();
                let salience = salience(place);
                let versions = self.versions(&example.trees[0].answers[side], &units, &salience);
                example.read.extend(versions);
            }
        }
        Ok(encoded)
    }

    fn prepare(&self, examples: &mut [Example], score: &TokenScores<'_>) {
        if self.extractor != Extractor::Salience {
            return;
        }
        let without: Vec<Example> = examples
            .iter()
            .map(|example| {
                let Tree { prompt, answers } = &example.trees[0];
                let trees = vec![Tree { prompt: prompt[..1].to_vec(), answers: answers.clone() }];
                Example { trees, ..example.clone() }
            })
            .collect();
        let (with, without) = (score(examples), score(&without));
        for ((example, with), without) in examples.iter_mut().zip(with).zip(without) {
            for &side in self.sides() {
                let answer = &example.trees[0].answers[side];
                let units: Vec<Range<usize>> = (0..answer.len() - 1).map(|place| place..place + 1).collect();
                let salience: Vec<f64> =
                    with[side].iter().zip(&without[side]).map(|(a, b)| f64::from((a - b).abs())).collect();
                let versions = self.versions(answer, &units, &salience);
                example.read.extend(versions);
            }
        }
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let Loss { each, mut metrics, state } = self.alignment().loss(scores);
        let mut degrees: Option<Tensor<1>> = None;
        let mut hits = Vec::new();
        for (number, &side) in self.sides().iter().enumerate() {
            let first_class = if self.labels == Labels::Split { side * self.degrees } else { 0 };
            for degree in 0..self.degrees {
                let slot = match degree {
                    0 => side,
                    _ => 2 + number * (self.degrees - 1) + degree - 1,
                };
                let Some(logits) = scores.readouts.get(slot) else { continue };
                let class = first_class + degree;
                let logps = log_softmax(logits.clone(), 1);
                let examples = logps.dims()[0];
                let term = -logps.clone().slice([0..examples, class..class + 1]).squeeze_dim(1);
                let term = term * (1.0 / self.degrees as f64);
                degrees = Some(match degrees {
                    None => term,
                    Some(sum) => sum + term,
                });
                let best = logps.argmax(1).into_data();
                hits.extend(best.iter::<i64>().map(|found| f64::from(u8::from(found == class as i64))));
            }
        }
        let Some(degrees) = degrees else { return Loss { each, metrics, state } };
        metrics.set("losses/degrees", mean(&degrees));
        metrics.set("degrees/accuracies", hits.iter().sum::<f64>() / hits.len().max(1) as f64);
        let each = if self.lambda > 0.0 { each + degrees * self.lambda } else { each };
        Loss { each, metrics, state }
    }
}

/// A word of an answer: its tokens' places and its text in lower case.
struct Word {
    tokens: Range<usize>,
    text: String,
}

/// An answer's words: a token that starts with white space, or follows it, begins one. The end token is none.
fn words(answer: &[u32], tokenizer: &Tokenizer) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut apart = true;
    // As the text grows: some tokenizers put white space between tokens only then.
    let mut decoder = tokenizer.decoder(false);
    for (place, &token) in answer[..answer.len() - 1].iter().enumerate() {
        let text = decoder.push(token);
        match words.last_mut() {
            Some(word) if !apart && !text.starts_with(char::is_whitespace) => {
                word.tokens.end = place + 1;
                word.text += &text;
            }
            _ => words.push(Word { tokens: place..place + 1, text: text.clone() }),
        }
        apart = text.ends_with(char::is_whitespace);
    }
    for word in &mut words {
        word.text = word.text.trim().to_lowercase();
    }
    // Tokens that are white space alone are no content.
    words.retain(|word| !word.text.is_empty());
    words
}

/// RAKE's scores (Rose et al. 2010): each word's, the sum over its phrase of degree over frequency. 0 for stop words.
fn rake(words: &[Word]) -> Vec<f64> {
    let stop = stop_words::get("en");
    let bare = |word: &Word| word.text.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let is_stop = |text: &str| text.is_empty() || stop.contains(&text);
    let texts: Vec<String> = words.iter().map(bare).collect();
    let mut phrases: Vec<Vec<usize>> = vec![Vec::new()];
    for (place, word) in words.iter().enumerate() {
        let begins = word.text.starts_with(|c: char| !c.is_alphanumeric());
        let ends = word.text.ends_with(|c: char| !c.is_alphanumeric());
        if is_stop(&texts[place]) || begins {
            phrases.push(Vec::new());
        }
        if !is_stop(&texts[place])
            && let Some(phrase) = phrases.last_mut()
        {
            phrase.push(place);
        }
        if ends {
            phrases.push(Vec::new());
        }
    }
    let mut counts: HashMap<&str, (f64, f64)> = HashMap::new();
    for phrase in &phrases {
        for &place in phrase {
            let (degree, frequency) = counts.entry(&texts[place]).or_default();
            *degree += phrase.len() as f64;
            *frequency += 1.0;
        }
    }
    let score =
        |place: usize| counts.get(texts[place].as_str()).map_or(0.0, |(degree, count)| degree / count);
    let mut scores = vec![0.0; words.len()];
    for phrase in &phrases {
        let total: f64 = phrase.iter().map(|&place| score(place)).sum();
        phrase.iter().for_each(|&place| scores[place] = total);
    }
    scores
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "self-supervised-po",
    title: "Self-supervised preference optimisation",
    paper: "Li, Huang, Zhang, Xu, Chen, Song, Shi, Wang, Xu: Self-supervised Preference Optimization: Enhance Your \
            Language Model with Preference Degree Awareness",
    arxiv: "2409.17791",
    year: 2024,
    family: super::FAMILY,
    summary: "a pair loss, and a task that needs no label: how much of an answer's key content was removed",
    claim: "the task makes the model's implicit reward follow degrees of quality, and improves any pair loss it is \
            added to",
    equation: "SPD(y) = -(1/J) sum over j of log softmax(W z_j + b)[j]\n\
               loss   = alignment loss + lambda (SPD(w) + SPD(l))",
    symbols: &[
        ("w, l", "chosen answer, rejected answer"),
        ("z_j", "hidden state at the end of the version of y that lacks degree j of its key content"),
        ("W, b", "readout, dropped after training"),
        ("J", "degrees (method.degrees)"),
        ("lambda", "weight of the task (method.lambda)"),
    ],
    metrics: &[
        super::PAIR_METRICS[0],
        super::PAIR_METRICS[1],
        super::PAIR_METRICS[2],
        super::PAIR_METRICS[3],
        super::PAIR_METRICS[4],
        super::PAIR_METRICS[5],
        ("losses/degrees", "loss of the task, nats; 2 ln J at the start for both answers"),
        ("degrees/accuracies", "share of versions whose degree is told; chance is 1 / J"),
    ],
    reach_for: "long answers whose quality comes in degrees, and only binary labels",
    avoid_when: "answers are a few tokens long, or compute is short (J - 1 more passes over each answer)",
    failure_signs: &[
        "degrees/accuracies near 1 at once: the length gives the degree away; method.removal = \"mask\"",
        "the alignment loss stops falling: lambda too large",
    ],
    variants: &[
        ("on IPO", "method.align = \"ipo\""),
        ("on SimPO", "method.align = \"simpo\", method.beta = 2.0"),
        ("random units (control)", "method.extractor = \"random\""),
        ("readout alone (control)", "method.detached = true"),
        ("chosen answers alone", "method.of = \"chosen\""),
        ("classes of their own", "method.labels = \"split\""),
    ],
};
