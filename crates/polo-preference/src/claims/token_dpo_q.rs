//! The claims of token-level DPO at small scale: credit of single tokens, beam search, and the course of rewards.
//!
//! A tiny transformer imitates demonstrations of [`Keyed`] answers, draws two answers to each of many keys, and is
//! trained by DPO on comparisons of these whole answers. Then, on keys that it never saw: do its token rewards find the
//! one defect of an answer (also a defect of which the reference knows nothing, which is the claim), is what beam
//! search finds better than what it draws, and how do the rewards of chosen answers move from a fine-tuned start and
//! from one that is not. The theory itself is checked exactly by [`token_dpo_q_mdp`].

use std::{fs, path::Path};

use polo_lm::{
    beam::{self, Beams},
    family::{Family, Preset, new_config},
    generate::{Sampling, generate},
    model::LanguageModel,
    weights,
};
use polo_nn::device;
use polo_run::{
    Problem, Result,
    claims::{ClaimResult, Effect, Expected, Table},
    seed::Seeds,
    stats::{self, Estimate},
};
use serde_json::json;

use super::{
    bench::{self, BATCH, SHARES},
    tabular::sigmoid,
    token_dpo_q_mdp::{self, TokenMdp},
    token_dpo_q_task::{Defects, END, Keyed, LENGTH, Part, VOCABULARY},
};
use crate::{
    methods::{dpo::Dpo, sft::Sft},
    objective::Example,
    settings::{Schedule, Training},
    token_rewards::{Answer, Pair, TokenReward, to_report, token_rewards},
    trainer::{self, Trainer},
};

/// How much is spent on one seed.
#[derive(Clone, Debug, PartialEq)]
struct Budget {
    /// Steps of imitation, 64 demonstrations each.
    imitation_steps: usize,
    /// Keys to which two answers are drawn and compared.
    pairs: usize,
    /// Passes of DPO over the pairs.
    epochs: usize,
    /// Held-out answers with one defect, and keys of decoding.
    held_out: usize,
    /// Gradient steps of the exact part.
    table_steps: usize,
}

const FULL: Budget =
    Budget { imitation_steps: 1000, pairs: 4000, epochs: 3, held_out: 512, table_steps: 20_000 };
const QUICK: Budget = Budget { imitation_steps: 40, pairs: 128, epochs: 1, held_out: 16, table_steps: 300 };

/// DPO's.
const BETA: f64 = 0.1;
/// Share of wrong tokens in demonstrations.
const NOISE: f64 = 0.15;
/// Probability that a demonstration of the variable-length task ends after a token.
const CUT: f64 = 0.08;
/// Pairs on which the course of rewards is measured.
const WATCHED: usize = 512;
/// Parts into which a training is cut to watch the course of rewards.
const PARTS: usize = 4;

/// Ways to decode, as shown: name, and how.
const DECODINGS: [(&str, Decoding); 8] = [
    ("drawn at temperature 1", Decoding::Drawn(1.0)),
    ("drawn at temperature 0.5", Decoding::Drawn(0.5)),
    ("1 beam (greedy)", Decoding::Beams(1, 0.0)),
    ("2 beams", Decoding::Beams(2, 0.0)),
    ("5 beams", Decoding::Beams(5, 0.0)),
    ("10 beams", Decoding::Beams(10, 0.0)),
    ("20 beams", Decoding::Beams(20, 0.0)),
    ("20 beams, mean log-prob", Decoding::Beams(20, 1.0)),
];
const DRAWN: usize = 0;
const FIVE_BEAMS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Decoding {
    Drawn(f64),
    Beams(usize, f64),
}

/// What a token is suspected by, as shown.
const SUSPICIONS: [&str; 4] = ["-rhat", "-log ref", "-log pi", "-rho/T (the answer's reward, spread evenly)"];

/// How well one suspicion finds the defect.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    /// Area under the ROC curve over all tokens of all answers.
    auroc: f64,
    /// Share of answers whose most suspicious token is the defect.
    first: f64,
}

/// Gold reward and length, means over held-out keys.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Decoded {
    gold: f64,
    length: f64,
}

/// Mean rewards of watched pairs after 0, 1, ... parts of the training.
#[derive(Clone, Debug, PartialEq)]
struct Course {
    chosen: Vec<f64>,
    rejected: Vec<f64>,
}

/// What one seed gave.
#[derive(Clone, Debug)]
struct Outcome {
    /// By [`SUSPICIONS`], for wrong tokens and for wrong forms.
    credit: [[Found; 4]; 2],
    /// By [`DECODINGS`], for answers of one length and of any: the trained model, then its reference.
    decoded: [[Vec<Decoded>; 2]; 2],
    /// From the fine-tuned start, from the base.
    courses: [Course; 2],
}

/// A task, a model that imitates its demonstrations, and pairs of that model's answers.
struct Bench {
    task: Keyed,
    base: LanguageModel,
    pairs: Vec<Example>,
    seeds: Seeds,
}

impl Bench {
    fn new(defects: Defects, seed: u64, budget: &Budget) -> Result<Self> {
        let seeds = Seeds::new(seed).child(&format!("token-dpo-q {defects:?}"));
        let task = Keyed::new(defects, &seeds);
        let base = imitate(&task, seed, budget, &seeds)?;
        Self::compare(task, base, seeds, budget)
    }

    /// The same with the other form of each symbol penalised. What the reference happens to prefer helps on one side
    /// as much as it hurts on the other, so that the mean of both says what it knows.
    fn flipped(&self, budget: &Budget) -> Result<Self> {
        Self::compare(self.task.flipped(), self.base.clone(), self.seeds, budget)
    }

    fn compare(task: Keyed, base: LanguageModel, seeds: Seeds, budget: &Budget) -> Result<Self> {
        let keys: Vec<Vec<u32>> = keys(&task, Part::Training, budget.pairs, &seeds, "pairs");
        let mut rng = seeds.rng("labels", 0);
        let drawing = seeds.child("pairs");
        let pairs = bench::compare(&base, keys, &sampling(1.0), &drawing, &mut rng, |key, a, b| {
            sigmoid(task.gold(key, a) - task.gold(key, b))
        })?;
        Ok(Self { task, base, pairs, seeds })
    }

    /// DPO on the pairs from a start that is its reference; `watch` sees the model after each part of the training.
    fn align(
        &self,
        start: &LanguageModel,
        seed: u64,
        budget: &Budget,
        mut watch: impl FnMut(&Trainer, &trainer::References),
    ) -> Result<LanguageModel> {
        let steps = budget.epochs * self.pairs.len().div_ceil(BATCH);
        let training = training(seed, steps, 3e-4);
        let references = trainer::score(start, &self.pairs, &training, |_| {});
        let objective = dpo();
        let mut trainer = Trainer::new(start.clone(), &objective, training, &self.pairs, &references);
        watch(&trainer, &references);
        for part in 1..=PARTS {
            while trainer.done() < trainer.total() * part / PARTS {
                trainer.step(None)?;
            }
            watch(&trainer, &references);
        }
        Ok(trainer.model)
    }

    /// The course of the rewards of the first pairs, and the trained model.
    fn course(&self, start: &LanguageModel, seed: u64, budget: &Budget) -> Result<(Course, LanguageModel)> {
        let mut course = Course { chosen: Vec::new(), rejected: Vec::new() };
        let watched = &self.pairs[..WATCHED.min(self.pairs.len())];
        let model = self.align(start, seed, budget, |trainer, references| {
            let metrics = trainer.evaluate(watched, references);
            let mean = |name| metrics.get(name).unwrap_or(f64::NAN);
            course.chosen.push(mean("rewards/chosen"));
            course.rejected.push(mean("rewards/rejected"));
        })?;
        Ok((course, model))
    }

    /// Held-out answers with one defect each, and its place.
    fn defective(&self, budget: &Budget) -> (Vec<Example>, Vec<usize>) {
        let mut rng = self.seeds.rng("defective answers", 0);
        let one = |(number, key): (usize, Vec<u32>)| {
            let (answer, place) = self.task.with_one_defect(&key, &mut rng);
            (example(key, vec![answer], number), place)
        };
        let keys = keys(&self.task, Part::HeldOut, budget.held_out, &self.seeds, "defective");
        keys.into_iter().enumerate().map(one).unzip()
    }

    /// How well each suspicion finds defects.
    fn credit(&self, model: &LanguageModel, budget: &Budget) -> Result<[Found; 4]> {
        let (examples, places) = self.defective(budget);
        let rewards = token_rewards(model, &self.base, &examples, BETA, &training(0, 1, 1e-3))?;
        // The end token is no candidate.
        let answers: Vec<&[TokenReward]> = rewards.iter().map(|slots| &slots[0][..LENGTH]).collect();
        let found = |suspicion: &dyn Fn(&[TokenReward], usize) -> f64| {
            let (mut defects, mut others, mut first) = (Vec::new(), Vec::new(), 0.0);
            for (answer, &place) in answers.iter().zip(&places) {
                let scores: Vec<f64> = (0..LENGTH).map(|at| suspicion(answer, at)).collect();
                defects.push(scores[place]);
                others.extend((0..LENGTH).filter(|&at| at != place).map(|at| scores[at]));
                let ahead = scores.iter().filter(|&&score| score > scores[place]).count();
                let tied = scores.iter().filter(|&&score| score == scores[place]).count();
                first += if ahead == 0 { 1.0 / tied as f64 } else { 0.0 };
            }
            let auroc = stats::auroc(&defects, &others).unwrap_or(f64::NAN);
            Found { auroc, first: first / answers.len() as f64 }
        };
        Ok([
            found(&|answer, at| -answer[at].reward),
            found(&|answer, at| answer[at].reference_nll),
            found(&|answer, at| answer[at].nll),
            found(&|answer, _| -answer.iter().map(|token| token.reward).sum::<f64>() / LENGTH as f64),
        ])
    }

    /// Gold reward and length under every way to decode.
    fn decode(&self, model: &LanguageModel, budget: &Budget) -> Result<Vec<Decoded>> {
        let keys = keys(&self.task, Part::HeldOut, budget.held_out, &self.seeds, "decoding");
        let mut all = Vec::with_capacity(DECODINGS.len());
        for (name, decoding) in DECODINGS {
            let answers: Vec<Vec<u32>> = match decoding {
                Decoding::Drawn(temperature) => {
                    let seeds = self.seeds.child(name);
                    let drawn = generate(model, &keys, 1, &sampling(temperature), &seeds, SHARES)?;
                    drawn.into_iter().map(|answer| answer.tokens).collect()
                }
                Decoding::Beams(width, length_penalty) => {
                    let beams = Beams { width, length_penalty, answers: 1 };
                    let found = beam::search(model, &keys, &beams, &sampling(1.0), SHARES)?;
                    found.into_iter().flatten().map(|one| one.completion.tokens).collect()
                }
            };
            let count = keys.len() as f64;
            let gold: f64 = keys.iter().zip(&answers).map(|(key, answer)| self.task.gold(key, answer)).sum();
            let tokens =
                answers.iter().map(|answer| answer.iter().filter(|&&t| t != END).count()).sum::<usize>();
            all.push(Decoded { gold: gold / count, length: tokens as f64 / count });
        }
        Ok(all)
    }

    /// Some held-out pairs, the solution and a defective answer, with the rewards of all tokens.
    fn shown(&self, model: &LanguageModel, budget: &Budget) -> Result<Vec<Pair>> {
        let (mut examples, _) = self.defective(budget);
        examples.truncate(4);
        for example in &mut examples {
            let tree = &mut example.trees[0];
            tree.answers.insert(0, self.task.solution(&tree.prompt));
        }
        let rewards = token_rewards(model, &self.base, &examples, BETA, &training(0, 1, 1e-3))?;
        let pair = |(example, slots): (&Example, Vec<Vec<TokenReward>>)| {
            let mut answers = slots.into_iter().map(|mut tokens| {
                tokens.iter_mut().for_each(|token| token.token = self.task.show(token.id));
                Answer { reward: tokens.iter().map(|token| token.reward).sum(), tokens }
            });
            let (chosen, rejected) = (answers.next()?, answers.next()?);
            let prompt = example.trees[0].prompt.iter().map(|&id| self.task.show(id)).collect();
            let margin = chosen.reward - rejected.reward;
            Some(Pair { row: example.id.clone(), prompt, chosen, rejected, margin })
        };
        Ok(examples.iter().zip(rewards).filter_map(pair).collect())
    }
}

fn keys(task: &Keyed, part: Part, n: usize, seeds: &Seeds, stream: &str) -> Vec<Vec<u32>> {
    let mut rng = seeds.rng(&format!("keys of {stream}"), 0);
    (0..n).map(|_| task.key(part, &mut rng)).collect()
}

fn example(prompt: Vec<u32>, answers: Vec<Vec<u32>>, number: usize) -> Example {
    let id = format!("answer {}", number + 1);
    Example { id, ..bench::example(prompt, answers) }
}

fn sampling(temperature: f64) -> Sampling<'static> {
    Sampling { temperature, max_new_tokens: LENGTH + 6, stop: vec![END], ..Sampling::default() }
}

fn dpo() -> Dpo {
    Dpo { beta: BETA, ..Dpo::default() }
}

fn training(seed: u64, steps: usize, learning_rate: f64) -> Training {
    bench::training(seed, steps, learning_rate, Schedule::Cosine)
}

/// A new model that imitates demonstrations of the task. Positions are learnt vectors: which letter decides a token
/// depends on its place alone.
fn imitate(task: &Keyed, seed: u64, budget: &Budget, seeds: &Seeds) -> Result<LanguageModel> {
    let mut config = new_config(Family::Gpt2, Preset::Tiny, VOCABULARY, 32, None, END);
    config["initializer_range"] = json!(0.05);
    let model = weights::init(&config, &seeds.child("weights"), &device::parse("cpu")?)?;
    let mut rng = seeds.rng("demonstrations", 0);
    let demonstrate = |number| {
        let key = task.key(Part::Training, &mut rng);
        let answer = task.demonstrate(&key, &mut rng);
        example(key, vec![answer], number)
    };
    let examples: Vec<Example> = (0..budget.imitation_steps * BATCH).map(demonstrate).collect();
    let training = training(seed, budget.imitation_steps, 3e-3);
    bench::learn(&model, &Sft::default(), &examples, training, &mut |_, _| {})
}

/// One seed. Its heat maps are written into `folder` if there is one.
fn run(seed: u64, budget: &Budget, folder: Option<&Path>) -> Result<Outcome> {
    let wrong = Bench::new(Defects::Wrong(NOISE), seed, budget)?;
    let (course, wrong_model) = wrong.course(&wrong.base, seed, budget)?;
    let forms = Bench::new(Defects::Form, seed, budget)?;
    let forms_model = forms.align(&forms.base, seed, budget, |_, _| {})?;
    let flipped = forms.flipped(budget)?;
    let flipped_model = flipped.align(&flipped.base, seed, budget, |_, _| {})?;
    let cut = Bench::new(Defects::FormAndCut(CUT), seed, budget)?;
    let cut_model = cut.align(&cut.base, seed, budget, |_, _| {})?;
    // A base that knows what answers look like and nothing of which are right.
    let noise = Keyed::new(Defects::Wrong(1.0 - 1.0 / 16.0), &wrong.seeds);
    let base = imitate(&noise, seed, budget, &wrong.seeds.child("base"))?;
    let (from_base, _) = wrong.course(&base, seed, budget)?;
    if let Some(folder) = folder {
        let shown = [wrong.shown(&wrong_model, budget)?, forms.shown(&forms_model, budget)?].concat();
        to_report(&shown, BETA).write(&folder.join("heat.html"))?;
    }
    let mut by_form = forms.credit(&forms_model, budget)?;
    for (one, other) in by_form.iter_mut().zip(flipped.credit(&flipped_model, budget)?) {
        one.auroc = (one.auroc + other.auroc) / 2.0;
        one.first = (one.first + other.first) / 2.0;
    }
    let decoded = |bench: &Bench, model: &LanguageModel| -> Result<[Vec<Decoded>; 2]> {
        Ok([bench.decode(model, budget)?, bench.decode(&bench.base, budget)?])
    };
    Ok(Outcome {
        credit: [wrong.credit(&wrong_model, budget)?, by_form],
        decoded: [decoded(&wrong, &wrong_model)?, decoded(&cut, &cut_model)?],
        courses: [course, from_base],
    })
}

/// Re-tests the claims on the seeds `0..seeds`. `say` is told what happens; heat maps of the first seed go to
/// `heat.html` in `folder`.
///
/// # Errors
/// `folder` cannot be written to; a training that diverges.
pub fn reproduce(folder: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let budget = if quick { QUICK } else { FULL };
    fs::create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
    let mut outcomes = Vec::new();
    for seed in 0..seeds {
        let outcome = run(seed, &budget, (seed == 0).then_some(folder))?;
        say(&format!(
            "seed {seed}: wrong tokens found with AUROC {:.3}, wrong forms with {:.3} (reference alone {:.3}); gold \
             reward {:.2} drawn, {:.2} with 5 beams; chosen reward {:+.3}, from the base {:+.3}",
            outcome.credit[0][0].auroc,
            outcome.credit[1][0].auroc,
            outcome.credit[1][1].auroc,
            outcome.decoded[0][0][DRAWN].gold,
            outcome.decoded[0][0][FIVE_BEAMS].gold,
            outcome.courses[0].chosen[PARTS],
            outcome.courses[1].chosen[PARTS],
        ));
        outcomes.push(outcome);
    }
    let mut result = judge(&outcomes, &budget);
    result.effects.extend(exact(&budget));
    result.seconds = clock.elapsed().as_secs_f64();
    Ok(result)
}

/// Errors of the theory's identities and of the table that DPO's loss leads to.
fn exact(budget: &Budget) -> [Effect; 2] {
    let mut worst = 0.0_f64;
    for seed in 0..5 {
        let mdp = TokenMdp::random(3, 4, 0.5, &Seeds::new(seed));
        let solution = mdp.solve();
        for path in mdp.partial() {
            let likelihood = solution.v[0] + mdp.beta * TokenMdp::along(&solution.log_policy, &path);
            worst = worst.max((mdp.value_guided(&solution, &path) - likelihood).abs());
        }
    }
    let mdp = token_dpo_q_mdp::binary_tree();
    let (optimum, fitted) = (mdp.solve().log_policy, token_dpo_q_mdp::fit(&mdp, budget.table_steps, 1.0));
    let distances =
        optimum.iter().flatten().zip(fitted.iter().flatten()).map(|(a, b)| (a.exp() - b.exp()).abs());
    let effect = |name: &str, error: f64, most: f64| Effect {
        name: name.into(),
        estimate: Estimate::exact(error),
        expected: Expected::Below(most),
    };
    [
        effect(
            "exact: value-guided scores of partial answers less V* + beta log pi*, largest error",
            worst,
            1e-10,
        ),
        effect(
            "exact: DPO's loss over a table against the soft-optimal policy, largest error of a probability",
            distances.fold(0.0, f64::max),
            1e-4,
        ),
    ]
}

fn judge(outcomes: &[Outcome], budget: &Budget) -> ClaimResult {
    let each = |value: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(value).collect::<Vec<f64>>();
    let mean = |value: &dyn Fn(&Outcome) -> f64| stats::mean(&each(value)).unwrap_or(f64::NAN);
    let headers = ["what", "how", "measured", "and"].map(String::from).to_vec();
    let mut rows = Vec::new();
    let mut row = |what: &str, how: &str, measured: String, and: String| {
        rows.push([what.to_owned(), how.to_owned(), measured, and].to_vec());
    };
    for (test, what) in ["finding the wrong token", "finding the wrong form"].into_iter().enumerate() {
        for (by, how) in SUSPICIONS.into_iter().enumerate() {
            let (auroc, first) = (mean(&|o| o.credit[test][by].auroc), mean(&|o| o.credit[test][by].first));
            row(what, how, format!("AUROC {auroc:.3}"), format!("first guess right {:.1} %", 100.0 * first));
        }
    }
    let tasks = ["answers of 10 tokens", "answers of any length"];
    for (task, what) in tasks.into_iter().enumerate() {
        for (model, whose) in ["DPO", "reference"].into_iter().enumerate() {
            for (at, (how, _)) in DECODINGS.into_iter().enumerate() {
                let gold = mean(&|o| o.decoded[task][model][at].gold);
                let length = mean(&|o| o.decoded[task][model][at].length);
                let what = format!("{what}, {whose}");
                row(&what, how, format!("gold reward {gold:.2}"), format!("{length:.2} tokens"));
            }
        }
    }
    for (start, what) in ["from the fine-tuned start", "from the base"].into_iter().enumerate() {
        for part in 0..=PARTS {
            let chosen = mean(&|o| o.courses[start].chosen[part]);
            let rejected = mean(&|o| o.courses[start].rejected[part]);
            let how = format!("{part}/{PARTS} of the steps");
            row(what, &how, format!("chosen reward {chosen:+.4}"), format!("rejected {rejected:+.4}"));
        }
    }
    let effect = |name: &str, expected, value: &dyn Fn(&Outcome) -> f64| Effect {
        name: name.into(),
        estimate: stats::t_interval(&each(value), "seeds"),
        expected,
    };
    let gain =
        |o: &Outcome, task: usize| o.decoded[task][0][FIVE_BEAMS].gold - o.decoded[task][0][DRAWN].gold;
    let course = |o: &Outcome, start: usize, part: usize| o.courses[start].chosen[part];
    let effects = vec![
        effect("wrong form, unknown to the reference: AUROC of -rhat", Expected::Above(0.9), &|o| {
            o.credit[1][0].auroc
        }),
        effect("the same: AUROC of -log ref", Expected::Between(0.4, 0.6), &|o| o.credit[1][1].auroc),
        effect("wrong token: AUROC of -rhat", Expected::Above(0.95), &|o| o.credit[0][0].auroc),
        effect("wrong token: share of first guesses by -rhat that are right", Expected::Above(0.8), &|o| {
            o.credit[0][0].first
        }),
        effect("gold reward of 5 beams less that of drawn answers", Expected::Above(0.0), &|o| gain(o, 0)),
        effect(
            "the same for answers of any length, as a share of the range of gold rewards",
            Expected::Above(0.1),
            &|o| gain(o, 1) / LENGTH as f64,
        ),
        effect("chosen reward after DPO from the fine-tuned start", Expected::Below(0.0), &|o| {
            course(o, 0, PARTS)
        }),
        effect("the same less that at half the steps: it goes on falling", Expected::Below(0.0), &|o| {
            course(o, 0, PARTS) - course(o, 0, PARTS / 2)
        }),
        effect(
            "chosen reward from the base less that from the fine-tuned start",
            Expected::Above(0.0),
            &|o| course(o, 1, PARTS) - course(o, 0, PARTS),
        ),
    ];
    ClaimResult {
        slug: "token-dpo-q".into(),
        claim: "Trained on comparisons of whole answers, DPO's token rewards single out the token that made an answer \
                worse, also where the reference knows nothing of it; beam search on the policy finds better answers \
                than drawing; and the chosen answers' rewards fall from a fine-tuned start, not from a base."
            .into(),
        setup: format!(
            "A 2-layer transformer of width 64; keys of 4 letters, answers of {LENGTH} tokens that are a function of the \
             key, one of 8 keys held out. Demonstrations ({} steps of 64) have each token wrong with probability \
             {NOISE}; or each symbol in one of two forms, evenly, of which the gold reward penalises one (drawn for each \
             symbol; figures are means over this choice and its opposite from the same reference); or forms, and an \
             early end with probability {CUT} after each token. The gold reward is minus the number of wrong, \
             penalised, missing and surplus tokens. {} pairs of the model's own answers with labels drawn by \
             Bradley-Terry on the gold reward, {} epochs of DPO at beta {BETA}, AdamW 3e-4. Token rewards are judged on \
             {} held-out answers with exactly one defect (a first guess at random is right in 10 %), decoding on as \
             many held-out keys. The base has imitated answers of random symbols; it is trained on the fine-tuned \
             model's pairs.",
            budget.imitation_steps, budget.pairs, budget.epochs, budget.held_out,
        ),
        table: Table { headers, rows },
        effects,
        plots: Vec::new(),
        remarks: "Not measured: a trained token reward model and gradient saliency as baselines of credit.".into(),
        command: "polo reproduce token-dpo-q".into(),
        seconds: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::Tree;

    const SMALL: Budget = Budget { imitation_steps: 60, pairs: 256, epochs: 1, held_out: 12, table_steps: 1 };

    #[test]
    fn pairs_are_mostly_in_order_of_gold_and_those_of_the_flipped_task_by_its_own() {
        let bench = Bench::new(Defects::Form, 1, &SMALL).unwrap();
        let flipped = bench.flipped(&SMALL).unwrap();
        let sorted = |pair: &Example| {
            let mut answers = pair.trees[0].answers.clone();
            answers.sort();
            answers
        };
        assert!(bench.pairs.iter().map(sorted).eq(flipped.pairs.iter().map(sorted)));
        for bench in [&bench, &flipped] {
            let gains = bench.pairs.iter().map(|pair| {
                let Tree { prompt, answers } = &pair.trees[0];
                bench.task.gold(prompt, &answers[0]) - bench.task.gold(prompt, &answers[1])
            });
            let differ: Vec<f64> = gains.filter(|gain| *gain != 0.0).collect();
            let right = differ.iter().filter(|gain| **gain > 0.0).count() as f64;
            assert!(right > 0.65 * differ.len() as f64, "{right} of {}", differ.len());
        }
    }

    /// Without training there are no rewards, every way to decode gives an answer, and courses begin at 0.
    #[test]
    fn an_untrained_model_is_suspected_of_nothing() {
        let bench = Bench::new(Defects::FormAndCut(CUT), 1, &SMALL).unwrap();
        let credit = bench.credit(&bench.base, &SMALL).unwrap();
        for found in [credit[0], credit[3]] {
            assert_eq!(found.auroc, 0.5);
            assert!((found.first - 0.1).abs() < 1e-12);
        }
        assert_eq!(credit[1], credit[2]);
        let decoded = bench.decode(&bench.base, &SMALL).unwrap();
        assert_eq!(decoded.len(), DECODINGS.len());
        assert!(decoded.iter().all(|one| (-20.0..=0.0).contains(&one.gold) && one.length <= 16.0));
        let (course, _) = bench.course(&bench.base, 1, &SMALL).unwrap();
        assert_eq!((course.chosen.len(), course.chosen[0], course.rejected[0]), (PARTS + 1, 0.0, 0.0));
    }
}
