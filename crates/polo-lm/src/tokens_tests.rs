//! Tests of [`super`] and of [`crate::vocabulary`]. The vocabularies are made here, from a fixed text; golden ids
//! come from transformers on the very same files.

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::vocabulary::{NewSpecials, Symbols, train_bpe, write_symbols};

const TEXTS: [&str; 6] = [
    "The sky is blue. The sky is green. The sea is blue, and the sand is yellow.",
    "What colour is the sky? It is blue. What colour is the sea? It is green, or blue.",
    "Human: what is the colour of the sand? Assistant: The sand is yellow.",
    "User: Hello there! Assistant: Hello! How are you? User: I am well, thank you.",
    "Write a summary of the post. The post is about the sea and the sky and the sand.",
    "Über den Wolken ist der Himmel blau; das Meer ist grün. Ünd über den Wolken…",
];

/// A BPE vocabulary of at most 400 tokens, with or without a BOS.
pub(crate) fn bpe(bos: bool) -> (TempDir, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    let specials = NewSpecials { bos: bos.then(|| "<|begin|>".to_owned()), ..NewSpecials::default() };
    train_bpe(TEXTS.iter(), 400, &specials, folder.path()).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    (folder, tokenizer)
}

/// A vocabulary of words, without a BOS.
pub(crate) fn words() -> (TempDir, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    let specials = NewSpecials { bos: None, ..NewSpecials::default() };
    write_symbols(&["GEN", "REV", "a", "b", "c", "d"], Symbols::Words, &specials, folder.path()).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    (folder, tokenizer)
}

#[test]
fn the_same_texts_give_the_same_vocabulary() {
    let (first, second) = (bpe(true), bpe(true));
    let read = |folder: &TempDir| fs::read(folder.path().join("tokenizer.json")).unwrap();
    assert_eq!(read(&first.0), read(&second.0));
    assert_eq!(first.1.fingerprint(), second.1.fingerprint());
    assert_ne!(first.1.fingerprint(), bpe(false).1.fingerprint());
}

#[test]
fn bytes_survive_and_special_tokens_are_known() {
    let (_folder, tokenizer) = bpe(true);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(0), Some(1), Some(2)));
    assert_eq!(tokenizer.stop(), [1]);
    for text in ["The sky is blue.", " two  spaces\n\ttab", "日本語 🦀 é", ""] {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(ids[0], 0);
        assert_eq!(tokenizer.decode(&ids, true), text);
    }
    assert_eq!(
        tokenizer.encode("<|begin|>The<|end|>", true).unwrap(),
        tokenizer.encode("<|begin|>The<|end|>", false).unwrap()
    );
    let (ids, offsets) = tokenizer.encode_with_offsets("<|begin|>The", true).unwrap();
    assert_eq!((ids.len(), offsets[0]), (offsets.len(), (0, 9)));
    assert!(tokenizer.check_vocabulary(tokenizer.vocabulary()).is_ok());
    let problem = tokenizer.check_vocabulary(100).unwrap_err();
    assert!(problem.message().contains("embeddings for 100"), "{problem}");
}

#[test]
fn symbols_are_words_or_characters() {
    let (_folder, tokenizer) = words();
    assert_eq!(tokenizer.encode("a b  REV a GEN d<|end|>", true).unwrap(), [5, 6, 4, 5, 3, 8, 0]);
    assert_eq!(tokenizer.encode("a z", true).unwrap(), [5, 2]);
    assert_eq!(tokenizer.decode(&[5, 6, 0], true), "a b");
    let folder = tempfile::tempdir().unwrap();
    let count = write_symbols(&["x", "y", "\n"], Symbols::Characters, &NewSpecials::default(), folder.path())
        .unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!((count, tokenizer.vocabulary()), (7, 7));
    assert_eq!(tokenizer.encode("xy\nx", true).unwrap(), [0, 4, 5, 6, 4]);
    assert_eq!(tokenizer.decode(&[4, 5, 6], true), "xy\n");
    let twice =
        write_symbols(&["x", "x"], Symbols::Words, &NewSpecials::default(), folder.path()).unwrap_err();
    assert!(twice.message().contains("twice"), "{twice}");
    let small = train_bpe(TEXTS.iter(), 100, &NewSpecials::default(), folder.path()).unwrap_err();
    assert!(small.hint_text().unwrap().contains("259"), "{small}");
}

/// Writes files next to a tokenizer and loads it again.
fn reload(folder: &TempDir, files: &[(&str, &str)]) -> Result<Tokenizer> {
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    Tokenizer::load(folder.path())
}

#[test]
fn special_tokens_follow_the_usual_precedence() {
    let (folder, _) = words();
    let load = |settings: serde_json::Value, map: &str, config: &str, generation: &str| {
        let settings = settings.to_string();
        let files = [
            ("tokenizer_config.json", settings.as_str()),
            ("special_tokens_map.json", map),
            ("config.json", config),
            ("generation_config.json", generation),
        ];
        let tokenizer = reload(&folder, &files).unwrap();
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.stop().to_vec())
    };
    assert_eq!(
        load(
            json!({"eos_token": {"content": "d"}}),
            r#"{"eos_token": "c", "bos_token": "a"}"#,
            r#"{"eos_token_id": 0, "pad_token_id": 6}"#,
            "{}"
        ),
        (Some(5), Some(8), Some(6), vec![0, 8])
    );
    assert_eq!(
        load(json!({"eos_token": null}), "{}", r#"{"eos_token_id": [7, 8]}"#, r#"{"eos_token_id": [5, 6]}"#),
        (None, Some(7), Some(7), vec![5, 6, 7])
    );
}

#[test]
fn settings_overrule_what_stands_around_a_text() {
    let (folder, _) = words();
    let encode = |settings: &str| {
        reload(&folder, &[("tokenizer_config.json", settings)]).unwrap().encode("c", true).unwrap()
    };
    assert_eq!(encode(r#"{"bos_token": "a", "eos_token": "b"}"#), [7]);
    assert_eq!(encode(r#"{"bos_token": "a", "eos_token": "b", "add_bos_token": true}"#), [5, 7]);
    assert_eq!(encode(r#"{"bos_token": "a", "eos_token": "b", "add_eos_token": true}"#), [7, 6]);
    assert_eq!(encode(r#"{"add_bos_token": true, "bos_token": null, "pad_token": "[PAD]"}"#), [7]);
    let (folder, _) = bpe(true);
    let off = r#"{"bos_token": "<|begin|>", "add_bos_token": false}"#;
    assert_ne!(reload(&folder, &[("tokenizer_config.json", off)]).unwrap().encode("c", true).unwrap()[0], 0);
}

#[test]
fn chat_templates_are_found_where_folders_keep_them() {
    let (folder, tokenizer) = words();
    assert!(tokenizer.has_chat_template());
    let turn = [Message::new("user", "x")];
    fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    let tokenizer = reload(&folder, &[]).unwrap();
    assert!(!tokenizer.has_chat_template());
    assert_eq!(tokenizer.render(&turn, true).unwrap(), "User: x\n\nAssistant:");
    let several = r#"{"eos_token": "d", "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "1{{ eos_token }}"}]}"#;
    assert_eq!(
        reload(&folder, &[("tokenizer_config.json", several)]).unwrap().render(&turn, true).unwrap(),
        "1d"
    );
    let file = r#"{"chat_template": "2"}"#;
    assert_eq!(reload(&folder, &[("chat_template.json", file)]).unwrap().render(&turn, true).unwrap(), "2");
    assert_eq!(reload(&folder, &[("chat_template.jinja", "3")]).unwrap().render(&turn, true).unwrap(), "3");
    let copy = tempfile::tempdir().unwrap();
    reload(&folder, &[]).unwrap().save(copy.path()).unwrap();
    assert_eq!(Tokenizer::load(copy.path()).unwrap().render(&turn, true).unwrap(), "3");
}

#[track_caller]
fn check_bad(files: &[(&str, &str)], place: &str, message: &str) {
    let (folder, _) = words();
    let problem = reload(&folder, files).unwrap_err();
    assert!(problem.message().contains(message), "{problem}");
    assert!(problem.place_text().is_some_and(|found| found.ends_with(place)), "{problem}");
    assert!(problem.hint_text().is_some(), "{problem}");
}

#[test]
fn bad_folders_say_what_is_wrong() {
    check_bad(
        &[("tokenizer.json", "{\"version\": \"1.0\", \"mod")],
        "tokenizer.json",
        "cannot read the tokenizer",
    );
    check_bad(
        &[("tokenizer_config.json", "{\n \"eos_token\" 3}")],
        "tokenizer_config.json:2:14",
        "broken JSON",
    );
    check_bad(
        &[("tokenizer_config.json", r#"{"eos_token": "</s>"}"#)],
        "tokenizer_config.json",
        "the eos_token `</s>` is not in the vocabulary",
    );
    check_bad(&[("chat_template.jinja", "a\n{% for %}")], "chat_template.jinja:2", "chat template");
    let empty = tempfile::tempdir().unwrap();
    let problem = Tokenizer::load(empty.path()).unwrap_err();
    assert_eq!(problem.message(), "tokenizer.json is missing");
    fs::write(empty.path().join("tokenizer.model"), "").unwrap();
    assert!(Tokenizer::load(empty.path()).unwrap_err().hint_text().unwrap().contains("AutoTokenizer"));
    let problem = Tokenizer::load(&empty.path().join("nowhere")).unwrap_err();
    assert!(problem.hint_text().unwrap().contains("does not exist"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Streaming gives the text of decoding at once, and never half a character.
    #[test]
    fn streams_add_up(text in "([a-z ]|é|日|🦀|\\n){0,20}") {
        let (_folder, tokenizer) = bpe(true);
        let ids = tokenizer.encode(&text, true).unwrap();
        let mut decoder = tokenizer.decoder(true);
        let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
        prop_assert!(!streamed.contains(char::REPLACEMENT_CHARACTER), "half a character");
        streamed += &decoder.finish();
        prop_assert_eq!(streamed, text);
    }

    /// Tokens at random, as a new model draws them, still stream to what decoding gives.
    #[test]
    fn broken_streams_add_up(ids in prop::collection::vec(0..300_u32, 0..20)) {
        for (_folder, tokenizer) in [words(), bpe(true)] {
            for skip_special in [false, true] {
                let mut decoder = tokenizer.decoder(skip_special);
                let mut streamed: String = ids.iter().map(|&id| decoder.push(id)).collect();
                streamed += &decoder.finish();
                prop_assert_eq!(streamed, tokenizer.decode(&ids, skip_special));
            }
        }
    }
}
