//! Losses of single answers, each desirable or not: label 1 or 0.

use burn::tensor::{Tensor, activation::sigmoid};
use polo_lm::{
    encode::{Encoded, Limits},
    rows::{ListRow, Text, UnpairedRow},
    tokens::Tokenizer,
};
use polo_run::{Result, metrics::Metrics};

use super::{LossName, Parameters};
use crate::{
    objective::{Example, Reduction, Rows, Scores, encode_as_lists, mean},
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
            // Carries the label through encoding, which may leave rows out.
            scores: vec![f64::from(u8::from(row.label)); 2],
            logps: Vec::new(),
            place: row.place.clone(),
            id: row.id,
        });
    }
    let mut encoded = encode_as_lists(&Rows::Lists(lists), tokenizer, limits, |row| {
        Some((0..row.answers.len()).collect())
    })?;
    for example in &mut encoded.rows {
        example.label = example.quality[0];
        example.quality.clear();
    }
    Ok(encoded)
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
