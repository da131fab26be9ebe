use super::*;
use crate::rows::Message;

fn item(a: &str, b: &str, answer: Option<&str>) -> Comparison {
    Comparison {
        id: 4,
        prompt: Text::Plain("q".into()),
        a: a.into(),
        b: b.into(),
        answer: answer.map(str::to_owned),
    }
}

#[test]
fn rules_decide_and_mirror() {
    let check = |rule: Rule, a: &str, b: &str, expected: f64| {
        let verdicts = rule.compare(&[item(a, b, Some("42")), item(b, a, Some("42"))]).unwrap();
        assert_eq!(verdicts, [Some(expected), Some(1.0 - expected)], "{rule:?} {a} {b}");
    };
    check(Rule::Exact, " 42\n", "41", 1.0);
    check(Rule::Exact, "it is 42", "42", 0.0);
    check(Rule::Exact, "42", "42 ", 0.5);
    check(Rule::Contains, "it is 42", "41", 1.0);
    check(Rule::Contains, "it is 42", "42", 0.5);
    check(Rule::Shorter, "é", "no", 1.0);
    check(Rule::Longer, "é", "e", 0.5);
    check(Rule::Longer, "éé", "e", 1.0);
}

#[test]
fn a_missing_right_answer_is_named() {
    for answer in [None, Some("  ")] {
        let problem = Rule::Exact.compare(&[item("a", "b", answer)]).unwrap_err();
        assert_eq!(problem.message(), "the judge needs a right answer, and prompt 4 has none");
    }
    assert_eq!(Rule::Longer.compare(&[item("aa", "b", None)]).unwrap(), [Some(1.0)]);
}

/// Says 3/4 for every comparison but those of prompt 9, which it cannot read.
struct Mostly;

impl Judge for Mostly {
    fn name(&self) -> String {
        "mostly".into()
    }

    fn compare(&self, items: &[Comparison]) -> Result<Vec<Option<f64>>> {
        Ok(items.iter().map(|item| (item.id != 9).then_some(0.75)).collect())
    }
}

#[test]
fn pairs_carry_the_preference() {
    let mut items = vec![item("good", "bad", None); 4_000];
    items[0].id = 9;
    items[1].b = "good".into();
    let collect = |labels| collect_pairs(&Mostly, &items, labels, &Seeds::new(2)).unwrap();
    let hard = collect(Labels::Hard);
    assert_eq!((hard.len(), &hard), (3_998, &collect(Labels::Hard)));
    let share = hard.iter().filter(|row| row.chosen == Text::Plain("good".into())).count() as f64 / 3_998.0;
    assert!((share - 0.75).abs() < 0.03 && hard.iter().all(|row| row.label == 1.0), "{share}");
    let soft = collect(Labels::Soft);
    assert!(soft.iter().all(|row| row.chosen == Text::Plain("good".into()) && row.label == 0.75));
    assert!(soft.iter().enumerate().all(|(index, row)| row.id == index as u64));
}

#[test]
fn a_conversation_gets_its_answers_as_turns() {
    let prompt = Text::Conversation(vec![Message::new("user", "q")]);
    let items = [Comparison { prompt, ..item("good", "bad", None) }];
    let rows = collect_pairs(&Mostly, &items, Labels::Soft, &Seeds::new(2)).unwrap();
    assert_eq!(rows[0].chosen, Text::Conversation(vec![Message::new("assistant", "good")]));
}

#[test]
fn settings_name_their_judge() {
    let name =
        |by| JudgeSettings { by, ..JudgeSettings::default() }.judge(|_| None).map(|judge| judge.name());
    assert_eq!(name(JudgeKind::Contains).unwrap(), "contains the answer");
    assert!(name(JudgeKind::Model).is_err(), "no server is named by default");
}
