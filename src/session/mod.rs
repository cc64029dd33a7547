//! Two hosts as state machines: a [`Handshake`] for each link, and one [`Session`] over all links.
//!
//! This module owns who may speak ([`Handshake`]), which calls are open in either direction, when
//! they end and how ([`Session`]), and what is to be written ([`WriteBatch`]). It does no I/O and
//! reads no clock: frames and instants come in, frames, bytes and events go out, and whoever
//! drives it owns the socket and the timer.
//!
//! Links come and go under a session: numbered frames are kept until the peer has acknowledged them,
//! and written again on the next link if it has not. Messages to an actor that has no credit left
//! are parked here ([`Rejected::Full`] beyond a limit); large ones go out in chunks.
//!
//! Invariants: every call that was accepted ends exactly once, with a reply or with a [`CallError`],
//! unless it is forgotten; a call is reported as not delivered only if the peer cannot have read
//! the whole of it; a numbered frame is received once, in order; what is unacknowledged, what is
//! parked and what an actor has taken on stay within their budgets, answers aside.
//!
//! # Examples
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use roadshow::id::{Target, TypeHash};
//! use roadshow::session::{
//!     CallError, DisconnectReason, Event, Retryable, Session, SessionLimits, WriteBatch, WriteCertainty,
//! };
//! use roadshow::wire::{self, Resume, SessionParameters};
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
//! // A link comes up, and breaks before a batch is written.
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
//! // There is evidence that the peer is gone for good.
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
