//! `start --block`: supervises the daemons in the foreground, for supervisors and containers.
//!
//! | event | result of the command |
//! |---|---|
//! | SIGINT or SIGTERM | stops the node gracefully, exit code 0 |
//! | head and agent end with 0 (`roadshow stop`) | exit code 0 |
//! | head fails | exit code 1; agent and workers keep running |
//! | agent fails | stops the head, exit code 1 |

use std::process::{Child, ExitStatus};
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::oneshot;

use super::{Signals, StartedNode};
use crate::commands::stop::{StopOptions, stop};
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::session::{DaemonRole, NodeSession};

/// Time for daemons to stop gracefully before they are killed.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Waits for a signal or the end of a daemon.
pub(super) async fn run_foreground(
    started: StartedNode,
    signals: &mut Signals,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let StartedNode { session, mut children, .. } = started;
    let mut daemons = watched(&session)?;
    while !daemons.is_empty() {
        let ended = select_all(daemons.iter_mut().map(|(_, ended)| ended));
        let at = tokio::select! {
            () = signals.any() => {
                let stopped = stop(&session, StopOptions { grace: Some(SHUTDOWN_GRACE), keep_logs: false });
                reap(&mut children);
                return stopped.map(|_| output.note("The node has ended."));
            }
            (_, at, _) = ended => at,
        };
        let (role, _) = daemons.swap_remove(at);
        let status =
            children.iter_mut().find(|(other, _)| *other == role).and_then(|(_, child)| child.wait().ok());
        match (role, status) {
            // `roadshow stop` is stopping the node: the agent follows, and the loop waits for it.
            (DaemonRole::Head, Some(status)) if status.success() => {}
            // The supervisor restarts the command, which restarts the head; the workers need not be lost.
            (DaemonRole::Head, status) => return Err(head_ended(status)),
            (DaemonRole::Agent, status) => {
                // Without its agent a node has no workers. The logs stay, since the error refers to them.
                stop(&session, StopOptions { grace: Some(SHUTDOWN_GRACE), keep_logs: true })?;
                reap(&mut children);
                return agent_ended(&session, status);
            }
        }
    }
    Ok(())
}

fn watched(session: &NodeSession) -> CliResult<Vec<(DaemonRole, oneshot::Receiver<()>)>> {
    let fails =
        |error| CliError::failed(format!("cannot watch the daemons: {error}"), "`roadshow stop` stops them");
    let live = session.live_processes().into_iter();
    let locked = live.filter_map(|record| Some((record.role, record.open()?)));
    locked.map(|(role, process)| Ok((role, process.watch().map_err(fails)?))).collect()
}

fn reap(children: &mut [(DaemonRole, Child)]) {
    for (_, child) in children {
        // Only collects zombies. All daemons have ended; one that has not must not block the command.
        let _ = child.try_wait();
    }
}

fn head_ended(status: Option<ExitStatus>) -> CliError {
    let text = format!("the head has ended{}; the agent and workers of its node keep running", shown(status));
    CliError::failed(
        text,
        "run the same `roadshow start --head` to restart the head, or `roadshow stop` to stop the node",
    )
}

fn agent_ended(session: &NodeSession, status: Option<ExitStatus>) -> CliResult<()> {
    match status {
        Some(status) if status.success() => Ok(()),
        status => {
            let log = session.log(DaemonRole::Agent);
            Err(CliError::failed(
                format!("the agent has ended{}", shown(status)),
                format!("see {}", log.display()),
            ))
        }
    }
}

fn shown(status: Option<ExitStatus>) -> String {
    status.map_or_else(String::new, |status| format!(" ({status})"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use roadshow::daemon::DashboardStatus;

    use super::*;
    use crate::session::tests::{Scratch, node};

    async fn stayed(scripts: &[(DaemonRole, &str)]) -> (CliResult<()>, bool) {
        let scratch = Scratch::new();
        let spawn = |(role, script): &(DaemonRole, &str)| {
            (*role, Command::new("sh").args(["-c", script]).spawn().unwrap())
        };
        let children: Vec<_> = scripts.iter().map(spawn).collect();
        let pids: Vec<_> = children.iter().map(|(role, child)| (*role, child.id())).collect();
        let session = NodeSession { dir: scratch.0.join("session"), node: node(1, &pids) };
        std::fs::create_dir(&session.dir).unwrap();
        session.save().unwrap();
        let started = StartedNode {
            session: session.clone(),
            token: "t".parse().unwrap(),
            restarted: false,
            nodes: None,
            dashboard: DashboardStatus::Off,
            children,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut signals = Signals::listen().unwrap();
        let outcome = run_foreground(
            started,
            &mut signals,
            &mut CliOutput { out: &mut out, err: &mut err, are_terminals: [false; 2] },
        )
        .await;
        let lives = session.is_alive();
        stop(&session, StopOptions { grace: None, keep_logs: false }).unwrap();
        (outcome, lives)
    }

    #[tokio::test]
    async fn failed_head_leaves_its_agent_running() {
        let (outcome, lives) =
            stayed(&[(DaemonRole::Head, "sleep 0.1; kill -KILL $$"), (DaemonRole::Agent, "exec sleep 1000")])
                .await;
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains("signal: 9") && failure.contains("roadshow start --head"), "{failure}");
        assert!(lives);
    }

    #[tokio::test]
    async fn failed_agent_stops_its_head() {
        let (outcome, lives) =
            stayed(&[(DaemonRole::Head, "exec sleep 1000"), (DaemonRole::Agent, "sleep 0.1; exit 3")]).await;
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains("exit status: 3") && failure.contains("agent.log"), "{failure}");
        assert!(!lives);
    }

    #[tokio::test]
    async fn graceful_end_of_both_daemons_is_a_success() {
        let (outcome, lives) =
            stayed(&[(DaemonRole::Head, "sleep 0.1"), (DaemonRole::Agent, "sleep 0.2")]).await;
        assert_eq!((outcome, lives), (Ok(()), false));
    }
}
