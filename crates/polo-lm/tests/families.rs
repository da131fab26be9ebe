//! Model folders of every family against transformers: logits, log-probabilities, gradients, weight files, and what
//! happens to damaged ones. Golden values and how they were made: `golden/README.md`. With `POLO_TEST_DEVICE=vulkan` (or
//! `cuda`) logits, scores and gradients are those of that device.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use polo_lm::{
    model::{Batch, LanguageModel},
    weights::{self, Format, Lora, Tensors},
};
use polo_nn::{
    Device, Gradients, device, host,
    logprob::{self, Slopes},
};
use polo_run::seed::{Seeds, below};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The device under test, and how far off it may be as a multiple of f32's rounding: CUDA multiplies f32 matrices on
/// tensor cores, in TF32, with 13 bits less.
fn device() -> (&'static Device, f32) {
    static DEVICE: LazyLock<(Device, f32)> = LazyLock::new(|| {
        let name = std::env::var("POLO_TEST_DEVICE").unwrap_or("cpu".into());
        (device::parse(&name).unwrap(), if name.starts_with("cuda") { 300.0 } else { 1.0 })
    });
    (&DEVICE.0, DEVICE.1)
}

/// All golden model folders by name.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("config.json").exists())
        .collect();
    folders.sort();
    assert_eq!(folders.len(), 14);
    folders
}

/// The golden sequences, without padding, and the logits at all their positions.
fn sequences(folder: &Path) -> Vec<(Vec<u32>, Vec<f32>)> {
    let bytes = fs::read(folder.join("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let integers = |name: &str| -> Vec<i64> {
        file.tensor(name).unwrap().data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
    };
    let logits = file.tensor("logits").unwrap();
    let width = logits.shape()[1];
    let logits: Vec<f32> = logits.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let real = |ids: &str, mask: &str| -> Vec<Vec<u32>> {
        let (ids, mask) = (integers(ids), integers(mask));
        let rows = ids.chunks_exact(37).zip(mask.chunks_exact(37));
        rows.map(|(ids, mask)| {
            ids.iter().zip(mask).filter(|(_, m)| **m == 1).map(|(&id, _)| id as u32).collect()
        })
        .collect()
    };
    let right = real("input_ids", "attention_mask");
    assert_eq!(
        right,
        real("left_input_ids", "left_attention_mask"),
        "the same sequences, padded left and right"
    );
    let mut rest = logits.as_slice();
    right
        .into_iter()
        .map(|tokens| {
            let (own, more) = rest.split_at(tokens.len() * width);
            rest = more;
            (tokens, own.to_vec())
        })
        .collect()
}

fn load(folder: &Path) -> weights::Loaded {
    weights::load(folder, device().0).unwrap()
}

fn logits(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    model.logits(tokens).concat()
}

#[test]
fn logits_equal_those_of_transformers() {
    for folder in folders() {
        let model = load(&folder).model;
        for (tokens, expected) in sequences(&folder) {
            let found = logits(&model, &tokens);
            assert_eq!(found.len(), expected.len(), "{}", folder.display());
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-4 * device().1, "{}: off by {worst}", folder.display());
        }
    }
}

#[test]
fn what_is_saved_loads_as_the_same_model() {
    for folder in folders() {
        let loaded = load(&folder);
        let copy = tempfile::tempdir().unwrap();
        weights::save(&loaded.model, &loaded.config, loaded.format, copy.path()).unwrap();
        let again = load(copy.path());
        assert_eq!(again.format, loaded.format);
        assert_eq!(again.model.architecture, loaded.model.architecture);
        let (tokens, _) = &sequences(&folder)[0];
        assert_eq!(logits(&again.model, tokens), logits(&loaded.model, tokens), "{}", folder.display());
    }
}

#[test]
fn half_precision_rounds_and_says_so() {
    let loaded = load(&golden().join("llama-tied"));
    for (format, name) in [(Format::Bf16, "bfloat16"), (Format::F16, "float16")] {
        let copy = tempfile::tempdir().unwrap();
        weights::save(&loaded.model, &loaded.config, format, copy.path()).unwrap();
        let again = load(copy.path());
        assert_eq!(again.format, format);
        let dtype = again.config.get("dtype").or_else(|| again.config.get("torch_dtype"));
        assert_eq!(dtype.and_then(Value::as_str), Some(name));
        let (before, after) = (logits(&loaded.model, &[5, 6, 7]), logits(&again.model, &[5, 6, 7]));
        assert_ne!(before, after);
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 0.1));
    }
}

/// log softmax of one row.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().copied().fold(f32::MIN, f32::max);
    let total: f64 = row.iter().map(|&x| f64::from(x - top).exp()).sum();
    row.iter().map(|&x| f64::from(x - top) - total.ln()).collect()
}

#[test]
fn scores_of_trees_equal_those_of_whole_sequences() {
    for folder in folders() {
        let model = load(&folder).model;
        let trees: [(&[u32], &[&[u32]]); 4] = [
            (&[3, 14, 15, 92, 65], &[&[35, 89, 79, 32], &[38], &[4, 6, 2, 6, 4, 33, 8]]),
            (&[1], &[&[2, 3], &[2, 4]]),
            (&[9, 9, 9], &[&[]]),
            (&[50, 51], &[&[52, 53, 54]]),
        ];
        let mut batch = Batch::default();
        trees.iter().for_each(|(prompt, answers)| batch.add(prompt, answers));
        assert_eq!(batch.tokens(), (5 + 3 + 6) + (1 + 1 + 1) + 3 + (2 + 2));
        let scores = model.score_only(&batch);
        assert_eq!(scores, model.score(&batch).0);
        let mut ranges = batch.answers().iter();
        for (prompt, answers) in trees {
            for answer in answers {
                let range = ranges.next().unwrap().clone();
                assert_eq!(range.len(), answer.len());
                let whole = model.logits(&[prompt, answer].concat());
                for (i, (&token, at)) in answer.iter().zip(range).enumerate() {
                    let logps = log_softmax(&whole[prompt.len() - 1 + i]);
                    let best = logps.iter().copied().fold(f64::MIN, f64::max);
                    let entropy = -logps.iter().map(|x| x.exp() * x).sum::<f64>();
                    let logp = logps[token as usize];
                    let most = 1e-4 * f64::from(device().1);
                    assert!((f64::from(scores.logps[at]) - logp).abs() < most, "{}", folder.display());
                    assert!((f64::from(scores.entropies[at]) - entropy).abs() < most, "{}", folder.display());
                    assert!(scores.hits[at] == (logp >= best) || best - logp < most - 1e-4);
                }
            }
        }
        assert!(ranges.next().is_none());
    }
}

// Gradients.

/// Each parameter's gradient of Σ c·logp + Σ d·entropy under the device's model is that under the CPU's.
#[test]
fn gradients_equal_those_of_the_cpu() {
    let (device, rounding) = device();
    let mut batch = Batch::default();
    batch.add(&[3, 14, 15, 92, 65], &[&[35, 89, 79, 32], &[38], &[4, 6, 2, 6, 4, 33, 8]]);
    batch.add(&[1], &[&[2, 3], &[2, 4]]);
    let count = batch.answers().last().unwrap().end;
    let (c, d) = (Seeds::new(3).normal(count, "dlogps", 0), Seeds::new(3).normal(count, "dentropies", 0));
    for folder in folders() {
        let run = |device: &Device| {
            let mut model = weights::load(&folder, device).unwrap().model;
            model.add_low_rank(&Lora { rank: 3, alpha: 6.0, targets: Vec::new() }, &Seeds::new(4)).unwrap();
            model.parameters.iter_mut().for_each(|parameter| parameter.trainable = true);
            let (_, tape) = model.score(&batch);
            let mut gradients = Gradients::new(&model.parameters);
            let slopes = Slopes { logps: &c, entropies: Some(&d), divergences: None };
            model.push_back(&batch, tape, slopes, &mut gradients);
            let numbers = |id| host::numbers(gradients.get(id).unwrap());
            (0..model.parameters.len()).map(numbers).collect::<Vec<_>>()
        };
        for (id, (found, expected)) in run(device).iter().zip(&run(&Device::flex())).enumerate() {
            let size = expected.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(
                worst <= 2e-5 * rounding * size,
                "{}: parameter {id} is off by {worst}",
                folder.display()
            );
        }
    }
}

fn llama_like(more: Value) -> Value {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 20,
        "max_position_embeddings": 64, "initializer_range": 0.3, "tie_word_embeddings": false,
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// A random model none of whose parameters stands at a special value, such as one or zero.
fn random(config: &Value) -> LanguageModel {
    let mut model = weights::init(config, &Seeds::new(1), &Device::flex()).unwrap();
    scatter(&mut model);
    model
}

fn scatter(model: &mut LanguageModel) {
    for (id, parameter) in model.parameters.iter_mut().enumerate() {
        let mut numbers = host::numbers(&parameter.value);
        let noise = Seeds::new(2).normal(numbers.len(), "noise", id as u64);
        numbers.iter_mut().zip(noise).for_each(|(x, n)| *x += 0.2 * n);
        parameter.value = host::tensor(numbers, parameter.value.dims(), &Device::flex());
    }
}

fn shift(model: &mut LanguageModel, id: usize, along: &[f64], by: f64) {
    let parameter = model.parameters.iter_mut().nth(id).unwrap();
    let mut numbers = host::numbers(&parameter.value);
    numbers.iter_mut().zip(along).for_each(|(x, a)| *x = (f64::from(*x) + a * by) as f32);
    parameter.value = host::tensor(numbers, parameter.value.dims(), &Device::flex());
}

/// Compares the pushed-back gradient of Σ c·logp + Σ d·entropy + Σ e·KL(reference ‖ model) with central differences, for every trainable parameter
/// along its gradient, along a random direction and along single numbers.
#[track_caller]
fn check_gradients(model: &mut LanguageModel) {
    let mut batch = Batch::default();
    batch.add(&[3, 1, 4, 1, 5], &[&[9, 2, 6], &[5], &[3, 5, 8, 9]]);
    batch.add(&[7, 9], &[&[3, 2, 3], &[8, 4]]);
    let seeds = Seeds::new(3);
    let count = batch.answers().last().unwrap().end;
    let [c, d, e] = ["dlogps", "dentropies", "ddivergences"].map(|name| seeds.normal(count, name, 0));
    let reference = {
        let mut other = model.clone();
        scatter(&mut other);
        other.view(&batch)
    };
    let loss = |model: &LanguageModel| -> f64 {
        let view = model.view(&batch);
        let (scores, divergences) = (&view.scores, logprob::divergences(&view, &reference));
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        dot(&c, &scores.logps) + dot(&d, &scores.entropies) + dot(&e, &divergences)
    };
    let (_, tape) = model.score(&batch);
    let mut gradients = Gradients::new(&model.parameters);
    let slopes = Slopes { logps: &c, entropies: Some(&d), divergences: Some((&reference, &e)) };
    model.push_back(&batch, tape, slopes, &mut gradients);
    let parameters: Vec<(String, bool)> =
        model.parameters.iter().map(|p| (p.name.clone(), p.trainable)).collect();
    for (id, (name, trainable)) in parameters.into_iter().enumerate() {
        let Some(gradient) = gradients.get(id) else {
            assert!(!trainable, "{name} has no gradient");
            continue;
        };
        assert!(trainable, "{name} is frozen and has a gradient");
        let gradient: Vec<f64> = host::numbers(gradient).into_iter().map(f64::from).collect();
        let mut directions = vec![gradient.clone()];
        directions
            .push(seeds.normal(gradient.len(), "direction", id as u64).into_iter().map(f64::from).collect());
        let mut rng = seeds.rng("elements", id as u64);
        for _ in 0..2 {
            let mut one = vec![0.0; gradient.len()];
            one[below(&mut rng, gradient.len() as u64) as usize] = 1.0;
            directions.push(one);
        }
        for mut along in directions {
            let length = along.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length < 1e-4 {
                // The bias of GPT-2's keys moves all scores of a query alike and so has no gradient.
                continue;
            }
            along.iter_mut().for_each(|x| *x /= length);
            let mut slope = |step: f64| {
                let mut at = |by| {
                    shift(model, id, &along, by);
                    let value = loss(model);
                    shift(model, id, &along, -by);
                    value
                };
                (at(step) - at(-step)) / (2.0 * step)
            };
            // Richardson's extrapolation removes the error of second order.
            let measured = (4.0 * slope(4e-3) - slope(8e-3)) / 3.0;
            let pushed = along.iter().zip(&gradient).map(|(a, g)| a * g).sum::<f64>();
            let error = (measured - pushed).abs();
            assert!(
                error < 5e-3 * (1.0 + measured.abs()),
                "{name}: measured {measured}, pushed back {pushed}"
            );
        }
    }
}

#[test]
fn gradients_of_grouped_queries_with_biases() {
    check_gradients(&mut random(&llama_like(json!({ "attention_bias": true, "mlp_bias": true }))));
}

#[test]
fn gradients_of_head_norms_and_a_tied_head() {
    check_gradients(&mut random(&llama_like(json!({ "model_type": "qwen3", "tie_word_embeddings": true }))));
}

#[test]
fn gradients_of_gpt2() {
    check_gradients(&mut random(&json!({
        "model_type": "gpt2", "vocab_size": 23, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64,
        "initializer_range": 0.3,
    })));
}

#[test]
fn gradients_of_adapters() {
    for config in [
        llama_like(json!({})),
        json!({
            "model_type": "gpt2", "vocab_size": 23, "n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 64,
            "initializer_range": 0.3,
        }),
    ] {
        let mut model = weights::init(&config, &Seeds::new(1), &Device::flex()).unwrap();
        let before = logits(&model, &[1, 2, 3]);
        let lora = Lora { rank: 3, alpha: 6.0, targets: Vec::new() };
        model.add_low_rank(&lora, &Seeds::new(4)).unwrap();
        assert_eq!(logits(&model, &[1, 2, 3]), before, "a new adapter changes nothing");
        scatter(&mut model);
        check_gradients(&mut model);

        // Merged, as a saved folder has them, the weights say the same as weights and adapters.
        let folder = tempfile::tempdir().unwrap();
        weights::save(&model, &config, Format::F32, folder.path()).unwrap();
        let merged = load(folder.path()).model;
        let (with, without) = (logits(&model, &[1, 2, 3]), logits(&merged, &[1, 2, 3]));
        assert!(with.iter().zip(&without).all(|(a, b)| (a - b).abs() < 1e-3));
        assert!(with.iter().zip(&before).any(|(a, b)| (a - b).abs() > 1e-2));
    }
    let mut model = random(&llama_like(json!({})));
    let lora = Lora { rank: 3, alpha: 6.0, targets: vec!["q_project".into()] };
    let problem = model.add_low_rank(&lora, &Seeds::new(4)).unwrap_err();
    assert!(problem.message().contains("q_project"), "{problem}");
    assert!(problem.hint_text().unwrap().contains("q_proj, "), "{problem}");
}

#[test]
fn gradients_add_up_over_batches() {
    let model = random(&llama_like(json!({ "tie_word_embeddings": true })));
    let mut first = Batch::default();
    first.add(&[3, 1, 4], &[&[1, 5]]);
    let mut second = Batch::default();
    second.add(&[9, 2], &[&[6, 5, 3]]);
    let mut both = first.clone();
    both.add(&[9, 2], &[&[6, 5, 3]]);
    let push = |batch: &Batch, gradients: &mut Gradients| {
        let (scores, tape) = model.score(batch);
        model.push_back(batch, tape, &vec![1.0; scores.logps.len()][..], gradients);
    };
    let mut apart = Gradients::new(&model.parameters);
    push(&first, &mut apart);
    let mut other = Gradients::new(&model.parameters);
    push(&second, &mut other);
    apart.merge(other);
    let mut together = Gradients::new(&model.parameters);
    push(&both, &mut together);
    for id in 0..model.parameters.len() {
        let (a, b) = (host::numbers(apart.get(id).unwrap()), host::numbers(together.get(id).unwrap()));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + b.abs())));
    }
}

// Damaged folders.

fn copy(name: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden().join(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::remove_file(copy.path().join("golden.safetensors")).unwrap();
    copy
}

/// Damages a copy of a golden folder and checks what is said about it: all of `expected` in place, message or hint.
#[track_caller]
fn check(name: &str, damage: impl FnOnce(&Path), expected: &[&str]) {
    let folder = copy(name);
    damage(folder.path());
    let problem = weights::load(folder.path(), &Device::flex()).unwrap_err();
    let said = format!("{problem} ({})", problem.hint_text().unwrap_or_default());
    assert_eq!(problem.kind(), polo_run::Kind::Input, "{said}");
    for part in expected {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

fn edit_weights(folder: &Path, edit: impl FnOnce(&mut Tensors)) {
    let path = folder.join("model.safetensors");
    let mut tensors = weights::read_safetensors(&path).unwrap();
    edit(&mut tensors);
    weights::write_safetensors(&path, &tensors, Format::F32).unwrap();
}

#[test]
fn missing_files_are_named() {
    let weights_file = "model.safetensors";
    check("llama", |f| fs::remove_file(f.join(weights_file)).unwrap(), &["model.safetensors is missing"]);
    check(
        "llama",
        |f| fs::rename(f.join(weights_file), f.join("llama.safetensors")).unwrap(),
        &["model.safetensors is missing", "there is `llama.safetensors`: rename it"],
    );
    check(
        "llama",
        |f| fs::rename(f.join(weights_file), f.join("pytorch_model.bin")).unwrap(),
        &["pytorch_model.bin", "pickle"],
    );
    check("llama", |f| fs::remove_file(f.join("config.json")).unwrap(), &["config.json"]);
    let shard = "model-00003-of-00004.safetensors";
    check("llama-sharded", |f| fs::remove_file(f.join(shard)).unwrap(), &[shard, "index.json", "is missing"]);
    let problem = weights::load(Path::new("no/such/folder"), &Device::flex()).unwrap_err();
    assert!(problem.to_string().contains("no/such/folder is not a folder"), "{problem}");
}

#[test]
fn damaged_weights_are_refused() {
    let truncate = |name: &'static str, part: fn(usize) -> usize| {
        move |folder: &Path| {
            let path = folder.join(name);
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..part(bytes.len())]).unwrap();
        }
    };
    let parts: [fn(usize) -> usize; 5] = [|_| 0, |_| 5, |_| 300, |n| n / 2, |n| n - 1];
    for part in parts {
        check("llama", truncate("model.safetensors", part), &["model.safetensors", "truncated"]);
    }
    let shard = "model-00002-of-00004.safetensors";
    check("llama-sharded", truncate(shard, |n| n - 9), &[shard, "truncated"]);
    let gate = "model.layers.1.mlp.gate_proj.weight";
    let poison = |value: f32| {
        move |folder: &Path| {
            edit_weights(folder, |tensors| tensors.get_mut(gate).unwrap().1[7] = value);
        }
    };
    check("llama", poison(f32::NAN), &[gate, "NaN at element 7"]);
    check("llama", poison(f32::INFINITY), &[gate, "inf at element 7"]);
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_refused() {
    let gate = "model.layers.1.mlp.gate_proj.weight";
    check(
        "llama",
        |f| edit_weights(f, |tensors| tensors.get_mut(gate).unwrap().0.reverse()),
        &[gate, "has shape", "config.json asks for"],
    );
    check(
        "llama",
        |f| {
            edit_weights(f, |tensors| {
                let moved = tensors.remove("model.norm.weight").unwrap();
                tensors.insert("model.final_norm.weight".into(), moved);
            });
        },
        &["`model.norm.weight` is missing", "`model.final_norm.weight`"],
    );
    check("llama-tied", |f| edit_config(f, |c| c["tie_word_embeddings"] = json!(false)), &["lm_head.weight"]);
    check("gpt2", |f| edit_config(f, |c| c["n_layer"] = json!(9)), &["h.", "is missing"]);
    check("gpt2", |f| edit_config(f, |c| c["n_embd"] = json!(33)), &["wte.weight", "shape"]);
}

#[test]
fn configurations_that_polo_lacks_are_refused() {
    let set = |key: &'static str, value: Value| move |folder: &Path| edit_config(folder, |c| c[key] = value);
    check("llama", set("model_type", json!("mamba")), &["config.json", "`mamba`", "supported: llama"]);
    check("llama", set("model_type", Value::Null), &["model_type"]);
    check("llama", set("hidden_size", json!("wide")), &["hidden_size", "\"wide\""]);
    check("llama", set("hidden_act", json!("relu")), &["hidden_act", "relu"]);
    check("llama", set("num_key_value_heads", json!(3)), &["num_attention_heads", "do not fit together"]);
    check(
        "llama3-rope",
        |f| edit_config(f, |c| c["rope_scaling"]["rope_type"] = json!("yarn")),
        &["yarn", "llama3"],
    );
    check("qwen2", set("use_sliding_window", json!(true)), &["sliding_window"]);
    check("gpt2", set("scale_attn_by_inverse_layer_idx", json!(true)), &["scale_attn_by_inverse_layer_idx"]);
    check(
        "llama",
        |f| fs::write(f.join("config.json"), "{\n  \"model_type\": ").unwrap(),
        &["config.json:2:", "JSON"],
    );
}
