//! VPO's claims on tables: offline, pessimism beats DPO where pairs cover the answers badly; online, optimism finds good
//! answers that the reference hardly ever gives.
//!
//! Offline is RPO's problem ([`super::rpo::Narrow`]). Online, a policy from a class of bounded rewards,
//! pi proportional to reference exp(r(u) / beta), is refitted to all comparisons so far after every round of one answer
//! of its own against one of the reference's. Two such bandits: one whose reference is deceived by a mediocre arm, and one
//! whose good arm is nearly never drawn. There the paper's alpha belongs to the sum over comparisons, so that the alpha of
//! [`Vpo`], which is per pair, is the paper's divided by their number.

use std::path::Path;

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
    seed::{Seeds, unit},
    stats::{self, Estimate},
};
use rayon::prelude::*;

use super::{
    rpo::{self, BETA, Narrow, STOP, Worth},
    tabular::{Adam, Examples, Wins, couple, gap, loss, minimise, optimum, pick, sigmoid, softmax},
};
use crate::methods::vpo::{Attitude, Calibration, Vpo};

// --- Offline ---------------------------------------------------------------------------------------------------------

/// What is compared offline: attitude, calibration, alpha per pair.
const OFFLINE: [(Attitude, Calibration, f64); 8] = [
    (Attitude::Pessimism, Calibration::Chosen, 0.0),
    (Attitude::Pessimism, Calibration::Chosen, 0.05),
    (Attitude::Pessimism, Calibration::Chosen, 0.2),
    (Attitude::Pessimism, Calibration::Chosen, 1.0),
    (Attitude::Pessimism, Calibration::Gold, 0.05),
    (Attitude::Pessimism, Calibration::Gold, 0.2),
    (Attitude::Optimism, Calibration::Chosen, 0.05),
    (Attitude::Optimism, Calibration::Gold, 0.05),
];

/// The pairs with answers of the calibration policy beside them: slots calibration, chosen, rejected.
fn calibrated(pairs: &[(usize, usize, f64)], calibration: &[f64], first: usize, into: &mut Examples) {
    let shares: Vec<f64> = pairs.iter().map(|(_, _, share)| *share).collect();
    for (pair, arm, mass) in couple(&shares, calibration) {
        let (winner, loser, _) = pairs[pair];
        into.push(&[first + arm, first + winner, first + loser], mass);
    }
}

/// Without a bound of the rewards optimism has no minimum, nor has DPO; the theory bounds them.
const BOUNDED: [(Attitude, Calibration, f64); 3] =
    [OFFLINE[0], OFFLINE[1], (Attitude::Optimism, Calibration::Chosen, 0.05)];
/// Four standard deviations of the true rewards.
const BOUND: f64 = 2.0;

/// What the policies of [`OFFLINE`] and [`BOUNDED`] are worth.
fn offline(draw: u64) -> Vec<Worth> {
    let problem = Narrow::new(draw);
    let pairs = problem.pairs();
    let mut with_reference = Examples::new(3);
    let shares: Vec<_> = problem.wins.shares().collect();
    calibrated(&shares, &problem.reference, 0, &mut with_reference);
    let vpo = |(attitude, calibration, alpha)| Vpo { beta: BETA, alpha, attitude, calibration, floor: None };
    let free = |setting: (Attitude, Calibration, f64)| {
        let examples = if setting.1 == Calibration::Gold { &with_reference } else { &pairs };
        problem.worth(&problem.solve(&vpo(setting), examples, STOP))
    };
    let class = Class {
        reward: |u| (BOUND * u.tanh(), BOUND * (1.0 - u.tanh().powi(2))),
        beta: BETA,
        arms: rpo::ARMS,
        log_reference: problem.reference.iter().map(|p| p.ln()).collect(),
    };
    let bounded = |setting| {
        let f = |u: &[f64]| class.loss(&vpo(setting), &pairs, u);
        problem.worth(&class.policies(&minimise(vec![0.0; rpo::ARMS], STOP, f).0))
    };
    OFFLINE.map(free).into_iter().chain(BOUNDED.map(bounded)).collect()
}

// --- Policies of bounded rewards -------------------------------------------------------------------------------------

/// Policies pi proportional to reference exp(r(u) / beta), a row of the table for each problem.
struct Class {
    /// A parameter's reward and its derivative.
    reward: fn(f64) -> (f64, f64),
    beta: f64,
    arms: usize,
    log_reference: Vec<f64>,
}

impl Class {
    fn logits(&self, parameters: &[f64]) -> Vec<f64> {
        let tilts = parameters.iter().map(|&u| (self.reward)(u).0 / self.beta);
        self.log_reference.iter().zip(tilts).map(|(log, tilt)| log + tilt).collect()
    }

    fn policies(&self, parameters: &[f64]) -> Vec<f64> {
        softmax(&self.logits(parameters), self.arms)
    }

    /// The weighted sum of the losses and its gradient with respect to the parameters.
    fn loss(&self, objective: &Vpo, examples: &Examples, parameters: &[f64]) -> (f64, Vec<f64>) {
        let logits = self.logits(parameters);
        let (value, by_logits) = loss(objective, examples, &self.log_reference, self.arms, &logits);
        let chain = by_logits.iter().zip(parameters).map(|(g, &u)| g * (self.reward)(u).1 / self.beta);
        (value, chain.collect())
    }
}

// --- Online ----------------------------------------------------------------------------------------------------------

/// A bandit that is learnt by comparisons with the reference.
struct Bandit {
    name: &'static str,
    arms: usize,
    /// Of arm 0 under the reference; the others share the rest.
    first: f64,
    beta: f64,
    /// A comparison is won with probability sigmoid(slope * difference of rewards).
    slope: f64,
    rounds: usize,
    pairs_per_round: usize,
    /// Adam steps after each round.
    steps: usize,
    decay: f64,
    /// A parameter's reward and its derivative.
    reward: fn(f64) -> (f64, f64),
    /// True rewards.
    rewards: fn(&Seeds) -> Vec<f64>,
    /// The paper's alpha after t comparisons, by its factor.
    schedules: &'static [Schedule],
}

/// The paper's alpha, which stands beside a sum over t comparisons.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Schedule {
    Constant(f64),
    /// That times sqrt(t).
    Root(f64),
    /// That times t.
    Linear(f64),
}

impl Schedule {
    fn alpha(self, comparisons: f64) -> f64 {
        match self {
            Schedule::Constant(factor) => factor,
            Schedule::Root(factor) => factor * comparisons.sqrt(),
            Schedule::Linear(factor) => factor * comparisons,
        }
    }

    fn name(self) -> String {
        match self {
            Schedule::Constant(0.0) => "0 (online DPO)".into(),
            Schedule::Constant(factor) => factor.to_string(),
            Schedule::Root(factor) => format!("{factor} sqrt(t)"),
            Schedule::Linear(factor) => format!("{factor} t"),
        }
    }
}

/// Arm 0 is mediocre and nearly all that the reference knows; one of the others is good, the rest are bad.
const DECEPTIVE: Bandit = Bandit {
    name: "deceptive reference",
    arms: 20,
    first: 0.98,
    beta: 0.05,
    slope: 4.0,
    rounds: 100,
    pairs_per_round: 4,
    steps: 40,
    decay: 0.0,
    reward: |u| (u.tanh(), 1.0 - u.tanh().powi(2)),
    rewards: |seeds| {
        let mut rng = seeds.rng("rewards", 0);
        let mut rewards: Vec<f64> = (0..20).map(|_| 0.4 * unit(&mut rng)).collect();
        let best = 1 + pick(&[1.0 / 19.0; 19], unit(&mut rng));
        (rewards[0], rewards[best]) = (0.5, 1.0);
        rewards
    },
    schedules: &[
        Schedule::Constant(0.0),
        Schedule::Constant(0.1),
        Schedule::Constant(0.3),
        Schedule::Constant(1.0),
        Schedule::Constant(3.0),
        Schedule::Constant(10.0),
        Schedule::Constant(100.0),
    ],
};

/// Arm 0 is the only good one, and the reference draws it once in a thousand.
const HARD: Bandit = Bandit {
    name: "hard exploration",
    arms: 8,
    first: 0.001,
    beta: 0.25,
    slope: 1.0,
    rounds: 200,
    pairs_per_round: 1,
    steps: 20,
    decay: 1e-4,
    reward: |u| (5.0 * sigmoid(u), 5.0 * sigmoid(u) * sigmoid(-u)),
    rewards: |_| [5.0].into_iter().chain([1.0; 7]).collect(),
    schedules: &[
        Schedule::Constant(0.0),
        Schedule::Constant(1.0),
        Schedule::Constant(4.0),
        Schedule::Root(0.3),
        Schedule::Linear(0.04),
    ],
};

/// What one run of a bandit came to, in units of the largest reward.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Sum over rounds of how far the policy is from the optimum of E[r] - beta KL.
    regret: f64,
    /// The same of the last policy.
    gap: f64,
    /// Whether the last policy's favourite is the best arm.
    best: bool,
    /// Whether the gap is below 0.01 at half of the rounds, at the end.
    solved: [bool; 2],
}

/// Plays a bandit in all draws in lockstep; the same uniform numbers decide in every schedule.
fn play(bandit: &Bandit, schedule: Schedule, draws: u64, rounds: usize) -> Vec<Outcome> {
    let arms = bandit.arms;
    let seeds: Vec<Seeds> = (0..draws).map(|draw| Seeds::new(draw).child(bandit.name)).collect();
    let rewards: Vec<Vec<f64>> = seeds.iter().map(bandit.rewards).collect();
    let mut reference = vec![(1.0 - bandit.first) / (arms - 1) as f64; arms];
    reference[0] = bandit.first;
    let log_reference: Vec<f64> = reference.iter().map(|p| p.ln()).collect();
    let class = Class {
        reward: bandit.reward,
        beta: bandit.beta,
        arms,
        log_reference: log_reference.repeat(seeds.len()),
    };
    let best: Vec<Vec<f64>> = rewards.iter().map(|r| optimum(&reference, r, bandit.beta)).collect();
    let scale = rewards.iter().flatten().copied().fold(f64::MIN, f64::max);

    let mut parameters = vec![0.0; seeds.len() * arms];
    let mut adam = Adam::new(parameters.len(), 0.03, 0.9, 0.99);
    let mut wins = vec![Wins::new(arms); seeds.len()];
    let mut outcomes = vec![Outcome::default(); seeds.len()];
    for round in 0..rounds {
        let mut examples = Examples::new(3);
        for (at, policy) in class.policies(&parameters).chunks_exact(arms).enumerate() {
            outcomes[at].regret += gap(policy, &best[at], bandit.beta) / scale;
            let mut rng = seeds[at].rng("comparisons", round as u64);
            for _ in 0..bandit.pairs_per_round {
                let own = pick(policy, unit(&mut rng));
                let other = pick(&reference, unit(&mut rng));
                let won = unit(&mut rng) < sigmoid(bandit.slope * (rewards[at][own] - rewards[at][other]));
                let (winner, loser) = if won { (own, other) } else { (other, own) };
                wins[at].add(winner, loser);
            }
            let shares: Vec<_> = wins[at].shares().collect();
            calibrated(&shares, &reference, at * arms, &mut examples);
        }
        let comparisons = ((round + 1) * bandit.pairs_per_round) as f64;
        // slope (r_w - r_l) is Vpo's beta times the margin of log-ratios, which are r / beta up to a constant.
        let objective = Vpo {
            beta: bandit.slope * bandit.beta,
            alpha: schedule.alpha(comparisons) / (comparisons * bandit.slope),
            attitude: Attitude::Optimism,
            calibration: Calibration::Gold,
            floor: None,
        };
        for _ in 0..bandit.steps {
            let (_, mut gradient) = class.loss(&objective, &examples, &parameters);
            gradient.iter_mut().zip(&parameters).for_each(|(g, u)| *g += bandit.decay * u);
            adam.step(&mut parameters, &gradient);
        }
        let halves = [rounds / 2, rounds].map(|end| round + 1 == end);
        for (at, policy) in
            class.policies(&parameters).chunks_exact(arms).enumerate().filter(|_| halves[0] || halves[1])
        {
            let outcome = &mut outcomes[at];
            outcome.gap = gap(policy, &best[at], bandit.beta) / scale;
            outcome.best = favourite(policy) == favourite(&rewards[at]);
            for (solved, _) in outcome.solved.iter_mut().zip(halves).filter(|(_, now)| *now) {
                *solved = outcome.gap < 0.01;
            }
        }
    }
    outcomes
}

/// The place of the largest value.
fn favourite(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

// --- The claim -------------------------------------------------------------------------------------------------------

/// Draws of the deceptive bandit for each seed that is asked for.
const DECEPTIVE_DRAWS: u64 = 16;
/// Draws of the hard bandit for each seed that is asked for.
const HARD_DRAWS: u64 = 20;

/// Re-tests the claims, offline on [`rpo::DRAWS_PER_SEED`] problems for each seed.
///
/// # Errors
/// None; the signature is that of all claims.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = std::time::Instant::now();
    let per_seed = if quick { [2, 2, 2] } else { [rpo::DRAWS_PER_SEED, DECEPTIVE_DRAWS, HARD_DRAWS] };
    let [narrow_draws, deceptive_draws, hard_draws] = per_seed.map(|draws| draws * seeds);
    let cut = if quick { 20 } else { 1 };
    say(&format!("offline: {narrow_draws} problems, {} losses each", OFFLINE.len()));
    let narrow: Vec<Vec<Worth>> = (0..narrow_draws).into_par_iter().map(offline).collect();
    let mut online = |bandit: &Bandit, draws: u64| -> Vec<Vec<Outcome>> {
        say(&format!("{}: {draws} draws, {} schedules of alpha each", bandit.name, bandit.schedules.len()));
        let run = |schedule: &Schedule| play(bandit, *schedule, draws, bandit.rounds / cut);
        bandit.schedules.par_iter().map(run).collect()
    };
    let (deceptive, hard) = (online(&DECEPTIVE, deceptive_draws), online(&HARD, hard_draws));

    let offline = |value: &dyn Fn(&[Worth]) -> f64| {
        stats::t_interval(&narrow.iter().map(|worths| value(worths)).collect::<Vec<_>>(), "draws")
    };
    let online = |left: &[Outcome], right: &[Outcome], value: fn(&Outcome) -> f64| {
        let pairs: Vec<_> = left.iter().zip(right).map(|(left, right)| (value(left), value(right))).collect();
        stats::paired_difference(&pairs, "draws")
    };
    let effect = |name: &str, estimate: Estimate, expected| Effect { name: name.into(), estimate, expected };
    let best = |outcome: &Outcome| f64::from(u8::from(outcome.best));
    let optimistic = &deceptive[3];
    let free = OFFLINE.len();
    let value = |at: usize| offline(&|worths| worths[at].reward - BETA * worths[at].kl).mean;
    let effects = vec![
        effect(
            "offline: true reward, pessimism (chosen, alpha 0.05) less DPO",
            offline(&|worths| worths[1].reward - worths[0].reward),
            Expected::Above(0.0),
        ),
        effect(
            "offline: true reward, optimism (chosen, alpha 0.05) less DPO",
            offline(&|worths| worths[6].reward - worths[0].reward),
            Expected::Below(0.0),
        ),
        effect(
            "offline, bounded rewards: true reward, pessimism (chosen, alpha 0.05) less DPO",
            offline(&|worths| worths[free + 1].reward - worths[free].reward),
            Expected::Above(0.0),
        ),
        effect(
            "offline, bounded rewards: true reward, optimism (chosen, alpha 0.05) less DPO",
            offline(&|worths| worths[free + 2].reward - worths[free].reward),
            Expected::Below(0.0),
        ),
        effect(
            "deceptive reference: regret, alpha 1 less online DPO",
            online(optimistic, &deceptive[0], |outcome| outcome.regret),
            Expected::Below(0.0),
        ),
        effect(
            "deceptive reference: final gap, alpha 1 less online DPO",
            online(optimistic, &deceptive[0], |outcome| outcome.gap),
            Expected::Below(0.0),
        ),
        effect(
            "deceptive reference: share of draws that end on the best arm, alpha 1 less online DPO",
            online(optimistic, &deceptive[0], best),
            Expected::Above(0.0),
        ),
        effect(
            "deceptive reference: too much optimism hurts, regret of alpha 10 less alpha 1",
            online(&deceptive[5], optimistic, |outcome| outcome.regret),
            Expected::Above(0.0),
        ),
        effect(
            "hard exploration: share of draws solved, alpha 0.04 t",
            solved(&hard[4], 1),
            Expected::Above(0.8),
        ),
        effect(
            "hard exploration: share of draws solved, online DPO",
            solved(&hard[0], 1),
            Expected::Below(0.5),
        ),
        effect(
            "hard exploration: regret, alpha 0.04 t less online DPO",
            online(&hard[4], &hard[0], |outcome| outcome.regret),
            Expected::Below(0.0),
        ),
    ];

    let mut rows = Vec::new();
    for (at, (attitude, calibration, alpha)) in OFFLINE.into_iter().chain(BOUNDED).enumerate() {
        let calibration = if calibration == Calibration::Gold { "reference" } else { "chosen" };
        let name = match (alpha, attitude) {
            (0.0, _) => "0 (DPO)".into(),
            (_, Attitude::Pessimism) => format!("-{alpha}, {calibration}"),
            (_, Attitude::Optimism) => format!("+{alpha}, {calibration}"),
        };
        let reward = offline(&|worths| worths[at].reward);
        let kl = format!(
            "KL {:.2} nats, reward - beta KL {:.3}",
            offline(&|worths| worths[at].kl).mean,
            value(at)
        );
        let problem = if at < free { "offline" } else { "offline, bounded rewards" };
        rows.push(vec![problem.into(), name, reward.to_string(), kl, "-".into(), "-".into()]);
    }
    for (bandit, results) in [(&DECEPTIVE, &deceptive), (&HARD, &hard)] {
        for (schedule, outcomes) in bandit.schedules.iter().zip(results) {
            let mean = |value: &dyn Fn(&Outcome) -> f64| {
                stats::t_interval(&outcomes.iter().map(value).collect::<Vec<_>>(), "draws")
            };
            let found = match bandit.slope {
                1.0 => format!(
                    "solved {:.0} % at half, {:.0} % at the end",
                    100.0 * solved(outcomes, 0).mean,
                    100.0 * solved(outcomes, 1).mean
                ),
                _ => format!("{:.0} % end on the best arm", 100.0 * mean(&best).mean),
            };
            rows.push(vec![
                bandit.name.into(),
                format!("+{}", schedule.name()),
                "-".into(),
                found,
                mean(&|outcome| outcome.regret).to_string(),
                mean(&|outcome| outcome.gap).to_string(),
            ]);
        }
    }
    Ok(ClaimResult {
        slug: "vpo".into(),
        claim: "Offline, pessimism gets more true reward than DPO where pairs cover the answers badly, and optimism less; \
                online, optimism finds good answers that the reference hardly ever gives, where online DPO does not."
            .into(),
        setup: format!(
            "Offline: {} Alpha is per pair; optimism, whose loss has no bound, is left at a loss of {}. \
             Bounded rewards: pi = reference exp(r / beta) / Z with r = {BOUND} tanh(u).\n\nOnline: policies \
             pi = reference exp(r(u) / beta) / Z with bounded rewards r, refitted after each round to all comparisons so far by Adam (rate 0.03, moments kept); a comparison is one \
             answer of the policy against one of the reference, which is also the calibration policy; alpha is the \
             paper's, beside the sum over comparisons. Deceptive reference: {} arms, arm 0 drawn 98 % of the time with \
             r = 0.5, one of the others r = 1, the rest U(0, 0.4); beta {}, labels of slope {}, r = tanh(u), {} rounds of \
             {} comparisons and {} steps. Hard exploration: {} arms, arm 0 with r = 5 drawn once in 1000, the others r = 1; \
             beta {}, r = 5 sigmoid(u), {} rounds of one comparison and {} steps, weight decay {:e}; solved is a gap \
             below 0.01. Gaps and regrets are of E[r] - beta KL(pi || reference), in units of the largest reward. {} and \
             {} draws ({} and {} for each of --seeds), the same random numbers for all alphas. \
             Alphas are from the method's card, not tuned here.",
            rpo::setup(seeds, per_seed[0]),
            STOP.value,
            DECEPTIVE.arms,
            DECEPTIVE.beta,
            DECEPTIVE.slope,
            DECEPTIVE.rounds / cut,
            DECEPTIVE.pairs_per_round,
            DECEPTIVE.steps,
            HARD.arms,
            HARD.beta,
            HARD.rounds / cut,
            HARD.steps,
            HARD.decay,
            deceptive_draws,
            hard_draws,
            per_seed[1],
            per_seed[2],
        ),
        table: Table {
            headers: ["problem", "alpha", "mean true reward", "found", "regret", "final gap"]
                .map(String::from)
                .to_vec(),
            rows,
        },
        effects,
        plots: Vec::new(),
        remarks: format!(
            "Offline, optimism does not lose to DPO, with a bound of the rewards or without one (then no minimum exists, \
             and the policy ends on one arm): it settles on arms that won often, where DPO spreads over those that won \
             their only comparison. It goes further from the reference than pessimism for no more reward: in \
             E[r] - beta KL(pi || reference), with bounded rewards, pessimism has {:.3}, optimism {:.3} and DPO {:.3}.",
            value(free + 1),
            value(free + 2),
            value(free),
        ),
        command: "polo reproduce vpo".into(),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// The share of draws that are solved at half (0) or at the end (1).
fn solved(outcomes: &[Outcome], when: usize) -> Estimate {
    let solved = outcomes.iter().filter(|outcome| outcome.solved[when]).count();
    stats::wilson(solved as f64, outcomes.len(), "draws")
}

#[cfg(test)]
mod tests {
    use super::{
        super::tabular::{Stop, expectation, log_softmax, log_sum_exp},
        *,
    };
    use crate::methods::dpo::Dpo;

    fn close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (one, other) in found.iter().zip(expected) {
            assert!((one - other).abs() <= tolerance, "{found:?} is not {expected:?}");
        }
    }

    const REFERENCE: [f64; 4] = [0.4, 0.1, 0.2, 0.3];
    const CALIBRATION: [f64; 4] = [0.1, 0.2, 0.4, 0.3];
    const PAIRS: [(usize, usize, f64); 3] = [(0, 1, 0.5), (1, 2, 0.2), (3, 0, 0.3)];

    fn log_reference() -> Vec<f64> {
        REFERENCE.map(f64::ln).to_vec()
    }

    fn vpo(alpha: f64, attitude: Attitude) -> Vpo {
        Vpo { beta: 0.5, alpha, attitude, calibration: Calibration::Gold, floor: None }
    }

    fn value(objective: &Vpo, pairs: &[(usize, usize, f64)], logits: &[f64]) -> (f64, Vec<f64>) {
        let mut examples = Examples::new(3);
        calibrated(pairs, &CALIBRATION, 0, &mut examples);
        loss(objective, &examples, &log_reference(), 4, logits)
    }

    /// With rewards centred under the calibration policy, the term is the optimal value; a shift of the rewards changes
    /// nothing.
    #[test]
    fn the_term_is_the_optimal_value() {
        let raw = [0.7, -1.3, 2.0, 0.1];
        let centre = expectation(&CALIBRATION, &raw);
        let tilted = |shift: f64| -> Vec<f64> {
            REFERENCE.iter().zip(raw).map(|(p, r)| p.ln() + (r - shift) / 0.5).collect()
        };
        let optimal = 0.5 * log_sum_exp(&tilted(centre));
        let log_policy = log_softmax(&tilted(centre), 4);
        let ratios: Vec<f64> = log_policy.iter().zip(log_reference()).map(|(pi, r)| pi - r).collect();
        assert!((optimal + 0.5 * expectation(&CALIBRATION, &ratios)).abs() < 1e-12);
        let objective = vpo(0.3, Attitude::Optimism);
        let plain = value(&vpo(0.0, Attitude::Optimism), &PAIRS, &tilted(centre)).0;
        close(&[value(&objective, &PAIRS, &tilted(centre)).0 - plain], &[-0.3 * optimal], 1e-12);
        let shifted = value(&objective, &PAIRS, &tilted(centre - 5.0));
        close(&[shifted.0], &[value(&objective, &PAIRS, &tilted(centre)).0], 1e-12);
    }

    #[test]
    fn without_alpha_it_is_dpo() {
        let logits = [0.3, -1.0, 0.8, 0.0];
        let mut examples = Examples::new(2);
        PAIRS.iter().for_each(|(w, l, share)| examples.push(&[*w, *l], *share));
        let dpo = loss(&Dpo { beta: 0.5, ..Dpo::default() }, &examples, &log_reference(), 4, &logits);
        let vpo = value(&vpo(0.0, Attitude::Pessimism), &PAIRS, &logits);
        close(&[vpo.0], &[dpo.0], 1e-14);
        close(&vpo.1, &dpo.1, 1e-14);
    }

    #[test]
    fn the_terms_gradient_is_calibration_less_policy() {
        let logits = [0.3, -1.0, 0.8, 0.0];
        let policy = softmax(&logits, 4);
        for (attitude, sign) in [(Attitude::Optimism, 1.0), (Attitude::Pessimism, -1.0)] {
            let with = value(&vpo(0.3, attitude), &PAIRS, &logits).1;
            let without = value(&vpo(0.0, attitude), &PAIRS, &logits).1;
            let term: Vec<f64> = with.iter().zip(without).map(|(with, without)| with - without).collect();
            let expected: Vec<f64> =
                CALIBRATION.iter().zip(&policy).map(|(c, pi)| sign * 0.3 * 0.5 * (c - pi)).collect();
            close(&term, &expected, 1e-14);
        }
    }

    /// Pairs of an answer with itself say nothing: the term alone decides.
    #[test]
    fn without_data_pessimism_imitates_and_optimism_flees() {
        let nothing = [(0, 0, 1.0)];
        let f = |x: &[f64]| value(&vpo(0.3, Attitude::Pessimism), &nothing, x);
        let (logits, _) = minimise(log_reference(), Stop::EXACT, f);
        close(&softmax(&logits, 4), &CALIBRATION, 1e-7);
        let f = |x: &[f64]| value(&vpo(0.3, Attitude::Optimism), &nothing, x);
        let (logits, least) = minimise(log_reference(), STOP, f);
        let policy = softmax(&logits, 4);
        assert!(policy.iter().copied().fold(1.0, f64::min) < 1e-6, "{policy:?}");
        assert!(least < f(&log_reference()).0 - 1.0, "{least}");
    }

    /// Playing twice is the same; without alpha the class of policies is online DPO's.
    #[test]
    fn bandits_are_reproducible() {
        for bandit in [&DECEPTIVE, &HARD] {
            let run = || play(bandit, Schedule::Linear(0.04), 3, 4);
            for (one, other) in run().iter().zip(run()) {
                assert!(one.regret > 0.0 && one.gap > 0.0);
                assert_eq!((one.regret, one.gap, one.best), (other.regret, other.gap, other.best));
            }
        }
    }
}
