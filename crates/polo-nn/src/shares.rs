//! Data-parallel shares of a batch on the CPU.
//!
//! A batch is split into a fixed number of shares; each is computed from start to end by one worker thread, with
//! sequential kernels inside, and results are combined in the order of the shares. So a result depends on the number
//! of shares, which is part of a run's settings, and never on how many threads happened to run.

use rayon::prelude::*;

/// Runs `work` on every item, in parallel, and returns the results in the order of the items.
pub fn map<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if items.len() == 1 {
        return items.into_iter().map(work).collect();
    }
    items.into_par_iter().with_max_len(1).map(work).collect()
}

/// Runs `work` on one of the workers' own threads. What it runs in parallel costs less to hand over from there than from
/// any other thread, which matters where that is little and often.
pub fn inside<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

/// Runs two pieces of work, in parallel where there is a worker to spare.
pub fn both<A: Send, B: Send>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B + Send) -> (A, B) {
    rayon::join(one, other)
}

/// How many shares `0` ("choose for me") means on this machine.
pub fn default_count() -> usize {
    rayon::current_num_threads()
}
