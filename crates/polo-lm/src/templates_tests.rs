//! Tests of [`super`]: where texts go, and that only x is ever shortened.

use proptest::prelude::*;

use super::*;
use crate::{
    rows::{About, Place},
    tokens::tests::{bpe, words},
};

fn plain(text: &str) -> Text {
    Text::Plain(text.into())
}

fn chat(turns: &[(&str, &str)]) -> Text {
    Text::Conversation(turns.iter().map(|&(role, content)| Message::new(role, content)).collect())
}

#[test]
fn prompts_and_answers_go_where_they_belong() {
    let symbols = RevisionTemplates::symbols();
    assert_eq!(symbols.generate(&plain("a b")), plain("a b GEN "));
    assert_eq!(symbols.revise(&plain("a b"), &plain("c")).unwrap(), plain("a b REV c GEN "));
    // What looks like a placeholder within a prompt is text.
    assert_eq!(
        symbols.revise(&plain("{answer} {x"), &plain("{prompt}")).unwrap(),
        plain("{answer} {x REV {prompt} GEN ")
    );
    let (ask, answer) = (chat(&[("user", "Colour?")]), chat(&[("assistant", "Blue")]));
    let revised = RevisionTemplates::default().revise(&ask, &answer).unwrap();
    assert_eq!(revised, chat(&[("user", "Colour?"), ("assistant", "Blue"), ("user", REVISE_TURN)]));
    let quoting =
        RevisionTemplates { revise_turn: "Better than {answer}?".into(), ..RevisionTemplates::default() };
    let Text::Conversation(turns) = quoting.revise(&ask, &answer).unwrap() else {
        unreachable!("conversations stay")
    };
    assert_eq!(turns[2].content, "Better than Blue?");
    assert!(symbols.revise(&ask, &plain("x")).is_err());
}

#[test]
fn the_presets_are_sound_and_broken_templates_are_refused() {
    for name in ["instructions", "dialogues", "summaries", "symbols"] {
        RevisionTemplates::named(name).unwrap().check().unwrap();
    }
    assert!(RevisionTemplates::named("poems").is_err());
    let suited = |prompt: &str| RevisionTemplates::suited_to(&plain(prompt));
    assert_eq!(suited("\n\nHuman: Hi\n\nAssistant:"), RevisionTemplates::dialogues());
    assert_eq!(suited("Hi"), RevisionTemplates::instructions());
    let refused = |generate: &str, revise: &str| RevisionTemplates::of(generate, revise).check().unwrap_err();
    assert!(refused("x", "{prompt} {answer}").message().contains("`generate` holds {prompt} 0 times"));
    assert!(
        refused("{prompt}", "{prompt} {prompt} {answer}")
            .message()
            .contains("`revise` holds {prompt} 2 times")
    );
    assert!(refused("{prompt}", "{answer} {prompt}").message().contains("before"));
    assert_ne!(RevisionTemplates::symbols().fingerprint(), RevisionTemplates::summaries().fingerprint());
}

/// `expected` are the token ids, or none where nothing fits. Ids: 3 GEN, 4 REV, 5.. a b c d.
#[track_caller]
fn check_revise(prompt: &str, answer: &str, room: usize, expected: Option<&[u32]>) {
    let (_folder, tokenizer) = words();
    let fitted =
        RevisionTemplates::symbols().encode_revise(&plain(prompt), &plain(answer), &tokenizer, room).unwrap();
    assert_eq!(fitted.as_ref().map(|fitted| fitted.ids.as_slice()), expected);
    if let Some(fitted) = fitted {
        assert_eq!(
            fitted.cut,
            fitted.ids.len() < 3 + prompt.split(' ').count() + answer.split(' ').count() - 1
        );
    }
}

#[test]
fn only_the_left_of_the_prompt_is_cut() {
    check_revise("a b c", "d d", 9, Some(&[5, 6, 7, 4, 8, 8, 3]));
    check_revise("a b c", "d d", 5, Some(&[7, 4, 8, 8, 3]));
    check_revise("a b c", "d d", 4, Some(&[4, 8, 8, 3]));
    check_revise("a b c", "d d", 3, None);
    check_revise("a b c", "d d", 0, None);
}

#[test]
fn conversations_lose_their_oldest_words_but_no_structure() {
    let (_folder, tokenizer) = bpe(true);
    let prompt = chat(&[
        ("system", "Be kind."),
        ("user", "The sky is blue."),
        ("assistant", "It is."),
        ("user", "What colour is the sea?"),
    ]);
    let answer = chat(&[("assistant", "The sea is green.")]);
    let templates = RevisionTemplates::default();
    let encode = |room| templates.encode_revise(&prompt, &answer, &tokenizer, room).unwrap();
    let whole = encode(1000).unwrap().ids;
    let cut = encode(whole.len() - 8).unwrap();
    assert_eq!((cut.ids.len(), cut.cut), (whole.len() - 8, true));
    let text = tokenizer.decode(&cut.ids, true);
    assert!(text.starts_with("System: Be kind.\n\nUser:"), "{text}");
    assert!(text.contains("Assistant: The sea is green.") && text.ends_with("Assistant:"), "{text}");
    assert!(!text.contains("The sky is blue"), "{text}");
    assert!(encode(10).is_none());
}

fn row(prompt: &str, chosen: &str, rejected: &str) -> PairRow {
    let place = Place { file: std::path::Path::new("pairs.jsonl").into(), line: 9 };
    PairRow {
        prompt: plain(prompt),
        chosen: plain(chosen),
        rejected: plain(rejected),
        label: 0.75,
        about: About::default(),
        place,
        id: 5,
    }
}

#[test]
fn pairs_become_three_prompts_and_two_answers() {
    let (_folder, tokenizer) = words();
    let symbols = RevisionTemplates::symbols();
    let encode = |rows: &[PairRow], limits: Limits| encode_revisions(rows, &symbols, &tokenizer, &limits);
    let encoded = encode(&[row("a b", "c<|end|>", "d d")], Limits::new(20)).unwrap();
    let expected = RevisionTokens {
        generate: vec![5, 6, 3],
        revise_chosen: vec![5, 6, 4, 7, 3],
        revise_rejected: vec![5, 6, 4, 8, 8, 3],
        chosen: vec![7, 0],
        rejected: vec![8, 8, 0],
        label: 0.75,
        id: 5,
    };
    assert_eq!(encoded.rows, [expected]);
    // Eight tokens: R(x, rejected) must leave three to the longer answer.
    let encoded = encode(&[row("a b", "c", "d d")], Limits::new(8)).unwrap();
    assert_eq!(encoded.rows[0].revise_rejected, [6, 4, 8, 8, 3]);
    assert_eq!((encoded.rows[0].generate.len(), encoded.report.cut_prompts), (3, 1));
    let problem = encode(&[row("a b", "c", "d d")], Limits::new(6)).unwrap_err();
    assert_eq!(problem.place_text(), Some("pairs.jsonl:9"));
    let drop = Limits { long_prompt: LongPrompt::Drop, ..Limits::new(6) };
    let both = encode(&[row("a b", "c", "d d"), row("a", "c", "d")], drop).unwrap();
    assert_eq!((both.rows.len(), both.report.dropped), (1, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the room, the answer and the texts of the template come out whole.
    #[test]
    fn nothing_but_the_prompt_is_lost(prompt in "[a-zé ]{0,40}", answer in "[a-z]{1,12}", room in 0..200_usize) {
        let (_folder, tokenizer) = bpe(true);
        let templates = RevisionTemplates::summaries();
        let fitted = templates.encode_revise(&plain(&prompt), &plain(&answer), &tokenizer, room).unwrap();
        if let Some(fitted) = fitted {
            prop_assert!(fitted.ids.len() <= room);
            let text = tokenizer.decode(&fitted.ids, true);
            prop_assert!(text.ends_with(&format!("EXAMPLE SUMMARY: {answer}\n\nTL;DR:")), "{}", text);
            prop_assert!(text.starts_with("Below is a post"), "{}", text);
        }
    }
}
