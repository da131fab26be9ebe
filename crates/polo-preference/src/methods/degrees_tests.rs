//! Self-supervised preference optimisation and reward models: what is read out of the model, and the card's checks.

use std::{f64::consts::LN_2, path::Path, sync::Arc};

use polo_lm::{
    encode::Limits,
    rows::{About, PairRow, Place, Text},
    tokens::Tokenizer,
    vocabulary::{NewSpecials, Symbols, write_symbols},
};

use super::{
    curry_dpo::{self, CurryDpo},
    dpo::Dpo,
    reward_model::RewardModel,
    self_supervised_po::{Align, Extractor, Labels, Removal, SelfSupervisedPo, Side},
    tests::{close, of_ratios, random_ratios},
};
use crate::objective::{Batch, Example, PairObjective, Rows, Tree, differentiate};

fn spd() -> SelfSupervisedPo {
    SelfSupervisedPo { extractor: Extractor::Random, ..SelfSupervisedPo::default() }
}

/// Random log-ratios of a pair, and readouts `[slots][examples][classes]` by a formula.
fn batch(slots: usize, classes: usize, scale: f64) -> Batch {
    let mut ratios = random_ratios(2, 3);
    ratios.resize(slots, vec![0.0; 3]);
    let mut batch = of_ratios(&ratios, &[1.0; 3]);
    let value = |slot: usize, example: usize, class: usize| {
        scale * ((7 * slot + 3 * example + class) as f64 * 1.3).sin()
    };
    batch.readouts = (0..slots)
        .map(|slot| {
            (0..3).map(|example| (0..classes).map(|class| value(slot, example, class)).collect()).collect()
        })
        .collect();
    batch
}

#[test]
fn without_weight_it_is_the_alignment_loss() {
    let none = SelfSupervisedPo { lambda: 0.0, ..spd() };
    let found = differentiate(&none, &batch(8, 4, 1.0));
    let mut plain = batch(8, 4, 1.0);
    plain.readouts.clear();
    let dpo = differentiate(&Dpo::default(), &plain);
    assert_eq!((found.each, found.policy), (dpo.each, dpo.policy));
    assert!(found.readouts.iter().flatten().flatten().all(|&slope| slope == 0.0));
}

#[test]
fn an_empty_readout_knows_nothing() {
    let check = |objective: SelfSupervisedPo, slots: usize, classes: usize, expected: f64| {
        let found = differentiate(&objective, &batch(slots, classes, 0.0));
        let degrees = found.metrics.get("losses/degrees").unwrap();
        assert!((degrees - expected).abs() < 1e-12, "{degrees} is not {expected}");
        assert!(found.readouts.iter().flatten().flatten().any(|&slope| slope != 0.0));
    };
    check(spd(), 8, 4, 2.772_588_722_239_781);
    check(SelfSupervisedPo { labels: Labels::Split, ..spd() }, 8, 8, 4.158_883_083_359_672);
    check(SelfSupervisedPo { of: Side::Chosen, degrees: 2, ..spd() }, 3, 2, LN_2);
}

#[test]
fn gradients_of_readouts_are_those_of_finite_differences() {
    const STEP: f64 = 1e-5;
    let objectives: [(Box<dyn PairObjective>, usize, usize); 3] = [
        (Box::new(SelfSupervisedPo { lambda: 0.7, ..spd() }), 8, 4),
        (Box::new(SelfSupervisedPo { labels: Labels::Split, of: Side::Rejected, ..spd() }), 5, 8),
        (Box::new(RewardModel { margin: 0.3, centre: 0.1, ..RewardModel::default() }), 2, 1),
    ];
    for (objective, slots, classes) in objectives {
        let batch = batch(slots, classes, 1.0);
        let found = differentiate(objective.as_ref(), &batch);
        for slot in 0..slots {
            for class in 0..classes {
                let at = |shift: f64| {
                    let mut moved = batch.clone();
                    moved.readouts[slot][1][class] += shift;
                    differentiate(objective.as_ref(), &moved).sum()
                };
                let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
                assert!((found.readouts[slot][1][class] - slope).abs() < 1e-8, "{slot} {class}");
            }
        }
    }
}

#[test]
fn a_reward_model_is_bradley_terry() {
    let mut pair = of_ratios(&[vec![0.0], vec![0.0]], &[1.0]);
    pair.readouts = vec![vec![vec![0.9]], vec![vec![0.2]]];
    let loss = |objective: RewardModel| differentiate(&objective, &pair).each[0];
    let plain = loss(RewardModel::default());
    close(&[plain], &[(-0.7f64).exp().ln_1p()], 1e-15);
    close(&[loss(RewardModel { margin: 0.7, ..RewardModel::default() })], &[LN_2], 1e-12);
    close(&[loss(RewardModel { centre: 0.5, ..RewardModel::default() }) - plain], &[0.5 * 1.21], 1e-12);
}

fn tokenizer(folder: &Path) -> Tokenizer {
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    write_symbols(&letters, Symbols::Words, &NewSpecials::default(), folder).unwrap();
    Tokenizer::load(folder).unwrap()
}

fn pairs(rows: &[(&str, &str, &str)]) -> Rows {
    let place = Place { file: Arc::from(Path::new("pairs.jsonl")), line: 1 };
    let row = |(id, (prompt, chosen, rejected)): (usize, &(&str, &str, &str))| PairRow {
        prompt: Text::Plain((*prompt).into()),
        chosen: Text::Plain((*chosen).into()),
        rejected: Text::Plain((*rejected).into()),
        label: 1.0,
        about: About::default(),
        place: place.clone(),
        id: id as u64,
    };
    Rows::Pairs(rows.iter().enumerate().map(row).collect())
}

#[test]
fn versions_lose_key_units_step_by_step_and_never_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(folder.path());
    let rows = pairs(&[("a b", "c d e f g h", "c d"), ("a c", "i j", "d")]);
    let encode =
        |objective: &SelfSupervisedPo| objective.encode(&rows, &tokenizer, &Limits::new(32)).unwrap().rows;
    let examples = encode(&spd());
    for example in &examples {
        let Tree { answers, .. } = &example.trees[0];
        assert_eq!(example.read.len(), 6);
        for (answer, versions) in answers.iter().zip(example.read.chunks_exact(3)) {
            let units = answer.len() - 1;
            let key = (units as f64 * 0.5).round();
            for (degree, version) in (1..).zip(versions) {
                let removed = (key * f64::from(degree) / 3.0).round() as usize;
                assert_eq!(version.len(), answer.len() - removed);
                assert_eq!(version.last(), answer.last());
                let mut rest = answer.iter();
                assert!(version.iter().all(|token| rest.any(|other| other == token)), "an order was changed");
            }
        }
    }
    assert_eq!(encode(&spd()), examples);
    let masked = encode(&SelfSupervisedPo { removal: Removal::Mask, of: Side::Chosen, ..spd() });
    assert!(masked[0].read.len() == 3 && masked[0].read.iter().all(|version| version.len() == 7));
    // Words that all answers have in common go last under tf-idf.
    let tf_idf = encode(&SelfSupervisedPo { extractor: Extractor::TfIdf, key_share: 1.0, ..spd() });
    let d = tokenizer.encode("d", false).unwrap()[0];
    assert!(tf_idf[0].read[1].contains(&d), "{:?}", tf_idf[0].read);
}

#[test]
fn salience_is_what_the_prompt_changes() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer(folder.path());
    let objective = SelfSupervisedPo { extractor: Extractor::Salience, key_share: 0.34, ..spd() };
    let mut examples =
        objective.encode(&pairs(&[("a b", "c d e", "e d c")]), &tokenizer, &Limits::new(32)).unwrap().rows;
    assert!(examples[0].read.is_empty());
    let d = tokenizer.encode("d", false).unwrap()[0];
    // A reference for which the prompt matters to `d` alone.
    let score = |examples: &[Example]| -> Vec<Vec<Vec<f32>>> {
        let of = |example: &Example| {
            let Tree { prompt, answers } = &example.trees[0];
            let logp = |token: &u32| if *token == d && prompt.len() > 1 { -0.1 } else { -2.0 };
            answers.iter().map(|answer| answer.iter().map(logp).collect()).collect()
        };
        examples.iter().map(of).collect()
    };
    objective.prepare(&mut examples, &score);
    assert_eq!(examples[0].read.len(), 6);
    assert!(examples[0].read[0].contains(&d) && !examples[0].read[2].contains(&d));
    assert_eq!(examples[0].read[2].len(), 3);
}

#[test]
fn any_alignment_loss_can_carry_it() {
    for (align, with_reference) in
        [(Align::Dpo, true), (Align::Ipo, true), (Align::Hinge, true), (Align::Simpo, false)]
    {
        let objective = SelfSupervisedPo { align, ..spd() };
        assert_eq!(objective.uses_reference(), with_reference);
        let mut batch = batch(8, 4, 1.0);
        if !with_reference {
            batch.reference.clear();
        }
        assert!(differentiate(&objective, &batch).sum().is_finite());
    }
}

fn curry(order: curry_dpo::Order, stages: usize) -> Vec<Vec<(f64, f64)>> {
    let pair = |id: &str, better: f64, worse: f64| Example {
        trees: vec![Tree { prompt: vec![1], answers: vec![vec![2], vec![3]] }],
        quality: vec![better, worse],
        id: id.into(),
        ..Example::default()
    };
    // Two prompts with the scores 5 4 3 2 and 9 8 1, as encoding leaves them.
    let examples = [
        pair("one", 5.0, 2.0),
        pair("one", 5.0, 3.0),
        pair("one", 5.0, 4.0),
        pair("two", 9.0, 1.0),
        pair("two", 9.0, 8.0),
    ];
    let objective = CurryDpo { order, stages, ..CurryDpo::default() };
    let found = objective.stages(&examples, &[], &polo_run::seed::Seeds::new(0));
    assert!(found.new_reference && found.restart);
    let scores = |&i: &usize| (examples[i].quality[0], examples[i].quality[1]);
    found.members.iter().map(|stage| stage.iter().map(scores).collect()).collect()
}

#[test]
fn curry_dpo_goes_from_easy_to_hard() {
    use curry_dpo::Order;
    assert_eq!(
        curry(Order::ScoreGap, 3),
        [vec![(5.0, 2.0), (9.0, 1.0)], vec![(5.0, 3.0), (9.0, 8.0)], vec![(5.0, 4.0)]]
    );
    assert_eq!(curry(Order::Reverse, 3)[0], [(5.0, 4.0), (9.0, 8.0)]);
    assert_eq!(curry(Order::GlobalGap, 5).concat()[..2], [(9.0, 1.0), (5.0, 2.0)]);
    let dealt = curry(Order::Random, 2);
    assert_eq!(dealt.iter().map(Vec::len).sum::<usize>(), 5);
    // One stage is DPO over all pairs.
    assert_eq!(curry(Order::ScoreGap, 1).len(), 1);
    assert_eq!(curry(Order::ScoreGap, 1)[0].len(), 5);
}
