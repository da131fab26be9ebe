//! Linear-quadratic control with an entropy bonus (Wang, Zariphopoulou, Zhou 2020), where the best policy is Gaussian and
//! its value is known: the value that an evaluation of that policy is to find.
//!
//! ```text
//! dX = (A X + u) dt + u dW,   reward  -(x^2 + u^2 / 2) - lambda ln pi(u|x)  per unit of time,   A = -1, lambda = 1
//! rho J = max_pi int pi ( reward + (A x + u) J' + u^2 J'' / 2 ) du
//! J = k x^2 / 2 + c w,   pi(u|x) = N( k x / (1 - k), lambda / (1 - k) ),   c = lambda / 2 ln( 2 pi lambda / (1 - k) )
//! (1 + rho - 2 A) k^2 + (2 A - rho + 2) k - 2 = 0,   k < 0
//! ```
//!
//! w is 1 / rho without end. With an end at T and the terminal reward k x^2 / 2 the same policy is the best at all times, and
//! w = (1 - e^(-rho (T-t))) / rho.

use std::f64::consts::TAU;

use rand_chacha::rand_core::Rng;

use crate::draw::normal;

/// A.
const PULL: f64 = -1.0;
/// lambda, the temperature.
const TEMPERATURE: f64 = 1.0;

/// The best policy at a discount rate, and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exploratory {
    /// k.
    pub curvature: f64,
    /// The mean of the action over the state.
    pub gain: f64,
    /// The variance of the action.
    pub variance: f64,
    /// c, what the terms of the value without x are per unit of time.
    pub constant: f64,
}

impl Exploratory {
    /// At the discount rate rho.
    pub fn new(rho: f64) -> Self {
        let (square, line) = (1.0 + rho - 2.0 * PULL, 2.0 * PULL - rho + 2.0);
        let curvature = (-line - (line * line + 8.0 * square).sqrt()) / (2.0 * square);
        let variance = TEMPERATURE / (1.0 - curvature);
        let constant = 0.5 * TEMPERATURE * (TAU * variance).ln();
        Self { curvature, gain: curvature / (1.0 - curvature), variance, constant }
    }

    /// The part of the value that depends on the state: the terminal reward, where there is an end.
    pub fn base(self, x: f64) -> f64 {
        0.5 * self.curvature * x * x
    }

    /// A state of about the law that the policy leads to.
    pub fn start(self, rng: &mut impl Rng) -> f64 {
        // E X^2 of dX = (A + gain) X dt + sqrt(gain^2 X^2 + variance) dW.
        let square = self.variance / (-2.0 * (PULL + self.gain) - self.gain * self.gain);
        square.sqrt() * normal(rng)
    }

    /// The reward at x for an action of the policy, with its bonus, and the state after dt under that action: exact, as
    /// the equation is linear while the action stands.
    pub fn step(self, x: f64, dt: f64, rng: &mut impl Rng) -> (f64, f64) {
        let draw = normal(rng);
        let action = self.gain * x + self.variance.sqrt() * draw;
        let log_density = -0.5 * (draw * draw + (TAU * self.variance).ln());
        let reward = -x * x - 0.5 * action * action - TEMPERATURE * log_density;
        let kept = (PULL * dt).exp();
        let spread = (((2.0 * PULL * dt).exp() - 1.0) / (2.0 * PULL)).sqrt();
        (reward, kept * x + (kept - 1.0) / PULL * action + spread * action * normal(rng))
    }
}

/// (1 - e^(-rho left)) / rho.
pub fn discounted_time(rho: f64, left: f64) -> f64 {
    if rho == 0.0 { left } else { -(-rho * left).exp_m1() / rho }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// k and c of the value of a policy N(gain x, variance), best or not.
    fn value_of(gain: f64, variance: f64, rho: f64) -> (f64, f64) {
        let k = -(2.0 + gain * gain) / (rho - 2.0 * (PULL + gain) - gain * gain);
        let bonus = 0.5 * TEMPERATURE * (TAU * 1_f64.exp() * variance).ln();
        (k, 0.5 * (k - 1.0) * variance + bonus)
    }

    #[test]
    fn the_policy_is_the_best_of_its_kind_and_has_the_value() {
        for rho in [0.1, 0.5, 2.0] {
            let best = Exploratory::new(rho);
            let value = |gain, variance| {
                let (k, c) = value_of(gain, variance, rho);
                0.5 * k * 0.49 + c / rho
            };
            let (k, c) = value_of(best.gain, best.variance, rho);
            assert!((k - best.curvature).abs() < 1e-12 && (c - best.constant).abs() < 1e-12);
            let top = value(best.gain, best.variance);
            for (gain, variance) in [(0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)] {
                assert!(value(best.gain + gain, best.variance + variance) < top);
            }
        }
    }

    /// rho J = lambda ln int exp( (reward of u + (A x + u) J' + u^2 J'' / 2) / lambda ) du, by the trapezium rule.
    #[test]
    fn the_value_solves_the_equation_of_control() {
        for (rho, x) in [(0.0, 0.0), (0.5, 0.7), (0.5, -2.0), (2.0, 1.3)] {
            let Exploratory { curvature: k, constant, .. } = Exploratory::new(rho);
            let integrand = |u: f64| {
                ((-x * x - 0.5 * u * u + (PULL * x + u) * k * x + 0.5 * u * u * k) / TEMPERATURE).exp()
            };
            let integral: f64 = (-20_000..=20_000).map(|i| 1e-3 * integrand(f64::from(i) * 1e-3)).sum();
            let right = TEMPERATURE * integral.ln();
            assert!((0.5 * rho * k * x * x + constant - right).abs() < 1e-9, "{rho} {x} {right}");
        }
    }

    #[test]
    fn discounted_time_is_continuous_in_the_rate() {
        assert!((discounted_time(1e-9, 2.0) - discounted_time(0.0, 2.0)).abs() < 1e-8);
        assert!((discounted_time(0.5, 2.0) - 2.0 * (1.0 - (-1_f64).exp())).abs() < 1e-15);
    }
}
