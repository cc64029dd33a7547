//! Requests of a durable actor's host to the holder of its state.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{ActorIncarnation, TypeHash};
use crate::spec::ActorKey;
use crate::wire::Payload;

/// Service of a holder on its host.
pub(crate) const STATE: TypeHash = TypeHash::of("roadshow::State");

/// Request to a holder. The epoch is the actor's incarnation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum StateRequest {
    /// Begins an epoch: the holder refuses appends of earlier ones from then on. Replies with the first page.
    Open { actor: ActorKey, epoch: ActorIncarnation },
    /// Reads the page that begins at a position, which a page before it has named.
    Read { actor: ActorKey, epoch: ActorIncarnation, position: u64 },
    /// Stores records. Without records it only checks the epoch. Repeating the last append has no effect.
    Append {
        actor: ActorKey,
        epoch: ActorIncarnation,
        /// Number of the first record.
        first: u64,
        records: PackedRecords,
        durability: Durability,
    },
    /// Stores a part of a snapshot. With the last part it replaces all records before `up_to`.
    Snapshot {
        actor: ActorKey,
        epoch: ActorIncarnation,
        up_to: u64,
        /// Number of the part, from zero, which begins a new snapshot.
        part: u32,
        bytes: Payload,
        is_last: bool,
        durability: Durability,
    },
}

/// Reply of a holder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum StateReply {
    Page(StatePage),
    Stored,
}

/// Part of an actor's state: the parts of its snapshot, then the records after it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StatePage {
    /// Parts of the snapshot.
    pub(crate) snapshot: Vec<Payload>,
    /// Number of the first record of the page.
    pub(crate) first: u64,
    pub(crate) records: PackedRecords,
    /// Position of the next page; `None` after the last one.
    pub(crate) next: Option<u64>,
}

/// Records one after the other in one payload, each with its length before it: a payload for each would cost more than
/// a short record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PackedRecords(Payload);

impl PackedRecords {
    pub(crate) fn pack(records: &[Bytes]) -> Self {
        let size = records.iter().map(|record| 4 + record.len()).sum();
        let mut packed = BytesMut::with_capacity(size);
        for record in records {
            // A record is shorter than a frame.
            packed.put_u32_le(record.len() as u32);
            packed.put_slice(record);
        }
        Self(packed.freeze().into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The records, which share the memory of the payload; `None` if the bytes are not records.
    pub(crate) fn unpack(self) -> Option<Vec<Bytes>> {
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

/// When records count as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Durability {
    /// The holder's process has them, or has written them to its file.
    #[default]
    Written,
    /// The holder's disk has them.
    Synced,
}

/// Refusal of a holder.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub(crate) enum StateError {
    /// A later incarnation has the state.
    #[error("a later incarnation of the actor has its state")]
    Fenced,
    /// There is no room now; the same request may succeed later.
    #[error("{text}")]
    Full { text: String },
    /// The state is damaged, or the holder's disk fails.
    #[error("{text}")]
    Failed { text: String },
}

/// Reply to a request.
pub(crate) type StateResult = Result<StateReply, StateError>;

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
