//! The card's exact values, identities between losses, stability, and the rows that each loss learns from.

use std::{collections::BTreeSet, f64::consts::LN_2};

use polo_lm::{
    encode::Limits,
    rows::{ListRow, UnpairedRow},
};
use polo_run::config::{Choice, keys};

use super::{taxonomy::VARIANTS, *};
use crate::{
    methods::{
        dpo::Dpo,
        tests::{close, encoded, losses, of_ratios, pairs, place, plain, random_ratios, scaled, words},
    },
    objective::{Batch, differentiate},
};

fn of(loss: LossName) -> Survey {
    Survey { loss, ..Survey::default() }
}

/// With a label smoothing that every loss takes.
fn usable(loss: LossName) -> Survey {
    let e = if loss == LossName::ExoPair { 0.1 } else { 0.0 };
    Survey { label_smoothing: e, ..of(loss) }
}

/// A batch of the slots that a loss needs, with lengths and qualities that differ.
fn batch(settings: &Survey) -> Batch {
    let slots = match settings.learns() {
        Learns::Pairs | Learns::ScoredPairs => 2,
        Learns::Lists => settings.answers,
        Learns::Unpaired => 2,
    };
    let labels = if settings.learns() == Learns::Unpaired { [1.0, 0.0, 1.0] } else { [1.0; 3] };
    let mut batch = of_ratios(&random_ratios(slots, 3), &labels);
    for (slot, tokens) in batch.tokens.iter_mut().enumerate() {
        *tokens = vec![3 + slot, 2, 9 - slot];
    }
    if matches!(settings.learns(), Learns::ScoredPairs | Learns::Lists) {
        batch.quality =
            (0..slots).map(|slot| vec![3.0 - slot as f64, 2.5 - 0.5 * slot as f64, 1.0]).collect();
        batch.quality[0][2] = 1.7;
    }
    if matches!(settings.loss, LossName::Modpo | LossName::SafeDpo) {
        batch.quality = vec![vec![0.5, 1.0, 0.0], vec![2.0, 0.0, 0.0]];
    }
    if matches!(settings.loss, LossName::Tdpo1 | LossName::Tdpo2) {
        batch.divergences = vec![vec![0.4, 1.5, 0.1], vec![0.9, 0.2, 0.3]];
    }
    if settings.loss == LossName::NashMd {
        batch.quality = vec![vec![2.0, -1.0, 0.5]];
    }
    if settings.loss == LossName::DroV {
        batch.quality = vec![vec![2.0, -1.0, 0.5]];
        batch.readouts = vec![vec![vec![0.0]; 3], vec![vec![0.3], vec![-0.4], vec![0.9]]];
    }
    batch.typicality = (0..slots).map(|slot| vec![-0.3, 0.1 * slot as f64, -0.2]).collect();
    if !settings.uses_reference() {
        batch.reference.clear();
    }
    batch
}

/// Every loss, by the choices of its key.
fn names() -> Vec<LossName> {
    let key = keys::<Survey>().into_iter().find(|key| key.key == "loss").unwrap();
    let named = |choice: &Choice| serde_json::from_value(choice.name.as_str().into()).unwrap();
    let names: Vec<_> = key.choices.iter().map(named).collect();
    assert!(names.len() > 40, "{names:?}");
    names
}

fn all() -> impl Iterator<Item = Survey> {
    names().into_iter().map(usable)
}

#[test]
fn losses_at_the_reference_are_the_card_s() {
    use LossName::*;
    let check = |settings: Survey, expected: f64| {
        settings.check().unwrap();
        let slots = if settings.loss == Kto { 2 } else { settings.answers.min(2) };
        let found = losses(&settings, &vec![vec![0.0; 3]; slots], &[1.0; 3]);
        close(&found, &[expected; 3], 1e-12);
    };
    for (loss, expected) in [
        (Sigmoid, LN_2),
        (Hinge, 1.0),
        (Ipo, 25.0),
        (NcaPair, 2.0 * LN_2),
        (BcoPair, 2.0 * LN_2),
        (SppoHard, 50.0),
        (ApoZero, 1.0),
        (ApoDown, 1.0),
        (Discopop, (LN_2 + 1.0) / 2.0),
        (Kto, 0.5),
        (Aot, LN_2),
        (AotUnpaired, LN_2),
        (Dpop, LN_2),
        (RDpo, LN_2),
        (SigmoidNorm, LN_2),
        (CalDpo, LN_2 + 50.0),
        (ChiPo, LN_2),
        (BetaDpo, LN_2),
        (Odpo, LN_2),
        (Npo, 20.0 * LN_2),
        (ApoZeroUnpaired, 0.5),
        (Bco, LN_2),
        (Tdpo1, LN_2),
        (Tdpo2, LN_2),
        (Modpo, LN_2),
        (SafeDpo, LN_2),
    ] {
        check(of(loss), expected);
    }
    check(Survey { label_smoothing: 0.1, ..of(ExoPair) }, -0.5 * (4.0 * 0.1 * 0.9f64).ln());
    for e in [0.0, 0.1, 0.4] {
        check(Survey { label_smoothing: e, ..of(Robust) }, LN_2);
    }
    // Both models of ties call equal answers a tie half of the time at their defaults.
    for loss in [DpoRk, DpoD] {
        let alpha = Some(if loss == DpoRk { 3f64.ln() } else { 1.0 });
        let settings = Survey { alpha, ..of(loss) };
        let found = losses(&settings, &[vec![0.0; 3], vec![0.0; 3]], &[1.0, 0.5, 0.0]);
        close(&found, &[2.0 * LN_2, LN_2, 2.0 * LN_2], 1e-12);
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    let variants = [
        Survey { label_smoothing: 0.2, ..of(LossName::Simpo) },
        Survey { divergence: Divergence::ForwardKl, ..of(LossName::Ipo) },
        Survey { divergence: Divergence::Js, ..of(LossName::Sigmoid) },
        Survey { divergence: Divergence::Alpha, ..of(LossName::Hinge) },
        Survey { link: Link::Savage, ..of(LossName::Gpo) },
        Survey { weighting: true, ..of(LossName::ApoDown) },
        Survey { reference: false, ..of(LossName::Sigmoid) },
        Survey {
            also: vec![LossName::Sft, LossName::Orpo],
            weights: vec![0.4, 2.0, -0.3],
            ..of(LossName::Ipo)
        },
    ];
    for settings in all().chain(variants) {
        for soft in [false, true] {
            let mut batch = batch(&settings);
            if soft {
                match settings.learns() {
                    Learns::Pairs => batch.labels = vec![1.0, 0.8, 0.35],
                    _ => continue,
                }
            }
            let found = differentiate(&settings, &batch);
            for (slot, gradients) in found.policy.iter().enumerate() {
                for (example, gradient) in gradients.iter().enumerate() {
                    let at = |shift: f64| {
                        let (mut moved, mut fixed) = (batch.clone(), settings.clone());
                        moved.policy[slot][example] += shift;
                        // What passes no gradient stays where it is.
                        match settings.loss {
                            LossName::BetaDpo => {
                                (fixed.loss, fixed.beta) = (LossName::Sigmoid, found.metrics.get("beta"));
                            }
                            LossName::Tdpo2 => {}
                            LossName::Bco => moved.state = vec![found.metrics.get("delta").unwrap(), 1e300],
                            _ => {}
                        }
                        differentiate(&fixed, &moved).sum()
                    };
                    let expected = match settings.loss {
                        LossName::Kto if slot == 1 => 0.0,
                        // -log sigmoid(u) has the slope sigmoid(u) - 1 in u, and u the slope beta / n in L.
                        LossName::AlphaDpo if !soft => {
                            let sign = if slot == 0 { -1.0 } else { 1.0 };
                            sign * (1.0 - (-found.each[example]).exp()) * 2.0
                                / batch.tokens[slot][example] as f64
                        }
                        LossName::AlphaDpo => continue,
                        // What multiplies the log-prob passes no gradient.
                        LossName::NashMd => continue,
                        _ => (at(STEP) - at(-STEP)) / (2.0 * STEP),
                    };
                    assert!(
                        (gradient - expected).abs() < 2e-7 * (1.0 + expected.abs()),
                        "{settings:?}, slot {slot}: {gradient} is not {expected}"
                    );
                }
            }
        }
    }
}

/// TDPO's slopes in the divergences, but for the one that it holds back.
#[test]
fn divergences_are_learnt_from() {
    const STEP: f64 = 1e-5;
    for (loss, held) in [(LossName::Tdpo1, None), (LossName::Tdpo2, Some(0))] {
        let settings = of(loss);
        let batch = batch(&settings);
        let found = differentiate(&settings, &batch);
        for (slot, gradients) in found.divergences.iter().enumerate() {
            for (example, gradient) in gradients.iter().enumerate() {
                let at = |shift: f64| {
                    let mut moved = batch.clone();
                    moved.divergences[slot][example] += shift;
                    differentiate(&settings, &moved).sum()
                };
                let expected = if held == Some(slot) { 0.0 } else { (at(STEP) - at(-STEP)) / (2.0 * STEP) };
                assert!((gradient - expected).abs() < 1e-7, "{loss:?}, slot {slot}: {gradient}, {expected}");
            }
        }
        // Without divergences it is DPO, with equal ones, too (TDPO1).
        let mut none = batch.clone();
        none.divergences = vec![vec![0.0; 3]; 2];
        equal(&settings, &of(LossName::Sigmoid), 1.0, &none);
    }
    let mut even = batch(&of(LossName::Tdpo1));
    even.divergences[1] = even.divergences[0].clone();
    equal(&of(LossName::Tdpo1), &of(LossName::Sigmoid), 1.0, &even);
    // By hand: beta D = 0.1 (2 - 1) at divergences 3 and 5, so 0.1 (1 - 2), and 0.1 (1 - 0.5 * 2).
    let mut one = of_ratios(&[vec![2.0], vec![1.0]], &[1.0]);
    one.divergences = vec![vec![3.0], vec![5.0]];
    let by_hand = |loss, z: f64| {
        close(&differentiate(&of(loss), &one).each, &[(1.0 + (-z).exp()).ln()], 1e-12);
    };
    by_hand(LossName::Tdpo1, -0.1);
    by_hand(LossName::Tdpo2, 0.0);
}

#[test]
fn margins_by_other_scores() {
    use LossName::*;
    let mut one = of_ratios(&[vec![2.0], vec![1.0]], &[1.0]);
    one.quality = vec![vec![1.0], vec![0.25]];
    let check = |settings: Survey, z: f64| {
        close(&differentiate(&settings, &one).each, &[(1.0 + (-z).exp()).ln()], 1e-12);
    };
    check(Survey { alpha: Some(0.4), lambda: Some(0.5), ..of(Modpo) }, (0.1 - 0.4 * 0.75) / 0.5);
    check(Survey { alpha: Some(0.0), ..of(Modpo) }, 0.1);
    check(Survey { gamma: Some(3.0), ..of(SafeDpo) }, 0.1 - 3.0 * 0.75);
    check(Survey { gamma: Some(0.0), ..of(SafeDpo) }, 0.1);
    // Nash-MD: the gradient of -P log pi + beta KL by the score function, with P - 1/2 = sigmoid(1.5) - 1/2.
    let mut point = of_ratios(&[vec![2.0], vec![0.0]], &[1.0]);
    point.quality = vec![vec![1.5]];
    let found = differentiate(&of(NashMd), &point);
    close(&[found.policy[0][0]], &[-((1.0 + (-1.5f64).exp()).recip() - 0.5 - 0.2)], 1e-12);

    // DRO: (s - V - tau rho)^2 / 2, and its slopes in rho and V.
    let mut point = of_ratios(&[vec![2.0], vec![0.0]], &[1.0]);
    point.quality = vec![vec![1.5]];
    point.readouts = vec![vec![vec![7.0]], vec![vec![0.25]]];
    let found = differentiate(&Survey { beta: Some(0.5), ..of(DroV) }, &point);
    close(&found.each, &[0.5 * 0.25f64.powi(2)], 1e-12);
    close(
        &[found.policy[0][0], found.readouts[1][0][0], found.readouts[0][0][0]],
        &[-0.125, -0.25, 0.0],
        1e-12,
    );
}

#[test]
fn the_worst_group_counts_most() {
    let robust = Survey { group_step: 1.0, ..Survey::default() };
    let mut batch = Batch { groups: vec![0; 3], ..batch(&robust) };
    // One group, or a batch of which every group has the same loss so far: the plain mean.
    equal(&robust, &Survey::default(), 1.0, &batch);
    batch.groups = vec![0, 1, 1];
    let plain = differentiate(&Survey::default(), &batch).each;
    let found = differentiate(&robust, &batch);
    let sums = [plain[0], (plain[1] + plain[2]) / 2.0];
    close(&found.state, &sums, 1e-12);
    let share = sums[0].exp() / (sums[0].exp() + sums[1].exp());
    close(
        &found.each,
        &[plain[0] * share * 3.0, plain[1] * (1.0 - share) * 1.5, plain[2] * (1.0 - share) * 1.5],
        1e-12,
    );
    // The weighted sum is that of the groups' means.
    assert!((found.sum() / 3.0 - (share * sums[0] + (1.0 - share) * sums[1])).abs() < 1e-12);
    // A group that fared badly before keeps its weight, even if it is not in the batch.
    batch.state = vec![0.0, 0.0, 50.0];
    let later = differentiate(&robust, &batch);
    assert!(later.sum() < 1e-15 && later.state[2] == 50.0, "{later:?}");
}

#[test]
fn beta_dpo_leaves_out_what_is_far_from_the_running_mean() {
    let batch = of_ratios(&[vec![1.0, 2.0, 90.0, 1.5], vec![0.0; 4]], &[1.0; 4]);
    let settings = Survey { keep: 0.75, alpha: Some(0.0), ..of(LossName::BetaDpo) };
    let before = Batch { state: vec![0.15], ..batch.clone() };
    let found = differentiate(&settings, &before);
    let whole = differentiate(&of(LossName::Sigmoid), &batch);
    assert_eq!(found.each[2], 0.0);
    for kept in [0, 1, 3] {
        assert!((found.each[kept] - whole.each[kept] * 4.0 / 3.0).abs() < 1e-12, "{found:?}");
    }
    let all = Survey { keep: 1.0, ..settings };
    close(&differentiate(&all, &before).each, &whole.each, 1e-12);
}

#[test]
fn far_margins_give_numbers() {
    for settings in all() {
        for (up, down) in [(3000.0, -3000.0), (-3000.0, 3000.0), (-3000.0, -3000.0), (-1e-9, -3000.0)] {
            let mut batch = batch(&settings);
            for (slot, policy) in batch.policy.iter_mut().enumerate() {
                // Log-probs, which are never above 0; references that put the ratios on either side.
                let ratio = if slot == 0 { up } else { down };
                *policy = vec![f64::min(ratio, -1e-9); 3];
                if let Some(reference) = batch.reference.get_mut(slot) {
                    *reference = vec![f64::min(-ratio, 0.0); 3];
                }
            }
            let found = differentiate(&settings, &batch);
            let numbers = found.each.iter().chain(found.policy.iter().flatten());
            for number in numbers {
                assert!(number.is_finite(), "{:?} at {up}, {down}: {found:?}", settings.loss);
            }
        }
    }
}

#[test]
fn losses_of_log_probs_alone_load_no_reference() {
    use LossName::*;
    let free = [Cpo, Simpo, AlphaPo, Orpo, SlicHf, Simper, SimNpo, SoftPo, Sft, Rrhf, Pro];
    for name in names() {
        assert_eq!(of(name).uses_reference(), !free.contains(&name), "{name:?}");
        // And such a loss does not change with one.
        let settings = usable(name);
        let mut batch = batch(&settings);
        let before = differentiate(&settings, &batch);
        batch.reference = (0..batch.policy.len())
            .map(|slot| vec![-3.0 - slot as f64, -7.0, 2.0 * slot as f64 - 9.0])
            .collect();
        assert_eq!(differentiate(&settings, &batch).each == before.each, free.contains(&name), "{name:?}");
    }
    assert!(!Survey { reference: false, also: vec![Sft], ..of(Hinge) }.uses_reference());
    assert!(Survey { also: vec![Sigmoid], ..of(Simpo) }.uses_reference());
}

/// Values and gradients of two settings agree on a batch, up to a factor.
#[track_caller]
fn equal(one: &Survey, other: &Survey, factor: f64, batch: &Batch) {
    let [one, other] = [one, other].map(|settings| differentiate(settings, batch));
    close(&one.each, &scaled(&other.each, factor), 1e-9);
    for (one, other) in one.policy.iter().zip(&other.policy) {
        close(one, &scaled(other, factor), 1e-9);
    }
}

#[test]
fn losses_are_each_other_s_special_cases() {
    use LossName::*;
    let dpo = of(Sigmoid);
    let batch = batch(&dpo);
    let mut even = batch.clone();
    even.tokens[1] = even.tokens[0].clone();
    let smooth = |e| Survey { label_smoothing: e, ..of(Sigmoid) };
    let alpha = |alpha, loss| Survey { alpha: Some(alpha), ..of(loss) };
    equal(&of(Robust), &dpo, 1.0, &batch);
    equal(&of(RDpo), &dpo, 1.0, &even);
    equal(&alpha(0.0, RDpo), &dpo, 1.0, &batch);
    equal(&Survey { lambda: Some(0.0), ..of(Dpop) }, &dpo, 1.0, &batch);
    equal(&of(Gpo), &dpo, 1.0, &batch);
    equal(&alpha(0.0, BetaDpo), &dpo, 1.0, &batch);
    equal(&Survey { lambda: Some(0.0), ..alpha(1.0, Ropo) }, &dpo, 1.0, &batch);
    equal(&Survey { divergence: Divergence::Alpha, divergence_alpha: 1.0, ..dpo.clone() }, &dpo, 1.0, &batch);
    equal(&Survey { link: Link::Hinge, ..of(Gpo) }, &of(Hinge), 1.0, &batch);
    equal(&alpha(0.0, AlphaDpo), &of(Simpo), 1.0, &batch);
    // (1 - beta D)^2 = beta^2 (D - 1/beta)^2.
    let square = Survey { link: Link::Square, beta: Some(0.3), ..of(Gpo) };
    equal(&square, &Survey { beta: Some(0.15), ..of(Ipo) }, 0.09, &batch);
    // CPO without imitation is DPO without reference.
    let mut free = batch.clone();
    free.reference.clear();
    equal(&Survey { lambda: Some(0.0), ..of(Cpo) }, &Survey { reference: false, ..dpo.clone() }, 1.0, &free);
    // SimPO without margin on equal lengths n: DPO with beta / n and a uniform reference.
    let mut four = free.clone();
    four.tokens = vec![vec![4; 3]; 2];
    let simpo = Survey { gamma: Some(0.0), beta: Some(2.0), ..of(Simpo) };
    equal(&simpo, &Survey { beta: Some(0.5), reference: false, ..dpo.clone() }, 1.0, &four);
    // AOT of one pair is cDPO.
    let mut one = of_ratios(&random_ratios(2, 1), &[1.0]);
    one.tokens = vec![vec![3], vec![5]];
    for loss in [Aot, AotUnpaired] {
        equal(&Survey { label_smoothing: 0.2, ..of(loss) }, &smooth(0.2), 1.0, &one);
    }
    // cDPO at e = 1/2 is even in D.
    let swapped = Batch {
        policy: vec![batch.policy[1].clone(), batch.policy[0].clone()],
        reference: vec![batch.reference[1].clone(), batch.reference[0].clone()],
        ..batch.clone()
    };
    close(&differentiate(&smooth(0.5), &batch).each, &differentiate(&smooth(0.5), &swapped).each, 1e-12);
    // The exponential's slope at D = 0 is twice DPO's.
    let zero = of_ratios(&[vec![0.0], vec![0.0]], &[1.0]);
    let slope = |settings: &Survey| differentiate(settings, &zero).policy[0][0];
    let exponential = Survey { link: Link::Exponential, ..of(Gpo) };
    assert!((slope(&exponential) - 2.0 * slope(&dpo)).abs() < 1e-12);
    // nca_pair - bco_pair = (S(-beta rho_l) - S(-beta rho_w)) / 2.
    let [nca, bco] = [NcaPair, BcoPair].map(|loss| differentiate(&of(loss), &batch).each);
    for (place, (nca, bco)) in nca.iter().zip(&bco).enumerate() {
        let s = |slot: usize| {
            let rho = batch.policy[slot][place] - batch.reference[slot][place];
            -(0.1 * rho).exp().ln_1p()
        };
        assert!((nca - bco - (s(1) - s(0)) / 2.0).abs() < 1e-12);
    }
    // WPO of next tokens that were certain.
    let mut certain = batch.clone();
    certain.typicality = vec![vec![0.0; 3]; 2];
    equal(&Survey { weighting: true, ..dpo.clone() }, &dpo, 1.0, &certain);
    // And DPO is the method of that name, soft labels too.
    let mut soft = batch.clone();
    soft.labels = vec![1.0, 0.7, 0.2];
    let smoothed = Dpo { label_smoothing: 0.2, ..Dpo::default() };
    close(&differentiate(&smooth(0.2), &soft).each, &differentiate(&smoothed, &soft).each, 1e-12);
}

#[test]
fn the_price_of_length_moves_the_optimum_as_derived() {
    // pi_ref (.5, .3, .2), r (.3, .1, .8), n (2, 9, 20), beta .5, alpha .05, exact labels: the loss is least, so its
    // gradient is zero, where pi is the KL-optimum of r - alpha n.
    let (reference, r, n) = ([0.5, 0.3, 0.2], [0.3, 0.1, 0.8], [2, 9, 20]);
    let optimum = [0.724924, 0.144784, 0.130292];
    let settings = Survey { beta: Some(0.5), alpha: Some(0.05), ..of(LossName::RDpo) };
    let mut slope = [0.0; 3];
    for (w, l) in [(0, 1), (0, 2), (1, 2)] {
        let p = 1.0 / (1.0 + f64::exp(r[l] - r[w]));
        let batch = Batch {
            policy: vec![vec![f64::ln(optimum[w])], vec![f64::ln(optimum[l])]],
            reference: vec![vec![f64::ln(reference[w])], vec![f64::ln(reference[l])]],
            tokens: vec![vec![n[w]], vec![n[l]]],
            labels: vec![p],
            ..Batch::default()
        };
        let found = differentiate(&settings, &batch);
        slope[w] += found.policy[0][0];
        slope[l] += found.policy[1][0];
    }
    close(&slope, &[0.0; 3], 1e-6);
}

#[test]
fn lists_by_hand() {
    let list = |loss| Survey { lambda: Some(0.0), answers: 3, ..of(loss) };
    let mut three = of_ratios(&[vec![0.2], vec![-0.4], vec![0.5]], &[1.0]);
    three.quality = vec![vec![2.0], vec![1.0], vec![0.0]];
    // InfoNCA with flat rewards: the entropy of flat scores is log 3.
    let mut flat = of_ratios(&vec![vec![0.0]; 3], &[1.0]);
    flat.quality = vec![vec![5.0]; 3];
    close(&differentiate(&list(LossName::InfoNca), &flat).each, &[3f64.ln()], 1e-12);
    // RRHF: only the third answer is more likely than a better one; means of 4 tokens.
    let by_hand = (0.5 - 0.2) / 4.0 + (0.5 - -0.4) / 4.0;
    close(&differentiate(&list(LossName::Rrhf), &three).each, &[by_hand], 1e-12);
    // PRO: T is 1 / (difference of scores).
    let m = [-9.8 / 4.0, -10.4 / 4.0, -9.5 / 4.0];
    let first = (f64::exp(2.0 * m[0]) + f64::exp(m[1]) + f64::exp(2.0 * m[2])).ln() - 2.0 * m[0];
    let second = (f64::exp(m[1]) + f64::exp(m[2])).ln() - m[1];
    close(&differentiate(&list(LossName::Pro), &three).each, &[first + second], 1e-12);
    // LiPO: ranks by reward 2, 3, 1.
    let (g, d) = ([3.0, 1.0, 0.0], [3f64.ln(), 4f64.ln(), 2f64.ln()]);
    let rho = [0.2, -0.4, 0.5];
    let term = |i: usize, j: usize| {
        let weight = f64::abs(g[i] - g[j]) * f64::abs(1.0 / d[i] - 1.0 / d[j]);
        weight * f64::exp(-0.1 * (rho[i] - rho[j])).ln_1p()
    };
    let by_hand = term(0, 1) + term(0, 2) + term(1, 2);
    close(&differentiate(&list(LossName::Lipo), &three).each, &[by_hand], 1e-12);
}

#[test]
fn running_means_go_from_batch_to_batch() {
    let settings = of(LossName::Bco);
    let mut first = of_ratios(&[vec![2.0, 4.0]], &[1.0, 0.0]);
    let found = differentiate(&settings, &first);
    close(&found.state, &[0.3, 2.0], 1e-12);
    // 0.2 - 0.3 and 0.4 - 0.3.
    close(&found.each, &[f64::exp(0.1).ln_1p(), f64::exp(0.1).ln_1p()], 1e-12);
    first.state = found.state;
    first.policy = vec![vec![-10.0, -10.0]];
    close(&differentiate(&settings, &first).state, &[0.15, 4.0], 1e-12);

    let mut pairs = of_ratios(&[vec![3.0, 1.0], vec![0.0, 0.0]], &[1.0, 1.0]);
    let settings = of(LossName::BetaDpo);
    let found = differentiate(&settings, &pairs);
    close(&found.state, &[0.2], 1e-12);
    assert_eq!(found.metrics.get("beta"), Some(0.1));
    pairs.state = vec![0.1];
    let found = differentiate(&settings, &pairs);
    close(&found.state, &[0.11], 1e-12);
    close(&[found.metrics.get("beta").unwrap()], &[0.1 * (1.0 + 0.6 * 0.1)], 1e-12);
}

#[test]
fn what_cannot_be_is_refused_with_a_hint() {
    use LossName::*;
    let refused = |settings: Survey, message: &str, hint: &str| {
        let problem = settings.check().unwrap_err();
        assert!(problem.message().contains(message), "{problem}");
        assert!(problem.hint_text().unwrap_or_default().contains(hint), "{:?}", problem.hint_text());
    };
    refused(of(ExoPair), "e is 0", "label_smoothing above 0");
    refused(Survey { label_smoothing: 0.5, ..of(Robust) }, "label_smoothing is 0.5", "below 0.5");
    refused(Survey { also: vec![Kto], ..of(Sigmoid) }, "learns from other rows", "pairs to pairs");
    refused(Survey { also: vec![Sft], ..of(Kto) }, "learns from other rows", "pairs to pairs");
    refused(Survey { weights: vec![1.0; 3], ..of(Sigmoid) }, "3 weights for 1", "method.also");
    refused(Survey { alpha: Some(0.0), ..of(AlphaPo) }, "alpha above 0", "simpo");
    refused(Survey { divergence: Divergence::Js, ..of(NcaPair) }, "no other divergence", "sigmoid");
    refused(Survey { reference: false, ..of(Kto) }, "defined by its reference", "reference = true");
    refused(Survey { weighting: true, ..of(Orpo) }, "cannot be weighed", "without imitation");
    refused(Survey { weighting: true, ..of(Aot) }, "sorts the batch", "weighting = false");
    refused(Survey { weighting: true, ..of(Kto) }, "cannot be weighed", "loss of pairs");
    let tokens = TokenWeights::Ld;
    refused(Survey { tokens, also: vec![Sft], ..of(Sigmoid) }, "cannot be weighed", "loss of pairs");
    refused(Survey { tokens: TokenWeights::Tis, ..of(Sigmoid) }, "two models", "tis_worse");
    refused(Survey { tis_worse: Some("m".into()), ..of(Sigmoid) }, "nothing asks for", "tis");
    refused(Survey { sync_every: 5, ..of(Simpo) }, "no reference", "sync_every = 0");
    refused(Survey { group_step: 0.1, ..of(Kto) }, "group-robustly", "loss of pairs");
    refused(Survey { group_step: 0.1, ..of(BetaDpo) }, "group-robustly", "running mean");
    refused(Survey { also: vec![Modpo], ..of(Sigmoid) }, "its own way", "alone");
    refused(Survey { also: vec![Kto], ..of(DroV) }, "its own way", "alone");
    refused(Survey { reference: false, ..of(Tdpo1) }, "defined by its reference", "reference = true");
    for settings in all() {
        settings.check().unwrap();
    }
}

#[test]
fn rows_become_what_their_loss_needs() {
    let limits = Limits::new(32);
    let weights = |tokens: TokenWeights| {
        let settings = Survey { tokens, ld_alpha: 0.25, decay: 0.5, ..Survey::default() };
        let row = |chosen: &str, rejected: &str, id| polo_lm::rows::PairRow {
            prompt: plain("x "),
            chosen: plain(chosen),
            rejected: plain(rejected),
            label: 1.0,
            about: polo_lm::rows::About::default(),
            place: place(),
            id,
        };
        let rows = Rows::Pairs((0..8).map(|id| row("good x x", "bad", id)).collect());
        let examples = settings.encode(&rows, &words(), &limits).unwrap().rows;
        examples.into_iter().map(|example| example.weights).collect::<Vec<_>>()
    };
    assert!(weights(TokenWeights::All)[0].is_empty());
    assert_eq!(weights(TokenWeights::Ld)[0], [vec![1.0, 1.0, 0.25, 0.25], vec![1.0; 2]]);
    assert_eq!(weights(TokenWeights::Decay)[0], [vec![1.0, 0.5, 0.25, 0.125], vec![1.0, 0.5]]);
    let sampled = weights(TokenWeights::Sampo);
    assert!(sampled.iter().all(|slots| slots[0].iter().sum::<f32>() == 2.0 && slots[1] == [1.0, 1.0]));
    assert!(sampled.iter().any(|slots| slots[0] != sampled[0][0]), "{sampled:?}");
    assert_eq!(sampled, weights(TokenWeights::Sampo));

    // TIS-DPO: by the clipped difference of two models, one way for the chosen answer and the other for the rejected.
    let tis = Survey { tis_scale: 2.0, ..Survey::default() };
    let found = tokens::by_contrast(&tis, &[vec![-1.0, -9.0], vec![-1.0]], &[vec![-1.25, -1.0], vec![-6.0]]);
    let expected = [vec![0.5f32.exp(), (-1f32).exp()], vec![(-3f32).exp()]];
    assert_eq!(found, expected);

    // What some losses ask of a row, beside its texts.
    let about = |about: polo_lm::rows::About| {
        let Rows::Pairs(mut rows) = pairs(1) else { unreachable!() };
        (rows[0].about, rows[0].label) = (about, 1.0);
        Rows::Pairs(rows)
    };
    let none = polo_lm::rows::About::default();
    let safe = |safe| about(polo_lm::rows::About { safe: Some(safe), ..none.clone() });
    let shown = |settings: &Survey, rows: &Rows| {
        let (example, trees) = encoded(settings, rows).remove(0);
        (trees[0].1.join(" > "), example.quality)
    };
    let safely = of(LossName::SafeDpo);
    assert_eq!(shown(&safely, &safe([true, false])), ("good > bad".into(), vec![1.0, 0.0]));
    assert_eq!(shown(&safely, &safe([false, true])), ("bad > good".into(), vec![1.0, 0.0]));
    assert_eq!(shown(&safely, &safe([false, false])), ("good > bad".into(), vec![0.0, 0.0]));
    let scored = about(polo_lm::rows::About { scores: Some([1.0, 3.0]), ..none.clone() });
    assert_eq!(shown(&of(LossName::Modpo), &scored), ("good > bad".into(), vec![1.0, 3.0]));
    let robust = Survey { group_step: 0.1, ..Survey::default() };
    for (settings, hint) in [(&safely, "is_safe"), (&of(LossName::Modpo), "score_chosen"), (&robust, "group")]
    {
        let problem = settings.encode(&about(none.clone()), &words(), &limits).unwrap_err();
        let said = format!("{problem} {:?}", problem.hint_text());
        assert!(said.contains("pairs.jsonl:3") && said.contains(hint), "{said}");
    }

    // DRO reads the value at the end of the prompt.
    let dro = of(LossName::DroV);
    let row = UnpairedRow {
        prompt: plain("x GEN "),
        completion: plain("good"),
        label: true,
        score: 0.25,
        place: place(),
        id: 0,
    };
    let rows = Rows::Unpaired(vec![row.clone(), UnpairedRow { prompt: plain("x "), ..row }]);
    let found = encoded(&dro, &rows);
    assert_eq!(found.len(), 1, "a prompt of one token has no room");
    let (example, trees) = &found[0];
    assert_eq!(trees[0], ("x".to_owned(), vec!["GEN good".to_owned()]));
    assert_eq!((&example.weights, example.read.len()), (&vec![vec![0.0, 1.0, 1.0]], 1));
    assert_eq!(example.read[0], example.trees[0].answers[0][..1]);
    assert_eq!(example.quality, [0.25]);

    // ORPO's prompt is learnt in a tree of its own, which begins after its first token.
    let orpo = Survey { prompt_nll: true, ..of(LossName::Orpo) };
    let trees = &encoded(&orpo, &pairs(1))[0].0.trees;
    assert_eq!(trees.len(), 2);
    let whole = [trees[1].prompt.as_slice(), &trees[1].answers[0]].concat();
    assert_eq!(whole, [trees[0].prompt.as_slice(), &trees[0].answers[0]].concat());
    assert_eq!(trees[1].prompt.len(), 1);

    // Lists: the best, the worst and what lies evenly between; best against worst for ODPO.
    let list = |scores: &[f64]| ListRow {
        prompt: plain("x "),
        completions: ["good", "bad", "x", "good x", "x x"][..scores.len()]
            .iter()
            .map(|text| plain(text))
            .collect(),
        scores: scores.to_vec(),
        logps: Vec::new(),
        place: place(),
        id: 0,
    };
    let qualities = |settings: Survey, scores: &[f64]| {
        let rows = Rows::Lists(vec![list(scores), ListRow { id: 1, ..list(&[1.0, 0.0]) }]);
        let examples = settings.encode(&rows, &words(), &limits).unwrap().rows;
        examples.into_iter().map(|example| example.quality).collect::<Vec<_>>()
    };
    let three = Survey { answers: 3, ..of(LossName::Pro) };
    assert_eq!(qualities(three, &[2.0, 5.0, 1.0, 4.0, 3.0]), [vec![5.0, 3.0, 1.0]]);
    assert_eq!(qualities(of(LossName::Odpo), &[2.0, 5.0, 1.0]), [vec![5.0, 1.0], vec![1.0, 0.0]]);
    assert_eq!(qualities(of(LossName::Odpo), &[2.0, 2.0]), [vec![1.0, 0.0]]);
}

#[test]
fn single_answers_are_mismatched_with_another_prompt_s() {
    let row = |prompt: &str, completion: &str, label, id| UnpairedRow {
        prompt: plain(prompt),
        completion: plain(completion),
        label,
        score: f64::from(u8::from(label)),
        place: place(),
        id,
    };
    let rows = Rows::Unpaired(vec![
        row("x ", "good", true, 0),
        row("x ", "bad", false, 1),
        row("x x ", "x", true, 2),
    ]);
    let found = encoded(&of(LossName::Kto), &rows);
    let answers: Vec<_> =
        found.iter().map(|(example, trees)| (example.label, trees[0].1.join(" | "))).collect();
    let expected = [(1.0, "good | x"), (0.0, "bad | x"), (1.0, "x | bad")];
    assert_eq!(answers, expected.map(|(label, text)| (label, text.to_owned())));
    assert!(found.iter().all(|(example, _)| example.quality == [example.label]));
    // Where all prompts are the same, the row before has to do.
    let same = Rows::Unpaired(vec![row("x ", "good", true, 0), row("x ", "bad", false, 1)]);
    let answers: Vec<_> =
        encoded(&of(LossName::Kto), &same).iter().map(|(_, trees)| trees[0].1.join(" | ")).collect();
    assert_eq!(answers, ["good | bad", "bad | bad"]);
    let alone = encoded(&of(LossName::Bco), &rows);
    assert!(alone.iter().all(|(example, _)| example.answer_tokens().count() == 1));
}

#[test]
fn the_taxonomy_knows_every_loss_once_and_every_branch() {
    let runs: Vec<_> = VARIANTS
        .iter()
        .filter_map(|variant| match variant.run {
            taxonomy::Run::Loss(name) => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    // Those have methods or settings of their own.
    let elsewhere = ["sigmoid", "robust", "ipo", "simpo", "sft"].map(str::to_owned);
    let known: BTreeSet<_> = runs.iter().cloned().chain(elsewhere).collect();
    let names: BTreeSet<_> = self::names().into_iter().map(LossName::name).collect();
    assert_eq!(known, names);
    assert_eq!(runs.len() + 5, names.len());
    let unique: BTreeSet<_> = VARIANTS.iter().map(|variant| variant.name).collect();
    assert_eq!(unique.len(), VARIANTS.len());
    let branches: BTreeSet<_> = VARIANTS.iter().flat_map(|variant| variant.places).collect();
    assert_eq!(branches.len(), 24);
}
