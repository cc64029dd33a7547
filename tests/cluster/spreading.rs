//! How a program gets to the nodes: a few copies from its driver, and the others from node to node.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::job::{Job, Order, Wish, program};
use super::netns::Network;
use super::proc::{self, wait_for};
use super::site::{Node, TestCluster, output, skipped, text};
use super::submit::submit;

/// How the nodes got the program, as its driver has logged last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    had: u64,
    sent: u64,
    fetched: u64,
    sent_bytes: u64,
}

/// A program that logs how the nodes get it.
fn logging(site: &TestCluster) -> Command {
    let mut command = program(site, "obey");
    command.env("ROADSHOW_LOG", "roadshow=info");
    command
}

fn job(site: &TestCluster) -> Job {
    Job::join_with(logging(site))
}

/// What a program has logged last.
fn logged(errors: &str) -> Option<Tally> {
    let line = errors.lines().rfind(|line| line.contains("the executable is on the nodes"))?;
    let field = |name: &str| {
        let (_, value) = line.split_once(&format!(" {name}="))?;
        value.split(' ').next()?.trim().parse().ok()
    };
    let [had, sent, fetched, sent_bytes] = ["had", "sent", "fetched", "sent_bytes"].map(field);
    Some(Tally { had: had?, sent: sent?, fetched: fetched?, sent_bytes: sent_bytes? })
}

/// What a program has logged once as many nodes have it.
#[track_caller]
fn tally(job: &Job, nodes: u64) -> Tally {
    wait_for("the program is on all nodes", || {
        logged(&job.errors()).filter(|tally| tally.had + tally.sent + tally.fetched == nodes)
    })
}

/// The size of the program, which is this executable.
fn size() -> u64 {
    fs::metadata(std::env::current_exe().unwrap()).unwrap().len()
}

/// The only program that a node has.
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

/// A head's node that takes no work, and another node.
fn with_one_worker_node() -> TestCluster {
    let mut site = TestCluster::head(&["--num-cpus=0"]);
    site.join(&["--num-cpus=1"]);
    site
}

#[test]
fn nodes_fetch_a_program_from_nodes_and_its_driver_sends_two_copies() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    for _ in 0..3 {
        site.join(&["--num-cpus=1"]);
    }
    let mut first = job(&site);
    assert_eq!(tally(&first, 4), Tally { sent: 2, fetched: 2, sent_bytes: 2 * size(), had: 0 });
    assert_eq!(first.numbers(Order::Workers).len(), 4);
    // A node that joins while the job runs.
    let later = site.join(&["--num-cpus=1"]);
    assert_eq!(tally(&first, 5), Tally { sent: 2, fetched: 3, sent_bytes: 2 * size(), had: 0 });
    first.spawn("there", Wish::on(&later));
    assert_eq!(first.add("there", 1), 1);
    first.finish();
    site.nodes.iter().for_each(is_complete);
    // Another job of the program is sent nowhere.
    site.join(&["--num-cpus=1"]);
    let second = job(&site);
    assert_eq!(tally(&second, 6), Tally { had: 5, fetched: 1, sent: 0, sent_bytes: 0 });
    second.finish();
}

#[test]
fn the_driver_of_a_submitted_program_sends_no_copy() {
    let mut site = TestCluster::head(&["--num-cpus=1"]);
    for _ in 0..3 {
        site.join(&["--num-cpus=1"]);
    }
    // The head's node has it, whichever node answers first.
    let submitted = output(submit(&site, "count 0", &["--env", "ROADSHOW_LOG=roadshow=info"]));
    let errors = text(&submitted.stderr);
    assert!(submitted.status.success(), "{errors}");
    assert_eq!(logged(&errors), Some(Tally { had: 1, fetched: 3, ..Tally::default() }), "{errors}");
}

#[test]
fn nodes_fetch_a_program_from_other_machines_under_tls() {
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
fn a_damaged_program_is_not_taken_from_a_node() {
    let mut site = with_one_worker_node();
    job(&site).finish();
    // In the table of sections, which nothing reads that runs it.
    let (damaged, mut bytes) = (stored(&site.nodes[1]), fs::read(stored(&site.nodes[1])).unwrap());
    *bytes.last_mut().unwrap() ^= 1;
    let other = site.home().join("damaged");
    fs::write(&other, &bytes).unwrap();
    fs::set_permissions(&other, fs::metadata(&damaged).unwrap().permissions()).unwrap();
    fs::rename(&other, &damaged).unwrap();

    let mut job = job(&site);
    let node = site.join(&["--num-cpus=1"]);
    let Tally { had, sent, fetched, .. } = tally(&job, 2);
    assert_eq!((had, sent, fetched), (1, 1, 0), "{}", job.errors());
    assert!(job.errors().contains("does not have the digest"), "{}", job.errors());
    is_complete(&node);
    job.spawn("there", Wish::on(&node));
    assert_eq!(job.add("there", 1), 1);
    job.finish();
}

/// A node joins while the one node that has the program is as `end` leaves it: it gets the program nevertheless.
fn gets_it_although(end: impl Fn(u32), go_on: impl Fn(u32)) {
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
    job.spawn("there", Wish::on(&node));
    assert_eq!(job.add("there", 1), 1);
    job.finish();
}

#[test]
fn a_node_that_is_silent_costs_the_next_one_a_few_seconds() {
    gets_it_although(
        |agent| drop(proc::signal(agent, Signal::STOP)),
        |agent| drop(proc::signal(agent, Signal::CONT)),
    );
}

#[test]
fn a_node_that_was_killed_costs_the_next_one_a_few_seconds() {
    gets_it_although(proc::kill, |_| {});
}

/// Whether a part of a program is on a node.
fn has_part(node: &Node) -> bool {
    let files = fs::read_dir(node.session.join("executables")).unwrap().map(|file| file.unwrap().path());
    files.into_iter().any(|path| path.extension().is_some_and(|extension| extension == "part"))
}

#[test]
fn two_slow_nodes_do_not_keep_the_program_from_the_next() {
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
    // They need minutes, and the program has not joined before.
    let job = Job::launch(logging(&site));
    wait_for("both are sent the program", || slow.iter().all(has_part).then_some(()));
    let fast = site.join_under(&network.under(3), &network.address(3), &["--num-cpus=1"]);
    let tally = wait_for("the next one has it", || logged(&job.errors()));
    assert_eq!((tally.had, tally.sent, tally.fetched), (0, 1, 0), "{}", job.errors());
    is_complete(&fast);
    assert!(slow.iter().all(has_part));
}
