//! Who gets room that others wait for, too.

use super::*;
use crate::config::{RESERVATION_MAX, RESERVE_AFTER, RESERVE_AFTER_PASSED, RESERVE_AGAIN_AFTER};

impl Lab {
    fn end(&mut self, actor: ActorKey) -> Vec<Action> {
        self.handle(Event::ActorEnded { actor, cause: "it stopped".to_owned() })
    }

    /// Small actors come and go, each for the next, until they are many or what waits has its answer. Those
    /// that live then, and how many came.
    fn churn(
        &mut self,
        job: JobId,
        mut living: Vec<ActorKey>,
        waits: Ticket,
        max: u64,
    ) -> (Vec<ActorKey>, u64) {
        let mut came = 0;
        while came < max {
            let first = living.remove(0);
            let mut actions = self.end(first);
            if take_answer(&mut actions, waits).is_some() {
                return (living, came);
            }
            let asking = self.place(job, cpus(1.0));
            match asking.answer {
                Some(Ok(Answer::Placed { actor, .. })) => {
                    living.push(actor);
                    self.begin(actor);
                    came += 1;
                }
                _ => drop(self.handle(Event::Cancelled { ticket: asking.ticket })),
            }
        }
        (living, came)
    }

    fn fill_with_ones(&mut self, job: JobId, count: usize) -> Vec<ActorKey> {
        (0..count).map(|_| self.spawn(job, cpus(1.0)).0).collect()
    }

    fn reserved(&self) -> Vec<u64> {
        self.state.waiting.reservations().map(|(node, _)| node.0).collect()
    }

    fn seconds(&mut self, seconds: u64) -> Vec<Action> {
        let nodes: Vec<HostUid> = self.state.nodes.values().map(|node| node.facts.agent).collect();
        let jobs: Vec<JobId> = self.state.open_jobs.iter().copied().collect();
        self.pass(seconds, &nodes, &jobs)
    }
}

#[test]
fn an_actor_that_wants_much_is_placed_though_small_ones_keep_coming() {
    let (mut lab, job) = Lab::with_nodes(1);
    let ones = lab.fill_with_ones(job, 4);
    let waits = lab.place(job, cpus(4.0)).waits();
    let (_, came) = lab.churn(job, ones, waits, 10_000);
    assert_eq!(came, RESERVE_AFTER_PASSED);
    assert_eq!(lab.free_cpus(1), 0.0);
    assert!(lab.reserved().is_empty(), "{:?}", lab.reserved());
}

#[test]
fn it_is_placed_as_well_when_few_pass_it_but_for_long() {
    let (mut lab, job) = Lab::with_nodes(1);
    let ones = lab.fill_with_ones(job, 4);
    let waits = lab.place(job, cpus(4.0)).waits();
    let (ones, _) = lab.churn(job, ones, waits, 1);
    lab.seconds(RESERVE_AFTER.as_secs());
    let (_, came) = lab.churn(job, ones, waits, 10_000);
    assert_eq!(came, 0);
}

#[test]
fn a_node_is_reserved_for_what_the_actor_wants_alone_and_status_says_so() {
    let mut lab = Lab::new();
    let resources = Resources::none().with(Resources::CPU, 4.0).with("gpu", 1.0);
    lab.join(NodeDescriptor { resources, ..node_facts(1, 4.0, 1) });
    let job = lab.start_job();
    lab.equip_and_start(job, 1);
    let ones = lab.fill_with_ones(job, 3);
    lab.place(job, cpus(4.0)).waits();
    lab.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(lab.reserved(), [1]);
    let reasons = lab.reasons();
    assert!(
        reasons[0].ends_with("node 0000000000000001 is reserved for the oldest of these requests"),
        "{reasons:?}"
    );
    lab.place(job, cpus(1.0)).waits();
    assert!(lab.reasons()[1].contains("the free resources of 1 nodes are reserved"), "{:?}", lab.reasons());
    // It takes no processor.
    lab.place(job, ActorSpec { resources: Resources::none().with("gpu", 1.0), ..plain() }).placed();
    lab.place(job, plain()).placed();
    assert_eq!(lab.free_cpus(1), 1.0);
    ones.into_iter().for_each(|one| drop(lab.end(one)));
    assert_eq!((lab.free_cpus(1), lab.reserved()), (0.0, Vec::new()));
}

#[test]
fn a_reservation_in_vain_ends_and_the_next_is_of_another_node() {
    let (mut lab, job) = Lab::with_nodes(2);
    lab.spawn(job, on(1, cpus(2.0)));
    lab.spawn(job, on(2, cpus(3.0)));
    lab.place(job, cpus(4.0)).waits();
    lab.seconds(RESERVE_AFTER.as_secs());
    // It lacks least.
    assert_eq!(lab.reserved(), [1]);
    let small = lab.place(job, on(1, cpus(1.0))).waits();
    let mut actions = lab.seconds(RESERVATION_MAX.as_secs());
    assert!(lab.reserved().is_empty(), "{:?}", lab.reserved());
    take_placed(&mut actions, small);
    lab.seconds(RESERVE_AGAIN_AFTER.as_secs());
    assert_eq!(lab.reserved(), [2]);
    lab.seconds((RESERVATION_MAX + RESERVE_AGAIN_AFTER).as_secs());
    assert_eq!(lab.reserved(), [1]);
}

#[test]
fn a_reservation_moves_on_when_its_node_cannot_take_the_actor_any_more() {
    let (mut lab, job) = Lab::with_nodes(2);
    lab.spawn(job, on(1, cpus(1.0)));
    lab.spawn(job, on(2, cpus(2.0)));
    let waits = lab.place(job, cpus(4.0)).waits();
    lab.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(lab.reserved(), [1]);
    lab.handle(Event::NodeDrain { node: NodeId(1) });
    assert_eq!(lab.reserved(), [2]);
    lab.handle(Event::Cancelled { ticket: waits });
    assert!(lab.reserved().is_empty(), "{:?}", lab.reserved());
    lab.place(job, on(2, cpus(2.0))).placed();
}

#[test]
fn a_job_has_one_reservation_and_its_queues_have_it_in_turn() {
    let (mut lab, job) = Lab::with_nodes(2);
    let other = lab.start_job();
    (1..=2).for_each(|node| drop(lab.equip_and_start(other, node)));
    let held = [1, 2].map(|node| lab.spawn(job, on(node, cpus(1.0))).0);
    let [four, more] = [4.0, 3.5].map(|wanted| lab.place(job, cpus(wanted)).waits());
    lab.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(lab.reserved().len(), 1);
    lab.place(other, cpus(3.5)).waits();
    lab.seconds(RESERVE_AFTER.as_secs());
    assert_eq!(lab.reserved(), [1, 2]);
    let mut actions = lab.end(held[0]);
    actions.extend(lab.end(held[1]));
    assert!(lab.reserved().is_empty(), "{:?}", lab.reserved());
    assert!([four, more].iter().any(|ticket| take_answer(&mut actions, *ticket).is_some()));
}

#[test]
fn jobs_take_turns_for_room() {
    let (mut lab, many) = Lab::with_nodes(1);
    let few = lab.start_job();
    lab.equip_and_start(few, 1);
    let (holds, _) = lab.spawn(many, cpus(4.0));
    let first: Vec<Ticket> = (0..10).map(|_| lab.place(many, cpus(1.0)).waits()).collect();
    let late: Vec<Ticket> = (0..2).map(|_| lab.place(few, cpus(1.0)).waits()).collect();
    let mut actions = lab.end(holds);
    let mut placed = |tickets: &[Ticket]| {
        tickets.iter().filter(|ticket| take_answer(&mut actions, **ticket).is_some()).count()
    };
    assert_eq!([placed(&first), placed(&late)], [2, 2]);
}
