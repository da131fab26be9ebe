//! Synthetic language tasks with an exact gold reward, for tests, the demo and claims.
//!
//! A task writes its data as rows and as the JSONL that [`crate::read`] reads, so that what is shown on it went through
//! the same files as a person's own data. All of a task is a function of its settings and [`polo_run::seed::Seeds`].

pub mod permutation;

use serde_json::{Map, Value};

use crate::rows::{CompletionRow, PairRow, PromptRow, Row};

/// Pairs as JSONL; a label other than 1 is written too.
pub fn pairs_jsonl(rows: &[PairRow]) -> String {
    jsonl(rows, |row| (row.label != 1.0).then(|| ("label", row.label.into())))
}

/// Completions as JSONL.
pub fn completions_jsonl(rows: &[CompletionRow]) -> String {
    jsonl(rows, |_| None)
}

/// Prompts as JSONL, with the right answer where it is known.
pub fn prompts_jsonl(rows: &[PromptRow]) -> String {
    jsonl(rows, |row| row.answer.clone().map(|answer| ("answer", answer.into())))
}

fn jsonl<R: Row>(rows: &[R], more: impl Fn(&R) -> Option<(&'static str, Value)>) -> String {
    let mut lines = String::new();
    for row in rows {
        let texts = row.texts().into_iter().map(|(name, text)| (name, serde_json::json!(text)));
        let fields: Map<String, Value> =
            texts.chain(more(row)).map(|(name, value)| (name.to_owned(), value)).collect();
        lines += &Value::Object(fields).to_string();
        lines.push('\n');
    }
    lines
}
