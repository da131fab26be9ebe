//! What on-policy methods share: a policy of choices or numbers, what it says of a batch, how a loss on that is pushed
//! back, and a value network that is fitted to returns.

use polo_nn::{
    Gradients, ParameterId,
    distributions::{Categorical, Gaussian},
    mlp::{Activation, Init, Shape, Tape},
};
use polo_run::seed::Seeds;
use polo_sim::{Action, Space};

use crate::{
    methods,
    network::{Adam, Network},
    normalise::Running,
    on_policy::{Acted, Rollout},
    policy::{Head, Policy, decide},
};

fn shape(inputs: usize, hidden: &[usize], outputs: usize, gain: f64) -> Shape {
    Shape {
        inputs,
        hidden: hidden.to_vec(),
        outputs,
        members: 1,
        activation: Activation::Tanh,
        layer_norm: false,
        init: (Init::Orthogonal(2f64.sqrt()), Init::Orthogonal(gain)),
    }
}

/// A fresh value network for observations of so many numbers.
pub fn critic(observation: usize, hidden: &[usize], seeds: &Seeds) -> Network {
    Network::new(shape(observation, hidden, 1, 1.0), "value", &seeds.child("value"))
}

/// A policy: a softmax over choices, or a normal distribution of numbers whose width does not depend on what is seen.
#[derive(Clone, Debug)]
pub struct Actor {
    /// What it takes.
    pub actions: Space,
    /// Says logits of choices, or means of numbers.
    pub network: Network,
    /// Logarithms of the standard deviations, where actions are numbers.
    pub log_std: Option<ParameterId>,
}

/// What a policy says of a batch.
#[derive(Clone, Debug)]
pub enum Said {
    /// Which choice, how likely.
    Choices(Categorical),
    /// Where numbers lie.
    Numbers(Gaussian),
}

/// How a loss changes with what a policy says.
#[derive(Clone, Debug, PartialEq)]
pub struct Slopes {
    /// In the outputs of its network, `[rows, outputs]`.
    pub outputs: Vec<f32>,
    /// In the logarithms of its standard deviations, summed over rows; empty for choices.
    pub log_stds: Vec<f32>,
}

impl Slopes {
    /// Slopes of a sum of losses.
    pub fn add(&mut self, other: &Slopes) {
        let pairs = [(&mut self.outputs, &other.outputs), (&mut self.log_stds, &other.log_stds)];
        for (own, other) in pairs {
            own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
        }
    }

    /// Slopes of a loss times `factor`.
    pub fn scale(&mut self, factor: f32) {
        self.outputs.iter_mut().chain(&mut self.log_stds).for_each(|slope| *slope *= factor);
    }

    fn of_numbers((means, log_stds): (Vec<f32>, Vec<f32>), width: usize) -> Self {
        let mut sums = vec![0.0; width];
        for row in log_stds.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        Self { outputs: means, log_stds: sums }
    }
}

impl Said {
    /// Log-prob of a row's action; `actions` as stored in a [`Rollout`], `width` numbers each.
    pub fn logp(&self, row: usize, actions: &[f32], width: usize) -> f32 {
        match self {
            Said::Choices(own) => own.row(row)[actions[row] as usize],
            Said::Numbers(own) => own.logp(row, &actions[row * width..][..width]),
        }
    }

    /// Entropy of a row, nats.
    pub fn entropy(&self, row: usize) -> f32 {
        match self {
            Said::Choices(own) => own.entropy(row),
            Said::Numbers(own) => own.entropy(row),
        }
    }

    /// KL(self ‖ other) of a row, nats. Of policies of one kind; between others it is not defined, NaN.
    pub fn divergence(&self, other: &Said, row: usize) -> f32 {
        match (self, other) {
            (Said::Choices(own), Said::Choices(other)) => own.divergence(other, row),
            (Said::Numbers(own), Said::Numbers(other)) => own.divergence(other, row),
            _ => f32::NAN,
        }
    }

    /// Slopes of a loss with these slopes in the log-prob of each row's action and in the entropy of each row.
    pub fn push_back(&self, actions: &[f32], width: usize, dlogps: &[f32], dentropies: &[f32]) -> Slopes {
        match self {
            Said::Choices(own) => {
                let taken: Vec<usize> = actions.iter().map(|&action| action as usize).collect();
                Slopes { outputs: own.push_back(&taken, dlogps, dentropies), log_stds: Vec::new() }
            }
            Said::Numbers(own) => Slopes::of_numbers(own.push_back(actions, dlogps, dentropies), width),
        }
    }

    /// Slopes of a loss with this slope in KL(self ‖ other) of each row or, if `forward`, in KL(other ‖ self), of
    /// policies of one kind.
    pub fn push_back_divergence(&self, other: &Said, ddivergences: &[f32], forward: bool) -> Slopes {
        match (self, other) {
            (Said::Choices(own), Said::Choices(other)) => {
                let outputs = match forward {
                    true => own.push_back_divergence_from(other, ddivergences),
                    false => own.push_back_divergence(other, ddivergences),
                };
                Slopes { outputs, log_stds: Vec::new() }
            }
            (Said::Numbers(own), Said::Numbers(other)) => {
                let width = own.log_std(0).len();
                let found = match forward {
                    true => own.push_back_divergence_from(other, ddivergences),
                    false => own.push_back_divergence(other, ddivergences),
                };
                Slopes::of_numbers(found, width)
            }
            _ => Slopes { outputs: Vec::new(), log_stds: Vec::new() },
        }
    }

    /// Fisher information of all rows together times a change of the outputs, `[rows, outputs]`, and of the logarithms of
    /// the standard deviations: the Hessian of the sum of KL divergences from what is said here.
    pub fn fisher(&self, doutputs: &[f32], dlog_stds: &[f32]) -> Slopes {
        match self {
            Said::Choices(own) => Slopes { outputs: own.fisher(doutputs), log_stds: Vec::new() },
            Said::Numbers(own) => {
                let rows = (doutputs.len() / dlog_stds.len().max(1)) as f32;
                let (outputs, log_stds) = own.fisher(doutputs, dlog_stds);
                Slopes { outputs, log_stds: log_stds.into_iter().map(|x| x * rows).collect() }
            }
        }
    }
}

impl Actor {
    /// A fresh policy for observations of so many numbers.
    pub fn new(observation: usize, actions: &Space, hidden: &[usize], seeds: &Seeds) -> Self {
        let shape = shape(observation, hidden, actions.size(), 0.01);
        let mut network = Network::new(shape, "policy", &seeds.child("policy"));
        let log_std = match actions {
            Space::Box { low, .. } => Some(network.add_row("log_std", vec![0.0; low.len()])),
            Space::Discrete(_) => None,
        };
        Self { actions: actions.clone(), network, log_std }
    }

    /// Numbers per stored action.
    pub fn width(&self) -> usize {
        if self.log_std.is_some() { self.actions.size() } else { 1 }
    }

    /// What outputs of the network mean.
    pub fn say(&self, outputs: Vec<f32>) -> Said {
        match self.log_std {
            None => Said::Choices(Categorical::new(outputs, self.actions.size())),
            Some(id) => Said::Numbers(Gaussian::new(outputs, self.network.row(id), self.actions.size())),
        }
    }

    /// Adds the gradient of a loss with these slopes.
    pub fn push_back(&self, tape: &Tape, slopes: Slopes, gradients: &mut Gradients) {
        self.network.push_back(tape, &slopes.outputs, gradients);
        if let Some(id) = self.log_std {
            self.network.push_row(id, slopes.log_stds, gradients);
        }
    }

    /// Draws an action on each observation, whose values are `values`; `step` counts calls.
    pub fn act(&self, observations: &[f32], values: Vec<f32>, step: u64, seeds: &Seeds) -> Acted {
        let said = self.say(self.network.evaluate(observations));
        let width = self.width();
        let mut acted = Acted { values, ..Acted::default() };
        let drawn = if self.log_std.is_some() { acted.values.len() * width } else { 0 };
        let noise = seeds.normal(drawn, "policy/noise", step);
        let mut rng = seeds.rng("policy/choice", step);
        for row in 0..acted.values.len() {
            match &said {
                Said::Choices(own) => {
                    let choice = own.sample(row, &mut rng);
                    acted.numbers.push(choice as f32);
                    acted.actions.push(Action::Discrete(choice));
                }
                Said::Numbers(own) => {
                    let numbers = own.at(row, &noise[row * width..][..width]);
                    acted.actions.push(decide(Head::Clipped, &self.actions, &numbers));
                    acted.numbers.extend(numbers);
                }
            }
            acted.logps.push(said.logp(row, &acted.numbers, width));
        }
        acted
    }

    /// The policy without chance.
    pub fn policy(&self, environment: &str, normaliser: Option<Running>) -> Policy {
        let head = if self.log_std.is_some() { Head::Clipped } else { Head::Greatest };
        methods::policy_of(environment, &self.actions, head, &self.network, normaliser)
    }
}

/// Rows of a matrix of rows of `width` numbers.
pub fn pick(from: &[f32], rows: &[usize], width: usize) -> Vec<f32> {
    rows.iter().flat_map(|&row| &from[row * width..][..width]).copied().collect()
}

/// The factor that brings a gradient down to the norm `most`; 0 leaves all as they are.
pub fn clipping(norm: f64, most: f64) -> f64 {
    if most > 0.0 { (most / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// Half the mean of (V - R)^2 or, with a clip e, of max((V - R)^2, (V_old + clip(V - V_old, -e, e) - R)^2), and the
/// slopes of `weight` times it in V.
pub fn value_loss(
    values: &[f32],
    old_values: &[f32],
    returns: &[f32],
    clip: Option<f32>,
    weight: f32,
) -> (f32, Vec<f32>) {
    let n = values.len() as f32;
    let (mut loss, mut slopes) = (0.0, vec![0.0; values.len()]);
    for row in 0..values.len() {
        let error = values[row] - returns[row];
        let change = values[row] - old_values[row];
        let cut = clip.map(|clip| (clip, old_values[row] + change.clamp(-clip, clip) - returns[row]));
        match cut {
            Some((clip, cut)) if cut * cut > error * error => {
                loss += 0.5 * cut * cut / n;
                slopes[row] = if change.abs() < clip { weight * cut / n } else { 0.0 };
            }
            _ => {
                loss += 0.5 * error * error / n;
                slopes[row] = weight * error / n;
            }
        }
    }
    (loss, slopes)
}

/// How a value network is fitted apart from the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueFit {
    /// Passes over a rollout.
    pub passes: usize,
    /// Steps of a rollout that a gradient is taken over.
    pub minibatch: usize,
    /// Step size.
    pub adam: Adam,
    /// How far a value may move from what it was; none: as far as it will.
    pub clip: Option<f32>,
    /// Largest norm of a gradient; 0: any.
    pub max_grad_norm: f64,
}

impl ValueFit {
    /// Fits `critic` to the returns of a rollout, number `iteration`; says the mean loss of the last pass.
    pub fn fit(&self, critic: &mut Network, rollout: &Rollout, iteration: u64, seeds: &Seeds) -> f32 {
        let rows = rollout.values.len();
        let returns: Vec<f32> = rollout.advantages.iter().zip(&rollout.values).map(|(a, v)| a + v).collect();
        let observation = critic.mlp.shape().inputs;
        let mut mean = 0.0;
        for pass in 0..self.passes as u64 {
            mean = 0.0;
            let order = seeds.shuffled(rows, "value/minibatches", iteration * self.passes as u64 + pass);
            for part in order.chunks(self.minibatch.max(1)) {
                let tape = critic.forward(&pick(&rollout.observations, part, observation));
                let (old, aims) = (pick(&rollout.values, part, 1), pick(&returns, part, 1));
                let (loss, slopes) = value_loss(&tape.outputs(), &old, &aims, self.clip, 1.0);
                let mut gradients = critic.gradients();
                critic.push_back(&tape, &slopes, &mut gradients);
                let scale = clipping(critic.norm(&gradients), self.max_grad_norm);
                critic.step(gradients, self.adam, scale);
                mean += loss * part.len() as f32 / rows as f32;
            }
        }
        mean
    }
}

/// Mean 0 and deviation 1, the deviation that of a sample (divided by n - 1) or of the population, with `epsilon` added.
/// Numbers that are all equal become 0.
pub fn standardise(numbers: &mut [f32], of_sample: bool, epsilon: f32) {
    let n = numbers.len() as f32;
    let mean = numbers.iter().sum::<f32>() / n;
    let divisor = if of_sample { n - 1.0 } else { n };
    let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / divisor;
    let spread = variance.sqrt() + epsilon;
    let spread = if spread > 0.0 { spread } else { 1.0 };
    numbers.iter_mut().for_each(|x| *x = (*x - mean) / spread);
}

/// 1 - Var(R - V) / Var(R): how much of the returns the values foresee; NaN where all returns are equal.
pub fn explained_variance(rollout: &Rollout) -> f64 {
    let n = rollout.advantages.len() as f64;
    let variance = |numbers: &mut dyn Iterator<Item = f64>| {
        let (mut sum, mut squares) = (0.0, 0.0);
        numbers.for_each(|x| (sum, squares) = (sum + x, squares + x * x));
        squares / n - (sum / n).powi(2)
    };
    let errors = variance(&mut rollout.advantages.iter().map(|&a| f64::from(a)));
    let returns = rollout.advantages.iter().zip(&rollout.values).map(|(a, v)| f64::from(a + v));
    1.0 - errors / variance(&mut returns.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_are_standardised() {
        for (of_sample, deviation) in [(true, 7f32.sqrt()), (false, (14f32 / 3.0).sqrt())] {
            let mut numbers = [1.0, 2.0, 6.0];
            standardise(&mut numbers, of_sample, 0.0);
            for (found, expected) in numbers.iter().zip([-2.0 / deviation, -1.0 / deviation, 3.0 / deviation])
            {
                assert!((found - expected).abs() < 1e-6);
            }
        }
        let mut equal = [3.0; 4];
        standardise(&mut equal, false, 0.0);
        assert_eq!(equal, [0.0; 4]);
    }

    #[test]
    fn a_value_that_moved_beyond_its_clip_is_not_pulled_further() {
        // V moved from 0 to 1; the return is 2: the clipped error is the greater one, and constant.
        assert_eq!(value_loss(&[1.0], &[0.0], &[2.0], Some(0.2), 2.0), (0.5 * 1.8 * 1.8, vec![0.0]));
        assert_eq!(value_loss(&[1.0], &[0.0], &[2.0], None, 2.0), (0.5, vec![-2.0]));
        // Moved away from its aim it is pulled back.
        assert_eq!(value_loss(&[1.0], &[0.0], &[-1.0], Some(0.2), 1.0), (2.0, vec![2.0]));
    }

    #[test]
    fn values_are_fitted_to_returns() {
        let seeds = Seeds::new(3);
        let mut critic = critic(2, &[16], &seeds);
        let observations = seeds.normal(64 * 2, "observations", 0);
        let values = critic.evaluate(&observations);
        let advantages: Vec<f32> =
            observations.chunks_exact(2).zip(&values).map(|(o, v)| o[0] - 0.5 * o[1] - v).collect();
        let rollout = Rollout { observations, values, advantages, ..Rollout::default() };
        let adam = Adam { learning_rate: 1e-2, epsilon: 1e-5 };
        let fit = ValueFit { passes: 60, minibatch: 16, adam, clip: None, max_grad_norm: 0.5 };
        let loss = fit.fit(&mut critic, &rollout, 0, &seeds);
        assert!(loss < 5e-3, "{loss}");
    }
}
