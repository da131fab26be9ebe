//! Normalised scores: 0 for a random policy, 100 for an expert.
//!
//! `100 (R - R_min) / (R_max - R_min)` of the mean undiscounted return R in the environment's own rewards. The
//! references are D4RL's (Fu et al. 2020, arXiv 2004.07219; `d4rl/infos.py` of Farama-Foundation/D4RL, which its
//! `get_normalized_score` divides by), so that scores can be laid beside published ones:
//!
//! | environment | R_min | R_max |
//! |---|---|---|
//! | halfcheetah | -280.178953 | 12135.0 |
//! | hopper | -20.272305 | 3234.3 |
//! | walker2d | 1.629008 | 4592.3 |
//! | ant | -325.6 | 3879.7 |
//! | antmaze | 0 | 1 |
//! | kitchen | 0 | 4 |
//! | pen | 96.262799 | 3076.8331017826877 |
//! | hammer | -274.856578 | 12794.134825156867 |
//! | relocate | -6.425911 | 4233.877797728884 |
//! | door | -56.512833 | 2880.5693087298737 |
//! | maze2d open, umaze, medium, large | 0.01, 23.85, 13.13, 6.7 | 20.66, 161.86, 277.39, 273.99 |
//! | the same, dense | 11.17817, 68.537689, 44.264742, 30.569041 | 27.166538620695782, 193.66285642381482, 297.4552547777125, 303.4857382709002 |
//!
//! `polo/PendulumOffline-v0` has -1226 and -157, the mean returns of its random policy and of its expert over 2,000
//! episodes ([`crate::classic::pendulum_offline`]).
//!
//! D4RL collected on MuJoCo 2 with the `-v2` environments; Gymnasium's `-v4` and `-v5` of the same robot move and pay
//! nearly, not exactly, alike, and their scores take the same references, as is usual.

use crate::classic::pendulum_offline;

/// (first part of D4RL's names, R_min, R_max); a longer name stands before a shorter one that it begins with.
const REFERENCES: &[(&str, f64, f64)] = &[
    ("halfcheetah", -280.178953, 12135.0),
    ("hopper", -20.272305, 3234.3),
    ("walker2d", 1.629008, 4592.3),
    ("antmaze", 0.0, 1.0),
    ("ant", -325.6, 3879.7),
    ("kitchen", 0.0, 4.0),
    ("pen", 96.262799, 3076.8331017826877),
    ("hammer", -274.856578, 12794.134825156867),
    ("relocate", -6.425911, 4233.877797728884),
    ("door", -56.512833, 2880.5693087298737),
    ("maze2d-open-dense", 11.17817, 27.166538620695782),
    ("maze2d-umaze-dense", 68.537689, 193.66285642381482),
    ("maze2d-medium-dense", 44.264742, 297.4552547777125),
    ("maze2d-large-dense", 30.569041, 303.4857382709002),
    ("maze2d-open", 0.01, 20.66),
    ("maze2d-umaze", 23.85, 161.86),
    ("maze2d-medium", 13.13, 277.39),
    ("maze2d-large", 6.7, 273.99),
];

/// Gymnasium's names that have references: any version of these.
const GYMNASIUM: [&str; 4] = ["HalfCheetah", "Hopper", "Walker2d", "Ant"];

/// The returns that score 0 and 100 in an environment or a dataset of this name: D4RL's (`hopper-medium-v2`),
/// Gymnasium's (`Hopper-v5`, also as `gym:Hopper-v5`), Minari's (`mujoco/hopper/medium-v0`, `D4RL/door/human-v2`) or
/// polo's own.
pub fn references(name: &str) -> Option<(f64, f64)> {
    if name == pendulum_offline::ID {
        return Some((-1226.0, -157.0));
    }
    let name = name.strip_prefix("gym:").unwrap_or(name);
    let gymnasium = name.rsplit_once("-v").and_then(|(base, version)| {
        version.parse::<u32>().ok().and_then(|_| GYMNASIUM.into_iter().find(|known| *known == base))
    });
    let plain = match gymnasium {
        Some(base) => base.to_lowercase(),
        None => {
            let minari = ["mujoco/", "D4RL/"].iter().find_map(|space| name.strip_prefix(space));
            minari.unwrap_or(name).replace('/', "-")
        }
    };
    let known = |(base, _, _): &&(&str, f64, f64)| {
        plain.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    REFERENCES.iter().find(known).map(|&(_, low, high)| (low, high))
}

/// `100 (R - R_min) / (R_max - R_min)` of a return in the environment, or of one in a dataset, of this name; none where
/// there are no references.
pub fn normalised(name: &str, earned: f64) -> Option<f64> {
    references(name).map(|(low, high)| 100.0 * (earned - low) / (high - low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, earned: f64, expected: Option<f64>) {
        let found = normalised(name, earned);
        match (found, expected) {
            (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-9, "{name}: {found}"),
            _ => assert_eq!(found, expected, "{name}"),
        }
    }

    #[test]
    fn experts_score_100_and_random_policies_0() {
        for name in ["hopper-medium-v2", "Hopper-v5", "gym:Hopper-v4", "mujoco/hopper/expert-v0", "hopper"] {
            check(name, 3234.3, Some(100.0));
            check(name, -20.272305, Some(0.0));
        }
        check("HalfCheetah-v5", 12135.0, Some(100.0));
        check("walker2d-medium-replay-v2", 4592.3, Some(100.0));
        check("Ant-v5", 3879.7, Some(100.0));
        check("antmaze-umaze-diverse-v2", 0.25, Some(25.0));
        check("kitchen-mixed-v0", 3.0, Some(75.0));
        check("D4RL/door/human-v2", 2880.5693087298737, Some(100.0));
        check("maze2d-umaze-v1", 161.86, Some(100.0));
        check("maze2d-umaze-dense-v1", 193.66285642381482, Some(100.0));
        check("polo/PendulumOffline-v0", -157.0, Some(100.0));
        check("polo/PendulumOffline-v0", -562.0, Some(100.0 * 664.0 / 1069.0));
    }

    #[test]
    fn others_have_none() {
        for name in [
            "polo/PointMaze-v0",
            "Pendulum-v1",
            "",
            "hopper2-v0",
            "Hopper-vast",
            "AntMaze-v0",
            "D4RL/antmaze2",
        ] {
            check(name, 1.0, None);
        }
    }
}
