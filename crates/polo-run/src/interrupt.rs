//! Being asked to stop: SIGINT (ctrl-c) and SIGTERM (schedulers, containers).
//!
//! The first signal sets a flag; training loops look at it after each step, write a checkpoint and return a problem of
//! [`Kind::Interrupted`]. The second signal leaves at once, with the same exit code.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{consts, flag};

use crate::{Kind, Problem, Result};

/// Whether someone asked the program to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over SIGINT and SIGTERM for the rest of the process. To be called once, by the program.
    ///
    /// # Errors
    /// [`Kind::System`] if the system refuses the handlers.
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [consts::SIGINT, consts::SIGTERM] {
            interrupt.listen(signal).map_err(|error| {
                Problem::new(Kind::System, format!("cannot install the handler of signal {signal}: {error}"))
            })?;
        }
        Ok(interrupt)
    }

    /// Handlers run in the order of registration: the one that leaves must see the flag as the *previous* signal left it.
    fn listen(&self, signal: i32) -> io::Result<()> {
        let status = i32::from(Kind::Interrupted.exit_code());
        flag::register_conditional_shutdown(signal, status, Arc::clone(&self.0))?;
        flag::register(signal, Arc::clone(&self.0))?;
        Ok(())
    }

    /// True once a signal has come, or [`Interrupt::request`] was called.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks to stop without a signal.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{env, process::Command};

    use super::*;

    const CHILD: &str = "POLO_TEST_INTERRUPT_CHILD";

    /// Runs itself as a child, because the second signal ends the process.
    #[test]
    fn the_first_signal_is_noted_and_the_second_leaves() {
        if env::var_os(CHILD).is_some() {
            let interrupt = Interrupt::install().unwrap();
            assert!(!interrupt.requested());
            signal_hook::low_level::raise(consts::SIGTERM).unwrap();
            assert!(interrupt.requested());
            signal_hook::low_level::raise(consts::SIGINT).unwrap();
            panic!("the second signal did not end the process");
        }
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", "interrupt::tests::the_first_signal_is_noted_and_the_second_leaves"])
            .env(CHILD, "1")
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(75));
    }
}
