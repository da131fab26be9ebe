//! `polo train` for the offline-pairs regime: a model folder and files of rows in, a run folder out.
//!
//! Everything that makes a run trustworthy and is the same for every method stands here: reading and encoding the
//! data, reference log-probs computed once and kept under a content key, checkpoints, resuming, interrupts, metrics,
//! the final model folder and the report.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use polo_lm::{
    model::LanguageModel,
    tokens::Tokenizer,
    weights::{self, Format, Lora},
};
use polo_nn::{Device, device, host};
use polo_run::{
    Kind, Problem, Result,
    checkpoint::Checkpoints,
    config::Loaded,
    folder::{Resume, RunFolder, write_atomic},
    guard::{Guard, GuardState},
    human,
    interrupt::Interrupt,
    metrics::{MetricLog, Metrics, Split},
    progress::{self, Progress},
    report,
    seed::Seeds,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    objective::{self, Example, Rows},
    settings::{MethodSettings, SaveDtype, TrainSettings},
    trainer::{self, References, Trainer},
};

/// Keys whose change does not change what a resumed run computes.
const FREE: [&str; 5] = [
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.on_non_finite",
    "model.save_dtype",
    "data.validation",
];

/// In the `config.json` of a reward model: whether it compares two answers.
pub const READS_PAIRS: &str = "polo_reads_pairs";

/// A model folder opened for training, with adapters if asked for.
pub struct Start {
    /// The model to train.
    pub model: LanguageModel,
    /// Its `config.json`.
    pub config: Value,
    /// Number format of its files.
    pub format: Format,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Settings of the adapters, if any.
    pub lora: Option<Lora>,
    /// sha256 of the weights before adapters.
    pub fingerprint: String,
    /// The reference where it is another model, with the sha256 of its weights.
    pub reference: Option<(LanguageModel, String)>,
}

impl Start {
    /// The reference model and the sha256 of its weights. Adapters begin at zero, so the model with fresh adapters is
    /// the reference itself.
    fn reference(&self) -> (&LanguageModel, &str) {
        match &self.reference {
            Some((model, fingerprint)) => (model, fingerprint),
            None => (&self.model, &self.fingerprint),
        }
    }
}

/// Opens the model of a configuration.
///
/// # Errors
/// A device that does not answer, a model folder that cannot be used, a wrong tokenizer, unknown LoRA targets.
pub fn open<M: MethodSettings>(settings: &TrainSettings<M>) -> Result<Start> {
    let folder = &settings.model.path;
    let device = device::parse(&settings.model.device).map_err(|problem| problem.place("model.device"))?;
    let weights::Loaded { mut model, config, format } = weights::load(folder, &device)?;
    let tokenizer = Tokenizer::load(folder)?;
    tokenizer.check_vocabulary(model.architecture.vocabulary)?;
    let fingerprint = fingerprint(&model);
    let reference = match (&settings.model.reference, settings.method.uses_reference()) {
        (None, _) => None,
        (Some(folder), true) => {
            let other = another(folder, &tokenizer, &device)?;
            if other.architecture.vocabulary != model.architecture.vocabulary {
                return Err(Problem::input(format!(
                    "the reference knows {} tokens, and the model {}",
                    other.architecture.vocabulary, model.architecture.vocabulary
                ))
                .place(folder.display().to_string())
                .hint("take a reference that was trained from the same base"));
            }
            let fingerprint = self::fingerprint(&other);
            Some((other, fingerprint))
        }
        (Some(_), false) => {
            return Err(Problem::usage("the method has no reference")
                .place("model.reference")
                .hint("remove model.reference"));
        }
    };
    if settings.method.live_reference().is_some_and(|live| live.follows.is_some()) {
        if settings.model.lora.is_some() {
            return Err(Problem::usage(
                "a reference that follows the model moves whole weights, not adapters",
            )
            .place("model.lora")
            .hint("train without adapters, or set method.sync_every = 0"));
        }
        let shapes = |model: &LanguageModel| -> Vec<_> {
            model
                .parameters
                .iter()
                .map(|parameter| (parameter.name.clone(), parameter.value.dims()))
                .collect()
        };
        if reference.as_ref().is_some_and(|(other, _)| shapes(other) != shapes(&model)) {
            return Err(Problem::usage("the reference cannot follow a model of other sizes")
                .place("model.reference")
                .hint("take a reference of the same sizes, or set method.sync_every = 0"));
        }
    }
    let lora = settings.model.lora.as_ref().map(|lora| Lora {
        rank: lora.rank,
        alpha: lora.alpha,
        targets: lora.targets.iter().filter(|target| *target != "all-linear").cloned().collect(),
    });
    if let Some(lora) = &lora {
        model.add_low_rank(lora, &Seeds::new(settings.training.seed).child("lora"))?;
    }
    match settings.method.readout() {
        Some(readout) => readout.give(&mut model, settings.training.seed),
        None => model.drop_readout(),
    }
    Ok(Start { model, config, format, tokenizer, lora, fingerprint, reference })
}

/// sha256 of a model's weights.
fn fingerprint(model: &LanguageModel) -> String {
    let mut hash = Sha256::new();
    for parameter in model.parameters.iter() {
        hash.update(parameter.name.as_bytes());
        host::numbers(&parameter.value).iter().for_each(|x| hash.update(x.to_le_bytes()));
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows that were read and encoded.
pub struct Examples {
    /// What the method learns from.
    pub examples: Vec<Example>,
    /// One line for a person: how many rows, what was left out and why.
    pub summary: String,
    /// sha256 of the rows.
    pub sha256: String,
}

/// Reads files and encodes them for a method.
///
/// # Errors
/// Unusable rows under a policy of stopping; nothing left to learn from.
pub fn read<M: MethodSettings>(
    settings: &TrainSettings<M>,
    files: &[PathBuf],
    start: &Start,
) -> Result<Examples> {
    let (rows, report): (Rows, _) = objective::read(&settings.method, files, &settings.data.read_options())?;
    let limits = settings.data.limits(start.model.architecture.context);
    let encoded = settings.method.encode(&rows, &start.tokenizer, &limits)?;
    if encoded.rows.is_empty() {
        return Err(Problem::input("no row is left to learn from")
            .place(files.first().map_or_else(String::new, |file| file.display().to_string()))
            .hint("all were skipped or too long; see data.max_length and data.on_bad_row"));
    }
    let mut summary = format!("{} examples from {} rows", encoded.rows.len(), report.rows);
    for (count, what) in [(report.skipped, "bad rows skipped"), (report.duplicates, "duplicates kept")] {
        if count > 0 {
            summary += &format!(", {count} {what}");
        }
    }
    Ok(Examples { examples: encoded.rows, summary, sha256: report.sha256 })
}

/// Another model than the one that is trained, of the same tokenizer.
fn another(folder: &Path, tokenizer: &Tokenizer, device: &Device) -> Result<LanguageModel> {
    let weights::Loaded { mut model, .. } = weights::load(folder, device)?;
    if Tokenizer::load(folder)?.fingerprint() != tokenizer.fingerprint() {
        return Err(Problem::input("its tokenizer is not that of the model that is trained")
            .place(folder.display().to_string())
            .hint("all models of a run must be trained from the same base"));
    }
    model.drop_readout();
    Ok(model)
}

/// Reference scores of `examples`, from the cache if they are there. The key covers the weights and every token.
///
/// # Errors
/// The cache folder cannot be written.
pub fn references<M: MethodSettings>(
    settings: &TrainSettings<M>,
    start: &Start,
    examples: &[Example],
    cache: &Path,
) -> Result<References> {
    if !settings.method.uses_reference() || settings.method.live_reference().is_some() {
        return Ok(Vec::new());
    }
    let mut hash = Sha256::new();
    hash.update(b"reference scores 1");
    let (reference, fingerprint) = start.reference();
    hash.update(fingerprint);
    for weights in examples.iter().flat_map(|example| &example.weights) {
        weights.iter().for_each(|weight| hash.update(weight.to_le_bytes()));
    }
    for tokens in examples.iter().flat_map(|example| &example.read) {
        hash.update((tokens.len() as u64).to_le_bytes());
        tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
    }
    for answers in examples.iter().flat_map(|example| &example.trees) {
        for tokens in std::iter::once(&answers.prompt).chain(&answers.answers) {
            hash.update((tokens.len() as u64).to_le_bytes());
            tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        }
    }
    let path = cache.join(format!("reference-{}.bin", &hex(&hash.finalize())[..32]));
    let slots = examples.first().map_or(0, |example| example.answer_tokens().count());
    if let Ok(bytes) = fs::read(&path)
        && let Some((digest, body)) = bytes.split_at_checked(32)
        && digest == &Sha256::digest(body)[..]
        && body.len() == 8 * slots * examples.len()
    {
        let numbers: Vec<f64> = body.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        return Ok(numbers.chunks_exact(slots).map(<[f64]>::to_vec).collect());
    }
    let bar = Progress::new("reference log-probs", examples.len() as u64, "examples");
    let scores = trainer::score(reference, examples, &settings.training, |done| bar.step(done as u64, &[]));
    bar.finish();
    let body: Vec<u8> = scores.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    fs::create_dir_all(cache).map_err(|error| Problem::io("create", cache, &error))?;
    write_atomic(&path, &[&Sha256::digest(&body)[..], &body].concat())?;
    Ok(scores)
}

/// How a run ended.
pub struct Outcome {
    /// The trained model's folder.
    pub final_model: PathBuf,
    /// Metrics of the last evaluation, or of the last step where nothing was evaluated.
    pub metrics: Metrics,
}

/// Trains. `out` is the run folder.
///
/// # Errors
/// Everything that can be wrong with input; a run that diverged; [`Kind::Interrupted`] after a signal, with a
/// checkpoint written.
pub fn train<M: MethodSettings>(
    loaded: &Loaded<TrainSettings<M>>,
    label: &str,
    out: &Path,
    resume: Resume,
) -> Result<Outcome> {
    let settings = &loaded.settings;
    let interrupt = Interrupt::install()?;
    let folder = RunFolder::open(out, resume)?;
    let mut start = open(settings)?;
    let began = started(out);
    start.tokenizer.set_now(began);
    let mut train = read(settings, &settings.data.train, &start)?;
    let mut validation = match settings.data.validation.is_empty() {
        true => None,
        false => Some(read(settings, &settings.data.validation, &start)?),
    };
    if let Some(folders) = settings.method.contrast() {
        let open = |folder| another(folder, &start.tokenizer, start.model.device());
        let models = [open(folders[0])?, open(folders[1])?];
        for examples in std::iter::once(&mut train).chain(&mut validation) {
            let scores = [&models[0], &models[1]]
                .map(|model| trainer::score_tokens(model, &examples.examples, &settings.training, |_| {}));
            settings.method.weigh(&mut examples.examples, scores);
        }
    }
    for examples in std::iter::once(&mut train).chain(&mut validation) {
        settings.method.prepare(&mut examples.examples, &|examples| {
            trainer::score_tokens(start.reference().0, examples, &settings.training, |_| {})
        });
    }
    // Settled after the input is known to be good, so that a run that never began leaves its folder usable.
    folder.settle(&loaded.given, &loaded.resolved, &FREE)?;
    write_atomic(&out.join("started"), began.to_string().as_bytes())?;
    let checkpoints = Checkpoints::new(folder.checkpoints(), settings.training.keep_checkpoints)?;
    let latest = checkpoints.latest()?;
    latest.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));

    let cache = out.join("cache");
    let clock = Instant::now();
    let train_references = references(settings, &start, &train.examples, &cache)?;
    let validation_references = match &validation {
        Some(validation) => references(settings, &start, &validation.examples, &cache)?,
        None => Vec::new(),
    };
    let reference_seconds = clock.elapsed().as_secs_f64();
    let mut trainer = Trainer::new(
        start.model.clone(),
        &settings.method,
        settings.training.clone(),
        &train.examples,
        &train_references,
    );
    if let Some((reference, _)) = &start.reference {
        trainer.set_reference(reference.clone());
    }
    let mut last_good = None;
    if let Some(checkpoint) = &latest.checkpoint {
        let reference = start.reference().1.to_owned();
        for (key, now, what) in [
            ("model", &start.fingerprint, "the model folder"),
            ("reference", &reference, "the reference's folder"),
            ("data", &train.sha256, "the training data"),
        ] {
            // Checkpoints of versions without `model.reference` do not name one.
            let before = checkpoint.meta[key].as_str().or((key == "reference").then_some(now));
            if before != Some(now) {
                return Err(Problem::usage(format!("{what} changed since this run began"))
                    .place(checkpoint.path.display().to_string())
                    .hint("restore it, or start a new run in another folder"));
            }
        }
        let done = usize::try_from(checkpoint.step).unwrap_or(usize::MAX);
        trainer.load_state(&checkpoint.path, done, checkpoint.meta["applied"].as_u64().unwrap_or(0))?;
        let state: GuardState = serde_json::from_value(checkpoint.meta["guard"].clone()).unwrap_or_default();
        trainer.guard = Guard::resumed(settings.training.on_non_finite, state);
        trainer.state = serde_json::from_value(checkpoint.meta["objective"].clone()).unwrap_or_default();
        last_good = Some(checkpoint.path.clone());
    }
    let reference = start.reference().1.to_owned();
    drop((start.model, start.reference));
    let mut log = MetricLog::open(out, latest.checkpoint.as_ref().map(|checkpoint| checkpoint.step))?;

    let mut timings = Metrics::new();
    timings.set("reference_seconds", reference_seconds);
    log.write_timings(trainer.done() as u64, Split::Train, &timings)?;

    let (all, trainable) = trainer.model.parameters.count();
    let total = trainer.total();
    let bar = Progress::new(label, total as u64, "steps");
    bar.say(&format!(
        "{}: {}, {} of {} parameters trained, {total} steps",
        label,
        train.summary,
        human::count(trainable as u64),
        human::count(all as u64),
    ));
    if trainer.done() > 0 {
        bar.say(&format!("resumed after step {}", trainer.done()));
    }
    let mut metrics = Metrics::new();
    while trainer.done() < total {
        let clock = Instant::now();
        let step = trainer.step(last_good.as_deref())?;
        let seconds = clock.elapsed().as_secs_f64();
        let number = step.number as u64;
        bar.step(number, &[("loss", step.metrics.get("loss").unwrap_or(f64::NAN))]);
        let ends = step.number == total;
        if step.number.is_multiple_of(settings.training.log_every) || ends {
            log.write(number, Split::Train, &step.metrics)?;
            let mut timings = Metrics::new();
            timings.set("seconds", seconds);
            timings.set("examples_per_second", step.examples as f64 / seconds);
            timings.set("tokens_per_second", step.tokens as f64 / seconds);
            if let Some(peak) = progress::peak_memory_bytes() {
                timings.set("peak_memory_bytes", peak as f64);
            }
            log.write_timings(number, Split::Train, &timings)?;
        }
        metrics = step.metrics;
        let due = |every: usize| every > 0 && step.number.is_multiple_of(every);
        if let Some(validation) = &validation
            && (due(settings.training.evaluate_every) || ends)
        {
            metrics = trainer.evaluate(&validation.examples, &validation_references);
            log.write(number, Split::Eval, &metrics)?;
            let accuracy = metrics.get("rewards/accuracies");
            bar.say(&format!(
                "step {number}: validation loss {:.4}{}",
                metrics.get("loss").unwrap_or(f64::NAN),
                accuracy.map_or_else(String::new, |share| format!(
                    ", preference accuracy {:.1} %",
                    100.0 * share
                )),
            ));
        }
        let stop = interrupt.requested() && !ends;
        if due(settings.training.checkpoint_every) || ends || stop {
            let staging = checkpoints.begin(number)?;
            trainer.save_state(staging.path())?;
            let meta = json!({
                "model": start.fingerprint, "reference": reference, "data": train.sha256,
                "applied": trainer.applied(), "guard": trainer.guard.state(), "objective": trainer.state,
            });
            last_good = Some(checkpoints.finish(staging, meta)?.path);
        }
        if stop {
            bar.finish();
            return Err(Problem::new(Kind::Interrupted, format!("stopped after step {number}, as asked"))
                .hint("continue with the same command and --resume auto"));
        }
    }
    bar.finish();
    let final_model = folder.final_model()?;
    let format = match settings.model.save_dtype {
        SaveDtype::Same => start.format,
        SaveDtype::F32 => Format::F32,
        SaveDtype::Bf16 => Format::Bf16,
        SaveDtype::F16 => Format::F16,
    };
    let base = &settings.model.path;
    let keep = settings.method.readout().is_some_and(|readout| readout.keep);
    if !keep {
        trainer.model.drop_readout();
    }
    match &start.lora {
        // An adapter's file has no place for a readout: such a model is saved whole.
        Some(lora) if !keep => {
            trainer.model.save_adapter(lora, &base.to_string_lossy(), format, &final_model)?
        }
        _ => {
            let mut config = start.config.clone();
            if let Some(config) = config.as_object_mut() {
                config.remove(READS_PAIRS);
                if settings.method.readout().is_some_and(|readout| readout.pairs) {
                    config.insert(READS_PAIRS.into(), true.into());
                }
            }
            weights::save(&trainer.model, &config, format, &final_model)?;
            let generation = base.join("generation_config.json");
            if let Ok(bytes) = fs::read(&generation) {
                write_atomic(&final_model.join("generation_config.json"), &bytes)?;
            }
        }
    }
    start.tokenizer.save(&final_model)?;
    let words = report::Words { method: label, steps: "optimiser updates", evaluated: "held out" };
    report::training_report(out, words)?;
    Ok(Outcome { final_model, metrics })
}

/// When the run began, in seconds since 1970: chat templates may print the date, and a resumed run must print the
/// same one.
fn started(out: &Path) -> u64 {
    let path = out.join("started");
    if let Ok(text) = fs::read_to_string(&path)
        && let Ok(seconds) = text.trim().parse()
    {
        return seconds;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a run would do, as (what, how much) lines, before anything heavy starts.
///
/// # Errors
/// As the beginning of [`train`].
pub fn plan<M: MethodSettings>(settings: &TrainSettings<M>) -> Result<Vec<(String, String)>> {
    let start = open(settings)?;
    let data = read(settings, &settings.data.train, &start)?;
    let training = &settings.training;
    let (all, trainable) = start.model.parameters.count();
    let stages = settings.method.stages(&data.examples, &[], &Seeds::new(training.seed));
    let steps: usize = trainer::stage_steps(&stages, training).iter().sum();
    let tokens: usize = data.examples.iter().map(trainer::length).sum();
    let scored: usize = data.examples.iter().flat_map(Example::answer_tokens).sum();
    let per_example = tokens as f64 / data.examples.len() as f64;
    let a = &start.model.architecture;
    let (queries, keys) = (a.heads.queries * a.heads.width, a.heads.keys * a.heads.width);
    let kept_per_token = a.layers * (2 * a.width + 2 * queries + 2 * keys + 2 * a.inner) + 4 * a.width;
    let shares = if training.shares == 0 { polo_nn::shares::default_count() } else { training.shares };
    let weights = 4 * all as u64;
    let optimiser = 4 * trainable as u64 * (2 + shares as u64);
    let activations = (4.0 * per_example * training.micro_batch as f64 * kept_per_token as f64) as u64;
    let workspace =
        (4.0 * per_example * training.micro_batch as f64 * (2 * a.inner + 4 * a.width) as f64) as u64;
    let reference = match (settings.method.uses_reference(), settings.method.live_reference()) {
        (false, _) => "none",
        (true, None) => "one pass over the data, then cached",
        (true, Some(_)) => "a second model in memory, one pass at every step",
    };
    let lines: Vec<(&str, String)> = vec![
        ("parameters", format!("{} ({} trained)", human::count(all as u64), human::count(trainable as u64))),
        ("data", data.summary),
        (
            "tokens per example",
            format!("{per_example:.0} computed, {:.0} scored", scored as f64 / data.examples.len() as f64),
        ),
        (
            "steps",
            format!(
                "{steps}{}, of {} examples in micro-batches of {}",
                match stages.members.len() {
                    1 => String::new(),
                    stages => format!(" in {stages} stages"),
                },
                training.batch,
                training.micro_batch
            ),
        ),
        ("tokens per step", human::count((per_example * training.batch as f64) as u64)),
        ("workers", format!("{shares} shares")),
        ("reference", reference.into()),
        (
            "peak memory",
            format!(
                "about {}: weights {}, gradients and optimiser {}, activations {}",
                human::bytes(weights + optimiser + activations + workspace),
                human::bytes(weights),
                human::bytes(optimiser),
                human::bytes(activations + workspace)
            ),
        ),
        (
            "a checkpoint holds",
            format!("{}: trained weights, both moments", human::bytes(12 * trainable as u64)),
        ),
    ];
    Ok(lines.into_iter().map(|(what, value)| (what.to_owned(), value)).collect())
}
