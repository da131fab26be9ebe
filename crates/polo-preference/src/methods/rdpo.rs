//! rDPO: provably robust DPO (Ray Chowdhury, Kini, Natarajan 2024, arXiv 2403.00409).
//!
//! A share e < 1/2 of the labels is flipped at random. With L(z) the loss of a pair in order by the margin z,
//!
//! ```text
//! h(w, l) = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]            nats, summed over tokens
//! loss    = [ (1 - e) L(h) - e L(-h) ] / (1 - 2e)
//! L(h)    = -log sigmoid(beta h)            rDPO
//!           (h - 1 / (2 beta))^2            robust IPO
//!           max(0, 1 - beta h)              robust SLiC
//! ```
//!
//! is the clean loss in expectation over the flips. It is not bounded below: a pair told apart for good keeps a
//! slope of -e / (1 - 2e), so stop early, or bound |beta h| by `clamp`.

use burn::tensor::Tensor;
use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Problem, Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reduction, Rows, Scores, encode_as_pairs},
    pairwise::{Link, denoised},
    settings::MethodSettings,
};

/// Settings of `polo train rdpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rdpo {
    /// Pull towards the reference. Usual range 0.01 to 0.5.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Share e of labels that are flipped, below 1/2. 0 is the plain loss; the paper assumes 0.1 of human labels.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 0.5))]
    pub flip_rate: f64,
    /// The loss that is made robust: `logistic` (default, DPO's), `ipo` or `hinge`.
    pub loss: Base,
    /// Bound of |beta h|, beyond which a pair teaches nothing; unset by default.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub clamp: Option<f64>,
}

/// The loss that is made robust.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// DPO's.
    #[default]
    Logistic,
    /// IPO's: the result is IPO with beta (1 - 2e), up to a constant.
    Ipo,
    /// SLiC's, with a reference.
    Hinge,
}

impl Default for Rdpo {
    fn default() -> Self {
        Self { beta: 0.1, flip_rate: 0.1, loss: Base::Logistic, clamp: None }
    }
}

impl Settings for Rdpo {
    fn check(&self) -> Result<()> {
        if !(0.0..0.5).contains(&self.flip_rate) {
            return Err(Problem::usage(format!("flip_rate is {}, not in [0, 0.5)", self.flip_rate))
                .place("method.flip_rate")
                .hint("labels that are wrong half of the time hold no information"));
        }
        Ok(())
    }
}

impl MethodSettings for Rdpo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Rdpo {
    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        encode_as_pairs(rows, tokenizer, limits)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let mut z = scores.margin(0, 1, Reduction::Sum) * self.beta;
        if let Some(bound) = self.clamp {
            z = z.clamp(-bound, bound);
        }
        let base = |z: Tensor<1>| match self.loss {
            Base::Logistic => Link::Logistic.loss(z),
            Base::Hinge => Link::Hinge.loss(z),
            Base::Ipo => (z - 0.5).square() * (self.beta * self.beta).recip(),
        };
        let each = denoised(scores.labels.clone(), self.flip_rate, z, base);
        Loss::new(each, scores.pair_metrics(self.beta, 0, 1))
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "rdpo",
    title: "Provably robust DPO",
    paper: "Ray Chowdhury, Kini, Natarajan: Provably Robust DPO: Aligning Language Models with Noisy Feedback",
    arxiv: "2403.00409",
    year: 2024,
    family: super::FAMILY,
    summary: "DPO whose loss is unbiased although a known share of the labels is flipped",
    claim: "with 20 to 40 % of labels flipped, its policy stays closer to the optimal one than DPO's and cDPO's",
    equation: "h    = [log pi(w|x) - log ref(w|x)] - [log pi(l|x) - log ref(l|x)]\n\
               loss = [-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)] / (1 - 2e)",
    symbols: &[
        ("x, w, l", "prompt, answer labelled as chosen, answer labelled as rejected"),
        ("pi, ref", "trained model, frozen copy of its start"),
        ("h", "margin of log-ratios, nats, summed over tokens"),
        ("beta", "pull towards the reference (method.beta)"),
        ("e", "share of flipped labels (method.flip_rate)"),
    ],
    metrics: &super::PAIR_METRICS,
    reach_for: "labels from crowds or weak judges whose error rate is known or can be guessed; an estimate that is too \
                high is safer than none",
    avoid_when: "labels are clean (it is DPO then, with more variance), or their errors depend on the answers",
    failure_signs: &[
        "the loss turns negative and keeps falling: legitimate for single pairs, but without end it is overfitting; \
         stop early by the validation loss (an unbiased estimate of the clean one) or set method.clamp",
        "nothing is learnt at a flip rate near 0.5: the variance grows by 1 / (1 - 2e)^2; larger batches",
    ],
    variants: &[
        ("robust IPO", "method.loss = \"ipo\""),
        ("robust SLiC", "method.loss = \"hinge\""),
        ("bounded margins", "method.clamp = 5.0"),
    ],
};
