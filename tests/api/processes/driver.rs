//! This executable, started again as a driver that the test can end.
//!
//! What it is to do is in an environment variable; without it the test named [`drive`] does nothing.
//! It tells its test line by line on standard output what it does.

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

use super::table::{self, all_end_within, wait_until};

/// What a driver is to do.
const ROLE: &str = "ROADSHOW_TEST_ROLE";

/// How long a step may take on a machine that has much else to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long workers may outlive their driver.
pub(super) const WORKERS_END_WITHIN: Duration = Duration::from_secs(2);

/// Lines that nobody has read yet; a driver has a handful.
const LINES_MAX: usize = 1000;

const MARK: &str = "driver: ";

#[test]
fn drive() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (name, how) = role.split_once(' ').unwrap_or((&role, ""));
    match name {
        "start" => System::new().block_on(super::starts::start(how)),
        "end" => System::new().block_on(super::ends::end(how)),
        "offspring" => System::new().block_on(super::offspring::stay(how)),
        "compare" => System::new().block_on(super::settings::compare(how)),
        "print" => System::new().block_on(super::lives::print()),
        "output" => System::new().block_on(super::output::drive(how)),
        "trace" => System::new().block_on(super::tracing::drive(how)),
        _ => panic!("no such role: {role}"),
    }
}

/// Tells the test something.
pub(super) fn say(text: impl Display) {
    // The harness may have begun a line.
    println!("\n{MARK}{text}");
}

/// Waits until the test lets the driver go on, and has its links served meanwhile.
pub(super) async fn await_go() {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    read.await.unwrap().unwrap();
}

/// A driver that runs. Dropping it ends it, and its workers if they are still there.
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

    /// A driver whose standard error nobody reads yet.
    pub(super) fn start_without_stderr(mut command: Command) -> (Self, Option<std::process::ChildStderr>) {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = lines_of(child.stdout.take().unwrap());
        let stderr = child.stderr.take();
        (Self { child, stdout, stderr: sync_channel(1).1, workers: Vec::new() }, stderr)
    }

    /// Lets a driver go on that waits in [`await_go`].
    pub(super) fn go(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the driver says next.
    #[track_caller]
    pub(super) fn hear(&self) -> String {
        loop {
            let line = self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|err| {
                panic!("the driver says nothing: {err}; its errors: {:?}", self.errors_so_far())
            });
            if let Some(said) = line.strip_prefix(MARK) {
                return said.to_owned();
            }
        }
    }

    /// Hears which processes the driver has started.
    #[track_caller]
    pub(super) fn hear_workers(&mut self) {
        let said = self.hear();
        let pids = said.strip_prefix("workers").unwrap_or_else(|| panic!("no workers: {said}"));
        self.workers = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    }

    /// Waits until each of `texts` was a line of a worker's, at the driver's standard error, `times` times.
    #[track_caller]
    pub(super) fn wait_for_error_lines(&self, texts: &[&str], times: usize) {
        let mut missing: Vec<&str> = texts.repeat(times);
        while !missing.is_empty() {
            let line = self.stderr.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("nobody prints {missing:?}"));
            let (_, printed) = line.split_once(") ").unwrap_or_default();
            if let Some(at) = missing.iter().position(|text| *text == printed) {
                missing.swap_remove(at);
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        table::signal(self.pid(), signal).unwrap();
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

    /// All that is left to read, once the driver and its workers have ended.
    pub(super) fn output(&self) -> (Vec<String>, Vec<String>) {
        (self.stdout.iter().collect(), self.stderr.iter().collect())
    }

    fn errors_so_far(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Those of a driver that has not told of them yet, too.
        self.workers.extend(table::children(self.pid()));
        // Fails where it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for &pid in self.workers.iter().filter(|&&pid| table::runs(pid)) {
            // It may end by itself meanwhile.
            let _ = table::signal(pid, Signal::KILL);
        }
    }
}

/// The lines of a stream, read by a thread until its end.
fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, lines) = sync_channel(LINES_MAX);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// How a process ended: its code, or the signal that ended it.
pub(super) fn code_or_signal(status: ExitStatus) -> Result<i32, i32> {
    status.code().ok_or_else(|| status.signal().unwrap())
}
