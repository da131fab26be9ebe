//! Makes new tokenizers and writes them as Hugging Face folders.
//!
//! `polo init-model` trains a byte-level BPE vocabulary on the user's texts; synthetic tasks use a vocabulary of
//! given symbols. transformers' `AutoTokenizer` loads both.

use std::{fs, path::Path};

use polo_run::{Problem, Result};
use serde_json::json;
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, TokenizerImpl,
    decoders::{DecoderWrapper, byte_level::ByteLevel, fuse::Fuse},
    models::{
        ModelWrapper,
        bpe::{BPE, BpeTrainer},
        wordlevel::WordLevel,
    },
    pre_tokenizers::{
        split::{Split, SplitPattern},
        whitespace::WhitespaceSplit,
    },
    processors::template::TemplateProcessing,
};

use crate::chat::DEFAULT_TEMPLATE;

/// The special tokens of a new vocabulary; they get the first ids, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSpecials {
    /// Beginning of text, put before every text; none to do without.
    pub bos: Option<String>,
    /// End of text.
    pub eos: String,
    /// Padding.
    pub pad: String,
    /// What a vocabulary of symbols makes of an unknown one.
    pub unk: String,
    /// Others, e.g. markers of a task.
    pub more: Vec<String>,
}

impl Default for NewSpecials {
    fn default() -> Self {
        Self {
            bos: Some("<|begin|>".into()),
            eos: "<|end|>".into(),
            pad: "<|pad|>".into(),
            unk: "<|unknown|>".into(),
            more: Vec::new(),
        }
    }
}

/// How a vocabulary of symbols cuts a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbols {
    /// White space stands between symbols; decoding puts one space there.
    Words,
    /// Every character is a symbol.
    Characters,
}

type Any = tokenizers::Tokenizer;

/// Trains a byte-level BPE vocabulary (GPT-2's cutting into words) and writes it into `folder`, with
/// [`DEFAULT_TEMPLATE`] as chat template. The same texts give the same files. `specials.unk` is not used: bytes leave
/// nothing unknown.
///
/// `vocabulary` counts special tokens and the 256 bytes; with few texts, fewer tokens than asked for may come out.
///
/// # Errors
/// A vocabulary too small for the bytes and the special tokens; a folder that cannot be written.
pub fn train_bpe<I, S>(texts: I, vocabulary: usize, specials: &NewSpecials, folder: &Path) -> Result<usize>
where
    I: Iterator<Item = S> + Send,
    S: AsRef<str> + Send,
{
    let named: Vec<&String> =
        specials.bos.iter().chain([&specials.eos, &specials.pad]).chain(&specials.more).collect();
    let least = 256 + named.len();
    if vocabulary < least {
        return Err(Problem::usage(format!("a vocabulary of {vocabulary} tokens is too small"))
            .hint(format!("the 256 bytes and the special tokens alone take {least}")));
    }
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(named.iter().map(|name| special(name)).collect())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut tokenizer: TokenizerImpl<
        BPE,
        tokenizers::NormalizerWrapper,
        ByteLevel,
        TemplateProcessing,
        ByteLevel,
    > = TokenizerImpl::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.train(&mut trainer, texts).map_err(|error| cannot(&error))?;
    let mut any = Any::new(tokenizer.get_model().clone());
    any.with_pre_tokenizer(Some(ByteLevel::new(false, false, true)));
    any.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::default())));
    write(any, &named, specials, None, folder)
}

/// Writes a vocabulary of given symbols into `folder`. Ids: special tokens first, then the symbols in their order.
///
/// # Errors
/// A symbol given twice; a folder that cannot be written.
pub fn write_symbols(symbols: &[&str], cut: Symbols, specials: &NewSpecials, folder: &Path) -> Result<usize> {
    let named: Vec<&String> = specials
        .bos
        .iter()
        .chain([&specials.eos, &specials.pad, &specials.unk])
        .chain(&specials.more)
        .collect();
    let all = named.iter().map(|name| name.as_str()).chain(symbols.iter().copied());
    let vocabulary: serde_json::Map<_, _> =
        all.map(str::to_owned).zip((0..).map(|id: u32| json!(id))).collect();
    if vocabulary.len() != named.len() + symbols.len() {
        return Err(Problem::usage("a symbol of the vocabulary is given twice"));
    }
    let model = json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": specials.unk});
    let model: WordLevel = serde_json::from_str(&model.to_string()).map_err(|error| cannot(&error))?;
    let mut tokenizer = Any::new(ModelWrapper::from(model));
    match cut {
        Symbols::Words => {
            tokenizer.with_pre_tokenizer(Some(WhitespaceSplit));
        }
        Symbols::Characters => {
            let each = SplitPattern::Regex("(?s:.)".into());
            let split =
                Split::new(each, SplitDelimiterBehavior::Isolated, false).map_err(|error| cannot(&error))?;
            tokenizer.with_pre_tokenizer(Some(split));
            tokenizer.with_decoder(Some(DecoderWrapper::Fuse(Fuse::new())));
        }
    }
    write(tokenizer, &named, specials, Some(&specials.unk), folder)
}

/// Makes a tokenizer put these tokens, and no others, before and after every text.
pub(crate) fn surround(
    tokenizer: &mut Any,
    bos: Option<(String, u32)>,
    eos: Option<(String, u32)>,
) -> Result<()> {
    let name = |token: &Option<(String, u32)>| token.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let single = [name(&bos), vec!["$A".into()], name(&eos)].concat();
    let pair = [name(&bos), vec!["$A".into(), "$B".into()], name(&eos)].concat();
    let template = TemplateProcessing::builder()
        .try_single(single)
        .and_then(|builder| builder.try_pair(pair))
        .map_err(|error| cannot(&error))?
        .special_tokens(bos.into_iter().chain(eos).collect::<Vec<_>>())
        .build()
        .map_err(|error| cannot(&error))?;
    tokenizer.with_post_processor(Some(template));
    Ok(())
}

fn special(name: &str) -> AddedToken {
    AddedToken::from(name, true)
}

fn cannot(error: &dyn std::fmt::Display) -> Problem {
    Problem::input(format!("cannot make the tokenizer: {error}"))
}

fn write(
    mut tokenizer: Any,
    named: &[&String],
    specials: &NewSpecials,
    unk: Option<&String>,
    folder: &Path,
) -> Result<usize> {
    tokenizer.add_special_tokens(named.iter().map(|name| special(name))).map_err(|error| cannot(&error))?;
    if let Some(bos) = &specials.bos {
        let id = tokenizer.token_to_id(bos).unwrap_or_default();
        surround(&mut tokenizer, Some((bos.clone(), id)), None)?;
    }
    let text = tokenizer.to_string(true).map_err(|error| cannot(&error))?;
    let mut map = serde_json::Map::new();
    let tokens = [
        ("bos_token", specials.bos.as_ref()),
        ("eos_token", Some(&specials.eos)),
        ("pad_token", Some(&specials.pad)),
        ("unk_token", unk),
    ];
    for (key, name) in tokens {
        if let Some(name) = name {
            map.insert(key.into(), json!(name));
        }
    }
    let mut settings = map.clone();
    settings.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    settings.insert("clean_up_tokenization_spaces".into(), json!(false));
    let pretty = |map| serde_json::to_string_pretty(map).map_err(|error| cannot(&error));
    fs::create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
    for (name, content) in [
        ("tokenizer.json", text),
        ("special_tokens_map.json", pretty(&map)?),
        ("tokenizer_config.json", pretty(&settings)?),
        ("chat_template.jinja", DEFAULT_TEMPLATE.to_owned()),
    ] {
        let path = folder.join(name);
        fs::write(&path, content).map_err(|error| Problem::io("write", &path, &error))?;
    }
    Ok(tokenizer.get_vocab_size(true))
}
