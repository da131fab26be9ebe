//! Rules that choose arms by the losses seen: successive elimination with burn-in, and those it is compared with.

use polo_run::seed::Seeds;
use serde::{Deserialize, Serialize};

use crate::draw;

/// Successive elimination by visits: each arm that is left is played `burn_in` + n_s times in a row, n_s growing from epoch
/// to epoch, and judged by its last n_s losses alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Elimination {
    /// Arms that are left, in order.
    pub left: Vec<usize>,
    /// Pulls at the start of a visit whose losses count for nothing.
    pub burn_in: u64,
    /// n_0.
    pub first_epoch: u64,
    /// n_{s+1} / n_s.
    pub growth: f64,
    /// C_s times the root of n_s.
    pub width: f64,
    /// Whether the best of the first epoch is played to the end, whatever the radius.
    pub commits: bool,
    epoch: i32,
    pulls: u64,
    sum: f64,
    /// Of the arms visited in this epoch.
    means: Vec<f64>,
}

impl Elimination {
    /// Before the first pull. `width` is C_s times the root of n_s.
    pub fn new(arms: usize, burn_in: u64, first_epoch: u64, growth: f64, width: f64) -> Self {
        Self {
            left: (0..arms).collect(),
            burn_in,
            first_epoch,
            growth,
            width,
            commits: false,
            epoch: 0,
            pulls: 0,
            sum: 0.0,
            means: Vec::new(),
        }
    }

    /// Explore, then commit: one epoch.
    pub fn committing(arms: usize, burn_in: u64, pulls: u64) -> Self {
        Self { commits: true, ..Self::new(arms, burn_in, pulls, 1.0, 0.0) }
    }

    /// n_s of the current epoch.
    pub fn visit(&self) -> u64 {
        (self.first_epoch as f64 * self.growth.powi(self.epoch)).round() as u64
    }

    fn choose(&self) -> usize {
        self.left[self.means.len()]
    }

    fn observe(&mut self, loss: f64) {
        if self.left.len() == 1 {
            return;
        }
        if self.pulls >= self.burn_in {
            self.sum += loss;
        }
        self.pulls += 1;
        let visit = self.visit();
        if self.pulls < self.burn_in + visit {
            return;
        }
        self.means.push(self.sum / visit as f64);
        (self.pulls, self.sum) = (0, 0.0);
        if self.means.len() == self.left.len() {
            self.eliminate(visit as f64);
        }
    }

    /// Only a complete epoch may eliminate: a visit that is not over has a mean of a warming arm, or none.
    fn eliminate(&mut self, visit: f64) {
        let radius = self.width / visit.sqrt();
        let means = std::mem::take(&mut self.means);
        let least = means.iter().copied().fold(f64::INFINITY, f64::min);
        let mut means = means.iter();
        self.left.retain(|_| means.next().is_some_and(|mean| *mean <= least + 2.0 * radius));
        if self.commits {
            self.left.truncate(1);
        }
        self.epoch += 1;
    }
}

/// UCB1 for losses: the arm whose mean less its radius is least.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ucb1 {
    /// Scale of the radius sqrt(2 ln t / n).
    pub exploration: f64,
    pulls: Vec<f64>,
    sums: Vec<f64>,
}

impl Ucb1 {
    /// Before the first pull.
    pub fn new(arms: usize, exploration: f64) -> Self {
        Self { exploration, pulls: vec![0.0; arms], sums: vec![0.0; arms] }
    }

    fn choose(&self) -> usize {
        if let Some(unplayed) = self.pulls.iter().position(|pulls| *pulls == 0.0) {
            return unplayed;
        }
        let logarithm = 2.0 * self.pulls.iter().sum::<f64>().ln();
        let index = |&arm: &usize| {
            self.sums[arm] / self.pulls[arm] - self.exploration * (logarithm / self.pulls[arm]).sqrt()
        };
        (0..self.pulls.len()).min_by(|a, b| index(a).total_cmp(&index(b))).unwrap_or(0)
    }

    fn observe(&mut self, arm: usize, loss: f64) {
        self.pulls[arm] += 1.0;
        self.sums[arm] += loss;
    }
}

/// EXP3: exponential weights on importance-weighted losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exp3 {
    /// Step size.
    pub rate: f64,
    /// Sums of estimated losses.
    estimates: Vec<f64>,
    /// Probability that the arm in play had.
    chance: f64,
}

impl Exp3 {
    /// Before the first pull.
    pub fn new(arms: usize, rate: f64) -> Self {
        Self { rate, estimates: vec![0.0; arms], chance: 1.0 }
    }

    fn choose(&mut self, decision: u64, seeds: &Seeds) -> usize {
        let least = self.estimates.iter().copied().fold(f64::INFINITY, f64::min);
        let mut chances: Vec<f64> =
            self.estimates.iter().map(|estimate| (self.rate * (least - estimate)).exp()).collect();
        let sum: f64 = chances.iter().sum();
        chances.iter_mut().for_each(|chance| *chance /= sum);
        let arm = draw::categorical(&chances, &mut seeds.rng("arm", decision));
        self.chance = chances[arm];
        arm
    }

    fn observe(&mut self, arm: usize, loss: f64) {
        self.estimates[arm] += loss.clamp(0.0, 1.0) / self.chance;
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Visits with burn-in; with one epoch explore-then-commit.
    Elimination(Elimination),
    /// UCB1.
    Ucb1(Ucb1),
    /// EXP3.
    Exp3(Exp3),
}

/// A rule over blocks of pulls: it chooses once a block and sees the mean loss of the block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learner {
    /// The rule.
    pub rule: Rule,
    /// Pulls of a block.
    block: usize,
    /// K, where the options of the rule are sequences of arms, written in base K; otherwise options are arms.
    sequences_of: Option<usize>,
    option: usize,
    position: usize,
    sum: f64,
    decisions: u64,
}

impl Learner {
    /// `block` pulls for every choice of the rule.
    pub fn new(rule: Rule, block: usize, sequences_of: Option<usize>) -> Self {
        Self { rule, block, sequences_of, option: 0, position: 0, sum: 0.0, decisions: 0 }
    }

    /// The arm of this round.
    pub fn choose(&mut self, seeds: &Seeds) -> usize {
        if self.position == 0 {
            self.option = match &mut self.rule {
                Rule::Elimination(rule) => rule.choose(),
                Rule::Ucb1(rule) => rule.choose(),
                Rule::Exp3(rule) => rule.choose(self.decisions, seeds),
            };
        }
        match self.sequences_of {
            Some(arms) => self.option / arms.pow(self.position as u32) % arms,
            None => self.option,
        }
    }

    /// Takes in the loss seen in this round.
    pub fn observe(&mut self, loss: f64) {
        self.sum += loss;
        self.position += 1;
        if self.position < self.block {
            return;
        }
        let mean = self.sum / self.block as f64;
        match &mut self.rule {
            Rule::Elimination(rule) => rule.observe(mean),
            Rule::Ucb1(rule) => rule.observe(self.option, mean),
            Rule::Exp3(rule) => rule.observe(self.option, mean),
        }
        (self.position, self.sum) = (0, 0.0);
        self.decisions += 1;
    }

    /// Options that the rule still plays; none for rules that never drop one.
    pub fn left(&self) -> Option<&[usize]> {
        match &self.rule {
            Rule::Elimination(rule) => Some(&rule.left),
            Rule::Ucb1(_) | Rule::Exp3(_) => None,
        }
    }
}
