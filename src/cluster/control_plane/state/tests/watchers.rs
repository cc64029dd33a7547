//! Requests that wait for the end of a node or a job.

use super::*;
use crate::config::WATCHERS_MAX;

impl Harness {
    fn watch_node(&mut self, node: u64) -> (Ticket, Vec<Action>) {
        self.requests += 1;
        let ticket = Ticket(self.requests);
        (ticket, self.handle(ControlEvent::WatchNode { ticket, node: NodeId(node) }))
    }

    fn watch_job(&mut self, job: JobId) -> (Ticket, Vec<Action>) {
        self.requests += 1;
        let ticket = Ticket(self.requests);
        (ticket, self.handle(ControlEvent::WatchJob { ticket, job }))
    }
}

/// Tickets that the actions answer with an end, and its reason.
fn ends(actions: &[Action]) -> Vec<(Ticket, EndReason)> {
    let ends = actions.iter().filter_map(|action| match action {
        Action::Reply { ticket, reply: Ok(ControlReply::End(Some(end))) } => Some((*ticket, end.reason)),
        _ => None,
    });
    ends.collect()
}

fn job_end(job: JobId, state: JobState, exit_code: Option<i32>) -> ControlEvent {
    ControlEvent::JobEnded { job, state, exit_code, message: "over".to_owned() }
}

#[test]
fn watchers_of_a_node_are_answered_at_its_end_and_after_it() {
    let (mut harness, _) = Harness::with_nodes(2);
    let (first, actions) = harness.watch_node(1);
    assert_eq!(ends(&actions), []);
    let (second, _) = harness.watch_node(1);
    let (other, _) = harness.watch_node(2);
    let left = ControlEvent::NodeLeft { node: agent(1, 1), cause: "its agent ended".to_owned() };
    let answered = ends(&harness.handle(left));
    assert_eq!(answered, [(first, EndReason::NodeLost), (second, EndReason::NodeLost)]);
    let (late, actions) = harness.watch_node(1);
    assert_eq!(ends(&actions), [(late, EndReason::NodeLost)]);
    let (unknown, actions) = harness.watch_node(9);
    assert_eq!(ends(&actions), [(unknown, EndReason::Unknown)]);
    assert_eq!(harness.state.watchers.len(), 1);
    harness.handle(ControlEvent::Cancelled { ticket: other });
    assert_eq!(harness.state.watchers.len(), 0);
    let left = ControlEvent::NodeLeft { node: agent(2, 1), cause: "its agent ended".to_owned() };
    assert_eq!(ends(&harness.handle(left)), []);
}

#[test]
fn a_drained_node_has_stopped() {
    let mut harness = Harness::new();
    harness.join(node_descriptor(1, 4.0, 1));
    let (ticket, _) = harness.watch_node(1);
    let drained = harness.handle(ControlEvent::NodeDrain { node: NodeId(1) });
    assert!(drained.contains(&Action::StopNode { node: NodeId(1) }) && ends(&drained).is_empty());
    let left = ControlEvent::NodeLeft { node: agent(1, 1), cause: "it was drained".to_owned() };
    assert_eq!(ends(&harness.handle(left)), [(ticket, EndReason::Stopped)]);
}

#[test]
fn watchers_of_a_job_are_answered_at_its_end_and_after_it() {
    let cases = [
        (JobState::Succeeded, None, EndReason::Stopped),
        (JobState::Stopped, None, EndReason::Killed),
        (JobState::Failed, Some(3), EndReason::Exited(3)),
        (JobState::Failed, None, EndReason::JobEnded),
    ];
    for (state, exit_code, reason) in cases {
        let (mut harness, job) = Harness::with_nodes(1);
        let (ticket, actions) = harness.watch_job(job);
        assert_eq!(ends(&actions), []);
        assert_eq!(ends(&harness.handle(job_end(job, state, exit_code))), [(ticket, reason)]);
        let (late, actions) = harness.watch_job(job);
        assert_eq!(ends(&actions), [(late, reason)]);
        assert_eq!(harness.state.watchers.len(), 0);
    }
    let (unknown, actions) = Harness::new().watch_job(JobId(9));
    assert_eq!(ends(&actions), [(unknown, EndReason::Unknown)]);
}

#[test]
fn watchers_beyond_the_limit_are_refused() {
    let (mut harness, job) = Harness::with_nodes(1);
    for _ in 0..WATCHERS_MAX {
        assert_eq!(harness.watch_job(job).1, []);
    }
    let (ticket, actions) = harness.watch_node(1);
    let refused = |action: &Action| matches!(action, Action::Reply { ticket: it, reply: Err(ControlError::Unknown(_)) } if *it == ticket);
    assert!(actions.iter().all(refused) && actions.len() == 1, "{actions:?}");
    assert_eq!(harness.state.watchers.len(), WATCHERS_MAX);
}

#[test]
fn hosts_of_live_drivers_and_agents_have_not_ended() {
    let (mut harness, job) = Harness::with_nodes(1);
    let driver = harness.state.job_descriptor(job).unwrap().driver.unwrap();
    assert_eq!(harness.state.host_end(driver), None);
    assert_eq!(harness.state.host_end(agent(1, 1)), None);
    harness.handle(job_end(job, JobState::Succeeded, None));
    assert_eq!(harness.state.host_end(driver).unwrap().reason, EndReason::JobEnded);
}
