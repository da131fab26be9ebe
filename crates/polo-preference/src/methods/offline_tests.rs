//! The cards' unit checks of the reference-based and reference-free pair losses, and the identities between methods.

use std::f64::consts::LN_2;

use super::{
    dpo::Dpo,
    ipo::Ipo,
    rdpo::{Base, Rdpo},
    rpo::Rpo,
    simpo::Simpo,
    tests::{close, losses, of_ratios, random_ratios, scaled, sum},
    tpo::{Answers, Form, Tpo},
    vpo::{Attitude, Calibration, Vpo},
};
use crate::{
    objective::{Batch, PairObjective, Reduction, differentiate},
    pairwise::NllReduction,
};

const HARD: [f64; 5] = [1.0; 5];

fn rdpo(beta: f64, flip_rate: f64) -> Rdpo {
    Rdpo { beta, flip_rate, ..Rdpo::default() }
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Log-probs without a reference: `[slot][example]` sums, and lengths.
fn of_logps(logps: &[Vec<f64>], tokens: &[Vec<usize>]) -> Batch {
    Batch {
        policy: logps.to_vec(),
        tokens: tokens.to_vec(),
        labels: vec![1.0; logps[0].len()],
        ..Batch::default()
    }
}

#[test]
fn rdpo_is_dpo_without_flips_and_unbiased_with() {
    let ratios = random_ratios(2, 5);
    let swapped = [ratios[1].clone(), ratios[0].clone()];
    let dpo = Dpo { beta: 0.4, ..Dpo::default() };
    assert_eq!(
        differentiate(&rdpo(0.4, 0.0), &of_ratios(&ratios, &HARD)),
        differentiate(&dpo, &of_ratios(&ratios, &HARD))
    );
    for e in [0.0, 0.1, 0.3, 0.49] {
        close(&losses(&rdpo(0.4, e), &[vec![0.0], vec![0.0]], &[1.0]), &[LN_2], 1e-12);
        let kept = scaled(&losses(&rdpo(0.4, e), &ratios, &HARD), 1.0 - e);
        let flipped = scaled(&losses(&rdpo(0.4, e), &swapped, &HARD), e);
        close(&sum(&kept, &flipped), &losses(&dpo, &ratios, &HARD), 1e-12);
    }
    // The card's numbers: beta h = 0.7, e = 0.3.
    let at = [vec![0.7], vec![0.0]];
    let back = [vec![0.0], vec![0.7]];
    let mixed = sum(
        &scaled(&losses(&rdpo(1.0, 0.3), &at, &[1.0]), 0.7),
        &scaled(&losses(&rdpo(1.0, 0.3), &back, &[1.0]), 0.3),
    );
    close(&mixed, &[0.403_186_048_9], 1e-9);
    close(&differentiate(&rdpo(1.0, 0.3), &of_ratios(&at, &[1.0])).policy[0], &[-1.081_812], 1e-6);
}

#[test]
fn robust_ipo_is_ipo_at_another_beta_up_to_a_constant() {
    let (beta, e) = (0.3, 0.2);
    let ratios = random_ratios(2, 5);
    let robust = losses(&Rdpo { loss: Base::Ipo, ..rdpo(beta, e) }, &ratios, &HARD);
    let ipo = losses(&Ipo { beta: beta * (1.0 - 2.0 * e), ..Ipo::default() }, &ratios, &HARD);
    let constant = robust[0] - ipo[0];
    close(&robust, &ipo.iter().map(|loss| loss + constant).collect::<Vec<_>>(), 1e-10);
}

#[test]
fn a_clamped_pair_teaches_nothing_more() {
    let clamped = Rdpo { clamp: Some(2.0), ..rdpo(1.0, 0.3) };
    let found = differentiate(&clamped, &of_ratios(&[vec![9.0, 1.0], vec![0.0, 0.0]], &[1.0; 2]));
    assert_eq!(found.policy[0][0], 0.0);
    assert!(found.policy[0][1] < 0.0);
}

#[test]
fn simpo_by_the_cards_numbers() {
    let simpo = |beta, rho| Simpo { beta, gamma_beta_ratio: rho, ..Simpo::default() };
    let of = |objective: &Simpo, w: f64, l: f64, tokens: usize| {
        let n = tokens as f64;
        differentiate(objective, &of_logps(&[vec![w * n], vec![l * n]], &[vec![tokens], vec![tokens]]))
    };
    close(&of(&simpo(2.0, 0.25), -1.0, -1.5, 4).each, &[0.474_077], 1e-6);
    close(&of(&simpo(2.0, 0.0), -1.0, -1.0, 4).each, &[LN_2], 1e-12);
    close(&of(&simpo(2.0, 0.8), -1.0, -1.0, 4).each, &[1.6f64.exp().ln_1p()], 1e-12);
    // Twice the length at the same mean changes nothing.
    assert_eq!(of(&simpo(2.0, 0.25), -1.0, -1.5, 4).each, of(&simpo(2.0, 0.25), -1.0, -1.5, 8).each);
    let u = 0.5f64;
    close(&of(&simpo(2.0, 0.25), -1.0, -1.5, 4).policy[0], &[-2.0 * sigmoid(-u) / 4.0], 1e-12);
    // At equal lengths and without margin: CPO without its imitation at beta / T.
    let cpo = Tpo { beta: 0.5, alpha: 0.0, answers: Answers::Two, ..Tpo::default() };
    let batch = of_logps(&random_ratios(2, 5), &[vec![4; 5], vec![4; 5]]);
    let (one, other) = (differentiate(&simpo(2.0, 0.0), &batch), differentiate(&cpo, &batch));
    close(&one.policy.concat(), &other.policy.concat(), 1e-12);
    assert!(!simpo(2.0, 0.0).uses_reference());
}

#[test]
fn rpo_is_dpo_with_a_floor_under_its_weight() {
    let ratios = random_ratios(2, 5);
    let (beta, eta) = (0.4, 0.3);
    let rpo = Rpo { beta, eta, ..Rpo::default() };
    let without = Rpo { eta: 0.0, ..rpo.clone() };
    let dpo = Dpo { beta, ..Dpo::default() };
    close(&losses(&without, &ratios, &HARD), &losses(&dpo, &ratios, &HARD), 0.0);
    // At the reference, whose answers all have -10 nats.
    close(&losses(&rpo, &[vec![0.0], vec![0.0]], &[1.0]), &[LN_2 + eta * beta * 10.0], 1e-12);
    let found = differentiate(&rpo, &of_ratios(&ratios, &HARD)).policy;
    for i in 0..5 {
        let h = ratios[0][i] - ratios[1][i];
        close(&[found[0][i]], &[-beta * (sigmoid(-beta * h) + eta)], 1e-12);
        close(&[found[1][i]], &[beta * sigmoid(-beta * h)], 1e-12);
    }
}

#[test]
fn rpo_is_pessimistic_vpo_at_the_chosen_answers() {
    let ratios = random_ratios(2, 5);
    let rpo = differentiate(&Rpo { beta: 0.2, eta: 0.4, ..Rpo::default() }, &of_ratios(&ratios, &HARD));
    let vpo = Vpo { beta: 0.2, alpha: 0.4, ..Vpo::default() };
    let found = differentiate(&vpo, &of_ratios(&ratios, &HARD));
    close(&found.policy.concat(), &rpo.policy.concat(), 1e-12);
    // The losses differ by eta beta log ref(w), which is -10 here.
    close(&found.each, &rpo.each.iter().map(|loss| loss - 0.08 * 10.0).collect::<Vec<_>>(), 1e-12);
}

#[test]
fn vpo_pushes_calibration_answers_by_its_attitude() {
    let at_reference = of_ratios(&[vec![0.0], vec![0.0]], &[1.0]);
    let gradient = |objective: &Vpo| differentiate(objective, &at_reference).policy.concat();
    let dpo = gradient(&Vpo { alpha: 0.0, ..Vpo::default() });
    close(&dpo, &[-0.05, 0.05], 1e-15);
    let pessimist = Vpo { alpha: 0.5, calibration: Calibration::Both, ..Vpo::default() };
    close(&gradient(&pessimist), &[dpo[0] - 0.025, dpo[1] - 0.025], 1e-15);
    let optimist = Vpo { attitude: Attitude::Optimism, ..pessimist };
    close(&gradient(&optimist), &[dpo[0] + 0.025, dpo[1] + 0.025], 1e-15);
    // Below the floor optimism pushes no more.
    let floored = Vpo { floor: Some(-1.0), calibration: Calibration::Chosen, ..optimist };
    let low = of_ratios(&[vec![-2.0], vec![-2.0]], &[1.0]);
    close(&differentiate(&floored, &low).policy.concat(), &[-0.05, 0.05], 1e-15);
}

#[test]
fn tpo_by_its_checks() {
    let tokens = [vec![3; 5], vec![5; 5], vec![4; 5]];
    let three = of_logps(&random_ratios(3, 5), &tokens);
    let tpo = |beta, alpha| Tpo { beta, alpha, nll_reduction: NllReduction::SequenceMean, ..Tpo::default() };
    // Without a preference: ln 2 and the imitation (beta itself may not be 0).
    let nll = scaled(&three.policy[0], -1.0 / 3.0);
    let expected: Vec<f64> = nll.iter().map(|nll| LN_2 + 0.7 * nll).collect();
    close(&differentiate(&tpo(1e-12, 0.7), &three).each, &expected, 1e-9);
    let level = of_logps(&[vec![-1.0], vec![-2.0], vec![-2.0]], &[vec![1], vec![1], vec![1]]);
    close(&differentiate(&tpo(0.3, 0.0), &level).each, &[LN_2], 1e-15);
    // Its gradient is DPO's under a reference that cancels.
    let pair = &three.policy[1..];
    let mut with_reference = of_logps(pair, &tokens[1..]);
    with_reference.reference = vec![vec![-3.0; 5]; 2];
    let dpo = differentiate(&Dpo { beta: 0.3, ..Dpo::default() }, &with_reference);
    close(&differentiate(&tpo(0.3, 0.0), &three).policy[1..].concat(), &dpo.policy.concat(), 1e-12);
    // TPO-L without imitation is SimPO.
    let long = Tpo { form: Form::TpoL, gamma: 0.6, ..tpo(2.0, 0.0) };
    let simpo = Simpo { beta: 2.0, gamma_beta_ratio: 0.3, ..Simpo::default() };
    let simpo = differentiate(&simpo, &of_logps(pair, &tokens[1..]));
    close(&differentiate(&long, &three).each, &simpo.each, 1e-12);
    // A gold answer that is the chosen one: CPO.
    let repeated = of_logps(
        &[pair[0].clone(), pair[0].clone(), pair[1].clone()],
        &[tokens[1].clone(), tokens[1].clone(), tokens[2].clone()],
    );
    let cpo = Tpo { answers: Answers::Two, ..tpo(0.3, 0.7) };
    let cpo = differentiate(&cpo, &of_logps(pair, &tokens[1..]));
    close(&differentiate(&tpo(0.3, 0.7), &repeated).each, &cpo.each, 1e-12);
}

#[test]
fn pooled_likelihood_is_a_mean_over_all_tokens() {
    let batch = of_logps(&[vec![-6.0, -1.0], vec![-2.0, -2.0]], &[vec![3, 1], vec![1, 1]]);
    let pooled = Tpo { beta: 1e-12, answers: Answers::Two, ..Tpo::default() };
    let found = differentiate(&pooled, &batch);
    close(&[found.sum() / 2.0], &[LN_2 + 7.0 / 4.0], 1e-9);
    assert_eq!(found.metrics.get("nll_loss"), Some(7.0 / 4.0));
    // By sums over tokens SimPO's ablation sees lengths.
    let sums = Simpo { reduction: Reduction::Sum, ..Simpo::default() };
    let means = differentiate(&Simpo::default(), &batch).each;
    assert!((differentiate(&sums, &batch).each[0] - means[0]).abs() > 0.1);
}
