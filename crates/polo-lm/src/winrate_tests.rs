use std::fs;

use super::*;
use crate::{judge::Rule, rows::Message};

fn answer(prompt: &str, completion: &str) -> Answer {
    Answer {
        prompt: Text::Plain(prompt.into()),
        completion: completion.into(),
        source: None,
        answer: Some("42".into()),
    }
}

/// Gives verdicts from a list.
struct Says(Vec<Option<f64>>);

impl Judge for Says {
    fn name(&self) -> String {
        "says".into()
    }

    fn compare(&self, _: &[Comparison]) -> Result<Vec<Option<f64>>> {
        Ok(self.0.clone())
    }
}

fn duel(id: u64, a: &str, b: &str, source: &str) -> Duel {
    let prompt = Text::Plain(id.to_string());
    let comparison = Comparison { id, prompt, a: a.into(), b: b.into(), answer: None };
    Duel { comparison, source: (!source.is_empty()).then(|| source.to_owned()) }
}

#[test]
fn ties_count_half_and_unread_verdicts_nothing() {
    let duels: Vec<Duel> = (0..21).map(|id| duel(id, "a", "b", "")).collect();
    let mut verdicts = vec![Some(1.0); 10];
    verdicts.extend([Some(0.5); 4]);
    verdicts.extend([Some(0.0); 6]);
    verdicts.push(None);
    let found = win_rate(&Says(verdicts), &duels, &Seeds::new(1)).unwrap();
    let Rate { wins, ties, losses, unjudged, .. } = found.overall;
    assert_eq!((wins, ties, losses, unjudged), (10, 4, 6, 1));
    assert_eq!(found.overall.wilson, wilson(12.0, 20, "prompts"));
    assert_eq!(found.overall.bootstrap.mean, 0.6);
    let (low, high) = found.overall.bootstrap.interval.unwrap();
    assert!((0.35..0.5).contains(&low) && (0.7..0.85).contains(&high), "{low} {high}");
    assert!(found.sources.is_empty());
    assert_eq!(found.lengths.longer_won.n, 0);
}

#[test]
fn answers_to_one_prompt_are_one_observation() {
    let duels = [duel(0, "a", "b", ""), duel(0, "a", "b", ""), duel(1, "a", "b", "")];
    let found = win_rate(&Says(vec![Some(1.0), Some(0.0), Some(1.0)]), &duels, &Seeds::new(1)).unwrap();
    assert_eq!(found.overall.wilson, wilson(1.5, 2, "prompts"));
    assert_eq!((found.overall.wins, found.overall.losses), (2, 1));
}

#[test]
fn sources_and_lengths_are_told_apart() {
    let duels = [
        duel(0, "long", "b", "in"),
        duel(1, "c", "other", "out"),
        duel(2, "éé", "b", "out"),
        duel(3, "", "b", ""),
    ];
    let found = win_rate(&Rule::Longer, &duels, &Seeds::new(1)).unwrap();
    let rates: Vec<_> =
        found.sources.iter().map(|(name, rate)| (name.as_str(), rate.wilson.mean, rate.wilson.n)).collect();
    assert_eq!(rates, [("in", 1.0, 1), ("out", 0.5, 2)]);
    assert_eq!(found.overall.wilson, wilson(2.0, 4, "prompts"));
    assert_eq!((found.lengths.a.mean, found.lengths.b.mean), (1.75, 2.0));
    assert_eq!((found.lengths.median_a, found.lengths.median_b), (Some(1.5), Some(1.0)));
    assert_eq!(found.lengths.longer_won, wilson(4.0, 4, "comparisons"));
}

#[test]
fn nothing_to_judge_is_no_panic() {
    let found = win_rate(&Says(vec![None]), &[duel(0, "a", "b", "x")], &Seeds::new(1)).unwrap();
    assert_eq!((found.overall.wilson.n, found.overall.unjudged, found.lengths.median_a), (0, 1, None));
    assert_eq!(win_rate(&Says(vec![]), &[], &Seeds::new(1)).unwrap().overall.wins, 0);
}

#[test]
fn answers_meet_by_their_prompt() {
    let a = [answer("p", "1"), answer("q", "2"), answer("p", "3")];
    let b = [answer("q", "b2"), answer("p", "b1"), answer("r", "b9"), answer("p", "b3")];
    let found: Vec<_> = duels(&a, &b)
        .unwrap()
        .into_iter()
        .map(|Duel { comparison: Comparison { id, a, b, .. }, .. }| (id, a, b))
        .collect();
    let expected = [(0, "1", "b1"), (1, "2", "b2"), (0, "3", "b3")];
    assert_eq!(found, expected.map(|(id, a, b)| (id, a.to_owned(), b.to_owned())));
    let problem = duels(&a, &b[..3]).unwrap_err();
    assert!(problem.message().starts_with("1 of 3 answers have no counterpart"), "{problem}");
    assert!(problem.message().contains("\"p\""), "{problem}");
}

#[test]
fn answers_are_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.jsonl");
    let read = |lines: &str| {
        fs::write(&path, lines).unwrap();
        read_answers(std::slice::from_ref(&path), &ReadOptions::default())
    };
    let found = read(concat!(
        "{\"prompt\": \"p\", \"completion\": \"\", \"source\": \"in\", \"answer\": 42}\n",
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}], ",
        "\"completion\": [{\"role\": \"assistant\", \"content\": \"yes\"}]}\n",
    ))
    .unwrap();
    assert_eq!(found[0], Answer { source: Some("in".into()), ..answer("p", "") });
    assert_eq!(found[1].prompt, Text::Conversation(vec![Message::new("user", "q")]));
    assert_eq!((found[1].completion.as_str(), &found[1].answer), ("yes", &None));
    for (line, message) in [
        ("{\"prompt\": \"p\"}\n", "field `completion` is missing"),
        ("{\"prompt\": 3, \"completion\": \"c\"}\n", "field `prompt` is neither a string nor a conversation"),
        ("{\"prompt\": \"p\", \"completion\": \"c\", \"source\": []}\n", "field `source` is no string"),
    ] {
        let problem = read(line).unwrap_err();
        assert!(
            problem.to_string().contains("answers.jsonl:1") && problem.message().contains(message),
            "{problem}"
        );
    }
}
