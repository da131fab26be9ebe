//! Policy evaluation in continuous time by martingales (Jia, Zhou 2022, arXiv 2108.06655).
//!
//! J is the value of a diffusion X under a fixed policy with reward r per unit of time, terminal reward h and discount rate
//! rho if and only if M_t = e^(-rho t) J(t, X_t) + int_0^t e^(-rho s) r_s ds is a martingale. On a grid of steps dt:
//!
//! ```text
//! dM_i = J(t_{i+1}, X_{i+1}) - J(t_i, X_i) + r_i dt - rho J(t_i, X_i) dt,   J = J_0 + theta . psi
//! mean-square        1/2 E sum (dM_i / dt)^2 dt    dt times it tends to 1/2 E<M>_T: volatility is what it minimises
//! martingale-loss    1/2 E sum (M_T - M_i)^2 dt    its minimiser is the projection of the truth on the family
//! orthogonality      E sum xi_i dM_i = 0           xi_i = psi_i (lambda = 0) or z_i = lambda^dt z_{i-1} + psi_i dt
//! ```
//!
//! Orthogonality solved at once is LSTD; step by step along a path it is TD(lambda); with a second vector of weights that
//! follows the mean of xi dM it is gradient TD (GTD(0) with the identity as its metric, GTD2/TDC with that of xi):
//!
//! ```text
//! u <- u + zeta (sum xi dM - W u),   theta <- theta - alpha (sum xi (dM/dtheta)^T)^T u,   W = I or sum xi xi^T dt
//! ```
//!
//! Test functions are taken at the left end of a step, increments are not divided by dt but in `mean-square`, and lambda
//! and rho are per unit of time. The family is linear in theta, so the weights of xi never move with theta.

mod evaluation;
mod exploratory;
mod moments;
mod paths;

use std::path::PathBuf;

use polo_run::{Problem, Result, card::MethodCard, config::Settings, process::Process, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use evaluation::Evaluation;
pub use exploratory::Exploratory;
pub use moments::{Discount, Moments, Path, Trace};
pub use paths::{Diffusion, Observed, Product, Simulator, value_error};

use crate::settings::{MethodSettings, Training};
use evaluation::{Source, State};

/// What an estimate is to satisfy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The least M_T - M_t in mean square.
    MartingaleLoss,
    /// The least dM / dt in mean square: the naive one, for comparison.
    MeanSquare,
    /// Increments that no test function foresees.
    #[default]
    Orthogonality,
}

/// How the estimate is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// The linear equations of all paths at once; LSTD for `orthogonality`.
    #[default]
    Exact,
    /// A step after every batch of paths; offline TD for `orthogonality`.
    Offline,
    /// A step after every step of a path; online TD.
    Online,
    /// Gradient TD with two time scales.
    TwoTimescale,
}

/// The metric of gradient TD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// GTD(0).
    Identity,
    /// GTD2 and TDC: the inverse of sum xi xi^T dt.
    #[default]
    Gram,
}

/// Settings of `polo train martingale-td`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MartingaleTd {
    /// What an estimate is to satisfy: `orthogonality` (TD and its kin), `martingale-loss`, or `mean-square`, the naive
    /// criterion that the paper warns of.
    pub criterion: Criterion,
    /// How it is found: `exact` (linear equations), `offline` (a step after every batch of paths), `online` (a step after
    /// every step of a path), `two-timescale` (gradient TD). The last two for `orthogonality` alone.
    pub solver: Solver,
    /// What the test functions remember, per unit of time: 0 is TD(0), 1 remembers all of the path.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lambda: f64,
    /// Metric of `two-timescale`: `gram` (GTD2, TDC) or `identity` (GTD(0)).
    pub metric: Metric,
    /// alpha_0, the first step size; it is not to be scaled by dt.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// p: the step size after k updates (of an online solver: paths) is alpha_0 / k^p.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub decay: f64,
    /// zeta, the step size of u in `two-timescale`, which decays alike.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub auxiliary_rate: f64,
    /// Paths of an update of `offline` and `two-timescale`.
    #[schemars(range(min = 1))]
    pub batch: u64,
    /// Whether the estimate is the mean of the weights over the second half of the run, for solvers that take steps.
    pub average: bool,
    /// Added to the diagonal of the mean matrix of `exact`.
    #[schemars(range(min = 0.0))]
    pub ridge: f64,
    /// Your own paths, a CSV file with a row for each observation: `path`, `time`, `reward` (per unit of time until the next
    /// row), `terminal` (the reward at the end, in the last row of every path; no such column where the process has no end),
    /// and the state in all other columns. Rows of a path stand together, in the order of time. Unset by default.
    pub file: Option<PathBuf>,
    /// Times that `file` is gone through.
    #[schemars(range(min = 1))]
    pub passes: u64,
    /// Diffusion that is simulated where there is no file: `brownian-square`, `brownian-misspecified`, `call-option`,
    /// `linear-quadratic`, and `exploratory-quadratic` or, with an end, `exploratory-quadratic-end`: linear-quadratic control
    /// by the best policy with an entropy bonus.
    pub diffusion: Diffusion,
    /// Paths to simulate. Default of this program.
    #[schemars(range(min = 1))]
    pub paths: u64,
    /// Time between two points of a simulated path; with `mesh`, of the finest.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub dt: f64,
    /// Length of simulated paths. Unset by default: 1, or 10 for `linear-quadratic` and `exploratory-quadratic`, which have no
    /// end.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub horizon: Option<f64>,
    /// rho, per unit of time. Unset by default: 0; of `call-option` 0.05, of `linear-quadratic` and `exploratory-quadratic`
    /// 0.5.
    #[schemars(range(min = 0.0))]
    pub discount_rate: Option<f64>,
    /// Whether a step is discounted by e^(-rho dt), as in discrete time, in place of the paper's first-order term.
    pub exact_discount: bool,
    /// Features of J: products of `time`, `remaining` (time to the end of the path), and states (of simulated paths: `x`),
    /// like "1" and "remaining*x*x". None by default: those of the diffusion, or for a file all up to `degree`.
    pub features: Vec<String>,
    /// Degree of the products of `remaining` and states that are the features of a file.
    #[schemars(range(max = 8))]
    pub degree: usize,
    /// Test functions in place of the features, products too; as many as features, or more for `exact` and `two-timescale`.
    pub tests: Vec<String>,
    /// Halvings of the step size to study: every path is coarsened 2^mesh times, and the equations are solved at each of the
    /// mesh + 1 step sizes. 0: none. For `exact` alone. Every step size has its line in the metrics unless there are
    /// fewer paths than `training.log_every`.
    #[schemars(range(max = 20))]
    pub mesh: u32,
}

impl Default for MartingaleTd {
    fn default() -> Self {
        Self {
            criterion: Criterion::Orthogonality,
            solver: Solver::Exact,
            lambda: 0.0,
            metric: Metric::Gram,
            learning_rate: 0.05,
            decay: 0.5,
            auxiliary_rate: 0.1,
            batch: 1,
            average: false,
            ridge: 0.0,
            file: None,
            passes: 1,
            diffusion: Diffusion::BrownianSquare,
            paths: 4000,
            dt: 0.01,
            horizon: None,
            discount_rate: None,
            exact_discount: false,
            features: Vec::new(),
            degree: 2,
            tests: Vec::new(),
            mesh: 0,
        }
    }
}

/// Steps of a simulated path at most.
const MOST_STEPS: f64 = 1e8;

impl Settings for MartingaleTd {
    fn check(&self) -> Result<()> {
        let wrong = |text: &str, key: &str, hint: &str| {
            Err(Problem::usage(text).place(format!("method.{key}")).hint(hint))
        };
        let orthogonal = self.criterion == Criterion::Orthogonality;
        if !orthogonal && matches!(self.solver, Solver::Online | Solver::TwoTimescale) {
            return wrong(
                "this solver is made for the orthogonality conditions",
                "solver",
                "the martingale loss needs the whole future: take method.solver = \"offline\" or \"exact\"",
            );
        }
        if !orthogonal && (self.lambda != 0.0 || !self.tests.is_empty()) {
            let key = if self.lambda != 0.0 { "lambda" } else { "tests" };
            return wrong("only orthogonality has test functions", key, "leave it as it comes");
        }
        if self.mesh > 0 && self.solver != Solver::Exact {
            return wrong(
                "step sizes are compared by exact solutions",
                "mesh",
                "set method.solver = \"exact\"",
            );
        }
        if self.file.is_none() {
            let horizon = self.horizon.unwrap_or(self.diffusion.usual_horizon());
            if !(0.5..MOST_STEPS).contains(&(horizon / self.dt)) {
                return wrong(
                    "a path has one step at least and 1e8 at most",
                    "dt",
                    "compare it with method.horizon",
                );
            }
            if !self.diffusion.ends() && self.discount_rate == Some(0.0) {
                return wrong(
                    "without end and discount there is no value",
                    "discount_rate",
                    "give a rate above 0",
                );
            }
        }
        Ok(())
    }
}

impl MartingaleTd {
    /// rho and how it is applied.
    pub fn discount(&self) -> Discount {
        let usual = if self.file.is_some() { 0.0 } else { self.diffusion.usual_rate() };
        Discount { rate: self.discount_rate.unwrap_or(usual), exact: self.exact_discount }
    }

    /// A run before its first path.
    ///
    /// # Errors
    /// Those of [`Observed::read`] and of products that cannot be read; cut paths for the martingale loss; a number of test
    /// functions that the solver cannot use.
    pub fn evaluation(&self, seed: u64) -> Result<Evaluation> {
        let seeds = Seeds::new(seed);
        let (source, names) = match &self.file {
            Some(file) => {
                let Observed { paths, names } =
                    Observed::read(file, &self.features, self.degree, &self.tests)?;
                (Source::Observed { paths, order: (u64::MAX, Vec::new()) }, names)
            }
            None => {
                let states = ["x".to_string()];
                let read = |texts: &[String], key| {
                    texts.iter().map(|text| Product::read(text, &states, key)).collect::<Result<Vec<_>>>()
                };
                let horizon = self.horizon.unwrap_or(self.diffusion.usual_horizon());
                let simulator = Simulator {
                    diffusion: self.diffusion,
                    dt: self.dt,
                    steps: (horizon / self.dt).round() as usize,
                    rho: self.discount().rate,
                    features: read(&self.features, "features")?,
                    tests: read(&self.tests, "tests")?,
                };
                let names =
                    if self.features.is_empty() { self.diffusion.names() } else { self.features.clone() };
                (Source::Simulated(simulator), names)
            }
        };
        let (k, d) = (if self.tests.is_empty() { names.len() } else { self.tests.len() }, names.len());
        let square = matches!(self.solver, Solver::Offline | Solver::Online);
        if k < d || (square && k != d) {
            return Err(Problem::usage(format!("{k} test functions for {d} features"))
                .place("method.tests")
                .hint("give as many, or more where method.solver is \"exact\" or \"two-timescale\""));
        }
        let endless = match &source {
            Source::Observed { paths, .. } => paths.iter().any(|path| !path.ends),
            Source::Simulated(simulator) => !simulator.diffusion.ends(),
        };
        if endless && self.criterion == Criterion::MartingaleLoss {
            return Err(Problem::usage("the martingale loss needs paths that end with a terminal reward")
                .place("method.criterion")
                .hint("take \"orthogonality\" for a process without end"));
        }
        let state = State {
            paths: 0,
            theta: vec![0.0; d],
            moments: Moments::new(k, d),
            updates: 0,
            u: vec![0.0; k],
            average: (0.0, vec![0.0; d]),
            mesh: Vec::new(),
            determined: false,
        };
        Ok(Evaluation { settings: self.clone(), source, names, seeds, state })
    }
}

impl MethodSettings for MartingaleTd {
    const SLUG: &'static str = CARD.slug;
    const UNIT: &'static str = "paths";
    const WATCHED: (&'static str, &'static str) = ("martingale loss", "losses/martingale");

    fn process(&self, training: &Training) -> Result<Box<dyn Process>> {
        Ok(Box::new(self.evaluation(training.seed)?))
    }

    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>> {
        let run = self.evaluation(training.seed)?;
        let steps = match &run.source {
            Source::Simulated(simulator) => simulator.steps.to_string(),
            Source::Observed { paths, .. } => {
                let all: usize = paths.iter().map(Path::steps).sum();
                format!("{:.1} on average", all as f64 / paths.len() as f64)
            }
        };
        let mut lines = vec![
            ("features".into(), run.names.join(", ")),
            ("test functions".into(), run.state.u.len().to_string()),
            ("paths".into(), run.paths_of_a_round().to_string()),
            ("steps of a path".into(), steps),
            ("discount rate".into(), self.discount().rate.to_string()),
        ];
        if self.mesh > 0 {
            lines.push(("step sizes".into(), (self.mesh + 1).to_string()));
        }
        Ok(lines)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "martingale-td",
    title: "Policy evaluation in continuous time by martingales",
    paper: "Jia, Zhou: Policy Evaluation and Temporal-Difference Learning in Continuous Time and Space: A Martingale Approach",
    arxiv: "2108.06655",
    year: 2022,
    family: super::FAMILY,
    summary: "values of a diffusion under a policy from its paths: martingale loss, TD, LSTD and gradient TD that hold as dt shrinks",
    claim: "the mean-square TD error tends to a quadratic variation and is the wrong thing to minimise in continuous time; the \
            martingale loss gives the best approximation in mean square, and the orthogonality conditions give TD(lambda), LSTD and GTD",
    equation: "dM_i = J(t_{i+1}, X_{i+1}) - J(t_i, X_i) + r_i dt - rho J(t_i, X_i) dt,   J = J_0 + theta . psi\n\
               mean-square:      min 1/2 E sum (dM_i / dt)^2 dt\n\
               martingale-loss:  min 1/2 E sum (M_T - M_i)^2 dt\n\
               orthogonality:    E sum xi_i dM_i = 0,   xi_i = psi_i, or z_i = lambda^dt z_{i-1} + psi_i dt\n\
               two-timescale:    u <- u + zeta (sum xi dM - W u),   theta <- theta - alpha (sum xi (dM/dtheta)^T)^T u",
    symbols: &[
        (
            "X, r, h, rho",
            "state, reward per unit of time, terminal reward (in J_0), discount rate per unit of time",
        ),
        ("J, theta, psi", "value function, its weights, its features; psi is 0 at the end"),
        ("M", "value so far: a martingale if and only if J is the value"),
        ("xi, lambda", "test functions, and what they remember per unit of time (method.lambda)"),
        ("alpha, zeta", "method.learning_rate and method.auxiliary_rate, over k^method.decay"),
        ("W", "I or sum xi xi^T dt (method.metric)"),
    ],
    metrics: &[
        (
            "losses/martingale",
            "1/2 sum (M_T - M_i)^2 dt of the newest path before it is learnt from; never 0, as paths are random",
        ),
        ("theta/*", "weights, the first eight"),
        ("error/value_rmse", "root mean squared error of J on fresh paths, where the truth is known"),
        (
            "mesh/log2_step, mesh/log2_change",
            "log2 of the step size, and of how far the weights moved when it was halved",
        ),
        ("mesh/order", "slope of the one over the other: the order of convergence in the step size"),
    ],
    reach_for: "a value function from paths observed at short intervals, where the usual mean-square TD error gets worse the finer the data",
    avoid_when: "time is discrete in earnest, or the value is far from linear in any features you can name",
    failure_signs: &[
        "weights run away: lower method.learning_rate; it must not be divided by dt",
        "weights of `exact` change wildly with the seed: more paths, fewer features, or method.ridge",
        "mesh/log2_change does not fall: what is left is noise of few paths, not the step size",
    ],
    variants: &[
        ("CLSTD(lambda)", "method.criterion = \"orthogonality\", method.solver = \"exact\""),
        ("CTD(lambda) offline, online", "method.solver = \"offline\", \"online\""),
        (
            "CGTD: GTD2/TDC, GTD(0)",
            "method.solver = \"two-timescale\", method.metric = \"gram\", \"identity\"",
        ),
        ("generalised method of moments", "method.tests with more products than features"),
        (
            "martingale loss, at once or by gradient",
            "method.criterion = \"martingale-loss\", method.solver = \"exact\", \"offline\"",
        ),
        (
            "the naive baseline, MSTDE",
            "method.criterion = \"mean-square\", method.solver = \"exact\", \"offline\"",
        ),
        (
            "linear-quadratic control with an entropy bonus",
            "method.diffusion = \"exploratory-quadratic\", with an end \"exploratory-quadratic-end\"",
        ),
        ("discrete-time discount", "method.exact_discount = true"),
        ("order in the step size", "method.mesh = 6"),
    ],
};

#[cfg(test)]
#[path = "martingale_td_tests.rs"]
mod tests;
