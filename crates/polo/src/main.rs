//! The program `polo`. Everything it does is in the library beside it.

use std::process::ExitCode;

/// Page faults and zeroing of large buffers cost a fifth of a training step with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    polo::run(std::env::args_os())
}
