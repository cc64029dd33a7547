//! One cluster, started by the command, and all that a test asks of it.

use std::fmt::Display;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::proc;

/// The variables by which the machine of a developer could have its say.
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

/// A directory for one test. Dropping it ends all that runs in it, and removes it.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roadshow-ct-{}-{number}", std::process::id()));
        // What an earlier process of this number may have left.
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
        // The daemons before their workers, lest those are started again: a few rounds end all.
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

/// A cluster. Dropping it ends its processes and removes its files, also when the test fails.
#[derive(Debug)]
pub(super) struct TestCluster {
    scratch: Scratch,
    pub(super) nodes: Vec<Node>,
    pub(super) token: String,
    pub(super) address: String,
}

/// A node as `start --json` has told of it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) session: PathBuf,
    /// How long the command took.
    pub(super) took: Duration,
    /// What the command runs under: another namespace of the network.
    pub(super) under: Vec<String>,
}

impl Node {
    pub(super) fn head(&self) -> u32 {
        self.daemon("head")
    }

    pub(super) fn agent(&self) -> u32 {
        self.daemon("agent")
    }

    /// What the session's file says, by which `stop` finds it, too.
    fn daemon(&self, role: &str) -> u32 {
        let json = fs::read(self.session.join("node.json")).unwrap();
        let node: Value = serde_json::from_slice(&json).unwrap();
        let daemon = node["processes"].as_array().unwrap().iter().find(|daemon| daemon["role"] == role);
        let daemon = daemon.unwrap_or_else(|| panic!("no {role}: {node}"));
        daemon["pid"].as_u64().unwrap().try_into().unwrap()
    }
}

/// The command, which knows of no cluster and no session but those of `home`.
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
    command.args(arguments).stdin(Stdio::null()).current_dir(home);
    isolate(&mut command, home);
    command
}

/// Keeps a process from what this user has otherwise.
pub(super) fn isolate(command: &mut Command, home: &Path) {
    for variable in NOT_INHERITED {
        command.env_remove(variable);
    }
    command.env("TMPDIR", home).env("HOME", home).env("XDG_STATE_HOME", home);
}

/// Runs a command to its end, which it has to reach in time.
#[track_caller]
pub(super) fn output(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(proc::PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            proc::kill(pid);
            let output = told.recv().unwrap().unwrap();
            panic!("the command does not end: {command:?}: {}", text(&output.stderr));
        }
    }
}

/// Says why a test cannot do its work here, past the harness, which shows nothing of a test that passes.
pub(super) fn skipped(why: impl Display) {
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl TestCluster {
    /// A head alone, on loopback.
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

    /// Two nodes of one worker each, on loopback.
    #[track_caller]
    pub(super) fn pair() -> Self {
        let mut site = Self::head(&["--num-cpus=1"]);
        site.join(&["--num-cpus=1"]);
        site
    }

    /// Starts the head with the cluster's state, in the session of the first node.
    #[track_caller]
    fn start_head(&mut self, under: &[String], host: &str, arguments: &[&str]) -> Value {
        let state = self.state();
        let session = self.home().join("n0");
        let (state, session) = (state.to_str().unwrap(), session.to_str().unwrap());
        let given = ["start", "--head", "--json", "--port=0", "--host", host];
        let own = ["--state-dir", state, "--session-dir", session];
        self.start(under, &[&given[..], &own, arguments].concat())
    }

    /// Stops the only node, and starts it again with the cluster's state.
    #[track_caller]
    pub(super) fn stop_and_start(&mut self, arguments: &[&str]) {
        self.stop();
        self.nodes.clear();
        self.start_head(&[], "127.0.0.1", arguments);
        self.address = self.nodes[0].address.clone();
    }

    /// Starts a head again that was killed.
    #[track_caller]
    pub(super) fn head_again(&self) -> Value {
        json(self.head_again_command())
    }

    pub(super) fn head_again_command(&self) -> Command {
        let (state, under) = (self.state(), self.nodes[0].under.clone());
        let mut command = self.roadshow_under(
            &under,
            &["start", "--head", "--json", "--port=0", "--state-dir", state.to_str().unwrap()],
        );
        command.env_remove("ROADSHOW_TOKEN");
        command
    }

    /// Another node on loopback.
    #[track_caller]
    pub(super) fn join(&mut self, arguments: &[&str]) -> Node {
        self.join_under(&[], "127.0.0.1", arguments)
    }

    #[track_caller]
    pub(super) fn join_under(&mut self, under: &[String], host: &str, arguments: &[&str]) -> Node {
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

    /// The directory of all that is this cluster's.
    pub(super) fn home(&self) -> &Path {
        self.scratch.path()
    }

    pub(super) fn state(&self) -> PathBuf {
        self.home().join("state")
    }

    /// All of its processes that run, and its programs'.
    pub(super) fn processes(&self) -> Vec<u32> {
        proc::below(self.home())
    }

    /// The command, about this cluster.
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

    /// What the command prints with `--json`.
    #[track_caller]
    pub(super) fn json(&self, arguments: &[&str]) -> Value {
        json(self.roadshow(&[arguments, &["--json"]].concat()))
    }

    /// A list of the command, such as that of the nodes.
    #[track_caller]
    pub(super) fn list(&self, of: &str) -> Vec<Value> {
        let Value::Array(rows) = self.json(&["list", of]) else { panic!("the list of {of} is no array") };
        rows
    }

    /// The row whose `field` is `value`.
    #[track_caller]
    pub(super) fn row(&self, of: &str, field: &str, value: impl Into<Value>) -> Value {
        let (rows, value) = (self.list(of), value.into());
        let row = rows.iter().find(|row| row[field] == value).cloned();
        row.unwrap_or_else(|| panic!("no {field} {value} in {of}: {rows:#?}"))
    }

    /// The node that a worker process runs on.
    #[track_caller]
    pub(super) fn node_of(&self, pid: u64) -> String {
        self.row("workers", "pid", pid)["node_id"].as_str().unwrap().to_owned()
    }

    /// Ends all nodes in order.
    #[track_caller]
    pub(super) fn stop(&self) {
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
            // What it does not end is killed with the directory.
            let _ = self.roadshow(&["stop", "--force", "--session-dir", session]).output();
        }
    }
}

impl TestCluster {
    /// What the daemons have written, for whoever looks for the cause of a failure.
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

/// Runs a command that has to succeed, and reads what it prints.
#[track_caller]
pub(super) fn json(command: Command) -> Value {
    let shown = format!("{command:?}");
    let output = output(command);
    assert!(output.status.success(), "{shown}: {}{}", output.status, text(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{shown}: {error}: {}", text(&output.stdout)))
}

/// Runs a command that has to fail; gives its exit code and the one line that it says.
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
