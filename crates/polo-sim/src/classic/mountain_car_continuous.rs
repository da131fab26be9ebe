//! MountainCarContinuous-v0: the car of [`super::MountainCar`] with a push in \[-1, 1\] (clipped). Reaching the flag at
//! 0.45 earns 100, every step costs `0.1 push²` of the unclipped push.
//!
//! Gymnasium keeps the state in f64 until the first step and in f32 afterwards, and NumPy rounds every operation on it
//! accordingly; what looks odd below is that.

use polo_run::Result;
use serde::{Deserialize, Serialize};

use super::mountain_car::{GRAVITY, LEFT, MAX_SPEED, RIGHT, observation_space, scene};
use crate::{Action, Dynamics, NumpyRandom, Space, film::Picture};

/// The car and its valley.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountainCarContinuous;

/// The car at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountainCarContinuousState {
    /// Place along the valley; an f32 unless `fresh`.
    pub place: f64,
    /// Speed, per step; an f32.
    pub speed: f64,
    /// Nothing has moved yet.
    pub fresh: bool,
}

const POWER: f64 = 0.0015;
const FLAG: f64 = 0.45;

/// Rounds to f32.
fn round(x: f64) -> f64 {
    f64::from(x as f32)
}

impl Dynamics for MountainCarContinuous {
    type State = MountainCarContinuousState;

    fn observation_space(&self) -> Space {
        observation_space()
    }

    fn action_space(&self) -> Space {
        Space::symmetric(&[1.0])
    }

    fn begin(&self, random: &mut NumpyRandom) -> MountainCarContinuousState {
        MountainCarContinuousState { place: random.uniform(-0.6, -0.4), speed: 0.0, fresh: true }
    }

    fn observe(&self, state: &MountainCarContinuousState) -> Vec<f32> {
        vec![state.place as f32, state.speed as f32]
    }

    fn advance(
        &self,
        state: &mut MountainCarContinuousState,
        action: &Action,
        _: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        let push = f64::from(action.values()?[0]);
        let held = |x: f64| if state.fresh { x } else { round(x) };
        let pull = GRAVITY * held(3.0 * state.place).cos();
        let change = if (-1.0..=1.0).contains(&push) {
            round(round(push * round(POWER)) - round(pull))
        } else {
            held(push.signum() * POWER - pull)
        };
        let mut speed = held(state.speed + change);
        // The bound takes the place of the speed unrounded.
        if speed > held(MAX_SPEED) {
            speed = MAX_SPEED;
        }
        if speed < held(-MAX_SPEED) {
            speed = -MAX_SPEED;
        }
        let mut place = held(state.place + held(speed));
        if place > held(RIGHT) {
            place = RIGHT;
        }
        if place < held(LEFT) {
            place = LEFT;
        }
        if held(place) == held(LEFT) && speed < 0.0 {
            speed = 0.0;
        }
        let there = place >= held(FLAG) && speed >= 0.0;
        *state = MountainCarContinuousState { place: round(place), speed: round(speed), fresh: false };
        let prize = if there { 100.0 } else { 0.0 };
        Ok((prize - push * push * 0.1, there))
    }

    fn draw(&self, state: &MountainCarContinuousState) -> Option<Picture> {
        Some(scene(state.place, FLAG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Simulated};

    #[test]
    fn seed_42_moves_as_in_gymnasium() {
        let mut car = Simulated::new(MountainCarContinuous);
        car.reset(Some(42)).unwrap();
        assert_eq!(car.state().unwrap().place, -0.44520879028880733);
        let mut seen = Vec::new();
        for (push, reward) in [1.0, -0.5, 0.25, 1.5].into_iter().zip([-0.1, -0.025, -0.00625, -0.225]) {
            let step = car.step(&Action::Continuous(vec![push])).unwrap();
            assert_eq!(step.reward, reward);
            seen = step.observation;
        }
        assert_eq!(seen, [-0.44506028, 2.8561283e-04]);
    }
}
