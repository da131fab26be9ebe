//! A synthetic bandit whose every policy has a known value, after the one of the Open Bandit Pipeline: contexts
//! x ~ N(0, I), rewards 0 or 1 with chance q(x, a) = σ(x · M_a + c · x + b_a), all coefficients from U(-1, 1).

use polo_run::{
    Problem, Result,
    seed::{Seeds, unit},
};

use crate::{
    draw,
    linear::{dot, normals},
    logged::{Log, Policy},
    regression::softmax,
};

/// A bandit.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// Number of actions.
    pub actions: usize,
    /// Numbers of a context.
    pub width: usize,
    /// M and c together, `[actions, width]`.
    slopes: Vec<f64>,
    /// b, `[actions]`.
    offsets: Vec<f64>,
}

/// Contexts of more numbers make the exact value too dear.
const MOST_WIDTH: usize = 6;

impl Synthetic {
    /// A bandit, drawn from the seeds.
    ///
    /// # Errors
    /// No action, or contexts of more than 6 numbers, for which no exact value can be computed.
    pub fn new(actions: usize, width: usize, seeds: &Seeds) -> Result<Self> {
        if actions == 0 || width > MOST_WIDTH {
            let text = format!("a synthetic bandit of {actions} actions and contexts of {width} numbers");
            return Err(
                Problem::usage(text).hint(format!("at least one action, at most {MOST_WIDTH} numbers"))
            );
        }
        let mut rng = seeds.rng("bandit", 0);
        let mut draws =
            |count: usize| -> Vec<f64> { (0..count).map(|_| 2.0 * unit(&mut rng) - 1.0).collect() };
        let (own, shared, offsets) = (draws(actions * width), draws(width), draws(actions));
        let slopes = own.iter().enumerate().map(|(at, slope)| slope + shared[at % width]).collect();
        Ok(Self { actions, width, slopes, offsets })
    }

    /// q(x, ·): each action's chance of a reward.
    pub fn chances(&self, context: &[f64]) -> Vec<f64> {
        (0..self.actions)
            .map(|a| {
                let score = dot(&self.slopes[a * self.width..][..self.width], context) + self.offsets[a];
                1.0 / (1.0 + (-score).exp())
            })
            .collect()
    }

    /// The policy softmax(β q(x, ·)): uniform at β = 0, the best one as β grows, the worst as it falls.
    pub fn softmax(&self, beta: f64, context: &[f64]) -> Vec<f64> {
        tempered(beta, &self.chances(context))
    }

    /// Logs `rows` decisions of softmax(β q).
    pub fn log(&self, beta: f64, rows: usize, seeds: &Seeds) -> Log {
        let mut log = Log {
            action_count: self.actions,
            width: self.width,
            positions: vec![0; rows],
            contexts: normals(seeds, rows * self.width, "contexts", 0),
            ..Log::default()
        };
        let mut rng = seeds.rng("decisions", 0);
        for row in 0..rows {
            let chances = self.chances(log.context(row));
            let policy = tempered(beta, &chances);
            let action = draw::categorical(&policy, &mut rng);
            let reward = unit(&mut rng) < chances[action];
            log.actions.push(action);
            log.propensities.push(policy[action]);
            log.rewards.push(f64::from(u8::from(reward)));
        }
        log
    }

    /// softmax(β q) in the contexts of a log.
    pub fn policy(&self, beta: f64, log: &Log) -> Policy {
        let probabilities = (0..log.len()).flat_map(|row| self.softmax(beta, log.context(row))).collect();
        Policy { action_count: self.actions, probabilities }
    }

    /// The value of softmax(β q) over all contexts, to about six digits.
    ///
    /// An integral against a normal density, by the trapezoid rule on a grid, whose error falls exponentially with the
    /// step for functions as smooth as this one; a Monte Carlo estimate as good would need 10¹⁰ contexts.
    pub fn value(&self, beta: f64) -> f64 {
        self.value_on_grid(beta, 0.6, 40.0)
    }

    /// By a grid of this step, inside of the ball of this squared radius.
    fn value_on_grid(&self, beta: f64, step: f64, most: f64) -> f64 {
        let reach = (most.sqrt() / step).floor() as i32;
        let mut context = vec![0.0; self.width];
        let (mut sum, mut total) = (0.0, 0.0);
        let mut places = vec![-reach; self.width];
        loop {
            context.iter_mut().zip(&places).for_each(|(x, place)| *x = f64::from(*place) * step);
            let square = dot(&context, &context);
            if square <= most {
                let weight = (-0.5 * square).exp();
                let chances = self.chances(&context);
                sum += weight * dot(&tempered(beta, &chances), &chances);
                total += weight;
            }
            let Some(at) = places.iter().position(|place| *place < reach) else { break };
            places[at] += 1;
            places[..at].fill(-reach);
        }
        sum / total
    }
}

fn tempered(beta: f64, chances: &[f64]) -> Vec<f64> {
    softmax(&chances.iter().map(|q| beta * q).collect::<Vec<f64>>())
}

#[cfg(test)]
mod tests {
    use polo_run::stats;

    use super::*;
    use crate::estimators::Estimator;

    fn bandit(seed: u64) -> Synthetic {
        Synthetic::new(10, 5, &Seeds::new(seed)).unwrap()
    }

    #[test]
    fn values_are_integrals() {
        for seed in 0..2 {
            let bandit = bandit(seed);
            let value = bandit.value(8.0);
            let finer = bandit.value_on_grid(8.0, 0.5, 40.0);
            assert!((value - finer).abs() < 2e-6, "{value} {finer}");
            let log = bandit.log(1.0, 40_000, &Seeds::new(seed));
            let each: Vec<f64> = (0..log.len())
                .map(|row| dot(&bandit.softmax(8.0, log.context(row)), &bandit.chances(log.context(row))))
                .collect();
            let drawn = stats::t_interval(&each, "contexts");
            let (low, high) = drawn.interval.unwrap();
            assert!((drawn.mean - value).abs() < 2.0 * (high - low) / 2.0, "{drawn} {value}");
        }
        assert!(Synthetic::new(3, 7, &Seeds::new(0)).is_err());
        assert!(Synthetic::new(0, 2, &Seeds::new(0)).is_err());
    }

    #[test]
    fn logs_follow_the_bandit() {
        let bandit = bandit(3);
        let log = bandit.log(1.0, 20_000, &Seeds::new(4));
        assert_eq!(log, bandit.log(1.0, 20_000, &Seeds::new(4)));
        // Rewards of the log have the mean of the logging policy's value; weights of any policy the mean 1.
        let spread = 1.0 / (4.0 * log.len() as f64).sqrt();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        assert!((mean(&log.rewards) - bandit.value(1.0)).abs() < 4.0 * spread);
        let evaluated = bandit.policy(8.0, &log).rows(&log, None);
        let weights = evaluated.with(&log).weights();
        let error = stats::sample_std(&weights).unwrap() / (weights.len() as f64).sqrt();
        assert!((mean(&weights) - 1.0).abs() < 4.0 * error);
    }

    /// IPS over independent logs: within 4 standard errors of the exact value, for logging policies good and bad.
    #[test]
    fn inverse_propensities_pass_a_z_test() {
        for (seed, beta) in [(0, -3.0), (1, 1.0)] {
            let bandit = bandit(seed);
            let estimates: Vec<f64> = (0..150)
                .map(|repeat| {
                    let log = bandit.log(beta, 300, &Seeds::new(100 + repeat));
                    let evaluated = bandit.policy(8.0, &log).rows(&log, None);
                    Estimator::Ips(f64::INFINITY).value(&evaluated.with(&log))
                })
                .collect();
            let error = stats::sample_std(&estimates).unwrap() / (estimates.len() as f64).sqrt();
            let z = (stats::mean(&estimates).unwrap() - bandit.value(8.0)) / error;
            assert!(z.abs() < 4.0, "β {beta}: z {z}");
        }
    }
}
