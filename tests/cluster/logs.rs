//! What workers print: in files of their nodes, and at their driver's terminal.

use super::job::{Job, Order, Wish, program};
use super::proc::wait_for;
use super::site::{Site, output, text};

#[test]
fn what_workers_print_is_in_files_and_at_the_driver_s_terminal() {
    let site = Site::pair();
    let mut job = Job::join(&site);
    let node = site.nodes[1].clone();
    job.spawn("prints", Wish { on: Some(node.id.clone()), ..Wish::named("prints") });
    let pid = job.pid_of("prints");
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
    assert!(folded.len() == 2 && folded[1].contains("repeated 49"), "{folded:?}");

    let worker = site.row("workers", "pid", pid)["worker_id"].as_str().unwrap().to_owned();
    let logs = std::fs::read_dir(node.session.join("logs")).unwrap();
    let named = |end: &str| format!("worker-{worker}-").len() + end.len();
    let mut found: Vec<_> = logs.map(|log| log.unwrap().path()).collect();
    found.retain(|path| path.to_str().unwrap().contains(&format!("worker-{worker}-")));
    assert!(found.len() == 2 && named("out") > 0, "{found:?}");
    for path in found {
        let end = path.extension().unwrap().to_str().unwrap().to_owned();
        let written = std::fs::read_to_string(&path).unwrap();
        let count = |text: &str| written.lines().filter(|line| *line == format!("{text} {end}")).count();
        assert_eq!((count("once"), count("often")), (1, 50), "{}", path.display());
    }
    for selection in [["--worker", &worker], ["--actor", "prints"], ["--node", &node.id]] {
        let logs = output(site.roadshow(&[&["logs"][..], &selection].concat()));
        let shown = text(&logs.stdout);
        assert!(shown.contains("once out") && shown.contains("once err"), "{selection:?}: {logs:?}");
    }
    job.finish();
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
