//! Small dense linear algebra in f64, in the words that methods use: symmetric positive definite matrices of features.
//! A thin layer over faer; nothing here is worth vectorising further.

use faer::{Mat, Side, linalg::solvers::Solve};

/// A square matrix, row-major.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Matrix {
    /// Rows and columns.
    pub size: usize,
    /// `[size, size]`.
    pub numbers: Vec<f64>,
}

impl Matrix {
    /// `diagonal` times the identity.
    pub fn identity(size: usize, diagonal: f64) -> Self {
        let mut numbers = vec![0.0; size * size];
        (0..size).for_each(|i| numbers[i * size + i] = diagonal);
        Self { size, numbers }
    }

    /// Of these numbers, `[size, size]`.
    ///
    /// # Panics
    /// With another number of numbers.
    pub fn of(size: usize, numbers: Vec<f64>) -> Self {
        assert_eq!(numbers.len(), size * size);
        Self { size, numbers }
    }

    /// Adds to one number of the diagonal.
    pub fn add_to_diagonal(&mut self, at: usize, more: f64) {
        self.numbers[at * self.size + at] += more;
    }

    /// Adds `weight · x xᵀ`.
    pub fn add_outer(&mut self, x: &[f64], weight: f64) {
        for (row, a) in self.numbers.chunks_exact_mut(self.size).zip(x) {
            row.iter_mut().zip(x).for_each(|(m, b)| *m += weight * a * b);
        }
    }

    /// The number in row `i`, column `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.numbers[i * self.size + j]
    }

    /// This matrix times a vector.
    pub fn times(&self, x: &[f64]) -> Vec<f64> {
        self.numbers.chunks_exact(self.size).map(|row| dot(row, x)).collect()
    }

    /// xᵀ M x.
    pub fn quadratic(&self, x: &[f64]) -> f64 {
        self.numbers.chunks_exact(self.size).zip(x).map(|(row, a)| a * dot(row, x)).sum()
    }

    /// Turns the inverse of a symmetric matrix A, which this is, into that of A + x xᵀ (Sherman-Morrison).
    pub fn update_inverse(&mut self, x: &[f64]) {
        let along = self.times(x);
        let scale = -1.0 / (1.0 + dot(x, &along));
        self.add_outer(&along, scale);
    }

    fn faer(&self) -> Mat<f64> {
        Mat::from_fn(self.size, self.size, |i, j| self.at(i, j))
    }

    /// The inverse of a symmetric positive definite matrix; none if it is not one.
    pub fn inverse(&self) -> Option<Self> {
        let factor = self.faer().llt(Side::Lower).ok()?;
        let inverse = factor.solve(Mat::<f64>::identity(self.size, self.size));
        let numbers =
            (0..self.size * self.size).map(|at| inverse[(at / self.size, at % self.size)]).collect();
        Some(Self { size: self.size, numbers })
    }

    /// The solution of M y = x for a square matrix, by LU with partial pivoting; not finite if it is singular.
    pub fn solve(&self, x: &[f64]) -> Vec<f64> {
        let right = Mat::from_fn(self.size, 1, |i, _| x[i]);
        let found = self.faer().partial_piv_lu().solve(right);
        (0..self.size).map(|i| found[(i, 0)]).collect()
    }

    /// The lower factor L of M = L Lᵀ, for a symmetric positive definite matrix; none if it is not one.
    pub fn cholesky(&self) -> Option<Self> {
        let factor = self.faer().llt(Side::Lower).ok()?;
        let lower = factor.L().to_owned();
        let size = self.size;
        let numbers = (0..size * size)
            .map(|at| if at % size <= at / size { lower[(at / size, at % size)] } else { 0.0 })
            .collect();
        Some(Self { size, numbers })
    }

    /// Lᵀ y = x solved for y, this being a lower triangle: with M = L Lᵀ and x standard normal, y has covariance M⁻¹.
    pub fn solve_transposed_lower(&self, x: &[f64]) -> Vec<f64> {
        let mut y = x.to_vec();
        for i in (0..self.size).rev() {
            for j in i + 1..self.size {
                y[i] -= self.at(j, i) * y[j];
            }
            y[i] /= self.at(i, i);
        }
        y
    }
}

/// Σ a b.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `count` numbers from a standard normal distribution, a function of the seeds, the stream's name and the counter.
pub fn normals(seeds: &polo_run::seed::Seeds, count: usize, stream: &str, counter: u64) -> Vec<f64> {
    seeds.normal(count, stream, counter).into_iter().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use polo_run::seed::Seeds;

    use super::*;

    fn positive(size: usize) -> Matrix {
        let mut matrix = Matrix::identity(size, 0.5);
        for row in 0..2 * size as u64 {
            matrix.add_outer(&normals(&Seeds::new(1), size, "x", row), 1.0);
        }
        matrix
    }

    #[track_caller]
    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-10), "{a:?} is not {b:?}");
    }

    #[test]
    fn inverses_solve_and_follow_updates() {
        let (mut matrix, x) = (positive(4), [0.3, -1.0, 2.0, 0.1]);
        let mut inverse = matrix.inverse().unwrap();
        close(&inverse.times(&matrix.times(&x)), &x);
        close(&matrix.solve(&x), &inverse.times(&x));
        matrix.add_outer(&x, 1.0);
        inverse.update_inverse(&x);
        close(&inverse.numbers, &matrix.inverse().unwrap().numbers);
        assert!((inverse.quadratic(&x) - dot(&x, &matrix.solve(&x))).abs() < 1e-10);
    }

    #[test]
    fn factors_give_the_matrix_and_its_inverse_back() {
        let matrix = positive(3);
        let lower = matrix.cholesky().unwrap();
        for i in 0..3 {
            let unit: Vec<f64> = (0..3).map(|j| f64::from(u8::from(i == j))).collect();
            let product: Vec<f64> =
                (0..3).map(|j| (0..3).map(|k| lower.at(j, k) * lower.at(i, k)).sum()).collect();
            close(&product, &matrix.times(&unit));
        }
        // Columns y of L⁻ᵀ: Σ y yᵀ = M⁻¹.
        let mut sum = Matrix::identity(3, 0.0);
        for i in 0..3 {
            let unit: Vec<f64> = (0..3).map(|j| f64::from(u8::from(i == j))).collect();
            sum.add_outer(&lower.solve_transposed_lower(&unit), 1.0);
        }
        close(&sum.numbers, &matrix.inverse().unwrap().numbers);
        let mut broken = Matrix::identity(2, 1.0);
        broken.numbers[3] = -1.0;
        assert!(broken.inverse().is_none() && broken.cholesky().is_none());
    }
}
