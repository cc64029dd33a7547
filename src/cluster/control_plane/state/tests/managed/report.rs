//! Tests of what an operator sees of restarts: events, causes and counts.

use super::*;
use crate::cluster::model::{EventKind, RestartCounts};

impl Harness {
    /// Kinds and texts of the events about an actor, oldest first.
    fn events_about(&self, actor: ActorKey) -> Vec<(EventKind, String)> {
        let events = self.state.events.iter().filter(|event| event.actor_id == Some(actor));
        events.map(|event| (event.kind, event.text.clone())).collect()
    }
}

#[test]
fn restarts_are_events_and_only_the_final_end_is_a_death() {
    let (mut harness, job) = Harness::with_nodes(1);
    let named = ActorSpec { name: Some("counter".to_owned()), ..plain() };
    let (actor, worker) = harness.spawn_managed(job, restartable(at_most(1), named));
    harness.ended(worker);
    let restarted =
        (EventKind::ActorRestarted, "Plain \"counter\": it restarts after 100 ms: exit code 1".to_owned());
    assert_eq!(harness.events_about(actor), std::slice::from_ref(&restarted));
    let next = harness.state.nodes[&NodeId(1)].workers.first().copied().unwrap();
    harness.ready(next);
    harness.after(100);
    harness.created(actor, next, 1);
    let row = harness.actor(actor);
    assert_eq!((row.restarts, row.restart_cause.as_deref(), row.cause), (1, Some("exit code 1"), None));
    harness.panics(actor, 1);
    let events = harness.events_about(actor);
    assert_eq!((events.len(), &events[0], events[1].0), (2, &restarted, EventKind::ActorDied));
    assert!(events[1].1.contains("failed more than 1 times"), "{events:?}");
    assert_eq!(harness.actor(actor).restart_cause, None);
    assert_eq!(harness.state.restart_counts(), RestartCounts { total: 1, last_hour: 1 });
    harness.after(3_600_000);
    assert_eq!(harness.state.restart_counts(), RestartCounts { total: 1, last_hour: 0 });
}

#[test]
fn refused_spawn_is_no_death_and_a_panic_in_the_first_constructor_is_one() {
    for (reason, deaths) in [(EndReason::Refused, 0), (EndReason::Panicked, 1)] {
        let (mut harness, job) = Harness::with_nodes(1);
        let (_, actor, _) = harness.start_managed(job, restartable(at_most(5), plain()));
        harness.handle(incarnation_ended(actor, 0, reason, "no licence"));
        assert_eq!(harness.events_about(actor).len(), deaths, "{reason:?}");
    }
}
