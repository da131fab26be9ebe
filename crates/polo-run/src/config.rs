//! Layered configuration: file < environment < command line.
//!
//! A settings struct derives serde's traits and `JsonSchema`; sections are nested structs. From its schema come the
//! valid keys, their docs and ranges, so that a typo is answered with the place, the valid values and the nearest key,
//! and `polo config` and `polo explain` need no second description. The program calls [`load`] once and hands the
//! settings down; nothing below reads files or the environment.

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::{Problem, Result};

mod schema;
mod write;

pub use schema::Choice;
use schema::{Node, Shape};
use write::Style;

/// A struct of settings. Derive the traits named here, with `#[serde(default, deny_unknown_fields)]` on the struct and
/// on its sections; `#[schemars(range(min = .., max = ..))]` or `#[schemars(extend("exclusiveMinimum" = 0))]` give
/// ranges, which [`load`] enforces. Optional keys default to `None`: TOML cannot say "unset".
pub trait Settings: Serialize + DeserializeOwned + JsonSchema + Default + Clone {
    /// Checks what a range of one key cannot say.
    ///
    /// # Errors
    /// A problem of [`crate::Kind::Usage`]. If its place is a dotted key, [`load`] points at where that key was given.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Where settings come from; later fields win.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables such as (`POLO_MODEL__WIDTH`, `64`) for the key `model.width`; see [`Layers::environment_from`].
    pub environment: Vec<(String, String)>,
    /// (dotted key, text of the value, the flag as typed, e.g. `--model`).
    pub flags: Vec<(String, String, String)>,
    /// `--set` arguments: `model.width=64`.
    pub sets: Vec<String>,
}

impl Layers {
    /// The variables that name settings: `POLO_A__B` is the key `a.b`. `reserved` lists `POLO_` variables with another
    /// meaning. Takes both `std::env::vars()` and `std::env::vars_os()`; the latter does not panic on odd bytes.
    pub fn environment_from<T: Into<OsString>>(
        variables: impl IntoIterator<Item = (T, T)>,
        reserved: &[&str],
    ) -> Vec<(String, String)> {
        let text = |os: T| os.into().to_string_lossy().into_owned();
        let mut found: Vec<_> = variables
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| name.starts_with("POLO_") && !reserved.contains(&name.as_str()))
            .collect();
        found.sort();
        found
    }
}

/// Settings, and the texts that a run folder keeps.
#[derive(Clone, Debug)]
pub struct Loaded<S> {
    /// The settings, within their ranges and checked.
    pub settings: S,
    /// The file as it was given; empty without a file.
    pub given: String,
    /// Every key that has a value, as TOML.
    pub resolved: String,
}

/// One key, for the docs of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// Dotted.
    pub key: String,
    /// The doc comment of its field.
    pub doc: String,
    /// `integer`, `number`, `text`, `choice`, `true or false`, `list of ...`, `value or table`.
    pub kind: String,
    /// As TOML; `None` if unset.
    pub default: Option<String>,
    /// Valid numbers (`> 0 and <= 1`) or choices (`a, b`); empty if the kind says it all.
    pub range: String,
    /// The choices with their meaning.
    pub choices: Vec<Choice>,
}

/// Reads and checks all layers.
///
/// # Errors
/// [`crate::Kind::Usage`] for unknown keys and bad values, with the place and the nearest valid key or the valid values;
/// what [`Problem::io`] says of an unreadable file; what [`Settings::check`] finds.
pub fn load<S: Settings>(layers: &Layers) -> Result<Loaded<S>> {
    let tree = Tree(nodes::<S>());
    let file = layers.file.as_deref().map(|path| Ok(Document { path, text: read(path)? })).transpose()?;
    let mut given = Vec::new();
    if let Some(document) = &file {
        tree.read_document(document, &mut given)?;
    }
    for (name, value) in &layers.environment {
        let key = name.strip_prefix("POLO_").unwrap_or(name).to_lowercase().replace("__", ".");
        tree.read_word(&key, value, Place::Word(name.clone()), &mut given)?;
    }
    for (key, value, flag) in &layers.flags {
        tree.read_word(key, value, Place::Word(flag.clone()), &mut given)?;
    }
    for set in &layers.sets {
        let place = Place::Word(format!("--set {set}"));
        let Some((key, value)) = set.split_once('=') else {
            return Err(place
                .problem("`--set` takes KEY=VALUE", "")
                .hint("e.g. --set training.learning_rate=1e-5"));
        };
        tree.read_word(key.trim(), value.trim(), place, &mut given)?;
    }

    let defaults = to_value(&S::default())?;
    let mut values = defaults.clone();
    for one in &given {
        set(&mut values, &one.path, one.value.clone());
    }
    let settings: S =
        serde_json::from_value(values).map_err(|error| blame::<S>(&defaults, &given, &error))?;
    settings.check().map_err(|problem| {
        let at = problem.place_text().and_then(|key| given.iter().rev().find(|one| one.key() == key));
        match at {
            Some(one) => one.place.put(problem, "given here"),
            None => problem,
        }
    })?;
    let resolved = write::document(&tree.0, &to_value(&settings)?, Style::Plain);
    Ok(Loaded { settings, given: file.map(|document| document.text).unwrap_or_default(), resolved })
}

/// All keys with docs, ranges and defaults, as TOML that loads to the default.
pub fn commented_default<S: Settings>() -> String {
    write::document(&nodes::<S>(), &to_value(&S::default()).unwrap_or_default(), Style::Commented)
}

/// All keys, in the order of their fields.
pub fn keys<S: Settings>() -> Vec<KeyDoc> {
    fn walk(nodes: &[Node], prefix: &str, values: &Value, out: &mut Vec<KeyDoc>) {
        for node in nodes {
            let key = format!("{prefix}{}", node.name);
            let value = values.get(&node.name).unwrap_or(&Value::Null);
            if let Shape::Section(inner) = &node.shape {
                let value = if value.is_null() { &write::defaults(inner) } else { value };
                walk(inner, &format!("{key}."), value, out);
            } else {
                out.push(KeyDoc {
                    key,
                    doc: node.doc.clone(),
                    kind: node.shape.kind(),
                    default: (!value.is_null()).then(|| write::inline(&node.shape, value)),
                    range: node.shape.range(),
                    choices: node.shape.choices().to_vec(),
                });
            }
        }
    }
    let mut out = Vec::new();
    walk(&nodes::<S>(), "", &to_value(&S::default()).unwrap_or_default(), &mut out);
    out
}

fn nodes<S: Settings>() -> Vec<Node> {
    schema::nodes(schemars::schema_for!(S).as_value())
}

fn to_value(settings: &impl Serialize) -> Result<Value> {
    // Only a settings struct that serde cannot write gets here.
    serde_json::to_value(settings)
        .map_err(|error| Problem::usage(format!("settings cannot be written: {error}")))
}

/// A configuration file in memory.
struct Document<'a> {
    path: &'a Path,
    text: String,
}

fn read(path: &Path) -> Result<String> {
    const LIMIT: u64 = 1 << 20;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| Problem::io("read the configuration", path, &error))?;
    if bytes.len() as u64 > LIMIT {
        return Err(Problem::usage(format!("the configuration {} is larger than 1 MiB", path.display()))
            .hint("is it a data file? data is given with its own flag"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        Problem::usage("the configuration is not UTF-8 text").at(path, line, None).hint("save it as UTF-8")
    })
}

/// Where a value was given.
#[derive(Clone)]
enum Place<'a> {
    Span(&'a Document<'a>, Range<usize>),
    /// A flag or an environment variable.
    Word(String),
}

impl Place<'_> {
    fn problem(&self, message: impl Into<String>, label: &str) -> Problem {
        self.put(Problem::usage(message), label)
    }

    fn put(&self, problem: Problem, label: &str) -> Problem {
        match self {
            Place::Word(word) => problem.place(word),
            Place::Span(document, span) => {
                // Spans come from the parser; a wrong one must not panic in the middle of an error.
                let before = document.text.get(..span.start).unwrap_or_default();
                let line = 1 + before.matches('\n').count();
                let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
                let name = document.path.display().to_string();
                problem.at(document.path, line, Some(column)).in_text(
                    name,
                    &*document.text,
                    span.clone(),
                    label,
                )
            }
        }
    }

    /// The place of a part of this place's value.
    fn part(&self, span: Range<usize>) -> Self {
        match self {
            Place::Span(document, _) => Place::Span(document, span),
            Place::Word(word) => Place::Word(word.clone()),
        }
    }
}

/// One value that a layer gave.
struct Given<'a> {
    path: Vec<String>,
    value: Value,
    place: Place<'a>,
}

impl Given<'_> {
    fn key(&self) -> String {
        self.path.join(".")
    }
}

/// The valid keys.
struct Tree(Vec<Node>);

impl Tree {
    fn read_document<'a>(&self, document: &'a Document<'a>, out: &mut Vec<Given<'a>>) -> Result<()> {
        let table = DeTable::parse(&document.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            Place::Span(document, span)
                .problem(format!("this is not TOML: {}", error.message().replace('\n', ", ")), "here")
                .hint("`key = value` lines under [section] headers; text stands in \"quotes\"")
        })?;
        self.section(&self.0, &[], table.get_ref(), &Place::Span(document, 0..0), out)
    }

    fn read_word<'a>(&self, key: &str, text: &str, place: Place<'a>, out: &mut Vec<Given<'a>>) -> Result<()> {
        const ANY: &Shape = &Shape::Open(Vec::new());
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let (mut nodes, mut shape) = (Some(&self.0), ANY);
        for name in &path {
            // Below a value that may be a table every name is left to serde.
            let Some(among) = nodes else { break };
            let Some(node) = among.iter().find(|node| node.name == *name) else {
                return Err(self.unknown(key, &place));
            };
            (nodes, shape) = match &node.shape {
                Shape::Section(inner) => (Some(inner), &node.shape),
                Shape::Open(_) => (None, if path.last() == Some(name) { &node.shape } else { ANY }),
                // A leaf has nothing below it: the next name, if any, is unknown.
                _ => (Some(NOTHING), &node.shape),
            };
        }
        self.value(shape, &path, &parsed(shape, text), &place, out)
    }

    fn section<'a>(
        &self,
        nodes: &[Node],
        path: &[String],
        table: &DeTable<'_>,
        place: &Place<'a>,
        out: &mut Vec<Given<'a>>,
    ) -> Result<()> {
        let mut entries: Vec<_> = table.iter().collect();
        // In the order of the file, so that the first error is reported.
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let path: Vec<String> =
                path.iter().map(String::as_str).chain([name]).map(str::to_owned).collect();
            let Some(node) = nodes.iter().find(|node| node.name == name) else {
                return Err(self.unknown(&path.join("."), &place.part(key.span())));
            };
            self.value(&node.shape, &path, value, place, out)?;
        }
        Ok(())
    }

    fn value<'a>(
        &self,
        shape: &Shape,
        path: &[String],
        value: &Spanned<DeValue<'_>>,
        place: &Place<'a>,
        out: &mut Vec<Given<'a>>,
    ) -> Result<()> {
        let place = place.part(value.span());
        let path = path.to_vec();
        if let (Shape::Section(nodes), DeValue::Table(table)) = (shape, value.get_ref()) {
            // An empty section still says that an optional section is wanted.
            out.push(Given { path: path.clone(), value: Value::Object(Map::new()), place: place.clone() });
            return self.section(nodes, &path, table, &place, out);
        }
        let value = converted(shape, &path.join("."), value, &place)?;
        out.push(Given { path, value, place });
        Ok(())
    }

    fn unknown(&self, key: &str, place: &Place<'_>) -> Problem {
        let mut keys = Vec::new();
        collect_keys(&self.0, "", &mut keys);
        let problem = place.problem(format!("unknown key `{key}`"), "no such key");
        match nearest(key, keys.iter().map(String::as_str)) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => {
                // The section of the key, if that much is right.
                let section =
                    key.split_once('.').and_then(|(name, _)| self.0.iter().find(|node| node.name == name));
                let (place, nodes) = match section.map(|node| (&node.name, &node.shape)) {
                    Some((name, Shape::Section(nodes))) => (format!("in `{name}`"), nodes),
                    _ => ("at the top".into(), &self.0),
                };
                let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
                problem.hint(format!("the keys {place} are: {}", names.join(", ")))
            }
        }
    }
}

const NOTHING: &Vec<Node> = &Vec::new();

fn collect_keys(nodes: &[Node], prefix: &str, out: &mut Vec<String>) {
    for node in nodes {
        let key = format!("{prefix}{}", node.name);
        if let Shape::Section(inner) = &node.shape {
            collect_keys(inner, &format!("{key}."), out);
        }
        out.push(key);
    }
}

/// The most similar candidate, if any is similar. The right name in the wrong section counts as near, and so do
/// initials, such as `lr` for `learning_rate`.
fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let leaf = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let initials = |leaf: &str| leaf.split('_').filter_map(|word| word.chars().next()).collect::<String>();
    let score = |candidate: &str| {
        let whole = strsim::normalized_damerau_levenshtein(wanted, candidate);
        let (short, long) = (leaf(wanted), leaf(candidate));
        let by_leaf = strsim::normalized_damerau_levenshtein(&short, &long);
        let by_initials = if short.len() > 1 && short == initials(&long) { 0.9 } else { 0.0 };
        whole.max(0.95 * by_leaf).max(by_initials)
    };
    let scored = candidates.map(|candidate| (score(candidate), candidate));
    scored
        .filter(|(score, _)| *score > 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The text of a flag or variable as a TOML value. Where text is wanted, quotes are optional; lists may be `a,b`.
fn parsed<'i>(shape: &Shape, text: &'i str) -> Spanned<DeValue<'i>> {
    let plain = || Spanned::new(0..text.len(), DeValue::String(text.into()));
    let toml = DeValue::parse(text).ok();
    match shape {
        Shape::Text | Shape::Choice(_) => toml.filter(|value| value.get_ref().is_str()).unwrap_or_else(plain),
        Shape::List(item) if !toml.as_ref().is_some_and(|value| value.get_ref().is_array()) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items: DeArray<'i> = items.map(|part| parsed(item, part)).collect();
            Spanned::new(0..text.len(), DeValue::Array(items))
        }
        _ => toml.unwrap_or_else(plain),
    }
}

/// A TOML value as JSON, if it fits the shape.
fn converted(shape: &Shape, key: &str, value: &Spanned<DeValue<'_>>, place: &Place<'_>) -> Result<Value> {
    let place = place.part(value.span());
    let wrong = || {
        let kind = match value.get_ref() {
            DeValue::String(text) => format!("the text \"{}\"", shortened(text)),
            DeValue::Integer(number) => format!("the integer {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(_) => "a date".into(),
            DeValue::Array(_) => "a list".into(),
            DeValue::Table(_) => "a table".into(),
        };
        place.problem(
            format!("`{key}` takes {}, not {kind}", shape.expected()),
            &format!("not {}", shape.expected()),
        )
    };
    match (shape, value.get_ref()) {
        (Shape::Bool, DeValue::Boolean(value)) => Ok((*value).into()),
        (Shape::Integer(bounds), DeValue::Integer(number)) => {
            // TOML's integers end where `i64` does; other readers of a run's files must be able to read them.
            match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) if bounds.contain(value as f64) => Ok(value.into()),
                Ok(_) => Err(wrong()),
                Err(_) => Err(wrong().hint(format!("integers reach from {} to {}", i64::MIN, i64::MAX))),
            }
        }
        (Shape::Number { bounds, .. }, DeValue::Integer(_) | DeValue::Float(_)) => {
            match number(value.get_ref()) {
                Some(x) if x.is_finite() && bounds.contain(x) => Ok(x.into()),
                Some(x) if !x.is_finite() => Err(wrong().hint("a setting must be a finite number")),
                _ => Err(wrong()),
            }
        }
        (Shape::Text, DeValue::String(text)) => Ok(text.as_ref().into()),
        (Shape::Choice(choices), DeValue::String(text)) => {
            let names = || choices.iter().map(|choice| choice.name.as_str());
            if names().any(|name| name == text) {
                return Ok(text.as_ref().into());
            }
            Err(match nearest(text, names()) {
                Some(near) => wrong().hint(format!("did you mean `{near}`?")),
                None => wrong(),
            })
        }
        (Shape::List(item), DeValue::Array(items)) => items
            .iter()
            .map(|value| converted(item, key, value, &place))
            .collect::<Result<_>>()
            .map(Value::Array),
        (Shape::Section(_), value @ DeValue::Table(_)) | (Shape::Open(_), value) => Ok(any(value)),
        _ => Err(wrong()),
    }
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) => Some(i128::from_str_radix(number.as_str(), number.radix()).ok()? as f64),
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

/// A value whose shape only serde knows.
fn any(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => integer.into(),
            Err(_) => number(value).into(),
        },
        DeValue::Float(_) => number(value).into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| any(item.get_ref())).collect(),
        DeValue::Table(table) => Value::Object(
            table.iter().map(|(key, value)| (key.get_ref().to_string(), any(value.get_ref()))).collect(),
        ),
    }
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    if text.chars().count() <= SHOWN {
        text.into()
    } else {
        text.chars().take(SHOWN).chain(['…']).collect()
    }
}

/// Puts `value` at `path`. An empty section does not wipe out what is there.
fn set(tree: &mut Value, path: &[String], value: Value) {
    let Some((name, rest)) = path.split_first() else {
        let empty_section = value.as_object().is_some_and(Map::is_empty);
        if !(empty_section && tree.is_object()) {
            *tree = value;
        }
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Some(map) = tree.as_object_mut() {
        set(map.entry(name).or_insert(Value::Null), rest, value);
    }
}

/// What serde refused, at the first place that alone is enough for a refusal.
fn blame<S: Settings>(defaults: &Value, given: &[Given<'_>], error: &serde_json::Error) -> Problem {
    for one in given {
        let mut values = defaults.clone();
        set(&mut values, &one.path, one.value.clone());
        if let Err(error) = serde_json::from_value::<S>(values) {
            return one.place.problem(format!("`{}` cannot be used: {error}", one.key()), "given here");
        }
    }
    Problem::usage(format!("these settings do not go together: {error}"))
}
