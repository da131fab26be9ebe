//! The outcome of re-testing a paper's claim, on the terminal, in `CLAIMS.md` and as a page with plots.
//!
//! `polo reproduce SLUG` fills a [`ClaimResult`]. Its verdict is not set by anyone: [`ClaimResult::verdict`] derives it
//! from the effects by a fixed rule, so that no text can say more than the numbers do.
//!
//! The rule. An effect *holds* if its whole 95 % interval lies in the expected range, *fails* if the whole interval
//! lies outside of it, and is *open* otherwise: the interval reaches across the border, there is none, or it rests on
//! fewer than [`MIN_OBSERVATIONS`] observations. The claim is *reproduced* if all its effects hold, *not reproduced*
//! if one fails, and *inconclusive* in every other case, also without any effect.

use std::{fmt, fs, io, path::Path};

use crate::{
    folder::write_atomic,
    human,
    problem::{Problem, Result},
    report::{LinePlot, Report},
    stats::Estimate,
};

/// Observations (seeds) below which no effect is decided.
pub const MIN_OBSERVATIONS: usize = 5;

const PREAMBLE: &str = "# Claims\n\n\
    What the methods' papers claim, re-tested at small scale. Each section is written by its command.\n\n";

const RULE: &str = "An effect *holds* if its whole 95 % interval lies in the expected range, *fails* if the whole interval lies\n\
    outside of it, and is *open* otherwise. A claim is *reproduced* if all its effects hold, *not reproduced* if one\n\
    fails, and *inconclusive* otherwise.\n";

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every effect holds.
    Reproduced,
    /// At least one effect fails.
    NotReproduced,
    /// The data decide neither way.
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Reproduced => "reproduced",
            Verdict::NotReproduced => "not reproduced",
            Verdict::Inconclusive => "inconclusive",
        })
    }
}

/// The range in which the claim expects an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    /// Greater than this.
    Above(f64),
    /// Less than this.
    Below(f64),
    /// From the first to the second, ends included.
    Between(f64, f64),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Above(least) => write!(f, "> {least}"),
            Expected::Below(most) => write!(f, "< {most}"),
            Expected::Between(low, high) => write!(f, "{low} to {high}"),
        }
    }
}

/// What the interval of an effect says about the expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The interval lies in the expected range.
    Holds,
    /// The interval lies outside of it.
    Fails,
    /// Undecided.
    Open,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Holds => "holds",
            Outcome::Fails => "fails",
            Outcome::Open => "open",
        })
    }
}

/// One measured quantity that the claim makes a statement about.
#[derive(Clone, Debug)]
pub struct Effect {
    /// What was measured, with its unit.
    pub name: String,
    /// The measurement.
    pub estimate: Estimate,
    /// What the claim expects of it.
    pub expected: Expected,
}

impl Effect {
    /// What the data say about the expectation, by the rule of this module.
    pub fn outcome(&self) -> Outcome {
        let Some((low, high)) = self.estimate.interval else { return Outcome::Open };
        if self.estimate.n < MIN_OBSERVATIONS && !self.estimate.is_exact() {
            return Outcome::Open;
        }
        let (holds, fails) = match self.expected {
            Expected::Above(least) => (low > least, high <= least),
            Expected::Below(most) => (high < most, low >= most),
            Expected::Between(least, most) => (low >= least && high <= most, high < least || low > most),
        };
        match (holds, fails) {
            (true, _) => Outcome::Holds,
            (_, true) => Outcome::Fails,
            _ => Outcome::Open,
        }
    }
}

/// A table of what was measured, also of what no effect was made of.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Column titles with units.
    pub headers: Vec<String>,
    /// One cell per column.
    pub rows: Vec<Vec<String>>,
}

/// Everything that is reported about one claim. Holds no date, so that the same run writes the same text up to its
/// duration.
#[derive(Clone, Debug)]
pub struct ClaimResult {
    /// The method.
    pub slug: String,
    /// The claim in words.
    pub claim: String,
    /// Task, models, budget and how hyper-parameters were chosen, in paragraphs.
    pub setup: String,
    /// What was measured.
    pub table: Table,
    /// The quantities that decide the verdict.
    pub effects: Vec<Effect>,
    /// What was measured as a course: learning curves, errors over a setting; for the page alone, may be empty.
    pub plots: Vec<LinePlot>,
    /// What else a reader should know: what was tried, where the small scale differs from the paper; may be empty.
    pub remarks: String,
    /// The command that writes this section.
    pub command: String,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl ClaimResult {
    /// The verdict that the effects carry, by the rule of this module.
    pub fn verdict(&self) -> Verdict {
        let outcomes: Vec<Outcome> = self.effects.iter().map(Effect::outcome).collect();
        if outcomes.contains(&Outcome::Fails) {
            Verdict::NotReproduced
        } else if !outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == Outcome::Holds) {
            Verdict::Reproduced
        } else {
            Verdict::Inconclusive
        }
    }

    /// The result for the terminal, as plain text.
    pub fn to_text(&self) -> String {
        let mut text = format!("Claim of {}: {}\n\n{}\n", self.slug, self.claim, self.setup.trim());
        if !self.table.rows.is_empty() {
            text += &format!("\n{}", human::table(&self.table.headers, &self.table.rows));
        }
        text += &format!("\n{}", human::table(&EFFECT_HEADERS.map(String::from), &self.effect_rows()));
        if !self.remarks.is_empty() {
            text += &format!("\n{}\n", self.remarks.trim());
        }
        text + &format!("\nVerdict: {} ({})\n", self.verdict(), human::seconds(self.seconds))
    }

    /// The result as a page. One of a `quick` run says that it decides nothing, and has no verdict.
    pub fn report(&self, quick: bool) -> Report {
        let verdict = match quick {
            true => "none: a quick run shows that everything works and decides nothing".to_string(),
            false => self.verdict().to_string(),
        };
        let mut report = Report::new(&format!("Claim of {}", self.slug));
        report.paragraph(&self.claim).key_values(&[
            ("verdict", &verdict),
            ("written by", &format!("{}{}", self.command, if quick { " --quick" } else { "" })),
            ("duration", &human::seconds(self.seconds)),
        ]);
        report.heading("Effects").table(&EFFECT_HEADERS, &self.effect_rows());
        if !self.plots.is_empty() {
            report.heading("Plots");
            if self.plots.iter().flat_map(|plot| &plot.series).any(|series| series.band.is_some()) {
                report.paragraph("Lines are means over seeds or instances, bands their 95 % intervals.");
            }
            report.line_plots(&self.plots);
        }
        if !self.table.rows.is_empty() {
            report.heading("Measurements").table(&self.table.headers, &self.table.rows);
        }
        report.heading("Setup");
        paragraphs(&mut report, &self.setup);
        if !self.remarks.trim().is_empty() {
            report.heading("Remarks");
            paragraphs(&mut report, &self.remarks);
        }
        report.heading("Limits").paragraph(
            "A small-scale test: it speaks of this setup and not of the sizes that the paper has. Intervals cover the chance \
             of what they are over (seeds, instances), not the choice of the task.",
        );
        report.paragraph(&format!(
            "{} Below {MIN_OBSERVATIONS} observations no effect is decided.",
            RULE.trim().replace('*', "")
        ));
        report
    }

    fn effect_rows(&self) -> Vec<Vec<String>> {
        let row = |effect: &Effect| {
            let cells = [&effect.estimate as &dyn fmt::Display, &effect.expected, &effect.outcome()];
            [effect.name.clone()].into_iter().chain(cells.map(|cell| cell.to_string())).collect()
        };
        self.effects.iter().map(row).collect()
    }

    /// The section of `CLAIMS.md`, without its marker.
    fn to_markdown(&self) -> String {
        let mut text = format!("## {}: {}\n\n", self.slug, self.verdict());
        text += &format!("Claim: {}\n\n{}\n\n", self.claim.trim(), self.setup.trim());
        if !self.table.rows.is_empty() {
            text += &format!("{}\n", markdown_table(&self.table.headers, &self.table.rows));
        }
        text += &format!("{}\n", markdown_table(&EFFECT_HEADERS.map(String::from), &self.effect_rows()));
        if !self.remarks.is_empty() {
            text += &format!("{}\n\n", self.remarks.trim());
        }
        text += &format!("Written by `{}` in {}.\n", self.command, human::seconds(self.seconds));
        // Only a line that is nothing but a marker starts a section.
        text.lines()
            .map(
                |line| {
                    if marked(line).is_some() { format!("{line} (quoted)\n") } else { format!("{line}\n") }
                },
            )
            .collect()
    }
}

const EFFECT_HEADERS: [&str; 4] = ["effect", "estimate with 95 % interval", "expected", "outcome"];

/// Writes the section of `result` into the file at `path`: replaces the section of the same slug or adds one, keeps the
/// others as they stand, and sorts them by slug. The file is made if it is not there.
pub fn update_claims_file(path: &Path, result: &ClaimResult) -> Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{PREAMBLE}{RULE}"),
        Err(error) => return Err(Problem::io("read", path, &error)),
    };
    let mut preamble = String::new();
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in old.lines() {
        match (marked(line), sections.last_mut()) {
            (Some(slug), _) => sections.push((slug.to_string(), String::new())),
            (None, Some((_, section))) => *section += &format!("{line}\n"),
            (None, None) => preamble += &format!("{line}\n"),
        }
    }
    sections.retain(|(slug, _)| *slug != result.slug);
    sections.push((result.slug.clone(), result.to_markdown()));
    sections.sort();
    let mut text = preamble.trim_end().to_string() + "\n";
    for (slug, section) in sections {
        text += &format!("\n<!-- claim:{slug} -->\n{}\n", section.trim_end());
    }
    write_atomic(path, text.as_bytes())
}

/// The slug of a line that starts a section.
fn marked(line: &str) -> Option<&str> {
    line.trim().strip_prefix("<!-- claim:")?.strip_suffix("-->").map(str::trim)
}

/// Text whose paragraphs are parted by empty lines.
fn paragraphs(report: &mut Report, text: &str) {
    for paragraph in text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
        report.paragraph(paragraph);
    }
}

fn markdown_table(headers: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| {
        let cells: Vec<String> =
            cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule = format!("|{}\n", "---|".repeat(headers.len()));
    line(headers) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    fn effect(low: f64, high: f64, n: usize, expected: Expected) -> Effect {
        let estimate = Estimate { mean: (low + high) / 2.0, interval: Some((low, high)), n, of: "seeds" };
        Effect { name: "win rate, srpo minus dpo".into(), estimate, expected }
    }

    fn result(slug: &str, effects: Vec<Effect>) -> ClaimResult {
        let table = Table {
            headers: vec!["method".into(), "win rate".into()],
            rows: vec![vec!["a|b".into(), "0.6".into()], vec!["longer name".into(), "0.5".into()]],
        };
        ClaimResult {
            slug: slug.into(),
            claim: "it is better".into(),
            setup: "Tiny task.".into(),
            table,
            effects,
            plots: Vec::new(),
            remarks: String::new(),
            command: format!("polo reproduce {slug}"),
            seconds: 75.0,
        }
    }

    #[test]
    fn an_interval_decides_only_when_it_lies_on_one_side() {
        fn check(low: f64, high: f64, expected: Expected, outcome: Outcome) {
            assert_eq!(effect(low, high, 5, expected).outcome(), outcome, "{low}..{high} {expected}");
        }
        check(0.1, 0.2, Expected::Above(0.0), Outcome::Holds);
        check(-0.1, 0.2, Expected::Above(0.0), Outcome::Open);
        check(-0.2, 0.0, Expected::Above(0.0), Outcome::Fails);
        check(-0.2, -0.1, Expected::Below(0.0), Outcome::Holds);
        check(0.0, 0.1, Expected::Below(0.0), Outcome::Fails);
        check(-0.1, 0.1, Expected::Between(-0.1, 0.1), Outcome::Holds);
        check(-0.1, 0.2, Expected::Between(-0.1, 0.1), Outcome::Open);
        check(0.2, 0.3, Expected::Between(-0.1, 0.1), Outcome::Fails);

        assert_eq!(effect(0.1, 0.2, 4, Expected::Above(0.0)).outcome(), Outcome::Open, "too few seeds");
        let bare =
            |estimate| Effect { name: "error".into(), estimate, expected: Expected::Below(1e-6) }.outcome();
        assert_eq!(bare(Estimate::exact(1e-9)), Outcome::Holds);
        assert_eq!(bare(Estimate::exact(1e-3)), Outcome::Fails);
        assert_eq!(bare(Estimate::exact(f64::NAN)), Outcome::Open);
    }

    #[test]
    fn the_verdict_is_what_the_effects_carry() {
        fn check(effects: Vec<Effect>, verdict: Verdict) {
            assert_eq!(result("x", effects).verdict(), verdict);
        }
        let holds = || effect(0.1, 0.2, 5, Expected::Above(0.0));
        let fails = || effect(0.1, 0.2, 5, Expected::Below(0.0));
        let open = || effect(-0.1, 0.2, 5, Expected::Above(0.0));
        check(vec![holds(), holds()], Verdict::Reproduced);
        check(vec![holds(), open()], Verdict::Inconclusive);
        check(vec![holds(), fails(), open()], Verdict::NotReproduced);
        check(vec![], Verdict::Inconclusive);
    }

    #[test]
    fn sections_are_replaced_added_sorted_and_otherwise_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("CLAIMS.md");
        let good = || vec![effect(0.1, 0.2, 5, Expected::Above(0.0))];
        update_claims_file(&path, &result("srpo", good())).unwrap();
        update_claims_file(&path, &result("dpo", good())).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Claims\n"));
        let place = |text: &str, part: &str| text.find(part).unwrap();
        assert!(place(&text, "<!-- claim:dpo -->\n## dpo: reproduced") < place(&text, "<!-- claim:srpo -->"));
        assert!(text.contains("| a\\|b | 0.6 |"), "{text}");
        assert!(text.contains("| 0.150 [0.100, 0.200] (n=5 seeds) | > 0 | holds |"), "{text}");
        assert!(text.contains("Written by `polo reproduce dpo` in 1 min 15 s.\n"));

        // Writing the same result again changes nothing.
        update_claims_file(&path, &result("srpo", good())).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);

        // Notes that someone added to another section stay.
        fs::write(&path, text.replace("## dpo: reproduced\n", "## dpo: reproduced\n\nA note.\n")).unwrap();
        let mut bad = result("srpo", vec![effect(0.1, 0.2, 5, Expected::Below(0.0))]);
        bad.remarks = "<!-- claim:dpo -->".into();
        update_claims_file(&path, &bad).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("A note.") && text.contains("## srpo: not reproduced"));
        assert_eq!(text.matches("## srpo").count(), 1);
        assert_eq!(text.lines().filter(|line| marked(line).is_some()).count(), 2);
    }

    #[test]
    fn the_page_has_everything_and_a_quick_one_no_verdict() {
        let effects =
            vec![effect(0.1, 0.2, 5, Expected::Above(0.0)), effect(0.1, 0.2, 5, Expected::Below(0.0))];
        let curves = [vec![1.0, 2.0], vec![2.0, 4.0]];
        let series = Series::over_seeds("srpo", &[10.0, 20.0], &curves, 0);
        let plot = LinePlot { title: "Regret".into(), series: vec![series], ..LinePlot::default() };
        let mut result = ClaimResult { plots: vec![plot], ..result("srpo", effects) };
        result.setup = "Tiny <task>.\n\nTwo paragraphs.".into();
        result.remarks = "One remark.".into();
        let page = result.report(false).to_html();
        for expected in [
            "<h1>Claim of srpo</h1>",
            "it is better",
            "not reproduced",
            "polo reproduce srpo",
            "1 min 15 s",
            "<td>0.150 [0.100, 0.200] (n=5 seeds)</td>",
            "<td>fails</td>",
            "<p>Tiny &lt;task&gt;.</p>\n<p>Two paragraphs.</p>",
            "<figcaption>Regret</figcaption>",
            "class=\"band c0\"",
            "<td>longer name</td>",
            "<p>One remark.</p>",
            "<h2>Limits</h2>",
        ] {
            assert!(page.contains(expected), "{expected} is missing in {page}");
        }
        let quick = result.report(true).to_html();
        assert!(quick.contains("polo reproduce srpo --quick") && page.contains("bands their 95 % intervals"));
        assert!(quick.contains("decides nothing") && !quick.contains("<td>not reproduced</td>"), "{quick}");
        (result.plots, result.remarks) = (Vec::new(), String::new());
        let page = result.report(false).to_html();
        assert!(!page.contains("<h2>Plots") && !page.contains("<h2>Remarks"), "{page}");
    }

    #[test]
    fn the_terminal_text_lines_up() {
        let text = result("srpo", vec![effect(-0.1, 0.2, 5, Expected::Above(0.0))]).to_text();
        assert!(text.contains("  method       win rate\n  a|b          0.6\n  longer name  0.5\n"), "{text}");
        assert!(text.contains("0.050 [-0.100, 0.200] (n=5 seeds)"), "{text}");
        assert!(text.ends_with("Verdict: inconclusive (1 min 15 s)\n"));
    }
}
