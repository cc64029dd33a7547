//! Counters of the bytes and messages on a host's links.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::observe::Traffic;

/// Totals of all links of a host, those of removed peers included.
///
/// A link adds to them once for each read and each write, never for each message.
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    messages_sent: AtomicU64,
    messages_received: AtomicU64,
}

// Relaxed throughout: the counters are statistics, and guard no memory.
impl TrafficCounters {
    pub(super) fn add_write(&self, bytes: usize, messages: u64) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if messages > 0 {
            self.messages_sent.fetch_add(messages, Ordering::Relaxed);
        }
    }

    pub(super) fn add_read(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_received(&self, messages: usize) {
        if messages > 0 {
            self.messages_received.fetch_add(messages as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn totals(&self) -> Traffic {
        Traffic {
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            messages_sent: self.messages_sent.load(Ordering::Relaxed),
            messages_received: self.messages_received.load(Ordering::Relaxed),
        }
    }
}
