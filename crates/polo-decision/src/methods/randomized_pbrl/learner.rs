//! A run: rounds of two episodes, and what it leaves behind.

use std::path::Path;

use polo_run::{
    Result,
    metrics::Metrics,
    process::Process,
    seed::{Seeds, unit},
};
use serde::{Deserialize, Serialize};

use super::{Algorithm, Comparator, Query, RandomizedPbrl, Rewards, Transitions};
use crate::{
    regression::sigmoid,
    tabular::{Policy, Tabular},
    train::{load_state, make_folder, save_state},
};

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub round: u64,
    /// Σ 2 V* - V^{π⁰} - V^{π¹}.
    pub regret: f64,
    pub queries: u64,
    /// π⁰ of the round before.
    pub last: Policy,
    pub rewards: Rewards,
    pub transitions: Transitions,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Learner {
    pub(super) settings: RandomizedPbrl,
    pub(super) seeds: Seeds,
    /// The process it plays.
    pub process: Tabular,
    /// V*.
    pub best: f64,
    pub(super) state: State,
}

/// What happened in a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// V* - V of both policies together.
    pub regret: f64,
    /// E |(θ - θ')·x|.
    pub disagreement: f64,
    /// Whether τ¹ was preferred, if that was asked.
    pub outcome: Option<bool>,
}

impl Learner {
    /// The greedy policy of a draw.
    fn draw(&mut self, stream: &str) -> Result<Policy> {
        let (round, settings) = (self.state.round, &self.settings);
        let mut rng = self.seeds.rng(stream, round);
        let State { rewards, transitions, .. } = &mut self.state;
        let drawn = rewards.draw(settings.sigma_reward, &mut rng)?;
        let drawn = rewards.by_pair(&self.process, &drawn);
        let table = transitions.plan(&self.process, &drawn, &settings.iteration(), &mut rng)?;
        Ok(Policy::Table(table))
    }

    /// Plays a round.
    ///
    /// # Errors
    /// Covariances that rounding has ruined.
    pub fn play(&mut self) -> Result<Round> {
        let round = self.state.round;
        let first = self.draw("draw")?;
        let second = match self.settings.comparator {
            Comparator::Previous => self.state.last.clone(),
            Comparator::New => first.clone(),
            Comparator::SecondDraw => self.draw("second draw")?,
            Comparator::Uniform => Policy::Uniform,
        };
        let process = &self.process;
        let episodes = [
            process.play(&first, &mut self.seeds.rng("episode 0", round)),
            process.play(&second, &mut self.seeds.rng("episode 1", round)),
        ];
        let State { rewards, transitions, queries, .. } = &mut self.state;
        let x = rewards.difference(process, &episodes);
        let disagreement = rewards.disagreement(self.settings.sigma_reward, &x);
        let differs = x.iter().any(|x| *x != 0.0);
        let asks = match self.settings.query {
            Query::Active => disagreement > self.settings.epsilon,
            Query::Always => true,
            Query::Random => unit(&mut self.seeds.rng("query", round)) < self.settings.query_probability,
        };
        let outcome = if asks && differs && self.settings.algorithm != Algorithm::Rlsvi {
            let better = process.total(&episodes[1]) - process.total(&episodes[0]);
            let likely = sigmoid(self.settings.link_scale * better);
            let outcome = unit(&mut self.seeds.rng("preference", round)) < likely;
            rewards.prefer(process, &x, outcome, self.settings.refit_every, &self.seeds)?;
            *queries += 1;
            Some(outcome)
        } else {
            None
        };
        let mut weights = self.seeds.rng("weights", round);
        for episode in &episodes[..1 + usize::from(self.settings.learn_from_both)] {
            transitions.learn(process, episode, &mut weights);
            if self.settings.algorithm == Algorithm::Rlsvi {
                let size = process.size();
                for (h, (pair, _)) in episode.iter().enumerate() {
                    let mut features = vec![0.0; process.horizon * size];
                    features[h * size..(h + 1) * size].copy_from_slice(&process.features[*pair]);
                    rewards.see(&features, process.rewards[h][*pair]);
                }
            }
        }
        let regret = 2.0 * self.best - process.value(&first) - process.value(&second);
        self.state.round += 1;
        self.state.regret += regret;
        self.state.last = first;
        Ok(Round { regret, disagreement, outcome })
    }

    /// Plays until this round.
    ///
    /// # Errors
    /// Those of [`Self::play`].
    pub fn play_until(&mut self, round: u64) -> Result<()> {
        while self.state.round < round.min(self.settings.rounds) {
            self.play()?;
        }
        Ok(())
    }

    /// Reg_t.
    pub fn regret(&self) -> f64 {
        self.state.regret
    }

    /// Σ Z.
    pub fn queries(&self) -> u64 {
        self.state.queries
    }

    /// The best policy under the means of what is believed.
    ///
    /// # Errors
    /// Covariances that rounding has ruined.
    pub fn recommended(&self) -> Result<Policy> {
        let (State { transitions, .. }, rewards) = (&self.state, self.mean_rewards());
        let table = transitions.plan_on_means(&self.process, &rewards, &self.settings.iteration())?;
        Ok(Policy::Table(table))
    }

    /// Means of what is believed about rewards, `[H][S · A]`.
    fn mean_rewards(&self) -> Vec<Vec<f64>> {
        self.state.rewards.by_pair(&self.process, &self.state.rewards.centre())
    }
}

impl Process for Learner {
    fn done(&self) -> u64 {
        self.state.round
    }

    fn total(&self) -> u64 {
        self.settings.rounds
    }

    fn go_on(&mut self) -> Result<Metrics> {
        let round = self.play()?;
        let mut metrics: Metrics = [
            ("regret/total", self.state.regret),
            ("regret/mean", self.state.regret / (2.0 * self.state.round as f64)),
            ("regret/round", round.regret / 2.0),
            ("queries/total", self.state.queries as f64),
            ("queries/disagreement", round.disagreement),
        ]
        .into_iter()
        .collect();
        if let Some(outcome) = round.outcome {
            metrics.set("queries/outcome", f64::from(u8::from(outcome)));
        }
        Ok(metrics)
    }

    fn must_be_finite(&self, metric: &str) -> bool {
        metric.starts_with("regret/")
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let value = self.process.value(&self.recommended()?);
        let mean = self.state.regret / (2.0 * self.state.round.max(1) as f64);
        let metrics = [
            ("regret/total", self.state.regret),
            ("regret/mean", mean),
            ("queries/total", self.state.queries as f64),
            ("values/recommended", value),
            ("values/best", self.best),
        ];
        let line = format!(
            "mean regret {mean:.4}, {} preferences asked, value {value:.4} of {:.4}",
            self.state.queries, self.best
        );
        Ok(Some((metrics.into_iter().collect(), line)))
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
        let (process, rewards) = (&self.process, &self.state.rewards);
        let linear = !matches!(rewards, Rewards::Ensemble(_));
        let policy = self.recommended()?;
        let names = match &policy {
            Policy::Table(table) => table
                .iter()
                .map(|step| step.iter().map(|action| process.action_names[*action].as_str()).collect())
                .collect(),
            Policy::Uniform => Vec::new(),
        };
        let by_action = |step: &Vec<f64>| step.chunks(process.actions).map(Vec::from).collect();
        let takeaway = Takeaway {
            states: &process.state_names,
            policy: names,
            value: process.value(&policy),
            best: self.best,
            rewards: self.mean_rewards().iter().map(by_action).collect(),
            theta: linear.then(|| rewards.centre()),
            rounds: self.state.round,
            regret: self.state.regret,
            queries: self.state.queries,
        };
        save_state(&path.join("policy.json"), &takeaway)?;
        save_state(&path.join("process.json"), &process.to_json())
    }
}

/// `policy.json`: what was learnt.
#[derive(Serialize)]
struct Takeaway<'a> {
    states: &'a [String],
    /// The action for each step and state, under the means of what is believed.
    policy: Vec<Vec<&'a str>>,
    /// Its exact value, and that of an optimal policy.
    value: f64,
    best: f64,
    /// `[H][S][A]`; identified but for what no comparison shows.
    rewards: Vec<Vec<Vec<f64>>>,
    /// `[H · d]`, where rewards are linear in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    theta: Option<Vec<f64>>,
    rounds: u64,
    /// Reg_T.
    regret: f64,
    queries: u64,
}
