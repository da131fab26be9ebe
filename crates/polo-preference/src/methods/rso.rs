//! RSO: statistical rejection sampling optimisation (Liu et al. 2023, arXiv 2309.06657), the losses.
//!
//! Pairs should come from the policy that is sought, not from whoever wrote the data. RSO estimates that policy by
//! rejection among answers of the starting model and fits a classifier on the pairs that it makes of them:
//!
//! ```text
//! h            = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]       nats, summed over tokens
//! sigmoid-norm   loss = - log sigmoid(gamma h)                                     DPO where gamma = beta
//! hinge-norm     loss = max(0, 1 - gamma h)
//! hinge          loss = max(0, 1 - gamma [log pi(w|x) - log pi(l|x)])              SLiC with margin 1/gamma; no reference
//! ```
//!
//! gamma is the temperature of the loss. The beta of the sought policy ref(y|x) exp(r(x, y) / beta) / Z(x) belongs to
//! the sampler alone: [`crate::ranking`], `polo pairs --keep K --beta B`.

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reduction, Rows, Scores, encode_as_pairs},
    pairwise::{Link, labelled},
    settings::MethodSettings,
};

/// Settings of `polo train rso`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rso {
    /// `sigmoid-norm` (default), `hinge-norm`, or `hinge`, which has no reference.
    pub loss: Form,
    /// Temperature of the loss; not the sampler's beta. Default from the paper, which swept 0.005 to 0.5; short
    /// answers want 0.1 to 0.5.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub gamma: f64,
}

/// What the margin becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// -log sigmoid of the margin of log-ratios.
    #[default]
    SigmoidNorm,
    /// The hinge of the margin of log-ratios.
    HingeNorm,
    /// The hinge of the margin of log-probs (SLiC).
    Hinge,
}

impl Default for Rso {
    fn default() -> Self {
        Self { loss: Form::SigmoidNorm, gamma: 0.05 }
    }
}

impl Settings for Rso {}
impl MethodSettings for Rso {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Rso {
    fn uses_reference(&self) -> bool {
        self.loss != Form::Hinge
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        encode_as_pairs(rows, tokenizer, limits)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let link = match self.loss {
            Form::SigmoidNorm => Link::Logistic,
            Form::HingeNorm | Form::Hinge => Link::Hinge,
        };
        let z = scores.margin(0, 1, Reduction::Sum) * self.gamma;
        let each = labelled(scores.labels.clone(), z, |z| link.loss(z));
        Loss::new(each, scores.pair_metrics(self.gamma, 0, 1))
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "rso",
    title: "Statistical rejection sampling optimisation",
    paper: "Liu, Zhao, Joshi, Khalman, Saleh, Liu, Liu: Statistical Rejection Sampling Improves Preference \
            Optimization",
    arxiv: "2309.06657",
    year: 2023,
    family: super::FAMILY,
    summary: "classifies pairs made of the model's own answers, which rejection brought near the sought policy",
    claim: "pairs from rejection sampling beat pairs from plain samples, and both beat the given pairs",
    equation: "h            = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]\n\
               sigmoid-norm : loss = -log sigmoid(gamma h)\n\
               hinge-norm   : loss = max(0, 1 - gamma h)\n\
               hinge        : loss = max(0, 1 - gamma [log pi(w|x) - log pi(l|x)])",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("pi, ref", "trained model, frozen copy of its start"),
        ("h", "margin of log-ratios, nats, summed over tokens"),
        ("gamma", "temperature of the loss (method.gamma); takes the place of beta in the metrics"),
        ("beta", "of the sampler, not of the loss: `polo pairs --beta`, in units of the reward"),
    ],
    metrics: &super::PAIR_METRICS,
    reach_for: "a reward model or judge is at hand and the pairs are from other models: sample, score, pair, train",
    avoid_when: "answers cannot be judged; then train on the given pairs (dpo)",
    failure_signs: &[
        "no better than pairs of plain samples: the sampler's beta is large against the spread of the rewards",
        "one kind of answer wins everywhere: beta is 0 or nearly so, the pairs are the best few of many",
        "loss stays at 0.693 or 1: gamma times the margins of short answers is small; raise gamma",
    ],
    variants: &[
        ("hinge", "method.loss = \"hinge-norm\""),
        ("SLiC without imitation", "method.loss = \"hinge\""),
        ("pairs by rejection, 8 kept of those sampled", "polo pairs --keep 8 --beta 0.5"),
        ("pairs of plain samples", "polo pairs --keep 8 --beta inf"),
        ("the best of many", "polo pairs --keep 8 --beta 0"),
    ],
};

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::{
        super::{
            dpo::Dpo,
            tests::{close, losses, of_ratios, random_ratios},
        },
        *,
    };
    use crate::objective::differentiate;

    fn rso(loss: Form, gamma: f64) -> Rso {
        Rso { loss, gamma }
    }

    #[test]
    fn losses_and_slopes_at_the_reference() {
        let check = |form, loss: f64, slope: f64| {
            let found = differentiate(&rso(form, 0.3), &of_ratios(&[vec![0.0], vec![0.0]], &[1.0]));
            close(&found.each, &[loss], 1e-15);
            close(&found.policy.concat(), &[slope, -slope], 1e-15);
        };
        check(Form::SigmoidNorm, LN_2, -0.15);
        check(Form::HingeNorm, 1.0, -0.3);
    }

    #[test]
    fn a_pair_beyond_the_margin_teaches_hinges_nothing() {
        let found = differentiate(&rso(Form::HingeNorm, 0.5), &of_ratios(&[vec![3.0], vec![0.5]], &[1.0]));
        assert_eq!((found.each, found.policy), (vec![0.0], vec![vec![0.0], vec![0.0]]));
    }

    /// A reference that is uniform over answers of one length gives both answers the same log-prob.
    #[test]
    fn hinge_is_hinge_norm_over_a_uniform_reference() {
        let batch = of_ratios(&random_ratios(2, 6), &[1.0; 6]);
        let mut without = batch.clone();
        without.reference.clear();
        let norm = differentiate(&rso(Form::HingeNorm, 0.4), &batch);
        let slic = differentiate(&rso(Form::Hinge, 0.4), &without);
        close(&slic.each, &norm.each, 1e-12);
        close(&slic.policy.concat(), &norm.policy.concat(), 1e-12);
        assert!(!rso(Form::Hinge, 0.4).uses_reference());
    }

    #[test]
    fn sigmoid_norm_is_dpo() {
        let (ratios, labels) = (random_ratios(2, 5), [1.0, 0.9, 0.5, 0.2, 1.0]);
        let dpo = Dpo { beta: 0.05, ..Dpo::default() };
        close(&losses(&Rso::default(), &ratios, &labels), &losses(&dpo, &ratios, &labels), 1e-15);
    }
}
