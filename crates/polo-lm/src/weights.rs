//! Weight files: Hugging Face folders (`config.json`, single or sharded safetensors in f32, bf16 or f16) to models
//! and back, new random models, and LoRA adapters in PEFT's format.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use polo_nn::files::widen;
pub use polo_nn::files::{Format, Tensors, read_safetensors, write_safetensors};
use polo_nn::{
    Device, Tensor, host,
    ops::{Linear, LowRank, NormWeights},
    parameters::{Parameter, Parameters},
};
use polo_run::{Problem, Result, folder::write_atomic, seed::Seeds};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

use crate::{
    family::{Architecture, Family, Positions},
    model::{LanguageModel, Layer, Mlp},
};

/// A parameter's place in a weight file.
#[derive(Clone, Debug)]
struct Slot {
    /// Name in the file, without the family's optional prefix.
    file: String,
    /// Which third of the tensor's columns, for GPT-2's joined q, k, v.
    third: Option<usize>,
    /// GPT-2 stores `[in, out]`.
    transposed: bool,
    /// `[rows, columns]` of the parameter.
    shape: [usize; 2],
    /// Vectors have one dimension in the file.
    vector: bool,
}

impl Slot {
    fn name(&self) -> String {
        match self.third {
            Some(third) => format!("{}#{}", self.file, ["q", "k", "v"][third]),
            None => self.file.clone(),
        }
    }

    /// Shape of the whole tensor in the file.
    fn file_shape(&self) -> Vec<usize> {
        let [rows, columns] = self.shape;
        let rows = if self.third.is_some() { 3 * rows } else { rows };
        match (self.vector, self.transposed) {
            (true, _) => vec![if self.third.is_some() { 3 * columns } else { columns }],
            (false, true) => vec![columns, rows],
            (false, false) => vec![rows, columns],
        }
    }

    /// The parameter's numbers out of the file's tensor.
    fn take(&self, numbers: &[f32]) -> Vec<f32> {
        let [rows, columns] = self.shape;
        let third = self.third.unwrap_or(0);
        if self.vector {
            return numbers[third * columns..][..columns].to_vec();
        }
        if !self.transposed {
            return numbers[third * rows * columns..][..rows * columns].to_vec();
        }
        let stride = if self.third.is_some() { 3 * rows } else { rows };
        let mut out = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            out.extend((0..columns).map(|column| numbers[column * stride + third * rows + row]));
        }
        out
    }

    /// Writes the parameter's numbers into the file's tensor.
    fn put(&self, numbers: &[f32], file: &mut [f32]) {
        let [rows, columns] = self.shape;
        let third = self.third.unwrap_or(0);
        if self.vector {
            file[third * columns..][..columns].copy_from_slice(numbers);
        } else if !self.transposed {
            file[third * rows * columns..][..rows * columns].copy_from_slice(numbers);
        } else {
            let stride = if self.third.is_some() { 3 * rows } else { rows };
            for row in 0..rows {
                for column in 0..columns {
                    file[column * stride + third * rows + row] = numbers[row * columns + column];
                }
            }
        }
    }
}

/// Lays out a model; `source` gives each parameter's numbers.
struct Builder<'a> {
    parameters: Parameters,
    device: &'a Device,
    source: &'a mut dyn FnMut(&Slot) -> Result<Vec<f32>>,
}

impl Builder<'_> {
    fn push(&mut self, slot: Slot) -> Result<usize> {
        let numbers = (self.source)(&slot)?;
        Ok(self.parameters.push(Parameter {
            name: slot.name(),
            value: host::tensor(numbers, slot.shape, self.device),
            trainable: true,
            decays: !slot.vector,
        }))
    }

    fn matrix(&mut self, file: String, shape: [usize; 2]) -> Result<usize> {
        self.push(Slot { file, third: None, transposed: false, shape, vector: false })
    }

    fn norm(&mut self, module: &str, width: usize, shift: bool) -> Result<NormWeights> {
        let vector =
            |file: String| Slot { file, third: None, transposed: false, shape: [1, width], vector: true };
        let scale = self.push(vector(format!("{module}.weight")))?;
        let shift = if shift { Some(self.push(vector(format!("{module}.bias")))?) } else { None };
        Ok(NormWeights { scale, shift })
    }

    fn linear(&mut self, module: String, shape: [usize; 2], bias: bool, gpt2: bool) -> Result<Linear> {
        self.part(module, shape, bias, gpt2, None)
    }

    fn part(
        &mut self,
        module: String,
        shape: [usize; 2],
        bias: bool,
        transposed: bool,
        third: Option<usize>,
    ) -> Result<Linear> {
        let weight =
            self.push(Slot { file: format!("{module}.weight"), third, transposed, shape, vector: false })?;
        let bias = if bias {
            let shape = [1, shape[0]];
            let file = format!("{module}.bias");
            Some(self.push(Slot { file, third, transposed: false, shape, vector: true })?)
        } else {
            None
        };
        Ok(Linear { weight, bias, low_rank: None })
    }
}

/// The tensor of a readout, named as in transformers' models for sequence classification.
const READOUT: &str = "score.weight";

fn build(
    architecture: Architecture,
    device: &Device,
    source: &mut dyn FnMut(&Slot) -> Result<Vec<f32>>,
) -> Result<LanguageModel> {
    let a = &architecture;
    let mut b = Builder { parameters: Parameters::default(), device, source };
    let gpt2 = a.family == Family::Gpt2;
    let (embedding_name, head_name, final_name) = match gpt2 {
        true => ("wte.weight", "lm_head.weight", "ln_f"),
        false => ("model.embed_tokens.weight", "lm_head.weight", "model.norm"),
    };
    let embedding = b.matrix(embedding_name.into(), [a.vocabulary, a.width])?;
    let positions = match a.positions {
        Positions::Learned(count) => Some(b.matrix("wpe.weight".into(), [count, a.width])?),
        Positions::Rotary(_) => None,
    };
    let (q_width, k_width) = (a.heads.queries * a.heads.width, a.heads.keys * a.heads.width);
    let mut layers = Vec::with_capacity(a.layers);
    for n in 0..a.layers {
        layers.push(if gpt2 {
            let m = |part: &str| format!("h.{n}.{part}");
            Layer {
                attention_norm: b.norm(&m("ln_1"), a.width, true)?,
                query: b.part(m("attn.c_attn"), [a.width, a.width], true, true, Some(0))?,
                key: b.part(m("attn.c_attn"), [a.width, a.width], true, true, Some(1))?,
                value: b.part(m("attn.c_attn"), [a.width, a.width], true, true, Some(2))?,
                head_norms: None,
                output: b.linear(m("attn.c_proj"), [a.width, a.width], true, true)?,
                mlp_norm: b.norm(&m("ln_2"), a.width, true)?,
                mlp: Mlp::Gelu {
                    up: b.linear(m("mlp.c_fc"), [a.inner, a.width], true, true)?,
                    down: b.linear(m("mlp.c_proj"), [a.width, a.inner], true, true)?,
                },
            }
        } else {
            let m = |part: &str| format!("model.layers.{n}.{part}");
            Layer {
                attention_norm: b.norm(&m("input_layernorm"), a.width, false)?,
                query: b.linear(m("self_attn.q_proj"), [q_width, a.width], a.query_bias, false)?,
                key: b.linear(m("self_attn.k_proj"), [k_width, a.width], a.query_bias, false)?,
                value: b.linear(m("self_attn.v_proj"), [k_width, a.width], a.query_bias, false)?,
                head_norms: match a.query_norm {
                    true => Some((
                        b.norm(&m("self_attn.q_norm"), a.heads.width, false)?,
                        b.norm(&m("self_attn.k_norm"), a.heads.width, false)?,
                    )),
                    false => None,
                },
                output: b.linear(m("self_attn.o_proj"), [a.width, q_width], a.output_bias, false)?,
                mlp_norm: b.norm(&m("post_attention_layernorm"), a.width, false)?,
                mlp: Mlp::SwiGlu {
                    gate: b.linear(m("mlp.gate_proj"), [a.inner, a.width], a.mlp_bias, false)?,
                    up: b.linear(m("mlp.up_proj"), [a.inner, a.width], a.mlp_bias, false)?,
                    down: b.linear(m("mlp.down_proj"), [a.width, a.inner], a.mlp_bias, false)?,
                },
            }
        });
    }
    let final_norm = b.norm(final_name, a.width, gpt2)?;
    let head = match a.tied {
        true => embedding,
        false => b.matrix(head_name.into(), [a.vocabulary, a.width])?,
    };
    let parameters = b.parameters;
    Ok(LanguageModel {
        device: device.clone(),
        parameters,
        embedding,
        positions,
        layers,
        final_norm,
        head,
        readout: None,
        architecture,
    })
}

/// A model folder that was opened: the model, its `config.json` as it came, and the number format of its files.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub model: LanguageModel,
    /// `config.json`, whole.
    pub config: Value,
    /// Number format of the weight files.
    pub format: Format,
}

/// Reads `config.json` of a model folder.
///
/// # Errors
/// Not a folder, no `config.json`, or not JSON.
pub fn read_config(folder: &Path) -> Result<Value> {
    if !folder.is_dir() {
        return Err(Problem::input(format!("{} is not a folder", folder.display()))
            .hint("give a Hugging Face model folder (config.json, model.safetensors, tokenizer.json), or make one: polo init-model"));
    }
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(|error| Problem::io("read", &path, &error))?;
    serde_json::from_str(&text).map_err(|error| {
        Problem::input(format!("not valid JSON: {error}")).at(&path, error.line(), Some(error.column()))
    })
}

/// Opens a Hugging Face model folder, or a PEFT folder of LoRA adapters (merged into its base), on `device`. Numbers
/// are widened to f32.
///
/// # Errors
/// Missing, truncated or renamed files; tensors that are missing, of the wrong shape or not finite.
pub fn load(folder: &Path, device: &Device) -> Result<Loaded> {
    if folder.join("adapter_config.json").is_file() && !folder.join("config.json").exists() {
        return load_adapter(folder, device);
    }
    let config = read_config(folder)?;
    let architecture = Architecture::read(&config, &folder.join("config.json"))?;
    let files = weight_files(folder)?;
    let mut buffers = Vec::with_capacity(files.len());
    for path in &files {
        buffers.push(fs::read(path).map_err(|error| Problem::io("read", path, &error))?);
    }
    let mut tensors: HashMap<String, (&Path, TensorView)> = HashMap::new();
    for (path, buffer) in files.iter().zip(&buffers) {
        let parsed = SafeTensors::deserialize(buffer).map_err(|error| {
            Problem::input(format!("not a whole safetensors file: {error}"))
                .place(path.display().to_string())
                .hint("the file is truncated or damaged; copy or download it again")
        })?;
        for (name, view) in parsed.tensors() {
            let name = name.strip_prefix("transformer.").map(str::to_owned).unwrap_or(name);
            tensors.insert(name, (path, view));
        }
    }
    let mut format = Format::F32;
    let mut widened: Option<(String, Vec<f32>)> = None;
    let mut source = |slot: &Slot| -> Result<Vec<f32>> {
        let Some((path, view)) = tensors.get(&slot.file) else {
            let near = tensors.keys().min_by_key(|name| (strsim::levenshtein(name, &slot.file), *name));
            let near = near.map_or_else(String::new, |near| format!("the nearest name there is `{near}`; "));
            return Err(Problem::input(format!("tensor `{}` is missing", slot.file))
                .place(folder.display().to_string())
                .hint(format!("{near}config.json must describe these weights")));
        };
        if view.shape() != slot.file_shape() {
            return Err(Problem::input(format!(
                "tensor `{}` has shape {:?}, config.json asks for {:?}",
                slot.file,
                view.shape(),
                slot.file_shape()
            ))
            .place(path.display().to_string())
            .hint("config.json and the weights belong to different models"));
        }
        // The three parts of a joined tensor come one after another: widen it once.
        if widened.as_ref().is_none_or(|(name, _)| *name != slot.file) {
            let (found, numbers) = widen(view).ok_or_else(|| {
                Problem::input(format!("tensor `{}` holds {:?} numbers", slot.file, view.dtype()))
                    .place(path.display().to_string())
                    .hint("supported: F32, BF16, F16; quantised weights must be dequantised first")
            })?;
            format = found;
            if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
                return Err(Problem::input(format!(
                    "tensor `{}` is {} at element {at}",
                    slot.file, numbers[at]
                ))
                .place(path.display().to_string())
                .hint("these weights are damaged or come from a diverged training"));
            }
            widened = Some((slot.file.clone(), numbers));
        }
        Ok(widened.as_ref().map(|(_, numbers)| slot.take(numbers)).unwrap_or_default())
    };
    let mut architecture = architecture;
    let readout = tensors.get(READOUT).map(|(_, view)| view.shape().to_vec());
    if readout.is_some() && !tensors.contains_key("lm_head.weight") {
        // A classifier needs no head over the vocabulary.
        architecture.tied = true;
    }
    let width = architecture.width;
    let mut model = build(architecture, device, &mut source)?;
    if let Some(shape) = readout {
        let outputs = shape.first().copied().unwrap_or(0);
        let slot = Slot {
            file: READOUT.into(),
            third: None,
            transposed: false,
            shape: [outputs, width],
            vector: false,
        };
        let weight = source(&slot)?;
        model.set_readout("score", outputs, weight, false);
    }
    Ok(Loaded { model, config, format })
}

/// Opens a PEFT folder: the base that it names, with the adapters merged.
fn load_adapter(folder: &Path, device: &Device) -> Result<Loaded> {
    let path = folder.join("adapter_config.json");
    let text = fs::read_to_string(&path).map_err(|error| Problem::io("read", &path, &error))?;
    let config: Value = serde_json::from_str(&text).map_err(|error| {
        Problem::input(format!("not valid JSON: {error}")).at(&path, error.line(), Some(error.column()))
    })?;
    let wrong = |key: &str| {
        Problem::input(format!("`{key}` is missing or of the wrong type")).place(path.display().to_string())
    };
    let base = config["base_model_name_or_path"].as_str().ok_or_else(|| wrong("base_model_name_or_path"))?;
    let rank = config["r"].as_u64().filter(|&r| r > 0).ok_or_else(|| wrong("r"))? as usize;
    let alpha = config["lora_alpha"].as_f64().ok_or_else(|| wrong("lora_alpha"))?;
    let targets = config["target_modules"].as_array().ok_or_else(|| wrong("target_modules"))?;
    let targets = targets.iter().filter_map(|target| target.as_str().map(str::to_owned)).collect();
    let mut loaded = load(Path::new(base), device)
        .map_err(|problem| problem.hint(format!("{} builds on this model folder", folder.display())))?;
    loaded.model.add_low_rank(&Lora { rank, alpha, targets }, &Seeds::new(0))?;
    let file = folder.join("adapter_model.safetensors");
    let mut tensors = read_safetensors(&file)?;
    for parameter in loaded.model.parameters.iter_mut().filter(|parameter| parameter.trainable) {
        let name = parameter.name.replacen("base_model.model.h.", "base_model.model.transformer.h.", 1);
        let Some((shape, numbers)) = tensors.remove(&name) else {
            return Err(
                Problem::input(format!("tensor `{name}` is missing")).place(file.display().to_string())
            );
        };
        if shape != parameter.value.dims() || numbers.iter().any(|x| !x.is_finite()) {
            return Err(Problem::input(format!(
                "tensor `{name}` has shape {shape:?} or numbers that do not fit the base"
            ))
            .place(file.display().to_string()));
        }
        parameter.value = host::tensor(numbers, parameter.value.dims(), device);
    }
    loaded.model.merge_low_rank();
    Ok(loaded)
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    let text = match fs::read_to_string(&index) {
        Ok(text) => text,
        Err(_) => {
            let other = fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .find(|name| name.ends_with(".safetensors") || name.ends_with(".bin"));
            let hint = match other {
                Some(name) if name.ends_with(".bin") => {
                    format!("`{name}` is a pickle file: convert it, e.g. with transformers' save_pretrained")
                }
                Some(name) => format!("there is `{name}`: rename it to model.safetensors"),
                None => "a model folder holds model.safetensors, or shards with model.safetensors.index.json"
                    .into(),
            };
            return Err(Problem::input("no weights: model.safetensors is missing")
                .place(folder.display().to_string())
                .hint(hint));
        }
    };
    let parsed: Value = serde_json::from_str(&text).map_err(|error| {
        Problem::input(format!("not valid JSON: {error}")).at(&index, error.line(), Some(error.column()))
    })?;
    let map = parsed
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| Problem::input("`weight_map` is missing").place(index.display().to_string()))?;
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let mut files = Vec::new();
    for name in names {
        let path = folder.join(name);
        if Path::new(name).components().count() != 1 || !path.is_file() {
            return Err(Problem::input(format!("shard `{name}` is missing"))
                .place(index.display().to_string())
                .hint("all files that the index names must lie beside it"));
        }
        files.push(path);
    }
    Ok(files)
}

/// A new model with random weights: normal with the configuration's `initializer_range`, norms one, biases zero.
///
/// # Errors
/// A configuration that does not describe a network.
pub fn init(config: &Value, seeds: &Seeds, device: &Device) -> Result<LanguageModel> {
    let architecture = Architecture::read(config, Path::new("config.json"))?;
    let deviation = config.get("initializer_range").and_then(Value::as_f64).unwrap_or(0.02) as f32;
    build(architecture, device, &mut |slot| {
        let count = slot.shape[0] * slot.shape[1];
        Ok(if !slot.vector {
            let mut numbers = seeds.normal(count, &slot.name(), 0);
            numbers.iter_mut().for_each(|x| *x *= deviation);
            numbers
        } else if slot.file.ends_with(".bias") {
            vec![0.0; count]
        } else {
            vec![1.0; count]
        })
    })
}

/// Writes `config.json` and `model.safetensors` of a model into an existing folder, LoRA merged into the weights.
///
/// # Errors
/// The folder cannot be written.
pub fn save(model: &LanguageModel, config: &Value, format: Format, folder: &Path) -> Result<()> {
    let mut config = config.clone();
    let name = match format {
        Format::F32 => "float32",
        Format::Bf16 => "bfloat16",
        Format::F16 => "float16",
    };
    if config.get("dtype").is_some() {
        config["dtype"] = json!(name);
    } else {
        config["torch_dtype"] = json!(name);
    }
    let mut merged = model.clone();
    merged.merge_low_rank();
    let gpt2 = model.architecture.family == Family::Gpt2;
    let mut tensors: Tensors = BTreeMap::new();
    // Walking the layout again with the present values as its source visits every slot with its parameter.
    let mut values =
        merged.parameters.iter().map(|p| host::numbers(&p.value)).collect::<Vec<_>>().into_iter();
    build(model.architecture.clone(), &Device::flex(), &mut |slot| {
        let numbers = values.next().unwrap_or_default();
        let file = if gpt2 && slot.file != "lm_head.weight" {
            format!("transformer.{}", slot.file)
        } else {
            slot.file.clone()
        };
        let shape = slot.file_shape();
        let size = shape.iter().product();
        let entry = tensors.entry(file).or_insert_with(|| (shape, vec![0.0; size]));
        slot.put(&numbers, &mut entry.1);
        Ok(numbers)
    })?;
    if let Some(readout) = &model.readout {
        let ids = [Some(readout.linear.weight), readout.linear.bias];
        for parameter in ids.into_iter().flatten().filter_map(|id| model.parameters.iter().nth(id)) {
            let [rows, columns] = parameter.value.dims();
            let shape = if parameter.decays { vec![rows, columns] } else { vec![columns] };
            tensors.insert(parameter.name.clone(), (shape, host::numbers(&parameter.value)));
        }
        config["architectures"] = json!([match model.architecture.family {
            Family::Llama => "LlamaForSequenceClassification",
            Family::Qwen2 => "Qwen2ForSequenceClassification",
            Family::Qwen3 => "Qwen3ForSequenceClassification",
            Family::Gpt2 => "GPT2ForSequenceClassification",
        }]);
        config["num_labels"] = json!(readout.outputs);
    }
    write_safetensors(&folder.join("model.safetensors"), &tensors, format)?;
    let text = serde_json::to_string_pretty(&config).unwrap_or_default() + "\n";
    write_atomic(&folder.join("config.json"), text.as_bytes())
}

/// Settings of a LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rank r.
    pub rank: usize,
    /// alpha; the change is scaled by alpha / r.
    pub alpha: f64,
    /// Last parts of the module names that get an adapter, e.g. `q_proj`; empty for every linear layer.
    pub targets: Vec<String>,
}

impl LanguageModel {
    /// Every linear layer with its module name in the weight file; GPT-2's joined q, k, v excepted.
    fn linears(&mut self) -> Vec<(String, &mut Linear)> {
        let mut linears = Vec::new();
        for layer in &mut self.layers {
            linears.extend([&mut layer.query, &mut layer.key, &mut layer.value, &mut layer.output]);
            match &mut layer.mlp {
                Mlp::SwiGlu { gate, up, down } => linears.extend([gate, up, down]),
                Mlp::Gelu { up, down } => linears.extend([up, down]),
            }
        }
        let parameters = &self.parameters;
        linears
            .into_iter()
            .filter_map(|linear| {
                let name = parameters.iter().nth(linear.weight)?.name.strip_suffix(".weight")?.to_owned();
                Some((name, linear))
            })
            .collect()
    }

    /// Freezes all weights and adds LoRA adapters: A normal with deviation 1/√in, B zero.
    ///
    /// # Errors
    /// A target that names no layer of this model.
    pub fn add_low_rank(&mut self, lora: &Lora, seeds: &Seeds) -> Result<()> {
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let mut plan = Vec::new();
        let mut known: Vec<String> = Vec::new();
        for (name, linear) in self.linears() {
            let last = last(&name);
            if lora.targets.is_empty() || lora.targets.contains(&last) {
                plan.push((name, linear.weight));
            }
            if !known.contains(&last) {
                known.push(last);
            }
        }
        if let Some(unknown) = lora.targets.iter().find(|target| !known.contains(target)) {
            return Err(Problem::usage(format!(
                "LoRA target `{unknown}` names no linear layer of this model"
            ))
            .place("model.lora.targets")
            .hint(format!("choose from {}", known.join(", "))));
        }
        self.parameters.iter_mut().for_each(|p| p.trainable = false);
        let scale = (lora.alpha / lora.rank as f64) as f32;
        let mut adapters = HashMap::new();
        for (name, weight) in plan {
            let [out, width] = self.parameters.get(weight).dims();
            let mut numbers = seeds.normal(lora.rank * width, &name, 0);
            let deviation = 1.0 / (width as f32).sqrt();
            numbers.iter_mut().for_each(|x| *x *= deviation);
            let mut push = |part: &str, numbers, shape| {
                self.parameters.push(Parameter {
                    name: format!("base_model.model.{name}.{part}.weight"),
                    value: host::tensor(numbers, shape, &self.device),
                    trainable: true,
                    decays: true,
                })
            };
            let down = push("lora_A", numbers, [lora.rank, width]);
            let up = push("lora_B", vec![0.0; out * lora.rank], [out, lora.rank]);
            adapters.insert(name, LowRank { down, up, scale });
        }
        for (name, linear) in self.linears() {
            linear.low_rank = adapters.get(&name).copied();
        }
        Ok(())
    }

    /// Adds `s · B A` to the weights and drops the adapters' effect.
    pub fn merge_low_rank(&mut self) {
        let linears: Vec<Linear> = self.linears().into_iter().map(|(_, linear)| *linear).collect();
        for linear in linears {
            if let Some(low_rank) = linear.low_rank {
                let change: Tensor<2> = self
                    .parameters
                    .get(low_rank.up)
                    .clone()
                    .matmul(self.parameters.get(low_rank.down).clone());
                if let Some(weight) = self.parameters.iter_mut().nth(linear.weight) {
                    weight.value = weight.value.clone() + change * low_rank.scale;
                }
            }
        }
        for (_, linear) in self.linears() {
            linear.low_rank = None;
        }
    }

    /// Writes the adapters alone, as a PEFT folder: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save_adapter(&self, lora: &Lora, base: &str, format: Format, folder: &Path) -> Result<()> {
        let gpt2 = self.architecture.family == Family::Gpt2;
        let mut tensors = BTreeMap::new();
        let mut targets: Vec<String> = Vec::new();
        for parameter in self.parameters.iter().filter(|p| p.trainable) {
            let mut name = parameter.name.clone();
            if gpt2 {
                name = name.replacen("base_model.model.h.", "base_model.model.transformer.h.", 1);
            }
            if let Some(target) =
                name.strip_suffix(".lora_A.weight").and_then(|module| module.rsplit('.').next())
                && !targets.iter().any(|known| known == target)
            {
                targets.push(target.to_owned());
            }
            tensors.insert(name, (parameter.value.dims().to_vec(), host::numbers(&parameter.value)));
        }
        write_safetensors(&folder.join("adapter_model.safetensors"), &tensors, format)?;
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": lora.rank,
            "lora_alpha": lora.alpha, "lora_dropout": 0.0, "bias": "none", "target_modules": targets,
            "fan_in_fan_out": gpt2, "inference_mode": true, "init_lora_weights": true, "modules_to_save": null,
            "use_rslora": false, "use_dora": false,
        });
        let text = serde_json::to_string_pretty(&config).unwrap_or_default() + "\n";
        write_atomic(&folder.join("adapter_config.json"), text.as_bytes())
    }
}
