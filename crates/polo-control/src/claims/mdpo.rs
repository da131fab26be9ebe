//! MDPO's claim: several gradient steps on the KL-regularised objective do what TRPO's constraint and PPO's clip do, and
//! one step does not; off-policy, the same term keeps up with SAC. On tables the steps are exact.

use std::{fs, path::Path, time::Instant};

use polo_nn::shares;
use polo_run::{
    Problem, Result,
    claims::{ClaimResult, Effect, Expected, Table},
    report::{LinePlot, Report, Series},
    seed::Seeds,
    stats::{self, Estimate},
};
use polo_sim::{
    make,
    vector::{Autoreset, VectorEnvironment},
};

use super::{
    interval,
    mdpo_table::{Mdp, apart},
};
use crate::{
    methods::{Control, Learner, mdpo::Mdpo, mdpo_off::MdpoOff, ppo::Ppo, sac::Sac, trpo::Trpo},
    off_policy, on_policy,
};

const CART: &str = "CartPole-v1";
const PENDULUM: &str = "Pendulum-v1";
/// Step sizes of Adam that are tried on the tuning seeds.
const RATES: [f64; 3] = [3e-4, 1e-3, 3e-3];
/// Never reported.
const TUNING_SEEDS: [u64; 2] = [1_000_000, 1_000_001];
/// Steps of a rollout.
const ROLLOUT: usize = 2048;
/// Passes of PPO over a rollout.
const EPOCHS: usize = 10;
/// Episodes that a return is the mean of.
const RECENT: usize = 20;
/// Points of a learning curve.
const POINTS: u64 = 10;

/// Who learns to balance the pole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    /// With so many minibatches to a rollout.
    Ppo(usize),
    Trpo,
    Mdpo(usize),
}

impl Contender {
    fn name(self) -> String {
        match self {
            Contender::Ppo(1) => "PPO, minimal, full batch".into(),
            Contender::Ppo(parts) => format!("PPO, minimal, minibatches of {}", ROLLOUT / parts),
            Contender::Trpo => "TRPO".into(),
            Contender::Mdpo(m) => format!("MDPO, m = {m}"),
        }
    }

    /// The method without tricks: same networks, nothing normalised but advantages, nothing clipped but PPO's ratio,
    /// nothing annealed but MDPO's t. MDPO and TRPO fit values as the paper's code does. `rate` is that of all Adams.
    fn method(self, rate: f64) -> Box<dyn Control> {
        match self {
            Contender::Ppo(parts) => Box::new(Ppo {
                learning_rate: Some(rate),
                anneal: false,
                copies: Some(1),
                rollout: Some(ROLLOUT),
                minibatches: Some(parts),
                epochs: Some(EPOCHS),
                clip_value: false,
                entropy: Some(0.0),
                max_grad_norm: 0.0,
                ..Ppo::default()
            }),
            Contender::Trpo => Box::new(Trpo { value_rate: rate, ..Trpo::default() }),
            Contender::Mdpo(m) => Box::new(Mdpo {
                m,
                learning_rate: rate,
                value_rate: rate,
                value_clip: 0.0,
                max_grad_norm: 0.0,
                ..Mdpo::default()
            }),
        }
    }
}

const FULL: Contender = Contender::Ppo(1);
const PARTS: Contender = Contender::Ppo(16);
const TEN: Contender = Contender::Mdpo(10);
const ONE: Contender = Contender::Mdpo(1);

/// How a run on the pole went.
#[derive(Clone, Debug)]
struct Run {
    /// Mean return of the last episodes at each of [`POINTS`] points.
    curve: Vec<f64>,
    /// Mean divergence of each iteration's step, nats, as the method tells it.
    divergences: Vec<f64>,
}

impl Run {
    fn last(&self) -> f64 {
        self.curve[self.curve.len() - 1]
    }

    fn half_way(&self) -> f64 {
        self.curve[self.curve.len() / 2 - 1]
    }

    fn last_divergence(&self) -> f64 {
        self.divergences.last().copied().unwrap_or(f64::NAN)
    }

    fn largest_divergence(&self) -> f64 {
        self.divergences.iter().copied().fold(f64::NAN, f64::max)
    }
}

fn balance(contender: Contender, rate: f64, seed: u64, steps: u64) -> Result<Run> {
    let method = contender.method(rate);
    let world = make(CART)?;
    let seeds = Seeds::new(seed).child("networks");
    let Learner::OnPolicy(learner) =
        method.learner(world.observation_space(), world.action_space(), &seeds)?
    else {
        unreachable!("all contenders are on-policy")
    };
    let copies = VectorEnvironment::make(CART, 1, Autoreset::SameStep)?;
    let mut trainer = on_policy::Trainer::new(learner, copies, seed, steps)?;
    let (mut returns, mut curve, mut divergences) = (Vec::new(), Vec::new(), Vec::new());
    while trainer.done() < steps {
        let metrics = trainer.iterate()?;
        returns.extend(trainer.ended().iter().map(|(total, _)| *total));
        let told = metrics.get("losses/kl").or(metrics.get("losses/approx_kl"));
        divergences.push(told.unwrap_or(f64::NAN));
        // An iteration can pass more than one point only in runs of a few iterations.
        while (curve.len() as u64 + 1) * steps <= trainer.done() * POINTS && (curve.len() as u64) < POINTS {
            let recent = &returns[returns.len().saturating_sub(RECENT)..];
            curve.push(stats::mean(recent).unwrap_or(f64::NAN));
        }
    }
    Ok(Run { curve, divergences })
}

/// The off-policy methods, with networks and budget alike.
fn off_policy_methods(random_steps: u64) -> [(&'static str, Box<dyn Control>); 2] {
    let (hidden, batch, buffer, rate) = (vec![64, 64], 128, 50_000, 1e-3);
    let mdpo = MdpoOff {
        c: 0.5,
        lam: 0.1,
        m: 100,
        policy_rate: rate,
        critic_rate: rate,
        batch,
        buffer,
        random_steps,
        hidden: hidden.clone(),
        ..MdpoOff::default()
    };
    let sac = Sac {
        alpha: Some(0.1),
        policy_every: 1,
        policy_rate: rate,
        critic_rate: rate,
        batch,
        buffer,
        random_steps,
        hidden,
        ..Sac::default()
    };
    [("MDPO-off", Box::new(mdpo)), ("SAC", Box::new(sac))]
}

/// Evaluation episodes begin with seeds from here on.
const EVALUATION_SEED: u64 = 1 << 40;

/// Mean return of the policy without chance after so many steps.
fn swing_up(method: &dyn Control, seed: u64, steps: u64) -> Result<f64> {
    let world = make(PENDULUM)?;
    let seeds = Seeds::new(seed).child("networks");
    let Learner::OffPolicy(learner) =
        method.learner(world.observation_space(), world.action_space(), &seeds)?
    else {
        unreachable!("both are off-policy")
    };
    let mut trainer = off_policy::Trainer::new(learner, Some(world), None, seed, steps)?;
    while trainer.done() < steps {
        trainer.step()?;
    }
    Ok(trainer.policy(PENDULUM).evaluate(&mut *make(PENDULUM)?, EVALUATION_SEED, RECENT)?.mean)
}

/// What is measured on one random table.
struct Tabular {
    /// Total variation of m gradient steps from the closed form, for each of [`INNER`].
    apart: Vec<f64>,
    /// Gap to the best value after [`EXACT`] exact steps, for each of [`SIZES`].
    gaps: Vec<f64>,
    /// Largest rise of the gap in any of these steps.
    rise: f64,
}

const INNER: [usize; 5] = [1, 5, 10, 50, 200];
const SIZES: [f64; 3] = [1.0, 10.0, 100.0];
const EXACT: usize = 50;

fn tabular(seed: u64) -> Tabular {
    const ACTIONS: usize = 4;
    let mdp = Mdp::random(20, ACTIONS, 0.9, &Seeds::new(seed));
    let (start, best) = (mdp.uniform(), mdp.best_values());
    let exact = mdp.step(&start, 1.0);
    let apart = INNER.map(|m| apart(&mdp.gradient_steps(&start, 1.0, m, 0.5), &exact, ACTIONS)).to_vec();
    let (mut gaps, mut rise) = (Vec::new(), f64::NEG_INFINITY);
    for t in SIZES {
        let (mut policy, mut gap) = (start.clone(), mdp.gap(&start, &best));
        for _ in 0..EXACT {
            policy = mdp.step(&policy, t);
            let now = mdp.gap(&policy, &best);
            rise = rise.max(now - gap);
            gap = now;
        }
        gaps.push(gap);
    }
    Tabular { apart, gaps, rise }
}

/// Re-tests the claim. Learning curves go to `mdpo.html` in `folder`.
///
/// # Errors
/// Those of the environments; a page that cannot be written.
pub fn reproduce(folder: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = Instant::now();
    let (cart_steps, pendulum_steps, random_steps) =
        if quick { (4 * 2048, 120, 100) } else { (100_000, 15_000, 500) };
    let tuning: &[u64] = if quick { &TUNING_SEEDS[..1] } else { &TUNING_SEEDS };
    let seeds: Vec<u64> = (0..seeds).collect();

    say(&format!("{CART}: step sizes on tuning seeds"));
    let best = |contender: Contender| -> Result<f64> {
        let jobs: Vec<(f64, u64)> =
            RATES.iter().flat_map(|&rate| tuning.iter().map(move |&seed| (rate, seed))).collect();
        let runs = shares::map(jobs, |(rate, seed)| balance(contender, rate, seed, cart_steps));
        let mut scores = Vec::new();
        for run in runs {
            scores.push(stats::mean(&run?.curve).unwrap_or(f64::NAN));
        }
        let means = scores.chunks_exact(tuning.len()).map(|own| stats::mean(own).unwrap_or(f64::NAN));
        let best = RATES.into_iter().zip(means).max_by(|a, b| a.1.total_cmp(&b.1));
        Ok(best.map_or(RATES[0], |(rate, _)| rate))
    };
    let (trpo, ten) = (best(Contender::Trpo)?, best(TEN)?);
    // The last shows whether a single step lacks no more than a step size of its own; it decides nothing.
    let rows = [
        (TEN, ten, ""),
        (ONE, ten, ""),
        (Contender::Trpo, trpo, ""),
        (FULL, best(FULL)?, ""),
        (PARTS, best(PARTS)?, ""),
        (ONE, best(ONE)?, ", its own step size"),
    ];
    let mut found: Vec<(String, f64, Vec<Run>)> = Vec::new();
    for (contender, rate, note) in rows {
        let name = contender.name() + note;
        say(&format!("{CART}: {name}, step size {rate}"));
        let runs = shares::map(seeds.clone(), |seed| balance(contender, rate, seed, cart_steps));
        found.push((name, rate, runs.into_iter().collect::<Result<_>>()?));
    }
    fs::create_dir_all(folder).map_err(|error| Problem::io("create", folder, &error))?;
    report(&found, cart_steps).write(&folder.join("mdpo.html"))?;

    say(&format!("{PENDULUM}: MDPO-off and SAC"));
    let methods = off_policy_methods(random_steps);
    let jobs: Vec<(usize, u64)> =
        [0, 1].iter().flat_map(|&at| seeds.iter().map(move |&seed| (at, seed))).collect();
    let swung: Vec<f64> =
        shares::map(jobs, |(at, seed)| swing_up(methods[at].1.as_ref(), seed, pendulum_steps))
            .into_iter()
            .collect::<Result<_>>()?;
    let (mdpo_off, sac) = swung.split_at(seeds.len());

    say("tables");
    let tables: Vec<Tabular> = shares::map(seeds.clone(), tabular);

    let over = |value: &dyn Fn(usize) -> f64| -> Estimate {
        interval(&(0..seeds.len()).map(value).collect::<Vec<_>>())
    };
    let effect = |name: &str, value: &dyn Fn(usize) -> f64, expected| Effect {
        name: name.into(),
        estimate: over(value),
        expected,
    };
    let [ten, one, trpo, full, parts] = [0, 1, 2, 3, 4].map(|at: usize| &found[at].2);
    // Nothing is drawn but the tables themselves: the worst of them counts.
    let worst = |value: &dyn Fn(&Tabular) -> f64| {
        Estimate::exact(tables.iter().map(value).fold(f64::NEG_INFINITY, f64::max))
    };
    let exact = |name: &str, value: &dyn Fn(&Tabular) -> f64, most: f64| Effect {
        name: format!("tables, the worst of all: {name}"),
        estimate: worst(value),
        expected: Expected::Below(most),
    };
    let effects = vec![
        effect("return of MDPO, m = 10, at the end", &|s| ten[s].last(), Expected::Above(400.0)),
        effect(
            "return of MDPO, m = 10, less 0.9 times TRPO's",
            &|s| ten[s].last() - 0.9 * trpo[s].last(),
            Expected::Above(0.0),
        ),
        effect(
            "return of MDPO, m = 10, less 0.7 times that of minimal PPO, full batch",
            &|s| ten[s].last() - 0.7 * full[s].last(),
            Expected::Above(0.0),
        ),
        effect(
            "return of MDPO, m = 10, less 0.7 times that of minimal PPO, minibatches",
            &|s| ten[s].last() - 0.7 * parts[s].last(),
            Expected::Above(0.0),
        ),
        effect(
            "half-way: return of MDPO, m = 1, less 0.6 times that of m = 10",
            &|s| one[s].half_way() - 0.6 * ten[s].half_way(),
            Expected::Below(0.0),
        ),
        effect(
            "KL divergence of the last step of MDPO, m = 10, nats",
            &|s| ten[s].last_divergence(),
            Expected::Below(0.5),
        ),
        effect("pendulum: return of MDPO-off less SAC's", &|s| mdpo_off[s] - sac[s], Expected::Above(-50.0)),
        exact("total variation of 200 gradient steps from the closed form", &|table| table.apart[4], 1e-6),
        exact("gap after 50 exact steps of size 1", &|table| table.gaps[0], 0.05),
        exact("gap after 50 exact steps of size 10", &|table| table.gaps[1], 1e-3),
        exact("largest rise of the gap in a step", &|table| table.rise, 1e-9),
    ];

    let cell = |value: &dyn Fn(usize) -> f64, digits: usize| format!("{:.digits$}", over(value));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, rate, runs) in &found {
        rows.push(vec![
            format!("{name}; Adam {rate}"),
            cell(&|s| runs[s].half_way(), 0),
            cell(&|s| runs[s].last(), 0),
            cell(&|s| runs[s].last_divergence(), 4),
            cell(&|s| runs[s].largest_divergence(), 4),
        ]);
    }
    let mut add = |name: String, value: String| {
        rows.push(vec![name, String::new(), value, String::new(), String::new()]);
    };
    for (name, returns) in [("MDPO-off", mdpo_off), ("SAC, alpha 0.1", sac)] {
        add(format!("{PENDULUM}: {name}"), cell(&|s| returns[s], 0));
    }
    for (at, m) in INNER.into_iter().enumerate() {
        let apart = worst(&|table| table.apart[at]).mean;
        add(
            format!("tables, the worst of all: total variation of {m} gradient steps"),
            format!("{apart:.1e}"),
        );
    }
    for (at, t) in SIZES.into_iter().enumerate() {
        let gap = worst(&|table| table.gaps[at]).mean;
        add(
            format!("tables, the worst of all: gap after {EXACT} exact steps of size {t}"),
            format!("{gap:.1e}"),
        );
    }
    Ok(ClaimResult {
        slug: "mdpo".into(),
        claim: "Several gradient steps on the KL-regularised objective do as well as TRPO and PPO without a constraint and \
                without tricks, where one step does not; off-policy, MDPO does as well as SAC."
            .into(),
        setup: format!(
            "{CART}, {cart_steps} steps, {ROLLOUT} to a rollout, gamma 0.99, lambda 0.95. All methods have the same networks \
             (64-64 tanh, orthogonal weights at the beginning) and standardised advantages; nothing else is normalised, clipped \
             or annealed but PPO's ratio (0.2) and MDPO's step size t (from 1 in a line). MDPO and TRPO fit values in 5 passes \
             of minibatches of 128, PPO with its policy, in {EPOCHS} passes: as wholes, which are as many steps of the policy as \
             MDPO's, and in minibatches, as PPO usually learns. TRPO has 10 steps of conjugate gradients, damping 0.1, 0.01 \
             nats. Of Adam's step sizes {RATES:?}, one for policy and value, each \
             method has the one with the best mean over its learning curve on {} seeds that are not reported; m = 1 has that of \
             m = 10. A return is the mean of the last {RECENT} episodes of training.\n\n\
             {PENDULUM}, {pendulum_steps} steps, the first {random_steps} at random: MDPO-off (c 0.5, lam 0.1, m 100) and SAC \
             (alpha 0.1), 64-64 ReLU networks, batches of 128, Adam 1e-3, an update to a step, nothing tuned. Return of the \
             policy without chance over {RECENT} episodes.\n\n\
             Tables: random problems of 20 states and 4 actions, gamma 0.9, rewards U(0, 1), transitions from a flat Dirichlet \
             distribution. A step of size 1 from the uniform policy by gradient steps of length 0.5 on the logits, against its \
             closed form (largest total variation in a state); and {EXACT} exact steps against the best policy (largest gap of \
             value in a state).",
            tuning.len(),
        ),
        table: Table {
            headers: [
                "method",
                "return half-way",
                "return at the end, or what the row says",
                "KL of the last step, nats",
                "largest KL of a step, nats",
            ]
            .map(String::from)
            .to_vec(),
            rows,
        },
        effects,
        plots: Vec::new(),
        remarks: "Weights begin orthogonal for all methods, which the paper counts among the tricks. The KL is that of new to \
                  previous policy for MDPO, of previous to new for TRPO, and PPO's estimate of the latter in its last step. \
                  Learning curves: mdpo.html in the run's folder."
            .into(),
        command: "polo reproduce mdpo".into(),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

/// Learning curves, each the mean over seeds.
fn report(found: &[(String, f64, Vec<Run>)], steps: u64) -> Report {
    let curve = |(at, (name, rate, runs)): (usize, &(String, f64, Vec<Run>))| {
        let point = |place: usize| {
            let mean = stats::mean(&runs.iter().map(|run| run.curve[place]).collect::<Vec<_>>());
            ((place as u64 + 1) as f64 * steps as f64 / POINTS as f64, mean.unwrap_or(f64::NAN))
        };
        let points = (0..POINTS as usize).map(point).collect();
        Series { name: format!("{name} (Adam {rate})"), points, colour: at, ..Series::default() }
    };
    let mut report = Report::new("MDPO, TRPO and PPO without tricks");
    report.paragraph(&format!(
        "{CART}: mean return of the last {RECENT} episodes of training, mean over seeds."
    ));
    report.line_plots(&[LinePlot {
        title: CART.into(),
        x_label: "steps".into(),
        y_label: "mean return".into(),
        series: found.iter().enumerate().map(curve).collect(),
    }]);
    report
}

#[cfg(test)]
mod tests {
    use polo_run::claims::Outcome;

    use super::*;

    #[test]
    fn it_runs_through_in_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let result = reproduce(folder.path(), 2, true, &mut |_| {}).unwrap();
        assert_eq!((result.effects.len(), result.table.rows.len()), (11, 16));
        // Tables are exact at any length; of two seeds nothing else is decided.
        for (place, effect) in result.effects.iter().enumerate() {
            let expected = if place < 7 { Outcome::Open } else { Outcome::Holds };
            assert_eq!(effect.outcome(), expected, "{effect:?}");
        }
        assert_eq!(result.verdict().to_string(), "inconclusive");
        assert!(folder.path().join("mdpo.html").exists());
    }
}
