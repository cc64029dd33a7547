//! Start time and memory of workers, and of processes that do less.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use actix::Arbiter;
use roadshow::Cluster;

use super::actors::fresh;
use super::fixture::BenchResult;
use super::measure::{median, proportional_bytes};

/// Number of workers in the cluster whose start is measured.
const WORKERS: usize = 4;

/// Path of the running executable, even if its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Milliseconds until a cluster has started; its shutdown is not timed.
pub(super) async fn cluster_start(time: Duration) -> BenchResult<f64> {
    let (mut taken, begin) = (Vec::new(), Instant::now());
    while taken.is_empty() || begin.elapsed() < time {
        let start = Instant::now();
        let cluster = Cluster::local(WORKERS).await?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
        cluster.shutdown().await?;
    }
    Ok(median(taken))
}

/// Milliseconds for the same number of processes of this program to start and exit.
pub(super) fn bare_start(time: Duration) -> BenchResult<f64> {
    let (mut taken, begin) = (Vec::new(), Instant::now());
    while taken.is_empty() || begin.elapsed() < time {
        let start = Instant::now();
        let mut children = Vec::with_capacity(WORKERS);
        for _ in 0..WORKERS {
            let mut program = Command::new(THIS_PROGRAM);
            program.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
            children.push(program.spawn()?);
        }
        for child in &mut children {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("`roadshow --version` ended with {status}").into());
            }
        }
        taken.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(taken))
}

/// PSS of an idle worker of a new cluster, in MiB.
pub(super) async fn worker_memory() -> BenchResult<f64> {
    let (cluster, pid) = fresh().await?;
    let bytes = proportional_bytes(pid)?;
    cluster.shutdown().await?;
    Ok(mib(bytes))
}

/// PSS of a [`baseline`] process, in MiB.
pub(super) fn bare_memory() -> BenchResult<f64> {
    let mut program = Command::new(THIS_PROGRAM);
    let mut child = program.arg("bare").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let bytes = when_ready(&mut child);
    // End of input: the child exits.
    drop(child.stdin.take());
    child.wait()?;
    Ok(mib(bytes?))
}

fn when_ready(child: &mut Child) -> BenchResult<f64> {
    let output = child.stdout.take().ok_or("a child process has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    match line.trim_end() {
        READY => Ok(proportional_bytes(child.id())?),
        other => Err(format!("`roadshow bare` wrote `{other}`, expected `{READY}`").into()),
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

const READY: &str = "ready";

/// Runs an actix system with two idle arbiters until the input ends.
///
/// Blocks the system's own thread, which has nothing else to run.
pub(crate) fn baseline() -> BenchResult<()> {
    let arbiters = [Arbiter::new(), Arbiter::new()];
    let mut output = std::io::stdout();
    writeln!(output, "{READY}")?;
    output.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for arbiter in &arbiters {
        arbiter.stop();
    }
    Ok(())
}
