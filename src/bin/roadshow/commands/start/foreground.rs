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
use crate::output::Output;
use crate::session::{Role, Session};

/// Time for daemons to stop gracefully before they are killed.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Waits for a signal or the end of a daemon.
pub(super) async fn run_foreground(
    started: StartedNode,
    signals: &mut Signals,
    output: &mut Output<'_>,
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
            (Role::Head, Some(status)) if status.success() => {}
            (Role::Head, status) => return Err(head_ended(status)),
            (Role::Agent, status) => {
                stop(&session, StopOptions { grace: Some(SHUTDOWN_GRACE), keep_logs: true })?;
                reap(&mut children);
                return agent_ended(&session, status);
            }
        }
    }
    Ok(())
}

fn watched(session: &Session) -> CliResult<Vec<(Role, oneshot::Receiver<()>)>> {
    let fails =
        |error| CliError::failed(format!("cannot watch the daemons: {error}"), "`roadshow stop` ends them");
    let live = session.live_processes().into_iter();
    let locked = live.filter_map(|record| Some((record.role, record.open()?)));
    locked.map(|(role, process)| Ok((role, process.watch().map_err(fails)?))).collect()
}

fn reap(children: &mut [(Role, Child)]) {
    for (_, child) in children {
        // Only collects zombies. All daemons have ended; one that has not must not block the command.
        let _ = child.try_wait();
    }
}

fn head_ended(status: Option<ExitStatus>) -> CliError {
    let text = format!("the head has ended{}; its node's agent and workers go on", shown(status));
    CliError::failed(text, "the same `roadshow start --head` starts the head again, `roadshow stop` ends all")
}

fn agent_ended(session: &Session, status: Option<ExitStatus>) -> CliResult<()> {
    match status {
        Some(status) if status.success() => Ok(()),
        status => {
            let log = session.log(Role::Agent);
            Err(CliError::failed(
                format!("the agent has ended{}", shown(status)),
                format!("look at {}", log.display()),
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

    use super::*;
    use crate::session::tests::{Scratch, node};

    async fn stayed(scripts: &[(Role, &str)]) -> (CliResult<()>, bool) {
        let scratch = Scratch::new();
        let spawn =
            |(role, script): &(Role, &str)| (*role, Command::new("sh").args(["-c", script]).spawn().unwrap());
        let children: Vec<_> = scripts.iter().map(spawn).collect();
        let pids: Vec<_> = children.iter().map(|(role, child)| (*role, child.id())).collect();
        let session = Session { dir: scratch.0.join("session"), node: node(1, &pids) };
        std::fs::create_dir(&session.dir).unwrap();
        session.save().unwrap();
        let started = StartedNode {
            session: session.clone(),
            token: "t".parse().unwrap(),
            restarted: false,
            nodes: None,
            children,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut signals = Signals::listen().unwrap();
        let outcome = run_foreground(
            started,
            &mut signals,
            &mut Output { out: &mut out, err: &mut err, are_terminals: [false; 2] },
        )
        .await;
        let lives = session.is_alive();
        stop(&session, StopOptions { grace: None, keep_logs: false }).unwrap();
        (outcome, lives)
    }

    #[tokio::test]
    async fn failed_head_leaves_its_agent_running() {
        let (outcome, lives) =
            stayed(&[(Role::Head, "sleep 0.1; kill -KILL $$"), (Role::Agent, "exec sleep 1000")]).await;
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains("signal: 9") && failure.contains("roadshow start --head"), "{failure}");
        assert!(lives);
    }

    #[tokio::test]
    async fn failed_agent_stops_its_head() {
        let (outcome, lives) =
            stayed(&[(Role::Head, "exec sleep 1000"), (Role::Agent, "sleep 0.1; exit 3")]).await;
        let failure = outcome.unwrap_err().to_string();
        assert!(failure.contains("exit status: 3") && failure.contains("agent.log"), "{failure}");
        assert!(!lives);
    }

    #[tokio::test]
    async fn graceful_end_of_both_daemons_is_a_success() {
        let (outcome, lives) = stayed(&[(Role::Head, "sleep 0.1"), (Role::Agent, "sleep 0.2")]).await;
        assert_eq!((outcome, lives), (Ok(()), false));
    }
}
