//! Actor that counts the pieces of a text as they arrive.

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
/// A [`Node`](super::Node) owns its part of a text and answers many questions. A `TextNode` handles a text
/// that is larger than memory, and answers [`TellCounts`].
#[derive(Debug, RemoteActor)]
#[remote(handles(SeesFile, CountPiece, TellCounts))]
pub struct TextNode {
    counter: TextCounter,
    /// File of the last successful [`SeesFile`], with the length of its text in bytes.
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

/// Asks a [`TextNode`] if it finds this very file at a path.
///
/// A Node that finds it keeps the file open and counts ranges of it ([`CountPiece::Seen`]), even if the
/// path changes later. A Node that cannot open the file does not see it. The search runs on a blocking
/// thread: a slow disk or a dead server must not stop the worker.
#[derive(Clone, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "bool")]
pub struct SeesFile {
    /// Path to look at.
    pub path: PathBuf,
    /// Identity of the file.
    pub file: FileId,
}

impl Handler<SeesFile> for TextNode {
    type Result = ResponseActFuture<Self, bool>;

    fn handle(&mut self, SeesFile { path, file: id }: SeesFile, _ctx: &mut Self::Context) -> Self::Result {
        let look = tokio::task::spawn_blocking(move || Some((id.open(&path)?, id.len())));
        Box::pin(look.into_actor(self).map(|seen, node, _ctx| {
            // A search that panicked has found no file.
            node.seen = seen.ok().flatten();
            node.seen.is_some()
        }))
    }
}

/// Lets a [`TextNode`] count a piece of text, which begins and ends at white space or with the text.
///
/// The answer is the number of words of the piece.
#[derive(Clone, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<u64, PieceError>")]
pub enum CountPiece {
    /// The text itself, in UTF-8.
    Text(Payload),
    /// Range of a file that the Node opens by its path.
    Range(FileRange),
    /// Range of the file that the Node has open; its boundaries move like those of a [`FileRange`].
    Seen {
        /// Offset of the first byte.
        from: u64,
        /// Offset after the last byte.
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
            // The coordinator has cut this piece at white space already.
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
/// Positions count the Node's own words; [`Counts::placed`] converts them to positions in the text.
#[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Result<Counts, TextTooLong>")]
pub struct TellCounts;

impl Handler<TellCounts> for TextNode {
    type Result = Result<Counts, TextTooLong>;

    fn handle(&mut self, TellCounts: TellCounts, _ctx: &mut Self::Context) -> Self::Result {
        self.counter.counts()
    }
}
