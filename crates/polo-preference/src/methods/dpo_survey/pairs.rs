//! Losses of a chosen and a rejected answer.
//!
//! Where a gradient passes, nothing is divided by a number but multiplied by its inverse: burn computes the gradient of
//! such a division through f32.

use std::f64::consts::LN_2;

use burn::tensor::{
    Tensor, TensorData,
    activation::{log_sigmoid, relu, sigmoid},
};
use polo_run::metrics::Metrics;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LossName, Parameters};
use crate::{
    objective::{Reduction, Scores, mean},
    pairwise::{Link, denoised, labelled, smoothed},
};

/// Exponents beyond this are cut, so that no difference of two rewards is infinity less infinity; TRL's bound.
const LARGEST_EXPONENT: f64 = 80.0;

/// A divergence f(pi/ref) from the reference; the reward of an answer is beta f'(pi/ref), up to a constant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// f' = rho: DPO's.
    #[default]
    ReverseKl,
    /// f' = 1 - e^(-rho).
    ForwardKl,
    /// f' = log 2 + log sigmoid(rho): Jensen-Shannon.
    Js,
    /// f' = (e^((a-1) rho) - 1) / (a - 1), a being `divergence_alpha`.
    Alpha,
}

impl Divergence {
    /// f' at log-ratios rho, with TRL's constants, which matter where f' is divided by the length.
    fn derivative(self, rho: Tensor<1>, a: f64) -> Tensor<1> {
        match self {
            Divergence::ReverseKl => rho,
            Divergence::ForwardKl => -exp(-rho) + 1.0,
            Divergence::Js => log_sigmoid(rho) + LN_2,
            Divergence::Alpha if (a - 1.0).abs() < 1e-6 => rho,
            Divergence::Alpha => (exp(rho * (a - 1.0)) - 1.0) * (a - 1.0).recip(),
        }
    }
}

fn exp(x: Tensor<1>) -> Tensor<1> {
    x.clamp_max(LARGEST_EXPONENT).exp()
}

/// One answer of each example. All tensors are `[examples]`.
#[derive(Clone)]
struct Side {
    /// Log-prob, nats.
    logp: Tensor<1>,
    /// The same less the reference's.
    rho: Tensor<1>,
    tokens: Tensor<1>,
    quality: Option<Tensor<1>>,
    /// KL(reference ‖ policy) summed over the tokens, nats.
    divergence: Option<Tensor<1>>,
}

impl Side {
    fn new(scores: &Scores, slot: usize) -> Self {
        Self {
            logp: scores.logp(slot, Reduction::Sum),
            rho: scores.log_ratio(slot, Reduction::Sum),
            tokens: scores.tokens[slot].clone(),
            quality: scores.quality.get(slot).cloned(),
            divergence: scores.divergences.get(slot).cloned(),
        }
    }

    /// Log-prob per token.
    fn m(&self) -> Tensor<1> {
        self.logp.clone() / self.tokens.clone()
    }

    /// Log-ratio per token.
    fn mean_rho(&self) -> Tensor<1> {
        self.rho.clone() / self.tokens.clone()
    }
}

/// The losses of a batch of pairs, `[examples]`, labels taken into account.
pub(super) fn loss(
    name: LossName,
    p: &Parameters<'_>,
    scores: &Scores,
    state: &mut Vec<f64>,
    metrics: &mut Metrics,
) -> Tensor<1> {
    let (w, l) = (Side::new(scores, 0), Side::new(scores, 1));
    let labels = scores.labels.clone();
    let mut p = *p;
    let mut kept = None;
    match name {
        LossName::DpoRk | LossName::DpoD => return with_ties(name, &p, labels, &w, &l),
        LossName::Aot | LossName::AotUnpaired => return transported(name, &p, labels, &w, &l),
        LossName::BetaDpo => {
            let likely = (w.rho.clone() - l.rho.clone()) * (labels.clone() * 2.0 - 1.0);
            kept = near(&p, &likely, &scores.state);
            p.beta = followed(&p, mean(&likely), &scores.state, state);
            metrics.set("beta", p.beta);
        }
        LossName::Orpo => {
            let odds = log_odds(&w) - log_odds(&l);
            metrics.set("log_odds_chosen", mean(&odds)).set("log_odds_ratio", mean(&log_sigmoid(odds)));
        }
        _ => {}
    }
    // What nobody asks for is not computed: it might be infinite, and 0 times that is no number.
    let each = match mean(&labels.clone().equal_elem(1.0).float()) == 1.0 {
        true => ordered(name, &p, &w, &l),
        false => labels.clone() * ordered(name, &p, &w, &l) + (-labels + 1.0) * ordered(name, &p, &l, &w),
    };
    match kept {
        Some(kept) => each * kept,
        None => each,
    }
}

/// The losses of pairs of which `w` is the better one.
fn ordered(name: LossName, p: &Parameters<'_>, w: &Side, l: &Side) -> Tensor<1> {
    let Parameters { beta, alpha, lambda, gamma, all } = *p;
    let e = all.label_smoothing;
    let reward = |side: &Side| all.divergence.derivative(side.rho.clone(), all.divergence_alpha);
    let margin = || w.rho.clone() - l.rho.clone();
    let z = || (reward(w) - reward(l)) * beta;
    let logistic = |z: Tensor<1>| Link::Logistic.loss(z);
    // The expected loss if a share e of the labels is flipped (cDPO).
    let conservative = |z: Tensor<1>| labelled(smoothed(z.ones_like(), e), z, logistic);
    let mean_margin = || w.m() - l.m();
    let per_token = || reward(w) / w.tokens.clone() - reward(l) / l.tokens.clone();
    match name {
        LossName::Sigmoid => conservative(z()),
        LossName::Robust => denoised(w.rho.ones_like(), e, z(), logistic),
        LossName::Hinge => Link::Hinge.loss(z()),
        LossName::Gpo => all.link.loss(z()),
        LossName::Ipo => {
            let margin = match all.reduction {
                Reduction::Sum => reward(w) - reward(l),
                Reduction::Mean => per_token(),
            };
            (margin - 0.5 / beta).square()
        }
        LossName::ExoPair => {
            let part = |z: Tensor<1>, share: f64| sigmoid(z.clone()) * (log_sigmoid(z) - share.ln());
            part(z(), 1.0 - e) + part(-z(), e)
        }
        LossName::NcaPair => {
            let up = w.rho.clone() * beta;
            logistic(up.clone()) + (logistic(-up) + logistic(l.rho.clone() * -beta)) * 0.5
        }
        LossName::BcoPair => logistic(w.rho.clone() * beta) + logistic(l.rho.clone() * -beta),
        LossName::ApoZero => sigmoid(w.rho.clone() * -beta) + sigmoid(l.rho.clone() * beta),
        LossName::ApoDown => sigmoid(w.rho.clone() * beta) + sigmoid(margin() * -beta),
        LossName::Discopop => {
            let z = z();
            let switch = z.clone() * all.tau.recip();
            // sigmoid(z / tau) e^(-z) in one exponential, as the factors alone are 0 and infinity at far margins.
            sigmoid(-switch.clone()) * logistic(z.clone()) + (log_sigmoid(switch) - z).exp()
        }
        LossName::SppoHard => targets(beta, w, l),
        LossName::CalDpo => logistic(margin()) + targets(beta, w, l),
        LossName::SigmoidNorm => conservative(per_token() * beta),
        LossName::Dpop => logistic((margin() - relu(-w.rho.clone()) * lambda) * beta),
        LossName::RDpo => logistic(margin() * beta + (w.tokens.clone() - l.tokens.clone()) * alpha),
        LossName::Odpo => match (&w.quality, &l.quality) {
            (Some(better), Some(worse)) => {
                logistic(margin() * beta - (better.clone() - worse.clone()).log() * alpha)
            }
            _ => logistic(margin() * beta),
        },
        LossName::BetaDpo => logistic(margin() * beta),
        LossName::Tdpo1 => logistic((margin() - further(w, l, |w| w)) * beta),
        LossName::Tdpo2 => logistic((margin() - further(w, l, Tensor::detach) * alpha) * beta),
        LossName::Modpo => logistic((margin() * beta - better_by(w, l) * alpha) * lambda.recip()),
        LossName::SafeDpo => logistic(margin() * beta - better_by(w, l) * gamma),
        LossName::AlphaDpo => {
            let by_reference = ((w.mean_rho() - l.mean_rho()) * beta).detach();
            let centred = by_reference.clone() - mean(&by_reference);
            let spread = mean(&centred.clone().square()).sqrt();
            logistic(mean_margin() * beta - gamma - centred * (alpha / (spread + 1e-12)))
        }
        LossName::ChiPo => {
            let phi = |side: &Side| exp(side.rho.clone()) + side.rho.clone();
            let bound = 2.0 * all.reward_bound;
            logistic(((phi(w) - phi(l)) * beta).clamp(-bound, bound))
        }
        LossName::Ropo => logistic(z()) * alpha + sigmoid(-z()) * lambda,
        LossName::Npo => logistic(l.rho.clone() * -beta) * (2.0 / beta),
        LossName::Cpo => conservative((w.logp.clone() - l.logp.clone()) * beta),
        LossName::Simpo => conservative(mean_margin() * beta - gamma),
        LossName::AlphaPo => conservative((alpha_reward(p, w.m()) - alpha_reward(p, l.m())) * beta - gamma),
        LossName::Orpo => logistic(log_odds(w) - log_odds(l)) * beta,
        LossName::SlicHf => relu(-(w.logp.clone() - l.logp.clone()) + gamma),
        LossName::Simper => l.m().exp() - w.m().exp(),
        LossName::SimNpo => logistic(l.m() * -beta - gamma) * (2.0 / beta),
        LossName::SoftPo => logistic((w.logp.clone() - l.logp.clone()) * alpha) * alpha.recip(),
        // Imitation is added by the caller; the rest are no losses of ordered pairs.
        _ => w.rho.zeros_like(),
    }
}

/// By how much further the policy is from the reference along the rejected answer than along the chosen one, nats, the
/// latter as `hold` makes it.
fn further(w: &Side, l: &Side, hold: impl Fn(Tensor<1>) -> Tensor<1>) -> Tensor<1> {
    match (&w.divergence, &l.divergence) {
        (Some(chosen), Some(rejected)) => rejected.clone() - hold(chosen.clone()),
        _ => w.rho.zeros_like(),
    }
}

/// By how much the data's score of the chosen answer exceeds that of the rejected one.
fn better_by(w: &Side, l: &Side) -> Tensor<1> {
    match (&w.quality, &l.quality) {
        (Some(better), Some(worse)) => better.clone() - worse.clone(),
        _ => w.rho.zeros_like(),
    }
}

/// beta-DPO's filter: 0 for the pairs whose reward differences are furthest from their running mean, and for the others
/// what keeps the mean over the batch one over them. None where all count.
fn near(p: &Parameters<'_>, margins: &Tensor<1>, before: &[f64]) -> Option<Tensor<1>> {
    let rewards: Vec<f64> = margins.clone().into_data().iter::<f64>().map(|margin| p.beta * margin).collect();
    let count = rewards.len();
    let kept = ((p.all.keep * count as f64).ceil() as usize).clamp(1, count);
    if kept == count {
        return None;
    }
    let usual = before.first().copied().unwrap_or(rewards.iter().sum::<f64>() / count as f64);
    let mut nearest: Vec<usize> = (0..count).collect();
    nearest.sort_by(|&a, &b| (rewards[a] - usual).abs().total_cmp(&(rewards[b] - usual).abs()));
    let mut weights = vec![0.0; count];
    nearest[..kept].iter().for_each(|&place| weights[place] = count as f64 / kept as f64);
    Some(Tensor::from_data(TensorData::new(weights, [count]), (&margins.device(), margins.dtype())))
}

/// The squared distances of both log-ratios from +-1/(2 beta).
fn targets(beta: f64, w: &Side, l: &Side) -> Tensor<1> {
    (w.rho.clone() - 0.5 / beta).square() + (l.rho.clone() + 0.5 / beta).square()
}

/// AlphaPO's reward (1 - p^(-a)) / a of answers whose tokens have the mean log-prob `m`, p = e^m.
pub(super) fn alpha_reward(p: &Parameters<'_>, m: Tensor<1>) -> Tensor<1> {
    (-exp(m * -p.alpha) + 1.0) * p.alpha.recip()
}

/// log(p / (1 - p)) of the mean token probability p = e^m.
fn log_odds(side: &Side) -> Tensor<1> {
    // A model that is sure of an answer has m = 0 in f32; the next number below stands for it.
    let m = side.m().clamp_max(-6e-8);
    // log(1 - e^m) = log tanh(-m/2) + log(1 + e^m) keeps its digits at both ends.
    m.clone() - ((m.clone() * -0.5).tanh().log() - log_sigmoid(-m))
}

/// Losses with a third outcome. Label 1/2 is a tie; labels between are shared by the two outcomes beside them.
fn with_ties(name: LossName, p: &Parameters<'_>, labels: Tensor<1>, w: &Side, l: &Side) -> Tensor<1> {
    let z = (w.rho.clone() - l.rho.clone()) * p.beta;
    let [won, lost, tied] = match name {
        LossName::DpoRk => {
            let (won, lost) = (log_sigmoid(z.clone() - p.alpha), log_sigmoid(-z - p.alpha));
            // 1 - P(w) - P(l) = (e^(2 alpha) - 1) P(w) P(l).
            [won.clone(), lost.clone(), won + lost + (2.0 * p.alpha).exp_m1().ln()]
        }
        _ => {
            let log_weights = [z.zeros_like(), -z.clone(), z * -0.5 + (2.0 * p.alpha).ln()];
            let total = super::lists::log_sum_exp(&log_weights);
            log_weights.map(|weight| weight - total.clone())
        }
    };
    let sign = labels * 2.0 - 1.0;
    -(relu(sign.clone()) * won + relu(-sign.clone()) * lost + (-sign.abs() + 1.0) * tied)
}

/// Optimal transport between the batch's margins under the two models (`aot`), or between its chosen and rejected
/// log-ratios: sorted, rank by rank. A label below 1/2 turns its pair round.
fn transported(name: LossName, p: &Parameters<'_>, labels: Tensor<1>, w: &Side, l: &Side) -> Tensor<1> {
    let turned = labels.lower_elem(0.5);
    let either = |one: &Tensor<1>, other: &Tensor<1>| one.clone().mask_where(turned.clone(), other.clone());
    let sorted = |values: Tensor<1>| {
        let order = values.clone().detach().argsort(0);
        values.select(0, order)
    };
    let reference = |side: &Side| side.logp.clone() - side.rho.clone();
    let margin = match name {
        LossName::Aot => {
            let policy = either(&w.logp, &l.logp) - either(&l.logp, &w.logp);
            let (one, other) = (reference(w), reference(l));
            sorted(policy) - sorted((either(&one, &other) - either(&other, &one)).detach())
        }
        _ => sorted(either(&w.rho, &l.rho)) - sorted(either(&l.rho, &w.rho)),
    };
    let z = margin * p.beta;
    labelled(smoothed(z.ones_like(), p.all.label_smoothing), z, |z| Link::Logistic.loss(z))
}

/// beta-DPO's beta (1 + alpha (M - M0)) of a batch with mean margin `margin`: M is beta times it, M0 its running mean
/// (momentum 0.9, the first batch's own at the start). At least a hundredth of beta.
fn followed(p: &Parameters<'_>, margin: f64, before: &[f64], state: &mut Vec<f64>) -> f64 {
    let reward = p.beta * margin;
    let usual = before.first().copied().unwrap_or(reward);
    *state = vec![0.9 * usual + 0.1 * reward];
    p.beta * (1.0 + p.alpha * (reward - usual)).max(0.01)
}
