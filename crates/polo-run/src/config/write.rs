//! Settings as TOML: the resolved file of a run, and the commented default that people start from.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema::{Node, Shape};

/// How keys are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Values only; keys that are unset are left out.
    Plain,
    /// With docs, ranges and defaults; keys that are unset are commented out.
    Commented,
}

/// All of `values` as a TOML document.
pub(super) fn document(nodes: &[Node], values: &Value, style: Style) -> String {
    let mut out = String::new();
    section(&mut out, "", nodes, values, style, false);
    out.trim_start_matches('\n').to_owned()
}

/// Keys first, then subsections: a key after a `[header]` would belong to it. `off`: the section itself is unset.
fn section(out: &mut String, path: &str, nodes: &[Node], values: &Value, style: Style, off: bool) {
    for node in nodes {
        let value = values.get(&node.name).unwrap_or(&Value::Null);
        if matches!(node.shape, Shape::Section(_)) || (value.is_null() && style == Style::Plain) {
            continue;
        }
        if style == Style::Commented {
            out.push('\n');
            comment(out, node, value);
        }
        let (mark, shown) = match value {
            Value::Null => ("#", inline(&node.shape, &node.shape.example())),
            value => (if off { "#" } else { "" }, inline(&node.shape, value)),
        };
        line(out, format_args!("{mark}{} = {shown}", key(&node.name)));
    }
    for node in nodes {
        let Shape::Section(inner) = &node.shape else { continue };
        let path = if path.is_empty() { key(&node.name) } else { format!("{path}.{}", key(&node.name)) };
        match values.get(&node.name) {
            Some(value) if !value.is_null() => {
                header(out, &path, node, style, off);
                section(out, &path, inner, value, style, off);
            }
            _ if style == Style::Commented => {
                header(out, &path, node, style, true);
                section(out, &path, inner, &defaults(inner), style, true);
            }
            _ => {}
        }
    }
}

fn header(out: &mut String, path: &str, node: &Node, style: Style, off: bool) {
    out.push('\n');
    if style == Style::Commented {
        out.push('\n');
        lines(out, &node.doc);
        if off && node.optional {
            lines(out, "Left out by default.");
        }
    }
    line(out, format_args!("{}[{path}]", if off { "#" } else { "" }));
}

fn comment(out: &mut String, node: &Node, default: &Value) {
    lines(out, &node.doc);
    for choice in node.shape.choices().iter().filter(|choice| !choice.doc.is_empty()) {
        lines(out, &format!("- {}: {}", choice.name, choice.doc.replace('\n', " ")));
    }
    let range = node.shape.range();
    let mut facts = node.shape.kind();
    if !range.is_empty() {
        facts += &format!(": {range}");
    }
    let default = if default.is_null() { "unset".into() } else { inline(&node.shape, default) };
    lines(out, &format!("({facts}; default {default})"));
}

fn lines(out: &mut String, text: &str) {
    for text in text.lines() {
        line(out, format_args!("{}", format!("# {text}").trim_end()));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(out, "{text}").ok();
}

/// The defaults that the schema knows, for a section that is unset as a whole.
pub(super) fn defaults(nodes: &[Node]) -> Value {
    let default = |node: &Node| match &node.shape {
        Shape::Section(inner) if node.default.is_null() && !node.optional => defaults(inner),
        _ => node.default.clone(),
    };
    Value::Object(nodes.iter().map(|node| (node.name.clone(), default(node))).collect::<Map<_, _>>())
}

/// A value on the right of `=`.
pub(super) fn inline(shape: &Shape, value: &Value) -> String {
    match (shape, value) {
        (Shape::Number { single: true, .. }, Value::Number(number)) => {
            format!("{:?}", number.as_f64().unwrap_or_default() as f32)
        }
        (_, Value::Number(number)) if number.is_f64() => format!("{:?}", number.as_f64().unwrap_or_default()),
        (Shape::List(item), Value::Array(items)) => list(items, item),
        (_, Value::Array(items)) => list(items, shape),
        (Shape::Section(nodes), Value::Object(map)) => {
            let inner = |name: &str| nodes.iter().find(|node| node.name == name).map(|node| &node.shape);
            table(map, |name| inner(name).unwrap_or(shape))
        }
        (_, Value::Object(map)) => table(map, |_| shape),
        (_, Value::String(text)) => quoted(text),
        (_, Value::Null | Value::Bool(_) | Value::Number(_)) => value.to_string(),
    }
}

fn list(items: &[Value], shape: &Shape) -> String {
    format!("[{}]", items.iter().map(|item| inline(shape, item)).collect::<Vec<_>>().join(", "))
}

fn table<'a>(map: &Map<String, Value>, shape: impl Fn(&str) -> &'a Shape) -> String {
    let entries: Vec<_> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{} = {}", key(name), inline(shape(name), value)))
        .collect();
    if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A basic string on one line: unlike the multi-line form it can also stand as a key and in a comment.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            c if c.is_control() => {
                write!(out, "\\u{:04X}", u32::from(c)).ok();
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
