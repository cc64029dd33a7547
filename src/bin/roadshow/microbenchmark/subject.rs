//! What is measured: an actor in a worker process, its messages, and a task.

use std::convert::Infallible;

use roadshow::prelude::*;
use roadshow::words::WordList;

use super::{echo, measure};

/// The actor that is called. It also does what has to be done in its process.
#[derive(Debug, Default, RemoteActor)]
#[remote(handles(Add, Note, Noted, EchoBack, Length, OpenEcho, PinTo, CpuSeconds))]
pub(super) struct Subject {
    sum: u64,
    noted: u64,
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

/// A small call.
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

/// A small message that goes one way.
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

/// How many notes were handled.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Noted;

impl Handler<Noted> for Subject {
    type Result = u64;

    fn handle(&mut self, Noted: Noted, _ctx: &mut Context<Self>) -> u64 {
        self.noted
    }
}

/// Bytes that come back.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Payload")]
pub(super) struct EchoBack(pub(super) Payload);

impl Handler<EchoBack> for Subject {
    type Result = MessageResult<EchoBack>;

    fn handle(&mut self, EchoBack(bytes): EchoBack, _ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(bytes)
    }
}

/// A list of words, ready to be counted; the answer is how many bytes they take.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(super) struct Length(pub(super) WordList);

impl Handler<Length> for Subject {
    type Result = u64;

    fn handle(&mut self, Length(words): Length, _ctx: &mut Context<Self>) -> u64 {
        words.iter().map(|word| word.len() as u64).sum()
    }
}

/// Serves the raw echo from the worker's process; the answer is the port.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u16, String>")]
pub(super) struct OpenEcho;

impl Handler<OpenEcho> for Subject {
    type Result = Result<u16, String>;

    fn handle(&mut self, OpenEcho: OpenEcho, _ctx: &mut Context<Self>) -> Self::Result {
        echo::serve().map_err(|error| error.to_string())
    }
}

/// Keeps the worker's process to one core.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<(), String>")]
pub(super) struct PinTo(pub(super) usize);

impl Handler<PinTo> for Subject {
    type Result = Result<(), String>;

    fn handle(&mut self, PinTo(core): PinTo, _ctx: &mut Context<Self>) -> Self::Result {
        measure::pin(core).map_err(|error| error.to_string())
    }
}

/// The processor time that the worker's process has taken, in seconds.
#[derive(Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "f64")]
pub(super) struct CpuSeconds;

impl Handler<CpuSeconds> for Subject {
    type Result = f64;

    fn handle(&mut self, CpuSeconds: CpuSeconds, _ctx: &mut Context<Self>) -> f64 {
        measure::cpu_seconds()
    }
}

/// The same small call between two actors of one process.
#[derive(Debug, Default)]
pub(super) struct Local(u64);

impl Actor for Local {
    type Context = Context<Self>;
}

impl Handler<Add> for Local {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _ctx: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(n);
        self.0
    }
}

/// An actor that does nothing, of which there are many.
#[derive(Debug, RemoteActor)]
#[remote(handles(Noted))]
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

impl Handler<Noted> for Idle {
    type Result = u64;

    fn handle(&mut self, Noted: Noted, _ctx: &mut Context<Self>) -> u64 {
        0
    }
}

/// A task that does as little.
#[roadshow::task]
pub(super) fn increment(n: u64) -> u64 {
    n.wrapping_add(1)
}
