//! The log-probability primitive: hidden states, head and targets in, log-probabilities of the targets out.
//!
//! Logits exist for a chunk of rows at a time and only for rows that count. The backward pass computes them again
//! and pushes `(onehot − softmax) · dL/dlogp` into hidden states and head. Every loss on a language model and every
//! evaluation of one goes through here.

use burn::tensor::{Device, Tensor, activation};

use crate::{
    Gradients, ParameterId, Parameters,
    device::is_cpu,
    host::{self, Host},
    kernels::{self, Matrix, MatrixMut},
    ops,
};

/// What is known of each row, `[rows]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogProbs {
    /// log p(target), in nats.
    pub logps: Vec<f32>,
    /// log Σ e^logit.
    normalisers: Vec<f32>,
    /// Entropy of the distribution, in nats.
    pub entropies: Vec<f32>,
    /// log Σ p², the expected probability of a token drawn from the distribution, in nats.
    pub collisions: Vec<f32>,
    /// Whether the target was the most probable token.
    pub hits: Vec<bool>,
    /// Mean of the row's logits (TRL logs it as `logits/...`).
    pub mean_logits: Vec<f32>,
}

/// A model's view of rows: what its next-token distributions are computed from, and what is known of them.
#[derive(Clone, Debug)]
pub struct View {
    /// Hidden states, `[rows, width]`.
    pub hidden: Tensor<2>,
    /// Output head, `[vocabulary, width]`.
    pub head: Tensor<2>,
    /// What [`forward`] says of the rows.
    pub scores: LogProbs,
}

/// How a loss changes with what is known of each row, `[rows]` each.
#[derive(Clone, Copy, Debug)]
pub struct Slopes<'a> {
    /// dL/dlogp.
    pub logps: &'a [f32],
    /// dL/dentropy, if the loss depends on it.
    pub entropies: Option<&'a [f32]>,
    /// dL/dKL of [`divergences`] from a reference, if the loss depends on it.
    pub divergences: Option<(&'a View, &'a [f32])>,
}

impl<'a> From<&'a [f32]> for Slopes<'a> {
    /// Those of a loss of log-probs alone.
    fn from(logps: &'a [f32]) -> Self {
        Self { logps, entropies: None, divergences: None }
    }
}

/// How many rows' logits are held at a time: on the CPU what its caches hold, elsewhere what keeps a GPU busy.
fn rows_at_a_time(vocabulary: usize, device: &Device) -> usize {
    let (numbers, most) = if is_cpu(device) { (1 << 19, 256) } else { (1 << 24, 4096) };
    (numbers / vocabulary.max(1)).clamp(8, most)
}

/// Log-probabilities of `targets` (`[rows]`) given `hidden` (`[rows, width]`) under the output head
/// (`[vocabulary, width]`).
pub fn forward(hidden: &Tensor<2>, head: &Tensor<2>, targets: &[u32]) -> LogProbs {
    let ([rows, width], [vocabulary, _]) = (hidden.dims(), head.dims());
    let mut result = LogProbs::default();
    let device = hidden.device();
    let chunk = rows_at_a_time(vocabulary, &device);
    if let (Some(hidden), Some(head)) = (Host::of(hidden), Host::of(head)) {
        let mut logits = vec![0.0; chunk.min(rows) * vocabulary];
        for first in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - first);
            logits_of(&mut logits, hidden.slice(), head.slice(), first, n, width, vocabulary);
            kernels::vectorised!({
                for (row, &target) in logits[..n * vocabulary].chunks_exact(vocabulary).zip(&targets[first..])
                {
                    let logit = row[target as usize];
                    let hit = logit >= kernels::maximum(row);
                    let mean = kernels::sum(vocabulary, |i| row[i]) / vocabulary as f32;
                    let (normaliser, entropy, collision) = normaliser_entropy_collision(row);
                    result.logps.push(logit - normaliser);
                    result.normalisers.push(normaliser);
                    result.entropies.push(entropy);
                    result.collisions.push(collision);
                    result.hits.push(hit);
                    result.mean_logits.push(mean);
                }
            });
        }
        return result;
    }
    for first in (0..rows).step_by(chunk) {
        let n = chunk.min(rows - first);
        let logits = hidden.clone().narrow(0, first, n).matmul(head.clone().transpose());
        let logps = activation::log_softmax(logits.clone(), 1);
        let index =
            ops::indices(targets[first..first + n].iter().map(|&t| t as usize), &device).reshape([n, 1]);
        let chosen = logps.clone().gather(1, index.clone());
        let chosen_logits = logits.clone().gather(1, index);
        let collision = (logps.clone() * 2.0).exp().sum_dim(1).log();
        let entropy = (logps.clone().exp() * logps).sum_dim(1).neg();
        let best = logits.clone().max_dim(1);
        // Side by side, since every way back from a device waits for all of its work.
        let columns =
            Tensor::cat(vec![chosen, chosen_logits, entropy, best, logits.mean_dim(1), collision], 1);
        for row in host::numbers(&columns).as_chunks::<6>().0 {
            let &[logp, logit, entropy, best, mean, collision] = row;
            result.logps.push(logp);
            result.normalisers.push(logit - logp);
            result.entropies.push(entropy);
            result.collisions.push(collision);
            result.hits.push(logit >= best);
            result.mean_logits.push(mean);
        }
    }
    result
}

/// Log-probabilities of the whole vocabulary, `[rows · vocabulary]` row-major, in nats: what samplers draw from.
pub fn distributions(hidden: &Tensor<2>, head: &Tensor<2>) -> Vec<f32> {
    let ([rows, width], [vocabulary, _]) = (hidden.dims(), head.dims());
    if let (Some(hidden), Some(head)) = (Host::of(hidden), Host::of(head)) {
        let mut logits = vec![0.0; rows * vocabulary];
        logits_of(&mut logits, hidden.slice(), head.slice(), 0, rows, width, vocabulary);
        kernels::vectorised!({
            for row in logits.chunks_exact_mut(vocabulary) {
                kernels::log_softmax(row);
            }
        });
        return logits;
    }
    host::numbers(&activation::log_softmax(hidden.clone().matmul(head.clone().transpose()), 1))
}

/// KL(reference ‖ policy) of the next-token distributions at each row, nats: Σ_a p_ref(a) (log p_ref(a) − log p(a)).
///
/// Both vocabularies are the same; of the two views only hidden states, heads and normalisers are used.
pub fn divergences(policy: &View, reference: &View) -> Vec<f32> {
    let ([rows, width], [vocabulary, _]) = (policy.hidden.dims(), policy.head.dims());
    let [_, reference_width] = reference.hidden.dims();
    let device = policy.hidden.device();
    let chunk = rows_at_a_time(vocabulary, &device);
    let mut result = Vec::with_capacity(rows);
    let host = [&policy.hidden, &policy.head, &reference.hidden, &reference.head].map(Host::of);
    if let [Some(hidden), Some(head), Some(other_hidden), Some(other_head)] = &host {
        let [mut logits, mut others] = [(); 2].map(|()| vec![0.0; chunk.min(rows) * vocabulary]);
        for first in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - first);
            logits_of(&mut logits, hidden.slice(), head.slice(), first, n, width, vocabulary);
            let (states, weights) = (other_hidden.slice(), other_head.slice());
            logits_of(&mut others, states, weights, first, n, reference_width, vocabulary);
            kernels::vectorised!({
                let both = logits.chunks_exact(vocabulary).zip(others.chunks_exact(vocabulary));
                for (i, (row, other)) in both.take(n).enumerate() {
                    let (ours, theirs) =
                        (policy.scores.normalisers[first + i], reference.scores.normalisers[first + i]);
                    result.push(kernels::sum(vocabulary, |a| {
                        let logp = other[a] - theirs;
                        kernels::exp(logp) * (logp - (row[a] - ours))
                    }));
                }
            });
        }
        return result;
    }
    for first in (0..rows).step_by(chunk) {
        let n = chunk.min(rows - first);
        let [ours, theirs] = [policy, reference].map(|view| view.log_softmax(first, n));
        result.extend(host::numbers(&(theirs.clone().exp() * (theirs - ours)).sum_dim(1)));
    }
    result
}

impl View {
    /// Log-probs of the whole vocabulary at rows `first..first + n`, `[n, vocabulary]`.
    fn log_softmax(&self, first: usize, n: usize) -> Tensor<2> {
        let part = self.hidden.clone().narrow(0, first, n);
        activation::log_softmax(part.matmul(self.head.clone().transpose()), 1)
    }
}

fn logits_of(
    logits: &mut [f32],
    hidden: &[f32],
    head: &[f32],
    first: usize,
    rows: usize,
    width: usize,
    vocabulary: usize,
) {
    kernels::matmul(
        MatrixMut::new(&mut logits[..rows * vocabulary], rows, vocabulary),
        false,
        Matrix::new(&hidden[first * width..][..rows * width], rows, width),
        Matrix::new(head, vocabulary, width).transposed(),
        1.0,
    );
}

/// log Σ e^x, the entropy of softmax(x) and the logarithm of its squares' sum; the row is left as it is.
#[inline(always)]
fn normaliser_entropy_collision(row: &[f32]) -> (f32, f32, f32) {
    let top = kernels::maximum(row);
    let (mut total, mut moment, mut squares) = ([0.0f32; 16], [0.0f32; 16], [0.0f32; 16]);
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for lane in 0..16 {
            let x = chunk[lane] - top;
            let e = kernels::exp(x);
            total[lane] += e;
            moment[lane] += e * x;
            squares[lane] += e * e;
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        let x = x - top;
        let e = kernels::exp(x);
        total[lane] += e;
        moment[lane] += e * x;
        squares[lane] += e * e;
    }
    let [total, moment, squares] = [total, moment, squares].map(|lanes| lanes.iter().sum::<f32>());
    (top + total.ln(), total.ln() - moment / total, squares.ln() - 2.0 * total.ln())
}

/// Pushes a loss's slopes into the head's gradient; returns dL/dhidden `[rows, width]`.
pub fn backward(
    parameters: &Parameters,
    head: ParameterId,
    hidden: &Tensor<2>,
    targets: &[u32],
    forward: &LogProbs,
    slopes: Slopes<'_>,
    gradients: &mut Gradients,
) -> Tensor<2> {
    let head_value = parameters.get(head);
    let ([rows, width], shape @ [vocabulary, _]) = (hidden.dims(), head_value.dims());
    let (device, trainable) = (hidden.device(), parameters.trainable(head));
    let chunk = rows_at_a_time(vocabulary, &device);
    if let (Some(hh), Some(hw)) = (Host::of(hidden), Host::of(head_value)) {
        let mut dhidden = vec![0.0; rows * width];
        let mut logits = vec![0.0; chunk.min(rows) * vocabulary];
        let reference = slopes.divergences.and_then(|(view, _)| {
            Some((Host::of(&view.hidden)?, Host::of(&view.head)?, view.hidden.dims()[1]))
        });
        let mut others = vec![0.0; if reference.is_some() { logits.len() } else { 0 }];
        for first in (0..rows).step_by(chunk) {
            let n = chunk.min(rows - first);
            logits_of(&mut logits, hh.slice(), hw.slice(), first, n, width, vocabulary);
            if let Some((states, weights, reference_width)) = &reference {
                let (states, weights) = (states.slice(), weights.slice());
                logits_of(&mut others, states, weights, first, n, *reference_width, vocabulary);
            }
            kernels::vectorised!({
                for (i, row) in logits[..n * vocabulary].chunks_exact_mut(vocabulary).enumerate() {
                    let at = first + i;
                    let (dlogp, normaliser) = (slopes.logps[at], forward.normalisers[at]);
                    // dKL/dlogit = p - p_ref: the part of p goes with dL/dlogp.
                    let ddivergence = slopes.divergences.map_or(0.0, |(_, slopes)| slopes[at]);
                    let of_p = dlogp - ddivergence;
                    match slopes.entropies {
                        None => {
                            for x in row.iter_mut() {
                                *x = -kernels::exp(*x - normaliser) * of_p;
                            }
                        }
                        Some(dentropies) => {
                            let (dentropy, entropy) = (dentropies[at], forward.entropies[at]);
                            for x in row.iter_mut() {
                                let logp = *x - normaliser;
                                *x = -kernels::exp(logp) * (of_p + dentropy * (logp + entropy));
                            }
                        }
                    }
                    if let (Some((view, _)), false) = (slopes.divergences, others.is_empty()) {
                        let theirs = view.scores.normalisers[at];
                        let other = &others[i * vocabulary..][..vocabulary];
                        for (x, other) in row.iter_mut().zip(other) {
                            *x -= kernels::exp(*other - theirs) * ddivergence;
                        }
                    }
                    row[targets[at] as usize] += dlogp;
                }
            });
            let dlogits = Matrix::new(&logits[..n * vocabulary], n, vocabulary);
            kernels::matmul(
                MatrixMut::new(&mut dhidden[first * width..][..n * width], n, width),
                false,
                dlogits,
                Matrix::new(hw.slice(), vocabulary, width),
                1.0,
            );
            if trainable {
                let part = Matrix::new(&hh.slice()[first * width..][..n * width], n, width);
                gradients.accumulate(head, shape, &device, |sum, fresh| {
                    kernels::matmul(
                        MatrixMut::new(sum, vocabulary, width),
                        !fresh,
                        dlogits.transposed(),
                        part,
                        1.0,
                    );
                });
            }
        }
        return host::tensor(dhidden, [rows, width], &device);
    }
    let mut parts = Vec::new();
    for first in (0..rows).step_by(chunk) {
        let n = chunk.min(rows - first);
        let part = hidden.clone().narrow(0, first, n);
        let logps = activation::log_softmax(part.clone().matmul(head_value.clone().transpose()), 1);
        let column = |numbers: &[f32]| host::tensor(numbers[first..first + n].to_vec(), [n, 1], &device);
        let dlogp = column(slopes.logps);
        let p = logps.clone().exp();
        let mut dlogits = match slopes.entropies {
            None => (p.clone() * dlogp.clone()).neg(),
            Some(dentropies) => {
                let slope = (logps + column(&forward.entropies)) * column(dentropies);
                (p.clone() * (slope + dlogp.clone())).neg()
            }
        };
        if let Some((view, ddivergences)) = slopes.divergences {
            dlogits = dlogits + (p - view.log_softmax(first, n).exp()) * column(ddivergences);
        }
        let index =
            ops::indices(targets[first..first + n].iter().map(|&t| t as usize), &device).reshape([n, 1]);
        dlogits = dlogits.scatter(1, index, dlogp, burn::tensor::IndexingUpdateOp::Add);
        parts.push(dlogits.clone().matmul(head_value.clone()));
        if trainable {
            gradients.add_outer(head, &dlogits, &part);
        }
    }
    if parts.is_empty() { Tensor::zeros([0, width], &device) } else { Tensor::cat(parts, 0) }
}
