//! Keyed answers: the synthetic task of the token-reward claim.
//!
//! A prompt is a key of four letters; its one right answer is a function of the key, token by token. Demonstrations
//! have defects of known place: tokens that are wrong, tokens of the wrong form, or an early end. The gold reward is
//! minus the number of defects. Everything is in token ids, so that no tokenizer stands between the task and what is
//! measured of single tokens.

use polo_run::seed::{Seeds, below, unit};
use rand_chacha::ChaCha8Rng;

/// Letters, of which keys are made; ids `0..LETTERS`.
const LETTERS: usize = 8;
/// Symbols, of which answers are made; they follow the letters.
const SYMBOLS: usize = 16;
/// Symbols in their first form; their second forms follow.
const FIRST_FORMS: usize = SYMBOLS / 2;
/// Letters of a key.
const KEY: usize = 4;
/// Tokens of a whole answer, its end token not counted.
pub const LENGTH: usize = 10;
/// The end token.
pub const END: u32 = (LETTERS + SYMBOLS) as u32;
/// Tokens of the vocabulary.
pub const VOCABULARY: usize = END as usize + 1;

/// What can be wrong with demonstrated answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Defects {
    /// Each token is another symbol with this probability; all other symbols are equally likely.
    Wrong(f64),
    /// Each symbol has two forms, equally likely in demonstrations; the gold reward penalises one of them, drawn for
    /// each symbol.
    Form,
    /// Forms, and the answer may end with this probability after each token.
    FormAndCut(f64),
}

/// Keys of which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What models are trained on.
    Training,
    /// One key in eight, on which they never are.
    HeldOut,
}

/// The task: which symbol is right after which letter at which place.
#[derive(Clone, Debug)]
pub struct Keyed {
    defects: Defects,
    /// `[place][letter]`: number of the right symbol, in its right form.
    right: Vec<Vec<usize>>,
}

impl Keyed {
    /// The task of these seeds.
    pub fn new(defects: Defects, seeds: &Seeds) -> Self {
        let mut rng = seeds.rng("keyed answers", 0);
        let mut draw = |n: usize| below(&mut rng, n as u64) as usize;
        let forms: [usize; FIRST_FORMS] = std::array::from_fn(|_| FIRST_FORMS * draw(2));
        let mut symbol = || match defects {
            Defects::Wrong(_) => draw(SYMBOLS),
            _ => {
                let symbol = draw(FIRST_FORMS);
                symbol + forms[symbol]
            }
        };
        let right = (0..LENGTH).map(|_| (0..LETTERS).map(|_| symbol()).collect()).collect();
        Self { defects, right }
    }

    /// The task whose gold reward penalises the other form of each symbol; its demonstrations are alike.
    pub fn flipped(&self) -> Self {
        let flip = |symbol: &usize| (symbol + FIRST_FORMS) % SYMBOLS;
        let right = self.right.iter().map(|row| row.iter().map(flip).collect()).collect();
        Self { defects: self.defects, right }
    }

    /// A key, drawn evenly from its part.
    pub fn key(&self, part: Part, rng: &mut ChaCha8Rng) -> Vec<u32> {
        loop {
            let key: Vec<u32> = (0..KEY).map(|_| below(rng, LETTERS as u64) as u32).collect();
            let held_out = key.iter().sum::<u32>() % LETTERS as u32 == 0;
            if held_out == (part == Part::HeldOut) {
                return key;
            }
        }
    }

    /// The one answer without a defect, its end token included.
    pub fn solution(&self, key: &[u32]) -> Vec<u32> {
        let right = self.right.iter().zip(key.iter().cycle());
        let symbols = right.map(|(row, &letter)| (LETTERS + row[letter as usize]) as u32);
        symbols.chain([END]).collect()
    }

    /// A demonstrated answer, its end token included.
    pub fn demonstrate(&self, key: &[u32], rng: &mut ChaCha8Rng) -> Vec<u32> {
        let mut answer = self.solution(key);
        for token in &mut answer[..LENGTH] {
            let spoilt = match self.defects {
                Defects::Wrong(share) => unit(rng) < share,
                _ => unit(rng) < 0.5,
            };
            if spoilt {
                *token = self.spoil(*token, rng);
            }
        }
        if let Defects::FormAndCut(share) = self.defects
            && let Some(length) = (1..LENGTH).find(|_| unit(rng) < share)
        {
            answer.truncate(length);
            answer.push(END);
        }
        answer
    }

    /// A right answer with exactly one token spoilt, and its place.
    pub fn with_one_defect(&self, key: &[u32], rng: &mut ChaCha8Rng) -> (Vec<u32>, usize) {
        let (mut answer, place) = (self.solution(key), below(rng, LENGTH as u64) as usize);
        answer[place] = self.spoil(answer[place], rng);
        (answer, place)
    }

    /// Another symbol, or the other form of a symbol.
    fn spoil(&self, token: u32, rng: &mut ChaCha8Rng) -> u32 {
        let symbol = token as usize - LETTERS;
        let spoilt = match self.defects {
            Defects::Wrong(_) => (symbol + 1 + below(rng, SYMBOLS as u64 - 1) as usize) % SYMBOLS,
            _ => (symbol + FIRST_FORMS) % SYMBOLS,
        };
        (LETTERS + spoilt) as u32
    }

    /// Minus the number of tokens that are wrong, missing or too many; 0 for the solution. An end token ends the answer.
    pub fn gold(&self, key: &[u32], answer: &[u32]) -> f64 {
        let solution = &self.solution(key)[..LENGTH];
        let end = answer.iter().position(|&token| token == END).unwrap_or(answer.len());
        let answer = &answer[..end];
        let right = answer.iter().zip(solution).filter(|(found, right)| found == right).count();
        -((answer.len().max(LENGTH) - right) as f64)
    }

    /// A text for people: letters, then symbols as numbers, the second form marked.
    pub fn show(&self, token: u32) -> String {
        let (token, forms) = (token as usize, !matches!(self.defects, Defects::Wrong(_)));
        match token.checked_sub(LETTERS) {
            None => char::from(b'a' + token as u8).to_string(),
            Some(SYMBOLS..) => " .".into(),
            Some(symbol) if forms && symbol >= FIRST_FORMS => format!(" {}'", symbol - FIRST_FORMS),
            Some(symbol) => format!(" {symbol}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Defects; 3] = [Defects::Wrong(0.15), Defects::Form, Defects::FormAndCut(0.08)];

    #[test]
    fn defects_are_where_they_are_said_to_be() {
        for kind in KINDS {
            let task = Keyed::new(kind, &Seeds::new(3));
            let mut rng = Seeds::new(4).rng("test", 0);
            let (mut defects, mut tokens, mut cut) = (0.0, 0.0, 0.0);
            for _ in 0..2000 {
                let key = task.key(Part::HeldOut, &mut rng);
                assert_eq!(key.iter().sum::<u32>() % 8, 0);
                let solution = task.solution(&key);
                assert_eq!((solution.len(), task.gold(&key, &solution)), (LENGTH + 1, 0.0));
                let (spoilt, place) = task.with_one_defect(&key, &mut rng);
                let differs: Vec<usize> = (0..=LENGTH).filter(|&i| spoilt[i] != solution[i]).collect();
                assert_eq!((differs, task.gold(&key, &spoilt)), (vec![place], -1.0));
                let answer = task.demonstrate(&key, &mut rng);
                assert_eq!(answer.last(), Some(&END));
                let own = answer.len() - 1;
                let missing = (LENGTH - own) as f64;
                cut += f64::from(u8::from(own < LENGTH));
                defects += -task.gold(&key, &answer) - missing;
                tokens += own as f64;
            }
            let (share, early): (f64, f64) = match kind {
                Defects::Wrong(share) => (share, 0.0),
                Defects::Form => (0.5, 0.0),
                Defects::FormAndCut(cut) => (0.5, 1.0 - (1.0 - cut).powi(9)),
            };
            assert!((defects / tokens - share).abs() < 0.02, "{kind:?}: {}", defects / tokens);
            assert!((cut / 2000.0 - early).abs() < 0.04, "{kind:?}: {}", cut / 2000.0);
        }
    }

    #[test]
    fn gold_counts_what_is_wrong_missing_or_too_much() {
        let task = Keyed::new(Defects::Form, &Seeds::new(3));
        let key = [1, 2, 3, 4];
        let solution = task.solution(&key);
        let check = |answer: &[u32], gold: f64| assert_eq!(task.gold(&key, answer), gold, "{answer:?}");
        check(&[], -10.0);
        assert_eq!(task.flipped().gold(&key, &solution), -10.0);
        check(&solution[..4], -6.0);
        check(&solution[..LENGTH], 0.0);
        check(&[&solution[..LENGTH], &[9, 9]].concat(), -2.0);
        assert_eq!(
            (task.show(0), task.show(8), task.show(17), task.show(END)),
            ("a".into(), " 0".into(), " 1'".into(), " .".into())
        );
    }
}
