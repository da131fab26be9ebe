//! Tests of [`super`]: golden tokens of every family, exact log-probabilities, independence of company, and the
//! distributions of samplers. With `POLO_TEST_DEVICE=vulkan` (or `cuda`) the golden tokens are drawn there.

use std::{fs, path::PathBuf};

use polo_nn::{Device, device};
use safetensors::SafeTensors;
use serde_json::json;

use super::*;
use crate::{
    model::Batch,
    tokens::tests::words,
    weights::{init, load},
};

/// A random model of 23 tokens with a context of 40, far from uniform.
fn random(family: &str) -> LanguageModel {
    let config = match family {
        "gpt2" => json!({
            "model_type": "gpt2", "vocab_size": 23, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 40,
            "initializer_range": 0.4,
        }),
        family => json!({
            "model_type": family, "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 20,
            "max_position_embeddings": 40, "initializer_range": 0.4,
        }),
    };
    init(&config, &Seeds::new(1), &Device::flex()).unwrap()
}

fn greedy(max_new_tokens: usize) -> Sampling<'static> {
    Sampling { temperature: 0.0, max_new_tokens, ..Sampling::default() }
}

/// Generation with the cache of devices other than the CPU.
fn generate_padded(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    samples: usize,
    sampling: &Sampling,
) -> Vec<Completion> {
    let numbered: Vec<Numbered> = prompts.iter().map(Vec::as_slice).enumerate().collect();
    let wave = Wave { model, sampling, samples, padded: true };
    wave.run(&numbered, &Seeds::new(5), &mut |_, _| {}).unwrap()
}

fn tokens(answers: &[Completion]) -> Vec<Vec<u32>> {
    answers.iter().map(|answer| answer.tokens.clone()).collect()
}

#[track_caller]
fn assert_same(a: &[Completion], b: &[Completion]) {
    assert_eq!(tokens(a), tokens(b));
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.finished, b.finished);
        assert!(a.logps.iter().zip(&b.logps).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn greedy_decoding_equals_that_of_transformers() {
    let name = std::env::var("POLO_TEST_DEVICE").unwrap_or("cpu".into());
    let device = device::parse(&name).unwrap();
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut families = 0;
    for folder in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(bytes) = fs::read(folder.join("golden.safetensors")) else { continue };
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let rows = |name: &str| -> Vec<Vec<i64>> {
            let view = file.tensor(name).unwrap();
            let all: Vec<i64> = view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
            all.chunks_exact(view.shape()[1]).map(<[i64]>::to_vec).collect()
        };
        let model = load(&folder, &device).unwrap().model;
        let real = |(ids, mask): (Vec<i64>, Vec<i64>)| {
            ids.into_iter().zip(mask).filter(|(_, m)| *m == 1).map(|(id, _)| id as u32).collect::<Vec<u32>>()
        };
        let prompts: Vec<Vec<u32>> =
            rows("input_ids").into_iter().zip(rows("attention_mask")).map(real).collect();
        let expected: Vec<Vec<u32>> =
            rows("greedy").into_iter().map(|row| row.into_iter().map(|id| id as u32).collect()).collect();
        let answers = generate(&model, &prompts, 1, &greedy(24), &Seeds::new(0), 1).unwrap();
        if name.starts_with("cuda") {
            // Products of f32 matrices are rounded to TF32 there, which may turn close decisions and what follows.
            let equal = |(a, b): (&Vec<u32>, &Vec<u32>)| a.iter().zip(b).take_while(|(a, b)| a == b).count();
            let equal: usize = tokens(&answers).iter().zip(&expected).map(equal).sum();
            assert!(equal >= 36, "{}: {equal} of 72 tokens before the first other one", folder.display());
            families += 1;
            continue;
        }
        assert_eq!(tokens(&answers), expected, "{}", folder.display());
        assert_same(&generate_padded(&model, &prompts, 1, &greedy(24)), &answers);
        families += 1;
    }
    assert_eq!(families, 14);
}

#[test]
fn logps_are_those_of_scoring_the_same_answers() {
    for family in ["llama", "qwen3", "gpt2"] {
        let model = random(family);
        let prompts = [vec![3, 1, 4, 1, 5], vec![9], vec![2, 6, 5]];
        let sampling = Sampling {
            temperature: 0.7,
            top_k: 9,
            top_p: 0.9,
            max_new_tokens: 20,
            stop: vec![2, 7, 11, 13],
            ..Sampling::default()
        };
        let answers = generate(&model, &prompts, 5, &sampling, &Seeds::new(5), 2).unwrap();
        assert!(answers.iter().any(|answer| answer.finished == Finished::Stop));
        let mut batch = Batch::default();
        for (prompt, answers) in prompts.iter().zip(answers.chunks(5)) {
            batch.add(prompt, &answers.iter().map(|answer| answer.tokens.as_slice()).collect::<Vec<_>>());
        }
        let scores = model.score_only(&batch);
        for (answer, range) in answers.iter().zip(batch.answers()) {
            assert_eq!(answer.tokens.len(), answer.logps.len());
            for (found, expected) in answer.logps.iter().zip(&scores.logps[range.clone()]) {
                assert!((found - expected).abs() < 1e-4, "{family}: drew at {found}, scored {expected}");
            }
        }
    }
}

#[test]
fn what_a_sequence_draws_does_not_depend_on_its_company() {
    let model = random("llama");
    // More than fit into one wave.
    let prompts: Vec<Vec<u32>> =
        (0..50).map(|i| (0..1 + i % 9).map(|j| (5 * i + 3 * j) % 23).collect()).collect();
    let sampling = Sampling { max_new_tokens: 12, stop: vec![1, 7], ..Sampling::default() };
    let seeds = Seeds::new(5);
    let all = generate(&model, &prompts, 3, &sampling, &seeds, 1).unwrap();
    assert_eq!(all.len(), 150);
    for shares in [2, 3, 64] {
        assert_same(&generate(&model, &prompts, 3, &sampling, &seeds, shares).unwrap(), &all);
    }
    assert_same(&generate(&model, &prompts[..2], 3, &sampling, &seeds, 1).unwrap(), &all[..6]);
    assert_same(&generate_padded(&model, &prompts, 3, &sampling), &all);
    // Samples of one prompt differ, and so do other seeds.
    assert_ne!(all[0].tokens, all[1].tokens);
    let others = generate(&model, &prompts, 3, &sampling, &Seeds::new(6), 1).unwrap();
    assert_ne!(tokens(&others), tokens(&all));
    let mut heard = vec![Vec::new(); 3];
    let streamed =
        stream(&model, &prompts[0], 3, &sampling, &seeds, &mut |n, token| heard[n].push(token)).unwrap();
    assert_same(&streamed, &all[..3]);
    assert_eq!(heard, tokens(&streamed));
}

#[test]
fn answers_end_at_stop_tokens_limits_and_the_context() {
    let model = random("llama");
    let draw = |prompt: &[u32], sampling: &Sampling| {
        generate(&model, &[prompt.to_vec()], 1, sampling, &Seeds::new(0), 1).unwrap().remove(0)
    };
    let free = draw(&[3, 1], &greedy(10));
    assert_eq!((free.tokens.len(), free.finished), (10, Finished::Length));
    let stop = free.tokens[4];
    let first = free.tokens.iter().position(|&token| token == stop).unwrap();
    let stopped = draw(&[3, 1], &Sampling { stop: vec![stop], ..greedy(10) });
    assert_eq!((stopped.tokens.as_slice(), stopped.finished), (&free.tokens[..=first], Finished::Stop));
    assert_eq!(draw(&[3, 1], &greedy(1)).tokens, free.tokens[..1]);
    for model in [random("llama"), random("gpt2")] {
        let long = generate(&model, &[vec![3; 35], vec![3; 39]], 1, &greedy(100), &Seeds::new(0), 1).unwrap();
        let lengths: Vec<usize> = long.iter().map(|answer| answer.tokens.len()).collect();
        assert_eq!((lengths, long[0].finished), (vec![5, 1], Finished::Length));
    }
}

#[test]
fn stop_texts_end_answers_and_are_cut_off() {
    let (_folder, tokenizer) = words();
    let texts = ["b c".to_owned(), "d".to_owned()];
    let sampling = Sampling {
        stop: vec![0],
        stop_texts: Some(StopTexts { tokenizer: &tokenizer, texts: &texts }),
        ..Sampling::default()
    };
    let id = |text: &str| tokenizer.encode(text, false).unwrap();
    let ends: Vec<bool> = (1..=5).map(|n| sampling.ends(&id("a b a b c")[..n])).collect();
    assert_eq!(ends, [false, false, false, false, true]);
    assert!(sampling.ends(&id("a d")) && sampling.ends(&[5, 0]) && !sampling.ends(&id("c b")));
    let check = |tokens: Vec<u32>, expected: &str| {
        let answer = Completion { logps: vec![0.0; tokens.len()], tokens, finished: Finished::Stop };
        assert_eq!(answer.text(&tokenizer, &sampling), expected);
    };
    check(id("a b a b c"), "a b a ");
    check([id("a c"), vec![0]].concat(), "a c");
    check(vec![0], "");
    check(Vec::new(), "");

    // The same through a model, whose vocabulary is that of the words.
    let model = random("llama");
    let all = Sampling { max_new_tokens: 30, ..sampling };
    for answer in generate(&model, &[vec![5, 6]], 20, &all, &Seeds::new(5), 1).unwrap() {
        let text = tokenizer.decode(&answer.tokens, false);
        let stopped = texts.iter().any(|stop| text.contains(stop.as_str())) || answer.tokens.contains(&0);
        assert_eq!(stopped, answer.finished == Finished::Stop, "{text}");
    }
}

/// Tokens that remain and their probabilities, most probable first.
#[track_caller]
fn check_candidates(sampling: &Sampling, probabilities: &[f64], expected: &[(u32, f64)]) {
    let logps: Vec<f32> = probabilities.iter().map(|p| p.ln() as f32).collect();
    let mut found = sampling.candidates(&logps);
    let total: f64 = found.iter().map(|(_, weight)| weight).sum();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((token, weight), (expected_token, p)) in found.iter().zip(expected) {
        assert_eq!(token, expected_token);
        assert!((weight / total - p).abs() < 1e-6, "{found:?}");
    }
}

#[test]
fn filters_keep_the_most_probable_tokens() {
    let p = [0.1, 0.4, 0.05, 0.25, 0.2];
    let with = |temperature: f64, top_k: usize, top_p: f64| Sampling {
        temperature,
        top_k,
        top_p,
        ..Sampling::default()
    };
    check_candidates(&with(1.0, 0, 1.0), &p, &[(1, 0.4), (3, 0.25), (4, 0.2), (0, 0.1), (2, 0.05)]);
    check_candidates(&with(1.0, 2, 1.0), &p, &[(1, 0.4 / 0.65), (3, 0.25 / 0.65)]);
    check_candidates(&with(1.0, 50, 0.6), &p, &[(1, 0.4 / 0.65), (3, 0.25 / 0.65)]);
    check_candidates(&with(1.0, 0, 0.66), &p, &[(1, 0.4 / 0.85), (3, 0.25 / 0.85), (4, 0.2 / 0.85)]);
    check_candidates(&with(1.0, 0, 0.01), &p, &[(1, 1.0)]);
    // Of the two that top_k leaves, the first has 0.62.
    check_candidates(&with(1.0, 2, 0.61), &p, &[(1, 1.0)]);
    check_candidates(&with(0.0, 0, 1.0), &p, &[(1, 1.0)]);
    check_candidates(&with(0.5, 2, 1.0), &p, &[(1, 0.16 / 0.2225), (3, 0.0625 / 0.2225)]);
    check_candidates(&with(1e-9, 0, 1.0), &[0.2, 0.5, 0.3], &[(1, 1.0), (0, 0.0), (2, 0.0)]);
    check_candidates(&with(1.0, 1, 1.0), &[0.5, 0.5], &[(0, 1.0)]);
}

/// Pearson's statistic of `counts` against `probabilities`, which must stay below mean + 5 deviations of its
/// distribution with `tokens − 1` degrees of freedom.
#[track_caller]
fn check_frequencies(counts: &[f64], probabilities: &[f64]) {
    let total: f64 = counts.iter().sum();
    let (mut statistic, mut freedom): (f64, f64) = (0.0, -1.0);
    for (count, p) in counts.iter().zip(probabilities) {
        if *p > 0.0 {
            statistic += (count - total * p).powi(2) / (total * p);
            freedom += 1.0;
        } else {
            assert_eq!(*count, 0.0);
        }
    }
    let bound = freedom + 5.0 * (2.0 * freedom).sqrt();
    assert!(
        statistic < bound,
        "{statistic} with {freedom} degrees of freedom: {counts:?}, {probabilities:?}"
    );
}

#[test]
fn tokens_are_drawn_with_their_probabilities() {
    let model = random("llama");
    let logits = model.logits(&[3, 1, 4]).pop().unwrap();
    for (temperature, top_k) in [(1.0, 0), (0.6, 0), (2.0, 5)] {
        let sampling = Sampling { temperature, top_k, max_new_tokens: 1, ..Sampling::default() };
        let answers = generate(&model, &[vec![3, 1, 4]], 20_000, &sampling, &Seeds::new(5), 1).unwrap();
        let mut counts = vec![0.0; 23];
        answers.iter().for_each(|answer| counts[answer.tokens[0] as usize] += 1.0);
        let mut weights: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / temperature).exp()).collect();
        if top_k > 0 {
            let mut sorted = weights.clone();
            sorted.sort_by(f64::total_cmp);
            let least = sorted[sorted.len() - top_k];
            weights.iter_mut().filter(|w| **w < least).for_each(|w| *w = 0.0);
        }
        let total: f64 = weights.iter().sum();
        check_frequencies(&counts, &weights.iter().map(|w| w / total).collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let model = random("llama");
    #[track_caller]
    fn check(model: &LanguageModel, prompt: &[u32], sampling: Sampling, expected: &str) {
        let problem =
            generate(model, &[vec![1], prompt.to_vec()], 1, &sampling, &Seeds::new(0), 1).unwrap_err();
        assert!(problem.message().contains(expected), "{problem}");
    }
    let sampling = Sampling::default;
    check(&model, &[], sampling(), "prompt 2 has no token");
    check(&model, &[1; 40], sampling(), "prompt 2 has 40 tokens");
    check(&model, &[1, 23], sampling(), "token 23");
    check(&model, &[1], Sampling { temperature: -1.0, ..sampling() }, "temperature is -1");
    check(&model, &[1], Sampling { temperature: f64::NAN, ..sampling() }, "temperature is NaN");
    check(&model, &[1], Sampling { top_p: 0.0, ..sampling() }, "top_p is 0");
    check(&model, &[1], Sampling { max_new_tokens: 0, ..sampling() }, "max_new_tokens is 0");
    let mut diverged = model.clone();
    for parameter in diverged.parameters.iter_mut() {
        parameter.value = parameter.value.clone() * f32::NAN;
    }
    check(&diverged, &[1], sampling(), "logits are not numbers");
    check(&diverged, &[1], greedy(3), "logits are not numbers");
    assert!(generate(&model, &[], 3, &sampling(), &Seeds::new(0), 2).unwrap().is_empty());
    assert!(generate(&model, &[vec![1]], 0, &sampling(), &Seeds::new(0), 2).unwrap().is_empty());
}

/// A mixture draws from p^(1 - b) q^b, and says how likely its answers are under p.
#[test]
fn two_models_have_a_say() {
    let (one, two) = (random("llama"), random("qwen3"));
    let plain = Sampling { max_new_tokens: 8, ..Sampling::default() };
    let with = |share| Sampling { mixture: Some(Mixture { model: &two, share }), ..plain.clone() };
    let draw = |model: &LanguageModel, sampling: &Sampling| {
        generate(model, &[vec![3, 1, 4], vec![1, 5]], 3, sampling, &Seeds::new(9), 2).unwrap()
    };
    assert_eq!(draw(&one, &with(0.0)), draw(&one, &plain));
    let tokens =
        |answers: Vec<Completion>| answers.into_iter().map(|answer| answer.tokens).collect::<Vec<_>>();
    assert_eq!(tokens(draw(&one, &with(1.0))), tokens(draw(&two, &plain)));
    // Greedily, token by token, by the logits of both.
    let greedy = Sampling { temperature: 0.0, max_new_tokens: 6, ..with(0.4) };
    let answer = &draw(&one, &greedy)[0];
    for end in 0..answer.tokens.len() {
        let before = [&[3, 1, 4], &answer.tokens[..end]].concat();
        let last = |model: &LanguageModel| model.logits(&before).pop().unwrap();
        let mixed: Vec<f32> = last(&one).iter().zip(last(&two)).map(|(p, q)| 0.6 * p + 0.4 * q).collect();
        assert_eq!(answer.tokens[end], best(&mixed), "token {end}");
    }
    let scored = draw(&one, &with(0.5));
    let mut batch = crate::model::Batch::default();
    batch.add(&[3, 1, 4], &[&scored[0].tokens]);
    for (found, expected) in scored[0].logps.iter().zip(one.score_only(&batch).logps) {
        assert!((found - expected).abs() < 1e-4, "{found}, {expected}");
    }
    let problem =
        |sampling: &Sampling| generate(&one, &[vec![3]], 1, sampling, &Seeds::new(9), 1).unwrap_err();
    assert!(problem(&with(1.5)).message().contains("mixture is 1.5"));
}
