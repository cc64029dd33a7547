//! Starts a daemon: a background process of this executable that reports when it is ready.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::daemon::DaemonStatus;
use crate::error::{CliError, CliResult, one_line};
use crate::session::{DaemonRole, Process, ProcessRecord};

/// Maximum time for a daemon to become ready; it includes the time in which an agent dials its head.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum length of a daemon's report in bytes; an error text with paths fits well.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Time for a daemon to exit after it has closed its end of the pipe.
const EXIT_WAIT: Duration = Duration::from_millis(500);

/// Bytes read from the end of a log.
const LOG_END_BYTES: usize = 4 << 10;

/// Daemon that was started; killed on drop unless it is detached.
#[derive(Debug)]
pub(super) struct Daemon {
    role: DaemonRole,
    child: Option<Child>,
    reply: BufReader<tokio::io::Take<pipe::Receiver>>,
    log: PathBuf,
}

/// Command that runs this executable as a daemon.
pub(super) fn this_program(role: DaemonRole, dir: &Path) -> Command {
    // The link names the running executable even if its file was replaced meanwhile, as by an upgrade.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("roadshow").arg(format!("internal-{}", role.name())).current_dir(dir);
    // The daemon gets both in its options. Its jobs must not inherit the operator's token.
    command.env_remove("ROADSHOW_TOKEN").env_remove("ROADSHOW_ADDRESS");
    command
}

impl Daemon {
    /// Starts the daemon, and writes its options to its standard input.
    pub(super) fn start(
        mut command: Command,
        role: DaemonRole,
        options: &impl Serialize,
        log: &Path,
    ) -> CliResult<Self> {
        let fails = |what: &str, error: &dyn std::fmt::Display| {
            CliError::failed(
                format!("cannot start the {}: {what}: {error}", role.name()),
                "check memory and limits of processes and files, and try again",
            )
        };
        // By standard input, since arguments and environment can be read in /proc.
        let json = serde_json::to_vec(options).map_err(|error| fails("its options", &error))?;
        // Appending: a restarted head continues the log, and a rotated one is not overwritten.
        let errors = OpenOptions::new().create(true).append(true).mode(0o600).open(log);
        let errors = errors.map_err(|error| fails(&log.display().to_string(), &error))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(|error| fails("the process", &error))?;
        let (input, reply) = (child.stdin.take(), child.stdout.take());
        let daemon = |reply| Self { role, child: Some(child), reply, log: log.to_owned() };
        let reply = reply.map(OwnedFd::from).ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe));
        let reply =
            reply.and_then(pipe::Receiver::from_owned_fd).map_err(|error| fails("its reply", &error))?;
        let daemon = daemon(BufReader::new(reply.take(ANSWER_BYTES_MAX)));
        // A daemon that exits without reading has written the reason into its log.
        let _ = input.map(|mut input| input.write_all(&json));
        Ok(daemon)
    }

    /// Record by which `stop` finds the process.
    pub(super) fn record(&self) -> Option<ProcessRecord> {
        ProcessRecord::of(self.role, self.child.as_ref()?.id())
    }

    /// Waits until the daemon is ready.
    pub(super) async fn ready<R: DeserializeOwned>(&mut self) -> CliResult<R> {
        self.ready_within(READY_TIMEOUT).await
    }

    async fn ready_within<R: DeserializeOwned>(&mut self, limit: Duration) -> CliResult<R> {
        let role = self.role.name();
        let mut line = String::new();
        match tokio::time::timeout(limit, self.reply.read_line(&mut line)).await {
            Err(_) => {
                let text = format!("the {role} was not ready within {} s", limit.as_secs_f64());
                return Err(
                    self.failure(&text, "the machine is overloaded, or the process is suspended; try again")
                );
            }
            Ok(Err(error)) => {
                return Err(
                    self.failure(&format!("cannot read the report of the {role}: {error}"), "try again")
                );
            }
            Ok(Ok(_)) => {}
        }
        match serde_json::from_str(&line) {
            Ok(DaemonStatus::Ready(ready)) => Ok(ready),
            Ok(DaemonStatus::Failed { code, why }) => {
                Err(CliError::new(code, format!("the {role} cannot start: {why}"), ""))
            }
            Err(_) => Err(self.exited_early("before it was ready").await),
        }
    }

    /// Waits for an unexpected exit of the daemon.
    pub(super) async fn ended(&mut self) -> CliError {
        let process = self.record().and_then(|record| record.open());
        match process.map(Process::watch) {
            None => {}
            // The watching thread drops its sender when it ends, so both results mean that the process has ended.
            Some(Ok(ended)) => drop(ended.await),
            // Without a watch the other branch of the caller's `select!` decides, by its own timeout.
            Some(Err(_)) => std::future::pending().await,
        }
        self.exited_early("before its node was ready").await
    }

    async fn exited_early(&mut self, when: &str) -> CliError {
        // The status first: a daemon closes its pipe a moment before it can be waited for.
        let mut text = format!("the {} ended {when}", self.role.name());
        if let Some(status) = self.status().await {
            text += &format!(": {status}");
        }
        self.failure(&text, "it was killed, or memory ran out; try again")
    }

    /// Exit status, if the daemon has ended or ends within [`EXIT_WAIT`].
    async fn status(&mut self) -> Option<ExitStatus> {
        if let Some(process) = self.record().and_then(|record| record.open()) {
            process.has_ended(EXIT_WAIT).await;
        }
        self.child.as_mut()?.try_wait().ok()?
    }

    /// Error with the last line of the log and its path; with `next` if the log is empty.
    fn failure(&self, text: &str, next: &str) -> CliError {
        match self.log_tail() {
            None => CliError::failed(text, next),
            Some(last_line) => {
                CliError::failed(format!("{text} ({last_line})"), format!("see {}", self.log.display()))
            }
        }
    }

    /// Last line of the log that is not blank.
    fn log_tail(&self) -> Option<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_END_BYTES)..]).into_owned();
        end.lines().rfind(|line| !line.trim().is_empty()).map(one_line)
    }

    /// Detaches the daemon, which then outlives this value, and returns the child to wait for.
    pub(super) fn detach(mut self) -> Option<Child> {
        self.child.take()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only for a process that was waited for already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use roadshow::daemon::HeadReady;

    use super::*;
    use crate::exit;
    use crate::session::tests::Scratch;

    fn daemon(scratch: &Scratch, script: &str) -> Daemon {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Daemon::start(command, DaemonRole::Head, &["an option"], &scratch.0.join("head.log")).unwrap()
    }

    #[tokio::test]
    async fn daemon_gets_its_options_and_reports_when_it_is_ready() {
        let scratch = Scratch::new();
        let script =
            r#"read -r options; echo "$options" >&2; echo '{"ready":{"token":"rs1_abc"}}'; exec sleep 1000"#;
        let mut daemon = daemon(&scratch, script);
        let ready: HeadReady = daemon.ready().await.unwrap();
        assert_eq!(ready.token, "rs1_abc");
        assert_eq!(fs::read_to_string(&daemon.log).unwrap(), "[\"an option\"]\n");
        let record = daemon.record().unwrap();
        assert!(record.is_alive());
        let mut child = daemon.detach().unwrap();
        assert!(record.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn failure_report_of_a_daemon_becomes_error_and_exit_code_of_the_command() {
        let scratch = Scratch::new();
        let mut daemon =
            daemon(&scratch, r#"echo '{"failed":{"code":4,"why":"wrong token; copy it again"}}'"#);
        let failure = daemon.ready::<HeadReady>().await.unwrap_err();
        assert_eq!(failure.code, exit::REFUSED);
        assert_eq!(failure.to_string(), "the head cannot start: wrong token; copy it again");
    }

    #[tokio::test]
    async fn last_log_line_of_a_daemon_that_ends_is_in_the_error() {
        let scratch = Scratch::new();
        let mut daemon = daemon(&scratch, "echo one >&2; echo 'last words' >&2; echo >&2");
        let failure = daemon.ready::<HeadReady>().await.unwrap_err();
        let expected = format!(
            "the head ended before it was ready: exit status: 0 (last words); see {}",
            daemon.log.display()
        );
        assert_eq!((failure.code, failure.to_string()), (exit::FAILED, expected));
    }

    #[tokio::test]
    async fn daemon_that_is_not_ready_in_time_is_killed() {
        let scratch = Scratch::new();
        let mut daemon = daemon(&scratch, "exec sleep 1000");
        let record = daemon.record().unwrap();
        let failure = daemon.ready_within::<HeadReady>(Duration::from_millis(20)).await.unwrap_err();
        assert!(failure.to_string().starts_with("the head was not ready within 0.02 s;"), "{failure}");
        drop(daemon);
        assert!(!record.is_alive());
    }
}
