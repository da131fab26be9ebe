//! InvertedPendulum-v5: balance a pole on a cart, 25 steps a second. Taken: a force in \[-3, 3\] × 100 N on the cart
//! (clipped). Shown: place of the cart, angle of the pole, and their velocities. Earned: 1 for every step in which the task
//! is not over: when the pole leans by more than 0.2 rad.

use super::{BodyState, Robot, jitter, seen, survival};
use crate::NumpyRandom;

/// The pole on its cart.
#[derive(Clone, Copy, Debug, Default)]
pub struct InvertedPendulum;

impl Robot for InvertedPendulum {
    const MODEL: &'static str = include_str!("models/inverted_pendulum.xml");
    const FRAMES: usize = 2;

    fn begin(&self, position: &mut [f64], velocity: &mut [f64], random: &mut NumpyRandom) {
        jitter(position, 0.01, random);
        jitter(velocity, 0.01, random);
    }

    fn observe(&self, state: &BodyState) -> Vec<f32> {
        seen(state, 0)
    }

    fn judge(&self, state: &BodyState, _: f64, _: &[f32]) -> (f64, bool) {
        let finite = state.position.iter().chain(&state.velocity).all(|value| value.is_finite());
        let upright = finite && state.position[1].abs() <= 0.2;
        (survival(upright), !upright)
    }
}
