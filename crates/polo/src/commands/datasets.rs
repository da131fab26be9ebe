//! `polo data collect|mix|info`: datasets of transitions for offline methods, made and looked into.

use std::{
    fs,
    path::{Path, PathBuf},
};

use polo_control::{methods::trajectory_weighting::positive_sided_variance, policy::Policy};
use polo_run::{Problem, Result as Tried, checkpoint::Checkpoints, human, progress::Progress};
use polo_sim::{
    Action, Environment, NumpyRandom, Space,
    classic::pendulum_offline::{self, Behaviour},
    collect::{self, Amount},
    dataset::{About, Dataset, width},
    environment::ENVIRONMENTS,
    make,
    replay::ReplayBuffer,
    scores,
};
use serde_json::{Value, json};

use crate::output::{End, Output};

/// Let a policy act, and write down what happens as a dataset for offline methods; or take what a run remembers.
///
/// NAME.safetensors is polo's own form. With `--features hdf5`, NAME.hdf5 is D4RL's, a name without an ending Minari's.
#[derive(Debug, clap::Args)]
pub struct Collect {
    /// The environment [default: that of the policy].
    #[arg(long, value_name = "ID")]
    env: Option<String>,
    /// Who acts: random, the folder `final` of a run, or in polo/PendulumOffline-v0 medium, expert-noisy or expert
    /// [default: random].
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// Whole episodes.
    #[arg(long, value_name = "N", conflicts_with = "steps", value_parser = clap::value_parser!(u64).range(1..))]
    episodes: Option<u64>,
    /// Episodes until there are so many steps; the last one is cut where they are.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Add normal noise of this deviation to actions that are numbers, in halves of their range, and cut them to it.
    #[arg(long, value_name = "S", value_parser = noise, default_value_t = 0.0)]
    noise: f64,
    /// Take this share of the actions at random, uniformly.
    #[arg(long, value_name = "P", value_parser = share, default_value_t = 0.0)]
    epsilon: f64,
    /// Seed of the environment and of all random draws.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Instead of acting, take what the newest checkpoint of an off-policy run remembers.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["env", "policy", "episodes", "steps", "noise", "epsilon", "seed"])]
    replay: Option<PathBuf>,
    /// The dataset to write.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

/// Put episodes of several datasets of one environment into one.
#[derive(Debug, clap::Args)]
pub struct Mix {
    /// Datasets, each with the number of its first episodes to take [default: all].
    #[arg(required = true, value_name = "PATH[:EPISODES]")]
    parts: Vec<String>,
    /// The dataset to write.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

/// Tell what a dataset of transitions holds, and check that it can be learnt from.
#[derive(Debug, clap::Args)]
pub struct Info {
    /// The dataset.
    path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn noise(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x| (0.0..=10.0).contains(x)).ok_or_else(|| "give a number from 0 to 10".into())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x| (0.0..=1.0).contains(x)).ok_or_else(|| "give a number from 0 to 1".into())
}

/// Collects.
///
/// # Errors
/// A policy, environment or run that cannot be used; a path that cannot be written.
pub fn collect(args: &Collect, output: &mut Output<'_>) -> Result<(), End> {
    ready(&args.out)?;
    let data = match &args.replay {
        Some(run) => remembered(run)?,
        None => acted(args, output)?,
    };
    data.save(&args.out)?;
    output.write(&as_text(&Facts::of(&data)))
}

/// Mixes.
///
/// # Errors
/// Datasets that cannot be read or do not fit together; a path that cannot be written.
pub fn mix(args: &Mix, output: &mut Output<'_>) -> Result<(), End> {
    ready(&args.out)?;
    let mut all: Option<Dataset> = None;
    for part in &args.parts {
        let data = taken(part)?;
        match &mut all {
            None => all = Some(data),
            Some(all) => joined(all, data).map_err(|problem| problem.place(part.clone()))?,
        }
    }
    if let Some(all) = all {
        all.save(&args.out)?;
        output.write(&as_text(&Facts::of(&all)))?;
    }
    Ok(())
}

/// Prints what a dataset holds.
///
/// # Errors
/// A dataset that cannot be read or learnt from.
pub fn info(args: &Info, output: &mut Output<'_>) -> Result<(), End> {
    let data = Dataset::load(&args.path)?;
    let facts = Facts::of(&data);
    output.write(&if args.json { format!("{:#}\n", as_json(&facts)) } else { as_text(&facts) })
}

/// Makes sure that a dataset can be written here before anything is spent on it.
fn ready(path: &Path) -> Tried<()> {
    Dataset::check_form(path).map_err(|problem| problem.place("--out"))?;
    let Some(name) = path.file_name() else {
        return Err(Problem::usage("this is no name of a dataset")
            .place("--out")
            .hint("--out NAME.safetensors"));
    };
    if path.extension().is_some() && path.is_dir() {
        return Err(Problem::usage(format!("{} is a folder", path.display()))
            .place("--out")
            .hint("choose another name"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
    let probe = folder.join(format!(".{}.tmp", name.to_string_lossy()));
    fs::File::create(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .map_err(|error| Problem::io("write", path, &error))
}

/// Who acts.
enum Actor {
    Random,
    Behaviour(Behaviour),
    Trained(Box<Policy>),
}

impl Actor {
    /// The policy of that name, and the name of the environment that it acts in.
    fn named(args: &Collect) -> Tried<(Self, String)> {
        let name = args.policy.as_deref().unwrap_or("random");
        let no_environment =
            || Problem::usage("no environment is given").place("--env").hint("--env ID, e.g. Pendulum-v1");
        if name == "random" {
            return Ok((Self::Random, args.env.clone().ok_or_else(no_environment)?));
        }
        if let Ok(behaviour) = Behaviour::named(name) {
            let env = args.env.as_deref().unwrap_or(pendulum_offline::ID);
            if env == pendulum_offline::ID {
                return Ok((Self::Behaviour(behaviour), env.into()));
            }
            if !Path::new(name).exists() {
                return Err(Problem::usage(format!(
                    "`{name}` is a behaviour of {}, not of `{env}`",
                    pendulum_offline::ID
                ))
                .place("--policy")
                .hint("give the folder `final` of a run in this environment, or random"));
            }
        }
        let folder = Path::new(name);
        if !folder.join("policy.json").exists() {
            let inner = folder.join("final");
            return Err(Problem::usage(format!("there is no policy in `{name}`")).place("--policy").hint(
                match inner.join("policy.json").exists() {
                    true => format!("did you mean {}?", inner.display()),
                    false => format!(
                        "give random, the folder `final` of a run, or a behaviour of {}: {}",
                        pendulum_offline::ID,
                        Behaviour::ALL.map(Behaviour::name).join(", ")
                    ),
                },
            ));
        }
        let policy = Policy::load(folder)?;
        let plain = |id: &str| id.strip_prefix("gym:").unwrap_or(id).to_owned();
        let env = match &args.env {
            Some(env) if !policy.environment.is_empty() && plain(env) != plain(&policy.environment) => {
                return Err(Problem::usage(format!(
                    "the policy was trained in `{}`, and is to act in `{env}`",
                    policy.environment
                ))
                .place("--policy")
                .hint("leave --env out, or give a policy of that environment"));
            }
            Some(env) => env.clone(),
            None if policy.environment.is_empty() => return Err(no_environment()),
            None => policy.environment.clone(),
        };
        Ok((Self::Trained(Box::new(policy)), env))
    }

    fn act(&self, space: &Space, observation: &[f32], random: &mut NumpyRandom) -> Action {
        match self {
            Self::Random => space.sample(random),
            Self::Behaviour(behaviour) => behaviour.act(observation, random),
            Self::Trained(policy) => policy.act(observation),
        }
    }

    fn source(&self, args: &Collect) -> String {
        let mut source = match self {
            Self::Random => "random".to_owned(),
            Self::Behaviour(behaviour) => behaviour.name().into(),
            Self::Trained(_) => "trained policy".into(),
        };
        for (what, size) in [("noise", args.noise), ("epsilon", args.epsilon)] {
            if size > 0.0 {
                source += &format!(", {what} {size}");
            }
        }
        source
    }
}

/// What acting gives.
fn acted(args: &Collect, output: &Output<'_>) -> Tried<Dataset> {
    let (amount, total, unit) = match (args.episodes, args.steps) {
        (Some(episodes), _) => (Amount::Episodes(episodes), episodes, "episodes"),
        (None, Some(steps)) => (Amount::Steps(steps), steps, "steps"),
        (None, None) => {
            return Err(Problem::usage("how much to collect is not given").hint("--episodes N, or --steps N"));
        }
    };
    let (actor, id) = Actor::named(args)?;
    let mut environment = make(&id).map_err(|problem| problem.place("--env"))?;
    let about = about(&*environment, &id, actor.source(args));
    if let Actor::Trained(policy) = &actor
        && (policy.network.mlp.shape().inputs != width(&about.observations)
            || policy.actions != about.actions)
    {
        return Err(Problem::input(format!("the policy was not made for `{id}`"))
            .place("--policy")
            .hint("its observations or actions are others; train one in this environment"));
    }
    let halves: Vec<f64> = match &about.actions {
        Space::Box { low, high } => {
            low.iter().zip(high).map(|(low, high)| f64::from(high - low) / 2.0).collect()
        }
        Space::Discrete(_) => Vec::new(),
    };
    if args.noise > 0.0 && (halves.is_empty() || halves.iter().any(|half| !half.is_finite())) {
        return Err(Problem::usage("there is no range of actions to take noise from")
            .place("--noise")
            .hint("use --epsilon, which takes random actions instead"));
    }
    let space = about.actions.clone();
    let act = |observation: &[f32], random: &mut NumpyRandom| {
        if args.epsilon > 0.0 && random.unit() < args.epsilon {
            return Ok(space.sample(random));
        }
        let mut action = actor.act(&space, observation, random);
        if let (Action::Continuous(values), Space::Box { low, high }) = (&mut action, &space)
            && args.noise > 0.0
        {
            for (i, value) in values.iter_mut().enumerate() {
                let noisy = f64::from(*value) + args.noise * halves[i] * random.normal();
                *value = (noisy as f32).clamp(low[i], high[i]);
            }
        }
        Ok(action)
    };
    let bar = Progress::new("collect", total, unit);
    let (mut whole, mut told) = (Vec::new(), 0);
    let data = collect::collect(&mut *environment, about, amount, args.seed, act, |steps, returns| {
        if let Some(new) = returns.get(whole.len()..) {
            whole.extend_from_slice(new);
        }
        let done = if unit == "steps" { steps } else { returns.len() as u64 };
        // Steps can be shorter than it takes to tell of one.
        if done == total || steps >= told + 256 {
            told = steps;
            bar.step(done, &[("return", returns.last().copied().unwrap_or(f64::NAN))]);
        }
    })?;
    bar.finish();
    if data.episodes().len() > whole.len() && !whole.is_empty() {
        let mean = whole.iter().sum::<f64>() / whole.len() as f64;
        output.remark(&format!(
            "mean return of the {} whole episodes: {}",
            human::count(whole.len() as u64),
            human::number(mean)
        ));
    }
    Ok(data)
}

fn about(environment: &dyn Environment, id: &str, source: String) -> About {
    About {
        environment: id.into(),
        observations: environment.observation_space().clone(),
        actions: environment.action_space().clone(),
        source,
    }
}

/// What the newest checkpoint of a run remembers.
fn remembered(run: &Path) -> Tried<Dataset> {
    let path = run.join("resolved.toml");
    let text = fs::read_to_string(&path).map_err(|error| {
        Problem::io("read", &path, &error).place("--replay").hint("give the folder of a run")
    })?;
    let settings: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        Problem::input(format!("the settings of the run are damaged: {}", error.message()))
            .place(path.display().to_string())
            .hint("without them nobody knows what it remembers; train again")
    })?;
    let refused = |what: &str, hint: &str| Problem::input(what).place(run.display().to_string()).hint(hint);
    let latest = Checkpoints::view(run.join("checkpoints")).latest()?;
    latest.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let checkpoint = latest.checkpoint.ok_or_else(|| {
        refused("the run has no checkpoint yet", "wait for one; see training.checkpoint_every")
    })?;
    let replay = checkpoint.path.join("replay.bin");
    if !replay.exists() {
        return Err(refused(
            "the run remembers nothing: its method learns from what its newest policy does",
            "let its policy act instead: --policy RUN/final --episodes N",
        ));
    }
    let replay = ReplayBuffer::read(&replay)?;
    if replay.is_empty() {
        return Err(refused(
            "the run has lived through nothing: it learnt from data alone",
            "let its policy act instead: --policy RUN/final --episodes N",
        ));
    }
    if changes(&settings) {
        return Err(refused(
            "the run remembers observations or rewards that its [data] settings changed",
            "train with data.normalise=false and without data.reward_range, reward_scale and reward_shift",
        ));
    }
    let id = settings
        .get("environment")
        .and_then(|world| world.get("id")?.as_str())
        .filter(|id| !id.is_empty())
        .ok_or_else(|| {
            refused("the run does not say what its environment is", "give a run of a control method")
        })?;
    let source = format!("replay buffer after step {}", checkpoint.step);
    let about = about(&*make(id)?, id, source);
    Dataset::of_replay(about, &replay).map_err(|problem| problem.place(run.display().to_string()))
}

/// Whether a run that had logged data changed what it saw. A method that normalises unless told otherwise is not known
/// here, so that not being told counts as changing.
fn changes(settings: &toml::Table) -> bool {
    let Some(data) = settings.get("data") else { return false };
    let number = |key: &str, usual: f64| {
        let value = data.get(key);
        value.and_then(|value| value.as_float().or(value.as_integer().map(|n| n as f64))).unwrap_or(usual)
    };
    let flag = |key: &str, usual: bool| data.get(key).and_then(toml::Value::as_bool).unwrap_or(usual);
    let logged = data.get("train").and_then(toml::Value::as_array).is_some_and(|files| !files.is_empty());
    logged
        && (flag("normalise", true)
            || flag("reward_range", false)
            || number("reward_scale", 1.0) != 1.0
            || number("reward_shift", 0.0) != 0.0)
}

/// The episodes that `PATH[:EPISODES]` stands for.
fn taken(part: &str) -> Tried<Dataset> {
    let (path, count) = match part.rsplit_once(':') {
        Some((path, count)) if !Path::new(part).exists() => {
            let count = count.parse::<usize>().ok().filter(|&count| count > 0).ok_or_else(|| {
                Problem::usage(format!("`{count}` is no number of episodes"))
                    .place(part.to_owned())
                    .hint("PATH, or PATH:EPISODES with at least one")
            })?;
            (path, Some(count))
        }
        _ => (part, None),
    };
    let mut data = Dataset::load(Path::new(path))?;
    let there = data.episodes().len();
    if let Some(count) = count {
        if count > there {
            return Err(Problem::usage(format!("the dataset has {there} episodes, not {count}"))
                .place(part.to_owned())
                .hint("take fewer, or collect more"));
        }
        data = data.first_episodes(count);
    }
    let source = if data.about.source.is_empty() { path } else { &data.about.source };
    data.about.source = format!("{} of {source}", count.unwrap_or(there));
    Ok(data)
}

fn joined(all: &mut Dataset, part: Dataset) -> Tried<()> {
    // What is known of an environment by its name, or by that of a dataset; other names say nothing.
    let known = |name: &str| {
        let listed =
            || ENVIRONMENTS.iter().find(|listing| listing.id == name).map(|listing| listing.id.into());
        scores::references(name).map(|references| format!("{references:?}")).or_else(listed)
    };
    let (one, other) = (&all.about.environment, &part.about.environment);
    if let (Some(a), Some(b)) = (known(one), known(other))
        && a != b
    {
        return Err(Problem::input(format!("the datasets are of `{one}` and of `{other}`"))
            .hint("mix datasets of one environment only"));
    }
    all.append(part)
}

/// What is told of a dataset.
struct Facts<'a> {
    about: &'a About,
    transitions: usize,
    terminals: usize,
    time_outs: usize,
    lengths: Range,
    returns: Range,
    /// The root of the positive-sided variance of the returns.
    upside: f64,
    /// Of the mean return, and of [`Facts::upside`] in the same units; where there are references.
    score: Option<(f64, f64)>,
    beyond: usize,
}

#[derive(Clone, Copy)]
struct Range {
    least: f64,
    mean: f64,
    most: f64,
}

impl Range {
    fn of(numbers: &[f64]) -> Self {
        Self {
            least: numbers.iter().copied().fold(f64::INFINITY, f64::min),
            mean: numbers.iter().sum::<f64>() / numbers.len() as f64,
            most: numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

impl<'a> Facts<'a> {
    fn of(data: &'a Dataset) -> Self {
        let returns = data.returns();
        let lengths: Vec<f64> = data.episodes().iter().map(|episode| episode.len() as f64).collect();
        let terminals = data.transitions().terminated.iter().filter(|&&over| over > 0.0).count();
        let name = &data.about.environment;
        let scores: Option<Vec<f64>> =
            returns.iter().map(|&earned| scores::normalised(name, earned)).collect();
        let root = |numbers: &[f64]| positive_sided_variance(numbers).sqrt();
        let beyond = match &data.about.actions {
            Space::Box { low, high } => {
                let out = |(i, x): (usize, &f32)| *x < low[i % low.len()] || *x > high[i % low.len()];
                data.transitions().actions.iter().enumerate().filter(|&place| out(place)).count()
            }
            Space::Discrete(_) => 0,
        };
        Self {
            about: &data.about,
            transitions: data.len(),
            terminals,
            time_outs: data.episodes().len() - terminals,
            lengths: Range::of(&lengths),
            upside: root(&returns),
            score: scores.map(|scores| (Range::of(&scores).mean, root(&scores))),
            returns: Range::of(&returns),
            beyond,
        }
    }
}

fn as_json(facts: &Facts<'_>) -> Value {
    let range = |range: Range| json!({"min": range.least, "mean": range.mean, "max": range.most});
    json!({
        "environment": facts.about.environment,
        "source": facts.about.source,
        "observations": facts.about.observations,
        "actions": facts.about.actions,
        "episodes": facts.terminals + facts.time_outs,
        "transitions": facts.transitions,
        "terminals": facts.terminals,
        "time_outs": facts.time_outs,
        "lengths": range(facts.lengths),
        "returns": range(facts.returns),
        "positive_sided_deviation": facts.upside,
        "normalised_score": facts.score.map(|(mean, _)| mean),
        "normalised_positive_sided_deviation": facts.score.map(|(_, upside)| upside),
        "actions_out_of_bounds": facts.beyond,
        "finite": true,
    })
}

fn as_text(facts: &Facts<'_>) -> String {
    let count = |number: usize| human::count(number as u64);
    let range = |range: Range| {
        let [least, mean, most] = [range.least, range.mean, range.most].map(human::number);
        format!("{mean} on average, {least} to {most}")
    };
    let Range { least, mean, most } = facts.lengths;
    let length = match least == most {
        true => count(least as usize),
        false => {
            format!(
                "{} on average, {} to {}",
                human::number(mean),
                count(least as usize),
                count(most as usize)
            )
        }
    };
    let or_unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    let mut rows = vec![
        ("environment", or_unknown(&facts.about.environment)),
        ("made by", or_unknown(&facts.about.source)),
        ("observations", described(&facts.about.observations)),
        ("actions", described(&facts.about.actions)),
        ("episodes", count(facts.terminals + facts.time_outs)),
        ("  to their end", count(facts.terminals)),
        ("  cut", count(facts.time_outs)),
        ("transitions", count(facts.transitions)),
        ("length", length),
        ("return", range(facts.returns)),
        ("sqrt(RPSV)", human::number(facts.upside)),
    ];
    if let Some((score, upside)) = facts.score {
        rows.push(("normalised score", human::number(score)));
        rows.push(("sqrt(RPSV) of scores", human::number(upside)));
    }
    rows.push(("numbers", "all finite".into()));
    if facts.beyond > 0 {
        rows.push(("actions out of bounds", count(facts.beyond)));
    }
    rows.into_iter().map(|(name, value)| format!("{name:21}  {value}\n")).collect()
}

fn described(space: &Space) -> String {
    match space {
        Space::Discrete(n) => format!("one of {n} choices"),
        Space::Box { low, high } => {
            let mut bounds: Vec<String> =
                low.iter().zip(high).map(|(low, high)| format!("[{low}, {high}]")).collect();
            let size = bounds.len();
            if bounds.iter().all(|bound| *bound == bounds[0]) {
                bounds.truncate(1);
            }
            if bounds.len() > 8 {
                bounds.truncate(7);
                bounds.push("...".into());
            }
            format!("{size} number{} in {}", if size == 1 { "" } else { "s" }, bounds.join(", "))
        }
    }
}
