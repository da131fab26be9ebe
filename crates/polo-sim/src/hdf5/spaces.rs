//! Spaces as Minari serialises them, and how their parts lie in a file and in a vector.
//!
//! Composed spaces become one vector as by Gymnasium's `flatten`: the parts of a `Dict` or `Tuple` one after the other
//! in the order of the space, a choice among n inside of one as n numbers of which one is 1.

use hdf5_metno::Group;
use polo_run::{Problem, Result};
use serde_json::{Value, json};

use super::column_of;
use crate::space::Space;

/// Where the parts of a space lie in an episode.
pub(super) struct Layout {
    parts: Vec<Part>,
    /// Whether the space is one box or one choice, and no composition.
    pub(super) plain: bool,
}

/// One array of an episode.
struct Part {
    path: String,
    kind: Kind,
}

enum Kind {
    Numbers {
        low: Vec<f32>,
        high: Vec<f32>,
    },
    /// Least choice and number of choices, for each number in a row.
    Choices(Vec<(i64, usize)>),
}

/// JSON as Python writes it, with `NaN`, `Infinity` and `-Infinity`; they are read as texts.
pub(super) fn python_json(text: &str) -> serde_json::Result<Value> {
    let mut plain = String::with_capacity(text.len());
    let (mut rest, mut quoted, mut escaped) = (text, false, false);
    while let Some(c) = rest.chars().next() {
        let word =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !quoted && rest.starts_with(word));
        let taken = match word {
            Some(word) => {
                plain.extend(["\"", word, "\""]);
                word.len()
            }
            None => {
                plain.push(c);
                c.len_utf8()
            }
        };
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        rest = &rest[taken..];
    }
    serde_json::from_str(&plain)
}

/// Reads the text of the space that lies at `name`. `jpeg`: whether images are stored as JPEGs.
pub(super) fn layout(text: &str, name: &str, jpeg: bool) -> Result<Layout> {
    let space = python_json(text).map_err(|error| wrong(format!("not a space: {error}")))?;
    let mut parts = Vec::new();
    add(&space, name.to_owned(), jpeg, &mut parts)?;
    let plain = matches!(space["type"].as_str(), Some("Box" | "Discrete"));
    Ok(Layout { parts, plain })
}

fn wrong(what: String) -> Problem {
    Problem::input(what).hint("the folder is not written by Minari's rules")
}

/// Adds the parts of a space that lies at `path`.
fn add(space: &Value, path: String, jpeg: bool, parts: &mut Vec<Part>) -> Result<()> {
    let missing = |what: &str| wrong(format!("the space of `{path}` has no `{what}`"));
    let kind = match space["type"].as_str().ok_or_else(|| missing("type"))? {
        "Box" => {
            let low = numbers(&space["low"]).ok_or_else(|| missing("low"))?;
            let high = numbers(&space["high"]).ok_or_else(|| missing("high"))?;
            if low.len() != high.len() || low.is_empty() {
                return Err(wrong(format!("the bounds of the space of `{path}` are not of one size")));
            }
            let large = |side: &Value| side.as_u64().is_some_and(|side| side >= 32);
            let image = matches!(space["shape"].as_array().map(Vec::as_slice), Some([a, b] | [a, b, _]) if large(a) && large(b))
                && space["dtype"] == "uint8"
                && low.iter().all(|&bound| bound == 0.0)
                && high.iter().all(|&bound| bound == 255.0);
            if image && jpeg {
                return Err(Problem::input(format!("`{path}` holds images as JPEGs, which are not read"))
                    .hint("collect the dataset with DataCollector(..., jpeg_encoding=False)"));
            }
            Kind::Numbers { low, high }
        }
        "Discrete" => {
            let n = space["n"].as_u64().filter(|&n| n > 0).ok_or_else(|| missing("n"))?;
            Kind::Choices(vec![(space["start"].as_i64().unwrap_or(0), n as usize)])
        }
        "MultiDiscrete" => {
            let sizes = numbers(&space["nvec"]).ok_or_else(|| missing("nvec"))?;
            let starts = numbers(&space["start"]).unwrap_or_default();
            let choice =
                |(i, &n): (usize, &f32)| (starts.get(i).map_or(0, |&start| start as i64), n as usize);
            Kind::Choices(sizes.iter().enumerate().map(choice).collect())
        }
        "MultiBinary" => {
            let sizes = numbers(&space["n"]).ok_or_else(|| missing("n"))?;
            let size = sizes.iter().product::<f32>().clamp(1.0, 1e6) as usize;
            Kind::Numbers { low: vec![0.0; size], high: vec![1.0; size] }
        }
        "Dict" => {
            for (key, part) in space["subspaces"].as_object().ok_or_else(|| missing("subspaces"))? {
                add(part, format!("{path}/{key}"), jpeg, parts)?;
            }
            return Ok(());
        }
        "Tuple" => {
            for (i, part) in
                space["subspaces"].as_array().ok_or_else(|| missing("subspaces"))?.iter().enumerate()
            {
                add(part, format!("{path}/_index_{i}"), jpeg, parts)?;
            }
            return Ok(());
        }
        other => {
            return Err(Problem::input(format!("`{path}` is of a space {other}, which is not read"))
                .hint("collect the dataset with an environment that shows numbers or choices"));
        }
    };
    parts.push(Part { path, kind });
    Ok(())
}

/// The numbers of nested lists, or one.
fn numbers(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Array(values) => {
            values.iter().try_fold(Vec::new(), |all, value| Some([all, numbers(value)?].concat()))
        }
        Value::Number(number) => Some(vec![number.as_f64()? as f32]),
        Value::Bool(yes) => Some(vec![f32::from(u8::from(*yes))]),
        Value::String(word) => word.parse().ok().map(|number| vec![number]),
        _ => None,
    }
}

impl Layout {
    /// The space of the vectors that [`Layout::read`] gives.
    ///
    /// # Errors
    /// More numbers than a vector can have.
    pub(super) fn space(&self) -> Result<Space> {
        if let (true, [Part { kind: Kind::Choices(choices), .. }]) = (self.plain, &self.parts[..]) {
            return Ok(Space::Discrete(choices[0].1));
        }
        let (mut all_low, mut all_high) = (Vec::new(), Vec::new());
        for part in &self.parts {
            match &part.kind {
                Kind::Numbers { low, high } => {
                    all_low.extend_from_slice(low);
                    all_high.extend_from_slice(high);
                }
                Kind::Choices(choices) => {
                    let size: usize = choices.iter().map(|&(_, n)| n).sum();
                    if size > 1 << 20 {
                        return Err(Problem::input(format!("`{}` is a choice among {size}", part.path))
                            .hint("choices inside of other spaces become as many numbers; a million are allowed"));
                    }
                    all_low.resize(all_low.len() + size, 0.0);
                    all_high.resize(all_high.len() + size, 1.0);
                }
            }
        }
        if all_low.is_empty() {
            return Err(wrong("a space without parts".into()));
        }
        Ok(Space::Box { low: all_low, high: all_high })
    }

    /// The vectors of `rows` steps of an episode, `[rows, width of the space]`.
    pub(super) fn read(&self, episode: &Group, place: &str, rows: usize) -> Result<Vec<f32>> {
        let mut parts = Vec::with_capacity(self.parts.len());
        for Part { path, kind } in &self.parts {
            let column = column_of(episode, place, path, rows)?;
            let wanted = match kind {
                Kind::Numbers { low, .. } => low.len(),
                Kind::Choices(choices) => choices.len(),
            };
            if column.size != wanted {
                let found = column.size;
                return Err(wrong(format!(
                    "`{place}{path}` has {found} numbers in a row, and its space {wanted}"
                )));
            }
            parts.push(match kind {
                Kind::Numbers { .. } => (wanted, column.values),
                Kind::Choices(choices) => self.choices(choices, &column.values, &format!("{place}{path}"))?,
            });
        }
        if let [(_, values)] = &mut parts[..] {
            return Ok(std::mem::take(values));
        }
        let row =
            |row: usize| parts.iter().flat_map(move |(size, values)| &values[row * size..][..*size]).copied();
        Ok((0..rows).flat_map(row).collect())
    }

    /// Choices from 0, or what stands for them in a vector; and how many numbers a row of them is.
    fn choices(&self, choices: &[(i64, usize)], values: &[f32], label: &str) -> Result<(usize, Vec<f32>)> {
        let size = if self.plain { 1 } else { choices.iter().map(|&(_, n)| n).sum() };
        let mut all = Vec::with_capacity(values.len() / choices.len().max(1) * size);
        for (place, (&value, &(start, n))) in values.iter().zip(choices.iter().cycle()).enumerate() {
            let choice = value - start as f32;
            if choice.fract() != 0.0 || !(0.0..n as f32).contains(&choice) {
                let (row, last) = (place / choices.len(), start + n as i64 - 1);
                return Err(Problem::input(format!(
                    "{label}[{row}] is {value}, not one of {start} to {last}"
                ))
                .hint("the dataset is of another environment than it says"));
            }
            match self.plain {
                true => all.push(choice),
                false => all.extend((0..n).map(|i| f32::from(u8::from(i == choice as usize)))),
            }
        }
        Ok((size, all))
    }
}

/// The text that Minari reads a space from.
pub(super) fn serialise(space: &Space) -> String {
    match space {
        Space::Discrete(n) => json!({"type": "Discrete", "dtype": "int64", "start": 0, "n": n}).to_string(),
        Space::Box { low, high } => {
            let list = |bounds: &[f32]| {
                let words: Vec<String> = bounds.iter().map(|bound| python_number(*bound)).collect();
                words.join(", ")
            };
            let (size, low, high) = (low.len(), list(low), list(high));
            format!(
                r#"{{"type": "Box", "dtype": "float32", "shape": [{size}], "low": [{low}], "high": [{high}]}}"#
            )
        }
    }
}

fn python_number(number: f32) -> String {
    match number {
        f32::INFINITY => "Infinity".into(),
        f32::NEG_INFINITY => "-Infinity".into(),
        number => format!("{number:?}"),
    }
}
