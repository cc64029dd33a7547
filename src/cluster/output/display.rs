//! Display of the workers' output at the driver's terminal: labelled, folded, written.

use std::io;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::log_dedup::{LineDeduplicator, LineSource, OutputLine};
use super::terminal::Terminal;
use crate::background;
use crate::cluster::protocol::OutputLines;
use crate::config::{LOG_DEDUP_QUEUE_MAX, LOG_STALL_MAX, OUTPUT_STALL_MAX};

/// Environment variable that turns the deduplication of equal lines of several workers off: `0`.
pub(crate) const VARIABLE: &str = "ROADSHOW_DEDUP_LOGS";

/// Place where the output is stored in addition to the terminal, which decides whether lines may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// Stored nowhere: workers wait for a slow terminal.
    TerminalOnly,
    /// Stored in the nodes' logs: lines that a slow terminal does not take are dropped.
    InLogs,
}

/// Handle of the display. Clones share it; after the last one is dropped, the rest is printed.
#[derive(Clone, Debug)]
pub(crate) struct Display(mpsc::Sender<DisplayRequest>);

/// Request to the task of the display.
#[derive(Debug)]
enum DisplayRequest {
    OutputLines(OutputLines),
    /// Resolves when all output before it is on the terminal.
    Flush(oneshot::Sender<()>),
}

impl Display {
    /// Starts the display. `dedup` turns deduplication on or off; `None` leaves it to the environment.
    pub(crate) fn start(io: &Handle, retention: Retention, dedup: Option<bool>) -> io::Result<Self> {
        let terminal = match retention {
            Retention::TerminalOnly => Terminal::start(OUTPUT_STALL_MAX, "")?,
            Retention::InLogs => Terminal::start(LOG_STALL_MAX, "; they are in the nodes' logs")?,
        };
        let dedup = dedup.unwrap_or_else(|| dedup_enabled(std::env::var(VARIABLE).ok().as_deref()));
        let (to, requests) = mpsc::channel(LOG_DEDUP_QUEUE_MAX);
        background::spawn_on(io, show_all(requests, terminal, LineDeduplicator::new(dedup)));
        Ok(Self(to))
    }

    /// Queues lines, and waits for room. Returns false if the display has ended.
    pub(crate) async fn show(&self, output: OutputLines) -> bool {
        self.0.send(DisplayRequest::OutputLines(output)).await.is_ok()
    }

    /// Waits, at most until `until`, for all queued output to be on the terminal, with the counts of folded lines.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the output is printed nevertheless.
    pub(crate) async fn flush(&self, until: Instant) {
        let (flushed, done) = oneshot::channel();
        let flushing = async {
            if self.0.send(DisplayRequest::Flush(flushed)).await.is_ok() {
                // It fails if the terminal takes nothing.
                let _ = done.await;
            }
        };
        let _ = tokio::time::timeout_at(until, flushing).await;
    }
}

/// Interprets the variable that turns deduplication off.
fn dedup_enabled(variable: Option<&str>) -> bool {
    let value = variable.map(|value| value.trim().to_ascii_lowercase());
    !matches!(value.as_deref(), Some("0" | "false" | "no" | "off"))
}

async fn show_all(
    mut requests: mpsc::Receiver<DisplayRequest>,
    mut terminal: Terminal,
    mut dedup: LineDeduplicator,
) {
    let mut shown = Vec::new();
    loop {
        terminal.print(&mut shown).await;
        let due = dedup.deadline();
        let next = tokio::select! {
            // Input first: under load the windows still end, since each line ends those that are due.
            biased;
            next = requests.recv() => next,
            () = sleep_until(due) => {
                dedup.flush(Instant::now().into_std(), &mut shown);
                continue;
            }
        };
        match next {
            None => {
                dedup.finish(&mut shown);
                return terminal.print(&mut shown).await;
            }
            Some(DisplayRequest::Flush(flushed)) => {
                dedup.finish(&mut shown);
                terminal.print(&mut shown).await;
                terminal.notify_written(flushed).await;
            }
            Some(DisplayRequest::OutputLines(output)) => fold(&mut dedup, &output, &mut shown),
        }
    }
}

fn fold(dedup: &mut LineDeduplicator, output: &OutputLines, shown: &mut Vec<OutputLine>) {
    let node = format!("{:.4}", output.node.to_string());
    let label = format!("{} pid={}, node={node}", output.label, output.pid);
    let source = LineSource { node: output.node, pid: output.pid };
    let now = Instant::now().into_std();
    for line in &output.lines {
        dedup.line(now, source, &label, line, output.stream, shown);
    }
    if let Some(unfinished) = &output.unfinished {
        dedup.unfinished(&label, unfinished, output.stream, shown);
    }
}

/// Sleeps until a deadline; without one, for ever.
async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_turns_folding_off() {
        assert!(dedup_enabled(None) && dedup_enabled(Some("")) && dedup_enabled(Some("1")));
        assert!(!dedup_enabled(Some("0")) && !dedup_enabled(Some(" off ")) && !dedup_enabled(Some("False")));
    }
}
