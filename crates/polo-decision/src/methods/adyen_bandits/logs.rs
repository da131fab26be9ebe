//! Generations that somebody logged: a CSV file, perhaps gzip-compressed, of one row per decision.
//!
//! Columns: `generation` (0, 1, ..: batches in the order of time), `action` (0, 1, ..), `reward` (in \[0, 1\]),
//! `propensity` (the probability with which the action was taken among those admitted), perhaps `admitted` (the actions that
//! the request admitted, with spaces between; all of the file's where there is no such column); every other column is a
//! number of the context.

use std::path::Path;

use polo_run::{Problem, Result};

use super::Batch;
use crate::logged::{Row, Table};

/// Most actions that a log may have.
const MOST_ACTIONS: usize = 10_000;

/// The batches of a log, two or more, and the number of actions.
///
/// # Errors
/// A file that cannot be read, lacks a column or a row, has a cell that is no number or out of range or an action that is not
/// admitted, with its place; generations with a gap.
pub fn read(path: &Path) -> Result<(Vec<Batch>, usize)> {
    let table = Table::read(path)?;
    let names = ["generation", "action", "reward", "propensity"];
    let [generation, action, reward, propensity] = names.map(|name| table.column(name));
    let (generation, action, reward, propensity) = (generation?, action?, reward?, propensity?);
    let admitted = table.find("admitted");
    let known = [Some(generation), Some(action), Some(reward), Some(propensity), admitted];
    let context: Vec<usize> = (0..table.headers.len()).filter(|&at| !known.contains(&Some(at))).collect();
    let mut actions = 0;
    let mut rows = Vec::new();
    for row in table.rows() {
        let (taken, number) = (row.index(action)?, row.index(generation)?);
        if taken >= MOST_ACTIONS {
            return Err(row.problem(action, format!("more than {MOST_ACTIONS} actions: `{taken}`")));
        }
        let those = admitted.map_or(Ok(Vec::new()), |column| choices(&row, column, taken))?;
        actions = actions.max(1 + those.last().map_or(taken, |last| taken.max(*last)));
        rows.push((number, row, those));
    }
    // A stable sort: rows of a generation stay in the file's order.
    rows.sort_by_key(|(number, ..)| *number);
    let mut batches: Vec<Batch> = Vec::new();
    for (number, row, those) in rows {
        if number > batches.len() {
            return Err(row
                .problem(generation, format!("there is generation {number}, but none {}", batches.len()))
                .hint("generations are numbered 0, 1, 2, ... without a gap"));
        }
        if number == batches.len() {
            batches.push(Batch { generation: number as u64, ..Batch::default() });
        }
        let batch = &mut batches[number];
        batch.requests.width = context.len();
        for &at in &context {
            batch.requests.contexts.push(row.number(at)?);
        }
        batch.requests.admitted.push(if admitted.is_some() { those } else { (0..actions).collect() });
        batch.actions.push(row.index(action)?);
        batch.rewards.push(row.probability(reward, false)?);
        batch.propensities.push(row.probability(propensity, true)?);
    }
    if batches.len() < 2 {
        return Err(Problem::input("there is one generation alone")
            .place(path.display().to_string())
            .hint("an oracle learns from one generation and is judged on the next"));
    }
    Ok((batches, actions))
}

/// The actions that a request admitted, rising.
fn choices(row: &Row<'_>, column: usize, taken: usize) -> Result<Vec<usize>> {
    let bad = |text: String| row.problem(column, text);
    let mut those = Vec::new();
    for word in row.text(column).split_whitespace() {
        let number = word.parse().ok().filter(|number| *number < MOST_ACTIONS);
        those.push(number.ok_or_else(|| bad(format!("`admitted` has an action that is none: `{word}`")))?);
    }
    those.sort_unstable();
    if those.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(bad("`admitted` has an action twice".into()));
    }
    if !those.contains(&taken) {
        return Err(bad(format!("action {taken} was taken, but is not admitted")));
    }
    Ok(those)
}
