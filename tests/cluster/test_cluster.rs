//! Test cluster that is started by the command, with helpers to run commands against it.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::proc;

/// Environment variables that must not leak in from the developer's machine.
const NOT_INHERITED: [&str; 8] = [
    "ROADSHOW_DEDUP_LOGS",
    "ROADSHOW_ADDRESS",
    "ROADSHOW_TOKEN",
    "ROADSHOW_TOKEN_FILE",
    "ROADSHOW_WORKERS",
    "ROADSHOW_WORKER",
    "ROADSHOW_JOB",
    "ROADSHOW_LOG",
];

/// Directory of one test. Dropping it kills the processes that run in it, and removes it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roadshow-ct-{}-{number}", std::process::id()));
        // Left over from an earlier process with the same id.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A daemon that is killed after its workers may start new ones in between, so repeat until none is left.
        for _ in 0..100 {
            proc::kill_below(&self.0);
            if proc::below(&self.0).is_empty() {
                break;
            }
            std::thread::yield_now();
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Running cluster. Dropping it stops its processes and removes its files, even if the test fails.
#[derive(Debug)]
pub(super) struct TestCluster {
    scratch: Scratch,
    pub(super) nodes: Vec<Node>,
    pub(super) token: String,
    pub(super) address: String,
}

/// Node as `start --json` reports it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) session: PathBuf,
    /// Duration of the start command.
    pub(super) took: Duration,
    /// Command prefix that runs a command in the node's network namespace.
    pub(super) under: Vec<String>,
}

impl Node {
    pub(super) fn head(&self) -> u32 {
        self.daemon("head")
    }

    pub(super) fn agent(&self) -> u32 {
        self.daemon("agent")
    }

    /// Process id of a daemon from the session's file, which `stop` reads, too.
    fn daemon(&self, role: &str) -> u32 {
        let json = fs::read(self.session.join("node.json")).unwrap();
        let node: Value = serde_json::from_slice(&json).unwrap();
        let daemon = node["processes"].as_array().unwrap().iter().find(|daemon| daemon["role"] == role);
        let daemon = daemon.unwrap_or_else(|| panic!("no {role}: {node}"));
        daemon["pid"].as_u64().unwrap().try_into().unwrap()
    }
}

/// Builds a command that finds no other cluster and session than those of `home`.
pub(super) fn roadshow(home: &Path, under: &[String], arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_roadshow");
    let mut command = match under.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    // The working directory marks a process as one of this test, see `proc::below`.
    command.args(arguments).stdin(Stdio::null()).current_dir(home);
    isolate(&mut command, home);
    command
}

/// Hides the user's other sessions and settings from a process.
pub(super) fn isolate(command: &mut Command, home: &Path) {
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    // The default directories of sessions and state are below these.
    command.env("TMPDIR", home).env("HOME", home).env("XDG_STATE_HOME", home);
}

/// Runs a command to its end, and kills it if it takes too long.
#[track_caller]
pub(super) fn output(mut command: Command) -> Output {
    // `wait_with_output` has no timeout, so a thread waits.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (sender, result) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    match result.recv_timeout(proc::PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            proc::kill(pid);
            let output = result.recv().unwrap().unwrap();
            panic!("the command does not end: {command:?}: {}", text(&output.stderr));
        }
    }
}

/// Reports why a test is skipped. The test harness hides the output of a passing test, so this writes past it.
pub(super) fn skipped(why: impl Display) {
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl TestCluster {
    /// Starts a head on loopback, without further nodes.
    #[track_caller]
    pub(super) fn head(arguments: &[&str]) -> Self {
        Self::head_under(Vec::new(), "127.0.0.1", arguments)
    }

    #[track_caller]
    pub(super) fn head_under(under: Vec<String>, host: &str, arguments: &[&str]) -> Self {
        let scratch = Scratch::new();
        let mut site = Self { scratch, nodes: Vec::new(), token: String::new(), address: String::new() };
        let started = site.start_head(&under, host, arguments);
        site.token = started["token"].as_str().unwrap().to_owned();
        site.address = site.nodes[0].address.clone();
        site
    }

    /// Starts two nodes on loopback, with one worker each.
    #[track_caller]
    pub(super) fn pair() -> Self {
        let mut site = Self::head(&["--num-cpus=1"]);
        site.join(&["--num-cpus=1"]);
        site
    }

    /// Starts the head with the cluster's state directory, in the session directory of the first node.
    #[track_caller]
    fn start_head(&mut self, under: &[String], host: &str, arguments: &[&str]) -> Value {
        let state = self.state();
        let session = self.home().join("n0");
        let (state, session) = (state.to_str().unwrap(), session.to_str().unwrap());
        // Tests run in parallel, so every node takes a free port.
        let given = ["start", "--head", "--json", "--port=0", "--host", host];
        let own = ["--state-dir", state, "--session-dir", session];
        // The default port of the dashboard is one for all clusters of a machine.
        let has_dashboard = arguments.iter().any(|it| it.starts_with("--include-dashboard"));
        let off = if has_dashboard { &[][..] } else { &["--include-dashboard=0"] };
        self.start(under, &[&given[..], &own, off, arguments].concat())
    }

    /// Stops the only node, and restarts it with the cluster's state.
    #[track_caller]
    pub(super) fn stop_and_start(&mut self, arguments: &[&str]) {
        self.stop();
        self.nodes.clear();
        self.start_head(&[], "127.0.0.1", arguments);
        self.address = self.nodes[0].address.clone();
    }

    /// Restarts a killed head.
    #[track_caller]
    pub(super) fn restart_head(&self) -> Value {
        json(self.restart_head_command())
    }

    pub(super) fn restart_head_command(&self) -> Command {
        let (state, under) = (self.state(), self.nodes[0].under.clone());
        let mut command = self.roadshow_under(
            &under,
            &[
                "start",
                "--head",
                "--json",
                "--port=0",
                "--include-dashboard=0",
                "--state-dir",
                state.to_str().unwrap(),
            ],
        );
        // The head has its token in the state directory.
        command.env_remove("ROADSHOW_TOKEN");
        command
    }

    /// Joins another node on loopback.
    #[track_caller]
    pub(super) fn join(&mut self, arguments: &[&str]) -> Node {
        self.join_under(&[], "127.0.0.1", arguments)
    }

    #[track_caller]
    pub(super) fn join_under(&mut self, under: &[String], host: &str, arguments: &[&str]) -> Node {
        // Short names: the path of a Unix socket is limited to 107 bytes.
        let session = self.home().join(format!("n{}", self.nodes.len()));
        let given = ["start", "--json", "--host", host, "--address", &self.address.clone()];
        let own = ["--session-dir", session.to_str().unwrap()];
        self.start(under, &[&given[..], &own, arguments].concat());
        self.nodes.last().unwrap().clone()
    }

    #[track_caller]
    fn start(&mut self, under: &[String], arguments: &[&str]) -> Value {
        let begun = Instant::now();
        let started = json(self.roadshow_under(under, arguments));
        self.nodes.push(Node {
            id: started["node_id"].as_str().unwrap().to_owned(),
            address: started["address"].as_str().unwrap().to_owned(),
            session: started["session_dir"].as_str().unwrap().into(),
            took: begun.elapsed(),
            under: under.to_vec(),
        });
        started
    }

    /// Directory of everything that belongs to this cluster.
    pub(super) fn home(&self) -> &Path {
        self.scratch.path()
    }

    pub(super) fn state(&self) -> PathBuf {
        self.home().join("state")
    }

    /// Process ids of the cluster's processes and of the test's programs.
    pub(super) fn processes(&self) -> Vec<u32> {
        proc::below(self.home())
    }

    /// Builds a command for this cluster.
    pub(super) fn roadshow(&self, arguments: &[&str]) -> Command {
        let under = self.nodes.first().map(|node| node.under.clone()).unwrap_or_default();
        self.roadshow_under(&under, arguments)
    }

    fn roadshow_under(&self, under: &[String], arguments: &[&str]) -> Command {
        let mut command = roadshow(self.home(), under, arguments);
        if !self.token.is_empty() {
            command.env("ROADSHOW_TOKEN", &self.token).env("ROADSHOW_ADDRESS", &self.address);
        }
        command
    }

    /// Output of a command with `--json`.
    #[track_caller]
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        json(self.roadshow(&[arguments, &["--json"]].concat()))
    }

    /// Rows of `roadshow list`.
    #[track_caller]
    pub(super) fn list(&self, of: &str) -> Vec<Value> {
        let Value::Array(rows) = self.json(&["list", of]) else { panic!("the list of {of} is no array") };
        rows
    }

    /// Row of `roadshow list` whose `field` is `value`.
    #[track_caller]
    pub(super) fn row(&self, of: &str, field: &str, value: impl Into<Value>) -> Value {
        let (rows, value) = (self.list(of), value.into());
        let row = rows.iter().find(|row| row[field] == value).cloned();
        row.unwrap_or_else(|| panic!("no {field} {value} in {of}: {rows:#?}"))
    }

    /// Id of the node that a worker process runs on.
    #[track_caller]
    pub(super) fn node_of(&self, pid: u64) -> String {
        self.row("workers", "pid", pid)["node_id"].as_str().unwrap().to_owned()
    }

    /// Stops all nodes gracefully.
    #[track_caller]
    pub(super) fn stop(&self) {
        // The head's node last, so that the others can report their end.
        for node in self.nodes.iter().rev() {
            let output = output(self.roadshow(&["stop", "--session-dir", node.session.to_str().unwrap()]));
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        for node in self.nodes.iter().rev().filter(|node| node.session.exists()) {
            let session = node.session.to_str().unwrap_or_default();
            // `Scratch` kills what this leaves running.
            let _ = self.roadshow(&["stop", "--force", "--session-dir", session]).output();
        }
    }
}

impl TestCluster {
    /// Prints the logs of all daemons, to help find the cause of a failure.
    fn show_logs(&self) {
        for node in &self.nodes {
            for log in ["head.log", "agent.log"] {
                let path = node.session.join("logs").join(log);
                let written = fs::read(&path).unwrap_or_default();
                if !written.is_empty() {
                    eprintln!("--- {}\n{}", path.display(), text(&written));
                }
            }
        }
    }
}

/// Runs a command that must succeed, and parses its output.
#[track_caller]
pub(super) fn json(command: Command) -> Value {
    let shown = format!("{command:?}");
    let output = output(command);
    assert!(output.status.success(), "{shown}: {}{}", output.status, text(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{shown}: {error}: {}", text(&output.stdout)))
}

/// Runs a command that must fail, and returns its exit code and its one line of error.
#[track_caller]
pub(super) fn refused(command: Command) -> (i32, String) {
    let shown = format!("{command:?}");
    let output = output(command);
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{shown} succeeds: {}", text(&output.stdout));
    let line = said.lines().last().unwrap_or_default();
    assert!(line.starts_with("error: ") && said.lines().count() == 1, "{shown}: {said}");
    (output.status.code().unwrap(), line.to_owned())
}
