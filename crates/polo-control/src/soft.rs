//! What soft actor-critics share: a policy of squashed normal distributions, critics of several members with slow
//! copies, and a temperature that may be learnt.
//!
//! ```text
//! y       = r + gamma (1 - terminated) [min Q'(s', a') - alpha log pi(a'|s')],   a' ~ pi(s')
//! L_pi    = mean alpha log pi(a|s) - Q(s,a),   a ~ pi(s), the noise held fixed; Q the least or the mean of the critics
//! L_alpha = -weight (mean log pi(a|s) + H),    weight alpha or log alpha, H the entropy that is aimed at
//! ```

use polo_nn::{
    distributions::{Bounds, Squashed},
    files::Tensors,
    mlp::{Activation, Init, Shape},
};
use polo_run::{Problem, Result, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};

use crate::{
    deterministic::mean,
    methods::{numbers_in_and_out, policy_of},
    network::{Adam, Network, Scalar, aims, beside, last_columns, least},
    policy::{Head, Policy},
    squashed,
};

/// How a policy's outputs become logarithms of standard deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heads {
    /// Squeezed between -5 and 2 by tanh.
    Squeezed,
    /// Cut to these bounds.
    Clamped((f32, f32)),
}

/// Which value of an action the policy climbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The least that a critic says.
    Least,
    /// The mean of what critics say.
    Mean,
}

/// What a soft actor-critic is made of.
#[derive(Clone, Copy, Debug)]
pub struct Design<'a> {
    /// Widths of the hidden layers of policy and critics.
    pub hidden: &'a [usize],
    /// Number of critics.
    pub critics: usize,
    /// Whether the critics' hidden layers are normalised.
    pub layer_norm: bool,
    /// Of the policy's hidden layers and its last one.
    pub policy_init: (Init, Init),
    /// Of the critics' hidden layers and their last ones.
    pub critic_init: (Init, Init),
    /// What the policy's outputs mean.
    pub heads: Heads,
    /// The temperature; none: learnt, beginning with 1.
    pub alpha: Option<f64>,
    /// The entropy that a learnt temperature aims at, nats.
    pub target_entropy: f64,
}

/// Policy, critics, their slow copies and the temperature.
#[derive(Clone, Debug)]
pub struct Soft {
    /// Reach of the actions.
    pub bounds: Bounds,
    /// The policy's network.
    pub actor: Network,
    /// The critics, one network with a member for each.
    pub critic: Network,
    target: Network,
    /// Logarithm of the temperature.
    log_alpha: Scalar,
    /// Of a temperature that is learnt.
    target_entropy: Option<f32>,
    heads: Heads,
    actions: Space,
}

impl Soft {
    /// Fresh networks.
    ///
    /// # Errors
    /// Spaces that are not of bounded numbers.
    pub fn new(observations: &Space, actions: &Space, design: Design, seeds: &Seeds) -> Result<Self> {
        let (inputs, low, high) = numbers_in_and_out(observations, actions)?;
        let shape = |inputs, outputs, members, layer_norm, init| Shape {
            inputs,
            hidden: design.hidden.to_vec(),
            outputs,
            members,
            activation: Activation::Relu,
            layer_norm,
            init,
        };
        let width = low.len();
        let actor = shape(inputs, 2 * width, 1, false, design.policy_init);
        let critic = shape(inputs + width, 1, design.critics, design.layer_norm, design.critic_init);
        let critic = Network::new(critic, "critic", &seeds.child("critic"));
        Ok(Self {
            bounds: Bounds::new(low, high),
            actor: Network::new(actor, "policy", &seeds.child("policy")),
            target: critic.clone(),
            critic,
            log_alpha: Scalar::new("log_alpha", design.alpha.map_or(0.0, f64::ln) as f32),
            target_entropy: design.alpha.is_none().then_some(design.target_entropy as f32),
            heads: design.heads,
            actions: actions.clone(),
        })
    }

    /// Numbers of an action.
    pub fn width(&self) -> usize {
        self.bounds.scale.len()
    }

    /// The temperature.
    pub fn alpha(&self) -> f32 {
        self.log_alpha.value().exp()
    }

    /// Observations and actions side by side, as critics take them.
    pub fn pairs(&self, observations: &[f32], actions: &[f32]) -> Vec<f32> {
        beside(observations, self.actor.mlp.shape().inputs, actions, self.width())
    }

    fn squash(&self, outputs: &[f32], noise: &[f32]) -> Squashed {
        let gaussian = match self.heads {
            Heads::Squeezed => squashed::gaussian(outputs, self.width()),
            Heads::Clamped(bounds) => squashed::clamped(outputs, self.width(), bounds),
        };
        Squashed::new(&gaussian, noise, &self.bounds)
    }

    /// Actions that the policy draws with this noise, `[rows, d]`.
    pub fn draw(&self, observations: &[f32], noise: &[f32]) -> Squashed {
        self.squash(&self.actor.evaluate(observations), noise)
    }

    /// An action to try.
    pub fn explore(&self, observation: &[f32], step: u64, seeds: &Seeds) -> Action {
        let noise = seeds.normal(self.width(), "policy/noise", step);
        Action::Continuous(self.draw(observation, &noise).actions)
    }

    /// r + gamma (1 - terminated) [min Q'(s', a') - alpha log pi(a'|s')] for each row, the minimum over these critics'
    /// slow copies, or over all. A temperature `alpha` of 0 leaves entropy out.
    pub fn aims(
        &self,
        batch: &Batch,
        noise: &[f32],
        gamma: f64,
        alpha: f32,
        members: Option<&[usize]>,
    ) -> Vec<f32> {
        let next = self.draw(&batch.next_observations, noise);
        let x = self.pairs(&batch.next_observations, &next.actions);
        let values = match members {
            None => self.target.evaluate(&x),
            Some(members) => self.target.mlp.evaluate_members(&self.target.parameters, &x, members),
        };
        let (lesser, _) = least(&values, batch.len());
        let worth: Vec<f32> =
            lesser.iter().zip(&next.logps).map(|(value, logp)| value - alpha * logp).collect();
        aims(batch, &worth, gamma)
    }

    /// One step of the policy down L_pi. Says its loss and entropy, and the mean log-prob of what it drew.
    pub fn climb(
        &mut self,
        observations: &[f32],
        noise: &[f32],
        judgement: Judgement,
        rate: f64,
    ) -> (Metrics, f32) {
        let (d, alpha) = (self.width(), self.alpha());
        let n = noise.len() / d;
        let tape = self.actor.forward(observations);
        let outputs = tape.outputs();
        let drawn = self.squash(&outputs, noise);
        let x = self.pairs(observations, &drawn.actions);
        let judged = self.critic.forward(&x);
        let (values, dvalues) = judge(&judged.outputs(), n, judgement);
        let dactions = last_columns(&self.critic.slope(&judged, &dvalues), self.critic.mlp.shape().inputs, d);
        let (dmeans, dlog_stds) = drawn.push_back(&dactions, &vec![alpha / n as f32; n]);
        let slopes = match self.heads {
            Heads::Squeezed => squashed::through_heads(&outputs, &dmeans, &dlog_stds, d),
            Heads::Clamped(bounds) => squashed::through_clamped(&outputs, &dmeans, &dlog_stds, d, bounds),
        };
        let mut gradients = self.actor.gradients();
        self.actor.push_back(&tape, &slopes, &mut gradients);
        self.actor.step(gradients, Adam { learning_rate: rate, epsilon: 1e-8 }, 1.0);
        let surprise = mean(&drawn.logps);
        let loss = alpha * surprise - mean(&values);
        let metrics = [("losses/actor_loss", f64::from(loss)), ("losses/entropy", f64::from(-surprise))];
        (metrics.into_iter().collect(), surprise)
    }

    /// One step of the temperature, if it is learnt, down L_alpha, whose slope in log alpha is
    /// `-weight (surprise + H)`: `weight` is alpha for a loss in alpha, 1 for one in log alpha; `surprise` is the mean
    /// log-prob of the policy's actions. Says the slope, and the temperature.
    pub fn learn_temperature(&mut self, surprise: f32, weight: f32, rate: f64) -> Metrics {
        let mut metrics = Metrics::new();
        if let Some(target) = self.target_entropy {
            let slope = -weight * (surprise + target);
            self.log_alpha.step(slope, Adam { learning_rate: rate, epsilon: 1e-8 });
            metrics.set("losses/alpha_loss", f64::from(slope));
        }
        metrics.set("losses/alpha", f64::from(self.alpha()));
        metrics
    }

    /// Whether the temperature is learnt.
    pub fn learns_temperature(&self) -> bool {
        self.target_entropy.is_some()
    }

    /// The critics' slow copies move.
    pub fn follow(&mut self, tau: f64) {
        self.target.parameters.move_towards(&self.critic.parameters, tau);
    }

    /// The policy as it stands.
    pub fn policy(&self, environment: &str) -> Policy {
        policy_of(environment, &self.actions, Head::Squashed, &self.actor, None)
    }

    /// Everything that a checkpoint must hold.
    pub fn save(&self, tensors: &mut Tensors) {
        self.actor.save("actor", tensors);
        self.critic.save("critic", tensors);
        self.target.save_weights("target", tensors);
        self.log_alpha.save("temperature", tensors);
    }

    /// Takes up what [`Soft::save`] wrote.
    ///
    /// # Errors
    /// Tensors of other networks.
    pub fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.load("actor", tensors)?;
        self.critic.load("critic", tensors)?;
        self.target.load_weights("target", tensors)?;
        self.log_alpha.load("temperature", tensors)
    }
}

/// Fewer critics than `least`, for a method that cannot do with them.
pub(crate) fn few_critics(what: &str, least: usize) -> Problem {
    Problem::usage(what).place("method.critics").hint(format!("method.critics = {least} or more"))
}

/// What critics say of each row, `[members, rows]`, put together; and the slopes of minus its mean in what each says.
fn judge(values: &[f32], rows: usize, judgement: Judgement) -> (Vec<f32>, Vec<f32>) {
    match judgement {
        Judgement::Least => {
            let (lesser, whose) = least(values, rows);
            let mut slopes = vec![0.0; values.len()];
            whose
                .iter()
                .enumerate()
                .for_each(|(row, member)| slopes[member * rows + row] = -1.0 / rows as f32);
            (lesser, slopes)
        }
        Judgement::Mean => {
            let members = values.len() / rows;
            let of = |row: usize| values.iter().skip(row).step_by(rows).sum::<f32>() / members as f32;
            ((0..rows).map(of).collect(), vec![-1.0 / values.len() as f32; values.len()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_climbs_the_least_or_the_mean() {
        let values = [1.0, 5.0, 3.0, 4.0];
        assert_eq!(judge(&values, 2, Judgement::Least), (vec![1.0, 4.0], vec![-0.5, 0.0, 0.0, -0.5]));
        assert_eq!(judge(&values, 2, Judgement::Mean), (vec![2.0, 4.5], vec![-0.25; 4]));
    }
}
