//! Tests of the event stream.

use serde_json::{Value, json};

use super::{TOKEN, TestDashboard};
use crate::cluster::admin::Kind;
use crate::config::DASHBOARD_STREAMS_MAX;

fn authorization() -> String {
    format!("Bearer {TOKEN}")
}

impl TestDashboard {
    /// Waits until the first sample is in the history and the metrics.
    pub(super) fn wait_for_sample(&self) {
        // The sampler runs beside the requests, so a request or two may come before it.
        while self.client.get("/metrics").status == 503 {
            std::thread::yield_now();
        }
    }
}

/// Next event of a name.
fn next(lines: &mut impl Iterator<Item = String>, name: &str) -> Value {
    let mut at = lines.skip_while(|line| *line != format!("event: {name}"));
    at.next().expect("the stream is open");
    let data = at.next().expect("an event has data");
    serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
}

#[test]
fn stream_reports_changes_and_samples() {
    let dashboard = TestDashboard::start();
    let (status, mut lines) = dashboard.client.stream(&[("Authorization", &authorization())]);
    assert_eq!(status, 200);
    // A heartbeat is the first line of the body, so the client is known from here on.
    assert!(lines.any(|line| line == ": heartbeat"));
    dashboard.cluster.change(&[Kind::Actors, Kind::Nodes]);
    let change = next(&mut lines, "change");
    assert_eq!((&change["snapshot"], &change["changed"]), (&json!(1), &json!(["nodes", "actors"])));
    let sample = next(&mut lines, "sample");
    assert_eq!(
        (&sample["cluster"]["actors"], &sample["cluster"]["cpu_percent"]),
        (&json!(2.0), &Value::Null)
    );
    assert_eq!(sample["nodes"]["00000000000000a1"]["memory_bytes"], json!(1000.0));
    assert_eq!(sample["nodes"]["00000000000000a1"].as_object().unwrap().len(), 6);
}

#[test]
fn streams_are_bounded_and_leave_room_for_requests() {
    let dashboard = TestDashboard::start();
    let authorization = authorization();
    let mut streams: Vec<_> = (0..DASHBOARD_STREAMS_MAX)
        .map(|_| {
            let (status, mut lines) = dashboard.client.stream(&[("Authorization", &authorization)]);
            assert_eq!(status, 200);
            assert!(lines.any(|line| line == ": heartbeat"));
            lines
        })
        .collect();
    assert_eq!(dashboard.client.get("/api/v0/stream").code(), "busy");
    assert_eq!(dashboard.client.get("/api/v0/nodes").status, 200);
    streams.pop();
    // The server sees the closed connection a moment later, at the latest when it sends the next event.
    let mut number = 0;
    while dashboard.client.stream(&[("Authorization", &authorization)]).0 != 200 {
        dashboard.cluster.change(&[Kind::Nodes]);
        number += 1;
        assert!(number < 10_000, "the place of a closed stream is not given to another");
    }
}
