//! The whole way from tokens to updated weights, against values that TRL computed (see `golden/README.md`).
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::PathBuf};

use polo_lm::weights;
use polo_nn::{Device, host};
use polo_preference::{
    methods::{dpo::Dpo, ipo::Ipo},
    objective::{Example, PairObjective, Reduction, Tree},
    settings::{Schedule, Training},
    trainer::{self, Trainer},
};
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|token| token.as_u64().unwrap() as u32).collect()
}

fn example((i, pair): (usize, &Value)) -> Example {
    Example {
        trees: vec![Tree {
            prompt: tokens(&pair["prompt_ids"]),
            answers: vec![tokens(&pair["chosen_ids"]), tokens(&pair["rejected_ids"])],
        }],
        label: 1.0,
        id: format!("pair {i}"),
        ..Example::default()
    }
}

fn examples(value: &Value) -> Vec<Example> {
    value.as_array().unwrap().iter().enumerate().map(example).collect()
}

fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs() / (1.0 + expected.abs());
    assert!(error <= tolerance, "{what}: {found} against TRL's {expected}, off by {error:e}");
}

fn objective(loss: &str) -> Box<dyn PairObjective> {
    match loss {
        "sigmoid" => Box::new(Dpo { beta: 0.1, ..Dpo::default() }),
        "ipo" => Box::new(Ipo { beta: 0.1, reduction: Reduction::Mean }),
        _ => Box::new(Ipo { beta: 0.1, reduction: Reduction::Sum }),
    }
}

fn one_step(loss: &str, gradients: &str, shares: usize, micro_batch: usize) {
    let device = Device::flex();
    let reference = weights::load(&golden("../../../polo-lm/tests/golden/llama"), &device).unwrap().model;
    let policy = weights::load(&golden("policy"), &device).unwrap().model;
    let truth = json("one_step.json");
    let examples = examples(&truth["batch"]);
    let training = Training { shares, micro_batch, batch: 4, ..Training::default() };
    let references = trainer::score(&reference, &examples, &training, |_| {});
    for (i, scores) in references.iter().enumerate() {
        let pairs = &truth["per_pair"];
        close("reference, chosen", scores[0], pairs["ref_chosen_logps"][i].as_f64().unwrap(), 2e-6);
        close("reference, rejected", scores[1], pairs["ref_rejected_logps"][i].as_f64().unwrap(), 2e-6);
    }
    let objective = objective(loss);
    let trainer = Trainer::new(policy, objective.as_ref(), training, &examples, &references);
    let pushed = trainer.push_back(&[0, 1, 2, 3]);
    let expected = match loss {
        "ipo_sum" => &truth["by_hand"][loss]["loss"],
        _ => &truth["trl"][loss]["loss"],
    };
    close("loss", pushed.loss, expected.as_f64().unwrap(), 5e-6);
    if let Some(metrics) = truth["trl"][loss]["metrics"].as_object() {
        let mut compared = 0;
        for (name, value) in metrics {
            if let Some(found) = pushed.metrics.get(name) {
                close(name, found, value.as_f64().unwrap(), 5e-6);
                compared += 1;
            }
        }
        assert!(compared >= 8, "only {compared} of TRL's metrics were compared: {metrics:?}");
    }
    let truth = weights::read_safetensors(&golden(gradients)).unwrap();
    let mut compared = 0;
    for (id, parameter) in trainer.model.parameters.iter().enumerate() {
        let (_, expected) = &truth[&parameter.name];
        let found = host::numbers(pushed.gradients.get(id).unwrap());
        let scale = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 2e-5 * scale.max(1e-3),
                "{}: {found} against {expected}",
                parameter.name
            );
        }
        compared += 1;
    }
    assert_eq!(compared, truth.len());
}

#[test]
fn one_step_of_dpo_is_trls() {
    one_step("sigmoid", "gradients-sigmoid.safetensors", 1, 4);
}

#[test]
fn one_step_of_ipo_is_trls() {
    one_step("ipo", "gradients-ipo.safetensors", 1, 4);
}

#[test]
fn one_step_of_the_papers_ipo_is_that_computed_by_hand() {
    one_step("ipo_sum", "gradients-ipo-sum.safetensors", 1, 4);
}

#[test]
fn shares_and_micro_batches_change_rounding_only() {
    one_step("sigmoid", "gradients-sigmoid.safetensors", 3, 4);
    one_step("sigmoid", "gradients-sigmoid.safetensors", 2, 3);
}

fn trajectory(loss: &str, tolerance: f64) {
    let device = Device::flex();
    let model = weights::load(&golden("../../../polo-lm/tests/golden/llama"), &device).unwrap().model;
    let truth = json(&format!("trajectory-{loss}.json"));
    let examples = examples(&truth["pairs"]);
    let training = Training {
        batch: 2,
        micro_batch: 2,
        steps: Some(20),
        learning_rate: 1e-3,
        schedule: Schedule::Linear,
        weight_decay: 0.01,
        shares: 2,
        ..Training::default()
    };
    let references = trainer::score(&model, &examples, &training, |_| {});
    let objective = objective(loss);
    let mut trainer = Trainer::new(model, objective.as_ref(), training, &examples, &references);
    for (k, step) in truth["steps"].as_array().unwrap().iter().enumerate() {
        let found = trainer.step_on(&[2 * k % 8, (2 * k + 1) % 8], None).unwrap().metrics;
        for name in ["loss", "grad_norm", "learning_rate"] {
            close(
                &format!("{name} of step {k}"),
                found.get(name).unwrap(),
                step[name].as_f64().unwrap(),
                tolerance,
            );
        }
    }
    let expected: BTreeMap<_, _> =
        weights::read_safetensors(&golden(&format!("trajectory-{loss}.safetensors"))).unwrap();
    for parameter in trainer.model.parameters.iter() {
        let Some((_, expected)) = expected.get(&parameter.name) else { continue };
        for (found, expected) in host::numbers(&parameter.value).iter().zip(expected) {
            close(&parameter.name, f64::from(*found), f64::from(*expected), 5e-5);
        }
    }
}

#[test]
fn twenty_steps_of_dpo_are_trls() {
    trajectory("sigmoid", 5e-5);
}

#[test]
fn twenty_steps_of_ipo_are_trls() {
    trajectory("ipo", 1e-4);
}
