//! A learned policy on decisions that it has not seen: what it would have earned, and what it would do.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use polo_run::{Problem, Result, seed::Seeds};

use super::{
    Written, drawn,
    saved::Learned,
    settings::Data,
    source::{Files, Found, Line, Place},
};
use crate::{
    estimators::{Estimator, Rows},
    evaluation::{Evaluation, Plan, of_rows},
    intervals::Tuning,
    reward_model::{Fitting, RewardModel, RowWeights},
};

/// Who decides.
pub enum Decider {
    /// Every action as likely.
    Uniform,
    /// A policy that a run left behind.
    Learned(Box<Learned>),
}

/// What was found on a log.
pub struct Applied {
    /// Decisions that were taken.
    pub decisions: u64,
    /// Whether in each of them all actions were as likely, and some had several.
    pub even: bool,
    /// The policy's value; none where no decision has an outcome.
    pub evaluation: Option<Evaluation>,
}

impl Decider {
    /// Takes every decision of a log. With `out`, writes them there, a JSON object to a line: the event, an action drawn
    /// from the policy, its probability, and all probabilities.
    ///
    /// The reward model of the estimators is what the policy itself predicts, fitted to the log that it learnt from, which
    /// should be another one. A decision that stands for several (`pdrop`) counts once.
    ///
    /// # Errors
    /// Files that cannot be read or written; a line that is no decision.
    pub fn apply(&self, log: &Path, out: Option<&Path>, seeds: &Seeds) -> Result<Applied> {
        let mut data = Data { train: vec![log.to_owned()], ..Data::default() };
        if let Decider::Learned(learned) = self {
            data.columns = learned.saved.columns.clone();
        }
        let known = match self {
            Decider::Uniform => &[][..],
            Decider::Learned(learned) => &learned.saved.actions,
        };
        let mut files = Files::open(&data, known)?;
        files.remedy = "mend it, or leave it out";
        let mut out = match out {
            None => None,
            Some(path) => {
                let file = File::create(path).map_err(|error| Problem::io("create", path, &error))?;
                Some((path.to_owned(), BufWriter::new(file)))
            }
        };
        let (mut place, mut number, mut even, mut uneven) = (Place::default(), 0, false, false);
        let (mut rewards, mut propensities, mut target) = (Vec::new(), Vec::new(), Vec::new());
        let (mut model_values, mut fitted) = (Vec::new(), Vec::new());
        loop {
            let found = files.next(&mut place)?;
            if found.is_empty() {
                break;
            }
            for one in found {
                let Found::Line(Line::Decision(decision)) = one else { continue };
                let probabilities = match self {
                    Decider::Uniform => vec![1.0 / decision.actions.len() as f64; decision.actions.len()],
                    Decider::Learned(learned) => learned.probabilities(&decision, number),
                };
                match probabilities.iter().all(|p| (p - probabilities[0]).abs() < 1e-9) {
                    true => even |= probabilities.len() > 1,
                    false => uneven = true,
                }
                if let Some((path, file)) = &mut out {
                    let action = drawn(seeds, &decision, number, &probabilities);
                    let probability = probabilities[action];
                    let (event, probabilities) = (&*decision.event, &*probabilities);
                    write(
                        path,
                        file,
                        &Written { decision: number, event, action, probability, probabilities },
                    )?;
                }
                number += 1;
                let Some(outcome) = decision.outcome else { continue };
                rewards.push(f64::from(-outcome.cost));
                propensities.push(f64::from(outcome.probability));
                target.push(probabilities[outcome.action]);
                if let Decider::Learned(learned) = self {
                    let costs = learned.costs(&decision);
                    model_values
                        .push(-costs.iter().zip(&probabilities).map(|(c, p)| f64::from(*c) * p).sum::<f64>());
                    fitted.push(f64::from(-costs[outcome.action]));
                }
            }
        }
        if let Some((path, file)) = &mut out {
            file.flush().map_err(|error| Problem::io("write", path, &error))?;
        }
        let rows = Rows {
            rewards: &rewards,
            propensities: &propensities,
            target: &target,
            model_values: &model_values,
            fitted: &fitted,
        };
        let evaluation = (!rewards.is_empty()).then(|| of_rows(&rows, &self.plan(), seeds));
        Ok(Applied { decisions: number, even: even && !uneven, evaluation })
    }

    fn plan(&self) -> Plan {
        let infinite = f64::INFINITY;
        let mut estimators = vec![Estimator::Ips(infinite), Estimator::Snips];
        let mut tuned = vec![Estimator::SubGaussianIps(0.0)];
        if matches!(self, Decider::Learned(_)) {
            estimators.extend([Estimator::Dm, Estimator::Dr(infinite), Estimator::Sndr]);
            tuned.extend([
                Estimator::SwitchDr(infinite),
                Estimator::DrOs(infinite),
                Estimator::SubGaussianDr(0.0),
            ]);
        }
        // What asks for a fitted model is not in this plan.
        let fitting = Fitting { model: RewardModel::Constant, row_weights: RowWeights::Equal, folds: 1 };
        Plan { estimators, tuned, tuning: Tuning::ErrorBound, mrdr: false, fitting, resamples: 1000 }
    }
}

fn write(path: &Path, file: &mut BufWriter<File>, line: &Written) -> Result<()> {
    file.write_all(&line.line()).map_err(|error| Problem::io("write", path, &error))
}
