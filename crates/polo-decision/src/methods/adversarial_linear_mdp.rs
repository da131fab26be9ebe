//! Policy optimisation in adversarial linear decision processes (Dai, Luo, Wei, Zimmert 2023, arXiv 2301.12942).
//!
//! Losses change from episode to episode against the learner, who sees those along its own path; every policy's Q is
//! linear in known features. From episode k, in every layer h ([`estimates`]):
//!
//! ```text
//! S⁺ = (γ I + E_{pi_k} φ φᵀ)⁻¹,    X(s,a) = φ(s,a)ᵀ S⁺ φ(s_h,a_h),    L = loss from layer h to the end
//! b(s,a) = β ( ‖φ(s,a)‖² + E_{a'~pi_k} ‖φ(s,a')‖² )  in the norm of S⁺
//! B(s,a) = b(s,a) + (1 + 1/H) E_{s'} E_{a'~pi_k} B(s',a')
//! ```
//!
//! The three algorithms:
//!
//! 1. `log-barrier`: Q̂ = X L and pi_{k+1}(.|s) = argmin_p p·Σ (Q̂ - B) + (1/η) Σ_a ln(1/p(a)). Nothing need bound Q̂ from
//!    below, so that γ may be 1/K.
//! 2. `magnitude-reduced`: Q̂ = X L - H (X)₋ + H m with m = E (X)₋ over fresh visits; of the same mean as X L but not below
//!    -H/√γ, so that exponential weights with γ = (η H)² are safe.
//! 3. `simulator-free`: epochs of a fixed policy; S⁺ from one half of an epoch's episodes, Q̂ = φ·S⁺ mean(φ L) and the
//!    continuation of the bonus by regression from the other half, with a cover of policies found before ([`cover`]).
//!
//! Algorithms 1 and 2 ask a simulator for S⁺, m and B. Here the process is known, so that all three may be exact; S⁺ and m
//! by sampling are settings.

use std::path::PathBuf;

use polo_run::{Problem, Result, card::MethodCard, config::Settings, process::Process, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{MethodSettings, Training};

pub mod cover;
pub mod estimates;
pub mod layered;
pub mod learner;

use cover::Cover;
use estimates::Regulariser;
use layered::{Instance, Layered, Sizes};
use learner::{Learner, State};

/// Which algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Algorithm 1: log-barrier, standard estimates.
    #[default]
    LogBarrier,
    /// Algorithm 2: exponential weights, magnitude-reduced estimates.
    MagnitudeReduced,
    /// Algorithm 3: log-barrier without a simulator, by epochs.
    SimulatorFree,
    /// Exponential weights with standard estimates: Luo et al. 2021 with a ridge of η H, unprotected with a small one.
    ExponentialWeights,
    /// Algorithm 1 with Tsallis entropy in place of the log-barrier.
    Tsallis,
    /// Exponential weights that are told every Q after the episode.
    Hedge,
    /// Every action as often, always.
    Uniform,
}

impl Algorithm {
    fn regulariser(self) -> Regulariser {
        match self {
            Self::LogBarrier | Self::SimulatorFree => Regulariser::LogBarrier,
            Self::Tsallis => Regulariser::Tsallis,
            _ => Regulariser::Entropy,
        }
    }
}

/// How the inverse covariance is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Inverse {
    /// From the known process.
    #[default]
    Exact,
    /// Matrix geometric resampling from fresh episodes.
    Geometric,
    /// Regularised inverse of the mean over fresh episodes.
    Empirical,
}

/// Settings of `polo train adversarial-linear-mdp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdversarialLinearMdp {
    /// Which algorithm, or which baseline.
    pub algorithm: Algorithm,
    /// K: episodes that count.
    #[schemars(range(min = 1))]
    pub episodes: u64,
    /// η. Unset by default: 0.4 √(4000/K) for `log-barrier`, a fifth of it for `tsallis`, 4 an epoch for `simulator-free`,
    /// 0.03 √(4000/K) for the others.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub eta: Option<f64>,
    /// γ, the ridge. Unset by default: 1/K for `log-barrier` and `tsallis`, (η H)² for `magnitude-reduced`, η H for
    /// `exponential-weights`, 0.01 for `simulator-free`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub gamma: Option<f64>,
    /// β, the bonus. Unset by default: 0.01 for `simulator-free`, else 0, which is best where the process explores itself.
    #[schemars(range(min = 0.0))]
    pub beta: Option<f64>,
    /// How S⁺ is found by algorithms that ask a simulator.
    pub inverse: Inverse,
    /// Repetitions of `geometric`, or episodes of `empirical`, in each episode.
    #[schemars(range(min = 1))]
    pub inverse_samples: usize,
    /// Steps of a repetition of `geometric`. Unset by default: (2/γ) log(100/γ).
    #[schemars(range(min = 1))]
    pub inverse_steps: Option<usize>,
    /// Fresh episodes for m of `magnitude-reduced`; 0 by default: exact.
    pub magnitude_rollouts: usize,
    /// Whether the number of layers left stands for H in the magnitude-reduced estimate: it bounds the loss more closely.
    pub layers_left: bool,
    /// W: episodes of an epoch of `simulator-free`.
    #[schemars(range(min = 2))]
    pub epoch: u64,
    /// Probability that an episode of `simulator-free` explores.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub explore: f64,
    /// Rounds of exploration of `simulator-free` before the first episode, each with a policy of its own.
    #[schemars(range(min = 1))]
    pub rounds: usize,
    /// Episodes of such a round; they do not count.
    #[schemars(range(min = 1))]
    pub round_episodes: usize,
    /// α/d: how long the features of a known state may be in the norm of the cover's inverse covariance, squared, for each
    /// feature.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub known: f64,
    /// The instance, where `process` names none.
    pub instance: Instance,
    /// Your own process: a JSON object with `features` `[layers][states][actions][d]`, `transitions`
    /// `[layers - 1][states][actions][next states]` and `theta` `[phases][layers][d]`, losses being φ·θ within 0 and 1;
    /// episodes begin in state 0. Unset by default.
    pub process: Option<PathBuf>,
    /// Seed of the instance. Unset by default: that of the run.
    pub instance_seed: Option<u64>,
    /// H of an instance that is made.
    #[schemars(range(min = 1))]
    pub horizon: usize,
    /// States of each of its layers (2 in `lock`).
    #[schemars(range(min = 1))]
    pub states: usize,
    /// A.
    #[schemars(range(min = 2))]
    pub actions: usize,
    /// d (3 in `lock`, states times actions in `tabular`).
    #[schemars(range(min = 1))]
    pub features: usize,
    /// Episodes of a phase of the adversary. Unset by default: K/8.
    #[schemars(range(min = 1))]
    pub phase: Option<u64>,
}

impl Default for AdversarialLinearMdp {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::LogBarrier,
            episodes: 4000,
            eta: None,
            gamma: None,
            beta: None,
            inverse: Inverse::Exact,
            inverse_samples: 50,
            inverse_steps: None,
            magnitude_rollouts: 0,
            layers_left: false,
            epoch: 50,
            explore: 0.05,
            rounds: 20,
            round_episodes: 10,
            known: 10.0,
            instance: Instance::Random,
            process: None,
            instance_seed: None,
            horizon: 3,
            states: 4,
            actions: 4,
            features: 3,
            phase: None,
        }
    }
}

impl Settings for AdversarialLinearMdp {
    fn check(&self) -> Result<()> {
        if self.instance == Instance::Lock && self.process.is_none() && self.features != 3 {
            return Err(Problem::usage("a lock has three features").place("method.features"));
        }
        Ok(())
    }
}

impl AdversarialLinearMdp {
    fn eta(&self) -> f64 {
        let scale = (4000.0 / self.episodes as f64).sqrt();
        self.eta.unwrap_or(match self.algorithm {
            Algorithm::LogBarrier => 0.4 * scale,
            Algorithm::Tsallis => 0.08 * scale,
            Algorithm::SimulatorFree => 4.0,
            _ => 0.03 * scale,
        })
    }

    fn gamma(&self, horizon: usize) -> f64 {
        let range = self.eta() * horizon as f64;
        self.gamma.unwrap_or(match self.algorithm {
            Algorithm::MagnitudeReduced => range * range,
            Algorithm::ExponentialWeights => range,
            Algorithm::SimulatorFree => 0.01,
            _ => 1.0 / self.episodes as f64,
        })
    }

    fn beta(&self) -> f64 {
        self.beta.unwrap_or(if self.algorithm == Algorithm::SimulatorFree { 0.01 } else { 0.0 })
    }

    fn layered(&self, seeds: &Seeds) -> Result<Layered> {
        let sizes = Sizes {
            horizon: self.horizon,
            states: self.states,
            actions: self.actions,
            features: self.features,
        };
        let seeds = self.instance_seed.map_or(*seeds, Seeds::new);
        match &self.process {
            Some(path) => Layered::read(path),
            None => Ok(Layered::make(self.instance, sizes, &seeds)),
        }
    }

    /// A run before its first episode; without a simulator the exploration before it is done.
    ///
    /// # Errors
    /// A process that cannot be read.
    pub fn learner(&self, seed: u64) -> Result<Learner> {
        let seeds = Seeds::new(seed);
        let process = self.layered(&seeds)?;
        let cover = (self.algorithm == Algorithm::SimulatorFree).then(|| {
            let alpha = self.known * process.size as f64;
            Cover::explore(&process, self.rounds, self.round_episodes, alpha, &seeds)
        });
        let state = State {
            cumulative: process.table(0.0),
            played: vec![0; process.phases.len()],
            ..State::default()
        };
        Ok(Learner { settings: self.clone(), seeds, process, cover, state })
    }
}

impl MethodSettings for AdversarialLinearMdp {
    const SLUG: &'static str = CARD.slug;
    const UNIT: &'static str = "episodes";
    const WATCHED: (&'static str, &'static str) = ("regret", "charts/regret");

    fn process(&self, training: &Training) -> Result<Box<dyn Process>> {
        Ok(Box::new(self.learner(training.seed)?))
    }

    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>> {
        let process = self.layered(&Seeds::new(training.seed))?;
        let states: usize = (0..process.horizon()).map(|h| process.states(h)).sum();
        Ok(vec![
            ("episodes".into(), self.episodes.to_string()),
            ("layers".into(), process.horizon().to_string()),
            ("states in all".into(), states.to_string()),
            ("actions".into(), process.actions.to_string()),
            ("features".into(), process.size.to_string()),
            ("eta".into(), format!("{:.4}", self.eta())),
            ("gamma".into(), format!("{:.6}", self.gamma(process.horizon()))),
            ("beta".into(), self.beta().to_string()),
        ])
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "adversarial-linear-mdp",
    title: "Refined regret for adversarial linear decision processes",
    paper: "Dai, Luo, Wei, Zimmert: Refined Regret for Adversarial MDPs with Linear Function Approximation",
    arxiv: "2301.12942",
    year: 2023,
    family: super::FAMILY,
    summary: "policy optimisation against losses that change at will, where every policy's Q is linear in known features",
    claim: "regret of order sqrt(K) over K episodes with a simulator (log-barrier, or a magnitude-reduced estimator whose regret \
            does not depend on the number of actions), K^(8/9) without; before: K^(2/3) and K^(14/15)",
    equation: "X = phi^T S+ phi(s_h, a_h),   S+ = (gamma I + E phi phi^T)^-1\n\
               1: Q = X L,                      pi = argmin_p p.sum(Q - B) + (1/eta) sum_a ln(1/p(a))\n\
               2: Q = X L - H (X)_- + H m,      pi in proportion to exp(-eta sum(Q - B))\n\
               3: Q = phi.S+ mean(phi L),       pi as in 1, by epochs\n\
               B = b + (1 + 1/H) E B',          b = beta (|phi|^2 + E_pi |phi|^2) in the norm of S+",
    symbols: &[
        ("L", "the episode's loss from layer h to its end"),
        ("(x)_-, m", "min(x, 0), and its mean over fresh visits of the layer"),
        ("eta, gamma, beta", "step size, ridge, bonus (method.eta, method.gamma, method.beta)"),
        ("B, B'", "dilated bonus of a pair, and of the pair that follows under pi"),
        ("K, H", "episodes, and layers of one"),
    ],
    metrics: &[
        ("charts/regret", "expected loss of all episodes so far less that of the best fixed policy, exact"),
        ("charts/loss", "expected loss of the last episode, or of the last epoch's"),
        (
            "charts/least_estimate",
            "the least estimate of Q so far; far below 0 exponential weights are at risk",
        ),
        ("charts/uniform_regret", "regret that uniform play would have"),
    ],
    reach_for: "planning again and again in a known process whose losses follow no law (log-barrier with gamma 1/K); or an unknown \
                one with features that make it linear (simulator-free)",
    avoid_when: "losses are drawn from a fixed distribution, where optimism learns faster; there are no features that make Q linear",
    failure_signs: &[
        "regret follows charts/uniform_regret: raise method.eta, of the log-barrier in particular (0.4 where exponential weights \
         take 0.03)",
        "regret is a line that never bends after the losses changed: what is best was never visited again; raise method.beta",
        "regret rises with method.beta at any value: the process explores itself, set it to 0",
    ],
    variants: &[
        (
            "algorithms 1 to 3",
            "method.algorithm = \"log-barrier\", \"magnitude-reduced\", \"simulator-free\"",
        ),
        ("Luo et al. 2021", "method.algorithm = \"exponential-weights\""),
        ("without protection", "method.algorithm = \"exponential-weights\", method.gamma = 0.00025"),
        (
            "Tsallis entropy, full information, uniform",
            "method.algorithm = \"tsallis\", \"hedge\", \"uniform\"",
        ),
        ("inverses by sampling", "method.inverse = \"geometric\", \"empirical\""),
    ],
};

#[cfg(test)]
#[path = "adversarial_linear_mdp_tests.rs"]
mod tests;
