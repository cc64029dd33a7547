//! Numbers of the page against `--json` of the command, cell by cell, at the same snapshot.
//!
//! The page and `status --json` both have the number of the snapshot. A comparison counts if the number was the same
//! before and behind the command's list, and on the page in between. Statistics do not change that number, so those
//! of the Cluster page are compared by their `sampled_ms`: a row of the page with the row of the command that was
//! sampled at the same time. The job `quiet` has rows of every kind that stand still, and its pages show it alone.
//!
//! Left out, since the command has no such number: the rates of messages and of tasks on the Overview. They are sums
//! over workers that were sampled at different times. Their tiles are compared with the sample that they come from.
//! Charts are pictures of series that the head keeps, and have no cells.
//! Rates of actors are compared with the replies that the page took, since those of a quiet job are 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::Site;
use crate::cluster::{POLL, WAIT};

/// Defines `window.numbers`.
const SCRIPT: &str = include_str!("numbers.js");

/// Actors of the program `quiet`: those that count, those that take most of a node, and one that waits.
const QUIET_ACTORS: usize = 12 + 3 + 1;
/// Messages that they have handled: `Add` for each, and `Hold`. `Break` ends its actor before it is counted.
const QUIET_HANDLED: std::ops::RangeInclusive<u64> = 12 * 1000 + 7 * 66 + 1..=12 * 1000 + 7 * 66 + 2;

/// Names of the compared cells, and of all cells that have to be.
#[derive(Default)]
struct Cells {
    checked: BTreeSet<String>,
    wanted: BTreeSet<String>,
}

impl Cells {
    /// Takes the outcome of a comparison, which must have no difference.
    fn take(&mut self, outcome: &Value) {
        assert_eq!(outcome["differences"], json!([]));
        let texts =
            |name: &str| outcome[name].as_array().into_iter().flatten().map(|it| it.as_str().unwrap());
        self.checked.extend(texts("checked").map(str::to_owned));
        for row in texts("shown") {
            self.wanted.extend(texts("names").map(|name| format!("{row} {name}")));
        }
    }

    fn are_all_checked(&self) -> bool {
        !self.checked.is_empty() && self.wanted.is_subset(&self.checked)
    }

    fn missing(&self) -> Vec<&String> {
        self.wanted.difference(&self.checked).collect()
    }
}

impl Site {
    async fn snapshot(&self) -> u64 {
        self.cluster.json(&["status"]).await["snapshot"].as_u64().unwrap()
    }

    /// Calls a function of the script. `None` if the page is loading.
    async fn numbers(&self, call: &str) -> Option<Value> {
        let outcome = self.browser.value(&format!("window.numbers.{call}")).await;
        outcome["wait"].is_null().then_some(outcome)
    }

    /// Opens a page whose replies are recorded from its first one on.
    async fn open_recorded(&self, hash: &str, heading: &str) {
        // Another page first, so that the recorded one is opened anew.
        self.browser.open("#/events", "Events").await;
        if self.browser.value("!window.numbers").await == json!(true) {
            assert_eq!(self.browser.promised(SCRIPT).await, json!(true));
        }
        self.browser.value("window.numbers.forget()").await;
        self.browser.open(hash, heading).await;
    }

    /// Loads the document again, without the recorder.
    async fn close_recorded(&self) {
        self.browser.reload().await;
        self.browser.until("!!document.querySelector('h1')").await;
    }

    /// Waits until the counts of the program `quiet` have reached the head.
    async fn wait_until_quiet(&self) {
        let of_quiet = format!("job_id={}", self.cluster.quiet);
        let begun = Instant::now();
        loop {
            let actors = self.cluster.list("actors", &of_quiet).await;
            let tasks = self.cluster.list("tasks", &of_quiet).await;
            let sum = |rows: &[Value], field: &str| rows.iter().filter_map(|row| row[field].as_u64()).sum();
            let is_quiet = actors.len() == QUIET_ACTORS
                && QUIET_HANDLED.contains(&sum(&actors, "handled"))
                && sum(&actors, "mailbox") == 5
                && (sum(&tasks, "finished"), sum(&tasks, "failed")) == (230, 10);
            if is_quiet {
                return;
            }
            assert!(begun.elapsed() < WAIT, "the job is never quiet: {actors:?} {tasks:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Compares a table of a page with the command's rows of the same snapshot, until each cell was compared.
    async fn same_rows(&self, (hash, heading): (&str, &str), table: &str, arguments: &[&str]) -> usize {
        let (begun, mut cells) = (Instant::now(), Cells::default());
        self.open_recorded(hash, heading).await;
        loop {
            let before = self.snapshot().await;
            let rows = self.cluster.json(&[&["list", table], arguments].concat()).await;
            let outcome = self.numbers(&format!("compare('{table}', {rows})")).await;
            let is_same = outcome.as_ref().is_none_or(|outcome| outcome["snapshot"] == before);
            // The page's rows are older than this second look.
            if let Some(outcome) = outcome.filter(|_| is_same)
                && self.snapshot().await == before
            {
                cells.take(&outcome);
                if cells.are_all_checked() {
                    return cells.checked.len();
                }
            }
            if !is_same {
                // A page loads again when its own tables change, and the number is of all tables.
                self.open_recorded(hash, heading).await;
            }
            assert!(begun.elapsed() < WAIT, "{table}: not compared: {:?}", cells.missing());
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Rows of the command by id and time of their sample, as it has listed them at different times.
#[derive(Default)]
struct Listed(BTreeMap<(String, u64), Value>);

impl Listed {
    async fn list(&mut self, site: &Site, table: &str, key: &str) {
        let Value::Array(rows) = site.cluster.json(&["list", table]).await else {
            panic!("no rows of {table}")
        };
        for row in rows {
            let id = row[key].as_str().unwrap().to_owned();
            self.0.insert((id, row["usage"]["sampled_ms"].as_u64().unwrap_or_default()), row);
        }
    }

    fn rows(&self) -> Value {
        self.0.values().cloned().collect()
    }
}

pub(crate) async fn overview_has_the_numbers_of_the_command(site: Arc<Site>) {
    site.wait_until_quiet().await;
    site.open_recorded("#/", "Overview").await;
    let begun = Instant::now();
    loop {
        let status = site.cluster.json(&["status"]).await;
        let classes = site.cluster.json(&["summary", "actors"]).await;
        let jobs = site.cluster.json(&["list", "jobs", "--sort=-started_ms", "--limit=5"]).await;
        let events = site.cluster.json(&["list", "events", "--limit=12"]).await;
        let rows = json!({ "status": status, "classes": classes, "jobs": jobs, "events": events });
        let outcome = site.numbers(&format!("overview({rows})")).await;
        if let Some(outcome) = outcome.filter(|it| it["snapshot"] == status["snapshot"])
            && site.snapshot().await == status["snapshot"]
        {
            assert_eq!(outcome["differences"], json!([]));
            println!("        {} texts are equal", outcome["checked"].as_array().unwrap().len());
            // The job has an actor that waits.
            assert!(outcome["checked"].as_array().unwrap().contains(&json!("waiting 0")), "{outcome}");
            break;
        }
        assert!(begun.elapsed() < WAIT, "the overview has never had the snapshot {}", status["snapshot"]);
        tokio::time::sleep(POLL).await;
    }
    // Six series of each node, and of their sum; and four tiles.
    let (mut listed, mut cells, wanted) = (Listed::default(), Cells::default(), 6 * 3 + 6 + 4);
    while cells.checked.len() < wanted {
        listed.list(&site, "nodes", "node_id").await;
        if let Some(outcome) = site.numbers(&format!("sample({})", listed.rows())).await {
            cells.take(&outcome);
        }
        assert!(begun.elapsed() < 2 * WAIT, "only {:?}", cells.checked);
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(cells.checked.len(), wanted, "{:?}", cells.checked);
    site.close_recorded().await;
}

pub(crate) async fn cluster_has_the_numbers_of_the_command(site: Arc<Site>) {
    site.wait_until_quiet().await;
    site.open_recorded("#/cluster", "Cluster").await;
    site.browser.click("button", "Show workers").await;
    let begun = Instant::now();
    let (mut nodes, mut workers) = (Listed::default(), Listed::default());
    let (mut of_nodes, mut of_workers) = (Cells::default(), Cells::default());
    while !(of_nodes.are_all_checked() && of_workers.are_all_checked()) {
        let before = site.snapshot().await;
        nodes.list(&site, "nodes", "node_id").await;
        workers.list(&site, "workers", "worker_id").await;
        let is_same = |outcome: &Value| outcome["snapshot"] == before;
        let outcomes = [
            site.numbers(&format!("compare('nodes', {}, {{ live: true }})", nodes.rows())).await,
            site.numbers(&format!("compare('workers', {}, {{ live: true }})", workers.rows())).await,
        ];
        let counts = site.cluster.json(&["list", "nodes"]).await;
        let counts = site.numbers(&format!("counts({counts})")).await;
        if let ([Some(node), Some(worker)], Some(counts)) = (&outcomes, &counts)
            && [node, worker, counts].into_iter().all(is_same)
            && site.snapshot().await == before
        {
            of_nodes.take(node);
            of_workers.take(worker);
            assert_eq!(counts["differences"], json!([]));
        }
        let missing = || (of_nodes.missing(), of_workers.missing());
        assert!(begun.elapsed() < WAIT, "not compared: {:?}", missing());
        tokio::time::sleep(POLL).await;
    }
    println!("        {} cells are equal", of_nodes.checked.len() + of_workers.checked.len());
    site.close_recorded().await;
}

pub(crate) async fn actors_have_the_numbers_of_the_command(site: Arc<Site>) {
    site.wait_until_quiet().await;
    let (quiet, cells) = (&site.cluster.quiet, &site.cluster.cells);
    let page = (&*format!("#/actors?job={quiet}"), "Actors");
    let compared = site.same_rows(page, "actors", &["--filter", &format!("job_id={quiet}")]).await;
    println!("        {compared} cells are equal");
    // Actors that handle messages have rates: of the rows that the page took.
    site.open_recorded(&format!("#/actors?job={cells}&sort=actor_id"), "Actors").await;
    let (begun, mut rates) = (Instant::now(), Cells::default());
    while !(rates.are_all_checked() && rates.checked.contains("a rate above 0")) {
        if let Some(outcome) = site.numbers("compare('actors', [], { own: true })").await {
            rates.take(&outcome);
        }
        assert!(begun.elapsed() < WAIT, "not compared: {:?}", rates.missing());
        tokio::time::sleep(POLL).await;
    }
    site.close_recorded().await;
}

pub(crate) async fn tasks_have_the_numbers_of_the_command(site: Arc<Site>) {
    site.wait_until_quiet().await;
    let of_quiet = format!("job_id={}", site.cluster.quiet);
    let page = (&*format!("#/tasks?job={}", site.cluster.quiet), "Tasks");
    let compared = site.same_rows(page, "tasks", &["--filter", &of_quiet]).await;
    let rows = site.cluster.json(&["list", "tasks", "--filter", &of_quiet]).await;
    // The counts stand still, so any load of the page has them.
    let begun = Instant::now();
    let bars = loop {
        if let Some(bars) = site.numbers(&format!("progress({rows})")).await {
            break bars;
        }
        assert!(begun.elapsed() < WAIT, "the page always loads");
    };
    assert_eq!(bars["differences"], json!([]));
    println!("        {compared} cells and {} texts are equal", bars["checked"].as_array().unwrap().len());
    site.close_recorded().await;
}

pub(crate) async fn jobs_have_the_numbers_of_the_command(site: Arc<Site>) {
    site.wait_until_quiet().await;
    // A job that has ended has more cells.
    site.cluster
        .row("jobs", &format!("job_id={}", site.cluster.lecture), |job| job["ended_ms"].is_u64())
        .await;
    let compared = site.same_rows(("#/jobs", "Jobs"), "jobs", &[]).await;
    println!("        {compared} cells are equal");
    site.close_recorded().await;
}
