//! Pendulum-v1: swing a pendulum up with a weak motor and hold it there, 20 steps a second. Taken: a torque in
//! \[-2, 2\] N m (clipped). Shown: cosine and sine of the angle (0 upright) and the angular speed, at most 8 rad/s.
//! Every step costs `angle² + 0.1 speed² + 0.001 torque²`, 16.27 at most. Never over.

use std::f64::consts::PI;

use polo_run::Result;
use serde::{Deserialize, Serialize};

use super::square;
use crate::{
    Action, Dynamics, NumpyRandom, Space,
    film::{ARM, BODY, MARK, Picture},
};

/// The pendulum, a rod of 1 kg and 1 m under a gravity of 10 m/s².
#[derive(Clone, Copy, Debug, Default)]
pub struct Pendulum;

/// The pendulum at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PendulumState {
    /// Angle, 0 upright; not brought back into one turn \[rad\].
    pub angle: f64,
    /// Angular speed \[rad/s\].
    pub spin: f64,
}

const GRAVITY: f64 = 10.0;
const MAX_TORQUE: f32 = 2.0;
const MAX_SPIN: f64 = 8.0;
const TIME_STEP: f64 = 0.05;

impl Dynamics for Pendulum {
    type State = PendulumState;

    fn observation_space(&self) -> Space {
        Space::symmetric(&[1.0, 1.0, MAX_SPIN as f32])
    }

    fn action_space(&self) -> Space {
        Space::symmetric(&[MAX_TORQUE])
    }

    fn begin(&self, random: &mut NumpyRandom) -> PendulumState {
        PendulumState { angle: random.uniform(-PI, PI), spin: random.uniform(-1.0, 1.0) }
    }

    fn observe(&self, state: &PendulumState) -> Vec<f32> {
        let (sin, cos) = state.angle.sin_cos();
        [cos, sin, state.spin].map(|value| value as f32).to_vec()
    }

    fn advance(
        &self,
        state: &mut PendulumState,
        action: &Action,
        _: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        let PendulumState { angle, spin } = *state;
        let torque = action.values()?[0].clamp(-MAX_TORQUE, MAX_TORQUE);
        // NumPy keeps terms of the f32 torque alone in f32.
        let effort = f64::from(0.001 * (torque * torque));
        let from_torque = f64::from(3.0 * torque);
        let turned = (angle + PI).rem_euclid(2.0 * PI) - PI;
        let cost = square(turned) + 0.1 * square(spin) + effort;
        let spun = spin + (3.0 * GRAVITY / 2.0 * angle.sin() + from_torque) * TIME_STEP;
        state.spin = spun.clamp(-MAX_SPIN, MAX_SPIN);
        state.angle = angle + state.spin * TIME_STEP;
        Ok((-cost, false))
    }

    fn draw(&self, state: &PendulumState) -> Option<Picture> {
        let tip = [-state.angle.sin(), state.angle.cos()];
        let upright = Picture::new([-1.3; 2], [1.3; 2], TIME_STEP).disc(MARK, [0.0, 1.0], 0.17);
        Some(upright.line(ARM, [0.0; 2], tip, 0.18).disc(BODY, [0.0; 2], 0.06))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Simulated};

    #[test]
    fn seed_42_moves_as_in_gymnasium() {
        let mut pendulum = Simulated::new(Pendulum);
        pendulum.reset(Some(42)).unwrap();
        let start = PendulumState { angle: 1.721316619099806, spin: -0.12224312049589536 };
        assert_eq!(pendulum.state(), Some(&start));
        let rewards = [-2.9666752413760165, -3.1853200028725417, -3.503968670200182, -4.149828023309376];
        for (torque, reward) in [1.5, -2.0, 0.3, 2.5].into_iter().zip(rewards) {
            let step = pendulum.step(&Action::Continuous(vec![torque])).unwrap();
            assert!((step.reward - reward).abs() < 1e-12, "{} {reward}", step.reward);
        }
        let end = PendulumState { angle: 2.0827358569115386, spin: 3.052913534380747 };
        assert_eq!(pendulum.state(), Some(&end));
    }
}
