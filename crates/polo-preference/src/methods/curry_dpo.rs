//! Curry-DPO: curriculum learning over ranked preferences (Pattnaik et al. 2024, arXiv 2403.07230).
//!
//! Several pairs are made of each prompt's ranked answers, the best one chosen in all of them, and learnt from easy to
//! hard in stages. Each stage is DPO whose start and reference are the model of the stage before:
//!
//! ```text
//! pairs of a prompt: (R1, R4), (R1, R3), (R1, R2)                                  R1 the best of four answers
//! stage k minimises  mean of -log sigmoid( beta ( log pi(w|x)/ref_k(w|x) - log pi(l|x)/ref_k(l|x) ) )
//! ref_k            = the model at the end of stage k - 1; at first the given model
//! ```
//!
//! Optimised to the end on all pairs, K stages with a new reference each are one stage of DPO at beta / K: compare
//! with that before the order gets the credit.

use polo_lm::{
    encode::{Encoded, Limits, ListTokens},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dpo::Dpo;
use crate::{
    objective::{
        Example, Loss, PairObjective, Reads, Rows, Scores, Stages, Tree, best_first, encode_each_list,
    },
    settings::MethodSettings,
};

/// Settings of `polo train curry-dpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CurryDpo {
    /// Pull towards each stage's reference. Usual range 0.1 to 0.3.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Number of stages. Default from the paper: 3, one for each pair of a prompt with four answers.
    #[schemars(range(min = 1, max = 100))]
    pub stages: usize,
    /// What makes a pair easy. `score-gap` (default): the difference of scores among the pairs of its prompt.
    pub order: Order,
    /// What a stage changes. `iterative` (default) is the paper's main form.
    pub schedule: Schedule,
}

/// What makes a pair easy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A large difference of scores, compared with the other pairs of its prompt.
    #[default]
    ScoreGap,
    /// A large difference of the reference's log-probs per token, compared with the other pairs of its prompt.
    LogpGap,
    /// A large difference of scores among all pairs, which are cut into equal parts.
    GlobalGap,
    /// Hard pairs first: the reverse of `score-gap`, a control.
    Reverse,
    /// Nothing: pairs are dealt out at random, a control.
    Random,
}

/// What a stage changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The reference becomes the model; optimiser and learning rate start afresh.
    #[default]
    Iterative,
    /// Optimiser and learning rate start afresh; the reference stays the first.
    FixedReference,
    /// Nothing but the pairs: one run in order.
    SingleRun,
}

impl Default for CurryDpo {
    fn default() -> Self {
        Self { beta: 0.1, stages: 3, order: Order::ScoreGap, schedule: Schedule::Iterative }
    }
}

impl Settings for CurryDpo {}
impl MethodSettings for CurryDpo {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for CurryDpo {
    fn reads(&self) -> Reads {
        Reads::Lists
    }

    /// A list's pairs of the best answer with each worse one, easiest by score first; equal answers are left out.
    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        encode_each_list(rows, tokenizer, limits, |row: &ListTokens| {
            let order = best_first(&row.scores);
            let best = order[0];
            let worse = order[1..].iter().rev().filter(|&&place| row.scores[place] < row.scores[best]);
            let pair = |&place: &usize| Example {
                trees: vec![Tree {
                    prompt: row.prompt.clone(),
                    answers: vec![row.answers[best].clone(), row.answers[place].clone()],
                }],
                label: 1.0,
                quality: vec![row.scores[best], row.scores[place]],
                ..Example::default()
            };
            worse.map(pair).collect()
        })
    }

    fn stages(&self, examples: &[Example], references: &[Vec<f64>], seeds: &Seeds) -> Stages {
        let gap = |i: usize| examples[i].quality[0] - examples[i].quality[1];
        let logp_gap = |i: usize| match references.get(i) {
            Some(scores) => {
                let lengths: Vec<usize> = examples[i].answer_tokens().collect();
                scores[0] / lengths[0] as f64 - scores[1] / lengths[1] as f64
            }
            None => 0.0,
        };
        let mut members = vec![Vec::new(); self.stages];
        let mut deal = |places: &[usize]| {
            for (rank, &i) in places.iter().enumerate() {
                members[rank * self.stages / places.len()].push(i);
            }
        };
        let all: Vec<usize> = (0..examples.len()).collect();
        match self.order {
            Order::Random => deal(&seeds.shuffled(examples.len(), "deal", 0)),
            Order::GlobalGap => {
                let mut places = all;
                places.sort_by(|&a, &b| gap(b).total_cmp(&gap(a)));
                deal(&places);
            }
            Order::ScoreGap | Order::LogpGap | Order::Reverse => {
                for prompt in all.chunk_by(|&a, &b| examples[a].id == examples[b].id) {
                    let mut places = prompt.to_vec();
                    match self.order {
                        Order::LogpGap => places.sort_by(|&a, &b| logp_gap(b).total_cmp(&logp_gap(a))),
                        Order::Reverse => places.sort_by(|&a, &b| gap(a).total_cmp(&gap(b))),
                        _ => places.sort_by(|&a, &b| gap(b).total_cmp(&gap(a))),
                    }
                    deal(&places);
                }
            }
        }
        // Prompts with fewer pairs than stages leave late stages empty if all are like that.
        members.retain(|stage| !stage.is_empty());
        Stages {
            members,
            new_reference: self.schedule == Schedule::Iterative,
            restart: self.schedule != Schedule::SingleRun,
        }
    }

    fn loss(&self, scores: &Scores) -> Loss {
        Dpo { beta: self.beta, label_smoothing: 0.0 }.loss(scores)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "curry-dpo",
    title: "Curriculum DPO over ranked preferences",
    paper: "Pattnaik, Maheshwary, Ogueji, Yadav, Madhusudhan: Curry-DPO: Enhancing Alignment using Curriculum \
            Learning & Ranked Preferences",
    arxiv: "2403.07230",
    year: 2024,
    family: super::FAMILY,
    summary: "several pairs of each prompt's ranked answers, learnt easy to hard, each stage's reference the last model",
    claim: "stages from easy to hard beat DPO on one pair of each prompt and on all pairs shuffled",
    equation: "stage k: loss = -log sigmoid(beta (log pi(w|x)/ref_k(w|x) - log pi(l|x)/ref_k(l|x)))\n\
               ref_k = the model after stage k - 1",
    symbols: &[
        ("x, w, l", "prompt, best answer, worse answer"),
        ("pi, ref_k", "trained model, its copy at the start of stage k"),
        ("beta", "pull towards the stage's reference (method.beta); over K stages it acts like beta / K"),
    ],
    metrics: &super::PAIR_METRICS,
    reach_for: "three or more scored answers to each prompt",
    avoid_when: "only pairs are at hand (it is DPO then), or the distance from the first model must stay small",
    failure_signs: &[
        "logps/chosen falls from stage to stage: the best answer is in every pair; fewer epochs, larger beta",
        "no better than DPO at beta / stages: the new reference did it, not the order",
    ],
    variants: &[
        ("easy by the reference's log-probs", "method.order = \"logp-gap\""),
        ("easy among all pairs", "method.order = \"global-gap\""),
        ("hard first (control)", "method.order = \"reverse\""),
        ("random stages (control)", "method.order = \"random\""),
        ("one reference for all stages", "method.schedule = \"fixed-reference\""),
        ("one run in order", "method.schedule = \"single-run\""),
    ],
};
