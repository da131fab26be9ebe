//! From scored lists to pairs: which answers of a prompt are kept, and who is set against whom.
//!
//! `polo pairs` comes here. [`rejection`] is the sampler of RSO (Liu et al. 2023, arXiv 2309.06657, algorithm 1): of
//! answers drawn from a policy p it keeps some as if drawn, without replacement, from p(y|x) exp(r(x, y) / beta) / Z(x).
//! [`pair`] labels pairs by the answers' scores, as a Bradley-Terry model reads them. All draws come from the caller's
//! generator.

use std::{collections::HashSet, hash::Hash};

use polo_run::seed::{below, unit};
use rand_chacha::rand_core::Rng;

/// Who is set against whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Disjoint pairs at random: k / 2 of them. An odd one out has no partner.
    #[default]
    FirstRound,
    /// The winners of each round meet in the next: k - 1 pairs.
    Tournament,
    /// The best against the worst: one pair.
    MaxMin,
}

/// Who wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Labels {
    /// The higher score. Equal scores make no pair.
    #[default]
    Argmax,
    /// Drawn: a beats b with probability sigmoid(score a - score b).
    Bernoulli,
}

/// Places of the first of each kind among equal keys.
pub fn distinct<K: Eq + Hash>(keys: impl IntoIterator<Item = K>) -> Vec<usize> {
    let mut seen = HashSet::new();
    let new = |(place, key): (usize, K)| seen.insert(key).then_some(place);
    keys.into_iter().enumerate().filter_map(new).collect()
}

/// Whether an answer passes: u < exp((reward - highest) / beta) in logarithms, where u is uniform in [0, 1) and no
/// reward is above `highest`. beta = 0 passes the highest alone, infinity all.
pub fn accepts(reward: f64, highest: f64, beta: f64, u: f64) -> bool {
    reward >= highest || (beta > 0.0 && u.ln() < (reward - highest) / beta)
}

/// Keeps at most `keep` of the answers, by RSO's sequential rejection. Returns their places in the order in which they
/// were accepted; fewer if there are fewer that differ.
///
/// Answers of equal keys count once, with the reward of the first. The highest reward is taken anew over those that
/// are left at the beginning of each sweep, so that a sweep accepts one at least. With beta towards 0 these are the
/// best, with infinity the first.
pub fn rejection<K: Eq + Hash>(
    keys: impl IntoIterator<Item = K>,
    rewards: &[f64],
    keep: usize,
    beta: f64,
    rng: &mut impl Rng,
) -> Vec<usize> {
    let mut alive = distinct(keys);
    let mut accepted = Vec::new();
    while accepted.len() < keep && !alive.is_empty() {
        let highest = alive.iter().map(|&place| rewards[place]).fold(f64::NEG_INFINITY, f64::max);
        alive.retain(|&place| {
            let passes = accepted.len() < keep && accepts(rewards[place], highest, beta, unit(rng));
            if passes {
                accepted.push(place);
            }
            !passes
        });
    }
    accepted
}

/// Pairs of one prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paired {
    /// Winner and loser of each pair, as places among the prompt's answers.
    pub pairs: Vec<(usize, usize)>,
    /// Meetings of equal scores, of which no pair was made.
    pub ties: usize,
}

/// Sets the answers at `places` against each other.
pub fn pair(
    scores: &[f64],
    places: &[usize],
    pairing: Pairing,
    labels: Labels,
    rng: &mut impl Rng,
) -> Paired {
    let mut paired = Paired::default();
    let mut field = places.to_vec();
    if pairing == Pairing::MaxMin {
        field.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        if let [best, .., worst] = field[..] {
            paired.meet(scores, best, worst, labels, rng);
        }
        return paired;
    }
    for last in (1..field.len()).rev() {
        field.swap(last, below(rng, last as u64 + 1) as usize);
    }
    while field.len() > 1 {
        let meetings = field.chunks(2).map(|meeting| match *meeting {
            [a, b] => paired.meet(scores, a, b, labels, rng),
            ref alone => alone[0],
        });
        field = meetings.collect();
        if pairing == Pairing::FirstRound {
            break;
        }
    }
    paired
}

impl Paired {
    /// Notes who of the two wins, and returns the winner: `a` in case of a tie, as the order is random.
    fn meet(&mut self, scores: &[f64], a: usize, b: usize, labels: Labels, rng: &mut impl Rng) -> usize {
        let lead = scores[a] - scores[b];
        let a_wins = match labels {
            Labels::Argmax => lead > 0.0,
            Labels::Bernoulli => unit(rng) < 1.0 / (1.0 + (-lead).exp()),
        };
        if labels == Labels::Argmax && lead == 0.0 {
            self.ties += 1;
            return a;
        }
        let (winner, loser) = if a_wins { (a, b) } else { (b, a) };
        self.pairs.push((winner, loser));
        winner
    }
}

#[cfg(test)]
mod tests {
    use polo_run::seed::Seeds;

    use super::*;

    const PRIOR: [f64; 6] = [0.30, 0.25, 0.20, 0.12, 0.08, 0.05];
    const REWARDS: [f64; 6] = [0.0, 0.2, 0.4, 0.8, 1.0, 1.5];

    /// Draws from the prior that pass are draws from prior times exp(r / beta): the card's numbers.
    #[test]
    fn what_passes_is_drawn_from_the_sought_policy() {
        const DRAWS: usize = 400_000;
        let mut rng = Seeds::new(1).rng("rejection", 0);
        let mut counts = [0.0; 6];
        for _ in 0..DRAWS {
            let mut u = unit(&mut rng);
            let drawn = PRIOR.iter().position(|share| {
                u -= share;
                u < 0.0
            });
            let atom = drawn.unwrap_or(5);
            if accepts(REWARDS[atom], 1.5, 0.5, unit(&mut rng)) {
                counts[atom] += 1.0;
            }
        }
        let accepted: f64 = counts.iter().sum();
        // Five standard errors and the rounding of the card's numbers.
        let near = |found: f64, expected: f64, n: f64| {
            let tolerance = 5.0 * (expected * (1.0 - expected) / n).sqrt() + 5e-5;
            assert!((found - expected).abs() < tolerance, "{found} is not {expected}");
        };
        near(accepted / DRAWS as f64, 0.1647, DRAWS as f64);
        for (count, expected) in counts.iter().zip([0.0907, 0.1127, 0.1346, 0.1797, 0.1787, 0.3036]) {
            near(count / accepted, expected, accepted);
        }
    }

    fn kept(rewards: &[f64], keep: usize, beta: f64, draw: u64) -> Vec<usize> {
        rejection(0..rewards.len(), rewards, keep, beta, &mut Seeds::new(2).rng("kept", draw))
    }

    #[test]
    fn small_beta_keeps_the_best_and_large_beta_the_first() {
        let rewards = [0.3, -1.0, 2.0, 0.1, 2.5, 0.3];
        for draw in 0..50 {
            for beta in [0.0, 1e-300, 1e-6] {
                assert_eq!(kept(&rewards, 3, beta, draw), [4, 2, 0], "beta {beta}");
            }
            for beta in [f64::INFINITY, 1e18] {
                assert_eq!(kept(&rewards, 3, beta, draw), [0, 1, 2], "beta {beta}");
            }
        }
    }

    #[test]
    fn all_that_differ_are_kept_if_so_many_are_wanted() {
        for beta in [0.0, 0.5, f64::INFINITY] {
            let mut all = kept(&REWARDS, 100, beta, 3);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5]);
        }
        assert_eq!(kept(&[], 4, 0.5, 0), [0; 0]);
    }

    #[test]
    fn equal_texts_count_once() {
        let texts = ["a", "b", "a", "c", "b", "a"];
        for draw in 0..20 {
            let mut rng = Seeds::new(4).rng("texts", draw);
            let mut kept = rejection(texts, &[0.0, 1.0, 0.0, 0.5, 1.0, 0.0], 6, 0.5, &mut rng);
            kept.sort_unstable();
            assert_eq!(kept, [0, 1, 3]);
        }
    }

    /// The best passes at once; then the first passes with probability e^(-1 / beta), being 1 below those left.
    #[test]
    fn the_highest_reward_is_that_of_those_left() {
        let beta = 0.8;
        let share = |places: [usize; 2]| {
            (0..20_000).filter(|&draw| kept(&[0.0, 1.0, 9.0], 2, beta, draw) == places).count() as f64 / 2e4
        };
        // 9 passes in the first sweep, 0 and 1 practically never do. Then the highest is 1, not 9.
        let first = (-1.0 / beta).exp();
        let tolerance = 5.0 * (first * (1.0 - first) / 2e4).sqrt() + 1e-3;
        assert!((share([2, 0]) - first).abs() < tolerance, "{}", share([2, 0]));
        assert!((share([2, 1]) - (1.0 - first)).abs() < tolerance);
    }

    fn paired(scores: &[f64], pairing: Pairing, labels: Labels, draw: u64) -> Paired {
        let places: Vec<usize> = (0..scores.len()).collect();
        pair(scores, &places, pairing, labels, &mut Seeds::new(5).rng("pairs", draw))
    }

    #[test]
    fn first_rounds_are_disjoint_and_tournaments_have_one_winner() {
        let scores = [0.5, 3.0, -1.0, 2.0, 0.0, 1.0, 7.0];
        let check = |found: &Paired, pairs: usize| {
            assert_eq!((found.pairs.len(), found.ties), (pairs, 0));
            assert!(found.pairs.iter().all(|&(winner, loser)| scores[winner] > scores[loser]));
        };
        for draw in 0..20 {
            let round = paired(&scores, Pairing::FirstRound, Labels::Argmax, draw);
            check(&round, 3);
            let players: HashSet<usize> = round.pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
            assert_eq!(players.len(), 6);
            let tournament = paired(&scores, Pairing::Tournament, Labels::Argmax, draw);
            check(&tournament, 6);
            // Everyone but the best loses once.
            let losers: HashSet<usize> = tournament.pairs.iter().map(|&(_, loser)| loser).collect();
            assert!(losers.len() == 6 && !losers.contains(&6));
            assert_eq!(paired(&scores, Pairing::MaxMin, Labels::Argmax, draw).pairs, [(6, 2)]);
        }
        for pairing in [Pairing::FirstRound, Pairing::Tournament, Pairing::MaxMin] {
            assert_eq!(paired(&[1.0], pairing, Labels::Argmax, 0), Paired::default());
        }
    }

    #[test]
    fn equal_scores_make_no_pair_but_a_winner() {
        let round = paired(&[1.0; 4], Pairing::FirstRound, Labels::Argmax, 0);
        assert_eq!((round.pairs.len(), round.ties), (0, 2));
        let tournament = paired(&[1.0; 4], Pairing::Tournament, Labels::Argmax, 0);
        assert_eq!((tournament.pairs.len(), tournament.ties), (0, 3));
        assert_eq!(paired(&[1.0; 4], Pairing::Tournament, Labels::Bernoulli, 0).pairs.len(), 3);
    }

    #[test]
    fn drawn_labels_follow_bradley_and_terry() {
        let upsets = (0..20_000)
            .filter(|&draw| paired(&[0.0, 1.0], Pairing::MaxMin, Labels::Bernoulli, draw).pairs == [(0, 1)])
            .count() as f64;
        let expected = 1.0 / (1.0 + 1f64.exp());
        assert!((upsets / 2e4 - expected).abs() < 5.0 * (expected * (1.0 - expected) / 2e4).sqrt());
    }
}
