//! The language model: a decoder-only transformer with an explicit backward pass.
//!
//! [`LanguageModel::score`] runs a [`Batch`] of prompts and answers through the network and returns the
//! log-probability of every answer token; [`LanguageModel::push_back`] takes dL/dlogp and returns the gradients of
//! all parameters. Losses stand between the two. Prompts are computed once for all their answers, nothing is padded,
//! and cheap intermediate results (norms, activations) are computed again in the backward pass instead of kept. After
//! the last layer's attention no token looks at another one, so what follows is computed for those alone that predict
//! a token that counts.

use std::ops::Range;

use polo_nn::{
    Device, Gradients, Parameter, ParameterId, Parameters, Tensor,
    attention::{Attention, Normalisers, Segment},
    host,
    logprob::{self, LogProbs, Slopes, View},
    ops::{self, Linear, NormWeights, Rotation},
};

use polo_run::seed::Seeds;

use crate::family::{Architecture, Positions};

/// The feed-forward part of a layer.
#[derive(Clone, Debug)]
pub enum Mlp {
    /// down(silu(gate(x)) · up(x)).
    SwiGlu {
        /// Gate.
        gate: Linear,
        /// Up.
        up: Linear,
        /// Down.
        down: Linear,
    },
    /// down(gelu(up(x))).
    Gelu {
        /// Up.
        up: Linear,
        /// Down.
        down: Linear,
    },
}

/// One layer's parameters.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Before attention.
    pub attention_norm: NormWeights,
    /// Queries.
    pub query: Linear,
    /// Keys.
    pub key: Linear,
    /// Values.
    pub value: Linear,
    /// Norms of single heads of q and k (Qwen 3).
    pub head_norms: Option<(NormWeights, NormWeights)>,
    /// Output of the attention.
    pub output: Linear,
    /// Before the MLP.
    pub mlp_norm: NormWeights,
    /// MLP.
    pub mlp: Mlp,
}

/// A language model on a device.
#[derive(Clone, Debug)]
pub struct LanguageModel {
    /// The numbers that determine the network.
    pub architecture: Architecture,
    /// All its parameters.
    pub parameters: Parameters,
    pub(crate) device: Device,
    pub(crate) embedding: ParameterId,
    pub(crate) positions: Option<ParameterId>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) final_norm: NormWeights,
    pub(crate) head: ParameterId,
    pub(crate) readout: Option<Readout>,
}

/// A linear map of the hidden state (after the final norm) before an answer's end token: a reward, or logits of
/// classes.
#[derive(Clone, Copy, Debug)]
pub struct Readout {
    pub(crate) linear: Linear,
    /// Numbers that it puts out.
    pub outputs: usize,
    /// Whether what is pushed back stops here: the readout learns, the model does not.
    pub detached: bool,
}

/// Prompts with the answers that are scored under them, as one flat list of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) segments: Vec<Segment>,
    /// The hidden states that predict a token that counts, and that token.
    pub(crate) rows: Vec<usize>,
    pub(crate) targets: Vec<u32>,
    answers: Vec<Range<usize>>,
}

impl Batch {
    /// Adds a prompt of at least one token and answers to be scored under it. The last token of an answer predicts
    /// nothing that counts, so it is scored but never fed.
    pub fn add(&mut self, prompt: &[u32], answers: &[&[u32]]) {
        self.add_with_read(prompt, answers, &[]);
    }

    /// As [`Batch::add`], with further answers of which only the last token is scored: their readout is all that is
    /// asked for.
    pub fn add_with_read(&mut self, prompt: &[u32], answers: &[&[u32]], read: &[&[u32]]) {
        debug_assert!(!prompt.is_empty(), "an answer's first token needs something that predicts it");
        let root = self.segments.len();
        self.segment(prompt, 0, None);
        let last = self.tokens.len() - 1;
        for (number, answer) in answers.iter().chain(read).enumerate() {
            let first_row = self.rows.len();
            let start = self.tokens.len();
            let skipped = if number < answers.len() { 0 } else { answer.len() - 1 };
            for (i, &target) in answer.iter().enumerate().skip(skipped) {
                self.rows.push(if i == 0 { last } else { start + i - 1 });
                self.targets.push(target);
            }
            self.answers.push(first_row..self.rows.len());
            if answer.len() > 1 {
                self.segment(&answer[..answer.len() - 1], prompt.len(), Some(root));
            }
        }
    }

    fn segment(&mut self, tokens: &[u32], position: usize, parent: Option<usize>) {
        self.segments.push(Segment { start: self.tokens.len(), length: tokens.len(), parent });
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((position..position + tokens.len()).map(|p| p as u32));
    }

    /// Tokens that are fed to the network.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// For each answer in the order of [`Batch::add`], the row that predicts its last token: the state after all that
    /// was said.
    fn ends(&self) -> Vec<usize> {
        self.answers.iter().map(|answer| answer.end - 1).collect()
    }

    /// For each answer in the order of [`Batch::add`], its stretch of the scored tokens.
    pub fn answers(&self) -> &[Range<usize>] {
        &self.answers
    }
}

/// What the forward pass of a batch keeps for the backward pass.
pub struct Tape {
    attention: Attention,
    rotation: Option<Rotation>,
    layers: Vec<LayerTape>,
    /// Input of the final norm for hidden states that predict a token that counts.
    last: Tensor<2>,
    /// Its output.
    picked: Tensor<2>,
    scores: LogProbs,
}

struct LayerTape {
    input: Tensor<2>,
    raw: Option<(Tensor<2>, Tensor<2>)>,
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    mixed: Tensor<2>,
    normalisers: Normalisers,
    /// From here on, in the last layer: rows that count.
    middle: Tensor<2>,
    gate: Option<Tensor<2>>,
    up: Tensor<2>,
}

impl LanguageModel {
    /// The device it computes on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Log-probabilities of all answer tokens of a batch, in nats, without anything kept for a backward pass.
    pub fn score_only(&self, batch: &Batch) -> LogProbs {
        self.forward(batch, false).0
    }

    /// As [`LanguageModel::score_only`], with the readout at the end of each answer, `[answers · outputs]` row-major;
    /// empty for a model without one.
    pub fn score_and_read(&self, batch: &Batch) -> (LogProbs, Vec<f32>) {
        let (scores, picked, _) = self.forward(batch, false);
        (scores, self.read_out(batch, &picked))
    }

    /// How this model sees the scored tokens of a batch, to compare it with another.
    pub fn view(&self, batch: &Batch) -> View {
        let (scores, hidden, _) = self.forward(batch, false);
        View { hidden, head: self.parameters.get(self.head).clone(), scores }
    }

    /// The view that a batch was scored with.
    pub fn view_of(&self, tape: &Tape) -> View {
        View {
            hidden: tape.picked.clone(),
            head: self.parameters.get(self.head).clone(),
            scores: tape.scores.clone(),
        }
    }

    /// The readout at the end of each answer of a batch that was scored, `[answers · outputs]` row-major; empty for a
    /// model without one.
    pub fn read(&self, batch: &Batch, tape: &Tape) -> Vec<f32> {
        self.read_out(batch, &tape.picked)
    }

    fn read_out(&self, batch: &Batch, picked: &Tensor<2>) -> Vec<f32> {
        match &self.readout {
            None => Vec::new(),
            Some(readout) => {
                let states = ops::gather(picked, &batch.ends());
                host::numbers(&readout.linear.forward(&self.parameters, &states))
            }
        }
    }

    /// Gives the model a readout of `outputs` numbers, with weights from a normal distribution of width `std` and, if
    /// asked for, a bias of zeros. `module` names its tensors.
    pub fn add_readout(&mut self, module: &str, outputs: usize, std: f64, bias: bool, seeds: &Seeds) {
        let width = self.architecture.width;
        let weight =
            seeds.normal(outputs * width, "readout", 0).into_iter().map(|x| x * std as f32).collect();
        self.set_readout(module, outputs, weight, bias);
    }

    pub(crate) fn set_readout(&mut self, module: &str, outputs: usize, weight: Vec<f32>, bias: bool) {
        let width = self.architecture.width;
        let weight = self.parameters.push(Parameter {
            name: format!("{module}.weight"),
            value: host::tensor(weight, [outputs, width], &self.device),
            trainable: true,
            decays: true,
        });
        let bias = bias.then(|| {
            self.parameters.push(Parameter {
                name: format!("{module}.bias"),
                value: host::tensor(vec![0.0; outputs], [1, outputs], &self.device),
                trainable: true,
                decays: false,
            })
        });
        self.readout =
            Some(Readout { linear: Linear { weight, bias, low_rank: None }, outputs, detached: false });
    }

    /// Whether what is pushed back stops at the readout, if the model has one.
    pub fn detach_readout(&mut self, detached: bool) {
        if let Some(readout) = &mut self.readout {
            readout.detached = detached;
        }
    }

    /// The readout, if the model has one.
    pub fn readout(&self) -> Option<&Readout> {
        self.readout.as_ref()
    }

    /// Takes the readout away: what is left is the language model.
    pub fn drop_readout(&mut self) {
        if let Some(readout) = self.readout.take() {
            // It was added last.
            self.parameters.truncate(readout.linear.weight);
        }
    }

    /// Log-probabilities of all answer tokens of a batch, and the tape for [`LanguageModel::push_back`].
    pub fn score(&self, batch: &Batch) -> (LogProbs, Tape) {
        let (scores, _, tape) = self.forward(batch, true);
        match tape {
            Some(tape) => (scores, tape),
            None => unreachable!("a tape was asked for"),
        }
    }

    pub(crate) fn embed(&self, tokens: &[u32], positions: &[u32]) -> Tensor<2> {
        let x = ops::embedding(self.parameters.get(self.embedding), tokens);
        match self.positions {
            Some(table) => x + ops::embedding(self.parameters.get(table), positions),
            None => x,
        }
    }

    pub(crate) fn rotation(&self, positions: &[u32]) -> Option<Rotation> {
        match &self.architecture.positions {
            Positions::Rotary(frequencies) => Some(Rotation::new(positions, frequencies, &self.device)),
            Positions::Learned(_) => None,
        }
    }

    /// Normalises every head of q or k on its own.
    fn head_norm(&self, weights: NormWeights, x: &Tensor<2>) -> Tensor<2> {
        let ([tokens, columns], width) = (x.dims(), self.architecture.heads.width);
        let heads = x.clone().reshape([tokens * columns / width, width]);
        self.architecture.norm.forward(&self.parameters, weights, &heads).reshape([tokens, columns])
    }

    /// q, k and v of a layer, rotated; and q and k as they were before their norms, if the family has those.
    pub(crate) fn queries_keys_values(
        &self,
        layer: &Layer,
        x: &Tensor<2>,
        rotation: Option<&Rotation>,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2>, Option<(Tensor<2>, Tensor<2>)>) {
        let normed = self.architecture.norm.forward(&self.parameters, layer.attention_norm, x);
        let mut q = layer.query.forward(&self.parameters, &normed);
        let mut k = layer.key.forward(&self.parameters, &normed);
        let v = layer.value.forward(&self.parameters, &normed);
        let mut raw = None;
        if let Some((query_norm, key_norm)) = layer.head_norms {
            let normed = (self.head_norm(query_norm, &q), self.head_norm(key_norm, &k));
            raw = Some((q, k));
            (q, k) = normed;
        }
        if let Some(rotation) = rotation {
            (q, k) = (rotation.forward(q), rotation.forward(k));
        }
        (q, k, v, raw)
    }

    /// The MLP's input matrices: gate (if gated) and up.
    fn mlp_inner(&self, layer: &Layer, middle: &Tensor<2>) -> (Option<Tensor<2>>, Tensor<2>) {
        let normed = self.architecture.norm.forward(&self.parameters, layer.mlp_norm, middle);
        match &layer.mlp {
            Mlp::SwiGlu { gate, up, .. } => {
                (Some(gate.forward(&self.parameters, &normed)), up.forward(&self.parameters, &normed))
            }
            Mlp::Gelu { up, .. } => (None, up.forward(&self.parameters, &normed)),
        }
    }

    pub(crate) fn mlp(&self, layer: &Layer, middle: &Tensor<2>) -> Tensor<2> {
        let (gate, up) = self.mlp_inner(layer, middle);
        self.mlp_outer(layer, gate.as_ref(), &up) + middle.clone()
    }

    fn mlp_outer(&self, layer: &Layer, gate: Option<&Tensor<2>>, up: &Tensor<2>) -> Tensor<2> {
        match &layer.mlp {
            Mlp::SwiGlu { down, .. } => down.forward(&self.parameters, &activated(gate, up)),
            Mlp::Gelu { down, .. } => down.forward(&self.parameters, &activated(None, up)),
        }
    }

    /// Scores, the hidden states that they come from, and the tape if it is to be kept.
    fn forward(&self, batch: &Batch, keep: bool) -> (LogProbs, Tensor<2>, Option<Tape>) {
        let attention = Attention::new(batch.segments.clone(), self.architecture.heads, &self.device);
        let rotation = self.rotation(&batch.positions);
        let mut layers = Vec::new();
        let mut x = self.embed(&batch.tokens, &batch.positions);
        for (number, layer) in (1..).zip(&self.layers) {
            let (q, k, v, raw) = self.queries_keys_values(layer, &x, rotation.as_ref());
            let (mixed, normalisers) = attention.forward(&q, &k, &v);
            let middle = match number == self.layers.len() {
                false => layer.output.forward(&self.parameters, &mixed) + x.clone(),
                true => {
                    let mixed = ops::gather(&mixed, &batch.rows);
                    layer.output.forward(&self.parameters, &mixed) + ops::gather(&x, &batch.rows)
                }
            };
            let (gate, up) = self.mlp_inner(layer, &middle);
            let out = self.mlp_outer(layer, gate.as_ref(), &up) + middle.clone();
            if keep {
                let input = std::mem::replace(&mut x, out);
                layers.push(LayerTape { input, raw, q, k, v, mixed, normalisers, middle, gate, up });
            } else {
                x = out;
            }
        }
        let picked = self.architecture.norm.forward(&self.parameters, self.final_norm, &x);
        let scores = logprob::forward(&picked, self.parameters.get(self.head), &batch.targets);
        let tape = keep.then(|| Tape {
            attention,
            rotation,
            layers,
            last: x,
            picked: picked.clone(),
            scores: scores.clone(),
        });
        (scores, picked, tape)
    }

    /// Adds the gradients of a loss to `gradients`, given its slopes at every scored token (`[scored tokens]` each).
    pub fn push_back<'a>(
        &self,
        batch: &Batch,
        tape: Tape,
        slopes: impl Into<Slopes<'a>>,
        gradients: &mut Gradients,
    ) {
        self.push_back_both(batch, tape, slopes, &[], gradients);
    }

    /// As [`LanguageModel::push_back`], given dL/d of [`LanguageModel::read`], too (`[answers · outputs]`; empty for a
    /// loss that does not depend on it).
    pub fn push_back_both<'a>(
        &self,
        batch: &Batch,
        tape: Tape,
        slopes: impl Into<Slopes<'a>>,
        dreadouts: &[f32],
        gradients: &mut Gradients,
    ) {
        let (parameters, norm) = (&self.parameters, self.architecture.norm);
        let Tape { attention, rotation, layers, last, picked, scores } = tape;
        let mut dpicked = logprob::backward(
            parameters,
            self.head,
            &picked,
            &batch.targets,
            &scores,
            slopes.into(),
            gradients,
        );
        if let (Some(readout), false) = (&self.readout, dreadouts.is_empty()) {
            let ends = batch.ends();
            let states = ops::gather(&picked, &ends);
            let douts = host::tensor(dreadouts.to_vec(), [ends.len(), readout.outputs], &self.device);
            let dstates = readout.linear.backward(parameters, &states, &douts, gradients, None);
            if !readout.detached {
                dpicked = dpicked + ops::gather_backward(&ends, &dstates, batch.rows.len());
            }
        }
        let mut dx = norm.backward(parameters, self.final_norm, &last, &dpicked, gradients);
        drop((picked, last));
        let mut rows = Some(&batch.rows[..]);
        for (layer, tape) in self.layers.iter().zip(layers).rev() {
            dx = self.mlp_backward(layer, &tape, dx, gradients);
            let rows = rows.take();
            dx = self.attention_backward(layer, tape, &attention, rotation.as_ref(), rows, dx, gradients);
        }
        ops::embedding_backward(parameters, self.embedding, &batch.tokens, &dx, gradients);
        if let Some(table) = self.positions {
            ops::embedding_backward(parameters, table, &batch.positions, &dx, gradients);
        }
    }

    fn mlp_backward(
        &self,
        layer: &Layer,
        tape: &LayerTape,
        dout: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let (parameters, norm) = (&self.parameters, self.architecture.norm);
        let normed = norm.forward(parameters, layer.mlp_norm, &tape.middle);
        let inner = activated(tape.gate.as_ref(), &tape.up);
        let dnormed = match (&layer.mlp, &tape.gate) {
            (Mlp::SwiGlu { gate, up, down }, Some(gate_value)) => {
                let dinner = down.backward(parameters, &inner, &dout, gradients, None);
                let (dgate, dup) = ops::swiglu_backward(gate_value, &tape.up, &dinner);
                let dnormed = gate.backward(parameters, &normed, &dgate, gradients, None);
                up.backward(parameters, &normed, &dup, gradients, Some(dnormed))
            }
            (Mlp::SwiGlu { up, down, .. } | Mlp::Gelu { up, down }, _) => {
                let dinner = down.backward(parameters, &inner, &dout, gradients, None);
                let dup = ops::gelu_backward(&tape.up, &dinner);
                up.backward(parameters, &normed, &dup, gradients, None)
            }
        };
        norm.backward(parameters, layer.mlp_norm, &tape.middle, &dnormed, gradients) + dout
    }

    /// `rows`: the rows that `dout` has, if not all.
    #[expect(clippy::too_many_arguments, reason = "a struct would only rename them")]
    fn attention_backward(
        &self,
        layer: &Layer,
        tape: LayerTape,
        attention: &Attention,
        rotation: Option<&Rotation>,
        rows: Option<&[usize]>,
        mut dout: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let (parameters, norm) = (&self.parameters, self.architecture.norm);
        let dmixed = match rows {
            None => layer.output.backward(parameters, &tape.mixed, &dout, gradients, None),
            Some(rows) => {
                let (mixed, tokens) = (ops::gather(&tape.mixed, rows), tape.mixed.dims()[0]);
                let dmixed = layer.output.backward(parameters, &mixed, &dout, gradients, None);
                dout = ops::gather_backward(rows, &dout, tokens);
                ops::gather_backward(rows, &dmixed, tokens)
            }
        };
        let (mut dq, mut dk, dv) =
            attention.backward(&tape.q, &tape.k, &tape.v, &tape.mixed, &tape.normalisers, &dmixed);
        if let Some(rotation) = rotation {
            (dq, dk) = (rotation.backward(dq), rotation.backward(dk));
        }
        if let (Some((query_norm, key_norm)), Some((q, k))) = (layer.head_norms, &tape.raw) {
            dq = self.head_norm_backward(query_norm, q, dq, gradients);
            dk = self.head_norm_backward(key_norm, k, dk, gradients);
        }
        let normed = norm.forward(parameters, layer.attention_norm, &tape.input);
        let dnormed = layer.query.backward(parameters, &normed, &dq, gradients, None);
        let dnormed = layer.key.backward(parameters, &normed, &dk, gradients, Some(dnormed));
        let dnormed = layer.value.backward(parameters, &normed, &dv, gradients, Some(dnormed));
        norm.backward(parameters, layer.attention_norm, &tape.input, &dnormed, gradients) + dout
    }

    fn head_norm_backward(
        &self,
        weights: NormWeights,
        x: &Tensor<2>,
        dy: Tensor<2>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let (shape @ [tokens, columns], width) = (x.dims(), self.architecture.heads.width);
        let heads = [tokens * columns / width, width];
        let (x, dy) = (x.clone().reshape(heads), dy.reshape(heads));
        self.architecture.norm.backward(&self.parameters, weights, &x, &dy, gradients).reshape(shape)
    }

    /// Logits of the tokens that follow the hidden states of `rows` of one plain sequence, `[rows, vocabulary]`
    /// row-major: for parity checks and for people who want to look.
    pub fn logits(&self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let mut batch = Batch::default();
        batch.segment(tokens, 0, None);
        let attention = Attention::new(batch.segments.clone(), self.architecture.heads, &self.device);
        let rotation = self.rotation(&batch.positions);
        let mut x = self.embed(tokens, &batch.positions);
        for layer in &self.layers {
            let (q, k, v, _) = self.queries_keys_values(layer, &x, rotation.as_ref());
            let (mixed, _) = attention.forward(&q, &k, &v);
            let middle = layer.output.forward(&self.parameters, &mixed) + x;
            x = self.mlp(layer, &middle);
        }
        let logits = self.head_logits(&x);
        host::numbers(&logits).chunks_exact(self.architecture.vocabulary).map(<[f32]>::to_vec).collect()
    }

    /// Logits after the last layer's output, `[tokens, vocabulary]`.
    pub(crate) fn head_logits(&self, last: &Tensor<2>) -> Tensor<2> {
        let normed = self.architecture.norm.forward(&self.parameters, self.final_norm, last);
        let head = Linear { weight: self.head, bias: None, low_rank: None };
        head.forward(&self.parameters, &normed)
    }
}

/// What goes into the down projection.
fn activated(gate: Option<&Tensor<2>>, up: &Tensor<2>) -> Tensor<2> {
    match gate {
        Some(gate) => ops::swiglu(gate, up),
        None => ops::gelu(up),
    }
}
