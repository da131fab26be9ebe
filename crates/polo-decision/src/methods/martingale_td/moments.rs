//! What a path says about the weights of a value function: for every estimator a vector g and a matrix S, so that the
//! estimate solves S theta = g and a step of learning is theta <- theta + alpha (g - S theta).

use serde::{Deserialize, Serialize};

use crate::linear::{Matrix, dot};

/// A path on its grid, with the family of value functions J(t_i, X_i) = base_i + theta . features_i along it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// t_0 .. t_n.
    pub times: Vec<f64>,
    /// Reward per unit of time from t_i on; the last one is not used.
    pub rewards: Vec<f64>,
    /// J_0, `[n + 1]`; at the end the terminal reward, where there is one.
    pub base: Vec<f64>,
    /// `[n + 1, d]`; 0 at the end where there is a terminal reward, so that every J of the family meets it.
    pub features: Vec<f64>,
    /// d.
    pub width: usize,
    /// Test functions, `[n + 1, k]`; the features where empty.
    pub tests: Vec<f64>,
    /// Whether the last point is the horizon with its terminal reward, not a cut.
    pub ends: bool,
    /// The true value at every point, where it is known.
    pub truth: Vec<f64>,
}

impl Path {
    /// n.
    pub fn steps(&self) -> usize {
        self.times.len() - 1
    }

    /// t_{i+1} - t_i.
    pub fn dt(&self, i: usize) -> f64 {
        self.times[i + 1] - self.times[i]
    }

    /// The features at point i, `[d]`.
    pub fn feature(&self, i: usize) -> &[f64] {
        &self.features[i * self.width..][..self.width]
    }

    /// k.
    pub fn test_width(&self) -> usize {
        if self.tests.is_empty() { self.width } else { self.tests.len() / self.times.len() }
    }

    /// The test functions at point i, `[k]`: those at the left end of a step, as Ito's integral wants.
    fn test(&self, i: usize) -> &[f64] {
        if self.tests.is_empty() {
            self.feature(i)
        } else {
            &self.tests[i * self.test_width()..][..self.test_width()]
        }
    }

    /// Every `by`-th point of the path, and its last.
    pub fn coarsened(&self, by: usize) -> Self {
        let n = self.steps();
        let kept: Vec<usize> = (0..n).step_by(by).chain([n]).collect();
        let pick = |numbers: &[f64]| {
            let width = numbers.len() / (n + 1);
            kept.iter().flat_map(|i| numbers[i * width..][..width].to_vec()).collect()
        };
        Self {
            times: pick(&self.times),
            rewards: pick(&self.rewards),
            base: pick(&self.base),
            features: pick(&self.features),
            tests: pick(&self.tests),
            truth: pick(&self.truth),
            width: self.width,
            ends: self.ends,
        }
    }
}

/// How a step is discounted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Discount {
    /// rho, per unit of time.
    pub rate: f64,
    /// Whether dM = e^(-rho dt) J' - J + r dt, the textbook's error with gamma = e^(-rho dt), in place of
    /// J' - J + r dt - rho J dt.
    pub exact: bool,
}

impl Discount {
    /// What J' and J count in dM.
    fn factors(self, dt: f64) -> (f64, f64) {
        if self.exact { ((-self.rate * dt).exp(), 1.0) } else { (1.0, 1.0 + self.rate * dt) }
    }

    /// dM_i = a + theta . b: writes b, gives a.
    fn increment(self, path: &Path, i: usize, b: &mut [f64]) -> f64 {
        let dt = path.dt(i);
        let (next, now) = self.factors(dt);
        let (features, later) = (path.feature(i), path.feature(i + 1));
        b.iter_mut().zip(features).zip(later).for_each(|((b, f), l)| *b = next * l - now * f);
        next * path.base[i + 1] - now * path.base[i] + path.rewards[i] * dt
    }

    /// dM of a step under theta.
    pub fn error(self, path: &Path, i: usize, theta: &[f64]) -> f64 {
        let dt = path.dt(i);
        let (next, now) = self.factors(dt);
        let value = |i: usize| path.base[i] + dot(theta, path.feature(i));
        next * value(i + 1) - now * value(i) + path.rewards[i] * dt
    }

    /// The discounted rewards from every point to the end, with the terminal reward or `last` for it, `[n + 1]`.
    pub fn returns(self, path: &Path, last: f64) -> Vec<f64> {
        let mut returns = vec![last; path.times.len()];
        for i in (0..path.steps()).rev() {
            let dt = path.dt(i);
            returns[i] = path.rewards[i] * dt + (-self.rate * dt).exp() * returns[i + 1];
        }
        returns
    }

    /// The martingale loss of one path, 1/2 sum (M_T - M_i)^2 dt. Where the path is cut, the value stands for the rest.
    pub fn martingale_loss(self, path: &Path, theta: &[f64]) -> f64 {
        let value = |i: usize| path.base[i] + dot(theta, path.feature(i));
        let returns = self.returns(path, value(path.steps()));
        0.5 * (0..path.steps()).map(|i| (returns[i] - value(i)).powi(2) * path.dt(i)).sum::<f64>()
    }
}

/// Adapted test processes: features or test functions, remembered at the rate lambda per unit of time.
#[derive(Clone, Debug)]
pub struct Trace {
    lambda: f64,
    z: Vec<f64>,
}

impl Trace {
    /// At the start of a path with `width` test functions.
    pub fn new(lambda: f64, width: usize) -> Self {
        Self { lambda, z: vec![0.0; width] }
    }

    /// xi_i: the test function itself for lambda = 0, by convention without dt; otherwise
    /// z_i = lambda^dt z_{i-1} + test_i dt_i.
    pub fn at(&mut self, path: &Path, i: usize) -> &[f64] {
        let test = path.test(i);
        if self.lambda == 0.0 {
            self.z.copy_from_slice(test);
        } else {
            let kept = if i == 0 { 0.0 } else { self.lambda.powf(path.dt(i - 1)) };
            let dt = path.dt(i);
            self.z.iter_mut().zip(test).for_each(|(z, test)| *z = kept * *z + test * dt);
        }
        &self.z
    }
}

/// Sums over paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// `[k]`.
    pub g: Vec<f64>,
    /// S, `[k, d]`.
    pub slope: Vec<f64>,
    /// sum xi xi^T dt, `[k, k]`; kept for the orthogonality conditions alone.
    pub gram: Matrix,
    /// Paths in the sums.
    pub paths: u64,
}

impl Moments {
    /// Of no path, with k test functions and d features.
    pub fn new(k: usize, d: usize) -> Self {
        Self { g: vec![0.0; k], slope: vec![0.0; k * d], gram: Matrix::identity(k, 0.0), paths: 0 }
    }

    fn add(&mut self, x: &[f64], g: f64, y: &[f64], s: f64) {
        for ((row, total), x) in self.slope.chunks_exact_mut(y.len()).zip(&mut self.g).zip(x) {
            *total += x * g;
            row.iter_mut().zip(y).for_each(|(slope, y)| *slope += x * y * s);
        }
    }

    /// Adds a path for the martingale loss: minus its gradient, sum psi_i (M_T - M_i) dt. It uses the whole future.
    pub fn add_martingale_loss(&mut self, path: &Path, discount: Discount) {
        let returns = discount.returns(path, path.base[path.steps()]);
        for (i, rest) in returns[..path.steps()].iter().enumerate() {
            let (psi, dt) = (path.feature(i), path.dt(i));
            self.add(psi, (rest - path.base[i]) * dt, psi, dt);
        }
        self.paths += 1;
    }

    /// Adds a path for the mean-square error of dM / dt: minus its gradient, - sum b_i dM_i / dt.
    pub fn add_mean_square(&mut self, path: &Path, discount: Discount) {
        let mut b = vec![0.0; path.width];
        for i in 0..path.steps() {
            let a = discount.increment(path, i, &mut b);
            self.add(&b, -a / path.dt(i), &b, 1.0 / path.dt(i));
        }
        self.paths += 1;
    }

    /// Adds a path for the orthogonality conditions: sum xi_i dM_i.
    pub fn add_orthogonality(&mut self, path: &Path, discount: Discount, lambda: f64) {
        let (mut b, mut trace) = (vec![0.0; path.width], Trace::new(lambda, path.test_width()));
        for i in 0..path.steps() {
            let a = discount.increment(path, i, &mut b);
            let xi = trace.at(path, i);
            self.add(xi, a, &b, -1.0);
            self.gram.add_outer(xi, path.dt(i));
        }
        self.paths += 1;
    }

    /// d.
    pub fn width(&self) -> usize {
        self.slope.len() / self.g.len()
    }

    /// The mean over paths of g - S theta, `[k]`.
    pub fn residual(&self, theta: &[f64]) -> Vec<f64> {
        let rows = self.slope.chunks_exact(theta.len());
        let paths = self.paths as f64;
        rows.zip(&self.g).map(|(row, g)| (g - dot(row, theta)) / paths).collect()
    }

    /// The mean over paths of S^T u, `[d]`.
    pub fn pull_back(&self, u: &[f64]) -> Vec<f64> {
        let mut found = vec![0.0; self.width()];
        for (row, u) in self.slope.chunks_exact(self.width()).zip(u) {
            found.iter_mut().zip(row).for_each(|(sum, slope)| *sum += slope * u / self.paths as f64);
        }
        found
    }

    /// theta of S theta = g, with `ridge` on the diagonal of the mean S. With more test functions than weights, the least
    /// g - S theta in the metric of the inverse Gram matrix (generalised method of moments). None if not determined.
    pub fn solve(&self, ridge: f64) -> Option<Vec<f64>> {
        let (k, d) = (self.g.len(), self.width());
        let ridge = ridge * self.paths as f64;
        let (mut matrix, right) = if k == d {
            (Matrix { size: d, numbers: self.slope.clone() }, self.g.clone())
        } else {
            let inverse = self.gram.inverse()?;
            let columns: Vec<Vec<f64>> =
                (0..d).map(|j| self.slope.iter().skip(j).step_by(d).copied().collect()).collect();
            let weighted: Vec<Vec<f64>> = columns.iter().map(|column| inverse.times(column)).collect();
            let numbers = weighted.iter().flat_map(|w| columns.iter().map(|column| dot(w, column))).collect();
            (Matrix { size: d, numbers }, weighted.iter().map(|w| dot(w, &self.g)).collect())
        };
        (0..d).for_each(|i| matrix.numbers[i * d + i] += ridge);
        let theta = matrix.solve(&right);
        theta.iter().all(|weight| weight.is_finite()).then_some(theta)
    }
}
