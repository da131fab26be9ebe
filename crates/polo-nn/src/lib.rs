//! Networks and numerics: the tensors of Burn behind one prelude, fused operations with their backward passes,
//! the log-probability primitive, AdamW. Floor 1: imports `polo-run` alone.
//!
//! Language models are trained with an explicit backward pass rather than through a tape: every operation here is
//! a pair of plain functions, `forward` and `backward`, on tensors without a graph. On the CPU they run fused
//! vectorised kernels; on any other device the same functions are expressions of Burn's tensor operations. Nothing
//! depends on a global tape, so data-parallel shares run on threads of their own, memory is freed as the backward
//! pass goes, and the order of every sum is fixed. Losses, a handful of numbers per batch, use Burn's autodiff.

pub mod attention;
pub mod cache;
pub mod device;
pub mod distributions;
pub mod files;
pub mod host;
mod kernels;
pub mod logprob;
pub mod mlp;
pub mod ops;
pub mod optimiser;
pub mod parameters;
pub mod shares;

pub use burn::tensor::{Device, Int, Tensor, TensorData};
pub use parameters::{Gradients, Parameter, ParameterId, Parameters};
