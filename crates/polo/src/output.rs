//! What a person and the next program get to see: data on stdout, problems on stderr.
//!
//! Every command writes its data through an [`Output`], so that a reader that leaves early (`polo methods | head -1`)
//! ends the program quietly instead of with an error or a panic.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode, ThemeCharacters};
use polo_run::{Kind, Problem, progress};

/// Why a command ended before its time.
#[derive(Debug)]
pub enum End {
    /// Something went wrong.
    Problem(Problem),
    /// Nobody reads stdout any more.
    ReaderGone,
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What a command has to say, on its way to stdout (data) and stderr (talk).
pub struct Output<'a> {
    stdout: &'a mut dyn Write,
    quiet: bool,
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output")
    }
}

impl<'a> Output<'a> {
    /// Writes data to `stdout`; `quiet` leaves out remarks.
    pub fn new(stdout: &'a mut dyn Write, quiet: bool) -> Self {
        Self { stdout, quiet }
    }

    /// Says a line to the person, on stderr.
    pub fn remark(&self, line: &str) {
        if !self.quiet {
            // There is nowhere to report that stderr is closed.
            writeln!(io::stderr(), "{line}").ok();
        }
    }

    /// Writes text as it stands.
    ///
    /// # Errors
    /// [`End::ReaderGone`] on a closed pipe; [`Kind::System`] if stdout cannot be written, e.g. on a full disk.
    pub fn write(&mut self, text: &str) -> Result<(), End> {
        self.stdout.write_all(text.as_bytes()).map_err(ended)
    }

    /// Brings everything to the reader.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn finish(&mut self) -> Result<(), End> {
        self.stdout.flush().map_err(ended)
    }
}

fn ended(error: io::Error) -> End {
    match error.kind() {
        io::ErrorKind::BrokenPipe => End::ReaderGone,
        _ => Problem::new(Kind::System, format!("cannot write to stdout: {error}")).into(),
    }
}

/// Prints a problem on stderr.
pub fn complain(problem: &Problem) {
    let theme = match (io::stderr().is_terminal(), progress::colours()) {
        (true, true) => GraphicalTheme::unicode(),
        (true, false) => GraphicalTheme::unicode_nocolor(),
        (false, _) => GraphicalTheme::none(),
    };
    // There is nowhere left to report that stderr is closed.
    io::stderr().write_all(rendered(problem, theme).as_bytes()).ok();
}

/// `error: what`, the stretch of text in question, `hint: what to do`.
fn rendered(problem: &Problem, theme: GraphicalTheme) -> String {
    let characters = ThemeCharacters { error: "error:".into(), ..theme.characters };
    let hint = problem.hint_text().map(|hint| format!("{} {hint}\n", theme.styles.help.style("hint:")));
    // Wrapping is the terminal's business: a message must be found whole by grep.
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme { characters, styles: theme.styles })
        .with_width(usize::MAX / 2)
        .with_wrap_lines(false)
        .without_cause_chain();
    let mut text = String::new();
    if handler.render_report(&mut text, &Hintless(problem)).is_err() {
        text = format!("error: {problem}\n");
    }
    text.trim_start().to_owned() + &hint.unwrap_or_default()
}

/// A problem without its hint, which miette would print as `help:`.
#[derive(Debug)]
struct Hintless<'a>(&'a Problem);

impl fmt::Display for Hintless<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Hintless<'_> {}

impl Diagnostic for Hintless<'_> {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.0.labels()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_problem_and_a_full_disk_is_one() {
        let end = |kind| Output::new(&mut Failing(kind), false).write("text").unwrap_err();
        assert!(matches!(end(io::ErrorKind::BrokenPipe), End::ReaderGone));
        let End::Problem(problem) = end(io::ErrorKind::StorageFull) else { panic!("no problem") };
        assert_eq!(problem.kind(), Kind::System);
    }

    #[test]
    fn problems_are_plain_or_coloured_and_never_wrapped() {
        let long = "word ".repeat(60);
        let problem = Problem::input(long.trim_end()).hint("do this");
        let plain = rendered(&problem, GraphicalTheme::none());
        assert_eq!(plain, format!("error: {}\nhint: do this\n", long.trim_end()));
        let coloured = rendered(&problem, GraphicalTheme::unicode());
        assert!(coloured.starts_with("\u{1b}[31merror:\u{1b}[0m word"), "{coloured:?}");
    }

    #[test]
    fn the_text_in_question_is_shown_between_error_and_hint() {
        let problem = Problem::usage("unknown key `wdith`")
            .at("run.toml".as_ref(), 1, Some(1))
            .in_text("run.toml", "wdith = 8\n", 0..5, "no such key")
            .hint("did you mean `width`?");
        let expected = "error: run.toml:1:1: unknown key `wdith`\n   ,-[run.toml:1:1]\n 1 | wdith = 8\n   : ^^|^^\n   \
                        :   `-- no such key\n   `----\nhint: did you mean `width`?\n";
        assert_eq!(rendered(&problem, GraphicalTheme::none()), expected);
    }
}
