use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use super::*;
use crate::rows::Message;

/// What the scripted server does with one request.
#[derive(Clone, Debug)]
enum Act {
    /// A chat completion of this content.
    Say(&'static str),
    /// Another status, with header lines and a body.
    Status(u16, &'static str, &'static str),
    /// Nothing, until the client gives up.
    Hang,
    /// Closes the connection.
    Close,
}

use Act::{Close, Hang, Say, Status};

/// A request as the server saw it: its head, its body.
type Seen = (String, Value);
/// Decides on a request by its number (from 0) and its body.
type Script = dyn Fn(usize, &Value) -> Act + Send + Sync;

/// An HTTP server on this machine that follows a script, one connection per request.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(script: impl Fn(usize, &Value) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let script: Arc<Script> = Arc::new(script);
        let (shared, stopped) = (seen.clone(), stop.clone());
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, script, stopped) = (shared.clone(), script.clone(), stopped.clone());
                let stream = stream.unwrap();
                thread::spawn(move || serve(stream, &shared, &*script, &stopped));
            }
        });
        Self { url, seen, stop, accepting: Some(accepting) }
    }

    fn list(acts: Vec<Act>) -> Self {
        Self::start(move |number, _| acts[number.min(acts.len() - 1)].clone())
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn settings(&self) -> ModelJudgeSettings {
        ModelJudgeSettings {
            url: self.url.clone(),
            name: "judge-1".into(),
            swap: false,
            concurrency: 1,
            timeout: 5.0,
            retries: 2,
            backoff: 0.01,
            max_backoff: 1.0,
            ..ModelJudgeSettings::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let address = self.url.trim_start_matches("http://").trim_end_matches("/v1/");
        let _ = TcpStream::connect(address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Seen>>, script: &Script, stop: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push((head, body.clone()));
        seen.len() - 1
    };
    let (status, headers, body) = match script(number, &body) {
        Say(content) => (
            200,
            "",
            json!({"choices": [{"message": {"role": "assistant", "content": content}}]}).to_string(),
        ),
        Status(status, headers, body) => (status, headers, body.to_owned()),
        Hang => {
            while !stop.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            return;
        }
        Close => return,
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
}

fn items(n: u64) -> Vec<Comparison> {
    let item = |id| Comparison {
        id,
        prompt: Text::Plain(format!("prompt {id}")),
        a: format!("good {id}"),
        b: format!("bad {id}"),
        answer: None,
    };
    (0..n).map(item).collect()
}

fn judge(settings: &ModelJudgeSettings) -> ModelJudge {
    ModelJudge::new(settings, |_| None).unwrap()
}

fn content(body: &Value) -> &str {
    body.pointer("/messages/0/content").unwrap().as_str().unwrap()
}

#[test]
fn verdicts_are_read_strictly() {
    for (reply, expected) in [
        ("A", Some(1.0)),
        (" b.\n", Some(0.0)),
        ("Both are fine, but A is shorter.\n\n**TIE**\n", Some(0.5)),
        ("reasons\nVerdict: A", Some(1.0)),
        ("[[B]]", Some(0.0)),
        ("", None),
        ("Response A is better", None),
        ("A\nor maybe not", None),
        ("A or B", None),
        ("AB", None),
    ] {
        assert_eq!(verdict(reply), expected, "{reply:?}");
    }
}

#[test]
fn answers_cannot_break_the_template() {
    assert_eq!(fill("{x} {a}|{b} {", &[("{a}", "{b} {a}"), ("{b}", "2")]), "{x} {b} {a}|2 {");
}

#[test]
fn both_orders_are_asked_and_averaged() {
    // Prefers the good answer on even prompts; on odd ones it always says A.
    let server = Server::start(|_, body| {
        let content = content(body);
        let even = content.contains("prompt 0") || content.contains("prompt 2");
        let good_first = content.find("good") < content.find("bad");
        Say(if even && !good_first { "Thinking.\nB" } else { "A" })
    });
    let settings = ModelJudgeSettings {
        swap: true,
        concurrency: 3,
        key_env: Some("JUDGE_KEY".into()),
        temperature: Some(0.0),
        ..server.settings()
    };
    let judge = ModelJudge::new(&settings, |name| (name == "JUDGE_KEY").then(|| "s3cret\n".into())).unwrap();
    let found = judge.compare(&items(4)).unwrap();
    assert_eq!(found, [Some(1.0), Some(0.5), Some(1.0), Some(0.5)]);
    assert_eq!(judge.usage(), Usage { requests: 8, cached: 0, unparseable: 0 });
    let seen = server.seen.lock().unwrap();
    for (head, body) in seen.iter() {
        assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer s3cret"), "{head}");
        assert_eq!((&body["model"], &body["temperature"]), (&json!("judge-1"), &json!(0.0)));
    }
}

#[test]
fn no_key_is_sent_unless_one_is_named() {
    let server = Server::list(vec![Say("A")]);
    judge(&server.settings()).compare(&items(1)).unwrap();
    let seen = server.seen.lock().unwrap();
    assert!(!seen[0].0.to_lowercase().contains("authorization"));
    assert_eq!(seen[0].1.get("temperature"), None);
}

#[test]
fn unreadable_verdicts_are_counted_and_not_guessed() {
    let server = Server::start(|_, body| Say(if content(body).contains("prompt 1") { "Hm." } else { "B" }));
    let judge = judge(&server.settings());
    assert_eq!(judge.compare(&items(3)).unwrap(), [Some(0.0), None, Some(0.0)]);
    assert_eq!(judge.usage().unparseable, 1);
}

#[test]
fn passing_trouble_is_waited_out() {
    let check = |trouble: Act, least: f64| {
        let server = Server::list(vec![trouble.clone(), Say("A")]);
        let begun = Instant::now();
        let judge = judge(&ModelJudgeSettings { timeout: 0.4, ..server.settings() });
        assert_eq!(judge.compare(&items(1)).unwrap(), [Some(1.0)], "{trouble:?}");
        assert_eq!((server.requests(), judge.usage().requests), (2, 2), "{trouble:?}");
        assert!(begun.elapsed().as_secs_f64() >= least, "{trouble:?}");
    };
    check(Status(429, "retry-after: 0.3\r\n", "slow down"), 0.3);
    check(Status(503, "retry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n", ""), 0.01);
    check(Status(500, "", "oops"), 0.01);
    check(Hang, 0.4);
    check(Close, 0.01);
}

#[test]
fn lasting_trouble_ends_with_the_servers_words() {
    let check = |act: Act, requests: usize, message: &str, hint: &str| {
        let server = Server::list(vec![act]);
        let settings = ModelJudgeSettings { timeout: 0.2, retries: 1, ..server.settings() };
        let problem = judge(&settings).compare(&items(2)).unwrap_err();
        assert!(problem.message().contains(message), "{problem}");
        assert!(problem.hint_text().unwrap().contains(hint), "{problem:?}");
        assert_eq!(server.requests(), requests, "{problem}");
    };
    check(
        Status(500, "", "{\"error\": \"oops\"}"),
        2,
        "asked 2 times in vain: status 500: {\"error\": \"oops\"}",
        "server up",
    );
    check(Hang, 2, "asked 2 times in vain: timeout", "`timeout`");
    check(Status(429, "retry-after: 3600\r\n", ""), 1, "asks to wait 3600 s: status 429", "max_backoff");
    check(Status(401, "", "no key"), 1, "refuses: status 401: no key", "key_env");
    check(Status(404, "", ""), 1, "refuses: status 404: (nothing)", "/v1");
    check(Status(200, "", "<html>"), 1, "does not answer as a chat-completions API: <html>", "/v1");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let settings = ModelJudgeSettings {
        url: url.clone(),
        name: "m".into(),
        retries: 0,
        ..ModelJudgeSettings::default()
    };
    let problem = judge(&settings).compare(&items(1)).unwrap_err();
    assert_eq!(problem.kind(), Kind::System);
    assert!(
        problem.message().contains(&url) && problem.message().contains("asked once in vain"),
        "{problem}"
    );
}

#[test]
fn the_budget_is_kept_and_the_cache_carries_on() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("deep/cache.jsonl");
    let server = Server::list(vec![Say("A")]);
    let settings = ModelJudgeSettings { max_requests: 3, cache: Some(cache.clone()), ..server.settings() };
    let problem = judge(&settings).compare(&items(5)).unwrap_err();
    assert_eq!(problem.message(), "the judge's budget of 3 requests is spent");
    assert!(problem.hint_text().unwrap().contains("cache.jsonl"), "{problem:?}");
    assert_eq!(server.requests(), 3);

    // Killed while writing: half an entry, cut within a character.
    fs::OpenOptions::new().append(true).open(&cache).unwrap().write_all(b"{\"key\": \"\xc3").unwrap();
    let second = judge(&settings);
    assert_eq!(second.compare(&items(5)).unwrap(), [Some(1.0); 5]);
    assert_eq!((server.requests(), second.usage()), (5, Usage { requests: 2, cached: 3, unparseable: 0 }));

    let busy = ModelJudge::new(&settings, |_| None).map(|_| ()).unwrap_err();
    assert_eq!(busy.kind(), Kind::Busy);
    drop(second);

    // Nothing is asked twice, within a call or by another process; another question is another key.
    let third = judge(&settings);
    third.compare(&[items(5), items(5)].concat()).unwrap();
    assert_eq!(third.usage().requests, 0);
    drop(third);
    judge(&ModelJudgeSettings { temperature: Some(0.5), ..settings.clone() }).compare(&items(1)).unwrap();
    assert_eq!(server.requests(), 6);

    fs::write(&cache, "{\"key\": \"k\", \"reply\": \"A\"}\nnonsense\n").unwrap();
    let problem = ModelJudge::new(&settings, |_| None).map(|_| ()).unwrap_err();
    assert!(problem.to_string().contains("cache.jsonl:2: this line is no entry"), "{problem}");
}

#[test]
fn requests_run_at_once_but_not_more_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, peak) = (now.clone(), most.clone());
    let server = Server::start(move |_, _| {
        peak.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(60));
        inside.fetch_sub(1, Ordering::SeqCst);
        Say("tie")
    });
    let judge = judge(&ModelJudgeSettings { concurrency: 3, timeout: 20.0, ..server.settings() });
    assert_eq!(judge.compare(&items(9)).unwrap(), [Some(0.5); 9]);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most} at once");
}

#[test]
fn conversations_are_shown_as_turns() {
    let prompt = Text::Conversation(vec![Message::new("system", "be brief"), Message::new("user", "why?")]);
    assert_eq!(as_text(&prompt), "system: be brief\n\nuser: why?");
}

#[test]
fn settings_are_checked() {
    let good = ModelJudgeSettings { url: "http://host/v1".into(), name: "m".into(), ..Default::default() };
    assert!(good.check().is_ok());
    let check = |bad: ModelJudgeSettings, message: &str| {
        let problem = bad.check().unwrap_err();
        assert!(problem.message().contains(message), "{problem}");
    };
    check(ModelJudgeSettings { url: "host".into(), ..good.clone() }, "`url` is \"host\"");
    check(ModelJudgeSettings { name: String::new(), ..good.clone() }, "no `name`");
    check(ModelJudgeSettings { template: "{prompt} {a}".into(), ..good.clone() }, "holds {b} 0 times");
    check(ModelJudgeSettings { timeout: 0.0, ..good.clone() }, "a time of the judge");
    check(ModelJudgeSettings { backoff: f64::NAN, ..good.clone() }, "a time of the judge");
    check(ModelJudgeSettings { concurrency: 0, ..good.clone() }, "at least 1");
    let keyless = ModelJudgeSettings { key_env: Some("JUDGE_KEY".into()), ..good };
    let problem = ModelJudge::new(&keyless, |_| Some(" ".into())).map(|_| ()).unwrap_err();
    assert_eq!(problem.message(), "the environment variable JUDGE_KEY holds no API key");
}
