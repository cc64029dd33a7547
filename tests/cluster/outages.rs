//! Network outages shorter than a lease, by a router that drops packets.

use std::time::{Duration, Instant};

use super::job::{Job, Order, SpawnOptions, program_under};
use super::netns::Network;
use super::proc::wait_for;
use super::test_cluster::TestCluster;

/// Number of rounds of each outage; soak tests set more.
fn rounds() -> usize {
    std::env::var("ROADSHOW_TEST_ROUNDS").ok().map_or(1, |rounds| rounds.parse().unwrap())
}

/// Duration of an outage in seconds after which no node is unreachable: half of what is promised.
const UNNOTICED: u64 = 1;

/// Durations of outages in seconds; the longest is what `NODE_LEASE` promises.
fn outages() -> &'static [u64] {
    if rounds() > 1 { &[UNNOTICED, 2, 5, 7] } else { &[UNNOTICED, 7] }
}

fn pass(time: Duration) {
    let begun = Instant::now();
    wait_for("the outage is over", || (begun.elapsed() >= time).then_some(()));
}

#[test]
fn outage_shorter_than_a_lease_costs_a_node_and_a_driver_nothing() {
    let network = match Network::routed(3) {
        Ok(network) => network,
        Err(why) => return println!("skipped: {why}"),
    };
    let mut site = TestCluster::head_under(network.under(0), &network.address(0), &["--num-cpus=1"]);
    let far = site.join_under(&network.under(1), &network.address(1), &["--num-cpus=1"]);
    let mut job = Job::join_with(program_under(&site, &network.under(2), "obey"));
    job.spawn("far", SpawnOptions::on(&far));
    let mut sum = 0;
    let worker = job.pid_of("far");
    for &seconds in outages() {
        // First the node's machine, then the driver's.
        for (cut, round) in [1, 2].into_iter().flat_map(|cut| (0..rounds()).map(move |round| (cut, round))) {
            let which = format!("{seconds} s, machine {cut}, round {round}");
            network.drop_packets_of(cut, true);
            // A call without a timeout, sent while no packet passes.
            let waits = job.begin(Order::Add("far".to_owned(), 1));
            pass(Duration::from_secs(seconds));
            network.drop_packets_of(cut, false);
            sum += 1;
            let answer = job.end_of(waits);
            assert!(matches!(answer, super::job::Reply::Number(n) if n == sum), "{which}: {answer:?}");
            sum += 1;
            assert_eq!(job.add("far", 1), sum, "{which}: {}", job.errors());
            assert_eq!(job.pid_of("far"), worker, "{which}");
            // A lease that was not renewed would have expired by now.
            let jobs = wait_for("the head says that all is there", || {
                let nodes = site.list("nodes");
                let alive = nodes.iter().filter(|node| node["state"] == "ALIVE").count();
                (alive == 2).then(|| site.list("jobs"))
            });
            assert_eq!(jobs[0]["state"], "RUNNING", "{which}: {jobs:#?}");
            assert_eq!(site.list("nodes").len(), 2, "{which}: a node was given up");
        }
        let silent = site.list("events").iter().filter(|event| event["kind"] == "NODE_UNREACHABLE").count();
        assert!(seconds > UNNOTICED || silent == 0, "{seconds} s: {:#?}", site.list("events"));
    }
    job.finish();
    assert_eq!(site.list("jobs")[0]["state"], "SUCCEEDED");
}
