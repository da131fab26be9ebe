//! Win rates: how often answers of one side beat answers of the other under a judge, and how sure that is.
//!
//! `polo evaluate`, the demo and claims answer the same prompts twice (by two models, or a model and a file), and ask a
//! [`Judge`]. Ties count one half. Chance is in the prompts: several answers to one prompt count as one observation.
//! Lengths are reported beside, because judges are known to favour the longer answer.

use std::{collections::HashMap, path::PathBuf};

use polo_run::{
    Problem, Result,
    seed::Seeds,
    stats::{Estimate, bootstrap, mean, median, t_interval, wilson},
};
use serde_json::Value;

use crate::{
    judge::{Comparison, Judge},
    read::{ReadOptions, read_rows},
    rows::{Fault, Record, Row, Text, listed},
};

/// Resamples of a bootstrap interval.
const RESAMPLES: usize = 2_000;

/// One answer to one prompt, by a model or from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was asked.
    pub prompt: Text,
    /// What was answered; may be blank, as models' answers are at times.
    pub completion: String,
    /// Where the prompt comes from, for a breakdown; e.g. `in distribution`.
    pub source: Option<String>,
    /// The right answer, for judges that need one.
    pub answer: Option<String>,
}

/// An [`Answer`] with what [`Row`] wants of it.
struct AnswerRow {
    answer: Answer,
    completion: Text,
}

impl Row for AnswerRow {
    const FIELDS: &'static [&'static str] = &["prompt", "completion", "completions", "source", "answer"];

    fn from_record(record: &Record, _: u64) -> Result<Vec<Self>, Fault> {
        let fault = |field, message: &str| {
            Fault {
            field: Some(field),
            message: message.into(),
            hint: "a row of answers is {\"prompt\": ..., \"completion\": ...}, with `source` and `answer` if you like"
                .into(),
        }
        };
        let text = |name| match record.fields.get(name) {
            None | Some(Value::Null) => {
                Err(Fault { field: None, ..fault(name, &format!("field `{name}` is missing")) })
            }
            Some(value) => serde_json::from_value::<Text>(value.clone())
                .map_err(|_| fault(name, &format!("field `{name}` is neither a string nor a conversation"))),
        };
        let optional = |name| match record.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(number @ Value::Number(_)) => Ok(Some(number.to_string())),
            Some(_) => Err(fault(name, &format!("field `{name}` is no string"))),
        };
        // A list, as `polo sample` writes it, holds several answers.
        let completions = match record.fields.contains_key("completions") {
            true => listed(&record.fields)?.1,
            false => vec![text("completion")?],
        };
        let (prompt, source, answer) = (text("prompt")?, optional("source")?, optional("answer")?);
        let row = |completion: Text| {
            let (prompt, source, answer) = (prompt.clone(), source.clone(), answer.clone());
            Self { answer: Answer { prompt, completion: completion.words(), source, answer }, completion }
        };
        Ok(completions.into_iter().map(row).collect())
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        vec![("prompt", &self.answer.prompt), ("completion", &self.completion)]
    }

    fn extra(&self) -> String {
        format!("{:?} {:?}", self.answer.source, self.answer.answer)
    }
}

/// Reads answers from files of any format that [`crate::read`] knows.
///
/// # Errors
/// As [`read_rows`].
pub fn read_answers(paths: &[PathBuf], options: &ReadOptions) -> Result<Vec<Answer>> {
    Ok(read_rows::<AnswerRow>(paths, options)?.rows.into_iter().map(|row| row.answer).collect())
}

/// A comparison, and where its prompt comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Duel {
    /// What is judged.
    pub comparison: Comparison,
    /// Names a part of the breakdown.
    pub source: Option<String>,
}

/// Sets every answer of side A against side B's answer to the same prompt; where a prompt has several, the first
/// against the first, and so on. Side B may hold more than is used. Source and right answer come from A, or else B.
///
/// # Errors
/// A prompt of A to which B has no answer, or too few.
pub fn duels(a: &[Answer], b: &[Answer]) -> Result<Vec<Duel>> {
    let mut of_b: HashMap<&Text, Vec<&Answer>> = HashMap::new();
    for answer in b {
        of_b.entry(&answer.prompt).or_default().push(answer);
    }
    // For each prompt its number, and how many of its answers were used.
    let mut used: HashMap<&Text, (u64, usize)> = HashMap::new();
    let mut missing: Vec<&Text> = Vec::new();
    let mut duels = Vec::new();
    for left in a {
        let next = used.len() as u64;
        let (id, count) = used.entry(&left.prompt).or_insert((next, 0));
        let Some(right) = of_b.get(&left.prompt).and_then(|answers| answers.get(*count)) else {
            missing.push(&left.prompt);
            continue;
        };
        *count += 1;
        let comparison = Comparison {
            id: *id,
            prompt: left.prompt.clone(),
            a: left.completion.clone(),
            b: right.completion.clone(),
            answer: left.answer.clone().or_else(|| right.answer.clone()),
        };
        duels.push(Duel { comparison, source: left.source.clone().or_else(|| right.source.clone()) });
    }
    match missing.first() {
        None => Ok(duels),
        Some(first) => {
            let shown: String = format!("{first:?}").chars().take(120).collect();
            Err(Problem::input(format!(
                "{} of {} answers have no counterpart on the other side; the first is to {shown}",
                missing.len(),
                a.len()
            ))
            .hint("both sides must answer the same prompts, letter by letter, equally often"))
        }
    }
}

/// How side A fares against side B on some prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// Mean preference for A with Wilson's interval; `n` counts prompts.
    pub wilson: Estimate,
    /// The same with the percentile bootstrap over prompts.
    pub bootstrap: Estimate,
    /// Comparisons that A won (preference above one half).
    pub wins: usize,
    /// Comparisons without a winner.
    pub ties: usize,
    /// Comparisons that B won.
    pub losses: usize,
    /// Comparisons without a readable verdict; they are in none of the other figures.
    pub unjudged: usize,
}

/// Characters of the answers that were judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Lengths {
    /// Mean of side A.
    pub a: Estimate,
    /// Mean of side B.
    pub b: Estimate,
    /// Median of side A; none where nothing was judged.
    pub median_a: Option<f64>,
    /// Median of side B.
    pub median_b: Option<f64>,
    /// Share of comparisons with a winner and a longer answer in which the longer one won: one half says that the judge
    /// does not go by length.
    pub longer_won: Estimate,
}

/// What a judge said of two sides.
#[derive(Clone, Debug, PartialEq)]
pub struct WinRate {
    /// The judge's name.
    pub judge: String,
    /// All prompts.
    pub overall: Rate,
    /// Each source, in the order of first appearance; empty if no prompt names one.
    pub sources: Vec<(String, Rate)>,
    /// Lengths, over all prompts.
    pub lengths: Lengths,
}

/// Judges all duels. `seeds` draw the bootstrap's resamples.
///
/// # Errors
/// As the judge.
pub fn win_rate(judge: &dyn Judge, duels: &[Duel], seeds: &Seeds) -> Result<WinRate> {
    let comparisons: Vec<Comparison> = duels.iter().map(|duel| duel.comparison.clone()).collect();
    let verdicts = judge.compare(&comparisons)?;
    let all: Vec<(&Duel, Option<f64>)> = duels.iter().zip(verdicts).collect();
    let mut names: Vec<&String> = Vec::new();
    for name in duels.iter().filter_map(|duel| duel.source.as_ref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let of_source = |name: &String| {
        let part: Vec<_> =
            all.iter().copied().filter(|(duel, _)| duel.source.as_ref() == Some(name)).collect();
        (name.clone(), rate(&part, seeds))
    };
    Ok(WinRate {
        judge: judge.name(),
        overall: rate(&all, seeds),
        sources: names.into_iter().map(of_source).collect(),
        lengths: lengths(&all),
    })
}

fn rate(judged: &[(&Duel, Option<f64>)], seeds: &Seeds) -> Rate {
    let mut prompts: HashMap<u64, usize> = HashMap::new();
    let mut of_prompt: Vec<Vec<f64>> = Vec::new();
    let (mut wins, mut ties, mut losses, mut unjudged) = (0, 0, 0, 0);
    for (duel, verdict) in judged {
        let Some(p) = *verdict else {
            unjudged += 1;
            continue;
        };
        *if p > 0.5 {
            &mut wins
        } else if p < 0.5 {
            &mut losses
        } else {
            &mut ties
        } += 1;
        let slot = *prompts.entry(duel.comparison.id).or_insert(of_prompt.len());
        if slot == of_prompt.len() {
            of_prompt.push(Vec::new());
        }
        of_prompt[slot].push(p);
    }
    let values: Vec<f64> = of_prompt.iter().filter_map(|preferences| mean(preferences)).collect();
    let average = |sample: &[f64]| mean(sample).unwrap_or(f64::NAN);
    let mut rng = seeds.rng("win rate bootstrap", 0);
    Rate {
        wilson: wilson(values.iter().sum(), values.len(), "prompts"),
        bootstrap: bootstrap(&values, average, RESAMPLES, &mut rng, "prompts"),
        wins,
        ties,
        losses,
        unjudged,
    }
}

fn lengths(judged: &[(&Duel, Option<f64>)]) -> Lengths {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let (mut longer_won, mut decided) = (0.0, 0);
    for (duel, verdict) in judged {
        let Some(p) = *verdict else { continue };
        let characters = |answer: &str| answer.chars().count() as f64;
        let (left, right) = (characters(&duel.comparison.a), characters(&duel.comparison.b));
        if left != right && p != 0.5 {
            decided += 1;
            longer_won += f64::from((left > right) == (p > 0.5));
        }
        a.push(left);
        b.push(right);
    }
    Lengths {
        median_a: median(&a),
        median_b: median(&b),
        a: t_interval(&a, "answers"),
        b: t_interval(&b, "answers"),
        longer_won: wilson(longer_won, decided, "comparisons"),
    }
}

#[cfg(test)]
#[path = "winrate_tests.rs"]
mod tests;
