//! Losses of K answers with scores s, best first.

use burn::tensor::{Bool, Tensor, activation::relu};

use super::{LossName, Parameters};
use crate::{
    objective::{Reduction, Scores},
    pairwise::Link,
};

/// The losses of a batch of lists, `[examples]`, without imitation.
pub(super) fn loss(name: LossName, p: &Parameters<'_>, scores: &Scores) -> Tensor<1> {
    let all = |value: &dyn Fn(usize) -> Tensor<1>| (0..scores.policy.len()).map(value).collect::<Vec<_>>();
    let rewards = || all(&|slot| scores.log_ratio(slot, Reduction::Sum) * p.beta);
    let means = || all(&|slot| scores.logp(slot, Reduction::Mean));
    let s = &scores.quality;
    match name {
        LossName::InfoNca => info_nca(&rewards(), &s.iter().map(|s| s.clone() / p.alpha).collect::<Vec<_>>()),
        LossName::Lipo => lipo(&rewards(), s),
        LossName::Rrhf => rrhf(&means(), s),
        _ => pro(&means(), s),
    }
}

/// log of the sum of e to the terms, column by column.
pub(super) fn log_sum_exp(terms: &[Tensor<1>]) -> Tensor<1> {
    let largest = terms
        .iter()
        .skip(1)
        .fold(terms[0].clone().detach(), |largest, term| largest.max_pair(term.clone().detach()));
    total(terms.iter().map(|term| (term.clone() - largest.clone()).exp()), &largest).log() + largest
}

/// The sum of tensors of the shape of `like`.
fn total(terms: impl Iterator<Item = Tensor<1>>, like: &Tensor<1>) -> Tensor<1> {
    terms.fold(like.zeros_like(), |sum, term| sum + term)
}

/// 1 where true, else 0; of the type of `like`.
fn truth(mask: Tensor<1, Bool>, like: &Tensor<1>) -> Tensor<1> {
    like.zeros_like().mask_fill(mask, 1.0)
}

/// Pairs (i, j), i before j, of K places.
fn couples(k: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..k).flat_map(move |i| (i + 1..k).map(move |j| (i, j)))
}

/// Cross-entropy of the distribution that the rewards make to the one that the scores make.
fn info_nca(rewards: &[Tensor<1>], scores: &[Tensor<1>]) -> Tensor<1> {
    let (log_z, log_s) = (log_sum_exp(rewards), log_sum_exp(scores));
    let terms = rewards
        .iter()
        .zip(scores)
        .map(|(reward, score)| (score.clone() - log_s.clone()).exp() * (log_z.clone() - reward.clone()));
    total(terms, &log_z)
}

/// DPO's loss of every pair of a list, weighed by what swapping the two in the ranking by reward would cost.
fn lipo(rewards: &[Tensor<1>], s: &[Tensor<1>]) -> Tensor<1> {
    // Equal rewards rank as the list does, so that a list of new answers is not all ties.
    let discount = |i: usize| {
        let own = rewards[i].clone().detach();
        let above = rewards.iter().enumerate().filter(|(j, _)| *j != i).map(|(j, other)| {
            let other = other.clone().detach();
            let mask = if j < i { other.greater_equal(own.clone()) } else { other.greater(own.clone()) };
            truth(mask, &own)
        });
        (total(above, &own) + 2.0).log().recip()
    };
    let discounts: Vec<_> = (0..rewards.len()).map(discount).collect();
    // 2^s without overflow, whatever the data call a score.
    let gains: Vec<_> = s.iter().map(|s| (s.clone().clamp_max(60.0) * 2f64.ln()).exp()).collect();
    let terms = couples(rewards.len()).map(|(i, j)| {
        let gain = (gains[i].clone() - gains[j].clone()).abs();
        let place = (discounts[i].clone() - discounts[j].clone()).abs();
        gain * place * Link::Logistic.loss(rewards[i].clone() - rewards[j].clone())
    });
    total(terms, &s[0])
}

/// By how much worse answers are more likely than better ones, per token.
fn rrhf(means: &[Tensor<1>], s: &[Tensor<1>]) -> Tensor<1> {
    let terms = couples(means.len()).map(|(i, j)| {
        truth(s[i].clone().greater(s[j].clone()), &s[i]) * relu(means[j].clone() - means[i].clone())
    });
    total(terms, &s[0])
}

/// Each answer against all worse ones, at temperatures 1 / (difference of scores).
fn pro(means: &[Tensor<1>], s: &[Tensor<1>]) -> Tensor<1> {
    let terms = (0..means.len() - 1).map(|k| {
        let gap = |i: usize| s[k].clone() - s[i].clone();
        let worse = (k + 1..means.len()).map(|i| means[i].clone() * gap(i));
        // Best first: the largest gap is that to the last.
        let own = means[k].clone() * gap(means.len() - 1);
        let terms: Vec<_> = std::iter::once(own.clone()).chain(worse).collect();
        log_sum_exp(&terms) - own
    });
    total(terms, &s[0])
}
