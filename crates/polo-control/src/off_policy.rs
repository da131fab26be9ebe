//! The loop of methods that learn from a replay buffer: act, remember, learn.

use std::path::Path;

use polo_nn::files::{Format, Tensors, read_safetensors, write_safetensors};
use polo_run::{
    Problem, Result,
    metrics::Metrics,
    seed::{Seeds, below},
};
use polo_sim::{
    Action, Environment, NumpyRandom, Space,
    replay::{Batch, ReplayBuffer},
};
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// How often an off-policy method learns, and from how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Steps of random actions at the beginning, in which nothing is learnt.
    pub random_steps: u64,
    /// Learn every so many steps.
    pub every: u64,
    /// Updates each time.
    pub updates: u64,
    /// Transitions of an update.
    pub batch: usize,
    /// Transitions that are remembered.
    pub capacity: usize,
}

/// What an off-policy method does.
pub trait Learner: Send {
    /// When it learns.
    fn schedule(&self) -> Schedule;

    /// An action to try on seeing `observation`, in step `step` of `total`.
    fn explore(&self, observation: &[f32], step: u64, total: u64, seeds: &Seeds) -> Action;

    /// Learns from a batch; `update` counts updates from 0.
    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics;

    /// The policy as it stands.
    fn policy(&self, environment: &str) -> Policy;

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
    environment: Box<dyn Environment>,
    replay: ReplayBuffer,
    seeds: Seeds,
    total: u64,
    state: State,
}

/// What goes on, beside networks, memory and environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    done: u64,
    updates: u64,
    observation: Vec<f32>,
    episode_return: f64,
    episode_length: u64,
    /// Of random actions.
    random: NumpyRandom,
}

impl Trainer {
    /// A trainer before its first step.
    ///
    /// # Errors
    /// Those of the environment.
    pub fn new(
        learner: Box<dyn Learner>,
        mut environment: Box<dyn Environment>,
        seed: u64,
        total: u64,
    ) -> Result<Self> {
        let observation = environment.reset(Some(seed))?;
        let action = match environment.action_space() {
            Space::Box { low, .. } => low.len(),
            Space::Discrete(_) => 1,
        };
        let replay = ReplayBuffer::new(learner.schedule().capacity, observation.len(), action);
        let state = State {
            done: 0,
            updates: 0,
            observation,
            episode_return: 0.0,
            episode_length: 0,
            random: NumpyRandom::new(seed),
        };
        Ok(Self { learner, environment, replay, seeds: Seeds::new(seed), total, state })
    }

    /// Steps done.
    pub fn done(&self) -> u64 {
        self.state.done
    }

    /// The policy as it stands.
    pub fn policy(&self, environment: &str) -> Policy {
        self.learner.policy(environment)
    }

    /// Takes a step in the environment and learns if it is time. Says what was learnt, and the return and length of an
    /// episode that ended.
    ///
    /// # Errors
    /// Those of the environment.
    pub fn step(&mut self) -> Result<Metrics> {
        let schedule = self.learner.schedule();
        let state = &mut self.state;
        let action = match state.done < schedule.random_steps {
            true => self.environment.action_space().sample(&mut state.random),
            false => self.learner.explore(&state.observation, state.done, self.total, &self.seeds),
        };
        let step = self.environment.step(&action)?;
        self.environment.observation_space().check_observation(&step.observation)?;
        if !step.reward.is_finite() {
            return Err(Problem::input(format!("the environment's reward is {}", step.reward))
                .hint("mend its reward; nothing can be learnt from it"));
        }
        let stored = match &action {
            Action::Continuous(values) => values.clone(),
            Action::Discrete(choice) => vec![*choice as f32],
        };
        self.replay.add(&state.observation, &stored, step.reward as f32, &step.observation, step.terminated);
        state.done += 1;
        state.episode_return += step.reward;
        state.episode_length += 1;
        let mut metrics = Metrics::new();
        if step.terminated || step.truncated {
            metrics.set("charts/episodic_return", state.episode_return);
            metrics.set("charts/episodic_length", state.episode_length as f64);
            (state.episode_return, state.episode_length) = (0.0, 0);
            state.observation = self.environment.reset(None)?;
        } else {
            state.observation = step.observation;
        }
        if state.done >= schedule.random_steps.max(1) && state.done.is_multiple_of(schedule.every) {
            for _ in 0..schedule.updates {
                let mut rng = self.seeds.rng("replay/batch", state.updates);
                let places: Vec<usize> =
                    (0..schedule.batch).map(|_| below(&mut rng, self.replay.len() as u64) as usize).collect();
                metrics.merge(&self.learner.update(&self.replay.at(&places), state.updates, &self.seeds));
                state.updates += 1;
            }
        }
        Ok(metrics)
    }

    /// Writes everything into an existing folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut tensors = Tensors::new();
        self.learner.save(&mut tensors);
        write_safetensors(&folder.join("learner.safetensors"), &tensors, Format::F32)?;
        self.replay.save(&folder.join("replay.bin"))?;
        let world = serde_json::json!({"state": self.state, "environment": self.environment.save()});
        crate::train::write_json(&folder.join("world.json"), &world)
    }

    /// Takes up what [`Trainer::save`] wrote.
    ///
    /// # Errors
    /// Files that are missing, torn or of another run.
    pub fn load(&mut self, folder: &Path) -> Result<()> {
        self.learner.load(&mut read_safetensors(&folder.join("learner.safetensors"))?)?;
        self.replay.load(&folder.join("replay.bin"))?;
        let (state, environment) = crate::train::read_world(&folder.join("world.json"))?;
        self.state = state;
        self.environment.restore(&environment)
    }
}
