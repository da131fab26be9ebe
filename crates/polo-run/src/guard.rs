//! The guard against losses and gradients that are no longer finite numbers.
//!
//! Training loops show it the loss and the gradient norm of every step *before* the optimiser applies them. It stops
//! the run with everything a person needs to look into the matter, or skips the step, up to a cap.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kind, Problem, Result};

/// What to do with a step whose loss or gradient is NaN or infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OnNonFinite {
    /// End the run.
    #[default]
    Stop,
    /// Leave the step out, as long as no more than `cap` steps of the run have been left out.
    Skip {
        /// The most steps that a run may leave out.
        cap: u32,
    },
}

/// Whether the optimiser may apply a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Apply it.
    Go,
    /// Leave it out: discard its gradients, keep the weights and the optimiser's state.
    Skip,
}

/// The part of a [`Guard`] that a checkpoint holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardState {
    /// Steps left out since the run began.
    pub skipped: u32,
}

/// Watches the quantities of a run; see the module's description.
#[derive(Clone, Debug)]
pub struct Guard {
    policy: OnNonFinite,
    state: GuardState,
}

impl Guard {
    /// A guard of a fresh run.
    pub fn new(policy: OnNonFinite) -> Self {
        Self::resumed(policy, GuardState::default())
    }

    /// A guard that goes on counting where a checkpoint left off.
    pub fn resumed(policy: OnNonFinite, state: GuardState) -> Self {
        Self { policy, state }
    }

    /// What a checkpoint must hold of this guard.
    pub fn state(&self) -> GuardState {
        self.state
    }

    /// Judges `value`, the quantity called `name` (`loss`, `grad_norm`) of `step`, computed on the records `batch_ids`.
    /// Call it once for each step that is not finite: each call that answers [`Verdict::Skip`] counts as one step.
    ///
    /// # Errors
    /// [`Kind::Diverged`] if the value is not finite and the policy says stop, or its cap is used up.
    pub fn check(
        &mut self,
        step: u64,
        name: &str,
        value: f64,
        batch_ids: &[String],
        last_good: Option<&Path>,
    ) -> Result<Verdict> {
        if value.is_finite() {
            return Ok(Verdict::Go);
        }
        let used_up = match self.policy {
            OnNonFinite::Stop => String::new(),
            OnNonFinite::Skip { cap } if self.state.skipped < cap => {
                self.state.skipped += 1;
                return Ok(Verdict::Skip);
            }
            OnNonFinite::Skip { cap } => {
                format!(", and {cap} steps, all that may be skipped, were skipped before")
            }
        };
        // Resuming with the same settings would meet the same step again, so the hint names a way past it.
        let advice = "look at these records; a lower learning rate or harder clipping needs a new run";
        Err(Problem::new(
            Kind::Diverged,
            format!("`{name}` became {value} at step {step}{used_up}; batch: {}", shortened(batch_ids)),
        )
        .hint(match last_good {
            Some(path) => format!(
                "the last good checkpoint is {}; to leave such steps out, continue it with --resume auto and a \
                 policy of skip with a higher cap; {advice}",
                path.display()
            ),
            None => format!("no checkpoint was written yet; {advice}"),
        }))
    }
}

/// The first few ids, and how many more there are.
fn shortened(ids: &[String]) -> String {
    const SHOWN: usize = 8;
    match ids {
        [] => "unknown".into(),
        ids if ids.len() <= SHOWN => ids.join(", "),
        ids => format!("{} and {} more", ids[..SHOWN].join(", "), ids.len() - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("pairs.jsonl:{i}")).collect()
    }

    #[test]
    fn finite_values_pass() {
        let mut guard = Guard::new(OnNonFinite::Stop);
        for value in [0.0, -1e300, f64::MIN_POSITIVE] {
            assert_eq!(guard.check(1, "loss", value, &ids(2), None).unwrap(), Verdict::Go);
        }
    }

    #[test]
    fn stopping_names_step_quantity_batch_and_checkpoint() {
        let last_good = Path::new("run/checkpoints/step-00000010");
        let problem = Guard::new(OnNonFinite::Stop)
            .check(12, "grad_norm", f64::NAN, &ids(10), Some(last_good))
            .unwrap_err();
        assert_eq!(problem.kind(), Kind::Diverged);
        let whole = format!("{problem} {}", problem.hint_text().unwrap());
        for part in
            ["step 12", "`grad_norm`", "NaN", "pairs.jsonl:7 and 2 more", "step-00000010", "--resume auto"]
        {
            assert!(whole.contains(part), "{part} is missing in: {whole}");
        }
    }

    #[test]
    fn skipping_ends_at_the_cap_and_survives_a_resume() {
        let policy = OnNonFinite::Skip { cap: 2 };
        let mut guard = Guard::new(policy);
        assert_eq!(guard.check(1, "loss", f64::INFINITY, &[], None).unwrap(), Verdict::Skip);
        let saved = serde_json::to_string(&guard.state()).unwrap();
        let mut guard = Guard::resumed(policy, serde_json::from_str(&saved).unwrap());
        assert_eq!(guard.check(2, "loss", f64::NAN, &[], None).unwrap(), Verdict::Skip);
        let problem = guard.check(3, "loss", f64::NAN, &[], None).unwrap_err();
        assert!(problem.message().contains("2 steps"), "{problem}");
        assert_eq!(guard.state(), GuardState { skipped: 2 });
    }
}
