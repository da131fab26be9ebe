//! Episodes in features, as the method learns from them, and the user's own from a file.

use std::path::Path;

use polo_run::{Problem, Result};
use serde::Deserialize;

use crate::train::{read_text, wrong_json};

/// A state after a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Next {
    /// Features of all its actions, `[actions, d]`; none in the fail state, whose value is 0.
    pub actions: Vec<f64>,
    /// What stopping there pays, where one may stop.
    pub stop: Option<f64>,
}

/// What the episodes did in step h.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Features of what was done, `[rows, d]`.
    pub features: Vec<f64>,
    /// `[rows]`.
    pub rewards: Vec<f64>,
    /// `[rows]`.
    pub next: Vec<Next>,
}

impl Step {
    /// Adds a row.
    pub fn push(&mut self, features: &[f64], reward: f64, next: Next) {
        self.features.extend(features);
        self.rewards.push(reward);
        self.next.push(next);
    }
}

/// Logged episodes of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// d.
    pub size: usize,
    /// `[H]`.
    pub steps: Vec<Step>,
    /// Known θ_h with r = φ·θ, `[H, d]`; without them rewards are fitted.
    pub theta: Option<Vec<Vec<f64>>>,
    /// Least value that any state can have, where it is known: 0 with a fail state.
    pub least: Option<f64>,
    /// No value of step h is larger, `[H]`.
    pub caps: Vec<f64>,
    /// Whether going on pays nothing after the last step, so that nothing is to be estimated there.
    pub stopping: bool,
    /// Features of all actions in first states, `[states][actions, d]`, where they are known.
    pub starts: Vec<Vec<f64>>,
}

/// A line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    features: Vec<Vec<f64>>,
    rewards: Vec<f64>,
    next: Vec<Vec<Vec<f64>>>,
    stop: Option<Vec<f64>>,
    start: Option<Vec<Vec<f64>>>,
}

/// How far features may be from non-negative numbers of sum 1.
const SIMPLEX_TOLERANCE: f64 = 1e-6;

/// Reads a file of JSON lines, one episode each, all of one length H:
///
/// ```json
/// {"features": [[1, 0], [0.3, 0.7]], "rewards": [0, 1],
///  "next": [[[0.3, 0.7], [0.5, 0.5]], []], "start": [[1, 0], [0.5, 0.5]]}
/// ```
///
/// `features`: of the action taken, a list for each step. `next`: for each step, the features of all actions in the state
/// that followed, which the last step does not need (`[]`); `[]` in an earlier step is the fail state, whose value is 0.
/// Optional `start`: features of all actions in the first state, for the estimate of its value; optional `stop`: for each
/// step, what stopping in the state that followed pays. `bound` is the largest reward.
///
/// # Errors
/// A line that is no such object; lengths that disagree; numbers that are not finite; with `simplex`, features that are
/// negative or do not add up to 1; no episodes.
pub fn read(path: &Path, bound: f64, simplex: bool) -> Result<Dataset> {
    let text = read_text(path)?;
    let mut data = Dataset::default();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |message: String| Problem::input(message).at(path, at + 1, None);
        let episode: Line =
            serde_json::from_str(line).map_err(|error| wrong_json("this is no episode", path, at, &error))?;
        add(&mut data, episode, simplex).map_err(wrong)?;
    }
    let horizon = data.steps.len();
    if horizon == 0 {
        return Err(Problem::input("there are no episodes")
            .place(path.display().to_string())
            .hint("write one JSON object a line, with features, rewards and next"));
    }
    data.caps = (0..horizon).map(|h| bound * (horizon - h) as f64).collect();
    let fails =
        data.steps[..horizon - 1].iter().flat_map(|step| &step.next).any(|next| next.actions.is_empty());
    data.least = fails.then_some(0.0);
    Ok(data)
}

fn add(data: &mut Dataset, episode: Line, simplex: bool) -> Result<(), String> {
    let Line { features, rewards, next, stop, start } = episode;
    let horizon = features.len();
    if data.steps.is_empty() {
        data.size = features.first().map_or(0, Vec::len);
        data.steps = vec![Step::default(); horizon];
        data.stopping = stop.is_some();
    }
    let lengths = [data.steps.len(), rewards.len(), next.len(), stop.as_ref().map_or(horizon, Vec::len)];
    if horizon == 0 || lengths.iter().any(|length| *length != horizon) {
        return Err(format!(
            "features for {horizon} steps, rewards for {}, next for {}, where episodes have {} steps",
            rewards.len(),
            next.len(),
            data.steps.len()
        ));
    }
    if stop.is_some() != data.stopping {
        return Err("stop must stand in all episodes or in none".into());
    }
    let numbers = rewards.iter().chain(stop.iter().flatten());
    let vectors = features.iter().chain(next.iter().flatten()).chain(start.iter().flatten());
    for vector in vectors.clone() {
        if vector.len() != data.size || vector.is_empty() {
            return Err(format!("{} features where there should be {}", vector.len(), data.size));
        }
        let off = (vector.iter().sum::<f64>() - 1.0).abs() > SIMPLEX_TOLERANCE;
        if simplex && (off || vector.iter().any(|x| *x < -SIMPLEX_TOLERANCE)) {
            return Err(format!("the features {vector:?} are not non-negative numbers of sum 1"));
        }
    }
    if numbers.chain(vectors.flatten()).any(|x| !x.is_finite()) {
        return Err("a number is not finite".into());
    }
    for (h, (step, actions)) in data.steps.iter_mut().zip(next).enumerate() {
        let stop = stop.as_ref().map(|stop| stop[h]);
        step.push(&features[h], rewards[h], Next { actions: actions.concat(), stop });
    }
    data.starts.extend(start.map(|start| start.concat()));
    Ok(())
}

/// Reads the known θ_h, a JSON array of H arrays of d numbers, into the data.
///
/// # Errors
/// A file that is no such array, or of other lengths than the data.
pub fn read_theta(path: &Path, data: &mut Dataset) -> Result<()> {
    let text = read_text(path)?;
    let theta: Vec<Vec<f64>> = serde_json::from_str(&text)
        .map_err(|error| wrong_json("these are no reward vectors", path, 0, &error))?;
    if theta.len() != data.steps.len() || theta.iter().any(|theta| theta.len() != data.size) {
        return Err(Problem::input(format!(
            "there should be {} reward vectors of {} numbers each",
            data.steps.len(),
            data.size
        ))
        .place(path.display().to_string()));
    }
    data.theta = Some(theta);
    Ok(())
}

#[cfg(test)]
mod tests {
    use polo_run::folder::write_atomic;

    use super::*;

    fn parse(text: &str, simplex: bool) -> Result<Dataset> {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_atomic(file.path(), text.as_bytes()).unwrap();
        read(file.path(), 1.0, simplex)
    }

    const GOOD: &str = r#"{"features": [[1, 0], [0.3, 0.7]], "rewards": [0, 1], "next": [[[0.3, 0.7], [0.5, 0.5]], []], "start": [[1, 0], [0.5, 0.5]]}"#;

    #[test]
    fn episodes_become_rows() {
        let data = parse(&format!("{GOOD}\n\n{GOOD}\n"), true).unwrap();
        assert_eq!((data.size, data.steps.len(), data.starts.len()), (2, 2, 2));
        assert_eq!((data.caps.as_slice(), data.least), ([2.0, 1.0].as_slice(), None));
        let step = &data.steps[0];
        assert_eq!(step.features, [1.0, 0.0, 1.0, 0.0]);
        assert_eq!(step.next[1], Next { actions: vec![0.3, 0.7, 0.5, 0.5], stop: None });
        let failed = GOOD.replace("[[0.3, 0.7], [0.5, 0.5]]", "[]");
        assert_eq!(parse(&failed, true).unwrap().least, Some(0.0));
    }

    #[test]
    fn bad_files_are_named_with_their_line() {
        fn check(second: &str, expected: &str) {
            let error = parse(&format!("{GOOD}\n{second}\n"), true).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
            assert!(error.place_text().unwrap().contains(":2"), "{error}");
        }
        check("{", "this is no episode");
        check(&GOOD.replace("\"rewards\": [0, 1], ", ""), "missing field `rewards`");
        check(&GOOD.replace("rewards", "reward"), "unknown field `reward`");
        check(&GOOD.replace("[0, 1]", "[0]"), "rewards for 1");
        check(&GOOD.replace("[0, 1]", "[0, NaN]"), "this is no episode");
        check(&GOOD.replace("[0, 1]", "[0, 1e999]"), "this is no episode");
        check(&GOOD.replace("[0.3, 0.7]]", "[0.3, 0.8]]"), "of sum 1");
        check(&GOOD.replace("[1, 0]", "[2, -1]"), "of sum 1");
        check(&GOOD.replace("[0.5, 0.5]]", "[0.5, 0.5, 0]]"), "3 features");
        check(&GOOD.replace("\"start\"", "\"stop\": [0, 0], \"start\""), "stop must stand in all");
        assert!(parse("\n", true).unwrap_err().message().contains("no episodes"));
        assert!(parse(&GOOD.replace("0.7", "0.9"), false).is_ok());
    }

    #[test]
    fn reward_vectors_must_fit_the_data() {
        fn check(text: &str, good: bool) {
            let mut data = parse(GOOD, true).unwrap();
            let file = tempfile::NamedTempFile::new().unwrap();
            write_atomic(file.path(), text.as_bytes()).unwrap();
            assert_eq!(read_theta(file.path(), &mut data).is_ok(), good, "{text}");
        }
        check("[[0, 1], [1, 0]]", true);
        check("[[0, 1]]", false);
        check("[[0, 1], [1]]", false);
        check("{}", false);
    }
}
