//! The claim of martingale policy evaluation: the mean-square TD error gets worse the finer the grid, the martingale loss
//! and the orthogonality conditions do not, and each has the limit that theory gives it where the family lacks the truth.

use std::{path::Path, time::Instant};

use polo_run::{
    Result,
    claims::{ClaimResult, Effect, Expected, Table},
    process::Process,
    report::{LinePlot, Series},
    stats::{Estimate, t_interval},
};
use rayon::prelude::*;

use crate::methods::martingale_td::{Criterion, Diffusion, MartingaleTd, Solver};

const CRITERIA: [(&str, Criterion); 3] = [
    ("mean-square", Criterion::MeanSquare),
    ("martingale loss", Criterion::MartingaleLoss),
    ("CLSTD(0)", Criterion::Orthogonality),
];

/// Weights and, where meshes are studied, the order, by seed.
struct Found {
    thetas: Vec<Vec<f64>>,
    orders: Vec<f64>,
    /// log2 of the step dt and of |theta(dt) - theta(2 dt)|, from the coarsest on.
    changes: Vec<Vec<(f64, f64)>>,
}

impl Found {
    /// Mean log2 change of the weights over log2 of the step.
    fn change(&self, name: &str, colour: usize) -> Series {
        let steps: Vec<f64> = self.changes.iter().take(1).flatten().map(|change| change.0).collect();
        let by_seed: Vec<Vec<f64>> =
            self.changes.iter().map(|changes| changes.iter().map(|change| change.1).collect()).collect();
        Series::over_seeds(name, &steps, &by_seed, colour)
    }

    fn weight(&self, at: usize) -> Estimate {
        self.scaled(at, 1.0)
    }

    /// A weight over its true value.
    fn scaled(&self, at: usize, truth: f64) -> Estimate {
        t_interval(&self.thetas.iter().map(|theta| theta[at] / truth).collect::<Vec<_>>(), "seeds")
    }
}

fn found(settings: &MartingaleTd, seeds: u64) -> Result<Found> {
    let one = |seed| {
        let mut run = settings.evaluation(seed)?;
        let mut changes = Vec::new();
        while settings.mesh > 0 && run.done() < run.total() {
            let metrics = run.go_on()?;
            changes.extend(metrics.get("mesh/log2_step").zip(metrics.get("mesh/log2_change")));
        }
        run.go_through();
        Ok((run.theta().to_vec(), run.order().unwrap_or(f64::NAN), changes))
    };
    let all = (0..seeds).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
    let mut found = Found { thetas: Vec::new(), orders: Vec::new(), changes: Vec::new() };
    for (theta, order, changes) in all {
        found.thetas.push(theta);
        found.orders.push(order);
        found.changes.push(changes);
    }
    Ok(found)
}

/// Error against the step, both as log2, with lines of a slope along some of the series.
fn convergence(title: &str, mut series: Vec<Series>, slopes: &[(usize, f64)]) -> LinePlot {
    let guides: Vec<Series> =
        slopes.iter().map(|&(along, slope)| Series::slope(slope, &series[along])).collect();
    series.extend(guides);
    LinePlot {
        title: title.into(),
        x_label: "log2 of the step dt".into(),
        y_label: "log2 of |theta(dt) - theta(2 dt)|".into(),
        series,
    }
}

/// Re-tests the claim.
///
/// # Errors
/// None of this claim's own.
pub fn reproduce(_: &Path, seeds: u64, quick: bool, say: &mut dyn FnMut(&str)) -> Result<ClaimResult> {
    let clock = Instant::now();
    // Estimates vary: more seeds are cheap, and tell more.
    let many = if quick { seeds } else { seeds.max(20) };
    let paths = if quick { 200 } else { 4_000 };
    let meshes: &[f64] = if quick { &[0.1, 0.02] } else { &[0.1, 0.01, 0.001] };
    let finest = meshes[meshes.len() - 1];
    let mut table = Table {
        headers: ["problem", "estimator", "step", "weights, or order in the step"].map(String::from).to_vec(),
        rows: Vec::new(),
    };
    let mut row = |problem: &str, estimator: &str, dt: f64, weights: Vec<String>| {
        table.rows.push(vec![problem.into(), estimator.into(), dt.to_string(), weights.join("; ")]);
    };
    let mut effects = Vec::new();
    let mut effect = |name: String, estimate: Estimate, expected| {
        effects.push(Effect { name, estimate, expected });
    };
    let mut second_weights = Vec::new();
    for (colour, (name, criterion)) in CRITERIA.into_iter().enumerate() {
        let mut by_mesh = Vec::new();
        for &dt in meshes {
            say(&format!("the truth in the family: {name}, step {dt}"));
            let found = found(&MartingaleTd { criterion, paths, dt, ..Default::default() }, many)?;
            let weights = [0, 1].map(|at| format!("{:.3}", found.weight(at))).to_vec();
            row("truth (1, 0)", name, dt, weights);
            by_mesh.push(found);
        }
        let weights = meshes.iter().zip(&by_mesh).map(|(dt, found)| (dt.log2(), found.weight(1)));
        second_weights.push(Series::of_estimates(name, weights, colour));
        let (coarse, fine) = (&by_mesh[0], &by_mesh[by_mesh.len() - 1]);
        if criterion == Criterion::MeanSquare {
            effect(
                format!("mean-square: second weight at step {finest}, 0 in truth, -2 as the step falls"),
                fine.weight(1),
                Expected::Between(-2.05, -1.9),
            );
            let moved: Vec<f64> = fine.thetas.iter().zip(&coarse.thetas).map(|(a, b)| a[1] - b[1]).collect();
            effect(
                format!("mean-square: that weight less the one at step {}", meshes[0]),
                t_interval(&moved, "seeds"),
                Expected::Below(-0.2),
            );
        } else {
            effect(
                format!("{name}: second weight at step {finest}, 0 in truth"),
                fine.weight(1),
                Expected::Between(-0.1, 0.1),
            );
        }
    }
    // (limit, least and most of it that are let pass)
    let limits = [(0.75, 0.73, 0.77), (1.25, 1.2, 1.3), (2.0 / 3.0, 0.65, 0.685)];
    let (mut outside, mut inside) = (Vec::new(), Vec::new());
    for (colour, ((name, criterion), (limit, low, high))) in CRITERIA.into_iter().zip(limits).enumerate() {
        say(&format!("the truth outside the family: {name}"));
        let base = MartingaleTd {
            criterion,
            diffusion: Diffusion::BrownianMisspecified,
            paths,
            dt: finest,
            ..Default::default()
        };
        let theta = found(&base, many)?.weight(0);
        row(&format!("no truth, limit {limit:.3}"), name, finest, vec![format!("{theta:.4}")]);
        let name_of_effect = format!("family without the truth, {name}: weight, {limit:.3} in theory");
        effect(name_of_effect, theta, Expected::Between(low, high));
        let mesh = if quick { 3 } else { 6 };
        let study = MartingaleTd { mesh, dt: 1.0 / f64::from(8 << mesh), paths: paths / 4, ..base };
        let studied = found(&study, many)?;
        outside.push(studied.change(name, colour));
        let order = t_interval(&studied.orders, "seeds");
        row("no truth", &format!("{name}: order"), study.dt, vec![format!("{order:.3}")]);
        if criterion != Criterion::MeanSquare {
            let name_of_effect = format!("family without the truth, {name}: order in the step size");
            effect(name_of_effect, order, Expected::Between(0.8, 1.2));
            let study = MartingaleTd { diffusion: Diffusion::BrownianSquare, ..study };
            let studied = found(&study, many)?;
            inside.push(studied.change(name, colour));
            let order = t_interval(&studied.orders, "seeds");
            row("truth (1, 0)", &format!("{name}: order"), study.dt, vec![format!("{order:.3}")]);
        }
    }
    // Less would leave TD on its way.
    let time = 4_000.0;
    let endless = MartingaleTd {
        diffusion: Diffusion::LinearQuadratic,
        paths: 1,
        horizon: Some(time),
        decay: 0.0,
        average: true,
        ..Default::default()
    };
    let online = |learning_rate| MartingaleTd { solver: Solver::Online, learning_rate, ..endless.clone() };
    for (name, settings, most) in [
        ("CLSTD(0)", endless.clone(), Some(0.05)),
        ("CTD(0), alpha 0.005", online(0.005), Some(0.1)),
        ("CTD(0), alpha 0.02", online(0.02), None),
    ] {
        say(&format!("without end: {name}"));
        let found = found(&settings, many)?;
        row(
            "truth (-0.4, -0.8)",
            name,
            settings.dt,
            [0, 1].map(|at| format!("{:.3}", found.weight(at))).to_vec(),
        );
        for (at, truth) in [-0.4, -0.8].into_iter().enumerate() {
            if let Some(most) = most {
                effect(
                    format!("without end, {name}: weight {} over the truth", at + 1),
                    found.scaled(at, truth),
                    Expected::Between(1.0 - most, 1.0 + most),
                );
            }
        }
    }
    let plots = vec![
        LinePlot {
            title: "Second weight, 0 in truth, as the grid gets finer".into(),
            x_label: "log2 of the step dt".into(),
            y_label: "second weight".into(),
            series: second_weights,
        },
        convergence("Family without the truth: the slope is the convergence order", outside, &[(1, 1.0)]),
        convergence(
            "Family with the truth, noise alone: the slope is the convergence order",
            inside,
            &[(0, 1.0), (1, 0.5)],
        ),
    ];
    Ok(ClaimResult {
        slug: "martingale-td".into(),
        claim: "In continuous time the mean-square TD error tends to a quadratic variation: minimising it gets worse as the grid gets \
                finer. The martingale loss finds the best approximation in mean square, and the orthogonality conditions give LSTD \
                and TD that converge, in first order of the step."
            .into(),
        setup: format!(
            "Brownian motion on [0, 1], h = x^2, no reward on the way: J = x^2 + theta_1 (T-t) + theta_2 (T-t) x^2 holds the truth, \
             J = x^2 + theta (T-t)^2 does not. {paths} paths for each of {many} seeds, the same paths for all; all equations solved \
             exactly. Orders: slope of log |theta(dt) - theta(2 dt)| over log dt, on {} paths each coarsened. Without end: dX = -X dt + \
             dW, r = -x^2, rho = 0.5, J = theta_1 x^2 + theta_2, one path of time {time}, step 0.01; CTD(0) online with a constant step \
             size, mean of its second half. Nothing was tuned.",
            paths / 4
        ),
        table,
        effects,
        plots,
        remarks: "CTD(0) with a constant step size has a bias that grows with it; its second step size is shown for that. Where the \
                  family holds the truth, the step causes no bias here, and the order is that of the noise alone. CLSTD(0) \
                  without the truth has a small bias, about dt / 9, and a noise of the same order."
            .into(),
        command: format!("polo reproduce martingale-td --seeds {seeds}"),
        seconds: clock.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wiring_holds() {
        let result = reproduce(Path::new(""), 5, true, &mut |_| {}).unwrap();
        assert!(result.effects.iter().all(|effect| effect.estimate.mean.is_finite()));
        // What does not need many paths.
        assert!(result.effects[0].estimate.mean < -1.7);
        let series: Vec<usize> = result.plots.iter().map(|plot| plot.series.len()).collect();
        assert_eq!(series, [3, 4, 4]);
        // The slope that is drawn is the order of the table: that of the means is the mean of the slopes.
        let points = &result.plots[1].series[1].points;
        let (n, levels) = (points.len() as f64, points.iter().map(|point| point.0));
        let centre = levels.clone().sum::<f64>() / n;
        let slope = points.iter().map(|point| (point.0 - centre) * point.1).sum::<f64>()
            / levels.map(|x| (x - centre).powi(2)).sum::<f64>();
        let order = result.effects.iter().find(|effect| effect.name.contains("martingale loss: order"));
        assert!((order.unwrap().estimate.mean - slope).abs() < 1e-9, "{slope}");
    }
}
