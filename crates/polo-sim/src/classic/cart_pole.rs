//! CartPole-v1: a pole stands on a cart, which is pushed left (0) or right (1) with 10 N, 50 times a second. Shown:
//! place \[m\] and speed of the cart, angle \[rad\] and angular speed of the pole. Every step earns 1. Over when the
//! cart is more than 2.4 m from the middle or the pole leans more than 12 degrees.

use polo_run::Result;
use serde::{Deserialize, Serialize};

use crate::{
    Action, Dynamics, NumpyRandom, Space,
    film::{ARM, BODY, GROUND, Picture},
};

/// The cart and its pole.
#[derive(Clone, Copy, Debug, Default)]
pub struct CartPole {
    /// Rewards of Sutton and Barto instead: 0 per step, -1 at the end.
    pub sutton_barto_reward: bool,
}

/// Cart and pole at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CartPoleState {
    /// Place of the cart \[m\].
    pub x: f64,
    /// Speed of the cart \[m/s\].
    pub speed: f64,
    /// Angle of the pole, 0 upright \[rad\].
    pub angle: f64,
    /// Angular speed of the pole \[rad/s\].
    pub spin: f64,
}

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = POLE_MASS + 1.0;
/// Half the length of the pole.
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = POLE_MASS * LENGTH;
const FORCE: f64 = 10.0;
const TIME_STEP: f64 = 0.02;
const X_LIMIT: f64 = 2.4;
const ANGLE_LIMIT: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;

impl Dynamics for CartPole {
    type State = CartPoleState;

    fn observation_space(&self) -> Space {
        Space::symmetric(&[X_LIMIT as f32 * 2.0, f32::INFINITY, (ANGLE_LIMIT * 2.0) as f32, f32::INFINITY])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(2)
    }

    fn begin(&self, random: &mut NumpyRandom) -> CartPoleState {
        let [x, speed, angle, spin] = [(); 4].map(|()| random.uniform(-0.05, 0.05));
        CartPoleState { x, speed, angle, spin }
    }

    fn observe(&self, state: &CartPoleState) -> Vec<f32> {
        [state.x, state.speed, state.angle, state.spin].map(|value| value as f32).to_vec()
    }

    fn advance(
        &self,
        state: &mut CartPoleState,
        action: &Action,
        _: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        let CartPoleState { x, speed, angle, spin } = *state;
        let force = if action.choice()? == 1 { FORCE } else { -FORCE };
        let (sin, cos) = angle.sin_cos();
        let push = (force + POLE_MASS_LENGTH * (spin * spin) * sin) / TOTAL_MASS;
        let spin_up =
            (GRAVITY * sin - cos * push) / (LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS));
        let speed_up = push - POLE_MASS_LENGTH * spin_up * cos / TOTAL_MASS;
        *state = CartPoleState {
            x: x + TIME_STEP * speed,
            speed: speed + TIME_STEP * speed_up,
            angle: angle + TIME_STEP * spin,
            spin: spin + TIME_STEP * spin_up,
        };
        let fallen = state.x.abs() > X_LIMIT || state.angle.abs() > ANGLE_LIMIT;
        let reward = match (self.sutton_barto_reward, fallen) {
            (false, _) => 1.0,
            (true, true) => -1.0,
            (true, false) => 0.0,
        };
        Ok((reward, fallen))
    }

    fn draw(&self, state: &CartPoleState) -> Option<Picture> {
        let (x, foot) = (state.x, [state.x, 0.3]);
        let top = [x + 2.0 * LENGTH * state.angle.sin(), foot[1] + 2.0 * LENGTH * state.angle.cos()];
        let end = |x: f64, picture: Picture| picture.line(GROUND, [x, -0.1], [x, 0.1], 0.03);
        let track = Picture::new([-2.7, -0.2], [2.7, 1.5], TIME_STEP).line(
            GROUND,
            [-X_LIMIT, 0.0],
            [X_LIMIT, 0.0],
            0.03,
        );
        let cart = end(-X_LIMIT, end(X_LIMIT, track)).rectangle(BODY, [x - 0.25, 0.0], [x + 0.25, 0.3]);
        Some(cart.line(ARM, foot, top, 0.09).disc(BODY, foot, 0.03))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Simulated};

    #[test]
    fn seed_42_moves_as_in_gymnasium() {
        let mut cart = Simulated::new(CartPole::default());
        cart.reset(Some(42)).unwrap();
        let values = |cart: &Simulated<CartPole>| {
            let state = cart.state().unwrap();
            [state.x, state.speed, state.angle, state.spin]
        };
        let start = [0.027395604855596334, -0.006112156024794771, 0.03585979199113824, 0.019736802905936393];
        assert_eq!(values(&cart), start);
        for action in [1, 0, 1, 1, 0, 0, 1, 0] {
            assert_eq!(cart.step(&Action::Discrete(action)).unwrap().reward, 1.0);
        }
        let end = [0.04957951475122846, -0.009044278230978864, 0.009456876106223795, 0.08440655404438185];
        assert_eq!(values(&cart), end);
    }

    #[test]
    fn sutton_and_bartos_reward_is_minus_one_at_the_fall() {
        let mut cart = Simulated::new(CartPole { sutton_barto_reward: true });
        cart.reset(Some(0)).unwrap();
        let mut earned = Vec::new();
        loop {
            let step = cart.step(&Action::Discrete(1)).unwrap();
            earned.push(step.reward);
            if step.terminated {
                break;
            }
        }
        assert!(earned.pop() == Some(-1.0) && earned.iter().all(|&reward| reward == 0.0), "{earned:?}");
    }
}
