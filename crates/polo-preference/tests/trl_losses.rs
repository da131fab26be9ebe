//! Losses, logged metrics and gradients against what TRL's trainers compute (see `golden/README.md`).
#![allow(clippy::unwrap_used)]

use polo_preference::{
    methods::{dpo_survey::Survey, rdpo::Rdpo, simpo::Simpo, tpo::Tpo},
    objective::{Batch, PairObjective, differentiate},
};
use polo_run::config::Settings;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn slots(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().unwrap().iter().map(numbers).collect()
}

fn objective<M: DeserializeOwned + Settings + PairObjective + 'static>(
    settings: &Value,
) -> Box<dyn PairObjective> {
    let method: M = serde_json::from_value(settings.clone()).unwrap();
    method.check().unwrap();
    Box::new(method)
}

fn batch(values: &Value, with_reference: bool) -> Batch {
    let lengths = |slot: Vec<f64>| slot.into_iter().map(|tokens| tokens as usize).collect();
    Batch {
        policy: slots(&values["policy"]),
        reference: if with_reference { slots(&values["reference"]) } else { Vec::new() },
        tokens: slots(&values["tokens"]).into_iter().map(lengths).collect(),
        typicality: slots(&values["typicality"]),
        labels: numbers(&values["labels"]),
        ..Batch::default()
    }
}

#[test]
fn losses_are_trl_s() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/losses.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    for case in cases {
        let what = format!("{} as {} {}", case["name"], case["method"], case["settings"]);
        let objective = match case["method"].as_str().unwrap() {
            "dpo-survey" => objective::<Survey>(&case["settings"]),
            "rdpo" => objective::<Rdpo>(&case["settings"]),
            "simpo" => objective::<Simpo>(&case["settings"]),
            "tpo" => objective::<Tpo>(&case["settings"]),
            other => panic!("no method {other}"),
        };
        let batch = batch(&golden["batches"][case["batch"].as_str().unwrap()], objective.uses_reference());
        let found = differentiate(objective.as_ref(), &batch);
        let examples = batch.labels.len() as f64;
        let tolerance = case["tolerance"].as_f64().unwrap();
        let close = |name: &str, found: f64, expected: f64| {
            let error = (found - expected).abs() / (1.0 + expected.abs());
            assert!(error <= tolerance, "{what}: {name} is {found}, TRL's {expected}, off by {error:e}");
        };
        close("loss", found.sum() / examples, case["loss"].as_f64().unwrap());
        let gradients = slots(&case["gradient"]);
        assert_eq!(gradients.len(), found.policy.len(), "{what}");
        for (slot, (ours, theirs)) in found.policy.iter().zip(&gradients).enumerate() {
            for (ours, theirs) in ours.iter().zip(theirs) {
                close(&format!("gradient of slot {slot}"), ours / examples, *theirs);
            }
        }
        let metrics = case["metrics"].as_object().unwrap();
        for (name, value) in metrics {
            let ours = found.metrics.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
            close(name, ours, value.as_f64().unwrap());
        }
        assert!(metrics.len() >= 5, "{what}: TRL logs {metrics:?}");
    }
    assert!(cases.len() >= 50, "{}", cases.len());
}
