//! Requests of all sizes from two jobs, at the rate at which small ones find room.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// Steps for which an actor lives; a node is empty that long after its last placement.
const LIFETIME_STEPS: usize = 6;

/// Maximum number of pending actors per job and size.
const QUEUED_MAX: usize = 2;

const SIZES: [f64; 3] = [1.0, 2.0, 4.0];

/// Upper bound of the placements that pass a request.
///
/// Each queue of a job becomes overdue, waits for the reservation of another, and for a node to be empty.
/// Each has this many requests before it.
const PASSED_MAX: u64 =
    (SIZES.len() * QUEUED_MAX) as u64 * (2 * RESERVE_AFTER_PASSED + 4 * LIFETIME_STEPS as u64);

struct Workload {
    harness: Harness,
    jobs: Vec<JobId>,
    /// Requests with the number of placements before them, their job and their size.
    waiting: BTreeMap<Ticket, (u64, usize, usize)>,
    alive: VecDeque<(usize, ActorKey)>,
    placed: u64,
}

impl Workload {
    fn new(nodes: u64) -> Self {
        let (mut harness, job) = Harness::with_nodes(nodes);
        let other = harness.start_job();
        (1..=nodes).for_each(|node| drop(harness.provision_and_start(other, node)));
        let (waiting, alive) = (BTreeMap::new(), VecDeque::new());
        Self { harness, jobs: vec![job, other], waiting, alive, placed: 0 }
    }

    fn request(&mut self, step: usize, job: usize, size: usize) {
        let same = self.waiting.values().filter(|(_, j, s)| (*j, *s) == (job, size)).count();
        if same == QUEUED_MAX {
            return;
        }
        let ticket = self.harness.ticket();
        self.waiting.insert(ticket, (self.placed, job, size));
        let (job, spec) = (self.jobs[job], cpus(SIZES[size]));
        self.event(step, ControlEvent::Place { ticket, job, spec, recipe: None, id: None });
    }

    fn event(&mut self, step: usize, event: ControlEvent) {
        for action in self.harness.handle(event) {
            if let Action::Reply { ticket, reply: Ok(ControlReply::Placed { actor, .. }) } = action {
                self.waiting.remove(&ticket).expect("it was asked for");
                self.placed += 1;
                self.alive.push_back((step, actor));
            }
        }
        let passed = self.waiting.values().map(|(before, ..)| self.placed - before).max();
        assert!(passed.is_none_or(|passed| passed <= PASSED_MAX), "{passed:?} have passed one that waits");
    }

    fn end_expired(&mut self, step: usize) {
        while let Some((_, actor)) =
            self.alive.front().copied().filter(|(placed_at, _)| *placed_at + LIFETIME_STEPS <= step)
        {
            self.alive.pop_front();
            self.event(step, actor_ended(actor, "it stopped"));
        }
    }
}

proptest! {
    #![proptest_config(property_tests::cases(8))]

    #[test]
    fn actor_that_fits_an_empty_node_is_passed_by_a_bounded_number(
        nodes in 1..3_u64,
        requests in proptest::collection::vec((0..2_usize, 0..SIZES.len()), 4000),
    ) {
        let mut workload = Workload::new(nodes);
        for (step, (job, size)) in requests.into_iter().enumerate() {
            // Small requests at each step, so that no large one finds an empty node by chance.
            workload.request(step, job, size);
            workload.request(step, 0, 0);
            workload.request(step, 1, 0);
            workload.end_expired(step);
        }
    }
}
