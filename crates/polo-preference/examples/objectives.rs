//! What a step of each objective costs beside DPO's. See `bench/README.md`.
//!
//!     cargo run --release -p polo-preference --example objectives -- MODEL PAIRS
//!
//! Every objective learns from the same pairs, in batches of eight of them; log-probs of a frozen reference are taken as
//! computed, so that times are those of forward and backward passes of the trained model, and of a live reference where
//! the objective asks one. Times are medians of interleaved repetitions.

use std::{path::PathBuf, time::Instant};

use polo_lm::{
    encode::{Limits, LongPrompt},
    model::LanguageModel,
    tokens::Tokenizer,
    weights,
};
use polo_nn::device;
use polo_preference::{
    methods::{
        dpo::Dpo,
        dpo_survey::{LossName, Survey, TokenWeights},
        ipo::Ipo,
        rdpo::Rdpo,
        reward_model::RewardModel,
        rpo::Rpo,
        self_supervised_po::{Extractor, SelfSupervisedPo},
        simpo::Simpo,
        srpo::Srpo,
        token_dpo_q::TokenDpoQ,
        vpo::Vpo,
    },
    objective::{self, Example, PairObjective},
    settings::{Data, Training},
    trainer::Trainer,
};
use polo_run::{Problem, Result, seed::Seeds, stats};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAIRS: usize = 32;
const BATCH: usize = 8;
const REPETITIONS: usize = 5;

struct Contestant {
    name: &'static str,
    objective: Box<dyn PairObjective>,
    model: LanguageModel,
    examples: Vec<Example>,
    references: Vec<Vec<f64>>,
    /// Examples that eight pairs make.
    batch: usize,
    /// Tokens through the trained network, per pair.
    tokens: f64,
    pairs_per_second: Vec<f64>,
}

fn of(loss: LossName) -> Survey {
    Survey { loss, ..Survey::default() }
}

fn objectives() -> Vec<(&'static str, Box<dyn PairObjective>)> {
    vec![
        ("dpo", Box::new(Dpo::default())),
        ("ipo", Box::new(Ipo::default())),
        ("rdpo", Box::new(Rdpo::default())),
        ("rpo", Box::new(Rpo::default())),
        ("vpo", Box::new(Vpo::default())),
        ("token-dpo-q", Box::new(TokenDpoQ::default())),
        ("simpo", Box::new(Simpo::default())),
        ("cpo", Box::new(of(LossName::Cpo))),
        ("orpo", Box::new(of(LossName::Orpo))),
        ("orpo, prompt learnt", Box::new(Survey { prompt_nll: true, ..of(LossName::Orpo) })),
        ("aot", Box::new(of(LossName::Aot))),
        ("discopop", Box::new(of(LossName::Discopop))),
        ("sigmoid, WPO", Box::new(Survey { weighting: true, ..Survey::default() })),
        ("sigmoid, SamPO", Box::new(Survey { tokens: TokenWeights::Sampo, ..Survey::default() })),
        ("bco (two answers of one prompt apart)", Box::new(of(LossName::Bco))),
        ("kto (the same, each with a mismatch)", Box::new(of(LossName::Kto))),
        ("tdpo1 (live reference)", Box::new(of(LossName::Tdpo1))),
        ("sigmoid, TR-DPO (live reference)", Box::new(Survey { sync_every: 1000, ..Survey::default() })),
        ("reward-model", Box::new(RewardModel::default())),
        (
            "self-supervised-po (eight further answers)",
            Box::new(SelfSupervisedPo { extractor: Extractor::Random, ..SelfSupervisedPo::default() }),
        ),
        ("srpo (six answers to three prompts)", Box::new(Srpo::default())),
    ]
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, data] = &arguments[..] else {
        return Err(Problem::usage("usage: objectives MODEL PAIRS"));
    };
    let tokenizer = Tokenizer::load(folder)?;
    let model = weights::load(folder, &device::parse("cpu")?)?.model;
    let limits = Limits { long_prompt: LongPrompt::Drop, ..Data::default().limits(512) };
    let training = |batch| Training { batch, micro_batch: batch, ..Training::default() };
    let mut contestants = Vec::new();
    for (name, objective) in objectives() {
        let read =
            objective::read(objective.as_ref(), std::slice::from_ref(data), &Data::default().read_options())?;
        let mut examples = objective.encode(&read.0, &tokenizer, &limits)?.rows;
        let per_pair = if matches!(objective.reads(), objective::Reads::Unpaired) { 2 } else { 1 };
        examples.truncate(2 * PAIRS * per_pair);
        let mut model = model.clone();
        if let Some(readout) = objective.readout() {
            model.add_readout("score", readout.outputs, readout.std, readout.bias, &Seeds::new(0));
        }
        let references =
            examples.iter().map(|example| vec![-100.0; example.answer_tokens().count()]).collect();
        contestants.push(Contestant {
            name,
            objective,
            model,
            examples,
            references,
            batch: BATCH * per_pair,
            tokens: 0.0,
            pairs_per_second: Vec::new(),
        });
    }
    // The first rows that no objective leaves out.
    let in_all =
        |id: &String| contestants.iter().all(|c: &Contestant| c.examples.iter().any(|e| e.id == *id));
    let ids: Vec<String> =
        contestants[0].examples.iter().map(|example| example.id.clone()).filter(in_all).take(PAIRS).collect();
    if ids.len() < PAIRS {
        return Err(Problem::usage(format!("{} rows are of use, and {PAIRS} are needed", ids.len())));
    }
    for contestant in &mut contestants {
        contestant.examples.retain(|example| ids.contains(&example.id));
        contestant.references.truncate(contestant.examples.len());
    }
    for _ in 0..REPETITIONS {
        for contestant in &mut contestants {
            let Contestant { objective, model, examples, references, batch, .. } = &*contestant;
            let trainer =
                Trainer::new(model.clone(), objective.as_ref(), training(*batch), examples, references);
            let (clock, mut tokens) = (Instant::now(), 0);
            for first in (0..examples.len()).step_by(*batch) {
                let members: Vec<usize> = (first..(first + batch).min(examples.len())).collect();
                tokens += std::hint::black_box(trainer.push_back(&members)).tokens;
            }
            let pairs = (examples.len() * BATCH / batch) as f64;
            let seconds = clock.elapsed().as_secs_f64();
            contestant.tokens = tokens as f64 / pairs;
            contestant.pairs_per_second.push(pairs / seconds);
        }
    }
    println!(
        "| objective | pairs/s | time, of DPO's | tokens through the network, of DPO's |\n|---|---|---|---|"
    );
    let median = |contestant: &Contestant| stats::median(&contestant.pairs_per_second).unwrap_or(f64::NAN);
    let (speed, tokens) = (median(&contestants[0]), contestants[0].tokens);
    for contestant in &contestants {
        let (own, share) = (median(contestant), contestant.tokens / tokens);
        println!("| {} | {own:.2} | {:.2} | {share:.2} |", contestant.name, speed / own);
    }
    Ok(())
}
