//! Draws from distributions that methods and problems share, from a generator made by [`polo_run::seed::Seeds`]. Written
//! out here for the same reason as there: a library may change its algorithm, and with it every run.

use std::f64::consts::TAU;

use polo_run::seed::unit;
use rand_chacha::rand_core::Rng;

/// A number in `0..probabilities.len()`, each as often as its probability (of sum 1) says.
pub fn categorical(probabilities: &[f64], rng: &mut impl Rng) -> usize {
    let mut left = unit(rng);
    for (at, probability) in probabilities.iter().enumerate() {
        left -= probability;
        if left < 0.0 {
            return at;
        }
    }
    // Rounding may leave a hair: it belongs to the last that can be drawn.
    probabilities.iter().rposition(|probability| *probability > 0.0).unwrap_or(0)
}

/// A standard normal number (Box-Muller).
pub fn normal(rng: &mut impl Rng) -> f64 {
    // 1 - u lies in (0, 1], so that the logarithm is finite.
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    radius * (TAU * unit(rng)).cos()
}

/// A number of the gamma distribution with this shape and scale 1 (Marsaglia and Tsang 2000).
pub fn gamma(shape: f64, rng: &mut impl Rng) -> f64 {
    if shape < 1.0 {
        let power = (1.0 - unit(rng)).powf(1.0 / shape);
        return gamma(shape + 1.0, rng) * power;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - unit(rng)).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// `size` probabilities of sum 1 from the symmetric Dirichlet distribution with this concentration.
pub fn dirichlet(concentration: f64, size: usize, rng: &mut impl Rng) -> Vec<f64> {
    dirichlet_with(&vec![concentration; size], rng)
}

/// Probabilities of sum 1 from the Dirichlet distribution with these concentrations.
pub fn dirichlet_with(concentrations: &[f64], rng: &mut impl Rng) -> Vec<f64> {
    loop {
        let draws: Vec<f64> = concentrations.iter().map(|shape| gamma(*shape, rng)).collect();
        let sum: f64 = draws.iter().sum();
        // All may underflow where the concentrations are tiny.
        if sum > 0.0 {
            return draws.iter().map(|x| x / sum).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use polo_run::seed::Seeds;

    use super::*;

    const DRAWS: usize = 40_000;

    #[track_caller]
    fn check(draws: &[f64], mean: f64, variance: f64) {
        let n = draws.len() as f64;
        let found = draws.iter().sum::<f64>() / n;
        let spread = draws.iter().map(|x| (x - found).powi(2)).sum::<f64>() / n;
        assert!((found - mean).abs() < 5.0 * (variance / n).sqrt(), "{found} {mean}");
        assert!((spread / variance - 1.0).abs() < 0.1, "{spread} {variance}");
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut rng = Seeds::new(1).rng("draws", 0);
        check(&(0..DRAWS).map(|_| normal(&mut rng)).collect::<Vec<_>>(), 0.0, 1.0);
        for shape in [0.4, 1.0, 7.5] {
            check(&(0..DRAWS).map(|_| gamma(shape, &mut rng)).collect::<Vec<_>>(), shape, shape);
        }
        // Beta(0.4, 0.8) in each of three coordinates.
        let parts: Vec<f64> = (0..DRAWS).map(|_| dirichlet(0.4, 3, &mut rng)[1]).collect();
        check(&parts, 1.0 / 3.0, (2.0 / 9.0) / 2.2);
        // Beta(2, 3).
        let parts: Vec<f64> = (0..DRAWS).map(|_| dirichlet_with(&[2.0, 1.0, 2.0], &mut rng)[0]).collect();
        check(&parts, 0.4, 0.04);
    }

    #[test]
    fn categories_come_as_often_as_they_should() {
        let mut rng = Seeds::new(2).rng("draws", 0);
        let probabilities = [0.2, 0.0, 0.5, 0.3, 0.0];
        let mut counts = [0.0; 5];
        (0..DRAWS).for_each(|_| counts[categorical(&probabilities, &mut rng)] += 1.0);
        for (count, p) in counts.iter().zip(probabilities) {
            assert!((count / DRAWS as f64 - p).abs() < 0.0125, "{counts:?}");
        }
        assert_eq!((counts[1], counts[4]), (0.0, 0.0));
    }
}
