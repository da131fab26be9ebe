//! The algebra of pairwise losses: what a margin becomes, what noise in the labels does to it, what is added to it.
//!
//! Methods are written as `link(beta * margin - offset)`, wrapped for labels, plus additive terms. The parts stand here
//! once; what a margin is made of (log-ratios or log-probs, sums or means) stands in [`crate::objective::Scores`].

use burn::tensor::{
    Tensor,
    activation::{log_sigmoid, relu, sigmoid},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objective::{Reduction, Scores};

/// How a margin z becomes a loss: convex (but for the last) and falling where the pair is not yet told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// -log sigmoid(z): DPO's.
    #[default]
    Logistic,
    /// max(0, 1 - z): SLiC's.
    Hinge,
    /// (1 - z)^2: IPO's, up to scale.
    Square,
    /// max(0, 1 - z)^2.
    TruncatedSquare,
    /// e^(-z).
    Exponential,
    /// 1 / (1 + e^z)^2.
    Savage,
}

impl Link {
    /// The loss of margins z, `[examples]`.
    pub fn loss(self, z: Tensor<1>) -> Tensor<1> {
        match self {
            Link::Logistic => -log_sigmoid(z),
            Link::Hinge => relu(-z + 1.0),
            Link::Square => (-z + 1.0).square(),
            Link::TruncatedSquare => relu(-z + 1.0).square(),
            // Finite at any margin, since a label's weight of 0 times infinity is no number.
            Link::Exponential => (-z).clamp_max(700.0).exp(),
            Link::Savage => sigmoid(-z).square(),
        }
    }
}

/// The expected loss of a margin whose sign is right with probability q: q f(z) + (1 - q) f(-z).
pub fn labelled(q: Tensor<1>, z: Tensor<1>, loss: impl Fn(Tensor<1>) -> Tensor<1>) -> Tensor<1> {
    q.clone() * loss(z.clone()) + (-q + 1.0) * loss(-z)
}

/// Probabilities p that a pair is in order, when a share e of all labels is assumed to be flipped.
pub fn smoothed(p: Tensor<1>, e: f64) -> Tensor<1> {
    p * (1.0 - 2.0 * e) + e
}

/// The unbiased estimate of a loss from labels of which a share e < 1/2 is flipped:
/// [(1 - e) f(z) - e f(-z)] / (1 - 2e), for a pair in order with probability p.
pub fn denoised(p: Tensor<1>, e: f64, z: Tensor<1>, loss: impl Fn(Tensor<1>) -> Tensor<1>) -> Tensor<1> {
    // The label flipped back: with q = (p - e) / (1 - 2e), which may lie outside of [0, 1].
    labelled((p - e) / (1.0 - 2.0 * e), z, loss)
}

/// How the negative log-likelihood of answers is averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NllReduction {
    /// Over all tokens of the micro-batch's answers together, as TRL does: long answers weigh more.
    #[default]
    TokenPool,
    /// Over the tokens of each answer.
    SequenceMean,
    /// Not at all: the sum over the answer's tokens.
    Sum,
}

impl Scores {
    /// Negative log-likelihood of the answers in `slot`, `[examples]`, nats (per token but under
    /// [`NllReduction::Sum`]). Its mean over the examples is the reduced value.
    pub fn nll(&self, slot: usize, reduction: NllReduction) -> Tensor<1> {
        match reduction {
            NllReduction::Sum => -self.logp(slot, Reduction::Sum),
            NllReduction::SequenceMean => -self.logp(slot, Reduction::Mean),
            NllReduction::TokenPool => {
                let mean_length: f64 = self.tokens[slot].clone().mean().into_scalar();
                // Not a division: burn computes the gradient of that one through f32.
                -self.logp(slot, Reduction::Sum) * mean_length.recip()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    fn column(values: &[f64]) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (&Device::flex(), DType::F64))
    }

    fn numbers(tensor: Tensor<1>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    const ALL: [Link; 6] =
        [Link::Logistic, Link::Hinge, Link::Square, Link::TruncatedSquare, Link::Exponential, Link::Savage];

    #[test]
    fn links_by_hand() {
        let expected = [2f64.ln(), 1.0, 1.0, 1.0, 1.0, 0.25];
        for (link, at_zero) in ALL.into_iter().zip(expected) {
            assert!((numbers(link.loss(column(&[0.0])))[0] - at_zero).abs() < 1e-15, "{link:?}");
        }
        let at = |link: Link, z| numbers(link.loss(column(&[z])))[0];
        assert!(
            (at(Link::Hinge, 3.0), at(Link::TruncatedSquare, 3.0), at(Link::Square, 3.0)) == (0.0, 0.0, 4.0)
        );
        assert!((at(Link::Exponential, 1.0) - (-1f64).exp()).abs() < 1e-15);
        assert!((at(Link::Savage, 1.0) - (1.0 + 1f64.exp()).powi(-2)).abs() < 1e-15);
    }

    #[test]
    fn far_margins_of_certain_pairs_stay_numbers() {
        for link in ALL {
            for z in [-3000.0, 3000.0] {
                let loss = numbers(labelled(column(&[1.0]), column(&[z]), |z| link.loss(z)))[0];
                assert!(loss.is_finite(), "{link:?} at {z}: {loss}");
            }
        }
    }

    /// Averaged over flipped and unflipped labels, the denoised loss is the loss of the clean label.
    #[test]
    fn denoising_is_unbiased_for_every_link() {
        let (e, z) = (0.3, [-1.7, 0.2, 0.7]);
        for link in ALL {
            let denoised = |p: f64| numbers(denoised(column(&[p; 3]), e, column(&z), |z| link.loss(z)));
            let clean = numbers(link.loss(column(&z)));
            for ((kept, flipped), clean) in denoised(1.0).into_iter().zip(denoised(0.0)).zip(clean) {
                assert!(((1.0 - e) * kept + e * flipped - clean).abs() < 1e-12, "{link:?}");
            }
        }
    }
}
