//! What IQL and AWAC share: a policy that is a normal distribution whose width does not depend on what is seen, fitted
//! to the actions of data, the better of which weigh more.
//!
//! ```text
//! w = min(exp(beta A), 100),   L = -mean w log N(z; m(s), sigma)   summed over dimensions
//! ```
//!
//! z = (a - centre) / scale: actions in half widths of their range, so that widths mean the same whatever the range.
//! Nothing is squashed after the draw; what falls out of the bounds is cut to them.

use polo_nn::{
    Gradients, ParameterId,
    distributions::{Bounds, Gaussian},
    files::Tensors,
};
use polo_run::{Result, seed::Seeds};
use polo_sim::{Space, replay::Batch};

use crate::{
    actor_critic::Said,
    deterministic::{mean, shape},
    methods::{numbers_in_and_out, policy_of, td3_bc::imitation},
    network::{Adam, Network, beside},
    policy::{Head, Policy},
};

/// Least and most of the logarithm of the standard deviation.
const LOG_STD: (f32, f32) = (-20.0, 2.0);
/// The most that an action weighs.
const MOST: f32 = 100.0;

/// min(exp(beta A), 100).
pub fn weights(advantages: &[f32], beta: f64) -> Vec<f32> {
    advantages.iter().map(|advantage| (beta as f32 * advantage).exp().min(MOST)).collect()
}

/// The policy.
#[derive(Clone, Debug)]
pub struct FreeGaussian {
    bounds: Bounds,
    actions: Space,
    /// Says u.
    network: Network,
    /// Logarithms of the standard deviations, in half widths.
    log_std: ParameterId,
    /// Whether m = tanh(u); else m = u.
    squashed: bool,
}

impl FreeGaussian {
    /// A fresh policy with standard deviations of one half width, whose means are squashed into the bounds, or not.
    ///
    /// # Errors
    /// Spaces that are not of bounded numbers.
    pub fn new(
        observations: &Space,
        actions: &Space,
        hidden: &[usize],
        squashed: bool,
        seeds: &Seeds,
    ) -> Result<Self> {
        let (inputs, low, high) = numbers_in_and_out(observations, actions)?;
        let width = low.len();
        let mut network = Network::new(shape(hidden, inputs, width, 1), "policy", &seeds.child("policy"));
        let log_std = network.add_row("log_std", vec![0.0; width]);
        Ok(Self { bounds: Bounds::new(low, high), actions: actions.clone(), network, log_std, squashed })
    }

    /// Numbers of an action.
    pub fn width(&self) -> usize {
        self.bounds.scale.len()
    }

    /// Numbers of an observation.
    pub fn observation(&self) -> usize {
        self.network.mlp.shape().inputs
    }

    /// Observations and actions side by side, as critics take them.
    pub fn pairs(&self, observations: &[f32], actions: &[f32]) -> Vec<f32> {
        beside(observations, self.observation(), actions, self.width())
    }

    fn means(&self, outputs: &[f32]) -> Vec<f32> {
        outputs.iter().map(|u| if self.squashed { u.tanh() } else { *u }).collect()
    }

    /// dL/du from dL/dm.
    fn through_means(&self, means: &[f32], mut slopes: Vec<f32>) -> Vec<f32> {
        if self.squashed {
            slopes.iter_mut().zip(means).for_each(|(slope, mean)| *slope *= 1.0 - mean * mean);
        }
        slopes
    }

    fn in_half_widths(&self, actions: &[f32]) -> Vec<f32> {
        let (d, Bounds { centre, scale }) = (self.width(), &self.bounds);
        actions.iter().enumerate().map(|(place, a)| (a - centre[place % d]) / scale[place % d]).collect()
    }

    /// Mean standard deviation, in half widths.
    pub fn deviation(&self) -> f32 {
        mean(&self.log_stds().iter().map(|log_std| log_std.exp()).collect::<Vec<_>>())
    }

    fn log_stds(&self) -> Vec<f32> {
        self.network.row(self.log_std).iter().map(|raw| raw.clamp(LOG_STD.0, LOG_STD.1)).collect()
    }

    /// Actions that lie `noise` standard deviations from the mean, cut to the bounds; `noise` is `[rows, d]`.
    pub fn draw(&self, observations: &[f32], noise: &[f32]) -> Vec<f32> {
        let log_stds = self.log_stds();
        self.near(observations, |place| log_stds[place % log_stds.len()].exp() * noise[place])
    }

    /// Actions so many half widths from the mean, cut to the bounds.
    pub fn near(&self, observations: &[f32], shift: impl Fn(usize) -> f32) -> Vec<f32> {
        let (d, Bounds { centre, scale }) = (self.width(), &self.bounds);
        let means = self.means(&self.network.evaluate(observations));
        let action = |(place, mean): (usize, &f32)| {
            centre[place % d] + scale[place % d] * (mean + shift(place)).clamp(-1.0, 1.0)
        };
        means.iter().enumerate().map(action).collect()
    }

    /// -mean w log N(z), and its gradient.
    pub fn likelihood(&self, batch: &Batch, weights: &[f32]) -> (f32, Gradients) {
        let (d, n) = (self.width(), weights.len() as f32);
        let tape = self.network.forward(&batch.observations);
        let means = self.means(&tape.outputs());
        let z = self.in_half_widths(&batch.actions);
        let said = Said::Numbers(Gaussian::new(means.clone(), self.log_stds(), d));
        let logp = |(row, weight): (usize, &f32)| weight * said.logp(row, &z, d);
        let loss = -weights.iter().enumerate().map(logp).sum::<f32>() / n;
        let dlogps: Vec<f32> = weights.iter().map(|weight| -weight / n).collect();
        let mut slopes = said.push_back(&z, d, &dlogps, &vec![0.0; weights.len()]);
        for (slope, raw) in slopes.log_stds.iter_mut().zip(self.network.row(self.log_std)) {
            if !(LOG_STD.0..=LOG_STD.1).contains(&raw) {
                *slope = 0.0;
            }
        }
        let mut gradients = self.network.gradients();
        self.network.push_back(&tape, &self.through_means(&means, slopes.outputs), &mut gradients);
        self.network.push_row(self.log_std, slopes.log_stds, &mut gradients);
        (loss, gradients)
    }

    /// mean w |m - z|², and its gradient, which leaves widths alone.
    pub fn distance(&self, batch: &Batch, weights: &[f32]) -> (f32, Gradients) {
        let d = self.width();
        let tape = self.network.forward(&batch.observations);
        let means = self.means(&tape.outputs());
        // A sum over dimensions, where imitation has their mean.
        let weights: Vec<f32> = weights.iter().map(|weight| weight * d as f32).collect();
        let (loss, slopes) = imitation(&means, &self.in_half_widths(&batch.actions), &vec![1.0; d], &weights);
        let mut gradients = self.network.gradients();
        self.network.push_back(&tape, &self.through_means(&means, slopes), &mut gradients);
        (loss, gradients)
    }

    /// One step of Adam.
    pub fn step(&mut self, gradients: Gradients, adam: Adam) {
        self.network.step(gradients, adam, 1.0);
    }

    /// The policy's mean.
    pub fn policy(&self, environment: &str) -> Policy {
        let head = if self.squashed { Head::Squashed } else { Head::Scaled };
        policy_of(environment, &self.actions, head, &self.network, None)
    }

    /// Everything that a checkpoint must hold.
    pub fn save(&self, tensors: &mut Tensors) {
        self.network.save("actor", tensors);
    }

    /// Takes up what [`FreeGaussian::save`] wrote.
    ///
    /// # Errors
    /// Tensors of another network.
    pub fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.network.load("actor", tensors)
    }
}

/// A bandit of two states s, -1 and 1, that pays 4 - 4 (a - 1 - s)² and was logged by one who acted uniformly between
/// -1 and 3: cloning finds 1 in both, and the best is 0 and 2.
#[cfg(test)]
pub(crate) fn logged_bandit(rows: usize) -> (Space, Space, Batch) {
    let uniform = |row: usize| -1.0 + 4.0 * (0.5 + row as f32 * 0.618_034).fract();
    let observations: Vec<f32> = (0..rows).map(|row| if row % 2 == 0 { -1.0 } else { 1.0 }).collect();
    let actions: Vec<f32> = (0..rows).map(uniform).collect();
    let pay = |(s, a): (&f32, &f32)| 4.0 - 4.0 * (a - 1.0 - s).powi(2);
    let batch = Batch {
        rewards: observations.iter().zip(&actions).map(pay).collect(),
        next_observations: vec![0.0; rows],
        terminated: vec![1.0; rows],
        observations,
        actions,
        returns_to_go: Vec::new(),
    };
    (Space::symmetric(&[1.0]), Space::Box { low: vec![-1.0], high: vec![3.0] }, batch)
}

/// Lets a method learn from [`logged_bandit`] and checks that it finds the best actions.
#[cfg(test)]
pub(crate) fn check_bandit(method: &impl crate::methods::Control, updates: u64) {
    use crate::methods::Learner;

    let (observations, actions, batch) = logged_bandit(128);
    let Learner::OffPolicy(mut learner) = method.learner(&observations, &actions, &Seeds::new(4)).unwrap()
    else {
        unreachable!()
    };
    learner.plan(updates);
    for update in 0..updates {
        learner.update(&batch, update, &Seeds::new(5));
    }
    let policy = learner.policy("toy");
    for (state, best) in [(-1.0, 0.0), (1.0, 2.0)] {
        let found = policy.act(&[state]);
        assert!((found.values().unwrap()[0] - best).abs() < 0.15, "{found:?}, not {best}");
    }
    let mut tensors = Tensors::new();
    learner.save(&mut tensors);
    let Learner::OffPolicy(mut back) = method.learner(&observations, &actions, &Seeds::new(6)).unwrap()
    else {
        unreachable!()
    };
    back.plan(updates);
    back.load(&mut tensors).unwrap();
    let next = |learner: &mut Box<dyn crate::off_policy::Learner>| {
        learner.update(&batch, 3, &Seeds::new(5));
        (learner.explore(&[0.3], 7, 9, &Seeds::new(1)), learner.policy("toy").act(&[0.3]))
    };
    assert_eq!(next(&mut learner), next(&mut back));
}

#[cfg(test)]
mod tests {
    use polo_nn::{Device, host};

    use super::*;

    #[test]
    fn weights_grow_with_the_advantage_and_are_cut() {
        let found = weights(&[0.0, 1.0, -2.0, 1.5, 50.0, 1e6], 3.0);
        let expected = [1.0, 3f32.exp(), (-6f32).exp(), 4.5f32.exp(), 100.0, 100.0];
        assert!(found.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-6));
    }

    #[test]
    fn logged_actions_are_likely_in_half_widths() {
        let (observations, actions, _) = logged_bandit(2);
        let mut policy = FreeGaussian::new(&observations, &actions, &[4], false, &Seeds::new(0)).unwrap();
        policy.network.parameters.iter_mut().for_each(|own| own.value = own.value.clone() * 0.0);
        let batch = Batch { observations: vec![0.0; 2], actions: vec![1.0, 3.0], ..Batch::default() };
        let (loss, _) = policy.likelihood(&batch, &[1.0, 2.0]);
        let nats = 0.5 * std::f32::consts::TAU.ln();
        assert!((loss - (nats + 2.0 * (nats + 0.5)) / 2.0).abs() < 1e-6, "{loss}");
        assert_eq!(policy.distance(&batch, &[1.0, 2.0]).0, 1.0);
        assert_eq!(policy.draw(&[0.0, 0.0, 0.0], &[0.5, 7.0, -7.0]), [2.0, 3.0, -1.0]);
    }

    #[test]
    fn what_is_left_behind_acts_as_the_mean() {
        let (observations, actions, _) = logged_bandit(2);
        for squashed in [true, false] {
            let policy = FreeGaussian::new(&observations, &actions, &[16], squashed, &Seeds::new(1)).unwrap();
            for seen in [-100.0, -1.0, 0.3, 1.0, 100.0] {
                let mean = policy.near(&[seen], |_| 0.0);
                assert_eq!(policy.policy("toy").act(&[seen]).values().unwrap(), mean);
                assert!((-1.0..=3.0).contains(&mean[0]));
            }
        }
    }

    #[track_caller]
    fn check_slopes(squashed: bool, loss: impl Fn(&FreeGaussian) -> (f32, Gradients)) {
        let space = Space::symmetric(&[1.0, 1.0, 1.0]);
        let actions = Space::Box { low: vec![-1.0, -2.0], high: vec![1.0, 0.0] };
        let policy = FreeGaussian::new(&space, &actions, &[8], squashed, &Seeds::new(3)).unwrap();
        let (_, gradients) = loss(&policy);
        let step = 1e-2;
        for id in 0..policy.network.parameters.len() {
            let value = host::numbers(policy.network.parameters.get(id));
            let shape = policy.network.parameters.get(id).dims();
            let slopes = gradients.get(id).map_or(vec![0.0; value.len()], host::numbers);
            for place in (0..value.len()).step_by(3) {
                let at = |by: f32| {
                    let (mut moved, mut value) = (policy.clone(), value.clone());
                    value[place] += by;
                    if let Some(own) = moved.network.parameters.iter_mut().nth(id) {
                        own.value = host::tensor(value, shape, &Device::flex());
                    }
                    loss(&moved).0
                };
                let expected = (at(step) - at(-step)) / (2.0 * step);
                let found = slopes[place];
                assert!(
                    (found - expected).abs() < 1e-2 * (1.0 + expected.abs()),
                    "{id} {place}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn slopes_are_those_of_finite_differences() {
        let rows = 12;
        let seeds = Seeds::new(8);
        let noise = |stream: &str, count| seeds.normal(count, stream, 0);
        let actions = noise("actions", rows * 2)
            .chunks_exact(2)
            .flat_map(|a| [a[0].tanh(), a[1].tanh() - 1.0])
            .collect();
        let batch = Batch { observations: noise("observations", rows * 3), actions, ..Batch::default() };
        let weights = weights(&noise("advantages", rows), 1.0);
        for squashed in [true, false] {
            check_slopes(squashed, |policy| policy.likelihood(&batch, &weights));
            check_slopes(squashed, |policy| policy.distance(&batch, &weights));
        }
    }

    #[test]
    fn widths_stop_at_their_ends() {
        let (observations, actions, batch) = logged_bandit(4);
        let mut policy = FreeGaussian::new(&observations, &actions, &[4], true, &Seeds::new(0)).unwrap();
        let id = policy.log_std;
        for (raw, clamped, moves) in [(3.0, 2.0, false), (-25.0, -20.0, false), (1.0, 1.0, true)] {
            if let Some(own) = policy.network.parameters.iter_mut().nth(id) {
                own.value = host::tensor(vec![raw], [1, 1], &Device::flex());
            }
            assert!((policy.deviation() - f32::exp(clamped)).abs() < 1e-5);
            let (_, gradients) = policy.likelihood(&batch, &[1.0; 4]);
            assert_eq!(gradients.get(id).map(host::numbers).unwrap()[0] != 0.0, moves);
        }
    }
}
