use super::*;

const INFINITE: f64 = f64::INFINITY;

fn every() -> [Estimator; 9] {
    use Estimator::*;
    [
        Ips(INFINITE),
        Snips,
        Dm,
        Dr(INFINITE),
        Sndr,
        SwitchDr(2.0),
        DrOs(2.0),
        SubGaussianIps(0.1),
        SubGaussianDr(0.1),
    ]
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
}

/// Rows of weights w, with p = 1/w.
fn rows<'a>(rewards: &'a [f64], propensities: &'a [f64], model: (&'a [f64], &'a [f64])) -> Rows<'a> {
    const ONES: &[f64] = &[1.0; 8];
    Rows { rewards, propensities, target: &ONES[..rewards.len()], model_values: model.0, fitted: model.1 }
}

#[test]
fn three_rows() {
    fn check(estimator: Estimator, propensities: &[f64], expected: f64) {
        let rows = rows(&[1.0, 0.0, 1.0], propensities, (&[], &[]));
        near(estimator.value(&rows), expected);
    }
    check(Estimator::Ips(INFINITE), &[0.5, 2.0, 2.0], 2.5 / 3.0);
    check(Estimator::Snips, &[0.5, 2.0, 2.0], 2.5 / 3.0);
    check(Estimator::Ips(INFINITE), &[0.5, 1.0, 1.0], 1.0);
    check(Estimator::Snips, &[0.5, 1.0, 1.0], 0.75);
    check(Estimator::Ips(1.5), &[0.5, 1.0, 1.0], 2.5 / 3.0);
    check(Estimator::SubGaussianIps(0.5), &[0.5, 1.0, 1.0], (2.0 / 1.5 + 1.0) / 3.0);
    check(Estimator::SubGaussianIps(1.0), &[0.5, 1.0, 1.0], 2.0 / 3.0);
}

#[test]
fn limits_of_lambda() {
    let (rewards, p) = ([1.0, 0.0, 0.5], [0.5, 0.25, 0.8]);
    let rows_of = |value: f64, fitted: f64| ([value; 3], [fitted; 3]);
    let same = |a: Estimator, b: Estimator, model: ([f64; 3], [f64; 3])| {
        let rows = rows(&rewards, &p, (&model.0, &model.1));
        assert_eq!(a.terms(&rows), b.terms(&rows), "{a} is not {b}");
    };
    // Without a model DR is IPS.
    same(Estimator::Dr(INFINITE), Estimator::Ips(INFINITE), rows_of(0.0, 0.0));
    same(Estimator::Dr(1.5), Estimator::Ips(1.5), rows_of(0.0, 0.0));
    same(Estimator::SubGaussianDr(0.3), Estimator::SubGaussianIps(0.3), rows_of(0.0, 0.0));
    same(Estimator::Sndr, Estimator::Snips, rows_of(0.0, 0.0));
    let model = rows_of(0.4, 0.3);
    same(Estimator::SwitchDr(INFINITE), Estimator::Dr(INFINITE), model);
    same(Estimator::DrOs(INFINITE), Estimator::Dr(INFINITE), model);
    same(Estimator::SubGaussianDr(0.0), Estimator::Dr(INFINITE), model);
    for least in [Estimator::SwitchDr(0.0), Estimator::DrOs(0.0), Estimator::Dr(0.0)] {
        same(least, Estimator::Dm, model);
    }
}

#[test]
fn rows_that_the_policy_never_takes_have_no_weight() {
    let (rewards, p, zeros, value) = ([1.0, 1.0], [0.5, 0.5], [0.0, 0.0], [0.3, 0.5]);
    let rows =
        Rows { rewards: &rewards, propensities: &p, target: &zeros, model_values: &value, fitted: &value };
    let extremes = [
        Estimator::DrOs(0.0),
        Estimator::SubGaussianDr(1.0),
        Estimator::SubGaussianIps(1.0),
        Estimator::Replay,
    ];
    for estimator in every().into_iter().chain(extremes) {
        near(estimator.value(&rows), if estimator.needs_model() { 0.4 } else { 0.0 });
    }
    assert_eq!(effective_sample_size(&zeros), 0.0);
}

#[test]
fn replay_is_the_mean_where_a_deterministic_policy_agrees() {
    let (rewards, p, target) = ([1.0, 0.5, 7.0, 0.0], [0.5; 4], [1.0, 1.0, 0.0, 1.0]);
    let rows = Rows { rewards: &rewards, propensities: &p, target: &target, model_values: &[], fitted: &[] };
    near(Estimator::Replay.value(&rows), 0.5);
}

#[test]
fn mrdr_weight_of_the_card() {
    assert_eq!(mrdr_weights(&[0.5], &[0.25]), [6.0]);
}

#[test]
fn effective_rows() {
    near(effective_sample_size(&[1.0; 5]), 5.0);
    near(effective_sample_size(&[3.0, 0.0, 1.0]), 1.6);
}

/// Two contexts, three actions, rewards 0 and 1: small enough to go through every log that can be.
struct Tiny {
    logging: [[f64; 3]; 2],
    target: [[f64; 3]; 2],
    predictions: [[f64; 3]; 2],
}

const CONTEXTS: [f64; 2] = [0.4, 0.6];
const CHANCE: [[f64; 3]; 2] = [[0.2, 0.5, 0.9], [0.7, 0.1, 0.4]];
const TINY: Tiny = Tiny {
    logging: [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]],
    target: [[0.1, 0.2, 0.7], [0.8, 0.0, 0.2]],
    predictions: [[0.4, 0.3, 0.6], [0.9, 0.5, 0.2]],
};

/// Context, action and reward of each row.
type TinyLog = [(usize, usize, f64)];

impl Tiny {
    fn value(&self) -> f64 {
        let of = |x: usize| (0..3).map(|a| self.target[x][a] * CHANCE[x][a]).sum::<f64>();
        CONTEXTS[0] * of(0) + CONTEXTS[1] * of(1)
    }

    /// Mean and variance, over every log of n rows, of what `estimate` makes of its rows (context, action, reward).
    fn moments(&self, n: usize, estimate: &dyn Fn(&TinyLog) -> f64) -> (f64, f64) {
        let (mut mean, mut square) = (0.0, 0.0);
        for number in 0..12_usize.pow(n as u32) {
            let (mut rest, mut probability, mut log) = (number, 1.0, Vec::with_capacity(n));
            for _ in 0..n {
                let (x, a, r) = (rest % 2, rest / 2 % 3, (rest / 6 % 2) as f64);
                rest /= 12;
                let chance = if r == 1.0 { CHANCE[x][a] } else { 1.0 - CHANCE[x][a] };
                probability *= CONTEXTS[x] * self.logging[x][a] * chance;
                log.push((x, a, r));
            }
            let found = estimate(&log);
            mean += probability * found;
            square += probability * found * found;
        }
        (mean, square - mean * mean)
    }

    /// The same of an estimator; `model` gives predictions for row i of a log.
    fn of_estimator(
        &self,
        n: usize,
        estimator: Estimator,
        model: &dyn Fn(&TinyLog, usize) -> [[f64; 3]; 2],
    ) -> (f64, f64) {
        self.moments(n, &|log| {
            let of = |f: &dyn Fn(usize, usize, usize) -> f64| -> Vec<f64> {
                log.iter().enumerate().map(|(i, &(x, a, _))| f(i, x, a)).collect()
            };
            let rewards: Vec<f64> = log.iter().map(|row| row.2).collect();
            let predictions: Vec<[[f64; 3]; 2]> = (0..log.len()).map(|i| model(log, i)).collect();
            estimator.value(&Rows {
                rewards: &rewards,
                propensities: &of(&|_, x, a| self.logging[x][a]),
                target: &of(&|_, x, a| self.target[x][a]),
                model_values: &of(&|i, x, _| crate::linear::dot(&self.target[x], &predictions[i][x])),
                fitted: &of(&|i, x, a| predictions[i][x][a]),
            })
        })
    }

    fn fixed(&self, n: usize, estimator: Estimator) -> (f64, f64) {
        self.of_estimator(n, estimator, &|_, _| self.predictions)
    }
}

#[test]
fn over_every_log_ips_and_dr_alone_are_without_bias() {
    let value = TINY.value();
    for n in 1..=3 {
        for estimator in every() {
            let bias = (TINY.fixed(n, estimator).0 - value).abs();
            if matches!(estimator, Estimator::Ips(_) | Estimator::Dr(_)) {
                assert!(bias < 1e-12, "{estimator}, {n} rows: bias {bias}");
            } else {
                assert!(bias > 1e-3, "{estimator}, {n} rows: bias {bias}");
            }
        }
    }
    // Self-normalisation is consistent, clipping is not.
    let bias = |n, estimator: Estimator| (TINY.fixed(n, estimator).0 - value).abs();
    assert!(bias(4, Estimator::Snips) < 0.5 * bias(1, Estimator::Snips));
    near(bias(3, Estimator::Ips(2.0)), bias(1, Estimator::Ips(2.0)));
}

/// The model of a row may come from other rows, not from itself.
#[test]
fn over_every_log_cross_fitting_keeps_dr_without_bias() {
    let mean_of = |log: &TinyLog, kept: &dyn Fn(usize) -> bool| {
        let rewards: Vec<f64> = (0..log.len()).filter(|&i| kept(i)).map(|i| log[i].2).collect();
        [[mean(&rewards); 3]; 2]
    };
    let dr = Estimator::Dr(INFINITE);
    let crossed = TINY.of_estimator(3, dr, &|log, i| mean_of(log, &|j| j != i)).0;
    near(crossed, TINY.value());
    let own = TINY.of_estimator(3, dr, &|log, _| mean_of(log, &|_| true)).0;
    assert!((own - TINY.value()).abs() > 1e-2, "{own}");
}

#[test]
fn the_logging_policy_evaluates_itself() {
    let same = Tiny { target: TINY.logging, ..TINY };
    let log_mean = |log: &TinyLog| log.iter().map(|row| row.2).sum::<f64>() / log.len() as f64;
    let plain = same.moments(3, &log_mean);
    for estimator in [Estimator::Ips(INFINITE), Estimator::Snips] {
        let found = same.fixed(3, estimator);
        near(found.0, plain.0);
        near(found.1, plain.1);
    }
    near(same.fixed(3, Estimator::Dr(INFINITE)).0, plain.0);
}

#[test]
fn over_every_log_variances_have_their_order() {
    let exact = Tiny { predictions: CHANCE, ..TINY };
    let variance = |problem: &Tiny, estimator| problem.fixed(2, estimator).1;
    let ips = variance(&TINY, Estimator::Ips(INFINITE));
    let dr = variance(&TINY, Estimator::Dr(INFINITE));
    let best = variance(&exact, Estimator::Dr(INFINITE));
    assert!(best < dr && dr < ips, "{best} {dr} {ips}");
    assert!(variance(&TINY, Estimator::Snips) < ips);
    for lower in
        [Estimator::SwitchDr(3.0), Estimator::DrOs(3.0), Estimator::Dr(3.0), Estimator::SubGaussianDr(0.3)]
    {
        assert!(variance(&TINY, lower) < dr, "{lower}");
    }
    let clipped = [1.0, 2.0, 4.0, INFINITE].map(|most| variance(&TINY, Estimator::Ips(most)));
    assert!(clipped.is_sorted() && clipped[0] < clipped[3], "{clipped:?}");
    // Means of n rows: variance in proportion to 1/n.
    near(TINY.fixed(1, Estimator::Ips(INFINITE)).1, 2.0 * ips);
    near(TINY.fixed(3, Estimator::Dr(INFINITE)).1, 2.0 / 3.0 * dr);
    // Var of one row of DR with the true model: Var(V(x)) + E[w² Var(r)].
    let mut expected = -TINY.value().powi(2);
    for x in 0..2 {
        let value: f64 = (0..3).map(|a| TINY.target[x][a] * CHANCE[x][a]).sum();
        let noise =
            |a: usize| TINY.target[x][a].powi(2) / TINY.logging[x][a] * CHANCE[x][a] * (1.0 - CHANCE[x][a]);
        expected += CONTEXTS[x] * (value * value + (0..3).map(noise).sum::<f64>());
    }
    near(exact.fixed(1, Estimator::Dr(INFINITE)).1, expected);
}

/// For a deterministic policy no constant model has less variance than the weighted mean under MRDR's weights.
#[test]
fn mrdr_has_the_least_variance() {
    let target = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]];
    let variance = |c: f64| {
        let problem = Tiny { target, predictions: [[c; 3]; 2], ..TINY };
        problem.fixed(1, Estimator::Dr(INFINITE)).1
    };
    let (mut total, mut sum) = (0.0, 0.0);
    for x in 0..2 {
        for a in 0..3 {
            let weight = mrdr_weights(&[target[x][a]], &[TINY.logging[x][a]])[0];
            let share = CONTEXTS[x] * TINY.logging[x][a] * weight;
            total += share;
            sum += share * CHANCE[x][a];
        }
    }
    let fitted = sum / total;
    let least = variance(fitted);
    for other in [-0.1, -0.01, 0.01, 0.1] {
        assert!(variance(fitted + other) > least, "{other}");
    }
}
