//! The evaluation of a policy on a log as a table: what every estimator says, how sure it is, and how much of the log
//! stands behind it.

use std::fmt;

use polo_run::{
    Problem, Result, human,
    report::{BarChart, Report},
    seed::Seeds,
    stats::Estimate,
};
use serde::{Deserialize, Serialize};

use crate::{
    estimators::{Estimator, Rows, effective_sample_size, mean, with_lambda},
    intervals::{Tuning, bootstrap, tune},
    logged::{Log, Policy},
    reward_model::{Fitting, RewardModel, RowWeights},
};

/// What is to be computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The estimators, each a row of the table, with λ as it is given.
    pub estimators: Vec<Estimator>,
    /// More rows: estimators whose λ is chosen on the log.
    pub tuned: Vec<Estimator>,
    /// How it is chosen, among at most eight candidates.
    pub tuning: Tuning,
    /// One more row, where the log has enough of what the policy does: DR with the same model, fitted under MRDR's row
    /// weights.
    pub mrdr: bool,
    /// The reward model of all other rows that need one.
    pub fitting: Fitting,
    /// Bootstrap samples behind an interval.
    pub resamples: usize,
}

impl Plan {
    /// Every estimator that is made for policies of chance. The model is fitted crosswise on three parts: logistic where
    /// rewards lie in [0, 1], linear elsewhere.
    pub fn new(log: &Log) -> Self {
        let shares = log.rewards.iter().all(|reward| (0.0..=1.0).contains(reward));
        let model = match shares {
            true => RewardModel::Logistic { penalty: 1.0 },
            false => RewardModel::Ridge { penalty: 1.0 },
        };
        let infinite = f64::INFINITY;
        Self {
            estimators: vec![
                Estimator::Ips(infinite),
                Estimator::Snips,
                Estimator::Dm,
                Estimator::Dr(infinite),
                Estimator::Sndr,
            ],
            tuned: vec![
                Estimator::SwitchDr(infinite),
                Estimator::DrOs(infinite),
                Estimator::SubGaussianIps(0.0),
                Estimator::SubGaussianDr(0.0),
            ],
            tuning: Tuning::ErrorBound,
            mrdr: true,
            fitting: Fitting { model, row_weights: RowWeights::Equal, folds: log.len().min(3) },
            resamples: 1000,
        }
    }
}

/// Candidates of λ for an estimator: parts of its range [0, 1], or quantiles of the weights and ∞.
pub(crate) fn lambdas(estimator: Estimator, weights: &[f64]) -> Vec<f64> {
    if matches!(estimator, Estimator::SubGaussianIps(_) | Estimator::SubGaussianDr(_)) {
        return vec![0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
    }
    let mut sorted = weights.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[(share * (sorted.len() - 1) as f64) as usize];
    let mut lambdas: Vec<f64> = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999].map(at).to_vec();
    if matches!(estimator, Estimator::DrOs(_)) {
        // Shrinkage halves a weight where w² = λ.
        lambdas.iter_mut().for_each(|lambda| *lambda *= *lambda);
    }
    lambdas.push(f64::INFINITY);
    lambdas.dedup();
    lambdas
}

/// Probability with which bounds of the tuning may fail.
const DELTA: f64 = 0.05;

/// What an estimator says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The estimator.
    pub estimator: String,
    /// Its λ, given or chosen; none where it has none or it is ∞, which is as if there were none.
    pub lambda: Option<f64>,
    /// The estimate.
    pub value: f64,
    /// 95 % percentile bootstrap interval.
    pub interval: Option<(f64, f64)>,
    /// Its weights; none for the direct method.
    pub weights: Option<WeightSummary>,
}

impl Line {
    /// The estimator, with its λ.
    pub fn name(&self) -> String {
        with_lambda(&self.estimator, self.lambda)
    }
}

/// How the weights of an estimator are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightSummary {
    /// (Σ ŵ)² / Σ ŵ², in rows.
    pub effective_sample_size: f64,
    /// The largest.
    pub most: f64,
    /// The mean; near 1 for weights as they are, unless the log lacks what the policy does.
    pub mean: f64,
}

impl WeightSummary {
    fn of(weights: &[f64]) -> Self {
        Self {
            effective_sample_size: effective_sample_size(weights),
            most: weights.iter().copied().fold(0.0, f64::max),
            mean: mean(weights),
        }
    }
}

/// What the logging policy earned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Per row.
    pub value: f64,
    /// 95 % percentile bootstrap interval.
    pub interval: Option<(f64, f64)>,
}

/// An evaluation; its `Display` is the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Rows of the log.
    pub rows: usize,
    /// What the logging policy earned.
    pub logged: Logged,
    /// One per estimator.
    pub lines: Vec<Line>,
}

/// Evaluates `policy` on `log`. `action_features` are those of [`Fitting::predictions`].
///
/// # Errors
/// Those of the reward model; replay of a policy that is not deterministic; a log without rows.
pub fn evaluate(
    log: &Log,
    policy: &Policy,
    action_features: &[f64],
    plan: &Plan,
    seeds: &Seeds,
) -> Result<Evaluation> {
    if log.is_empty() {
        return Err(Problem::input("the log has no rows"));
    }
    let deterministic = || policy.probabilities.iter().all(|&p| p == 0.0 || p == 1.0);
    if plan.estimators.contains(&Estimator::Replay) && !deterministic() {
        return Err(Problem::usage("replay is for deterministic policies")
            .hint("every probability of the policy must be 0 or 1"));
    }
    let fit = |fitting: Fitting| fitting.predictions(log, policy, action_features, seeds);
    let asked = || plan.estimators.iter().chain(&plan.tuned);
    let predictions = match asked().any(|estimator| estimator.needs_model()) {
        true => Some(fit(plan.fitting)?),
        false => None,
    };
    let evaluated = policy.rows(log, predictions.as_deref());
    let mut found = of_rows(&evaluated.with(log), plan, seeds);
    // Its weights are those of a policy that may do little of what the log has: there may be nothing to fit to.
    if plan.mrdr
        && let Ok(predictions) = fit(Fitting { row_weights: RowWeights::Mrdr, ..plan.fitting })
    {
        let evaluated = policy.rows(log, Some(&predictions));
        let (estimator, rows) = (Estimator::Dr(f64::INFINITY), evaluated.with(log));
        found.lines.push(line(estimator, "MRDR", &rows, plan, seeds));
    }
    Ok(found)
}

/// Evaluates by rows that are known already, one at least: all of a plan but what asks for a fitted model.
pub fn of_rows(rows: &Rows, plan: &Plan, seeds: &Seeds) -> Evaluation {
    let weights = rows.weights();
    let best = |&estimator: &Estimator| match estimator.lambda() {
        Some(_) => tune(estimator, &lambdas(estimator, &weights), plan.tuning, rows, DELTA),
        None => estimator,
    };
    let estimators = plan.estimators.iter().copied().chain(plan.tuned.iter().map(best));
    let lines = estimators.map(|one| line(one, one.name(), rows, plan, seeds)).collect();
    let logged = bootstrap(rows.rewards, plan.resamples, seeds);
    Evaluation {
        rows: rows.rewards.len(),
        logged: Logged { value: logged.mean, interval: logged.interval },
        lines,
    }
}

fn line(estimator: Estimator, name: &str, rows: &Rows, plan: &Plan, seeds: &Seeds) -> Line {
    let estimate = bootstrap(&estimator.terms(rows), plan.resamples, seeds);
    let changed = match estimator {
        // Where the policy agrees, a row counts once.
        Estimator::Replay => Some(rows.target.to_vec()),
        _ => estimator.weighting().map(|weighting| weighting.apply(&rows.weights())),
    };
    Line {
        estimator: name.into(),
        lambda: estimator.lambda().filter(|lambda| lambda.is_finite()),
        value: estimate.mean,
        interval: estimate.interval,
        weights: changed.map(|weights| WeightSummary::of(&weights)),
    }
}

const HEADERS: [&str; 6] =
    ["estimator", "value", "95 % interval", "effective rows", "largest weight", "mean weight"];

fn shown(interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("[{}, {}]", human::number(low), human::number(high)),
        None => "none".to_string(),
    }
}

impl Evaluation {
    /// A page with the table, and all estimates beside the log's own mean reward as bars.
    pub fn report(&self) -> Report {
        let bar = |mean: f64, interval| Estimate { mean, interval, n: self.rows, of: "rows" };
        let own = ("the log itself".to_string(), vec![bar(self.logged.value, self.logged.interval)]);
        let estimates = self.lines.iter().map(|line| (line.name(), vec![bar(line.value, line.interval)]));
        let mut report = Report::new("What the policy would have earned");
        report.paragraph(&self.of_the_log()).bar_charts(&[BarChart {
            title: "Value of the policy by estimator".into(),
            y_label: "mean reward".into(),
            series: Vec::new(),
            groups: [own].into_iter().chain(estimates).collect(),
        }]);
        report.table(&HEADERS, &self.cells());
        report.paragraph(
            "Intervals are percentile bootstraps over the rows of the log. They do not cover the bias of the direct method, of \
             clipped weights, or of a log that lacks what the policy does: then few effective rows or a mean weight far from 1 say \
             so.",
        );
        report
    }

    fn of_the_log(&self) -> String {
        let (value, logged) = (human::number(self.logged.value), shown(self.logged.interval));
        format!("The log: {} rows, mean reward {value} {logged}", human::count(self.rows as u64))
    }

    fn cells(&self) -> Vec<Vec<String>> {
        let line = |line: &Line| {
            let mut cells = vec![line.name(), human::number(line.value), shown(line.interval)];
            match line.weights {
                Some(weights) => cells.extend([
                    human::count(weights.effective_sample_size.round() as u64),
                    human::number(weights.most),
                    human::number(weights.mean),
                ]),
                None => cells.extend(["-", "-", "-"].map(String::from)),
            }
            cells
        };
        self.lines.iter().map(line).collect()
    }
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human::table(&HEADERS.map(String::from), &self.cells()))?;
        writeln!(f, "\n{}", self.of_the_log())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Log {
        Log {
            action_count: 2,
            actions: vec![0, 1, 1, 0],
            rewards: vec![1.0, 0.0, 1.0, 1.0],
            propensities: vec![0.5; 4],
            positions: vec![0; 4],
            ..Log::default()
        }
    }

    fn plan(estimators: &[Estimator]) -> Plan {
        Plan {
            estimators: estimators.to_vec(),
            tuned: Vec::new(),
            tuning: Tuning::ErrorBound,
            mrdr: false,
            fitting: Fitting { model: RewardModel::Constant, row_weights: RowWeights::Equal, folds: 1 },
            resamples: 200,
        }
    }

    #[test]
    fn every_estimator_is_a_line_of_the_table() {
        let (log, infinite) = (log(), f64::INFINITY);
        let policy = Policy::by_position(&log, 2, &[0.75, 0.25]);
        let estimators =
            [Estimator::Ips(infinite), Estimator::Snips, Estimator::Dm, Estimator::SwitchDr(1.0)];
        let found = evaluate(&log, &policy, &[], &plan(&estimators), &Seeds::new(1)).unwrap();
        let values: Vec<f64> = found.lines.iter().map(|line| line.value).collect();
        assert_eq!(values, [0.875, 0.875, 0.75, 0.6875]);
        let weights = WeightSummary { effective_sample_size: 3.2, most: 1.5, mean: 1.0 };
        assert_eq!(found.lines[0].weights, Some(weights));
        let text = found.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "  estimator       value   95 % interval     effective rows  largest weight  mean weight"
        );
        assert!(lines[3].starts_with("  DM              0.7500") && lines[3].ends_with('-'), "{text}");
        assert!(lines[4].starts_with("  SWITCH-DR, λ 1  0.6875"), "{text}");
        assert!(text.contains("The log: 4 rows, mean reward 0.7500 ["), "{text}");
        let page = found.report().to_html();
        for expected in ["The log: 4 rows", ">the log itself<", ">SNIPS<", "class=\"error\"", "(n=4 rows)"] {
            assert!(page.contains(expected), "{expected} is missing in {page}");
        }
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), found);
    }

    #[test]
    fn replay_asks_for_a_deterministic_policy() {
        let log = log();
        let evaluate = |table: &[f64]| {
            let policy = Policy::by_position(&log, 2, table);
            evaluate(&log, &policy, &[], &plan(&[Estimator::Replay]), &Seeds::new(1))
        };
        let found = evaluate(&[0.0, 1.0]).unwrap();
        assert_eq!((found.lines[0].value, found.lines[0].weights.unwrap().effective_sample_size), (0.5, 2.0));
        assert!(evaluate(&[0.5, 0.5]).is_err());
    }

    #[test]
    fn lambdas_are_chosen_where_that_is_asked_for() {
        let log =
            crate::synthetic::Synthetic::new(4, 2, &Seeds::new(1)).unwrap().log(-3.0, 400, &Seeds::new(2));
        let policy = Policy::by_position(&log, 4, &[0.0, 0.0, 0.1, 0.9]);
        for tuning in [Tuning::ErrorBound, Tuning::Slope] {
            let plan = Plan { tuning, ..Plan::new(&log) };
            let found = evaluate(&log, &policy, &[], &plan, &Seeds::new(1)).unwrap();
            assert_eq!(found.lines.len(), 10, "{found}");
            assert!(found.lines.iter().all(|line| (0.0..1.5).contains(&line.value)), "{found}");
            assert_eq!(found.lines[5].estimator, "SWITCH-DR", "{found}");
        }
    }
}
