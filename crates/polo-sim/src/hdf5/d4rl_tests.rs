use std::{fs, path::PathBuf};

use hdf5_metno::Extent;
use tempfile::TempDir;

use super::*;
use crate::dataset::tests::small;

/// Observation 10 e + t of one number at step t of episode e, and 10 e + t + 1 after it.
struct Rows {
    observations: Vec<f32>,
    next: Option<Vec<f32>>,
    terminals: Vec<bool>,
    timeouts: Option<Vec<bool>>,
}

/// Episodes of 3 steps (over), 2 (cut) and 2 (nothing said).
fn three() -> Rows {
    let observations = vec![0.0, 1.0, 2.0, 10.0, 11.0, 20.0, 21.0];
    let at = |place: usize| (0..7).map(|row| row == place).collect::<Vec<_>>();
    Rows { observations, next: None, terminals: at(2), timeouts: Some(at(4)) }
}

impl Rows {
    fn followed(mut self) -> Self {
        self.next = Some(self.observations.iter().map(|x| x + 1.0).collect());
        self
    }

    fn write(&self, name: &str) -> (TempDir, PathBuf) {
        let rows = self.observations.len();
        self.write_with(name, |file| {
            put(file, "rewards", None, &(0..rows).map(|row| row as f64).collect::<Vec<_>>())?;
            put(file, "actions", Some(2), &vec![0.5f32; 2 * rows])
        })
    }

    fn write_with(
        &self,
        name: &str,
        rest: impl FnOnce(&File) -> Result<(), hdf5_metno::Error>,
    ) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        create(&path, |file| {
            put(file, "observations", Some(1), &self.observations)?;
            put(file, "terminals", None, &self.terminals)?;
            if let Some(next) = &self.next {
                put(file, "next_observations", Some(1), next)?;
            }
            if let Some(timeouts) = &self.timeouts {
                put(file, "timeouts", None, timeouts)?;
            }
            rest(file)
        })
        .unwrap();
        (folder, path)
    }
}

/// Checks (s, s', over, ends) of all transitions.
#[track_caller]
fn check(rows: &Rows, name: &str, expected: &[(f32, f32, bool, bool)]) {
    let (_folder, path) = rows.write(name);
    let data = Dataset::load(&path).unwrap();
    let t = data.transitions();
    let found: Vec<_> = (0..data.len())
        .map(|row| (t.observations[row], t.next_observations[row], t.terminated[row] > 0.0, data.ends()[row]))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn without_next_observations_the_steps_before_a_border_are_left_out() {
    check(
        &three(),
        "a.hdf5",
        &[
            (0.0, 1.0, false, false),
            (1.0, 2.0, false, false),
            (2.0, 10.0, true, true),
            (10.0, 11.0, false, true),
            (20.0, 21.0, false, true),
        ],
    );
    // A terminal step needs nothing to follow it, be it the last or a time-out too.
    let mut rows = three();
    rows.terminals[4] = true;
    rows.terminals[6] = true;
    check(
        &rows,
        "a.hdf5",
        &[
            (0.0, 1.0, false, false),
            (1.0, 2.0, false, false),
            (2.0, 10.0, true, true),
            (10.0, 11.0, false, false),
            (11.0, 20.0, true, true),
            (20.0, 21.0, false, false),
            (21.0, 0.0, true, true),
        ],
    );
}

#[test]
fn with_next_observations_every_step_is_kept_and_breaks_end_episodes() {
    let all = [
        (0.0, 1.0, false, false),
        (1.0, 2.0, false, false),
        (2.0, 3.0, true, true),
        (10.0, 11.0, false, false),
        (11.0, 12.0, false, true),
        (20.0, 21.0, false, false),
        (21.0, 22.0, false, true),
    ];
    check(&three().followed(), "a.hdf5", &all);
    // Also where nothing is said of time-outs.
    check(&Rows { timeouts: None, ..three().followed() }, "a.hdf5", &all);
}

#[test]
fn what_was_shifted_over_a_border_is_left_out() {
    let mut rows = three();
    rows.next = Some(shifted(&rows.observations, 1));
    check(
        &rows,
        "a.hdf5",
        &[
            (0.0, 1.0, false, false),
            (1.0, 2.0, false, false),
            (2.0, 10.0, true, true),
            (10.0, 11.0, false, true),
            (20.0, 21.0, false, true),
        ],
    );
}

#[test]
fn a_robot_without_timeouts_is_cut_after_1000_steps() {
    let count = 2100;
    let rows = Rows {
        observations: (0..count).map(|row| row as f32).collect(),
        next: None,
        terminals: (0..count).map(|row| row == 49).collect(),
        timeouts: None,
    };
    let (_folder, path) = rows.write("Hopper_medium-v0.hdf5");
    let data = Dataset::load(&path).unwrap();
    assert_eq!(data.about.environment, "hopper-medium-v0");
    // 50 to the end, twice 1,000 to a cut, of which the last is left out, and 50 without the last.
    assert_eq!(data.episodes(), [0..50, 50..1049, 1049..2048, 2048..2097]);

    let (_folder, path) = rows.write("medium.hdf5");
    let problem = Dataset::load(&path).unwrap_err();
    assert!(problem.message().contains("`timeouts` and `next_observations` are missing"), "{problem}");
}

#[test]
fn names_of_d4rl_are_known() {
    for (file, expected) in [
        ("hopper-medium-v2.hdf5", "hopper-medium-v2"),
        ("halfcheetah_mixed.hdf5", "halfcheetah-mixed"),
        ("walker2d_medium_expert-v2.hdf5", "walker2d-medium-expert-v2"),
        ("Ant_maze_u-maze_noisy_multistart_False.hdf5", "antmaze-u-maze-noisy-multistart-false"),
        ("maze2d-umaze-sparse-v1.hdf5", "maze2d-umaze-sparse-v1"),
        ("pen-v0_demos_clipped.hdf5", "pen-v0-demos-clipped"),
        ("pen.hdf5", ""),
        ("door to door.hdf5", ""),
        ("hopper-mine.hdf5", ""),
        ("données-v2.hdf5", ""),
    ] {
        assert_eq!(name(Path::new(file)), expected, "{file}");
    }
}

#[test]
fn a_dataset_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("données ☃.hdf5");
    let data = small();
    data.save(&path).unwrap();
    assert_eq!(Dataset::load(&path).unwrap(), data);

    let mut transitions = data.transitions().clone();
    transitions.actions = vec![0.0, 3.0, 1.0, 0.0, 2.0];
    let about = About { actions: Space::Discrete(7), ..data.about.clone() };
    let discrete = Dataset::new(about, transitions, data.ends().to_vec()).unwrap();
    discrete.save(&path).unwrap();
    assert_eq!(Dataset::load(&path).unwrap(), discrete);
    // Without polo's own word, as many choices as are seen, and no name.
    let file = File::open_rw(&path).unwrap();
    file.unlink(ABOUT).unwrap();
    file.close().unwrap();
    let read = Dataset::load(&path).unwrap();
    assert_eq!((&read.about.actions, read.about.environment.as_str()), (&Space::Discrete(4), ""));
    assert_eq!((read.transitions(), read.ends()), (discrete.transitions(), discrete.ends()));
}

#[test]
fn any_numbers_layout_and_compression_are_read() {
    let rows = Rows { terminals: vec![false; 7], ..three().followed() };
    let (_folder, path) = rows.write_with("a.hdf5", |file| {
        for (name, size) in [("rewards", 1), ("actions", 1)] {
            let dataset = file.new_dataset::<f64>().chunk((2, 1)).deflate(9).shape((7, size));
            dataset.create(name)?.write_raw(&[0.25f64, 0.5, -1.0, 1.0, 0.0, 0.125, 0.75])?;
        }
        // A column of integers, big-endian floats, and an array that was never written: all 0.
        file.unlink("terminals")?;
        file.new_dataset::<u8>().shape((7, 1)).create("terminals")?.write_raw(&[0u8, 0, 1, 0, 0, 0, 0])?;
        file.unlink("timeouts")?;
        file.new_dataset::<bool>().shape(7).create("timeouts").map(drop)
    });
    let data = Dataset::load(&path).unwrap();
    assert_eq!(data.transitions().rewards, [0.25, 0.5, -1.0, 1.0, 0.0, 0.125, 0.75]);
    assert_eq!(data.transitions().actions, data.transitions().rewards);
    assert_eq!(data.episodes(), [0..3, 3..5, 5..7]);
    assert_eq!(data.about.actions, Space::symmetric(&[1.0]));
}

#[track_caller]
fn refused(change: impl FnOnce(&File) -> Result<(), hdf5_metno::Error>, message: &str, hint: &str) {
    let (_folder, path) = three().write("a.hdf5");
    let file = File::open_rw(&path).unwrap();
    change(&file).unwrap();
    file.close().unwrap();
    let problem = Dataset::load(&path).unwrap_err();
    assert!(problem.message().contains(message), "{problem}");
    assert!(problem.hint_text().is_some_and(|found| found.contains(hint)), "{problem:?}");
    assert_eq!(problem.place_text(), Some(&*path.display().to_string()));
}

/// Puts another array in the place of one.
fn instead<T: hdf5_metno::H5Type>(file: &File, name: &str, values: &[T]) -> Result<(), hdf5_metno::Error> {
    file.unlink(name)?;
    put(file, name, None, values)
}

#[test]
fn files_of_another_kind_or_with_bad_numbers_are_refused() {
    refused(
        |file| file.unlink("rewards"),
        "`rewards` is missing; what there is: `observations`",
        "another kind",
    );
    refused(|file| file.unlink("terminals"), "`terminals` is missing", "rules");
    refused(
        |file| instead(file, "actions", &[0.0f32; 6]),
        "`actions` has 6 rows, and 7 are needed",
        "same steps",
    );
    refused(
        |file| instead(file, "rewards", &[0.0, 1.0, 2.0, f64::NAN, 4.0, 5.0, 6.0]),
        "rewards[3] is NaN",
        "remove that episode",
    );
    refused(|file| instead(file, "rewards", &[1e300f64; 7]), "rewards[0] is inf", "remove");
    refused(
        |file| instead(file, "actions", &[0.0f32, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0]),
        "actions[2] holds 1.5",
        "divide",
    );
    refused(
        |file| instead(file, "actions", &[0i32, 1, 2, -1, 0, 1, 2]),
        "actions[3] is -1",
        "counted from 0",
    );
    refused(
        |file| instead(file, "rewards", &vec!["a".parse::<VarLenUnicode>().unwrap(); 7]),
        "`rewards` holds unicode (var len) and not numbers",
        "another kind",
    );
    refused(
        |file| {
            file.unlink("rewards")?;
            put(file, "rewards", Some(2), &[0.0f32; 14])
        },
        "`rewards` has 2 numbers in a row and not one",
        "another kind",
    );
    refused(
        |file| {
            file.unlink("observations")?;
            file.new_dataset::<f32>().shape((7, 0)).create("observations").map(drop)
        },
        "`observations` has rows without numbers",
        "another kind",
    );
    refused(
        |file| {
            file.unlink("actions")?;
            file.create_group("actions").map(drop)
        },
        "`actions` is a group, and must be an array",
        "another kind",
    );
    refused(
        |file| {
            file.unlink("rewards")?;
            file.new_dataset::<f32>().shape(()).create("rewards").map(drop)
        },
        "`rewards` is a single number",
        "another kind",
    );
    refused(
        |file| {
            file.unlink("rewards")?;
            let extents = vec![Extent::resizable(1 << 50)];
            file.new_dataset::<f32>().chunk(1024).shape(extents).create("rewards").map(drop)
        },
        "`rewards` tells of 1125899906842624 numbers, and the file holds 0 bytes",
        "another kind",
    );
    refused(
        |file| put(file, "next_observations", Some(2), &[0.0f32; 14]),
        "`next_observations` has 2",
        "rules",
    );
    refused(
        |file| {
            for name in ["observations", "actions", "rewards", "terminals", "timeouts"] {
                instead(file, name, &[0.0f32; 0])?;
            }
            Ok(())
        },
        "the dataset holds no transition",
        "",
    );
    refused(
        |file| {
            file.unlink("rewards")?;
            file.create_group("episode_0").map(drop)
        },
        "a file of Minari and not of D4RL",
        "folder",
    );
    refused(
        |file| put_text(&file.create_group("metadata")?, "polo", "{}"),
        "`metadata/polo` cannot be read",
        "write the file again",
    );
}

#[test]
fn chunks_that_rotted_are_refused() {
    let (_folder, path) = three().write("a.hdf5");
    let mut bytes = fs::read(&path).unwrap();
    // zlib's header of a level-4 stream; the first array's is damaged.
    let place = bytes.windows(2).position(|pair| pair == [0x78, 0x5e]).unwrap();
    bytes[place + 2..place + 8].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let problem = Dataset::load(&path).unwrap_err();
    assert!(problem.message().contains("cannot be read"), "{problem}");
}
