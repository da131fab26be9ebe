//! Rows of training data as a person wrote them, before any tokenizer: preference pairs, completions, prompts.
//!
//! [`crate::read`] turns files into [`Record`]s (named fields and a place) and calls [`Row::from_record`] here;
//! [`crate::encode`] turns rows into token ids. What a field means follows TRL's dataset types, plain and
//! conversational, with two liberties that only ever rescue a row: a prompt string before conversational answers
//! becomes a user turn, and answers that repeat the whole prompt conversation are cut to what follows it.

use std::{path::Path, sync::Arc};

use polo_run::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod lists;
mod steps;

pub(crate) use lists::listed;
pub use lists::{ListRow, UnpairedRow};
pub use steps::{StepRow, steps_to_pairs};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or whatever else the chat template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A piece of text: a string taken as it is, or turns that a chat template will render.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// A string, tokenized as it stands.
    Plain(String),
    /// Turns of a conversation.
    Conversation(Vec<Message>),
}

impl Text {
    /// Number of characters (Unicode scalar values) of the string or of all turns' contents.
    pub fn characters(&self) -> usize {
        match self {
            Text::Plain(text) => text.chars().count(),
            Text::Conversation(turns) => turns.iter().map(|turn| turn.content.chars().count()).sum(),
        }
    }

    /// What is said: the string, or all turns' contents one after the other.
    pub fn words(&self) -> String {
        match self {
            Text::Plain(text) => text.clone(),
            Text::Conversation(turns) => {
                turns.iter().map(|turn| turn.content.as_str()).collect::<Vec<_>>().join("\n\n")
            }
        }
    }

    /// An answer to this prompt, in its form.
    pub fn answered(&self, words: impl Into<String>) -> Self {
        match self {
            Text::Plain(_) => Text::Plain(words.into()),
            Text::Conversation(_) => answer_turn(words.into()),
        }
    }

    /// This prompt with the beginning of its answer, which what follows continues: of a conversation, an unfinished
    /// assistant turn at its end.
    pub fn continued(&self, said: &str) -> Self {
        match self {
            Text::Plain(prompt) => Text::Plain(format!("{prompt}{said}")),
            Text::Conversation(turns) => {
                let mut turns = turns.clone();
                turns.push(Message::new("assistant", said));
                Text::Conversation(turns)
            }
        }
    }

    /// Whether nothing but white space stands in it.
    pub fn is_blank(&self) -> bool {
        match self {
            Text::Plain(text) => text.trim().is_empty(),
            Text::Conversation(turns) => turns.iter().all(|turn| turn.content.trim().is_empty()),
        }
    }
}

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: Arc<Path>,
    /// Line, from 1. In Parquet files, which have no lines, the row.
    pub line: usize,
}

impl Place {
    /// Says in `problem` that it arose from this row.
    pub fn mark(&self, problem: Problem) -> Problem {
        problem.at(&self.file, self.line, None)
    }
}

/// Two answers to one prompt, the first preferred.
#[derive(Clone, Debug, PartialEq)]
pub struct PairRow {
    /// What was asked.
    pub prompt: Text,
    /// The preferred answer; of the same form (plain or conversation) as the prompt.
    pub chosen: Text,
    /// The other answer.
    pub rejected: Text,
    /// Probability that `chosen` beats `rejected`, in `[0, 1]`; 1 where the file says nothing.
    pub label: f64,
    /// What else the file says of the pair.
    pub about: About,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

/// What a file may say of a pair, beside its texts and its label.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About {
    /// Scores of the chosen and the rejected answer by some measure, not necessarily the one that the pair is ordered
    /// by (`score_chosen`, `score_rejected`).
    pub scores: Option<[f64; 2]>,
    /// Whether the chosen and the rejected answer are safe (`chosen_is_safe`, `rejected_is_safe`).
    pub safe: Option<[bool; 2]>,
    /// The group of people or sources that the label stems from (`group`).
    pub group: Option<String>,
    /// Whether the answers are steps in the middle, which no end token follows.
    pub open: bool,
}

/// A prompt and the text to be learnt after it (supervised fine-tuning).
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRow {
    /// What stands before; an empty string for plain language modelling (`text`).
    pub prompt: Text,
    /// What is to be learnt.
    pub completion: Text,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

/// A prompt to answer, with the right answer where one is known.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptRow {
    /// What is asked.
    pub prompt: Text,
    /// The reference answer, for judges and verifiable rewards.
    pub answer: Option<String>,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

/// The fields of one row of a file.
#[derive(Clone, Debug)]
pub struct Record {
    /// Named values. Strings of a CSV file stay strings.
    pub fields: Map<String, Value>,
    /// Where it stands.
    pub place: Place,
}

/// Why a record is not a row, and which field is to blame.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The field at which a person should look; none where it is missing.
    pub field: Option<&'static str>,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Fault {
    fn new(
        field: impl Into<Option<&'static str>>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), message: message.into(), hint: hint.into() }
    }
}

/// A type of row that can be made from a record.
pub trait Row: Sized {
    /// Fields that are looked at; others are not even decoded from columnar files.
    const FIELDS: &'static [&'static str];
    /// Makes rows (conversations for fine-tuning give one per assistant turn). `id` and its followers are theirs.
    ///
    /// # Errors
    /// A [`Fault`] if a field is missing, of the wrong type or out of range.
    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault>;
    /// The texts, by name, for statistics and hashing.
    fn texts(&self) -> Vec<(&'static str, &Text)>;
    /// Everything else that distinguishes two rows.
    fn extra(&self) -> String;
}

impl Row for PairRow {
    const FIELDS: &'static [&'static str] = &[
        "prompt",
        "chosen",
        "rejected",
        "label",
        "score_chosen",
        "score_rejected",
        "chosen_is_safe",
        "rejected_is_safe",
        "group",
        "initial_reason_steps",
    ];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        let (mut prompt, chosen, rejected) = pair(fields)?;
        let group = match fields.get("group") {
            None | Some(Value::Null) => None,
            Some(Value::String(group)) => Some(group.clone()),
            Some(number @ (Value::Number(_) | Value::Bool(_))) => Some(number.to_string()),
            Some(other) => return Err(wrong_type("group", other, "a name or a number")),
        };
        let open = present(fields, "initial_reason_steps");
        if open {
            match text(fields, "initial_reason_steps")? {
                Text::Plain(said) => prompt = prompt.continued(&said),
                Text::Conversation(_) => {
                    let list = &fields["initial_reason_steps"];
                    return Err(wrong_type("initial_reason_steps", list, "a string"));
                }
            }
        }
        let about = About { scores: lists::both_scores(fields)?, safe: both_safe(fields)?, group, open };
        let label = label(fields)?;
        Ok(vec![Self { prompt, chosen, rejected, label, about, place: record.place.clone(), id }])
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        vec![("prompt", &self.prompt), ("chosen", &self.chosen), ("rejected", &self.rejected)]
    }

    fn extra(&self) -> String {
        match self.about == About::default() {
            true => self.label.to_string(),
            false => format!("{} {:?}", self.label, self.about),
        }
    }
}

/// Whether the two answers of a pair are safe, if the row says so.
fn both_safe(fields: &Map<String, Value>) -> Result<Option<[bool; 2]>, Fault> {
    let names = ["chosen_is_safe", "rejected_is_safe"];
    if !names.iter().any(|name| present(fields, name)) {
        return Ok(None);
    }
    let mut safe = [true; 2];
    for (name, safe) in names.into_iter().zip(&mut safe) {
        *safe = truth(fields, name)?
            .ok_or_else(|| missing(fields, name, "a pair that says it of one answer must say it of both"))?;
    }
    Ok(Some(safe))
}

/// A field that is true or false, in any of the ways that files write it; none where it is missing.
fn truth(fields: &Map<String, Value>, name: &'static str) -> Result<Option<bool>, Fault> {
    match fields.get(name) {
        Some(Value::Bool(truth)) => Ok(Some(*truth)),
        Some(Value::Number(number)) if number.as_f64() == Some(1.0) => Ok(Some(true)),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(Some(false)),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("true") || word == "1" => Ok(Some(true)),
        Some(Value::String(word)) if word.eq_ignore_ascii_case("false") || word == "0" => Ok(Some(false)),
        None | Some(Value::Null) => Ok(None),
        Some(other) => Err(Fault::new(
            name,
            format!("`{name}` {other} is neither true nor false"),
            "write true or false",
        )),
    }
}

impl Row for CompletionRow {
    const FIELDS: &'static [&'static str] =
        &["prompt", "completion", "text", "messages", "chosen", "rejected"];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        let has = |name| present(fields, name);
        let parts = if has("completion") {
            let completion = text(fields, "completion")?;
            if completion.is_blank() {
                return Err(empty("completion"));
            }
            vec![match_forms(text(fields, "prompt")?, completion)]
        } else if has("messages") {
            let Text::Conversation(turns) = text(fields, "messages")? else {
                return Err(Fault::new(
                    "messages",
                    "field `messages` is a string",
                    "give a list of {\"role\": ..., \"content\": ...}, or call the field `text`",
                ));
            };
            let answers = (1..turns.len()).filter(|&turn| turns[turn].role == "assistant");
            let parts: Vec<_> = answers
                .map(|turn| {
                    (
                        Text::Conversation(turns[..turn].to_vec()),
                        Text::Conversation(turns[turn..=turn].to_vec()),
                    )
                })
                .collect();
            if parts.is_empty() {
                return Err(Fault::new(
                    "messages",
                    "no assistant turn follows another turn in `messages`",
                    "there is nothing to learn in this row; remove it or add the answer",
                ));
            }
            parts
        } else if has("text") {
            match text(fields, "text")? {
                completion if completion.is_blank() => return Err(empty("text")),
                completion @ Text::Plain(_) => vec![(Text::Plain(String::new()), completion)],
                Text::Conversation(_) => {
                    return Err(Fault::new("text", "field `text` is a list", "call the field `messages`"));
                }
            }
        } else if has("chosen") && has("rejected") {
            let (prompt, chosen, _) = pair(fields)?;
            vec![(prompt, chosen)]
        } else {
            return Err(missing(
                fields,
                "completion",
                "fine-tuning needs prompt + completion, or `text`, or `messages`, or pairs",
            ));
        };
        let rows = parts.into_iter().zip(id..).map(|((prompt, completion), id)| Self {
            prompt,
            completion,
            place: record.place.clone(),
            id,
        });
        Ok(rows.collect())
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        vec![("prompt", &self.prompt), ("completion", &self.completion)]
    }

    fn extra(&self) -> String {
        String::new()
    }
}

impl Row for PromptRow {
    const FIELDS: &'static [&'static str] =
        &["prompt", "question", "messages", "answer", "solution", "chosen", "rejected"];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        let has = |name| present(fields, name);
        let prompt = if has("chosen") && has("rejected") {
            pair(fields)?.0
        } else if let Some(name) = ["prompt", "question", "messages"].into_iter().find(|name| has(name)) {
            let mut prompt = text(fields, name)?;
            if prompt.is_blank() {
                return Err(empty(name));
            }
            if let Text::Conversation(turns) = &mut prompt
                && turns.len() > 1
            {
                turns.pop_if(|turn| turn.role == "assistant");
            }
            prompt
        } else {
            return Err(missing(
                fields,
                "prompt",
                "prompts are read from `prompt`, `question` or `messages`",
            ));
        };
        Ok(vec![Self { prompt, answer: right_answer(fields)?, place: record.place.clone(), id }])
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        vec![("prompt", &self.prompt)]
    }

    fn extra(&self) -> String {
        format!("{:?}", self.answer)
    }
}

/// The right answer of a row, if it has one.
pub(crate) fn right_answer(fields: &Map<String, Value>) -> Result<Option<String>, Fault> {
    match ["answer", "solution"].into_iter().find(|name| present(fields, name)) {
        None => Ok(None),
        Some(name) => match &fields[name] {
            Value::String(answer) => Ok(Some(answer.clone())),
            number @ (Value::Number(_) | Value::Bool(_)) => Ok(Some(number.to_string())),
            other => Err(wrong_type(name, other, "a string or a number")),
        },
    }
}

fn present(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
}

/// The prompt and the two answers, all of the same form.
fn pair(fields: &Map<String, Value>) -> Result<(Text, Text, Text), Fault> {
    let chosen = text(fields, "chosen")?;
    let rejected = text(fields, "rejected")?;
    if chosen == rejected {
        return Err(Fault::new(
            "rejected",
            "`chosen` equals `rejected`",
            "a pair of equal answers teaches nothing; remove the row, or pass over such rows with on_bad_row = \"skip\"",
        ));
    }
    let (chosen, rejected) = match (chosen, rejected) {
        (Text::Plain(chosen), Text::Conversation(rejected)) => {
            (answer_turn(chosen), Text::Conversation(rejected))
        }
        (Text::Conversation(chosen), Text::Plain(rejected)) => {
            (Text::Conversation(chosen), answer_turn(rejected))
        }
        same => same,
    };
    let explicit = if present(fields, "prompt") { Some(text(fields, "prompt")?) } else { None };
    let blank_is_wrong = |(prompt, chosen, rejected): (Text, Text, Text)| {
        if chosen.is_blank() {
            return Err(empty("chosen"));
        }
        if rejected.is_blank() {
            return Err(empty("rejected"));
        }
        Ok((prompt, chosen, rejected))
    };
    match (explicit, chosen, rejected) {
        (None, Text::Plain(chosen), Text::Plain(rejected)) => {
            // A dialogue may well end in an empty last turn (Anthropic's do): its answer is then the end token
            // alone, which is a preference like any other. An empty field is not.
            if let Some(split) = dialogue_prompt(&chosen, &rejected) {
                return Ok(split_plain(&chosen, &rejected, split));
            }
            let split = extract_prompt(&chosen, &rejected);
            if split == 0 {
                return Err(no_prompt());
            }
            blank_is_wrong(split_plain(&chosen, &rejected, split))
        }
        (prompt, Text::Conversation(chosen), Text::Conversation(rejected)) => {
            let shared = common_turns(&chosen, &rejected);
            let prompt = match prompt {
                Some(Text::Conversation(prompt)) => {
                    let repeated =
                        !prompt.is_empty() && shared >= prompt.len() && chosen.starts_with(&prompt);
                    let from = if repeated { prompt.len() } else { 0 };
                    return blank_is_wrong((
                        Text::Conversation(prompt),
                        Text::Conversation(chosen[from..].to_vec()),
                        Text::Conversation(rejected[from..].to_vec()),
                    ));
                }
                Some(Text::Plain(prompt)) if shared == 0 => vec![Message::new("user", prompt)],
                _ if shared == 0 => return Err(no_prompt()),
                _ => chosen[..shared].to_vec(),
            };
            blank_is_wrong((
                Text::Conversation(prompt),
                Text::Conversation(chosen[shared..].to_vec()),
                Text::Conversation(rejected[shared..].to_vec()),
            ))
        }
        (Some(Text::Conversation(prompt)), Text::Plain(chosen), Text::Plain(rejected)) => {
            blank_is_wrong((Text::Conversation(prompt), answer_turn(chosen), answer_turn(rejected)))
        }
        (Some(prompt), chosen, rejected) => blank_is_wrong((prompt, chosen, rejected)),
        (None, ..) => Err(no_prompt()),
    }
}

fn split_plain(chosen: &str, rejected: &str, at: usize) -> (Text, Text, Text) {
    let plain = |text: &str| Text::Plain(text.to_owned());
    (plain(&chosen[..at]), plain(&chosen[at..]), plain(&rejected[at..]))
}

fn answer_turn(content: String) -> Text {
    Text::Conversation(vec![Message::new("assistant", content)])
}

fn match_forms(prompt: Text, completion: Text) -> (Text, Text) {
    match (prompt, completion) {
        (Text::Plain(prompt), completion @ Text::Conversation(_)) => {
            (Text::Conversation(vec![Message::new("user", prompt)]), completion)
        }
        (prompt @ Text::Conversation(_), Text::Plain(completion)) => (prompt, answer_turn(completion)),
        same => same,
    }
}

/// Byte length of the prompt of two dialogues in Anthropic's form: up to and with the last `\n\nAssistant:` that
/// both have in common.
fn dialogue_prompt(chosen: &str, rejected: &str) -> Option<usize> {
    const ANSWER: &str = "\n\nAssistant:";
    if !chosen.starts_with("\n\nHuman:") {
        return None;
    }
    let common = &chosen[..common_prefix(chosen, rejected)];
    common.rfind(ANSWER).map(|at| at + ANSWER.len())
}

/// Byte length of the prompt that two texts share by TRL's `extract_prompt` rule: the longest common prefix, less
/// one final space; where one text is a prefix of the other, less its last character, so that no answer is empty.
fn extract_prompt(chosen: &str, rejected: &str) -> usize {
    let common = common_prefix(chosen, rejected);
    let shared = &chosen[..common];
    if common == chosen.len().min(rejected.len()) {
        return shared.char_indices().next_back().map_or(0, |(at, _)| at);
    }
    common - usize::from(shared.ends_with(' '))
}

/// Number of leading turns that two conversations share, at least one turn being left to each.
fn common_turns(chosen: &[Message], rejected: &[Message]) -> usize {
    let common = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
    common.min(chosen.len().min(rejected.len()).saturating_sub(1))
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(a.len().min(b.len()), |((at, _), _)| at)
}

fn text(fields: &Map<String, Value>, name: &'static str) -> Result<Text, Fault> {
    match fields.get(name) {
        None => Err(missing(fields, name, "")),
        Some(Value::String(text)) => Ok(Text::Plain(text.clone())),
        Some(Value::Array(turns)) if !turns.is_empty() => turns
            .iter()
            .enumerate()
            .map(|(index, turn)| message(name, index, turn))
            .collect::<Result<_, _>>()
            .map(Text::Conversation),
        Some(other) => Err(wrong_type(name, other, "a string or a list of {\"role\", \"content\"} turns")),
    }
}

fn message(name: &'static str, index: usize, turn: &Value) -> Result<Message, Fault> {
    let wrong = |what: String| {
        Fault::new(
            name,
            format!("turn {} of `{name}` {what}", index + 1),
            "turns are {\"role\": ..., \"content\": ...}",
        )
    };
    let Value::Object(turn) = turn else {
        return Err(wrong(format!("is {}, not an object", kind(turn))));
    };
    let role = match turn.get("role") {
        Some(Value::String(role)) => role.clone(),
        Some(other) => return Err(wrong(format!("has a `role` that is {}, not a string", kind(other)))),
        None => return Err(wrong("has no `role`".into())),
    };
    let content = match turn.get("content") {
        Some(Value::String(content)) => content.clone(),
        // The multi-part form of vision-language data sets; only its text parts can be read here.
        Some(Value::Array(parts)) => {
            let texts = parts.iter().map(|part| part.get("text").and_then(Value::as_str));
            texts.collect::<Option<String>>().ok_or_else(|| wrong("has a part that is not text".into()))?
        }
        Some(other) => return Err(wrong(format!("has a `content` that is {}, not a string", kind(other)))),
        None => return Err(wrong("has no `content`".into())),
    };
    Ok(Message { role, content })
}

fn label(fields: &Map<String, Value>) -> Result<f64, Fault> {
    let label = match fields.get("label") {
        None | Some(Value::Null) => return Ok(1.0),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(1.0),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(Value::Bool(truth)) => Some(f64::from(u8::from(*truth))),
        Some(other) => return Err(wrong_type("label", other, "a number in [0, 1]")),
    };
    match label {
        Some(label) if (0.0..=1.0).contains(&label) => Ok(label),
        _ => Err(Fault::new(
            "label",
            format!("label {} is not in [0, 1]", fields["label"]),
            "the label of a pair is the probability that `chosen` beats `rejected`",
        )),
    }
}

fn empty(name: &'static str) -> Fault {
    Fault::new(
        name,
        format!("field `{name}` is empty"),
        "remove the row, or pass over such rows with on_bad_row = \"skip\"",
    )
}

fn no_prompt() -> Fault {
    Fault::new(
        "chosen",
        "no field `prompt`, and `chosen` and `rejected` share no beginning that could be one",
        "add a field `prompt`",
    )
}

fn wrong_type(name: &'static str, value: &Value, wanted: &str) -> Fault {
    Fault::new(name, format!("field `{name}` is {}", kind(value)), format!("it should be {wanted}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(items) if items.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Names what was found and the nearest name, since a missing field is most often a renamed one.
fn missing(fields: &Map<String, Value>, name: &'static str, needs: &str) -> Fault {
    let nearest = fields
        .keys()
        .map(|key| (strsim::jaro_winkler(&key.to_lowercase(), name), key))
        .filter(|(likeness, key)| *likeness > 0.75 && key.as_str() != name)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let found: Vec<_> = fields.keys().map(|key| format!("`{key}`")).collect();
    let found = if found.is_empty() { "no field at all".to_owned() } else { found.join(", ") };
    let mut hint = format!("found {found}");
    if let Some((_, key)) = nearest {
        hint += &format!("; rename `{key}` to `{name}`?");
    }
    if !needs.is_empty() {
        hint += &format!("; {needs}");
    }
    Fault::new(None, format!("field `{name}` is missing"), hint)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
