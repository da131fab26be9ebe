//! `polo explain METHOD`: what a newcomer must know before using a method.

use polo_run::{card, config::KeyDoc};

use crate::{
    output::{End, Output},
    registry,
};

/// Explain a method: objective, symbols, settings, metrics, signs of failure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A method of `polo methods`.
    method: String,
}

/// Prints the explanation.
///
/// # Errors
/// [`polo_run::Kind::Usage`] for an unknown method.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let method = registry::find(&args.method)?;
    let keys: Vec<_> = (method.keys)().into_iter().map(Line::from).collect();
    let lines: Vec<_> = keys.iter().map(Line::borrowed).collect();
    output.write(&card::explain(method.card, &lines))
}

/// One setting, as words.
struct Line {
    key: String,
    default: String,
    range: String,
    doc: String,
}

impl From<KeyDoc> for Line {
    fn from(doc: KeyDoc) -> Self {
        let choices: Vec<_> = (doc.choices.iter().filter(|choice| !choice.doc.is_empty()))
            .map(|choice| format!("{}: {}", choice.name, choice.doc))
            .collect();
        Self {
            default: doc.default.unwrap_or_else(|| "unset".into()),
            range: if doc.range.is_empty() { doc.kind } else { doc.range },
            doc: [doc.doc, choices.join(" ")].join(" "),
            key: doc.key,
        }
    }
}

impl Line {
    fn borrowed(&self) -> card::KeyLine<'_> {
        (&self.key, &self.default, &self.range, &self.doc)
    }
}
