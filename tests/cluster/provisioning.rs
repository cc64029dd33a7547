//! Distribution of a program: two copies from its driver, and the rest from node to node.
//!
//! ```text
//! driver --sent--> node --fetched--> node
//!        --sent--> node --fetched--> node      `had`: nodes with a copy from an earlier job
//! ```

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::job::{Job, Order, SpawnOptions, program};
use super::netns::Network;
use super::proc::{self, wait_for};
use super::submit::submit;
use super::test_cluster::{Node, TestCluster, output, skipped, text};

/// Counts of nodes by the source of their copy, from the last log line of the driver.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    had: u64,
    sent: u64,
    fetched: u64,
    sent_bytes: u64,
}

/// Command of a program that logs the distribution.
fn logging(site: &TestCluster) -> Command {
    let mut command = program(site, "obey");
    command.env("ROADSHOW_LOG", "roadshow=info");
    command
}

fn job(site: &TestCluster) -> Job {
    Job::join_with(logging(site))
}

/// Counts in the last such line of a log.
fn logged(errors: &str) -> Option<Tally> {
    let line = errors.lines().rfind(|line| line.contains("the executable is on the nodes"))?;
    let field = |name: &str| {
        let (_, value) = line.split_once(&format!(" {name}="))?;
        value.split(' ').next()?.trim().parse().ok()
    };
    let [had, sent, fetched, sent_bytes] = ["had", "sent", "fetched", "sent_bytes"].map(field);
    Some(Tally { had: had?, sent: sent?, fetched: fetched?, sent_bytes: sent_bytes? })
}

/// Counts once this number of nodes has the program.
#[track_caller]
fn tally(job: &Job, nodes: u64) -> Tally {
    wait_for("the program is on all nodes", || {
        logged(&job.errors()).filter(|tally| tally.had + tally.sent + tally.fetched == nodes)
    })
}

/// Size of the program, which is this executable, in bytes.
fn size() -> u64 {
    fs::metadata(std::env::current_exe().unwrap()).unwrap().len()
}

/// Path of the only program stored on a node.
fn stored(node: &Node) -> PathBuf {
    let files = fs::read_dir(node.session.join("executables")).unwrap().map(|file| file.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_none()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[track_caller]
fn is_complete(node: &Node) {
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(fs::read(stored(node)).unwrap() == own, "another program is on node {}", node.id);
}

/// Head's node without CPUs, and another node.
fn with_one_worker_node() -> TestCluster {
    let mut site = TestCluster::head(&["--num-cpus=0"]);
    site.join(&["--num-cpus=1"]);
    site
}

#[test]
fn nodes_fetch_a_program_from_each_other_and_its_driver_sends_two_copies() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    for _ in 0..3 {
        site.join(&["--num-cpus=1"]);
    }
    let mut first = job(&site);
    assert_eq!(tally(&first, 4), Tally { sent: 2, fetched: 2, sent_bytes: 2 * size(), had: 0 });
    assert_eq!(first.numbers(Order::Workers).len(), 4);
    // A later node gets its copy from another node as well.
    let later = site.join(&["--num-cpus=1"]);
    assert_eq!(tally(&first, 5), Tally { sent: 2, fetched: 3, sent_bytes: 2 * size(), had: 0 });
    first.spawn("there", SpawnOptions::on(&later));
    assert_eq!(first.add("there", 1), 1);
    first.finish();
    site.nodes.iter().for_each(is_complete);
    // A second job with the same program sends no copy.
    site.join(&["--num-cpus=1"]);
    let second = job(&site);
    assert_eq!(tally(&second, 6), Tally { had: 5, fetched: 1, sent: 0, sent_bytes: 0 });
    second.finish();
}

#[test]
fn driver_of_a_submitted_program_sends_no_copy() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    for _ in 0..3 {
        site.join(&["--num-cpus=1"]);
    }
    // The submission has stored a copy on the head's node, whichever node is asked first.
    let submitted = output(submit(&site, "count 0", &["--env", "ROADSHOW_LOG=roadshow=info"]));
    let errors = text(&submitted.stderr);
    assert!(submitted.status.success(), "{errors}");
    assert_eq!(logged(&errors), Some(Tally { had: 1, fetched: 3, ..Tally::default() }), "{errors}");
}

#[test]
fn nodes_fetch_a_program_from_other_machines_over_tls() {
    let network = match Network::new(3) {
        Ok(network) => network,
        Err(why) => return skipped(why),
    };
    let mut site = TestCluster::head_under(network.under(0), &network.address(0), &["--num-cpus=1"]);
    for at in 1..3 {
        site.join_under(&network.under(at), &network.address(at), &["--num-cpus=1"]);
    }
    let job = job(&site);
    assert_eq!(tally(&job, 3), Tally { sent: 2, fetched: 1, sent_bytes: 2 * size(), had: 0 });
    job.finish();
    site.nodes.iter().for_each(is_complete);
}

#[test]
fn damaged_copy_of_a_program_is_not_accepted_from_a_node() {
    let mut site = with_one_worker_node();
    job(&site).finish();
    // The last byte is in the section table, which the loader does not read: the damaged copy still runs.
    let (damaged, mut bytes) = (stored(&site.nodes[1]), fs::read(stored(&site.nodes[1])).unwrap());
    *bytes.last_mut().unwrap() ^= 1;
    let other = site.home().join("damaged");
    fs::write(&other, &bytes).unwrap();
    fs::set_permissions(&other, fs::metadata(&damaged).unwrap().permissions()).unwrap();
    // Renamed into place: writing to an executable that still runs fails with ETXTBSY.
    fs::rename(&other, &damaged).unwrap();

    let mut job = job(&site);
    let node = site.join(&["--num-cpus=1"]);
    let Tally { had, sent, fetched, .. } = tally(&job, 2);
    assert_eq!((had, sent, fetched), (1, 1, 0), "{}", job.errors());
    assert!(job.errors().contains("does not have the digest"), "{}", job.errors());
    is_complete(&node);
    job.spawn("there", SpawnOptions::on(&node));
    assert_eq!(job.add("there", 1), 1);
    job.finish();
}

/// Checks that a new node gets the program although `end` has stopped the only node that has it.
fn gets_the_program_although(end: impl Fn(u32), go_on: impl Fn(u32)) {
    let mut site = with_one_worker_node();
    let mut job = job(&site);
    assert_eq!(tally(&job, 1).sent, 1);
    let agent = site.nodes[1].agent();
    end(agent);
    let node = site.join(&["--num-cpus=1"]);
    let Tally { sent, fetched, .. } = tally(&job, 2);
    assert_eq!((sent, fetched), (2, 0), "{}", job.errors());
    assert!(job.errors().contains("the executable was not fetched from a node"), "{}", job.errors());
    go_on(agent);
    is_complete(&node);
    job.spawn("there", SpawnOptions::on(&node));
    assert_eq!(job.add("there", 1), 1);
    job.finish();
}

#[test]
fn silent_node_delays_the_next_one_by_a_few_seconds() {
    gets_the_program_although(
        |agent| drop(proc::signal(agent, Signal::STOP)),
        |agent| drop(proc::signal(agent, Signal::CONT)),
    );
}

#[test]
fn killed_node_delays_the_next_one_by_a_few_seconds() {
    gets_the_program_although(proc::kill, |_| {});
}

/// Reports if a node has a partial copy of a program.
fn has_part(node: &Node) -> bool {
    let files = fs::read_dir(node.session.join("executables")).unwrap().map(|file| file.unwrap().path());
    files.into_iter().any(|path| path.extension().is_some_and(|extension| extension == "part"))
}

#[test]
fn two_slow_nodes_do_not_delay_the_program_on_the_next() {
    let network = match Network::new(4) {
        Ok(network) => network,
        Err(why) => return skipped(why),
    };
    let mut site = TestCluster::head_under(network.under(0), &network.address(0), &["--num-cpus=0"]);
    let slow = [1, 2].map(|at| site.join_under(&network.under(at), &network.address(at), &["--num-cpus=1"]));
    for at in [1, 2] {
        if let Err(why) = network.slow_down(at) {
            return skipped(why);
        }
    }
    // The slow nodes need minutes. `launch` does not wait: the program joins once one node has it.
    let job = Job::launch(logging(&site));
    wait_for("both slow nodes receive the program", || slow.iter().all(has_part).then_some(()));
    let fast = site.join_under(&network.under(3), &network.address(3), &["--num-cpus=1"]);
    let tally = wait_for("the next one has it", || logged(&job.errors()));
    assert_eq!((tally.had, tally.sent, tally.fetched), (0, 1, 0), "{}", job.errors());
    is_complete(&fast);
    assert!(slow.iter().all(has_part));
}
