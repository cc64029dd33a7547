//! Two executables of different sources, which talk to each other all the same.
//!
//! `program.rs` is built in two editions. Whatever is checked is what the two processes say. `entries.rs` is one
//! that starts workers of itself, from entries written by hand.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use crate::{externs, rustc};

const SOURCE: &str = "tests/ui/executables/program.rs";

/// How long a process may be silent on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines that nobody has read yet; a program has a handful.
const LINES_MAX: usize = 100;

/// The program as it is, and the later edition.
static EDITIONS: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let externs = externs(&["roadshow", "actix", "serde", "tokio"]);
    // Side by side, since most of the time goes into linking.
    let builds = [("earlier", &[][..]), ("later", &["--cfg=later"])].map(|(edition, cfg)| {
        let executable = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("program-{edition}"));
        let mut rustc = rustc();
        // The crate's name is part of the types' names.
        rustc.args(["--crate-name=program", "--crate-type=bin", "--check-cfg=cfg(later)", "-Cdebuginfo=0"]);
        rustc.args(cfg).args(&externs).arg("-o").arg(&executable).arg(SOURCE);
        (rustc.spawn().expect("a test has a compiler beside it"), executable)
    });
    builds.map(|(mut rustc, executable)| {
        assert!(rustc.wait().expect("it was started here").success(), "{SOURCE} does not compile");
        executable
    })
});

/// A process. Dropping it ends it.
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
        let (tell, lines) = sync_channel(LINES_MAX);
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(tell.send(line)));
        });
        Self { child, lines }
    }

    #[track_caller]
    fn says(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it says something in time")
    }

    #[track_caller]
    fn check(&self, expected: &str) {
        assert_eq!(self.says(), expected);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn of_two_executables_only_what_they_declare_differently_is_refused() {
    const ADD: &str = "message `program::Add` is declared differently: \
                       `struct Add(u64) -> u64` at the receiver, `struct Add(u32) -> u64` at the sender";
    const ADD_ALL: &str = "message `program::AddAll` is declared differently: `program::Step` is \
                           `struct Step{up:u64,down:u64}` at the receiver, \
                           `struct Step{down:u64,up:u64}` at the sender";
    const HALVE: &str = "task `program::halve` is declared differently: \
                         `fn(u64)->u64` at the receiver, `fn(u64)->(u64,bool)` at the sender";

    let [earlier, later] = &*EDITIONS;
    let mut serves = Program::start(earlier, &["serve"]);
    let calls = Program::start(later, &["call", &serves.says()]);
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
fn of_two_processes_of_one_executable_nothing_is_refused() {
    let [_, later] = &*EDITIONS;
    let mut serves = Program::start(later, &["serve"]);
    let calls = Program::start(later, &["call", &serves.says()]);
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

/// What the program of several entries says when it starts at one of them.
#[track_caller]
fn said_from(entry: &str) -> String {
    static ENTRIES: LazyLock<PathBuf> = LazyLock::new(|| {
        let executable = Path::new(env!("CARGO_TARGET_TMPDIR")).join("entries");
        let mut rustc = rustc();
        rustc.args(["--crate-name=entries", "--crate-type=bin", "-Cdebuginfo=0"]);
        rustc.args(externs(&["roadshow", "actix", "serde", "tokio"])).arg("-o").arg(&executable);
        let status = rustc.arg("tests/ui/executables/entries.rs").status();
        assert!(status.expect("a test has a compiler beside it").success(), "entries.rs does not compile");
        executable
    });
    let mut command = Command::new(&*ENTRIES);
    command.arg("an argument").env("ENTRY", entry).env_remove("ROADSHOW_ADDRESS").stderr(Stdio::null());
    let output = command.output().expect("it was built just now");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn workers_are_diverted_within_a_runtime() {
    for entry in ["actix", "tokio"] {
        assert_eq!(said_from(entry), "answered by a worker: true, ended: Ok(())\n", "{entry}");
    }
}

#[test]
fn a_program_that_does_not_divert_its_workers_first_is_told_to() {
    let undiverted = said_from("undiverted");
    assert!(undiverted.starts_with("this program has no entry point for workers"), "{undiverted}");
    let late = said_from("late");
    assert!(late.contains("exited with code 101 before it reached roadshow::run_if_worker()"), "{late}");
}
