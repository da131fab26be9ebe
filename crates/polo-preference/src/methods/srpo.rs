//! SRPO: self-improving robust preference optimisation (Choi et al. 2024, arXiv 2406.01660).
//!
//! One model is both a generative policy pi(y|x) := model(y | G(x)) and a self-improvement policy
//! pi'(y2|y1,x) := model(y2 | R(x, y1)); only the prompts G and R tell them apart. Both solve the min-max problem
//!
//! ```text
//! min_pi max_pi'  E_{y1 ~ pi, y2 ~ pi'} [ p(y2 > y1 | x) - beta KL(pi'(.|y1,x) || ref(.|y1,x)) ] + beta KL(pi || ref)
//! ```
//!
//! whose solution does not depend on who wrote the answers. With the log-ratios (nats, summed over tokens)
//!
//! ```text
//! A(y)     = log pi(y|x)        - log ref(y|G(x))
//! C(y2|y1) = log pi'(y2|y1,x)   - log ref(y2|R(x,y1))
//! ```
//!
//! it obeys two identities, whose squared residuals on a pair (w beats l with probability p) are the losses:
//!
//! ```text
//! improvement = ( p - 1/2 - beta [C(w|l) - C(l|l)] )^2 + ( p - 1/2 - beta [C(w|w) - C(l|w)] )^2
//! generative  = ( 2p - 1  - beta [C(w|l) + A(w) - C(l|w) - A(l)] )^2
//! loss        = (1 - alpha) gen_scale generative + alpha si_scale improvement
//! ```
//!
//! No sampling, no reward model, no inner loop. After training, `polo generate --revisions N` lets the model revise
//! its own answer N times through R.

use polo_lm::{
    encode::{Encoded, Limits},
    templates::{RevisionTokens, encode_revisions},
    tokens::Tokenizer,
};
use polo_run::{Result, card::MethodCard, config::Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, Names, PairObjective, Reduction, Rows, Scores, Tree, mean, share},
    settings::{MethodSettings, Templates},
};

/// Settings of `polo train srpo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Srpo {
    /// Pull towards the reference. Differences of log-ratios aim at 1/(2 beta) nats per answer: short answers need a
    /// larger beta. Usual range 0.01 to 0.2; default from the community's implementation.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: f64,
    /// Weight of the improvement loss; the generative loss has the rest. 1 learns to revise only, 0 only the
    /// generative identity. Default: the middle (the community's implementation uses 0.8).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub alpha: f64,
    /// Factor of the generative loss. 1 by default; 0.25 is the form (1/2 - beta/2 [...])^2 of some write-ups.
    #[schemars(range(min = 0.0))]
    pub gen_scale: f64,
    /// Factor of the improvement loss. 1 by default; some write-ups have 0.5.
    #[schemars(range(min = 0.0))]
    pub si_scale: f64,
    /// Over the answer's tokens. `sum` by default; `mean` is not the paper's method and moves its solution.
    pub reduction: Reduction,
    /// Whether improvement sees the earlier answer. Default true. False is an ablation: C(y2|y1) = A(y2), which is IPO
    /// with the same beta, times (4 - 2 alpha) beta^2.
    pub conditioning: bool,
    /// Whether the copy terms C(l|l) and C(w|w), which pin the unknown normaliser, take part. Default true. False is
    /// an ablation: both count as 0.
    pub copy_terms: bool,
    /// The prompts G(x) and R(x, y1).
    pub templates: Templates,
}

impl Default for Srpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            alpha: 0.5,
            gen_scale: 1.0,
            si_scale: 1.0,
            reduction: Reduction::Sum,
            conditioning: true,
            copy_terms: true,
            templates: Templates::default(),
        }
    }
}

impl Settings for Srpo {
    fn check(&self) -> Result<()> {
        self.templates.check()
    }
}

impl MethodSettings for Srpo {
    const SLUG: &'static str = CARD.slug;
}

// Slots: three prompts, each followed by the chosen answer (w) and the rejected one (l).
/// w after G(x): A(w).
pub const A_W: usize = 0;
/// l after G(x): A(l).
pub const A_L: usize = 1;
/// w after R(x, l): C(w|l).
pub const C_WL: usize = 2;
/// l after R(x, l): C(l|l).
pub const C_LL: usize = 3;
/// w after R(x, w): C(w|w).
pub const C_WW: usize = 4;
/// l after R(x, w): C(l|w).
pub const C_LW: usize = 5;

impl PairObjective for Srpo {
    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        let templates = self.templates.resolve(rows.first_prompt())?;
        let rows = rows.pairs()?;
        let names = Names::of(rows.iter().map(|row| (row.id, &row.place)));
        let Encoded { rows, report } = encode_revisions(rows, &templates, tokenizer, limits)?;
        let example = |row: RevisionTokens| {
            let answers = vec![row.chosen, row.rejected];
            let mut prompts = vec![row.generate];
            if self.conditioning {
                prompts.extend([row.revise_rejected, row.revise_chosen]);
            }
            let trees = prompts.into_iter().map(|prompt| Tree { prompt, answers: answers.clone() }).collect();
            Example { trees, label: row.label, id: names.get(row.id), ..Example::default() }
        };
        Ok(Encoded { rows: rows.into_iter().map(example).collect(), report })
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let ratio = |slot| scores.log_ratio(slot, self.reduction);
        let (a_w, a_l) = (ratio(A_W), ratio(A_L));
        let [c_wl, c_ll, c_ww, c_lw] = if self.conditioning {
            [C_WL, C_LL, C_WW, C_LW].map(ratio)
        } else {
            [a_w.clone(), a_l.clone(), a_w.clone(), a_l.clone()]
        };
        let copy = if self.copy_terms { 1.0 } else { 0.0 };
        let p = scores.labels.clone();

        let improve_l = p.clone() - 0.5 - (c_wl.clone() - c_ll.clone() * copy) * self.beta;
        let improve_w = p.clone() - 0.5 - (c_ww.clone() * copy - c_lw.clone()) * self.beta;
        let improvement = improve_l.square() + improve_w.square();
        let generative = (p * 2.0 - 1.0 - (c_wl.clone() + a_w - c_lw.clone() - a_l) * self.beta).square();

        let mut metrics = scores.pair_metrics(self.beta, A_W, A_L);
        metrics
            .set("losses/generative", mean(&generative))
            .set("losses/improvement", mean(&improvement))
            .set("improvement/margins", mean(&(c_wl.clone() - c_lw.clone())))
            .set("improvement/accuracies", share(c_wl.greater(c_lw)))
            .set("improvement/copy_chosen", mean(&c_ww))
            .set("improvement/copy_rejected", mean(&c_ll));
        let each =
            generative * ((1.0 - self.alpha) * self.gen_scale) + improvement * (self.alpha * self.si_scale);
        Loss::new(each, metrics)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "srpo",
    title: "Self-improving robust preference optimisation",
    paper: "Choi, Ahmadian, Geist, Pietquin, Gheshlaghi Azar: Self-Improving Robust Preference Optimization",
    arxiv: "2406.01660",
    year: 2024,
    family: super::FAMILY,
    summary: "one model learns from pairs both to answer and to improve a given answer; at test time it revises itself",
    claim: "each self-revision improves SRPO's answers (not DPO's or IPO's), out of distribution too, and the solution \
            does not depend on who wrote the training answers",
    equation: "improvement = (p - 1/2 - beta [C(w|l) - C(l|l)])^2 + (p - 1/2 - beta [C(w|w) - C(l|w)])^2\n\
               generative  = (2p - 1 - beta [C(w|l) + A(w) - C(l|w) - A(l)])^2\n\
               loss        = (1 - alpha) generative + alpha improvement",
    symbols: &[
        ("x, w, l", "prompt, chosen (winning) answer, rejected (losing) answer"),
        ("G(x), R(x, y)", "prompt to answer x; prompt to improve the answer y to x (method.templates)"),
        ("A(y)", "log-ratio of model to reference for y after G(x), nats, summed over tokens"),
        ("C(y2|y1)", "log-ratio for y2 after R(x, y1), the reference under the same prompt"),
        ("beta", "pull towards the reference (method.beta)"),
        ("alpha", "weight of the improvement loss (method.alpha)"),
        ("p", "label: probability that w beats l; 1 unless the row says otherwise"),
    ],
    metrics: &[
        super::PAIR_METRICS[0],
        super::PAIR_METRICS[1],
        super::PAIR_METRICS[2],
        super::PAIR_METRICS[3],
        super::PAIR_METRICS[4],
        super::PAIR_METRICS[5],
        ("losses/generative", "1 at the start with hard labels"),
        ("losses/improvement", "0.5 at the start with hard labels"),
        ("improvement/margins", "C(w|l) - C(l|w), nats; tends to the scale of 1/(2 beta)"),
        ("improvement/accuracies", "share of pairs with C(w|l) > C(l|w); 0 at the start"),
        ("improvement/copy_chosen", "C(w|w), nats: how much more readily a good answer is kept"),
        (
            "improvement/copy_rejected",
            "C(l|l), nats: how much more readily a bad answer is kept; should fall",
        ),
    ],
    reach_for: "answers will be revised by the model itself; the pairs were written by others than the model; \
                preferences that no scalar score explains",
    avoid_when: "only one answer may be generated and compute is short (a step costs four to five times DPO's), or the \
                 context cannot hold a prompt and two answers",
    failure_signs: &[
        "revisions do not improve while improvement/accuracies is high: the reference never learnt to read R; run \
         `polo train sft --set method.revision=1.0` first",
        "quality falls at many revisions: its own answers have left the training distribution; use fewer",
        "samples collapse: 1/(2 beta) nats are more than such short answers can give; raise beta",
    ],
    variants: &[
        ("self-improvement only", "method.alpha = 1.0"),
        ("generative identity only", "method.alpha = 0.0"),
        ("context-blind ablation (IPO)", "method.conditioning = false"),
        ("without copy terms (ablation)", "method.copy_terms = false"),
        ("soft labels", "a field `label` in [0, 1] in the data"),
    ],
};
