//! The actors of the simulation: they note what they begin to handle.

use std::rc::Rc;
use std::time::Duration;

use roadshow::prelude::*;

use super::record::{Op, Record};

/// Notes each entry as it begins to handle it.
#[derive(RemoteActor)]
#[remote(handles(Entry, Errand), local)]
pub(crate) struct Ledger {
    pub(crate) record: Rc<Record>,
    /// Takes its time for each message, and nothing else meanwhile.
    pub(crate) slow: bool,
}

impl Actor for Ledger {
    type Context = Context<Self>;
}

/// An entry: handled at once.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Entry {
    pub(crate) op: Op,
    pub(crate) rest_ms: u64,
    pub(crate) content: Payload,
}

/// An entry that is answered by a future.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Op")]
pub(crate) struct Errand {
    pub(crate) op: Op,
    pub(crate) takes_ms: u64,
    pub(crate) content: Payload,
}

impl Handler<Entry> for Ledger {
    type Result = MessageResult<Entry>;

    fn handle(&mut self, entry: Entry, ctx: &mut Context<Self>) -> MessageResult<Entry> {
        self.record.begun(entry.op, &entry.content);
        if self.slow {
            let rest = tokio::time::sleep(Duration::from_millis(entry.rest_ms));
            ctx.wait(actix::fut::wrap_future(rest));
        }
        MessageResult(entry.op)
    }
}

impl Handler<Errand> for Ledger {
    type Result = ResponseFuture<Op>;

    fn handle(&mut self, errand: Errand, _: &mut Context<Self>) -> ResponseFuture<Op> {
        self.record.begun(errand.op, &errand.content);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(errand.takes_ms)).await;
            errand.op
        })
    }
}
