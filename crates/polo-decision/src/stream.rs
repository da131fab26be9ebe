//! Decision streams: a log is read once, line by line; at each decision the learner says how likely it would have taken
//! each action, and then learns from what was done. What it would have lost is estimated on the way (progressive
//! validation): the mean of pi(a) c / p over decisions with an outcome, pi being the learner's probabilities before it
//! learns from the line, as Vowpal Wabbit reports it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use polo_run::{
    Problem, Result,
    config::{Loaded, Settings},
    folder::{Resume, write_atomic},
    human,
    metrics::Metrics,
    process::{self, Labels, Outcome, Process},
    seed::Seeds,
};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    dsjson::{self, Line},
    explore::Explorer,
    features::{Decision, Interactions},
    oracle::Linear,
    settings::Training,
    train::{FREE, load_state, make_folder, save_state},
};

/// A scheme of exploration as a method: its settings are the scheme.
pub trait ExplorerSettings: Settings + Explorer + Clone + 'static {
    /// The method's name.
    const SLUG: &'static str;
}

/// Everything that decides how a stream is learnt from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound = "E: ExplorerSettings")]
#[schemars(bound = "E: ExplorerSettings")]
pub struct StreamSettings<E> {
    /// The scheme of exploration.
    pub method: E,
    /// The log.
    pub data: Log,
    /// What predicts costs.
    pub oracle: Oracle,
    /// What to write down.
    pub training: Training,
}

impl<E: ExplorerSettings> Settings for StreamSettings<E> {
    fn check(&self) -> Result<()> {
        self.method.check()?;
        self.oracle.interactions()?;
        match self.data.train.is_empty() {
            true => Err(Problem::usage("the method learns from a log of decisions, and none is given")
                .place("data.train")
                .hint("--data FILE.dsjson")),
            false => Ok(()),
        }
    }
}

/// `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Files of logged decisions in Vowpal Wabbit's dsjson, the same as `--data`; several are read one after the other.
    pub train: Vec<PathBuf>,
    /// What to do with a line that cannot be used.
    pub on_bad_line: OnBadLine,
}

/// What to do with a line that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadLine {
    /// Stop with an error that names it.
    #[default]
    Stop,
    /// Leave it out, and count it.
    Skip,
}

/// `[oracle]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Oracle {
    /// The oracle has 2 to this power of weights. Default from Vowpal Wabbit.
    #[schemars(range(min = 1, max = 30))]
    pub bits: u32,
    /// Step size. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub learning_rate: f64,
    /// Namespaces whose features are multiplied, by their first letters, two or three: `["UA"]`.
    pub interactions: Vec<String>,
    /// What is regressed on.
    pub costs: Costs,
    /// Logged probabilities below this count as this. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub least_probability: f64,
}

impl Default for Oracle {
    fn default() -> Self {
        Self {
            bits: 18,
            learning_rate: 0.5,
            interactions: Vec::new(),
            costs: Costs::Mtr,
            least_probability: 0.0,
        }
    }
}

/// What the oracle is fitted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Costs {
    /// The logged action's cost, with the weight 1/p times decisions per action so far.
    #[default]
    Mtr,
    /// Every action's cost: the logged one's is c/p, the others' 0.
    Ips,
    /// Every action's cost: the logged one's is c, the others' 0.
    Direct,
}

impl Oracle {
    fn interactions(&self) -> Result<Interactions> {
        Interactions::new(&self.interactions).map_err(|word| {
            Problem::usage(format!("`{word}` names no namespaces to be multiplied"))
                .place("oracle.interactions")
                .hint("two or three first letters of namespaces, such as [\"UA\"]")
        })
    }

    fn model(&self) -> Result<Linear> {
        Ok(Linear::new(self.bits, self.learning_rate as f32, self.interactions()?))
    }
}

/// What has been seen and lost so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Which file is read, how far, bytes, and how many of its lines.
    file: usize,
    offset: u64,
    line: u64,
    /// Lines of all files.
    lines: u64,
    decisions: u64,
    learned: u64,
    actions: u64,
    other: u64,
    skipped: u64,
    loss: f64,
    weight: f64,
    /// The same since the last row of the table.
    recent: (f64, f64),
    table: Vec<Row>,
}

/// A row of the table of progressive validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    average: f64,
    since_last: f64,
    counter: u64,
    weight: f64,
    label: String,
    prediction: String,
    features: u64,
}

/// Lines that are parsed together, in parallel, and learnt one after the other.
const CHUNK: usize = 512;

struct Stream<E> {
    explorer: E,
    slug: &'static str,
    log: Log,
    settings: Oracle,
    models: Vec<Linear>,
    seeds: Seeds,
    total: u64,
    reader: Option<BufReader<File>>,
    state: State,
}

impl<E: ExplorerSettings> Stream<E> {
    fn new(settings: &StreamSettings<E>) -> Result<Self> {
        let mut total = 0;
        for path in &settings.data.train {
            total += count_lines(path)?;
        }
        if total == 0 {
            return Err(Problem::input("there is no line in the log").place(
                settings.data.train.first().map_or_else(String::new, |path| path.display().to_string()),
            ));
        }
        Ok(Self {
            explorer: settings.method.clone(),
            slug: E::SLUG,
            log: settings.data.clone(),
            settings: settings.oracle.clone(),
            models: vec![settings.oracle.model()?; settings.method.models()],
            seeds: Seeds::new(settings.training.seed),
            total,
            reader: None,
            state: State::default(),
        })
    }

    /// The next lines with their files and numbers; none at the end.
    fn read(&mut self) -> Result<Vec<(usize, u64, Vec<u8>)>> {
        let mut lines = Vec::with_capacity(CHUNK);
        while lines.len() < CHUNK && self.state.file < self.log.train.len() {
            let path = &self.log.train[self.state.file];
            let failed = |error: std::io::Error| Problem::io("read", path, &error);
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None => {
                    let mut file = File::open(path).map_err(failed)?;
                    file.seek(SeekFrom::Start(self.state.offset)).map_err(failed)?;
                    self.reader.insert(BufReader::with_capacity(1 << 20, file))
                }
            };
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 {
                (self.reader, self.state.offset, self.state.line) = (None, 0, 0);
                self.state.file += 1;
                continue;
            }
            self.state.offset += read as u64;
            self.state.line += 1;
            self.state.lines += 1;
            lines.push((self.state.file, self.state.line, line));
        }
        Ok(lines)
    }

    fn take(&mut self, decision: &Decision) {
        self.state.decisions += 1;
        let Some(outcome) = decision.outcome else { return };
        let probabilities = self.probabilities(decision);
        let weight = f64::from(decision.weight);
        let loss = probabilities[outcome.action] * f64::from(outcome.cost / outcome.probability);
        let state = &mut self.state;
        state.loss += weight * loss;
        state.weight += weight;
        state.recent.0 += weight * loss;
        state.recent.1 += weight;
        let before = state.learned;
        state.learned += 1;
        state.actions += decision.actions.len() as u64;
        if state.learned.is_power_of_two() {
            let likeliest = (0..probabilities.len())
                .fold(0, |best, at| if probabilities[at] > probabilities[best] { at } else { best });
            let features = |rows: &[crate::features::Example]| -> usize {
                rows.iter().flat_map(|row| &row.spaces).map(|(_, features)| features.len()).sum()
            };
            let count = decision.actions.len();
            let features = count * features(std::slice::from_ref(&decision.shared))
                + features(&decision.actions)
                + count;
            state.table.push(Row {
                average: state.loss / state.weight,
                since_last: state.recent.0 / state.recent.1,
                counter: state.learned,
                weight: state.weight,
                label: format!("{}:{}:{:.2}", outcome.action, outcome.cost, outcome.probability),
                prediction: format!("{likeliest}:{:.2}", probabilities[likeliest]),
                features: features as u64,
            });
            state.recent = (0.0, 0.0);
        }
        let probability = match self.explorer.plain() {
            true => 1.0,
            false => outcome.probability.max(self.settings.least_probability as f32),
        };
        let ratio = (state.learned as f64 / state.actions as f64) as f32;
        for (number, model) in self.models.iter_mut().enumerate() {
            for _ in 0..self.explorer.repeats(number, before, &self.seeds) {
                match self.settings.costs {
                    Costs::Mtr => {
                        let importance = decision.weight * ratio / probability;
                        model.learn(decision, outcome.action, outcome.cost, importance);
                    }
                    Costs::Ips | Costs::Direct => {
                        let logged = match self.settings.costs {
                            Costs::Direct => outcome.cost,
                            _ => outcome.cost / probability,
                        };
                        for action in 0..decision.actions.len() {
                            let cost = if action == outcome.action { logged } else { 0.0 };
                            model.learn(decision, action, cost, decision.weight);
                        }
                    }
                }
            }
        }
    }

    /// How likely the learner would take each action now.
    fn probabilities(&self, decision: &Decision) -> Vec<f64> {
        let costs: Vec<Vec<f32>> = self.models.iter().map(|model| model.costs(decision)).collect();
        self.explorer.together(&costs, self.state.learned)
    }

    fn model_bytes(&self) -> Vec<u8> {
        self.models.iter().flat_map(Linear::to_bytes).collect()
    }

    /// The table of progressive validation.
    fn table(&self) -> String {
        let mut text = format!(
            "{:<8} {:<10} {:>12} {:>12} {:>18} {:>12} {:>8}\n",
            "average", "since", "example", "example", "current", "current", "current"
        );
        text += &format!(
            "{:<8} {:<10} {:>12} {:>12} {:>18} {:>12} {:>8}\n",
            "loss", "last", "counter", "weight", "label", "predict", "features"
        );
        for Row { average, since_last, counter, weight, label, prediction, features } in &self.state.table {
            text += &format!(
                "{average:<8.6} {since_last:<10.6} {counter:>12} {weight:>12.1} {label:>18} {prediction:>12} \
                 {features:>8}\n"
            );
        }
        text
    }
}

fn count_lines(path: &Path) -> Result<u64> {
    let failed = |error: std::io::Error| Problem::io("read", path, &error);
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
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

impl<E: ExplorerSettings> Process for Stream<E> {
    fn done(&self) -> u64 {
        self.state.lines
    }

    fn total(&self) -> u64 {
        self.total
    }

    fn go_on(&mut self) -> Result<Metrics> {
        let lines = self.read()?;
        if lines.is_empty() {
            return Err(Problem::input("the log has fewer lines than when the run began")
                .hint("leave the files alone while a run reads them"));
        }
        let parsed: Vec<_> = lines
            .par_iter()
            .map(|(_, _, line)| match std::str::from_utf8(line) {
                Err(error) => Err(("it is not UTF-8".to_owned(), Some(error.valid_up_to() + 1))),
                Ok(line) if line.trim().is_empty() => Ok(Line::Other),
                Ok(line) => dsjson::parse(line),
            })
            .collect();
        for ((file, number, _), parsed) in lines.iter().zip(&parsed) {
            match parsed {
                Ok(Line::Decision(decision)) => self.take(decision),
                Ok(Line::Other) => self.state.other += 1,
                Err(_) if self.log.on_bad_line == OnBadLine::Skip => self.state.skipped += 1,
                Err((what, column)) => {
                    let path = self.log.train[*file].display();
                    let place = match column {
                        Some(column) => format!("{path}:{number}:{column}"),
                        None => format!("{path}:{number}"),
                    };
                    return Err(Problem::input(format!("the line is no decision: {what}"))
                        .place(place)
                        .hint(
                            "mend it, or --set data.on_bad_line=skip leaves such lines out and counts them",
                        ));
                }
            }
        }
        let state = &self.state;
        let mut metrics = Metrics::new();
        if state.weight > 0.0 {
            metrics.set("losses/average", state.loss / state.weight);
        }
        metrics.set("stream/decisions", state.decisions as f64);
        metrics.set("stream/learned", state.learned as f64);
        metrics.set("stream/skipped", state.skipped as f64);
        Ok(metrics)
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let State { loss, weight, learned, skipped, decisions, other, .. } = &self.state;
        if *learned == 0 {
            return Err(Problem::input(
                "no decision of the log has an outcome: there is nothing to learn from",
            )
            .hint(
                "`_label_cost`, `_label_probability` and `_labelIndex` tell what was done and what it cost",
            ));
        }
        let mut metrics = Metrics::new();
        metrics.set("losses/average", loss / weight);
        let mut line = format!(
            "average loss {:.6} over {} decisions with an outcome",
            loss / weight,
            human::count(*learned)
        );
        for (count, what) in
            [(decisions - learned, "without one"), (*other, "other lines"), (*skipped, "bad lines skipped")]
        {
            if count > 0 {
                line += &format!(", {} {what}", human::count(count));
            }
        }
        Ok(Some((metrics, line)))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        save_state(&folder.join("stream.json"), &self.state)?;
        write_atomic(&folder.join("model.bin"), &self.model_bytes())
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.state = load_state(&folder.join("stream.json"))?;
        self.reader = None;
        read_models(&mut self.models, &folder.join("model.bin"))
    }

    fn finish(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        write_atomic(&path.join("model.bin"), &self.model_bytes())?;
        write_atomic(&path.join("progressive.txt"), self.table().as_bytes())?;
        let policy = SavedPolicy {
            method: self.slug.into(),
            settings: serde_json::to_value(&self.explorer).unwrap_or_default(),
            oracle: self.settings.clone(),
            learned: self.state.learned,
        };
        save_state(&path.join("policy.json"), &policy)
    }
}

/// What a run leaves behind beside the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPolicy {
    /// The scheme of exploration.
    pub method: String,
    /// Its settings.
    pub settings: serde_json::Value,
    /// The oracle's settings.
    pub oracle: Oracle,
    /// Decisions that were learnt from.
    pub learned: u64,
}

fn read_models(models: &mut [Linear], path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    let size = (bytes.len() / models.len()).max(1);
    let whole = bytes.len() == size * models.len();
    match whole && models.iter_mut().zip(bytes.chunks(size)).all(|(model, bytes)| model.take_bytes(bytes)) {
        true => Ok(()),
        false => Err(Problem::input("the model file is torn, or of an oracle of another size")
            .place(path.display().to_string())
            .hint("copy it again, or train anew")),
    }
}

/// Trains. `out` is the run folder.
///
/// # Errors
/// Files that cannot be read; a bad line under a policy of stopping; [`polo_run::Kind::Interrupted`] after a signal, with a
/// checkpoint written.
pub fn train<E: ExplorerSettings>(
    loaded: &Loaded<StreamSettings<E>>,
    out: &Path,
    resume: Resume,
) -> Result<Outcome> {
    let training = &loaded.settings.training;
    let labels =
        Labels { method: E::SLUG, unit: "lines", watched: ("average loss", "losses/average"), free: &FREE };
    process::run(loaded, labels, training.cadence(), out, resume, || Stream::new(&loaded.settings))
}

/// What a run would do, as (what, how much) lines.
///
/// # Errors
/// As the beginning of [`train`].
pub fn plan<E: ExplorerSettings>(settings: &StreamSettings<E>) -> Result<Vec<(String, String)>> {
    let stream = Stream::new(settings)?;
    let lines = [
        ("lines of the log", human::count(stream.total)),
        ("weights of the oracle", human::count(1 << settings.oracle.bits)),
        ("interactions", settings.oracle.interactions.join(" ")),
    ];
    Ok(lines.into_iter().map(|(what, value)| (what.to_owned(), value)).collect())
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
