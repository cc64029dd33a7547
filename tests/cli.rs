//! The command `roadshow`, run as a user runs it.

use std::process::{Command, Output};

use serde_json::Value;

const FIGURES: [&str; 17] = [
    "call_round_trip",
    "call_round_trip_p99",
    "calls_in_flight_1",
    "calls_in_flight_64",
    "calls_in_flight_1024",
    "one_way",
    "calls_n_to_n",
    "payload_1kib",
    "payload_64kib",
    "payload_1mib",
    "word_list",
    "spawns",
    "actor_memory",
    "tasks",
    "task_latency",
    "cluster_start",
    "worker_memory",
];

fn roadshow(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_roadshow"));
    program.args(arguments).output().expect("the command was built")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the command writes UTF-8")
}

/// A finite number above zero.
#[track_caller]
fn number(of: &Value, field: &str) -> f64 {
    let number = of[field].as_f64().filter(|number| number.is_finite() && *number > 0.0);
    number.unwrap_or_else(|| panic!("`{field}` is no number above zero: {of}"))
}

#[track_caller]
fn is_ratio(ratio: f64, of: f64, by: f64) {
    assert!((ratio - of / by).abs() <= ratio * 1e-9, "{ratio} is not {of} / {by}");
}

/// Runs with arguments that make no sense, and gives what is said about them.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = roadshow(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    text(&output.stderr).to_owned()
}

#[test]
fn every_figure_stands_beside_its_limit() {
    let output = roadshow(&["microbenchmark", "--json", "--seconds", "0.05"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = report["figures"].as_array().unwrap();
    let names: Vec<_> = figures.iter().map(|figure| figure["name"].as_str().unwrap()).collect();
    assert_eq!(names, FIGURES);
    for figure in figures {
        let roadshow = number(figure, "roadshow");
        is_ratio(number(figure, "ratio"), roadshow, number(figure, "limit"));
        assert!(figure["unit"].is_string() && figure["limit_name"].is_string(), "{figure}");
        for other in figure["others"].as_array().into_iter().flatten() {
            assert!(other["name"].is_string(), "{figure}");
            is_ratio(number(other, "ratio"), roadshow, number(other, "value"));
        }
        if let Some(cpu) = figure.get("cpu_s_per_million") {
            number(cpu, "driver");
            number(cpu, "worker");
        }
    }
}

#[test]
fn a_table_says_how_it_was_measured_and_has_what_was_asked_for() {
    let pinned = ["microbenchmark", "--seconds", "0.01", "--filter", "in_flight_64", "--pin", "one-core"];
    let output = roadshow(&pinned);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.starts_with("pin one-core (cores "), "{table}");
    let rows = table.lines().skip(3).filter(|row| !row.starts_with(' '));
    let names: Vec<_> = rows.filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(names, ["calls_in_flight_64"], "{table}");
}

#[test]
fn a_filter_without_figures_lists_their_names() {
    let said = refused(&["microbenchmark", "--filter", "nothing"]);
    for name in FIGURES {
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for seconds in ["0", "-1", "nan", "inf", "1e300", "soon"] {
        let said = refused(&["microbenchmark", "--seconds", seconds]);
        assert!(said.contains("a number of seconds above zero"), "{seconds}: {said}");
    }
    refused(&["microbenchmark", "--pin", "three-cores"]);
    refused(&["microbenchmarks"]);
    refused(&[]);
}

#[test]
fn what_cannot_be_measured_ends_with_one_line() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_roadshow"));
    program.args(["microbenchmark", "--seconds", "0.01", "--filter", "call_round_trip"]).stdout(full);
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("error: cannot write the figures") && said.lines().count() == 1, "{said}");
}

#[test]
fn the_version_is_the_library_s() {
    let output = roadshow(&["--version"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout).trim_end(), concat!("roadshow ", env!("CARGO_PKG_VERSION")));
}
