//! What a checkpoint holds of a [`Trainer`], and how it is taken up again.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use polo_lm::weights::{Format, read_safetensors, write_safetensors};
use polo_nn::host;
use polo_run::{Problem, Result};

use super::Trainer;
use crate::objective::Live;

/// In a checkpoint: reference log-probs that a stage began with, for all examples, slot by slot, f64.
const STAGE_REFERENCES: &str = "references.bin";

/// In a checkpoint: weights of a reference that follows the model.
const FOLLOWING_REFERENCE: &str = "reference.safetensors";

impl Trainer<'_> {
    /// Writes weights and optimiser into an existing folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save_state(&self, folder: &Path) -> Result<()> {
        let (mut weights, mut moments) = (BTreeMap::new(), BTreeMap::new());
        for (parameter, moment) in self.model.parameters.iter().zip(&self.moments.values) {
            let Some((first, second)) = moment else { continue };
            let shape = parameter.value.dims().to_vec();
            weights.insert(parameter.name.clone(), (shape.clone(), host::numbers(&parameter.value)));
            moments.insert(format!("{}/first", parameter.name), (shape.clone(), host::numbers(first)));
            moments.insert(format!("{}/second", parameter.name), (shape, host::numbers(second)));
        }
        write_safetensors(&folder.join("weights.safetensors"), &weights, Format::F32)?;
        write_safetensors(&folder.join("moments.safetensors"), &moments, Format::F32)?;
        if let (Some(Live { follows: Some(_), .. }), Some(reference)) =
            (self.objective.live_reference(), &self.live)
        {
            let weights = reference.parameters.iter().zip(&self.moments.values);
            let trained = weights.filter(|(_, moment)| moment.is_some()).map(|(parameter, _)| {
                let numbers = host::numbers(&parameter.value);
                (parameter.name.clone(), (parameter.value.dims().to_vec(), numbers))
            });
            write_safetensors(&folder.join(FOLLOWING_REFERENCE), &trained.collect(), Format::F32)?;
        }
        if let Cow::Owned(references) = &self.references {
            let bytes: Vec<u8> = references.iter().flatten().flat_map(|score| score.to_le_bytes()).collect();
            let path = folder.join(STAGE_REFERENCES);
            fs::write(&path, bytes).map_err(|error| Problem::io("write", &path, &error))?;
        }
        Ok(())
    }

    /// Takes up what [`Trainer::save_state`] wrote after `done` steps, of which `applied` reached the optimiser.
    ///
    /// # Errors
    /// A checkpoint of another model.
    pub fn load_state(&mut self, folder: &Path, done: usize, applied: u64) -> Result<()> {
        let mut weights = read_safetensors(&folder.join("weights.safetensors"))?;
        let mut moments = read_safetensors(&folder.join("moments.safetensors"))?;
        let device = self.model.device().clone();
        let take =
            |from: &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>, name: String, shape: [usize; 2]| match from
                .remove(&name)
            {
                Some((found, numbers)) if found == shape => Ok(host::tensor(numbers, shape, &device)),
                _ => Err(Problem::input(format!("`{name}` is missing or of another shape"))
                    .place(folder.display().to_string())
                    .hint("this checkpoint belongs to another model")),
            };
        for (parameter, moment) in self.model.parameters.iter_mut().zip(&mut self.moments.values) {
            let Some((first, second)) = moment else { continue };
            let shape = parameter.value.dims();
            parameter.value = take(&mut weights, parameter.name.clone(), shape)?;
            *first = take(&mut moments, format!("{}/first", parameter.name), shape)?;
            *second = take(&mut moments, format!("{}/second", parameter.name), shape)?;
        }
        if let (Some(Live { follows: Some(_), .. }), Some(reference)) =
            (self.objective.live_reference(), &mut self.live)
        {
            let mut weights = read_safetensors(&folder.join(FOLLOWING_REFERENCE))?;
            for (parameter, moment) in reference.parameters.iter_mut().zip(&self.moments.values) {
                if moment.is_some() {
                    let shape = parameter.value.dims();
                    parameter.value = take(&mut weights, parameter.name.clone(), shape)?;
                }
            }
        }
        self.moments.steps = applied;
        self.done = done;
        let path = folder.join(STAGE_REFERENCES);
        if path.exists() {
            let bytes = fs::read(&path).map_err(|error| Problem::io("read", &path, &error))?;
            let mut numbers = bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
            for score in self.references.to_mut().iter_mut().flatten() {
                *score = numbers.next().ok_or_else(|| {
                    Problem::input("the stage's reference log-probs are cut short")
                        .place(path.display().to_string())
                        .hint("this checkpoint belongs to other data")
                })?;
            }
        }
        Ok(())
    }

    /// Steps that reached the optimiser.
    pub fn applied(&self) -> u64 {
        self.moments.steps
    }
}
