//! Runs the example `most_frequent_word` as a user does. Cargo builds the examples with the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use serde_json::Value;

/// Returns the command of the program that was built next to this test.
fn program() -> Command {
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    let path = target.join("examples").join("most_frequent_word");
    assert!(path.exists(), "{path:?} is not built; with `cargo test --test`, add `--examples`");
    let mut program = Command::new(path);
    // The developer's settings must not change the output or the number of workers.
    program.env_remove("ROADSHOW_LOG").env_remove("ROADSHOW_WORKERS").env_remove("ROADSHOW_ADDRESS");
    program
}

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn report(args: &[&str]) -> Value {
    let output = run(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.as_ref()), (Some(0), ""), "{args:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// File that is removed at the end of its test.
struct Book(PathBuf);

impl Book {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        // The process id separates concurrent runs of the tests.
        let path = env::temp_dir().join(format!("roadshow-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[track_caller]
fn assert_rejected(args: &[&str], says: &str) {
    let output = run(args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    // A script that reads the output must not see half of a report.
    assert_eq!(output.stdout, b"", "{args:?}");
    // A value may contain a line break, and the error quotes it.
    assert_eq!(errors.lines().count(), 1, "{args:?}: {errors}");
    assert!(errors.contains(says), "{args:?}: {errors}");
}

#[test]
fn invalid_options_get_one_line_and_exit_code_2() {
    assert_rejected(&["--nodes", "0"], "--nodes");
    assert_rejected(&["--nodes", "many"], "whole number");
    assert_rejected(&["--workers", "0"], "--workers");
    assert_rejected(&["--repeat", "0"], "--repeat");
    assert_rejected(&["--counting", "fingers"], "list, hash, both");
    assert_rejected(&["--method", "guess"], "two-round, exact, both");
    assert_rejected(&["--faster"], "--help");
    assert_rejected(&["--book"], "--book");
    assert_rejected(&["stray"], "stray");
    // An argument must not be able to add lines to the error.
    assert_rejected(&["--faster\n\nsecond line"], "--help");
}

#[test]
fn unusable_texts_get_one_line_and_exit_code_2() {
    assert_rejected(&["--book", "no/such/file"], "no/such/file");
    assert_rejected(&["--book", "no/such\nfile", "--json"], "--book");
    assert_rejected(&["--book", env::temp_dir().to_str().unwrap()], "directory");
    assert_rejected(&["--book", Book::new("latin-1", b"caf\xe9").path()], "not UTF-8");
    assert_rejected(&["--book", Book::new("empty", "").path()], "no words");
    assert_rejected(&["--book", Book::new("stops", " ... '!'\n").path()], "no words");
    assert_rejected(&["--repeat", "99999999999"], "--repeat");
}

#[test]
fn help_lists_the_exit_codes() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("Exit codes: 0 "), "{help}");
}

#[test]
fn json_has_every_run_and_the_processes() {
    let book = Book::new("rose", "A rose is a rose, is a rose.");
    let report = report(&["--book", book.path(), "--nodes", "3", "--workers", "2", "--json"]);
    assert_eq!(report["text"]["source"], book.path());
    assert_eq!(report["text"]["words"], 8);
    assert_eq!(report["text"]["distinct"], 3);
    assert_eq!(report["cluster"]["nodes"], 3);
    assert!(report["cluster"]["start_seconds"].as_f64().unwrap() > 0.0);

    let mut pids: Vec<u64> = vec![report["driver_pid"].as_u64().unwrap()];
    for worker in report["cluster"]["workers"].as_array().unwrap() {
        pids.push(worker["pid"].as_u64().unwrap());
        assert!(worker["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    }
    pids.sort_unstable();
    // Equal ids would mean that a worker is a thread.
    pids.dedup();
    assert_eq!(pids.len(), 3, "a driver and two workers");
    // Every process has ended with the program.
    assert!(!pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()));

    let runs = report["runs"].as_array().unwrap();
    // Two algorithms, each sequential and with three places by two methods.
    assert_eq!(runs.len(), 2 * (1 + 3 * 2));
    for run in runs {
        assert_eq!(run["count"], 3, "{run}");
        assert!(run["seconds"].as_f64().unwrap() >= 0.0);
        // Two rounds may give another word of the same count.
        if run["method"] != "two-round" {
            // "a" occurs three times, as often as "rose", and before it.
            assert_eq!(run["word"], "a", "{run}");
        }
    }
    let has = |name: &str, counting: &str, method: &str| {
        runs.iter().any(|run| run["name"] == name && run["counting"] == counting && run["method"] == method)
    };
    for counting in ["list", "hash"] {
        assert!(has("sequential", counting, "whole"));
        for name in ["slices", "tasks", "actors"] {
            assert!(has(name, counting, "two-round") && has(name, counting, "exact"));
        }
    }
}

#[test]
fn table_reports_a_wrong_answer_of_two_rounds() {
    // In each quarter a local word beats "x", which is the most frequent word of the whole text.
    let book = Book::new("aaaxx", "a a a x x b b b x x c c c x x d d d x x");
    let output = run(&["--book", book.path(), "--counting", "hash", "--workers", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("disagree: two-round says a (3), but the answer is x (8)"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("actors") && line.contains("x (8)")), "{table}");

    let book = Book::new("agree", "a a b");
    let output = run(&["--book", book.path(), "--counting", "hash", "--nodes", "7", "--workers", "1"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(!table.contains("disagree"), "{table}");
    assert!(table.contains("a (2)"), "{table}");
}

#[test]
fn the_readme_shows_what_it_prints() {
    let output = run(&[]);
    let printed = masked(&String::from_utf8(output.stdout).unwrap());
    let readme = include_str!("../../README.md");
    let sample = readme.split("```text\n").nth(1).and_then(|rest| rest.split("...\n```").next()).unwrap();
    // One iterator for all lines: they have to appear in the same order.
    let mut printed = printed.iter();
    for line in masked(sample) {
        assert!(
            printed.any(|printed| *printed == line),
            "README.md shows `{line}`, and it is not printed there"
        );
    }
}

/// The lines of a report, with measured figures masked.
fn masked(report: &str) -> Vec<String> {
    let mask = |word: &str| {
        let number = word.trim_end_matches('x');
        // Counts of words are integers, and stay visible.
        let is_measured = number.parse::<f64>().is_ok() && (number != word || word.contains('.'));
        if is_measured { word.replacen(number, "#", 1) } else { word.to_owned() }
    };
    report.lines().map(|line| line.split_whitespace().map(mask).collect::<Vec<_>>().join(" ")).collect()
}
