//! Layered configuration, as a program meets it: layers in, settings or an error for a person out.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use miette::{GraphicalReportHandler, GraphicalTheme};
use polo_run::{
    Kind, Problem, Result,
    config::{Layers, Settings, commented_default, keys, load},
    guard::OnNonFinite,
};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All kinds of keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Run {
    /// Seed of every random draw.
    seed: u64,
    /// Where results go.
    out: PathBuf,
    /// What to do with a step that is not finite.
    on_non_finite: OnNonFinite,
    /// The network.
    model: Model,
    /// How weights move.
    optimiser: Optimiser,
    /// Low-rank adapters.
    lora: Option<Lora>,
}

/// A transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Model {
    /// Width of the residual stream.
    #[schemars(range(min = 1, max = 65536))]
    width: usize,
    /// Longest input, in tokens; the model's own limit if unset.
    #[schemars(range(min = 1))]
    max_tokens: Option<u32>,
    tie_embeddings: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Optimiser {
    /// Step size.
    ///
    /// Reached after the warm-up.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    learning_rate: f64,
    weight_decay: f32,
    /// Decay of both moments.
    #[schemars(inner(range(min = 0.0, max = 1.0)))]
    betas: Vec<f64>,
    schedule: Schedule,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Schedule {
    /// Half a cosine down to zero.
    Cosine,
    /// A line down to zero.
    Linear,
    Constant,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Lora {
    /// Rank of the update.
    rank: u32,
    /// Names of the layers to adapt.
    targets: Vec<String>,
    start: Option<Schedule>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            seed: 0,
            out: "runs/new".into(),
            on_non_finite: OnNonFinite::Stop,
            model: Model::default(),
            // Another value than the section's own default: the whole's default wins.
            optimiser: Optimiser { learning_rate: 5e-7, ..Optimiser::default() },
            lora: None,
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self { width: 64, max_tokens: None, tie_embeddings: true }
    }
}

impl Default for Optimiser {
    fn default() -> Self {
        Self { learning_rate: 1e-3, weight_decay: 0.1, betas: vec![0.9, 0.999], schedule: Schedule::Cosine }
    }
}

impl Settings for Run {
    fn check(&self) -> Result<()> {
        if self.model.width.is_multiple_of(8) {
            return Ok(());
        }
        Err(Problem::usage("the width must be a multiple of 8").place("model.width"))
    }
}

fn layers(environment: &[(&str, &str)], flags: &[(&str, &str, &str)], sets: &[&str]) -> Layers {
    Layers {
        file: None,
        environment: environment.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        flags: flags.iter().map(|(k, v, f)| ((*k).into(), (*v).into(), (*f).into())).collect(),
        sets: sets.iter().map(|set| (*set).into()).collect(),
    }
}

/// Loads a file of this content, then `rest`.
fn load_file(content: impl AsRef<[u8]>, mut rest: Layers) -> Result<Run> {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run.toml");
    fs::write(&path, content).unwrap();
    rest.file = Some(path);
    load::<Run>(&rest).map(|loaded| loaded.settings)
}

fn load_sets(sets: &[&str]) -> Result<Run> {
    load::<Run>(&layers(&[], &[], sets)).map(|loaded| loaded.settings)
}

/// The whole message, as a plain terminal shows it, without the folder of the test.
fn shown(problem: &Problem) -> String {
    assert_eq!(problem.kind(), Kind::Usage, "{problem}");
    let mut text = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::none())
        .with_width(100)
        .with_wrap_lines(false)
        .render_report(&mut text, problem)
        .unwrap();
    let parts = text.split_inclusive([' ', '[']).map(|word| {
        let start = word.find("run.toml").filter(|_| word.starts_with(['/', '\\']) || word.contains(":\\"));
        start.map_or(word, |start| &word[start..])
    });
    parts.collect::<String>().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(load::<Run>(&Layers::default()).unwrap().settings, Run::default());
    assert_eq!(load_file("", Layers::default()).unwrap(), Run::default());
    assert_eq!(load_file("\u{feff}# only a comment\n", Layers::default()).unwrap(), Run::default());
}

#[test]
fn later_layers_win() {
    let file = "seed = 1\n[model]\nwidth = 8\nmax_tokens = 10\n[optimiser]\nlearning_rate = 1\n";
    let environment = [("POLO_MODEL__WIDTH", "16"), ("POLO_MODEL__MAX_TOKENS", "20"), ("POLO_OUT", "runs/3")];
    let run =
        load_file(file, layers(&environment, &[("model.width", "24", "--width")], &["seed=4"])).unwrap();
    assert_eq!(run.seed, 4);
    assert_eq!(run.out, PathBuf::from("runs/3"));
    assert_eq!(run.model, Model { width: 24, max_tokens: Some(20), tie_embeddings: true });
    assert_eq!(run.optimiser.learning_rate, 1.0);
    assert_eq!(load_sets(&["seed=1", "seed=2"]).unwrap().seed, 2);
}

#[test]
fn words_take_the_type_of_their_key() {
    let run = load_sets(&[
        "out=2024",
        "seed=0x7fff_ffff_ffff_ffff",
        "model.tie_embeddings=false",
        "optimiser.weight_decay=1",
        "optimiser.betas=0.5, 1",
        "optimiser.schedule=\"linear\"",
        "lora.targets=q_proj,v_proj",
        "lora.start=constant",
        "on_non_finite={ skip = { cap = 3 } }",
    ])
    .unwrap();
    assert_eq!((run.out.to_str().unwrap(), run.seed), ("2024", i64::MAX as u64));
    assert!(!run.model.tie_embeddings);
    assert_eq!(run.optimiser.weight_decay, 1.0);
    assert_eq!(run.optimiser.betas, [0.5, 1.0]);
    assert_eq!(run.optimiser.schedule, Schedule::Linear);
    assert_eq!(
        run.lora,
        Some(Lora {
            rank: 0,
            targets: vec!["q_proj".into(), "v_proj".into()],
            start: Some(Schedule::Constant)
        })
    );
    assert_eq!(run.on_non_finite, OnNonFinite::Skip { cap: 3 });
    assert_eq!(load_sets(&["on_non_finite.skip.cap=4"]).unwrap().on_non_finite, OnNonFinite::Skip { cap: 4 });
    assert_eq!(load_sets(&["on_non_finite=stop"]).unwrap().on_non_finite, OnNonFinite::Stop);
    assert_eq!(load_sets(&["out=a b \"c\""]).unwrap().out, PathBuf::from("a b \"c\""));
    assert_eq!(load_sets(&["lora={}"]).unwrap().lora, Some(Lora::default()));
}

#[test]
fn the_environment_is_filtered() {
    let variables = [("PATH", "/bin"), ("POLO_SEED", "1"), ("POLO_LOG", "debug"), ("POLO_MODEL__WIDTH", "8")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        Layers::environment_from(variables, &["POLO_LOG"]),
        [("POLO_MODEL__WIDTH".to_owned(), "8".to_owned()), ("POLO_SEED".to_owned(), "1".to_owned())]
    );
}

#[test]
fn resolved_and_commented_files_load_to_the_same_settings() {
    let odd = "out=a \\ \"b\"\nc\u{7}é";
    let changed = [
        odd,
        "lora.rank=4",
        "optimiser.learning_rate=1e-7",
        "on_non_finite.skip.cap=1",
        "model.max_tokens=9",
    ];
    for sets in [&changed[..], &[]] {
        let loaded = load::<Run>(&layers(&[], &[], sets)).unwrap();
        assert_eq!(load_file(&loaded.resolved, Layers::default()).unwrap(), loaded.settings);
    }
    assert_eq!(load_file(commented_default::<Run>(), Layers::default()).unwrap(), Run::default());
    // Also with every key switched on that is off by default.
    let all_on: String = commented_default::<Run>()
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty()).unwrap_or(line)
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let run = load_file(&all_on, Layers::default()).unwrap();
    assert_eq!(run.lora, Some(Lora { start: Some(Schedule::Constant), ..Lora::default() }));
    assert_eq!(run.model.max_tokens, Some(1));
}

#[test]
fn default_and_keys_read_well() {
    insta::assert_snapshot!("commented_default", commented_default::<Run>());
    insta::assert_snapshot!("resolved", load::<Run>(&Layers::default()).unwrap().resolved);
    let keys = keys::<Run>();
    let lines: Vec<_> = keys
        .iter()
        .map(|key| format!("{} | {} | {} | {:?} | {}", key.key, key.kind, key.range, key.default, key.doc))
        .collect();
    insta::assert_snapshot!("keys", lines.join("\n"));
    let schedule = keys.iter().find(|key| key.key == "optimiser.schedule").unwrap();
    assert_eq!(schedule.choices[2].doc, "A line down to zero.");
}

#[test]
fn errors_in_a_file_point_at_the_place() {
    let cases = [
        ("unknown key", "seed = 1\n\n[model]\nwdith = 8\n"),
        ("unknown section", "[optimizer]\nlearning_rate = 1e-3\n"),
        ("right key in the wrong section", "[model]\nlearning_rate = 1e-3\n"),
        ("nothing near", "[model]\nzzzzzzzz = 8\n"),
        ("wrong type", "[model]\nwidth = \"wide\"\n"),
        ("below an exclusive minimum", "[optimiser]\nlearning_rate = 0\n"),
        ("above the maximum", "[model]\nwidth = 70000\n"),
        ("not finite", "[optimiser]\nweight_decay = nan\n"),
        ("one item of a list", "[optimiser]\nbetas = [0.9, 1.5]\n"),
        ("not among the choices", "[optimiser]\nschedule = \"cosin\"\n"),
        ("a value for a section", "model = 3\n"),
        ("refused by serde", "on_non_finite = \"skp\"\n"),
        ("too large for its type", "[lora]\nrank = 5_000_000_000\n"),
        ("refused by the check", "[model]\nwidth = 12\n"),
        ("not TOML", "seed = 1\n[model\nwidth = 8\n"),
        ("given twice", "seed = 1\nseed = 2\n"),
    ];
    let report: String = cases
        .iter()
        .map(|(name, file)| {
            format!("== {name}\n{}\n\n", shown(&load_file(file, Layers::default()).unwrap_err()))
        })
        .collect();
    insta::assert_snapshot!("errors_in_a_file", report);
}

#[test]
fn errors_in_words_name_the_word() {
    let cases = [
        layers(&[("POLO_MODEL__WITH", "8")], &[], &[]),
        layers(&[("POLO_SEED", "-1")], &[], &[]),
        layers(&[("POLO_SEED", "9223372036854775808")], &[], &[]),
        layers(&[], &[("model.width", "wide", "--width")], &[]),
        layers(&[], &[("optimiser.schedule", "liner", "--schedule")], &[]),
        layers(&[], &[], &["lr=1"]),
        layers(&[], &[], &["seed"]),
        layers(&[], &[], &["optimiser.learning_rate=inf"]),
        layers(&[], &[], &["seed.deeper=1"]),
        layers(&[], &[], &["model.width=12"]),
        layers(&[], &[], &["lora={ rnak = 3 }"]),
    ];
    let report: Vec<_> = cases.iter().map(|layers| shown(&load::<Run>(layers).unwrap_err())).collect();
    insta::assert_snapshot!("errors_in_words", report.join("\n"));
}

#[test]
fn unreadable_files_are_told_apart() {
    let problem = load_file(b"seed = 1\nout = \"\xff\"\n", Layers::default()).unwrap_err();
    assert!(
        problem.message().contains("UTF-8") && problem.place_text().unwrap().ends_with("run.toml:2"),
        "{problem}"
    );
    let problem = load_file("#".repeat(2 << 20), Layers::default()).unwrap_err();
    assert!(problem.message().contains("larger than 1 MiB"), "{problem}");
    let home = tempfile::tempdir().unwrap();
    for path in [home.path().join("none.toml"), home.path().into()] {
        let problem = load::<Run>(&Layers { file: Some(path), ..Layers::default() }).unwrap_err();
        assert_eq!(problem.kind(), Kind::Input, "{problem}");
    }
    load_file("[".repeat(100_000), Layers::default()).unwrap_err();
    load_file(format!("a = {}", "[".repeat(100_000)), Layers::default()).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_text_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
        load_file(bytes, Layers::default()).ok();
        load_file(&text, Layers::default()).ok();
        load_sets(&[&text]).ok();
    }

    /// Pieces of valid files in any order get further than arbitrary text.
    #[test]
    fn no_mixture_makes_it_panic(pieces in proptest::collection::vec(prop_oneof![
        Just("[model]\n"), Just("[lora]\n"), Just("width = "), Just("seed = "), Just("model.width = "), Just("\n"),
        Just("betas = ["), Just("]"), Just("nan"), Just("1e400"), Just("-0x7"), Just("99999999999999999999999"),
        Just("\"é\""), Just("1979-05-27"), Just("on_non_finite = { skip = "), Just("{ cap = 1 } }"), Just("= 'x'"),
    ], 0..12)) {
        let text = pieces.concat();
        if let Err(problem) = load_file(&text, Layers::default()) {
            shown(&problem);
        }
        for key in ["model.width", "optimiser.betas", "on_non_finite", "lora", "out", "seed.x"] {
            load_sets(&[&format!("{key}={text}")]).ok();
        }
    }
}
