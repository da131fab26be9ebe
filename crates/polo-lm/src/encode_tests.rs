//! Tests of [`super`] against TRL: golden ids, limits, and what happens at the boundary.

use super::*;
use crate::{
    rows::{About, Message},
    tokens::tests::{bpe, words},
};

fn place() -> Place {
    Place { file: std::path::Path::new("pairs.jsonl").into(), line: 7 }
}

fn pair(prompt: &str, chosen: &str, rejected: &str) -> PairRow {
    let plain = |text: &str| Text::Plain(text.into());
    PairRow {
        prompt: plain(prompt),
        chosen: plain(chosen),
        rejected: plain(rejected),
        label: 1.0,
        about: About::default(),
        place: place(),
        id: 3,
    }
}

fn chat(turns: &[(&str, &str)]) -> Text {
    Text::Conversation(turns.iter().map(|&(role, content)| Message::new(role, content)).collect())
}

#[track_caller]
fn check(row: PairRow, tokenizer: &Tokenizer, limits: Limits, expected: [&[u32]; 3]) -> EncodeReport {
    let encoded = encode_pairs(&[row], tokenizer, &limits).unwrap();
    let PairTokens { prompt, chosen, rejected, .. } = &encoded.rows[0];
    assert_eq!([prompt.as_slice(), chosen, rejected], expected);
    encoded.report
}

// The ids below are what TRL 1.16's DPOTrainer makes of these rows with transformers' AutoTokenizer on the same files.

#[test]
fn plain_pairs_are_tokenized_as_trl_does() {
    let hh = "\n\nHuman: what is the colour of the sand?\n\nAssistant:";
    let (_folder, tokenizer) = bpe(true);
    let limits = Limits::new(1024);
    check(
        pair("The sky is", " blue.", " green."),
        &tokenizer,
        limits,
        [&[0, 271, 283, 261], &[285, 16, 1], &[325, 16, 1]],
    );
    let prompt = [
        0, 201, 201, 42, 87, 79, 263, 28, 314, 289, 261, 265, 300, 326, 265, 282, 33, 201, 201, 301, 328, 86,
        28,
    ];
    let yellow = [223, 59, 284, 89, 1];
    let green = [294, 84, 312, 80, 161, 225, 102, 1];
    let report = check(pair(hh, " Yellow<|end|>", " grün…"), &tokenizer, limits, [&prompt, &yellow, &green]);
    assert_eq!(report, EncodeReport { rows: 1, ..EncodeReport::default() });
    // Tokens that merge across the boundary belong to the answers, for both of them.
    let ends: [&[u32]; 3] = [&[0, 271, 283, 261], &[325, 1], &[294, 275, 91, 14, 295, 84, 262, 81, 1]];
    assert_eq!(check(pair("The sky is gr", "een", "ey, or so"), &tokenizer, limits, ends).diverged, 1);
    let (_folder, tokenizer) = bpe(false);
    check(
        pair("The sky is", " blue.", " green."),
        &tokenizer,
        limits,
        [&[270, 282, 260], &[284, 15, 0], &[324, 15, 0]],
    );
}

#[test]
fn conversations_are_tokenized_as_trl_does() {
    let row = PairRow {
        prompt: chat(&[("system", "Be brief."), ("user", " What colour is the sky?")]),
        chosen: chat(&[("assistant", "It is blue.")]),
        rejected: chat(&[("assistant", "Green.")]),
        ..pair("", "", "")
    };
    let (folder, tokenizer) = bpe(true);
    let prompt = [
        0, 53, 91, 85, 86, 71, 79, 28, 223, 36, 71, 223, 68, 84, 75, 71, 72, 16, 201, 201, 327, 28, 293, 289,
        300, 261, 265, 283, 33, 201, 201, 301, 328, 86, 28,
    ];
    let limits = Limits::new(1024);
    check(row.clone(), &tokenizer, limits, [&prompt, &[323, 261, 285, 16, 1], &[223, 41, 318, 16, 1]]);

    // ChatML spelt out in ordinary tokens, without a BOS and without the tokenizer's end token.
    let chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
                  '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    std::fs::write(folder.path().join("chat_template.jinja"), chatml).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    let prompt = [
        30, 94, 75, 79, 65, 85, 86, 67, 84, 86, 94, 32, 85, 91, 85, 86, 71, 79, 201, 36, 71, 223, 68, 84, 75,
        71, 72, 16, 30, 94, 75, 79, 65, 269, 70, 94, 32, 201, 30, 94, 75, 79, 65, 85, 86, 67, 84, 86, 94, 32,
        87, 85, 270, 201, 293, 289, 300, 261, 265, 283, 33, 30, 94, 75, 79, 65, 269, 70, 94, 32, 201, 30, 94,
        75, 79, 65, 85, 86, 67, 84, 86, 94, 32, 67, 85, 328, 86, 201,
    ];
    let chosen = [43, 86, 261, 285, 16, 30, 94, 75, 79, 65, 269, 70, 94, 32, 201];
    let rejected = [41, 318, 16, 30, 94, 75, 79, 65, 269, 70, 94, 32, 201];
    check(row, &tokenizer, limits, [&prompt, &chosen, &rejected]);
}

#[test]
fn the_end_token_is_not_doubled() {
    let (_folder, tokenizer) = words();
    let report =
        check(pair("a b ", "c", "d<|end|>"), &tokenizer, Limits::new(8), [&[5, 6], &[7, 0], &[8, 0]]);
    assert_eq!(report, EncodeReport { rows: 1, ..EncodeReport::default() });
}

#[test]
fn long_answers_keep_their_beginning() {
    let (_folder, tokenizer) = words();
    let report = check(pair("a ", "b b b b", "c"), &tokenizer, Limits::new(3), [&[5], &[6, 6], &[7, 0]]);
    assert_eq!((report.cut_answers, report.cut_prompts), (1, 0));
}

#[test]
fn long_prompts_stop_drop_or_shrink() {
    let (_folder, tokenizer) = words();
    let row = || pair("a b c d ", "a b", "c");
    let limits = |long_prompt| Limits { long_prompt, ..Limits::new(4) };
    let problem = encode_pairs(&[row()], &tokenizer, &limits(LongPrompt::Stop)).unwrap_err();
    assert_eq!(problem.to_string(), "pairs.jsonl:7: the prompt has 4 tokens and fills the context of 4");
    assert!(problem.hint_text().unwrap().contains("keep-end"));
    let both = encode_pairs(&[row(), pair("a ", "b", "c")], &tokenizer, &limits(LongPrompt::Drop)).unwrap();
    assert_eq!((both.rows.len(), both.report.dropped), (1, 1));
    assert!(encode_pairs(&[row()], &tokenizer, &limits(LongPrompt::Drop)).is_err());
    // The answers want 3 of 4 tokens and get half.
    let report = check(row(), &tokenizer, limits(LongPrompt::KeepEnd), [&[7, 8], &[5, 6], &[7, 0]]);
    assert_eq!((report.cut_answers, report.cut_prompts), (1, 1));
    check(row(), &tokenizer, limits(LongPrompt::KeepStart), [&[5, 6], &[5, 6], &[7, 0]]);
    let short = Limits { max_prompt_length: Some(1), ..Limits::new(8) };
    check(row(), &tokenizer, short, [&[8], &[5, 6, 0], &[7, 0]]);
}

#[test]
fn a_context_of_one_token_is_refused() {
    let (_folder, tokenizer) = words();
    for max_length in [0, 1] {
        let limits = Limits { long_prompt: LongPrompt::KeepEnd, ..Limits::new(max_length) };
        let problem = encode_pairs(&[pair("a ", "b", "c")], &tokenizer, &limits).unwrap_err();
        assert!(problem.message().starts_with("max_length is"), "{problem}");
    }
}

#[test]
fn a_cut_prompt_keeps_its_bos() {
    let mut prompt = vec![0, 10, 11, 12, 13];
    cut_prompt(&mut prompt, 3, false, Some(0));
    assert_eq!(prompt, [0, 12, 13]);
}

#[test]
fn empty_prompts_begin_with_bos_or_end_token() {
    let (_folder, tokenizer) = words();
    let row = CompletionRow {
        prompt: Text::Plain(String::new()),
        completion: Text::Plain("a b".into()),
        place: place(),
        id: 0,
    };
    let encoded = encode_completions(std::slice::from_ref(&row), &tokenizer, &Limits::new(8)).unwrap();
    assert_eq!(encoded.rows, [CompletionTokens { prompt: vec![0], completion: vec![5, 6, 0], id: 0 }]);
    let (_folder, tokenizer) = bpe(true);
    let encoded = encode_completions(&[row], &tokenizer, &Limits::new(8)).unwrap();
    assert_eq!(encoded.rows[0].prompt, [0]);
}

#[test]
fn order_is_kept_and_the_first_error_is_reported() {
    let (_folder, tokenizer) = words();
    let mut rows: Vec<_> = (0..200).map(|id| PairRow { id, ..pair("a ", "b", "c") }).collect();
    let ids: Vec<_> =
        encode_pairs(&rows, &tokenizer, &Limits::new(8)).unwrap().rows.iter().map(|row| row.id).collect();
    assert_eq!(ids, (0..200).collect::<Vec<_>>());
    for line in [150, 40] {
        rows[line] = pair("a a a a a a a a a ", "b", "c");
        rows[line].place.line = line;
    }
    let problem = encode_pairs(&rows, &tokenizer, &Limits::new(8)).unwrap_err();
    assert_eq!(problem.place_text(), Some("pairs.jsonl:40"));
}

#[test]
fn an_unfinished_turn_is_continued_and_a_step_has_no_end() {
    let (_folder, tokenizer) = bpe(true);
    let limits = Limits::new(1024);
    let prompt = chat(&[("user", "What colour is the sky?")]);
    let full = PairRow {
        prompt: prompt.clone(),
        chosen: chat(&[("assistant", "It is blue.")]),
        rejected: chat(&[("assistant", "It is green.")]),
        ..pair("", "", "")
    };
    let continued = PairRow {
        prompt: prompt.continued("It is"),
        chosen: chat(&[("assistant", " blue.")]),
        rejected: chat(&[("assistant", " green.")]),
        ..full.clone()
    };
    let of =
        |row: &PairRow| encode_pairs(std::slice::from_ref(row), &tokenizer, &limits).unwrap().rows.remove(0);
    let (whole, split) = (of(&full), of(&continued));
    // The same sequences; what was said already belongs to the prompt.
    assert_eq!([&whole.prompt[..], &whole.chosen].concat(), [&split.prompt[..], &split.chosen].concat());
    assert_eq!([&whole.prompt[..], &whole.rejected].concat(), [&split.prompt[..], &split.rejected].concat());
    assert!(split.prompt.len() > whole.prompt.len() && split.chosen.len() < whole.chosen.len());
    for row in [continued, pair("The sky is", " blue.", " green.")] {
        let ended = of(&row);
        let open = of(&PairRow { about: About { open: true, ..About::default() }, ..row });
        assert_eq!(open.prompt, ended.prompt);
        assert_eq!(open.chosen, ended.chosen[..ended.chosen.len() - 1]);
        assert_eq!(open.rejected, ended.rejected[..ended.rejected.len() - 1]);
    }
}
