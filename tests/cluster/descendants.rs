//! Descendants of a job's workers end with the job, however they were started.
//!
//! ```text
//! agent (child subreaper)
//!   +- worker          ROADSHOW_* mark in its environment
//!        +- child      found by parent
//!        +- setsid     found by mark
//!        +- env -i     no mark: found by parent while it has one, else by its adoption by the agent
//! ```

use rustix::process::Signal;

use super::job::{Job, Order};
use super::proc::{self, runs, wait_for};
use super::test_cluster::{TestCluster, output, text};

/// Program on a node with one worker, and the processes that a task has started in six ways.
struct JobWithSleeps {
    site: TestCluster,
    job: Job,
    sleeps: Vec<u32>,
}

impl JobWithSleeps {
    fn new() -> Self {
        let site = TestCluster::head(&["--num-cpus=1"]);
        let mut job = Job::join(&site);
        let sleeps = job.numbers(Order::StartSleeps).into_iter().map(|pid| pid.try_into().unwrap()).collect();
        let started = Self { site, job, sleeps };
        assert!(started.sleeps.iter().all(|&pid| runs(pid)));
        started
    }

    #[track_caller]
    fn all_end(&self) {
        self.sleeps.iter().copied().for_each(proc::ended);
    }

    fn worker(&mut self) -> u32 {
        self.job.numbers(Order::Workers)[0].try_into().unwrap()
    }
}

impl Drop for JobWithSleeps {
    fn drop(&mut self) {
        for &pid in self.sleeps.iter().filter(|&&pid| runs(pid)) {
            proc::kill(pid);
        }
    }
}

#[test]
fn graceful_end_of_a_job_leaves_no_process_and_the_agent_reaps_orphans() {
    let mut started = JobWithSleeps::new();
    let agent = started.site.nodes[0].agent();
    for daemon in started.job.numbers(Order::LeaveDaemons) {
        let daemon = u32::try_from(daemon).unwrap();
        wait_for("the daemon is reaped", || proc::file(daemon, "stat").is_empty().then_some(()));
    }
    started.job.end_of_input();
    started.all_end();
    wait_for("nothing is left below the agent", || proc::children(agent).is_empty().then_some(()));
}

#[test]
fn stopped_job_leaves_no_process() {
    let started = JobWithSleeps::new();
    let id = started.site.list("jobs")[0]["job_id"].as_str().unwrap().to_owned();
    let stopped = output(started.site.roadshow(&["job", "stop", &id]));
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    started.all_end();
}

#[test]
fn marked_processes_end_with_a_killed_worker_and_unmarked_ones_with_the_job() {
    let mut started = JobWithSleeps::new();
    let worker = started.worker();
    proc::kill(worker);
    // The last two have an empty environment, so they end only with the job.
    started.sleeps[..4].iter().copied().for_each(proc::ended);
    started.job.kill();
    started.all_end();
}

#[test]
fn stopped_node_leaves_no_process() {
    for force in [false, true] {
        let started = JobWithSleeps::new();
        let session = started.site.nodes[0].session.to_str().unwrap().to_owned();
        let options = ["stop", "--session-dir", &session, "--force"];
        let stopped = output(started.site.roadshow(if force { &options } else { &options[..3] }));
        assert!(stopped.status.success(), "{}", text(&stopped.stderr));
        assert_eq!(started.sleeps.iter().filter(|&&pid| runs(pid)).count(), 0, "by force: {force}");
    }
}

#[test]
fn killed_driver_leaves_no_process() {
    let mut started = JobWithSleeps::new();
    started.job.kill();
    started.all_end();
}

#[test]
fn processes_that_a_worker_can_find_end_when_its_agent_is_killed() {
    let started = JobWithSleeps::new();
    drop(proc::signal(started.site.nodes[0].agent(), Signal::KILL));
    // The last one is a daemon with an empty environment: without the agent nothing connects it to the job.
    started.sleeps[..5].iter().copied().for_each(proc::ended);
}

#[test]
fn worker_whose_system_is_stopped_ends_and_is_replaced() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    let before = job.numbers(Order::Workers)[0];
    // The worker may end before its reply is sent.
    job.reply(Order::StopSystem);
    let ended = wait_for("the cluster knows of the end", || {
        let rows = site.list("workers");
        rows.into_iter().find(|row| row["pid"] == before && row["cause"].is_string())
    });
    assert!(ended["cause"].as_str().unwrap().contains("System::current().stop()"), "{ended}");
    wait_for("another works", || job.numbers(Order::Workers).first().filter(|&&pid| pid != before).copied());
    job.numbers(Order::Tasks(3));
    job.finish();
}

#[test]
fn tasks_on_nodes_have_the_stack_of_the_driver_s_main() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let mut job = Job::join(&site);
    // The main thread of a driver has 8 MiB by default, and tasks must have as much.
    assert!(job.number(Order::UseStack(7 << 20)) >= 7 << 20);
    job.finish();
    let mut command = super::job::program(&site, "obey");
    command.env("ROADSHOW_STACK_BYTES", (32 << 20).to_string());
    let mut job = Job::join_with(command);
    assert!(job.number(Order::UseStack(24 << 20)) >= 24 << 20);
    job.finish();
}
