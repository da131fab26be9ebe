//! Curry-DPO's claim on the cipher: stages from easy pairs to hard ones, each from where the last one ended.
//!
//! Four ranked answers to each prompt make three pairs. The curriculum is set against DPO on one pair, on all pairs
//! shuffled, in order, and against the same stages dealt from hard to easy and at random. A new reference for each of
//! three stages lets a model go as far as one stage at a third of the beta: that control decides whether order helps.

use std::path::Path;

use polo_lm::{model::LanguageModel, rows::ListRow};
use polo_run::{
    Result,
    claims::{ClaimResult, Expected, Table},
    stats,
};

use super::{
    bench::{BATCH, effect},
    cipher::{self, Cipher, Measured},
};
use crate::{
    methods::curry_dpo::{CurryDpo, Order, Schedule},
    objective::{Example, Rows},
};

struct Budget {
    imitation_steps: usize,
    lists: usize,
    steps: usize,
    prompts: usize,
}

const FULL: Budget = Budget { imitation_steps: 800, lists: 3000, steps: 600, prompts: 2000 };
const QUICK: Budget = Budget { imitation_steps: 20, lists: 60, steps: 6, prompts: 40 };

/// Qualities of the four answers to a prompt.
const QUALITIES: [f64; 4] = [0.9, 0.65, 0.45, 0.25];
/// Of the demonstrations that the start has imitated.
const START: f64 = 0.45;
const BETA: f64 = 0.1;
const RATE: f64 = 3e-4;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arm {
    OnePair,
    Shuffled,
    Ordered,
    EasyToHard,
    HardToEasy,
    Dealt,
    /// Shuffled at a beta divided by this.
    Looser(u32),
}

const ARMS: [Arm; 8] = [
    Arm::OnePair,
    Arm::Shuffled,
    Arm::Ordered,
    Arm::EasyToHard,
    Arm::HardToEasy,
    Arm::Dealt,
    Arm::Looser(3),
    Arm::Looser(10),
];

impl Arm {
    fn name(self) -> String {
        match self {
            Arm::OnePair => "A: DPO, best against worst".into(),
            Arm::Shuffled => "B: DPO, all pairs shuffled".into(),
            Arm::Ordered => "C: one run, easy to hard".into(),
            Arm::EasyToHard => "D: stages, easy to hard (Curry-DPO)".into(),
            Arm::HardToEasy => "E: stages, hard to easy".into(),
            Arm::Dealt => "F: stages, dealt at random".into(),
            Arm::Looser(by) => format!("B at beta/{by}"),
        }
    }

    fn method(self) -> CurryDpo {
        let plain = CurryDpo { beta: BETA, stages: 1, order: Order::Random, schedule: Schedule::SingleRun };
        let staged = |order| CurryDpo { stages: 3, order, schedule: Schedule::Iterative, ..plain.clone() };
        match self {
            Arm::OnePair | Arm::Shuffled => plain,
            Arm::Looser(by) => CurryDpo { beta: BETA / f64::from(by), ..plain },
            Arm::Ordered => CurryDpo { schedule: Schedule::SingleRun, ..staged(Order::ScoreGap) },
            Arm::EasyToHard => staged(Order::ScoreGap),
            Arm::HardToEasy => staged(Order::Reverse),
            Arm::Dealt => staged(Order::Random),
        }
    }

    fn place(self) -> usize {
        ARMS.iter().take_while(|arm| **arm != self).count()
    }

    fn align(
        self,
        cipher: &Cipher,
        start: &LanguageModel,
        lists: &[ListRow],
        steps: usize,
    ) -> Result<LanguageModel> {
        let method = self.method();
        let mut examples = cipher.encode(&method, Rows::Lists(lists.to_vec()))?;
        if self == Arm::OnePair {
            // The pairs of a prompt come easiest first.
            examples =
                examples.chunk_by(|a, b| a.id == b.id).map(|pairs: &[Example]| pairs[0].clone()).collect();
        }
        cipher.align(start, &method, &examples, steps, RATE)
    }
}

/// What one seed gave: the start, then [`ARMS`].
struct Outcome {
    start: Measured,
    arms: Vec<Measured>,
}

impl Outcome {
    fn of(&self, arm: Arm) -> Measured {
        self.arms[arm.place()]
    }

    /// The reward that shuffled DPO has at this divergence, between the betas that were run (and the start, at 0).
    fn shuffled_at(&self, kl: f64) -> f64 {
        let points = [Arm::Shuffled, Arm::Looser(3), Arm::Looser(10)].map(|arm| self.of(arm));
        interpolate(&[&[Measured { kl: 0.0, ..self.start }], &points[..]].concat(), kl)
    }
}

/// The reward at this divergence on the broken line through the points; beyond the last point its reward.
fn interpolate(points: &[Measured], kl: f64) -> f64 {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.kl.total_cmp(&b.kl));
    let above = sorted.iter().position(|point| point.kl >= kl);
    match above {
        None => sorted.last().map_or(f64::NAN, |point| point.gold),
        Some(0) => sorted[0].gold,
        Some(at) => {
            let (low, high) = (sorted[at - 1], sorted[at]);
            low.gold + (high.gold - low.gold) * (kl - low.kl) / (high.kl - low.kl)
        }
    }
}

fn run(folder: &Path, seed: u64, budget: &Budget, say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let cipher = Cipher::new(&folder.join(format!("seed-{seed}")), seed)?;
    let start = cipher.imitator(&[&cipher.task], START, budget.imitation_steps)?;
    let lists = cipher.lists(budget.lists, &QUALITIES, 0.0, "ranked");
    let measure = |model: &LanguageModel| cipher.measure(model, &start, budget.prompts);
    let before = measure(&start)?;
    say(&format!("seed {seed}: gold reward {:.2} before", before.gold));
    let mut arms = Vec::new();
    for arm in ARMS {
        let measured = measure(&arm.align(&cipher, &start, &lists, budget.steps)?)?;
        say(&format!("seed {seed}, {}: {:.2}, {:.2} nats", arm.name(), measured.gold, measured.kl));
        arms.push(measured);
    }
    Ok(Outcome { start: before, arms })
}

/// Re-tests the claim on the seeds `0..seeds`. `say` is told what happens.
///
/// # Errors
/// `folder`, where the task's tokenizers are written, cannot be written to; a training that diverges.
pub fn reproduce(folder: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let budget = if quick { QUICK } else { FULL };
    let outcomes: Vec<Outcome> =
        (0..seeds).map(|seed| run(folder, seed, &budget, say)).collect::<Result<_>>()?;
    let each = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<f64>>();
    let above =
        |name: &str, value: &dyn Fn(&Outcome) -> f64| effect(name, &each(value), Expected::Above(0.0));
    let gold = |outcome: &Outcome, arm| outcome.of(arm).gold;
    let curriculum = |outcome: &Outcome| gold(outcome, Arm::EasyToHard);
    let effects = vec![
        above("gold reward, curriculum (D) less DPO on all pairs shuffled (B)", &|o| {
            curriculum(o) - gold(o, Arm::Shuffled)
        }),
        above("gold reward, DPO on all pairs shuffled (B) less on the widest pair (A)", &|o| {
            gold(o, Arm::Shuffled) - gold(o, Arm::OnePair)
        }),
        above("the order alone: curriculum (D) less stages dealt at random (F)", &|o| {
            curriculum(o) - gold(o, Arm::Dealt)
        }),
        above("hard to easy (E) is worst: the lesser of D and F less E", &|o| {
            curriculum(o).min(gold(o, Arm::Dealt)) - gold(o, Arm::HardToEasy)
        }),
        above("curriculum (D) less shuffled DPO at a third of the beta", &|o| {
            curriculum(o) - gold(o, Arm::Looser(3))
        }),
        above("curriculum (D) less shuffled DPO at D's divergence, interpolated over beta", &|o| {
            curriculum(o) - o.shuffled_at(o.of(Arm::EasyToHard).kl)
        }),
    ];
    let estimate = |value: &dyn Fn(&Outcome) -> f64| stats::t_interval(&each(value), "seeds");
    let row = |name: String, of: &dyn Fn(&Outcome) -> Measured| {
        vec![name, estimate(&|o| of(o).gold).to_string(), format!("{:.2}", estimate(&|o| of(o).kl).mean)]
    };
    let mut rows = vec![row("start".into(), &|o| o.start)];
    rows.extend(ARMS.map(|arm| row(arm.name(), &|o| o.of(arm))));
    Ok(ClaimResult {
        slug: "curry-dpo".into(),
        claim: "Stages from easy to hard, each with the last one's model as reference, beat DPO on one pair of each prompt \
                and on all pairs shuffled, and it is the order that does it."
            .into(),
        setup: format!(
            "{} The start has imitated answers of quality {START} for {} steps of {BATCH}. {} prompts with four answers of \
             qualities 0.9, 0.65, 0.45 and 0.25, drawn again while two are equally good; scores are gold rewards; pairs set \
             the best against each other. Every arm takes {} steps of {BATCH} pairs from the same start, beta {BETA} but \
             for the controls, AdamW {RATE:e} with a cosine and warm-up (afresh in each of three stages), {} fresh prompts \
             at temperature 1. Settings are from the method's card; nothing was tuned.",
            cipher::TASK,
            budget.imitation_steps,
            budget.lists,
            budget.steps,
            budget.prompts,
        ),
        table: Table {
            headers: ["arm", "mean gold reward", "KL to the start, nats"].map(String::from).to_vec(),
            rows,
        },
        effects,
        plots: Vec::new(),
        remarks: "Optimised to the end, three stages with a new reference each are one stage at a third of the beta \
                  (tested exactly on tables): the last two effects ask whether there is more to it."
            .into(),
        command: "polo reproduce curry-dpo".into(),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_are_read_off_a_broken_line() {
        let point = |kl, gold| Measured { gold, kl };
        let points = [point(4.0, 7.0), point(0.0, 3.0), point(2.0, 6.0)];
        let check = |kl, expected: f64| assert!((interpolate(&points, kl) - expected).abs() < 1e-12);
        check(-1.0, 3.0);
        check(0.0, 3.0);
        check(1.0, 4.5);
        check(3.0, 6.5);
        check(9.0, 7.0);
    }

    /// One pair is the widest, and stages of all pairs differ in order alone.
    #[test]
    fn every_arm_trains_on_the_same_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let mut said = Vec::new();
        let result = reproduce(folder.path(), 2, true, &mut |line| said.push(line.to_owned())).unwrap();
        assert_eq!((result.table.rows.len(), result.effects.len()), (1 + ARMS.len(), 6));
        assert_eq!(said.len(), 2 * (1 + ARMS.len()));
        assert!(result.effects.iter().all(|effect| effect.estimate.mean.is_finite()), "{}", result.to_text());
        let cipher = Cipher::new(folder.path(), 0).unwrap();
        let rows = Rows::Lists(cipher.lists(50, &QUALITIES, 0.0, "ranked"));
        let pairs = cipher.encode(&Arm::EasyToHard.method(), rows).unwrap();
        assert_eq!(pairs.len(), 150);
        for three in pairs.chunk_by(|a, b| a.id == b.id) {
            let gaps: Vec<f64> = three.iter().map(|pair| pair.quality[0] - pair.quality[1]).collect();
            assert!(gaps.len() == 3 && gaps[0] > gaps[1] && gaps[1] > gaps[2] && gaps[2] > 0.0, "{gaps:?}");
        }
    }
}
