//! Reacher-v5: bring the tip of an arm of two links to a target, 50 steps a second. Taken: two torques in \[-1, 1\] ×
//! 200 N m (clipped). Shown: cosines and sines of the two angles, the target's place, the angles' velocities, and what lies
//! between target and tip. Every step costs their distance \[m\] and the squared action. Never over.

use super::{BodyState, Memory, Robot, effort, jitter};
use crate::NumpyRandom;

/// The arm in a plane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reacher;

/// Tip and target among the bodies, after the world and the links.
const TIP: usize = 3;
const TARGET: usize = 4;

impl Robot for Reacher {
    const MODEL: &'static str = include_str!("models/reacher.xml");
    const FRAMES: usize = 2;

    fn begin(&self, position: &mut [f64], velocity: &mut [f64], random: &mut NumpyRandom) {
        jitter(position, 0.1, random);
        let target = loop {
            let place = [(); 2].map(|()| random.uniform(-0.2, 0.2));
            if place.iter().map(|x| x * x).sum::<f64>().sqrt() < 0.2 {
                break place;
            }
        };
        position[2..].copy_from_slice(&target);
        jitter(velocity, 0.005, random);
        velocity[2..].fill(0.0);
    }

    /// What lies between target and tip \[m\].
    fn derive(&self, memory: &mut Memory) -> Vec<f64> {
        let (tip, target) = (memory.xpos()[TIP], memory.xpos()[TARGET]);
        tip.iter().zip(target).map(|(tip, target)| tip - target).collect()
    }

    fn observe(&self, state: &BodyState) -> Vec<f32> {
        let angles = &state.position[..2];
        (angles.iter().map(|angle| angle.cos()))
            .chain(angles.iter().map(|angle| angle.sin()))
            .chain(state.position[2..].iter().copied())
            .chain(state.velocity[..2].iter().copied())
            .chain(state.derived[..2].iter().copied())
            .map(|value| value as f32)
            .collect()
    }

    fn judge(&self, state: &BodyState, _: f64, action: &[f32]) -> (f64, bool) {
        // NumPy's norm is a product of vectors, in which sums are fused with products.
        let distance = state.derived.iter().fold(0.0, |sum, x| x.mul_add(*x, sum)).sqrt();
        (-distance - effort(1.0, action), false)
    }
}
