//! Errors for people: what was wrong, where, and what to do about it.
//!
//! Every fallible function of polo that touches the user's input returns [`Result`]. A [`Problem`] says in one
//! sentence what was wrong, points at the place (a span in a text that was read, or `file:line:column`), and
//! carries a hint. Its [`Kind`] decides the exit code of the program.

use std::{fmt, io, path::Path};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode, SourceSpan};

/// What every fallible function of polo returns.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// The class of a problem; it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or a configuration is wrong (exit code 2).
    Usage,
    /// A data file, model folder or checkpoint cannot be used (exit code 3).
    Input,
    /// The machine said no: disk full, read-only folder, missing permission, device not there (exit code 4).
    System,
    /// Training left the finite numbers (exit code 5).
    Diverged,
    /// Another process holds the run folder (exit code 6).
    Busy,
    /// A signal asked the run to stop; a checkpoint was written (exit code 75).
    Interrupted,
}

impl Kind {
    /// The exit code of the program for a problem of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Input => 3,
            Kind::System => 4,
            Kind::Diverged => 5,
            Kind::Busy => 6,
            Kind::Interrupted => 75,
        }
    }
}

/// One thing that went wrong, said for a person.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    message: String,
    place: Option<String>,
    hint: Option<String>,
    text: Option<(NamedSource<String>, SourceSpan, String)>,
}

impl Problem {
    /// A problem of the given kind; `message` is one sentence in lower case without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Parts { kind, message: message.into(), place: None, hint: None, text: None }))
    }

    /// A wrong command line or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Unusable data, model or checkpoint.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Kind::Input, message)
    }

    /// A failed read or write of `path`. Wording and hint depend on the operating system's error.
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let problem = Self::new(
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory => {
                    Kind::Input
                }
                _ => Kind::System,
            },
            format!("cannot {doing} {}: {error}", path.display()),
        );
        match error.kind() {
            io::ErrorKind::NotFound => problem.hint("check the path; nothing stands there"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                problem.hint("choose a folder you may write to, or change its permissions")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => problem
                .hint("free some space, then continue with --resume auto; finished checkpoints are intact"),
            io::ErrorKind::FileTooLarge => problem.hint(
                "raise the limit on file sizes, then continue with --resume auto; finished checkpoints are intact",
            ),
            _ => problem,
        }
    }

    /// Says what to do. Shown as `hint: ...`.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Names the place: `file:line` (1-based), with a column where one is known.
    pub fn at(mut self, file: &Path, line: usize, column: Option<usize>) -> Self {
        self.0.place = Some(match column {
            Some(column) => format!("{}:{line}:{column}", file.display()),
            None => format!("{}:{line}", file.display()),
        });
        self
    }

    /// Names the place in words, e.g. a tensor of a weight file or a command-line flag.
    pub fn place(mut self, place: impl Into<String>) -> Self {
        self.0.place = Some(place.into());
        self
    }

    /// Shows the offending stretch of a text that was read; `label` is printed under it.
    pub fn in_text(
        mut self,
        name: impl AsRef<str>,
        text: impl Into<String>,
        span: std::ops::Range<usize>,
        label: impl Into<String>,
    ) -> Self {
        let source = NamedSource::new(name, text.into());
        self.0.text = Some((source, span.into(), label.into()));
        self
    }

    /// The class of this problem.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The sentence, without place or hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The hint, if one was given.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The place, if one was named with [`Problem::at`] or [`Problem::place`].
    pub fn place_text(&self) -> Option<&str> {
        self.0.place.as_deref()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.place {
            Some(place) => write!(f, "{place}: {}", self.0.message),
            None => f.write_str(&self.0.message),
        }
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.text.as_ref().map(|(source, ..)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, span, label) = self.0.text.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(label.clone()), *span))))
    }
}
