//! Restarts of actors as an operator sees them: states, reasons, events and counts.

use std::collections::VecDeque;

use super::actor::{Actor, ActorPhase};
use super::events::EventSubject;
use super::queries::Reasons;
use super::{ClusterState, Millis};
use crate::cluster::model::{ActorKey, ActorState, EventKind, RestartCounts, Severity};
use crate::spec::{End, EndReason};

const MINUTE_MS: u64 = 60_000;

/// Minutes of the hour that is counted, besides the present one.
const MINUTES: u64 = 60;

/// Counter of restarts, with a resolution of a minute.
#[derive(Debug, Default)]
pub(super) struct RestartCounter {
    total: u64,
    /// Minutes of the last hour with a restart, oldest first, each with its number of restarts.
    minutes: VecDeque<(u64, u64)>,
}

impl RestartCounter {
    pub(super) fn add(&mut self, now: Millis) {
        self.total += 1;
        let minute = now.0 / MINUTE_MS;
        match self.minutes.back_mut() {
            Some((last, count)) if *last >= minute => *count += 1,
            _ => self.minutes.push_back((minute, 1)),
        }
        while self.minutes.len() > MINUTES as usize + 1 {
            self.minutes.pop_front();
        }
    }

    pub(super) fn counts(&self, now: Millis) -> RestartCounts {
        let from = (now.0 / MINUTE_MS).saturating_sub(MINUTES);
        let recent = self.minutes.iter().filter(|(minute, _)| *minute > from);
        RestartCounts { total: self.total, last_hour: recent.map(|(_, count)| count).sum() }
    }
}

impl ClusterState {
    /// State of an actor that is not dead, as lists show it.
    pub(super) fn state_of(&self, key: ActorKey, actor: &Actor) -> ActorState {
        match actor.phase.state() {
            ActorState::PendingCreation if self.is_restarting(key) => ActorState::Restarting,
            state => state,
        }
    }

    /// Checks whether an actor waits for a restart, for which it waits also while no node could host it.
    pub(super) fn is_restarting(&self, key: ActorKey) -> bool {
        self.managed.get(&key).is_some_and(|managed| managed.is_restarting)
    }

    /// Explains why a restarting actor is not alive.
    pub(super) fn restart_reason(
        &self,
        key: ActorKey,
        actor: &Actor,
        reasons: &mut Reasons,
    ) -> Option<String> {
        let managed = self.managed.get(&key)?;
        let cause = managed.restart_cause.as_ref()?;
        let waits = match actor.phase {
            ActorPhase::BackingOff => match managed.backs_off_until {
                Some(until) => {
                    let left_ms = until.since(self.now);
                    format!("; its back-off ends within {} s", left_ms.div_ceil(1000))
                }
                None => self.explain_fence(key).map(|why| format!("; {why}")).unwrap_or_default(),
            },
            ActorPhase::Waiting if !self.schedule.is_feasible(actor.shape) => {
                format!("; {}", self.explain_infeasible(actor.shape, Some(&key)))
            }
            ActorPhase::Waiting => format!("; {}", reasons.of((actor.job, actor.shape), self)),
            ActorPhase::AwaitingWorker(node) => {
                format!("; workers of its job are being started on node {node}")
            }
            _ => String::new(),
        };
        Some(format!("it restarts, since {cause}{waits}"))
    }

    /// Records a restart, at the place of the lost incarnation.
    pub(super) fn record_restart(&mut self, key: ActorKey, delay_ms: u64, end: &End) {
        let Some(actor) = self.actors.get(&key) else { return };
        let (node, worker) = (self.node_of(actor.phase), actor.phase.worker());
        let subject = EventSubject { node, worker, job: Some(actor.job), actor: Some(key) };
        let text = format!("{}: it restarts after {delay_ms} ms: {end}", self.described(actor));
        self.restart_counter.add(self.now);
        self.record_event(Severity::Warning, EventKind::ActorRestarted, subject, text);
    }

    /// Records the failure that ends a managed actor for good: one that restarts has not died.
    ///
    /// The spawner gets the error of the first incarnation.
    pub(super) fn record_managed_death(&mut self, key: ActorKey, end: &End) {
        let Some(managed) = self.managed.get(&key) else { return };
        let is_death = managed.spawner.is_none() && end.reason.is_failure();
        if is_death || end.reason == EndReason::Panicked {
            self.record_actor_death(key, &end.text);
        }
    }

    /// Number of restarts of actors.
    pub(in crate::cluster) fn restart_counts(&self) -> RestartCounts {
        self.restart_counter.counts(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hour_forgets_and_the_total_does_not() {
        let mut counter = RestartCounter::default();
        let at = |minute: u64| Millis(minute * MINUTE_MS + 1);
        for minute in [1000, 1000, 1030, 1059] {
            counter.add(at(minute));
        }
        for (minute, last_hour) in [(1059, 4), (1060, 2), (1089, 2), (1090, 1), (1119, 0)] {
            assert_eq!(counter.counts(at(minute)), RestartCounts { total: 4, last_hour }, "{minute}");
        }
        (0..1000).for_each(|minute| counter.add(at(2000 + minute)));
        assert_eq!(counter.counts(at(2999)), RestartCounts { total: 1004, last_hour: 60 });
        assert!(counter.minutes.len() <= 61);
    }
}
