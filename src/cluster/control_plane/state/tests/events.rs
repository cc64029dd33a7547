//! Tests of the log of events.

use super::*;
use crate::cluster::listing::{Filter, Query};
use crate::cluster::model::{ActorInfo, EventInfo, EventKind, Severity};
use crate::config::{ACTOR_EVENTS_MAX, ACTOR_EVENTS_PER_WORKER_MAX, EVENTS_MAX};

impl Harness {
    /// Events so far, oldest first.
    fn events(&self) -> Vec<EventInfo> {
        let mut events = self.state.all::<EventInfo>();
        assert!(events.is_sorted_by_key(|event| std::cmp::Reverse(event.event_id)), "the newest is first");
        events.reverse();
        events
    }

    fn kinds(&self) -> Vec<EventKind> {
        self.events().iter().map(|event| event.kind).collect()
    }

    fn last_event(&self) -> EventInfo {
        self.events().pop().unwrap()
    }
}

#[test]
fn life_of_a_cluster_is_recorded() {
    let (mut harness, job) = Harness::with_nodes(2);
    harness.handle(ControlEvent::NodeDrain { node: NodeId(2) });
    harness.end_job(job);
    harness.handle(ControlEvent::NodeLeft { node: agent(2, 1), cause: "the node was drained".to_owned() });
    harness.advance(2 * lease(), &[], &[]);
    use EventKind::*;
    let kinds = [NodeJoined, NodeJoined, JobStarted, NodeDraining, JobEnded, NodeDead, NodeDead];
    assert_eq!(harness.kinds(), kinds);
    let events = harness.events();
    assert_eq!(events[0].text, "it joined: n1 at 127.0.0.1:1");
    assert_eq!((events[2].job_id, events[2].text.as_str()), (Some(job), "program"));
    assert_eq!((events[4].severity, events[4].text.as_str()), (Severity::Info, "SUCCEEDED: done"));
    // A drained node ends as asked; one without heartbeats does not.
    assert_eq!((events[5].node_id, events[5].severity), (Some(NodeId(2)), Severity::Info));
    assert_eq!((events[6].node_id, events[6].severity), (Some(NodeId(1)), Severity::Error));
    assert!(events[6].text.starts_with("no heartbeat for"), "{}", events[6].text);
    assert_eq!(events[6].time_ms / 1000, events[6].event_id.0 / 1_000_000);
}

#[test]
fn death_of_a_worker_is_recorded_with_its_first_actors() {
    let (mut harness, job) = Harness::with_nodes(1);
    let (actor, worker) = harness.spawn(job, plain());
    for _ in 0..20 {
        harness.spawn(job, plain());
    }
    let before = harness.events().len();
    harness.ended(worker);
    let events = harness.events().split_off(before);
    let subject = (events[0].kind, events[0].worker_id, events[0].job_id, events[0].node_id);
    assert_eq!(subject, (EventKind::WorkerDied, Some(worker), Some(job), Some(NodeId(1))));
    assert_eq!(events[0].text, "exit code 1; 21 actors ended with it");
    assert_eq!(events.len(), 1 + ACTOR_EVENTS_PER_WORKER_MAX);
    assert_eq!((events[1].kind, events[1].actor_id), (EventKind::ActorDied, Some(actor)));
    assert_eq!(events[1].text, "Plain: its worker ended: exit code 1");
}

#[test]
fn only_panics_of_actors_are_recorded() {
    let (mut harness, job) = Harness::with_nodes(1);
    let [stopped, panicked] = [(); 2].map(|()| harness.spawn(job, plain()).0);
    let before = harness.events().len();
    harness.handle(actor_ended(stopped, "it stopped"));
    assert_eq!(harness.events().len(), before);
    let cause = "it panicked: oh".to_owned();
    harness.handle(actor_panicked(panicked, &cause));
    harness.expect_dead(panicked, &cause);
    let last = harness.last_event();
    assert_eq!((last.actor_id, last.text.as_str()), (Some(panicked), "Plain: it panicked: oh"));
    // An actor that waits cannot panic, whatever a worker reports.
    for _ in 0..5 {
        harness.place(job, cpus(1.0));
    }
    let waits = harness.state.all::<ActorInfo>().into_iter().find(|actor| actor.worker_id.is_none()).unwrap();
    let before = harness.events();
    harness.handle(actor_panicked(waits.actor_id, "it panicked"));
    assert_eq!(harness.events(), before);
    // Workers that end with their job were asked to.
    harness.end_job(job);
    assert_eq!(harness.last_event().kind, EventKind::JobEnded);
}

#[test]
fn restart_of_the_head_and_rejoins_are_recorded() {
    let mut harness = Harness::new();
    let records = durable_records(&harness.join(node_descriptor(1, 4.0, 1)));
    let mut restarted = Harness { now: harness.now + 5000, ..Harness::new() };
    restarted.handle(ControlEvent::Restored(records));
    restarted.join(node_descriptor(1, 4.0, 1));
    assert_eq!(restarted.kinds(), [EventKind::HeadStarted, EventKind::NodeJoined]);
    assert!(restarted.last_event().text.starts_with("it rejoined the restarted head"));
    assert!(restarted.events()[0].event_id > harness.last_event().event_id, "ids grow across restarts");
}

#[test]
fn log_is_bounded_and_deaths_of_actors_displace_only_each_other() {
    let (mut harness, job) = Harness::with_nodes(1);
    for _ in 0..EVENTS_MAX {
        let (actor, _) = harness.spawn(job, plain());
        harness.handle(actor_panicked(actor, "it panicked"));
    }
    let deaths = harness.kinds().iter().filter(|kind| **kind == EventKind::ActorDied).count();
    assert_eq!((deaths, harness.kinds()[0]), (ACTOR_EVENTS_MAX, EventKind::NodeJoined));
    for _ in 0..EVENTS_MAX {
        let job = harness.start_job();
        harness.end_job(job);
    }
    assert_eq!(harness.events().len(), EVENTS_MAX);
    assert!(!harness.kinds().contains(&EventKind::ActorDied));
}

#[test]
fn events_are_filtered_and_found_by_id() {
    let (mut harness, job) = Harness::with_nodes(2);
    let (_, worker) = harness.spawn(job, plain());
    harness.ended(worker);
    let is_error = Filter { key: "severity".to_owned(), value: "error".to_owned(), is_equal: true };
    let find = |query: &Query| {
        let mut search = Search::<EventInfo>::new(query).unwrap();
        while !search.step(&harness.state) {}
        search.page().rows
    };
    let errors = find(&Query::filtered(vec![is_error]));
    assert_eq!(errors.len(), 2);
    let died = harness.events().into_iter().find(|event| event.kind == EventKind::WorkerDied).unwrap();
    assert_eq!(find(&Query::called(&died.event_id.to_string())), [died]);
}
