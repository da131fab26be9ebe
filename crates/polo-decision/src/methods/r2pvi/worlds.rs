//! Problems of the paper: where data of any coverage come from, and what a policy is worth when the dynamics shift,
//! exactly.

use polo_run::seed::{Seeds, below, unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data::{Dataset, Next, Step};
use crate::draw::categorical;

/// Which problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// The linear process of five states and three steps. Its shift is the share q of what led to the goal in the first
    /// step that leads to the fail state.
    #[default]
    SimulatedMdp,
    /// When to exercise a put within 20 steps. Its shift is the probability that the price rises. Features are hats over
    /// prices from 60 to 160, values have the strike as their cap.
    AmericanPut,
    /// The same with the paper's features, over prices from 80 to 180, and its cap, H - h.
    AmericanPutOfficial,
}

/// How a policy decides: which actions are the best of those with these features (more than one where they tie), and
/// whether going on is worth more than stopping.
pub trait Decide {
    /// Places of the best among actions `[actions, d]` in step h.
    fn best(&self, h: usize, actions: &[f64]) -> Vec<usize>;

    /// Whether to go on in step h in a state with these features, where stopping pays so much.
    fn goes_on(&self, h: usize, features: &[f64], payoff: f64) -> bool;
}

/// What the simulated process depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulated {
    /// δ: probability of the goal's factor under a balanced action.
    pub delta: f64,
    /// ‖ξ‖₁: how far the extreme actions move it.
    pub xi: f64,
}

/// Actions of the simulated process: {-1, 1}⁴.
const ACTIONS: usize = 16;
/// d of the simulated process.
const FACTORS: usize = 4;
/// From x1 in the first step and x2 in the second, this share of what stays falls into the fail state.
const FAIL: f64 = 0.001;
/// States x1 to x5 of the simulated process.
const FAILED: usize = 3;

impl Simulated {
    /// p = δ + ξ·a of action 0 to 15, whose bits say which of its four numbers are 1.
    fn probability(&self, action: usize) -> f64 {
        self.delta + self.xi * (f64::from(action.count_ones()) - 2.0) / 2.0
    }

    fn features(&self, state: usize, action: usize) -> [f64; FACTORS] {
        let p = self.probability(action);
        let mut features = [0.0; FACTORS];
        match state {
            0..=2 => (features[state], features[3]) = (1.0 - p, p),
            _ => features[state - 1] = 1.0,
        }
        features
    }

    fn all_features(&self, state: usize) -> Vec<f64> {
        (0..ACTIONS).flat_map(|action| self.features(state, action)).collect()
    }

    fn theta() -> Vec<Vec<f64>> {
        let goal = vec![0.0, 0.0, 0.0, 1.0];
        vec![vec![0.0; FACTORS], goal.clone(), goal]
    }

    /// Probabilities of x1 to x5 after step h; `q` is the shift of the first step.
    fn transition(h: usize, features: &[f64; FACTORS], q: Option<f64>) -> [f64; 5] {
        let [one, two, three, goal] = *features;
        match (h, q) {
            (0, Some(q)) => [0.0, one, 0.0, q * goal, (1.0 - q) * goal],
            (0, None) => [0.0, (1.0 - FAIL) * one, 0.0, FAIL * one + three, goal],
            _ => [0.0, 0.0, (1.0 - FAIL) * two, FAIL * two + three, goal],
        }
    }

    /// Every step acts at random with the probability `coverage`, and else takes (-1, -1, -1, -1).
    fn dataset(&self, trajectories: usize, coverage: f64, seeds: &Seeds, replication: u64) -> Dataset {
        let (mut rng, theta) = (seeds.rng("episodes", replication), Self::theta());
        let mut steps = vec![Step::default(); theta.len()];
        for _ in 0..trajectories {
            let mut state = 0;
            for (h, step) in steps.iter_mut().enumerate() {
                let action = below(&mut rng, ACTIONS as u64) as usize;
                let action = if unit(&mut rng) < coverage { action } else { 0 };
                let features = self.features(state, action);
                state = categorical(&Self::transition(h, &features, None), &mut rng);
                let actions = if state == FAILED { Vec::new() } else { self.all_features(state) };
                step.push(&features, crate::linear::dot(&features, &theta[h]), Next { actions, stop: None });
            }
        }
        Dataset {
            size: FACTORS,
            steps,
            theta: Some(theta),
            least: Some(0.0),
            caps: vec![3.0, 2.0, 1.0],
            stopping: false,
            starts: vec![self.all_features(0)],
        }
    }

    /// Expected return from x1 with the shift `q`.
    fn value(&self, policy: &dyn Decide, q: f64) -> f64 {
        let theta = Self::theta();
        let mut values = [0.0; 5];
        for h in (0..theta.len()).rev() {
            let mut now = [0.0; 5];
            for (state, value) in now.iter_mut().enumerate().filter(|(state, _)| *state != FAILED) {
                let best = policy.best(h, &self.all_features(state));
                for &action in &best {
                    let features = self.features(state, action);
                    let next = Self::transition(h, &features, Some(q));
                    let worth = crate::linear::dot(&features, &theta[h]) + crate::linear::dot(&next, &values);
                    *value += worth / best.len() as f64;
                }
            }
            values = now;
        }
        values[0]
    }
}

/// The put: its features and caps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Put {
    lowest: f64,
    spacing: f64,
    official: bool,
}

/// Steps of the put.
const HORIZON: usize = 20;
const STRIKE: f64 = 100.0;
const ANCHORS: usize = 30;
const UP: f64 = 1.02;
const DOWN: f64 = 0.98;
/// First prices lie in 100 ± this.
const RANGE: f64 = 5.0;
/// First prices that a policy is scored from.
const SCORED: usize = 50;

impl Put {
    fn new(official: bool) -> Self {
        if official {
            Self { lowest: 80.0, spacing: 100.0 / ANCHORS as f64, official }
        } else {
            Self { lowest: 60.0, spacing: 100.0 / (ANCHORS - 1) as f64, official }
        }
    }

    fn features(&self, price: f64) -> Vec<f64> {
        let hat = |at: usize| 1.0 - (price - self.lowest - at as f64 * self.spacing).abs() / self.spacing;
        (0..ANCHORS).map(|at| hat(at).max(0.0)).collect()
    }

    fn payoff(price: f64) -> f64 {
        (STRIKE - price).max(0.0)
    }

    /// Never exercises. First prices are uniform in 100 ± 5 `coverage`.
    fn dataset(&self, trajectories: usize, coverage: f64, seeds: &Seeds, replication: u64) -> Dataset {
        let mut rng = seeds.rng("episodes", replication);
        let mut steps = vec![Step::default(); HORIZON];
        for _ in 0..trajectories {
            let mut price = STRIKE + coverage * RANGE * (2.0 * unit(&mut rng) - 1.0);
            for step in &mut steps {
                let features = self.features(price);
                price *= if unit(&mut rng) < 0.5 { UP } else { DOWN };
                step.push(
                    &features,
                    0.0,
                    Next { actions: self.features(price), stop: Some(Self::payoff(price)) },
                );
            }
        }
        let cap = |h: usize| if self.official { (HORIZON - h) as f64 } else { STRIKE };
        Dataset {
            size: ANCHORS,
            steps,
            theta: Some(vec![vec![0.0; ANCHORS]; HORIZON]),
            least: None,
            caps: (0..HORIZON).map(cap).collect(),
            stopping: true,
            starts: vec![self.features(STRIKE)],
        }
    }

    /// Expected payoff where prices rise with the probability `up`, mean over first prices.
    fn value(&self, policy: &dyn Decide, up: f64) -> f64 {
        let first = |at: usize| STRIKE - RANGE + 2.0 * RANGE * (at as f64 + 0.5) / SCORED as f64;
        let from = |start: f64| {
            // Of prices after so many rises.
            let mut values = [0.0; HORIZON + 1];
            for h in (0..HORIZON).rev() {
                for rises in 0..=h {
                    let price = start * UP.powi(rises as i32) * DOWN.powi((h - rises) as i32);
                    let payoff = Self::payoff(price);
                    values[rises] = if policy.goes_on(h, &self.features(price), payoff) {
                        up * values[rises + 1] + (1.0 - up) * values[rises]
                    } else {
                        payoff
                    };
                }
            }
            values[0]
        };
        (0..SCORED).map(|at| from(first(at))).sum::<f64>() / SCORED as f64
    }
}

impl World {
    /// Fresh episodes: number `replication` of the run.
    pub fn dataset(
        self,
        simulated: Simulated,
        trajectories: usize,
        coverage: f64,
        seeds: &Seeds,
        replication: u64,
    ) -> Dataset {
        match self {
            Self::SimulatedMdp => simulated.dataset(trajectories, coverage, seeds, replication),
            _ => self.put().dataset(trajectories, coverage, seeds, replication),
        }
    }

    fn put(self) -> Put {
        Put::new(self == Self::AmericanPutOfficial)
    }

    /// Shifts on which policies are scored where the user names none.
    pub fn shifts(self) -> &'static [f64] {
        match self {
            Self::SimulatedMdp => &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
            _ => &[0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7],
        }
    }

    /// Expected return of a policy under a shift, exact.
    pub fn value(self, simulated: Simulated, policy: &dyn Decide, shift: f64) -> f64 {
        match self {
            Self::SimulatedMdp => simulated.value(policy, shift),
            _ => self.put().value(policy, shift),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULATED: Simulated = Simulated { delta: 0.3, xi: 0.2 };

    /// A fixed action in the first step, the largest p later; stops below a price.
    struct Fixed(usize, f64);

    impl Decide for Fixed {
        fn best(&self, h: usize, _: &[f64]) -> Vec<usize> {
            vec![if h == 0 { self.0 } else { 15 }]
        }

        fn goes_on(&self, _: usize, _: &[f64], payoff: f64) -> bool {
            payoff <= self.1
        }
    }

    #[track_caller]
    fn near(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() < within, "{found} is not {expected}");
    }

    #[test]
    fn the_two_extreme_policies_are_worth_what_they_should() {
        for (q, bold, careful) in [(0.0, 1.625, 1.325), (0.5, 1.125, 1.225), (1.0, 0.625, 1.125)] {
            near(World::SimulatedMdp.value(SIMULATED, &Fixed(15, 0.0), q), bold, 1e-3);
            near(World::SimulatedMdp.value(SIMULATED, &Fixed(0, 0.0), q), careful, 1e-3);
        }
    }

    #[test]
    fn features_are_a_simplex_and_data_follow_the_process() {
        let data = World::SimulatedMdp.dataset(SIMULATED, 400, 1.0, &Seeds::new(0), 0);
        for step in &data.steps {
            let all = step
                .features
                .chunks_exact(4)
                .chain(step.next.iter().flat_map(|next| next.actions.chunks_exact(4)));
            all.for_each(|features| near(features.iter().sum(), 1.0, 1e-12));
        }
        // Uniform actions lead to the goal as often as δ says.
        let goal = data.steps[0].next.iter().filter(|next| next.actions.get(3) == Some(&1.0)).count();
        near(goal as f64 / 400.0, 0.3, 0.1);
        let narrow = World::SimulatedMdp.dataset(SIMULATED, 50, 0.0, &Seeds::new(0), 0);
        assert!(narrow.steps[0].features.chunks_exact(4).all(|row| (row[3] - 0.1).abs() < 1e-12));
    }

    #[test]
    fn prices_have_features_of_sum_one_in_the_clean_form_alone() {
        let (clean, official) = (Put::new(false), Put::new(true));
        for price in [63.5, 70.0, 79.0, 100.0, 123.4, 157.0] {
            near(clean.features(price).iter().sum(), 1.0, 1e-9);
        }
        near(official.features(76.0).iter().sum(), 0.0, 1e-12);
        assert!(official.features(78.0).iter().sum::<f64>() < 0.9);
        near(official.features(100.0).iter().sum(), 1.0, 1e-9);
    }

    #[test]
    fn stopping_at_once_pays_what_the_put_is_worth_now() {
        // Mean of max(0, 100 - s) over the grid of first prices; out of the money one goes on and stops later.
        let put = World::AmericanPut;
        let now: f64 = (0..SCORED).map(|at| (4.9 - 0.2 * at as f64).max(0.0)).sum::<f64>() / SCORED as f64;
        near(put.value(SIMULATED, &Fixed(0, -1.0), 0.5), now, 1e-9);
        near(put.value(SIMULATED, &Fixed(0, 1e9), 0.5), 0.0, 1e-12);
        assert!(put.value(SIMULATED, &Fixed(0, 8.0), 0.4) > put.value(SIMULATED, &Fixed(0, 8.0), 0.6));
    }

    #[test]
    fn data_are_a_function_of_seed_and_replication() {
        for world in [World::SimulatedMdp, World::AmericanPut] {
            let make = |seed, replication| world.dataset(SIMULATED, 5, 1.0, &Seeds::new(seed), replication);
            assert_eq!(make(1, 2), make(1, 2));
            assert_ne!(make(1, 2), make(1, 3));
            assert_ne!(make(1, 2), make(2, 2));
        }
    }
}
