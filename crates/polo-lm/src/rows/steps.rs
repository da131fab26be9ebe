//! Rows of answers in steps, each right or wrong (TRL's stepwise supervision), and the pairs of steps that Step-DPO
//! (Lai et al. 2024) learns from: after the same right steps, a right next step against a wrong one.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    About, Fault, PairRow, Place, Record, Row, Text, empty, missing, present, text, truth, wrong_type,
};

/// What stands after each step, as in TRL.
const SEPARATOR: &str = "\n";

/// An answer in steps.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// What was asked.
    pub prompt: Text,
    /// The steps, at least one, none blank, all plain.
    pub steps: Vec<Text>,
    /// Whether each step is right.
    pub labels: Vec<bool>,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

impl StepRow {
    /// Steps before the first wrong one.
    fn right(&self) -> usize {
        self.labels.iter().take_while(|&&right| right).count()
    }
}

impl Row for StepRow {
    const FIELDS: &'static [&'static str] = &["prompt", "completions", "labels"];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        if !present(fields, "prompt") {
            return Err(missing(
                fields,
                "prompt",
                "answers in steps are `prompt`, `completions` and `labels`",
            ));
        }
        let prompt = text(fields, "prompt")?;
        let list = |name: &'static str, what: &str| match fields.get(name) {
            Some(Value::Array(items)) if !items.is_empty() => Ok(items),
            None | Some(Value::Null) => Err(missing(fields, name, what)),
            Some(other) => Err(wrong_type(name, other, what)),
        };
        let (steps, labels) = (
            list("completions", "a list of steps")?,
            list("labels", "a list of true and false, one for each step")?,
        );
        if steps.len() != labels.len() {
            return Err(Fault::new(
                "labels",
                format!("{} steps have {} labels", steps.len(), labels.len()),
                "give one label for each step",
            ));
        }
        let step = |step: &Value| match step {
            Value::String(step) if step.trim().is_empty() => Err(empty("completions")),
            Value::String(step) => Ok(Text::Plain(step.clone())),
            other => Err(wrong_type("completions", other, "a list of strings, one for each step")),
        };
        let label = |label: &Value| {
            truth(&serde_json::Map::from_iter([("labels".into(), label.clone())]), "labels")?
                .ok_or_else(|| wrong_type("labels", label, "a list of true and false"))
        };
        Ok(vec![Self {
            prompt,
            steps: steps.iter().map(step).collect::<Result<_, _>>()?,
            labels: labels.iter().map(label).collect::<Result<_, _>>()?,
            place: record.place.clone(),
            id,
        }])
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        let steps = self.steps.iter().map(|step| ("step", step));
        std::iter::once(("prompt", &self.prompt)).chain(steps).collect()
    }

    fn extra(&self) -> String {
        format!("{:?}", self.labels)
    }
}

/// For each answer with a wrong step, its first wrong step against the first right one that another answer to the same
/// prompt takes after the same steps. The second number counts the wrong answers without such a counterpart.
///
/// The steps that both have in common become a part of the prompt.
pub fn steps_to_pairs(rows: &[StepRow]) -> (Vec<PairRow>, usize) {
    let mut of_prompt: HashMap<&Text, Vec<&StepRow>> = HashMap::new();
    for row in rows {
        of_prompt.entry(&row.prompt).or_default().push(row);
    }
    let (mut pairs, mut alone) = (Vec::new(), 0);
    for row in rows {
        let first_wrong = row.right();
        if first_wrong == row.steps.len() {
            continue;
        }
        let before = &row.steps[..first_wrong];
        let counterpart = of_prompt[&row.prompt].iter().find(|other| {
            other.right() > first_wrong
                && &other.steps[..first_wrong] == before
                && other.steps[first_wrong] != row.steps[first_wrong]
        });
        let Some(counterpart) = counterpart else {
            alone += 1;
            continue;
        };
        let said: String = before.iter().map(|step| step.words() + SEPARATOR).collect();
        let prompt = match (&row.prompt, said.is_empty()) {
            (Text::Conversation(_), true) => row.prompt.clone(),
            _ => row.prompt.continued(&said),
        };
        pairs.push(PairRow {
            chosen: row.prompt.answered(counterpart.steps[first_wrong].words()),
            rejected: row.prompt.answered(row.steps[first_wrong].words()),
            prompt,
            label: 1.0,
            about: About { open: true, ..About::default() },
            place: row.place.clone(),
            id: pairs.len() as u64,
        });
    }
    (pairs, alone)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn row(fields: Value, id: u64) -> Result<StepRow, Fault> {
        let Value::Object(fields) = fields else { unreachable!("tests give objects") };
        let place = Place { file: Path::new("steps.jsonl").into(), line: id as usize + 1 };
        StepRow::from_record(&Record { fields, place }, id).map(|mut rows| rows.remove(0))
    }

    fn rows(all: &[(Value, &[&str], &[bool])]) -> Vec<StepRow> {
        let all = all.iter().zip(0..);
        all.map(|((prompt, steps, labels), id)| {
            row(json!({"prompt": prompt, "completions": steps, "labels": labels}), id).unwrap()
        })
        .collect()
    }

    #[test]
    fn the_first_wrong_step_meets_a_right_one_after_the_same_steps() {
        let ask = json!("12 * 3? ");
        let rows = rows(&[
            (ask.clone(), &["10 * 3 = 30", "2 * 3 = 6", "36"], &[true, true, true]),
            (ask.clone(), &["10 * 3 = 30", "2 * 3 = 5", "35"], &[true, false, false]),
            (ask.clone(), &["10 * 3 = 31"], &[false]),
            // Nobody goes on rightly from here.
            (ask.clone(), &["12 + 12 = 24", "24 + 12 = 35"], &[true, false]),
            // Another prompt.
            (json!("11 * 3? "), &["10 * 3 = 30", "3"], &[true, false]),
        ]);
        let (pairs, alone) = steps_to_pairs(&rows);
        let shown: Vec<_> = pairs
            .iter()
            .map(|pair| [pair.prompt.words(), pair.chosen.words(), pair.rejected.words()])
            .collect();
        let expected =
            [["12 * 3? 10 * 3 = 30\n", "2 * 3 = 6", "2 * 3 = 5"], ["12 * 3? ", "10 * 3 = 30", "10 * 3 = 31"]];
        assert_eq!(shown, expected.map(|pair| pair.map(str::to_owned)));
        assert_eq!(alone, 2);
        assert!(pairs.iter().all(|pair| pair.about.open));
        assert_eq!(pairs[1].place.line, 3);
    }

    #[test]
    fn conversations_keep_their_form() {
        let ask = json!([{"role": "user", "content": "12 * 3?"}]);
        let rows = rows(&[(ask.clone(), &["a", "b"], &[true, true]), (ask, &["a", "c"], &[true, false])]);
        let (pairs, _) = steps_to_pairs(&rows);
        let Text::Conversation(turns) = &pairs[0].prompt else { unreachable!() };
        assert_eq!((turns[1].role.as_str(), turns[1].content.as_str()), ("assistant", "a\n"));
    }

    #[test]
    fn faults_are_named() {
        let check = |fields: Value, message: &str| {
            assert_eq!(row(fields, 0).unwrap_err().message, message);
        };
        check(json!({"prompt": "x", "completions": ["a", "b"], "labels": [true]}), "2 steps have 1 labels");
        check(
            json!({"prompt": "x", "completions": ["a"], "labels": ["perhaps"]}),
            "`labels` \"perhaps\" is neither true nor false",
        );
        check(json!({"prompt": "x", "completions": [" "], "labels": [true]}), "field `completions` is empty");
        check(
            json!({"prompt": "x", "completions": [3], "labels": [true]}),
            "field `completions` is a number",
        );
        check(json!({"completions": ["a"], "labels": [true]}), "field `prompt` is missing");
        check(
            json!({"prompt": "x", "completions": [], "labels": []}),
            "field `completions` is an empty list",
        );
        check(json!({"prompt": "x", "completions": ["a"], "labels": [null]}), "field `labels` is null");
    }
}
