//! Runs the examples as a user does. Cargo builds them with the tests.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs an example that was built next to this test.
fn run(example: &str, args: &[&str]) -> Output {
    // Cargo has no variable with the path of an example.
    let test = env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(example);
    assert!(path.exists(), "{path:?} is not built; with `cargo test --test`, add `--examples`");
    let mut program = Command::new(path);
    // The developer's settings must not change the output or the number of workers.
    for variable in ["ROADSHOW_LOG", "ROADSHOW_WORKERS", "ROADSHOW_ADDRESS"] {
        program.env_remove(variable);
    }
    program.args(args).output().unwrap()
}

/// Path of "Alice's Adventures in Wonderland", if there is a copy; the book is not part of the project.
fn book() -> Option<String> {
    let default_path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/alice29.txt");
    let path = env::var_os("ROADSHOW_TEST_BOOK").map_or(default_path, PathBuf::from);
    path.exists().then(|| path.to_str().unwrap().to_owned())
}

#[test]
fn counter_prints_its_total_and_nothing_else() {
    let output = run("counter", &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "42\n");
    // Logs and warnings would appear here.
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn every_method_finds_the_same_word_of_a_book() {
    let Some(book) = book() else {
        println!("skipped: set ROADSHOW_TEST_BOOK to the path of alice29.txt of the Canterbury corpus");
        return;
    };
    // The quadratic `list` counting takes minutes without optimization.
    let args = ["--book", &book, "--nodes", "4", "--counting", "hash", "--json"];
    let output = run("most_frequent_word", &args);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["text"]["words"], 27_224);

    let runs = report["runs"].as_array().unwrap();
    // Sequential counting, and slices, tasks and actors by two methods each.
    assert_eq!(runs.len(), 7);
    for run in runs {
        assert_eq!((&run["word"], &run["count"]), (&"the".into(), &1616.into()), "{run}");
    }
    let workers = report["cluster"]["workers"].as_array().unwrap();
    let mut pids: Vec<_> = workers.iter().map(|worker| worker["pid"].as_u64().unwrap()).collect();
    pids.push(report["driver_pid"].as_u64().unwrap());
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 5, "a driver and four workers");
}

#[test]
fn flooding_a_slow_actor_grows_no_process() {
    let output = run("overload", &["--seconds", "2", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["handled"], &report["dead_letters"]), (&report["sent"], &0.into()), "{report}");
    assert!(report["sent"].as_u64() > Some(1000), "{report}");
    let resident = |when: &str| {
        let kib = report[when].as_array().unwrap().iter();
        kib.map(|kib| kib.as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Compared with the first samples and not with the start: buffers and code pages come first.
    let growth = resident("resident_kib_early").into_iter().zip(resident("resident_kib_most"));
    // The bound is the send queues of all senders together; it does not depend on the number of messages
    // sent.
    let most_kib = 2 * (roadshow::internals::config::SEND_QUEUE_BYTES_MAX as u64 >> 10);
    assert!(growth.into_iter().all(|(early, most)| most < early + most_kib), "{report}");
}

#[test]
fn a_bank_loses_and_makes_no_money_while_its_workers_are_killed() {
    let args = ["--transfers", "300", "--run-for", "1s", "--kill-every", "150ms", "--json"];
    let output = run("bank", &args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let banks = report["banks"].as_array().unwrap();
    assert_eq!(banks.len(), 2, "{report}");
    for bank in banks {
        assert!(bank["transfers"].as_u64() >= Some(100) && bank["kills"].as_u64() >= Some(1), "{report}");
    }
    // Each look is also at money that moves, and not only at the end.
    assert!(banks[1]["most_under_way"].as_i64() > Some(0), "{report}");
}

#[test]
fn the_audit_of_the_bank_finds_planted_bugs() {
    for (bug, error) in [("double-credit", "was received twice"), ("forged-coin", "and the order is")] {
        let output = run("bank", &["--transfers", "300", "--run-for", "0s", "--plant", bug, "--json"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{bug}: {errors}");
        assert!(errors.contains(error), "{bug}: {errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        for bank in report["banks"].as_array().unwrap() {
            assert_ne!(bank["errors"], Value::Array(Vec::new()), "{bug}: {report}");
        }
    }
}
