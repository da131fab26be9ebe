//! Rounds of sampling, scoring, pairing and training through the real binary.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path, process::Command};

use insta::assert_snapshot;
use polo_lm::{
    encode::{Limits, encode_lists},
    rows::{ListRow, Place, Text},
    tokens::Tokenizer,
    weights,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Exit code, stdout and stderr.
fn polo(folder: &Path, arguments: &str) -> (i32, String, String) {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("polo"));
    let out = command.current_dir(folder).args(arguments.split_whitespace()).env_clear().output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[track_caller]
fn done(folder: &Path, arguments: &str) -> String {
    let (code, _, said) = polo(folder, arguments);
    assert_eq!(code, 0, "polo {arguments}\n{said}");
    said
}

/// A folder with `prompts.jsonl` and a tiny `model`.
fn workplace() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut prompts = String::new();
    for n in 0..10 {
        writeln!(prompts, r#"{{"prompt": "{n} + 3 = ", "answer": "{}"}}"#, n + 3).unwrap();
    }
    fs::write(folder.path().join("prompts.jsonl"), prompts).unwrap();
    done(
        folder.path(),
        "init-model model --tokenizer-from prompts.jsonl --preset tiny --vocab 270 --context 32",
    );
    folder
}

fn rows(folder: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

const SAMPLE: &str = "sample --model model --data prompts.jsonl -n 6 --max-tokens 5 --out";

#[test]
fn samples_are_repeatable_and_their_log_probs_exact() {
    let folder = workplace();
    let folder = folder.path();
    done(folder, &format!("{SAMPLE} a.jsonl --seed 7"));
    done(folder, &format!("{SAMPLE} b.jsonl --seed 7"));
    done(folder, &format!("{SAMPLE} c.jsonl --seed 8"));
    let read = |file| fs::read_to_string(folder.join(file)).unwrap();
    assert_eq!(read("a.jsonl"), read("b.jsonl"));
    assert_ne!(read("a.jsonl"), read("c.jsonl"));

    // The log-probs of prompt, answer and end token as training sees them, from plain logits.
    let tokenizer = Tokenizer::load(&folder.join("model")).unwrap();
    let model = weights::load(&folder.join("model"), &polo_nn::device::parse("cpu").unwrap()).unwrap().model;
    let rows = rows(folder, "a.jsonl");
    assert_eq!(rows.len(), 10);
    for row in rows {
        let logps = numbers(&row["logps"]);
        let completions = row["completions"].as_array().unwrap();
        assert_eq!((completions.len(), logps.len()), (6, 6));
        assert!(row["answer"].is_string());
        let plain = |text: &Value| Text::Plain(text.as_str().unwrap().into());
        let list = ListRow {
            prompt: plain(&row["prompt"]),
            completions: completions.iter().map(plain).collect(),
            scores: vec![0.0; 6],
            logps: Vec::new(),
            place: Place { file: Path::new("a.jsonl").into(), line: 1 },
            id: 0,
        };
        let list = encode_lists(&[list], &tokenizer, &Limits::new(32)).unwrap().rows.remove(0);
        for (answer, logp) in list.answers.iter().zip(logps) {
            let tokens = [&list.prompt[..], answer].concat();
            let logits = model.logits(&tokens);
            let log_prob = |place: usize| {
                let logits = &logits[place - 1];
                let normaliser = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
                f64::from(logits[tokens[place] as usize]) - normaliser
            };
            let expected: f64 = (list.prompt.len()..tokens.len()).map(log_prob).sum();
            assert!((expected - logp).abs() < 1e-3, "{logp} is not {expected}");
        }
    }
    // Drawn otherwise than from the model itself, the log-probs are still the model's, and the person is told.
    let said = done(folder, &format!("{SAMPLE} d.jsonl --temperature 0.7"));
    assert!(said.contains("importance weights"), "{said}");
}

#[test]
fn a_round_of_sampling_scoring_pairing_and_training() {
    let folder = workplace();
    let folder = folder.path();
    done(folder, &format!("{SAMPLE} sampled.jsonl"));
    done(folder, "score --data sampled.jsonl --reward longer --out scored.jsonl");
    let scored = rows(folder, "scored.jsonl");
    for (row, before) in scored.iter().zip(rows(folder, "sampled.jsonl")) {
        let lengths =
            row["completions"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().chars().count());
        assert_eq!(numbers(&row["scores"]), lengths.map(|length| length as f64).collect::<Vec<_>>());
        assert_eq!((&row["logps"], &row["answer"]), (&before["logps"], &before["answer"]));
    }
    let check = |how: &str, at_most: usize| {
        done(folder, &format!("pairs --data scored.jsonl --out pairs.jsonl {how}"));
        let pairs = rows(folder, "pairs.jsonl");
        assert!(pairs.len() > at_most / 4 && pairs.len() <= at_most, "{how}: {} pairs", pairs.len());
        for pair in pairs {
            let length = |side: &str| pair[side].as_str().unwrap().chars().count();
            assert!(length("chosen") > length("rejected"), "{how}: {pair}");
            assert_eq!(pair["score_chosen"], json!(length("chosen") as f64));
        }
        let (code, said, _) = polo(folder, "data check pairs.jsonl");
        assert!(code == 0 && said.contains("preference pairs"), "{said}");
    };
    check("--how max-min", 10);
    check("--how tournament", 50);
    check("--how first-round", 30);
    check("--keep 4 --beta 1.5", 20);
    let first = fs::read(folder.join("pairs.jsonl")).unwrap();
    check("--keep 4 --beta 1.5", 20);
    assert_eq!(fs::read(folder.join("pairs.jsonl")).unwrap(), first);
    let drawn = done(folder, "pairs --data scored.jsonl --out drawn.jsonl --labels bernoulli");
    assert!(drawn.contains("pairs from 10 prompts"), "{drawn}");

    let train = |method: &str, data: &str, more: &str| {
        let sizes = "--set training.batch=5 --set training.micro_batch=5 --set training.learning_rate=1e-3";
        done(
            folder,
            &format!("train {method} --model model --data {data} --out runs/{method} {sizes} {more}"),
        );
        assert!(folder.join(format!("runs/{method}/final/model.safetensors")).exists());
        rows(folder, &format!("runs/{method}/metrics.jsonl"))
    };
    train("rso", "pairs.jsonl", "");
    let metrics = train("brain", "scored.jsonl", "--set method.gamma=5");
    let named = |name: &str| metrics.iter().any(|line| line.to_string().contains(name));
    assert!(named("policy/effective_samples") && named("posterior/rewards"), "{metrics:?}");

    train("reward-model", "pairs.jsonl", "--set training.epochs=4");
    done(folder, "score --data sampled.jsonl --reward-model runs/reward-model/final --out rewarded.jsonl");
    let rewarded = rows(folder, "rewarded.jsonl");
    assert_eq!(rewarded.len(), scored.len());
    // It has seen that longer is better.
    let agree = |(by_model, by_rule): (&Value, &Value)| {
        let (r, length) = (numbers(&by_model["scores"]), numbers(&by_rule["scores"]));
        let pairs = (0..6).flat_map(|a| (0..6).map(move |b| (a, b))).filter(|&(a, b)| length[a] > length[b]);
        pairs.map(|(a, b)| f64::from(u8::from(r[a] > r[b]))).collect::<Vec<_>>()
    };
    let agreed: Vec<f64> = rewarded.iter().zip(&scored).flat_map(agree).collect();
    let share = agreed.iter().sum::<f64>() / agreed.len() as f64;
    assert!(share > 0.6, "{share}");

    // A ranker compares two answers, in both orders; against the first answer of the list that one has reward 0.
    let ranker = "--set method.kind=ranker --set training.epochs=8 --set training.learning_rate=3e-3";
    done(
        folder,
        &format!(
            "train reward-model --model model --data pairs.jsonl --out runs/ranker --set training.batch=5 --set training.micro_batch=5 {ranker}"
        ),
    );
    done(folder, "score --data sampled.jsonl --reward-model runs/ranker/final --out ranked.jsonl");
    let ranked = rows(folder, "ranked.jsonl");
    assert!(ranked.iter().all(|row| numbers(&row["scores"])[0] == 0.0), "{ranked:?}");
    let agreed: Vec<f64> = ranked.iter().zip(&scored).flat_map(agree).collect();
    let share = agreed.iter().sum::<f64>() / agreed.len() as f64;
    assert!(share > 0.6, "{share}");
    let (code, _, said) = polo(
        folder,
        "score --data sampled.jsonl --reward-model runs/reward-model/final --baseline pairs.jsonl --out none.jsonl",
    );
    assert!(code == 2 && said.contains("has no baseline"), "{said}");

    // SPIN: people's answers against the model's own, without any score.
    let people = rows(folder, "sampled.jsonl");
    let people =
        people[..7].iter().map(|row| json!({"prompt": row["prompt"], "completion": "42"}).to_string() + "\n");
    // A dialogue that ends in an empty turn, as Anthropic's do, is no answer.
    let empty = json!({"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant: b"})
        .to_string();
    fs::write(folder.join("empty.jsonl"), &empty).unwrap();
    let asked = json!({"prompt": "\n\nHuman: a\n\nAssistant:", "completions": ["c", "d"]}).to_string();
    fs::write(folder.join("asked.jsonl"), asked).unwrap();
    let (code, _, said) = polo(folder, "pairs --data asked.jsonl --against empty.jsonl --out none.jsonl");
    assert!(code == 3 && said.contains("1 of them without an answer"), "{said}");
    fs::write(folder.join("people.jsonl"), people.collect::<String>()).unwrap();
    let said = done(folder, "pairs --data sampled.jsonl --against people.jsonl --out spin.jsonl");
    assert!(said.contains("3 prompts have no answer"), "{said}");
    let spin = rows(folder, "spin.jsonl");
    assert!(spin.len() > 7 && spin.iter().all(|pair| pair["chosen"] == "42" && pair["rejected"] != "42"));
    fs::write(folder.join("people.jsonl"), r#"{"prompt": "unheard of", "completion": "42"}"#).unwrap();
    let (code, _, said) = polo(folder, "pairs --data sampled.jsonl --against people.jsonl --out none.jsonl");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("give no pair") && said.contains("same in both files"), "{said}");

    // Nash-MD and IPO-MD: answers and rivals of the mixture with a reference.
    let mixed = SAMPLE.replace("--data", "--mix-with runs/brain/final --mix-share 0.25 --data");
    done(folder, &format!("{mixed} mixed.jsonl"));
    assert_ne!(
        rows(folder, "mixed.jsonl")[0]["completions"],
        rows(folder, "sampled.jsonl")[0]["completions"]
    );
    let none = SAMPLE.replace("--data", "--mix-with runs/brain/final --mix-share 0 --data");
    done(folder, &format!("{none} unmixed.jsonl"));
    assert_eq!(rows(folder, "unmixed.jsonl"), rows(folder, "sampled.jsonl"));

    // The next round draws from what was learnt.
    let next = SAMPLE.replace("--model model", "--model runs/brain/final");
    done(folder, &format!("{next} sampled2.jsonl"));
    done(folder, "score --data sampled2.jsonl --reward contains --out scored2.jsonl");
}

#[test]
fn a_judge_of_pairs_scores_against_a_baseline() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    fs::write(folder.join("judge.toml"), "by = \"longer\"\n").unwrap();
    fs::write(
        folder.join("lists.jsonl"),
        "{\"prompt\": \"p\", \"completions\": [\"ab\", \"a\", \"abc\", \"xy\"]}\n",
    )
    .unwrap();
    fs::write(folder.join("base.jsonl"), "{\"prompt\": \"p\", \"completion\": \"a\"}\n").unwrap();
    let scores = |more: &str| {
        done(folder, &format!("score --data lists.jsonl --judge judge.toml --out scored.jsonl {more}"));
        numbers(&rows(folder, "scored.jsonl")[0]["scores"])
    };
    let near = |found: Vec<f64>, expected: [f64; 4]| {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    };
    let sure = 99f64.ln();
    near(scores(""), [0.0, -sure, sure, 0.0]);
    near(scores("--baseline base.jsonl"), [sure, 0.0, sure, sure]);
    // Rivals as `polo sample` writes them.
    fs::write(folder.join("base.jsonl"), "{\"prompt\": \"p\", \"completions\": [\"a\"]}\n").unwrap();
    near(scores("--baseline base.jsonl"), [sure, 0.0, sure, sure]);
    near(scores("--clip 0.2"), [0.0, -(4f64.ln()), 4f64.ln(), 0.0]);
}

#[test]
fn what_cannot_be_used_is_said() {
    let folder = workplace();
    let folder = folder.path();
    let list = |completions: &str, more: &str| {
        format!("{{\"prompt\": \"p\", \"completions\": {completions}{more}}}\n")
    };
    let two = r#"["good", "bad"]"#;
    let files = [
        ("unscored.jsonl", list(two, "")),
        ("short.jsonl", list(two, r#", "scores": [1]"#)),
        ("null.jsonl", list(two, r#", "scores": [1, null]"#)),
        ("nan.jsonl", list(two, r#", "scores": [1, NaN]"#)),
        ("equal.jsonl", list(r#"["same", "same"]"#, r#", "scores": [1, 0]"#)),
        ("tied.jsonl", list(two, r#", "scores": [1, 1]"#)),
        ("words.jsonl", list(two, r#", "scores": [1, 0], "logps": "unknown""#)),
        (
            "mixed.jsonl",
            list(two, r#", "scores": [1, 0], "logps": [-1, -2]"#) + &list(two, r#", "scores": [1, 0]"#),
        ),
        ("single.jsonl", "{\"prompt\": \"p\", \"completion\": \"a\"}\n".into()),
        ("other.jsonl", "{\"prompt\": \"q\", \"completion\": \"a\"}\n".into()),
        ("judge.toml", "by = \"longer\"\n".into()),
        ("long.jsonl", format!("{{\"prompt\": \"{}\"}}\n", "word ".repeat(40))),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    let sessions = [
        "pairs --out o --data unscored.jsonl",
        "pairs --out o --data short.jsonl",
        "pairs --out o --data null.jsonl",
        "pairs --out o --data nan.jsonl",
        "pairs --out o --data equal.jsonl",
        "pairs --out o --data tied.jsonl",
        "pairs --out o --data words.jsonl --keep 1",
        "pairs --out o --data words.jsonl --beta 1",
        "pairs --out no/folder/o --data mixed.jsonl",
        "train brain --model model --data unscored.jsonl",
        "train brain --model model --data words.jsonl",
        "train brain --model model --data mixed.jsonl",
        "train brain --model model --data short.jsonl --set method.answers=1",
        "train brain --model model --data tied.jsonl --set method.answers=3",
        "score --out o --data unscored.jsonl",
        "score --out o --data unscored.jsonl --reward exact",
        "score --out o --data equal.jsonl --reward longer",
        "score --out o --data single.jsonl --reward longer",
        "score --out o --data unscored.jsonl --reward longer --judge judge.toml",
        "score --out o --data unscored.jsonl --judge judge.toml --baseline other.jsonl",
        "score --out o --data unscored.jsonl --judge nobody.toml",
        "score --out o --data unscored.jsonl --reward-model model",
        "score --out o --data unscored.jsonl --reward longer --clip 0.1",
        "sample --out o --model model --data long.jsonl",
        "sample --out o --model nowhere --data prompts.jsonl",
    ]
    .map(|arguments| {
        let (code, stdout, said) = polo(folder, arguments);
        assert!(stdout.is_empty() && !folder.join("o").exists(), "{arguments}");
        let said: String =
            said.lines().skip_while(|line| !line.starts_with("error:")).map(|l| format!("{l}\n")).collect();
        format!("$ polo {arguments}\n[exit {code}]\n{said}")
    });
    assert_snapshot!(sessions.join("\n"));
}
