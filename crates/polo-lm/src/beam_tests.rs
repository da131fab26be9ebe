//! Tests of [`super`]: transformers' beam search, exhaustive search, greedy decoding, independence of company.

use std::{fs, path::PathBuf};

use polo_nn::Device;
use polo_run::seed::Seeds;
use serde_json::{Value, json};

use super::*;
use crate::{
    generate::generate,
    model::Batch,
    weights::{init, load},
};

fn random(vocabulary: usize, seed: u64) -> LanguageModel {
    let config = json!({
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 20,
        "max_position_embeddings": 40, "initializer_range": 0.4,
    });
    init(&config, &Seeds::new(seed), &Device::flex()).unwrap()
}

fn limits(max_new_tokens: usize, stop: &[u32]) -> Sampling<'static> {
    Sampling { max_new_tokens, stop: stop.to_vec(), ..Sampling::default() }
}

fn beams(width: usize, length_penalty: f64, answers: usize) -> Beams {
    Beams { width, length_penalty, answers }
}

fn tokens(found: &[Hypothesis]) -> Vec<Vec<u32>> {
    found.iter().map(|one| one.completion.tokens.clone()).collect()
}

#[test]
fn beam_search_equals_that_of_transformers() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["llama-gqa", "gpt2", "qwen3"] {
        let model = load(&golden.join(name), &Device::flex()).unwrap().model;
        let text = fs::read_to_string(golden.join(name).join("beams.json")).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let ids = |value: &Value| -> Vec<u32> {
            value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() > 50, "{name}");
        for case in cases {
            let expected: Vec<Vec<u32>> = case["answers"].as_array().unwrap().iter().map(ids).collect();
            let width = case["beams"].as_u64().unwrap() as usize;
            let beams = beams(width, case["length_penalty"].as_f64().unwrap(), expected.len());
            let sampling = limits(file["new_tokens"].as_u64().unwrap() as usize, &ids(&case["stop"]));
            let found = search(&model, &[ids(&case["prompt"])], &beams, &sampling, 1).unwrap().remove(0);
            assert_eq!(tokens(&found), expected, "{name}: {case}");
            for (found, score) in found.iter().zip(case["scores"].as_array().into_iter().flatten()) {
                let score = score.as_f64().unwrap();
                assert!(
                    (found.score - score).abs() < 2e-5 * score.abs().max(1.0),
                    "{name}: {case}, {found:?}"
                );
            }
        }
    }
}

/// Every answer of at most `longest` tokens over the vocabulary, that ends at `stop` or is cut.
fn all_answers(vocabulary: u32, longest: usize, stop: u32) -> Vec<Vec<u32>> {
    let (mut all, mut open) = (Vec::new(), vec![Vec::new()]);
    for length in 1..=longest {
        let longer = open
            .iter()
            .flat_map(|start: &Vec<u32>| (0..vocabulary).map(|token| [start.as_slice(), &[token]].concat()));
        let (done, growing): (Vec<_>, Vec<_>) =
            longer.partition(|answer| answer.last() == Some(&stop) || length == longest);
        all.extend(done);
        open = growing;
    }
    all
}

#[test]
fn a_beam_that_holds_everything_finds_the_best_of_all_answers() {
    let (vocabulary, longest, stop) = (4, 4, 3);
    let all = all_answers(vocabulary, longest, stop);
    for seed in 0..5 {
        let model = random(vocabulary as usize, seed);
        let prompt = vec![1, 0, 2];
        let mut batch = Batch::default();
        batch.add(&prompt, &all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let logps = model.score_only(&batch).logps;
        let sum = |n: usize| logps[batch.answers()[n].clone()].iter().map(|&x| f64::from(x)).sum::<f64>();
        for penalty in [0.0, 1.0, 2.5, -1.0] {
            let score = |n: usize| sum(n) / (all[n].len() as f64).powf(penalty);
            let mut order: Vec<usize> = (0..all.len()).filter(|&n| all[n].last() == Some(&stop)).collect();
            order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
            let expected: Vec<Vec<u32>> = order[..6].iter().map(|&n| all[n].clone()).collect();
            let sampling = limits(longest, &[stop]);
            let prompts = [prompt.clone()];
            let wide = beams(all.len(), penalty, 6);
            let found = search(&model, &prompts, &wide, &sampling, 1).unwrap().remove(0);
            assert_eq!(tokens(&found), expected, "seed {seed}, penalty {penalty}");
            assert!(found.iter().zip(&order).all(|(one, &n)| (one.score - score(n)).abs() < 1e-4));
            // A narrow beam finds answers that are no better.
            for width in 1..8 {
                let narrow =
                    search(&model, &prompts, &beams(width, penalty, 1), &sampling, 1).unwrap().remove(0);
                let ended = narrow[0].completion.finished == Finished::Stop;
                assert!(!ended || narrow[0].score <= found[0].score + 1e-4);
            }
        }
    }
}

#[test]
fn one_beam_is_greedy_decoding() {
    for seed in 0..4 {
        let model = random(23, seed);
        let prompts: Vec<Vec<u32>> =
            (0..70).map(|i| (0..1 + i % 9).map(|j| (5 * i + 3 * j) % 23).collect()).collect();
        for stop in [&[][..], &[2, 7]] {
            let sampling = Sampling { temperature: 0.0, ..limits(12, stop) };
            let greedy = generate(&model, &prompts, 1, &sampling, &Seeds::new(0), 1).unwrap();
            let found = search(&model, &prompts, &beams(1, 0.0, 1), &sampling, 2).unwrap();
            for (found, greedy) in found.iter().zip(&greedy) {
                assert_eq!((found.len(), &found[0].completion.tokens), (1, &greedy.tokens));
                assert_eq!(found[0].completion.finished, greedy.finished);
            }
        }
    }
}

#[test]
fn a_search_does_not_depend_on_its_company_or_its_cache() {
    let model = random(23, 1);
    let prompts: Vec<Vec<u32>> =
        (0..30).map(|i| (0..1 + i % 7).map(|j| (5 * i + 3 * j) % 23).collect()).collect();
    let (beams, sampling) = (beams(4, 0.7, 3), limits(9, &[2, 7, 11]));
    let all = search(&model, &prompts, &beams, &sampling, 1).unwrap();
    let padded = Wave { model: &model, sampling: &sampling, samples: 1, padded: true };
    let numbered: Vec<Numbered> = prompts.iter().map(Vec::as_slice).enumerate().collect();
    for other in
        [search(&model, &prompts, &beams, &sampling, 3).unwrap(), run(&padded, &beams, &numbered).unwrap()]
    {
        assert_eq!(
            other.iter().map(|found| tokens(found)).collect::<Vec<_>>(),
            all.iter().map(|found| tokens(found)).collect::<Vec<_>>()
        );
    }
    for (prompt, found) in prompts.iter().zip(&all) {
        assert_eq!(found.len(), 3);
        let alone = search(&model, std::slice::from_ref(prompt), &beams, &sampling, 1).unwrap().remove(0);
        assert_eq!(tokens(&alone), tokens(found));
        // Log-probs are those of the tokens.
        let mut batch = Batch::default();
        batch.add(prompt, &found.iter().map(|one| one.completion.tokens.as_slice()).collect::<Vec<_>>());
        let logps = model.score_only(&batch).logps;
        let own = found.iter().flat_map(|one| &one.completion.logps);
        assert!(own.zip(&logps).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn searches_end_at_the_context_and_refuse_what_cannot_be_searched() {
    let model = random(23, 1);
    let long = search(&model, &[vec![3; 39], vec![3; 36]], &beams(3, 0.0, 2), &limits(100, &[]), 1).unwrap();
    let lengths: Vec<usize> = long.iter().map(|found| found[0].completion.tokens.len()).collect();
    assert_eq!((lengths, long[0].len(), long[0][0].completion.finished), (vec![1, 4], 2, Finished::Length));
    let check = |prompt: Vec<u32>, beams: Beams, expected: &str| {
        let problem = search(&model, &[prompt], &beams, &limits(5, &[]), 1).unwrap_err();
        assert!(problem.message().contains(expected), "{problem}");
    };
    check(vec![1], beams(0, 0.0, 1), "a beam of width 0");
    check(vec![1], beams(2, 0.0, 3), "3 answers are asked of a beam of width 2");
    check(vec![1], beams(2, f64::NAN, 1), "length_penalty is NaN");
    check(vec![], Beams::default(), "has no token");
    check(vec![40], Beams::default(), "token 40");
    let mut broken = model.clone();
    for parameter in broken.parameters.iter_mut() {
        parameter.value = parameter.value.clone() * f32::NAN;
    }
    let problem = search(&broken, &[vec![1]], &Beams::default(), &limits(5, &[]), 1).unwrap_err();
    assert!(problem.message().contains("not numbers"), "{problem}");
    assert!(search(&model, &[], &Beams::default(), &limits(5, &[]), 2).unwrap().is_empty());
}
