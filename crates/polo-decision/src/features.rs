//! Decisions as learners see them: sparse features in namespaces, hashed as Vowpal Wabbit hashes them, so that the same
//! log gives both the same features.

use serde::{Deserialize, Serialize};

/// A hashed feature and its value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Of namespace and name; a learner takes as many low bits as it has weights for.
    pub hash: u32,
    /// Not zero.
    pub value: f32,
}

/// The features of an action, or those that all actions share, by the first letter of their namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Namespaces with the same first letter stand together.
    pub spaces: Vec<(u8, Vec<Feature>)>,
}

/// What was decided and what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The action, counted from 0.
    pub action: usize,
    /// Its cost: minus the reward.
    pub cost: f32,
    /// With which probability the action was chosen, above 0 and at most 1.
    pub probability: f32,
}

/// A decision: what is known, what can be done, and perhaps what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its name in the log; may be empty.
    pub event: String,
    /// Features that all actions share.
    pub shared: Example,
    /// Features of each action.
    pub actions: Vec<Example>,
    /// What was done; none where nothing is known.
    pub outcome: Option<Outcome>,
    /// How many decisions it stands for: more than 1 where others were dropped.
    pub weight: f32,
}

impl Decision {
    /// What makes it unusable, if anything does.
    pub fn flaw(&self) -> Option<String> {
        let rows = std::iter::once(&self.shared).chain(&self.actions);
        let values = rows.flat_map(|row| &row.spaces).flat_map(|(_, features)| features).map(|f| f.value);
        // Learners square them.
        if let Some(value) = values.into_iter().find(|value| !(value * value).is_finite()) {
            return Some(match value.is_finite() {
                true => format!("a feature is {value:e}, too large to be learnt from"),
                false => "a feature is no finite number".into(),
            });
        }
        let Outcome { action, cost, probability } = self.outcome?;
        if action >= self.actions.len() {
            let count = self.actions.len();
            return Some(format!("action {action}, counted from 0, was taken, and there are {count}"));
        }
        if !cost.is_finite() {
            return Some(format!("the cost is {cost}"));
        }
        if !(probability > 0.0 && probability <= 1.0) {
            return Some(format!("the probability is {probability}, and must be above 0 and at most 1"));
        }
        // c/p is squared where it is learnt, and so is 1/p of a cost of 0.
        let size = cost.abs().max(1.0) / probability;
        (!(4.0 * size * size).is_finite()).then(|| {
            format!("the cost {cost:e} over the probability {probability:e} is too large to be learnt from")
        })
    }
}

/// The feature that every action has.
pub const CONSTANT: Feature = Feature { hash: 11_650_396, value: 1.0 };

impl Example {
    /// The features of namespaces with this first letter.
    pub fn space(&self, letter: u8) -> &[Feature] {
        self.spaces.iter().find(|(own, _)| *own == letter).map_or(&[], |(_, features)| features)
    }

    /// Where to add features of a namespace.
    pub fn space_mut(&mut self, letter: u8) -> &mut Vec<Feature> {
        let place = match self.spaces.iter().position(|(own, _)| *own == letter) {
            Some(place) => place,
            None => {
                self.spaces.push((letter, Vec::new()));
                self.spaces.len() - 1
            }
        };
        &mut self.spaces[place].1
    }
}

/// The hash of a name in a namespace: names that are whole numbers are their own hash, as in Vowpal Wabbit.
pub fn hash(name: &str, seed: u32) -> u32 {
    let name = name.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    match name.bytes().all(|byte| byte.is_ascii_digit()) {
        true => name
            .bytes()
            .fold(0u32, |n, byte| n.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')))
            .wrapping_add(seed),
        false => murmur(name.as_bytes(), seed),
    }
}

/// MurmurHash3, 32 bits (Appleby).
fn murmur(bytes: &[u8], seed: u32) -> u32 {
    let mix = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, rest) = bytes.as_chunks::<4>();
    let mut h = seed;
    for block in blocks {
        h = (h ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let tail = rest.iter().rev().fold(0u32, |k, byte| (k << 8) | u32::from(*byte));
    h ^= mix(tail);
    h ^= bytes.len() as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// Which namespaces are multiplied with which: their first letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interactions(Vec<Vec<u8>>);

/// Fowler-Noll-Vo's prime, which Vowpal Wabbit multiplies features with.
const PRIME: u32 = 16_777_619;

impl Interactions {
    /// Of words such as `UA`: each letter the first one of a namespace, two letters or three.
    ///
    /// # Errors
    /// The word that is not one.
    pub fn new(words: &[String]) -> Result<Self, String> {
        let of = |word: &String| match word.len() {
            2 | 3 if word.is_ascii() => Ok(word.as_bytes().to_vec()),
            _ => Err(word.clone()),
        };
        words.iter().map(of).collect::<Result<_, _>>().map(Self)
    }

    /// The features of an action as [`Interactions::each`] gives them.
    pub fn features(&self, decision: &Decision, action: usize) -> Vec<Feature> {
        let mut features = Vec::new();
        self.each(&decision.shared, &decision.actions[action], |hash, value| {
            features.push(Feature { hash, value });
        });
        features
    }

    /// Calls `take` with the hash and the value of every feature of an action: the constant, those shared, its own, and
    /// their products.
    pub fn each(&self, shared: &Example, action: &Example, mut take: impl FnMut(u32, f32)) {
        take(CONSTANT.hash, CONSTANT.value);
        for (_, features) in shared.spaces.iter().chain(&action.spaces) {
            features.iter().for_each(|feature| take(feature.hash, feature.value));
        }
        for letters in &self.0 {
            let both = |letter: u8| shared.space(letter).iter().chain(action.space(letter));
            for (i, one) in both(letters[0]).enumerate() {
                // Where a letter meets itself, every pair is taken once.
                let begin = if letters[0] == letters[1] { i } else { 0 };
                let half = one.hash.wrapping_mul(PRIME);
                for (j, other) in both(letters[1]).enumerate().skip(begin) {
                    let (mixed, value) = (half ^ other.hash, one.value * other.value);
                    let Some(&third) = letters.get(2) else {
                        take(mixed, value);
                        continue;
                    };
                    let begin = if third == letters[1] { j } else { 0 };
                    let half = mixed.wrapping_mul(PRIME);
                    both(third).skip(begin).for_each(|last| take(half ^ last.hash, value * last.value));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur_gives_the_published_values() {
        for (text, seed, expected) in [
            ("", 0, 0),
            ("", 1, 0x514e_28b7),
            ("test", 0, 0xba6b_d213),
            ("Hello, world!", 0, 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0, 0x2e4f_f723),
        ] {
            assert_eq!(murmur(text.as_bytes(), seed), expected, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_their_own_hash() {
        assert_eq!(hash("17", 100), 117);
        assert_eq!(hash(" ", 5), 5);
        assert_eq!(hash(" ab ", 3), murmur(b"ab", 3));
    }

    fn example(letter: u8, features: &[(u32, f32)]) -> Example {
        Example {
            spaces: vec![(letter, features.iter().map(|&(hash, value)| Feature { hash, value }).collect())],
        }
    }

    #[test]
    fn numbers_that_cannot_be_squared_are_flaws() {
        #[track_caller]
        fn check(value: f32, cost: f32, probability: f32, expected: Option<&str>) {
            let actions = vec![example(b'A', &[(1, value)])];
            let outcome = Some(Outcome { action: 0, cost, probability });
            let flaw = Decision { actions, outcome, weight: 1.0, ..Decision::default() }.flaw();
            match expected {
                None => assert_eq!(flaw, None),
                Some(what) => assert!(flaw.as_ref().is_some_and(|flaw| flaw.contains(what)), "{flaw:?}"),
            }
        }
        check(1e18, -1e18, 1.0, None);
        check(1.0, 0.0, 1e-18, None);
        check(1e20, 0.0, 1.0, Some("1e20, too large"));
        check(f32::NAN, 0.0, 1.0, Some("no finite number"));
        check(1.0, 1e20, 1.0, Some("the cost 1e20 over the probability 1e0 is too large"));
        check(1.0, 0.0, 1e-42, Some("too large"));
        check(1.0, f32::INFINITY, 1.0, Some("the cost is inf"));
        check(1.0, 1.0, f32::NAN, Some("above 0"));
    }

    #[test]
    fn products_of_namespaces() {
        let (user, item) = (example(b'U', &[(1, 2.0), (5, 3.0)]), example(b'A', &[(7, 10.0)]));
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let mut found = Vec::new();
            Interactions::new(&words).unwrap().each(&user, &item, |hash, value| found.push((hash, value)));
            found.split_off(4)
        };
        assert!(of(&[]).is_empty());
        let half = |hash: u32| hash.wrapping_mul(PRIME);
        assert_eq!(of(&["UA"]), [(half(1) ^ 7, 20.0), (half(5) ^ 7, 30.0)]);
        assert_eq!(of(&["UU"]).iter().map(|pair| pair.1).collect::<Vec<_>>(), [4.0, 6.0, 9.0]);
        assert_eq!(of(&["UUA"]).len(), 3);
        assert!(of(&["XA"]).is_empty());
        assert!(Interactions::new(&["U".into()]).is_err());
    }
}
