//! Off-policy estimates on the Open Bandit Dataset, to be held against published ones:
//!
//! ```sh
//! cargo run -p polo-decision --example obd_table -- FOLDER
//! ```
//!
//! FOLDER holds `random/men/men.csv.gz` and `bts/men/men.csv.gz` of the dataset's small version.

use std::path::Path;

use polo_decision::{
    estimators::{Estimator, effective_sample_size},
    evaluation::{Plan, evaluate},
    intervals::LowerBound,
    logged::{Log, Policy},
    obd,
    reward_model::{Fitting, RewardModel, RowWeights},
};
use polo_run::{Problem, Result, seed::Seeds, stats::sample_std};

const INFINITE: f64 = f64::INFINITY;
const CONSTANT: RewardModel = RewardModel::Constant;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1);
    let folder = folder.ok_or_else(|| Problem::usage("the folder of the dataset is missing"))?;
    let read = |name: &str| obd::read(&Path::new(&folder).join(name).join("men/men.csv.gz"));
    let (random, bts) = (read("random")?, read("bts")?);

    let policy = Policy::by_position(&random, 34, &obd::empirical_policy(&bts, 34));
    println!("log: random, policy: shares of bts by position");
    let shown = Shown::new(&random, &policy)?;
    for estimator in [
        Estimator::Ips(INFINITE),
        Estimator::Ips(5.0),
        Estimator::Snips,
        Estimator::Dm,
        Estimator::Dr(INFINITE),
        Estimator::Sndr,
        Estimator::SwitchDr(5.0),
        Estimator::DrOs(5.0),
        Estimator::SubGaussianIps(0.1),
    ] {
        shown.line(estimator);
    }
    let smoothed = RewardModel::PerAction { rewards: 1.0, rows: 100.0 };
    let predictions = in_sample(smoothed).predictions(&random, &policy, &[], &Seeds::new(0))?;
    let evaluated = policy.rows(&random, Some(&predictions));
    for estimator in [Estimator::Dm, Estimator::Dr(INFINITE)] {
        let name = format!("{estimator}, means of items");
        println!("  {name:24} {:.10}", estimator.value(&evaluated.with(&random)));
    }
    let rows = shown.evaluated.with(&random);
    let weights = rows.weights();
    println!(
        "  weights: mean {:.7}, largest {:.7}, effective rows {:.3}",
        weights.iter().sum::<f64>() / weights.len() as f64,
        weights.iter().copied().fold(0.0, f64::max),
        effective_sample_size(&weights),
    );
    let terms = Estimator::Ips(INFINITE).terms(&rows);
    for position in 0..3 {
        let here: Vec<f64> = terms
            .iter()
            .zip(&random.positions)
            .filter(|pair| *pair.1 == position)
            .map(|pair| *pair.0)
            .collect();
        println!("  IPS, position {} {:17.10}", position + 1, here.iter().sum::<f64>() / here.len() as f64);
    }

    println!("log: random, policy: shares of bts over all positions");
    let anywhere = Log { positions: vec![0; bts.len()], ..bts.clone() };
    let shares = obd::empirical_policy(&anywhere, 34).repeat(3);
    let shown = Shown::new(&random, &Policy::by_position(&random, 34, &shares))?;
    for estimator in [Estimator::Ips(INFINITE), Estimator::Snips, Estimator::Dr(INFINITE)] {
        shown.line(estimator);
    }

    println!("log: bts, policy: uniform");
    let shown = Shown::new(&bts, &Policy::uniform(&bts))?;
    for estimator in [Estimator::Ips(INFINITE), Estimator::Snips, Estimator::Dr(INFINITE)] {
        shown.line(estimator);
    }

    println!("\nlog: random, policy: shares of bts by position, λ chosen by SLOPE++, cross-fitted model");
    let plan = Plan::new(&random);
    print!("{}", evaluate(&random, &policy, &[], &plan, &Seeds::new(0))?);
    let bounds = [LowerBound::Hoeffding, LowerBound::Bernstein, LowerBound::Student];
    for bound in bounds {
        println!("{bound:?} lower bound of IPS: {:.5}", bound.of(&terms, None, 0.05));
    }
    Ok(())
}

fn in_sample(model: RewardModel) -> Fitting {
    Fitting { model, row_weights: RowWeights::Equal, folds: 1 }
}

/// A policy on a log with the constant model.
struct Shown<'a> {
    log: &'a Log,
    evaluated: polo_decision::logged::Evaluated,
}

impl<'a> Shown<'a> {
    fn new(log: &'a Log, policy: &Policy) -> Result<Self> {
        let predictions = in_sample(CONSTANT).predictions(log, policy, &[], &Seeds::new(0))?;
        Ok(Self { log, evaluated: policy.rows(log, Some(&predictions)) })
    }

    fn line(&self, estimator: Estimator) {
        let terms = estimator.terms(&self.evaluated.with(self.log));
        let (n, mean) = (terms.len() as f64, estimator.value(&self.evaluated.with(self.log)));
        let error = sample_std(&terms).unwrap_or(f64::NAN) / n.sqrt();
        println!("  {:24} {mean:.10} (standard error {error:.7})", estimator.to_string());
    }
}
