//! CQL: conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779), in its form H.
//!
//! Critics learn the value of the policy, and are pressed down where the data has nothing to say: at actions whose
//! value is high, and up again at the data's own. The rest is SAC without entropy in the target:
//!
//! ```text
//! y     = r + gamma (1 - terminated) min Q'(s', a'),   a' ~ pi(s')
//! z     = [Q(s, a_u) - log u(a_u), Q(s, a_n) - log pi(a_n|s'), Q(s, a_c) - log pi(a_c|s)]
//!         n actions each: a_u uniform, a_n ~ pi(s'), a_c ~ pi(s), all judged at s and held fixed
//! P     = mean over rows of clamp(T log sum exp(z / T) - Q(s, a), least, most)
//! L_Q   = sum over both critics of mean (Q(s, a) - y)² + alpha P
//! L_pi  = mean of t log pi(a|s) - min Q(s, a),   a ~ pi(s)
//! L_t   = -log t (mean log pi(a|s) + H)
//! ```
//!
//! Without importance weights z = [Q(s, a_u), Q(s, a), Q(s, a_n), Q(s, a_c)]. The Lagrange version, for a gap g, has
//! `alpha' alpha (P - g)` in place of `alpha P`, and `log alpha'` climbs the mean of that over both critics. All losses
//! are those of the parameters before the step. Details and defaults are those of CORL's implementation for locomotion.

use polo_nn::{
    Gradients, ParameterId,
    distributions::{Bounds, Gaussian, Squashed},
    files::Tensors,
    mlp::{Init, Shape},
};
use polo_run::{
    Result,
    card::MethodCard,
    config::Settings,
    metrics::Metrics,
    seed::{Seeds, unit},
};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, Source, cal_ql::lift};
use crate::{
    data::Wishes,
    deterministic::{mean, shape},
    network::{Adam, Network, Scalar, aims, beside, last_columns, least},
    off_policy::{self, Schedule},
    policy::{Head, Policy},
    settings::MethodSettings,
    squashed,
};

/// Settings of `polo train cql`. Defaults are CORL's for locomotion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cql {
    /// Weight alpha of the penalty on critics.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// Actions of each of the three kinds that the penalty looks at, per state; also those of `max_target`.
    #[schemars(range(min = 1, max = 10_000))]
    pub samples: usize,
    /// Temperature T of the penalty's log-sum-exp, in units of value.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub softness: f64,
    /// Divide each sampled action's share in the log-sum-exp by its density. Off: the data's action takes part instead.
    pub importance: bool,
    /// Lagrange version: the penalty, a difference of values, is driven towards this gap. Unset by default: a fixed
    /// weight.
    pub gap: Option<f64>,
    /// Least that a state's difference counts in the penalty. Unset by default: no bound; CORL has -200 on AntMaze.
    pub least_difference: Option<f64>,
    /// Most that it counts. Unset by default: no bound.
    pub most_difference: Option<f64>,
    /// The target takes the best of `samples` actions at the next state instead of one.
    pub max_target: bool,
    /// The target counts the entropy of what follows, as SAC's does.
    pub entropy_in_target: bool,
    /// Weight t of the policy's entropy, in units of value per nat; unset by default: learnt.
    #[schemars(range(min = 0.0))]
    pub temperature: Option<f64>,
    /// Entropy that a learnt temperature aims at, nats; unset by default: minus the number of action dimensions.
    pub target_entropy: Option<f64>,
    /// First updates in which the policy imitates the data's actions instead of climbing the critics.
    pub imitation_steps: u64,
    /// Step size of the Adams of policy and temperature.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub policy_rate: f64,
    /// Step size of the Adams of the critics and of the Lagrange version's multiplier.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub critic_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far the targets move towards the critics at each update.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Orthogonal weights in the critics at the beginning, instead of PyTorch's.
    pub orthogonal: bool,
    /// Widths of the policy's hidden layers.
    pub hidden: Vec<usize>,
    /// Widths of the critics' hidden layers.
    pub critic_hidden: Vec<usize>,
}

impl Default for Cql {
    fn default() -> Self {
        Self {
            alpha: 10.0,
            samples: 10,
            softness: 1.0,
            importance: true,
            gap: None,
            least_difference: None,
            most_difference: None,
            max_target: false,
            entropy_in_target: false,
            temperature: None,
            target_entropy: None,
            imitation_steps: 0,
            policy_rate: 3e-5,
            critic_rate: 3e-4,
            gamma: 0.99,
            tau: 0.005,
            batch: 256,
            orthogonal: true,
            hidden: vec![256, 256, 256],
            critic_hidden: vec![256, 256, 256],
        }
    }
}

impl Settings for Cql {
    fn check(&self) -> Result<()> {
        self.check_under("method")
    }
}

impl MethodSettings for Cql {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Cql {
    fn source(&self) -> Source {
        Source::Data
    }

    fn wishes(&self) -> Wishes {
        Wishes { normalise: true, ..Wishes::default() }
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        Ok(Learner::OffPolicy(Box::new(CqlLearner::new(self, false, observations, actions, seeds)?)))
    }
}

impl Cql {
    /// Checks what ranges cannot say, of settings that stand in this section.
    pub(super) fn check_under(&self, section: &str) -> Result<()> {
        for (key, widths) in [("hidden", &self.hidden), ("critic_hidden", &self.critic_hidden)] {
            super::check_hidden(widths).map_err(|problem| problem.place(format!("{section}.{key}")))?;
        }
        let (low, high) = self.reach();
        match low <= high {
            true => Ok(()),
            false => Err(polo_run::Problem::usage("the least difference is above the most")
                .place(format!("{section}.least_difference"))
                .hint("swap them, or leave one unset")),
        }
    }

    /// Between which bounds a state's difference counts.
    fn reach(&self) -> (f32, f32) {
        let or = |bound: Option<f64>, other: f32| bound.map_or(other, |bound| bound as f32);
        (or(self.least_difference, f32::NEG_INFINITY), or(self.most_difference, f32::INFINITY))
    }
}

/// Bounds of the logarithm of the policy's standard deviation.
const LOG_STD: (f32, f32) = (-20.0, 2.0);
/// m and c of that logarithm, m x + c of the network's x, at the beginning.
const LOG_STD_LINE: [f32; 2] = [1.0, -1.0];
/// The Lagrange version's multiplier never exceeds this.
const MOST_MULTIPLIER: f32 = 1e6;
/// How near to its bounds, in half widths, an action of the data may come before tanh is undone.
const EDGE: f32 = 1e-6;

/// The learner of CQL, and of Cal-QL where `calibrated`.
pub(super) struct CqlLearner {
    settings: Cql,
    calibrated: bool,
    bounds: Bounds,
    actions: Space,
    actor: Network,
    /// m and c.
    line: ParameterId,
    critic: Network,
    target: Network,
    log_temperature: Scalar,
    /// log alpha' of the Lagrange version.
    log_multiplier: Scalar,
}

/// What a loss says of itself and of its network.
struct Pulled {
    gradients: Gradients,
    metrics: Metrics,
    /// Slope of the loss of the number that is learnt beside the network.
    beside: f32,
}

/// The penalty of one critic, and its slopes in `values`, `[rows, 1 + m]`: of each row the data's action first, then the
/// m sampled ones. Their log-densities, `[rows, m]`, are taken off if given; if not, the data's action is one of them.
fn penalty(
    values: &[f32],
    log_densities: Option<&[f32]>,
    m: usize,
    softness: f32,
    (low, high): (f32, f32),
) -> (f32, Vec<f32>) {
    let rows = values.len() / (1 + m);
    let (mut sum, mut slopes) = (0.0, vec![0.0; values.len()]);
    for (row, (values, slopes)) in values.chunks_exact(1 + m).zip(slopes.chunks_exact_mut(1 + m)).enumerate()
    {
        let (first, z): (usize, Vec<f32>) = match log_densities {
            Some(logs) => {
                (1, values[1..].iter().zip(&logs[row * m..]).map(|(value, log)| value - log).collect())
            }
            None => (0, values.to_vec()),
        };
        let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f32> = z.iter().map(|z| ((z - top) / softness).exp()).collect();
        let total: f32 = shares.iter().sum();
        let difference = top + softness * total.ln() - values[0];
        sum += difference.clamp(low, high);
        if (low..=high).contains(&difference) {
            slopes[0] = -1.0 / rows as f32;
            let each = shares.iter().map(|share| share / total / rows as f32);
            slopes[first..].iter_mut().zip(each).for_each(|(slope, share)| *slope += share);
        }
    }
    (sum / rows as f32, slopes)
}

/// Each row so many times in a row.
fn repeated(rows: &[f32], width: usize, times: usize) -> Vec<f32> {
    rows.chunks_exact(width).flat_map(|row| std::iter::repeat_n(row, times).flatten().copied()).collect()
}

impl CqlLearner {
    pub(super) fn new(
        settings: &Cql,
        calibrated: bool,
        observations: &Space,
        actions: &Space,
        seeds: &Seeds,
    ) -> Result<Self> {
        let (inputs, low, high) = super::numbers_in_and_out(observations, actions)?;
        let d = low.len();
        let small = (Init::Torch, Init::Xavier(0.01));
        let policy = Shape { init: small, ..shape(&settings.hidden, inputs, 2 * d, 1) };
        let mut actor = Network::new(policy, "policy", &seeds.child("policy"));
        let line = actor.add_row("log_std", LOG_STD_LINE.to_vec());
        let init = match settings.orthogonal {
            true => (Init::Orthogonal(std::f64::consts::SQRT_2), Init::Orthogonal(0.01)),
            false => small,
        };
        let critics = Shape { init, ..shape(&settings.critic_hidden, inputs + d, 1, 2) };
        let critic = Network::new(critics, "critic", &seeds.child("critic"));
        Ok(Self {
            settings: settings.clone(),
            calibrated,
            bounds: Bounds::new(low, high),
            actions: actions.clone(),
            actor,
            line,
            target: critic.clone(),
            critic,
            log_temperature: Scalar::new("log_temperature", 0.0),
            log_multiplier: Scalar::new("log_multiplier", 1.0),
        })
    }

    fn width(&self) -> usize {
        self.bounds.scale.len()
    }

    fn observation(&self) -> usize {
        self.actor.mlp.shape().inputs
    }

    fn temperature(&self) -> f32 {
        self.settings.temperature.map_or_else(|| self.log_temperature.value().exp(), |fixed| fixed as f32)
    }

    fn multiplier(&self) -> f32 {
        self.log_multiplier.value().exp().min(MOST_MULTIPLIER)
    }

    /// The network's outputs with m x + c in place of x.
    fn lined(&self, outputs: &[f32]) -> Vec<f32> {
        let (d, line) = (self.width(), self.actor.row(self.line));
        let of = |(place, x): (usize, &f32)| if place % (2 * d) < d { *x } else { line[0] * x + line[1] };
        outputs.iter().enumerate().map(of).collect()
    }

    fn gaussian(&self, outputs: &[f32]) -> Gaussian {
        squashed::clamped(&self.lined(outputs), self.width(), LOG_STD)
    }

    /// So many actions of the policy for each observation.
    fn draw(&self, observations: &[f32], times: usize, noise: &[f32]) -> Squashed {
        let outputs = repeated(&self.actor.evaluate(observations), 2 * self.width(), times);
        Squashed::new(&self.gaussian(&outputs), noise, &self.bounds)
    }

    /// What critics are to say of the data's actions.
    fn aims(&self, batch: &Batch, update: u64, seeds: &Seeds) -> Vec<f32> {
        let (n, d) = (batch.len(), self.width());
        let times = if self.settings.max_target { self.settings.samples } else { 1 };
        let next =
            self.draw(&batch.next_observations, times, &seeds.normal(n * times * d, "cql/target", update));
        let seen = repeated(&batch.next_observations, self.observation(), times);
        let (lesser, _) =
            least(&self.target.evaluate(&beside(&seen, self.observation(), &next.actions, d)), n * times);
        let entropy = if self.settings.entropy_in_target { self.temperature() } else { 0.0 };
        let worth = |row: usize| {
            let of_row = row * times..(row + 1) * times;
            let best = of_row.fold(row * times, |best, at| if lesser[at] > lesser[best] { at } else { best });
            lesser[best] - entropy * next.logps[best]
        };
        aims(batch, &(0..n).map(worth).collect::<Vec<_>>(), self.settings.gamma)
    }

    /// The data's action and the sampled ones of each row, `[rows, 1 + 3 samples, d]`, the latter being uniform, of
    /// the next state and of this one in turn; and the log-densities of the sampled ones.
    fn sampled(&self, batch: &Batch, update: u64, seeds: &Seeds) -> (Vec<f32>, Vec<f32>) {
        let (rows, d, n) = (batch.len(), self.width(), self.settings.samples);
        let next = self.draw(&batch.next_observations, n, &seeds.normal(rows * n * d, "cql/next", update));
        let current = self.draw(&batch.observations, n, &seeds.normal(rows * n * d, "cql/current", update));
        let mut rng = seeds.rng("cql/uniform", update);
        let Bounds { centre, scale } = &self.bounds;
        let uniform = -scale.iter().map(|scale| (2.0 * scale).ln()).sum::<f32>();
        let (mut actions, mut logs) = (Vec::new(), Vec::new());
        for row in 0..rows {
            actions.extend_from_slice(&batch.actions[row * d..][..d]);
            for place in 0..n * d {
                actions.push(centre[place % d] + scale[place % d] * (2.0 * unit(&mut rng) as f32 - 1.0));
            }
            logs.extend(std::iter::repeat_n(uniform, n));
            for drawn in [&next, &current] {
                actions.extend_from_slice(&drawn.actions[row * n * d..][..n * d]);
                logs.extend_from_slice(&drawn.logps[row * n..][..n]);
            }
        }
        (actions, logs)
    }

    /// L_Q, whose number beside the critics is log alpha'.
    fn pull_critics(&self, batch: &Batch, update: u64, seeds: &Seeds) -> Pulled {
        let Cql { samples, gap, alpha, softness, importance, .. } = self.settings;
        let (rows, m) = (batch.len(), 3 * samples);
        let aims = self.aims(batch, update, seeds);
        let (actions, logs) = self.sampled(batch, update, seeds);
        let logs = importance.then_some(&logs[..]);
        let seen = repeated(&batch.observations, self.observation(), 1 + m);
        let tape = self.critic.forward(&beside(&seen, self.observation(), &actions, self.width()));
        let values = tape.outputs();
        let multiplier = if gap.is_some() { self.multiplier() } else { 1.0 };
        let weight = multiplier * alpha as f32;
        let gap = gap.unwrap_or(0.0) as f32;
        let (mut fit, mut value, mut excess, mut raised) = (0.0, 0.0, 0.0, 0);
        let mut dvalues = Vec::with_capacity(values.len());
        for own in values.chunks_exact(rows * (1 + m)) {
            let mut own = own.to_vec();
            let data: Vec<f32> = own.iter().step_by(1 + m).copied().collect();
            let lifted = match self.calibrated {
                true => lift(&mut own, &batch.returns_to_go, samples),
                false => Vec::new(),
            };
            let (penalty, mut slopes) = penalty(&own, logs, m, softness as f32, self.settings.reach());
            lifted.iter().for_each(|&place| slopes[place] = 0.0);
            slopes.iter_mut().for_each(|slope| *slope *= weight);
            for (row, (value, aim)) in data.iter().zip(&aims).enumerate() {
                fit += (value - aim).powi(2) / rows as f32;
                slopes[row * (1 + m)] += 2.0 * (value - aim) / rows as f32;
            }
            dvalues.extend(slopes);
            excess += penalty - gap;
            value += 0.5 * mean(&data);
            raised += lifted.len();
        }
        let mut gradients = self.critic.gradients();
        self.critic.push_back(&tape, &dvalues, &mut gradients);
        let loss = fit + weight * excess;
        let mut metrics: Metrics = [
            ("losses/critic_loss", loss),
            ("losses/qf_loss", fit),
            ("losses/qf_values", value),
            ("losses/penalty", 0.5 * excess + gap),
        ]
        .into_iter()
        .map(|(name, value)| (name, f64::from(value)))
        .collect();
        if self.settings.gap.is_some() {
            metrics.set("losses/multiplier", f64::from(multiplier));
        }
        if self.calibrated {
            metrics.set("losses/lifted", raised as f64 / (4 * rows * samples) as f64);
        }
        // Past its bound the multiplier has no slope.
        let moves = if multiplier < MOST_MULTIPLIER { weight } else { 0.0 };
        Pulled { gradients, metrics, beside: -0.5 * moves * excess }
    }

    /// L_pi, whose number beside the policy is log t.
    fn pull_policy(&self, batch: &Batch, update: u64, seeds: &Seeds) -> Pulled {
        let (n, d, temperature) = (batch.len(), self.width(), self.temperature());
        let tape = self.actor.forward(&batch.observations);
        let outputs = tape.outputs();
        let gaussian = self.gaussian(&outputs);
        let drawn = Squashed::new(&gaussian, &seeds.normal(n * d, "cql/policy", update), &self.bounds);
        let weights = vec![temperature / n as f32; n];
        let (worth, (dmeans, dlog_stds)) = if update < self.settings.imitation_steps {
            let (logp, pulls) = self.imitation(&gaussian, &batch.actions);
            let (mut dmeans, mut dlog_stds) = drawn.push_back(&vec![0.0; n * d], &weights);
            dmeans.iter_mut().zip(pulls.0).for_each(|(slope, pull)| *slope += pull);
            dlog_stds.iter_mut().zip(pulls.1).for_each(|(slope, pull)| *slope += pull);
            (logp, (dmeans, dlog_stds))
        } else {
            let x = beside(&batch.observations, self.observation(), &drawn.actions, d);
            let judged = self.critic.forward(&x);
            let (lesser, whose) = least(&judged.outputs(), n);
            let mut dvalues = vec![0.0; 2 * n];
            whose.iter().enumerate().for_each(|(row, member)| dvalues[member * n + row] = -1.0 / n as f32);
            let dactions = last_columns(&self.critic.slope(&judged, &dvalues), self.observation() + d, d);
            (mean(&lesser), drawn.push_back(&dactions, &weights))
        };
        let slopes = squashed::through_clamped(&self.lined(&outputs), &dmeans, &dlog_stds, d, LOG_STD);
        let mut gradients = self.actor.gradients();
        self.push_through_line(&tape, &outputs, slopes, &mut gradients);
        let logp = mean(&drawn.logps);
        let metrics = [
            ("losses/actor_loss", temperature * logp - worth),
            ("losses/entropy", -logp),
            ("losses/temperature", temperature),
        ];
        let metrics = metrics.into_iter().map(|(name, value)| (name, f64::from(value))).collect();
        let target = self.settings.target_entropy.unwrap_or(-(d as f64)) as f32;
        Pulled { gradients, metrics, beside: -(logp + target) }
    }

    /// The mean log-prob of the data's actions, and the slopes of minus that in means and logarithms of deviations.
    fn imitation(&self, gaussian: &Gaussian, actions: &[f32]) -> (f32, (Vec<f32>, Vec<f32>)) {
        let (d, Bounds { centre, scale }) = (self.width(), &self.bounds);
        let n = actions.len() / d;
        let squashed = |(place, action): (usize, &f32)| {
            let i = place % d;
            ((action - centre[i]) / scale[i]).clamp(EDGE - 1.0, 1.0 - EDGE)
        };
        let tanhs: Vec<f32> = actions.iter().enumerate().map(squashed).collect();
        let before: Vec<f32> = tanhs.iter().map(|tanh| tanh.atanh()).collect();
        let widened = |place: usize| (scale[place % d] * (1.0 - tanhs[place] * tanhs[place])).ln();
        let logp: f32 = before.chunks_exact(d).enumerate().map(|(row, u)| gaussian.logp(row, u)).sum::<f32>()
            - (0..n * d).map(widened).sum::<f32>();
        let pulls = gaussian.push_back(&before, &vec![-1.0 / n as f32; n], &vec![0.0; n]);
        (logp / n as f32, pulls)
    }

    /// Adds the slopes in [`CqlLearner::lined`] to those of the policy's network, m and c.
    fn push_through_line(
        &self,
        tape: &polo_nn::mlp::Tape,
        outputs: &[f32],
        mut slopes: Vec<f32>,
        gradients: &mut Gradients,
    ) {
        let (d, m) = (self.width(), self.actor.row(self.line)[0]);
        let mut line = vec![0.0; 2];
        for (place, (slope, x)) in slopes.iter_mut().zip(outputs).enumerate() {
            if place % (2 * d) >= d {
                line[0] += *slope * x;
                line[1] += *slope;
                *slope *= m;
            }
        }
        self.actor.push_back(tape, &slopes, gradients);
        self.actor.push_row(self.line, line, gradients);
    }
}

impl off_policy::Learner for CqlLearner {
    fn schedule(&self) -> Schedule {
        super::offline_schedule(self.settings.batch)
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        let noise = seeds.normal(self.width(), "policy/noise", step);
        Action::Continuous(self.draw(observation, 1, &noise).actions)
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let policy = self.pull_policy(batch, update, seeds);
        let critics = self.pull_critics(batch, update, seeds);
        let [slow, fast] = [self.settings.policy_rate, self.settings.critic_rate]
            .map(|learning_rate| Adam { learning_rate, epsilon: 1e-8 });
        if self.settings.temperature.is_none() {
            self.log_temperature.step(policy.beside, slow);
        }
        self.actor.step(policy.gradients, slow, 1.0);
        if self.settings.gap.is_some() {
            self.log_multiplier.step(critics.beside, fast);
        }
        self.critic.step(critics.gradients, fast, 1.0);
        self.target.parameters.move_towards(&self.critic.parameters, self.settings.tau);
        let mut metrics = critics.metrics;
        metrics.merge(&policy.metrics);
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        super::policy_of(environment, &self.actions, Head::Squashed, &self.actor, None)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.actor.save("actor", tensors);
        self.critic.save("critic", tensors);
        self.target.save_weights("target", tensors);
        self.log_temperature.save("temperature", tensors);
        self.log_multiplier.save("multiplier", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.load("actor", tensors)?;
        self.critic.load("critic", tensors)?;
        self.target.load_weights("target", tensors)?;
        self.log_temperature.load("temperature", tensors)?;
        self.log_multiplier.load("multiplier", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "cql",
    title: "Conservative Q-learning",
    paper: "Kumar, Zhou, Tucker, Levine: Conservative Q-Learning for Offline Reinforcement Learning",
    arxiv: "2006.04779",
    year: 2020,
    family: super::FAMILY,
    summary: "offline control: critics that are pressed down at actions the data does not show",
    claim: "critics that do not promise more than the data shows make SAC learn offline, most on data of mixed policies; \
            here a baseline",
    equation: "z    = [Q(s,a_u) - log u(a_u), Q(s,a_n) - log pi(a_n|s'), Q(s,a_c) - log pi(a_c|s)]\n\
               P    = mean clamp(T log sum exp(z / T) - Q(s,a), least, most)\n\
               L_Q  = sum over Q_1, Q_2 of mean (Q(s,a) - y)² + alpha P,   y = r + gamma (1 - terminated) min Q'(s',a')\n\
               L_pi = mean t log pi(a~|s) - min Q(s,a~)\n\
               Lagrange: alpha' alpha (P - gap) in place of alpha P, and alpha' climbs it",
    symbols: &[
        ("Q, Q'", "two critics, and their slow copies (method.tau)"),
        ("a", "the action of the data"),
        (
            "a_u, a_n, a_c",
            "actions drawn uniformly, from pi(s') and from pi(s), method.samples each, held fixed",
        ),
        ("a', a~", "fresh actions of the policy at s' and at s"),
        ("alpha", "weight of the penalty (method.alpha)"),
        ("T", "method.softness, in units of value"),
        ("least, most", "method.least_difference and method.most_difference"),
        ("gap, alpha'", "method.gap turns the Lagrange version on; alpha' is its multiplier, at most 1e6"),
        ("t", "weight of the entropy (method.temperature, or learnt)"),
    ],
    metrics: &[
        ("losses/critic_loss", "loss of both critics with the penalty"),
        ("losses/qf_loss, losses/qf_values", "its squared errors, and the mean value of the data's actions"),
        (
            "losses/penalty",
            "mean P of both critics; with importance weights it is log(3 samples) above the true difference",
        ),
        ("losses/multiplier", "alpha' of the Lagrange version"),
        ("losses/actor_loss", "loss of the policy"),
        ("losses/entropy", "mean entropy of the actions drawn, nats"),
        ("losses/temperature", "t, value per nat"),
    ],
    reach_for: "data of several policies and actions that are numbers, where no more than the data shows may be promised",
    avoid_when: "time is short: each update asks critics about 3 samples + 1 actions per state (td3-bc, iql); or a start \
                 for learning in the environment is wanted (cal-ql)",
    failure_signs: &[
        "qf_values far below all returns: lower method.alpha, or set method.gap",
        "qf_values grow without bound: raise method.alpha",
        "the policy is no better than bc: lower method.alpha",
    ],
    variants: &[
        ("without importance weights", "method.importance = false"),
        ("Lagrange", "method.gap = 0.8"),
        ("best of several actions in the target", "method.max_target = true"),
        (
            "as CORL on AntMaze",
            "method.policy_rate = 1e-4, method.alpha = 5, method.critic_hidden = [256, 256, 256, 256, 256], \
             method.gap = 0.8, method.max_target = true, method.least_difference = -200, data.reward_scale = 10, \
             data.reward_shift = -5",
        ),
        (
            "fine-tuned in an environment",
            "--env ID --set data.offline_steps=100000 --set training.steps=200000",
        ),
    ],
};

#[cfg(test)]
#[path = "cql_tests.rs"]
mod tests;
