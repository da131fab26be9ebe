//! Architectures: what a `config.json` of a Hugging Face model folder says of the network to build.
//!
//! Llama (and Mistral without a sliding window), Qwen2/2.5, Qwen3 and GPT-2. Anything that would change the numbers
//! and is not implemented here is an error, never ignored.

use std::path::Path;

use polo_nn::{attention::Heads, ops::Norm};
use polo_run::{Problem, Result};
use serde_json::{Map, Value, json};

/// Families of networks, by their `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 1 to 3, and Mistral.
    Llama,
    /// Qwen 2 and 2.5: biases on q, k and v.
    Qwen2,
    /// Qwen 3: norms on q and k.
    Qwen3,
    /// GPT-2.
    Gpt2,
}

/// How a token knows its position.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Rotary embeddings with these angular frequencies, `[head / 2]`.
    Rotary(Vec<f32>),
    /// A learned vector for each of so many positions.
    Learned(usize),
}

/// The numbers that determine a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Family.
    pub family: Family,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: Heads,
    /// Width inside the MLP.
    pub inner: usize,
    /// Normalisation.
    pub norm: Norm,
    /// Positions.
    pub positions: Positions,
    /// Biases on q, k, v.
    pub query_bias: bool,
    /// Bias on the attention's output.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// Norms on the heads of q and k.
    pub query_norm: bool,
    /// Whether the output head is the embedding table.
    pub tied: bool,
    /// Longest sequence, in tokens.
    pub context: usize,
}

struct Reader<'a> {
    path: &'a Path,
    keys: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn problem(&self, key: &str, what: impl std::fmt::Display) -> Problem {
        Problem::input(format!("`{key}` {what}")).place(self.path.display().to_string())
    }

    fn number(&self, key: &str) -> Result<usize> {
        match self.optional_number(key)? {
            Some(number) => Ok(number),
            None => Err(self
                .problem(key, "is missing")
                .hint("is this the config.json of a causal language model?")),
        }
    }

    fn optional_number(&self, key: &str) -> Result<Option<usize>> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if (1..=1 << 31).contains(&number) => Ok(Some(number as usize)),
                _ => Err(self.problem(key, format_args!("is {value}, not a whole number of at least 1"))),
            },
        }
    }

    fn float(&self, key: &str, default: f64) -> Result<f64> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                value.as_f64().ok_or_else(|| self.problem(key, format_args!("is {value}, not a number")))
            }
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| self.problem(key, format_args!("is {value}, not true or false"))),
        }
    }

    fn must_be(&self, key: &str, allowed: &[&str], default: &str) -> Result<()> {
        let value = match self.keys.get(key) {
            None | Some(Value::Null) => default,
            Some(value) => value.as_str().unwrap_or("not a string"),
        };
        if allowed.contains(&value) {
            return Ok(());
        }
        Err(self
            .problem(key, format_args!("is `{value}`, which polo does not implement"))
            .hint(format!("supported: {}", allowed.join(", "))))
    }
}

impl Architecture {
    /// Reads an architecture from the keys of a `config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// A family, activation or position scaling that is not implemented, or keys that do not fit together.
    pub fn read(config: &Value, path: &Path) -> Result<Self> {
        let keys = config
            .as_object()
            .ok_or_else(|| Problem::input("not a JSON object").place(path.display().to_string()))?;
        let reader = Reader { path, keys };
        let family = match keys.get("model_type").and_then(Value::as_str) {
            Some("llama" | "mistral") => Family::Llama,
            Some("qwen2") => Family::Qwen2,
            Some("qwen3") => Family::Qwen3,
            Some("gpt2") => Family::Gpt2,
            other => {
                let other = other.unwrap_or("missing");
                return Err(reader
                    .problem("model_type", format_args!("is `{other}`, a family that polo does not have yet"))
                    .hint("supported: llama, mistral, qwen2, qwen3, gpt2"));
            }
        };
        match family {
            Family::Gpt2 => Self::gpt2(&reader),
            _ => Self::llama(&reader, family),
        }
    }

    fn llama(reader: &Reader, family: Family) -> Result<Self> {
        reader.must_be("hidden_act", &["silu", "swish"], "silu")?;
        let mistral = reader.keys.get("model_type").and_then(Value::as_str) == Some("mistral");
        let windowed = match family {
            Family::Llama => mistral && reader.keys.get("sliding_window").is_some_and(|w| !w.is_null()),
            _ => reader.flag("use_sliding_window", false)?,
        };
        if windowed {
            return Err(reader
                .problem("sliding_window", "is on, and polo has full attention only")
                .hint("for sequences shorter than the window, set it to null: the numbers are the same"));
        }
        let (width, queries) = (reader.number("hidden_size")?, reader.number("num_attention_heads")?);
        let keys = reader.optional_number("num_key_value_heads")?.unwrap_or(queries);
        let head = reader.optional_number("head_dim")?.unwrap_or(width / queries);
        if queries % keys != 0 || head == 0 || head % 2 != 0 {
            return Err(reader.problem(
                "num_attention_heads",
                format_args!(
                    "is {queries}, with {keys} key-value heads of width {head}: these do not fit together"
                ),
            ));
        }
        let context = reader.optional_number("max_position_embeddings")?.unwrap_or(2048);
        Ok(Self {
            family,
            vocabulary: reader.number("vocab_size")?,
            width,
            layers: reader.number("num_hidden_layers")?,
            heads: Heads { queries, keys, width: head },
            inner: reader.number("intermediate_size")?,
            norm: Norm::Rms { epsilon: reader.float("rms_norm_eps", 1e-6)? as f32 },
            positions: Positions::Rotary(frequencies(reader, head)?),
            query_bias: reader.flag("attention_bias", family == Family::Qwen2)? || family == Family::Qwen2,
            output_bias: reader.flag("attention_bias", false)? && family != Family::Qwen2,
            mlp_bias: reader.flag("mlp_bias", false)? && family == Family::Llama,
            query_norm: family == Family::Qwen3,
            tied: reader.flag("tie_word_embeddings", false)?,
            context,
        })
    }

    fn gpt2(reader: &Reader) -> Result<Self> {
        reader.must_be("activation_function", &["gelu_new", "gelu_pytorch_tanh"], "gelu_new")?;
        for (key, usual) in [
            ("scale_attn_weights", true),
            ("scale_attn_by_inverse_layer_idx", false),
            ("add_cross_attention", false),
        ] {
            if reader.flag(key, usual)? != usual {
                return Err(reader.problem(key, format_args!("is {}, which polo does not implement", !usual)));
            }
        }
        let (width, queries) = (reader.number("n_embd")?, reader.number("n_head")?);
        if width % queries != 0 {
            return Err(
                reader.problem("n_head", format_args!("is {queries}, which does not divide n_embd {width}"))
            );
        }
        let context = reader.number("n_positions")?;
        Ok(Self {
            family: Family::Gpt2,
            vocabulary: reader.number("vocab_size")?,
            width,
            layers: reader.number("n_layer")?,
            heads: Heads { queries, keys: queries, width: width / queries },
            inner: reader.optional_number("n_inner")?.unwrap_or(4 * width),
            norm: Norm::Layer { epsilon: reader.float("layer_norm_epsilon", 1e-5)? as f32 },
            positions: Positions::Learned(context),
            query_bias: true,
            output_bias: true,
            mlp_bias: true,
            query_norm: false,
            tied: reader.flag("tie_word_embeddings", true)?,
            context,
        })
    }
}

/// Angular frequencies θ^(−2i/head), scaled as the configuration says (Llama 3's rule or linear interpolation).
fn frequencies(reader: &Reader, head: usize) -> Result<Vec<f32>> {
    let new = reader.keys.get("rope_parameters").filter(|value| value.is_object());
    let scaling = new.or_else(|| reader.keys.get("rope_scaling").filter(|value| value.is_object()));
    let empty = Map::new();
    let rope = Reader { path: reader.path, keys: scaling.and_then(Value::as_object).unwrap_or(&empty) };
    let theta = match rope.keys.get("rope_theta") {
        Some(_) => rope.float("rope_theta", 1e4)?,
        None => reader.float("rope_theta", 1e4)?,
    };
    if rope.float("partial_rotary_factor", 1.0)? != 1.0 || reader.float("partial_rotary_factor", 1.0)? != 1.0
    {
        return Err(reader.problem("partial_rotary_factor", "is not 1, which polo does not implement"));
    }
    let mut frequencies: Vec<f32> =
        (0..head / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / head as f32)).collect();
    let kind = rope.keys.get("rope_type").or_else(|| rope.keys.get("type")).and_then(Value::as_str);
    match kind.unwrap_or("default") {
        "default" => {}
        "linear" => {
            let factor = rope.float("factor", 1.0)? as f32;
            frequencies.iter_mut().for_each(|f| *f /= factor);
        }
        "llama3" => {
            let factor = rope.float("factor", 8.0)? as f32;
            let (low, high) =
                (rope.float("low_freq_factor", 1.0)? as f32, rope.float("high_freq_factor", 4.0)? as f32);
            let original = rope.number("original_max_position_embeddings")? as f32;
            for f in &mut frequencies {
                let wavelength = 2.0 * std::f32::consts::PI / *f;
                if wavelength > original / low {
                    *f /= factor;
                } else if wavelength >= original / high {
                    let smooth = (original / wavelength - low) / (high - low);
                    *f = (1.0 - smooth) * *f / factor + smooth * *f;
                }
            }
        }
        other => {
            return Err(reader
                .problem("rope_type", format_args!("is `{other}`, which polo does not implement"))
                .hint("supported: default, linear, llama3"));
        }
    }
    Ok(frequencies)
}

/// Sizes of a brand-new model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// 2 layers of width 64: learns toy tasks in seconds.
    Tiny,
    /// 6 layers of width 256, about 5 million parameters with 4,096 tokens: minutes on two cores.
    Small,
    /// 8 layers of width 320, about 10 million parameters with 4,096 tokens.
    Medium,
    /// 12 layers of width 768, about 100 million parameters: for a GPU.
    Base,
}

/// The `config.json` of a new model of a family.
pub fn new_config(
    family: Family,
    preset: Preset,
    vocabulary: usize,
    context: usize,
    bos: Option<u32>,
    eos: u32,
) -> Value {
    let (layers, width, heads, keys, inner) = match preset {
        Preset::Tiny => (2, 64, 4, 4, 176),
        Preset::Small => (6, 256, 8, 4, 704),
        Preset::Medium => (8, 320, 10, 5, 864),
        Preset::Base => (12, 768, 12, 12, 2048),
    };
    let mut config = match family {
        Family::Gpt2 => json!({
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": width, "n_head": heads,
            "n_layer": layers, "n_positions": context, "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        }),
        _ => json!({
            "architectures": [match family { Family::Qwen2 => "Qwen2ForCausalLM", Family::Qwen3 => "Qwen3ForCausalLM", _ => "LlamaForCausalLM" }],
            "model_type": match family { Family::Qwen2 => "qwen2", Family::Qwen3 => "qwen3", _ => "llama" },
            "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": keys, "head_dim": width / heads, "intermediate_size": inner,
            "hidden_act": "silu", "max_position_embeddings": context, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "attention_bias": false, "tie_word_embeddings": true,
        }),
    };
    config["vocab_size"] = json!(vocabulary);
    config["bos_token_id"] = json!(bos);
    config["eos_token_id"] = json!(eos);
    config["torch_dtype"] = json!("float32");
    config["initializer_range"] = json!(0.02);
    config
}
