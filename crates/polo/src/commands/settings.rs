//! From arguments to layers of settings, for every command that takes the settings of a method.
//!
//! A flag is a short way to say a setting: it becomes a layer above file and environment, under its own name, so that
//! an error says `--lora` and not some key that nobody typed.

use std::path::PathBuf;

use polo_run::{Problem, Result, config::Layers};

/// Variables of the environment that begin with `POLO_` and are no settings.
const RESERVED: &[&str] = &["POLO_PYTHON", "POLO_PYTHON_TIMEOUT"];

/// Where settings come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// A file of settings; `polo config METHOD` prints one to start from.
    #[arg(value_name = "CONFIG.toml")]
    config: Option<PathBuf>,
    /// One setting, e.g. training.learning_rate=1e-5; may be given many times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The model: a Hugging Face folder.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The environment, for methods of control: e.g. CartPole-v1, or gym:ID for one of Gymnasium's in Python.
    #[arg(long, value_name = "ID")]
    env: Option<String>,
    /// Training data: files, or folders of files; may be given many times.
    #[arg(long, visible_alias = "dataset", value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Held-out data; may be given many times.
    #[arg(long, value_name = "FILE")]
    val: Vec<PathBuf>,
    /// Train low-rank adapters instead of all weights, e.g. rank=16,alpha=32.
    #[arg(long, value_name = "KEY=VALUE,...")]
    lora: Option<String>,
    /// Where to compute: cpu, cuda, cuda:1, vulkan, ...
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Seed of every random draw.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl Args {
    /// Whether nothing was given at all.
    pub fn is_empty(&self) -> bool {
        self.config.is_none() && self.set.is_empty() && self.flags().is_ok_and(|flags| flags.is_empty())
    }

    /// All layers: the file, the environment of this process, the flags.
    ///
    /// # Errors
    /// [`polo_run::Kind::Usage`] if `--lora` is not a list of settings.
    pub fn layers(&self) -> Result<Layers> {
        Ok(Layers {
            file: self.config.clone(),
            environment: Layers::environment_from(std::env::vars_os(), RESERVED),
            flags: self.flags()?,
            sets: self.set.clone(),
        })
    }

    /// (key, value, flag) of the flags that were given.
    fn flags(&self) -> Result<Vec<(String, String, String)>> {
        let mut flags = Vec::new();
        let mut add = |key: &str, value: String, flag: &str| flags.push((key.into(), value, flag.into()));
        if let Some(path) = &self.model {
            add("model.path", path.display().to_string(), "--model");
        }
        for (key, paths, flag) in
            [("data.train", &self.data, "--data"), ("data.validation", &self.val, "--val")]
        {
            if !paths.is_empty() {
                add(key, list(paths), flag);
            }
        }
        if let Some(id) = &self.env {
            add("environment.id", id.clone(), "--env");
        }
        if let Some(device) = &self.device {
            add("model.device", device.clone(), "--device");
        }
        if let Some(seed) = self.seed {
            add("training.seed", seed.to_string(), "--seed");
        }
        for setting in self.lora.iter().flat_map(|lora| lora.split(',')) {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(Problem::usage(format!("`{setting}` is not KEY=VALUE"))
                    .place("--lora")
                    .hint("e.g. --lora rank=16,alpha=32"));
            };
            add(&format!("model.lora.{}", key.trim()), value.trim().into(), &format!("--lora {setting}"));
        }
        Ok(flags)
    }
}

/// Paths as a TOML list: a comma in a name separates nothing.
fn list(paths: &[PathBuf]) -> String {
    toml::Value::Array(paths.iter().map(|path| path.display().to_string().into()).collect()).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        settings: Args,
    }

    #[track_caller]
    fn check(arguments: &str, expected: &[(&str, &str, &str)]) {
        let program = Program::parse_from(["polo"].into_iter().chain(arguments.split(' ')));
        let flags = program.settings.flags().unwrap();
        let flags: Vec<_> = flags.iter().map(|(k, v, f)| (k.as_str(), v.as_str(), f.as_str())).collect();
        assert_eq!(flags, expected);
    }

    #[test]
    fn flags_become_layers_under_their_own_names() {
        check("run.toml --set a.b=1", &[]);
        check("--model m --seed 7", &[("model.path", "m", "--model"), ("training.seed", "7", "--seed")]);
        check("--data a,b.jsonl --data c", &[("data.train", r#"["a,b.jsonl", "c"]"#, "--data")]);
        check(
            "--lora rank=8,alpha=16",
            &[("model.lora.rank", "8", "--lora rank=8"), ("model.lora.alpha", "16", "--lora alpha=16")],
        );
    }

    #[test]
    fn a_list_of_adapters_that_is_none_is_refused() {
        let args = Args { lora: Some("16".into()), ..Args::default() };
        assert_eq!(args.layers().unwrap_err().hint_text(), Some("e.g. --lora rank=16,alpha=32"));
    }
}
