//! Ant-v5: run in a given direction on four legs, 20 steps a second. Taken: eight torques in \[-1, 1\] × 150 N m, at hip and
//! ankle of the right hind, left fore, right fore and left hind leg (clipped). Shown: position but for the place, velocity,
//! and for each of 13 bodies torque and force from outside, between -1 and 1. Earned: speed \[m/s\], 1 while healthy, less
//! 0.5 × the squared action and 0.0005 × the squared forces. Over when the torso is not between 0.2 and 1 m high.

use super::{BodyState, Memory, Robot, blur, effort, jitter, seen, squares_f64, survival};
use crate::NumpyRandom;

/// The four-legged robot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ant;

/// The torso among the bodies, after the world.
const TORSO: usize = 1;

impl Robot for Ant {
    const MODEL: &'static str = include_str!("models/ant.xml");
    const FRAMES: usize = 5;

    fn begin(&self, position: &mut [f64], velocity: &mut [f64], random: &mut NumpyRandom) {
        jitter(position, 0.1, random);
        blur(velocity, 0.1, random);
    }

    /// Where the torso is along the way, then the clipped forces on the bodies, the world's first.
    fn derive(&self, memory: &mut Memory) -> Vec<f64> {
        // Without a sensor for them MuJoCo does not compute the forces by itself; before the first step they are zero.
        if memory.time() > 0.0 {
            memory.rne_post_constraint();
        }
        let forces = memory.cfrc_ext().as_flattened().iter().map(|force| force.clamp(-1.0, 1.0));
        std::iter::once(memory.xpos()[TORSO][0]).chain(forces).collect()
    }

    fn observe(&self, state: &BodyState) -> Vec<f32> {
        let mut observation = seen(state, 2);
        observation.extend(state.derived[1..][6..].iter().map(|&force| force as f32));
        observation
    }

    fn way(&self, state: &BodyState) -> f64 {
        state.derived[0]
    }

    fn judge(&self, state: &BodyState, speed: f64, action: &[f32]) -> (f64, bool) {
        let finite = state.position.iter().chain(&state.velocity).all(|value| value.is_finite());
        let healthy = finite && (0.2..=1.0).contains(&state.position[2]);
        let cost = effort(0.5, action) + 5e-4 * squares_f64(&state.derived[1..]);
        (speed + survival(healthy) - cost, !healthy)
    }
}
