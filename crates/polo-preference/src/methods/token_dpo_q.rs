//! Token-level DPO: from r to Q* (Rafailov, Hejna, Park, Finn 2024, arXiv 2404.12358).
//!
//! The training is DPO; the method is what its result is read as. In the token MDP (state: prompt and answer so far,
//! action: next token) a policy trained by DPO is the optimum of some reward r, with
//!
//! ```text
//! Q*(s, a) = r(s, a) + beta log ref(a|s) + V*(s')             V* = 0 after the end token
//! V*(s)    = beta log sum over a of exp(Q*(s, a) / beta)
//! pi*(a|s) = exp((Q*(s, a) - V*(s)) / beta)
//! ```
//!
//! so that sum_t r = V*(s_1) + sum_t beta log pi*/ref over an answer: V*(s_1) cancels in a pair, and the pair's loss is
//! DPO's. The parts of the sum, beta log pi/ref of each token, are advantages of a reward of r's shaping class:
//! [`crate::token_rewards`] reads them off a pair of models, and `polo_lm::beam` searches by them.

use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dpo::Dpo;
use crate::{
    objective::{Example, Loss, PairObjective, Rows, Scores},
    settings::MethodSettings,
};

/// Settings of `polo train token-dpo-q`: those of DPO.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TokenDpoQ(pub Dpo);

impl Settings for TokenDpoQ {}
impl MethodSettings for TokenDpoQ {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for TokenDpoQ {
    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        self.0.encode(rows, tokenizer, limits)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        self.0.loss(scores)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "token-dpo-q",
    title: "Token-level DPO, from r to Q*",
    paper: "Rafailov, Hejna, Park, Finn: From r to Q*: Your Language Model is Secretly a Q-Function",
    arxiv: "2404.12358",
    year: 2024,
    family: super::FAMILY,
    summary: "DPO whose log-probs are read as token values: rewards of single tokens, search by likelihood",
    claim: "trained on comparisons of whole answers, DPO's token rewards single out the tokens that made an answer \
            worse, and beam search on its policy is search by value",
    equation: "loss     = -log sigmoid( sum over w of rhat_t - sum over l of rhat_t )              DPO's\n\
               rhat_t   = beta log( pi(a_t|s_t) / ref(a_t|s_t) )                  reward of a token\n\
               Q*(s, a) = r(s, a) + beta log ref(a|s) + V*(s'),   pi* = exp((Q* - V*) / beta)",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("s_t, a_t", "prompt and the first t - 1 tokens of an answer, its t-th token; the end token is one"),
        ("pi, ref", "trained model, frozen copy of its start"),
        ("rhat_t", "implicit reward of a token, nats * beta: an advantage, not r itself"),
        ("Q*, V*", "soft values of the token MDP; V* is 0 after the end token"),
        ("beta", "pull towards the reference (method.beta)"),
    ],
    metrics: &super::PAIR_METRICS,
    reach_for: "to see which tokens a preference is about: train (or take any model trained by dpo), then \
                `polo explain-tokens`; to decode by value: `polo generate --beams 5`",
    avoid_when: "only the trained model matters: it is dpo's",
    failure_signs: &[
        "rewards spread evenly over an answer: too few pairs to tell which token mattered, or answers that differ \
         everywhere",
        "tokens before a defect are red as well: they made it likely; rewards are advantages",
        "wide beams give empty or endless answers: the likeliest answer is no good one; fewer beams, or \
         --length-penalty",
        "rewards/chosen falls: expected where the chosen answers are samples of the reference, since \
         E_ref[sum rhat] = -beta KL(ref || pi)",
    ],
    variants: &[
        ("other losses (IPO, rDPO) with the same reading", "polo train ipo, then polo explain-tokens"),
        ("reference: fine-tuned or base model", "--model of polo train, --reference of polo explain-tokens"),
        ("conservative (cDPO)", "method.label_smoothing = 0.1"),
    ],
};
