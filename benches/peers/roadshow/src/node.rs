//! Node of a cluster, for messages over TLS.
//!
//! Hosts use plain TCP between two loopback addresses. A node on another address of this machine makes them use
//! TLS, and the packets stay within the machine.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use peers_harness::{Args, ready};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Part of what `roadshow start --json` prints.
#[derive(Deserialize)]
struct Started {
    address: SocketAddr,
    token: String,
}

/// Runs a node with a head until SIGTERM. Its daemons carry no message between driver and workers.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let host: IpAddr =
        args.host.context("--host is missing: an address of this machine that is not loopback")?;
    let command =
        args.command.as_deref().context("--command is missing: the path of the command `roadshow`")?;
    // A node that is killed leaves its daemons behind; on SIGTERM it stops them.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut node = Command::new(command)
        .args(["start", "--head", "--block", "--json", "--port", "0"])
        .args(["--host", &host.to_string(), "--num-cpus", &args.server_count.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {}", command.display()))?;
    let outcome = tokio::select! {
        outcome = report(&mut node) => outcome,
        _ = terminated.recv() => Ok(()),
    };
    if outcome.is_ok() {
        tokio::select! {
            status = node.wait() => bail!("the node ended with {}; its own message is above", status?),
            _ = terminated.recv() => {}
        }
    }
    stop(&mut node).await?;
    outcome
}

/// Reads the object that the command prints, and tells the runner.
async fn report(node: &mut Child) -> Result<()> {
    let mut lines = BufReader::new(node.stdout.take().context("the node has no output")?).lines();
    let mut text = String::new();
    while let Some(line) = lines.next_line().await? {
        text.push_str(&line);
        if let Ok(started) = serde_json::from_str::<Started>(&text) {
            ready(format_args!("{} {}", started.address, started.token))?;
            return Ok(());
        }
    }
    bail!("the node ended before it was ready; its own message is above")
}

async fn stop(node: &mut Child) -> Result<()> {
    if let Some(pid) = node.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)?;
        node.wait().await?;
    }
    Ok(())
}
