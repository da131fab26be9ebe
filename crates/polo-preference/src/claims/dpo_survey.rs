//! The DPO survey's claims: every loss of the method on equal terms, and the effects that losses were made for.
//!
//! A table of all losses as they come, on one seed, and effects of some of them, tuned alike, over all seeds.

use std::path::Path;

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Outcome as Judgement, Table},
    report::{LinePlot, Report, Series},
    stats,
};

use super::{
    bench::{self, BATCH, TUNING_SEED, effect},
    dpo_survey_losses::{self as losses, Arm, Entry, FLIPPED, FREE, KEEPING, LONGER, PLAIN, SINGLE},
    dpo_survey_task::{self as task, Bench, Budget, Labels, Measured},
};
use crate::methods::dpo_survey::Survey;

const FULL: Budget =
    Budget { imitation_steps: 1000, prompts: 1000, steps: 200, long_steps: 800, held_out: 1000 };
const QUICK: Budget = Budget { imitation_steps: 5, prompts: 12, steps: 2, long_steps: 3, held_out: 12 };

/// Seeds on which settings are chosen.
const TUNING: [u64; 2] = [TUNING_SEED, TUNING_SEED + 1];
/// Learning rates that they choose from, for all losses together.
const RATES: [f64; 3] = [1e-3, 3e-3, 1e-2];

/// How much smaller a loss of gold reward, and a length, must be; how near to DPO's reward that of single answers; what
/// 2 beta |D| must be under IPO, and how far |D| must go on growing under DPO.
const LESS_LOST: f64 = 0.8;
const SHORTER: f64 = 0.85;
const NEAR_DPO: Expected = Expected::Between(0.9, 1.1);
const NEAR_TARGET: Expected = Expected::Between(0.5, 1.5);
const GROWING: f64 = 1.25;

/// What the tuning seeds chose: a learning rate for all, and each loss's parameter for each kind of labels.
struct Chosen {
    rate: f64,
    plain: Vec<f64>,
    flipped: Vec<f64>,
    longer: Vec<f64>,
}

/// What one seed gave.
struct Outcome {
    start: Measured,
    /// By [`PLAIN`], [`FLIPPED`], [`LONGER`].
    plain: Vec<Measured>,
    flipped: Vec<Measured>,
    longer: Vec<Measured>,
    /// Under certain labels: by [`CERTAIN`], each after few and after many steps.
    certain: [[Measured; 2]; 2],
}

/// Those that learn from certain labels, and the beta of both: what their rewards do is the question, not what they earn.
const CERTAIN: [Arm; 2] = [Arm::Dpo, Arm::Ipo];
const CERTAIN_BETA: f64 = 0.1;

fn at(arms: &[Arm], arm: Arm) -> usize {
    arms.iter().take_while(|one| **one != arm).count()
}

/// The share of flipped labels, which losses that ask are told.
fn flips(labels: Labels) -> f64 {
    if labels == Labels::Flipped { task::FLIPPED } else { 0.0 }
}

impl Outcome {
    fn plain(&self, arm: Arm) -> Measured {
        // Told that no label is wrong, cDPO and rDPO are DPO.
        self.plain.get(at(&PLAIN, arm)).copied().unwrap_or(self.plain[0])
    }

    /// Gold reward that wrong labels cost.
    fn lost(&self, arm: Arm) -> f64 {
        self.plain(arm).gold - self.flipped[at(&FLIPPED, arm)].gold
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    stats::mean(&values.collect::<Vec<_>>()).unwrap_or(f64::NAN)
}

/// How a model does after `steps` steps.
fn train(
    bench: &Bench,
    survey: &Survey,
    labels: Labels,
    (rate, steps): (f64, usize),
    budget: &Budget,
) -> Result<Measured> {
    bench.measure(&bench.align(survey, labels, rate, steps)?, labels, budget)
}

/// The rate at which the losses with their middle parameters have the highest mean gold reward, then each loss's
/// parameter of highest gold reward at that rate.
fn tune(benches: &[Bench], budget: &Budget, say: &mut dyn FnMut(&str)) -> Chosen {
    let mut gold = |arm: Arm, value: f64, labels: Labels, rate: f64| {
        let survey = arm.survey(value, flips(labels));
        let found = benches.iter().map(|bench| train(bench, &survey, labels, (rate, budget.steps), budget));
        let told = format!("tuning {}, {labels:?}: {} {value}, rate {rate:e}", arm.name(), arm.key().0);
        let Ok(found) = found.collect::<Result<Vec<Measured>>>() else {
            say(&format!("{told}: diverged"));
            return f64::NAN;
        };
        let mean = |of: fn(&Measured) -> f64| mean(found.iter().map(of));
        let (gold, kl, length) = (mean(|m| m.gold), mean(|m| m.kl), mean(|m| m.length));
        say(&format!("{told}: gold reward {gold:.3}, KL {kl:.2}, length {length:.2}"));
        gold
    };
    let mut middle = Vec::new();
    for rate in RATES {
        let golds = PLAIN.map(|arm| gold(arm, arm.key().1[1], Labels::Plain, rate));
        middle.push(((rate, golds), mean(golds.into_iter())));
    }
    let (rate, known) = bench::best(&middle).unwrap_or((RATES[1], [f64::NAN; PLAIN.len()]));
    let mut values = |arms: &[Arm], labels: Labels| -> Vec<f64> {
        let value = |(place, &arm): (usize, &Arm)| {
            let (key, values) = arm.key();
            let mut tried = Vec::new();
            for (point, value) in values.into_iter().enumerate() {
                if point == 1 && labels == Labels::Plain {
                    tried.push((value, known[place]));
                } else if key != "-" {
                    tried.push((value, gold(arm, value, labels, rate)));
                }
            }
            bench::best(&tried).unwrap_or(values[1])
        };
        arms.iter().enumerate().map(value).collect()
    };
    Chosen {
        rate,
        plain: values(&PLAIN, Labels::Plain),
        flipped: values(&FLIPPED, Labels::Flipped),
        longer: values(&LONGER, Labels::Longer),
    }
}

fn run(bench: &Bench, chosen: &Chosen, budget: &Budget) -> Result<Outcome> {
    let one = |arm: Arm, value: f64, labels: Labels, steps: usize| {
        train(bench, &arm.survey(value, flips(labels)), labels, (chosen.rate, steps), budget)
    };
    let all = |arms: &[Arm], values: &[f64], labels: Labels| -> Result<Vec<Measured>> {
        arms.iter().zip(values).map(|(&arm, &value)| one(arm, value, labels, budget.steps)).collect()
    };
    let mut certain = [[Measured::default(); 2]; 2];
    for (arm, measured) in CERTAIN.into_iter().zip(&mut certain) {
        for (steps, measured) in [budget.steps, budget.long_steps].into_iter().zip(measured) {
            *measured = one(arm, CERTAIN_BETA, Labels::Certain, steps)?;
        }
    }
    Ok(Outcome {
        start: bench.measure(&bench.start, Labels::Plain, budget)?,
        plain: all(&PLAIN, &chosen.plain, Labels::Plain)?,
        flipped: all(&FLIPPED, &chosen.flipped, Labels::Flipped)?,
        longer: all(&LONGER, &chosen.longer, Labels::Longer)?,
        certain,
    })
}

/// A loss as it comes and how it did; nothing where it diverged.
type Compared = (Entry, Option<Measured>);

/// Every loss, by place in the taxonomy, then by gold reward.
fn compare(bench: &Bench, rate: f64, budget: &Budget, say: &mut dyn FnMut(&str)) -> Result<Vec<Compared>> {
    let mut compared = Vec::new();
    for entry in losses::all()? {
        let measured = train(bench, &entry.survey, Labels::Plain, (rate, budget.steps), budget);
        say(&match &measured {
            Ok(measured) => {
                format!("{}: gold reward {:.3}, KL {:.2}", entry.name, measured.gold, measured.kl)
            }
            Err(problem) => format!("{}: {problem}", entry.name),
        });
        compared.push((entry, measured.ok()));
    }
    let gold = |measured: &Option<Measured>| measured.map_or(f64::NEG_INFINITY, |measured| measured.gold);
    compared.sort_by(|(one, a), (other, b)| {
        one.family.cmp(other.family).then_with(|| gold(b).total_cmp(&gold(a)))
    });
    Ok(compared)
}

/// Re-tests the claims on the seeds `0..seeds`. `say` is told what happens; plots go to `survey.html` in `folder`.
///
/// # Errors
/// `folder` cannot be written to; a training that diverges.
pub fn reproduce(folder: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let budget = if quick { QUICK } else { FULL };
    let bench = |seed: u64| Bench::new(&folder.join(format!("seed-{seed}")), seed, &budget);
    let tuning: Vec<Bench> = TUNING.into_iter().map(bench).collect::<Result<_>>()?;
    let chosen = tune(&tuning, &budget, say);
    let (mut outcomes, mut compared) = (Vec::new(), Vec::new());
    for seed in 0..seeds {
        let bench = bench(seed)?;
        if seed == 0 {
            compared = compare(&bench, chosen.rate, &budget, say)?;
        }
        let outcome = run(&bench, &chosen, &budget)?;
        say(&format!(
            "seed {seed}: gold reward {:.3} at the start, {:.3} after DPO",
            outcome.start.gold, outcome.plain[0].gold
        ));
        outcomes.push(outcome);
    }
    let mut result = judge(&outcomes, &compared, &chosen, &budget);
    report(&outcomes, &compared).write(&folder.join("survey.html"))?;
    result.seconds = clock.elapsed().as_secs_f64();
    Ok(result)
}

/// The effects, by their letters in the method's card.
fn effects(outcomes: &[Outcome], budget: &Budget) -> Vec<(char, Effect)> {
    let mut effects = Vec::new();
    let mut add = |letter, name: String, expected, value: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().map(value).collect();
        effects.push((letter, effect(format!("({letter}) {name}"), &values, expected)));
    };
    for &arm in &FLIPPED[1..] {
        let flipped = 100.0 * task::FLIPPED;
        let name =
            format!("{flipped:.0} % flipped: gold reward lost, {} less {LESS_LOST} times DPO", arm.name());
        add('a', name, Expected::Below(0.0), &|o| o.lost(arm) - LESS_LOST * o.lost(Arm::Dpo));
    }
    for (place, arm) in LONGER.into_iter().enumerate().skip(1) {
        let name = format!("length-biased: mean length, {}'s over DPO's", arm.name());
        add('b', name, Expected::Below(SHORTER), &|o| o.longer[place].length / o.longer[0].length);
    }
    let change = |arm: Arm| format!("change of the chosen answers' mean log-prob, nats, {}", arm.name());
    add('c', change(Arm::Dpo), Expected::Below(0.0), &|o| o.plain[0].change);
    for arm in KEEPING {
        add('c', change(arm), Expected::Above(0.0), &|o| o.plain(arm).change);
    }
    let Budget { steps, long_steps, .. } = budget;
    let name = format!("certain labels, {long_steps} steps: 2 beta times the mean |D|, IPO");
    add('d', name, NEAR_TARGET, &|o| 2.0 * CERTAIN_BETA * o.certain[1][1].margin);
    let name = format!("certain labels: mean |D| after {long_steps} steps over {steps}, DPO");
    add('d', name, Expected::Above(GROWING), &|o| o.certain[0][1].margin / o.certain[0][0].margin);
    for arm in SINGLE {
        let name = format!("gold reward, {}'s over DPO's", arm.name());
        add('e', name, NEAR_DPO, &|o| o.plain(arm).gold / o.plain[0].gold);
    }
    for arm in FREE {
        let name = format!("KL to the start, nats, {} less DPO", arm.name());
        add('f', name, Expected::Above(0.0), &|o| o.plain(arm).kl - o.plain[0].kl);
    }
    effects
}

/// The cells of what was measured, the mean gold reward being written already.
fn cells(gold: String, of: &dyn Fn(fn(&Measured) -> f64) -> f64) -> Vec<String> {
    vec![
        gold,
        format!("{:.2}", of(|m| m.kl)),
        format!("{:.2}", of(|m| m.length)),
        format!("{:.1} %", 100.0 * of(|m| m.accuracy)),
        format!("{:+.2}", of(|m| m.change)),
        format!("{:.2}", of(|m| m.margin)),
    ]
}

fn table(outcomes: &[Outcome], compared: &[Compared], chosen: &Chosen, budget: &Budget) -> Table {
    let row = |labels: &str, name: &str, set: String, of: &dyn Fn(&Outcome) -> Measured| {
        let golds: Vec<f64> = outcomes.iter().map(|o| of(o).gold).collect();
        let gold = stats::t_interval(&golds, "seeds").to_string();
        let cells = cells(gold, &|value| mean(outcomes.iter().map(|o| value(&of(o)))));
        [labels, name, &set].map(String::from).into_iter().chain(cells).collect::<Vec<_>>()
    };
    let set = |arm: Arm, value: f64| match arm.key().0 {
        "-" => "-".to_owned(),
        key => format!("{key} {value}"),
    };
    let flipped = format!("{:.0} % flipped", 100.0 * task::FLIPPED);
    type Part = fn(&Outcome) -> &[Measured];
    let parts: [(&str, &[Arm], &[f64], Part); 3] = [
        ("plain", &PLAIN, &chosen.plain, |o| &o.plain),
        (&flipped, &FLIPPED, &chosen.flipped, |o| &o.flipped),
        ("length-biased", &LONGER, &chosen.longer, |o| &o.longer),
    ];
    let mut rows = vec![row("plain", "start", "-".into(), &|o| o.start)];
    for (labels, arms, values, part) in parts {
        let mut order: Vec<(usize, f64)> =
            (0..arms.len()).map(|at| (at, mean(outcomes.iter().map(|o| part(o)[at].gold)))).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (place, _) in order {
            let arm = arms[place];
            rows.push(row(labels, arm.name(), set(arm, values[place]), &|o| part(o)[place]));
        }
    }
    for (place, arm) in CERTAIN.into_iter().enumerate() {
        for (length, steps) in [budget.steps, budget.long_steps].into_iter().enumerate() {
            let set = format!("{}, {steps} steps", set(arm, CERTAIN_BETA));
            rows.push(row("certain", arm.name(), set, &|o| o.certain[place][length]));
        }
    }
    for (entry, measured) in compared {
        let family = if entry.family.is_empty() { "not in the taxonomy" } else { entry.family };
        let sets: Vec<String> = entry.sets.iter().map(|set| set.replace("method.", "")).collect();
        let cells = match measured {
            Some(measured) => cells(format!("{:.3}", measured.gold), &|value| value(measured)),
            None => ["diverged", "-", "-", "-", "-", "-"].map(String::from).to_vec(),
        };
        let row = [family, &entry.name, &sets.join(", ")].map(String::from);
        rows.push(row.into_iter().chain(cells).collect());
    }
    let headers = [
        "labels; then place in the taxonomy",
        "loss",
        "set",
        "mean gold reward",
        "KL to the start, nats",
        "length, tokens",
        "accuracy",
        "log-prob of chosen, nats",
        "mean |D|, nats",
    ];
    Table { headers: headers.map(String::from).to_vec(), rows }
}

/// Gold reward against KL divergence and against length: losses as they come, coloured by axis of the taxonomy, and
/// tuned ones over all seeds.
fn report(outcomes: &[Outcome], compared: &[Compared]) -> Report {
    const TUNED: usize = 5;
    let plot = |title: &str, x_label: &str, x: fn(&Measured) -> f64| {
        let point = |name: String, colour: usize, point: (f64, f64)| Series {
            name,
            points: vec![point],
            colour,
            dashed: colour == TUNED,
            ..Series::default()
        };
        let over_seeds = |name: String, of: &dyn Fn(&Outcome) -> Measured| {
            let mean = |value: fn(&Measured) -> f64| mean(outcomes.iter().map(|o| value(&of(o))));
            point(name, TUNED, (mean(x), mean(|m| m.gold)))
        };
        let mut series = vec![over_seeds("start, all seeds".into(), &|o| o.start)];
        for (place, arm) in PLAIN.into_iter().enumerate() {
            series.push(over_seeds(format!("{}, tuned, all seeds", arm.name()), &|o| o.plain[place]));
        }
        for (entry, measured) in compared {
            // The axes are numbered from 1; 0 is for what has no place.
            let axis = entry.family.chars().next().and_then(|axis| axis.to_digit(10)).unwrap_or(0);
            if let Some(measured) = measured {
                series.push(point(entry.name.clone(), axis as usize, (x(measured), measured.gold)));
            }
        }
        LinePlot { title: title.into(), x_label: x_label.into(), y_label: "mean gold reward".into(), series }
    };
    let mut report = Report::new("The losses of the DPO survey");
    report.paragraph(
        "One dot for each loss, whose name shows under the pointer. Solid in the legend: as it comes, one seed, coloured \
         by the axis of the taxonomy. Dashed: tuned, mean over all seeds.",
    );
    report.line_plots(&[
        plot("Gold reward against KL divergence", "KL divergence from the start, nats per answer", |m| m.kl),
        plot("Gold reward against length", "mean length, tokens", |m| m.length),
    ]);
    report
}

fn judge(outcomes: &[Outcome], compared: &[Compared], chosen: &Chosen, budget: &Budget) -> ClaimResult {
    let effects = effects(outcomes, budget);
    let holds = |letter: &char| {
        let mut own = effects.iter().filter(|(of, _)| of == letter);
        own.all(|(_, effect)| effect.outcome() == Judgement::Holds)
    };
    let whole: Vec<String> = ('a'..='f').filter(holds).map(|letter| format!("({letter})")).collect();
    let whole = if whole.is_empty() { "none".into() } else { whole.join(", ") };
    ClaimResult {
        slug: "dpo-survey".into(),
        claim: "On equal terms, each loss has the effect that it was made for: (a) noise-tolerant ones lose less to flipped \
                labels than DPO, (b) length-aware ones stay short where labels favour length, (c) DPO makes chosen answers \
                less likely and others do not, (d) under certain labels IPO stops where DPO goes on, (e) single answers \
                teach as much as pairs, (f) losses without a reference go further from it."
            .into(),
        setup: format!(
            "A 2-layer transformer of width 32 (27 thousand weights, 20 tokens); a prompt is 4 of 17 letters. The gold reward \
             counts the letters of the prompt that the answer holds followed by their successor in the alphabet, less 0.1 \
             for each token that the length is off nine. The start of a seed has imitated, for {} steps of {BATCH}, answers \
             of 6 to 12 tokens that hold a quarter of the patterns on purpose. From {} prompts with 4 of its answers each, \
             2 pairs to a prompt; every answer has one score, {} times the gold reward plus Gumbel noise, so that the higher \
             score of two is a Bradley-Terry label. Losses of lists and of single answers learn from the same answers and \
             scores. Length-biased: of {:.0} % of the pairs the longer answer wins whatever the scores. Certain: the higher \
             gold reward wins. All losses of a seed take {} steps of {} pairs (of as many answers in lists or alone), in the \
             same order, AdamW {:e} with a cosine.\n\n\
             On two tuning seeds, that rate is the best of three by the mean gold reward over the losses of the effects, at \
             their middle parameter; then each of these losses has the best of three values of its main parameter by gold \
             reward, for each kind of labels but certain ones, under which beta is {CERTAIN_BETA}; SimPER has no parameter. cDPO \
             and rDPO are told the share of flips: without any they are DPO. The rows by place in the taxonomy are all losses \
             of the method, untuned, under plain labels, on the first seed alone.\n\n\
             {} fresh prompts at temperature 1 for gold reward, KL and length. Accuracy: share of held-out pairs of \
             different gold reward whose better answer gained more log-prob. Log-prob of chosen: its change over pairs that \
             were learnt from; |D| over the same.",
            budget.imitation_steps,
            budget.prompts,
            task::SLOPE,
            100.0 * task::LONGER,
            budget.steps,
            task::PAIRS,
            chosen.rate,
            budget.held_out,
        ),
        table: table(outcomes, compared, chosen, budget),
        plots: Vec::new(),
        remarks: format!("Of the six, those of which every part holds: {whole}. {REMARKS}"),
        effects: effects.into_iter().map(|(_, effect)| effect).collect(),
        command: "polo reproduce dpo-survey".into(),
        seconds: 0.0,
    }
}

/// What else a reader should know.
const REMARKS: &str = "MODPO's second objective is the length's part of the gold reward, SafeDPO's unsafe answers are \
                       those of more than 10 tokens, the groups of group-robust training differ in nothing: their rows \
                       show that they run, not what they are for. Plots of the table: survey.html in the run's folder.\n\n\
                       Seeds 0 to 4: (a) under flips the four end within 0.06 of each other. (b) DPO's answers have \
                       11.3 tokens, 10.5 under plain labels and 9.1 at the start; R-DPO's price on length takes half of \
                       that growth away, weighing tokens or taking means none of it. (c) Parameters tuned for gold reward let go of the \
                       chosen answers; as they come, Cal-DPO and DPO + SFT (IRPO's row) keep them, NCA and APO-zero do \
                       not. (f) CPO and ORPO also imitate, and stay near; of the others only SimPO goes further than \
                       DPO.\n\n\
                       Learning rates and ranges of parameters were moved once, after a pilot on a tuning seed whose \
                       best values stood at an end; a second pilot, which had several there still, left the ranges and \
                       gave certain labels a beta of their own, since IPO's best (0.03) has a target of 17 nats.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_runs_in_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let result = reproduce(folder.path(), 2, true, &mut |_| {}).unwrap();
        assert_eq!(result.effects.len(), 3 + 5 + 6 + 2 + 2 + 4);
        let tuned = 1 + PLAIN.len() + FLIPPED.len() + LONGER.len() + 4;
        assert_eq!(result.table.rows.len(), tuned + losses::all().unwrap().len());
        assert!(!result.to_text().contains("diverged"), "{}", result.to_text());
        assert!(result.effects.iter().all(|effect| effect.estimate.mean.is_finite()), "{}", result.to_text());
        assert!(folder.path().join("survey.html").exists());
    }

    #[test]
    fn without_flips_losses_that_are_told_so_are_dpo() {
        let measured = |gold: f64| Measured { gold, ..Measured::default() };
        let outcome = Outcome {
            start: measured(0.0),
            plain: (0..PLAIN.len()).map(|place| measured(3.0 - place as f64)).collect(),
            flipped: [1.0, 2.0, 2.5, 1.5].map(measured).to_vec(),
            longer: Vec::new(),
            certain: Default::default(),
        };
        assert_eq!(
            [Arm::Dpo, Arm::Cdpo, Arm::Rdpo, Arm::Ipo].map(|arm| outcome.lost(arm)),
            [2.0, 1.0, 0.5, 0.5]
        );
    }
}
