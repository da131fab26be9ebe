//! The readout at the end of answers: its place, its gradient, its file.
#![allow(clippy::unwrap_used)]

use polo_lm::{
    model::{Batch, LanguageModel},
    weights,
};
use polo_nn::{Device, Gradients, host};
use polo_run::seed::Seeds;
use serde_json::json;

fn config() -> serde_json::Value {
    json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 11, "hidden_size": 8,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 12,
        "max_position_embeddings": 32, "tie_word_embeddings": false, "initializer_range": 0.4,
    })
}

fn model() -> LanguageModel {
    let mut model = weights::init(&config(), &Seeds::new(1), &Device::flex()).unwrap();
    model.add_readout("score", 2, 0.5, true, &Seeds::new(2));
    model
}

fn batch() -> Batch {
    let mut batch = Batch::default();
    batch.add(&[1, 2, 3], &[&[4, 5, 0], &[6, 0]]);
    batch.add(&[7], &[&[0], &[8, 9, 10, 0]]);
    batch
}

/// The readout sees everything before the end token, and nothing else.
#[test]
fn it_reads_the_state_before_the_end_token() {
    let model = model();
    let (scores, read) = model.score_and_read(&batch());
    assert_eq!((scores.logps.len(), read.len()), (10, 4 * 2));
    let alone = |prompt: &[u32], answer: &[u32]| {
        let mut batch = Batch::default();
        batch.add(prompt, &[answer]);
        model.score_and_read(&batch).1
    };
    let close = |found: &[f32], expected: &[f32]| {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    };
    close(&read[..2], &alone(&[1, 2, 3], &[4, 5, 9]));
    close(&read[2..4], &alone(&[1, 2, 3, 6], &[0]));
    close(&read[6..], &alone(&[7, 8], &[9, 10, 0]));
}

#[test]
fn its_gradient_is_that_of_finite_differences() {
    let (mut model, batch) = (model(), batch());
    let weights: Vec<f32> = (0..8).map(|i| (i as f32 * 1.7).sin()).collect();
    let (scores, tape) = model.score(&batch);
    assert_eq!(model.read(&batch, &tape), model.score_and_read(&batch).1);
    let mut gradients = Gradients::new(&model.parameters);
    let nothing = vec![0.0; scores.logps.len()];
    model.push_back_both(&batch, tape, &nothing[..], &weights, &mut gradients);
    let value = |model: &LanguageModel| -> f64 {
        let (_, read) = model.score_and_read(&batch);
        read.iter().zip(&weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
    };
    let mut checked = 0;
    for id in 0..model.parameters.len() {
        let name = model.parameters.iter().nth(id).unwrap().name.clone();
        let Some(gradient) = gradients.get(id).map(host::numbers) else { continue };
        let original = model.parameters.get(id).clone();
        let steepest =
            (0..gradient.len()).max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs())).unwrap();
        let mut at = |shift: f32| {
            let mut numbers = host::numbers(&original);
            numbers[steepest] += shift;
            model.parameters.iter_mut().nth(id).unwrap().value =
                host::tensor(numbers, original.dims(), &Device::flex());
            value(&model)
        };
        let mut central = |step: f32| (at(step) - at(-step)) / (2.0 * f64::from(step));
        // Extrapolated, so that a step can be large against f32's rounding.
        let slope = (4.0 * central(4e-3) - central(8e-3)) / 3.0;
        at(0.0);
        let found = f64::from(gradient[steepest]);
        assert!((found - slope).abs() < 2e-3 * (1.0 + slope.abs()), "{name}: {found} is not {slope}");
        checked += usize::from(found != 0.0);
    }
    // All but the head, through which nothing was pushed.
    assert!(checked >= 20, "{checked}");
}

#[test]
fn a_model_with_a_readout_comes_back_from_its_folder() {
    let mut model = weights::init(&config(), &Seeds::new(1), &Device::flex()).unwrap();
    model.add_readout("score", 1, 0.5, false, &Seeds::new(2));
    let folder = tempfile::tempdir().unwrap();
    weights::save(&model, &config(), weights::Format::F32, folder.path()).unwrap();
    let back = weights::load(folder.path(), &Device::flex()).unwrap();
    assert_eq!(back.config["architectures"][0], "LlamaForSequenceClassification");
    assert_eq!(back.config["num_labels"], 1);
    assert_eq!(back.model.score_and_read(&batch()), model.score_and_read(&batch()));
    // Without it, the language model is as it was.
    let mut plain = back.model;
    plain.drop_readout();
    assert!(plain.readout().is_none() && plain.score_and_read(&batch()).1.is_empty());
    assert_eq!(plain.score_only(&batch()), model.score_only(&batch()));
}
