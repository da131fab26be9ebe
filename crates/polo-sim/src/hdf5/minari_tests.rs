use std::path::PathBuf;

use hdf5_metno::File;
use tempfile::TempDir;

use super::*;
use crate::dataset::tests::small;

fn written(data: &Dataset) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("toy").join("données-v0");
    data.save(&path).unwrap();
    (folder, path)
}

/// The dataset of `small`, in which the second episode does not begin where the first ended.
fn joined() -> Dataset {
    let data = small();
    Dataset::new(data.about.clone(), data.transitions().clone(), data.ends().to_vec()).unwrap()
}

#[test]
fn a_dataset_comes_back_whole() {
    let data = joined();
    let (_folder, path) = written(&data);
    assert_eq!(Dataset::load(&path).unwrap(), data);
    assert_eq!(Dataset::load(&path.join("data").join("main_data.hdf5")).unwrap(), data);

    let mut transitions = data.transitions().clone();
    transitions.actions = vec![0.0, 3.0, 1.0, 0.0, 2.0];
    for environment in ["CartPole-v1", "gym:CartPole-v1", "polo/PointMaze-v0", ""] {
        let actions = Space::Discrete(7);
        let about = About { actions, environment: environment.into(), ..data.about.clone() };
        let discrete = Dataset::new(about, transitions.clone(), data.ends().to_vec()).unwrap();
        discrete.save(&path).unwrap();
        assert_eq!(Dataset::load(&path).unwrap(), discrete, "{environment}");
    }
}

#[test]
fn an_episode_that_jumps_is_cut_in_two() {
    let data = joined();
    let mut transitions = data.transitions().clone();
    transitions.next_observations[0] = 9.0;
    let jumps = Dataset::new(data.about.clone(), transitions, data.ends().to_vec()).unwrap();
    let (_folder, path) = written(&jumps);
    let read = Dataset::load(&path).unwrap();
    assert_eq!(read.transitions(), jumps.transitions());
    assert_eq!(read.episodes(), [0..1, 1..3, 3..5]);
}

#[test]
fn episodes_are_ordered_by_number() {
    let data = joined();
    let rows: Vec<usize> = (0..12).flat_map(|_| 3..5).collect();
    let mut transitions = data.transitions().at(&rows);
    transitions.rewards = (0..24).map(|row| row as f32).collect();
    let ends = (0..24).map(|row| row % 2 == 1).collect();
    let many = Dataset::new(data.about.clone(), transitions, ends).unwrap();
    let (_folder, path) = written(&many);
    assert_eq!(Dataset::load(&path).unwrap().transitions().rewards, many.transitions().rewards);
}

#[test]
fn names_are_those_that_minari_takes() {
    for (name, expected) in [
        ("expert-v0", Some("expert-v0")),
        ("toy/expert-v12", Some("expert-v12")),
        ("expert", None),
        ("-v0", None),
        ("ex pert-v0", None),
        ("expert-v", None),
        ("..", None),
    ] {
        let found = id(Path::new("/nowhere").join(name).as_path());
        assert_eq!(found.as_ref().ok().map(String::as_str), expected, "{name}");
        assert_eq!(Dataset::check_form(&Path::new("/nowhere").join(name)).is_ok(), expected.is_some());
    }
    let home = std::env::home_dir().unwrap().join(".minari/datasets/cart/pole/expert-v0");
    assert_eq!(id(&home).unwrap(), "cart/pole/expert-v0");
}

/// A dataset by hand: `fill` adds what each of two episodes of two steps sees and does.
fn composed(
    observation_space: &str,
    action_space: &str,
    fill: impl Fn(&Group) -> Result<(), Error>,
) -> Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("main_data.hdf5");
    create(&path, |file| {
        for number in 0..2 {
            let episode = file.create_group(&format!("episode_{number}"))?;
            fill(&episode)?;
            put(&episode, "rewards", None, &[0.5f64, 1.5])?;
            put(&episode, "terminations", None, &[false, number == 0])?;
            put(&episode, "truncations", None, &[false, number == 1])?;
        }
        Ok(())
    })
    .unwrap();
    let env_spec = r#"{"id": "Grid-v0", "kwargs": {"render_mode": null}, "additional_wrappers": []}"#;
    let metadata = json!({
        "total_episodes": 2, "total_steps": 4, "dataset_id": "grid/random-v0", "env_spec": env_spec,
        "observation_space": observation_space, "action_space": action_space,
    });
    fs::write(path.with_file_name("metadata.json"), metadata.to_string()).unwrap();
    Dataset::load(&path)
}

const CHOICE: &str = r#"{"type": "Discrete", "dtype": "int64", "start": 1, "n": 3}"#;

fn steps(episode: &Group) -> Result<(), Error> {
    put(episode, "actions", None, &[1i64, 3])
}

#[test]
fn composed_observations_become_one_vector_in_the_order_of_the_space() {
    let space = r#"{"type": "Dict", "subspaces": {
        "place": {"type": "Box", "dtype": "float64", "shape": [2, 1], "low": [[-Infinity], [0]], "high": [[Infinity], [1.5]]},
        "NaN": {"type": "Tuple", "subspaces": [{"type": "Discrete", "n": 2, "start": 5}, {"type": "MultiBinary", "n": 2}]}}}"#;
    let data = composed(space, CHOICE, |episode| {
        steps(episode)?;
        let seen = episode.create_group("observations")?;
        let place = seen.new_dataset::<f64>().chunk((1, 2, 1)).deflate(1).shape((3, 2, 1)).create("place")?;
        place.write_raw(&[0.5f64, 1.0, 2.0, 0.25, 4.0, 0.0])?;
        let pair = seen.create_group("NaN")?;
        put(&pair, "_index_0", None, &[5i64, 6, 5])?;
        put(&pair, "_index_1", Some(2), &[0i8, 1, 1, 1, 0, 0])
    })
    .unwrap();
    let infinite = f32::INFINITY;
    let expected = Space::Box {
        low: vec![-infinite, 0.0, 0.0, 0.0, 0.0, 0.0],
        high: vec![infinite, 1.5, 1.0, 1.0, 1.0, 1.0],
    };
    assert_eq!(data.about.observations, expected);
    let rows =
        [[0.5, 1.0, 1.0, 0.0, 0.0, 1.0], [2.0, 0.25, 0.0, 1.0, 1.0, 1.0], [4.0, 0.0, 1.0, 0.0, 0.0, 0.0]];
    assert_eq!(data.transitions().observations, [rows[0], rows[1], rows[0], rows[1]].concat());
    assert_eq!(data.transitions().next_observations, [rows[1], rows[2], rows[1], rows[2]].concat());
    assert_eq!(data.about.actions, Space::Discrete(3));
    assert_eq!(data.transitions().actions, [0.0, 2.0, 0.0, 2.0]);
    assert_eq!(data.transitions().terminated, [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(data.episodes(), [0..2, 2..4]);
    assert_eq!((&*data.about.environment, &*data.about.source), ("Grid-v0", "grid/random-v0"));
}

#[track_caller]
fn refused_space(space: &str, message: &str) {
    let problem = composed(space, CHOICE, steps).unwrap_err();
    assert!(problem.message().contains(message), "{problem}");
    assert!(problem.hint_text().is_some() && problem.place_text().is_some(), "{problem:?}");
}

#[test]
fn spaces_that_are_no_vectors_are_refused() {
    refused_space(r#"{"type": "Text", "max_length": 3}"#, "`observations` is of a space Text");
    refused_space(r#"{"type": "Box", "low": [0], "high": [0, 1]}"#, "not of one size");
    refused_space(r#"{"type": "Box", "low": [0]}"#, "has no `high`");
    refused_space(r#"{"type": "Dict", "subspaces": {}}"#, "without parts");
    refused_space(r#"{"type": "#, "not a space");
    refused_space("[]", "has no `type`");
    let side = |value: u8| {
        format!("[{}]", vec![format!("[{}]", vec![value.to_string(); 32].join(",")); 32].join(","))
    };
    let image = format!(
        r#"{{"type": "Box", "dtype": "uint8", "shape": [32, 32], "low": {}, "high": {}}}"#,
        side(0),
        side(255)
    );
    refused_space(&image, "JPEG");
    let problem = composed(CHOICE, r#"{"type": "MultiDiscrete", "nvec": [2, 2]}"#, steps).unwrap_err();
    assert!(problem.message().contains("`action_space` is neither"), "{problem}");
}

#[track_caller]
fn refused(change: impl FnOnce(&File) -> Result<(), Error>, message: &str) {
    let (_folder, path) = written(&joined());
    let file = File::open_rw(path.join("data").join("main_data.hdf5")).unwrap();
    change(&file).unwrap();
    file.close().unwrap();
    let problem = Dataset::load(&path).unwrap_err();
    assert!(problem.message().contains(message), "{problem}");
    assert!(problem.hint_text().is_some(), "{problem:?}");
    assert_eq!(problem.place_text(), Some(&*path.display().to_string()));
}

fn instead<T: hdf5_metno::H5Type>(file: &File, name: &str, size: usize, values: &[T]) -> Result<(), Error> {
    file.unlink(name)?;
    put(file, name, Some(size), values)
}

#[test]
fn episodes_of_another_kind_or_with_bad_numbers_are_refused() {
    refused(
        |file| file.unlink("episode_1"),
        "the file holds total episodes 1, and `metadata.json` tells of 2",
    );
    refused(|file| file.unlink("episode_1/rewards"), "`episode_1/rewards` is missing");
    refused(|file| file.unlink("episode_0/truncations"), "`episode_0/truncations` is missing");
    refused(
        |file| instead(file, "episode_1/observations", 2, &[0.0f32; 4]),
        "`episode_1/observations` has 2 rows, and 3 are needed",
    );
    refused(
        |file| instead(file, "episode_0/observations", 3, &[0.0f32; 12]),
        "`episode_0/observations` has 3 numbers in a row, and its space 2",
    );
    refused(
        |file| instead(file, "episode_0/rewards", 1, &[0.0, f64::NAN, 1.0]),
        "episode_0/rewards[1] is NaN",
    );
    refused(
        |file| {
            file.unlink("episode_0")?;
            put(file, "episode_0", None, &[0.0f32])
        },
        "`episode_0` is an array, and must be a group",
    );
    refused(
        |file| {
            file.unlink("episode_0")?;
            file.unlink("episode_1")
        },
        "the file holds total episodes 0",
    );
}

#[test]
fn choices_beyond_the_space_are_refused() {
    let problem = composed(CHOICE, CHOICE, |episode| {
        put(episode, "observations", None, &[1i64, 2, 3])?;
        put(episode, "actions", None, &[1i64, 0])
    })
    .unwrap_err();
    assert!(problem.message().contains("episode_0/actions[1] is 0, not one of 1 to 3"), "{problem}");
}

#[test]
fn metadata_is_needed() {
    let (_folder, path) = written(&joined());
    let metadata = path.join("data").join("metadata.json");
    for (text, message) in [
        ("{", "not the JSON that Minari writes"),
        ("{}", "`observation_space` is missing"),
        (r#"{"observation_space": 3}"#, "`observation_space` is missing"),
    ] {
        fs::write(&metadata, text).unwrap();
        let problem = Dataset::load(&path).unwrap_err();
        assert!(problem.message().contains(message), "{problem}");
        assert!(problem.hint_text().is_some());
        assert_eq!(problem.place_text(), Some(&*metadata.display().to_string()));
    }
    fs::remove_file(&metadata).unwrap();
    let problem = Dataset::load(&path).unwrap_err();
    assert!(problem.message().contains("metadata.json"), "{problem}");
}

#[test]
fn an_environment_that_its_name_does_not_make_has_none() {
    for (spec, expected) in [
        (r#"{"id": "Ant-v5", "kwargs": {}, "additional_wrappers": []}"#, "Ant-v5"),
        (r#"{"id": "Ant-v5", "kwargs": {"render_mode": "human"}}"#, "Ant-v5"),
        (r#"{"id": "Ant-v5", "kwargs": {"healthy_reward": Infinity}}"#, ""),
        (r#"{"id": "Ant-v5", "additional_wrappers": [{"name": "FlattenObservation"}]}"#, ""),
        ("{", ""),
    ] {
        assert_eq!(environment(&json!({ "env_spec": spec })), expected, "{spec}");
    }
}
