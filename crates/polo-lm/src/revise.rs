//! SRPO's procedure at test time: a model that answers, and then improves its own answer again and again.
//!
//! The first answer comes from G(x); every further one from R(x, y), in which y is the answer before it and no earlier
//! one (Choi et al. 2024, arXiv 2406.01660). No reward and no selection takes part. `polo generate --revisions` and
//! evaluation revise texts; synthetic tasks may build their prompts from tokens.

use polo_run::{Problem, Result, seed::Seeds};

use crate::{
    generate::{Completion, Sampling, generate_numbered},
    model::LanguageModel,
    rows::{Message, Text},
    templates::RevisionTemplates,
    tokens::Tokenizer,
};

/// How often a model revises, and how it draws.
#[derive(Clone, Copy, Debug)]
pub struct Revising<'a> {
    /// Revisions N after the first answer.
    pub revisions: usize,
    /// Whether an answer that a revision leaves as it is stays for good (a greedy model would repeat it anyway).
    pub stop_when_unchanged: bool,
    /// How tokens are drawn. Revision n of prompt i draws from stream number i of a child of the seeds.
    pub sampling: &'a Sampling<'a>,
    /// See [`crate::generate::generate`].
    pub shares: usize,
}

impl Revising<'_> {
    /// Answers and their revisions in tokens, `[prompts][revisions + 1]`. `prompt_of` makes the prompt of a row's first
    /// answer (given none) or of the revision of a given answer.
    ///
    /// # Errors
    /// What `prompt_of` or [`crate::generate::generate`] refuses.
    pub fn tokens(
        &self,
        model: &LanguageModel,
        rows: usize,
        seeds: &Seeds,
        mut prompt_of: impl FnMut(usize, Option<&Completion>) -> Result<Vec<u32>>,
    ) -> Result<Vec<Vec<Completion>>> {
        let mut answers: Vec<Vec<Completion>> = vec![Vec::with_capacity(self.revisions + 1); rows];
        for revision in 0..=self.revisions {
            let mut prompts = Vec::with_capacity(rows);
            for (row, earlier) in answers.iter_mut().enumerate() {
                match &earlier[..] {
                    [.., before, last] if self.stop_when_unchanged && before.tokens == last.tokens => {
                        earlier.push(last.clone());
                    }
                    _ => prompts.push((row, prompt_of(row, earlier.last())?)),
                }
            }
            let numbered: Vec<_> = prompts.iter().map(|(row, prompt)| (*row, prompt.as_slice())).collect();
            let seeds = seeds.child(&format!("revision {revision}"));
            let drawn = generate_numbered(model, &numbered, 1, self.sampling, &seeds, self.shares)?;
            for ((row, _), answer) in numbered.iter().zip(drawn) {
                answers[*row].push(answer);
            }
        }
        Ok(answers)
    }

    /// Answers to `prompts` and their revisions as texts, `[prompts][revisions + 1]`. Where G(x) or R(x, y) leaves less
    /// than `max_new_tokens` of the context, x loses tokens from its left.
    ///
    /// # Errors
    /// Templates without their placeholders, an answer that does not fit into R beside a new one, and what the tokenizer
    /// or [`crate::generate::generate`] refuses.
    pub fn texts(
        &self,
        model: &LanguageModel,
        tokenizer: &Tokenizer,
        templates: &RevisionTemplates,
        prompts: &[Text],
        seeds: &Seeds,
    ) -> Result<Vec<Vec<String>>> {
        templates.check()?;
        let (context, longest) = (model.architecture.context, self.sampling.max_new_tokens);
        let room = context.saturating_sub(longest);
        let answers = self.tokens(model, prompts.len(), seeds, |row, earlier| {
            let prompt = &prompts[row];
            let fitted = match earlier {
                None => templates.encode_generate(prompt, tokenizer, room)?,
                Some(answer) => {
                    let text = answer.text(tokenizer, self.sampling);
                    let answer = match prompt {
                        Text::Plain(_) => Text::Plain(text),
                        Text::Conversation(_) => Text::Conversation(vec![Message::new("assistant", text)]),
                    };
                    templates.encode_revise(prompt, &answer, tokenizer, room)?
                }
            };
            fitted.map(|fitted| fitted.ids).ok_or_else(|| {
                Problem::input(format!(
                    "prompt {} does not fit: template, earlier answer and {longest} new tokens exceed the model's \
                     context of {context}",
                    row + 1
                ))
                .hint("lower max_new_tokens, or shorten the revision templates")
            })
        })?;
        let text = |answer: &Completion| answer.text(tokenizer, self.sampling);
        Ok(answers.iter().map(|answers| answers.iter().map(text).collect()).collect())
    }
}

#[cfg(test)]
mod tests {
    use polo_nn::Device;
    use serde_json::json;

    use super::*;
    use crate::{tokens::tests::words, weights::init};

    fn model(context: usize) -> LanguageModel {
        let config = json!({
            "model_type": "llama", "vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 20, "max_position_embeddings": context,
            "initializer_range": 0.5,
        });
        init(&config, &Seeds::new(1), &Device::flex()).unwrap()
    }

    fn sampling() -> Sampling<'static> {
        Sampling { max_new_tokens: 4, stop: vec![0], ..Sampling::default() }
    }

    #[test]
    fn every_revision_sees_the_answer_before_it_and_no_other() {
        let (_folder, tokenizer) = words();
        let templates = RevisionTemplates::symbols();
        let prompts: Vec<Text> = ["a b", "c d", "a"].map(|text| Text::Plain(text.into())).into();
        let (model, sampling, seeds) = (model(64), sampling(), Seeds::new(2));
        let revising = Revising { revisions: 3, stop_when_unchanged: false, sampling: &sampling, shares: 1 };
        let answers = revising.texts(&model, &tokenizer, &templates, &prompts, &seeds).unwrap();
        assert!(answers.len() == 3 && answers.iter().all(|answers| answers.len() == 4));
        let mut seen = Vec::new();
        let by_hand = revising.tokens(&model, 3, &seeds, |row, earlier| {
            let (x, stem) =
                (["a b", "c d", "a"][row], earlier.map(|answer| answer.text(&tokenizer, &sampling)));
            let prompt = match &stem {
                None => format!("{x} GEN "),
                Some(answer) => format!("{x} REV {answer} GEN "),
            };
            seen.push((row, stem));
            tokenizer.encode(&prompt, true)
        });
        let by_hand = by_hand.unwrap();
        for (row, answers) in answers.iter().enumerate() {
            for (n, answer) in answers.iter().enumerate() {
                assert_eq!(*answer, by_hand[row][n].text(&tokenizer, &sampling));
                let earlier = n.checked_sub(1).map(|before| answers[before].clone());
                assert_eq!(seen[n * 3 + row], (row, earlier));
            }
        }
        // More revisions leave the earlier ones as they are.
        let fewer = Revising { revisions: 1, ..revising };
        let fewer = fewer.texts(&model, &tokenizer, &templates, &prompts[..2], &seeds).unwrap();
        assert_eq!(fewer, [&answers[0][..2], &answers[1][..2]]);
    }

    #[test]
    fn unchanged_answers_settle_without_touching_the_others() {
        // Tokens 1 to 4 are prompts whose answer, at most one token long, often repeats.
        let (model, seeds) = (model(64), Seeds::new(3));
        let sampling = Sampling { max_new_tokens: 1, ..Sampling::default() };
        let prompt = |row: usize, earlier: Option<&Completion>| {
            Ok([&[row as u32 + 1][..], earlier.map_or(&[][..], |answer| &answer.tokens)].concat())
        };
        let free = Revising { revisions: 6, stop_when_unchanged: false, sampling: &sampling, shares: 2 };
        let free_answers = free.tokens(&model, 8, &seeds, prompt).unwrap();
        let settling = Revising { stop_when_unchanged: true, ..free };
        let answers = settling.tokens(&model, 8, &seeds, prompt).unwrap();
        let mut settled = 0;
        for (free, answers) in free_answers.iter().zip(&answers) {
            assert_eq!(answers.len(), 7);
            let unchanged = (1..7).find(|&n| free[n].tokens == free[n - 1].tokens).unwrap_or(6);
            let tokens =
                |answers: &[Completion]| answers.iter().map(|a| a.tokens.clone()).collect::<Vec<_>>();
            assert_eq!(tokens(&answers[..=unchanged]), tokens(&free[..=unchanged]));
            assert!(answers[unchanged..].iter().all(|answer| answer.tokens == answers[unchanged].tokens));
            settled += usize::from(unchanged < 6);
        }
        assert!(settled > 0 && settled < 8, "{settled} of 8 rows settled");
    }

    #[test]
    fn long_prompts_lose_their_beginning_and_what_never_fits_is_an_error() {
        let (_folder, tokenizer) = words();
        let sampling = sampling();
        let revising = Revising { revisions: 1, stop_when_unchanged: false, sampling: &sampling, shares: 1 };
        let long = [Text::Plain("a b ".repeat(40))];
        let run = |context| {
            revising.texts(&model(context), &tokenizer, &RevisionTemplates::symbols(), &long, &Seeds::new(0))
        };
        assert_eq!(run(14).unwrap()[0].len(), 2);
        let problem = run(5).unwrap_err();
        assert!(problem.message().contains("prompt 1 does not fit"), "{problem}");
        let templates = RevisionTemplates { generate: "no place".into(), ..RevisionTemplates::symbols() };
        assert!(revising.texts(&model(64), &tokenizer, &templates, &long, &Seeds::new(0)).is_err());
    }
}
