//! What a run leaves behind: a policy that acts, with everything that it needs to see the world as it did in training.
//!
//! `final/` holds `policy.json` (which environment, what kind of policy, the shape of its network, the normaliser of
//! its observations) and `policy.safetensors`. `polo evaluate --policy DIR` reads them.

use std::{fs, path::Path};

use polo_nn::{
    distributions::Bounds,
    files::{Format, Tensors, read_safetensors, write_safetensors},
    mlp::{Activation, Init, Shape},
};
use polo_run::{Problem, Result, folder::write_atomic, seed::Seeds, stats};
use polo_sim::{Action, Environment, Space};
use serde::{Deserialize, Serialize};

use crate::{network::Network, normalise::Running};

/// What a network's outputs mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// Logits or values of choices, of which the greatest is taken.
    Greatest,
    /// The action itself, cut to its bounds.
    Clipped,
    /// u of an action centre + scale u, cut to its bounds.
    Scaled,
    /// u of an action centre + scale tanh(u); outputs beyond those of the action are not looked at.
    Squashed,
}

/// A policy that acts without chance.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What it acts in.
    pub environment: String,
    /// What it takes.
    pub actions: Space,
    /// What its outputs mean.
    pub head: Head,
    /// The network.
    pub network: Network,
    /// Of observations, if it was trained on normalised ones.
    pub normaliser: Option<Running>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    environment: String,
    actions: Space,
    head: Head,
    observation: usize,
    hidden: Vec<usize>,
    outputs: usize,
    tanh: bool,
    normaliser: Option<Running>,
}

impl Policy {
    /// The action that it takes on seeing `observation`.
    pub fn act(&self, observation: &[f32]) -> Action {
        let mut seen = observation.to_vec();
        if let Some(normaliser) = &self.normaliser {
            normaliser.normalise(&mut seen);
        }
        decide(self.head, &self.actions, &self.network.evaluate(&seen))
    }

    /// Returns of episodes begun with the seeds `seed`, `seed + 1`, ..., and their lengths.
    ///
    /// # Errors
    /// Those of the environment.
    pub fn returns(
        &self,
        environment: &mut dyn Environment,
        seed: u64,
        episodes: usize,
    ) -> Result<Vec<(f64, u64)>> {
        self.watched(environment, seed, episodes, &mut |_, _| Ok(()))
    }

    /// [`Policy::returns`], with `watch` called on the number of the episode and the environment after every reset and
    /// every step.
    ///
    /// # Errors
    /// Those of the environment and of `watch`.
    pub fn watched(
        &self,
        environment: &mut dyn Environment,
        seed: u64,
        episodes: usize,
        watch: &mut dyn FnMut(usize, &dyn Environment) -> Result<()>,
    ) -> Result<Vec<(f64, u64)>> {
        let mut returns = Vec::with_capacity(episodes);
        for episode in 0..episodes {
            let mut observation = environment.reset(Some(seed.wrapping_add(episode as u64)))?;
            watch(episode, environment)?;
            let (mut total, mut length) = (0.0, 0);
            loop {
                let step = environment.step(&self.act(&observation))?;
                watch(episode, environment)?;
                total += step.reward;
                length += 1;
                if step.terminated || step.truncated {
                    break;
                }
                observation = step.observation;
            }
            returns.push((total, length));
        }
        Ok(returns)
    }

    /// The mean return over episodes with its 95 % interval.
    ///
    /// # Errors
    /// As [`Policy::returns`].
    pub fn evaluate(
        &self,
        environment: &mut dyn Environment,
        seed: u64,
        episodes: usize,
    ) -> Result<stats::Estimate> {
        let returns: Vec<f64> =
            self.returns(environment, seed, episodes)?.into_iter().map(|(total, _)| total).collect();
        Ok(stats::t_interval(&returns, "episodes"))
    }

    /// Writes the policy into an existing folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let shape = self.network.mlp.shape();
        let described = Described {
            environment: self.environment.clone(),
            actions: self.actions.clone(),
            head: self.head,
            observation: shape.inputs,
            hidden: shape.hidden.clone(),
            outputs: shape.outputs,
            tanh: shape.activation == Activation::Tanh,
            normaliser: self.normaliser.clone(),
        };
        let text = serde_json::to_string_pretty(&described).unwrap_or_default() + "\n";
        let mut tensors = Tensors::new();
        self.network.save_weights("policy", &mut tensors);
        write_safetensors(&folder.join("policy.safetensors"), &tensors, Format::F32)?;
        write_atomic(&folder.join("policy.json"), text.as_bytes())
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// Files that are missing, torn or do not fit together.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("policy.json");
        let bytes = fs::read(&path).map_err(|error| Problem::io("read", &path, &error))?;
        let described: Described = serde_json::from_slice(&bytes).map_err(|error| {
            Problem::input(format!("not the description of a policy: {error}"))
                .place(path.display().to_string())
                .hint("give the folder `final` of a run of a control method")
        })?;
        let shape = Shape {
            inputs: described.observation,
            hidden: described.hidden,
            outputs: described.outputs,
            members: 1,
            activation: if described.tanh { Activation::Tanh } else { Activation::Relu },
            layer_norm: false,
            init: (Init::Torch, Init::Torch),
        };
        let sizes = [shape.inputs, shape.outputs].into_iter().chain(shape.hidden.iter().copied());
        let fits = match described.head {
            Head::Greatest => described.outputs == described.actions.size(),
            Head::Clipped | Head::Scaled | Head::Squashed => described.outputs >= described.actions.size(),
        };
        if !fits || sizes.into_iter().any(|size| size == 0 || size > 1 << 20) {
            return Err(Problem::input("the network does not fit the actions")
                .place(path.display().to_string())
                .hint("the file was changed; train again"));
        }
        let mut network = Network::new(shape, "policy", &Seeds::new(0));
        let path = folder.join("policy.safetensors");
        let mut tensors = read_safetensors(&path)?;
        network
            .load_weights("policy", &mut tensors)
            .map_err(|problem| problem.place(path.display().to_string()))?;
        let Described { environment, actions, head, normaliser, .. } = described;
        Ok(Self { environment, actions, head, network, normaliser })
    }
}

/// The action that outputs stand for, without chance.
pub fn decide(head: Head, actions: &Space, outputs: &[f32]) -> Action {
    match (actions, head) {
        (Space::Discrete(_), _) => {
            let best =
                (1..outputs.len()).fold(0, |best, at| if outputs[at] > outputs[best] { at } else { best });
            Action::Discrete(best)
        }
        (Space::Box { low, high }, Head::Squashed) => {
            let bounds = Bounds::new(low, high);
            let parts = outputs.iter().zip(bounds.centre.iter().zip(&bounds.scale));
            Action::Continuous(parts.map(|(u, (centre, scale))| centre + scale * u.tanh()).collect())
        }
        (Space::Box { low, high }, Head::Scaled) => {
            let bounds = Bounds::new(low, high);
            let parts = outputs.iter().zip(bounds.centre.iter().zip(&bounds.scale));
            let action = |(u, (centre, scale)): (&f32, (&f32, &f32))| centre + scale * u.clamp(-1.0, 1.0);
            Action::Continuous(parts.map(action).collect())
        }
        (Space::Box { low, high }, _) => {
            let parts = outputs.iter().zip(low.iter().zip(high));
            Action::Continuous(parts.map(|(u, (low, high))| u.clamp(*low, *high)).collect())
        }
    }
}
