//! polo/LinearQuadratic-v0: keep a noisy linear system near zero at little effort; the one control problem whose best
//! policy is known exactly ([`LinearQuadratic::optimum`]).
//!
//! The state of three numbers moves by `x' = A x + B u + w` and every step costs `xᵀQ x + uᵀR u` of the old state, with
//! the slightly unstable chain of Dean et al. 2017 (arXiv 1710.01688): `A` has 1.01 on and 0.01 beside its diagonal,
//! `B`, `Q` and `R` are identities, `w` is normal with standard deviation 0.1. Starts are uniform in \[-1, 1\]³. Taken: `u`
//! in \[-4, 4\]³ (clipped; the best policy does not come near). Shown: `x`. Never over; an episode has 200 steps.

use faer::{Mat, linalg::solvers::Solve};
use polo_run::Result;
use serde::{Deserialize, Serialize};

use crate::{
    Action, Dynamics, NumpyRandom, Space,
    film::{ARM, GROUND, Picture},
};

/// A linear system with a quadratic cost.
#[derive(Clone, Debug)]
pub struct LinearQuadratic {
    a: Mat<f64>,
    b: Mat<f64>,
    state_cost: Mat<f64>,
    action_cost: Mat<f64>,
    noise: f64,
    max_action: f32,
}

/// The best linear policy `u = -gain x` and what it costs.
#[derive(Clone, Debug)]
pub struct Optimum {
    /// The gain, rows of `[actions][states]`.
    pub gain: Vec<Vec<f64>>,
    /// `P` of the discounted cost `xᵀP x + offset` from state `x` on, `[states][states]`.
    pub value: Vec<Vec<f64>>,
    /// What the noise adds to the discounted cost; infinite for a discount of 1.
    pub offset: f64,
}

/// The system at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearQuadraticState(pub Vec<f64>);

impl Default for LinearQuadratic {
    /// The system of polo/LinearQuadratic-v0.
    fn default() -> Self {
        let chain = |row: usize, column: usize| match row.abs_diff(column) {
            0 => 1.01,
            1 => 0.01,
            _ => 0.0,
        };
        let one = Mat::identity(3, 3);
        Self {
            a: Mat::from_fn(3, 3, chain),
            b: one.clone(),
            state_cost: one.clone(),
            action_cost: one,
            noise: 0.1,
            max_action: 4.0,
        }
    }
}

impl LinearQuadratic {
    /// The policy that costs least in the sum of `discount^t cost_t`, forgetting that actions are clipped, by iterating
    /// the Riccati equation `P = Q + γ Aᵀ P (A - B K)`, `K = γ (R + γ Bᵀ P B)⁻¹ Bᵀ P A` from `P = Q` until it stands
    /// still to the last digits.
    pub fn optimum(&self, discount: f64) -> Optimum {
        let gain = |p: &Mat<f64>| {
            let back = self.b.transpose() * p * discount;
            (&self.action_cost + &back * &self.b).partial_piv_lu().solve(back * &self.a)
        };
        let mut p = self.state_cost.clone();
        for _ in 0..100_000 {
            let closed = &self.a - &self.b * gain(&p);
            let next = &self.state_cost + self.a.transpose() * &p * closed * discount;
            let change = (&next - &p).norm_max();
            p = next;
            if change <= 1e-14 * p.norm_max() {
                break;
            }
        }
        let trace: f64 = (0..p.nrows()).map(|i| p[(i, i)]).sum();
        let offset = discount * self.noise * self.noise * trace / (1.0 - discount);
        Optimum { gain: rows(&gain(&p)), value: rows(&p), offset }
    }
}

fn rows(matrix: &Mat<f64>) -> Vec<Vec<f64>> {
    (0..matrix.nrows()).map(|row| (0..matrix.ncols()).map(|column| matrix[(row, column)]).collect()).collect()
}

impl Optimum {
    /// The best action in the state that `observation` shows.
    pub fn act(&self, observation: &[f32]) -> Action {
        let push = |row: &Vec<f64>| -row.iter().zip(observation).map(|(k, &x)| k * f64::from(x)).sum::<f64>();
        Action::Continuous(self.gain.iter().map(|row| push(row) as f32).collect())
    }

    /// The discounted cost that the best policy has from `state` on.
    pub fn cost(&self, state: &[f64]) -> f64 {
        let row = |row: &Vec<f64>| row.iter().zip(state).map(|(p, x)| p * x).sum::<f64>();
        self.value.iter().zip(state).map(|(p, x)| x * row(p)).sum::<f64>() + self.offset
    }
}

fn times(matrix: &Mat<f64>, vector: &[f64]) -> Vec<f64> {
    let entry = |row| vector.iter().enumerate().map(|(column, x)| matrix[(row, column)] * x).sum();
    (0..matrix.nrows()).map(entry).collect()
}

fn quadratic(matrix: &Mat<f64>, vector: &[f64]) -> f64 {
    vector.iter().zip(times(matrix, vector)).map(|(x, y)| x * y).sum()
}

impl Dynamics for LinearQuadratic {
    type State = LinearQuadraticState;

    fn observation_space(&self) -> Space {
        Space::symmetric(&vec![f32::INFINITY; self.a.nrows()])
    }

    fn action_space(&self) -> Space {
        Space::symmetric(&vec![self.max_action; self.b.ncols()])
    }

    fn begin(&self, random: &mut NumpyRandom) -> LinearQuadraticState {
        LinearQuadraticState((0..self.a.nrows()).map(|_| random.uniform(-1.0, 1.0)).collect())
    }

    fn observe(&self, state: &LinearQuadraticState) -> Vec<f32> {
        state.0.iter().map(|&x| x as f32).collect()
    }

    fn advance(
        &self,
        LinearQuadraticState(state): &mut LinearQuadraticState,
        action: &Action,
        random: &mut NumpyRandom,
    ) -> Result<(f64, bool)> {
        let action: Vec<f64> = (action.values()?.iter())
            .map(|&u| f64::from(u.clamp(-self.max_action, self.max_action)))
            .collect();
        let cost = quadratic(&self.state_cost, state) + quadratic(&self.action_cost, &action);
        let moved = times(&self.a, state).into_iter().zip(times(&self.b, &action));
        *state = moved.map(|(x, u)| x + u + self.noise * random.normal()).collect();
        Ok((-cost, false))
    }

    /// A bar for each number of the state, from zero up or down.
    fn draw(&self, LinearQuadraticState(state): &LinearQuadraticState) -> Option<Picture> {
        let width = state.len() as f64;
        let bars = state.iter().enumerate().fold(
            Picture::new([0.0, -1.5], [width, 1.5], 0.1),
            |picture, (at, &x)| {
                picture.rectangle(ARM, [at as f64 + 0.2, x.min(0.0)], [at as f64 + 0.8, x.max(0.0)])
            },
        );
        Some(bars.line(GROUND, [0.0, 0.0], [width, 0.0], 0.02))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Environment, Simulated};

    /// One state: P solves `P = q + γa²P - γ²a²b²P² / (r + γb²P)`, a quadratic equation.
    #[test]
    fn one_dimension_agrees_with_the_formula() {
        let one = |x: f64| Mat::from_fn(1, 1, |_, _| x);
        let (a, b, q, r, discount) = (1.2, 0.5, 2.0, 0.3, 0.9);
        let system = LinearQuadratic {
            a: one(a),
            b: one(b),
            state_cost: one(q),
            action_cost: one(r),
            noise: 0.0,
            max_action: 9.0,
        };
        let optimum = system.optimum(discount);
        let linear = r * (1.0 - discount * a * a) - discount * b * b * q;
        let p =
            (-linear + (linear * linear + 4.0 * discount * b * b * q * r).sqrt()) / (2.0 * discount * b * b);
        assert!((optimum.value[0][0] - p).abs() < 1e-12, "{} {p}", optimum.value[0][0]);
        let gain = discount * a * b * p / (r + discount * b * b * p);
        assert!((optimum.gain[0][0] - gain).abs() < 1e-12);
        assert!((optimum.cost(&[2.0]) - 4.0 * p).abs() < 1e-12);
    }

    /// Mean discounted cost of `u = -scale · gain x` over seeds.
    fn cost(scale: f32, discount: f64) -> f64 {
        let mut system = Simulated::new(LinearQuadratic::default());
        let optimum = system.dynamics().optimum(discount);
        let mut total = 0.0;
        for seed in 0..40 {
            let mut seen = system.reset(Some(seed)).unwrap();
            let mut weight = 1.0;
            for _ in 0..150 {
                let Action::Continuous(action) = optimum.act(&seen) else { unreachable!() };
                let action = Action::Continuous(action.iter().map(|u| u * scale).collect());
                let step = system.step(&action).unwrap();
                total -= weight * step.reward;
                weight *= discount;
                seen = step.observation;
            }
        }
        total / 40.0
    }

    #[test]
    fn the_optimum_costs_what_it_says_and_its_neighbours_more() {
        let discount = 0.95;
        let mut system = Simulated::new(LinearQuadratic::default());
        let optimum = system.dynamics().optimum(discount);
        let said = (0..40).map(|seed| {
            system.reset(Some(seed)).unwrap();
            optimum.cost(&system.state().unwrap().0)
        });
        let (said, best) = (said.sum::<f64>() / 40.0, cost(1.0, discount));
        assert!((best / said - 1.0).abs() < 0.05, "says {said}, costs {best}");
        for scale in [0.8, 1.2] {
            assert!(cost(scale, discount) > best, "{scale}");
        }
    }

    #[test]
    fn without_discount_the_gain_is_finite_and_the_noise_costs_forever() {
        let optimum = LinearQuadratic::default().optimum(1.0);
        assert!(optimum.gain[0][0] > 0.5 && optimum.gain[0][0] < 1.0 && optimum.offset.is_infinite());
    }
}
