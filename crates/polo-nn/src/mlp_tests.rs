//! Networks against finite differences, members against networks of their own, and how weights begin.

use super::*;

fn shape(members: usize, activation: Activation, layer_norm: bool) -> Shape {
    Shape {
        inputs: 5,
        hidden: vec![7, 6],
        outputs: 3,
        members,
        activation,
        layer_norm,
        init: (Init::Torch, Init::Torch),
    }
}

fn network(shape: Shape) -> (Mlp, Parameters) {
    let mut parameters = Parameters::default();
    let network = Mlp::new(shape, "net", &mut parameters, &Seeds::new(1));
    (network, parameters)
}

fn noise(count: usize, stream: &str) -> Vec<f32> {
    Seeds::new(2).normal(count, stream, 0)
}

/// A random direction of length 1: short enough that a small step along it crosses few kinks.
fn direction(count: usize) -> Vec<f32> {
    let along = noise(count, "direction");
    let length = dot(&along, &along).sqrt() as f32;
    along.iter().map(|x| x / length).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn gradients_are_those_of_finite_differences() {
    // Much work is cut into halves, little is not.
    for (members, batch, wide) in [(1, 66, 300), (1, 9, 7), (3, 9, 7)] {
        for (activation, norm) in [
            (Activation::Tanh, false),
            (Activation::Relu, false),
            (Activation::Tanh, true),
            (Activation::Relu, true),
        ] {
            let hidden = vec![wide, 6];
            let shape = Shape { hidden, ..shape(members, activation, norm) };
            let (network, parameters) = network(shape);
            let (x, c) = (noise(batch * 5, "x"), noise(members * batch * 3, "c"));
            let tape = network.forward(&parameters, &x);
            let mut gradients = Gradients::new(&parameters);
            let dx = network.backward(&parameters, &tape, &c, Some(&mut gradients), true);
            let step = 1e-3;
            let loss = |parameters: &Parameters, x: &[f32]| dot(&network.evaluate(parameters, x), &c);
            let near = |found: f64, high: f64, low: f64, step: f64, what: &str| {
                let expected = (high - low) / (2.0 * step);
                assert!(
                    (found - expected).abs() < 2e-2 * (1.0 + expected.abs()),
                    "{what}: {found}, {expected}"
                );
            };
            for id in 0..parameters.len() {
                let gradient = host::numbers(gradients.get(id).unwrap());
                let along = direction(gradient.len());
                let shifted = |by: f32| {
                    let value = parameters.get(id).clone();
                    let mut moved = parameters.clone();
                    let numbers: Vec<f32> =
                        host::numbers(&value).iter().zip(&along).map(|(x, a)| x + by * a).collect();
                    moved.iter_mut().nth(id).unwrap().value =
                        host::tensor(numbers, value.dims(), &Device::flex());
                    loss(&moved, &x)
                };
                let (high, low) = (shifted(step), shifted(-step));
                near(dot(&gradient, &along), high, low, step.into(), &format!("{activation:?} {norm} {id}"));
            }
            let along = direction(x.len());
            let shifted = |by: f32| {
                loss(&parameters, &x.iter().zip(&along).map(|(x, a)| x + by * a).collect::<Vec<_>>())
            };
            let summed: f64 = dx.chunks_exact(x.len()).map(|own| dot(own, &along)).sum();
            near(summed, shifted(step), shifted(-step), step.into(), "input");
            // A pass that nobody learns from gives the same slopes of the input.
            assert_eq!(network.backward(&parameters, &tape, &c, None, true), dx);
        }
    }
}

#[test]
fn losses_of_slopes_are_pushed_back_to_weights() {
    for (members, batch, wide) in [(1, 66, 300), (3, 9, 7)] {
        let (network, parameters) =
            network(Shape { hidden: vec![wide, 6], ..shape(members, Activation::Relu, false) });
        let (x, c) = (noise(batch * 5, "x"), noise(members * batch * 3, "c"));
        let tape = network.forward(&parameters, &x);
        let slopes = network.slopes(&parameters, &tape, &c).unwrap();
        let found = slopes.of_inputs();
        let plain = network.backward(&parameters, &tape, &c, None, true);
        assert!(found.iter().zip(&plain).all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + b.abs())));
        let weights = noise(found.len(), "weights");
        let mut gradients = Gradients::new(&parameters);
        network.push_back_slopes(&parameters, &tape, &slopes, &weights, &mut gradients);
        let learnt: Vec<ParameterId> = network.weights().collect();
        for id in 0..parameters.len() {
            let Some(gradient) = gradients.get(id).map(host::numbers) else {
                assert!(!learnt.contains(&id), "weight {id} has no gradient");
                continue;
            };
            let along = direction(gradient.len());
            // Masks of the pass, weights of another: slopes are linear in each layer's weights.
            let loss = |by: f32| {
                let mut moved = parameters.clone();
                let value = &mut moved.iter_mut().nth(id).unwrap().value;
                let numbers: Vec<f32> =
                    host::numbers(value).iter().zip(&along).map(|(x, a)| x + by * a).collect();
                *value = host::tensor(numbers, value.dims(), &Device::flex());
                dot(&network.slopes(&moved, &tape, &c).unwrap().of_inputs(), &weights)
            };
            let expected = 0.5 * (loss(1.0) - loss(-1.0));
            let by_hand = dot(&gradient, &along);
            assert!((by_hand - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{id}: {by_hand} {expected}");
        }
    }
    for (activation, norm) in [(Activation::Tanh, false), (Activation::Relu, true)] {
        let (network, parameters) = network(shape(2, activation, norm));
        let tape = network.forward(&parameters, &[0.0; 5]);
        assert!(network.slopes(&parameters, &tape, &[1.0; 6]).is_none());
    }
}

#[test]
fn members_are_evaluated_alone() {
    let (network, parameters) = network(shape(4, Activation::Relu, true));
    let x = noise(10, "x");
    let all = network.evaluate(&parameters, &x);
    let some = network.evaluate_members(&parameters, &x, &[2, 0]);
    assert_eq!(some, [&all[12..18], &all[..6]].concat());
}

#[test]
fn one_member_alone_is_pushed_back_as_beside_the_others() {
    // Wide enough that a single member's batch is cut in two.
    let shape = Shape { hidden: vec![300, 6], ..shape(3, Activation::Relu, true) };
    let (network, parameters) = network(shape);
    let x = noise(66 * 5, "x");
    let (all, alone) = (network.forward(&parameters, &x), network.forward_members(&parameters, &x, &[1]));
    let outputs = 66 * 3;
    assert_eq!(alone.outputs(), all.outputs()[outputs..2 * outputs]);
    let mut slopes = vec![0.0; 3 * outputs];
    slopes[outputs..2 * outputs].copy_from_slice(&noise(outputs, "slopes"));
    let beside = network.backward(&parameters, &all, &slopes, None, true);
    let found = network.backward(&parameters, &alone, &slopes[outputs..2 * outputs], None, true);
    assert_eq!(found, beside[66 * 5..2 * 66 * 5]);
}

#[test]
fn directional_derivatives_are_those_of_finite_differences() {
    for (members, batch, wide) in [(1, 66, 300), (3, 9, 7)] {
        for (activation, norm) in
            [(Activation::Tanh, false), (Activation::Relu, false), (Activation::Tanh, true)]
        {
            let shape = Shape { hidden: vec![wide, 6], ..shape(members, activation, norm) };
            let (network, parameters) = network(shape);
            let x = noise(batch * 5, "x");
            let mut along = parameters.clone();
            for (id, parameter) in along.iter_mut().enumerate() {
                let [rows, columns] = parameter.value.dims();
                let length = (parameters.len() as f32).sqrt();
                let numbers = noise(rows * columns, &format!("direction {id}"));
                let whole = dot(&numbers, &numbers).sqrt() as f32 * length;
                let numbers = numbers.iter().map(|x| x / whole).collect();
                parameter.value = host::tensor(numbers, [rows, columns], &Device::flex());
            }
            let shifted = |by: f32| {
                let mut moved = parameters.clone();
                for (parameter, along) in moved.iter_mut().zip(along.iter()) {
                    parameter.value = parameter.value.clone() + along.value.clone() * by;
                }
                network.evaluate(&moved, &x)
            };
            let tape = network.forward(&parameters, &x);
            let found = network.jvp(&parameters, &tape, &along);
            let (high, low) = (shifted(2e-3), shifted(-2e-3));
            let mut largest = 0.0f32;
            for i in 0..found.len() {
                let expected = (high[i] - low[i]) / 4e-3;
                largest = largest.max(expected.abs());
                assert!((found[i] - expected).abs() < 3e-3, "{activation:?} {norm}: {} {expected}", found[i]);
            }
            assert!(largest > 0.05, "{largest}");
            // Jᵀ and J are transposes of each other.
            let c = noise(found.len(), "c");
            let mut gradients = Gradients::new(&parameters);
            network.backward(&parameters, &tape, &c, Some(&mut gradients), false);
            let back: f64 = (0..parameters.len())
                .map(|id| dot(&host::numbers(gradients.get(id).unwrap()), &host::numbers(along.get(id))))
                .sum();
            assert!((back - dot(&found, &c)).abs() < 1e-4 * (1.0 + back.abs()), "{back}");
        }
    }
}

#[test]
fn members_are_networks_of_their_own() {
    let (three, parameters) = network(shape(3, Activation::Relu, true));
    let x = noise(4 * 5, "x");
    let all = three.evaluate(&parameters, &x);
    for member in 0..3 {
        let (one, mut own) = network(shape(1, Activation::Relu, true));
        for (parameter, from) in own.iter_mut().zip(parameters.iter()) {
            let [rows, columns] = parameter.value.dims();
            let numbers = host::numbers(&from.value)[member * rows * columns..][..rows * columns].to_vec();
            parameter.value = host::tensor(numbers, [rows, columns], &Device::flex());
        }
        assert_eq!(one.evaluate(&own, &x), all[member * 12..][..12]);
    }
    assert_ne!(all[..12], all[12..24]);
}

#[test]
fn weights_begin_as_told() {
    let of = |init: Init, inputs: usize, outputs: usize| {
        let shape = Shape {
            inputs,
            hidden: Vec::new(),
            outputs,
            members: 1,
            activation: Activation::Tanh,
            layer_norm: false,
            init: (init, init),
        };
        let (_, parameters) = network(shape);
        [0, 1].map(|id| host::numbers(parameters.get(id)))
    };
    for (inputs, outputs) in [(8, 3), (3, 8), (5, 5)] {
        let [weight, bias] = of(Init::Orthogonal(2.0), inputs, outputs);
        assert!(bias.iter().all(|b| *b == 0.0));
        let count = inputs.min(outputs);
        let vector = |n: usize| -> Vec<f32> {
            match outputs <= inputs {
                true => weight[n * inputs..][..inputs].to_vec(),
                false => (0..outputs).map(|row| weight[row * inputs + n]).collect(),
            }
        };
        for a in 0..count {
            for b in 0..count {
                let expected = if a == b { 4.0 } else { 0.0 };
                assert!((dot(&vector(a), &vector(b)) - expected).abs() < 1e-5);
            }
        }
    }
    let largest = |numbers: &[f32]| numbers.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let [weight, bias] = of(Init::Torch, 100, 50);
    assert!((0.099..=0.1).contains(&largest(&weight)) && (0.08..=0.1).contains(&largest(&bias)));
    let [weight, bias] = of(Init::Uniform(3e-3), 100, 50);
    assert!((2.9e-3..=3e-3).contains(&largest(&weight)) && largest(&bias) <= 3e-3);
    let [weight, bias] = of(Init::Xavier(0.01), 100, 50);
    assert!((1.9e-3..=2e-3).contains(&largest(&weight)) && largest(&bias) == 0.0);
    let [_, bias] = of(Init::TorchWithBias(0.1), 100, 50);
    assert!(bias.iter().all(|b| *b == 0.1));
}

#[test]
fn tanh_is_exact_to_a_few_digits_of_the_last_place() {
    for step in -90_000i32..90_000 {
        let x = step as f32 * 1e-4;
        let expected = f64::from(x).tanh();
        let error = (f64::from(tanh(x)) - expected).abs();
        assert!(error <= 4e-7 * expected.abs().max(1e-3), "{x}: {} is not {expected}", tanh(x));
    }
    assert_eq!((tanh(0.0), tanh(100.0), tanh(-100.0)), (0.0, 1.0, -1.0));
    assert!(tanh(f32::NAN).is_nan());
}
