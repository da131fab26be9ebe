//! SRPO's two prompts: one that asks for an answer, one that asks to improve a given answer.
//!
//! Nothing but the prompt tells the two policies of SRPO apart (Choi et al. 2024, arXiv 2406.01660): the generative
//! policy is the model after G(x), the self-improvement policy the same model after R(x, y1). Training, self-revision
//! in `polo generate --revisions` and evaluation all build their prompts here. Where a prompt is too long, only x
//! loses tokens, from its left; the answer to be improved and the answer to be learnt never do.

use std::ops::Range;

use polo_run::{Problem, Result};
use sha2::{Digest, Sha256};

use crate::{
    encode::{Encoded, Limits, LongPrompt, encode_all, split, too_long},
    read::hex,
    rows::{Message, PairRow, Text},
    tokens::Tokenizer,
};

const PROMPT: &str = "{prompt}";
const ANSWER: &str = "{answer}";

/// The texts around a prompt x and an earlier answer y1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionTemplates {
    /// G for plain prompts; holds `{prompt}` once.
    pub generate: String,
    /// R for plain prompts; holds `{prompt}` and, after it, `{answer}` once each.
    pub revise: String,
    /// R for conversations: what the user says after the earlier answer, which stands before it as the assistant's
    /// turn. May quote it once more as `{answer}`. G is the conversation itself.
    pub revise_turn: String,
}

const REVISE_TURN: &str = "Your answer above can be improved. Write a better answer to my last message. \
                           Reply with the improved answer only.";

impl RevisionTemplates {
    /// For general instructions, and the default.
    pub fn instructions() -> Self {
        Self::of(
            "Below is an instruction. Write a response that completes it well.\n\n\
             ### Instruction:\n{prompt}\n\n### Response:\n",
            "Below is an instruction, and an example response that may have flaws. Write a better response to the \
             instruction.\n\n### Instruction:\n{prompt}\n\n### Example response:\n{answer}\n\n### Response:\n",
        )
    }

    /// For dialogues in Anthropic's form, whose prompts end in `\n\nAssistant:`.
    pub fn dialogues() -> Self {
        Self::of("{prompt}", &format!("{{prompt}}{{answer}}\n\nHuman: {REVISE_TURN}\n\nAssistant:"))
    }

    /// For summaries of posts, as in the TL;DR experiments.
    pub fn summaries() -> Self {
        Self::of(
            "Below is a post. Write a precise and concise summary of it.\n\n{prompt}\n\nTL;DR:",
            "Below is a post, and an EXAMPLE SUMMARY that may have flaws. Write a more precise and more concise \
             summary of the post.\n\n{prompt}\n\nEXAMPLE SUMMARY: {answer}\n\nTL;DR:",
        )
    }

    /// For tasks over symbols, whose vocabulary has the words `GEN` and `REV`.
    pub fn symbols() -> Self {
        Self::of("{prompt} GEN ", "{prompt} REV {answer} GEN ")
    }

    /// The preset of a name: `instructions`, `dialogues`, `summaries` or `symbols`.
    ///
    /// # Errors
    /// Another name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "instructions" => Ok(Self::instructions()),
            "dialogues" => Ok(Self::dialogues()),
            "summaries" => Ok(Self::summaries()),
            "symbols" => Ok(Self::symbols()),
            _ => Err(Problem::usage(format!("no revision templates are called `{name}`"))
                .hint("there are instructions, dialogues, summaries and symbols")),
        }
    }

    /// The preset that goes with prompts such as this one: [`RevisionTemplates::dialogues`] where it ends in
    /// `\n\nAssistant:`, else [`RevisionTemplates::instructions`] (of which a conversation uses `revise_turn` alone).
    pub fn suited_to(prompt: &Text) -> Self {
        match prompt {
            Text::Plain(prompt) if prompt.ends_with("\n\nAssistant:") => Self::dialogues(),
            _ => Self::instructions(),
        }
    }

    fn of(generate: &str, revise: &str) -> Self {
        Self { generate: generate.into(), revise: revise.into(), revise_turn: REVISE_TURN.into() }
    }

    /// Checks that the placeholders are where they belong.
    ///
    /// # Errors
    /// A placeholder missing, given twice, or `{answer}` before `{prompt}`.
    pub fn check(&self) -> Result<()> {
        let once = |name: &str, template: &str, placeholder: &str| match template.matches(placeholder).count()
        {
            1 => Ok(()),
            count => Err(Problem::usage(format!(
                "the template `{name}` holds {placeholder} {count} times, not once"
            ))
            .hint(format!("it is: {template:?}"))),
        };
        once("generate", &self.generate, PROMPT)?;
        once("revise", &self.revise, PROMPT)?;
        once("revise", &self.revise, ANSWER)?;
        if self.revise.find(ANSWER) < self.revise.find(PROMPT) {
            return Err(Problem::usage("the template `revise` holds {answer} before {prompt}"));
        }
        Ok(())
    }

    /// SHA-256, in hexadecimal, of the templates, for cache keys.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(format!("{self:?}")))
    }

    /// G(x) as text.
    pub fn generate(&self, prompt: &Text) -> Text {
        match prompt {
            Text::Plain(prompt) => Text::Plain(fill(&self.generate, prompt, "").0),
            conversation @ Text::Conversation(_) => conversation.clone(),
        }
    }

    /// R(x, y1) as text.
    ///
    /// # Errors
    /// A plain prompt with an answer in turns, or the other way round.
    pub fn revise(&self, prompt: &Text, answer: &Text) -> Result<Text> {
        Ok(match (prompt, answer) {
            (Text::Plain(prompt), Text::Plain(answer)) => Text::Plain(fill(&self.revise, prompt, answer).0),
            (Text::Conversation(prompt), Text::Conversation(answer)) => {
                let quoted: Vec<&str> = answer.iter().map(|turn| turn.content.as_str()).collect();
                let request = Message::new("user", fill(&self.revise_turn, "", &quoted.join("\n\n")).0);
                Text::Conversation([prompt.as_slice(), answer.as_slice(), &[request]].concat())
            }
            _ => {
                return Err(Problem::input(
                    "prompt and answer are of different forms, plain and conversation",
                ));
            }
        })
    }

    /// Token ids of G(x), at most `room` of them; see [`RevisionTemplates::encode_revise`].
    ///
    /// # Errors
    /// As [`RevisionTemplates::encode_revise`].
    pub fn encode_generate(
        &self,
        prompt: &Text,
        tokenizer: &Tokenizer,
        room: usize,
    ) -> Result<Option<Fitted>> {
        let whole = self.generate(prompt);
        let span = match prompt {
            Text::Plain(prompt) => fill(&self.generate, prompt, "").1,
            Text::Conversation(_) => 0..0,
        };
        encode_within(&whole, span, turns(prompt), tokenizer, room)
    }

    /// Token ids of R(x, y1), at most `room` of them: where there are more, x loses tokens from its left (system
    /// turns excepted). None if the rest alone does not fit.
    ///
    /// # Errors
    /// What the tokenizer or the chat template refuses.
    pub fn encode_revise(
        &self,
        prompt: &Text,
        answer: &Text,
        tokenizer: &Tokenizer,
        room: usize,
    ) -> Result<Option<Fitted>> {
        let answer = without_end(answer, tokenizer.eos_name());
        let whole = self.revise(prompt, &answer)?;
        let span = match (prompt, &answer) {
            (Text::Plain(prompt), Text::Plain(answer)) => fill(&self.revise, prompt, answer).1,
            _ => 0..0,
        };
        encode_within(&whole, span, turns(prompt), tokenizer, room)
    }
}

impl Default for RevisionTemplates {
    fn default() -> Self {
        Self::instructions()
    }
}

/// A prompt that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Token ids, never empty.
    pub ids: Vec<u32>,
    /// Whether x lost tokens.
    pub cut: bool,
}

/// The prompts and answers of SRPO's six sequences: each of the three prompts followed by each of the two answers.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionTokens {
    /// G(x).
    pub generate: Vec<u32>,
    /// R(x, chosen): asks to improve the preferred answer.
    pub revise_chosen: Vec<u32>,
    /// R(x, rejected): asks to improve the other answer.
    pub revise_rejected: Vec<u32>,
    /// The preferred answer with its end token.
    pub chosen: Vec<u32>,
    /// The other answer with its end token.
    pub rejected: Vec<u32>,
    /// Probability that `chosen` beats `rejected`.
    pub label: f64,
    /// The row's [`PairRow::id`].
    pub id: u64,
}

/// Encodes pairs for SRPO, in parallel, in order. `limits.max_prompt_length` is not used, and of
/// `limits.long_prompt` only whether a row that does not fit is dropped or an error: shortening x is part of the
/// method.
///
/// # Errors
/// As [`crate::encode::encode_pairs`], and a row whose two answers and templates alone exceed the context.
pub fn encode_revisions(
    rows: &[PairRow],
    templates: &RevisionTemplates,
    tokenizer: &Tokenizer,
    limits: &Limits,
) -> Result<Encoded<RevisionTokens>> {
    templates.check()?;
    encode_all(rows, limits, |row| {
        let encode = || -> Result<Option<_>> {
            let asked = templates.generate(&row.prompt);
            let (prompt, [chosen, rejected], mut fate) =
                split(tokenizer, &asked, &[&row.chosen, &row.rejected])?;
            // What the answers took from the end of G by merging, they take from the equal end of R.
            let lost = crate::encode::encode_prompt(&asked, tokenizer)?.len() - prompt.len();
            let room = (limits.max_length + lost).saturating_sub(chosen.len().max(rejected.len()));
            let prompts = [
                templates.encode_generate(&row.prompt, tokenizer, room)?,
                templates.encode_revise(&row.prompt, &row.chosen, tokenizer, room)?,
                templates.encode_revise(&row.prompt, &row.rejected, tokenizer, room)?,
            ];
            let [Some(mut generate), Some(mut revise_chosen), Some(mut revise_rejected)] = prompts else {
                return Ok(None);
            };
            for Fitted { ids, cut } in [&mut generate, &mut revise_chosen, &mut revise_rejected] {
                fate.cut_prompt |= *cut;
                ids.truncate(ids.len().saturating_sub(lost).max(1));
            }
            let tokens = RevisionTokens {
                generate: generate.ids,
                revise_chosen: revise_chosen.ids,
                revise_rejected: revise_rejected.ids,
                chosen,
                rejected,
                label: row.label,
                id: row.id,
            };
            Ok(Some((tokens, fate)))
        };
        match encode().map_err(|problem| row.place.mark(problem))? {
            None if limits.long_prompt != LongPrompt::Drop => {
                let most = templates.encode_revise(&row.prompt, &row.chosen, tokenizer, usize::MAX)?;
                Err(too_long(most.map_or(0, |most| most.ids.len()), limits.max_length, &row.place))
            }
            outcome => Ok(outcome),
        }
    })
}

fn turns(prompt: &Text) -> &[Message] {
    match prompt {
        Text::Plain(_) => &[],
        Text::Conversation(turns) => turns,
    }
}

/// An earlier answer is quoted without its end token.
fn without_end(answer: &Text, eos: &str) -> Text {
    let cut = |text: &str| text.strip_suffix(eos).unwrap_or(text).to_owned();
    match answer {
        Text::Plain(text) => Text::Plain(cut(text)),
        Text::Conversation(turns) => Text::Conversation(
            turns.iter().map(|turn| Message::new(&*turn.role, cut(&turn.content))).collect(),
        ),
    }
}

/// Fills a template in one pass (a prompt may well contain `{answer}`), and tells where the prompt stands.
fn fill(template: &str, prompt: &str, answer: &str) -> (String, Range<usize>) {
    let mut out = String::with_capacity(template.len() + prompt.len() + answer.len());
    let mut span = 0..0;
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out += &rest[..at];
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(PROMPT) {
            span = out.len()..out.len() + prompt.len();
            out += prompt;
            rest = after;
        } else if let Some(after) = rest.strip_prefix(ANSWER) {
            out += answer;
            rest = after;
        } else {
            out.push('{');
            rest = &rest[1..];
        }
    }
    out += rest;
    (out, span)
}

/// Encodes a filled prompt and drops as many of x's tokens as it takes, from the left. `span` is where x stands in a
/// plain text; `turns` are x in a conversation.
fn encode_within(
    whole: &Text,
    span: Range<usize>,
    turns: &[Message],
    tokenizer: &Tokenizer,
    room: usize,
) -> Result<Option<Fitted>> {
    if room == 0 {
        return Ok(None);
    }
    let ids = crate::encode::encode_prompt(whole, tokenizer)?;
    if ids.len() <= room {
        return Ok(Some(Fitted { ids, cut: false }));
    }
    let (text, spans, add_special) = match whole {
        Text::Plain(text) => (text.clone(), vec![span], true),
        Text::Conversation(all) => {
            let text = tokenizer.render(all, true)?;
            let spans = content_spans(&text, all, turns.len(), tokenizer)?;
            (text, spans, false)
        }
    };
    let (ids, offsets) = tokenizer.encode_with_offsets(&text, add_special)?;
    let mut excess = ids.len() - room;
    let inside = |&(start, end): &(usize, usize)| {
        end > start && spans.iter().any(|span| span.start <= start && end <= span.end)
    };
    let kept: Vec<u32> = ids
        .into_iter()
        .zip(&offsets)
        .filter(|(_, offset)| {
            let drop = excess > 0 && inside(offset);
            excess -= usize::from(drop);
            !drop
        })
        .map(|(id, _)| id)
        .collect();
    Ok((excess == 0).then_some(Fitted { ids: kept, cut: true }))
}

/// Where the contents of the first `count` turns, except the system's, stand in a rendered conversation.
///
/// Contents are replaced by marks to learn the template's skeleton; if the skeleton with the contents put back is
/// not what was rendered (the template looks into the contents), nothing is known to be x, and nothing is returned.
fn content_spans(
    text: &str,
    turns: &[Message],
    count: usize,
    tokenizer: &Tokenizer,
) -> Result<Vec<Range<usize>>> {
    let mark = |turn: usize| format!("\u{e000}{turn}\u{e001}");
    let marked: Vec<Message> =
        turns.iter().enumerate().map(|(index, turn)| Message::new(&*turn.role, mark(index))).collect();
    let skeleton = tokenizer.render(&marked, true)?;
    for trimmed in [false, true] {
        let mut filled = String::new();
        let mut spans = Vec::new();
        let mut rest = skeleton.as_str();
        for (index, turn) in turns.iter().enumerate() {
            let Some((before, after)) = rest.split_once(&mark(index)) else { continue };
            filled += before;
            let content = if trimmed { turn.content.trim() } else { &turn.content };
            if index < count && turn.role != "system" {
                spans.push(filled.len()..filled.len() + content.len());
            }
            filled += content;
            rest = after;
        }
        filled += rest;
        if filled == text {
            return Ok(spans);
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
#[path = "templates_tests.rs"]
mod tests;
