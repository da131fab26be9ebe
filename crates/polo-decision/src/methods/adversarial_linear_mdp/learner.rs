//! A run: episode by episode, or epoch by epoch without a simulator.

use std::path::Path;

use polo_run::{
    Result,
    metrics::Metrics,
    process::Process,
    seed::{Seeds, below, unit},
};
use serde::{Deserialize, Serialize};

use super::{
    AdversarialLinearMdp, Algorithm, Inverse,
    cover::Cover,
    estimates,
    layered::{Episode, Layered, Table, Theta},
};
use crate::{
    draw::categorical,
    linear::Matrix,
    train::{load_state, make_folder, save_state},
};

/// Everything that a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) done: u64,
    /// Σ (Q̂ - B) of all pairs.
    pub(super) cumulative: Table,
    /// Expected loss of all episodes.
    pub(super) loss: f64,
    /// Episodes of each phase.
    pub(super) played: Vec<u64>,
    /// The least Q̂ so far.
    pub(super) least: f64,
}

/// A run.
pub struct Learner {
    pub(super) settings: AdversarialLinearMdp,
    pub(super) seeds: Seeds,
    pub(super) process: Layered,
    pub(super) cover: Option<Cover>,
    pub(super) state: State,
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
    pub(super) fn losses(&self) -> Theta {
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
        estimates::regularised(covariance, gamma)
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
            let inverse = estimates::regularised(process.covariance(h, &often), gamma)?;
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
        make_folder(path)?;
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
