//! Streams against Vowpal Wabbit, decision by decision, and what a run of them does.

use std::fs;

use polo_run::process::Process;
use serde_json::Value;

use super::{
    saved::Learned,
    settings::{Data, Feedback, OnBadLine, OracleSettings},
    simulated::Simulated,
    *,
};
use crate::{
    dsjson,
    lesson::Costs,
    methods::{
        bag::Bag, cover::Cover, epsilon_greedy::EpsilonGreedy, explore_first::ExploreFirst, fastcb::FastCb,
        linucb::LinUcb, regcb::RegCb, rnd::Rnd, softmax::Softmax, squarecb::SquareCb, thompson::Thompson,
    },
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn settings<E: ExplorerSettings>(method: E, log: &Path, oracle: OracleSettings) -> StreamSettings<E> {
    let data = Data { train: vec![log.to_owned()], ..Data::default() };
    StreamSettings { method, data, oracle, ..StreamSettings::default() }
}

fn crossed() -> OracleSettings {
    OracleSettings { interactions: vec!["UA".into()], ..OracleSettings::default() }
}

/// Every probability that Vowpal Wabbit gave to an action, and its progressive loss. It prints six digits. In this log the
/// last action is never taken: for that one Vowpal Wabbit 9.11.9 leaves SquareCB's weight 1/p in place by mistake.
#[track_caller]
fn check<E: ExplorerSettings>(run: &str, method: E, oracle: OracleSettings) {
    let golden_values: Value =
        serde_json::from_str(&fs::read_to_string(golden("vowpal_wabbit.json")).unwrap()).unwrap();
    let expected = &golden_values["runs"][run];
    let log = golden("decisions.dsjson");
    let mut stream = Stream::new(&settings(method, &log, oracle), None).unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let mut worst = 0.0f64;
    for (line, expected) in text.lines().zip(expected["probabilities"].as_array().unwrap()) {
        let Line::Decision(decision) = dsjson::parse(line).unwrap() else { panic!("no decision") };
        let found = stream.probabilities(&decision);
        for (found, expected) in found.iter().zip(expected.as_array().unwrap()) {
            worst = worst.max((found - expected.as_f64().unwrap()).abs());
        }
        stream.take(decision).unwrap();
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
    check("ips", EpsilonGreedy::default(), OracleSettings { costs: Costs::Ips, ..crossed() });
    check("plain", EpsilonGreedy::default(), OracleSettings::default());
    check("dr", EpsilonGreedy::default(), OracleSettings { costs: Costs::Dr, ..crossed() });
    check("direct", EpsilonGreedy::default(), OracleSettings { costs: Costs::Direct, ..crossed() });
    let cover = Cover { policies: 4, epsilon: Some(0.1), ..Cover::default() };
    check("cover", cover.clone(), crossed());
    check("cover-dr", cover.clone(), OracleSettings { costs: Costs::Dr, ..crossed() });
    check("cover-ips", cover, OracleSettings { costs: Costs::Ips, ..crossed() });
    let regcb = RegCb { mellowness: 0.01, least_cost: -1.0, most_cost: 0.0, ..RegCb::default() };
    check("regcb", regcb.clone(), crossed());
    check("regcbopt", RegCb { optimistic: true, first_only: true, ..regcb }, crossed());
}

/// The first rows of the table that Vowpal Wabbit 9.11 prints; it cuts the decimals that are rounded here.
#[test]
fn the_table_is_that_of_vowpal_wabbit() {
    let log = golden("decisions.dsjson");
    let table = run(&settings(SquareCb::default(), &log, crossed())).table();
    let found: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let expected = [
        "average since example example current current current",
        "loss last counter weight label predict features",
        "0.000000 0.000000 1 1.0 1:-0:0.25 0:0.25 56",
        "0.000000 0.000000 2 2.0 0:-0:0.22 0:0.25 56",
        "-0.154538 -0.309076 4 4.0 0:-0:0.24 2:0.87 56",
        "-0.121707 -0.088875 8 8.0 1:-1:0.36 2:0.62 56",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.join(" "), expected);
    }
    let plain = run(&settings(SquareCb::default(), &log, OracleSettings::default())).table();
    assert!(plain.lines().skip(2).all(|line| line.ends_with(" 32")), "{plain}");
}

#[test]
fn a_run_that_was_stopped_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden("decisions.dsjson")).unwrap().repeat(8);
    let log = folder.path().join("long.dsjson");
    fs::write(&log, &text).unwrap();
    goes_on_exactly(folder.path(), &log);
    let packed = folder.path().join("long.dsjson.gz");
    pack(&packed, text.as_bytes());
    goes_on_exactly(folder.path(), &packed);
}

fn pack(path: &Path, bytes: &[u8]) {
    let mut encoder = flate2::write::GzEncoder::new(File::create(path).unwrap(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap();
}

#[track_caller]
fn goes_on_exactly(folder: &Path, log: &Path) {
    let settings = settings(Bag { models: 3, ..Bag::default() }, log, crossed());
    let mut whole = Stream::new(&settings, None).unwrap();
    whole.go_on().unwrap();
    let saved = folder.join("saved");
    fs::create_dir_all(&saved).unwrap();
    whole.save(&saved).unwrap();
    let mut resumed = Stream::new(&settings, None).unwrap();
    resumed.load(&saved).unwrap();
    for stream in [&mut whole, &mut resumed] {
        while stream.done() < stream.total() {
            stream.go_on().unwrap();
        }
    }
    assert_eq!((resumed.done(), resumed.state.learned), (1200, 1200));
    assert_eq!(resumed.state, whole.state);
    assert_eq!(resumed.oracle.to_bytes(), whole.oracle.to_bytes());
    // A torn model is refused.
    fs::write(saved.join("model.bin"), b"torn").unwrap();
    assert!(Stream::new(&settings, None).unwrap().load(&saved).unwrap_err().message().contains("torn"));
}

#[test]
fn bad_lines_stop_the_run_or_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("bad.dsjson");
    let good = fs::read_to_string(golden("decisions.dsjson")).unwrap();
    let first = good.lines().next().unwrap();
    fs::write(&log, format!("{first}\n\n{{\"a\":[1],\"c\":{{\n{first}")).unwrap();
    let mut settings = settings(SquareCb::default(), &log, crossed());
    let problem = Stream::new(&settings, None).unwrap().go_on().unwrap_err();
    assert!(problem.to_string().contains("bad.dsjson:3:14:"), "{problem}");
    settings.data.on_bad_line = OnBadLine::Skip;
    let mut stream = Stream::new(&settings, None).unwrap();
    stream.go_on().unwrap();
    let State { learned, skipped, other, place, .. } = &stream.state;
    assert_eq!((*learned, *skipped, *other, place.lines), (2, 1, 1, 4));
    fs::write(&log, [first.as_bytes(), b"\n{\"a\xff\n"].concat()).unwrap();
    let mut stream = Stream::new(&settings, None).unwrap();
    stream.go_on().unwrap();
    assert_eq!((stream.state.learned, stream.state.skipped), (1, 1));
    settings.data.on_bad_line = OnBadLine::Stop;
    let problem = Stream::new(&settings, None).unwrap().go_on().unwrap_err();
    assert!(problem.to_string().contains("bad.dsjson:2:4"), "{problem}");
    fs::write(&log, "").unwrap();
    assert!(Stream::new(&settings, None).is_err());
    fs::write(&log, "{}\n").unwrap();
    let mut empty = Stream::new(&settings, None).unwrap();
    empty.go_on().unwrap();
    assert!(empty.evaluate().unwrap_err().message().contains("no decision"));
}

/// The golden log as text and as CSV.
fn translated(folder: &Path) -> (PathBuf, PathBuf) {
    let (mut text, mut rows) =
        (String::new(), String::from("event,could,action,reward,propensity,segment,x0,x1,x2,x3,x4\n"));
    for line in fs::read_to_string(golden("decisions.dsjson")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (user, event) = (&line["c"]["User"], line["EventId"].as_str().unwrap());
        let (taken, cost, p) = (&line["_labelIndex"], &line["_label_cost"], &line["_label_probability"]);
        let x: Vec<String> = (0..5).map(|at| user[format!("x{at}")].to_string()).collect();
        let segment = user["segment"].as_str().unwrap();
        let numbers: Vec<String> = x.iter().enumerate().map(|(at, x)| format!("x{at}:{x}")).collect();
        text += &format!("shared '{event} |User segment{segment} {}\n", numbers.join(" "));
        for action in 0..4 {
            let label = if taken == action { format!("{action}:{cost}:{p} ") } else { String::new() };
            text += &format!("{label}|Action ida{action}\n");
        }
        text += "\n";
        rows +=
            &format!("{event},0 1 2 3,{taken},{},{p},{segment},{}\n", -cost.as_f64().unwrap(), x.join(","));
    }
    let (vw, csv) = (folder.join("log.vw"), folder.join("log.csv"));
    fs::write(&vw, text).unwrap();
    fs::write(&csv, rows).unwrap();
    (vw, csv)
}

fn run<E: ExplorerSettings>(settings: &StreamSettings<E>) -> Stream<E> {
    let mut stream = Stream::new(settings, None).unwrap();
    while stream.done() < stream.total() {
        stream.go_on().unwrap();
    }
    stream
}

#[test]
fn every_format_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (vw, csv) = translated(folder.path());
    let from = |log: &Path, interactions: &str| {
        let oracle = OracleSettings { interactions: vec![interactions.into()], ..OracleSettings::default() };
        run(&settings(SquareCb::default(), log, oracle)).state
    };
    let expected = from(&golden("decisions.dsjson"), "UA");
    assert_eq!((expected.learned, expected.decisions), (150, 150));
    let text = from(&vw, "UA");
    assert_eq!((text.place.lines, text.learned), (900, 150));
    assert_eq!(text.table, expected.table);
    let mut rows = settings(SquareCb::default(), &csv, OracleSettings::default());
    rows.data.columns.event = "event".into();
    rows.data.columns.available = "could".into();
    rows.oracle.interactions = vec!["CA".into()];
    let rows = run(&rows).state;
    assert_eq!((rows.place.lines, rows.learned), (151, 150));
    // Other names are other hashes, and sums in another order.
    assert!((rows.loss - expected.loss).abs() < 1e-3, "{} {}", rows.loss, expected.loss);
    let packed = folder.path().join("log.vw.gz");
    pack(&packed, &fs::read(&vw).unwrap());
    assert_eq!(from(&packed, "UA").table, expected.table);
    // A folder of two formats cannot be one log.
    let mut two = settings(SquareCb::default(), &csv, crossed());
    two.data.train.push(vw);
    assert!(Stream::new(&two, None).err().unwrap().to_string().contains("not of one format"));
}

/// Every scheme, from the state in the middle of a chunk's end, with late outcomes and a file of decisions.
#[track_caller]
fn check_resumed<E: ExplorerSettings>(method: E) {
    check_resumed_with(method, crossed());
}

#[track_caller]
fn check_resumed_with<E: ExplorerSettings>(method: E, oracle: OracleSettings) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = StreamSettings { method, oracle, ..StreamSettings::default() };
    settings.simulated = Simulated {
        decisions: 300,
        actions: 4,
        width: 2,
        available: 0.7,
        changes_every: 90,
        ..Simulated::default()
    };
    settings.feedback = Feedback { delay: 20, batch: 7 };
    settings.output.decisions = true;
    settings.oracle.bits = 10;
    let [one, two, saved] = ["one", "two", "saved"].map(|name| folder.path().join(name));
    [&one, &two, &saved].iter().for_each(|path| fs::create_dir(path).unwrap());
    let mut whole = Stream::new(&settings, Some(&one)).unwrap();
    (0..2).for_each(|_| drop(whole.go_on().unwrap()));
    whole.save(&saved).unwrap();
    fs::copy(one.join("decisions.jsonl"), two.join("decisions.jsonl")).unwrap();
    // What was written after the checkpoint is written again.
    OpenOptions::new().append(true).open(two.join("decisions.jsonl")).unwrap().write_all(b"{\"torn").unwrap();
    let mut resumed = Stream::new(&settings, Some(&two)).unwrap();
    resumed.load(&saved).unwrap();
    for stream in [&mut whole, &mut resumed] {
        while stream.done() < stream.total() {
            stream.go_on().unwrap();
        }
    }
    assert_eq!(resumed.state, whole.state, "{}", E::SLUG);
    assert_eq!(resumed.oracle.to_bytes(), whole.oracle.to_bytes(), "{}", E::SLUG);
    let [first, second] = [&one, &two].map(|path| fs::read_to_string(path.join("decisions.jsonl")).unwrap());
    assert_eq!(first, second, "{}", E::SLUG);
    assert_eq!(first.lines().count(), 300);
    assert_eq!((whole.state.learned, whole.state.pending.len()), (300, 0));
    // The policy that is left behind answers as the learner does.
    whole.finish(&saved).unwrap();
    let learned = Learned::load(&saved).unwrap();
    let asked = World::new(&settings.simulated).unwrap().ask(7, &Seeds::new(5)).unwrap();
    let number = whole.state.decisions;
    assert_eq!(
        learned.probabilities(&asked.decision, number),
        whole.probabilities(&asked.decision),
        "{}",
        E::SLUG
    );
}

#[test]
fn every_scheme_goes_on_as_if_never_stopped() {
    check_resumed(SquareCb::default());
    check_resumed(SquareCb { elimination: true, least_cost: -1.0, most_cost: 0.0, ..SquareCb::default() });
    check_resumed(FastCb::default());
    check_resumed(EpsilonGreedy::default());
    check_resumed(Softmax::default());
    check_resumed(ExploreFirst { decisions: 100, ..ExploreFirst::default() });
    check_resumed(Bag::default());
    check_resumed(Cover::default());
    check_resumed(Rnd::default());
    check_resumed(RegCb { least_cost: -1.0, most_cost: 0.0, ..RegCb::default() });
    check_resumed(LinUcb::default());
    check_resumed(Thompson { draws: 5, ..Thompson::default() });
    for kind in [settings::Kind::Ridge, settings::Kind::Trees, settings::Kind::Network] {
        for costs in [Costs::Mtr, Costs::Dr] {
            let oracle = OracleSettings { kind: Some(kind), costs, ..crossed() };
            check_resumed_with(Bag { models: 2, ..Bag::default() }, oracle);
        }
    }
}

#[test]
fn late_outcomes_are_learnt_late() {
    let with = |delay, batch| {
        let mut settings =
            StreamSettings { method: SquareCb::default(), oracle: crossed(), ..StreamSettings::default() };
        settings.simulated.decisions = 64;
        settings.feedback = Feedback { delay, batch };
        let mut stream = Stream::new(&settings, None).unwrap();
        let mut learned = Vec::new();
        for _ in 0..20 {
            stream.live().unwrap();
            learned.push(stream.state.learned);
        }
        learned
    };
    assert_eq!(with(0, 1), (1..=20).collect::<Vec<_>>());
    assert_eq!(with(5, 1)[..8], [0, 0, 0, 0, 0, 1, 2, 3]);
    assert_eq!(with(0, 4)[..9], [0, 0, 0, 4, 4, 4, 4, 8, 8]);
    assert_eq!(with(3, 4)[..9], [0, 0, 0, 1, 1, 1, 1, 5, 5]);
}

/// A learner that answers to its own decisions ends with less regret than one that does not learn.
#[test]
fn schemes_learn_a_simulated_world() {
    fn regret<E: ExplorerSettings>(method: E, kind: Option<settings::Kind>) -> f64 {
        let mut settings = StreamSettings { method, oracle: crossed(), ..StreamSettings::default() };
        settings.simulated = Simulated { decisions: 1500, actions: 5, width: 3, ..Simulated::default() };
        (settings.oracle.bits, settings.oracle.kind) = (12, kind);
        let stream = run(&settings);
        stream.state.regret / stream.state.decisions as f64
    }
    let uniform = regret(EpsilonGreedy { epsilon: 1.0, ..EpsilonGreedy::default() }, None);
    let ridge = Some(settings::Kind::Ridge);
    let bounded = RegCb { least_cost: -1.0, most_cost: 0.0, mellowness: 0.01, ..RegCb::default() };
    for (name, found) in [
        ("squarecb", regret(SquareCb::default(), None)),
        ("squarecb, ridge", regret(SquareCb::default(), ridge)),
        ("squarecb, trees", regret(SquareCb::default(), Some(settings::Kind::Trees))),
        ("squarecb, network", regret(SquareCb::default(), Some(settings::Kind::Network))),
        ("greedy", regret(EpsilonGreedy::default(), None)),
        ("bag", regret(Bag::default(), None)),
        ("cover", regret(Cover { epsilon: Some(0.05), ..Cover::default() }, None)),
        ("rnd", regret(Rnd::default(), None)),
        ("regcb", regret(bounded.clone(), None)),
        ("optimistic regcb", regret(RegCb { optimistic: true, ..bounded }, None)),
        ("linucb", regret(LinUcb::default(), None)),
        ("thompson", regret(Thompson { draws: 1, ..Thompson::default() }, None)),
    ] {
        assert!(found < 0.65 * uniform, "{name}: {found} against {uniform}");
    }
}

/// A log that was cut after the checkpoint is an error, and not the end of the run; so is a cut file of decisions.
#[test]
fn what_shrinks_between_runs_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden("decisions.dsjson")).unwrap();
    let log = folder.path().join("log.dsjson");
    fs::write(&log, text.repeat(4)).unwrap();
    let mut settings = settings(SquareCb::default(), &log, crossed());
    settings.output.decisions = true;
    let mut stream = Stream::new(&settings, Some(folder.path())).unwrap();
    stream.go_on().unwrap();
    stream.save(folder.path()).unwrap();
    let resumed = || {
        let mut stream = Stream::new(&settings, Some(folder.path()))?;
        stream.load(folder.path())?;
        stream.go_on()
    };
    let decisions = folder.path().join("decisions.jsonl");
    resumed().unwrap();
    fs::write(&decisions, "").unwrap();
    let problem = resumed().unwrap_err();
    assert!(problem.to_string().contains("shorter than when the checkpoint"), "{problem}");
    fs::write(&log, &text).unwrap();
    let problem = resumed().unwrap_err();
    assert!(problem.message().contains("lines are missing"), "{problem}");
}

/// A log that goes on after the run has ended is learnt from where it was left.
#[test]
fn what_is_added_to_a_log_is_learnt_too() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(golden("decisions.dsjson")).unwrap();
    let log = folder.path().join("log.dsjson");
    fs::write(&log, &text).unwrap();
    let settings = settings(Bag { models: 2, ..Bag::default() }, &log, crossed());
    run(&settings).save(folder.path()).unwrap();
    fs::write(&log, text.repeat(2)).unwrap();
    let mut stream = Stream::new(&settings, None).unwrap();
    stream.load(folder.path()).unwrap();
    while stream.done() < stream.total() {
        stream.go_on().unwrap();
    }
    let whole = run(&settings);
    assert_eq!((stream.done(), &stream.state), (300, &whole.state));
    assert_eq!(stream.oracle.to_bytes(), whole.oracle.to_bytes());
}

/// A file that comes into a folder before those that were read would be taken for one of them.
#[test]
fn files_that_come_between_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (logs, saved) = (folder.path().join("logs"), folder.path().join("saved"));
    [&logs, &saved].iter().for_each(|path| fs::create_dir(path).unwrap());
    let text = fs::read_to_string(golden("decisions.dsjson")).unwrap();
    let add = |name: &str| fs::write(logs.join(name), &text).unwrap();
    add("a.dsjson");
    add("c.dsjson");
    let settings = settings(SquareCb::default(), &logs, crossed());
    run(&settings).save(&saved).unwrap();
    let resumed = || {
        let mut stream = Stream::new(&settings, None)?;
        stream.load(&saved)?;
        while stream.done() < stream.total() {
            stream.go_on()?;
        }
        Ok::<u64, Problem>(stream.state.learned)
    };
    assert_eq!(resumed().unwrap(), 300);
    add("d.dsjson");
    assert_eq!(resumed().unwrap(), 450);
    add("b.dsjson");
    assert!(resumed().unwrap_err().message().contains("has changed"));
}

/// Quotes within a cell are text; one that is not closed costs its line alone; a file may begin with a mark.
#[test]
fn csv_loses_no_rows_to_quotes() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.csv");
    let good = "b,0,0.5,3\r\n".repeat(3);
    let quoted = "a,1,0.5,\"two\nlines, and \"\"quotes\"\"\"\n";
    let text = format!(
        "\u{feff}action,reward,propensity,x\na,1,0.5,5\" pipe\n{good}{quoted}{good}a,1,0.5,\"open\n{good}"
    );
    fs::write(&log, &text).unwrap();
    let mut settings = settings(SquareCb::default(), &log, OracleSettings::default());
    let problem = Stream::new(&settings, None).unwrap().go_on().unwrap_err();
    assert!(problem.to_string().contains("log.csv:11: "), "{problem}");
    settings.data.on_bad_line = OnBadLine::Skip;
    let state = run(&settings).state;
    assert_eq!((state.learned, state.skipped, state.place.lines), (11, 1, 14));
    // And where the rest would be too long for a cell.
    fs::write(&log, text + &good.repeat(4000)).unwrap();
    let state = run(&settings).state;
    assert_eq!((state.learned, state.skipped, state.place.lines), (12_011, 1, 12_014));
    fs::write(folder.path().join("mac.csv"), "action,reward,propensity\ra,1,0.5\r").unwrap();
    settings.data.train = vec![folder.path().join("mac.csv")];
    let problem = Stream::new(&settings, None).err().unwrap();
    assert!(problem.to_string().contains("mac.csv:1: its first line does not name columns"), "{problem}");
    let packed = folder.path().join("log.csv.gz");
    pack(&packed, &fs::read(&log).unwrap());
    settings.data.train = vec![packed.clone()];
    assert_eq!(run(&settings).state.learned, 12_011);
    let bytes = fs::read(&packed).unwrap();
    fs::write(&packed, &bytes[..bytes.len() / 2]).unwrap();
    assert!(Stream::new(&settings, None).err().unwrap().to_string().contains("log.csv.gz"));
}

#[test]
fn a_mark_of_the_encoding_is_no_text() {
    let folder = tempfile::tempdir().unwrap();
    for (name, line) in [
        ("log.dsjson", fs::read_to_string(golden("decisions.dsjson")).unwrap()),
        ("log.vw", "shared |U x\n0:1:0.5 |A y\n|A z\n".into()),
    ] {
        let log = folder.path().join(name);
        fs::write(&log, format!("\u{feff}{line}")).unwrap();
        assert!(run(&settings(SquareCb::default(), &log, crossed())).state.learned > 0);
    }
}

/// Decisions among very many actions are neither kept in numbers nor compared action by action.
#[test]
fn actions_may_be_very_many() {
    let folder = tempfile::tempdir().unwrap();
    let (log, actions) = (folder.path().join("log.csv"), folder.path().join("actions.csv"));
    let count = 50_000;
    let all: Vec<String> = (0..count).map(|at| format!("i{at}")).collect();
    fs::write(
        &actions,
        format!("action,price\n{}", all.iter().map(|name| format!("{name},1\n")).collect::<String>()),
    )
    .unwrap();
    let could = all.join(" ");
    fs::write(&log, format!("action,reward,propensity,could\ni7,1,0.5,{could}\ni8,1,0.5,{could}\n")).unwrap();
    let mut settings = settings(SquareCb::default(), &log, OracleSettings::default());
    settings.data.columns.actions = Some(actions);
    settings.data.columns.available = "could".into();
    let clock = std::time::Instant::now();
    assert_eq!(run(&settings).state.actions, 2 * count);
    settings.data.columns.available = String::new();
    settings.data.columns.ignored = vec!["could".into()];
    assert_eq!(run(&settings).state.actions, 2 * count);
    // It takes minutes where each is compared with all others.
    assert!(clock.elapsed().as_secs() < 20, "{:?}", clock.elapsed());
}

/// SquareCB forces p = 1 in all that it teaches, the second model of DR included.
#[test]
fn plain_schemes_weigh_nothing() {
    let with = |probability: f64| {
        let line = format!(
            r#"{{"_label_cost":-1,"_label_probability":{probability},"_labelIndex":0,"a":[1,2],"c":{{"_multi":[{{"A":{{"x":1}}}},{{"A":{{"y":1}}}}]}}}}"#
        );
        let Line::Decision(decision) = dsjson::parse(&line).unwrap() else { panic!("no decision") };
        let bytes = |costs| {
            let mut settings = StreamSettings { method: SquareCb::default(), ..StreamSettings::default() };
            settings.simulated.decisions = 1;
            (settings.oracle.costs, settings.oracle.bits) = (costs, 4);
            let mut stream = Stream::new(&settings, None).unwrap();
            stream.learn(&decision).unwrap();
            stream.oracle.to_bytes()
        };
        [Costs::Mtr, Costs::Ips, Costs::Direct, Costs::Dr, Costs::Sm].map(bytes)
    };
    assert!(with(0.5) == with(0.05));
}

/// A decision that stands for others, which were dropped, counts as often in the loss.
#[test]
fn decisions_that_stand_for_others_weigh_more() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.dsjson");
    let line = |cost: f64, pdrop: f64| {
        format!(
            r#"{{"_label_cost":{cost},"_label_probability":0.5,"_labelIndex":0,"pdrop":{pdrop},"a":[1,2],"c":{{"_multi":[{{}},{{}}]}}}}"#
        )
    };
    fs::write(&log, format!("{}\n{}\n", line(-1.0, 0.75), line(0.0, 0.0))).unwrap();
    let even = EpsilonGreedy { epsilon: 1.0, ..EpsilonGreedy::default() };
    let state = run(&settings(even, &log, OracleSettings::default())).state;
    assert_eq!((state.loss, state.weight, state.scored), (-4.0, 5.0, 2));
}

/// Losses of Vowpal Wabbit 9.11 on the golden log with one more feature, whose square vanishes in single precision.
#[test]
fn tiny_features_are_learnt_as_in_vowpal_wabbit() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.dsjson");
    let text = fs::read_to_string(golden("decisions.dsjson")).unwrap();
    fs::write(&log, text.replace("\"x0\":", "\"tiny\":1e-22,\"x0\":")).unwrap();
    for (oracle, expected) in [(OracleSettings::default(), -0.520_634_5), (crossed(), -0.696_369_5)] {
        let state = run(&settings(EpsilonGreedy::default(), &log, oracle)).state;
        assert!((state.loss / state.weight - expected).abs() < 1e-4, "{}", state.loss / state.weight);
    }
}

/// A log that does not name an action has it all the same for a policy that learnt it.
#[test]
fn a_policy_keeps_the_actions_that_it_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let [log, other] = ["log.csv", "other.csv"].map(|name| folder.path().join(name));
    fs::write(&log, "action,reward,propensity\n10,1,0.5\nb,0,0.25\n2,0,0.25\n").unwrap();
    fs::write(&other, "action,reward,propensity\nb,1,0.5\nb,0,0.5\n").unwrap();
    let even = EpsilonGreedy { epsilon: 1.0, ..EpsilonGreedy::default() };
    run(&settings(even, &log, OracleSettings::default())).finish(folder.path()).unwrap();
    let learned = Learned::load(folder.path()).unwrap();
    assert_eq!(learned.saved.actions, ["2", "10", "b"]);
    let decisions = folder.path().join("decisions.jsonl");
    let applied =
        applied::Decider::Learned(Box::new(learned)).apply(&other, Some(&decisions), &Seeds::new(0)).unwrap();
    // IPS: a third of a reward over a half, once in two rows.
    assert!((applied.evaluation.unwrap().lines[0].value - 1.0 / 3.0).abs() < 1e-9);
    let first: Value =
        serde_json::from_str(fs::read_to_string(decisions).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!(first["probabilities"].as_array().unwrap().len(), 3);
}
