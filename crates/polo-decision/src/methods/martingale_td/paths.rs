//! Where paths come from: diffusions whose value functions are known, and the user's own observations.

use std::{collections::HashSet, path::Path as FilePath};

use polo_run::{Problem, Result, seed::Seeds};
use rand_chacha::rand_core::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use super::{
    exploratory::{Exploratory, discounted_time},
    moments::Path,
};
use crate::{draw, linear::dot, logged::Table};

/// A diffusion under a policy that is to be evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Diffusion {
    /// Brownian motion from 0 with the terminal reward x^2; J = x^2 + theta_1 (T - t) + theta_2 (T - t) x^2 holds the truth,
    /// (1, 0).
    #[default]
    BrownianSquare,
    /// The same with J = x^2 + theta (T - t)^2, which does not: estimators differ in what they take for the best.
    BrownianMisspecified,
    /// A call option on a geometric Brownian motion from 1, the strike, of drift rho and volatility 0.2, whose value is that
    /// of Black and Scholes; g of its features is exp(-8 (x-1)^2 / (T-t)).
    CallOption,
    /// dX = -X dt + dW with the reward -x^2 per unit of time, without end; J = theta_1 x^2 + theta_2.
    LinearQuadratic,
    /// Linear-quadratic control by the best policy with an entropy bonus, a normal distribution of actions, without end:
    /// dX = (u - X) dt + u dW with the reward -(x^2 + u^2 / 2) - ln pi(u|x) per unit of time; J = theta_1 x^2 + theta_2.
    ExploratoryQuadratic,
    /// The same until T, where the terminal reward is what makes that policy the best at all times;
    /// J = J_0 + theta_1 w + theta_2 w x^2 with w = (1 - e^(-rho (T-t))) / rho, which is T - t at rho = 0.
    ExploratoryQuadraticEnd,
}

const VOLATILITY: f64 = 0.2;

impl Diffusion {
    /// rho unless given.
    pub fn usual_rate(self) -> f64 {
        match self {
            Self::BrownianSquare | Self::BrownianMisspecified | Self::ExploratoryQuadraticEnd => 0.0,
            Self::CallOption => 0.05,
            Self::LinearQuadratic | Self::ExploratoryQuadratic => 0.5,
        }
    }

    /// T, or the length of a stretch where there is no end, unless given.
    pub fn usual_horizon(self) -> f64 {
        if self.ends() { 1.0 } else { 10.0 }
    }

    /// Whether there is a terminal reward.
    pub fn ends(self) -> bool {
        !matches!(self, Self::LinearQuadratic | Self::ExploratoryQuadratic)
    }

    /// Names of the features.
    pub fn names(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::BrownianSquare => &["(T-t)", "(T-t)x^2"],
            Self::BrownianMisspecified => &["(T-t)^2"],
            Self::CallOption => &["(T-t)^0.5 g", "|x-1| g", "(T-t) g", "(T-t)/(1+e^-10(x-1))"],
            Self::LinearQuadratic | Self::ExploratoryQuadratic => &["x^2", "1"],
            Self::ExploratoryQuadraticEnd => &["w", "w x^2"],
        };
        names.iter().map(|name| (*name).to_string()).collect()
    }

    fn add_features(self, left: f64, x: f64, rho: f64, to: &mut Vec<f64>) {
        match self {
            Self::BrownianSquare => to.extend([left, left * x * x]),
            Self::BrownianMisspecified => to.extend([left * left]),
            Self::CallOption => {
                // A bell around the strike, as wide as the price still moves if volatility is about 0.25.
                let m = x - 1.0;
                let bell = (-8.0 * m * m / left.max(f64::MIN_POSITIVE)).exp();
                to.extend([left.sqrt() * bell, m.abs() * bell, left * bell, left / (1.0 + (-10.0 * m).exp())])
            }
            Self::LinearQuadratic | Self::ExploratoryQuadratic => to.extend([x * x, 1.0]),
            Self::ExploratoryQuadraticEnd => {
                let time = discounted_time(rho, left);
                to.extend([time, time * x * x]);
            }
        }
    }

    /// J_0, which meets the terminal reward.
    fn base(self, x: f64, rho: f64) -> f64 {
        match self {
            Self::BrownianSquare | Self::BrownianMisspecified => x * x,
            Self::CallOption => (x - 1.0).max(0.0),
            Self::LinearQuadratic | Self::ExploratoryQuadratic => 0.0,
            Self::ExploratoryQuadraticEnd => Exploratory::new(rho).base(x),
        }
    }

    /// The true value with time `left` at x.
    pub fn value(self, left: f64, x: f64, rho: f64) -> f64 {
        match self {
            Self::BrownianSquare | Self::BrownianMisspecified => (-rho * left).exp() * (x * x + left),
            Self::CallOption if left > 0.0 => {
                // Black and Scholes, strike 1.
                let spread = VOLATILITY * left.sqrt();
                let d = (x.ln() + rho * left) / spread + 0.5 * spread;
                let normal = Normal::standard();
                x * normal.cdf(d) - (-rho * left).exp() * normal.cdf(d - spread)
            }
            Self::CallOption => self.base(x, rho),
            Self::LinearQuadratic => {
                let p = 1.0 / (rho + 2.0);
                -p * (x * x + 1.0 / rho)
            }
            Self::ExploratoryQuadratic => {
                let best = Exploratory::new(rho);
                best.base(x) + best.constant / rho
            }
            Self::ExploratoryQuadraticEnd => {
                let best = Exploratory::new(rho);
                best.base(x) + best.constant * discounted_time(rho, left)
            }
        }
    }

    fn start(self, rho: f64, rng: &mut impl Rng) -> f64 {
        match self {
            Self::BrownianSquare | Self::BrownianMisspecified => 0.0,
            Self::CallOption => 1.0,
            // Its stationary law.
            Self::LinearQuadratic => 0.5_f64.sqrt() * draw::normal(rng),
            Self::ExploratoryQuadratic | Self::ExploratoryQuadraticEnd => Exploratory::new(rho).start(rng),
        }
    }

    /// The reward per unit of time at x, and the next state after dt, by the exact law, which has no error of its own in dt.
    fn step(self, x: f64, dt: f64, rho: f64, rng: &mut impl Rng) -> (f64, f64) {
        if matches!(self, Self::ExploratoryQuadratic | Self::ExploratoryQuadraticEnd) {
            return Exploratory::new(rho).step(x, dt, rng);
        }
        let noise = draw::normal(rng);
        match self {
            Self::CallOption => {
                let growth = (rho - 0.5 * VOLATILITY * VOLATILITY) * dt + VOLATILITY * dt.sqrt() * noise;
                (0.0, x * growth.exp())
            }
            Self::LinearQuadratic => {
                (-x * x, (-dt).exp() * x + (0.5 * (1.0 - (-2.0 * dt).exp())).sqrt() * noise)
            }
            _ => (0.0, x + dt.sqrt() * noise),
        }
    }
}

/// Paths of a diffusion.
#[derive(Clone, Debug)]
pub struct Simulator {
    /// Which.
    pub diffusion: Diffusion,
    /// Time between points of the grid.
    pub dt: f64,
    /// Steps of a path.
    pub steps: usize,
    /// rho.
    pub rho: f64,
    /// Features in place of the diffusion's own; none where empty.
    pub features: Vec<Product>,
    /// Test functions in place of the features; none where empty.
    pub tests: Vec<Product>,
}

impl Simulator {
    /// Path number `counter` of a stream.
    pub fn path(&self, stream: &str, counter: u64, seeds: &Seeds) -> Path {
        self.walk(stream, counter, seeds, false)
    }

    /// The same with the true values along it.
    pub fn path_with_truth(&self, stream: &str, counter: u64, seeds: &Seeds) -> Path {
        self.walk(stream, counter, seeds, true)
    }

    fn walk(&self, stream: &str, counter: u64, seeds: &Seeds, with_truth: bool) -> Path {
        let (kind, mut rng) = (self.diffusion, seeds.rng(stream, counter));
        let horizon = self.steps as f64 * self.dt;
        let mut path = Path { ends: kind.ends(), ..Path::default() };
        let mut x = kind.start(self.rho, &mut rng);
        for i in 0..=self.steps {
            let time = i as f64 * self.dt;
            let last = i == self.steps;
            let left = if last { 0.0 } else { horizon - time };
            path.times.push(time);
            path.base.push(kind.base(x, self.rho));
            if with_truth {
                path.truth.push(kind.value(left, x, self.rho));
            }
            let before = path.features.len();
            if self.features.is_empty() {
                kind.add_features(left, x, self.rho, &mut path.features);
            } else {
                path.features.extend(evaluate(&self.features, &[time, left, x]));
            }
            path.width = path.features.len() - before;
            if last && path.ends {
                path.features[before..].fill(0.0);
            }
            path.tests.extend(evaluate(&self.tests, &[time, left, x]));
            let (reward, next) = kind.step(x, self.dt, self.rho, &mut rng);
            path.rewards.push(reward);
            x = next;
        }
        path
    }
}

/// Names that products may use beside the states.
const CLOCKS: [&str; 2] = ["time", "remaining"];

/// A product of columns, `time*x*x`; `1` is the constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// As it was written.
    pub name: String,
    /// Places in `[time, remaining, states ..]`.
    factors: Vec<usize>,
}

impl Product {
    /// Reads a product of `time`, `remaining` (the time to the path's end) and states.
    ///
    /// # Errors
    /// A name that there is not.
    pub fn read(text: &str, states: &[String], key: &str) -> Result<Self> {
        let names = || CLOCKS.into_iter().chain(states.iter().map(String::as_str));
        let factor = |name: &str| {
            names().position(|known| known == name).ok_or_else(|| {
                Problem::usage(format!("there is no column `{name}` to make `{text}` of"))
                    .place(format!("method.{key}"))
                    .hint(format!("multiply these with *: {}", names().collect::<Vec<_>>().join(", ")))
            })
        };
        let parts = text.split('*').map(str::trim).filter(|part| *part != "1");
        Ok(Self { name: text.trim().into(), factors: parts.map(factor).collect::<Result<_>>()? })
    }

    /// All products of up to `degree` of the states and, where there is an end, of the time that remains.
    pub fn all(degree: usize, states: &[String], ends: bool) -> Vec<Self> {
        let first = if ends { 1 } else { 2 };
        let name = |place: usize| if place == 1 { CLOCKS[1] } else { &states[place - 2] };
        let mut products = vec![Self { name: "1".into(), factors: Vec::new() }];
        let mut newest = products.clone();
        for _ in 0..degree {
            let longer = newest.iter().flat_map(|product| {
                let from = product.factors.last().copied().unwrap_or(first);
                (from..states.len() + 2).map(|place| {
                    let mut factors = product.factors.clone();
                    factors.push(place);
                    let names: Vec<&str> = factors.iter().map(|place| name(*place)).collect();
                    Self { name: names.join("*"), factors: factors.clone() }
                })
            });
            newest = longer.collect();
            products.extend(newest.iter().cloned());
        }
        products
    }
}

fn evaluate(products: &[Product], columns: &[f64]) -> Vec<f64> {
    products.iter().map(|product| product.factors.iter().map(|place| columns[*place]).product()).collect()
}

/// The user's paths, and the features of the family.
#[derive(Clone, Debug)]
pub struct Observed {
    /// In the order of the file.
    pub paths: Vec<Path>,
    /// Names of the features.
    pub names: Vec<String>,
}

/// What the columns of a file of paths are called beside the states.
const COLUMNS: [&str; 4] = ["path", "time", "reward", "terminal"];

impl Observed {
    /// Reads a CSV file, one row for each observation, the rows of a path together and in the order of time. Columns:
    ///
    /// - `path`: any text that tells paths apart;
    /// - `time`: rising within a path, in any steps;
    /// - `reward`: reward per unit of time from this row to the next; may be empty in a path's last row;
    /// - `terminal`: the reward at the end, in the last row of every path and empty elsewhere. A file without this column
    ///   has paths of a process without end, cut where observation stopped;
    /// - all others: the state, numbers.
    ///
    /// J is a sum of products (`features`, or all of `degree`) before the end and the terminal reward at the end.
    ///
    /// # Errors
    /// No table, a column that is missing, a cell that is no finite number, a path with one row or two stretches, time that
    /// does not rise, a terminal reward that is missing or out of place, no state.
    pub fn read(file: &FilePath, features: &[String], degree: usize, tests: &[String]) -> Result<Self> {
        let table = Table::read(file)?;
        let [path, time, reward] = ["path", "time", "reward"].map(|name| table.column(name));
        let (path, time, reward) = (path?, time?, reward?);
        let terminal = table.find("terminal");
        let is_state = |(_, name): &(usize, &str)| !COLUMNS.contains(name);
        let (places, states): (Vec<usize>, Vec<String>) = table
            .headers
            .iter()
            .enumerate()
            .filter(is_state)
            .map(|(place, name)| (place, name.to_string()))
            .unzip();
        if let Some(clash) = states.iter().find(|name| CLOCKS.contains(&name.as_str())) {
            return Err(Problem::input(format!("`{clash}` is made of `time` and cannot be a state"))
                .at(file, 1, None));
        }
        if states.is_empty() {
            return Err(Problem::input("there is no column for the state").at(file, 1, None));
        }
        let read = |texts: &[String], key: &str| {
            texts.iter().map(|text| Product::read(text, &states, key)).collect::<Result<Vec<_>>>()
        };
        let mut products = read(features, "features")?;
        let tests = read(tests, "tests")?;
        if products.is_empty() {
            products = Product::all(degree, &states, terminal.is_some());
        }
        let rows: Vec<_> = table.rows().collect();
        let (mut paths, mut seen) = (Vec::new(), HashSet::new());
        for stretch in rows.chunk_by(|a, b| a.text(path) == b.text(path)) {
            let name = stretch[0].text(path);
            if !seen.insert(name) {
                return Err(stretch[0].problem(path, format!("path `{name}` stands in two places")));
            }
            let times = stretch.iter().map(|row| row.number(time)).collect::<Result<Vec<f64>>>()?;
            if let Some(at) = times.windows(2).position(|pair| pair[0] >= pair[1]) {
                return Err(stretch[at + 1].problem(time, format!("the time of path `{name}` does not rise")));
            }
            let last = stretch.len() - 1;
            if last == 0 {
                return Err(stretch[0].problem(path, format!("path `{name}` has one row alone")));
            }
            let mut found = Path { width: products.len(), ends: terminal.is_some(), ..Path::default() };
            for (i, row) in stretch.iter().enumerate() {
                let columns = [Ok(times[i]), Ok(times[last] - times[i])]
                    .into_iter()
                    .chain(places.iter().map(|place| row.number(*place)))
                    .collect::<Result<Vec<f64>>>()?;
                let unused = i == last && row.text(reward).is_empty();
                found.rewards.push(if unused { 0.0 } else { row.number(reward)? });
                let mut features = evaluate(&products, &columns);
                let mut base = 0.0;
                if let Some(terminal) = terminal {
                    if i == last {
                        base = row.number(terminal)?;
                        features.fill(0.0);
                    } else if !row.text(terminal).is_empty() {
                        let text = format!("path `{name}` goes on after its `terminal` reward");
                        return Err(row.problem(terminal, text));
                    }
                }
                found.base.push(base);
                found.features.extend(features);
                found.tests.extend(evaluate(&tests, &columns));
            }
            found.times = times;
            paths.push(found);
        }
        Ok(Self { paths, names: products.into_iter().map(|product| product.name).collect() })
    }
}

/// Root of the mean squared difference between J and the true value over the points of paths, each by the time it stands
/// for. None where the truth is not known.
pub fn value_error(paths: &[Path], theta: &[f64]) -> Option<f64> {
    let (mut sum, mut time) = (0.0, 0.0);
    for path in paths {
        if path.truth.is_empty() {
            return None;
        }
        for i in 0..path.steps() {
            let error = path.base[i] + dot(theta, path.feature(i)) - path.truth[i];
            sum += error * error * path.dt(i);
            time += path.dt(i);
        }
    }
    (time > 0.0).then(|| (sum / time).sqrt())
}
