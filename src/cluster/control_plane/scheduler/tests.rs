//! Tests of placements and of the explanations.

use super::*;
use crate::cluster::model::Lifetime;

const JOB: JobId = JobId(1);

fn cpus(cpus: f64) -> ActorSpec {
    ActorSpec { resources: Resources::none().with(Resources::CPU, cpus), ..ActorSpec::default() }
}

fn labelled(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Scheduler with nodes of the given CPUs and labels; the job is provisioned on all of them.
fn nodes(nodes: &[(f64, &[(&str, &str)])]) -> Scheduler {
    let mut scheduler = Scheduler::default();
    for (node, (cpus, labels)) in (1..).map(NodeId).zip(nodes) {
        scheduler.add(node, &Resources::none().with(Resources::CPU, *cpus), &labelled(labels));
        scheduler.set_schedulability(node, Schedulability::Schedulable);
        scheduler.set_provisioned(node, JOB, true);
    }
    scheduler
}

/// Nodes that consecutive actors with the same spec are placed on.
fn placements(scheduler: &mut Scheduler, spec: &ActorSpec, actors: usize) -> Vec<Option<u64>> {
    let mut cursor = 0;
    let shape = scheduler.shape_of(spec);
    let place = |_| {
        let node = scheduler.select_node((JOB, shape), &mut cursor)?;
        scheduler.allocate(node, shape);
        Some(node.0)
    };
    (0..actors).map(place).collect()
}

#[test]
fn spreading_alternates_between_nodes_until_they_are_full() {
    let mut scheduler = nodes(&[(2.0, &[]), (1.0, &[]), (2.0, &[])]);
    assert_eq!(
        placements(&mut scheduler, &cpus(1.0), 6),
        [Some(1), Some(2), Some(3), Some(1), Some(3), None]
    );
}

#[test]
fn packing_fills_one_node_before_the_next() {
    let mut scheduler = nodes(&[(2.0, &[]), (1.0, &[]), (2.0, &[])]);
    let spec = ActorSpec { strategy: Strategy::Pack, ..cpus(1.0) };
    assert_eq!(placements(&mut scheduler, &spec, 4), [Some(1), Some(1), Some(2), Some(3)]);
}

#[test]
fn released_resources_can_be_allocated_again() {
    let mut scheduler = nodes(&[(1.0, &[])]);
    let shape = scheduler.shape_of(&cpus(0.75));
    assert_eq!(placements(&mut scheduler, &cpus(0.75), 2), [Some(1), None]);
    assert_eq!(scheduler.available(NodeId(1)), Resources::none().with(Resources::CPU, 0.25));
    scheduler.release(NodeId(1), shape);
    assert_eq!(placements(&mut scheduler, &cpus(0.75), 1), [Some(1)]);
}

#[test]
fn only_nodes_with_the_labels_and_workers_of_the_job_are_selected() {
    let mut scheduler = nodes(&[(1.0, &[("zone", "a")]), (1.0, &[("zone", "b")]), (1.0, &[("zone", "b")])]);
    scheduler.set_provisioned(NodeId(2), JOB, false);
    let spec = ActorSpec { labels: labelled(&[("zone", "b")]), ..ActorSpec::default() };
    assert_eq!(placements(&mut scheduler, &spec, 2), [Some(3), Some(3)]);
    scheduler.set_schedulability(NodeId(3), Schedulability::Unschedulable);
    assert_eq!(placements(&mut scheduler, &spec, 1), [None]);
    scheduler.set_provisioned(NodeId(2), JOB, true);
    assert_eq!(placements(&mut scheduler, &spec, 1), [Some(2)]);
}

#[test]
fn removed_node_is_neither_selected_nor_feasible() {
    let mut scheduler = nodes(&[(4.0, &[]), (1.0, &[])]);
    let shape = scheduler.shape_of(&cpus(2.0));
    assert!(scheduler.is_feasible(shape));
    scheduler.remove(NodeId(1));
    assert!(!scheduler.is_feasible(shape));
    assert_eq!(placements(&mut scheduler, &cpus(1.0), 2), [Some(2), None]);
}

#[test]
fn rejoining_node_is_feasible_but_not_selected() {
    let mut scheduler = nodes(&[(4.0, &[])]);
    scheduler.set_schedulability(NodeId(1), Schedulability::Rejoining);
    let shape = scheduler.shape_of(&cpus(2.0));
    assert!(scheduler.is_feasible(shape));
    assert_eq!(placements(&mut scheduler, &cpus(2.0), 1), [None]);
    assert_eq!(scheduler.explain_pending((JOB, shape)), "no node has rejoined since the head restarted");
}

#[test]
fn node_with_less_capacity_than_allocations_has_nothing_free() {
    let mut scheduler = nodes(&[(4.0, &[])]);
    let shape = scheduler.shape_of(&cpus(3.0));
    scheduler.allocate(NodeId(1), shape);
    scheduler.change(NodeId(1), &Resources::none().with(Resources::CPU, 2.0), &labelled(&[("new", "yes")]));
    assert_eq!(scheduler.available(NodeId(1)), Resources::none().with(Resources::CPU, 0.0));
    let spec = ActorSpec { labels: labelled(&[("new", "yes")]), ..ActorSpec::default() };
    assert_eq!(placements(&mut scheduler, &spec, 1), [Some(1)]);
    scheduler.release(NodeId(1), shape);
    assert_eq!(scheduler.available(NodeId(1)), Resources::none().with(Resources::CPU, 2.0));
}

#[test]
fn shapes_are_reference_counted_and_can_be_described() {
    let mut scheduler = nodes(&[(1.0, &[("zone", "a")])]);
    let spec = ActorSpec {
        labels: labelled(&[("zone", "a")]),
        node: Some(NodeId(7)),
        strategy: Strategy::Pack,
        lifetime: Lifetime::Job,
        ..cpus(0.5)
    };
    let [one, other] = [scheduler.shape_of(&spec), scheduler.shape_of(&spec)];
    assert_eq!(one, other);
    let mut described = ActorSpec::default();
    scheduler.describe(one, &mut described);
    assert_eq!(described, spec);
    scheduler.drop_shape(one);
    assert_eq!(scheduler.shapes(), 1);
    scheduler.drop_shape(other);
    assert_eq!(scheduler.shapes(), 0);
}

#[track_caller]
fn expect_infeasible(scheduler: &Scheduler, spec: &ActorSpec, why: &str) {
    assert_eq!(scheduler.explain_infeasible(spec), why);
}

#[test]
fn infeasibility_names_the_request_the_gap_and_the_maximum() {
    let scheduler = nodes(&[(2.0, &[("zone", "a")]), (4.0, &[("zone", "b")])]);
    expect_infeasible(
        &scheduler,
        &cpus(8.0),
        "no node could ever take it: it wants cpu 8, and the most that one node has is cpu 4; \
         single nodes have up to cpu 4",
    );
    let gpu = ActorSpec { resources: Resources::none().with("gpu", 1.0), ..ActorSpec::default() };
    expect_infeasible(
        &scheduler,
        &gpu,
        "no node could ever take it: it wants gpu 1, and no node has any gpu; single nodes have up to cpu 4",
    );
    let zone = |zone| ActorSpec { labels: labelled(&[("zone", zone)]), ..cpus(3.0) };
    expect_infeasible(
        &scheduler,
        &zone("c"),
        "no node could ever take it: it wants cpu 3 on a node labelled zone=c, and no node is labelled zone=c; \
         single nodes have up to cpu 4",
    );
    expect_infeasible(
        &scheduler,
        &zone("a"),
        "no node could ever take it: it wants cpu 3 on a node labelled zone=a, and \
         no single node has all of that; single nodes have up to cpu 4",
    );
    expect_infeasible(
        &scheduler,
        &ActorSpec { node: Some(NodeId(1)), ..zone("b") },
        "node 0000000000000001 could never take it: it wants cpu 3 on a node labelled zone=b, and \
         the most that it has is cpu 2, it is not labelled zone=b; the node has cpu 2",
    );
    expect_infeasible(
        &Scheduler::default(),
        &cpus(1.0),
        "no node of the cluster takes work: start a node with at least one worker",
    );
}

#[test]
fn pending_reason_names_what_is_not_free() {
    let mut scheduler = nodes(&[(2.0, &[])]);
    let shape = scheduler.shape_of(&cpus(2.0));
    let one = scheduler.shape_of(&cpus(1.0));
    assert_eq!(scheduler.explain_pending((JobId(2), shape)), "no node runs workers of the job yet");
    scheduler.allocate(NodeId(1), one);
    assert_eq!(
        scheduler.explain_pending((JOB, shape)),
        "it wants cpu 2, and the most that one node has free is cpu 1"
    );
}
