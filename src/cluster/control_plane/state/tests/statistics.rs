//! Tests of statistics: merging, bounds, the rows of ended actors and workers, and the version of the state.

use super::*;
use crate::cluster::model::{ActorCount, MessageCount, MessageInfo, WorkerStatistics, WorkerUsage};
use crate::config::{ENDED_MESSAGES_MAX, MESSAGE_NAMES_MAX};

fn usage(handled: u64) -> WorkerStatistics {
    let usage = WorkerUsage { handled, ..WorkerUsage::default() };
    WorkerStatistics { usage: Some(usage), ..WorkerStatistics::default() }
}

fn messages(counts: &[(&str, u64)]) -> WorkerStatistics {
    let count = |(message, handled): &(&str, u64)| MessageCount {
        class: "Plain".to_owned(),
        message: (*message).to_owned(),
        handled: *handled,
        p50_us: Some(1),
        p99_us: Some(2),
    };
    WorkerStatistics { messages: counts.iter().map(count).collect(), ..WorkerStatistics::default() }
}

fn actor(actor: ActorKey, handled: u64, mailbox: u32) -> WorkerStatistics {
    let actors = vec![ActorCount { actor, handled, mailbox }];
    WorkerStatistics { actors, ..WorkerStatistics::default() }
}

impl Harness {
    fn report(&mut self, worker: WorkerId, statistics: WorkerStatistics) -> Vec<Action> {
        self.handle(ControlEvent::Statistics { worker, statistics })
    }

    fn handled(&self) -> Vec<(String, u64)> {
        let rows = self.state.all::<MessageInfo>().into_iter();
        rows.map(|row| (row.count.message, row.count.handled)).collect()
    }
}

#[test]
fn rows_have_the_latest_statistics_and_keep_the_last_ones() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (key, worker) = harness.spawn(job, plain());
    assert_eq!((harness.actor(key).handled, harness.actor(key).mailbox), (None, None));
    assert_eq!(harness.report(worker, actor(key, 5, 2)), []);
    harness.report(worker, messages(&[("Add", 3), ("Total", 2)]));
    harness.report(worker, messages(&[("Add", 4)]));
    harness.report(worker, usage(6));
    assert_eq!((harness.actor(key).handled, harness.actor(key).mailbox), (Some(5), Some(2)));
    assert_eq!(harness.handled(), [("Add".to_owned(), 4), ("Total".to_owned(), 2)]);
    assert_eq!(harness.state.workers()[0].usage.map(|usage| usage.handled), Some(6));
    assert_eq!(harness.actor(key).started_ms, Some(harness.now));

    harness.now += 1000;
    harness.ended(worker);
    let ended = harness.actor(key);
    assert_eq!((ended.handled, ended.mailbox, ended.ended_ms), (Some(5), None, Some(harness.now)));
    assert!(harness.state.actor_counts.is_empty());
    // The last report of the worker was in flight.
    harness.report(worker, messages(&[("Total", 9)]));
    harness.report(worker, usage(13));
    harness.report(worker, actor(key, 11, 0));
    assert_eq!(harness.actor(key).handled, Some(11));
    assert_eq!(harness.handled(), [("Add".to_owned(), 4), ("Total".to_owned(), 9)]);
    let workers = harness.state.workers();
    let last = workers.iter().find(|row| row.worker_id == worker).unwrap();
    assert_eq!(last.usage.map(|usage| usage.handled), Some(13));
    assert!(last.started_ms.is_some_and(|started| started < harness.now));
}

#[test]
fn worker_reports_about_its_own_actors_only() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (one, here) = harness.spawn(job, on(1, plain()));
    let (_, there) = harness.spawn(job, on(2, plain()));
    harness.report(there, actor(one, 5, 0));
    harness.report(there, actor(ActorKey(99), 5, 0));
    assert_eq!((harness.actor(one).handled, harness.state.actor_counts.len()), (None, 0));
    harness.report(here, actor(one, 7, 0));
    assert_eq!(harness.actor(one).handled, Some(7));
}

#[test]
fn message_names_of_a_worker_are_bounded() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (_, worker) = harness.spawn(job, plain());
    for name in 0..2 * MESSAGE_NAMES_MAX {
        harness.report(worker, messages(&[(&format!("message {name:06}"), 1)]));
    }
    harness.report(worker, messages(&[("message 000000", 7)]));
    let handled = harness.handled();
    assert_eq!((handled.len(), handled[0].1), (MESSAGE_NAMES_MAX, 7));
}

#[test]
fn ended_worker_keeps_its_most_frequent_messages() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (_, worker) = harness.spawn(job, plain());
    let names: Vec<_> =
        (0..2 * ENDED_MESSAGES_MAX as u64).map(|number| (format!("message {number:06}"), number)).collect();
    for (name, handled) in &names {
        harness.report(worker, messages(&[(name, *handled)]));
    }
    harness.ended(worker);
    let expected: Vec<_> = names[ENDED_MESSAGES_MAX..].to_vec();
    assert_eq!(harness.handled(), expected);
}

#[test]
fn version_grows_with_rows_and_not_with_statistics() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (key, worker) = harness.spawn(job, plain());
    let version = |harness: &Harness| harness.state.version();
    let before = version(&harness);
    harness.report(worker, actor(key, 5, 2));
    harness.report(worker, usage(6));
    harness.advance(5, &[agent(1, 1)], &[job]);
    assert_eq!(version(&harness), before);
    harness.ended(worker);
    let after_end = version(&harness);
    assert!(after_end > before);
    // The lease of the node expires in a tick.
    harness.advance(2 * lease(), &[], &[]);
    assert!(version(&harness) > after_end);
}
