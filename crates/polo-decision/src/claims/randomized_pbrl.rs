//! The claim of randomised preference-based learning: the active query rule has the regret of asking always for a fraction
//! of the questions, and more than questions at random; randomisation and the policy before as comparator are needed.

use std::{path::Path, time::Instant};

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
    report::{LinePlot, Series},
    stats::{mean, sample_std, t_interval},
};
use rayon::prelude::*;

use crate::methods::randomized_pbrl::{Algorithm, Comparator, Posterior, Query, RandomizedPbrl};

/// Instances for each seed that is asked for, and at least: regret has a heavy tail over instances.
const INSTANCES: u64 = 8;
const LEAST: u64 = 12;
/// Regret of an episode, of a return of about 2, that counts as none.
const MARGIN: f64 = 0.02;

/// Points of a regret curve; a multiple of four, as the last quarter is looked at.
const POINTS: usize = 40;

/// Of one instance: regret of an episode, the same in the last quarter, and preferences asked; and the sums of regret and
/// of preferences after each of [`POINTS`] equal parts.
struct Found {
    regret: f64,
    last_quarter: f64,
    queries: f64,
    regrets: Vec<f64>,
    asked: Vec<f64>,
}

/// The rounds after which a curve has its points.
fn rounds_of(rounds: u64) -> impl Iterator<Item = u64> {
    (1..=POINTS as u64).map(move |point| point * rounds / POINTS as u64)
}

fn play(settings: &RandomizedPbrl, seed: u64) -> Result<Found> {
    let mut learner = settings.learner(seed)?;
    let (mut regrets, mut asked) = (Vec::with_capacity(POINTS), Vec::with_capacity(POINTS));
    for round in rounds_of(settings.rounds) {
        learner.play_until(round)?;
        regrets.push(learner.regret());
        asked.push(learner.queries() as f64);
    }
    let (before, after) = (regrets[POINTS * 3 / 4 - 1], regrets[POINTS - 1]);
    let last_quarter = settings.rounds - settings.rounds * 3 / 4;
    Ok(Found {
        regret: after / (2 * settings.rounds) as f64,
        last_quarter: (after - before) / (2 * last_quarter) as f64,
        queries: asked[POINTS - 1],
        regrets,
        asked,
    })
}

/// The mean over instances of something at each point.
fn means(runs: &[Found], of: fn(&Found) -> &[f64]) -> Vec<f64> {
    let at = |point: usize| mean(&runs.iter().map(|run| of(run)[point]).collect::<Vec<f64>>());
    (0..POINTS).map(|point| at(point).unwrap_or(f64::NAN)).collect()
}

/// Regret by rounds, by questions asked so far, and at the end by all questions, of rules `found` in the order of the plan,
/// questions at random last.
fn plots(found: &[(&str, Vec<Found>)], rounds: u64) -> Vec<LinePlot> {
    let shown = [0, 1, 3, 8, 5, 6, found.len() - 1];
    let rounds: Vec<f64> = rounds_of(rounds).map(|round| round as f64).collect();
    let course = |asked: bool, shown: &[usize]| -> Vec<Series> {
        let series = |(colour, &place): (usize, &usize)| {
            let (name, runs) = &found[place];
            let at = if asked { means(runs, |run| &run.asked) } else { rounds.clone() };
            let curves: Vec<&[f64]> = runs.iter().map(|run| run.regrets.as_slice()).collect();
            Series::over_seeds(*name, &at, &curves, colour)
        };
        shown.iter().enumerate().map(series).collect()
    };
    let end = |colour: usize, name: &str, places: &[usize]| {
        let point = |place: &usize| {
            let (_, runs) = &found[*place];
            let regrets: Vec<f64> = runs.iter().map(|run| run.regret).collect();
            (means(runs, |run| &run.asked)[POINTS - 1].log2(), t_interval(&regrets, "instances"))
        };
        Series::of_estimates(name, places.iter().map(point), colour)
    };
    let plot = |title: &str, x_label: &str, y_label: &str, series| LinePlot {
        title: title.into(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        series,
    };
    vec![
        plot("Regret by rounds", "rounds of two episodes", "regret of both policies", course(false, &shown)),
        plot(
            "Regret against preferences asked, as rounds go by",
            "preferences asked so far, mean over instances",
            "regret of both policies",
            course(true, &[0, 3, 8, found.len() - 1]),
        ),
        plot(
            "Regret against preferences asked, by threshold",
            "log2 of the preferences asked in all rounds",
            "regret of an episode",
            vec![
                end(0, "PR-LSVI, epsilon = 0.4, 0.2, 0.1, 0.05, always", &[4, 3, 0, 2, 1]),
                end(1, "PbTS, epsilon = 0.2, 0.1, always", &[9, 8, 10]),
                end(2, "PR-LSVI, at random", &[found.len() - 1]),
            ],
        ),
    ]
}

/// Re-tests the claim.
///
/// # Errors
/// None of this claim's own.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = Instant::now();
    let (rounds, instances) = if quick { (500, seeds) } else { (2000, (INSTANCES * seeds).max(LEAST)) };
    let method = RandomizedPbrl { rounds, ..Default::default() };
    let always = RandomizedPbrl { query: Query::Always, ..method.clone() };
    let pbts = RandomizedPbrl { algorithm: Algorithm::Pbts, ..method.clone() };
    let with = |epsilon| RandomizedPbrl { epsilon, ..method.clone() };
    let plan = [
        ("PR-LSVI, epsilon = 0.1", method.clone()),
        ("PR-LSVI, asks always", always.clone()),
        ("PR-LSVI, epsilon = 0.05", with(0.05)),
        ("PR-LSVI, epsilon = 0.2", with(0.2)),
        ("PR-LSVI, epsilon = 0.4", with(0.4)),
        (
            "greedy, asks always",
            RandomizedPbrl { sigma_reward: 0.0, sigma_transition: 0.0, ..always.clone() },
        ),
        (
            "both episodes from the new policy",
            RandomizedPbrl { comparator: Comparator::New, ..method.clone() },
        ),
        ("uniform comparator", RandomizedPbrl { comparator: Comparator::Uniform, ..method.clone() }),
        ("PbTS, epsilon = 0.1", pbts.clone()),
        ("PbTS, epsilon = 0.2", RandomizedPbrl { epsilon: 0.2, ..pbts.clone() }),
        ("PbTS, asks always", RandomizedPbrl { query: Query::Always, ..pbts.clone() }),
        (
            "PbTS with particles, epsilon = 0.1",
            RandomizedPbrl { posterior: Posterior::Particles, ..pbts.clone() },
        ),
        (
            "PbTS with networks, epsilon = 0.1",
            RandomizedPbrl { posterior: Posterior::Ensemble, ..pbts.clone() },
        ),
        (
            "dueling posterior sampling",
            RandomizedPbrl { query: Query::Always, comparator: Comparator::SecondDraw, ..pbts },
        ),
        ("RLSVI, sees rewards", RandomizedPbrl { algorithm: Algorithm::Rlsvi, ..method.clone() }),
    ];
    let mut found: Vec<(&str, Vec<Found>)> = Vec::new();
    for (name, settings) in &plan {
        say(name);
        let runs = (0..instances).into_par_iter().map(|seed| play(settings, seed)).collect::<Result<_>>()?;
        found.push((name, runs));
    }
    say("questions at random");
    let random = (0..instances)
        .into_par_iter()
        .map(|seed| {
            let at = seed as usize;
            let share = found[0].1[at].queries / found[1].1[at].queries.max(1.0);
            let query_probability = share.min(1.0);
            play(&RandomizedPbrl { query: Query::Random, query_probability, ..method.clone() }, seed)
        })
        .collect::<Result<_>>()?;
    found.push(("PR-LSVI, asks at random", random));
    let rows = found.iter().map(|(name, runs)| {
        let of = |what: fn(&Found) -> f64| runs.iter().map(what).collect::<Vec<f64>>();
        let regrets = of(|run| run.regret);
        vec![
            (*name).to_string(),
            format!("{:.4}", t_interval(&regrets, "instances")),
            sample_std(&regrets).map_or("-".into(), |sd| format!("{sd:.3}")),
            format!("{:.4}", t_interval(&of(|run| run.last_quarter), "instances")),
            format!("{:.0}", mean(&of(|run| run.queries)).unwrap_or(f64::NAN)),
        ]
    });
    let table = Table {
        headers: ["rule", "regret of an episode", "sd over instances", "in the last quarter", "preferences"]
            .map(String::from)
            .to_vec(),
        rows: rows.collect(),
    };
    let [active, always, _, double, fourfold, greedy, new, ..] = &found[..] else { unreachable!() };
    let random = &found[found.len() - 1];
    let means = [active, always]
        .map(|(_, runs)| mean(&runs.iter().map(|run| run.regret).collect::<Vec<f64>>()).unwrap_or(f64::NAN));
    let effect = |name: &str, of: &dyn Fn(usize) -> f64, expected| {
        let values: Vec<f64> = (0..instances as usize).map(of).collect();
        Effect { name: name.into(), estimate: t_interval(&values, "instances"), expected }
    };
    let regret = |runs: &(&str, Vec<Found>), at: usize| runs.1[at].regret;
    let effects = vec![
        effect(
            "PR-LSVI, epsilon = 0.1: regret of an episode in the last quarter less that of all rounds",
            &|at| active.1[at].last_quarter - regret(active, at),
            Expected::Below(0.0),
        ),
        effect(
            "epsilon = 0.1: preferences over those of asking always",
            &|at| active.1[at].queries / always.1[at].queries,
            Expected::Below(0.25),
        ),
        effect(
            "epsilon = 0.1: regret of an episode less that of asking always",
            &|at| regret(active, at) - regret(always, at),
            Expected::Below(MARGIN),
        ),
        effect(
            "as many questions at random: regret of an episode less that of epsilon = 0.1",
            &|at| regret(random, at) - regret(active, at),
            Expected::Above(0.0),
        ),
        effect(
            "asking always: regret of greedy less 2.5 times that of PR-LSVI",
            &|at| regret(greedy, at) - 2.5 * regret(always, at),
            Expected::Above(0.0),
        ),
        effect(
            "epsilon = 0.2: regret of an episode less that of 0.1",
            &|at| regret(double, at) - regret(active, at),
            Expected::Above(0.0),
        ),
        effect(
            "epsilon = 0.4: regret of an episode less that of 0.2",
            &|at| regret(fourfold, at) - regret(double, at),
            Expected::Above(0.0),
        ),
        effect(
            "both episodes from the new policy: regret of an episode less that of the policy before as comparator",
            &|at| regret(new, at) - regret(active, at),
            Expected::Above(0.0),
        ),
    ];
    Ok(ClaimResult {
        slug: "randomized-pbrl".into(),
        claim: "Randomised value iteration from preferences learns with regret that falls; asking only where draws disagree \
                comes near the regret of asking always for a quarter of the questions, and questions at random do not; without \
                randomisation regret is 2.5 times as large; the threshold trades questions for regret."
            .into(),
        setup: format!(
            "Random processes of 3 steps, 3 states and 2 actions, one feature for each pair; transitions from Dirichlet(0.5), rewards \
             uniform on [0, 1]; preferences sigmoid(4 times the difference of returns). {rounds} rounds of two episodes; regret \
             counts both policies, exact. Sigma_r 0.5, sigma_P 0.3, lambda 1, unseen pairs optimistic; nothing was tuned here. \
             {instances} instances, the same for every rule, and their random numbers too. Questions at random: each pair that \
             differs with the share of them that the active rule asked about on the instance. {MARGIN} of a return of about 2 \
             counts as no regret."
        ),
        table,
        effects,
        plots: plots(&found, rounds),
        remarks: format!(
            "The paper has no experiments; scales are this program's. The mean regret of the active rule at epsilon = 0.1 is {:.2} \
             times that of asking always: near it, by the margin, and not equal. PbTS knows the true prior of transitions, \
             Dirichlet(0.5); RLSVI sees rewards without noise. Dueling posterior sampling (Novoseller et al. 2020) is PbTS whose \
             comparator is a second draw and which asks always; with so small a process it is as good as the paper's two.",
            means[0] / means[1]
        ),
        command: format!("polo reproduce randomized-pbrl --seeds {seeds}"),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wiring_holds() {
        let result = reproduce(Path::new(""), 3, true, &mut |_| {}).unwrap();
        assert_eq!((result.effects.len(), result.table.rows.len()), (8, 16));
        assert!(result.effects.iter().all(|effect| effect.estimate.mean.is_finite()));
        // What does not need many rounds.
        assert!(result.effects[1].estimate.mean < 0.7 && result.effects[7].estimate.mean > 0.0);
        let series: Vec<usize> = result.plots.iter().map(|plot| plot.series.len()).collect();
        assert_eq!(series, [7, 4, 3]);
        // A curve ends at the questions and the regret of the table.
        let (asked, regret) = result.plots[1].series[0].points[POINTS - 1];
        assert_eq!(format!("{asked:.0}"), result.table.rows[0][4]);
        assert!(result.table.rows[0][1].starts_with(&format!("{:.4} ", regret / 1000.0)), "{regret}");
    }
}
