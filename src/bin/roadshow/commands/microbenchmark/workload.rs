//! Actors, messages and a task under test, and their counterparts in actix.

use std::convert::Infallible;

use actix::Addr;
use roadshow::prelude::*;
use roadshow::words::WordList;

use super::{echo, measure};

/// Remote actor under test; it also runs what is measured within its process.
#[derive(Debug, Default, RemoteActor)]
#[remote(handles(Add, Note, NoteCount, EchoBack, Read, OpenLimits, PinTo, CpuSeconds, Hold))]
pub(super) struct Subject {
    sum: u64,
    noted: u64,
    held: Vec<Addr<Empty>>,
}

impl Actor for Subject {
    type Context = Context<Self>;
}

impl Spawn for Subject {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

/// Small call.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Add(pub(super) u64);

impl Handler<Add> for Subject {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _ctx: &mut Context<Self>) -> u64 {
        self.sum = self.sum.wrapping_add(n);
        self.sum
    }
}

/// Small one-way message.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Note(pub(super) u64);

impl Handler<Note> for Subject {
    type Result = ();

    fn handle(&mut self, Note(n): Note, _ctx: &mut Context<Self>) {
        self.sum = self.sum.wrapping_add(n);
        self.noted += 1;
    }
}

/// Query for the number of notes handled.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct NoteCount;

impl Handler<NoteCount> for Subject {
    type Result = u64;

    fn handle(&mut self, NoteCount: NoteCount, _ctx: &mut Context<Self>) -> u64 {
        self.noted
    }
}

/// Payload to be echoed.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Payload")]
pub(super) struct EchoBack(pub(super) Payload);

impl Handler<EchoBack> for Subject {
    type Result = MessageResult<EchoBack>;

    fn handle(&mut self, EchoBack(bytes): EchoBack, _ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(bytes)
    }
}

/// List of words; the handler reads the first word and returns its length.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Read(pub(super) WordList);

impl Handler<Read> for Subject {
    type Result = u64;

    fn handle(&mut self, Read(words): Read, _ctx: &mut Context<Self>) -> u64 {
        words.iter().next().map_or(0, |word| word.len() as u64)
    }
}

/// Request to start the raw servers of the limits in the worker's process.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<Ports, String>")]
pub(super) struct OpenLimits;

/// Ports of the raw servers in a worker's process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Ports {
    /// Port of the echo of frames.
    pub(super) echo: u16,
    /// Port of the echo with blocking sockets.
    pub(super) blocking: u16,
    /// Port that counts frames, and answers an empty one with the count.
    pub(super) count: u16,
}

impl Handler<OpenLimits> for Subject {
    type Result = Result<Ports, String>;

    fn handle(&mut self, OpenLimits: OpenLimits, _ctx: &mut Context<Self>) -> Self::Result {
        echo::serve().map_err(|error| error.to_string())
    }
}

/// Request to pin the worker's process to one core.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<(), String>")]
pub(super) struct PinTo(pub(super) usize);

impl Handler<PinTo> for Subject {
    type Result = Result<(), String>;

    fn handle(&mut self, PinTo(core): PinTo, _ctx: &mut Context<Self>) -> Self::Result {
        measure::pin(&[core]).map_err(|error| error.to_string())
    }
}

/// Query for the CPU time of the worker's process, in seconds.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "f64")]
pub(super) struct CpuSeconds;

impl Handler<CpuSeconds> for Subject {
    type Result = f64;

    fn handle(&mut self, CpuSeconds: CpuSeconds, _ctx: &mut Context<Self>) -> f64 {
        measure::cpu_seconds()
    }
}

/// Request to start this number of idle actix actors, which live as long as the subject.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(super) struct Hold(pub(super) usize);

impl Handler<Hold> for Subject {
    type Result = ();

    fn handle(&mut self, Hold(count): Hold, _ctx: &mut Context<Self>) {
        self.held.extend((0..count).map(|_| Empty.start()));
    }
}

/// Capacity of the local actor's mailbox in messages; actix parks further calls, each in a task.
const MAILBOX: usize = 4096;

/// Actix actor for the same small call within one process.
#[derive(Debug, Default)]
pub(super) struct Local(u64);

impl Actor for Local {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Add> for Local {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _ctx: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(n);
        self.0
    }
}

/// Idle actix actor.
#[derive(Debug)]
pub(super) struct Empty;

impl Actor for Empty {
    type Context = Context<Self>;
}

impl Handler<NoteCount> for Empty {
    type Result = u64;

    fn handle(&mut self, NoteCount: NoteCount, _ctx: &mut Context<Self>) -> u64 {
        0
    }
}

/// Idle remote actor.
#[derive(Debug, RemoteActor)]
#[remote(handles(NoteCount))]
pub(super) struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

impl Spawn for Idle {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

impl Handler<NoteCount> for Idle {
    type Result = u64;

    fn handle(&mut self, NoteCount: NoteCount, _ctx: &mut Context<Self>) -> u64 {
        0
    }
}

/// Task with the same amount of work.
#[roadshow::task]
pub(super) fn increment(n: u64) -> u64 {
    n.wrapping_add(1)
}
