//! A2PR: adaptive advantage-guided policy regularization (Liu et al. 2024, arXiv 2405.19909).
//!
//! TD3+BC that imitates, state by state, the better of two actions, and only where that one is good: the data's action a,
//! or a~, what a conditional VAE makes of the policy's own action. The VAE is fitted to those actions of the data whose
//! advantage is positive, so that it speaks for the better part of the behaviour.
//!
//! ```text
//! y     = r + gamma (1 - terminated) min Q'(s', a')                  critics, as in TD3
//! L_V   = mean (V(s) - min(y, r + gamma (1 - terminated) min Q(s', a')))²
//! g     = 1[Q_1(s,a) - V(s) > epsilon]
//! L_vae = mean (w g (decode(s, z) - a)²) + 0.5 KL,   z = m + sigma noise,  (m, log sigma) = encode(s, a)
//! A_D   = Q_1(s, a) - V(s),   A_G = Q_1(s, a~) - V(s),   a~ = decode(s, encode(s, mu(s)))
//! L_mu  = -lambda mean Q_1(s, mu(s)) + mean (k m (mu(s) - a°)²)
//!         a° = a~ if A_G >= A_D else a,   m = 1[A_G >= 0 or A_D > epsilon]
//! ```
//!
//! One V(s) per update, from before its own step, serves gate and policy alike; Q_1 is the critic after its step. Actions
//! in VAE and imitation are in half widths of their range.

use polo_nn::files::Tensors;
use polo_run::{Result, card::MethodCard, config::Settings, metrics::Metrics, seed::Seeds};
use polo_sim::{Action, Space, replay::Batch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Control, Learner, Source,
    td3_bc::{imitation, lambda},
};
use crate::{
    data::Wishes,
    deterministic::{Bootstrapped, Deterministic, Target, mean, shape},
    network::{Adam, Network, beside, last_columns, regress},
    off_policy::{self, Schedule},
    policy::Policy,
    settings::MethodSettings,
};

/// Settings of `polo train a2pr`. Defaults from the paper's code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct A2pr {
    /// How much the critic's word counts against imitation.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// k, the weight of the imitation term.
    #[schemars(range(min = 0.0))]
    pub imitation_weight: f64,
    /// w, the weight of the VAE's reconstructions.
    #[schemars(range(min = 0.0))]
    pub vae_weight: f64,
    /// Advantage from which an action of the data counts as good, in units of value.
    pub threshold: f64,
    /// Fit the VAE to actions with a positive advantage alone.
    pub gated_vae: bool,
    /// Let the VAE's action be imitated where it is the better one.
    pub candidates: bool,
    /// Imitate nothing where neither action has a positive advantage.
    pub masked: bool,
    /// Take the imitated action as fixed, as the paper writes it. Without, the policy's gradient also flows through the
    /// VAE's action, as in the paper's code.
    pub detach_target: bool,
    /// Step size of policy, critics and value.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Step size of the VAE.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub vae_rate: f64,
    /// Discount per step.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gamma: f64,
    /// How far targets move at each change of the policy.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Standard deviation of the noise of the target's actions, in half widths of the action's range.
    #[schemars(range(min = 0.0))]
    pub target_noise: f64,
    /// Where that noise is cut, in half widths.
    #[schemars(range(min = 0.0))]
    pub noise_clip: f64,
    /// Updates from one change of the policy to the next.
    #[schemars(range(min = 1))]
    pub policy_every: u64,
    /// Standard deviation of the noise of actions that are tried in an environment after the data, in half widths.
    #[schemars(range(min = 0.0))]
    pub exploration_noise: f64,
    /// Transitions of an update.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Widths of the hidden layers of policy, critics and value.
    pub hidden: Vec<usize>,
    /// Widths of the hidden layers of the VAE's encoder and decoder.
    pub vae_hidden: Vec<usize>,
    /// Latent numbers of the VAE. Unset by default: twice the number of action dimensions.
    #[schemars(range(min = 1))]
    pub latent: Option<usize>,
}

impl Default for A2pr {
    fn default() -> Self {
        Self {
            alpha: 2.5,
            imitation_weight: 0.5,
            vae_weight: 1.0,
            threshold: 0.0,
            gated_vae: true,
            candidates: true,
            masked: true,
            detach_target: true,
            learning_rate: 3e-4,
            vae_rate: 1e-3,
            gamma: 0.99,
            tau: 0.005,
            target_noise: 0.2,
            noise_clip: 0.5,
            policy_every: 2,
            exploration_noise: 0.1,
            batch: 256,
            hidden: vec![256, 256],
            vae_hidden: vec![750, 750],
            latent: None,
        }
    }
}

impl Settings for A2pr {
    fn check(&self) -> Result<()> {
        super::check_hidden(&self.hidden)?;
        super::check_hidden(&self.vae_hidden).map_err(|problem| problem.place("method.vae_hidden"))
    }
}

impl MethodSettings for A2pr {
    const SLUG: &'static str = CARD.slug;
}

impl Control for A2pr {
    fn source(&self) -> Source {
        Source::Data
    }

    fn wishes(&self) -> Wishes {
        Wishes { normalise: true, ..Wishes::default() }
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        let networks = Deterministic::new(observations, actions, &self.hidden, seeds)?;
        let value =
            Network::new(shape(&self.hidden, networks.observation(), 1, 1), "value", &seeds.child("value"));
        let latent = self.latent.unwrap_or(2 * networks.width());
        let vae = Vae::new(&self.vae_hidden, networks.observation(), networks.width(), latent, seeds);
        Ok(Learner::OffPolicy(Box::new(A2prLearner { settings: self.clone(), networks, value, vae })))
    }
}

struct A2prLearner {
    settings: A2pr,
    networks: Deterministic,
    value: Network,
    vae: Vae,
}

/// Least and most of log sigma of a latent number.
const LOG_SIGMA: (f32, f32) = (-4.0, 15.0);

/// A conditional VAE of actions in half widths, `[rows, d]`.
struct Vae {
    encoder: Network,
    decoder: Network,
    observation: usize,
    width: usize,
    latent: usize,
}

/// A pass of actions through the VAE.
struct Reconstruction {
    encoding: polo_nn::mlp::Tape,
    /// Means and logarithms of deviations, as the encoder gave them.
    codes: Vec<f32>,
    noise: Vec<f32>,
    decoding: polo_nn::mlp::Tape,
    /// What came out, between -1 and 1.
    actions: Vec<f32>,
}

impl Vae {
    fn new(hidden: &[usize], observation: usize, width: usize, latent: usize, seeds: &Seeds) -> Self {
        let encoder = shape(hidden, observation + width, 2 * latent, 1);
        let decoder = shape(hidden, observation + latent, width, 1);
        Self {
            encoder: Network::new(encoder, "encoder", &seeds.child("encoder")),
            decoder: Network::new(decoder, "decoder", &seeds.child("decoder")),
            observation,
            width,
            latent,
        }
    }

    fn log_sigma(&self, code: &[f32], i: usize) -> f32 {
        code[self.latent + i].clamp(LOG_SIGMA.0, LOG_SIGMA.1)
    }

    fn reconstruct(&self, observations: &[f32], actions: &[f32], noise: Vec<f32>) -> Reconstruction {
        let encoding = self.encoder.forward(&beside(observations, self.observation, actions, self.width));
        let codes = encoding.outputs();
        let mut z = Vec::with_capacity(noise.len());
        for (code, noise) in codes.chunks_exact(2 * self.latent).zip(noise.chunks_exact(self.latent)) {
            z.extend((0..self.latent).map(|i| code[i] + self.log_sigma(code, i).exp() * noise[i]));
        }
        let decoding = self.decoder.forward(&beside(observations, self.observation, &z, self.latent));
        let actions = decoding.outputs().iter().map(|u| u.tanh()).collect();
        Reconstruction { encoding, codes, noise, decoding, actions }
    }

    /// dL/dcodes of a loss with these slopes in the reconstructed actions, the decoder's own gradient going into
    /// `gradients` if it is to learn.
    fn through_decoder(
        &self,
        made: &Reconstruction,
        dactions: &[f32],
        gradients: Option<&mut polo_nn::Gradients>,
    ) -> Vec<f32> {
        let doutputs: Vec<f32> =
            dactions.iter().zip(&made.actions).map(|(slope, tanh)| slope * (1.0 - tanh * tanh)).collect();
        if let Some(gradients) = gradients {
            self.decoder.push_back(&made.decoding, &doutputs, gradients);
        }
        let dz = self.decoder.slope(&made.decoding, &doutputs);
        let dz = last_columns(&dz, self.observation + self.latent, self.latent);
        let mut dcodes = vec![0.0; made.codes.len()];
        for (row, dcode) in dcodes.chunks_exact_mut(2 * self.latent).enumerate() {
            let code = &made.codes[row * 2 * self.latent..][..2 * self.latent];
            for i in 0..self.latent {
                let place = row * self.latent + i;
                dcode[i] = dz[place];
                let sigma = self.log_sigma(code, i).exp();
                dcode[self.latent + i] =
                    dz[place] * sigma * made.noise[place] * inside(code[self.latent + i]);
            }
        }
        dcodes
    }

    /// The KL term, mean over rows and latent numbers, and its slopes in the codes.
    fn divergence(&self, codes: &[f32]) -> (f32, Vec<f32>) {
        let count = (codes.len() / 2) as f32;
        let mut total = 0.0;
        let mut slopes = Vec::with_capacity(codes.len());
        for code in codes.chunks_exact(2 * self.latent) {
            slopes.extend(code[..self.latent].iter().map(|m| m / count));
            for i in 0..self.latent {
                let log_sigma = self.log_sigma(code, i);
                let variance = (2.0 * log_sigma).exp();
                total -= 0.5 * (1.0 + 2.0 * log_sigma - code[i] * code[i] - variance);
                slopes.push((variance - 1.0) / count * inside(code[self.latent + i]));
            }
        }
        (total / count, slopes)
    }

    /// One step on weighted reconstructions and half the KL term; says reconstruction and KL.
    fn learn(&mut self, made: &Reconstruction, wanted: &[f32], weights: &[f32], adam: Adam) -> (f32, f32) {
        let (reconstruction, dactions) = imitation(&made.actions, wanted, &vec![1.0; self.width], weights);
        let (divergence, pulls) = self.divergence(&made.codes);
        let mut gradients = self.decoder.gradients();
        let mut dcodes = self.through_decoder(made, &dactions, Some(&mut gradients));
        dcodes.iter_mut().zip(&pulls).for_each(|(slope, pull)| *slope += 0.5 * pull);
        self.decoder.step(gradients, adam, 1.0);
        let mut gradients = self.encoder.gradients();
        self.encoder.push_back(&made.encoding, &dcodes, &mut gradients);
        self.encoder.step(gradients, adam, 1.0);
        (reconstruction, divergence)
    }

    /// dL/dactions, as they were put in, of a loss with these slopes in what came out.
    fn slope(&self, made: &Reconstruction, dactions: &[f32]) -> Vec<f32> {
        let dcodes = self.through_decoder(made, dactions, None);
        last_columns(&self.encoder.slope(&made.encoding, &dcodes), self.observation + self.width, self.width)
    }
}

fn inside(log_sigma: f32) -> f32 {
    f32::from(u8::from((LOG_SIGMA.0..=LOG_SIGMA.1).contains(&log_sigma)))
}

/// Which action of a row is imitated, and whether any is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    /// The VAE's action rather than the data's.
    made: bool,
    /// Imitate at all.
    on: bool,
}

impl A2pr {
    fn choose(&self, of_data: f32, of_vae: f32) -> Choice {
        let good = of_data > self.threshold as f32;
        let made = self.candidates && of_vae >= of_data;
        Choice { made, on: !self.masked || good || (self.candidates && of_vae >= 0.0) }
    }
}

impl A2prLearner {
    /// Actions in half widths from the middle of their range.
    fn relative(&self, actions: &[f32]) -> Vec<f32> {
        let (d, bounds) = (self.networks.width(), &self.networks.bounds);
        let each = |(place, a): (usize, &f32)| (a - bounds.centre[place % d]) / bounds.scale[place % d];
        actions.iter().enumerate().map(each).collect()
    }

    /// And back.
    fn absolute(&self, relative: &[f32]) -> Vec<f32> {
        let (d, bounds) = (self.networks.width(), &self.networks.bounds);
        let each = |(place, x): (usize, &f32)| bounds.centre[place % d] + bounds.scale[place % d] * x;
        relative.iter().enumerate().map(each).collect()
    }

    /// The first critic's values, `[rows]`.
    fn first_values(&self, batch: &Batch, actions: &[f32]) -> Vec<f32> {
        let mut values = self.networks.critic.evaluate(&self.networks.pairs(&batch.observations, actions));
        values.truncate(batch.len());
        values
    }

    fn learn_policy(&mut self, batch: &Batch, of_data: &[f32], values: &[f32], noise: Vec<f32>) -> Metrics {
        let (n, d) = (batch.len(), self.networks.width());
        let settings = &self.settings;
        let adam = Adam { learning_rate: settings.learning_rate, epsilon: 1e-8 };
        let judged = self.networks.judge(batch);
        let weight = lambda(settings.alpha, &judged.values);
        let made = self.vae.reconstruct(&batch.observations, &self.relative(&judged.actions), noise);
        let candidates = self.absolute(&made.actions);
        let of_vae: Vec<f32> =
            self.first_values(batch, &candidates).iter().zip(values).map(|(q, v)| q - v).collect();
        let choices: Vec<Choice> =
            of_data.iter().zip(&of_vae).map(|(data, vae)| settings.choose(*data, *vae)).collect();
        let imitated: Vec<f32> = (0..n * d)
            .map(|place| if choices[place / d].made { candidates[place] } else { batch.actions[place] })
            .collect();
        let k = settings.imitation_weight as f32;
        let weights: Vec<f32> = choices.iter().map(|choice| if choice.on { k } else { 0.0 }).collect();
        let scale = &self.networks.bounds.scale;
        let (loss, mut pulls) = imitation(&judged.actions, &imitated, scale, &weights);
        if !settings.detach_target {
            // d a°/d mu of the rows that imitate what the VAE made of mu; both sides in half widths.
            let through: Vec<f32> = (0..n * d)
                .map(|place| if choices[place / d].made { -pulls[place] * scale[place % d] } else { 0.0 })
                .collect();
            for (place, slope) in self.vae.slope(&made, &through).into_iter().enumerate() {
                pulls[place] += slope / scale[place % d];
            }
        }
        let distance = judged.actions.iter().zip(&batch.actions).enumerate();
        let distance: f32 = distance.map(|(place, (a, b))| (a - b).abs() / scale[place % d]).sum();
        self.networks.climb(&judged, weight, &pulls, adam);
        let share = |of: &dyn Fn(&Choice) -> bool| {
            f64::from(choices.iter().filter(|choice| of(choice)).count() as u32) / n as f64
        };
        let gain: f32 = choices
            .iter()
            .zip(of_data.iter().zip(&of_vae))
            .map(|(choice, (data, vae))| if choice.made { vae - data } else { 0.0 })
            .sum();
        [
            ("losses/actor_loss", f64::from(loss - weight * mean(&judged.values))),
            ("losses/imitation", f64::from(loss)),
            ("policy/imitated_vae", share(&|choice| choice.made)),
            ("policy/imitated_none", share(&|choice| !choice.on)),
            ("policy/advantage_gain", f64::from(gain / n as f32)),
            ("policy/distance_to_data", f64::from(distance / (n * d) as f32)),
        ]
        .into_iter()
        .collect()
    }
}

impl off_policy::Learner for A2prLearner {
    fn schedule(&self) -> Schedule {
        super::offline_schedule(self.settings.batch)
    }

    fn explore(&self, observation: &[f32], step: u64, _total: u64, seeds: &Seeds) -> Action {
        Action::Continuous(self.networks.explore(observation, self.settings.exploration_noise, step, seeds))
    }

    fn update(&mut self, batch: &Batch, update: u64, seeds: &Seeds) -> Metrics {
        let A2pr { gamma, tau, target_noise: noise, noise_clip: clip, policy_every, .. } = self.settings;
        let adam = Adam { learning_rate: self.settings.learning_rate, epsilon: 1e-8 };
        let target = Target { gamma, noise, clip };
        let Bootstrapped { next, aims, mut metrics } =
            self.networks.learn_critics(batch, target, update, seeds, adam);
        let current = self.networks.aims(batch, &next, gamma, true);
        let values = self.value.evaluate(&batch.observations);
        let value_aims: Vec<f32> = aims.iter().zip(&current).map(|(a, b)| a.min(*b)).collect();
        let of_value = regress(&mut self.value, &batch.observations, &value_aims, adam);
        metrics.set("losses/value_loss", of_value.get("losses/qf_loss").unwrap_or(f64::NAN));

        let of_data: Vec<f32> =
            self.first_values(batch, &batch.actions).iter().zip(&values).map(|(q, v)| q - v).collect();
        let (open, weight) = (!self.settings.gated_vae, self.settings.vae_weight as f32);
        let threshold = self.settings.threshold as f32;
        let gate = |advantage: &f32| if open || *advantage > threshold { weight } else { 0.0 };
        let gates: Vec<f32> = of_data.iter().map(gate).collect();
        let latent = batch.len() * self.vae.latent;
        let wanted = self.relative(&batch.actions);
        let made =
            self.vae.reconstruct(&batch.observations, &wanted, seeds.normal(latent, "a2pr/vae", update));
        let vae_adam = Adam { learning_rate: self.settings.vae_rate, epsilon: 1e-8 };
        let (reconstruction, divergence) = self.vae.learn(&made, &wanted, &gates, vae_adam);
        metrics.set("losses/vae_reconstruction", f64::from(reconstruction));
        metrics.set("losses/vae_kl", f64::from(divergence));

        if update.is_multiple_of(policy_every) {
            let noise = seeds.normal(latent, "a2pr/policy", update);
            metrics.merge(&self.learn_policy(batch, &of_data, &values, noise));
            self.networks.follow(tau);
        }
        metrics
    }

    fn policy(&self, environment: &str) -> Policy {
        self.networks.policy(environment)
    }

    fn save(&self, tensors: &mut Tensors) {
        self.networks.save(tensors);
        self.value.save("value", tensors);
        self.vae.encoder.save("encoder", tensors);
        self.vae.decoder.save("decoder", tensors);
    }

    fn load(&mut self, tensors: &mut Tensors) -> Result<()> {
        self.networks.load(tensors)?;
        self.value.load("value", tensors)?;
        self.vae.encoder.load("encoder", tensors)?;
        self.vae.decoder.load("decoder", tensors)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "a2pr",
    title: "Adaptive advantage-guided policy regularization",
    paper: "Liu, Li, Lan, Gao, Pan, Xu: Adaptive Advantage-Guided Policy Regularization for Offline Reinforcement Learning",
    arxiv: "2405.19909",
    year: 2024,
    family: super::FAMILY,
    summary: "offline control: imitates, state by state, the better of the data's and a VAE's action, and nothing bad",
    claim: "imitating only actions of positive advantage frees the policy from the bad part of mixed data, where td3-bc is \
            held back",
    equation: "L_mu = -lambda mean Q_1(s, mu(s)) + mean (k m (mu(s) - a°)²)\n\
               a° = a~ if A(s, a~) >= A(s, a) else a,   m = 1[A(s, a~) >= 0 or A(s, a) > 0],   A = Q_1 - V\n\
               a~ = decode(s, encode(s, mu(s))), a VAE of the data's actions with A > 0",
    symbols: &[
        ("mu, Q, lambda", "policy, critics and weight, as in td3-bc"),
        ("V", "the value of the data's behaviour"),
        ("a, a~", "the action of the data, and the VAE's"),
        ("k", "weight of the imitation (method.imitation_weight)"),
    ],
    metrics: &[
        ("losses/qf_loss, losses/qf_values", "loss of both critics, and their mean value"),
        ("losses/value_loss, losses/vae_reconstruction, losses/vae_kl", "losses of V and of the VAE"),
        (
            "policy/imitated_vae, policy/imitated_none",
            "shares of states that imitate the VAE's action, and nothing",
        ),
        ("policy/advantage_gain", "mean advantage of the imitated action over the data's, never negative"),
        ("policy/distance_to_data", "mean distance of the policy's action from the data's, half widths"),
    ],
    reach_for: "data of mixed quality, the bad part being large",
    avoid_when: "the data is of one good policy: td3-bc is simpler and as good",
    failure_signs: &[
        "imitated_none near 1: V overestimates; lower method.learning_rate",
        "vae_reconstruction does not fall: widen method.vae_hidden or raise method.latent",
    ],
    variants: &[
        ("the paper's code", "method.detach_target = false"),
        ("a plain VAE", "method.gated_vae = false"),
        ("without the VAE's candidates", "method.candidates = false"),
        ("imitate everywhere", "method.masked = false"),
        ("td3-bc", "method.candidates = false, method.masked = false, method.imitation_weight = 1"),
    ],
};

#[cfg(test)]
#[path = "a2pr_tests.rs"]
mod tests;
