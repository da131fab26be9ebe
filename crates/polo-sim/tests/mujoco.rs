//! Robots against trajectories of Gymnasium; `golden/README.md` says how they were made.
#![cfg(feature = "mujoco")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;

use polo_sim::{
    Action, Dynamics, NumpyRandom, Space, make,
    mujoco::{Ant, Body, HalfCheetah, Hopper, InvertedPendulum, Reacher, Robot, Walker2d},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    every: usize,
    march: Vec<Row>,
    episodes: Vec<Episode>,
}

#[derive(Deserialize)]
struct Row {
    position: Vec<f64>,
    velocity: Vec<f64>,
    observation: Vec<f32>,
    earned: f64,
    over: usize,
}

#[derive(Deserialize)]
struct Episode {
    begin: Vec<f32>,
    end: Vec<f32>,
    steps: usize,
    earned: f64,
    ends: [bool; 2],
}

fn golden(id: &str) -> Golden {
    let path = format!("{}/tests/golden/mujoco/{id}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The actions of `golden/make_mujoco.py`.
fn action(space: &Space, step: usize) -> Action {
    let Space::Box { high, .. } = space else { panic!("robots take numbers") };
    let turn = |joint| ((step * (7 + 2 * joint) + 13 * joint) % 41) as f32 - 20.0;
    Action::Continuous(high.iter().enumerate().map(|(joint, bound)| turn(joint) / 16.0 * bound).collect())
}

/// Equal to the last bit, over a march through the end of the task and over episodes.
fn check<R: Robot>(id: &str, robot: R) {
    let golden = golden(id);
    let body = Body::new(robot).unwrap();
    let mut random = NumpyRandom::new(golden.seed);
    let mut state = body.begin(&mut random);
    let (mut earned, mut over) = (0.0, 0);
    for (index, row) in golden.march.iter().enumerate() {
        let step = index * golden.every;
        assert_eq!(state.position, row.position, "{id}, step {step}");
        assert_eq!(state.velocity, row.velocity, "{id}, step {step}");
        assert_eq!(body.observe(&state), row.observation, "{id}, step {step}");
        assert_eq!((earned, over), (row.earned, row.over), "{id}, step {step}");
        for step in step..step + golden.every {
            let action = action(&body.action_space(), step);
            let (reward, ends) = body.advance(&mut state, &action, &mut random).unwrap();
            earned += reward;
            over += usize::from(ends);
        }
    }

    let mut environment = make(id).unwrap();
    let mut seed = Some(golden.seed);
    for (number, episode) in golden.episodes.iter().enumerate() {
        assert_eq!(environment.reset(seed.take()).unwrap(), episode.begin, "{id}, episode {number}");
        let (mut steps, mut earned) = (0, 0.0);
        let last = loop {
            let step = environment.step(&action(environment.action_space(), steps)).unwrap();
            steps += 1;
            earned += step.reward;
            if step.done() {
                break step;
            }
        };
        assert_eq!((steps, earned), (episode.steps, episode.earned), "{id}, episode {number}");
        assert_eq!([last.terminated, last.truncated], episode.ends, "{id}, episode {number}");
        assert_eq!(last.observation, episode.end, "{id}, episode {number}");
    }
}

#[test]
fn a_state_of_another_body_is_refused() {
    let mut ant = make("Ant-v5").unwrap();
    ant.reset(None).unwrap();
    let problem = make("Hopper-v5").unwrap().restore(&ant.save()).unwrap_err();
    assert!(problem.message().ends_with("it is of another world"), "{problem}");
}

#[test]
fn hopper_is_gymnasiums() {
    check("Hopper-v5", Hopper);
}

#[test]
fn half_cheetah_is_gymnasiums() {
    check("HalfCheetah-v5", HalfCheetah);
}

#[test]
fn walker_is_gymnasiums() {
    check("Walker2d-v5", Walker2d);
}

#[test]
fn ant_is_gymnasiums() {
    check("Ant-v5", Ant);
}

#[test]
fn inverted_pendulum_is_gymnasiums() {
    check("InvertedPendulum-v5", InvertedPendulum);
}

#[test]
fn reacher_is_gymnasiums() {
    check("Reacher-v5", Reacher);
}
