//! Weighted tallying bandits by successive elimination with burn-in (Malik, Igoe, Li, Singh 2023, arXiv 2305.02955).
//!
//! The loss of an arm depends on how often it was played in the last m rounds, unknown weights and all:
//!
//! ```text
//! loss_t = h_x(y_t) + noise,   y_t = sum_{j=1..m} w_j 1{x_{t-j+1} = x_t}
//! s_x    = h_x(sum_j w_j)      the loss of x once it has been played m times in a row
//! ```
//!
//! The current pull counts, j = 1, unless `counts_current` is false. Regret is the complete policy regret: the losses
//! incurred less those of the best sequence of pulls, which lives with its own history. Where repeated exposure is optimal,
//! s_{x*} <= h_x(y) for all x and y, that sequence is x* always, up to m losses. Epoch s = 1, 2, .. of the method:
//!
//! ```text
//! play every arm left M + n_s times in a row, n_s = n_0 growth^(s-1); mu_s(x) = mean of its last n_s losses
//! C_s = sigma sqrt(2 log(2 K S / delta) / n_s),   S = ceil(log_growth T),   sigma = 1/2 for losses in [0, 1]
//! keep x if mu_s(x) <= min mu_s + 2 C_s
//! ```
//!
//! Nothing is pooled over epochs, and an epoch that is not over eliminates nothing. The regret is
//! O~(sqrt(KT) + (m + M) K). Its constants, n_0, growth and those of C_s, are choices of this program within that bound.

mod instance;
mod rules;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use polo_run::{
    Problem, Result, card::MethodCard, config::Settings, metrics::Metrics, process::Process, seed::Seeds,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use instance::{Arm, Instance, Noise, Recipe, Shape, Weights};
pub use rules::{Elimination, Exp3, Learner, Rule, Ucb1};

use crate::{
    settings::{MethodSettings, Training},
    train::{load_state, make_folder, save_state},
};

/// Who plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Player {
    /// Successive elimination with burn-in: the method.
    #[default]
    Elimination,
    /// One epoch of it, then the best arm to the end.
    ExploreThenCommit,
    /// UCB1 on the losses as they come.
    Ucb1,
    /// EXP3 on the losses as they come.
    Exp3,
    /// EXP3 over blocks in which one arm is played (Arora, Dekel, Tewari 2012).
    BatchedExp3,
    /// Elimination over all K^m sequences of m pulls, each repeated: right for every bandit with memory, and affordable for
    /// few arms and rounds of memory alone.
    Sequences,
}

/// Settings of `polo train weighted-tallying-bandits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WeightedTallyingBandits {
    /// Who plays: `elimination` (the method), or a rule that it is compared with: `explore-then-commit`, `ucb1`, `exp3`,
    /// `batched-exp3`, `sequences`.
    pub player: Player,
    /// T, the rounds of the game.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub rounds: u64,
    /// M, a bound on the memory: losses that are thrown away at the start of each visit. Unset by default: the memory of the
    /// problem, which only a simulation knows. 0 throws none away.
    pub memory_bound: Option<u64>,
    /// n_0, losses of an arm that count in the first epoch. Default of this program.
    #[schemars(range(min = 1))]
    pub first_epoch: u64,
    /// By what n_s grows from epoch to epoch. Default of this program.
    #[schemars(range(max = 1000.0), extend("exclusiveMinimum" = 1.0))]
    pub growth: f64,
    /// delta, the probability that a radius may fail. Unset by default: 1 / T, as in the paper.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub confidence: Option<f64>,
    /// sigma, the sub-Gaussian constant of the noise that the radius of `elimination` uses. Unset by default: that of the
    /// problem; 0.5 is safe for all losses in [0, 1].
    #[schemars(range(min = 0.0))]
    pub noise_scale: Option<f64>,
    /// Scale of the radius of `ucb1`, sqrt(2 ln t / n).
    #[schemars(range(min = 0.0))]
    pub exploration: f64,
    /// Step size of `exp3` and `batched-exp3`. Unset by default: sqrt(2 ln K / (K decisions)).
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: Option<f64>,
    /// Losses of each arm that `explore-then-commit` counts. Unset by default: (T / K)^(2/3) (ln T)^(1/3).
    #[schemars(range(min = 1))]
    pub burst: Option<u64>,
    /// Your own arms: a JSON file `{"arms": [{"name": "a", "weights": [1, 0.5], "tallies": [0, 1.5], "losses": [0.9, 0.2]},
    /// ...], "noise": {"gaussian": 0.1}}`. Losses in [0, 1] are given at rising tallies, with straight lines between; noise may
    /// be "bernoulli"; "counts_current" is true unless given. Unset by default: arms are drawn as the keys below say.
    pub file: Option<PathBuf>,
    /// How drawn arms change as they are played: `repeated-exposure`, `improving`, `rotting` or `non-monotone`.
    pub shape: Shape,
    /// How much earlier pulls count: `uniform`, `geometric` (decay^(j-1)) or `power-law` (j^-decay), scaled to a sum of 1.
    pub weights: Weights,
    /// The constant of `geometric` and `power-law` weights.
    #[schemars(range(max = 100.0), extend("exclusiveMinimum" = 0.0))]
    pub decay: f64,
    /// Whether every arm has weights of its own: they fall faster or more slowly; uniform ones have a memory of their own.
    pub own_weights: bool,
    /// K, drawn arms.
    #[schemars(range(min = 2, max = 10_000))]
    pub arms: usize,
    /// m, rounds that drawn arms remember.
    #[schemars(range(min = 1, max = 100_000))]
    pub memory: usize,
    /// Whether a pull is part of its own tally.
    pub counts_current: bool,
    /// Standard deviation of the normal noise on what is seen of drawn arms; regret counts expected losses.
    #[schemars(range(min = 0.0))]
    pub noise: f64,
    /// Whether losses of drawn arms are seen as 0 or 1, with the expected loss as the probability of 1, in place of normal noise.
    pub bernoulli: bool,
}

impl Default for WeightedTallyingBandits {
    fn default() -> Self {
        Self {
            player: Player::Elimination,
            rounds: 20_000,
            memory_bound: None,
            first_epoch: 16,
            growth: 4.0,
            confidence: None,
            noise_scale: None,
            exploration: 1.0,
            learning_rate: None,
            burst: None,
            file: None,
            shape: Shape::RepeatedExposure,
            weights: Weights::Geometric,
            decay: 0.9,
            own_weights: false,
            arms: 5,
            memory: 20,
            counts_current: true,
            noise: 0.1,
            bernoulli: false,
        }
    }
}

/// Sequences that `sequences` can still tell apart.
const MOST_SEQUENCES: usize = 4096;

impl Settings for WeightedTallyingBandits {
    fn check(&self) -> Result<()> {
        if self.weights == Weights::Geometric && self.decay > 1.0 {
            return Err(Problem::usage("geometric weights that grow with age forget the present")
                .place("method.decay")
                .hint("give a decay of at most 1, or method.weights = \"power-law\""));
        }
        Ok(())
    }
}

impl WeightedTallyingBandits {
    /// The arms: those of the file, or drawn from the run's seed.
    ///
    /// # Errors
    /// Those of [`Instance::read`].
    pub fn instance(&self, seeds: &Seeds) -> Result<Instance> {
        if let Some(path) = &self.file {
            return Instance::read(path);
        }
        let noise = if self.bernoulli { Noise::Bernoulli } else { Noise::Gaussian(self.noise) };
        let recipe = Recipe {
            shape: self.shape,
            weights: self.weights,
            decay: self.decay,
            own_weights: self.own_weights,
            arms: self.arms,
            memory: self.memory,
            counts_current: self.counts_current,
            noise,
        };
        Ok(recipe.draw(seeds))
    }

    fn bound(&self, instance: &Instance) -> u64 {
        self.memory_bound.unwrap_or(instance.memory() as u64)
    }

    /// What a reader must know before the result means anything.
    fn warnings(&self, instance: &Instance) -> Vec<String> {
        let mut warnings = Vec::new();
        let (bound, past) = (self.bound(instance), instance.past());
        let burns = matches!(self.player, Player::Elimination | Player::ExploreThenCommit);
        if burns && bound < past as u64 {
            warnings.push(format!(
                "method.memory_bound is {bound}, but arms need {past} pulls to warm up: no guarantee holds"
            ));
        }
        if instance.repeated_exposure_optimum().is_none() {
            warnings.push(
                "no arm is best when played all the time: no guarantee holds, and regret is counted against the best single arm"
                    .into(),
            );
        }
        warnings
    }

    /// The player before its first pull.
    ///
    /// # Errors
    /// Too many sequences.
    pub fn learner(&self, instance: &Instance) -> Result<Learner> {
        let (arms, rounds) = (instance.arms.len(), self.rounds as f64);
        let bound = self.bound(instance);
        let width = |options: usize, sigma: f64| {
            let epochs = (rounds.ln() / self.growth.ln()).ceil().max(1.0);
            let delta = self.confidence.unwrap_or(1.0 / rounds);
            sigma * (2.0 * (2.0 * options as f64 * epochs / delta).ln()).sqrt()
        };
        let sigma = self.noise_scale.unwrap_or(instance.noise.scale());
        let exp3 = |block: usize| {
            let decisions = (rounds / block as f64).max(1.0);
            let usual = (2.0 * (arms as f64).ln() / (arms as f64 * decisions)).sqrt();
            Learner::new(Rule::Exp3(Exp3::new(arms, self.learning_rate.unwrap_or(usual))), block, None)
        };
        Ok(match self.player {
            Player::Elimination => {
                let rule = Elimination::new(arms, bound, self.first_epoch, self.growth, width(arms, sigma));
                Learner::new(Rule::Elimination(rule), 1, None)
            }
            Player::ExploreThenCommit => {
                let usual = (rounds / arms as f64).powf(2.0 / 3.0) * rounds.ln().cbrt();
                let burst = self.burst.unwrap_or((usual.ceil() as u64).max(1));
                Learner::new(Rule::Elimination(Elimination::committing(arms, bound, burst)), 1, None)
            }
            Player::Ucb1 => Learner::new(Rule::Ucb1(Ucb1::new(arms, self.exploration)), 1, None),
            Player::Exp3 => exp3(1),
            Player::BatchedExp3 => exp3((bound as f64).max(rounds.cbrt()).round() as usize),
            Player::Sequences => {
                let block = (bound as usize).max(1);
                let options = u32::try_from(block).ok().and_then(|block| arms.checked_pow(block));
                let options = options.filter(|options| *options <= MOST_SEQUENCES).ok_or_else(|| {
                    Problem::usage(format!("there are {arms}^{block} sequences, more than {MOST_SEQUENCES}"))
                        .place("method.player")
                        .hint("take fewer arms or less memory, or the player \"elimination\"")
                })?;
                // Of the mean of a block. One repetition warms it up.
                let sigma = sigma / (block as f64).sqrt();
                let rule = Elimination::new(options, 1, self.first_epoch, self.growth, width(options, sigma));
                Learner::new(Rule::Elimination(rule), block, Some(arms))
            }
        })
    }

    /// A game before its first round.
    ///
    /// # Errors
    /// Those of [`Self::instance`] and [`Self::learner`].
    pub fn game(&self, seed: u64) -> Result<Game> {
        let seeds = Seeds::new(seed);
        let instance = self.instance(&seeds)?;
        let learner = self.learner(&instance)?;
        let best = instance.repeated_exposure_optimum().unwrap_or(instance.best_always(self.rounds));
        let pulls = vec![0; instance.arms.len()];
        let state = State { round: 0, history: Vec::new(), incurred: 0.0, pulls, learner };
        Ok(Game { rounds: self.rounds, instance, best, seeds, state })
    }
}

/// A player and its bandit.
#[derive(Clone, Debug)]
pub struct Game {
    rounds: u64,
    /// The bandit.
    pub instance: Instance,
    /// The arm that regret is counted against.
    pub best: usize,
    seeds: Seeds,
    state: State,
}

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    round: u64,
    /// The last pulls, the newest at the end.
    history: Vec<usize>,
    /// Sum of expected losses.
    incurred: f64,
    pulls: Vec<u64>,
    learner: Learner,
}

impl Game {
    /// Plays a round: the arm, its expected loss, and the loss that was seen.
    pub fn play(&mut self) -> (usize, f64, f64) {
        let State { round, history, incurred, pulls, learner } = &mut self.state;
        let arm = learner.choose(&self.seeds);
        let loss = self.instance.loss(history, arm);
        let seen = self.instance.observe(loss, *round, &self.seeds);
        learner.observe(seen);
        history.push(arm);
        if history.len() > self.instance.past() {
            history.remove(0);
        }
        *round += 1;
        *incurred += loss;
        pulls[arm] += 1;
        (arm, loss, seen)
    }

    /// Plays to the end.
    pub fn play_out(&mut self) {
        while self.state.round < self.rounds {
            self.play();
        }
    }

    /// Expected losses so far less those of playing the best arm all the time.
    pub fn policy_regret(&self) -> f64 {
        self.state.incurred - self.instance.always(self.best, self.state.round)
    }

    /// Expected losses so far less those of the best sequence of pulls; none where that is too much to compute.
    pub fn exact_policy_regret(&self) -> Option<f64> {
        Some(self.state.incurred - self.instance.optimum(self.state.round)?)
    }

    /// Arms that the player has not dropped; none for rules that drop no single arms.
    pub fn left(&self) -> Option<&[usize]> {
        self.state.learner.left().filter(|left| left.iter().all(|arm| *arm < self.instance.arms.len()))
    }
}

impl Process for Game {
    fn done(&self) -> u64 {
        self.state.round
    }

    fn total(&self) -> u64 {
        self.rounds
    }

    fn go_on(&mut self) -> Result<Metrics> {
        let (_, loss, seen) = self.play();
        let regret = self.policy_regret();
        let mut metrics: Metrics =
            [("losses/expected", loss), ("losses/seen", seen), ("regret/policy", regret)]
                .into_iter()
                .collect();
        if let Some(left) = self.state.learner.left() {
            metrics.set("charts/options_left", left.len() as f64);
        }
        Ok(metrics)
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let regret = self.policy_regret();
        let mean = self.state.incurred / self.state.round.max(1) as f64;
        let mut metrics: Metrics = [("regret/policy", regret), ("losses/mean", mean)].into_iter().collect();
        if let Some(exact) = self.exact_policy_regret() {
            metrics.set("regret/exact", exact);
        }
        let line = format!("policy regret {regret:.1}, mean loss {mean:.4}");
        Ok(Some((metrics, line)))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        save_state(&folder.join("state.json"), &self.state)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.state = load_state(&folder.join("state.json"))?;
        Ok(())
    }

    fn finish(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        let name = |arm: usize| self.instance.arms[arm].name.clone();
        let pulls = &self.state.pulls;
        let decision = Decision {
            play: (0..pulls.len()).max_by_key(|arm| pulls[*arm]).map(name).unwrap_or_default(),
            left: self.left().map(|left| left.iter().map(|arm| name(*arm)).collect()),
            pulls: pulls.iter().enumerate().map(|(arm, pulls)| (name(arm), *pulls)).collect(),
            rounds: self.state.round,
            loss: self.state.incurred,
            policy_regret: self.policy_regret(),
            exact_policy_regret: self.exact_policy_regret(),
        };
        save_state(&path.join("decision.json"), &decision)?;
        save_state(&path.join("arms.json"), &self.instance)
    }
}

/// `decision.json`: what the game ended with.
#[derive(Serialize)]
struct Decision {
    /// The arm played most.
    play: String,
    /// Arms that were not dropped.
    left: Option<Vec<String>>,
    pulls: BTreeMap<String, u64>,
    rounds: u64,
    loss: f64,
    policy_regret: f64,
    exact_policy_regret: Option<f64>,
}

impl MethodSettings for WeightedTallyingBandits {
    const SLUG: &'static str = CARD.slug;
    const UNIT: &'static str = "rounds";
    const WATCHED: (&'static str, &'static str) = ("regret", "regret/policy");

    fn process(&self, training: &Training) -> Result<Box<dyn Process>> {
        let game = self.game(training.seed)?;
        self.warnings(&game.instance).iter().for_each(|warning| eprintln!("warning: {warning}"));
        Ok(Box::new(game))
    }

    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>> {
        let game = self.game(training.seed)?;
        let instance = &game.instance;
        let mut lines = vec![
            ("arms".into(), instance.arms.len().to_string()),
            ("memory m".into(), instance.memory().to_string()),
            ("memory bound M".into(), self.bound(instance).to_string()),
            ("rounds".into(), self.rounds.to_string()),
            ("best arm, always".into(), instance.arms[game.best].name.clone()),
            ("its expected loss".into(), format!("{:.2}", instance.always(game.best, self.rounds))),
        ];
        if let Rule::Elimination(rule) = &game.state.learner.rule {
            let visit = format!("{} + {} pulls", rule.burn_in, rule.visit());
            lines.push(("first visit".into(), visit));
        }
        lines.extend(self.warnings(instance).into_iter().map(|warning| ("warning".into(), warning)));
        Ok(lines)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "weighted-tallying-bandits",
    title: "Weighted tallying bandits by successive elimination with burn-in",
    paper: "Malik, Igoe, Li, Singh: Weighted Tallying Bandits: Overcoming Intractability via Repeated Exposure Optimality",
    arxiv: "2305.02955",
    year: 2023,
    family: super::FAMILY,
    summary: "finds the arm that is best once it is played for long, by visits whose first losses are thrown away",
    claim: "the complete policy regret of successive elimination with burn-in stays flat in T once arms are eliminated and grows \
            linearly with the memory bound, where UCB1 and EXP3 lock on arms that look good when fresh",
    equation: "loss_t = h_x(y_t) + noise,   y_t = sum_{j=1..m} w_j 1{x_{t-j+1} = x_t}\n\
               epoch s: every arm left M + n_s times in a row, n_s = n_0 growth^(s-1)\n\
               keep x if mu_s(x) <= min mu_s + 2 C_s,   C_s = sigma sqrt(2 log(2 K S / delta) / n_s)\n\
               regret_T = sum_t E loss_t(x_1 .. x_t) - min over all sequences x' of sum_t E loss_t(x'_1 .. x'_t)",
    symbols: &[
        ("x_t, y_t", "the arm of round t, and its tally: how often it was played lately, by weight"),
        (
            "h_x, w_j",
            "expected loss of an arm at a tally, in [0, 1], and weight of a pull j - 1 rounds ago; both unknown",
        ),
        ("m, M", "rounds that matter, unknown, and a bound on them (method.memory_bound)"),
        ("mu_s(x)", "mean of the last n_s losses of the visit to x in epoch s"),
        ("S, K, T", "ceil(log_growth T) epochs at most, arms, rounds"),
        ("sigma", "sub-Gaussian constant of the noise (method.noise_scale); 1/2 for losses in [0, 1]"),
        ("delta, n_0, growth", "method.confidence, method.first_epoch, method.growth"),
    ],
    metrics: &[
        ("regret/policy", "expected losses so far less those of the best arm played all the time"),
        (
            "regret/exact",
            "the same against the best sequence of all, where few arms and little memory allow it",
        ),
        ("losses/expected", "expected loss of the round"),
        ("losses/seen", "loss of the round with its noise"),
        ("losses/mean", "mean expected loss so far"),
        ("charts/options_left", "arms (sequences for `sequences`) not eliminated"),
    ],
    reach_for: "arms that get better or worse by being played, as exercises, shows or habits do, when one of them is best to stay with",
    avoid_when: "the best plan alternates between arms that recover (only `sequences` finds such, for tiny problems), or losses \
                 do not depend on the past (m = 1: any ordinary bandit will do)",
    failure_signs: &[
        "a warning that M is below the memory: raise method.memory_bound, whose cost is linear",
        "regret keeps growing with one option left: the arm is the wrong one; raise method.memory_bound or method.noise_scale",
        "charts/options_left stays above 1 to the end: gaps are smaller than the noise can show in T rounds, which is fine",
    ],
    variants: &[
        ("no burn-in", "method.memory_bound = 0"),
        ("unweighted tallying bandit", "method.weights = \"uniform\""),
        ("power-law weights", "method.weights = \"power-law\", method.decay = 1"),
        ("weights of every arm's own", "method.own_weights = true"),
        ("arms that improve, rot or turn", "method.shape = \"improving\", \"rotting\", \"non-monotone\""),
        (
            "baselines",
            "method.player = \"ucb1\", \"exp3\", \"batched-exp3\", \"explore-then-commit\", \"sequences\"",
        ),
    ],
};

#[cfg(test)]
#[path = "weighted_tallying_bandits_tests.rs"]
mod tests;
