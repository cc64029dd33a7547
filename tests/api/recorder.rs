//! Actor that records its entries at a controlled pace.

use std::collections::HashMap;
use std::sync::Arc;

use roadshow::prelude::*;
use tokio::sync::Semaphore;

/// Records entries in the order of their arrival.
#[derive(RemoteActor)]
#[remote(local, handles(Entry, Book))]
pub(crate) struct Recorder {
    book: Vec<(u32, u32)>,
    entered: HashMap<u32, u32>,
    pace: Pace,
}

impl Recorder {
    /// Creates a ledger that stops after each entry until its pace allows another.
    pub(crate) fn at(pace: &Pace) -> impl FnOnce() -> Self + Send + use<> {
        let pace = pace.clone();
        move || Self { pace, ..Self::quick() }
    }

    pub(crate) fn quick() -> Self {
        let pace = Pace::default();
        // A closed semaphore stops no entry.
        pace.end();
        Self { book: Vec::new(), entered: HashMap::new(), pace }
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;
}

/// Pace of a ledger: after an entry, the ledger and its mailbox stop until another entry is allowed.
#[derive(Clone)]
pub(crate) struct Pace(Arc<Semaphore>);

impl Default for Pace {
    /// Creates a pace at which the ledger stops after its first entry.
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Pace {
    /// Allows `entries` more entries.
    pub(crate) fn allow(&self, entries: usize) {
        self.0.add_permits(entries);
    }

    /// Removes the limit on the pace.
    pub(crate) fn end(&self) {
        self.0.close();
    }
}

/// Numbered entry of a sender; answered with the number of earlier entries of that sender.
#[derive(Debug, PartialEq, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "u32")]
pub(crate) struct Entry {
    pub(crate) sender: u32,
    pub(crate) number: u32,
    pub(crate) content: Payload,
}

impl Entry {
    pub(crate) fn new(sender: u32, number: u32) -> Self {
        Self::with(sender, number, 0)
    }

    /// Creates an entry with a payload of `bytes` bytes.
    pub(crate) fn with(sender: u32, number: u32, bytes: usize) -> Self {
        Self { sender, number, content: vec![0; bytes].into() }
    }
}

impl Handler<Entry> for Recorder {
    type Result = u32;

    fn handle(&mut self, Entry { sender, number, .. }: Entry, ctx: &mut Context<Self>) -> u32 {
        self.book.push((sender, number));
        let entered = self.entered.entry(sender).or_default();
        // The answer counts the entries, so a lost or duplicated one changes all later answers.
        let before = *entered;
        *entered += 1;
        if !self.pace.0.is_closed() {
            let pace = self.pace.clone();
            let wait = async move {
                // An error means that the semaphore is closed, which allows every entry.
                let _ = pace.0.acquire().await.map(|permit| permit.forget());
            };
            // `wait` stops the mailbox, so that messages wait in their order.
            ctx.wait(wait.into_actor(self));
        }
        before
    }
}

/// Returns all entries as pairs of sender and number.
#[derive(Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Vec<(u32, u32)>")]
pub(crate) struct Book;

impl Handler<Book> for Recorder {
    type Result = Vec<(u32, u32)>;

    fn handle(&mut self, _: Book, _: &mut Context<Self>) -> Vec<(u32, u32)> {
        self.book.clone()
    }
}

/// Returns the numbers of one sender's entries, in the order of the book.
pub(crate) fn entries_of(sender: u32, book: &[(u32, u32)]) -> Vec<u32> {
    book.iter().filter(|entry| entry.0 == sender).map(|entry| entry.1).collect()
}
