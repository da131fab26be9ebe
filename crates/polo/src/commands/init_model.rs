//! `polo init-model OUT --tokenizer-from DATA`: a brand-new model with random weights and a vocabulary made from the
//! user's texts, as a Hugging Face folder. With it every other command can be tried where no model can be downloaded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use polo_lm::{
    check::{RowKind, check},
    family::{Family, Preset, new_config},
    read::{ReadOptions, read_rows},
    rows::{CompletionRow, ListRow, PairRow, PromptRow, Row, StepRow, Text, UnpairedRow},
    tokens::Tokenizer,
    vocabulary::{NewSpecials, train_bpe},
    weights::{self, Format},
};
use polo_nn::device;
use polo_run::{Problem, Result, human, seed::Seeds};

use crate::output::{End, Output};

/// Make a new model with random weights and a vocabulary from your texts.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model folder to make.
    out: PathBuf,
    /// Data files whose texts make the vocabulary; may be given many times.
    #[arg(long, value_name = "FILE", required = true)]
    tokenizer_from: Vec<PathBuf>,
    /// Size of the network.
    #[arg(long, value_enum, default_value = "small")]
    preset: PresetArgument,
    /// Form of the network.
    #[arg(long, value_enum, default_value = "llama")]
    family: FamilyArgument,
    /// Tokens of the vocabulary, at most; 256 bytes and 3 special tokens among them.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    vocab: usize,
    /// Longest text, in tokens.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..))]
    context: u32,
    /// Seed of the weights.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PresetArgument {
    /// 2 layers of width 64: learns toy tasks in seconds.
    Tiny,
    /// 6 layers of width 256: minutes on two cores.
    Small,
    /// 8 layers of width 320: ten million parameters
    Medium,
    /// 12 layers of width 768: for a GPU.
    Base,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FamilyArgument {
    Llama,
    Qwen2,
    Qwen3,
    Gpt2,
}

/// Makes the model.
///
/// # Errors
/// Unusable data, a vocabulary too small for the bytes, a folder that is not empty or cannot be written.
pub fn run(args: &Args, output: &mut Output<'_>) -> Result<(), End> {
    let family = match args.family {
        FamilyArgument::Llama => Family::Llama,
        FamilyArgument::Qwen2 => Family::Qwen2,
        FamilyArgument::Qwen3 => Family::Qwen3,
        FamilyArgument::Gpt2 => Family::Gpt2,
    };
    let preset = match args.preset {
        PresetArgument::Tiny => Preset::Tiny,
        PresetArgument::Small => Preset::Small,
        PresetArgument::Medium => Preset::Medium,
        PresetArgument::Base => Preset::Base,
    };
    refuse_if_used(&args.out)?;
    let texts = texts(&args.tokenizer_from)?;
    fs::create_dir_all(&args.out).map_err(|error| Problem::io("create", &args.out, &error))?;
    let tokens = train_bpe(texts.into_iter(), args.vocab, &NewSpecials::default(), &args.out)?;
    let tokenizer = Tokenizer::load(&args.out)?;
    let eos = tokenizer.eos().ok_or_else(|| Problem::input("the new vocabulary has no end token"))?;
    let config = new_config(family, preset, tokens, args.context as usize, tokenizer.bos(), eos);
    let model = weights::init(&config, &Seeds::new(args.seed), &device::parse("cpu")?)?;
    weights::save(&model, &config, Format::F32, &args.out)?;
    let (parameters, _) = model.parameters.count();
    output.remark(&format!(
        "{}: {} parameters, {} tokens, context of {} tokens",
        args.out.display(),
        human::count(parameters as u64),
        human::count(tokens as u64),
        human::count(u64::from(args.context)),
    ));
    Ok(())
}

/// A model that is there already must not be lost.
fn refuse_if_used(folder: &Path) -> Result<()> {
    let used = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if used {
        return Err(Problem::usage(format!("the folder {} is not empty", folder.display()))
            .hint("choose a new folder for the model"));
    }
    Ok(())
}

/// All texts of data files, whatever their rows are.
fn texts(paths: &[PathBuf]) -> Result<Vec<String>> {
    let options = ReadOptions::default();
    match check(paths, None, &options, None)?.kind {
        RowKind::Pairs => texts_of::<PairRow>(paths, &options),
        RowKind::Completions => texts_of::<CompletionRow>(paths, &options),
        RowKind::Prompts => texts_of::<PromptRow>(paths, &options),
        RowKind::Lists => texts_of::<ListRow>(paths, &options),
        RowKind::Unpaired => texts_of::<UnpairedRow>(paths, &options),
        RowKind::Steps => texts_of::<StepRow>(paths, &options),
    }
}

fn texts_of<R: Row>(paths: &[PathBuf], options: &ReadOptions) -> Result<Vec<String>> {
    let rows = read_rows::<R>(paths, options)?.rows;
    let texts = rows.iter().flat_map(Row::texts);
    Ok(texts
        .flat_map(|(_, text)| match text {
            Text::Plain(text) => vec![text.clone()],
            Text::Conversation(turns) => turns.iter().map(|turn| turn.content.clone()).collect(),
        })
        .collect())
}
