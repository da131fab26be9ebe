//! The operations that networks are made of, each with its backward pass. `x` is `[tokens, width]` throughout.
//!
//! Forward functions keep nothing: a caller keeps the inputs that the backward function asks for. Gradients of
//! parameters are added to a [`Gradients`]; gradients of inputs are returned.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData, activation};

use crate::{
    Gradients, ParameterId, Parameters,
    host::{self, Host},
    kernels::{self, Matrix, MatrixMut},
};

/// Which normalisation a network uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// x / rms(x) · w.
    Rms {
        /// Added to the mean square.
        epsilon: f32,
    },
    /// (x − mean) / std · w + b.
    Layer {
        /// Added to the variance.
        epsilon: f32,
    },
}

/// The parameters of one normalisation: a scale `[1, width]` and, for layer norms, a shift.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights {
    /// Scale.
    pub scale: ParameterId,
    /// Shift, of a layer norm.
    pub shift: Option<ParameterId>,
}

impl Norm {
    /// Normalises every row of `x`. Rows may be whole tokens or, reshaped, single heads.
    pub fn forward(self, parameters: &Parameters, weights: NormWeights, x: &Tensor<2>) -> Tensor<2> {
        let w = parameters.get(weights.scale);
        let shift = weights.shift.map(|id| parameters.get(id));
        if let (Some(hx), Some(hw)) = (Host::of(x), Host::of(w)) {
            let y = match (self, shift.and_then(Host::of)) {
                (Norm::Rms { epsilon }, _) => kernels::rms_norm(hx.slice(), hw.slice(), epsilon),
                (Norm::Layer { epsilon }, Some(hb)) => {
                    kernels::layer_norm(hx.slice(), hw.slice(), hb.slice(), epsilon)
                }
                (Norm::Layer { epsilon }, None) => {
                    kernels::layer_norm(hx.slice(), hw.slice(), &vec![0.0; hw.slice().len()], epsilon)
                }
            };
            return host::tensor(y, x.dims(), &x.device());
        }
        let (unit, _) = self.unit(x);
        let y = unit * w.clone();
        match shift {
            Some(b) => y + b.clone(),
            None => y,
        }
    }

    /// The normalised rows without scale or shift, and 1 / (their former size), `[tokens, 1]`.
    fn unit(self, x: &Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let (centred, epsilon) = match self {
            Norm::Rms { epsilon } => (x.clone(), epsilon),
            Norm::Layer { epsilon } => (x.clone() - x.clone().mean_dim(1), epsilon),
        };
        let r = (centred.clone().square().mean_dim(1) + epsilon).sqrt().recip();
        (centred * r.clone(), r)
    }

    /// Gradient with respect to `x`, given that of the output.
    pub fn backward(
        self,
        parameters: &Parameters,
        weights: NormWeights,
        x: &Tensor<2>,
        dy: &Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let w = parameters.get(weights.scale);
        let trainable = parameters.trainable(weights.scale);
        if let (Some(hx), Some(hw), Some(hdy)) = (Host::of(x), Host::of(w), Host::of(dy)) {
            let width = hw.slice().len();
            let (mut dw, mut db) = (vec![0.0; width], vec![0.0; width]);
            let dx = match self {
                Norm::Rms { epsilon } => {
                    let dw = trainable.then_some(&mut dw[..]);
                    kernels::rms_norm_backward(hx.slice(), hw.slice(), hdy.slice(), epsilon, dw)
                }
                Norm::Layer { epsilon } => {
                    let dwb = trainable.then_some((&mut dw[..], &mut db[..]));
                    kernels::layer_norm_backward(hx.slice(), hw.slice(), hdy.slice(), epsilon, dwb)
                }
            };
            if trainable {
                gradients.add(weights.scale, host::tensor(dw, [1, width], &x.device()));
                if let Some(shift) = weights.shift {
                    gradients.add(shift, host::tensor(db, [1, width], &x.device()));
                }
            }
            return host::tensor(dx, x.dims(), &x.device());
        }
        let (unit, r) = self.unit(x);
        if trainable {
            gradients.add(weights.scale, (dy.clone() * unit.clone()).sum_dim(0));
            if let Some(shift) = weights.shift {
                gradients.add(shift, dy.clone().sum_dim(0));
            }
        }
        let dunit = dy.clone() * w.clone();
        let along = unit.clone() * (dunit.clone() * unit).mean_dim(1);
        let level = match self {
            Norm::Rms { .. } => dunit.clone() - along,
            Norm::Layer { .. } => dunit.clone() - dunit.mean_dim(1) - along,
        };
        level * r
    }
}

/// A low-rank change of a linear layer: `s · (x Aᵀ) Bᵀ`, A `[rank, in]`, B `[out, rank]`.
#[derive(Clone, Copy, Debug)]
pub struct LowRank {
    /// A, `[rank, in]`.
    pub down: ParameterId,
    /// B, `[out, rank]`; zero at the start.
    pub up: ParameterId,
    /// s = alpha / rank.
    pub scale: f32,
}

/// A linear layer: weight `[out, in]` as Hugging Face stores it, and what may go with it.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Weight, `[out, in]`.
    pub weight: ParameterId,
    /// Bias, `[1, out]`.
    pub bias: Option<ParameterId>,
    /// LoRA.
    pub low_rank: Option<LowRank>,
}

impl Linear {
    /// y = x Wᵀ + b + s (x Aᵀ) Bᵀ, `[tokens, out]`.
    pub fn forward(&self, parameters: &Parameters, x: &Tensor<2>) -> Tensor<2> {
        let mut y = product(x, parameters.get(self.weight));
        if let Some(bias) = self.bias {
            y = y + parameters.get(bias).clone();
        }
        if let Some(low_rank) = self.low_rank {
            let inner = product(x, parameters.get(low_rank.down));
            y = y + product(&inner, parameters.get(low_rank.up)) * low_rank.scale;
        }
        y
    }

    /// Adds the gradients of the layer's parameters and returns that of `x`, plus `sum` if given.
    pub fn backward(
        &self,
        parameters: &Parameters,
        x: &Tensor<2>,
        dy: &Tensor<2>,
        gradients: &mut Gradients,
        sum: Option<Tensor<2>>,
    ) -> Tensor<2> {
        if parameters.trainable(self.weight) {
            gradients.add_outer(self.weight, dy, x);
        }
        if let Some(bias) = self.bias
            && parameters.trainable(bias)
        {
            gradients.add(bias, dy.clone().sum_dim(0));
        }
        let mut dx = product_backward(dy, parameters.get(self.weight), sum);
        if let Some(low_rank) = self.low_rank {
            let inner = product(x, parameters.get(low_rank.down));
            let dy = dy.clone() * low_rank.scale;
            gradients.add_outer(low_rank.up, &dy, &inner);
            let dinner = product_backward(&dy, parameters.get(low_rank.up), None);
            gradients.add_outer(low_rank.down, &dinner, x);
            dx = product_backward(&dinner, parameters.get(low_rank.down), Some(dx));
        }
        dx
    }
}

/// x Wᵀ for W `[out, in]`.
pub(crate) fn product(x: &Tensor<2>, w: &Tensor<2>) -> Tensor<2> {
    let ([tokens, width], [out, _]) = (x.dims(), w.dims());
    let (Some(hx), Some(hw)) = (Host::of(x), Host::of(w)) else {
        return x.clone().matmul(w.clone().transpose());
    };
    let mut y = vec![0.0; tokens * out];
    kernels::matmul(
        MatrixMut::new(&mut y, tokens, out),
        false,
        Matrix::new(hx.slice(), tokens, width),
        Matrix::new(hw.slice(), out, width).transposed(),
        1.0,
    );
    host::tensor(y, [tokens, out], &x.device())
}

/// dy W for W `[out, in]`, plus `sum` if given.
pub(crate) fn product_backward(dy: &Tensor<2>, w: &Tensor<2>, sum: Option<Tensor<2>>) -> Tensor<2> {
    let ([tokens, out], [_, width]) = (dy.dims(), w.dims());
    let (Some(hdy), Some(hw)) = (Host::of(dy), Host::of(w)) else {
        let dx = dy.clone().matmul(w.clone());
        return match sum {
            Some(sum) => sum + dx,
            None => dx,
        };
    };
    let add = sum.is_some();
    let mut dx =
        sum.unwrap_or_else(|| host::tensor(vec![0.0; tokens * width], [tokens, width], &dy.device()));
    host::update(&mut dx, |dx| {
        kernels::matmul(
            MatrixMut::new(dx, tokens, width),
            add,
            Matrix::new(hdy.slice(), tokens, out),
            Matrix::new(hw.slice(), out, width),
            1.0,
        );
    });
    dx
}

/// silu(gate) · up.
pub fn swiglu(gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2> {
    if let (Some(hg), Some(hu)) = (Host::of(gate), Host::of(up)) {
        return host::tensor(kernels::swiglu(hg.slice(), hu.slice()), gate.dims(), &gate.device());
    }
    activation::silu(gate.clone()) * up.clone()
}

/// Gradients of [`swiglu`] with respect to `gate` and `up`.
pub fn swiglu_backward(gate: &Tensor<2>, up: &Tensor<2>, dy: &Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    if let (Some(hg), Some(hu), Some(hdy)) = (Host::of(gate), Host::of(up), Host::of(dy)) {
        let (dgate, dup) = kernels::swiglu_backward(hg.slice(), hu.slice(), hdy.slice());
        let (shape, device) = (gate.dims(), gate.device());
        return (host::tensor(dgate, shape, &device), host::tensor(dup, shape, &device));
    }
    let s = activation::sigmoid(gate.clone());
    let dup = dy.clone() * gate.clone() * s.clone();
    let slope = s.clone() * (gate.clone() * (s.neg() + 1.0) + 1.0);
    (dy.clone() * up.clone() * slope, dup)
}

/// GELU in its tanh form (`gelu_new`, `gelu_pytorch_tanh`).
pub fn gelu(x: &Tensor<2>) -> Tensor<2> {
    if let Some(hx) = Host::of(x) {
        return host::tensor(kernels::gelu(hx.slice()), x.dims(), &x.device());
    }
    x.clone() * gelu_gate(x)
}

fn gelu_gate(x: &Tensor<2>) -> Tensor<2> {
    let u = x.clone() + x.clone().powi_scalar(3) * kernels::GELU_CUBE;
    activation::sigmoid(u * (2.0 * kernels::GELU_SCALE))
}

/// Gradient of [`gelu`].
pub fn gelu_backward(x: &Tensor<2>, dy: &Tensor<2>) -> Tensor<2> {
    if let (Some(hx), Some(hdy)) = (Host::of(x), Host::of(dy)) {
        return host::tensor(kernels::gelu_backward(hx.slice(), hdy.slice()), x.dims(), &x.device());
    }
    let s = gelu_gate(x);
    let slope = (x.clone().square() * (3.0 * kernels::GELU_CUBE) + 1.0) * (2.0 * kernels::GELU_SCALE);
    let curve = x.clone() * s.clone() * (s.clone().neg() + 1.0) * slope;
    dy.clone() * (s + curve)
}

/// Cosines and sines of rotary position embeddings for the tokens of a batch, `[tokens, head/2]` each.
#[derive(Clone, Debug)]
pub struct Rotation {
    cosines: Tensor<2>,
    sines: Tensor<2>,
    head: usize,
}

impl Rotation {
    /// Angles are position · frequency, in f32 as the reference implementations compute them.
    pub fn new(positions: &[u32], frequencies: &[f32], device: &Device) -> Self {
        let angles = || positions.iter().flat_map(|&p| frequencies.iter().map(move |f| p as f32 * f));
        let shape = [positions.len(), frequencies.len()];
        Self {
            cosines: host::tensor(angles().map(f32::cos).collect(), shape, device),
            sines: host::tensor(angles().map(f32::sin).collect(), shape, device),
            head: 2 * frequencies.len(),
        }
    }

    /// Rotates every head of `x` (`[tokens, heads · head]`) in the halves convention of Llama.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.rotate(x, 1.0)
    }

    /// Gradient of [`Rotation::forward`]: the rotation back.
    pub fn backward(&self, dy: Tensor<2>) -> Tensor<2> {
        self.rotate(dy, -1.0)
    }

    fn rotate(&self, mut x: Tensor<2>, sign: f32) -> Tensor<2> {
        let [tokens, width] = x.dims();
        if tokens == 0 {
            return x;
        }
        if let (Some(cosines), Some(sines)) = (Host::of(&self.cosines), Host::of(&self.sines))
            && host::update(&mut x, |x| kernels::rotate(x, self.head, cosines.slice(), sines.slice(), sign))
        {
            return x;
        }
        let (heads, half) = (width / self.head, self.head / 2);
        let x: Tensor<4> = x.reshape([tokens, heads, 2, half]);
        let low: Tensor<3> = x.clone().narrow(2, 0, 1).reshape([tokens, heads, half]);
        let high: Tensor<3> = x.narrow(2, 1, 1).reshape([tokens, heads, half]);
        let cosines: Tensor<3> = self.cosines.clone().reshape([tokens, 1, half]);
        let sines: Tensor<3> = self.sines.clone().reshape([tokens, 1, half]) * sign;
        let turned_low = low.clone() * cosines.clone() - high.clone() * sines.clone();
        let turned_high = high * cosines + low * sines;
        Tensor::cat(vec![turned_low, turned_high], 2).reshape([tokens, width])
    }
}

/// Token numbers as a tensor of indices.
pub(crate) fn indices(ids: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i64> = ids.map(|id| id as i64).collect();
    let n = ids.len();
    Tensor::from_data(TensorData::new(ids, [n]), device)
}

/// Rows of `table` (`[rows, width]`) by number.
pub fn embedding(table: &Tensor<2>, rows: &[u32]) -> Tensor<2> {
    let [_, width] = table.dims();
    if let Some(host) = Host::of(table) {
        let mut y = Vec::with_capacity(rows.len() * width);
        for &row in rows {
            y.extend_from_slice(&host.slice()[row as usize * width..][..width]);
        }
        return self::host::tensor(y, [rows.len(), width], &table.device());
    }
    table.clone().select(0, indices(rows.iter().map(|&r| r as usize), &table.device()))
}

/// Adds the gradient of [`embedding`] to that of the table.
pub fn embedding_backward(
    parameters: &Parameters,
    table: ParameterId,
    rows: &[u32],
    dy: &Tensor<2>,
    gradients: &mut Gradients,
) {
    if !parameters.trainable(table) {
        return;
    }
    let shape @ [_, width] = parameters.get(table).dims();
    let device = dy.device();
    if let Some(hdy) = Host::of(dy) {
        gradients.accumulate(table, shape, &device, |sum, _| {
            for (&row, dy) in rows.iter().zip(hdy.slice().chunks_exact(width)) {
                for (sum, dy) in sum[row as usize * width..][..width].iter_mut().zip(dy) {
                    *sum += dy;
                }
            }
        });
        return;
    }
    let rows = indices(rows.iter().map(|&r| r as usize), &device);
    let sum = Tensor::zeros(shape, &device).select_assign(0, rows, dy.clone(), IndexingUpdateOp::Add);
    gradients.add(table, sum);
}

/// Rows of `x` by number, `[rows, width]`; used to pick the hidden states that predict a token that counts.
pub fn gather(x: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    embedding(x, &rows)
}

/// Gradient of [`gather`] with respect to an `x` of `tokens` rows.
pub fn gather_backward(rows: &[usize], dy: &Tensor<2>, tokens: usize) -> Tensor<2> {
    let ([_, width], device) = (dy.dims(), dy.device());
    if let Some(hdy) = Host::of(dy) {
        let mut dx = vec![0.0; tokens * width];
        for (&row, dy) in rows.iter().zip(hdy.slice().chunks_exact(width)) {
            for (sum, dy) in dx[row * width..][..width].iter_mut().zip(dy) {
                *sum += dy;
            }
        }
        return host::tensor(dx, [tokens, width], &device);
    }
    Tensor::zeros([tokens, width], &device).select_assign(
        0,
        indices(rows.iter().copied(), &device),
        dy.clone(),
        IndexingUpdateOp::Add,
    )
}

#[cfg(test)]
#[path = "ops_tests.rs"]
mod tests;
