//! Streams against Vowpal Wabbit, decision by decision, and what a run of them does.

use std::fs;

use polo_run::process::Process;
use serde_json::Value;

use super::*;
use crate::methods::{bag::Bag, epsilon_greedy::EpsilonGreedy, softmax::Softmax, squarecb::SquareCb};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn settings<E: ExplorerSettings>(method: E, log: &Path, oracle: Oracle) -> StreamSettings<E> {
    let data = Log { train: vec![log.to_owned()], ..Log::default() };
    StreamSettings { method, data, oracle, training: Training::default() }
}

fn crossed() -> Oracle {
    Oracle { interactions: vec!["UA".into()], ..Oracle::default() }
}

/// Every probability that Vowpal Wabbit gave to an action, and its progressive loss. It prints six digits. In this log the
/// last action is never taken: for that one Vowpal Wabbit 9.11.9 leaves SquareCB's weight 1/p in place by mistake.
#[track_caller]
fn check<E: ExplorerSettings>(run: &str, method: E, oracle: Oracle) {
    let golden_values: Value =
        serde_json::from_str(&fs::read_to_string(golden("vowpal_wabbit.json")).unwrap()).unwrap();
    let expected = &golden_values["runs"][run];
    let log = golden("decisions.dsjson");
    let mut stream = Stream::new(&settings(method, &log, oracle)).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let mut worst = 0.0f64;
    for (line, expected) in text.lines().zip(expected["probabilities"].as_array().unwrap()) {
        let Line::Decision(decision) = dsjson::parse(line).unwrap() else { panic!("no decision") };
        let found = stream.probabilities(&decision);
        for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
            worst = worst.max((found - expected.as_f64().unwrap()).abs());
        }
        stream.take(&decision);
    }
    assert!(worst < 2e-4, "{run}: a probability is off by {worst}");
    let (found, expected) = (stream.state.loss / stream.state.weight, expected["loss"].as_f64().unwrap());
    assert!((found - expected).abs() < 1e-4, "{run}: the loss is {found}, and {expected} there");
}

#[test]
fn probabilities_and_losses_are_those_of_vowpal_wabbit() {
    check("squarecb", SquareCb::default(), crossed());
    check("epsilon-greedy", EpsilonGreedy::default(), crossed());
    check("softmax", Softmax { lambda: 10.0, epsilon: 0.0 }, crossed());
    check("ips", EpsilonGreedy::default(), Oracle { costs: Costs::Ips, ..crossed() });
    check("plain", EpsilonGreedy::default(), Oracle::default());
}

#[test]
fn a_run_that_was_stopped_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("long.dsjson");
    let text = fs::read_to_string(golden("decisions.dsjson")).unwrap();
    fs::write(&log, text.repeat(8)).unwrap();
    let settings = settings(Bag { models: 3, ..Bag::default() }, &log, crossed());
    let mut whole = Stream::new(&settings).unwrap();
    whole.go_on().unwrap();
    let saved = folder.path().join("saved");
    fs::create_dir(&saved).unwrap();
    whole.save(&saved).unwrap();
    let mut resumed = Stream::new(&settings).unwrap();
    resumed.load(&saved).unwrap();
    for stream in [&mut whole, &mut resumed] {
        while stream.done() < stream.total() {
            stream.go_on().unwrap();
        }
    }
    assert_eq!((resumed.done(), resumed.state.learned), (1200, 1200));
    assert_eq!(resumed.state, whole.state);
    assert_eq!(resumed.model_bytes(), whole.model_bytes());
    // A torn model is refused.
    fs::write(saved.join("model.bin"), b"torn").unwrap();
    assert!(Stream::new(&settings).unwrap().load(&saved).unwrap_err().message().contains("torn"));
}

#[test]
fn bad_lines_stop_the_run_or_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("bad.dsjson");
    let good = fs::read_to_string(golden("decisions.dsjson")).unwrap();
    let first = good.lines().next().unwrap();
    fs::write(&log, format!("{first}\n\n{{\"a\":[1],\"c\":{{\n{first}")).unwrap();
    let mut settings = settings(SquareCb::default(), &log, crossed());
    let problem = Stream::new(&settings).unwrap().go_on().unwrap_err();
    assert!(problem.to_string().contains("bad.dsjson:3:"), "{problem}");
    settings.data.on_bad_line = OnBadLine::Skip;
    let mut stream = Stream::new(&settings).unwrap();
    stream.go_on().unwrap();
    let State { learned, skipped, other, lines, .. } = stream.state;
    assert_eq!((learned, skipped, other, lines), (2, 1, 1, 4));
    fs::write(&log, [first.as_bytes(), b"\n{\"a\xff\n"].concat()).unwrap();
    let mut stream = Stream::new(&settings).unwrap();
    stream.go_on().unwrap();
    assert_eq!((stream.state.learned, stream.state.skipped), (1, 1));
    settings.data.on_bad_line = OnBadLine::Stop;
    let problem = Stream::new(&settings).unwrap().go_on().unwrap_err();
    assert!(problem.to_string().contains("bad.dsjson:2:4"), "{problem}");
    fs::write(&log, "").unwrap();
    assert!(Stream::new(&settings).is_err());
    fs::write(&log, "{}\n").unwrap();
    let mut empty = Stream::new(&settings).unwrap();
    empty.go_on().unwrap();
    assert!(empty.evaluate().unwrap_err().message().contains("no decision"));
}
