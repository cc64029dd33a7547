//! States in memory, by actor.
//!
//! ```text
//!   Seal ---> Snapshot (all), Append ... ---> Complete ---> Append, Snapshot (earlier) ... ---> Seal ...
//!             '----- copy beside the log ----'  replaces the log
//! ```

use std::cmp::Ordering;

use rustc_hash::FxHashMap;

use super::log::{Log, Snapshot, cost, cost_of_all};
use crate::config::{STATE_SNAPSHOT_BYTES_MAX, STATES_PER_JOB_BYTES_MAX};
use crate::durable::protocol::{
    PackedRecords, Position, Replaced, SnapshotPart, StateError, StateReply, StateRequest, StateResult,
};
use crate::spec::{JobId, StateKey};
use crate::wire::Payload;

/// Bytes that a state takes beside its content.
const STATE_BYTES: u64 = 256;

/// States by actor.
#[derive(Debug)]
pub struct MemoryStates {
    actors: FxHashMap<StateKey, ActorState>,
    /// Bytes of the states of each job.
    jobs: FxHashMap<JobId, u64>,
    bytes_max: u64,
}

/// State of an actor.
#[derive(Debug, Default)]
pub(super) struct ActorState {
    /// Number of the latest configuration; requests of others are refused.
    number: u64,
    /// Configuration in which the log was complete; zero if it never was.
    complete_in: u64,
    log: Log,
    /// Snapshot of which parts are missing.
    incoming: Option<Incoming>,
    /// Copy from another holder, until it is complete. A source that dies while it is read must not cost the log.
    copy: Option<Log>,
}

/// Snapshot of which parts are missing.
#[derive(Debug)]
struct Incoming {
    up_to: u64,
    replaces: Replaced,
    snapshot: Snapshot,
}

/// Room that a job has left at a holder.
struct Room {
    job: JobId,
    used: u64,
    bytes_max: u64,
}

impl Room {
    /// Refuses bytes for which there is no room.
    fn check(&self, bytes: u64) -> Result<(), StateError> {
        let Self { job, used, bytes_max } = self;
        if used.saturating_add(bytes) <= *bytes_max {
            return Ok(());
        }
        let text = format!(
            "the states of job {job} take {used} bytes at a holder, and {bytes} more exceed the limit of {bytes_max}"
        );
        Err(StateError::Full { text })
    }
}

impl Default for MemoryStates {
    fn default() -> Self {
        Self::new(STATES_PER_JOB_BYTES_MAX)
    }
}

impl MemoryStates {
    /// States of which those of a job take up to `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self { actors: FxHashMap::default(), jobs: FxHashMap::default(), bytes_max }
    }

    /// Carries out a request.
    ///
    /// # Errors
    ///
    /// [`StateError`] if it is not carried out.
    pub fn handle(&mut self, request: StateRequest) -> StateResult {
        let key = request.key();
        let used = self.jobs.get(&key.job).copied().unwrap_or(0);
        let room = Room { job: key.job, used, bytes_max: self.bytes_max };
        let is_seal = matches!(request, StateRequest::Seal { .. });
        if is_seal && !self.actors.contains_key(&key) {
            room.check(STATE_BYTES)?;
            self.actors.insert(key, ActorState::default());
            *self.jobs.entry(key.job).or_default() += STATE_BYTES;
        }
        // The state of an ended actor is gone, which is the same for an incarnation that still runs.
        let state = self.actors.get_mut(&key).ok_or(StateError::Fenced)?;
        let before = state.bytes();
        let result = state.handle(request, &room);
        let (after, used) = (state.bytes(), self.jobs.entry(key.job).or_default());
        *used = *used + after - before;
        result
    }

    /// Removes the state of an actor.
    pub(super) fn remove(&mut self, key: StateKey) -> Option<ActorState> {
        let state = self.actors.remove(&key)?;
        let used = self.jobs.entry(key.job).or_default();
        *used -= state.bytes();
        if *used == 0 {
            self.jobs.remove(&key.job);
        }
        Some(state)
    }

    /// Removes the states of a job.
    #[cfg(any(feature = "cli", feature = "sim", test))]
    pub(super) fn remove_job(&mut self, job: JobId) -> Vec<ActorState> {
        let keys: Vec<_> = self.keys().into_iter().filter(|key| key.job == job).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Actors with a state.
    pub fn keys(&self) -> Vec<StateKey> {
        self.actors.keys().copied().collect()
    }

    /// Checks that the bytes of each job are those of its states.
    ///
    /// # Panics
    ///
    /// If they are not.
    pub fn check(&self) {
        let mut jobs = FxHashMap::<JobId, u64>::default();
        for (key, state) in &self.actors {
            *jobs.entry(key.job).or_default() += state.bytes();
        }
        assert_eq!(jobs, self.jobs);
    }
}

fn failed(text: &str) -> StateError {
    StateError::Failed { text: text.to_owned() }
}

impl ActorState {
    /// Memory that the state takes, in bytes.
    fn bytes(&self) -> u64 {
        let incoming = self.incoming.as_ref().map_or(0, |incoming| incoming.snapshot.bytes());
        STATE_BYTES + self.log.bytes() + self.copy.as_ref().map_or(0, Log::bytes) + incoming
    }

    fn handle(&mut self, request: StateRequest, room: &Room) -> StateResult {
        let fence = |number| if number == self.number { Ok(()) } else { Err(StateError::Fenced) };
        match request {
            StateRequest::Seal { number, .. } => self.seal(number).map(StateReply::Sealed),
            StateRequest::Read { number, position, bytes_max, .. } => {
                fence(number)?;
                Ok(StateReply::Page(self.log.page(position, bytes_max)))
            }
            StateRequest::Append { number, first, records, .. } => {
                fence(number)?;
                self.append(first, records, room)
            }
            StateRequest::Snapshot { number, part, .. } => {
                fence(number)?;
                self.add_part(part, room)
            }
            StateRequest::Complete { number, next, .. } => {
                fence(number)?;
                self.complete(next)
            }
        }
    }

    fn seal(&mut self, number: u64) -> Result<Position, StateError> {
        if number < self.number {
            return Err(StateError::Fenced);
        }
        (self.number, self.incoming, self.copy) = (number, None, None);
        Ok(Position { complete_in: self.complete_in, next: self.log.next() })
    }

    fn append(&mut self, first: u64, records: PackedRecords, room: &Room) -> StateResult {
        let mut records = records.unpack().ok_or_else(|| failed("the records cannot be decoded"))?;
        let log = self.copy.as_mut().unwrap_or(&mut self.log);
        log.skip_known(first, &mut records).map_err(failed)?;
        // An append without records checks the number, and needs no room.
        if !records.is_empty() {
            room.check(cost_of_all(&records))?;
        }
        log.append(records);
        Ok(StateReply::Stored)
    }

    fn add_part(&mut self, part: SnapshotPart, room: &Room) -> StateResult {
        let SnapshotPart { up_to, index, is_last, replaces, bytes } = part;
        if replaces == Replaced::Earlier && (self.copy.is_some() || up_to > self.log.next()) {
            return Err(failed("a snapshot is ahead of the records"));
        }
        if index == 0 {
            self.incoming = Some(Incoming { up_to, replaces, snapshot: Snapshot::default() });
        }
        let is_same = |it: &&mut Incoming| (it.up_to, it.replaces) == (up_to, replaces);
        let Some(incoming) = self.incoming.as_mut().filter(is_same) else {
            // A repeated last part, after which the snapshot is complete.
            return Ok(StateReply::Stored);
        };
        match (index as usize).cmp(&incoming.snapshot.parts()) {
            Ordering::Equal => incoming.push(bytes, room)?,
            Ordering::Less => return Ok(StateReply::Stored),
            Ordering::Greater => return Err(failed("a part of a snapshot is missing")),
        }
        if is_last && let Some(Incoming { snapshot, .. }) = self.incoming.take() {
            match replaces {
                Replaced::Earlier => drop(self.log.compact(snapshot, up_to)),
                Replaced::All => self.copy = Some(Log::starting_with(snapshot, up_to)),
            }
        }
        Ok(StateReply::Stored)
    }

    fn complete(&mut self, next: u64) -> StateResult {
        if self.incoming.is_some() || self.copy.as_ref().unwrap_or(&self.log).next() != next {
            return Err(failed("the copy of the state is not complete"));
        }
        if let Some(copy) = self.copy.take() {
            self.log = copy;
        }
        self.complete_in = self.number;
        Ok(StateReply::Stored)
    }
}

impl Incoming {
    fn push(&mut self, part: Payload, room: &Room) -> Result<(), StateError> {
        let bytes_max = match self.replaces {
            // It replaces records that take more, so without it there would never be room again.
            Replaced::Earlier => room.bytes_max.saturating_add(STATE_SNAPSHOT_BYTES_MAX as u64),
            Replaced::All => room.bytes_max,
        };
        Room { bytes_max, ..*room }.check(cost(&part))?;
        self.snapshot.push(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
