//! Decision streams: a log is read once, decision by decision; at each the learner says how likely it would have taken each
//! action, and then learns from what was done. What it would have lost is estimated on the way (progressive validation):
//! the mean of pi(a) c / p over decisions with an outcome, pi being the learner's probabilities before it learns from the
//! decision, as Vowpal Wabbit reports it. A simulated stream answers to what the learner itself does.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use polo_run::{
    Problem, Result,
    config::Loaded,
    folder::{Resume, write_atomic},
    human,
    metrics::Metrics,
    process::{self, Labels, Outcome, Process},
    seed::Seeds,
};
use serde::{Deserialize, Serialize};

use crate::{
    draw,
    explore::Situation,
    features::{Decision, Outcome as Done},
    lesson::Lesson,
    oracle::Oracle,
    train::{FREE, load_state, make_folder, save_state},
};

pub mod applied;
pub mod columns;
pub mod saved;
pub mod settings;
pub mod simulated;
pub mod source;
pub mod text;

pub use settings::{ExplorerSettings, StreamSettings};
use simulated::World;
use source::{Files, Found, Line, Place};

/// What has been seen and lost so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// The files of the log, in which a place is one of them by its number.
    files: Vec<PathBuf>,
    place: Place,
    decisions: u64,
    learned: u64,
    actions: u64,
    other: u64,
    skipped: u64,
    /// Decisions with an outcome, and the sums of what they are thought to have cost and of their weights.
    scored: u64,
    loss: f64,
    weight: f64,
    /// The sums since the last row of the table.
    recent: (f64, f64),
    table: Vec<Row>,
    /// What was lost against the best action in hindsight, where the world is known.
    regret: f64,
    /// Outcomes that are not learnt yet, with the number of their decision.
    pending: VecDeque<(u64, Decision)>,
    /// Decisions when outcomes were last learnt.
    flushed: u64,
    /// Bytes of `decisions.jsonl`.
    written: u64,
    /// First letters of namespaces that features were in, and whether some were of all actions.
    letters: BTreeSet<u8>,
    shared: bool,
    /// Costs outside of what the scheme was told.
    outside: u64,
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

/// Decisions of a simulated stream between two looks at the clock.
const STRIDE: u64 = 64;

enum Source {
    Files(Files),
    World(Box<World>, u64),
}

struct Stream<E> {
    settings: StreamSettings<E>,
    oracle: Box<dyn Oracle>,
    seeds: Seeds,
    source: Source,
    /// Where decisions are written, and the file once it is open.
    output: Option<(PathBuf, Option<BufWriter<File>>)>,
    state: State,
}

/// A line of `decisions.jsonl`.
#[derive(Serialize)]
struct Written<'a> {
    /// Counted from 0 over all files.
    decision: u64,
    event: &'a str,
    action: usize,
    probability: f64,
    probabilities: &'a [f64],
}

impl Written<'_> {
    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

fn changed() -> Problem {
    Problem::input("the log has changed since the run began: lines are missing, or stand in another file")
        .hint("leave the files alone until the run has ended; lines may be added at the end of the last one")
}

/// An action drawn from the probabilities, the `number`th with these seeds.
fn drawn(seeds: &Seeds, decision: &Decision, number: u64, probabilities: &[f64]) -> usize {
    draw::categorical(probabilities, &mut seeds.child("actions").rng(&decision.event, number))
}

impl<E: ExplorerSettings> Stream<E> {
    /// `out` is the run folder; without one no decisions are written.
    fn new(settings: &StreamSettings<E>, out: Option<&Path>) -> Result<Self> {
        let source = match settings.simulated.decisions {
            0 => Source::Files(Files::open(&settings.data, &[])?),
            decisions => Source::World(Box::new(World::new(&settings.simulated)?), decisions),
        };
        let files = match &source {
            Source::Files(files) => files.paths().to_vec(),
            Source::World(..) => Vec::new(),
        };
        let output = out.filter(|_| settings.output.decisions);
        let seeds = Seeds::new(settings.training.seed);
        Ok(Self {
            settings: settings.clone(),
            oracle: settings.oracle.models(&settings.method, &seeds)?,
            seeds,
            source,
            output: output.map(|folder| (folder.join("decisions.jsonl"), None)),
            state: State { files, ..State::default() },
        })
    }

    /// How likely the learner would take each action now.
    fn probabilities(&self, decision: &Decision) -> Vec<f64> {
        self.settings.method.decide(&Situation {
            oracle: &*self.oracle,
            decision,
            learned: self.state.learned,
            number: self.state.decisions,
            seeds: &self.seeds,
        })
    }

    /// A decision of a log.
    fn take(&mut self, decision: Decision) -> Result<()> {
        let wanted = decision.outcome.is_some() || self.output.is_some();
        let probabilities = if wanted { self.probabilities(&decision) } else { Vec::new() };
        if self.output.is_some() {
            let action = drawn(&self.seeds, &decision, self.state.decisions, &probabilities);
            self.write(&decision, action, &probabilities)?;
        }
        self.end(decision, &probabilities)
    }

    /// The next decision of the simulated world.
    fn live(&mut self) -> Result<()> {
        let number = self.state.decisions;
        let no_world = || Problem::usage("a log cannot answer to decisions").place("simulated.decisions");
        let Source::World(world, _) = &mut self.source else { return Err(no_world()) };
        let mut asked = world.ask(number, &self.seeds)?;
        let probabilities = self.probabilities(&asked.decision);
        let action = drawn(&self.seeds, &asked.decision, number, &probabilities);
        let Source::World(world, _) = &self.source else { return Err(no_world()) };
        let outcome = world.answer(number, &asked, action, probabilities[action], &self.seeds);
        asked.decision.outcome = Some(outcome);
        let best = asked.costs.iter().copied().fold(f64::INFINITY, f64::min);
        let expected: f64 = asked.costs.iter().zip(&probabilities).map(|(cost, p)| cost * p).sum();
        self.state.regret += expected - best;
        if self.output.is_some() {
            self.write(&asked.decision, action, &probabilities)?;
        }
        self.end(asked.decision, &probabilities)
    }

    fn write(&mut self, decision: &Decision, action: usize, probabilities: &[f64]) -> Result<()> {
        let Some((path, file)) = &mut self.output else { return Ok(()) };
        let written = self.state.written;
        let probability = probabilities[action];
        let (number, event) = (self.state.decisions, &*decision.event);
        let line = Written { decision: number, event, action, probability, probabilities }.line();
        let open = |path: &Path| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
            if file.metadata()?.len() < written {
                let what = "it is shorter than when the checkpoint was written";
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, what));
            }
            file.set_len(written)?;
            let mut file = BufWriter::with_capacity(1 << 16, file);
            std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(written))?;
            std::io::Result::Ok(file)
        };
        let mut add = || {
            let file = match file {
                Some(file) => file,
                None => file.insert(open(path)?),
            };
            file.write_all(&line)
        };
        add().map_err(|error: std::io::Error| Problem::io("write", path, &error))?;
        self.state.written += line.len() as u64;
        Ok(())
    }

    /// Scores a decision that was taken, and learns what has become known.
    fn end(&mut self, decision: Decision, probabilities: &[f64]) -> Result<()> {
        self.state.decisions += 1;
        self.look(&decision);
        if let Some(outcome) = decision.outcome {
            self.score(&decision, outcome, probabilities);
            match (self.settings.feedback.delay, self.settings.feedback.batch) {
                (0, 1) => self.learn(&decision)?,
                _ => self.state.pending.push_back((self.state.decisions, decision)),
            }
        }
        let (now, batch) = (self.state.decisions, self.settings.feedback.batch);
        if now - self.state.flushed >= batch {
            self.state.flushed = now;
            self.learn_known(now.saturating_sub(self.settings.feedback.delay))?;
        }
        Ok(())
    }

    /// Which namespaces there are; all are met soon.
    fn look(&mut self, decision: &Decision) {
        self.state.shared |= !decision.shared.spaces.is_empty();
        let known = |letter: u8| self.state.letters.contains(&letter);
        if self.settings.oracle.interactions.iter().all(|word| word.bytes().all(known)) {
            return;
        }
        let rows = std::iter::once(&decision.shared).chain(&decision.actions);
        self.state.letters.extend(rows.flat_map(|row| &row.spaces).map(|(letter, _)| *letter));
    }

    /// What `oracle.interactions` cannot do as it stands.
    fn without_effect(&self) -> Option<String> {
        let words = &self.settings.oracle.interactions;
        let linear = matches!(
            self.settings.oracle.kind_for(&self.settings.method),
            settings::Kind::Linear | settings::Kind::Ridge
        );
        if words.is_empty() && linear && self.state.shared {
            return Some("what all actions share cannot tell them apart without oracle.interactions".into());
        }
        let unknown = |letter: &char| !self.state.letters.contains(&(*letter as u8));
        let letter = words.iter().flat_map(|word| word.chars()).find(unknown)?;
        let letters: Vec<String> =
            self.state.letters.iter().map(|letter| format!("`{}`", char::from(*letter))).collect();
        Some(format!(
            "no namespace begins with the `{letter}` of oracle.interactions, they begin with {}",
            letters.join(", ")
        ))
    }

    /// Learns outcomes of decisions up to this number, counted from 1.
    fn learn_known(&mut self, number: u64) -> Result<()> {
        while self.state.pending.front().is_some_and(|(taken, _)| *taken <= number) {
            if let Some((_, decision)) = self.state.pending.pop_front() {
                self.learn(&decision)?;
            }
        }
        Ok(())
    }

    fn score(&mut self, decision: &Decision, outcome: Done, probabilities: &[f64]) {
        let weight = f64::from(decision.weight);
        let loss = probabilities[outcome.action] * f64::from(outcome.cost / outcome.probability);
        let state = &mut self.state;
        state.scored += 1;
        if let Some((least, most, _)) = self.settings.method.costs_within() {
            let cost = f64::from(outcome.cost);
            state.outside += u64::from(cost < least - 1e-6 || cost > most + 1e-6);
        }
        state.loss += weight * loss;
        state.weight += weight;
        state.recent.0 += weight * loss;
        state.recent.1 += weight;
        if !state.scored.is_power_of_two() {
            return;
        }
        let likeliest = (0..probabilities.len())
            .fold(0, |best, at| if probabilities[at] > probabilities[best] { at } else { best });
        let features = |action| self.oracle.features(decision, action).len();
        let features: usize = (0..decision.actions.len()).map(features).sum();
        state.table.push(Row {
            average: state.loss / state.weight,
            since_last: state.recent.0 / state.recent.1,
            counter: state.scored,
            weight: state.weight,
            label: format!("{}:{}:{:.2}", outcome.action, outcome.cost, outcome.probability),
            prediction: format!("{likeliest}:{:.2}", probabilities[likeliest]),
            features: features as u64,
        });
        state.recent = (0.0, 0.0);
    }

    fn learn(&mut self, decision: &Decision) -> Result<()> {
        let Some(mut outcome) = decision.outcome else { return Ok(()) };
        let method = &self.settings.method;
        if method.plain() {
            // For all that learns: the second model of DR, too.
            outcome.probability = 1.0;
        }
        let before = self.state.learned;
        self.state.learned += 1;
        self.state.actions += decision.actions.len() as u64;
        let lesson = Lesson {
            decision,
            outcome,
            probability: outcome.probability.max(self.settings.oracle.least_probability as f32),
            ratio: match method.need() {
                // Beliefs count every outcome once.
                crate::explore::Need::Posterior => 1.0,
                _ => (self.state.learned as f64 / self.state.actions as f64) as f32,
            },
            learned: before,
            costs: self.settings.oracle.costs,
        };
        method.teach(&mut *self.oracle, &lesson, &self.seeds)
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

    fn metrics(&self) -> Metrics {
        let state = &self.state;
        let mut metrics = Metrics::new();
        if state.weight > 0.0 {
            metrics.set("losses/average", state.loss / state.weight);
        }
        if matches!(self.source, Source::World(..)) && state.decisions > 0 {
            metrics.set("stream/regret", state.regret / state.decisions as f64);
        }
        metrics.set("stream/decisions", state.decisions as f64);
        metrics.set("stream/learned", state.learned as f64);
        metrics.set("stream/skipped", state.skipped as f64);
        metrics
    }
}

impl<E: ExplorerSettings> Process for Stream<E> {
    fn done(&self) -> u64 {
        match &self.source {
            Source::Files(_) => self.state.place.lines,
            Source::World(..) => self.state.decisions,
        }
    }

    fn total(&self) -> u64 {
        match &self.source {
            Source::Files(files) => files.total,
            Source::World(_, decisions) => *decisions,
        }
    }

    fn go_on(&mut self) -> Result<Metrics> {
        match &mut self.source {
            Source::World(..) => {
                for _ in 0..STRIDE.min(self.total() - self.done()) {
                    self.live()?;
                }
            }
            Source::Files(files) => {
                let before = self.state.place.lines;
                let found = files.next(&mut self.state.place)?;
                if self.state.place.lines == before {
                    return Err(changed());
                }
                for one in found {
                    match one {
                        Found::Line(Line::Decision(decision)) => self.take(decision)?,
                        Found::Line(Line::Other) => self.state.other += 1,
                        Found::Bad => self.state.skipped += 1,
                    }
                }
            }
        }
        if self.done() >= self.total() {
            // What is late is known by now.
            self.learn_known(u64::MAX)?;
        }
        if let Some((path, Some(file))) = &mut self.output {
            file.flush().map_err(|error| Problem::io("write", path, &error))?;
        }
        Ok(self.metrics())
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let State { loss, weight, scored, skipped, decisions, other, regret, .. } = &self.state;
        if *scored == 0 {
            let mut what = "no decision of the log has an outcome: there is nothing to learn from".to_owned();
            if *other + *skipped > 0 {
                what += &format!(
                    "; {} lines are no decisions, and {} bad ones were left out",
                    human::count(*other),
                    human::count(*skipped)
                );
            }
            return Err(Problem::input(what)
            .hint("what was done, what it cost and how likely it was (in dsjson `_labelIndex`, `_label_cost` and \
                   `_label_probability`); a decision in dsjson lists its actions in `a`"));
        }
        let mut line = format!(
            "average loss {:.6} over {} decisions with an outcome",
            loss / weight,
            human::count(*scored)
        );
        if matches!(self.source, Source::World(..)) {
            line += &format!(", regret {:.6} per decision", regret / *decisions as f64);
        }
        for (count, what) in
            [(decisions - scored, "without one"), (*other, "other lines"), (*skipped, "bad lines skipped")]
        {
            if count > 0 {
                line += &format!(", {} {what}", human::count(count));
            }
        }
        if let (1.., Some((least, most, keys))) = (self.state.outside, self.settings.method.costs_within()) {
            let count = human::count(self.state.outside);
            line += &format!("; {count} costs lie outside of {least} to {most}, which is {keys}");
        }
        if let Some(what) = self.without_effect() {
            line += &format!("; {what}");
        }
        let mut metrics = Metrics::new();
        metrics.set("losses/average", loss / weight);
        if matches!(self.source, Source::World(..)) {
            metrics.set("stream/regret", regret / *decisions as f64);
        }
        Ok(Some((metrics, line)))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        save_state(&folder.join("stream.json"), &self.state)?;
        write_atomic(&folder.join(saved::MODEL), &self.oracle.to_bytes())
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.state = load_state(&folder.join("stream.json"))?;
        if let Source::Files(files) = &mut self.source {
            files.rewind();
            if self.state.place.lines > files.total || !files.paths().starts_with(&self.state.files) {
                return Err(changed());
            }
            self.state.files = files.paths().to_vec();
        }
        saved::read_models(&mut *self.oracle, &folder.join(saved::MODEL))
    }

    fn finish(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        write_atomic(&path.join(saved::MODEL), &self.oracle.to_bytes())?;
        write_atomic(&path.join("progressive.txt"), self.table().as_bytes())?;
        let StreamSettings { method, data, oracle, training, .. } = &self.settings;
        let policy = saved::SavedPolicy {
            method: E::SLUG.into(),
            settings: serde_json::to_value(method).unwrap_or_default(),
            oracle: oracle.clone(),
            columns: data.columns.clone(),
            actions: match &self.source {
                Source::Files(files) => files.actions(),
                Source::World(..) => Vec::new(),
            },
            learned: self.state.learned,
            seed: training.seed,
        };
        save_state(&path.join(saved::POLICY), &policy)
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
    let settings = &loaded.settings;
    let unit = if settings.simulated.decisions > 0 { "decisions" } else { "lines" };
    let labels = Labels { method: E::SLUG, unit, watched: ("average loss", "losses/average"), free: &FREE };
    process::run(loaded, labels, settings.training.cadence(), out, resume, || {
        Stream::new(settings, Some(out))
    })
}

/// The mean regret per decision of a simulated stream, after each of these numbers of decisions, in rising order.
///
/// # Errors
/// As the beginning of [`train`]; a log instead of a simulated stream.
pub fn regrets<E: ExplorerSettings>(settings: &StreamSettings<E>, after: &[u64]) -> Result<Vec<f64>> {
    let mut stream = Stream::new(settings, None)?;
    let mut at = |decisions: u64| {
        while stream.state.decisions < decisions {
            stream.live()?;
        }
        Ok(stream.state.regret / decisions as f64)
    };
    after.iter().map(|decisions| at(*decisions)).collect()
}

/// What a run would do, as (what, how much) lines.
///
/// # Errors
/// As the beginning of [`train`].
pub fn plan<E: ExplorerSettings>(settings: &StreamSettings<E>) -> Result<Vec<(String, String)>> {
    let stream = Stream::new(settings, None)?;
    let mut lines = match &stream.source {
        Source::Files(files) => vec![("lines of the log", human::count(files.total))],
        Source::World(_, decisions) => vec![("simulated decisions", human::count(*decisions))],
    };
    let kind = settings.oracle.kind_for(&settings.method);
    lines.push(("oracle", format!("{kind:?}").to_lowercase()));
    if kind == settings::Kind::Linear {
        lines.push(("weights of each model", human::count(1 << settings.oracle.bits)));
    }
    lines.push((
        "models",
        (settings.method.models() + settings.method.scorers(settings.oracle.costs)).to_string(),
    ));
    let interactions = match settings.oracle.interactions.as_slice() {
        [] => "none".into(),
        words => words.join(" "),
    };
    lines.push(("interactions", interactions));
    Ok(lines.into_iter().map(|(what, value)| (what.to_owned(), value)).collect())
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
