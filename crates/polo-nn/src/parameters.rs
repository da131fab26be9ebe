//! The numbers of a model: parameters by index, and the gradients that go with them.

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use crate::{host, kernels};

/// Numbers that one worker takes at a time.
const BLOCK: usize = 1 << 14;

/// The index of a parameter in its [`Parameters`].
pub type ParameterId = usize;

/// One parameter. Vectors are kept as `[1, n]`.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// A name that is unique in the model; the name in the weight file where there is one.
    pub name: String,
    /// `[rows, columns]`.
    pub value: Tensor<2>,
    /// Whether training changes it.
    pub trainable: bool,
    /// Whether weight decay applies: matrices yes, norms and biases no.
    pub decays: bool,
}

/// All parameters of a model, in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<Parameter>);

impl Parameters {
    /// Appends a parameter and returns its index.
    pub fn push(&mut self, parameter: Parameter) -> ParameterId {
        self.0.push(parameter);
        self.0.len() - 1
    }

    /// Value of a parameter, `[rows, columns]`.
    pub fn get(&self, id: ParameterId) -> &Tensor<2> {
        &self.0[id].value
    }

    /// All parameters in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.0.iter()
    }

    /// All parameters in order, to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Parameter> {
        self.0.iter_mut()
    }

    /// Whether training changes this parameter.
    pub fn trainable(&self, id: ParameterId) -> bool {
        self.0[id].trainable
    }

    /// Removes the parameters from index `count` on.
    pub fn truncate(&mut self, count: usize) {
        self.0.truncate(count);
    }

    /// Moves towards `other` by the share `share` (0: stay, 1: become it): an exponential moving average, step by step.
    /// Both have the same parameters.
    pub fn move_towards(&mut self, other: &Parameters, share: f64) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            let Some(their_numbers) = host::Host::of(&theirs.value) else {
                ours.value = ours.value.clone() * (1.0 - share) + theirs.value.clone() * share;
                continue;
            };
            let (keep, share, theirs) = ((1.0 - share) as f32, share as f32, their_numbers.slice());
            host::update(&mut ours.value, |ours| {
                ours.par_chunks_mut(BLOCK).zip(theirs.par_chunks(BLOCK)).for_each(|(ours, theirs)| {
                    kernels::vectorised!({
                        for i in 0..ours.len() {
                            ours[i] = ours[i] * keep + theirs[i] * share;
                        }
                    });
                });
            });
        }
    }

    /// How many parameters (tensors) there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers all parameters hold, and how many of them training changes.
    pub fn count(&self) -> (usize, usize) {
        let size = |p: &Parameter| p.value.dims().iter().product::<usize>();
        (self.0.iter().map(size).sum(), self.0.iter().filter(|p| p.trainable).map(size).sum())
    }
}

/// Gradients of the trainable parameters, summed over everything that was pushed back so far.
#[derive(Clone, Debug)]
pub struct Gradients(Vec<Option<Tensor<2>>>);

impl Gradients {
    /// No gradient yet, for a model with `parameters`.
    pub fn new(parameters: &Parameters) -> Self {
        Self(vec![None; parameters.len()])
    }

    /// The gradient of a parameter, `[rows, columns]`, if anything was pushed back to it.
    pub fn get(&self, id: ParameterId) -> Option<&Tensor<2>> {
        self.0[id].as_ref()
    }

    /// Takes the gradient of a parameter out.
    pub fn take(&mut self, id: ParameterId) -> Option<Tensor<2>> {
        self.0[id].take()
    }

    /// Adds `gradient` to the gradient of `id`.
    pub fn add(&mut self, id: ParameterId, gradient: Tensor<2>) {
        self.0[id] = Some(match self.0[id].take() {
            None => gradient,
            Some(sum) => sum + gradient,
        });
    }

    /// Adds the outer products of a linear layer, `outputᵀ · input`, to the gradient of its weight:
    /// `output` `[tokens, out]`, `input` `[tokens, in]`, weight `[out, in]`.
    pub fn add_outer(&mut self, id: ParameterId, output: &Tensor<2>, input: &Tensor<2>) {
        let ([tokens, rows], [_, columns]) = (output.dims(), input.dims());
        let (Some(left), Some(right)) = (host::Host::of(output), host::Host::of(input)) else {
            self.add(id, output.clone().transpose().matmul(input.clone()));
            return;
        };
        let left = kernels::Matrix::new(left.slice(), tokens, rows).transposed();
        let right = kernels::Matrix::new(right.slice(), tokens, columns);
        self.accumulate(id, [rows, columns], &output.device(), |sum, fresh| {
            kernels::matmul(kernels::MatrixMut::new(sum, rows, columns), !fresh, left, right, 1.0);
        });
    }

    /// Lets `change` add to the gradient of `id` in place (CPU only). It is told whether the numbers are fresh: zero
    /// and never written before.
    pub(crate) fn accumulate(
        &mut self,
        id: ParameterId,
        shape: [usize; 2],
        device: &Device,
        change: impl FnOnce(&mut [f32], bool),
    ) {
        match &mut self.0[id] {
            Some(sum) => {
                host::update(sum, |numbers| change(numbers, false));
            }
            empty => {
                let mut numbers = vec![0.0; shape[0] * shape[1]];
                change(&mut numbers, true);
                *empty = Some(host::tensor(numbers, shape, device));
            }
        }
    }

    /// Adds the gradients of another share of the batch, parameter by parameter.
    pub fn merge(&mut self, other: Gradients) {
        for (id, gradient) in other.0.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                self.add(id, gradient);
            }
        }
    }
}
