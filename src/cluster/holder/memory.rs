//! States in memory.

use std::collections::VecDeque;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::config::STATE_GROUP_BYTES_MAX;
use crate::durable::protocol::{PackedRecords, StateError, StatePage, StateReply, StateRequest, StateResult};
use crate::id::ActorIncarnation;
use crate::spec::ActorKey;
use crate::wire::Payload;

/// States by actor.
#[derive(Debug, Default)]
pub(super) struct MemoryStates {
    actors: FxHashMap<ActorKey, ActorState>,
}

/// State of an actor: a snapshot, and the records after it.
#[derive(Debug)]
pub(super) struct ActorState {
    epoch: ActorIncarnation,
    snapshot: Vec<Payload>,
    /// Number of the first record that is kept.
    first: u64,
    records: VecDeque<Bytes>,
    /// Parts of a snapshot that is not complete, and the number of the record that it ends before.
    incoming: Option<(u64, Vec<Payload>)>,
}

impl MemoryStates {
    pub(super) fn handle(&mut self, request: StateRequest) -> StateResult {
        match request {
            StateRequest::Open { actor, epoch } => {
                let state = self.actors.entry(actor).or_insert_with(|| ActorState::new(epoch));
                if epoch < state.epoch {
                    return Err(StateError::Fenced);
                }
                state.epoch = epoch;
                state.incoming = None;
                Ok(StateReply::Page(state.page(0)))
            }
            StateRequest::Read { actor, epoch, position } => {
                Ok(StateReply::Page(self.state(actor, epoch)?.page(position)))
            }
            StateRequest::Append { actor, epoch, first, records, durability: _ } => {
                let records = records.unpack().ok_or_else(|| failed("the records cannot be decoded"))?;
                self.state(actor, epoch)?.append(first, records)?;
                Ok(StateReply::Stored)
            }
            StateRequest::Snapshot { actor, epoch, up_to, part, bytes, is_last, durability: _ } => {
                self.state(actor, epoch)?.add_snapshot(up_to, part as usize, bytes, is_last)?;
                Ok(StateReply::Stored)
            }
        }
    }

    pub(super) fn remove(&mut self, actor: ActorKey) -> Option<ActorState> {
        self.actors.remove(&actor)
    }

    /// State of an actor in an epoch that it has begun.
    fn state(&mut self, actor: ActorKey, epoch: ActorIncarnation) -> Result<&mut ActorState, StateError> {
        // The state of an ended actor is gone, which is the same for an incarnation that still runs.
        let state = self.actors.get_mut(&actor).ok_or(StateError::Fenced)?;
        if epoch == state.epoch { Ok(state) } else { Err(StateError::Fenced) }
    }
}

fn failed(text: &str) -> StateError {
    StateError::Failed { text: text.to_owned() }
}

impl ActorState {
    fn new(epoch: ActorIncarnation) -> Self {
        Self { epoch, snapshot: Vec::new(), first: 0, records: VecDeque::new(), incoming: None }
    }

    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn append(&mut self, first: u64, records: Vec<Bytes>) -> Result<(), StateError> {
        let next = self.next();
        if first > next {
            return Err(failed("records are missing before those to be appended"));
        }
        // A repeated append has its records already.
        let known = usize::try_from(next - first).unwrap_or(usize::MAX);
        self.records.extend(records.into_iter().skip(known));
        Ok(())
    }

    fn add_snapshot(
        &mut self,
        up_to: u64,
        part: usize,
        bytes: Payload,
        is_last: bool,
    ) -> Result<(), StateError> {
        if up_to > self.next() {
            return Err(failed("a snapshot is ahead of the records"));
        }
        if part == 0 {
            self.incoming = Some((up_to, Vec::new()));
        }
        let Some((_, parts)) = self.incoming.as_mut().filter(|(of, _)| *of == up_to) else {
            // A repeated last part, after which the snapshot is complete.
            return Ok(());
        };
        match part.cmp(&parts.len()) {
            std::cmp::Ordering::Equal => parts.push(bytes),
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => return Err(failed("a part of a snapshot is missing")),
        }
        if is_last && let Some((up_to, parts)) = self.incoming.take() {
            let replaced = usize::try_from(up_to.saturating_sub(self.first)).unwrap_or(usize::MAX);
            self.records.drain(..replaced.min(self.records.len()));
            (self.snapshot, self.first) = (parts, up_to.max(self.first));
        }
        Ok(())
    }

    /// Page from a position: a part of the snapshot, then records, counted on.
    fn page(&self, position: u64) -> StatePage {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        let parts = self.snapshot.len();
        // A part fills a page.
        if position < parts {
            let is_last = position + 1 == parts && self.records.is_empty();
            return StatePage {
                snapshot: vec![self.snapshot[position].clone()],
                first: self.first,
                records: PackedRecords::default(),
                next: (!is_last).then_some(position as u64 + 1),
            };
        }
        let skipped = (position - parts).min(self.records.len());
        let (mut bytes, mut page) = (0, Vec::new());
        for record in self.records.iter().skip(skipped) {
            if !page.is_empty() && bytes + record.len() > STATE_GROUP_BYTES_MAX {
                break;
            }
            bytes += record.len();
            page.push(record.clone());
        }
        let end = skipped + page.len();
        StatePage {
            snapshot: Vec::new(),
            first: self.first + skipped as u64,
            records: PackedRecords::pack(&page),
            next: (end < self.records.len()).then_some((parts + end) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::protocol::Durability;

    const ACTOR: ActorKey = ActorKey(1);

    fn open(states: &mut MemoryStates, epoch: u32) -> Result<StatePage, StateError> {
        page(states.handle(StateRequest::Open { actor: ACTOR, epoch: ActorIncarnation(epoch) }))
    }

    fn page(result: StateResult) -> Result<StatePage, StateError> {
        match result? {
            StateReply::Page(page) => Ok(page),
            StateReply::Stored => panic!("a page was requested"),
        }
    }

    fn append(states: &mut MemoryStates, epoch: u32, first: u64, records: &[&'static [u8]]) -> StateResult {
        let records: Vec<_> = records.iter().map(|record| Bytes::from_static(record)).collect();
        let records = PackedRecords::pack(&records);
        let (epoch, durability) = (ActorIncarnation(epoch), Durability::Written);
        states.handle(StateRequest::Append { actor: ACTOR, epoch, first, records, durability })
    }

    fn snapshot(
        states: &mut MemoryStates,
        up_to: u64,
        part: u32,
        bytes: &'static [u8],
        is_last: bool,
    ) -> StateResult {
        let (bytes, epoch) = (Bytes::from_static(bytes).into(), ActorIncarnation(0));
        let durability = Durability::Written;
        states.handle(StateRequest::Snapshot { actor: ACTOR, epoch, up_to, part, bytes, is_last, durability })
    }

    /// All that a new incarnation reads.
    fn read(states: &mut MemoryStates, epoch: u32) -> (Vec<Bytes>, u64, Vec<Bytes>) {
        let mut next_page = open(states, epoch).unwrap();
        let (mut parts, mut first, mut records) = (Vec::new(), None, Vec::new());
        loop {
            parts.extend(next_page.snapshot.into_iter().map(Bytes::from));
            let read = next_page.records.unpack().unwrap();
            if !read.is_empty() {
                first.get_or_insert(next_page.first);
            }
            records.extend(read);
            let Some(position) = next_page.next else { break };
            let epoch = ActorIncarnation(epoch);
            next_page = page(states.handle(StateRequest::Read { actor: ACTOR, epoch, position })).unwrap();
        }
        (parts, first.unwrap_or(next_page.first), records)
    }

    #[test]
    fn an_earlier_epoch_is_refused_from_the_next_open_on() {
        let mut states = MemoryStates::default();
        open(&mut states, 3).unwrap();
        append(&mut states, 3, 0, &[b"a"]).unwrap();
        open(&mut states, 5).unwrap();
        for epoch in [3, 4, 6] {
            assert_eq!(append(&mut states, epoch, 1, &[b"b"]), Err(StateError::Fenced));
            // A barrier is refused, too.
            assert_eq!(append(&mut states, epoch, 1, &[]), Err(StateError::Fenced));
        }
        assert_eq!(open(&mut states, 4).unwrap_err(), StateError::Fenced);
        append(&mut states, 5, 1, &[b"b"]).unwrap();
        assert_eq!(read(&mut states, 5).2, [&b"a"[..], b"b"]);
        states.remove(ACTOR);
        assert_eq!(append(&mut states, 5, 2, &[b"c"]), Err(StateError::Fenced));
    }

    #[test]
    fn a_repeated_append_has_no_effect_and_a_gap_is_refused() {
        let mut states = MemoryStates::default();
        open(&mut states, 0).unwrap();
        for _ in 0..2 {
            append(&mut states, 0, 0, &[b"a", b"b"]).unwrap();
        }
        append(&mut states, 0, 3, &[b"d"]).unwrap_err();
        append(&mut states, 0, 2, &[b"c"]).unwrap();
        assert_eq!(read(&mut states, 0), (Vec::new(), 0, vec!["a".into(), "b".into(), "c".into()]));
    }

    #[test]
    fn a_complete_snapshot_replaces_the_records_before_it() {
        let mut states = MemoryStates::default();
        open(&mut states, 0).unwrap();
        append(&mut states, 0, 0, &[b"a", b"b", b"c"]).unwrap();
        snapshot(&mut states, 4, 0, b"ahead", true).unwrap_err();
        snapshot(&mut states, 2, 0, b"one", false).unwrap();
        // Not complete, so nothing is replaced.
        assert_eq!(read(&mut states, 0).2.len(), 3);
        // The reader has begun an epoch again, which drops the first part.
        snapshot(&mut states, 2, 0, b"one", false).unwrap();
        snapshot(&mut states, 2, 2, b"three", true).unwrap_err();
        for _ in 0..2 {
            snapshot(&mut states, 2, 1, b"two", true).unwrap();
        }
        assert_eq!(read(&mut states, 0), (vec!["one".into(), "two".into()], 2, vec!["c".into()]));
        append(&mut states, 0, 3, &[b"d"]).unwrap();
        snapshot(&mut states, 4, 0, b"all", true).unwrap();
        assert_eq!(read(&mut states, 0), (vec!["all".into()], 4, Vec::new()));
    }

    #[test]
    fn a_large_state_is_read_in_pages() {
        let mut states = MemoryStates::default();
        open(&mut states, 0).unwrap();
        let large = vec![7; STATE_GROUP_BYTES_MAX / 2 - 8];
        let large: &'static [u8] = Vec::leak(large);
        append(&mut states, 0, 0, &[large, large, large, b"end"]).unwrap();
        let first = open(&mut states, 0).unwrap();
        assert_eq!((first.records.unpack().unwrap().len(), first.next), (2, Some(2)));
        assert_eq!(read(&mut states, 0).2.len(), 4);
    }
}
