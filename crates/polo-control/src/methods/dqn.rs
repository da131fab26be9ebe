//! DQN: deep Q-network (Mnih et al. 2015).
//!
//! ```text
//! y = r + gamma (1 - terminated) max_a Q'(s', a)
//! L = mean (Q(s,a) - y)^2            or Huber's loss of the same difference
//! ```
//!
//! Q' is a copy of Q that is renewed from time to time. Actions are tried at random with a probability that falls in a
//! line.

use polo_nn::{
    files::Tensors,
    mlp::{Activation, Init, Shape},
};
use polo_run::{
    Problem, Result,
    card::MethodCard,
    config::Settings,
    metrics::Metrics,
    seed::{Seeds, below, unit},
};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner};
use crate::{
    network::{Adam, Network, aims},
    off_policy::{self, Schedule},
    policy::{Head, Policy, decide},
    settings::MethodSettings,
};

/// Settings of `polo train dqn`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dqn {
    /// Step size of Adam. Default from CleanRL.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// Square (`square`, default, CleanRL's) or Huber's loss (`huber`, stable-baselines3's) of the difference.
    pub loss: Loss,
    /// Updates from one renewal of the target to the next. Default as CleanRL's 500 steps.
    #[schemars(range(min = 1))]
    pub target_every: u64,
    /// Probability of a random action at the beginning.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub first_epsilon: f64,
    /// The same from then on when it has fallen.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub last_epsilon: f64,
    /// Share of the run in which it falls.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub exploration: f64,
    /// Largest norm of a gradient; longer ones are scaled down. 0 (default): never.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Transitions that are remembered.
    #[schemars(range(min = 1))]
    pub buffer: usize,
    /// Steps of random actions at the beginning. Default from CleanRL.
    pub random_steps: u64,
    /// Learn every so many steps. Default from CleanRL.
    #[schemars(range(min = 1))]
    pub train_every: u64,
    /// Updates each time.
    #[schemars(range(min = 1))]
    pub updates: u64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
}

/// What is made of the difference of a value and its aim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Its square.
    #[default]
    Square,
    /// Half its square up to 1, then a line.
    Huber,
}

impl Default for Dqn {
    fn default() -> Self {
        Self {
            learning_rate: 2.5e-4,
            gamma: 0.99,
            loss: Loss::Square,
            target_every: 50,
            first_epsilon: 1.0,
            last_epsilon: 0.05,
            exploration: 0.5,
            max_grad_norm: 0.0,
            batch: 128,
            buffer: 10_000,
            random_steps: 10_000,
            train_every: 10,
            updates: 1,
            hidden: vec![120, 84],
        }
    }
}

impl Settings for Dqn {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Dqn {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Dqn {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let Space::Box { low, .. } = observations else {
            return Err(super::no_choices_seen());
        };
        let Space::Discrete(choices) = actions else {
            return Err(Problem::usage("`dqn` takes choices, and the environment's actions are numbers")
                .hint("sac, td3 and ppo take numbers"));
        };
        let shape = Shape {
            inputs: low.len(),
            hidden: self.hidden.clone(),
            outputs: *choices,
            members: 1,
            activation: Activation::Relu,
            layer_norm: false,
            init: (Init::Torch, Init::Torch),
        };
        let critic = Network::new(shape, "policy", &seeds.child("critic"));
        let target = critic.clone();
        Ok(Learner::OffPolicy(Box::new(DqnLearner {
            settings: self.clone(),
            choices: *choices,
            critic,
            target,
        })))
    }
}

struct DqnLearner {
    settings: Dqn,
    choices: usize,
    critic: Network,
    target: Network,
}

impl off_policy::Learner for DqnLearner {
    fn schedule(&self) -> Schedule {
        let Dqn { random_steps, train_every, updates, batch, buffer, .. } = self.settings;
        Schedule { random_steps, every: train_every, updates, batch, capacity: buffer }
    }

    fn explore(&self, observation: &[f32], step: u64, total: u64, seeds: &Seeds) -> Action {
        let Dqn { first_epsilon, last_epsilon, exploration, .. } = self.settings;
        let passed = step as f64 / (exploration * total as f64);
        let epsilon = (first_epsilon + (last_epsilon - first_epsilon) * passed).max(last_epsilon);
        let mut rng = seeds.rng("policy/choice", step);
        match unit(&mut rng) < epsilon {
            true => Action::Discrete(below(&mut rng, self.choices as u64) as usize),
            false => {
                decide(Head::Greatest, &Space::Discrete(self.choices), &self.critic.evaluate(observation))
            }
        }
    }

    fn update(&mut self, batch: &Batch, update: u64, _: &Seeds) -> Metrics {
        let n = batch.len();
        let next = self.target.evaluate(&batch.next_observations);
        let best = |of_row: &[f32]| of_row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let best: Vec<f32> = next.chunks_exact(self.choices).map(best).collect();
        let aims = aims(batch, &best, self.settings.gamma);
        let tape = self.critic.forward(&batch.observations);
        let values = tape.outputs();
        let (mut loss, mut mean, mut slopes) = (0.0, 0.0, vec![0.0; values.len()]);
        for (row, aim) in aims.iter().enumerate() {
            let place = row * self.choices + batch.actions[row] as usize;
            let error = values[place] - aim;
            let (own, slope) = match self.settings.loss {
                Loss::Square => (error * error, 2.0 * error),
                Loss::Huber if error.abs() < 1.0 => (0.5 * error * error, error),
                Loss::Huber => (error.abs() - 0.5, error.signum()),
            };
            loss += own / n as f32;
            mean += values[place] / n as f32;
            slopes[place] = slope / n as f32;
        }
        let mut gradients = self.critic.gradients();
        self.critic.push_back(&tape, &slopes, &mut gradients);
        let most = self.settings.max_grad_norm;
        let scale = if most > 0.0 { (most / (self.critic.norm(&gradients) + 1e-6)).min(1.0) } else { 1.0 };
        self.critic.step(
            gradients,
            Adam { learning_rate: self.settings.learning_rate, epsilon: 1e-8 },
            scale,
        );
        if (update + 1).is_multiple_of(self.settings.target_every) {
            self.target.parameters.move_towards(&self.critic.parameters, 1.0);
        }
        [("losses/td_loss", f64::from(loss)), ("losses/q_values", f64::from(mean))].into_iter().collect()
    }

    fn policy(&self, environment: &str) -> Policy {
        super::policy_of(environment, &Space::Discrete(self.choices), Head::Greatest, &self.critic, None)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.critic.save("critic", tensors);
        self.target.save_weights("target", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.critic.load("critic", tensors)?;
        self.target.load_weights("target", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "dqn",
    title: "Deep Q-network",
    paper: "Mnih et al.: Human-level control through deep reinforcement learning, Nature 518",
    arxiv: "",
    year: 2015,
    family: super::FAMILY,
    summary: "off-policy values of choices, learnt against a copy that is renewed from time to time",
    claim: "a replay buffer and a target that stands still make Q-learning with networks stable; here a baseline",
    equation: "y = r + gamma (1 - terminated) max_a Q'(s', a),   L = mean (Q(s,a) - y)^2",
    symbols: &[
        ("Q, Q'", "values of the choices, and their copy (method.target_every)"),
        ("epsilon", "probability of a random action, from method.first_epsilon to method.last_epsilon"),
    ],
    metrics: &[
        ("charts/episodic_return", "undiscounted return of an episode that ended"),
        ("losses/td_loss, losses/q_values", "loss, and mean value of the actions taken"),
    ],
    reach_for: "choices, and steps that are dear",
    avoid_when: "actions are numbers (sac, td3), or the simulator is fast (ppo)",
    failure_signs: &[
        "q_values grow without bound: lower method.learning_rate, or set method.loss = \"huber\"",
    ],
    variants: &[("as stable-baselines3", "method.loss = \"huber\", method.max_grad_norm = 10")],
};
