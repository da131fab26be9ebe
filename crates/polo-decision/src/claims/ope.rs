//! The claim of off-policy evaluation: mean squared errors of estimators on the synthetic bandit, against its
//! exact value, by number of rows.

use std::{path::Path, time::Instant};

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
    human,
    report::{LinePlot, Series},
    seed::Seeds,
    stats::{Estimate, mean, sample_std, t_interval},
};
use rayon::prelude::*;

use crate::{
    estimators::{Estimator, Rows},
    evaluation::lambdas,
    intervals::{Tuning, tune},
    reward_model::{Fitting, RewardModel, RowWeights},
    synthetic::Synthetic,
};

const ACTIONS: usize = 10;
const WIDTH: usize = 5;
/// β of the evaluated policy softmax(β q).
const TARGET: f64 = 8.0;
/// β of the logging policies: one that prefers what is bad, one that prefers what is good.
const LOGGING: [f64; 2] = [-3.0, 1.0];
const SIZES: [usize; 3] = [200, 1000, 5000];
/// Independent logs for each bandit, logging policy and size.
const REPLICATIONS: (u64, u64) = (100, 12);
const DELTA: f64 = 0.05;
/// log₂ 3 and log₂ 0.8, to three digits.
const THREEFOLD: f64 = 1.585;
const A_FIFTH_LESS: f64 = -0.322;

/// Contenders in the order of the table, and whether their model is the constant one.
const CONTENDERS: [(&str, Contender, bool); 13] = [
    ("IPS", Contender::Plain(Estimator::Ips(f64::INFINITY)), false),
    ("SNIPS", Contender::Plain(Estimator::Snips), false),
    ("DM, logistic model", Contender::Plain(Estimator::Dm), false),
    ("DM, constant model", Contender::Plain(Estimator::Dm), true),
    ("DR, logistic model", Contender::Plain(Estimator::Dr(f64::INFINITY)), false),
    ("DR, constant model", Contender::Plain(Estimator::Dr(f64::INFINITY)), true),
    ("SNDR, logistic model", Contender::Plain(Estimator::Sndr), false),
    ("SWITCH-DR, logistic model, λ 20", Contender::Plain(Estimator::SwitchDr(20.0)), false),
    ("DRos, logistic model, λ 1000", Contender::Plain(Estimator::DrOs(1000.0)), false),
    ("SWITCH-DR, logistic model, λ by SLOPE++", Contender::Tuned(SWITCHED, Tuning::Slope), false),
    ("DRos, logistic model, λ by SLOPE++", Contender::Tuned(SHRINKING, Tuning::Slope), false),
    (
        "SWITCH-DR, logistic model, λ by the error's bound",
        Contender::Tuned(SWITCHED, Tuning::ErrorBound),
        false,
    ),
    ("DRos, logistic model, λ by the error's bound", Contender::Tuned(SHRINKING, Tuning::ErrorBound), false),
];
const SWITCHED: Estimator = Estimator::SwitchDr(f64::INFINITY);
const SHRINKING: Estimator = Estimator::DrOs(f64::INFINITY);
const IPS: usize = 0;
const SNIPS: usize = 1;
const DM: usize = 2;
const DM_CONSTANT: usize = 3;
const DR: usize = 4;
const DR_CONSTANT: usize = 5;
const SWITCH: usize = 7;
const SHRUNK: usize = 8;

#[derive(Clone, Copy)]
enum Contender {
    Plain(Estimator),
    /// With λ chosen on the log.
    Tuned(Estimator, Tuning),
}

impl Contender {
    fn value(self, rows: &Rows) -> f64 {
        match self {
            Contender::Plain(estimator) => estimator.value(rows),
            Contender::Tuned(estimator, tuning) => {
                let lambdas = lambdas(estimator, &rows.weights());
                tune(estimator, &lambdas, tuning, rows, DELTA).value(rows)
            }
        }
    }
}

const REMARKS: &str = "Rows with a λ are no part of the claim but for the last two effects. SLOPE++ takes the smallest λ whose \
    interval still meets those of all larger ones: where intervals are as wide as the model's bias is large, that is far too \
    small. The bound of the squared error counts a bias that might be there, and so leaves weights nearly as they are.";

/// Errors of every contender, one per log, of one bandit, logging policy and size.
type Errors = [Vec<f64>; CONTENDERS.len()];
/// Those of one bandit, `[logging policies][sizes]`.
type OfBandit = Vec<Vec<Errors>>;

/// Re-tests the claim on as many bandits as there are seeds.
///
/// # Errors
/// Those of the reward models.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = Instant::now();
    let bandits = seeds;
    let replications = if quick { REPLICATIONS.1 } else { REPLICATIONS.0 };
    let mut found: Vec<OfBandit> = Vec::new();
    for seed in 0..bandits {
        let seeds = Seeds::new(seed);
        let bandit = Synthetic::new(ACTIONS, WIDTH, &seeds)?;
        let value = bandit.value(TARGET);
        say(&format!("bandit {seed}: the policy's exact value is {}", human::number(value)));
        let of_logging = |beta: f64| {
            let of_size = |&size: &usize| errors(&bandit, value, beta, size, replications, &seeds);
            SIZES.iter().map(of_size).collect::<Result<Vec<_>>>()
        };
        found.push(LOGGING.iter().map(|&beta| of_logging(beta)).collect::<Result<_>>()?);
    }
    let setup = format!(
        "{bandits} synthetic bandits of {ACTIONS} actions and contexts of {WIDTH} numbers, rewards 0 or 1 with chance \
         q = σ(linear); evaluated policy softmax({TARGET} q), logging policy softmax(β q) with β = {} or {}; \
         {replications} logs of each size for each bandit. Errors are against the exact value. Reward models (logistic, \
         without products of context and action and so wrong; the log's mean) are fitted crosswise on two halves. Nothing \
         was tuned on other bandits: every λ is given, or chosen on the log itself.",
        LOGGING[0], LOGGING[1]
    );
    Ok(ClaimResult {
        slug: "off-policy-evaluation".into(),
        claim: "IPS is unbiased, IPS, SNIPS and DR are consistent, SNIPS and DR err less than IPS where weights are large, and \
                limited weights vary less than DR's"
            .into(),
        setup,
        table: table(&found),
        effects: effects(&found),
        plots: plots(&found),
        remarks: REMARKS.into(),
        command: format!("polo reproduce off-policy-evaluation --seeds {bandits}"),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// Errors by rows, in powers of two, so that consistency shows as a slope.
fn plots(found: &[OfBandit]) -> Vec<LinePlot> {
    let rows: Vec<f64> = SIZES.iter().map(|size| (*size as f64).log2()).collect();
    let of = |beta: usize| {
        let series = |(colour, at): (usize, &usize)| {
            let curve = |bandit: &OfBandit| -> Vec<f64> {
                (0..SIZES.len()).map(|size| squared(&bandit[beta][size][*at]).log2()).collect()
            };
            let curves: Vec<Vec<f64>> = found.iter().map(curve).collect();
            Series::over_seeds(CONTENDERS[*at].0, &rows, &curves, colour)
        };
        let shown = [IPS, SNIPS, DM, DR, DR_CONSTANT, SWITCH, SHRUNK];
        LinePlot {
            title: format!("Errors under a logging policy of β {}", LOGGING[beta]),
            x_label: "log2 of rows".into(),
            y_label: "log2 of the mean squared error".into(),
            series: shown.iter().enumerate().map(series).collect(),
        }
    };
    (0..LOGGING.len()).map(of).collect()
}

fn errors(
    bandit: &Synthetic,
    value: f64,
    beta: f64,
    size: usize,
    replications: u64,
    seeds: &Seeds,
) -> Result<Errors> {
    let of_log = |number: u64| -> Result<[f64; CONTENDERS.len()]> {
        let seeds = seeds.child(&format!("β {beta}, {size} rows, log {number}"));
        let log = bandit.log(beta, size, &seeds);
        let policy = bandit.policy(TARGET, &log);
        let evaluated = |model: RewardModel| {
            let fitting = Fitting { model, row_weights: RowWeights::Equal, folds: 2 };
            let predictions = fitting.predictions(&log, &policy, &[], &seeds)?;
            Ok(policy.rows(&log, Some(&predictions)))
        };
        let logistic = evaluated(RewardModel::Logistic { penalty: 1.0 })?;
        let constant = evaluated(RewardModel::Constant)?;
        Ok(CONTENDERS.map(|(_, contender, plain)| {
            let evaluated = if plain { &constant } else { &logistic };
            contender.value(&evaluated.with(&log)) - value
        }))
    };
    let logs: Vec<[f64; CONTENDERS.len()]> =
        (0..replications).into_par_iter().map(of_log).collect::<Result<_>>()?;
    Ok(std::array::from_fn(|at| logs.iter().map(|log| log[at]).collect()))
}

fn squared(errors: &[f64]) -> f64 {
    errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64
}

fn table(found: &[OfBandit]) -> Table {
    let places = || (0..LOGGING.len()).flat_map(|beta| (0..SIZES.len()).map(move |size| (beta, size)));
    let title = |(beta, size): (usize, usize)| format!("β {}, {} rows", LOGGING[beta], SIZES[size]);
    let headers =
        std::iter::once("mean squared error × 10⁴".to_string()).chain(places().map(title)).collect();
    let rows = CONTENDERS.iter().enumerate().map(|(at, (name, ..))| {
        let cell = |(beta, size): (usize, usize)| {
            let each: Vec<f64> = found.iter().map(|bandit| squared(&bandit[beta][size][at])).collect();
            human::number(1e4 * mean(&each).unwrap_or(f64::NAN))
        };
        std::iter::once(name.to_string()).chain(places().map(cell)).collect()
    });
    Table { headers, rows: rows.collect() }
}

fn effects(found: &[OfBandit]) -> Vec<Effect> {
    let [few, many] = [1, 2];
    // log₂ of a ratio per bandit, so that twice and half are as far from one.
    let ratio = |of: &dyn Fn(&OfBandit) -> (f64, f64)| {
        let logs: Vec<f64> = found.iter().map(of).map(|(above, below)| (above / below).log2()).collect();
        t_interval(&logs, "bandits")
    };
    let mut effects = vec![Effect {
        name: "IPS: largest |bias| in standard errors, over logging policies and sizes".into(),
        estimate: Estimate::exact(largest_z(found)),
        expected: Expected::Below(4.0),
    }];
    for (beta, name) in LOGGING.iter().enumerate() {
        let mut add = |text: String, expected: Expected, of: &dyn Fn(&OfBandit) -> (f64, f64)| {
            let name = format!("β {name}: {text}, log₂");
            effects.push(Effect { name, estimate: ratio(of), expected });
        };
        for at in [IPS, SNIPS, DR, DR_CONSTANT] {
            let text = format!("{}, error at {} over {} rows", CONTENDERS[at].0, SIZES[few], SIZES[many]);
            add(text, Expected::Above(THREEFOLD), &|bandit| {
                (squared(&bandit[beta][few][at]), squared(&bandit[beta][many][at]))
            });
        }
        let against_ips = |at: usize| {
            move |bandit: &OfBandit| {
                let errors = &bandit[beta][many];
                (squared(&errors[at]), squared(&errors[IPS]))
            }
        };
        add(format!("SNIPS over IPS at {} rows", SIZES[many]), Expected::Below(0.0), &against_ips(SNIPS));
        let text = format!("{} over IPS at {} rows", CONTENDERS[DR].0, SIZES[many]);
        add(text, Expected::Below(A_FIFTH_LESS), &against_ips(DR));
        for at in [DM, DM_CONSTANT] {
            let text = format!("{}, error at {} over {} rows", CONTENDERS[at].0, SIZES[few], SIZES[many]);
            add(text, Expected::Between(-0.5, 0.5), &|bandit| {
                (squared(&bandit[beta][few][at]), squared(&bandit[beta][many][at]))
            });
        }
    }
    for at in [SWITCH, SHRUNK] {
        let spread = |bandit: &OfBandit, at: usize| sample_std(&bandit[0][0][at]).map_or(f64::NAN, |s| s * s);
        let few = SIZES[0];
        effects.push(Effect {
            name: format!("β {}: {}, variance over DR's at {few} rows, log₂", LOGGING[0], CONTENDERS[at].0),
            estimate: ratio(&|bandit| (spread(bandit, at), spread(bandit, DR))),
            expected: Expected::Below(0.0),
        });
    }
    effects
}

/// Of IPS's mean error over all bandits' logs, for each logging policy and size.
fn largest_z(found: &[OfBandit]) -> f64 {
    let mut largest = 0.0_f64;
    for beta in 0..LOGGING.len() {
        for size in 0..SIZES.len() {
            let all: Vec<f64> = found.iter().flat_map(|bandit| bandit[beta][size][IPS].clone()).collect();
            let error = sample_std(&all).unwrap_or(f64::NAN) / (all.len() as f64).sqrt();
            largest = largest.max((mean(&all).unwrap_or(f64::NAN) / error).abs());
        }
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wiring: as many cells as there are sizes, effects that can be decided, the same from the same seeds.
    #[test]
    fn errors_fall_with_rows() {
        let bandit = Synthetic::new(ACTIONS, WIDTH, &Seeds::new(0)).unwrap();
        let value = bandit.value(TARGET);
        let of = |size| errors(&bandit, value, 1.0, size, 12, &Seeds::new(0)).unwrap();
        let (few, many) = (of(200), of(1000));
        for at in [IPS, SNIPS, DR, DR_CONSTANT] {
            assert!(squared(&few[at]) > 1.5 * squared(&many[at]), "{}", CONTENDERS[at].0);
        }
        assert!(squared(&many[DM]) > 10.0 * squared(&many[DR]));
        assert_eq!(many, of(1000));
        let found = vec![vec![vec![few.clone(), few, many]; 2]; 5];
        assert_eq!(table(&found).rows.len(), CONTENDERS.len());
        assert_eq!(effects(&found).len(), 19);
        assert!(plots(&found).iter().all(|plot| plot.series.len() == 7));
    }
}
