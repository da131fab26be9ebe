//! Which tokens of a pair's answers count how much: what length-aware variants of DPO change.

use polo_run::seed::Seeds;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Survey;
use crate::objective::Example;

/// Weights of the tokens' log-probs, under policy and reference alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenWeights {
    /// All the same.
    #[default]
    All,
    /// LD-DPO: `ld_alpha` beyond the length of the shorter answer.
    Ld,
    /// SamPO: of each answer as many tokens as the shorter one has, drawn at random, once for each row.
    Sampo,
    /// D2PO: `decay` to the power of the token's place.
    Decay,
    /// TIS-DPO: by how much more likely the token is under `tis_better` than under `tis_worse`.
    Tis,
}

impl TokenWeights {
    /// Per slot the weight of each token, for row number `row`; empty for all the same.
    pub(super) fn of(self, settings: &Survey, example: &Example, row: u64) -> Vec<Vec<f32>> {
        let lengths: Vec<usize> = example.answer_tokens().collect();
        let shared = lengths.iter().copied().min().unwrap_or(0);
        let answers = lengths.iter();
        match self {
            // The models of a contrast are asked later.
            TokenWeights::All | TokenWeights::Tis => Vec::new(),
            TokenWeights::Ld => {
                let weight = |place: usize| if place < shared { 1.0 } else { settings.ld_alpha as f32 };
                answers.map(|&length| (0..length).map(weight).collect()).collect()
            }
            TokenWeights::Sampo => {
                let seeds = Seeds::new(0);
                let sampled = |(slot, &length): (usize, &usize)| {
                    let mut weights = vec![0.0; length];
                    let order = seeds.shuffled(length, &format!("survey/sampo/{slot}"), row);
                    order[..shared].iter().for_each(|&place| weights[place] = 1.0);
                    weights
                };
                answers.enumerate().map(sampled).collect()
            }
            TokenWeights::Decay => {
                let weight =
                    |place: usize| settings.decay.powi(i32::try_from(place).unwrap_or(i32::MAX)) as f32;
                answers.map(|&length| (0..length).map(weight).collect()).collect()
            }
        }
    }
}

/// TIS-DPO's weights of the tokens of a pair, from their log-probs `[slot][token]` under two models:
/// exp(scale clip(better - worse)) in the chosen answer, exp(-scale clip(better - worse)) in the rejected one.
pub(super) fn by_contrast(settings: &Survey, better: &[Vec<f32>], worse: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let weight = |sign: f64, (better, worse): (&f32, &f32)| {
        let difference = f64::from(better - worse).clamp(settings.tis_least, settings.tis_most);
        (sign * settings.tis_scale * difference).exp() as f32
    };
    let slots = [1.0, -1.0].into_iter().zip(better.iter().zip(worse));
    slots
        .map(|(sign, (better, worse))| better.iter().zip(worse).map(|pair| weight(sign, pair)).collect())
        .collect()
}
