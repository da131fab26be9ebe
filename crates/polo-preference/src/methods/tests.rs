//! Losses against the papers' identities, TRL's values and finite differences; rows against the sequences they become.

use std::{f64::consts::LN_2, fs, path::Path, sync::Arc};

use polo_lm::{
    encode::Limits,
    rows::{About, CompletionRow, PairRow, Place, Text},
    tokens::Tokenizer,
    vocabulary::{NewSpecials, Symbols, write_symbols},
};
use polo_run::seed::{Seeds, unit};
use serde_json::Value;

use super::{
    METHODS,
    brain::{self, Brain},
    dpo::Dpo,
    ipo::Ipo,
    rdpo::{self, Rdpo},
    rpo::{self, Rpo},
    rso::{self, Rso},
    sft::Sft,
    simpo::Simpo,
    srpo::{A_L, A_W, C_LL, C_LW, C_WL, C_WW, Srpo},
    tpo::{self, Tpo},
    vpo::{self, Vpo},
};
use crate::{
    objective::{Batch, Example, Gradient, PairObjective, Reduction, Rows, Tree, differentiate},
    pairwise::NllReduction,
    settings::{TemplateSet, Templates},
};

/// A batch of these log-ratios (`[slot][example]`) over a reference that gives every answer -10 nats.
pub(super) fn of_ratios(ratios: &[Vec<f64>], labels: &[f64]) -> Batch {
    let shifted = |slot: &Vec<f64>| slot.iter().map(|ratio| ratio - 10.0).collect();
    Batch {
        policy: ratios.iter().map(shifted).collect(),
        reference: vec![vec![-10.0; labels.len()]; ratios.len()],
        tokens: vec![vec![4; labels.len()]; ratios.len()],
        labels: labels.to_vec(),
        ..Batch::default()
    }
}

/// Random numbers in [-2, 2).
pub(super) fn random(n: usize, stream: &str) -> Vec<f64> {
    let mut rng = Seeds::new(7).rng(stream, n as u64);
    (0..n).map(|_| 4.0 * unit(&mut rng) - 2.0).collect()
}

pub(super) fn random_ratios(slots: usize, examples: usize) -> Vec<Vec<f64>> {
    (0..slots).map(|slot| random(examples, &format!("slot {slot}"))).collect()
}

pub(super) fn losses(objective: &dyn PairObjective, ratios: &[Vec<f64>], labels: &[f64]) -> Vec<f64> {
    differentiate(objective, &of_ratios(ratios, labels)).each
}

pub(super) fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (one, other) in found.iter().zip(expected) {
        assert!((one - other).abs() <= tolerance, "{found:?} is not {expected:?}");
    }
}

pub(super) fn scaled(values: &[f64], factor: f64) -> Vec<f64> {
    values.iter().map(|value| value * factor).collect()
}

pub(super) fn sum(one: &[f64], other: &[f64]) -> Vec<f64> {
    one.iter().zip(other).map(|(one, other)| one + other).collect()
}

fn ipo(beta: f64) -> Ipo {
    Ipo { beta, ..Ipo::default() }
}

fn srpo(beta: f64, alpha: f64) -> Srpo {
    Srpo { beta, alpha, ..Srpo::default() }
}

#[test]
fn losses_at_the_reference() {
    let pair = vec![vec![0.0]; 2];
    close(&losses(&Dpo::default(), &pair, &[1.0]), &[LN_2], 1e-15);
    close(&losses(&ipo(0.1), &pair, &[1.0]), &[25.0], 1e-12);
    let six = vec![vec![0.0]; 6];
    for alpha in [0.0, 0.3, 1.0] {
        close(&losses(&srpo(0.1, alpha), &six, &[1.0]), &[1.0 - alpha / 2.0], 1e-15);
    }
    let scales = Srpo { gen_scale: 0.25, si_scale: 3.0, ..srpo(0.1, 0.5) };
    close(&losses(&scales, &six, &[1.0]), &[0.125 + 0.75], 1e-15);
}

#[test]
fn dpo_with_smoothed_and_soft_labels() {
    let ratios = random_ratios(2, 5);
    let swapped = [ratios[1].clone(), ratios[0].clone()];
    let [hard, soft, flipped] = [[1.0; 5], [0.7; 5], [0.3; 5]];
    let half = Dpo { label_smoothing: 0.5, ..Dpo::default() };
    close(&losses(&half, &ratios, &hard), &losses(&half, &swapped, &hard), 1e-15);
    let smoothed = Dpo { label_smoothing: 0.3, ..Dpo::default() };
    close(&losses(&smoothed, &ratios, &hard), &losses(&Dpo::default(), &ratios, &soft), 1e-15);
    close(&losses(&Dpo::default(), &ratios, &soft), &losses(&Dpo::default(), &swapped, &flipped), 1e-15);
    close(&losses(&ipo(0.3), &ratios, &soft), &losses(&ipo(0.3), &swapped, &flipped), 1e-12);
    // Far margins neither overflow nor lose their gradient.
    let far = differentiate(&Dpo::default(), &of_ratios(&[vec![-9000.0, 9000.0], vec![0.0, 0.0]], &[1.0; 2]));
    close(&far.each, &[900.0, 0.0], 1e-9);
    close(&far.policy[0], &[-0.1, 0.0], 1e-12);
}

#[test]
fn ipo_by_mean_divides_by_each_length() {
    let mut batch = of_ratios(&[vec![6.0], vec![1.0]], &[1.0]);
    batch.tokens = vec![vec![3], vec![2]];
    let mean = Ipo { beta: 0.5, reduction: Reduction::Mean };
    close(&differentiate(&mean, &batch).each, &[0.25], 1e-12);
}

#[test]
fn srpo_is_ipo_in_three_ways() {
    let (beta, hard) = (0.3, [1.0; 8]);
    let ratios = random_ratios(6, 8);
    let pair = |w: usize, l: usize, beta| losses(&ipo(beta), &[ratios[w].clone(), ratios[l].clone()], &hard);
    // 1: each improvement term is IPO conditioned on an answer.
    let improvement = losses(&srpo(beta, 1.0), &ratios, &hard);
    let conditioned = sum(&pair(C_WL, C_LL, beta), &pair(C_WW, C_LW, beta));
    close(&improvement, &scaled(&conditioned, beta * beta), 1e-10);
    // 2: with a frozen improvement policy, the generative loss is IPO at half the beta.
    let mut frozen = vec![vec![0.0; 8]; 6];
    (frozen[A_W], frozen[A_L]) = (ratios[A_W].clone(), ratios[A_L].clone());
    let generative = losses(&srpo(beta, 0.0), &frozen, &hard);
    close(&generative, &scaled(&pair(A_W, A_L, beta / 2.0), beta * beta), 1e-10);
    // 3: a policy that ignores the earlier answer does IPO, whether it does so by itself or by the ablation.
    let [w, l] = [&ratios[A_W], &ratios[A_L]];
    let ignoring = [w, l, w, l, w, l].map(Vec::clone);
    for alpha in [0.0, 0.4, 1.0] {
        let expected = scaled(&pair(A_W, A_L, beta), (4.0 - 2.0 * alpha) * beta * beta);
        close(&losses(&srpo(beta, alpha), &ignoring, &hard), &expected, 1e-10);
        let blind = Srpo { conditioning: false, ..srpo(beta, alpha) };
        close(&losses(&blind, &ignoring[..2], &hard), &expected, 1e-10);
    }
}

#[test]
fn srpo_vanishes_at_its_solution() {
    let beta = 0.2;
    let half = 0.5 / beta;
    let (c_ll, c_lw) = (0.7, -0.4);
    let (c_wl, c_ww) = (c_ll + half, c_lw + half);
    let mut ratios = vec![vec![0.0]; 6];
    for (slot, value) in [(C_WL, c_wl), (C_LL, c_ll), (C_WW, c_ww), (C_LW, c_lw), (A_L, -0.3)] {
        ratios[slot] = vec![value];
    }
    ratios[A_W] = vec![-0.3 + 1.0 / beta - (c_wl - c_lw)];
    let found = differentiate(&srpo(beta, 0.6), &of_ratios(&ratios, &[1.0]));
    close(&found.each, &[0.0], 1e-12);
    close(&found.policy.concat(), &[0.0; 6], 1e-12);
    // And, ignoring the earlier answer, at IPO's.
    let ignoring: Vec<_> = [half, 0.0].repeat(3).into_iter().map(|ratio| vec![ratio]).collect();
    close(&losses(&srpo(beta, 0.6), &ignoring, &[1.0]), &[0.0], 1e-12);
}

#[test]
fn srpo_gradient_and_gauge() {
    let beta = 0.2;
    let ratios: Vec<Vec<f64>> = random_ratios(6, 1);
    let r = |slot: usize| ratios[slot][0];
    let bracket = r(C_WL) + r(A_W) - r(C_LW) - r(A_L);
    let generative = differentiate(&srpo(beta, 0.0), &of_ratios(&ratios, &[1.0]));
    let expected = -2.0 * beta * (1.0 - beta * bracket);
    close(&[generative.policy[A_W][0], generative.policy[A_L][0]], &[expected, -expected], 1e-12);

    // Adding a constant to C(.|l) changes the generative loss alone, and not even that if A(l) gets it too.
    let mut shifted = ratios.clone();
    shifted[C_WL][0] += 0.8;
    shifted[C_LL][0] += 0.8;
    let loss = |alpha, ratios: &[Vec<f64>]| losses(&srpo(beta, alpha), ratios, &[1.0]);
    close(&loss(1.0, &shifted), &loss(1.0, &ratios), 1e-12);
    assert!((loss(0.0, &shifted)[0] - loss(0.0, &ratios)[0]).abs() > 1e-3);
    shifted[A_L][0] += 0.8;
    close(&loss(0.0, &shifted), &loss(0.0, &ratios), 1e-12);
}

#[test]
fn srpo_does_not_care_which_answer_is_called_chosen() {
    let ratios = random_ratios(6, 4);
    let swapped = [A_L, A_W, C_LW, C_WW, C_LL, C_WL].map(|slot| ratios[slot].clone());
    let labels = [1.0, 0.8, 0.5, 0.1];
    let flipped = labels.map(|p| 1.0 - p);
    for copy_terms in [true, false] {
        let objective = Srpo { copy_terms, ..srpo(0.3, 0.4) };
        close(&losses(&objective, &ratios, &labels), &losses(&objective, &swapped, &flipped), 1e-12);
    }
}

#[test]
fn srpo_metrics() {
    let ratios = [[2.0, 0.0], [1.0, 1.0], [3.0, 0.0], [0.5, 0.5], [0.25, 0.75], [1.0, 2.0]];
    let found = differentiate(&srpo(0.1, 0.5), &of_ratios(&ratios.map(Vec::from), &[1.0, 1.0]));
    let check = |name: &str, expected: f64| {
        let value = found.metrics.get(name).unwrap();
        assert!((value - expected).abs() < 1e-12, "{name}: {value} is not {expected}");
    };
    check("rewards/chosen", 0.1);
    check("rewards/rejected", 0.1);
    check("rewards/margins", 0.0);
    check("rewards/accuracies", 0.5);
    check("logps/chosen", -9.0);
    check("improvement/margins", 0.0);
    check("improvement/accuracies", 0.5);
    check("improvement/copy_rejected", 0.5);
    check("improvement/copy_chosen", 0.5);
    let generative = found.metrics.get("losses/generative").unwrap();
    let improvement = found.metrics.get("losses/improvement").unwrap();
    assert!((found.sum() - (generative + improvement)).abs() < 1e-12);
    // Every metric is on the card.
    for (name, _) in found.metrics.iter() {
        assert!(super::srpo::CARD.metrics.iter().any(|(known, _)| *known == name), "{name}");
    }
}

fn optimistic_vpo() -> Vpo {
    Vpo { calibration: vpo::Calibration::Gold, attitude: vpo::Attitude::Optimism, ..Vpo::default() }
}

fn objectives() -> Vec<(&'static str, usize, Box<dyn PairObjective>)> {
    vec![
        ("dpo", 2, Box::new(Dpo::default())),
        ("cdpo", 2, Box::new(Dpo { label_smoothing: 0.2, beta: 0.7 })),
        ("ipo", 2, Box::new(ipo(0.2))),
        ("ipo by mean", 2, Box::new(Ipo { reduction: Reduction::Mean, ..ipo(0.2) })),
        ("srpo", 6, Box::new(srpo(0.2, 0.3))),
        ("srpo by mean", 6, Box::new(Srpo { reduction: Reduction::Mean, gen_scale: 0.25, ..srpo(0.2, 0.3) })),
        ("srpo without copies", 6, Box::new(Srpo { copy_terms: false, ..srpo(0.2, 0.3) })),
        ("srpo, context-blind", 2, Box::new(Srpo { conditioning: false, ..srpo(0.2, 0.3) })),
        ("rdpo", 2, Box::new(Rdpo { flip_rate: 0.3, beta: 0.4, ..Rdpo::default() })),
        ("robust ipo", 2, Box::new(Rdpo { loss: rdpo::Base::Ipo, ..Rdpo::default() })),
        ("robust hinge", 2, Box::new(Rdpo { loss: rdpo::Base::Hinge, ..Rdpo::default() })),
        ("simpo", 2, Box::new(Simpo { label_smoothing: 0.1, ..Simpo::default() })),
        ("rpo", 2, Box::new(Rpo { eta: 0.3, ..Rpo::default() })),
        ("rpo per token", 2, Box::new(Rpo { reduction: NllReduction::SequenceMean, ..Rpo::default() })),
        ("rpo with a baseline", 3, Box::new(Rpo { baseline: rpo::Baseline::Gold, ..Rpo::default() })),
        ("vpo", 2, Box::new(Vpo { calibration: vpo::Calibration::Both, ..Vpo::default() })),
        ("optimistic vpo", 3, Box::new(optimistic_vpo())),
        ("tpo", 3, Box::new(Tpo { nll_reduction: NllReduction::Sum, beta: 0.2, ..Tpo::default() })),
        (
            "tpo-l",
            3,
            Box::new(Tpo { nll_reduction: NllReduction::Sum, form: tpo::Form::TpoL, ..Tpo::default() }),
        ),
        ("rso", 2, Box::new(Rso { gamma: 0.6, ..Rso::default() })),
        ("rso by hinge", 2, Box::new(Rso { loss: rso::Form::HingeNorm, gamma: 0.6 })),
        ("slic", 2, Box::new(Rso { loss: rso::Form::Hinge, gamma: 0.6 })),
        ("brain", 4, Box::new(Brain { weights: brain::Weights::Argmax, ..Brain::default() })),
        ("sft", 1, Box::new(Sft::default())),
    ]
}

/// A batch with soft labels and lengths that differ.
fn uneven(objective: &dyn PairObjective, slots: usize) -> Batch {
    let mut batch = of_ratios(&random_ratios(slots, 3), &[1.0, 0.8, 0.35]);
    for (slot, tokens) in batch.tokens.iter_mut().enumerate() {
        *tokens = vec![3 + slot, 2, 9 - slot];
    }
    if !objective.uses_reference() {
        batch.reference.clear();
    }
    batch
}

#[test]
fn gradients_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    for (name, slots, objective) in objectives() {
        let batch = uneven(objective.as_ref(), slots);
        let found = differentiate(objective.as_ref(), &batch);
        for slot in 0..slots {
            for example in 0..batch.labels.len() {
                let at = |shift: f64| {
                    let mut moved = batch.clone();
                    moved.policy[slot][example] += shift;
                    differentiate(objective.as_ref(), &moved).sum()
                };
                let expected = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                let gradient = found.policy[slot][example];
                assert!(
                    (gradient - expected).abs() < 1e-8,
                    "{name}, slot {slot}: {gradient} is not {expected}"
                );
            }
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    for (name, slots, objective) in objectives() {
        let whole = uneven(objective.as_ref(), slots);
        let found = differentiate(objective.as_ref(), &whole);
        let mut joined = Gradient { each: vec![], policy: vec![vec![]; slots], ..found.clone() };
        for example in 0..whole.labels.len() {
            let column = |slots: &[Vec<f64>]| slots.iter().map(|slot| slot[example]).collect::<Vec<_>>();
            let answers = whole.tokens.iter().map(|slot| vec![0; slot[example]]).collect();
            let trees = vec![Tree { prompt: vec![0], answers }];
            let one = Example { trees, label: whole.labels[example], ..Example::default() };
            let mut micro = Batch::new(slots, objective.uses_reference());
            micro.push(&one, &column(&whole.policy), &column(&whole.reference), &[]);
            let part = differentiate(objective.as_ref(), &micro);
            joined.each.extend(part.each);
            joined.policy.iter_mut().zip(part.policy).for_each(|(slot, part)| slot.extend(part));
        }
        assert_eq!(joined, found, "{name}");
    }
}

#[test]
fn losses_and_metrics_are_trl_s() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/one_step.json");
    let golden: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let pairs = &golden["per_pair"];
    let sides = |prefix: &str, suffix: &str| {
        ["chosen", "rejected"].map(|side| numbers(&pairs[format!("{prefix}{side}_{suffix}")])).to_vec()
    };
    let lengths = |slot: Vec<f64>| slot.into_iter().map(|tokens| tokens as usize).collect();
    let batch = Batch {
        policy: sides("", "logps"),
        reference: sides("ref_", "logps"),
        tokens: sides("", "tokens").into_iter().map(lengths).collect(),
        labels: vec![1.0; 4],
        ..Batch::default()
    };
    let beta = golden["beta"].as_f64().unwrap();
    let check = |objective: &dyn PairObjective, by_hand: &str, trl: Option<&str>| {
        let found = differentiate(objective, &batch);
        let expected = numbers(&golden["by_hand"][by_hand]["per_pair"]);
        for (loss, expected) in found.each.iter().zip(expected) {
            assert!((loss / expected - 1.0).abs() < 2e-6, "{by_hand}: {loss} is not {expected}");
        }
        let Some(trl) = trl.map(|name| &golden["trl"][name]) else { return };
        let loss = trl["loss"].as_f64().unwrap();
        assert!(
            (found.sum() / 4.0 / loss - 1.0).abs() < 2e-6,
            "{by_hand}: {} is not {loss}",
            found.sum() / 4.0
        );
        for (name, value) in found.metrics.iter() {
            let expected = trl["metrics"][name].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-5, "{by_hand}, {name}: {value} is not {expected}");
        }
    };
    check(&Dpo { beta, ..Dpo::default() }, "sigmoid", Some("sigmoid"));
    check(&Ipo { reduction: Reduction::Mean, ..ipo(beta) }, "ipo_mean", Some("ipo"));
    check(&ipo(beta), "ipo_sum", None);
}

#[test]
fn cards_are_complete() {
    for card in METHODS {
        for text in [card.slug, card.title, card.paper, card.arxiv, card.summary, card.claim, card.equation] {
            assert!(!text.is_empty(), "{card:?}");
        }
        assert!(!card.symbols.is_empty() && !card.metrics.is_empty() && !card.failure_signs.is_empty());
    }
}

/// A tokenizer of words, without BOS.
pub(super) fn words() -> Tokenizer {
    let home = tempfile::tempdir().unwrap();
    let specials = NewSpecials { bos: None, ..NewSpecials::default() };
    write_symbols(&["GEN", "REV", "x", "good", "bad"], Symbols::Words, &specials, home.path()).unwrap();
    Tokenizer::load(home.path()).unwrap()
}

pub(super) fn place() -> Place {
    Place { file: Arc::from(Path::new("pairs.jsonl")), line: 3 }
}

pub(super) fn plain(text: &str) -> Text {
    Text::Plain(text.into())
}

pub(super) fn pairs(n: u64) -> Rows {
    let row = |id| PairRow {
        prompt: plain("x "),
        chosen: plain("good"),
        rejected: plain("bad"),
        label: 0.9,
        about: About::default(),
        place: place(),
        id,
    };
    Rows::Pairs((0..n).map(row).collect())
}

fn symbols() -> Templates {
    Templates { set: TemplateSet::Symbols, ..Templates::default() }
}

/// A tree as text: prompt, answers.
pub(super) type Shown = (String, Vec<String>);

/// The examples of `rows`, and their trees as text.
pub(super) fn encoded(objective: &dyn PairObjective, rows: &Rows) -> Vec<(Example, Vec<Shown>)> {
    let tokenizer = words();
    let text = |ids: &[u32]| tokenizer.decode(ids, true);
    let shown = |tree: &Tree| (text(&tree.prompt), tree.answers.iter().map(|ids| text(ids)).collect());
    let encoded = objective.encode(rows, &tokenizer, &Limits::new(32)).unwrap().rows;
    encoded.into_iter().map(|example| (example.clone(), example.trees.iter().map(shown).collect())).collect()
}

#[test]
fn pairs_become_the_trees_of_their_method() {
    let tree = |prompt: &str, answers: &[&str]| {
        (prompt.to_owned(), answers.iter().map(|&answer| answer.to_owned()).collect::<Vec<_>>())
    };
    let both = ["good", "bad"];
    let check = |objective: &dyn PairObjective, expected: Vec<Shown>| {
        let found = encoded(objective, &pairs(1));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, expected);
        assert_eq!((found[0].0.label, found[0].0.id.as_str()), (0.9, "pairs.jsonl:3"));
        assert_eq!(objective.weight(&found[0].0), 1.0);
        // The end token is learnt.
        assert!(found[0].0.answer_tokens().all(|tokens| tokens == 2));
    };
    check(&Dpo::default(), vec![tree("x", &both)]);
    check(&Ipo::default(), vec![tree("x", &both)]);
    let srpo = Srpo { templates: symbols(), ..Srpo::default() };
    let blind = Srpo { conditioning: false, ..srpo.clone() };
    let generate = tree("x GEN", &both);
    check(&blind, vec![generate.clone()]);
    check(&srpo, vec![generate, tree("x REV bad GEN", &both), tree("x REV good GEN", &both)]);
}

#[test]
fn fine_tuning_learns_completions_the_chosen_side_and_revisions() {
    let check = |sft: &Sft, rows: &Rows, expected: &[&str]| {
        let found = encoded(sft, rows);
        let prompts: Vec<_> = found.iter().map(|(_, trees)| trees[0].0.as_str()).collect();
        assert_eq!(prompts, expected);
        for (example, trees) in &found {
            assert_eq!(trees[0].1, ["good"]);
            assert_eq!(sft.weight(example), 2.0);
        }
    };
    let row = CompletionRow { prompt: plain("x "), completion: plain("good"), place: place(), id: 0 };
    let completions = Rows::Completions(vec![row]);
    check(&Sft::default(), &completions, &["x"]);
    check(&Sft::default(), &pairs(1), &["x"]);
    let revising = |revision| Sft { revision, templates: symbols() };
    check(&revising(1.0), &pairs(2), &["x REV bad GEN", "x GEN", "x REV bad GEN", "x GEN"]);

    let some = encoded(&revising(0.25), &pairs(400));
    let taught = some.iter().filter(|(example, _)| example.id.ends_with("(revision)")).count();
    assert!((70..130).contains(&taught), "{taught} of 400");
    for objective in [&revising(0.5) as &dyn PairObjective, &Dpo::default(), &Srpo::default()] {
        let problem = objective.encode(&completions, &words(), &Limits::new(32)).unwrap_err();
        assert!(problem.message().contains("preference pairs"), "{problem}");
    }
}
