//! The Open Bandit Dataset (Saito et al. 2021, arXiv 2008.07146) as its CSV files come: what a fashion shop showed in
//! three positions, whether it was clicked, and with what probability it was shown.
//!
//! Used columns: `item_id`, `position` (1, 2, 3), `click`, `propensity_score` and `user_feature_0`, ... (hashed
//! categories), of which the context is made: one 0/1 number for each category but the first of each feature, as in the
//! Open Bandit Pipeline, then one for each position but the first. That pipeline fits a reward model per position instead.

use std::{collections::BTreeSet, path::Path};

use polo_run::Result;

use crate::logged::{Log, Table};

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

    let features: Vec<usize> =
        (0..).map_while(|number| table.find(&format!("user_feature_{number}"))).collect();
    let categories: Vec<Vec<&str>> = features
        .iter()
        .map(|&at| {
            table.rows().map(|row| row.text(at)).collect::<BTreeSet<_>>().into_iter().skip(1).collect()
        })
        .collect();
    let slots = log.positions.iter().max().copied().unwrap_or(0);
    log.width = categories.iter().map(Vec::len).sum::<usize>() + slots;
    for (row, slot) in table.rows().zip(&log.positions) {
        for (&at, categories) in features.iter().zip(&categories) {
            let text = row.text(at);
            log.contexts.extend(categories.iter().map(|one| f64::from(u8::from(*one == text))));
        }
        log.contexts.extend((1..=slots).map(|other| f64::from(u8::from(other == *slot))));
    }
    Ok(log)
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
