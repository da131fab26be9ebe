//! Token rewards and beam search through the real binary: training, explaining, decoding, and what is refused.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

fn polo(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
    let out = command.current_dir(folder).args(arguments).env_clear().output().unwrap();
    let [stdout, stderr] = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (out.status.code().unwrap(), stdout, stderr)
}

#[track_caller]
fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = polo(folder, arguments);
    assert_eq!(code, 0, "{stderr}");
    stdout
}

/// A folder with `pairs.jsonl`, a tiny `model`, and what DPO made of it in `run/final`.
fn trained() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut pairs = String::new();
    for n in 0..16 {
        let (sum, wrong) = (n + 3, n + 5);
        let row = format!(r#"{{"prompt":"{n} + 3 = ","chosen":"{sum} <ü>","rejected":"{wrong} <ö>"}}"#);
        writeln!(pairs, "{row}").unwrap();
    }
    fs::write(folder.path().join("pairs.jsonl"), pairs).unwrap();
    make(folder.path(), "model", "270");
    let train = ["train", "token-dpo-q", "--model", "model", "--data", "pairs.jsonl", "--out", "run"];
    let sizes = ["training.batch=8", "training.epochs=6", "training.learning_rate=3e-3", "method.beta=0.3"];
    let sets: Vec<&str> = sizes.iter().flat_map(|set| ["--set", set]).collect();
    assert_eq!(done(folder.path(), &[&train[..], &sets].concat()), "run/final\n");
    folder
}

fn make(folder: &Path, name: &str, vocabulary: &str) {
    let make =
        ["init-model", name, "--tokenizer-from", "pairs.jsonl", "--preset", "tiny", "--vocab", vocabulary];
    done(folder, &make);
}

const EXPLAIN: [&str; 7] =
    ["explain-tokens", "--model", "run/final", "--reference", "model", "--data", "pairs.jsonl"];

#[test]
fn a_trained_model_explains_its_preferences_and_is_searched() {
    let home = trained();
    let folder = home.path();
    let json = [&EXPLAIN[..], &["--json", "--rows", "0", "--beta", "0.3", "--html", "heat.html"]].concat();
    let lines: Vec<Value> =
        done(folder, &json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 16);
    let (mut margins, mut told) = (0.0, 0);
    for line in &lines {
        margins += line["margin"].as_f64().unwrap();
        for side in ["chosen", "rejected"] {
            let tokens = line[side]["tokens"].as_array().unwrap();
            let number = |token: &Value, key: &str| token[key].as_f64().unwrap();
            let sum: f64 = tokens.iter().map(|token| number(token, "reward")).sum();
            assert!((sum - line[side]["reward"].as_f64().unwrap()).abs() < 1e-9);
            for token in tokens {
                let ratio = number(token, "reference_nll") - number(token, "nll");
                assert!((number(token, "reward") - 0.3 * ratio).abs() < 1e-9, "{token}");
            }
            let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
            assert!(text.ends_with("<|end|>") && text.contains(['ü', 'ö']), "{text}");
        }
        // What all chosen answers have and no rejected one has, and the other way round.
        for (side, letter, sign) in [("chosen", 'ü', 1.0), ("rejected", 'ö', -1.0)] {
            let mut tokens = line[side]["tokens"].as_array().unwrap().iter();
            let token = tokens.find(|token| token["token"].as_str().unwrap().contains(letter)).unwrap();
            told += u8::from(sign * token["reward"].as_f64().unwrap() > 0.05);
        }
    }
    assert!(margins / 16.0 > 0.3 && told >= 28, "margin {}, {told} of 32", margins / 16.0);
    // The page holds everything itself, and markup of the data stays text.
    let page = fs::read_to_string(folder.join("heat.html")).unwrap();
    assert!(
        page.contains("&lt;") && page.contains("ö") && !page.contains("<script") && !page.contains("http")
    );
    assert_eq!(page.matches("class=\"heat\"").count(), 32);

    // Without a terminal, numbers instead of colours.
    let text = done(folder, &[&EXPLAIN[..], &["--rows", "2"]].concat());
    assert!(
        text.contains("pairs.jsonl:2  margin +") && text.contains("<|end|>[") && !text.contains('\u{1b}'),
        "{text}"
    );
    assert!(!text.contains("pairs.jsonl:3"));

    let search = |more: &[&str]| {
        done(folder, &[&["generate", "--model", "run/final", "--max-tokens", "6"], more].concat())
    };
    let greedy = search(&["1 + 3 = ", "--temperature", "0"]);
    assert_eq!(search(&["1 + 3 = ", "--beams", "1"]), greedy);
    let wide = search(&["--data", "pairs.jsonl", "--beams", "4", "-n", "3", "--length-penalty", "1"]);
    let scores: Vec<f64> = wide
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["score"].as_f64().unwrap())
        .collect();
    assert_eq!(scores.len(), 48);
    assert!(scores.iter().all(|score| score.is_finite()));
    assert_eq!(search(&["1 + 3 = ", "--beams", "4"]).lines().count(), 1);
}

#[test]
fn what_cannot_be_explained_or_searched_is_refused() {
    let home = trained();
    let folder = home.path();
    make(folder, "larger", "280");
    make(folder, "other", "270");
    let tokenizer = fs::read_to_string(folder.join("other/tokenizer.json")).unwrap();
    // Two digits change places in the vocabulary.
    let (one, two) = ("\"1\": 19", "\"2\": 20");
    assert!(tokenizer.contains(one) && tokenizer.contains(two), "{}", &tokenizer[..4000]);
    let swapped = tokenizer.replace(one, "\"1\": 20").replace(two, "\"2\": 19");
    fs::write(folder.join("other/tokenizer.json"), swapped).unwrap();
    fs::write(folder.join("empty.jsonl"), "").unwrap();
    let check = |arguments: &[&str], code: i32, expected: &str| {
        let (found, _, error) = polo(folder, arguments);
        assert_eq!(found, code, "{error}");
        assert!(error.contains(expected), "{error}");
    };
    let explain = |reference, data, more: &'static [&str]| {
        let base = ["explain-tokens", "--model", "run/final", "--reference", reference, "--data", data];
        [&base[..], more].concat()
    };
    check(&explain("larger", "pairs.jsonl", &[]), 3, "the model has 270 tokens, its reference 27");
    check(
        &explain("other", "pairs.jsonl", &[]),
        3,
        "pairs.jsonl:2: the tokenizers of model and reference cut",
    );
    check(&explain("nowhere", "pairs.jsonl", &[]), 3, "nowhere");
    check(&explain("model", "empty.jsonl", &[]), 3, "empty.jsonl");
    check(&explain("model", "pairs.jsonl", &["--beta", "0"]), 2, "a number > 0 is needed");
    check(&explain("model", "pairs.jsonl", &["--html", "nowhere/heat.html"]), 4, "nowhere/heat.html");
    let mut bytes = fs::read(folder.join("model/model.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.join("model/model.safetensors"), bytes).unwrap();
    check(&explain("model", "pairs.jsonl", &[]), 3, "is NaN at element");

    let generate = |more: &[&'static str]| [&["generate", "x", "--model", "run/final"], more].concat();
    check(&generate(&["--beams", "0"]), 2, "0");
    check(&generate(&["--beams", "2", "-n", "3"]), 2, "3 answers are asked of a beam of width 2");
    check(&generate(&["--beams", "2", "--temperature", "0.5"]), 2, "cannot be used with");
    check(&generate(&["--length-penalty", "1"]), 2, "--beams");
    check(&generate(&["--beams", "2", "--length-penalty", "nan"]), 2, "a finite number is needed");
}

#[test]
fn the_claim_is_re_tested_in_seconds() {
    let folder = TempDir::new().unwrap();
    let text = done(folder.path(), &["reproduce", "token-dpo-q", "--quick"]);
    assert!(text.contains("Verdict: ") && text.contains("20 beams"), "{text}");
    assert!(folder.path().join("runs/reproduce-token-dpo-q/heat.html").exists());
    assert!(!folder.path().join("CLAIMS.md").exists());
}
