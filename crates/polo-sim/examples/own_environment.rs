//! An environment of one's own: one trait says how the world begins and moves, and the rest comes with it.
//!
//! A heater holds a room near 20 degrees. Run with `cargo run -p polo-sim --example own_environment`.

use polo_run::Result;
use polo_sim::{
    Action, Autoreset, Dynamics, Environment, NumpyRandom, Simulated, Space, TimeLimit, VectorEnvironment,
};

/// A room with a heater. What never changes stands here, what changes in the state.
struct Room {
    outside: f64,
}

impl Dynamics for Room {
    /// Degrees inside. Anything that serde can write may be a state, and with it goes saving and resuming.
    type State = f64;

    fn observation_space(&self) -> Space {
        Space::Box { low: vec![-50.0], high: vec![50.0] }
    }

    /// Off or on.
    fn action_space(&self) -> Space {
        Space::Discrete(2)
    }

    /// All chance comes from `random`, so that a seed decides everything.
    fn begin(&self, random: &mut NumpyRandom) -> f64 {
        random.uniform(10.0, 25.0)
    }

    fn observe(&self, inside: &f64) -> Vec<f32> {
        vec![*inside as f32]
    }

    /// Returns the reward, and whether the task is over: here, when the pipes freeze.
    fn advance(&self, inside: &mut f64, action: &Action, random: &mut NumpyRandom) -> Result<(f64, bool)> {
        let heating = if action.choice()? == 1 { 2.0 } else { 0.0 };
        *inside += heating + 0.05 * (self.outside - *inside) + 0.1 * random.normal();
        Ok((-(*inside - 20.0).abs(), *inside < 0.0))
    }
}

/// A day of such a room.
fn room() -> Box<dyn Environment> {
    Box::new(TimeLimit::new(Simulated::new(Room { outside: -5.0 }), 96))
}

/// What a policy earns in a day, in the mean over four rooms.
fn earns(policy: impl Fn(f32) -> usize) -> Result<f64> {
    let mut rooms = VectorEnvironment::new((0..4).map(|_| room()).collect(), Autoreset::SameStep)?;
    let mut seen = rooms.reset(Some(1))?;
    let mut earned = 0.0;
    for _ in 0..96 {
        let actions: Vec<Action> = seen.iter().map(|&inside| Action::Discrete(policy(inside))).collect();
        let step = rooms.step(&actions)?;
        earned += step.rewards.iter().sum::<f64>() / 4.0;
        seen = step.observations;
    }
    Ok(earned)
}

/// Compares a thermostat with a heater that is always on.
pub fn main() -> Result<()> {
    let thermostat = earns(|inside| usize::from(inside < 20.0))?;
    let always = earns(|_| 1)?;
    println!("a thermostat earns {thermostat:.1} a day, a heater that is always on {always:.1}");
    assert!(thermostat > always);
    Ok(())
}
