//! Causal attention over trees of token sequences.
//!
//! A batch is a flat list of tokens, cut into segments. A segment continues its parent: its tokens see all tokens of
//! its ancestors and, causally, its own. So several answers share one pass over their prompt, and nothing is padded.
//!
//! The CPU kernel works head by head on chunks of query rows and keeps only the log of each row's normaliser; the
//! backward pass computes the probabilities again. Other devices pad each tree to one row and mask.

use std::ops::Range;

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData, activation};

use crate::{
    host::{self, Host},
    kernels::{self, Matrix, MatrixMut},
    ops,
};

/// A stretch of tokens in the flat batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of its first token in the batch.
    pub start: usize,
    /// Number of tokens.
    pub length: usize,
    /// The segment that it continues, which stands earlier in the batch.
    pub parent: Option<usize>,
}

/// Numbers of heads and their width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; each serves `queries / keys` query heads.
    pub keys: usize,
    /// Width of a head.
    pub width: usize,
}

/// Who sees whom in one batch.
#[derive(Clone, Debug)]
pub struct Attention {
    segments: Vec<Segment>,
    heads: Heads,
    scale: f32,
    padded: Option<Padded>,
}

/// What the forward pass keeps for the backward pass besides q, k, v and the output.
#[derive(Clone, Debug)]
pub struct Normalisers(Vec<f32>);

/// Query rows that are computed at a time.
const ROWS: usize = 64;

/// The trees of a batch as padded rows, for devices other than the CPU.
#[derive(Clone, Debug)]
struct Padded {
    trees: usize,
    length: usize,
    /// For each padded place the token in the batch (0 for padding), `[trees · length]`.
    from_batch: Tensor<1, Int>,
    /// For each token its padded place, `[tokens]`.
    to_batch: Tensor<1, Int>,
    /// 0 where a query may see a key, a large negative number elsewhere, `[trees, 1, length, length]`.
    mask: Tensor<4>,
}

impl Attention {
    /// A plan for batches cut into `segments`.
    pub fn new(segments: Vec<Segment>, heads: Heads, device: &Device) -> Self {
        let padded = (!crate::device::is_cpu(device)).then(|| Padded::new(&segments, device));
        Self { segments, heads, scale: 1.0 / (heads.width as f32).sqrt(), padded }
    }

    /// The stretches of tokens that `segment` sees before its own, first ancestor first.
    fn context(&self, segment: usize) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let mut above = self.segments[segment].parent;
        while let Some(parent) = above {
            let Segment { start, length, parent } = self.segments[parent];
            ranges.push(start..start + length);
            above = parent;
        }
        ranges.reverse();
        ranges
    }

    /// softmax(q kᵀ / √width) v under the plan. `q` `[tokens, queries · width]`, `k` and `v` `[tokens, keys · width]`.
    pub fn forward(&self, q: &Tensor<2>, k: &Tensor<2>, v: &Tensor<2>) -> (Tensor<2>, Normalisers) {
        let (Some(hq), Some(hk), Some(hv)) = (Host::of(q), Host::of(k), Host::of(v)) else {
            return (self.forward_padded(q, k, v), Normalisers(Vec::new()));
        };
        let mut out = vec![0.0; hq.slice().len()];
        let mut normalisers = vec![0.0; q.dims()[0] * self.heads.queries];
        for index in 0..self.segments.len() {
            self.for_each_head(index, hk.slice(), hv.slice(), |own, context, key_head, keys, values| {
                for head in self.query_heads(key_head) {
                    self.attend(
                        own.clone(),
                        context,
                        head,
                        hq.slice(),
                        keys,
                        values,
                        &mut out,
                        &mut normalisers,
                    );
                }
            });
        }
        (host::tensor(out, q.dims(), &q.device()), Normalisers(normalisers))
    }

    fn query_heads(&self, key_head: usize) -> Range<usize> {
        let group = self.heads.queries / self.heads.keys;
        key_head * group..(key_head + 1) * group
    }

    /// Gathers the keys and values that a segment sees, head by head, and hands them to `work` together with the
    /// segment's own tokens and the number of context tokens before them.
    fn for_each_head(
        &self,
        segment: usize,
        k: &[f32],
        v: &[f32],
        mut work: impl FnMut(Range<usize>, usize, usize, &[f32], &[f32]),
    ) {
        let Segment { start, length, .. } = self.segments[segment];
        if length == 0 {
            return;
        }
        let (width, stride) = (self.heads.width, self.heads.keys * self.heads.width);
        let own = start..start + length;
        let context = self.context(segment);
        let before: usize = context.iter().map(|range| range.len()).sum();
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for head in 0..self.heads.keys {
            keys.clear();
            values.clear();
            for token in context.iter().cloned().chain(std::iter::once(own.clone())).flatten() {
                let at = token * stride + head * width;
                keys.extend_from_slice(&k[at..at + width]);
                values.extend_from_slice(&v[at..at + width]);
            }
            work(own.clone(), before, head, &keys, &values);
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the inner loop of one kernel; a struct would only rename them"
    )]
    fn attend(
        &self,
        own: Range<usize>,
        context: usize,
        head: usize,
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        out: &mut [f32],
        normalisers: &mut [f32],
    ) {
        let (width, stride) = (self.heads.width, self.heads.queries * self.heads.width);
        let mut scores = Vec::new();
        for first in (0..own.len()).step_by(ROWS) {
            let rows = ROWS.min(own.len() - first);
            let seen = context + first + rows;
            scores.resize(rows * seen, 0.0);
            let at = (own.start + first) * stride + head * width;
            kernels::matmul(
                MatrixMut::new(&mut scores, rows, seen),
                false,
                Matrix::strided(&q[at..], rows, width, stride),
                Matrix::new(&keys[..seen * width], seen, width).transposed(),
                self.scale,
            );
            kernels::vectorised!({
                for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
                    let (visible, hidden) = scores.split_at_mut(context + first + row + 1);
                    normalisers[(own.start + first + row) * self.heads.queries + head] =
                        kernels::softmax(visible);
                    hidden.fill(0.0);
                }
            });
            kernels::matmul(
                MatrixMut::strided(&mut out[at..], rows, width, stride),
                false,
                Matrix::new(&scores, rows, seen),
                Matrix::new(&values[..seen * width], seen, width),
                1.0,
            );
        }
    }

    /// Gradients with respect to q, k and v, given the output of the forward pass and the gradient of it.
    pub fn backward(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        out: &Tensor<2>,
        normalisers: &Normalisers,
        dout: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let (Some(hq), Some(hk), Some(hv), Some(hout), Some(hdout)) =
            (Host::of(q), Host::of(k), Host::of(v), Host::of(out), Host::of(dout))
        else {
            return self.backward_padded(q, k, v, dout);
        };
        let (width, key_stride) = (self.heads.width, self.heads.keys * self.heads.width);
        let mut dq = vec![0.0; hq.slice().len()];
        let (mut dk, mut dv) = (vec![0.0; hk.slice().len()], vec![0.0; hk.slice().len()]);
        let (mut dkeys, mut dvalues) = (Vec::new(), Vec::new());
        for index in 0..self.segments.len() {
            let context = self.context(index);
            self.for_each_head(index, hk.slice(), hv.slice(), |own, before, key_head, keys, values| {
                dkeys.clear();
                dkeys.resize(keys.len(), 0.0);
                dvalues.clear();
                dvalues.resize(values.len(), 0.0);
                for head in self.query_heads(key_head) {
                    let given = Given {
                        q: hq.slice(),
                        out: hout.slice(),
                        dout: hdout.slice(),
                        normalisers: &normalisers.0,
                        keys,
                        values,
                    };
                    self.attend_backward(own.clone(), before, head, given, &mut dq, &mut dkeys, &mut dvalues);
                }
                let tokens = context.iter().cloned().chain(std::iter::once(own)).flatten();
                for ((token, dkey), dvalue) in
                    tokens.zip(dkeys.chunks_exact(width)).zip(dvalues.chunks_exact(width))
                {
                    let at = token * key_stride + key_head * width;
                    for i in 0..width {
                        dk[at + i] += dkey[i];
                        dv[at + i] += dvalue[i];
                    }
                }
            });
        }
        let device = q.device();
        (
            host::tensor(dq, q.dims(), &device),
            host::tensor(dk, k.dims(), &device),
            host::tensor(dv, k.dims(), &device),
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the inner loop of one kernel; a struct would only rename them"
    )]
    fn attend_backward(
        &self,
        own: Range<usize>,
        context: usize,
        head: usize,
        given: Given,
        dq: &mut [f32],
        dkeys: &mut [f32],
        dvalues: &mut [f32],
    ) {
        let (width, stride) = (self.heads.width, self.heads.queries * self.heads.width);
        let (mut p, mut dp) = (Vec::new(), Vec::new());
        for first in (0..own.len()).step_by(ROWS) {
            let rows = ROWS.min(own.len() - first);
            let seen = context + first + rows;
            p.resize(rows * seen, 0.0);
            dp.resize(rows * seen, 0.0);
            let at = (own.start + first) * stride + head * width;
            let q = Matrix::strided(&given.q[at..], rows, width, stride);
            let dout = Matrix::strided(&given.dout[at..], rows, width, stride);
            let keys = Matrix::new(&given.keys[..seen * width], seen, width);
            let values = Matrix::new(&given.values[..seen * width], seen, width);
            kernels::matmul(MatrixMut::new(&mut p, rows, seen), false, q, keys.transposed(), self.scale);
            kernels::matmul(MatrixMut::new(&mut dp, rows, seen), false, dout, values.transposed(), 1.0);
            // p becomes the probabilities, dp the gradient of the scaled scores: p (dp − Σ dout·out).
            kernels::vectorised!({
                for (row, (p, dp)) in p.chunks_exact_mut(seen).zip(dp.chunks_exact_mut(seen)).enumerate() {
                    let visible = context + first + row + 1;
                    let here = at + row * stride;
                    let (out, dout) = (&given.out[here..here + width], &given.dout[here..here + width]);
                    let along = kernels::sum(width, |i| out[i] * dout[i]);
                    let normaliser = given.normalisers[(own.start + first + row) * self.heads.queries + head];
                    for (p, dp) in p[..visible].iter_mut().zip(&mut dp[..visible]) {
                        *p = kernels::exp(*p - normaliser);
                        *dp = *p * (*dp - along);
                    }
                    p[visible..].fill(0.0);
                    dp[visible..].fill(0.0);
                }
            });
            let p = Matrix::new(&p, rows, seen).transposed();
            let ds = Matrix::new(&dp, rows, seen);
            kernels::matmul(MatrixMut::new(&mut dvalues[..seen * width], seen, width), true, p, dout, 1.0);
            kernels::matmul(
                MatrixMut::new(&mut dkeys[..seen * width], seen, width),
                true,
                ds.transposed(),
                q,
                self.scale,
            );
            kernels::matmul(
                MatrixMut::strided(&mut dq[at..], rows, width, stride),
                false,
                ds,
                keys,
                self.scale,
            );
        }
    }
}

/// What [`Attention::attend_backward`] reads.
#[derive(Clone, Copy)]
struct Given<'a> {
    q: &'a [f32],
    out: &'a [f32],
    dout: &'a [f32],
    normalisers: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
}

impl Padded {
    fn new(segments: &[Segment], device: &Device) -> Self {
        // Each token's tree, and the tokens it sees, by walking the segments once; parents stand before children.
        let mut tree_of = vec![0; segments.len()];
        let mut trees: Vec<Vec<usize>> = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            tree_of[index] = match segment.parent {
                Some(parent) => tree_of[parent],
                None => {
                    trees.push(Vec::new());
                    trees.len() - 1
                }
            };
            trees[tree_of[index]].push(index);
        }
        let tokens: usize = segments.iter().map(|s| s.length).sum();
        let length = trees
            .iter()
            .map(|tree| tree.iter().map(|&s| segments[s].length).sum::<usize>())
            .max()
            .unwrap_or(0)
            .max(1);
        let mut from_batch = vec![0; trees.len() * length];
        let mut to_batch = vec![0; tokens];
        let mut mask = vec![-1e9f32; trees.len() * length * length];
        let mut place_of = vec![0; segments.len()];
        for (row, tree) in trees.iter().enumerate() {
            let mut next = 0;
            for &index in tree {
                let segment = segments[index];
                place_of[index] = next;
                for i in 0..segment.length {
                    from_batch[row * length + next + i] = segment.start + i;
                    to_batch[segment.start + i] = row * length + next + i;
                    let line = (row * length + next + i) * length;
                    mask[line + next..=line + next + i].fill(0.0);
                    let mut above = segment.parent;
                    while let Some(parent) = above {
                        mask[line + place_of[parent]..][..segments[parent].length].fill(0.0);
                        above = segments[parent].parent;
                    }
                }
                next += segment.length;
            }
            for unused in next..length {
                // A padded query must see something, or its softmax is not a number.
                mask[(row * length + unused) * length + unused] = 0.0;
            }
        }
        let shape = [trees.len(), 1, length, length];
        Self {
            trees: trees.len(),
            length,
            from_batch: ops::indices(from_batch.into_iter(), device),
            to_batch: ops::indices(to_batch.into_iter(), device),
            mask: Tensor::from_data(TensorData::new(mask, shape), device),
        }
    }

    /// `[tokens, heads · width]` to `[trees, heads, length, width]`, every head `repeats` times.
    fn pad(&self, x: &Tensor<2>, heads: usize, width: usize, repeats: usize) -> Tensor<4> {
        let x: Tensor<4> = x
            .clone()
            .select(0, self.from_batch.clone())
            .reshape([self.trees, self.length, heads, width])
            .swap_dims(1, 2);
        if repeats == 1 {
            return x;
        }
        x.reshape([self.trees, heads, 1, self.length * width]).repeat_dim(2, repeats).reshape([
            self.trees,
            heads * repeats,
            self.length,
            width,
        ])
    }

    /// The way back; repeated heads are summed.
    fn unpad(&self, x: Tensor<4>, repeats: usize) -> Tensor<2> {
        let [trees, heads, length, width] = x.dims();
        let x: Tensor<4> = if repeats == 1 {
            x
        } else {
            x.reshape([trees, heads / repeats, repeats, length * width]).sum_dim(2).reshape([
                trees,
                heads / repeats,
                length,
                width,
            ])
        };
        x.swap_dims(1, 2).reshape([trees * length, heads / repeats * width]).select(0, self.to_batch.clone())
    }

    /// The gradient of the output, with zeros at padded places.
    fn pad_gradient(&self, dy: &Tensor<2>, heads: usize, width: usize) -> Tensor<4> {
        let places = Tensor::zeros([self.trees * self.length, heads * width], &dy.device());
        places
            .select_assign(0, self.to_batch.clone(), dy.clone(), IndexingUpdateOp::Add)
            .reshape([self.trees, self.length, heads, width])
            .swap_dims(1, 2)
    }
}

impl Attention {
    fn plan(&self) -> &Padded {
        match &self.padded {
            Some(padded) => padded,
            None => unreachable!("a plan for the CPU meets tensors of another device"),
        }
    }

    fn probabilities(
        &self,
        plan: &Padded,
        q: &Tensor<2>,
        k: &Tensor<2>,
    ) -> (Tensor<4>, Tensor<4>, Tensor<4>) {
        let Heads { queries, keys, width } = self.heads;
        let q = plan.pad(q, queries, width, 1);
        let k = plan.pad(k, keys, width, queries / keys);
        let scores = q.clone().matmul(k.clone().transpose()) * self.scale + plan.mask.clone();
        (activation::softmax(scores, 3), q, k)
    }

    fn forward_padded(&self, q: &Tensor<2>, k: &Tensor<2>, v: &Tensor<2>) -> Tensor<2> {
        let Heads { queries, keys, width } = self.heads;
        let plan = self.plan();
        let (p, ..) = self.probabilities(plan, q, k);
        plan.unpad(p.matmul(plan.pad(v, keys, width, queries / keys)), 1)
    }

    fn backward_padded(
        &self,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
        dout: &Tensor<2>,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
        let Heads { queries, keys, width } = self.heads;
        let repeats = queries / keys;
        let plan = self.plan();
        let (p, q, k) = self.probabilities(plan, q, k);
        let v = plan.pad(v, keys, width, repeats);
        let dout = plan.pad_gradient(dout, queries, width);
        let dv = p.clone().transpose().matmul(dout.clone());
        let dp = dout.matmul(v.transpose());
        let ds = p.clone() * (dp.clone() - (dp * p).sum_dim(3)) * self.scale;
        let dq = ds.clone().matmul(k);
        let dk = ds.transpose().matmul(q);
        (plan.unpad(dq, 1), plan.unpad(dk, repeats), plan.unpad(dv, repeats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::tests::{as_on_other_devices, on_other_device, other_device, rounding};

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        polo_run::seed::Seeds::new(seed).normal(n, "noise", 0)
    }

    fn close(a: &Tensor<2>, b: &Tensor<2>) {
        let (a, b) = (host::numbers(a), host::numbers(b));
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            assert!((a - b).abs() < 2e-5 * rounding() * (1.0 + b.abs()), "element {i}: {a} against {b}");
        }
    }

    /// The two independent paths, kernel and masked matrices, agree on trees of three generations.
    #[test]
    fn kernel_and_padded_expressions_agree_forward_and_backward() {
        let segments = vec![
            Segment { start: 0, length: 70, parent: None },
            Segment { start: 70, length: 9, parent: Some(0) },
            Segment { start: 79, length: 66, parent: Some(0) },
            Segment { start: 145, length: 3, parent: Some(2) },
            Segment { start: 148, length: 5, parent: None },
            Segment { start: 153, length: 0, parent: Some(4) },
        ];
        let heads = Heads { queries: 4, keys: 2, width: 6 };
        let device = Device::flex();
        let attention = Attention::new(segments, heads, &device);
        let tensor = |columns, seed| host::tensor(noise(153 * columns, seed), [153, columns], &device);
        let (q, k, v, dout) = (tensor(24, 1), tensor(12, 2), tensor(12, 3), tensor(24, 4));
        let (out, normalisers) = attention.forward(&q, &k, &v);
        let (dq, dk, dv) = attention.backward(&q, &k, &v, &out, &normalisers, &dout);
        let [q, k, v, dout] = [&q, &k, &v, &dout].map(on_other_device);
        let (other, eq, ek, ev) = as_on_other_devices(|| {
            let attention = Attention::new(attention.segments.clone(), heads, other_device());
            let (out, normalisers) = attention.forward(&q, &k, &v);
            let (dq, dk, dv) = attention.backward(&q, &k, &v, &out, &normalisers, &dout);
            (out, dq, dk, dv)
        });
        close(&out, &other);
        close(&dq, &eq);
        close(&dk, &ek);
        close(&dv, &ev);
    }
}
