//! Layered processes in features: instances by name and from a file, and what can be computed of them exactly.

use std::path::Path;

use polo_run::{
    Problem, Result,
    seed::{Seeds, unit},
};
use rand_chacha::rand_core::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    draw::{categorical, dirichlet},
    linear::{Matrix, dot},
    train::{read_text, wrong_json},
};

/// Probabilities, or any number for each state and action: `[layers][states · actions]`.
pub type Table = Vec<Vec<f64>>;
/// A loss vector for each layer, `[layers][d]`.
pub type Theta = Vec<Vec<f64>>;

/// Which instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Instance {
    /// A random linear process, drawn from the seed: it explores itself.
    #[default]
    Random,
    /// A lock: only the right action in every layer but the last leads to the state whose loss changes, so that nobody
    /// learns of it who does not explore.
    Lock,
    /// A random process without structure: one feature for each state and action.
    Tabular,
}

/// Sizes of an instance that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// H.
    pub horizon: usize,
    /// Of each layer.
    pub states: usize,
    /// A.
    pub actions: usize,
    /// d.
    pub features: usize,
}

/// States of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// `[states · actions, d]`.
    pub features: Vec<f64>,
    /// Probabilities of the next layer's states, `[states · actions, next states]`; none in the last layer.
    pub next: Vec<f64>,
}

/// A layered process with linear losses. Every episode begins in the first state of the first layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layered {
    /// A.
    pub actions: usize,
    /// d.
    pub size: usize,
    /// `[H]`.
    pub layers: Vec<Layer>,
    /// Losses of the phases that the adversary goes through in turn.
    pub phases: Vec<Theta>,
}

/// What happened in an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Episode {
    /// Places state · A + action, `[H]`.
    pub pairs: Vec<usize>,
    /// Losses from each layer to the end, `[H]`.
    pub returns: Vec<f64>,
}

impl Layered {
    /// An instance by name, its randomness from the seeds.
    pub fn make(instance: Instance, sizes: Sizes, seeds: &Seeds) -> Self {
        match instance {
            Instance::Random => Self::random(sizes, seeds),
            Instance::Lock => Self::lock(sizes),
            Instance::Tabular => Self::tabular(sizes, seeds),
        }
    }

    /// Features from Dirichlet(0.4), factors' transitions from Dirichlet(0.5), losses between two uniform ones.
    fn random(sizes: Sizes, seeds: &Seeds) -> Self {
        let Sizes { horizon, states, actions, features: size } = sizes;
        let mut rng = seeds.rng("instance", 0);
        let features: Table = (0..horizon)
            .map(|_| (0..states * actions).flat_map(|_| dirichlet(0.4, size, &mut rng)).collect())
            .collect();
        let layer = |(h, features): (usize, Vec<f64>)| {
            let factors: Table = (0..size).map(|_| dirichlet(0.5, states, &mut rng)).collect();
            let to = |row: &[f64], state: usize| row.iter().zip(&factors).map(|(x, to)| x * to[state]).sum();
            let next = if h + 1 == horizon {
                Vec::new()
            } else {
                features
                    .chunks_exact(size)
                    .flat_map(|row| (0..states).map(move |s| (row, s)))
                    .map(|(row, s)| to(row, s))
                    .collect()
            };
            Layer { features, next }
        };
        let layers = features.into_iter().enumerate().map(layer).collect();
        Self { actions, size, layers, phases: Self::two_phases(horizon, size, &mut rng) }
    }

    fn two_phases(horizon: usize, size: usize, rng: &mut impl Rng) -> Vec<Theta> {
        let mut draw = || -> Theta { (0..horizon).map(|_| (0..size).map(|_| unit(rng)).collect()).collect() };
        let (first, second) = (draw(), draw());
        let half = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect();
        let mixed = first.iter().zip(&second).map(half).collect();
        vec![first, mixed]
    }

    /// Features: off the path, on it, and the state at its end, whose loss is 1 in the first of four phases and 0 after.
    fn lock(sizes: Sizes) -> Self {
        let Sizes { horizon, actions, .. } = sizes;
        let layer = |h: usize| {
            let last = h + 1 == horizon;
            let (mut features, mut next) = (Vec::new(), Vec::new());
            for (state, action) in (0..2).flat_map(|state| (0..actions).map(move |action| (state, action))) {
                let feature = match (state, last) {
                    (0, true) => 2,
                    (0, false) if action + 1 == actions => 1,
                    _ => 0,
                };
                features.extend((0..3).map(|at| f64::from(u8::from(at == feature))));
                if !last {
                    next.extend(if feature == 1 { [1.0, 0.0] } else { [0.0, 1.0] });
                }
            }
            Layer { features, next }
        };
        let phase = |end: f64| vec![vec![0.6, 0.65, end]; horizon];
        Self {
            actions,
            size: 3,
            layers: (0..horizon).map(layer).collect(),
            phases: vec![phase(1.0), phase(0.0), phase(0.0), phase(0.0)],
        }
    }

    fn tabular(sizes: Sizes, seeds: &Seeds) -> Self {
        let Sizes { horizon, states, actions, .. } = sizes;
        let (size, mut rng) = (states * actions, seeds.rng("instance", 0));
        let layer = |h: usize| Layer {
            features: Matrix::identity(size, 1.0).numbers,
            next: if h + 1 == horizon {
                Vec::new()
            } else {
                (0..size).flat_map(|_| dirichlet(0.5, states, &mut rng)).collect()
            },
        };
        let layers = (0..horizon).map(layer).collect();
        Self { actions, size, layers, phases: Self::two_phases(horizon, size, &mut rng) }
    }

    /// Reads a JSON object: `features`, `[layers][states][actions][d]` with norms of at most 1; `transitions`,
    /// `[layers - 1][states][actions][next states]`; `theta`, `[phases][layers][d]`, the loss vectors that the adversary goes
    /// through in turn, with losses φ·θ within 0 and 1. Episodes begin in state 0.
    ///
    /// # Errors
    /// A file that is no such object; lengths that disagree; what is no probability, no loss or not finite.
    pub fn read(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            features: Vec<Vec<Vec<Vec<f64>>>>,
            transitions: Vec<Vec<Vec<Vec<f64>>>>,
            theta: Vec<Theta>,
        }
        let text = read_text(path)?;
        let file: File = serde_json::from_str(&text)
            .map_err(|error| wrong_json("this is no layered process", path, 0, &error))?;
        let wrong = |message: String| Problem::input(message).place(path.display().to_string());
        let File { features, transitions, theta } = file;
        let first = features.first().and_then(|layer| layer.first());
        let actions = first.map_or(0, Vec::len);
        let size = first.and_then(|state| state.first()).map_or(0, Vec::len);
        let horizon = features.len();
        if size == 0 || transitions.len() + 1 != horizon || theta.is_empty() {
            return Err(wrong(format!(
                "features for {horizon} layers, transitions for {}, and {} loss vectors",
                transitions.len(),
                theta.len()
            )));
        }
        let states: Vec<usize> = features.iter().map(Vec::len).collect();
        let mut layers = Vec::new();
        for (h, layer) in features.into_iter().enumerate() {
            let shaped =
                layer.iter().all(|state| state.len() == actions && state.iter().all(|row| row.len() == size));
            let next = transitions.get(h);
            let fits = next.is_none_or(|next| {
                next.len() == states[h]
                    && next.iter().all(|state| {
                        state.len() == actions && state.iter().all(|row| row.len() == states[h + 1])
                    })
            });
            if !shaped || !fits || states[h] == 0 {
                return Err(wrong(format!("layer {h} has states, actions or features of different numbers")));
            }
            let flat =
                |table: &[Vec<Vec<f64>>]| -> Vec<f64> { table.iter().flatten().flatten().copied().collect() };
            let layer =
                Layer { features: flat(&layer), next: next.map(|next| flat(next)).unwrap_or_default() };
            let stochastic = |row: &[f64]| {
                row.iter().all(|p| (0.0..=1.0).contains(p)) && (row.iter().sum::<f64>() - 1.0).abs() < 1e-6
            };
            if let Some(width) = states.get(h + 1)
                && let Some(at) = layer.next.chunks_exact(*width).position(|row| !stochastic(row))
            {
                return Err(wrong(format!(
                    "transitions of layer {h}, state {}, action {} are no probabilities of sum 1",
                    at / actions,
                    at % actions
                )));
            }
            layers.push(layer);
        }
        let process = Self { actions, size, layers, phases: theta };
        for theta in &process.phases {
            if theta.len() != horizon || theta.iter().any(|theta| theta.len() != size) {
                return Err(wrong("a loss vector does not have the shape of the features".into()));
            }
            for (h, layer) in process.layers.iter().enumerate() {
                let good = |row: &[f64]| {
                    dot(row, row) <= 1.0 + 1e-9 && (-1e-9..=1.0 + 1e-9).contains(&dot(row, &theta[h]))
                };
                if let Some(at) = layer.features.chunks_exact(size).position(|row| !good(row)) {
                    return Err(wrong(format!(
                        "layer {h}, state {}, action {} has features longer than 1 or a loss outside of 0 to 1",
                        at / actions,
                        at % actions
                    )));
                }
            }
        }
        Ok(process)
    }

    /// H.
    pub fn horizon(&self) -> usize {
        self.layers.len()
    }

    /// States of layer h.
    pub fn states(&self, h: usize) -> usize {
        self.pairs(h) / self.actions
    }

    /// States times actions of layer h.
    pub fn pairs(&self, h: usize) -> usize {
        self.layers[h].features.len() / self.size
    }

    /// φ of a pair.
    pub fn features(&self, h: usize, pair: usize) -> &[f64] {
        &self.layers[h].features[pair * self.size..][..self.size]
    }

    /// φ·x of all pairs of a layer.
    pub fn along(&self, h: usize, x: &[f64]) -> Vec<f64> {
        self.layers[h].features.chunks_exact(self.size).map(|row| dot(row, x)).collect()
    }

    /// Probabilities of the next states after a pair.
    fn next(&self, h: usize, pair: usize) -> &[f64] {
        let states = self.states(h + 1);
        &self.layers[h].next[pair * states..][..states]
    }

    /// The same number for all pairs.
    pub fn table(&self, value: f64) -> Table {
        (0..self.horizon()).map(|h| vec![value; self.pairs(h)]).collect()
    }

    /// How often each pair is met in an episode of a policy.
    pub fn occupancy(&self, policy: &Table) -> Table {
        let mut found = Table::with_capacity(self.horizon());
        let mut states = vec![0.0; self.states(0)];
        states[0] = 1.0;
        for (h, policy) in policy.iter().enumerate() {
            let pairs: Vec<f64> =
                policy.iter().enumerate().map(|(pair, p)| states[pair / self.actions] * p).collect();
            if h + 1 < self.horizon() {
                states = vec![0.0; self.states(h + 1)];
                for (pair, often) in pairs.iter().enumerate() {
                    states.iter_mut().zip(self.next(h, pair)).for_each(|(state, p)| *state += often * p);
                }
            }
            found.push(pairs);
        }
        found
    }

    /// Expected loss of an episode.
    pub fn value(&self, occupancy: &Table, theta: &Theta) -> f64 {
        let layers = occupancy.iter().zip(theta).enumerate();
        layers.map(|(h, (often, theta))| dot(often, &self.along(h, theta))).sum()
    }

    /// Backwards: the number of a pair from its own and the mean over next states of what `summed` makes of theirs.
    pub fn backwards(
        &self,
        own: impl Fn(usize) -> Vec<f64>,
        dilation: f64,
        summed: impl Fn(usize, &[f64], usize) -> f64,
    ) -> Table {
        let mut found = vec![Vec::new(); self.horizon()];
        let mut after: Vec<f64> = Vec::new();
        for h in (0..self.horizon()).rev() {
            let mut now = own(h);
            if !after.is_empty() {
                for (pair, now) in now.iter_mut().enumerate() {
                    *now += dilation * dot(self.next(h, pair), &after);
                }
            }
            after = now.chunks_exact(self.actions).enumerate().map(|(s, row)| summed(h, row, s)).collect();
            found[h] = now;
        }
        found
    }

    /// Mean of a state's numbers under a policy, for [`Self::backwards`].
    pub fn under<'a>(&self, policy: &'a Table) -> impl Fn(usize, &[f64], usize) -> f64 + 'a {
        let actions = self.actions;
        move |h, row, state| dot(row, &policy[h][state * actions..][..actions])
    }

    /// Q of a policy: expected loss from each pair to the end.
    pub fn q(&self, policy: &Table, theta: &Theta) -> Table {
        self.backwards(|h| self.along(h, &theta[h]), 1.0, self.under(policy))
    }

    /// Expected loss of the best policy, for the sum of any loss vectors.
    pub fn best(&self, theta: &Theta) -> f64 {
        let least = |row: &[f64]| row.iter().copied().fold(f64::INFINITY, f64::min);
        let q = self.backwards(|h| self.along(h, &theta[h]), 1.0, |_, row, _| least(row));
        least(&q[0][..self.actions])
    }

    /// Σ often · φ φᵀ of a layer.
    pub fn covariance(&self, h: usize, often: &[f64]) -> Matrix {
        let mut matrix = Matrix::identity(self.size, 0.0);
        for (row, weight) in self.layers[h].features.chunks_exact(self.size).zip(often) {
            if *weight != 0.0 {
                matrix.add_outer(row, *weight);
            }
        }
        matrix
    }

    /// Plays an episode; every loss is drawn as 0 or 1.
    pub fn play(&self, policy: &Table, theta: &Theta, rng: &mut impl Rng) -> Episode {
        let (mut pairs, mut returns, mut state) = (Vec::new(), Vec::new(), 0);
        for (h, policy) in policy.iter().enumerate() {
            let pair =
                state * self.actions + categorical(&policy[state * self.actions..][..self.actions], rng);
            returns.push(f64::from(u8::from(unit(rng) < dot(self.features(h, pair), &theta[h]))));
            pairs.push(pair);
            if h + 1 < self.horizon() {
                state = categorical(self.next(h, pair), rng);
            }
        }
        for h in (1..returns.len()).rev() {
            returns[h - 1] += returns[h];
        }
        Episode { pairs, returns }
    }
}
