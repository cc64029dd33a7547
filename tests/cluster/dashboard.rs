//! The dashboard of a real head: its log-in link, its rows, its actions and its port.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use super::job::{Job, SpawnOptions};
use super::proc::wait_for;
use super::test_cluster::{TestCluster, output, refused, text};

const DASHBOARD: &[&str] = &["--num-cpus=1", "--include-dashboard=1", "--dashboard-port=0"];

/// Sends a request, and returns the status with the head and the body of the reply.
fn send(address: &str, request: &str, headers: &[&str]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let text = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_owned(), body.to_owned())
}

/// Address and path of a log-in link.
fn parts(link: &Value) -> (String, String) {
    let rest = link.as_str().unwrap().strip_prefix("http://").unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    (address.to_owned(), format!("/{path}"))
}

#[test]
fn link_of_the_command_logs_in_and_rows_are_those_of_the_command() {
    let site = TestCluster::head(DASHBOARD);
    let (address, path) = parts(&site.json(&["dashboard"])["dashboard"]);
    let (status, head, _) = send(&address, &format!("GET {path}"), &[]);
    assert_eq!(status, 303);
    let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = format!("Cookie: {}", set.split(';').next().unwrap());
    assert!(!head.contains(&site.token));
    let (status, head, _) = send(&address, &format!("GET {path}"), &[]);
    assert!(status == 303 && !head.contains("set-cookie"), "a link is valid once: {head}");

    let mut job = Job::join(&site);
    job.spawn("counter", SpawnOptions::named("counter"));
    let rows = |table: &str| -> Value {
        let (status, _, body) = send(&address, &format!("GET /api/v0/{table}"), &[&cookie]);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["rows"].clone()
    };
    wait_for("the actor lives", || (rows("actors")[0]["state"] == "ALIVE").then_some(()));
    for table in ["jobs", "actors", "workers"] {
        // Statistics may change between the two.
        wait_for(&format!("page and command have the same {table}"), || {
            (rows(table) == Value::from(site.list(table))).then_some(())
        });
    }
    let actor = rows("actors")[0]["actor_id"].as_str().unwrap().to_owned();
    let kill = format!("POST /api/v0/actors/{actor}/kill");
    assert_eq!(send(&address, &kill, &[&cookie]).0, 403, "the header of actions is missing");
    assert_eq!(send(&address, &kill, &[&cookie, "X-Roadshow-Action: 1", "Content-Length: 0"]).0, 202);
    wait_for("the actor is dead", || (rows("actors")[0]["state"] == "DEAD").then_some(()));
    site.stop();
    assert!(site.state().join("dashboard.redb").exists(), "the history is not written");
}

#[test]
fn restarted_head_serves_its_dashboard_again_and_asks_for_a_new_log_in() {
    let mut site = TestCluster::head(DASHBOARD);
    let (before, path) = parts(&site.json(&["dashboard"])["dashboard"]);
    let (_, head, _) = send(&before, &format!("GET {path}"), &[]);
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let (_, session) = cookie.split(';').next().unwrap().split_once('=').unwrap();
    site.stop_and_start(DASHBOARD);
    let (after, _) = parts(&site.json(&["dashboard"])["dashboard"]);
    let port = after.rsplit(':').next().unwrap();
    let cookie = format!("Cookie: roadshow-session-{port}={session}");
    assert_eq!(send(&after, "GET /api/v0/nodes", &[&cookie]).0, 401);
    let bearer = format!("Authorization: Bearer {}", site.token);
    assert_eq!(send(&after, "GET /api/v0/nodes", &[&bearer]).0, 200);
}

#[test]
fn taken_port_is_an_error_for_a_dashboard_that_was_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("--dashboard-port={}", taken.local_addr().unwrap().port());
    let site = TestCluster::head(&["--num-cpus=1"]);
    let (code, error) = refused(site.roadshow(&["dashboard"]));
    assert!(code == 1 && error.contains("--include-dashboard 1"), "{error}");
    let dir = site.home().join("other");
    let start = ["start", "--head", "--port=0", "--host=127.0.0.1", "--session-dir", dir.to_str().unwrap()];
    let (code, error) = refused(site.roadshow(&[&start[..], &[&port]].concat()));
    assert!(code == 1 && error.contains("cannot listen at") && error.contains("--dashboard-port"), "{error}");
}

#[test]
fn dashboard_at_another_address_is_served_over_tls_with_the_clusters_certificate() {
    let host = &["--include-dashboard=1", "--dashboard-port=0", "--dashboard-host=0.0.0.0", "--num-cpus=1"];
    let site = TestCluster::head(host);
    let link = site.json(&["dashboard"])["dashboard"].as_str().unwrap().to_owned();
    let address = link.strip_prefix("https://").unwrap().split('/').next().unwrap();
    // A client that speaks no TLS gets no reply.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).unwrap();
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    assert!(!reply.starts_with(b"HTTP"), "{}", text(&reply));
    let shown = output(site.roadshow(&["dashboard"]));
    assert!(text(&shown.stdout).starts_with("https://127.0.0.1:"));
}
