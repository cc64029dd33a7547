//! Tests of fairness between actors that wait for the same room.

use super::*;
use crate::config::{RESERVATION_MAX, RESERVE_AFTER, RESERVE_AFTER_PASSED, RESERVE_AGAIN_AFTER};

impl Harness {
    fn end(&mut self, actor: ActorKey) -> Vec<Action> {
        self.handle(actor_ended(actor, "it stopped"))
    }

    /// Replaces small actors one by one, until `max` were placed or the pending request is answered.
    ///
    /// Returns the alive ones and the number placed.
    fn churn(
        &mut self,
        job: JobId,
        mut living: Vec<ActorKey>,
        pending: Ticket,
        max: u64,
    ) -> (Vec<ActorKey>, u64) {
        let mut placed_count = 0;
        while placed_count < max {
            let first = living.remove(0);
            let mut actions = self.end(first);
            if take_reply(&mut actions, pending).is_some() {
                return (living, placed_count);
            }
            let request = self.place(job, cpus(1.0));
            match request.reply {
                Some(Ok(ControlReply::Placed { actor, .. })) => {
                    living.push(actor);
                    self.create(actor);
                    placed_count += 1;
                }
                _ => drop(self.handle(ControlEvent::Cancelled { ticket: request.ticket })),
            }
        }
        (living, placed_count)
    }

    fn fill_with_ones(&mut self, job: JobId, count: usize) -> Vec<ActorKey> {
        (0..count).map(|_| self.spawn(job, cpus(1.0)).0).collect()
    }

    fn reserved(&self) -> Vec<u64> {
        self.state.waiting.reservations().map(|(node, _)| node.0).collect()
    }

    fn seconds(&mut self, seconds: u64) -> Vec<Action> {
        let nodes: Vec<HostUid> = self.state.nodes.values().map(|node| node.descriptor.agent).collect();
        let jobs: Vec<JobId> = self.state.open_jobs.iter().copied().collect();
        self.advance(seconds, &nodes, &jobs)
    }
}

#[test]
fn large_actor_is_placed_despite_a_stream_of_small_ones() {
    let (mut harness, job) = Harness::with_nodes(1);
    let small_actors = harness.fill_with_ones(job, 4);
    let pending = harness.place(job, cpus(4.0)).expect_pending();
    let (_, placed_count) = harness.churn(job, small_actors, pending, 10_000);
    assert_eq!(placed_count, RESERVE_AFTER_PASSED);
    assert_eq!(harness.free_cpus(1), 0.0);
    assert!(harness.reserved().is_empty(), "{:?}", harness.reserved());
}

#[test]
fn large_actor_is_placed_after_a_time_even_if_few_pass_it() {
    let (mut harness, job) = Harness::with_nodes(1);
    let small_actors = harness.fill_with_ones(job, 4);
    let pending = harness.place(job, cpus(4.0)).expect_pending();
    let (small_actors, _) = harness.churn(job, small_actors, pending, 1);
    harness.seconds(RESERVE_AFTER.as_secs());
    let (_, placed_count) = harness.churn(job, small_actors, pending, 10_000);
    assert_eq!(placed_count, 0);
}

#[test]
fn reservation_withholds_only_the_requested_resources_and_is_explained() {
    let mut harness = Harness::new();
    let resources = Resources::none().with(Resources::CPU, 4.0).with("gpu", 1.0);
    harness.join(NodeDescriptor { resources, ..node_descriptor(1, 4.0, 1) });
    let job = harness.start_job();
    harness.provision_and_start(job, 1);
    let small_actors = harness.fill_with_ones(job, 3);
    harness.place(job, cpus(4.0)).expect_pending();
    harness.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(harness.reserved(), [1]);
    let reasons = harness.reasons();
    assert!(
        reasons[0].ends_with("node 0000000000000001 is reserved for the oldest of these requests"),
        "{reasons:?}"
    );
    harness.place(job, cpus(1.0)).expect_pending();
    assert!(
        harness.reasons()[1].contains("the free resources of 1 nodes are reserved"),
        "{:?}",
        harness.reasons()
    );
    // The actor needs no CPU.
    harness
        .place(job, ActorSpec { resources: Resources::none().with("gpu", 1.0), ..plain() })
        .expect_placed();
    harness.place(job, plain()).expect_placed();
    assert_eq!(harness.free_cpus(1), 1.0);
    small_actors.into_iter().for_each(|one| drop(harness.end(one)));
    assert_eq!((harness.free_cpus(1), harness.reserved()), (0.0, Vec::new()));
}

#[test]
fn expired_reservation_is_followed_by_one_of_another_node() {
    let (mut harness, job) = Harness::with_nodes(2);
    harness.spawn(job, on(1, cpus(2.0)));
    harness.spawn(job, on(2, cpus(3.0)));
    harness.place(job, cpus(4.0)).expect_pending();
    harness.seconds(RESERVE_AFTER.as_secs());
    // Node 1 lacks the fewest CPUs.
    assert_eq!(harness.reserved(), [1]);
    let small = harness.place(job, on(1, cpus(1.0))).expect_pending();
    let mut actions = harness.seconds(RESERVATION_MAX.as_secs());
    assert!(harness.reserved().is_empty(), "{:?}", harness.reserved());
    take_placed(&mut actions, small);
    harness.seconds(RESERVE_AGAIN_AFTER.as_secs());
    assert_eq!(harness.reserved(), [2]);
    harness.seconds((RESERVATION_MAX + RESERVE_AGAIN_AFTER).as_secs());
    assert_eq!(harness.reserved(), [1]);
}

#[test]
fn reservation_moves_when_its_node_becomes_infeasible() {
    let (mut harness, job) = Harness::with_nodes(2);
    harness.spawn(job, on(1, cpus(1.0)));
    harness.spawn(job, on(2, cpus(2.0)));
    let pending = harness.place(job, cpus(4.0)).expect_pending();
    harness.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(harness.reserved(), [1]);
    harness.handle(ControlEvent::NodeDrain { node: NodeId(1) });
    assert_eq!(harness.reserved(), [2]);
    harness.handle(ControlEvent::Cancelled { ticket: pending });
    assert!(harness.reserved().is_empty(), "{:?}", harness.reserved());
    harness.place(job, on(2, cpus(2.0))).expect_placed();
}

#[test]
fn queues_of_a_job_take_turns_with_its_one_reservation() {
    let (mut harness, job) = Harness::with_nodes(2);
    let other = harness.start_job();
    (1..=2).for_each(|node| drop(harness.provision_and_start(other, node)));
    let holders = [1, 2].map(|node| harness.spawn(job, on(node, cpus(1.0))).0);
    let [four, more] = [4.0, 3.5].map(|wanted| harness.place(job, cpus(wanted)).expect_pending());
    harness.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(harness.reserved().len(), 1);
    harness.place(other, cpus(3.5)).expect_pending();
    harness.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(harness.reserved(), [1, 2]);
    let mut actions = harness.end(holders[0]);
    actions.extend(harness.end(holders[1]));
    assert!(harness.reserved().is_empty(), "{:?}", harness.reserved());
    assert!([four, more].iter().any(|ticket| take_reply(&mut actions, *ticket).is_some()));
}

#[test]
fn jobs_take_turns_for_free_room() {
    let (mut harness, many) = Harness::with_nodes(1);
    let few = harness.start_job();
    harness.provision_and_start(few, 1);
    let (holds, _) = harness.spawn(many, cpus(4.0));
    let first: Vec<Ticket> = (0..10).map(|_| harness.place(many, cpus(1.0)).expect_pending()).collect();
    let late: Vec<Ticket> = (0..2).map(|_| harness.place(few, cpus(1.0)).expect_pending()).collect();
    let mut actions = harness.end(holds);
    let mut placed = |tickets: &[Ticket]| {
        tickets.iter().filter(|ticket| take_reply(&mut actions, **ticket).is_some()).count()
    };
    assert_eq!([placed(&first), placed(&late)], [2, 2]);
}
