//! Processes of a session: start on a core, lines of output, end.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use peers_harness::proc::pin_thread;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Lines that wait to be read at most. A session prints one for each load.
const LINES_MAX: usize = 64;

/// Time in which a process ends on SIGTERM, before it is killed.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Cores of the servers and of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pin {
    pub(crate) servers: usize,
    pub(crate) client: usize,
}

impl Pin {
    /// Returns the pinnings that the machine has cores for.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let set = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        Ok(Self::of(&cores))
    }

    pub(crate) fn of(cores: &[usize]) -> Vec<Self> {
        // Core 0 serves most interrupts. Both pinnings leave its server there, where their difference is the client.
        let pin = |client: &usize| Self { servers: cores[0], client: *client };
        cores.iter().take(2).map(pin).collect()
    }

    /// Name on the command line and in the output.
    pub(crate) fn name(&self) -> &'static str {
        if self.servers == self.client { "one-core" } else { "two-cores" }
    }
}

/// Child process, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a program on a core.
    pub(crate) fn start(mut command: Command, core: usize) -> Result<Self> {
        let own = sched_getaffinity(None)?;
        // A child inherits the cores of the thread that starts it, and its own threads inherit them from it.
        pin_thread(core)?;
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        sched_setaffinity(None, &own)?;
        let mut child = started
            .with_context(|| format!("failed to start {}", command.get_program().to_string_lossy()))?;
        let stdout = child.stdout.take().context("the child has no output")?;
        let (sender, lines) = sync_channel(LINES_MAX);
        // It ends with the child, or when nothing reads its lines any more.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line, and `None` at the end of the output.
    pub(crate) fn line(&self, deadline: Instant) -> Result<Option<String>> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("the process did not go on in time, and was killed"),
        }
    }

    /// Waits for the end of a process that has closed its output.
    pub(crate) fn end(mut self) -> Result<()> {
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the process ended with {status}; its own message is above");
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A node stops its daemons on SIGTERM. The other servers end immediately, and a client that still runs too.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Ok(None)) = (pid, self.child.try_wait()) {
            // It fails only if the process has just ended.
            let _ = kill_process(pid, Signal::TERM);
            let deadline = Instant::now() + END_LIMIT;
            while let Ok(Some(_)) = self.line(deadline) {}
        }
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command, Pin::all().unwrap()[0].servers).unwrap()
    }

    #[test]
    fn process_runs_on_its_core_and_its_lines_arrive() {
        let process = shell("grep Cpus_allowed_list /proc/self/status; exit 3");
        let core = Pin::all().unwrap()[0].servers;
        let line = process.line(soon()).unwrap().unwrap();
        assert_eq!(line.split_whitespace().last(), Some(core.to_string().as_str()));
        assert_eq!(process.line(soon()).unwrap(), None);
        assert!(process.end().is_err());
    }

    #[test]
    fn dropped_process_is_killed() {
        let process = shell("echo up; exec tail -f /dev/null");
        process.line(soon()).unwrap();
        let folder = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&folder).exists());
        drop(process);
        assert!(!std::path::Path::new(&folder).exists());
    }

    #[test]
    fn silent_process_ends_the_wait() {
        let process = shell("exec tail -f /dev/null");
        assert!(process.line(Instant::now()).is_err());
    }

    #[test]
    fn pinnings_follow_the_cores() {
        let names = |cores: &[usize]| Pin::of(cores).iter().map(Pin::name).collect::<Vec<_>>();
        assert_eq!(names(&[3]), ["one-core"]);
        assert_eq!(names(&[2, 5, 7]), ["one-core", "two-cores"]);
    }
}
