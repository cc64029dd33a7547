//! Checks the OpenAPI document against the routes and their replies.

use std::collections::BTreeSet;

use serde_json::Value;

use super::TestDashboard;

const DOCUMENT: &str = include_str!("../openapi.json");

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// Differences between a value and a JSON schema, of the keywords that the document uses.
fn differences(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let known =
        ["$ref", "type", "enum", "pattern", "properties", "required", "items", "additionalProperties"];
    let ignored = ["description", "default", "maximum"];
    for keyword in schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str()) {
        assert!(known.contains(&keyword) || ignored.contains(&keyword), "the check ignores {keyword}");
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return differences(document, target.expect("the reference has a target"), value, at, found);
    }
    if !schema["type"].is_null() && !types(&schema["type"]).iter().any(|kind| is_of(value, kind)) {
        found.push(format!("{at} is {value}, not {}", schema["type"]));
        return;
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        found.push(format!("{at} is {value}, not one of {}", schema["enum"]));
    }
    if let (Some(_), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && (text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        found.push(format!("{at} is {text:?}, not an id"));
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        // As in JSON Schema: only objects have fields to require.
        if value.is_object() && value.get(key).is_none() {
            found.push(format!("{at} has no {key}"));
        }
    }
    for (key, field) in value.as_object().into_iter().flatten() {
        let property = schema["properties"].get(key).or_else(|| schema.get("additionalProperties"));
        if let Some(schema) = property {
            differences(document, schema, field, &format!("{at}.{key}"), found);
        }
    }
    if let Some(schema) = schema.get("items") {
        for item in value.as_array().into_iter().flatten() {
            differences(document, schema, item, &format!("{at}[]"), found);
        }
    }
}

fn types(kind: &Value) -> Vec<&str> {
    kind.as_str().into_iter().chain(kind.as_array().into_iter().flatten().filter_map(Value::as_str)).collect()
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

#[track_caller]
fn check(schema: &Value, value: &Value, what: &str) {
    let mut found = Vec::new();
    differences(&document(), schema, value, what, &mut found);
    assert_eq!(found, Vec::<String>::new());
}

/// Request for each operation of the document, and the status of its reply.
const REQUESTS: &[(&str, &str, &str, u16)] = &[
    ("GET", "/openapi.json", "/openapi.json", 200),
    ("GET", "/api/version", "/api/version", 200),
    ("GET", "/api/v0/session", "/api/v0/session", 200),
    ("GET", "/api/v0/status", "/api/v0/status", 200),
    ("GET", "/api/v0/{table}", "/api/v0/nodes?sort=-actors&filter=state!=DEAD", 200),
    ("GET", "/api/v0/{table}", "/api/v0/nodes?sort=colour", 400),
    ("GET", "/api/v0/{table}/{id}", "/api/v0/actors/1", 200),
    ("GET", "/api/v0/{table}/{id}", "/api/v0/actors/99", 404),
    ("GET", "/api/v0/summary/{table}", "/api/v0/summary/actors", 200),
    ("GET", "/api/jobs/", "/api/jobs/", 200),
    ("GET", "/api/jobs/{id}", "/api/jobs/00000001", 200),
    ("GET", "/api/jobs/{id}/logs", "/api/jobs/00000001/logs", 200),
    ("GET", "/api/v0/series", "/api/v0/series?range=1h&name=actors", 200),
    ("GET", "/api/v0/timeline", "/api/v0/timeline?job_id=1&limit=1", 200),
    ("GET", "/api/v0/timeline", "/api/v0/timeline?job_id=9", 404),
    ("GET", "/api/v0/timeline", "/api/v0/timeline", 400),
    ("GET", "/api/v0/logs", "/api/v0/logs", 200),
    ("GET", "/api/v0/logs/{node}/{file}", "/api/v0/logs/a1/driver-1.out?tail=1", 200),
    ("GET", "/api/v0/logs/{node}/{file}", "/api/v0/logs/b2/driver-1.out", 502),
    ("GET", "/api/v0/logs/{node}/{file}/download", "/api/v0/logs/a1/driver-1.out/download", 200),
    ("GET", "/metrics", "/metrics", 200),
    ("POST", "/api/jobs/{id}/stop", "/api/jobs/1/stop", 200),
    ("POST", "/api/jobs/{id}/stop", "/api/jobs/9/stop", 404),
    ("POST", "/api/jobs/{id}/stop", "/api/jobs/2/stop", 409),
    ("POST", "/api/v0/actors/{id}/kill", "/api/v0/actors/1/kill", 202),
    ("POST", "/api/v0/nodes/{id}/drain", "/api/v0/nodes/b2/drain", 202),
    ("POST", "/api/v0/logout", "/api/v0/logout", 204),
    ("POST", "/api/v0/login", "/api/v0/login", 400),
];

/// Operations that another test covers: a reply without an end.
const STREAM: (&str, &str) = ("GET", "/api/v0/stream");

#[test]
fn document_has_every_route_and_replies_have_its_schemas() {
    let dashboard = TestDashboard::start();
    dashboard.wait_for_sample();
    let document = document();
    let mut covered = BTreeSet::from([STREAM]);
    for (method, path, target, status) in REQUESTS {
        covered.insert((method, path));
        let operation = &document["paths"][path][method.to_lowercase()];
        let response = match *method {
            "GET" => dashboard.client.get(target),
            _ => dashboard.client.post(target, "{}"),
        };
        assert_eq!(response.status, *status, "{target}: {response:?}");
        let described = match operation["responses"].get(status.to_string()) {
            Some(described) => described,
            // Every operation with a body refuses one that is malformed.
            None if *status == 400 => continue,
            None => panic!("{path} has no {status}"),
        };
        if let Some(schema) = described["content"].get("application/json") {
            check(&schema["schema"], &response.json(), target);
        }
    }
    let listed: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            operations.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let covered = covered.into_iter().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(listed, covered, "operations of the document, and of the requests");
}

#[test]
fn rows_of_each_table_have_the_schema_of_their_kind() {
    let dashboard = TestDashboard::start();
    let document = document();
    for (table, name) in [
        ("nodes", "Node"),
        ("jobs", "Job"),
        ("actors", "Actor"),
        ("workers", "Worker"),
        ("tasks", "Task"),
        ("messages", "Message"),
        ("events", "Event"),
    ] {
        let page = dashboard.client.get(&format!("/api/v0/{table}")).json();
        let rows = page["rows"].as_array().unwrap();
        assert!(!rows.is_empty());
        rows.iter().for_each(|row| check(&document["components"]["schemas"][name], row, table));
    }
}

#[test]
fn routes_are_those_of_the_document() {
    let source = include_str!("../routes/mod.rs");
    let routed = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let document = document();
    // The page and the link to it are for browsers.
    let pages = ["/", "/assets/{path:.*}", "/login"];
    for path in routed.filter(|path| !pages.contains(path)) {
        let path = path.replace("{kind}", "{table}");
        assert!(document["paths"].get(&path).is_some(), "the document has no {path}");
    }
}

#[test]
fn check_of_schemas_sees_each_difference() {
    let count = |schema: &str, value: &str| {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let mut found = Vec::new();
        differences(&document(), &parse(schema), &parse(value), "it", &mut found);
        found.len()
    };
    assert_eq!(count(r#"{"type": ["string", "null"]}"#, "null"), 0);
    assert_eq!(count(r#"{"type": "string"}"#, "1"), 1);
    assert_eq!(count(r#"{"enum": ["a"]}"#, r#""b""#), 1);
    assert_eq!(count(r#"{"pattern": "^[0-9a-f]+$"}"#, r#""x""#), 1);
    assert_eq!(count(r#"{"required": ["a"]}"#, "{}"), 1);
    assert_eq!(count(r#"{"properties": {"a": {"type": "integer"}}}"#, r#"{"a": "1"}"#), 1);
    assert_eq!(count(r#"{"additionalProperties": {"type": "integer"}}"#, r#"{"a": "1"}"#), 1);
    assert_eq!(count(r#"{"items": {"type": "integer"}}"#, "[1, null]"), 1);
    let reference = "{\"$ref\": \"#/components/schemas/Done\"}";
    assert_eq!((count(reference, r#"{"done": true}"#), count(reference, "{}")), (0, 1));
}
