//! Ctrl-c and friends: a flag that long jobs look at, so that they can clean up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

use super::exit_code::Failure;

/// The exit code of a process that was asked to end.
const ENDED: i32 = 130;

/// Ends the process as soon as SIGINT or SIGTERM comes: for jobs that have nothing to clean up.
///
/// # Errors
/// The system refused.
pub(crate) fn end_at_once() -> anyhow::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, ENDED, Arc::clone(&always))
            .context("cannot catch ctrl-c")?;
    }
    Ok(())
}

/// From now on a file that reaches the size limit of the process (`ulimit -f`) is an error of the
/// write, not the end of the process.
///
/// # Errors
/// The system refused.
pub(crate) fn size_limit_is_an_error() -> anyhow::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).context("cannot catch SIGXFSZ")?;
    Ok(())
}

/// Set once the user (or the system) asks the program to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT and SIGTERM from now on; not SIGHUP, which `nohup` wants ignored. A second
    /// one ends the process at once, should the job not look at the flag.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn catch() -> anyhow::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that it sees the flag before this signal sets it.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                ENDED,
                Arc::clone(&interrupt.0),
            )
            .context("cannot catch ctrl-c")?;
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))
                .context("cannot catch ctrl-c")?;
        }
        Ok(interrupt)
    }

    /// The flag.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// Goes on unless the flag is set.
    ///
    /// # Errors
    /// It is set.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::interrupted()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit_code;
    use super::*;

    #[test]
    fn a_set_flag_ends_with_130() {
        let interrupt = Interrupt::default();
        assert!(interrupt.check().is_ok());
        interrupt.flag().store(true, Ordering::Relaxed);
        let error = interrupt.check().expect_err("the flag is set");
        assert_eq!(exit_code::of(&error.into()), 130);
    }
}
