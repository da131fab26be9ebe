//! Rewards of single tokens that a pair of models implies: rhat_t = beta log(pi(a_t|s_t) / ref(a_t|s_t)).
//!
//! A model that DPO trained against a reference holds a reward for every token of an answer, though it only saw
//! comparisons of whole answers (Rafailov et al. 2024, arXiv 2404.12358; [`crate::methods::token_dpo_q`]). Their sum is
//! DPO's reward of the answer. `polo explain-tokens` and the method's claim read them here; what a person sees of them
//! (terminal, HTML, JSON) is made here, too.

use std::fmt::Write as _;

use polo_lm::{model::LanguageModel, tokens::Tokenizer};
use polo_run::{Kind, Problem, Result, report::Report};
use serde::Serialize;

use crate::{objective::Example, settings::Training, trainer};

/// What is known of one token of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenReward {
    /// Its text; empty for a token that ends within a character, whose text stands with the token that completes it.
    pub token: String,
    /// Its number in the vocabulary.
    pub id: u32,
    /// beta log pi/ref, nats * beta.
    pub reward: f64,
    /// -log pi of the trained model, nats: what a reader without a reference would have.
    pub nll: f64,
    /// -log pi of the reference, nats: what was known before training.
    pub reference_nll: f64,
}

/// An answer with the rewards of its tokens, its end token included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// DPO's reward of the answer: the sum of its tokens' rewards.
    pub reward: f64,
    /// In order.
    pub tokens: Vec<TokenReward>,
}

/// A preference pair with the rewards of all tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Where it stands, `file:line`.
    pub row: String,
    /// What was asked, as the model reads it.
    pub prompt: String,
    /// The preferred answer.
    pub chosen: Answer,
    /// The other answer.
    pub rejected: Answer,
    /// Reward of the chosen answer less that of the rejected one.
    pub margin: f64,
}

/// The rewards of all tokens, `[example][slot][token]`; texts are left empty. `training` says how much is computed at
/// a time.
///
/// # Errors
/// [`Kind::Diverged`] if a log-prob is no number, with the example's name; a token that one of the models lacks.
pub fn token_rewards(
    model: &LanguageModel,
    reference: &LanguageModel,
    examples: &[Example],
    beta: f64,
    training: &Training,
) -> Result<Vec<Vec<Vec<TokenReward>>>> {
    let known = model.architecture.vocabulary.min(reference.architecture.vocabulary);
    for example in examples {
        let trees = example.trees.iter();
        let mut tokens = trees.flat_map(|tree| tree.prompt.iter().chain(tree.answers.iter().flatten()));
        if let Some(token) = tokens.find(|&&token| token as usize >= known) {
            return Err(Problem::input(format!("token {token} is in the vocabulary of one model alone"))
                .place(example.id.clone())
                .hint("model and reference must share their tokenizer"));
        }
    }
    let [policy, reference] =
        [model, reference].map(|model| trainer::score_tokens(model, examples, training, |_| {}));
    let mut all = Vec::with_capacity(examples.len());
    for ((example, policy), reference) in examples.iter().zip(policy).zip(reference) {
        let answers = example.trees.iter().flat_map(|tree| &tree.answers);
        let mut slots = Vec::with_capacity(policy.len());
        for ((tokens, policy), reference) in answers.zip(policy).zip(reference) {
            let logps = policy.iter().zip(&reference).map(|(&own, &base)| (f64::from(own), f64::from(base)));
            if policy.iter().chain(&reference).any(|logp| !logp.is_finite()) {
                return Err(Problem::new(Kind::Diverged, "log-probs of the answer are not numbers")
                    .place(example.id.clone())
                    .hint("the weights of the model or its reference have diverged"));
            }
            let reward = |(&id, (own, base)): (&u32, (f64, f64))| TokenReward {
                token: String::new(),
                id,
                reward: beta * (own - base),
                nll: -own,
                reference_nll: -base,
            };
            slots.push(tokens.iter().zip(logps).map(reward).collect());
        }
        all.push(slots);
    }
    Ok(all)
}

/// Pairs with the rewards of all their tokens. `examples` have the chosen answer in slot 0, the rejected one in slot 1.
///
/// # Errors
/// As [`token_rewards`].
pub fn explain_pairs(
    model: &LanguageModel,
    reference: &LanguageModel,
    tokenizer: &Tokenizer,
    examples: &[Example],
    beta: f64,
    training: &Training,
) -> Result<Vec<Pair>> {
    let rewards = token_rewards(model, reference, examples, beta, training)?;
    let mut pairs = Vec::with_capacity(examples.len());
    for (example, slots) in examples.iter().zip(rewards) {
        let prompt = example.trees.first().map_or(&[][..], |tree| &tree.prompt);
        let mut answers = slots.into_iter().map(|mut tokens| {
            let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            let texts = texts(tokenizer, prompt, &ids);
            tokens.iter_mut().zip(texts).for_each(|(token, text)| token.token = text);
            Answer { reward: tokens.iter().map(|token| token.reward).sum(), tokens }
        });
        if let (Some(chosen), Some(rejected)) = (answers.next(), answers.next()) {
            let margin = chosen.reward - rejected.reward;
            let prompt = tokenizer.decode(prompt, false);
            pairs.push(Pair { row: example.id.clone(), prompt, chosen, rejected, margin });
        }
    }
    Ok(pairs)
}

/// The text of each token of an answer; together they are the answer's text, special tokens by name.
fn texts(tokenizer: &Tokenizer, prompt: &[u32], answer: &[u32]) -> Vec<String> {
    let mut decoder = tokenizer.decoder(false);
    // What stands before decides whether a token begins with a space.
    prompt.iter().for_each(|&token| drop(decoder.push(token)));
    let mut texts: Vec<String> = answer.iter().map(|&token| decoder.push(token)).collect();
    if let Some(last) = texts.last_mut() {
        *last += &decoder.finish();
    }
    texts
}

/// What a text looks like where control characters must not act: line breaks and tabs as marks, others as the pictures
/// that Unicode has for them, marks that turn the direction of writing left out, nothing at all as a box.
fn visible(text: &str) -> String {
    let shown: String = text
        .chars()
        .filter(|letter| !matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .map(|letter| match letter {
            '\n' => '\u{23ce}',
            '\t' => '\u{21e5}',
            control @ '\0'..='\u{1f}' => char::from_u32(0x2400 + control as u32).unwrap_or('\u{fffd}'),
            control if control.is_control() => '\u{fffd}',
            other => other,
        })
        .collect();
    if shown.is_empty() { "\u{25af}".into() } else { shown }
}

/// The largest size of a token's reward, by which colours are scaled; at least a hair above 0.
fn scale(pairs: &[Pair]) -> f64 {
    let tokens = pairs.iter().flat_map(|pair| pair.chosen.tokens.iter().chain(&pair.rejected.tokens));
    tokens.map(|token| token.reward.abs()).fold(1e-12, f64::max)
}

/// Backgrounds of the 256-colour palette for rewards above and below 0, faint to strong; black reads well on all.
const BLUE: [u8; 4] = [195, 159, 117, 75];
const RED: [u8; 4] = [224, 217, 210, 203];

/// Pairs as a heat map for a terminal: with `colours` tokens on backgrounds from red (lowers the reward) to blue (raises
/// it); without, each token followed by its reward in brackets.
pub fn to_terminal(pairs: &[Pair], beta: f64, colours: bool) -> String {
    let scale = scale(pairs);
    let shown = |token: &TokenReward| {
        let text = visible(&token.token);
        if !colours {
            return format!("{text}[{:+.2}]", token.reward);
        }
        let level = (token.reward.abs() / scale * (BLUE.len() as f64 + 1.0)) as usize;
        let palette = if token.reward < 0.0 { RED } else { BLUE };
        match level.min(BLUE.len()).checked_sub(1) {
            Some(level) => format!("\u{1b}[38;5;16;48;5;{}m{text}\u{1b}[0m", palette[level]),
            None => text,
        }
    };
    let mut out =
        format!("Rewards of tokens, beta log pi/ref at beta {beta}; the strongest is {scale:.3}.\n");
    for pair in pairs {
        let _ = write!(
            out,
            "\n{}  margin {:+.3}\n  prompt           {}\n",
            pair.row,
            pair.margin,
            visible(&pair.prompt)
        );
        for (name, answer) in [("chosen  ", &pair.chosen), ("rejected", &pair.rejected)] {
            let tokens: String = answer.tokens.iter().map(shown).collect();
            let _ = writeln!(out, "  {name} {:+7.3}  {tokens}", answer.reward);
        }
    }
    out
}

/// Pairs as a page: heat maps, and under each the numbers.
pub fn to_report(pairs: &[Pair], beta: f64) -> Report {
    let scale = scale(pairs);
    let mut report = Report::new("Rewards of tokens");
    report.paragraph(&format!(
        "The reward of a token is beta log pi/ref at beta {beta}, and DPO's reward of an answer is the sum over its \
         tokens. Blue tokens raise the reward, red and underlined ones lower it; the strongest colour is {scale:.3}. A \
         reward is an advantage: a token before a mistake may be red because it made the mistake likely."
    ));
    for pair in pairs {
        report.heading(&format!("{}, margin {:+.3}", pair.row, pair.margin));
        report.sample("prompt", &pair.prompt);
        let answers = [("chosen", &pair.chosen), ("rejected", &pair.rejected)];
        for (name, answer) in answers {
            let pieces: Vec<(String, f64, String)> = answer
                .tokens
                .iter()
                .map(|token| {
                    let note = format!(
                        "{:+.3}; -log pi {:.3}, -log ref {:.3} nats",
                        token.reward, token.nll, token.reference_nll
                    );
                    // The mark of a line break, and the break itself.
                    (visible(&token.token).replace('\u{23ce}', "\u{23ce}\n"), token.reward / scale, note)
                })
                .collect();
            let pieces = pieces.iter().map(|(text, value, note)| (text.as_str(), *value, note.clone()));
            report.heat(&format!("{name}, reward {:+.3}", answer.reward), pieces);
        }
        report.collapsible("Numbers", |inner| {
            for (name, answer) in answers {
                let rows: Vec<Vec<String>> = answer
                    .tokens
                    .iter()
                    .map(|token| {
                        let numbers = [token.reward, token.nll, token.reference_nll];
                        let numbers = numbers.map(|number| format!("{number:.4}"));
                        [visible(&token.token)].into_iter().chain(numbers).collect()
                    })
                    .collect();
                inner.table(&[name, "reward", "-log pi, nats", "-log ref, nats"], &rows);
            }
        });
    }
    report
}

#[cfg(test)]
#[path = "token_rewards_tests.rs"]
mod tests;
