//! The losses of [`super::dpo_survey`]: those that effects are stated of, with what is tuned, and all of the method's.

use polo_run::{
    Result,
    config::{Layers, keys, load},
};

use crate::{
    methods::dpo_survey::{
        LossName, Survey, TokenWeights,
        taxonomy::{Run, VARIANTS},
    },
    settings::TrainSettings,
};

/// A loss with effects of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    Dpo,
    Ipo,
    LnDpo,
    RDpo,
    LdDpo,
    Sampo,
    Simpo,
    Dpop,
    Nca,
    ApoZero,
    CalDpo,
    DpoSft,
    Kto,
    Bco,
    Cpo,
    Orpo,
    Simper,
    Cdpo,
    Rdpo,
}

/// Those that learn from plain labels: all but two that are DPO where no label is flipped.
pub const PLAIN: [Arm; 17] = [
    Arm::Dpo,
    Arm::Ipo,
    Arm::LnDpo,
    Arm::RDpo,
    Arm::LdDpo,
    Arm::Sampo,
    Arm::Simpo,
    Arm::Dpop,
    Arm::Nca,
    Arm::ApoZero,
    Arm::CalDpo,
    Arm::DpoSft,
    Arm::Kto,
    Arm::Bco,
    Arm::Cpo,
    Arm::Orpo,
    Arm::Simper,
];
/// Those that learn from flipped labels; DPO first.
pub const FLIPPED: [Arm; 4] = [Arm::Dpo, Arm::Cdpo, Arm::Rdpo, Arm::Ipo];
/// Those that learn from labels that favour long answers; DPO first.
pub const LONGER: [Arm; 6] = [Arm::Dpo, Arm::LnDpo, Arm::RDpo, Arm::LdDpo, Arm::Sampo, Arm::Simpo];
/// Those that are to keep chosen answers likely.
pub const KEEPING: [Arm; 5] = [Arm::Dpop, Arm::Nca, Arm::ApoZero, Arm::CalDpo, Arm::DpoSft];
/// Those of single answers.
pub const SINGLE: [Arm; 2] = [Arm::Kto, Arm::Bco];
/// The survey's losses without a reference.
pub const FREE: [Arm; 4] = [Arm::Simpo, Arm::Cpo, Arm::Orpo, Arm::Simper];

impl Arm {
    pub fn name(self) -> &'static str {
        match self {
            Arm::Dpo => "DPO",
            Arm::Ipo => "IPO",
            Arm::LnDpo => "LN-DPO",
            Arm::RDpo => "R-DPO",
            Arm::LdDpo => "LD-DPO",
            Arm::Sampo => "SamPO",
            Arm::Simpo => "SimPO",
            Arm::Dpop => "DPOP",
            Arm::Nca => "NCA",
            Arm::ApoZero => "APO-zero",
            Arm::CalDpo => "Cal-DPO",
            Arm::DpoSft => "DPO + SFT",
            Arm::Kto => "KTO",
            Arm::Bco => "BCO",
            Arm::Cpo => "CPO",
            Arm::Orpo => "ORPO",
            Arm::Simper => "SimPER",
            Arm::Cdpo => "cDPO",
            Arm::Rdpo => "rDPO",
        }
    }

    /// The parameter that is tuned, and the values it is chosen from.
    pub fn key(self) -> (&'static str, [f64; 3]) {
        match self {
            // Log-odds per token; the labels that favour length do so by about 0.3.
            Arm::RDpo => ("alpha", [0.03, 0.1, 0.3]),
            Arm::LdDpo => ("ld_alpha", [0.25, 0.5, 0.75]),
            Arm::Dpop => ("lambda", [5.0, 15.0, 50.0]),
            Arm::DpoSft => ("weight of SFT", [0.1, 0.3, 1.0]),
            // Of means over tokens ten times those of sums, about the length of an answer.
            Arm::LnDpo | Arm::Simpo => ("beta", [0.3, 1.0, 3.0]),
            // A weight.
            Arm::Orpo => ("beta", [0.1, 0.3, 1.0]),
            // It has none.
            Arm::Simper => ("-", [1.0; 3]),
            _ => ("beta", [0.03, 0.1, 0.3]),
        }
    }

    /// The loss with this value of its parameter, told the share of flipped labels.
    pub fn survey(self, value: f64, flipped: f64) -> Survey {
        let named = |loss| Survey { loss, ..Survey::default() };
        let of_beta = |loss| Survey { beta: Some(value), ..named(loss) };
        match self {
            Arm::Dpo => of_beta(LossName::Sigmoid),
            Arm::Ipo => of_beta(LossName::Ipo),
            Arm::LnDpo => of_beta(LossName::SigmoidNorm),
            Arm::RDpo => Survey { alpha: Some(value), ..named(LossName::RDpo) },
            Arm::LdDpo => Survey { tokens: TokenWeights::Ld, ld_alpha: value, ..Survey::default() },
            Arm::Sampo => Survey { tokens: TokenWeights::Sampo, ..of_beta(LossName::Sigmoid) },
            Arm::Simpo => of_beta(LossName::Simpo),
            Arm::Dpop => Survey { lambda: Some(value), ..named(LossName::Dpop) },
            Arm::Nca => of_beta(LossName::NcaPair),
            Arm::ApoZero => of_beta(LossName::ApoZero),
            Arm::CalDpo => of_beta(LossName::CalDpo),
            Arm::DpoSft => {
                Survey { also: vec![LossName::Sft], weights: vec![1.0, value], ..Survey::default() }
            }
            Arm::Kto => of_beta(LossName::Kto),
            Arm::Bco => of_beta(LossName::Bco),
            Arm::Cpo => of_beta(LossName::Cpo),
            Arm::Orpo => of_beta(LossName::Orpo),
            Arm::Simper => named(LossName::Simper),
            Arm::Cdpo => Survey { label_smoothing: flipped, ..of_beta(LossName::Sigmoid) },
            Arm::Rdpo => Survey { label_smoothing: flipped, ..of_beta(LossName::Robust) },
        }
    }
}

/// One loss of the method as it comes.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the taxonomy, or `method.loss` where it has none there.
    pub name: String,
    /// Its first place in the taxonomy.
    pub family: &'static str,
    /// What is set.
    pub sets: Vec<String>,
    /// The loss.
    pub survey: Survey,
}

/// Losses of the taxonomy that the program runs by a method of their own.
const OWN_METHODS: [(&str, &str); 4] =
    [("dpo", "sigmoid"), ("rdpo", "robust"), ("ipo", "ipo"), ("simpo", "simpo")];

/// What some must be told: at their defaults they would be DPO, or not run.
const TOLD: [(&str, &[&str]); 6] = [
    ("rDPO", &["method.label_smoothing=0.1"]),
    ("EXO", &["method.label_smoothing=0.001"]),
    ("GPO (generalised)", &["method.link=exponential"]),
    ("MPO's mixture (TRL's guide)", &["method.weights=[0.8, 0.2, 1.0]"]),
    ("TR-DPO", &["method.sync_every=50"]),
    ("TIS-DPO", &["method.tis_better=better", "method.tis_worse=worse"]),
];

/// Every loss of the method, and every variant of the taxonomy that its settings make, by place.
///
/// # Errors
/// None that a caller could cause: a setting of the taxonomy that the method does not take.
pub fn all() -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for variant in VARIANTS {
        let set = match variant.run {
            Run::Loss(loss) => format!("method.loss={loss}"),
            Run::Setting(set) => set.to_owned(),
            Run::Method(slug) => match OWN_METHODS.iter().find(|(own, _)| *own == slug) {
                Some((_, loss)) => format!("method.loss={loss}"),
                None => continue,
            },
            Run::Rounds(_) | Run::NotBuilt => continue,
        };
        let told = TOLD.iter().filter(|(name, _)| *name == variant.name).flat_map(|(_, sets)| *sets);
        let mut sets = vec![set];
        for set in told {
            let key = |set: &str| set.split('=').next().map(|key| key.trim().to_owned());
            sets.retain(|earlier| key(earlier) != key(set));
            sets.push(set.to_string());
        }
        entries.push((variant.name.to_owned(), variant.places.first().copied().unwrap_or(""), sets));
    }
    for key in keys::<Survey>().iter().filter(|key| key.key == "loss") {
        for choice in &key.choices {
            let set = format!("method.loss={}", choice.name);
            if !entries.iter().any(|(_, _, sets): &(_, _, Vec<String>)| sets.contains(&set)) {
                entries.push((choice.name.clone(), "", vec![set]));
            }
        }
    }
    entries.sort_by_key(|(_, family, _)| *family);
    let load = |(name, family, sets): (String, &'static str, Vec<String>)| {
        let given = ["model.path=model", "data.train=pairs"].map(String::from).into_iter();
        let layers = Layers { sets: given.chain(sets.iter().cloned()).collect(), ..Layers::default() };
        let survey = load::<TrainSettings<Survey>>(&layers)?.settings.method;
        Ok(Entry { name, family, sets, survey })
    };
    entries.into_iter().map(load).collect()
}

#[cfg(test)]
mod tests {
    use polo_run::config::Settings;

    use super::*;

    #[test]
    fn every_loss_is_there_once_and_none_is_dpo_by_another_name() {
        let entries = all().unwrap();
        let losses = keys::<Survey>().into_iter().find(|key| key.key == "loss").unwrap().choices.len();
        let plain: Vec<_> = entries.iter().filter(|entry| entry.sets[0].starts_with("method.loss")).collect();
        assert_eq!(plain.len(), losses);
        for (at, entry) in entries.iter().enumerate() {
            assert!(!entries[..at].iter().any(|earlier| earlier.survey == entry.survey), "{}", entry.name);
        }
        for (name, _) in TOLD {
            assert!(entries.iter().any(|entry| entry.name == name), "{name} is not in the taxonomy");
        }
    }

    #[test]
    fn every_value_is_one_that_the_loss_takes() {
        for arm in PLAIN.into_iter().chain(FLIPPED) {
            for value in arm.key().1 {
                arm.survey(value, 0.3).check().unwrap();
                let moved = arm.key().0 == "-" || arm.survey(value, 0.3) != arm.survey(2.0 * value, 0.3);
                assert!(moved, "{arm:?}");
            }
        }
    }
}
