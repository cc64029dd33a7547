//! Starts this executable again as a driver that the test can end.
//!
//! An environment variable holds the driver's role; without it the test named [`drive`] does nothing. The
//! driver reports to its test line by line on standard output.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use actix::System;
use rustix::process::Signal;

use super::process_table::{self, all_end_within, wait_until};

/// Environment variable with the role of a driver.
const ROLE: &str = "ROADSHOW_TEST_ROLE";

/// Maximum time of a step on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Maximum time that workers may outlive their driver.
pub(super) const WORKERS_END_WITHIN: Duration = Duration::from_secs(2);

/// Maximum number of unread lines; a driver prints about ten.
const LINES_MAX: usize = 1000;

const MARK: &str = "driver: ";

#[test]
fn drive() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (name, how) = role.split_once(' ').unwrap_or((&role, ""));
    match name {
        "start" => System::new().block_on(super::starts::start(how)),
        "end" => System::new().block_on(super::driver_exit::end(how)),
        "offspring" => System::new().block_on(super::descendants::stay(how)),
        "compare" => System::new().block_on(super::settings::compare(how)),
        "print" => System::new().block_on(super::lifecycle::print()),
        "output" => System::new().block_on(super::output::drive(how)),
        "traces" => System::new().block_on(super::traces::drive(how)),
        "trace" => System::new().block_on(super::tracing::drive(how)),
        _ => panic!("no such role: {role}"),
    }
}

/// Reports something to the test.
pub(super) fn report(text: impl Display) {
    // The test harness may have printed the start of a line.
    println!("\n{MARK}{text}");
}

/// Waits until the test lets the driver continue, while its links are served.
pub(super) async fn await_go() {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    read.await.unwrap().unwrap();
}

/// Running driver. Dropping it ends it, and any workers that remain.
pub(super) struct Driver {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    pub(super) workers: Vec<u32>,
}

impl Driver {
    pub(super) fn command(role: &str) -> Command {
        Self::command_of("/proc/self/exe", role)
    }

    pub(super) fn command_of(executable: impl AsRef<OsStr>, role: &str) -> Command {
        let mut command = Command::new(executable);
        command.args(["processes::driver::drive", "--exact", "--nocapture"]).env(ROLE, role);
        for variable in ["ROADSHOW_LOG", "ROADSHOW_WORKERS", "ROADSHOW_ADDRESS", "ROADSHOW_DEDUP_LOGS"] {
            command.env_remove(variable);
        }
        command
    }

    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = lines_of(child.stdout.take().unwrap());
        let stderr = lines_of(child.stderr.take().unwrap());
        Self { child, stdout, stderr, workers: Vec::new() }
    }

    /// Starts a driver whose standard error is not read.
    pub(super) fn start_without_stderr(mut command: Command) -> (Self, Option<std::process::ChildStderr>) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = lines_of(child.stdout.take().unwrap());
        let stderr = child.stderr.take();
        (Self { child, stdout, stderr: sync_channel(1).1, workers: Vec::new() }, stderr)
    }

    /// Lets a driver continue that waits in [`await_go`].
    pub(super) fn go(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line that the driver reports.
    #[track_caller]
    pub(super) fn next_report(&self) -> String {
        loop {
            let line = self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|err| {
                panic!("the driver says nothing: {err}; its errors: {:?}", self.errors_so_far())
            });
            if let Some(report) = line.strip_prefix(MARK) {
                return report.to_owned();
            }
        }
    }

    /// Receives the pids of the workers that the driver has started.
    #[track_caller]
    pub(super) fn receive_workers(&mut self) {
        let report = self.next_report();
        let pids = report.strip_prefix("workers").unwrap_or_else(|| panic!("no workers: {report}"));
        self.workers = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    }

    /// Waits until each of `texts` was printed `times` times by workers, at the driver's standard error.
    #[track_caller]
    pub(super) fn wait_for_error_lines(&self, texts: &[&str], times: usize) {
        let mut missing: Vec<&str> = texts.repeat(times);
        while !missing.is_empty() {
            let line = self.stderr.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no worker prints {missing:?}"));
            let (_, printed) = line.split_once(") ").unwrap_or_default();
            if let Some(at) = missing.iter().position(|text| *text == printed) {
                missing.swap_remove(at);
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        process_table::signal(self.pid(), signal).unwrap();
    }

    /// Waits for the driver's end.
    #[track_caller]
    pub(super) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        let ended = wait_until(PATIENCE, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(ended, "the driver does not end; its errors: {:?}", self.errors_so_far());
        status.unwrap()
    }

    /// Waits for the driver's end, and then for that of its workers.
    #[track_caller]
    pub(super) fn ends_with_its_workers(&mut self) -> ExitStatus {
        let status = self.wait();
        assert!(!self.workers.is_empty());
        all_end_within(WORKERS_END_WITHIN, &self.workers);
        status
    }

    /// Returns all unread output, once the driver and its workers have ended.
    pub(super) fn output(&self) -> (Vec<String>, Vec<String>) {
        (self.stdout.iter().collect(), self.stderr.iter().collect())
    }

    fn errors_so_far(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also the workers that the driver has not reported yet.
        self.workers.extend(process_table::children(self.pid()));
        // An error means that the driver has ended already, as expected.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for &pid in self.workers.iter().filter(|&&pid| process_table::runs(pid)) {
            // The worker may end between the check and the signal.
            let _ = process_table::signal(pid, Signal::KILL);
        }
    }
}

/// Returns the lines of a stream, which a thread reads to its end.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Returns the exit code of a process, or the signal that ended it.
pub(super) fn code_or_signal(status: ExitStatus) -> Result<i32, i32> {
    status.code().ok_or_else(|| status.signal().unwrap())
}
