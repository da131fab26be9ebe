//! SRPO's robustness claim, exactly: its solution does not depend on who wrote the answers.
//!
//! One prompt, three answers with intransitive preferences, policies as tables instead of a model. The very losses of
//! [`crate::methods`] are minimised over the tables under three behaviour policies, with known preference
//! probabilities and with sampled labels. SRPO must find its closed form every time (Choi et al. 2024, section 4);
//! IPO's and DPO's solutions move with the behaviour policy. `polo reproduce srpo` calls [`behaviour_independence`].

use polo_run::seed::{Seeds, unit};

use super::tabular::{self, Examples, Stop, minimise, pick, softmax};
use crate::{
    methods::{dpo::Dpo, ipo::Ipo, srpo::Srpo},
    objective::PairObjective,
};

/// Number of answers.
const ANSWERS: usize = 3;

/// `PREFERENCES[i][j]`: probability that answer i beats answer j.
pub const PREFERENCES: [[f64; ANSWERS]; ANSWERS] = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]];

/// The behaviour policies: how often each answer is written.
pub const BEHAVIOURS: [[f64; ANSWERS]; 3] = [[1.0 / 3.0; 3], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7]];

/// Beta of all three methods.
pub const BETA: f64 = 0.25;

/// SRPO's alphas in the exact part; its sampled part uses the middle one.
pub const ALPHAS: [f64; 3] = [0.1, 0.5, 0.9];

/// Sampled pairs per behaviour policy and seed.
pub const PAIRS: usize = 10_000;

/// A distribution over the answers.
pub type Policy = [f64; ANSWERS];

/// What SRPO's theory predicts for a uniform reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClosedForm {
    /// Z(y) = mean over y2 of exp(p(y2 > y) / beta).
    pub z: [f64; ANSWERS],
    /// pi(y), proportional to 1 / Z(y).
    pub policy: Policy,
    /// pi'(y2 | y1), one row for each y1.
    pub improvement: [Policy; ANSWERS],
}

/// A minimum that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// `srpo`, `ipo` or `dpo`.
    pub method: &'static str,
    /// SRPO's alpha.
    pub alpha: Option<f64>,
    /// Who wrote the answers.
    pub behaviour: Policy,
    /// The generative policy.
    pub policy: Policy,
    /// SRPO's self-improvement policy, one row for each earlier answer.
    pub improvement: Option<[Policy; ANSWERS]>,
    /// The loss at the minimum.
    pub loss: f64,
}

/// Spreads of one seed's sampled labels; see [`spread`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampledSpread {
    /// The labels' seed.
    pub seed: u64,
    /// Of SRPO.
    pub srpo: f64,
    /// Of IPO.
    pub ipo: f64,
    /// Of DPO.
    pub dpo: f64,
}

/// All numbers of the experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct BehaviourIndependence {
    /// The prediction.
    pub closed_form: ClosedForm,
    /// Minima with known preference probabilities: for each behaviour policy SRPO at each alpha, IPO, DPO.
    pub exact: Vec<Solution>,
    /// Spreads with [`PAIRS`] sampled labels per behaviour policy, one for each seed.
    pub sampled: Vec<SampledSpread>,
}

impl BehaviourIndependence {
    /// The [`spread`] of a method's exact solutions, over behaviour policies and, for SRPO, alphas.
    pub fn exact_spread(&self, method: &str) -> f64 {
        let found = self.exact.iter().filter(|solution| solution.method == method);
        spread(&found.map(|solution| solution.policy).collect::<Vec<_>>())
    }
}

/// The largest total-variation distance between two of the policies, in [0, 1].
pub fn spread(policies: &[Policy]) -> f64 {
    let distance = |a: &Policy, b: &Policy| 0.5 * a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>();
    policies.iter().flat_map(|a| policies.iter().map(move |b| distance(a, b))).fold(0.0, f64::max)
}

/// Runs the whole experiment; the exact part does not depend on the seeds. Takes some seconds.
pub fn behaviour_independence(seeds: &[u64]) -> BehaviourIndependence {
    let exact = BEHAVIOURS.iter().flat_map(|behaviour| {
        let pairs = Pairs::population(behaviour);
        let srpo = ALPHAS.map(|alpha| solve("srpo", Some(alpha), *behaviour, &pairs));
        srpo.into_iter().chain(["ipo", "dpo"].map(|method| solve(method, None, *behaviour, &pairs)))
    });
    let sampled = seeds.iter().map(|&seed| {
        let pairs = [0, 1, 2].map(|behaviour| Pairs::sampled(behaviour, seed));
        let spread_of = |method, alpha| {
            let solve = |behaviour: usize| solve(method, alpha, BEHAVIOURS[behaviour], &pairs[behaviour]);
            spread(&[0, 1, 2].map(|behaviour| solve(behaviour).policy))
        };
        SampledSpread {
            seed,
            srpo: spread_of("srpo", Some(ALPHAS[1])),
            ipo: spread_of("ipo", None),
            dpo: spread_of("dpo", None),
        }
    });
    BehaviourIndependence {
        closed_form: closed_form(BETA),
        exact: exact.collect(),
        sampled: sampled.collect(),
    }
}

/// SRPO's solution for a uniform reference.
pub fn closed_form(beta: f64) -> ClosedForm {
    let towards = |y1: usize, y2: usize| (PREFERENCES[y2][y1] / beta).exp() / ANSWERS as f64;
    let z = [0, 1, 2].map(|y1| (0..ANSWERS).map(|y2| towards(y1, y2)).sum::<f64>());
    let total: f64 = z.iter().map(|z| 1.0 / z).sum();
    ClosedForm {
        z,
        policy: z.map(|z| 1.0 / z / total),
        improvement: [0, 1, 2].map(|y1| [0, 1, 2].map(|y2| towards(y1, y2) / z[y1])),
    }
}

/// Every ordered pair (i beats j), row by row: its weight in the mean loss, and its label.
struct Pairs {
    weights: [f64; ANSWERS * ANSWERS],
    labels: [f64; ANSWERS * ANSWERS],
}

impl Pairs {
    /// Two answers drawn from `behaviour`, with the true preference probability as a soft label.
    fn population(behaviour: &Policy) -> Self {
        Self {
            weights: std::array::from_fn(|pair| behaviour[pair / ANSWERS] * behaviour[pair % ANSWERS]),
            labels: std::array::from_fn(|pair| PREFERENCES[pair / ANSWERS][pair % ANSWERS]),
        }
    }

    /// [`PAIRS`] draws, each with a hard label drawn from the preference probability.
    fn sampled(behaviour: usize, seed: u64) -> Self {
        let mut rng = Seeds::new(seed).rng("srpo_exact/pairs", behaviour as u64);
        let mut weights = [0.0; ANSWERS * ANSWERS];
        for _ in 0..PAIRS {
            let [one, other] = [unit(&mut rng), unit(&mut rng)].map(|u| pick(&BEHAVIOURS[behaviour], u));
            let one_wins = unit(&mut rng) < PREFERENCES[one][other];
            let (winner, loser) = if one_wins { (one, other) } else { (other, one) };
            weights[winner * ANSWERS + loser] += 1.0 / PAIRS as f64;
        }
        Self { weights, labels: [1.0; ANSWERS * ANSWERS] }
    }
}

/// Minimises a method's loss over its tables.
fn solve(method: &'static str, alpha: Option<f64>, behaviour: Policy, pairs: &Pairs) -> Solution {
    let objective: Box<dyn PairObjective> = match (method, alpha) {
        (_, Some(alpha)) => Box::new(Srpo { beta: BETA, alpha, ..Srpo::default() }),
        ("ipo", _) => Box::new(Ipo { beta: BETA, ..Ipo::default() }),
        _ => Box::new(Dpo { beta: BETA, ..Dpo::default() }),
    };
    let rows = if alpha.is_some() { 1 + ANSWERS } else { 1 };
    let start = vec![0.0; rows * ANSWERS];
    let (logits, loss) = minimise(start, Stop::EXACT, |logits| table_loss(objective.as_ref(), pairs, logits));
    let policies: Vec<Policy> =
        softmax(&logits, ANSWERS).chunks_exact(ANSWERS).map(|row| [row[0], row[1], row[2]]).collect();
    let improvement = alpha.map(|_| [policies[1], policies[2], policies[3]]);
    Solution { method, alpha, behaviour, policy: policies[0], improvement, loss }
}

/// The pairs as examples over a table of that many rows: row 0 is pi, rows 1 to 3, where there are any, are pi'(.|y1).
fn examples(pairs: &Pairs, rows: usize) -> Examples {
    let improvement = |y1: usize, y2: usize| (1 + y1) * ANSWERS + y2;
    let slots = if rows > 1 { 6 } else { 2 };
    let mut examples = Examples::new(slots);
    for (pair, weight) in pairs.weights.iter().enumerate() {
        let (w, l) = (pair / ANSWERS, pair % ANSWERS);
        // Cells of the tables, in the order of the methods' slots.
        let cells = [w, l, improvement(l, w), improvement(l, l), improvement(w, w), improvement(w, l)];
        examples.push(&cells[..slots], *weight);
    }
    examples.labels = pairs.labels.to_vec();
    examples
}

/// The mean loss over the pairs and its gradient, for a uniform reference.
fn table_loss(objective: &dyn PairObjective, pairs: &Pairs, logits: &[f64]) -> (f64, Vec<f64>) {
    let uniform = vec![-(ANSWERS as f64).ln(); logits.len()];
    let examples = examples(pairs, logits.len() / ANSWERS);
    tabular::loss(objective, &examples, &uniform, ANSWERS, logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (found_one, expected_one) in found.iter().zip(expected) {
            assert!((found_one - expected_one).abs() < tolerance, "{found:?} is not {expected:?}");
        }
    }

    #[test]
    fn the_closed_form_is_the_known_one() {
        let form = closed_form(0.25);
        close(&form.z, &[11.1378, 15.7691, 8.6864], 1e-4);
        close(&form.policy, &[0.3346, 0.2363, 0.4290], 1e-4);
        close(&form.improvement[0], &[0.2211, 0.0446, 0.7342], 1e-4);
        close(&form.improvement[1], &[0.7736, 0.1562, 0.0702], 1e-4);
        close(&form.improvement[2], &[0.0854, 0.6310, 0.2835], 1e-4);
        let mild = closed_form(1.0);
        close(&mild.z, &[1.6598, 1.8194, 1.6280], 1e-4);
        close(&mild.policy, &[0.3411, 0.3112, 0.3478], 1e-4);
    }

    #[test]
    fn the_closed_form_has_no_loss_under_any_behaviour() {
        let form = closed_form(BETA);
        let tables = [form.policy].into_iter().chain(form.improvement).flatten();
        let logits: Vec<f64> = tables.map(f64::ln).collect();
        for behaviour in &BEHAVIOURS {
            for alpha in [0.0, 0.1, 0.5, 0.9, 1.0] {
                let objective = Srpo { beta: BETA, alpha, ..Srpo::default() };
                let (loss, gradient) = table_loss(&objective, &Pairs::population(behaviour), &logits);
                assert!(loss < 1e-12, "alpha {alpha}, {behaviour:?}: {loss}");
                close(&gradient, &[0.0; 12], 1e-12);
            }
        }
    }

    #[test]
    fn only_srpo_is_independent_of_the_behaviour() {
        let found = behaviour_independence(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let expected = [
            ("ipo", [[0.3745, 0.2510, 0.3745], [0.3442, 0.0996, 0.5562], [0.1951, 0.4896, 0.3153]]),
            ("dpo", [[0.4551, 0.0899, 0.4551], [0.1016, 0.0003, 0.8982], [0.0187, 0.8432, 0.1381]]),
        ];
        for (method, policies) in expected {
            let solutions = found.exact.iter().filter(|solution| solution.method == method);
            for (solution, policy) in solutions.zip(policies) {
                close(&solution.policy, &policy, 1e-4);
            }
            assert!(found.exact_spread(method) > 0.2);
        }
        for solution in found.exact.iter().filter(|solution| solution.method == "srpo") {
            assert!(solution.loss < 1e-12, "{solution:?}");
            close(&solution.policy, &found.closed_form.policy, 1e-4);
            close(&solution.improvement.unwrap().concat(), &found.closed_form.improvement.concat(), 1e-4);
        }
        assert!(found.exact_spread("srpo") < 1e-4);
        assert_eq!(found.sampled.len(), 10);
        let mean = |of: fn(&SampledSpread) -> f64| found.sampled.iter().map(of).sum::<f64>() / 10.0;
        let (srpo, ipo, dpo) = (mean(|s| s.srpo), mean(|s| s.ipo), mean(|s| s.dpo));
        assert!(srpo < 0.03 && ipo > 0.2 && dpo > 0.2, "srpo {srpo}, ipo {ipo}, dpo {dpo}");
    }

    #[test]
    fn policies_apart_have_a_spread() {
        assert_eq!(spread(&[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]), 1.0);
        assert_eq!(spread(&[[0.2, 0.3, 0.5]]), 0.0);
    }
}
