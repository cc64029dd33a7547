//! Cluster of three nodes on loopback, with the lecture's job and a job of 10,000 actors.

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

/// Running cluster; `tests/browser/run` ends its processes.
pub(crate) struct Cluster {
    built: PathBuf,
    address: String,
    pub(crate) token: String,
    /// Origin of the dashboard, such as `http://127.0.0.1:8265`.
    pub(crate) url: String,
    /// Link with a ticket, as `start` printed it.
    pub(crate) link: String,
    pub(crate) nodes: Vec<String>,
    pub(crate) lecture: String,
    pub(crate) cells: String,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let scratch =
            PathBuf::from(std::env::var("ROADSHOW_BROWSER_SCRATCH").expect("tests/browser/run sets it"));
        let built =
            PathBuf::from(std::env::var("ROADSHOW_BROWSER_BUILT").expect("tests/browser/run sets it"));
        let session = |number: usize| scratch.join(format!("n{number}")).to_str().unwrap().to_owned();
        let state = scratch.join("state").to_str().unwrap().to_owned();
        let mut cluster = Self {
            built,
            address: String::new(),
            token: String::new(),
            url: String::new(),
            link: String::new(),
            nodes: Vec::new(),
            lecture: String::new(),
            cells: String::new(),
        };
        let own =
            ["--session-dir", &session(0), "--state-dir", &state, "--dashboard-port=0", "--node-name=node-1"];
        let head =
            ["start", "--head", "--host=127.0.0.1", "--port=0", "--num-cpus=4", "--include-dashboard=1"];
        let started = cluster.json(&[&head[..], &own].concat()).await;
        let text = |name: &str| {
            started[name].as_str().unwrap_or_else(|| panic!("no {name} in {started}")).to_owned()
        };
        (cluster.address, cluster.token, cluster.link) = (text("address"), text("token"), text("dashboard"));
        cluster.url = url::Url::parse(&cluster.link).unwrap().origin().ascii_serialization();
        cluster.nodes.push(text("node_id"));
        for number in 1..3 {
            let name = format!("--node-name=node-{}", number + 1);
            let own = ["--session-dir", &session(number), "--num-cpus=4", "--host=127.0.0.1", &name];
            let joined =
                cluster.json(&[&["start", "--address", &cluster.address.clone()], &own[..]].concat()).await;
            cluster.nodes.push(joined["node_id"].as_str().unwrap().to_owned());
        }
        cluster.lecture =
            cluster.submit("examples/most_frequent_word", &["--repeat", REPEAT, "--counting=list"]).await;
        cluster.cells = cluster.submit("many_actors", &[]).await;
        println!("cluster at {}, dashboard at {}", cluster.address, cluster.url);
        cluster
    }

    async fn submit(&self, program: &str, arguments: &[&str]) -> String {
        let program = self.built.join(program).to_str().unwrap().to_owned();
        let submitted =
            self.json(&[&["job", "submit", "--no-wait", "--json", "--", &program], arguments].concat()).await;
        submitted["job_id"].as_str().unwrap().to_owned()
    }

    /// Output of a command, as JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let mut command = Command::new(self.built.join("roadshow"));
        command.args(arguments).stdin(Stdio::null());
        if !arguments.contains(&"--json") {
            command.arg("--json");
        }
        if !self.token.is_empty() {
            command.env("ROADSHOW_TOKEN", &self.token).env("ROADSHOW_ADDRESS", &self.address);
        }
        let output = command.output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "roadshow {}: {error}", arguments.join(" "));
        serde_json::from_slice(&output.stdout).unwrap()
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
