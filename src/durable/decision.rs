//! Events and messages of one decision.

use std::fmt;

use super::addr::DurableAddr;
use super::outbox::Send;
use super::{Decide, Durable};
use crate::registry::RemoteMessage;
use crate::wire::EncodeError;

/// Events that a decision makes, and messages that it sends to other durable actors.
pub struct Decision<S: Durable> {
    events: Vec<S::Event>,
    sends: Vec<Send>,
    limit: usize,
    failed: Option<EncodeError>,
}

impl<S: Durable> Decision<S> {
    pub(super) fn new(limit: usize) -> Self {
        Self { events: Vec::new(), sends: Vec::new(), limit, failed: None }
    }

    /// Adds an event. Events are applied in the order in which they are added.
    pub fn record(&mut self, event: S::Event) {
        self.events.push(event);
    }

    /// Sends a message to another durable actor, which handles it once.
    ///
    /// The message is stored with the events of this decision, and leaves after that. It is sent until the receiver
    /// has handled it, over restarts of both actors. Messages from this actor to one receiver are handled in the order
    /// of the decisions. The reply is dropped. If the receiver has ended for good, the message is dropped with a
    /// warning in the log.
    ///
    /// A message that cannot be encoded fails the call, and the decision changes nothing.
    pub fn send<T: Decide<M>, M: RemoteMessage>(&mut self, to: &DurableAddr<T>, message: M) {
        match Send::new(to, message, self.limit) {
            Ok(send) => self.sends.push(send),
            Err(error) => self.failed = Some(error),
        }
    }

    pub(super) fn into_parts(self) -> Result<(Vec<S::Event>, Vec<Send>), EncodeError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok((self.events, self.sends)),
        }
    }
}

impl<S: Durable> fmt::Debug for Decision<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("events", &self.events.len())
            .field("sends", &self.sends.len())
            .finish_non_exhaustive()
    }
}
