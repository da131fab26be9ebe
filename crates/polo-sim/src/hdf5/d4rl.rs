//! D4RL (Fu et al. 2020, arXiv 2004.07219): one file, one long array for each of `observations`, `actions`, `rewards`,
//! `terminals` and, mostly, `timeouts`; in its newer files also `next_observations`. `infos/` and `metadata/` are not
//! read.
//!
//! **What becomes a transition.** D4RL's `qlearning_dataset` takes observation i+1 for what follows observation i, and
//! so must leave out each step at a time-out and the last: what followed them is not in the file. Where the file has
//! `next_observations`, it is, and those steps are kept here; episodes then end also where an observation is not what
//! followed the one before. A time-out whose `next_observations` is bit for bit the beginning of the next episode was
//! made by shifting the array, and is left out as well. A terminal step is always kept: nothing is predicted from what
//! follows it. (D4RL leaves it out where it is the last, or a time-out too.)
//!
//! **Without `timeouts`** D4RL cuts after as many steps as the environment allows, which is known for its locomotion
//! robots: 1,000, counted from the last end. (D4RL counts one step short after a terminal.) For other files without
//! `timeouts` and `next_observations`, where episodes were cut cannot be told, and they are refused.
//!
//! **Spaces and the name** are not in the file. Actions lie in [-1, 1], or are choices if they are stored as one
//! integer each: as many as the greatest tells of. The name is that of the file if it is one of D4RL's, such as
//! `hopper-medium-v2`. polo writes both into `metadata/polo`.

use std::path::Path;

use hdf5_metno::{File, types::VarLenUnicode};
use polo_run::{Problem, Result};

use super::{Column, column_of, create, damaged, flags, open, put, put_choices, put_text, single};
use crate::{
    dataset::{About, Bounded, Dataset, breaks, width},
    replay::Batch,
    scores,
    space::Space,
};

/// Where polo tells of spaces and names.
const ABOUT: &str = "metadata/polo";

/// Robots, by the beginnings of D4RL's names, whose episodes are cut after [`LIMIT`] steps.
const LOCOMOTION: [&str; 4] = ["halfcheetah-", "hopper-", "walker2d-", "ant-"];
const LIMIT: usize = 1000;

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Dataset> {
    let file = open(path)?;
    if !file.link_exists("rewards") && file.link_exists("episode_0") {
        return Err(Problem::input("a file of Minari and not of D4RL")
            .hint("give the dataset's folder, which holds data/main_data.hdf5"));
    }
    let rewards = single(&file, "", "rewards", None)?;
    let rows = rewards.len();
    let observations = column_of(&file, "", "observations", rows)?;
    let actions = column_of(&file, "", "actions", rows)?;
    let terminals = flags(&file, "", "terminals", rows)?;
    let next = match file.link_exists("next_observations") {
        true => Some(column_of(&file, "", "next_observations", rows)?),
        false => None,
    };
    if let Some(next) = next.as_ref().filter(|next| next.size != observations.size) {
        return Err(Problem::input(format!(
            "`next_observations` has {} numbers in a row, and `observations` {}",
            next.size, observations.size
        ))
        .hint("the file is not written by D4RL's rules"));
    }
    let about = about(&file)?;
    let ours = about.is_some();
    let about = match about {
        Some(about) => about,
        None => About {
            environment: name(path),
            observations: Space::symmetric(&vec![f32::INFINITY; observations.size]),
            actions: action_space(&actions)?,
            source: path.file_stem().unwrap_or_default().to_string_lossy().into(),
        },
    };
    let limited = LOCOMOTION.iter().any(|robot| about.environment.starts_with(robot));
    let timeouts = match (file.link_exists("timeouts"), limited, &next) {
        (true, ..) => flags(&file, "", "timeouts", rows)?,
        (false, true, _) => limits(&terminals),
        (false, false, Some(_)) => vec![false; rows],
        (false, false, None) => {
            return Err(Problem::input(
                "`timeouts` and `next_observations` are missing, so that nothing tells where episodes were cut",
            )
            .hint("write an array `timeouts` (all 0 if none was cut), or name the file as D4RL does"));
        }
    };
    let stored = next.is_some();
    let next_observations = match next {
        Some(next) => next.values,
        None => shifted(&observations.values, observations.size),
    };
    let all = Batch {
        observations: observations.values,
        actions: actions.values,
        rewards,
        next_observations,
        terminated: terminals.iter().map(|&over| f32::from(u8::from(over))).collect(),
        ..Batch::default()
    };
    let (places, ends) = transitions(&all, observations.size, &timeouts, stored, ours);
    Dataset::new(about, if places.len() == rows { all } else { all.at(&places) }, ends)
}

/// The rows that are transitions, and whether an episode ends with each. `stored`: what follows is the file's own word.
/// `trusted`: and is never that of another episode.
fn transitions(
    all: &Batch,
    size: usize,
    timeouts: &[bool],
    stored: bool,
    trusted: bool,
) -> (Vec<usize>, Vec<bool>) {
    let rows = all.len();
    let broken = if rows == 0 { Vec::new() } else { breaks(all, size) };
    let begins = |row: usize| &all.observations[row % rows * size..][..size];
    let (mut places, mut ends) = (Vec::with_capacity(rows), Vec::<bool>::with_capacity(rows));
    for row in 0..rows {
        let (over, cut) = (all.terminated[row] > 0.0, timeouts[row] || row + 1 == rows);
        let follows = &all.next_observations[row * size..][..size];
        let unknown = !over && cut && !(stored && (trusted || follows != begins(row + 1)));
        match (unknown, ends.last_mut()) {
            (true, Some(before)) => *before = true,
            (true, None) => {}
            (false, _) => {
                places.push(row);
                ends.push(over || cut || broken[row]);
            }
        }
    }
    (places, ends)
}

/// What follows each row: the next, and the first after the last.
fn shifted(observations: &[f32], size: usize) -> Vec<f32> {
    let mut next = observations.to_vec();
    next.rotate_left(size.min(observations.len()));
    next
}

/// Time-outs of episodes that are as long as may be.
fn limits(terminals: &[bool]) -> Vec<bool> {
    let mut steps = 0;
    let cut = |&over: &bool| {
        steps += 1;
        let cut = steps == LIMIT && !over;
        if cut || over {
            steps = 0;
        }
        cut
    };
    terminals.iter().map(cut).collect()
}

fn action_space(actions: &Column) -> Result<Space> {
    if actions.whole && actions.size == 1 {
        let most = actions.values.iter().copied().fold(0.0, f32::max);
        return Ok(Space::Discrete(most as usize + 1));
    }
    // A hair's breadth for what has been rounded.
    if let Some(place) = actions.values.iter().position(|action| action.abs() > 1.0 + 1e-5) {
        return Err(Problem::input(format!(
            "actions[{}] holds {}, and D4RL's actions lie in [-1, 1]",
            place / actions.size,
            actions.values[place]
        ))
        .hint(
            "divide the actions by their bounds, or write the dataset with Minari, which tells its spaces",
        ));
    }
    Ok(Space::symmetric(&vec![1.0; actions.size]))
}

/// D4RL's name in that of a file, else nothing. Its first files are called `hopper_medium.hdf5` and
/// `Ant_maze_u-maze_...hdf5`.
fn name(path: &Path) -> String {
    const PARTS: [&str; 16] = [
        "random", "medium", "expert", "mixed", "replay", "human", "cloned", "demos", "open", "umaze",
        "large", "play", "diverse", "complete", "partial", "maze",
    ];
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = stem.replace('_', "-").replace("ant-maze", "antmaze");
    let version = |part: &str| part.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok());
    let known = name.split('-').skip(1).any(|part| version(part) || PARTS.contains(&part));
    match known && scores::references(&name).is_some() {
        true => name,
        false => String::new(),
    }
}

fn about(file: &File) -> Result<Option<About>> {
    if !file.link_exists("metadata") || !file.link_exists(ABOUT) {
        return Ok(None);
    }
    let text = file.dataset(ABOUT).and_then(|text| text.as_reader().read_scalar::<VarLenUnicode>());
    let text = text.map_err(|error| damaged(&format!("`{ABOUT}`"), &error))?;
    let about: Bounded = serde_json::from_str(&text).map_err(|error| {
        Problem::input(format!("`{ABOUT}` cannot be read: {error}"))
            .hint("remove it, or write the file again")
    })?;
    Ok(Some(about.into()))
}

/// Writes a file that D4RL's loaders and [`read`] take.
pub(crate) fn write(data: &Dataset, path: &Path) -> Result<()> {
    let about = serde_json::to_string(&Bounded::from(&data.about)).unwrap_or_default();
    let Batch { observations, actions, rewards, next_observations, terminated, .. } = data.transitions();
    let size = width(&data.about.observations);
    let over: Vec<bool> = terminated.iter().map(|&over| over > 0.0).collect();
    let cut: Vec<bool> = data.ends().iter().zip(&over).map(|(&ends, &over)| ends && !over).collect();
    create(path, |file| {
        put(file, "observations", Some(size), observations)?;
        match &data.about.actions {
            Space::Discrete(_) => put_choices(file, "actions", actions)?,
            space @ Space::Box { .. } => put(file, "actions", Some(width(space)), actions)?,
        }
        put(file, "rewards", None, rewards)?;
        put(file, "next_observations", Some(size), next_observations)?;
        put(file, "terminals", None, &over)?;
        put(file, "timeouts", None, &cut)?;
        put_text(&file.create_group("metadata")?, "polo", &about)
    })
}

#[cfg(test)]
#[path = "d4rl_tests.rs"]
mod tests;
