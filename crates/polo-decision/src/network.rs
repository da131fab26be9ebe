//! Small networks of tanh or rectified layers, with backpropagation and Adam, in f64 on one core: reward models of a few
//! comparisons, costs of an action. The networks of `polo-nn` rest on Burn's tensors and f32, which this crate does without.
//!
//! Numbers of the input that are 0 cost nothing, forwards and backwards, so that wide inputs may be sparse. A gradient is
//! added to a vector of the caller, any number of examples at a time:
//!
//! ```
//! use polo_decision::network::{Activation, Adam, Network};
//! use polo_run::seed::Seeds;
//!
//! let mut network = Network::new(&[2, 16, 1], Activation::Tanh, &Seeds::new(0));
//! let mut adam = Adam::new(0.01, network.parameters().len());
//! for _ in 0..500 {
//!     let mut gradient = vec![0.0; network.parameters().len()];
//!     for (input, target) in [([0.0, 1.0], 1.0), ([1.0, 1.0], -1.0)] {
//!         let pass = network.forward(&input);
//!         // The derivative of (output - target)^2 / 2.
//!         network.add_gradient(&pass, &[pass.output()[0] - target], &mut gradient);
//!     }
//!     adam.step(network.parameters_mut(), &gradient);
//! }
//! assert!((network.forward(&[0.0, 1.0]).output()[0] - 1.0).abs() < 0.01);
//! ```

use polo_run::seed::{Seeds, unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::linear::dot;

/// What follows every hidden layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// tanh x: smooth and bounded.
    #[default]
    Tanh,
    /// max(0, x).
    Relu,
}

impl Activation {
    fn at(self, x: f64) -> f64 {
        match self {
            Self::Tanh => x.tanh(),
            Self::Relu => x.max(0.0),
        }
    }

    /// The derivative, from the value.
    fn slope(self, y: f64) -> f64 {
        match self {
            Self::Tanh => 1.0 - y * y,
            Self::Relu => f64::from(u8::from(y > 0.0)),
        }
    }
}

/// Layers y = activation(x W + b), the last one without its activation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Network {
    /// Numbers in, of every hidden layer, and out.
    sizes: Vec<usize>,
    activation: Activation,
    /// Layer after layer W, `[inputs, outputs]`, and b, `[outputs]`.
    parameters: Vec<f64>,
}

/// What a file holds, before it is known whether its lengths agree.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    sizes: Vec<usize>,
    activation: Activation,
    parameters: Vec<f64>,
}

impl TryFrom<Stored> for Network {
    type Error = String;

    fn try_from(Stored { sizes, activation, parameters }: Stored) -> Result<Self, String> {
        // Sizes of a broken file may be beyond all counting.
        let count = sizes.windows(2).try_fold(0_usize, |sum, pair| {
            sum.checked_add(pair[0].checked_add(1)?.checked_mul(pair[1])?).filter(|_| !pair.contains(&0))
        });
        if sizes.len() < 2 || count != Some(parameters.len()) {
            return Err(format!("a network of sizes {sizes:?} has not {} parameters", parameters.len()));
        }
        Ok(Self { sizes, activation, parameters })
    }
}

/// What a network made of an input: kept for the way back.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The input, and the values of every layer.
    values: Vec<Vec<f64>>,
}

impl Pass {
    /// `[outputs]`.
    pub fn output(&self) -> &[f64] {
        &self.values[self.values.len() - 1]
    }
}

impl Network {
    /// A network of these sizes, from inputs to outputs, at least two and none of them 0. Weights and biases are uniform in
    /// ± 1/√inputs, as PyTorch's linear layers begin.
    pub fn new(sizes: &[usize], activation: Activation, seeds: &Seeds) -> Self {
        let mut rng = seeds.rng("network", 0);
        let mut parameters = Vec::new();
        for pair in sizes.windows(2) {
            let bound = 1.0 / (pair[0] as f64).sqrt();
            parameters.extend((0..(pair[0] + 1) * pair[1]).map(|_| bound * (2.0 * unit(&mut rng) - 1.0)));
        }
        Self { sizes: sizes.to_vec(), activation, parameters }
    }

    /// Numbers in, of every hidden layer, and out.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Layer after layer the weights, `[inputs, outputs]`, and the biases.
    pub fn parameters(&self) -> &[f64] {
        &self.parameters
    }

    /// The same, to be changed.
    pub fn parameters_mut(&mut self) -> &mut [f64] {
        &mut self.parameters
    }

    /// The output of an input, `[inputs]`.
    pub fn forward(&self, input: &[f64]) -> Pass {
        debug_assert_eq!(input.len(), self.sizes[0]);
        let mut values = vec![input.to_vec()];
        let mut from = 0;
        for (at, pair) in self.sizes.windows(2).enumerate() {
            let (weights, biases) = self.layer(from, pair);
            let mut y = biases.to_vec();
            for (x, row) in values[at].iter().zip(weights.chunks_exact(pair[1])) {
                if *x != 0.0 {
                    y.iter_mut().zip(row).for_each(|(y, w)| *y += x * w);
                }
            }
            if at + 2 < self.sizes.len() {
                y.iter_mut().for_each(|y| *y = self.activation.at(*y));
            }
            values.push(y);
            from += (pair[0] + 1) * pair[1];
        }
        Pass { values }
    }

    fn layer(&self, from: usize, pair: &[usize]) -> (&[f64], &[f64]) {
        self.parameters[from..from + (pair[0] + 1) * pair[1]].split_at(pair[0] * pair[1])
    }

    /// Adds to `gradient`, as long as the parameters, the derivative of a loss whose derivative by the output is `slope`.
    pub fn add_gradient(&self, pass: &Pass, slope: &[f64], gradient: &mut [f64]) {
        let mut slope = slope.to_vec();
        let mut from = self.parameters.len();
        for (at, pair) in self.sizes.windows(2).enumerate().rev() {
            from -= (pair[0] + 1) * pair[1];
            let (weights, _) = self.layer(from, pair);
            let (by_weights, by_biases) =
                gradient[from..from + (pair[0] + 1) * pair[1]].split_at_mut(pair[0] * pair[1]);
            let input = &pass.values[at];
            for (x, row) in input.iter().zip(by_weights.chunks_exact_mut(pair[1])) {
                if *x != 0.0 {
                    row.iter_mut().zip(&slope).for_each(|(g, s)| *g += x * s);
                }
            }
            by_biases.iter_mut().zip(&slope).for_each(|(g, s)| *g += s);
            if at > 0 {
                let back = |(x, row): (&f64, &[f64])| self.activation.slope(*x) * dot(row, &slope);
                slope = input.iter().zip(weights.chunks_exact(pair[1])).map(back).collect();
            }
        }
    }
}

/// Adam (Kingma, Ba 2015), with the weight decay of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// Step size.
    pub learning_rate: f64,
    /// Share of every parameter that is taken off in a step, times the step size.
    pub weight_decay: f64,
    steps: i32,
    /// Running means of the gradient and of its squares.
    moments: [Vec<f64>; 2],
}

const BETAS: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;

impl Adam {
    /// For as many parameters, without weight decay.
    pub fn new(learning_rate: f64, parameters: usize) -> Self {
        Self { learning_rate, weight_decay: 0.0, steps: 0, moments: [(); 2].map(|()| vec![0.0; parameters]) }
    }

    /// A step against the gradient. Both as long as [`Adam::new`] was told.
    pub fn step(&mut self, parameters: &mut [f64], gradient: &[f64]) {
        // The corrections are 1 to rounding long before the count ends.
        self.steps = self.steps.saturating_add(1);
        let [first, second] = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        let [means, squares] = &mut self.moments;
        let kept = 1.0 - self.learning_rate * self.weight_decay;
        for (((parameter, g), mean), square) in parameters.iter_mut().zip(gradient).zip(means).zip(squares) {
            *mean += (1.0 - BETAS[0]) * (g - *mean);
            *square += (1.0 - BETAS[1]) * (g * g - *square);
            let step = *mean / first / ((*square / second).sqrt() + EPSILON);
            *parameter = kept * *parameter - self.learning_rate * step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::normals;

    fn network(sizes: &[usize], activation: Activation) -> Network {
        Network::new(sizes, activation, &Seeds::new(3))
    }

    #[test]
    fn a_network_is_what_its_layers_say() {
        let text =
            r#"{"sizes": [2, 2, 1], "activation": "relu", "parameters": [1, 2, 3, -4, 0.5, 1, 2, 3, -1]}"#;
        let network: Network = serde_json::from_str(text).unwrap();
        // Hidden: (1 + 3 * 2 + 0.5, 2 - 4 * 2 + 1), the second of which is cut.
        assert_eq!(network.forward(&[1.0, 2.0]).output(), [2.0 * 7.5 - 1.0]);
        let smooth = Network { activation: Activation::Tanh, ..network };
        let expected = 2.0 * 0.5_f64.tanh() + 3.0 * 1_f64.tanh() - 1.0;
        assert!((smooth.forward(&[0.0, 0.0]).output()[0] - expected).abs() < 1e-15);
    }

    /// Every parameter against central differences, for a loss over two examples, one of them sparse.
    #[test]
    fn gradients_are_those_of_finite_differences() {
        #[track_caller]
        fn check(sizes: &[usize], activation: Activation) {
            let mut network = network(sizes, activation);
            let outputs = sizes[sizes.len() - 1];
            let mut inputs = [0, 1].map(|at| normals(&Seeds::new(4), sizes[0], "input", at));
            inputs[1][0] = 0.0;
            let targets = [0, 1].map(|at| normals(&Seeds::new(4), outputs, "target", at));
            // Σ sin(output) target: its derivative differs at every output.
            let loss = |network: &Network| -> f64 {
                let of = |(input, target): (&Vec<f64>, &Vec<f64>)| -> f64 {
                    network.forward(input).output().iter().zip(target).map(|(y, t)| y.sin() * t).sum()
                };
                inputs.iter().zip(&targets).map(of).sum()
            };
            let mut gradient = vec![0.0; network.parameters().len()];
            for (input, target) in inputs.iter().zip(&targets) {
                let pass = network.forward(input);
                let slope: Vec<f64> = pass.output().iter().zip(target).map(|(y, t)| y.cos() * t).collect();
                network.add_gradient(&pass, &slope, &mut gradient);
            }
            for (at, expected) in gradient.iter().enumerate() {
                let mut moved = |by: f64| {
                    network.parameters_mut()[at] += by;
                    let found = loss(&network);
                    network.parameters_mut()[at] -= by;
                    found
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - expected).abs() < 1e-8, "{sizes:?} {at}: {slope} {expected}");
            }
            assert!(gradient.iter().filter(|g| **g != 0.0).count() > gradient.len() / 2);
        }
        for activation in [Activation::Tanh, Activation::Relu] {
            check(&[3, 1], activation);
            check(&[4, 6, 2], activation);
            check(&[3, 5, 4, 2], activation);
        }
    }

    /// Two steps by hand, from m = 0.1 g, v = 0.001 g² on: the first is the learning rate in the direction of the sign.
    #[test]
    fn adam_steps_as_it_is_written() {
        let mut adam = Adam { weight_decay: 0.5, ..Adam::new(0.1, 2) };
        let mut at = [1.0, -1.0];
        adam.step(&mut at, &[2.0, -0.5]);
        assert!((at[0] - 0.85).abs() < 1e-7 && (at[1] + 0.85).abs() < 1e-6, "{at:?}");
        adam.weight_decay = 0.0;
        adam.step(&mut at, &[0.0, 0.5]);
        let mean = 0.9 * 0.2 / (1.0 - 0.81);
        let square: f64 = 0.999 * 0.004 / (1.0 - 0.999 * 0.999);
        assert!((at[0] - (0.85 - 0.1 * mean / square.sqrt())).abs() < 1e-7, "{at:?}");
    }

    #[test]
    fn what_no_line_separates_is_learnt() {
        let data = [([0.0, 0.0], 0.0), ([0.0, 1.0], 1.0), ([1.0, 0.0], 1.0), ([1.0, 1.0], 0.0)];
        for activation in [Activation::Tanh, Activation::Relu] {
            let mut network = network(&[2, 16, 16, 1], activation);
            let mut adam = Adam::new(0.01, network.parameters().len());
            for _ in 0..1000 {
                let mut gradient = vec![0.0; network.parameters().len()];
                for (input, target) in data {
                    let pass = network.forward(&input);
                    network.add_gradient(&pass, &[pass.output()[0] - target], &mut gradient);
                }
                adam.step(network.parameters_mut(), &gradient);
            }
            for (input, target) in data {
                let found = network.forward(&input).output()[0];
                assert!((found - target).abs() < 0.02, "{activation:?} {input:?}: {found}");
            }
        }
    }

    #[test]
    fn stored_networks_go_on_to_the_last_bit_and_broken_ones_are_refused() {
        let mut whole = network(&[3, 5, 1], Activation::Tanh);
        let mut adam = Adam::new(0.03, whole.parameters().len());
        let train = |network: &mut Network, adam: &mut Adam, step: u64| {
            let input = normals(&Seeds::new(5), 3, "input", step);
            let (pass, mut gradient) = (network.forward(&input), vec![0.0; network.parameters().len()]);
            network.add_gradient(&pass, &[pass.output()[0] - 1.0], &mut gradient);
            adam.step(network.parameters_mut(), &gradient);
        };
        (0..7).for_each(|step| train(&mut whole, &mut adam, step));
        let text = serde_json::to_string(&(&whole, &adam)).unwrap();
        let (mut second, mut its) = serde_json::from_str::<(Network, Adam)>(&text).unwrap();
        for step in 7..20 {
            train(&mut whole, &mut adam, step);
            train(&mut second, &mut its, step);
        }
        assert_eq!((&whole, &adam), (&second, &its));
        for sizes in ["[3]", "[]", "[2,1]", "[0,3]", "[3,0,3]", "[18446744073709551615,2]"] {
            let text = format!(r#"{{"sizes": {sizes}, "activation": "tanh", "parameters": [1, 2]}}"#);
            assert!(serde_json::from_str::<Network>(&text).is_err(), "{sizes}");
        }
    }
}
