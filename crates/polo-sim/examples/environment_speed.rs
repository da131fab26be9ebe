//! Steps per second of an environment under random actions on one thread; `bench/environment_speed.py` compares them
//! with those of other simulators.
//!
//! `environment_speed ID STEPS COPIES`: with 1 copy a single environment, which is reset when its episode ends, else a
//! vector of so many; the figure counts the steps of all copies.

use std::time::Instant;

use polo_run::{Problem, Result};
use polo_sim::{Action, Autoreset, Environment, NumpyRandom, VectorEnvironment, make};

/// Actions that are drawn before the clock starts, and taken over and over.
const DRAWN: usize = 1024;

/// Prints steps per second.
pub fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| arguments.get(place).and_then(|text| text.parse::<usize>().ok());
    let (Some(id), Some(steps), Some(copies)) = (arguments.first(), number(1), number(2)) else {
        return Err(Problem::usage("environment_speed ID STEPS COPIES").hint("e.g. CartPole-v1 1000000 1"));
    };
    let mut environment = make(id)?;
    let mut random = NumpyRandom::new(0);
    let mut drawn = |copies: usize| -> Vec<Action> {
        (0..copies).map(|_| environment.action_space().sample(&mut random)).collect()
    };
    let seconds = if copies == 1 {
        let actions = drawn(DRAWN);
        single(&mut environment, &actions, steps)?
    } else {
        let actions: Vec<Vec<Action>> = (0..DRAWN).map(|_| drawn(copies)).collect();
        vector(VectorEnvironment::make(id, copies, Autoreset::NextStep)?, &actions, steps / copies)?
    };
    println!("{}", (steps / copies * copies) as f64 / seconds);
    Ok(())
}

fn single(environment: &mut dyn Environment, actions: &[Action], steps: usize) -> Result<f64> {
    environment.reset(Some(0))?;
    let clock = Instant::now();
    for action in actions.iter().cycle().take(steps) {
        if environment.step(action)?.done() {
            environment.reset(None)?;
        }
    }
    Ok(clock.elapsed().as_secs_f64())
}

fn vector(mut environments: VectorEnvironment, actions: &[Vec<Action>], steps: usize) -> Result<f64> {
    environments.reset(Some(0))?;
    let clock = Instant::now();
    for actions in actions.iter().cycle().take(steps) {
        environments.step(actions)?;
    }
    Ok(clock.elapsed().as_secs_f64())
}
