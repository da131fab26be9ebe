//! Bandits whose losses depend on how often an arm was played lately: their arms, the exact loss of every sequence of
//! pulls, and what the best sequence loses.

use std::{collections::HashSet, path::Path};

use polo_run::{
    Problem, Result,
    seed::{Seeds, unit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    draw,
    train::{read_text, wrong_json},
};

/// One arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// What it is called.
    pub name: String,
    /// w_1 .. w_m, >= 0: what a pull this many rounds ago adds to the tally.
    pub weights: Vec<f64>,
    /// Tallies at which the loss is given, rising. Between two of them the loss is a straight line; outside it stays.
    pub tallies: Vec<f64>,
    /// h, the expected loss at these tallies, in [0, 1].
    pub losses: Vec<f64>,
}

impl Arm {
    /// h(y): the expected loss at a tally.
    pub fn loss(&self, tally: f64) -> f64 {
        let above = self.tallies.partition_point(|known| *known < tally);
        if above == 0 {
            return self.losses[0];
        }
        if above == self.tallies.len() {
            return self.losses[above - 1];
        }
        let (low, high) = (self.tallies[above - 1], self.tallies[above]);
        let share = (tally - low) / (high - low);
        self.losses[above - 1] + share * (self.losses[above] - self.losses[above - 1])
    }

    /// s: the loss once the arm has been played for long.
    pub fn saturated(&self) -> f64 {
        self.loss(self.weights.iter().sum())
    }

    /// The least loss between the lowest tally a pull can meet and the highest.
    fn least(&self, counts_current: bool) -> f64 {
        let low = if counts_current { self.weights[0] } else { 0.0 };
        let high: f64 = self.weights.iter().sum();
        let points = self.tallies.iter().copied().filter(|tally| (low..=high).contains(tally));
        points.chain([low, high]).map(|tally| self.loss(tally)).fold(f64::INFINITY, f64::min)
    }
}

/// What the learner sees of an expected loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// The loss plus a normal number with this standard deviation.
    Gaussian(f64),
    /// 1 with the loss as its probability, otherwise 0.
    Bernoulli,
}

impl Noise {
    /// The constant of a sub-Gaussian tail; 1/2 for anything in [0, 1] (Hoeffding).
    pub fn scale(self) -> f64 {
        match self {
            Noise::Gaussian(sigma) => sigma,
            Noise::Bernoulli => 0.5,
        }
    }
}

/// A weighted tallying bandit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The arms, two at least.
    pub arms: Vec<Arm>,
    /// Whether the pull itself is part of its tally, with weight w_1. If not, w_1 is that of the round before.
    #[serde(default = "yes")]
    pub counts_current: bool,
    /// What the learner sees.
    pub noise: Noise,
}

fn yes() -> bool {
    true
}

/// State-action pairs times rounds that the exact optimum may cost.
const MOST_WORK: usize = 20_000_000;

impl Instance {
    /// Reads arms from JSON: `{"arms": [{"name", "weights", "tallies", "losses"}, ..], "noise": {"gaussian": 0.1}}`, noise
    /// also `"bernoulli"`, and `"counts_current"`, true unless given.
    ///
    /// # Errors
    /// A file that cannot be read, lacks a key or has an unknown one; fewer than two arms, two of one name, lists that are
    /// empty or of different lengths, tallies that do not rise, losses outside [0, 1], weights below 0 or not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let instance: Self = serde_json::from_str(&text).map_err(|error| {
            wrong_json("these arms cannot be used", path, 0, &error)
                .hint("an arm has name, weights, tallies and losses; beside the arms stands noise")
        })?;
        instance.check().map_err(|message| Problem::input(message).place(path.display().to_string()))?;
        Ok(instance)
    }

    fn check(&self) -> Result<(), String> {
        if self.arms.len() < 2 {
            return Err("a bandit has two arms at least".into());
        }
        let mut names = HashSet::new();
        for arm in &self.arms {
            let name = &arm.name;
            if !names.insert(name) {
                return Err(format!("two arms are called {name:?}"));
            }
            if arm.weights.is_empty() || arm.weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
                return Err(format!("the weights of arm {name:?} are not numbers >= 0"));
            }
            if arm.tallies.is_empty() || arm.tallies.len() != arm.losses.len() {
                return Err(format!(
                    "arm {name:?} has {} tallies and {} losses",
                    arm.tallies.len(),
                    arm.losses.len()
                ));
            }
            if !arm.tallies.iter().all(|tally| tally.is_finite())
                || arm.tallies.windows(2).any(|pair| pair[0] >= pair[1])
            {
                return Err(format!("the tallies of arm {name:?} do not rise"));
            }
            if !arm.losses.iter().all(|loss| (0.0..=1.0).contains(loss)) {
                return Err(format!("the losses of arm {name:?} are not all in [0, 1]"));
            }
        }
        match self.noise {
            Noise::Gaussian(sigma) if !(sigma.is_finite() && sigma >= 0.0) => {
                Err("the deviation of the noise is not a number >= 0".into())
            }
            _ => Ok(()),
        }
    }

    /// m: rounds that a tally looks at.
    pub fn memory(&self) -> usize {
        self.arms.iter().map(|arm| arm.weights.len()).max().unwrap_or(1)
    }

    /// Pulls before the current one that a loss depends on; as many pulls of an arm warm it up.
    pub fn past(&self) -> usize {
        self.memory() - usize::from(self.counts_current)
    }

    /// y: the tally of a pull of `arm` after `history`, whose last entry is the newest.
    pub fn tally(&self, history: &[usize], arm: usize) -> f64 {
        let weights = &self.arms[arm].weights;
        let (own, earlier) =
            if self.counts_current { (weights[0], &weights[1..]) } else { (0.0, &weights[..]) };
        let before = history.iter().rev().zip(earlier).filter(|(pulled, _)| **pulled == arm);
        own + before.map(|(_, weight)| weight).sum::<f64>()
    }

    /// The expected loss of a pull of `arm` after `history`.
    pub fn loss(&self, history: &[usize], arm: usize) -> f64 {
        self.arms[arm].loss(self.tally(history, arm))
    }

    /// What the learner sees in a round of an expected loss.
    pub fn observe(&self, loss: f64, round: u64, seeds: &Seeds) -> f64 {
        match self.noise {
            Noise::Gaussian(0.0) => loss,
            Noise::Gaussian(sigma) => loss + sigma * draw::normal(&mut seeds.rng("noise", round)),
            Noise::Bernoulli => f64::from(u8::from(unit(&mut seeds.rng("noise", round)) < loss)),
        }
    }

    /// The arm that is to be played for ever: its saturated loss is at most every loss that any arm can have. None where
    /// repeated exposure is not optimal.
    pub fn repeated_exposure_optimum(&self) -> Option<usize> {
        let best = self.least_saturated();
        let least = self.arms.iter().map(|arm| arm.least(self.counts_current)).fold(f64::INFINITY, f64::min);
        (self.arms[best].saturated() <= least + 1e-12).then_some(best)
    }

    fn least_saturated(&self) -> usize {
        let saturated = |&arm: &usize| self.arms[arm].saturated();
        (0..self.arms.len()).min_by(|a, b| saturated(a).total_cmp(&saturated(b))).unwrap_or(0)
    }

    /// The expected loss of playing one arm all the time.
    pub fn always(&self, arm: usize, rounds: u64) -> f64 {
        let (weights, fresh) = (&self.arms[arm].weights, rounds.min(self.past() as u64));
        let mut tally = if self.counts_current { weights[0] } else { 0.0 };
        let mut warming = 0.0;
        for weight in weights.iter().skip(usize::from(self.counts_current)).take(fresh as usize) {
            warming += self.arms[arm].loss(tally);
            tally += weight;
        }
        let short = fresh.saturating_sub((weights.len() - usize::from(self.counts_current)) as u64);
        warming + (rounds - fresh + short) as f64 * self.arms[arm].saturated()
    }

    /// The arm that loses least when it is played all the time.
    pub fn best_always(&self, rounds: u64) -> usize {
        let total = |&arm: &usize| self.always(arm, rounds);
        (0..self.arms.len()).min_by(|a, b| total(a).total_cmp(&total(b))).unwrap_or(0)
    }

    /// The least expected loss of any sequence of pulls, by dynamic programming over what a loss depends on. None where
    /// that is too much: there are (K + 1)^(m - 1) states.
    pub fn optimum(&self, rounds: u64) -> Option<f64> {
        let (arms, past) = (self.arms.len(), self.past());
        let base = arms + 1;
        let states = base.checked_pow(u32::try_from(past).ok()?)?;
        let work = states.checked_mul(arms)?.checked_mul(usize::try_from(rounds).ok()?)?;
        if work > MOST_WORK {
            return None;
        }
        // A state's digits are the pulls before, the newest the last digit; 0 stands for none.
        let mut losses = Vec::with_capacity(states * arms);
        let none = usize::MAX;
        for state in 0..states {
            let digit = |place: usize| (state / base.pow((past - 1 - place) as u32)) % base;
            let history: Vec<usize> =
                (0..past).map(|place| digit(place).checked_sub(1).unwrap_or(none)).collect();
            losses.extend((0..arms).map(|arm| self.loss(&history, arm)));
        }
        let mut values = vec![0.0; states];
        for _ in 0..rounds {
            let cost = |state: usize, arm: usize| {
                losses[state * arms + arm] + values[(state * base + arm + 1) % states]
            };
            values = (0..states)
                .map(|state| (0..arms).map(|arm| cost(state, arm)).fold(f64::INFINITY, f64::min))
                .collect();
        }
        values.first().copied()
    }
}

/// How arms change as they are played; in each the best arm's saturated loss is 0.2, at most every loss there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// The best arm is the worst one when fresh (0.9) and improves; the others start at 0.3 to 0.5 and end at 0.5 to 0.8.
    #[default]
    RepeatedExposure,
    /// All arms improve with practice.
    Improving,
    /// All arms but the best, which stays as it is, grow stale.
    Rotting,
    /// The best arm of `repeated-exposure` keeps bad for longer; the others have a best tally in between.
    NonMonotone,
}

/// How much a pull still counts, j rounds later; scaled to a sum of 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// All m pulls alike.
    Uniform,
    /// decay^(j-1).
    #[default]
    Geometric,
    /// j^(-decay).
    PowerLaw,
}

/// A random instance of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// How arms change.
    pub shape: Shape,
    /// How weights fall.
    pub weights: Weights,
    /// Their constant.
    pub decay: f64,
    /// Whether every arm has weights of its own.
    pub own_weights: bool,
    /// K.
    pub arms: usize,
    /// m.
    pub memory: usize,
    /// Whether a pull counts itself.
    pub counts_current: bool,
    /// What the learner sees.
    pub noise: Noise,
}

impl Recipe {
    /// Draws the arms.
    pub fn draw(&self, seeds: &Seeds) -> Instance {
        let mut rng = seeds.rng("instance", 0);
        let mut between = |low: f64, high: f64| low + (high - low) * unit(&mut rng);
        let best = ((between(0.0, self.arms as f64)) as usize).min(self.arms - 1);
        let arms = (0..self.arms)
            .map(|arm| {
                let (fresh, saturated) = match (self.shape, arm == best) {
                    (Shape::Rotting, true) => (0.2, 0.2),
                    (_, true) => (0.9, 0.2),
                    (Shape::Improving, false) => (between(0.6, 0.95), between(0.3, 0.6)),
                    (_, false) => (between(0.3, 0.5), between(0.5, 0.8)),
                };
                let bend = match (self.shape, arm == best) {
                    (Shape::NonMonotone, true) => 0.2,
                    (Shape::NonMonotone, false) => -0.6,
                    _ => 0.0,
                };
                let spread = if self.own_weights { between(0.5, 1.5) } else { 1.0 };
                let steps = if bend == 0.0 { 1 } else { 20 };
                let tallies: Vec<f64> = (0..=steps).map(|step| f64::from(step) / f64::from(steps)).collect();
                let loss = |y: &f64| fresh + (saturated - fresh) * y + bend * y * (1.0 - y);
                Arm {
                    name: format!("arm {arm}"),
                    weights: self.weights(spread),
                    losses: tallies.iter().map(loss).collect(),
                    tallies,
                }
            })
            .collect();
        Instance { arms, counts_current: self.counts_current, noise: self.noise }
    }

    /// `spread` makes them fall faster (above 1) or more slowly; with uniform weights below 1 it shortens the memory.
    fn weights(&self, spread: f64) -> Vec<f64> {
        let raw: Vec<f64> = match self.weights {
            Weights::Uniform => vec![1.0; ((spread * self.memory as f64) as usize).clamp(1, self.memory)],
            Weights::Geometric => {
                let decay = self.decay.powf(spread);
                (0..self.memory).map(|j| decay.powi(j as i32)).collect()
            }
            Weights::PowerLaw => {
                (0..self.memory).map(|j| ((j + 1) as f64).powf(-self.decay * spread)).collect()
            }
        };
        let sum: f64 = raw.iter().sum();
        raw.iter().map(|weight| weight / sum).collect()
    }
}
