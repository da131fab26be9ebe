//! The token MDP, solved exactly: what DPO's log-probs are values of.
//!
//! A state is an answer so far, an action its next token, the next state both together; an action may end the answer.
//! [`TokenMdp::solve`] runs the soft Bellman recursion backwards (Rafailov et al. 2024, section 4), with pi_ref inside
//! of Q*:
//!
//! ```text
//! Q*(s, a) = r(s, a) + beta log ref(a|s) + V*(s')             V* = 0 after the end
//! V*(s)    = beta log sum over a of exp(Q*(s, a) / beta)
//! pi*(a|s) = exp((Q*(s, a) - V*(s)) / beta)
//! ```
//!
//! The tests below are the method's theory; `polo reproduce token-dpo-q` repeats [`binary_tree`] and [`fit`].

use polo_run::seed::{Seeds, unit};

use super::tabular::{self, log_sum_exp, sigmoid, through_softmax};
use crate::{
    methods::dpo::Dpo,
    objective::{Batch, differentiate},
};

/// Rewards and reference over a tree of answers. Tables are `[state][action]`; states are numbered so that every
/// action leads to a higher one, state 0 is the prompt's.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenMdp {
    /// Where an action leads; none where it ends the answer.
    pub next: Vec<Vec<Option<usize>>>,
    /// ref(a|s); positive.
    pub reference: Vec<Vec<f64>>,
    /// r(s, a).
    pub reward: Vec<Vec<f64>>,
    /// Temperature.
    pub beta: f64,
}

/// The optimum; tables are `[state][action]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Q*(s, a), pi_ref's share included.
    pub q: Vec<Vec<f64>>,
    /// V*(s), `[state]`.
    pub v: Vec<f64>,
    /// log pi*(a|s), nats.
    pub log_policy: Vec<Vec<f64>>,
}

/// States and actions from the prompt on.
pub type Path = Vec<(usize, usize)>;

impl TokenMdp {
    /// A tree in which all answers have `depth` tokens out of `actions`; uniform reference, no reward.
    pub fn complete(actions: usize, depth: usize, beta: f64) -> Self {
        Self::tree(actions, depth, beta, false)
    }

    /// The same with answers of up to `depth` tokens, action 0 ending each, and random rewards and reference.
    pub fn random(actions: usize, depth: usize, beta: f64, seeds: &Seeds) -> Self {
        let mut mdp = Self::tree(actions, depth, beta, true);
        let mut rng = seeds.rng("token mdp", 0);
        for (reward, reference) in mdp.reward.iter_mut().zip(&mut mdp.reference) {
            reward.iter_mut().for_each(|r| *r = 2.0 * unit(&mut rng) - 1.0);
            let logits: Vec<f64> = reference.iter().map(|_| 3.0 * unit(&mut rng)).collect();
            *reference = tabular::softmax(&logits, actions);
        }
        mdp
    }

    fn tree(actions: usize, depth: usize, beta: f64, first_ends: bool) -> Self {
        let (mut next, mut level, mut states) = (Vec::new(), 1, 1);
        for below in (0..depth).rev() {
            for _ in 0..level {
                let leads = |action: usize| below > 0 && !(first_ends && action == 0);
                let mut lead = |action| {
                    leads(action).then(|| {
                        states += 1;
                        states - 1
                    })
                };
                next.push((0..actions).map(&mut lead).collect::<Vec<_>>());
            }
            level *= actions - usize::from(first_ends);
        }
        let table = |value: f64| vec![vec![value; actions]; next.len()];
        Self { reference: table(1.0 / actions as f64), reward: table(0.0), next, beta }
    }

    /// Soft Bellman recursion, last states first.
    pub fn solve(&self) -> Solution {
        let states = self.next.len();
        let (mut q, mut v) = (vec![Vec::new(); states], vec![0.0; states]);
        let mut log_policy = q.clone();
        for state in (0..states).rev() {
            let value = |action: usize| {
                let after = self.next[state][action].map_or(0.0, |next: usize| v[next]);
                self.reward[state][action] + self.beta * self.reference[state][action].ln() + after
            };
            q[state] = (0..self.next[state].len()).map(value).collect();
            let scaled: Vec<f64> = q[state].iter().map(|q| q / self.beta).collect();
            let log_total = log_sum_exp(&scaled);
            v[state] = self.beta * log_total;
            log_policy[state] = scaled.iter().map(|scaled| scaled - log_total).collect();
        }
        Solution { q, v, log_policy }
    }

    /// All partial answers of at least one token.
    pub fn partial(&self) -> Vec<Path> {
        let (mut all, mut open): (Vec<Path>, Vec<(Path, usize)>) = (Vec::new(), vec![(Vec::new(), 0)]);
        while let Some((path, state)) = open.pop() {
            for (action, next) in self.next[state].iter().enumerate() {
                let longer = [path.as_slice(), &[(state, action)]].concat();
                if let Some(next) = next {
                    open.push((longer.clone(), *next));
                }
                all.push(longer);
            }
        }
        all.sort();
        all
    }

    /// The state after a partial answer; none after a whole one.
    pub fn after(&self, path: &Path) -> Option<usize> {
        path.last().map_or(Some(0), |&(state, action)| self.next[state][action])
    }

    /// All whole answers.
    pub fn answers(&self) -> Vec<Path> {
        self.partial().into_iter().filter(|path| self.after(path).is_none()).collect()
    }

    /// Sum of a table over a path.
    pub fn along(table: &[Vec<f64>], path: &Path) -> f64 {
        path.iter().map(|&(state, action)| table[state][action]).sum()
    }

    /// beta log pi/ref of every token, `[state][action]`: the implicit reward.
    pub fn implicit(&self, log_policy: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let ratio = |(logp, reference): (&f64, &f64)| self.beta * (logp - reference.ln());
        let rows = log_policy.iter().zip(&self.reference);
        rows.map(|(logps, reference)| logps.iter().zip(reference).map(ratio).collect()).collect()
    }

    /// What value-guided search ranks a partial answer by: sum of r + beta log ref, and V* of where it stands.
    pub fn value_guided(&self, solution: &Solution, path: &Path) -> f64 {
        let own = |&(state, action): &(usize, usize)| {
            self.reward[state][action] + self.beta * self.reference[state][action].ln()
        };
        path.iter().map(own).sum::<f64>() + self.after(path).map_or(0.0, |state| solution.v[state])
    }

    /// Probabilities of whole answers under the reference, in the order of `answers`.
    pub fn reference_of(&self, answers: &[Path]) -> Vec<f64> {
        let of = |path: &Path| path.iter().map(|&(state, action)| self.reference[state][action]).product();
        answers.iter().map(of).collect()
    }
}

/// Example A of the method's small-scale proof: two steps of two tokens, R(00) = 0, R(01) = 1, R(10) = R(11) = 1/2,
/// beta = 1/2.
pub fn binary_tree() -> TokenMdp {
    let mut mdp = TokenMdp::complete(2, 2, 0.5);
    // States: the prompt, after 0, after 1.
    mdp.reward[1] = vec![0.0, 1.0];
    mdp.reward[2] = vec![0.5, 0.5];
    mdp
}

/// DPO over a table of logits: gradient descent on the mean loss over all ordered pairs of different answers, labelled
/// with their exact Bradley-Terry probabilities, by the very loss of `polo train dpo`. Returns log pi(a|s),
/// `[state][action]`. All states must have equally many actions.
pub fn fit(mdp: &TokenMdp, steps: usize, rate: f64) -> Vec<Vec<f64>> {
    let actions = mdp.next[0].len();
    let (answers, objective) = (mdp.answers(), Dpo { beta: mdp.beta, ..Dpo::default() });
    let count = answers.len();
    let pairs: Vec<[usize; 2]> =
        (0..count).flat_map(|w| (0..count).map(move |l| [w, l])).filter(|[w, l]| w != l).collect();
    let returns: Vec<f64> = answers.iter().map(|path| TokenMdp::along(&mdp.reward, path)).collect();
    let slots = |values: &[f64]| -> Vec<Vec<f64>> {
        (0..2).map(|slot| pairs.iter().map(|pair| values[pair[slot]]).collect()).collect()
    };
    let log_reference: Vec<f64> = mdp.reference_of(&answers).into_iter().map(f64::ln).collect();
    let mut batch = Batch {
        reference: slots(&log_reference),
        tokens: (0..2).map(|slot| pairs.iter().map(|pair| answers[pair[slot]].len()).collect()).collect(),
        labels: pairs.iter().map(|[w, l]| sigmoid(returns[*w] - returns[*l])).collect(),
        typicality: vec![vec![0.0; pairs.len()]; 2],
        ..Batch::default()
    };
    let rows = |flat: &[f64]| -> Vec<Vec<f64>> { flat.chunks_exact(actions).map(<[f64]>::to_vec).collect() };
    let mut logits: Vec<f64> = mdp.reference.concat().into_iter().map(f64::ln).collect();
    for _ in 0..steps {
        let log_policy = tabular::log_softmax(&logits, actions);
        let table = rows(&log_policy);
        let sums: Vec<f64> = answers.iter().map(|path| TokenMdp::along(&table, path)).collect();
        batch.policy = slots(&sums);
        let found = differentiate(&objective, &batch);
        let mut by_log_policy = vec![0.0; logits.len()];
        for (derivatives, slot) in found.policy.iter().zip(0..2) {
            for (derivative, pair) in derivatives.iter().zip(&pairs) {
                for &(state, action) in &answers[pair[slot]] {
                    by_log_policy[state * actions + action] += derivative / pairs.len() as f64;
                }
            }
        }
        let gradient = through_softmax(&by_log_policy, &log_policy, actions);
        logits.iter_mut().zip(gradient).for_each(|(logit, g)| *logit -= rate * g);
    }
    rows(&tabular::log_softmax(&logits, actions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (one, other) in found.iter().zip(expected) {
            assert!((one - other).abs() < tolerance, "{found:?} is not {expected:?}");
        }
    }

    fn some() -> Vec<TokenMdp> {
        let random = |seed| TokenMdp::random(3, 4, 0.3 + 0.2 * seed as f64, &Seeds::new(seed));
        [binary_tree()].into_iter().chain((0..3).map(random)).collect()
    }

    #[test]
    fn trees_have_the_answers_they_should() {
        let counts = |mdp: &TokenMdp| (mdp.next.len(), mdp.partial().len(), mdp.answers().len());
        assert_eq!(counts(&binary_tree()), (3, 6, 4));
        // Two tokens that go on, one that ends: 1 + 2 + 4 + 8 states; all three end in the last.
        assert_eq!(counts(&TokenMdp::random(3, 4, 1.0, &Seeds::new(0))), (15, 45, 1 + 2 + 4 + 8 * 3));
        for mdp in some() {
            assert!((mdp.reference_of(&mdp.answers()).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_binary_tree_by_hand() {
        let mdp = binary_tree();
        let solution = mdp.solve();
        close(&solution.v, &[0.62011, 0.71689, 0.5], 1e-5);
        let answers = mdp.answers();
        let probabilities: Vec<f64> =
            answers.iter().map(|path| TokenMdp::along(&solution.log_policy, path).exp()).collect();
        close(&probabilities, &[0.0723, 0.5344, 0.1966, 0.1966], 5e-5);
        let implicit = mdp.implicit(&solution.log_policy);
        close(&implicit.concat(), &[0.0968, -0.1201, -0.7169, 0.2831, 0.0, 0.0], 5e-5);
        let representative: Vec<f64> =
            answers.iter().map(|path| TokenMdp::along(&implicit, path) + solution.v[0]).collect();
        close(&representative, &[0.0, 1.0, 0.5, 0.5], 1e-12);
    }

    /// r = beta log pi*/ref + V*(s) - V*(s'), token by token, and its sum over answers.
    #[test]
    fn rewards_are_log_ratios_up_to_shaping() {
        for mdp in some() {
            let solution = mdp.solve();
            let implicit = mdp.implicit(&solution.log_policy);
            for (state, rewards) in mdp.reward.iter().enumerate() {
                for (action, reward) in rewards.iter().enumerate() {
                    let after = mdp.next[state][action].map_or(0.0, |next| solution.v[next]);
                    let found = implicit[state][action] + solution.v[state] - after;
                    assert!((found - reward).abs() < 1e-12);
                }
            }
            for path in mdp.answers() {
                let found = TokenMdp::along(&implicit, &path) + solution.v[0];
                assert!((found - TokenMdp::along(&mdp.reward, &path)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn shaping_leaves_the_policy_as_it_is() {
        for mdp in some() {
            let potential = Seeds::new(5).normal(mdp.next.len(), "potential", 0);
            let mut shaped = mdp.clone();
            for (state, rewards) in shaped.reward.iter_mut().enumerate() {
                for (reward, next) in rewards.iter_mut().zip(&mdp.next[state]) {
                    *reward +=
                        next.map_or(0.0, |next| f64::from(potential[next])) - f64::from(potential[state]);
                }
            }
            let (one, other) = (mdp.solve(), shaped.solve());
            close(&one.log_policy.concat(), &other.log_policy.concat(), 1e-10);
            assert!((one.v[0] - f64::from(potential[0]) - other.v[0]).abs() < 1e-10);
        }
    }

    /// Ranking partial answers by likelihood is ranking them by value, also step by step in a beam.
    #[test]
    fn likelihood_search_is_value_search() {
        for mdp in some() {
            let solution = mdp.solve();
            let likelihood = |path: &Path| TokenMdp::along(&solution.log_policy, path);
            let value = |path: &Path| mdp.value_guided(&solution, path);
            for path in mdp.partial() {
                assert!((value(&path) - solution.v[0] - mdp.beta * likelihood(&path)).abs() < 1e-10);
            }
            // What a beam of this width finds, whole answers kept aside.
            let beam = |width: usize, score: &dyn Fn(&Path) -> f64| {
                let (mut open, mut whole) = (vec![Vec::new()], Vec::<Path>::new());
                while !open.is_empty() {
                    let mut longer: Vec<Path> = Vec::new();
                    for path in &open {
                        if let Some(state) = mdp.after(path) {
                            let actions = 0..mdp.next[state].len();
                            longer.extend(actions.map(|a| [path.as_slice(), &[(state, a)]].concat()));
                        }
                    }
                    longer.sort_by(|a, b| score(b).total_cmp(&score(a)));
                    longer.truncate(width);
                    let (ended, growing) = longer.into_iter().partition(|path| mdp.after(path).is_none());
                    whole.extend::<Vec<Path>>(ended);
                    open = growing;
                }
                whole
            };
            for width in 1..6 {
                assert_eq!(beam(width, &likelihood), beam(width, &value), "width {width}");
            }
        }
    }

    #[test]
    fn the_reference_s_expected_implicit_reward_is_a_divergence() {
        for mdp in some() {
            let solution = mdp.solve();
            let (answers, implicit) = (mdp.answers(), mdp.implicit(&solution.log_policy));
            let reference = mdp.reference_of(&answers);
            let rewards: Vec<f64> = answers.iter().map(|path| TokenMdp::along(&implicit, path)).collect();
            let policy: Vec<f64> =
                answers.iter().map(|path| TokenMdp::along(&solution.log_policy, path).exp()).collect();
            let expected = -mdp.beta * tabular::kl(&reference, &policy);
            assert!((tabular::expectation(&reference, &rewards) - expected).abs() < 1e-12);
        }
        let mdp = binary_tree();
        let implicit = mdp.implicit(&mdp.solve().log_policy);
        let mean = mdp.answers().iter().map(|path| TokenMdp::along(&implicit, path)).sum::<f64>() / 4.0;
        assert!((mean + 0.12011).abs() < 1e-5, "{mean}");
    }

    #[test]
    fn dpo_s_loss_over_a_table_leads_to_the_optimum() {
        let mdp = binary_tree();
        let found = fit(&mdp, 20_000, 1.0);
        let probabilities: Vec<f64> =
            mdp.answers().iter().map(|path| TokenMdp::along(&found, path).exp()).collect();
        close(&probabilities, &[0.07233, 0.53445, 0.19661, 0.19661], 5e-6);
        close(&mdp.implicit(&found)[0], &[0.0968, -0.1201], 5e-5);
        close(&found.concat(), &mdp.solve().log_policy.concat(), 1e-6);
    }
}
