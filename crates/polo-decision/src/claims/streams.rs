//! The claim of the schemes of exploration: in a world where costs are nearly linear in the oracle's features, each loses far
//! less than a policy that does not learn, and SquareCB in the long run less than epsilon-greedy, which never stops paying.

use std::{ops::Range, path::Path, time::Instant};

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
    report::{LinePlot, Series},
    stats::t_interval,
};
use rayon::prelude::*;

use crate::{
    methods::{
        bag::Bag, cover::Cover, epsilon_greedy::EpsilonGreedy, explore_first::ExploreFirst, fastcb::FastCb,
        linucb::LinUcb, regcb::RegCb, rnd::Rnd, softmax::Softmax, squarecb::SquareCb, thompson::Thompson,
    },
    settings::Training,
    stream::{ExplorerSettings, StreamSettings, regrets, settings::OracleSettings, simulated::Simulated},
};

/// A scheme with the settings that it is tried with.
pub trait Tried: ExplorerSettings + Default {
    /// The scheme, with settings among which the best on worlds for tuning is taken.
    fn candidates() -> Vec<Self> {
        vec![Self::default()]
    }

    /// Which settings are not the defaults, and why.
    const CHOSEN: &'static str = "all settings are the defaults";
}

impl Tried for SquareCb {}
impl Tried for FastCb {}
impl Tried for EpsilonGreedy {}
impl Tried for Bag {}
impl Tried for Cover {}
impl Tried for Rnd {}
impl Tried for LinUcb {}

impl Tried for Softmax {
    fn candidates() -> Vec<Self> {
        vec![Self { lambda: 10.0, ..Self::default() }]
    }

    const CHOSEN: &'static str =
        "lambda is 10, as its default of 1 hardly explores less than even chances do with such costs";
}

impl Tried for ExploreFirst {
    fn candidates() -> Vec<Self> {
        vec![Self { decisions: 200, ..Self::default() }]
    }

    const CHOSEN: &'static str = "200 decisions are taken evenly, a tenth of what counts";
}

impl Tried for RegCb {
    fn candidates() -> Vec<Self> {
        let of = |mellowness| Self { least_cost: -1.0, most_cost: 0.0, mellowness, ..Self::default() };
        [0.1, 0.01, 0.001, 0.0001].map(of).to_vec()
    }

    const CHOSEN: &'static str = "the range of costs is told, -1 to 0, and mellowness is tuned, as ranges of its default of 0.1 are too wide to exclude an action in so few decisions";
}

impl Tried for Thompson {
    fn candidates() -> Vec<Self> {
        vec![Self { draws: 1, ..Self::default() }]
    }

    const CHOSEN: &'static str = "one draw to a decision, which is Thompson sampling itself";
}

/// Worlds for tuning begin here; those of the report begin at 0.
const TUNING: u64 = 1_000_000;
/// How many there are.
const TUNED_ON: u64 = 5;
/// Decisions after which a scheme is compared with even chances, and SquareCB with epsilon-greedy.
const SHORT: u64 = 2000;
const LONG: u64 = 5000;
/// Points of a curve.
const POINTS: u64 = 50;

fn points(decisions: u64) -> Vec<u64> {
    (1..=POINTS).map(|point| point * decisions / POINTS).collect()
}

/// Mean regret per decision so far, by world and point.
fn curves<E: ExplorerSettings + Default>(
    method: E,
    decisions: u64,
    seeds: Range<u64>,
) -> Result<Vec<Vec<f64>>> {
    let one = |seed: u64| {
        let settings = StreamSettings {
            method: method.clone(),
            simulated: Simulated { decisions, world: seed, ..Simulated::default() },
            oracle: OracleSettings { interactions: vec!["UA".into()], ..OracleSettings::default() },
            training: Training { seed, ..Training::default() },
            ..StreamSettings::default()
        };
        regrets(&settings, &points(decisions))
    };
    seeds.into_par_iter().map(one).collect()
}

/// The candidate with the least regret on the worlds for tuning; a single one is taken as it is.
fn tuned<E: Tried>(decisions: u64) -> Result<E> {
    let mut best = (f64::INFINITY, E::default());
    let candidates = E::candidates();
    let alone = candidates.len() == 1;
    for method in candidates {
        let regret = match alone {
            true => 0.0,
            false => {
                let curves = curves(method.clone(), decisions, TUNING..TUNING + TUNED_ON)?;
                curves.iter().map(|curve| curve[curve.len() - 1]).sum()
            }
        };
        if regret < best.0 {
            best = (regret, method);
        }
    }
    Ok(best.1)
}

/// Re-tests the claim for a scheme.
///
/// # Errors
/// None of this claim's own.
pub fn reproduce<E: Tried>(
    _: &Path,
    seeds: u64,
    quick: bool,
    say: &mut dyn FnMut(&str),
) -> Result<ClaimResult> {
    let clock = Instant::now();
    let against_greedy = E::SLUG == SquareCb::SLUG;
    let decisions = if quick { LONG / 10 } else { LONG };
    // Where both stand on the grid of points.
    let [short, long] = [SHORT, LONG].map(|at| (at * POINTS / LONG - 1) as usize);
    let even = EpsilonGreedy { epsilon: 1.0, ..EpsilonGreedy::default() };
    say("even chances");
    let mut found = vec![("even chances".to_string(), curves(even, decisions, 0..seeds)?)];
    if E::SLUG != EpsilonGreedy::SLUG {
        say("epsilon-greedy");
        found.push((EpsilonGreedy::SLUG.into(), curves(EpsilonGreedy::default(), decisions, 0..seeds)?));
    }
    say(E::SLUG);
    let method = tuned::<E>(decisions * SHORT / LONG)?;
    let settings = serde_json::to_value(&method).unwrap_or_default();
    let settings: Vec<String> =
        settings.as_object().into_iter().flatten().map(|(key, value)| format!("{key} = {value}")).collect();
    let settings = settings.join(", ");
    found.push((E::SLUG.into(), curves(method, decisions, 0..seeds)?));
    let at =
        |who: usize, place: usize| -> Vec<f64> { found[who].1.iter().map(|curve| curve[place]).collect() };
    let own = found.len() - 1;
    let ratios: Vec<f64> = at(own, short).iter().zip(at(0, short)).map(|(own, even)| own / even).collect();
    let after = |place: usize| points(decisions)[place];
    let mut effects = vec![Effect {
        name: format!("regret per decision over {} decisions, over that of even chances", after(short)),
        estimate: t_interval(&ratios, "worlds"),
        expected: Expected::Below(0.65),
    }];
    if against_greedy {
        let gaps: Vec<f64> =
            at(own, long).iter().zip(at(1, long)).map(|(own, greedy)| own - greedy).collect();
        effects.push(Effect {
            name: format!("regret per decision over {} decisions, less that of epsilon-greedy", after(long)),
            estimate: t_interval(&gaps, "worlds"),
            expected: Expected::Below(0.0),
        });
    }
    let places = [4, short, long];
    let cells = |(who, (name, _)): (usize, &(String, _))| {
        let regret = |place: &usize| format!("{:.4}", t_interval(&at(who, *place), "worlds"));
        std::iter::once(name.clone()).chain(places.iter().map(regret)).collect()
    };
    let headers = std::iter::once("regret per decision".to_string())
        .chain(places.iter().map(|place| format!("{} decisions", after(*place))));
    let rounds: Vec<f64> = points(decisions).into_iter().map(|point| point as f64).collect();
    let series = found.iter().enumerate();
    let plot = LinePlot {
        title: "Regret against the best action".into(),
        x_label: "decisions".into(),
        y_label: "mean regret per decision so far".into(),
        series: series
            .map(|(colour, (name, curves))| Series::over_seeds(name, &rounds, curves, colour))
            .collect(),
    };
    Ok(ClaimResult {
        slug: E::SLUG.into(),
        claim: match against_greedy {
            true => "in a world of nearly linear costs, regret falls far below that of even chances, and in the long run below \
                     that of epsilon-greedy"
                .into(),
            false => "in a world of nearly linear costs, regret falls far below that of even chances".into(),
        },
        setup: format!(
            "{seeds} simulated worlds of 10 actions and contexts of 5 normal numbers; a cost of -1 comes with chance \
             σ(x · M_a + c · x + b_a), coefficients even in [-1, 1]. Each scheme takes {decisions} decisions in each world, \
             draws its actions and learns their costs at once; contexts and chances of outcomes are the same for all. Oracle: \
             hashed linear, or ridge regression where beliefs are needed, with the context crossed with the action. Regret \
             is exact: the expected cost of the scheme's probabilities less that of the best action. For {}: {}; {}. Its \
             settings: {settings}.",
            E::SLUG,
            E::CHOSEN,
            match E::candidates().len() {
                1 => "nothing was tuned".to_string(),
                count => format!(
                    "the best of {count} candidates over {} decisions in {TUNED_ON} other worlds was taken",
                    decisions * SHORT / LONG
                ),
            }
        ),
        table: Table { headers: headers.collect(), rows: found.iter().enumerate().map(cells).collect() },
        effects,
        plots: vec![plot],
        remarks: String::new(),
        command: format!("polo reproduce {} --seeds {seeds}", E::SLUG),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_measures_every_effect() {
        let found = reproduce::<SquareCb>(Path::new(""), 2, true, &mut |_| {}).unwrap();
        assert_eq!((found.effects.len(), found.table.rows.len(), found.plots[0].series.len()), (2, 3, 3));
        assert!(found.effects.iter().all(|effect| effect.estimate.mean.is_finite()));
        let found = reproduce::<EpsilonGreedy>(Path::new(""), 2, true, &mut |_| {}).unwrap();
        assert_eq!((found.effects.len(), found.table.rows.len()), (1, 2));
        // Even chances lose the same whatever is learnt: their curve is the mean gap of the world.
        let even = &found.plots[0].series[0].points;
        assert!(even.iter().all(|point| point.1 > 0.1 && point.1 < 0.6), "{even:?}");
    }
}
