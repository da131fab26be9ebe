//! Logged decisions in CSV: a row to a decision, with a map of what the columns mean.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use polo_run::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::source::{Flaw, Line};
use crate::{
    features::{Decision, Example, Feature, Outcome, hash},
    logged::Table,
};

/// `[data.columns]`. Every column that has no other meaning is a feature of the context: a number, or, where it is none, a
/// category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The action that was taken: any text.
    pub action: String,
    /// What came of it: the reward, which is minus the cost. Empty where there is a column of costs.
    pub reward: String,
    /// What came of it: the cost.
    pub cost: String,
    /// With which probability the action was taken.
    pub propensity: String,
    /// A name of the decision.
    pub event: String,
    /// The actions that could be taken, with blanks between them. Without it, all that the files name.
    pub available: String,
    /// Columns that are categories though they look like numbers.
    pub categories: Vec<String>,
    /// Columns that are not read.
    pub ignored: Vec<String>,
    /// Beginnings of names of columns that are about one action: what comes after is the action.
    pub of_action: Vec<String>,
    /// A CSV file of actions: a column `action`, and features of each.
    pub actions: Option<PathBuf>,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            action: "action".into(),
            reward: "reward".into(),
            cost: String::new(),
            propensity: "propensity".into(),
            event: String::new(),
            available: String::new(),
            categories: Vec::new(),
            ignored: Vec::new(),
            of_action: Vec::new(),
            actions: None,
        }
    }
}

/// Namespaces of what the columns hold.
const CONTEXT: &str = "Context";
const ACTION: &str = "Action";
const PAIR: &str = "Pair";

impl Columns {
    /// That each name is one of a column here, or the beginning of one.
    ///
    /// # Errors
    /// One that is not, which would be without effect.
    pub fn named_in(&self, headers: &[String]) -> Result<()> {
        let is = |name: &str, header: &str| name == header;
        let begins = |name: &str, header: &str| header.starts_with(name);
        type Fits<'a> = &'a dyn Fn(&str, &str) -> bool;
        for (names, key, fits) in [
            (&self.categories, "categories", &is as Fits<'_>),
            (&self.ignored, "ignored", &is),
            (&self.of_action, "of_action", &begins),
        ] {
            if let Some(name) = names.iter().find(|name| !headers.iter().any(|header| fits(name, header))) {
                return Err(missing(name, key, headers));
            }
        }
        Ok(())
    }

    /// The map for a file that says of no decision what came of it.
    pub fn without_outcomes(&self) -> Self {
        let [action, reward, cost, propensity] = [const { String::new() }; 4];
        Self { action, reward, cost, propensity, ..self.clone() }
    }

    /// Whether none of the columns is there that say what was done and what came of it.
    pub fn lacks_outcomes(&self, headers: &[String]) -> bool {
        let columns = self.for_headers(headers);
        let names = [columns.action, columns.reward, columns.cost, columns.propensity];
        !headers.iter().any(|header| !header.is_empty() && names.contains(header))
    }

    /// The map for a file with these columns: that of the Open Bandit Dataset if it is one and nothing else is said.
    fn for_headers(&self, headers: &[String]) -> Self {
        let has = |name: &str| headers.iter().any(|header| header == name);
        if *self != (Self { actions: self.actions.clone(), ..Self::default() })
            || !(has("item_id") && has("propensity_score") && has("click"))
        {
            return self.clone();
        }
        Self {
            action: "item_id".into(),
            reward: "click".into(),
            propensity: "propensity_score".into(),
            categories: vec!["position".into()],
            ignored: vec![String::new(), "timestamp".into()],
            of_action: vec!["user-item_affinity_".into()],
            actions: self.actions.clone(),
            ..Self::default()
        }
    }
}

fn missing(what: &str, key: &str, headers: &[String]) -> Problem {
    let brief = |header: &String| header.chars().take(40).collect::<String>();
    let names: Vec<String> = headers.iter().take(12).map(brief).collect();
    Problem::input(format!("there is no column `{what}`"))
        .place(format!("data.columns.{key}"))
        .hint(format!("the columns are {}", names.join(", ")))
}

/// What a column holds.
#[derive(Clone, Debug, PartialEq)]
enum Role {
    Action,
    Reward,
    Cost,
    Propensity,
    Event,
    Available,
    Ignored,
    Number {
        feature: u32,
        name: String,
    },
    Category {
        name: String,
    },
    /// Of the action with this place in the list.
    Pair {
        action: usize,
        feature: u32,
    },
}

/// Reads rows of files with the same columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    roles: Vec<Role>,
    headers: Vec<String>,
    /// Of each action's name, its place in the list of features.
    places: HashMap<String, usize>,
    actions: Vec<Example>,
}

fn add(example: &mut Example, namespace: &str, hash: u32, value: f32) {
    if value != 0.0 {
        let letter = namespace.bytes().next().unwrap_or(b' ');
        example.space_mut(letter).push(Feature { hash, value });
    }
}

/// A cell as a feature: a number, or a category; nothing where it is empty.
fn add_cell(
    example: &mut Example,
    namespace: &str,
    name: &str,
    cell: &str,
    category: bool,
) -> Result<(), String> {
    let seed = hash(namespace, 0);
    let number = if category { None } else { cell.parse::<f32>().ok() };
    match number {
        _ if cell.is_empty() => {}
        Some(value) if !value.is_finite() => return Err(format!("`{name}` is no finite number: `{cell}`")),
        Some(value) => add(example, namespace, hash(name, seed), value),
        None => add(example, namespace, hash(&format!("{name}{cell}"), seed), 1.0),
    }
    Ok(())
}

/// A record, without the end of its last line, as its cells; none if it is no CSV, or more than one record.
pub(super) fn cells(record: &str) -> Option<csv::StringRecord> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(record.as_bytes());
    let mut cells = csv::StringRecord::new();
    let one = reader.read_record(&mut cells).ok()? && reader.position().byte() == record.len() as u64;
    one.then_some(cells)
}

/// Where in a cell the reading of a record stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cell {
    /// Before its first character.
    #[default]
    Begins,
    /// A quote in it stands for itself.
    Plain,
    /// A comma or an end of a line is text.
    Quoted,
    /// After a quote that ends it, or is the first of two that stand for one.
    Ends,
}

impl Cell {
    /// After more bytes.
    pub(super) fn after(self, bytes: &[u8]) -> Self {
        if self == Self::Begins && !bytes.contains(&b'"') {
            return match bytes.last() {
                None | Some(b',' | b'\n' | b'\r') => Self::Begins,
                Some(_) => Self::Plain,
            };
        }
        bytes.iter().fold(self, |cell, byte| match (cell, byte) {
            (Self::Quoted, b'"') => Self::Ends,
            (Self::Quoted, _) | (Self::Begins | Self::Ends, b'"') => Self::Quoted,
            (_, b',' | b'\n' | b'\r') => Self::Begins,
            _ => Self::Plain,
        })
    }
}

impl Rows {
    /// A reader for files with these columns, in which these actions were taken or could be.
    ///
    /// # Errors
    /// Columns that are missing or stand twice; a file of actions that cannot be used, or lacks an action.
    pub fn new(columns: &Columns, headers: &[String], seen: BTreeSet<String>) -> Result<Self> {
        let columns = &columns.for_headers(headers);
        let mut names: Vec<String> = seen.into_iter().collect();
        // Whole numbers in their order, and all others after them.
        names.sort_by_key(|name| (name.parse::<u64>().unwrap_or(u64::MAX), name.clone()));
        let mut actions = vec![Example::default(); names.len()];
        let mut places: HashMap<String, usize> = names.into_iter().zip(0..).collect();
        if let Some(path) = &columns.actions {
            Self::describe(path, &mut places, &mut actions)?;
        }
        for (name, at) in &places {
            add(&mut actions[*at], ACTION, hash(&format!("id{name}"), hash(ACTION, 0)), 1.0);
        }
        for (name, key) in [
            (&columns.action, "action"),
            (&columns.propensity, "propensity"),
            (&columns.cost, "cost"),
            (&columns.event, "event"),
            (&columns.available, "available"),
        ] {
            if !name.is_empty() && !headers.contains(name) {
                return Err(missing(name, key, headers));
            }
        }
        let asked = !columns.action.is_empty();
        if asked && columns.cost.is_empty() && !headers.contains(&columns.reward) {
            return Err(missing(&columns.reward, "reward", headers));
        }
        let pair = |header: &str| {
            let action = columns.of_action.iter().find_map(|prefix| header.strip_prefix(prefix.as_str()))?;
            Some(places.get(action).map(|place| (*place, header.len() - action.len())))
        };
        let role = |header: &String| -> Role {
            if asked && header == &columns.action {
                Role::Action
            } else if !columns.cost.is_empty() && header == &columns.cost {
                Role::Cost
            } else if asked && columns.cost.is_empty() && header == &columns.reward {
                Role::Reward
            } else if asked && header == &columns.propensity {
                Role::Propensity
            } else if !columns.event.is_empty() && header == &columns.event {
                Role::Event
            } else if !columns.available.is_empty() && header == &columns.available {
                Role::Available
            } else if columns.ignored.contains(header) || header == &columns.reward {
                Role::Ignored
            } else if columns.categories.contains(header) {
                Role::Category { name: header.clone() }
            } else {
                match pair(header) {
                    Some(Some((action, prefix))) => {
                        Role::Pair { action, feature: hash(&header[..prefix], hash(PAIR, 0)) }
                    }
                    // About an action that is in no row.
                    Some(None) => Role::Ignored,
                    None => Role::Number { feature: hash(header, hash(CONTEXT, 0)), name: header.clone() },
                }
            }
        };
        Ok(Self { roles: headers.iter().map(role).collect(), headers: headers.to_vec(), places, actions })
    }

    /// Names of the actions, in the order in which decisions number them where all are available.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<&String> = self.places.keys().collect();
        names.sort_by_key(|name| self.places[*name]);
        names.into_iter().cloned().collect()
    }

    /// Adds the features of a file of actions.
    fn describe(
        path: &std::path::Path,
        places: &mut HashMap<String, usize>,
        actions: &mut Vec<Example>,
    ) -> Result<()> {
        let table = Table::read(path)?;
        let id = table.find("action").or_else(|| table.find("item_id"));
        let Some(id) = id else {
            return Err(Problem::input("there is no column `action`").at(path, 1, None));
        };
        let mut described = BTreeSet::new();
        for row in table.rows() {
            let name = row.text(id);
            if !described.insert(name.to_owned()) {
                return Err(row.problem(id, format!("action `{name}` stands twice")));
            }
            let at = *places.entry(name.to_owned()).or_insert(actions.len());
            if at == actions.len() {
                actions.push(Example::default());
            }
            for (column, header) in table.headers.iter().enumerate() {
                if column != id && !header.is_empty() {
                    add_cell(&mut actions[at], ACTION, header, row.text(column), false)
                        .map_err(|what| row.problem(column, what))?;
                }
            }
        }
        match places.keys().filter(|name| !described.contains(*name)).min() {
            None => Ok(()),
            Some(name) => Err(Problem::input(format!("action `{name}` of the log is not described"))
                .place(path.display().to_string())),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong, and where: its column in the text is exact where no cell before it is quoted.
    pub fn parse(&self, record: &str) -> Result<Line, Flaw> {
        let record = record.trim_end_matches(['\n', '\r']);
        if record.is_empty() {
            return Ok(Line::Other);
        }
        let whole = |what: String| Flaw { what, line: 0, column: None };
        if Cell::default().after(record.as_bytes()) == Cell::Quoted {
            return Err(whole("a quote is not closed".into()));
        }
        let cells =
            cells(record).ok_or_else(|| whole("it is no CSV, or has an end of a line within".into()))?;
        if cells.len() != self.roles.len() {
            let (found, expected) = (cells.len(), self.roles.len());
            return Err(whole(format!("it has {found} cells, and there are {expected} columns")));
        }
        let mut decision = Decision { weight: 1.0, ..Decision::default() };
        let (mut action, mut cost, mut probability, mut available) = (None, None, None, None);
        let mut pairs = Vec::new();
        let mut column = 1;
        for ((cell, role), header) in cells.iter().zip(&self.roles).zip(&self.headers) {
            let here = column;
            column += cell.chars().count() + 1;
            let cell = cell.trim();
            let flaw = |what: String| Flaw { what, line: 0, column: Some(here) };
            let number = || {
                let number = cell.parse::<f32>().ok().filter(|number| number.is_finite());
                number.ok_or_else(|| flaw(format!("`{header}` is no number: `{cell}`")))
            };
            let known = |name: &str| {
                self.places.get(name).copied().ok_or_else(|| {
                    flaw(format!("`{name}` is no action that the files had when the run began"))
                })
            };
            match role {
                Role::Ignored => {}
                Role::Event => cell.clone_into(&mut decision.event),
                Role::Action | Role::Reward | Role::Cost | Role::Propensity if cell.is_empty() => {}
                Role::Action => action = Some(known(cell)?),
                // No cost of -0 for a reward of 0.
                Role::Reward => cost = Some(0.0 - number()?),
                Role::Cost => cost = Some(number()?),
                Role::Propensity => probability = Some(number()?),
                Role::Available => {
                    available = Some(cell.split_whitespace().map(known).collect::<Result<Vec<_>, _>>()?);
                }
                Role::Category { name } => {
                    add_cell(&mut decision.shared, CONTEXT, name, cell, true).map_err(flaw)?;
                }
                Role::Number { feature, name } => match cell.parse::<f32>() {
                    Ok(value) if value.is_finite() => add(&mut decision.shared, CONTEXT, *feature, value),
                    _ => add_cell(&mut decision.shared, CONTEXT, name, cell, false).map_err(flaw)?,
                },
                Role::Pair { action, feature } => {
                    if !cell.is_empty() {
                        pairs.push((*action, *feature, number()?));
                    }
                }
            }
        }
        // Where each action stands in the decision, if not all are available.
        let stand: Option<HashMap<usize, usize>> =
            available.as_ref().map(|list| list.iter().copied().zip(0..).collect());
        let stands = |action: usize| match &stand {
            Some(stand) => stand.get(&action).copied(),
            None => Some(action),
        };
        decision.actions = match &available {
            Some(list) => list.iter().map(|at| self.actions[*at].clone()).collect(),
            None => self.actions.clone(),
        };
        if decision.actions.is_empty() {
            return Err(whole("no action is available".into()));
        }
        if stand.as_ref().is_some_and(|stand| stand.len() < decision.actions.len()) {
            return Err(whole("an action is available twice".into()));
        }
        for (action, feature, value) in pairs {
            if let Some(place) = stands(action) {
                add(&mut decision.actions[place], PAIR, feature, value);
            }
        }
        if let Some(cost) = cost {
            let (Some(action), Some(probability)) = (action, probability) else {
                return Err(whole("there is an outcome, and no action or no probability".into()));
            };
            let Some(place) = stands(action) else {
                let name = self.places.iter().find(|(_, at)| **at == action).map_or("", |(name, _)| name);
                return Err(whole(format!("action `{name}` was taken and is not available")));
            };
            decision.outcome = Some(Outcome { action: place, cost, probability });
        }
        Ok(Line::Decision(decision))
    }

    /// The actions that a record names.
    pub fn actions_of(columns: &Columns, headers: &[String], record: &str, seen: &mut BTreeSet<String>) {
        let columns = columns.for_headers(headers);
        let Some(cells) = cells(record.trim_end_matches(['\n', '\r'])) else { return };
        for (cell, header) in cells.iter().zip(headers) {
            if header == &columns.action && !seen.contains(cell.trim()) && !cell.trim().is_empty() {
                seen.insert(cell.trim().to_owned());
            } else if !columns.available.is_empty() && header == &columns.available {
                seen.extend(cell.split_whitespace().map(str::to_owned));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(columns: &Columns, headers: &str, records: &[&str]) -> Result<Rows> {
        let headers: Vec<String> = headers.split(',').map(str::to_owned).collect();
        let mut seen = BTreeSet::new();
        records.iter().for_each(|record| Rows::actions_of(columns, &headers, record, &mut seen));
        Rows::new(columns, &headers, seen)
    }

    fn decision(rows: &Rows, record: &str) -> Decision {
        match rows.parse(record) {
            Ok(Line::Decision(decision)) => decision,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn columns_have_their_meanings() {
        let columns = Columns {
            available: "could".into(),
            of_action: vec!["taste_".into()],
            categories: vec!["zip".into()],
            ..Columns::default()
        };
        let headers = "action,reward,propensity,could,age,city,zip,taste_a,taste_c";
        let records = ["b,1,0.5,a b,30,Oslo,0150,2,", "a,0.25,0.5,a b c,0,,7,,1"];
        let rows = rows(&columns, headers, &records).unwrap();
        let first = decision(&rows, records[0]);
        assert_eq!(first.outcome, Some(Outcome { action: 1, cost: -1.0, probability: 0.5 }));
        let of = |name: &str, value| Feature { hash: hash(name, hash("Context", 0)), value };
        assert_eq!(first.shared.space(b'C'), [of("age", 30.0), of("cityOslo", 1.0), of("zip0150", 1.0)]);
        assert_eq!(first.actions.len(), 2);
        assert_eq!(
            first.actions[0].space(b'P'),
            [Feature { hash: hash("taste_", hash("Pair", 0)), value: 2.0 }]
        );
        let second = decision(&rows, records[1]);
        assert_eq!((second.actions.len(), second.actions[2].space(b'P').len()), (3, 1));
        assert_eq!(second.shared.space(b'C'), [of("zip7", 1.0)]);
        assert_eq!(decision(&rows, "b,,0.5,a b,1,x,1,,").outcome, None);
    }

    #[test]
    fn the_open_bandit_dataset_is_known() {
        let headers =
            ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0";
        let records = ["0,2019-11-24,10,2,1,0.05,cef3,0.0", "1,2019-11-24,0,3,0,0.5,81ce,4.0"];
        let rows = rows(&Columns::default(), headers, &records).unwrap();
        assert_eq!((rows.places["0"], rows.places["10"]), (0, 1));
        let found = decision(&rows, records[1]);
        assert_eq!(found.outcome, Some(Outcome { action: 0, cost: 0.0, probability: 0.5 }));
        assert_eq!(found.shared.space(b'C').len(), 2);
        assert_eq!(found.actions[0].space(b'P').len(), 1);
    }

    proptest::proptest! {
        /// Against the reader of CSV itself: a line that is added is another record where no quote is open.
        #[test]
        fn quotes_are_those_of_csv(record in "[ab,\"]{0,12}") {
            let open = Cell::default().after(record.as_bytes()) == Cell::Quoted;
            let (first, rest) = record.split_at(record.len() / 2);
            proptest::prop_assert_eq!(Cell::default().after(first.as_bytes()).after(rest.as_bytes()), Cell::default().after(record.as_bytes()));
            let text = format!("z,{record}\ny");
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            proptest::prop_assert_eq!(open, reader.records().count() == 1, "{}", text);
        }

        #[test]
        fn nothing_panics(record in "[a-c0-9,\" .é\\-]{0,40}") {
            let rows = rows(&Columns::default(), "action,reward,propensity,x", &["a,1,0.5,3"]).unwrap();
            if let Ok(Line::Decision(decision)) = rows.parse(&record) {
                proptest::prop_assert_eq!(decision.actions.len(), 1);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let records = ["a,1,0.5,3"];
        let rows_of = |headers: &str| rows(&Columns::default(), headers, &records);
        assert!(rows_of("deed,reward,propensity,x").unwrap_err().to_string().contains("data.columns.action"));
        assert!(rows_of("action,won,propensity,x").unwrap_err().to_string().contains("data.columns.reward"));
        let rows = rows_of("action,reward,propensity,x").unwrap();
        #[track_caller]
        fn check(rows: &Rows, record: &str, what: &str, column: Option<usize>) {
            let flaw = rows.parse(record).unwrap_err();
            assert!(flaw.what.contains(what) && flaw.column == column, "{flaw:?}");
        }
        check(&rows, "a,1,0.5", "3 cells", None);
        check(&rows, "b,1,0.5,3", "`b` is no action", Some(1));
        check(&rows, "a,NaN,0.5,3", "`reward` is no number", Some(3));
        check(&rows, "a,1,0.5,inf", "no finite number", Some(9));
        check(&rows, "a,1,\"0.5", "a quote is not closed", None);
        check(&rows, "a,1,0.5,3\ra,1,0.5,4", "an end of a line", None);
        check(&rows, "a,1,,3", "no probability", None);
        check(&rows, ",1,0.5,3", "no action", None);
        assert_eq!(decision(&rows, ",,,3").outcome, None);
        assert_eq!(decision(&rows, "a,1,0.5,5\" pipe").shared.space(b'C').len(), 1);
    }
}
