//! Reads training data files: JSON lines, JSON lists, CSV and TSV (each also gzipped), and Parquet.
//!
//! `polo train`, `polo evaluate` and `polo data check` come here with the paths of the command line; several files
//! or a folder are read in the order of their names. The format is told by the content, not by the file name
//! (except for CSV). What a row means is [`crate::rows`]' business; this module knows where it stands, so that
//! every error names file, line and column.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type},
};
use flate2::read::MultiGzDecoder;
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use polo_run::{Problem, Result};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};

use crate::rows::{
    CompletionRow, Fault, ListRow, PairRow, Place, PromptRow, Record, Row, StepRow, UnpairedRow,
    steps_to_pairs,
};

/// What to do with a row that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadRow {
    /// Stop with an error that names the place.
    #[default]
    Stop,
    /// Pass over it and count it in the report.
    Skip,
}

/// How to read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// What to do with a row that cannot be used.
    pub on_bad_row: OnBadRow,
    /// Longest line, in bytes; a longer one is most likely not a line at all, and would fill the memory.
    pub max_line_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { on_bad_row: OnBadRow::Stop, max_line_bytes: 64 << 20 }
    }
}

/// What was found while reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DataReport {
    /// Files read.
    pub files: usize,
    /// Rows that can be used, duplicates among them.
    pub rows: usize,
    /// Rows passed over because they cannot be used.
    pub skipped: usize,
    /// Rows equal in every text and label to an earlier one. They are kept.
    pub duplicates: usize,
    /// Rows of which one answer is blank (dialogues that end in an empty turn). They are kept.
    pub blank_answers: usize,
    /// The first few reasons for skipping, each with its place.
    pub problems: Vec<String>,
    /// SHA-256, in hexadecimal, of all rows as parsed, in order: equal for equal data in any file format.
    pub sha256: String,
}

/// Rows and what was found while reading them.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    /// The rows, in file order.
    pub rows: Vec<R>,
    /// Counts, problems and content hash.
    pub report: DataReport,
}

/// Number of skipped rows whose reasons a [`DataReport`] quotes.
const QUOTED_PROBLEMS: usize = 5;

/// Reads preference pairs; of answers in steps, the pairs of steps that [`steps_to_pairs`] makes.
///
/// # Errors
/// As [`read_rows`]; answers in steps none of which goes wrong where another goes right.
pub fn read_pairs(paths: &[PathBuf], options: &ReadOptions) -> Result<Rows<PairRow>> {
    let fields = first_fields(paths, options)?;
    let has = |name: &str| fields.iter().any(|field| field == name);
    if !has("completions") || !has("labels") || has("chosen") {
        return read_rows(paths, options);
    }
    let Rows { rows, mut report } = read_rows::<StepRow>(paths, options)?;
    let (pairs, alone) = steps_to_pairs(&rows);
    if pairs.is_empty() {
        return Err(Problem::input(format!(
            "no pair of steps in {} answers: {alone} go wrong, none of them where another goes right",
            rows.len()
        ))
        .place(paths.first().map_or_else(String::new, |path| path.display().to_string()))
        .hint(
            "a pair needs two rows of the same `prompt` with the same right steps at their beginning, one going on right \
             and one wrong",
        ));
    }
    report.rows = pairs.len();
    report.skipped += alone;
    Ok(Rows { rows: pairs, report })
}

/// Reads rows for supervised fine-tuning.
///
/// # Errors
/// As [`read_rows`].
pub fn read_completions(paths: &[PathBuf], options: &ReadOptions) -> Result<Rows<CompletionRow>> {
    read_rows(paths, options)
}

/// Reads prompts.
///
/// # Errors
/// As [`read_rows`].
pub fn read_prompts(paths: &[PathBuf], options: &ReadOptions) -> Result<Rows<PromptRow>> {
    read_rows(paths, options)
}

/// Reads rows of one type from files or folders of files.
///
/// # Errors
/// A file that is missing, empty, damaged or cut short always stops the reading, since what it lacks is unknown; an
/// unusable row does so under [`OnBadRow::Stop`]. Finding no usable row at all is an error, too.
pub fn read_rows<R: Row>(paths: &[PathBuf], options: &ReadOptions) -> Result<Rows<R>> {
    let files = expand(paths)?;
    let mut report = DataReport { files: files.len(), ..DataReport::default() };
    let mut rows: Vec<R> = Vec::new();
    let mut seen = HashSet::new();
    let mut content = Sha256::new();
    for file in &files {
        let mut entries = 0;
        each_record(file, R::FIELDS, options.max_line_bytes, &mut |entry| {
            entries += 1;
            let made = entry.and_then(|found| {
                R::from_record(&found.record, rows.len() as u64).map_err(|fault| found.problem(fault))
            });
            match made {
                Ok(made) => {
                    for row in made {
                        let digest = digest(&row);
                        content.update(digest);
                        report.duplicates += usize::from(!seen.insert(digest));
                        report.blank_answers +=
                            usize::from(row.texts()[1..].iter().any(|(_, text)| text.is_blank()));
                        rows.push(row);
                    }
                }
                Err(problem) if options.on_bad_row == OnBadRow::Stop => return Err(problem),
                Err(problem) => {
                    report.skipped += 1;
                    if report.problems.len() < QUOTED_PROBLEMS {
                        report.problems.push(problem.to_string());
                    }
                }
            }
            Ok(())
        })?;
        if entries == 0 {
            return Err(Problem::input("the file holds no rows")
                .at(file, 1, None)
                .hint("give a file with at least one row; was the download or the export interrupted?"));
        }
    }
    if rows.is_empty() {
        let first = report.problems.first().cloned().unwrap_or_default();
        return Err(Problem::input(format!("none of {} rows can be used", report.skipped))
            .hint(format!("the first problem: {first}")));
    }
    report.rows = rows.len();
    report.sha256 = hex(&content.finalize());
    Ok(Rows { rows, report })
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn digest<R: Row>(row: &R) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for (name, text) in row.texts() {
        hasher.update(name);
        // JSON marks where a string ends, so that no two rows run together into the same bytes.
        hasher.update(serde_json::to_vec(text).unwrap_or_default());
    }
    hasher.update(row.extra());
    hasher.finalize().into()
}

/// The fields of the first record of `paths`, from which [`crate::check`] guesses what the file is for.
pub(crate) fn first_fields(paths: &[PathBuf], options: &ReadOptions) -> Result<Vec<String>> {
    const EVERY_FIELD: [&[&str]; 6] = [
        PairRow::FIELDS,
        CompletionRow::FIELDS,
        PromptRow::FIELDS,
        ListRow::FIELDS,
        UnpairedRow::FIELDS,
        StepRow::FIELDS,
    ];
    let mut fields = None;
    for file in expand(paths)? {
        // The reading is broken off with an error of no consequence as soon as one record was seen.
        let outcome =
            each_record(&file, &EVERY_FIELD.concat(), options.max_line_bytes, &mut |entry| match entry {
                Ok(found) => {
                    fields = Some(found.record.fields.keys().cloned().collect());
                    Err(Problem::input("enough"))
                }
                Err(_) => Ok(()),
            });
        match (&fields, outcome) {
            (Some(_), _) => break,
            (None, outcome) => outcome?,
        }
    }
    Ok(fields.unwrap_or_default())
}

/// Files as given, and the data files of folders by name.
fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let about = std::fs::metadata(path).map_err(|error| Problem::io("read", path, &error))?;
        if !about.is_dir() {
            files.push(path.clone());
            continue;
        }
        let listing = std::fs::read_dir(path).map_err(|error| Problem::io("list", path, &error))?;
        let mut inside = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|error| Problem::io("list", path, &error))?.path();
            if format_of_name(&entry).is_some() && entry.is_file() {
                inside.push(entry);
            }
        }
        if inside.is_empty() {
            return Err(Problem::input(format!("no data file in the folder {}", path.display()))
                .hint("files end in .jsonl, .json, .csv, .tsv (each also .gz) or .parquet"));
        }
        inside.sort();
        files.extend(inside);
    }
    if files.is_empty() {
        return Err(Problem::usage("no data file was given").hint("name at least one file or folder"));
    }
    Ok(files)
}

/// The extension that tells the format, in lower case, without `.gz`.
fn format_of_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let (_, extension) = name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?;
    ["jsonl", "json", "ndjson", "csv", "tsv", "parquet"].contains(&extension).then(|| extension.to_owned())
}

/// A record and the text it was parsed from, for pointing at a field.
struct Found<'a> {
    record: Record,
    /// Text and the column, from 1, at which it starts in its line.
    source: Option<(&'a str, usize)>,
}

impl Found<'_> {
    fn problem(&self, fault: Fault) -> Problem {
        let Place { file, line } = &self.record.place;
        let (line, column) = match (self.source, fault.field) {
            (Some((text, column)), Some(field)) => match position_of_field(text, field) {
                Some(at) => position(text, at, *line, column),
                None => (*line, None),
            },
            _ => (*line, None),
        };
        Problem::input(fault.message).at(file, line, column).hint(fault.hint)
    }
}

/// Byte offset of the key `field` of a JSON object. Quotes within strings are escaped, so only a string that equals
/// the name could be mistaken for it, and no colon follows such a one.
fn position_of_field(text: &str, field: &str) -> Option<usize> {
    let key = format!("\"{field}\"");
    text.match_indices(&key)
        .find(|(at, _)| text[at + key.len()..].trim_start().starts_with(':'))
        .map(|(at, _)| at)
}

/// Line and column, in characters from 1, of byte `at` of a text that starts at `line` and `column`.
fn position(text: &str, at: usize, line: usize, column: usize) -> (usize, Option<usize>) {
    let before = &text[..text.floor_char_boundary(at)];
    match before.rfind('\n') {
        Some(newline) => {
            (line + before.matches('\n').count(), Some(before[newline + 1..].chars().count() + 1))
        }
        None => (line, Some(column + before.chars().count())),
    }
}

type Sink<'a> = dyn FnMut(Result<Found<'_>>) -> Result<()> + 'a;

/// Calls `sink` with every record of a file, or with the problem of a row that is none. Returns the first error of
/// `sink`, or of the file as a whole.
fn each_record(path: &Path, fields: &[&str], max_line_bytes: usize, sink: &mut Sink) -> Result<()> {
    let open = || File::open(path).map_err(|error| Problem::io("read", path, &error));
    let mut reader = BufReader::with_capacity(1 << 16, open()?);
    let start = reader.fill_buf().map_err(|error| Problem::io("read", path, &error))?;
    let name = format_of_name(path);
    if start.starts_with(b"PAR1") || name.as_deref() == Some("parquet") {
        return parquet_records(path, open()?, fields, sink);
    }
    let mut reader: Box<dyn BufRead> = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(reader)))
    } else {
        Box::new(reader)
    };
    let start = reader.fill_buf().map_err(|error| damaged(path, 1, &error))?;
    if start.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    let file: Arc<Path> = path.into();
    match name.as_deref() {
        Some("csv") => return csv_records(&file, reader, b',', sink),
        Some("tsv") => return csv_records(&file, reader, b'\t', sink),
        _ => {}
    }
    let start = reader.fill_buf().map_err(|error| damaged(path, 1, &error))?;
    match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => list_records(&file, reader, sink),
        _ => line_records(&file, reader, max_line_bytes, sink),
    }
}

/// A failed read of a stream that may be compressed.
fn damaged(path: &Path, line: usize, error: &io::Error) -> Problem {
    let message = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed file is cut short".to_owned(),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            format!("the compressed file is damaged: {error}")
        }
        _ => return Problem::io("read", path, error),
    };
    Problem::input(message).at(path, line, None).hint("download or copy it again; `gzip -t FILE` tests it")
}

fn line_records(
    file: &Arc<Path>,
    mut reader: Box<dyn BufRead>,
    max_bytes: usize,
    sink: &mut Sink,
) -> Result<()> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let limit = max_bytes as u64 + 1;
        let read = (&mut reader)
            .take(limit)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| damaged(file, line, &error))?;
        if read == 0 {
            break;
        }
        if read > max_bytes {
            return Err(Problem::input(format!("the line is longer than {max_bytes} bytes"))
                .at(file, line, None)
                .hint("JSON lines hold one row each; is this such a file?"));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => sink(json_record(file, text.trim_end(), line, 1))?,
            Err(error) => sink(Err(invalid_utf8(file, &bytes, error.valid_up_to(), line)))?,
        }
    }
    Ok(())
}

fn invalid_utf8(file: &Path, bytes: &[u8], at: usize, line: usize) -> Problem {
    let valid = String::from_utf8_lossy(&bytes[..at]);
    let (line, column) = position(&valid, valid.len(), line, 1);
    Problem::input("invalid UTF-8").at(file, line, column).hint("save the file as UTF-8")
}

fn json_record<'a>(file: &Arc<Path>, text: &'a str, line: usize, column: usize) -> Result<Found<'a>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(Found {
            record: Record { fields, place: Place { file: file.clone(), line } },
            source: Some((text, column)),
        }),
        Ok(_) => Err(Problem::input("the row is not a JSON object")
            .at(file, line, Some(column))
            .hint("a row looks like {\"prompt\": ..., \"chosen\": ..., \"rejected\": ...}")),
        Err(error) => Err(broken_json(file, text, &error, line, column)),
    }
}

fn broken_json(file: &Path, text: &str, error: &serde_json::Error, line: usize, column: usize) -> Problem {
    // serde_json counts columns in bytes, from 1 within a line (and from 0 at its very start).
    let start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let (line, column) =
        position(text, (start + error.column().saturating_sub(1)).min(text.len()), line, column);
    let what = error.to_string();
    let what = what.rsplit_once(" at line").map_or(what.as_str(), |(what, _)| what);
    Problem::input(format!("broken JSON: {what}"))
        .at(file, line, column)
        .hint("each line holds one whole JSON object (or the file is one JSON list of objects)")
}

fn list_records(file: &Arc<Path>, mut reader: Box<dyn BufRead>, sink: &mut Sink) -> Result<()> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|error| damaged(file, 1, &error))?;
    let text =
        std::str::from_utf8(&bytes).map_err(|error| invalid_utf8(file, &bytes, error.valid_up_to(), 1))?;
    let items: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|error| broken_json(file, text, &error, 1, 1))?;
    let (mut at, mut line, mut column) = (0, 1, 1);
    for item in items {
        // Raw values are slices of the text: their address tells where they stand.
        let start = item.get().as_ptr().addr() - text.as_ptr().addr();
        let (to_line, to_column) = position(&text[at..], start - at, line, column);
        (at, line, column) = (start, to_line, to_column.unwrap_or(1));
        sink(json_record(file, item.get(), line, column))?;
    }
    Ok(())
}

fn csv_records(file: &Arc<Path>, reader: Box<dyn BufRead>, delimiter: u8, sink: &mut Sink) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
    let broken = |error: csv::Error| {
        let line = error.position().map_or(1, |position| position.line() as usize);
        match error.kind() {
            csv::ErrorKind::Io(error) => (damaged(file, line, error), true),
            _ => (
                Problem::input(format!("broken CSV: {error}"))
                    .at(file, line, None)
                    .hint("quote fields that hold commas, quotes or line breaks"),
                false,
            ),
        }
    };
    let names: Vec<String> =
        reader.headers().map_err(|error| broken(error).0)?.iter().map(str::to_owned).collect();
    let mut record = csv::ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(()),
            Err(error) => match broken(error) {
                (problem, true) => return Err(problem),
                (problem, false) => sink(Err(problem))?,
            },
            Ok(true) => {
                let line = record.position().map_or(1, |position| position.line() as usize);
                let values = record.iter().map(|field| std::str::from_utf8(field).map(Value::from));
                match names.iter().cloned().zip(values).map(|(name, value)| Ok((name, value?))).collect() {
                    Ok(fields) => sink(Ok(Found {
                        record: Record { fields, place: Place { file: file.clone(), line } },
                        source: None,
                    }))?,
                    Err::<_, std::str::Utf8Error>(_) => sink(Err(Problem::input("invalid UTF-8")
                        .at(file, line, None)
                        .hint("save the file as UTF-8")))?,
                }
            }
        }
    }
}

fn parquet_records(path: &Path, file: File, fields: &[&str], sink: &mut Sink) -> Result<()> {
    let broken = |row: usize, error: &dyn std::fmt::Display| {
        Problem::input(format!("cannot read the Parquet file: {error}"))
            .at(path, row, None)
            .hint("it may be cut short; download or export it again")
    };
    let builder =
        calmly(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(|error| broken(1, &error))?;
    let names: Vec<String> = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let wanted = (0..names.len()).filter(|&index| fields.contains(&names[index].as_str()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let mut reader = calmly(|| builder.with_projection(mask).build()).map_err(|error| broken(1, &error))?;
    let file: Arc<Path> = path.into();
    let mut row = 0;
    while let Some(batch) = calmly(|| reader.next().transpose()).map_err(|error| broken(row + 1, &error))? {
        let columns = batch.columns().iter().map(|column| match column.data_type() {
            DataType::Dictionary(_, values) => arrow::compute::cast(column, values),
            _ => Ok(column.clone()),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|error| broken(row + 1, &error))?;
        let schema = batch.schema();
        for index in 0..batch.num_rows() {
            row += 1;
            // Columns that were not decoded are known by name alone, for the hint about a missing field.
            let mut values: Map<String, Value> =
                names.iter().map(|name| (name.clone(), Value::Null)).collect();
            let mut unreadable = None;
            for (field, column) in schema.fields().iter().zip(&columns) {
                match cell(column, index) {
                    Some(value) => _ = values.insert(field.name().clone(), value),
                    None => unreadable = Some(field),
                }
            }
            let place = Place { file: file.clone(), line: row };
            sink(match unreadable {
                None => Ok(Found { record: Record { fields: values, place }, source: None }),
                Some(field) => {
                    Err(Problem::input(format!("column `{}` is of type {}", field.name(), field.data_type()))
                        .at(path, row, None)
                        .hint("columns hold strings, numbers, or lists of structs with `role` and `content`"))
                }
            })?;
        }
    }
    Ok(())
}

/// The Parquet library panics on some kinds of damage; for a user's file that is an error like any other.
fn calmly<T, E: From<ParquetError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(ParquetError::General("its contents contradict each other".into()).into()))
}

/// One value of an Arrow array; none where its type is none that JSON has.
fn cell(array: &dyn Array, index: usize) -> Option<Value> {
    if array.is_null(index) {
        return Some(Value::Null);
    }
    let list = |items: Arc<dyn Array>| {
        (0..items.len()).map(|item| cell(&items, item)).collect::<Option<_>>().map(Value::Array)
    };
    // NaN is no JSON number; as a word it reaches the check of the field and is refused there.
    let float = |number: f64| {
        serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
    };
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(index).into()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(index).into()),
        DataType::Utf8View => Some(array.as_string_view().value(index).into()),
        DataType::Boolean => Some(array.as_boolean().value(index).into()),
        DataType::Int32 => Some(array.as_primitive::<Int32Type>().value(index).into()),
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(index).into()),
        DataType::Float32 => Some(float(array.as_primitive::<Float32Type>().value(index).into())),
        DataType::Float64 => Some(float(array.as_primitive::<Float64Type>().value(index))),
        DataType::List(_) => list(array.as_list::<i32>().value(index)),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(index)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let values = fields.iter().zip(columns).map(|(field, column)| {
                // A value of another type (a tool call, say) is no reason to refuse a turn that has its text.
                (field.name().clone(), cell(column, index).unwrap_or(Value::Null))
            });
            Some(Value::Object(values.filter(|(_, value)| !value.is_null()).collect()))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
