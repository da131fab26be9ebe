//! MDPO's objective against what can be worked out by hand.

use polo_nn::distributions::{Categorical, Gaussian};

use super::*;

/// Ten actions of three arms that the policy (0.2, 0.3, 0.5) takes as often as it should, and their advantages, of
/// values 1, 0.5 and 0.
const ARMS: [f32; 10] = [0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0];
const ADVANTAGES: [f32; 3] = [0.65, 0.15, -0.35];
/// The exact step of size 1.
const SOLUTION: [f32; 3] = [0.353_420_01, 0.321_540_1, 0.325_039_9];

/// The same logits in all ten rows.
fn arms(logits: [f32; 3]) -> Said {
    Said::Choices(Categorical::new(logits.repeat(10), 3))
}

fn previous() -> Said {
    arms([0.2f32.ln(), 0.3f32.ln(), 0.5f32.ln()])
}

/// The loss of a policy of arms, and its slopes in the logits.
fn of_arms(settings: &Mdpo, logits: [f32; 3], t: f32) -> (f32, [f32; 3]) {
    let advantages = ARMS.map(|arm| ADVANTAGES[arm as usize]);
    let taken = Taken { actions: &ARMS, width: 1, advantages: &advantages };
    let (loss, slopes) = settings.loss(&arms(logits), &previous(), &taken, t);
    let mut sums = [0.0; 3];
    slopes.outputs.chunks_exact(3).for_each(|row| (0..3).for_each(|i| sums[i] += row[i]));
    (loss, sums)
}

/// Minimises the loss over the logits; the policy and minus the loss.
fn solved(settings: &Mdpo, t: f32) -> ([f32; 3], f32) {
    let mut logits = [0.2f32.ln(), 0.3f32.ln(), 0.5f32.ln()];
    for _ in 0..4000 {
        let (_, slopes) = of_arms(settings, logits, t);
        (0..3).for_each(|i| logits[i] -= 0.5 * slopes[i]);
    }
    let Said::Choices(said) = arms(logits) else { unreachable!("choices") };
    ([0, 1, 2].map(|arm| said.row(0)[arm].exp()), -of_arms(settings, logits, t).0)
}

#[test]
fn the_objective_has_the_closed_form_as_its_maximum() {
    let (policy, value) = solved(&Mdpo::default(), 1.0);
    for (found, expected) in policy.iter().zip(SOLUTION) {
        assert!((found - expected).abs() < 1e-5, "{policy:?}");
    }
    assert!((value - 0.080_660_194).abs() < 1e-6, "{value}");
    // A projection of that solution is that solution.
    let (policy, _) = solved(&Mdpo { update: Update::ClosedForm, ..Mdpo::default() }, 1.0);
    for (found, expected) in policy.iter().zip(SOLUTION) {
        assert!((found - expected).abs() < 1e-5, "{policy:?}");
    }
}

#[test]
fn the_first_step_is_the_policy_gradient_whatever_the_step_size() {
    let start = [0.2f32.ln(), 0.3f32.ln(), 0.5f32.ln()];
    let variants = [
        Mdpo::default(),
        Mdpo { direction: Direction::Forward, ..Mdpo::default() },
        Mdpo { tsallis: 1.5, ..Mdpo::default() },
    ];
    for settings in &variants {
        for t in [1e-2, 1.0, 100.0] {
            let (_, slopes) = of_arms(settings, start, t);
            for (found, expected) in slopes.iter().zip([0.13, 0.045, -0.175]) {
                assert!((found + expected).abs() < 2e-5, "{t}: {slopes:?}");
            }
        }
    }
}

/// Slopes are those of finite differences, in every variant, for choices and numbers.
#[test]
fn slopes_are_those_of_finite_differences() {
    let variants = [
        Mdpo::default(),
        Mdpo { direction: Direction::Forward, ..Mdpo::default() },
        Mdpo { update: Update::ClosedForm, ..Mdpo::default() },
        Mdpo { tsallis: 1.5, ..Mdpo::default() },
    ];
    let (logits, step) = ([0.3f32, -0.4, 0.2], 1e-2);
    for settings in &variants {
        let (_, slopes) = of_arms(settings, logits, 0.7);
        for i in 0..3 {
            let at = |by: f32| {
                let mut moved = logits;
                moved[i] += by;
                of_arms(settings, moved, 0.7).0
            };
            let expected = (at(step) - at(-step)) / (2.0 * step);
            assert!((slopes[i] - expected).abs() < 2e-3, "{settings:?}: {} {expected}", slopes[i]);
        }
        let seeds = Seeds::new(5);
        let (rows, d) = (6, 2);
        let noise = |stream: &str, count| seeds.normal(count, stream, 0);
        let old = Said::Numbers(Gaussian::new(noise("old", rows * d), vec![0.1, -0.2], d));
        let (means, stds) = (noise("means", rows * d), vec![-0.3, 0.2]);
        let (actions, advantages) = (noise("actions", rows * d), noise("advantages", rows));
        let taken = Taken { actions: &actions, width: d, advantages: &advantages };
        let loss = |means: &[f32], stds: &[f32]| {
            settings.loss(&Said::Numbers(Gaussian::new(means.to_vec(), stds.to_vec(), d)), &old, &taken, 0.7)
        };
        let (_, slopes) = loss(&means, &stds);
        let near = |found: f32, at: &dyn Fn(f32) -> f32| {
            let expected = (at(step) - at(-step)) / (2.0 * step);
            assert!(
                (found - expected).abs() < 1e-2 * (1.0 + expected.abs()),
                "{settings:?}: {found} {expected}"
            );
        };
        let shifted = |x: &[f32], i: usize, by: f32| {
            let mut moved = x.to_vec();
            moved[i] += by;
            moved
        };
        for i in 0..rows * d {
            near(slopes.outputs[i], &|by| loss(&shifted(&means, i, by), &stds).0);
        }
        for i in 0..d {
            near(slopes.log_stds[i], &|by| loss(&means, &shifted(&stds, i, by)).0);
        }
    }
}

/// With q' = 2 the divergence is the squared distance of the probabilities, and the maximum a projection of pi_k + t A / 2.
#[test]
fn tsallis_with_two_is_euclidean() {
    let (policy, value) = solved(&Mdpo { tsallis: 2.0, ..Mdpo::default() }, 0.3);
    // pi_k + t A / 2, brought to the sum of 1 by taking off the mean of A.
    let expected = [0.2 + 0.15 * 0.5, 0.3, 0.5 - 0.15 * 0.5];
    for (found, expected) in policy.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{policy:?}");
    }
    let gain: f32 = expected.iter().zip(ADVANTAGES).map(|(p, a)| p * a).sum();
    assert!((value - (gain - 2.0 * 0.075f32.powi(2) / 0.3)).abs() < 1e-4, "{value}");
}

#[test]
fn logarithms_of_tsallis() {
    assert!((log_q(2f32.ln(), 1.5) - 0.828_427_12).abs() < 1e-6);
    assert!((log_q(2f32.ln(), 1.0) - 2f32.ln()).abs() < 1e-7);
    assert!((log_q(2f32.ln(), 1.0 + 1e-4) - 2f32.ln()).abs() < 1e-4);
}

#[test]
fn step_sizes_fall_in_a_line_and_never_to_nothing() {
    let annealed = Mdpo::default();
    for (k, expected) in [(0, 1.1), (1, 1.0), (9, 0.2), (10, 0.1), (11, 1e-3), (12, 1e-3)] {
        assert!((annealed.step_size(k, 10) - expected).abs() < 1e-12, "{k}");
    }
    assert_eq!(Mdpo { step_size: Some(0.5), ..Mdpo::default() }.step_size(7, 10), 0.5);
}

/// pi_k stands still through all m steps: with steps enough, and one state, the policy is the closed form.
#[test]
fn m_steps_of_the_learner_end_at_the_closed_form() {
    let actions = Space::Discrete(3);
    let mut actor = Actor::new(1, &actions, &[], &Seeds::new(2));
    // A policy without hidden layers whose observation is 0 is a row of biases.
    let bias = actor.network.parameters.iter_mut().nth(1).unwrap();
    let logits = [0.2f32.ln(), 0.3f32.ln(), 0.5f32.ln()];
    bias.value = polo_nn::host::tensor(logits.to_vec(), [1, 3], &polo_nn::Device::flex());
    let rollout = Rollout {
        observations: vec![0.0; 10],
        actions: ARMS.to_vec(),
        advantages: ARMS.map(|arm| ADVANTAGES[arm as usize]).to_vec(),
        ..Rollout::default()
    };
    let settings = Mdpo { m: 3000, normalise_advantages: false, max_grad_norm: 0.0, ..Mdpo::default() };
    let adam = Adam { learning_rate: 1e-3, epsilon: 1e-5 };
    let [_, _, _, kl] = MdpoLearner::learn_policy(&mut actor, &settings, &rollout, 1.0, adam);
    let Said::Choices(said) = actor.say(actor.network.evaluate(&[0.0])) else { unreachable!("choices") };
    for (found, expected) in said.row(0).iter().zip(SOLUTION) {
        assert!((found.exp() - expected).abs() < 1e-3, "{said:?}");
    }
    let divergence: f32 =
        SOLUTION.iter().zip([0.2, 0.3, 0.5]).map(|(p, q): (&f32, f32)| p * (p / q).ln()).sum();
    assert!((kl - divergence).abs() < 1e-3, "{kl} {divergence}");
}
