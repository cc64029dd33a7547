//! Placements, and the reasons for there being none.

use super::*;
use crate::cluster::model::Lifetime;

const JOB: JobId = JobId(1);

fn cpus(cpus: f64) -> ActorSpec {
    ActorSpec { resources: Resources::none().with(Resources::CPU, cpus), ..ActorSpec::default() }
}

fn labelled(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A schedule of nodes with so many processors and such labels, on each of which the job has workers.
fn nodes(nodes: &[(f64, &[(&str, &str)])]) -> Scheduler {
    let mut schedule = Scheduler::default();
    for (node, (cpus, labels)) in (1..).map(NodeId).zip(nodes) {
        schedule.add(node, &Resources::none().with(Resources::CPU, *cpus), &labelled(labels));
        schedule.set_schedulability(node, Schedulability::Schedulable);
        schedule.set_provisioned(node, JOB, true);
    }
    schedule
}

/// The nodes that a number of like actors get, one after the other.
fn places(schedule: &mut Scheduler, spec: &ActorSpec, actors: usize) -> Vec<Option<u64>> {
    let mut turn = 0;
    let shape = schedule.shape_of(spec);
    let place = |_| {
        let node = schedule.select_node((JOB, shape), &mut turn)?;
        schedule.allocate(node, shape);
        Some(node.0)
    };
    (0..actors).map(place).collect()
}

#[test]
fn nodes_take_turns_until_they_are_full() {
    let mut schedule = nodes(&[(2.0, &[]), (1.0, &[]), (2.0, &[])]);
    assert_eq!(places(&mut schedule, &cpus(1.0), 6), [Some(1), Some(2), Some(3), Some(1), Some(3), None]);
}

#[test]
fn packing_fills_one_node_before_the_next() {
    let mut schedule = nodes(&[(2.0, &[]), (1.0, &[]), (2.0, &[])]);
    let spec = ActorSpec { strategy: Strategy::Pack, ..cpus(1.0) };
    assert_eq!(places(&mut schedule, &spec, 4), [Some(1), Some(1), Some(2), Some(3)]);
}

#[test]
fn what_is_given_back_can_be_held_again() {
    let mut schedule = nodes(&[(1.0, &[])]);
    let shape = schedule.shape_of(&cpus(0.75));
    assert_eq!(places(&mut schedule, &cpus(0.75), 2), [Some(1), None]);
    assert_eq!(schedule.available(NodeId(1)), Resources::none().with(Resources::CPU, 0.25));
    schedule.release(NodeId(1), shape);
    assert_eq!(places(&mut schedule, &cpus(0.75), 1), [Some(1)]);
}

#[test]
fn only_nodes_with_the_labels_and_the_job_s_workers_are_picked() {
    let mut schedule = nodes(&[(1.0, &[("zone", "a")]), (1.0, &[("zone", "b")]), (1.0, &[("zone", "b")])]);
    schedule.set_provisioned(NodeId(2), JOB, false);
    let spec = ActorSpec { labels: labelled(&[("zone", "b")]), ..ActorSpec::default() };
    assert_eq!(places(&mut schedule, &spec, 2), [Some(3), Some(3)]);
    schedule.set_schedulability(NodeId(3), Schedulability::Unschedulable);
    assert_eq!(places(&mut schedule, &spec, 1), [None]);
    schedule.set_provisioned(NodeId(2), JOB, true);
    assert_eq!(places(&mut schedule, &spec, 1), [Some(2)]);
}

#[test]
fn a_node_that_has_left_is_neither_picked_nor_counted() {
    let mut schedule = nodes(&[(4.0, &[]), (1.0, &[])]);
    let shape = schedule.shape_of(&cpus(2.0));
    assert!(schedule.is_feasible(shape));
    schedule.remove(NodeId(1));
    assert!(!schedule.is_feasible(shape));
    assert_eq!(places(&mut schedule, &cpus(1.0), 2), [Some(2), None]);
}

#[test]
fn a_node_that_is_to_come_back_is_counted_and_not_picked() {
    let mut schedule = nodes(&[(4.0, &[])]);
    schedule.set_schedulability(NodeId(1), Schedulability::Rejoining);
    let shape = schedule.shape_of(&cpus(2.0));
    assert!(schedule.is_feasible(shape));
    assert_eq!(places(&mut schedule, &cpus(2.0), 1), [None]);
    assert_eq!(schedule.explain_pending((JOB, shape)), "no node is back yet since the head was started anew");
}

#[test]
fn a_node_that_has_less_than_is_held_has_nothing_free() {
    let mut schedule = nodes(&[(4.0, &[])]);
    let shape = schedule.shape_of(&cpus(3.0));
    schedule.allocate(NodeId(1), shape);
    schedule.change(NodeId(1), &Resources::none().with(Resources::CPU, 2.0), &labelled(&[("new", "yes")]));
    assert_eq!(schedule.available(NodeId(1)), Resources::none().with(Resources::CPU, 0.0));
    let spec = ActorSpec { labels: labelled(&[("new", "yes")]), ..ActorSpec::default() };
    assert_eq!(places(&mut schedule, &spec, 1), [Some(1)]);
    schedule.release(NodeId(1), shape);
    assert_eq!(schedule.available(NodeId(1)), Resources::none().with(Resources::CPU, 2.0));
}

#[test]
fn shapes_live_as_long_as_their_actors_and_can_be_told_again() {
    let mut schedule = nodes(&[(1.0, &[("zone", "a")])]);
    let spec = ActorSpec {
        labels: labelled(&[("zone", "a")]),
        node: Some(NodeId(7)),
        strategy: Strategy::Pack,
        lifetime: Lifetime::Job,
        ..cpus(0.5)
    };
    let [one, other] = [schedule.shape_of(&spec), schedule.shape_of(&spec)];
    assert_eq!(one, other);
    let mut told = ActorSpec::default();
    schedule.describe(one, &mut told);
    assert_eq!(told, spec);
    schedule.drop_shape(one);
    assert_eq!(schedule.shapes(), 1);
    schedule.drop_shape(other);
    assert_eq!(schedule.shapes(), 0);
}

#[track_caller]
fn never(schedule: &Scheduler, spec: &ActorSpec, why: &str) {
    assert_eq!(schedule.explain_infeasible(spec), why);
}

#[test]
fn reasons_say_what_is_asked_what_is_missing_and_what_is_there() {
    let schedule = nodes(&[(2.0, &[("zone", "a")]), (4.0, &[("zone", "b")])]);
    never(
        &schedule,
        &cpus(8.0),
        "no node could ever take it: it wants cpu 8, and the most that one node has is cpu 4; \
         single nodes have up to cpu 4",
    );
    let gpu = ActorSpec { resources: Resources::none().with("gpu", 1.0), ..ActorSpec::default() };
    never(
        &schedule,
        &gpu,
        "no node could ever take it: it wants gpu 1, and no node has any gpu; single nodes have up to cpu 4",
    );
    let zone = |zone| ActorSpec { labels: labelled(&[("zone", zone)]), ..cpus(3.0) };
    never(
        &schedule,
        &zone("c"),
        "no node could ever take it: it wants cpu 3 on a node labelled zone=c, and no node is labelled zone=c; \
         single nodes have up to cpu 4",
    );
    never(
        &schedule,
        &zone("a"),
        "no node could ever take it: it wants cpu 3 on a node labelled zone=a, and \
         no single node has all of that; single nodes have up to cpu 4",
    );
    never(
        &schedule,
        &ActorSpec { node: Some(NodeId(1)), ..zone("b") },
        "node 0000000000000001 could never take it: it wants cpu 3 on a node labelled zone=b, and \
         the most that it has is cpu 2, it is not labelled zone=b; the node has cpu 2",
    );
    never(
        &Scheduler::default(),
        &cpus(1.0),
        "no node of the cluster takes work: start a node with at least one worker",
    );
}

#[test]
fn who_waits_learns_what_is_not_free() {
    let mut schedule = nodes(&[(2.0, &[])]);
    let shape = schedule.shape_of(&cpus(2.0));
    let one = schedule.shape_of(&cpus(1.0));
    assert_eq!(schedule.explain_pending((JobId(2), shape)), "no node runs workers of the job yet");
    schedule.allocate(NodeId(1), one);
    assert_eq!(
        schedule.explain_pending((JOB, shape)),
        "it wants cpu 2, and the most that one node has free is cpu 1"
    );
}
