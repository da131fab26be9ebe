//! Decisions through the real binary: a stream that is learnt from, stopped and gone on with, problems that methods solve,
//! a policy that is evaluated on a log, and what cannot be is refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{done, goes_on_as_if_never_killed, polo, refused};
use tempfile::TempDir;

/// A log of so many decisions.
fn log(folder: &Path, decisions: usize) {
    let few = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../polo-decision/tests/golden/decisions.dsjson"
    ));
    let few = few.unwrap();
    let many: String = few.lines().cycle().take(decisions).flat_map(|line| [line, "\n"]).collect();
    fs::write(folder.join("log.dsjson"), many).unwrap();
}

const CROSSED: &str = "--set oracle.interactions=[\"UA\"]";

#[test]
fn schemes_of_exploration_learn_from_a_log() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    log(folder, 3000);
    let sharp = "--set method.lambda=10";
    let short = "--set method.decisions=200";
    for (method, settings) in [
        ("squarecb", ""),
        ("fastcb", ""),
        ("epsilon-greedy", ""),
        ("softmax", sharp),
        ("explore-first", short),
        ("bag", ""),
        ("cover", "--set method.epsilon=0.05 --set method.psi=0.1"),
        ("regcb", "--set method.least_cost=-1 --set method.most_cost=0 --set method.mellowness=0.01"),
        ("rnd", "--set method.inverse_lambda=0.01"),
    ] {
        let line = format!("train {method} --data log.dsjson --out {method} {CROSSED} {settings}");
        assert_eq!(done(folder, &line), format!("{method}/final\n"));
        let table = fs::read_to_string(folder.join(method).join("final/progressive.txt")).unwrap();
        let last = table.lines().last().unwrap();
        assert!(last.contains("2048"), "{table}");
        // The logging policy earns 0.52 a decision; the same 150 decisions again and again are soon known by heart.
        let loss: f64 = last.split_whitespace().next().unwrap().parse().unwrap();
        assert!(loss < -0.65, "{method}: {table}");
        assert!(
            fs::read_to_string(folder.join(method).join("report.html")).unwrap().contains("losses/average")
        );
    }
    let said = done(folder, "plan squarecb --data log.dsjson");
    assert!(said.contains("3,000"), "{said}");
    // They would wait for ever for what comes of the action that this log never took.
    for method in ["linucb", "thompson"] {
        done(folder, &format!("train {method} --out {method} {CROSSED} --set simulated.decisions=1000"));
        let table = fs::read_to_string(folder.join(method).join("metrics.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(table.trim().lines().last().unwrap()).unwrap();
        assert!(last["losses/average"].as_f64().unwrap() < -0.6, "{last}");
    }
}

#[test]
fn a_killed_stream_goes_on_exactly() {
    let folder = TempDir::new().unwrap();
    log(folder.path(), 60_000);
    let line = format!("train squarecb --data log.dsjson {CROSSED} --set training.checkpoint_every=2000");
    goes_on_as_if_never_killed(folder.path(), "stream", &line);
}

#[test]
fn a_killed_stream_with_late_outcomes_writes_the_same_decisions() {
    let folder = TempDir::new().unwrap();
    let line = "train squarecb --set simulated.decisions=20000 --set feedback.delay=500 --set feedback.batch=100 \
                --set output.decisions=true --set training.checkpoint_every=2000 --set oracle.interactions=[\"UA\"]";
    goes_on_as_if_never_killed(folder.path(), "late", line);
    let [whole, part] = ["late-whole", "late-part"]
        .map(|run| fs::read_to_string(folder.path().join(run).join("decisions.jsonl")).unwrap());
    assert_eq!(whole, part);
    assert_eq!(whole.lines().count(), 20_000);
}

/// A run on a folder of logs goes on where the last file got more lines, or others follow it.
#[test]
fn a_log_may_grow() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    log(folder, 150);
    let all = fs::read_to_string(folder.join("log.dsjson")).unwrap();
    let (first, rest) = all.split_at(all.match_indices('\n').nth(59).unwrap().0);
    let (second, third) = rest.split_at(rest.match_indices('\n').nth(40).unwrap().0 + 1);
    fs::create_dir(folder.join("logs")).unwrap();
    let line = |out: &str| format!("train squarecb {CROSSED} --data logs --resume auto --out {out}");
    refused(folder, &line("grown"), "no file in the folder", "");
    fs::write(folder.join("logs/.hidden"), "no log").unwrap();
    // Without the end of the last line.
    fs::write(folder.join("logs/1.dsjson"), first).unwrap();
    done(folder, &line("grown"));
    fs::write(folder.join("logs/1.dsjson"), format!("{first}{second}")).unwrap();
    done(folder, &line("grown"));
    fs::write(folder.join("logs/2.dsjson"), third).unwrap();
    done(folder, &line("grown"));
    done(folder, &line("whole"));
    let [grown, whole] =
        ["grown", "whole"].map(|run| fs::read(folder.join(run).join("final/model.bin")).unwrap());
    assert!(grown == whole, "what was learnt depends on how often the run stopped");
    fs::write(folder.join("logs/2.dsjson"), format!("{}, or more\n{{}}\n", third.trim_end())).unwrap();
    refused(folder, &line("grown"), "has grown", "whole lines");
}

/// A file of the shape of the Open Bandit Dataset's: item 2 earns, the others do not.
#[test]
fn rows_of_a_shop_are_learnt_from_as_they_are() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let mut rows = String::from(
        ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0,user-item_affinity_1\n",
    );
    for row in 0..3000 {
        let item = row % 3;
        let user = if row % 7 < 3 { "cef3" } else { "81ce" };
        let (position, click) = (1 + row % 2, i32::from(item == 2 && row % 5 > 0));
        rows += &format!(
            "{row},2019-11-24 00:00:01+00:00,{item},{position},{click},0.3333,{user},0.0,{}\n",
            row % 3
        );
    }
    fs::write(folder.join("men.csv"), rows).unwrap();
    assert_eq!(done(folder, "train squarecb --data men.csv --out shop"), "shop/final\n");
    let said = done(folder, "evaluate --log men.csv --policy shop/final --decisions shop.jsonl --json");
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    let lines = found["lines"].as_array().unwrap();
    let names: Vec<_> = lines.iter().map(|line| line["estimator"].as_str().unwrap()).collect();
    assert!(["IPS", "SNIPS", "DM", "DR", "SNDR"].iter().all(|name| names.contains(name)), "{names:?}");
    for line in lines.iter().take(5) {
        assert!((line["value"].as_f64().unwrap() - 0.8).abs() < 0.1, "{line}");
    }
    let decisions = fs::read_to_string(folder.join("shop.jsonl")).unwrap();
    assert_eq!(decisions.lines().count(), 3000);
    let first: serde_json::Value = serde_json::from_str(decisions.lines().next().unwrap()).unwrap();
    assert_eq!(first["probabilities"].as_array().unwrap().len(), 3);
    assert!(done(folder, "evaluate --log men.csv --policy uniform").contains("SNIPS"));
    // A model file that is torn is refused.
    let model = folder.join("shop/final/model.bin");
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    refused(folder, "evaluate --log men.csv --policy shop/final", "torn", "train anew");
}

#[test]
fn text_is_read_and_a_policy_is_applied_to_it() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let mut text = String::new();
    for at in 0..600 {
        // Not as many of each: no single split of a tree could begin to tell them apart.
        let (west, taken) = (usize::from(at % 3 == 0), (at / 3) % 2);
        let segment = ["east", "west"][west];
        let cost = if west == taken { -1 } else { 0 };
        text += &format!("shared 'e{at} |User {segment}\n");
        for action in 0..2 {
            let label = if action == taken { format!("{action}:{cost}:0.5 ") } else { String::new() };
            text += &format!("{label}|Action a{action}\n");
        }
        text += "\n";
    }
    fs::write(folder.join("log.vw"), &text).unwrap();
    for kind in ["linear", "ridge", "trees", "network"] {
        let settings = match kind {
            "network" => "--set oracle.network.learning_rate=0.02",
            "trees" => "",
            _ => CROSSED,
        };
        done(
            folder,
            &format!("train squarecb --data log.vw --out {kind} --set oracle.kind={kind} {settings}"),
        );
        let said = done(folder, &format!("evaluate --log log.vw --policy {kind}/final --json"));
        let found: serde_json::Value = serde_json::from_str(&said).unwrap();
        let value = found["lines"][0]["value"].as_f64().unwrap();
        assert!(value > 0.8, "{kind}: {said}");
    }
    fs::write(folder.join("strange.vw"), text.replace("|User ", "|Who is").replace("|Action ", "|What is"))
        .unwrap();
    fs::write(folder.join("bad.vw"), text.replace("e17 |User", "e17 |User x:y")).unwrap();
    refused(folder, "train squarecb --data bad.vw --out bad", "bad.vw:69:", "on_bad_line=skip");
    refused(folder, "evaluate --log log.vw --policy folder.csv", "nothing stands there", "uniform");
    refused(folder, "evaluate --log log.vw --policy linear", "is a run", "linear/final");
    refused(folder, "evaluate --log log.vw --policy linear/final --model x", "--model", "");
    refused(folder, "evaluate --log bad.vw --policy linear/final", "bad.vw:69:", "mend it, or leave it out");
    done(folder, "train adyen-bandits --out other --set method.generations=2 --set method.batch=200");
    refused(folder, "evaluate --log log.vw --policy other/final", "another method", "squarecb");
    let policy = folder.join("linear/final/policy.json");
    let whole = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, &whole[..whole.len() / 2]).unwrap();
    refused(folder, "evaluate --log log.vw --policy linear/final", "torn", "copy it again");
    fs::write(&policy, whole).unwrap();
    let out = polo(folder, "evaluate --log strange.vw --policy linear/final").output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.contains("none of the features"), "{said}");
    refused(folder, "train linucb --data log.vw --set oracle.kind=linear", "oracle.kind", "ridge");
    refused(folder, "train cover --data log.vw --set oracle.costs=sm", "oracle.costs", "mtr");
    refused(folder, "train squarecb --data log.vw --set simulated.decisions=5", "both given", "--data");
}

#[test]
fn methods_solve_the_problems_that_they_come_with() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    for line in [
        "train weighted-tallying-bandits --set method.rounds=2000",
        "train martingale-td --set method.paths=300",
        "train r2pvi",
        "train adversarial-linear-mdp --set method.episodes=100",
        "train randomized-pbrl --set method.rounds=50",
        "train adyen-bandits --set method.generations=2 --set method.batch=200",
    ] {
        let method = line.split_whitespace().nth(1).unwrap();
        assert_eq!(done(folder, &format!("{line} --out {method}")), format!("{method}/final\n"));
        assert!(
            fs::read_dir(folder.join(method).join("final")).unwrap().count() > 0,
            "{method} left nothing"
        );
    }
}

#[test]
fn a_policy_is_evaluated_on_a_log() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    // Action 1 earns 1, action 0 nothing; each was taken half of the time.
    let rows: String = (0..200).map(|row| format!("{},{},0.5,{}\n", row % 2, row % 2, row % 7)).collect();
    fs::write(folder.join("log.csv"), format!("action,reward,propensity,x\n{rows}")).unwrap();
    fs::write(folder.join("one.csv"), "action,probability\n0,0.25\n1,0.75\n").unwrap();
    let said = done(folder, "evaluate --log log.csv --policy one.csv --json");
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    let lines = found["lines"].as_array().unwrap();
    assert!(lines.len() >= 9, "{said}");
    for line in lines.iter().take(2) {
        assert!((line["value"].as_f64().unwrap() - 0.75).abs() < 1e-9, "{line}");
    }
    assert!(done(folder, "evaluate --log log.csv --policy uniform").contains("SNIPS"));
    let said = done(folder, "evaluate --log log.csv --policy one.csv --report page.html");
    let page = fs::read_to_string(folder.join("page.html")).unwrap();
    for line in said.lines().skip(1).take(9) {
        // A label of the chart and a cell of the table.
        let estimator = line.trim().split("  ").next().unwrap();
        let mentions = |what: &str| page.matches(&format!("{what}{estimator}<")).count();
        assert!(mentions("<td>") == 1 && mentions("<title>") == 1, "{estimator} is missing in {page}");
    }
    assert!(page.contains(">the log itself<") && page.matches("class=\"error\"").count() >= 10, "{page}");
    // Three rows have nothing to fit MRDR's model to; the rest stands.
    fs::write(folder.join("few.csv"), "action,reward,propensity\n0,1,0.5\n1,0,0.5\n1,1,0.5\n").unwrap();
    fs::write(folder.join("zero.csv"), "action,probability\n0,1\n").unwrap();
    let said = done(folder, "evaluate --log few.csv --policy zero.csv");
    assert!(said.contains("SNDR") && !said.contains("MRDR"), "{said}");
    fs::write(folder.join("part.csv"), "action,probability\n0,0.2\n1,0.7\n").unwrap();
    refused(folder, "evaluate --log few.csv --policy part.csv", "have the sum 0.9000", "");
    refused(folder, "evaluate --log few.csv --policy few.csv", "no policy", "`p0`, `p1`");
    refused(folder, "evaluate --episodes 1 --report page.html", "--log", "");
    refused(folder, "evaluate --log log.csv", "--policy", "");
    refused(folder, "evaluate --log missing.csv --policy uniform", "missing.csv", "");
    fs::write(folder.join("bad.csv"), "action,reward,propensity\n0,1,0\n").unwrap();
    refused(folder, "evaluate --log bad.csv --policy uniform", "bad.csv:2", "");
}

#[test]
fn claims_have_a_page_with_plots() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    for method in [
        "weighted-tallying-bandits",
        "adversarial-linear-mdp",
        "r2pvi",
        "randomized-pbrl",
        "martingale-td",
        "adyen-bandits",
    ] {
        done(folder, &format!("reproduce {method} --quick --out {method}"));
        let page = fs::read_to_string(folder.join(method).join("report.html")).unwrap();
        for expected in ["decides nothing", "<figure>", "class=\"band c0\""] {
            assert!(page.contains(expected), "{expected} is missing on the page of {method}");
        }
    }
    assert!(!folder.join("CLAIMS.md").exists());
    refused(folder, "reproduce off-policy --quick", "no method", "did you mean off-policy-evaluation?");
    refused(folder, "explain off-policy-evaluation", "no single method", "polo reproduce");
}

#[test]
fn what_cannot_be_learnt_from_is_refused() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    refused(folder, "train squarecb", "a log of decisions", "--data");
    refused(folder, "train squarecb --data missing.dsjson", "missing.dsjson", "");
    fs::write(folder.join("empty.dsjson"), "").unwrap();
    refused(folder, "train squarecb --data empty.dsjson", "no line", "");
    fs::write(folder.join("header.csv"), "action,reward,propensity\n").unwrap();
    refused(folder, "train squarecb --data header.csv", "no row below", "");
    log(folder, 20);
    fs::copy(folder.join("log.dsjson"), folder.join("log.vw")).unwrap();
    refused(folder, "train squarecb --data log.vw", "log.vw:1:", "read as text");
    let good = fs::read_to_string(folder.join("log.dsjson")).unwrap();
    fs::write(folder.join("bad.dsjson"), format!("{good}{}", &good[..40])).unwrap();
    refused(folder, "train squarecb --data bad.dsjson --out bad", "bad.dsjson:21", "on_bad_line=skip");
    done(folder, "train squarecb --data bad.dsjson --out skipped --set data.on_bad_line=skip");
    refused(folder, "train squarecb --data log.dsjson --set oracle.interactions=[\"U\"]", "`U`", "UA");
    let says = |settings: &str, expected: &str| {
        let line =
            format!("train squarecb --data log.dsjson --resume auto --out run{} {settings}", settings.len());
        let out = polo(folder, &line).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.contains(expected), "{line}: {said}");
    };
    says("--set oracle.interactions=UX", "begins with the `X`");
    says(
        "--set method.elimination=true",
        "lie outside of 0 to 1, which is method.least_cost to method.most_cost",
    );
    says("", "cannot tell them apart without oracle.interactions");
    fs::write(folder.join("rows.csv"), "action,reward,propensity,x\na,1,0.5,3\nb,0,0.5,2\n").unwrap();
    done(folder, "train squarecb --data rows.csv --out rows --set oracle.interactions=CA");
    fs::write(folder.join("contexts.csv"), "x\n3\n2\n").unwrap();
    done(folder, "evaluate --log contexts.csv --policy rows/final --decisions done.jsonl");
    assert_eq!(fs::read_to_string(folder.join("done.jsonl")).unwrap().lines().count(), 2);
    refused(folder, "evaluate --log contexts.csv --policy rows/final", "has an outcome", "--decisions");
    refused(folder, "train squarecb --data contexts.csv --out contexts", "no column `action`", "");
    refused(folder, "train squarecb --data rows.csv --out rows", "a run already", "continue");
    fs::write(folder.join("other.dsjson"), good.replace("\"a\":", "\"b\":")).unwrap();
    refused(folder, "train squarecb --data other.dsjson --out other", "20 lines are no decisions", "`a`");
    refused(folder, "train squarecb --data log.dsjson --out other", "a run already", "begins it anew");
    for key in ["ignored", "categories", "of_action"] {
        let line = format!("train squarecb --data rows.csv --set data.columns.{key}=[\"y\"] --out {key}");
        refused(folder, &line, &format!("data.columns.{key}: there is no column `y`"), "x");
    }
    refused(folder, "train squarecb --data log.dsjson --set method.epsilon=2", "method.epsilon", "");
}
