//! Cluster of three nodes on loopback, with the lecture's job, a job of 10,000 actors, and a quiet one.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Command;

/// Time for anything that a check waits for. Debug builds on a busy machine are slow.
pub(crate) const WAIT: Duration = Duration::from_secs(150);
/// Pause between two looks at a condition.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Repetitions of the lecture's text: its list counting then takes about half a minute in a debug build.
const REPEAT: &str = "3";
/// Repetitions for pictures: the charts have lines before the tasks begin.
const REPEAT_SHOWN: &str = "7";

/// Running cluster; `tests/browser/run` ends its processes.
pub(crate) struct Cluster {
    built: PathBuf,
    scratch: PathBuf,
    address: String,
    pub(crate) token: String,
    /// Origin of the dashboard, such as `http://127.0.0.1:8265`; empty without one.
    pub(crate) url: String,
    /// Link with a ticket, as `start` printed it.
    pub(crate) link: String,
    pub(crate) nodes: Vec<String>,
    pub(crate) lecture: String,
    pub(crate) cells: String,
    /// Job whose numbers stand still after a while.
    pub(crate) quiet: String,
    pids: Vec<u32>,
}

impl Cluster {
    /// Starts three nodes and three jobs.
    pub(crate) async fn start() -> Self {
        let mut cluster = Self::of_three_nodes().await;
        cluster.lecture = cluster.submit_the_lecture(REPEAT).await;
        cluster.cells = cluster.submit(".", "many_actors", &[]).await;
        cluster.quiet = cluster.submit(".", "quiet", &[]).await;
        println!("cluster at {}, dashboard at {}", cluster.address, cluster.url);
        cluster
    }

    /// Starts three nodes and the lecture's job, for the documentation.
    pub(crate) async fn with_the_lecture() -> Self {
        let mut cluster = Self::of_three_nodes().await;
        cluster.lecture = cluster.submit_the_lecture(REPEAT_SHOWN).await;
        cluster
    }

    async fn of_three_nodes() -> Self {
        let mut cluster =
            Self::head(0, &["--num-cpus=4", "--include-dashboard=1", "--dashboard-port=0"]).await;
        for number in 1..3 {
            let name = format!("--node-name=node-{}", number + 1);
            let session = cluster.session(number);
            let own = ["--session-dir", &session, "--num-cpus=4", "--host=127.0.0.1", &name];
            let joined =
                cluster.json(&[&["start", "--address", &cluster.address.clone()], &own[..]].concat()).await;
            cluster.nodes.push(joined["node_id"].as_str().unwrap().to_owned());
        }
        cluster
    }

    /// Starts one node with one worker for each job, and no job.
    pub(crate) async fn of_one_node(number: usize, has_dashboard: bool) -> Self {
        let dashboard = if has_dashboard { "--include-dashboard=1" } else { "--include-dashboard=0" };
        Self::head(number, &["--num-cpus=1", dashboard, "--dashboard-port=0"]).await
    }

    async fn head(number: usize, options: &[&str]) -> Self {
        let directory = |name: &str| PathBuf::from(std::env::var(name).expect("tests/browser/run sets it"));
        let mut cluster = Self {
            built: directory("ROADSHOW_BROWSER_BUILT"),
            scratch: directory("ROADSHOW_BROWSER_SCRATCH"),
            address: String::new(),
            token: String::new(),
            url: String::new(),
            link: String::new(),
            nodes: Vec::new(),
            lecture: String::new(),
            cells: String::new(),
            quiet: String::new(),
            pids: Vec::new(),
        };
        let (session, state) = (cluster.session(number), cluster.state(number));
        let own = ["--session-dir", &session, "--state-dir", &state, "--node-name=node-1"];
        let head = ["start", "--head", "--host=127.0.0.1", "--port=0"];
        let started = cluster.json(&[&head[..], &own, options].concat()).await;
        let text = |name: &str| started[name].as_str().unwrap_or_default().to_owned();
        (cluster.address, cluster.token, cluster.link) = (text("address"), text("token"), text("dashboard"));
        if let Ok(link) = url::Url::parse(&cluster.link) {
            cluster.url = link.origin().ascii_serialization();
        }
        cluster.nodes.push(text("node_id"));
        let pids = started["pids"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        cluster.pids = pids.filter_map(|pid| u32::try_from(pid).ok()).collect();
        cluster
    }

    /// Session directory of a node; `tests/browser/run` ends three of them.
    fn session(&self, number: usize) -> String {
        format!("{}/n{number}", self.scratch.display())
    }

    fn state(&self, number: usize) -> String {
        format!("{}/state{number}", self.scratch.display())
    }

    /// Process of the head.
    pub(crate) fn head_pid(&self) -> u32 {
        let is_head = |pid: &&u32| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("internal-head"))
        };
        *self.pids.iter().find(is_head).expect("the head runs")
    }

    /// Stops the head and its node, and forgets the cluster.
    pub(crate) async fn stop(&self, number: usize) {
        self.json(&["stop", "--session-dir", &self.session(number)]).await;
        std::fs::remove_dir_all(self.state(number)).unwrap();
    }

    /// Program of this workspace, or the command, with the address of the cluster.
    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.built.join(name));
        if !self.token.is_empty() {
            command.env("ROADSHOW_TOKEN", &self.token).env("ROADSHOW_ADDRESS", &self.address);
        }
        command
    }

    async fn submit_the_lecture(&self, repeat: &str) -> String {
        self.submit("examples", "most_frequent_word", &["--repeat", repeat, "--counting=list"]).await
    }

    /// Submits a program from its directory: pages show how it was called.
    async fn submit(&self, directory: &str, program: &str, arguments: &[&str]) -> String {
        let program = format!("./{program}");
        let mut command =
            self.command(&[&["job", "submit", "--no-wait", "--json", "--", &program], arguments].concat());
        let submitted = printed(command.current_dir(self.built.join(directory))).await;
        submitted["job_id"].as_str().unwrap().to_owned()
    }

    /// Output of a command, as JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let mut command = self.command(arguments);
        printed(command.arg("--json")).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("roadshow");
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Rows of `roadshow list`, with a filter.
    pub(crate) async fn list(&self, kind: &str, filter: &str) -> Vec<Value> {
        let Value::Array(rows) = self.json(&["list", kind, "--filter", filter]).await else {
            panic!("the list of {kind} is no array")
        };
        rows
    }

    /// Row of a list whose condition holds, once there is one.
    pub(crate) async fn row(&self, kind: &str, filter: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let rows = self.list(kind, filter).await;
            if let Some(row) = rows.iter().find(|row| is_meant(row)) {
                return row.clone();
            }
            assert!(begun.elapsed() < WAIT, "no {kind} with {filter}: {rows:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Output of a command that must succeed, as JSON.
async fn printed(command: &mut Command) -> Value {
    let output = command.output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {error}", command.as_std().get_args());
    serde_json::from_slice(&output.stdout).unwrap()
}
