//! Any environment of Gymnasium in Python, so that nobody has to port theirs: `gym:ID`.
//!
//! A process of the user's Python makes the environment and answers requests, a line of JSON each. Observations and
//! actions are flat boxes or choices; an observation that is a choice is shown as one number. Gymnasium's own time limit
//! applies. `module:ID` imports the module first, as in Gymnasium.
//!
//! A simulator in another process cannot be saved. Every episode therefore begins with a seed of its own (drawn from the
//! run's when none is given), and what is saved is that seed and the actions since; restoring repeats them and compares
//! the last observation.

use std::time::Duration;

use polo_run::{Problem, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    environment::{Environment, Step, bad_state, no_episode},
    random::NumpyRandom,
    space::{Action, Space},
};

mod process;

use process::Process;

/// What making an environment may take at least: imports are slow on a busy machine.
const MAKING: Duration = Duration::from_secs(60);

/// How to run Python.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// The interpreter: a path, or a name to look up. Default: `POLO_PYTHON`, or else `python3`.
    pub python: String,
    /// Arguments of `gymnasium.make` besides the name.
    pub arguments: Map<String, Value>,
    /// How long to wait for an answer; for making the environment, a minute at least. Default: `POLO_PYTHON_TIMEOUT` in
    /// seconds, or else 300.
    pub timeout: Duration,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        let seconds = std::env::var("POLO_PYTHON_TIMEOUT").ok().and_then(|seconds| seconds.parse().ok());
        Self {
            python: std::env::var("POLO_PYTHON").unwrap_or_else(|_| "python3".to_owned()),
            arguments: Map::new(),
            timeout: Duration::from_secs(seconds.unwrap_or(300)),
        }
    }
}

/// An environment in a Python process, which ends with it.
pub struct Bridge {
    process: Process,
    observation_space: Space,
    action_space: Space,
    now: Now,
}

#[derive(Clone, Serialize, Deserialize)]
struct Now {
    /// Draws the seeds of episodes that are given none.
    random: NumpyRandom,
    /// None before the first reset.
    episode: Option<Episode>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Episode {
    seed: u64,
    actions: Vec<Action>,
    observation: Vec<f32>,
    over: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpaceAnswer {
    Box { low: Vec<Option<f32>>, high: Vec<Option<f32>> },
    Discrete { n: usize },
    Other { kind: String },
}

#[derive(Deserialize)]
struct Spaces {
    observation_space: SpaceAnswer,
    action_space: SpaceAnswer,
}

/// The answer to a reset or a step; a number that is not finite is null.
#[derive(Deserialize)]
struct Shown {
    observation: Vec<Option<f32>>,
    reward: Option<f64>,
    #[serde(default)]
    terminated: bool,
    #[serde(default)]
    truncated: bool,
}

impl Bridge {
    /// Starts Python and makes Gymnasium's environment `id` there.
    ///
    /// # Errors
    /// Python or Gymnasium cannot be found, the environment is unknown or cannot be made, one of its spaces is neither a
    /// box nor discrete, the process ends or does not answer in time.
    pub fn new(id: &str, options: &BridgeOptions) -> Result<Self> {
        let mut process = Process::start(id, options)?;
        let Spaces { observation_space, action_space } = process.answer(options.timeout.max(MAKING))?;
        Ok(Self {
            observation_space: space(observation_space, "observation", "FlattenObservation")?,
            action_space: space(action_space, "action", "TransformAction")?,
            process,
            now: Now { random: NumpyRandom::new(0), episode: None },
        })
    }

    fn show(&self, shown: &[Option<f32>]) -> Result<Vec<f32>> {
        let observation: Vec<f32> = shown.iter().map(|value| value.unwrap_or(f32::NAN)).collect();
        self.observation_space.check_observation(&observation)?;
        Ok(observation)
    }

    /// Begins an episode in Python.
    fn begin(&mut self, seed: u64) -> Result<Episode> {
        let Shown { observation, .. } = self.process.ask(&json!({ "reset": seed }))?;
        Ok(Episode { seed, actions: Vec::new(), observation: self.show(&observation)?, over: false })
    }

    /// Steps the simulator in Python and remembers it.
    fn advance(&mut self, episode: &mut Episode, action: &Action) -> Result<Step> {
        let request = match action {
            Action::Continuous(values) => json!({ "step": values }),
            Action::Discrete(choice) => json!({ "step": choice }),
        };
        // Whatever follows, the simulator has moved on.
        episode.over = true;
        let shown: Shown = self.process.ask(&request)?;
        let reward = shown.reward.filter(|reward| reward.is_finite()).ok_or_else(|| {
            Problem::input("the environment gives a reward that is not finite")
                .hint("look for a division by zero or an unstable simulation in its step function")
        })?;
        let Shown { terminated, truncated, .. } = shown;
        episode.observation = self.show(&shown.observation)?;
        episode.actions.push(action.clone());
        episode.over = terminated || truncated;
        Ok(Step { observation: episode.observation.clone(), reward, terminated, truncated })
    }
}

fn space(answer: SpaceAnswer, name: &str, wrapper: &str) -> Result<Space> {
    let bounds =
        |values: Vec<Option<f32>>, none: f32| values.into_iter().map(|x| x.unwrap_or(none)).collect();
    match answer {
        SpaceAnswer::Box { low, high } => {
            Ok(Space::Box { low: bounds(low, f32::NEG_INFINITY), high: bounds(high, f32::INFINITY) })
        }
        SpaceAnswer::Discrete { n } => Ok(Space::Discrete(n)),
        SpaceAnswer::Other { kind } => Err(Problem::input(format!(
            "the {name} space of the environment is a {kind}, and only Box and Discrete can be used"
        ))
        .hint(format!("register it with Gymnasium's wrapper {wrapper} around it"))),
    }
}

impl Environment for Bridge {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>> {
        // Only Python's and NumPy's smallest common range of seeds is safe in every simulator.
        let seed = match seed {
            Some(seed) => {
                self.now.random = NumpyRandom::new(seed);
                seed
            }
            None => self.now.random.below(1 << 31),
        };
        let episode = self.begin(seed)?;
        Ok(self.now.episode.insert(episode).observation.clone())
    }

    fn step(&mut self, action: &Action) -> Result<Step> {
        let mut episode =
            self.now.episode.take().ok_or_else(|| no_episode("the environment was never reset"))?;
        let step = if episode.over {
            Err(no_episode("the episode has ended"))
        } else {
            self.action_space.check_action(action).and_then(|()| self.advance(&mut episode, action))
        };
        self.now.episode = Some(episode);
        step
    }

    fn save(&self) -> Value {
        serde_json::to_value(&self.now).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let saved = Now::deserialize(state).map_err(bad_state)?;
        // Until the episode has been repeated, the simulator stands nowhere.
        self.now.episode = None;
        if let Some(wanted) = &saved.episode {
            let mut episode = self.begin(wanted.seed)?;
            for action in &wanted.actions {
                self.action_space.check_action(action).map_err(bad_state)?;
                self.advance(&mut episode, action)?;
            }
            if episode.observation != wanted.observation {
                return Err(bad_state(
                    "the same seed and actions led elsewhere, so its episodes cannot be repeated",
                ));
            }
        }
        self.now = saved;
        Ok(())
    }
}
