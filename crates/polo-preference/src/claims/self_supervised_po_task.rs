//! Slot reports: the synthetic task of [`super::self_supervised_po`], with quality in degrees that has a known place.
//!
//! A prompt gives eight keys a value each; an answer is any sequence of at most twenty tokens. A key followed by a value
//! states a fact, every other token is filler. The gold reward counts the prompt's facts that are stated, less a tenth
//! of each wrong one. Everything is in token ids, so that lengths are exact.
//!
//! In prompts every fact is a token of its own: where it is two, a model of two layers does not learn to look values up
//! within thousands of steps.

use polo_run::seed::{Seeds, below, unit};
use rand_chacha::ChaCha8Rng;

/// Keys; ids `0..KEYS`.
const KEYS: usize = 12;
/// Values; they follow the keys.
const VALUES: usize = 10;
/// Tokens that say nothing; they follow the values.
const FILLERS: usize = 8;
/// The token that every prompt begins with.
const START: u32 = (KEYS + VALUES + FILLERS) as u32;
/// The end token.
pub const END: u32 = START + 1;
/// Facts, as they stand in prompts; they follow the end token.
const FIRST_FACT: u32 = END + 1;
/// Tokens of the vocabulary.
pub const VOCABULARY: usize = FIRST_FACT as usize + KEYS * VALUES;
/// Facts of a prompt, and so the highest gold reward.
pub const FACTS: usize = 8;
/// Most tokens of an answer, its end token not counted.
pub const LONGEST: usize = 20;
/// Probability that a demonstration states a fact, and most fillers that it adds.
pub const STATED: f64 = 0.5;
/// See [`STATED`].
pub const MOST_FILLERS: usize = 8;
/// Probability that a stated fact has another value.
pub const WRONG: f64 = 0.1;
/// Share of demonstrations whose prompt says nothing: what the model thinks without a prompt is otherwise undefined.
pub const BLIND: f64 = 0.1;
/// What a wrong fact costs.
const PRICE: f64 = 0.1;

/// Whether a token belongs into facts.
pub fn is_content(token: u32) -> bool {
    (token as usize) < KEYS + VALUES
}

fn is_key(token: u32) -> bool {
    (token as usize) < KEYS
}

fn filler(rng: &mut ChaCha8Rng) -> u32 {
    (KEYS + VALUES) as u32 + below(rng, FILLERS as u64) as u32
}

/// How a fact is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoilt {
    /// It is left out.
    LeftOut,
    /// Two fillers stand in its place.
    Replaced,
    /// Its value is another one.
    Wrong,
}

/// All ways.
pub const WAYS: [Spoilt; 3] = [Spoilt::LeftOut, Spoilt::Replaced, Spoilt::Wrong];

/// Any value but this one.
fn other(right: u32, rng: &mut ChaCha8Rng) -> u32 {
    let shift = 1 + below(rng, VALUES as u64 - 1) as u32;
    KEYS as u32 + (right - KEYS as u32 + shift) % VALUES as u32
}

/// A prompt: the start token, then the facts.
pub fn prompt(rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut keys: Vec<u32> = (0..KEYS as u32).collect();
    let mut prompt = vec![START];
    for _ in 0..FACTS {
        let key = keys.swap_remove(below(rng, keys.len() as u64) as usize);
        prompt.push(FIRST_FACT + key * VALUES as u32 + below(rng, VALUES as u64) as u32);
    }
    prompt
}

/// Keys and values of a prompt.
fn facts(prompt: &[u32]) -> Vec<[u32; 2]> {
    let told = prompt[1..].iter().map(|token| token - FIRST_FACT);
    told.map(|fact| [fact / VALUES as u32, KEYS as u32 + fact % VALUES as u32]).collect()
}

/// The prompt that says nothing.
pub fn blind(prompt: &[u32]) -> Vec<u32> {
    prompt[..1].to_vec()
}

/// Facts and fillers in random order, as one answer with its end token.
fn write(facts: Vec<[u32; 2]>, fillers: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut parts: Vec<Vec<u32>> = facts.into_iter().map(Vec::from).collect();
    for _ in 0..fillers {
        parts.push(vec![filler(rng)]);
    }
    let mut answer = Vec::new();
    while !parts.is_empty() {
        answer.extend(parts.swap_remove(below(rng, parts.len() as u64) as usize));
    }
    answer.push(END);
    answer
}

/// A demonstrated answer that states each fact with probability `stated`.
pub fn demonstrate(prompt: &[u32], stated: f64, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut facts = facts(prompt);
    facts.retain(|_| unit(rng) < stated);
    for [_, value] in &mut facts {
        if unit(rng) < WRONG {
            *value = other(*value, rng);
        }
    }
    let room = MOST_FILLERS.min(LONGEST - 2 * facts.len());
    let fillers = below(rng, room as u64 + 1) as usize;
    write(facts, fillers, rng)
}

/// Eight answers of known degrees: number j states all facts but j, which are spoilt in the given ways, each as likely as
/// the others. Order and fillers are drawn for each as in demonstrations, so that the length alone tells little.
pub fn graded(prompt: &[u32], ways: &[Spoilt], rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
    let answer = |count: usize| {
        let mut spoilt = vec![true; count];
        spoilt.resize(FACTS, false);
        let (mut stated, mut fillers) = (Vec::new(), 0);
        for [key, value] in facts(prompt) {
            let spoils = spoilt.swap_remove(below(rng, spoilt.len() as u64) as usize);
            match ways[below(rng, ways.len() as u64) as usize] {
                _ if !spoils => stated.push([key, value]),
                Spoilt::LeftOut => {}
                Spoilt::Replaced => fillers += 2,
                Spoilt::Wrong => stated.push([key, other(value, rng)]),
            }
        }
        let room = MOST_FILLERS.min(LONGEST - 2 * stated.len() - fillers);
        fillers += below(rng, room as u64 + 1) as usize;
        write(stated, fillers, rng)
    };
    (0..FACTS).map(answer).collect()
}

/// The number of the prompt's facts that an answer states, less a tenth of its wrong statements; -1 to 8.
pub fn gold(prompt: &[u32], answer: &[u32]) -> f64 {
    let facts = facts(prompt);
    let (mut stated, mut wrong) = ([false; FACTS], 0.0);
    let mut before = END;
    for &token in answer.iter().take_while(|&&token| token != END) {
        if is_key(before) && is_content(token) && !is_key(token) {
            match facts.iter().position(|fact| *fact == [before, token]) {
                Some(fact) => stated[fact] = true,
                None => wrong += 1.0,
            }
        }
        before = token;
    }
    stated.iter().filter(|stated| **stated).count() as f64 - PRICE * wrong
}

/// `n` prompts of a part of the experiment.
pub fn prompts(n: usize, seeds: &Seeds, part: &str) -> Vec<Vec<u32>> {
    let mut rng = seeds.rng(&format!("{part}: prompts"), 0);
    (0..n).map(|_| prompt(&mut rng)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys 0 to 7 have values 12 to 19.
    fn simple() -> Vec<u32> {
        [START].into_iter().chain((0..8).map(|key| FIRST_FACT + 11 * key)).collect()
    }

    #[test]
    fn gold_counts_facts_once_and_prices_wrong_ones() {
        let check = |answer: &[u32], expected: f64| {
            let found = gold(&simple(), answer);
            assert!((found - expected).abs() < 1e-12, "{answer:?}: {found} is not {expected}");
        };
        check(&[0, 12, 25, 3, 15, END], 2.0);
        check(&[0, 12, 0, 12, END], 1.0);
        check(&[0, 13, END], -0.1);
        // A key that the prompt does not have; a key before another; a value alone; after the end.
        check(&[9, 12, END], -0.1);
        check(&[3, 0, 12, 13, END, 1, 13], 1.0);
        check(&facts(&simple()).concat(), 8.0);
        check(&[], 0.0);
    }

    #[test]
    fn demonstrations_state_half_and_fit() {
        let seeds = Seeds::new(5);
        let mut rng = seeds.rng("test", 0);
        let (mut stated, mut lengths) = (0.0, 0.0);
        for prompt in prompts(2000, &seeds, "test") {
            let mut keys: Vec<u32> = facts(&prompt).iter().map(|fact| fact[0]).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!((prompt.len(), keys.len()), (1 + FACTS, FACTS));
            let answer = demonstrate(&prompt, STATED, &mut rng);
            assert!(answer.len() <= LONGEST + 1 && answer.ends_with(&[END]));
            stated += gold(&prompt, &answer) / 2000.0;
            lengths += (answer.len() - 1) as f64 / 2000.0;
        }
        // Half of eight facts, of which a tenth is wrong and costs a tenth.
        assert!((stated - 4.0 * (0.9 - 0.1 * 0.1)).abs() < 0.1, "{stated}");
        // Two tokens a fact, and four fillers where there is room for eight.
        assert!((lengths - 11.9).abs() < 0.3, "{lengths}");
    }

    #[test]
    fn degrees_are_as_told() {
        let mut rng = Seeds::new(6).rng("test", 0);
        for ways in [&WAYS[..], &[Spoilt::LeftOut], &[Spoilt::Replaced], &[Spoilt::Wrong]] {
            for _ in 0..50 {
                let prompt = prompt(&mut rng);
                let versions = graded(&prompt, ways, &mut rng);
                assert_eq!(versions.len(), 8);
                for (spoilt, version) in versions.iter().enumerate() {
                    assert!(version.len() <= LONGEST + 1 && version.ends_with(&[END]));
                    let (gold, right) = (gold(&prompt, version), (FACTS - spoilt) as f64);
                    assert!(gold <= right && gold > right - 0.1 * spoilt as f64 - 1e-9, "{version:?}");
                    let keys = version.iter().filter(|&&token| is_key(token)).count();
                    match ways {
                        [Spoilt::Wrong] => {
                            assert_eq!(keys, FACTS);
                            assert!((gold - right + 0.1 * spoilt as f64).abs() < 1e-12);
                        }
                        [Spoilt::LeftOut] => assert_eq!((gold, keys), (right, FACTS - spoilt)),
                        [_] => assert!(keys == FACTS - spoilt && version.len() > 2 * FACTS),
                        _ => {}
                    }
                }
            }
        }
    }
}
