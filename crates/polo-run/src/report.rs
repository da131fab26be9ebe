//! `report.html`: one page about a run that opens anywhere, now and in ten years.
//!
//! The page holds its style and its plots (SVG) itself: no scripts, nothing fetched. Demo, comparisons and evaluations
//! build their own [`Report`]; [`training_report`] makes the one of a training run from its folder. All text that
//! is handed in is escaped, so samples of a model cannot break the page.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

pub use crate::plot::{BarChart, LinePlot, Series};
use crate::{
    folder::write_atomic,
    human,
    metrics::{self, Row, Split},
    plot::{PALETTE, escape},
    problem::{Problem, Result},
};

/// Characters of a sample file that the page shows.
const SAMPLE_LIMIT: usize = 20_000;
/// Sample files that the page shows, newest last.
const SAMPLE_FILES: usize = 3;
/// Metrics that share one plot at most; more lines cannot be told apart.
const LINES_PER_PLOT: usize = 4;
/// Metrics of no known unit do not share a plot if one is so many times as large as another: it would lie flat.
const MOST_APART: f64 = 30.0;

/// Builds a page from top to bottom.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    body: String,
}

impl Report {
    /// An empty page under `title`.
    pub fn new(title: &str) -> Self {
        Self { title: title.into(), body: String::new() }
    }

    /// Starts a section.
    pub fn heading(&mut self, text: &str) -> &mut Self {
        self.push("h2", text)
    }

    /// A paragraph of plain text.
    pub fn paragraph(&mut self, text: &str) -> &mut Self {
        self.push("p", text)
    }

    /// Two columns: what, and its value.
    pub fn key_values<K: AsRef<str>, V: AsRef<str>>(&mut self, pairs: &[(K, V)]) -> &mut Self {
        self.body.push_str("<div class=\"wide\"><table>");
        for (key, value) in pairs {
            let _ = write!(
                self.body,
                "<tr><th>{}</th><td>{}</td></tr>",
                escape(key.as_ref()),
                escape(value.as_ref())
            );
        }
        self.body.push_str("</table></div>\n");
        self
    }

    /// A table under column headers. Columns that hold only numbers are set flush right.
    pub fn table<H: AsRef<str>, C: AsRef<str>>(&mut self, headers: &[H], rows: &[Vec<C>]) -> &mut Self {
        let numeric = |column: usize| {
            let mut cells = rows.iter().filter_map(|row| row.get(column)).map(AsRef::as_ref).peekable();
            cells.peek().is_some() && cells.all(|cell| cell.is_empty() || cell.parse::<f64>().is_ok())
        };
        let classes: Vec<&str> =
            (0..headers.len()).map(|column| if numeric(column) { " class=\"n\"" } else { "" }).collect();
        self.body.push_str("<div class=\"wide\"><table><thead><tr>");
        for (header, class) in headers.iter().zip(&classes) {
            let _ = write!(self.body, "<th{class}>{}</th>", escape(header.as_ref()));
        }
        self.body.push_str("</tr></thead><tbody>");
        for row in rows {
            self.body.push_str("<tr>");
            for (cell, class) in row.iter().zip(&classes) {
                let _ = write!(self.body, "<td{class}>{}</td>", escape(cell.as_ref()));
            }
            self.body.push_str("</tr>");
        }
        self.body.push_str("</tbody></table></div>\n");
        self
    }

    /// Line plots side by side as far as the page is wide.
    pub fn line_plots(&mut self, plots: &[LinePlot]) -> &mut Self {
        self.plots(plots.iter().map(LinePlot::to_html))
    }

    /// Bar charts side by side as far as the page is wide.
    pub fn bar_charts(&mut self, charts: &[BarChart]) -> &mut Self {
        self.plots(charts.iter().map(BarChart::to_html))
    }

    /// A text as it stands, e.g. a sample of a model, under a small label.
    pub fn sample(&mut self, label: &str, text: &str) -> &mut Self {
        let _ = write!(self.body, "<p class=\"label\">{}</p>", escape(label));
        self.push("pre", text)
    }

    /// A text in pieces under a small label. Each piece has a value from -1 (red and underlined) over 0 (plain) to 1
    /// (blue), and a note that is shown when one points at it.
    pub fn heat<'a>(
        &mut self,
        label: &str,
        pieces: impl IntoIterator<Item = (&'a str, f64, String)>,
    ) -> &mut Self {
        let _ =
            write!(self.body, "<p class=\"label\">{}</p><pre class=\"heat\" dir=\"auto\">", escape(label));
        for (text, value, note) in pieces {
            let value = if value.is_finite() { value.clamp(-1.0, 1.0) } else { 0.0 };
            // Half-transparent, so that one page serves light and dark themes.
            let (colour, class) = match value < 0.0 {
                true => ("213,94,0", " class=\"low\""),
                false => ("0,114,178", ""),
            };
            let _ = write!(
                self.body,
                "<span{class} style=\"background:rgba({colour},{:.2})\" title=\"{}\">{}</span>",
                0.65 * value.abs(),
                escape(&note),
                escape(text)
            );
        }
        self.body.push_str("</pre>\n");
        self
    }

    /// A section that unfolds when its `summary` is clicked; `fill` adds its contents.
    pub fn collapsible(&mut self, summary: &str, fill: impl FnOnce(&mut Report)) -> &mut Self {
        let mut inner = Report::new("");
        fill(&mut inner);
        let _ =
            writeln!(self.body, "<details><summary>{}</summary>{}</details>", escape(summary), inner.body);
        self
    }

    /// The page.
    pub fn to_html(&self) -> String {
        let title = escape(&self.title);
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\n\
             <style>\n{}</style></head>\n<body><h1>{title}</h1>\n{}</body></html>\n",
            include_str!("report.css"),
            self.body
        )
    }

    /// Writes the page to `path`, in one step.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomic(path, self.to_html().as_bytes())
    }

    fn push(&mut self, tag: &str, text: &str) -> &mut Self {
        let _ = writeln!(self.body, "<{tag}>{}</{tag}>", escape(text));
        self
    }

    fn plots(&mut self, figures: impl Iterator<Item = String>) -> &mut Self {
        let _ = writeln!(self.body, "<div class=\"plots\">{}</div>", figures.collect::<String>());
        self
    }
}

/// What the page of a training run calls things.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The method.
    pub method: &'a str,
    /// The steps of the run, in the plural: `optimiser updates`, `episodes`.
    pub steps: &'a str,
    /// Metrics of evaluations: `held out`.
    pub evaluated: &'a str,
}

/// Writes `report.html` into the folder of a training run, from its `metrics.jsonl` and, where they are there,
/// `timings.jsonl`, `resolved.toml` and the newest files of `samples/`.
///
/// # Errors
/// An unreadable or broken metrics file, or a page that cannot be written.
pub fn training_report(run_dir: &Path, words: Words<'_>) -> Result<()> {
    let rows = metrics::read(&run_dir.join("metrics.jsonl"))?;
    let name =
        run_dir.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let mut report = Report::new(&format!("Training run {}", name.unwrap_or_default()));
    let Some(last) = rows.iter().map(|row| row.step).max() else {
        report.paragraph("No step was logged yet.");
        return report.write(&run_dir.join("report.html"));
    };
    let evaluations = rows.iter().filter(|row| row.split == Split::Eval).count();
    report.paragraph(&format!(
        "{}: {} {}, {evaluations} {}. One run of one seed: differences between such runs include the luck of the seed.",
        words.method,
        human::count(last),
        words.steps,
        if evaluations == 1 { "evaluation" } else { "evaluations" }
    ));
    let evaluated = |which: &str| format!("{which}, {}", words.evaluated);
    let headers =
        ["metric".into(), "first, train".into(), "last, train".into(), evaluated("first"), evaluated("last")];
    report.heading("First and last values").table(&headers, &summary(&rows));
    report.heading("Course of training").line_plots(&plots(&rows, words));

    let timings_path = run_dir.join("timings.jsonl");
    let timings = if timings_path.exists() { metrics::read(&timings_path)? } else { Vec::new() };
    if !timings.is_empty() {
        report.heading("Speed and memory").line_plots(&plots(&timings, words));
    }
    let samples = newest_samples(&run_dir.join("samples"))?;
    if !samples.is_empty() {
        report.heading("Samples");
        for (name, text) in samples {
            report.sample(&name, &text);
        }
    }
    if let Ok(resolved) = fs::read_to_string(run_dir.join("resolved.toml")) {
        report.heading("Settings").collapsible("All settings of this run", |inner| {
            inner.sample("resolved.toml", &resolved);
        });
    }
    report.write(&run_dir.join("report.html"))
}

/// Metric names in the order of their first appearance.
fn names(rows: &[Row]) -> Vec<&str> {
    let mut names = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| row.metrics.iter()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn course<'a>(
    rows: &'a [Row],
    split: Split,
    name: &'a str,
) -> impl DoubleEndedIterator<Item = (f64, f64)> + 'a {
    rows.iter()
        .filter(move |row| row.split == split)
        .filter_map(move |row| Some((row.step as f64, row.metrics.get(name)?)))
}

fn summary(rows: &[Row]) -> Vec<Vec<String>> {
    let show = |value: Option<(f64, f64)>| value.map(|(_, value)| human::number(value)).unwrap_or_default();
    names(rows)
        .into_iter()
        .map(|name| {
            let mut cells = vec![name.to_string()];
            for split in [Split::Train, Split::Eval] {
                cells.push(show(course(rows, split, name).next()));
                cells.push(show(course(rows, split, name).next_back()));
            }
            cells
        })
        .collect()
}

/// Metrics that one plot draws.
struct Group<'a> {
    title: &'a str,
    unit: &'a str,
    names: Vec<&'a str>,
    /// The least and the largest size of a metric that is not all zeros.
    sizes: Option<(f64, f64)>,
}

impl Group<'_> {
    /// The sizes with those of another metric, if that can be told apart from zero beside them.
    fn with(&self, size: f64) -> Option<(f64, f64)> {
        let (least, most) = self.sizes.unwrap_or((size, size));
        let (least, most) = (least.min(size), most.max(size));
        (self.title != self.unit || most <= MOST_APART * least).then_some((least, most))
    }
}

/// One plot per group of metrics that share a unit; training solid, held-out data dashed. Metrics with a single value are in
/// the table alone, unless all are such.
fn plots(rows: &[Row], words: Words<'_>) -> Vec<LinePlot> {
    let mut drawn = names(rows);
    let moves =
        |name: &str| [Split::Train, Split::Eval].iter().any(|s| course(rows, *s, name).nth(1).is_some());
    if drawn.iter().any(|name| moves(name)) {
        drawn.retain(|name| moves(name));
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for name in drawn {
        let (title, unit) = group_of(name);
        let values = rows.iter().filter_map(|row| row.metrics.get(name)).map(f64::abs);
        let size = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let fits = |group: &Group<'_>| {
            group.title == title
                && group.names.len() < LINES_PER_PLOT
                && (size == 0.0 || group.with(size).is_some())
        };
        match groups.iter_mut().find(|group| fits(group)) {
            Some(group) => {
                group.names.push(name);
                group.sizes = if size > 0.0 { group.with(size) } else { group.sizes };
            }
            None => groups.push(Group {
                title,
                unit,
                names: vec![name],
                sizes: (size > 0.0).then_some((size, size)),
            }),
        }
    }
    let plot = |Group { title, unit, names, .. }: Group<'_>| {
        // What shares its prefix with no other is better called by its name.
        let (title, unit) = match (&names[..], title == unit) {
            ([name], true) => (*name, name.rsplit('/').next().unwrap_or(name)),
            _ => (title, unit),
        };
        let mut series = Vec::new();
        for (colour, name) in names.into_iter().enumerate() {
            let (divisor, _) = scale_of(name);
            for split in [Split::Train, Split::Eval] {
                let points: Vec<(f64, f64)> =
                    course(rows, split, name).map(|(step, value)| (step, value / divisor)).collect();
                if points.is_empty() {
                    continue;
                }
                let (label, dashed) = match split {
                    Split::Train => (name.to_string(), false),
                    Split::Eval => (format!("{name}, {}", words.evaluated), true),
                };
                series.push(Series { name: label, points, band: None, colour: colour % PALETTE, dashed });
            }
        }
        LinePlot { title: title.into(), x_label: words.steps.into(), y_label: unit.into(), series }
    };
    groups.into_iter().map(plot).collect()
}

/// Title of the plot that a metric belongs to, and the label of its axis with the unit.
fn group_of(name: &str) -> (&str, &str) {
    let prefix = name.rsplit_once('/').map(|(prefix, _)| prefix);
    match (prefix, name) {
        _ if name.contains("accurac") => ("Preference accuracy", "share of pairs"),
        (Some("rewards"), _) => ("Implicit rewards", "beta × log-ratio (nats)"),
        (Some("logps"), _) => ("Log-probabilities of answers", "nats per answer"),
        (None, "loss") => ("Loss", "loss"),
        (None, "learning_rate") => ("Learning rate", "learning rate"),
        (None, "grad_norm") => ("Gradient norm", "norm before clipping"),
        (None, "entropy") => ("Entropy", "nats per token"),
        (Some(prefix), _) => (prefix, prefix),
        (None, name) => (name, scale_of(name).1),
    }
}

/// What a value is divided by for its plot, and the axis label that says so.
fn scale_of(name: &str) -> (f64, &str) {
    match name {
        _ if name.ends_with("_bytes") => (f64::from(1 << 20), "MiB"),
        _ if name.ends_with("_per_second") => (1.0, "per second"),
        _ if name.ends_with("seconds") => (1.0, "seconds"),
        _ => (1.0, name),
    }
}

/// Names and texts of the newest sample files: they are named by their step.
fn newest_samples(folder: &Path) -> Result<Vec<(String, String)>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let step: String = name.chars().filter(char::is_ascii_digit).collect();
        (step.parse::<u64>().unwrap_or(0), name)
    });
    let newest = paths.iter().skip(paths.len().saturating_sub(SAMPLE_FILES));
    newest
        .map(|path| {
            let bytes = fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
            let text = String::from_utf8_lossy(&bytes);
            let mut shown: String = text.chars().take(SAMPLE_LIMIT).collect();
            if shown.len() < text.len() {
                shown.push_str("\n… (cut; the file holds the rest)");
            }
            Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), shown))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{MetricLog, Metrics};

    const WORDS: Words<'_> = Words { method: "dpo", steps: "optimiser updates", evaluated: "held out" };

    #[test]
    fn all_text_is_escaped_and_nothing_is_fetched() {
        let evil = "</pre><script>alert('x')</script>&\u{0}";
        let mut report = Report::new(evil);
        report.heading(evil).paragraph(evil).key_values(&[(evil, evil)]).table(&[evil], &[vec![evil]]);
        report.sample(evil, evil).collapsible(evil, |inner| {
            inner.paragraph(evil);
        });
        let series = vec![Series { name: evil.into(), points: vec![(0.0, 1.0)], ..Series::default() }];
        let (title, x_label, y_label) = (evil.to_string(), evil.to_string(), evil.to_string());
        report.line_plots(&[LinePlot { title, x_label, y_label, series }]);
        let html = report.to_html();
        assert!(!html.contains("<script") && !html.contains("alert('") && !html.contains('\u{0}'));
        assert!(html.contains("&lt;/pre&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;\u{fffd}"));
        assert!(!html.contains("http") && !html.contains("url(") && !html.contains("@import"));
        for tag in
            ["p", "pre", "table", "tr", "td", "th", "svg", "details", "figure", "div", "h1", "h2", "text"]
        {
            let opened =
                html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn columns_of_numbers_are_flush_right() {
        let mut report = Report::new("t");
        report.table(&["name", "value"], &[vec!["1", "2.5"], vec!["x", ""]]);
        let html = report.to_html();
        assert!(
            html.contains("<th>name</th><th class=\"n\">value</th>")
                && html.contains("<td class=\"n\">2.5</td>")
        );
    }

    #[test]
    fn a_training_run_gets_one_plot_per_group() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricLog::open(folder.path(), None).unwrap();
        for step in 1..=20_u64 {
            let values: Metrics = [
                ("loss", 0.7 / step as f64),
                ("rewards/chosen", 0.1 * step as f64),
                ("rewards/rejected", -0.1 * step as f64),
                ("rewards/accuracies", 0.5),
                ("learning_rate", 1e-5),
            ]
            .into_iter()
            .collect();
            log.write(step, Split::Train, &values).unwrap();
            log.write_timings(step, Split::Train, &[("peak_memory_bytes", 1e9)].into_iter().collect())
                .unwrap();
        }
        log.write(20, Split::Eval, &[("loss", 0.5)].into_iter().collect()).unwrap();
        fs::write(folder.path().join("resolved.toml"), "beta = 0.1\n").unwrap();
        fs::create_dir(folder.path().join("samples")).unwrap();
        for step in [2, 5, 10, 20] {
            fs::write(folder.path().join(format!("samples/step-{step}.txt")), format!("<text of {step}>"))
                .unwrap();
        }
        training_report(folder.path(), WORDS).unwrap();
        let html = fs::read_to_string(folder.path().join("report.html")).unwrap();
        let captions: Vec<&str> =
            html.split("<figcaption>").skip(1).filter_map(|part| part.split('<').next()).collect();
        assert_eq!(
            captions,
            ["Loss", "Implicit rewards", "Preference accuracy", "Learning rate", "peak_memory_bytes"]
        );
        for expected in
            ["loss, held out", ">MiB<", "beta = 0.1", "&lt;text of 20&gt;", "dpo: 20 optimiser updates"]
        {
            assert!(html.contains(expected), "{expected} is missing");
        }
        assert!(!html.contains("text of 2&gt;"), "only the newest samples are shown");
    }

    #[test]
    fn what_would_lie_flat_beside_others_has_a_plot_of_its_own() {
        let rows: Vec<Row> = (1..=5_u64)
            .map(|step| {
                let steps = step as f64;
                let mut values = vec![
                    ("stream/decisions", 100.0 * steps),
                    ("stream/regret", 0.3 / steps),
                    ("stream/learned", 90.0 * steps),
                    ("stream/skipped", 0.0),
                ];
                if step == 5 {
                    values.push(("values/best", 1.0));
                }
                Row { step, split: Split::Train, metrics: values.into_iter().collect() }
            })
            .collect();
        let found: Vec<(String, String, usize)> = plots(&rows, WORDS)
            .into_iter()
            .map(|plot| (plot.title, plot.y_label, plot.series.len()))
            .collect();
        let expected = [("stream", "stream", 3), ("stream/regret", "regret", 1)];
        assert_eq!(found, expected.map(|(title, unit, lines)| (title.into(), unit.into(), lines)));
        let captions: Vec<String> = plots(&rows[4..], WORDS).into_iter().map(|plot| plot.title).collect();
        assert_eq!(captions, ["stream", "stream/regret", "values/best"]);
    }

    #[test]
    fn an_empty_run_has_a_page_and_a_missing_one_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        assert!(training_report(folder.path(), WORDS).is_err());
        fs::write(folder.path().join("metrics.jsonl"), "").unwrap();
        training_report(folder.path(), WORDS).unwrap();
        assert!(
            fs::read_to_string(folder.path().join("report.html")).unwrap().contains("No step was logged")
        );
    }
}
