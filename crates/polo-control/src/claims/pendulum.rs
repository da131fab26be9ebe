//! The suite that claims of offline methods share: data of stated behaviour in `polo/PendulumOffline-v0`, small networks,
//! and scores between random behaviour (0) and an analytic expert (100).

use polo_run::{Problem, Result, seed::Seeds};
use polo_sim::{
    classic::pendulum_offline::{Behaviour, ID, dataset},
    dataset::Dataset,
    make, scores,
};

use crate::{
    data::{Data, Prepared},
    methods::{Control, Learner},
    off_policy::{Prior, Trainer},
    policy::Policy,
};

/// Widths of all hidden layers.
pub const HIDDEN: [usize; 2] = [64, 64];
/// Step size of all optimisers.
pub const RATE: f64 = 1e-3;
/// Discount.
pub const GAMMA: f64 = 0.98;

/// Evaluation episodes begin with seeds from here on.
const EVALUATION_SEED: u64 = 1 << 40;

/// Episodes of one behaviour after another, made anew for each seed.
///
/// # Errors
/// Those of the environment.
pub fn mixture(parts: &[(Behaviour, u64)], seed: u64) -> Result<Dataset> {
    let mut all: Option<Dataset> = None;
    for (place, &(behaviour, episodes)) in parts.iter().enumerate() {
        let part = dataset(behaviour, episodes, 1000 * seed + place as u64)?;
        match &mut all {
            None => all = Some(part),
            Some(all) => all.append(part)?,
        }
    }
    all.ok_or_else(|| Problem::usage("a mixture of nothing"))
}

/// Settings of data with rewards times 0.1 and this sampling.
pub fn settings(sampling: crate::methods::trajectory_weighting::Sampling) -> Data {
    Data { sampling, reward_scale: 0.1, ..Data::default() }
}

/// The policy that a method learns from data alone in so many updates.
///
/// # Errors
/// Data that the method is not made for.
pub fn learn(
    method: &dyn Control,
    data: Dataset,
    settings: &Data,
    updates: u64,
    seed: u64,
) -> Result<Policy> {
    let about = data.about.clone();
    let data = Prepared::new(data, settings, method.wishes())?;
    let prior = Prior { data, steps: updates, share: 0.0 };
    let seeds = Seeds::new(seed).child("networks");
    let Learner::OffPolicy(learner) = method.learner(&about.observations, &about.actions, &seeds)? else {
        return Err(Problem::usage("the method does not learn from data"));
    };
    let mut trainer = Trainer::new(learner, None, Some(prior), seed, updates)?;
    for _ in 0..updates {
        trainer.step()?;
    }
    Ok(trainer.policy(&about.environment))
}

/// Mean normalised score of a policy over episodes.
///
/// # Errors
/// Those of the environment.
pub fn score(policy: &Policy, episodes: usize) -> Result<f64> {
    let earned = policy.evaluate(&mut *make(ID)?, EVALUATION_SEED, episodes)?.mean;
    scores::normalised(ID, earned).ok_or_else(|| Problem::usage("the environment has no reference returns"))
}
