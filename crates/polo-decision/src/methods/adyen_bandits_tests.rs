use polo_run::{
    metrics::Metrics,
    seed::{Seeds, unit},
};

use super::{
    generations::{costs, explored as explored_among},
    *,
};
use crate::{
    explore::{best, tests::check as check_probabilities},
    linear::Matrix,
    train::load_state,
};

const SCHEMES: [Exploration; 8] = [
    Exploration::Squarecb,
    Exploration::Fastcb,
    Exploration::Softmax,
    Exploration::EpsilonGreedy,
    Exploration::Greedy,
    Exploration::Uniform,
    Exploration::Regcb,
    Exploration::Adacb,
];

fn explored(exploration: Exploration, gamma: f64, predicted: &[f64]) -> Vec<f64> {
    AdyenBandits { exploration, ..AdyenBandits::default() }
        .explorer(gamma)
        .probabilities(&costs(predicted), 1)
}

#[test]
fn squarecb_by_hand() {
    check_probabilities(&explored(Exploration::Squarecb, 0.0, &[0.2, 0.9, 0.4]), &[1.0 / 3.0; 3]);
    check_probabilities(&explored(Exploration::Squarecb, 1e300, &[0.2, 0.9, 0.4]), &[0.0, 1.0, 0.0]);
    check_probabilities(&explored(Exploration::Squarecb, 10.0, &[0.3, 0.8]), &[1.0 / 7.0, 6.0 / 7.0]);
}

#[test]
fn fastcb_by_hand() {
    check_probabilities(&explored(Exploration::Fastcb, 10.0, &[0.9, 0.4]), &[0.980_769_23, 0.019_230_77]);
    // Where the best hardly ever earns and gaps are small, it is SquareCB.
    let rare = [0.002, 0.0];
    let apart =
        explored(Exploration::Fastcb, 100.0, &rare)[1] - explored(Exploration::Squarecb, 100.0, &rare)[1];
    assert!(apart.abs() < 1e-3, "{apart}");
    // A best that never fails is cut to a loss of 1e-6.
    let sure = explored(Exploration::Fastcb, 1.0, &[1.0, 0.5]);
    assert!(sure[1] > 0.0 && sure[1] < 1e-5, "{sure:?}");
}

#[test]
fn every_scheme_gives_probabilities_with_the_best_at_even_chances_or_more() {
    let mut rng = Seeds::new(3).rng("predictions", 0);
    for exploration in SCHEMES {
        for count in 1..8 {
            let predicted: Vec<f64> = (0..count).map(|_| unit(&mut rng)).collect();
            let found = explored(exploration, 500.0, &predicted);
            let least = found[best(&costs(&predicted))] - 1.0 / f64::from(count);
            assert!(least >= -1e-12, "{exploration:?} {predicted:?} {found:?}");
            assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-12 && found.iter().all(|p| *p >= 0.0));
        }
    }
}

#[test]
fn equal_predictions_are_explored_evenly() {
    for exploration in SCHEMES {
        let expected = match exploration {
            Exploration::Greedy => [1.0, 0.0, 0.0, 0.0],
            Exploration::EpsilonGreedy => [0.9625, 0.0125, 0.0125, 0.0125],
            _ => [0.25; 4],
        };
        check_probabilities(&explored(exploration, 500.0, &[0.7; 4]), &expected);
    }
}

#[test]
fn elimination_by_hand() {
    // Scores 2, 1 and -1 at a context of 0, each give or take 0.5, 0.6 and 0.1.
    let oracle = |spreads: [f64; 3]| Oracle {
        features: Features::Lin,
        coefficients: vec![vec![2.0, 0.0], vec![1.0, 0.0], vec![-1.0, 0.0]],
        plausible: spreads
            .map(|spread| Matrix { size: 2, numbers: vec![spread * spread, 0.0, 0.0, 0.0] })
            .to_vec(),
        trees: None,
    };
    let alive = oracle([0.5, 0.6, 0.1]).survivors(&[0.0], &[0, 1, 2]);
    assert_eq!(alive, [true, true, false]);
    assert_eq!(oracle([0.5, 0.4, 0.1]).survivors(&[0.0], &[0, 1, 2]), [true, false, false]);
    assert_eq!(oracle([0.5, 0.6, 4.0]).survivors(&[0.0], &[0, 1, 2]), [true; 3]);
    // Among admitted actions alone.
    assert_eq!(oracle([0.5, 0.6, 0.1]).survivors(&[0.0], &[2]), [true]);
    let predicted = oracle([0.5, 0.6, 0.1]).predict(&[0.0], &[0, 1, 2]);
    let of = |exploration, gamma: f64| {
        let explorer = AdyenBandits { exploration, ..AdyenBandits::default() }.explorer(gamma);
        explored_among(explorer.as_ref(), &predicted, &alive)
    };
    check_probabilities(&of(Exploration::Regcb, 10.0), &[0.5, 0.5, 0.0]);
    // sigmoid(2) - sigmoid(1) = 0.149738; 1 / (2 + 10 * 0.149738).
    check_probabilities(&of(Exploration::Adacb, 10.0), &[0.714_071_7, 0.285_928_3, 0.0]);
    check_probabilities(&of(Exploration::Adacb, 0.0), &[0.5, 0.5, 0.0]);
}

#[test]
fn what_is_plausible_follows_from_the_curvature() {
    let settings = AdyenBandits { exploration: Exploration::Regcb, ..AdyenBandits::default() };
    let logged = batch(&[(1.0, 0, 1.0, 0.5), (-1.0, 0, 0.0, 0.5), (0.5, 0, 1.0, 0.5)]);
    let oracle = settings.fitting().fit(std::slice::from_ref(&logged), 2, None, 0).unwrap();
    let excess = 2.0 * 0.1 * 6_f64.ln();
    // Nothing is known of action 1 but the penalty, 1.
    let expected = Matrix::identity(2, excess);
    assert!(oracle.plausible[1].numbers.iter().zip(&expected.numbers).all(|(a, b)| (a - b).abs() < 1e-12));
    // Of action 0, H = I + sum f (1 - f) x x^T.
    let mut curvature = Matrix::identity(2, 1.0);
    for x in &logged.requests.contexts {
        let f = oracle.predict(&[*x], &[0])[0];
        curvature.add_outer(&[1.0, *x], f * (1.0 - f));
    }
    let product = oracle.plausible[0].times(&curvature.times(&[1.0, 2.0]));
    assert!((product[0] - excess).abs() < 1e-9 && (product[1] - 2.0 * excess).abs() < 1e-9, "{product:?}");
    // The excess loss at the edge of what is plausible is beta, but for the loss not being quite quadratic.
    let loss = |theta: &[f64]| -> f64 {
        let rows = logged.requests.contexts.iter().zip(&logged.rewards);
        let entropy: f64 = rows
            .map(|(x, r)| {
                let score = theta[0] + theta[1] * x;
                score.exp().ln_1p() - r * score
            })
            .sum();
        entropy + 0.5 * ((theta[0] - 2_f64.ln()).powi(2) + theta[1].powi(2))
    };
    let centre = &oracle.coefficients[0];
    let along = oracle.plausible[0].times(&[1.0, 1.0]);
    let width = oracle.plausible[0].quadratic(&[1.0, 1.0]).sqrt();
    let edge: Vec<f64> = centre.iter().zip(&along).map(|(c, a)| c + a / width).collect();
    let found = loss(&edge) - loss(centre);
    assert!((found / (0.5 * excess) - 1.0).abs() < 0.1, "{found} {excess}");
    // Equal predictions are explored evenly, however sure each is.
    let even = Oracle { coefficients: vec![vec![0.3, 0.1]; 2], ..oracle };
    assert_eq!(even.survivors(&[0.7], &[0, 1]), [true, true]);
    // Nothing is eliminated unless asked for.
    let other = AdyenBandits::default().fitting().fit(&[logged], 2, None, 0).unwrap();
    assert!(other.plausible.is_empty());
    assert_eq!(other.survivors(&[9.0], &[0, 1]), [true, true]);
}

#[test]
fn trees_learn_what_no_line_can_and_leave_rare_actions_at_what_is_known_of_all() {
    // Action 0 earns where |x| > 1, action 1 where it is not; action 2 was played once and failed.
    let mut rows: Vec<(f64, usize, f64, f64)> = (0..600)
        .map(|at| {
            let (x, action) = (f64::from(at % 41) / 10.0 - 2.0, at as usize % 2);
            (x, action, f64::from(u8::from((x.abs() > 1.0) == (action == 0))), 0.5)
        })
        .collect();
    rows.push((0.0, 2, 0.0, 0.5));
    let settings = AdyenBandits { oracle: Learner::Trees, ..AdyenBandits::default() };
    let logged = batch(&rows);
    let oracle = settings.fitting().fit(std::slice::from_ref(&logged), 3, None, 0).unwrap();
    for (x, first) in [(-1.9, true), (0.0, false), (1.9, true)] {
        let predicted = oracle.predict(&[x], &[0, 1]);
        assert_eq!(predicted[0] > 0.8, first, "{x} {predicted:?}");
        assert_eq!(predicted[1] < 0.2, first, "{x} {predicted:?}");
    }
    let rare = oracle.predict(&[1.9], &[2])[0];
    assert!(rare > 0.05 && rare < 0.95, "{rare}");
    let line = AdyenBandits::default().fitting().fit(&[logged], 3, None, 0).unwrap().predict(&[1.9], &[0]);
    assert!(line[0] < 0.8, "{line:?}");
    let clash = AdyenBandits { exploration: Exploration::Adacb, ..settings.clone() };
    assert!(clash.check().is_err());
    assert!(AdyenBandits { warm_start: 0.5, ..settings }.check().is_err());
}

#[test]
fn trees_resume_where_they_stopped() {
    let trees = TreesSettings { trees: 20, ..TreesSettings::default() };
    let settings = AdyenBandits { oracle: Learner::Trees, trees, generations: 3, ..small() };
    let whole = played_out(&settings, 4);
    let folder = tempfile::tempdir().unwrap();
    let mut first = settings.generations(4).unwrap();
    first.advance().unwrap();
    first.save(folder.path()).unwrap();
    let mut second = settings.generations(4).unwrap();
    second.load(folder.path()).unwrap();
    assert_eq!(second.state, first.state);
    (0..2).for_each(|_| drop(second.go_on().unwrap()));
    assert_eq!(second.state, whole.state);
    assert!(settings.plan(&Training::default()).unwrap().iter().any(|(name, _)| name == "trees"));
}

fn small() -> AdyenBandits {
    AdyenBandits { batch: 400, generations: 5, fresh: 500, ..AdyenBandits::default() }
}

fn played_out(settings: &AdyenBandits, seed: u64) -> Generations {
    let mut generations = settings.generations(seed).unwrap();
    while generations.done() < generations.total() {
        generations.advance().unwrap();
    }
    generations
}

#[test]
fn only_admitted_actions_are_played_at_logged_probabilities() {
    for exploration in SCHEMES {
        let settings = AdyenBandits { exploration, availability: 0.2, holdout: 0.1, ..small() };
        let generations = played_out(&settings, 1);
        let batch = &generations.state.batches[0];
        assert_eq!((generations.state.batches.len(), batch.generation), (1, 5));
        let rows = batch.requests.iter().zip(&batch.actions).zip(&batch.propensities);
        for (((_, admitted), action), p) in rows {
            assert!(admitted.contains(action));
            // The holdout's share is left to every action.
            let floor = 0.1 / admitted.len() as f64;
            assert!(*p >= floor - 1e-12 && *p <= 1.0 + 1e-12, "{p} {floor}");
        }
    }
}

#[test]
fn requests_admit_one_action_at_least_and_the_others_as_often_as_told() {
    let payments = Payments::draw(2, 5, 0.7, &Seeds::new(1));
    let requests = payments.requests(4000, &Seeds::new(1), "x", 0);
    let admitted: usize = requests.admitted.iter().map(Vec::len).sum();
    assert!((admitted as f64 / 20_000.0 - 0.7).abs() < 0.015);
    let none = Payments::draw(2, 5, 0.0, &Seeds::new(1));
    assert!(none.requests(100, &Seeds::new(1), "x", 0).admitted.iter().all(|a| a.len() == 1));
}

/// A batch of one number of context, all actions admitted.
fn batch(rows: &[(f64, usize, f64, f64)]) -> Batch {
    let requests = Requests {
        width: 1,
        contexts: rows.iter().map(|row| row.0).collect(),
        admitted: vec![vec![0, 1]; rows.len()],
    };
    Batch {
        requests,
        generation: 0,
        actions: rows.iter().map(|row| row.1).collect(),
        rewards: rows.iter().map(|row| row.2).collect(),
        propensities: rows.iter().map(|row| row.3).collect(),
    }
}

#[test]
fn an_oracle_is_pulled_to_the_positive_rate() {
    let logged = batch(&[(1.0, 0, 1.0, 0.5), (-1.0, 0, 0.0, 0.5), (0.5, 0, 1.0, 0.5), (2.0, 0, 1.0, 0.25)]);
    let fitting = AdyenBandits::default().fitting();
    let oracle = fitting.fit(std::slice::from_ref(&logged), 2, None, 0).unwrap();
    let logit = 3_f64.ln();
    assert_eq!(oracle.coefficients[1], [logit, 0.0], "without rows");
    // The penalised gradient is zero.
    let theta = &oracle.coefficients[0];
    let mut slope = [theta[0] - logit, theta[1]];
    for (x, r) in logged.requests.contexts.iter().zip(&logged.rewards) {
        let miss = oracle.predict(&[*x], &[0])[0] - r;
        slope[0] += miss;
        slope[1] += miss * x;
    }
    assert!(slope.iter().all(|s| s.abs() < 1e-6), "{slope:?}");
    // A rate of 1 is cut.
    let all = fitting.fit(&[batch(&[(0.0, 0, 1.0, 0.5)])], 2, None, 0).unwrap();
    assert!((all.coefficients[1][0] - 99_f64.ln()).abs() < 1e-12);
    // Weights 1, 1, 1, 2.
    let weighted = Fitting { importance_clip: Some(10.0), ..fitting.clone() };
    let weighted = weighted.fit(std::slice::from_ref(&logged), 2, None, 0).unwrap();
    assert!((weighted.coefficients[1][0] - 4_f64.ln()).abs() < 1e-12);
    let clipped = Fitting { importance_clip: Some(1.0), ..fitting.clone() };
    assert_eq!(clipped.fit(std::slice::from_ref(&logged), 2, None, 0).unwrap(), oracle);
    // Classes of the same weight, and a centre half way to the previous oracle.
    let balanced = Fitting { balance_classes: true, warm_start: 0.5, ..fitting };
    let balanced = balanced.fit(&[logged], 2, Some(&oracle), 0).unwrap();
    assert_eq!(balanced.coefficients[1], [0.5 * logit, 0.0]);
}

#[test]
fn full_features_have_every_product_once() {
    assert_eq!(Features::Lin.of(&[2.0, 3.0]), [1.0, 2.0, 3.0]);
    assert_eq!(Features::Full.of(&[2.0, 3.0]), [1.0, 2.0, 3.0, 4.0, 6.0, 9.0]);
    assert_eq!([Features::Lin.size(2), Features::Full.size(2)], [3, 6]);
    let names: Vec<String> = (0..120).map(|at| format!("x{at}")).collect();
    let row = |generation: u8| format!("{generation},0,1,0.5{}", ",1".repeat(120));
    let text = format!("generation,action,reward,propensity,{}\n{}\n{}\n", names.join(","), row(0), row(1));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.csv");
    polo_run::folder::write_atomic(&path, text.as_bytes()).unwrap();
    let of = |features| AdyenBandits { log: Some(path.clone()), features, ..AdyenBandits::default() };
    assert!(of(Features::Lin).generations(0).is_ok() && of(Features::Full).generations(0).is_err());
}

#[test]
fn indices_of_oscillation_by_hand() {
    assert_eq!(oscillation(&[0.1, 0.2]), None);
    assert!((oscillation(&[0.8, 0.7, 0.8, 0.7]).unwrap() - 0.1).abs() < 1e-12);
    assert!(oscillation(&[0.1, 0.2, 0.3]).unwrap() < 1e-12);
    assert_eq!(autocorrelation(&[0.1, 0.2, 0.3]), None);
    // Steps 1, -1, 1, -1.
    assert!((autocorrelation(&[0.0, 1.0, 0.0, 1.0, 0.0]).unwrap() + 0.75).abs() < 1e-12);
    let values: Vec<f64> = Seeds::new(1).normal(20_000, "values", 0).into_iter().map(f64::from).collect();
    assert!((autocorrelation(&values).unwrap() + 0.5).abs() < 0.02, "independent values");
}

#[test]
fn calibration_by_hand() {
    let mut calibration = Calibration::default();
    assert!(calibration.errors().is_none());
    [(0.81, 1.0), (0.89, 0.0), (0.2, 0.0), (1.0, 1.0)].iter().for_each(|(p, r)| calibration.add(*p, *r));
    let (error, log_loss) = calibration.errors().unwrap();
    assert!((error - (0.7 + 0.2) / 4.0).abs() < 1e-12, "{error}");
    let expected = -(0.81_f64.ln() + 0.11_f64.ln() + 0.8_f64.ln()) / 4.0;
    assert!((log_loss - expected).abs() < 1e-9);
    assert!((entropy(&[0.5, 0.5, 0.0]) - 2_f64.ln()).abs() < 1e-12);
}

#[test]
fn no_oracle_learns_rewards_that_have_not_come() {
    let settings = AdyenBandits { delay: 2, window: 0, ..small() };
    let mut generations = settings.generations(1).unwrap();
    let rows: Vec<Option<f64>> = (0..5).map(|_| generations.advance().unwrap().get("window/rows")).collect();
    assert_eq!(rows, [None, None, Some(400.0), Some(800.0), Some(1200.0)]);
    assert_eq!((generations.values().len(), generations.rewards().len()), (3, 5));
    // Until then play is uniform: the first oracle is the same whatever explores.
    let uniform = played_out(&AdyenBandits { exploration: Exploration::Uniform, ..settings }, 1);
    assert_eq!(uniform.values()[0], generations.values()[0]);
    assert!(AdyenBandits { delay: 5, ..small() }.check().is_err());
}

#[test]
fn gamma_follows_rows_and_generations() {
    let of = |scale, exponent, growth, generation| {
        let settings = AdyenBandits {
            gamma_scale: scale,
            gamma_exponent: exponent,
            gamma_growth: growth,
            ..AdyenBandits::default()
        };
        settings.gamma(generation, 900)
    };
    assert_eq!([of(500.0, 0.0, 1.0, 8), of(10.0, 0.5, 1.0, 1), of(10.0, 0.0, 2.0, 4)], [500.0, 300.0, 80.0]);
}

#[test]
fn a_run_resumes_where_it_stopped_and_leaves_its_result() {
    let settings = AdyenBandits { window: 2, delay: 1, warm_start: 0.5, drift: 0.2, ..small() };
    let whole = played_out(&settings, 4);
    let folder = tempfile::tempdir().unwrap();
    let mut first = settings.generations(4).unwrap();
    (0..3).for_each(|_| drop(first.advance().unwrap()));
    first.save(folder.path()).unwrap();
    let mut second = settings.generations(4).unwrap();
    second.load(folder.path()).unwrap();
    assert_eq!(second.state, first.state);
    assert_eq!(second.simulation(), first.simulation());
    while second.done() < second.total() {
        second.go_on().unwrap();
    }
    assert_eq!(second.state, whole.state);
    assert!(second.evaluate().unwrap().is_some());
    let left = folder.path().join("left");
    second.finish(&left).unwrap();
    let report: serde_json::Value = load_state(&left.join("report.json")).unwrap();
    assert_eq!(report["values"].as_array().map(Vec::len), Some(4));
    let policy: serde_json::Value = load_state(&left.join("policy.json")).unwrap();
    assert_eq!(policy["oracle"]["coefficients"].as_array().map(Vec::len), Some(8));
}

#[test]
fn every_diagnostic_of_the_card_is_reported() {
    let mut generations = small().generations(2).unwrap();
    let mut found = Metrics::new();
    for _ in 0..5 {
        found.merge(&generations.advance().unwrap());
    }
    found.merge(&generations.evaluate().unwrap().unwrap().0);
    for (name, _) in CARD.metrics {
        assert!(found.get(name).is_some_and(f64::is_finite), "{name}");
    }
    let known = |name: &str| CARD.metrics.iter().any(|(metric, _)| *metric == name);
    assert!(found.iter().all(|(name, _)| known(name)));
}

/// The card's finding, in small: short memory loses what the first, uniform batch taught; full memory does not.
#[test]
fn short_memory_loses_value_and_full_memory_does_not() {
    let settings = AdyenBandits { generations: 3, fresh: 1000, ..AdyenBandits::default() };
    let second = |settings: &AdyenBandits| -> f64 {
        (0..3)
            .map(|seed| played_out(settings, seed))
            .map(|run| run.values()[1] - run.values()[0])
            .sum::<f64>()
            / 3.0
    };
    let short = second(&settings);
    let full = second(&AdyenBandits { window: 0, ..settings });
    assert!(short < -0.03 && full > -0.01, "{short} {full}");
}

fn logged(rows: &[&str]) -> (tempfile::TempDir, AdyenBandits) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    let text = format!("generation,action,reward,propensity,admitted,x\n{}\n", rows.join("\n"));
    polo_run::folder::write_atomic(&path, text.as_bytes()).unwrap();
    (folder, AdyenBandits { log: Some(path), window: 0, ..AdyenBandits::default() })
}

#[test]
fn logged_generations_are_judged_on_the_next_batch() {
    let rows =
        ["1,2,0,0.5,2 0,1.5", "0,0,1,0.5,0 1,1", "0,1,0,0.5,0 1,1", "1,0,1,0.25,0 1 2,-1", "2,0,1,1,0,3"];
    let (_folder, settings) = logged(&rows);
    let mut generations = settings.generations(0).unwrap();
    assert_eq!((generations.total(), generations.actions()), (2, 3));
    assert_eq!(generations.requests(1).admitted, [vec![0, 2], vec![0, 1, 2]]);
    let first = generations.advance().unwrap();
    // Action 0 earned: at x > 0 it is better than 2, of which nothing is known.
    let oracle = generations.state.oracle.clone().unwrap();
    let (one, two) = (oracle.predict(&[1.5], &[0, 2]), oracle.predict(&[-1.0], &[0, 1, 2]));
    assert!(one[0] > one[1], "{one:?}");
    let greedy = best(&costs(&two));
    let taken = f64::from(u8::from(greedy == 0));
    assert_eq!(first.get("off_policy/ips"), Some(2.0 * taken));
    let robust = (one[0] + two[greedy] + 4.0 * taken * (1.0 - two[0])) / 2.0;
    assert!((first.get("value/greedy").unwrap() - robust).abs() < 1e-12);
    assert_eq!((first.get("online/reward"), first.get("value/optimal")), (Some(0.5), None));
    let folder = tempfile::tempdir().unwrap();
    generations.save(folder.path()).unwrap();
    let mut second = settings.generations(0).unwrap();
    second.load(folder.path()).unwrap();
    assert_eq!(second.state, generations.state);
    assert_eq!(second.advance().unwrap().get("window/rows"), Some(4.0));
    assert!(!settings.plan(&Training::default()).unwrap().is_empty());
}

#[test]
fn bad_logs_are_refused() {
    #[track_caller]
    fn check(rows: &[&str], expected: &str) {
        let (_folder, settings) = logged(rows);
        let text = settings.generations(0).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let good = "0,0,1,0.5,0 1,1";
    check(&[good], "one generation alone");
    check(&[good, "2,0,1,0.5,0 1,1"], "there is generation 2, but none 1");
    check(&[good, "1,3,1,0.5,0 1,1"], "is not admitted");
    check(&[good, "1,0,1,0.5,0 0,1"], "twice");
    check(&[good, "1,0,1,0.5,0 b,1"], "`b`");
    check(&[good, "1,0,2,0.5,0 1,1"], "`reward`");
    check(&[good, "1,0,1,0,0 1,1"], "`propensity`");
    check(&[good, "1,0,1,0.5,0 1,NaN"], "`x`");
    check(&[good, "1,99999,1,0.5,0 1,1"], "more than");
    let (_folder, settings) = logged(&[good, "1,0,1,0.5,0 1,1"]);
    assert!(AdyenBandits { delay: 1, ..settings }.generations(0).is_err());
}

/// Under drift the world stays as it is spread, and what full memory remembers of it is out of date.
#[test]
fn a_drifting_world_outdates_what_is_remembered() {
    let settings = AdyenBandits { drift: 0.5, generations: 6, fresh: 1000, ..AdyenBandits::default() };
    let uniform = AdyenBandits { exploration: Exploration::Uniform, ..settings };
    let lost = |window| {
        let runs = (0..3).map(|seed| played_out(&AdyenBandits { window, ..uniform.clone() }, seed));
        runs.map(|run| run.simulation().unwrap().optimal - run.values()[5]).sum::<f64>() / 3.0
    };
    let (short, full) = (lost(1), lost(0));
    assert!(short + 0.03 < full, "{short} {full}");
    let still = played_out(&AdyenBandits { drift: 0.0, ..uniform.clone() }, 0);
    let moved = played_out(&uniform, 0);
    let of = |run: &Generations| run.simulation().unwrap().uniform;
    assert!(of(&still) != of(&moved) && (of(&still) - of(&moved)).abs() < 0.15);
    let all_new = played_out(&AdyenBandits { drift: 1.0, ..uniform }, 0);
    assert_ne!(all_new.simulation(), moved.simulation());
}
