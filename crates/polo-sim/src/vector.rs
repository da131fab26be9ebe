//! Several copies of an environment, stepped together.
//!
//! Copy `i` is reset with seed `s + i` and has its own generator, as in Gymnasium and Stable-Baselines3. A copy whose
//! episode is over begins the next one by itself; [`Autoreset`] says when. Results never depend on whether threads are
//! used.

use polo_run::{Problem, Result};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::{
    environment::{Environment, Step, bad_state, make, no_episode},
    space::{Action, Space},
};

/// When a copy whose episode is over begins the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Autoreset {
    /// In the step that ends the episode: the observation is the first of the next episode, and the last one of the old
    /// stands in [`VectorStep::final_observations`] (Gymnasium 0.29, CleanRL).
    #[default]
    SameStep,
    /// In the step after it, which ignores its action and earns nothing: no transition, and marked so in
    /// [`VectorStep::began`] (the default of Gymnasium 1).
    NextStep,
}

/// What follows the actions of all copies. Observations are rows of one `[copies, observation size]` array.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorStep {
    /// What to act on next.
    pub observations: Vec<f32>,
    /// What each action earned.
    pub rewards: Vec<f64>,
    /// Whose task is over.
    pub terminated: Vec<bool>,
    /// Whose episode was cut.
    pub truncated: Vec<bool>,
    /// Under [`Autoreset::SameStep`], the last observation of each episode that is over.
    pub final_observations: Vec<Option<Vec<f32>>>,
    /// Under [`Autoreset::NextStep`], the copies that only began an episode in this step.
    pub began: Vec<bool>,
}

/// Copies of one environment.
pub struct VectorEnvironment {
    copies: Vec<Slot>,
    mode: Autoreset,
    threads: bool,
}

struct Slot {
    environment: Box<dyn Environment>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Unborn,
    Going,
    /// Under [`Autoreset::NextStep`], the next step begins an episode.
    Over,
}

impl Phase {
    const NAMES: [(Phase, &str); 3] =
        [(Phase::Unborn, "unborn"), (Phase::Going, "going"), (Phase::Over, "over")];
}

/// What one copy does in one step.
struct Part {
    step: Step,
    last: Option<Vec<f32>>,
    began: bool,
}

impl VectorEnvironment {
    /// The given copies, which wait for their first reset.
    ///
    /// # Errors
    /// There is none, or their spaces differ.
    pub fn new(copies: Vec<Box<dyn Environment>>, mode: Autoreset) -> Result<Self> {
        let Some(first) = copies.first() else {
            return Err(
                Problem::usage("a vector of no environments").hint("ask for one environment at least")
            );
        };
        let spaces = |copy: &dyn Environment| [copy.observation_space().clone(), copy.action_space().clone()];
        let wanted = spaces(first);
        if let Some(other) = copies.iter().position(|copy| spaces(copy) != wanted) {
            return Err(Problem::usage(format!(
                "environment {other} of the vector has other spaces than the first"
            ))
            .hint("put copies of one environment into a vector"));
        }
        let slot = |environment| Slot { environment, phase: Phase::Unborn };
        Ok(Self { copies: copies.into_iter().map(slot).collect(), mode, threads: false })
    }

    /// `n` copies of the environment of this name.
    ///
    /// # Errors
    /// Those of [`make`] and [`VectorEnvironment::new`].
    pub fn make(id: &str, n: usize, mode: Autoreset) -> Result<Self> {
        // Those in Python take their time, each in a process of its own.
        Self::new((0..n).into_par_iter().map(|_| make(id)).collect::<Result<_>>()?, mode)
    }

    /// Steps the copies on Rayon's threads. Worth it from some 10 µs a step on, as in simulators of physics and bridges;
    /// classic control takes less than the handing over.
    #[must_use]
    pub fn on_threads(mut self, threads: bool) -> Self {
        self.threads = threads;
        self
    }

    /// Number of copies.
    pub fn copies(&self) -> usize {
        self.copies.len()
    }

    /// When copies begin the next episode.
    pub fn mode(&self) -> Autoreset {
        self.mode
    }

    /// What each copy shows.
    pub fn observation_space(&self) -> &Space {
        self.copies[0].environment.observation_space()
    }

    /// What each copy takes.
    pub fn action_space(&self) -> &Space {
        self.copies[0].environment.action_space()
    }

    /// Begins an episode in every copy, in copy `i` with seed `seed + i`; returns `[copies, observation size]`.
    ///
    /// # Errors
    /// Those of the environments; an observation of the wrong size, or not finite.
    pub fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>> {
        let shown = self.each(|index, copy| {
            let shown = copy.begin(seed.map(|seed| seed.wrapping_add(index as u64)))?;
            copy.phase = Phase::Going;
            Ok(shown)
        })?;
        Ok(shown.concat())
    }

    /// Steps every copy by its action.
    ///
    /// # Errors
    /// Not one action per copy; those of [`Environment::step`]; an observation of the wrong size, or not finite; a reward
    /// that is not finite. The first copy in the order of the vector that fails is named, and the vector has to be reset.
    pub fn step(&mut self, actions: &[Action]) -> Result<VectorStep> {
        if actions.len() != self.copies.len() {
            return Err(Problem::usage(format!(
                "{} actions for {} environments",
                actions.len(),
                self.copies.len()
            ))
            .hint("give one action per environment"));
        }
        let mode = self.mode;
        let parts = self.each(|index, copy| copy.step(&actions[index], mode))?;
        let mut all = VectorStep::default();
        for Part { step, last, began } in parts {
            all.observations.extend(step.observation);
            all.rewards.push(step.reward);
            all.terminated.push(step.terminated);
            all.truncated.push(step.truncated);
            all.final_observations.push(last);
            all.began.push(began);
        }
        Ok(all)
    }

    /// Runs `work` on every copy; results and errors in the order of the copies.
    fn each<T: Send>(&mut self, work: impl Fn(usize, &mut Slot) -> Result<T> + Sync) -> Result<Vec<T>> {
        let work = |(index, copy): (usize, &mut Slot)| {
            work(index, copy).map_err(|problem| problem.place(format!("environment {index} of the vector")))
        };
        if self.threads {
            let results: Vec<Result<T>> = self.copies.par_iter_mut().enumerate().map(work).collect();
            results.into_iter().collect()
        } else {
            self.copies.iter_mut().enumerate().map(work).collect()
        }
    }

    /// The states of all copies, as [`Environment::save`].
    pub fn save(&self) -> Value {
        let copy = |copy: &Slot| {
            let name = Phase::NAMES.iter().find(|(phase, _)| *phase == copy.phase).map(|(_, name)| *name);
            json!({"phase": name, "environment": copy.environment.save()})
        };
        Value::Array(self.copies.iter().map(copy).collect())
    }

    /// Goes back to what [`VectorEnvironment::save`] gave, of a vector made alike.
    ///
    /// # Errors
    /// The value is not a state of this vector.
    pub fn restore(&mut self, state: &Value) -> Result<()> {
        let states = state.as_array().ok_or_else(|| bad_state("it is not a list of environments"))?;
        if states.len() != self.copies.len() {
            let (found, wanted) = (states.len(), self.copies.len());
            return Err(bad_state(format!("it is of {found} environments, and here are {wanted}")));
        }
        self.each(|index, copy| {
            let name = states[index]["phase"].as_str();
            let phase = Phase::NAMES.iter().find(|(_, known)| Some(*known) == name);
            let (phase, _) = phase.ok_or_else(|| bad_state("`phase` is none of unborn, going, over"))?;
            copy.environment.restore(&states[index]["environment"])?;
            copy.phase = *phase;
            Ok(())
        })?;
        Ok(())
    }
}

impl Slot {
    fn begin(&mut self, seed: Option<u64>) -> Result<Vec<f32>> {
        let shown = self.environment.reset(seed)?;
        self.environment.observation_space().check_observation(&shown)?;
        Ok(shown)
    }

    fn step(&mut self, action: &Action, mode: Autoreset) -> Result<Part> {
        match self.phase {
            Phase::Unborn => return Err(no_episode("the vector was never reset")),
            Phase::Going => {}
            Phase::Over => {
                let observation = self.begin(None)?;
                self.phase = Phase::Going;
                let step = Step { observation, reward: 0.0, terminated: false, truncated: false };
                return Ok(Part { step, last: None, began: true });
            }
        }
        let mut step = self.environment.step(action)?;
        self.environment.observation_space().check_observation(&step.observation)?;
        if !step.reward.is_finite() {
            return Err(Problem::input(format!("the environment gives a reward of {}", step.reward))
                .hint("the simulation has become unstable; bound its actions or shorten its time step"));
        }
        let mut last = None;
        if step.done() {
            match mode {
                Autoreset::SameStep => {
                    let first = self.begin(None)?;
                    last = Some(std::mem::replace(&mut step.observation, first));
                }
                Autoreset::NextStep => self.phase = Phase::Over,
            }
        }
        Ok(Part { step, last, began: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dynamics, NumpyRandom, Simulated};

    fn pushes(n: usize, random: &mut NumpyRandom) -> Vec<Action> {
        (0..n).map(|_| Space::Discrete(2).sample(random)).collect()
    }

    fn carts(n: usize, mode: Autoreset) -> VectorEnvironment {
        VectorEnvironment::make("CartPole-v1", n, mode).unwrap()
    }

    /// Every copy does what a single environment with its seed does.
    #[test]
    fn copies_are_single_environments() {
        let n = 3;
        for mode in [Autoreset::SameStep, Autoreset::NextStep] {
            let mut vector = carts(n, mode);
            let mut singles: Vec<_> = (0..n).map(|_| make("CartPole-v1").unwrap()).collect();
            let mut first = Vec::new();
            for (index, single) in singles.iter_mut().enumerate() {
                first.extend(single.reset(Some(5 + index as u64)).unwrap());
            }
            assert_eq!(vector.reset(Some(5)).unwrap(), first);
            let mut over = vec![false; n];
            let mut random = NumpyRandom::new(1);
            let mut episodes = 0;
            for _ in 0..200 {
                let actions = pushes(n, &mut random);
                let step = vector.step(&actions).unwrap();
                for index in 0..n {
                    let seen = &step.observations[4 * index..4 * index + 4];
                    if over[index] {
                        assert!(step.began[index] && step.rewards[index] == 0.0);
                        assert_eq!(seen, singles[index].reset(None).unwrap());
                        over[index] = false;
                        continue;
                    }
                    let single = singles[index].step(&actions[index]).unwrap();
                    assert_eq!(
                        (single.reward, single.terminated, single.truncated, false),
                        (
                            step.rewards[index],
                            step.terminated[index],
                            step.truncated[index],
                            step.began[index]
                        )
                    );
                    episodes += usize::from(single.done());
                    match (mode, single.done()) {
                        (Autoreset::SameStep, true) => {
                            assert_eq!(step.final_observations[index], Some(single.observation));
                            assert_eq!(seen, singles[index].reset(None).unwrap());
                        }
                        (_, done) => {
                            assert_eq!(seen, single.observation);
                            assert_eq!(step.final_observations[index], None);
                            over[index] = done;
                        }
                    }
                }
            }
            assert!(episodes > 10);
        }
    }

    #[test]
    fn threads_change_nothing() {
        let run = |threads, workers| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().unwrap();
            pool.install(|| {
                let mut vector = carts(7, Autoreset::SameStep).on_threads(threads);
                let mut random = NumpyRandom::new(2);
                vector.reset(Some(0)).unwrap();
                (0..60).map(|_| vector.step(&pushes(7, &mut random)).unwrap()).collect::<Vec<_>>()
            })
        };
        let plain = run(false, 1);
        assert!(run(true, 1) == plain && run(true, 4) == plain);
    }

    #[test]
    fn a_restored_vector_goes_on_exactly() {
        for mode in [Autoreset::SameStep, Autoreset::NextStep] {
            let mut vector = carts(4, mode);
            let mut random = NumpyRandom::new(3);
            vector.reset(Some(9)).unwrap();
            while !vector.step(&pushes(4, &mut random)).unwrap().terminated.contains(&true) {}
            let saved: Value = serde_json::from_str(&vector.save().to_string()).unwrap();
            let mut again = carts(4, mode);
            again.restore(&saved).unwrap();
            for _ in 0..50 {
                let actions = pushes(4, &mut random);
                assert_eq!(vector.step(&actions).unwrap(), again.step(&actions).unwrap());
            }
        }
        let mut vector = carts(2, Autoreset::SameStep);
        let saved = carts(1, Autoreset::SameStep).save();
        let problem = vector.restore(&saved).unwrap_err();
        assert!(problem.message().ends_with("it is of 1 environments, and here are 2"), "{problem}");
        assert!(vector.restore(&json!([{}, {}])).is_err() && vector.restore(&Value::Null).is_err());
    }

    /// Shows what it is told to show.
    struct Faulty(Vec<f32>, f64);

    impl Dynamics for Faulty {
        type State = ();

        fn observation_space(&self) -> Space {
            Space::symmetric(&[1.0])
        }

        fn action_space(&self) -> Space {
            Space::Discrete(2)
        }

        fn begin(&self, _: &mut NumpyRandom) {}

        fn observe(&self, (): &()) -> Vec<f32> {
            self.0.clone()
        }

        fn advance(&self, (): &mut (), _: &Action, _: &mut NumpyRandom) -> Result<(f64, bool)> {
            Ok((self.1, false))
        }
    }

    #[test]
    fn wrong_use_and_bad_environments_are_errors() {
        let none = VectorEnvironment::new(Vec::new(), Autoreset::SameStep);
        assert!(none.is_err());
        let mixed = vec![make("CartPole-v1").unwrap(), make("Pendulum-v1").unwrap()];
        assert!(VectorEnvironment::new(mixed, Autoreset::SameStep).is_err());
        let mut vector = carts(2, Autoreset::SameStep);
        let one = Action::Discrete(1);
        assert!(vector.step(&[one.clone(), one.clone()]).is_err());
        vector.reset(None).unwrap();
        let problem = vector.step(std::slice::from_ref(&one)).unwrap_err();
        assert_eq!(problem.message(), "1 actions for 2 environments");
        let problem = vector.step(&[one.clone(), Action::Discrete(7)]).unwrap_err();
        assert_eq!(problem.place_text(), Some("environment 1 of the vector"));
        let faulty = |shown: &[f32], reward| {
            let copy = Box::new(Simulated::new(Faulty(shown.to_vec(), reward)));
            VectorEnvironment::new(vec![copy], Autoreset::SameStep).unwrap()
        };
        assert!(faulty(&[f32::NAN], 0.0).reset(None).is_err());
        assert!(faulty(&[0.0, 0.0], 0.0).reset(None).is_err());
        let mut vector = faulty(&[0.0], f64::NAN);
        vector.reset(None).unwrap();
        let problem = vector.step(&[one]).unwrap_err();
        assert_eq!(problem.message(), "the environment gives a reward of NaN");
    }
}
