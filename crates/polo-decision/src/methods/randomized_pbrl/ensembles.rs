//! The neural form of PbTS: ensembles of small networks of (φ(s, a), step), each trained on data of its own weights, drawn
//! from Exp(1) (the bootstrap of Rubin 1981). A draw from the posterior is a member.

use polo_run::seed::{Seeds, below, unit};
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::transitions::rewards;
use crate::{
    draw::{gamma, normal},
    linear::dot,
    network::{Activation, Adam, Network},
    regression::{sigmoid, softmax},
    tabular::{Episode, Tabular},
};

/// How members look and learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Members {
    /// How many.
    pub count: usize,
    /// Widths of hidden layers.
    pub hidden: Vec<usize>,
    /// Step size of Adam.
    pub learning_rate: f64,
    /// Its steps whenever a member is fitted again, on all data.
    pub steps: usize,
}

/// A network with its outputs at all cells: step h of pair z is cell h · pairs + z.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Member {
    network: Network,
    adam: Adam,
    /// `[cells · outputs]`.
    outputs: Vec<f64>,
}

fn inputs(process: &Tabular) -> Vec<Vec<f64>> {
    let steps = 0..process.horizon;
    let input = |h: usize, features: &Vec<f64>| {
        let mut input = features.clone();
        input.extend((0..process.horizon).map(|step| f64::from(u8::from(step == h))));
        input
    };
    steps.flat_map(|h| process.features.iter().map(move |features| input(h, features))).collect()
}

impl Member {
    fn new(process: &Tabular, members: &Members, outputs: usize, seeds: &Seeds) -> Self {
        let mut sizes = vec![process.size() + process.horizon];
        sizes.extend(&members.hidden);
        sizes.push(outputs);
        let network = Network::new(&sizes, Activation::Tanh, seeds);
        let adam = Adam::new(members.learning_rate, network.parameters().len());
        let outputs = inputs(process).iter().flat_map(|x| network.forward(x).output().to_vec()).collect();
        Self { network, adam, outputs }
    }

    /// Steps of Adam down a loss whose derivative by all outputs `slopes` gives from these.
    fn train(&mut self, process: &Tabular, steps: usize, slopes: impl Fn(&[f64]) -> Vec<f64>) {
        let inputs = inputs(process);
        let width = self.outputs.len() / inputs.len();
        let mut passes: Vec<_> = inputs.iter().map(|x| self.network.forward(x)).collect();
        for _ in 0..steps {
            let mut gradient = vec![0.0; self.network.parameters().len()];
            for (pass, slope) in passes.iter().zip(slopes(&self.outputs).chunks_exact(width)) {
                self.network.add_gradient(pass, slope, &mut gradient);
            }
            self.adam.step(self.network.parameters_mut(), &gradient);
            passes = inputs.iter().map(|x| self.network.forward(x)).collect();
            for (outputs, pass) in self.outputs.chunks_exact_mut(width).zip(&passes) {
                outputs.copy_from_slice(pass.output());
            }
        }
    }
}

/// A draw from Exp(1).
fn weight(rng: &mut impl Rng) -> f64 {
    -(1.0 - unit(rng)).ln()
}

fn member(count: usize, rng: &mut impl Rng) -> usize {
    below(rng, count as u64) as usize
}

/// Rewards f = g + p of every member: a network g, and a draw p that is linear in the features and never changes (Osband,
/// Aslanides, Cassirer 2018), which is what members disagree by where nothing was compared. Minimised is
///
/// ```text
/// Σ_asked w log( 1 + exp( - c (2 o - 1) (f(τ¹) - f(τ⁰)) ) ) + λ d / (2 S A) Σ_{h,s,a} (g - g_0)²
/// ```
///
/// with g_0 the network before its first step: with one feature for each pair, the ridge of the linear posteriors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardEnsemble {
    members: Vec<Member>,
    /// p at all cells, `[members][cells]`.
    priors: Vec<Vec<f64>>,
    /// g_0 at all cells.
    anchors: Vec<Vec<f64>>,
    comparisons: Vec<Comparison>,
    steps: usize,
    /// c.
    link_scale: f64,
    /// λ d / (S A).
    ridge: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Comparison {
    /// How much more often τ¹ was in a cell than τ⁰, where it was.
    cells: Vec<(usize, f64)>,
    outcome: bool,
    /// w of every member.
    weights: Vec<f64>,
}

impl Comparison {
    /// f(τ¹) - f(τ⁰), up to the priors.
    fn margin(&self, values: &[f64]) -> f64 {
        self.cells.iter().map(|(cell, count)| count * values[*cell]).sum()
    }
}

impl RewardEnsemble {
    /// Before the first preference. p is `prior_scale` times a draw from N(0, I / λ), linear in the features.
    pub fn new(
        process: &Tabular,
        members: &Members,
        prior_scale: f64,
        link_scale: f64,
        lambda: f64,
        seeds: &Seeds,
    ) -> Self {
        let mut rng = seeds.rng("ensemble prior", 0);
        let mut prior = || -> Vec<f64> {
            let scale = prior_scale / lambda.sqrt();
            let theta: Vec<f64> =
                (0..process.horizon * process.size()).map(|_| scale * normal(&mut rng)).collect();
            (0..process.horizon).flat_map(|h| rewards(process, &theta, h)).collect()
        };
        let priors = (0..members.count).map(|_| prior()).collect();
        let of = |k: usize| Member::new(process, members, 1, &seeds.child(&format!("reward member {k}")));
        let networks: Vec<Member> = (0..members.count).map(of).collect();
        Self {
            priors,
            anchors: networks.iter().map(|member| member.outputs.clone()).collect(),
            members: networks,
            comparisons: Vec::new(),
            steps: members.steps,
            link_scale,
            ridge: lambda * process.size() as f64 / process.pairs() as f64,
        }
    }

    fn values(&self, k: usize) -> Vec<f64> {
        self.members[k].outputs.iter().zip(&self.priors[k]).map(|(g, p)| g + p).collect()
    }

    /// Rewards of a member at all cells.
    pub fn draw(&self, rng: &mut impl Rng) -> Vec<f64> {
        self.values(member(self.members.len(), rng))
    }

    /// Their mean over members.
    pub fn mean(&self) -> Vec<f64> {
        let count = self.members.len();
        let mut mean = vec![0.0; self.priors[0].len()];
        for k in 0..count {
            mean.iter_mut().zip(self.values(k)).for_each(|(mean, value)| *mean += value / count as f64);
        }
        mean
    }

    /// Of every member, f(τ¹) - f(τ⁰) for a difference of cells.
    pub fn margins(&self, x: &[f64]) -> Vec<f64> {
        (0..self.members.len()).map(|k| dot(&self.values(k), x)).collect()
    }

    /// Keeps a preference, with weights that are a function of the seeds and its number.
    pub fn push(&mut self, x: &[f64], outcome: bool, seeds: &Seeds) {
        let mut rng = seeds.rng("preference weights", self.comparisons.len() as u64);
        let weights = self.members.iter().map(|_| weight(&mut rng)).collect();
        let cells = x.iter().copied().enumerate().filter(|(_, count)| *count != 0.0).collect();
        self.comparisons.push(Comparison { cells, outcome, weights });
    }

    /// Preferences so far.
    pub fn preferences(&self) -> usize {
        self.comparisons.len()
    }

    /// Trains every member on all preferences.
    pub fn fit(&mut self, process: &Tabular) {
        let Self { members, priors, anchors, comparisons, link_scale, ridge, steps } = self;
        members.par_iter_mut().enumerate().for_each(|(k, member)| {
            let fixed = comparisons.iter().map(|comparison| comparison.margin(&priors[k])).collect();
            let loss = Loss {
                comparisons,
                fixed,
                anchor: &anchors[k],
                member: k,
                link_scale: *link_scale,
                ridge: *ridge,
            };
            member.train(process, *steps, |outputs| loss.slopes(outputs));
        });
    }
}

/// What a member minimises.
struct Loss<'a> {
    comparisons: &'a [Comparison],
    /// p(τ¹) - p(τ⁰) of each.
    fixed: Vec<f64>,
    anchor: &'a [f64],
    member: usize,
    link_scale: f64,
    ridge: f64,
}

impl Loss<'_> {
    /// Its derivative by g at all cells.
    fn slopes(&self, outputs: &[f64]) -> Vec<f64> {
        let mut slopes: Vec<f64> =
            outputs.iter().zip(self.anchor).map(|(g, anchor)| self.ridge * (g - anchor)).collect();
        for (comparison, fixed) in self.comparisons.iter().zip(&self.fixed) {
            let likely = sigmoid(self.link_scale * (fixed + comparison.margin(outputs)));
            let residual = likely - f64::from(u8::from(comparison.outcome));
            let slope = comparison.weights[self.member] * self.link_scale * residual;
            comparison.cells.iter().for_each(|(cell, count)| slopes[*cell] += slope * count);
        }
        slopes
    }
}

/// Transitions softmax(g) of every member, g a network with an output for each next state. Minimised is the cross-entropy
/// to counts in which every transition has a weight from Exp(1), above counts from Gamma(prior, 1): normalised, these are
/// draws from the Dirichlet posterior, which a network that could tell all pairs apart would find again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransitionEnsemble {
    members: Vec<Member>,
    /// `[members][cells · S]`.
    counts: Vec<Vec<f64>>,
    steps: usize,
}

impl TransitionEnsemble {
    /// Before the first transition.
    pub fn new(process: &Tabular, members: &Members, concentration: f64, seeds: &Seeds) -> Self {
        let mut rng = seeds.rng("ensemble counts", 0);
        let cells = process.horizon * process.pairs();
        let mut counts =
            || (0..cells * process.states).map(|_| gamma(concentration, &mut rng)).collect::<Vec<f64>>();
        let counts = (0..members.count).map(|_| counts()).collect();
        let states = process.states;
        let of = |k: usize| Member::new(process, members, states, &seeds.child(&format!("model member {k}")));
        Self { members: (0..members.count).map(of).collect(), counts, steps: members.steps }
    }

    /// Counts an episode.
    pub fn learn(&mut self, process: &Tabular, episode: &Episode, rng: &mut impl Rng) {
        for counts in &mut self.counts {
            for (h, (pair, next)) in episode.iter().enumerate() {
                counts[(h * process.pairs() + pair) * process.states + next] += weight(rng);
            }
        }
    }

    /// Trains a member that is drawn; its transitions, `[H · S · A · S]`.
    pub fn draw(&mut self, process: &Tabular, rng: &mut impl Rng) -> Vec<f64> {
        let k = member(self.members.len(), rng);
        let (states, counts) = (process.states, &self.counts[k]);
        self.members[k].train(process, self.steps, |outputs| count_slopes(outputs, counts, states));
        by_row(&self.members[k].outputs, states)
    }

    /// The mean of transitions over members.
    pub fn mean(&self, process: &Tabular) -> Vec<f64> {
        let mut mean = vec![0.0; self.counts[0].len()];
        for member in &self.members {
            let found = by_row(&member.outputs, process.states);
            mean.iter_mut().zip(found).for_each(|(mean, p)| *mean += p / self.members.len() as f64);
        }
        mean
    }
}

/// The derivative of - Σ count log softmax(logits) by the logits, both `[cells · width]`.
fn count_slopes(logits: &[f64], counts: &[f64], width: usize) -> Vec<f64> {
    let mut slopes = by_row(logits, width);
    for (slopes, counts) in slopes.chunks_exact_mut(width).zip(counts.chunks_exact(width)) {
        let all: f64 = counts.iter().sum();
        slopes.iter_mut().zip(counts).for_each(|(p, count)| *p = all * *p - count);
    }
    slopes
}

/// Probabilities of rows of `width` logits.
fn by_row(logits: &[f64], width: usize) -> Vec<f64> {
    logits.chunks_exact(width).flat_map(softmax).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::normals;

    fn process() -> Tabular {
        Tabular::random(3, 3, 2, 0.5, &Seeds::new(1))
    }

    fn members(count: usize, steps: usize) -> Members {
        Members { count, hidden: vec![32], learning_rate: 0.01, steps }
    }

    #[track_caller]
    fn check_slopes(at: &[f64], slopes: &[f64], loss: &dyn Fn(&[f64]) -> f64) {
        for (i, expected) in slopes.iter().enumerate() {
            let moved = |by: f64| {
                let mut at = at.to_vec();
                at[i] += by;
                loss(&at)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - expected).abs() < 1e-7, "{i}: {slope} {expected}");
        }
    }

    #[test]
    fn slopes_are_those_of_the_losses() {
        let at = normals(&Seeds::new(2), 6, "at", 0);
        let anchor = normals(&Seeds::new(2), 6, "anchor", 0);
        let comparison = |cells: &[(usize, f64)], outcome| Comparison {
            cells: cells.to_vec(),
            outcome,
            weights: vec![0.3, 1.7],
        };
        let comparisons =
            [comparison(&[(0, 1.0), (3, -1.0)], true), comparison(&[(3, 1.0), (4, -1.0), (5, 1.0)], false)];
        let loss = Loss {
            comparisons: &comparisons,
            fixed: vec![0.4, -0.2],
            anchor: &anchor,
            member: 1,
            link_scale: 4.0,
            ridge: 0.5,
        };
        check_slopes(&at, &loss.slopes(&at), &|g| {
            let one: f64 = 4.0 * (0.4 + g[0] - g[3]);
            let two: f64 = 4.0 * (-0.2 + g[3] - g[4] + g[5]);
            let apart: f64 = g.iter().zip(&anchor).map(|(g, anchor)| (g - anchor).powi(2)).sum();
            1.7 * ((-one).exp().ln_1p() + two.exp().ln_1p()) + 0.25 * apart
        });
        let counts = [0.2, 1.5, 0.0, 3.0, 1.0, 0.7];
        check_slopes(&at, &count_slopes(&at, &counts, 3), &|logits| {
            -by_row(logits, 3).iter().zip(counts).map(|(p, count)| count * p.ln()).sum::<f64>()
        });
    }

    #[test]
    fn without_data_rewards_are_about_their_prior() {
        for (scale, lambda) in [(1.0, 1.0), (0.5, 4.0)] {
            let ensemble =
                RewardEnsemble::new(&process(), &members(400, 1), scale, 4.0, lambda, &Seeds::new(3));
            let values: Vec<f64> = (0..400).flat_map(|k| ensemble.priors[k].clone()).collect();
            let variance = values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64;
            assert!((variance * lambda / (scale * scale) - 1.0).abs() < 0.06, "{variance}");
            // What the first weights of the networks add.
            let first: Vec<f64> = ensemble.anchors.concat();
            assert!(first.iter().map(|x| x * x).sum::<f64>() / (first.len() as f64) < 0.1);
        }
    }

    /// Members are then draws from the Dirichlet posterior, whose means and variances are known.
    #[test]
    fn networks_find_the_counts_that_they_are_fitted_on() {
        let process = process();
        let mut rng = Seeds::new(4).rng("episodes", 0);
        let mut ensemble = TransitionEnsemble::new(&process, &members(4, 4000), 0.5, &Seeds::new(4));
        for _ in 0..30 {
            let episode = process.play(&crate::tabular::Policy::Uniform, &mut rng);
            ensemble.learn(&process, &episode, &mut rng);
        }
        let found = ensemble.draw(&process, &mut Seeds::new(4).rng("draw", 0));
        let k = (0..4).find(|k| by_row(&ensemble.members[*k].outputs, 3) == found).unwrap();
        let worst = found.chunks_exact(3).zip(ensemble.counts[k].chunks_exact(3)).flat_map(|(p, counts)| {
            let all: f64 = counts.iter().sum();
            p.iter().zip(counts).map(move |(p, count)| (p - count / all).abs())
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 0.02, "{worst}");
        let mean = ensemble.mean(&process);
        assert!(mean.chunks_exact(3).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    }
}
