//! Random numbers that are functions, not states.
//!
//! Every draw of a run is a function of (run seed, stream name, counter): the order in which parts of the program
//! draw does not matter, nothing has to be saved but counters, and a resumed run draws what it would have drawn.
//! Samplers, shufflers, initialisers and noise sources all take a [`Seeds`] and name their stream.

use std::f64::consts::TAU;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use sha2::{Digest, Sha256};

/// The root of all random draws of a run, or of one named part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds(u64);

impl Seeds {
    /// The draws of the run with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for draw number `counter` of `stream`. Equal arguments give equal generators, on every machine.
    pub fn rng(&self, stream: &str, counter: u64) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.digest("draw", stream, counter))
    }

    /// The seeds of a named part, e.g. one worker or one repetition; independent of all draws of `self`.
    pub fn child(&self, name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = self.digest("child", name, 0);
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The numbers `0..n` in random order (Fisher-Yates).
    pub fn shuffled(&self, n: usize, stream: &str, counter: u64) -> Vec<usize> {
        let mut rng = self.rng(stream, counter);
        let mut order: Vec<usize> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last, below(&mut rng, last as u64 + 1) as usize);
        }
        order
    }

    /// `n` independent draws from the standard normal distribution (Box-Muller).
    pub fn normal(&self, n: usize, stream: &str, counter: u64) -> Vec<f32> {
        let mut rng = self.rng(stream, counter);
        let mut draws = Vec::with_capacity(n + 1);
        while draws.len() < n {
            // 1 - u lies in (0, 1], so that the logarithm is finite.
            let radius = (-2.0 * (1.0 - unit(&mut rng)).ln()).sqrt();
            let (sine, cosine) = (TAU * unit(&mut rng)).sin_cos();
            draws.extend([(radius * cosine) as f32, (radius * sine) as f32]);
        }
        draws.truncate(n);
        draws
    }

    /// Strings are preceded by their length, so that no two triples share an encoding.
    fn digest(&self, purpose: &str, name: &str, counter: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        for text in [purpose, name] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update(counter.to_le_bytes());
        hash.finalize().into()
    }
}

/// A uniform draw from `0..n`, `n > 0`, without bias. Written out here, not taken from `rand`, because `rand` may
/// change its algorithm between releases, and with it every shuffled epoch.
pub fn below(rng: &mut impl Rng, n: u64) -> u64 {
    // Lemire 2019: the high half of a 64x64-bit product; low halves under 2^64 mod n would be drawn too often.
    let unfair = n.wrapping_neg() % n;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(n);
        if product as u64 >= unfair {
            return (product >> 64) as u64;
        }
    }
}

/// A uniform draw from [0, 1) with 53 random bits.
pub fn unit(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values, from an independent implementation of ChaCha8, stand for every run ever recorded: a change here
    /// breaks the resuming and repeating of all.
    #[test]
    fn streams_never_change() {
        let seeds = Seeds::new(42);
        assert_eq!(seeds.rng("data", 7).next_u64(), 0x2959_6082_e2b7_b926);
        assert_eq!(seeds.child("worker 1").0, 0x1871_7da2_76d0_a548);
        assert_eq!(seeds.shuffled(8, "epoch", 0), [7, 1, 6, 2, 5, 3, 4, 0]);
        assert_eq!(seeds.normal(3, "noise", 1), [1.461_83_f32, 1.160_988_5, -0.015_604_111]);
    }

    #[test]
    fn every_part_of_the_triple_matters() {
        let draw = |seed, stream, counter| Seeds::new(seed).rng(stream, counter).next_u64();
        let draws = [draw(1, "a", 0), draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1), draw(1, "ab", 0)];
        for (i, one) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|other| other != one), "{draws:?}");
        }
        assert_ne!(Seeds::new(1).child("a").rng("a", 0).next_u64(), draw(1, "a", 0));
    }

    #[test]
    fn shuffling_keeps_every_index() {
        for n in [0, 1, 2, 1000] {
            let mut order = Seeds::new(3).shuffled(n, "epoch", 1);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn draws_below_a_bound_are_even() {
        let mut rng = Seeds::new(5).rng("bounds", 0);
        let mut counts = [0_u32; 6];
        (0..60_000).for_each(|_| counts[below(&mut rng, 6) as usize] += 1);
        // Five standard deviations of a binomial with p = 1/6.
        assert!(counts.iter().all(|&count| (f64::from(count) - 10_000.0).abs() < 460.0), "{counts:?}");
    }

    #[test]
    fn normal_draws_have_the_moments_of_a_standard_normal() {
        let draws = Seeds::new(11).normal(100_001, "noise", 0);
        assert_eq!(draws.len(), 100_001);
        let moment =
            |power| draws.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / draws.len() as f64;
        assert!(moment(1).abs() < 0.016 && (moment(2) - 1.0).abs() < 0.023 && (moment(4) - 3.0).abs() < 0.16);
    }
}
