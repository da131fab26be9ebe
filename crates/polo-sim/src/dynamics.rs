//! The short way to an environment of one's own: write how the world begins and moves, and [`Simulated`] does the rest.
//! `examples/own_environment.rs` is one.

use polo_run::Result;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    environment::{Environment, Step, bad_state, no_episode},
    film::Picture,
    random::NumpyRandom,
    space::{Action, Space},
};

/// How a world begins and moves. `self` holds what never changes (masses, maps); everything else is in the state.
pub trait Dynamics: Send {
    /// What changes in an episode. Its numbers should be finite, or they are not saved (JSON has no others).
    type State: Clone + Send + Serialize + DeserializeOwned;

    /// What [`Dynamics::observe`] shows.
    fn observation_space(&self) -> Space;

    /// What [`Dynamics::advance`] takes.
    fn action_space(&self) -> Space;

    /// The state at the beginning of an episode.
    fn begin(&self, random: &mut NumpyRandom) -> Self::State;

    /// What is seen of a state.
    fn observe(&self, state: &Self::State) -> Vec<f32>;

    /// Whether a saved state is of this world, where its type does not say so already.
    fn fits(&self, _: &Self::State) -> bool {
        true
    }

    /// Moves the state by one action, which has been checked with [`Space::check_action`]. Returns the reward, and
    /// whether the task is over.
    ///
    /// # Errors
    /// Those of [`Action::choice`] and [`Action::values`], and the simulator's own.
    fn advance(
        &self,
        state: &mut Self::State,
        action: &Action,
        random: &mut NumpyRandom,
    ) -> Result<(f64, bool)>;

    /// What a state looks like, for films; by default it cannot be seen.
    fn draw(&self, _: &Self::State) -> Option<Picture> {
        None
    }
}

/// The environment that moves by `D`: seeds, turns, checks of actions, saving. Without a time limit.
pub struct Simulated<D: Dynamics> {
    dynamics: D,
    observation_space: Space,
    action_space: Space,
    now: Now<D::State>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Now<S> {
    random: NumpyRandom,
    /// None before the first reset.
    state: Option<S>,
    terminated: bool,
}

impl<D: Dynamics> Simulated<D> {
    /// An environment that waits for its first reset.
    pub fn new(dynamics: D) -> Self {
        Self {
            observation_space: dynamics.observation_space(),
            action_space: dynamics.action_space(),
            dynamics,
            now: Now { random: NumpyRandom::new(0), state: None, terminated: false },
        }
    }

    /// The constants of the world.
    pub fn dynamics(&self) -> &D {
        &self.dynamics
    }

    /// The state, from the first reset on.
    pub fn state(&self) -> Option<&D::State> {
        self.now.state.as_ref()
    }

    /// Puts the world into a state, with an episode going on; shows it.
    pub fn set_state(&mut self, state: D::State) -> Vec<f32> {
        let observation = self.dynamics.observe(&state);
        self.now.state = Some(state);
        self.now.terminated = false;
        observation
    }
}

impl<D: Dynamics> Environment for Simulated<D> {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>> {
        if let Some(seed) = seed {
            self.now.random = NumpyRandom::new(seed);
        }
        let state = self.dynamics.begin(&mut self.now.random);
        Ok(self.set_state(state))
    }

    fn step(&mut self, action: &Action) -> Result<Step> {
        let Now { random, state, terminated } = &mut self.now;
        let state = state.as_mut().ok_or_else(|| no_episode("the environment was never reset"))?;
        if *terminated {
            return Err(no_episode("the task is over"));
        }
        self.action_space.check_action(action)?;
        let (reward, over) = self.dynamics.advance(state, action, random)?;
        *terminated = over;
        Ok(Step { observation: self.dynamics.observe(state), reward, terminated: over, truncated: false })
    }

    fn save(&self) -> Value {
        // A state that cannot be written becomes null, which `restore` refuses.
        serde_json::to_value(&self.now).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let now = Now::deserialize(state).map_err(bad_state)?;
        if !now.state.as_ref().is_none_or(|state| self.dynamics.fits(state)) {
            return Err(bad_state("it is of another world"));
        }
        self.now = now;
        Ok(())
    }

    fn draw(&self) -> Option<Picture> {
        self.dynamics.draw(self.now.state.as_ref()?)
    }
}
