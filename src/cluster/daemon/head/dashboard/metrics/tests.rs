//! Tests of the metrics' text, and of the files for Prometheus and Grafana that name them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::cluster::model::{ClassCount, TaskCount};

fn observation() -> Observation {
    let usage = json!({
        "cpus": 4, "load": 0.5, "memory_bytes": 1000, "memory_total_bytes": 4000, "workers_memory_bytes": 10,
        "disk_used_bytes": 7, "disk_total_bytes": 9, "cpu_seconds": 12.5, "sent_bytes": 3, "received_bytes": 4,
    });
    let resources = json!({"cpu": 4.0});
    Observation {
        nodes: vec![
            json!({"node_id": "a1", "state": "ALIVE", "usage": usage, "workers": 2, "actors": 3,
                "resources": resources, "available": {"cpu": 1.0}}),
            json!({"node_id": "b2", "state": "DEAD", "usage": null, "workers": 0, "actors": 0,
                "resources": resources, "available": resources}),
        ],
        jobs: vec![("RUNNING", 1)],
        classes: vec![ClassCount {
            class: "app::Say \"hi\"\n".to_owned(),
            alive: 3,
            ..ClassCount::default()
        }],
        functions: vec![TaskCount { name: "app::square".to_owned(), queued: 2, ..TaskCount::default() }],
        tasks: [("app::square".to_owned(), (40.0, 1.0))].into(),
        messages: [("a1".to_owned(), 1e9)].into(),
        workers: 2,
        snapshot: 17,
        ..Observation::default()
    }
}

/// Samples by their names and labels, and the families by their names with type and help.
type Parsed = (BTreeMap<String, f64>, BTreeMap<String, (String, String)>);

/// Parses OpenMetrics text strictly: each sample belongs to a family with type and help before it.
fn parse(text: &str) -> Parsed {
    let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::<String, (String, String)>::new());
    let body = text.strip_suffix("# EOF\n").expect("the text ends with its mark");
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => families.entry(name.to_owned()).or_default().1 = help.to_owned(),
            ["#", "TYPE", name, kind] => families.entry(name.to_owned()).or_default().0 = kind.to_owned(),
            _ => {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let metric = name.split('{').next().unwrap();
                let is_of = |family: &&String| {
                    let rest = metric.strip_prefix(family.as_str());
                    rest.is_some_and(|rest| ["", "_total", "_info"].contains(&rest))
                };
                assert!(families.keys().any(|family| is_of(&family)), "no family of {line}");
                let known = samples.insert(name.to_owned(), value.parse().unwrap());
                assert_eq!(known, None, "{name} is there twice");
            }
        }
    }
    (samples, families)
}

#[test]
fn text_has_every_family_with_type_and_help_and_the_values_of_the_sample() {
    let (samples, families) = parse(&text(&observation(), 5));
    for (name, (kind, help)) in &families {
        assert!(["gauge", "counter", "info"].contains(&kind.as_str()) && !help.is_empty(), "{name}");
        assert!(name.starts_with("roadshow_"), "{name}");
    }
    for (name, value) in [
        ("roadshow_nodes{state=\"ALIVE\"}", 1.0),
        ("roadshow_nodes{state=\"DEAD\"}", 1.0),
        ("roadshow_node_cpu_seconds_total{node=\"a1\"}", 12.5),
        ("roadshow_node_memory_size_bytes{node=\"a1\"}", 4000.0),
        ("roadshow_resource_total{resource=\"cpu\"}", 4.0),
        ("roadshow_resource_available{resource=\"cpu\"}", 1.0),
        ("roadshow_actors{class=\"app::Say \\\"hi\\\"\\n\",state=\"ALIVE\"}", 3.0),
        ("roadshow_tasks{function=\"app::square\",state=\"QUEUED\"}", 2.0),
        ("roadshow_tasks_finished_total{function=\"app::square\"}", 40.0),
        ("roadshow_messages_handled_total{node=\"a1\"}", 1e9),
        ("roadshow_alerts{kind=\"HEAD_STATE\"}", 0.0),
        ("roadshow_dashboard_stream_clients", 5.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
    }
    assert!(!samples.keys().any(|name| name.contains("node=\"b2\"")), "a dead node has no usage");
}

#[test]
fn labels_are_bounded_and_the_rest_is_one_value() {
    let mut observation = observation();
    observation.classes = (0..3 * METRIC_LABELS_MAX)
        .map(|number| ClassCount { class: format!("C{number}"), alive: 1, ..ClassCount::default() })
        .collect();
    let (samples, _) = parse(&text(&observation, 0));
    let alive = |name: &&String| name.starts_with("roadshow_actors{") && name.contains("ALIVE");
    assert_eq!(samples.keys().filter(alive).count(), METRIC_LABELS_MAX + 1);
    let other = format!("roadshow_actors{{class=\"{OTHER}\",state=\"ALIVE\"}}");
    assert_eq!(samples[&other], 2.0 * METRIC_LABELS_MAX as f64);
}

/// Names of metrics in the expressions of a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("roadshow_")).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alert_rules_name_metrics_that_exist() {
    let (samples, _) = parse(&text(&observation(), 0));
    let known: BTreeSet<&str> = samples.keys().filter_map(|name| name.split('{').next()).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let dashboard: Value = serde_json::from_str(&read("grafana-dashboard.json")).unwrap();
    let rules = read("prometheus-rules.yml");
    for (file, names) in [("dashboard", named(&dashboard.to_string())), ("rules", named(&rules))] {
        assert!(names.len() >= 4, "{file} names only {names:?}");
        for name in names {
            assert!(known.contains(name.as_str()), "{file} names {name}, which does not exist");
        }
    }
    let panels = dashboard["panels"].as_array().unwrap();
    for panel in panels {
        for key in ["id", "title", "type", "gridPos", "targets", "datasource"] {
            assert!(panel.get(key).is_some(), "a panel has no {key}: {panel}");
        }
        assert!(panel["targets"].as_array().unwrap().iter().all(|target| target["expr"].is_string()));
    }
    let alerts = rules.lines().filter(|line| line.trim_start().starts_with("- alert:")).count();
    let descriptions = rules.lines().filter(|line| line.trim_start().starts_with("description:")).count();
    assert!(alerts >= 4 && alerts == descriptions, "{alerts} alerts, {descriptions} descriptions");
}
