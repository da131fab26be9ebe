//! The Open Bandit Dataset (Saito et al. 2021, arXiv 2008.07146) as its CSV files come: what a fashion shop showed in
//! three positions, whether it was clicked, and with what probability it was shown.
//!
//! Used columns: `item_id`, `position` (1, 2, 3), `click`, `propensity_score` and `user_feature_0`, ... (hashed
//! categories), of which the context is made: one 0/1 number for each category but the first of each feature, as in the
//! Open Bandit Pipeline, then one for each position but the first. That pipeline fits a reward model per position instead.

use std::{collections::BTreeSet, path::Path};

use polo_run::Result;

use crate::logged::{Log, Row, Table};

/// Reads a log of the dataset, `.csv` or `.csv.gz`.
///
/// # Errors
/// As [`Log::read`].
pub fn read(path: &Path) -> Result<Log> {
    log_of(&Table::read(path)?)
}

pub(crate) fn log_of(table: &Table) -> Result<Log> {
    let columns = ["item_id", "position", "click", "propensity_score"].map(|name| table.column(name));
    let [item, position, click, propensity] = columns;
    let (item, position, click, propensity) = (item?, position?, click?, propensity?);
    let mut log = Log::default();
    for row in table.rows() {
        log.actions.push(row.index(item)?);
        let slot = row.index(position)?;
        let slot = slot.checked_sub(1).ok_or_else(|| {
            row.problem(position, "`position` must be at least 1".into()).hint("positions are counted from 1")
        })?;
        log.positions.push(slot);
        log.rewards.push(row.probability(click, false)?);
        log.propensities.push(row.probability(propensity, true)?);
    }
    log.action_count = log.actions.iter().max().map_or(0, |most| most + 1);

    let users = Categories::of(table, (0..).map_while(|at| table.find(&format!("user_feature_{at}"))));
    let slots = log.positions.iter().max().copied().unwrap_or(0);
    log.width = users.width() + slots;
    for (row, slot) in table.rows().zip(&log.positions) {
        users.push(row, &mut log.contexts);
        log.contexts.extend((1..=slots).map(|other| f64::from(u8::from(other == *slot))));
    }
    Ok(log)
}

/// Reads the dataset's `item_context.csv`: features of items, `[items, any]`, of `item_feature_0`, a number, and
/// `item_feature_1`, ..., hashed categories, of each of which the first is left out.
///
/// # Errors
/// A file that cannot be read, lacks a column, has a cell that is no number, or does not have each of the items 0, 1, ...
/// once; with line and column.
pub fn read_items(path: &Path) -> Result<Vec<f64>> {
    items_of(&Table::read(path)?)
}

fn items_of(table: &Table) -> Result<Vec<f64>> {
    let (item, number) = (table.column("item_id")?, table.column("item_feature_0")?);
    let categories = Categories::of(table, (1..).map_while(|at| table.find(&format!("item_feature_{at}"))));
    let mut items: Vec<Option<Vec<f64>>> = vec![None; table.rows().count()];
    for row in table.rows() {
        let at = row.index(item)?;
        let free = items.get_mut(at).filter(|place| place.is_none()).ok_or_else(|| {
            row.problem(item, format!("item {at} stands twice, or is not below the number of rows"))
        })?;
        let mut features = vec![row.number(number)?];
        categories.push(row, &mut features);
        *free = Some(features);
    }
    Ok(items.into_iter().flatten().flatten().collect())
}

/// Columns of categories, with all categories but the first of each.
struct Categories<'a>(Vec<(usize, Vec<&'a str>)>);

impl<'a> Categories<'a> {
    fn of(table: &'a Table, columns: impl Iterator<Item = usize>) -> Self {
        let all = |at: usize| -> BTreeSet<&str> { table.rows().map(|row| row.text(at)).collect() };
        Self(columns.map(|at| (at, all(at).into_iter().skip(1).collect())).collect())
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, categories)| categories.len()).sum()
    }

    /// Adds 1 for the categories that a row has, 0 for the others.
    fn push(&self, row: Row, into: &mut Vec<f64>) {
        for (at, categories) in &self.0 {
            let text = row.text(*at);
            into.extend(categories.iter().map(|one| f64::from(u8::from(*one == text))));
        }
    }
}

/// How often a log has each action among the rows of each position, `[positions, actions]` with at least as many actions
/// as the log has; zeros for a position without rows.
pub fn empirical_policy(log: &Log, actions: usize) -> Vec<f64> {
    let positions = log.positions.iter().max().map_or(0, |most| most + 1);
    let mut table = vec![0.0; positions * actions];
    log.positions.iter().zip(&log.actions).for_each(|(slot, action)| table[slot * actions + action] += 1.0);
    for row in table.chunks_exact_mut(actions) {
        let rows: f64 = row.iter().sum();
        row.iter_mut().for_each(|share| *share /= rows.max(1.0));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the shape of the dataset's, with fewer columns of affinities.
    const ROWS: &str = "\
,timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user-item_affinity_0
0,2019-11-24 00:01:03.979311+00:00,2,2,0,0.045525,cef3,2d03,0.0
1,2019-11-24 00:01:45.406608+00:00,1,3,1,0.059345,cef3,f1c2,0.0
2,2019-11-24 00:02:07.001000+00:00,2,2,0,0.25,81ce,03a5,1.0
3,2019-11-24 00:03:16.000000+00:00,0,2,0,0.5,81ce,03a5,0.0
";

    fn log(text: &str) -> Result<Log> {
        log_of(&Table::parse(Path::new("men.csv"), text.as_bytes())?)
    }

    #[test]
    fn rows_are_read_as_they_stand() {
        let log = log(ROWS).unwrap();
        assert_eq!((log.action_count, &log.actions), (3, &vec![2, 1, 2, 0]));
        assert_eq!(log.positions, [1, 2, 1, 1]);
        assert_eq!(log.rewards, [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(log.propensities, [0.045_525, 0.059_345, 0.25, 0.5]);
        // cef3 | 2d03, f1c2 | second, third position.
        assert_eq!(log.width, 5);
        assert_eq!(log.context(0), [1.0, 1.0, 0.0, 1.0, 0.0]);
        assert_eq!(log.context(1), [1.0, 0.0, 1.0, 0.0, 1.0]);
        assert_eq!(log.context(3), [0.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn shares_by_position() {
        let log = log(ROWS).unwrap();
        let third = 1.0 / 3.0;
        assert_eq!(
            empirical_policy(&log, 4),
            [0.0, 0.0, 0.0, 0.0, third, 0.0, 2.0 * third, 0.0, 0.0, 1.0, 0.0, 0.0]
        );
    }

    #[test]
    fn items_have_features() {
        let rows = ",item_id,item_feature_0,item_feature_1\n0,1,-0.68,eb6f\n1,0,-0.72,270d\n";
        let items = |text: &str| items_of(&Table::parse(Path::new("item_context.csv"), text.as_bytes())?);
        assert_eq!(items(rows).unwrap(), [-0.72, 0.0, -0.68, 1.0]);
        let twice = items(&rows.replace("1,0,", "1,1,")).unwrap_err().to_string();
        assert_eq!(twice, "item_context.csv:3:3: item 1 stands twice, or is not below the number of rows");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        fn check(from: &str, to: &str, expected: &str) {
            let problem = log(&ROWS.replacen(from, to, 1)).unwrap_err();
            assert_eq!(problem.to_string(), expected);
        }
        check("0.045525", "0", "men.csv:2:42: `propensity_score` must be above 0 and at most 1, not 0");
        check("0.059345", "1.5", "men.csv:3:42: `propensity_score` must be above 0 and at most 1, not 1.5");
        check(",2,2,0,0.0", ",2,0,0,0.0", "men.csv:2:38: `position` must be at least 1");
        check(",2,2,0,0.0", ",two,2,0,0.0", "men.csv:2:36: `item_id` is not one of 0, 1, 2, ...: `two`");
        check(",1,3,1,", ",1,3,2,", "men.csv:3:40: `click` must be between 0 and 1, not 2");
        check(",1,3,1,", ",1,3,NaN,", "men.csv:3:40: `click` is no number: `NaN`");
        check("item_id", "item", "men.csv:1: there is no column `item_id`");
        check(",81ce,03a5,1.0", ",81ce,03a5", "men.csv:4: 8 cells, but there are 9 columns");
        check("item_id", "click", "men.csv:1: the column `click` stands twice");
        let header = ROWS.lines().next().unwrap();
        assert_eq!(log(header).unwrap_err().to_string(), "men.csv: there is no row");
    }
}
