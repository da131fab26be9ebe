//! SFT: supervised fine-tuning, maximum likelihood of given answers.
//!
//! ```text
//! loss = - (1 / tokens) sum over the answers' tokens of log pi(token | what stands before)          nats per token
//! ```
//!
//! The mean is over all tokens of an optimiser step, so that long answers weigh more (as in TRL). Prompts are not
//! learnt. Of preference pairs, the chosen answer is learnt; `revision` teaches, besides, to improve the rejected
//! answer into the chosen one, in the prompt format of SRPO (Choi et al. 2024, arXiv 2406.01660): a model that never
//! saw that format has nothing useful to say there, and is a poor reference for SRPO.

use polo_lm::{
    encode::{Encoded, Limits, encode_completions, encode_pairs},
    templates::encode_revisions,
    tokens::Tokenizer,
};
use polo_run::{
    Problem, Result,
    card::MethodCard,
    config::Settings,
    metrics::Metrics,
    seed::{Seeds, unit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, Names, PairObjective, Reads, Rows, Scores, Tree, mean},
    settings::{MethodSettings, Templates, Training},
};

/// Settings of `polo train sft`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// Share of the pairs from which revising is learnt besides answering: after a prompt that shows the rejected
    /// answer, the chosen one. 0 by default. Above 0 the data must be pairs, and answers are learnt after SRPO's
    /// prompt G(x) instead of the bare prompt. 1 prepares a model for `polo train srpo`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub revision: f64,
    /// The prompts, if `revision` is above 0; the same as SRPO's later.
    pub templates: Templates,
}

impl Settings for Sft {
    fn check(&self) -> Result<()> {
        self.templates.check()
    }
}

impl MethodSettings for Sft {
    const SLUG: &'static str = CARD.slug;

    fn training() -> Training {
        // TRL's default for fine-tuning.
        Training { learning_rate: 2e-5, ..Training::default() }
    }
}

impl Sft {
    /// Whether this pair also teaches revising: a fixed draw for each row, the same in every run.
    fn revises(&self, id: u64) -> bool {
        unit(&mut Seeds::new(0).rng("sft/revision", id)) < self.revision
    }
}

impl PairObjective for Sft {
    fn uses_reference(&self) -> bool {
        false
    }

    fn reads(&self) -> Reads {
        if self.revision > 0.0 { Reads::Pairs } else { Reads::Completions }
    }

    fn weight(&self, example: &Example) -> f64 {
        example.answer_tokens().sum::<usize>() as f64
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        let learn = |prompt, answer, id| Example {
            trees: vec![Tree { prompt, answers: vec![answer] }],
            label: 1.0,
            id,
            ..Example::default()
        };
        if self.revision == 0.0 {
            let (examples, report): (Vec<_>, _) = match rows {
                Rows::Completions(rows) => {
                    let names = Names::of(rows.iter().map(|row| (row.id, &row.place)));
                    let Encoded { rows, report } = encode_completions(rows, tokenizer, limits)?;
                    let learnt =
                        rows.into_iter().map(|row| learn(row.prompt, row.completion, names.get(row.id)));
                    (learnt.collect(), report)
                }
                Rows::Pairs(rows) => {
                    let names = Names::of(rows.iter().map(|row| (row.id, &row.place)));
                    let Encoded { rows, report } = encode_pairs(rows, tokenizer, limits)?;
                    let learnt = rows.into_iter().map(|row| learn(row.prompt, row.chosen, names.get(row.id)));
                    (learnt.collect(), report)
                }
                Rows::Lists(_) | Rows::Unpaired(_) => {
                    return Err(Problem::usage("fine-tuning learns from completions or pairs"));
                }
            };
            return Ok(Encoded { rows: examples, report });
        }
        let templates = self.templates.resolve(rows.first_prompt())?;
        let rows = rows.pairs()?;
        let names = Names::of(rows.iter().map(|row| (row.id, &row.place)));
        let Encoded { rows, report } = encode_revisions(rows, &templates, tokenizer, limits)?;
        let mut examples = Vec::with_capacity(2 * rows.len());
        for row in rows {
            let name = names.get(row.id);
            if self.revises(row.id) {
                examples.push(learn(row.revise_rejected, row.chosen.clone(), format!("{name} (revision)")));
            }
            examples.push(learn(row.generate, row.chosen, name));
        }
        Ok(Encoded { rows: examples, report })
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let metrics =
            [("logps/completion", mean(&scores.policy[0])), ("tokens/completion", mean(&scores.tokens[0]))];
        Loss::new(-scores.policy[0].clone(), Metrics::from_iter(metrics))
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "sft",
    title: "Supervised fine-tuning",
    paper: "maximum likelihood; for language models e.g. Ouyang et al.: Training language models to follow \
            instructions with human feedback",
    arxiv: "2203.02155",
    year: 2022,
    family: super::FAMILY,
    summary: "maximum likelihood of given answers; the step before every preference method",
    claim: "a baseline, without a claim of its own",
    equation: "loss = - (1 / tokens) sum_t log pi(y_t | x, y_<t)",
    symbols: &[
        ("x, y", "prompt, answer; of pairs, the chosen answer"),
        ("tokens", "number of answer tokens in the whole optimiser step"),
    ],
    metrics: &[
        ("loss", "nats per token; e^loss is the perplexity"),
        ("logps/completion", "log pi of an answer, nats, summed over its tokens"),
        ("tokens/completion", "tokens per answer"),
    ],
    reach_for: "a model that does not yet answer in the right format, or not yet revise (method.revision)",
    avoid_when: "the model already answers well and the data says only which answers are better",
    failure_signs: &[
        "loss rises on held-out data while it falls in training: fewer epochs",
        "generation does not stop: answers in the data lack their end token",
    ],
    variants: &[("teach SRPO's revision format too", "method.revision = 1.0")],
};
