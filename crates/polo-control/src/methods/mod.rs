//! The methods: one file each, to be read from top to bottom beside the paper.

use polo_run::{Problem, Result, card::MethodCard, seed::Seeds};
use polo_sim::Space;

use crate::{
    data::Wishes,
    network::Network,
    normalise::Running,
    off_policy, on_policy,
    policy::{Head, Policy},
};

pub mod a2pr;
pub mod awac;
pub mod bc;
pub mod cal_ql;
pub mod cql;
pub mod dqn;
pub mod edac;
pub mod iql;
pub mod mdpo;
pub mod mdpo_off;
pub mod percent_bc;
pub mod ppo;
pub mod rlpd;
pub mod sac;
pub mod sac_n;
pub mod td3;
pub mod td3_bc;
pub mod trajectory_weighting;
pub mod trpo;

/// What the methods of this crate learn from.
pub const FAMILY: &str = "control (simulators)";

/// The cards of all methods of the family.
pub const METHODS: &[MethodCard] = &[
    ppo::CARD,
    sac::CARD,
    td3::CARD,
    dqn::CARD,
    mdpo::CARD,
    mdpo_off::CARD,
    trpo::CARD,
    bc::CARD,
    percent_bc::CARD,
    td3_bc::CARD,
    cql::CARD,
    cal_ql::CARD,
    iql::CARD,
    awac::CARD,
    a2pr::CARD,
    sac_n::CARD,
    edac::CARD,
    rlpd::CARD,
    trajectory_weighting::CARD,
];

/// A learner for given spaces, and the loop that carries it.
pub enum Learner {
    /// Learns from what its newest policy just did.
    OnPolicy(Box<dyn on_policy::Learner>),
    /// Learns from a replay buffer.
    OffPolicy(Box<dyn off_policy::Learner>),
}

/// What a method learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An environment; off-policy methods take logged data beside it, if there is any.
    Environment,
    /// Logged data and an environment, side by side from the first step.
    Both,
    /// Logged data; after it an environment, if asked to.
    Data,
}

/// A method of this family.
pub trait Control: Send + Sync {
    /// What it learns from.
    fn source(&self) -> Source {
        Source::Environment
    }

    /// What it wants of logged data beside transitions.
    fn wishes(&self) -> Wishes {
        Wishes::default()
    }

    /// A fresh learner.
    ///
    /// # Errors
    /// Spaces that the method is not made for.
    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner>;
}

/// Checks the widths of hidden layers.
fn check_hidden(hidden: &[usize]) -> Result<()> {
    match hidden.iter().all(|&width| (1..=65_536).contains(&width)) && hidden.len() <= 64 {
        true => Ok(()),
        false => Err(Problem::usage("a hidden layer has a width out of range")
            .place("method.hidden")
            .hint("give a list of widths from 1 to 65,536, e.g. [64, 64]")),
    }
}

/// A method asked to see choices.
fn no_choices_seen() -> Problem {
    Problem::usage("the environment's observations are choices, and the method sees numbers")
        .hint("wrap the environment so that it shows a choice as a vector of zeros and a one")
}

/// A policy with a copy of a network's weights.
pub(crate) fn policy_of(
    environment: &str,
    actions: &Space,
    head: Head,
    network: &Network,
    normaliser: Option<Running>,
) -> Policy {
    let mut own = Network::new(network.mlp.shape().clone(), "policy", &Seeds::new(0));
    for (to, from) in own.parameters.iter_mut().zip(network.parameters.iter()) {
        to.value = from.value.clone();
    }
    Policy { environment: environment.into(), actions: actions.clone(), head, network: own, normaliser }
}

/// The schedule of an offline method, which learns after every step if it goes on in an environment.
fn offline_schedule(batch: usize) -> off_policy::Schedule {
    off_policy::Schedule { random_steps: 0, every: 1, updates: 1, batch, capacity: 1_000_000 }
}

/// Size of observations that are numbers.
fn numbers_in(observations: &Space) -> Result<usize> {
    match observations {
        Space::Box { low, .. } => Ok(low.len()),
        Space::Discrete(_) => Err(no_choices_seen()),
    }
}

/// Sizes of observations, and bounds of actions, of an environment that shows and takes numbers.
pub(crate) fn numbers_in_and_out<'a>(
    observations: &Space,
    actions: &'a Space,
) -> Result<(usize, &'a [f32], &'a [f32])> {
    let seen = numbers_in(observations)?;
    match actions {
        Space::Box { low, high } if low.iter().chain(high).all(|bound| bound.is_finite()) => {
            Ok((seen, low, high))
        }
        Space::Box { .. } => Err(Problem::usage("the environment's actions have no bounds")
            .hint("wrap the environment so that its actions are bounded")),
        Space::Discrete(_) => {
            Err(Problem::usage("the method takes numbers, and the environment's actions are choices")
                .hint("dqn and ppo take choices"))
        }
    }
}
