//! What a person sees while a run works: a bar on a terminal, a line every half minute elsewhere.
//!
//! Every loop of polo reports through one [`Progress`]. All talk goes to stderr, so that data on stdout stays clean.
//! The program sets `--quiet` once with [`set_quiet`].

use std::{
    fs,
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::human;

/// The longest silence of a working run that is not on a terminal.
pub const HEARTBEAT: Duration = Duration::from_secs(30);

static QUIET: AtomicBool = AtomicBool::new(false);

/// Silences bars, heartbeats and [`Progress::say`] of the whole process; errors are not touched.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether colours are welcome on stderr; see [`colours_on`].
pub fn colours() -> bool {
    colours_on(&io::stderr())
}

/// Whether colours are welcome on a stream: it is a terminal and `NO_COLOR` is not set (<https://no-color.org>).
pub fn colours_on(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Highest resident memory of this process so far, in bytes, where the system tells it (Linux).
pub fn peak_memory_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Progress of one loop.
pub struct Progress {
    shared: Arc<Shared>,
    heartbeat: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts reporting. `label` names the work (`train`), `unit` what is counted (`steps`); a `total` of 0 means
    /// that it is not known.
    pub fn new(label: &str, total: u64, unit: &str) -> Self {
        let voice = if QUIET.load(Ordering::Relaxed) {
            Voice::Silent
        } else if io::stderr().is_terminal() {
            Voice::Bar(bar(label, total))
        } else {
            Voice::Lines(Box::new(io::stderr()))
        };
        Self::with_voice(label, total, unit, voice, HEARTBEAT)
    }

    fn with_voice(label: &str, total: u64, unit: &str, voice: Voice, every: Duration) -> Self {
        let speaks_in_lines = matches!(voice, Voice::Lines(_));
        let now = Instant::now();
        let state =
            State { voice, counted: None, values: String::new(), started: now, last_line: now, over: false };
        let shared = Arc::new(Shared {
            label: label.into(),
            total,
            unit: unit.into(),
            state: Mutex::new(state),
            wake: Condvar::new(),
        });
        let heartbeat = speaks_in_lines.then(|| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.beat(every))
        });
        Self { shared, heartbeat }
    }

    /// Tells that `done` of the total are done, with the figures worth showing.
    pub fn step(&self, done: u64, values: &[(&str, f64)]) {
        let shared = &*self.shared;
        let mut state = shared.lock();
        let now = Instant::now();
        let first = state.counted.is_none();
        let (base, since, _) = state.counted.unwrap_or((done, now, done));
        state.counted = Some((base, since, done));
        state.values =
            values.iter().map(|(name, value)| format!(", {name} {}", human::number(*value))).collect();
        if let Voice::Bar(bar) = &state.voice {
            bar.set_position(done);
            bar.set_message(shared.describe(&state, now));
        } else if first || done == shared.total {
            shared.line(&mut state, now);
        }
    }

    /// Says a line in between, without tearing the bar.
    pub fn say(&self, line: &str) {
        self.shared.lock().voice.say(line);
    }

    /// Ends the report with how long it took.
    pub fn finish(&self) {
        let shared = &*self.shared;
        let mut state = shared.lock();
        if state.over {
            return;
        }
        state.over = true;
        shared.wake.notify_all();
        let took = human::seconds(state.started.elapsed().as_secs_f64());
        let done = state.counted.map_or(0, |(.., done)| done);
        if let Voice::Bar(bar) = &state.voice {
            bar.finish_and_clear();
        }
        let line =
            format!("{}: {} {} in {took}{}", shared.label, human::count(done), shared.unit, state.values);
        state.voice.say(&line);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            if let (Voice::Bar(bar), false) = (&state.voice, state.over) {
                bar.abandon();
            }
            state.over = true;
        }
        self.shared.wake.notify_all();
        if let Some(thread) = self.heartbeat.take() {
            // It holds nothing that a panic in it could break.
            let _ = thread.join();
        }
    }
}

fn bar(label: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stderr());
    let template = match (total > 0, colours()) {
        (true, true) => "{prefix} {bar:24.cyan/blue} {msg}",
        (true, false) => "{prefix} {bar:24} {msg}",
        (false, _) => "{prefix} {spinner} {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━━─"));
    }
    bar.set_prefix(label.to_string());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

enum Voice {
    Silent,
    Bar(ProgressBar),
    Lines(Box<dyn Write + Send>),
}

impl Voice {
    fn say(&mut self, line: &str) {
        match self {
            Voice::Silent => {}
            Voice::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            // Nobody is left to be told that stderr is closed.
            Voice::Lines(out) => drop(writeln!(out, "{line}").and_then(|()| out.flush())),
        }
    }
}

struct Shared {
    label: String,
    total: u64,
    unit: String,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    voice: Voice,
    /// The first count that was told, when, and the latest one. A resumed loop starts above zero, so the rate
    /// counts from there.
    counted: Option<(u64, Instant, u64)>,
    values: String,
    started: Instant,
    last_line: Instant,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs on its own thread, so that a step of many minutes does not fall silent.
    fn beat(&self, every: Duration) {
        let mut state = self.lock();
        while !state.over {
            let silent = state.last_line.elapsed();
            if silent >= every {
                self.line(&mut state, Instant::now());
                continue;
            }
            state = self.wake.wait_timeout(state, every - silent).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn line(&self, state: &mut State, now: Instant) {
        let line = format!("{}: {}", self.label, self.describe(state, now));
        state.last_line = now;
        state.voice.say(&line);
    }

    /// `120/1,000 steps (12 %), 3.210 steps/s, ETA 4 min 33 s, loss 0.4310`.
    fn describe(&self, state: &State, now: Instant) -> String {
        let (base, since, done) = state.counted.unwrap_or((0, now, 0));
        let mut text = human::count(done);
        if self.total > 0 {
            text += &format!("/{}", human::count(self.total));
        }
        text += &format!(" {}", self.unit);
        if let Some(percent) = done.saturating_mul(100).checked_div(self.total) {
            text += &format!(" ({percent} %)");
        }
        let seconds = now.duration_since(since).as_secs_f64();
        let rate = done.saturating_sub(base) as f64 / seconds;
        if rate.is_finite() && rate > 0.0 {
            let shown = if rate < 1e4 { human::number(rate) } else { human::count(rate as u64) };
            text += &format!(", {shown} {}/s", self.unit);
            if self.total > done {
                text += &format!(", ETA {}", human::seconds((self.total - done) as f64 / rate));
            }
        } else if state.counted.is_none() {
            text += &format!(", {} so far", human::seconds(now.duration_since(state.started).as_secs_f64()));
        }
        text + &state.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(data)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(String::from).collect()
        }
    }

    fn start(total: u64, every: Duration) -> (Progress, Memory) {
        let memory = Memory::default();
        let voice = Voice::Lines(Box::new(memory.clone()));
        (Progress::with_voice("train", total, "steps", voice, every), memory)
    }

    #[test]
    fn first_and_last_step_are_told_and_the_rest_is_silent() {
        let (progress, memory) = start(1_000, HEARTBEAT);
        for done in 998..=1_000 {
            progress.step(done, &[("loss", 0.431)]);
        }
        progress.say("checkpoint written");
        progress.finish();
        progress.finish();
        drop(progress);
        let lines = memory.lines();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0], "train: 998/1,000 steps (99 %), loss 0.4310");
        assert!(
            lines[1].starts_with("train: 1,000/1,000 steps (100 %), ") && lines[1].contains(" steps/s, loss")
        );
        assert_eq!(lines[2], "checkpoint written");
        assert!(lines[3].starts_with("train: 1,000 steps in 0.0") && lines[3].ends_with(" s, loss 0.4310"));
    }

    #[test]
    fn a_long_step_is_not_silent() {
        let (progress, memory) = start(10, Duration::from_millis(20));
        thread::sleep(Duration::from_millis(150));
        progress.step(1, &[]);
        drop(progress);
        let lines = memory.lines();
        assert!(lines.len() >= 3, "{lines:?}");
        assert!(lines[0].starts_with("train: 0/10 steps (0 %), 0.0") && lines[0].ends_with(" so far"));
    }

    #[test]
    fn rate_and_eta_count_from_where_a_resumed_run_began() {
        let (progress, _memory) = start(1_000, HEARTBEAT);
        let mut state = progress.shared.lock();
        let now = Instant::now();
        state.counted = Some((500, now, 600));
        let text = progress.shared.describe(&state, now + Duration::from_secs(50));
        assert_eq!(text, "600/1,000 steps (60 %), 2.000 steps/s, ETA 3 min 20 s");
    }

    #[test]
    fn an_unknown_total_has_neither_share_nor_eta() {
        let (progress, memory) = start(0, HEARTBEAT);
        progress.step(7, &[]);
        assert_eq!(memory.lines(), ["train: 7 steps"]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn peak_memory_counts_what_was_touched() {
        let touched = vec![1_u8; 64 << 20];
        let peak = peak_memory_bytes().unwrap();
        assert!(peak > touched.iter().map(|byte| u64::from(*byte)).sum(), "{peak}");
    }
}
