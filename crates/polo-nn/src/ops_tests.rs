//! Kernels against expressions: every operation gives on the CPU what the tensor expressions of all other devices
//! give, forward and backward.

use super::*;
use crate::{device::tests::as_on_other_devices, logprob, parameters::Parameter};

fn noise(rows: usize, columns: usize, seed: u64) -> Tensor<2> {
    let numbers = polo_run::seed::Seeds::new(seed).normal(rows * columns, "noise", 0);
    host::tensor(numbers, [rows, columns], &Device::flex())
}

/// Parameters with these shapes, all random and trainable.
fn parameters(shapes: &[[usize; 2]]) -> Parameters {
    let mut parameters = Parameters::default();
    for (seed, &[rows, columns]) in shapes.iter().enumerate() {
        let (name, value) = (seed.to_string(), noise(rows, columns, 100 + seed as u64));
        parameters.push(Parameter { name, value, trainable: true, decays: true });
    }
    parameters
}

/// Runs `work` both ways and compares the tensors it returns and the gradients that it adds.
#[track_caller]
fn check(parameters: &Parameters, work: impl Fn(&Parameters, &mut Gradients) -> Vec<Tensor<2>>) {
    let run = || {
        let mut gradients = Gradients::new(parameters);
        let mut tensors = work(parameters, &mut gradients);
        // A second time, so that gradients are also added to gradients.
        work(parameters, &mut gradients);
        let returned = tensors.len();
        tensors.extend((0..parameters.len()).filter_map(|id| gradients.take(id)));
        assert_eq!(tensors.len() - returned, parameters.len(), "every parameter gets a gradient");
        tensors
    };
    let (fused, composite) = (run(), as_on_other_devices(run));
    for (index, (fused, composite)) in fused.iter().zip(&composite).enumerate() {
        assert_eq!(fused.dims(), composite.dims(), "tensor {index}");
        for (a, b) in host::numbers(fused).into_iter().zip(host::numbers(composite)) {
            assert!((a - b).abs() < 2e-5 * (1.0 + b.abs()), "tensor {index}: {a} fused, {b} composite");
        }
    }
}

#[test]
fn norms_agree() {
    let (x, dy) = (noise(7, 19, 1), noise(7, 19, 2));
    check(&parameters(&[[1, 19]]), |parameters, gradients| {
        let (norm, weights) = (Norm::Rms { epsilon: 1e-3 }, NormWeights { scale: 0, shift: None });
        vec![norm.forward(parameters, weights, &x), norm.backward(parameters, weights, &x, &dy, gradients)]
    });
    check(&parameters(&[[1, 19], [1, 19]]), |parameters, gradients| {
        let (norm, weights) = (Norm::Layer { epsilon: 1e-3 }, NormWeights { scale: 0, shift: Some(1) });
        vec![norm.forward(parameters, weights, &x), norm.backward(parameters, weights, &x, &dy, gradients)]
    });
}

#[test]
fn linear_layers_agree() {
    let (x, dy, sum) = (noise(9, 12, 1), noise(9, 5, 2), noise(9, 12, 3));
    check(&parameters(&[[5, 12], [1, 5], [3, 12], [5, 3]]), |parameters, gradients| {
        let low_rank = Some(LowRank { down: 2, up: 3, scale: 0.7 });
        let linear = Linear { weight: 0, bias: Some(1), low_rank };
        let dx = linear.backward(parameters, &x, &dy, gradients, Some(sum.clone()));
        vec![linear.forward(parameters, &x), dx]
    });
}

#[test]
fn activations_agree() {
    let (gate, up, dy) = (noise(6, 21, 1) * 4.0, noise(6, 21, 2), noise(6, 21, 3));
    check(&parameters(&[]), |_, _| {
        let (dgate, dup) = swiglu_backward(&gate, &up, &dy);
        vec![swiglu(&gate, &up), dgate, dup, gelu(&gate), gelu_backward(&gate, &dy)]
    });
}

#[test]
fn rotations_agree_and_undo_each_other() {
    let x = noise(4, 18, 1);
    check(&parameters(&[]), |_, _| {
        let rotation = Rotation::new(&[0, 3, 1, 700], &[1.0, 0.1, 0.01], &Device::flex());
        let turned = rotation.forward(x.clone());
        vec![turned.clone(), rotation.backward(turned) - x.clone()]
    });
}

#[test]
fn lookups_agree() {
    let (rows, dy) = ([3, 0, 3, 5], noise(4, 6, 2));
    check(&parameters(&[[7, 6]]), |parameters, gradients| {
        embedding_backward(parameters, 0, &rows, &dy, gradients);
        vec![
            embedding(parameters.get(0), &rows),
            gather(parameters.get(0), &[6, 1, 6]),
            gather_backward(&[2, 8, 2, 0], &dy, 9),
        ]
    });
}

#[test]
fn log_probabilities_agree() {
    // More rows than are taken at a time.
    let (rows, vocabulary) = (300, 37);
    let hidden = noise(rows, 8, 1);
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 5 % vocabulary).collect();
    let (c, d) = (host::numbers(&noise(1, rows, 2)), host::numbers(&noise(1, rows, 3)));
    for dentropies in [None, Some(&d[..])] {
        check(&parameters(&[[vocabulary as usize, 8]]), |parameters, gradients| {
            let head = parameters.get(0);
            let scores = logprob::forward(&hidden, head, &targets);
            let all = logprob::distributions(&hidden, head);
            for (row, &target) in targets.iter().enumerate() {
                let logp = all[row * vocabulary as usize + target as usize];
                assert!((logp - scores.logps[row]).abs() < 1e-5);
            }
            let column = |numbers: Vec<f32>| host::tensor(numbers, [rows, 1], &Device::flex());
            let hits = scores.hits.iter().map(|&hit| f32::from(u8::from(hit))).collect();
            vec![
                logprob::backward(parameters, 0, &hidden, &targets, &scores, &c, dentropies, gradients),
                column(scores.logps),
                column(scores.entropies),
                column(scores.mean_logits),
                column(hits),
            ]
        });
    }
}
