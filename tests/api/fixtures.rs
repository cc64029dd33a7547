//! Actor that most tests talk to, and its messages.

use std::collections::HashMap;
use std::convert::Infallible;

use roadshow::prelude::*;
use tokio::sync::oneshot;

use crate::hosts::Gate;

/// Records its messages, and lets callers and threads wait.
#[derive(Default, RemoteActor)]
#[remote(handles(Note, Notes, Add, Echo, Hold, Release, Block))]
pub(crate) struct Clerk {
    notes: Vec<u32>,
    sum: u64,
    held: HashMap<u32, oneshot::Sender<()>>,
    gate: Gate,
}

impl Clerk {
    /// Creates a clerk whose thread can be blocked at a gate.
    pub(crate) fn at(gate: &Gate) -> impl FnOnce() -> Self + Send + use<> {
        let gate = gate.clone();
        move || Self { gate, ..Self::default() }
    }
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Spawn for Clerk {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self::default())
    }
}

/// Is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(crate) struct Note(pub(crate) u32);

impl Handler<Note> for Clerk {
    type Result = ();

    fn handle(&mut self, Note(note): Note, _: &mut Context<Self>) {
        self.notes.push(note);
    }
}

/// Returns the notes recorded so far.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Vec<u32>")]
pub(crate) struct Notes;

impl Handler<Notes> for Clerk {
    type Result = Vec<u32>;

    fn handle(&mut self, _: Notes, _: &mut Context<Self>) -> Vec<u32> {
        self.notes.clone()
    }
}

/// Adds, and returns the sum.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct Add(pub(crate) u64);

impl Handler<Add> for Clerk {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        self.sum += n;
        self.sum
    }
}

/// Returns its payload.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Payload")]
pub(crate) struct Echo(pub(crate) Payload);

impl Handler<Echo> for Clerk {
    type Result = MessageResult<Echo>;

    fn handle(&mut self, Echo(payload): Echo, _: &mut Context<Self>) -> MessageResult<Echo> {
        MessageResult(payload)
    }
}

/// Is answered with its number after a [`Release`].
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
pub(crate) struct Hold(pub(crate) u32);

impl Handler<Hold> for Clerk {
    type Result = ResponseFuture<u32>;

    fn handle(&mut self, Hold(number): Hold, _: &mut Context<Self>) -> ResponseFuture<u32> {
        let (release, released) = oneshot::channel();
        self.held.insert(number, release);
        self.notes.push(number);
        Box::pin(async move {
            // An error: the actor stopped and dropped the sender, which releases the call as well.
            let _ = released.await;
            number
        })
    }
}

/// Releases one [`Hold`]; returns false if its caller is gone.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "bool")]
pub(crate) struct Release(pub(crate) u32);

impl Handler<Release> for Clerk {
    type Result = bool;

    fn handle(&mut self, Release(number): Release, _: &mut Context<Self>) -> bool {
        self.held.remove(&number).is_some_and(|release| release.send(()).is_ok())
    }
}

/// Blocks the actor's thread until its gate opens.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "()")]
pub(crate) struct Block;

impl Handler<Block> for Clerk {
    type Result = ();

    fn handle(&mut self, _: Block, _: &mut Context<Self>) {
        self.gate.pass();
    }
}

/// Second actor type with a handler for the same message.
#[derive(RemoteActor)]
#[remote(local, handles(Add))]
pub(crate) struct Twin;

impl Actor for Twin {
    type Context = Context<Self>;
}

impl Handler<Add> for Twin {
    type Result = u64;

    fn handle(&mut self, Add(n): Add, _: &mut Context<Self>) -> u64 {
        2 * n
    }
}
