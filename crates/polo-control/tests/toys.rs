//! Whether methods learn at all, on toys that each ask for one thing: to answer what is shown (identity, as the
//! environments of that name in stable-baselines3), to answer what was shown before (memory), to act for what comes much
//! later (delay). Each toy has a version with choices and one with numbers.
//!
//! Policies here are functions of the newest observation. In the toy of memory the observation therefore carries what a
//! recurrent policy would: the cue is shown once, a step of noise follows, and the last observation has the remembered
//! cue in places of its own, beside the noise.
#![allow(clippy::unwrap_used)]

use polo_control::{
    methods::{Control, Learner, dqn::Dqn, ppo::Ppo, sac::Sac, td3::Td3},
    off_policy, on_policy,
};
use polo_run::{Result, seed::Seeds};
use polo_sim::{
    Action, Autoreset, Dynamics, Environment, NumpyRandom, Simulated, Space, TimeLimit, VectorEnvironment,
};

/// Of the choices that may be shown.
const CHOICES: usize = 3;
/// Places of the chain.
const PLACES: usize = 10;

#[derive(Clone, Copy, Debug)]
enum Toy {
    Identity,
    Memory,
    Delay,
}
use Toy::{Delay, Identity, Memory};

/// A toy whose actions are numbers or choices.
#[derive(Clone, Copy)]
struct World {
    toy: Toy,
    numbers: bool,
}

/// (The cue, or the place on the chain; noise; steps since the beginning.)
type State = (f64, f64, u64);

impl World {
    fn environment(self) -> Box<dyn Environment> {
        let steps = match self.toy {
            Identity => 10,
            Memory => 3,
            Delay => 40,
        };
        Box::new(TimeLimit::new(Simulated::new(self), steps))
    }

    /// What the best policy earns in an episode.
    fn best(self) -> f64 {
        match self.toy {
            Identity => 10.0,
            Memory | Delay => 1.0,
        }
    }

    fn cue(self, random: &mut NumpyRandom) -> f64 {
        if self.numbers { random.uniform(-1.0, 1.0) } else { random.below(CHOICES as u64) as f64 }
    }

    /// A cue as it is shown; zeros where it is not to be seen.
    fn shown(self, cue: Option<f64>) -> Vec<f32> {
        match self.numbers {
            true => vec![cue.unwrap_or(0.0) as f32],
            false => (0..CHOICES).map(|choice| f32::from(u8::from(cue == Some(choice as f64)))).collect(),
        }
    }
}

/// 1 for the cue itself; at best 0 or a third, in the mean, for whoever does not look at it.
fn answered(cue: f64, action: &Action) -> f64 {
    match action {
        Action::Discrete(choice) => f64::from(u8::from(*choice as f64 == cue)),
        Action::Continuous(numbers) => 1.0 - 2.0 * (f64::from(numbers[0]) - cue).abs(),
    }
}

/// Whether the action is the one of two that leads on from a place: no action does everywhere.
fn leads_on(place: usize, action: &Action) -> bool {
    let right = [true, false, false, true, true, false, true, false, true, false][place];
    match action {
        Action::Discrete(choice) => (*choice == 1) == right,
        Action::Continuous(numbers) => (numbers[0] > 0.0) == right,
    }
}

impl Dynamics for World {
    type State = State;

    fn observation_space(&self) -> Space {
        let cue = self.shown(None).len();
        Space::symmetric(&vec![
            1.0;
            match self.toy {
                Identity => cue,
                Memory => 2 * cue + 1,
                Delay => PLACES,
            }
        ])
    }

    fn action_space(&self) -> Space {
        match (self.numbers, self.toy) {
            (true, _) => Space::symmetric(&[1.0]),
            (false, Delay) => Space::Discrete(2),
            (false, _) => Space::Discrete(CHOICES),
        }
    }

    fn begin(&self, random: &mut NumpyRandom) -> State {
        let cue = if matches!(self.toy, Delay) { 0.0 } else { self.cue(random) };
        (cue, random.uniform(-1.0, 1.0), 0)
    }

    fn observe(&self, &(cue, noise, time): &State) -> Vec<f32> {
        match self.toy {
            Identity => self.shown(Some(cue)),
            Memory => {
                let at = |moment| self.shown((time == moment).then_some(cue));
                [at(0), vec![noise as f32], at(2)].concat()
            }
            Delay => (0..PLACES).map(|place| f32::from(u8::from(place as f64 == cue))).collect(),
        }
    }

    fn advance(
        &self,
        (cue, noise, time): &mut State,
        action: &Action,
        random: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        let now = *time;
        (*noise, *time) = (random.uniform(-1.0, 1.0), now + 1);
        Ok(match self.toy {
            Identity => (answered(std::mem::replace(cue, self.cue(random)), action), false),
            Memory if now < 2 => (0.0, false),
            Memory => (answered(*cue, action), true),
            // One place on, or one back; nothing is earned before the far end.
            Delay => {
                let by = if leads_on(*cue as usize, action) { 1.0 } else { -1.0 };
                *cue = (*cue + by).max(0.0);
                let there = *cue >= PLACES as f64;
                *cue = cue.min(PLACES as f64 - 1.0);
                (f64::from(u8::from(there)), there)
            }
        })
    }
}

/// Shares of the best return before and after `steps` steps.
fn earned(method: &dyn Control, world: World, steps: u64, seed: u64) -> [f64; 2] {
    let environment = world.environment();
    let (observations, actions) =
        (environment.observation_space().clone(), environment.action_space().clone());
    let policies = match method.learner(&observations, &actions, &Seeds::new(seed)).unwrap() {
        Learner::OnPolicy(learner) => {
            let copies = (0..learner.plan().copies).map(|_| world.environment()).collect();
            let copies = VectorEnvironment::new(copies, Autoreset::SameStep).unwrap();
            let mut trainer = on_policy::Trainer::new(learner, copies, seed, steps).unwrap();
            let before = trainer.policy("toy");
            while trainer.done() < steps {
                trainer.iterate().unwrap();
            }
            [before, trainer.policy("toy")]
        }
        Learner::OffPolicy(learner) => {
            let mut trainer =
                off_policy::Trainer::new(learner, Some(environment), None, seed, steps).unwrap();
            let before = trainer.policy("toy");
            while trainer.done() < steps {
                trainer.step().unwrap();
            }
            [before, trainer.policy("toy")]
        }
    };
    policies.map(|policy| policy.evaluate(&mut *world.environment(), 1000, 50).unwrap().mean / world.best())
}

/// Three trained policies of three earn nine tenths of what the best one does, untrained ones in the mean less than six.
#[track_caller]
fn learns(method: &dyn Control, toy: Toy, numbers: bool, steps: u64) {
    let runs = [0, 1, 2].map(|seed| earned(method, World { toy, numbers }, steps, seed));
    let before = runs.iter().map(|[before, _]| before / 3.0).sum::<f64>();
    assert!(before < 0.6 && runs.iter().all(|[_, after]| *after >= 0.9), "{toy:?}: {runs:?}");
}

fn ppo() -> Ppo {
    Ppo {
        copies: Some(8),
        rollout: Some(32),
        minibatches: Some(4),
        epochs: Some(6),
        learning_rate: Some(3e-3),
        gamma: 0.95,
        hidden: vec![32],
        ..Ppo::default()
    }
}

#[test]
fn ppo_learns_with_choices() {
    for (toy, steps) in [(Identity, 4096), (Memory, 8192), (Delay, 12_288)] {
        learns(&ppo(), toy, false, steps);
    }
}

#[test]
fn ppo_learns_with_numbers() {
    for (toy, steps) in [(Identity, 16_384), (Memory, 24_576), (Delay, 16_384)] {
        learns(&ppo(), toy, true, steps);
    }
}

fn dqn() -> Dqn {
    Dqn {
        learning_rate: 3e-3,
        gamma: 0.9,
        batch: 32,
        random_steps: 200,
        train_every: 2,
        target_every: 25,
        hidden: vec![32],
        ..Dqn::default()
    }
}

#[test]
fn dqn_learns() {
    for (toy, steps) in [(Identity, 1500), (Memory, 2000), (Delay, 3000)] {
        learns(&dqn(), toy, false, steps);
    }
}

#[test]
fn sac_learns() {
    let sac = Sac {
        policy_rate: 3e-3,
        critic_rate: 3e-3,
        alpha: Some(0.01),
        gamma: 0.9,
        tau: 0.02,
        batch: 32,
        buffer: 5000,
        random_steps: 300,
        train_every: 2,
        policy_every: 1,
        hidden: vec![32],
        ..Sac::default()
    };
    for (toy, steps) in [(Identity, 2000), (Memory, 5000), (Delay, 3000)] {
        learns(&sac, toy, true, steps);
    }
}

#[test]
fn td3_learns() {
    let td3 = Td3 {
        learning_rate: 3e-3,
        gamma: 0.9,
        tau: 0.02,
        exploration_noise: 0.3,
        batch: 32,
        buffer: 5000,
        random_steps: 1000,
        train_every: 2,
        hidden: vec![32],
        ..Td3::default()
    };
    for (toy, steps) in [(Identity, 2000), (Memory, 5000), (Delay, 4000)] {
        learns(&td3, toy, true, steps);
    }
}

/// The chain is learnt through values of later places alone: who does not look ahead does not learn it.
#[test]
fn delay_asks_for_values_of_what_comes() {
    let blind: [(&dyn Control, u64); 2] =
        [(&Ppo { gamma: 0.0, ..ppo() }, 12_288), (&Dqn { gamma: 0.0, ..dqn() }, 3000)];
    for (method, steps) in blind {
        let runs = [0, 1, 2].map(|seed| earned(method, World { toy: Delay, numbers: false }, steps, seed));
        assert!(runs.iter().all(|[_, after]| *after < 0.6), "{runs:?}");
    }
}
