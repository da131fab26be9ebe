//! Named numbers of a run and the files they go to.
//!
//! A training loop collects a [`Metrics`] per step and hands it to the run's [`MetricLog`]. What a resumed run must
//! repeat byte for byte (losses, rewards, gradient norms) goes to `metrics.jsonl`; what depends on the clock or the
//! machine (pairs per second, peak memory) goes to `timings.jsonl`; TensorBoard gets both. Reports read them back
//! with [`read`].
//!
//! One row is one line of JSON, written with one system call:
//!
//! ```json
//! {"step":20,"split":"train","loss":0.6931,"rewards/margins":0.012,"grad_norm":"NaN"}
//! ```
//!
//! JSON has no numbers that are not finite; they stand as the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    folder::write_atomic,
    problem::{Problem, Result},
    tensorboard::EventFile,
};

/// Names of the row's own fields, which no metric may take.
const RESERVED: [&str; 2] = ["step", "split"];

/// An ordered map from metric names (`loss`, `rewards/margins`, ...) to numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// No metrics yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `name` to `value`; a new name goes to the end, a known one keeps its place. `step` and `split` are
    /// fields of the row and not free as names.
    pub fn set(&mut self, name: impl Into<String>, value: f64) -> &mut Self {
        let name = name.into();
        debug_assert!(!RESERVED.contains(&name.as_str()), "{name} is a field of the row itself");
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
        self
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Takes over every metric of `other`, whose values win.
    pub fn merge(&mut self, other: &Metrics) -> &mut Self {
        for (name, value) in other.iter() {
            self.set(name, value);
        }
        self
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Mean over micro-batches, each with its weight (usually its number of pairs or tokens). A metric that some
    /// parts lack is averaged over those that have it; names keep the order of their first appearance. Parts
    /// without weight do not count.
    pub fn weighted_mean<'a>(parts: impl IntoIterator<Item = (f64, &'a Metrics)>) -> Metrics {
        let mut sums: Vec<(String, f64, f64)> = Vec::new();
        for (weight, part) in parts.into_iter().filter(|(weight, _)| *weight > 0.0) {
            for (name, value) in part.iter() {
                match sums.iter_mut().find(|(known, ..)| known == name) {
                    Some((_, sum, total)) => {
                        *sum += weight * value;
                        *total += weight;
                    }
                    None => sums.push((name.to_string(), weight * value, weight)),
                }
            }
        }
        Metrics(sums.into_iter().map(|(name, sum, total)| (name, sum / total)).collect())
    }
}

impl<N: Into<String>> FromIterator<(N, f64)> for Metrics {
    fn from_iter<I: IntoIterator<Item = (N, f64)>>(values: I) -> Self {
        let mut metrics = Metrics::new();
        for (name, value) in values {
            metrics.set(name, value);
        }
        metrics
    }
}

/// The data a row was measured on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The batches that the step trained on.
    Train,
    /// Held-out data.
    Eval,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Eval => "eval",
        })
    }
}

/// One line of `metrics.jsonl` or `timings.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Optimiser updates done when the row was written.
    pub step: u64,
    /// The data it was measured on.
    pub split: Split,
    /// What was measured.
    pub metrics: Metrics,
}

impl Row {
    /// The line without its line break.
    fn to_json(&self) -> String {
        let mut fields = Map::new();
        fields.insert("step".into(), self.step.into());
        fields.insert("split".into(), self.split.to_string().into());
        for (name, value) in self.metrics.iter() {
            fields.insert(name.into(), finite_or_word(value));
        }
        Value::Object(fields).to_string()
    }

    fn from_json(line: &str) -> Result<Self, String> {
        let fields: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let step = fields.get("step").and_then(Value::as_u64).ok_or("no whole number under \"step\"")?;
        let split = match fields.get("split").and_then(Value::as_str) {
            Some("train") => Split::Train,
            Some("eval") => Split::Eval,
            _ => return Err("\"split\" is neither \"train\" nor \"eval\"".into()),
        };
        let metrics = fields
            .iter()
            .filter(|(name, _)| !RESERVED.contains(&name.as_str()))
            .map(|(name, value)| match number_of(value) {
                Some(value) => Ok((name.clone(), value)),
                None => Err(format!("{name:?} is not a number")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Row { step, split, metrics })
    }
}

fn finite_or_word(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn number_of(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => value.as_f64(),
    }
}

/// Reads the rows of a `metrics.jsonl` or `timings.jsonl`, oldest first. A torn last line, as a killed process leaves
/// it, is left out; a broken line elsewhere is a problem that names its place.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    Ok(lines(path)?.into_iter().map(|(_, row)| row).collect())
}

/// Every whole line with its row.
fn lines(path: &Path) -> Result<Vec<(String, Row)>> {
    let bytes = fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = Vec::new();
    let mut rest = text.split_inclusive('\n').enumerate().peekable();
    while let Some((index, line)) = rest.next() {
        let last = rest.peek().is_none();
        match (line.strip_suffix('\n'), last) {
            (None, _) => break,
            (Some(line), _) => match Row::from_json(line) {
                Ok(row) => found.push((line.to_string(), row)),
                Err(_) if last => break,
                Err(error) => {
                    return Err(Problem::input(format!("broken row: {error}"))
                        .at(path, index + 1, None)
                        .hint("delete this line, or start a new run folder"));
                }
            },
        }
    }
    Ok(found)
}

/// Writes a run's metrics to `metrics.jsonl`, `timings.jsonl` and `tensorboard/` in its run folder.
///
/// For a resumed run to repeat the file byte for byte, all rows of step k must be written before the checkpoint of
/// step k is: resuming at k keeps rows up to k and cuts off what came later.
pub struct MetricLog {
    metrics: JsonLines,
    timings: JsonLines,
    events: EventFile,
}

impl MetricLog {
    /// Opens the files of `run_dir`, which must exist.
    ///
    /// `resume_at` is the step of the checkpoint that the run continues from: rows of later steps and a torn last
    /// line are cut off. `None` starts from nothing and empties the files.
    pub fn open(run_dir: &Path, resume_at: Option<u64>) -> Result<Self> {
        Ok(Self {
            metrics: JsonLines::open(run_dir.join("metrics.jsonl"), resume_at)?,
            timings: JsonLines::open(run_dir.join("timings.jsonl"), resume_at)?,
            events: EventFile::create(&run_dir.join("tensorboard"), resume_at)?,
        })
    }

    /// Appends one row of reproducible numbers. Nothing that depends on the clock may be among them.
    pub fn write(&mut self, step: u64, split: Split, metrics: &Metrics) -> Result<()> {
        self.metrics.append(&Row { step, split, metrics: metrics.clone() })?;
        self.tensorboard(step, &split.to_string(), metrics)
    }

    /// Appends one row of numbers that depend on the clock or the machine: rates, seconds, memory.
    pub fn write_timings(&mut self, step: u64, split: Split, timings: &Metrics) -> Result<()> {
        self.timings.append(&Row { step, split, metrics: timings.clone() })?;
        self.tensorboard(step, &format!("timings/{split}"), timings)
    }

    fn tensorboard(&mut self, step: u64, prefix: &str, metrics: &Metrics) -> Result<()> {
        self.events.scalars(step, metrics.iter().map(|(name, value)| (format!("{prefix}/{name}"), value)))
    }
}

/// An append-only file of rows.
struct JsonLines {
    file: File,
    path: PathBuf,
}

impl JsonLines {
    fn open(path: PathBuf, resume_at: Option<u64>) -> Result<Self> {
        if let Some(step) = resume_at {
            cut_after(&path, step)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(resume_at.is_some())
            .write(true)
            .truncate(resume_at.is_none())
            .open(&path)
            .map_err(|error| Problem::io("open", &path, &error))?;
        Ok(Self { file, path })
    }

    fn append(&mut self, row: &Row) -> Result<()> {
        let line = row.to_json() + "\n";
        self.file.write_all(line.as_bytes()).map_err(|error| Problem::io("append to", &self.path, &error))
    }
}

/// Keeps the rows of steps up to `step`, as they stand.
fn cut_after(path: &Path, step: u64) -> Result<()> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Problem::io("read", path, &error)),
    };
    let kept: String =
        lines(path)?.into_iter().filter(|(_, row)| row.step <= step).map(|(line, _)| line + "\n").collect();
    if kept.len() as u64 == length { Ok(()) } else { write_atomic(path, kept.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensorboard::tests::decode;

    fn metrics(values: &[(&str, f64)]) -> Metrics {
        values.iter().copied().collect()
    }

    #[test]
    fn metrics_keep_their_order_and_merge() {
        let mut first = metrics(&[("loss", 1.0), ("rewards/margins", 0.5)]);
        first.set("loss", 2.0).merge(&metrics(&[("rewards/margins", 0.7), ("grad_norm", 3.0)]));
        assert_eq!(first, metrics(&[("loss", 2.0), ("rewards/margins", 0.7), ("grad_norm", 3.0)]));
        assert_eq!(first.get("grad_norm"), Some(3.0));
        assert_eq!(first.get("nothing"), None);
    }

    #[test]
    fn micro_batches_count_by_their_weight() {
        let (a, b) = (metrics(&[("loss", 1.0), ("only", 5.0)]), metrics(&[("loss", 4.0)]));
        let nothing = metrics(&[("loss", f64::NAN)]);
        let mean = Metrics::weighted_mean([(1.0, &a), (2.0, &b), (0.0, &nothing)]);
        assert_eq!(mean, metrics(&[("loss", 3.0), ("only", 5.0)]));
        assert!(Metrics::weighted_mean([]).is_empty());
    }

    #[test]
    fn rows_come_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricLog::open(folder.path(), None).unwrap();
        let written = metrics(&[("loss", 0.1 + 0.2), ("up", f64::INFINITY), ("down", f64::NEG_INFINITY)]);
        log.write(1, Split::Train, &written).unwrap();
        log.write(1, Split::Eval, &metrics(&[("nan", f64::NAN), ("tiny", 1e-300)])).unwrap();
        log.write_timings(1, Split::Train, &metrics(&[("pairs_per_second", 3.5)])).unwrap();

        let path = folder.path().join("metrics.jsonl");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"step\":1,\"split\":\"train\",\"loss\":0.30000000000000004,\"up\":\"Infinity\",\"down\":\"-Infinity\"}\n\
             {\"step\":1,\"split\":\"eval\",\"nan\":\"NaN\",\"tiny\":1e-300}\n"
        );
        let rows = read(&path).unwrap();
        assert_eq!(rows[0], Row { step: 1, split: Split::Train, metrics: written });
        assert!(rows[1].metrics.get("nan").unwrap().is_nan());

        let events = fs::read_dir(folder.path().join("tensorboard")).unwrap().next().unwrap().unwrap();
        let tags: Vec<String> = decode(&fs::read(events.path()).unwrap())
            .into_iter()
            .flat_map(|event| event.scalars.into_iter().map(|(tag, _)| tag))
            .collect();
        assert_eq!(
            tags,
            [
                "train/loss",
                "train/up",
                "train/down",
                "eval/nan",
                "eval/tiny",
                "timings/train/pairs_per_second"
            ]
        );
    }

    #[test]
    fn a_killed_and_resumed_log_equals_an_undisturbed_one() {
        let write = |log: &mut MetricLog, steps: std::ops::RangeInclusive<u64>| {
            for step in steps {
                log.write(step, Split::Train, &metrics(&[("loss", 1.0 / step as f64)])).unwrap();
            }
        };
        let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&mut MetricLog::open(whole.path(), None).unwrap(), 1..=9);
        write(&mut MetricLog::open(killed.path(), None).unwrap(), 1..=7);
        let path = killed.path().join("metrics.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":8,\"split\":\"tr").unwrap();
        assert_eq!(read(&path).unwrap().len(), 7);

        write(&mut MetricLog::open(killed.path(), Some(4)).unwrap(), 5..=9);
        assert_eq!(fs::read(&path).unwrap(), fs::read(whole.path().join("metrics.jsonl")).unwrap());

        // Without a checkpoint the run starts again from nothing.
        write(&mut MetricLog::open(killed.path(), None).unwrap(), 1..=2);
        assert_eq!(read(&path).unwrap().len(), 2);
    }

    #[test]
    fn a_broken_row_is_named_by_its_line() {
        fn check(text: &str, expected: &str) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("metrics.jsonl");
            let good = "{\"step\":1,\"split\":\"train\"}\n";
            fs::write(&path, format!("{good}{text}\n{good}")).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
            assert!(error.place_text().unwrap().ends_with("metrics.jsonl:2"));
            assert!(MetricLog::open(folder.path(), Some(1)).is_err());
        }
        check("{\"step\":", "EOF");
        check("{\"split\":\"train\"}", "step");
        check("{\"step\":1,\"split\":\"test\"}", "split");
        check("{\"step\":1,\"split\":\"train\",\"loss\":null}", "\"loss\" is not a number");
    }
}
