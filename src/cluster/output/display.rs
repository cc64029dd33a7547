//! What workers print, on its way to the driver's terminal: labelled, folded, written.

use std::io;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::log_dedup::{LineDeduplicator, OutputLine, Source};
use super::terminal::Terminal;
use crate::cluster::protocol::Output;
use crate::config::{LOG_STALL_MAX, OUTPUT_STALL_MAX, OUTPUT_UNFOLDED_MAX};

/// The variable that says whether equal lines of several workers are folded: `0` for no.
pub(crate) const VARIABLE: &str = "ROADSHOW_DEDUP_LOGS";

/// Where a cluster's output is beside the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// Nowhere: workers wait for a slow terminal.
    Nowhere,
    /// In the nodes' logs: lines that a slow terminal does not take are dropped.
    InLogs,
}

/// The way to the terminal. Clones lead to the same; when the last one is gone the rest is printed.
#[derive(Clone, Debug)]
pub(crate) struct Display(mpsc::Sender<Item>);

#[derive(Debug)]
enum Item {
    Output(Output),
    /// All output before it is to be on the terminal.
    Flush(oneshot::Sender<()>),
}

impl Display {
    /// Starts what prints. What is folded is what `folds` says, or else the environment.
    pub(crate) fn start(io: &Handle, kept: Kept, folds: Option<bool>) -> io::Result<Self> {
        let terminal = match kept {
            Kept::Nowhere => Terminal::start(OUTPUT_STALL_MAX, "")?,
            Kept::InLogs => Terminal::start(LOG_STALL_MAX, "; they are in the nodes' logs")?,
        };
        let folds = folds.unwrap_or_else(|| folds_by(std::env::var(VARIABLE).ok().as_deref()));
        let (to, items) = mpsc::channel(OUTPUT_UNFOLDED_MAX);
        io.spawn(show_all(items, terminal, LineDeduplicator::new(folds)));
        Ok(Self(to))
    }

    /// Hands lines over, once there is room for them. False if nothing is shown any more.
    pub(crate) async fn show(&self, output: Output) -> bool {
        self.0.send(Item::Output(output)).await.is_ok()
    }

    /// Waits until what was handed over before is on the terminal, with the counts of what was folded; no
    /// longer than `until`.
    ///
    /// # Cancel safety
    ///
    /// When the future is dropped, the output goes its way all the same.
    pub(crate) async fn flush(&self, until: Instant) {
        let (flushed, done) = oneshot::channel();
        let flushing = async {
            if self.0.send(Item::Flush(flushed)).await.is_ok() {
                // It fails where the terminal takes nothing.
                let _ = done.await;
            }
        };
        let _ = tokio::time::timeout_at(until, flushing).await;
    }
}

/// Whether lines are folded, as the environment has it.
fn folds_by(variable: Option<&str>) -> bool {
    let value = variable.map(|value| value.trim().to_ascii_lowercase());
    !matches!(value.as_deref(), Some("0" | "false" | "no" | "off"))
}

async fn show_all(mut items: mpsc::Receiver<Item>, mut terminal: Terminal, mut folding: LineDeduplicator) {
    let mut shown = Vec::new();
    loop {
        terminal.print(&mut shown).await;
        let due = folding.deadline();
        let next = tokio::select! {
            biased;
            next = items.recv() => next,
            () = sleep_until(due) => {
                folding.flush(Instant::now().into_std(), &mut shown);
                continue;
            }
        };
        match next {
            None => {
                folding.finish(&mut shown);
                return terminal.print(&mut shown).await;
            }
            Some(Item::Flush(flushed)) => {
                folding.finish(&mut shown);
                terminal.print(&mut shown).await;
                terminal.tell_written(flushed).await;
            }
            Some(Item::Output(output)) => fold(&mut folding, &output, &mut shown),
        }
    }
}

fn fold(folding: &mut LineDeduplicator, output: &Output, shown: &mut Vec<OutputLine>) {
    let node = format!("{:.4}", output.node.to_string());
    let label = format!("{} pid={}, node={node}", output.label, output.pid);
    let source = Source { node: output.node, pid: output.pid };
    let now = Instant::now().into_std();
    for line in &output.lines {
        folding.line(now, source, &label, line, output.stream, shown);
    }
    if let Some(unfinished) = &output.unfinished {
        folding.unfinished(&label, unfinished, output.stream, shown);
    }
}

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
    fn folding_is_turned_off_by_a_variable() {
        assert!(folds_by(None) && folds_by(Some("")) && folds_by(Some("1")));
        assert!(!folds_by(Some("0")) && !folds_by(Some(" off ")) && !folds_by(Some("False")));
    }
}
