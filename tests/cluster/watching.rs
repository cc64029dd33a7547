//! Watches of actors, nodes and jobs on a cluster of nodes.

use super::job::{Job, Order, Pending, Reply, SpawnOptions};
use super::proc;
use super::test_cluster::TestCluster;

/// Reason and text of an end that a program has waited for.
#[track_caller]
fn end(job: &mut Job, pending: Pending) -> String {
    match job.end_of(pending) {
        Reply::Text(Some(end)) => end,
        other => panic!("{other:?}"),
    }
}

#[test]
fn watchers_get_the_end_of_a_lost_node_from_its_actors_and_from_itself() {
    let site = TestCluster::pair();
    let node = site.nodes[1].clone();
    let mut job = Job::join(&site);
    job.spawn("doomed", SpawnOptions::on(&node));
    job.spawn("linked", SpawnOptions::on(&site.nodes[0]));
    job.does(Order::Link("doomed".into(), "linked".into()));
    let watches =
        [Order::Watch("doomed".into()), Order::Watch("linked".into()), Order::WatchNode(node.id.clone())]
            .map(|order| job.begin(order));
    job.add("doomed", 1);
    proc::kill(node.agent());
    let [actor, linked, lost] = watches.map(|pending| end(&mut job, pending));
    // The worker ends with its agent, and the head learns that together with the loss of the node.
    assert!(actor.starts_with("NodeLost: ") && actor.contains(&node.id), "{actor}");
    assert!(linked.starts_with("Linked: ") && linked.contains("node lost"), "{linked}");
    assert!(lost.starts_with(&format!("NodeLost: node {}", node.id)), "{lost}");
    let late = [Order::Watch("doomed".into()), Order::WatchNode(node.id)].map(|order| job.begin(order));
    assert_eq!(late.map(|pending| end(&mut job, pending)), [actor, lost]);
    job.finish();
}

#[test]
fn watchers_get_the_causes_of_kills_and_of_the_ends_of_other_jobs() {
    let site = TestCluster::head(&["--num-cpus=1"]);
    let other = Job::join(&site);
    let id = site.list("jobs")[0]["job_id"].as_str().unwrap().to_owned();
    let mut job = Job::join(&site);
    job.spawn("stopped", SpawnOptions::named("stopped"));
    job.spawn("killed", SpawnOptions::named("killed"));
    let watch = job.begin(Order::Watch("stopped".into()));
    let _ = job.add("stopped", 1);
    assert!(site.roadshow(&["kill", "stopped"]).status().unwrap().success());
    let stopped = end(&mut job, watch);
    assert!(stopped.starts_with("Killed: it was stopped by host "), "{stopped}");
    let watch = job.begin(Order::Watch("killed".into()));
    let pid = job.pid_of("killed");
    proc::kill(pid.try_into().unwrap());
    let killed = end(&mut job, watch);
    assert!(killed.starts_with("Signalled(9): ") && killed.contains(&format!("worker {pid} ")), "{killed}");
    let watch = job.begin(Order::WatchJob(id.clone()));
    other.finish();
    let over = end(&mut job, watch);
    assert!(over.starts_with(&format!("Stopped: job {id}: ")), "{over}");
    let late = job.begin(Order::WatchJob(id));
    assert_eq!(end(&mut job, late), over);
    job.finish();
}
