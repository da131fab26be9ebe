//! Kernels against expressions: every operation gives on the CPU what the tensor expressions of all other devices
//! give, forward and backward. With `POLO_TEST_DEVICE=vulkan` (or `cuda`) the expressions are evaluated there.

use super::*;
use crate::{
    device::tests::{as_on_other_devices, on_other_device, rounding},
    logprob::{self, Slopes, View},
    parameters::Parameter,
};

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
fn check<const N: usize>(
    parameters: &Parameters,
    inputs: [Tensor<2>; N],
    work: impl Fn(&Parameters, &[Tensor<2>; N], &mut Gradients) -> Vec<Tensor<2>>,
) {
    let run = |parameters: &Parameters, inputs: &[Tensor<2>; N]| {
        let mut gradients = Gradients::new(parameters);
        let mut tensors = work(parameters, inputs, &mut gradients);
        // A second time, so that gradients are also added to gradients.
        work(parameters, inputs, &mut gradients);
        let returned = tensors.len();
        tensors.extend((0..parameters.len()).filter_map(|id| gradients.take(id)));
        assert_eq!(tensors.len() - returned, parameters.len(), "every parameter gets a gradient");
        tensors
    };
    let fused = run(parameters, &inputs);
    let mut moved = parameters.clone();
    moved.iter_mut().for_each(|parameter| parameter.value = on_other_device(&parameter.value));
    let inputs = inputs.each_ref().map(on_other_device);
    let composite = as_on_other_devices(|| run(&moved, &inputs));
    for (index, (fused, composite)) in fused.iter().zip(&composite).enumerate() {
        assert_eq!(fused.dims(), composite.dims(), "tensor {index}");
        for (a, b) in host::numbers(fused).into_iter().zip(host::numbers(composite)) {
            assert!(
                (a - b).abs() < 2e-5 * rounding() * (1.0 + b.abs()),
                "tensor {index}: {a} fused, {b} composite"
            );
        }
    }
}

#[test]
fn norms_agree() {
    let inputs = [noise(7, 19, 1), noise(7, 19, 2)];
    check(&parameters(&[[1, 19]]), inputs.clone(), |parameters, [x, dy], gradients| {
        let (norm, weights) = (Norm::Rms { epsilon: 1e-3 }, NormWeights { scale: 0, shift: None });
        vec![norm.forward(parameters, weights, x), norm.backward(parameters, weights, x, dy, gradients)]
    });
    check(&parameters(&[[1, 19], [1, 19]]), inputs, |parameters, [x, dy], gradients| {
        let (norm, weights) = (Norm::Layer { epsilon: 1e-3 }, NormWeights { scale: 0, shift: Some(1) });
        vec![norm.forward(parameters, weights, x), norm.backward(parameters, weights, x, dy, gradients)]
    });
}

#[test]
fn linear_layers_agree() {
    let inputs = [noise(9, 12, 1), noise(9, 5, 2), noise(9, 12, 3)];
    let parameters = parameters(&[[5, 12], [1, 5], [3, 12], [5, 3]]);
    check(&parameters, inputs, |parameters, [x, dy, sum], gradients| {
        let low_rank = Some(LowRank { down: 2, up: 3, scale: 0.7 });
        let linear = Linear { weight: 0, bias: Some(1), low_rank };
        let dx = linear.backward(parameters, x, dy, gradients, Some(sum.clone()));
        vec![linear.forward(parameters, x), dx]
    });
}

#[test]
fn activations_agree() {
    let inputs = [noise(6, 21, 1) * 4.0, noise(6, 21, 2), noise(6, 21, 3)];
    check(&parameters(&[]), inputs, |_, [gate, up, dy], _| {
        let (dgate, dup) = swiglu_backward(gate, up, dy);
        vec![swiglu(gate, up), dgate, dup, gelu(gate), gelu_backward(gate, dy)]
    });
}

#[test]
fn rotations_agree_and_undo_each_other() {
    check(&parameters(&[]), [noise(4, 18, 1)], |_, [x], _| {
        let rotation = Rotation::new(&[0, 3, 1, 700], &[1.0, 0.1, 0.01], &x.device());
        let turned = rotation.forward(x.clone());
        vec![turned.clone(), rotation.backward(turned) - x.clone()]
    });
}

#[test]
fn lookups_agree() {
    let rows = [3, 0, 3, 5];
    check(&parameters(&[[7, 6]]), [noise(4, 6, 2)], |parameters, [dy], gradients| {
        embedding_backward(parameters, 0, &rows, dy, gradients);
        vec![
            embedding(parameters.get(0), &rows),
            gather(parameters.get(0), &[6, 1, 6]),
            gather_backward(&[2, 8, 2, 0], dy, 9),
        ]
    });
}

#[test]
fn log_probabilities_agree() {
    // More rows than are taken at a time, on any device.
    let (rows, vocabulary) = (4100, 37);
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 5 % vocabulary).collect();
    // Small, as sums over many rows round the more the larger they are.
    let slopes = |seed| host::numbers(&(noise(1, rows, seed) * 0.1));
    let (c, d) = (slopes(2), slopes(3));
    for (dentropies, against) in [(None, false), (Some(&d[..]), false), (Some(&d[..]), true)] {
        let parameters = parameters(&[[vocabulary as usize, 8]]);
        let inputs = [noise(rows, 8, 1), noise(rows, 5, 4), noise(vocabulary as usize, 5, 5)];
        check(&parameters, inputs, |parameters, [hidden, other, other_head], gradients| {
            let head = parameters.get(0);
            let scores = logprob::forward(hidden, head, &targets);
            let all = logprob::distributions(hidden, head);
            for (row, &target) in targets.iter().enumerate() {
                let logp = all[row * vocabulary as usize + target as usize];
                assert!((logp - scores.logps[row]).abs() < 1e-5 * rounding());
            }
            let column = |numbers: Vec<f32>| host::tensor(numbers, [rows, 1], &hidden.device());
            let view = |hidden: &Tensor<2>, head: &Tensor<2>| View {
                scores: logprob::forward(hidden, head, &targets),
                hidden: hidden.clone(),
                head: head.clone(),
            };
            let reference = view(other, other_head);
            let divergences = logprob::divergences(&view(hidden, head), &reference);
            let of_reference = logprob::distributions(other, other_head);
            for (row, divergence) in divergences.iter().enumerate() {
                let stretch = row * vocabulary as usize..(row + 1) * vocabulary as usize;
                let pairs = of_reference[stretch.clone()].iter().zip(&all[stretch]);
                let expected: f32 = pairs.map(|(theirs, ours)| theirs.exp() * (theirs - ours)).sum();
                assert!((divergence - expected).abs() < 1e-5 * rounding());
            }
            let slopes = Slopes {
                logps: &c,
                entropies: dentropies,
                divergences: against.then_some((&reference, &d[..])),
            };
            let hits = scores.hits.iter().map(|&hit| f32::from(u8::from(hit))).collect();
            vec![
                logprob::backward(parameters, 0, hidden, &targets, &scores, slopes, gradients),
                column(divergences),
                column(scores.logps),
                column(scores.entropies),
                column(scores.mean_logits),
                column(hits),
            ]
        });
    }
}
