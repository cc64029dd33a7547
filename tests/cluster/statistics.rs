//! Statistics and events of a cluster, as the command shows them.

use rustix::process::Signal;
use serde_json::Value;

use super::job::{Job, Order, Reply, SpawnOptions};
use super::proc::{self, wait_for};
use super::test_cluster::{TestCluster, json, output, refused, text};

const CALLS: u64 = 200;

/// Waits for the row of the messages `Add`, with all of them counted.
fn adds(site: &TestCluster, count: u64) -> Value {
    wait_for("all messages are counted", || {
        let rows = site.list("messages");
        let row = rows.into_iter().find(|row| row["message"].as_str().unwrap().ends_with("Add"))?;
        (row["handled"] == count).then_some(row)
    })
}

fn is_positive(number: &Value) -> bool {
    number.as_f64().is_some_and(|number| number > 0.0)
}

/// Trace that `roadshow timeline` writes to its standard output.
fn trace_of(site: &TestCluster, arguments: &[&str]) -> Value {
    json(site.roadshow(&[&["timeline"], arguments].concat()))
}

/// Complete events of a category.
fn complete(trace: &Value, category: &str) -> Vec<Value> {
    let events = trace["traceEvents"].as_array().unwrap().iter();
    events.filter(|event| event["ph"] == "X" && event["cat"] == category).cloned().collect()
}

/// Checks that no thread handled a message or ran a task while another one ran there.
fn assert_overlaps_nowhere(spans: &[Value]) {
    let number = |span: &Value, key: &str| span[key].as_u64().unwrap();
    let mut sorted: Vec<_> =
        spans.iter().map(|span| (number(span, "tid"), number(span, "ts"), number(span, "dur"))).collect();
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        let ((thread, start, time), (next_thread, next, _)) = (pair[0], pair[1]);
        // Starts are converted between two clocks, each to a microsecond. Reports read them anew.
        let tolerance_us = 1000;
        assert!(thread != next_thread || start + time <= next + tolerance_us, "{pair:?}");
    }
}

#[test]
fn job_has_counts_and_percentiles_and_the_death_of_its_worker_is_an_event() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    job.spawn("sum", SpawnOptions::named("sum"));
    for total in 1..=CALLS {
        assert_eq!(job.add("sum", 1), total);
    }
    assert!(matches!(job.reply(Order::Tasks(20)), Reply::Numbers(_)));

    let row = adds(&site, CALLS);
    assert!(row["class"].as_str().unwrap().ends_with("SumActor"), "{row}");
    assert!(is_positive(&row["p50_us"]) && row["p99_us"].as_u64() >= row["p50_us"].as_u64(), "{row}");
    let actor = wait_for("the actor has handled all", || {
        let actor = site.json(&["get", "actor", "sum"]);
        (actor["handled"] == CALLS && actor["mailbox"] == 0).then_some(actor)
    });
    assert!(is_positive(&actor["started_ms"]) && actor["ended_ms"].is_null(), "{actor}");
    let worker = site.row("workers", "worker_id", actor["worker_id"].clone());
    let usage = &worker["usage"];
    assert!(usage["handled"].as_u64().unwrap() >= CALLS && usage["mailbox"] == 0, "{worker}");
    assert!(usage["messages_received"].as_u64().unwrap() > CALLS, "{worker}");
    for key in ["cpu_seconds", "memory_bytes", "sent_bytes", "received_bytes", "sampled_ms"] {
        assert!(is_positive(&usage[key]), "{key}: {worker}");
    }
    let task = wait_for("tasks are counted", || {
        site.list("tasks").into_iter().find(|task| is_positive(&task["finished"]))
    });
    assert!(is_positive(&task["p50_us"]) && is_positive(&task["p99_us"]), "{task}");
    let machine = &site.list("nodes")[0]["usage"];
    for key in ["cpus", "cpu_seconds", "memory_total_bytes", "disk_total_bytes"] {
        assert!(is_positive(&machine[key]), "{key}: {machine}");
    }

    let trace = wait_for("tasks and messages are in the timeline", || {
        let trace = trace_of(&site, &[]);
        (!complete(&trace, "task").is_empty() && !complete(&trace, "message").is_empty()).then_some(trace)
    });
    let (tasks, messages) = (complete(&trace, "task"), complete(&trace, "message"));
    assert_eq!(messages[0]["name"], "SumActor: Add");
    assert!(messages[0]["args"]["message"].as_str().unwrap().ends_with("fixtures::Add"), "{}", messages[0]);
    let running = &site.list("jobs")[0];
    let (started, now) =
        (running["started_ms"].as_u64().unwrap(), trace["otherData"]["time_ms"].as_u64().unwrap());
    for span in tasks.iter().chain(&messages) {
        assert!(
            is_positive(&span["ts"]) && span["dur"].is_u64() && span["pid"] == messages[0]["pid"],
            "{span}"
        );
        // Head and worker have the same clock.
        let start_ms = span["ts"].as_u64().unwrap() / 1000;
        assert!((started..=now).contains(&start_ms), "{span} is not between {started} and {now}");
    }
    assert!(tasks[0]["tid"] != messages[0]["tid"], "they run on different threads: {}", tasks[0]);
    assert_overlaps_nowhere(&[tasks, messages].concat());

    let before = site.json(&["status"])["snapshot"].as_u64().unwrap();
    proc::signal(job.pid_of("sum") as u32, Signal::KILL);
    let died = wait_for("the death is recorded", || {
        site.list("events").into_iter().find(|event| event["kind"] == "WORKER_DIED")
    });
    assert_eq!((&died["worker_id"], &died["severity"]), (&actor["worker_id"], &"ERROR".into()));
    assert!(died["text"].as_str().unwrap().contains("SIGKILL"), "{died}");
    let status = site.json(&["status"]);
    assert!(status["snapshot"].as_u64().unwrap() > before, "{status}");
    let of_actor = site.row("events", "kind", "ACTOR_DIED");
    assert_eq!(of_actor["actor_id"], actor["actor_id"]);
    // The row of the ended actor keeps what was reported last.
    let ended = site.row("actors", "actor_id", actor["actor_id"].clone());
    assert_eq!((&ended["handled"], &ended["state"]), (&CALLS.into(), &"DEAD".into()));
    assert!(ended["ended_ms"].as_u64() >= ended["started_ms"].as_u64(), "{ended}");

    job.finish();
    let kinds: Vec<_> = site.list("events").iter().map(|event| event["kind"].clone()).collect();
    let expected = ["JOB_ENDED", "ACTOR_DIED", "WORKER_DIED", "JOB_STARTED", "NODE_JOINED", "HEAD_STARTED"];
    assert_eq!(kinds, expected);
    assert!(site.json(&["status"])["events"].as_array().unwrap().len() == 3);
    let id = died["event_id"].as_str().unwrap();
    assert_eq!(site.json(&["get", "event", id]), died);

    // The job has ended, and the timeline has the death of its worker.
    let trace = trace_of(&site, &["1"]);
    assert!(!complete(&trace, "message").is_empty() && trace["otherData"]["state"] == "SUCCEEDED");
    let events = trace["traceEvents"].as_array().unwrap();
    let death = events.iter().find(|event| event["name"] == "WORKER_DIED").unwrap();
    assert!(death["s"] == "p" && death["args"]["text"].as_str().unwrap().contains("SIGKILL"), "{death}");
    let life = complete(&trace, "worker").into_iter().find(|life| life["pid"] == death["pid"]).unwrap();
    assert!(life["args"]["cause"].as_str().unwrap().contains("SIGKILL"), "{life}");
    let file = site.home().join("job.json");
    let written = output(site.roadshow(&["timeline", "1", "--output", file.to_str().unwrap()]));
    assert!(written.stdout.is_empty(), "{}", text(&written.stdout));
    let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(complete(&json, "message"), complete(&trace, "message"));
    let (code, error) = refused(site.roadshow(&["timeline", "2"]));
    assert!(code == 5 && error.contains("there is no job"), "{code}: {error}");

    let report = site.json(&["report", "1"]);
    assert!(!report["spans"]["spans"].as_array().unwrap().is_empty());
    assert_eq!(
        (&report["job"]["state"], &report["missing"]),
        (&"SUCCEEDED".into(), &Value::Array(Vec::new()))
    );
    assert!(
        report["workers"]["rows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["worker_id"] == actor["worker_id"])
    );
    // The head writes the same by itself.
    let file = site.state().join("reports/job-00000001.html");
    let html = wait_for("the report of the job is written", || std::fs::read_to_string(&file).ok());
    assert!(
        html.contains("SIGKILL") && html.contains("WORKER_DIED") && html.ends_with("</html>\n"),
        "{html}"
    );
}

#[test]
fn restarted_head_has_the_statistics_again() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    job.spawn("sum", SpawnOptions::named("sum"));
    for total in 1..=CALLS {
        assert_eq!(job.add("sum", 1), total);
    }
    adds(&site, CALLS);
    proc::kill(site.nodes[0].head());
    site.restart_head();
    // Without another message: the agent sends what it knows.
    adds(&site, CALLS);
    let actor = wait_for("the actor is counted", || {
        let actor = site.json(&["get", "actor", "sum"]);
        (actor["handled"] == CALLS).then_some(actor)
    });
    assert_eq!(actor["state"], "ALIVE");
    assert_eq!(site.list("events").last().unwrap()["kind"], "HEAD_STARTED");
    job.finish();
}
