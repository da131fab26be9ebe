//! Tests of [`super`]: what becomes prompt and answer, and how faults are worded.

use super::*;
use serde_json::json;

fn record(fields: Value) -> Record {
    let Value::Object(fields) = fields else { unreachable!("tests give objects") };
    Record { fields, place: Place { file: Path::new("data.jsonl").into(), line: 1 } }
}

fn turns(list: &[(&str, &str)]) -> Value {
    list.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

#[track_caller]
fn check_pair(fields: Value, prompt: Value, chosen: Value, rejected: Value) {
    let row = PairRow::from_record(&record(fields), 0).unwrap().remove(0);
    let text = |text: &Text| serde_json::to_value(text).unwrap();
    assert_eq!([text(&row.prompt), text(&row.chosen), text(&row.rejected)], [prompt, chosen, rejected]);
}

#[track_caller]
fn check_fault(fields: Value, message: &str, hint: &str) {
    let fault = PairRow::from_record(&record(fields), 0).unwrap_err();
    assert_eq!(fault.message, message);
    assert!(fault.hint.contains(hint), "{}", fault.hint);
}

#[test]
fn explicit_prompts_stay_as_they_are() {
    check_pair(
        json!({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}),
        json!("The sky is"),
        json!(" blue."),
        json!(" green."),
    );
    let (ask, blue, green) = ([("user", "Colour?")], [("assistant", "Blue")], [("assistant", "Green")]);
    check_pair(
        json!({"prompt": turns(&ask), "chosen": turns(&blue), "rejected": turns(&green)}),
        turns(&ask),
        turns(&blue),
        turns(&green),
    );
    // A prompt string with conversational answers, and answers that repeat the prompt.
    check_pair(
        json!({"prompt": "Colour?", "chosen": turns(&blue), "rejected": turns(&green)}),
        turns(&ask),
        turns(&blue),
        turns(&green),
    );
    check_pair(
        json!({"prompt": turns(&ask), "chosen": turns(&[ask[0], blue[0]]), "rejected": turns(&[ask[0], green[0]])}),
        turns(&ask),
        turns(&blue),
        turns(&green),
    );
    check_pair(
        json!({"prompt": turns(&ask), "chosen": "Blue", "rejected": "Green"}),
        turns(&ask),
        turns(&blue),
        turns(&green),
    );
}

#[test]
fn implicit_prompts_are_extracted_as_trl_does() {
    // The examples of TRL's documentation and the corners of its loop.
    let ask = ("user", "What color is the sky?");
    check_pair(
        json!({"chosen": turns(&[ask, ("assistant", "It is blue.")]), "rejected": turns(&[ask, ("assistant", "It is green.")])}),
        turns(&[ask]),
        turns(&[("assistant", "It is blue.")]),
        turns(&[("assistant", "It is green.")]),
    );
    check_pair(
        json!({"chosen": "The sky is blue.", "rejected": "The sky is green."}),
        json!("The sky is"),
        json!(" blue."),
        json!(" green."),
    );
    check_pair(
        json!({"chosen": "Der Himmel: blüht", "rejected": "Der Himmel: blöd"}),
        json!("Der Himmel: bl"),
        json!("üht"),
        json!("öd"),
    );
    check_pair(json!({"chosen": "abc", "rejected": "abcde"}), json!("ab"), json!("c"), json!("cde"));
    check_fault(
        json!({"chosen": "a", "rejected": "b"}),
        "no field `prompt`, and `chosen` and `rejected` share no beginning that could be one",
        "prompt",
    );
}

#[test]
fn dialogues_are_cut_after_the_last_common_assistant_mark() {
    check_pair(
        json!({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Joke?\n\nAssistant: Knock knock",
               "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Joke?\n\nAssistant: Kno"}),
        json!("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Joke?\n\nAssistant:"),
        json!(" Knock knock"),
        json!(" Kno"),
    );
    // The last turn of one of them may be empty, as in the published data.
    check_pair(
        json!({"chosen": "\n\nHuman: Hi\n\nAssistant:", "rejected": "\n\nHuman: Hi\n\nAssistant: Go"}),
        json!("\n\nHuman: Hi\n\nAssistant:"),
        json!(""),
        json!(" Go"),
    );
}

#[test]
fn faults_name_the_field_and_what_to_do() {
    check_fault(
        json!({"prompt": "x", "choosen": "a", "rejected": "b"}),
        "field `chosen` is missing",
        "rename `choosen` to `chosen`?",
    );
    check_fault(json!({"prompt": "x", "chosen": 3, "rejected": "b"}), "field `chosen` is a number", "string");
    check_fault(
        json!({"prompt": "x", "chosen": [], "rejected": "b"}),
        "field `chosen` is an empty list",
        "string",
    );
    check_fault(json!({"prompt": "x", "chosen": "a", "rejected": "a"}), "`chosen` equals `rejected`", "skip");
    check_fault(json!({"prompt": "x", "chosen": "a", "rejected": " "}), "field `rejected` is empty", "skip");
    check_fault(
        json!({"prompt": "x", "chosen": [{"role": "user"}], "rejected": "b"}),
        "turn 1 of `chosen` has no `content`",
        "role",
    );
    for label in [json!(1.5), json!(-0.1), json!("NaN"), json!("often")] {
        let message = format!("label {label} is not in [0, 1]");
        check_fault(
            json!({"prompt": "x", "chosen": "a", "rejected": "b", "label": label}),
            &message,
            "probability",
        );
    }
}

#[test]
fn labels_may_be_soft() {
    for (label, expected) in
        [(json!(0.25), 0.25), (json!("0.5"), 0.5), (json!(null), 1.0), (json!(true), 1.0)]
    {
        let fields = json!({"prompt": "x", "chosen": "a", "rejected": "b", "label": label});
        assert_eq!(PairRow::from_record(&record(fields), 7).unwrap()[0].label, expected);
    }
}

#[test]
fn completions_come_from_four_kinds_of_rows() {
    let rows = |fields| CompletionRow::from_record(&record(fields), 4).unwrap();
    let plain = |text: &str| Text::Plain(text.into());
    let row = rows(json!({"prompt": "a", "completion": "b"})).remove(0);
    assert_eq!((row.prompt, row.completion), (plain("a"), plain("b")));
    let row = rows(json!({"text": "all of it"})).remove(0);
    assert_eq!((row.prompt, row.completion), (plain(""), plain("all of it")));
    let row = rows(json!({"prompt": "a", "chosen": "b", "rejected": "c"})).remove(0);
    assert_eq!((row.prompt, row.completion), (plain("a"), plain("b")));
    let chat = turns(&[("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")]);
    let rows = rows(json!({"messages": chat}));
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(rows[1].completion, Text::Conversation(vec![Message::new("assistant", "4")]));
    let fault = CompletionRow::from_record(&record(json!({"txt": "a"})), 0).unwrap_err();
    assert!(fault.hint.contains("found `txt`"), "{}", fault.hint);
}

#[test]
fn prompts_may_carry_answers() {
    let row = PromptRow::from_record(&record(json!({"question": "2+2?", "answer": 4})), 0).unwrap().remove(0);
    assert_eq!((row.prompt, row.answer), (Text::Plain("2+2?".into()), Some("4".into())));
}

#[test]
fn a_pair_is_a_list_of_two_with_its_scores() {
    let check = |extra: Value, expected: Result<[f64; 2], &str>| {
        let mut fields = json!({"prompt": "p", "chosen": "good", "rejected": "bad"});
        fields.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        match (ListRow::from_record(&record(fields), 0), expected) {
            (Ok(rows), Ok(scores)) => assert_eq!(rows[0].scores, scores),
            (Err(fault), Err(message)) => assert!(fault.message.contains(message), "{}", fault.message),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    };
    check(json!({}), Ok([1.0, 0.0]));
    check(json!({"score_chosen": null}), Ok([1.0, 0.0]));
    check(json!({"score_chosen": 8.5, "score_rejected": 7}), Ok([8.5, 7.0]));
    check(json!({"score_chosen": "8.5", "score_rejected": "8.5"}), Ok([8.5, 8.5]));
    check(json!({"score_chosen": 8.5}), Err("`score_rejected` is missing"));
    check(json!({"score_chosen": 1, "score_rejected": 2}), Err("the rejected answer has the higher score"));
    check(json!({"score_chosen": "high", "score_rejected": 2}), Err("`score_chosen` is"));
    check(json!({"score_chosen": [8], "score_rejected": 2}), Err("`score_chosen` is a list"));
}

#[test]
fn a_pair_may_say_more() {
    let pair = json!({"prompt": "x", "chosen": "a", "rejected": "b"});
    let with = |more: Value| {
        let mut fields = pair.clone();
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    let about = |more: Value| PairRow::from_record(&record(with(more)), 0).unwrap().remove(0).about;
    assert_eq!(about(json!({})), About::default());
    let found = about(json!({
        "score_chosen": 1, "score_rejected": "2.5", "chosen_is_safe": false, "rejected_is_safe": "True", "group": 7,
    }));
    let expected =
        About { scores: Some([1.0, 2.5]), safe: Some([false, true]), group: Some("7".into()), open: false };
    assert_eq!(found, expected);
    check_fault(with(json!({"score_chosen": 1})), "field `score_rejected` is missing", "needs the other");
    check_fault(with(json!({"chosen_is_safe": true})), "field `rejected_is_safe` is missing", "of both");
    check_fault(
        with(json!({"chosen_is_safe": 2, "rejected_is_safe": true})),
        "`chosen_is_safe` 2 is neither true nor false",
        "true or false",
    );
    check_fault(with(json!({"group": []})), "field `group` is an empty list", "a name or a number");
    // Step-DPO's own fields.
    let row =
        PairRow::from_record(&record(with(json!({"initial_reason_steps": " 1."}))), 0).unwrap().remove(0);
    assert_eq!((row.prompt.words().as_str(), row.about.open), ("x 1.", true));
}

#[test]
fn single_answers_may_have_scores() {
    let check = |fields: Value, expected: &[(bool, f64)]| {
        let rows = UnpairedRow::from_record(&record(fields), 0).unwrap();
        assert_eq!(rows.iter().map(|row| (row.label, row.score)).collect::<Vec<_>>(), expected);
    };
    let one =
        |more: &str| serde_json::from_str(&format!(r#"{{"prompt":"x","completion":"a",{more}}}"#)).unwrap();
    check(one(r#""label":true"#), &[(true, 1.0)]);
    check(one(r#""score":-0.5"#), &[(false, -0.5)]);
    check(one(r#""score":0.5,"label":false"#), &[(false, 0.5)]);
    check(
        json!({"prompt": "x", "completions": ["a", "b", "c"], "scores": [1, 2, 6]}),
        &[(false, 1.0), (false, 2.0), (true, 6.0)],
    );
    check(
        json!({"prompt": "x", "chosen": "a", "rejected": "b", "score_chosen": 4, "score_rejected": 3}),
        &[(true, 4.0), (false, 3.0)],
    );
    let fault = UnpairedRow::from_record(&record(one(r#""score":"high""#)), 0).unwrap_err();
    assert_eq!(fault.message, "`score` is \"high\"");
}
