//! Contextual bandits that are retrained on their own recent logs (Vangara, Egg 2024, arXiv 2412.00569).
//!
//! Requests come in batches. A request x admits the actions A(x), K of them; the reward r is 1 (authorised) or 0. For
//! generation g = 1, 2, .. an oracle is fitted to the last w batches, from scratch, and plays the next batch:
//!
//! ```text
//! f_g   = argmin sum_i logloss(f(x_i, a_i), r_i) + penalty/2 |theta - mu|^2      per action, f = sigmoid(theta_a . x)
//! mu    = (logit of the window's positive rate, cut to [.01, .99]; 0, ..)
//! p     = explore(f_g(x, a), a in A(x)),   logged (1 - q) p + q / K,   q the holdout
//! V_g   = value of playing the best of f_g,   b the first of the best
//! O     = mean_g |V_{g+1} - 2 V_g + V_{g-1}| / 2
//! ```
//!
//! Batch 0 is played uniformly. No row is weighted unless a setting says so: that oracles need no importance weights is what
//! is on trial. The schemes of exploration are those of [`super::squarecb`], [`super::fastcb`], [`super::softmax`] and
//! [`super::epsilon_greedy`], at costs -f (losses 1 - f).

mod oracle;
mod payments;
mod report;

use std::path::Path;

use polo_run::{
    Problem, Result,
    card::MethodCard,
    config::Settings,
    metrics::Metrics,
    process::Process,
    seed::{Seeds, unit},
    stats::mean,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use oracle::{Features, Fitting, Oracle};
pub use payments::{Payments, Requests};
pub use report::{Calibration, autocorrelation, entropy, oscillation};

use super::{epsilon_greedy::EpsilonGreedy, fastcb::FastCb, softmax::Softmax, squarecb::SquareCb};
use crate::{
    draw::categorical,
    estimators::{Estimator, Rows},
    explore::{Explorer, best},
    settings::{MethodSettings, Training},
    train::{load_state, make_folder, save_state},
};

/// From predicted rewards to probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Exploration {
    /// 1 / (K + gamma (f(b) - f(a))).
    #[default]
    Squarecb,
    /// The same with the gap divided by 1 - f(b).
    Fastcb,
    /// In proportion to exp(lambda f).
    Softmax,
    /// The best, and now and then any.
    EpsilonGreedy,
    /// The first of the best.
    Greedy,
    /// Every admitted action alike.
    Uniform,
}

/// Settings of `polo train adyen-bandits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdyenBandits {
    /// How actions are explored: `squarecb`, `fastcb`, `softmax`, `epsilon-greedy`, `greedy` (the first of equals) or
    /// `uniform`.
    pub exploration: Exploration,
    /// gamma of `squarecb` and `fastcb` for one row: the larger, the less is explored. Default from this program's tests;
    /// 10 with an exponent of 0.5 is common.
    #[schemars(range(min = 0.0))]
    pub gamma_scale: f64,
    /// How gamma grows with the rows of the window.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub gamma_exponent: f64,
    /// By what gamma grows from generation to generation (annealing). 1: it does not.
    #[schemars(range(max = 1000.0), extend("exclusiveMinimum" = 0.0))]
    pub gamma_growth: f64,
    /// lambda of `softmax`.
    #[schemars(range(min = 0.0))]
    pub lambda: f64,
    /// Share that `epsilon-greedy` plays at random.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
    /// Generations after batch 0.
    #[schemars(range(min = 1, max = 100_000))]
    pub generations: u64,
    /// n, requests of a batch.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub batch: usize,
    /// w, batches that an oracle is fitted to, the last ones. 0: all (full memory).
    pub window: u64,
    /// D, generations that rewards are late. While none has come, play is uniform.
    pub delay: u64,
    /// q, share of requests that is played uniformly whatever the scheme says.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub holdout: f64,
    /// What the oracle sees of a context: `lin`, or `full` with all products of two of its numbers, which the simulated
    /// rewards are made of.
    pub features: Features,
    /// Pull of each coefficient, the constant too, to the centre of the fit.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub penalty: f64,
    /// Weigh rows by inverse propensity, 1 / (K p) (1 for what is played uniformly), and at most this. Unset by default: all
    /// rows alike.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub importance_clip: Option<f64>,
    /// Weigh rows so that those with reward 0 and those with reward 1 weigh the same in all. Predictions are then no
    /// probabilities of a reward.
    pub balance_classes: bool,
    /// Share of the previous oracle in the centre of the fit (warm start); it counts with `penalty`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warm_start: f64,
    /// Rows below which an action is called starved in a segment, the sign of a context's first number.
    pub least_rows: usize,
    /// Numbers of a simulated context.
    #[schemars(range(min = 1, max = 1000))]
    pub context: usize,
    /// Actions of the simulated stream.
    #[schemars(range(min = 2, max = 10_000))]
    pub actions: usize,
    /// Probability with which a simulated request admits an action; it admits one at least.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub availability: f64,
    /// Simulated requests on which the value of policies is computed; they are never played.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub fresh: usize,
}

impl Default for AdyenBandits {
    fn default() -> Self {
        Self {
            exploration: Exploration::Squarecb,
            gamma_scale: 500.0,
            gamma_exponent: 0.0,
            gamma_growth: 1.0,
            lambda: 20.0,
            epsilon: 0.05,
            generations: 8,
            batch: 3000,
            window: 1,
            delay: 0,
            holdout: 0.0,
            features: Features::Lin,
            penalty: 1.0,
            importance_clip: None,
            balance_classes: false,
            warm_start: 0.0,
            least_rows: 30,
            context: 6,
            actions: 8,
            availability: 0.7,
            fresh: 4000,
        }
    }
}

impl Settings for AdyenBandits {
    fn check(&self) -> Result<()> {
        if self.delay >= self.generations {
            return Err(Problem::usage("no reward comes before the last generation")
                .place("method.delay")
                .hint("give a delay below method.generations"));
        }
        Ok(())
    }
}

impl AdyenBandits {
    /// gamma of a generation, for a window of so many rows.
    fn gamma(&self, generation: u64, rows: usize) -> f64 {
        let grown = self.gamma_growth.powf(generation.saturating_sub(1) as f64);
        // Not infinite: 0 times a tie's gap must be 0.
        (self.gamma_scale * (rows as f64).powf(self.gamma_exponent) * grown).min(1e300)
    }

    /// The scheme of exploration with this gamma.
    pub fn explorer(&self, gamma: f64) -> Box<dyn Explorer> {
        let greedy = |epsilon| Box::new(EpsilonGreedy { epsilon, first_only: true });
        let (gamma_scale, gamma_exponent, epsilon) = (gamma, 0.0, 0.0);
        match self.exploration {
            Exploration::Squarecb => Box::new(SquareCb { gamma_scale, gamma_exponent, epsilon }),
            Exploration::Fastcb => Box::new(FastCb { gamma_scale, gamma_exponent, shift: 1.0, epsilon }),
            Exploration::Softmax => Box::new(Softmax { lambda: self.lambda, epsilon }),
            Exploration::EpsilonGreedy => greedy(self.epsilon),
            Exploration::Greedy => greedy(0.0),
            Exploration::Uniform => greedy(1.0),
        }
    }

    fn fitting(&self) -> Fitting {
        Fitting {
            features: self.features,
            penalty: self.penalty,
            importance_clip: self.importance_clip,
            balance_classes: self.balance_classes,
            warm_start: self.warm_start,
        }
    }

    /// Generations before the first.
    pub fn generations(&self, seed: u64) -> Generations {
        let seeds = Seeds::new(seed);
        let payments = Payments::draw(self.context, self.actions, self.availability, &seeds);
        let fresh = payments.requests(self.fresh, &seeds, "fresh", 0);
        let truth: Vec<Vec<f64>> = fresh
            .iter()
            .map(|(x, admitted)| admitted.iter().map(|a| payments.probability(x, *a)).collect())
            .collect();
        let over = |of: &dyn Fn(&Vec<f64>) -> f64| truth.iter().map(of).sum::<f64>() / truth.len() as f64;
        let optimal = over(&|row| row.iter().copied().fold(0.0, f64::max));
        let uniform = over(&|row| row.iter().sum::<f64>() / row.len() as f64);
        let state = State::default();
        Generations { settings: self.clone(), seeds, payments, fresh, truth, optimal, uniform, state }
    }
}

/// Requests that were played.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// What was decided on. It follows from the seed, so that no checkpoint holds it.
    #[serde(skip)]
    pub requests: Requests,
    /// The generation that played.
    pub generation: u64,
    /// What was played, `[requests]`.
    pub actions: Vec<usize>,
    /// 0 or 1, `[requests]`.
    pub rewards: Vec<f64>,
    /// Probability with which the action was played, `[requests]`.
    pub propensities: Vec<f64>,
}

/// What a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    generation: u64,
    /// Of the generation.
    gamma: f64,
    /// Those that a later oracle may need, the newest at the end.
    batches: Vec<Batch>,
    oracle: Option<Oracle>,
    /// V of every generation with an oracle.
    values: Vec<f64>,
    /// Mean reward of every generation.
    rewards: Vec<f64>,
}

/// A learner that plays, logs and is retrained.
#[derive(Clone, Debug)]
pub struct Generations {
    settings: AdyenBandits,
    seeds: Seeds,
    payments: Payments,
    fresh: Requests,
    /// Expected reward of each admitted action of each fresh request.
    truth: Vec<Vec<f64>>,
    /// Value of playing the best action.
    pub optimal: f64,
    /// Value of playing uniformly.
    pub uniform: f64,
    state: State,
}

fn costs(predicted: &[f64]) -> Vec<f32> {
    predicted.iter().map(|reward| -reward as f32).collect()
}

impl Generations {
    /// V_1, V_2, .. so far: expected reward of playing the best action by each oracle, on fresh requests.
    pub fn values(&self) -> &[f64] {
        &self.state.values
    }

    /// Mean reward of each generation so far.
    pub fn rewards(&self) -> &[f64] {
        &self.state.rewards
    }

    /// Retrains and plays a batch.
    ///
    /// # Errors
    /// None for the simulated stream.
    pub fn advance(&mut self) -> Result<Metrics> {
        if self.state.generation == 0 {
            let (batch, _) = self.play(0, None, 0.0);
            self.state.batches.push(batch);
        }
        let generation = self.state.generation + 1;
        let settings = &self.settings;
        // Batch g is known from generation g + 1 + delay.
        let known = self.state.batches.len().saturating_sub(settings.delay as usize);
        let memory = if settings.window == 0 { usize::MAX } else { settings.window as usize };
        let window = &self.state.batches[known.saturating_sub(memory)..known];
        let rows = window.iter().map(|batch| batch.actions.len()).sum();
        let mut metrics = Metrics::new();
        let mut oracle = None;
        if rows > 0 {
            let fitted =
                settings.fitting().fit(window, self.payments.actions(), self.state.oracle.as_ref())?;
            self.describe_window(window, &mut metrics);
            if let Some(last) = window.last() {
                off_policy(&fitted, last, &mut metrics);
            }
            let value = self.value(&fitted);
            metrics.set("value/greedy", value);
            self.state.values.push(value);
            oracle = Some(fitted);
        }
        metrics.set("value/optimal", self.optimal).set("value/uniform", self.uniform);
        let gamma = self.settings.gamma(generation, rows);
        let (batch, played) = self.play(generation, oracle.as_ref(), gamma);
        metrics.merge(&played);
        metrics.set("policy/gamma", gamma);
        if let Some(index) = oscillation(&self.state.values) {
            metrics.set("oscillation/index", index);
        }
        if let Some(correlation) = autocorrelation(&self.state.values) {
            metrics.set("oscillation/autocorrelation", correlation);
        }
        let State { generation: done, batches, oracle: last, rewards, .. } = &mut self.state;
        rewards.push(mean(&batch.rewards).unwrap_or_default());
        batches.push(batch);
        let keep = memory.saturating_add(self.settings.delay as usize);
        batches.drain(..batches.len().saturating_sub(keep));
        *done = generation;
        *last = oracle;
        self.state.gamma = gamma;
        Ok(metrics)
    }

    fn value(&self, oracle: &Oracle) -> f64 {
        let rows = self.fresh.iter().zip(&self.truth);
        let sum: f64 =
            rows.map(|((x, admitted), truth)| truth[best(&costs(&oracle.predict(x, admitted)))]).sum();
        sum / self.truth.len() as f64
    }

    fn requests(&self, generation: u64) -> Requests {
        self.payments.requests(self.settings.batch, &self.seeds, "requests", generation)
    }

    /// A batch, uniform without an oracle, and what is to be told of it. Whatever the policy, a row takes the same two draws:
    /// policies with the same seed meet the same luck.
    fn play(&self, generation: u64, oracle: Option<&Oracle>, gamma: f64) -> (Batch, Metrics) {
        let explorer = self.settings.explorer(gamma);
        let requests = self.requests(generation);
        let mut rng = self.seeds.rng("play", generation);
        let mut batch = Batch { generation, ..Batch::default() };
        let (mut spread, mut others) = (0.0, 0.0);
        let mut calibrations = [Calibration::default(), Calibration::default()];
        for (context, admitted) in requests.iter() {
            let every = 1.0 / admitted.len() as f64;
            let predicted = oracle.map(|oracle| oracle.predict(context, admitted));
            let holdout = self.settings.holdout;
            let probabilities = match &predicted {
                // The oracle exists, so something has been learnt: 1.
                Some(predicted) => explorer
                    .probabilities(&costs(predicted), 1)
                    .iter()
                    .map(|p| (1.0 - holdout) * p + holdout * every)
                    .collect(),
                None => vec![every; admitted.len()],
            };
            let at = categorical(&probabilities, &mut rng);
            let rewarded = unit(&mut rng) < self.payments.probability(context, admitted[at]);
            let reward = f64::from(u8::from(rewarded));
            if let Some(predicted) = &predicted {
                let other = usize::from(at != best(&costs(predicted)));
                others += other as f64;
                calibrations[other].add(predicted[at], reward);
            }
            spread += entropy(&probabilities);
            batch.actions.push(admitted[at]);
            batch.rewards.push(reward);
            batch.propensities.push(probabilities[at]);
        }
        let rows = requests.len() as f64;
        let mut metrics = Metrics::new();
        metrics.set("online/reward", mean(&batch.rewards).unwrap_or_default());
        metrics.set("policy/entropy", spread / rows);
        if oracle.is_some() {
            metrics.set("policy/non_greedy", others / rows);
        }
        for (calibration, name) in calibrations.iter().zip(["greedy", "other"]) {
            if let Some((error, log_loss)) = calibration.errors() {
                metrics.set(format!("calibration/{name}_error"), error);
                metrics.set(format!("calibration/{name}_log_loss"), log_loss);
            }
        }
        batch.requests = requests;
        (batch, metrics)
    }

    fn describe_window(&self, window: &[Batch], metrics: &mut Metrics) {
        let mut counts = vec![[0; 2]; self.payments.actions()];
        let (mut rows, mut positive) = (0.0, 0.0);
        for batch in window {
            rows += batch.rewards.len() as f64;
            positive += batch.rewards.iter().sum::<f64>();
            for ((context, _), action) in batch.requests.iter().zip(&batch.actions) {
                counts[*action][usize::from(context[0] > 0.0)] += 1;
            }
        }
        let starved = counts.as_flattened().iter().filter(|count| **count < self.settings.least_rows).count();
        metrics.set("window/rows", rows);
        metrics.set("window/positive_rate", positive / rows);
        metrics.set("window/starved", starved as f64);
    }
}

/// Estimates of what playing the oracle's best would have earned in a batch, from the log alone.
fn off_policy(oracle: &Oracle, batch: &Batch, metrics: &mut Metrics) {
    let (mut target, mut values, mut fitted) = (Vec::new(), Vec::new(), Vec::new());
    for ((context, admitted), action) in batch.requests.iter().zip(&batch.actions) {
        let predicted = oracle.predict(context, admitted);
        let greedy = best(&costs(&predicted));
        target.push(f64::from(u8::from(admitted[greedy] == *action)));
        values.push(predicted[greedy]);
        fitted.extend(admitted.iter().position(|a| a == action).map(|at| predicted[at]));
    }
    let rows = Rows {
        rewards: &batch.rewards,
        propensities: &batch.propensities,
        target: &target,
        model_values: &values,
        fitted: &fitted,
    };
    metrics.set("off_policy/ips", Estimator::Ips(f64::INFINITY).value(&rows));
    metrics.set("off_policy/snips", Estimator::Snips.value(&rows));
    metrics.set("off_policy/dr", Estimator::Dr(f64::INFINITY).value(&rows));
}

impl Process for Generations {
    fn done(&self) -> u64 {
        self.state.generation
    }

    fn total(&self) -> u64 {
        self.settings.generations
    }

    fn go_on(&mut self) -> Result<Metrics> {
        self.advance()
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let online = mean(&self.state.rewards).unwrap_or_default();
        let mut metrics = Metrics::new();
        metrics.set("online/mean", online);
        let mut line =
            format!("mean reward {online:.3} (uniform {:.3}, best {:.3})", self.uniform, self.optimal);
        if let Some(value) = self.state.values.last() {
            metrics.set("value/greedy", *value);
            line += &format!(", greedy value {value:.3}");
        }
        if let Some(index) = oscillation(&self.state.values) {
            metrics.set("oscillation/index", index);
            line += &format!(", oscillation {index:.3}");
        }
        Ok(Some((metrics, line)))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        save_state(&folder.join("state.json"), &self.state)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.state = load_state(&folder.join("state.json"))?;
        let mut batches = std::mem::take(&mut self.state.batches);
        batches.iter_mut().for_each(|batch| batch.requests = self.requests(batch.generation));
        self.state.batches = batches;
        Ok(())
    }

    fn finish(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        let policy = Policy {
            exploration: self.settings.exploration,
            holdout: self.settings.holdout,
            lambda: self.settings.lambda,
            epsilon: self.settings.epsilon,
            gamma: self.state.gamma,
            oracle: self.state.oracle.as_ref(),
        };
        save_state(&path.join("policy.json"), &policy)?;
        let report = Report {
            values: self.values(),
            rewards: self.rewards(),
            optimal: self.optimal,
            uniform: self.uniform,
            oscillation: oscillation(self.values()),
            autocorrelation: autocorrelation(self.values()),
        };
        save_state(&path.join("report.json"), &report)
    }
}

/// `policy.json`: the policy that played last.
#[derive(Serialize)]
struct Policy<'a> {
    exploration: Exploration,
    holdout: f64,
    gamma: f64,
    lambda: f64,
    epsilon: f64,
    oracle: Option<&'a Oracle>,
}

/// `report.json`: what became of each generation.
#[derive(Serialize)]
struct Report<'a> {
    values: &'a [f64],
    rewards: &'a [f64],
    optimal: f64,
    uniform: f64,
    oscillation: Option<f64>,
    autocorrelation: Option<f64>,
}

impl MethodSettings for AdyenBandits {
    const SLUG: &'static str = CARD.slug;
    const UNIT: &'static str = "generations";
    const WATCHED: (&'static str, &'static str) = ("value", "value/greedy");

    fn process(&self, training: &Training) -> Result<Box<dyn Process>> {
        Ok(Box::new(self.generations(training.seed)))
    }

    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>> {
        let generations = self.generations(training.seed);
        let memory = if self.window == 0 { "all batches".into() } else { format!("{} batches", self.window) };
        let size = self.features.of(&vec![0.0; self.context]).len();
        Ok(vec![
            ("generations".into(), self.generations.to_string()),
            ("requests each".into(), self.batch.to_string()),
            ("memory".into(), memory),
            ("coefficients".into(), format!("{} actions x {size}", self.actions)),
            ("value, best".into(), format!("{:.3}", generations.optimal)),
            ("value, uniform".into(), format!("{:.3}", generations.uniform)),
        ])
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "adyen-bandits",
    title: "Bandits retrained on their own recent logs",
    paper: "Vangara, Egg: Contextual Bandits in Payment Processing: Non-uniform Exploration and Supervised Learning at Adyen",
    arxiv: "2412.00569",
    year: 2024,
    family: super::FAMILY,
    summary: "what becomes of a batch learner with an exploring policy that is retrained on what it logged itself",
    claim: "regression oracles earn more than uniform exploration, but the next generation may do worse than the last, as its \
            training data are shifted and unbalanced by a better policy; over time this can oscillate",
    equation: "f_g = argmin sum_i logloss(f(x_i, a_i), r_i) + penalty/2 |theta - mu|^2,   over the last w batches\n\
               p(a) = 1 / (K + gamma (f(b) - f(a))) for a != b,   p(b) = 1 - the rest   (squarecb)\n\
               V_g = value of the greedy policy of f_g\n\
               O = mean_g |V_{g+1} - 2 V_g + V_{g-1}| / 2",
    symbols: &[
        ("x, a, r", "a request, an action that it admits, and the reward, 0 or 1"),
        ("K, b", "admitted actions, and the first of the best by f"),
        ("f_g, theta", "predicted probability of a reward, by a logistic regression for each action"),
        ("mu", "logit of the window's positive rate for the constant, 0 elsewhere"),
        ("w, gamma", "method.window, and method.gamma_scale rows^gamma_exponent gamma_growth^(g-1)"),
        ("O", "oscillation index; that of the uniform policy is what sampling alone makes of it"),
    ],
    metrics: &[
        ("value/greedy", "expected reward of playing the oracle's best, on fresh requests"),
        ("value/optimal", "the same of the best actions"),
        ("value/uniform", "the same of uniform play"),
        ("online/reward", "mean reward of the generation"),
        ("online/mean", "mean reward of all generations"),
        ("window/rows", "rows that the oracle was fitted to"),
        ("window/positive_rate", "share of rewards of 1 among them"),
        ("window/starved", "pairs of action and segment with fewer than method.least_rows of them"),
        ("policy/gamma", "gamma of the generation"),
        ("policy/entropy", "mean entropy of p, in nats"),
        ("policy/non_greedy", "share of rows on another action than b"),
        (
            "calibration/greedy_error",
            "expected calibration error (10 bins) of f where b was played, before it learnt the rows",
        ),
        ("calibration/greedy_log_loss", "its mean log loss there"),
        ("calibration/other_error", "expected calibration error where another action was played"),
        ("calibration/other_log_loss", "its mean log loss there"),
        (
            "off_policy/ips",
            "inverse propensity estimate of value/greedy, from the newest batch that f has learnt: optimistic",
        ),
        ("off_policy/snips", "the same, self-normalised"),
        ("off_policy/dr", "the same, doubly robust with f"),
        ("oscillation/index", "O so far"),
        ("oscillation/autocorrelation", "of the steps of V, at lag 1; -1/2 where values are independent"),
    ],
    reach_for: "a rehearsal of how window, holdout, delay and exploration play together before a learner is retrained on its logs",
    avoid_when: "decisions are learnt from one by one (squarecb, fastcb on a log)",
    failure_signs: &[
        "value/greedy falls while calibration/greedy_error stays small: lengthen method.window, or raise method.holdout",
        "oscillation/index is 3 times that of method.exploration = \"uniform\": an oscillation; below, it may be sampling noise",
        "window/starved rises: actions are not tried any more; lower method.gamma_scale",
    ],
    variants: &[
        (
            "schemes",
            "method.exploration = \"fastcb\", \"softmax\", \"epsilon-greedy\", \"greedy\", \"uniform\"",
        ),
        ("full memory", "method.window = 0"),
        ("uniform holdout", "method.holdout = 0.05"),
        ("late rewards", "method.delay = 1"),
        ("inverse propensity weights, clipped", "method.importance_clip = 10"),
        ("warm start", "method.warm_start = 1, method.penalty = 30"),
        ("annealing", "method.gamma_scale = 20, method.gamma_growth = 2"),
        ("gamma of common tools", "method.gamma_scale = 10, method.gamma_exponent = 0.5"),
        ("an oracle that can be right", "method.features = \"full\""),
        ("balanced classes", "method.balance_classes = true"),
    ],
};

#[cfg(test)]
#[path = "adyen_bandits_tests.rs"]
mod tests;
