//! Gradient-boosted trees as the oracle of a stream: outcomes are kept, and the trees are grown anew on what is kept when
//! there is so much more of it. Before the first trees every action is predicted to cost the mean.

use std::collections::{HashMap, VecDeque};

use polo_run::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    features::{Decision, Feature, Interactions},
    oracle::{Oracle, too_large},
    trees::{Trees, TreesSettings},
};

/// `[oracle.trees]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ForestSettings {
    /// How trees are grown. Products of features are not needed: leave `oracle.interactions` empty.
    pub growth: TreesSettings,
    /// There may be so many features.
    #[schemars(range(min = 1, max = 100000))]
    pub most_features: usize,
    /// So many outcomes are kept, the newest.
    #[schemars(range(min = 10))]
    pub most_rows: usize,
    /// Trees are grown anew after so many outcomes at least,
    #[schemars(range(min = 1))]
    pub refit_after: usize,
    /// and after this share of those that are kept.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub refit_share: f64,
}

impl Default for ForestSettings {
    fn default() -> Self {
        Self {
            growth: TreesSettings::default(),
            most_features: 500,
            most_rows: 20_000,
            refit_after: 100,
            refit_share: 0.2,
        }
    }
}

/// The models.
#[derive(Clone, Debug)]
pub struct Forest {
    settings: ForestSettings,
    interactions: Interactions,
    models: Vec<Model>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Model {
    /// Of each column, the hash of its feature.
    hashes: Vec<u32>,
    #[serde(skip)]
    columns: HashMap<u32, usize>,
    rows: VecDeque<Row>,
    /// Outcomes since the trees were grown.
    fresh: usize,
    trees: Option<Trees>,
    /// Sums of importance, and of importance times cost.
    sums: (f64, f64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    /// Columns and values.
    features: Vec<(u32, f32)>,
    cost: f32,
    importance: f32,
}

impl Model {
    fn dense(&self, features: &[(u32, f32)], width: usize, into: &mut [f64]) {
        into.fill(0.0);
        for (column, value) in features {
            if (*column as usize) < width {
                into[*column as usize] += f64::from(*value);
            }
        }
    }

    fn fit(&mut self, settings: &ForestSettings) -> Result<()> {
        let width = self.hashes.len();
        let mut inputs = vec![0.0; self.rows.len() * width];
        for (row, into) in self.rows.iter().zip(inputs.chunks_exact_mut(width)) {
            self.dense(&row.features, width, into);
        }
        let targets: Vec<f64> = self.rows.iter().map(|row| f64::from(row.cost)).collect();
        let weights: Vec<f64> = self.rows.iter().map(|row| f64::from(row.importance)).collect();
        self.trees = Some(Trees::fit(&inputs, &targets, &weights, &settings.growth, false, 0)?);
        self.fresh = 0;
        Ok(())
    }
}

impl Forest {
    /// `models` models that know nothing.
    pub fn new(models: usize, settings: &ForestSettings, interactions: Interactions) -> Self {
        Self { settings: settings.clone(), interactions, models: vec![Model::default(); models] }
    }
}

impl Oracle for Forest {
    fn predict(&self, model: usize, decision: &Decision, action: usize) -> f32 {
        let model = &self.models[model];
        let Some(trees) = &model.trees else {
            return if model.sums.0 > 0.0 { (model.sums.1 / model.sums.0) as f32 } else { 0.0 };
        };
        let mut row = vec![0.0; trees.width()];
        for Feature { hash, value } in self.features(decision, action) {
            if let Some(place) = model.columns.get(&hash).and_then(|column| row.get_mut(*column)) {
                *place += f64::from(value);
            }
        }
        trees.predict(&row) as f32
    }

    fn learn(
        &mut self,
        model: usize,
        decision: &Decision,
        action: usize,
        cost: f32,
        importance: f32,
    ) -> Result<()> {
        if importance <= 0.0 {
            return Ok(());
        }
        let features = self.features(decision, action);
        if features.iter().any(|feature| !feature.value.is_finite()) {
            return Err(too_large());
        }
        let (model, settings) = (&mut self.models[model], &self.settings);
        let mut row = Vec::with_capacity(features.len());
        for Feature { hash, value } in features {
            let next = model.hashes.len();
            let column = *model.columns.entry(hash).or_insert(next);
            if column == next {
                if next == settings.most_features {
                    let most = settings.most_features;
                    return Err(Problem::input(format!("there are more than {most} features"))
                        .place("oracle.trees.most_features")
                        .hint("raise it, or leave out oracle.interactions: trees need no products"));
                }
                model.hashes.push(hash);
            }
            row.push((column as u32, value));
        }
        if model.rows.len() == settings.most_rows {
            model.rows.pop_front();
        }
        model.rows.push_back(Row { features: row, cost, importance });
        model.sums.0 += f64::from(importance);
        model.sums.1 += f64::from(importance * cost);
        model.fresh += 1;
        let due = settings.refit_after.max((settings.refit_share * model.rows.len() as f64) as usize);
        match model.fresh >= due {
            true => model.fit(settings),
            false => Ok(()),
        }
    }

    fn features(&self, decision: &Decision, action: usize) -> Vec<Feature> {
        self.interactions.features(decision, action)
    }

    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&self.models).unwrap_or_default()
    }

    fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        let Ok(mut models) = serde_json::from_slice::<Vec<Model>>(bytes) else { return false };
        for model in &mut models {
            model.columns = model.hashes.iter().copied().zip(0..).collect();
        }
        let whole = models.len() == self.models.len();
        if whole {
            self.models = models;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::decision;

    fn forest(most_features: usize) -> Forest {
        Forest::new(
            1,
            &ForestSettings { most_features, ..ForestSettings::default() },
            Interactions::default(),
        )
    }

    /// |x| is nothing for a linear model.
    #[test]
    fn it_learns_what_is_not_linear_and_comes_back() {
        let mut model = forest(9);
        let value = |at: usize| (at % 41) as f32 / 20.0 - 1.0;
        for at in 0..250 {
            model.learn(0, &decision(value(at)), 0, value(at).abs(), 1.0).unwrap();
        }
        for x in [-0.9, 0.05, 0.9] {
            assert!((model.predict(0, &decision(x), 0) - x.abs()).abs() < 0.12, "{x}");
        }
        let mut back = forest(9);
        assert!(back.take_bytes(&model.to_bytes()));
        for at in 0..150 {
            for one in [&mut model, &mut back] {
                one.learn(0, &decision(value(3 * at)), 0, 1.0, 2.0).unwrap();
            }
        }
        assert_eq!(back.to_bytes(), model.to_bytes());
        assert!(!back.take_bytes(&model.to_bytes()[1..]));
        let problem = forest(1).learn(0, &decision(1.0), 0, 1.0, 1.0).unwrap_err();
        assert!(problem.to_string().contains("more than 1 features"), "{problem}");
        let problem = forest(9).learn(0, &decision(f32::INFINITY), 0, 1.0, 1.0).unwrap_err();
        assert!(problem.to_string().contains("too large"), "{problem}");
    }

    /// What is older than the newest rows is forgotten, and trees are grown as often as it is said.
    #[test]
    fn the_newest_outcomes_count() {
        let settings =
            ForestSettings { most_rows: 20, refit_after: 10, refit_share: 0.0, ..ForestSettings::default() };
        let mut model = Forest::new(1, &settings, Interactions::default());
        for at in 0..49 {
            model.learn(0, &decision(1.0), 0, at as f32, 1.0).unwrap();
        }
        let kept = &model.models[0];
        let costs: Vec<f32> = kept.rows.iter().map(|row| row.cost).collect();
        assert_eq!((costs[0], costs[19], costs.len(), kept.fresh), (29.0, 48.0, 20, 9));
        // Grown on 20 to 39, which differ in nothing.
        assert!((model.predict(0, &decision(1.0), 0) - 29.5).abs() < 1e-3);
    }
}
