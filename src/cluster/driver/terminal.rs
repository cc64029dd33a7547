//! The driver's terminal, which may not read: lines wait for it apart from everything else.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use crate::cluster::logs::Shown;
use crate::config::OUTPUT_WAITING_MAX;

/// Prints what workers write to standard error, whatever stream it came from: standard output is the
/// program's own. What a terminal that does not read has no room for is counted, and is in the nodes' logs.
#[derive(Debug)]
pub(super) struct Terminal {
    lines: SyncSender<String>,
    lost: usize,
}

impl Terminal {
    /// Starts the thread that prints.
    pub(super) fn start() -> io::Result<Self> {
        let (lines, printed) = sync_channel::<String>(OUTPUT_WAITING_MAX);
        thread::Builder::new().name("roadshow-print".to_owned()).spawn(move || {
            for text in printed {
                // A terminal that is gone is no reason to end a job.
                let _ = io::stderr().write_all(text.as_bytes());
            }
        })?;
        Ok(Self { lines, lost: 0 })
    }

    /// Takes lines to be printed, and never waits.
    pub(super) fn print(&mut self, shown: &mut Vec<Shown>) {
        if shown.is_empty() {
            return;
        }
        let mut text = String::new();
        if self.lost > 0 {
            text = format!("(roadshow) {} lines were not shown; they are in the nodes' logs\n", self.lost);
        }
        let count = shown.len();
        for Shown { line, .. } in shown.drain(..) {
            text.push_str(&line);
            text.push('\n');
        }
        match self.lines.try_send(text) {
            Ok(()) => self.lost = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.lost += count,
        }
    }
}
