//! The complete configuration of `polo train` for a scheme of exploration.

use std::path::PathBuf;

use polo_run::{Problem, Result, config::Settings, seed::Seeds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{columns::Columns, simulated::Simulated};
use crate::{
    explore::{Explorer, Need},
    features::Interactions,
    forest::{Forest, ForestSettings},
    lesson::Costs,
    oracle::{Linear, Oracle},
    perceptron::{NetworkSettings, Perceptron},
    ridge::{Ridge, RidgeSettings},
    settings::Training,
};

/// A scheme of exploration as a method: its settings are the scheme.
pub trait ExplorerSettings: Settings + Explorer + Clone + 'static {
    /// The method's name.
    const SLUG: &'static str;

    /// Whether it can learn such costs.
    ///
    /// # Errors
    /// Those it cannot.
    fn takes(&self, _costs: Costs) -> Result<()> {
        Ok(())
    }
}

/// Everything that decides how a stream is learnt from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound = "E: ExplorerSettings")]
#[schemars(bound = "E: ExplorerSettings")]
pub struct StreamSettings<E> {
    /// The scheme of exploration.
    pub method: E,
    /// The log.
    pub data: Data,
    /// A stream that answers to what the learner does, instead of a log.
    pub simulated: Simulated,
    /// When outcomes become known.
    pub feedback: Feedback,
    /// What predicts costs.
    pub oracle: OracleSettings,
    /// What to write beside the model.
    pub output: Output,
    /// How often to write down what.
    pub training: Training,
}

impl<E: ExplorerSettings> Settings for StreamSettings<E> {
    fn check(&self) -> Result<()> {
        self.method.check()?;
        self.method.takes(self.oracle.costs)?;
        self.oracle.check(&self.method)?;
        self.simulated.check()?;
        match (self.data.train.is_empty(), self.simulated.decisions > 0) {
            (true, false) => {
                Err(Problem::usage("the method learns from a log of decisions, and none is given")
                    .place("data.train")
                    .hint(
                        "--data FILE.dsjson, or --set simulated.decisions=5000 for a stream that is made up",
                    ))
            }
            (false, true) => Err(Problem::usage("a log and a simulated stream are both given")
                .place("simulated.decisions")
                .hint("leave out --data, or simulated.decisions")),
            _ => Ok(()),
        }
    }
}

/// `[data]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Files of logged decisions, or folders of them, the same as `--data`; several are read one after the other, those of a
    /// folder by name. They may be compressed by gzip.
    pub train: Vec<PathBuf>,
    /// How they are written.
    pub format: Format,
    /// What the columns of a CSV file mean.
    pub columns: Columns,
    /// What to do with a line that cannot be used.
    pub on_bad_line: OnBadLine,
}

/// How logged decisions are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// By the end of the file's name, perhaps before `.gz`: `.csv` is CSV, `.vw`, `.txt` and `.dat` are text, all others
    /// are dsjson.
    #[default]
    Auto,
    /// Vowpal Wabbit's dsjson: a JSON object to a line.
    Dsjson,
    /// Vowpal Wabbit's text: a line for what is shared, one for each action, an empty one after them.
    Text,
    /// A row to a decision, by `[data.columns]`; a file of the Open Bandit Dataset is known as it is.
    Csv,
}

/// What to do with a line that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadLine {
    /// Stop with an error that names it.
    #[default]
    Stop,
    /// Leave it out, and count it.
    Skip,
}

/// `[feedback]`: outcomes that become known late.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Feedback {
    /// An outcome becomes known when so many more decisions have been taken.
    pub delay: u64,
    /// Known outcomes are learnt when so many decisions have been taken since the last time.
    #[schemars(range(min = 1))]
    pub batch: u64,
}

impl Default for Feedback {
    fn default() -> Self {
        Self { delay: 0, batch: 1 }
    }
}

/// `[output]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Output {
    /// Write `decisions.jsonl` into the run folder: for each decision its probabilities, and an action drawn from them.
    pub decisions: bool,
}

/// `[oracle]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OracleSettings {
    /// What it is; without it, what the method needs: ridge regression for those that need beliefs, else linear.
    pub kind: Option<Kind>,
    /// Namespaces whose features are multiplied, by their first letters, two or three: `["UA"]`.
    pub interactions: Vec<String>,
    /// What is regressed on.
    pub costs: Costs,
    /// Logged probabilities below this count as this. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub least_probability: f64,
    /// Of the linear oracle: it has 2 to this power of weights. Default from Vowpal Wabbit.
    #[schemars(range(min = 1, max = 30))]
    pub bits: u32,
    /// Of the linear oracle: step size. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub learning_rate: f64,
    /// Of ridge regression.
    pub ridge: RidgeSettings,
    /// Of trees.
    pub trees: ForestSettings,
    /// Of the network.
    pub network: NetworkSettings,
}

/// Kinds of oracles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Hashed linear weights by adaptive gradient descent, as Vowpal Wabbit's.
    Linear,
    /// Ridge regression, exactly, with beliefs about each cost; for up to some thousands of features.
    Ridge,
    /// Gradient-boosted trees, grown anew on what is kept.
    Trees,
    /// A small network, by a step of Adam for each outcome.
    Network,
}

impl Default for OracleSettings {
    fn default() -> Self {
        Self {
            kind: None,
            interactions: Vec::new(),
            costs: Costs::Mtr,
            least_probability: 0.0,
            bits: 18,
            learning_rate: 0.5,
            ridge: RidgeSettings::default(),
            trees: ForestSettings::default(),
            network: NetworkSettings::default(),
        }
    }
}

impl OracleSettings {
    fn interactions(&self) -> Result<Interactions> {
        Interactions::new(&self.interactions).map_err(|word| {
            Problem::usage(format!("`{word}` names no namespaces to be multiplied"))
                .place("oracle.interactions")
                .hint("two or three first letters of namespaces, such as [\"UA\"]")
        })
    }

    /// What it is for this scheme.
    pub fn kind_for(&self, explorer: &dyn Explorer) -> Kind {
        self.kind.unwrap_or(match explorer.need() {
            Need::Posterior => Kind::Ridge,
            Need::Guess | Need::Sensitivity => Kind::Linear,
        })
    }

    fn check(&self, explorer: &dyn Explorer) -> Result<()> {
        self.interactions()?;
        if self.network.hidden.contains(&0) {
            return Err(Problem::usage("a hidden layer has no units").place("oracle.network.hidden"));
        }
        if self.ridge.least_cost >= self.ridge.most_cost {
            return Err(
                Problem::usage("the least cost is not below the most").place("oracle.ridge.least_cost")
            );
        }
        self.trees.growth.check()?;
        let kind = self.kind_for(explorer);
        let (fits, wanted) = match explorer.need() {
            Need::Guess => (true, ""),
            Need::Sensitivity => (kind == Kind::Linear, "linear"),
            Need::Posterior => (kind == Kind::Ridge, "ridge"),
        };
        match fits {
            true => Ok(()),
            false => Err(Problem::usage("the method cannot work with this oracle")
                .place("oracle.kind")
                .hint(format!("--set oracle.kind={wanted}"))),
        }
    }

    /// Models for a scheme, before they have learnt anything.
    ///
    /// # Errors
    /// Interactions that are none.
    pub fn models(&self, explorer: &dyn Explorer, seeds: &Seeds) -> Result<Box<dyn Oracle>> {
        let count = explorer.models() + explorer.scorers(self.costs);
        let interactions = self.interactions()?;
        Ok(match self.kind_for(explorer) {
            Kind::Linear => Box::new(Linear::new(count, self.bits, self.learning_rate as f32, interactions)),
            Kind::Ridge => Box::new(Ridge::new(count, &self.ridge, interactions)),
            Kind::Trees => Box::new(Forest::new(count, &self.trees, interactions)),
            Kind::Network => Box::new(Perceptron::new(count, &self.network, interactions, seeds)),
        })
    }
}
