//! Tests of tables, actions, logs and series.

use serde_json::json;

use super::TestDashboard;
use super::fake_cluster::LOG;
use crate::cluster::admin::{AdminRequest, Filter, Kind, Sort};
use crate::cluster::model::{ActorKey, JobId, NodeId};

#[test]
fn list_passes_its_parameters_to_the_head_and_counts_all_rows() {
    let dashboard = TestDashboard::start();
    dashboard.cluster.change(&[Kind::Nodes]);
    let target =
        "/api/v0/nodes?filter=state!=DEAD&filter=hostname=a%26b&search=x%20y&sort=-actors&limit=1&offset=1";
    let page = dashboard.client.get(target).json();
    assert_eq!((&page["total"], &page["snapshot"]), (&json!(3), &json!(1)));
    assert_eq!(page["rows"].as_array().unwrap().len(), 1);
    assert_eq!(page["rows"][0]["node_id"], "00000000000000b2");
    assert!(page["time_ms"].as_u64().unwrap() >= 1_800_000_000_000);
    let queries = dashboard.cluster.queries.lock().unwrap();
    let query = queries.iter().find(|query| query.offset == 1).unwrap();
    let filter =
        |key: &str, value: &str, is_equal| Filter { key: key.to_owned(), value: value.to_owned(), is_equal };
    assert_eq!(query.filters, [filter("state", "DEAD", false), filter("hostname", "a&b", true)]);
    assert_eq!(query.sort, Some(Sort { key: "actors".to_owned(), is_descending: true }));
    assert_eq!((query.contains.as_deref(), query.limit, query.count), (Some("x y"), 1, true));
}

#[test]
fn invalid_parameters_are_errors_that_say_what_is_valid() {
    let dashboard = TestDashboard::start();
    for (target, status, says) in [
        ("/api/v0/things", 404, "nodes, jobs, actors"),
        ("/api/v0/nodes?limit=1001", 400, "1000"),
        ("/api/v0/nodes?limit=-1", 400, "number"),
        ("/api/v0/nodes?offset=x", 400, "number"),
        ("/api/v0/nodes?colour=red", 400, "filter, search"),
        ("/api/v0/nodes?filter=state", 400, "KEY=VALUE"),
        ("/api/v0/nodes?filter=class=x", 400, "node_id"),
        ("/api/v0/actors?sort=cause", 400, "actor_id"),
        ("/api/v0/actors?sort=class&offset=20000", 400, "20000"),
        ("/api/v0/nodes/xyz", 404, "/api/v0/nodes"),
        ("/api/v0/summary/nodes", 404, "actors, tasks"),
        ("/api/v0/series?range=2h", 400, "15m, 1h and 24h"),
        ("/api/v0/series?name=colour", 400, "cpu_percent"),
        ("/api/v0/series?node=ff", 404, "/api/v0/nodes"),
        ("/api/v0/timeline?job_id=x", 404, "/api/v0/jobs"),
        ("/api/v0/timeline?job_id=1&limit=20001", 400, "20000"),
        ("/api/v0/timeline?colour=red", 400, "job_id and limit"),
        ("/api/v0/logs/ff/driver-1.out", 404, "/api/v0/nodes"),
        ("/api/v0/logs/c3/driver-1.out", 404, "is dead"),
        ("/api/v0/logs/a1/other.log", 404, "no log"),
        ("/api/v0/logs/a1/driver-1.out?lines=1", 400, "tail and offset"),
    ] {
        let response = dashboard.client.get(target);
        let message = response.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(response.status, status, "{target}: {message}");
        assert!(message.contains(says), "{target}: {message}");
    }
}

#[test]
fn status_and_jobs_have_the_fields_of_the_command() {
    let dashboard = TestDashboard::start();
    let status = dashboard.client.get("/api/v0/status").json();
    assert_eq!(status["address"], "10.0.0.5:6379");
    assert_eq!(status["resources"]["cpu"], json!({"used": 1.0, "total": 8.0}));
    assert_eq!(status["jobs"], json!({"FAILED": 1, "RUNNING": 1}));
    assert_eq!(
        (&status["waiting_count"], &status["alerts"][0]["kind"]),
        (&json!(1), &json!("WORKER_STARTS"))
    );
    let jobs = dashboard.client.get("/api/jobs/").json();
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    let job = dashboard.client.get("/api/jobs/1").json();
    assert_eq!((&job["job_id"], &job["state"]), (&json!("00000001"), &json!("RUNNING")));
    assert_eq!(dashboard.client.get("/api/jobs/7").code(), "unknown_job");
}

#[test]
fn timeline_is_the_trace_of_the_command_with_fewer_spans_if_asked() {
    let dashboard = TestDashboard::start();
    let tasks = |query: &str| {
        let trace = dashboard.client.get(&format!("/api/v0/timeline?job_id=00000001{query}")).json();
        let events = trace["traceEvents"].as_array().unwrap().clone();
        let tasks: Vec<_> = events.into_iter().filter(|event| event["cat"] == "task").collect();
        (tasks, trace["otherData"]["left_out"].as_u64().unwrap())
    };
    let (all, left_out) = tasks("");
    assert_eq!((all.len(), left_out), (4, 3));
    assert_eq!(
        (&all[0]["name"], &all[0]["ts"], &all[0]["dur"]),
        (&json!("square"), &json!(1_000_000), &json!(50))
    );
    let (some, left_out) = tasks("&limit=2");
    assert_eq!((some.len(), left_out), (2, 5));
    assert!(some.iter().all(|task| all.contains(task)));
}

#[test]
fn actions_reach_the_head() {
    let dashboard = TestDashboard::start();
    let post = |target: &str, body: &str| {
        let response = dashboard.client.post(target, body);
        (response.status, response.json()["done"].clone())
    };
    assert_eq!(post("/api/v0/actors/0000000000000001/kill", "{\"force\": false}"), (202, json!(true)));
    assert_eq!(post("/api/v0/actors/1/kill", "{\"force\": true}"), (202, json!(true)));
    assert_eq!(post("/api/v0/nodes/b2/drain", ""), (202, json!(true)));
    assert_eq!(post("/api/jobs/1/stop", ""), (200, json!(true)));
    let expected = [
        AdminRequest::Kill { actor: ActorKey(1) },
        AdminRequest::KillWorkerOf { actor: ActorKey(1) },
        AdminRequest::Drain { node: NodeId(0xb2) },
        AdminRequest::StopJob { job: JobId(1) },
    ];
    assert_eq!(*dashboard.cluster.actions.lock().unwrap(), expected);
    assert_eq!(dashboard.client.post("/api/jobs/9/stop", "").code(), "unknown_job");
    assert_eq!(dashboard.client.post("/api/jobs/2/stop", "").code(), "not_possible");
    assert_eq!(dashboard.client.post("/api/v0/actors/x/kill", "").code(), "unknown_actor");
}

#[test]
fn logs_are_listed_read_and_downloaded() {
    let dashboard = TestDashboard::start();
    let logs = dashboard.client.get("/api/v0/logs").json();
    assert_eq!(logs["unreachable"], json!(["00000000000000b2"]));
    let expected = json!([{"node_id": "00000000000000a1", "file": "driver-1.out", "worker_id": null,
        "job_id": "00000001", "size": LOG.len()}]);
    assert_eq!(logs["logs"], expected);
    let read = |query: &str| {
        let part = dashboard.client.get(&format!("/api/v0/logs/00000000000000a1/driver-1.out{query}")).json();
        (part["text"].as_str().unwrap().to_owned(), part["offset"].as_u64().unwrap())
    };
    assert_eq!(read("?tail=1"), ("three\n".to_owned(), LOG.len() as u64));
    assert_eq!(read("?offset=4"), ("two\nt".to_owned(), 9));
    let whole = dashboard.client.get("/api/v0/logs/a1/driver-1.out/download");
    assert_eq!(whole.body, LOG);
    assert_eq!(whole.header("content-disposition"), Some("attachment; filename=\"driver-1.out\""));
    assert_eq!(dashboard.client.get("/api/v0/logs/a1/none/download").code(), "unknown_log");
    assert_eq!(dashboard.client.get("/api/jobs/1/logs").json()["logs"], "three\n");
    assert_eq!(dashboard.client.get("/api/jobs/2/logs").json()["logs"], "");
}

#[test]
fn series_outlive_the_dashboard() {
    let dashboard = TestDashboard::start();
    dashboard.wait_for_sample();
    let last = |dashboard: &TestDashboard, query: &str| {
        let reply = dashboard.client.get(&format!("/api/v0/series?{query}")).json();
        let series = reply["series"][0].clone();
        let values: Vec<_> = series["values"].as_array().unwrap().clone();
        assert_eq!(values.len(), reply["time_ms"].as_array().unwrap().len());
        values.into_iter().rfind(|value| !value.is_null())
    };
    assert_eq!(last(&dashboard, "name=actors"), Some(json!(2.0)));
    assert_eq!(last(&dashboard, "name=memory_bytes&range=24h"), Some(json!(2000.0)));
    let of_node = "node=a1&name=memory_bytes";
    assert_eq!(last(&dashboard, of_node), Some(json!(1000.0)));
    let all = dashboard.client.get("/api/v0/series?node=a1").json();
    assert_eq!(all["series"].as_array().unwrap().len(), 6);

    // An hour later both runs have a point, with a gap between them.
    let next = TestDashboard::start_in(dashboard.stop(), 1_800_003_600_000);
    next.wait_for_sample();
    let reply = next.client.get("/api/v0/series?name=actors&range=24h").json();
    let values = reply["series"][0]["values"].as_array().unwrap();
    let steps: Vec<_> = (0..values.len()).filter(|at| !values[*at].is_null()).collect();
    assert!(steps.len() >= 2 && steps[1] - steps[0] > 50, "{steps:?}");
}
