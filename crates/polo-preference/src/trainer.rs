//! The optimiser's side of the offline-pairs regime: examples, a model and an objective in, steps out.
//!
//! [`Trainer`] owns everything that a checkpoint must hold and knows nothing of files but its own state;
//! [`crate::train`] wraps it into a run, the claims and the demo drive it directly.

use std::{borrow::Cow, ops::Range, path::Path};

use polo_lm::model::{Batch as Tokens, LanguageModel};
use polo_nn::{
    Gradients,
    logprob::{self, LogProbs, Slopes, View},
    optimiser::{self, AdamW, Moments},
    shares,
};
use polo_run::{
    Result,
    guard::{Guard, Verdict},
    metrics::Metrics,
    seed::Seeds,
};

use crate::{
    objective::{Batch, Example, Live, PairObjective, Stages, differentiate},
    settings::Training,
};

mod state;

/// Scores of the reference, `[example][slot]`, nats; empty for a method without one.
pub type References = Vec<Vec<f64>>;

/// What one optimiser step did.
#[derive(Clone, Debug)]
pub struct Step {
    /// Steps done, this one included.
    pub number: usize,
    /// Loss, gradient norm, learning rate, and the objective's metrics.
    pub metrics: Metrics,
    /// Examples learnt from.
    pub examples: usize,
    /// Tokens that went through the network.
    pub tokens: usize,
}

/// A loss and its gradients.
pub struct Pushed {
    /// Mean loss.
    pub loss: f64,
    /// Its gradients.
    pub gradients: Gradients,
    /// The objective's metrics and those of tokens, means over the examples.
    pub metrics: Metrics,
    /// Tokens that went through the network.
    pub tokens: usize,
    /// The objective's state after the last micro-batch.
    pub state: Vec<f64>,
}

/// A model being trained on examples.
pub struct Trainer<'a> {
    /// The model as it stands.
    pub model: LanguageModel,
    objective: &'a dyn PairObjective,
    training: Training,
    examples: &'a [Example],
    references: Cow<'a, References>,
    /// The reference model, for an objective that asks it at every step.
    live: Option<LanguageModel>,
    stages: Stages,
    moments: Moments,
    /// The guard against non-finite steps.
    pub guard: Guard,
    /// What the objective's last step left for its next one; empty for most.
    pub state: Vec<f64>,
    done: usize,
    shares: usize,
}

impl<'a> Trainer<'a> {
    /// A trainer before its first step. `references` is parallel to `examples`, or empty.
    pub fn new(
        model: LanguageModel,
        objective: &'a dyn PairObjective,
        training: Training,
        examples: &'a [Example],
        references: &'a References,
    ) -> Self {
        let moments = Moments::new(&model.parameters);
        let guard = Guard::new(training.on_non_finite);
        let shares = share_count(&model, training.shares);
        let live: Option<LanguageModel> = objective.live_reference().map(|_| model.clone());
        let stages = objective.stages(examples, references, &Seeds::new(training.seed).child("stages"));
        Self {
            model,
            objective,
            training,
            examples,
            references: Cow::Borrowed(references),
            live,
            stages,
            moments,
            guard,
            state: Vec::new(),
            done: 0,
            shares,
        }
    }

    /// Takes another model than the one that training starts from as the reference that is asked at every step.
    pub fn set_reference(&mut self, reference: LanguageModel) {
        if let Some(live) = &mut self.live {
            *live = reference;
        }
    }

    /// Steps done so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Steps that the training takes.
    pub fn total(&self) -> usize {
        stage_steps(&self.stages, &self.training).iter().sum()
    }

    /// The stage of step `step`, the step's place in it, and the steps that the stage takes.
    fn place(&self, step: usize) -> (usize, usize, usize) {
        let mut place = step;
        let steps = stage_steps(&self.stages, &self.training);
        for (stage, &steps) in steps.iter().enumerate() {
            if place < steps {
                return (stage, place, steps);
            }
            place -= steps;
        }
        // Past the end: the last stage goes on.
        let last = steps.len() - 1;
        (last, place + steps[last], steps[last])
    }

    /// The examples of step `step`: every epoch of a stage is a permutation of its own, a function of the seed, the
    /// stage and the epoch.
    fn members(&self, step: usize) -> Vec<usize> {
        let (stage, step, _) = self.place(step);
        let members = &self.stages.members[stage];
        let per_epoch = members.len().div_ceil(self.training.batch);
        let (epoch, place) = (step / per_epoch, step % per_epoch);
        let mut seeds = Seeds::new(self.training.seed);
        if stage > 0 {
            seeds = seeds.child(&format!("stage {stage}"));
        }
        let order = seeds.shuffled(members.len(), "data/order", epoch as u64);
        let first = place * self.training.batch;
        order[first..(first + self.training.batch).min(order.len())].iter().map(|&i| members[i]).collect()
    }

    /// What changes before the first step of a later stage.
    fn enter_stage(&mut self) {
        let (stage, place, _) = self.place(self.done);
        if stage == 0 || place > 0 {
            return;
        }
        if self.stages.restart {
            self.moments = Moments::new(&self.model.parameters);
            self.state.clear();
        }
        if self.stages.new_reference && self.objective.uses_reference() {
            let members = &self.stages.members[stage];
            let examples: Vec<Example> = members.iter().map(|&i| self.examples[i].clone()).collect();
            let scores = score(&self.model, &examples, &self.training, |_| {});
            let references = self.references.to_mut();
            for (&i, scores) in members.iter().zip(scores) {
                references[i] = scores;
            }
        }
    }

    /// Takes the next step. `last_good` is named if the step turns out not to be finite.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, under a policy of stopping.
    pub fn step(&mut self, last_good: Option<&Path>) -> Result<Step> {
        self.enter_stage();
        let members = self.members(self.done);
        self.step_on(&members, last_good)
    }

    /// Takes a step on the given examples.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_on(&mut self, members: &[usize], last_good: Option<&Path>) -> Result<Step> {
        let Pushed { loss, mut gradients, metrics: means, tokens, state } = self.push_back(members);
        let norm = optimiser::global_norm(&gradients, &self.model.parameters);
        let rate = match (self.stages.restart, self.place(self.done)) {
            (true, (_, place, steps)) => self.training.learning_rate_at(place, steps),
            (false, _) => self.training.learning_rate_at(self.done, self.total()),
        };
        let number = self.done + 1;
        let mut verdict = Verdict::Go;
        for (name, value) in [("loss", loss), ("grad_norm", norm)] {
            if !value.is_finite() {
                let ids: Vec<String> = members.iter().map(|&i| self.examples[i].id.clone()).collect();
                verdict = self.guard.check(number as u64, name, value, &ids, last_good)?;
                break;
            }
        }
        if verdict == Verdict::Go {
            let Training { clip, beta1, beta2, epsilon, weight_decay, .. } = self.training;
            let scale = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
            let settings = AdamW { learning_rate: rate, beta1, beta2, epsilon, weight_decay };
            optimiser::step(&mut self.model.parameters, &mut self.moments, &mut gradients, settings, scale);
            self.state = state;
        }
        self.done = number;
        if let (Some(Live { follows: Some(follow), .. }), Some(reference)) =
            (self.objective.live_reference(), &mut self.live)
            && number.is_multiple_of(follow.every)
        {
            reference.parameters.move_towards(&self.model.parameters, follow.share);
        }
        let mut metrics = Metrics::new();
        metrics.set("loss", loss).set("grad_norm", norm).set("learning_rate", rate);
        metrics.set("epoch", (number * self.training.batch) as f64 / self.examples.len() as f64);
        metrics.merge(&means);
        Ok(Step { number, metrics, examples: members.len(), tokens })
    }

    /// The mean loss over the given examples and its gradients, micro-batch after micro-batch; nothing is applied.
    pub fn push_back(&self, members: &[usize]) -> Pushed {
        let mut members = members.to_vec();
        if self.training.length_buckets {
            members.sort_by_key(|&i| (length(&self.examples[i]), i));
        }
        let weight: f64 = members.iter().map(|&i| self.objective.weight(&self.examples[i])).sum();
        let mut gradients: Vec<Gradients> = Vec::new();
        let (mut loss, mut tokens, mut parts, mut sums) = (0.0, 0, Vec::new(), TokenSums::default());
        let mut state = self.state.clone();
        let live = self.objective.live_reference();
        for micro in members.chunks(self.training.micro_batch) {
            let forward = forward(self.examples, micro, self.shares, |tokens| {
                let (scores, tape) = self.model.score(tokens);
                let compared = self.live.as_ref().zip(live).map(|(reference, live)| {
                    Compared::new(|| self.model.view_of(&tape), reference, tokens, live)
                });
                Scored { scores, readouts: self.model.read(tokens, &tape), compared, tape: Some(tape) }
            });
            let batch = gather(self.objective, self.examples, &self.references, &forward, &state);
            let gradient = differentiate(self.objective, &batch);
            state.clone_from(&gradient.state);
            loss += gradient.sum() / weight;
            sums.add(&forward);
            parts.push((micro.len() as f64, gradient.metrics));
            tokens += forward.iter().map(|share| share.tokens.tokens()).sum::<usize>();
            gradients
                .resize_with(forward.len().max(gradients.len()), || Gradients::new(&self.model.parameters));
            let mut first = 0;
            let mut work = Vec::new();
            for (share, gradients) in forward.into_iter().zip(gradients.iter_mut()) {
                let dlogps = spread(self.examples, &share, &gradient.policy, first, weight);
                let ddivergences = spread(&[], &share, &gradient.divergences, first, weight);
                let dreadouts = spread_readouts(&share, &gradient.readouts, first, weight);
                first += share.members.len();
                work.push((share, dlogps, ddivergences, dreadouts, gradients));
            }
            shares::map(work, |(share, dlogps, ddivergences, dreadouts, gradients)| {
                let Scored { tape: Some(tape), compared, .. } = share.scored else { return };
                let divergences = match (&compared, gradient.divergences.is_empty()) {
                    (Some(compared), false) => Some((&compared.reference, &ddivergences[..])),
                    _ => None,
                };
                let slopes = Slopes { logps: &dlogps, entropies: None, divergences };
                self.model.push_back_both(&share.tokens, tape, slopes, &dreadouts, gradients);
            });
        }
        let mut gradients = gradients.into_iter();
        let mut sum = gradients.next().unwrap_or_else(|| Gradients::new(&self.model.parameters));
        gradients.for_each(|other| sum.merge(other));
        let mut metrics = Metrics::weighted_mean(parts.iter().map(|(weight, metrics)| (*weight, metrics)));
        metrics.merge(&sums.means());
        Pushed { loss, gradients: sum, metrics, tokens, state }
    }

    /// Loss and metrics on other examples, nothing learnt.
    pub fn evaluate(&self, examples: &[Example], references: &References) -> Metrics {
        let Self { model, objective, live, training, state, .. } = self;
        evaluate_against(model, *objective, live.as_ref(), examples, references, training, state)
    }
}

/// Optimiser steps of each stage; a number of steps that is set is shared out evenly, the last stage taking the rest.
pub fn stage_steps(stages: &Stages, training: &Training) -> Vec<usize> {
    let count = stages.members.len();
    let steps = |(stage, members): (usize, &Vec<usize>)| match training.steps {
        None => training.total_steps(members.len()),
        Some(all) if stage + 1 < count => all / count,
        Some(all) => all - all / count * (count - 1),
    };
    stages.members.iter().enumerate().map(steps).collect()
}

fn share_count(model: &LanguageModel, asked: usize) -> usize {
    match (polo_nn::device::is_cpu(model.device()), asked) {
        (false, _) => 1,
        (true, 0) => shares::default_count(),
        (true, n) => n,
    }
}

/// Tokens of an example that go through the network.
pub fn length(example: &Example) -> usize {
    let fed = |answers: &[Vec<u32>]| answers.iter().map(|a| a.len().saturating_sub(1)).sum::<usize>();
    let trees = example.trees.iter().map(|tree| tree.prompt.len() + fed(&tree.answers));
    trees.sum::<usize>() + fed(&example.read)
}

/// One share of a micro-batch after its forward pass.
struct Share<T> {
    members: Vec<usize>,
    tokens: Tokens,
    scored: Scored<T>,
}

/// What the models say of a share.
struct Scored<T> {
    scores: LogProbs,
    /// What the model's readout says at the end of each answer; empty without one.
    readouts: Vec<f32>,
    /// The reference's view, for an objective that asks it at every step.
    compared: Option<Compared>,
    tape: Option<T>,
}

/// The reference's view of a share.
struct Compared {
    reference: View,
    /// KL(reference ‖ model) at every scored token, nats; empty if nobody asks.
    divergences: Vec<f32>,
}

impl Compared {
    fn new(policy: impl FnOnce() -> View, reference: &LanguageModel, tokens: &Tokens, live: Live) -> Self {
        let reference = reference.view(tokens);
        let divergences = match live.divergences {
            true => logprob::divergences(&policy(), &reference),
            false => Vec::new(),
        };
        Self { divergences, reference }
    }
}

/// Cuts `members` into shares of about equal work and runs `score` on each in parallel.
fn forward<T: Send>(
    examples: &[Example],
    members: &[usize],
    count: usize,
    score: impl Fn(&Tokens) -> Scored<T> + Send + Sync,
) -> Vec<Share<T>> {
    let mut longest_first = members.to_vec();
    longest_first.sort_by_key(|&i| (std::cmp::Reverse(length(&examples[i])), i));
    let mut loads = vec![(0, Vec::new()); count.clamp(1, members.len().max(1))];
    for i in longest_first {
        if let Some(lightest) = loads.iter_mut().min_by_key(|(load, _)| *load) {
            lightest.0 += length(&examples[i]);
            lightest.1.push(i);
        }
    }
    let loads = loads.into_iter().map(|(_, members)| members).collect();
    shares::map(loads, |members: Vec<usize>| {
        let mut tokens = Tokens::default();
        for &i in &members {
            for tree in &examples[i].trees {
                let answers: Vec<&[u32]> = tree.answers.iter().map(Vec::as_slice).collect();
                let read: Vec<&[u32]> = examples[i].read.iter().map(Vec::as_slice).collect();
                tokens.add_with_read(&tree.prompt, &answers, &read);
            }
        }
        let scored = score(&tokens);
        Share { members, tokens, scored }
    })
}

/// The sum over the tokens of an answer in a slot, by their weights if the example has them, in f64.
fn total(scores: &LogProbs, answer: &Range<usize>, example: &Example, slot: usize) -> f64 {
    let logps = scores.logps[answer.clone()].iter().map(|&x| f64::from(x));
    match example.weights.get(slot) {
        None => logps.sum(),
        Some(weights) => logps.zip(weights).map(|(logp, &weight)| logp * f64::from(weight)).sum(),
    }
}

/// [`crate::objective::Scores::typicality`] of an answer.
fn typicality(scores: &LogProbs, answer: &Range<usize>) -> f64 {
    let pairs = scores.logps[answer.clone()].iter().zip(&scores.collisions[answer.clone()]);
    pairs.map(|(&logp, &collision)| f64::from(logp) - f64::from(collision)).sum::<f64>() / answer.len() as f64
}

fn totals<T>(share: &Share<T>, scores: &LogProbs, place: usize, slots: usize, example: &Example) -> Vec<f64> {
    let answers = answers_of(share, place, slots).iter().enumerate();
    answers.map(|(slot, answer)| total(scores, answer, example, slot)).collect()
}

/// Answers of one example in a share that holds `slots` per example.
fn answers_of<T>(share: &Share<T>, place: usize, slots: usize) -> &[Range<usize>] {
    &share.tokens.answers()[place * slots..][..slots]
}

fn slots<T>(share: &Share<T>) -> usize {
    share.tokens.answers().len() / share.members.len().max(1)
}

/// All shares' scores as one batch of the objective, share after share.
fn gather<T>(
    objective: &dyn PairObjective,
    examples: &[Example],
    references: &References,
    forward: &[Share<T>],
    state: &[f64],
) -> Batch {
    let slots = forward.first().map_or(0, slots);
    let mut batch = Batch::new(slots, objective.uses_reference());
    batch.state = state.to_vec();
    for share in forward {
        for (place, &i) in share.members.iter().enumerate() {
            let Scored { scores, readouts, compared, .. } = &share.scored;
            let policy = totals(share, scores, place, slots, &examples[i]);
            let answers = answers_of(share, place, slots);
            let typicality: Vec<f64> = answers.iter().map(|answer| typicality(scores, answer)).collect();
            let live;
            let reference = match compared {
                Some(compared) => {
                    live = totals(share, &compared.reference.scores, place, slots, &examples[i]);
                    if !compared.divergences.is_empty() {
                        batch.divergences.resize(slots, Vec::new());
                    }
                    for (slot, answer) in batch.divergences.iter_mut().zip(answers) {
                        let each = compared.divergences[answer.clone()].iter();
                        slot.push(each.map(|&divergence| f64::from(divergence)).sum());
                    }
                    &live
                }
                None => references.get(i).map_or(&[][..], Vec::as_slice),
            };
            batch.push(&examples[i], &policy, reference, &typicality);
            if !readouts.is_empty() {
                batch.readouts.resize(slots, Vec::new());
                let outputs = readouts.len() / (share.members.len() * slots);
                let first = place * slots * outputs;
                let own = readouts[first..first + slots * outputs].chunks_exact(outputs);
                for (slot, values) in batch.readouts.iter_mut().zip(own) {
                    slot.push(values.iter().map(|&value| f64::from(value)).collect());
                }
            }
        }
    }
    batch
}

/// dL/dlogp of every scored token of a share whose first example is number `first` of the batch.
fn spread<T>(
    examples: &[Example],
    share: &Share<T>,
    policy: &[Vec<f64>],
    first: usize,
    weight: f64,
) -> Vec<f32> {
    let mut dlogps = vec![0.0; share.scored.scores.logps.len()];
    for (place, &i) in share.members.iter().enumerate() {
        for (slot, (answer, gradient)) in
            answers_of(share, place, policy.len()).iter().zip(policy).enumerate()
        {
            let dlogps = &mut dlogps[answer.clone()];
            dlogps.fill((gradient[first + place] / weight) as f32);
            if let Some(weights) = examples.get(i).and_then(|example| example.weights.get(slot)) {
                dlogps.iter_mut().zip(weights).for_each(|(dlogp, weight)| *dlogp *= weight);
            }
        }
    }
    dlogps
}

/// dL/d of the readout at the end of every answer of a share, as [`spread`].
fn spread_readouts<T>(share: &Share<T>, readouts: &[Vec<Vec<f64>>], first: usize, weight: f64) -> Vec<f32> {
    let places = first..first + share.members.len();
    let rows = places.flat_map(|place| readouts.iter().map(move |slot| &slot[place]));
    rows.flatten().map(|gradient| (gradient / weight) as f32).collect()
}

/// Sums over scored tokens per slot, over all micro-batches of a step.
#[derive(Default)]
struct TokenSums(Vec<TokenSum>);

#[derive(Clone, Copy, Default)]
struct TokenSum {
    tokens: f64,
    entropy: f64,
    hits: f64,
    logits: f64,
}

impl TokenSums {
    fn add<T>(&mut self, forward: &[Share<T>]) {
        let slots = forward.first().map_or(0, slots);
        self.0.resize(slots, TokenSum::default());
        for share in forward {
            let scores = &share.scored.scores;
            for (number, answer) in share.tokens.answers().iter().enumerate() {
                let sum = &mut self.0[number % slots];
                for token in answer.clone() {
                    sum.tokens += 1.0;
                    sum.entropy += f64::from(scores.entropies[token]);
                    sum.hits += f64::from(u8::from(scores.hits[token]));
                    sum.logits += f64::from(scores.mean_logits[token]);
                }
            }
        }
    }

    /// Means under TRL's names: the entropy over all tokens, accuracy over those of the first answer (the chosen one),
    /// logits for each side of a pair.
    fn means(&self) -> Metrics {
        let mut metrics = Metrics::new();
        let all: f64 = self.0.iter().map(|sum| sum.tokens).sum();
        metrics.set("entropy", self.0.iter().map(|sum| sum.entropy).sum::<f64>() / all);
        if let Some(first) = self.0.first() {
            metrics.set("mean_token_accuracy", first.hits / first.tokens);
        }
        if let [chosen, rejected, ..] = self.0[..] {
            metrics.set("logits/chosen", chosen.logits / chosen.tokens);
            metrics.set("logits/rejected", rejected.logits / rejected.tokens);
        }
        metrics
    }
}

fn read_only(model: &LanguageModel, tokens: &Tokens) -> Scored<()> {
    let (scores, readouts) = model.score_and_read(tokens);
    Scored { scores, readouts, compared: None, tape: None }
}

/// Loss and metrics of a model on examples, nothing learnt. `state` is the objective's, which asks nothing of a live
/// reference.
pub fn evaluate(
    model: &LanguageModel,
    objective: &dyn PairObjective,
    examples: &[Example],
    references: &References,
    training: &Training,
    state: &[f64],
) -> Metrics {
    evaluate_against(model, objective, None, examples, references, training, state)
}

fn evaluate_against(
    model: &LanguageModel,
    objective: &dyn PairObjective,
    live: Option<&LanguageModel>,
    examples: &[Example],
    references: &References,
    training: &Training,
    state: &[f64],
) -> Metrics {
    let weight: f64 = examples.iter().map(|example| objective.weight(example)).sum();
    let (mut loss, mut parts, mut sums) = (0.0, Vec::new(), TokenSums::default());
    let all: Vec<usize> = (0..examples.len()).collect();
    for micro in all.chunks(training.micro_batch) {
        let forward = forward(examples, micro, share_count(model, training.shares), |tokens| {
            let compared = live
                .zip(objective.live_reference())
                .map(|(reference, live)| Compared::new(|| model.view(tokens), reference, tokens, live));
            Scored { compared, ..read_only(model, tokens) }
        });
        let gradient = differentiate(objective, &gather(objective, examples, references, &forward, state));
        loss += gradient.sum() / weight;
        sums.add(&forward);
        parts.push((micro.len() as f64, gradient.metrics));
    }
    let mut metrics = Metrics::new();
    metrics.set("loss", loss);
    metrics.merge(&Metrics::weighted_mean(parts.iter().map(|(weight, metrics)| (*weight, metrics))));
    metrics.merge(&sums.means());
    metrics
}

/// Summed log-probs of every answer of every example, `[example][slot]`, nats. `progress` is told how many examples
/// are done.
pub fn score(
    model: &LanguageModel,
    examples: &[Example],
    training: &Training,
    progress: impl FnMut(usize),
) -> References {
    score_each(model, examples, training, progress, |share, place, slots, example| {
        totals(share, &share.scored.scores, place, slots, example)
    })
}

/// Log-probs of every token of every answer of every example, `[example][slot][token]`, nats.
pub fn score_tokens(
    model: &LanguageModel,
    examples: &[Example],
    training: &Training,
    progress: impl FnMut(usize),
) -> Vec<Vec<Vec<f32>>> {
    score_each(model, examples, training, progress, |share, place, slots, _| {
        let answers = answers_of(share, place, slots).iter();
        answers.map(|answer| share.scored.scores.logps[answer.clone()].to_vec()).collect()
    })
}

/// What `read` finds in each example's scores: in its share, at its place, with so many slots.
fn score_each<R: Default + Clone>(
    model: &LanguageModel,
    examples: &[Example],
    training: &Training,
    mut progress: impl FnMut(usize),
    read: impl Fn(&Share<()>, usize, usize, &Example) -> R,
) -> Vec<R> {
    let mut result = vec![R::default(); examples.len()];
    let all: Vec<usize> = (0..examples.len()).collect();
    for micro in all.chunks(training.micro_batch) {
        let forward =
            forward(examples, micro, share_count(model, training.shares), |tokens| read_only(model, tokens));
        for share in &forward {
            let slots = slots(share);
            for (place, &i) in share.members.iter().enumerate() {
                result[i] = read(share, place, slots, &examples[i]);
            }
        }
        progress(micro[micro.len() - 1] + 1);
    }
    result
}
