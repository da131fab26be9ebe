//! The ladder of the DPO bench: what each measure brings. See `bench/README.md`.
//!
//!     cargo run --release -p polo-preference --example ladder -- MODEL DATA
//!
//! Every rung computes the same pairs' loss and gradients; times are medians of interleaved repetitions.

use std::{path::PathBuf, time::Instant};

use polo_lm::{encode::Limits, tokens::Tokenizer, weights};
use polo_nn::device;
use polo_preference::{
    methods::dpo::Dpo,
    objective::{self, Example, PairObjective, Tree},
    settings::{Data, Training},
    trainer::Trainer,
};
use polo_run::{Problem, Result, stats};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAIRS: usize = 32;
const BATCH: usize = 8;
const REPETITIONS: usize = 5;

/// Each answer with a prompt of its own.
fn unshared(example: &Example) -> Example {
    let trees = example.trees.iter().flat_map(|tree| {
        tree.answers.iter().map(|answer| Tree { prompt: tree.prompt.clone(), answers: vec![answer.clone()] })
    });
    Example { trees: trees.collect(), ..example.clone() }
}

/// Every answer lengthened so that prompt and answer have `length` tokens; the padding is computed and scored.
fn padded(example: &Example, length: usize) -> Example {
    let mut example = unshared(example);
    for tree in &mut example.trees {
        let missing = length - tree.prompt.len() - tree.answers[0].len();
        tree.answers[0].extend(vec![0; missing]);
    }
    example
}

/// Log-probs of all tokens instead of the answer's alone.
fn fully_scored(example: &Example) -> Example {
    let mut example = example.clone();
    for tree in &mut example.trees {
        let rest = tree.prompt.split_off(1);
        tree.answers[0] = [rest, tree.answers[0].clone()].concat();
    }
    example
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, data] = &arguments[..] else {
        return Err(Problem::usage("usage: ladder MODEL DATA"));
    };
    let tokenizer = Tokenizer::load(model)?;
    let model = weights::load(model, &device::parse("cpu")?)?.model;
    let objective = Dpo::default();
    let (rows, _) = objective::read(&objective, std::slice::from_ref(data), &Data::default().read_options())?;
    let limits = Limits { max_length: 512, ..Data::default().limits(512) };
    let mut examples = objective.encode(&rows, &tokenizer, &limits)?.rows;
    examples.truncate(PAIRS);
    let whole = |tree: &Tree| tree.prompt.len() + tree.answers.iter().map(Vec::len).max().unwrap_or(0);
    let batches = examples.chunks(BATCH);
    let to_longest: Vec<Example> = batches
        .flat_map(|batch| {
            let longest = batch.iter().flat_map(|example| &example.trees).map(whole).max().unwrap_or(0);
            batch.iter().map(move |example| padded(example, longest)).collect::<Vec<_>>()
        })
        .collect();
    let rungs: Vec<(&str, usize, Vec<Example>)> = vec![
        ("padded, every token scored, one worker", 1, to_longest.iter().map(fully_scored).collect()),
        ("packed: no padding", 1, examples.iter().map(unshared).map(|e| fully_scored(&e)).collect()),
        ("log-probs of answers alone", 1, examples.iter().map(unshared).collect()),
        ("chosen and rejected share their prompt", 1, examples.clone()),
        ("two workers", 2, examples.clone()),
    ];
    let mut times = vec![Vec::new(); rungs.len()];
    for _ in 0..REPETITIONS {
        for ((_, shares, examples), times) in rungs.iter().zip(&mut times) {
            let training =
                Training { batch: BATCH, micro_batch: BATCH, shares: *shares, ..Training::default() };
            let references = vec![vec![0.0; 2]; examples.len()];
            let trainer = Trainer::new(model.clone(), &objective, training, examples, &references);
            let clock = Instant::now();
            for first in (0..examples.len()).step_by(BATCH) {
                let members: Vec<usize> = (first..(first + BATCH).min(examples.len())).collect();
                std::hint::black_box(trainer.push_back(&members).loss);
            }
            times.push(examples.len() as f64 / clock.elapsed().as_secs_f64());
        }
    }
    println!("| measure | pairs/s | times the rung above |\n|---|---|---|");
    let mut before = None;
    for ((name, ..), times) in rungs.iter().zip(&times) {
        let median = stats::median(times).unwrap_or(f64::NAN);
        let ratio = before.map_or_else(String::new, |before: f64| format!("{:.2}", median / before));
        println!("| {name} | {median:.2} | {ratio} |");
        before = Some(median);
    }
    Ok(())
}
