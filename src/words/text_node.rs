//! The actor that counts the pieces of a text as they come.

use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;

use super::{
    count::Counts,
    counter::TextCounter,
    error::PieceError,
    file_id::FileId,
    list::TextTooLong,
    range::{FileRange, Span},
};
use crate::prelude::*;

/// Counts pieces of a text into one table, and keeps none of them.
///
/// A [`Node`](super::Node) owns its part of a text and answers many questions; this one takes a text
/// that is larger than memory, and answers [`TellCounts`].
#[derive(Debug, RemoteActor)]
#[remote(handles(SeesFile, CountPiece, TellCounts))]
pub struct TextNode {
    counter: TextCounter,
    /// The file that it was asked for last and sees, and how many bytes of it are the text.
    seen: Option<(File, u64)>,
}

impl Actor for TextNode {
    type Context = Context<Self>;
}

impl Spawn for TextNode {
    type Args = ();
    type Error = Infallible;

    fn spawn((): (), _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { counter: TextCounter::default(), seen: None })
    }
}

/// Asks a [`TextNode`] whether it finds this very file at a path.
///
/// If it does, it keeps the file open, so that this remains the one whose parts it counts
/// ([`CountPiece::Seen`]), whatever becomes of the path. If the file cannot be opened, it sees none. It
/// looks on a thread for such, since a disk may be slow, or a server gone: the worker goes on meanwhile.
#[derive(Clone, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "bool")]
pub struct SeesFile {
    /// Where it may be.
    pub path: PathBuf,
    /// The file.
    pub file: FileId,
}

impl Handler<SeesFile> for TextNode {
    type Result = ResponseActFuture<Self, bool>;

    fn handle(&mut self, SeesFile { path, file: id }: SeesFile, _ctx: &mut Self::Context) -> Self::Result {
        let look = tokio::task::spawn_blocking(move || Some((id.open(&path)?, id.len())));
        Box::pin(look.into_actor(self).map(|seen, node, _ctx| {
            // What panicked while it looked has seen nothing.
            node.seen = seen.ok().flatten();
            node.seen.is_some()
        }))
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
    /// Where it is in the file that the Node sees; cut as a [`FileRange`].
    Seen {
        /// The first byte.
        from: u64,
        /// The byte behind the last.
        to: u64,
    },
}

impl Handler<CountPiece> for TextNode {
    type Result = Result<u64, PieceError>;

    fn handle(&mut self, piece: CountPiece, _ctx: &mut Self::Context) -> Self::Result {
        let Self { counter, seen } = self;
        let mut words = 0;
        let each = |piece: &[u8]| {
            words += count(counter, piece)?;
            Ok(())
        };
        match piece {
            CountPiece::Text(text) => return count(counter, &text),
            CountPiece::Range(range) => range.each_piece(each)?,
            CountPiece::Seen { from, to } => {
                let (file, text) = seen.as_mut().ok_or_else(PieceError::unseen)?;
                Span { from, to, text: *text }.each_piece(file, each)?;
            }
        }
        Ok(words)
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
