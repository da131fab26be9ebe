//! What TD3 and its offline heirs share: a deterministic policy u -> centre + scale tanh(u), two critics, slow copies of
//! all of them, and the smoothed target that critics follow.

use polo_nn::{
    distributions::Bounds,
    files::Tensors,
    mlp::{Activation, Init, Shape},
};
use polo_run::{Result, metrics::Metrics, seed::Seeds};
use polo_sim::{Space, replay::Batch};

use crate::{
    methods::{numbers_in_and_out, policy_of},
    network::{Adam, Network, aims, beside, last_columns, least, regress},
    policy::{Head, Policy},
};

/// How the target's actions are disturbed, and how fast targets follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Discount per step.
    pub gamma: f64,
    /// Standard deviation of the noise, in half widths of the action's range.
    pub noise: f64,
    /// Where it is cut, in half widths.
    pub clip: f64,
}

/// What a step of the critics has found.
#[derive(Clone, Debug)]
pub struct Bootstrapped {
    /// What the target does next, `[rows, d]`.
    pub next: Vec<f32>,
    /// y of each row.
    pub aims: Vec<f32>,
    /// Loss and mean value.
    pub metrics: Metrics,
}

/// Policy, critics and their slow copies.
#[derive(Clone, Debug)]
pub struct Deterministic {
    /// Reach of the actions.
    pub bounds: Bounds,
    /// The policy's network.
    pub actor: Network,
    /// Two critics.
    pub critic: Network,
    target_actor: Network,
    target_critic: Network,
    actions: Space,
    observation: usize,
}

/// What the policy does on a batch, and what the critics say of it.
pub struct Judged {
    tape: polo_nn::mlp::Tape,
    outputs: Vec<f32>,
    /// The policy's actions, `[rows, d]`.
    pub actions: Vec<f32>,
    judgement: polo_nn::mlp::Tape,
    /// The first critic's values of them, `[rows]`.
    pub values: Vec<f32>,
}

/// The shape of a ReLU network as PyTorch initialises it.
pub fn shape(hidden: &[usize], inputs: usize, outputs: usize, members: usize) -> Shape {
    Shape {
        inputs,
        hidden: hidden.to_vec(),
        outputs,
        members,
        activation: Activation::Relu,
        layer_norm: false,
        init: (Init::Torch, Init::Torch),
    }
}

impl Deterministic {
    /// Fresh networks.
    ///
    /// # Errors
    /// Spaces that are not of bounded numbers.
    pub fn new(observations: &Space, actions: &Space, hidden: &[usize], seeds: &Seeds) -> Result<Self> {
        let (observation, low, high) = numbers_in_and_out(observations, actions)?;
        let d = low.len();
        let actor = Network::new(shape(hidden, observation, d, 1), "policy", &seeds.child("policy"));
        let critic = Network::new(shape(hidden, observation + d, 1, 2), "critic", &seeds.child("critic"));
        Ok(Self {
            bounds: Bounds::new(low, high),
            target_actor: actor.clone(),
            target_critic: critic.clone(),
            actor,
            critic,
            actions: actions.clone(),
            observation,
        })
    }

    /// Numbers of an action.
    pub fn width(&self) -> usize {
        self.bounds.scale.len()
    }

    /// Numbers of an observation.
    pub fn observation(&self) -> usize {
        self.observation
    }

    /// centre + scale tanh(u) + scale noise, cut to the bounds.
    pub fn act(&self, outputs: &[f32], noise: impl Fn(usize) -> f32) -> Vec<f32> {
        let (d, Bounds { centre, scale }) = (self.width(), &self.bounds);
        let action = |(place, u): (usize, &f32)| {
            let i = place % d;
            (centre[i] + scale[i] * (u.tanh() + noise(place)))
                .clamp(centre[i] - scale[i], centre[i] + scale[i])
        };
        outputs.iter().enumerate().map(action).collect()
    }

    /// An action to try: the policy's with noise of `size` half widths.
    pub fn explore(&self, observation: &[f32], size: f64, step: u64, seeds: &Seeds) -> Vec<f32> {
        let noise = seeds.normal(self.width(), "policy/noise", step);
        self.act(&self.actor.evaluate(observation), |place| size as f32 * noise[place])
    }

    /// Observations and actions side by side, as critics take them.
    pub fn pairs(&self, observations: &[f32], actions: &[f32]) -> Vec<f32> {
        beside(observations, self.observation, actions, self.width())
    }

    /// a' = clip(mu'(s') + clip(noise), low, high), for each row of a batch.
    pub fn next_actions(&self, batch: &Batch, target: Target, update: u64, seeds: &Seeds) -> Vec<f32> {
        let noise = seeds.normal(batch.len() * self.width(), "td3/next", update);
        let (size, most) = (target.noise as f32, target.clip as f32);
        self.act(&self.target_actor.evaluate(&batch.next_observations), |place| {
            (size * noise[place]).clamp(-most, most)
        })
    }

    /// y = r + gamma (1 - terminated) min Q(s', a'), the critics' slow copies or their current selves saying Q.
    pub fn aims(&self, batch: &Batch, next: &[f32], gamma: f64, current: bool) -> Vec<f32> {
        let critic = if current { &self.critic } else { &self.target_critic };
        let (lesser, _) = least(&critic.evaluate(&self.pairs(&batch.next_observations, next)), batch.len());
        aims(batch, &lesser, gamma)
    }

    /// One step of both critics towards y = r + gamma (1 - terminated) min Q'(s', a'), a' being
    /// [`Deterministic::next_actions`].
    pub fn learn_critics(
        &mut self,
        batch: &Batch,
        target: Target,
        update: u64,
        seeds: &Seeds,
        adam: Adam,
    ) -> Bootstrapped {
        let x = self.pairs(&batch.observations, &batch.actions);
        let next = self.next_actions(batch, target, update, seeds);
        let aims = self.aims(batch, &next, target.gamma, false);
        let metrics = regress(&mut self.critic, &x, &aims, adam);
        Bootstrapped { next, aims, metrics }
    }

    /// Runs the policy on a batch and has the first critic judge it.
    pub fn judge(&self, batch: &Batch) -> Judged {
        let tape = self.actor.forward(&batch.observations);
        let outputs = tape.outputs();
        let actions = self.act(&outputs, |_| 0.0);
        let judgement = self.critic.forward_first(&self.pairs(&batch.observations, &actions));
        let values = judgement.outputs();
        Judged { tape, outputs, actions, judgement, values }
    }

    /// One step of the policy down a loss `-weight mean Q_1(s, mu(s))` and whatever has the slopes `pulls`, `[rows, d]`
    /// or nothing, in its actions.
    pub fn climb(&mut self, judged: &Judged, weight: f32, pulls: &[f32], adam: Adam) {
        let (n, d) = (judged.values.len(), self.width());
        let dvalues = vec![-weight / n as f32; n];
        let mut dactions =
            last_columns(&self.critic.slope(&judged.judgement, &dvalues), self.observation + d, d);
        dactions.iter_mut().zip(pulls).for_each(|(slope, pull)| *slope += pull);
        self.learn_actor(judged, &dactions, adam);
    }

    /// One step of the policy down a loss with these slopes in its actions, `[rows, d]`.
    pub fn learn_actor(&mut self, judged: &Judged, dactions: &[f32], adam: Adam) {
        let d = self.width();
        let through_tanh = |(place, slope): (usize, &f32)| {
            let tanh = judged.outputs[place].tanh();
            slope * self.bounds.scale[place % d] * (1.0 - tanh * tanh)
        };
        let slopes: Vec<f32> = dactions.iter().enumerate().map(through_tanh).collect();
        let mut gradients = self.actor.gradients();
        self.actor.push_back(&judged.tape, &slopes, &mut gradients);
        self.actor.step(gradients, adam, 1.0);
    }

    /// All slow copies move.
    pub fn follow(&mut self, tau: f64) {
        self.target_actor.parameters.move_towards(&self.actor.parameters, tau);
        self.target_critic.parameters.move_towards(&self.critic.parameters, tau);
    }

    /// The policy as it stands.
    pub fn policy(&self, environment: &str) -> Policy {
        policy_of(environment, &self.actions, Head::Squashed, &self.actor, None)
    }

    /// Everything that a checkpoint must hold.
    pub fn save(&self, tensors: &mut Tensors) {
        self.actor.save("actor", tensors);
        self.critic.save("critic", tensors);
        self.target_actor.save_weights("target actor", tensors);
        self.target_critic.save_weights("target critic", tensors);
    }

    /// Takes up what [`Deterministic::save`] wrote.
    ///
    /// # Errors
    /// Tensors of other networks.
    pub fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.actor.load("actor", tensors)?;
        self.critic.load("critic", tensors)?;
        self.target_actor.load_weights("target actor", tensors)?;
        self.target_critic.load_weights("target critic", tensors)
    }
}

/// The mean of numbers; 0 of none.
pub fn mean(numbers: &[f32]) -> f32 {
    numbers.iter().sum::<f32>() / numbers.len().max(1) as f32
}
