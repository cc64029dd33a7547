//! Record of a decision as it is stored, and snapshot of everything that replay makes.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::answered::{Answer, AnsweredCalls};
use super::outbox::{Outbox, Send};
use super::{Durable, flat};
use crate::config::STATE_SNAPSHOT_BYTES_MAX;

/// Decision as it is stored. Encoded without names of fields, since there are many.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record<E>(
    /// Events, in order.
    pub(super) Vec<E>,
    /// The call, if it may be repeated.
    pub(super) Option<Answer>,
    /// Messages to other actors, in order.
    pub(super) Vec<Send>,
    /// Numbers of earlier messages that their receivers have handled.
    pub(super) Vec<u64>,
);

/// State of an actor between two records, with all that belongs to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Snapshot<S> {
    pub(super) state: S,
    pub(super) answered: AnsweredCalls,
    pub(super) outbox: Outbox,
}

impl<S> Snapshot<S> {
    pub(super) fn new(state: S) -> Self {
        Self { state, answered: AnsweredCalls::default(), outbox: Outbox::default() }
    }
}

impl<S: Durable> Snapshot<S> {
    /// Applies a record, which was made after all earlier ones.
    pub(super) fn apply(&mut self, record: &Record<S::Event>) {
        let Record(events, answer, sends, handled) = record;
        for event in events {
            self.state.apply(event);
        }
        if let Some(answer) = answer {
            self.answered.add(answer.clone());
        }
        self.outbox.apply(sends, handled);
    }

    /// Encodes it in parts of at most `part_bytes_max` bytes.
    pub(super) fn encode_parts(&self, part_bytes_max: usize) -> Result<Vec<Bytes>, String> {
        let mut bytes = flat::encode(self, STATE_SNAPSHOT_BYTES_MAX).map_err(|error| error.to_string())?;
        let mut parts = Vec::new();
        while bytes.len() > part_bytes_max {
            parts.push(bytes.split_to(part_bytes_max));
        }
        parts.push(bytes);
        Ok(parts)
    }

    /// Decodes the parts.
    pub(super) fn decode_parts(parts: Vec<Bytes>) -> Result<Self, String> {
        let bytes = match <[Bytes; 1]>::try_from(parts) {
            Ok([bytes]) => bytes,
            Err(parts) => {
                let mut bytes = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                parts.iter().for_each(|part| bytes.extend_from_slice(part));
                bytes.freeze()
            }
        };
        flat::decode(bytes).map_err(|error| format!("its snapshot: {error}"))
    }
}
