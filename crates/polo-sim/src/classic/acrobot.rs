//! Acrobot-v1: a double pendulum hangs from a bar; a motor at the joint between its two links swings the tip above the
//! bar by more than a link's length. Taken: a torque of -1, 0 or 1 N m (0, 1, 2), held for 0.2 s. Shown: cosine and
//! sine of both angles and both angular speeds. Every step but the last earns -1.

use std::f64::consts::{FRAC_PI_2, PI};

use polo_run::Result;
use serde::{Deserialize, Serialize};

use super::square;
use crate::{
    Action, Dynamics, NumpyRandom, Space,
    film::{ARM, BODY, GOAL, Picture},
};

/// Two links of 1 kg and 1 m, with the equations of motion of Sutton and Barto's book.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acrobot;

/// The links at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AcrobotState {
    /// Angle of the first link, 0 hanging, and of the second against the first \[rad\].
    pub angles: [f64; 2],
    /// Their angular speeds \[rad/s\].
    pub spins: [f64; 2],
    /// Nothing has moved yet: Gymnasium then holds the state in f32.
    pub fresh: bool,
}

const TIME_STEP: f64 = 0.2;
const MAX_SPINS: [f64; 2] = [4.0 * PI, 9.0 * PI];

impl Dynamics for Acrobot {
    type State = AcrobotState;

    fn observation_space(&self) -> Space {
        Space::symmetric(&[1.0, 1.0, 1.0, 1.0, MAX_SPINS[0] as f32, MAX_SPINS[1] as f32])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(3)
    }

    fn begin(&self, random: &mut NumpyRandom) -> AcrobotState {
        let [a, b, c, d] = [(); 4].map(|()| f64::from(random.uniform(-0.1, 0.1) as f32));
        AcrobotState { angles: [a, b], spins: [c, d], fresh: true }
    }

    fn observe(&self, state: &AcrobotState) -> Vec<f32> {
        let [first, second] = state.angles.map(|angle| {
            if state.fresh {
                let (sin, cos) = (angle as f32).sin_cos();
                return [cos, sin];
            }
            let (sin, cos) = angle.sin_cos();
            [cos as f32, sin as f32]
        });
        [first, second, state.spins.map(|spin| spin as f32)].concat()
    }

    fn advance(&self, state: &mut AcrobotState, action: &Action, _: &mut NumpyRandom) -> Result<(f64, bool)> {
        let torque = action.choice()? as f64 - 1.0;
        let [a, b] = state.angles;
        let [c, d] = state.spins;
        let [a, b, c, d] = runge_kutta([a, b, c, d], torque);
        *state = AcrobotState {
            angles: [wrap(a), wrap(b)],
            spins: [c.clamp(-MAX_SPINS[0], MAX_SPINS[0]), d.clamp(-MAX_SPINS[1], MAX_SPINS[1])],
            fresh: false,
        };
        let [a, b] = state.angles;
        let up = -a.cos() - (b + a).cos() > 1.0;
        Ok((if up { 0.0 } else { -1.0 }, up))
    }

    fn draw(&self, state: &AcrobotState) -> Option<Picture> {
        let [a, b] = state.angles;
        let elbow = [a.sin(), -a.cos()];
        let tip = [elbow[0] + (a + b).sin(), elbow[1] - (a + b).cos()];
        // Shown faster than it happens, as by Gymnasium: 15 steps a second.
        let bar = Picture::new([-2.2; 2], [2.2; 2], 1.0 / 15.0).line(GOAL, [-2.2, 1.0], [2.2, 1.0], 0.03);
        let links = bar.line(ARM, [0.0; 2], elbow, 0.2).line(ARM, elbow, tip, 0.2);
        Some(links.disc(BODY, [0.0; 2], 0.08).disc(BODY, elbow, 0.08))
    }
}

/// One step of the fourth order.
fn runge_kutta(y: [f64; 4], torque: f64) -> [f64; 4] {
    let half = TIME_STEP / 2.0;
    let along = |slope: [f64; 4], time: f64| [0, 1, 2, 3].map(|i| y[i] + time * slope[i]);
    let k1 = slope(y, torque);
    let k2 = slope(along(k1, half), torque);
    let k3 = slope(along(k2, half), torque);
    let k4 = slope(along(k3, TIME_STEP), torque);
    [0, 1, 2, 3].map(|i| y[i] + TIME_STEP / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

/// Time derivatives of both angles and both angular speeds. All masses and lengths are 1, distances to the centres of
/// mass 0.5, moments of inertia 1, gravity 9.8; the order of the operations is Gymnasium's.
fn slope([angle1, angle2, spin1, spin2]: [f64; 4], torque: f64) -> [f64; 4] {
    let (sin2, cos2) = angle2.sin_cos();
    let d1 = 0.25 + (1.0 + 0.25 + 2.0 * 0.5 * cos2) + 1.0 + 1.0;
    let d2 = (0.25 + 0.5 * cos2) + 1.0;
    let phi2 = 0.5 * 9.8 * (angle1 + angle2 - FRAC_PI_2).cos();
    let phi1 = -0.5 * square(spin2) * sin2 - 2.0 * 0.5 * spin2 * spin1 * sin2
        + (0.5 + 1.0) * 9.8 * (angle1 - FRAC_PI_2).cos()
        + phi2;
    let up2 = (torque + d2 / d1 * phi1 - 0.5 * square(spin1) * sin2 - phi2) / (0.25 + 1.0 - square(d2) / d1);
    [spin1, spin2, -(d2 * up2 + phi1) / d1, up2]
}

/// The same direction as an angle in \[-pi, pi\].
fn wrap(mut angle: f64) -> f64 {
    while angle > PI {
        angle -= 2.0 * PI;
    }
    while angle < -PI {
        angle += 2.0 * PI;
    }
    angle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Simulated};

    #[test]
    fn seed_42_moves_as_in_gymnasium() {
        let mut acrobot = Simulated::new(Acrobot);
        acrobot.reset(Some(42)).unwrap();
        let state = acrobot.state().unwrap();
        let start = [0.05479121_f32, -0.012224312, 0.07171959, 0.039473604];
        assert_eq!([state.angles, state.spins].concat(), start.map(f64::from));
        for action in [0, 2, 1, 2, 0] {
            assert_eq!(acrobot.step(&Action::Discrete(action)).unwrap().reward, -1.0);
        }
        let state = acrobot.state().unwrap();
        let end = [-0.05906748096834331, 0.1824874443775623, -0.12737414229415023, 0.047514250577739614];
        for (value, wanted) in [state.angles, state.spins].concat().into_iter().zip(end) {
            assert!((value - wanted).abs() < 1e-12, "{value} {wanted}");
        }
    }
}
