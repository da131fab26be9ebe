//! Trajectory weighting's claim: where few episodes are good, drawing from them more often frees constrained learners.
//!
//! 95 random and 5 good episodes of a pendulum; behaviour cloning and TD3+BC, with uniform sampling, by return and by
//! advantage. TD3 without its constraint is the control: here it needs none. Good episodes alone are the negative
//! control: nothing is to be gained where returns hardly differ.

use std::{path::Path, time::Instant};

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
};
use polo_sim::classic::pendulum_offline::Behaviour;
use rayon::prelude::*;

use super::{
    interval, paired,
    pendulum::{self, GAMMA, HIDDEN, RATE, learn, mixture, score},
};
use crate::methods::{
    Control,
    bc::Bc,
    td3_bc::Td3Bc,
    trajectory_weighting::{Sampling, episode_weights, positive_sided_variance},
};

const SAMPLINGS: [(&str, Sampling); 3] =
    [("uniform", Sampling::Uniform), ("RW", Sampling::Return), ("AW", Sampling::Advantage)];
/// Random and good episodes of the mixture.
static MIXED: [(Behaviour, u64); 2] = [(Behaviour::Random, 95), (Behaviour::ExpertNoisy, 5)];
/// Episodes where nothing is to be gained.
static GOOD: [(Behaviour, u64); 1] = [(Behaviour::ExpertNoisy, 100)];

/// What is learnt from what.
struct Task {
    data: &'static str,
    parts: &'static [(Behaviour, u64)],
    learner: &'static str,
    method: Box<dyn Control>,
    name: &'static str,
    sampling: Sampling,
}

/// Which data, which learner, which sampling; and the scores by seed.
struct Row {
    data: &'static str,
    learner: &'static str,
    sampling: &'static str,
    scores: Vec<f64>,
}

fn bc() -> Box<dyn Control> {
    Box::new(Bc { learning_rate: RATE, hidden: HIDDEN.to_vec(), ..Bc::default() })
}

fn td3_bc(alpha: f64) -> Box<dyn Control> {
    Box::new(Td3Bc { alpha, learning_rate: RATE, gamma: GAMMA, hidden: HIDDEN.to_vec(), ..Td3Bc::default() })
}

/// Re-tests the claim.
///
/// # Errors
/// Those of the environment.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = Instant::now();
    let (updates, episodes) = if quick { (60, 4) } else { (10_000, 100) };
    let (cloning, constrained) = ("BC", "TD3+BC, alpha 2.5");
    let all: Vec<u64> = (0..seeds).collect();
    let mixed = |learner, method, (name, sampling)| Task {
        data: "95 random + 5 good",
        parts: &MIXED,
        learner,
        method,
        name,
        sampling,
    };
    let mut plan = Vec::new();
    for by in SAMPLINGS {
        plan.extend([mixed(cloning, bc(), by), mixed(constrained, td3_bc(2.5), by)]);
    }
    plan.push(mixed("TD3 (alpha 1e4)", td3_bc(1e4), SAMPLINGS[0]));
    for by in [SAMPLINGS[0], SAMPLINGS[2]] {
        plan.push(Task { data: "100 good", parts: &GOOD, ..mixed(constrained, td3_bc(2.5), by) });
    }
    let mut rows = Vec::new();
    for Task { data, parts, learner, method, name, sampling } in plan {
        say(&format!("{data}: {learner}, {name}"));
        let one = |&seed: &u64| {
            let settings = pendulum::settings(sampling);
            let policy = learn(&*method, mixture(parts, seed)?, &settings, updates, seed)?;
            score(&policy, episodes)
        };
        let scores = all.par_iter().map(one).collect::<Result<Vec<f64>>>()?;
        rows.push(Row { data, learner, sampling: name, scores });
    }
    let of = |data: &str, learner: &str, sampling: &str| -> &[f64] {
        let found =
            rows.iter().find(|row| (row.data, row.learner, row.sampling) == (data, learner, sampling));
        found.map_or(&[], |row| &row.scores)
    };
    let gain = |data: &str, learner: &str, sampling: &str| {
        paired(of(data, learner, sampling), of(data, learner, "uniform"))
    };
    let mut effects = Vec::new();
    for learner in [cloning, constrained] {
        for sampling in ["RW", "AW"] {
            effects.push(Effect {
                name: format!(
                    "95 random + 5 good, {learner}: score with {sampling} less that with uniform sampling"
                ),
                estimate: gain("95 random + 5 good", learner, sampling),
                expected: Expected::Above(40.0),
            });
        }
    }
    effects.push(Effect {
        name: format!("100 good, {constrained}: score with AW less that with uniform sampling"),
        estimate: gain("100 good", constrained, "AW"),
        expected: Expected::Between(-5.0, 5.0),
    });
    let mut shares: Vec<(f64, f64)> = Vec::new();
    let mut spread: Vec<(f64, f64)> = Vec::new();
    for &seed in &all {
        let data = mixture(&MIXED, seed)?;
        let mass = |sampling| {
            let weights = episode_weights(&data, &pendulum::settings(sampling)).unwrap_or_default();
            weights.iter().rev().take(5).sum::<f64>() / weights.iter().sum::<f64>()
        };
        shares.push((mass(Sampling::Return), mass(Sampling::Advantage)));
        let scaled =
            |returns: Vec<f64>| -> Vec<f64> { returns.iter().map(|g| (g + 1226.0) / 1069.0).collect() };
        let rpsv = |returns| positive_sided_variance(&scaled(returns)).sqrt();
        spread.push((rpsv(data.returns()), rpsv(mixture(&GOOD, seed)?.returns())));
    }
    let mean = |pick: &dyn Fn(usize) -> f64| (0..all.len()).map(pick).sum::<f64>() / all.len() as f64;
    let mut table = Table {
        headers: ["data", "learner", "sampling", "score", "by seed"].map(String::from).to_vec(),
        rows: Vec::new(),
    };
    for Row { data, learner, sampling, scores } in &rows {
        let each = scores.iter().map(|score| format!("{score:.1}")).collect::<Vec<_>>().join(" ");
        let score = interval(scores).to_string();
        table.rows.push(vec![(*data).into(), (*learner).into(), (*sampling).into(), score, each]);
    }
    Ok(ClaimResult {
        slug: "trajectory-weighting".into(),
        claim: "Where a few episodes of a dataset are much better than the rest, drawing transitions of good episodes more \
                often, by return (RW) or by advantage over what the first observation promised (AW), lifts offline learners \
                that stay near their data far above uniform sampling."
            .into(),
        setup: format!(
            "`polo/PendulumOffline-v0`, 100 logged episodes of 200 steps, made anew for each of {seeds} seeds: 95 of random \
             behaviour and 5 of a noisy expert, or 100 of the latter. Hidden layers [64, 64], Adam 1e-3, batch 256, gamma \
             0.98, rewards times 0.1, {updates} updates, temperature 0.1; normalised score of {episodes} episodes (0: random \
             behaviour, 100: the expert). Every learner has the same settings with every sampling, and none was tuned."
        ),
        table,
        effects,
        plots: Vec::new(),
        remarks: format!(
            "TD3 without its constraint needs no weighting here, as random actions cover the one action dimension: the claim \
             is about constrained learners. Share of the drawn transitions that come from the 5 good episodes: 0.05 uniform, \
             {:.2} RW, {:.2} AW (AW at least RW in {} of {seeds} seeds). Root of the positive-sided variance of normalised \
             returns: {:.3} mixed, {:.3} good alone.",
            mean(&|seed| shares[seed].0),
            mean(&|seed| shares[seed].1),
            shares.iter().filter(|(by_return, by_advantage)| by_advantage >= by_return).count(),
            mean(&|seed| spread[seed].0),
            mean(&|seed| spread[seed].1),
        ),
        command: "polo reproduce trajectory-weighting".into(),
        seconds: clock.elapsed().as_secs_f64(),
    })
}
