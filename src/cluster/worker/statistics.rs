//! Reports of a worker's statistics to its parent: usage, tasks, messages and actors, and spans for its timeline.
//!
//! A report contains what has changed since the last one. Actors add themselves to the list of changed ones, so
//! a report costs nothing for those that are idle.

mod spans;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use rustc_hash::FxHashMap;
use rustix::time::{ClockId, clock_gettime};

use crate::cluster::model::{ActorCount, MessageCount, TaskCount, WorkerStatistics, WorkerUsage, cut};
use crate::cluster::protocol::worker::{EVENTS_PER_REPORT_MAX, WorkerMessage};
use crate::config::{ACTOR_NAME_BYTES_MAX, REPORTED_ACTORS_MAX, REPORTED_MESSAGES_MAX};
use crate::host::Host;
use crate::id::TypeHash;
use crate::lock::Mutex;
use crate::observe::{Percentiles, SPANS};
use crate::registry::{ActorCounts, HandlerCounts, handler_counts};
use crate::task::{TaskCounts, TaskService};

/// Recipient of a worker's statistics.
pub(crate) trait StatisticsSink: Send + Sync + fmt::Debug {
    /// True if the previous report has left the process. Otherwise the next one waits, and so takes no memory.
    fn is_ready(&self) -> bool;

    /// Sends the messages, in this order.
    fn report(&self, statistics: Vec<WorkerMessage>);

    /// Waits briefly until all reports are sent.
    fn flush(&self);
}

/// Reporter of a worker's statistics.
pub(super) struct StatisticsReporter {
    service: Weak<TaskService>,
    /// Hosts of the actors and of the tasks.
    hosts: [Host; 2],
    sink: Arc<dyn StatisticsSink>,
    reported: Mutex<Reported>,
    /// Set before the last report.
    ended: AtomicBool,
}

/// Values as last reported.
#[derive(Debug, Default)]
struct Reported {
    tasks: FxHashMap<TypeHash, (TaskCounts, Option<Percentiles>)>,
    messages: FxHashMap<(&'static str, &'static str), HandlerCounts>,
    lane_ends: spans::LaneEnds,
}

impl StatisticsReporter {
    /// Creates a reporter, and begins to note the actors that change; must precede the first actor.
    pub(super) fn new(
        service: Weak<TaskService>,
        [actors, tasks]: [&Host; 2],
        sink: Arc<dyn StatisticsSink>,
    ) -> Self {
        actors.actors().track_changes();
        SPANS.start();
        Self {
            service,
            hosts: [actors.clone(), tasks.clone()],
            sink,
            reported: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// Reports what has changed. Returns false once the worker ends.
    pub(super) fn report_changes(&self) -> bool {
        let Some(service) = self.service.upgrade() else { return false };
        // Locked until the report is queued: an older report must not follow a newer one.
        let mut reported = self.reported.lock();
        // The cause of the worker's end follows the last report on the same socket.
        if self.ended.load(Ordering::Relaxed) {
            return false;
        }
        if self.sink.is_ready() {
            self.sink.report(self.changes(&service, &mut reported));
        }
        true
    }

    /// Reports what has changed since the last report, and waits briefly until it is sent.
    pub(super) fn report_last(&self) {
        {
            let mut reported = self.reported.lock();
            self.ended.store(true, Ordering::Relaxed);
            if let Some(service) = self.service.upgrade() {
                self.sink.report(self.changes(&service, &mut reported));
            }
        }
        self.sink.flush();
    }

    fn changes(&self, service: &TaskService, reported: &mut Reported) -> Vec<WorkerMessage> {
        let tasks = self.changed_tasks(service, reported);
        let (counts, waiting) = handler_counts();
        let handled = counts.iter().map(|counts| counts.handled).sum();
        let messages = changed_messages(counts, reported);
        let actors: Vec<_> = self.hosts[0].actors().take_changed().into_iter().map(actor_count).collect();
        let usage = self.usage(handled, waiting);
        let tasks = tasks.chunks(EVENTS_PER_REPORT_MAX).map(|tasks| WorkerMessage::Tasks(tasks.to_vec()));
        let usage = WorkerStatistics { usage: Some(usage), ..WorkerStatistics::default() };
        let messages = messages
            .chunks(REPORTED_MESSAGES_MAX)
            .map(|messages| WorkerStatistics { messages: messages.to_vec(), ..WorkerStatistics::default() });
        let actors = actors
            .chunks(REPORTED_ACTORS_MAX)
            .map(|actors| WorkerStatistics { actors: actors.to_vec(), ..WorkerStatistics::default() });
        let statistics = [usage].into_iter().chain(messages).chain(actors).map(WorkerMessage::Statistics);
        tasks.chain(statistics).chain(spans::taken(&mut reported.lane_ends)).collect()
    }

    fn changed_tasks(&self, service: &TaskService, reported: &mut Reported) -> Vec<TaskCount> {
        let changed = service.counts().into_iter().filter_map(|(name, counts, times)| {
            if reported.tasks.insert(name, (counts, times)) == Some((counts, times)) {
                return None;
            }
            let TaskCounts { queued, running, finished, failed } = counts;
            Some(TaskCount {
                name: self.hosts[1].registry().name_of(name),
                queued,
                running,
                finished,
                failed,
                p50_us: times.map(|times| times.p50_us),
                p99_us: times.map(|times| times.p99_us),
            })
        });
        changed.collect()
    }

    fn usage(&self, handled: u64, mailbox: u64) -> WorkerUsage {
        let mut usage = WorkerUsage {
            cpu_seconds: cpu_seconds(),
            memory_bytes: memory_bytes(),
            handled,
            mailbox,
            sampled_ms: milliseconds(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()),
            ..WorkerUsage::default()
        };
        for traffic in self.hosts.iter().map(Host::traffic) {
            usage.sent_bytes += traffic.sent_bytes;
            usage.received_bytes += traffic.received_bytes;
            usage.messages_sent += traffic.messages_sent;
            usage.messages_received += traffic.messages_received;
        }
        usage
    }
}

fn changed_messages(counts: Vec<HandlerCounts>, reported: &mut Reported) -> Vec<MessageCount> {
    let changed = counts.into_iter().filter(|counts| {
        // Idle pairs keep their times, so the number alone decides.
        let last = reported.messages.insert((counts.actor, counts.message), *counts);
        last.is_none_or(|last| last.handled != counts.handled)
    });
    changed.map(message_count).collect()
}

fn message_count(counts: HandlerCounts) -> MessageCount {
    let named = |name: &str| {
        let mut name = name.to_owned();
        // It has to fit a message with others.
        cut(&mut name, ACTOR_NAME_BYTES_MAX);
        name
    };
    MessageCount {
        class: named(counts.actor),
        message: named(counts.message),
        handled: counts.handled,
        p50_us: counts.times.map(|times| times.p50_us),
        p99_us: counts.times.map(|times| times.p99_us),
    }
}

fn actor_count(counts: ActorCounts) -> ActorCount {
    ActorCount { actor: counts.key, handled: counts.handled, mailbox: counts.waiting }
}

/// CPU time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory of this process, in bytes.
fn memory_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.unwrap_or_default() * rustix::param::page_size() as u64
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::protocol::worker;
    use crate::spec::ActorKey;

    fn fits(statistics: WorkerStatistics) {
        worker::encode(&WorkerMessage::Statistics(statistics)).expect("the report fits a message");
    }

    #[test]
    fn longest_reports_fit_a_message() {
        let actor = ActorCount { actor: ActorKey(u64::MAX), handled: u64::MAX, mailbox: u32::MAX };
        fits(WorkerStatistics { actors: vec![actor; REPORTED_ACTORS_MAX], ..WorkerStatistics::default() });
        let times = Some(Percentiles { p50_us: u64::MAX, p99_us: u64::MAX });
        let name = "n".repeat(2 * ACTOR_NAME_BYTES_MAX).leak();
        let message = message_count(HandlerCounts { actor: name, message: name, handled: u64::MAX, times });
        assert_eq!(message.class.len(), ACTOR_NAME_BYTES_MAX);
        let messages = vec![message; REPORTED_MESSAGES_MAX];
        fits(WorkerStatistics { messages, ..WorkerStatistics::default() });
    }

    #[test]
    fn only_changed_messages_are_reported() {
        let counts = |handled| HandlerCounts { actor: "a", message: "m", handled, times: None };
        let mut reported = Reported::default();
        let mut changed = |handled| changed_messages(vec![counts(handled)], &mut reported).len();
        assert_eq!([changed(1), changed(1), changed(2)], [1, 0, 1]);
    }

    #[test]
    fn usage_of_this_process_is_measured() {
        assert!(cpu_seconds() > 0.0 && memory_bytes() > 0);
    }
}
