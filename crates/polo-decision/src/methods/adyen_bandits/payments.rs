//! Requests for a decision about a payment, each with the actions that it admits, and a simulated stream of them.
//!
//! ```text
//! P(r = 1 | x, a) = sigmoid(c_a + A_a . x + x^T B_a x),   x ~ N(0, I)
//! A ~ 0.7 N(0, 1),   B ~ 0.35 N(0, 1),   c ~ N(1, 0.5^2),   entry by entry
//! ```
//!
//! With drift, generation after generation each entry goes on as mean + sqrt(1 - drift²) (entry - mean) + drift (new - mean),
//! with a new draw of the same distribution: the world changes, and remains as it is spread.

use polo_run::seed::{Seeds, below, unit};

use crate::{draw::normal, linear::dot, regression::sigmoid};

/// Requests, and which of all actions each admits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    /// Numbers of a context.
    pub width: usize,
    /// `[requests, width]`.
    pub contexts: Vec<f64>,
    /// Actions that each request admits, at least one, rising; `[requests]`.
    pub admitted: Vec<Vec<usize>>,
}

impl Requests {
    /// Number of requests.
    pub fn len(&self) -> usize {
        self.admitted.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.admitted.is_empty()
    }

    /// Contexts and admitted actions, one by one.
    pub fn iter(&self) -> impl Iterator<Item = (&[f64], &[usize])> {
        self.admitted
            .iter()
            .enumerate()
            .map(|(at, admitted)| (&self.contexts[at * self.width..][..self.width], admitted.as_slice()))
    }
}

/// A simulated stream: who is authorised, and how requests come.
#[derive(Clone, Debug, PartialEq)]
pub struct Payments {
    width: usize,
    availability: f64,
    /// c, `[actions]`.
    constants: Vec<f64>,
    /// A, `[actions, width]`.
    slopes: Vec<f64>,
    /// B, `[actions, width, width]`.
    products: Vec<f64>,
}

/// Mean of c.
const LEVEL: f64 = 1.0;

impl Payments {
    /// A stream whose coefficients are drawn; `availability` is the probability with which a request admits an action.
    pub fn draw(width: usize, actions: usize, availability: f64, seeds: &Seeds) -> Self {
        let mut rng = seeds.rng("payments", 0);
        let mut normals = |count: usize, mean: f64, scale: f64| -> Vec<f64> {
            (0..count).map(|_| mean + scale * normal(&mut rng)).collect()
        };
        Self {
            width,
            availability,
            constants: normals(actions, LEVEL, 0.5),
            slopes: normals(actions * width, 0.0, 0.7),
            products: normals(actions * width * width, 0.0, 0.35),
        }
    }

    /// The stream goes on by this share, from 0 (nothing changes) to 1 (all is new), into the generation.
    fn drift(&mut self, share: f64, seeds: &Seeds, generation: u64) {
        let seeds = seeds.child(&format!("drift {generation}"));
        let new = Self::draw(self.width, self.actions(), self.availability, &seeds);
        let kept = (1.0 - share * share).sqrt();
        let mix = |old: &mut [f64], new: &[f64], mean: f64| {
            old.iter_mut()
                .zip(new)
                .for_each(|(old, new)| *old = mean + kept * (*old - mean) + share * (new - mean));
        };
        mix(&mut self.constants, &new.constants, LEVEL);
        mix(&mut self.slopes, &new.slopes, 0.0);
        mix(&mut self.products, &new.products, 0.0);
    }

    /// Number of actions.
    pub fn actions(&self) -> usize {
        self.constants.len()
    }

    /// Probability of a reward of 1.
    pub fn probability(&self, context: &[f64], action: usize) -> f64 {
        let width = self.width;
        let products = &self.products[action * width * width..][..width * width];
        let curved: f64 =
            products.chunks_exact(width).zip(context).map(|(row, x)| x * dot(row, context)).sum();
        sigmoid(self.constants[action] + dot(&self.slopes[action * width..][..width], context) + curved)
    }

    /// `count` new requests, a function of the seeds, the stream's name and the counter. Where none of the actions would be
    /// admitted, one is, each as often.
    pub fn requests(&self, count: usize, seeds: &Seeds, stream: &str, counter: u64) -> Requests {
        let mut rng = seeds.rng(stream, counter);
        let mut requests = Requests { width: self.width, ..Requests::default() };
        for _ in 0..count {
            requests.contexts.extend((0..self.width).map(|_| normal(&mut rng)));
            let mut admitted: Vec<usize> =
                (0..self.actions()).filter(|_| unit(&mut rng) < self.availability).collect();
            if admitted.is_empty() {
                admitted.push(below(&mut rng, self.actions() as u64) as usize);
            }
            requests.admitted.push(admitted);
        }
        requests
    }
}

/// A simulated stream with requests on which the value of policies is known; they are never played.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// The stream.
    pub payments: Payments,
    fresh: Requests,
    /// Expected reward of each admitted action of each fresh request.
    truth: Vec<Vec<f64>>,
    /// Value of playing the best action.
    pub optimal: f64,
    /// Value of playing uniformly.
    pub uniform: f64,
}

impl Simulation {
    /// With `count` fresh requests.
    pub fn new(payments: Payments, count: usize, seeds: &Seeds) -> Self {
        let fresh = payments.requests(count, seeds, "fresh", 0);
        let mut simulation = Self { payments, fresh, truth: Vec::new(), optimal: 0.0, uniform: 0.0 };
        simulation.judge();
        simulation
    }

    /// The stream drifts through these generations, one after the other.
    pub fn drift(&mut self, share: f64, seeds: &Seeds, generations: std::ops::RangeInclusive<u64>) {
        if share > 0.0 {
            generations.for_each(|generation| self.payments.drift(share, seeds, generation));
            self.judge();
        }
    }

    fn judge(&mut self) {
        let payments = &self.payments;
        let of = |(x, admitted): (&[f64], &[usize])| -> Vec<f64> {
            admitted.iter().map(|a| payments.probability(x, *a)).collect()
        };
        let truth: Vec<Vec<f64>> = self.fresh.iter().map(of).collect();
        let over = |of: &dyn Fn(&Vec<f64>) -> f64| truth.iter().map(of).sum::<f64>() / truth.len() as f64;
        self.optimal = over(&|row| row.iter().copied().fold(0.0, f64::max));
        self.uniform = over(&|row| row.iter().sum::<f64>() / row.len() as f64);
        self.truth = truth;
    }

    /// Expected reward of a policy that plays the admitted action at the place that `choose` tells.
    pub fn value(&self, choose: impl Fn(&[f64], &[usize]) -> usize) -> f64 {
        let rows = self.fresh.iter().zip(&self.truth);
        rows.map(|((x, admitted), truth)| truth[choose(x, admitted)]).sum::<f64>() / self.truth.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use polo_run::stats::{mean, sample_std};

    use super::*;

    /// However long it drifts, coefficients are spread as they were drawn, and are others.
    #[test]
    fn a_drifting_world_keeps_its_spread() {
        let seeds = Seeds::new(3);
        let first = Payments::draw(6, 60, 0.7, &seeds);
        let mut payments = first.clone();
        (1..=30).for_each(|generation| payments.drift(0.5, &seeds, generation));
        let check = |found: &[f64], centre: f64, spread: f64| {
            let (error, count) = (4.0 * spread, found.len() as f64);
            assert!((mean(found).unwrap() - centre).abs() < error / count.sqrt());
            assert!((sample_std(found).unwrap() - spread).abs() < error / (2.0 * count).sqrt());
        };
        check(&payments.constants, 1.0, 0.5);
        check(&payments.slopes, 0.0, 0.7);
        check(&payments.products, 0.0, 0.35);
        let same = dot(&payments.slopes, &first.slopes) / dot(&first.slopes, &first.slopes);
        // 360 independent pairs: four standard errors.
        assert!(same.abs() < 0.22, "{same}");
        let mut still = first.clone();
        still.drift(0.0, &seeds, 1);
        assert_eq!(still, first);
    }
}
