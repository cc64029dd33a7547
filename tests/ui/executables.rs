//! Two executables of different sources that exchange messages.
//!
//! `program.rs` is built in two editions, and the tests compare the output of two processes. `entries.rs`
//! starts workers of itself, from entries written by hand.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use crate::{externs, rustc};

const SOURCE: &str = "tests/ui/executables/program.rs";

/// Maximum time between two lines of a process on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Maximum number of unread lines; a program prints about ten.
const LINES_MAX: usize = 100;

/// The program in its earlier and in its later edition.
static EDITIONS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let externs = externs(&["roadshow", "actix", "serde", "tokio"]);
    // Both compilers run in parallel, since linking takes most of the time.
    let builds = [("earlier", &[][..]), ("later", &["--cfg=later"])].map(|(edition, cfg)| {
        let executable = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("program-{edition}"));
        let mut rustc = rustc();
        // Both need the same crate name, which is part of the types' names.
        rustc.args(["--crate-name=program", "--crate-type=bin", "--check-cfg=cfg(later)", "-Cdebuginfo=0"]);
        rustc.args(cfg).args(&externs).arg("-o").arg(&executable).arg(SOURCE);
        (rustc.spawn().expect("a compiler is installed"), executable)
    });
    builds.map(|(mut rustc, executable)| {
        assert!(rustc.wait().expect("it was started here").success(), "{SOURCE} does not compile");
        executable
    })
});

/// Running process. Dropping it kills it.
struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    fn start(executable: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(executable);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it was built just now");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = sync_channel(LINES_MAX);
        // A read from a pipe has no timeout, a receive from a channel has one.
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines }
    }

    #[track_caller]
    fn next_line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program prints a line in time")
    }

    #[track_caller]
    fn check(&self, expected: &str) {
        assert_eq!(self.next_line(), expected);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn only_declarations_that_differ_are_rejected_between_two_executables() {
    const ADD: &str = "message `program::Add` is declared differently: \
                       `struct Add(u64) -> u64` at the receiver, `struct Add(u32) -> u64` at the sender";
    const ADD_ALL: &str = "message `program::AddAll` is declared differently: `program::Step` is \
                           `struct Step{up:u64,down:u64}` at the receiver, \
                           `struct Step{down:u64,up:u64}` at the sender";
    const HALVE: &str = "task `program::halve` is declared differently: \
                         `fn(u64)->u64` at the receiver, `fn(u64)->(u64,bool)` at the sender";

    let [earlier, later] = &*EDITIONS;
    let mut serves = Program::start(earlier, &["serve"]);
    let calls = Program::start(later, &["call", &serves.next_line()]);
    calls.check("total: Ok(40)");
    calls.check(&format!("add: Err(NotDelivered(Mismatch {{ text: {ADD:?} }}))"));
    calls.check(&format!("add all: Err(NotDelivered(Mismatch {{ text: {ADD_ALL:?} }}))"));
    calls.check("add, without an answer: Ok(())");
    calls.check("total: Ok(40)");
    calls.check("double: Ok(42)");
    let refused =
        format!("NotDelivered {{ task: \"program::halve\", reason: Mismatch {{ text: {HALVE:?} }} }}");
    calls.check(&format!("halve: Err({refused})"));
    calls.check("links: [1]");
    drop(serves.child.stdin.take());
    serves.check("dead letters: 1");
}

#[test]
fn nothing_is_rejected_between_two_processes_of_one_executable() {
    // The later edition calls itself, so every rejection would be wrong.
    let [_, later] = &*EDITIONS;
    let mut serves = Program::start(later, &["serve"]);
    let calls = Program::start(later, &["call", &serves.next_line()]);
    calls.check("total: Ok(40)");
    calls.check("add: Ok(42)");
    calls.check("add all: Ok(44)");
    calls.check("add, without an answer: Ok(())");
    calls.check("total: Ok(46)");
    calls.check("double: Ok(42)");
    calls.check("halve: Ok((10, true))");
    calls.check("links: [1]");
    drop(serves.child.stdin.take());
    serves.check("dead letters: 0");
}

/// Runs the program of several entries from one of them, and returns its output.
#[track_caller]
fn output_of(entry: &str) -> String {
    static ENTRIES: LazyLock<PathBuf> = LazyLock::new(|| {
        let executable = Path::new(env!("CARGO_TARGET_TMPDIR")).join("entries");
        let mut rustc = rustc();
        rustc.args(["--crate-name=entries", "--crate-type=bin", "-Cdebuginfo=0"]);
        rustc.args(externs(&["roadshow", "actix", "serde", "tokio"])).arg("-o").arg(&executable);
        let status = rustc.arg("tests/ui/executables/entries.rs").status();
        assert!(status.expect("a compiler is installed").success(), "entries.rs does not compile");
        executable
    });
    let mut command = Command::new(&*ENTRIES);
    // Workers are started without arguments, which the entry "late" relies on.
    command.arg("an argument").env("ENTRY", entry).env_remove("ROADSHOW_ADDRESS").stderr(Stdio::null());
    let output = command.output().expect("it was built just now");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn workers_are_detected_within_a_runtime() {
    for entry in ["actix", "tokio"] {
        assert_eq!(output_of(entry), "answered by a worker: true, ended: Ok(())\n", "{entry}");
    }
}

#[test]
fn a_program_that_detects_its_workers_too_late_gets_an_error() {
    let undiverted = output_of("undiverted");
    assert!(undiverted.starts_with("this program has no entry point for workers"), "{undiverted}");
    let late = output_of("late");
    assert!(late.contains("exited with code 101 before it reached roadshow::run_if_worker()"), "{late}");
}
