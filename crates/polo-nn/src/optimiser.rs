//! AdamW with decoupled weight decay, and clipping by global norm: one pass over the numbers each.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::{
    Gradients, Parameters,
    host::{self, Host},
    kernels,
};

/// Settings of one AdamW step (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay, for parameters that decay.
    pub weight_decay: f64,
}

/// First and second moments of the trainable parameters, and the number of steps done.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Steps done so far.
    pub steps: u64,
    /// (first, second) by parameter; `None` for frozen ones.
    pub values: Vec<Option<(Tensor<2>, Tensor<2>)>>,
}

impl Moments {
    /// Zero moments for the trainable parameters.
    pub fn new(parameters: &Parameters) -> Self {
        let zero = |p: &crate::parameters::Parameter| Tensor::zeros(p.value.dims(), &p.value.device());
        let values = parameters.iter().map(|p| p.trainable.then(|| (zero(p), zero(p)))).collect();
        Self { steps: 0, values }
    }
}

/// Numbers per block of a sum of squares: fixed, so that the sum does not depend on the number of threads.
const BLOCK: usize = 1 << 14;

/// √(Σ g²) over all gradients.
pub fn global_norm(gradients: &Gradients, parameters: &Parameters) -> f64 {
    let (mut total, mut elsewhere) = (0.0, Vec::new());
    for gradient in (0..parameters.len()).filter_map(|id| gradients.get(id)) {
        match Host::of(gradient) {
            Some(host) => {
                total += host
                    .slice()
                    .par_chunks(BLOCK)
                    .map(|block| {
                        f64::from(kernels::vectorised!(kernels::sum(block.len(), |i| block[i] * block[i])))
                    })
                    .collect::<Vec<_>>()
                    .iter()
                    .sum::<f64>();
            }
            // Dimension by dimension, since a GPU adds up a whole tensor in an order that changes from run to run.
            None => elsewhere.push(gradient.clone().square().sum_dim(0).sum_dim(1)),
        }
    }
    if !elsewhere.is_empty() {
        // Together, since every way back from a device waits for all of its work.
        total += host::numbers(&Tensor::cat(elsewhere, 0)).into_iter().map(f64::from).sum::<f64>();
    }
    total.sqrt()
}

/// One AdamW step on all trainable parameters that have a gradient, which is taken times `scale`.
pub fn step(
    parameters: &mut Parameters,
    moments: &mut Moments,
    gradients: &mut Gradients,
    settings: AdamW,
    scale: f64,
) {
    moments.steps += 1;
    let AdamW { learning_rate, beta1, beta2, epsilon, weight_decay } = settings;
    let correction1 = 1.0 - beta1.powi(i32::try_from(moments.steps).unwrap_or(i32::MAX));
    let correction2 = 1.0 - beta2.powi(i32::try_from(moments.steps).unwrap_or(i32::MAX));
    for (id, parameter) in parameters.iter_mut().enumerate() {
        let Some((first, second)) = &mut moments.values[id] else { continue };
        let Some(gradient) = gradients.take(id) else { continue };
        let decay = if parameter.decays { 1.0 - learning_rate * weight_decay } else { 1.0 };
        let Some(gradient_host) = Host::of(&gradient) else {
            let g = gradient * scale;
            let m = first.clone() * beta1 + g.clone() * (1.0 - beta1);
            let v = second.clone() * beta2 + g.square() * (1.0 - beta2);
            let root = (v.clone() / correction2).sqrt() + epsilon;
            parameter.value =
                parameter.value.clone() * decay - m.clone() / root * (learning_rate / correction1);
            (*first, *second) = (m, v);
            continue;
        };
        let g = gradient_host.slice();
        let (b1, b2, rate) = (beta1 as f32, beta2 as f32, (learning_rate / correction1) as f32);
        let (scale, decay, epsilon) = (scale as f32, decay as f32, epsilon as f32);
        let root2 = 1.0 / correction2.sqrt() as f32;
        host::update(&mut parameter.value, |w| {
            host::update(first, |m| {
                host::update(second, |v| {
                    let blocks = w
                        .par_chunks_mut(BLOCK)
                        .zip(m.par_chunks_mut(BLOCK))
                        .zip(v.par_chunks_mut(BLOCK))
                        .zip(g.par_chunks(BLOCK));
                    blocks.for_each(|(((w, m), v), g)| {
                        kernels::vectorised!({
                            for i in 0..w.len() {
                                let g = g[i] * scale;
                                m[i] = b1 * m[i] + (1.0 - b1) * g;
                                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                                w[i] = w[i] * decay - rate * m[i] / (v[i].sqrt() * root2 + epsilon);
                            }
                        });
                    });
                });
            });
        });
    }
}
