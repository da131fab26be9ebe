//! What a configuration may hold: a tree of keys read from the JSON schema of a settings struct.

use serde_json::{Map, Value};

/// One key or section.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub name: String,
    pub doc: String,
    pub shape: Shape,
    /// May be left unset (`Option`).
    pub optional: bool,
    /// The schema's default; `Null` where there is none.
    pub default: Value,
}

/// What a key takes.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Section(Vec<Node>),
    Bool,
    Integer(Bounds),
    Number {
        bounds: Bounds,
        /// An `f32`: printed with the digits that an `f32` needs.
        single: bool,
    },
    Text,
    Choice(Vec<Choice>),
    List(Box<Shape>),
    /// Anything that serde accepts, e.g. an enum with fields; its variants as one would write them.
    Open(Vec<Choice>),
}

/// A value of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The text to write.
    pub name: String,
    /// What it means.
    pub doc: String,
}

/// An interval of numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bounds {
    min: Option<f64>,
    above: Option<f64>,
    max: Option<f64>,
    below: Option<f64>,
}

impl Bounds {
    pub fn contain(&self, x: f64) -> bool {
        self.min.is_none_or(|min| x >= min)
            && self.above.is_none_or(|above| x > above)
            && self.max.is_none_or(|max| x <= max)
            && self.below.is_none_or(|below| x < below)
    }

    /// `> 0 and <= 1`; empty if every number will do.
    pub fn describe(&self) -> String {
        let parts = [(">=", self.min), (">", self.above), ("<=", self.max), ("<", self.below)];
        let parts: Vec<_> =
            parts.iter().filter_map(|(sign, bound)| bound.map(|bound| format!("{sign} {bound}"))).collect();
        parts.join(" and ")
    }

    /// A number inside, to stand as an example.
    fn example(&self) -> f64 {
        [self.min, self.max, self.above.map(|x| x + 1.0), self.below.map(|x| x - 1.0), Some(0.0)]
            .into_iter()
            .flatten()
            .find(|&x| self.contain(x))
            .unwrap_or(0.0)
    }
}

impl Shape {
    /// What is expected, for error messages and docs.
    pub fn expected(&self) -> String {
        let with = |what: &str, range: String| {
            if range.is_empty() { what.to_owned() } else { format!("{what} {range}") }
        };
        match self {
            Shape::Section(_) => "a section of keys".into(),
            Shape::Bool => "true or false".into(),
            Shape::Integer(bounds) => with("an integer", bounds.describe()),
            Shape::Number { bounds, .. } => with("a number", bounds.describe()),
            Shape::Text => "text".into(),
            Shape::Choice(choices) => format!("one of {}", joined(choices)),
            Shape::List(item) => format!("a list, each item {}", item.expected()),
            Shape::Open(choices) if choices.is_empty() => "a value or a table".into(),
            Shape::Open(choices) => format!("one of {}", joined(choices)),
        }
    }

    /// The short name of the kind, for [`super::KeyDoc`].
    pub fn kind(&self) -> String {
        match self {
            Shape::Section(_) => "section".into(),
            Shape::Bool => "true or false".into(),
            Shape::Integer(_) => "integer".into(),
            Shape::Number { .. } => "number".into(),
            Shape::Text => "text".into(),
            Shape::Choice(_) => "choice".into(),
            Shape::List(item) => format!("list of {}", item.kind()),
            Shape::Open(_) => "value or table".into(),
        }
    }

    /// The valid values as text; empty if the kind says it all.
    pub fn range(&self) -> String {
        match self {
            Shape::Integer(bounds) | Shape::Number { bounds, .. } => bounds.describe(),
            Shape::Choice(choices) | Shape::Open(choices) => joined(choices),
            Shape::List(item) => item.range(),
            Shape::Section(_) | Shape::Bool | Shape::Text => String::new(),
        }
    }

    pub fn choices(&self) -> &[Choice] {
        match self {
            Shape::Choice(choices) | Shape::Open(choices) => choices,
            Shape::List(item) => item.choices(),
            _ => &[],
        }
    }

    /// A value to show for a key that is unset by default.
    pub fn example(&self) -> Value {
        match self {
            Shape::Section(_) => Value::Object(Map::new()),
            Shape::Bool => true.into(),
            Shape::Integer(bounds) => (bounds.example().ceil() as i64).into(),
            Shape::Number { bounds, .. } => bounds.example().into(),
            Shape::Text => "".into(),
            Shape::Choice(choices) | Shape::Open(choices) => {
                let plain = choices.iter().find(|choice| !choice.name.starts_with('{'));
                plain.map_or("", |choice| choice.name.as_str()).into()
            }
            Shape::List(_) => Value::Array(Vec::new()),
        }
    }
}

fn joined(choices: &[Choice]) -> String {
    choices.iter().map(|choice| choice.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The keys at the top of a settings struct.
pub(super) fn nodes(schema: &Value) -> Vec<Node> {
    let reader = Reader { definitions: schema.get("$defs").and_then(Value::as_object) };
    match reader.node("", schema, 0).shape {
        Shape::Section(nodes) => nodes,
        _ => Vec::new(),
    }
}

struct Reader<'a> {
    definitions: Option<&'a Map<String, Value>>,
}

impl<'a> Reader<'a> {
    /// `depth` ends the walk through a type that contains itself.
    fn node(&self, name: &str, schema: &'a Value, depth: usize) -> Node {
        let mut optional = false;
        let mut target = schema;
        let mut doc = text(schema, "description");
        // A reference, or an `Option` around one.
        for _ in 0..8 {
            let next = if let Some(reference) = target.get("$ref").and_then(Value::as_str) {
                reference.strip_prefix("#/$defs/").and_then(|key| self.definitions?.get(key))
            } else if let Some([one, null]) = target.get("anyOf").and_then(Value::as_array).map(Vec::as_slice)
                && is_null(null)
            {
                optional = true;
                Some(one)
            } else {
                None
            };
            let Some(next) = next else { break };
            target = next;
            if doc.is_empty() {
                doc = text(target, "description");
            }
        }
        let mut kind = target.get("type").and_then(Value::as_str);
        if let Some(kinds) = target.get("type").and_then(Value::as_array) {
            optional |= kinds.iter().any(|kind| kind == "null");
            let mut others = kinds.iter().filter_map(Value::as_str).filter(|&kind| kind != "null");
            kind = others.next().filter(|_| others.next().is_none());
        }
        let shape = if depth > 12 { Shape::Open(Vec::new()) } else { self.shape(target, kind, depth) };
        Node {
            name: name.to_owned(),
            doc,
            shape,
            optional,
            default: schema.get("default").cloned().unwrap_or_default(),
        }
    }

    fn shape(&self, schema: &'a Value, kind: Option<&str>, depth: usize) -> Shape {
        if let Some((choices, all)) = choices(schema) {
            return if all { Shape::Choice(choices) } else { Shape::Open(choices) };
        }
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let bounds = Bounds {
            min: bound("minimum"),
            above: bound("exclusiveMinimum"),
            max: bound("maximum"),
            below: bound("exclusiveMaximum"),
        };
        match kind {
            Some("boolean") => Shape::Bool,
            Some("integer") => Shape::Integer(bounds),
            Some("number") => {
                Shape::Number { bounds, single: schema.get("format").is_some_and(|format| format == "float") }
            }
            Some("string") => Shape::Text,
            Some("array") => match schema.get("items") {
                Some(items) => Shape::List(Box::new(self.node("", items, depth + 1).shape)),
                None => Shape::Open(Vec::new()),
            },
            Some("object") => match schema.get("properties").and_then(Value::as_object) {
                Some(properties) => {
                    Shape::Section(properties.iter().map(|(name, s)| self.node(name, s, depth + 1)).collect())
                }
                None => Shape::Open(Vec::new()),
            },
            _ => Shape::Open(Vec::new()),
        }
    }
}

/// The plain names of an enum, and whether there is nothing else in it. `None`: not an enum.
fn choices(schema: &Value) -> Option<(Vec<Choice>, bool)> {
    let named = |values: &Value| -> Vec<Choice> {
        let names = values.as_array().into_iter().flatten().filter_map(Value::as_str);
        names.map(|name| Choice { name: name.into(), doc: String::new() }).collect()
    };
    if let Some(values) = schema.get("enum") {
        return Some((named(values), true));
    }
    let branches = schema.get("oneOf").or_else(|| schema.get("anyOf"))?.as_array()?;
    let mut found = Vec::new();
    let mut all = true;
    for branch in branches {
        if let Some(name) = branch.get("const").and_then(Value::as_str) {
            found.push(Choice { name: name.into(), doc: text(branch, "description") });
        } else if let Some(values) = branch.get("enum") {
            found.extend(named(values));
        } else if !is_null(branch) {
            all = false;
            if branch.get("properties").is_some() {
                found.push(Choice { name: sketch(branch), doc: text(branch, "description") });
            }
        }
    }
    Some((found, all))
}

/// A variant with fields as one would write it: `{ skip = { cap = .. } }`, `{ kind = "math", .. }`.
fn sketch(schema: &Value) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return schema.get("const").map_or("..".into(), Value::to_string);
    };
    let fields: Vec<_> =
        properties.iter().map(|(name, schema)| format!("{name} = {}", sketch(schema))).collect();
    format!("{{ {} }}", fields.join(", "))
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "null")
}

fn text(schema: &Value, key: &str) -> String {
    schema.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
