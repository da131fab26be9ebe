//! Tokenizers of Hugging Face folders: text to token ids and back, special tokens, the chat template.
//!
//! Training, generation and evaluation share one [`Tokenizer`]. Special tokens follow transformers' precedence:
//! `tokenizer_config.json`, then `special_tokens_map.json`, then the ids of `config.json`; a missing padding token is
//! the end token, as in TRL. Generation stops at the end tokens of `generation_config.json` (else `config.json`) and
//! at the tokenizer's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use polo_run::{Problem, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    chat::{ChatTemplate, DEFAULT_TEMPLATE, TemplateTokens},
    read::hex,
    rows::Message,
    vocabulary::surround,
};

/// Files of a model folder that belong to the tokenizer.
const FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// Start and end of a token in its text, in bytes.
pub type Span = (usize, usize);

/// A tokenizer with its special tokens and chat template.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    folder: PathBuf,
    names: TemplateTokens,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    stop: Vec<u32>,
    template: ChatTemplate,
    own_template: bool,
    vocabulary: usize,
    fingerprint: String,
}

impl Tokenizer {
    /// Loads the tokenizer of a model folder.
    ///
    /// # Errors
    /// `tokenizer.json` missing or broken, a broken configuration file, a special token that is not in the
    /// vocabulary, a chat template with a syntax error.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => no_tokenizer(folder),
            _ => Problem::io("read", &path, &error),
        })?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(|error| {
            Problem::input(format!("cannot read the tokenizer: {error}"))
                .place(path.display().to_string())
                .hint("the file may be cut short or made by a newer release; download it again")
        })?;
        // Truncation and padding are settings of a run; transformers, too, ignores what the file holds.
        inner.with_padding(None);
        let truncation = inner.with_truncation(None);
        truncation.map_err(|error| Problem::input(format!("cannot read the tokenizer: {error}")))?;

        let settings = json_file(&folder.join("tokenizer_config.json"))?;
        let map = json_file(&folder.join("special_tokens_map.json"))?;
        let config = json_file(&folder.join("config.json"))?;
        let generation = json_file(&folder.join("generation_config.json"))?;

        let special = |name: &str| -> Result<(String, Option<u32>)> {
            if let Some(token) = token_name(&settings, name).or_else(|| token_name(&map, name)) {
                return match inner.token_to_id(&token) {
                    Some(id) => Ok((token, Some(id))),
                    // A name for padding or the unknown that the vocabulary lacks is common and does no harm.
                    None if matches!(name, "pad_token" | "unk_token") => Ok(Default::default()),
                    None => Err(Problem::input(format!("the {name} `{token}` is not in the vocabulary"))
                        .place(folder.join("tokenizer_config.json").display().to_string())
                        .hint("the tokenizer files seem to belong to different models")),
                };
            }
            let id = ids(&config, &format!("{name}_id")).first().copied();
            let found = id.and_then(|id| inner.id_to_token(id).map(|token| (token, Some(id))));
            Ok(found.unwrap_or_default())
        };
        let (bos_name, bos) = special("bos_token")?;
        let (eos_name, eos) = special("eos_token")?;
        let (pad_name, pad) = special("pad_token")?;
        let (unk_name, _) = special("unk_token")?;
        let names = TemplateTokens { bos: bos_name, eos: eos_name, pad: pad_name, unk: unk_name };

        // As transformers does, these two settings overrule what tokenizer.json puts around a text.
        let asked = |name: &str| settings.get(name).and_then(Value::as_bool);
        if let (add_bos @ Some(_), add_eos) | (add_bos, add_eos @ Some(_)) =
            (asked("add_bos_token"), asked("add_eos_token"))
        {
            let named = |add: Option<bool>, name: &str, id: Option<u32>| {
                id.filter(|_| add == Some(true)).map(|id| (name.to_owned(), id))
            };
            surround(&mut inner, named(add_bos, &names.bos, bos), named(add_eos, &names.eos, eos))?;
        }

        let mut stop = ids(&generation, "eos_token_id");
        if stop.is_empty() {
            stop = ids(&config, "eos_token_id");
        }
        stop.extend(eos);
        stop.sort_unstable();
        stop.dedup();

        let own = own_template(folder, &settings)?;
        let own_template = own.is_some();
        let (source, origin) =
            own.unwrap_or_else(|| (DEFAULT_TEMPLATE.into(), "the default template".into()));
        let template = ChatTemplate::new(source, origin)?;

        let vocabulary = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let mut hasher = Sha256::new();
        hasher.update(&bytes);
        hasher.update(format!("{names:?}"));
        hasher.update(template.source());
        let fingerprint = hex(&hasher.finalize());
        let folder = folder.to_owned();
        let pad = pad.or(eos);
        Ok(Self {
            inner,
            folder,
            names,
            bos,
            eos,
            pad,
            stop,
            template,
            own_template,
            vocabulary,
            fingerprint,
        })
    }

    /// Token ids of a text. `add_special` adds what the tokenizer puts around a text (for most models a BOS, never
    /// doubled); names of special tokens within the text become those tokens.
    ///
    /// # Errors
    /// A text that the tokenizer cannot take (a word-level vocabulary without an unknown token).
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|error| unencodable(&error))?;
        let mut ids = encoding.get_ids().to_vec();
        self.undouble_bos(&mut ids);
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], with the range of bytes of the text that each token stands for.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_offsets(&self, text: &str, add_special: bool) -> Result<(Vec<u32>, Vec<Span>)> {
        let encoding = self.inner.encode(text, add_special).map_err(|error| unencodable(&error))?;
        let (mut ids, mut offsets) = (encoding.get_ids().to_vec(), encoding.get_offsets().to_vec());
        if self.undouble_bos(&mut ids) {
            offsets.remove(0);
        }
        Ok((ids, offsets))
    }

    fn undouble_bos(&self, ids: &mut Vec<u32>) -> bool {
        let doubled = matches!(ids[..], [first, second, ..] if first == second && Some(first) == self.bos);
        if doubled {
            ids.remove(0);
        }
        doubled
    }

    /// Text of token ids. Bytes that are no UTF-8 become `U+FFFD`; ids outside the vocabulary are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.inner.decode(ids, skip_special).unwrap_or_default()
    }

    /// A decoder for tokens that come one by one.
    pub fn decoder(&self, skip_special: bool) -> StreamDecoder<'_> {
        StreamDecoder { tokenizer: self, skip_special, ids: Vec::new(), sent: 0 }
    }

    /// Renders a conversation with the chat template; see [`ChatTemplate::render`].
    ///
    /// # Errors
    /// What the template refuses.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.template.render(messages, &self.names, add_generation_prompt)
    }

    /// Token ids of a rendered conversation. Special tokens, BOS among them, come from the template alone.
    ///
    /// # Errors
    /// What the template refuses.
    pub fn encode_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>> {
        self.encode(&self.render(messages, add_generation_prompt)?, false)
    }

    /// Sets the time that chat templates take for the present, in seconds since 1970; see [`ChatTemplate::set_now`].
    pub fn set_now(&mut self, seconds: u64) {
        self.template.set_now(seconds);
    }

    /// Whether the folder brings its own chat template; else [`DEFAULT_TEMPLATE`] is used.
    pub fn has_chat_template(&self) -> bool {
        self.own_template
    }

    /// Beginning-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End-of-text token, which training appends to answers.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Name of the end-of-text token; empty if there is none.
    pub fn eos_name(&self) -> &str {
        &self.names.eos
    }

    /// Padding token; the end token where the folder names none.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Tokens at which generation stops, in ascending order.
    pub fn stop(&self) -> &[u32] {
        &self.stop
    }

    /// One more than the largest token id: the least number of rows of an embedding that fits.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// SHA-256, in hexadecimal, of everything that decides how text becomes tokens, for cache keys.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Checks that a model with `model_vocabulary` embeddings knows every token.
    ///
    /// # Errors
    /// If the tokenizer has ids beyond the model's.
    pub fn check_vocabulary(&self, model_vocabulary: usize) -> Result<()> {
        if self.vocabulary <= model_vocabulary {
            return Ok(());
        }
        Err(Problem::input(format!(
            "the tokenizer has token ids up to {}, the model embeddings for {model_vocabulary}",
            self.vocabulary - 1
        ))
        .place(self.folder.join("tokenizer.json").display().to_string())
        .hint("tokenizer and model belong to different models; take both from one folder"))
    }

    /// Copies the tokenizer's files into a model folder that is being written.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        for name in FILES {
            let from = self.folder.join(name);
            if from.exists() {
                let to = folder.join(name);
                fs::copy(&from, &to).map_err(|error| Problem::io("write", &to, &error))?;
            }
        }
        Ok(())
    }
}

/// Turns tokens that come one by one into pieces of text, never splitting a character.
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The last tokens. The one before the first unseen token stays, since decoders treat the beginning of a text
    /// in their own ways.
    ids: Vec<u32>,
    /// Bytes of the text of `ids` that were returned.
    sent: usize,
}

impl StreamDecoder<'_> {
    /// Takes a token and returns the text that is certain by now, often empty.
    pub fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.text();
        // Replacement characters at the end may be the first bytes of a character whose rest is still to come.
        let certain = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let fresh = certain.get(self.sent..).unwrap_or_default().to_owned();
        self.sent = self.sent.max(certain.len());
        let alone = self.tokenizer.decode(&[id], self.skip_special);
        // A token without text would not tell the next one that it is not the first.
        if certain.len() == text.len() && !alone.is_empty() {
            self.ids = vec![id];
            self.sent = alone.len();
        }
        fresh
    }

    /// The rest, broken characters included.
    pub fn finish(self) -> String {
        self.text().get(self.sent..).unwrap_or_default().to_owned()
    }

    fn text(&self) -> String {
        self.tokenizer.decode(&self.ids, self.skip_special)
    }
}

fn unencodable(error: &tokenizers::Error) -> Problem {
    Problem::input(format!("the text cannot be tokenized: {error}"))
}

fn no_tokenizer(folder: &Path) -> Problem {
    let problem = Problem::input("tokenizer.json is missing").place(folder.display().to_string());
    let has = |name: &str| folder.join(name).exists();
    if !folder.is_dir() {
        problem.hint("the model folder does not exist; check the path")
    } else if has("tokenizer.model") || has("vocab.json") {
        problem.hint(
            "the folder holds a tokenizer of an older kind; loading it once with transformers' \
             AutoTokenizer.from_pretrained(...) and save_pretrained(...) writes tokenizer.json",
        )
    } else {
        problem.hint("copy it from the folder of the model that this one was made from")
    }
}

fn json_file(path: &Path) -> Result<Value> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(error) => return Err(Problem::io("read", path, &error)),
    };
    serde_json::from_str(&text).map_err(|error| {
        Problem::input(format!("broken JSON: {error}"))
            .at(path, error.line(), Some(error.column()))
            .hint("the file may be cut short; download it again")
    })
}

/// A special token's name, which is a string or an object with `content`.
fn token_name(settings: &Value, name: &str) -> Option<String> {
    let token = settings.get(name)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// One id or a list of ids.
fn ids(config: &Value, name: &str) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match config.get(name) {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// The folder's chat template and its origin: `chat_template.jinja`, else `chat_template.json`, else
/// `tokenizer_config.json`, where it may be one of several.
fn own_template(folder: &Path, settings: &Value) -> Result<Option<(String, String)>> {
    let path = folder.join("chat_template.jinja");
    match fs::read_to_string(&path) {
        Ok(text) => return Ok(Some((text, path.display().to_string()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Problem::io("read", &path, &error)),
    }
    let path = folder.join("chat_template.json");
    let file = json_file(&path)?;
    let (found, path) = match file.get("chat_template") {
        Some(found) => (found, path),
        None => match settings.get("chat_template") {
            Some(found) => (found, folder.join("tokenizer_config.json")),
            None => return Ok(None),
        },
    };
    let text = match found {
        Value::Array(several) => {
            let named = |name: &str| several.iter().find(|one| one["name"] == name);
            named("default").and_then(|one| one["template"].as_str())
        }
        one => one.as_str(),
    };
    Ok(text.map(|text| (text.to_owned(), path.display().to_string())))
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
pub(crate) mod tests;
