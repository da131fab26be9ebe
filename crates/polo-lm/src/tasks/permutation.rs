//! The hidden permutation: answer every symbol of a prompt with its image under a permutation that nobody tells.
//!
//! The task of SRPO's small-scale proof. Prompts are letters (`c a f ...`), answers numbers (`3 0 7 ...`), one for each
//! letter; the gold reward r* counts the right ones. Everything but the model is a [`Channel`]: a distribution over
//! answers that treats each position alone, so that expected rewards, win rates and KL divergences are exact sums.
//!
//! Prompt and answer symbols are distinct words. Were they shared, `x REV y1 GEN` would hold two strings of one
//! alphabet, and a model of two layers would spend its depth on telling copying x from copying y1.

use std::{path::Path, sync::Arc};

use polo_run::{
    Problem, Result,
    seed::{Seeds, unit},
};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    judge::{Comparison, Judge},
    rows::{CompletionRow, ListRow, Place, PromptRow, Text},
    templates::RevisionTemplates,
    vocabulary::{NewSpecials, Symbols, write_symbols},
};

/// Graders whose majority decides under [`Preference::Majority`].
const GRADERS: usize = 3;

/// The size of the task and the quality of its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PermutationSettings {
    /// Number of prompt symbols, and of answer symbols.
    #[schemars(range(min = 2, max = 26))]
    pub alphabet: usize,
    /// Symbols in a prompt, and in an answer.
    #[schemars(range(min = 3))]
    pub length: usize,
    /// Probability that the demonstration channel answers a symbol rightly on purpose; else it draws one of all
    /// answer symbols evenly (and may hit the right one).
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub correct: f64,
    /// The same probability for the "human" answers that a policy is compared with.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub human: f64,
    /// Probability that a demonstrated revision keeps a position of the earlier answer; else it asks the channel again.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub keep: f64,
    /// How many times as often a letter of the alphabet's first half stands in an in-distribution prompt as one of its
    /// second half. Out of distribution, the two halves change places.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub skew: f64,
    /// How many times the second behaviour policy multiplies the odds of the first half of the answer symbols.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub emphasis: f64,
}

impl Default for PermutationSettings {
    fn default() -> Self {
        Self { alphabet: 8, length: 8, correct: 0.35, human: 0.6, keep: 0.7, skew: 9.0, emphasis: 10.0 }
    }
}

impl PermutationSettings {
    /// Checks the ranges that the fields name.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn check(&self) -> Result<()> {
        let shares = [self.correct, self.human];
        let fits = (2..=26).contains(&self.alphabet)
            && self.length >= GRADERS
            && shares.iter().all(|share| (0.0..1.0).contains(share))
            && (0.0..=1.0).contains(&self.keep)
            && [self.skew, self.emphasis].iter().all(|factor| *factor > 0.0 && factor.is_finite());
        if fits {
            return Ok(());
        }
        Err(Problem::usage(format!("no hidden permutation has these settings: {self:?}")).hint(
            "alphabet 2 to 26, length 3 or more, correct and human from 0 to below 1, keep from 0 to 1, skew and \
             emphasis positive",
        ))
    }
}

/// Where prompts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Region {
    /// Letters of the first half are frequent; what preferences are collected on.
    InDistribution,
    /// Letters of the second half are frequent.
    OutOfDistribution,
    /// All letters alike.
    Even,
}

impl Region {
    /// The name shown in reports.
    pub fn name(self) -> &'static str {
        match self {
            Region::InDistribution => "in distribution",
            Region::OutOfDistribution => "out of distribution",
            Region::Even => "even",
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The demonstration channel: what fine-tuning imitates, and the behaviour policy mu_1.
    Channel,
    /// The behaviour policy mu_2: the channel with the first half of the answer symbols over-represented.
    Emphatic,
    /// The "human" answers: the channel at a higher quality.
    Human,
}

/// Who prefers which of two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// P(a beats b) = 1 / (1 + exp(r*(b) - r*(a))).
    BradleyTerry,
    /// Three graders each count the right positions of their own third and vote for the answer with more; one that
    /// counts equally many abstains, and equally many votes are a tie. Not transitive, hence no Bradley-Terry model.
    Majority,
    /// The higher gold reward wins; equal ones tie.
    Reward,
}

/// What a row's prompt looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The letters alone, for what puts [`RevisionTemplates::symbols`] around them itself.
    Bare,
    /// G(x), for methods that know no templates.
    Asked,
}

/// One demonstration for supervised fine-tuning, in symbol numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demonstration {
    /// Letters, `0..alphabet` each.
    pub prompt: Vec<usize>,
    /// The answer that is revised; none where the prompt is answered afresh.
    pub earlier: Option<Vec<usize>>,
    /// Answer symbols, `0..alphabet` each.
    pub answer: Vec<usize>,
}

/// A distribution over answers that treats each position alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// `[letter][answer symbol]`; rows sum to one.
    table: Vec<Vec<f64>>,
}

impl Channel {
    /// A channel from its table `[letter][answer symbol]`; rows are normalised.
    pub fn new(mut table: Vec<Vec<f64>>) -> Self {
        for row in &mut table {
            let total: f64 = row.iter().sum();
            row.iter_mut().for_each(|weight| *weight /= total);
        }
        Self { table }
    }

    /// Probability of one answer symbol after one letter.
    pub fn probability(&self, letter: usize, symbol: usize) -> f64 {
        self.table[letter][symbol]
    }

    /// Log-probability, in nats, of a whole answer.
    pub fn log_probability(&self, prompt: &[usize], answer: &[usize]) -> f64 {
        prompt.iter().zip(answer).map(|(&letter, &symbol)| self.probability(letter, symbol).ln()).sum()
    }

    /// Draws an answer.
    pub fn draw(&self, prompt: &[usize], rng: &mut ChaCha8Rng) -> Vec<usize> {
        prompt.iter().map(|&letter| pick(&self.table[letter], rng)).collect()
    }
}

/// The task: a permutation, and who asks, answers and prefers.
#[derive(Clone, Debug)]
pub struct Permutation {
    settings: PermutationSettings,
    seeds: Seeds,
    /// `hidden[letter]` is the right answer symbol.
    hidden: Vec<usize>,
}

impl Permutation {
    /// The task of these seeds.
    ///
    /// # Errors
    /// As [`PermutationSettings::check`].
    pub fn new(settings: PermutationSettings, seeds: &Seeds) -> Result<Self> {
        settings.check()?;
        let seeds = seeds.child("hidden permutation");
        let hidden = seeds.shuffled(settings.alphabet, "permutation", 0);
        Ok(Self { settings, seeds, hidden })
    }

    /// The settings.
    pub fn settings(&self) -> &PermutationSettings {
        &self.settings
    }

    /// The one answer with full reward.
    pub fn solution(&self, prompt: &[usize]) -> Vec<usize> {
        prompt.iter().map(|&letter| self.hidden[letter]).collect()
    }

    /// Gold reward r*: the number of right positions, `0..=length`.
    pub fn gold(&self, prompt: &[usize], answer: &[usize]) -> usize {
        count(&self.right(prompt, answer.iter().map(|&symbol| Some(symbol))))
    }

    /// Gold reward of an answer as text, against a prompt in either [`Form`]. A missing or unknown word is wrong; words
    /// beyond the answer's length neither help nor harm.
    ///
    /// # Errors
    /// A prompt that is none of this task.
    pub fn gold_of_text(&self, prompt: &str, answer: &str) -> Result<usize> {
        Ok(count(&self.right_of_text(&self.read_prompt(prompt)?, answer)))
    }

    /// P(a beats b) for two answers in symbol numbers.
    pub fn prefers(&self, by: Preference, prompt: &[usize], a: &[usize], b: &[usize]) -> f64 {
        let right = |answer: &[usize]| self.right(prompt, answer.iter().map(|&symbol| Some(symbol)));
        decide(by, &right(a), &right(b))
    }

    /// A judge that knows the permutation. It accepts prompts in either [`Form`].
    pub fn judge(&self, by: Preference) -> Gold<'_> {
        Gold { task: self, by }
    }

    fn right(&self, prompt: &[usize], answer: impl IntoIterator<Item = Option<usize>>) -> Vec<bool> {
        let answer = answer.into_iter().chain(std::iter::repeat(None));
        prompt.iter().zip(answer).map(|(&letter, symbol)| symbol == Some(self.hidden[letter])).collect()
    }

    fn right_of_text(&self, prompt: &[usize], answer: &str) -> Vec<bool> {
        self.right(prompt, answer.split_whitespace().map(|word| word.parse().ok()))
    }
}

/// Who asks and who answers: everything is drawn from `part` of the task's own seeds, e.g. `train` or `test`, so that
/// parts are independent, and the first `n` of a longer part are the part of length `n`.
impl Permutation {
    /// Probability of each letter at a position of a prompt.
    pub fn letters(&self, region: Region) -> Vec<f64> {
        let alphabet = self.settings.alphabet;
        let weight = |letter: usize| match (region, letter < alphabet / 2) {
            (Region::InDistribution, true) | (Region::OutOfDistribution, false) => self.settings.skew,
            _ => 1.0,
        };
        let total: f64 = (0..alphabet).map(weight).sum();
        (0..alphabet).map(|letter| weight(letter) / total).collect()
    }

    /// `n` prompts, `length` letters each.
    pub fn prompts(&self, region: Region, n: usize, part: &str) -> Vec<Vec<usize>> {
        let letters = self.letters(region);
        let stream = format!("{part}: prompts {}", region.name());
        (0..n as u64)
            .map(|index| {
                let mut rng = self.seeds.rng(&stream, index);
                (0..self.settings.length).map(|_| pick(&letters, &mut rng)).collect()
            })
            .collect()
    }

    /// One answer to each prompt.
    pub fn answers(&self, prompts: &[Vec<usize>], source: Source, part: &str) -> Vec<Vec<usize>> {
        let channel = self.channel(source);
        let stream = format!("{part}: answers of {source:?}");
        let drawn =
            |(index, prompt): (u64, &Vec<usize>)| channel.draw(prompt, &mut self.seeds.rng(&stream, index));
        (0..).zip(prompts).map(drawn).collect()
    }

    /// `n` demonstrations, in turn a fresh answer of the channel and a revision of an earlier answer. The quality of
    /// the earlier answer, the `correct` of its own channel, is drawn evenly from 0 to 1.
    pub fn demonstrations(&self, region: Region, n: usize, part: &str) -> Vec<Demonstration> {
        let channel = self.channel(Source::Channel);
        let stream = format!("{part}: demonstrations");
        let demonstrate = |(index, prompt): (u64, Vec<usize>)| {
            let mut rng = self.seeds.rng(&stream, index);
            if index % 2 == 0 {
                let answer = channel.draw(&prompt, &mut rng);
                return Demonstration { prompt, earlier: None, answer };
            }
            let earlier = self.noisy(unit(&mut rng)).draw(&prompt, &mut rng);
            let fresh = channel.draw(&prompt, &mut rng);
            let edit = |(&old, new)| if unit(&mut rng) < self.settings.keep { old } else { new };
            let answer = earlier.iter().zip(fresh).map(edit).collect();
            Demonstration { prompt, earlier: Some(earlier), answer }
        };
        (0..).zip(self.prompts(region, n, &stream)).map(demonstrate).collect()
    }

    /// `n` prompts with two different answers each, to be labelled with [`crate::judge::collect_pairs`]. The second
    /// answer is drawn again while it equals the first.
    pub fn comparisons(
        &self,
        region: Region,
        source: Source,
        n: usize,
        part: &str,
        form: Form,
    ) -> Vec<Comparison> {
        let channel = self.channel(source);
        let stream = format!("{part}: comparisons of {source:?}");
        let compare = |(id, prompt): (u64, Vec<usize>)| {
            let mut rng = self.seeds.rng(&stream, id);
            let a = channel.draw(&prompt, &mut rng);
            let b = loop {
                let b = channel.draw(&prompt, &mut rng);
                if b != a {
                    break b;
                }
            };
            let answer = Some(self.write_answer(&self.solution(&prompt)));
            let prompt = Text::Plain(self.write_prompt(&prompt, form));
            Comparison { id, prompt, a: self.write_answer(&a), b: self.write_answer(&b), answer }
        };
        (0..).zip(self.prompts(region, n, &stream)).map(compare).collect()
    }

    /// The channel of a source.
    pub fn channel(&self, source: Source) -> Channel {
        let PermutationSettings { alphabet, correct, human, emphasis, .. } = self.settings;
        match source {
            Source::Channel => self.noisy(correct),
            Source::Human => self.noisy(human),
            Source::Emphatic => {
                let mut table = self.noisy(correct).table;
                for row in &mut table {
                    row[..alphabet / 2].iter_mut().for_each(|weight| *weight *= emphasis);
                }
                Channel::new(table)
            }
        }
    }

    /// The channel that answers a symbol rightly on purpose with probability `correct`, in [0, 1), and else draws one
    /// of all answer symbols evenly.
    pub fn noisy(&self, correct: f64) -> Channel {
        let alphabet = self.settings.alphabet;
        let mut table = vec![vec![(1.0 - correct) / alphabet as f64; alphabet]; alphabet];
        for (row, &right) in table.iter_mut().zip(&self.hidden) {
            row[right] += correct;
        }
        Channel { table }
    }
}

/// Exact figures.
impl Permutation {
    /// The answers that demonstrated revisions make of a channel's answers: `keep * channel + (1 - keep) * mu_1`.
    pub fn revised(&self, channel: &Channel) -> Channel {
        let keep = self.settings.keep;
        let fresh = self.channel(Source::Channel);
        let mix = |(old, new): (&Vec<f64>, &Vec<f64>)| {
            old.iter().zip(new).map(|(old, new)| keep * old + (1.0 - keep) * new).collect()
        };
        Channel { table: channel.table.iter().zip(&fresh.table).map(mix).collect() }
    }

    /// Log-probability, in nats, that a demonstrated revision makes `answer` of `earlier`: the exact reference of
    /// SRPO's self-improvement policy.
    pub fn revision_log_probability(&self, prompt: &[usize], earlier: &[usize], answer: &[usize]) -> f64 {
        let fresh = self.channel(Source::Channel);
        let keep = self.settings.keep;
        let one = |((&letter, &old), &new): ((&usize, &usize), &usize)| {
            let kept = if old == new { keep } else { 0.0 };
            (kept + (1.0 - keep) * fresh.probability(letter, new)).ln()
        };
        prompt.iter().zip(earlier).zip(answer).map(one).sum()
    }

    /// Expected gold reward of a channel's answers, `0..=length`.
    pub fn expected_gold(&self, channel: &Channel, region: Region) -> f64 {
        let right = |(letter, share): (usize, f64)| share * channel.probability(letter, self.hidden[letter]);
        self.settings.length as f64 * self.letters(region).into_iter().enumerate().map(right).sum::<f64>()
    }

    /// KL(p || q) of whole answers, in nats, averaged over prompts.
    pub fn kl(&self, p: &Channel, q: &Channel, region: Region) -> f64 {
        let of_letter = |(letter, share): (usize, f64)| {
            let terms = p.table[letter].iter().zip(&q.table[letter]);
            share * terms.filter(|(p, _)| **p > 0.0).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
        };
        self.settings.length as f64 * self.letters(region).into_iter().enumerate().map(of_letter).sum::<f64>()
    }

    /// Expected preference for answers of `a` over independent answers of `b`, averaged over prompts.
    pub fn win_rate(&self, by: Preference, a: &Channel, b: &Channel, region: Region) -> f64 {
        // At one position: a right and b wrong, both alike, b right and a wrong.
        let (mut ahead, mut behind) = (0.0, 0.0);
        for (letter, share) in self.letters(region).into_iter().enumerate() {
            let right = |channel: &Channel| channel.probability(letter, self.hidden[letter]);
            ahead += share * right(a) * (1.0 - right(b));
            behind += share * right(b) * (1.0 - right(a));
        }
        let position = [behind, 1.0 - ahead - behind, ahead];
        // Probability that a has `d` right positions more than b among `n`, at index `d + n`.
        let lead = |n: usize| (0..n).fold(vec![1.0], |sum, _| convolve(&sum, &position));
        let expect = |n: usize, value: &dyn Fn(f64) -> f64| -> f64 {
            lead(n).iter().enumerate().map(|(at, share)| share * value(at as f64 - n as f64)).sum()
        };
        let length = self.settings.length;
        match by {
            Preference::BradleyTerry => expect(length, &logistic),
            Preference::Reward => expect(length, &step),
            Preference::Majority => {
                let votes = (0..GRADERS).fold(vec![1.0], |votes, grader| {
                    let n = (0..length).filter(|&at| grader_of(at, length) == grader).count();
                    let vote = [
                        expect(n, &|d| f64::from(d < 0.0)),
                        expect(n, &|d| f64::from(d == 0.0)),
                        expect(n, &|d| f64::from(d > 0.0)),
                    ];
                    convolve(&votes, &vote)
                });
                votes.iter().enumerate().map(|(at, share)| share * step(at as f64 - GRADERS as f64)).sum()
            }
        }
    }
}

/// Words and rows.
impl Permutation {
    /// The templates that go with [`Permutation::write_vocabulary`].
    pub fn templates(&self) -> RevisionTemplates {
        RevisionTemplates::symbols()
    }

    /// Writes the tokenizer of the task into `folder`: the default special tokens, `GEN`, `REV`, letters, numbers.
    /// Returns the number of tokens.
    ///
    /// # Errors
    /// As [`write_symbols`].
    pub fn write_vocabulary(&self, folder: &Path) -> Result<usize> {
        let alphabet = 0..self.settings.alphabet;
        let words: Vec<String> = ["GEN".to_owned(), "REV".to_owned()]
            .into_iter()
            .chain(alphabet.clone().map(letter_word))
            .chain(alphabet.map(|symbol| symbol.to_string()))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        write_symbols(&words, Symbols::Words, &NewSpecials::default(), folder)
    }

    /// A prompt as text.
    pub fn write_prompt(&self, prompt: &[usize], form: Form) -> String {
        let letters = prompt.iter().map(|&letter| letter_word(letter)).collect::<Vec<_>>().join(" ");
        match form {
            Form::Bare => letters,
            Form::Asked => self.templates().generate.replace("{prompt}", &letters),
        }
    }

    /// An answer as text.
    pub fn write_answer(&self, answer: &[usize]) -> String {
        answer.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
    }

    /// The letters of a prompt in either [`Form`].
    ///
    /// # Errors
    /// Too few or too many letters, or a word that is no letter of the alphabet.
    pub fn read_prompt(&self, text: &str) -> Result<Vec<usize>> {
        let PermutationSettings { alphabet, length, .. } = self.settings;
        let letters: Option<Vec<usize>> = text
            .split_whitespace()
            .take_while(|word| *word != "GEN")
            .map(|word| (0..alphabet).find(|&letter| letter_word(letter) == word))
            .collect();
        letters.filter(|letters| letters.len() == length).ok_or_else(|| {
            let last = letter_word(alphabet - 1);
            Problem::input(format!("`{text}` is no prompt of the hidden permutation"))
                .hint(format!("its prompts are {length} letters from a to {last} with spaces between"))
        })
    }

    /// Prompts with their solutions as rows.
    pub fn prompt_rows(&self, prompts: &[Vec<usize>], form: Form) -> Vec<PromptRow> {
        let row = |(id, prompt): (u64, &Vec<usize>)| PromptRow {
            prompt: Text::Plain(self.write_prompt(prompt, form)),
            answer: Some(self.write_answer(&self.solution(prompt))),
            place: place(id),
            id,
        };
        (0..).zip(prompts).map(row).collect()
    }

    /// Prompts, G(x), with several answers to each and their scores as rows; the three are parallel.
    pub fn list_rows(
        &self,
        prompts: &[Vec<usize>],
        answers: &[Vec<Vec<usize>>],
        scores: Vec<Vec<f64>>,
    ) -> Vec<ListRow> {
        let texts = prompts.iter().zip(answers).map(|(prompt, answers)| {
            let answers = answers.iter().map(|answer| Text::Plain(self.write_answer(answer)));
            (Text::Plain(self.write_prompt(prompt, Form::Asked)), answers.collect::<Vec<_>>())
        });
        let numbered = (0..).zip(texts.zip(scores));
        numbered
            .map(|(id, ((prompt, completions), scores))| ListRow {
                prompt,
                completions,
                scores,
                logps: Vec::new(),
                place: place(id),
                id,
            })
            .collect()
    }

    /// Demonstrations as rows; their prompts are G(x) and R(x, y1), whole.
    pub fn completion_rows(&self, demonstrations: &[Demonstration]) -> Result<Vec<CompletionRow>> {
        let templates = self.templates();
        let row = |(id, demonstration): (u64, &Demonstration)| {
            let bare = Text::Plain(self.write_prompt(&demonstration.prompt, Form::Bare));
            let prompt = match &demonstration.earlier {
                None => templates.generate(&bare),
                Some(earlier) => templates.revise(&bare, &Text::Plain(self.write_answer(earlier)))?,
            };
            let completion = Text::Plain(self.write_answer(&demonstration.answer));
            Ok(CompletionRow { prompt, completion, place: place(id), id })
        };
        (0..).zip(demonstrations).map(row).collect()
    }
}

/// The judge of [`Permutation::judge`].
#[derive(Clone, Copy, Debug)]
pub struct Gold<'a> {
    task: &'a Permutation,
    by: Preference,
}

impl Judge for Gold<'_> {
    fn name(&self) -> String {
        match self.by {
            Preference::BradleyTerry => "gold reward (Bradley-Terry)".into(),
            Preference::Majority => "majority of three graders".into(),
            Preference::Reward => "gold reward".into(),
        }
    }

    fn compare(&self, items: &[Comparison]) -> Result<Vec<Option<f64>>> {
        let judge = |item: &Comparison| {
            let Text::Plain(prompt) = &item.prompt else {
                return Err(Problem::input(
                    "a prompt of the hidden permutation is a string, no conversation",
                ));
            };
            let prompt = self.task.read_prompt(prompt)?;
            let right = |answer: &str| self.task.right_of_text(&prompt, answer);
            Ok(Some(decide(self.by, &right(&item.a), &right(&item.b))))
        };
        items.iter().map(judge).collect()
    }
}

fn decide(by: Preference, a: &[bool], b: &[bool]) -> f64 {
    let lead = |part: &dyn Fn(usize) -> bool| -> f64 {
        let of = |right: &[bool]| (0..right.len()).filter(|&at| part(at) && right[at]).count() as f64;
        of(a) - of(b)
    };
    match by {
        Preference::BradleyTerry => logistic(lead(&|_| true)),
        Preference::Reward => step(lead(&|_| true)),
        Preference::Majority => {
            let vote = |grader| 2.0 * step(lead(&|at| grader_of(at, a.len()) == grader)) - 1.0;
            step((0..GRADERS).map(vote).sum())
        }
    }
}

/// Graders get neighbouring positions, 3, 3 and 2 of 8.
fn grader_of(position: usize, length: usize) -> usize {
    position * GRADERS / length
}

fn logistic(difference: f64) -> f64 {
    1.0 / (1.0 + (-difference).exp())
}

/// 1 above zero, 0 below, a tie at zero.
fn step(difference: f64) -> f64 {
    if difference == 0.0 { 0.5 } else { f64::from(difference > 0.0) }
}

fn count(right: &[bool]) -> usize {
    right.iter().filter(|right| **right).count()
}

fn convolve(left: &[f64], right: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; left.len() + right.len() - 1];
    for (i, a) in left.iter().enumerate() {
        for (j, b) in right.iter().enumerate() {
            sum[i + j] += a * b;
        }
    }
    sum
}

/// Draws an index with the given probabilities.
fn pick(probabilities: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut left = unit(rng);
    let last = probabilities.len() - 1;
    let passes = |probability: &&f64| {
        left -= **probability;
        left >= 0.0
    };
    // Rounding may leave a hair after the last one.
    probabilities.iter().take_while(passes).count().min(last)
}

fn letter_word(letter: usize) -> String {
    ('a'..='z').nth(letter).map(String::from).unwrap_or_default()
}

fn place(id: u64) -> Place {
    Place { file: Arc::from(Path::new("hidden-permutation")), line: id as usize + 1 }
}

#[cfg(test)]
#[path = "permutation_tests.rs"]
mod tests;
