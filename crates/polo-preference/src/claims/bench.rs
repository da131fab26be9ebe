//! What the claims on tiny trained models share: how a model is trained, what is drawn from it, how far it went.
//!
//! Shares and batches are the same on every machine, so that a claim's numbers do not depend on the number of cores.

use polo_lm::{
    generate::{Completion, Sampling, generate},
    model::LanguageModel,
};
use polo_run::{
    Result,
    claims::{Effect, Expected},
    seed::{Seeds, unit},
    stats,
};
use rand_chacha::ChaCha8Rng;

use crate::{
    objective::{Example, PairObjective, Tree},
    settings::{Schedule, Training},
    trainer::{self, Trainer},
};

/// Examples per step.
pub const BATCH: usize = 64;
/// Parts of a batch, and of what is drawn, that run in parallel.
pub const SHARES: usize = 2;
/// The seed on which settings are chosen; it is never reported.
pub const TUNING_SEED: u64 = 1_000_000;

/// A training of `steps` steps of [`BATCH`] examples; the first twentieth is a warm-up.
pub fn training(seed: u64, steps: usize, learning_rate: f64, schedule: Schedule) -> Training {
    Training {
        batch: BATCH,
        micro_batch: BATCH,
        steps: Some(steps),
        learning_rate,
        schedule,
        warmup_steps: steps / 20,
        shares: SHARES,
        seed,
        ..Training::default()
    }
}

/// Trains a copy of `start`, which is the reference of objectives that have one. The model keeps the objective's readout.
/// `progress` is told the step and its loss.
///
/// # Errors
/// A training that diverges.
pub fn learn(
    start: &LanguageModel,
    objective: &dyn PairObjective,
    examples: &[Example],
    training: Training,
    progress: &mut dyn FnMut(usize, f64),
) -> Result<LanguageModel> {
    let references = match objective.uses_reference() {
        true => trainer::score(start, examples, &training, |_| {}),
        false => Vec::new(),
    };
    let mut model = start.clone();
    if let Some(readout) = objective.readout() {
        readout.give(&mut model, training.seed);
    }
    let mut trainer = Trainer::new(model, objective, training, examples, &references);
    while trainer.done() < trainer.total() {
        let step = trainer.step(None)?;
        progress(step.number, step.metrics.get("loss").unwrap_or(f64::NAN));
    }
    Ok(trainer.model)
}

/// One prompt with its answers as an example of label 1.
pub fn example(prompt: Vec<u32>, answers: Vec<Vec<u32>>) -> Example {
    Example { trees: vec![Tree { prompt, answers }], label: 1.0, ..Example::default() }
}

/// One answer to each prompt.
///
/// # Errors
/// As [`generate`].
pub fn draw(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    sampling: &Sampling,
    seeds: &Seeds,
) -> Result<Vec<Completion>> {
    generate(model, prompts, 1, sampling, seeds, SHARES)
}

/// Two of the model's answers to each prompt as a pair, its order drawn: `wins` is the probability that the first of the
/// answers to a prompt is preferred to the second. Equal answers make no pair.
///
/// # Errors
/// As [`generate`].
pub fn compare(
    model: &LanguageModel,
    prompts: Vec<Vec<u32>>,
    sampling: &Sampling,
    seeds: &Seeds,
    labels: &mut ChaCha8Rng,
    wins: impl Fn(&[u32], &[u32], &[u32]) -> f64,
) -> Result<Vec<Example>> {
    let drawn = generate(model, &prompts, 2, sampling, seeds, SHARES)?;
    let mut pairs = Vec::with_capacity(prompts.len());
    for (prompt, two) in prompts.into_iter().zip(drawn.chunks_exact(2)) {
        let [a, b] = [&two[0].tokens, &two[1].tokens];
        let a_wins = unit(labels) < wins(&prompt, a, b);
        if a != b {
            let answers = if a_wins { vec![a.clone(), b.clone()] } else { vec![b.clone(), a.clone()] };
            pairs.push(example(prompt, answers));
        }
    }
    Ok(pairs)
}

/// KL divergence, nats per answer, of the model that drew one answer to each prompt from `reference`, as those answers
/// estimate it.
pub fn divergence(prompts: &[Vec<u32>], drawn: &[Completion], reference: &LanguageModel) -> f64 {
    let examples: Vec<Example> = prompts
        .iter()
        .zip(drawn)
        .map(|(prompt, answer)| example(prompt.clone(), vec![answer.tokens.clone()]))
        .collect();
    let scores = trainer::score(reference, &examples, &training(0, 1, 1e-3, Schedule::Constant), |_| {});
    let own = drawn.iter().map(|answer| answer.logps.iter().map(|&x| f64::from(x)).sum::<f64>());
    let differences: Vec<f64> = own.zip(&scores).map(|(own, reference)| own - reference[0]).collect();
    stats::mean(&differences).unwrap_or(f64::NAN)
}

/// An effect of one value for each seed.
pub fn effect(name: impl Into<String>, values: &[f64], expected: Expected) -> Effect {
    Effect { name: name.into(), estimate: stats::t_interval(values, "seeds"), expected }
}

/// The element with the largest value; NaN is below all numbers.
pub fn best<T: Copy>(candidates: &[(T, f64)]) -> Option<T> {
    let rank = |value: f64| if value.is_nan() { f64::NEG_INFINITY } else { value };
    candidates.iter().max_by(|a, b| rank(a.1).total_cmp(&rank(b.1))).map(|(candidate, _)| *candidate)
}
