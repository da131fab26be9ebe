//! Losses of single answers, each desirable or not: label 1 or 0.

use std::collections::HashMap;

use burn::tensor::{Tensor, activation::sigmoid};
use polo_lm::{
    encode::{Encoded, Limits},
    rows::{ListRow, Text, UnpairedRow},
    tokens::Tokenizer,
};
use polo_run::{Result, metrics::Metrics};

use super::{LossName, Parameters};
use crate::{
    objective::{Example, Reduction, Rows, Scores, Tree, encode_each_list, mean},
    pairwise::Link,
};

/// Single answers to examples of one tree: slot 0 is the answer, and, if `mismatched`, slot 1 that of the nearest
/// earlier row with another prompt (TRL's choice but for that condition: the other half of a pair is no mismatch).
pub(super) fn encode(
    rows: &Rows,
    tokenizer: &Tokenizer,
    limits: &Limits,
    mismatched: bool,
) -> Result<Encoded<Example>> {
    let rows = rows.unpaired()?;
    let mut lists = Vec::with_capacity(rows.len());
    let mut other = 0;
    for (place, row) in rows.iter().enumerate() {
        let mut completions = vec![row.completion.clone()];
        if mismatched {
            // What is another prompt for one row is so for the next of the same prompt.
            if place == 0 || rows[place - 1].prompt != row.prompt {
                other = mismatch(rows, place);
            }
            completions.push(rows[other].completion.clone());
        }
        lists.push(ListRow {
            prompt: row.prompt.clone(),
            completions,
            scores: Vec::new(),
            logps: Vec::new(),
            place: row.place.clone(),
            id: row.id,
        });
    }
    let of_id: HashMap<u64, &UnpairedRow> = rows.iter().map(|row| (row.id, row)).collect();
    encode_each_list(&Rows::Lists(lists), tokenizer, limits, |row| {
        let from = of_id[&row.id];
        vec![Example {
            trees: vec![Tree { prompt: row.prompt.clone(), answers: row.answers.clone() }],
            label: f64::from(u8::from(from.label)),
            quality: vec![from.score],
            ..Example::default()
        }]
    })
}

/// Single answers with their scores, laid out so that the readout of slot 1 stands at the end of the prompt, where the
/// value of DRO is read: the prompt's last token begins the answer, with weight 0 in its log-prob, and is all of slot 1.
/// Prompts of one token have no room for that and are left out.
pub(super) fn with_value(encoded: Encoded<Example>) -> Encoded<Example> {
    let Encoded { mut rows, mut report } = encoded;
    let before = rows.len();
    rows.retain(|example| example.trees[0].prompt.len() > 1);
    report.dropped += before - rows.len();
    report.rows = rows.len();
    for example in &mut rows {
        let tree = &mut example.trees[0];
        let last = tree.prompt.pop().unwrap_or_default();
        let mut weights = vec![1.0; tree.answers[0].len() + 1];
        weights[0] = 0.0;
        tree.answers[0].insert(0, last);
        example.weights = vec![weights];
        example.read = vec![vec![last]];
    }
    Encoded { rows, report }
}

/// The place of the nearest earlier row (before the first comes the last) with another prompt and an answer of the same
/// form; of the row before where there is none.
fn mismatch(rows: &[UnpairedRow], place: usize) -> usize {
    let own = &rows[place];
    let plain = |row: &UnpairedRow| matches!(row.completion, Text::Plain(_));
    let earlier = (1..=rows.len()).map(|back| (place + rows.len() - back) % rows.len());
    let other = |&place: &usize| rows[place].prompt != own.prompt && plain(&rows[place]) == plain(own);
    earlier.clone().find(other).or(earlier.clone().next()).unwrap_or(place)
}

/// The losses of a batch, `[examples]`.
pub(super) fn loss(
    name: LossName,
    p: &Parameters<'_>,
    scores: &Scores,
    state: &mut Vec<f64>,
    metrics: &mut Metrics,
) -> Tensor<1> {
    let reward = scores.log_ratio(0, Reduction::Sum) * p.beta;
    if name == LossName::DroV {
        let value: Tensor<1> = scores.readouts[1].clone().squeeze_dim(1);
        metrics.set("value", mean(&value));
        return (scores.quality[0].clone() - value - reward).square() * 0.5;
    }
    if name == LossName::NashMd {
        let chance = sigmoid(scores.quality[0].clone());
        return -scores.logp(0, Reduction::Sum) * (chance - 0.5 - reward).detach();
    }
    let [desirable, undesirable] = match name {
        LossName::Kto => {
            let kl = mean(&scores.log_ratio(1, Reduction::Sum)).max(0.0);
            metrics.set("kl", kl);
            let above = reward - p.beta * kl;
            [sigmoid(-above.clone()), sigmoid(above)]
        }
        LossName::Bco => {
            let shift = running_mean(&reward, &scores.state, state);
            metrics.set("delta", shift);
            let above = reward - shift;
            [Link::Logistic.loss(above.clone()), Link::Logistic.loss(-above)]
        }
        _ => [sigmoid(-reward.clone()), sigmoid(reward)],
    };
    let labels = scores.labels.clone();
    labels.clone() * desirable * p.all.desirable_weight
        + (-labels + 1.0) * undesirable * p.all.undesirable_weight
}

/// The mean of all rewards so far, the batch's own included; the state is that mean and how many there were.
fn running_mean(rewards: &Tensor<1>, before: &[f64], state: &mut Vec<f64>) -> f64 {
    let &[old, count] = before else {
        return running_mean(rewards, &[0.0, 0.0], state);
    };
    let own = rewards.dims()[0] as f64;
    let all = (old * count + mean(rewards) * own) / (count + own);
    *state = vec![all, count + own];
    all
}

/// TRL's metrics: means over the desirable answers (`chosen`) and over the others, where the batch has such.
pub(super) fn metrics(beta: f64, scores: &Scores) -> Metrics {
    let (logps, rewards) = (scores.logp(0, Reduction::Sum), scores.log_ratio(0, Reduction::Sum) * beta);
    let mut metrics = Metrics::new();
    let mut means = Vec::new();
    for (side, chosen) in [("chosen", scores.labels.clone()), ("rejected", -scores.labels.clone() + 1.0)] {
        let share = mean(&chosen);
        if share > 0.0 {
            let over = |values: &Tensor<1>| mean(&(values.clone() * chosen.clone())) / share;
            means.push(over(&rewards));
            metrics.set(format!("rewards/{side}"), over(&rewards));
            metrics.set(format!("logps/{side}"), over(&logps));
        }
    }
    if let [chosen, rejected] = means[..] {
        metrics.set("rewards/margins", chosen - rejected);
    }
    metrics
}
