//! Actors and tasks of the workload, which log what they handle.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::{Rc, Weak};

use roadshow::prelude::*;
use roadshow::sim::World;

thread_local! {
    static WORLD: RefCell<Weak<World>> = const { RefCell::new(Weak::new()) };
}

/// Makes `world` the one in which actors and tasks of this thread log.
pub(crate) fn set_world(world: &Rc<World>) {
    WORLD.set(Rc::downgrade(world));
}

/// Logs each message that it handles.
#[derive(RemoteActor)]
#[remote(handles(Note))]
pub(crate) struct Counter {
    number: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Spawn for Counter {
    type Args = u64;
    type Error = Infallible;

    fn spawn(number: u64, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { number })
    }
}

#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u64")]
pub(crate) struct Note {
    pub(crate) op: u64,
}

impl Handler<Note> for Counter {
    type Result = u64;

    fn handle(&mut self, note: Note, _: &mut Context<Self>) -> u64 {
        if let Some(world) = WORLD.with_borrow(Weak::upgrade) {
            world.journal().note(format_args!("{} handled by {}", note.op, self.number));
        }
        note.op
    }
}
