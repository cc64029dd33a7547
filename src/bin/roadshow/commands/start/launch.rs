//! Starting a daemon: a process of this very executable, in the background, that says when it is ready.

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
use crate::session::{Process, ProcessRecord, Role};

/// How long a daemon may take to be ready. An agent dials its head for some of it.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest answer: an error's text and its paths fit well.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// How long a daemon that has closed its answer may take to end.
const EXIT_WAIT: Duration = Duration::from_millis(500);

/// How much of the end of a log is looked at.
const LOG_END_BYTES: usize = 4 << 10;

/// A daemon that was started. Unless it is let go, it is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    role: Role,
    child: Option<Child>,
    answer: BufReader<tokio::io::Take<pipe::Receiver>>,
    log: PathBuf,
}

/// This very executable as a daemon, whatever its file is called by now.
pub(super) fn this_program(role: Role, dir: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("roadshow").arg(format!("internal-{}", role.name())).current_dir(dir);
    // It is told both, and whom its children belong to; they need not inherit what the operator has set.
    command.env_remove("ROADSHOW_TOKEN").env_remove("ROADSHOW_ADDRESS");
    command
}

impl Daemon {
    /// Starts one, and tells it what to be.
    pub(super) fn start(
        mut command: Command,
        role: Role,
        options: &impl Serialize,
        log: &Path,
    ) -> CliResult<Self> {
        let fails = |what: &str, error: &dyn std::fmt::Display| {
            CliError::failed(
                format!("cannot start the {}: {what}: {error}", role.name()),
                "make room for it, and try again",
            )
        };
        let json = serde_json::to_vec(options).map_err(|error| fails("its options", &error))?;
        let errors = OpenOptions::new().create(true).append(true).mode(0o600).open(log);
        let errors = errors.map_err(|error| fails(&log.display().to_string(), &error))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(|error| fails("the process", &error))?;
        let (input, answer) = (child.stdin.take(), child.stdout.take());
        let daemon = |answer| Self { role, child: Some(child), answer, log: log.to_owned() };
        let answer = answer.map(OwnedFd::from).ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe));
        let answer =
            answer.and_then(pipe::Receiver::from_owned_fd).map_err(|error| fails("its answer", &error))?;
        let daemon = daemon(BufReader::new(answer.take(ANSWER_BYTES_MAX)));
        // A daemon that has ended without reading says why in its log.
        let _ = input.map(|mut input| input.write_all(&json));
        Ok(daemon)
    }

    /// The process, to be found again.
    pub(super) fn record(&self) -> Option<ProcessRecord> {
        ProcessRecord::of(self.role, self.child.as_ref()?.id())
    }

    /// Waits until it is ready.
    pub(super) async fn ready<R: DeserializeOwned>(&mut self) -> CliResult<R> {
        self.ready_within(READY_TIMEOUT).await
    }

    async fn ready_within<R: DeserializeOwned>(&mut self, limit: Duration) -> CliResult<R> {
        let role = self.role.name();
        let mut line = String::new();
        match tokio::time::timeout(limit, self.answer.read_line(&mut line)).await {
            Err(_) => {
                let text = format!("the {role} was not ready within {} s", limit.as_secs_f64());
                return Err(self
                    .failure(&text, "its machine is out of breath, or somebody has stopped it; try again"));
            }
            Ok(Err(error)) => {
                return Err(self.failure(&format!("cannot hear from the {role}: {error}"), "try again"));
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

    /// Waits until it has ended, which it was not to do.
    pub(super) async fn ended(&mut self) -> CliError {
        let process = self.record().and_then(|record| record.open());
        match process.map(Process::watch) {
            None => {}
            // The thread that watches tells in any case.
            Some(Ok(ended)) => drop(ended.await),
            // Whoever waits for something else of it is told in time.
            Some(Err(_)) => std::future::pending().await,
        }
        self.exited_early("before its node was ready").await
    }

    async fn exited_early(&mut self, when: &str) -> CliError {
        let mut text = format!("the {} ended {when}", self.role.name());
        if let Some(status) = self.status().await {
            text += &format!(": {status}");
        }
        self.failure(&text, "somebody has killed it, or there was no memory for it; try again")
    }

    /// How it ended, if it has: it may be about to.
    async fn status(&mut self) -> Option<ExitStatus> {
        if let Some(process) = self.record().and_then(|record| record.open()) {
            process.has_ended(EXIT_WAIT).await;
        }
        self.child.as_mut()?.try_wait().ok()?
    }

    /// What went wrong, with its last words and where the others are; `next` if it has left none.
    fn failure(&self, text: &str, next: &str) -> CliError {
        match self.log_tail() {
            None => CliError::failed(text, next),
            Some(words) => {
                CliError::failed(format!("{text} ({words})"), format!("look at {}", self.log.display()))
            }
        }
    }

    /// The last line of its log, if there is one.
    fn log_tail(&self) -> Option<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_END_BYTES)..]).into_owned();
        end.lines().rfind(|line| !line.trim().is_empty()).map(one_line)
    }

    /// Lets it go on by itself; the child is for whoever stays.
    pub(super) fn detach(mut self) -> Option<Child> {
        self.child.take()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only for a process that has ended and was waited for.
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
        Daemon::start(command, Role::Head, &["an option"], &scratch.0.join("head.log")).unwrap()
    }

    #[tokio::test]
    async fn a_daemon_is_told_what_to_be_and_says_when_it_is_ready() {
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
    async fn a_daemon_s_refusal_is_the_command_s_with_its_code() {
        let scratch = Scratch::new();
        let mut daemon =
            daemon(&scratch, r#"echo '{"failed":{"code":4,"why":"wrong token; copy it again"}}'"#);
        let failure = daemon.ready::<HeadReady>().await.unwrap_err();
        assert_eq!(failure.code, exit::REFUSED);
        assert_eq!(failure.to_string(), "the head cannot start: wrong token; copy it again");
    }

    #[tokio::test]
    async fn the_last_words_of_a_daemon_that_ends_are_told() {
        let scratch = Scratch::new();
        let mut daemon = daemon(&scratch, "echo one >&2; echo 'last words' >&2; echo >&2");
        let failure = daemon.ready::<HeadReady>().await.unwrap_err();
        let expected = format!(
            "the head ended before it was ready: exit status: 0 (last words); look at {}",
            daemon.log.display()
        );
        assert_eq!((failure.code, failure.to_string()), (exit::FAILED, expected));
    }

    #[tokio::test]
    async fn a_daemon_that_is_never_ready_is_killed() {
        let scratch = Scratch::new();
        let mut daemon = daemon(&scratch, "exec sleep 1000");
        let record = daemon.record().unwrap();
        let failure = daemon.ready_within::<HeadReady>(Duration::from_millis(20)).await.unwrap_err();
        assert!(failure.to_string().starts_with("the head was not ready within 0.02 s;"), "{failure}");
        drop(daemon);
        assert!(!record.is_alive());
    }
}
