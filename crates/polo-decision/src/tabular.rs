//! Decision processes of a few states and actions with a horizon: random ones, the user's own from a file, and what can
//! be computed of them exactly.

use std::{fs, path::Path};

use polo_run::{
    Problem, Result,
    seed::{Seeds, below, unit},
};
use rand_chacha::rand_core::Rng;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    draw::{categorical, dirichlet},
    linear::{Matrix, dot},
    train::wrong_json,
};

/// An action for each step and state, `[H][S]`.
pub type Table = Vec<Vec<usize>>;

/// Rewards or transitions that are no further from what features can express are linear in them.
const ROUNDING: f64 = 1e-6;

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub enum Policy {
    /// This action.
    Table(Table),
    /// Every action alike.
    Uniform,
}

/// What happened in an episode: in each step the pair (state · A + action), and the state after it.
pub type Episode = Vec<(usize, usize)>;

/// A process of H steps with rewards r_h(s, a) and transitions P_h(s' | s, a), linear in features φ(s, a).
#[derive(Clone, Debug, PartialEq)]
pub struct Tabular {
    /// H.
    pub horizon: usize,
    /// S.
    pub states: usize,
    /// A.
    pub actions: usize,
    /// Probabilities of the first state, `[S]`.
    pub start: Vec<f64>,
    /// `[H][S · A · S]`.
    pub transitions: Vec<Vec<f64>>,
    /// `[H][S · A]`.
    pub rewards: Vec<Vec<f64>>,
    /// `[S · A][d]`, of norm at most 1; without structure one feature for each pair.
    pub features: Vec<Vec<f64>>,
    /// Names of states, `[S]`.
    pub state_names: Vec<String>,
    /// Names of actions, `[A]`.
    pub action_names: Vec<String>,
}

fn numbered(what: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{what} {at}")).collect()
}

fn one_hot(pairs: usize) -> Vec<Vec<f64>> {
    Matrix::identity(pairs, 1.0).numbers.chunks_exact(pairs).map(<[f64]>::to_vec).collect()
}

impl Tabular {
    /// A random process that begins in state 0: rewards uniform on [0, 1], transitions symmetric Dirichlet.
    pub fn random(horizon: usize, states: usize, actions: usize, concentration: f64, seeds: &Seeds) -> Self {
        let mut rng = seeds.rng("process", 0);
        let pairs = states * actions;
        let mut start = vec![0.0; states];
        start[0] = 1.0;
        let transitions = (0..horizon)
            .map(|_| (0..pairs).flat_map(|_| dirichlet(concentration, states, &mut rng)).collect())
            .collect();
        let rewards = (0..horizon).map(|_| (0..pairs).map(|_| unit(&mut rng)).collect()).collect();
        Self {
            horizon,
            states,
            actions,
            start,
            transitions,
            rewards,
            features: one_hot(pairs),
            state_names: numbered("state", states),
            action_names: numbered("action", actions),
        }
    }

    /// Numbers of (step, state, action).
    pub fn pairs(&self) -> usize {
        self.states * self.actions
    }

    /// d.
    pub fn size(&self) -> usize {
        self.features.first().map_or(0, Vec::len)
    }

    /// Q_h = r_h + P_h V under rewards and transitions of any model.
    pub fn backup(&self, rewards: &[f64], transitions: &[f64], values: &[f64]) -> Vec<f64> {
        let rows = transitions.chunks_exact(self.states);
        rewards.iter().zip(rows).map(|(reward, row)| reward + dot(row, values)).collect()
    }

    /// The greedy policy backwards from the last step, where `q` gives Q_h from h and V_{h+1}. Ties go to the first action.
    pub fn greedy(&self, mut q: impl FnMut(usize, &[f64]) -> Vec<f64>) -> Table {
        let mut values = vec![0.0; self.states];
        let mut table = Vec::with_capacity(self.horizon);
        for h in (0..self.horizon).rev() {
            let q = q(h, &values);
            let best =
                |row: &[f64]| (1..row.len()).fold(0, |best, a| if row[a] > row[best] { a } else { best });
            let actions: Vec<usize> = q.chunks_exact(self.actions).map(best).collect();
            values = q.chunks_exact(self.actions).zip(&actions).map(|(row, a)| row[*a]).collect();
            table.push(actions);
        }
        table.reverse();
        table
    }

    /// An optimal policy.
    pub fn optimum(&self) -> Policy {
        Policy::Table(self.greedy(|h, values| self.backup(&self.rewards[h], &self.transitions[h], values)))
    }

    /// Expected return of a policy.
    pub fn value(&self, policy: &Policy) -> f64 {
        let mut values = vec![0.0; self.states];
        for h in (0..self.horizon).rev() {
            let q = self.backup(&self.rewards[h], &self.transitions[h], &values);
            let of = |(state, row): (usize, &[f64])| match policy {
                Policy::Table(table) => row[table[h][state]],
                Policy::Uniform => row.iter().sum::<f64>() / row.len() as f64,
            };
            values = q.chunks_exact(self.actions).enumerate().map(of).collect();
        }
        dot(&self.start, &values)
    }

    /// An episode.
    pub fn play(&self, policy: &Policy, rng: &mut impl Rng) -> Episode {
        let mut state = categorical(&self.start, rng);
        let step = |h: usize| {
            let action = match policy {
                Policy::Table(table) => table[h][state],
                Policy::Uniform => below(rng, self.actions as u64) as usize,
            };
            let pair = state * self.actions + action;
            let from = pair * self.states;
            state = categorical(&self.transitions[h][from..from + self.states], rng);
            (pair, state)
        };
        (0..self.horizon).map(step).collect()
    }

    /// Its return.
    pub fn total(&self, episode: &Episode) -> f64 {
        episode.iter().zip(&self.rewards).map(|((pair, _), rewards)| rewards[*pair]).sum()
    }

    /// φ(τ), the features of all its steps one after the other, `[H · d]`.
    pub fn stacked(&self, episode: &Episode) -> Vec<f64> {
        episode.iter().flat_map(|(pair, _)| self.features[*pair].iter().copied()).collect()
    }

    /// How often each pair of each step was visited, `[H · S · A]`: [`Self::stacked`] with a feature for each pair.
    pub fn visits(&self, episode: &Episode) -> Vec<f64> {
        let mut visits = vec![0.0; self.horizon * self.pairs()];
        episode.iter().enumerate().for_each(|(h, (pair, _))| visits[h * self.pairs() + pair] = 1.0);
        visits
    }

    /// Reads a JSON object:
    ///
    /// - `horizon`: H;
    /// - `transitions`: probabilities, `[states][actions][next states]`, or one such table for each step;
    /// - `rewards`: `[states][actions]`, or one such table for each step; within ± `reward_bound`;
    /// - `start` (optional): probabilities of the first state; without it episodes begin in state 0;
    /// - `features` (optional): `[states][actions][d]`, of norm at most 1, in which rewards and transitions of every step
    ///   are linear; without it there is one feature for each state and action;
    /// - `states`, `actions` (optional): names.
    ///
    /// # Errors
    /// A file that is no such object; lengths that disagree; what is no probability or not linear in the features; names
    /// that come twice.
    pub fn read(path: &Path, reward_bound: f64) -> Result<Self> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            horizon: usize,
            transitions: serde_json::Value,
            rewards: serde_json::Value,
            start: Option<Vec<f64>>,
            features: Option<Vec<Vec<Vec<f64>>>>,
            states: Option<Vec<String>>,
            actions: Option<Vec<String>>,
        }
        let text = fs::read_to_string(path).map_err(|error| Problem::io("read", path, &error))?;
        let file: File = serde_json::from_str(&text)
            .map_err(|error| wrong_json("this is no decision process", path, 0, &error))?;
        let placed = |message: String| Problem::input(message).place(path.display().to_string());
        let transitions: Vec<Vec<Vec<Vec<f64>>>> =
            by_step(file.transitions, 3, file.horizon, "transitions").map_err(placed)?;
        let rewards: Vec<Vec<Vec<f64>>> =
            by_step(file.rewards, 2, file.horizon, "rewards").map_err(placed)?;
        let states = rewards[0].len();
        let actions = rewards[0].first().map_or(0, Vec::len);
        if states == 0 || actions < 2 {
            return Err(placed("a process needs a state and at least two actions".into()));
        }
        let start =
            file.start.unwrap_or_else(|| (0..states).map(|at| f64::from(u8::from(at == 0))).collect());
        let flat = |table: &Vec<Vec<f64>>| table.iter().flatten().copied().collect::<Vec<f64>>();
        let process = Self {
            horizon: file.horizon,
            states,
            actions,
            start,
            transitions: transitions
                .iter()
                .map(|step| step.iter().flatten().flatten().copied().collect())
                .collect(),
            rewards: rewards.iter().map(flat).collect(),
            features: file
                .features
                .map_or_else(|| one_hot(states * actions), |table| table.into_iter().flatten().collect()),
            state_names: file.states.unwrap_or_else(|| numbered("state", states)),
            action_names: file.actions.unwrap_or_else(|| numbered("action", actions)),
        };
        let shaped = transitions.iter().all(|step| {
            step.len() == states
                && step.iter().all(|rows| rows.len() == actions && rows.iter().all(|row| row.len() == states))
        });
        if !shaped
            || rewards.iter().any(|step| step.len() != states || step.iter().any(|row| row.len() != actions))
        {
            return Err(placed(format!("not every table has {states} states and {actions} actions")));
        }
        process.check(reward_bound).map_err(placed)?;
        Ok(process)
    }

    fn check(&self, reward_bound: f64) -> std::result::Result<(), String> {
        let stochastic = |row: &[f64]| {
            row.iter().all(|p| (0.0..=1.0).contains(p)) && (row.iter().sum::<f64>() - 1.0).abs() < 1e-6
        };
        if self.start.len() != self.states || !stochastic(&self.start) {
            return Err(format!("start must be {} probabilities of sum 1", self.states));
        }
        for (names, count, what) in
            [(&self.state_names, self.states, "states"), (&self.action_names, self.actions, "actions")]
        {
            let mut sorted: Vec<&String> = names.iter().collect();
            sorted.sort();
            sorted.dedup();
            if names.len() != count || sorted.len() != count {
                return Err(format!("{what} must be {count} names, none of them twice"));
            }
        }
        let size = self.size();
        if size == 0
            || self.features.len() != self.pairs()
            || self.features.iter().any(|row| row.len() != size || dot(row, row) > 1.0 + 1e-9)
        {
            return Err(
                "features must be as many numbers for every state and action, of norm at most 1".into()
            );
        }
        for h in 0..self.horizon {
            let place =
                |at: usize| format!("step {h}, state {}, action {}", at / self.actions, at % self.actions);
            if let Some(at) = self.transitions[h].chunks_exact(self.states).position(|row| !stochastic(row)) {
                return Err(format!("transitions of {} are no probabilities of sum 1", place(at)));
            }
            if let Some(at) = self.rewards[h].iter().position(|reward| reward.abs() > reward_bound) {
                return Err(format!("the reward of {} is larger than method.reward_bound", place(at)));
            }
        }
        self.linear()
    }

    /// Whether rewards and transitions are linear in the features.
    fn linear(&self) -> std::result::Result<(), String> {
        let size = self.size();
        let mut gram = Matrix::identity(size, 1e-9);
        self.features.iter().for_each(|row| gram.add_outer(row, 1.0));
        let Some(inverse) = gram.inverse() else { return Err("features cannot be told apart".into()) };
        let off = |numbers: &[f64]| {
            let mut sum = vec![0.0; size];
            for (row, number) in self.features.iter().zip(numbers) {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * number);
            }
            let weights = inverse.times(&sum);
            self.features
                .iter()
                .zip(numbers)
                .any(|(row, number)| (dot(row, &weights) - number).abs() > ROUNDING)
        };
        for h in 0..self.horizon {
            let column = |next: usize| -> Vec<f64> {
                self.transitions[h].iter().skip(next).step_by(self.states).copied().collect()
            };
            if off(&self.rewards[h]) {
                return Err(format!("rewards of step {h} are not linear in the features"));
            }
            if (0..self.states).any(|next| off(&column(next))) {
                return Err(format!("transitions of step {h} are not linear in the features"));
            }
        }
        Ok(())
    }

    /// What [`Tabular::read`] reads.
    pub fn to_json(&self) -> serde_json::Value {
        let by_action =
            |table: &[f64]| -> Vec<Vec<f64>> { table.chunks(self.actions).map(Vec::from).collect() };
        let rewards: Vec<_> = self.rewards.iter().map(|step| by_action(step)).collect();
        let transitions: Vec<Vec<Vec<&[f64]>>> = self
            .transitions
            .iter()
            .map(|step| {
                step.chunks(self.actions * self.states).map(|of| of.chunks(self.states).collect()).collect()
            })
            .collect();
        let features: Vec<&[Vec<f64>]> = self.features.chunks(self.actions).collect();
        serde_json::json!({
            "horizon": self.horizon,
            "start": self.start,
            "states": self.state_names,
            "actions": self.action_names,
            "features": features,
            "rewards": rewards,
            "transitions": transitions,
        })
    }
}

/// One table for each step, of a table for all or of one for each: `depth` is how deep lists lie in a table.
fn by_step<T: DeserializeOwned + Clone>(
    value: serde_json::Value,
    depth: usize,
    horizon: usize,
    what: &str,
) -> std::result::Result<Vec<T>, String> {
    let mut deep = 0;
    let mut inner = Some(&value);
    while let Some(list) = inner.and_then(|value| value.as_array()) {
        deep += 1;
        inner = list.first();
    }
    let wrong = |error: serde_json::Error| format!("{what}: {error}");
    let steps: Vec<T> = if deep == depth {
        vec![serde_json::from_value(value).map_err(wrong)?; horizon]
    } else {
        serde_json::from_value(value).map_err(wrong)?
    };
    if horizon == 0 || steps.len() != horizon {
        return Err(format!("{what} for {} steps, but a horizon of {horizon}", steps.len()));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_is_that_of_exhaustion() {
        let process = Tabular::random(2, 2, 2, 0.5, &Seeds::new(3));
        let values = (0..16_usize).map(|choice| {
            let table = (0..2).map(|h| (0..2).map(|s| choice >> (2 * h + s) & 1).collect()).collect();
            process.value(&Policy::Table(table))
        });
        let best = values.fold(f64::NEG_INFINITY, f64::max);
        assert!((process.value(&process.optimum()) - best).abs() < 1e-12);
        assert!(process.value(&Policy::Uniform) < best);
    }

    #[test]
    fn episodes_return_what_is_expected() {
        let process = Tabular::random(3, 3, 2, 0.5, &Seeds::new(4));
        let mut rng = Seeds::new(1).rng("play", 0);
        for policy in [process.optimum(), Policy::Uniform] {
            let mean =
                (0..20_000).map(|_| process.total(&process.play(&policy, &mut rng))).sum::<f64>() / 2e4;
            assert!((mean - process.value(&policy)).abs() < 0.02, "{mean}");
        }
    }

    #[test]
    fn a_file_is_read_back_and_a_table_may_stand_for_all_steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("process.json");
        let process = Tabular::random(3, 3, 2, 0.5, &Seeds::new(4));
        fs::write(&path, process.to_json().to_string()).unwrap();
        assert_eq!(Tabular::read(&path, 1.0).unwrap(), process);
        fs::write(
            &path,
            r#"{"horizon": 2, "transitions": [[[1], [1]]], "rewards": [[0, 1]], "actions": ["stay", "go"]}"#,
        )
        .unwrap();
        let read = Tabular::read(&path, 1.0).unwrap();
        assert_eq!((read.horizon, read.states, read.actions), (2, 1, 2));
        assert_eq!(read.value(&read.optimum()), 2.0);
    }

    #[test]
    fn unusable_files_are_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("process.json");
        let check = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            let problem = Tabular::read(&path, 1.0).unwrap_err();
            assert!(problem.message().contains(expected), "{text}: {}", problem.message());
            assert!(problem.place_text().unwrap().contains("process.json"));
        };
        let with = |horizon: &str, transitions: &str, rewards: &str, more: &str| {
            format!(r#"{{"horizon": {horizon}, "transitions": {transitions}, "rewards": {rewards}{more}}}"#)
        };
        let (next, pay) = ("[[[0.5, 0.5], [1, 0]], [[0, 1], [0, 1]]]", "[[0, 1], [0.5, 0]]");
        check("", "this is no decision process");
        check(&with("2", next, "[[0, NaN], [0, 1]]", ""), "this is no decision process");
        check(r#"{"horizon": 2}"#, "missing field `transitions`");
        check(&with("2", next, pay, r#", "horizon": 3"#), "duplicate field");
        check(&with("2", next, pay, r#", "gamma": 1"#), "unknown field");
        check(&with("0", next, pay, ""), "a horizon of 0");
        check(&with("3", next, &format!("[{pay}, {pay}]"), ""), "rewards for 2 steps");
        check(&with("2", next, "[]", ""), "rewards for 0 steps");
        check(&with("2", next, "[[], []]", ""), "at least two actions");
        check(&with("2", "[[[1, 0], [1, 0]], [[1, 0]]]", pay, ""), "2 states and 2 actions");
        check(&with("2", next, "[[0, 1], [0.5]]", ""), "2 states and 2 actions");
        check(
            &with("2", "[[[0.6, 0.5], [1, 0]], [[0, 1], [0, 1]]]", pay, ""),
            "step 0, state 0, action 0 are no prob",
        );
        check(&with("2", next, "[[0, 7], [0.5, 0]]", ""), "larger than method.reward_bound");
        check(&with("2", next, pay, r#", "start": [1]"#), "2 probabilities");
        check(&with("2", next, pay, r#", "actions": ["a", "a"]"#), "none of them twice");
        check(&with("2", next, pay, r#", "features": [[[1], [1]], [[1], [2]]]"#), "norm at most 1");
        check(
            &with("2", next, pay, r#", "features": [[[1], [1]], [[1], [1]]]"#),
            "rewards of step 0 are not linear",
        );
        check(&with("2", "\"x\"", pay, ""), "transitions: ");
    }
}
