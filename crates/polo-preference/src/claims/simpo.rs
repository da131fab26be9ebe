//! SimPO's claim on the verbose copier: rewards that rank as generation does, and no longer answers than DPO's.
//!
//! A prompt is six symbols. Good answers name each of them once and nothing else; the start names most of them, in any
//! order, between symbols that do not belong there. Labels follow quality with a mild taste for length. Everything is in
//! token ids, so that lengths are exact.

use std::path::Path;

use polo_lm::{
    family::{Family, Preset, new_config},
    generate::{Completion, Sampling},
    model::LanguageModel,
    weights,
};
use polo_nn::device;
use polo_run::{
    Result,
    claims::{ClaimResult, Expected, Table},
    seed::{Seeds, below, unit},
    stats,
};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{
    bench::{self, BATCH, TUNING_SEED, effect, training},
    tabular::sigmoid,
};
use crate::{
    methods::{
        dpo::Dpo,
        dpo_survey::{LossName, Survey},
        sft::Sft,
        simpo::Simpo,
    },
    objective::{Example, PairObjective, Reduction},
    settings::Schedule,
    trainer,
};

struct Budget {
    imitation_steps: usize,
    pairs: usize,
    steps: usize,
    /// Held-out pairs, and prompts of generation.
    held_out: usize,
}

const FULL: Budget = Budget { imitation_steps: 1500, pairs: 8000, steps: 600, held_out: 2000 };
const QUICK: Budget = Budget { imitation_steps: 20, pairs: 120, steps: 6, held_out: 40 };

const RATE: f64 = 3e-4;
/// Margin of SimPO, nats per token, and of its sums, as gamma.
const RHO: f64 = 0.25;

// --- The task ----------------------------------------------------------------------------------------------------

/// Content symbols; ids `0..SYMBOLS`.
const SYMBOLS: usize = 20;
/// The end token.
const END: u32 = SYMBOLS as u32;
/// Tokens of the vocabulary.
const VOCABULARY: usize = SYMBOLS + 1;
/// Symbols of a prompt, all different.
const PROMPT: usize = 6;
/// Most symbols of an answer.
const LONGEST: usize = 20;
/// Probability that a demonstration names a symbol of its prompt, and most symbols that it adds at random.
const NAMED: f64 = 0.7;
const FILLER: usize = 10;
/// What a labeller makes of quality, and of a symbol more.
const TASTE: (f64, f64) = (6.0, 0.05);

/// The symbols before the end token.
fn body(answer: &[u32]) -> &[u32] {
    &answer[..answer.iter().take_while(|&&token| token != END).count()]
}

/// The share of the prompt's symbols that are named, less half the share of the answer's symbols that are repeated or
/// do not belong there; -1/2 to 1.
fn quality(prompt: &[u32], answer: &[u32]) -> f64 {
    let answer = body(answer);
    let named = prompt.iter().filter(|symbol| answer.contains(symbol)).count();
    let wasted = (answer.len() - named) as f64 / answer.len().max(1) as f64;
    named as f64 / PROMPT as f64 - 0.5 * wasted
}

fn shuffle(symbols: &mut [u32], rng: &mut ChaCha8Rng) {
    for last in (1..symbols.len()).rev() {
        symbols.swap(last, below(rng, last as u64 + 1) as usize);
    }
}

fn prompts(n: usize, seeds: &Seeds, part: &str) -> Vec<Vec<u32>> {
    let one = |index| {
        let all = seeds.shuffled(SYMBOLS, &format!("{part}: prompts"), index);
        all.into_iter().take(PROMPT).map(|symbol| symbol as u32).collect()
    };
    (0..n as u64).map(one).collect()
}

fn demonstrate(prompt: &[u32], rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut answer: Vec<u32> = prompt.iter().copied().filter(|_| unit(rng) < NAMED).collect();
    for _ in 0..below(rng, FILLER as u64 + 1) {
        answer.push(below(rng, SYMBOLS as u64) as u32);
    }
    shuffle(&mut answer, rng);
    answer.push(END);
    answer
}

/// Probability that a labeller prefers the first answer.
fn prefers(prompt: &[u32], a: &[u32], b: &[u32]) -> f64 {
    let score = |answer: &[u32]| TASTE.0 * quality(prompt, answer) + TASTE.1 * body(answer).len() as f64;
    sigmoid(score(a) - score(b))
}

fn sampling() -> Sampling<'static> {
    Sampling { max_new_tokens: LONGEST + 1, stop: vec![END], ..Sampling::default() }
}

// --- Arms --------------------------------------------------------------------------------------------------------

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Dpo,
    DpoOfMeans,
    Simpo,
    SimpoWithoutMargin,
    SimpoOfSums,
}

const ARMS: [Arm; 5] = [Arm::Dpo, Arm::DpoOfMeans, Arm::Simpo, Arm::SimpoWithoutMargin, Arm::SimpoOfSums];

impl Arm {
    fn name(self) -> &'static str {
        match self {
            Arm::Dpo => "DPO",
            Arm::DpoOfMeans => "DPO, length-normalised",
            Arm::Simpo => "SimPO",
            Arm::SimpoWithoutMargin => "SimPO without margin",
            Arm::SimpoOfSums => "SimPO without length normalisation",
        }
    }

    /// Betas that the tuning seed chooses from: of sums over tokens a tenth of those of means, about the length of an
    /// answer.
    fn betas(self) -> [f64; 3] {
        match self {
            Arm::Dpo => [0.05, 0.1, 0.3],
            Arm::DpoOfMeans => [0.5, 1.0, 3.0],
            Arm::Simpo | Arm::SimpoWithoutMargin => [2.0, 5.0, 10.0],
            Arm::SimpoOfSums => [0.2, 0.5, 1.0],
        }
    }

    fn method(self, beta: f64) -> Box<dyn PairObjective> {
        let simpo = Simpo { beta, gamma_beta_ratio: RHO, ..Simpo::default() };
        match self {
            Arm::Dpo => Box::new(Dpo { beta, ..Dpo::default() }),
            Arm::DpoOfMeans => {
                Box::new(Survey { loss: LossName::SigmoidNorm, beta: Some(beta), ..Survey::default() })
            }
            Arm::Simpo => Box::new(simpo),
            Arm::SimpoWithoutMargin => Box::new(Simpo { gamma_beta_ratio: 0.0, ..simpo }),
            Arm::SimpoOfSums => {
                Box::new(Simpo { reduction: Reduction::Sum, gamma_beta_ratio: 10.0 * RHO, ..simpo })
            }
        }
    }

    /// The reward that the method believes in, up to its beta, of an answer of so many tokens.
    fn reward(self, logp: f64, reference: f64, tokens: f64) -> f64 {
        match self {
            Arm::Dpo => logp - reference,
            Arm::DpoOfMeans => (logp - reference) / tokens,
            Arm::Simpo | Arm::SimpoWithoutMargin => logp / tokens,
            Arm::SimpoOfSums => logp,
        }
    }
}

/// A model that imitates demonstrations, and pairs of its answers: chosen, rejected.
struct Bench {
    seed: u64,
    seeds: Seeds,
    base: LanguageModel,
    pairs: Vec<Example>,
    held_out: Vec<Example>,
}

/// How a model does.
#[derive(Clone, Debug)]
struct Measured {
    /// Quality and number of symbols of its answer to each prompt.
    answers: Vec<(f64, usize)>,
    /// KL divergence from the start, nats per answer.
    kl: f64,
    /// Spearman's correlation of differences of length and of reward over held-out pairs.
    correlation: f64,
    /// Of the pairs whose chosen answer has the higher reward, the share in which it has the higher log-prob per token.
    agreement: f64,
}

impl Measured {
    fn quality(&self) -> f64 {
        stats::mean(&self.answers.iter().map(|(quality, _)| *quality).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    }

    fn length(&self) -> f64 {
        self.answers.iter().map(|(_, length)| *length as f64).sum::<f64>() / self.answers.len() as f64
    }
}

/// The mean difference of quality between answers of the same length, lengths weighed by the lesser of both numbers of
/// answers; NaN where the two share no length.
fn at_equal_length(one: &[(f64, usize)], other: &[(f64, usize)]) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for length in 0..=LONGEST + 1 {
        let of = |answers: &[(f64, usize)]| -> Vec<f64> {
            answers.iter().filter(|(_, own)| *own == length).map(|(quality, _)| *quality).collect()
        };
        let (one, other) = (of(one), of(other));
        if let Some((a, b)) = stats::mean(&one).zip(stats::mean(&other)) {
            let weight = one.len().min(other.len()) as f64;
            sum += weight * (a - b);
            weights += weight;
        }
    }
    sum / weights
}

impl Bench {
    fn new(seed: u64, budget: &Budget) -> Result<Self> {
        let seeds = Seeds::new(seed).child("verbose copier");
        // Learnt positions: what stands in the prompt is told by its place.
        let mut config = new_config(Family::Gpt2, Preset::Tiny, VOCABULARY, 32, None, END);
        config["initializer_range"] = json!(0.05);
        let untrained = weights::init(&config, &seeds.child("weights"), &device::parse("cpu")?)?;
        let mut rng = seeds.rng("demonstrations", 0);
        let demonstrations: Vec<Example> = prompts(budget.imitation_steps * BATCH, &seeds, "imitation")
            .into_iter()
            .map(|prompt| {
                let answer = demonstrate(&prompt, &mut rng);
                bench::example(prompt, vec![answer])
            })
            .collect();
        let imitation = training(seed, budget.imitation_steps, 3e-3, Schedule::Cosine);
        let base = bench::learn(&untrained, &Sft::default(), &demonstrations, imitation, &mut |_, _| {})?;
        let pairs = |n, part: &str| -> Result<Vec<Example>> {
            let prompts = prompts(n, &seeds, part);
            let mut rng = seeds.rng(&format!("{part}: labels"), 0);
            bench::compare(&base, prompts, &sampling(), &seeds.child(part), &mut rng, prefers)
        };
        let (trained_on, held_out) =
            (pairs(budget.pairs, "pairs")?, pairs(budget.held_out, "held-out pairs")?);
        Ok(Self { seed, seeds, base, pairs: trained_on, held_out })
    }

    fn align(&self, arm: Arm, beta: f64, budget: &Budget) -> Result<LanguageModel> {
        let aligning = training(self.seed, budget.steps, RATE, Schedule::Cosine);
        bench::learn(&self.base, &*arm.method(beta), &self.pairs, aligning, &mut |_, _| {})
    }

    /// The model's answers to fresh prompts, the same for all models.
    fn answers(&self, model: &LanguageModel, budget: &Budget) -> Result<(Vec<Vec<u32>>, Vec<Completion>)> {
        let prompts = prompts(budget.held_out, &self.seeds, "held out");
        let drawn = bench::draw(model, &prompts, &sampling(), &self.seeds.child("held out"))?;
        Ok((prompts, drawn))
    }

    fn measure(&self, arm: Arm, model: &LanguageModel, budget: &Budget) -> Result<Measured> {
        let (prompts, drawn) = self.answers(model, budget)?;
        let judge = |(prompt, answer): (&Vec<u32>, &Completion)| {
            (quality(prompt, &answer.tokens), body(&answer.tokens).len())
        };
        let answers = prompts.iter().zip(&drawn).map(judge).collect();
        let kl = bench::divergence(&prompts, &drawn, &self.base);
        let scoring = training(0, 1, RATE, Schedule::Constant);
        let score = |model| trainer::score(model, &self.held_out, &scoring, |_| {});
        let (own, reference) = (score(model), score(&self.base));
        let (mut lengths, mut rewards) = (Vec::new(), Vec::new());
        let (mut right, mut agreeing) = (0.0, 0.0);
        for ((pair, own), reference) in self.held_out.iter().zip(&own).zip(&reference) {
            let tokens: Vec<f64> = pair.answer_tokens().map(|n| n as f64).collect();
            let reward = |slot: usize| arm.reward(own[slot], reference[slot], tokens[slot]);
            lengths.push(tokens[0] - tokens[1]);
            rewards.push(reward(0) - reward(1));
            if reward(0) > reward(1) {
                right += 1.0;
                agreeing += f64::from(own[0] / tokens[0] > own[1] / tokens[1]);
            }
        }
        let correlation = stats::spearman(&lengths, &rewards).unwrap_or(f64::NAN);
        Ok(Measured { answers, kl, correlation, agreement: agreeing / right })
    }
}

// --- The claim ---------------------------------------------------------------------------------------------------

/// What one seed gave: the start, then [`ARMS`].
struct Outcome {
    base: Measured,
    arms: Vec<Measured>,
}

impl Outcome {
    fn of(&self, arm: Arm) -> &Measured {
        &self.arms[ARMS.iter().take_while(|one| **one != arm).count()]
    }
}

/// Re-tests the claim on the seeds `0..seeds`. `say` is told what happens.
///
/// # Errors
/// A training that diverges.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let budget = if quick { QUICK } else { FULL };
    let bench = Bench::new(TUNING_SEED, &budget)?;
    let mut betas = Vec::new();
    for arm in ARMS {
        let mut tried = Vec::new();
        for beta in arm.betas() {
            let measured = bench.measure(arm, &bench.align(arm, beta, &budget)?, &budget)?;
            let (quality, length) = (measured.quality(), measured.length());
            say(&format!("tuning {}: beta {beta} has quality {quality:.3}, length {length:.1}", arm.name()));
            tried.push((beta, quality));
        }
        betas.push(bench::best(&tried).unwrap_or(arm.betas()[0]));
    }
    let mut outcomes = Vec::new();
    for seed in 0..seeds {
        let bench = Bench::new(seed, &budget)?;
        let base = bench.measure(Arm::SimpoWithoutMargin, &bench.base, &budget)?;
        let mut arms = Vec::new();
        for (arm, &beta) in ARMS.into_iter().zip(&betas) {
            let measured = bench.measure(arm, &bench.align(arm, beta, &budget)?, &budget)?;
            let (quality, length) = (measured.quality(), measured.length());
            say(&format!("seed {seed}, {}: quality {quality:.3}, length {length:.1}", arm.name()));
            arms.push(measured);
        }
        outcomes.push(Outcome { base, arms });
    }
    let mut result = judge(&outcomes, &betas, &budget);
    result.seconds = clock.elapsed().as_secs_f64();
    Ok(result)
}

fn judge(outcomes: &[Outcome], betas: &[f64], budget: &Budget) -> ClaimResult {
    let each = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<f64>>();
    let estimate = |value: &dyn Fn(&Outcome) -> f64| stats::t_interval(&each(value), "seeds");
    let of = |name: &str, expected, value: &dyn Fn(&Outcome) -> f64| effect(name, &each(value), expected);
    let (simpo, dpo, sums) = (Arm::Simpo, Arm::Dpo, Arm::SimpoOfSums);
    let effects = vec![
        of("agreement of reward and log-prob per token, DPO", Expected::Between(0.5, 0.7), &|o| {
            o.of(dpo).agreement
        }),
        of("mean length, SimPO's over DPO's", Expected::Below(1.0), &|o| {
            o.of(simpo).length() / o.of(dpo).length()
        }),
        of("mean quality, SimPO less DPO", Expected::Above(0.0), &|o| {
            o.of(simpo).quality() - o.of(dpo).quality()
        }),
        of("the same between answers of equal length", Expected::Above(0.0), &|o| {
            at_equal_length(&o.of(simpo).answers, &o.of(dpo).answers)
        }),
        of("mean length, SimPO without length normalisation less with", Expected::Above(0.0), &|o| {
            o.of(sums).length() - o.of(simpo).length()
        }),
        of(
            "size of the correlation of length and reward, SimPO without length normalisation less with",
            Expected::Above(0.0),
            &|o| o.of(sums).correlation.abs() - o.of(simpo).correlation.abs(),
        ),
    ];
    let row = |name: &str, beta: String, of: &dyn Fn(&Outcome) -> Measured| {
        let mean = |value: &dyn Fn(&Measured) -> f64| estimate(&|o| value(&of(o))).mean;
        vec![
            name.to_owned(),
            beta,
            estimate(&|o| of(o).quality()).to_string(),
            format!("{:.2}", mean(&Measured::length)),
            format!("{:+.2}", mean(&|m| m.correlation)),
            format!("{:.1} %", 100.0 * mean(&|m| m.agreement)),
            format!("{:.2}", mean(&|m| m.kl)),
        ]
    };
    let mut rows = vec![row("start", "-".into(), &|o| o.base.clone())];
    for (arm, beta) in ARMS.into_iter().zip(betas) {
        rows.push(row(arm.name(), beta.to_string(), &|o| o.of(arm).clone()));
    }
    ClaimResult {
        slug: "simpo".into(),
        claim: "SimPO's reward ranks pairs as generation does, and its answers are better than DPO's without being longer; \
                without length normalisation they are longer, and the reward follows length."
            .into(),
        setup: format!(
            "A 2-layer transformer of width 64; prompts are {PROMPT} different symbols of {SYMBOLS}. The start has imitated, \
             for {} steps of {BATCH}, answers that name each symbol of the prompt with probability {NAMED} and 0 to {FILLER} \
             random symbols, shuffled. Quality is the share of the prompt's symbols that are named less half the share of \
             the answer's symbols that are repeated or do not belong. {} pairs of the start's own answers (at most \
             {LONGEST} symbols), labels drawn by Bradley-Terry on {} times the quality plus {} per symbol. Every arm takes \
             {} steps of {BATCH} pairs, AdamW {RATE:e} with a cosine; rho is {RHO} nats per token (ten times that per \
             answer without length normalisation). Each arm's beta is the best of three by mean quality on a tuning seed. \
             {} fresh prompts at temperature 1, and as many held-out pairs for correlation and agreement.",
            budget.imitation_steps, budget.pairs, TASTE.0, TASTE.1, budget.steps, budget.held_out,
        ),
        table: Table {
            headers: [
                "arm",
                "beta",
                "mean quality",
                "length, symbols",
                "correlation of length and reward",
                "agreement",
                "KL to the start, nats",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        },
        effects,
        plots: Vec::new(),
        remarks: "SimPO's own agreement is 100 % by construction: its reward is the log-prob per token, also that of the \
                  start's row."
            .into(),
        command: "polo reproduce simpo".into(),
        seconds: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: [u32; 6] = [3, 1, 4, 15, 9, 2];

    #[test]
    fn quality_counts_what_is_named_and_what_is_wasted() {
        let check = |answer: &[u32], expected: f64| {
            let found = quality(&ASKED, answer);
            assert!((found - expected).abs() < 1e-12, "{answer:?}: {found} is not {expected}");
        };
        check(&[2, 9, 15, 4, 1, 3, END], 1.0);
        check(&[3, 1, 4, END], 0.5);
        check(&[3, 3, 3, END], 1.0 / 6.0 - 1.0 / 3.0);
        check(&[3, 1, 0, 5, END], 1.0 / 3.0 - 0.25);
        check(&[0, 5, 6, 7], -0.5);
        check(&[END], 0.0);
        // What stands after the end counts no more.
        check(&[3, END, 1, 0], 1.0 / 6.0);
    }

    #[test]
    fn labels_follow_quality_and_length() {
        let better = prefers(&ASKED, &[3, 1, 4, END], &[3, 1, END]);
        // One sixth of quality and one symbol.
        assert!((better - sigmoid(6.0 / 6.0 + 0.05)).abs() < 1e-12, "{better}");
        assert!((prefers(&ASKED, &[3, END], &[3, END]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn demonstrations_are_as_told() {
        let seeds = Seeds::new(5);
        let mut rng = seeds.rng("test", 0);
        let (mut lengths, mut named) = (0.0, 0.0);
        for prompt in prompts(2000, &seeds, "test") {
            assert_eq!((0..PROMPT).filter(|&at| prompt[..at].contains(&prompt[at])).count(), 0);
            let answer = demonstrate(&prompt, &mut rng);
            assert!(answer.len() <= PROMPT + FILLER + 1 && answer.ends_with(&[END]));
            lengths += body(&answer).len() as f64 / 2000.0;
            named += prompt.iter().filter(|symbol| answer.contains(symbol)).count() as f64 / 2000.0;
        }
        // 6 * 0.7 + 5; a symbol is named on purpose or by chance, which 0 to 10 draws of 20 have missed.
        let missed: f64 = (0..=10).map(|n| 0.95_f64.powi(n)).sum::<f64>() / 11.0;
        assert!((lengths - 9.2).abs() < 0.3, "{lengths}");
        assert!((named - 6.0 * (1.0 - 0.3 * missed)).abs() < 0.1, "{named}");
    }

    #[test]
    fn qualities_are_compared_length_by_length() {
        let one = [(0.5, 3), (0.7, 3), (0.9, 5), (0.1, 8)];
        let other = [(0.4, 3), (0.3, 5), (0.5, 5), (1.0, 9)];
        // Length 3: 0.6 - 0.4 once; length 5: 0.9 - 0.4 once.
        assert!((at_equal_length(&one, &other) - 0.35).abs() < 1e-12);
        assert!(at_equal_length(&one[..2], &other[3..]).is_nan());
    }

    #[test]
    fn the_claim_runs_in_seconds() {
        let result = reproduce(Path::new(""), 2, true, &mut |_| {}).unwrap();
        assert_eq!((result.effects.len(), result.table.rows.len()), (6, 1 + ARMS.len()));
        // The start's row has SimPO's reward, as SimPO has with and without margin.
        for row in [0, 3, 4] {
            assert_eq!(result.table.rows[row][5], "100.0 %", "{}", result.to_text());
        }
    }
}
