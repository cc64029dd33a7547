//! Protocol state machines of two hosts: a [`Handshake`] for each link, one [`Session`] over all
//! links.
//!
//! This module owns the authentication of peers ([`Handshake`]), the open calls of both directions
//! and their outcomes ([`Session`]), and the order of the bytes to write ([`WriteBatch`]). It does
//! no I/O and reads no clock: frames and instants go in; frames, bytes and events come out. The
//! caller owns the socket and the timer.
//!
//! Links come and go under a session. Sequenced frames are retained until the peer acknowledges
//! them, and sent again on the next link otherwise. Messages to an actor without credit are queued
//! here ([`Rejected::Full`] beyond a limit). Large messages are sent in chunks.
//!
//! Invariants: every accepted call ends exactly once, with a reply or a [`CallError`], unless it is
//! cancelled. A call is reported as not delivered only if the peer cannot have received all of it.
//! A sequenced frame is received once, in order. Unacknowledged bytes, queued bytes and the
//! unhandled bytes of each actor stay within their budgets, except replies.
//!
//! # Examples
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use roadshow::internals::id::{Target, TypeHash};
//! use roadshow::internals::session::{
//!     CallError, DisconnectReason, Event, Retryable, Session, SessionLimits, WriteBatch, WriteCertainty,
//! };
//! use roadshow::internals::wire::{self, Resume, SessionParameters};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Instant::now();
//! let mut session = Session::new(SessionLimits::default());
//! let message = TypeHash::of("greeting");
//! let called = wire::encode("hello", 1024, |body| {
//!     session.call(now, Target::HOST, message, None, Retryable::Never, body, "slot")
//! })?;
//! assert!(called.is_ok());
//!
//! // A link is attached, and breaks before a batch is written.
//! let size = 1 << 20;
//! let terms =
//!     SessionParameters { frame_bytes_max: size, outgoing_bytes_max: size, window_bytes: size, schema: 0 };
//! let mut events = Vec::new();
//! session.attach(&terms, Resume::default(), None, &mut events)?;
//! let mut batch = WriteBatch::default();
//! session.take_outgoing(&mut batch);
//! session.detach(WriteCertainty::Exact);
//! assert_eq!(events, []);
//!
//! // The peer is known to be down for good.
//! session.reset(&DisconnectReason::Closed, &mut events);
//! let failure = CallError::NotDelivered(DisconnectReason::Closed);
//! assert_eq!(events, [Event::Failed { call_slot: "slot", failure }]);
//! # Ok(())
//! # }
//! ```

mod batch;
mod call_table;
mod calls;
mod chunking;
mod deadlines;
mod dedup;
mod disconnect;
mod error;
mod event;
mod flow_control;
mod flow_table;
mod handshake;
mod machine;
mod queued_frame;
mod secret;
mod send_buffer;
mod send_queue;
#[cfg(test)]
mod tests;
mod waiters;

pub use batch::WriteBatch;
pub use disconnect::DisconnectReason;
pub use error::{HandshakeError, Rejected, SessionError};
pub use event::{CallError, CreditCharge, Event, Events};
pub use handshake::{DialAttempt, Handshake, HandshakeConfig, ProvenPeer, Step};
pub use machine::{Retryable, Session, SessionLimits, WriteCertainty};
pub use secret::Secret;
pub use waiters::{Waiter, WaiterId};
