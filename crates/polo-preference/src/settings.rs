//! The complete configuration of `polo train dpo|ipo|srpo|sft`.
//!
//! [`TrainSettings`] is what [`polo_run::config::load`] fills; the docs and ranges of its fields are what `polo config`
//! prints and `polo explain` lists. The training loop hands flat parts of it down; no loss sees a section of it but
//! its own `[method]`.

use std::{f64::consts::PI, path::PathBuf};

use polo_lm::{
    encode::{Limits, LongPrompt},
    read::{OnBadRow, ReadOptions},
    rows::Text,
    templates::RevisionTemplates,
};
use polo_run::{Problem, Result, config::Settings, guard::OnNonFinite};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objective::PairObjective;

/// The `[method]` section of a method: its settings are the method.
pub trait MethodSettings: Settings + PairObjective + 'static {
    /// The method's name.
    const SLUG: &'static str;

    /// Defaults of `[training]` for this method.
    fn training() -> Training {
        Training::default()
    }
}

/// Everything that decides how a run of method `M` trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound = "M: MethodSettings")]
#[schemars(bound = "M: MethodSettings")]
pub struct TrainSettings<M> {
    /// The method.
    pub method: M,
    /// The model to train.
    pub model: Model,
    /// What to learn from.
    pub data: Data,
    /// How to learn.
    pub training: Training,
}

impl<M: MethodSettings> Default for TrainSettings<M> {
    fn default() -> Self {
        Self { method: M::default(), model: Model::default(), data: Data::default(), training: M::training() }
    }
}

impl<M: MethodSettings> Settings for TrainSettings<M> {
    fn check(&self) -> Result<()> {
        self.method.check()?;
        if self.model.path.as_os_str().is_empty() {
            return Err(Problem::usage("no model is given")
                .place("model.path")
                .hint("--model DIR, a Hugging Face model folder; `polo init-model` makes one"));
        }
        if self.data.train.is_empty() {
            return Err(Problem::usage("no training data is given")
                .place("data.train")
                .hint("--data FILE, JSONL, JSONL.gz, CSV or Parquet"));
        }
        let Training { batch, micro_batch, warmup_steps, warmup_ratio, .. } = &self.training;
        if micro_batch > batch {
            return Err(Problem::usage(format!(
                "micro_batch is {micro_batch}, more than the batch of {batch}"
            ))
            .place("training.micro_batch")
            .hint("a step cannot compute more examples at a time than it has"));
        }
        if warmup_ratio.is_some() && *warmup_steps > 0 {
            return Err(Problem::usage("the warm-up is given twice, as steps and as a ratio")
                .place("training.warmup_ratio")
                .hint("keep one of training.warmup_steps and training.warmup_ratio"));
        }
        Ok(())
    }
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// A Hugging Face model folder: where training starts, and the reference of methods that have one. The same as
    /// `--model`. Must be given.
    pub path: PathBuf,
    /// Folder of another model, of the same tokenizer, as the reference; unset by default: where training starts.
    pub reference: Option<PathBuf>,
    /// Where to compute: `cpu` (default), or what the build has of `cuda`, `cuda:1`, `vulkan`.
    pub device: String,
    /// Train low-rank adapters instead of all weights; unset by default.
    pub lora: Option<Lora>,
    /// Number format of the weights in `final/`. Default: that of the model folder.
    pub save_dtype: SaveDtype,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            reference: None,
            device: "cpu".into(),
            lora: None,
            save_dtype: SaveDtype::Same,
        }
    }
}

/// Number format of saved weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SaveDtype {
    /// As the model folder's files.
    #[default]
    Same,
    /// 4 bytes per weight, nothing lost.
    F32,
    /// 2 bytes, the range of f32.
    Bf16,
    /// 2 bytes, finer than bf16, range up to 65,504.
    F16,
}

/// `[model.lora]`: W + (alpha / rank) B A (Hu et al. 2021, arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank of A and B. Default from SRPO's community implementation.
    #[schemars(range(min = 1, max = 4096))]
    pub rank: usize,
    /// Scale of the adapters, divided by the rank. Default: twice the rank's default.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub alpha: f64,
    /// Names of the layers to adapt, as in the weight files (`q_proj`), or `all-linear` (default): every linear layer
    /// but the head.
    pub targets: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0, targets: vec!["all-linear".into()] }
    }
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Files to learn from, in this order. The same as `--data`. Must be given.
    pub train: Vec<PathBuf>,
    /// Files to evaluate on during training. The same as `--val`; none by default.
    pub validation: Vec<PathBuf>,
    /// What to do with a row that cannot be used: `stop` (default) with an error that names the place, or `skip`.
    #[serde(with = "OnBadRowName")]
    #[schemars(with = "OnBadRowName")]
    pub on_bad_row: OnBadRow,
    /// Most tokens of prompt and answer together; at most the model's context. Default from TRL.
    #[schemars(range(min = 2))]
    pub max_length: usize,
    /// Cut longer prompts to this many tokens, whatever the answer's length; unset by default. Not used by `srpo`.
    #[schemars(range(min = 1))]
    pub max_prompt_length: Option<usize>,
    /// What to do with a prompt that leaves no room for an answer. Default `keep-end`; `srpo` shortens the prompt's
    /// beginning in any case but `drop`.
    #[serde(with = "LongPromptName")]
    #[schemars(with = "LongPromptName")]
    pub long_prompt: LongPrompt,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            validation: Vec::new(),
            on_bad_row: OnBadRow::Stop,
            max_length: 1024,
            max_prompt_length: None,
            long_prompt: LongPrompt::KeepEnd,
        }
    }
}

impl Data {
    /// How to read.
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions { on_bad_row: self.on_bad_row, ..ReadOptions::default() }
    }

    /// How long rows may be for a model whose context has `context` tokens.
    pub fn limits(&self, context: usize) -> Limits {
        Limits {
            max_length: self.max_length.min(context),
            max_prompt_length: self.max_prompt_length,
            long_prompt: self.long_prompt,
        }
    }
}

/// How [`OnBadRow`] is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "OnBadRow", rename_all = "kebab-case")]
enum OnBadRowName {
    /// Stop with an error that names the place.
    Stop,
    /// Pass over it, and count it in the report.
    Skip,
}

/// How [`LongPrompt`] is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "LongPrompt", rename_all = "kebab-case")]
enum LongPromptName {
    /// Stop with an error that names the row.
    Stop,
    /// Leave out the row.
    Drop,
    /// Cut the prompt to its end.
    KeepEnd,
    /// Cut the prompt to its beginning.
    KeepStart,
}

/// `[training]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Examples (pairs) per optimiser step.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// Examples computed at a time; the gradients of a step's micro-batches add up, so that this decides memory and
    /// speed, not the result (but for rounding).
    #[schemars(range(min = 1))]
    pub micro_batch: usize,
    /// Passes over the data, unless `steps` says otherwise.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Optimiser steps; unset by default: as many as `epochs` have.
    #[schemars(range(min = 1))]
    pub steps: Option<usize>,
    /// Peak learning rate of AdamW. TRL's default for the method; for adapters (`model.lora`) and tiny models 1e-5 to
    /// 3e-4 is usual.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub learning_rate: f64,
    /// Learning rate after the warm-up. Default as in TRL.
    pub schedule: Schedule,
    /// Steps over which the learning rate rises from 0. Default as in TRL: none.
    #[schemars(range(min = 0))]
    pub warmup_steps: usize,
    /// The warm-up as a share of all steps, instead of `warmup_steps`; unset by default.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_ratio: Option<f64>,
    /// AdamW's decoupled weight decay, of all weights but norms and biases. Default as in TRL.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
    /// AdamW's decay of the mean gradient, per step.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub beta1: f64,
    /// AdamW's decay of the mean squared gradient, per step.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1.0))]
    pub beta2: f64,
    /// AdamW's addition to the denominator.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub epsilon: f64,
    /// Largest norm of a step's gradient; longer ones are scaled down. 0: never. Default as in TRL.
    #[schemars(range(min = 0.0))]
    pub clip: f64,
    /// Parts into which a micro-batch is cut for workers on the CPU. 0 (default): one per core. The result depends on
    /// this number (in its rounding), not on the number of threads.
    #[schemars(range(min = 0, max = 1024))]
    pub shares: usize,
    /// Put examples of similar length into the same micro-batch. Default true.
    pub length_buckets: bool,
    /// Seed of every random draw of the run.
    pub seed: u64,
    /// Evaluate on `data.validation` every so many steps, and at the end. 0 (default): at the end only.
    pub evaluate_every: usize,
    /// Write a checkpoint every so many steps, and at the end. 0: at the end only. Default as in TRL.
    pub checkpoint_every: usize,
    /// Checkpoints to keep; older ones are removed.
    #[schemars(range(min = 1))]
    pub keep_checkpoints: usize,
    /// Write metrics every so many steps.
    #[schemars(range(min = 1))]
    pub log_every: usize,
    /// What to do when loss or gradient are no finite numbers.
    pub on_non_finite: OnNonFinite,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            batch: 32,
            micro_batch: 8,
            epochs: 1,
            steps: None,
            learning_rate: 1e-6,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            warmup_ratio: None,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            clip: 1.0,
            shares: 0,
            length_buckets: true,
            seed: 0,
            evaluate_every: 0,
            checkpoint_every: 500,
            keep_checkpoints: 2,
            log_every: 1,
            on_non_finite: OnNonFinite::Stop,
        }
    }
}

/// How the learning rate goes after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// A line down to 0 after the last step.
    #[default]
    Linear,
    /// Half a cosine down to 0 after the last step.
    Cosine,
}

impl Training {
    /// Number of optimiser steps over `examples` examples; the last step of an epoch may be smaller than the others.
    pub fn total_steps(&self, examples: usize) -> usize {
        self.steps.unwrap_or(self.epochs * examples.div_ceil(self.batch))
    }

    /// Learning rate of step `step` (from 0) of `total`, as transformers' schedulers have it: with a warm-up, the very
    /// first step has the rate 0.
    pub fn learning_rate_at(&self, step: usize, total: usize) -> f64 {
        let warmup = match self.warmup_ratio {
            Some(ratio) => (ratio * total as f64).ceil() as usize,
            None => self.warmup_steps,
        };
        if step < warmup {
            return self.learning_rate * step as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
        let factor = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => (1.0 - done).max(0.0),
            Schedule::Cosine => (0.5 * (1.0 + (PI * done.min(1.0)).cos())).max(0.0),
        };
        self.learning_rate * factor
    }
}

/// `[method.templates]`: the prompts G(x) and R(x, y1) of SRPO, of fine-tuning for it and of self-revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Templates {
    /// A built-in set. Default `auto`: by the form of the first prompt.
    pub set: TemplateSet,
    /// G for plain prompts instead of the set's, holding `{prompt}`; unset by default.
    pub generate: Option<String>,
    /// R for plain prompts instead of the set's, holding `{prompt}` and, after it, `{answer}`; unset by default.
    pub revise: Option<String>,
    /// For conversations: the user's turn that asks for a better answer, instead of the set's; unset by default.
    pub revise_turn: Option<String>,
}

/// Built-in prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateSet {
    /// `dialogues` where the first prompt ends in "Assistant:" as in Anthropic's files, else `instructions`.
    #[default]
    Auto,
    /// General instructions.
    Instructions,
    /// Dialogues in Anthropic's form.
    Dialogues,
    /// Summaries of posts (TL;DR).
    Summaries,
    /// Tasks over symbols with the words GEN and REV.
    Symbols,
}

impl Templates {
    /// The prompts, for data that begin with this prompt.
    ///
    /// # Errors
    /// A text of the user's that lacks a placeholder.
    pub fn resolve(&self, first_prompt: Option<&Text>) -> Result<RevisionTemplates> {
        let mut templates = match self.set {
            TemplateSet::Auto => first_prompt.map(RevisionTemplates::suited_to).unwrap_or_default(),
            TemplateSet::Instructions => RevisionTemplates::instructions(),
            TemplateSet::Dialogues => RevisionTemplates::dialogues(),
            TemplateSet::Summaries => RevisionTemplates::summaries(),
            TemplateSet::Symbols => RevisionTemplates::symbols(),
        };
        for (part, own) in [
            (&mut templates.generate, &self.generate),
            (&mut templates.revise, &self.revise),
            (&mut templates.revise_turn, &self.revise_turn),
        ] {
            if let Some(own) = own {
                part.clone_from(own);
            }
        }
        templates.check()?;
        Ok(templates)
    }

    /// Checks the user's texts before any data is read.
    ///
    /// # Errors
    /// As [`Templates::resolve`].
    pub fn check(&self) -> Result<()> {
        self.resolve(None).map(|_| ()).map_err(|problem| problem.place("method.templates"))
    }
}

#[cfg(test)]
mod tests {
    use polo_run::config::{Layers, commented_default, keys, load};

    use super::*;
    use crate::methods::{
        dpo::Dpo, ipo::Ipo, rdpo::Rdpo, rpo::Rpo, sft::Sft, simpo::Simpo, srpo::Srpo, tpo::Tpo, vpo::Vpo,
    };

    const GIVEN: [&str; 2] = ["model.path=m", "data.train=a.jsonl"];

    fn loaded<M: MethodSettings>(sets: &[&str]) -> Result<TrainSettings<M>> {
        let sets = GIVEN.iter().chain(sets).map(|set| (*set).into()).collect();
        load(&Layers { sets, ..Layers::default() }).map(|loaded| loaded.settings)
    }

    fn documented<M: MethodSettings>() {
        let keys = keys::<TrainSettings<M>>();
        assert!(keys.len() > 30, "{keys:?}");
        for key in keys {
            assert!(key.doc.len() > 8, "{} has no doc", key.key);
        }
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("default.toml");
        std::fs::write(&file, commented_default::<TrainSettings<M>>()).unwrap();
        let sets = GIVEN.map(Into::into).to_vec();
        let back = load::<TrainSettings<M>>(&Layers { file: Some(file), sets, ..Layers::default() });
        let mut defaults = TrainSettings::<M>::default();
        (defaults.model.path, defaults.data.train) = ("m".into(), vec!["a.jsonl".into()]);
        assert_eq!(
            serde_json::to_value(back.unwrap().settings).unwrap(),
            serde_json::to_value(&defaults).unwrap()
        );
    }

    #[test]
    fn every_key_is_documented_and_the_commented_default_loads_to_the_default() {
        documented::<Dpo>();
        documented::<Ipo>();
        documented::<Srpo>();
        documented::<Sft>();
        documented::<Rdpo>();
        documented::<Simpo>();
        documented::<Rpo>();
        documented::<Vpo>();
        documented::<Tpo>();
        documented::<crate::methods::dpo_survey::Survey>();
        documented::<crate::methods::token_dpo_q::TokenDpoQ>();
        documented::<crate::methods::self_supervised_po::SelfSupervisedPo>();
        documented::<crate::methods::reward_model::RewardModel>();
        documented::<crate::methods::curry_dpo::CurryDpo>();
        documented::<crate::methods::rso::Rso>();
        documented::<crate::methods::brain::Brain>();
    }

    #[test]
    fn keys_reach_their_settings() {
        let settings = loaded::<Srpo>(&[
            "method.alpha=0.8",
            "method.templates.set=symbols",
            "data.long_prompt=keep-start",
            "data.on_bad_row=skip",
            "model.lora.rank=4",
            "model.save_dtype=bf16",
            "training.schedule=cosine",
        ])
        .unwrap();
        assert_eq!(settings.method.alpha, 0.8);
        assert_eq!(settings.method.templates.resolve(None).unwrap(), RevisionTemplates::symbols());
        assert_eq!(settings.data.limits(100).long_prompt, LongPrompt::KeepStart);
        assert_eq!(settings.data.limits(100).max_length, 100);
        assert_eq!(settings.data.read_options().on_bad_row, OnBadRow::Skip);
        assert_eq!(settings.model.lora, Some(Lora { rank: 4, ..Lora::default() }));
        assert_eq!(settings.model.save_dtype, SaveDtype::Bf16);
        assert_eq!(loaded::<Sft>(&[]).unwrap().training.learning_rate, 2e-5);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        let refused = |sets: &[&str], expected: &str| {
            let problem = loaded::<Srpo>(sets).unwrap_err();
            let said = format!("{problem} {:?}", problem.hint_text());
            assert!(said.contains(expected), "{said}");
        };
        refused(&["method.beta=0"], "method.beta");
        refused(&["method.alpha=1.5"], "method.alpha");
        refused(&["method.btea=1"], "method.beta");
        refused(&["training.lr=1e-5"], "training.learning_rate");
        refused(&["training.micro_batch=64"], "micro_batch is 64");
        refused(&["training.warmup_steps=5", "training.warmup_ratio=0.1"], "warm-up is given twice");
        refused(&["method.templates.revise=improve {prompt}"], "{answer}");
        refused(&["model.path="], "--model");
        refused(&["data.train=[]"], "--data");
    }

    #[test]
    fn learning_rates_follow_transformers() {
        let check = |training: &Training, step, expected: f64| {
            let rate = training.learning_rate_at(step, 20);
            assert!((rate - expected).abs() < 1e-15, "step {step}: {rate} is not {expected}");
        };
        let linear = Training { learning_rate: 1e-3, ..Training::default() };
        check(&linear, 0, 1e-3);
        check(&linear, 19, 0.05e-3);
        let warm = Training { warmup_steps: 4, ..linear.clone() };
        check(&warm, 0, 0.0);
        check(&warm, 1, 0.25e-3);
        check(&warm, 4, 1e-3);
        check(&warm, 12, 0.5e-3);
        let cosine = Training { schedule: Schedule::Cosine, warmup_ratio: Some(0.2), ..linear.clone() };
        check(&cosine, 4, 1e-3);
        check(&cosine, 12, 0.5e-3);
        check(&Training { schedule: Schedule::Constant, ..linear.clone() }, 19, 1e-3);
        assert_eq!(linear.total_steps(65), 3);
    }
}
