//! What all robots share: a model, MuJoCo's memory for it, and a state that can be saved.

use std::cell::RefCell;

use mujoco_rs::prelude::{MjData, MjModel};
use polo_run::{Problem, Result};
use serde::{Deserialize, Serialize};

use crate::{Action, Dynamics, NumpyRandom, Space};

/// The release of MuJoCo that the bindings are made for.
const RELEASE: &str = "3.17.0";

/// MuJoCo's memory of a moving body.
pub type Memory = MjData<Box<MjModel>>;

/// A robot and its task.
pub trait Robot: Send {
    /// The model in MJCF.
    const MODEL: &'static str;

    /// Steps of the simulation in a step of the environment.
    const FRAMES: usize;

    /// What all bodies weigh together \[kg\], where the model's densities are only relative.
    const MASS: Option<f64> = None;

    /// Moves position and velocity from rest to where an episode begins.
    fn begin(&self, position: &mut [f64], velocity: &mut [f64], random: &mut NumpyRandom);

    /// What [`Robot::observe`] and [`Robot::judge`] need beyond position and velocity. After a step of the simulation
    /// it is from the last evaluation of the forces, a moment before the position.
    fn derive(&self, _memory: &mut Memory) -> Vec<f64> {
        Vec::new()
    }

    /// What is seen of a state.
    fn observe(&self, state: &BodyState) -> Vec<f32>;

    /// How far the robot has come \[m\].
    fn way(&self, _state: &BodyState) -> f64 {
        0.0
    }

    /// The reward for `action`, which led to `state` with a mean speed along [`Robot::way`] of `speed` m/s, and whether
    /// the task is over.
    fn judge(&self, state: &BodyState, speed: f64, action: &[f32]) -> (f64, bool);
}

/// A body at one moment: all that its motion depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BodyState {
    /// Time since the episode began \[s\].
    pub time: f64,
    /// Positions of the joints \[m, rad, quaternions\].
    pub position: Vec<f64>,
    /// Velocities of the joints \[m/s, rad/s\].
    pub velocity: Vec<f64>,
    /// Accelerations from which the next solution for the contacts starts \[m/s², rad/s²\].
    pub warm_start: Vec<f64>,
    /// [`Robot::derive`].
    pub derived: Vec<f64>,
}

/// Moves a robot.
pub struct Body<R> {
    robot: R,
    memory: RefCell<Memory>,
    /// At rest, as the model says.
    rest: BodyState,
    seconds: f64,
}

impl<R: Robot> Body<R> {
    /// The body of a robot.
    ///
    /// # Errors
    /// The library that was found is of another release than the bindings; it cannot load the model.
    pub fn new(robot: R) -> Result<Self> {
        let found = mujoco_rs::mujoco_version();
        if found != RELEASE {
            return Err(Problem::input(format!("MuJoCo {found} was found where {RELEASE} is needed"))
                .hint("put the folder of the right libmujoco first in LD_LIBRARY_PATH; see docs/mujoco.md"));
        }
        let refused = |why: &dyn std::fmt::Display| {
            Problem::input(format!("MuJoCo cannot load the model of the robot: {why}"))
                .hint("this is a fault of polo's, or memory is short")
        };
        let mut model = MjModel::from_xml_string(R::MODEL).map_err(|why| refused(&why))?;
        if let Some(mass) = R::MASS {
            model.set_totalmass(mass);
        }
        let mut memory = MjData::try_new(Box::new(model)).map_err(|why| refused(&why))?;
        if R::MASS.is_some() {
            memory.set_const();
            memory.reset();
        }
        let seconds = memory.model_opt().timestep * R::FRAMES as f64;
        let rest = read(&mut memory, &robot);
        Ok(Self { robot, memory: RefCell::new(memory), rest, seconds })
    }
}

fn read(memory: &mut Memory, robot: &impl Robot) -> BodyState {
    BodyState {
        time: memory.time(),
        position: memory.qpos().to_vec(),
        velocity: memory.qvel().to_vec(),
        warm_start: memory.qacc_warmstart().to_vec(),
        derived: robot.derive(memory),
    }
}

fn write(state: &BodyState, memory: &mut Memory) {
    memory.set_time(state.time);
    memory.qpos_mut().copy_from_slice(&state.position);
    memory.qvel_mut().copy_from_slice(&state.velocity);
    memory.qacc_warmstart_mut().copy_from_slice(&state.warm_start);
}

impl<R: Robot> Dynamics for Body<R> {
    type State = BodyState;

    fn observation_space(&self) -> Space {
        Space::symmetric(&vec![f32::INFINITY; self.robot.observe(&self.rest).len()])
    }

    fn action_space(&self) -> Space {
        let memory = self.memory.borrow();
        let bounds = memory.model().actuator_ctrlrange();
        let [low, high] = [0, 1].map(|side| bounds.iter().map(|bound| bound[side] as f32).collect());
        Space::Box { low, high }
    }

    fn begin(&self, random: &mut NumpyRandom) -> BodyState {
        let mut state = self.rest.clone();
        self.robot.begin(&mut state.position, &mut state.velocity, random);
        let mut memory = self.memory.borrow_mut();
        memory.reset();
        write(&state, &mut memory);
        memory.forward();
        read(&mut memory, &self.robot)
    }

    fn observe(&self, state: &BodyState) -> Vec<f32> {
        self.robot.observe(state)
    }

    fn fits(&self, state: &BodyState) -> bool {
        let sizes = |of: &BodyState| {
            [&of.position, &of.velocity, &of.warm_start, &of.derived].map(|numbers| numbers.len())
        };
        sizes(state) == sizes(&self.rest)
    }

    fn advance(&self, state: &mut BodyState, action: &Action, _: &mut NumpyRandom) -> Result<(f64, bool)> {
        let action = action.values()?;
        let mut memory = self.memory.borrow_mut();
        write(state, &mut memory);
        // MuJoCo clips them.
        memory.ctrl_mut().iter_mut().zip(action).for_each(|(control, &value)| *control = value.into());
        for _ in 0..R::FRAMES {
            memory.step();
        }
        let before = self.robot.way(state);
        *state = read(&mut memory, &self.robot);
        let speed = (self.robot.way(state) - before) / self.seconds;
        Ok(self.robot.judge(state, speed, action))
    }
}
