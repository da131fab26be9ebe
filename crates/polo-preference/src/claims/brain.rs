//! BRAIn's claims on tables: the self-normalised baseline removes variance, and with it the posterior is found.
//!
//! A policy over twenty answers to one prompt. First the variance of the gradient estimates at the solution itself, where
//! the gradient is zero: with BRAIn's baseline, without (DPG), and with plain importance weights (like GDC), for proposals
//! further and further from the policy. Then learning: the prior is drawn towards prior exp(r / gamma) / Z by answers of a
//! proposal that is refreshed now and then; judged by the divergence from that posterior, since hard labels reach the
//! reward but not the posterior.

use std::path::Path;

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
    seed::{Seeds, unit},
    stats,
};
use rayon::prelude::*;

use super::tabular::{Examples, expectation, kl, log_softmax, loss, optimum, pick, softmax};
use crate::methods::brain::{Baseline, Brain, Weights};

const ANSWERS: usize = 20;
/// Answers that one gradient estimate is made of.
const SAMPLES: usize = 8;
const GAMMA: f64 = 0.5;

// --- Variance --------------------------------------------------------------------------------------------------------

const SHIFTS: [f64; 4] = [0.0, 0.5, 1.0, 2.0];
const BASELINES: [(&str, Baseline); 3] = [
    ("BRAIn", Baseline::SelfNormalised),
    ("no baseline (DPG)", Baseline::None),
    ("plain weights (like GDC)", Baseline::Plain),
];

/// Independent normal draws as logits.
fn normal(seeds: &Seeds, stream: &str) -> Vec<f64> {
    seeds.normal(ANSWERS, stream, 0).into_iter().map(f64::from).collect()
}

/// The variance of the gradient estimate with respect to the logits, summed over them, where policy, prior and posterior
/// are one, for a proposal whose logits are off by `shift` times N(0, 1).
fn variance(draw: u64, baseline: Baseline, shift: f64, repeats: usize) -> f64 {
    let seeds = Seeds::new(draw).child("brain variance");
    let prior = log_softmax(&normal(&seeds, "prior"), ANSWERS);
    let shifted: Vec<f64> = prior.iter().zip(normal(&seeds, "shift")).map(|(p, z)| p + shift * z).collect();
    let proposal = log_softmax(&shifted, ANSWERS);
    let probabilities = softmax(&proposal, ANSWERS);
    let mut rng = seeds.rng("answers", 0);
    // A row of the table for each repeat, so that its gradient is this repeat's estimate.
    let mut examples = Examples::new(SAMPLES);
    for repeat in 0..repeats {
        let drawn = [(); SAMPLES].map(|()| pick(&probabilities, unit(&mut rng)));
        examples.push_list(
            &drawn.map(|y| repeat * ANSWERS + y),
            &[0.0; SAMPLES],
            &drawn.map(|y| proposal[y]),
        );
    }
    let objective = Brain { baseline, ..Brain::default() };
    let table = prior.repeat(repeats);
    let (_, estimates) = loss(&objective, &examples, &table, ANSWERS, &table);
    let of_logit = |logit: usize| {
        let values: Vec<f64> = estimates.iter().skip(logit).step_by(ANSWERS).copied().collect();
        stats::sample_std(&values).unwrap_or(f64::NAN).powi(2)
    };
    (0..ANSWERS).map(of_logit).sum()
}

// --- Learning --------------------------------------------------------------------------------------------------------

/// How a policy is learnt.
#[derive(Clone, Copy, Debug)]
struct Learner {
    name: &'static str,
    samples: usize,
    baseline: Baseline,
    weights: Weights,
    /// Whether the proposal follows the policy.
    refreshed: bool,
}

const LEARNERS: [Learner; 6] = [
    Learner {
        name: "BRAIn",
        samples: SAMPLES,
        baseline: Baseline::SelfNormalised,
        weights: Weights::Softmax,
        refreshed: true,
    },
    Learner {
        name: "no baseline (DPG)",
        samples: SAMPLES,
        baseline: Baseline::None,
        weights: Weights::Softmax,
        refreshed: true,
    },
    Learner {
        name: "BRAIn, answers of the prior alone",
        samples: SAMPLES,
        baseline: Baseline::SelfNormalised,
        weights: Weights::Softmax,
        refreshed: false,
    },
    Learner {
        name: "BRAIn, 4 answers",
        samples: 4,
        baseline: Baseline::SelfNormalised,
        weights: Weights::Softmax,
        refreshed: true,
    },
    Learner {
        name: "BRAIn, 2 answers",
        samples: 2,
        baseline: Baseline::SelfNormalised,
        weights: Weights::Softmax,
        refreshed: true,
    },
    Learner {
        name: "hard labels of 2 answers of the prior (DPO-sft)",
        samples: 2,
        baseline: Baseline::SelfNormalised,
        weights: Weights::Argmax,
        refreshed: false,
    },
];

const RATE: f64 = 0.3;
/// Steps between refreshes of the proposal.
const REFRESH: usize = 50;

/// How near a policy is to the posterior.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// KL(posterior || policy), nats.
    divergence: f64,
    /// Mean reward.
    reward: f64,
}

/// Learns in all draws in lockstep; returns prior, posterior and the learnt policy of each.
fn learn(learner: &Learner, draws: u64, steps: usize) -> Vec<[Found; 3]> {
    let seeds: Vec<Seeds> = (0..draws).map(|draw| Seeds::new(draw).child("brain learning")).collect();
    let prior: Vec<f64> =
        seeds.iter().flat_map(|seeds| log_softmax(&normal(seeds, "prior"), ANSWERS)).collect();
    let rewards: Vec<Vec<f64>> = seeds.iter().map(|seeds| normal(seeds, "rewards")).collect();
    let objective =
        Brain { gamma: GAMMA, baseline: learner.baseline, weights: learner.weights, ..Brain::default() };
    let (mut logits, mut proposal) = (prior.clone(), prior.clone());
    let mut rngs: Vec<_> = seeds.iter().map(|seeds| seeds.rng("answers", 0)).collect();
    for step in 0..steps {
        if learner.refreshed && step % REFRESH == 0 {
            proposal = log_softmax(&logits, ANSWERS);
        }
        let mut examples = Examples::new(learner.samples);
        let probabilities: Vec<f64> = proposal.iter().map(|log| log.exp()).collect();
        for (row, rng) in rngs.iter_mut().enumerate() {
            let probabilities = &probabilities[row * ANSWERS..][..ANSWERS];
            let drawn: Vec<usize> = (0..learner.samples).map(|_| pick(probabilities, unit(rng))).collect();
            let cells: Vec<usize> = drawn.iter().map(|y| row * ANSWERS + y).collect();
            let quality: Vec<f64> = drawn.iter().map(|&y| rewards[row][y]).collect();
            let logs: Vec<f64> = cells.iter().map(|&cell| proposal[cell]).collect();
            examples.push_list(&cells, &quality, &logs);
        }
        let (_, gradient) = loss(&objective, &examples, &prior, ANSWERS, &logits);
        logits.iter_mut().zip(gradient).for_each(|(x, g)| *x -= RATE * g);
    }
    let (prior, learnt) = (softmax(&prior, ANSWERS), softmax(&logits, ANSWERS));
    let rows = prior.chunks_exact(ANSWERS).zip(learnt.chunks_exact(ANSWERS)).zip(&rewards);
    rows.map(|((prior, learnt), rewards)| {
        let posterior = optimum(prior, rewards, GAMMA);
        [prior, &posterior, learnt]
            .map(|policy| Found { divergence: kl(&posterior, policy), reward: expectation(policy, rewards) })
    })
    .collect()
}

// --- The claim -------------------------------------------------------------------------------------------------------

/// Draws of both problems for each seed that is asked for: tables are cheap.
const DRAWS_PER_SEED: u64 = 8;

/// Re-tests the claim on [`DRAWS_PER_SEED`] problems for each seed.
///
/// # Errors
/// None; the signature is that of all claims.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let (per_seed, repeats, steps) = if quick { (2, 100, 100) } else { (DRAWS_PER_SEED, 3000, 1500) };
    let draws = seeds * per_seed;
    say(&format!("variance: {draws} draws of prior and proposal, {repeats} estimates each"));
    // [baseline][shift][draw]
    let variances = BASELINES.map(|(_, baseline)| {
        SHIFTS.map(|shift| -> Vec<f64> {
            (0..draws).into_par_iter().map(|draw| variance(draw, baseline, shift, repeats)).collect()
        })
    });
    say(&format!("learning: {draws} draws of prior and rewards, {steps} steps each"));
    let found: Vec<Vec<[Found; 3]>> =
        LEARNERS.par_iter().map(|learner| learn(learner, draws, steps)).collect();

    let estimate = |value: &dyn Fn(usize) -> f64| {
        stats::t_interval(&(0..draws as usize).map(value).collect::<Vec<_>>(), "draws")
    };
    let effect = |name: &str, value: &dyn Fn(usize) -> f64, expected| Effect {
        name: name.into(),
        estimate: estimate(value),
        expected,
    };
    let [own, none, plain] = &variances;
    let mut effects = vec![effect(
        "largest variance of BRAIn's gradient at its solution, over all proposals",
        &|draw| own.iter().map(|by_shift| by_shift[draw]).fold(0.0, f64::max),
        Expected::Below(1e-6),
    )];
    for (at, shift) in SHIFTS.iter().enumerate().filter(|(_, shift)| **shift <= 1.0) {
        effects.push(effect(
            &format!("proposal off by {shift}: variance without baseline less that with plain weights"),
            &|draw| none[at][draw] - plain[at][draw],
            Expected::Above(0.0),
        ));
    }
    for (at, shift) in SHIFTS.iter().enumerate().filter(|(_, shift)| (0.5..=1.0).contains(*shift)) {
        effects.push(effect(
            &format!("proposal off by {shift}: variance with plain weights less BRAIn's"),
            &|draw| plain[at][draw] - own[at][draw],
            Expected::Above(0.0),
        ));
    }
    let divergence = |learner: usize, draw: usize| found[learner][draw][2].divergence;
    let reward = |learner: usize, draw: usize| found[learner][draw][2].reward;
    effects.extend([
        effect(
            "KL(posterior || policy), BRAIn less no baseline, nats",
            &|draw| divergence(0, draw) - divergence(1, draw),
            Expected::Below(0.0),
        ),
        effect(
            "the same, BRAIn less hard labels",
            &|draw| divergence(0, draw) - divergence(5, draw),
            Expected::Below(0.0),
        ),
        effect(
            "the same, 8 answers less 2",
            &|draw| divergence(0, draw) - divergence(4, draw),
            Expected::Below(0.0),
        ),
        effect(
            "mean reward, BRAIn less no baseline",
            &|draw| reward(0, draw) - reward(1, draw),
            Expected::Between(-0.05, 0.05),
        ),
    ]);

    let mut rows = Vec::new();
    for ((name, _), by_shift) in BASELINES.iter().zip(&variances) {
        for (shift, values) in SHIFTS.iter().zip(by_shift) {
            let mean = stats::t_interval(values, "draws").to_string();
            rows.push(vec!["variance".into(), format!("{name}, proposal off by {shift}"), mean, "-".into()]);
        }
    }
    let row = |name: &str, of: &dyn Fn(usize) -> Found| {
        let (divergence, reward) = (estimate(&|draw| of(draw).divergence), estimate(&|draw| of(draw).reward));
        vec!["learning".into(), name.into(), divergence.to_string(), format!("{:.3}", reward.mean)]
    };
    for (name, at) in [("the prior", 0), ("the posterior", 1)] {
        rows.push(row(name, &|draw| found[0][draw][at]));
    }
    for (learner, found) in LEARNERS.iter().zip(&found) {
        rows.push(row(learner.name, &|draw| found[draw][2]));
    }
    Ok(ClaimResult {
        slug: "brain".into(),
        claim: "The self-normalised baseline takes all variance from the gradient at the solution, whatever the \
                proposal, and most of it is needed: without it the posterior is found less exactly."
            .into(),
        setup: format!(
            "One prompt, {ANSWERS} answers, a policy of one softmax whose prior has logits N(0, 1).\n\nVariance: rewards are \
             zero, so that prior, posterior and policy are one; the proposal's logits are off by a factor times N(0, 1); the \
             variance over {repeats} estimates from {SAMPLES} answers each, summed over the logits.\n\nLearning: rewards \
             N(0, 1), gamma {GAMMA}, {steps} steps of stochastic gradient descent at rate {RATE} on {SAMPLES} answers, the \
             proposal refreshed every {REFRESH} steps. {draws} draws ({per_seed} for each of --seeds), the same for all; \
             nothing was tuned."
        ),
        table: Table {
            headers: ["part", "estimate", "variance, or KL(posterior || policy) in nats", "mean reward"]
                .map(String::from)
                .to_vec(),
            rows,
        },
        effects,
        plots: Vec::new(),
        remarks: "Where the proposal is far off, plain weights have a heavy tail: their variance at 2 is decided by a few \
                  draws."
            .into(),
        command: "polo reproduce brain".into(),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variances_are_ordered_and_the_own_one_is_zero() {
        for draw in 0..4 {
            for (at, shift) in SHIFTS.into_iter().enumerate() {
                let [own, none, plain] = BASELINES.map(|(_, baseline)| variance(draw, baseline, shift, 1000));
                assert!(own < 1e-24, "{own}");
                assert!((0.05..1.0).contains(&none), "{none}");
                match at {
                    0 => assert!(plain < 1e-24, "{plain}"),
                    1 | 2 => assert!(plain > 1e-4 && plain < none, "{plain} {none}"),
                    _ => assert!(plain > 1e-2, "{plain}"),
                }
            }
        }
    }

    #[test]
    fn the_posterior_is_approached() {
        for [prior, posterior, learnt] in learn(&LEARNERS[0], 3, 200) {
            assert!(posterior.divergence.abs() < 1e-12);
            assert!(learnt.divergence < 0.3 * prior.divergence, "{learnt:?} {prior:?}");
            assert!(learnt.reward > prior.reward);
        }
    }
}
