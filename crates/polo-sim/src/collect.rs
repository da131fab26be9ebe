//! Acting in an environment and writing down what happened: how a [`Dataset`] is made.

use polo_run::{
    Problem, Result,
    seed::{Seeds, below},
};

use crate::{
    Action, Environment, NumpyRandom,
    dataset::{About, Dataset},
    replay::Batch,
};

/// How much to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Whole episodes.
    Episodes(u64),
    /// Episodes until there are so many steps; the last is cut where they are.
    Steps(u64),
}

/// Acts and writes down. The first episode begins with `seed`, the others go on from there. `act` decides on seeing an
/// observation, with random numbers of its own that `seed` decides, too. `tell` hears of the steps and the returns of
/// whole episodes so far.
///
/// # Errors
/// Nothing asked for; those of the environment and of `act`; observations and rewards that are not finite.
pub fn collect(
    environment: &mut dyn Environment,
    about: About,
    amount: Amount,
    seed: u64,
    mut act: impl FnMut(&[f32], &mut NumpyRandom) -> Result<Action>,
    mut tell: impl FnMut(u64, &[f64]),
) -> Result<Dataset> {
    // The environment draws from the stream that begins with `seed` itself.
    let mut random = NumpyRandom::new(below(&mut Seeds::new(seed).rng("collect/actions", 0), u64::MAX));
    let enough = |steps: u64, episodes: usize| match amount {
        Amount::Episodes(wanted) => episodes as u64 >= wanted,
        Amount::Steps(wanted) => steps >= wanted,
    };
    let unstable =
        |what: Problem, episode: usize| what.place(format!("{}, episode {episode}", about.environment));
    let (mut held, mut ends, mut returns) = (Batch::default(), Vec::new(), Vec::new());
    let mut begin = Some(seed);
    while !enough(ends.len() as u64, returns.len()) {
        let mut seen = environment.reset(begin.take())?;
        let space = environment.observation_space();
        space.check_observation(&seen).map_err(|problem| unstable(problem, returns.len()))?;
        let mut earned = 0.0;
        loop {
            let action = act(&seen, &mut random)?;
            let step = environment.step(&action)?;
            step.check(environment.observation_space())
                .map_err(|problem| unstable(problem, returns.len()))?;
            held.observations.extend_from_slice(&seen);
            match action {
                Action::Continuous(values) => held.actions.extend(values),
                Action::Discrete(choice) => held.actions.push(choice as f32),
            }
            held.rewards.push(step.reward as f32);
            held.next_observations.extend_from_slice(&step.observation);
            held.terminated.push(f32::from(u8::from(step.terminated)));
            ends.push(step.done());
            earned += step.reward;
            if step.done() {
                returns.push(earned);
            }
            tell(ends.len() as u64, &returns);
            if step.done() || enough(ends.len() as u64, returns.len()) {
                break;
            }
            seen = step.observation;
        }
    }
    Dataset::new(about, held, ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dynamics, Simulated, Space, TimeLimit, make};

    fn collected(id: &str, amount: Amount, seed: u64) -> Dataset {
        let mut environment = make(id).unwrap();
        let about = About {
            environment: id.into(),
            observations: environment.observation_space().clone(),
            actions: environment.action_space().clone(),
            source: "random".into(),
        };
        let space = about.actions.clone();
        collect(&mut *environment, about, amount, seed, |_, random| Ok(space.sample(random)), |_, _| {})
            .unwrap()
    }

    #[test]
    fn episodes_are_whole_and_follow_each_other() {
        let data = collected("CartPole-v1", Amount::Episodes(5), 3);
        assert_eq!(data.episodes().len(), 5);
        let transitions = data.transitions();
        for episode in data.episodes() {
            for row in episode.clone().skip(1) {
                let (after, before) = (4 * (row - 1)..4 * row, 4 * row..4 * (row + 1));
                assert_eq!(transitions.next_observations[after], transitions.observations[before]);
            }
            assert_eq!(transitions.terminated[episode.end - 1], 1.0, "a pole that is pushed at random falls");
        }
        assert_eq!(data, collected("CartPole-v1", Amount::Episodes(5), 3));
        assert_ne!(data, collected("CartPole-v1", Amount::Episodes(5), 4));
    }

    #[test]
    fn steps_cut_the_last_episode_and_time_limits_are_no_ends() {
        let data = collected("Pendulum-v1", Amount::Steps(450), 0);
        assert_eq!(data.episodes(), [0..200, 200..400, 400..450]);
        assert!(data.transitions().terminated.iter().all(|&over| over == 0.0));
    }

    /// Shows and earns 1, and from some step on something else.
    struct Breaking {
        after: u32,
        shown: f32,
        earned: f64,
    }

    impl Dynamics for Breaking {
        type State = u32;

        fn observation_space(&self) -> Space {
            Space::symmetric(&[f32::INFINITY])
        }

        fn action_space(&self) -> Space {
            Space::Discrete(2)
        }

        fn begin(&self, _: &mut NumpyRandom) -> u32 {
            0
        }

        fn observe(&self, steps: &u32) -> Vec<f32> {
            vec![if *steps >= self.after { self.shown } else { 1.0 }]
        }

        fn advance(&self, steps: &mut u32, _: &Action, _: &mut NumpyRandom) -> Result<(f64, bool)> {
            *steps += 1;
            Ok((if *steps >= self.after { self.earned } else { 1.0 }, false))
        }
    }

    #[test]
    fn what_is_not_finite_is_named_with_its_place() {
        let check = |after, shown, earned, message: &str| {
            let mut world = TimeLimit::new(Simulated::new(Breaking { after, shown, earned }), 5);
            let about = About {
                environment: "Breaking-v0".into(),
                observations: world.observation_space().clone(),
                actions: Space::Discrete(2),
                source: String::new(),
            };
            let act = |_: &[f32], _: &mut NumpyRandom| Ok(Action::Discrete(0));
            let problem = collect(&mut world, about, Amount::Episodes(2), 0, act, |_, _| {}).unwrap_err();
            assert_eq!((problem.message(), problem.place_text()), (message, Some("Breaking-v0, episode 0")));
        };
        check(0, f32::NAN, 1.0, "observation[0] is NaN");
        check(3, f32::INFINITY, 1.0, "observation[0] is inf");
        check(3, 1.0, f64::NAN, "the environment's reward is NaN");
    }
}
