//! Rows of answers that are not pairs: scored lists, single answers.

use serde_json::{Map, Value};

use super::{
    Fault, Place, Record, Row, Text, empty, match_forms, missing, pair, present, text, truth, wrong_type,
};

/// Several answers to one prompt, each with a score.
#[derive(Clone, Debug, PartialEq)]
pub struct ListRow {
    /// What was asked.
    pub prompt: Text,
    /// At least two answers, at least two of them different, in the order of the file; of the same form as the prompt.
    pub completions: Vec<Text>,
    /// Quality of each answer, higher is better; finite. Where the file names parts instead of scores: gold 2,
    /// chosen 1, rejected 0; for a pair, `score_chosen` and `score_rejected` where the file has them.
    pub scores: Vec<f64>,
    /// Log-prob of each answer under the policy that drew it, nats, summed over tokens; empty where the file has none.
    pub logps: Vec<f64>,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

/// One answer to a prompt and whether it is a good one.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpairedRow {
    /// What was asked.
    pub prompt: Text,
    /// The answer; of the same form as the prompt.
    pub completion: Text,
    /// Whether the answer is desirable; where the file has scores alone, whether it is positive, or, in a list, above
    /// the list's mean.
    pub label: bool,
    /// Quality of the answer; where the file has none, 1 for a desirable answer and 0 for another.
    pub score: f64,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

impl Row for ListRow {
    const FIELDS: &'static [&'static str] = &[
        "prompt",
        "completions",
        "scores",
        "logps",
        "gold",
        "reference",
        "chosen",
        "rejected",
        "score_chosen",
        "score_rejected",
    ];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        let mut logps = Vec::new();
        let (prompt, completions, scores) = if present(fields, "completions") {
            let (prompt, completions) = listed(fields)?;
            if completions.iter().all(|completion| *completion == completions[0]) {
                return Err(Fault::new(
                    "completions",
                    "fewer than two different completions",
                    "a list compares at least two answers; remove the row, or pass over such rows with on_bad_row = \
                     \"skip\"",
                ));
            }
            let scores = numbers(fields, "scores", completions.len())?;
            if present(fields, "logps") {
                logps = numbers(fields, "logps", completions.len())?;
            }
            (prompt, completions, scores)
        } else if present(fields, "chosen") && present(fields, "rejected") {
            let (prompt, chosen, rejected) = pair(fields)?;
            match ["gold", "reference"].into_iter().find(|name| present(fields, name)) {
                None => (prompt, vec![chosen, rejected], pair_scores(fields)?),
                Some(name) => {
                    let (_, gold) = match_forms(prompt.clone(), text(fields, name)?);
                    if gold.is_blank() {
                        return Err(empty(name));
                    }
                    if gold == chosen || gold == rejected {
                        return Err(Fault::new(
                            name,
                            format!("`{name}` equals another answer of the row"),
                            "the three answers of a row must differ; remove the row, or the field for a plain pair",
                        ));
                    }
                    (prompt, vec![gold, chosen, rejected], vec![2.0, 1.0, 0.0])
                }
            }
        } else {
            return Err(missing(
                fields,
                "completions",
                "lists are `prompt`, `completions` and `scores`, or `prompt`, `gold`, `chosen` and `rejected`",
            ));
        };
        Ok(vec![Self { prompt, completions, scores, logps, place: record.place.clone(), id }])
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        let mut texts = vec![("prompt", &self.prompt)];
        texts.extend(self.completions.iter().map(|completion| ("completion", completion)));
        texts
    }

    fn extra(&self) -> String {
        format!("{:?} {:?}", self.scores, self.logps)
    }
}

/// The prompt and the `completions` of a row, at least one, all of one form.
pub(crate) fn listed(fields: &Map<String, Value>) -> Result<(Text, Vec<Text>), Fault> {
    let prompt = text(fields, "prompt")?;
    let items = match fields.get("completions") {
        Some(Value::Array(items)) if !items.is_empty() => items,
        None => return Err(missing(fields, "completions", "a list of answers to the prompt")),
        Some(other) => return Err(wrong_type("completions", other, "a list of answers")),
    };
    let mut completions: Vec<Text> = Vec::new();
    for (number, item) in (1..).zip(items) {
        let alone = Map::from_iter([("completions".to_owned(), item.clone())]);
        let completion = text(&alone, "completions")
            .map_err(|fault| Fault { message: format!("completion {number}: {}", fault.message), ..fault })?;
        completions.push(match_forms(prompt.clone(), completion).1);
    }
    let plain = |completion: &Text| matches!(completion, Text::Plain(_));
    let first = plain(&completions[0]);
    if completions.iter().any(|completion| plain(completion) != first) {
        return Err(Fault::new(
            "completions",
            "some completions are strings and some lists of turns",
            "write all completions of a row in one form",
        ));
    }
    Ok((match_forms(prompt, completions[0].clone()).0, completions))
}

/// A list of finite numbers, one for each completion.
fn numbers(fields: &Map<String, Value>, name: &'static str, completions: usize) -> Result<Vec<f64>, Fault> {
    let items = match fields.get(name) {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => {
            return Err(missing(fields, name, "each completion needs a number; `polo score` gives scores"));
        }
        Some(other) => return Err(wrong_type(name, other, "a list of numbers, one for each completion")),
    };
    if items.len() != completions {
        return Err(Fault::new(
            name,
            format!("{completions} completions have {} `{name}`", items.len()),
            "give one number for each completion",
        ));
    }
    let number = |(place, item): (usize, &Value)| {
        item.as_f64().filter(|number| number.is_finite()).ok_or_else(|| {
            Fault::new(
                name,
                format!("number {} of `{name}` is {item}", place + 1),
                "give finite numbers, one for each completion",
            )
        })
    };
    items.iter().enumerate().map(number).collect()
}

/// The scores of a pair that is ordered by them: `score_chosen` and `score_rejected`, or 1 and 0 where the row has
/// neither.
fn pair_scores(fields: &Map<String, Value>) -> Result<Vec<f64>, Fault> {
    let [chosen, rejected] = both_scores(fields)?.unwrap_or([1.0, 0.0]);
    if chosen < rejected {
        return Err(Fault::new(
            "score_rejected",
            format!("the rejected answer has the higher score, {rejected} against {chosen}"),
            "swap the two answers or their scores, or pass over such rows with on_bad_row = \"skip\"",
        ));
    }
    Ok(vec![chosen, rejected])
}

/// `score_chosen` and `score_rejected`, if the row has them.
pub(super) fn both_scores(fields: &Map<String, Value>) -> Result<Option<[f64; 2]>, Fault> {
    let names = ["score_chosen", "score_rejected"];
    if !names.iter().any(|name| present(fields, name)) {
        return Ok(None);
    }
    let mut scores = [0.0; 2];
    for (name, score) in names.into_iter().zip(&mut scores) {
        if !present(fields, name) {
            return Err(missing(fields, name, "a pair with one score needs the other, too"));
        }
        *score = finite(fields, name)?;
    }
    Ok(Some(scores))
}

/// A finite number, or the text of one.
fn finite(fields: &Map<String, Value>, name: &'static str) -> Result<f64, Fault> {
    let number = match &fields[name] {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        other => return Err(wrong_type(name, other, "a number")),
    };
    number
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| Fault::new(name, format!("`{name}` is {}", fields[name]), "give a finite number"))
}

impl Row for UnpairedRow {
    const FIELDS: &'static [&'static str] = &[
        "prompt",
        "completion",
        "label",
        "score",
        "completions",
        "scores",
        "chosen",
        "rejected",
        "score_chosen",
        "score_rejected",
    ];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        let row = |prompt, completion, label, score, id| Self {
            prompt,
            completion,
            label,
            score,
            place: record.place.clone(),
            id,
        };
        if present(fields, "completion") {
            let completion = text(fields, "completion")?;
            if completion.is_blank() {
                return Err(empty("completion"));
            }
            let (prompt, completion) = match_forms(text(fields, "prompt")?, completion);
            let score = match fields.get("score") {
                None | Some(Value::Null) => None,
                Some(_) => Some(finite(fields, "score")?),
            };
            let label = match (truth(fields, "label")?, score) {
                (Some(label), _) => label,
                (None, Some(score)) => score > 0.0,
                (None, None) => {
                    let needs = "whether the completion is desirable, true or false; or a `score`";
                    return Err(missing(fields, "label", needs));
                }
            };
            let score = score.unwrap_or(f64::from(u8::from(label)));
            return Ok(vec![row(prompt, completion, label, score, id)]);
        }
        if present(fields, "chosen") && present(fields, "rejected") {
            let (prompt, chosen, rejected) = pair(fields)?;
            let [good, bad] = both_scores(fields)?.unwrap_or([1.0, 0.0]);
            return Ok(vec![
                row(prompt.clone(), chosen, true, good, id),
                row(prompt, rejected, false, bad, id + 1),
            ]);
        }
        if present(fields, "completions") {
            let (prompt, completions) = listed(fields)?;
            let scores = numbers(fields, "scores", completions.len())?;
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            let rows = completions.into_iter().zip(scores).zip(id..);
            return Ok(rows
                .map(|((completion, score), id)| row(prompt.clone(), completion, score > mean, score, id))
                .collect());
        }
        Err(missing(
            fields,
            "completion",
            "single answers are `prompt`, `completion` and `label` (true or false); pairs serve, too",
        ))
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        vec![("prompt", &self.prompt), ("completion", &self.completion)]
    }

    fn extra(&self) -> String {
        match self.score == f64::from(u8::from(self.label)) {
            true => self.label.to_string(),
            false => format!("{} {}", self.label, self.score),
        }
    }
}
