//! Sessions with the real binary: what a person types, and all that comes back.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use insta::assert_snapshot;
use tempfile::TempDir;

/// The binary, in `folder`, with nothing in its environment that could change what it says.
fn polo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
    command.current_dir(folder).args(arguments).env_clear();
    command
}

/// Exit code, stdout and stderr of one invocation among `files` (name and content).
fn session(files: &[(&str, &str)], arguments: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let out = polo(folder.path(), arguments).output().unwrap();
    let mut text = format!("$ polo {}\n", arguments.join(" "));
    text += std::str::from_utf8(&out.stdout).unwrap();
    text += &format!("[exit {}]\n", out.status.code().unwrap());
    text += std::str::from_utf8(&out.stderr).unwrap();
    text
}

const PAIRS: &str = r#"{"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "5"}
{"prompt": "Say hello in Greek.", "chosen": "γειά σου 👋", "rejected": "hello"}
"#;

#[test]
fn help_lists_the_commands() {
    assert_snapshot!(session(&[], &["--help"]));
}

#[test]
fn an_unknown_command_is_answered_with_the_nearest() {
    assert_snapshot!(session(&[], &["date", "check"]));
}

#[test]
fn methods_are_listed() {
    assert_snapshot!(session(&[], &["methods"]));
}

#[test]
fn variants_of_dpo_are_listed() {
    assert_snapshot!(session(&[], &["methods", "--variants"]));
}

#[test]
fn a_method_is_explained() {
    assert_snapshot!(session(&[], &["explain", "srpo"]));
}

#[test]
fn the_settings_of_a_method_are_a_file_to_start_from() {
    assert_snapshot!(session(&[], &["config", "dpo"]));
}

#[test]
fn the_file_to_start_from_is_taken_back() {
    let text = session(&[], &["config", "srpo"]);
    let file = text.split_once('\n').unwrap().1.replace("[exit 0]\n", "");
    let flags = ["--model", "m", "--data", "d.jsonl", "--seed", "7", "--lora", "rank=4"];
    assert_snapshot!(session(
        &[("run.toml", &file)],
        &[&["config", "srpo", "run.toml"], &flags[..]].concat()
    ));
}

#[test]
fn an_unknown_method_is_answered_with_the_nearest() {
    let wrong = [["explain", "srop"], ["config", "dppo"], ["explain", "q-learning"]];
    assert_snapshot!(wrong.map(|arguments| session(&[], &arguments)).join("\n"));
}

#[test]
fn a_wrong_setting_is_shown_where_it_stands() {
    let file = [("run.toml", "[training]\nbatch = 16\nlearning_rat = 1e-6\n")];
    let given = ["--model", "m", "--data", "d.jsonl"];
    let sessions = [
        session(&file, &["config", "dpo", "run.toml"]),
        session(&[], &[&["config", "dpo"], &given[..], &["--set", "method.beta=-1"]].concat()),
        session(&[], &[&["config", "dpo"], &given[..], &["--set", "beta=0.2"]].concat()),
        session(&[], &[&["config", "dpo"], &given[..], &["--set", "training.batch"]].concat()),
        session(&[], &[&["config", "dpo"], &given[..], &["--lora", "rnk=8"]].concat()),
        session(&[], &[&["config", "dpo"], &given[..], &["--lora", "8"]].concat()),
        session(&[], &["config", "dpo", "--model", "m"]),
        session(&[], &["config", "dpo", "missing.toml"]),
    ];
    assert_snapshot!(sessions.join("\n"));
}

#[test]
fn the_environment_stands_between_file_and_flags() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("run.toml"), "[training]\nbatch = 16\nepochs = 2\nseed = 1\n").unwrap();
    let arguments = ["config", "dpo", "run.toml", "--model", "m", "--data", "d.jsonl", "--seed", "3"];
    let mut command = polo(folder.path(), &arguments);
    command.envs([("POLO_TRAINING__EPOCHS", "5"), ("POLO_TRAINING__SEED", "2")]);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    for line in ["batch = 16\n", "epochs = 5\n", "seed = 3\n"] {
        assert!(text.contains(line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn good_data_is_described() {
    assert_snapshot!(session(&[("pairs.jsonl", PAIRS)], &["data", "check", "pairs.jsonl"]));
}

#[test]
fn good_data_is_described_for_programs() {
    assert_snapshot!(session(&[("pairs.jsonl", PAIRS)], &["data", "check", "--json", "pairs.jsonl"]));
}

#[test]
fn data_of_one_kind_serves_as_another_where_it_can() {
    let files = [("pairs.jsonl", PAIRS)];
    assert_snapshot!(session(&files, &["data", "check", "pairs.jsonl", "--kind", "prompts"]));
}

#[test]
fn broken_json_and_useless_pairs_are_named_with_their_places() {
    let broken = "{\"prompt\": \"c\", \"chosen\": \n";
    let equal = "{\"prompt\": \"d\", \"chosen\": \"same\", \"rejected\": \"same\"}\n";
    let missing = "{\"prompt\": \"e\", \"chosen\": \"yes\"}\n";
    let number = "{\"prompt\": \"f\", \"chosen\": \"yes\", \"rejected\": 3}\n";
    let text = [PAIRS, broken, equal, missing, number].concat();
    assert_snapshot!(session(&[("pairs.jsonl", &text)], &["data", "check", "pairs.jsonl"]));
}

#[test]
fn files_without_any_use_are_refused() {
    let files =
        [("empty.jsonl", ""), ("log.jsonl", "{\"reward\": 1, \"action\": 2}\n"), ("pairs.jsonl", PAIRS)];
    let sessions = [
        session(&files, &["data", "check", "empty.jsonl"]),
        session(&files, &["data", "check", "missing.jsonl"]),
        session(&files, &["data", "check", "log.jsonl"]),
        session(&files, &["data", "check", "pairs.jsonl", "--model", "nowhere"]),
    ];
    assert_snapshot!(sessions.join("\n"));
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn a_new_model_is_a_folder_that_depends_on_data_and_seed_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("pairs.jsonl"), PAIRS.repeat(20)).unwrap();
    let make = |out: &str, seed: &str| {
        let arguments =
            ["--tokenizer-from", "pairs.jsonl", "--preset", "tiny", "--vocab", "270", "--seed", seed];
        let made = polo(folder.path(), &[&["init-model", out], &arguments[..]].concat()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stderr).unwrap()
    };
    let said = make("a", "7");
    assert!(said.starts_with("a: ") && said.contains("270 tokens"), "{said}");
    make("b", "7");
    make("c", "8");
    let model = |name: &str| folder.path().join(name);
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        assert_eq!(
            fs::read(model("a").join(file)).unwrap(),
            fs::read(model("b").join(file)).unwrap(),
            "{file}"
        );
    }
    assert_ne!(weights(&model("a")), weights(&model("c")));
    // Its tokenizer counts.
    let out = polo(folder.path(), &["data", "check", "pairs.jsonl", "--model", "a"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("chosen      tokens"));
    // A model that is there is left alone.
    let again =
        polo(folder.path(), &["init-model", "a", "--tokenizer-from", "pairs.jsonl"]).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(weights(&model("a")), weights(&model("b")));
}

#[test]
fn a_vocabulary_too_small_for_bytes_is_refused() {
    let arguments = ["init-model", "out", "--tokenizer-from", "pairs.jsonl", "--vocab", "100"];
    assert_snapshot!(session(&[("pairs.jsonl", PAIRS)], &arguments));
}

#[test]
fn completions_are_made_for_shells() {
    for (shell, mark) in
        [("bash", "complete -F _polo"), ("zsh", "#compdef polo"), ("fish", "complete -c polo")]
    {
        let text = session(&[], &["completions", shell]);
        assert!(text.contains(mark) && text.contains("[exit 0]"), "{text}");
    }
    assert_snapshot!(session(&[], &["completions", "tcsh"]));
}

#[test]
fn the_version_is_told() {
    assert_eq!(
        session(&[], &["--version"]),
        format!("$ polo --version\npolo {}\n[exit 0]\n", env!("CARGO_PKG_VERSION"))
    );
}

/// The script is larger than a pipe holds, so that the program writes on after the reader has left.
#[test]
#[cfg(unix)]
fn a_reader_that_leaves_early_is_no_error() {
    let folder = TempDir::new().unwrap();
    let mut command = polo(folder.path(), &["completions", "zsh"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!((first.as_str(), out.status.code()), ("#compdef polo\n", Some(0)));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
}

/// A disk that is full is one, though.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let folder = TempDir::new().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = polo(folder.path(), &["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("error: cannot write to stdout: No space left"));
}
