//! Ridge regression online, with what is known of each mean: the oracle of LinUCB and Thompson sampling.
//!
//! ```text
//! A = lambda I + Σ w x xᵀ,   theta = A⁻¹ Σ w x c        (recursive least squares: A⁻¹ is kept, by Sherman-Morrison)
//! mean x · theta,   covariance x A⁻¹ x'
//! ```
//!
//! With a logistic link, costs between `least` and `most` are chances σ(x · theta), each outcome is one Newton step of the
//! log loss (w = σ'), and means and covariances are those of x · theta.
//!
//! A⁻¹ has a row for each feature that was ever seen, products included, in the order of their first appearance. A feature
//! never seen has variance 1/lambda and is independent of all others.

use std::collections::{BTreeMap, HashMap};

use polo_run::{Problem, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    features::{Decision, Feature, Interactions},
    oracle::{Oracle, Posterior, too_large},
    regression::sigmoid,
};

/// How costs follow from x · theta.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// They are x · theta.
    #[default]
    Linear,
    /// Between the least and the most, by a chance σ(x · theta).
    Logistic,
}

/// `[oracle.ridge]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RidgeSettings {
    /// lambda: how strongly weights are pulled to 0.
    #[schemars(range(min = 1e-9, max = 1e9))]
    pub penalty: f64,
    /// How costs follow from features.
    pub link: Link,
    /// With the logistic link: the least that a cost can be.
    pub least_cost: f64,
    /// With the logistic link: the most that a cost can be.
    pub most_cost: f64,
    /// There may be so many features, products included; time per decision grows with their square.
    #[schemars(range(min = 1, max = 20000))]
    pub most_features: usize,
}

impl Default for RidgeSettings {
    fn default() -> Self {
        Self { penalty: 1.0, link: Link::Linear, least_cost: -1.0, most_cost: 0.0, most_features: 2000 }
    }
}

/// The models.
#[derive(Clone, Debug)]
pub struct Ridge {
    settings: RidgeSettings,
    interactions: Interactions,
    models: Vec<Model>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Model {
    /// Of each feature, its hash.
    hashes: Vec<u32>,
    #[serde(skip)]
    columns: HashMap<u32, usize>,
    /// The lower triangle of A⁻¹, row by row.
    inverse: Vec<f64>,
    theta: Vec<f64>,
}

/// An action's features by column, and those that have none.
#[derive(Debug, Default)]
struct Seen {
    known: Vec<(usize, f64)>,
    /// In an order of its own: sums over it must not depend on chance.
    unknown: BTreeMap<u32, f64>,
}

impl Model {
    fn split(&self, features: Vec<Feature>) -> Seen {
        let mut seen = Seen::default();
        for Feature { hash, value } in features {
            match self.columns.get(&hash) {
                Some(column) => seen.known.push((*column, f64::from(value))),
                None => *seen.unknown.entry(hash).or_default() += f64::from(value),
            }
        }
        seen
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        let (i, j) = if i < j { (j, i) } else { (i, j) };
        self.inverse[i * (i + 1) / 2 + j]
    }

    fn mean(&self, seen: &Seen) -> f64 {
        seen.known.iter().map(|(column, value)| self.theta[*column] * value).sum()
    }

    /// A⁻¹ x, of features with a column.
    fn times(&self, known: &[(usize, f64)]) -> Vec<f64> {
        (0..self.theta.len())
            .map(|row| known.iter().map(|(column, value)| self.at(row, *column) * value).sum())
            .collect()
    }

    fn add(&mut self, hash: u32, penalty: f64) {
        let column = self.hashes.len();
        self.hashes.push(hash);
        self.columns.insert(hash, column);
        self.inverse.extend(std::iter::repeat_n(0.0, column));
        self.inverse.push(1.0 / penalty);
        self.theta.push(0.0);
    }
}

impl Ridge {
    /// `models` models that know nothing.
    pub fn new(models: usize, settings: &RidgeSettings, interactions: Interactions) -> Self {
        Self { settings: settings.clone(), interactions, models: vec![Model::default(); models] }
    }
}

fn along(x: &[(usize, f64)], dense: &[f64]) -> f64 {
    x.iter().map(|(column, value)| dense[*column] * value).sum()
}

impl Oracle for Ridge {
    fn predict(&self, model: usize, decision: &Decision, action: usize) -> f32 {
        let model = &self.models[model];
        let mean = model.mean(&model.split(self.features(decision, action)));
        let RidgeSettings { link, least_cost, most_cost, .. } = self.settings;
        (match link {
            Link::Linear => mean,
            Link::Logistic => least_cost + (most_cost - least_cost) * sigmoid(mean),
        }) as f32
    }

    fn learn(
        &mut self,
        model: usize,
        decision: &Decision,
        action: usize,
        cost: f32,
        importance: f32,
    ) -> Result<()> {
        let RidgeSettings { penalty, link, least_cost, most_cost, most_features } = self.settings;
        let features = self.features(decision, action);
        if features.iter().any(|feature| !feature.value.is_finite()) {
            return Err(too_large());
        }
        let model = &mut self.models[model];
        for Feature { hash, .. } in &features {
            if !model.columns.contains_key(hash) {
                if model.hashes.len() == most_features {
                    let what = format!("there are more than {most_features} features, products included");
                    return Err(Problem::input(what).place("oracle.ridge.most_features").hint(
                        "raise it (time per decision grows with its square), or use a method that needs no \
                         beliefs, such as squarecb",
                    ));
                }
                model.add(*hash, penalty);
            }
        }
        let x = model.split(features).known;
        let mean = along(&x, &model.theta);
        let (curvature, error) = match link {
            Link::Linear => (1.0, f64::from(cost) - mean),
            Link::Logistic => {
                let target = (f64::from(cost) - least_cost) / (most_cost - least_cost);
                if !(0.0..=1.0).contains(&target) {
                    let what = format!("a cost of {cost} is not between {least_cost} and {most_cost}");
                    return Err(Problem::input(what)
                        .place("oracle.ridge.least_cost")
                        .hint("set oracle.ridge.least_cost and most_cost to the range of costs"));
                }
                let chance = sigmoid(mean);
                // A chance of 0 or 1 would have no curvature, and a step without end.
                let curvature = (chance * (1.0 - chance)).max(1e-6);
                (curvature, (target - chance) / curvature)
            }
        };
        let weight = f64::from(importance) * curvature;
        let moved = model.times(&x);
        let gain = weight / (1.0 + weight * along(&x, &moved));
        for (row, left) in moved.iter().enumerate() {
            model.theta[row] += gain * error * left;
            let start = row * (row + 1) / 2;
            let triangle = &mut model.inverse[start..=start + row];
            triangle.iter_mut().zip(&moved).for_each(|(entry, right)| *entry -= gain * left * right);
        }
        Ok(())
    }

    fn posterior(&self, model: usize, decision: &Decision, joint: bool) -> Option<Posterior> {
        let model = &self.models[model];
        let count = decision.actions.len();
        let seen: Vec<Seen> = (0..count).map(|action| model.split(self.features(decision, action))).collect();
        let moved: Vec<Vec<f64>> = seen.iter().map(|seen| model.times(&seen.known)).collect();
        let between = |a: usize, b: usize| {
            let shared =
                |(hash, value): (&u32, &f64)| seen[b].unknown.get(hash).map_or(0.0, |other| value * other);
            let unknown: f64 = seen[a].unknown.iter().map(shared).sum();
            along(&seen[b].known, &moved[a]) + unknown / self.settings.penalty
        };
        let covariance = match joint {
            true => (0..count * count).map(|at| between(at / count, at % count)).collect(),
            false => (0..count).map(|action| between(action, action)).collect(),
        };
        Some(Posterior { means: seen.iter().map(|seen| model.mean(seen)).collect(), covariance })
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
            let count = model.hashes.len();
            if model.theta.len() != count || model.inverse.len() != count * (count + 1) / 2 {
                return false;
            }
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
    use crate::{features::Example, linear::Matrix};

    fn decision(rows: &[&[(u32, f32)]]) -> Decision {
        let of = |row: &&[(u32, f32)]| Example {
            spaces: vec![(b'a', row.iter().map(|&(hash, value)| Feature { hash, value }).collect())],
        };
        Decision { actions: rows.iter().map(of).collect(), weight: 1.0, ..Decision::default() }
    }

    fn ridge(settings: &RidgeSettings) -> Ridge {
        Ridge::new(1, settings, Interactions::default())
    }

    /// Against the normal equations, solved by factorisation.
    #[test]
    fn it_is_ridge_regression() {
        let settings = RidgeSettings { penalty: 0.7, ..RidgeSettings::default() };
        let mut model = ridge(&settings);
        let rows: [(f64, f64, f64, f64); 5] = [
            (1.0, 2.0, 0.5, 1.0),
            (0.5, -1.0, 1.0, 2.0),
            (2.0, 0.3, -0.7, 1.0),
            (-1.0, 1.0, 0.2, 0.5),
            (0.1, 0.1, 2.0, 1.0),
        ];
        let mut matrix = Matrix::identity(3, 0.7);
        let mut sums = vec![0.0; 3];
        for (x, y, cost, weight) in rows {
            // The constant comes first.
            let features = [1.0, x as f32 as f64, y as f32 as f64];
            matrix.add_outer(&features, weight);
            sums.iter_mut().zip(features).for_each(|(sum, f)| *sum += weight * f * f64::from(cost as f32));
            let decision = decision(&[&[(1, x as f32), (2, y as f32)]]);
            model.learn(0, &decision, 0, cost as f32, weight as f32).unwrap();
        }
        let theta = matrix.solve(&sums);
        let inverse = matrix.inverse().unwrap();
        let two = decision(&[&[(1, 0.3), (2, 2.0)], &[(1, -1.0), (3, 2.0)]]);
        let found = model.posterior(0, &two, true).unwrap();
        let x = [1.0, f64::from(0.3f32), 2.0];
        assert!((found.means[0] - (theta[0] + x[1] * theta[1] + 2.0 * theta[2])).abs() < 1e-12);
        assert!((found.covariance[0] - inverse.quadratic(&x)).abs() < 1e-12);
        // A feature that was never seen is independent, with variance 1/lambda.
        let known = inverse.quadratic(&[1.0, -1.0, 0.0]);
        assert!((found.covariance[3] - known - 4.0 / 0.7).abs() < 1e-12);
        let moved = inverse.times(&x);
        assert!((found.covariance[1] - (moved[0] - moved[1])).abs() < 1e-12);
        assert!((found.covariance[1] - found.covariance[2]).abs() < 1e-12);
        let alone = model.posterior(0, &two, false).unwrap();
        assert_eq!(alone.covariance, [found.covariance[0], found.covariance[3]]);
    }

    #[test]
    fn a_logistic_link_learns_chances() {
        let settings = RidgeSettings { link: Link::Logistic, ..RidgeSettings::default() };
        let mut model = ridge(&settings);
        let one = decision(&[&[(1, 1.0)]]);
        for round in 0..4000 {
            let cost = if round % 4 == 0 { -1.0 } else { 0.0 };
            model.learn(0, &one, 0, cost, 1.0).unwrap();
        }
        assert!((model.predict(0, &one, 0) + 0.25).abs() < 0.01, "{}", model.predict(0, &one, 0));
        let problem = model.learn(0, &one, 0, 2.0, 1.0).unwrap_err();
        assert!(problem.to_string().contains("between -1 and 0"), "{problem}");
    }

    /// A run must not depend on the order in which a hash table happens to keep features.
    #[test]
    fn beliefs_are_the_same_to_the_last_bit() {
        let model = ridge(&RidgeSettings::default());
        let row: Vec<(u32, f32)> = (0..40).map(|at| (at, 1.0 / (at as f32 + 3.0))).collect();
        let decision = decision(&[&row, &row[7..]]);
        let first = model.posterior(0, &decision, true);
        assert!((0..20).all(|_| model.posterior(0, &decision, true) == first));
    }

    #[test]
    fn it_comes_back_and_has_its_limit() {
        let settings = RidgeSettings { most_features: 3, ..RidgeSettings::default() };
        let mut model = ridge(&settings);
        model.learn(0, &decision(&[&[(1, 1.5), (2, 0.1)]]), 0, 0.3, 1.0).unwrap();
        let mut back = ridge(&settings);
        assert!(back.take_bytes(&model.to_bytes()));
        let next = decision(&[&[(1, 0.7), (2, 0.3)]]);
        for one in [&mut model, &mut back] {
            one.learn(0, &next, 0, 1.0, 1.0).unwrap();
        }
        assert_eq!(back.to_bytes(), model.to_bytes());
        assert!(!back.take_bytes(b"[{}]") && !back.take_bytes(&model.to_bytes()[1..]));
        let problem = model.learn(0, &decision(&[&[(3, 1.0)]]), 0, 1.0, 1.0).unwrap_err();
        assert!(problem.to_string().contains("more than 3 features"), "{problem}");
    }
}
