//! The command `roadshow`, run as a user runs it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const FIGURES: [&str; 20] = [
    "call_round_trip",
    "call_round_trip_p99",
    "calls_in_flight_1",
    "calls_in_flight_64",
    "calls_in_flight_1024",
    "callers_64",
    "callers_1024",
    "one_way",
    "one_way_bursts_of_16",
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

/// Runs invalid arguments, and returns the error output.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = roadshow(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    text(&output.stderr).to_owned()
}

#[test]
fn every_figure_stands_beside_its_limit() {
    // Only the form of the report is checked, so the shortest run is enough.
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
fn table_states_its_conditions_and_has_only_the_filtered_figures() {
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
fn filter_without_matches_lists_all_figures() {
    let said = refused(&["microbenchmark", "--filter", "nothing"]);
    for name in FIGURES {
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn invalid_arguments_are_refused() {
    for seconds in ["0", "-1", "nan", "inf", "1e300", "soon"] {
        let said = refused(&["microbenchmark", "--seconds", seconds]);
        assert!(said.contains("a number of seconds above zero"), "{seconds}: {said}");
    }
    refused(&["microbenchmark", "--pin", "three-cores"]);
    refused(&["microbenchmarks"]);
    refused(&[]);
}

#[test]
fn failed_output_ends_with_one_line_of_error() {
    // Every write to /dev/full fails with ENOSPC.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_roadshow"));
    program.args(["microbenchmark", "--seconds", "0.01", "--filter", "call_round_trip"]).stdout(full);
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.starts_with("error: cannot write the figures") && said.lines().count() == 1, "{said}");
}

#[test]
fn version_is_that_of_the_library() {
    let output = roadshow(&["--version"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout).trim_end(), concat!("roadshow ", env!("CARGO_PKG_VERSION")));
}

/// User without processes, with empty directories that are removed on drop.
struct NewUser(PathBuf);

impl NewUser {
    fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the target directory can be written to");
        Self(dir)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_roadshow"));
        program.args(arguments).env("TMPDIR", &self.0).env("HOME", &self.0).env_remove("XDG_STATE_HOME");
        program.env_remove("ROADSHOW_ADDRESS").env_remove("ROADSHOW_TOKEN").stdin(Stdio::null());
        program
    }

    /// Runs a command that fails, and returns its exit code and its one line of error.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().expect("the command was built");
        let said = text(&output.stderr).to_owned();
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", text(&output.stdout));
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{arguments:?}: {said}");
        // Every error names a next step after the semicolon.
        assert!(said.contains("; "), "there is no next step: {said}");
        (output.status.code().expect("no signal ended it"), said)
    }
}

impl Drop for NewUser {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const COMMANDS: [&[&str]; 14] = [
    &["status"],
    &["list", "nodes"],
    &["get", "node", "1"],
    &["summary", "tasks"],
    &["logs"],
    &["job", "list"],
    &["job", "status", "1"],
    &["job", "logs", "1"],
    &["job", "stop", "1"],
    &["job", "submit", "--", "/proc/self/exe"],
    &["kill", "counter"],
    &["drain", "1"],
    &["health-check"],
    &["list", "actors", "--filter", "state=ALIVE", "--json"],
];

#[test]
fn commands_end_with_3_without_a_cluster_and_with_4_without_a_token() {
    let user = NewUser::new("commands");
    for command in COMMANDS {
        let (code, said) = user.fails(command);
        assert_eq!(code, 3, "{command:?}: {said}");
        assert!(said.contains("roadshow start --head"), "{said}");
        // Options must stand before `--`.
        let mut with_address = command.to_vec();
        let at = command.iter().position(|word| *word == "--").unwrap_or(command.len());
        with_address.insert(at, "--address=127.0.0.1:1");
        let (code, said) = user.fails(&with_address);
        assert_eq!(code, 4, "{command:?}: {said}");
        assert!(said.contains("ROADSHOW_TOKEN"), "{said}");
    }
    assert_eq!(user.fails(&["start", "--address=127.0.0.1:1"]).0, 4);
}

#[test]
fn values_are_checked_before_any_work() {
    let user = NewUser::new("values");
    for (arguments, says) in [
        (&["start"][..], "--head"),
        (&["start", "--head", "--address=127.0.0.1:1"], "cannot be used with"),
        (&["start", "--head", "--port=65536"], "a port"),
        (&["start", "--head", "--host=0.0.0.0"], "by which they reach"),
        (&["start", "--head", "--num-cpus=-1"], "a number of CPUs"),
        (&["start", "--head", "--memory=much"], "8GiB"),
        (&["start", "--head", "--resources={gpu:1}"], "JSON object"),
        (&["start", "--head", "--resources={\"cpu\":1}"], "--num-cpus"),
        (&["start", "--head", "--labels=zone"], "zone=a"),
        (&["start", "--head", "--token=rs1_abc"], "cannot be used with"),
        (&["start", "--head", "--include-dashboard=2"], "1 or 0"),
        (&["start", "--address=127.0.0.1"], "HOST:PORT"),
        (&["start", "--address=127.0.0.1:1", "--state-dir=x"], "cannot be used with"),
        (&["stop", "--grace-period=soon"], "a number of seconds"),
        (&["list", "things"], "nodes"),
        (&["list", "nodes", "--filter=state"], "key=value"),
        (&["list", "nodes", "--filter=class=x"], "the keys are node_id"),
        (&["logs", "--job=1", "--node=1"], "cannot be used with"),
        (&["logs", "--tail=x"], "--tail"),
        (&["job", "submit"], "PROGRAM"),
        (&["job", "submit", "--env==A", "--", "x"], "NAME=VALUE"),
        (&["job", "submit", "--env=ROADSHOW_TOKEN=x", "--", "x"], "Roadshow's own"),
        (&["get", "node"], "ID"),
    ] {
        let (code, said) = user.fails(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    assert_eq!(std::fs::read_dir(&user.0).unwrap().count(), 0, "files were created");
}

#[test]
fn values_of_the_environment_are_checked() {
    let user = NewUser::new("environment");
    let output = user.command(&["status"]).env("ROADSHOW_ADDRESS", "nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: ROADSHOW_ADDRESS is \"nowhere\""));
    let mut program = user.command(&["status", "--address=127.0.0.1:1"]);
    let output = program.env("ROADSHOW_TOKEN", "two words").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn token_on_the_command_line_causes_a_warning() {
    let user = NewUser::new("warned");
    let output = user.command(&["start", "--address=127.0.0.1:1", "--token=nonsense"]).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output.stderr).starts_with("warning: every user of this machine can read --token"));
}

#[test]
fn empty_standard_input_is_no_token() {
    let user = NewUser::new("input");
    let mut program = user.command(&["status", "--address=127.0.0.1:1", "--token-file=-"]);
    let mut child = program.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("the standard input"), "{}", text(&output.stderr));
}

#[test]
fn stop_succeeds_when_nothing_runs() {
    let user = NewUser::new("nothing");
    let output = user.command(&["stop"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "No Roadshow process of yours runs on this machine.\n");
    let output = user.command(&["stop", "--force", "--json"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "[]\n"));
    let (code, _) = user.fails(&["stop", "--session-dir", user.0.to_str().unwrap()]);
    assert_eq!(code, 5);
}

#[test]
fn help_has_examples_and_the_options_of_the_dashboard() {
    let help = roadshow(&["start", "--help"]);
    assert!(help.status.success());
    for part in ["Examples", "roadshow start --head", "--include-dashboard <0|1>", "{\"gpu\": 1}"] {
        assert!(text(&help.stdout).contains(part), "{}", text(&help.stdout));
    }
    let help = roadshow(&["--help"]);
    assert!(text(&help.stdout).contains("Exit codes:"));
    for hidden in ["internal-head", "internal-agent", "bare"] {
        assert!(!text(&help.stdout).contains(hidden));
    }
}
