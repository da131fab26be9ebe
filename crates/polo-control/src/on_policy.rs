//! The loop of methods that learn from what their newest policy just did: roll out, estimate advantages, learn, forget.
//!
//! Copies of the environment act side by side; copy i is reset with seed s + i, and an episode that ends begins anew in
//! the same step.

use std::path::Path;

use polo_nn::files::{Format, Tensors, read_safetensors, write_safetensors};
use polo_run::{Result, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, vector::VectorEnvironment};
use serde::{Deserialize, Serialize};

use crate::{
    gae::{Lived, advantages},
    normalise::Running,
    policy::Policy,
};

/// How an on-policy method lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Copies of the environment.
    pub copies: usize,
    /// Steps of each copy between two updates.
    pub steps: usize,
    /// Discount per step.
    pub gamma: f32,
    /// Of the advantage estimate.
    pub lambda: f32,
    /// Whether a truncated episode's last reward gets the discounted value of what was cut off.
    pub bootstrap_truncated: bool,
    /// Whether the learner sees observations with mean 0 and variance 1.
    pub normalise_observations: bool,
    /// Whether rewards are divided by the standard deviation of their running discounted sum.
    pub normalise_rewards: bool,
}

/// What a learner says to observations.
#[derive(Clone, Debug, Default)]
pub struct Acted {
    /// What each copy is to do.
    pub actions: Vec<Action>,
    /// The same as numbers, before anything was cut: `[copies, action]`, choices as `[copies, 1]`.
    pub numbers: Vec<f32>,
    /// Log-prob of each, nats.
    pub logps: Vec<f32>,
    /// V of each observation.
    pub values: Vec<f32>,
}

/// A rollout, time-major: row t · copies + copy.
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// `[rows, observation]`, as the learner saw them.
    pub observations: Vec<f32>,
    /// `[rows, action]`: [`Acted::numbers`].
    pub actions: Vec<f32>,
    /// Log-probs of the actions when they were taken.
    pub logps: Vec<f32>,
    /// V of the observations when they were seen.
    pub values: Vec<f32>,
    /// Advantages by GAE.
    pub advantages: Vec<f32>,
}

/// What an on-policy method does.
pub trait Learner: Send {
    /// How it lives.
    fn plan(&self) -> Plan;

    /// Acts on observations, `[copies, observation]`; `step` counts calls.
    fn act(&self, observations: &[f32], step: u64, seeds: &Seeds) -> Acted;

    /// V of observations.
    fn values(&self, observations: &[f32]) -> Vec<f32>;

    /// Learns from a rollout, number `iteration` of `iterations`.
    fn update(&mut self, rollout: &Rollout, iteration: u64, iterations: u64, seeds: &Seeds) -> Metrics;

    /// The policy as it stands, which sees observations through `normaliser`.
    fn policy(&self, environment: &str, normaliser: Option<Running>) -> Policy;

    /// Everything that a checkpoint must hold.
    fn save(&self, tensors: &mut Tensors);

    /// Takes up what [`Learner::save`] wrote.
    ///
    /// # Errors
    /// Tensors of another learner.
    fn load(&mut self, tensors: &mut Tensors) -> Result<()>;
}

/// A learner in its world.
pub struct Trainer {
    learner: Box<dyn Learner>,
    copies: VectorEnvironment,
    seeds: Seeds,
    total: u64,
    state: State,
    ended: Vec<(f64, u64)>,
}

/// What goes on, beside networks and environments.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    done: u64,
    iterations: u64,
    /// As the environments showed them, `[copies, observation]`.
    observations: Vec<f32>,
    returns: Vec<f64>,
    lengths: Vec<u64>,
    /// Running discounted sums of rewards.
    discounted: Vec<f64>,
    observed: Running,
    rewarded: Running,
}

impl Trainer {
    /// A trainer before its first step; `copies` are as many as the learner plans for, beginning anew in the same step.
    ///
    /// # Errors
    /// Those of the environments.
    pub fn new(
        learner: Box<dyn Learner>,
        mut copies: VectorEnvironment,
        seed: u64,
        total: u64,
    ) -> Result<Self> {
        let observations = copies.reset(Some(seed))?;
        let count = copies.copies();
        let mut observed = Running::new(observations.len() / count);
        if learner.plan().normalise_observations {
            observed.update(&observations);
        }
        let state = State {
            done: 0,
            iterations: 0,
            observations,
            returns: vec![0.0; count],
            lengths: vec![0; count],
            discounted: vec![0.0; count],
            observed,
            rewarded: Running::new(1),
        };
        Ok(Self { learner, copies, seeds: Seeds::new(seed), total, state, ended: Vec::new() })
    }

    /// Steps done, of all copies together.
    pub fn done(&self) -> u64 {
        self.state.done
    }

    /// Returns and lengths of the episodes that ended in the last rollout.
    pub fn ended(&self) -> &[(f64, u64)] {
        &self.ended
    }

    /// The policy as it stands.
    pub fn policy(&self, environment: &str) -> Policy {
        let normaliser = self.learner.plan().normalise_observations.then(|| self.state.observed.clone());
        self.learner.policy(environment, normaliser)
    }

    /// Rolls out and learns once. Says what was learnt, and mean return and length of the episodes that ended.
    ///
    /// # Errors
    /// Those of the environments.
    pub fn iterate(&mut self) -> Result<Metrics> {
        let plan = self.learner.plan();
        let (mut rollout, mut ended, mut rewards) = (Rollout::default(), Vec::new(), Vec::new());
        self.ended.clear();
        for step in 0..plan.steps {
            let seen = self.seen(&self.state.observations);
            let number = self.state.iterations * plan.steps as u64 + step as u64;
            let acted = self.learner.act(&seen, number, &self.seeds);
            let taken = self.copies.step(&acted.actions)?;
            for copy in 0..plan.copies {
                let state = &mut self.state;
                state.returns[copy] += taken.rewards[copy];
                state.lengths[copy] += 1;
                state.discounted[copy] = state.discounted[copy] * f64::from(plan.gamma) + taken.rewards[copy];
                let over = taken.terminated[copy] || taken.truncated[copy];
                ended.push(over);
                if over {
                    let (total, length) = (&mut state.returns[copy], &mut state.lengths[copy]);
                    self.ended.push((std::mem::take(total), std::mem::take(length)));
                }
            }
            self.state.observations = taken.observations;
            if plan.normalise_observations {
                self.state.observed.update(&self.state.observations);
            }
            if plan.normalise_rewards {
                let sums: Vec<f32> = self.state.discounted.iter().map(|&sum| sum as f32).collect();
                self.state.rewarded.update(&sums);
            }
            for (copy, raw_reward) in taken.rewards.into_iter().enumerate() {
                let mut reward = raw_reward as f32;
                if plan.normalise_rewards {
                    reward = self.state.rewarded.scale(reward);
                }
                let cut_off = plan.bootstrap_truncated && taken.truncated[copy] && !taken.terminated[copy];
                if let (Some(last), true) = (&taken.final_observations[copy], cut_off) {
                    reward += plan.gamma * self.learner.values(&self.seen(last))[0];
                }
                if ended[step * plan.copies + copy] {
                    self.state.discounted[copy] = 0.0;
                }
                rewards.push(reward);
            }
            rollout.observations.extend(seen);
            rollout.actions.extend(acted.numbers);
            rollout.logps.extend(acted.logps);
            rollout.values.extend(acted.values);
        }
        let last_values = self.learner.values(&self.seen(&self.state.observations));
        let lived =
            Lived { rewards: &rewards, values: &rollout.values, ended: &ended, last_values: &last_values };
        rollout.advantages = advantages(lived, plan.gamma, plan.lambda);
        let per_iteration = (plan.copies * plan.steps) as u64;
        let iterations = self.total.div_ceil(per_iteration);
        let mut metrics = self.learner.update(&rollout, self.state.iterations, iterations, &self.seeds);
        self.state.iterations += 1;
        self.state.done += per_iteration;
        if !self.ended.is_empty() {
            let n = self.ended.len() as f64;
            let total = self.ended.iter().map(|(total, _)| total).sum::<f64>();
            let length = self.ended.iter().map(|(_, length)| *length as f64).sum::<f64>();
            metrics.set("charts/episodic_return", total / n);
            metrics.set("charts/episodic_length", length / n);
        }
        Ok(metrics)
    }

    /// Observations as the learner sees them.
    fn seen(&self, observations: &[f32]) -> Vec<f32> {
        let mut seen = observations.to_vec();
        if self.learner.plan().normalise_observations {
            self.state.observed.normalise(&mut seen);
        }
        seen
    }

    /// Writes everything into an existing folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut tensors = Tensors::new();
        self.learner.save(&mut tensors);
        write_safetensors(&folder.join("learner.safetensors"), &tensors, Format::F32)?;
        let world = serde_json::json!({"state": self.state, "environment": self.copies.save()});
        crate::train::write_json(&folder.join("world.json"), &world)
    }

    /// Takes up what [`Trainer::save`] wrote.
    ///
    /// # Errors
    /// Files that are missing, torn or of another run.
    pub fn load(&mut self, folder: &Path) -> Result<()> {
        self.learner.load(&mut read_safetensors(&folder.join("learner.safetensors"))?)?;
        let (state, environments) = crate::train::read_world(&folder.join("world.json"))?;
        self.state = state;
        self.copies.restore(&environments)
    }
}
