//! rDPO's claim on tables: with flipped labels it stays near the optimal policy, where DPO and cDPO do not.
//!
//! Ten arms with rewards r ~ N(0, 1), a uniform reference, pairs of different arms with Bradley-Terry labels of which a
//! known share e is flipped. Each loss is minimised over the logits by the same gradient descent. Measured is by how
//! much the policy misses the maximum of E[r] - beta KL(pi || reference): the *gap*, in units of r. The theory says more:
//! that the gap falls as 1/n, and that flips cost as much as having (1 - 2e)^2 n pairs in place of n.

use std::path::Path;

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
    seed::{Seeds, unit},
    stats::{self, Estimate},
};
use rayon::prelude::*;

use super::tabular::{Examples, Wins, descend, gap, loss, optimum, pick, sigmoid, softmax};
use crate::{
    methods::{dpo::Dpo, rdpo::Rdpo},
    objective::PairObjective,
};

const ARMS: usize = 10;
const BETA: f64 = 0.5;
const FLIP_RATES: [f64; 3] = [0.0, 0.2, 0.4];
/// Draws of the problem for each seed that is asked for: tables are cheap.
const DRAWS_PER_SEED: u64 = 20;
const RATE: f64 = 5.0;

/// How much is spent.
struct Budget {
    /// Steps of gradient descent.
    steps: usize,
    /// Pairs with which methods are compared.
    pairs: usize,
    /// Pairs after flips are discounted, (1 - 2e)^2 n, with which the rate is measured.
    effective: [usize; 3],
}

/// One problem: rewards, and a stream of labelled pairs.
struct Problem {
    rewards: Vec<f64>,
    seeds: Seeds,
}

impl Problem {
    fn new(draw: u64) -> Self {
        let seeds = Seeds::new(draw).child("rdpo");
        Self { rewards: seeds.normal(ARMS, "rewards", 0).into_iter().map(f64::from).collect(), seeds }
    }

    /// The first n pairs of the stream, of which each is flipped with that probability.
    fn wins(&self, n: usize, flip_rate: f64) -> Wins {
        let (mut rng, mut wins) = (self.seeds.rng("pairs", 0), Wins::new(ARMS));
        for _ in 0..n {
            let one = pick(&[1.0 / ARMS as f64; ARMS], unit(&mut rng));
            let other = (one + 1 + pick(&[1.0 / (ARMS - 1) as f64; ARMS - 1], unit(&mut rng))) % ARMS;
            let one_wins = unit(&mut rng) < sigmoid(self.rewards[one] - self.rewards[other]);
            let flipped = unit(&mut rng) < flip_rate;
            let (winner, loser) = if one_wins != flipped { (one, other) } else { (other, one) };
            wins.add(winner, loser);
        }
        wins
    }
}

/// A loss, minimised on every problem with that many pairs.
struct Setting {
    name: String,
    objective: Box<dyn PairObjective>,
    flip_rate: f64,
    pairs: usize,
}

/// The policies, one for each problem, all problems in lockstep.
fn policies(setting: &Setting, problems: &[Problem], steps: usize) -> Vec<Vec<f64>> {
    let mut examples = Examples::new(2);
    for (row, problem) in problems.iter().enumerate() {
        for (winner, loser, share) in problem.wins(setting.pairs, setting.flip_rate).shares() {
            examples.push(&[row * ARMS + winner, row * ARMS + loser], share);
        }
    }
    let uniform = vec![-(ARMS as f64).ln(); problems.len() * ARMS];
    let gradient = |x: &[f64]| loss(setting.objective.as_ref(), &examples, &uniform, ARMS, x).1;
    let logits = descend(uniform.clone(), RATE, steps, gradient);
    softmax(&logits, ARMS).chunks_exact(ARMS).map(<[f64]>::to_vec).collect()
}

/// Re-tests the claim on [`DRAWS_PER_SEED`] problems for each seed.
///
/// # Errors
/// None; the signature is that of all claims.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let draws_per_seed = if quick { 2 } else { DRAWS_PER_SEED };
    let budget = match quick {
        true => Budget { steps: 60, pairs: 1000, effective: [250, 500, 1000] },
        false => Budget { steps: 3000, pairs: 4000, effective: [1000, 4000, 16_000] },
    };
    let problems: Vec<Problem> = (0..seeds * draws_per_seed).map(Problem::new).collect();
    say(&format!("{} problems, {} steps of gradient descent each", problems.len(), budget.steps));

    // Each flip rate: DPO, cDPO, rDPO, rDPO that assumes more flips, then rDPO by the effective number of pairs.
    let rdpo = |flip_rate| Box::new(Rdpo { beta: BETA, flip_rate, ..Rdpo::default() });
    let compared = |flip_rate: f64| {
        let setting =
            |name: &str, objective, pairs| Setting { name: name.into(), objective, flip_rate, pairs };
        let dpo = |label_smoothing| Box::new(Dpo { beta: BETA, label_smoothing });
        let mut settings = vec![
            setting("DPO", dpo(0.0), budget.pairs),
            setting("cDPO", dpo(flip_rate), budget.pairs),
            setting("rDPO", rdpo(flip_rate), budget.pairs),
            setting("rDPO that assumes e + 0.05", rdpo(flip_rate + 0.05), budget.pairs),
        ];
        for effective in budget.effective {
            let pairs = (effective as f64 / (1.0 - 2.0 * flip_rate).powi(2)).round() as usize;
            settings.push(setting("rDPO", rdpo(flip_rate), pairs));
        }
        settings
    };
    let settings: Vec<Setting> = FLIP_RATES.into_iter().flat_map(compared).collect();
    let found: Vec<Vec<Vec<f64>>> =
        settings.par_iter().map(|setting| policies(setting, &problems, budget.steps)).collect();
    let gaps: Vec<Vec<f64>> = found
        .iter()
        .map(|policies| {
            let of = |(policy, problem): (&Vec<f64>, &Problem)| {
                gap(policy, &optimum(&[1.0 / ARMS as f64; ARMS], &problem.rewards, BETA), BETA)
            };
            policies.iter().zip(&problems).map(of).collect()
        })
        .collect();
    let [clean, few, many] = [0, 1, 2].map(|rate| rate * settings.len() / FLIP_RATES.len());
    let (dpo, cdpo, robust, by_size) = (0, 1, 2, 4);

    let effect = |name: &str, value: &dyn Fn(usize) -> f64, expected| Effect {
        name: name.into(),
        estimate: stats::t_interval(&(0..problems.len()).map(value).collect::<Vec<_>>(), "draws"),
        expected,
    };
    let mut effects = Vec::new();
    for (rate, flips, factor) in [(few, "20 %", 5.0), (many, "40 %", 2.0)] {
        let [dpo, cdpo, robust] = [dpo, cdpo, robust].map(|method| &gaps[rate + method]);
        effects.extend([
            effect(
                &format!("{flips} flipped: gap of rDPO less DPO's"),
                &|draw| robust[draw] - dpo[draw],
                Expected::Below(0.0),
            ),
            effect(
                &format!("{flips} flipped: {factor} times the gap of rDPO less DPO's"),
                &|draw| factor * robust[draw] - dpo[draw],
                Expected::Below(0.0),
            ),
            effect(
                &format!("{flips} flipped: gap of DPO less cDPO's"),
                &|draw| dpo[draw] - cdpo[draw],
                Expected::Below(0.0),
            ),
        ]);
    }
    let apart = |one: &[Vec<f64>], other: &[Vec<f64>]| {
        let differences = one.iter().flatten().zip(other.iter().flatten()).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f64::max)
    };
    effects.push(Effect {
        name: "no flips, none assumed: largest difference between the policies of rDPO and DPO".into(),
        estimate: Estimate::exact(apart(&found[clean + robust], &found[clean + dpo])),
        expected: Expected::Between(0.0, 0.0),
    });
    let sizes: Vec<f64> = budget.effective.iter().map(|n| (*n as f64).ln()).collect();
    for (rate, flip_rate) in [clean, few, many].into_iter().zip(FLIP_RATES) {
        let of_size = |draw: usize| -> Vec<f64> {
            (0..sizes.len()).map(|size| gaps[rate + by_size + size][draw].ln()).collect()
        };
        effects.push(effect(
            &format!("{:.0} % flipped: slope of log gap of rDPO over log n", 100.0 * flip_rate),
            &|draw| slope(&sizes, &of_size(draw)),
            Expected::Between(-1.3, -0.7),
        ));
        if flip_rate > 0.0 {
            let largest = by_size + sizes.len() - 1;
            effects.push(effect(
                &format!(
                    "{:.0} % flipped, 1 / (1 - 2e)^2 times the pairs: log of gap over that without flips",
                    100.0 * flip_rate
                ),
                &|draw| (gaps[rate + largest][draw] / gaps[clean + largest][draw]).ln(),
                Expected::Between(-0.7, 0.7),
            ));
        }
    }
    let rows = settings.iter().zip(&gaps).map(|(setting, gaps)| {
        vec![
            format!("{:.0} %", 100.0 * setting.flip_rate),
            setting.name.clone(),
            setting.pairs.to_string(),
            stats::t_interval(gaps, "draws").to_string(),
        ]
    });
    Ok(ClaimResult {
        slug: "rdpo".into(),
        claim: "With 20 and 40 % of the labels flipped, rDPO's policy is closer to the optimal one than DPO's, and DPO's \
                than cDPO's; its gap falls as 1 / ((1 - 2e)^2 n)."
            .into(),
        setup: format!(
            "{ARMS} arms with rewards r ~ N(0, 1), uniform reference, beta {BETA}; pairs of different arms with \
             Bradley-Terry labels, each flipped with probability e, which rDPO and cDPO are told. Every loss is minimised \
             over the logits of one softmax by {} steps of gradient descent at rate {RATE}, from the reference, on the \
             same pairs. Gap: how far E[r] - beta KL(pi || reference) stays below its maximum. {} draws of rewards and \
             labels ({draws_per_seed} for each of --seeds); nothing was tuned.",
            budget.steps,
            problems.len(),
        ),
        table: Table {
            headers: ["flipped", "loss", "pairs", "gap"].map(String::from).to_vec(),
            rows: rows.collect(),
        },
        effects,
        plots: Vec::new(),
        remarks: "The loss of rDPO has no lower bound: an arm that lost less often than the correction takes away runs \
                  away for as long as the descent lasts. That is in these numbers."
            .into(),
        command: "polo reproduce rdpo".into(),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// Of the least-squares line through the points.
fn slope(x: &[f64], y: &[f64]) -> f64 {
    let centred = |values: &[f64]| -> Vec<f64> {
        let mean = stats::mean(values).unwrap_or(f64::NAN);
        values.iter().map(|value| value - mean).collect()
    };
    let (x, y) = (centred(x), centred(y));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    product(&x, &y) / product(&x, &x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes() {
        assert!((slope(&[1.0, 2.0, 4.0], &[5.0, 3.0, -1.0]) + 2.0).abs() < 1e-12);
    }

    #[test]
    fn pairs_are_of_different_arms_and_flipped_as_often_as_asked() {
        let problem = Problem::new(3);
        let n = 20_000;
        let (clean, flipped) = (problem.wins(n, 0.0), problem.wins(n, 1.0));
        let reversed: Vec<_> = flipped.shares().map(|(w, l, share)| (l, w, share)).collect();
        for (w, l, share) in clean.shares() {
            assert_ne!(w, l);
            assert!(reversed.contains(&(l, w, share)) || reversed.contains(&(w, l, share)));
            let expected =
                sigmoid(problem.rewards[w] - problem.rewards[l]) * 2.0 / (ARMS * (ARMS - 1)) as f64;
            assert!(
                (share - expected).abs() < 5.0 * (expected / n as f64).sqrt(),
                "{share} is not {expected}"
            );
        }
    }
}
