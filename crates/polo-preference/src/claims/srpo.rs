//! SRPO's claim at small scale, and the workbench that the demo shares with it.
//!
//! A tiny transformer learns to answer and to revise the hidden permutation (`polo_lm::tasks`) from demonstrations,
//! then is aligned on preference pairs by SRPO, DPO and IPO with the same pairs, steps and optimiser. Each aligned
//! model answers held-out prompts and revises itself five times under the same prompts. The paper says: SRPO gains from
//! revision and the others do not, it ends above DPO out of distribution, and it depends least on who wrote the pairs.
//!
//! Methods are compared at about the same distance from the reference: on a tuning seed, each method's beta is searched
//! with the same number of trainings until its KL divergence is near [`Budget::nats`]; other seeds are reported.

use std::path::Path;

use polo_lm::{
    generate::generate,
    judge::{Comparison, Judge, Labels, collect_pairs},
    model::LanguageModel,
    revise::Revising,
    rows::{PairRow, Text},
    tasks::permutation::{Form, PermutationSettings, Preference, Region, Source},
    templates::Fitted,
};
use polo_run::{
    Problem, Result,
    claims::{ClaimResult, Effect, Expected, Table},
    stats::{self, Estimate},
};

use super::{
    bench::{self, BATCH, SHARES, TUNING_SEED},
    cipher::Cipher,
    srpo_exact,
};
use crate::{
    methods::{dpo::Dpo, ipo::Ipo, sft::Sft, srpo::Srpo},
    objective::{PairObjective, Rows},
    settings::{Schedule, TemplateSet, Templates},
};

/// How much is spent on one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Steps of supervised fine-tuning, 64 demonstrations each.
    pub imitation_steps: usize,
    /// Preference pairs.
    pub pairs: usize,
    /// Steps of alignment, 64 pairs each.
    pub alignment_steps: usize,
    /// Peak learning rate of alignment.
    pub learning_rate: f64,
    /// Held-out prompts of each region.
    pub prompts: usize,
    /// Self-revisions after the first answer.
    pub revisions: usize,
    /// Divergence from the reference at which methods are compared, nats per answer.
    pub nats: f64,
    /// Trainings with which each method's beta is searched.
    pub tuning: usize,
}

impl Budget {
    /// What `polo reproduce srpo` spends.
    pub fn full() -> Self {
        Self {
            imitation_steps: 2500,
            pairs: 8000,
            alignment_steps: 500,
            learning_rate: 3e-4,
            prompts: 1000,
            revisions: 5,
            nats: 1.0,
            tuning: 5,
        }
    }

    /// Enough to see that everything works.
    pub fn quick() -> Self {
        Self {
            imitation_steps: 60,
            pairs: 256,
            alignment_steps: 10,
            learning_rate: 1e-3,
            prompts: 40,
            revisions: 2,
            nats: 3.0,
            tuning: 2,
        }
    }
}

const CONTEXT: usize = 64;
const REGIONS: [Region; 2] = [Region::InDistribution, Region::OutOfDistribution];

/// A method with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Arm {
    /// DPO.
    Dpo(Dpo),
    /// IPO on summed log-probs.
    Ipo(Ipo),
    /// SRPO.
    Srpo(Srpo),
}

/// Names of the methods that are compared.
pub const METHODS: [&str; 3] = ["srpo", "dpo", "ipo"];

impl Arm {
    /// A method by name, at a beta.
    pub fn new(method: &str, beta: f64) -> Self {
        match method {
            "dpo" => Arm::Dpo(Dpo { beta, ..Dpo::default() }),
            "ipo" => Arm::Ipo(Ipo { beta, ..Ipo::default() }),
            _ => {
                let templates = Templates { set: TemplateSet::Symbols, ..Templates::default() };
                Arm::Srpo(Srpo { beta, templates, ..Srpo::default() })
            }
        }
    }

    fn objective(&self) -> &dyn PairObjective {
        match self {
            Arm::Dpo(method) => method,
            Arm::Ipo(method) => method,
            Arm::Srpo(method) => method,
        }
    }

    /// Pairs as this method wants them written: SRPO puts its templates around bare prompts.
    pub fn form(&self) -> Form {
        match self {
            Arm::Srpo(_) => Form::Bare,
            _ => Form::Asked,
        }
    }
}

/// The task, and a model that imitates the demonstrations: the reference of all methods.
pub struct Workbench {
    /// The task, its tokenizer, and what models look like.
    pub cipher: Cipher,
    /// The reference.
    pub base: LanguageModel,
    budget: Budget,
}

/// How a model does on one region's prompts; index n is after n revisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Mean gold reward (right positions of 8).
    pub gold: Vec<f64>,
    /// Win rate against the "human" answers under the majority of graders, ties half.
    pub wins: Vec<f64>,
    /// The answers after the last revision, one for each held-out prompt.
    pub last: Vec<String>,
}

/// How an aligned model does.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// In distribution, out of distribution.
    pub curves: [Curve; 2],
    /// KL divergence of the first answers from the reference on in-distribution prompts, nats per answer.
    pub kl: f64,
    /// Prompt, answers after 0..=N revisions: a few of them.
    pub samples: Vec<(String, Vec<String>)>,
}

impl Workbench {
    /// Writes the task's tokenizer into `folder` and trains the reference on demonstrations of answering and revising.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn new(
        folder: &Path,
        seed: u64,
        budget: Budget,
        progress: &mut dyn FnMut(usize, usize, f64),
    ) -> Result<Self> {
        let cipher = Cipher::with(folder, seed, PermutationSettings::default(), CONTEXT)?;
        let steps = budget.imitation_steps;
        let demonstrations = cipher.task.demonstrations(Region::Even, steps * BATCH, "imitation");
        let rows = Rows::Completions(cipher.task.completion_rows(&demonstrations)?);
        let objective = Sft::default();
        let examples = cipher.encode(&objective, rows)?;
        let training = bench::training(seed, steps, 3e-3, Schedule::Cosine);
        let base = bench::learn(&cipher.untrained()?, &objective, &examples, training, &mut |step, loss| {
            progress(step, steps, loss);
        })?;
        Ok(Self { cipher, base, budget })
    }

    /// Pairs of answers of one of the task's behaviour policies.
    ///
    /// # Errors
    /// As [`collect_pairs`].
    pub fn pairs(&self, source: Source, preference: Preference, form: Form) -> Result<Vec<PairRow>> {
        let items = self.cipher.task.comparisons(
            Region::InDistribution,
            source,
            self.budget.pairs,
            "preferences",
            form,
        );
        collect_pairs(&self.cipher.task.judge(preference), &items, Labels::Hard, self.cipher.seeds())
    }

    /// Pairs of answers that the reference itself draws.
    ///
    /// # Errors
    /// As [`generate`] and [`collect_pairs`].
    pub fn own_pairs(&self, preference: Preference, form: Form) -> Result<Vec<PairRow>> {
        let prompts = self.cipher.task.prompts(Region::InDistribution, self.budget.pairs, "own pairs");
        let asked = self.cipher.ask(&prompts)?;
        let sampling = self.cipher.sampling();
        let drawn =
            generate(&self.base, &asked, 2, &sampling, &self.cipher.seeds().child("own pairs"), SHARES)?;
        let items: Vec<Comparison> = (0..)
            .zip(&prompts)
            .zip(drawn.chunks_exact(2))
            .map(|((id, prompt), two)| Comparison {
                id,
                prompt: Text::Plain(self.cipher.task.write_prompt(prompt, form)),
                a: two[0].text(&self.cipher.tokenizer, &sampling),
                b: two[1].text(&self.cipher.tokenizer, &sampling),
                answer: Some(self.cipher.task.write_answer(&self.cipher.task.solution(prompt))),
            })
            .collect();
        collect_pairs(&self.cipher.task.judge(preference), &items, Labels::Hard, self.cipher.seeds())
    }

    /// Aligns the reference with one method.
    ///
    /// # Errors
    /// A training that diverges.
    pub fn align(
        &self,
        arm: &Arm,
        rows: Vec<PairRow>,
        seed: u64,
        progress: &mut dyn FnMut(usize, usize, f64),
    ) -> Result<LanguageModel> {
        let objective = arm.objective();
        let examples = self.cipher.encode(objective, Rows::Pairs(rows))?;
        let steps = self.budget.alignment_steps;
        let training = bench::training(seed, steps, self.budget.learning_rate, Schedule::Cosine);
        bench::learn(&self.base, objective, &examples, training, &mut |step, loss| {
            progress(step, steps, loss)
        })
    }

    /// Lets a model answer held-out prompts and revise itself, all methods under the same revision prompts.
    ///
    /// # Errors
    /// As generation.
    pub fn measure(&self, model: &LanguageModel) -> Result<Measured> {
        let sampling = self.cipher.sampling();
        let revising = Revising {
            revisions: self.budget.revisions,
            stop_when_unchanged: false,
            sampling: &sampling,
            shares: SHARES,
        };
        let mut samples = Vec::new();
        let mut curve = |region: Region| -> Result<Curve> {
            let prompts = self.cipher.task.prompts(region, self.budget.prompts, "held out");
            let (asked, human) = (self.bare(&prompts), self.human(region));
            let texts: Vec<Text> = asked.iter().cloned().map(Text::Plain).collect();
            let seeds = self.cipher.seeds().child("held out").child(region.name());
            let mut answers = revising.texts(
                model,
                &self.cipher.tokenizer,
                &self.cipher.task.templates(),
                &texts,
                &seeds,
            )?;
            let (mut gold, mut wins) = (Vec::new(), Vec::new());
            for n in 0..=self.budget.revisions {
                let nth: Vec<String> = answers.iter().map(|answers| answers[n].clone()).collect();
                let mut total = 0;
                for (prompt, answer) in asked.iter().zip(&nth) {
                    total += self.cipher.task.gold_of_text(prompt, answer)?;
                }
                gold.push(total as f64 / prompts.len() as f64);
                wins.push(self.wins(&asked, &nth, &human)?);
            }
            for ((prompt, shown), answers) in prompts.iter().zip(&asked).zip(&answers).take(3) {
                let right = self.cipher.task.write_answer(&self.cipher.task.solution(prompt));
                samples.push((format!("{shown}   (right: {right}; {})", region.name()), answers.clone()));
            }
            let last = answers.iter_mut().filter_map(Vec::pop).collect();
            Ok(Curve { gold, wins, last })
        };
        let curves = [curve(REGIONS[0])?, curve(REGIONS[1])?];
        Ok(Measured { curves, kl: self.divergence(model)?, samples })
    }

    /// Win rate of `improver`'s revisions of a model's last answers over these answers: above one half, it exploits them.
    ///
    /// # Errors
    /// As generation.
    fn exploited(&self, victim: &Curve, improver: &LanguageModel, region: Region) -> Result<f64> {
        let asked = self.bare(&self.cipher.task.prompts(region, self.budget.prompts, "held out"));
        let sampling = self.cipher.sampling();
        let once = Revising { revisions: 0, stop_when_unchanged: false, sampling: &sampling, shares: SHARES };
        let seeds = self.cipher.seeds().child("exploited").child(region.name());
        let improved = once.tokens(improver, asked.len(), &seeds, |row, _| {
            let [prompt, answer] = [&asked[row], &victim.last[row]].map(|text| Text::Plain(text.clone()));
            fits(self.cipher.task.templates().encode_revise(
                &prompt,
                &answer,
                &self.cipher.tokenizer,
                CONTEXT,
            )?)
        })?;
        let improved: Vec<String> =
            improved.iter().map(|answers| answers[0].text(&self.cipher.tokenizer, &sampling)).collect();
        self.wins(&asked, &improved, &victim.last)
    }

    /// Win rate of the best of as many first answers as a revising model draws, chosen by gold reward: what the same
    /// number of samples is worth to someone who can measure the reward.
    ///
    /// # Errors
    /// As generation.
    fn best_of_as_many(&self, model: &LanguageModel, region: Region) -> Result<f64> {
        let prompts = self.cipher.task.prompts(region, self.budget.prompts, "held out");
        let asked = self.cipher.ask(&prompts)?;
        let (sampling, samples) = (self.cipher.sampling(), self.budget.revisions + 1);
        let seeds = self.cipher.seeds().child("best of as many").child(region.name());
        let drawn = generate(model, &asked, samples, &sampling, &seeds, SHARES)?;
        let bare = self.bare(&prompts);
        let mut best = Vec::new();
        for (prompt, answers) in bare.iter().zip(drawn.chunks_exact(samples)) {
            let mut chosen = (0, String::new());
            for answer in answers {
                let text = answer.text(&self.cipher.tokenizer, &sampling);
                let gold = self.cipher.task.gold_of_text(prompt, &text)?;
                if chosen.1.is_empty() || gold > chosen.0 {
                    chosen = (gold, text);
                }
            }
            best.push(chosen.1);
        }
        self.wins(&bare, &best, &self.human(region))
    }

    fn bare(&self, prompts: &[Vec<usize>]) -> Vec<String> {
        prompts.iter().map(|prompt| self.cipher.task.write_prompt(prompt, Form::Bare)).collect()
    }

    /// Answers of the "human" to a region's held-out prompts.
    fn human(&self, region: Region) -> Vec<String> {
        let prompts = self.cipher.task.prompts(region, self.budget.prompts, "held out");
        let answers = self.cipher.task.answers(&prompts, Source::Human, "held out");
        answers.iter().map(|answer| self.cipher.task.write_answer(answer)).collect()
    }

    /// Win rate of answers over others under the majority of graders, ties half.
    fn wins(&self, prompts: &[String], answers: &[String], others: &[String]) -> Result<f64> {
        let items: Vec<Comparison> = (0..)
            .zip(prompts)
            .zip(answers.iter().zip(others))
            .map(|((id, prompt), (a, b))| Comparison {
                id,
                prompt: Text::Plain(prompt.clone()),
                a: a.clone(),
                b: b.clone(),
                answer: None,
            })
            .collect();
        let verdicts = self.cipher.task.judge(Preference::Majority).compare(&items)?;
        let verdicts: Vec<f64> = verdicts.into_iter().flatten().collect();
        Ok(stats::mean(&verdicts).unwrap_or(f64::NAN))
    }

    /// KL divergence of `model` from the reference after G(x), estimated on its own answers, nats per answer.
    fn divergence(&self, model: &LanguageModel) -> Result<f64> {
        let prompts = self.cipher.task.prompts(Region::InDistribution, self.budget.prompts, "divergence");
        let asked = self.cipher.ask(&prompts)?;
        let drawn =
            bench::draw(model, &asked, &self.cipher.sampling(), &self.cipher.seeds().child("divergence"))?;
        Ok(bench::divergence(&asked, &drawn, &self.base))
    }
}

fn fits(prompt: Option<Fitted>) -> Result<Vec<u32>> {
    prompt.map(|prompt| prompt.ids).ok_or_else(|| Problem::input("a prompt of the task exceeds its context"))
}

/// Betas between which each method's is searched; all of them move less as beta grows.
const BETAS: (f64, f64) = (0.02, 5.0);

/// Seeds below were spent on the design of this experiment.
const FIRST_SEED: u64 = 20;

/// Re-tests the claim on `seeds` seeds that took no part in its design. `say` is told what happens.
///
/// # Errors
/// `folder`, where the task's tokenizer is written, cannot be written to; a training that diverges.
pub fn reproduce(
    folder: &Path,
    seeds: u64,
    budget: &Budget,
    quick: bool,
    say: &mut dyn FnMut(&str),
) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let mut betas = Vec::new();
    let bench = Workbench::new(&folder.join("tuning"), TUNING_SEED, budget.clone(), &mut |_, _, _| {})?;
    for method in METHODS {
        let (mut low, mut high) = BETAS;
        let mut best = (f64::INFINITY, 0.0);
        for _ in 0..budget.tuning {
            let beta = rounded((low * high).sqrt());
            let arm = Arm::new(method, beta);
            let rows = bench.pairs(Source::Channel, Preference::Majority, arm.form())?;
            let kl = bench.divergence(&bench.align(&arm, rows, TUNING_SEED, &mut |_, _, _| {})?)?;
            say(&format!("tuning {method}: beta {beta} ends {kl:.2} nats from the reference"));
            let distance = (kl.max(1e-6) / budget.nats).ln().abs();
            if distance < best.0 {
                best = (distance, beta);
            }
            if kl > budget.nats {
                low = beta;
            } else {
                high = beta;
            }
        }
        betas.push(best.1);
    }
    let mut results: Vec<Vec<Outcome>> = vec![Vec::new(); METHODS.len()];
    let mut bases = Vec::new();
    for seed in FIRST_SEED..FIRST_SEED + seeds {
        let bench =
            Workbench::new(&folder.join(format!("seed-{seed}")), seed, budget.clone(), &mut |_, _, _| {})?;
        bases.push(bench.measure(&bench.base)?);
        let mut improvers = vec![bench.base.clone()];
        let mut measured = Vec::new();
        for (at, method) in METHODS.into_iter().enumerate() {
            let arm = Arm::new(method, betas[at]);
            let run = |source| {
                let rows = bench.pairs(source, Preference::Majority, arm.form())?;
                bench.align(&arm, rows, seed, &mut |_, _, _| {})
            };
            let model = run(Source::Channel)?;
            let pair = (bench.measure(&model)?, bench.measure(&run(Source::Emphatic)?)?);
            say(&format!(
                "seed {seed}, {method}: out of distribution {} after 0..{} revisions, {:.2} nats",
                percent(&pair.0.curves[1].wins),
                budget.revisions,
                pair.0.kl
            ));
            measured.push(pair);
            improvers.push(model);
        }
        for (at, (first, second)) in measured.into_iter().enumerate() {
            let mut by_region = [(0.0, 0.0); 2];
            for ((region, curve), slot) in REGIONS.into_iter().zip(&first.curves).zip(&mut by_region) {
                let mut most = 0.0_f64;
                for improver in &improvers {
                    most = most.max(bench.exploited(curve, improver, region)?);
                }
                *slot = (most, bench.best_of_as_many(&improvers[at + 1], region)?);
            }
            let [exploited, best_of] = [by_region.map(|both| both.0), by_region.map(|both| both.1)];
            results[at].push(Outcome { first, second, exploited, best_of });
        }
    }
    let exact = srpo_exact::behaviour_independence(&(0..if quick { 2 } else { 10 }).collect::<Vec<_>>());
    let mut result = judge(&results, &bases, &betas, budget);
    for method in ["ipo", "dpo"] {
        let ratio = exact.exact_spread(method) / exact.exact_spread("srpo").max(1e-12);
        let ratio = ratio.min(1e6);
        result.effects.push(Effect {
            name: format!(
                "exact solutions: {method}'s spread across behaviour policies over SRPO's (total variation)"
            ),
            estimate: Estimate::exact(ratio),
            expected: Expected::Above(5.0),
        });
    }
    result.seconds = clock.elapsed().as_secs_f64();
    Ok(result)
}

/// Two significant digits, so that a beta can be written down.
fn rounded(beta: f64) -> f64 {
    let unit = 10_f64.powf(beta.log10().floor() - 1.0);
    let rounded = (beta / unit).round() * unit;
    format!("{rounded:.4}").parse().unwrap_or(rounded)
}

/// How one method did on one seed.
#[derive(Clone, Debug)]
struct Outcome {
    /// Trained on pairs of the first behaviour policy.
    first: Measured,
    /// Trained on pairs of the second.
    second: Measured,
    /// Highest win rate of any compared model's revision of the final answers over them, by region.
    exploited: [f64; 2],
    /// Win rate of the best of N + 1 first answers by gold reward, by region.
    best_of: [f64; 2],
}

fn percent(shares: &[f64]) -> String {
    shares.iter().map(|share| format!("{:.1}", 100.0 * share)).collect::<Vec<_>>().join(" ") + " % wins"
}

fn judge(results: &[Vec<Outcome>], bases: &[Measured], betas: &[f64], budget: &Budget) -> ClaimResult {
    let last = budget.revisions;
    let over_seeds = |values: Vec<f64>| stats::t_interval(&values, "seeds");
    let wins = |measured: &Measured, region: usize, n: usize| measured.curves[region].wins[n];
    let gain = |measured: &Measured, region: usize| wins(measured, region, last) - wins(measured, region, 0);
    let mut headers = ["method", "region"].map(String::from).to_vec();
    headers.extend((0..=last).map(|n| format!("N={n}")));
    headers.extend(
        ["gold N=0", "gold at the end", "exploited", "best of as many", "KL, nats", "beta"].map(String::from),
    );
    let mut table = Table { headers, rows: Vec::new() };
    let mut rows: Vec<(&str, Vec<&Measured>, &[Outcome], String)> =
        vec![("reference", bases.iter().collect(), &[], "-".into())];
    for ((method, results), beta) in METHODS.into_iter().zip(results).zip(betas) {
        rows.push((
            method,
            results.iter().map(|outcome| &outcome.first).collect(),
            results,
            beta.to_string(),
        ));
    }
    let mean = |values: Vec<f64>| stats::mean(&values);
    let share = |value: Option<f64>| value.map_or("-".into(), |value| format!("{:.1} %", 100.0 * value));
    for (method, measured, outcomes, beta) in &rows {
        for (region, name) in REGIONS.iter().enumerate() {
            let of = |value: &dyn Fn(&Measured) -> f64| mean(measured.iter().map(|m| value(m)).collect());
            let number = |value: &dyn Fn(&Measured) -> f64| format!("{:.2}", of(value).unwrap_or(f64::NAN));
            let mut row = vec![(*method).to_owned(), name.name().to_owned()];
            row.extend((0..=last).map(|n| share(of(&|m| wins(m, region, n)))));
            row.push(number(&|m| m.curves[region].gold[0]));
            row.push(number(&|m| m.curves[region].gold[last]));
            row.push(share(mean(outcomes.iter().map(|o| o.exploited[region]).collect())));
            row.push(share(mean(outcomes.iter().map(|o| o.best_of[region]).collect())));
            row.push(number(&|m| m.kl));
            row.push(beta.clone());
            table.rows.push(row);
        }
    }
    let effect = |name: &str, values: Vec<f64>, expected| Effect {
        name: name.into(),
        estimate: over_seeds(values),
        expected,
    };
    let each = |value: &dyn Fn(usize) -> f64| (0..bases.len()).map(value).collect::<Vec<f64>>();
    let (srpo, dpo, ipo) = (&results[0], &results[1], &results[2]);
    let gap = |outcome: &Outcome| (wins(&outcome.first, 1, last) - wins(&outcome.second, 1, last)).abs();
    let effects = vec![
        effect(
            "SRPO: win rate gained by all revisions, out of distribution",
            each(&|s| gain(&srpo[s].first, 1)),
            Expected::Above(0.0),
        ),
        effect(
            "SRPO: win rate gained by revising, mean over two and more revisions, out of distribution",
            each(&|s| {
                let later = &srpo[s].first.curves[1].wins[2..];
                stats::mean(later).unwrap_or(f64::NAN) - wins(&srpo[s].first, 1, 0)
            }),
            Expected::Above(0.05),
        ),
        effect(
            "the same gain, SRPO less DPO under the same revision prompts",
            each(&|s| gain(&srpo[s].first, 1) - gain(&dpo[s].first, 1)),
            Expected::Above(0.0),
        ),
        effect(
            "the same gain, SRPO less IPO under the same revision prompts",
            each(&|s| gain(&srpo[s].first, 1) - gain(&ipo[s].first, 1)),
            Expected::Above(0.0),
        ),
        effect(
            "win rate after all revisions out of distribution, SRPO less DPO",
            each(&|s| wins(&srpo[s].first, 1, last) - wins(&dpo[s].first, 1, last)),
            Expected::Above(0.0),
        ),
        effect(
            "dependence on the behaviour policy (difference of final win rates between mu_1 and mu_2), SRPO less DPO",
            each(&|s| gap(&srpo[s]) - gap(&dpo[s])),
            Expected::Below(0.0),
        ),
        effect(
            "the same dependence, SRPO less IPO",
            each(&|s| gap(&srpo[s]) - gap(&ipo[s])),
            Expected::Below(0.0),
        ),
    ];
    ClaimResult {
        slug: "srpo".into(),
        claim: "From the same pairs, SRPO gains from revising its own answers where DPO and IPO do not, ends above DPO \
                out of distribution, and depends less on who wrote the pairs."
            .into(),
        setup: format!(
            "A 2-layer transformer of width 64 on the hidden permutation (8 symbols, 8 positions): {} steps of \
             imitation of a channel that is right 35 % on purpose, in answering and in revising (70 % of the earlier \
             answer kept); {} pairs labelled by the majority of three graders; {} steps of 64 pairs for each method, \
             AdamW {}; {} held-out prompts of each region; answers drawn at temperature 1. Win rates are against \
             answers that are right 60 % on purpose. Each method's beta is searched with {} trainings on a tuning seed \
             so that the answers end {} nats from the reference; the seeds reported are others. Exploited: the highest \
             win rate over the final answers that one revision by any of the compared models or the reference reaches. \
             Best of as many: of N + 1 first answers the one of highest gold reward, which no method sees.",
            budget.imitation_steps,
            budget.pairs,
            budget.alignment_steps,
            budget.learning_rate,
            budget.prompts,
            budget.tuning,
            budget.nats,
        ),
        table,
        effects,
        plots: Vec::new(),
        remarks: "The first design compared at 3 nats and was inconclusive on seeds 0 to 4: out of distribution SRPO won \
                  67 % at first, 79 % after two revisions and 74 % after five, between 17 points down and 25 up (DPO 68 \
                  to 37 %, IPO 71 to 37 %). A second one, also at 3 nats, with a learning rate of 1e-3, was broken off \
                  after two seeds (80 and 82 % at first, 77 and 76 % after five). So far from the reference first answers \
                  are already as good as revising makes them; on a seed set aside for this, nearer to it they are not. \
                  Hence 1 nat, the same for all methods. This design was run on seeds 10 to 14 first (SRPO's gain by all \
                  revisions 0.25 [0.18, 0.32]); since two of those had been seen in the second design, the seeds \
                  reported are others, drawn afterwards. SRPO did not \
                  depend less on who wrote the pairs at 3 nats either (difference of final win rates less DPO's 0.01 \
                  [-0.10, 0.12])."
            .into(),
        command: "polo reproduce srpo".into(),
        seconds: 0.0,
    }
}
