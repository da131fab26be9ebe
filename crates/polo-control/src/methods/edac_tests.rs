//! The diversity term against its definition in f64, and what SAC-N and EDAC learn.

use polo_nn::{
    host,
    mlp::{Activation, Init, Shape},
};
use polo_sim::classic::pendulum_offline::Behaviour;

use super::*;
use crate::{
    claims::pendulum::{self, GAMMA, RATE},
    free_gaussian::check_bandit,
    methods::trajectory_weighting::Sampling,
    off_policy::Learner as _,
};

#[test]
fn slopes_that_agree_are_n_and_those_that_differ_less() {
    let es = |g: &[f32], members, d| similarity(g, members, d).0;
    let near = |found: f32, expected: f32| assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
    // Two rows of five critics that are one.
    near(es(&[0.3, -0.4, 2.0, 5.0].repeat(5), 5, 2), 5.0);
    near(es(&[1.0, 2.0, -2.0, -4.0], 2, 2), -2.0);
    near(es(&[1.0, 2.0, -2.0, 1.0], 2, 2), 0.0);
    // Of actions of one number: signs, with no slope.
    let (found, pulls) = similarity(&[0.5, 3.0, -2.0, 1.0, 7.0, -1.0], 3, 2);
    assert!(found.is_finite() && pulls.iter().any(|pull| pull.abs() > 1e-2));
    let (found, pulls) = similarity(&[0.5, 3.0, -2.0], 3, 1);
    near(found, -1.0);
    assert!(pulls.iter().all(|pull| pull.abs() < 1e-6), "{pulls:?}");
}

#[test]
fn a_critic_without_slope_pulls_nowhere() {
    let (found, pulls) = similarity(&[0.0, 0.0, 3.0, 4.0, 4.0, -3.0], 3, 2);
    assert_eq!(pulls[..2], [0.0, 0.0]);
    assert!(found.abs() < 1e-6 && pulls.iter().all(|pull| pull.is_finite()), "{found} {pulls:?}");
    for tiny in [1e-8, 1e-15, 1e-22, 1e-38] {
        let (found, pulls) = similarity(&[tiny, 0.0, 0.0, 1.0], 2, 2);
        assert!(found.is_finite() && pulls.iter().all(|pull| pull.is_finite()), "{tiny}: {pulls:?}");
    }
}

const STATE: usize = 2;
const ACTION: usize = 3;
const MEMBERS: usize = 5;
const WIDTHS: [usize; 5] = [STATE + ACTION, 8, 6, 5, 1];

fn critic() -> Network {
    let shape = Shape {
        inputs: WIDTHS[0],
        hidden: WIDTHS[1..4].to_vec(),
        outputs: 1,
        members: MEMBERS,
        activation: Activation::Relu,
        layer_norm: false,
        init: (Init::TorchWithBias(0.1), Init::Torch),
    };
    Network::new(shape, "critic", &Seeds::new(3))
}

/// Weights and biases in f64, layer by layer.
fn exact(critic: &Network) -> Vec<Vec<f64>> {
    let numbers = |id| host::numbers(critic.parameters.get(id)).into_iter().map(f64::from).collect();
    (0..critic.parameters.len()).map(numbers).collect()
}

/// Q of one critic, and its slope in the action.
fn judged(parameters: &[Vec<f64>], member: usize, x: &[f64]) -> (f64, Vec<f64>) {
    let (mut value, mut through) = (x.to_vec(), Vec::new());
    let weight = |layer: usize, row: usize, column: usize| {
        parameters[2 * layer][(member * WIDTHS[layer + 1] + row) * WIDTHS[layer] + column]
    };
    for layer in 0..4 {
        let sum = |row: usize| {
            let bias = parameters[2 * layer + 1][member * WIDTHS[layer + 1] + row];
            bias + value.iter().enumerate().map(|(column, x)| weight(layer, row, column) * x).sum::<f64>()
        };
        value = (0..WIDTHS[layer + 1]).map(sum).collect();
        if layer < 3 {
            through.push(value.iter().map(|&x| f64::from(u8::from(x > 0.0))).collect::<Vec<_>>());
            value.iter_mut().for_each(|x| *x = x.max(0.0));
        }
    }
    let mut slope = vec![1.0];
    for layer in (0..4).rev() {
        let back = |column: usize| {
            let sum: f64 =
                slope.iter().enumerate().map(|(row, slope)| slope * weight(layer, row, column)).sum();
            sum * if layer > 0 { through[layer - 1][column] } else { 1.0 }
        };
        slope = (0..WIDTHS[layer]).map(back).collect();
    }
    (value[0], slope.split_off(STATE))
}

fn es(parameters: &[Vec<f64>], rows: &[Vec<f64>], scale: &[f32]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let of = |x: &Vec<f64>| {
        let unit = |member| {
            let (_, mut g) = judged(parameters, member, x);
            g.iter_mut().zip(scale).for_each(|(g, scale)| *g *= f64::from(*scale));
            let n = dot(&g, &g).sqrt() + 1e-10;
            g.into_iter().map(|g| g / n).collect::<Vec<f64>>()
        };
        let units: Vec<_> = (0..MEMBERS).map(unit).collect();
        let pairs = (0..MEMBERS).flat_map(|i| (0..MEMBERS).map(move |j| (i, j))).filter(|(i, j)| i != j);
        pairs.map(|(i, j)| dot(&units[i], &units[j])).sum::<f64>()
    };
    rows.iter().map(of).sum::<f64>() / (rows.len() * (MEMBERS - 1)) as f64
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let critic = critic();
    let rows = 4;
    let x = Seeds::new(7).normal(rows * WIDTHS[0], "x", 0);
    let inputs: Vec<Vec<f64>> =
        x.chunks(WIDTHS[0]).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    let parameters = exact(&critic);
    let tape = critic.forward(&x);

    let slopes = critic.mlp.slopes(&critic.parameters, &tape, &vec![1.0; MEMBERS * rows]).unwrap();
    let found = last_columns(&slopes.of_inputs(), WIDTHS[0], ACTION);
    let most = found.iter().fold(0f32, |most, g| most.max(g.abs()));
    for (place, found) in found.iter().enumerate() {
        let (member, row, column) = (place / ACTION / rows, place / ACTION % rows, STATE + place % ACTION);
        let q = |by: f64| {
            let mut x = inputs[row].clone();
            x[column] += by;
            judged(&parameters, member, &x).0
        };
        let expected = (q(1e-6) - q(-1e-6)) / 2e-6;
        assert!((f64::from(*found) - expected).abs() < 1e-6 * f64::from(most), "{place}: {found} {expected}");
    }

    let (scale, eta) = ([1.0, 0.5, 2.0], 0.7);
    let mut gradients = critic.gradients();
    let whole = diversity(&critic, &tape, &scale, eta, &mut gradients);
    assert!((f64::from(whole) - es(&parameters, &inputs, &scale)).abs() < 1e-6);
    let mut largest = 0f64;
    for id in 0..parameters.len() {
        let found = gradients.get(id).map_or(vec![0.0; parameters[id].len()], host::numbers);
        for (place, found) in found.into_iter().enumerate() {
            let at = |by: f64| {
                let mut moved = parameters.clone();
                moved[id][place] += by;
                eta * es(&moved, &inputs, &scale)
            };
            let expected = (at(1e-6) - at(-1e-6)) / 2e-6;
            largest = largest.max(expected.abs());
            let off = (f64::from(found) - expected).abs();
            assert!(off < 1e-5 * (1.0 + expected.abs()), "{id} {place}: {found} {expected}");
            let state = id == 0 && place % WIDTHS[0] < STATE;
            assert!(found == 0.0 || !(state || id % 2 == 1), "{id} {place}: {found}");
        }
    }
    assert!(largest > 0.1, "{largest}");
}

fn small() -> SacN {
    SacN { critics: 4, hidden: vec![16, 16], learning_rate: 3e-3, ..SacN::default() }
}

#[test]
fn weights_begin_as_in_the_paper() {
    let (observations, actions) = (Space::symmetric(&[1.0; 3]), Space::symmetric(&[1.0; 2]));
    let ensemble = small().ensemble(&observations, &actions, &Seeds::new(0)).unwrap();
    let networks = [(&ensemble.soft.actor, 1e-3), (&ensemble.soft.critic, 3e-3)];
    for (network, last) in networks {
        for parameter in network.parameters.iter() {
            let numbers = host::numbers(&parameter.value);
            let most = numbers.iter().fold(0f32, |most, x| most.max(x.abs()));
            if parameter.name.contains(".2.") {
                assert!(most <= last && most > 0.3 * last, "{}: {most}", parameter.name);
            } else if parameter.name.ends_with("bias") {
                assert!(numbers.iter().all(|&x| x == 0.1), "{}", parameter.name);
            }
        }
    }
}

/// Weights of the critics after some updates, and the diversity of their slopes then.
fn learnt(settings: &SacN, updates: u64) -> (Vec<f32>, f32) {
    let (observations, actions) = (Space::symmetric(&[1.0]), Space::symmetric(&[1.0; 2]));
    let rows = 64;
    let numbers = |count: usize, name: &str| Seeds::new(5).normal(count, name, 0);
    let batch = polo_sim::replay::Batch {
        observations: numbers(rows, "o"),
        actions: numbers(2 * rows, "a").iter().map(|a| 0.3 * a.tanh()).collect(),
        rewards: numbers(rows, "r"),
        next_observations: numbers(rows, "n"),
        terminated: vec![1.0; rows],
        ..polo_sim::replay::Batch::default()
    };
    let mut learner = settings.ensemble(&observations, &actions, &Seeds::new(1)).unwrap();
    for update in 0..updates {
        let told = learner.update(&batch, update, &Seeds::new(2));
        assert_eq!(told.get("losses/diversity").is_some(), settings.eta > 0.0);
    }
    let critic = &learner.soft.critic;
    let tape = critic.forward(&learner.soft.pairs(&batch.observations, &batch.actions));
    let es = diversity(critic, &tape, &[1.0; 2], 0.0, &mut critic.gradients());
    (critic.parameters.iter().flat_map(|parameter| host::numbers(&parameter.value)).collect(), es)
}

#[test]
fn without_its_weight_it_is_sac_n_and_with_it_slopes_differ() {
    let Edac(edac) = Edac(SacN { eta: 0.0, ..small() });
    let (weights, plain) = learnt(&small(), 60);
    assert_eq!(learnt(&edac, 60).0, weights);
    let (others, diverse) = learnt(&SacN { eta: 1.0, ..small() }, 60);
    assert_ne!(others, weights);
    // At best -N / (N - 1).
    assert!(diverse < plain - 0.5 && diverse >= -4.0 / 3.0 - 1e-4, "{plain} {diverse}");
    assert_eq!((Edac::default().0.eta, SacN::default().eta), (1.0, 0.0));
}

#[test]
fn a_single_critic_has_nothing_to_differ_from() {
    let problem = Edac(SacN { critics: 1, ..Edac::default().0 }).check().unwrap_err();
    assert!(problem.message().contains("two critics"));
    assert!(SacN { critics: 1, ..SacN::default() }.check().is_ok());
}

#[test]
fn they_find_what_was_best_in_the_log() {
    let fast = SacN { hidden: vec![32, 32], alpha: Some(0.02), tau: 0.05, ..small() };
    check_bandit(&fast, 400);
    check_bandit(&Edac(SacN { eta: 1.0, ..fast }), 400);
}

#[test]
fn sac_n_beats_the_behaviour_that_made_its_data() {
    let data = pendulum::mixture(&[(Behaviour::Medium, 40)], 1).unwrap();
    let method = SacN {
        critics: 4,
        alpha: Some(0.01),
        learning_rate: 2.0 * RATE,
        gamma: GAMMA,
        batch: 64,
        hidden: pendulum::HIDDEN.to_vec(),
        ..SacN::default()
    };
    let policy = pendulum::learn(&method, data, &pendulum::settings(Sampling::Uniform), 3000, 0).unwrap();
    // The behaviour itself scores 62.
    let score = pendulum::score(&policy, 20).unwrap();
    assert!(score > 75.0, "{score}");
}
