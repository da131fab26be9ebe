//! The regression oracle: predicts the cost of an action, online, with hashed linear weights.
//!
//! Normalised adaptive gradient descent with importance-aware updates (Ross, Mineiro, Langford 2013; Karampatziakis,
//! Langford 2011), as Vowpal Wabbit has it by default, in f32 as there:
//!
//! ```text
//! G_i += weight 4 (p - y)² x_i²,   N_i = max |x_i|,   rate_i = 1 / (sqrt(G_i) N_i)
//! s = sqrt(Σ weight / Σ weight Σ_i x_i²/N_i²),   v = s Σ_i x_i² rate_i
//! w_i += s x_i rate_i (y - p) (1 - exp(-2 eta weight v)) / v
//! ```

use serde::{Deserialize, Serialize};

use crate::features::{Decision, Interactions};

/// Weights of a linear model, and what sets their rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    mask: u32,
    learning_rate: f32,
    weights: Vec<Weight>,
    totals: Totals,
    interactions: Interactions,
}

/// One weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Weight {
    value: f32,
    /// Sum of squared gradients.
    squares: f32,
    /// The largest value of its feature so far.
    scale: f32,
    /// Its rate in the update that goes on.
    rate: f32,
}

/// What all weights share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    weight: f64,
    norm: f64,
    /// The least and the most that was ever learnt, 0 always included; an error is counted from what lies between them.
    least: f32,
    most: f32,
}

impl Linear {
    /// A model of 2^`bits` weights, all 0.
    pub fn new(bits: u32, learning_rate: f32, interactions: Interactions) -> Self {
        let weights = vec![Weight::default(); 1 << bits];
        Self { mask: (1 << bits) - 1, learning_rate, weights, totals: Totals::default(), interactions }
    }

    /// Predicted cost of every action.
    pub fn costs(&self, decision: &Decision) -> Vec<f32> {
        (0..decision.actions.len()).map(|action| self.predict(decision, action)).collect()
    }

    /// Predicted cost of an action, which may lie outside of what was ever learnt, as in Vowpal Wabbit: where features are
    /// larger than before all actions may, and which is cheapest must still show.
    pub fn predict(&self, decision: &Decision, action: usize) -> f32 {
        let mut sum = 0.0;
        self.interactions.each(&decision.shared, &decision.actions[action], |hash, value| {
            sum += self.weights[(hash & self.mask) as usize].value * value;
        });
        if f32::is_nan(sum) { 0.0 } else { sum }
    }

    /// Learns that an action cost so much, as often as `importance` says.
    pub fn learn(&mut self, decision: &Decision, action: usize, cost: f32, importance: f32) {
        let Self { mask, learning_rate, weights, totals, interactions } = self;
        totals.least = totals.least.min(cost);
        totals.most = totals.most.max(cost);
        let (shared, own) = (&decision.shared, &decision.actions[action]);
        let mut sum = 0.0;
        interactions.each(shared, own, |hash, value| sum += weights[(hash & *mask) as usize].value * value);
        let predicted = if f32::is_nan(sum) { 0.0 } else { sum.clamp(totals.least, totals.most) };
        let error = cost - predicted;
        let square = importance * 4.0 * error * error;
        if square <= 0.0 {
            return;
        }
        let (mut norm, mut along) = (0.0f32, 0.0f32);
        interactions.each(shared, own, |hash, value| {
            let weight = &mut weights[(hash & *mask) as usize];
            let (size, x2) = (value.abs(), (value * value).max(f32::MIN_POSITIVE));
            weight.squares += square * x2;
            if size > weight.scale {
                if weight.scale > 0.0 {
                    weight.value *= weight.scale / size;
                }
                weight.scale = size;
            }
            norm += x2 / (weight.scale * weight.scale);
            weight.rate = 1.0 / (weight.squares.sqrt() * weight.scale);
            along += x2 * weight.rate;
        });
        totals.weight += f64::from(importance);
        totals.norm += f64::from(importance * norm);
        let common = (totals.weight / totals.norm).sqrt() as f32;
        along *= common;
        let step = *learning_rate * importance;
        let update = match step * along < 1e-6 {
            true => 2.0 * error * step,
            false => error * (1.0 - (-2.0 * step * along).exp()) / along,
        };
        interactions.each(shared, own, |hash, value| {
            let weight = &mut weights[(hash & *mask) as usize];
            weight.value += update * common * value * weight.rate;
        });
    }

    /// All that a checkpoint must hold, as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Totals { weight, norm, least, most } = self.totals;
        let mut bytes = Vec::with_capacity(24 + 12 * self.weights.len());
        bytes.extend([weight, norm].iter().flat_map(|x| x.to_le_bytes()));
        bytes.extend([least, most].iter().flat_map(|x| x.to_le_bytes()));
        for Weight { value, squares, scale, .. } in &self.weights {
            bytes.extend([*value, *squares, *scale].iter().flat_map(|x| x.to_le_bytes()));
        }
        bytes
    }

    /// Takes up what [`Linear::to_bytes`] gave; false if the bytes are not of a model of this size.
    pub fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() != 24 + 12 * self.weights.len() {
            return false;
        }
        let (head, body) = bytes.split_at(24);
        let (numbers, _) = head.as_chunks::<8>();
        let (halves, _) = numbers[2].as_chunks::<4>();
        self.totals = Totals {
            weight: f64::from_le_bytes(numbers[0]),
            norm: f64::from_le_bytes(numbers[1]),
            least: f32::from_le_bytes(halves[0]),
            most: f32::from_le_bytes(halves[1]),
        };
        for (weight, bytes) in self.weights.iter_mut().zip(body.as_chunks::<12>().0) {
            let (parts, _) = bytes.as_chunks::<4>();
            let [value, squares, scale] = [0, 1, 2].map(|part| f32::from_le_bytes(parts[part]));
            *weight = Weight { value, squares, scale, rate: 0.0 };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Example, Feature};

    fn decision(value: f32) -> Decision {
        let features = vec![Feature { hash: 3, value }];
        Decision { actions: vec![Example { spaces: vec![(b'a', features)] }], ..Decision::default() }
    }

    #[test]
    fn a_repeated_cost_is_learnt() {
        let mut model = Linear::new(8, 0.5, Interactions::default());
        for _ in 0..200 {
            model.learn(&decision(1.0), 0, 0.7, 1.0);
        }
        assert!((model.predict(&decision(1.0), 0) - 0.7).abs() < 1e-3);
        // Beyond what was ever learnt, larger features still tell actions apart.
        assert!(model.predict(&decision(10.0), 0) > 1.0);
    }

    #[test]
    fn an_update_never_passes_its_aim_however_important() {
        let mut model = Linear::new(8, 0.5, Interactions::default());
        model.learn(&decision(1.0), 0, 1.0, 1e6);
        assert!((model.predict(&decision(1.0), 0) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_model_comes_back_from_its_bytes() {
        let mut model = Linear::new(4, 0.5, Interactions::default());
        model.learn(&decision(2.0), 0, -1.0, 2.0);
        let mut back = Linear::new(4, 0.5, Interactions::default());
        assert!(back.take_bytes(&model.to_bytes()));
        for one in [&mut model, &mut back] {
            one.learn(&decision(3.0), 0, 0.5, 1.0);
        }
        assert_eq!(back.to_bytes(), model.to_bytes());
        assert!(!back.take_bytes(&model.to_bytes()[1..]));
    }
}
