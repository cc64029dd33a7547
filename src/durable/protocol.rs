//! Requests of a durable actor's host to the holders of its state.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::TypeHash;
use crate::spec::StateKey;
use crate::wire::Payload;

/// Service of a holder on its host.
pub const STATE: TypeHash = TypeHash::of("roadshow::State");

/// Request to a holder. The number is that of a configuration: a holder refuses all but the latest that it knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum StateRequest {
    /// Refuses appends of earlier configurations from now on. Replies with the position of the state.
    Seal {
        /// The state.
        key: StateKey,
        /// The configuration that begins.
        number: u64,
    },
    /// Reads a page.
    Read {
        /// The state.
        key: StateKey,
        /// The configuration.
        number: u64,
        /// Zero, or the position that the page before it has named.
        position: u64,
        /// Bytes of the page's records, unless it has a single one that is larger.
        bytes_max: u64,
    },
    /// Stores records. Without records it only checks the number. Repeating the last append has no effect.
    Append {
        /// The state.
        key: StateKey,
        /// The configuration.
        number: u64,
        /// Number of the first record.
        first: u64,
        /// The records, in order.
        records: PackedRecords,
    },
    /// Stores a part of a snapshot. With the last part it replaces records.
    Snapshot {
        /// The state.
        key: StateKey,
        /// The configuration.
        number: u64,
        /// The part.
        part: SnapshotPart,
    },
    /// Marks the state as complete in this configuration. A copy from another holder replaces the earlier state now.
    Complete {
        /// The state.
        key: StateKey,
        /// The configuration.
        number: u64,
        /// Number of the next record of the copy.
        next: u64,
    },
}

impl StateRequest {
    /// State that the request is about.
    #[must_use]
    pub fn key(&self) -> StateKey {
        match self {
            Self::Seal { key, .. }
            | Self::Read { key, .. }
            | Self::Append { key, .. }
            | Self::Snapshot { key, .. }
            | Self::Complete { key, .. } => *key,
        }
    }
}

/// Part of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Number of the record that the snapshot ends before.
    pub up_to: u64,
    /// Index of the part; zero begins a new snapshot.
    pub index: u32,
    /// True for the last part of the snapshot.
    pub is_last: bool,
    /// Scope of the replacement.
    pub replaces: Replaced,
    /// Encoded snapshot from where the part before it ends.
    pub bytes: Payload,
}

/// Records that a snapshot replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replaced {
    /// Records before its end.
    Earlier,
    /// All: the holder gets a copy of the state from another one. It keeps what it has until the copy is complete.
    All,
}

/// Reply of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateReply {
    /// The state is sealed; its extent.
    Sealed(Position),
    /// The page that was asked for.
    Page(StatePage),
    /// The request is carried out.
    Stored,
}

/// Extent of a holder's copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Configuration in which the copy was complete; zero if it never was.
    ///
    /// Copies of one configuration have the same records, as far as both have them.
    pub complete_in: u64,
    /// Number of the next record.
    pub next: u64,
}

/// Part of an actor's state: the parts of its snapshot, then the records after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePage {
    /// Parts of the snapshot.
    pub snapshot: Vec<Payload>,
    /// Number of the first record of the page.
    pub first: u64,
    /// Records of the page, in order.
    pub records: PackedRecords,
    /// Position of the next page; `None` after the last one.
    pub next: Option<u64>,
}

/// Records one after the other in one payload, each with its length before it: a payload for each would cost more than
/// a short record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedRecords(Payload);

impl PackedRecords {
    /// Packs records, each of which is shorter than a frame.
    #[must_use]
    pub fn pack(records: &[Bytes]) -> Self {
        let size = records.iter().map(|record| 4 + record.len()).sum();
        let mut packed = BytesMut::with_capacity(size);
        for record in records {
            packed.put_u32_le(record.len() as u32);
            packed.put_slice(record);
        }
        Self(packed.freeze().into())
    }

    /// The records, which share the memory of the payload; `None` if the bytes are not records.
    #[must_use]
    pub fn unpack(self) -> Option<Vec<Bytes>> {
        let mut packed = Bytes::from(self.0);
        let mut records = Vec::new();
        while !packed.is_empty() {
            let length = u32::from_le_bytes(*packed.first_chunk()?) as usize;
            if packed.len() - 4 < length {
                return None;
            }
            drop(packed.split_to(4));
            records.push(packed.split_to(length));
        }
        Some(records)
    }
}

/// Refusal of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum StateError {
    /// The holder knows a later configuration, or the state is gone.
    #[error("a later incarnation of the actor has its state")]
    Fenced,
    /// There is no room now; the same request may succeed later.
    #[error("{text}")]
    Full {
        /// Bytes in use, and the limit.
        text: String,
    },
    /// The request contradicts what the holder has.
    #[error("{text}")]
    Failed {
        /// The contradiction.
        text: String,
    },
}

/// Reply to a request.
pub type StateResult = Result<StateReply, StateError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_packed_and_unpacked() {
        let records: Vec<_> = [0, 1, 300].map(|length| Bytes::from(vec![7; length])).into();
        let packed = PackedRecords::pack(&records);
        let bytes = Bytes::from(packed.0.clone());
        assert_eq!(packed.unpack().unwrap(), records);
        assert_eq!(PackedRecords::default().unpack().unwrap(), Vec::<Bytes>::new());
        for length in (1..bytes.len()).filter(|length| ![4, 9].contains(length)) {
            assert!(PackedRecords(bytes.slice(..length).into()).unpack().is_none(), "{length}");
        }
    }
}
