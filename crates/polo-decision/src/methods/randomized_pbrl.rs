//! PR-LSVI and PbTS: exploration by randomisation with preferences as the only feedback (Wu, Sun 2024, arXiv 2310.14554).
//!
//! Of two episodes a round it is asked which is better, and only if draws from what is believed disagree about the pair:
//!
//! ```text
//! P(o = 1) = σ( c (r(τ¹) - r(τ⁰)) ),   r(τ) = φ(τ)·θ,   φ(τ) = (φ(s_1,a_1), .., φ(s_H,a_H)),   x = φ(τ¹) - φ(τ⁰)
//! θ^  = argmax Σ_asked log σ( c (2 o - 1) x·θ ) - λ/2 ‖θ‖²,      Σ_r = λ I + Σ_asked x xᵀ
//! θ_r ~ N(θ^, σ_r² Σ_r⁻¹)   once a round
//! Q_h = φ·θ_{r,h} + ω_h,    ω_H = 0,   V_h = max_a Q_h
//! ω_h = φ·θ_{P,h},          θ_{P,h} ~ N( Σ_h⁻¹ Σ_i φ_i V_{h+1}(s'_i), σ_P² Σ_h⁻¹ ),   Σ_h = λ I + Σ_i φ_i φ_iᵀ
//! π⁰_t = greedy(Q),  π¹_t = π⁰_{t-1};   ask iff E |(θ - θ')·x| = 2/√π σ_r ‖x‖_{Σ_r⁻¹} > ε
//! ```
//!
//! Where ‖φ‖_{Σ_h⁻¹} is above α_U, ω is a default, the most that can still come; between α_L and α_U it is interpolated.
//! PbTS draws transitions from Dirichlet posteriors and rewards from theirs, and asks by the same rule; both posteriors may
//! be ensembles of small networks, each fitted by the Bradley-Terry loss or by cross-entropy on bootstrapped data. With ε = T^(-β),
//! β <= 1/2, regret is T^(1-β) and 2 T^(2β) questions are asked, but for factors of d and H.
//!
//! The paper has no experiments and no code: scales are choices of this program, as are cutting draws of ω at ± what can
//! come (`method.clip`), the default value and the interpolation.

use std::{f64::consts::FRAC_2_SQRT_PI, path::PathBuf};

use polo_run::{Problem, Result, card::MethodCard, config::Settings, process::Process, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    settings::{MethodSettings, Training},
    tabular::{Policy, Tabular},
};

mod ensembles;
mod gaussian;
mod learner;
mod rewards;
mod transitions;

pub use ensembles::{Members, RewardEnsemble, TransitionEnsemble};
pub use gaussian::Gaussian;
use learner::State;
pub use learner::{Learner, Round};
pub use rewards::{Particles, Posterior, Preferences, Rewards};
pub use transitions::{DefaultValue, Iteration, TransitionPosterior, Transitions};

/// Which method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Randomised least-squares value iteration.
    #[default]
    PrLsvi,
    /// Thompson sampling with a learned model of transitions.
    Pbts,
    /// Randomised value iteration that sees the reward of every step and asks nothing: what preferences cost.
    Rlsvi,
}

/// When it is asked which episode is better. Pairs without difference are never asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// When two draws are expected to disagree by more than ε.
    #[default]
    Active,
    /// Always.
    Always,
    /// With a fixed probability.
    Random,
}

/// Who plays the other episode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Comparator {
    /// The new policy of the round before.
    #[default]
    Previous,
    /// The new policy again.
    New,
    /// The policy of a second, independent draw, as in dueling posterior sampling.
    SecondDraw,
    /// Every action alike, all the time.
    Uniform,
}

/// Settings of `polo train randomized-pbrl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RandomizedPbrl {
    /// `pr-lsvi` or `pbts`; `rlsvi` sees rewards and is the upper bound.
    pub algorithm: Algorithm,
    /// T.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub rounds: u64,
    /// When a preference is asked for: `active` (the method), `always` or `random`.
    pub query: Query,
    /// ε: an expected disagreement of two draws that is worth a question, in units of return. T^(-β) in theory.
    #[schemars(range(min = 0.0))]
    pub epsilon: f64,
    /// With which probability `random` asks about a pair that differs.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub query_probability: f64,
    /// Who plays the other episode: `previous` (the method), `new`, `second-draw` or `uniform`.
    pub comparator: Comparator,
    /// σ_r, scale of the noise on rewards. 0 is greedy; the active rule asks nothing then. Unused by `pbts`. Default of this
    /// program; √d in theory.
    #[schemars(range(min = 0.0))]
    pub sigma_reward: f64,
    /// σ_P, scale of the noise on the values of next states. Unused by `pbts`. Default of this program.
    #[schemars(range(min = 0.0))]
    pub sigma_transition: f64,
    /// α_L: ‖φ‖ in Σ_h⁻¹ up to which next values are trusted; 1/√(λ + N) for a pair visited N times.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub alpha_low: f64,
    /// α_U: ‖φ‖ beyond which the default value stands; at λ = 1 the default 1 means pairs never visited.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub alpha_high: f64,
    /// What follows a pair never visited: `optimistic`, the most that can come, or `zero`.
    pub default_value: DefaultValue,
    /// Whether draws of next values are cut at ± the most that can come.
    pub clip: bool,
    /// λ, ridge of all regressions; the prior of rewards is N(0, I / λ).
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub lambda: f64,
    /// Whether transitions are learnt from both episodes of a round; from the new policy's alone otherwise.
    pub learn_from_both: bool,
    /// Rewards are fitted again after each of the first 50 preferences, then after every so many.
    #[schemars(range(min = 1))]
    pub refit_every: usize,
    /// How `pbts` holds the posterior of rewards: `laplace`, `particles` or `ensemble` (small networks on bootstrapped
    /// preferences).
    pub posterior: Posterior,
    /// Reward vectors of `particles`.
    #[schemars(range(min = 2, max = 1_000_000))]
    pub particles: usize,
    /// How `pbts` holds the posterior of transitions: `dirichlet` or `ensemble` (small networks on bootstrapped
    /// transitions).
    pub transition_posterior: TransitionPosterior,
    /// Concentration of the symmetric Dirichlet prior of transitions in `pbts`. Default of this program.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub transition_prior: f64,
    /// Networks of an `ensemble`, as the next four keys. Defaults of this program.
    #[schemars(range(min = 2, max = 1000))]
    pub members: usize,
    /// Widths of their hidden layers, one or two.
    pub hidden: Vec<usize>,
    /// Step size of Adam.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Steps of Adam, on all data, whenever a network is fitted again: for rewards see `refit_every`; of transitions, that
    /// which a round plans with.
    #[schemars(range(min = 1, max = 100_000))]
    pub fit_steps: usize,
    /// Size of the fixed random rewards, linear in the features, that every network of rewards adds, in standard deviations
    /// of the prior N(0, I / λ). 0: networks differ by their first weights and their data alone.
    #[schemars(range(min = 0.0))]
    pub prior_scale: f64,
    /// c, how surely the better episode is preferred: σ(c times the difference of returns). Known to the learner.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub link_scale: f64,
    /// Your own process: a JSON file `{"horizon": 3, "transitions": [states][actions][next states], "rewards":
    /// [states][actions]}`; both may also be lists of one such table for each step. Optional: "start" (probabilities of the
    /// first state), "features" ([states][actions][d], of norm at most 1, in which rewards and transitions are linear),
    /// "states" and "actions" (names). Unset by default: a process is drawn from the seed as the keys below say.
    pub file: Option<PathBuf>,
    /// B, the largest size of a reward in your own process.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub reward_bound: f64,
    /// H of a process that is drawn; rewards are uniform on [0, 1].
    #[schemars(range(min = 1, max = 100))]
    pub horizon: usize,
    /// S of a process that is drawn.
    #[schemars(range(min = 1, max = 100))]
    pub states: usize,
    /// A of a process that is drawn.
    #[schemars(range(min = 2, max = 100))]
    pub actions: usize,
    /// Concentration of the Dirichlet distribution that its transitions are drawn from.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub concentration: f64,
}

impl Default for RandomizedPbrl {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::PrLsvi,
            rounds: 2000,
            query: Query::Active,
            epsilon: 0.1,
            query_probability: 0.2,
            comparator: Comparator::Previous,
            sigma_reward: 0.5,
            sigma_transition: 0.3,
            alpha_low: 0.7,
            alpha_high: 1.0,
            default_value: DefaultValue::Optimistic,
            clip: true,
            lambda: 1.0,
            learn_from_both: true,
            refit_every: 20,
            posterior: Posterior::Laplace,
            particles: 500,
            transition_posterior: TransitionPosterior::Dirichlet,
            transition_prior: 0.5,
            members: 10,
            hidden: vec![32],
            learning_rate: 0.03,
            fit_steps: 20,
            prior_scale: 1.0,
            link_scale: 4.0,
            file: None,
            reward_bound: 1.0,
            horizon: 3,
            states: 3,
            actions: 2,
            concentration: 0.5,
        }
    }
}

/// Rewards of more features are beyond dense matrices.
const MOST_FEATURES: usize = 1000;

/// Wider networks are not small.
const WIDEST: usize = 1024;

impl Settings for RandomizedPbrl {
    fn check(&self) -> Result<()> {
        if self.alpha_low > self.alpha_high {
            return Err(Problem::usage("alpha_low must not be above alpha_high").place("method.alpha_low"));
        }
        if !(1..=2).contains(&self.hidden.len())
            || self.hidden.iter().any(|width| !(1..=WIDEST).contains(width))
        {
            return Err(Problem::usage(format!("a network has one or two hidden layers of 1 to {WIDEST}"))
                .place("method.hidden"));
        }
        Ok(())
    }
}

impl RandomizedPbrl {
    /// The process: that of the file, or drawn from the run's seed.
    ///
    /// # Errors
    /// Those of [`Tabular::read`]; more features than dense matrices can hold.
    pub fn tabular(&self, seeds: &Seeds) -> Result<Tabular> {
        let process = match &self.file {
            Some(path) => Tabular::read(path, self.reward_bound)?,
            None => Tabular::random(self.horizon, self.states, self.actions, self.concentration, seeds),
        };
        let features = process.horizon * process.size();
        if features > MOST_FEATURES {
            let place = if self.file.is_some() { "method.file" } else { "method.states" };
            return Err(Problem::usage(format!(
                "{} steps of {} features are {features} rewards to learn, more than {MOST_FEATURES}",
                process.horizon,
                process.size()
            ))
            .place(place)
            .hint("give fewer states, actions or steps, or a file with \"features\" that states share"));
        }
        Ok(process)
    }

    fn networks(&self) -> Members {
        Members {
            count: self.members,
            hidden: self.hidden.clone(),
            learning_rate: self.learning_rate,
            steps: self.fit_steps,
        }
    }

    fn iteration(&self) -> Iteration {
        Iteration {
            sigma: self.sigma_transition,
            alpha_low: self.alpha_low,
            alpha_high: self.alpha_high,
            default_value: self.default_value,
            clip: self.clip,
            reward_bound: self.reward_bound,
        }
    }

    /// What a reader must know before the result means anything.
    fn warnings(&self) -> Vec<&'static str> {
        if self.algorithm != Algorithm::PrLsvi || self.query != Query::Active {
            return Vec::new();
        }
        if self.sigma_reward == 0.0 {
            return vec![
                "draws without noise never disagree: nothing will be asked; set method.query = \"always\"",
            ];
        }
        // ‖x‖² is at most 2 H where every pair has a feature of its own.
        let most = FRAC_2_SQRT_PI * self.sigma_reward * (2.0 * self.horizon as f64 / self.lambda).sqrt();
        if self.file.is_none() && self.epsilon >= most {
            return vec!["no pair can be worth a question at this method.epsilon: nothing will be asked"];
        }
        Vec::new()
    }

    /// A run before its first round.
    ///
    /// # Errors
    /// Those of [`Self::tabular`].
    pub fn learner(&self, seed: u64) -> Result<Learner> {
        let seeds = Seeds::new(seed);
        let process = self.tabular(&seeds)?;
        let features = process.horizon * process.size();
        let preferences = || Preferences::new(features, self.link_scale, self.lambda);
        let covariance = || Gaussian::new(features, self.lambda);
        let rewards = match (self.algorithm, self.posterior) {
            (Algorithm::PrLsvi, _) => {
                Rewards::Perturbed { preferences: preferences(), covariance: covariance() }
            }
            (Algorithm::Pbts, Posterior::Laplace) => {
                Rewards::Laplace { preferences: preferences(), hessian: covariance() }
            }
            (Algorithm::Pbts, Posterior::Particles) => {
                Rewards::particles(preferences(), self.particles, &seeds)?
            }
            (Algorithm::Pbts, Posterior::Ensemble) => {
                let (members, scale) = (self.networks(), self.prior_scale);
                Rewards::Ensemble(RewardEnsemble::new(
                    &process,
                    &members,
                    scale,
                    self.link_scale,
                    self.lambda,
                    &seeds,
                ))
            }
            (Algorithm::Rlsvi, _) => Rewards::Seen { sum: vec![0.0; features], covariance: covariance() },
        };
        let transitions = match (self.algorithm, self.transition_posterior) {
            (Algorithm::Pbts, TransitionPosterior::Dirichlet) => {
                Transitions::dirichlet(&process, self.transition_prior)
            }
            (Algorithm::Pbts, TransitionPosterior::Ensemble) => Transitions::Ensemble(
                TransitionEnsemble::new(&process, &self.networks(), self.transition_prior, &seeds),
            ),
            (Algorithm::PrLsvi | Algorithm::Rlsvi, _) => Transitions::linear(&process, self.lambda),
        };
        let best = process.value(&process.optimum());
        let last = Policy::Table(vec![vec![0; process.states]; process.horizon]);
        let state = State { round: 0, regret: 0.0, queries: 0, last, rewards, transitions };
        Ok(Learner { settings: self.clone(), seeds, process, best, state })
    }
}

impl MethodSettings for RandomizedPbrl {
    const SLUG: &'static str = CARD.slug;
    const UNIT: &'static str = "rounds";
    const WATCHED: (&'static str, &'static str) = ("regret", "regret/mean");

    fn process(&self, training: &Training) -> Result<Box<dyn Process>> {
        self.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
        Ok(Box::new(self.learner(training.seed)?))
    }

    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>> {
        let learner = self.learner(training.seed)?;
        let process = &learner.process;
        let mut lines = vec![
            ("rounds".into(), self.rounds.to_string()),
            ("steps of an episode".into(), process.horizon.to_string()),
            ("states".into(), process.states.to_string()),
            ("actions".into(), process.actions.to_string()),
            ("rewards to learn".into(), (process.horizon * process.size()).to_string()),
            ("value of an optimal policy".into(), format!("{:.4}", learner.best)),
            ("value of random actions".into(), format!("{:.4}", process.value(&Policy::Uniform))),
        ];
        lines.extend(self.warnings().into_iter().map(|warning| ("warning".into(), warning.into())));
        Ok(lines)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "randomized-pbrl",
    title: "Randomised preference-based reinforcement learning: PR-LSVI and PbTS",
    paper: "Wu, Sun: Making RL with Preference-based Feedback Efficient via Randomization",
    arxiv: "2310.14554",
    year: 2024,
    family: super::FAMILY,
    summary: "online learning from preferences between episodes that explores by random draws and asks only where draws disagree",
    claim: "randomised value iteration with the active query rule has the regret of asking always for a fraction of the \
            questions, and epsilon trades one for the other",
    equation: "theta^  = argmax sum_asked log sigma(c (2 o - 1) x.theta) - lambda/2 |theta|^2\n\
               theta_r ~ N(theta^, sigma_r^2 Sigma_r^-1),   Sigma_r = lambda I + sum_asked x x^T\n\
               Q_h = phi.theta_{r,h} + omega_h,   omega_h = phi.theta_{P,h},   omega_H = 0\n\
               theta_{P,h} ~ N(Sigma_h^-1 sum_i phi_i V_{h+1}(s'_i), sigma_P^2 Sigma_h^-1)\n\
               pi0_t = greedy(Q),   pi1_t = pi0_{t-1}\n\
               ask iff E |(theta - theta').x| = 2/sqrt(pi) sigma_r |x|_{Sigma_r^-1} > epsilon\n\
               Reg_T = sum_t 2 V* - V(pi0_t) - V(pi1_t)",
    symbols: &[
        ("x", "features of the second episode less those of the first, all steps one after the other, [H d]"),
        ("o", "1 if the second episode is preferred, with probability sigma(c (r(tau1) - r(tau0)))"),
        ("c, lambda", "method.link_scale, method.lambda"),
        ("sigma_r, sigma_P", "method.sigma_reward, method.sigma_transition"),
        (
            "omega_h",
            "value of what follows; the most that can come for pairs not visited (method.alpha_low, alpha_high)",
        ),
        (
            "epsilon",
            "disagreement of two draws that is worth a question, in units of return (method.epsilon)",
        ),
        ("V*, V(pi)", "exact expected returns, optimal and of a policy"),
    ],
    metrics: &[
        ("regret/total", "Reg_t, both policies of a round counted"),
        ("regret/mean", "Reg_t / (2 t), loss of return per episode so far"),
        ("regret/round", "the same of this round alone"),
        ("queries/total", "preferences asked for so far"),
        ("queries/disagreement", "expected disagreement of two draws about the pair of this round"),
        ("queries/outcome", "1 where the second episode was preferred, 0 where the first was"),
        ("values/recommended", "exact value of the best policy under the means of what is believed"),
        ("values/best", "value of an optimal policy"),
    ],
    reach_for: "few states and actions, or features in which rewards and transitions are linear, where nobody can name rewards but \
                people can compare two episodes, and each comparison costs",
    avoid_when: "rewards are seen (any other method learns faster), or there are so many states without features that H S A is \
                 above 1,000",
    failure_signs: &[
        "regret/mean stays level with few questions: method.epsilon is too large; halve it",
        "regret/mean stays level though much is asked: method.sigma_reward or sigma_transition is too small",
        "regret/round is never near 0 at the end: the draws are too wide; lower the sigmas",
        "nothing is asked with method.comparator = \"new\" after a while: both episodes are alike and nothing is learnt",
    ],
    variants: &[
        ("PbTS", "method.algorithm = \"pbts\", with method.posterior = \"particles\" for a particle filter"),
        (
            "PbTS with networks",
            "method.algorithm = \"pbts\", method.posterior = \"ensemble\", method.transition_posterior = \"ensemble\" or not",
        ),
        (
            "dueling posterior sampling",
            "method.algorithm = \"pbts\", method.comparator = \"second-draw\", method.query = \"always\"",
        ),
        ("ask always, or at random", "method.query = \"always\", \"random\" with method.query_probability"),
        ("both episodes from the new policy", "method.comparator = \"new\""),
        ("fixed uniform comparator", "method.comparator = \"uniform\""),
        ("greedy", "method.sigma_reward = 0, method.sigma_transition = 0, method.query = \"always\""),
        ("rewards are seen", "method.algorithm = \"rlsvi\""),
        ("no optimism about the unseen", "method.default_value = \"zero\""),
    ],
};

#[cfg(test)]
#[path = "randomized_pbrl_tests.rs"]
mod tests;
