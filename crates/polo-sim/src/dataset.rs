//! Logged transitions: what some policy did, saw and earned, episode by episode, and the files that hold it.
//!
//! | path | what it is |
//! |---|---|
//! | `NAME.safetensors` | polo's own file, in every build |
//! | `NAME.hdf5`, `NAME.h5` | D4RL (feature `hdf5`) |
//! | a folder with `data/main_data.hdf5`, or that file | Minari (feature `hdf5`) |
//!
//! An episode ends where its task is over (`terminated`) or where it was cut (`ends` alone, a time-out): only the first
//! stops the value that follows.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use polo_run::{Problem, Result, folder::write_atomic};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};
use serde::{Deserialize, Serialize};

use crate::{
    replay::{Batch, ReplayBuffer},
    space::Space,
};

/// Where a dataset comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Name of the environment, empty if it is not known.
    pub environment: String,
    /// What it shows.
    pub observations: Space,
    /// What it takes.
    pub actions: Space,
    /// Who acted, for people.
    pub source: String,
}

/// Transitions of whole episodes, in the order in which they happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Where they come from.
    pub about: About,
    transitions: Batch,
    /// Whether the episode of a transition ends with it.
    ends: Vec<bool>,
    episodes: Vec<Range<usize>>,
}

/// Names of the columns in polo's own file.
const COLUMNS: [&str; 6] = ["observations", "actions", "rewards", "next_observations", "terminated", "ends"];

impl Dataset {
    /// Takes transitions and where their episodes end. What is `terminated` ends its episode, and so does the last row.
    ///
    /// # Errors
    /// Nothing in it; columns whose lengths disagree; numbers that are not finite; actions out of their space.
    pub fn new(about: About, transitions: Batch, mut ends: Vec<bool>) -> Result<Self> {
        let rows = transitions.len();
        let (seen, taken) = (width(&about.observations), width(&about.actions));
        let columns = [
            ("observations", transitions.observations.len(), seen),
            ("actions", transitions.actions.len(), taken),
            ("next_observations", transitions.next_observations.len(), seen),
            ("terminated", transitions.terminated.len(), 1),
            ("ends", ends.len(), 1),
        ];
        if rows == 0 {
            return Err(Problem::input("the dataset holds no transition").hint("collect some first"));
        }
        for (name, found, each) in columns {
            if found != rows * each {
                return Err(Problem::input(format!(
                    "`{name}` holds {found} numbers, and {rows} rewards of {each} each need {}",
                    rows * each
                ))
                .hint("all columns must have one row for each transition; write the file again"));
            }
        }
        let numbers = [
            ("observations", &transitions.observations, seen),
            ("actions", &transitions.actions, taken),
            ("rewards", &transitions.rewards, 1),
            ("next_observations", &transitions.next_observations, seen),
            ("terminated", &transitions.terminated, 1),
        ];
        for (name, column, each) in numbers {
            if let Some(place) = column.iter().position(|number| !number.is_finite()) {
                return Err(Problem::input(format!("{name}[{}] is {}", place / each, column[place]))
                    .hint("remove that episode; nothing can be learnt from it"));
            }
        }
        if let Space::Discrete(n) = about.actions {
            let allowed = |choice: f32| choice.fract() == 0.0 && (0.0..n as f32).contains(&choice);
            if let Some(place) = transitions.actions.iter().position(|&choice| !allowed(choice)) {
                return Err(Problem::input(format!(
                    "actions[{place}] is {}, not one of {n} choices",
                    transitions.actions[place]
                ))
                .hint("choices are counted from 0; the dataset is of another environment"));
            }
        }
        ends.iter_mut().zip(&transitions.terminated).for_each(|(ends, &over)| *ends |= over > 0.0);
        ends[rows - 1] = true;
        let mut episodes = Vec::new();
        let mut begin = 0;
        for (row, _) in ends.iter().enumerate().filter(|(_, ends)| **ends) {
            episodes.push(begin..row + 1);
            begin = row + 1;
        }
        Ok(Self { about, transitions, ends, episodes })
    }

    /// Reads a dataset in any of the forms above.
    ///
    /// # Errors
    /// A file that is missing, torn or of another kind; those of [`Dataset::new`].
    pub fn load(path: &Path) -> Result<Self> {
        let form = Form::of(path)?;
        let read = match form {
            Form::Own => read_own(path),
            #[cfg(feature = "hdf5")]
            Form::D4rl => crate::hdf5::read_d4rl(path),
            #[cfg(feature = "hdf5")]
            Form::Minari(file) => crate::hdf5::read_minari(&file),
            #[cfg(not(feature = "hdf5"))]
            Form::D4rl | Form::Minari(_) => Err(no_hdf5()),
        };
        read.map_err(|problem| match problem.place_text() {
            None => problem.place(path.display().to_string()),
            Some(_) => problem,
        })
    }

    /// Reads several datasets of the same spaces as one.
    ///
    /// # Errors
    /// As [`Dataset::load`], and datasets of different spaces.
    pub fn load_all(paths: &[PathBuf]) -> Result<Self> {
        let mut paths = paths.iter();
        let first = paths
            .next()
            .ok_or_else(|| Problem::usage("no dataset is given").place("data.train").hint("--data FILE"))?;
        let mut all = Self::load(first)?;
        for path in paths {
            all.append(Self::load(path)?).map_err(|problem| problem.place(path.display().to_string()))?;
        }
        Ok(all)
    }

    /// Writes the dataset in the form that the path's name says; a path without an ending is a folder of Minari's.
    ///
    /// # Errors
    /// The path cannot be written, or its form is not known to this build.
    pub fn save(&self, path: &Path) -> Result<()> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => self.write_own(path),
            #[cfg(feature = "hdf5")]
            Some("hdf5" | "h5") => crate::hdf5::write_d4rl(self, path),
            #[cfg(feature = "hdf5")]
            None => crate::hdf5::write_minari(self, path),
            #[cfg(not(feature = "hdf5"))]
            Some("hdf5" | "h5") | None => Err(no_hdf5().place(path.display().to_string())),
            Some(_) => Err(unknown_form(path)),
        }
    }

    /// Whether [`Dataset::save`] knows what to write, before hours are spent on the data.
    ///
    /// # Errors
    /// A form that is not known to this build.
    pub fn check_form(path: &Path) -> Result<()> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(()),
            #[cfg(feature = "hdf5")]
            Some("hdf5" | "h5") => Ok(()),
            #[cfg(feature = "hdf5")]
            None => crate::hdf5::minari_id(path).map(drop),
            #[cfg(not(feature = "hdf5"))]
            Some("hdf5" | "h5") | None => Err(no_hdf5().place(path.display().to_string())),
            Some(_) => Err(unknown_form(path)),
        }
    }

    /// Transitions.
    pub fn len(&self) -> usize {
        self.transitions.len()
    }

    /// Whether there is none; never so.
    pub fn is_empty(&self) -> bool {
        self.transitions.is_empty()
    }

    /// All transitions.
    pub fn transitions(&self) -> &Batch {
        &self.transitions
    }

    /// The places of each episode.
    pub fn episodes(&self) -> &[Range<usize>] {
        &self.episodes
    }

    /// Whether the episode of each transition ends with it.
    pub fn ends(&self) -> &[bool] {
        &self.ends
    }

    /// Undiscounted return of each episode.
    pub fn returns(&self) -> Vec<f64> {
        let sum = |episode: &Range<usize>| {
            self.transitions.rewards[episode.clone()].iter().map(|&reward| f64::from(reward)).sum()
        };
        self.episodes.iter().map(sum).collect()
    }

    /// What each transition and those that follow it in its episode earned: sum over k of gamma^k r. Where `failure` is
    /// given, an episode whose last reward it is goes on earning the same for ever: r / (1 - gamma) at all its steps.
    pub fn returns_to_go(&self, gamma: f64, failure: Option<f32>) -> Vec<f32> {
        let rewards = &self.transitions.rewards;
        let mut to_go = vec![0.0; rewards.len()];
        for episode in &self.episodes {
            let fails = failure.is_some_and(|failure| rewards[episode.end - 1] == failure);
            let mut following = 0.0;
            for place in episode.clone().rev() {
                let reward = f64::from(rewards[place]);
                following = if fails { reward / (1.0 - gamma) } else { reward + gamma * following };
                to_go[place] = following as f32;
            }
        }
        to_go
    }

    /// Mean and standard deviation (of the population) of each number of the observations.
    pub fn observation_moments(&self) -> (Vec<f64>, Vec<f64>) {
        let size = width(&self.about.observations);
        let rows = self.len() as f64;
        let column =
            |i: usize| self.transitions.observations.iter().skip(i).step_by(size).map(|&x| f64::from(x));
        (0..size)
            .map(|i| {
                let mean = column(i).sum::<f64>() / rows;
                (mean, (column(i).map(|x| (x - mean).powi(2)).sum::<f64>() / rows).sqrt())
            })
            .unzip()
    }

    /// Changes every reward.
    pub fn map_rewards(&mut self, change: impl Fn(f32) -> f32) {
        self.transitions.rewards.iter_mut().for_each(|reward| *reward = change(*reward));
    }

    /// Changes all observations, `[rows, size]`, those before and those after.
    pub fn map_observations(&mut self, mut change: impl FnMut(&mut [f32])) {
        change(&mut self.transitions.observations);
        change(&mut self.transitions.next_observations);
    }

    /// Gives each transition its return to go, for batches to carry.
    pub fn carry_returns_to_go(&mut self, gamma: f64, failure: Option<f32>) {
        self.transitions.returns_to_go = self.returns_to_go(gamma, failure);
    }

    /// Adds the episodes of another dataset.
    ///
    /// # Errors
    /// Other spaces.
    pub fn append(&mut self, other: Self) -> Result<()> {
        let sizes = |about: &About| (width(&about.observations), about.actions.clone());
        if sizes(&self.about) != sizes(&other.about) {
            return Err(Problem::input("the datasets are not of the same spaces")
                .hint("mix datasets of one environment only"));
        }
        if self.about.source != other.about.source {
            self.about.source = format!("{} + {}", self.about.source, other.about.source);
        }
        let rows = self.len();
        self.transitions.append(&other.transitions);
        self.ends.extend(other.ends);
        self.episodes.extend(other.episodes.into_iter().map(|e| e.start + rows..e.end + rows));
        Ok(())
    }

    /// The first `count` episodes alone, or all if there are fewer; at least one.
    pub fn first_episodes(mut self, count: usize) -> Self {
        self.episodes.truncate(count.max(1));
        let rows = self.episodes.last().map_or(0, |episode| episode.end);
        let places: Vec<usize> = (0..rows).collect();
        self.transitions = self.transitions.at(&places);
        self.ends.truncate(rows);
        self
    }

    /// What a replay buffer remembers, oldest first. An episode ends where the next transition does not begin with what
    /// followed.
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn of_replay(about: About, replay: &ReplayBuffer) -> Result<Self> {
        let transitions = replay.oldest_first();
        let ends = breaks(&transitions, width(&about.observations));
        Self::new(about, transitions, ends)
    }

    fn write_own(&self, path: &Path) -> Result<()> {
        let Batch { observations, actions, rewards, next_observations, terminated, .. } = &self.transitions;
        let rows = rewards.len();
        let ends: Vec<f32> = self.ends.iter().map(|&ends| f32::from(u8::from(ends))).collect();
        let columns = [observations, actions, rewards, next_observations, terminated, &ends];
        let bytes: Vec<Vec<u8>> =
            columns.iter().map(|column| column.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let fail = |error: safetensors::SafeTensorError| {
            Problem::input(format!("cannot lay out {}: {error}", path.display()))
        };
        let mut views = Vec::with_capacity(COLUMNS.len());
        for ((name, column), data) in COLUMNS.iter().zip(columns).zip(&bytes) {
            let shape = vec![rows, column.len() / rows];
            views.push((*name, TensorView::new(Dtype::F32, shape, data).map_err(fail)?));
        }
        let about = serde_json::to_string(&Bounded::from(&self.about)).unwrap_or_default();
        let metadata = HashMap::from([("polo.dataset".to_owned(), about)]);
        write_atomic(path, &safetensors::serialize(views, Some(metadata)).map_err(fail)?)
    }
}

/// Where rows stop to follow each other: |s(t+1) - s'(t)| > 1e-6 in some number.
pub(crate) fn breaks(transitions: &Batch, observation: usize) -> Vec<bool> {
    let followed = transitions.next_observations.chunks_exact(observation);
    let began = transitions.observations.chunks_exact(observation).skip(1);
    let mut ends: Vec<bool> = followed
        .zip(began)
        .map(|(after, before)| after.iter().zip(before).any(|(a, b)| (a - b).abs() > 1e-6))
        .collect();
    ends.push(true);
    ends
}

/// Numbers that an observation or an action of a space is stored as.
pub fn width(space: &Space) -> usize {
    match space {
        Space::Box { low, .. } => low.len(),
        Space::Discrete(_) => 1,
    }
}

/// Spaces as JSON can hold them: it has no infinite numbers.
#[derive(Serialize, Deserialize)]
pub(crate) struct Bounded {
    environment: String,
    observations: BoundedSpace,
    actions: BoundedSpace,
    source: String,
}

#[derive(Serialize, Deserialize)]
enum BoundedSpace {
    Box { low: Vec<Option<f32>>, high: Vec<Option<f32>> },
    Discrete(usize),
}

impl From<&About> for Bounded {
    fn from(about: &About) -> Self {
        let finite =
            |bounds: &[f32]| bounds.iter().map(|&bound| bound.is_finite().then_some(bound)).collect();
        let space = |space: &Space| match space {
            Space::Box { low, high } => BoundedSpace::Box { low: finite(low), high: finite(high) },
            Space::Discrete(n) => BoundedSpace::Discrete(*n),
        };
        let About { environment, observations, actions, source } = about;
        let (observations, actions) = (space(observations), space(actions));
        Self { environment: environment.clone(), observations, actions, source: source.clone() }
    }
}

impl From<Bounded> for About {
    fn from(bounded: Bounded) -> Self {
        let open = |bounds: Vec<Option<f32>>, beyond: f32| {
            bounds.into_iter().map(|bound| bound.unwrap_or(beyond)).collect()
        };
        let space = |space| match space {
            BoundedSpace::Box { low, high } => {
                Space::Box { low: open(low, f32::NEG_INFINITY), high: open(high, f32::INFINITY) }
            }
            BoundedSpace::Discrete(n) => Space::Discrete(n),
        };
        let Bounded { environment, observations, actions, source } = bounded;
        Self { environment, observations: space(observations), actions: space(actions), source }
    }
}

fn read_own(path: &Path) -> Result<Dataset> {
    let buffer = fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    let wrong = |what: String| Problem::input(what).hint("write it again with `polo data collect`");
    let torn = |error: safetensors::SafeTensorError| wrong(format!("not a whole safetensors file: {error}"));
    let (_, metadata) = SafeTensors::read_metadata(&buffer).map_err(torn)?;
    let about = metadata.metadata().as_ref().and_then(|metadata| metadata.get("polo.dataset"));
    let about = about.ok_or_else(|| wrong("a safetensors file, and no dataset of transitions".into()))?;
    let about: Bounded = serde_json::from_str(about)
        .map_err(|error| wrong(format!("the description of the dataset cannot be read: {error}")))?;
    let tensors = SafeTensors::deserialize(&buffer).map_err(torn)?;
    let mut columns = COLUMNS.map(|_| Vec::new());
    for (name, column) in COLUMNS.iter().zip(&mut columns) {
        let view = tensors.tensor(name).map_err(|_| wrong(format!("`{name}` is missing")))?;
        if view.dtype() != Dtype::F32 {
            return Err(wrong(format!("`{name}` holds {:?} and not F32", view.dtype())));
        }
        *column = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    }
    let [observations, actions, rewards, next_observations, terminated, ends] = columns;
    let transitions =
        Batch { observations, actions, rewards, next_observations, terminated, ..Batch::default() };
    Dataset::new(about.into(), transitions, ends.into_iter().map(|ends| ends > 0.0).collect())
}

/// What a path holds.
enum Form {
    Own,
    D4rl,
    #[cfg_attr(not(feature = "hdf5"), expect(dead_code, reason = "this build cannot open it"))]
    Minari(PathBuf),
}

impl Form {
    fn of(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let file = path.join("data").join("main_data.hdf5");
            return match file.is_file() {
                true => Ok(Form::Minari(file)),
                false => Err(Problem::input("a folder without `data/main_data.hdf5`")
                    .place(path.display().to_string())
                    .hint("give a Minari dataset's folder, or a file")),
            };
        }
        if path.file_name().is_some_and(|name| name == "main_data.hdf5") {
            return Ok(Form::Minari(path.into()));
        }
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Form::Own),
            Some("hdf5" | "h5") => Ok(Form::D4rl),
            _ => Err(unknown_form(path)),
        }
    }
}

fn unknown_form(path: &Path) -> Problem {
    Problem::usage("what kind of dataset this is, its name does not say")
        .place(path.display().to_string())
        .hint("NAME.safetensors is polo's own form, NAME.hdf5 that of D4RL, a folder that of Minari")
}

#[cfg(not(feature = "hdf5"))]
fn no_hdf5() -> Problem {
    Problem::usage("this build of polo cannot read or write HDF5")
        .hint("build it with `--features hdf5` (docs/datasets.md), or use polo's own NAME.safetensors")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two episodes of two numbers shown and one taken: one over after 3 steps, one cut after 2.
    pub(crate) fn small() -> Dataset {
        let about = About {
            environment: "Toy-v0".into(),
            observations: Space::symmetric(&[1.0, f32::INFINITY]),
            actions: Space::symmetric(&[1.0]),
            source: "by hand".into(),
        };
        let shown: Vec<f32> = (0..10).map(|n| n as f32).collect();
        let transitions = Batch {
            next_observations: shown.iter().map(|x| x + 2.0).collect(),
            observations: shown,
            actions: vec![0.5, -0.5, 1.0, -1.0, 0.0],
            rewards: vec![1.0, 2.0, 4.0, -1.0, -2.0],
            terminated: vec![0.0, 0.0, 1.0, 0.0, 0.0],
            ..Batch::default()
        };
        Dataset::new(about, transitions, vec![false; 5]).unwrap()
    }

    #[test]
    fn episodes_returns_and_returns_to_go() {
        let data = small();
        assert_eq!(data.episodes(), [0..3, 3..5]);
        assert_eq!(data.returns(), [7.0, -3.0]);
        assert_eq!(data.returns_to_go(0.5, None), [3.0, 4.0, 4.0, -2.0, -2.0]);
        // The second episode fails with -2 and never stops to.
        assert_eq!(data.returns_to_go(0.5, Some(-2.0)), [3.0, 4.0, 4.0, -2.0, -4.0]);
        let (mean, std) = data.observation_moments();
        assert_eq!((mean, std), (vec![4.0, 5.0], vec![8f64.sqrt(); 2]));
    }

    #[test]
    fn an_own_file_comes_back_whole_and_torn_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.safetensors");
        let data = small();
        data.save(&path).unwrap();
        assert_eq!(Dataset::load(&path).unwrap(), data);
        let mut twice = Dataset::load_all(&[path.clone(), path.clone()]).unwrap();
        assert_eq!(twice.episodes(), [0..3, 3..5, 5..8, 8..10]);
        twice = twice.first_episodes(1);
        assert_eq!((twice.len(), twice.episodes().len(), twice.episodes()[0].end), (3, 1, 3));
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let problem = Dataset::load(&path).unwrap_err();
            assert!(problem.message().contains("safetensors"), "{cut}: {problem}");
        }
    }

    #[track_caller]
    fn refused(change: impl Fn(&mut Batch), expected: &str) {
        let Dataset { about, mut transitions, ends, .. } = small();
        change(&mut transitions);
        let problem = Dataset::new(about, transitions, ends).unwrap_err();
        assert!(problem.message().contains(expected), "{problem}");
    }

    #[test]
    fn data_that_cannot_be_learnt_from_is_refused() {
        refused(|t| t.rewards[3] = f32::NAN, "rewards[3] is NaN");
        refused(|t| t.terminated[0] = f32::NAN, "terminated[0] is NaN");
        refused(|t| t.observations[9] = f32::INFINITY, "observations[4] is inf");
        refused(|t| t.actions.truncate(4), "`actions` holds 4 numbers");
        refused(|t| t.rewards.clear(), "no transition");
        let Dataset { mut about, transitions, ends, .. } = small();
        about.actions = Space::Discrete(2);
        let problem = Dataset::new(about, transitions, ends).unwrap_err();
        assert!(problem.message().contains("actions[0] is 0.5, not one of 2 choices"), "{problem}");
    }

    #[test]
    fn names_tell_forms() {
        let folder = tempfile::tempdir().unwrap();
        for (name, expected) in [("a.csv", "does not say"), ("a.safetensors", "read"), ("", "main_data.hdf5")]
        {
            let problem = Dataset::load(&folder.path().join(name)).unwrap_err();
            assert!(problem.to_string().contains(expected), "{name}: {problem}");
        }
        #[cfg(not(feature = "hdf5"))]
        for name in ["a.hdf5", "a"] {
            let path = folder.path().join(name);
            assert!(small().save(&path).unwrap_err().message().contains("cannot read or write HDF5"));
        }
    }

    #[test]
    fn a_replay_buffer_becomes_episodes() {
        let Dataset { about, transitions, .. } = small();
        let mut replay = ReplayBuffer::new(4, 2, 1);
        for row in [4usize, 0, 1, 2, 3] {
            let t = &transitions;
            let (o, n) = (&t.observations[2 * row..][..2], &t.next_observations[2 * row..][..2]);
            replay.add(o, &t.actions[row..=row], t.rewards[row], n, t.terminated[row] > 0.0);
        }
        // The oldest made room, so 0, 1, 2 (over) and 3 remain.
        let data = Dataset::of_replay(about, &replay).unwrap();
        assert_eq!(data.episodes(), [0..3, 3..4]);
        assert_eq!(data.transitions().rewards, [1.0, 2.0, 4.0, -1.0]);
    }
}
