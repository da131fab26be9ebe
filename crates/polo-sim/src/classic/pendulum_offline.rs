//! polo/PendulumOffline-v0: [`Pendulum`] with actions in \[-1, 1\] (clipped), twice which is the torque, and with what
//! tests of offline methods need: an expert in closed form and behaviours of known return, in place of downloads.
//!
//! | behaviour | acts | return, mean and deviation of 2,000 episodes | score |
//! |---|---|---|---|
//! | `random` | uniformly | -1226, 286 | 0 |
//! | `medium` | each step uniformly or as the expert, evenly | -562, 195 | 62 |
//! | `expert-noisy` | as the expert, plus normal noise of 0.3 | -169, 99 | 99 |
//! | `expert` | see [`expert`] | -157, 92 | 100 |
//!
//! An episode has 200 steps and is cut then, never over. The score is that of [`crate::scores`].

use polo_run::{Problem, Result};

use super::{Pendulum, PendulumState};
use crate::{
    Action, Dynamics, Environment, NumpyRandom, Space,
    collect::{Amount, collect},
    dataset::{About, Dataset},
    film::Picture,
    make,
};

/// Name of the environment.
pub const ID: &str = "polo/PendulumOffline-v0";

/// The pendulum of offline tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct PendulumOffline;

const MAX_TORQUE: f32 = 2.0;

impl Dynamics for PendulumOffline {
    type State = PendulumState;

    fn observation_space(&self) -> Space {
        Pendulum.observation_space()
    }

    fn action_space(&self) -> Space {
        Space::symmetric(&[1.0])
    }

    fn begin(&self, random: &mut NumpyRandom) -> PendulumState {
        Pendulum.begin(random)
    }

    fn observe(&self, state: &PendulumState) -> Vec<f32> {
        Pendulum.observe(state)
    }

    fn advance(
        &self,
        state: &mut PendulumState,
        action: &Action,
        random: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        // Pendulum clips torques where this environment clips actions.
        let torque = Action::Continuous(vec![MAX_TORQUE * action.values()?[0]]);
        Pendulum.advance(state, &torque, random)
    }

    fn draw(&self, state: &PendulumState) -> Option<Picture> {
        Pendulum.draw(state)
    }
}

/// The expert's action: with `E = spin²/6 + 5 cos angle`, the energy that is 5 upright and at rest, and the torque `u`,
/// twice the action and within \[-2, 2\],
/// - near the top (`cos angle > 0.9`, `|spin| < 3.5`) it holds: `u = -(10 angle + 2.5 spin)`;
/// - at rest elsewhere (`|spin| < 0.01`) it begins: `u = 2`;
/// - else it pumps: `u = spin (5 - E)`.
pub fn expert(observation: &[f32]) -> f32 {
    let [cos, sin, spin] = [0, 1, 2].map(|at| f64::from(observation[at]));
    let torque = if cos > 0.9 && spin.abs() < 3.5 {
        -(10.0 * sin.atan2(cos) + 2.5 * spin)
    } else if spin.abs() < 0.01 {
        2.0
    } else {
        spin * (5.0 - (spin * spin / 6.0 + 5.0 * cos))
    };
    (torque / 2.0).clamp(-1.0, 1.0) as f32
}

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Uniformly random actions.
    Random,
    /// Each step a fair coin decides between the expert and a random action.
    Medium,
    /// The expert, plus normal noise with deviation 0.3, cut to \[-1, 1\].
    ExpertNoisy,
    /// The expert.
    Expert,
}

impl Behaviour {
    /// All, from worst to best.
    pub const ALL: [Self; 4] = [Self::Random, Self::Medium, Self::ExpertNoisy, Self::Expert];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Medium => "medium",
            Self::ExpertNoisy => "expert-noisy",
            Self::Expert => "expert",
        }
    }

    /// The behaviour of that name.
    ///
    /// # Errors
    /// [`polo_run::Kind::Usage`], with the names that there are.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|behaviour| behaviour.name() == name).ok_or_else(|| {
            Problem::usage(format!("`{name}` is no behaviour of {ID}"))
                .hint(format!("choose {}", Self::ALL.map(Self::name).join(", ")))
        })
    }

    /// Its action on seeing `observation`.
    pub fn act(self, observation: &[f32], random: &mut NumpyRandom) -> Action {
        let action = match self {
            Self::Random => random.uniform(-1.0, 1.0) as f32,
            Self::Medium if random.unit() < 0.5 => random.uniform(-1.0, 1.0) as f32,
            Self::ExpertNoisy => {
                (f64::from(expert(observation)) + 0.3 * random.normal()).clamp(-1.0, 1.0) as f32
            }
            Self::Medium | Self::Expert => expert(observation),
        };
        Action::Continuous(vec![action])
    }
}

/// So many episodes of a behaviour.
///
/// # Errors
/// No episodes.
pub fn dataset(behaviour: Behaviour, episodes: u64, seed: u64) -> Result<Dataset> {
    let mut environment = make(ID)?;
    let about = About {
        environment: ID.into(),
        observations: environment.observation_space().clone(),
        actions: environment.action_space().clone(),
        source: behaviour.name().into(),
    };
    collect(
        &mut *environment,
        about,
        Amount::Episodes(episodes),
        seed,
        |observation, random| Ok(behaviour.act(observation, random)),
        |_, _| {},
    )
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::Simulated;

    /// Mean and deviation of 2,000 episodes that were measured apart from this program.
    #[track_caller]
    fn check(behaviour: Behaviour, mean: f64, deviation: f64) {
        let returns = dataset(behaviour, 400, 11).unwrap().returns();
        let n = returns.len() as f64;
        let found = returns.iter().sum::<f64>() / n;
        let spread = (returns.iter().map(|x| (x - found).powi(2)).sum::<f64>() / n).sqrt();
        let error = deviation * (1.0 / n + 1.0 / 2000.0).sqrt();
        assert!((found - mean).abs() < 3.0 * error, "{}: {found}, not {mean}", behaviour.name());
        assert!((spread / deviation - 1.0).abs() < 0.15, "{}: {spread}, not {deviation}", behaviour.name());
    }

    #[test]
    fn behaviours_earn_what_was_measured() {
        check(Behaviour::Random, -1226.0, 286.0);
        check(Behaviour::Medium, -562.0, 195.0);
        check(Behaviour::ExpertNoisy, -169.0, 99.0);
        check(Behaviour::Expert, -157.0, 92.0);
    }

    /// The formulas themselves: w <- clip(w + 0.05 (15 sin th + 3 u), -8, 8), th <- th + 0.05 w, u = 2a, and the reward
    /// before the step.
    #[test]
    fn steps_are_those_of_the_formulas() {
        let mut pendulum = Simulated::new(PendulumOffline);
        for (angle, spin, action) in [(0.3, -1.0, 0.5), (4.0, 7.9, 1.0), (-9.0, -7.9, -1.0), (3.0, 2.0, 3.0)]
        {
            pendulum.set_state(PendulumState { angle, spin });
            let step = pendulum.step(&Action::Continuous(vec![action])).unwrap();
            let u = 2.0 * f64::from(action).clamp(-1.0, 1.0);
            let turned = (angle + PI).rem_euclid(2.0 * PI) - PI;
            let reward = -(turned * turned + 0.1 * spin * spin + 0.001 * u * u);
            let w = (spin + 0.05 * (15.0 * f64::sin(angle) + 3.0 * u)).clamp(-8.0, 8.0);
            let state = pendulum.state().unwrap();
            assert!((step.reward - reward).abs() < 1e-7 && !step.terminated, "{} {reward}", step.reward);
            assert!((state.spin - w).abs() < 1e-12 && (state.angle - (angle + 0.05 * w)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_dataset_is_cut_after_200_steps_and_decided_by_its_seed() {
        let data = dataset(Behaviour::Medium, 3, 5).unwrap();
        assert_eq!(data.episodes(), [0..200, 200..400, 400..600]);
        assert!(data.transitions().terminated.iter().all(|&over| over == 0.0));
        assert_eq!(data, dataset(Behaviour::Medium, 3, 5).unwrap());
        assert_ne!(data, dataset(Behaviour::Medium, 3, 6).unwrap());
        assert!(dataset(Behaviour::Expert, 0, 0).is_err());
        assert!(Behaviour::named("best").unwrap_err().hint_text().unwrap().contains("expert-noisy"));
    }
}
