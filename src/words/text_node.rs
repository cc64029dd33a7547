//! The actor that counts the pieces of a text as they come.

use std::convert::Infallible;

use thiserror::Error;

use super::{count::Counts, counter::TextCounter, list::TextTooLong};
use crate::prelude::*;

/// Counts pieces of a text into one table, and keeps none of them.
///
/// A [`Node`](super::Node) owns its part of a text and answers many questions; this one takes a text
/// that is larger than memory, and answers [`TellCounts`].
#[derive(Debug, RemoteActor)]
#[remote(handles(CountPiece, TellCounts))]
pub struct TextNode {
    counter: TextCounter,
}

impl Actor for TextNode {
    type Context = Context<Self>;
}

impl Spawn for TextNode {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { counter: TextCounter::default() })
    }
}

/// Has a [`TextNode`] count a piece of text in UTF-8, which ends at white space or with the text.
///
/// The answer is how many words the piece has.
#[derive(Clone, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, NotUtf8>")]
pub struct CountPiece(pub Payload);

/// A piece of text is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize, RemoteData)]
#[error("the piece is not UTF-8 after {valid_up_to} bytes")]
pub struct NotUtf8 {
    /// How many bytes of the piece come before the first that is wrong.
    pub valid_up_to: u64,
}

impl Handler<CountPiece> for TextNode {
    type Result = Result<u64, NotUtf8>;

    fn handle(&mut self, CountPiece(piece): CountPiece, _ctx: &mut Self::Context) -> Self::Result {
        let text = std::str::from_utf8(&piece);
        let text = text.map_err(|err| NotUtf8 { valid_up_to: err.valid_up_to() as u64 })?;
        Ok(self.counter.add(text))
    }
}

/// Asks a [`TextNode`] for the tallies of all words that it has counted.
///
/// Their positions are those among its own words; [`Counts::placed`] leads to those in the text.
#[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<Counts, TextTooLong>")]
pub struct TellCounts;

impl Handler<TellCounts> for TextNode {
    type Result = Result<Counts, TextTooLong>;

    fn handle(&mut self, TellCounts: TellCounts, _ctx: &mut Self::Context) -> Self::Result {
        self.counter.counts()
    }
}
