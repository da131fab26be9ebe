//! Multilayer perceptrons for control, many of one shape at a time: the critics of an ensemble are one network with
//! members. On the CPU only: such networks are too small for another device to pay.
//!
//! Numbers are row-major slices. The work is cut into units, one for each member, or, for a network of one member, two
//! halves of the batch; units run in parallel and are put together in a fixed order, so that results do not depend on
//! the number of threads.

use polo_run::seed::Seeds;

use crate::{
    Device, Gradients, Parameter, ParameterId, Parameters, host,
    host::Host,
    kernels::{self, Matrix, MatrixMut},
    shares,
};

/// What stands between two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(0, x).
    Relu,
    /// tanh x.
    Tanh,
}

/// How the weights of a layer begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// PyTorch's for linear layers: weights and biases uniform in ±1/sqrt(inputs).
    Torch,
    /// Orthogonal rows or columns times the gain; biases 0.
    Orthogonal(f64),
    /// Weights and biases uniform in ± this.
    Uniform(f64),
    /// Xavier's uniform, ± gain sqrt(6 / (inputs + outputs)); biases 0.
    Xavier(f64),
    /// As `Torch`, with all biases at this value.
    TorchWithBias(f64),
}

/// The shape of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Numbers that go in.
    pub inputs: usize,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Numbers that come out.
    pub outputs: usize,
    /// Networks of this shape that are computed together.
    pub members: usize,
    /// After each hidden layer.
    pub activation: Activation,
    /// Whether each hidden layer is normalised over its width before its activation.
    pub layer_norm: bool,
    /// Of hidden layers and of the last one.
    pub init: (Init, Init),
}

/// A network: where its weights stand in [`Parameters`].
#[derive(Clone, Debug)]
pub struct Mlp {
    shape: Shape,
    layers: Vec<Layer>,
}

#[derive(Clone, Copy, Debug)]
struct Layer {
    inputs: usize,
    outputs: usize,
    /// `[members · outputs, inputs]`.
    weight: ParameterId,
    /// `[members, outputs]`.
    bias: ParameterId,
    /// Scale and shift, `[members, outputs]` each.
    norm: Option<(ParameterId, ParameterId)>,
}

/// Added to the variance of a layer norm, as in PyTorch.
const EPSILON: f32 = 1e-5;
/// Rows times the width of the widest layer from which on a batch is cut in two for two workers.
const WORTH_CUTTING: usize = 1 << 14;

/// What a forward pass keeps for the backward pass.
#[derive(Clone, Debug)]
pub struct Tape {
    batch: usize,
    /// How many members ran.
    members: usize,
    units: Vec<Unit>,
}

/// The part of a pass that one worker computes.
#[derive(Clone, Debug)]
struct Unit {
    /// Where the member stands among those that ran.
    place: usize,
    member: usize,
    /// Rows `first..first + rows` of the batch.
    first: usize,
    rows: usize,
    /// What goes into each layer, `[rows, inputs]`.
    inputs: Vec<Vec<f32>>,
    /// What comes out of the linear part of hidden layers that are normalised.
    before_norm: Vec<Vec<f32>>,
    output: Vec<f32>,
}

impl Unit {
    fn empty(place: usize, member: usize, first: usize, rows: usize) -> Self {
        let (inputs, before_norm, output) = (Vec::new(), Vec::new(), Vec::new());
        Self { place, member, first, rows, inputs, before_norm, output }
    }
}

impl Mlp {
    /// A network with fresh weights, appended to `parameters`; `name` begins the names of its tensors.
    pub fn new(shape: Shape, name: &str, parameters: &mut Parameters, seeds: &Seeds) -> Self {
        let widths = [&[shape.inputs], &shape.hidden[..], &[shape.outputs]].concat();
        let count = widths.len() - 1;
        let mut layers = Vec::with_capacity(count);
        for (number, pair) in widths.windows(2).enumerate() {
            let &[inputs, outputs] = pair else { unreachable!("windows of two") };
            let last = number + 1 == count;
            let init = if last { shape.init.1 } else { shape.init.0 };
            let (mut weight, mut bias) = (Vec::new(), Vec::new());
            for member in 0..shape.members {
                let seeds = seeds.child(&format!("{name} {number} {member}"));
                weight.extend(initial(init, inputs, outputs, &seeds));
                bias.extend(initial_bias(init, inputs, outputs, &seeds));
            }
            let mut push = |part: &str, numbers: Vec<f32>, rows: usize, columns: usize| {
                parameters.push(Parameter {
                    name: format!("{name}.{number}.{part}"),
                    value: host::tensor(numbers, [rows, columns], &Device::flex()),
                    trainable: true,
                    decays: part == "weight",
                })
            };
            let members = shape.members;
            let weight = push("weight", weight, members * outputs, inputs);
            let bias = push("bias", bias, members, outputs);
            let norm = (shape.layer_norm && !last).then(|| {
                let scale = push("norm.weight", vec![1.0; members * outputs], members, outputs);
                (scale, push("norm.bias", vec![0.0; members * outputs], members, outputs))
            });
            layers.push(Layer { inputs, outputs, weight, bias, norm });
        }
        Self { shape, layers }
    }

    /// Its shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The weights of each layer, `[members · outputs, inputs]`, first layer first.
    pub fn weights(&self) -> impl Iterator<Item = ParameterId> + '_ {
        self.layers.iter().map(|layer| layer.weight)
    }

    /// Runs a batch, `[batch, inputs]`, through every member.
    pub fn forward(&self, parameters: &Parameters, x: &[f32]) -> Tape {
        self.forward_members(parameters, x, &(0..self.shape.members).collect::<Vec<_>>())
    }

    /// Runs a batch, `[batch, inputs]`, through these members alone; the tape knows no others.
    pub fn forward_members(&self, parameters: &Parameters, x: &[f32], members: &[usize]) -> Tape {
        let batch = x.len() / self.shape.inputs;
        let values = Values::of(self, parameters);
        let widest = self.layers.iter().map(|layer| layer.inputs.max(layer.outputs)).max().unwrap_or(0);
        let work: Vec<_> = match *members {
            [member] if batch > 1 && batch * widest >= WORTH_CUTTING => {
                let half = batch / 2;
                vec![(0, member, 0, half), (0, member, half, batch - half)]
            }
            _ => members.iter().enumerate().map(|(place, &member)| (place, member, 0, batch)).collect(),
        };
        let units = shares::map(work, |(place, member, first, rows)| {
            let own = &x[first * self.shape.inputs..][..rows * self.shape.inputs];
            self.forward_unit(&values, own, Unit::empty(place, member, first, rows))
        });
        Tape { batch, members: members.len(), units }
    }

    /// The outputs of every member without a tape, `[members, batch, outputs]`.
    pub fn evaluate(&self, parameters: &Parameters, x: &[f32]) -> Vec<f32> {
        self.forward(parameters, x).outputs()
    }

    /// The outputs of these members alone, `[members.len(), batch, outputs]`.
    pub fn evaluate_members(&self, parameters: &Parameters, x: &[f32], members: &[usize]) -> Vec<f32> {
        self.forward_members(parameters, x, members).outputs()
    }

    fn forward_unit(&self, values: &Values, x: &[f32], mut unit: Unit) -> Unit {
        let Unit { member, rows, inputs, before_norm, output, .. } = &mut unit;
        let (member, rows) = (*member, *rows);
        inputs.push(x.to_vec());
        for (number, layer) in self.layers.iter().enumerate() {
            let mut y = rows_of(values.member(layer.bias, member, layer.outputs), rows);
            kernels::matmul(
                MatrixMut::new(&mut y, rows, layer.outputs),
                true,
                Matrix::new(&inputs[number], rows, layer.inputs),
                Matrix::new(
                    values.member(layer.weight, member, layer.outputs * layer.inputs),
                    layer.outputs,
                    layer.inputs,
                )
                .transposed(),
                1.0,
            );
            if number + 1 == self.layers.len() {
                *output = y;
                break;
            }
            if let Some((scale, shift)) = layer.norm {
                let width = layer.outputs;
                let (scale, shift) =
                    (values.member(scale, member, width), values.member(shift, member, width));
                let normed = kernels::layer_norm(&y, scale, shift, EPSILON);
                before_norm.push(std::mem::replace(&mut y, normed));
            }
            match self.shape.activation {
                Activation::Relu => kernels::vectorised!({
                    for x in y.iter_mut() {
                        *x = if *x > 0.0 { *x } else { 0.0 };
                    }
                }),
                Activation::Tanh => kernels::vectorised!({
                    for x in y.iter_mut() {
                        *x = tanh(*x);
                    }
                }),
            }
            inputs.push(y);
        }
        unit
    }

    /// Pushes dL/doutput, `[members, batch, outputs]`, of the members that ran back: adds to `gradients` if given, for
    /// which all must have run, and returns dL/dinput, `[members, batch, inputs]`, if `with_input`, else nothing.
    pub fn backward(
        &self,
        parameters: &Parameters,
        tape: &Tape,
        doutput: &[f32],
        gradients: Option<&mut Gradients>,
        with_input: bool,
    ) -> Vec<f32> {
        let values = Values::of(self, parameters);
        let (batch, outputs) = (tape.batch, self.shape.outputs);
        let learns = gradients.is_some();
        debug_assert!(!learns || tape.members == self.shape.members, "gradients are of all members");
        let done = shares::map(tape.units.iter().collect(), |unit: &Unit| {
            let first = (unit.place * batch + unit.first) * outputs;
            let dy = doutput[first..first + unit.rows * outputs].to_vec();
            self.backward_unit(&values, unit, dy, learns, with_input)
        });
        let mut dinput = Vec::new();
        if with_input {
            dinput.reserve(tape.members * batch * self.shape.inputs);
            // Units stand in the order of members and rows.
            done.iter().for_each(|unit| dinput.extend_from_slice(&unit.dinput));
        }
        if let Some(gradients) = gradients {
            self.collect(done, gradients);
        }
        dinput
    }

    fn backward_unit(
        &self,
        values: &Values,
        unit: &Unit,
        mut dy: Vec<f32>,
        learns: bool,
        with_input: bool,
    ) -> Pushed {
        let (rows, member) = (unit.rows, unit.member);
        let mut pushed = Pushed { gradients: Vec::new(), dinput: Vec::new() };
        for (number, layer) in self.layers.iter().enumerate().rev() {
            let width = layer.outputs;
            if number + 1 < self.layers.len() {
                let y = &unit.inputs[number + 1];
                match self.shape.activation {
                    Activation::Relu => through_relu(&mut dy, y),
                    Activation::Tanh => kernels::vectorised!({
                        for i in 0..dy.len() {
                            dy[i] *= 1.0 - y[i] * y[i];
                        }
                    }),
                }
                if let Some((scale_id, shift_id)) = layer.norm {
                    let scale = values.member(scale_id, member, width);
                    let (mut dscale, mut dshift) = (vec![0.0; width], vec![0.0; width]);
                    let before = &unit.before_norm[number];
                    let into = learns.then_some((&mut dscale[..], &mut dshift[..]));
                    dy = kernels::layer_norm_backward(before, scale, &dy, EPSILON, into);
                    if learns {
                        pushed.gradients.extend([(scale_id, dscale), (shift_id, dshift)]);
                    }
                }
            }
            let dlayer = Matrix::new(&dy, rows, width);
            if learns {
                let mut dweight = vec![0.0; width * layer.inputs];
                kernels::matmul(
                    MatrixMut::new(&mut dweight, width, layer.inputs),
                    false,
                    dlayer.transposed(),
                    Matrix::new(&unit.inputs[number], rows, layer.inputs),
                    1.0,
                );
                let mut dbias = vec![0.0; width];
                kernels::vectorised!({
                    for row in dy.chunks_exact(width) {
                        for i in 0..width {
                            dbias[i] += row[i];
                        }
                    }
                });
                pushed.gradients.extend([(layer.weight, dweight), (layer.bias, dbias)]);
            }
            if number == 0 && !with_input {
                break;
            }
            let mut dx = vec![0.0; rows * layer.inputs];
            kernels::matmul(
                MatrixMut::new(&mut dx, rows, layer.inputs),
                false,
                dlayer,
                Matrix::new(values.member(layer.weight, member, width * layer.inputs), width, layer.inputs),
                1.0,
            );
            dy = dx;
        }
        if with_input {
            pushed.dinput = dy;
        }
        pushed
    }

    /// How fast the outputs, `[members, batch, outputs]`, change as the parameters move along `direction`, whose numbers
    /// stand in for those of the parameters: J direction, the counterpart of [`Mlp::backward`]'s Jᵀ doutput.
    pub fn jvp(&self, parameters: &Parameters, tape: &Tape, direction: &Parameters) -> Vec<f32> {
        let (values, along) = (Values::of(self, parameters), Values::of(self, direction));
        let done =
            shares::map(tape.units.iter().collect(), |unit: &Unit| self.jvp_unit(&values, &along, unit));
        done.concat()
    }

    fn jvp_unit(&self, values: &Values, along: &Values, unit: &Unit) -> Vec<f32> {
        let (rows, member) = (unit.rows, unit.member);
        // What goes into the first layer does not move.
        let mut dx = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let Layer { inputs, outputs: width, weight, bias, norm } = *layer;
            let mut dy = rows_of(along.member(bias, member, width), rows);
            let mut add = |x: &[f32], from: &Values| {
                kernels::matmul(
                    MatrixMut::new(&mut dy, rows, width),
                    true,
                    Matrix::new(x, rows, inputs),
                    Matrix::new(from.member(weight, member, width * inputs), width, inputs).transposed(),
                    1.0,
                );
            };
            add(&unit.inputs[number], along);
            if number > 0 {
                add(&dx, values);
            }
            if number + 1 == self.layers.len() {
                return dy;
            }
            if let Some((scale, shift)) = norm {
                let scale_of = |from: &'_ Values| from.member(scale, member, width).to_vec();
                let dshift = along.member(shift, member, width);
                let before = &unit.before_norm[number];
                layer_norm_jvp(before, &mut dy, &scale_of(values), &scale_of(along), dshift);
            }
            let y = &unit.inputs[number + 1];
            match self.shape.activation {
                Activation::Relu => through_relu(&mut dy, y),
                Activation::Tanh => dy.iter_mut().zip(y).for_each(|(dy, y)| *dy *= 1.0 - y * y),
            }
            dx = dy;
        }
        dx
    }

    /// The slopes of Σ doutput · output in the inputs, kept so that a loss of theirs can be pushed back to the weights by
    /// [`Mlp::push_back_slopes`]; `doutput` is `[members, batch, outputs]`. None unless activations are ReLU without layer
    /// norm: there a slope is a product of weights and masks, and the second derivative of an activation is 0.
    pub fn slopes(&self, parameters: &Parameters, tape: &Tape, doutput: &[f32]) -> Option<Slopes> {
        if self.shape.activation != Activation::Relu || self.shape.layer_norm {
            return None;
        }
        let (values, outputs) = (Values::of(self, parameters), self.shape.outputs);
        let units = shares::map(tape.units.iter().collect(), |unit: &Unit| {
            let first = (unit.member * tape.batch + unit.first) * outputs;
            let mut at = vec![doutput[first..first + unit.rows * outputs].to_vec()];
            for (number, layer) in self.layers.iter().enumerate().rev() {
                let Layer { inputs, outputs: width, weight, .. } = *layer;
                let mut dx = vec![0.0; unit.rows * inputs];
                kernels::matmul(
                    MatrixMut::new(&mut dx, unit.rows, inputs),
                    false,
                    Matrix::new(&at[at.len() - 1], unit.rows, width),
                    Matrix::new(values.member(weight, unit.member, width * inputs), width, inputs),
                    1.0,
                );
                if number > 0 {
                    through_relu(&mut dx, &unit.inputs[number]);
                }
                at.push(dx);
            }
            at.reverse();
            at
        });
        Some(Slopes { units })
    }

    /// Pushes a loss with slopes `dslopes`, `[members, batch, inputs]`, in the [`Slopes`] of a pass back: adds to the
    /// gradients of the weights. Those of biases are 0.
    ///
    /// With V_l the slopes at what the linear part of layer l gives, m_l the masks and g = V_1 W_1:
    /// dW_1 = V_1ᵀ dg, c = m_1 (dg W_1ᵀ), and then dW_l = V_lᵀ c, c = m_l (c W_lᵀ).
    pub fn push_back_slopes(
        &self,
        parameters: &Parameters,
        tape: &Tape,
        slopes: &Slopes,
        dslopes: &[f32],
        gradients: &mut Gradients,
    ) {
        let (values, width) = (Values::of(self, parameters), self.shape.inputs);
        let work: Vec<(&Unit, &Vec<Vec<f32>>)> = tape.units.iter().zip(&slopes.units).collect();
        let done = shares::map(work, |(unit, at): (&Unit, &Vec<Vec<f32>>)| {
            let (rows, first) = (unit.rows, (unit.member * tape.batch + unit.first) * width);
            let mut c = dslopes[first..first + rows * width].to_vec();
            let mut found = Vec::with_capacity(self.layers.len());
            for (number, layer) in self.layers.iter().enumerate() {
                let Layer { inputs, outputs, weight, .. } = *layer;
                let mut dweight = vec![0.0; outputs * inputs];
                kernels::matmul(
                    MatrixMut::new(&mut dweight, outputs, inputs),
                    false,
                    Matrix::new(&at[number + 1], rows, outputs).transposed(),
                    Matrix::new(&c, rows, inputs),
                    1.0,
                );
                found.push((weight, dweight));
                if number + 1 == self.layers.len() {
                    break;
                }
                let mut next = vec![0.0; rows * outputs];
                kernels::matmul(
                    MatrixMut::new(&mut next, rows, outputs),
                    false,
                    Matrix::new(&c, rows, inputs),
                    Matrix::new(values.member(weight, unit.member, outputs * inputs), outputs, inputs)
                        .transposed(),
                    1.0,
                );
                through_relu(&mut next, &unit.inputs[number + 1]);
                c = next;
            }
            Pushed { gradients: found, dinput: Vec::new() }
        });
        self.collect(done, gradients);
    }

    /// Adds what the units found: side by side for members, summed for the halves of a batch.
    fn collect(&self, done: Vec<Pushed>, gradients: &mut Gradients) {
        let members = self.shape.members;
        let mut units: Vec<_> = done.into_iter().map(|unit| unit.gradients.into_iter()).collect();
        let Some(count) = units.first().map(ExactSizeIterator::len) else { return };
        let parts: Vec<Vec<(ParameterId, Vec<f32>)>> =
            (0..count).map(|_| units.iter_mut().filter_map(Iterator::next).collect()).collect();
        let found = shares::map(parts, |parts| {
            let id = parts[0].0;
            let mut parts = parts.into_iter().map(|(_, numbers)| numbers);
            let mut whole = parts.next().unwrap_or_default();
            let size = whole.len();
            if members > 1 {
                whole.reserve_exact((members - 1) * size);
            }
            for part in parts {
                match members {
                    1 => kernels::vectorised!({
                        for i in 0..whole.len() {
                            whole[i] += part[i];
                        }
                    }),
                    _ => whole.extend_from_slice(&part),
                }
            }
            let shape = match self.layers.iter().find(|layer| layer.weight == id) {
                Some(layer) => [members * layer.outputs, layer.inputs],
                None => [members, size],
            };
            (id, host::tensor(whole, shape, &Device::flex()))
        });
        found.into_iter().for_each(|(id, gradient)| gradients.add(id, gradient));
    }
}

impl Tape {
    /// How many members ran.
    pub fn members(&self) -> usize {
        self.members
    }

    /// What came out, `[members, batch, outputs]`.
    pub fn outputs(&self) -> Vec<f32> {
        // Units stand in the order of members and rows.
        self.units.iter().flat_map(|unit| unit.output.iter().copied()).collect()
    }
}

/// What [`Mlp::slopes`] found.
#[derive(Clone, Debug)]
pub struct Slopes {
    /// For each unit of the pass, the slopes at the inputs and at what the linear part of each layer gives,
    /// `[rows, width]` each.
    units: Vec<Vec<Vec<f32>>>,
}

impl Slopes {
    /// Those in the inputs, `[members, batch, inputs]`.
    pub fn of_inputs(&self) -> Vec<f32> {
        // Units stand in the order of members and rows.
        self.units.iter().flat_map(|at| at[0].iter().copied()).collect()
    }
}

/// What one unit found: gradients in a fixed order of parameters.
struct Pushed {
    gradients: Vec<(ParameterId, Vec<f32>)>,
    dinput: Vec<f32>,
}

/// The network's numbers in the host's memory, by parameter.
struct Values {
    first: ParameterId,
    numbers: Vec<Option<Host>>,
}

impl Values {
    fn of(network: &Mlp, parameters: &Parameters) -> Self {
        let first = network.layers.first().map_or(0, |layer| layer.weight);
        let last = network.layers.last().map_or(0, |layer| layer.bias);
        Self { first, numbers: (first..=last).map(|id| Host::of(parameters.get(id))).collect() }
    }

    fn member(&self, id: ParameterId, member: usize, size: usize) -> &[f32] {
        match &self.numbers[id - self.first] {
            Some(host) => &host.slice()[member * size..][..size],
            None => unreachable!("these networks live in the host's memory"),
        }
    }
}

/// The same row so many times. `repeat` would copy ever larger parts of what it has written, which are no longer near.
fn rows_of(row: &[f32], rows: usize) -> Vec<f32> {
    let mut all = Vec::with_capacity(rows * row.len());
    (0..rows).for_each(|_| all.extend_from_slice(row));
    all
}

/// Slopes before a ReLU that gave `y`, in place of those behind it.
fn through_relu(dy: &mut [f32], y: &[f32]) {
    kernels::vectorised!({
        for i in 0..dy.len() {
            dy[i] = if y[i] > 0.0 { dy[i] } else { 0.0 };
        }
    });
}

/// Turns the changes `dx` of what goes into a layer norm into those of what comes out, rows of `scale.len()` numbers.
fn layer_norm_jvp(x: &[f32], dx: &mut [f32], scale: &[f32], dscale: &[f32], dshift: &[f32]) {
    let (width, n) = (scale.len(), scale.len() as f32);
    for (x, dx) in x.chunks_exact(width).zip(dx.chunks_exact_mut(width)) {
        let mean = x.iter().sum::<f32>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n;
        let inverse = (variance + EPSILON).sqrt().recip();
        let dmean = dx.iter().sum::<f32>() / n;
        let along = x.iter().zip(dx.iter()).map(|(x, dx)| (x - mean) * inverse * dx).sum::<f32>() / n;
        for i in 0..width {
            let normed = (x[i] - mean) * inverse;
            dx[i] = scale[i] * inverse * (dx[i] - dmean - normed * along) + dscale[i] * normed + dshift[i];
        }
    }
}

/// tanh to about four units in the last place, without a branch, so that loops over it vectorise.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let e = kernels::exp(-2.0 * x.abs());
    // For small arguments, where 1 - e loses digits, the odd series.
    let square = x * x;
    let series = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 - square * (17.0 / 315.0))));
    let quotient = (1.0 - e) / (1.0 + e);
    let far = if x < 0.0 { -quotient } else { quotient };
    if square < 0.02 { series } else { far }
}

fn uniform(count: usize, bound: f64, seeds: &Seeds, stream: &str) -> Vec<f32> {
    let mut rng = seeds.rng(stream, 0);
    (0..count).map(|_| ((2.0 * polo_run::seed::unit(&mut rng) - 1.0) * bound) as f32).collect()
}

fn initial(init: Init, inputs: usize, outputs: usize, seeds: &Seeds) -> Vec<f32> {
    match init {
        Init::Torch | Init::TorchWithBias(_) => {
            uniform(inputs * outputs, (inputs as f64).sqrt().recip(), seeds, "weight")
        }
        Init::Uniform(bound) => uniform(inputs * outputs, bound, seeds, "weight"),
        Init::Xavier(gain) => {
            uniform(inputs * outputs, gain * (6.0 / (inputs + outputs) as f64).sqrt(), seeds, "weight")
        }
        Init::Orthogonal(gain) => orthogonal(inputs, outputs, gain, seeds),
    }
}

fn initial_bias(init: Init, inputs: usize, outputs: usize, seeds: &Seeds) -> Vec<f32> {
    match init {
        Init::Torch => uniform(outputs, (inputs as f64).sqrt().recip(), seeds, "bias"),
        Init::Uniform(bound) => uniform(outputs, bound, seeds, "bias"),
        Init::TorchWithBias(value) => vec![value as f32; outputs],
        Init::Xavier(_) | Init::Orthogonal(_) => vec![0.0; outputs],
    }
}

/// `[outputs, inputs]` with orthonormal rows (or columns, where there are more rows) times the gain: Gram and Schmidt's
/// way through normal vectors, twice for the sake of rounding.
fn orthogonal(inputs: usize, outputs: usize, gain: f64, seeds: &Seeds) -> Vec<f32> {
    let (count, width) = (inputs.min(outputs), inputs.max(outputs));
    let normal = seeds.normal(count * width, "weight", 0);
    let mut vectors: Vec<Vec<f64>> =
        normal.chunks_exact(width).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    for n in 0..count {
        let (before, rest) = vectors.split_at_mut(n);
        let own = &mut rest[0];
        for _ in 0..2 {
            for other in before.iter() {
                let along: f64 = own.iter().zip(other).map(|(a, b)| a * b).sum();
                own.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = own.iter().map(|a| a * a).sum::<f64>().sqrt();
        own.iter_mut().for_each(|a| *a /= norm);
    }
    let at = |row: usize, column: usize| match outputs <= inputs {
        true => vectors[row][column],
        false => vectors[column][row],
    };
    (0..outputs).flat_map(|row| (0..inputs).map(move |column| (gain * at(row, column)) as f32)).collect()
}

#[cfg(test)]
#[path = "mlp_tests.rs"]
mod tests;
