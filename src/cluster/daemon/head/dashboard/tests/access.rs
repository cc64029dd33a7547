//! Tests of log-in, hosts, origins, headers and limits.

use std::time::Instant;

use super::{TOKEN, TestDashboard};
use crate::config::{DASHBOARD_BODY_BYTES_MAX, DASHBOARD_LOGINS_FAILED_MAX};

const ACTION: (&str, &str) = ("X-Roadshow-Action", "1");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn token_body(token: &str) -> String {
    serde_json::json!({"token": token}).to_string()
}

#[test]
fn nothing_but_the_page_and_the_log_in_is_open() {
    let dashboard = TestDashboard::start();
    let get = |target: &str| dashboard.client.send("GET", target, &[], "");
    for open in ["/", "/assets/index.html", "/openapi.json", "/api/version", "/api/v0/session"] {
        assert_eq!(get(open).status, 200, "{open}");
    }
    for closed in [
        "/metrics",
        "/api/v0/status",
        "/api/v0/nodes",
        "/api/v0/nodes/a1",
        "/api/v0/summary/actors",
        "/api/v0/series",
        "/api/v0/stream",
        "/api/v0/logs",
        "/api/v0/logs/a1/driver-1.out",
        "/api/v0/logs/a1/driver-1.out/download",
        "/api/jobs/",
        "/api/jobs/1",
        "/api/jobs/1/logs",
        "/api/unknown",
    ] {
        let response = get(closed);
        assert_eq!((response.status, response.code().as_str()), (401, "not_logged_in"), "{closed}");
        // The router decodes escapes.
        let escaped = format!("/%{:02x}{}", closed.as_bytes()[1], &closed[2..]);
        assert_eq!(get(&escaped).status, 401, "{escaped}");
        let later = closed.replace('i', "%69");
        assert_eq!(get(&later).status, 401, "{later}");
    }
    for action in ["/api/jobs/1/stop", "/api/v0/actors/1/kill", "/api/v0/nodes/a1/drain", "/api/v0/logout"] {
        for target in [action.to_owned(), action.replace("/a", "/%61")] {
            assert_eq!(dashboard.client.send("POST", &target, &[ACTION, JSON], "{}").status, 401, "{target}");
        }
    }
    assert!(dashboard.cluster.actions.lock().unwrap().is_empty());
}

#[test]
fn token_logs_a_browser_in_and_log_out_ends_the_session() {
    let dashboard = TestDashboard::start();
    let client = &dashboard.client;
    let wrong = client.send("POST", "/api/v0/login", &[ACTION, JSON], &token_body("rs1_guess"));
    assert_eq!((wrong.status, wrong.code().as_str(), wrong.cookie()), (401, "wrong_token", None));

    let response = client.send("POST", "/api/v0/login", &[ACTION, JSON], &token_body(TOKEN));
    assert_eq!(response.status, 204);
    let set = response.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure"), "a browser would drop the cookie without TLS: {set}");
    let cookie = response.cookie().unwrap();
    let with_cookie = |target: &str| client.send("GET", target, &[("Cookie", &format!("a=b; {cookie}"))], "");
    assert_eq!(with_cookie("/api/v0/nodes").status, 200);
    assert_eq!(with_cookie("/api/v0/session").json()["logged_in"], true);

    let out = client.send("POST", "/api/v0/logout", &[ACTION, ("Cookie", &cookie)], "");
    assert_eq!(out.status, 204);
    assert_eq!(with_cookie("/api/v0/nodes").status, 401);
    assert_eq!(with_cookie("/api/v0/session").json()["logged_in"], false);
}

#[test]
fn link_logs_in_once_and_leads_to_the_page() {
    let dashboard = TestDashboard::start();
    let target = format!("/login?ticket={}", dashboard.access.ticket(Instant::now()));
    let first = dashboard.client.send("GET", &target, &[("Sec-Fetch-Site", "cross-site")], "");
    assert_eq!((first.status, first.header("location")), (303, Some("/")));
    let cookie = first.cookie().unwrap();
    assert_eq!(dashboard.client.send("GET", "/api/v0/nodes", &[("Cookie", &cookie)], "").status, 200);
    let second = dashboard.client.send("GET", &target, &[], "");
    assert_eq!((second.status, second.header("location"), second.cookie()), (303, Some("/"), None));
}

#[test]
fn failed_log_ins_are_limited() {
    let dashboard = TestDashboard::start();
    let log_in =
        |token: &str| dashboard.client.send("POST", "/api/v0/login", &[ACTION, JSON], &token_body(token));
    for _ in 0..DASHBOARD_LOGINS_FAILED_MAX {
        assert_eq!(log_in("guess").status, 401);
    }
    let refused = log_in(TOKEN);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("60")));
    assert_eq!(dashboard.client.send("GET", "/metrics", &[("Authorization", "Bearer x")], "").status, 429);
    assert_eq!(dashboard.client.get("/api/v0/nodes").status, 200, "a right Bearer token is not limited");
}

#[test]
fn other_hosts_are_refused_on_every_method_and_path() {
    let dashboard = TestDashboard::start();
    let bearer = format!("Bearer {TOKEN}");
    let send = |method: &str, target: &str, hosts: &[&str]| {
        let mut headers = vec![("Connection", "close"), ("Authorization", bearer.as_str()), ACTION, JSON];
        headers.extend(hosts.iter().map(|host| ("Host", *host)));
        dashboard.client.send_exactly(method, target, &headers, "")
    };
    let own = dashboard.client.address.to_string();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        for target in ["/", "/api/version", "/login?ticket=1", "/api/v0/nodes/b2/drain"] {
            for hosts in [&["evil.example"][..], &["evil.example:8265"], &[&own, "evil.example"]] {
                let response = send(method, target, hosts);
                assert!(matches!(response.status, 400 | 421), "{method} {target} {hosts:?}: {response:?}");
            }
        }
    }
    assert!(dashboard.cluster.actions.lock().unwrap().is_empty());
    assert!(matches!(send("GET", "/", &[]).status, 400 | 421));
    assert_eq!(send("GET", "http://evil.example/", &[&own]).status, 421);
    for host in ["localhost:9000", "10.0.0.5:8265", "[::1]:8265"] {
        assert_eq!(send("GET", "/api/v0/nodes", &[host]).status, 200, "{host}");
    }
}

#[test]
fn pages_of_other_origins_can_do_nothing() {
    let dashboard = TestDashboard::start();
    let bearer = format!("Bearer {TOKEN}");
    let own = format!("http://{}", dashboard.client.address);
    let act = |name: &'static str, value: &str| {
        let headers = [("Authorization", bearer.as_str()), ACTION, JSON, (name, value)];
        dashboard.client.send("POST", "/api/v0/nodes/b2/drain", &headers, "").status
    };
    for origin in ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1"] {
        assert_eq!(act("Origin", origin), 403, "{origin}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(act("Sec-Fetch-Site", site), 403, "{site}");
    }
    assert!(dashboard.cluster.actions.lock().unwrap().is_empty());
    assert_eq!(act("Origin", &own), 202);
    let read = |headers: &[(&str, &str)]| dashboard.client.send("GET", "/api/v0/nodes", headers, "");
    let authorized = ("Authorization", bearer.as_str());
    assert_eq!(read(&[authorized, ("Origin", "http://evil.example")]).status, 403);
    assert_eq!(read(&[authorized, ("Sec-Fetch-Site", "cross-site")]).status, 403);
    assert_eq!(read(&[authorized]).header("access-control-allow-origin"), None);
}

#[test]
fn actions_need_post_and_their_header() {
    let dashboard = TestDashboard::start();
    let bearer = format!("Bearer {TOKEN}");
    let authorized = ("Authorization", bearer.as_str());
    let without = dashboard.client.send("POST", "/api/v0/nodes/b2/drain", &[authorized], "");
    assert_eq!((without.status, without.code().as_str()), (403, "no_action_header"));
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let response = dashboard.client.send(method, "/api/v0/nodes/b2/drain", &[authorized, ACTION], "");
        assert!(matches!(response.status, 404 | 405), "{method}: {response:?}");
    }
    let form = [authorized, ACTION, ("Content-Type", "application/x-www-form-urlencoded")];
    let response = dashboard.client.send("POST", "/api/v0/actors/1/kill", &form, "force=true");
    assert_eq!((response.status, response.code().as_str()), (415, "not_json"));
    assert!(dashboard.cluster.actions.lock().unwrap().is_empty());
}

#[test]
fn every_reply_has_the_protecting_headers() {
    let dashboard = TestDashboard::start();
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/assets/missing"),
        ("GET", "/api/version"),
        ("GET", "/api/v0/nodes"),
        ("GET", "/login?ticket=0"),
        ("POST", "/api/v0/login"),
        ("DELETE", "/"),
    ] {
        let response = dashboard.client.send(method, target, &[], "");
        let policy = response.header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{target}: {response:?}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(response.header(name), Some(value), "{target}: {response:?}");
        }
        assert!(response.header("cache-control").is_some());
    }
}

#[test]
fn long_bodies_are_refused_and_files_are_not_sent_twice() {
    let dashboard = TestDashboard::start();
    let long = format!("{{\"force\": false, \"x\": \"{}\"}}", "x".repeat(DASHBOARD_BODY_BYTES_MAX));
    assert_eq!(dashboard.client.post("/api/v0/actors/1/kill", &long).status, 413);
    assert!(dashboard.cluster.actions.lock().unwrap().is_empty());

    let page = dashboard.client.send("GET", "/", &[], "");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let tag = page.header("etag").unwrap();
    let again = dashboard.client.send("GET", "/", &[("If-None-Match", tag)], "");
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}
