//! Gradient-boosted trees: a regression oracle for numbers whose effects are neither linear nor additive.
//!
//! ```text
//! F_0 = the weighted mean (its logit),   F_m = F_{m-1} + tree_m,   leaf = -eta sum g / (penalty + sum h)
//! g, h = slope and curvature of the loss at F_{m-1}, squares / 2 or cross-entropy
//! ```
//!
//! Trees are grown by the crate `forust-ml`, level by level over binned numbers. A model is a function of the data (their
//! order too), the settings and the seed: neither the number of threads nor the machine's free memory changes a bit of it.
//! (The crate `perpetual`, which needs fewer settings, lets free memory bound the size of its trees, and its releases ask
//! for a nightly compiler.)
//!
//! Of use to others: [`Trees::fit`] on rows of numbers, [`Trees::predict`] for a single row (a walk down each tree,
//! about a microsecond), and serde for a model file, exact to the bit. A model is fitted from scratch; nothing is updated
//! row by row, so that a stream of decisions refits on what it keeps, now and then.

use forust_ml::{GradientBooster, Matrix, objective::ObjectiveType, sampler::SampleMethod, tree::Tree};
use polo_run::{Problem, Result, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::regression::sigmoid;

/// How trees are grown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TreesSettings {
    /// Number of trees.
    #[schemars(range(min = 1, max = 100_000))]
    pub trees: usize,
    /// Splits on the way to a leaf, at most.
    #[schemars(range(min = 1, max = 12))]
    pub depth: usize,
    /// eta, share of a tree's step that is taken: the smaller, the more trees are needed. Default from XGBoost, as are
    /// those of `penalty` and `least_weight`.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub learning_rate: f64,
    /// Pull of each leaf to 0.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub penalty: f64,
    /// Curvature below which a leaf is not split off: rows, of real targets; the sum of f (1 - f), of logistic ones.
    #[schemars(range(min = 0.001, max = 1e6))]
    pub least_weight: f64,
    /// Values of a number that a split can tell apart, about as many rows between each. Default of this
    /// program.
    #[schemars(range(min = 2, max = 4096))]
    pub bins: u16,
    /// Share of rows that each tree sees, drawn anew (stochastic gradient boosting), of tables of 1000 rows or more.
    #[schemars(range(min = 0.1, max = 1.0))]
    pub row_share: f64,
}

impl Default for TreesSettings {
    fn default() -> Self {
        Self {
            trees: 100,
            depth: 4,
            learning_rate: 0.3,
            penalty: 1.0,
            least_weight: 1.0,
            bins: 64,
            row_share: 1.0,
        }
    }
}

impl Settings for TreesSettings {
    fn check(&self) -> Result<()> {
        let fine = (1..=100_000).contains(&self.trees)
            && (1..=12).contains(&self.depth)
            && (0.001..=1.0).contains(&self.learning_rate)
            && (0.0..=1e6).contains(&self.penalty)
            && (0.001..=1e6).contains(&self.least_weight)
            && (2..=4096).contains(&self.bins)
            && (0.1..=1.0).contains(&self.row_share);
        if fine { Ok(()) } else { Err(Problem::usage("settings of trees out of their range")) }
    }
}

/// What a score becomes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Link {
    /// Its sigmoid.
    Logistic,
    /// Scaled and moved.
    Linear { centre: f64, scale: f64 },
}

/// A split or a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Node {
    /// Number of a row that is compared; [`LEAF`] for none.
    feature: u32,
    /// Where rows go that are below `number`; the others go to the node after it.
    below: u32,
    /// What it is compared with, or the score of a leaf.
    number: f64,
}

const LEAF: u32 = u32::MAX;

/// A fitted model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Trees {
    width: usize,
    link: Link,
    base: f64,
    /// The first node of each tree.
    roots: Vec<u32>,
    /// Children come after their parent.
    nodes: Vec<Node>,
}

/// What a model file holds, until it has been looked at.
#[derive(Deserialize)]
struct Stored {
    width: usize,
    link: Link,
    base: f64,
    roots: Vec<u32>,
    nodes: Vec<Node>,
}

impl TryFrom<Stored> for Trees {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { width, link, base, roots, nodes } = stored;
        let count = nodes.len();
        // That children come later is what ends every walk.
        let sound = |(at, node): (usize, &Node)| {
            let below = node.below as usize;
            node.number.is_finite()
                && (node.feature == LEAF
                    || (below > at && below + 1 < count && (node.feature as usize) < width))
        };
        if !nodes.iter().enumerate().all(sound) || roots.iter().any(|root| *root as usize >= count) {
            return Err("the trees of a model have nodes that lead nowhere");
        }
        Ok(Self { width, link, base, roots, nodes })
    }
}

/// A mean of logistic targets is cut to this and 1 less this: its logit is then finite.
const LEAST_RATE: f64 = 1e-6;
/// Numbers beyond overflow when they are squared or summed.
const MOST_INPUT: f64 = 1e300;
const MOST_TARGET: f64 = 1e100;
/// Bytes of histograms.
const MOST_MEMORY: usize = 4 << 30;
/// Numbers of all rows below which threads cost more than they save.
const SMALL: usize = 1 << 16;
/// Rows of which any share has one row at least, but for a chance below 1e-45.
const MANY: usize = 1000;

impl Trees {
    /// Fits `targets` `[rows]` to `inputs` `[rows, width]`, row by row, rows weighing `weights` `[rows]` (those of weight 0
    /// count as not there). `logistic` targets lie in [0, 1], and predictions are probabilities; all others are real. The
    /// seed draws the rows of each tree where a share is set.
    ///
    /// Targets that are all the same (one row, say), and inputs that are or that have no column, give a model that predicts
    /// the mean whatever the row; where logistic, a mean of 0 or 1 is cut by 1e-6.
    ///
    /// # Errors
    /// Lengths that do not fit together, no row of a weight, numbers that are not finite or far too large (1e300 for inputs,
    /// 1e100 for targets and weights), weights below 0, logistic targets outside [0, 1], settings out of range, and tables so
    /// wide that the histograms of a tree would take more than 4 GiB.
    pub fn fit(
        inputs: &[f64],
        targets: &[f64],
        weights: &[f64],
        settings: &TreesSettings,
        logistic: bool,
        seed: u64,
    ) -> Result<Self> {
        settings.check()?;
        check_numbers(inputs, targets, weights, logistic)?;
        let width = inputs.len() / targets.len();
        let kept: Vec<usize> = (0..targets.len()).filter(|row| weights[*row] > 0.0).collect();
        let total: f64 = kept.iter().map(|row| weights[*row]).sum();
        let mean = kept.iter().map(|row| weights[*row] * targets[*row]).sum::<f64>() / total;
        let far = kept.iter().map(|row| (targets[*row] - mean).abs()).fold(0.0, f64::max);
        let same = kept.iter().all(|row| targets[*row] == targets[kept[0]]) || !far.is_normal();

        let (base, link) = if logistic {
            let rate = mean.clamp(LEAST_RATE, 1.0 - LEAST_RATE);
            ((rate / (1.0 - rate)).ln(), Link::Logistic)
        } else {
            let scale = if same { 1.0 } else { far };
            (0.0, Link::Linear { centre: if same { targets[kept[0]] } else { mean }, scale })
        };
        let mut model = Self { width, link, base, roots: Vec::new(), nodes: Vec::new() };
        let columns: Vec<f64> =
            (0..width).flat_map(|column| kept.iter().map(move |row| inputs[row * width + column])).collect();
        let rows = kept.len();
        if same || columns.chunks(rows).all(|column| column.iter().all(|x| *x == column[0])) {
            return Ok(model);
        }
        // A bin is a slope and a curvature.
        let leaves = (1_usize << settings.depth).min(rows);
        if leaves.saturating_mul(width * (settings.bins as usize + 2) * 2 * size_of::<f64>()) > MOST_MEMORY {
            return Err(failed("the histograms of a tree would take more than 4 GiB")
                .hint("lower `depth` or `bins`, or give fewer columns"));
        }

        let moved = |row: &usize| if logistic { targets[*row] } else { (targets[*row] - mean) / far };
        let moved: Vec<f64> = kept.iter().map(moved).collect();
        let level = rows as f64 / total;
        let weights: Vec<f64> = kept.iter().map(|row| weights[*row] * level).collect();
        let sampled = settings.row_share < 1.0 && rows >= MANY;
        let mut booster = GradientBooster::default()
            .set_objective_type(if logistic { ObjectiveType::LogLoss } else { ObjectiveType::SquaredLoss })
            .set_iterations(settings.trees)
            .set_learning_rate(settings.learning_rate as f32)
            .set_max_depth(settings.depth)
            .set_max_leaves(usize::MAX)
            .set_l2(settings.penalty as f32)
            .set_min_leaf_weight(settings.least_weight as f32)
            .set_nbins(settings.bins)
            .set_initialize_base_score(false)
            .set_base_score(base)
            .set_parallel(columns.len() >= SMALL)
            .set_sample_method(if sampled { SampleMethod::Random } else { SampleMethod::None })
            .set_subsample(if sampled { settings.row_share as f32 } else { 1.0 })
            .set_seed(seed);
        booster
            .fit(&Matrix::new(&columns, rows, width), &moved, &weights, None)
            .map_err(|error| failed(&error.to_string()))?;
        booster.trees.iter().for_each(|tree| model.push(tree));
        Ok(model)
    }

    /// The prediction for a row `[width]`: a probability if the model is logistic. NaN, and a number that a shorter row
    /// lacks, count as larger than any.
    pub fn predict(&self, row: &[f64]) -> f64 {
        let leaf = |root: &u32| {
            let mut node = self.nodes[*root as usize];
            while node.feature != LEAF {
                let below = row.get(node.feature as usize).is_some_and(|x| *x < node.number);
                node = self.nodes[node.below as usize + usize::from(!below)];
            }
            node.number
        };
        let score = self.roots.iter().fold(self.base, |score, root| score + leaf(root));
        match self.link {
            Link::Logistic => sigmoid(score),
            Link::Linear { centre, scale } => centre + scale * score,
        }
    }

    /// Numbers of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of trees; none where the model predicts the same for every row.
    pub fn count(&self) -> usize {
        self.roots.len()
    }

    fn push(&mut self, tree: &Tree) {
        let root = self.nodes.len();
        self.roots.push(root as u32);
        let blank = Node { feature: LEAF, below: 0, number: 0.0 };
        self.nodes.push(blank);
        let mut waiting = vec![(root, 0)];
        while let Some((place, number)) = waiting.pop() {
            let found = &tree.nodes[number];
            self.nodes[place] = if found.is_leaf {
                Node { number: f64::from(found.weight_value), ..blank }
            } else {
                let below = self.nodes.len();
                self.nodes.extend([blank, blank]);
                waiting.extend([(below + 1, found.right_child), (below, found.left_child)]);
                Node { feature: found.split_feature as u32, below: below as u32, number: found.split_value }
            };
        }
    }
}

fn failed(text: &str) -> Problem {
    Problem::input(format!("trees cannot be fitted: {text}"))
}

fn check_numbers(inputs: &[f64], targets: &[f64], weights: &[f64], logistic: bool) -> Result<()> {
    let bad = |text: &str| Err(failed(text));
    let within = |numbers: &[f64], least: f64, most: f64| numbers.iter().all(|x| (least..=most).contains(x));
    let rows = targets.len();
    if rows == 0 || weights.len() != rows || !inputs.len().is_multiple_of(rows) {
        return bad("there is no row, or rows, targets and weights differ in number");
    }
    if !within(inputs, -MOST_INPUT, MOST_INPUT) {
        return bad("an input is not finite, or beyond 1e300");
    }
    if logistic && !within(targets, 0.0, 1.0) {
        return bad("a target is not in [0, 1]");
    }
    if !within(targets, -MOST_TARGET, MOST_TARGET) {
        return bad("a target is not finite, or beyond 1e100");
    }
    if !within(weights, 0.0, MOST_TARGET) || weights.iter().all(|w| *w == 0.0) {
        return bad("a weight is below 0, not finite, or beyond 1e100, or all are 0");
    }
    Ok(())
}

#[cfg(test)]
#[path = "trees_tests.rs"]
mod tests;
