//! Judges: who of two answers to a prompt is the better one.
//!
//! Win rates ([`crate::winrate`]) and the collection of preference pairs ask a [`Judge`]. Here are the programmatic
//! ones and the settings to choose among them; a language model as judge is [`model::ModelJudge`], and synthetic tasks
//! bring their own ([`crate::tasks`]).

pub mod model;

use std::{path::Path, sync::Arc};

use polo_run::{
    Problem, Result,
    seed::{Seeds, unit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rows::{About, PairRow, Place, Text};
use model::{ModelJudge, ModelJudgeSettings};

/// Two answers to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Names the prompt in errors; equal for all comparisons of one prompt.
    pub id: u64,
    /// What was asked.
    pub prompt: Text,
    /// One answer.
    pub a: String,
    /// The other answer.
    pub b: String,
    /// The right answer, for judges that need one.
    pub answer: Option<String>,
}

/// Decides between answers.
pub trait Judge {
    /// What reports call this judge.
    fn name(&self) -> String;

    /// For each comparison, in order, the probability in `[0, 1]` that `a` beats `b`; 0.5 is a tie. None where the
    /// judge gave no readable verdict.
    ///
    /// # Errors
    /// A comparison that this judge cannot judge at all; a judge that cannot be reached.
    fn compare(&self, items: &[Comparison]) -> Result<Vec<Option<f64>>>;
}

/// Judges by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An answer that equals the right one, white space at its ends aside, beats one that does not.
    Exact,
    /// An answer that contains the right one beats one that does not.
    Contains,
    /// The answer of fewer characters wins: a control for judges that may mistake length for quality.
    Shorter,
    /// The answer of more characters wins.
    Longer,
}

impl Rule {
    /// The reward of a single answer: 1 for one that is right or holds the right one, else 0; or characters. None
    /// where the rule needs a right answer and there is none.
    pub fn reward(self, answer: &str, right: Option<&str>) -> Option<f64> {
        let right = right.map(str::trim).filter(|right| !right.is_empty());
        let length = answer.chars().count() as f64;
        let truth = |truth| f64::from(u8::from(truth));
        match self {
            Rule::Exact => right.map(|right| truth(answer.trim() == right)),
            Rule::Contains => right.map(|right| truth(answer.contains(right))),
            Rule::Shorter => Some(-length),
            Rule::Longer => Some(length),
        }
    }

    fn score(self, item: &Comparison, answer: &str) -> Result<f64> {
        self.reward(answer, item.answer.as_deref()).ok_or_else(|| {
            Problem::input(format!("the judge needs a right answer, and prompt {} has none", item.id))
                .hint("give each row an `answer`, or choose another judge")
        })
    }
}

impl Judge for Rule {
    fn name(&self) -> String {
        match self {
            Rule::Exact => "exact match".into(),
            Rule::Contains => "contains the answer".into(),
            Rule::Shorter => "shorter".into(),
            Rule::Longer => "longer".into(),
        }
    }

    fn compare(&self, items: &[Comparison]) -> Result<Vec<Option<f64>>> {
        let judge = |item: &Comparison| {
            let order = self.score(item, &item.a)?.total_cmp(&self.score(item, &item.b)?);
            Ok(Some(0.5 + 0.5 * f64::from(order as i8)))
        };
        items.iter().map(judge).collect()
    }
}

/// The judges that a configuration can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeKind {
    /// An answer equal to the row's right answer beats one that is not.
    Exact,
    /// An answer that contains the row's right answer beats one that does not.
    Contains,
    /// The shorter answer wins (a control).
    Shorter,
    /// The longer answer wins (a control).
    Longer,
    /// A language model behind an OpenAI-compatible API decides; see `model`.
    #[default]
    Model,
}

/// Who judges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeSettings {
    /// Which judge.
    pub by: JudgeKind,
    /// The language model that judges where `by` is `model`.
    pub model: ModelJudgeSettings,
}

impl polo_run::config::Settings for JudgeSettings {}

impl JudgeSettings {
    /// Makes the judge. `environment` looks up the variable that holds the API key.
    ///
    /// # Errors
    /// As [`ModelJudge::new`].
    pub fn judge(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Box<dyn Judge>> {
        Ok(match self.by {
            JudgeKind::Exact => Box::new(Rule::Exact),
            JudgeKind::Contains => Box::new(Rule::Contains),
            JudgeKind::Shorter => Box::new(Rule::Shorter),
            JudgeKind::Longer => Box::new(Rule::Longer),
            JudgeKind::Model => Box::new(ModelJudge::new(&self.model, environment)?),
        })
    }
}

/// What a preference probability becomes in a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// The chosen answer is drawn with the probability that it wins.
    #[default]
    Hard,
    /// The likelier winner is chosen, and the label is its probability.
    Soft,
}

/// Labels comparisons into preference pairs. Equal answers and comparisons without verdict are left out; draws depend
/// on the place of a comparison alone.
///
/// # Errors
/// As the judge.
pub fn collect_pairs(
    judge: &dyn Judge,
    items: &[Comparison],
    labels: Labels,
    seeds: &Seeds,
) -> Result<Vec<PairRow>> {
    let file: Arc<Path> = Arc::from(Path::new("collected-pairs"));
    let mut rows = Vec::new();
    for ((index, item), verdict) in (0..).zip(items).zip(judge.compare(items)?) {
        let Some(p) = verdict.filter(|_| item.a != item.b) else { continue };
        let drawn = unit(&mut seeds.rng("preference labels", index));
        let (a_wins, label) = match labels {
            Labels::Hard => (drawn < p, 1.0),
            Labels::Soft => (p >= 0.5, p.max(1.0 - p)),
        };
        let (chosen, rejected) = if a_wins { (&item.a, &item.b) } else { (&item.b, &item.a) };
        let id = rows.len() as u64;
        rows.push(PairRow {
            prompt: item.prompt.clone(),
            chosen: item.prompt.answered(chosen),
            rejected: item.prompt.answered(rejected),
            label,
            about: About::default(),
            place: Place { file: file.clone(), line: rows.len() + 1 },
            id,
        });
    }
    Ok(rows)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
