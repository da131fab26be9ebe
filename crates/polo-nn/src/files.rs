//! Weight files: named tensors as safetensors, in the number formats that models come in.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use half::{bf16, f16};
use polo_run::{Problem, Result, folder::write_atomic};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, TensorView},
};

/// Number format of a weight file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floats.
    F16,
}

/// Tensors of a weight file by name: shape and numbers, row-major.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Writes named tensors as a safetensors file, atomically.
///
/// # Errors
/// The file cannot be written.
pub fn write_safetensors(path: &Path, tensors: &Tensors, format: Format) -> Result<()> {
    let dtype = match format {
        Format::F32 => Dtype::F32,
        Format::Bf16 => Dtype::BF16,
        Format::F16 => Dtype::F16,
    };
    let bytes: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, numbers))| (name.as_str(), shape.as_slice(), narrow(numbers, format)))
        .collect();
    let fail = |error: safetensors::SafeTensorError| {
        Problem::input(format!("cannot lay out {}: {error}", path.display()))
    };
    let mut views = Vec::with_capacity(bytes.len());
    for (name, shape, data) in &bytes {
        views.push((*name, TensorView::new(dtype, shape.to_vec(), data).map_err(fail)?));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let whole = safetensors::serialize(views, Some(metadata)).map_err(fail)?;
    write_atomic(path, &whole)
}

/// Reads all tensors of a safetensors file as f32: name to (shape, numbers).
///
/// # Errors
/// The file is missing, truncated or holds numbers that are not floats.
pub fn read_safetensors(path: &Path) -> Result<Tensors> {
    let buffer = fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    let parsed = SafeTensors::deserialize(&buffer).map_err(|error| {
        Problem::input(format!("not a whole safetensors file: {error}")).place(path.display().to_string())
    })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in parsed.tensors() {
        let (_, numbers) = widen(&view).ok_or_else(|| {
            Problem::input(format!("tensor `{name}` holds {:?} numbers", view.dtype()))
                .place(path.display().to_string())
        })?;
        tensors.insert(name, (view.shape().to_vec(), numbers));
    }
    Ok(tensors)
}

fn narrow(numbers: &[f32], format: Format) -> Vec<u8> {
    match format {
        Format::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Format::Bf16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Format::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
    }
}

/// A tensor's numbers as f32, and the format that they had; none for numbers that are not floats.
pub fn widen(view: &TensorView) -> Option<(Format, Vec<f32>)> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => {
            Some((Format::F32, data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
        }
        Dtype::BF16 => Some((
            Format::Bf16,
            data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        )),
        Dtype::F16 => {
            Some((Format::F16, data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect()))
        }
        _ => None,
    }
}
