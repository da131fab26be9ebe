//! IQL: implicit Q-learning (Kostrikov, Nair & Levine 2021, arXiv 2110.06169).
//!
//! No critic is ever asked about an action that the data does not have. V learns an upper expectile of Q over the
//! data's actions, which stands for the best of them; the policy imitates the actions, those better than V more:
//!
//! ```text
//! u    = min Q'(s,a) - V(s)
//! L_V  = mean |e - 1[u < 0]| u²,   e the expectile
//! y    = r + gamma (1 - terminated) V(s'),   V before its step
//! L_Q  = mean (Q_1(s,a) - y)² + mean (Q_2(s,a) - y)²
//! L_pi = -mean w log pi(a|s),   w = min(exp(beta u), 100), u from before the steps
//! ```
//!
//! In this order, the slow copies Q' following at every update. The reference has half of L_Q, which Adam does not
//! notice. The policy is a normal distribution around tanh(u) in half widths of the action's range, its width free of
//! the state; its step size falls to 0 as half a cosine over all updates of the run. With `deterministic`, -log pi(a|s)
//! is the squared distance |mu(s) - a|² in half widths.

use polo_nn::{files::Tensors, shares};
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

/// Settings of `polo train iql`. Defaults from the paper's runs on locomotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Iql {
    /// Which expectile of Q the value learns: 0.5 is the mean over the data's actions, towards 1 the best of them. The
    /// paper has 0.9 for mazes.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub expectile: f64,
    /// How much better actions weigh more, per unit of return: 0 is cloning. The paper has 10 for mazes, 0.5 for
    /// dexterous hands.
    #[schemars(range(min = 0.0))]
    pub beta: f64,
    /// A policy without a width, fitted by squared distances.
    pub deterministic: bool,
    /// Step size of all three Adams.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Let the policy's step size fall to 0 over the run, as half a cosine.
    pub decay: bool,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far targets move towards the critics at each update.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Standard deviation of the noise of actions that a deterministic policy tries in an environment after the data,
    /// in half widths; others draw from themselves. Default from CORL.
    #[schemars(range(min = 0.0))]
    pub exploration_noise: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Widths of the hidden layers of policy, value and critics.
    pub hidden: Vec<usize>,
}

impl Default for Iql {
    fn default() -> Self {
        Self {
            expectile: 0.7,
            beta: 3.0,
            deterministic: false,
            learning_rate: 3e-4,
            decay: true,
            gamma: 0.99,
            tau: 0.005,
            exploration_noise: 0.03,
            batch: 256,
            hidden: vec![256, 256],
        }
    }
}

impl Settings for Iql {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for Iql {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Iql {
    fn source(&self) -> Source {
        Source::Data
    }

    fn wishes(&self) -> Wishes {
        Wishes { normalise: true, ..Wishes::default() }
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        Ok(Learner::OffPolicy(Box::new(IqlLearner::new(self, observations, actions, seeds)?)))
    }
}

struct IqlLearner {
    settings: Iql,
    actor: FreeGaussian,
    value: Network,
    critic: Network,
    target: Network,
    /// All updates of the run.
    planned: u64,
}

/// mean |e - 1[u < 0]| u² of u = Q - V, and its slopes in V.
fn expectile(differences: &[f32], expectile: f64) -> (f32, Vec<f32>) {
    let (n, e) = (differences.len() as f32, expectile as f32);
    let weigh = |u: &f32| if *u < 0.0 { 1.0 - e } else { e };
    let loss = differences.iter().map(|u| weigh(u) * u * u).sum::<f32>() / n;
    (loss, differences.iter().map(|u| -2.0 * weigh(u) * u / n).collect())
}

impl IqlLearner {
    fn new(settings: &Iql, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Self> {
        let hidden = &settings.hidden;
        let actor = FreeGaussian::new(observations, actions, hidden, true, seeds)?;
        let inputs = actor.observation();
        let critic =
            Network::new(shape(hidden, inputs + actor.width(), 1, 2), "critic", &seeds.child("critic"));
        Ok(Self {
            settings: settings.clone(),
            value: Network::new(shape(hidden, inputs, 1, 1), "value", &seeds.child("value")),
            target: critic.clone(),
            critic,
            actor,
            planned: 0,
        })
    }

    /// The policy's step size.
    fn policy_rate(&self, update: u64) -> f64 {
        if !self.settings.decay || self.planned == 0 {
            return self.settings.learning_rate;
        }
        let done = (update as f64 / self.planned as f64).min(1.0);
        self.settings.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

impl off_policy::Learner for IqlLearner {
    fn schedule(&self) -> Schedule {
        super::offline_schedule(self.settings.batch)
    }

    fn plan(&mut self, updates: u64) {
        self.planned = updates;
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        let noise = seeds.normal(self.actor.width(), "policy/noise", step);
        let size = self.settings.exploration_noise as f32;
        Action::Continuous(match self.settings.deterministic {
            true => self.actor.near(observation, |place| size * noise[place]),
            false => self.actor.draw(observation, &noise),
        })
    }

    fn update(&mut self, batch: &Batch, update: u64, _seeds: &Seeds) -> Metrics {
        let adam = |learning_rate| Adam { learning_rate, epsilon: 1e-8 };
        let rate = adam(self.settings.learning_rate);
        let pairs = self.actor.pairs(&batch.observations, &batch.actions);
        let (tape, (next, lesser)) = shares::both(
            || self.value.forward(&batch.observations),
            || {
                let next = self.value.evaluate(&batch.next_observations);
                (next, least(&self.target.evaluate(&pairs), batch.len()).0)
            },
        );
        let advantages: Vec<f32> = lesser.iter().zip(tape.outputs()).map(|(q, v)| q - v).collect();
        let weights = weights(&advantages, self.settings.beta);

        // From here on the three know nothing of each other.
        let policy_rate = adam(self.policy_rate(update));
        let Self { value, critic, target, actor, settings, .. } = self;
        let learn_value = || {
            let (loss, slopes) = expectile(&advantages, settings.expectile);
            let mut gradients = value.gradients();
            value.push_back(&tape, &slopes, &mut gradients);
            value.step(gradients, rate, 1.0);
            loss
        };
        let learn_critics = || {
            let metrics = regress(critic, &pairs, &aims(batch, &next, settings.gamma), rate);
            target.parameters.move_towards(&critic.parameters, settings.tau);
            metrics
        };
        let learn_policy = || {
            let (loss, gradients) = match settings.deterministic {
                true => actor.distance(batch, &weights),
                false => actor.likelihood(batch, &weights),
            };
            actor.step(gradients, policy_rate);
            loss
        };
        let (mut metrics, (value_loss, actor_loss)) =
            shares::both(learn_critics, || shares::both(learn_value, learn_policy));

        metrics.set("losses/value_loss", f64::from(value_loss));
        metrics.set("losses/actor_loss", f64::from(actor_loss));
        metrics.set("losses/advantage", f64::from(mean(&advantages)));
        metrics.set("losses/weight", f64::from(mean(&weights)));
        if !self.settings.deterministic {
            metrics.set("losses/deviation", f64::from(self.actor.deviation()));
        }
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        self.actor.policy(environment)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.actor.save(tensors);
        self.value.save("value", tensors);
        self.critic.save("critic", tensors);
        self.target.save_weights("target", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.load(tensors)?;
        self.value.load("value", tensors)?;
        self.critic.load("critic", tensors)?;
        self.target.load_weights("target", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "iql",
    title: "Implicit Q-learning",
    paper: "Kostrikov, Nair, Levine: Offline Reinforcement Learning with Implicit Q-Learning",
    arxiv: "2110.06169",
    year: 2021,
    family: super::FAMILY,
    summary: "offline control that never asks about actions the data lacks: an upper expectile for the best action",
    claim: "good parts of different episodes are put together without a critic ever judging unseen actions, and it \
            goes on well in an environment; here a baseline",
    equation: "u = min Q'(s,a) - V(s),   L_V = mean |e - 1[u < 0]| u²\n\
               y = r + gamma (1 - terminated) V(s'),   L_Q = mean (Q_1 - y)² + mean (Q_2 - y)²\n\
               L_pi = -mean min(exp(beta u), 100) log pi(a|s)",
    symbols: &[
        ("Q, Q'", "two critics, and their slow copies (method.tau)"),
        ("V", "the value, an expectile of Q' over the data's actions"),
        ("e", "the expectile (method.expectile)"),
        ("beta", "how much better actions weigh more (method.beta)"),
    ],
    metrics: &[
        ("losses/value_loss", "loss of the value"),
        ("losses/qf_loss, losses/qf_values", "loss of both critics, and their mean value"),
        ("losses/actor_loss", "loss of the policy, nats or squared half widths times weights"),
        ("losses/advantage", "mean of u"),
        ("losses/weight", "mean weight of an action"),
        ("losses/deviation", "mean standard deviation of the policy, half widths"),
    ],
    reach_for: "data of mixed quality, above all whose good parts no episode joins; or training that goes on online",
    avoid_when: "the data covers actions densely: methods that go beyond them (edac) find better ones",
    failure_signs: &[
        "weights are all near 1 and the policy is no better than bc: raise method.beta, or data.reward_scale",
        "the mean weight is near 100: lower method.beta, or data.reward_scale",
        "qf_values beyond every return of the data: lower method.expectile",
    ],
    variants: &[
        ("mazes", "method.expectile = 0.9, method.beta = 10, data.reward_shift = -1"),
        ("without a width", "method.deterministic = true"),
        (
            "fine-tuned in an environment",
            "--env ID --set data.offline_steps=100000 --set training.steps=200000",
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::free_gaussian::{check_bandit, logged_bandit};

    #[test]
    fn the_middle_expectile_is_the_mean() {
        let differences = [1.0, -2.0, 0.5, 0.0];
        let (loss, slopes) = expectile(&differences, 0.5);
        assert_eq!(loss, 0.5 * (1.0 + 4.0 + 0.25) / 4.0);
        assert_eq!(slopes, [-0.25, 0.5, -0.125, 0.0]);
    }

    #[test]
    fn of_none_and_one_the_expectile_is_itself() {
        for e in [0.1, 0.5, 0.7, 0.9, 0.99] {
            let at = |v: f32| expectile(&[0.0 - v, 1.0 - v], e);
            let slope = |v: f32| at(v).1.iter().sum::<f32>();
            let v = e as f32;
            assert!(slope(v).abs() < 1e-6, "{e}: {}", slope(v));
            assert!(at(v).0 < at(v - 0.01).0.min(at(v + 0.01).0));
            for v in [-0.3, 0.2, 0.6, 1.4] {
                let expected = (at(v + 1e-2).0 - at(v - 1e-2).0) / 2e-2;
                assert!((slope(v) - expected).abs() < 1e-3, "{e} {v}: {} {expected}", slope(v));
            }
        }
    }

    fn learner(settings: &Iql, batch: &mut Batch) -> IqlLearner {
        let (observations, actions, logged) = logged_bandit(16);
        *batch =
            Batch { next_observations: logged.observations.clone(), terminated: vec![0.0; 16], ..logged };
        IqlLearner::new(settings, &observations, &actions, &Seeds::new(2)).unwrap()
    }

    #[test]
    fn critics_follow_the_value_from_before_its_step() {
        use off_policy::Learner as _;

        let settings = Iql { learning_rate: 0.1, hidden: vec![8], tau: 0.5, ..Iql::default() };
        let mut batch = Batch::default();
        let mut learner = learner(&settings, &mut batch);
        let loss = |learner: &IqlLearner, value: &Network| {
            let pairs = learner.actor.pairs(&batch.observations, &batch.actions);
            let mut critic = learner.critic.clone();
            let aims = aims(&batch, &value.evaluate(&batch.next_observations), 0.99);
            let adam = Adam { learning_rate: 0.1, epsilon: 1e-8 };
            (regress(&mut critic, &pairs, &aims, adam).get("losses/qf_loss").unwrap(), critic)
        };
        let (expected, critic) = loss(&learner, &learner.value);
        let (before, mut target) = (learner.critic.clone(), learner.target.clone());
        let found = learner.update(&batch, 0, &Seeds::new(0)).get("losses/qf_loss").unwrap();
        assert_eq!(found, expected);
        target.parameters.move_towards(&critic.parameters, 0.5);
        let pairs = learner.actor.pairs(&batch.observations, &batch.actions);
        assert_eq!(learner.target.evaluate(&pairs), target.evaluate(&pairs));
        learner.critic = before;
        assert!((loss(&learner, &learner.value).0 - expected).abs() > 1e-3, "the value did not move");
    }

    #[test]
    fn the_policys_step_falls_as_half_a_cosine() {
        use off_policy::Learner as _;

        let settings = Iql { learning_rate: 0.2, hidden: vec![4], ..Iql::default() };
        let mut learner = learner(&settings, &mut Batch::default());
        assert_eq!(learner.policy_rate(70), 0.2);
        learner.plan(100);
        for (update, expected) in
            [(0, 0.2), (50, 0.1), (25, 0.1 + 0.1 * 0.5f64.sqrt()), (100, 0.0), (200, 0.0)]
        {
            assert!((learner.policy_rate(update) - expected).abs() < 1e-12, "{update}");
        }
        learner.settings.decay = false;
        assert_eq!(learner.policy_rate(100), 0.2);
    }

    #[test]
    fn it_finds_what_was_best_in_the_log() {
        let method = Iql { learning_rate: 3e-3, hidden: vec![32, 32], tau: 0.05, ..Iql::default() };
        for deterministic in [false, true] {
            check_bandit(&Iql { deterministic, ..method.clone() }, 600);
        }
    }
}
