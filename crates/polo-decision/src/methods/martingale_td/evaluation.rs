//! The run of an evaluation: paths in, weights out, and the study of step sizes.

use std::path::Path as FilePath;

use polo_run::{Problem, Result, metrics::Metrics, process::Process, seed::Seeds};
use serde::{Deserialize, Serialize};

use super::{Criterion, MartingaleTd, Metric, Moments, Path, Simulator, Solver, Trace, value_error};
use crate::train::{load_state, make_folder, save_state};

/// Where paths come from.
pub(super) enum Source {
    Simulated(Simulator),
    /// The order of a pass, kept while the pass lasts: a function of the seed and the pass.
    Observed {
        paths: Vec<Path>,
        order: (u64, Vec<usize>),
    },
}

/// The estimation of a value function.
pub struct Evaluation {
    pub(super) settings: MartingaleTd,
    pub(super) source: Source,
    pub(super) names: Vec<String>,
    pub(super) seeds: Seeds,
    pub(super) state: State,
}

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) paths: u64,
    pub(super) theta: Vec<f64>,
    /// Of all paths for an exact solver, otherwise of the batch so far.
    pub(super) moments: Moments,
    pub(super) updates: u64,
    pub(super) u: Vec<f64>,
    /// How much the mean of the weights rests on, and the mean.
    pub(super) average: (f64, Vec<f64>),
    /// Step size and weights, from the coarsest on.
    pub(super) mesh: Vec<(f64, Vec<f64>)>,
    /// Whether an exact solver has found its weights.
    pub(super) determined: bool,
}

/// Grid points that the error of a value is measured on, about.
const CHECK_POINTS: usize = 20_000;
/// Weights that are logged one by one.
const LOGGED: usize = 8;

impl Evaluation {
    /// Paths of one round over everything.
    pub(super) fn paths_of_a_round(&self) -> u64 {
        match &self.source {
            Source::Simulated(_) => self.settings.paths,
            Source::Observed { paths, .. } => paths.len() as u64 * self.settings.passes,
        }
    }

    fn path(&mut self, number: u64) -> Path {
        match &mut self.source {
            Source::Simulated(simulator) => simulator.path("path", number, &self.seeds),
            Source::Observed { paths, order } => {
                let count = paths.len() as u64;
                let pass = number / count;
                if order.0 != pass {
                    *order = (pass, self.seeds.shuffled(paths.len(), "pass", pass));
                }
                paths[order.1[(number % count) as usize]].clone()
            }
        }
    }

    fn add(&self, moments: &mut Moments, path: &Path) {
        let discount = self.settings.discount();
        match self.settings.criterion {
            Criterion::MartingaleLoss => moments.add_martingale_loss(path, discount),
            Criterion::MeanSquare => moments.add_mean_square(path, discount),
            Criterion::Orthogonality => moments.add_orthogonality(path, discount, self.settings.lambda),
        }
    }

    /// The estimate.
    pub fn theta(&self) -> &[f64] {
        if self.state.average.0 > 0.0 { &self.state.average.1 } else { &self.state.theta }
    }

    /// Takes the weights of this moment into the mean, once half of the run is over.
    fn take_average(&mut self, progress: f64) {
        if self.settings.average && progress >= 0.5 {
            let State { theta, average: (count, mean), .. } = &mut self.state;
            *count += 1.0;
            mean.iter_mut().zip(theta).for_each(|(mean, theta)| *mean += (*theta - *mean) / *count);
        }
    }

    /// Solves the equations of the paths so far, unless they are too few.
    fn settle(&mut self) {
        let enough = self.state.paths > 2 * self.names.len() as u64;
        if self.settings.solver == Solver::Exact
            && (enough || self.done() == self.total())
            && let Some(theta) = self.state.moments.solve(self.settings.ridge)
        {
            self.state.theta = theta;
            self.state.determined = true;
        }
    }

    /// Learns from the next path; an exact solver only adds it to its equations.
    fn learn(&mut self, path: &Path) {
        let (number, total) = (self.state.paths, self.paths_of_a_round());
        let progress = |steps: f64| (number as f64 + steps) / total as f64;
        let last = number + 1 == total;
        self.state.paths += 1;
        if self.settings.solver == Solver::Online {
            let discount = self.settings.discount();
            let mut trace = Trace::new(self.settings.lambda, path.test_width());
            let rate = self.settings.learning_rate / ((number + 1) as f64).powf(self.settings.decay);
            for i in 0..path.steps() {
                let error = discount.error(path, i, &self.state.theta);
                let step = rate * error;
                self.state
                    .theta
                    .iter_mut()
                    .zip(trace.at(path, i))
                    .for_each(|(theta, xi)| *theta += step * xi);
                self.take_average(progress((i + 1) as f64 / path.steps() as f64));
            }
            return;
        }
        let mut moments = std::mem::replace(&mut self.state.moments, Moments::new(0, 0));
        self.add(&mut moments, path);
        self.state.moments = moments;
        let full = self.state.moments.paths == self.settings.batch || last;
        if full && self.settings.solver != Solver::Exact {
            self.update();
            self.take_average(progress(1.0));
        }
    }

    /// A step from the batch.
    fn update(&mut self) {
        let State { theta, moments, updates, u, .. } = &mut self.state;
        *updates += 1;
        let scale = (*updates as f64).powf(-self.settings.decay);
        let rate = self.settings.learning_rate * scale;
        let residual = moments.residual(theta);
        let direction = if self.settings.solver == Solver::TwoTimescale {
            let followed = match self.settings.metric {
                Metric::Identity => u.clone(),
                Metric::Gram => {
                    let paths = moments.paths as f64;
                    moments.gram.times(u).iter().map(|product| product / paths).collect()
                }
            };
            for ((u, residual), followed) in u.iter_mut().zip(&residual).zip(&followed) {
                *u += self.settings.auxiliary_rate * scale * (residual - followed);
            }
            moments.pull_back(u)
        } else {
            residual
        };
        theta.iter_mut().zip(&direction).for_each(|(theta, step)| *theta += rate * step);
        *moments = Moments::new(moments.g.len(), theta.len());
    }

    /// Solves the equations of all paths at the next step size of the study.
    fn study(&mut self) -> Metrics {
        let level = self.state.mesh.len() as u32;
        let by = 1_usize << (self.settings.mesh - level);
        let mut moments = Moments::new(self.state.u.len(), self.names.len());
        let (mut steps, mut time) = (0.0, 0.0);
        for number in 0..self.paths_of_a_round() {
            let path = self.path(number).coarsened(by);
            steps += path.steps() as f64;
            time += path.times[path.steps()] - path.times[0];
            self.add(&mut moments, &path);
        }
        let mut metrics: Metrics = [("mesh/log2_step", (time / steps).log2())].into_iter().collect();
        if let Some(theta) = moments.solve(self.settings.ridge) {
            if let Some((_, coarser)) = self.state.mesh.last() {
                metrics.set("mesh/log2_change", distance(coarser, &theta).log2());
            }
            self.state.theta = theta;
            self.state.determined = true;
        }
        self.state.mesh.push((time / steps, self.state.theta.clone()));
        metrics
    }

    /// The order in the step size that the study of meshes found: the slope of log |theta(dt) - theta(2 dt)| over log dt.
    /// None before two changes.
    pub fn order(&self) -> Option<f64> {
        let changes = self.state.mesh.windows(2);
        let points: Vec<(f64, f64)> =
            changes.map(|pair| (pair[1].0.ln(), distance(&pair[0].1, &pair[1].1).ln())).collect();
        if points.len() < 2 {
            return None;
        }
        let n = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
        let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
        Some(slope / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>())
            .filter(|order| order.is_finite())
    }

    /// Root mean squared error of the value on fresh paths; none where the truth is not known.
    pub fn value_error(&self) -> Option<f64> {
        let Source::Simulated(simulator) = &self.source else { return None };
        let count = (CHECK_POINTS / simulator.steps).clamp(1, 200) as u64;
        let paths: Vec<Path> =
            (0..count).map(|number| simulator.path_with_truth("check", number, &self.seeds)).collect();
        value_error(&paths, self.theta())
    }

    /// Goes through all paths, as a run does, without its metrics.
    pub fn go_through(&mut self) {
        while self.done() < self.total() {
            if self.settings.mesh > 0 {
                self.study();
            } else {
                let path = self.path(self.state.paths);
                self.learn(&path);
            }
        }
        if self.settings.mesh == 0 {
            self.settle();
        }
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

impl Process for Evaluation {
    fn done(&self) -> u64 {
        match self.settings.mesh {
            0 => self.state.paths,
            _ => self.state.mesh.len() as u64 * self.paths_of_a_round(),
        }
    }

    fn total(&self) -> u64 {
        self.paths_of_a_round() * u64::from(self.settings.mesh + 1)
    }

    fn go_on(&mut self) -> Result<Metrics> {
        let mut metrics = if self.settings.mesh > 0 {
            self.study()
        } else {
            let path = self.path(self.state.paths);
            let loss = self.settings.discount().martingale_loss(&path, self.theta());
            self.learn(&path);
            self.settle();
            [("losses/martingale", loss)].into_iter().collect()
        };
        for (name, weight) in self.names.iter().zip(self.theta()).take(LOGGED) {
            metrics.set(format!("theta/{name}"), *weight);
        }
        Ok(metrics)
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let mut metrics = Metrics::new();
        let mut line: Vec<String> = Vec::new();
        if let Some(error) = self.value_error() {
            metrics.set("error/value_rmse", error);
            line.push(format!("root mean squared error of the value {error:.4}"));
        }
        if let Some(order) = self.order() {
            metrics.set("mesh/order", order);
            line.push(format!("order in the step size {order:.2}"));
        }
        for (name, weight) in self.names.iter().zip(self.theta()).take(LOGGED) {
            line.push(format!("{name}: {weight:.4}"));
        }
        Ok(Some((metrics, line.join(", "))))
    }

    fn save(&self, folder: &FilePath) -> Result<()> {
        save_state(&folder.join("state.json"), &self.state)
    }

    fn load(&mut self, folder: &FilePath) -> Result<()> {
        self.state = load_state(&folder.join("state.json"))?;
        Ok(())
    }

    fn finish(&self, path: &FilePath) -> Result<()> {
        if self.settings.solver == Solver::Exact && !self.state.determined {
            return Err(Problem::input("the paths do not determine the weights of the value function")
                .hint("give more paths or fewer features, or set method.ridge above 0"));
        }
        make_folder(path)?;
        let value = Value {
            features: &self.names,
            theta: self.theta(),
            discount_rate: self.settings.discount().rate,
            value_rmse: self.value_error(),
            mesh: self.state.mesh.iter().map(|(dt, theta)| Level { dt: *dt, theta }).collect(),
            order: self.order(),
        };
        save_state(&path.join("value.json"), &value)
    }
}

/// `value.json`: J before the end is J_0 (of a file: 0) plus the sum of theta times the features.
#[derive(Serialize)]
struct Value<'a> {
    features: &'a [String],
    theta: &'a [f64],
    discount_rate: f64,
    value_rmse: Option<f64>,
    mesh: Vec<Level<'a>>,
    order: Option<f64>,
}

#[derive(Serialize)]
struct Level<'a> {
    dt: f64,
    theta: &'a [f64],
}
