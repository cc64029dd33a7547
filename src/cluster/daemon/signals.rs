//! Signals that ask a daemon to shut down.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::{DaemonError, failed};

/// SIGTERM and SIGINT of a daemon: a request to shut down gracefully.
pub(super) struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    /// Replaces the default action of both signals, which ends the process without cleanup.
    pub(super) fn install() -> Result<Self, DaemonError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())
                .map_err(failed("cannot install a handler of SIGTERM"))?,
            interrupt: signal(SignalKind::interrupt())
                .map_err(failed("cannot install a handler of SIGINT"))?,
        })
    }

    /// Waits for the next signal, and returns its name. A signal since [`Self::install`] counts.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no signal.
    pub(super) async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
