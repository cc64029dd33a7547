//! What workers print: in files of their nodes, and at their driver's terminal.

use roadshow::config::LOG_FILE_BYTES_MAX;

use super::job::{Job, Order, Wish, program};
use super::proc::{self, wait_for};
use super::site::{Site, json, output, text};

#[test]
fn what_workers_print_is_in_files_and_at_the_driver_s_terminal() {
    let site = Site::pair();
    let mut job = Job::join(&site);
    let node = site.nodes[1].clone();
    job.spawn("prints", Wish { on: Some(node.id.clone()), ..Wish::named("prints") });
    let pid = job.pid_of("prints");
    // The harness of this executable has begun a line.
    job.does(Order::Print("prints".into(), "the line's rest".into(), 1));
    job.does(Order::Print("prints".into(), "once".into(), 1));
    job.does(Order::Print("prints".into(), "often".into(), 50));
    let prefix = format!("(Keeper pid={pid}, node={}) ", &node.id[..4]);
    wait_for("its lines are shown", || {
        let errors = job.errors();
        let shown = ["once out", "once err", "often out", "often err"];
        let has = |line: &&str| errors.lines().any(|it| it.starts_with(&format!("{prefix}{line}")));
        shown.iter().all(has).then_some(())
    });
    let folded = wait_for("the repeated lines are counted", || {
        let errors = job.errors();
        let lines: Vec<_> =
            errors.lines().filter(|line| line.contains("often out")).map(str::to_owned).collect();
        (lines.len() > 1).then_some(lines)
    });
    assert!(folded.len() == 2 && folded[1].contains("[repeated 49x"), "{folded:?}");

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

#[test]
fn the_log_of_a_head_is_put_aside_when_it_gets_long() {
    let site = Site::head(&["--num-cpus=1"]);
    let node = &site.nodes[0];
    let logs = node.session.join("logs");
    proc::kill(node.head());
    // As if it had logged for weeks.
    let long = std::fs::OpenOptions::new().append(true).open(logs.join("head.log")).unwrap();
    long.set_len(LOG_FILE_BYTES_MAX).unwrap();
    let mut again = site.head_again_command();
    again.env("ROADSHOW_LOG", "info");
    json(again);
    let written = wait_for("it goes on in another file", || {
        let written = std::fs::read_to_string(logs.join("head.log")).unwrap_or_default();
        written.contains("a node has joined").then_some(written)
    });
    assert!(written.len() < 64 << 10, "{} bytes", written.len());
    assert_eq!(std::fs::metadata(logs.join("head.log.1")).unwrap().len(), LOG_FILE_BYTES_MAX);
    // So does what is no event, such as the words of a panic.
    let stderr = std::fs::read_link(format!("/proc/{}/fd/2", node.head())).unwrap();
    assert_eq!(stderr, logs.join("head.log"));
}

#[test]
fn workers_have_of_the_environment_only_what_they_are_given() {
    let site = Site::head(&["--num-cpus=1"]);
    let mut command = program(&site, "obey");
    command.env("ROADSHOW_TEST_ENV", "GIVEN=yes").env("NOT_GIVEN", "no");
    let mut job = Job::join_with(command);
    job.spawn("a", Wish::default());
    let variable = |name: &str| Order::Variable("a".into(), name.into());
    assert!(matches!(job.reply(variable("GIVEN")), super::job::Reply::Text(Some(yes)) if yes == "yes"));
    for name in ["NOT_GIVEN", "ROADSHOW_TOKEN", "ROADSHOW_ADDRESS"] {
        let reply = job.reply(variable(name));
        assert!(matches!(reply, super::job::Reply::Text(None)), "{name}: {reply:?}");
    }
    job.finish();
}
