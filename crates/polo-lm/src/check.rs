//! What `polo data check FILE` reports: what the file is for, how many rows can be used, how long its texts are,
//! and the first problems.

use std::{collections::BTreeMap, path::PathBuf};

use polo_run::{Problem, Result};
use serde::Serialize;

use crate::{
    encode::encode_prompt,
    read::{DataReport, OnBadRow, ReadOptions, first_fields, read_rows},
    rows::{CompletionRow, ListRow, PairRow, PromptRow, Row, StepRow, Text, UnpairedRow},
    tokens::Tokenizer,
};

/// What a file can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// Preference pairs.
    Pairs,
    /// Completions for supervised fine-tuning.
    Completions,
    /// Prompts, with or without answers.
    Prompts,
    /// Several scored answers to each prompt.
    Lists,
    /// Single answers, each good or bad.
    Unpaired,
    /// Answers in steps, each right or wrong.
    Steps,
}

/// Quantiles of the lengths of one part of the rows (nearest rank).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// `prompt`, `chosen`, `rejected` or `completion`.
    pub part: String,
    /// `characters` or `tokens`.
    pub unit: &'static str,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: usize,
    /// 90 % are no longer.
    pub p90: usize,
    /// 99 % are no longer.
    pub p99: usize,
    /// The longest.
    pub max: usize,
}

/// Everything that `polo data check` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checkup {
    /// What the file can be used for.
    pub kind: RowKind,
    /// Rows of plain strings.
    pub plain: usize,
    /// Rows of conversations.
    pub conversational: usize,
    /// Counts, the first problems, and the content hash.
    pub report: DataReport,
    /// Lengths by part and unit.
    pub lengths: Vec<Lengths>,
}

/// Reads files and reports on them; unusable rows are counted, not fatal. The kind is guessed from the fields of the
/// first row unless it is given. Lengths in tokens are of each part on its own, prompts as they are put to the model.
///
/// # Errors
/// Files that cannot be read at all, without a single usable row, or with fields of no known kind.
pub fn check(
    paths: &[PathBuf],
    kind: Option<RowKind>,
    options: &ReadOptions,
    tokenizer: Option<&Tokenizer>,
) -> Result<Checkup> {
    let options = ReadOptions { on_bad_row: OnBadRow::Skip, ..options.clone() };
    let kind = match kind {
        Some(kind) => kind,
        None => guess(&first_fields(paths, &options)?)?,
    };
    match kind {
        RowKind::Pairs => check_rows::<PairRow>(paths, kind, &options, tokenizer),
        RowKind::Completions => check_rows::<CompletionRow>(paths, kind, &options, tokenizer),
        RowKind::Prompts => check_rows::<PromptRow>(paths, kind, &options, tokenizer),
        RowKind::Lists => check_rows::<ListRow>(paths, kind, &options, tokenizer),
        RowKind::Unpaired => check_rows::<UnpairedRow>(paths, kind, &options, tokenizer),
        RowKind::Steps => check_rows::<StepRow>(paths, kind, &options, tokenizer),
    }
}

fn guess(fields: &[String]) -> Result<RowKind> {
    let has = |name: &str| fields.iter().any(|field| field == name);
    let gold = has("gold") || has("reference");
    if has("completions") && has("labels") {
        Ok(RowKind::Steps)
    } else if has("completions") || (gold && has("chosen")) {
        Ok(RowKind::Lists)
    } else if has("chosen") || has("rejected") {
        Ok(RowKind::Pairs)
    } else if has("completion") && (has("label") || has("score")) {
        Ok(RowKind::Unpaired)
    } else if has("completion") || has("text") || has("messages") {
        Ok(RowKind::Completions)
    } else if has("prompt") || has("question") || fields.is_empty() {
        Ok(RowKind::Prompts)
    } else {
        Err(Problem::input(format!("no known kind of data has the fields {}", fields.join(", "))).hint(
            "pairs have `chosen` and `rejected` (and `prompt`), lists `prompt`, `completions` and `scores`, answers \
             in steps `prompt`, `completions` and `labels`, single answers `prompt`, `completion` and `label`, completions `prompt` and `completion`, `text` or `messages`, \
             prompts `prompt` or `question`",
        ))
    }
}

fn check_rows<R: Row>(
    paths: &[PathBuf],
    kind: RowKind,
    options: &ReadOptions,
    tokenizer: Option<&Tokenizer>,
) -> Result<Checkup> {
    let found = read_rows::<R>(paths, options)?;
    let mut characters: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut tokens: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut plain = 0;
    for row in &found.rows {
        let texts = row.texts();
        plain += usize::from(texts.iter().all(|(_, text)| matches!(text, Text::Plain(_))));
        for (part, text) in texts {
            characters.entry(part).or_default().push(text.characters());
            if let Some(tokenizer) = tokenizer {
                tokens.entry(part).or_default().push(count_tokens(part, text, tokenizer)?);
            }
        }
    }
    let summaries = [("characters", characters), ("tokens", tokens)]
        .into_iter()
        .flat_map(|(unit, parts)| parts.into_iter().map(move |(part, lengths)| summary(part, unit, lengths)));
    Ok(Checkup {
        kind,
        plain,
        conversational: found.rows.len() - plain,
        lengths: summaries.collect(),
        report: found.report,
    })
}

fn count_tokens(part: &str, text: &Text, tokenizer: &Tokenizer) -> Result<usize> {
    match text {
        _ if part == "prompt" => encode_prompt(text, tokenizer).map(|ids| ids.len()),
        Text::Plain(text) => tokenizer.encode(text, false).map(|ids| ids.len()),
        Text::Conversation(turns) => {
            turns.iter().map(|turn| tokenizer.encode(&turn.content, false).map(|ids| ids.len())).sum()
        }
    }
}

fn summary(part: &str, unit: &'static str, mut lengths: Vec<usize>) -> Lengths {
    lengths.sort_unstable();
    let rank = |share: f64| {
        let rank = (share * lengths.len() as f64).ceil() as usize;
        lengths.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    };
    let mean = lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64;
    Lengths { part: part.into(), unit, mean, p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_lengths(lengths: Vec<usize>, expected: [usize; 4], mean: f64) {
        let found = summary("prompt", "characters", lengths);
        assert_eq!(([found.p50, found.p90, found.p99, found.max], found.mean), (expected, mean));
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        check_lengths((1..=100).rev().collect(), [50, 90, 99, 100], 50.5);
        check_lengths(vec![7], [7, 7, 7, 7], 7.0);
        check_lengths(vec![], [0, 0, 0, 0], 0.0);
    }

    #[track_caller]
    fn check_kind(text: &str, kind: RowKind, counts: (usize, usize, usize, usize)) {
        let file = tempfile::NamedTempFile::with_suffix(".jsonl").unwrap();
        std::fs::write(file.path(), text).unwrap();
        let found = check(&[file.path().to_owned()], None, &ReadOptions::default(), None).unwrap();
        assert_eq!(found.kind, kind);
        assert_eq!((found.plain, found.conversational, found.report.skipped, found.lengths.len()), counts);
    }

    #[test]
    fn the_kind_is_guessed_and_bad_rows_are_counted() {
        check_kind(
            "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n{\n",
            RowKind::Pairs,
            (1, 0, 1, 3),
        );
        check_kind(
            "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}",
            RowKind::Completions,
            (0, 1, 0, 2),
        );
        check_kind("{\"question\":\"a\",\"answer\":\"b\"}", RowKind::Prompts, (1, 0, 0, 1));
    }

    #[test]
    fn unknown_fields_are_named() {
        let problem = guess(&["reward".into(), "action".into()]).unwrap_err();
        assert!(problem.message().contains("reward, action"));
    }
}
