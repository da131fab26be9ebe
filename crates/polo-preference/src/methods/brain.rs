//! BRAIn: Bayesian reward-conditioned amortised inference (Pandey et al. 2024, arXiv 2402.02479).
//!
//! The policy is drawn towards the posterior p(y | x, good) = p(y|x) p(good | x, y) / Z(x) of the frozen start p, by
//! importance sampling among n answers that a proposal q' drew, with weights and baseline that are both normalised
//! over those n:
//!
//! ```text
//! a_i   = log p(y_i|x) + log g(x, y_i) - log q'(y_i|x)              alpha = softmax(a), a constant
//! b_i   = log q(y_i|x) - log q'(y_i|x)                              w     = softmax(b)
//! loss  = sum_i alpha_i log(alpha_i / w_i)                          grad  = - sum_i (alpha_i - w_i) grad log q(y_i|x)
//! log g = r(x, y) / gamma                            bradley-terry: the posterior is the optimum of reward and KL
//!         log sigmoid((r(x, y) - r_0(x)) / gamma)    sigmoid: bounded; r_0 is a reward of the row
//! ```
//!
//! Without the baseline w_i this is distributional policy gradient (DPG); with w_i = q/(n q') it is like GDC. With two
//! answers of the start itself (q' = p) and all weight on the better one it is DPO at beta = 1, exactly.

use burn::tensor::{
    Tensor,
    activation::{log_sigmoid, log_softmax, softmax},
};
use polo_lm::{
    encode::{Encoded, Limits},
    tokens::Tokenizer,
};
use polo_run::{Problem, Result, card::MethodCard, config::Settings, metrics::Metrics};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    objective::{Example, Loss, PairObjective, Reads, Rows, Scores, encode_as_lists, mean},
    settings::MethodSettings,
};

/// Settings of `polo train brain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Brain {
    /// Answers of each prompt that are learnt from, the first ones of its list; lists of fewer are left out. Unset by
    /// default: as many as the shortest list has. The paper uses 32 and gains from 2 on.
    #[schemars(range(min = 2))]
    pub answers: Option<usize>,
    /// How a reward becomes a probability of being good: `bradley-terry` (default) or `sigmoid`.
    pub goodness: Goodness,
    /// Temperature of the posterior, in units of the reward: smaller is sharper. Default from the paper, for rewards of
    /// a Bradley-Terry model; for others 0.25 to 1 of their standard deviation.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub gamma: f64,
    /// The reward r_0 that `sigmoid` compares with: the row's `mean` (default), or that of its `first` answer, for
    /// lists that begin with a reference.
    pub compared_with: ComparedWith,
    /// Weight of the answers: `softmax` (default) of a_i, or `argmax`, all on the best (the labels of DPO).
    pub weights: Weights,
    /// What is subtracted from the weights in the gradient: `self-normalised` (default), `none` (DPG) or `plain`
    /// (like GDC). The latter two are for comparison.
    pub baseline: Baseline,
}

/// Model of p(good | x, y).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Goodness {
    /// exp(r / gamma), up to a constant of the prompt.
    #[default]
    BradleyTerry,
    /// sigmoid((r - r_0) / gamma).
    Sigmoid,
}

/// A reward of the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComparedWith {
    /// The mean over the row's answers.
    #[default]
    Mean,
    /// That of the first answer.
    First,
}

/// How the weights alpha come from a.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// softmax(a).
    #[default]
    Softmax,
    /// All on the largest; equal ones share.
    Argmax,
}

/// What is subtracted from alpha_i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// w_i = softmax(b)_i.
    #[default]
    SelfNormalised,
    /// Nothing.
    None,
    /// exp(b_i) / n.
    Plain,
}

impl Default for Brain {
    fn default() -> Self {
        Self {
            answers: None,
            goodness: Goodness::BradleyTerry,
            gamma: 1.0,
            compared_with: ComparedWith::Mean,
            weights: Weights::Softmax,
            baseline: Baseline::SelfNormalised,
        }
    }
}

impl Settings for Brain {}
impl MethodSettings for Brain {
    const SLUG: &'static str = CARD.slug;
}

impl Brain {
    /// log g of rewards `[examples, answers]`.
    fn log_goodness(&self, rewards: Tensor<2>) -> Tensor<2> {
        match (self.goodness, self.compared_with) {
            (Goodness::BradleyTerry, _) => rewards / self.gamma,
            (Goodness::Sigmoid, ComparedWith::Mean) => {
                log_sigmoid((rewards.clone() - rewards.mean_dim(1)) / self.gamma)
            }
            (Goodness::Sigmoid, ComparedWith::First) => {
                log_sigmoid((rewards.clone() - rewards.narrow(1, 0, 1)) / self.gamma)
            }
        }
    }
}

impl PairObjective for Brain {
    fn reads(&self) -> Reads {
        Reads::Lists
    }

    fn encode(&self, rows: &Rows, tokenizer: &Tokenizer, limits: &Limits) -> Result<Encoded<Example>> {
        let lists = rows.lists()?;
        let drawn = |with: bool| lists.iter().find(|row| row.logps.is_empty() != with);
        if let (Some(_), Some(without)) = (drawn(true), drawn(false)) {
            return Err(without.place.mark(Problem::input("this row has no `logps`, and others do").hint(
                "give all rows the log-probs of their answers under the proposal, or none (then the \
                           start of the training is taken for the proposal)",
            )));
        }
        let shortest = lists.iter().map(|row| row.completions.len()).min().unwrap_or(0);
        let answers = self.answers.unwrap_or(shortest);
        let encoded = encode_as_lists(rows, tokenizer, limits, |row| {
            (row.answers.len() >= answers).then(|| (0..answers).collect())
        })?;
        if encoded.rows.is_empty() {
            return Err(Problem::input(format!("no row has {answers} answers"))
                .place("method.answers")
                .hint("lower it, or sample more answers (`polo sample --samples N`)"));
        }
        Ok(encoded)
    }

    fn loss(&self, scores: &Scores) -> Loss {
        // `[examples, answers]`.
        let stack = |slots: &[Tensor<1>]| Tensor::stack::<2>(slots.to_vec(), 1);
        let (policy, prior) = (stack(&scores.policy), stack(&scores.reference));
        let or = |slots: &[Tensor<1>], other: &Tensor<2>| match slots {
            [] => other.clone(),
            slots => stack(slots),
        };
        let proposal = or(&scores.proposal, &prior);
        let rewards = or(&scores.quality, &prior.zeros_like());
        let a = prior.clone() - proposal.clone() + self.log_goodness(rewards.clone());
        let b = policy.clone() - proposal;
        let alpha = match self.weights {
            Weights::Softmax => softmax(a, 1),
            Weights::Argmax => {
                let best = a.clone().greater_equal(a.clone().max_dim(1).expand(a.dims())).float();
                best.clone().cast(a.dtype()) / best.sum_dim(1).cast(a.dtype())
            }
        };
        let log_w = log_softmax(b.clone(), 1);
        let sum = |values: Tensor<2>| values.sum_dim(1).squeeze_dim::<1>(1);
        let each = match self.baseline {
            Baseline::SelfNormalised => {
                // A weight of 0 counts nothing, whatever its logarithm.
                sum(alpha.clone() * (alpha.clone().clamp_min(1e-30).log() - log_w.clone()))
            }
            Baseline::None => -sum(alpha.clone() * b),
            Baseline::Plain => sum(b.clone().exp() / b.dims()[1] as f64 - alpha.clone() * b),
        };
        let w = log_w.exp();
        let effective = |weights: &Tensor<2>| mean(&sum(weights.clone().square()).recip());
        let metrics = [
            ("posterior/rewards", mean(&sum(alpha.clone() * rewards.clone()))),
            ("policy/rewards", mean(&sum(w.clone() * rewards.clone()))),
            ("proposal/rewards", mean(&rewards.mean_dim(1).squeeze_dim::<1>(1))),
            ("policy/kl", mean(&sum(w.clone() * (policy.clone() - prior)))),
            ("posterior/effective_samples", effective(&alpha)),
            ("policy/effective_samples", effective(&w)),
            ("logps/mean", mean(&policy.mean_dim(1).squeeze_dim::<1>(1))),
        ];
        Loss::new(each, metrics.into_iter().collect::<Metrics>())
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "brain",
    title: "Bayesian reward-conditioned amortised inference",
    paper: "Pandey, Nandwani, Naseem, Mishra, Xu, Raghu, Joshi, Munawar, Fernandez Astudillo: BRAIn: Bayesian \
            Reward-conditioned Amortized Inference for natural language generation from feedback",
    arxiv: "2402.02479",
    year: 2024,
    family: super::FAMILY,
    summary: "draws the policy to the posterior of being good, over n scored answers to each prompt",
    claim: "the self-normalised baseline is what makes learning the posterior from samples work; more answers per \
            prompt help",
    equation: "a_i  = log p(y_i|x) + log g(x, y_i) - log q'(y_i|x),   alpha = softmax(a)\n\
               b_i  = log q(y_i|x) - log q'(y_i|x),                   w = softmax(b)\n\
               loss = sum_i alpha_i log(alpha_i / w_i)\n\
               log g = r / gamma, or log sigmoid((r - r_0) / gamma)",
    symbols: &[
        ("x, y_1..y_n", "prompt, its answers (method.answers)"),
        ("q, p", "trained model, frozen copy of its start"),
        ("q'", "proposal, which drew the answers: `logps` of the rows, or p where they have none"),
        ("r, r_0", "reward of an answer (`scores` of the rows), reward compared with (method.compared_with)"),
        ("gamma", "temperature of the posterior, in units of the reward (method.gamma)"),
        ("g", "probability of being good, up to a constant of the prompt (method.goodness)"),
    ],
    metrics: &[
        ("posterior/rewards", "mean reward under the posterior, estimated with alpha: what is aimed at"),
        ("policy/rewards", "mean reward under the trained model, estimated with w"),
        ("proposal/rewards", "mean reward of the answers as they were drawn"),
        ("policy/kl", "KL divergence of the trained model from its start, estimated with w, nats per answer"),
        ("posterior/effective_samples", "1 / sum alpha^2: answers that count, of n; near 1: gamma is small"),
        ("policy/effective_samples", "1 / sum w^2; near 1: the model has left the proposal, draw anew"),
        ("logps/mean", "log q of the answers, nats, summed over tokens, mean over answers"),
    ],
    reach_for: "a reward for every answer and several answers of the model itself to each prompt",
    avoid_when: "the answers were drawn by another model whose log-probs are unknown, or with top-p or a temperature: \
                 the weights are wrong then",
    failure_signs: &[
        "policy/effective_samples falls to 1: the proposal is stale; sample, score and train another round",
        "posterior/effective_samples is 1 from the start: one answer takes all; raise gamma",
        "nothing is learnt: all answers of a row have the same score, or n = 1",
    ],
    variants: &[
        ("sigmoid posterior", "method.goodness = \"sigmoid\""),
        ("DPG (no baseline)", "method.baseline = \"none\""),
        ("like GDC++", "method.baseline = \"plain\""),
        ("DPO on samples (DPO-sft)", "method.weights = \"argmax\", method.answers = 2"),
    ],
};

#[cfg(test)]
mod tests {
    use polo_lm::rows::ListRow;
    use polo_run::seed::{Seeds, unit};

    use super::{
        super::{
            dpo::Dpo,
            tests::{close, encoded, place, plain, random, random_ratios, words},
        },
        *,
    };
    use crate::objective::{Batch, Gradient, differentiate};

    const N: usize = 4;

    /// Five prompts of N answers with rewards and with log-probs of a proposal that is not the reference.
    fn batch() -> Batch {
        Batch {
            policy: random_ratios(N, 5),
            reference: (0..N).map(|slot| random(5, &format!("reference {slot}"))).collect(),
            tokens: vec![vec![3; 5]; N],
            labels: vec![1.0; 5],
            quality: (0..N).map(|slot| random(5, &format!("reward {slot}"))).collect(),
            proposal: (0..N).map(|slot| random(5, &format!("proposal {slot}"))).collect(),
            ..Batch::default()
        }
    }

    fn variants() -> Vec<Brain> {
        let mut all = Vec::new();
        for baseline in [Baseline::SelfNormalised, Baseline::None, Baseline::Plain] {
            for weights in [Weights::Softmax, Weights::Argmax] {
                for (goodness, compared_with) in [
                    (Goodness::BradleyTerry, ComparedWith::Mean),
                    (Goodness::Sigmoid, ComparedWith::Mean),
                    (Goodness::Sigmoid, ComparedWith::First),
                ] {
                    let (answers, gamma) = (None, 0.7);
                    all.push(Brain { answers, goodness, gamma, compared_with, weights, baseline });
                }
            }
        }
        all
    }

    fn same(found: &Gradient, expected: &Gradient, tolerance: f64) {
        close(&found.each, &expected.each, tolerance);
        close(&found.policy.concat(), &expected.policy.concat(), tolerance);
    }

    #[test]
    fn the_posterior_itself_has_nothing_to_learn() {
        let mut batch = batch();
        let brain = Brain { gamma: 0.7, ..Brain::default() };
        for slot in 0..N {
            for example in 0..5 {
                // Up to a constant of the prompt.
                batch.policy[slot][example] = batch.reference[slot][example]
                    + batch.quality[slot][example] / brain.gamma
                    - 3.0 * example as f64;
            }
        }
        let found = differentiate(&brain, &batch);
        close(&found.each, &[0.0; 5], 1e-12);
        close(&found.policy.concat(), &[0.0; 5 * N], 1e-12);
    }

    #[test]
    fn two_answers_of_the_start_and_all_weight_on_the_better_is_dpo() {
        let mut pairs = batch();
        pairs.policy.truncate(2);
        pairs.reference.truncate(2);
        pairs.tokens.truncate(2);
        pairs.proposal.clear();
        pairs.quality = vec![vec![2.0; 5], vec![1.0; 5]];
        for goodness in [Goodness::BradleyTerry, Goodness::Sigmoid] {
            let brain = Brain { weights: Weights::Argmax, goodness, gamma: 0.3, ..Brain::default() };
            let dpo = Dpo { beta: 1.0, ..Dpo::default() };
            same(&differentiate(&brain, &pairs), &differentiate(&dpo, &pairs), 1e-12);
        }
    }

    #[test]
    fn gradients_are_the_papers_coefficients() {
        let batch = batch();
        for brain in variants() {
            let found = differentiate(&brain, &batch);
            for example in 0..5 {
                let column =
                    |slots: &[Vec<f64>]| -> Vec<f64> { slots.iter().map(|slot| slot[example]).collect() };
                let normalised = |logs: &[f64]| -> Vec<f64> {
                    let total: f64 = logs.iter().map(|log| log.exp()).sum();
                    logs.iter().map(|log| log.exp() / total).collect()
                };
                let (q, p) = (column(&batch.policy), column(&batch.reference));
                let (r, proposal) = (column(&batch.quality), column(&batch.proposal));
                let r0 = match brain.compared_with {
                    ComparedWith::Mean => r.iter().sum::<f64>() / N as f64,
                    ComparedWith::First => r[0],
                };
                let log_g = |r: f64| match brain.goodness {
                    Goodness::BradleyTerry => r / brain.gamma,
                    Goodness::Sigmoid => -(-(r - r0) / brain.gamma).exp().ln_1p(),
                };
                let a: Vec<f64> = (0..N).map(|i| p[i] + log_g(r[i]) - proposal[i]).collect();
                let b: Vec<f64> = (0..N).map(|i| q[i] - proposal[i]).collect();
                let best = a.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let alpha = match brain.weights {
                    Weights::Softmax => normalised(&a),
                    Weights::Argmax => a.iter().map(|&a| f64::from(u8::from(a == best))).collect(),
                };
                let baseline = match brain.baseline {
                    Baseline::SelfNormalised => normalised(&b),
                    Baseline::None => vec![0.0; N],
                    Baseline::Plain => b.iter().map(|b| b.exp() / N as f64).collect(),
                };
                let expected: Vec<f64> = (0..N).map(|i| baseline[i] - alpha[i]).collect();
                let found = column(&found.policy);
                close(&found, &expected, 1e-12);
                if brain.baseline == Baseline::SelfNormalised {
                    assert!(found.iter().sum::<f64>().abs() < 1e-12, "{found:?}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        const STEP: f64 = 1e-5;
        for brain in variants() {
            let batch = batch();
            let found = differentiate(&brain, &batch);
            for slot in 0..N {
                for example in 0..5 {
                    let moved = |step: f64| {
                        let mut moved = batch.clone();
                        moved.policy[slot][example] += step;
                        differentiate(&brain, &moved).sum()
                    };
                    let numeric = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                    let exact = found.policy[slot][example];
                    assert!(
                        (numeric - exact).abs() < 1e-8 * (1.0 + exact.abs()),
                        "{brain:?}: {numeric} {exact}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_constant_of_the_prompt_in_the_rewards_changes_nothing() {
        let batch = batch();
        let mut shifted = batch.clone();
        for slot in &mut shifted.quality {
            slot.iter_mut().enumerate().for_each(|(example, reward)| *reward += 7.0 * example as f64 - 9.0);
        }
        for brain in variants() {
            same(&differentiate(&brain, &shifted), &differentiate(&brain, &batch), 1e-11);
        }
    }

    #[test]
    fn one_answer_teaches_nothing() {
        let mut one = batch();
        for slots in [&mut one.policy, &mut one.reference, &mut one.quality, &mut one.proposal] {
            slots.truncate(1);
        }
        one.tokens.truncate(1);
        let found = differentiate(&Brain::default(), &one);
        close(&found.each, &[0.0; 5], 1e-15);
        close(&found.policy[0], &[0.0; 5], 1e-15);
    }

    #[test]
    fn without_log_probs_the_start_is_the_proposal() {
        let mut batch = batch();
        batch.proposal.clear();
        let mut spelt = batch.clone();
        spelt.proposal.clone_from(&batch.reference);
        same(&differentiate(&Brain::default(), &batch), &differentiate(&Brain::default(), &spelt), 1e-12);
    }

    /// Far log-probs and rewards overflow nowhere.
    #[test]
    fn far_apart_numbers_stay_finite() {
        let mut batch = batch();
        batch.policy[0] = vec![-4000.0; 5];
        batch.quality[1] = vec![900.0; 5];
        for brain in variants().into_iter().filter(|brain| brain.baseline != Baseline::Plain) {
            let found = differentiate(&brain, &batch);
            assert!(
                found.each.iter().chain(found.policy.iter().flatten()).all(|x| x.is_finite()),
                "{brain:?}"
            );
        }
    }

    /// The card's table A: where posterior, prior and policy are one, the baseline takes all variance away, and plain
    /// importance weights leave some; each more the further the proposal is off.
    #[test]
    fn the_baseline_removes_the_variance() {
        const K: usize = 20;
        const DRAWS: usize = 8;
        const REPEATS: usize = 3000;
        let seeds = Seeds::new(3);
        let prior: Vec<f64> = log_normalised(seeds.normal(K, "prior", 0).into_iter().map(f64::from));
        let variance = |baseline, shift: f64| {
            let noise = seeds.normal(K, "shift", 0);
            let proposal: Vec<f64> =
                log_normalised(prior.iter().zip(noise).map(|(log, noise)| log + shift * f64::from(noise)));
            let mut rng = seeds.rng("draws", 0);
            let drawn: Vec<Vec<usize>> =
                (0..DRAWS).map(|_| (0..REPEATS).map(|_| draw(&proposal, unit(&mut rng))).collect()).collect();
            let logs = |of: &[f64]| -> Vec<Vec<f64>> {
                drawn.iter().map(|slot| slot.iter().map(|&y| of[y]).collect()).collect()
            };
            let batch = Batch {
                policy: logs(&prior),
                reference: logs(&prior),
                quality: vec![vec![0.0; REPEATS]; DRAWS],
                proposal: logs(&proposal),
                tokens: vec![vec![1; REPEATS]; DRAWS],
                labels: vec![1.0; REPEATS],
                ..Batch::default()
            };
            let coefficients = differentiate(&Brain { baseline, ..Brain::default() }, &batch).policy;
            // Gradient with respect to the logits: sum_i c_i (onehot(y_i) - q).
            let (mut sums, mut squares) = (vec![0.0; K], vec![0.0; K]);
            for repeat in 0..REPEATS {
                let total: f64 = coefficients.iter().map(|slot| slot[repeat]).sum();
                let mut gradient: Vec<f64> = prior.iter().map(|log| -total * log.exp()).collect();
                for (slot, coefficients) in drawn.iter().zip(&coefficients) {
                    gradient[slot[repeat]] += coefficients[repeat];
                }
                for (k, g) in gradient.into_iter().enumerate() {
                    sums[k] += g;
                    squares[k] += g * g;
                }
            }
            let n = REPEATS as f64;
            sums.iter().zip(squares).map(|(sum, square)| square / n - (sum / n).powi(2)).sum::<f64>()
        };
        for shift in [0.0, 0.5, 1.0] {
            let [own, none, plain] = [Baseline::SelfNormalised, Baseline::None, Baseline::Plain]
                .map(|baseline| variance(baseline, shift));
            assert!(own < 1e-20, "{own} at {shift}");
            assert!((0.05..0.4).contains(&none) && plain < none, "{none}, {plain} at {shift}");
            assert_eq!(plain < 1e-20, shift == 0.0, "{plain} at {shift}");
        }
    }

    fn log_normalised(logits: impl Iterator<Item = f64>) -> Vec<f64> {
        let logits: Vec<f64> = logits.collect();
        let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        logits.into_iter().map(|logit| logit - total).collect()
    }

    fn draw(logs: &[f64], mut u: f64) -> usize {
        let place = logs.iter().position(|log| {
            u -= log.exp();
            u < 0.0
        });
        place.unwrap_or(logs.len() - 1)
    }

    fn list(completions: &[&str], logps: &[f64], id: u64) -> ListRow {
        ListRow {
            prompt: plain("x "),
            completions: completions.iter().map(|text| plain(text)).collect(),
            scores: (0..completions.len()).map(|place| place as f64).collect(),
            logps: logps.to_vec(),
            place: place(),
            id,
        }
    }

    #[test]
    fn lists_give_their_first_answers_with_scores_and_log_probs() {
        let rows = Rows::Lists(vec![
            list(&["good", "bad", "good"], &[-1.0, -2.0, -1.0], 0),
            list(&["bad", "good"], &[-2.0, -1.0], 1),
        ]);
        let check = |brain: Brain, expected: &[&[&str]]| {
            let found = encoded(&brain, &rows);
            let answers: Vec<_> = found.iter().map(|(_, trees)| trees[0].1.clone()).collect();
            assert_eq!(answers, expected);
            assert!(found.iter().all(|(example, _)| example.quality[..2] == [0.0, 1.0]));
            assert_eq!(found[0].0.proposal[..2], [-1.0, -2.0]);
        };
        check(Brain::default(), &[&["good", "bad"], &["bad", "good"]]);
        check(Brain { answers: Some(3), ..Brain::default() }, &[&["good", "bad", "good"]]);
    }

    #[test]
    fn lists_of_which_some_lack_log_probs_or_all_answers_are_refused() {
        let check = |brain: &Brain, rows: Vec<ListRow>, expected: &str| {
            let problem = brain.encode(&Rows::Lists(rows), &words(), &Limits::new(32)).unwrap_err();
            assert!(problem.to_string().contains(expected), "{problem}");
        };
        let two = |logps: &[f64], id| list(&["good", "bad"], logps, id);
        check(
            &Brain::default(),
            vec![two(&[-1.0, -2.0], 0), two(&[], 1)],
            "pairs.jsonl:3: this row has no `logps`",
        );
        check(&Brain { answers: Some(3), ..Brain::default() }, vec![two(&[], 0)], "no row has 3 answers");
    }
}
