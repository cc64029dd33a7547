//! Links come and go under a session.

use std::cmp::Ordering;

use super::{Content, Session};
use crate::config::{ACK_BYTES, Planted};
use crate::id::CallId;
use crate::session::{Event, Failed, LinkLoss, SessionError};
use crate::wire::{Encoded, Resume, Schemas, Terms};

/// What is known, when a link ends, about the bytes that its writer had taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The writer itself says that the link ended, and has told all that the kernel has.
    Told,
    /// The writer may be about to tell of more: everything that it took may have been written.
    Unsure,
}

impl<T> Session<T> {
    /// Where this side is, for the handshake of the next link.
    #[must_use]
    pub fn resume(&self) -> Resume {
        Resume { resets: self.resets, received: self.inbound.received }
    }

    /// Whether the peer was further than that when it was heard last: what says so was under way for
    /// long, and no link is to be made of it.
    #[must_use]
    pub fn is_out_of_date(&self, resume: Resume) -> bool {
        match resume.resets.cmp(&self.peer_resets) {
            Ordering::Less => true,
            Ordering::Equal => self.log.is_beyond(resume.received),
            Ordering::Greater => false,
        }
    }

    /// Notes that a link is there, to a peer that accepts `terms` and is where `resume` says.
    ///
    /// What the peer has not received is written again. If the peer has dropped its half of the
    /// session, everything is dropped here as well: open calls end. `schemas` is the table of this
    /// side's types, where the peer's differs.
    ///
    /// # Errors
    ///
    /// When the peer cannot be where it says. The session is reset then; close the link.
    pub fn attach(
        &mut self,
        terms: &Terms,
        resume: Resume,
        schemas: Option<Encoded<'_>>,
        events: &mut Vec<Event<T>>,
    ) -> Result<(), SessionError> {
        if resume.resets != self.peer_resets {
            self.drop_all(&LinkLoss::Reset, events);
            self.peer_resets = resume.resets;
        }
        if !self.log.relink(resume.received) {
            let received = resume.received;
            self.reset(&LinkLoss::Protocol(SessionError::Ack { received }.to_string()), events);
            return Err(SessionError::Ack { received });
        }
        self.attached = true;
        // The handshake has told the peer.
        self.acknowledged();
        let theirs = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        self.inbound.ack_bytes = ACK_BYTES.min(theirs(terms.outgoing_bytes_max) / 4);
        self.frame_bytes_max = self.limits.frame_bytes_max.min(theirs(terms.frame_bytes_max));
        self.flows.set_window(terms.window_bytes);
        let limit = self.frame_bytes_max;
        if limit < self.limits.frame_bytes_max {
            self.drop_parked(limit, events, |bytes| {
                let text = format!("it accepts frames of {limit} bytes at most, and the call takes {bytes}");
                LinkLoss::Unreachable(text)
            });
        }
        if let Some(body) = schemas
            && !self.schemas_told
        {
            self.schemas_told = true;
            self.put_schemas(body);
        }
        self.tell_floor();
        self.give_back_withheld();
        self.flows.make_all_ready();
        self.unpark();
        self.say_goodbye_if_idle();
        Ok(())
    }

    /// In one piece, whatever it takes: it is to be there before the messages that it is about. A
    /// table that is over the peer's limit is left out, and messages are decoded as they come.
    fn put_schemas(&mut self, body: Encoded<'_>) {
        if Schemas::frame_bytes(body) <= self.frame_bytes_max {
            self.log.push(|out| Schemas::put(body, out));
        }
    }

    /// Gives up what is parked: the peer cannot be reached, and none of it was ever on the way.
    ///
    /// To be called without a link. What was on the way stays, and so does the peer's half.
    pub fn abandon_parked(&mut self, loss: &LinkLoss, events: &mut Vec<Event<T>>) {
        self.drop_parked(0, events, |_| loss.clone());
    }

    fn drop_parked(
        &mut self,
        longer_than: usize,
        events: &mut Vec<Event<T>>,
        loss: impl Fn(usize) -> LinkLoss,
    ) {
        let mut tells = 0;
        for parked in self.flows.unpark_longer_than(longer_than) {
            match parked.content {
                Content::Call(call) => {
                    let failure = Failed::NotDelivered(loss(parked.parcel.len()));
                    let open = self.calls.remove(call);
                    events.extend(open.map(|open| Event::Failed { ticket: open.ticket, failure }));
                }
                Content::Tell => tells += 1,
                Content::Other => {}
            }
        }
        events.extend((tells > 0).then_some(Event::DeadLetters { count: tells }));
    }

    /// Notes that the link is gone. Everything stays, for the next one.
    ///
    /// The writer's [`Batch`](crate::session::Batch) is of no use afterwards.
    pub fn detach(&mut self, known: Written) {
        self.attached = false;
        self.unnumbered.clear();
        self.unnumbered_taken = 0;
        self.log.unlink(known == Written::Unsure);
        self.inbound.ack_due = None;
        self.inbound.ack_now = false;
        self.inbound.ack_travels = false;
    }

    /// Drops everything, on evidence that the peer will not go on: every open call ends. To be
    /// called without a link.
    ///
    /// Should the peer be heard of again, it learns of it and drops its half, too.
    pub fn reset(&mut self, loss: &LinkLoss, events: &mut Vec<Event<T>>) {
        self.resets += 1;
        self.drop_all(loss, events);
    }

    fn drop_all(&mut self, loss: &LinkLoss, events: &mut Vec<Event<T>>) {
        for open in self.calls.take_all() {
            let failure = self.lost(open.place, loss);
            events.push(Event::Failed { ticket: open.ticket, failure });
        }
        let parked = self.flows.parked_tells() + self.lanes.tells();
        let kept = self.leaving.is_none() && self.limits.planted == Some(Planted::ResendAfterClose);
        let count = parked + if kept { 0 } else { self.log.clear() };
        events.extend((count > 0).then_some(Event::DeadLetters { count }));
        self.flows.clear();
        self.lanes.clear();
        self.inbound.calls.clear();
        self.inbound.flows.clear();
        self.inbound.assembly.clear();
        self.inbound.schemas = false;
        self.inbound.life = self.inbound.life.wrapping_add(1);
        self.peer_left = false;
        self.schemas_told = false;
        // Whatever told the peer of it may be among what is dropped.
        self.floor_due |= self.floor_told > CallId(0);
        if let Some(leaving) = &mut self.leaving {
            leaving.said = false;
        }
    }
}
