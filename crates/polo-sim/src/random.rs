//! The random numbers of NumPy's `default_rng(seed)`, bit for bit, so that an environment reset with a seed starts
//! where Gymnasium's starts.
//!
//! `SeedSequence` (O'Neill's `seed_seq_fe`) stretches the seed to the state of a PCG64 (XSL-RR 128/64). Everything
//! else in polo draws from [`polo_run::seed::Seeds`]; a simulator has a state anyway, and its generator is part of it.

use serde::{Deserialize, Serialize};

use crate::ziggurat;

/// NumPy's `Generator(PCG64(SeedSequence(seed)))`. Serialising keeps its whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct NumpyRandom {
    state: u128,
    increment: u128,
    /// The high half of the last 64-bit draw from which [`NumpyRandom::below`] took the low half.
    half: Option<u32>,
}

/// 128-bit numbers as two of 64 bits, high word first: JSON has no larger ones.
#[derive(Serialize, Deserialize)]
struct Saved {
    state: [u64; 2],
    increment: [u64; 2],
    half: Option<u32>,
}

impl From<Saved> for NumpyRandom {
    fn from(saved: Saved) -> Self {
        Self { state: join(saved.state), increment: join(saved.increment), half: saved.half }
    }
}

impl From<NumpyRandom> for Saved {
    fn from(random: NumpyRandom) -> Self {
        let split = |word: u128| [(word >> 64) as u64, word as u64];
        Self { state: split(random.state), increment: split(random.increment), half: random.half }
    }
}

fn join([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

impl NumpyRandom {
    /// `numpy.random.default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let [a, b, c, d] = seed_sequence(seed);
        let mut random = Self { state: 0, increment: join([c, d]) << 1 | 1, half: None };
        random.advance();
        random.state = random.state.wrapping_add(join([a, b]));
        random.advance();
        random
    }

    fn advance(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.advance();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// 32 random bits: the low half of a 64-bit draw first, its high half at the next call.
    fn next_u32(&mut self) -> u32 {
        self.half.take().unwrap_or_else(|| {
            let both = self.next_u64();
            self.half = Some((both >> 32) as u32);
            both as u32
        })
    }

    /// A uniform draw from [0, 1): `random()`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform draw from [`low`, `high`): `uniform(low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A uniform draw from `0..n`, without bias: `integers(n)`. Zero for `n` of 0 or 1, without a draw.
    pub fn below(&mut self, n: u64) -> u64 {
        match u32::try_from(n) {
            Ok(0 | 1) => 0,
            Ok(n) => {
                let unfair = n.wrapping_neg() % n;
                loop {
                    let product = u64::from(self.next_u32()) * u64::from(n);
                    if product as u32 >= unfair {
                        return product >> 32;
                    }
                }
            }
            Err(_) if n == 1 << 32 => u64::from(self.next_u32()),
            Err(_) => {
                let unfair = n.wrapping_neg() % n;
                loop {
                    let product = u128::from(self.next_u64()) * u128::from(n);
                    if product as u64 >= unfair {
                        return (product >> 64) as u64;
                    }
                }
            }
        }
    }

    /// A draw from the standard normal distribution: `standard_normal()`.
    pub fn normal(&mut self) -> f64 {
        ziggurat::normal(self)
    }
}

/// The first four 64-bit words of `SeedSequence(seed).generate_state(4, uint64)`.
fn seed_sequence(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let mut hash = 0x43b0_d7e5_u32;
    let mut hashmix = |value: u32| {
        let value = value ^ hash;
        hash = hash.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(hash);
        value ^ value >> 16
    };
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(&mut hashmix);
    for source in 0..POOL {
        for target in (0..POOL).filter(|&target| target != source) {
            let mixed = (pool[target].wrapping_mul(0xca01_f9dd))
                .wrapping_sub(hashmix(pool[source]).wrapping_mul(0x4973_f715));
            pool[target] = mixed ^ mixed >> 16;
        }
    }
    let mut hash = 0x8b51_f9dd_u32;
    let mut word = |index: usize| {
        let value = pool[index % POOL] ^ hash;
        hash = hash.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(hash);
        u64::from(value ^ value >> 16)
    };
    [0, 1, 2, 3].map(|index| word(2 * index) | word(2 * index + 1) << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_stretch_as_in_numpy() {
        assert_eq!(
            seed_sequence(42),
            [11465652750463011511, 15382171918060459190, 9018504550953525431, 3703499796004394495]
        );
    }

    #[test]
    fn draws_are_numpys() {
        let mut random = NumpyRandom::new(42);
        let raw: Vec<u64> = (0..4).map(|_| random.next_u64()).collect();
        assert_eq!(
            raw,
            [14276969152011380360, 8095878257575067585, 15838336090824644132, 12864169557245331597]
        );
        let doubles = |seed| {
            let mut random = NumpyRandom::new(seed);
            [(); 4].map(|()| random.unit())
        };
        assert_eq!(
            doubles(42),
            [0.7739560485559633, 0.4388784397520523, 0.8585979199113825, 0.6973680290593639]
        );
        assert_eq!(
            doubles(0),
            [0.6369616873214543, 0.2697867137638703, 0.04097352393619469, 0.016527635528529094]
        );
    }

    #[test]
    fn normal_draws_are_numpys() {
        let mut random = NumpyRandom::new(42);
        assert_eq!(
            [(); 4].map(|()| random.normal()),
            [0.30471707975443135, -1.0399841062404955, 0.7504511958064572, 0.9405647163912139]
        );
        // All layers, and the tail 259 times.
        let mut random = NumpyRandom::new(3);
        let sum: f64 = (0..1_000_000).map(|_| random.normal()).sum();
        assert_eq!(sum, 566.6718818452307);
    }

    /// `[g.integers(n) for n in bounds]` and `g.random()` of NumPy 2.4, for seeds of one and of two words.
    #[test]
    fn bounded_draws_are_numpys() {
        let bounds = [10, 1, 3, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 63, 6];
        let check = |seed: u64, integers: [u64; 8], double: f64| {
            let mut random = NumpyRandom::new(seed);
            assert_eq!(bounds.map(|bound| random.below(bound)), integers, "seed {seed}");
            assert_eq!(random.unit(), double);
        };
        check(7, [9, 0, 1, 1469265226, 3853503932, 3331544672, 2077169698657866657, 0], 0.8735534453962619);
        check(
            (1 << 32) + 5,
            [1, 0, 2, 1671234241, 2021738529, 2988783321, 7531230489707294011, 4],
            0.5172962228698259,
        );
        check(
            u64::MAX,
            [5, 0, 2, 2040271276, 3630586357, 31795993, 8250934642460399320, 3],
            0.3188385102672874,
        );
    }

    #[test]
    fn a_saved_generator_goes_on_where_it_stood() {
        let mut random = NumpyRandom::new(u64::MAX);
        random.below(3); // leaves a half behind
        let text = serde_json::to_string(&serde_json::to_value(&random).unwrap()).unwrap();
        let mut again: NumpyRandom = serde_json::from_str(&text).unwrap();
        assert_eq!(again, random);
        assert_eq!([(); 9].map(|()| again.below(7)), [(); 9].map(|()| random.below(7)));
        assert_eq!(again.next_u64(), random.next_u64());
    }
}
