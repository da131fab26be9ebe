//! Logged decisions as estimators need them, read from CSV, and the policy that is to be evaluated on them.
//!
//! A log is a CSV file, perhaps gzip-compressed, with the columns `action` (0, 1, ...), `reward`, `propensity` (the
//! probability with which the action was taken) and perhaps `position` (the slot that was filled: 0, 1, ...); every
//! other column is a number of the context. A file of the Open Bandit Dataset is one as it comes ([`crate::obd`]).
//!
//! A policy is a CSV file in one of three forms:
//! - `action,probability` or `position,action,probability`: the same for every context;
//! - columns `p0`, `p1`, ...: one row per row of the log, in the log's order;
//! - another log of the Open Bandit Dataset: how often that log has each action in each position.

use std::{collections::HashMap, fs::File, io::Read, path::Path};

use csv::StringRecord;
use flate2::read::MultiGzDecoder;
use polo_run::{Problem, Result, human};

use crate::{
    estimators::{Rows, chosen, direct},
    obd,
};

/// Logged decisions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Number of actions that there are.
    pub action_count: usize,
    /// Logged actions, `[rows]`.
    pub actions: Vec<usize>,
    /// Rewards, `[rows]`.
    pub rewards: Vec<f64>,
    /// Probabilities of the logged actions, `[rows]`, in (0, 1].
    pub propensities: Vec<f64>,
    /// Slots that were filled, from 0, `[rows]`; all 0 where a decision has one.
    pub positions: Vec<usize>,
    /// Numbers of a context.
    pub width: usize,
    /// `[rows, width]`.
    pub contexts: Vec<f64>,
}

impl Log {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.actions.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// The context of a row.
    pub fn context(&self, row: usize) -> &[f64] {
        &self.contexts[row * self.width..][..self.width]
    }

    /// Reads a log; its format is told by its columns.
    ///
    /// # Errors
    /// A file that cannot be read, lacks a column or a row, or has a cell that is no number or out of range; with line
    /// and column.
    pub fn read(path: &Path) -> Result<Self> {
        let table = Table::read(path)?;
        if table.has("item_id") && table.has("propensity_score") {
            return obd::log_of(&table);
        }
        let [action, reward, propensity] = ["action", "reward", "propensity"].map(|name| table.column(name));
        let (action, reward, propensity) = (action?, reward?, propensity?);
        let position = table.find("position");
        let known = [Some(action), Some(reward), Some(propensity), position];
        let context: Vec<usize> = (0..table.headers.len()).filter(|&at| !known.contains(&Some(at))).collect();
        let mut log = Log { width: context.len(), ..Log::default() };
        for row in table.rows() {
            log.actions.push(row.index(action)?);
            log.rewards.push(row.number(reward)?);
            log.propensities.push(row.probability(propensity, true)?);
            log.positions.push(position.map_or(Ok(0), |at| row.index(at))?);
            for &at in &context {
                log.contexts.push(row.number(at)?);
            }
        }
        log.action_count = log.actions.iter().max().map_or(0, |most| most + 1);
        Ok(log)
    }
}

/// What a policy does in the situations of a log: probabilities `[rows, actions]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Number of actions; at least that of the log, which may not have all that the policy takes.
    pub action_count: usize,
    /// `[rows, actions]`, each row with sum 1.
    pub probabilities: Vec<f64>,
}

impl Policy {
    /// Every action as likely, in every row.
    pub fn uniform(log: &Log) -> Self {
        let count = log.action_count;
        Self { action_count: count, probabilities: vec![1.0 / count as f64; count * log.len()] }
    }

    /// The same in all rows with the same position: `table` is `[positions, count]`, `count` the number of actions.
    pub fn by_position(log: &Log, count: usize, table: &[f64]) -> Self {
        let rows = log.positions.iter().flat_map(|position| &table[position * count..][..count]);
        Self { action_count: count, probabilities: rows.copied().collect() }
    }

    /// Reads a policy for the rows of `log`, in any of the forms that the head of this module names.
    ///
    /// # Errors
    /// As [`Log::read`]; probabilities whose sum is not 1 (to 1e-6), pairs that stand twice, another number of rows than
    /// the log has, positions of the log for which the policy has nothing, columns missing for actions of the log.
    pub fn read(path: &Path, log: &Log) -> Result<Self> {
        let table = Table::read(path)?;
        if table.has("item_id") && table.has("propensity_score") {
            let other = obd::log_of(&table)?;
            let actions = log.action_count.max(other.action_count);
            return from_positions(path, log, actions, &obd::empirical_policy(&other, actions));
        }
        if table.has("probability") {
            let (actions, policy) = read_by_position(&table, log)?;
            return from_positions(path, log, actions, &policy);
        }
        read_row_by_row(&table, log)
    }

    /// What estimators need of the log under this policy. `predictions` are a model's, `[rows, actions]`.
    pub fn rows(&self, log: &Log, predictions: Option<&[f64]>) -> Evaluated {
        let count = self.action_count;
        Evaluated {
            target: chosen(&self.probabilities, &log.actions, count),
            model_values: predictions.map(|q| direct(&self.probabilities, q, count)).unwrap_or_default(),
            fitted: predictions.map(|q| chosen(q, &log.actions, count)).unwrap_or_default(),
        }
    }
}

/// A policy and a model, row by row of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    /// π_e(aᵢ|xᵢ), `[rows]`.
    pub target: Vec<f64>,
    /// Σₐ π_e(a|xᵢ) q̂(xᵢ, a), `[rows]`; empty without a model.
    pub model_values: Vec<f64>,
    /// q̂(xᵢ, aᵢ), `[rows]`; empty without a model.
    pub fitted: Vec<f64>,
}

impl Evaluated {
    /// With the rest that estimators see of the log.
    pub fn with<'a>(&'a self, log: &'a Log) -> Rows<'a> {
        Rows {
            rewards: &log.rewards,
            propensities: &log.propensities,
            target: &self.target,
            model_values: &self.model_values,
            fitted: &self.fitted,
        }
    }
}

/// Rounding that probabilities written in decimals may carry.
const SUM_TOLERANCE: f64 = 1e-6;

/// Of a table `[positions, actions]` whose rows have sum 1, or 0 where nothing is known of a position.
fn from_positions(path: &Path, log: &Log, actions: usize, table: &[f64]) -> Result<Policy> {
    let known = |position: usize| {
        let row = table.get(position * actions..(position + 1) * actions);
        row.is_some_and(|row| row.iter().sum::<f64>() > 0.0)
    };
    if let Some(position) = log.positions.iter().find(|&&position| !known(position)) {
        let problem = Problem::input(format!("the policy has no probabilities for position {position}"));
        return Err(problem.place(path.display().to_string()).hint("the log has rows in that position"));
    }
    Ok(Policy::by_position(log, actions, table))
}

/// The number of actions, that of the log or more, and probabilities `[positions, actions]`.
fn read_by_position(table: &Table, log: &Log) -> Result<(usize, Vec<f64>)> {
    let (action, probability) = (table.column("action")?, table.column("probability")?);
    let position = table.find("position");
    let mut found: HashMap<(usize, usize), f64> = HashMap::new();
    for row in table.rows() {
        let place = (position.map_or(Ok(0), |at| row.index(at))?, row.index(action)?);
        if found.insert(place, row.probability(probability, false)?).is_some() {
            return Err(row.problem(action, "this action stands twice".into()));
        }
    }
    let positions = found.keys().map(|(position, _)| position + 1).max().unwrap_or(0);
    let actions = found.keys().map(|(_, action)| action + 1).max().unwrap_or(0).max(log.action_count);
    let mut policy = vec![0.0; positions * actions];
    found.iter().for_each(|((position, action), p)| policy[position * actions + action] = *p);
    for (position, row) in policy.chunks_exact_mut(actions).enumerate() {
        let sum: f64 = row.iter().sum();
        if sum != 0.0 && (sum - 1.0).abs() > SUM_TOLERANCE {
            let text =
                format!("the probabilities of position {position} have the sum {}", human::number(sum));
            return Err(Problem::input(text)
                .place(table.path.display().to_string())
                .hint("they must sum to 1"));
        }
    }
    if position.is_none() {
        policy = policy.repeat(log.positions.iter().max().map_or(1, |most| most + 1));
    }
    Ok((actions, policy))
}

fn read_row_by_row(table: &Table, log: &Log) -> Result<Policy> {
    if table.find("p0").is_none() {
        return Err(Problem::input("this is no policy").at(table.path, 1, None).hint(
            "a policy has the columns `action` and `probability`, perhaps `position`, or `p0`, `p1`, ... with a row for each \
             of the log's",
        ));
    }
    let named = (0..).map_while(|action| table.find(&format!("p{action}"))).count();
    let count = named.max(log.action_count);
    let columns: Vec<usize> =
        (0..count).map(|action| table.column(&format!("p{action}"))).collect::<Result<_>>()?;
    let mut probabilities = Vec::with_capacity(count * log.len());
    for row in table.rows() {
        let start = probabilities.len();
        for &at in &columns {
            probabilities.push(row.probability(at, false)?);
        }
        let sum: f64 = probabilities[start..].iter().sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            let text = format!("the probabilities of this row have the sum {}", human::number(sum));
            return Err(row.problem(columns[0], text));
        }
    }
    if probabilities.len() != count * log.len() {
        let text = format!("{} rows, but the log has {}", probabilities.len() / count.max(1), log.len());
        return Err(Problem::input(text).place(table.path.display().to_string()));
    }
    Ok(Policy { action_count: count, probabilities })
}

/// A CSV file as text, with the places of its cells.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    path: &'a Path,
    /// Names of the columns.
    pub headers: StringRecord,
    records: Vec<StringRecord>,
}

impl<'a> Table<'a> {
    pub(crate) fn read(path: &'a Path) -> Result<Self> {
        let io = |error: &std::io::Error| Problem::io("read", path, error);
        let mut bytes = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(|error| io(&error))?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).map_err(|error| io(&error))?;
            bytes = plain;
        }
        Self::parse(path, &bytes)
    }

    pub(crate) fn parse(path: &'a Path, bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader = csv::Reader::from_reader(bytes);
        let broken = |error: csv::Error| {
            let line = error.position().map_or(1, |position| position.line() as usize);
            let text = match error.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    format!("{len} cells, but there are {expected_len} columns")
                }
                csv::ErrorKind::Utf8 { .. } => "text that is not UTF-8".into(),
                _ => format!("no CSV: {error}"),
            };
            Problem::input(text).at(path, line, None)
        };
        let headers = reader.headers().map_err(broken)?.clone();
        let records: Vec<StringRecord> = reader.records().collect::<Result<_, _>>().map_err(broken)?;
        if records.is_empty() {
            return Err(Problem::input("there is no row").place(path.display().to_string()));
        }
        if let Some(twice) =
            headers.iter().enumerate().find(|(at, name)| headers.iter().take(*at).any(|other| other == *name))
        {
            return Err(Problem::input(format!("the column `{}` stands twice", twice.1)).at(path, 1, None));
        }
        Ok(Self { path, headers, records })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.headers.iter().position(|header| header == name)
    }

    pub(crate) fn column(&self, name: &str) -> Result<usize> {
        self.find(name).ok_or_else(|| {
            let there: Vec<&str> = self.headers.iter().take(12).collect();
            Problem::input(format!("there is no column `{name}`"))
                .at(self.path, 1, None)
                .hint(format!("the file's columns begin with {}", there.join(", ")))
        })
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.records.iter().map(|record| Row { table: self, record })
    }
}

/// A row of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    table: &'a Table<'a>,
    record: &'a StringRecord,
}

impl<'a> Row<'a> {
    pub(crate) fn text(&self, column: usize) -> &'a str {
        self.record.get(column).unwrap_or_default().trim()
    }

    /// A problem with a cell. Its column in the text is exact where no cell before it is quoted.
    pub(crate) fn problem(&self, column: usize, text: String) -> Problem {
        let line = self.record.position().map_or(0, |position| position.line() as usize);
        let before: usize = self.record.iter().take(column).map(|cell| cell.chars().count() + 1).sum();
        Problem::input(text).at(self.table.path, line, Some(before + 1))
    }

    fn name(&self, column: usize) -> &str {
        self.table.headers.get(column).unwrap_or_default()
    }

    pub(crate) fn number(&self, column: usize) -> Result<f64> {
        let number = self.text(column).parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| {
            self.problem(column, format!("`{}` is no number: `{}`", self.name(column), self.text(column)))
        })
    }

    pub(crate) fn index(&self, column: usize) -> Result<usize> {
        self.text(column).parse().map_err(|_| {
            self.problem(
                column,
                format!("`{}` is not one of 0, 1, 2, ...: `{}`", self.name(column), self.text(column)),
            )
        })
    }

    /// A number in [0, 1], or in (0, 1] where it is that of something that happened.
    pub(crate) fn probability(&self, column: usize, happened: bool) -> Result<f64> {
        let number = self.number(column)?;
        if (0.0..=1.0).contains(&number) && !(happened && number == 0.0) {
            return Ok(number);
        }
        let range = if happened { "above 0 and at most 1" } else { "between 0 and 1" };
        Err(self.problem(column, format!("`{}` must be {range}, not {number}", self.name(column))))
    }
}

#[cfg(test)]
#[path = "logged_tests.rs"]
mod tests;
