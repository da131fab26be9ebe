//! Minari (Farama Foundation): a folder `NAME-vK/data` with `main_data.hdf5`, a group `episode_N` for each episode, and
//! `metadata.json`, which tells spaces and environment.
//!
//! An episode of T steps has T actions, rewards, `terminations` and `truncations`, and T+1 observations: s =
//! `observations[:-1]`, s' = `observations[1:]`, and the task is over where `terminations` says so. Episodes are taken
//! in the order of their numbers (`episode_10` after `episode_9`); one without a step is passed over; `infos` are not
//! read.

use std::{fs, ops::Range, path::Path};

use hdf5_metno::{Error, Group};
use polo_run::{Kind, Problem, Result, folder::write_atomic};
use serde_json::{Value, json};

use super::{create, damaged, env_spec, flags, group, open, put, put_choices, single, spaces};
use crate::{
    dataset::{About, Dataset, breaks, width},
    environment::PYTHON,
    replay::Batch,
    space::Space,
};

/// The least version of Minari whose files are written.
const VERSION: &str = "0.5.0";

/// A key of `metadata.json` that polo adds for environments that Gymnasium does not know.
const ENVIRONMENT: &str = "polo_environment";

/// Reads `main_data.hdf5` and, beside it, `metadata.json`.
pub(crate) fn read(path: &Path) -> Result<Dataset> {
    let described = path.with_file_name("metadata.json");
    let metadata = metadata(&described)?;
    let here = |problem: Problem| problem.place(described.display().to_string());
    let jpeg = metadata["jpeg_encoding"].as_bool().unwrap_or(true);
    let layout = |name: &str, arrays: &str| match metadata[name].as_str() {
        Some(text) => spaces::layout(text, arrays, jpeg).map_err(here),
        None => Err(here(Problem::input(format!("`{name}` is missing")).hint(OLD))),
    };
    let observations = layout("observation_space", "observations")?;
    let actions = layout("action_space", "actions")?;
    if !actions.plain {
        return Err(here(Problem::input("`action_space` is neither `Box` nor `Discrete`").hint(ACTIONS)));
    }
    let source = metadata["algorithm_name"].as_str().or(metadata["dataset_id"].as_str());
    let about = About {
        environment: environment(&metadata),
        observations: observations.space().map_err(here)?,
        actions: actions.space().map_err(here)?,
        source: source.unwrap_or_default().into(),
    };
    let size = width(&about.observations);

    let file = open(path)?;
    let names = file.member_names().map_err(|error| damaged("the list of episodes", &error))?;
    let mut episodes: Vec<(u64, &String)> =
        names.iter().filter_map(|name| Some((name.strip_prefix("episode_")?.parse().ok()?, name))).collect();
    episodes.sort_unstable();
    let (mut all, mut ends) = (Batch::default(), Vec::new());
    for (_, name) in &episodes {
        let place = format!("{name}/");
        let episode = group(&file, name)?;
        let rewards = single(&episode, &place, "rewards", None)?;
        let rows = rewards.len();
        if rows == 0 {
            continue;
        }
        let terminations = flags(&episode, &place, "terminations", rows)?;
        let truncations = flags(&episode, &place, "truncations", rows)?;
        let seen = observations.read(&episode, &place, rows + 1)?;
        all.observations.extend_from_slice(&seen[..rows * size]);
        all.next_observations.extend_from_slice(&seen[size..]);
        all.actions.extend(actions.read(&episode, &place, rows)?);
        all.rewards.extend(rewards);
        all.terminated.extend(terminations.iter().map(|&over| f32::from(u8::from(over))));
        ends.extend(truncations);
        ends[all.rewards.len() - 1] = true;
    }
    let told = |name: &str, found: usize| match metadata[name].as_u64() {
        Some(told) if told != found as u64 => Err(Problem::input(format!(
            "the file holds {} {found}, and `metadata.json` tells of {told}",
            name.replace('_', " ")
        ))
        .hint("one of the two was not written or fetched to its end; do it again")),
        _ => Ok(()),
    };
    told("total_episodes", episodes.len())?;
    told("total_steps", ends.len())?;
    Dataset::new(about, all, ends)
}

const OLD: &str = "Minari tells spaces there since 0.5; save an older dataset again with a newer Minari";
const ACTIONS: &str = "collect the dataset with an environment whose actions are one vector or one choice";

fn metadata(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).map_err(|error| {
        Problem::io("read", path, &error).hint("a Minari dataset has it beside main_data.hdf5")
    })?;
    spaces::python_json(&text).map_err(|error| {
        Problem::input(format!("not the JSON that Minari writes: {error}"))
            .place(path.display().to_string())
            .hint("fetch or write the dataset again")
    })
}

/// The name of an environment that is made by its name alone, else nothing.
fn environment(metadata: &Value) -> String {
    if let Some(name) = metadata[ENVIRONMENT].as_str() {
        return name.into();
    }
    let spec = metadata["env_spec"].as_str().and_then(|spec| spaces::python_json(spec).ok());
    let spec = spec.unwrap_or_default();
    let changed =
        spec["kwargs"].as_object().is_some_and(|given| given.keys().any(|name| name != "render_mode"))
            || spec["additional_wrappers"].as_array().is_some_and(|wrappers| !wrappers.is_empty());
    match spec["id"].as_str() {
        Some(id) if !changed => id.into(),
        _ => String::new(),
    }
}

/// The name by which Minari loads the folder: its path under the folder of Minari's datasets, else its own name.
///
/// # Errors
/// A name that Minari does not take.
pub(crate) fn id(folder: &Path) -> Result<String> {
    let root = std::env::var_os("MINARI_DATASETS_PATH")
        .or_else(|| Some(Path::new(&std::env::home_dir()?).join(".minari").join("datasets").into()));
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
    let below = root.and_then(|root| {
        let root = std::path::absolute(root).ok()?;
        Some(absolute.strip_prefix(root).ok()?.to_owned())
    });
    let name = match &below {
        Some(below) => below.to_str().map(|below| below.replace('\\', "/")),
        None => folder.file_name().and_then(|name| name.to_str()).map(str::to_owned),
    };
    let name = name.unwrap_or_default();
    let takes = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '/');
    match name.rsplit_once("-v") {
        Some((base, version))
            if version.parse::<u32>().is_ok()
                && !base.is_empty()
                && !base.ends_with('/')
                && base.chars().all(takes) =>
        {
            Ok(name)
        }
        _ => Err(Problem::usage(format!("`{name}` is not a name that Minari takes"))
            .place(folder.display().to_string())
            .hint("letters, digits, - and _, and a version at the end: NAME-v0")),
    }
}

/// Writes a folder that Minari and [`read`] take. Where a step does not begin with what followed the one before, the
/// episode is cut in two: Minari's form has each observation once.
pub(crate) fn write(data: &Dataset, folder: &Path) -> Result<()> {
    let id = id(folder)?;
    let inner = folder.join("data");
    fs::create_dir_all(&inner).map_err(|error| {
        Problem::new(Kind::System, format!("cannot create {}: {error}", inner.display()))
            .hint("a part of this path is missing, may not be written to, or is a file")
    })?;
    let About { environment, observations, actions, source } = &data.about;
    let mut ends = breaks(data.transitions(), width(observations));
    ends.iter_mut().zip(data.ends()).for_each(|(ends, &end)| *ends |= end);
    let path = inner.join("main_data.hdf5");
    create(&path, |file| {
        let mut begin = 0;
        for (number, (last, _)) in ends.iter().enumerate().filter(|(_, ends)| **ends).enumerate() {
            let episode = file.create_group(&format!("episode_{number}"))?;
            put_episode(&episode, data, number, begin..last + 1)?;
            begin = last + 1;
        }
        Ok(())
    })?;
    let size = fs::metadata(&path).map_or(0.0, |file| file.len() as f64 / 1e6);
    let mut metadata = json!({
        "total_episodes": ends.iter().filter(|ends| **ends).count(),
        "total_steps": data.len(),
        "data_format": "hdf5",
        "observation_space": spaces::serialise(observations),
        "action_space": spaces::serialise(actions),
        "dataset_id": id,
        "algorithm_name": source,
        "minari_version": VERSION,
        "dataset_size": (size * 10.0).round() / 10.0,
    });
    // Gymnasium's own, also where the bridge to Python runs it.
    let gymnasium = environment.strip_prefix(PYTHON).unwrap_or(environment);
    let spec = env_spec::of(gymnasium);
    if spec.is_none() || gymnasium != environment {
        metadata[ENVIRONMENT] = json!(environment);
    }
    if let Some(spec) = spec {
        metadata["env_spec"] = json!(spec);
    }
    write_atomic(&inner.join("metadata.json"), metadata.to_string().as_bytes())
}

fn put_episode(group: &Group, data: &Dataset, number: usize, rows: Range<usize>) -> Result<(), Error> {
    let all = data.transitions();
    let size = width(&data.about.observations);
    let mut seen = all.observations[rows.start * size..rows.end * size].to_vec();
    seen.extend_from_slice(&all.next_observations[(rows.end - 1) * size..rows.end * size]);
    let each = width(&data.about.actions);
    let taken = &all.actions[rows.start * each..rows.end * each];
    let arrays =
        [("observations", &data.about.observations, &seen[..]), ("actions", &data.about.actions, taken)];
    for (name, space, values) in arrays {
        match space {
            Space::Discrete(_) => put_choices(group, name, values)?,
            Space::Box { low, .. } => put(group, name, Some(low.len()), values)?,
        }
    }
    let rewards = &all.rewards[rows.clone()];
    put(group, "rewards", None, rewards)?;
    let over: Vec<bool> = all.terminated[rows.clone()].iter().map(|&over| over > 0.0).collect();
    let mut cut = vec![false; over.len()];
    let last = over.len() - 1;
    cut[last] = !over[last];
    put(group, "terminations", None, &over)?;
    put(group, "truncations", None, &cut)?;
    // Minari can print an episode only if it has some.
    group.create_group("infos")?;

    let count = rewards.len() as f64;
    let earned = || rewards.iter().map(|&reward| f64::from(reward));
    let sum = earned().sum::<f64>();
    let mean = sum / count;
    let std = (earned().map(|reward| (reward - mean).powi(2)).sum::<f64>() / count).sqrt();
    let statistics = [
        ("rewards_sum", sum),
        ("rewards_mean", mean),
        ("rewards_std", std),
        ("rewards_max", earned().fold(f64::NEG_INFINITY, f64::max)),
        ("rewards_min", earned().fold(f64::INFINITY, f64::min)),
    ];
    for (name, value) in [("id", number), ("total_steps", rows.len())] {
        group.new_attr::<i64>().shape(()).create(name)?.write_scalar(&(value as i64))?;
    }
    for (name, value) in statistics {
        group.new_attr::<f64>().shape(()).create(name)?.write_scalar(&value)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "minari_tests.rs"]
mod tests;
