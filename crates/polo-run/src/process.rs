//! The loop of a run that goes on step by step: folder, metrics, progress, evaluation, checkpoints, interrupts, report.
//!
//! Families say in a [`Process`] what a step is; [`run`] keeps the contract of a run around it.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::json;

use crate::{
    Kind, Problem, Result,
    checkpoint::Checkpoints,
    config::Loaded,
    folder::{Resume, RunFolder},
    guard::{Guard, OnNonFinite},
    human,
    interrupt::Interrupt,
    metrics::{MetricLog, Metrics, Split},
    progress::{self, Progress},
    report,
};

/// What a run does.
pub trait Process {
    /// Steps done.
    fn done(&self) -> u64;

    /// Steps that the run has in all.
    fn total(&self) -> u64;

    /// Takes one step, or as many as go together.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn go_on(&mut self) -> Result<Metrics>;

    /// Whether the run cannot go on once this metric is no finite number.
    fn must_be_finite(&self, metric: &str) -> bool {
        metric.starts_with("losses/")
    }

    /// What has been reached so far, and a line for people. Called as often as the cadence says, and at the end.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        Ok(None)
    }

    /// Writes everything that a checkpoint must hold into an existing folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    fn save(&self, folder: &Path) -> Result<()>;

    /// Takes up what [`Process::save`] wrote.
    ///
    /// # Errors
    /// Files that are missing, torn or of another run.
    fn load(&mut self, folder: &Path) -> Result<()>;

    /// Writes what the run leaves behind, into a path where nothing is yet.
    ///
    /// # Errors
    /// The path cannot be written.
    fn finish(&self, path: &Path) -> Result<()>;
}

impl<P: Process + ?Sized> Process for Box<P> {
    fn done(&self) -> u64 {
        (**self).done()
    }

    fn total(&self) -> u64 {
        (**self).total()
    }

    fn go_on(&mut self) -> Result<Metrics> {
        (**self).go_on()
    }

    fn must_be_finite(&self, metric: &str) -> bool {
        (**self).must_be_finite(metric)
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        (**self).evaluate()
    }

    fn save(&self, folder: &Path) -> Result<()> {
        (**self).save(folder)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        (**self).load(folder)
    }

    fn finish(&self, path: &Path) -> Result<()> {
        (**self).finish(path)
    }
}

/// How often a run writes what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Metrics, every so many steps at most. 0: after every hundredth of the run.
    pub log_every: u64,
    /// An evaluation, every so many steps and at the end. 0: at the end only.
    pub evaluate_every: u64,
    /// A checkpoint, every so many steps and at the end. 0: at the end only.
    pub checkpoint_every: u64,
    /// Checkpoints to keep.
    pub keep_checkpoints: usize,
}

/// What a run is called.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The method.
    pub method: &'a str,
    /// Of its steps, in the plural.
    pub unit: &'a str,
    /// What the metric that is shown on the way is called there, and the metric.
    pub watched: (&'a str, &'a str),
    /// Keys whose change does not change what a resumed run computes.
    pub free: &'a [&'a str],
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it left behind.
    pub left: PathBuf,
    /// Metrics of the last evaluation, or of the last lines of the log where nothing is evaluated.
    pub metrics: Metrics,
}

/// Runs to the end. `out` is the run folder; `build` makes the process before its first step.
///
/// # Errors
/// Those of the process; a run that diverged; [`Kind::Interrupted`] after a signal, with a checkpoint written.
pub fn run<S, P: Process>(
    loaded: &Loaded<S>,
    labels: Labels<'_>,
    cadence: Cadence,
    out: &Path,
    resume: Resume,
    build: impl FnOnce() -> Result<P>,
) -> Result<Outcome> {
    let interrupt = Interrupt::install()?;
    let folder = RunFolder::open(out, resume)?;
    let mut process = build()?;
    folder.settle(&loaded.given, &loaded.resolved, labels.free)?;
    let checkpoints = Checkpoints::new(folder.checkpoints(), cadence.keep_checkpoints)?;
    let latest = checkpoints.latest()?;
    latest.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    // A step that is not finite has reached what is learnt already: there is nothing to skip.
    let mut guard = Guard::new(OnNonFinite::Stop);
    let (mut last_good, mut waiting) = (None, Vec::<(String, f64)>::new());
    if let Some(checkpoint) = &latest.checkpoint {
        process.load(&checkpoint.path)?;
        waiting = serde_json::from_value(checkpoint.meta["pending"].clone()).unwrap_or_default();
        last_good = Some(checkpoint.path.clone());
    }
    let mut log = MetricLog::open(out, latest.checkpoint.as_ref().map(|checkpoint| checkpoint.step))?;
    let total = process.total();
    let log_every = if cadence.log_every > 0 { cadence.log_every } else { (total / 100).max(1) };
    let bar = Progress::new(labels.method, total, labels.unit);
    if process.done() > 0 {
        bar.say(&format!("resumed after step {}", human::count(process.done())));
    }
    let mut metrics = Metrics::new();
    // What waits for its line in the log; a checkpoint between two lines holds it.
    let mut pending: Metrics = waiting.into_iter().collect();
    let (mut logged, mut clock) = (process.done(), Instant::now());
    while process.done() < total {
        let before = process.done();
        let found = process.go_on()?;
        let done = process.done();
        for (name, value) in found.iter() {
            if !value.is_finite() && process.must_be_finite(name) {
                guard.check(done, name, value, &[], last_good.as_deref())?;
            }
        }
        pending.merge(&found);
        let (name, metric) = labels.watched;
        let watched: Vec<_> = pending.get(metric).map(|value| (name, value)).into_iter().collect();
        bar.step(done.min(total), &watched);
        let passed = |every: u64| every > 0 && done / every > before / every;
        let ends = done >= total;
        if passed(log_every) || ends {
            log.write(done, Split::Train, &pending)?;
            let mut timings = Metrics::new();
            timings.set(
                format!("{}_per_second", labels.unit),
                (done - logged) as f64 / clock.elapsed().as_secs_f64(),
            );
            if let Some(peak) = progress::peak_memory_bytes() {
                timings.set("peak_memory_bytes", peak as f64);
            }
            log.write_timings(done, Split::Train, &timings)?;
            (logged, clock) = (done, Instant::now());
            metrics = std::mem::take(&mut pending);
        }
        if (passed(cadence.evaluate_every) || ends)
            && let Some((found, line)) = process.evaluate()?
        {
            log.write(done, Split::Eval, &found)?;
            bar.say(&format!("step {}: {line}", human::count(done)));
            metrics = found;
        }
        let stop = interrupt.requested() && !ends;
        if passed(cadence.checkpoint_every) || ends || stop {
            let staging = checkpoints.begin(done)?;
            process.save(staging.path())?;
            let pairs: Vec<_> = pending.iter().filter(|(_, value)| value.is_finite()).collect();
            last_good = Some(checkpoints.finish(staging, json!({"pending": pairs}))?.path);
        }
        if stop {
            bar.finish();
            return Err(Problem::new(Kind::Interrupted, format!("stopped after step {done}, as asked"))
                .hint("continue with the same command and --resume auto"));
        }
    }
    bar.finish();
    let left = folder.final_model()?;
    process.finish(&left)?;
    let words = report::Words { method: labels.method, steps: labels.unit, evaluated: "evaluated" };
    report::training_report(out, words)?;
    Ok(Outcome { left, metrics })
}
