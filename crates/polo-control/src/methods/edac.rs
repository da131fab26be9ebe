//! EDAC: SAC-N whose critics are kept from agreeing on where actions should go (An et al. 2021, arXiv 2110.01548).
//!
//! Critics whose slopes in the action point the same way are too sure of themselves beside the data. Their loss is
//! SAC-N's and
//!
//! ```text
//! eta ES,   ES = mean over rows of sum over i != j of <u_i, u_j> / (N - 1)
//! u_i = g_i / (|g_i| + 1e-10),   g_i = the slope of Q_i(s,a) in a, at the action of the data
//! ```
//!
//! The slope of a slope needs no second pass of automatic differentiation: in a ReLU network g is a product of weights
//! and masks ([`Mlp::push_back_slopes`](polo_nn::mlp::Mlp::push_back_slopes)). With n_i = |g_i|:
//!
//! ```text
//! d_i = dES/du_i = 2 (sum over j of u_j - u_i) / (rows (N - 1))
//! dES/dg_i = (d_i - u_i <g_i, d_i> / n_i) / (n_i + 1e-10),   0 where n_i = 0
//! ```
//!
//! Actions are in half widths of their range. Where an action is one number, u_i is a sign and ES has no slope: EDAC is
//! SAC-N there.

use polo_nn::{Gradients, mlp::Tape};
use polo_run::{Result, card::MethodCard, config::Settings, seed::Seeds};
use polo_sim::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Control, Learner, Source,
    sac_n::{self, SacN},
};
use crate::{
    network::{Network, last_columns},
    settings::MethodSettings,
};

/// Settings of `polo train edac`: those of [`SacN`], with a weight of diversity. Defaults from the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Edac(pub SacN);

impl Default for Edac {
    fn default() -> Self {
        Self(SacN { eta: 1.0, ..SacN::default() })
    }
}

impl Settings for Edac {
    fn check(&self) -> Result<()> {
        self.0.check()
    }
}

impl MethodSettings for Edac {
    const SLUG: &'static str = CARD.slug;
}

impl Control for Edac {
    fn source(&self) -> Source {
        self.0.source()
    }

    fn learner(&self, observations: &Space, actions: &Space, seeds: &Seeds) -> Result<Learner> {
        self.0.learner(observations, actions, seeds)
    }
}

/// Added to the length of a slope.
const EPSILON: f32 = 1e-10;

/// Adds eta dES/dweights to the gradients of the critics, a pass of which on the data's observations and actions is
/// `tape`; actions are in units of `scale`. Says ES.
pub(super) fn diversity(
    critic: &Network,
    tape: &Tape,
    scale: &[f32],
    eta: f64,
    gradients: &mut Gradients,
) -> f32 {
    let (d, shape) = (scale.len(), critic.mlp.shape());
    let ones = vec![1.0; tape.outputs().len()];
    // Critics of these methods are ReLU networks without layer norm; others have no slopes of this kind.
    let Some(slopes) = critic.mlp.slopes(&critic.parameters, tape, &ones) else { return f32::NAN };
    let mut own = last_columns(&slopes.of_inputs(), shape.inputs, d);
    own.iter_mut().enumerate().for_each(|(place, slope)| *slope *= scale[place % d]);
    let (found, pulls) = similarity(&own, shape.members, d);
    let mut dslopes = vec![0.0; ones.len() * shape.inputs];
    for (row, pulls) in dslopes.chunks_exact_mut(shape.inputs).zip(pulls.chunks_exact(d)) {
        for i in 0..d {
            row[shape.inputs - d + i] = eta as f32 * pulls[i] * scale[i];
        }
    }
    critic.mlp.push_back_slopes(&critic.parameters, tape, &slopes, &dslopes, gradients);
    found
}

/// ES of slopes g, `[members, rows, d]`, and its slopes in them.
fn similarity(g: &[f32], members: usize, d: usize) -> (f32, Vec<f32>) {
    let size = g.len() / members;
    let (rows, pairs) = ((size / d) as f32, (members - 1) as f32);
    let length = |own: &[f32]| own.iter().map(|x| x * x).sum::<f32>().sqrt();
    let mut units = g.to_vec();
    let mut sum = vec![0.0; size];
    let mut alone = 0.0;
    for own in units.chunks_exact_mut(size) {
        for unit in own.chunks_exact_mut(d) {
            let n = length(unit) + EPSILON;
            unit.iter_mut().for_each(|x| *x /= n);
        }
        sum.iter_mut().zip(own.iter()).for_each(|(sum, x)| *sum += x);
        alone += own.iter().map(|x| x * x).sum::<f32>();
    }
    let together = sum.iter().map(|x| x * x).sum::<f32>();
    let mut pulls = vec![0.0; g.len()];
    for (place, (pull, g)) in pulls.chunks_exact_mut(d).zip(g.chunks_exact(d)).enumerate() {
        let n = length(g);
        if n == 0.0 {
            continue;
        }
        let (unit, sum) = (&units[place * d..][..d], &sum[place * d % size..][..d]);
        for i in 0..d {
            pull[i] = 2.0 * (sum[i] - unit[i]) / (rows * pairs);
        }
        let along = g.iter().zip(pull.iter()).map(|(g, pull)| g / n * pull).sum::<f32>();
        for i in 0..d {
            pull[i] = (pull[i] - unit[i] * along) / (n + EPSILON);
        }
    }
    ((together - alone) / (rows * pairs), pulls)
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "edac",
    title: "Ensemble-diversified actor-critic",
    summary: "offline control: sac-n with fewer critics, whose slopes are kept diverse",
    claim: "diverse critics do with tens what SAC-N does with hundreds, and better; here a baseline",
    equation: "L_Q = sum over N of mean (Q_i - y)² + eta mean over rows of sum over i != j of <u_i, u_j> / (N - 1)\n\
               u_i = g_i / |g_i|,   g_i the slope of Q_i(s,a) in a\n\
               y, L_pi, L_alpha as in sac-n",
    symbols: &[
        ("Q_i", "N critics (method.critics)"),
        ("eta", "weight of the diversity term (method.eta)"),
        ("s, a", "observation and action of the data"),
    ],
    metrics: &[
        ("losses/diversity", "ES: from N where all slopes agree down to -N / (N - 1) at best"),
        ("losses/qf_loss, losses/qf_values", "sum of the critics' squared errors, and their mean value"),
        ("losses/actor_loss", "loss of the policy"),
        ("losses/alpha", "temperature, reward per nat"),
        ("losses/entropy", "mean entropy of the actions drawn, nats"),
    ],
    reach_for: "data of mixed quality and actions of several numbers, where sac-n needs too many critics",
    avoid_when: "an action is one number: slopes are signs then, and edac is sac-n",
    failure_signs: &[
        "qf_values grow without bound: raise method.eta or method.critics",
        "qf_loss stays high: diversity outweighs the data; lower method.eta",
    ],
    variants: &[("the paper's on medium-expert data", "method.eta = 5"), ("SAC-N", "method.eta = 0")],
    ..sac_n::CARD
};

#[cfg(test)]
#[path = "edac_tests.rs"]
mod tests;
