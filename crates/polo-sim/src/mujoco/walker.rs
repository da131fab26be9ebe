//! Walker2d-v5: walk forward on two legs, 125 steps a second. Taken: six torques in \[-1, 1\] × 100 N m, at hip, knee and
//! ankle of the right, then of the left leg (clipped). Shown: position but for the way, velocity (at most 10). Earned:
//! speed \[m/s\], 1 while healthy, less 0.001 × the squared action. Over when it falls: not between 0.8 and 2 m, or tilted
//! by 1 rad.

use super::{BodyState, Robot, effort, jitter, seen_walking, survival};
use crate::NumpyRandom;

/// The two-legged robot in a plane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walker2d;

impl Robot for Walker2d {
    const MODEL: &'static str = include_str!("models/walker2d.xml");
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
        let healthy = height > 0.8 && height < 2.0 && tilt.abs() < 1.0;
        (speed + survival(healthy) - effort(1e-3, action), !healthy)
    }
}
