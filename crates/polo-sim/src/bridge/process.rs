//! The Python process behind a [`super::Bridge`]: asked in lines of JSON, with a limit on the wait.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use polo_run::{Kind, Problem, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::BridgeOptions;

const SCRIPT: &str = include_str!("../bridge.py");

/// Lines of its stderr that an error quotes.
const QUOTED_LINES: usize = 15;

pub(super) struct Process {
    id: String,
    options: BridgeOptions,
    child: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
    complaints: Arc<Mutex<VecDeque<String>>>,
    listener: JoinHandle<()>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Failed { error: String, kind: String, trace: Vec<String> },
    Fine(T),
}

impl Process {
    pub(super) fn start(id: &str, options: &BridgeOptions) -> Result<Self> {
        let mut child = Command::new(&options.python)
            .args(["-u", "-c", SCRIPT, id, &Value::Object(options.arguments.clone()).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| cannot_start(&options.python, &error))?;
        let (Some(requests), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(cannot_start(&options.python, &io::ErrorKind::BrokenPipe.into()));
        };
        let (sender, answers) = channel();
        thread::spawn(move || lines(stdout).try_for_each(|line| sender.send(line)));
        let complaints = Arc::new(Mutex::new(VecDeque::new()));
        let heard = Arc::clone(&complaints);
        let listener = thread::spawn(move || {
            for line in lines(stderr) {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.len() == QUOTED_LINES {
                    heard.pop_front();
                }
                heard.push_back(line);
            }
        });
        let (id, options) = (id.to_owned(), options.clone());
        Ok(Self { id, options, child, requests, answers, complaints, listener })
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        // In one piece: the pipe has no buffer on this side.
        let sent = self.requests.write_all(format!("{request}\n").as_bytes());
        // A process that no longer reads has ended, and the answer to expect is the end.
        sent.map_err(|_| self.ended())?;
        self.answer(self.options.timeout)
    }

    /// Waits for an answer.
    pub(super) fn answer<T: DeserializeOwned>(&mut self, timeout: Duration) -> Result<T> {
        let line = match self.answers.recv_timeout(timeout) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
            Err(RecvTimeoutError::Timeout) => {
                self.stop();
                let seconds = timeout.as_secs_f64();
                return Err(self.failed(format!("did not answer within {seconds} s")).hint(
                    "if it only needs longer, set POLO_PYTHON_TIMEOUT to more seconds; else look for what it waits for",
                ));
            }
        };
        match serde_json::from_str(&line) {
            Ok(Answer::Fine(answer)) => Ok(answer),
            Ok(Answer::Failed { error, kind, trace }) => Err(self.told(&error, &kind, &trace)),
            Err(_) => Err(self
                .failed(format!("gave an answer that cannot be read: {line:.200}"))
                .hint("an observation should be an array of numbers, a reward one number")),
        }
    }

    /// An error that the script reported.
    fn told(&self, error: &str, kind: &str, trace: &[String]) -> Problem {
        let id = &self.id;
        let trace = trace.concat();
        let trace = trace.trim_end();
        match kind {
            "missing" => Problem::new(
                Kind::System,
                format!("`{}` cannot import gymnasium: {error}", self.options.python),
            )
            .hint("pip install gymnasium, or set POLO_PYTHON to the interpreter that has it"),
            "unknown" => Problem::usage(format!("Gymnasium does not know `{id}`: {error}"))
                .hint("for an environment of a package of yours, write gym:PACKAGE:ID"),
            "make" => Problem::input(format!(
                "the environment `gym:{id}` could not be made: {error}\n{trace}"
            ))
            .hint("check that gymnasium.make makes it in the same Python; POLO_PYTHON names another one"),
            _ => Problem::input(format!("the environment `gym:{id}` raised an error: {error}\n{trace}"))
                .hint("the error is the environment's own; the lines above say where it was raised"),
        }
    }

    /// The process is gone.
    fn ended(&mut self) -> Problem {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut status = None;
        // Its last words may still be on their way.
        while Instant::now() < deadline && (status.is_none() || !self.listener.is_finished()) {
            status = self.child.try_wait().ok().flatten();
            thread::sleep(Duration::from_millis(5));
        }
        let how = status.map_or_else(|| "closed its output".to_owned(), |status| format!("ended ({status})"));
        self.failed(how).hint("the simulator crashed or left the process; try the same steps in Python alone")
    }

    /// Something that the environment did, with the end of what it wrote to stderr.
    fn failed(&self, what: String) -> Problem {
        let heard = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut message = format!("the environment `gym:{}` {what}", self.id);
        if !heard.is_empty() {
            message.push_str("; its process wrote:");
        }
        for line in heard.iter() {
            message.push_str("\n  ");
            message.push_str(line);
        }
        Problem::input(message)
    }

    fn stop(&mut self) {
        // Either fails only if the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lines until the end, whatever their encoding.
fn lines(from: impl Read) -> impl Iterator<Item = String> {
    let lossy = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    BufReader::new(from).split(b'\n').map_while(io::Result::ok).map(lossy)
}

fn cannot_start(python: &str, error: &io::Error) -> Problem {
    Problem::new(Kind::System, format!("cannot start Python as `{python}`: {error}"))
        .hint("install Python with gymnasium, or set POLO_PYTHON to the interpreter to use")
}
