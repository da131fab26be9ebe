use std::{fmt::Write, fs, path::Path as FilePath};

use super::*;
use crate::linear::{Matrix, dot, normals};

const NONE: Discount = Discount { rate: 0.0, exact: false };

#[track_caller]
fn near(found: &[f64], expected: &[f64], most: f64) {
    assert_eq!(found.len(), expected.len());
    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= most);
    assert!(close, "{found:?} is not {expected:?}");
}

fn simulator(diffusion: Diffusion, dt: f64, steps: usize) -> Simulator {
    let rho = diffusion.usual_rate();
    Simulator { diffusion, dt, steps, rho, features: Vec::new(), tests: Vec::new() }
}

/// A path of random numbers on uneven steps.
fn random(seed: u64, ends: bool) -> Path {
    let (n, d, seeds) = (12, 3, Seeds::new(seed));
    let mut path = Path {
        times: (0..=n).map(|i| 0.1 * i as f64 + 0.03 * (i % 3) as f64).collect(),
        rewards: normals(&seeds, n + 1, "rewards", 0),
        base: normals(&seeds, n + 1, "base", 0),
        features: normals(&seeds, (n + 1) * d, "features", 0),
        width: d,
        ends,
        ..Path::default()
    };
    if ends {
        path.features[n * d..].fill(0.0);
    } else {
        path.base.fill(0.0);
    }
    path
}

fn all_three(path: &Path, discount: Discount) -> [Vec<f64>; 3] {
    let mut moments = [0; 3].map(|_| Moments::new(path.width, path.width));
    moments[0].add_mean_square(path, discount);
    moments[1].add_martingale_loss(path, discount);
    moments[2].add_orthogonality(path, discount, 0.0);
    moments.map(|moments| moments.solve(0.0).unwrap())
}

#[test]
fn without_noise_all_criteria_agree_and_converge_in_first_order() {
    // X' = X, r = x, h = 0, J = theta x (e^(T-t) - 1).
    for (n, expected) in [(10, 0.950_83), (100, 0.995_01), (1000, 0.999_50)] {
        let times: Vec<f64> = (0..=n).map(|i| f64::from(i) / f64::from(n)).collect();
        let states: Vec<f64> = times.iter().map(|t| t.exp()).collect();
        let path = Path {
            rewards: states.clone(),
            base: vec![0.0; times.len()],
            features: times.iter().zip(&states).map(|(t, x)| x * ((1.0 - t).exp() - 1.0)).collect(),
            times,
            width: 1,
            ends: true,
            ..Path::default()
        };
        all_three(&path, NONE).iter().for_each(|theta| near(theta, &[expected], 5e-6));
    }
}

#[test]
fn the_true_value_leaves_no_drift_for_any_test_function() {
    let texts = ["1", "x", "time*x", "x*x", "remaining*x*x*x"];
    let tests = texts.map(|text| Product::read(text, &["x".into()], "tests").unwrap()).to_vec();
    let weights = normals(&Seeds::new(5), 5, "xi", 0);
    let brownian = (simulator(Diffusion::BrownianSquare, 0.05, 20), 1.0, 0.0);
    let control =
        (simulator(Diffusion::ExploratoryQuadraticEnd, 0.01, 100), Exploratory::new(0.0).constant, 0.3);
    for (simulator, truth, lambda) in [(brownian.0.clone(), brownian.1, 0.3), brownian, control] {
        let simulator = Simulator { tests: tests.clone(), ..simulator };
        let drifts: Vec<f64> = (0..4000)
            .map(|number| {
                let mut moments = Moments::new(5, 2);
                moments.add_orthogonality(&simulator.path("path", number, &Seeds::new(2)), NONE, lambda);
                dot(&weights, &moments.residual(&[truth, 0.0]))
            })
            .collect();
        let mean = polo_run::stats::mean(&drifts).unwrap();
        let error = polo_run::stats::sample_std(&drifts).unwrap() / 4000_f64.sqrt();
        assert!(mean.abs() < 3.0 * error, "{mean} {error}");
    }
}

#[test]
fn remembering_everything_is_the_martingale_loss() {
    for seed in 0..5 {
        let path = random(seed, true);
        let theta = normals(&Seeds::new(seed), 3, "theta", 0);
        let (mut traced, mut loss) = (Moments::new(3, 3), Moments::new(3, 3));
        traced.add_orthogonality(&path, NONE, 1.0);
        loss.add_martingale_loss(&path, NONE);
        near(&traced.residual(&theta), &loss.residual(&theta), 1e-12);
    }
}

#[test]
fn gradients_are_those_of_the_losses() {
    let discounts = [NONE, Discount { rate: 0.7, exact: false }, Discount { rate: 0.7, exact: true }];
    for (seed, discount) in discounts.into_iter().enumerate() {
        let path = random(seed as u64, true);
        let theta = normals(&Seeds::new(9), 3, "theta", 0);
        let mean_square = |theta: &[f64]| {
            let square = |i| discount.error(&path, i, theta).powi(2) / path.dt(i);
            0.5 * (0..path.steps()).map(square).sum::<f64>()
        };
        let (mut square, mut loss) = (Moments::new(3, 3), Moments::new(3, 3));
        square.add_mean_square(&path, discount);
        loss.add_martingale_loss(&path, discount);
        let slopes = |of: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
            let moved = |at: usize, by: f64| {
                let mut theta = theta.clone();
                theta[at] += by;
                of(&theta)
            };
            (0..3).map(|at| -(moved(at, 1e-4) - moved(at, -1e-4)) / 2e-4).collect()
        };
        near(&square.residual(&theta), &slopes(&mean_square), 1e-5);
        near(&loss.residual(&theta), &slopes(&|theta| discount.martingale_loss(&path, theta)), 1e-5);
    }
}

/// LSTD(0) of a textbook, A = sum psi (psi - gamma psi')^T, b = sum psi r.
fn textbook(path: &Path, gamma: f64, reward: f64) -> Vec<f64> {
    let d = path.width;
    let (mut a, mut b) = (Matrix::identity(d, 0.0), vec![0.0; d]);
    for i in 0..path.steps() {
        let (now, next) = (path.feature(i), path.feature(i + 1));
        for row in 0..d {
            b[row] += now[row] * reward * path.rewards[i];
            (0..d).for_each(|column| {
                a.numbers[row * d + column] += now[row] * (now[column] - gamma * next[column]);
            });
        }
    }
    a.solve(&b)
}

#[test]
fn with_steps_of_one_it_is_the_textbooks_lstd() {
    for rate in [0.0, 0.3_f64] {
        let path = Path { times: (0..=12).map(f64::from).collect(), ..random(3, false) };
        let solve = |exact| {
            let mut moments = Moments::new(3, 3);
            moments.add_orthogonality(&path, Discount { rate, exact }, 0.0);
            moments.solve(0.0).unwrap()
        };
        let gamma = 1.0 / (1.0 + rate);
        near(&solve(false), &textbook(&path, gamma, gamma), 1e-8);
        near(&solve(true), &textbook(&path, (-rate).exp(), 1.0), 1e-8);
    }
}

#[test]
fn lambda_is_per_unit_of_time() {
    let path = random(1, true);
    let mut trace = Trace::new(0.2, 3);
    let mut found = Vec::new();
    (0..5).for_each(|i| found = trace.at(&path, i).to_vec());
    let expected: Vec<f64> = (0..3)
        .map(|at| {
            (0..5)
                .map(|i| 0.2_f64.powf(path.times[4] - path.times[i]) * path.feature(i)[at] * path.dt(i))
                .sum()
        })
        .collect();
    near(&found, &expected, 1e-12);
    let first = path.feature(0).to_vec();
    assert_eq!(Trace::new(0.0, 3).at(&path, 0), first);
}

#[test]
fn true_values_are_the_means_of_returns() {
    for (diffusion, dt, steps) in [
        (Diffusion::BrownianSquare, 0.5, 2),
        (Diffusion::CallOption, 0.5, 2),
        (Diffusion::LinearQuadratic, 0.002, 500),
        (Diffusion::ExploratoryQuadratic, 0.002, 500),
        (Diffusion::ExploratoryQuadraticEnd, 0.002, 500),
    ] {
        let simulator = simulator(diffusion, dt, steps);
        let discount = Discount { rate: simulator.rho, exact: false };
        let differences: Vec<f64> = (0..4000)
            .map(|number| {
                let path = simulator.path_with_truth("path", number, &Seeds::new(8));
                discount.returns(&path, path.truth[steps])[0] - path.truth[0]
            })
            .collect();
        let mean = polo_run::stats::mean(&differences).unwrap();
        let error = polo_run::stats::sample_std(&differences).unwrap() / 4000_f64.sqrt();
        assert!(
            mean.abs() < 3.0 * error + dt * f64::from(u8::from(steps > 2)),
            "{diffusion:?} {mean} {error}"
        );
    }
}

fn run(settings: &MartingaleTd, seed: u64) -> Evaluation {
    settings.check().unwrap();
    let mut run = settings.evaluation(seed).unwrap();
    run.go_through();
    run
}

/// 2,000 paths of the family without the truth.
fn misspecified() -> MartingaleTd {
    MartingaleTd {
        diffusion: Diffusion::BrownianMisspecified,
        paths: 2000,
        dt: 0.02,
        ..MartingaleTd::default()
    }
}

#[test]
fn criteria_differ_where_the_family_lacks_the_truth() {
    let check = |settings: MartingaleTd, expected: f64, most: f64| {
        near(run(&settings, 1).theta(), &[expected], most);
    };
    let orthogonality = misspecified();
    let martingale = MartingaleTd { criterion: Criterion::MartingaleLoss, ..misspecified() };
    let square = MartingaleTd { criterion: Criterion::MeanSquare, ..misspecified() };
    check(orthogonality.clone(), 2.0 / 3.0, 0.05);
    check(martingale.clone(), 1.25, 0.15);
    check(square.clone(), 0.75, 0.05);
    // Every other solver ends where the exact one does.
    let stepping = |base: MartingaleTd, solver, learning_rate| MartingaleTd {
        solver,
        learning_rate,
        average: true,
        ..base
    };
    check(stepping(orthogonality.clone(), Solver::Offline, 1.0), 2.0 / 3.0, 0.1);
    check(stepping(orthogonality.clone(), Solver::Online, 1.0), 2.0 / 3.0, 0.1);
    check(stepping(martingale.clone(), Solver::Offline, 2.0), 1.25, 0.2);
    check(stepping(square, Solver::Offline, 0.5), 0.75, 0.1);
    for metric in [Metric::Gram, Metric::Identity] {
        let two =
            MartingaleTd { metric, auxiliary_rate: 1.0, batch: 5, decay: 0.25, ..orthogonality.clone() };
        check(stepping(two, Solver::TwoTimescale, 1.0), 2.0 / 3.0, 0.1);
    }
    // With a trace of everything the conditions are those of the martingale loss.
    check(MartingaleTd { lambda: 1.0, ..orthogonality }, run(&martingale, 1).theta()[0], 1e-9);
}

#[test]
fn more_test_functions_than_weights_still_find_the_truth() {
    let settings = MartingaleTd {
        tests: ["remaining", "remaining*x*x", "1", "x*x"].map(String::from).to_vec(),
        paths: 4000,
        dt: 0.05,
        ..MartingaleTd::default()
    };
    near(run(&settings, 3).theta(), &[1.0, 0.0], 0.15);
    let stepping = MartingaleTd { solver: Solver::Online, ..settings.clone() };
    assert_eq!(stepping.evaluation(0).err().unwrap().place_text(), Some("method.tests"));
    let few = MartingaleTd { tests: vec!["1".into()], ..settings };
    assert_eq!(few.evaluation(0).err().unwrap().message(), "1 test functions for 2 features");
}

#[test]
fn an_option_and_a_quadratic_cost_are_valued() {
    let error = |diffusion, paths| {
        let settings = MartingaleTd { diffusion, paths, dt: 0.02, ..MartingaleTd::default() };
        run(&settings, 1).value_error().unwrap()
    };
    let [option, quadratic] = [error(Diffusion::CallOption, 3000), error(Diffusion::LinearQuadratic, 400)];
    assert!(option < 0.02 && quadratic < 0.05, "{option} {quadratic}");
}

/// Linear-quadratic control with an entropy bonus until T = 1: every solver of every criterion, at the truth (c, 0).
#[test]
fn the_best_policy_with_an_entropy_bonus_is_valued_by_all() {
    let base = MartingaleTd {
        diffusion: Diffusion::ExploratoryQuadraticEnd,
        paths: 3000,
        dt: 0.02,
        average: true,
        decay: 0.25,
        ..MartingaleTd::default()
    };
    let check = |settings: MartingaleTd, most: f64| {
        for rate in [0.0, 0.5] {
            let settings = MartingaleTd { discount_rate: Some(rate), ..settings.clone() };
            let truth = [Exploratory::new(rate).constant, 0.0];
            let found = run(&settings, 1);
            near(found.theta(), &truth, most);
        }
    };
    let loss = MartingaleTd { criterion: Criterion::MartingaleLoss, ..base.clone() };
    check(loss.clone(), 0.1);
    check(MartingaleTd { solver: Solver::Offline, learning_rate: 2.0, ..loss }, 0.2);
    for lambda in [0.0, 0.1, 1.0] {
        check(MartingaleTd { lambda, ..base.clone() }, 0.1);
        for solver in [Solver::Offline, Solver::Online] {
            check(MartingaleTd { solver, lambda, learning_rate: 1.0, ..base.clone() }, 0.2);
        }
    }
    for metric in [Metric::Gram, Metric::Identity] {
        let two = Solver::TwoTimescale;
        let settings =
            MartingaleTd { solver: two, metric, learning_rate: 1.0, auxiliary_rate: 1.0, ..base.clone() };
        check(settings, 0.2);
    }
    // The naive criterion takes the noise for error, here too.
    let naive = run(&MartingaleTd { criterion: Criterion::MeanSquare, ..base }, 1);
    assert!(naive.theta()[1].abs() > 0.3, "{:?}", naive.theta());
}

#[test]
fn without_end_the_entropy_bonus_is_valued_from_one_path() {
    let base = MartingaleTd {
        diffusion: Diffusion::ExploratoryQuadratic,
        paths: 1,
        horizon: Some(4000.0),
        ..MartingaleTd::default()
    };
    let Exploratory { curvature, constant, .. } = Exploratory::new(0.5);
    let truth = [0.5 * curvature, constant / 0.5];
    let within = |settings: MartingaleTd, most: f64| {
        for seed in 0..3 {
            let found = run(&settings, seed);
            for (found, truth) in found.theta().iter().zip(truth) {
                assert!((found / truth - 1.0).abs() < most, "{:?} {found} {truth}", settings.solver);
            }
        }
    };
    within(base.clone(), 0.05);
    within(
        MartingaleTd { solver: Solver::Online, learning_rate: 0.005, decay: 0.0, average: true, ..base },
        0.1,
    );
}

#[test]
fn the_order_in_the_step_size_is_found() {
    // Without noise, X' = X, the error is exactly 1 - dt / (e^dt - 1); psi stands in a column of its own.
    let mut text = String::from("path,time,psi,reward,terminal\n");
    for i in 0..=256 {
        let time = f64::from(i) / 256.0;
        let terminal = if i == 256 { "0" } else { "" };
        writeln!(text, "a,{time},{},{},{terminal}", 1_f64.exp() - time.exp(), time.exp()).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flow.csv");
    fs::write(&path, text).unwrap();
    for criterion in [Criterion::MartingaleLoss, Criterion::Orthogonality, Criterion::MeanSquare] {
        let settings = MartingaleTd {
            criterion,
            mesh: 5,
            file: Some(path.clone()),
            features: vec!["psi".into()],
            ..MartingaleTd::default()
        };
        let order = run(&settings, 1).order().unwrap();
        assert!((order - 1.0).abs() < 0.02, "{criterion:?} {order}");
    }
    let settings = MartingaleTd {
        criterion: Criterion::MartingaleLoss,
        mesh: 5,
        dt: 1.0 / 256.0,
        paths: 1000,
        ..misspecified()
    };
    let mut studied = run(&settings, 1);
    let order = studied.order().unwrap();
    assert!((order - 1.0).abs() < 0.15, "{order}");
    let (metrics, line) = studied.evaluate().unwrap().unwrap();
    assert_eq!(metrics.get("mesh/order"), Some(order));
    assert!(line.contains("order in the step size"));
    // The finest step is what a run without the study has.
    assert_eq!(run(&MartingaleTd { mesh: 0, ..settings }, 1).theta(), studied.theta());
}

#[test]
fn a_run_ends_where_going_through_ends() {
    for solver in [Solver::Exact, Solver::Offline, Solver::Online] {
        let settings = MartingaleTd { solver, paths: 40, ..misspecified() };
        let mut stepped = settings.evaluation(1).unwrap();
        while stepped.done() < stepped.total() {
            stepped.go_on().unwrap();
        }
        assert_eq!(stepped.state, run(&settings, 1).state);
    }
}

#[test]
fn coarse_paths_keep_their_ends() {
    let path = random(2, true);
    let coarse = path.coarsened(5);
    let kept = [0, 5, 10, 12];
    assert_eq!(coarse.times, kept.map(|i| path.times[i]));
    assert_eq!(coarse.feature(2), path.feature(10));
    assert_eq!((coarse.base[3], coarse.ends, coarse.width), (path.base[12], true, 3));
    assert_eq!(path.coarsened(1), path);
}

/// 600 simulated paths as a file, with J = x^2 + (T - t) to be found.
fn file(folder: &FilePath, ends: bool) -> PathBuf {
    let mut text = String::from(if ends { "path,time,x,reward,terminal\n" } else { "path,time,x,reward\n" });
    let diffusion = if ends { Diffusion::BrownianSquare } else { Diffusion::LinearQuadratic };
    let simulator = simulator(diffusion, 0.05, 20);
    for number in 0..600 {
        let path = simulator.path("path", number, &Seeds::new(4));
        for i in 0..=20 {
            // The state, from what is made of it.
            let x = if ends { path.base[i].sqrt() } else { (-path.rewards[i]).sqrt() };
            let reward = if i == 20 { String::new() } else { path.rewards[i].to_string() };
            write!(text, "p{number},{},{x},{reward}", path.times[i]).unwrap();
            match (ends, i) {
                (true, 20) => writeln!(text, ",{}", path.base[i]).unwrap(),
                (true, _) => writeln!(text, ",").unwrap(),
                (false, _) => writeln!(text).unwrap(),
            }
        }
    }
    let name = folder.join(format!("paths-{ends}.csv"));
    fs::write(&name, text).unwrap();
    name
}

#[test]
fn observed_paths_are_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let features = |texts: &[&str]| texts.iter().map(|text| (*text).to_string()).collect::<Vec<_>>();
    for criterion in [Criterion::Orthogonality, Criterion::MartingaleLoss] {
        let settings = MartingaleTd {
            criterion,
            file: Some(file(folder.path(), true)),
            features: features(&["remaining", "x*x"]),
            ..MartingaleTd::default()
        };
        let found = run(&settings, 0);
        assert_eq!(found.total(), 600);
        near(found.theta(), &[1.0, 1.0], 0.2);
        found.finish(&folder.path().join(format!("{criterion:?}"))).unwrap();
        let order = run(&MartingaleTd { mesh: 3, ..settings }, 0);
        assert!(order.state.mesh.len() == 4 && order.order().is_some());
    }
    let endless = MartingaleTd {
        file: Some(file(folder.path(), false)),
        features: features(&["x*x", "1"]),
        discount_rate: Some(0.5),
        ..MartingaleTd::default()
    };
    near(run(&endless, 0).theta(), &[-0.4, -0.8], 0.15);
    let refused = MartingaleTd { criterion: Criterion::MartingaleLoss, ..endless.clone() };
    assert_eq!(refused.evaluation(0).err().unwrap().place_text(), Some("method.criterion"));
    // All products up to the degree; the value of a process without end does not depend on when it is observed.
    let all = MartingaleTd { features: Vec::new(), ..endless };
    assert_eq!(all.evaluation(0).unwrap().names, ["1", "x", "x*x"]);
    let all = MartingaleTd { file: Some(file(folder.path(), true)), ..all };
    assert_eq!(
        all.evaluation(0).unwrap().names,
        ["1", "remaining", "x", "remaining*remaining", "remaining*x", "x*x"]
    );
    let same = MartingaleTd { features: features(&["x*x", "x*x"]), ..all };
    assert!(same.evaluation(0).is_ok());
}

#[test]
fn unusable_files_are_named_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paths.csv");
    let check = |text: &str, expected: &str, line: usize| {
        fs::write(&path, text).unwrap();
        let problem = Observed::read(&path, &[], 1, &[]).unwrap_err();
        assert!(problem.message().contains(expected), "{text}: {}", problem.message());
        let place = problem.place_text().unwrap();
        assert!(place.contains(&format!("paths.csv:{line}")) || line == 0, "{place}");
    };
    let head = "path,time,x,reward,terminal\n";
    check("", "there is no row", 0);
    check(head, "there is no row", 0);
    check("path,time,x\na,0,1\n", "no column `reward`", 1);
    check("path,time,reward\na,0,1\n", "no column for the state", 1);
    check("path,time,x,x,reward\na,0,1,1,1\n", "`x` stands twice", 1);
    check("path,time,remaining,reward\na,0,1,1\n", "`remaining` is made of", 1);
    check(&format!("{head}a,0,1,0,\na,1,2,0\n"), "4 cells", 3);
    check(&format!("{head}a,0,1,0,\na,1,NaN,0,1\n"), "`x` is no number", 3);
    check(&format!("{head}a,0,1,,\na,1,1,0,1\n"), "`reward` is no number", 2);
    check(&format!("{head}a,0,1,0,\na,1,2,0,\n"), "`terminal` is no number", 3);
    check(&format!("{head}a,0,1,0,3\na,1,2,0,1\n"), "goes on after", 2);
    check(&format!("{head}a,0,1,0,\na,0,2,0,1\n"), "does not rise", 3);
    check(&format!("{head}a,0,1,0,1\n"), "one row alone", 2);
    check(&format!("{head}a,0,1,0,\na,1,1,,1\nb,0,1,0,\nb,1,1,,1\na,2,1,0,\n"), "two places", 6);
    let unknown = Observed::read(&path, &["y*x".into()], 1, &[]).unwrap_err();
    assert_eq!(unknown.place_text(), Some("method.features"));
    assert!(Observed::read(&folder.path().join("none.csv"), &[], 1, &[]).is_err());
}

#[test]
fn paths_that_determine_nothing_are_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paths.csv");
    fs::write(&path, "path,time,x,reward,terminal\na,0,0,0,\na,1,0,0,0\n").unwrap();
    let settings = MartingaleTd { file: Some(path), features: vec!["x".into()], ..MartingaleTd::default() };
    let problem = run(&settings, 0).finish(&folder.path().join("final")).unwrap_err();
    assert!(problem.hint_text().unwrap().contains("ridge"));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let check = |settings: MartingaleTd, key: &str| {
        let problem = settings.check().unwrap_err();
        assert_eq!(problem.place_text(), Some(format!("method.{key}").as_str()));
    };
    let square = MartingaleTd { criterion: Criterion::MeanSquare, ..MartingaleTd::default() };
    let loss = MartingaleTd { criterion: Criterion::MartingaleLoss, ..MartingaleTd::default() };
    check(MartingaleTd { solver: Solver::Online, ..loss.clone() }, "solver");
    check(MartingaleTd { solver: Solver::TwoTimescale, ..square.clone() }, "solver");
    check(MartingaleTd { lambda: 0.5, ..square }, "lambda");
    check(MartingaleTd { tests: vec!["x".into()], ..loss }, "tests");
    check(MartingaleTd { mesh: 2, solver: Solver::Offline, ..MartingaleTd::default() }, "mesh");
    check(MartingaleTd { dt: 5.0, ..MartingaleTd::default() }, "dt");
    let endless = MartingaleTd {
        diffusion: Diffusion::LinearQuadratic,
        discount_rate: Some(0.0),
        ..MartingaleTd::default()
    };
    check(endless, "discount_rate");
}

#[test]
fn a_killed_run_goes_on_as_if_it_had_not_been() {
    let folder = tempfile::tempdir().unwrap();
    let base = MartingaleTd { paths: 60, dt: 0.1, average: true, ..MartingaleTd::default() };
    let with = |solver| MartingaleTd { solver, batch: 7, lambda: 0.1, ..base.clone() };
    let observed = MartingaleTd {
        file: Some(file(folder.path(), true)),
        features: vec!["remaining".into(), "x*x".into()],
        passes: 2,
        ..with(Solver::Offline)
    };
    let all = [
        with(Solver::Exact),
        with(Solver::Offline),
        with(Solver::Online),
        with(Solver::TwoTimescale),
        MartingaleTd { mesh: 3, ..base.clone() },
        MartingaleTd { diffusion: Diffusion::ExploratoryQuadraticEnd, ..with(Solver::Online) },
        MartingaleTd { criterion: Criterion::MartingaleLoss, ..base.clone() },
        observed,
    ];
    for settings in all {
        let training = Training::default();
        let mut whole = settings.evaluation(training.seed).unwrap();
        let mut first = settings.process(&training).unwrap();
        // In the midst of a batch, and for the file of the second pass.
        let half = whole.total() * 5 / 9;
        while first.done() < half {
            whole.go_on().unwrap();
            first.go_on().unwrap();
        }
        first.save(folder.path()).unwrap();
        let mut second = settings.evaluation(training.seed).unwrap();
        second.load(folder.path()).unwrap();
        assert_eq!(second.done(), whole.done());
        while whole.done() < whole.total() {
            assert_eq!(whole.go_on().unwrap(), second.go_on().unwrap());
        }
        assert_eq!(whole.state, second.state);
        assert!(settings.plan(&training).unwrap().len() >= 5);
    }
}
