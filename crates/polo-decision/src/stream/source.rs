//! Where decisions come from: files of logged ones, read piece by piece, or a simulated world.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, copy, sink},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use polo_run::{Problem, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    columns::{self, Cell, Rows},
    settings::{Data, Format, OnBadLine},
    text,
};
use crate::{dsjson, features::Decision};

/// What a piece of a log holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// A decision.
    Decision(Decision),
    /// Something else that may stand in such a log: a line that asks to be left out, or one without actions.
    Other,
}

/// Why a piece of a log cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What is wrong.
    pub what: String,
    /// In which line of the piece, counted from 0.
    pub line: usize,
    /// At which column, counted from 1, if that is known.
    pub column: Option<usize>,
}

/// How far files have been read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Which file.
    file: usize,
    /// Bytes of it.
    offset: u64,
    /// Lines of it.
    line: u64,
    /// Lines of all files.
    pub lines: u64,
}

/// What was found in a piece.
pub enum Found {
    /// Something that may stand there.
    Line(Line),
    /// A line that cannot be used.
    Bad,
}

/// Pieces that are parsed together, in parallel, and learnt one after the other, and bytes of them, about: a decision among
/// a million actions takes much memory.
const CHUNK: usize = 512;
const CHUNK_BYTES: usize = 16 << 20;
/// A record of CSV that has line ends between quotes is not longer: else a quote that is not closed would take all that
/// follows with it.
const MOST_QUOTED: usize = 1 << 16;

const REMEDY: &str = "mend it, or --set data.on_bad_line=skip leaves such lines out and counts them";

/// Files of logged decisions.
pub struct Files {
    paths: Vec<PathBuf>,
    format: Format,
    on_bad_line: OnBadLine,
    rows: Option<Rows>,
    reader: Option<Box<dyn BufRead + Send>>,
    /// Lines of all files.
    pub total: u64,
    /// What can be done about a line that is no decision.
    pub remedy: &'static str,
}

/// A piece of a file: a line, or the lines of a decision.
struct Piece {
    file: usize,
    /// Its first line, counted from 1.
    line: u64,
    bytes: Vec<u8>,
}

impl Files {
    /// Opens the files, and those of folders in the order of their names, and counts their lines. CSV files that do not say
    /// which actions are available have all those that they name, and those that are `known`.
    ///
    /// # Errors
    /// Files that cannot be read or hold nothing; CSV files whose columns differ or are not what they should be.
    pub fn open(data: &Data, known: &[String]) -> Result<Self> {
        let data = &Data { train: expanded(&data.train)?, ..data.clone() };
        let format = match data.format {
            Format::Auto => detected(&data.train)?,
            format => format,
        };
        let (mut total, mut headers, mut seen) = (0, None, known.iter().cloned().collect());
        for path in &data.train {
            total += match format {
                Format::Csv => scan(path, data, &mut headers, &mut seen)?,
                _ => count_lines(path)?,
            };
        }
        if total == 0 {
            let first = data.train.first().map_or_else(String::new, |path| path.display().to_string());
            return Err(Problem::input("there is no line in the log").place(first));
        }
        if format == Format::Csv && total <= data.train.len() as u64 {
            let first = data.train[0].display().to_string();
            return Err(Problem::input("there is no row below the names of the columns").place(first));
        }
        let rows = match &headers {
            Some((_, headers)) => {
                // A policy that was learnt needs neither columns that do not matter nor outcomes.
                let columns = match (known.is_empty(), data.columns.lacks_outcomes(headers)) {
                    (true, _) => {
                        data.columns.named_in(headers)?;
                        data.columns.clone()
                    }
                    (false, true) => data.columns.without_outcomes(),
                    (false, false) => data.columns.clone(),
                };
                Some(Rows::new(&columns, headers, seen)?)
            }
            None => None,
        };
        let (paths, on_bad_line) = (data.train.clone(), data.on_bad_line);
        Ok(Self { paths, format, on_bad_line, rows, reader: None, total, remedy: REMEDY })
    }

    /// Of CSV files: [`Rows::names`].
    pub fn actions(&self) -> Vec<String> {
        self.rows.as_ref().map_or_else(Vec::new, Rows::names)
    }

    /// The files, those of folders one by one.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Begins to read at a place.
    pub fn rewind(&mut self) {
        self.reader = None;
    }

    /// What the next pieces hold, in order; nothing at the end.
    ///
    /// # Errors
    /// Files that cannot be read; a piece that cannot be used, if such ones stop the run.
    pub fn next(&mut self, place: &mut Place) -> Result<Vec<Found>> {
        let pieces = self.pieces(place)?;
        let (rows, format) = (self.rows.as_ref(), self.format);
        let parsed: Vec<_> = pieces.par_iter().map(|piece| parse(piece, rows, format)).collect();
        let skip = self.on_bad_line == OnBadLine::Skip;
        let found = |(piece, parsed): (&Piece, Result<Line, Flaw>)| match parsed {
            Ok(line) => Ok(Found::Line(line)),
            Err(_) if skip => Ok(Found::Bad),
            Err(Flaw { what, line, column }) => {
                let (path, number) = (self.paths[piece.file].display(), piece.line + line as u64);
                let place = match column {
                    Some(column) => format!("{path}:{number}:{column}"),
                    None => format!("{path}:{number}"),
                };
                let mut hint = self.remedy.to_owned();
                if number == 1 {
                    // Perhaps none of the others is one either.
                    let format = format!("{format:?}").to_lowercase();
                    hint = format!("it was read as {format}, by the file's name or data.format; {hint}");
                }
                Err(Problem::input(format!("the line is no decision: {what}")).place(place).hint(hint))
            }
        };
        pieces.iter().zip(parsed).map(found).collect()
    }

    fn pieces(&mut self, place: &mut Place) -> Result<Vec<Piece>> {
        let (mut pieces, mut bytes) = (Vec::with_capacity(CHUNK), 0);
        while pieces.len() < CHUNK && bytes < CHUNK_BYTES && place.file < self.paths.len() {
            let path = &self.paths[place.file];
            let failed = |error: std::io::Error| Problem::io("read", path, &error);
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => self.reader.insert(begin(path, place)?),
            };
            let mut piece = Piece { file: place.file, line: place.line + 1, bytes: Vec::new() };
            let mut cell = Cell::default();
            // After the first line.
            let mut first: Option<(Place, usize)> = None;
            loop {
                let before = piece.bytes.len();
                let read = reader.read_until(b'\n', &mut piece.bytes).map_err(failed)?;
                if let Some((after, length)) = &first
                    && cell == Cell::Quoted
                    && (read == 0 || piece.bytes.len() > MOST_QUOTED)
                {
                    // The line alone is bad: those that follow are read anew.
                    piece.bytes.truncate(*length);
                    *place = after.clone();
                    *reader = reader_at(path, place.offset).map_err(failed)?;
                    break;
                }
                if read == 0 {
                    break;
                }
                place.offset += read as u64;
                place.line += 1;
                place.lines += 1;
                let goes_on = match self.format {
                    // A cell may hold line ends between quotes.
                    Format::Csv => {
                        cell = cell.after(&piece.bytes[before..]);
                        first.get_or_insert((place.clone(), piece.bytes.len()));
                        cell == Cell::Quoted
                    }
                    Format::Text => !piece.bytes[before..].trim_ascii().is_empty(),
                    Format::Auto | Format::Dsjson => false,
                };
                if !goes_on {
                    break;
                }
            }
            match piece.bytes.is_empty() {
                true => {
                    self.reader = None;
                    if place.file + 1 == self.paths.len() {
                        // Stays here: the log may go on later.
                        break;
                    }
                    *place = Place { file: place.file + 1, lines: place.lines, ..Place::default() };
                }
                // The names of columns.
                false if self.format == Format::Csv && piece.line == 1 => {}
                false => {
                    bytes += piece.bytes.len();
                    pieces.push(piece);
                }
            }
        }
        Ok(pieces)
    }
}

fn parse(piece: &Piece, rows: Option<&Rows>, format: Format) -> Result<Line, Flaw> {
    let whole = |what: String| Flaw { what, line: 0, column: None };
    let text = std::str::from_utf8(&piece.bytes).map_err(|error| {
        let before = &piece.bytes[..error.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Flaw { what: "it is not UTF-8".into(), line, column: Some(before.len() - start + 1) }
    })?;
    // Some programs begin a file with a mark of its encoding.
    let text = if piece.line == 1 { text.trim_start_matches('\u{feff}') } else { text };
    let line = match (rows, format) {
        _ if text.trim().is_empty() => Line::Other,
        (Some(rows), _) => rows.parse(text)?,
        (_, Format::Text) => text::parse(text)?,
        _ => dsjson::parse(text.trim_end()).map_err(|(what, column)| Flaw { what, line: 0, column })?,
    };
    match &line {
        Line::Decision(decision) => decision.flaw().map_or(Ok(line), |flaw| Err(whole(flaw))),
        Line::Other => Ok(line),
    }
}

fn detected(paths: &[PathBuf]) -> Result<Format> {
    let of = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, end)| end) {
            Some("csv") => Format::Csv,
            Some("vw" | "txt" | "dat") => Format::Text,
            _ => Format::Dsjson,
        }
    };
    let first = paths.first().map_or(Format::Dsjson, of);
    match paths.iter().find(|path| of(path) != first) {
        None => Ok(first),
        Some(path) => Err(Problem::usage("the files are not of one format")
            .place(path.display().to_string())
            .hint("data.format says how all of them are to be read")),
    }
}

fn reader_at(path: &Path, offset: u64) -> std::io::Result<Box<dyn BufRead + Send>> {
    let mut file = File::open(path)?;
    let mut magic = [0; 2];
    let packed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    if !packed {
        file.seek(SeekFrom::Start(offset))?;
        return Ok(Box::new(BufReader::with_capacity(1 << 20, file)));
    }
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 20, MultiGzDecoder::new(BufReader::new(file)));
    copy(&mut reader.by_ref().take(offset), &mut sink())?;
    Ok(Box::new(reader))
}

/// A reader that goes on behind what was read before. Where the last line had no end then, its end is read here.
fn begin(path: &Path, place: &mut Place) -> Result<Box<dyn BufRead + Send>> {
    let failed = |error: std::io::Error| Problem::io("read", path, &error);
    if place.offset == 0 {
        return reader_at(path, 0).map_err(failed);
    }
    let mut reader = reader_at(path, place.offset - 1).map_err(failed)?;
    let mut end = Vec::new();
    reader.read_until(b'\n', &mut end).map_err(failed)?;
    match end.split_first() {
        Some((b'\n', _)) | None => {}
        Some((_, rest)) if rest.trim_ascii().is_empty() => place.offset += rest.len() as u64,
        Some(_) => {
            return Err(Problem::input("the line has grown since it was learnt from")
                .at(path, place.line as usize, None)
                .hint("add whole lines to a log"));
        }
    }
    Ok(reader)
}

/// Files as given, and the files of folders by name.
fn expanded(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let failed = |error: std::io::Error| Problem::io("list", path, &error);
        let mut inside = Vec::new();
        for entry in path.read_dir().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if !hidden && entry.path().is_file() {
                inside.push(entry.path());
            }
        }
        if inside.is_empty() {
            return Err(Problem::input(format!("there is no file in the folder {}", path.display())));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn count_lines(path: &Path) -> Result<u64> {
    let failed = |error: std::io::Error| Problem::io("read", path, &error);
    let mut reader = reader_at(path, 0).map_err(failed)?;
    let (mut lines, mut open) = (0, false);
    loop {
        let bytes = reader.fill_buf().map_err(failed)?;
        if bytes.is_empty() {
            return Ok(lines + u64::from(open));
        }
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        open = bytes.last() != Some(&b'\n');
        let count = bytes.len();
        reader.consume(count);
    }
}

/// Counts the lines of a CSV file, and collects the actions that it names.
fn scan(
    path: &Path,
    data: &Data,
    headers: &mut Option<(PathBuf, Vec<String>)>,
    seen: &mut BTreeSet<String>,
) -> Result<u64> {
    let alone = Data { train: vec![path.to_owned()], ..data.clone() };
    let total = count_lines(path)?;
    if total == 0 {
        return Ok(0);
    }
    let mut files = Files {
        paths: alone.train,
        format: Format::Csv,
        on_bad_line: data.on_bad_line,
        rows: None,
        reader: None,
        total,
        remedy: REMEDY,
    };
    let failed = |error: std::io::Error| Problem::io("read", path, &error);
    let mut first = Vec::new();
    reader_at(path, 0).map_err(failed)?.read_until(b'\n', &mut first).map_err(failed)?;
    let first = String::from_utf8_lossy(&first);
    let first = first.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
    let names = columns::cells(first).ok_or_else(|| {
        Problem::input("its first line does not name columns")
            .at(path, 1, None)
            .hint("lines end with a line feed; cells are parted by commas")
    })?;
    let names: Vec<String> = names.iter().map(|cell| cell.trim().to_owned()).collect();
    if let Some(twice) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
        let what = format!("the column `{}` stands twice", names[twice]);
        return Err(Problem::input(what).at(path, 1, None));
    }
    match headers {
        None => *headers = Some((path.to_owned(), names)),
        Some((other, before)) if *before != names => {
            let what = format!("its columns are not those of {}", other.display());
            return Err(Problem::input(what).at(path, 1, None));
        }
        Some(_) => {}
    }
    let Some((_, names)) = headers else { return Ok(total) };
    let mut place = Place::default();
    loop {
        let pieces = files.pieces(&mut place)?;
        if pieces.is_empty() {
            return Ok(total);
        }
        for piece in pieces {
            let record = String::from_utf8_lossy(&piece.bytes);
            Rows::actions_of(&data.columns, names, &record, seen);
        }
    }
}
