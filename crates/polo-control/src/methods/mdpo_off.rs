//! MDPO: mirror descent policy optimisation, off-policy (Tomar et al. 2020, arXiv 2005.09814).
//!
//! The policy climbs the first critic, held near what it was m updates ago, pi_k, and, through the temperature lam, near
//! chance:
//!
//! ```text
//! L_pi = mean c log pi(a|s) + (lam - c) log pi_k(a|s) - Q_1(s,a) + r (mean mu^2 + mean log^2 sigma)
//! y    = r + gamma (1 - terminated) [min Q'(s',a') - lam log pi(a'|s')]
//! L_Q  = mean (Q_1(s,a) - y)^2 + mean (Q_2(s,a) - y)^2
//! ```
//!
//! a is drawn from pi with the noise held fixed, and the gradient flows through a in every term. The exact solution is
//! pi in proportion to exp(Q / c) pi_k^((c - lam) / c): c - lam is the weight of KL(pi || pi_k), and with c = lam there is
//! none, which leaves SAC's loss. The policy learns before the critics, from the same batch.
//!
//! With `method.critic = "value"` targets are those of the paper's code: y = r + gamma (1 - terminated) V'(s'), and V
//! follows min Q(s,a) - lam log pi(a|s) with the a of the policy's step. With a Tsallis q' the logarithm is log_q with
//! q = 2 - q', component by component, and the second weight lam - c q'.

use polo_nn::{
    distributions::{Bounds, Gaussian, Squashed},
    files::Tensors,
};
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, mdpo::log_q};
use crate::{
    deterministic::{mean, shape},
    network::{Adam, Network, aims, beside, last_columns, least, regress},
    off_policy::{self, Schedule},
    policy::{Head, Policy},
    settings::MethodSettings,
    squashed,
};

/// What the critics' targets are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Critic {
    /// Slow copies of both critics.
    #[default]
    TwinQ,
    /// A slow copy of a value network.
    Value,
}

/// Settings of `polo train mdpo-off`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MdpoOff {
    /// Weight c of log pi, 1/t in the paper, `klcoeff` in its code; the weight of the divergence is c - lam. Default from
    /// the paper's code.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub c: f64,
    /// Temperature, in units of reward per nat. Default from the paper's code.
    #[schemars(range(min = 0.0))]
    pub lam: f64,
    /// Updates for which the previous policy stands still. Default from the paper's code.
    #[schemars(range(min = 1))]
    pub m: u64,
    /// q' of Tsallis logarithms, component by component; 1 by default: the natural logarithm.
    #[schemars(range(max = 3.0), extend("exclusiveMinimum" = 0.0))]
    pub tsallis: f64,
    /// What the critics' targets are made of: `twin-q` (as modern SAC) or `value` (the paper's code).
    pub critic: Critic,
    /// Whether the gradient flows through actions; false weighs the gradient of log pi by what the action costs, with the
    /// first critic's value of the mean action as baseline. Default true, as in the paper's code.
    pub reparameterise: bool,
    /// Whether actions to try are drawn; false takes the policy's middle, as the paper's code does. Default true, as its
    /// text says.
    pub sample: bool,
    /// Weight of the squares of means and of logarithms of standard deviations in the policy's loss. Default from the
    /// paper's code.
    #[schemars(range(min = 0.0))]
    pub regularise: f64,
    /// Step size of the policy's Adam. Default from the paper's code.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub policy_rate: f64,
    /// Step size of the critics' Adam. Default from the paper's code.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub critic_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far the targets move at each update.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Transitions that are remembered.
    #[schemars(range(min = 1))]
    pub buffer: usize,
    /// Steps of random actions at the beginning. Default from the paper's code.
    pub random_steps: u64,
    /// Learn every so many steps.
    #[schemars(range(min = 1))]
    pub train_every: u64,
    /// Updates each time.
    #[schemars(range(min = 1))]
    pub updates: u64,
    /// Widths of the hidden layers of policy and critics.
    pub hidden: Vec<usize>,
}

impl Default for MdpoOff {
    fn default() -> Self {
        Self {
            c: 1.0,
            lam: 0.2,
            m: 1000,
            tsallis: 1.0,
            critic: Critic::TwinQ,
            reparameterise: true,
            sample: true,
            regularise: 1e-3,
            policy_rate: 3e-4,
            critic_rate: 3e-4,
            gamma: 0.99,
            tau: 0.005,
            batch: 256,
            buffer: 1_000_000,
            random_steps: 10_000,
            train_every: 1,
            updates: 1,
            hidden: vec![256, 256],
        }
    }
}

impl Settings for MdpoOff {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)
    }
}

impl MethodSettings for MdpoOff {
    const SLUG: &'static str = CARD.slug;
}

impl Control for MdpoOff {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let (inputs, low, high) = super::numbers_in_and_out(observations, actions)?;
        let (hidden, d) = (&self.hidden, low.len());
        let actor = Network::new(shape(hidden, inputs, 2 * d, 1), "policy", &seeds.child("policy"));
        let critic = Network::new(shape(hidden, inputs + d, 1, 2), "critic", &seeds.child("critic"));
        let value = (self.critic == Critic::Value)
            .then(|| Network::new(shape(hidden, inputs, 1, 1), "value", &seeds.child("value")));
        Ok(Learner::OffPolicy(Box::new(MdpoOffLearner {
            settings: self.clone(),
            bounds: Bounds::new(low, high),
            actions: actions.clone(),
            previous: actor.clone(),
            target: value.as_ref().unwrap_or(&critic).clone(),
            actor,
            critic,
            value,
        })))
    }
}

/// Densities of components below this count as this much, where q' is not 1.
const LEAST_DENSITY: f32 = 1e-6;

struct MdpoOffLearner {
    settings: MdpoOff,
    bounds: Bounds,
    actions: Space,
    actor: Network,
    /// pi_k.
    previous: Network,
    /// Q_1 and Q_2.
    critic: Network,
    value: Option<Network>,
    /// The slow copy of the value network or, where there is none, of the critics.
    target: Network,
}

/// The policy's loss on a batch.
struct Judged {
    loss: f32,
    /// In the outputs of the policy's network, `[rows, 2 d]`.
    slopes: Vec<f32>,
    /// Logarithm of the density of each action drawn.
    logs: Vec<f32>,
    /// The same under the previous policy.
    previous_logs: Vec<f32>,
    /// The lesser critic's value of each action drawn.
    least: Vec<f32>,
}

impl MdpoOffLearner {
    fn width(&self) -> usize {
        self.bounds.scale.len()
    }

    fn gaussian(&self, outputs: &[f32]) -> Gaussian {
        squashed::gaussian(outputs, self.width())
    }

    /// log_q of a density whose logarithm is given, and its slope in that.
    fn log(&self, logarithm: f32) -> (f32, f32) {
        let q = self.settings.tsallis as f32;
        if q == 1.0 {
            return (logarithm, 1.0);
        }
        match logarithm < LEAST_DENSITY.ln() {
            true => (log_q(LEAST_DENSITY.ln(), q), 0.0),
            false => (log_q(logarithm, q), ((q - 1.0) * logarithm).exp()),
        }
    }

    /// Sums of [`MdpoOffLearner::log`] over the components of each row, and the slopes.
    fn logs(&self, log_densities: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (logs, slopes): (Vec<f32>, Vec<f32>) = log_densities.iter().map(|&x| self.log(x)).unzip();
        (logs.chunks_exact(self.width()).map(|row| row.iter().sum()).collect(), slopes)
    }

    /// The policy's loss where its network says `outputs` on `observations` and the previous policy said `previous`.
    fn judge(&self, observations: &[f32], outputs: &[f32], previous: &Gaussian, noise: &[f32]) -> Judged {
        let settings = &self.settings;
        let (d, n) = (self.width(), noise.len() / self.width());
        let (observation, count) = (self.actor.mlp.shape().inputs, n as f32);
        let own = self.gaussian(outputs);
        let drawn = Squashed::new(&own, noise, &self.bounds);
        let judgement = self.critic.forward(&beside(observations, observation, &drawn.actions, d));
        let values = judgement.outputs();
        let (weight, q) = (settings.c as f32, settings.tsallis as f32);
        let previous_weight = settings.lam as f32 - weight * q;
        let (logs, own_slopes) = self.logs(&drawn.log_densities(&own));
        let (previous_logs, previous_slopes) = self.logs(&drawn.log_densities(previous));
        let costs: Vec<f32> = (0..n)
            .map(|row| weight * logs[row] + previous_weight * previous_logs[row] - values[row])
            .collect();
        let (means, log_stds): (Vec<f32>, Vec<f32>) = (0..n)
            .flat_map(|row| own.mean(row).iter().copied().zip(own.log_std(row).iter().copied()))
            .unzip();
        let (mut dmeans, mut dlog_stds) = if settings.reparameterise {
            let mut dvalues = vec![0.0; 2 * n];
            dvalues[..n].fill(-1.0 / count);
            let dactions = last_columns(&self.critic.slope(&judgement, &dvalues), observation + d, d);
            let times = |slopes: &[f32], weight: f32| -> Vec<f32> {
                slopes.iter().map(|slope| weight * slope / count).collect()
            };
            let dbefore = drawn.slopes_under(previous, &times(&previous_slopes, previous_weight));
            drawn.push_back_parts(&dactions, &dbefore, &times(&own_slopes, weight))
        } else {
            let middle = Squashed::new(&own, &vec![0.0; n * d], &self.bounds);
            let baselines = self.critic.evaluate(&beside(observations, observation, &middle.actions, d));
            let weights: Vec<f32> = (0..n * d)
                .map(|place| {
                    // The cost's own slope in log pi, less 1, whose mean is 0 and would only add noise.
                    let own = weight * (own_slopes[place] - 1.0);
                    (costs[place / d] + baselines[place / d] + own) / count
                })
                .collect();
            // Every component as a row of its own.
            let parts = Gaussian::new(means.clone(), log_stds.clone(), 1);
            parts.push_back(&drawn.before, &weights, &vec![0.0; n * d])
        };
        let regularise = settings.regularise as f32 / (count * d as f32);
        let mut loss = mean(&costs);
        for (numbers, slopes) in [(&means, &mut dmeans), (&log_stds, &mut dlog_stds)] {
            for (x, slope) in numbers.iter().zip(slopes.iter_mut()) {
                loss += regularise * x * x;
                *slope += 2.0 * regularise * x;
            }
        }
        let slopes = squashed::through_heads(outputs, &dmeans, &dlog_stds, d);
        let (least, _) = least(&values, n);
        Judged { loss, slopes, logs, previous_logs, least }
    }
}

impl off_policy::Learner for MdpoOffLearner {
    fn schedule(&self) -> Schedule {
        let MdpoOff { random_steps, train_every, updates, batch, buffer, .. } = self.settings;
        Schedule { random_steps, every: train_every, updates, batch, capacity: buffer }
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        let noise = match self.settings.sample {
            true => seeds.normal(self.width(), "policy/noise", step),
            false => vec![0.0; self.width()],
        };
        let own = self.gaussian(&self.actor.evaluate(observation));
        Action::Continuous(Squashed::new(&own, &noise, &self.bounds).actions)
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let settings = self.settings.clone();
        let (n, d, observation) = (batch.len(), self.width(), self.actor.mlp.shape().inputs);
        let adam = |learning_rate| Adam { learning_rate, epsilon: 1e-8 };
        if update.is_multiple_of(settings.m) {
            self.previous.parameters.clone_from(&self.actor.parameters);
        }

        let tape = self.actor.forward(&batch.observations);
        let previous = self.gaussian(&self.previous.evaluate(&batch.observations));
        let noise = seeds.normal(n * d, "mdpo/policy", update);
        let judged = self.judge(&batch.observations, &tape.outputs(), &previous, &noise);
        let mut gradients = self.actor.gradients();
        self.actor.push_back(&tape, &judged.slopes, &mut gradients);
        self.actor.step(gradients, adam(settings.policy_rate), 1.0);

        let lam = settings.lam as f32;
        let next_values: Vec<f32> = match &self.value {
            Some(_) => self.target.evaluate(&batch.next_observations),
            None => {
                let next = self.gaussian(&self.actor.evaluate(&batch.next_observations));
                let noise = seeds.normal(n * d, "mdpo/next", update);
                let drawn = Squashed::new(&next, &noise, &self.bounds);
                let (logs, _) = self.logs(&drawn.log_densities(&next));
                let x = beside(&batch.next_observations, observation, &drawn.actions, d);
                let (lesser, _) = least(&self.target.evaluate(&x), n);
                lesser.iter().zip(logs).map(|(value, log)| value - lam * log).collect()
            }
        };
        let aims = aims(batch, &next_values, settings.gamma);
        let x = beside(&batch.observations, observation, &batch.actions, d);
        let mut metrics = regress(&mut self.critic, &x, &aims, adam(settings.critic_rate));
        let mut slow = &self.critic;
        if let Some(value) = &mut self.value {
            let aims: Vec<f32> =
                judged.least.iter().zip(&judged.logs).map(|(value, log)| value - lam * log).collect();
            let found = regress(value, &batch.observations, &aims, adam(settings.critic_rate));
            metrics.set("losses/vf_loss", found.get("losses/qf_loss").unwrap_or(f64::NAN));
            slow = value;
        }
        self.target.parameters.move_towards(&slow.parameters, settings.tau);
        let divergence = mean(&judged.logs) - mean(&judged.previous_logs);
        for (name, value) in [
            ("losses/actor_loss", judged.loss),
            ("losses/entropy", -mean(&judged.logs)),
            ("losses/kl", divergence),
        ] {
            metrics.set(name, f64::from(value));
        }
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        super::policy_of(environment, &self.actions, Head::Squashed, &self.actor, None)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.actor.save("actor", tensors);
        self.previous.save_weights("previous", tensors);
        self.critic.save("critic", tensors);
        self.target.save_weights("target", tensors);
        if let Some(value) = &self.value {
            value.save("value", tensors);
        }
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.load("actor", tensors)?;
        self.previous.load_weights("previous", tensors)?;
        self.critic.load("critic", tensors)?;
        self.target.load_weights("target", tensors)?;
        match &mut self.value {
            Some(value) => value.load("value", tensors),
            None => Ok(()),
        }
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "mdpo-off",
    title: "Mirror descent policy optimisation, off-policy",
    paper: "Tomar, Shani, Efroni, Ghavamzadeh: Mirror Descent Policy Optimization",
    arxiv: "2005.09814",
    year: 2020,
    family: super::FAMILY,
    summary: "off-policy control of numbers with a policy held near what it was some updates ago",
    claim: "a KL term to the previous policy in the policy's loss does as well as or better than SAC, which is its special \
            case without one",
    equation: "L_pi = mean c log pi(a|s) + (lam - c) log pi_k(a|s) - Q_1(s,a) + r (mean mu^2 + mean log^2 sigma)\n\
               y = r + gamma (1 - terminated) [min Q'(s',a') - lam log pi(a'|s')]\n\
               L_Q = mean (Q_1 - y)^2 + mean (Q_2 - y)^2",
    symbols: &[
        ("pi, pi_k", "the policy, and as it was up to method.m updates ago"),
        ("a, a'", "fresh actions of the policy, squashed by tanh into their bounds"),
        ("c, lam", "method.c, method.lam, reward per nat; c - lam weighs KL(pi || pi_k)"),
        ("Q, Q'", "two critics, and their slow copies (method.tau)"),
        ("mu, sigma, r", "mean and deviation before the squashing, and method.regularise"),
    ],
    metrics: &[
        ("charts/episodic_return", "undiscounted return of an episode that ended"),
        ("losses/qf_loss, losses/qf_values", "loss of both critics, and their mean value"),
        ("losses/vf_loss", "mean squared error of the value network, if there is one"),
        ("losses/actor_loss", "loss of the policy"),
        ("losses/entropy", "mean of -log pi (log_q with a Tsallis q') of the actions drawn, nats"),
        ("losses/kl", "mean of log pi - log pi_k of the actions drawn, nats; 0 where pi_k was just renewed"),
    ],
    reach_for: "actions that are numbers and steps that are dear, where SAC's policy moves too fast for its critics",
    avoid_when: "actions are choices (dqn, mdpo), or the temperature should be learnt (sac)",
    failure_signs: &[
        "qf_values grow without bound: lower method.critic_rate or method.gamma",
        "kl saw-tooths up to many nats: raise method.c or lower method.m",
        "entropy falls to -5 per component at once: raise method.lam, or scale rewards",
    ],
    variants: &[
        (
            "SAC with a fixed temperature and Q_1 in the policy's loss",
            "method.c = 0.2, method.regularise = 0",
        ),
        ("critics of the paper's code", "method.critic = \"value\""),
        ("Tsallis divergence", "method.tsallis = 1.5"),
        ("acting as in the paper's code", "method.sample = false"),
        ("score-function gradient", "method.reparameterise = false"),
        ("logged data beside the environment", "data.train = [\"FILE\"]"),
    ],
};

#[cfg(test)]
mod tests {
    use polo_nn::mlp::{Activation, Shape};

    use super::*;

    fn learner(settings: MdpoOff) -> MdpoOffLearner {
        let (low, high) = ([-2.0, 0.0], [2.0, 1.0]);
        let seeds = Seeds::new(3);
        let hidden = [8];
        let actor = Network::new(shape(&hidden, 3, 4, 1), "policy", &seeds.child("policy"));
        // Without kinks, for the sake of finite differences.
        let smooth = Shape { activation: Activation::Tanh, ..shape(&hidden, 5, 1, 2) };
        let critic = Network::new(smooth, "critic", &seeds.child("critic"));
        MdpoOffLearner {
            settings,
            bounds: Bounds::new(&low, &high),
            actions: Space::Box { low: low.to_vec(), high: high.to_vec() },
            previous: actor.clone(),
            target: critic.clone(),
            actor,
            critic,
            value: None,
        }
    }

    fn noise(count: usize, stream: &str) -> Vec<f32> {
        Seeds::new(8).normal(count, stream, 0)
    }

    /// Outputs of a policy for so many rows: a bit off the centre, about half as wide as the range. Narrow distributions
    /// have densities whose Tsallis logarithms drown differences of f32.
    fn moderate(n: usize, stream: &str) -> Vec<f32> {
        let around = [0.0, 0.0, 0.2, 0.2];
        noise(n * 4, stream).iter().enumerate().map(|(i, x)| around[i % 4] + 0.1 * x).collect()
    }

    /// Slopes are those of finite differences, for several weights and logarithms.
    #[test]
    fn slopes_are_those_of_finite_differences() {
        let n = 4;
        let (observations, outputs) = (noise(n * 3, "observations"), moderate(n, "outputs"));
        let drawn = noise(n * 2, "noise");
        for (c, lam, tsallis) in [(0.5, 0.1, 1.0), (0.2, 0.2, 1.0), (1.0, 0.2, 1.5), (0.7, 0.0, 0.8)] {
            let own = learner(MdpoOff { c, lam, tsallis, regularise: 0.05, ..MdpoOff::default() });
            let previous = own.gaussian(&moderate(n, "previous"));
            let judge = |outputs: &[f32]| own.judge(&observations, outputs, &previous, &drawn);
            let slopes = judge(&outputs).slopes;
            for i in 0..outputs.len() {
                let at = |by: f32| {
                    let mut moved = outputs.clone();
                    moved[i] += by;
                    judge(&moved).loss
                };
                let expected = (at(4e-3) - at(-4e-3)) / 8e-3;
                let error = (slopes[i] - expected).abs();
                assert!(
                    error < 1e-2 * (1.0 + expected.abs()),
                    "{c} {lam} {tsallis} {i}: {} {expected}",
                    slopes[i]
                );
            }
        }
    }

    /// With c = lam nothing is left of the previous policy: the slopes are those of SAC's loss with the first critic.
    #[test]
    fn without_a_divergence_it_is_sac() {
        let (n, d, lam) = (6, 2, 0.2);
        let own = learner(MdpoOff { c: lam, lam, regularise: 0.0, ..MdpoOff::default() });
        let (observations, outputs) = (noise(n * 3, "observations"), noise(n * 4, "outputs"));
        let (drawn, previous) = (noise(n * d, "noise"), own.gaussian(&noise(n * 4, "previous")));
        let found = own.judge(&observations, &outputs, &previous, &drawn).slopes;
        let drawn = Squashed::new(&own.gaussian(&outputs), &drawn, &own.bounds);
        let judgement = own.critic.forward(&beside(&observations, 3, &drawn.actions, d));
        let mut dvalues = vec![0.0; 2 * n];
        dvalues[..n].fill(-1.0 / n as f32);
        let dactions = last_columns(&own.critic.slope(&judgement, &dvalues), 3 + d, d);
        let (dmeans, dlog_stds) = drawn.push_back(&dactions, &vec![lam as f32 / n as f32; n]);
        let expected = squashed::through_heads(&outputs, &dmeans, &dlog_stds, d);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    /// Both gradients estimate the same: over many draws in one state their means agree.
    #[test]
    fn gradients_through_actions_and_through_scores_agree() {
        for tsallis in [1.0, 1.5] {
            let n = 60_000;
            let (observation, output) = (noise(3, "observations"), moderate(1, "outputs"));
            let (observations, outputs, drawn) =
                (observation.repeat(n), output.repeat(n), noise(n * 2, "noise"));
            let means = [true, false].map(|reparameterise| {
                let settings = MdpoOff { c: 0.5, lam: 0.1, tsallis, reparameterise, ..MdpoOff::default() };
                let own = learner(settings);
                // Costs that differ little from draw to draw.
                let near: Vec<f32> = output.iter().map(|x| x + 0.1).collect();
                let previous = own.gaussian(&near.repeat(n));
                let slopes = own.judge(&observations, &outputs, &previous, &drawn).slopes;
                let mut sums = [0.0f64; 4];
                slopes.chunks_exact(4).for_each(|row| (0..4).for_each(|i| sums[i] += f64::from(row[i])));
                sums
            });
            for i in 0..4 {
                let [through, scores] = [means[0][i], means[1][i]];
                assert!((through - scores).abs() < 0.02 + 0.03 * through.abs(), "{tsallis} {means:?}");
            }
        }
    }

    #[test]
    fn the_previous_policy_is_renewed_every_m_updates() {
        for critic in [Critic::TwinQ, Critic::Value] {
            let settings = MdpoOff { m: 3, hidden: vec![8], critic, batch: 4, ..MdpoOff::default() };
            let (low, high) = (vec![-1.0], vec![1.0]);
            let seeds = Seeds::new(2);
            let observations = Space::symmetric(&[1.0; 2]);
            let made = settings.learner(&observations, &Space::Box { low, high }, &seeds).unwrap();
            let Learner::OffPolicy(mut own) = made else { unreachable!("off-policy") };
            let batch = Batch {
                observations: noise(8, "o"),
                actions: vec![0.1, -0.4, 0.7, 0.0],
                rewards: noise(4, "r"),
                next_observations: noise(8, "n"),
                terminated: vec![0.0, 1.0, 0.0, 0.0],
                ..Batch::default()
            };
            for update in 0..7 {
                let metrics = own.update(&batch, update, &seeds);
                let kl = metrics.get("losses/kl").unwrap();
                assert_eq!(kl == 0.0, update % 3 == 0, "{update}: {kl}");
                assert_eq!(metrics.get("losses/vf_loss").is_some(), critic == Critic::Value);
            }
            // What was saved goes on in the same way.
            let mut tensors = Tensors::new();
            own.save(&mut tensors);
            let Learner::OffPolicy(mut back) =
                settings.learner(&observations, &Space::symmetric(&[1.0]), &Seeds::new(5)).unwrap()
            else {
                unreachable!("off-policy")
            };
            back.load(&mut tensors).unwrap();
            for update in 7..10 {
                assert_eq!(own.update(&batch, update, &seeds), back.update(&batch, update, &seeds));
            }
        }
    }
}
