use super::*;

const LOG: &str = "action,reward,propensity,age,position\n1,0.5,0.25,30,0\n0,-1,1,40.5,1\n";

fn read(name: &str, text: &str) -> std::path::PathBuf {
    // The folder is left to the operating system, so that its files outlive this function.
    let path = tempfile::tempdir().unwrap().keep().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn log() -> Log {
    Log::read(&read("log.csv", LOG)).unwrap()
}

#[test]
fn logs_are_read_with_their_context() {
    let log = log();
    assert_eq!((log.action_count, log.width, log.len()), (2, 1, 2));
    assert_eq!((&log.actions[..], &log.positions[..]), (&[1, 0][..], &[0, 1][..]));
    assert_eq!((&log.rewards[..], &log.propensities[..]), (&[0.5, -1.0][..], &[0.25, 1.0][..]));
    assert_eq!(log.context(1), [40.5]);
}

#[test]
fn compressed_logs_are_read_alike() {
    let path = read("log.csv.gz", "");
    let mut writer = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    std::io::Write::write_all(&mut writer, LOG.as_bytes()).unwrap();
    writer.finish().unwrap();
    assert_eq!(Log::read(&path).unwrap(), log());
    std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
    assert!(Log::read(&path).is_err());
}

#[test]
fn policies_are_read_in_every_form() {
    fn check(text: &str, expected: &[f64]) {
        let policy = Policy::read(&read("policy.csv", text), &log()).unwrap();
        assert_eq!(policy.probabilities, expected);
    }
    check("action,probability\n1,0.75\n0,0.25\n", &[0.25, 0.75, 0.25, 0.75]);
    check("action,probability\n2,0.75\n0,0.25\n", &[0.25, 0.0, 0.75, 0.25, 0.0, 0.75]);
    check("p0,p1\n0.5,0.5\n0,1\n", &[0.5, 0.5, 0.0, 1.0]);
    let by_position = "position,action,probability\n0,1,1\n1,0,0.5\n1,1,0.5\n";
    let path = read("policy.csv", by_position);
    let mut slots = log();
    slots.positions = vec![1, 0];
    assert_eq!(Policy::read(&path, &slots).unwrap().probabilities, [0.5, 0.5, 0.0, 1.0]);
    assert_eq!(Policy::uniform(&log()).probabilities, [0.5; 4]);
}

#[test]
fn bad_logs_and_policies_are_refused() {
    fn found<T>(result: Result<T>) -> String {
        let text = result.err().unwrap().to_string();
        text.rsplit('/').next().unwrap().to_owned()
    }
    fn bad_log(from: &str, to: &str, expected: &str) {
        assert_eq!(found(Log::read(&read("log.csv", &LOG.replace(from, to)))), expected);
    }
    bad_log("0.25", "0", "log.csv:2:7: `propensity` must be above 0 and at most 1, not 0");
    bad_log("40.5", "old", "log.csv:3:8: `age` is no number: `old`");
    bad_log("40.5", "inf", "log.csv:3:8: `age` is no number: `inf`");
    bad_log("0,-1", "-1,-1", "log.csv:3:1: `action` is not one of 0, 1, 2, ...: `-1`");
    bad_log("reward", "cost", "log.csv:1: there is no column `reward`");
    assert!(found(Log::read(Path::new("nowhere.csv"))).contains("nowhere.csv"));

    fn bad_policy(text: &str, expected: &str) {
        assert_eq!(found(Policy::read(&read("p.csv", text), &log())), expected);
    }
    bad_policy(
        "action,probability\n0,0.5\n1,0.25\n",
        "p.csv: the probabilities of position 0 have the sum 0.7500",
    );
    bad_policy("action,probability\n0,0.5\n0,0.5\n", "p.csv:3:1: this action stands twice");
    bad_policy(
        "position,action,probability\n0,0,1\n",
        "p.csv: the policy has no probabilities for position 1",
    );
    bad_policy("p0,p1\n0.5,0.5\n0.5,0.6\n", "p.csv:3:1: the probabilities of this row have the sum 1.100");
    bad_policy("p0,p1\n0.5,0.5\n", "p.csv: 1 rows, but the log has 2");
    bad_policy("p0\n1\n1\n", "p.csv:1: there is no column `p1`");
}
