//! Gymnasium's robots (feature `mujoco`), moved by MuJoCo: states, rewards and ends are those of Gymnasium 1.4's `v5`
//! environments to the last bit, given the same release of MuJoCo. `docs/mujoco.md` says how to build with it.
//!
//! A [`Robot`] says how an episode begins, what is seen and what is earned; a [`Body`] moves it. MuJoCo's own memory is
//! written anew from the [`BodyState`] before every step, so that nothing but the state counts.

mod ant;
mod body;
mod half_cheetah;
mod hopper;
mod inverted_pendulum;
mod reacher;
mod walker;

pub use ant::Ant;
pub use body::{Body, BodyState, Memory, Robot};
pub use half_cheetah::HalfCheetah;
pub use hopper::Hopper;
pub use inverted_pendulum::InvertedPendulum;
pub use reacher::Reacher;
pub use walker::Walker2d;

use crate::NumpyRandom;

/// `sum(square(values))`, added as NumPy adds: from eight numbers on in eight lanes, up to 128 of them.
macro_rules! squares {
    ($name:ident, $number:ty) => {
        fn $name(values: &[$number]) -> $number {
            let sum = |of: &[$number]| of.iter().fold(0.0, |sum: $number, x| sum + x * x);
            let (eights, rest) = values.as_chunks::<8>();
            let Some((first, more)) = eights.split_first() else { return sum(rest) };
            let mut lanes = first.map(|x| x * x);
            for eight in more {
                lanes.iter_mut().zip(eight).for_each(|(lane, x)| *lane += x * x);
            }
            let [a, b, c, d, e, f, g, h] = lanes;
            rest.iter().fold(((a + b) + (c + d)) + ((e + f) + (g + h)), |sum, x| sum + x * x)
        }
    };
}
squares!(squares_f32, f32);
squares!(squares_f64, f64);

/// What an action costs: `weight * sum(square(action))`, in f32 as in NumPy.
fn effort(weight: f32, action: &[f32]) -> f64 {
    f64::from(weight * squares_f32(action))
}

/// Adds a uniform draw from \[-`scale`, `scale`) to each number.
fn jitter(values: &mut [f64], scale: f64, random: &mut NumpyRandom) {
    values.iter_mut().for_each(|value| *value += random.uniform(-scale, scale));
}

/// Adds a normal draw of deviation `scale` to each number.
fn blur(values: &mut [f64], scale: f64, random: &mut NumpyRandom) {
    values.iter_mut().for_each(|value| *value += scale * random.normal());
}

/// The position from its number `from` on, then the velocity.
fn seen(state: &BodyState, from: usize) -> Vec<f32> {
    state.position[from..].iter().chain(&state.velocity).map(|&value| value as f32).collect()
}

/// The position but for the way, then the velocity, at most `top`.
fn seen_walking(state: &BodyState, top: f32) -> Vec<f32> {
    let mut observation = seen(state, 1);
    observation[state.position.len() - 1..].iter_mut().for_each(|speed| *speed = speed.clamp(-top, top));
    observation
}

/// 1 for every step in health.
fn survival(healthy: bool) -> f64 {
    f64::from(u8::from(healthy))
}
