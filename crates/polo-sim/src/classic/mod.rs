//! Environments written in Rust: Gymnasium's classic control, equal to Gymnasium 1.4 to the last bit where the arithmetic
//! allows (`tests/golden.rs` says how far), and three of polo's own.
//!
//! States are f64 and observations are states rounded to f32, as in Gymnasium. NumPy computes `x**2` of a scalar with
//! the C library's `pow`, which now and then differs from `x * x` in the last bit.

mod acrobot;
mod cart_pole;
mod linear_quadratic;
mod mountain_car;
mod mountain_car_continuous;
mod pendulum;
pub mod pendulum_offline;
mod point_maze;

pub use acrobot::{Acrobot, AcrobotState};
pub use cart_pole::{CartPole, CartPoleState};
pub use linear_quadratic::{LinearQuadratic, LinearQuadraticState, Optimum};
pub use mountain_car::{MountainCar, MountainCarState};
pub use mountain_car_continuous::{MountainCarContinuous, MountainCarContinuousState};
pub use pendulum::{Pendulum, PendulumState};
pub use pendulum_offline::PendulumOffline;
pub use point_maze::{PointMaze, PointMazeState};

/// `x**2` as NumPy computes it. The exponent is hidden from the compiler, which would turn the power into a product.
fn square(x: f64) -> f64 {
    x.powf(std::hint::black_box(2.0))
}
