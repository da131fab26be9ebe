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

use std::{fs, path::Path, path::PathBuf};

use polo_run::{
    Problem, Result,
    card::MethodCard,
    config::Settings,
    metrics::Metrics,
    process::Process,
    seed::Seeds,
    seed::{below, unit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    draw::categorical,
    linear::Matrix,
    settings::{MethodSettings, Training},
    train::{load_state, save_state},
};

pub mod cover;
pub mod estimates;
pub mod layered;

use cover::Cover;
use estimates::Regulariser;
use layered::{Episode, Instance, Layered, Sizes, Table, Theta};

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

    /// A run before its first episode.
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
    const WATCHED: (&'static str, &'static str) = ("charts/regret", "regret");

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

/// Everything that a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    done: u64,
    /// Σ (Q̂ - B) of all pairs.
    cumulative: Table,
    /// Expected loss of all episodes.
    loss: f64,
    /// Episodes of each phase.
    played: Vec<u64>,
    /// The least Q̂ so far.
    least: f64,
}

/// A run.
pub struct Learner {
    settings: AdversarialLinearMdp,
    seeds: Seeds,
    process: Layered,
    cover: Option<Cover>,
    state: State,
}

/// What a user takes away, as `policy.json`.
#[derive(Serialize)]
struct Takeaway {
    /// Probabilities, `[layers][states][actions]`.
    policy: Vec<Vec<Vec<f64>>>,
    episodes: u64,
    /// Expected loss of all episodes, of the best fixed policy and of playing uniformly.
    loss: f64,
    best: f64,
    uniform: f64,
}

impl Learner {
    /// The policy of the next episode.
    fn policy(&self) -> Table {
        let algorithm = self.settings.algorithm;
        if algorithm == Algorithm::Uniform {
            return self.process.table(1.0 / self.process.actions as f64);
        }
        algorithm.regulariser().table(self.settings.eta(), self.process.actions, &self.state.cumulative)
    }

    /// Which losses episode k has.
    fn phase(&self, k: u64) -> usize {
        let length = self.settings.phase.unwrap_or(self.settings.episodes / 8).max(1);
        (k / length) as usize % self.process.phases.len()
    }

    /// Σ θ of all episodes so far.
    fn losses(&self) -> Theta {
        let mut total: Theta = vec![vec![0.0; self.process.size]; self.process.horizon()];
        for (theta, played) in self.process.phases.iter().zip(&self.state.played) {
            for (sum, theta) in total.iter_mut().flatten().zip(theta.iter().flatten()) {
                *sum += *played as f64 * theta;
            }
        }
        total
    }

    /// Expected loss of all episodes less that of the best fixed policy.
    pub fn regret(&self) -> f64 {
        self.state.loss - self.process.best(&self.losses())
    }

    /// The least estimate of Q so far.
    pub fn least_estimate(&self) -> f64 {
        self.state.least
    }

    fn uniform_loss(&self) -> f64 {
        let uniform = self.process.table(1.0 / self.process.actions as f64);
        self.process.value(&self.process.occupancy(&uniform), &self.losses())
    }

    /// S⁺ of a layer that is visited as often as said.
    fn inverse(&self, h: usize, often: &[f64], gamma: f64) -> Result<Matrix> {
        let settings = &self.settings;
        // Layers of one episode draw apart.
        let counter = self.state.done * self.process.horizon() as u64 + h as u64;
        let mut rng = self.seeds.rng("inverse", counter);
        let samples = settings.inverse_samples;
        let covariance = match settings.inverse {
            Inverse::Exact => self.process.covariance(h, often),
            Inverse::Empirical => {
                let mut counts = vec![0.0; often.len()];
                (0..samples).for_each(|_| counts[categorical(often, &mut rng)] += 1.0 / samples as f64);
                self.process.covariance(h, &counts)
            }
            Inverse::Geometric => {
                let steps = settings.inverse_steps.unwrap_or_else(|| estimates::enough_steps(gamma, 0.01));
                let fresh = || self.process.features(h, categorical(often, &mut rng));
                return Ok(estimates::geometric_resampling(self.process.size, gamma, samples, steps, fresh));
            }
        };
        regularised(covariance, gamma)
    }

    /// An episode of an algorithm that asks the simulator, and its estimates of Q less bonuses; the expected loss.
    fn episode(&mut self) -> Result<f64> {
        let k = self.state.done;
        let (policy, horizon) = (self.policy(), self.process.horizon());
        let theta = &self.process.phases[self.phase(k)];
        let occupancy = self.process.occupancy(&policy);
        let value = self.process.value(&occupancy, theta);
        let (gamma, beta) = (self.settings.gamma(horizon), self.settings.beta());
        let mut gains: Table = match self.settings.algorithm {
            Algorithm::Uniform => self.process.table(0.0),
            Algorithm::Hedge => self.process.q(&policy, theta),
            _ => Table::new(),
        };
        if gains.is_empty() {
            let Episode { pairs, returns } =
                self.process.play(&policy, theta, &mut self.seeds.rng("episode", k));
            let mut bonuses = Table::new();
            for h in 0..horizon {
                let inverse = self.inverse(h, &occupancy[h], gamma)?;
                let x = estimates::correlation(&self.process, h, &inverse, pairs[h]);
                gains.push(if self.settings.algorithm == Algorithm::MagnitudeReduced {
                    let often = self.visits(h, &occupancy[h]);
                    let m = estimates::mean_negative_part(&self.process, h, &inverse, &often);
                    let most = (if self.settings.layers_left { horizon - h } else { horizon }) as f64;
                    estimates::magnitude_reduced(&x, returns[h], most, &m)
                } else {
                    estimates::standard(&x, returns[h])
                });
                if beta > 0.0 {
                    bonuses.push(estimates::bonus(&self.process, h, &inverse, &policy[h], beta));
                }
            }
            self.see(&gains);
            if beta > 0.0 {
                subtract(&mut gains, &estimates::dilated(&self.process, &bonuses, &policy));
            }
        }
        self.take(&gains);
        Ok(value)
    }

    /// How often m looks at each pair of a layer.
    fn visits(&self, h: usize, often: &[f64]) -> Vec<f64> {
        let rollouts = self.settings.magnitude_rollouts;
        if rollouts == 0 {
            return often.to_vec();
        }
        let mut rng = self.seeds.rng("magnitude", self.state.done * self.process.horizon() as u64 + h as u64);
        let mut counts = vec![0.0; often.len()];
        (0..rollouts).for_each(|_| counts[categorical(often, &mut rng)] += 1.0 / rollouts as f64);
        counts
    }

    fn see(&mut self, estimates: &Table) {
        self.state.least = estimates.iter().flatten().copied().fold(self.state.least, f64::min);
    }

    fn take(&mut self, gains: &Table) {
        for (sum, gain) in self.state.cumulative.iter_mut().flatten().zip(gains.iter().flatten()) {
            *sum += gain;
        }
    }

    /// An epoch of the simulator-free algorithm; the expected losses of its episodes.
    fn epoch(&mut self, cover: &Cover) -> Result<Vec<f64>> {
        let (process, settings) = (&self.process, &self.settings);
        let (policy, horizon, actions) = (self.policy(), process.horizon(), process.actions);
        let last = settings.episodes.min(self.state.done + settings.epoch);
        let mut values = Vec::new();
        // By parity: episodes, and the only layer that each may speak of, if it explored.
        let mut halves: [Vec<(Episode, Option<usize>)>; 2] = Default::default();
        for k in self.state.done..last {
            let theta = &process.phases[self.phase(k)];
            let mut rng = self.seeds.rng("episode", k);
            let explores = unit(&mut rng) < settings.explore;
            let until = explores.then(|| below(&mut rng, horizon as u64) as usize);
            let mut played = policy.clone();
            if let Some(until) = until {
                let chosen = &cover.policies[below(&mut rng, cover.policies.len() as u64) as usize];
                played[..=until].clone_from_slice(&chosen[..=until]);
            }
            values.push(process.value(&process.occupancy(&played), theta));
            halves[(k % 2) as usize].push((process.play(&played, theta, &mut rng), until));
        }
        let [one, other] = &halves;
        let speaks = |until: &Option<usize>, h: usize| until.is_none_or(|until| until == h);
        let (gamma, beta) = (settings.gamma(horizon), settings.beta());
        let mut inverses = Vec::with_capacity(horizon);
        let mut bonuses = Table::with_capacity(horizon);
        for (h, policy) in policy.iter().enumerate() {
            let mut often = vec![0.0; process.pairs(h)];
            let rows: Vec<usize> = one
                .iter()
                .filter(|(_, until)| speaks(until, h))
                .map(|(episode, _)| episode.pairs[h])
                .collect();
            rows.iter().for_each(|pair| often[*pair] += 1.0 / rows.len() as f64);
            let inverse = regularised(process.covariance(h, &often), gamma)?;
            let mut bonus = estimates::bonus(process, h, &inverse, policy, beta);
            for (pair, bonus) in bonus.iter_mut().enumerate() {
                *bonus *= f64::from(u8::from(cover.known[h][pair / actions]));
            }
            inverses.push(inverse);
            bonuses.push(bonus);
        }
        let dilation = 1.0 + 1.0 / horizon as f64;
        // Sums of dilated bonuses from each layer to the end.
        let to_come = |episode: &Episode| {
            let mut sums = vec![0.0; horizon + 1];
            for h in (0..horizon).rev() {
                sums[h] = bonuses[h][episode.pairs[h]] + dilation * sums[h + 1];
            }
            sums
        };
        let to_come: Vec<Vec<f64>> = other.iter().map(|(episode, _)| to_come(episode)).collect();
        let (mut estimated, mut continued) = (Table::new(), Table::new());
        for h in 0..horizon {
            let mut sums = [vec![0.0; process.size], vec![0.0; process.size]];
            let mut rows = 0.0_f64;
            for ((episode, until), to_come) in other.iter().zip(&to_come) {
                if speaks(until, h) {
                    rows += 1.0;
                    for (at, x) in process.features(h, episode.pairs[h]).iter().enumerate() {
                        sums[0][at] += x * episode.returns[h];
                        sums[1][at] += x * to_come[h + 1];
                    }
                }
            }
            let [theta, bonus] = sums.map(|sum| {
                let mean: Vec<f64> = sum.iter().map(|x| x / rows.max(1.0)).collect();
                process.along(h, &inverses[h].times(&mean))
            });
            estimated.push(theta);
            continued.push(bonuses[h].iter().zip(bonus).map(|(own, next)| own + dilation * next).collect());
        }
        self.see(&estimated);
        subtract(&mut estimated, &continued);
        self.take(&estimated);
        Ok(values)
    }
}

fn regularised(mut covariance: Matrix, gamma: f64) -> Result<Matrix> {
    (0..covariance.size).for_each(|i| covariance.numbers[i * covariance.size + i] += gamma);
    covariance.inverse().ok_or_else(|| {
        Problem::input("a covariance of features cannot be inverted").hint("raise method.gamma")
    })
}

fn subtract(from: &mut Table, what: &Table) {
    from.iter_mut().flatten().zip(what.iter().flatten()).for_each(|(a, b)| *a -= b);
}

impl Process for Learner {
    fn done(&self) -> u64 {
        self.state.done
    }

    fn total(&self) -> u64 {
        self.settings.episodes
    }

    fn go_on(&mut self) -> Result<Metrics> {
        let values = match self.cover.take() {
            Some(cover) => {
                let values = self.epoch(&cover);
                self.cover = Some(cover);
                values?
            }
            None => vec![self.episode()?],
        };
        for value in &values {
            let phase = self.phase(self.state.done);
            self.state.played[phase] += 1;
            self.state.loss += value;
            self.state.done += 1;
        }
        Ok([
            ("charts/regret", self.regret()),
            ("charts/loss", values.iter().sum::<f64>() / values.len() as f64),
            ("charts/least_estimate", self.state.least),
        ]
        .into_iter()
        .collect())
    }

    fn must_be_finite(&self, metric: &str) -> bool {
        metric.starts_with("charts/")
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let (regret, episodes) = (self.regret(), self.state.done as f64);
        let uniform = regret + self.uniform_loss() - self.state.loss;
        let metrics = [
            ("charts/regret", regret),
            ("charts/regret_per_episode", regret / episodes),
            ("charts/uniform_regret", uniform),
            ("charts/loss_per_episode", self.state.loss / episodes),
        ];
        Ok(Some((metrics.into_iter().collect(), format!("regret {regret:.1}, of uniform play {uniform:.1}"))))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        save_state(&folder.join("state.json"), &self.state)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.state = load_state(&folder.join("state.json"))?;
        Ok(())
    }

    fn finish(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(|error| Problem::io("create", path, &error))?;
        let states =
            |layer: Vec<f64>| layer.chunks_exact(self.process.actions).map(<[f64]>::to_vec).collect();
        save_state(
            &path.join("policy.json"),
            &Takeaway {
                policy: self.policy().into_iter().map(states).collect(),
                episodes: self.state.done,
                loss: self.state.loss,
                best: self.process.best(&self.losses()),
                uniform: self.uniform_loss(),
            },
        )
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
