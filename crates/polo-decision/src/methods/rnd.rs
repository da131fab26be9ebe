//! Random-target exploration: models that chase random numbers know little where they have seldom been (Ash, Zhang, Goel,
//! Krishnamurthy, Kakade 2022, arXiv 2110.11202; Vowpal Wabbit's `--rnd`).
//!
//! ```text
//! model i of m begins, in effect, at a random linear function g_i(x) = sqrt(1/lambda) sum_j x_j n_ij / sqrt(2 |x|²),
//! and learns g_i(x) + alpha noise wherever an action was taken
//! bonus(a) = root mean over i of (prediction_i(a) - g_i(a))²
//! score(a) = c^(a) - 0.5772 (bonus(a) - largest),   p(a) proportional to exp(-score(a) / largest),   none below epsilon/K
//! ```

use polo_run::{Result, card::MethodCard, config::Settings, seed::Seeds};
use rand_chacha::rand_core::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    draw::normal,
    explore::{Explorer, Situation, floor, softmax},
    features::{Feature, Outcome},
    lesson::{Costs, Lesson},
    oracle::Oracle,
    stream::ExplorerSettings,
};

/// `[method]` of `polo train rnd`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rnd {
    /// Models that chase random numbers. Each has as many weights as the oracle's settings say.
    #[schemars(range(min = 1, max = 1000))]
    pub models: usize,
    /// Standard deviation of the noise: the more, the more is explored where one has been. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// 1/lambda: the more, the more is explored where one has not been. Default from Vowpal Wabbit.
    #[schemars(range(min = 0.0))]
    pub inverse_lambda: f64,
    /// No action is less likely than this over the number of actions.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for Rnd {
    fn default() -> Self {
        Self { models: 3, alpha: 0.1, inverse_lambda: 0.1, epsilon: 0.0 }
    }
}

impl Settings for Rnd {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl ExplorerSettings for Rnd {
    const SLUG: &'static str = CARD.slug;
}

/// Euler and Mascheroni's constant: the mean of the Gumbel noise that a softmax draws by.
const EULER: f64 = 0.577_215_664_901_532_9;
/// The least temperature.
const COOLEST: f64 = 1e-3;

impl Rnd {
    /// g_i of an action's features, with one key for each model.
    fn begin(&self, features: &[Feature], key: u64) -> f64 {
        let (mut sum, mut square) = (0.0, 0.0);
        for Feature { hash, value } in features {
            let value = f64::from(*value);
            sum += value * normal(&mut Mixed(key ^ u64::from(*hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            square += value * value;
        }
        self.inverse_lambda.sqrt() * sum / (2.0 * square.max(1e-12)).sqrt()
    }

    fn key(model: usize, seeds: &Seeds) -> u64 {
        seeds.rng("rnd", model as u64).next_u64()
    }

    fn weigh(&self, costs: &[f32], bonuses: &[f64]) -> Vec<f64> {
        let most = bonuses.iter().copied().fold(COOLEST, f64::max);
        let score = |(cost, bonus): (&f32, &f64)| (f64::from(*cost) - EULER * (bonus - most)) as f32;
        let scores: Vec<f32> = costs.iter().zip(bonuses).map(score).collect();
        let mut probabilities = softmax(&scores, 1.0 / most);
        floor(&mut probabilities, self.epsilon);
        probabilities
    }
}

/// A stream of numbers from a key (Steele, Lea, Flood 2014): a feature's random weight must not cost a seeded generator.
struct Mixed(u64);

impl rand_chacha::rand_core::TryRng for Mixed {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Self::Error> {
        self.try_next_u64().map(|number| number as u32)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Self::Error> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.try_next_u64()?.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Self::Error> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ (z >> 31))
    }
}

impl Explorer for Rnd {
    fn models(&self) -> usize {
        1 + self.models
    }

    fn scorers(&self, costs: Costs) -> usize {
        usize::from(costs == Costs::Dr)
    }

    fn probabilities(&self, costs: &[f32], _learned: u64) -> Vec<f64> {
        self.weigh(costs, &vec![0.0; costs.len()])
    }

    fn decide(&self, situation: &Situation) -> Vec<f64> {
        let Situation { oracle, decision, seeds, .. } = *situation;
        let mut squares = vec![0.0; decision.actions.len()];
        let features: Vec<_> = (0..squares.len()).map(|action| oracle.features(decision, action)).collect();
        for model in 1..=self.models {
            let key = Self::key(model, seeds);
            for (action, square) in squares.iter_mut().enumerate() {
                let found = f64::from(oracle.predict(model, decision, action));
                *square += (found - self.begin(&features[action], key)).powi(2);
            }
        }
        let bonuses: Vec<f64> = squares.iter().map(|square| (square / self.models as f64).sqrt()).collect();
        self.weigh(&oracle.costs(0, decision), &bonuses)
    }

    fn teach(&self, oracle: &mut dyn Oracle, lesson: &Lesson, seeds: &Seeds) -> Result<()> {
        let action = lesson.outcome.action;
        let features = oracle.features(lesson.decision, action);
        let mut noise = seeds.rng("rnd noise", lesson.learned);
        for model in 1..=self.models {
            let target = self.begin(&features, Self::key(model, seeds)) + self.alpha * normal(&mut noise);
            let outcome = Outcome { action, cost: target as f32, probability: 1.0 };
            let chase = Lesson { outcome, probability: 1.0, costs: Costs::Mtr, ..*lesson };
            chase.teach(oracle, model, model)?;
        }
        lesson.teach(oracle, 0, 1 + self.models)
    }
}

/// What a newcomer must know.
pub const CARD: MethodCard = MethodCard {
    slug: "rnd",
    title: "Random-target exploration",
    paper: "Ash, Zhang, Goel, Krishnamurthy, Kakade: Anti-Concentrated Confidence Bonuses for Scalable Exploration",
    arxiv: "2110.11202",
    year: 2022,
    family: super::FAMILY,
    summary: "contextual bandits from a log: explores where models that chase random numbers have not caught up",
    claim: "random regressions give confidence bonuses at the price of a few models; here a baseline",
    equation: "score(a) = c^(a) - 0.5772 (bonus(a) - max bonus),   p(a) proportional to exp(-score(a) / max bonus)",
    symbols: &[
        ("bonus(a)", "root mean square of how far method.models random models are from what they began at"),
        ("alpha, 1/lambda", "method.alpha, method.inverse_lambda"),
    ],
    metrics: super::squarecb::CARD.metrics,
    reach_for: "bonuses as of LinUCB where there are too many features for its matrix",
    avoid_when: "features are few: linucb has the bonus exactly",
    failure_signs: &[
        "probabilities stay flat: lower method.alpha",
        "one action from early on: raise method.alpha",
    ],
    variants: &[("one random model", "method.models = 1")],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{explore::tests::check, features::Decision, lesson::tests::Spy};

    #[test]
    fn what_is_little_known_is_likelier() {
        let rnd = Rnd::default();
        // Scores 0 - 0.5772 (1 - 1) and 0 - 0.5772 (0 - 1), temperature 1.
        let known = (-EULER).exp();
        check(&rnd.weigh(&[0.0, 0.0], &[1.0, 0.0]), &[1.0 / (1.0 + known), known / (1.0 + known)]);
        check(&rnd.weigh(&[0.0, 1.0], &[0.0, 0.0]), &[1.0, 0.0]);
    }

    #[test]
    fn models_begin_at_random_functions_of_this_size() {
        let rnd = Rnd::default();
        let of =
            |key: u64| rnd.begin(&[Feature { hash: 7, value: 3.0 }, Feature { hash: 9, value: 4.0 }], key);
        assert_eq!(of(1), of(1));
        let squares: f64 = (0..20_000).map(|key| of(key).powi(2)).sum();
        // inverse_lambda / 2, within four standard errors.
        assert!((squares / 20_000.0 - 0.05).abs() < 0.002, "{squares}");
    }

    /// Targets are what a model begins at, here 0, and noise of this size, of its own for each model and decision.
    #[test]
    fn models_chase_noise() {
        let decision = Decision { actions: vec![Default::default()], weight: 1.0, ..Decision::default() };
        let outcome = Outcome { action: 0, cost: 0.5, probability: 0.5 };
        let rnd = Rnd { models: 2, alpha: 0.3, ..Rnd::default() };
        let mut spy = Spy { said: vec![0.0], ..Spy::default() };
        let lesson = Lesson {
            decision: &decision,
            outcome,
            probability: 0.5,
            ratio: 1.0,
            learned: 0,
            costs: Costs::Mtr,
        };
        for learned in 0..2000 {
            rnd.teach(&mut spy, &Lesson { learned, ..lesson }, &Seeds::new(0)).unwrap();
        }
        assert_eq!(spy.taught[2], (0, 0, 0.5, 2.0));
        let of = |model| spy.taught.iter().filter(move |one| one.0 == model).map(|one| f64::from(one.2));
        let spread = |model| (of(model).map(|target| target * target).sum::<f64>() / 2000.0).sqrt();
        // Four standard errors.
        assert!((spread(1) - 0.3).abs() < 0.02 && (spread(2) - 0.3).abs() < 0.02, "{}", spread(1));
        assert!(of(1).zip(of(2)).all(|(one, other)| one != other));
    }
}
