//! Keys and values of earlier tokens, kept while sequences grow token by token.
//!
//! Generation computes a prompt once, makes a [`Cache`] from its keys and values, and then feeds one token per sequence
//! and step. On the CPU every sequence has lists of its own, and samples of one prompt share the prompt's; nothing is
//! padded. Other devices hold one tensor per layer, prompts padded on the left, with a mask.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::{attention::Heads, host, kernels, ops};

/// The cache of sequences that grow together, one row each.
#[derive(Debug)]
pub struct Cache {
    heads: Heads,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    Lists(Vec<Lists>),
    Padded(Box<Padded>),
}

/// One sequence on the CPU; a stretch for each layer.
#[derive(Clone, Debug)]
struct Lists {
    prompt: Arc<Vec<Stretch>>,
    own: Vec<Stretch>,
}

/// Keys and values of consecutive tokens, for each key head `[tokens · width]`.
#[derive(Clone, Debug)]
struct Stretch {
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

#[derive(Debug)]
struct Padded {
    /// Keys and values of each layer, `[rows, key heads, capacity, width]`.
    layers: Vec<[Tensor<4>; 2]>,
    /// Unused places before each row's prompt.
    unused: Vec<usize>,
    /// Places that are filled, padding included.
    length: usize,
    /// 0 at places that are filled, a large negative number elsewhere, `[rows, 1, 1, capacity]`.
    mask: Tensor<4>,
}

/// Places by which a padded cache grows.
const GROWTH: usize = 64;

impl Cache {
    /// A cache after prompts of `lengths` tokens, with `samples` rows for each prompt. `layers` has the keys and
    /// values (`[tokens, keys · width]`) of all prompts' tokens, prompt after prompt. `padded` chooses the form that
    /// devices other than the CPU need.
    pub fn new(
        layers: &[(Tensor<2>, Tensor<2>)],
        lengths: &[usize],
        samples: usize,
        heads: Heads,
        padded: bool,
    ) -> Self {
        let rows = match padded {
            true => Rows::Padded(Box::new(Padded::new(layers, lengths, samples, heads))),
            false => Rows::Lists(lists(layers, lengths, samples, heads)),
        };
        Self { heads, rows }
    }

    /// Attention of one new token per row over all tokens of its sequence, itself among them: `q`
    /// `[rows, queries · width]`, `k` and `v` `[rows, keys · width]`. Layers take their turns in order, each once a step.
    pub fn attend(&mut self, layer: usize, q: &Tensor<2>, k: &Tensor<2>, v: &Tensor<2>) -> Tensor<2> {
        match &mut self.rows {
            Rows::Lists(rows) => attend_lists(rows, layer, self.heads, q, k, v),
            Rows::Padded(padded) => padded.attend(layer, self.heads, q, k, v),
        }
    }

    /// Makes row n what row `rows[n]` was; rows may change places, be given several times (a sequence that branches) or
    /// not at all (one that is given up).
    pub fn select(&mut self, rows: &[usize]) {
        match &mut self.rows {
            Rows::Lists(lists) => select_lists(lists, rows),
            Rows::Padded(padded) => padded.select(rows),
        }
    }
}

impl Stretch {
    fn new(heads: Heads) -> Self {
        Self { keys: vec![Vec::new(); heads.keys], values: vec![Vec::new(); heads.keys] }
    }

    /// Appends tokens, `[tokens · keys · width]`.
    fn extend(&mut self, k: &[f32], v: &[f32], heads: Heads) {
        for (cache, numbers) in [(&mut self.keys, k), (&mut self.values, v)] {
            for (i, head) in numbers.chunks_exact(heads.width).enumerate() {
                cache[i % heads.keys].extend_from_slice(head);
            }
        }
    }
}

fn lists(layers: &[(Tensor<2>, Tensor<2>)], lengths: &[usize], samples: usize, heads: Heads) -> Vec<Lists> {
    let mut prompts: Vec<Vec<Stretch>> = vec![Vec::with_capacity(layers.len()); lengths.len()];
    for (k, v) in layers {
        let (k, v) = (host::numbers(k), host::numbers(v));
        let mut at = 0;
        for (prompt, length) in prompts.iter_mut().zip(lengths) {
            let numbers = at..at + length * heads.keys * heads.width;
            let mut stretch = Stretch::new(heads);
            stretch.extend(&k[numbers.clone()], &v[numbers.clone()], heads);
            prompt.push(stretch);
            at = numbers.end;
        }
    }
    let own = vec![Stretch::new(heads); layers.len()];
    let rows = |prompt| {
        let prompt = Arc::new(prompt);
        (0..samples).map(|_| Lists { prompt: Arc::clone(&prompt), own: own.clone() }).collect::<Vec<_>>()
    };
    prompts.into_iter().flat_map(rows).collect()
}

/// Moves rows to their new places; only those that are given several times are copied.
fn select_lists(lists: &mut Vec<Lists>, rows: &[usize]) {
    let mut uses = vec![0; lists.len()];
    rows.iter().for_each(|&row| uses[row] += 1);
    let mut old: Vec<Option<Lists>> = std::mem::take(lists).into_iter().map(Some).collect();
    lists.extend(rows.iter().filter_map(|&row| {
        uses[row] -= 1;
        if uses[row] == 0 { old[row].take() } else { old[row].clone() }
    }));
}

fn attend_lists(
    rows: &mut [Lists],
    layer: usize,
    heads: Heads,
    q: &Tensor<2>,
    k: &Tensor<2>,
    v: &Tensor<2>,
) -> Tensor<2> {
    let (q_numbers, k, v) = (host::numbers(q), host::numbers(k), host::numbers(v));
    let (width, scale, group) = (heads.width, 1.0 / (heads.width as f32).sqrt(), heads.queries / heads.keys);
    let mut out = vec![0.0; q_numbers.len()];
    let mut scores = Vec::new();
    for (n, row) in rows.iter_mut().enumerate() {
        let new = n * heads.keys * width..(n + 1) * heads.keys * width;
        row.own[layer].extend(&k[new.clone()], &v[new], heads);
        let stretches = [&row.prompt[layer], &row.own[layer]];
        for head in 0..heads.queries {
            let at = (n * heads.queries + head) * width;
            let (q, out) = (&q_numbers[at..at + width], &mut out[at..at + width]);
            kernels::vectorised!({
                scores.clear();
                for stretch in stretches {
                    for key in stretch.keys[head / group].chunks_exact(width) {
                        scores.push(kernels::sum(width, |i| q[i] * key[i]) * scale);
                    }
                }
                kernels::softmax(&mut scores);
                let mut weights = scores.iter();
                for stretch in stretches {
                    // Values come first: a zip that ended after taking a weight would lose it to the next stretch.
                    for (value, weight) in stretch.values[head / group].chunks_exact(width).zip(&mut weights)
                    {
                        for i in 0..width {
                            out[i] += weight * value[i];
                        }
                    }
                }
            });
        }
    }
    host::tensor(out, q.dims(), &q.device())
}

impl Padded {
    fn new(layers: &[(Tensor<2>, Tensor<2>)], lengths: &[usize], samples: usize, heads: Heads) -> Self {
        let length = lengths.iter().copied().max().unwrap_or(0);
        let mut places = Vec::with_capacity(lengths.len() * samples * length);
        let mut unused = Vec::with_capacity(lengths.len() * samples);
        let mut start = 0;
        for &own in lengths {
            for _ in 0..samples {
                places.extend(std::iter::repeat_n(start, length - own).chain(start..start + own));
                unused.push(length - own);
            }
            start += own;
        }
        let shape = [unused.len(), length, heads.keys, heads.width];
        let device = layers.first().map(|(k, _)| k.device()).unwrap_or_else(Device::flex);
        let places = ops::indices(places.into_iter(), &device);
        let spread = |x: &Tensor<2>| x.clone().select(0, places.clone()).reshape(shape).swap_dims(1, 2);
        let layers = layers.iter().map(|(k, v)| [spread(k), spread(v)]).collect();
        Self { layers, unused, length, mask: Tensor::zeros([1, 1, 1, 1], &device) }
    }

    fn attend(
        &mut self,
        layer: usize,
        heads: Heads,
        q: &Tensor<2>,
        k: &Tensor<2>,
        v: &Tensor<2>,
    ) -> Tensor<2> {
        let (rows, device) = (self.unused.len(), q.device());
        if layer == 0 {
            self.make_room(heads, &device);
        }
        let place = [0..rows, 0..heads.keys, self.length - 1..self.length, 0..heads.width];
        for (cache, new) in self.layers[layer].iter_mut().zip([k, v]) {
            let new = new.clone().reshape([rows, heads.keys, 1, heads.width]);
            // Taken out, so that the backend finds it unshared and writes in place.
            let taken = std::mem::replace(cache, Tensor::zeros([1, 1, 1, 1], &device));
            *cache = taken.slice_assign(place.clone(), new);
        }
        let [keys, values] = &self.layers[layer];
        let q: Tensor<4> = q.clone().reshape([rows, heads.keys, heads.queries / heads.keys, heads.width]);
        let scores =
            q.matmul(keys.clone().transpose()) * (1.0 / (heads.width as f32).sqrt()) + self.mask.clone();
        activation::softmax(scores, 3).matmul(values.clone()).reshape([rows, heads.queries * heads.width])
    }

    /// A place for the tokens of this step.
    fn make_room(&mut self, heads: Heads, device: &Device) {
        let rows = self.unused.len();
        self.length += 1;
        let capacity = self.layers.first().map_or(0, |[keys, _]| keys.dims()[2]);
        let grown = if self.length > capacity { capacity + GROWTH } else { capacity };
        if grown > capacity {
            for cache in self.layers.iter_mut().flatten() {
                let room = Tensor::zeros([rows, heads.keys, GROWTH, heads.width], device);
                *cache = Tensor::cat(vec![cache.clone(), room], 2);
            }
        }
        let mut mask = vec![-1e9f32; rows * grown];
        for (line, &unused) in mask.chunks_exact_mut(grown).zip(&self.unused) {
            line[unused..self.length].fill(0.0);
        }
        self.mask = Tensor::from_data(TensorData::new(mask, [rows, 1, 1, grown]), device);
    }

    fn select(&mut self, rows: &[usize]) {
        self.unused = rows.iter().map(|&row| self.unused[row]).collect();
        for cache in self.layers.iter_mut().flatten() {
            *cache = cache.clone().select(0, ops::indices(rows.iter().copied(), &cache.device()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attention::{Attention, Segment},
        device::tests::{on_other_device, rounding},
    };

    fn noise(rows: usize, columns: usize, seed: u64) -> Tensor<2> {
        let numbers = polo_run::seed::Seeds::new(seed).normal(rows * columns, "noise", 0);
        host::tensor(numbers, [rows, columns], &Device::flex())
    }

    /// Both forms give, token by token, what attention over the whole sequences gives.
    #[test]
    fn caches_equal_attention_over_whole_sequences() {
        let heads = Heads { queries: 6, keys: 2, width: 5 };
        let (lengths, steps) = ([40, 1, 7], 70);
        let prompts = [noise(48, 10, 1), noise(48, 10, 2)];
        let layers = [(prompts[0].clone(), prompts[1].clone()), (prompts[1].clone(), prompts[0].clone())];
        for padded in [false, true] {
            let place = |x: &Tensor<2>| if padded { on_other_device(x) } else { x.clone() };
            let placed = layers.each_ref().map(|(k, v)| (place(k), place(v)));
            let mut cache = Cache::new(&placed, &lengths, 2, heads, padded);
            let mut prompt_of: Vec<usize> = (0..6).map(|row| row / 2).collect();
            let mut news: Vec<[Vec<f32>; 2]> = vec![Default::default(); 6];
            for step in 0..steps {
                // Rows are given up; later they change places, and one branches.
                let selected: &[usize] = match step {
                    30 => &[1, 2, 4],
                    50 => &[2, 0, 2],
                    _ => &[],
                };
                if !selected.is_empty() {
                    cache.select(selected);
                    prompt_of = selected.iter().map(|&row| prompt_of[row]).collect();
                    news = selected.iter().map(|&row| news[row].clone()).collect();
                }
                let tensor = |columns, seed: u64| noise(prompt_of.len(), columns, 100 + 3 * step + seed);
                let (q, k, v) = (tensor(30, 0), tensor(10, 1), tensor(10, 2));
                let (pq, pk, pv) = (place(&q), place(&k), place(&v));
                let outs = [cache.attend(0, &pq, &pk, &pv), cache.attend(1, &pq, &pv, &pk)];
                for (n, &prompt) in prompt_of.iter().enumerate() {
                    for (all, new) in news[n].iter_mut().zip([&k, &v]) {
                        all.extend(host::numbers(&new.clone().narrow(0, n, 1)));
                    }
                    let (start, length) = [(0, 40), (40, 1), (41, 7)][prompt];
                    let tokens = length + news[n][0].len() / 10;
                    let whole = |prompt: &Tensor<2>, new: &[f32]| {
                        let new = host::tensor(new.to_vec(), [new.len() / 10, 10], &Device::flex());
                        Tensor::cat(vec![prompt.clone().narrow(0, start, length), new], 0)
                    };
                    let (k, v) = (whole(&prompts[0], &news[n][0]), whole(&prompts[1], &news[n][1]));
                    let segment = Segment { start: 0, length: tokens, parent: None };
                    let attention = Attention::new(vec![segment], heads, &Device::flex());
                    let q = q.clone().narrow(0, n, 1).repeat_dim(0, tokens);
                    for (out, (k, v)) in outs.iter().zip([(&k, &v), (&v, &k)]) {
                        let (expected, _) = attention.forward(&q, k, v);
                        let expected = host::numbers(&expected.narrow(0, tokens - 1, 1));
                        let found = host::numbers(&out.clone().narrow(0, n, 1));
                        for (a, b) in found.iter().zip(&expected) {
                            assert!(
                                (a - b).abs() < 2e-5 * rounding(),
                                "padded {padded}, step {step}, row {n}: {a}, {b}"
                            );
                        }
                    }
                }
            }
        }
    }
}
