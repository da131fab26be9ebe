//! The losses that "A Survey of Direct Preference Optimization" (Liu et al. 2025, arXiv 2503.11701) compares, on equal
//! terms: one method whose `method.loss` names the loss.
//!
//! What all of them see of an answer y to a prompt x:
//!
//! ```text
//! L(y)    log pi(y|x), nats, summed over the answer's tokens          m(y) = L(y) / n(y)
//! rho(y)  L(y) - log ref(y|x)                                         n(y): tokens
//! D       rho(w) - rho(l)         of the chosen answer w and the rejected one l
//! ```
//!
//! The formulas stand in [`taxonomy`], which `polo methods --variants` prints; the code of pairs in [`pairs`], of
//! ranked lists in [`lists`], of single answers in [`unpaired`], of token weights in [`tokens`]. A pair that is in
//! order with probability p (a soft label) has the loss p f(w, l) + (1 - p) f(l, w), whatever f is.

use std::{
    collections::HashMap,
    iter,
    path::{Path, PathBuf},
};

use burn::tensor::{Tensor, TensorData};
use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Problem, Result, card::MethodCard, config::Settings, metrics::Metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{
        Example, Follow, Live, Loss, PairObjective, ReadoutSettings, Reads, Reduction, Rows, Scores, Tree,
        best_first, encode_as_lists, encode_each_pair, mean,
    },
    pairwise::{Link, NllReduction},
    settings::MethodSettings,
};

mod lists;
mod names;
mod pairs;
pub mod taxonomy;
mod tokens;
mod unpaired;

pub use names::LossName;
use names::{Facts, Learns};
pub use pairs::Divergence;
pub use tokens::TokenWeights;

/// Settings of `polo train dpo-survey`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Survey {
    /// The loss. `sigmoid` (default) is DPO's; `polo methods --variants` lists the formulas.
    pub loss: LossName,
    /// Further losses to add, as TRL's lists of loss types do: ["bco-pair", "sft"] with weights [0.8, 0.2, 1.0] is
    /// MPO's mixture. All must learn from the same kind of rows. None by default.
    pub also: Vec<LossName>,
    /// Weights of `loss` and of those in `also`, in this order. Empty (default): all 1.
    pub weights: Vec<f64>,
    /// The formula's beta: pull towards the reference, or scale of log-probs. Unset by default: 0.1; 2 for losses of
    /// means over tokens (`sigmoid-norm`, `simpo`, `alpha-po`, `alpha-dpo`), 2.5 for `sim-npo`, 1 for `dro-v` (tau). For `orpo` it is the
    /// weight of the odds ratio (lambda in the paper). Not used by `slic-hf`, `simper`, `soft-po`, `rrhf`, `pro`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub beta: Option<f64>,
    /// The formula's alpha. Unset by default: `r-dpo` 0.01 (per token, a tenth of beta), `odpo` 1, `beta-dpo` 0.6,
    /// `alpha-dpo` 0.1, `alpha-po` 0.25, `soft-po` 1, `ropo` 0.5, `dpo-rk` 1.0986 (ln 3), `dpo-d` 1, `info-nca` 1 (its
    /// temperature), `tdpo2` 0.5, `modpo` 1 (the weight of the scores' objective). Not used by others. Defaults from the papers where they name one.
    #[schemars(range(min = 0.0))]
    pub alpha: Option<f64>,
    /// The formula's lambda. Unset by default: `dpop` 5, `ropo` 0.5, and 1 as the weight of the imitation in `cpo`,
    /// `orpo`, `slic-hf`, `rrhf` and `pro`; 1 as the weight of the pairs' objective in `modpo`. Not used by others.
    #[schemars(range(min = 0.0))]
    pub lambda: Option<f64>,
    /// The formula's margin gamma. Unset by default: 0.5 (TRL's) for `simpo`, `alpha-po` and `alpha-dpo`, 1 for
    /// `slic-hf`, 0 for `sim-npo`, 2 for `safe-dpo` (Delta). Not used by others.
    #[schemars(range(min = 0.0))]
    pub gamma: Option<f64>,
    /// Share e of labels assumed to be flipped, in `sigmoid` (cDPO), `robust`, `exo-pair` (must be above 0; the paper
    /// recommends 0.001), `sigmoid-norm`, `aot`, `aot-unpaired`, `cpo`, `simpo` and `alpha-po`. 0 by default.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub label_smoothing: f64,
    /// Of `ipo`: `sum` over tokens (default, the paper's) or `mean` (TRL's); beta then means something else.
    pub reduction: Reduction,
    /// f of `gpo`. `logistic` by default.
    pub link: Link,
    /// Divergence from the reference whose f' replaces rho, in `sigmoid`, `hinge`, `ipo`, `gpo`, `exo-pair`, `robust`,
    /// `discopop` and `sigmoid-norm`. `reverse-kl` (default) is rho itself.
    pub divergence: Divergence,
    /// alpha of `divergence = "alpha"`; at 1 it is the reverse KL. Default from TRL.
    pub divergence_alpha: f64,
    /// Temperature of `discopop`'s switch between its two parts. Default from the paper.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub tau: f64,
    /// Half of `chi-po`'s bound of the reward difference (R in the formula), nats times beta. Default chosen here.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub reward_bound: f64,
    /// Whether there is a reference. False: rho is the log-prob itself, as CPO has it (`sigmoid`, `hinge`, `ipo`, any
    /// loss of pairs). True by default; losses whose formula has no rho never load one.
    pub reference: bool,
    /// Of imitation terms (`sft`, `cpo`, `orpo`, `slic-hf`, `rrhf`, `pro`). `token-pool` (default) is TRL's.
    pub nll_reduction: NllReduction,
    /// Whether `orpo` imitates the prompt, too, as TRL has it; costs a second pass over the chosen sequence. False by
    /// default.
    pub prompt_nll: bool,
    /// Of `beta-dpo`: the share of a micro-batch's pairs that count, those whose reward differences are nearest their
    /// running mean. 1: all. Default from the paper, which draws them at random, near ones more often.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub keep: f64,
    /// How fast the weights of groups that are badly off grow, under group-robust training: the loss becomes a weighted
    /// mean of the groups' losses (`group` of the rows), weights proportional to exp(group_step * sum of past losses).
    /// 0 (default): every pair counts the same. 0.01 is usual.
    #[schemars(range(min = 0.0))]
    pub group_step: f64,
    /// Steps after which the reference moves towards the model (TR-DPO). 0 (default): never; 512 is TRL's. Needs a
    /// second model in memory.
    pub sync_every: usize,
    /// How far it moves: reference <- sync_share * model + (1 - sync_share) * reference. 1 makes it a copy. Default as
    /// in TRL.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub sync_share: f64,
    /// Which tokens of a pair's answers count how much: `all` (default), `ld` (LD-DPO), `sampo`, `decay` (D2PO) or
    /// `tis` (TIS-DPO).
    pub tokens: TokenWeights,
    /// Weight of an answer's tokens beyond the length of the shorter one, under `tokens = "ld"`. Default from the
    /// paper; 1 is the plain loss.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ld_alpha: f64,
    /// Weight of a token relative to the one before it, under `tokens = "decay"`. Default from the paper.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub decay: f64,
    /// Of `tokens = "tis"`: folder of a model that likes good answers, such as one trained by DPO. Unset by default.
    pub tis_better: Option<PathBuf>,
    /// Of `tokens = "tis"`: folder of a model that likes bad answers, such as one trained by DPO with the two sides
    /// swapped. Unset by default.
    pub tis_worse: Option<PathBuf>,
    /// Of `tokens = "tis"`: how strongly the difference of the two models weighs. Default from the paper.
    #[schemars(range(min = 0.0))]
    pub tis_scale: f64,
    /// Of `tokens = "tis"`: the difference of the two models' log-probs of a token is cut to this from below, nats.
    /// Default from the paper.
    pub tis_least: f64,
    /// The same from above.
    pub tis_most: f64,
    /// Weigh each pair by how typical of the model its answers are (WPO), for all losses of pairs but `aot`,
    /// `aot-unpaired` and those that imitate. False by default.
    pub weighting: bool,
    /// Answers of a list (K) that `info-nca`, `lipo`, `rrhf` and `pro` learn from: evenly spread over the ranks, with
    /// the best and the worst. Shorter lists are left out.
    #[schemars(range(min = 2, max = 64))]
    pub answers: usize,
    /// Weight of desirable answers in `kto`, `bco` and `apo-zero-unpaired`. Default as in TRL.
    #[schemars(range(min = 0.0))]
    pub desirable_weight: f64,
    /// Weight of undesirable answers in the same losses; where the kinds differ in number, the products of number and
    /// weight should be in a ratio between 1 and 4/3. Default as in TRL.
    #[schemars(range(min = 0.0))]
    pub undesirable_weight: f64,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            loss: LossName::Sigmoid,
            also: Vec::new(),
            weights: Vec::new(),
            beta: None,
            alpha: None,
            lambda: None,
            gamma: None,
            label_smoothing: 0.0,
            reduction: Reduction::Sum,
            link: Link::Logistic,
            divergence: Divergence::ReverseKl,
            divergence_alpha: 0.5,
            tau: 0.05,
            reward_bound: 5.0,
            reference: true,
            nll_reduction: NllReduction::TokenPool,
            prompt_nll: false,
            keep: 0.8,
            group_step: 0.0,
            sync_every: 0,
            sync_share: 0.6,
            tokens: TokenWeights::All,
            ld_alpha: 0.5,
            decay: 0.98,
            tis_better: None,
            tis_worse: None,
            tis_scale: 1.0,
            tis_least: -0.5,
            tis_most: 1.5,
            weighting: false,
            answers: 4,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
        }
    }
}

/// The numbers of one loss: those of the settings, or its own.
#[derive(Clone, Copy, Debug)]
struct Parameters<'a> {
    beta: f64,
    alpha: f64,
    lambda: f64,
    gamma: f64,
    /// What the loss does not choose for itself.
    all: &'a Survey,
}

impl Survey {
    fn names(&self) -> impl Iterator<Item = LossName> + '_ {
        iter::once(self.loss).chain(self.also.iter().copied())
    }

    fn parameters(&self, name: LossName) -> Parameters<'_> {
        let Facts { beta, alpha, lambda, gamma, .. } = name.facts();
        Parameters {
            beta: self.beta.unwrap_or(beta),
            alpha: self.alpha.unwrap_or(alpha),
            lambda: self.lambda.unwrap_or(lambda),
            gamma: self.gamma.unwrap_or(gamma),
            all: self,
        }
    }

    /// The rows of the main loss; [`Settings::check`] sees to it that the others learn from the same.
    fn learns(&self) -> Learns {
        self.loss.facts().learns
    }

    fn has(&self, loss: LossName) -> bool {
        self.names().any(|name| name == loss)
    }

    /// Pairs with what some losses ask of a row, beside its texts.
    fn encode_pairs(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        let mut groups: HashMap<String, usize> = HashMap::new();
        encode_each_pair(rows, tokenizer, limits, |row, example| {
            let lacks = |what: &str, hint: &str| {
                row.place.mark(Problem::input(format!("the pair has no {what}")).hint(hint))
            };
            if self.has(LossName::Modpo) {
                let scores = row.about.scores.ok_or_else(|| {
                    lacks("scores", "`modpo` needs the other objective's `score_chosen` and `score_rejected`")
                })?;
                example.quality = scores.to_vec();
            }
            if self.has(LossName::SafeDpo) {
                let safe = row.about.safe.ok_or_else(|| {
                    lacks("word on safety", "`safe-dpo` needs `chosen_is_safe` and `rejected_is_safe`")
                })?;
                example.quality = safe.map(|safe| f64::from(u8::from(safe))).to_vec();
                if safe == [false, true] {
                    // Whatever people preferred: what is safe wins over what is not.
                    example.trees[0].answers.swap(0, 1);
                    example.quality.swap(0, 1);
                    example.label = 1.0;
                }
            }
            if self.group_step > 0.0 {
                let group = row.about.group.clone().ok_or_else(|| {
                    lacks("group", "method.group_step is above 0: name each row's `group`, or set it to 0")
                })?;
                let next = groups.len();
                example.group = *groups.entry(group).or_insert(next);
            }
            Ok(())
        })
    }

    /// The losses weighed by how badly off their groups are: group g by q_g n / n_g, q = softmax of the groups' summed
    /// past losses times the step; and those sums.
    fn robust(&self, each: Tensor<1>, scores: &Scores) -> (Tensor<1>, Vec<f64>) {
        let groups = &scores.groups;
        let losses: Vec<f64> = each.clone().into_data().iter::<f64>().collect();
        let mut log_weights = scores.state.clone();
        let count = groups.iter().max().map_or(0, |largest| largest + 1).max(log_weights.len());
        log_weights.resize(count, 0.0);
        let (mut sums, mut sizes) = (vec![0.0; count], vec![0.0; count]);
        for (&group, loss) in groups.iter().zip(losses) {
            sums[group] += loss;
            sizes[group] += 1.0;
        }
        for ((weight, sum), size) in log_weights.iter_mut().zip(sums).zip(&sizes) {
            *weight += if *size > 0.0 { self.group_step * sum / size } else { 0.0 };
        }
        let most = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = log_weights.iter().map(|weight| (weight - most).exp()).sum();
        let share = |&group: &usize| (log_weights[group] - most).exp() / total;
        let weights: Vec<f64> =
            groups.iter().map(|group| share(group) * groups.len() as f64 / sizes[*group]).collect();
        let weights = TensorData::new(weights, [groups.len()]);
        let weights = Tensor::from_data(weights, (&each.device(), each.dtype()));
        (each * weights, log_weights)
    }

    /// The slot of what is imitated: the chosen answer, or with its prompt where ORPO is to learn both.
    fn imitated(&self, name: LossName) -> usize {
        if name == LossName::Orpo && self.prompt_nll { 2 } else { 0 }
    }

    /// TRL's metrics of a loss.
    fn metrics(&self, name: LossName, scores: &Scores) -> Metrics {
        let Facts { learns, reference, reduction, .. } = name.facts();
        let p = self.parameters(name);
        if learns == Learns::Unpaired {
            return unpaired::metrics(p.beta, scores);
        }
        let worst = if learns == Learns::Lists { scores.policy.len() - 1 } else { 1 };
        if reference && self.reference {
            return scores.pair_metrics(p.beta, 0, worst);
        }
        let reduction = match name {
            LossName::Ipo => self.reduction,
            LossName::SigmoidNorm | LossName::AlphaDpo => Reduction::Mean,
            _ => reduction,
        };
        let mut metrics = scores.metrics_of_rewards(p.beta, reduction, 0, worst);
        if name == LossName::AlphaPo {
            let [won, lost] =
                [0, 1].map(|slot| pairs::alpha_reward(&p, scores.logp(slot, reduction)) * p.beta);
            for (side, reward) in [("chosen", &won), ("rejected", &lost)] {
                metrics.set(format!("rewards/{side}"), mean(reward));
            }
            metrics.set("rewards/margins", mean(&(won - lost)));
        }
        metrics
    }
}

/// Refuses a setting.
fn refused(key: &str, message: impl Into<String>, hint: &str) -> Result<()> {
    Err(Problem::usage(message).place(format!("method.{key}")).hint(hint))
}

impl Settings for Survey {
    fn check(&self) -> Result<()> {
        let e = self.label_smoothing;
        let contrast = [&self.tis_better, &self.tis_worse].iter().filter(|folder| folder.is_some()).count();
        match (self.tokens, contrast) {
            (TokenWeights::Tis, 2)
            | (TokenWeights::All | TokenWeights::Ld | TokenWeights::Sampo | TokenWeights::Decay, 0) => {}
            (TokenWeights::Tis, _) => {
                let hint =
                    "give method.tis_better and method.tis_worse, two folders of models with one tokenizer";
                return refused("tokens", "`tis` weighs tokens by the difference of two models", hint);
            }
            _ => {
                let hint = "set method.tokens = \"tis\", or remove both folders";
                return refused("tis_better", "folders of a contrast that nothing asks for", hint);
            }
        }
        if self.tis_least > self.tis_most {
            return refused("tis_least", "the lower bound is above the upper one", "defaults: -0.5 and 1.5");
        }
        if self.sync_every > 0 && !self.uses_reference() {
            let hint = "set method.sync_every = 0, or take a loss with a reference";
            return refused("sync_every", "there is no reference to move", hint);
        }
        if !self.weights.is_empty() && self.weights.len() != 1 + self.also.len() {
            let message = format!("{} weights for {} losses", self.weights.len(), 1 + self.also.len());
            return refused("weights", message, "one for method.loss and one for each in method.also");
        }
        if self.weights.iter().any(|weight| !weight.is_finite()) {
            return refused("weights", "a weight is not finite", "give plain numbers");
        }
        for name in self.names() {
            let (facts, p, called) = (name.facts(), self.parameters(name), name.name());
            let list_of_best = name == LossName::Sft && self.learns() != Learns::Unpaired;
            if facts.learns != self.learns() && !list_of_best {
                let message = format!("`{called}` learns from other rows than `{}`", self.loss.name());
                return refused("also", message, "add losses of pairs to pairs, of lists to lists, or `sft`");
            }
            if name == LossName::ExoPair && e == 0.0 {
                return refused(
                    "label_smoothing",
                    "`exo-pair` has log e in its loss, and e is 0",
                    "set method.label_smoothing above 0, say 0.001 as its paper does",
                );
            }
            if name == LossName::Robust && e >= 0.5 {
                let hint = "labels that are wrong half of the time hold no information; below 0.5";
                return refused("label_smoothing", format!("label_smoothing is {e}"), hint);
            }
            let divides =
                [LossName::AlphaPo, LossName::SoftPo, LossName::InfoNca, LossName::DpoRk, LossName::DpoD];
            if divides.contains(&name) && p.alpha <= 0.0 {
                let hint = "the formula divides by it or takes its logarithm; `simpo` is `alpha-po` at 0";
                return refused("alpha", format!("`{called}` needs an alpha above 0"), hint);
            }
            let pairs = matches!(facts.learns, Learns::Pairs | Learns::ScoredPairs);
            if self.divergence != Divergence::ReverseKl && !name.takes_divergence() && name != LossName::Sft {
                let hint = "sigmoid, hinge, ipo, gpo, exo-pair, robust, discopop and sigmoid-norm do";
                return refused("divergence", format!("`{called}` takes no other divergence"), hint);
            }
            let stateful = matches!(name, LossName::BetaDpo | LossName::Bco);
            if self.group_step > 0.0 && (facts.learns != Learns::Pairs || stateful) {
                let message = format!("`{called}` cannot be trained group-robustly");
                return refused("group_step", message, "use a loss of pairs without a running mean");
            }
            if matches!(name, LossName::Modpo | LossName::SafeDpo) && self.names().count() > 1 {
                let message = format!("`{called}` reads its pairs in its own way");
                return refused("also", message, "train with it alone");
            }
            if name == LossName::DroV && self.names().count() > 1 {
                return refused("also", "`dro-v` lays out its answers in its own way", "train with it alone");
            }
            if matches!(name, LossName::Tdpo1 | LossName::Tdpo2) && !self.reference {
                let hint = "set method.reference = true";
                return refused("reference", format!("`{called}` is defined by its reference"), hint);
            }
            if !self.reference && !pairs {
                let hint = "set method.reference = true; simpo, cpo, orpo and others never load one";
                return refused("reference", format!("`{called}` is defined by its reference"), hint);
            }
            for (key, on) in [("weighting", self.weighting), ("tokens", self.tokens != TokenWeights::All)] {
                if on && (facts.imitates || !pairs) {
                    let message = format!("`{called}` imitates or has no pairs, and cannot be weighed");
                    return refused(key, message, "use a loss of pairs without imitation");
                }
            }
            if self.weighting && matches!(name, LossName::Aot | LossName::AotUnpaired) {
                let message = format!("`{called}` sorts the batch: no pair is left to weigh");
                return refused("weighting", message, "set method.weighting = false");
            }
        }
        Ok(())
    }
}

impl MethodSettings for Survey {
    const SLUG: &'static str = CARD.slug;
}

impl PairObjective for Survey {
    fn uses_reference(&self) -> bool {
        self.reference && self.names().any(|name| name.facts().reference)
    }

    fn live_reference(&self) -> Option<Live> {
        let divergences = self.has(LossName::Tdpo1) || self.has(LossName::Tdpo2);
        let follow = Follow { every: self.sync_every, share: self.sync_share };
        let follows = (self.sync_every > 0 && self.uses_reference()).then_some(follow);
        (divergences || follows.is_some()).then_some(Live { divergences, follows })
    }

    fn readout(&self) -> Option<ReadoutSettings> {
        self.has(LossName::DroV).then_some(ReadoutSettings {
            outputs: 1,
            std: 0.0,
            bias: true,
            keep: false,
            detached: false,
            pairs: false,
        })
    }

    fn contrast(&self) -> Option<[&Path; 2]> {
        Some([self.tis_better.as_deref()?, self.tis_worse.as_deref()?])
    }

    fn weigh(&self, examples: &mut [Example], [better, worse]: [Vec<Vec<Vec<f32>>>; 2]) {
        for ((example, better), worse) in examples.iter_mut().zip(better).zip(worse) {
            example.weights = tokens::by_contrast(self, &better, &worse);
        }
    }

    fn reads(&self) -> Reads {
        match self.learns() {
            Learns::Pairs => Reads::Pairs,
            Learns::ScoredPairs | Learns::Lists => Reads::Lists,
            Learns::Unpaired => Reads::Unpaired,
        }
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        let mut encoded = match self.learns() {
            Learns::Pairs => self.encode_pairs(rows, tokenizer, limits)?,
            Learns::ScoredPairs => encode_as_lists(rows, tokenizer, limits, |row| {
                let order = best_first(&row.scores);
                let [best, worst] = [order[0], order[order.len() - 1]];
                (row.scores[best] > row.scores[worst]).then(|| vec![best, worst])
            })?,
            Learns::Lists => encode_as_lists(rows, tokenizer, limits, |row| {
                let (order, last) = (best_first(&row.scores), row.scores.len() - 1);
                let spread = |rank| order[rank * last / (self.answers - 1)];
                (order.len() >= self.answers).then(|| (0..self.answers).map(spread).collect())
            })?,
            Learns::Unpaired => {
                let encoded = unpaired::encode(rows, tokenizer, limits, self.has(LossName::Kto))?;
                return Ok(if self.has(LossName::DroV) { unpaired::with_value(encoded) } else { encoded });
            }
        };
        for (place, example) in encoded.rows.iter_mut().enumerate() {
            example.weights = self.tokens.of(self, example, place as u64);
            if self.prompt_nll && self.has(LossName::Orpo) {
                let whole = [example.trees[0].prompt.as_slice(), &example.trees[0].answers[0]].concat();
                example.trees.push(Tree { prompt: whole[..1].to_vec(), answers: vec![whole[1..].to_vec()] });
            }
        }
        Ok(encoded)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        let mut metrics = self.metrics(self.loss, scores);
        let (mut each, mut state) = (scores.labels.zeros_like(), Vec::new());
        for (place, name) in self.names().enumerate() {
            let p = self.parameters(name);
            let mut term: Tensor<1> = match name.facts().learns {
                Learns::Unpaired => unpaired::loss(name, &p, scores, &mut state, &mut metrics),
                Learns::Lists => lists::loss(name, &p, scores),
                Learns::Pairs | Learns::ScoredPairs => {
                    pairs::loss(name, &p, scores, &mut state, &mut metrics)
                }
            };
            if name.facts().imitates {
                let nll = scores.nll(self.imitated(name), self.nll_reduction);
                metrics.set("nll_loss", mean(&nll));
                // The weight of plain imitation is its weight in the sum.
                let weight = if name == LossName::Sft { 1.0 } else { p.lambda };
                term = term + nll * weight;
            }
            if !self.also.is_empty() {
                metrics.set(format!("losses/{}", name.name()), mean(&term));
            }
            each = each + term * self.weights.get(place).copied().unwrap_or(1.0);
        }
        if self.group_step > 0.0 {
            (each, state) = self.robust(each, scores);
        }
        if self.weighting {
            each = each * (scores.typicality[0].clone() + scores.typicality[1].clone()).exp();
        }
        Loss { each, metrics, state }
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "dpo-survey",
    title: "The losses of the DPO survey",
    paper: "Liu, Fang, Hu, Zhang, Zhou, Zhang, Tu, Lin, Huang, Song, Li, Tao: A Survey of Direct Preference Optimization",
    arxiv: "2503.11701",
    year: 2025,
    family: super::FAMILY,
    summary: "forty-seven published losses of pairs, lists and single answers as one method, to compare on equal terms",
    claim: "variants of DPO differ by which part they change: data, learning framework, constraint, model property; \
            compared on equal terms, each has the effect that it was made for",
    equation: "loss = sum over method.loss and method.also of weight * f_loss(L, rho, n, s)\n\
               `polo methods --variants` lists every f",
    symbols: &[
        ("w, l", "chosen (winning) answer, rejected (losing) answer"),
        ("L(y), m(y)", "log pi(y|x), sum and mean over the answer's tokens, nats"),
        ("rho(y)", "L(y) - log ref(y|x), nats; L(y) under method.reference = false"),
        ("n(y), s(y)", "tokens of the answer, its score in the data"),
        ("D", "rho(w) - rho(l)"),
        ("beta, alpha, lambda, gamma, e", "method.beta, .alpha, .lambda, .gamma, .label_smoothing"),
    ],
    metrics: &[
        super::NLL_METRICS[0],
        super::NLL_METRICS[1],
        super::NLL_METRICS[2],
        super::NLL_METRICS[3],
        (
            "logps/chosen",
            "log pi of the chosen answer, nats, reduced as the loss does where there is no reference",
        ),
        ("logps/rejected", "the same for the rejected answer"),
        super::NLL_METRICS[6],
        ("losses/NAME", "mean of one loss of a sum, before its weight"),
        ("kl", "kto: mean log-ratio of mismatched answers, nats, at least 0"),
        ("delta", "bco: running mean of the rewards"),
        ("beta", "beta-dpo: beta of the micro-batch"),
        (
            "log_odds_ratio, log_odds_chosen",
            "orpo: mean of log sigmoid of the log odds ratio, and of that ratio",
        ),
    ],
    reach_for: "comparing losses on your own data with everything else held fixed, or a variant without a method of \
                its own",
    avoid_when: "one of the methods of their own will do (dpo, ipo, rdpo, simpo, rpo, tpo): they explain themselves",
    failure_signs: &[
        "two losses at the same beta cannot be compared: sums, means and unscaled log-probs differ by the length; sweep \
         each loss's main parameter",
        "aot, aot-unpaired, beta-dpo, alpha-dpo, kto: what they take over a batch is taken over a micro-batch; set \
         training.micro_batch = training.batch",
        "logps/chosen falls under losses of differences (sigmoid, hinge, simpo): see dpop, nca-pair, apo-zero, cal-dpo \
         or add \"sft\" to method.also",
    ],
    variants: &[
        ("every loss", "method.loss = \"...\", see `polo methods --variants`"),
        ("MPO's mixture", "method.also = [\"bco-pair\", \"sft\"], method.weights = [0.8, 0.2, 1.0]"),
        ("f-DPO", "method.divergence = \"js\""),
        ("LD-DPO, SamPO, D2PO, TIS-DPO", "method.tokens = \"ld\", \"sampo\", \"decay\", \"tis\""),
        ("TR-DPO", "method.sync_every = 512"),
        ("group-robust training", "method.group_step = 0.01, rows with a `group`"),
        ("Step-DPO", "data of answers in steps"),
        ("WPO", "method.weighting = true"),
        ("losses without their reference", "method.reference = false"),
    ],
};

#[cfg(test)]
#[path = "dpo_survey_tests.rs"]
mod tests;
