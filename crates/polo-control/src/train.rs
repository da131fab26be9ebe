//! `polo train` for control: an environment in, a run folder with a policy out.

use std::{fs, path::Path};

use polo_nn::shares;
use polo_run::{
    Problem, Result,
    config::Loaded,
    folder::{Resume, write_atomic},
    human,
    metrics::Metrics,
    process::{self, Cadence, Labels, Outcome, Process},
    seed::Seeds,
};
use polo_sim::{
    Environment,
    dataset::Dataset,
    make,
    scores::normalised,
    vector::{Autoreset, VectorEnvironment},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    data::{Prepared, check_spaces},
    methods::{Learner, Source},
    off_policy::{self, Prior},
    on_policy,
    policy::Policy,
    settings::{MethodSettings, TrainSettings},
};

/// Keys whose change does not change what a resumed run computes.
const FREE: [&str; 3] =
    ["training.checkpoint_every", "training.keep_checkpoints", "training.evaluation_episodes"];

/// Evaluation episodes begin with seeds from here on, far from those of training.
const EVALUATION_SEED: u64 = 1 << 40;

/// The loop that carries a method.
enum Trainer {
    On(Box<on_policy::Trainer>),
    Off(Box<off_policy::Trainer>),
}

impl Trainer {
    /// The loop of a run, and the name of its environment, empty if none is known.
    fn new<M: MethodSettings>(settings: &TrainSettings<M>) -> Result<(Self, String)> {
        let TrainSettings { method, environment, data: wanted, training } = settings;
        let data = match wanted.train.is_empty() {
            true => None,
            false => Some(Dataset::load_all(&wanted.train)?),
        };
        let mut id = environment.id.clone();
        if let (true, Some(data)) = (id.is_empty(), &data) {
            // A dataset of an environment that is not here can still be learnt from.
            id = data.about.environment.clone();
            if make(&id).is_err() {
                id.clear();
            }
        }
        let world = match id.is_empty() {
            true => None,
            false => Some(make(&id).map_err(|problem| problem.place("environment.id"))?),
        };
        let (observations, actions) = match (&world, &data) {
            (Some(world), _) => (world.observation_space().clone(), world.action_space().clone()),
            (None, Some(data)) => (data.about.observations.clone(), data.about.actions.clone()),
            (None, None) => return Err(Problem::usage("no environment is given").place("environment.id")),
        };
        let prior = match data {
            None => None,
            Some(data) => {
                check_spaces(&data, &observations, &actions)?;
                let steps = wanted.offline_steps.unwrap_or(match method.source() {
                    Source::Data => training.steps,
                    Source::Environment | Source::Both => 0,
                });
                let data = Prepared::new(data, wanted, method.wishes())?;
                Some(Prior { data, steps, share: wanted.share })
            }
        };
        let seeds = Seeds::new(training.seed).child("networks");
        let trainer = match method.learner(&observations, &actions, &seeds)? {
            Learner::OffPolicy(learner) => {
                let (seed, steps) = (training.seed, training.steps);
                Trainer::Off(Box::new(off_policy::Trainer::new(learner, world, prior, seed, steps)?))
            }
            Learner::OnPolicy(_) if prior.is_some() => {
                return Err(Problem::usage(
                    "the method learns from what its newest policy does, and not from data",
                )
                .place("data.train")
                .hint("leave the data out, or take an off-policy or offline method"));
            }
            Learner::OnPolicy(learner) => {
                let copies = VectorEnvironment::make(&id, learner.plan().copies, Autoreset::SameStep)?;
                Trainer::On(Box::new(on_policy::Trainer::new(
                    learner,
                    copies,
                    training.seed,
                    training.steps,
                )?))
            }
        };
        Ok((trainer, id))
    }

    fn done(&self) -> u64 {
        match self {
            Trainer::On(trainer) => trainer.done(),
            Trainer::Off(trainer) => trainer.done(),
        }
    }

    fn go_on(&mut self) -> Result<Metrics> {
        match self {
            Trainer::On(trainer) => trainer.iterate(),
            Trainer::Off(trainer) => trainer.step(),
        }
    }

    fn policy(&self, environment: &str) -> Policy {
        match self {
            Trainer::On(trainer) => trainer.policy(environment),
            Trainer::Off(trainer) => trainer.policy(environment),
        }
    }

    fn save(&self, folder: &Path) -> Result<()> {
        match self {
            Trainer::On(trainer) => trainer.save(folder),
            Trainer::Off(trainer) => trainer.save(folder),
        }
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        match self {
            Trainer::On(trainer) => trainer.load(folder),
            Trainer::Off(trainer) => trainer.load(folder),
        }
    }
}

/// A trainer, and the environment in which its policy is judged.
struct Run {
    trainer: Trainer,
    id: String,
    judge: Option<Box<dyn Environment>>,
    total: u64,
    episodes: usize,
}

impl Process for Run {
    fn done(&self) -> u64 {
        self.trainer.done()
    }

    fn total(&self) -> u64 {
        self.total
    }

    fn go_on(&mut self) -> Result<Metrics> {
        shares::inside(|| self.trainer.go_on())
    }

    fn must_be_finite(&self, metric: &str) -> bool {
        // The explained variance of equal returns is no number, and nothing depends on it.
        metric.starts_with("losses/") && metric != "losses/explained_variance"
    }

    fn evaluate(&mut self) -> Result<Option<(Metrics, String)>> {
        let policy = self.trainer.policy(&self.id);
        let Some(judge) = &mut self.judge else { return Ok(None) };
        let found = policy.evaluate(&mut **judge, EVALUATION_SEED, self.episodes)?;
        let mut metrics = Metrics::new();
        metrics.set("charts/mean_return", found.mean);
        if let Some((low, high)) = found.interval {
            metrics.set("charts/mean_return_low", low).set("charts/mean_return_high", high);
        }
        if let Some(score) = normalised(&self.id, found.mean) {
            metrics.set("charts/normalised_score", score);
        }
        Ok(Some((metrics, format!("mean return {found}"))))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.trainer.save(folder)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        self.trainer.load(folder)
    }

    fn finish(&self, path: &Path) -> Result<()> {
        self.trainer.policy(&self.id).save(path)
    }
}

/// Trains. `out` is the run folder.
///
/// # Errors
/// An environment that the method is not made for or that fails; a run that diverged;
/// [`polo_run::Kind::Interrupted`] after a signal, with a checkpoint written.
pub fn train<M: MethodSettings>(
    loaded: &Loaded<TrainSettings<M>>,
    out: &Path,
    resume: Resume,
) -> Result<Outcome> {
    let training = &loaded.settings.training;
    let labels =
        Labels { method: M::SLUG, unit: "steps", watched: ("return", "charts/episodic_return"), free: &FREE };
    let cadence = Cadence {
        log_every: training.log_every,
        evaluate_every: training.evaluate_every,
        checkpoint_every: training.checkpoint_every,
        keep_checkpoints: training.keep_checkpoints,
    };
    process::run(loaded, labels, cadence, out, resume, || {
        let (trainer, id) = Trainer::new(&loaded.settings)?;
        let judge = match id.is_empty() {
            true => None,
            false => Some(make(&id)?),
        };
        Ok(Run { trainer, id, judge, total: training.steps, episodes: training.evaluation_episodes })
    })
}

/// What a run would do, as (what, how much) lines.
///
/// # Errors
/// As the beginning of [`train`].
pub fn plan<M: MethodSettings>(settings: &TrainSettings<M>) -> Result<Vec<(String, String)>> {
    let training = &settings.training;
    let (trainer, id) = Trainer::new(settings)?;
    let policy = trainer.policy(&id);
    let shape = policy.network.mlp.shape();
    let mut lines = vec![
        ("environment", if id.is_empty() { "none: nothing is evaluated".to_owned() } else { id }),
        (
            "policy",
            format!("{} numbers in, hidden layers {:?}, {} out", shape.inputs, shape.hidden, shape.outputs),
        ),
        ("policy parameters", human::count(policy.network.parameters.count().0 as u64)),
        ("steps", human::count(training.steps)),
    ];
    lines.push(match &trainer {
        Trainer::On(_) => ("regime", "on-policy: rollouts, then updates".to_owned()),
        Trainer::Off(trainer) => ("regime", trainer.regime()),
    });
    Ok(lines.into_iter().map(|(what, value)| (what.to_owned(), value)).collect())
}

/// Writes JSON into a file.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_atomic(path, value.to_string().as_bytes())
}

/// Reads `state` and `environment` of what the loops write.
pub(crate) fn read_world<S: DeserializeOwned>(path: &Path) -> Result<(S, Value)> {
    let bytes = fs::read(path).map_err(|error| Problem::io("read", path, &error))?;
    let wrong = |error: serde_json::Error| {
        Problem::input(format!("the state of the run cannot be used: {error}"))
            .place(path.display().to_string())
            .hint("this checkpoint belongs to another run")
    };
    let mut value: Value = serde_json::from_slice(&bytes).map_err(wrong)?;
    let environment = value["environment"].take();
    Ok((serde_json::from_value(value["state"].take()).map_err(wrong)?, environment))
}
