//! A network with its numbers and its optimiser, and what critics of several members need.

use std::collections::BTreeMap;

use polo_nn::{
    Device, Gradients, Parameter, ParameterId, Parameters,
    files::Tensors,
    host,
    mlp::{Mlp, Shape, Tape},
    optimiser::{self, AdamW, Moments},
};
use polo_run::{Problem, Result, metrics::Metrics, seed::Seeds};
use polo_sim::replay::Batch;

/// Settings of one Adam step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Step size.
    pub learning_rate: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// A network, its numbers and its optimiser.
#[derive(Clone, Debug)]
pub struct Network {
    /// The layers.
    pub mlp: Mlp,
    /// Their numbers, and those that stand beside them, such as the width of a policy.
    pub parameters: Parameters,
    moments: Moments,
}

impl Network {
    /// A fresh network.
    pub fn new(shape: Shape, name: &str, seeds: &Seeds) -> Self {
        let mut parameters = Parameters::default();
        let mlp = Mlp::new(shape, name, &mut parameters, seeds);
        Self { mlp, moments: Moments::new(&parameters), parameters }
    }

    /// Adds a row of numbers that are learnt beside the layers.
    pub fn add_row(&mut self, name: &str, numbers: Vec<f32>) -> ParameterId {
        let shape = [1, numbers.len()];
        let value = host::tensor(numbers, shape, &Device::flex());
        let id = self.parameters.push(Parameter { name: name.into(), value, trainable: true, decays: false });
        self.moments = Moments::new(&self.parameters);
        id
    }

    /// The numbers of a row that was added.
    pub fn row(&self, id: ParameterId) -> Vec<f32> {
        host::numbers(self.parameters.get(id))
    }

    /// No gradient yet.
    pub fn gradients(&self) -> Gradients {
        Gradients::new(&self.parameters)
    }

    /// Runs a batch, keeping what is needed to push back.
    pub fn forward(&self, x: &[f32]) -> Tape {
        self.mlp.forward(&self.parameters, x)
    }

    /// Runs a batch through the first member alone.
    pub fn forward_first(&self, x: &[f32]) -> Tape {
        self.mlp.forward_members(&self.parameters, x, &[0])
    }

    /// Runs a batch: `[members, rows, outputs]`.
    pub fn evaluate(&self, x: &[f32]) -> Vec<f32> {
        self.mlp.evaluate(&self.parameters, x)
    }

    /// Adds dL/doutput to `gradients`.
    pub fn push_back(&self, tape: &Tape, doutput: &[f32], gradients: &mut Gradients) {
        self.mlp.backward(&self.parameters, tape, doutput, Some(gradients), false);
    }

    /// dL/dinput, `[rows, inputs]`, summed over the members that ran, of a loss that the network does not learn from.
    pub fn slope(&self, tape: &Tape, doutput: &[f32]) -> Vec<f32> {
        let each = self.mlp.backward(&self.parameters, tape, doutput, None, true);
        let size = each.len() / tape.members();
        let mut sum = each[..size].to_vec();
        for other in each[size..].chunks_exact(size) {
            sum.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
        sum
    }

    /// Adds to the gradient of a row.
    pub fn push_row(&self, id: ParameterId, slopes: Vec<f32>, gradients: &mut Gradients) {
        let shape = [1, slopes.len()];
        gradients.add(id, host::tensor(slopes, shape, &Device::flex()));
    }

    /// Length of a gradient.
    pub fn norm(&self, gradients: &Gradients) -> f64 {
        optimiser::global_norm(gradients, &self.parameters)
    }

    /// A gradient as one row of numbers, in the order of the parameters; 0 where nothing was pushed back.
    pub fn flatten(&self, gradients: &Gradients) -> Vec<f32> {
        let mut flat = Vec::with_capacity(self.parameters.count().0);
        for (id, parameter) in self.parameters.iter().enumerate() {
            match gradients.get(id) {
                Some(gradient) => flat.extend(host::numbers(gradient)),
                None => flat.resize(flat.len() + parameter.value.dims().iter().product::<usize>(), 0.0),
            }
        }
        flat
    }

    /// A row of numbers as [`Network::flatten`] makes it, shaped like the parameters.
    pub fn shaped(&self, flat: &[f32]) -> Parameters {
        let (mut shaped, mut first) = (self.parameters.clone(), 0);
        for parameter in shaped.iter_mut() {
            let shape = parameter.value.dims();
            let size = shape.iter().product::<usize>();
            parameter.value = host::tensor(flat[first..first + size].to_vec(), shape, &Device::flex());
            first += size;
        }
        shaped
    }

    /// One step of Adam on a gradient taken times `scale`.
    pub fn step(&mut self, mut gradients: Gradients, adam: Adam, scale: f64) {
        optimiser::step(&mut self.parameters, &mut self.moments, &mut gradients, adam.settings(), scale);
    }

    /// Everything that a checkpoint must hold, under names that begin with `prefix`.
    pub fn save(&self, prefix: &str, tensors: &mut Tensors) {
        save(&self.parameters, Some(&self.moments), prefix, tensors);
    }

    /// The weights alone.
    pub fn save_weights(&self, prefix: &str, tensors: &mut Tensors) {
        save(&self.parameters, None, prefix, tensors);
    }

    /// Takes up what [`Network::save`] wrote.
    ///
    /// # Errors
    /// Tensors of another network.
    pub fn load(&mut self, prefix: &str, tensors: &mut Tensors) -> Result<()> {
        load(&mut self.parameters, Some(&mut self.moments), prefix, tensors)
    }

    /// Takes up what [`Network::save_weights`] wrote.
    ///
    /// # Errors
    /// Tensors of another network.
    pub fn load_weights(&mut self, prefix: &str, tensors: &mut Tensors) -> Result<()> {
        load(&mut self.parameters, None, prefix, tensors)
    }
}

/// One number that is learnt, with an optimiser of its own.
#[derive(Clone, Debug)]
pub struct Scalar {
    parameters: Parameters,
    moments: Moments,
}

impl Scalar {
    /// A number to begin with.
    pub fn new(name: &str, value: f32) -> Self {
        let mut parameters = Parameters::default();
        let value = host::tensor(vec![value], [1, 1], &Device::flex());
        parameters.push(Parameter { name: name.into(), value, trainable: true, decays: false });
        Self { moments: Moments::new(&parameters), parameters }
    }

    /// The number.
    pub fn value(&self) -> f32 {
        host::numbers(self.parameters.get(0))[0]
    }

    /// One step of Adam along dL/dnumber.
    pub fn step(&mut self, slope: f32, adam: Adam) {
        let mut gradients = Gradients::new(&self.parameters);
        gradients.add(0, host::tensor(vec![slope], [1, 1], &Device::flex()));
        optimiser::step(&mut self.parameters, &mut self.moments, &mut gradients, adam.settings(), 1.0);
    }

    /// As [`Network::save`].
    pub fn save(&self, prefix: &str, tensors: &mut Tensors) {
        save(&self.parameters, Some(&self.moments), prefix, tensors);
    }

    /// As [`Network::load`].
    ///
    /// # Errors
    /// Tensors of another number.
    pub fn load(&mut self, prefix: &str, tensors: &mut Tensors) -> Result<()> {
        load(&mut self.parameters, Some(&mut self.moments), prefix, tensors)
    }
}

impl Adam {
    fn settings(self) -> AdamW {
        let Adam { learning_rate, epsilon } = self;
        AdamW { learning_rate, beta1: 0.9, beta2: 0.999, epsilon, weight_decay: 0.0 }
    }
}

fn save(parameters: &Parameters, moments: Option<&Moments>, prefix: &str, tensors: &mut Tensors) {
    for parameter in parameters.iter() {
        let value = &parameter.value;
        let name = format!("{prefix}/{}", parameter.name);
        tensors.insert(name, (value.dims().to_vec(), host::numbers(value)));
    }
    let Some(moments) = moments else { return };
    for (parameter, moment) in parameters.iter().zip(&moments.values) {
        let Some((first, second)) = moment else { continue };
        for (part, value) in [("first", first), ("second", second)] {
            let name = format!("{prefix}/{}/{part}", parameter.name);
            tensors.insert(name, (value.dims().to_vec(), host::numbers(value)));
        }
    }
    // A count of steps is exact in f32 up to 2^24; above it is kept as two halves.
    let halves = vec![(moments.steps >> 20) as f32, (moments.steps & 0xf_ffff) as f32];
    tensors.insert(format!("{prefix}/steps"), (vec![2], halves));
}

fn load(
    parameters: &mut Parameters,
    moments: Option<&mut Moments>,
    prefix: &str,
    tensors: &mut Tensors,
) -> Result<()> {
    for parameter in parameters.iter_mut() {
        let shape = parameter.value.dims();
        let numbers = take(tensors, &format!("{prefix}/{}", parameter.name), &shape)?;
        parameter.value = host::tensor(numbers, shape, &Device::flex());
    }
    let Some(moments) = moments else { return Ok(()) };
    for (parameter, moment) in parameters.iter().zip(&mut moments.values) {
        let Some((first, second)) = moment else { continue };
        for (part, value) in [("first", first), ("second", second)] {
            let name = format!("{prefix}/{}/{part}", parameter.name);
            *value = host::tensor(take(tensors, &name, &value.dims())?, value.dims(), &Device::flex());
        }
    }
    let halves = take(tensors, &format!("{prefix}/steps"), &[2])?;
    moments.steps = ((halves[0] as u64) << 20) + halves[1] as u64;
    Ok(())
}

fn take(
    tensors: &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>> {
    match tensors.remove(name) {
        Some((found, numbers)) if found == shape => Ok(numbers),
        _ => Err(Problem::input(format!("`{name}` is missing or of another shape"))
            .hint("these files belong to another method, environment or size of network")),
    }
}

/// One step of every member of `critic` towards the same aims, one to a row of `x`: the loss is the sum over members of
/// mean (Q(x) - aim)^2. Says that loss and the mean value.
pub fn regress(critic: &mut Network, x: &[f32], aims: &[f32], adam: Adam) -> Metrics {
    let tape = critic.forward(x);
    let (slopes, metrics) = squared(&tape.outputs(), aims);
    let mut gradients = critic.gradients();
    critic.push_back(&tape, &slopes, &mut gradients);
    critic.step(gradients, adam, 1.0);
    metrics
}

/// The slopes of the sum over members of mean (value - aim)^2 in the values, `[members, rows]`. Says that loss and the
/// mean value.
pub fn squared(values: &[f32], aims: &[f32]) -> (Vec<f32>, Metrics) {
    let rows = aims.len();
    let errors: Vec<f32> =
        values.iter().enumerate().map(|(place, value)| value - aims[place % rows]).collect();
    let slopes = errors.iter().map(|error| 2.0 * error / rows as f32).collect();
    let loss = errors.iter().map(|error| error * error).sum::<f32>() / rows as f32;
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    let metrics = [("losses/qf_loss", f64::from(loss)), ("losses/qf_values", f64::from(mean))];
    (slopes, metrics.into_iter().collect())
}

/// r + gamma (1 - terminated) v, `next` being v, the value of what followed each row.
pub fn aims(batch: &Batch, next: &[f32], gamma: f64) -> Vec<f32> {
    let value = |row: usize| batch.rewards[row] + gamma as f32 * (1.0 - batch.terminated[row]) * next[row];
    (0..batch.len()).map(value).collect()
}

/// Rows of two matrices side by side, `[rows, a + b]`.
pub fn beside(one: &[f32], a: usize, other: &[f32], b: usize) -> Vec<f32> {
    let rows = one.chunks_exact(a).zip(other.chunks_exact(b));
    rows.flat_map(|(one, other)| one.iter().chain(other).copied()).collect()
}

/// The last `width` columns of rows of `of` numbers.
pub fn last_columns(rows: &[f32], of: usize, width: usize) -> Vec<f32> {
    rows.chunks_exact(of).flat_map(|row| &row[of - width..]).copied().collect()
}

/// For each row the least of the members' values, `[members, rows]`, and whose it is.
pub fn least(values: &[f32], rows: usize) -> (Vec<f32>, Vec<usize>) {
    let members = values.len() / rows;
    let of = |row: usize| {
        let value = |member: usize| values[member * rows + row];
        let whose =
            (1..members).fold(0, |best, member| if value(member) < value(best) { member } else { best });
        (value(whose), whose)
    };
    (0..rows).map(of).unzip()
}

#[cfg(test)]
mod tests {
    use polo_nn::mlp::{Activation, Init};

    use super::*;

    #[test]
    fn nothing_is_added_to_the_last_reward_of_a_task() {
        let batch = Batch { rewards: vec![1.0, -2.0], terminated: vec![0.0, 1.0], ..Batch::default() };
        assert_eq!(aims(&batch, &[10.0, 10.0], 0.5), [6.0, -2.0]);
    }

    #[test]
    fn columns_and_minima() {
        assert_eq!(beside(&[1.0, 2.0], 1, &[3.0, 4.0, 5.0, 6.0], 2), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
        assert_eq!(last_columns(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2), [2.0, 3.0, 5.0, 6.0]);
        assert_eq!(least(&[1.0, 5.0, 2.0, 4.0], 2), (vec![1.0, 4.0], vec![0, 1]));
    }

    #[test]
    fn the_first_member_is_asked_alone() {
        let shape = crate::deterministic::shape(&[4], 2, 1, 2);
        let network = Network::new(shape, "q", &Seeds::new(1));
        let x = [1.0, -2.0, 0.5, 0.5, 3.0, 0.0];
        let (both, first) = (network.forward(&x), network.forward_first(&x));
        assert_eq!(first.outputs(), both.outputs()[..3]);
        assert_ne!(first.outputs(), both.outputs()[3..]);
        // A loss that the second has no part in.
        let beside = network.slope(&both, &[1.0, -1.0, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(network.slope(&first, &[1.0, -1.0, 0.5]), beside);
    }

    #[test]
    fn a_network_comes_back_with_its_optimiser() {
        let shape = Shape {
            inputs: 2,
            hidden: vec![4],
            outputs: 1,
            members: 2,
            activation: Activation::Relu,
            layer_norm: false,
            init: (Init::Torch, Init::Torch),
        };
        let adam = Adam { learning_rate: 1e-2, epsilon: 1e-8 };
        let mut network = Network::new(shape.clone(), "q", &Seeds::new(1));
        let row = network.add_row("log_std", vec![0.5, -0.5]);
        let learn = |network: &mut Network| {
            let mut gradients = network.gradients();
            let tape = network.forward(&[1.0, -2.0, 0.5, 0.5]);
            network.push_back(&tape, &[1.0, -1.0, 0.5, 2.0], &mut gradients);
            network.push_row(row, vec![1.0, 2.0], &mut gradients);
            network.step(gradients, adam, 1.0);
        };
        learn(&mut network);
        // Adam's first step has the size of the learning rate.
        assert!(network.row(row).iter().zip([0.49, -0.51]).all(|(a, b)| (a - b).abs() < 1e-6));
        let mut tensors = Tensors::new();
        network.save("critic", &mut tensors);
        let mut back = Network::new(shape, "q", &Seeds::new(2));
        back.add_row("log_std", vec![0.0; 2]);
        back.load("critic", &mut tensors.clone()).unwrap();
        learn(&mut network);
        learn(&mut back);
        assert_eq!(back.evaluate(&[0.3, 0.7]), network.evaluate(&[0.3, 0.7]));
        tensors.remove("critic/q.0.weight");
        assert!(back.load("critic", &mut tensors).unwrap_err().message().contains("q.0.weight"));
    }
}
