//! Regression oracles: what predicts the cost of an action, online. [`Linear`] is the one that all schemes can use;
//! [`crate::ridge`], [`crate::forest`] and [`crate::perceptron`] are others.
//!
//! Normalised adaptive gradient descent with importance-aware updates (Ross, Mineiro, Langford 2013; Karampatziakis,
//! Langford 2011), as Vowpal Wabbit has it by default, in f32 as there:
//!
//! ```text
//! G_i += weight 4 (p - y)² x_i²,   N_i = max |x_i|,   rate_i = 1 / (sqrt(G_i) N_i)
//! s = sqrt(Σ weight / Σ weight Σ_i x_i²/N_i²),   v = s Σ_i x_i² rate_i
//! w_i += s x_i rate_i (y - p) (1 - exp(-2 eta weight v)) / v
//! ```

use polo_run::{Problem, Result};

use crate::features::{Decision, Feature, Interactions};

/// Models of one kind, numbered from 0, that learn what actions cost.
pub trait Oracle: Send + Sync {
    /// Predicted cost of an action.
    fn predict(&self, model: usize, decision: &Decision, action: usize) -> f32;

    /// Predicted cost of every action.
    fn costs(&self, model: usize, decision: &Decision) -> Vec<f32> {
        (0..decision.actions.len()).map(|action| self.predict(model, decision, action)).collect()
    }

    /// Predicted cost of an action, between the least and the most that was ever learnt where the model may pass these.
    fn estimate(&self, model: usize, decision: &Decision, action: usize) -> f32 {
        self.predict(model, decision, action)
    }

    /// Learns that an action cost so much, as often as `importance` says.
    ///
    /// # Errors
    /// What a model of this kind cannot learn from: a cost out of range, more features than it can hold.
    fn learn(
        &mut self,
        model: usize,
        decision: &Decision,
        action: usize,
        cost: f32,
        importance: f32,
    ) -> Result<()>;

    /// How far the prediction would move, per unit of importance, if an action were learnt to cost `cost`; none for models
    /// that do not know.
    fn sensitivity(&self, _model: usize, _decision: &Decision, _action: usize, _cost: f32) -> Option<f32> {
        None
    }

    /// What is known of the mean costs of all actions, `joint`ly or of each alone; none for models that keep a single guess.
    fn posterior(&self, _model: usize, _decision: &Decision, _joint: bool) -> Option<Posterior> {
        None
    }

    /// The features of an action, with products, as the models see them.
    fn features(&self, decision: &Decision, action: usize) -> Vec<Feature>;

    /// All that a checkpoint must hold, as bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// Takes up what [`Oracle::to_bytes`] gave; false if the bytes are not of models of this size.
    fn take_bytes(&mut self, bytes: &[u8]) -> bool;
}

/// Normal beliefs about the mean costs of a decision's actions.
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    /// `[actions]`.
    pub means: Vec<f64>,
    /// `[actions, actions]`, or the variances alone, `[actions]`; up to the noise of a cost.
    pub covariance: Vec<f64>,
}

/// Weights of linear models, and what sets their rates.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    mask: u32,
    learning_rate: f32,
    models: Vec<Model>,
    /// The least and the most that any model ever learnt, 0 always included; an error is counted from what lies between.
    range: (f32, f32),
    interactions: Interactions,
}

#[derive(Clone, Debug, PartialEq)]
struct Model {
    weights: Vec<Weight>,
    /// Sums over all updates: of importance, and of importance times the squared norm of scaled features.
    importance: f64,
    norm: f64,
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

impl Weight {
    /// Makes room for a feature's value in an update of this squared gradient; the feature's share of the scaled norm, and
    /// how far a unit of update moves the prediction.
    fn prepare(&mut self, value: f32, square: f32) -> (f32, f32) {
        let (size, x2) = (value.abs().max(SMALLEST), (value * value).max(f32::MIN_POSITIVE));
        // A sum that vanished would make the rate infinite, and with it the weight no number.
        self.squares = (self.squares + square * x2).max(f32::MIN_POSITIVE);
        if size > self.scale {
            if self.scale > 0.0 {
                self.value *= self.scale / size;
            }
            self.scale = size;
        }
        self.rate = 1.0 / (self.squares.sqrt() * self.scale);
        (x2 / (self.scale * self.scale), x2 * self.rate)
    }
}

/// The square root of the least normal number: smaller values of features count as this, as in Vowpal Wabbit.
const SMALLEST: f32 = 1.084_202_2e-19;

/// What cannot be learnt from without losing what is known.
pub(crate) fn too_large() -> Problem {
    Problem::input("features, or products of them, or costs are too large to be learnt from")
        .hint("bring numbers to about the size of 1 before they are logged, or leave out oracle.interactions")
}

/// Bytes of a weight in a checkpoint.
const WEIGHT: usize = 12;

impl Linear {
    /// `models` models of 2^`bits` weights, all 0.
    pub fn new(models: usize, bits: u32, learning_rate: f32, interactions: Interactions) -> Self {
        let model = Model { weights: vec![Weight::default(); 1 << bits], importance: 0.0, norm: 0.0 };
        let (mask, models) = ((1 << bits) - 1, vec![model; models]);
        Self { mask, learning_rate, models, range: (0.0, 0.0), interactions }
    }

    fn clipped(&self, cost: f32) -> f32 {
        cost.clamp(self.range.0, self.range.1)
    }
}

impl Oracle for Linear {
    /// The prediction may lie outside of what was ever learnt, as in Vowpal Wabbit: where features are larger than before
    /// all actions may, and which is cheapest must still show.
    fn predict(&self, model: usize, decision: &Decision, action: usize) -> f32 {
        let mut sum = 0.0;
        let weights = &self.models[model].weights;
        self.interactions.each(&decision.shared, &decision.actions[action], |hash, value| {
            sum += weights[(hash & self.mask) as usize].value * value;
        });
        if f32::is_nan(sum) { 0.0 } else { sum }
    }

    fn estimate(&self, model: usize, decision: &Decision, action: usize) -> f32 {
        self.clipped(self.predict(model, decision, action))
    }

    fn learn(
        &mut self,
        model: usize,
        decision: &Decision,
        action: usize,
        cost: f32,
        importance: f32,
    ) -> Result<()> {
        self.range = (self.range.0.min(cost), self.range.1.max(cost));
        let error = cost - self.estimate(model, decision, action);
        let Self { mask, learning_rate, models, interactions, .. } = self;
        let Model { weights, importance: all, norm: norms } = &mut models[model];
        let (shared, own) = (&decision.shared, &decision.actions[action]);
        let square = importance * 4.0 * error * error;
        if square <= 0.0 {
            return Ok(());
        }
        if !square.is_finite() {
            return Err(too_large());
        }
        let (mut norm, mut along) = (0.0f32, 0.0f32);
        interactions.each(shared, own, |hash, value| {
            let (scaled, moved) = weights[(hash & *mask) as usize].prepare(value, square);
            norm += scaled;
            along += moved;
        });
        if !(norm.is_finite() && along.is_finite()) {
            return Err(too_large());
        }
        *all += f64::from(importance);
        *norms += f64::from(importance * norm);
        let common = (*all / *norms).sqrt() as f32;
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
        Ok(())
    }

    fn sensitivity(&self, model: usize, decision: &Decision, action: usize, cost: f32) -> Option<f32> {
        let error = cost - self.predict(model, decision, action);
        let Model { weights, importance, norm } = &self.models[model];
        let (mut scaled, mut along) = (0.0, 0.0);
        self.interactions.each(&decision.shared, &decision.actions[action], |hash, value| {
            let mut weight = weights[(hash & self.mask) as usize];
            let (share, moved) = weight.prepare(value, 4.0 * error * error);
            scaled += share;
            along += moved;
        });
        let common = ((*importance as f32 + 1.0) / (*norm as f32 + scaled)).sqrt();
        Some(self.learning_rate * common * along)
    }

    fn features(&self, decision: &Decision, action: usize) -> Vec<Feature> {
        self.interactions.features(decision, action)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.models.len() * (16 + WEIGHT * (self.mask as usize + 1)));
        bytes.extend([self.range.0, self.range.1].iter().flat_map(|x| x.to_le_bytes()));
        for Model { weights, importance, norm } in &self.models {
            bytes.extend([importance, norm].iter().flat_map(|x| x.to_le_bytes()));
            for Weight { value, squares, scale, .. } in weights {
                bytes.extend([value, squares, scale].iter().flat_map(|x| x.to_le_bytes()));
            }
        }
        bytes
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        let size = 16 + WEIGHT * (self.mask as usize + 1);
        if bytes.len() != 8 + self.models.len() * size {
            return false;
        }
        let float = |bytes: &[u8], at: usize| f32::from_le_bytes(bytes.as_chunks::<4>().0[at]);
        self.range = (float(bytes, 0), float(bytes, 1));
        for (model, bytes) in self.models.iter_mut().zip(bytes[8..].chunks_exact(size)) {
            let sums = bytes[..16].as_chunks::<8>().0;
            model.importance = f64::from_le_bytes(sums[0]);
            model.norm = f64::from_le_bytes(sums[1]);
            for (weight, bytes) in model.weights.iter_mut().zip(bytes[16..].as_chunks::<WEIGHT>().0) {
                let [value, squares, scale] = [0, 1, 2].map(|at| float(bytes, at));
                *weight = Weight { value, squares, scale, rate: 0.0 };
            }
        }
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::features::Example;

    /// A decision with one action of one feature.
    pub fn decision(value: f32) -> Decision {
        let features = vec![Feature { hash: 3, value }];
        Decision { actions: vec![Example { spaces: vec![(b'a', features)] }], ..Decision::default() }
    }

    fn linear(models: usize, bits: u32) -> Linear {
        Linear::new(models, bits, 0.5, Interactions::default())
    }

    #[test]
    fn a_repeated_cost_is_learnt() {
        let mut model = linear(1, 8);
        for _ in 0..200 {
            model.learn(0, &decision(1.0), 0, 0.7, 1.0).unwrap();
        }
        assert!((model.predict(0, &decision(1.0), 0) - 0.7).abs() < 1e-3);
        // Beyond what was ever learnt, larger features still tell actions apart.
        assert!(model.predict(0, &decision(10.0), 0) > 1.0);
        assert_eq!(model.estimate(0, &decision(10.0), 0), 0.7);
    }

    #[test]
    fn an_update_never_passes_its_aim_however_important() {
        let mut model = linear(1, 8);
        model.learn(0, &decision(1.0), 0, 1.0, 1e6).unwrap();
        assert!((model.predict(0, &decision(1.0), 0) - 1.0).abs() < 1e-5);
    }

    /// How far a prediction moves per importance and unit of its gradient is what a small update moves it by.
    #[test]
    fn sensitivity_is_the_first_order_of_an_update() {
        let mut model = linear(1, 8);
        for cost in [0.2, 0.9, 0.4] {
            model.learn(0, &decision(1.0), 0, cost, 1.0).unwrap();
        }
        let before = model.predict(0, &decision(1.0), 0);
        let aim = before - 1e-3;
        let sensitivity = model.sensitivity(0, &decision(1.0), 0, aim).unwrap();
        model.learn(0, &decision(1.0), 0, aim, 1.0).unwrap();
        // 1 - exp(-2 s) of the way to the aim: the rate at which importance would move it is 2 s.
        let moved = (before - model.predict(0, &decision(1.0), 0)) / 1e-3;
        assert!((moved - (1.0 - (-2.0 * sensitivity).exp())).abs() < 1e-3, "{moved} {sensitivity}");
    }

    /// Squares of tiny features, and of tiny errors, vanish in f32; those of huge ones have no size.
    #[test]
    fn features_of_any_size_leave_numbers() {
        for (value, start, cost) in
            [(1e-22, 0.0, 1.0), (1e-40, 0.0, 1e-3), (1e-3, 0.5, 0.5 + 1e-7), (1.0, 0.0, 1e-20)]
        {
            let mut model = linear(1, 8);
            let mut one = decision(value);
            model.learn(0, &decision(1.0), 0, start, 1.0).unwrap();
            one.actions[0].spaces[0].1[0].hash = 9;
            for _ in 0..3 {
                model.learn(0, &one, 0, cost, 1.0).unwrap();
            }
            assert!(model.models[0].weights.iter().all(|weight| weight.value.is_finite()), "{value} {cost}");
        }
        let mut model = linear(1, 8);
        let problem = model.learn(0, &decision(1e25), 0, 1.0, 1.0).unwrap_err();
        assert!(problem.message().contains("too large"), "{problem}");
        assert!(model.learn(0, &decision(1.0), 0, 1e25, 1.0).is_err());
    }

    #[test]
    fn models_come_back_from_their_bytes() {
        let mut model = linear(2, 4);
        model.learn(0, &decision(2.0), 0, -1.0, 2.0).unwrap();
        model.learn(1, &decision(1.0), 0, 0.5, 2.0).unwrap();
        let mut back = linear(2, 4);
        assert!(back.take_bytes(&model.to_bytes()));
        for one in [&mut model, &mut back] {
            one.learn(0, &decision(3.0), 0, 0.5, 1.0).unwrap();
        }
        assert_eq!(back.to_bytes(), model.to_bytes());
        assert!(!back.take_bytes(&model.to_bytes()[1..]));
        assert!(!linear(1, 4).take_bytes(&model.to_bytes()));
    }
}
