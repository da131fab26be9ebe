//! Trajectory weighting: draw from good episodes more often (Hong et al. 2023, arXiv 2306.13085).
//!
//! Nothing in a learner's loss changes, only which transitions of the data its batches are drawn from. Every transition
//! of episode i, of length T_i, is drawn with probability
//!
//! ```text
//! p_i  = w_i / sum_j T_j w_j,      w_i = exp(g_i / alpha)
//! RW:  g_i = (G_i - min G) / (max G - min G)                     G_i the return
//! AW:  g_i = (A_i - min A) / (max A - min A),  A_i = G_i - V(s_i0)
//! top: w_i = 1 for the best share of episodes, else 0
//! ```
//!
//! V is the least-squares line through (first observation, return). How much there is to gain grows with the positive-
//! sided variance of the returns, the mean of max(G_i - mean G, 0)².

use polo_run::{Result, card::MethodCard, config::Settings, seed::Seeds};
use polo_sim::{
    Space,
    dataset::{Dataset, width},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Learner, Source};
use crate::{
    data::{Data, Wishes},
    settings::MethodSettings,
};

/// Which transitions are drawn more often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// All alike.
    #[default]
    Uniform,
    /// Those of episodes with a high return (RW).
    Return,
    /// Those of episodes with a higher return than their first observation promised (AW).
    Advantage,
    /// Those of the best episodes alone.
    Top,
}

/// The weight of every transition, up to a factor; none where all weigh the same.
pub fn weights(data: &Dataset, settings: &Data) -> Option<Vec<f64>> {
    let of_episodes = episode_weights(data, settings)?;
    let episodes = data.episodes().iter().zip(of_episodes);
    Some(
        episodes
            .flat_map(|(episode, weight)| {
                let each = if settings.equal_lengths { weight / episode.len() as f64 } else { weight };
                std::iter::repeat_n(each, episode.len())
            })
            .collect(),
    )
}

/// w_i of every episode, the greatest being 1; none where all are equal and lengths count.
pub fn episode_weights(data: &Dataset, settings: &Data) -> Option<Vec<f64>> {
    let returns = data.returns();
    let weights = match settings.sampling {
        Sampling::Uniform => vec![1.0; returns.len()],
        Sampling::Return => softened(&returns, settings.temperature),
        Sampling::Advantage => softened(&advantages(data, &returns), settings.temperature),
        Sampling::Top => best(&returns, settings.top),
    };
    (settings.equal_lengths || weights.iter().any(|&weight| weight != 1.0)).then_some(weights)
}

/// exp((g - 1) / alpha) of numbers brought between 0 and 1; 1 where all are equal.
fn softened(numbers: &[f64], alpha: f64) -> Vec<f64> {
    let (least, most) = ends(numbers);
    let range = most - least;
    let weight = |x: &f64| if range > 0.0 { (((x - least) / range - 1.0) / alpha).exp() } else { 1.0 };
    numbers.iter().map(weight).collect()
}

fn ends(numbers: &[f64]) -> (f64, f64) {
    let fold = |from: f64, pick: fn(f64, f64) -> f64| numbers.iter().copied().fold(from, pick);
    (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
}

/// 1 for the best share of episodes, at least one; equal returns go by their order.
fn best(returns: &[f64], share: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..returns.len()).collect();
    order.sort_by(|&a, &b| returns[b].total_cmp(&returns[a]));
    let count = ((returns.len() as f64 * share) as usize).max(1);
    let mut weights = vec![0.0; returns.len()];
    order[..count.min(returns.len())].iter().for_each(|&episode| weights[episode] = 1.0);
    weights
}

/// Returns less what the first observation promised: the least-squares line, with an intercept, through both. Directions
/// in which first observations do not differ promise nothing.
fn advantages(data: &Dataset, returns: &[f64]) -> Vec<f64> {
    let size = width(&data.about.observations);
    let rows = returns.len();
    let first = |episode: usize, i: usize| {
        f64::from(data.transitions().observations[data.episodes()[episode].start * size + i])
    };
    let mean_of = |i: usize| (0..rows).map(|row| first(row, i)).sum::<f64>() / rows as f64;
    let means: Vec<f64> = (0..size).map(mean_of).collect();
    let mean = returns.iter().sum::<f64>() / rows as f64;
    let x = faer::Mat::from_fn(rows, size, |row, i| first(row, i) - means[i]);
    let y = faer::Mat::from_fn(rows, 1, |row, _| returns[row] - mean);
    let Ok(parts) = x.thin_svd() else { return returns.to_vec() };
    let singular: Vec<f64> = parts.S().column_vector().iter().copied().collect();
    let least = singular.first().copied().unwrap_or(0.0) * 1e-10;
    let along = parts.U().transpose() * &y;
    // The projection of the returns on what first observations can tell.
    let kept =
        faer::Mat::from_fn(singular.len(), 1, |i, _| if singular[i] > least { along[(i, 0)] } else { 0.0 });
    let promised = parts.U() * kept;
    (0..rows).map(|row| returns[row] - mean - promised[(row, 0)]).collect()
}

/// Mean of max(G - mean G, 0)².
pub fn positive_sided_variance(returns: &[f64]) -> f64 {
    let mean = returns.iter().sum::<f64>() / returns.len().max(1) as f64;
    returns.iter().map(|g| (g - mean).max(0.0).powi(2)).sum::<f64>() / returns.len().max(1) as f64
}

/// Settings of `polo train trajectory-weighting`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrajectoryWeighting {
    /// The learner, with its own defaults; to change those, train it by its name with `data.sampling`.
    pub learner: Base,
}

/// A learner whose batches are weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// `bc`.
    Bc,
    /// `td3-bc`.
    #[default]
    Td3Bc,
    /// `cql`.
    Cql,
    /// `iql`.
    Iql,
    /// `awac`.
    Awac,
}

impl Base {
    fn method(self) -> Box<dyn Control> {
        match self {
            Base::Bc => Box::new(super::bc::Bc::default()),
            Base::Td3Bc => Box::new(super::td3_bc::Td3Bc::default()),
            Base::Cql => Box::new(super::cql::Cql::default()),
            Base::Iql => Box::new(super::iql::Iql::default()),
            Base::Awac => Box::new(super::awac::Awac::default()),
        }
    }
}

impl Settings for TrajectoryWeighting {}

impl MethodSettings for TrajectoryWeighting {
    const SLUG: &'static str = CARD.slug;
    const SAMPLING: Sampling = Sampling::Advantage;
}

impl Control for TrajectoryWeighting {
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        self.learner.method().learner(observations, actions, seeds)
    }

    fn source(&self) -> Source {
        Source::Data
    }

    fn wishes(&self) -> Wishes {
        self.learner.method().wishes()
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "trajectory-weighting",
    title: "Trajectory weighting for mixed datasets",
    paper: "Hong, Agrawal, Tachet des Combes, Laroche: Harnessing Mixed Offline Reinforcement Learning Datasets via \
            Trajectory Weighting",
    arxiv: "2306.13085",
    year: 2023,
    family: super::FAMILY,
    summary: "draw from good episodes more often, whatever offline method learns from them",
    claim: "where a few episodes of a dataset are much better than the rest, drawing from them more often lifts \
            constrained offline learners far above uniform sampling",
    equation: "p_i = w_i / sum_j T_j w_j,   w_i = exp(g_i / alpha)\n\
               RW: g_i = (G_i - min G) / (max G - min G),   AW: the same of A_i = G_i - V(s_i0)",
    symbols: &[
        ("p_i", "probability of each transition of episode i, whose length is T_i"),
        ("G_i", "undiscounted return of episode i, of the rewards as logged"),
        ("V", "least-squares line through (first observation, return)"),
        ("alpha", "temperature (data.temperature)"),
    ],
    metrics: &[("those of the learner", "see `polo explain td3-bc`")],
    reach_for: "data of mixed quality with a learner that stays near it (bc, td3-bc, iql, cql)",
    avoid_when: "returns are sparse or mostly chance: the lucky episodes are not the good ones; or returns hardly differ",
    failure_signs: &[
        "a few episodes make up all batches and the policy overfits them: raise data.temperature",
        "nothing changes: `polo data info` shows returns without positive-sided variance",
    ],
    variants: &[
        ("by return (RW)", "data.sampling = \"return\""),
        ("the best episodes alone", "data.sampling = \"top\", data.top = 0.1"),
        ("with any offline method", "polo train iql --set data.sampling=advantage"),
        ("without a bias for long episodes", "data.equal_lengths = true"),
    ],
};

#[cfg(test)]
mod tests {
    use polo_sim::{dataset::About, replay::Batch};

    use super::*;

    /// Episodes of given lengths whose returns are given, from given first observations.
    fn data(episodes: &[(usize, f32, [f32; 2])]) -> Dataset {
        let about = About {
            environment: String::new(),
            observations: Space::symmetric(&[9.0, 9.0]),
            actions: Space::symmetric(&[1.0]),
            source: String::new(),
        };
        let (mut rows, mut ends) = (Batch::default(), Vec::new());
        for &(length, total, first) in episodes {
            for step in 0..length {
                let shown = if step == 0 { first } else { [0.0, 0.0] };
                rows.append(&Batch {
                    observations: shown.to_vec(),
                    actions: vec![0.0],
                    rewards: vec![if step == 0 { total } else { 0.0 }],
                    next_observations: vec![0.0, 0.0],
                    terminated: vec![0.0],
                    ..Batch::default()
                });
                ends.push(step + 1 == length);
            }
        }
        Dataset::new(about, rows, ends).unwrap()
    }

    fn settings(sampling: Sampling, temperature: f64) -> Data {
        Data { sampling, temperature, ..Data::default() }
    }

    #[track_caller]
    fn check(episodes: &[(usize, f32)], settings: &Data, expected: &[f64]) {
        let episodes: Vec<_> = episodes.iter().map(|&(length, total)| (length, total, [0.0, 0.0])).collect();
        let data = data(&episodes);
        let found = weights(&data, settings).unwrap_or_else(|| vec![1.0; data.len()]);
        let sum: f64 = found.iter().sum();
        let found: Vec<f64> = found.iter().map(|weight| weight / sum).collect();
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 5e-7, "{found:?}");
        }
    }

    #[test]
    fn probabilities_of_the_card() {
        let by_return = settings(Sampling::Return, 1.0);
        check(&[(1, 0.0), (1, 1.0)], &by_return, &[0.268941, 0.731059]);
        check(&[(3, 0.0), (1, 1.0)], &by_return, &[0.174878, 0.174878, 0.174878, 0.475367]);
        let equal = Data { equal_lengths: true, ..by_return };
        check(&[(3, 0.0), (1, 1.0)], &equal, &[0.268941 / 3.0, 0.268941 / 3.0, 0.268941 / 3.0, 0.731059]);
        let sharp = settings(Sampling::Return, 0.1);
        check(&[(1, 0.0), (1, 5.0), (1, 10.0)], &sharp, &[4.5094e-5, 6.6925e-3, 0.9932624]);
        check(&[(1, 3.0), (1, 3.0)], &sharp, &[0.5, 0.5]);
        check(&[(1, 3.0), (2, 3.0)], &settings(Sampling::Uniform, 0.1), &[1.0 / 3.0; 3]);
        let top = Data { top: 0.5, ..settings(Sampling::Top, 0.1) };
        check(&[(1, 3.0), (2, 4.0), (1, 4.0), (1, 0.0)], &top, &[0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
        let few = Data { top: 0.1, ..settings(Sampling::Top, 0.1) };
        check(&[(1, 3.0), (1, 4.0), (1, 4.0)], &few, &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn weights_do_not_see_what_does_not_matter() {
        let firsts = [[0.5, -1.0], [2.0, 0.0], [-1.0, 3.0], [0.0, 0.25], [1.0, 1.0]];
        let returns = [3.0f32, -1.0, 4.0, 1.0, 5.0];
        let of = |sampling, change: &dyn Fn(usize) -> f32| {
            let episodes: Vec<_> = (0..5).map(|i| (i + 1, change(i), firsts[i])).collect();
            weights(&data(&episodes), &settings(sampling, 0.3)).unwrap()
        };
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        let plain = of(Sampling::Return, &|i| returns[i]);
        assert!(near(&plain, &of(Sampling::Return, &|i| 4.0 * returns[i] - 7.0)));
        let plain = of(Sampling::Advantage, &|i| returns[i]);
        let affine = |i: usize| returns[i] + 2.0 * firsts[i][0] - 3.0 * firsts[i][1] + 8.0;
        assert!(near(&plain, &of(Sampling::Advantage, &affine)));
        assert!(!near(&of(Sampling::Return, &|i| returns[i]), &of(Sampling::Return, &affine)));
        // First observations that all agree promise the mean, so that AW is RW.
        let same: Vec<_> = returns.iter().map(|&total| (1, total, [2.0, 2.0])).collect();
        let [aw, rw] = [Sampling::Advantage, Sampling::Return]
            .map(|sampling| weights(&data(&same), &settings(sampling, 0.3)).unwrap());
        assert!(near(&aw, &rw), "{aw:?} {rw:?}");
    }

    #[test]
    fn variance_above_the_mean() {
        assert_eq!(positive_sided_variance(&[0.0, 0.0, 0.0, 4.0]), 2.25);
        assert_eq!(positive_sided_variance(&[3.0, 3.0]), 0.0);
    }
}
