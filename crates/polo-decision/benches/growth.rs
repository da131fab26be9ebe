//! What each solver costs as its problem grows: seconds at rising sizes, and the exponent that a straight line through
//! log seconds over log size has.
//!
//! `cargo bench -p polo-decision --bench growth` prints a Markdown table; words after `--` keep the lines in which one of
//! them occurs. Times are medians; making a problem is not timed. Of the exponent, ± is half its 95 % interval; "at the end"
//! is the exponent between the two largest sizes, which small fixed costs blur the least.

use std::{error::Error, io::Write, path::Path, time::Instant};

use polo_decision::{
    evaluation::{Plan, evaluate},
    methods::{
        adversarial_linear_mdp::{AdversarialLinearMdp, Algorithm as Adversarial},
        adyen_bandits::{AdyenBandits, Exploration, Features, Learner},
        martingale_td::MartingaleTd,
        r2pvi::{R2pvi, solver::Algorithm as Robust},
        randomized_pbrl::{Algorithm as Preference, RandomizedPbrl},
        weighted_tallying_bandits::WeightedTallyingBandits,
    },
    settings::{MethodSettings, Training},
    synthetic::Synthetic,
};
use polo_run::{
    seed::{Seeds, unit},
    stats::{mean, median},
};
use statrs::distribution::{ContinuousCDF, StudentsT};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is timed, once.
type Task = Box<dyn FnMut() -> Outcome<()>>;

/// Makes the problem of a size, in a folder for its files.
type Make = Box<dyn Fn(usize, &Path) -> Outcome<Task>>;

/// A size of a solver's problem that grows.
struct Axis {
    solver: &'static str,
    grows: &'static str,
    sizes: [usize; 5],
    /// The exponent that the arithmetic asks for, and where it or another shows.
    theory: &'static str,
    make: Make,
}

/// An axis along which a method's settings change.
fn axis<M: MethodSettings>(
    solver: &'static str,
    grows: &'static str,
    sizes: [usize; 5],
    theory: &'static str,
    settings: impl Fn(usize) -> M + 'static,
) -> Axis {
    Axis { solver, grows, sizes, theory, make: Box::new(move |size, _| whole_run(&settings(size))) }
}

/// A run from its first step to its last.
fn whole_run<M: MethodSettings>(settings: &M) -> Outcome<Task> {
    settings.check()?;
    let mut process = settings.process(&Training::default())?;
    Ok(Box::new(move || {
        while process.done() < process.total() {
            process.go_on()?;
        }
        Ok(())
    }))
}

fn axes() -> Vec<Axis> {
    let mut axes = Vec::new();

    let tallying = |rounds: u64, arms, memory| WeightedTallyingBandits {
        rounds,
        arms,
        memory,
        ..WeightedTallyingBandits::default()
    };
    axes.push(axis(
        "weighted-tallying-bandits",
        "arms K",
        [5, 10, 20, 40, 80],
        "0: a round plays one arm; that it looks through the arms left for its metrics, 1, shows late",
        move |arms| tallying(40_000, arms, 20),
    ));
    axes.push(axis(
        "weighted-tallying-bandits",
        "rounds T",
        [10_000, 20_000, 40_000, 80_000, 160_000],
        "1",
        move |rounds| tallying(rounds as u64, 5, 20),
    ));
    axes.push(axis(
        "weighted-tallying-bandits",
        "memory m",
        [200, 400, 800, 1600, 3200],
        "1: a tally sums m pulls",
        move |memory| tallying(40_000, 5, memory),
    ));

    let adversarial = |algorithm, episodes, horizon, states, features| AdversarialLinearMdp {
        algorithm,
        episodes,
        horizon,
        states,
        features,
        ..AdversarialLinearMdp::default()
    };
    axes.push(axis(
        "adversarial-linear-mdp (log-barrier)",
        "features d",
        [16, 32, 64, 128, 256],
        "3 (inverses), 2 (16 pairs' covariances) while d is small",
        move |d| adversarial(Adversarial::LogBarrier, 40, 3, 4, d),
    ));
    axes.push(axis(
        "adversarial-linear-mdp (log-barrier)",
        "states S of a layer",
        [16, 32, 64, 128, 256],
        "2 (occupancies, S^2 A), 1 (covariances, policies) while S is small",
        move |states| adversarial(Adversarial::LogBarrier, 50, 3, states, 3),
    ));
    axes.push(axis(
        "adversarial-linear-mdp (log-barrier)",
        "horizon H",
        [4, 8, 16, 32, 64],
        "1",
        move |horizon| adversarial(Adversarial::LogBarrier, 200, horizon, 4, 3),
    ));
    axes.push(axis(
        "adversarial-linear-mdp (log-barrier)",
        "episodes K",
        [250, 500, 1000, 2000, 4000],
        "1",
        move |episodes| adversarial(Adversarial::LogBarrier, episodes as u64, 3, 4, 3),
    ));
    axes.push(axis(
        "adversarial-linear-mdp (magnitude-reduced)",
        "features d",
        [16, 32, 64, 128, 256],
        "3 (inverses), 2 (16 pairs' covariances) while d is small",
        move |d| adversarial(Adversarial::MagnitudeReduced, 40, 3, 4, d),
    ));
    axes.push(axis(
        "adversarial-linear-mdp (simulator-free)",
        "episodes K",
        [500, 1000, 2000, 4000, 8000],
        "1",
        move |episodes| adversarial(Adversarial::SimulatorFree, episodes as u64, 3, 4, 3),
    ));

    for (solver, algorithm, theory) in [
        ("r2pvi (tv)", Robust::R2pviTv, "2 (n = 1000 rows, n d^2), 3 (inverses) where d nears n"),
        ("r2pvi (kl)", Robust::R2pviKl, "2 (n = 1000 rows, n d^2), 3 (inverses) where d nears n"),
        ("r2pvi (chi2)", Robust::R2pviChi2, "2 (n = 1000 rows, n d^2), 3 (inverses) where d nears n"),
    ] {
        axes.push(offline(solver, "features d", [16, 32, 64, 128, 256], theory, move |d| {
            (algorithm, 1000, 3, d)
        }));
    }
    axes.push(offline(
        "r2pvi (tv)",
        "horizon H",
        [2, 4, 8, 16, 32],
        "1 of H - 1, as nothing follows the last step: 1.22 of H at these sizes",
        |h| (Robust::R2pviTv, 500, h, 16),
    ));
    axes.push(offline("r2pvi (tv)", "episodes n", [500, 1000, 2000, 4000, 8000], "1", |n| {
        (Robust::R2pviTv, n, 3, 16)
    }));
    axes.push(offline(
        "r2pvi (chi2)",
        "episodes n",
        [500, 1000, 2000, 4000, 8000],
        "1 (and log n, a sort); fixed costs of the duals while n is small",
        |n| (Robust::R2pviChi2, n, 3, 16),
    ));

    let preference = |algorithm, rounds: u64, horizon, states| RandomizedPbrl {
        algorithm,
        rounds,
        horizon,
        states,
        ..RandomizedPbrl::default()
    };
    for (solver, algorithm) in
        [("randomized-pbrl (pr-lsvi)", Preference::PrLsvi), ("randomized-pbrl (pbts)", Preference::Pbts)]
    {
        axes.push(axis(
            solver,
            "states S (d = S A)",
            [4, 8, 16, 32, 64],
            "3 (factors of d H numbers), 2 (questions about them) while they are small",
            move |states| preference(algorithm, 50, 3, states),
        ));
        axes.push(axis(
            solver,
            "horizon H",
            [4, 8, 16, 32, 64],
            "3 (factors of d H numbers), 2 (questions about them) while they are small",
            move |horizon| preference(algorithm, 50, horizon, 3),
        ));
        axes.push(axis(
            solver,
            "rounds T",
            [250, 500, 1000, 2000, 4000],
            "1; less as questions become rare, after which a factor is kept; 2 (fits to all answers) would they not",
            move |rounds| preference(algorithm, rounds as u64, 3, 3),
        ));
    }

    let martingale = |paths: usize, steps: usize, features: usize| MartingaleTd {
        paths: paths as u64,
        dt: 1.0 / steps as f64,
        features: monomials(features),
        ridge: 1e-6,
        ..MartingaleTd::default()
    };
    axes.push(axis(
        "martingale-td (exact)",
        "features p",
        [8, 16, 32, 64, 128],
        "2 (a step of a path adds p^2 products); one solution, p^3, does not show",
        move |p| martingale(100, 100, p),
    ));
    axes.push(axis("martingale-td (exact)", "paths", [250, 500, 1000, 2000, 4000], "1", move |paths| {
        martingale(paths, 100, 4)
    }));
    axes.push(axis("martingale-td (exact)", "steps of a path", [25, 50, 100, 200, 400], "1", move |steps| {
        martingale(500, steps, 4)
    }));

    let adyen = |batch, actions, context| AdyenBandits {
        batch,
        actions,
        context,
        generations: 1,
        fresh: 1,
        exploration: Exploration::Squarecb,
        ..AdyenBandits::default()
    };
    axes.push(axis("adyen-bandits (lin)", "requests n", [1000, 2000, 4000, 8000, 16_000], "1", move |n| {
        adyen(n, 8, 6)
    }));
    axes.push(axis(
        "adyen-bandits (lin)",
        "actions K",
        [8, 16, 32, 64, 128],
        "1 (predictions), 0 (fits to n rows in all) while K is small",
        move |actions| adyen(4000, actions, 6),
    ));
    axes.push(axis(
        "adyen-bandits (lin)",
        "context d",
        [12, 24, 48, 96, 192],
        "2 (n d^2, and the stream's own x^T B x)",
        move |context| adyen(4000, 8, context),
    ));
    axes.push(axis(
        "adyen-bandits (full)",
        "context d",
        [6, 9, 14, 20, 30],
        "4 (n rows of d^2 / 2 products, squared), 6 (K inverses) where d^2 / 2 is above n / K = 125",
        move |context| AdyenBandits { features: Features::Full, ..adyen(1000, 8, context) },
    ));
    axes.push(axis("adyen-bandits (trees)", "requests n", [1000, 2000, 4000, 8000, 16_000], "1", move |n| {
        AdyenBandits { oracle: Learner::Trees, ..adyen(n, 8, 6) }
    }));
    axes.push(axis(
        "adyen-bandits (trees)",
        "context d",
        [6, 12, 24, 48, 96],
        "1 of the d + K columns, which is 0.73 of d at these sizes, K being 8",
        move |context| AdyenBandits { oracle: Learner::Trees, ..adyen(2000, 8, context) },
    ));

    axes.push(evaluation("rows n", [1000, 2000, 4000, 8000, 16_000], "1", |rows| (rows, 5)));
    axes.push(evaluation(
        "actions K",
        [8, 16, 32, 64, 128],
        "2 (n rows of a model of K + 6 numbers), 1 (predictions) while K is small",
        |k| (2000, k),
    ));
    axes
}

/// The first products of powers of the time that remains and the state.
fn monomials(count: usize) -> Vec<String> {
    (0..count)
        .map(|at| {
            let factors = [vec!["remaining"; at / 8], vec!["x"; at % 8]].concat();
            if factors.is_empty() { "1".into() } else { factors.join("*") }
        })
        .collect()
}

/// R2PVI on a file of `n` episodes of H steps, of states with four actions of `d` features.
fn offline(
    solver: &'static str,
    grows: &'static str,
    sizes: [usize; 5],
    theory: &'static str,
    of: impl Fn(usize) -> (Robust, usize, usize, usize) + 'static,
) -> Axis {
    let make = move |size: usize, folder: &Path| {
        let (algorithm, episodes, horizon, d) = of(size);
        let mut rng = Seeds::new(1).rng("episodes", 0);
        let mut features = || {
            let draws: Vec<f64> = (0..d).map(|_| unit(&mut rng)).collect();
            let sum: f64 = draws.iter().sum();
            draws.into_iter().map(|x| x / sum).collect::<Vec<f64>>()
        };
        let path = folder.join("episodes.jsonl");
        let settings = R2pvi { algorithm, data: Some(path.clone()), replications: 1, ..R2pvi::default() };
        if path.exists() {
            return whole_run(&settings);
        }
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for _ in 0..episodes {
            let taken: Vec<Vec<f64>> = (0..horizon).map(|_| features()).collect();
            let rewards: Vec<f64> = taken.iter().map(|x| x[0]).collect();
            let next: Vec<Vec<Vec<f64>>> =
                (0..horizon).map(|_| (0..4).map(|_| features()).collect()).collect();
            let episode = serde_json::json!({ "features": taken, "rewards": rewards, "next": next });
            writeln!(file, "{episode}")?;
        }
        file.flush()?;
        whole_run(&settings)
    };
    Axis { solver, grows, sizes, theory, make: Box::new(make) }
}

/// Every estimator, with intervals, on a synthetic log.
fn evaluation(
    grows: &'static str,
    sizes: [usize; 5],
    theory: &'static str,
    of: impl Fn(usize) -> (usize, usize) + 'static,
) -> Axis {
    let make = move |size: usize, _: &Path| -> Outcome<Task> {
        let (rows, actions) = of(size);
        let seeds = Seeds::new(1);
        let bandit = Synthetic::new(actions, 5, &seeds)?;
        let log = bandit.log(1.0, rows, &seeds);
        let policy = bandit.policy(3.0, &log);
        let plan = Plan { resamples: 200, ..Plan::new(&log) };
        Ok(Box::new(move || {
            evaluate(&log, &policy, &[], &plan, &seeds)?;
            Ok(())
        }))
    };
    Axis { solver: "off-policy evaluation", grows, sizes, theory, make: Box::new(make) }
}

/// Runs of a size: so many at least, and more until so many seconds are spent, but not above.
const LEAST_RUNS: usize = 3;
const MOST_RUNS: usize = 15;
const SECONDS: f64 = 0.4;

fn seconds(axis: &Axis, size: usize) -> Outcome<f64> {
    let folder = tempfile::tempdir()?;
    let mut times = Vec::new();
    while times.len() < LEAST_RUNS || (times.len() < MOST_RUNS && times.iter().sum::<f64>() < SECONDS) {
        let mut task = (axis.make)(size, folder.path())?;
        let start = Instant::now();
        task()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(median(&times).unwrap_or(f64::NAN))
}

/// The slope of a straight line, and half its 95 % interval.
fn slope(x: &[f64], y: &[f64]) -> Outcome<(f64, f64)> {
    let (x_mean, y_mean) = (mean(x).unwrap_or_default(), mean(y).unwrap_or_default());
    let spread: f64 = x.iter().map(|x| (x - x_mean).powi(2)).sum();
    let slope = x.iter().zip(y).map(|(x, y)| (x - x_mean) * (y - y_mean)).sum::<f64>() / spread;
    let miss: f64 = x.iter().zip(y).map(|(x, y)| (y - y_mean - slope * (x - x_mean)).powi(2)).sum();
    let freedom = x.len() as f64 - 2.0;
    let quantile = StudentsT::new(0.0, 1.0, freedom)?.inverse_cdf(0.975);
    Ok((slope, quantile * (miss / freedom / spread).sqrt()))
}

fn short(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", 1e6 * s),
        s if s < 1.0 => format!("{:.1} ms", 1e3 * s),
        s => format!("{s:.2} s"),
    }
}

fn main() -> Outcome<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("| solver | what grows | sizes | time | exponent | at the end | by theory |");
    println!("|---|---|---|---|---|---|---|");
    for axis in axes() {
        let name = format!("{} {}", axis.solver, axis.grows);
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word)) {
            continue;
        }
        let times = axis.sizes.iter().map(|size| seconds(&axis, *size)).collect::<Outcome<Vec<f64>>>();
        let times = times.map_err(|error| format!("{name}: {error}"))?;
        let x: Vec<f64> = axis.sizes.iter().map(|size| (*size as f64).ln()).collect();
        let y: Vec<f64> = times.iter().map(|time| time.ln()).collect();
        let (exponent, half) = slope(&x, &y)?;
        let last = (y[4] - y[3]) / (x[4] - x[3]);
        let sizes = axis.sizes.map(|size| size.to_string()).join(", ");
        let times: Vec<String> = times.into_iter().map(short).collect();
        println!(
            "| {} | {} | {sizes} | {} | {exponent:.2} ± {half:.2} | {last:.2} | {} |",
            axis.solver,
            axis.grows,
            times.join(", "),
            axis.theory
        );
    }
    Ok(())
}
