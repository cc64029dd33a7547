//! Content of one state: a snapshot in parts, and the records after it.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::durable::protocol::{PackedRecords, StatePage};
use crate::wire::Payload;

/// Bytes that a record or a part of a snapshot takes beside its own.
const ENTRY_BYTES: u64 = 64;

/// Snapshot, and the records after it.
#[derive(Debug, Default)]
pub(super) struct Log {
    snapshot: Snapshot,
    /// Number of the first record that is kept.
    first: u64,
    records: VecDeque<Bytes>,
    record_bytes: u64,
}

/// Snapshot in parts.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    parts: Vec<Payload>,
    bytes: u64,
}

impl Snapshot {
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn push(&mut self, part: Payload) {
        self.bytes += cost(&part);
        self.parts.push(part);
    }
}

impl Log {
    /// Log that begins with a snapshot.
    pub(super) fn starting_with(snapshot: Snapshot, first: u64) -> Self {
        Self { snapshot, first, ..Self::default() }
    }

    /// Number of the next record.
    pub(super) fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Memory that the log takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.snapshot.bytes + self.record_bytes
    }

    /// Removes those of the records that the log has already, which a repeated append has. Fails if records are missing
    /// before them.
    pub(super) fn skip_known(&self, first: u64, records: &mut Vec<Bytes>) -> Result<(), &'static str> {
        let known =
            self.next().checked_sub(first).ok_or("records are missing before those to be appended")?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        records.drain(..known.min(records.len()));
        Ok(())
    }

    /// Appends records.
    pub(super) fn append(&mut self, records: Vec<Bytes>) {
        self.record_bytes += cost_of_all(&records);
        self.records.extend(records);
    }

    /// Replaces the records before `up_to` by a snapshot of them. An older snapshot than the present one has no effect.
    pub(super) fn compact(&mut self, snapshot: Snapshot, up_to: u64) -> Option<Snapshot> {
        let replaced = usize::try_from(up_to.checked_sub(self.first)?).unwrap_or(usize::MAX);
        for record in self.records.drain(..replaced.min(self.records.len())) {
            self.record_bytes -= cost(&record);
        }
        self.first = up_to;
        Some(std::mem::replace(&mut self.snapshot, snapshot))
    }

    /// Page from a position, with records of about `bytes_max` bytes. Positions are counted in parts of the snapshot,
    /// then in records.
    pub(super) fn page(&self, position: u64, bytes_max: u64) -> StatePage {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        let parts = &self.snapshot.parts;
        // A part fills a page.
        if let Some(part) = parts.get(position) {
            let is_last = position + 1 == parts.len() && self.records.is_empty();
            return StatePage {
                snapshot: vec![part.clone()],
                first: self.first,
                records: PackedRecords::default(),
                next: (!is_last).then_some(position as u64 + 1),
            };
        }
        let skipped = (position - parts.len()).min(self.records.len());
        let (mut bytes, mut page) = (0, Vec::new());
        for record in self.records.iter().skip(skipped) {
            bytes += record.len() as u64;
            // At least one record, however large.
            if !page.is_empty() && bytes > bytes_max {
                break;
            }
            page.push(record.clone());
        }
        let end = skipped + page.len();
        StatePage {
            snapshot: Vec::new(),
            first: self.first + skipped as u64,
            records: PackedRecords::pack(&page),
            next: (end < self.records.len()).then_some((parts.len() + end) as u64),
        }
    }
}

/// Memory that bytes take, in bytes.
pub(super) fn cost(bytes: &[u8]) -> u64 {
    ENTRY_BYTES + bytes.len() as u64
}

/// Memory that records take, in bytes.
pub(super) fn cost_of_all(records: &[Bytes]) -> u64 {
    records.iter().map(|record| cost(record)).sum()
}
