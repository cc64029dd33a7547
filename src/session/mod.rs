//! One peer link as a state machine: first a [`Handshake`], then a [`Session`].
//!
//! This module owns who may speak ([`Handshake`]), which calls are open in either direction, when
//! they end and how ([`Session`]), and what waits to be written ([`Batch`]). It does no I/O and
//! reads no clock: frames and instants come in, frames, bytes and events go out, and whoever
//! drives it owns the socket and the timer.
//!
//! Invariants: every call that was accepted ends exactly once, with a reply or with a [`Failed`],
//! unless it is forgotten; a call is reported as not delivered only if the peer cannot have read
//! the whole of it; what waits to be written stays within its budget, answers aside.
//!
//! # Examples
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use roadshow::id::{Target, TypeHash};
//! use roadshow::session::{Batch, Event, Failed, LinkLoss, Session, SessionLimits, Written};
//! use roadshow::wire;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Instant::now();
//! let mut session = Session::new(SessionLimits::default());
//! session.attach(now, 1 << 20);
//!
//! let message = TypeHash::of("greeting");
//! let called = wire::encode("hello", 1024, |body| {
//!     session.call(now, Target::HOST, message, None, body, "ticket")
//! })?;
//! assert!(called.is_ok());
//!
//! let mut batch = Batch::default();
//! session.take_outgoing(&mut batch);
//! // The link breaks before the batch is written.
//! let mut events = Vec::new();
//! session.detach(LinkLoss::Closed, Written::Told, &mut events);
//! assert_eq!(events, [Event::Failed { ticket: "ticket", failure: Failed::NotDelivered(LinkLoss::Closed) }]);
//! # Ok(())
//! # }
//! ```

mod batch;
mod calls;
mod error;
mod event;
mod handshake;
mod loss;
mod machine;
mod outbox;
mod secret;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use error::{HandshakeError, Rejected, SessionError};
pub use event::{Event, Failed};
pub use handshake::{Handshake, HandshakeConfig, ProvenPeer, Step};
pub use loss::LinkLoss;
pub use machine::{Session, SessionLimits, Written};
pub use secret::Secret;
