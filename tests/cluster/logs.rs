//! Output of workers, in files of their nodes and at the driver's terminal.

use std::process::Stdio;

use roadshow::internals::config::LOG_FILE_BYTES_MAX;
use rustix::process::Signal;

use super::job::{Job, Order, SpawnOptions, program};
use super::proc::{self, wait_for};
use super::test_cluster::{TestCluster, json, output, text};

#[test]
fn output_of_workers_is_in_files_and_at_the_driver_s_terminal() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    let node = site.nodes[1].clone();
    job.spawn("prints", SpawnOptions { on: Some(node.id.clone()), ..SpawnOptions::named("prints") });
    let pid = job.pid_of("prints");
    // The harness of this executable leaves an unfinished line.
    job.does(Order::Print("prints".into(), "the line's rest".into(), 1));
    job.does(Order::Print("prints".into(), "once".into(), 1));
    job.does(Order::Print("prints".into(), "often".into(), 50));
    let prefix = format!("(SumActor pid={pid}, node={}) ", &node.id[..4]);
    wait_for("its lines are shown", || {
        let errors = job.errors();
        let shown = ["once out", "once err", "often out", "often err"];
        let has = |line: &&str| errors.lines().any(|it| it.starts_with(&format!("{prefix}{line}")));
        shown.iter().all(has).then_some(())
    });
    wait_for("no line of a single process is deduplicated", || {
        let shown = format!("{prefix}often out");
        (job.errors().lines().filter(|line| **line == shown).count() == 50).then_some(())
    });

    let worker = site.row("workers", "pid", pid)["worker_id"].as_str().unwrap().to_owned();
    let logs = std::fs::read_dir(node.session.join("logs")).unwrap();
    let mut found: Vec<_> = logs.map(|log| log.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().contains(&format!("worker-{worker}-")));
    assert!(found.len() == 2, "{found:?}");
    for path in found {
        let end = path.extension().unwrap().to_str().unwrap().to_owned();
        let written = std::fs::read_to_string(&path).unwrap();
        let count = |text: &str| written.lines().filter(|line| *line == format!("{text} {end}")).count();
        assert_eq!((count("once"), count("often")), (1, 50), "{}", path.display());
    }
    let job_id = site.list("jobs")[0]["job_id"].as_str().unwrap().to_owned();
    for selection in [["--worker", &worker], ["--actor", "prints"], ["--job", &job_id]] {
        let logs = output(site.roadshow(&[&["logs"][..], &selection].concat()));
        let shown = text(&logs.stdout);
        assert!(shown.contains("once out") && shown.contains("once err"), "{selection:?}: {logs:?}");
    }
    job.finish();
}

/// Standard error of a program that has ended.
#[track_caller]
fn shown_by(site: &TestCluster, role: &str) -> Vec<String> {
    let mut command = program(site, role);
    command.stdin(Stdio::null());
    let output = output(command);
    assert!(output.status.success(), "{output:?}");
    let shown = text(&output.stderr).lines().map(str::to_owned).collect::<Vec<_>>();
    // The harness of this executable also runs in each worker, and prints its own lines.
    shown.into_iter().filter(|line| !line.contains("roadshow_worker")).collect()
}

/// Lines of workers with this beginning, without their labels.
fn texts<'a>(shown: &'a [String], beginning: &str) -> Vec<&'a str> {
    let texts = shown.iter().filter_map(|line| line.split_once(") ")).map(|(_, text)| text);
    texts.filter(|text| text.starts_with(beginning)).collect()
}

#[test]
fn output_printed_before_a_result_is_shown_when_the_driver_has_shut_down() {
    let site = TestCluster::pair();
    // Repeated: the last lines race with the driver's shutdown.
    for _ in 0..5 {
        let shown = shown_by(&site, "print");
        assert_eq!(texts(&shown, "tick"), ["tick"; 3], "{shown:?}");
        let each = ["each out", "each out", "each out", "each out [repeated 3x across the cluster]"];
        assert_eq!(texts(&shown, "each out"), each, "{shown:?}");
        assert_eq!(texts(&shown, "last words"), ["last words"], "{shown:?}");
        assert_eq!(texts(&shown, "no end"), ["no end"], "{shown:?}");
    }
}

#[test]
fn silent_node_does_not_make_a_shutdown_lose_lines_that_the_driver_has() {
    let site = TestCluster::pair();
    let mut job = Job::join(&site);
    for (name, node) in ["a", "b"].into_iter().zip(&site.nodes) {
        job.spawn(name, SpawnOptions::on(node));
        // The harness of this executable leaves an unfinished line.
        job.does(Order::Print(name.into(), "\nsame".into(), 1));
        job.does(Order::Print(name.into(), format!("end of {name}"), 1));
    }
    wait_for("both have printed", || {
        let errors = job.errors();
        ["end of a out", "end of b out"].iter().all(|end| errors.contains(end)).then_some(())
    });
    let agent = site.nodes[1].agent();
    proc::signal(agent, Signal::STOP);
    job.end_of_input();
    proc::signal(agent, Signal::CONT);
    // One of the two is a duplicate, which is held back until its window or the program ends.
    wait_for("both are shown", || {
        let count = job.errors().lines().filter(|line| line.ends_with(") same out")).count();
        (count == 2).then_some(())
    });
}

#[test]
fn last_state_of_a_progress_bar_is_shown_while_it_changes() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let shown = shown_by(&site, "progress");
    let states = texts(&shown, "step");
    assert!(states.len() > 2 && states.len() < 100, "{shown:?}");
    assert_eq!(states.last(), Some(&"step 199"), "{shown:?}");
    assert!(!shown.iter().any(|line| line.contains("^M")), "{shown:?}");
}

#[test]
fn long_log_of_a_head_is_rotated() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let node = &site.nodes[0];
    let logs = node.session.join("logs");
    proc::kill(node.head());
    // A sparse file of the maximum size stands for weeks of logging.
    let long = std::fs::OpenOptions::new().append(true).open(logs.join("head.log")).unwrap();
    long.set_len(LOG_FILE_BYTES_MAX).unwrap();
    let mut again = site.restart_head_command();
    again.env("ROADSHOW_LOG", "info");
    json(again);
    let written = wait_for("it goes on in another file", || {
        let written = std::fs::read_to_string(logs.join("head.log")).unwrap_or_default();
        written.contains("a node has joined").then_some(written)
    });
    assert!(written.len() < 64 << 10, "{} bytes", written.len());
    assert_eq!(std::fs::metadata(logs.join("head.log.1")).unwrap().len(), LOG_FILE_BYTES_MAX);
    // Output that bypasses the logger, such as a panic message, goes to the new file as well.
    let stderr = std::fs::read_link(format!("/proc/{}/fd/2", node.head())).unwrap();
    assert_eq!(stderr, logs.join("head.log"));
}

#[test]
fn workers_have_only_the_environment_variables_that_the_driver_gives_them() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut command = program(&site, "obey");
    command.env("ROADSHOW_TEST_ENV", "GIVEN=yes").env("NOT_GIVEN", "no");
    let mut job = Job::join_with(command);
    job.spawn("a", SpawnOptions::default());
    let variable = |name: &str| Order::Variable("a".into(), name.into());
    assert!(matches!(job.reply(variable("GIVEN")), super::job::Reply::Text(Some(yes)) if yes == "yes"));
    for name in ["NOT_GIVEN", "ROADSHOW_TOKEN", "ROADSHOW_ADDRESS"] {
        let reply = job.reply(variable(name));
        assert!(matches!(reply, super::job::Reply::Text(None)), "{name}: {reply:?}");
    }
    job.finish();
}
