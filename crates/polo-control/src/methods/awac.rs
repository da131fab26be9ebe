//! AWAC: advantage weighted actor-critic (Nair, Gupta, Dalal & Levine 2020, arXiv 2006.09359).
//!
//! Critics learn the value of the policy itself; the policy imitates the data's actions, those more that the critics
//! find better than what it would do:
//!
//! ```text
//! y    = r + gamma (1 - terminated) min Q'(s', a'),   a' ~ pi(s')
//! L_Q  = mean (Q_1(s,a) - y)² + mean (Q_2(s,a) - y)²
//! A    = min Q(s,a) - min Q(s, a_pi),   a_pi ~ pi(s), one draw
//! L_pi = -mean w log pi(a|s),   w = min(exp(A / lambda), 100)
//! ```
//!
//! Critics first, then the policy, then the slow copies Q'. The policy is a normal distribution in half widths of the
//! action's range, its mean not squashed and its width free of the state; what it draws is cut to the bounds.

use polo_nn::files::Tensors;
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, Source};
use crate::{
    data::Wishes,
    deterministic::{mean, shape},
    free_gaussian::{FreeGaussian, weights},
    network::{Adam, Network, aims, least, regress},
    off_policy::{self, Schedule},
    policy::Policy,
    settings::MethodSettings,
};

/// Settings of `polo train awac`. Defaults as in CORL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Awac {
    /// Temperature of the weights, in units of return: a large one is cloning. CORL has 1/3 for locomotion, 0.1 for
    /// mazes and dexterous hands.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub lambda: f64,
    /// Step size of both Adams.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far targets move towards the critics at each update.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Widths of the hidden layers of policy and critics.
    pub hidden: Vec<usize>,
}

impl Default for Awac {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            learning_rate: 3e-4,
            gamma: 0.99,
            tau: 0.005,
            batch: 256,
            hidden: vec![256, 256, 256],
        }
    }
}

impl Settings for Awac {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Awac {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Awac {
    fn source(&self) -> Source {
        Source::Data
    }

    fn wishes(&self) -> Wishes {
        Wishes { normalise: true, ..Wishes::default() }
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        Ok(Learner::OffPolicy(Box::new(AwacLearner::new(self, observations, actions, seeds)?)))
    }
}

struct AwacLearner {
    settings: Awac,
    actor: FreeGaussian,
    critic: Network,
    target: Network,
}

impl AwacLearner {
    fn new(settings: &Awac, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Self> {
        let actor = FreeGaussian::new(observations, actions, &settings.hidden, false, seeds)?;
        let inputs = actor.observation() + actor.width();
        let critic = Network::new(shape(&settings.hidden, inputs, 1, 2), "critic", &seeds.child("critic"));
        Ok(Self { settings: settings.clone(), actor, target: critic.clone(), critic })
    }

    /// min Q(s, a) by row.
    fn judge(&self, critic: &Network, observations: &[f32], actions: &[f32]) -> Vec<f32> {
        let rows = observations.len() / self.actor.observation();
        least(&critic.evaluate(&self.actor.pairs(observations, actions)), rows).0
    }

    /// How much better the data's actions are than drawn ones.
    fn advantages(&self, batch: &Batch, noise: &[f32]) -> Vec<f32> {
        let own = self.actor.draw(&batch.observations, noise);
        let [logged, own] =
            [&batch.actions, &own].map(|actions| self.judge(&self.critic, &batch.observations, actions));
        logged.iter().zip(own).map(|(logged, own)| logged - own).collect()
    }
}

impl off_policy::Learner for AwacLearner {
    fn schedule(&self) -> Schedule {
        super::offline_schedule(self.settings.batch)
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        Action::Continuous(
            self.actor.draw(observation, &seeds.normal(self.actor.width(), "policy/noise", step)),
        )
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let adam = Adam { learning_rate: self.settings.learning_rate, epsilon: 1e-8 };
        let noise = |stream| seeds.normal(batch.len() * self.actor.width(), stream, update);
        let (next, own) = (noise("awac/next"), noise("awac/policy"));

        let next = self.actor.draw(&batch.next_observations, &next);
        let values = self.judge(&self.target, &batch.next_observations, &next);
        let pairs = self.actor.pairs(&batch.observations, &batch.actions);
        let mut metrics = regress(&mut self.critic, &pairs, &aims(batch, &values, self.settings.gamma), adam);

        let advantages = self.advantages(batch, &own);
        let weights = weights(&advantages, self.settings.lambda.recip());
        let (loss, gradients) = self.actor.likelihood(batch, &weights);
        self.actor.step(gradients, adam);
        self.target.parameters.move_towards(&self.critic.parameters, self.settings.tau);

        metrics.set("losses/actor_loss", f64::from(loss));
        metrics.set("losses/advantage", f64::from(mean(&advantages)));
        metrics.set("losses/weight", f64::from(mean(&weights)));
        metrics.set("losses/deviation", f64::from(self.actor.deviation()));
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        self.actor.policy(environment)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.actor.save(tensors);
        self.critic.save("critic", tensors);
        self.target.save_weights("target", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.load(tensors)?;
        self.critic.load("critic", tensors)?;
        self.target.load_weights("target", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "awac",
    title: "Advantage weighted actor-critic",
    paper: "Nair, Gupta, Dalal, Levine: AWAC: Accelerating Online Reinforcement Learning with Offline Datasets",
    arxiv: "2006.09359",
    year: 2020,
    family: super::FAMILY,
    summary: "offline control: imitate the data's actions, those more that a critic finds better than the policy's own",
    claim: "pre-training on logged data and going on in an environment is one loss, without a model of who made the \
            data; here a baseline",
    equation: "y = r + gamma (1 - terminated) min Q'(s',a'),   L_Q = mean (Q_1 - y)² + mean (Q_2 - y)²\n\
               A = min Q(s,a) - min Q(s,a_pi),   L_pi = -mean min(exp(A / lambda), 100) log pi(a|s)",
    symbols: &[
        ("Q, Q'", "two critics, and their slow copies (method.tau)"),
        ("a', a_pi", "fresh draws of the policy, cut to the bounds"),
        ("a", "the action of the data"),
        ("lambda", "temperature of the weights (method.lambda)"),
    ],
    metrics: &[
        ("losses/qf_loss, losses/qf_values", "loss of both critics, and their mean value"),
        ("losses/actor_loss", "loss of the policy, nats times weights"),
        ("losses/advantage", "mean of A"),
        ("losses/weight", "mean weight of an action"),
        ("losses/deviation", "mean standard deviation of the policy, half widths"),
    ],
    reach_for: "good data that training then goes on from in an environment",
    avoid_when: "the data alone must do: iql and td3-bc are mostly better",
    failure_signs: &[
        "weights are all near 1 and the policy is no better than bc: lower method.lambda, or raise data.reward_scale",
        "qf_values grow without bound: critics judge actions that the data lacks; take iql or cql",
    ],
    variants: &[
        ("mazes and hands", "method.lambda = 0.1"),
        (
            "fine-tuned in an environment",
            "--env ID --set data.offline_steps=100000 --set training.steps=200000",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use off_policy::Learner as _;

    use super::*;
    use crate::free_gaussian::{check_bandit, logged_bandit};

    #[test]
    fn the_policys_own_actions_have_no_advantage() {
        let (observations, actions, mut batch) = logged_bandit(16);
        let settings = Awac { hidden: vec![8], ..Awac::default() };
        let learner = AwacLearner::new(&settings, &observations, &actions, &Seeds::new(1)).unwrap();
        let noise = Seeds::new(2).normal(16, "noise", 0);
        let advantages = learner.advantages(&batch, &noise);
        assert!(advantages.iter().any(|advantage| advantage.abs() > 1e-3));
        batch.actions = learner.actor.draw(&batch.observations, &noise);
        assert_eq!(learner.advantages(&batch, &noise), vec![0.0; 16]);
        assert!(batch.actions.iter().all(|a| (-1.0..=3.0).contains(a)));
    }

    #[test]
    fn actions_are_judged_by_critics_after_their_step() {
        let (observations, actions, batch) = logged_bandit(16);
        let settings = Awac { hidden: vec![8], learning_rate: 0.1, ..Awac::default() };
        let mut learner = AwacLearner::new(&settings, &observations, &actions, &Seeds::new(1)).unwrap();
        let actor = learner.actor.clone();
        let found = learner.update(&batch, 0, &Seeds::new(3)).get("losses/advantage").unwrap();
        learner.actor = actor;
        let noise = Seeds::new(3).normal(16, "awac/policy", 0);
        assert_eq!(found, f64::from(mean(&learner.advantages(&batch, &noise))));
    }

    #[test]
    fn it_finds_what_was_best_in_the_log() {
        let method =
            Awac { learning_rate: 3e-3, hidden: vec![32, 32], tau: 0.05, lambda: 0.3, ..Awac::default() };
        check_bandit(&method, 600);
    }
}
