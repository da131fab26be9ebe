//! The loop: an oracle is fitted to what is known of the last batches and plays, or is judged on, the next.

use std::path::Path;

use polo_run::{
    Result,
    metrics::Metrics,
    process::Process,
    seed::{Seeds, unit},
    stats::mean,
};
use rand_chacha::rand_core::Rng;
use serde::{Deserialize, Serialize};

use super::{
    AdyenBandits, Exploration,
    oracle::Oracle,
    payments::{Requests, Simulation},
    report::{Calibration, autocorrelation, entropy, oscillation},
};
use crate::{
    draw::categorical,
    estimators::{Estimator, Rows},
    explore::{Explorer, best},
    train::{load_state, make_folder, save_state},
};

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
pub(super) struct State {
    generation: u64,
    /// Of the generation.
    gamma: f64,
    /// Those that a later oracle may need, the newest at the end.
    pub(super) batches: Vec<Batch>,
    pub(super) oracle: Option<Oracle>,
    /// V of every generation with an oracle.
    values: Vec<f64>,
    /// Mean reward of every generation.
    rewards: Vec<f64>,
}

/// Where batches come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Simulated(Simulation),
    Logged { batches: Vec<Batch>, actions: usize },
}

/// A learner that plays, logs and is retrained.
#[derive(Clone, Debug)]
pub struct Generations {
    settings: AdyenBandits,
    seeds: Seeds,
    source: Source,
    pub(super) state: State,
}

pub(super) fn costs(predicted: &[f64]) -> Vec<f32> {
    predicted.iter().map(|reward| -reward as f32).collect()
}

/// What the scheme makes of predictions, among the actions that survive.
pub(super) fn explored(explorer: &dyn Explorer, predicted: &[f64], survivors: &[bool]) -> Vec<f64> {
    let some: Vec<f64> =
        predicted.iter().zip(survivors).filter(|(_, alive)| **alive).map(|(f, _)| *f).collect();
    // There is an oracle, so something has been learnt: 1.
    let mut shares = explorer.probabilities(&costs(&some), 1).into_iter();
    survivors.iter().map(|alive| if *alive { shares.next().unwrap_or_default() } else { 0.0 }).collect()
}

impl Generations {
    pub(super) fn new(settings: AdyenBandits, seeds: Seeds, source: Source) -> Self {
        Self { settings, seeds, source, state: State::default() }
    }

    /// The stream, where it is simulated.
    pub fn simulation(&self) -> Option<&Simulation> {
        match &self.source {
            Source::Simulated(simulation) => Some(simulation),
            Source::Logged { .. } => None,
        }
    }

    /// Numbers of a context.
    pub(super) fn width(&self) -> usize {
        match &self.source {
            Source::Simulated(_) => self.settings.context,
            Source::Logged { batches, .. } => batches[0].requests.width,
        }
    }

    pub(super) fn actions(&self) -> usize {
        match &self.source {
            Source::Simulated(simulation) => simulation.payments.actions(),
            Source::Logged { actions, .. } => *actions,
        }
    }

    /// V_1, V_2, .. so far: expected reward of playing the best action by each oracle, on fresh requests; of a log, the doubly
    /// robust estimate of it.
    pub fn values(&self) -> &[f64] {
        &self.state.values
    }

    /// Mean reward of each generation so far.
    pub fn rewards(&self) -> &[f64] {
        &self.state.rewards
    }

    /// Retrains and plays a batch, or takes the next of a log.
    ///
    /// # Errors
    /// Contexts to which no oracle can be fitted.
    pub fn advance(&mut self) -> Result<Metrics> {
        if self.state.generation == 0 {
            let (batch, _) = self.play(0, None, 0.0);
            self.state.batches.push(batch);
        }
        let generation = self.state.generation + 1;
        if let Source::Simulated(simulation) = &mut self.source {
            simulation.drift(self.settings.drift, &self.seeds, generation..=generation);
        }
        let settings = &self.settings;
        // Batch g is known from generation g + 1 + delay.
        let known = self.state.batches.len().saturating_sub(settings.delay as usize);
        let memory = if settings.window == 0 { usize::MAX } else { settings.window as usize };
        let window = &self.state.batches[known.saturating_sub(memory)..known];
        let rows = window.iter().map(|batch| batch.actions.len()).sum();
        let mut metrics = Metrics::new();
        let mut oracle = None;
        if rows > 0 {
            let seed = self.seeds.rng("oracle", generation).next_u64();
            let fitted = settings.fitting().fit(window, self.actions(), self.state.oracle.as_ref(), seed)?;
            self.describe_window(window, &mut metrics);
            let value = match &self.source {
                Source::Simulated(simulation) => {
                    if let Some(last) = window.last() {
                        off_policy(&fitted, last, &mut metrics);
                    }
                    simulation.value(|x, admitted| best(&costs(&fitted.predict(x, admitted))))
                }
                Source::Logged { batches, .. } => {
                    off_policy(&fitted, &batches[generation as usize], &mut metrics)
                }
            };
            metrics.set("value/greedy", value);
            self.state.values.push(value);
            oracle = Some(fitted);
        }
        if let Some(simulation) = self.simulation() {
            metrics.set("value/optimal", simulation.optimal).set("value/uniform", simulation.uniform);
        }
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

    pub(super) fn requests(&self, generation: u64) -> Requests {
        match &self.source {
            Source::Simulated(simulation) => {
                simulation.payments.requests(self.settings.batch, &self.seeds, "requests", generation)
            }
            Source::Logged { batches, .. } => batches[generation as usize].requests.clone(),
        }
    }

    /// A batch, uniform without an oracle, and what is to be told of it; of a log, its batch. Whatever the policy, a row takes the same two draws:
    /// policies with the same seed meet the same luck.
    fn play(&self, generation: u64, oracle: Option<&Oracle>, gamma: f64) -> (Batch, Metrics) {
        let explorer = self.settings.explorer(gamma);
        let requests = self.requests(generation);
        let mut rng = self.seeds.rng("play", generation);
        let mut batch = Batch { generation, ..Batch::default() };
        let (mut spread, mut others) = (0.0, 0.0);
        let mut calibrations = [Calibration::default(), Calibration::default()];
        for (row, (context, admitted)) in requests.iter().enumerate() {
            let every = 1.0 / admitted.len() as f64;
            let predicted = oracle.map(|oracle| oracle.predict(context, admitted));
            let holdout = self.settings.holdout;
            let probabilities = match (&predicted, oracle) {
                (Some(predicted), Some(oracle)) => {
                    let survivors = oracle.survivors(context, admitted);
                    let explored = explored(explorer.as_ref(), predicted, &survivors);
                    explored.iter().map(|p| (1.0 - holdout) * p + holdout * every).collect()
                }
                _ => vec![every; admitted.len()],
            };
            let (action, reward, propensity) = match &self.source {
                Source::Simulated(simulation) => {
                    let at = categorical(&probabilities, &mut rng);
                    let likely = simulation.payments.probability(context, admitted[at]);
                    let reward = f64::from(u8::from(unit(&mut rng) < likely));
                    (admitted[at], reward, probabilities[at])
                }
                Source::Logged { batches, .. } => {
                    let log = &batches[generation as usize];
                    (log.actions[row], log.rewards[row], log.propensities[row])
                }
            };
            let at = admitted.iter().position(|a| *a == action).unwrap_or_default();
            if let Some(predicted) = &predicted {
                let other = usize::from(at != best(&costs(predicted)));
                others += other as f64;
                calibrations[other].add(predicted[at], reward);
            }
            spread += entropy(&probabilities);
            batch.actions.push(action);
            batch.rewards.push(reward);
            batch.propensities.push(propensity);
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
        let mut counts = vec![[0; 2]; self.actions()];
        let (mut rows, mut positive) = (0.0, 0.0);
        for batch in window {
            rows += batch.rewards.len() as f64;
            positive += batch.rewards.iter().sum::<f64>();
            for ((context, _), action) in batch.requests.iter().zip(&batch.actions) {
                counts[*action][usize::from(context.first().is_some_and(|x| *x > 0.0))] += 1;
            }
        }
        let starved = counts.as_flattened().iter().filter(|count| **count < self.settings.least_rows).count();
        metrics.set("window/rows", rows);
        metrics.set("window/positive_rate", positive / rows);
        metrics.set("window/starved", starved as f64);
    }
}

/// Estimates of what playing the oracle's best would have earned in a batch, from the log alone; the doubly robust one.
fn off_policy(oracle: &Oracle, batch: &Batch, metrics: &mut Metrics) -> f64 {
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
    let robust = Estimator::Dr(f64::INFINITY).value(&rows);
    metrics.set("off_policy/dr", robust);
    robust
}

impl Process for Generations {
    fn done(&self) -> u64 {
        self.state.generation
    }

    fn total(&self) -> u64 {
        match &self.source {
            Source::Simulated(_) => self.settings.generations,
            Source::Logged { batches, .. } => batches.len() as u64 - 1,
        }
    }

    fn go_on(&mut self) -> Result<Metrics> {
        self.advance()
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let online = mean(&self.state.rewards).unwrap_or_default();
        let mut metrics = Metrics::new();
        metrics.set("online/mean", online);
        let mut line = format!("mean reward {online:.3}");
        if let Some(simulation) = self.simulation() {
            line += &format!(" (uniform {:.3}, best {:.3})", simulation.uniform, simulation.optimal);
        }
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
        if let Source::Simulated(simulation) = &mut self.source {
            simulation.drift(self.settings.drift, &self.seeds, 1..=self.state.generation);
        }
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
            optimal: self.simulation().map(|simulation| simulation.optimal),
            uniform: self.simulation().map(|simulation| simulation.uniform),
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
    optimal: Option<f64>,
    uniform: Option<f64>,
    oscillation: Option<f64>,
    autocorrelation: Option<f64>,
}
