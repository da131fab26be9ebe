//! What is believed about transitions: randomised value iteration with features, or Dirichlet posteriors of a table.

use polo_run::{Result, seed::Seeds};
use rand_chacha::rand_core::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ensembles::TransitionEnsemble, gaussian::Gaussian};
use crate::{
    draw::dirichlet_with,
    linear::dot,
    tabular::{Episode, Table, Tabular},
};

/// What a pair is worth after its reward while its features are unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultValue {
    /// The steps that are left times the largest reward: such pairs are sought.
    #[default]
    Optimistic,
    /// Nothing.
    Zero,
}

/// How `pbts` holds the posterior of transitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TransitionPosterior {
    /// A Dirichlet distribution for every step and pair.
    #[default]
    Dirichlet,
    /// Small networks, each fitted on transitions of its own weights.
    Ensemble,
}

/// How PR-LSVI turns ridge regressions of the next values into ω.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Iteration {
    /// σ_P.
    pub sigma: f64,
    /// ‖φ‖ up to which the regression is trusted.
    pub alpha_low: f64,
    /// ‖φ‖ beyond which the default value stands.
    pub alpha_high: f64,
    /// The default value.
    pub default_value: DefaultValue,
    /// Whether draws are cut at ± the steps left times the largest reward.
    pub clip: bool,
    /// B.
    pub reward_bound: f64,
}

/// What is believed about transitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Transitions {
    /// PR-LSVI, of each step: λ I + Σ φ φᵀ, and Σ φ by the next state, `[S][d]`.
    Linear {
        /// Covariances.
        covariances: Vec<Gaussian>,
        /// Sums of features, so that Σ φ V(s') can be had for every V.
        sums: Vec<Vec<Vec<f64>>>,
    },
    /// Dirichlet posteriors: concentrations, `[H][S · A · S]`.
    Dirichlet(Vec<Vec<f64>>),
    /// Networks.
    Ensemble(TransitionEnsemble),
}

impl Transitions {
    /// Ridge regressions without data.
    pub fn linear(process: &Tabular, lambda: f64) -> Self {
        let size = process.size();
        Self::Linear {
            covariances: vec![Gaussian::new(size, lambda); process.horizon],
            sums: vec![vec![vec![0.0; size]; process.states]; process.horizon],
        }
    }

    /// The symmetric prior.
    pub fn dirichlet(process: &Tabular, concentration: f64) -> Self {
        Self::Dirichlet(vec![vec![concentration; process.pairs() * process.states]; process.horizon])
    }

    /// Learns from an episode. Weights of an ensemble come from the generator.
    pub fn learn(&mut self, process: &Tabular, episode: &Episode, rng: &mut impl Rng) {
        if let Self::Ensemble(ensemble) = self {
            ensemble.learn(process, episode, rng);
        }
        for (h, (pair, next)) in episode.iter().enumerate() {
            match self {
                Self::Linear { covariances, sums } => {
                    let features = &process.features[*pair];
                    covariances[h].add(features, 1.0);
                    sums[h][*next].iter_mut().zip(features).for_each(|(sum, x)| *sum += x);
                }
                Self::Dirichlet(counts) => counts[h][pair * process.states + next] += 1.0,
                Self::Ensemble(_) => {}
            }
        }
    }

    /// The greedy policy for rewards `[H][S · A]` under a draw of the transitions.
    ///
    /// # Errors
    /// A covariance that rounding has ruined.
    pub fn plan(
        &mut self,
        process: &Tabular,
        rewards: &[Vec<f64>],
        iteration: &Iteration,
        rng: &mut impl Rng,
    ) -> Result<Table> {
        if let Self::Ensemble(ensemble) = self {
            return Ok(plan_in(process, rewards, &ensemble.draw(process, rng)));
        }
        let mut failed = None;
        let table = process.greedy(|h, values| {
            let rewards = &rewards[h];
            match self {
                Self::Linear { covariances, sums } => {
                    let later = iteration.later(process, h, values, &mut covariances[h], &sums[h], rng);
                    match later {
                        Ok(later) => rewards.iter().zip(later).map(|(r, omega)| r + omega).collect(),
                        Err(problem) => {
                            failed = Some(problem);
                            rewards.clone()
                        }
                    }
                }
                Self::Dirichlet(counts) => {
                    let rows = counts[h].chunks_exact(process.states);
                    let drawn: Vec<f64> = rows.flat_map(|row| dirichlet_with(row, rng)).collect();
                    process.backup(rewards, &drawn, values)
                }
                Self::Ensemble(_) => rewards.clone(),
            }
        });
        failed.map_or(Ok(table), Err)
    }

    /// The greedy policy under the means of transitions and no noise, for what a user takes away.
    ///
    /// # Errors
    /// A covariance that rounding has ruined.
    pub fn plan_on_means(
        &self,
        process: &Tabular,
        rewards: &[Vec<f64>],
        iteration: &Iteration,
    ) -> Result<Table> {
        match self {
            Self::Dirichlet(counts) => {
                let mean = |row: &[f64]| {
                    let sum: f64 = row.iter().sum();
                    row.iter().map(|count| count / sum).collect::<Vec<f64>>()
                };
                let means: Vec<f64> =
                    counts.iter().flat_map(|step| step.chunks_exact(process.states)).flat_map(mean).collect();
                return Ok(plan_in(process, rewards, &means));
            }
            Self::Ensemble(ensemble) => return Ok(plan_in(process, rewards, &ensemble.mean(process))),
            Self::Linear { .. } => {}
        }
        // Nothing unseen is worth the risk any more.
        let quiet = Iteration { sigma: 0.0, default_value: DefaultValue::Zero, ..*iteration };
        // Draws without noise leave the generator untouched.
        self.clone().plan(process, rewards, &quiet, &mut Seeds::new(0).rng("unused", 0))
    }
}

/// The greedy policy in a model, transitions `[H · S · A · S]`.
fn plan_in(process: &Tabular, rewards: &[Vec<f64>], transitions: &[f64]) -> Table {
    let step = process.pairs() * process.states;
    process.greedy(|h, values| process.backup(&rewards[h], &transitions[h * step..(h + 1) * step], values))
}

/// φ·θ_h of all pairs.
pub fn rewards(process: &Tabular, theta: &[f64], h: usize) -> Vec<f64> {
    let size = process.size();
    process.features.iter().map(|x| dot(x, &theta[h * size..(h + 1) * size])).collect()
}

impl Iteration {
    /// ω_h of all pairs.
    fn later(
        &self,
        process: &Tabular,
        h: usize,
        values: &[f64],
        covariance: &mut Gaussian,
        sums: &[Vec<f64>],
        rng: &mut impl Rng,
    ) -> Result<Vec<f64>> {
        let left = process.horizon - 1 - h;
        if left == 0 {
            return Ok(vec![0.0; process.pairs()]);
        }
        let most = left as f64 * self.reward_bound;
        let mut sum = vec![0.0; process.size()];
        for (features, value) in sums.iter().zip(values) {
            sum.iter_mut().zip(features).for_each(|(sum, x)| *sum += value * x);
        }
        let noise = covariance.noise(self.sigma, rng)?;
        let theta: Vec<f64> =
            covariance.solve(&sum).iter().zip(noise).map(|(mean, noise)| mean + noise).collect();
        let default = match self.default_value {
            DefaultValue::Optimistic => most,
            DefaultValue::Zero => 0.0,
        };
        let one = |features: &Vec<f64>| {
            let drawn = dot(features, &theta);
            let drawn = if self.clip { drawn.clamp(-most, most) } else { drawn };
            let norm = covariance.norm(features);
            let trust = if norm <= self.alpha_low {
                1.0
            } else if norm > self.alpha_high {
                0.0
            } else {
                (self.alpha_high - norm) / (self.alpha_high - self.alpha_low)
            };
            trust * drawn + (1.0 - trust) * default
        };
        Ok(process.features.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITERATION: Iteration = Iteration {
        sigma: 0.0,
        alpha_low: 0.7,
        alpha_high: 1.0,
        default_value: DefaultValue::Optimistic,
        clip: true,
        reward_bound: 1.0,
    };

    /// ω of step `h` after `visits` of the pair 0 that led to state 1.
    fn later(iteration: &Iteration, h: usize, visits: usize, values: &[f64]) -> Vec<f64> {
        let process = Tabular::random(3, 3, 2, 0.5, &Seeds::new(1));
        let mut model = Transitions::linear(&process, 1.0);
        let mut rng = Seeds::new(2).rng("noise", 0);
        (0..visits).for_each(|_| model.learn(&process, &vec![(0, 1); 3], &mut rng));
        let Transitions::Linear { mut covariances, sums } = model else { unreachable!() };
        iteration.later(&process, h, values, &mut covariances[h], &sums[h], &mut rng).unwrap()
    }

    #[test]
    fn unseen_pairs_have_the_default_and_one_visit_nearly_removes_it() {
        let values = [0.1, 1.4, 0.3];
        #[track_caller]
        fn check(omega: &[f64], visited: f64, other: f64) {
            assert!((omega[0] - visited).abs() < 1e-12, "{omega:?}");
            assert!(omega[1..].iter().all(|omega| *omega == other), "{omega:?}");
        }
        check(&later(&ITERATION, 0, 0, &values), 2.0, 2.0);
        let trust = (1.0 - 0.5_f64.sqrt()) / 0.3;
        assert!((trust - 0.976).abs() < 0.001);
        // Ridge regression of one visit halves what was seen.
        check(&later(&ITERATION, 0, 1, &values), trust * 0.7 + (1.0 - trust) * 2.0, 2.0);
        check(&later(&ITERATION, 1, 2, &values), 1.4 * 2.0 / 3.0, 1.0);
        let cut = [0.0, 9.0, 0.0];
        check(&later(&ITERATION, 1, 2, &cut), 1.0, 1.0);
        let free = Iteration { clip: false, default_value: DefaultValue::Zero, ..ITERATION };
        check(&later(&free, 1, 2, &cut), 6.0, 0.0);
        // Nothing follows the last step, whatever the noise.
        check(&later(&Iteration { sigma: 1.0, ..ITERATION }, 2, 2, &values), 0.0, 0.0);
    }

    #[test]
    fn tables_count_what_followed() {
        let process = Tabular::random(2, 3, 2, 0.5, &Seeds::new(1));
        let mut model = Transitions::dirichlet(&process, 0.5);
        model.learn(&process, &vec![(1, 2), (5, 0)], &mut Seeds::new(1).rng("unused", 0));
        let Transitions::Dirichlet(counts) = model else { unreachable!() };
        assert_eq!(counts[0][3..6], [0.5, 0.5, 1.5]);
        assert_eq!(counts[1][15..18], [1.5, 0.5, 0.5]);
        assert_eq!(counts.concat().iter().sum::<f64>(), 2.0 * 9.0 + 2.0);
    }
}
