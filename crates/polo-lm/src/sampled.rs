//! Several answers of a model to each prompt: the rows that `polo sample` writes and to which `polo score` adds rewards.
//!
//! A reward of a single answer comes from a rule ([`rule_rewards`]), from a reward model ([`model_rewards`]), or from a
//! judge of pairs ([`judged_rewards`]), who compares all answers to a prompt with one and the same baseline: the reward
//! r = logit P(answer beats baseline) of RSO (Liu et al. 2023, arXiv 2309.06657), under which
//! P(a beats b) = sigmoid(r(a) - r(b)), as it is for a reward model.

use std::path::PathBuf;

use polo_nn::{device::is_cpu, shares};
use polo_run::{Problem, Result};
use serde_json::{Map, Value};

use crate::{
    encode::{Limits, ListTokens, LongPrompt, encode_lists, one_after_another},
    judge::{Comparison, Judge, Rule},
    model::{Batch, LanguageModel},
    read::{DataReport, ReadOptions, read_rows},
    rows::{Fault, ListRow, Place, Record, Row, Text, listed, right_answer},
    tokens::Tokenizer,
};

/// A prompt and answers to it, not yet scored.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledRow {
    /// What was asked.
    pub prompt: Text,
    /// At least one answer; of the same form as the prompt. Equal answers stand as often as they were drawn.
    pub completions: Vec<Text>,
    /// The right answer, where one is known.
    pub answer: Option<String>,
    /// All fields as they were read, to be written again.
    pub fields: Map<String, Value>,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

impl Row for SampledRow {
    const FIELDS: &'static [&'static str] = &["prompt", "completions", "logps", "answer", "solution"];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let (prompt, completions) = listed(&record.fields)?;
        Ok(vec![Self {
            prompt,
            completions,
            answer: right_answer(&record.fields)?,
            fields: record.fields.clone(),
            place: record.place.clone(),
            id,
        }])
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        let mut texts = vec![("prompt", &self.prompt)];
        texts.extend(self.completions.iter().map(|completion| ("completion", completion)));
        texts
    }

    fn extra(&self) -> String {
        format!("{:?} {:?}", self.answer, self.fields.get("logps"))
    }
}

impl SampledRow {
    /// Whether all answers are the same, so that there is nothing to compare.
    pub fn is_uniform(&self) -> bool {
        self.completions.iter().all(|completion| *completion == self.completions[0])
    }
}

/// Reads rows of sampled answers.
///
/// # Errors
/// As [`read_rows`].
pub fn read_sampled(paths: &[PathBuf], options: &ReadOptions) -> Result<(Vec<SampledRow>, DataReport)> {
    let read = read_rows(paths, options)?;
    Ok((read.rows, read.report))
}

/// A reward for each answer of each row: 1 or 0 by [`Rule::Exact`] and [`Rule::Contains`], else characters.
///
/// # Errors
/// A row without the right answer that the rule needs.
pub fn rule_rewards(rule: Rule, rows: &[SampledRow]) -> Result<Vec<Vec<f64>>> {
    let reward = |row: &SampledRow, completion: &Text| {
        rule.reward(&completion.words(), row.answer.as_deref()).ok_or_else(|| {
            row.place.mark(
                Problem::input("this rule needs a right answer, and the row has none")
                    .hint("give each row an `answer`, or choose another reward"),
            )
        })
    };
    rows.iter()
        .map(|row| row.completions.iter().map(|completion| reward(row, completion)).collect())
        .collect()
}

/// A reward for each answer of each row: what a reward model reads out before the answer's end token. Prompts that fill
/// the model's context lose their beginnings.
///
/// # Errors
/// A model that reads out no single number; as [`encode_lists`].
pub fn model_rewards(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    rows: &[SampledRow],
) -> Result<Vec<Vec<f64>>> {
    if model.readout().is_none_or(|readout| readout.outputs != 1) {
        return Err(Problem::input("the model reads out no reward").hint(
            "make one of pairs with `polo train reward-model`; its weights have a tensor `score.weight`",
        ));
    }
    let list = |row: &SampledRow| ListRow {
        prompt: row.prompt.clone(),
        completions: row.completions.clone(),
        scores: vec![0.0; row.completions.len()],
        logps: Vec::new(),
        place: row.place.clone(),
        id: row.id,
    };
    let lists: Vec<ListRow> = rows.iter().map(list).collect();
    let limits = Limits { long_prompt: LongPrompt::KeepEnd, ..Limits::new(model.architecture.context) };
    let encoded = encode_lists(&lists, tokenizer, &limits)?.rows;
    let count = if is_cpu(model.device()) { shares::default_count() } else { 1 };
    let parts = encoded.chunks(encoded.len().div_ceil(count).max(1)).collect();
    let read = |list: &ListTokens| {
        let mut batch = Batch::default();
        batch.add(&list.prompt, &list.answers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        model.score_and_read(&batch).1.into_iter().map(f64::from).collect::<Vec<_>>()
    };
    let rewards: Vec<Vec<f64>> =
        shares::map(parts, |part: &[ListTokens]| part.iter().map(read).collect::<Vec<_>>()).concat();
    match rows.iter().zip(&rewards).find(|(_, rewards)| rewards.iter().any(|reward| !reward.is_finite())) {
        None => Ok(rewards),
        Some((row, _)) => Err(row.place.mark(
            Problem::input("the reward model's answer is not a number").hint("its weights have diverged"),
        )),
    }
}

/// A reward for each answer of each row by a ranker of two answers, asked in both orders: the logit of the answer's
/// winning over the row's baseline (`baselines`, in the order of the rows), nats; 0 for an answer equal to it.
///
/// # Errors
/// As [`model_rewards`]; two answers that fill the model's context.
pub fn ranked_rewards(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    rows: &[SampledRow],
    baselines: &[String],
) -> Result<Vec<Vec<f64>>> {
    let list = |(row, baseline): (&SampledRow, &String)| ListRow {
        prompt: row.prompt.clone(),
        completions: row.completions.iter().cloned().chain([row.prompt.answered(baseline)]).collect(),
        scores: Vec::new(),
        logps: Vec::new(),
        place: row.place.clone(),
        id: row.id,
    };
    let lists: Vec<ListRow> = rows.iter().zip(baselines).map(list).collect();
    let context = model.architecture.context;
    let limits = Limits { long_prompt: LongPrompt::KeepEnd, ..Limits::new(context) };
    let encoded = encode_lists(&lists, tokenizer, &limits)?.rows;
    let rewards = encoded.iter().zip(rows).map(|(list, row)| {
        let Some((baseline, answers)) = list.answers.split_last() else { return Ok(Vec::new()) };
        let reward = |answer: &Vec<u32>| {
            if answer == baseline {
                return Ok(0.0);
            }
            let mut batch = Batch::default();
            for (first, second) in [(answer, baseline), (baseline, answer)] {
                let before = one_after_another(&list.prompt, first, second, context).ok_or_else(|| {
                    row.place.mark(
                        Problem::input("an answer and its baseline fill the ranker's context")
                            .hint("draw shorter answers, or train a ranker of a longer context"),
                    )
                })?;
                batch.add(&before, &[second]);
            }
            match model.score_and_read(&batch).1[..] {
                [first, second] if first.is_finite() && second.is_finite() => {
                    Ok(f64::from(first - second) / 2.0)
                }
                _ => Err(row.place.mark(
                    Problem::input("the ranker's answer is not a number").hint("its weights have diverged"),
                )),
            }
        };
        answers.iter().map(reward).collect()
    });
    rewards.collect()
}

/// Rewards by a judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// For each answer of each row: logit P(answer beats baseline), nats.
    pub rewards: Vec<Vec<f64>>,
    /// Comparisons without a readable verdict; they count as ties.
    pub unread: usize,
}

/// A reward for each answer of each row, as `judge` compares it with the row's baseline (`baselines`, in the order of
/// the rows). An answer equal to its baseline has reward 0 without being judged. Probabilities are brought into
/// `[clip, 1 - clip]` first, `clip` in (0, 1/2): a judge's certainty is not infinite.
///
/// Judges that favour a position must ask in both orders themselves, as a model judge with `swap` does.
///
/// # Errors
/// As the judge.
pub fn judged_rewards(
    judge: &dyn Judge,
    rows: &[SampledRow],
    baselines: &[String],
    clip: f64,
) -> Result<Judged> {
    let mut comparisons = Vec::new();
    for (row, baseline) in rows.iter().zip(baselines) {
        let others = row.completions.iter().map(Text::words).filter(|words| words != baseline);
        comparisons.extend(others.map(|a| Comparison {
            id: row.id,
            prompt: row.prompt.clone(),
            a,
            b: baseline.clone(),
            answer: row.answer.clone(),
        }));
    }
    let verdicts = judge.compare(&comparisons)?;
    let unread = verdicts.iter().filter(|verdict| verdict.is_none()).count();
    let mut verdicts = verdicts.into_iter();
    let mut reward = |completion: &Text, baseline: &String| match completion.words() == *baseline {
        true => 0.0,
        false => {
            let p = verdicts.next().flatten().unwrap_or(0.5).clamp(clip, 1.0 - clip);
            (p / (1.0 - p)).ln()
        }
    };
    let rewards = rows
        .iter()
        .zip(baselines)
        .map(|(row, baseline)| {
            row.completions.iter().map(|completion| reward(completion, baseline)).collect()
        })
        .collect();
    Ok(Judged { rewards, unread })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, sync::Arc};

    use super::*;

    fn row(completions: &[&str], answer: Option<&str>) -> SampledRow {
        SampledRow {
            prompt: Text::Plain("2 + 2 = ".into()),
            completions: completions.iter().map(|&text| Text::Plain(text.into())).collect(),
            answer: answer.map(Into::into),
            fields: Map::new(),
            place: Place { file: Arc::from(Path::new("sampled.jsonl")), line: 5 },
            id: 4,
        }
    }

    #[test]
    fn rules_reward_single_answers() {
        let check = |rule, expected: &[f64]| {
            let rewards = rule_rewards(rule, &[row(&["4", "it is 4", "5"], Some("4"))]).unwrap();
            assert_eq!(rewards, [expected]);
        };
        check(Rule::Exact, &[1.0, 0.0, 0.0]);
        check(Rule::Contains, &[1.0, 1.0, 0.0]);
        check(Rule::Shorter, &[-1.0, -7.0, -1.0]);
        check(Rule::Longer, &[1.0, 7.0, 1.0]);
        let problem = rule_rewards(Rule::Exact, &[row(&["4"], None)]).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "sampled.jsonl:5: this rule needs a right answer, and the row has none"
        );
        assert!(rule_rewards(Rule::Longer, &[row(&["4"], None)]).is_ok());
    }

    /// Says 0.8 for `good`, certainly no for `bad`, and cannot say of anything else.
    struct Taste;

    impl Judge for Taste {
        fn name(&self) -> String {
            "taste".into()
        }

        fn compare(&self, items: &[Comparison]) -> Result<Vec<Option<f64>>> {
            assert!(items.iter().all(|item| item.b == "base" && item.a != "base" && item.id == 4));
            let verdict = |item: &Comparison| match item.a.as_str() {
                "good" => Some(0.8),
                "bad" => Some(0.0),
                _ => None,
            };
            Ok(items.iter().map(verdict).collect())
        }
    }

    #[test]
    fn judges_reward_by_the_logit_against_one_baseline() {
        let rows = [row(&["good", "base", "strange", "bad"], None), row(&["base", "good"], None)];
        let judged = judged_rewards(&Taste, &rows, &["base".into(), "base".into()], 0.01).unwrap();
        assert_eq!(judged.unread, 1);
        for (found, expected) in
            judged.rewards.iter().flatten().zip([4.0, 1.0, 1.0, 1.0 / 99.0, 1.0, 4.0_f64])
        {
            assert!((found - expected.ln()).abs() < 1e-12, "{judged:?}");
        }
    }

    #[test]
    fn rows_keep_what_they_do_not_know_and_need_an_answer_at_least() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("sampled.jsonl");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            read_sampled(std::slice::from_ref(&file), &ReadOptions::default()).map(|(rows, _)| rows)
        };
        let rows = read(r#"{"prompt": "p", "completions": ["a", "a"], "topic": 7, "answer": 3}"#).unwrap();
        assert!(rows[0].is_uniform());
        assert_eq!((rows[0].answer.as_deref(), &rows[0].fields["topic"]), (Some("3"), &Value::from(7)));
        let refused = |text: &str, expected: &str| {
            let problem = read(text).unwrap_err();
            assert!(problem.to_string().contains(expected), "{problem}");
        };
        refused(r#"{"prompt": "p", "completions": []}"#, "`completions` is an empty list");
        refused(r#"{"prompt": "p", "completion": "a"}"#, "field `completions` is missing");
        refused(
            r#"{"prompt": "p", "completions": ["a", 3]}"#,
            "completion 2: field `completions` is a number",
        );
    }
}
