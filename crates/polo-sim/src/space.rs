//! What an environment shows and takes: flat boxes of numbers, or one choice out of n.

use polo_run::{Problem, Result};
use serde::{Deserialize, Serialize};

use crate::random::NumpyRandom;

/// A set of observations or actions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Space {
    /// Vectors with a bound on each number, infinite where there is none. Both have the same length.
    Box {
        /// Least values.
        low: Vec<f32>,
        /// Greatest values.
        high: Vec<f32>,
    },
    /// One of `0..n`. As an observation it is shown as one number.
    Discrete(usize),
}

/// What an agent does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// A vector of a [`Space::Box`].
    Continuous(Vec<f32>),
    /// A choice of a [`Space::Discrete`].
    Discrete(usize),
}

impl Space {
    /// The box from `-bound` to `bound` in every one of its dimensions.
    pub fn symmetric(bound: &[f32]) -> Self {
        Space::Box { low: bound.iter().map(|bound| -bound).collect(), high: bound.to_vec() }
    }

    /// Numbers in a vector of a box; choices of a discrete space.
    pub fn size(&self) -> usize {
        match self {
            Space::Box { low, .. } => low.len(),
            Space::Discrete(n) => *n,
        }
    }

    /// Whether `action` lies in the space; NaN lies nowhere.
    pub fn contains(&self, action: &Action) -> bool {
        match (self, action) {
            (Space::Box { low, high }, Action::Continuous(values)) => {
                values.len() == low.len()
                    && values.iter().zip(low.iter().zip(high)).all(|(x, (low, high))| low <= x && x <= high)
            }
            (Space::Discrete(n), Action::Discrete(choice)) => choice < n,
            _ => false,
        }
    }

    /// A random element: uniform between finite bounds and over choices, standard normal without bounds, and equal to
    /// Gymnasium's `space.sample()` with the same generator, if a box is bounded throughout or not at all. Beyond a
    /// single bound the distance is exponential: other numbers than Gymnasium's from the same distribution.
    pub fn sample(&self, random: &mut NumpyRandom) -> Action {
        match self {
            Space::Box { low, high } => Action::Continuous(
                low.iter().zip(high).map(|(&low, &high)| between(low.into(), high.into(), random)).collect(),
            ),
            Space::Discrete(n) => Action::Discrete(random.below(*n as u64) as usize),
        }
    }

    /// Checks that `action` can be taken here: its kind, its size, and that all numbers are finite. Numbers beyond the
    /// bounds pass: what they do is the environment's business (most clip), as in Gymnasium.
    ///
    /// # Errors
    /// Says which of these is wrong.
    pub fn check_action(&self, action: &Action) -> Result<()> {
        match (self, action) {
            (Space::Box { low, .. }, Action::Continuous(values)) => {
                if values.len() != low.len() {
                    let (got, wanted) = (values.len(), low.len());
                    return Err(Problem::input(format!(
                        "an action of {got} numbers where {wanted} are taken"
                    ))
                    .hint("the policy was made for another environment"));
                }
                match values.iter().position(|value| !value.is_finite()) {
                    Some(index) => Err(Problem::input(format!("action[{index}] is {}", values[index])).hint(
                        "the policy has diverged, most likely; lower its learning rate or clip its gradients",
                    )),
                    None => Ok(()),
                }
            }
            (Space::Discrete(n), Action::Discrete(choice)) if choice < n => Ok(()),
            (Space::Discrete(n), Action::Discrete(choice)) => {
                Err(Problem::input(format!("action {choice} is not one of the {n} choices"))
                    .hint("choices are counted from 0"))
            }
            (Space::Box { low, .. }, Action::Discrete(_)) => {
                Err(Problem::input("a discrete action where a continuous one is taken")
                    .hint(format!("give Action::Continuous with {} numbers", low.len())))
            }
            (Space::Discrete(n), Action::Continuous(_)) => {
                Err(Problem::input("a continuous action where a discrete one is taken")
                    .hint(format!("give Action::Discrete with one of 0..{n}")))
            }
        }
    }

    /// Checks what an environment shows: its size, and that all numbers are finite.
    ///
    /// # Errors
    /// Says which of these is wrong.
    pub fn check_observation(&self, observation: &[f32]) -> Result<()> {
        let wanted = match self {
            Space::Box { low, .. } => low.len(),
            Space::Discrete(_) => 1,
        };
        if observation.len() != wanted {
            return Err(Problem::input(format!(
                "the environment shows {} numbers, and its observation space has {wanted}",
                observation.len()
            ))
            .hint("make the observation space of the environment say what it shows"));
        }
        match observation.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(Problem::input(format!("observation[{index}] is {}", observation[index]))
                .hint("the simulation has become unstable; bound its actions or shorten its time step")),
            None => Ok(()),
        }
    }
}

fn between(low: f64, high: f64, random: &mut NumpyRandom) -> f32 {
    let exponential = |random: &mut NumpyRandom| -(1.0 - random.unit()).ln();
    let draw = match (low.is_finite(), high.is_finite()) {
        (true, true) => random.uniform(low, high),
        (true, false) => low + exponential(random),
        (false, true) => high - exponential(random),
        (false, false) => random.normal(),
    };
    draw as f32
}

impl Action {
    /// The choice.
    ///
    /// # Errors
    /// A continuous action.
    pub fn choice(&self) -> Result<usize> {
        match self {
            Action::Discrete(choice) => Ok(*choice),
            Action::Continuous(_) => Err(Problem::input("a continuous action where a discrete one is taken")
                .hint("give Action::Discrete")),
        }
    }

    /// The numbers.
    ///
    /// # Errors
    /// A discrete action.
    pub fn values(&self) -> Result<&[f32]> {
        match self {
            Action::Continuous(values) => Ok(values),
            Action::Discrete(_) => Err(Problem::input("a discrete action where a continuous one is taken")
                .hint("give Action::Continuous")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_gymnasiums() {
        let mut random = NumpyRandom::new(0);
        let choices: Vec<Action> = (0..10).map(|_| Space::Discrete(3).sample(&mut random)).collect();
        assert_eq!(choices, [2, 1, 1, 0, 0, 0, 0, 0, 0, 2].map(Action::Discrete));
        let wanted = Action::Continuous(vec![0.54784673, -0.92085314, -1.836_106]);
        assert_eq!(Space::symmetric(&[2.0; 3]).sample(&mut NumpyRandom::new(0)), wanted);
    }

    #[test]
    fn samples_lie_in_the_space() {
        let inf = f32::INFINITY;
        let spaces = [
            Space::Discrete(1),
            Space::Discrete(5),
            Space::Box { low: vec![-1.0, 2.0, -inf, -inf], high: vec![1.0, inf, -3.0, inf] },
        ];
        let mut random = NumpyRandom::new(1);
        for space in spaces {
            for _ in 0..200 {
                let action = space.sample(&mut random);
                assert!(space.contains(&action) && space.check_action(&action).is_ok(), "{action:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |space: &Space, action: Action, message: &str| {
            assert!(!space.contains(&action));
            let problem = space.check_action(&action).unwrap_err();
            assert_eq!(problem.message(), message);
            assert!(problem.hint_text().is_some());
        };
        let (square, coin) = (Space::symmetric(&[1.0, 1.0]), Space::Discrete(2));
        check(&square, Action::Continuous(vec![0.0]), "an action of 1 numbers where 2 are taken");
        check(&square, Action::Continuous(vec![0.0, f32::NAN]), "action[1] is NaN");
        check(&square, Action::Discrete(0), "a discrete action where a continuous one is taken");
        check(&coin, Action::Discrete(2), "action 2 is not one of the 2 choices");
        check(&coin, Action::Continuous(vec![0.0]), "a continuous action where a discrete one is taken");
        let outside = Action::Continuous(vec![0.0, 3.0]);
        assert!(!square.contains(&outside) && square.check_action(&outside).is_ok());
        assert!(square.check_observation(&[0.0]).is_err() && coin.check_observation(&[1.0]).is_ok());
        assert!(square.check_observation(&[0.0, f32::INFINITY]).is_err());
    }
}
