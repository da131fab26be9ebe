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
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
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

/// Several answers to one prompt, each with a score.
#[derive(Clone, Debug, PartialEq)]
pub struct ListRow {
    /// What was asked.
    pub prompt: Text,
    /// At least two answers, at least two of them different, in the order of the file; of the same form as the prompt.
    pub completions: Vec<Text>,
    /// Quality of each answer, higher is better; finite. Where the file names parts instead of scores: gold 2,
    /// chosen 1, rejected 0; for a pair, `score_chosen` and `score_rejected` where the file has them.
    pub scores: Vec<f64>,
    /// Log-prob of each answer under the policy that drew it, nats, summed over tokens; empty where the file has none.
    pub logps: Vec<f64>,
    /// Where the row stands.
    pub place: Place,
    /// Index among the rows that were read, from 0.
    pub id: u64,
}

/// One answer to a prompt and whether it is a good one.
#[derive(Clone, Debug, PartialEq)]
pub struct UnpairedRow {
    /// What was asked.
    pub prompt: Text,
    /// The answer; of the same form as the prompt.
    pub completion: Text,
    /// Whether the answer is desirable.
    pub label: bool,
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
    const FIELDS: &'static [&'static str] = &["prompt", "chosen", "rejected", "label"];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let (prompt, chosen, rejected) = pair(&record.fields)?;
        let label = label(&record.fields)?;
        Ok(vec![Self { prompt, chosen, rejected, label, place: record.place.clone(), id }])
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        vec![("prompt", &self.prompt), ("chosen", &self.chosen), ("rejected", &self.rejected)]
    }

    fn extra(&self) -> String {
        self.label.to_string()
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

impl Row for ListRow {
    const FIELDS: &'static [&'static str] = &[
        "prompt",
        "completions",
        "scores",
        "logps",
        "gold",
        "reference",
        "chosen",
        "rejected",
        "score_chosen",
        "score_rejected",
    ];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        let mut logps = Vec::new();
        let (prompt, completions, scores) = if present(fields, "completions") {
            let (prompt, completions) = listed(fields)?;
            if completions.iter().all(|completion| *completion == completions[0]) {
                return Err(Fault::new(
                    "completions",
                    "fewer than two different completions",
                    "a list compares at least two answers; remove the row, or pass over such rows with on_bad_row = \
                     \"skip\"",
                ));
            }
            let scores = numbers(fields, "scores", completions.len())?;
            if present(fields, "logps") {
                logps = numbers(fields, "logps", completions.len())?;
            }
            (prompt, completions, scores)
        } else if present(fields, "chosen") && present(fields, "rejected") {
            let (prompt, chosen, rejected) = pair(fields)?;
            match ["gold", "reference"].into_iter().find(|name| present(fields, name)) {
                None => (prompt, vec![chosen, rejected], pair_scores(fields)?),
                Some(name) => {
                    let (_, gold) = match_forms(prompt.clone(), text(fields, name)?);
                    if gold.is_blank() {
                        return Err(empty(name));
                    }
                    if gold == chosen || gold == rejected {
                        return Err(Fault::new(
                            name,
                            format!("`{name}` equals another answer of the row"),
                            "the three answers of a row must differ; remove the row, or the field for a plain pair",
                        ));
                    }
                    (prompt, vec![gold, chosen, rejected], vec![2.0, 1.0, 0.0])
                }
            }
        } else {
            return Err(missing(
                fields,
                "completions",
                "lists are `prompt`, `completions` and `scores`, or `prompt`, `gold`, `chosen` and `rejected`",
            ));
        };
        Ok(vec![Self { prompt, completions, scores, logps, place: record.place.clone(), id }])
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        let mut texts = vec![("prompt", &self.prompt)];
        texts.extend(self.completions.iter().map(|completion| ("completion", completion)));
        texts
    }

    fn extra(&self) -> String {
        format!("{:?} {:?}", self.scores, self.logps)
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

/// The prompt and the `completions` of a row, at least one, all of one form.
pub(crate) fn listed(fields: &Map<String, Value>) -> Result<(Text, Vec<Text>), Fault> {
    let prompt = text(fields, "prompt")?;
    let items = match fields.get("completions") {
        Some(Value::Array(items)) if !items.is_empty() => items,
        None => return Err(missing(fields, "completions", "a list of answers to the prompt")),
        Some(other) => return Err(wrong_type("completions", other, "a list of answers")),
    };
    let mut completions: Vec<Text> = Vec::new();
    for (number, item) in (1..).zip(items) {
        let alone = Map::from_iter([("completions".to_owned(), item.clone())]);
        let completion = text(&alone, "completions")
            .map_err(|fault| Fault { message: format!("completion {number}: {}", fault.message), ..fault })?;
        completions.push(match_forms(prompt.clone(), completion).1);
    }
    let plain = |completion: &Text| matches!(completion, Text::Plain(_));
    let first = plain(&completions[0]);
    if completions.iter().any(|completion| plain(completion) != first) {
        return Err(Fault::new(
            "completions",
            "some completions are strings and some lists of turns",
            "write all completions of a row in one form",
        ));
    }
    Ok((match_forms(prompt, completions[0].clone()).0, completions))
}

/// A list of finite numbers, one for each completion.
fn numbers(fields: &Map<String, Value>, name: &'static str, completions: usize) -> Result<Vec<f64>, Fault> {
    let items = match fields.get(name) {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => {
            return Err(missing(fields, name, "each completion needs a number; `polo score` gives scores"));
        }
        Some(other) => return Err(wrong_type(name, other, "a list of numbers, one for each completion")),
    };
    if items.len() != completions {
        return Err(Fault::new(
            name,
            format!("{completions} completions have {} `{name}`", items.len()),
            "give one number for each completion",
        ));
    }
    let number = |(place, item): (usize, &Value)| {
        item.as_f64().filter(|number| number.is_finite()).ok_or_else(|| {
            Fault::new(
                name,
                format!("number {} of `{name}` is {item}", place + 1),
                "give finite numbers, one for each completion",
            )
        })
    };
    items.iter().enumerate().map(number).collect()
}

/// The scores of a pair: `score_chosen` and `score_rejected`, or 1 and 0 where the row has neither.
fn pair_scores(fields: &Map<String, Value>) -> Result<Vec<f64>, Fault> {
    let names = ["score_chosen", "score_rejected"];
    if !names.iter().any(|name| present(fields, name)) {
        return Ok(vec![1.0, 0.0]);
    }
    let mut scores = Vec::with_capacity(2);
    for name in names {
        let score = match fields.get(name) {
            None | Some(Value::Null) => {
                return Err(missing(fields, name, "a pair with one score needs the other, too"));
            }
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(other) => return Err(wrong_type(name, other, "a number")),
        };
        let Some(score) = score.filter(|score: &f64| score.is_finite()) else {
            return Err(Fault::new(name, format!("`{name}` is {}", fields[name]), "give a finite number"));
        };
        scores.push(score);
    }
    if scores[0] < scores[1] {
        return Err(Fault::new(
            "score_rejected",
            format!("the rejected answer has the higher score, {} against {}", scores[1], scores[0]),
            "swap the two answers or their scores, or pass over such rows with on_bad_row = \"skip\"",
        ));
    }
    Ok(scores)
}

impl Row for UnpairedRow {
    const FIELDS: &'static [&'static str] = &["prompt", "completion", "label", "chosen", "rejected"];

    fn from_record(record: &Record, id: u64) -> Result<Vec<Self>, Fault> {
        let fields = &record.fields;
        let row = |prompt, completion, label, id| Self {
            prompt,
            completion,
            label,
            place: record.place.clone(),
            id,
        };
        if present(fields, "completion") {
            let completion = text(fields, "completion")?;
            if completion.is_blank() {
                return Err(empty("completion"));
            }
            let (prompt, completion) = match_forms(text(fields, "prompt")?, completion);
            let label = match fields.get("label") {
                Some(Value::Bool(label)) => *label,
                Some(Value::Number(number)) if number.as_f64() == Some(1.0) => true,
                Some(Value::Number(number)) if number.as_f64() == Some(0.0) => false,
                Some(Value::String(word)) if word.eq_ignore_ascii_case("true") || word == "1" => true,
                Some(Value::String(word)) if word.eq_ignore_ascii_case("false") || word == "0" => false,
                None | Some(Value::Null) => {
                    return Err(missing(
                        fields,
                        "label",
                        "whether the completion is desirable: true or false",
                    ));
                }
                Some(other) => {
                    return Err(Fault::new(
                        "label",
                        format!("label {other} is neither true nor false"),
                        "the label of a single answer says whether it is desirable",
                    ));
                }
            };
            return Ok(vec![row(prompt, completion, label, id)]);
        }
        if present(fields, "chosen") && present(fields, "rejected") {
            let (prompt, chosen, rejected) = pair(fields)?;
            return Ok(vec![row(prompt.clone(), chosen, true, id), row(prompt, rejected, false, id + 1)]);
        }
        Err(missing(
            fields,
            "completion",
            "single answers are `prompt`, `completion` and `label` (true or false); pairs serve, too",
        ))
    }

    fn texts(&self) -> Vec<(&'static str, &Text)> {
        vec![("prompt", &self.prompt), ("completion", &self.completion)]
    }

    fn extra(&self) -> String {
        self.label.to_string()
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
