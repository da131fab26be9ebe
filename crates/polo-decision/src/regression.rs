//! Linear and logistic regression with weights and a penalty, by damped Newton steps.

use crate::linear::{Matrix, dot};

/// 1 / (1 + e^(-x)).
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// e^x / Σ e^x.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = logits.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = raw.iter().sum();
    raw.iter().map(|x| x / sum).collect()
}

/// Least Σ w loss(r, x β) + Σ penalty (β - centre)² / 2, loss being squares / 2 or cross-entropy.
#[derive(Clone, Debug)]
pub struct Regression {
    /// x, `[rows, size]`.
    pub inputs: Vec<f64>,
    /// r, `[rows]`; in [0, 1] for cross-entropy.
    pub rewards: Vec<f64>,
    /// w, `[rows]`.
    pub weights: Vec<f64>,
    /// Pull of each coefficient, `[size]`, 0 or more.
    pub penalties: Vec<f64>,
    /// Where each coefficient is pulled, `[size]`, and where the search begins.
    pub centre: Vec<f64>,
    /// Whether the loss is cross-entropy.
    pub logistic: bool,
}

impl Regression {
    /// β by at most `most_steps` Newton steps, of which squares need one, halved until the loss falls (Armijo, 1e-4). They
    /// end once no part of the gradient is above `gradient`, or when rounding is all that is left of it. None where the
    /// curvature is not positive.
    pub fn solve(&self, gradient: f64, most_steps: usize) -> Option<Vec<f64>> {
        let mut beta = self.centre.clone();
        let mut loss = self.loss(&beta);
        for _ in 0..most_steps {
            let (slope, curvature) = self.derivatives(&beta);
            if slope.iter().all(|s| s.abs() <= gradient) {
                break;
            }
            let step = curvature.inverse()?.times(&slope);
            let decrease = dot(&slope, &step);
            let mut length = 1.0;
            let next = loop {
                let next: Vec<f64> = beta.iter().zip(&step).map(|(b, s)| b - length * s).collect();
                let found = self.loss(&next);
                // Rounding of the loss must not reject a step that is smaller than it shows.
                if found <= loss - 1e-4 * length * decrease + 1e-14 * (1.0 + loss.abs()) {
                    loss = found;
                    break Some(next);
                }
                length /= 2.0;
                if length < 1e-6 {
                    break None;
                }
            };
            // No step lessens the loss: rounding is all that is left of the slope.
            let Some(next) = next else { break };
            beta = next;
            // The error of the next step would be the square of this one's: below rounding.
            if decrease <= 1e-20 * (1.0 + loss.abs()) {
                break;
            }
        }
        beta.iter().all(|b| b.is_finite()).then_some(beta)
    }

    /// The inverse of the loss's second derivative at `beta`; none where the curvature is not positive.
    pub fn inverse_curvature(&self, beta: &[f64]) -> Option<Matrix> {
        self.derivatives(beta).1.inverse()
    }

    fn rows(&self) -> impl Iterator<Item = (&[f64], f64, f64)> {
        self.inputs
            .chunks_exact(self.centre.len())
            .zip(&self.rewards)
            .zip(&self.weights)
            .map(|((x, &r), &w)| (x, r, w))
    }

    fn pulls(&self, beta: &[f64]) -> Vec<f64> {
        beta.iter().zip(&self.centre).zip(&self.penalties).map(|((b, c), p)| p * (b - c)).collect()
    }

    fn loss(&self, beta: &[f64]) -> f64 {
        let held: f64 =
            self.pulls(beta).iter().zip(beta).zip(&self.centre).map(|((pull, b), c)| pull * (b - c)).sum();
        let of_row = |(x, r, w): (&[f64], f64, f64)| {
            let score = dot(x, beta);
            // ln(1 + exp(s)) - r s, without overflow.
            let entropy = || score.max(0.0) + (-score.abs()).exp().ln_1p() - r * score;
            w * if self.logistic { entropy() } else { 0.5 * (r - score).powi(2) }
        };
        self.rows().map(of_row).sum::<f64>() + 0.5 * held
    }

    fn derivatives(&self, beta: &[f64]) -> (Vec<f64>, Matrix) {
        let size = self.centre.len();
        let mut curvature = Matrix::identity(size, 0.0);
        self.penalties.iter().enumerate().for_each(|(at, p)| curvature.numbers[at * size + at] = *p);
        let mut slope = self.pulls(beta);
        for (x, r, w) in self.rows() {
            let score = dot(x, beta);
            let mean = if self.logistic { sigmoid(score) } else { score };
            slope.iter_mut().zip(x).for_each(|(s, x)| *s += w * (mean - r) * x);
            curvature.add_outer(x, if self.logistic { w * mean * (1.0 - mean) } else { w });
        }
        (slope, curvature)
    }
}

#[cfg(test)]
mod tests {
    use polo_run::seed::Seeds;

    use super::*;
    use crate::synthetic::Synthetic;

    /// A fit whose steps once went to and fro at the size of rounding until there were no more.
    #[test]
    fn a_fit_to_the_last_bits_ends() {
        let (actions, rows, seeds) = (16, 2000, Seeds::new(1));
        let log = Synthetic::new(actions, 5, &seeds).unwrap().log(1.0, rows, &seeds);
        let order = seeds.shuffled(rows, "folds", 0);
        let others: Vec<usize> = order[..rows / 3].iter().chain(&order[2 * rows / 3..]).copied().collect();
        let input = |row: &usize| {
            let action = (0..actions).map(|a| f64::from(u8::from(a == log.actions[*row])));
            log.context(*row).iter().copied().chain(action).chain([1.0]).collect::<Vec<f64>>()
        };
        let size = 5 + actions + 1;
        let mut penalties = vec![1.0; size];
        penalties[size - 1] = 0.0;
        let problem = Regression {
            inputs: others.iter().flat_map(input).collect(),
            rewards: others.iter().map(|row| log.rewards[*row]).collect(),
            weights: vec![1.0; others.len()],
            penalties,
            centre: vec![0.0; size],
            logistic: true,
        };
        let found = problem.solve(0.0, 100).unwrap();
        assert_eq!(problem.solve(0.0, 10).unwrap(), found);
        let (slope, _) = problem.derivatives(&found);
        assert!(slope.iter().all(|s| s.abs() < 1e-10), "{slope:?}");
    }

    #[test]
    fn a_centred_logistic_fit_is_stationary() {
        let centre = vec![0.5, -0.2];
        let fit = |inputs: Vec<f64>, rewards: Vec<f64>| {
            let weights = vec![1.0; rewards.len()];
            let penalties = vec![1.0; 2];
            Regression { inputs, rewards, weights, penalties, centre: centre.clone(), logistic: true }
                .solve(1e-10, 30)
                .unwrap()
        };
        assert_eq!(fit(Vec::new(), Vec::new()), centre);
        let beta = fit(vec![1.0, 2.0, 1.0, -1.0], vec![1.0, 0.0]);
        let miss = [sigmoid(beta[0] + 2.0 * beta[1]) - 1.0, sigmoid(beta[0] - beta[1])];
        let slope = [miss[0] + miss[1] + beta[0] - centre[0], 2.0 * miss[0] - miss[1] + beta[1] - centre[1]];
        assert!(slope.iter().all(|s| s.abs() < 1e-9), "{slope:?}");
        // One row of one number, at 0: curvature 1 + 3 * 2^2 / 4.
        let one = Regression {
            inputs: vec![2.0],
            rewards: vec![0.5],
            weights: vec![3.0],
            penalties: vec![1.0],
            centre: vec![0.0],
            logistic: true,
        };
        assert_eq!(one.inverse_curvature(&[0.0]).unwrap().numbers, [0.25]);
        // Where full Newton steps diverge: all rows far out on one side.
        let far = fit([1.0, 30.0].repeat(200), vec![1.0; 200]);
        assert!(far.iter().all(|b| b.abs() < 2.0), "{far:?}");
    }
}
