//! MountainCar-v0: a weak car in a valley swings back and forth until it climbs the right hill. Taken: push left, not
//! at all, or right (0, 1, 2). Shown: place in \[-1.2, 0.6\] and speed. Every step earns -1 until the flag at 0.5.

use polo_run::Result;
use serde::{Deserialize, Serialize};

use crate::{
    Action, Dynamics, NumpyRandom, Space,
    film::{ARM, BODY, GOAL, GROUND, Picture},
};

/// The car and its valley.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountainCar;

/// The car at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MountainCarState {
    /// Place along the valley.
    pub place: f64,
    /// Speed, per step.
    pub speed: f64,
}

pub(super) const LEFT: f64 = -1.2;
pub(super) const RIGHT: f64 = 0.6;
pub(super) const MAX_SPEED: f64 = 0.07;
pub(super) const GRAVITY: f64 = 0.0025;
const FORCE: f64 = 0.001;
const FLAG: f64 = 0.5;

pub(super) fn observation_space() -> Space {
    let [left, right, speed] = [LEFT, RIGHT, MAX_SPEED].map(|value| value as f32);
    Space::Box { low: vec![left, -speed], high: vec![right, speed] }
}

/// The valley with a car at `place` and a flag.
pub(super) fn scene(place: f64, flag: f64) -> Picture {
    let height = |x: f64| 0.45 * (3.0 * x).sin() + 0.55;
    let hill = (0..=60).map(|step| LEFT + f64::from(step) * (RIGHT - LEFT) / 60.0);
    let ground = [[RIGHT, 0.0], [LEFT, 0.0]].into_iter().chain(hill.map(|x| [x, height(x)]));
    // Points of the car, along the slope and above it.
    let slope = (1.35 * (3.0 * place).cos()).atan();
    let (sin, cos) = slope.sin_cos();
    let at = |along: f64, up: f64| [place + along * cos - up * sin, height(place) + along * sin + up * cos];
    let body = [(-0.08, 0.025), (0.08, 0.025), (0.08, 0.07), (0.04, 0.11), (-0.04, 0.11), (-0.08, 0.07)];
    let [foot, top] = [height(flag), height(flag) + 0.16];
    Picture::new([LEFT, 0.0], [RIGHT, 1.25], 1.0 / 30.0)
        .polygon(GROUND, ground.collect())
        .line(BODY, [flag, foot], [flag, top], 0.008)
        .polygon(GOAL, vec![[flag, top], [flag + 0.09, top - 0.03], [flag, top - 0.06]])
        .polygon(ARM, body.map(|(along, up)| at(along, up)).into())
        .disc(BODY, at(-0.045, 0.025), 0.025)
        .disc(BODY, at(0.045, 0.025), 0.025)
}

impl Dynamics for MountainCar {
    type State = MountainCarState;

    fn observation_space(&self) -> Space {
        observation_space()
    }

    fn action_space(&self) -> Space {
        Space::Discrete(3)
    }

    fn begin(&self, random: &mut NumpyRandom) -> MountainCarState {
        MountainCarState { place: random.uniform(-0.6, -0.4), speed: 0.0 }
    }

    fn observe(&self, state: &MountainCarState) -> Vec<f32> {
        vec![state.place as f32, state.speed as f32]
    }

    fn advance(
        &self,
        state: &mut MountainCarState,
        action: &Action,
        _: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        let push = (action.choice()? as f64 - 1.0) * FORCE;
        let speed = state.speed + (push + (3.0 * state.place).cos() * -GRAVITY);
        state.speed = speed.clamp(-MAX_SPEED, MAX_SPEED);
        state.place = (state.place + state.speed).clamp(LEFT, RIGHT);
        if state.place == LEFT && state.speed < 0.0 {
            state.speed = 0.0;
        }
        Ok((-1.0, state.place >= FLAG && state.speed >= 0.0))
    }

    fn draw(&self, state: &MountainCarState) -> Option<Picture> {
        Some(scene(state.place, FLAG))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Simulated};

    #[test]
    fn seed_42_moves_as_in_gymnasium() {
        let mut car = Simulated::new(MountainCar);
        car.reset(Some(42)).unwrap();
        assert_eq!(car.state(), Some(&MountainCarState { place: -0.44520879028880733, speed: 0.0 }));
        for action in [2, 2, 0, 1, 0] {
            assert_eq!(car.step(&Action::Discrete(action)).unwrap().reward, -1.0);
        }
        let end = MountainCarState { place: -0.4489869989555941, speed: -0.0029220809389897285 };
        assert_eq!(car.state(), Some(&end));
    }
}
