//! Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438).

/// What a rollout of `copies` environments gave, time-major: number t · copies + copy.
#[derive(Clone, Copy, Debug)]
pub struct Lived<'a> {
    /// Rewards.
    pub rewards: &'a [f32],
    /// V of the observation that each action answered.
    pub values: &'a [f32],
    /// Whether the episode was over after the step, terminated or truncated.
    pub ended: &'a [bool],
    /// V of the observation after the last step of each copy.
    pub last_values: &'a [f32],
}

/// Advantages; returns are advantages plus values:
///
/// ```text
/// delta_t = r_t + gamma V_{t+1} (1 - d_t) - V_t
/// A_t     = delta_t + gamma lambda (1 - d_t) A_{t+1}
/// ```
///
/// d_t says that the episode ended with step t. What a truncated episode would still have earned must be in its last
/// reward already.
pub fn advantages(lived: Lived<'_>, gamma: f32, lambda: f32) -> Vec<f32> {
    let Lived { rewards, values, ended, last_values } = lived;
    let copies = last_values.len();
    let mut advantages = vec![0.0; rewards.len()];
    for (copy, &last_value) in last_values.iter().enumerate() {
        let (mut next_value, mut next_advantage) = (last_value, 0.0);
        for place in (copy..rewards.len()).step_by(copies).rev() {
            let goes_on = if ended[place] { 0.0 } else { 1.0 };
            let delta = rewards[place] + gamma * next_value * goes_on - values[place];
            next_advantage = delta + gamma * lambda * goes_on * next_advantage;
            next_value = values[place];
            advantages[place] = next_advantage;
        }
    }
    advantages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_lambda_one_it_is_the_return_less_the_value() {
        let (rewards, values) = ([1.0, 2.0, 3.0], [0.5, -1.0, 2.0]);
        let lived = Lived { rewards: &rewards, values: &values, ended: &[false; 3], last_values: &[4.0] };
        let found = advantages(lived, 0.9, 1.0);
        let last = 3.0 + 0.9 * 4.0;
        let returns = [1.0 + 0.9 * (2.0 + 0.9 * last), 2.0 + 0.9 * last, last];
        for ((found, value), expected) in found.iter().zip(values).zip(returns) {
            assert!((found + value - expected).abs() < 1e-5, "{found} {expected}");
        }
        // With lambda zero it is the temporal difference.
        let found = advantages(lived, 0.9, 0.0);
        assert!((found[0] - (1.0 - 0.9 - 0.5)).abs() < 1e-6);
    }

    #[test]
    fn nothing_flows_over_the_end_of_an_episode_or_between_copies() {
        let (rewards, values) = ([1.0, 10.0, 2.0, 20.0], [0.0; 4]);
        let ended = [true, false, false, false];
        let lived = Lived { rewards: &rewards, values: &values, ended: &ended, last_values: &[0.0, 100.0] };
        let found = advantages(lived, 0.5, 1.0);
        assert_eq!(found, [1.0, 10.0 + 0.5 * (20.0 + 50.0), 2.0, 70.0]);
    }
}
