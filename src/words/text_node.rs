//! The actor that counts the pieces of a text as they come.

use std::convert::Infallible;

use super::{count::Counts, counter::TextCounter, error::PieceError, list::TextTooLong, range::FileRange};
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

/// Has a [`TextNode`] count a piece of text, which begins and ends at white space or with the text.
///
/// The answer is how many words the piece has.
#[derive(Clone, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, PieceError>")]
pub enum CountPiece {
    /// The piece itself, in UTF-8.
    Text(Payload),
    /// Where the Node finds it.
    Range(FileRange),
}

impl Handler<CountPiece> for TextNode {
    type Result = Result<u64, PieceError>;

    fn handle(&mut self, piece: CountPiece, _ctx: &mut Self::Context) -> Self::Result {
        match piece {
            CountPiece::Text(text) => count(&mut self.counter, &text),
            CountPiece::Range(range) => {
                let mut words = 0;
                range.each_piece(|piece| {
                    words += count(&mut self.counter, piece)?;
                    Ok(())
                })?;
                Ok(words)
            }
        }
    }
}

fn count(counter: &mut TextCounter, piece: &[u8]) -> Result<u64, PieceError> {
    let text = std::str::from_utf8(piece);
    let text = text.map_err(|err| PieceError::NotUtf8 { at: err.valid_up_to() as u64 })?;
    Ok(counter.add(text))
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
