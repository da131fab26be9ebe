//! The head of policies of bounded numbers: outputs as normal distributions, which tanh then squashes into the bounds.

use polo_nn::distributions::Gaussian;

/// Least and most of the logarithm of the standard deviation.
const LOG_STD: (f32, f32) = (-5.0, 2.0);

/// Outputs, `[rows, 2 d]`, as distributions: means, and logarithms of standard deviations squeezed between their bounds.
pub fn gaussian(outputs: &[f32], d: usize) -> Gaussian {
    let (mut means, mut log_stds) = (Vec::new(), Vec::new());
    for row in outputs.chunks_exact(2 * d) {
        means.extend_from_slice(&row[..d]);
        log_stds.extend(
            row[d..].iter().map(|raw| LOG_STD.0 + 0.5 * (LOG_STD.1 - LOG_STD.0) * (raw.tanh() + 1.0)),
        );
    }
    Gaussian::new(means, log_stds, d)
}

/// dL/doutputs from the slopes in means and logarithms of standard deviations, `[rows, d]` each.
pub fn through_heads(outputs: &[f32], dmeans: &[f32], dlog_stds: &[f32], d: usize) -> Vec<f32> {
    let mut slopes = vec![0.0; outputs.len()];
    for (row, slopes) in slopes.chunks_exact_mut(2 * d).enumerate() {
        for i in 0..d {
            let tanh = outputs[row * 2 * d + d + i].tanh();
            slopes[i] = dmeans[row * d + i];
            slopes[d + i] = dlog_stds[row * d + i] * 0.5 * (LOG_STD.1 - LOG_STD.0) * (1.0 - tanh * tanh);
        }
    }
    slopes
}

/// As [`gaussian`], the logarithms of standard deviations cut to `bounds` instead of squeezed between them.
pub fn clamped(outputs: &[f32], d: usize, bounds: (f32, f32)) -> Gaussian {
    let rows = || outputs.chunks_exact(2 * d);
    let means = rows().flat_map(|row| &row[..d]).copied().collect();
    let log_stds = rows().flat_map(|row| &row[d..]).map(|raw| raw.clamp(bounds.0, bounds.1)).collect();
    Gaussian::new(means, log_stds, d)
}

/// As [`through_heads`], for [`clamped`]: no slope where the logarithm was cut.
pub fn through_clamped(
    outputs: &[f32],
    dmeans: &[f32],
    dlog_stds: &[f32],
    d: usize,
    bounds: (f32, f32),
) -> Vec<f32> {
    let within = |raw: f32| f32::from(u8::from((bounds.0..=bounds.1).contains(&raw)));
    let mut slopes = Vec::with_capacity(outputs.len());
    for (row, outputs) in outputs.chunks_exact(2 * d).enumerate() {
        slopes.extend_from_slice(&dmeans[row * d..][..d]);
        slopes.extend((0..d).map(|i| dlog_stds[row * d + i] * within(outputs[d + i])));
    }
    slopes
}
