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
//! Batch 0 is played uniformly. Of generations that somebody logged, none is played: f_g is judged on the next batch of the
//! log, which it has not learnt from, and V_g is the doubly robust estimate there. No row is weighted unless a setting says so: that oracles need no importance weights is what
//! is on trial. The schemes of exploration are those of [`super::squarecb`], [`super::fastcb`], [`super::softmax`] and
//! [`super::epsilon_greedy`], at costs -f (losses 1 - f). Two of them leave out actions that cannot plausibly be the best
//! (RegCB: Foster, Agarwal, Dudik, Luo, Schapire 2018, arXiv 1803.01799; AdaCB: Foster, Rakhlin, Simchi-Levi, Xu 2020, arXiv
//! 2010.03104), by what the oracle says of its certainty:
//!
//! ```text
//! S     = {a: high(a) >= max low},   p = uniform on S (regcb), or squarecb's on S (adacb)
//! ```

mod generations;
mod logs;
mod oracle;
mod payments;
mod report;

use std::path::PathBuf;

use polo_run::{Problem, Result, card::MethodCard, config::Settings, process::Process, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use generations::Source;
pub use generations::{Batch, Generations};
pub use oracle::{Features, Fitting, Learner, Oracle};
pub use payments::{Payments, Requests, Simulation};
pub use report::{Calibration, autocorrelation, entropy, oscillation};

use super::{epsilon_greedy::EpsilonGreedy, fastcb::FastCb, softmax::Softmax, squarecb::SquareCb};
use crate::{
    explore::Explorer,
    settings::{MethodSettings, Training},
    trees::TreesSettings,
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
    /// RegCB: every action alike that may plausibly be the best, and no other.
    Regcb,
    /// AdaCB: `squarecb` among the actions that may plausibly be the best.
    Adacb,
}

impl Exploration {
    fn eliminates(self) -> bool {
        matches!(self, Self::Regcb | Self::Adacb)
    }
}

/// Settings of `polo train adyen-bandits`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdyenBandits {
    /// How actions are explored: `squarecb`, `fastcb`, `softmax`, `epsilon-greedy`, `greedy` (the first of equals),
    /// `uniform`, or among those alone that may plausibly be the best, `regcb` (uniformly) and `adacb` (as `squarecb`).
    pub exploration: Exploration,
    /// How many actions survive as plausible with `regcb` and `adacb`: an oracle is, whose log loss on the window is above
    /// the least by no more than this times ln(K rows), K all actions. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub mellowness: f64,
    /// gamma of `squarecb`, `fastcb` and `adacb` for one row: the larger, the less is explored. Default from this program's tests;
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
    /// Your own log: a CSV file with the columns `generation` (0, 1, ..), `action` (0, 1, ..), `reward` (in [0, 1]),
    /// `propensity`, perhaps `admitted` (the request's actions, with spaces between; all unless given), and numbers of the
    /// context in all others. Unset by default: payments are simulated, and played, as the keys below say.
    pub log: Option<PathBuf>,
    /// Generations after batch 0. Of a log: all that it has.
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
    /// What predicts rewards: `logistic`, a regression for each action, or `trees`, boosted trees of context and action.
    pub oracle: Learner,
    /// How trees are grown.
    pub trees: TreesSettings,
    /// What the oracle sees of a context: `lin`, or `full` with all products of two of its numbers, which the simulated
    /// rewards are made of.
    pub features: Features,
    /// Pull of each coefficient of `logistic`, the constant too, to the centre of the fit.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub penalty: f64,
    /// Weigh rows by inverse propensity, 1 / (K p) (1 for what is played uniformly), and at most this. Unset by default: all
    /// rows alike.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub importance_clip: Option<f64>,
    /// Weigh rows so that those with reward 0 and those with reward 1 weigh the same in all. Predictions are then no
    /// probabilities of a reward.
    pub balance_classes: bool,
    /// Share of the previous oracle in the centre of a `logistic` fit (warm start); it counts with `penalty`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warm_start: f64,
    /// Rows below which an action is called starved in a segment, the sign of a context's first number.
    pub least_rows: usize,
    /// Numbers of a simulated context.
    #[schemars(range(min = 1, max = 100))]
    pub context: usize,
    /// Actions of the simulated stream.
    #[schemars(range(min = 2, max = 1000))]
    pub actions: usize,
    /// Probability with which a simulated request admits an action; it admits one at least.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub availability: f64,
    /// How much of the simulated stream changes from generation to generation, 0 (nothing) to 1 (all): of the variance of
    /// each coefficient, the square of this is new.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub drift: f64,
    /// Simulated requests on which the value of policies is computed; they are never played.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub fresh: usize,
}

impl Default for AdyenBandits {
    fn default() -> Self {
        Self {
            exploration: Exploration::Squarecb,
            mellowness: 0.1,
            gamma_scale: 500.0,
            gamma_exponent: 0.0,
            gamma_growth: 1.0,
            lambda: 20.0,
            epsilon: 0.05,
            log: None,
            generations: 8,
            batch: 3000,
            window: 1,
            delay: 0,
            holdout: 0.0,
            oracle: Learner::Logistic,
            trees: TreesSettings::default(),
            features: Features::Lin,
            penalty: 1.0,
            importance_clip: None,
            balance_classes: false,
            warm_start: 0.0,
            least_rows: 30,
            context: 6,
            actions: 8,
            availability: 0.7,
            drift: 0.0,
            fresh: 4000,
        }
    }
}

/// A Newton step takes the square of them in memory, and their cube in time.
const MOST_COEFFICIENTS: usize = 6000;
/// Where that square is kept for every action.
const MOST_KEPT: usize = 500;

impl Settings for AdyenBandits {
    fn check(&self) -> Result<()> {
        if self.oracle == Learner::Trees {
            if self.exploration.eliminates() {
                return Err(Problem::usage("trees do not say which rewards are plausible")
                    .place("method.exploration")
                    .hint("explore with `squarecb`, or take the oracle `logistic`"));
            }
            if self.warm_start > 0.0 {
                return Err(Problem::usage("trees are grown from scratch, without a warm start")
                    .place("method.warm_start"));
            }
            self.trees.check()?;
        }
        if self.log.is_none() { self.check_delay(self.generations) } else { Ok(()) }
    }
}

impl AdyenBandits {
    fn check_delay(&self, generations: u64) -> Result<()> {
        if self.delay >= generations {
            return Err(Problem::usage(format!(
                "no reward comes before the last of {generations} generations"
            ))
            .place("method.delay")
            .hint("give a shorter delay"));
        }
        Ok(())
    }

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
            Exploration::Squarecb | Exploration::Adacb => {
                Box::new(SquareCb { gamma_scale, gamma_exponent, epsilon, ..SquareCb::default() })
            }
            Exploration::Fastcb => Box::new(FastCb { gamma_scale, gamma_exponent, shift: 1.0, epsilon }),
            Exploration::Softmax => Box::new(Softmax { lambda: self.lambda, epsilon }),
            Exploration::EpsilonGreedy => greedy(self.epsilon),
            Exploration::Greedy => greedy(0.0),
            Exploration::Uniform | Exploration::Regcb => greedy(1.0),
        }
    }

    fn fitting(&self) -> Fitting {
        Fitting {
            features: self.features,
            penalty: self.penalty,
            importance_clip: self.importance_clip,
            balance_classes: self.balance_classes,
            warm_start: self.warm_start,
            trees: (self.oracle == Learner::Trees).then(|| self.trees.clone()),
            mellowness: self.exploration.eliminates().then_some(self.mellowness),
        }
    }

    /// Generations before the first.
    ///
    /// # Errors
    /// A log that cannot be used.
    pub fn generations(&self, seed: u64) -> Result<Generations> {
        let seeds = Seeds::new(seed);
        let source = if let Some(path) = &self.log {
            let (batches, actions) = logs::read(path)?;
            self.check_delay(batches.len() as u64 - 1)?;
            Source::Logged { batches, actions }
        } else {
            let payments = Payments::draw(self.context, self.actions, self.availability, &seeds);
            Source::Simulated(Simulation::new(payments, self.fresh, &seeds))
        };
        let generations = Generations::new(self.clone(), seeds, source);
        let size = self.features.size(generations.width());
        let most = if self.exploration.eliminates() { MOST_KEPT } else { MOST_COEFFICIENTS };
        if self.oracle == Learner::Logistic && size > most {
            return Err(Problem::usage(format!("{size} coefficients per action, more than {most}"))
                .place("method.features")
                .hint("take `lin` features, or fewer numbers of context"));
        }
        Ok(generations)
    }
}

impl MethodSettings for AdyenBandits {
    const SLUG: &'static str = CARD.slug;
    const UNIT: &'static str = "generations";
    const WATCHED: (&'static str, &'static str) = ("value", "value/greedy");

    fn process(&self, training: &Training) -> Result<Box<dyn Process>> {
        Ok(Box::new(self.generations(training.seed)?))
    }

    fn plan(&self, training: &Training) -> Result<Vec<(String, String)>> {
        let generations = self.generations(training.seed)?;
        let memory = if self.window == 0 { "all batches".into() } else { format!("{} batches", self.window) };
        let first = generations.requests(0);
        let size = self.features.size(first.width);
        let mut lines = vec![
            ("generations".into(), generations.total().to_string()),
            ("requests of batch 0".into(), first.len().to_string()),
            ("memory".into(), memory),
            match self.oracle {
                Learner::Logistic => {
                    ("coefficients".into(), format!("{} actions x {size}", generations.actions()))
                }
                Learner::Trees => {
                    let columns = size - 1 + generations.actions();
                    ("trees".into(), format!("{} on {columns} columns", self.trees.trees))
                }
            },
        ];
        if let Some(simulation) = generations.simulation() {
            lines.push(("value, best".into(), format!("{:.3}", simulation.optimal)));
            lines.push(("value, uniform".into(), format!("{:.3}", simulation.uniform)));
        }
        Ok(lines)
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
        (
            "f_g, theta",
            "predicted probability of a reward, by a logistic regression for each action, or by trees",
        ),
        ("mu", "logit of the window's positive rate for the constant, 0 elsewhere"),
        ("w, gamma", "method.window, and method.gamma_scale rows^gamma_exponent gamma_growth^(g-1)"),
        ("O", "oscillation index; that of the uniform policy is what sampling alone makes of it"),
    ],
    metrics: &[
        (
            "value/greedy",
            "expected reward of playing the oracle's best, on fresh requests; of a log, off_policy/dr",
        ),
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
            "inverse propensity estimate of value/greedy, from the newest batch that f has learnt (optimistic); of a log, from the next, not learnt yet",
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
        ("your own logged generations", "method.log = \"log.csv\""),
        (
            "schemes",
            "method.exploration = \"fastcb\", \"softmax\", \"epsilon-greedy\", \"greedy\", \"uniform\"",
        ),
        (
            "hopeless actions are never played",
            "method.exploration = \"regcb\", or \"adacb\" with gamma among the others; method.mellowness = 0.1",
        ),
        ("boosted trees", "method.oracle = \"trees\""),
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
