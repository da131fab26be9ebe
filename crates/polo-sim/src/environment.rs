//! What an environment is, with Gymnasium's semantics, and how one is made from its name.
//!
//! An episode begins with [`Environment::reset`] and ends with a [`Step`] that is `terminated` (the task is over:
//! nothing more can be earned) or `truncated` (the watching is over, the task goes on: a learner still adds the value
//! of the last observation). To write one's own, see [`crate::Dynamics`].

use polo_run::{Problem, Result};
use serde_json::{Value, json};

use crate::{
    bridge::{Bridge, BridgeOptions},
    classic::{
        Acrobot, CartPole, LinearQuadratic, MountainCar, MountainCarContinuous, Pendulum, PendulumOffline,
        PointMaze, pendulum_offline,
    },
    dynamics::Simulated,
    film::Picture,
    space::{Action, Space},
};

#[cfg(feature = "mujoco")]
use crate::mujoco::{Ant, Body, HalfCheetah, Hopper, InvertedPendulum, Reacher, Walker2d};

/// A simulator of one task.
pub trait Environment: Send {
    /// What [`Environment::reset`] and [`Environment::step`] show.
    fn observation_space(&self) -> &Space;

    /// What [`Environment::step`] takes.
    fn action_space(&self) -> &Space;

    /// Begins an episode and shows its first observation. A seed starts the environment's own generator anew; without
    /// one it goes on, and an environment that never had a seed behaves as if it had been given 0.
    ///
    /// # Errors
    /// Those of the simulator.
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>>;

    /// Takes an action.
    ///
    /// # Errors
    /// No episode is going on; the action is of the wrong kind or size, or not finite; those of the simulator.
    fn step(&mut self, action: &Action) -> Result<Step>;

    /// The whole state, generator included: what is needed to go on bit for bit.
    fn save(&self) -> Value;

    /// Goes back to a state that [`Environment::save`] gave, of an environment made alike.
    ///
    /// # Errors
    /// The value is not a state of this environment; the environment stays as it was.
    fn restore(&mut self, state: &Value) -> Result<()>;

    /// What it looks like now; none where no episode has begun, and by default.
    fn draw(&self) -> Option<Picture> {
        None
    }
}

/// What follows an action.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What the environment shows now.
    pub observation: Vec<f32>,
    /// What the action earned.
    pub reward: f64,
    /// The task is over; no value follows.
    pub terminated: bool,
    /// The episode was cut, for instance by a time limit; a value follows. May coincide with `terminated`.
    pub truncated: bool,
}

impl Step {
    /// Whether the episode is over.
    pub fn done(&self) -> bool {
        self.terminated || self.truncated
    }

    /// Checks that something can be learnt from it: all numbers finite, and as many as the space says.
    ///
    /// # Errors
    /// Says which is not.
    pub fn check(&self, observations: &Space) -> Result<()> {
        observations.check_observation(&self.observation)?;
        match self.reward.is_finite() {
            true => Ok(()),
            false => Err(Problem::input(format!("the environment's reward is {}", self.reward))
                .hint("mend its reward; nothing can be learnt from it")),
        }
    }
}

impl<E: Environment + ?Sized> Environment for Box<E> {
    fn observation_space(&self) -> &Space {
        (**self).observation_space()
    }

    fn action_space(&self) -> &Space {
        (**self).action_space()
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>> {
        (**self).reset(seed)
    }

    fn step(&mut self, action: &Action) -> Result<Step> {
        (**self).step(action)
    }

    fn save(&self) -> Value {
        (**self).save()
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        (**self).restore(state)
    }

    fn draw(&self) -> Option<Picture> {
        (**self).draw()
    }
}

/// Cuts episodes after a number of steps.
#[derive(Clone, Debug)]
pub struct TimeLimit<E> {
    environment: E,
    limit: u64,
    elapsed: u64,
}

impl<E: Environment> TimeLimit<E> {
    /// Episodes of `environment`, cut after `limit` steps.
    pub fn new(environment: E, limit: u64) -> Self {
        Self { environment, limit, elapsed: 0 }
    }

    /// The environment without its limit.
    pub fn inner(&self) -> &E {
        &self.environment
    }
}

impl<E: Environment> Environment for TimeLimit<E> {
    fn observation_space(&self) -> &Space {
        self.environment.observation_space()
    }

    fn action_space(&self) -> &Space {
        self.environment.action_space()
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>> {
        let observation = self.environment.reset(seed)?;
        self.elapsed = 0;
        Ok(observation)
    }

    fn step(&mut self, action: &Action) -> Result<Step> {
        if self.elapsed >= self.limit {
            return Err(no_episode("the episode was cut by its time limit"));
        }
        let mut step = self.environment.step(action)?;
        self.elapsed += 1;
        step.truncated |= self.elapsed >= self.limit;
        Ok(step)
    }

    fn save(&self) -> Value {
        json!({"elapsed": self.elapsed, "environment": self.environment.save()})
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let elapsed =
            state["elapsed"].as_u64().ok_or_else(|| bad_state("`elapsed` is not a number of steps"))?;
        self.environment.restore(&state["environment"])?;
        self.elapsed = elapsed;
        Ok(())
    }

    fn draw(&self) -> Option<Picture> {
        self.environment.draw()
    }
}

/// A step out of turn.
pub(crate) fn no_episode(why: &str) -> Problem {
    Problem::usage(format!("there is no episode to step: {why}")).hint("call reset first")
}

/// A saved state that cannot be restored.
pub(crate) fn bad_state(why: impl std::fmt::Display) -> Problem {
    Problem::input(format!("the saved state of the environment cannot be used: {why}"))
        .hint("restore it into an environment made with the same name and settings as the one that saved it")
}

/// What is known of an environment that [`make`] makes.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// Its name.
    pub id: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Steps after which an episode is truncated.
    pub time_limit: u64,
    /// The mean return from which the task counts as solved, where one is agreed on.
    pub threshold: Option<f64>,
    make: fn() -> Result<Box<dyn Environment>>,
}

/// All environments that [`make`] makes itself.
pub const ENVIRONMENTS: &[Listing] = &[
    Listing {
        id: "CartPole-v1",
        about: "balance a pole on a cart by pushing it left or right",
        time_limit: 500,
        threshold: Some(475.0),
        make: || Ok(Box::new(Simulated::new(CartPole::default()))),
    },
    Listing {
        id: "Pendulum-v1",
        about: "swing a pendulum up with a weak motor and hold it there",
        time_limit: 200,
        threshold: None,
        make: || Ok(Box::new(Simulated::new(Pendulum))),
    },
    Listing {
        id: "Acrobot-v1",
        about: "swing the tip of a double pendulum above its bar with a motor at its joint",
        time_limit: 500,
        threshold: Some(-100.0),
        make: || Ok(Box::new(Simulated::new(Acrobot))),
    },
    Listing {
        id: "MountainCar-v0",
        about: "swing a weak car up a hill with three pushes",
        time_limit: 200,
        threshold: Some(-110.0),
        make: || Ok(Box::new(Simulated::new(MountainCar))),
    },
    Listing {
        id: "MountainCarContinuous-v0",
        about: "swing a weak car up a hill with little effort",
        time_limit: 999,
        threshold: Some(90.0),
        make: || Ok(Box::new(Simulated::new(MountainCarContinuous))),
    },
    Listing {
        id: "polo/PointMaze-v0",
        about: "push a ball through a maze in the shape of a U; 1 at the goal, nothing before",
        time_limit: 300,
        threshold: None,
        make: || Ok(Box::new(Simulated::new(PointMaze::default()))),
    },
    Listing {
        id: "polo/LinearQuadratic-v0",
        about: "keep a noisy linear system near zero at little effort; the best policy is known exactly",
        time_limit: 200,
        threshold: None,
        make: || Ok(Box::new(Simulated::new(LinearQuadratic::default()))),
    },
    Listing {
        id: pendulum_offline::ID,
        about: "Pendulum-v1 with actions from -1 to 1, and behaviours of known return to make datasets with",
        time_limit: 200,
        threshold: None,
        make: || Ok(Box::new(Simulated::new(PendulumOffline))),
    },
    #[cfg(feature = "mujoco")]
    Listing {
        id: "Hopper-v5",
        about: "hop forward on one leg",
        time_limit: 1000,
        threshold: Some(3800.0),
        make: || Ok(Box::new(Simulated::new(Body::new(Hopper)?))),
    },
    #[cfg(feature = "mujoco")]
    Listing {
        id: "HalfCheetah-v5",
        about: "run forward on a hind and a fore leg",
        time_limit: 1000,
        threshold: Some(4800.0),
        make: || Ok(Box::new(Simulated::new(Body::new(HalfCheetah)?))),
    },
    #[cfg(feature = "mujoco")]
    Listing {
        id: "Walker2d-v5",
        about: "walk forward on two legs",
        time_limit: 1000,
        threshold: None,
        make: || Ok(Box::new(Simulated::new(Body::new(Walker2d)?))),
    },
    #[cfg(feature = "mujoco")]
    Listing {
        id: "Ant-v5",
        about: "run forward on four legs",
        time_limit: 1000,
        threshold: Some(6000.0),
        make: || Ok(Box::new(Simulated::new(Body::new(Ant)?))),
    },
    #[cfg(feature = "mujoco")]
    Listing {
        id: "InvertedPendulum-v5",
        about: "balance a pole on a cart by pushing it with any force",
        time_limit: 1000,
        threshold: Some(950.0),
        make: || Ok(Box::new(Simulated::new(Body::new(InvertedPendulum)?))),
    },
    #[cfg(feature = "mujoco")]
    Listing {
        id: "Reacher-v5",
        about: "bring the tip of an arm to a target",
        time_limit: 50,
        threshold: Some(-3.75),
        make: || Ok(Box::new(Simulated::new(Body::new(Reacher)?))),
    },
];

/// Those of [`ENVIRONMENTS`] that MuJoCo moves.
const ROBOTS: &[&str] =
    &["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5", "Ant-v5", "InvertedPendulum-v5", "Reacher-v5"];

/// What the names of environments in Python begin with.
pub(crate) const PYTHON: &str = "gym:";

/// The environment of this name, with its usual time limit: one of [`ENVIRONMENTS`], or `gym:ID` for Gymnasium's `ID` in
/// Python (see [`crate::bridge`]).
///
/// # Errors
/// The name is unknown; those of [`Bridge::new`].
pub fn make(id: &str) -> Result<Box<dyn Environment>> {
    make_with(id, &BridgeOptions::default())
}

/// [`make`], told how to run Python.
///
/// # Errors
/// Those of [`make`].
pub fn make_with(id: &str, python: &BridgeOptions) -> Result<Box<dyn Environment>> {
    if let Some(id) = id.strip_prefix(PYTHON) {
        return Ok(Box::new(Bridge::new(id, python)?));
    }
    match ENVIRONMENTS.iter().find(|listing| listing.id == id) {
        Some(listing) => Ok(Box::new(TimeLimit::new((listing.make)()?, listing.time_limit))),
        None if ROBOTS.contains(&id) => Err(without_mujoco(id)),
        None => Err(unknown(id)),
    }
}

fn without_mujoco(id: &str) -> Problem {
    Problem::usage(format!("`{id}` is moved by MuJoCo, without which polo was built")).hint(format!(
        "build with `--features mujoco` (docs/mujoco.md), or `{PYTHON}{id}` asks Gymnasium in Python for it"
    ))
}

fn unknown(id: &str) -> Problem {
    // `pointmaze` is as near to `polo/PointMaze-v0` as `PointMaze-v0` would be.
    let plain = |id: &str| id.rsplit('/').next().unwrap_or(id).to_lowercase();
    let near = (ENVIRONMENTS.iter())
        .map(|listing| (strsim::jaro_winkler(&plain(id), &plain(listing.id)), listing.id))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    let python = format!("`{PYTHON}{id}` asks Gymnasium in Python for it");
    Problem::usage(format!("there is no environment `{id}`")).hint(match near {
        Some((_, near)) => format!("did you mean `{near}`? {python}"),
        None => python,
    })
}
