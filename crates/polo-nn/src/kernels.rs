//! Vectorised kernels on row-major slices of the host's memory. Everything here is sequential: parallelism comes
//! from [`crate::shares`], one level up, where it does not change the order of any sum.

use faer::{Accum, MatMut, MatRef, Par};

/// Runs a block compiled for the widest vector unit that this processor has.
///
/// A macro, for all of the block must be inlined: a function that the compiler makes of a part of it knows nothing of
/// vector units. For the same reason blocks hold loops, not iterators' `for_each`.
macro_rules! vectorised {
    ($work:expr) => {
        pulp::Arch::new().dispatch($crate::kernels::Vectorised(
            #[inline(always)]
            || $work,
        ))
    };
}
pub(crate) use vectorised;

/// What [`vectorised`] runs. `FnMut`, for calling a closure by value goes through a function that is not inlined.
pub(crate) struct Vectorised<F>(pub F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Vectorised<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// A row-major matrix in a slice, or its transpose.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a>(MatRef<'a, f32>);

impl<'a> Matrix<'a> {
    pub fn new(numbers: &'a [f32], rows: usize, columns: usize) -> Self {
        Self(MatRef::from_row_major_slice(numbers, rows, columns))
    }

    /// Rows start `stride` numbers apart; the slice may be longer than the matrix needs.
    pub fn strided(numbers: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        let needed = if rows == 0 { 0 } else { (rows - 1) * stride + columns };
        Self(MatRef::from_row_major_slice_with_stride(&numbers[..needed], rows, columns, stride))
    }

    pub fn transposed(self) -> Self {
        Self(self.0.transpose())
    }
}

/// A row-major matrix in a slice that is written to.
pub(crate) struct MatrixMut<'a>(MatMut<'a, f32>);

impl<'a> MatrixMut<'a> {
    pub fn new(numbers: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self(MatMut::from_row_major_slice_mut(numbers, rows, columns))
    }

    pub fn strided(numbers: &'a mut [f32], rows: usize, columns: usize, stride: usize) -> Self {
        let needed = if rows == 0 { 0 } else { (rows - 1) * stride + columns };
        // Built as its transpose: faer 0.24.4's own constructor for this case swaps the strides.
        let transposed =
            MatMut::from_column_major_slice_with_stride_mut(&mut numbers[..needed], columns, rows, stride);
        Self(transposed.transpose_mut())
    }
}

/// `out = scale · left · right`, or `out += ...` with `add`.
pub(crate) fn matmul(out: MatrixMut, add: bool, left: Matrix, right: Matrix, scale: f32) {
    let mode = if add { Accum::Add } else { Accum::Replace };
    faer::linalg::matmul::matmul(out.0, mode, left.0, right.0, scale, Par::Seq);
}

/// eˣ to about two units in the last place, without a branch or a call, so that loops over it vectorise.
/// Arguments below −87 give about 1e-38 instead of smaller numbers; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to the nearest integer
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    // The low bits of `shifted` hold n; moved into the exponent they make 2^n.
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

const LANES: usize = 16;

/// Sum of `f(i)` over `0..n` in sixteen interleaved partial sums: a fixed order that vectorises.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(i + lane);
        }
        i += LANES;
    }
    for (lane, i) in (whole..n).enumerate() {
        lanes[lane] += f(i);
    }
    lanes.iter().sum()
}

#[inline(always)]
pub(crate) fn maximum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (best, &x) in lanes.iter_mut().zip(chunk) {
            *best = if x > *best { x } else { *best };
        }
    }
    let start = rest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    lanes.iter().copied().fold(start, f32::max)
}

/// Replaces a row of scores by their softmax and returns log Σ e^score.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32]) -> f32 {
    let top = maximum(row);
    for x in row.iter_mut() {
        *x = exp(*x - top);
    }
    let total = sum(row.len(), |i| row[i]);
    for x in row.iter_mut() {
        *x *= 1.0 / total;
    }
    top + total.ln()
}

/// Replaces a row of logits by the logarithms of their softmax.
#[inline(always)]
pub(crate) fn log_softmax(row: &mut [f32]) {
    let top = maximum(row);
    let total = sum(row.len(), |i| exp(row[i] - top));
    let normaliser = top + total.ln();
    for x in row.iter_mut() {
        *x -= normaliser;
    }
}

/// y = x / rms(x) · w, row by row.
pub(crate) fn rms_norm(x: &[f32], w: &[f32], epsilon: f32) -> Vec<f32> {
    vectorised!({
        let d = w.len();
        let mut y = vec![0.0; x.len()];
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let r = 1.0 / (sum(d, |i| x[i] * x[i]) / d as f32 + epsilon).sqrt();
            for i in 0..d {
                y[i] = x[i] * r * w[i];
            }
        }
        y
    })
}

/// Gradient of [`rms_norm`] with respect to x; adds that of w to `dw` if given.
pub(crate) fn rms_norm_backward(
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    epsilon: f32,
    mut dw: Option<&mut [f32]>,
) -> Vec<f32> {
    vectorised!({
        let d = w.len();
        let mut dx = vec![0.0; x.len()];
        for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let r = 1.0 / (sum(d, |i| x[i] * x[i]) / d as f32 + epsilon).sqrt();
            let along = sum(d, |i| dy[i] * w[i] * x[i]) * r * r / d as f32;
            for i in 0..d {
                dx[i] = r * (dy[i] * w[i] - x[i] * along);
            }
            if let Some(dw) = dw.as_deref_mut() {
                for i in 0..d {
                    dw[i] += dy[i] * x[i] * r;
                }
            }
        }
        dx
    })
}

/// y = (x - mean) / std · w + b, row by row.
pub(crate) fn layer_norm(x: &[f32], w: &[f32], b: &[f32], epsilon: f32) -> Vec<f32> {
    vectorised!({
        let d = w.len();
        let mut y = vec![0.0; x.len()];
        for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
            let mean = sum(d, |i| x[i]) / d as f32;
            let r = 1.0 / (sum(d, |i| (x[i] - mean) * (x[i] - mean)) / d as f32 + epsilon).sqrt();
            for i in 0..d {
                y[i] = (x[i] - mean) * r * w[i] + b[i];
            }
        }
        y
    })
}

/// Gradient of [`layer_norm`] with respect to x; adds those of w and b to `dwb` if given.
pub(crate) fn layer_norm_backward(
    x: &[f32],
    w: &[f32],
    dy: &[f32],
    epsilon: f32,
    mut dwb: Option<(&mut [f32], &mut [f32])>,
) -> Vec<f32> {
    vectorised!({
        let d = w.len();
        let mut dx = vec![0.0; x.len()];
        for ((x, dy), dx) in x.chunks_exact(d).zip(dy.chunks_exact(d)).zip(dx.chunks_exact_mut(d)) {
            let mean = sum(d, |i| x[i]) / d as f32;
            let r = 1.0 / (sum(d, |i| (x[i] - mean) * (x[i] - mean)) / d as f32 + epsilon).sqrt();
            let level = sum(d, |i| dy[i] * w[i]) / d as f32;
            let along = sum(d, |i| dy[i] * w[i] * (x[i] - mean)) * r * r / d as f32;
            for i in 0..d {
                dx[i] = r * (dy[i] * w[i] - level - (x[i] - mean) * along);
            }
            if let Some((dw, db)) = dwb.as_mut() {
                for i in 0..d {
                    dw[i] += dy[i] * (x[i] - mean) * r;
                    db[i] += dy[i];
                }
            }
        }
        dx
    })
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// silu(gate) · up.
pub(crate) fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    vectorised!({
        let mut y = vec![0.0; gate.len()];
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g * sigmoid(g) * u;
        }
        y
    })
}

/// Gradients of [`swiglu`] with respect to gate and up.
pub(crate) fn swiglu_backward(gate: &[f32], up: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    vectorised!({
        let n = gate.len();
        let (mut dgate, mut dup) = (vec![0.0; n], vec![0.0; n]);
        for i in 0..n {
            let s = sigmoid(gate[i]);
            dup[i] = dy[i] * gate[i] * s;
            dgate[i] = dy[i] * up[i] * s * (1.0 + gate[i] * (1.0 - s));
        }
        (dgate, dup)
    })
}

/// √(2/π), of GELU's tanh form.
pub(crate) const GELU_SCALE: f32 = 0.797_884_6;
pub(crate) const GELU_CUBE: f32 = 0.044_715;

/// GELU in its tanh form: ½ x (1 + tanh(√(2/π)(x + 0.044715 x³))).
pub(crate) fn gelu(x: &[f32]) -> Vec<f32> {
    vectorised!({
        let mut y = vec![0.0; x.len()];
        for (y, &x) in y.iter_mut().zip(x) {
            // ½ (1 + tanh u) = sigmoid(2u)
            *y = x * sigmoid(2.0 * GELU_SCALE * (x + GELU_CUBE * x * x * x));
        }
        y
    })
}

/// Gradient of [`gelu`].
pub(crate) fn gelu_backward(x: &[f32], dy: &[f32]) -> Vec<f32> {
    vectorised!({
        let mut dx = vec![0.0; x.len()];
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            let s = sigmoid(2.0 * GELU_SCALE * (x + GELU_CUBE * x * x * x));
            let slope = 2.0 * GELU_SCALE * (1.0 + 3.0 * GELU_CUBE * x * x);
            *dx = dy * (s + x * s * (1.0 - s) * slope);
        }
        dx
    })
}

/// Rotates the two halves of every head by the angles whose cosines and sines are given, `[tokens, head/2]`;
/// `sign` −1 rotates back.
pub(crate) fn rotate(x: &mut [f32], head: usize, cosines: &[f32], sines: &[f32], sign: f32) {
    vectorised!({
        let half = head / 2;
        let tokens = cosines.len() / half;
        let width = x.len() / tokens.max(1);
        for ((row, cosine), sine) in
            x.chunks_exact_mut(width).zip(cosines.chunks_exact(half)).zip(sines.chunks_exact(half))
        {
            for x in row.chunks_exact_mut(head) {
                let (low, high) = x.split_at_mut(half);
                for i in 0..half {
                    let (a, b, s) = (low[i], high[i], sign * sine[i]);
                    low[i] = a * cosine[i] - b * s;
                    high[i] = b * cosine[i] + a * s;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_two_units_in_the_last_place() {
        for i in -86_000..87_000 {
            let x = i as f32 * 1e-3;
            let truth = f64::from(x).exp();
            let error = (f64::from(exp(x)) - truth).abs() / truth;
            assert!(error < 2.5e-7, "exp({x}) is off by {error:e}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn sums_and_maxima_take_every_element_once() {
        for n in [0, 1, 15, 16, 17, 100] {
            let row: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(n, |i| row[i]), (0..n).sum::<usize>() as f32);
            assert_eq!(maximum(&row), if n == 0 { f32::NEG_INFINITY } else { n as f32 - 1.0 });
        }
    }

    /// Every layout that callers use, against plain sums, and nothing written beside the matrix.
    #[test]
    fn products_of_all_layouts_are_right_and_stay_in_bounds() {
        let noise = |n: usize, seed| polo_run::seed::Seeds::new(seed).normal(n, "noise", 0);
        for (m, k, n) in
            [(1, 1, 1), (1, 6, 9), (5, 6, 5), (3, 70, 17), (64, 6, 70), (9, 79, 6), (70, 33, 64), (79, 9, 6)]
        {
            for case in 0..32 {
                let [left_t, right_t, strided, add, wide] = [1, 2, 4, 8, 16].map(|bit| case & bit != 0);
                let (a, b) = (noise(m * k + m * 7 * usize::from(wide), 1), noise(k * n, 2));
                let stride = if strided { n + 5 } else { n };
                let mut out = noise(m * stride + 64, 3);
                let before = out.clone();
                let a_stride = if wide && !left_t { k + 7 } else { k };
                let left = match (left_t, wide) {
                    (true, _) => Matrix::new(&a[..m * k], k, m).transposed(),
                    (false, true) => Matrix::strided(&a, m, k, a_stride),
                    (false, false) => Matrix::new(&a, m, k),
                };
                let right = if right_t { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
                let target = match strided {
                    true => MatrixMut::strided(&mut out, m, n, stride),
                    false => MatrixMut::new(&mut out[..m * n], m, n),
                };
                matmul(target, add, left, right, 0.5);
                for (at, (found, before)) in out.iter().zip(&before).enumerate() {
                    let (i, j) = (at / stride, at % stride);
                    if i >= m || j >= n {
                        assert_eq!(found, before, "({m}, {k}, {n}), case {case}: wrote at {i}, {j}");
                        continue;
                    }
                    let a = |l: usize| if left_t { a[l * m + i] } else { a[i * a_stride + l] };
                    let b = |l: usize| if right_t { b[j * k + l] } else { b[l * n + j] };
                    let sum = (0..k).map(|l| f64::from(a(l)) * f64::from(b(l))).sum::<f64>();
                    let expected = 0.5 * sum + if add { f64::from(*before) } else { 0.0 };
                    assert!(
                        (f64::from(*found) - expected).abs() < 1e-4,
                        "({m}, {k}, {n}), case {case}: {found}, {expected}"
                    );
                }
            }
        }
    }
}
