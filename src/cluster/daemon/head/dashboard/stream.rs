//! Event stream: server-sent events about changed rows and new samples.
//!
//! An event is encoded once for all clients. A client has a bounded queue, and is disconnected when it is full: the
//! browser connects again by itself, and then loads what it shows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::{self, Bytes};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::history::sampler::Sampler;
use super::history::{History, HistoryFile};
use super::server::Shared;
use crate::config::{
    DASHBOARD_CHANGE_INTERVAL, DASHBOARD_STREAM_HEARTBEAT, DASHBOARD_STREAM_QUEUE_MAX, DASHBOARD_STREAMS_MAX,
    HISTORY_FLUSH_INTERVAL, HISTORY_SAMPLE_INTERVAL,
};

/// Comment that keeps a stream open, and shows a client that it is.
const HEARTBEAT: &[u8] = b": heartbeat\n\n";

/// Pause after a sample, as a multiple of the time that it took: samples take at most 5 % of the time.
const PAUSE_PER_SAMPLE: u32 = 19;

/// Maximum pause after a sample. It is below the age at which `/metrics` refuses a sample.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Clients of the event stream.
#[derive(Debug, Default)]
pub(super) struct Broadcaster {
    clients: Mutex<Vec<Client>>,
}

#[derive(Debug)]
struct Client {
    queue: mpsc::Sender<Bytes>,
    /// Session of the client; `None` for one with a Bearer token.
    session: Option<String>,
}

impl Broadcaster {
    /// Adds a client, and returns its queue; `None` if there are too many.
    pub(super) fn subscribe(&self, session: Option<String>) -> Option<mpsc::Receiver<Bytes>> {
        let mut clients = self.lock();
        clients.retain(|client| !client.queue.is_closed());
        if clients.len() >= DASHBOARD_STREAMS_MAX {
            return None;
        }
        let (queue, events) = mpsc::channel(DASHBOARD_STREAM_QUEUE_MAX);
        // The first bytes show the client that the stream is open.
        let _ = queue.try_send(Bytes::from_static(HEARTBEAT));
        clients.push(Client { queue, session });
        Some(events)
    }

    /// Number of clients.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Sends an event to all clients. Clients that have left, or whose queue is full, are dropped.
    fn send(&self, event: &Bytes) {
        self.lock().retain(|client| client.queue.try_send(event.clone()).is_ok());
    }

    /// Sends a heartbeat, and drops clients whose session has ended.
    fn heartbeat(&self, is_session: impl Fn(&str) -> bool) {
        self.lock().retain(|client| client.session.as_ref().is_none_or(|session| is_session(session)));
        self.send(&Bytes::from_static(HEARTBEAT));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Client>> {
        // Each change is one insertion or removal, so the list is valid after a panic.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Encodes an event.
fn event(name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// Sends an event when rows have changed, at most once in each interval.
pub(super) async fn watch_changes(shared: web::Data<Shared>) {
    let mut ticks = ticks(DASHBOARD_CHANGE_INTERVAL);
    let mut seen = shared.source.versions();
    loop {
        ticks.tick().await;
        let now = shared.source.versions();
        if now == seen {
            continue;
        }
        let changed: Vec<_> = now.changed_since(&seen).map(|kind| kind.name()).collect();
        seen = now;
        if shared.broadcaster.len() > 0 {
            let time_ms = shared.source.now_ms();
            let data = json!({"snapshot": now.snapshot(), "time_ms": time_ms, "changed": changed});
            shared.broadcaster.send(&event("change", &data));
        }
    }
}

/// Keeps streams open.
pub(super) async fn keep_alive(shared: web::Data<Shared>) {
    let mut ticks = ticks(DASHBOARD_STREAM_HEARTBEAT);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        shared.broadcaster.heartbeat(|session| shared.access.is_session(now, session));
    }
}

/// Samples the cluster for the history, the stream and `/metrics`.
pub(super) async fn sample(shared: web::Data<Shared>) {
    let (mut ticks, mut sampler) = (ticks(HISTORY_SAMPLE_INTERVAL), Sampler::new());
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        match sampler.observe(&shared).await {
            Ok(observation) => {
                shared.history().record(&observation.sample);
                if shared.broadcaster.len() > 0 {
                    shared.broadcaster.send(&event("sample", &observation.sample.json()));
                }
                shared.observe(observation);
            }
            // The series have a gap.
            Err(error) => tracing::warn!(%error, "the dashboard cannot read the state of the cluster"),
        }
        // A sample reads all actors and workers. In a very large cluster it must not take the head's time.
        tokio::time::sleep((begun.elapsed() * PAUSE_PER_SAMPLE).min(PAUSE_MAX)).await;
    }
}

/// Writes the history to its file, again and again.
pub(super) async fn flush(shared: web::Data<Shared>, file: Arc<HistoryFile>) {
    let mut ticks = ticks(HISTORY_FLUSH_INTERVAL);
    // The first tick is immediate, and there is nothing to write yet.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (history, file) = (shared.history().clone(), Arc::clone(&file));
        // The write waits for the disk, and must not hold up requests.
        let written = actix_rt::task::spawn_blocking(move || write(&file, &history));
        // It fails only if the write panics, which the panic hook has reported.
        let _ = written.await;
    }
}

/// Writes the history, and reports a failure.
pub(super) fn write(file: &HistoryFile, history: &History) {
    if let Err(error) = file.write(history) {
        tracing::warn!(%error, "cannot write the dashboard's history; free some space in the state directory");
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    // A machine that was suspended must not catch up with a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_client_is_dropped_and_others_get_all_events() {
        let broadcaster = Broadcaster::default();
        let mut slow = broadcaster.subscribe(None).unwrap();
        let mut fast = broadcaster.subscribe(None).unwrap();
        let mut received = 0;
        for number in 0..DASHBOARD_STREAM_QUEUE_MAX {
            broadcaster.send(&event("change", &json!({"snapshot": number})));
            while fast.try_recv().is_ok() {
                received += 1;
            }
        }
        assert_eq!((broadcaster.len(), received), (1, DASHBOARD_STREAM_QUEUE_MAX + 1));
        let mut rest = 0;
        while slow.try_recv().is_ok() {
            rest += 1;
        }
        assert_eq!(rest, DASHBOARD_STREAM_QUEUE_MAX);
        assert!(slow.is_closed());
    }

    #[test]
    fn clients_are_bounded_and_one_that_left_makes_room() {
        let broadcaster = Broadcaster::default();
        let mut clients: Vec<_> =
            (0..DASHBOARD_STREAMS_MAX).map(|_| broadcaster.subscribe(None).unwrap()).collect();
        assert!(broadcaster.subscribe(None).is_none());
        clients.pop();
        assert!(broadcaster.subscribe(None).is_some());
    }

    #[test]
    fn stream_ends_with_its_session() {
        let broadcaster = Broadcaster::default();
        let _clients =
            [None, Some("kept"), Some("ended")].map(|it| broadcaster.subscribe(it.map(str::to_owned)));
        broadcaster.heartbeat(|session| session == "kept");
        assert_eq!(broadcaster.len(), 2);
    }

    #[test]
    fn event_is_encoded_as_lines() {
        let event = event("change", &json!({"snapshot": 1}));
        assert_eq!(&event[..], b"event: change\ndata: {\"snapshot\":1}\n\n");
    }
}
