//! The loop of methods that learn from transitions, whoever made them: first from logged data alone, if there is any,
//! then act, remember, learn, from the replay buffer and the data side by side.

use std::path::Path;

use polo_nn::files::{Format, Tensors, read_safetensors, write_safetensors};
use polo_run::{
    Problem, Result, human,
    metrics::Metrics,
    seed::{Seeds, below},
};
use polo_sim::{
    Action, Environment, NumpyRandom,
    dataset::width,
    replay::{Batch, ReplayBuffer},
};
use serde::{Deserialize, Serialize};

use crate::{data::Prepared, normalise::Running, policy::Policy};

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

    /// Told before the first update how many there will be.
    fn plan(&mut self, _updates: u64) {}

    /// An action to try on seeing `observation`, in step `step` of `total`.
    fn explore(&self, observation: &[f32], step: u64, total: u64, seeds: &Seeds) -> Action;

    /// Learns from a batch; `update` counts updates from 0.
    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics;

    /// The policy as it stands, on observations as the learner sees them.
    fn policy(&self, environment: &str) -> Policy;

    /// Everything that a checkpoint must hold.
    fn save(&self, tensors: &mut Tensors);

    /// Takes up what [`Learner::save`] wrote.
    ///
    /// # Errors
    /// Tensors of another learner.
    fn load(&mut self, tensors: &mut Tensors) -> Result<()>;
}

/// What was logged before, and how much is made of it.
#[derive(Clone, Debug)]
pub struct Prior {
    /// The data.
    pub data: Prepared,
    /// Updates on the data alone, at the beginning.
    pub steps: u64,
    /// Share of logged transitions in a batch after them.
    pub share: f64,
}

/// A learner in its world.
pub struct Trainer {
    learner: Box<dyn Learner>,
    /// None where all is learnt from data.
    environment: Option<Box<dyn Environment>>,
    prior: Option<Prior>,
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
    /// As the environment showed it.
    observation: Vec<f32>,
    episode_return: f64,
    episode_length: u64,
    /// Of random actions.
    random: NumpyRandom,
}

impl Trainer {
    /// A trainer before its first step. The environment may be missing if all `total` steps are those of the data.
    ///
    /// # Errors
    /// Those of the environment; none where one is needed.
    pub fn new(
        mut learner: Box<dyn Learner>,
        mut environment: Option<Box<dyn Environment>>,
        prior: Option<Prior>,
        seed: u64,
        total: u64,
    ) -> Result<Self> {
        let offline = prior.as_ref().map_or(0, |prior| prior.steps.min(total));
        let schedule = learner.schedule();
        learner.plan(offline + (total - offline) / schedule.every * schedule.updates);
        let (mut observation, mut action) = (Vec::new(), 1);
        if let Some(environment) = &mut environment {
            observation = environment.reset(Some(seed))?;
            action = width(environment.action_space());
        } else if offline < total {
            return Err(Problem::usage("steps are to be taken in an environment, and none is given")
                .place("environment.id")
                .hint("--env ID, or leave data.offline_steps unset"));
        }
        let replay = ReplayBuffer::new(schedule.capacity, observation.len(), action);
        let state = State {
            done: 0,
            updates: 0,
            observation,
            episode_return: 0.0,
            episode_length: 0,
            random: NumpyRandom::new(seed),
        };
        Ok(Self { learner, environment, prior, replay, seeds: Seeds::new(seed), total, state })
    }

    /// What is learnt from, for people.
    pub fn regime(&self) -> String {
        let Some(Prior { data, steps, share }) = &self.prior else {
            return "off-policy: a replay buffer".into();
        };
        let (transitions, episodes) = (data.data().len() as u64, data.data().episodes().len() as u64);
        let logged =
            format!("{} transitions of {} episodes", human::count(transitions), human::count(episodes));
        match *steps {
            0 => format!("off-policy: a replay buffer, and {logged} as {:.0} % of each batch", 100.0 * share),
            steps if steps >= self.total => format!("offline: {logged}"),
            steps => format!(
                "offline, then online: {} updates on {logged}, then these as {:.0} % of each batch",
                human::count(steps),
                100.0 * share
            ),
        }
    }

    /// Steps done.
    pub fn done(&self) -> u64 {
        self.state.done
    }

    /// The policy as it stands, on observations as the environment shows them.
    pub fn policy(&self, environment: &str) -> Policy {
        let mut policy = self.learner.policy(environment);
        if let Some(normaliser) = self.normaliser() {
            policy.normaliser = Some(normaliser.clone());
        }
        policy
    }

    fn normaliser(&self) -> Option<&Running> {
        self.prior.as_ref().and_then(|prior| prior.data.normaliser.as_ref())
    }

    /// An observation as the learner sees it.
    fn seen(&self, observation: &[f32]) -> Vec<f32> {
        let mut seen = observation.to_vec();
        if let Some(normaliser) = self.normaliser() {
            normaliser.normalise(&mut seen);
        }
        seen
    }

    /// Learns from the data alone, or takes a step in the environment and learns if it is time. Says what was learnt,
    /// and the return and length of an episode that ended.
    ///
    /// # Errors
    /// Those of the environment.
    pub fn step(&mut self) -> Result<Metrics> {
        match &self.prior {
            Some(prior) if self.state.done < prior.steps => {
                let mut rng = self.seeds.rng("data/batch", self.state.updates);
                let batch = prior.data.draw(self.learner.schedule().batch, &mut rng);
                self.state.done += 1;
                Ok(self.learn(&batch))
            }
            _ => self.live(),
        }
    }

    fn learn(&mut self, batch: &Batch) -> Metrics {
        let found = self.learner.update(batch, self.state.updates, &self.seeds);
        self.state.updates += 1;
        found
    }

    fn live(&mut self) -> Result<Metrics> {
        let schedule = self.learner.schedule();
        let offline = self.prior.as_ref().map_or(0, |prior| prior.steps);
        // What has learnt from data already needs no random beginning.
        let random_steps = if offline > 0 { 0 } else { schedule.random_steps };
        let lived = self.state.done - offline;
        let seen = self.seen(&self.state.observation);
        let Some(environment) = &mut self.environment else { return Ok(Metrics::new()) };
        let state = &mut self.state;
        let action = match lived < random_steps {
            true => environment.action_space().sample(&mut state.random),
            false => self.learner.explore(&seen, state.done, self.total, &self.seeds),
        };
        let step = environment.step(&action)?;
        step.check(environment.observation_space())?;
        let stored = match &action {
            Action::Continuous(values) => values.clone(),
            Action::Discrete(choice) => vec![*choice as f32],
        };
        state.done += 1;
        state.episode_return += step.reward;
        state.episode_length += 1;
        let mut metrics = Metrics::new();
        state.observation.clone_from(&step.observation);
        if step.terminated || step.truncated {
            metrics.set("charts/episodic_return", state.episode_return);
            metrics.set("charts/episodic_length", state.episode_length as f64);
            (state.episode_return, state.episode_length) = (0.0, 0);
            state.observation = environment.reset(None)?;
        }
        let reward = match &self.prior {
            Some(prior) => prior.data.reward(step.reward),
            None => step.reward as f32,
        };
        let next = self.seen(&step.observation);
        self.replay.add(&seen, &stored, reward, &next, step.terminated);
        let lived = lived + 1;
        if lived >= random_steps.max(1) && lived.is_multiple_of(schedule.every) {
            for _ in 0..schedule.updates {
                let batch = self.mixed(schedule.batch);
                metrics.merge(&self.learn(&batch));
            }
        }
        Ok(metrics)
    }

    /// A batch of which the agreed share comes from the data. What was lived through has no return to go, so that the
    /// batch has none.
    fn mixed(&self, rows: usize) -> Batch {
        let updates = self.state.updates;
        let mut logged = Batch::default();
        if let Some(Prior { data, share, .. }) = &self.prior {
            let count = (rows as f64 * share).round() as usize;
            logged = data.draw(count, &mut self.seeds.rng("data/batch", updates));
        }
        let mut rng = self.seeds.rng("replay/batch", updates);
        let places: Vec<usize> =
            (logged.len()..rows).map(|_| below(&mut rng, self.replay.len() as u64) as usize).collect();
        logged.append(&self.replay.at(&places));
        logged
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
        let world = serde_json::json!({"state": self.state, "environment": self.environment.as_ref().map(|world| world.save())});
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
        match &mut self.environment {
            Some(world) => world.restore(&environment),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use polo_sim::{
        Space,
        classic::pendulum_offline::{Behaviour, ID, dataset},
        make,
    };

    use super::*;
    use crate::{
        data::{Data, Wishes},
        deterministic::shape,
        methods::policy_of,
        network::Network,
        policy::Head,
    };

    #[derive(Default)]
    struct Heard {
        planned: u64,
        seen: Vec<Vec<f32>>,
        batches: Vec<Batch>,
    }

    /// Learns nothing, and tells what it was given.
    struct Listener(Arc<Mutex<Heard>>);

    impl Learner for Listener {
        fn schedule(&self) -> Schedule {
            Schedule { random_steps: 50, every: 2, updates: 3, batch: 8, capacity: 1000 }
        }

        fn plan(&mut self, updates: u64) {
            self.0.lock().unwrap().planned = updates;
        }

        fn explore(&self, observation: &[f32], _step: u64, _total: u64, _seeds: &Seeds) -> Action {
            self.0.lock().unwrap().seen.push(observation.to_vec());
            Action::Continuous(vec![1.0])
        }

        fn update(&mut self, batch: &Batch, _update: u64, _seeds: &Seeds) -> Metrics {
            self.0.lock().unwrap().batches.push(batch.clone());
            Metrics::new()
        }

        fn policy(&self, environment: &str) -> Policy {
            let network = Network::new(shape(&[2], 3, 1, 1), "policy", &Seeds::new(0));
            policy_of(environment, &Space::symmetric(&[2.0]), Head::Squashed, &network, None)
        }

        fn save(&self, _tensors: &mut Tensors) {}

        fn load(&mut self, _tensors: &mut Tensors) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn data_first_then_both_all_as_the_learner_sees_it() {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let settings = Data { reward_scale: 0.5, reward_shift: 100.0, ..Data::default() };
        let wishes = Wishes { normalise: true, returns_to_go: Some(0.9), sparse: false };
        let logged = dataset(Behaviour::Random, 2, 3).unwrap();
        let data = Prepared::new(logged, &settings, wishes).unwrap();
        let normaliser = data.normaliser.clone().unwrap();
        let prior = Prior { data, steps: 5, share: 0.25 };
        let learner = Box::new(Listener(Arc::clone(&heard)));
        let mut trainer = Trainer::new(learner, Some(make(ID).unwrap()), Some(prior), 1, 9).unwrap();
        let shown = trainer.state.observation.clone();
        for _ in 0..9 {
            trainer.step().unwrap();
        }
        let heard = heard.lock().unwrap();
        // 5 updates on data, then 4 steps with 3 updates after every second.
        assert_eq!((heard.planned, heard.batches.len(), heard.seen.len()), (11, 11, 4));
        let mut seen = shown;
        normaliser.normalise(&mut seen);
        assert_eq!(heard.seen[0], seen);
        assert!(heard.batches[..5].iter().all(|batch| batch.len() == 8 && batch.returns_to_go.len() == 8));
        for batch in &heard.batches[5..] {
            assert_eq!((batch.len(), batch.returns_to_go.len()), (8, 0));
            // Rewards are at most 0 before the shift; the rows after the data's are those that were lived through.
            assert!(
                batch.rewards.iter().all(|&reward| (91.0..=100.0).contains(&reward)),
                "{:?}",
                batch.rewards
            );
            let lived = batch.observations[3 * 2..].chunks_exact(3);
            assert!(lived.clone().all(|row| heard.seen.iter().any(|seen| seen == row)));
            assert_eq!(batch.actions[2..], [1.0; 6]);
        }
        assert_eq!(trainer.policy(ID).normaliser, Some(normaliser));
    }
}
