//! Gymnasium's robots (feature `mujoco`), moved by MuJoCo: states, rewards and ends are those of Gymnasium 1.4's `v5`
//! environments to the last bit, given the same release of MuJoCo. `docs/mujoco.md` says how to build with it.
//!
//! A [`Robot`] says how an episode begins, what is seen and what is earned; a [`Body`] moves it. MuJoCo's own memory is
//! written anew from the [`BodyState`] before every step, so that nothing but the state counts.

mod body;
mod hopper;

pub use body::{Body, BodyState, Robot};
pub use hopper::Hopper;

use crate::NumpyRandom;

/// The cost of an action in f32, in which NumPy computes it: `weight * sum(square(action))`.
fn effort(weight: f32, action: &[f32]) -> f64 {
    let squares = |of: &[f32]| of.iter().map(|x| x * x).fold(0.0, |sum: f32, x| sum + x);
    let sum = match action {
        // From eight numbers on NumPy adds in pairs.
        &[a, b, c, d, e, f, g, h] => {
            let pair = |a: f32, b: f32| a * a + b * b;
            (pair(a, b) + pair(c, d)) + (pair(e, f) + pair(g, h))
        }
        few => squares(few),
    };
    f64::from(weight * sum)
}

/// Adds a uniform draw from \[-`scale`, `scale`) to each number.
fn jitter(values: &mut [f64], scale: f64, random: &mut NumpyRandom) {
    values.iter_mut().for_each(|value| *value += random.uniform(-scale, scale));
}

/// The position from its number `from` on, then the velocity.
fn seen(state: &BodyState, from: usize) -> Vec<f32> {
    state.position[from..].iter().chain(&state.velocity).map(|&value| value as f32).collect()
}
