//! HalfCheetah-v5: run forward on a hind and a fore leg, 20 steps a second. Taken: six torques in \[-1, 1\], at thigh, shin
//! and foot of the hind leg × 120, 90 and 60 N m, of the fore leg × 120, 60 and 30 N m (clipped). Shown: position but for
//! the way, velocity. Earned: speed \[m/s\] less 0.1 × the squared action. Never over.

use super::{BodyState, Robot, blur, effort, jitter, seen};
use crate::NumpyRandom;

/// The running robot in a plane.
#[derive(Clone, Copy, Debug, Default)]
pub struct HalfCheetah;

impl Robot for HalfCheetah {
    const MODEL: &'static str = include_str!("models/half_cheetah.xml");
    const FRAMES: usize = 5;
    const MASS: Option<f64> = Some(14.0);

    fn begin(&self, position: &mut [f64], velocity: &mut [f64], random: &mut NumpyRandom) {
        jitter(position, 0.1, random);
        blur(velocity, 0.1, random);
    }

    fn observe(&self, state: &BodyState) -> Vec<f32> {
        seen(state, 1)
    }

    fn way(&self, state: &BodyState) -> f64 {
        state.position[0]
    }

    fn judge(&self, _: &BodyState, speed: f64, action: &[f32]) -> (f64, bool) {
        (speed - effort(0.1, action), false)
    }
}
