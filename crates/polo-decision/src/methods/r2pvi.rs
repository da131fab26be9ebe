//! R2PVI: robust regularised pessimistic value iteration (Tang, Liu, Xu 2025, arXiv 2411.18612).
//!
//! Offline data of a linear decision process are turned into a policy that still works when the dynamics shift. The
//! next state is a mixture of d latent factors, P(.|s,a) = Σᵢ φᵢ(s,a) μᵢ with φ on the simplex; an adversary may replace
//! every factor, at a price:
//!
//! ```text
//! Q_h(s,a) = r_h(s,a) + inf_mu Σᵢ φᵢ(s,a) ( E_{mu_i} V_{h+1} + λ D(mu_i || μᵢ) )  =  φ·(θ_h + ν_h)
//! ```
//!
//! With TV and KL the infimum is a closed form ([`duals`]), so that ν_h costs one ridge regression; constrained methods
//! (DRPVI, DRVI-L), whose adversary has a ball instead, search. Backwards from the last step ([`solver`]):
//!
//! ```text
//! Λ_h  = γ I + Σ φ φᵀ                                 ν_{h,i}: dual of the fit to V_{h+1}
//! Q_h  = clip( φ·(θ_h + ν_h) - Γ_h, 0, H - h ),       Γ_h = β Σᵢ φᵢ √(Λ_h⁻¹)ᵢᵢ
//! π_h  = argmax_a Q_h, ties at random
//! ```
//!
//! The paper's code takes β √(Σᵢ φᵢ² (Λ⁻¹)ᵢᵢ) for Γ and does not cut at 0 (`method.penalty`, `method.clip_low`), and
//! minimises the χ² dual, which is to be maximised, as here.

use std::{collections::BTreeMap, path::Path, path::PathBuf};

use polo_run::{
    Problem, Result, card::MethodCard, config::Settings, folder::write_atomic, metrics::Metrics,
    process::Process, seed::Seeds, stats::t_interval,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    settings::{MethodSettings, Training},
    train::{load_state, make_folder, save_state},
};

pub mod data;
pub mod duals;
pub mod solver;
pub mod worlds;

use data::Dataset;
use solver::{Algorithm, Least, Model, Penalty, Policy, Progress, Rule};
use worlds::{Simulated, World};

/// Settings of `polo train r2pvi`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct R2pvi {
    /// Which method: R2PVI with a divergence, with variance weights, or a baseline.
    pub algorithm: Algorithm,
    /// λ: the price of a shift, in units of value; the smaller, the more robust. `lam` in the paper's code.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub lambda: f64,
    /// ρ: size of the ball of `drpvi`, `va-drpvi` (at most 1) and `drvi-l` (nats).
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub radius: f64,
    /// γ: ridge of all regressions. `gamma` in the paper's code.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub ridge: f64,
    /// β: pessimism. Theory's values are far too large; the paper's code has 1 and 0.1.
    #[schemars(range(min = 0.0))]
    pub beta: f64,
    /// Form of the penalty. Unset by default: `sum`, and `norm` for `pevi`.
    pub penalty: Option<Penalty>,
    /// Whether no Q is below 0. Default true, as in the paper; its code does not cut.
    pub clip_low: bool,
    /// Whether KL fits exp(-V/λ) - 1, which the ridge shrinks to pessimism, in place of exp(-V/λ), which it shrinks to
    /// optimism. Unset by default, as in the paper's code: for `drvi-l` alone.
    pub shift: Option<bool>,
    /// The least value under total variation. Unset by default: 0 where the data have a fail state, else that of the data.
    pub least: Option<Least>,
    /// Q is nowhere larger. Unset by default: the problem's own (H - h; the strike for `american-put`; for your own data
    /// `reward_bound` times H - h).
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub cap: Option<f64>,
    /// The problem that data are made from and policies scored on, where `data` names none.
    pub problem: World,
    /// Your own episodes: JSON lines, one episode each, `{"features": [[..d] per step], "rewards": [per step], "next":
    /// [[[..d] per action] per step]}`, `[]` for a fail state of value 0; optional `start`, features of all actions in the
    /// first state, and `stop`, what stopping after each step pays. Unset by default.
    pub data: Option<PathBuf>,
    /// Known reward vectors of your own data: a JSON file, H arrays of d numbers. Unset by default: fitted to the rewards.
    pub theta: Option<PathBuf>,
    /// Largest reward in your own data.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub reward_bound: f64,
    /// Whether features of your own data that are not non-negative with sum 1 are refused: robustness by factors holds for
    /// such alone. Default true.
    pub simplex: bool,
    /// Episodes of a dataset that is made.
    #[schemars(range(min = 1))]
    pub trajectories: usize,
    /// Coverage of a dataset that is made: the share of random actions in `simulated-mdp` (the others are all -1), the share
    /// of the range of first prices in the puts. Default 1, the paper's data.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub coverage: f64,
    /// Datasets that are made and solved, one after the other. Default from the paper.
    #[schemars(range(min = 1))]
    pub replications: u64,
    /// Shifts of the dynamics on which policies are scored: q in `simulated-mdp`, the probability of a rise in the puts. Empty
    /// by default: a grid that suits the problem.
    pub shifts: Vec<f64>,
    /// δ of `simulated-mdp`. Default from the paper.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub delta: f64,
    /// ‖ξ‖₁ of `simulated-mdp`. Default from the paper.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub xi: f64,
}

impl Default for R2pvi {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::R2pviTv,
            lambda: 0.1,
            radius: 0.5,
            ridge: 0.1,
            beta: 0.1,
            penalty: None,
            clip_low: true,
            shift: None,
            least: None,
            cap: None,
            problem: World::SimulatedMdp,
            data: None,
            theta: None,
            reward_bound: 1.0,
            simplex: true,
            trajectories: 100,
            coverage: 1.0,
            replications: 20,
            shifts: Vec::new(),
            delta: 0.3,
            xi: 0.2,
        }
    }
}

impl Settings for R2pvi {
    fn check(&self) -> Result<()> {
        let wrong = |message: &str, place: &str| Err(Problem::usage(message).place(place));
        if self.delta - self.xi < 0.0 || self.delta + self.xi > 1.0 {
            return wrong("delta ± xi must be probabilities", "method.xi");
        }
        if self.shifts.iter().any(|shift| !(0.0..=1.0).contains(shift)) {
            return wrong("a shift is a probability", "method.shifts");
        }
        if self.theta.is_some() && self.data.is_none() {
            return wrong(
                "reward vectors are for your own data, which method.data does not name",
                "method.theta",
            );
        }
        if self.radius > 1.0 && matches!(self.algorithm, Algorithm::Drpvi | Algorithm::VaDrpvi) {
            return wrong("a total variation is at most 1", "method.radius");
        }
        Ok(())
    }
}

impl R2pvi {
    /// How values are iterated.
    pub fn rule(&self) -> Rule {
        let pevi = self.algorithm == Algorithm::Pevi;
        Rule {
            algorithm: self.algorithm,
            lambda: self.lambda,
            radius: self.radius,
            ridge: self.ridge,
            beta: self.beta,
            penalty: self.penalty.unwrap_or(if pevi { Penalty::Norm } else { Penalty::Sum }),
            clip_low: self.clip_low,
            shift: self.shift.unwrap_or(self.algorithm == Algorithm::DrviL),
            least: self.least,
        }
    }

    fn simulated(&self) -> Simulated {
        Simulated { delta: self.delta, xi: self.xi }
    }

    /// The episodes of a replication: the user's, or fresh ones.
    ///
    /// # Errors
    /// Those of the user's files.
    pub fn dataset(&self, seeds: &Seeds, replication: u64) -> Result<Dataset> {
        let mut data = match &self.data {
            Some(path) => data::read(path, self.reward_bound, self.simplex)?,
            None => {
                self.problem.dataset(self.simulated(), self.trajectories, self.coverage, seeds, replication)
            }
        };
        if let Some(path) = &self.theta {
            data::read_theta(path, &mut data)?;
        }
        if let Some(cap) = self.cap {
            data.caps.fill(cap);
        }
        Ok(data)
    }

    /// Shifts on which policies are scored; none with the user's data.
    pub fn scored_shifts(&self) -> Vec<f64> {
        match (&self.data, self.shifts.as_slice()) {
            (Some(_), _) => Vec::new(),
            (None, []) => self.problem.shifts().to_vec(),
            (None, own) => own.to_vec(),
        }
    }

    /// Expected return of a policy on the problem under a shift, exact.
    pub fn score(&self, models: &[Model], shift: f64) -> f64 {
        self.problem.value(self.simulated(), &Policy(models), shift)
    }

    fn replications(&self) -> u64 {
        if self.data.is_some() { 1 } else { self.replications }
    }
}

impl MethodSettings for R2pvi {
    const SLUG: &'static str = CARD.slug;
    const UNIT: &'static str = "steps";
    const WATCHED: (&'static str, &'static str) = ("value", "charts/value");

    fn process(&self, training: &Training) -> Result<Box<dyn Process>> {
        let seeds = Seeds::new(training.seed);
        let data = self.dataset(&seeds, 0)?;
        Ok(Box::new(Learner { settings: self.clone(), seeds, data, state: State::default() }))
    }

    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>> {
        let data = self.dataset(&Seeds::new(training.seed), 0)?;
        let rows: usize = data.steps.iter().map(|step| step.rewards.len()).sum();
        Ok(vec![
            ("episodes".into(), (rows / data.steps.len()).to_string()),
            ("steps of an episode".into(), data.steps.len().to_string()),
            ("features".into(), data.size.to_string()),
            ("datasets".into(), self.replications().to_string()),
            ("runs over each".into(), self.algorithm.runs().to_string()),
        ])
    }
}

/// Everything that a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    done: u64,
    replication: u64,
    progress: Progress,
    /// Score of each complete policy under each shift, `[policies, shifts]`.
    scores: Vec<Vec<f64>>,
}

struct Learner {
    settings: R2pvi,
    seeds: Seeds,
    data: Dataset,
    state: State,
}

/// What a user takes away, as `policy.json`.
#[derive(Serialize)]
struct Takeaway<'a> {
    algorithm: Algorithm,
    /// A model for each step: Q = clip(φ·weights - penalty(φ), low, cap).
    steps: Vec<Model>,
    /// Mean estimated value of the first states, where their features are known.
    value: Option<f64>,
    /// Estimates of the robustness curve.
    robustness: BTreeMap<String, f64>,
    /// Score of each policy under each shift.
    scores: &'a [Vec<f64>],
}

impl Learner {
    /// Estimated value of the first states, if their features are known.
    fn start_value(&self) -> Option<f64> {
        let model = self.state.progress.complete(&self.data).then(|| self.state.progress.models.last())??;
        let starts = &self.data.starts;
        let sum: f64 = starts.iter().map(|actions| model.value(actions)).sum();
        (!starts.is_empty()).then(|| sum / starts.len() as f64)
    }

    /// Scores of all policies under one of the shifts.
    fn column(&self, at: usize) -> Vec<f64> {
        self.state.scores.iter().map(|row| row[at]).collect()
    }

    fn curve(&self) -> Vec<(f64, polo_run::stats::Estimate)> {
        let shifts = self.settings.scored_shifts();
        let point = |(at, shift)| (shift, t_interval(&self.column(at), "datasets"));
        shifts.into_iter().enumerate().map(point).collect()
    }
}

impl Process for Learner {
    fn done(&self) -> u64 {
        self.state.done
    }

    fn total(&self) -> u64 {
        let steps = self.data.steps.len() * self.settings.algorithm.runs();
        self.settings.replications() * steps as u64
    }

    fn go_on(&mut self) -> Result<Metrics> {
        if self.state.progress.complete(&self.data) {
            self.state.replication += 1;
            self.state.progress = Progress::default();
            self.data = self.settings.dataset(&self.seeds, self.state.replication)?;
        }
        let found = self.state.progress.step(&self.data, &self.settings.rule())?;
        self.state.done += 1;
        let mut metrics: Metrics =
            [("charts/value", found.value), ("charts/penalty", found.penalty)].into_iter().collect();
        if self.state.progress.complete(&self.data) {
            let policy = self.state.progress.policy();
            let shifts = self.settings.scored_shifts();
            let scores: Vec<f64> = shifts.iter().map(|shift| self.settings.score(&policy, *shift)).collect();
            for (shift, score) in shifts.iter().zip(&scores) {
                metrics.set(format!("robustness/{shift:.2}"), *score);
            }
            if let Some(value) = self.start_value() {
                metrics.set("charts/start_value", value);
            }
            self.state.scores.push(scores);
        }
        Ok(metrics)
    }

    fn must_be_finite(&self, metric: &str) -> bool {
        metric.starts_with("charts/")
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        if let Some(value) = self.start_value().filter(|_| self.settings.data.is_some()) {
            let metrics = [("charts/start_value", value)].into_iter().collect();
            return Ok(Some((metrics, format!("pessimistic value of the first states {value:.3}"))));
        }
        let curve = self.curve();
        if self.state.scores.is_empty() || curve.is_empty() {
            return Ok(None);
        }
        let mut metrics = Metrics::new();
        let mut parts = Vec::new();
        for (shift, estimate) in &curve {
            metrics.set(format!("robustness/{shift:.2}"), estimate.mean);
            parts.push(format!("{:.3} at {shift}", estimate.mean));
        }
        let worst = curve.iter().map(|(_, estimate)| estimate.mean).fold(f64::INFINITY, f64::min);
        metrics.set("robustness/worst", worst);
        Ok(Some((metrics, format!("return {}", parts.join(", ")))))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        save_state(&folder.join("state.json"), &self.state)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.state = load_state(&folder.join("state.json"))?;
        self.data = self.settings.dataset(&self.seeds, self.state.replication)?;
        Ok(())
    }

    fn finish(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        let curve = self.curve();
        save_state(
            &path.join("policy.json"),
            &Takeaway {
                algorithm: self.settings.algorithm,
                steps: self.state.progress.policy(),
                value: self.start_value(),
                robustness: curve.iter().map(|(shift, found)| (shift.to_string(), found.mean)).collect(),
                scores: &self.state.scores,
            },
        )?;
        if curve.is_empty() {
            return Ok(());
        }
        let mut text = String::from("shift,return,low,high,datasets\n");
        for (shift, found) in curve {
            let (low, high) = found.interval.unwrap_or((f64::NAN, f64::NAN));
            text += &format!("{shift},{},{low},{high},{}\n", found.mean, found.n);
        }
        write_atomic(&path.join("robustness.csv"), text.as_bytes())
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "r2pvi",
    title: "Robust regularised pessimistic value iteration",
    paper: "Tang, Liu, Xu: Robust Offline Reinforcement Learning with Linearly Structured f-Divergence Regularization",
    arxiv: "2411.18612",
    year: 2025,
    family: super::FAMILY,
    summary: "offline value iteration with linear features that prices shifts of the dynamics by an f-divergence",
    claim: "robust under shifts where pessimism alone degrades, as good as constrained methods, and faster, as TV and KL have \
            closed-form duals",
    equation: "Q_h = clip(phi.(theta_h + nu_h) - Gamma_h, 0, H - h),   Gamma_h = beta sum_i phi_i sqrt((Lambda_h^-1)_ii)\n\
               nu_i = inf_mu E_mu V_{h+1} + lambda D(mu || mu_i)\n\
               TV:   E min(V, least V + lambda)\n\
               KL:   -lambda log E exp(-V / lambda)\n\
               chi2: sup_a E V_a + (E V_a)^2 / (4 lambda) - E V_a^2 / (4 lambda),   V_a = min(V, a)",
    symbols: &[
        ("phi", "features of a state and action, non-negative with sum 1, [d]"),
        ("theta_h", "reward vector, r = phi.theta_h; known or fitted"),
        ("mu_i", "distribution of the next state under factor i; E is its ridge estimate"),
        ("lambda", "price of a shift, in units of value (method.lambda)"),
        ("Lambda_h", "method.ridge times I, plus the sum of phi phi^T"),
        ("H, h", "steps of an episode; the step, from 0"),
    ],
    metrics: &[
        ("charts/value", "mean value of the states that followed the step just fitted"),
        ("charts/penalty", "mean penalty of the actions in the data in that step"),
        ("charts/start_value", "pessimistic, robust value of the first states"),
        ("robustness/SHIFT", "exact expected return where the dynamics have shifted so far"),
        ("robustness/worst", "the least of them"),
    ],
    reach_for: "logged episodes with features on a simplex (mixtures, soft clusters, hats), where the world will not stay as it \
                was logged",
    avoid_when: "features are negative or do not add up to 1 (use pevi); the horizon is long or states are images (use cql, iql)",
    failure_signs: &[
        "all actions tie: lambda is so small that every value is cut at it; raise method.lambda",
        "charts/value sticks at the cap: KL with little data is optimistic; set method.shift, or raise method.beta",
        "charts/value is 0: the penalty eats everything; lower method.beta",
        "robustness does not change with the shift's size and is low: method.lambda is smaller than it need be",
    ],
    variants: &[
        ("R2PVI-KL, -chi2", "method.algorithm = \"r2pvi-kl\", \"r2pvi-chi2\""),
        ("variance weights", "method.algorithm = \"va-r2pvi-tv\", \"va-drpvi\""),
        ("PEVI, LSVI", "method.algorithm = \"pevi\", \"lsvi\""),
        ("constrained: TV ball, KL ball", "method.algorithm = \"drpvi\", \"drvi-l\""),
        (
            "as in the paper's code",
            "method.penalty = \"root\", method.clip_low = false, method.least = \"data\"",
        ),
    ],
};

#[cfg(test)]
#[path = "r2pvi_tests.rs"]
mod tests;
