//! TPO's claim on the cipher: one stage from a base model against fine-tuning followed by DPO.
//!
//! The base has learnt other permutations than the one that is sought. Of four answers to each prompt with noisy scores,
//! the best is gold, the second chosen and the last rejected; every arm learns from the same triples with the same number
//! of steps. Without the imitation of the gold answers nothing holds the likelihood up: that arm is expected to collapse.

use std::path::Path;

use polo_lm::{model::LanguageModel, tasks::permutation::Permutation};
use polo_run::{
    Result,
    claims::{ClaimResult, Expected, Table},
    seed::unit,
    stats,
};

use super::{
    bench::{self, BATCH, TUNING_SEED, effect, training},
    cipher::{self, Cipher},
};
use crate::{
    methods::{
        dpo::Dpo,
        sft::Sft,
        tpo::{Answers, Form, Tpo},
    },
    objective::{Example, PairObjective, Rows, Tree},
    settings::Schedule,
    trainer,
};

struct Budget {
    imitation_steps: usize,
    /// Numbers of prompts: that of all arms, then those of the main ones.
    prompts: [usize; 3],
    steps: usize,
    held_out: usize,
}

const FULL: Budget = Budget { imitation_steps: 1000, prompts: [1000, 500, 2000], steps: 400, held_out: 1000 };
const QUICK: Budget = Budget { imitation_steps: 20, prompts: [60, 30, 90], steps: 6, held_out: 40 };

/// Qualities of the four answers to a prompt.
const QUALITIES: [f64; 4] = [0.9, 0.7, 0.5, 0.3];
/// Of their scores, in right positions.
const NOISE: f64 = 1.0;
/// Permutations that the base has learnt, and the quality of the answers it has imitated.
const OTHERS: usize = 4;
const BASE: f64 = 0.9;
/// Shares of pairs whose chosen and rejected answers are swapped, besides none.
const SWAPS: [f64; 2] = [0.2, 0.4];
const RATE: f64 = 1e-3;
const GAMMA: f64 = 0.5;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    Sft,
    SftThenDpo,
    Cpo,
    Tpo,
    TpoWithoutImitation,
    TpoL,
}

const ARMS: [Arm; 6] = [Arm::Sft, Arm::SftThenDpo, Arm::Cpo, Arm::Tpo, Arm::TpoWithoutImitation, Arm::TpoL];
/// Those that learn from all numbers of prompts, and under swapped labels.
const MAIN: [Arm; 3] = [Arm::Sft, Arm::SftThenDpo, Arm::Tpo];

impl Arm {
    fn place(self) -> usize {
        ARMS.iter().take_while(|one| **one != self).count()
    }

    fn name(self) -> &'static str {
        match self {
            Arm::Sft => "SFT on gold",
            Arm::SftThenDpo => "SFT on gold, then DPO",
            Arm::Cpo => "CPO on gold and rejected",
            Arm::Tpo => "TPO",
            Arm::TpoWithoutImitation => "TPO without imitation",
            Arm::TpoL => "TPO-L",
        }
    }

    /// Betas and alphas that the tuning seed chooses from.
    fn candidates(self) -> &'static [Settings] {
        match self {
            Arm::Sft => &[],
            Arm::SftThenDpo => &[(0.01, 0.0), (0.03, 0.0), (0.1, 0.0)],
            Arm::TpoL => &[(0.5, 0.3), (1.0, 0.3), (1.0, 1.0)],
            _ => &[(0.03, 0.1), (0.03, 0.3), (0.1, 0.3)],
        }
    }

    fn method(self, (beta, alpha): Settings) -> Tpo {
        let tpo = Tpo { beta, alpha, gamma: GAMMA, ..Tpo::default() };
        match self {
            Arm::Cpo => Tpo { answers: Answers::Two, ..tpo },
            Arm::TpoWithoutImitation => Tpo { alpha: 0.0, ..tpo },
            Arm::TpoL => Tpo { form: Form::TpoL, ..tpo },
            _ => tpo,
        }
    }

    /// Trains the base on triples.
    fn align(
        self,
        bench: &Bench,
        settings: Settings,
        triples: &[Example],
        steps: usize,
    ) -> Result<LanguageModel> {
        let learn = |start: &LanguageModel, objective: &dyn PairObjective, slots: &[usize], steps| {
            let examples: Vec<Example> = triples.iter().map(|triple| part(triple, slots)).collect();
            bench.cipher.align(start, objective, &examples, steps, RATE)
        };
        match self {
            Arm::Sft => learn(&bench.base, &Sft::default(), &[0], steps),
            Arm::SftThenDpo => {
                let fine_tuned = learn(&bench.base, &Sft::default(), &[0], steps / 2)?;
                learn(&fine_tuned, &Dpo { beta: settings.0, ..Dpo::default() }, &[1, 2], steps - steps / 2)
            }
            Arm::Cpo => learn(&bench.base, &self.method(settings), &[0, 2], steps),
            _ => learn(&bench.base, &self.method(settings), &[0, 1, 2], steps),
        }
    }
}

/// An example of the answers in these slots.
fn part(triple: &Example, slots: &[usize]) -> Example {
    let Tree { prompt, answers } = &triple.trees[0];
    let answers = slots.iter().map(|&slot| answers[slot].clone()).collect();
    Example { id: triple.id.clone(), ..bench::example(prompt.clone(), answers) }
}

/// Beta, alpha.
type Settings = (f64, f64);

/// The task of one seed, its base model, and triples of gold, chosen and rejected answers.
struct Bench {
    cipher: Cipher,
    base: LanguageModel,
    triples: Vec<Example>,
    /// Demonstrations of what the base knows.
    known: Vec<Example>,
}

impl Bench {
    fn new(folder: &Path, seed: u64, budget: &Budget) -> Result<Self> {
        let cipher = Cipher::new(&folder.join(format!("seed-{seed}")), seed)?;
        let other = |number: usize| {
            Permutation::new(
                cipher.task.settings().clone(),
                &cipher.seeds().child(&format!("other permutation {number}")),
            )
        };
        let others: Vec<Permutation> = (0..OTHERS).map(other).collect::<Result<_>>()?;
        let others: Vec<&Permutation> = others.iter().collect();
        let base = cipher.imitator(&others, BASE, budget.imitation_steps)?;
        let known = cipher.demonstrations(&others, BASE, budget.held_out, "known")?;
        let most = budget.prompts.into_iter().max().unwrap_or(0);
        let lists = cipher.lists(most, &QUALITIES, NOISE, "ranked");
        let mut triples = cipher.encode(&Tpo::default(), Rows::Lists(lists))?;
        // A gold answer that is the chosen one again would make it CPO.
        triples.retain(|triple| triple.trees[0].answers[0] != triple.trees[0].answers[1]);
        Ok(Self { cipher, base, triples, known })
    }

    /// The first triples, with this share of pairs swapped.
    fn triples(&self, prompts: usize, swap: f64) -> Vec<Example> {
        let mut triples = self.triples[..prompts.min(self.triples.len())].to_vec();
        let mut rng = self.cipher.seeds().rng("swaps", 0);
        for triple in &mut triples {
            if unit(&mut rng) < swap {
                triple.trees[0].answers.swap(1, 2);
            }
        }
        triples
    }

    fn measure(&self, model: &LanguageModel, budget: &Budget) -> Result<Measured> {
        let gold = self.cipher.measure(model, &self.base, budget.held_out)?.gold;
        let scoring = training(0, 1, RATE, Schedule::Constant);
        let known = trainer::evaluate(model, &Sft::default(), &self.known, &Vec::new(), &scoring, &[]);
        let triples = &self.triples[..budget.held_out.min(self.triples.len())];
        let scores = trainer::score(model, triples, &scoring, |_| {});
        let mean = |slot: usize| {
            let scores: Vec<f64> = scores.iter().map(|scores| scores[slot]).collect();
            stats::mean(&scores).unwrap_or(f64::NAN)
        };
        let retained = known.get("mean_token_accuracy").unwrap_or(f64::NAN);
        Ok(Measured { gold, retained, chosen: mean(1), rejected: mean(2) })
    }
}

/// How a model does.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Mean gold reward.
    gold: f64,
    /// Share of tokens of what the base knows that are the model's first guess.
    retained: f64,
    /// Mean log-probs of chosen and rejected answers, nats.
    chosen: f64,
    rejected: f64,
}

/// What one seed gave.
struct Outcome {
    base: Measured,
    /// By [`ARMS`], from the first number of prompts.
    arms: Vec<Measured>,
    /// Gold rewards by the second and third number of prompts, then by [`SWAPS`]; each by [`MAIN`].
    sweeps: Vec<[f64; MAIN.len()]>,
}

impl Outcome {
    fn of(&self, arm: Arm) -> Measured {
        self.arms[arm.place()]
    }

    /// By how much TPO is ahead of fine-tuning and DPO: at first, then in the sweeps.
    fn lead(&self, condition: usize) -> f64 {
        match condition {
            0 => self.of(Arm::Tpo).gold - self.of(Arm::SftThenDpo).gold,
            sweep => self.sweeps[sweep - 1][2] - self.sweeps[sweep - 1][1],
        }
    }
}

/// Prompts and swaps of the sweeps.
fn sweeps(budget: &Budget) -> [(usize, f64); 4] {
    let [first, fewer, more] = budget.prompts;
    [(fewer, 0.0), (more, 0.0), (first, SWAPS[0]), (first, SWAPS[1])]
}

fn run(
    folder: &Path,
    seed: u64,
    settings: &[Settings],
    budget: &Budget,
    say: &mut dyn FnMut(&str),
) -> Result<Outcome> {
    let bench = Bench::new(folder, seed, budget)?;
    let settings = |arm: Arm| settings[arm.place()];
    let triples = bench.triples(budget.prompts[0], 0.0);
    let mut arms = Vec::new();
    for arm in ARMS {
        let model = arm.align(&bench, settings(arm), &triples, budget.steps)?;
        let measured = bench.measure(&model, budget)?;
        say(&format!("seed {seed}, {}: gold reward {:.2}", arm.name(), measured.gold));
        arms.push(measured);
    }
    let mut swept = Vec::new();
    for (prompts, swap) in sweeps(budget) {
        let triples = bench.triples(prompts, swap);
        let mut golds = [0.0; MAIN.len()];
        for (arm, gold) in MAIN.into_iter().zip(&mut golds) {
            *gold = match (arm, swap > 0.0) {
                // It does not see the pairs.
                (Arm::Sft, true) => arms[0].gold,
                _ => {
                    let model = arm.align(&bench, settings(arm), &triples, budget.steps)?;
                    bench.cipher.measure(&model, &bench.base, budget.held_out)?.gold
                }
            };
        }
        say(&format!("seed {seed}, {prompts} prompts, {swap} swapped: gold rewards {golds:.2?}"));
        swept.push(golds);
    }
    Ok(Outcome { base: bench.measure(&bench.base, budget)?, arms, sweeps: swept })
}

/// Of each arm, what is best on the tuning seed.
fn tune(folder: &Path, budget: &Budget, say: &mut dyn FnMut(&str)) -> Result<Vec<Settings>> {
    let bench = Bench::new(folder, TUNING_SEED, budget)?;
    let triples = bench.triples(budget.prompts[0], 0.0);
    let mut chosen: Vec<Settings> = Vec::new();
    for arm in ARMS {
        // The ablation has the settings of the whole.
        let best = match arm {
            Arm::TpoWithoutImitation => chosen.last().copied(),
            _ => {
                let mut tried = Vec::new();
                for &settings in arm.candidates() {
                    let model = arm.align(&bench, settings, &triples, budget.steps)?;
                    let gold = bench.cipher.measure(&model, &bench.base, budget.held_out)?.gold;
                    say(&format!("tuning {}: beta, alpha {settings:?}: gold reward {gold:.2}", arm.name()));
                    tried.push((settings, gold));
                }
                bench::best(&tried)
            }
        };
        chosen.push(best.unwrap_or_default());
    }
    Ok(chosen)
}

/// Re-tests the claim on the seeds `0..seeds`. `say` is told what happens.
///
/// # Errors
/// `folder`, where the task's tokenizers are written, cannot be written to; a training that diverges.
pub fn reproduce(folder: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let budget = if quick { QUICK } else { FULL };
    let settings = tune(folder, &budget, say)?;
    let outcomes: Vec<Outcome> =
        (0..seeds).map(|seed| run(folder, seed, &settings, &budget, say)).collect::<Result<_>>()?;
    let mut result = judge(&outcomes, &settings, &budget);
    result.seconds = clock.elapsed().as_secs_f64();
    Ok(result)
}

fn judge(outcomes: &[Outcome], settings: &[Settings], budget: &Budget) -> ClaimResult {
    let each = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<f64>>();
    let estimate = |value: &dyn Fn(&Outcome) -> f64| stats::t_interval(&each(value), "seeds");
    let above =
        |name: String, value: &dyn Fn(&Outcome) -> f64| effect(name, &each(value), Expected::Above(0.0));
    let below =
        |name: &str, value: &dyn Fn(&Outcome) -> f64| effect(name, &each(value), Expected::Below(0.0));
    let [prompts, fewer, more] = budget.prompts;
    let mut effects =
        vec![above(format!("gold reward, TPO less SFT then DPO, {prompts} prompts"), &|o| o.lead(0))];
    for (at, (prompts, swap)) in (1..).zip(sweeps(budget)) {
        let swapped =
            if swap > 0.0 { format!(", {:.0} % of pairs swapped", 100.0 * swap) } else { String::new() };
        effects.push(above(format!("the same, {prompts} prompts{swapped}"), &|o| o.lead(at)));
    }
    effects.extend([
        above(format!("that lead at {fewer} prompts less that at {more}"), &|o| o.lead(1) - o.lead(2)),
        above(format!("that lead at {:.0} % swapped less that at none", 100.0 * SWAPS[1]), &|o| {
            o.lead(4) - o.lead(0)
        }),
        above("gold reward, TPO less SFT on gold".into(), &|o| o.of(Arm::Tpo).gold - o.of(Arm::Sft).gold),
        below("collapse: gold reward, TPO without imitation less SFT on gold", &|o| {
            o.of(Arm::TpoWithoutImitation).gold - o.of(Arm::Sft).gold
        }),
        below(
            "collapse: log-prob of the chosen answers under TPO without imitation less that under the base",
            &|o| o.of(Arm::TpoWithoutImitation).chosen - o.base.chosen,
        ),
        below("the same of the rejected answers", &|o| {
            o.of(Arm::TpoWithoutImitation).rejected - o.base.rejected
        }),
    ]);
    let mean = |value: &dyn Fn(&Outcome) -> f64| estimate(value).mean;
    let row = |name: &str, settings: String, of: &dyn Fn(&Outcome) -> Measured| {
        let logps = format!("{:.1}, {:.1}", mean(&|o| of(o).chosen), mean(&|o| of(o).rejected));
        let retained = format!("{:.1} %", 100.0 * mean(&|o| of(o).retained));
        vec![
            name.to_owned(),
            prompts.to_string(),
            settings,
            estimate(&|o| of(o).gold).to_string(),
            logps,
            retained,
        ]
    };
    let mut rows = vec![row("base", "-".into(), &|o| o.base)];
    let shown = |arm: Arm| {
        let (beta, alpha) = settings[arm.place()];
        match arm {
            Arm::Sft => "-".into(),
            Arm::SftThenDpo | Arm::TpoWithoutImitation => beta.to_string(),
            _ => format!("{beta}, {alpha}"),
        }
    };
    for arm in ARMS {
        rows.push(row(arm.name(), shown(arm), &|o| o.of(arm)));
    }
    for (at, (prompts, swap)) in sweeps(budget).into_iter().enumerate() {
        for (place, arm) in MAIN.into_iter().enumerate() {
            let what = if swap > 0.0 {
                format!("{prompts}, {:.0} % swapped", 100.0 * swap)
            } else {
                prompts.to_string()
            };
            let gold = estimate(&|o| o.sweeps[at][place]).to_string();
            rows.push(vec![arm.name().to_owned(), what, shown(arm), gold, "-".into(), "-".into()]);
        }
    }
    ClaimResult {
        slug: "tpo".into(),
        claim: "In one stage from a base model, TPO reaches more than SFT followed by DPO from the same prompts in the same \
                number of steps, most of all from few prompts and under noisy judgements; without its imitation it collapses."
            .into(),
        setup: format!(
            "{} The base has imitated answers of quality {BASE} under {OTHERS} other permutations, in turn, for {} steps of \
             {BATCH}. Four answers of qualities 0.9, 0.7, 0.5 and 0.3 to each prompt, scored by gold reward plus normal \
             noise of deviation {NOISE}: the best is gold, the second chosen, the last rejected; prompts whose gold and \
             chosen answers are equal are left out. Every arm takes {} steps of {BATCH} in all (SFT then DPO half and half), \
             AdamW {RATE:e} with a cosine for each stage; gamma {GAMMA}. Each arm's beta and alpha are the best of three \
             pairs (of DPO, betas) on a tuning seed ({prompts} prompts, nothing swapped); the ablation has TPO's. {} fresh \
             prompts at temperature 1. \
             Retained: share of the tokens of the base's own demonstrations that are the model's first guess.",
            cipher::TASK,
            budget.imitation_steps,
            budget.steps,
            budget.held_out,
        ),
        table: Table {
            headers: [
                "arm",
                "prompts",
                "beta, alpha",
                "mean gold reward",
                "log-probs of chosen, rejected",
                "retained",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        },
        effects,
        plots: Vec::new(),
        remarks: "The card's 600 steps are 400 here, and its noise sweep has SFT, SFT then DPO, and TPO alone: ten minutes \
                  on two cores."
            .into(),
        command: "polo reproduce tpo".into(),
        seconds: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_fall_in_rank_and_swaps_change_pairs_alone() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::new(folder.path(), 4, &Budget { imitation_steps: 1, ..QUICK }).unwrap();
        let (plain, swapped) = (bench.triples(60, 0.0), bench.triples(60, 0.4));
        let mut swaps = 0;
        for (plain, swapped) in plain.iter().zip(&swapped) {
            assert!(plain.quality[0] > plain.quality[1] && plain.quality[1] > plain.quality[2]);
            let (before, after) = (&plain.trees[0].answers, &swapped.trees[0].answers);
            assert_eq!(before[0], after[0]);
            assert!(before[0] != before[1]);
            swaps += usize::from(before != after);
            assert!(before == after || (&before[1], &before[2]) == (&after[2], &after[1]));
        }
        assert!((10..40).contains(&swaps), "{swaps}");
        assert_eq!(part(&plain[0], &[0, 2]).trees[0].answers[1], plain[0].trees[0].answers[2]);
    }

    #[test]
    fn the_claim_runs_in_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let result = reproduce(folder.path(), 2, true, &mut |_| {}).unwrap();
        assert_eq!((result.effects.len(), result.table.rows.len()), (11, 1 + 6 + 12));
        assert!(result.effects.iter().all(|effect| effect.estimate.mean.is_finite()), "{}", result.to_text());
    }
}
