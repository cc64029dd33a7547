//! Requests of all sizes, of two jobs, as fast as there is room for small ones.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// Steps for which an actor lives. A node is empty that long after the last placement on it.
const LIFE: usize = 6;

/// Actors of one job and size that wait at the same time, at most.
const QUEUED_MAX: usize = 2;

const SIZES: [f64; 3] = [1.0, 2.0, 4.0];

/// Placements that may pass a request: each of a job's queues is overdue, and then waits for the reservation of
/// another, and for a node to be empty; and each has as many before it.
const PASSED_MAX: u64 = (SIZES.len() * QUEUED_MAX) as u64 * (2 * RESERVE_AFTER_PASSED + 4 * LIFE as u64);

struct Crowd {
    lab: Lab,
    jobs: Vec<JobId>,
    /// Placements before the request, and what it is.
    waiting: BTreeMap<Ticket, (u64, usize, usize)>,
    living: VecDeque<(usize, ActorKey)>,
    placed: u64,
}

impl Crowd {
    fn new(nodes: u64) -> Self {
        let (mut lab, job) = Lab::with_nodes(nodes);
        let other = lab.start_job();
        (1..=nodes).for_each(|node| drop(lab.equip_and_start(other, node)));
        let (waiting, living) = (BTreeMap::new(), VecDeque::new());
        Self { lab, jobs: vec![job, other], waiting, living, placed: 0 }
    }

    fn ask(&mut self, step: usize, job: usize, size: usize) {
        let same = self.waiting.values().filter(|(_, j, s)| (*j, *s) == (job, size)).count();
        if same == QUEUED_MAX {
            return;
        }
        let ticket = self.lab.ticket();
        self.waiting.insert(ticket, (self.placed, job, size));
        let (job, spec) = (self.jobs[job], cpus(SIZES[size]));
        self.event(step, Event::Place { ticket, job, spec });
    }

    fn event(&mut self, step: usize, event: Event) {
        for action in self.lab.handle(event) {
            if let Action::Answer { ticket, answer: Ok(Answer::Placed { actor, .. }) } = action {
                self.waiting.remove(&ticket).expect("it was asked for");
                self.placed += 1;
                self.living.push_back((step, actor));
            }
        }
        let passed = self.waiting.values().map(|(before, ..)| self.placed - before).max();
        assert!(passed.is_none_or(|passed| passed <= PASSED_MAX), "{passed:?} have passed one that waits");
    }

    fn end_old(&mut self, step: usize) {
        while let Some((_, actor)) = self.living.front().copied().filter(|(born, _)| *born + LIFE <= step) {
            self.living.pop_front();
            self.event(step, Event::ActorEnded { actor, cause: "it stopped".to_owned() });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn whatever_fits_an_empty_node_is_placed_after_a_bounded_number_of_others(
        nodes in 1..3_u64,
        requests in proptest::collection::vec((0..2_usize, 0..SIZES.len()), 4000),
    ) {
        let mut crowd = Crowd::new(nodes);
        for (step, (job, size)) in requests.into_iter().enumerate() {
            // Some small ones with each, so that none finds an empty node by chance.
            crowd.ask(step, job, size);
            crowd.ask(step, 0, 0);
            crowd.ask(step, 1, 0);
            crowd.end_old(step);
        }
    }
}
