//! Hopper-v5: hop forward on one leg, 125 steps a second. Taken: three torques in \[-1, 1\] × 200 N m, at hip, knee and
//! ankle (clipped). Shown: position but for the way, velocity (at most 10). Earned: speed \[m/s\], 1 while healthy, less
//! 0.001 × the squared action. Over when it falls: below 0.7 m, tilted by 0.2 rad, or any number of 100 and more.

use super::{BodyState, Robot, effort, jitter, seen_walking, survival};
use crate::NumpyRandom;

/// The one-legged robot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hopper;

impl Robot for Hopper {
    const MODEL: &'static str = include_str!("models/hopper.xml");
    const FRAMES: usize = 4;

    fn begin(&self, position: &mut [f64], velocity: &mut [f64], random: &mut NumpyRandom) {
        jitter(position, 5e-3, random);
        jitter(velocity, 5e-3, random);
    }

    fn observe(&self, state: &BodyState) -> Vec<f32> {
        seen_walking(state, 10.0)
    }

    fn way(&self, state: &BodyState) -> f64 {
        state.position[0]
    }

    fn judge(&self, state: &BodyState, speed: f64, action: &[f32]) -> (f64, bool) {
        let (height, tilt) = (state.position[1], state.position[2]);
        let bounded = state.position[2..].iter().chain(&state.velocity).all(|value| value.abs() < 100.0);
        let healthy = bounded && height > 0.7 && height < f64::INFINITY && tilt.abs() < 0.2;
        (speed + survival(healthy) - effort(1e-3, action), !healthy)
    }
}
