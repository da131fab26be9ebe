//! A stream that answers to what the learner does: contexts x ~ N(0, I), actions that may come and go, costs of -1 with
//! chance σ(x · M_a + c · x + b_a), else 0, all coefficients from U(-1, 1).

use polo_run::{
    Problem, Result,
    seed::{Seeds, unit},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    features::{Decision, Example, Feature, Outcome, hash},
    linear::normals,
    synthetic::Synthetic,
};

/// `[simulated]`. Contexts are features `x0`, `x1`, ... of the namespace `User`, actions have one of the namespace `Action`:
/// with `oracle.interactions = ["UA"]` each action has its own slopes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Simulated {
    /// Decisions of the stream. 0: there is none, a log is learnt from.
    pub decisions: u64,
    /// Actions that there are.
    #[schemars(range(min = 1, max = 100000))]
    pub actions: usize,
    /// Numbers of a context.
    #[schemars(range(max = 6))]
    pub width: usize,
    /// Which world: its coefficients are drawn by this seed.
    pub world: u64,
    /// Chance that an action can be taken in a decision; at least one always can.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub available: f64,
    /// The world changes, all coefficients at once, after every so many decisions. 0: it never does.
    pub changes_every: u64,
}

impl Default for Simulated {
    fn default() -> Self {
        Self { decisions: 0, actions: 10, width: 5, world: 0, available: 1.0, changes_every: 0 }
    }
}

impl Simulated {
    pub(super) fn check(&self) -> Result<()> {
        match self.available > 0.0 {
            true => Ok(()),
            false => Err(Problem::usage("no action can ever be taken")
                .place("simulated.available")
                .hint("a chance above 0, 1 for always")),
        }
    }
}

/// The world behind a simulated stream.
pub struct World {
    settings: Simulated,
    seeds: Seeds,
    /// The bandit of an epoch, and its number.
    bandit: (u64, Synthetic),
}

/// A decision of the world, and what is known of it there.
pub struct Asked {
    /// Without an outcome.
    pub decision: Decision,
    /// Each available action's mean cost.
    pub costs: Vec<f64>,
}

impl World {
    /// The world as it begins.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(settings: &Simulated) -> Result<Self> {
        let seeds = Seeds::new(settings.world).child("world");
        let bandit = (0, Self::bandit(settings, &seeds, 0)?);
        Ok(Self { settings: settings.clone(), seeds, bandit })
    }

    fn bandit(settings: &Simulated, seeds: &Seeds, epoch: u64) -> Result<Synthetic> {
        Synthetic::new(settings.actions, settings.width, &seeds.child(&format!("epoch {epoch}")))
    }

    /// The decision with this number, counted from 0, of the stream with these seeds.
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn ask(&mut self, number: u64, seeds: &Seeds) -> Result<Asked> {
        let epoch = number.checked_div(self.settings.changes_every).unwrap_or(0);
        if self.bandit.0 != epoch {
            self.bandit = (epoch, Self::bandit(&self.settings, &self.seeds, epoch)?);
        }
        let context = normals(seeds, self.settings.width, "contexts", number);
        let chances = self.bandit.1.chances(&context);
        let mut rng = seeds.rng("available", number);
        let mut list: Vec<usize> =
            (0..chances.len()).filter(|_| unit(&mut rng) < self.settings.available).collect();
        if list.is_empty() {
            list.push((unit(&mut rng) * chances.len() as f64) as usize);
        }
        let (user, own) = (hash("User", 0), hash("Action", 0));
        let x = context.iter().enumerate();
        let x = x.map(|(at, value)| Feature { hash: hash(&format!("x{at}"), user), value: *value as f32 });
        let shared = Example { spaces: vec![(b'U', x.collect())] };
        let action = |at: &usize| {
            let features = vec![Feature { hash: hash(&format!("ida{at}"), own), value: 1.0 }];
            Example { spaces: vec![(b'A', features)] }
        };
        let actions = list.iter().map(action).collect();
        let decision = Decision { event: format!("e{number}"), shared, actions, outcome: None, weight: 1.0 };
        Ok(Asked { decision, costs: list.iter().map(|at| -chances[*at]).collect() })
    }

    /// What comes of an action that was taken with this probability.
    pub fn answer(
        &self,
        number: u64,
        asked: &Asked,
        action: usize,
        probability: f64,
        seeds: &Seeds,
    ) -> Outcome {
        let won = unit(&mut seeds.rng("outcomes", number)) < -asked.costs[action];
        Outcome { action, cost: if won { -1.0 } else { 0.0 }, probability: probability as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(settings: Simulated, numbers: std::ops::Range<u64>) -> Vec<Asked> {
        let mut world = World::new(&settings).unwrap();
        numbers.map(|number| world.ask(number, &Seeds::new(3)).unwrap()).collect()
    }

    #[test]
    fn actions_come_and_go_as_often_as_is_said() {
        let of = |available| {
            let settings = Simulated { decisions: 2000, actions: 4, available, ..Simulated::default() };
            let asked = asked(settings, 0..2000);
            assert!(asked.iter().all(|one| !one.costs.is_empty()));
            asked.iter().map(|one| one.decision.actions.len()).sum::<usize>() as f64 / 2000.0
        };
        assert_eq!(of(1.0), 4.0);
        // Four standard errors; with none drawn there is one.
        assert!((of(0.7) - (2.8 + 0.3f64.powi(4))).abs() < 0.083, "{}", of(0.7));
        assert!((of(1e-9) - 1.0).abs() < 1e-9);
    }

    /// The world after a change is another one, the same whether it is reached step by step or at once.
    #[test]
    fn worlds_change_when_it_is_said() {
        let settings = |changes_every| Simulated { decisions: 20, changes_every, ..Simulated::default() };
        let costs = |every, numbers| -> Vec<Vec<f64>> {
            asked(settings(every), numbers).into_iter().map(|one| one.costs).collect()
        };
        let (still, moving) = (costs(0, 0..20), costs(8, 0..20));
        assert_eq!(still[..8], moving[..8]);
        assert!((8..20).all(|at| still[at] != moving[at]));
        assert_eq!(moving[17..], costs(8, 17..20));
    }

    #[test]
    fn outcomes_come_as_often_as_they_should() {
        let mut world = World::new(&Simulated::default()).unwrap();
        let seeds = Seeds::new(3);
        let one = world.ask(0, &seeds).unwrap();
        let sum: f32 = (0..10_000).map(|at| world.answer(at, &one, 2, 0.25, &seeds).cost).sum();
        assert!((f64::from(sum) / 10_000.0 - one.costs[2]).abs() < 0.02, "{sum} {}", one.costs[2]);
        let outcome = world.answer(0, &one, 2, 0.25, &seeds);
        assert_eq!((outcome.action, outcome.probability), (2, 0.25));
    }
}
