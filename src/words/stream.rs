//! Counting a text that is larger than memory, while it is read.

use std::collections::VecDeque;
use std::io::Read;
use std::num::NonZeroUsize;

use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    count::Counts,
    counter::Places,
    error::{PieceError, TextError},
    method::total,
    pieces::Pieces,
    text_node::{CountPiece, TellCounts, TextNode},
};
use crate::{Request, TrySendError, prelude::*};

/// Pieces that a Node has or that are on their way to it; one more is read when it has counted one.
///
/// One is counted, one waits in the mailbox, and others come, so that a Node has the next piece when
/// it has counted one.
pub const PIECES_IN_FLIGHT: usize = 4;

/// Pieces that are read before a Node has room for them.
const PIECES_READ_AHEAD: usize = 2;

/// What was counted of a text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TextCounts {
    /// How many bytes it has.
    pub bytes: u64,
    /// How many words it has.
    pub words: u64,
    /// The different words in the order in which they are first seen.
    pub counts: Counts,
}

/// The messages for pieces that are read here.
pub(super) fn texts<R: Read + Send + 'static>(pieces: Pieces<R>) -> impl Pieced {
    pieces.map(|piece| {
        let text = piece?;
        let bytes = text.len() as u64;
        Ok((CountPiece::Text(text.into()), bytes))
    })
}

/// What is to be counted, in the order of the text, each with how many bytes it has.
pub(super) trait Pieced:
    Iterator<Item = Result<(CountPiece, u64), PieceError>> + Send + 'static
{
}

impl<I: Iterator<Item = Result<(CountPiece, u64), PieceError>> + Send + 'static> Pieced for I {}

/// Counts all words of a text by Nodes over the cluster, while it is read.
///
/// The text is read on a thread of its own, in pieces of [`PIECE_BYTES`](super::PIECE_BYTES) that end
/// at white space. Each goes to a Node that has room for it, which counts it into its table. So what
/// this takes in memory does not depend on the length of the text: [`PIECES_IN_FLIGHT`] pieces for
/// each Node, here and there, some more while they are read, and the different words.
///
/// # Errors
///
/// [`TextError`] if the text cannot be read or is not UTF-8, the first in the order of the text, or
/// if a Node fails. The tables of a Node have to fit into one message.
///
/// # Cancel safety
///
/// When it is dropped, what it has under way is cancelled, and the thread ends behind the read that it
/// is in. The Nodes stay until the cluster ends.
///
/// # Examples
///
/// ```
/// use std::num::NonZeroUsize;
/// use roadshow::prelude::*;
/// use roadshow::words::count_stream;
///
/// # #[roadshow::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = Cluster::in_process(2).await?;
/// let nodes = NonZeroUsize::new(2).ok_or("two")?;
/// let text = count_stream(&cluster.handle(), &b"to be or not to be"[..], nodes).await?;
/// assert_eq!((text.words, text.counts.len()), (6, 4));
/// cluster.shutdown().await?;
/// # Ok(())
/// # }
/// ```
pub async fn count_stream(
    cluster: &ClusterRef,
    text: impl Read + Send + 'static,
    nodes: NonZeroUsize,
) -> Result<TextCounts, TextError> {
    let nodes = spawn(cluster, nodes).await?;
    let counted = count_by(&nodes, texts(Pieces::new(text, None))).await;
    stop(&nodes).await;
    counted
}

/// Spawns so many Nodes, or none.
pub(super) async fn spawn(
    cluster: &ClusterRef,
    nodes: NonZeroUsize,
) -> Result<Vec<RemoteAddr<TextNode>>, TextError> {
    let spawning = (0..nodes.get()).map(|_| cluster.spawn::<TextNode>(()).into_future());
    let spawned = join_all(spawning).await;
    let nodes: Vec<_> = spawned.iter().flatten().cloned().collect();
    match spawned.into_iter().find_map(Result::err) {
        Some(err) => {
            stop(&nodes).await;
            Err(err.into())
        }
        None => Ok(nodes),
    }
}

pub(super) async fn stop(nodes: &[RemoteAddr<TextNode>]) {
    // One that cannot be stopped has stopped already, or its worker has ended.
    let _ = join_all(nodes.iter().map(RemoteAddr::stop)).await;
}

pub(super) async fn count_by(
    nodes: &[RemoteAddr<TextNode>],
    pieces: impl Pieced,
) -> Result<TextCounts, TextError> {
    let source = Source::read(pieces);
    let counted = join_all(nodes.iter().map(|node| source.count_by(node))).await;

    // What failed first in the text, whichever Node had it.
    let (mut counted_pieces, mut failure) = (Vec::new(), None);
    for (node, (pieces, failed)) in counted.into_iter().enumerate() {
        counted_pieces.extend(pieces.into_iter().map(|piece| (piece, node)));
        failure = [failure, failed].into_iter().flatten().min_by_key(|failed: &Failed| failed.index);
    }
    if let Some(failed) = failure {
        return Err(failed.err);
    }

    counted_pieces.sort_unstable_by_key(|(piece, _)| piece.index);
    let mut places = vec![Places::default(); nodes.len()];
    let (mut words, mut bytes) = (0, 0);
    for (piece, node) in counted_pieces {
        places[node].push(piece.words, words);
        words += piece.words;
        bytes += piece.bytes;
    }
    let told = join_all(nodes.iter().map(|node| node.send(TellCounts))).await;
    let mut parts = Vec::with_capacity(nodes.len());
    for (counts, places) in told.into_iter().zip(&places) {
        parts.push(counts??.placed(places));
    }
    Ok(TextCounts { bytes, words, counts: total(&parts)? })
}

/// A piece that was read.
#[derive(Debug)]
struct Piece {
    /// How many pieces come before it.
    index: u64,
    /// How many bytes come before it.
    at: u64,
    /// With how many bytes it has.
    message: Result<(CountPiece, u64), PieceError>,
}

/// A piece that was counted.
#[derive(Debug)]
struct Counted {
    index: u64,
    words: u64,
    bytes: u64,
}

/// A piece that was not counted.
#[derive(Debug)]
struct Failed {
    index: u64,
    err: TextError,
}

/// The pieces that were read, for whichever Node has room first.
#[derive(Debug)]
struct Source {
    pieces: Mutex<mpsc::Receiver<Piece>>,
    /// Nobody needs more pieces.
    failed: CancellationToken,
}

impl Source {
    /// Starts the thread that reads. It ends with the text, by an error, or when this is dropped.
    fn read(pieces: impl Pieced) -> Self {
        let (read, source) = mpsc::channel(PIECES_READ_AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut at = 0;
            for (index, message) in (0..).zip(pieces) {
                let len = message.as_ref().map_or(0, |(_, len)| *len);
                if read.blocking_send(Piece { index, at, message }).is_err() {
                    break;
                }
                at += len;
            }
        });
        Self { pieces: Mutex::new(source), failed: CancellationToken::new() }
    }

    /// The next piece, while there are any and nothing has failed.
    async fn next(&self) -> Option<Piece> {
        let next = async { self.pieces.lock().await.recv().await };
        self.failed.run_until_cancelled(next).await.flatten()
    }

    /// Has a Node count pieces until there are no more, or something has failed anywhere.
    async fn count_by(&self, node: &RemoteAddr<TextNode>) -> (Vec<Counted>, Option<Failed>) {
        let mut line = Line { node, in_flight: VecDeque::new(), counted: Vec::new() };
        let failure = line.count(self).await.err();
        if failure.is_some() {
            self.failed.cancel();
        }
        (line.counted, failure)
    }
}

/// The pieces of one Node, in the order of the text.
#[derive(Debug)]
struct Line<'a> {
    node: &'a RemoteAddr<TextNode>,
    in_flight: VecDeque<(Counted, u64, Request<CountPiece>)>,
    counted: Vec<Counted>,
}

impl Line<'_> {
    async fn count(&mut self, source: &Source) -> Result<(), Failed> {
        while let Some(Piece { index, at, message }) = source.next().await {
            match message {
                Ok((message, bytes)) => self.send(Counted { index, words: 0, bytes }, at, message).await?,
                Err(err) => {
                    // What comes before it in the text may have failed as well.
                    self.finish(0).await?;
                    return Err(Failed { index, err: err.into() });
                }
            }
            self.finish(PIECES_IN_FLIGHT - 1).await?;
        }
        self.finish(0).await
    }

    /// Sends a piece behind those that were sent before.
    async fn send(&mut self, piece: Counted, at: u64, message: CountPiece) -> Result<(), Failed> {
        match self.node.try_send(message) {
            Ok(request) => self.in_flight.push_back((piece, at, request)),
            // There is no room, or the Node is gone. To wait here keeps the order of the pieces, by
            // which a Node knows where it saw a word first.
            Err(TrySendError { message, .. }) => {
                self.finish(0).await?;
                self.in_flight.push_back((piece, at, self.node.send(message)));
                self.finish(0).await?;
            }
        }
        Ok(())
    }

    /// Waits until so many pieces at most are in flight.
    async fn finish(&mut self, in_flight: usize) -> Result<(), Failed> {
        while self.in_flight.len() > in_flight {
            let Some((mut piece, at, request)) = self.in_flight.pop_front() else { break };
            let index = piece.index;
            piece.words = match request.await {
                Ok(Ok(words)) => words,
                Ok(Err(err)) => return Err(Failed { index, err: err.behind(at).into() }),
                Err(err) => return Err(Failed { index, err: err.into() }),
            };
            self.counted.push(piece);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::pieces::{Failing, PIECE_BYTES};
    use super::*;
    use crate::words::{Counting, tokenize};

    pub(in crate::words) fn two() -> NonZeroUsize {
        NonZeroUsize::new(2).unwrap()
    }

    async fn counted(text: impl Read + Send + 'static) -> Result<TextCounts, TextError> {
        let cluster = Cluster::in_process(2).await.unwrap();
        let counted = count_stream(&cluster.handle(), text, two()).await;
        cluster.shutdown().await.unwrap();
        counted
    }

    /// What the list of all words gives.
    pub(in crate::words) fn expected(text: &str) -> TextCounts {
        let words = tokenize(text).unwrap();
        let counts = Counting::Hash.count_all(&words);
        TextCounts { bytes: text.len() as u64, words: words.len() as u64, counts }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn text_of_many_pieces_has_the_counts_of_its_words(
            words in prop::collection::vec("[a-dA-DΣ’]{1,3}|[a-z]{14,18}", 1..200),
            pieces in 0..12 * PIECE_BYTES,
        ) {
            let once = words.join(" ") + "\n";
            let text = once.repeat(pieces / once.len() + 1) + "the end";
            let bytes = std::io::Cursor::new(text.clone().into_bytes());
            let counted = actix_rt::System::new().block_on(counted(bytes)).unwrap();
            prop_assert!(counted == expected(&text));
        }
    }

    #[actix::test]
    async fn text_without_words_has_no_counts() {
        for text in ["", " \n", "...\n!"] {
            let counted = counted(text.as_bytes()).await.unwrap();
            assert_eq!(counted, TextCounts { bytes: text.len() as u64, ..TextCounts::default() });
        }
    }

    #[actix::test]
    async fn first_byte_that_is_not_utf8_is_told() {
        let mut text = "word ".repeat(2 * PIECE_BYTES).into_bytes();
        for at in [7 * PIECE_BYTES, 3 * PIECE_BYTES + 7, 8 * PIECE_BYTES] {
            text[at] = 0xff;
        }
        let err = counted(std::io::Cursor::new(text)).await.unwrap_err();
        let expect = 3 * PIECE_BYTES as u64 + 7;
        assert!(matches!(err, TextError::NotUtf8 { at } if at == expect), "{err:?}");
    }

    #[actix::test]
    async fn what_fails_first_in_the_text_is_told() {
        let err = counted((&b"good \xff bad "[..]).chain(Failing)).await.unwrap_err();
        assert!(matches!(err, TextError::Unreadable { at: 11, .. }), "{err:?}");
        let text = std::io::Cursor::new([&b"bad \xff "[..], &b"good ".repeat(PIECE_BYTES)].concat());
        let err = counted(text.chain(Failing)).await.unwrap_err();
        assert!(matches!(err, TextError::NotUtf8 { at: 4 }), "{err:?}");
    }
}
