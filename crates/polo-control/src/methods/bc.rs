//! BC: behaviour cloning.
//!
//! ```text
//! numbers: L = mean over rows and dimensions of (mu(s) - a)²,   mu(s) = centre + scale tanh(u)
//! choices: L = -mean log pi(a|s)
//! ```

use polo_nn::{
    distributions::{Bounds, Categorical},
    files::Tensors,
};
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, Source, td3_bc::imitation};
use crate::{
    data::Wishes,
    deterministic::shape,
    network::{Adam, Network},
    off_policy::{self, Schedule},
    policy::{Head, Policy, decide},
    settings::MethodSettings,
};

/// Settings of `polo train bc`. Defaults as in common offline baselines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bc {
    /// Step size of Adam.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
}

impl Default for Bc {
    fn default() -> Self {
        Self { learning_rate: 3e-4, batch: 256, hidden: vec![256, 256] }
    }
}

impl Settings for Bc {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Bc {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Bc {
    fn source(&self) -> Source {
        Source::Data
    }

    fn wishes(&self) -> Wishes {
        Wishes { normalise: true, ..Wishes::default() }
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let (inputs, bounds) = match actions {
            Space::Discrete(_) => (super::numbers_in(observations)?, None),
            Space::Box { .. } => {
                let (inputs, low, high) = super::numbers_in_and_out(observations, actions)?;
                (inputs, Some(Bounds::new(low, high)))
            }
        };
        let network =
            Network::new(shape(&self.hidden, inputs, actions.size(), 1), "policy", &seeds.child("policy"));
        Ok(Learner::OffPolicy(Box::new(BcLearner {
            settings: self.clone(),
            actions: actions.clone(),
            bounds,
            network,
        })))
    }
}

struct BcLearner {
    settings: Bc,
    actions: Space,
    /// Of actions that are numbers.
    bounds: Option<Bounds>,
    network: Network,
}

impl BcLearner {
    fn head(&self) -> Head {
        if self.bounds.is_some() { Head::Squashed } else { Head::Greatest }
    }
}

impl off_policy::Learner for BcLearner {
    fn schedule(&self) -> Schedule {
        super::offline_schedule(self.settings.batch)
    }

    fn explore(&self, observation: &[f32], _step: u64, _total: u64, _seeds: &Seeds) -> Action {
        decide(self.head(), &self.actions, &self.network.evaluate(observation))
    }

    fn update(&mut self, batch: &Batch, _update: u64, _seeds: &Seeds) -> Metrics {
        let rows = batch.len();
        let tape = self.network.forward(&batch.observations);
        let outputs = tape.outputs();
        let (loss, slopes) = match &self.bounds {
            Some(Bounds { centre, scale }) => {
                let d = scale.len();
                let action = |(place, u): (usize, &f32)| centre[place % d] + scale[place % d] * u.tanh();
                let own: Vec<f32> = outputs.iter().enumerate().map(action).collect();
                let (loss, mut slopes) = imitation(&own, &batch.actions, scale, &vec![1.0; rows]);
                for (place, (slope, u)) in slopes.iter_mut().zip(&outputs).enumerate() {
                    *slope *= scale[place % d] * (1.0 - u.tanh().powi(2));
                }
                (loss, slopes)
            }
            None => {
                let taken: Vec<usize> = batch.actions.iter().map(|&choice| choice as usize).collect();
                let chances = Categorical::new(outputs, self.actions.size());
                let logp: f32 = taken.iter().enumerate().map(|(row, &choice)| chances.row(row)[choice]).sum();
                let each = -1.0 / rows as f32;
                (each * logp, chances.push_back(&taken, &vec![each; rows], &vec![0.0; rows]))
            }
        };
        let mut gradients = self.network.gradients();
        self.network.push_back(&tape, &slopes, &mut gradients);
        let adam = Adam { learning_rate: self.settings.learning_rate, epsilon: 1e-8 };
        self.network.step(gradients, adam, 1.0);
        [("losses/imitation", f64::from(loss))].into_iter().collect()
    }

    fn policy(&self, environment: &str) -> Policy {
        super::policy_of(environment, &self.actions, self.head(), &self.network, None)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.network.save("policy", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.network.load("policy", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "bc",
    title: "Behaviour cloning",
    paper: "Pomerleau: ALVINN, an autonomous land vehicle in a neural network",
    arxiv: "",
    year: 1988,
    family: super::FAMILY,
    summary: "do what the data does: supervised learning of actions",
    claim: "a policy learnt from demonstrations alone drives; here the baseline that offline methods must beat",
    equation: "numbers: L = mean (mu(s) - a)²,   choices: L = -mean log pi(a|s)",
    symbols: &[("mu, pi", "the policy"), ("a", "the action of the data")],
    metrics: &[("losses/imitation", "loss: mean squared distance in half widths, or nats for choices")],
    reach_for: "data of one good policy",
    avoid_when: "the data is mixed: the clone acts like its mean (percent-bc, td3-bc, iql)",
    failure_signs: &["returns below the data's mean return: actions of different policies are averaged"],
    variants: &[
        ("the best tenth of the episodes", "polo train percent-bc"),
        ("weighted", "data.sampling = \"return\""),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(actions: Space, logged: [f32; 2], expected: [Action; 2]) {
        let observations = Space::symmetric(&[1.0]);
        let method = Bc { learning_rate: 1e-2, batch: 2, hidden: vec![8] };
        let Learner::OffPolicy(mut learner) =
            method.learner(&observations, &actions, &Seeds::new(3)).unwrap()
        else {
            unreachable!()
        };
        let batch = Batch {
            observations: vec![-1.0, 1.0],
            actions: logged.to_vec(),
            rewards: vec![0.0; 2],
            ..Batch::default()
        };
        let first = learner.update(&batch, 0, &Seeds::new(0)).get("losses/imitation").unwrap();
        for update in 1..400 {
            learner.update(&batch, update, &Seeds::new(0));
        }
        let last = learner.update(&batch, 400, &Seeds::new(0)).get("losses/imitation").unwrap();
        assert!(last < 0.02 * first, "{first} {last}");
        let policy = learner.policy("toy");
        for (observation, expected) in [-1.0, 1.0].into_iter().zip(expected) {
            match (policy.act(&[observation]), expected) {
                (Action::Continuous(found), Action::Continuous(wanted)) => {
                    assert!((found[0] - wanted[0]).abs() < 0.05, "{found:?} {wanted:?}");
                }
                (found, wanted) => assert_eq!(found, wanted),
            }
        }
    }

    #[test]
    fn numbers_and_choices_are_cloned() {
        let numbers = |x| Action::Continuous(vec![x]);
        let space = Space::Box { low: vec![-1.0], high: vec![3.0] };
        check(space, [0.0, 2.0], [numbers(0.0), numbers(2.0)]);
        check(Space::Discrete(3), [2.0, 0.0], [Action::Discrete(2), Action::Discrete(0)]);
    }
}
