//! A small network as the oracle of a stream: one Adam step for each outcome, over hashed features.
//!
//! ```text
//! x_j = Σ of features whose hash is j modulo 2^bits,   c^ = network(x),   step against importance (c^ - c) d c^
//! ```

use polo_run::{Result, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    features::{Decision, Feature, Interactions},
    network::{Activation, Adam, Network},
    oracle::{Oracle, too_large},
};

/// `[oracle.network]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSettings {
    /// Features are hashed to 2 to this power of inputs.
    #[schemars(range(min = 1, max = 16))]
    pub bits: u32,
    /// Units of each hidden layer. Products of features are not needed: leave `oracle.interactions` empty.
    pub hidden: Vec<usize>,
    /// What a hidden unit makes of its sum.
    pub activation: Activation,
    /// Step size of Adam.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub learning_rate: f64,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self { bits: 8, hidden: vec![32], activation: Activation::Tanh, learning_rate: 0.003 }
    }
}

/// The models.
#[derive(Clone, Debug)]
pub struct Perceptron {
    bits: u32,
    interactions: Interactions,
    models: Vec<(Network, Adam)>,
}

impl Perceptron {
    /// `models` models with weights of their own.
    pub fn new(models: usize, settings: &NetworkSettings, interactions: Interactions, seeds: &Seeds) -> Self {
        let NetworkSettings { bits, hidden, activation, learning_rate } = settings;
        let sizes: Vec<usize> = [1 << bits].into_iter().chain(hidden.iter().copied()).chain([1]).collect();
        let model = |number: usize| {
            let network = Network::new(&sizes, *activation, &seeds.child(&format!("network {number}")));
            let adam = Adam::new(*learning_rate, network.parameters().len());
            (network, adam)
        };
        Self { bits: *bits, interactions, models: (0..models).map(model).collect() }
    }

    fn input(&self, decision: &Decision, action: usize) -> Vec<f64> {
        let mut input = vec![0.0; 1 << self.bits];
        let mask = (1u32 << self.bits) - 1;
        self.interactions.each(&decision.shared, &decision.actions[action], |hash, value| {
            input[(hash & mask) as usize] += f64::from(value);
        });
        input
    }
}

impl Oracle for Perceptron {
    fn predict(&self, model: usize, decision: &Decision, action: usize) -> f32 {
        let found = self.models[model].0.forward(&self.input(decision, action)).output()[0] as f32;
        if found.is_finite() { found } else { 0.0 }
    }

    fn learn(
        &mut self,
        model: usize,
        decision: &Decision,
        action: usize,
        cost: f32,
        importance: f32,
    ) -> Result<()> {
        let input = self.input(decision, action);
        let (network, adam) = &mut self.models[model];
        let pass = network.forward(&input);
        let mut gradient = vec![0.0; network.parameters().len()];
        let slope = f64::from(importance) * (pass.output()[0] - f64::from(cost));
        if !slope.is_finite() || input.iter().any(|x| !x.is_finite()) {
            return Err(too_large());
        }
        if slope != 0.0 {
            network.add_gradient(&pass, &[slope], &mut gradient);
            adam.step(network.parameters_mut(), &gradient);
        }
        Ok(())
    }

    fn features(&self, decision: &Decision, action: usize) -> Vec<Feature> {
        self.interactions.features(decision, action)
    }

    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.models).unwrap_or_default()
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        let Ok(models) = serde_json::from_slice::<Vec<(Network, Adam)>>(bytes) else { return false };
        let fits = models.len() == self.models.len()
            && models.iter().zip(&self.models).all(|((new, _), (old, _))| {
                new.sizes() == old.sizes() && new.parameters().len() == old.parameters().len()
            });
        if fits {
            self.models = models;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::decision;

    #[test]
    fn it_learns_what_is_not_linear_and_comes_back() {
        let settings = NetworkSettings { bits: 4, learning_rate: 0.01, ..NetworkSettings::default() };
        let new = || Perceptron::new(2, &settings, Interactions::default(), &Seeds::new(1));
        let mut model = new();
        let value = |at: usize| (at % 41) as f32 / 20.0 - 1.0;
        for at in 0..8000 {
            model.learn(1, &decision(value(at * 7)), 0, value(at * 7).abs(), 1.0).unwrap();
        }
        for x in [-0.9, 0.0, 0.9] {
            assert!((model.predict(1, &decision(x), 0) - x.abs()).abs() < 0.15, "{x}");
        }
        assert_ne!(model.predict(0, &decision(0.5), 0), new().predict(1, &decision(0.5), 0));
        let mut back = new();
        assert!(back.take_bytes(&model.to_bytes()));
        for one in [&mut model, &mut back] {
            one.learn(1, &decision(0.3), 0, 1.0, 2.0).unwrap();
        }
        assert_eq!(back.to_bytes(), model.to_bytes());
        assert!(!back.take_bytes(&model.to_bytes()[1..]));
        let problem = model.learn(1, &decision(f32::INFINITY), 0, 1.0, 1.0).unwrap_err();
        assert!(problem.message().contains("too large"), "{problem}");
    }
}
