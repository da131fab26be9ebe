//! A language model as judge, behind an OpenAI-compatible chat-completions API (vLLM, llama.cpp, hosted services).
//!
//! Each pair of answers is shown twice, in both orders, and the verdicts are averaged, since such judges favour a
//! position. What the server said is kept in a file under a key of everything that was asked, so that an evaluation
//! that is repeated, or broken off and taken up again, pays for no answer twice.

use std::{
    collections::{HashMap, HashSet},
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use polo_run::{Kind, Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use ureq::{Agent, http::Response};

use super::{Comparison, Judge};
use crate::{read::hex, rows::Text};

const TEMPLATE: &str = "You compare two responses to the same prompt. Judge how helpful, correct and clear they are. \
    Length alone is no merit, and neither is the order in which they stand.\n\n\
    [Prompt]\n{prompt}\n\n[Response A]\n{a}\n\n[Response B]\n{b}\n\n\
    Which response is better? End with a line that holds your verdict alone: A, B or TIE.";

/// How a language model judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelJudgeSettings {
    /// Base URL of the API, e.g. `http://localhost:8000/v1`.
    pub url: String,
    /// The model's name on that server.
    pub name: String,
    /// The environment variable that holds the API key; without it, no key is sent.
    pub key_env: Option<String>,
    /// What the judge is asked; holds `{prompt}`, `{a}` and `{b}` once each. It must ask for a last line of A, B or
    /// TIE.
    pub template: String,
    /// Sampling temperature; the server's own if unset (some models refuse any other). 0 repeats best.
    #[schemars(range(min = 0.0))]
    pub temperature: Option<f64>,
    /// Ask in both orders and average: twice the requests, no favour to a position.
    pub swap: bool,
    /// File (JSONL) in which the server's replies are kept and looked up.
    pub cache: Option<PathBuf>,
    /// The most requests that may be sent, repeated ones included.
    #[schemars(range(min = 1))]
    pub max_requests: u64,
    /// Requests that are under way at once.
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: usize,
    /// Seconds that one request may take.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub timeout: f64,
    /// How often a request is repeated after a time-out, a broken connection, or a status 408, 429 or 5xx.
    #[schemars(range(max = 20))]
    pub retries: u32,
    /// Seconds before the first repetition; doubled for each further one. A server's Retry-After takes precedence.
    #[schemars(range(min = 0.0))]
    pub backoff: f64,
    /// The longest wait before a repetition, in seconds. A Retry-After beyond it is an error.
    #[schemars(range(min = 0.0))]
    pub max_backoff: f64,
}

impl Default for ModelJudgeSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            name: String::new(),
            key_env: None,
            template: TEMPLATE.into(),
            temperature: None,
            swap: true,
            cache: None,
            max_requests: 10_000,
            concurrency: 4,
            timeout: 120.0,
            retries: 5,
            backoff: 1.0,
            max_backoff: 60.0,
        }
    }
}

impl ModelJudgeSettings {
    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// No URL or model named, a template without its placeholders, a number out of its range.
    pub fn check(&self) -> Result<()> {
        if !(self.url.starts_with("http://") || self.url.starts_with("https://")) {
            return Err(Problem::usage(format!("the judge's `url` is {:?}", self.url))
                .hint("give the base URL of an OpenAI-compatible API, e.g. http://localhost:8000/v1"));
        }
        if self.name.is_empty() {
            return Err(Problem::usage("the judge's model has no `name`")
                .hint("give the name under which the server knows the model"));
        }
        for placeholder in ["{prompt}", "{a}", "{b}"] {
            let count = self.template.matches(placeholder).count();
            if count != 1 {
                return Err(Problem::usage(format!(
                    "the judge's `template` holds {placeholder} {count} times, not once"
                )));
            }
        }
        let waits = [self.backoff, self.max_backoff, self.temperature.unwrap_or(0.0)];
        // A day: far beyond use, and within what a duration can hold.
        let sane = |seconds: &f64| (0.0..=86_400.0).contains(seconds);
        if !(self.timeout > 0.0 && sane(&self.timeout) && waits.iter().all(sane)) {
            return Err(Problem::usage("a time of the judge is negative, no number, or beyond a day")
                .hint("timeout, backoff and max_backoff are seconds"));
        }
        if self.concurrency == 0 || self.max_requests == 0 {
            return Err(Problem::usage("`concurrency` and `max_requests` of the judge are at least 1"));
        }
        Ok(())
    }
}

/// What asking has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests sent, repeated ones included.
    pub requests: u64,
    /// Questions answered from the cache.
    pub cached: u64,
    /// Replies without a readable verdict, cached ones included.
    pub unparseable: u64,
}

/// See the module's description.
pub struct ModelJudge {
    settings: ModelJudgeSettings,
    key: Option<String>,
    agent: Agent,
    cache: Mutex<Cache>,
    requests: AtomicU64,
    cached: AtomicU64,
    unparseable: AtomicU64,
}

impl ModelJudge {
    /// Reads the cache; asks nothing yet. `environment` looks up the variable that holds the key.
    ///
    /// # Errors
    /// As [`ModelJudgeSettings::check`]; a key that is not set; a cache that cannot be read or that another process
    /// holds.
    pub fn new(settings: &ModelJudgeSettings, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        settings.check()?;
        let key = settings.key_env.as_ref().map(|name| {
            environment(name).filter(|key| !key.trim().is_empty()).ok_or_else(|| {
                Problem::usage(format!("the environment variable {name} holds no API key")).hint(format!(
                    "set {name}, or leave the judge's `key_env` out if the server needs no key"
                ))
            })
        });
        let mut config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(settings.timeout)))
            .max_idle_connections_per_host(settings.concurrency)
            .http_status_as_error(false);
        // A server on this machine is never behind a proxy.
        let host = settings.url.split("://").nth(1).unwrap_or_default();
        if ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local)) {
            config = config.proxy(None);
        }
        Ok(Self {
            key: key.transpose()?.map(|key| key.trim().to_owned()),
            agent: config.build().into(),
            cache: Mutex::new(Cache::open(settings.cache.as_deref())?),
            requests: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            unparseable: AtomicU64::new(0),
            settings: settings.clone(),
        })
    }

    /// What asking has cost so far.
    pub fn usage(&self) -> Usage {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            requests: read(&self.requests),
            cached: read(&self.cached),
            unparseable: read(&self.unparseable),
        }
    }

    fn endpoint(&self) -> String {
        format!("{}/chat/completions", self.settings.url.trim_end_matches('/'))
    }

    fn question(&self, item: &Comparison, swapped: bool) -> String {
        let (a, b) = if swapped { (&item.b, &item.a) } else { (&item.a, &item.b) };
        let prompt = as_text(&item.prompt);
        let content = fill(&self.settings.template, &[("{prompt}", &prompt), ("{a}", a), ("{b}", b)]);
        let mut body =
            json!({"model": self.settings.name, "messages": [{"role": "user", "content": content}]});
        if let Some(temperature) = self.settings.temperature {
            body["temperature"] = json!(temperature);
        }
        body.to_string()
    }

    /// Replies to all questions. Workers share the work by taking the next open question; the first problem stops all.
    fn ask_all(&self, questions: &[String]) -> Result<Vec<String>> {
        let endpoint = self.endpoint();
        let keys: Vec<String> =
            questions.iter().map(|body| hex(&Sha256::digest(format!("{endpoint}\n{body}")))).collect();
        let mut open: Vec<usize> = Vec::new();
        {
            let cache = lock(&self.cache);
            let mut seen = HashSet::new();
            for (index, key) in keys.iter().enumerate() {
                if cache.replies.contains_key(key) || !seen.insert(key) {
                    self.cached.fetch_add(1, Ordering::Relaxed);
                } else {
                    open.push(index);
                }
            }
        }
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Problem>> = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..self.settings.concurrency.min(open.len()) {
                scope.spawn(|| {
                    while let Some(&index) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let kept = self
                            .ask(&endpoint, &questions[index])
                            .and_then(|reply| lock(&self.cache).keep(&keys[index], reply));
                        if let Err(problem) = kept {
                            next.store(open.len(), Ordering::Relaxed);
                            lock(&failed).get_or_insert(problem);
                        }
                    }
                });
            }
        });
        if let Some(problem) = lock(&failed).take() {
            return Err(problem);
        }
        let cache = lock(&self.cache);
        let reply = |key| {
            cache.replies.get(key).cloned().ok_or_else(|| Problem::input("a reply of the judge is lost"))
        };
        keys.iter().map(reply).collect()
    }

    /// Sends one question until it is answered.
    fn ask(&self, endpoint: &str, body: &str) -> Result<String> {
        let mut attempt = 0;
        loop {
            let sent = self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| {
                (sent < self.settings.max_requests).then_some(sent + 1)
            });
            if sent.is_err() {
                return Err(self.budget_spent());
            }
            let Trouble { said, wait } = match self.send(endpoint, body)? {
                Ok(reply) => return Ok(reply),
                Err(trouble) => trouble,
            };
            if attempt == self.settings.retries {
                let times = if attempt == 0 { "once".into() } else { format!("{} times", attempt + 1) };
                return Err(Problem::new(
                    Kind::System,
                    format!("the judge at {endpoint} was asked {times} in vain: {said}"),
                )
                .hint(format!(
                    "is the server up and not overloaded? Replies so far are kept{}; see the judge's `retries`, \
                     `timeout` and `concurrency`",
                    if self.settings.cache.is_some() { " in the cache" } else { " only where `cache` is set" }
                )));
            }
            let longest = self.settings.max_backoff;
            let doubled = self.settings.backoff * 2.0_f64.powi(attempt as i32);
            let seconds = match wait {
                Some(seconds) if seconds > longest => {
                    return Err(Problem::new(
                        Kind::System,
                        format!("the judge at {endpoint} asks to wait {seconds} s: {said}"),
                    )
                    .hint(format!("run again later, or raise the judge's `max_backoff` above {longest} s")));
                }
                Some(seconds) => seconds,
                None => doubled.min(longest),
            };
            thread::sleep(Duration::from_secs_f64(seconds));
            attempt += 1;
        }
    }

    fn budget_spent(&self) -> Problem {
        let kept = match &self.settings.cache {
            Some(path) => format!("replies so far are kept in {}", path.display()),
            None => "set `cache` to keep the replies of the next attempt".into(),
        };
        Problem::usage(format!("the judge's budget of {} requests is spent", self.settings.max_requests))
            .hint(format!("raise the judge's `max_requests`, or judge fewer prompts; {kept}"))
    }

    /// Sends one request. The outer error ends the judging; the inner one may pass.
    fn send(&self, endpoint: &str, body: &str) -> Result<Result<String, Trouble>> {
        let mut request = self.agent.post(endpoint).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let passing = |said: String| Ok(Err(Trouble { said, wait: None }));
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(
                error @ (ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::ConnectionFailed
                | ureq::Error::Protocol(_)),
            ) => return passing(error.to_string()),
            Err(error) => {
                return Err(Problem::new(
                    Kind::System,
                    format!("cannot ask the judge at {endpoint}: {error}"),
                )
                .hint("check the judge's `url`"));
            }
        };
        let status = response.status().as_u16();
        let wait = retry_after(&response);
        let text = match response.body_mut().with_config().limit(8 << 20).lossy_utf8(true).read_to_string() {
            Ok(text) => text,
            Err(error) => return passing(error.to_string()),
        };
        if status == 200 {
            let reply: Option<Value> = serde_json::from_str(&text).ok();
            let content =
                reply.as_ref().and_then(|reply| reply.pointer("/choices/0/message/content")?.as_str());
            return match content {
                Some(content) => Ok(Ok(content.to_owned())),
                None => Err(Problem::input(format!(
                    "the server at {endpoint} does not answer as a chat-completions API: {}",
                    excerpt(&text)
                ))
                .hint("check the judge's `url`; it usually ends in /v1")),
            };
        }
        let said = format!("status {status}: {}", excerpt(&text));
        if matches!(status, 408 | 429 | 500..) {
            return Ok(Err(Trouble { said, wait }));
        }
        Err(Problem::input(format!("the judge at {endpoint} refuses: {said}")).hint(match status {
            401 | 403 => match &self.settings.key_env {
                Some(name) => format!("is the API key in {name} right?"),
                None => "name the variable that holds the API key in the judge's `key_env`".into(),
            },
            404 => "check the judge's `url` (it usually ends in /v1) and the model's `name`".into(),
            _ => "the server's words above say what it does not accept".into(),
        }))
    }
}

impl Judge for ModelJudge {
    fn name(&self) -> String {
        self.settings.name.clone()
    }

    fn compare(&self, items: &[Comparison]) -> Result<Vec<Option<f64>>> {
        let orders: &[bool] = if self.settings.swap { &[false, true] } else { &[false] };
        let questions: Vec<String> =
            items.iter().flat_map(|item| orders.iter().map(|&order| self.question(item, order))).collect();
        let replies = self.ask_all(&questions)?;
        let verdict = |replies: &[String]| {
            let mut sum = Some(0.0);
            for (reply, &swapped) in replies.iter().zip(orders) {
                let said = verdict(reply);
                self.unparseable.fetch_add(u64::from(said.is_none()), Ordering::Relaxed);
                let p = said.map(|p| if swapped { 1.0 - p } else { p });
                // One order alone would bring the favour to a position back.
                sum = sum.zip(p).map(|(sum, p)| sum + p);
            }
            sum.map(|sum| sum / orders.len() as f64)
        };
        Ok(replies.chunks(orders.len()).map(verdict).collect())
    }
}

/// A request that failed but may succeed when repeated.
struct Trouble {
    said: String,
    /// Seconds that the server asks to wait.
    wait: Option<f64>,
}

/// Retry-After in seconds. Its other form, a date, is left to the backoff.
fn retry_after<B>(response: &Response<B>) -> Option<f64> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

/// P(A beats B) by the last line of a reply; none unless that line is a verdict and nothing else.
fn verdict(reply: &str) -> Option<f64> {
    let line = reply.lines().rev().map(str::trim).find(|line| !line.is_empty())?.to_uppercase();
    let bare = |text: &str| text.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
    let line = bare(&line);
    match bare(line.strip_prefix("VERDICT").unwrap_or(&line)).as_str() {
        "A" => Some(1.0),
        "B" => Some(0.0),
        "TIE" => Some(0.5),
        _ => None,
    }
}

/// Fills a template in one pass: an answer may well contain `{b}`.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out += &rest[..at];
        rest = &rest[at..];
        let (value, taken) = values
            .iter()
            .find(|(name, _)| rest.starts_with(name))
            .map_or(("{", 1), |(name, value)| (*value, name.len()));
        out += value;
        rest = &rest[taken..];
    }
    out + rest
}

fn as_text(text: &Text) -> String {
    match text {
        Text::Plain(text) => text.clone(),
        Text::Conversation(turns) => {
            let turns: Vec<_> = turns.iter().map(|turn| format!("{}: {}", turn.role, turn.content)).collect();
            turns.join("\n\n")
        }
    }
}

fn excerpt(text: &str) -> String {
    const MOST: usize = 200;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None if text.is_empty() => "(nothing)".into(),
        None => text,
    }
}

/// What a poisoned lock guards here (replies, the first problem) is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Replies by key, in memory and, where a path was given, in a file.
struct Cache {
    replies: HashMap<String, String>,
    file: Option<(PathBuf, File)>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    reply: String,
}

impl Cache {
    fn open(path: Option<&Path>) -> Result<Self> {
        let mut replies = HashMap::new();
        let Some(path) = path else { return Ok(Self { replies, file: None }) };
        let cannot = |doing, error| Problem::io(doing, path, &error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|error| cannot("open", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Problem::new(
                    Kind::Busy,
                    format!("another process uses the judge's cache {}", path.display()),
                )
                .hint("wait until it has ended, or give this one a `cache` of its own"));
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| cannot("read", error))?;
        // A killed process may leave half a line at the end.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for (number, line) in (1..).zip(bytes[..whole].split_inclusive(|byte| *byte == b'\n')) {
            let entry: Entry = serde_json::from_slice(line).map_err(|error| {
                Problem::input(format!("this line is no entry of a judge's cache: {error}"))
                    .at(path, number, None)
                    .hint("name another `cache`, or remove the line")
            })?;
            replies.insert(entry.key, entry.reply);
        }
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(|error| cannot("write", error))?;
        }
        Ok(Self { replies, file: Some((path.to_owned(), file)) })
    }

    fn keep(&mut self, key: &str, reply: String) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            let line = json!({"key": key, "reply": reply}).to_string() + "\n";
            file.write_all(line.as_bytes()).map_err(|error| Problem::io("write", path, &error))?;
        }
        self.replies.insert(key.to_owned(), reply);
        Ok(())
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
