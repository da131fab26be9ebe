//! What a method of the offline-pairs regime is: which sequences it wants scored, and a loss over their log-probs.
//!
//! Every method under [`crate::methods`] implements [`PairObjective`]. The training loop encodes rows to
//! [`Example`]s, lets the model score each answer, and asks [`differentiate`] for the losses and their gradients with
//! respect to those scores; the claims do the same over tables instead of a model. What several methods need (log-ratios,
//! TRL's metrics) stands here, once.
//!
//! Losses are per example and never averaged here: a step's loss is the sum over all its micro-batches divided by the
//! sum of the examples' [`PairObjective::weight`]s, so that accumulated micro-batches equal one big batch.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use polo_lm::{
    encode::{Encoded, Limits, ListTokens, PairTokens, encode_lists, encode_pairs},
    model::LanguageModel,
    read::{DataReport, ReadOptions, read_completions, read_pairs, read_rows},
    rows::{CompletionRow, ListRow, PairRow, Place, Text, UnpairedRow},
    tokens::Tokenizer,
};
use polo_run::{Problem, Result, metrics::Metrics, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One prompt and the answers scored under it; the prompt is computed once for all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Context, which is not scored; never empty.
    pub prompt: Vec<u32>,
    /// What is scored, each with its end token; never empty.
    pub answers: Vec<Vec<u32>>,
}

/// One training example: the trees its method asks for, in a fixed order.
///
/// Slot k is the k-th answer of the example, trees in order, answers in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Example {
    /// Prompts with their answers; the same number of each for all examples of a method.
    pub trees: Vec<Tree>,
    /// Probability that the chosen answer beats the rejected one, or whether a single answer is desirable (1 or 0); 1
    /// where that has no meaning.
    pub label: f64,
    /// Quality of each slot's answer by the data, higher is better; empty where the data say nothing.
    pub quality: Vec<f64>,
    /// Log-prob of each slot's answer under the policy that drew it, nats; empty where the data say nothing.
    pub proposal: Vec<f64>,
    /// Per slot: weight of each token's log-prob in the answer's; empty where all have weight 1.
    pub weights: Vec<Vec<f32>>,
    /// Further answers to the prompt of the only tree, of which nothing but the readout is asked: the slots after the
    /// scored ones, whose log-prob is that of the end token alone. The same number for all examples of a method.
    pub read: Vec<Vec<u32>>,
    /// The group of people or sources that its label stems from, counted from 0.
    pub group: usize,
    /// Where its row stands (`file:line`), for messages to people; several examples may stem from one row.
    pub id: String,
}

impl Example {
    /// Number of scored tokens per slot.
    pub fn answer_tokens(&self) -> impl Iterator<Item = usize> {
        let scored = self.trees.iter().flat_map(|tree| &tree.answers).map(Vec::len);
        scored.chain(self.read.iter().map(|_| 1))
    }
}

/// Rows of the kind that a method learns from.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Preference pairs.
    Pairs(Vec<PairRow>),
    /// Prompts with what is to be learnt after them.
    Completions(Vec<CompletionRow>),
    /// Several scored answers to each prompt.
    Lists(Vec<ListRow>),
    /// Single answers, each good or bad.
    Unpaired(Vec<UnpairedRow>),
}

impl Rows {
    /// The pairs.
    ///
    /// # Errors
    /// Rows of another kind.
    pub fn pairs(&self) -> Result<&[PairRow]> {
        match self {
            Rows::Pairs(rows) => Ok(rows),
            _ => Err(Problem::usage("this method learns from preference pairs")
                .hint("give rows with prompt, chosen and rejected")),
        }
    }

    /// The lists.
    ///
    /// # Errors
    /// Rows of another kind.
    pub fn lists(&self) -> Result<&[ListRow]> {
        match self {
            Rows::Lists(rows) => Ok(rows),
            _ => Err(Problem::usage("this method learns from several scored answers to each prompt")
                .hint("give rows with prompt, completions and scores, or prompt, gold, chosen and rejected")),
        }
    }

    /// The single answers.
    ///
    /// # Errors
    /// Rows of another kind.
    pub fn unpaired(&self) -> Result<&[UnpairedRow]> {
        match self {
            Rows::Unpaired(rows) => Ok(rows),
            _ => Err(Problem::usage("this method learns from single answers, each good or bad")
                .hint("give rows with prompt, completion and label, or pairs")),
        }
    }

    /// The first prompt, by which templates may be chosen.
    pub fn first_prompt(&self) -> Option<&Text> {
        match self {
            Rows::Pairs(rows) => rows.first().map(|row| &row.prompt),
            Rows::Completions(rows) => rows.first().map(|row| &row.prompt),
            Rows::Lists(rows) => rows.first().map(|row| &row.prompt),
            Rows::Unpaired(rows) => rows.first().map(|row| &row.prompt),
        }
    }
}

/// The kind of [`Rows`] to read from a user's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// [`Rows::Pairs`].
    Pairs,
    /// [`Rows::Completions`]; of a file of pairs, the chosen side.
    Completions,
    /// [`Rows::Lists`]; a pair is a list of two, a pair with a gold answer one of three.
    Lists,
    /// [`Rows::Unpaired`]; a pair makes two of them.
    Unpaired,
}

/// What an objective sees of a batch: per slot one number per example. All tensors are `[examples]`.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Per slot: log-probs of the answers under the trained model, summed over tokens (by [`Example::weights`] if it
    /// has them), nats; tracked.
    pub policy: Vec<Tensor<1>>,
    /// The same under the frozen reference; empty if the method has none.
    pub reference: Vec<Tensor<1>>,
    /// Per slot: number of tokens of the answers.
    pub tokens: Vec<Tensor<1>>,
    /// [`Example::label`].
    pub labels: Tensor<1>,
    /// Per slot: [`Example::quality`]; empty where the data say nothing.
    pub quality: Vec<Tensor<1>>,
    /// Per slot: [`Example::proposal`]; empty where the data say nothing.
    pub proposal: Vec<Tensor<1>>,
    /// Per slot: how typical of the trained model the answers are, the mean over tokens of
    /// log pi(token) - log sum_a pi(a)^2, nats; a constant.
    pub typicality: Vec<Tensor<1>>,
    /// [`Loss::state`] of the step before; empty at the first.
    pub state: Vec<f64>,
    /// Per slot, for a method that asks for [`Live::divergences`]: KL(reference ‖ trained model) of the next-token
    /// distributions, summed over the answer's tokens, nats; tracked.
    pub divergences: Vec<Tensor<1>>,
    /// [`Example::group`].
    pub groups: Vec<usize>,
    /// Per slot, for a method with a [`PairObjective::readout`]: what it puts out, `[examples, outputs]`; tracked.
    pub readouts: Vec<Tensor<2>>,
}

/// Whether an answer's log-prob is the sum or the mean over its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// Sum over tokens, as the papers write it.
    #[default]
    Sum,
    /// Mean over tokens, as TRL does for IPO; beta then means something else.
    Mean,
}

impl Scores {
    /// log pi of the answers in `slot`, nats (per token under [`Reduction::Mean`]).
    pub fn logp(&self, slot: usize, reduction: Reduction) -> Tensor<1> {
        self.reduced(self.policy[slot].clone(), slot, reduction)
    }

    /// log pi / pi_ref of the answers in `slot`, nats (per token under [`Reduction::Mean`]); for a method without a
    /// reference, log pi.
    pub fn log_ratio(&self, slot: usize, reduction: Reduction) -> Tensor<1> {
        let ratio = match self.reference.get(slot) {
            Some(reference) => self.policy[slot].clone() - reference.clone(),
            None => self.policy[slot].clone(),
        };
        self.reduced(ratio, slot, reduction)
    }

    fn reduced(&self, sum: Tensor<1>, slot: usize, reduction: Reduction) -> Tensor<1> {
        match reduction {
            Reduction::Sum => sum,
            Reduction::Mean => sum / self.tokens[slot].clone(),
        }
    }

    /// By how much the log-ratio of the answers in slot `chosen` exceeds that of slot `rejected`, nats.
    pub fn margin(&self, chosen: usize, rejected: usize, reduction: Reduction) -> Tensor<1> {
        self.log_ratio(chosen, reduction) - self.log_ratio(rejected, reduction)
    }

    /// TRL's metrics of a pair under its names: rewards are `beta` times the summed log-ratio, whatever the loss's
    /// reduction.
    pub fn pair_metrics(&self, beta: f64, chosen: usize, rejected: usize) -> Metrics {
        self.metrics_of_rewards(beta, Reduction::Sum, chosen, rejected)
    }

    /// As [`Scores::pair_metrics`], of rewards and log-probs that are reduced as the loss reduces them: how TRL logs
    /// methods without a reference.
    pub fn metrics_of_rewards(
        &self,
        beta: f64,
        reduction: Reduction,
        chosen: usize,
        rejected: usize,
    ) -> Metrics {
        let reward = |slot| self.log_ratio(slot, reduction) * beta;
        let (won, lost) = (reward(chosen), reward(rejected));
        [
            ("rewards/chosen", mean(&won)),
            ("rewards/rejected", mean(&lost)),
            ("rewards/accuracies", share(won.clone().greater(lost.clone()))),
            ("rewards/margins", mean(&(won - lost))),
            ("logps/chosen", mean(&self.logp(chosen, reduction))),
            ("logps/rejected", mean(&self.logp(rejected, reduction))),
        ]
        .into_iter()
        .collect()
    }
}

/// The mean of a tensor as a number.
pub(crate) fn mean(values: &Tensor<1>) -> f64 {
    values.clone().mean().into_scalar()
}

/// The share of true elements.
pub(crate) fn share(truths: Tensor<1, Bool>) -> f64 {
    truths.float().mean().into_scalar()
}

/// What an objective says about a batch.
#[derive(Clone, Debug)]
pub struct Loss {
    /// `[examples]`; not divided by [`PairObjective::weight`].
    pub each: Tensor<1>,
    /// Means over the batch's examples, under TRL's names where it has them. To combine micro-batches, weigh them by
    /// their number of examples.
    pub metrics: Metrics,
    /// What the next training step is given as [`Scores::state`] (running means, say); empty for most methods.
    pub state: Vec<f64>,
}

impl Loss {
    /// A loss without a state.
    pub fn new(each: Tensor<1>, metrics: Metrics) -> Self {
        Self { each, metrics, state: Vec::new() }
    }
}

/// Log-probs of every token of every answer, `[example][slot][token]`, nats, under the reference.
pub type TokenScores<'a> = dyn Fn(&[Example]) -> Vec<Vec<Vec<f32>>> + 'a;

/// A method that learns from a fixed set of scored answers.
pub trait PairObjective: Send + Sync {
    /// Whether [`Scores::reference`] is needed.
    fn uses_reference(&self) -> bool {
        true
    }

    /// The rows that [`PairObjective::encode`] takes.
    fn reads(&self) -> Reads {
        Reads::Pairs
    }

    /// The example's share of the denominator of a step's mean loss: 1 for a mean over pairs, the number of scored
    /// tokens for a mean over tokens.
    fn weight(&self, _example: &Example) -> f64 {
        1.0
    }

    /// Rows to examples.
    ///
    /// # Errors
    /// Rows of the wrong kind, and those of [`polo_lm::encode::encode_pairs`].
    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>>;

    /// What is read out of the model at the end of each answer, besides log-probs.
    fn readout(&self) -> Option<ReadoutSettings> {
        None
    }

    /// What is asked of the reference model at every step; none if its log-probs of the answers are enough, which are
    /// computed once.
    fn live_reference(&self) -> Option<Live> {
        None
    }

    /// Folders of two further models, of which [`PairObjective::weigh`] is told how likely each token is.
    fn contrast(&self) -> Option<[&Path; 2]> {
        None
    }

    /// Sets [`Example::weights`] by the log-probs of every token under the models of [`PairObjective::contrast`], nats,
    /// `[model][example][slot][token]`.
    fn weigh(&self, _examples: &mut [Example], _contrast: [Vec<Vec<Vec<f32>>>; 2]) {}

    /// Completes encoded examples with the help of the reference, which `score` asks.
    fn prepare(&self, _examples: &mut [Example], _score: &TokenScores<'_>) {}

    /// The order in which examples are learnt from. `references` are the scores of the reference, `[example][slot]`;
    /// empty for a method without one, and where only the stages' sizes matter.
    fn stages(&self, examples: &[Example], _references: &[Vec<f64>], _seeds: &Seeds) -> Stages {
        Stages::one(examples.len())
    }

    /// The losses of a batch, a pure function of its scores.
    fn loss(&self, scores: &Scores) -> Loss;
}

/// What a method asks of the reference model at every step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Live {
    /// Whether [`Scores::divergences`] are needed.
    pub divergences: bool,
    /// Whether the reference follows the trained model.
    pub follows: Option<Follow>,
}

/// How a reference follows the trained model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Follow {
    /// Steps from one move to the next.
    pub every: usize,
    /// How far it moves: 1 makes it a copy, less a weighted mean of the weights.
    pub share: f64,
}

/// A linear readout at the end of each answer, trained with the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadoutSettings {
    /// Numbers that it puts out.
    pub outputs: usize,
    /// Standard deviation of its first weights.
    pub std: f64,
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether it belongs to the trained model, as a reward does, or is dropped at the end.
    pub keep: bool,
    /// Whether it learns without teaching the model.
    pub detached: bool,
    /// Whether it compares two answers that stand one after the other; a folder with such a model says so.
    pub pairs: bool,
}

impl ReadoutSettings {
    /// Gives `model` this readout. One of as many numbers that it has, as a reward model does, is trained on.
    pub fn give(self, model: &mut LanguageModel, seed: u64) {
        if model.readout().is_none_or(|readout| readout.outputs != self.outputs) {
            model.drop_readout();
            let seeds = Seeds::new(seed).child("readout");
            model.add_readout("score", self.outputs, self.std, self.bias, &seeds);
        }
        model.detach_readout(self.detached);
    }
}

/// Parts of the examples that are learnt from one after another; within a part the order is random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stages {
    /// Places of the examples of each stage, none of them empty.
    pub members: Vec<Vec<usize>>,
    /// Whether each later stage's reference is the model at the end of the stage before.
    pub new_reference: bool,
    /// Whether each stage has a fresh optimiser and a learning-rate schedule of its own.
    pub restart: bool,
}

impl Stages {
    /// All examples in one stage.
    pub fn one(examples: usize) -> Self {
        Self { members: vec![(0..examples).collect()], new_reference: false, restart: false }
    }
}

/// Reads files as rows of the kind that `objective` learns from.
///
/// # Errors
/// As [`polo_lm::read::read_rows`].
pub fn read(
    objective: &dyn PairObjective,
    paths: &[PathBuf],
    options: &ReadOptions,
) -> Result<(Rows, DataReport)> {
    Ok(match objective.reads() {
        Reads::Pairs => {
            let read = read_pairs(paths, options)?;
            (Rows::Pairs(read.rows), read.report)
        }
        Reads::Completions => {
            let read = read_completions(paths, options)?;
            (Rows::Completions(read.rows), read.report)
        }
        Reads::Lists => {
            let read = read_rows(paths, options)?;
            (Rows::Lists(read.rows), read.report)
        }
        Reads::Unpaired => {
            let read = read_rows(paths, options)?;
            (Rows::Unpaired(read.rows), read.report)
        }
    })
}

/// Pairs to examples of one tree: slot 0 is the chosen answer, slot 1 the rejected one.
pub(crate) fn encode_as_pairs(
    rows: &Rows,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Encoded<Example>> {
    encode_each_pair(rows, tokenizer, limits, |_, _| Ok(()))
}

/// As [`encode_as_pairs`]; `complete` adds to an example what else its row says.
pub(crate) fn encode_each_pair(
    rows: &Rows,
    tokenizer: &Tokenizer,
    limits: &Limits,
    mut complete: impl FnMut(&PairRow, &mut Example) -> Result<()>,
) -> Result<Encoded<Example>> {
    let pairs = rows.pairs()?;
    let of_id: HashMap<u64, &PairRow> = pairs.iter().map(|row| (row.id, row)).collect();
    let names = Names::of(pairs.iter().map(|row| (row.id, &row.place)));
    let Encoded { rows, report } = encode_pairs(pairs, tokenizer, limits)?;
    let example = |PairTokens { prompt, chosen, rejected, label, id }| {
        let mut example = Example {
            trees: vec![Tree { prompt, answers: vec![chosen, rejected] }],
            label,
            id: names.get(id),
            ..Example::default()
        };
        complete(of_id[&id], &mut example)?;
        Ok(example)
    };
    Ok(Encoded { rows: rows.into_iter().map(example).collect::<Result<_>>()?, report })
}

/// Lists to examples of one tree. `select` names the answers that a row contributes, slot by slot, by their places in
/// the list; a row for which it names none is left out and counted as dropped.
pub(crate) fn encode_as_lists(
    rows: &Rows,
    tokenizer: &Tokenizer,
    limits: &Limits,
    select: impl Fn(&ListTokens) -> Option<Vec<usize>>,
) -> Result<Encoded<Example>> {
    encode_each_list(rows, tokenizer, limits, |row| {
        let Some(places) = select(row) else { return Vec::new() };
        let of = |numbers: &[f64]| match numbers.is_empty() {
            true => Vec::new(),
            false => places.iter().map(|&place| numbers[place]).collect(),
        };
        let answers = places.iter().map(|&place| row.answers[place].clone()).collect();
        vec![Example {
            trees: vec![Tree { answers, prompt: row.prompt.clone() }],
            label: 1.0,
            quality: of(&row.scores),
            proposal: of(&row.logps),
            ..Example::default()
        }]
    })
}

/// Lists to as many examples as `make` makes of each, which get its name; a row of which it makes none counts as
/// dropped.
pub(crate) fn encode_each_list(
    rows: &Rows,
    tokenizer: &Tokenizer,
    limits: &Limits,
    make: impl Fn(&ListTokens) -> Vec<Example>,
) -> Result<Encoded<Example>> {
    let rows = rows.lists()?;
    let names = Names::of(rows.iter().map(|row| (row.id, &row.place)));
    let Encoded { rows, mut report } = encode_lists(rows, tokenizer, limits)?;
    let mut examples = Vec::with_capacity(rows.len());
    for row in rows {
        let made = make(&row);
        report.dropped += usize::from(made.is_empty());
        examples.extend(made.into_iter().map(|example| Example { id: names.get(row.id), ..example }));
    }
    report.rows = examples.len();
    Ok(Encoded { rows: examples, report })
}

/// The places of a list's answers, best first; equal scores keep their order.
pub(crate) fn best_first(scores: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    places
}

/// Where rows stand, by their id.
pub(crate) struct Names<'a>(HashMap<u64, &'a Place>);

impl<'a> Names<'a> {
    pub(crate) fn of(rows: impl Iterator<Item = (u64, &'a Place)>) -> Self {
        Self(rows.collect())
    }

    pub(crate) fn get(&self, id: u64) -> String {
        match self.0.get(&id) {
            Some(place) => format!("{}:{}", place.file.display(), place.line),
            None => format!("row {id}"),
        }
    }
}

/// The numbers of a batch, `[slot][example]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Summed log-probs under the trained model, nats.
    pub policy: Vec<Vec<f64>>,
    /// The same under the reference; empty if the method has none.
    pub reference: Vec<Vec<f64>>,
    /// Lengths of the answers, tokens.
    pub tokens: Vec<Vec<usize>>,
    /// Per example: [`Example::label`].
    pub labels: Vec<f64>,
    /// [`Example::quality`]; empty if the examples have none.
    pub quality: Vec<Vec<f64>>,
    /// [`Example::proposal`]; empty if the examples have none.
    pub proposal: Vec<Vec<f64>>,
    /// [`Scores::typicality`].
    pub typicality: Vec<Vec<f64>>,
    /// [`Scores::state`].
    pub state: Vec<f64>,
    /// `[slot][example]`: [`Scores::divergences`]; empty for most methods.
    pub divergences: Vec<Vec<f64>>,
    /// [`Scores::groups`].
    pub groups: Vec<usize>,
    /// `[slot][example]`, then the numbers that the readout puts out; empty without one.
    pub readouts: Vec<Vec<Vec<f64>>>,
}

impl Batch {
    /// An empty batch of `slots` answers per example.
    pub fn new(slots: usize, with_reference: bool) -> Self {
        Self {
            policy: vec![Vec::new(); slots],
            reference: if with_reference { vec![Vec::new(); slots] } else { Vec::new() },
            tokens: vec![Vec::new(); slots],
            typicality: vec![Vec::new(); slots],
            ..Self::default()
        }
    }

    /// Adds an example with one score per slot; `reference` is empty if the method has none.
    pub fn push(&mut self, example: &Example, policy: &[f64], reference: &[f64], typicality: &[f64]) {
        let append = |slots: &mut [Vec<f64>], values: &[f64]| {
            slots.iter_mut().zip(values).for_each(|(slot, &value)| slot.push(value));
        };
        append(&mut self.policy, policy);
        append(&mut self.reference, reference);
        append(&mut self.typicality, typicality);
        for (slots, values) in
            [(&mut self.quality, &example.quality), (&mut self.proposal, &example.proposal)]
        {
            slots.resize(values.len(), Vec::new());
            append(slots, values);
        }
        self.tokens.iter_mut().zip(example.answer_tokens()).for_each(|(slot, tokens)| slot.push(tokens));
        self.labels.push(example.label);
        self.groups.push(example.group);
    }
}

/// Losses of a batch and how they change with its scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradient {
    /// Per example.
    pub each: Vec<f64>,
    /// `[slot][example]`: derivative of the sum of all losses with respect to [`Batch::policy`].
    pub policy: Vec<Vec<f64>>,
    /// [`Loss::metrics`].
    pub metrics: Metrics,
    /// [`Loss::state`].
    pub state: Vec<f64>,
    /// `[slot][example]`: derivative of the sum of all losses with respect to [`Batch::divergences`].
    pub divergences: Vec<Vec<f64>>,
    /// Derivative of the sum of all losses with respect to [`Batch::readouts`]; empty without them.
    pub readouts: Vec<Vec<Vec<f64>>>,
}

impl Gradient {
    /// The losses' sum.
    pub fn sum(&self) -> f64 {
        self.each.iter().sum()
    }
}

/// The losses of a batch of at least one example and their gradient, by automatic differentiation in f64 on the CPU:
/// a handful of numbers per example, where f32 would lose digits for nothing.
pub fn differentiate(objective: &dyn PairObjective, batch: &Batch) -> Gradient {
    let device = Device::flex().autodiff();
    let column = |values: &[f64]| {
        Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), (&device, DType::F64))
    };
    let lengths = |slot: &Vec<usize>| column(&slot.iter().map(|&tokens| tokens as f64).collect::<Vec<_>>());
    let matrix = |rows: &[Vec<f64>]| {
        let shape = [rows.len(), rows.first().map_or(0, Vec::len)];
        Tensor::<2>::from_data(TensorData::new(rows.concat(), shape), (&device, DType::F64))
    };
    let columns = |slots: &[Vec<f64>]| slots.iter().map(|slot| column(slot)).collect();
    let scores = Scores {
        policy: batch.policy.iter().map(|slot| column(slot).require_grad()).collect(),
        reference: columns(&batch.reference),
        tokens: batch.tokens.iter().map(lengths).collect(),
        labels: column(&batch.labels),
        quality: columns(&batch.quality),
        proposal: columns(&batch.proposal),
        typicality: columns(&batch.typicality),
        state: batch.state.clone(),
        divergences: batch.divergences.iter().map(|slot| column(slot).require_grad()).collect(),
        groups: batch.groups.clone(),
        readouts: batch.readouts.iter().map(|slot| matrix(slot).require_grad()).collect(),
    };
    let loss = objective.loss(&scores);
    let gradients = loss.each.clone().sum().backward();
    let slopes = |slots: &[Tensor<1>]| {
        let slope = |slot: &Tensor<1>| match slot.grad(&gradients) {
            Some(gradient) => numbers(gradient),
            // The loss does not depend on this slot.
            None => vec![0.0; batch.labels.len()],
        };
        slots.iter().map(slope).collect()
    };
    let readouts = scores.readouts.iter().zip(&batch.readouts).map(|(slot, values)| {
        let outputs = values.first().map_or(0, Vec::len).max(1);
        match slot.grad(&gradients) {
            Some(gradient) => {
                let numbers: Vec<f64> = gradient.into_data().iter::<f64>().collect();
                numbers.chunks_exact(outputs).map(<[f64]>::to_vec).collect()
            }
            None => vec![vec![0.0; outputs]; values.len()],
        }
    });
    Gradient {
        readouts: readouts.collect(),
        policy: slopes(&scores.policy),
        divergences: slopes(&scores.divergences),
        each: numbers(loss.each),
        metrics: loss.metrics,
        state: loss.state,
    }
}

fn numbers(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
