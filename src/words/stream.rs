//! Counts a text that is larger than memory while it is read.

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

/// Pieces on their way to a Node or in its mailbox.
///
/// The Node counts one piece, one waits in its mailbox, and two are in transit. So the next piece is there
/// when the Node has counted one.
pub const PIECES_IN_FLIGHT: usize = 4;

/// Pieces read ahead of the Nodes' demand.
const PIECES_READ_AHEAD: usize = 2;

/// Counts of a text.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TextCounts {
    /// Length of the text, in bytes.
    pub bytes: u64,
    /// Number of words.
    pub words: u64,
    /// Distinct words in the order of their first occurrence.
    pub counts: Counts,
}

/// Yields the messages for pieces that this process reads.
pub(super) fn texts<R: Read + Send + 'static>(pieces: Pieces<R>) -> impl Pieced {
    pieces.map(|piece| {
        let text = piece?;
        let bytes = text.len() as u64;
        Ok((CountPiece::Text(text.into()), bytes))
    })
}

/// Iterator over the pieces of a text in order, each with its length in bytes.
pub(super) trait Pieced:
    Iterator<Item = Result<(CountPiece, u64), PieceError>> + Send + 'static
{
}

impl<I: Iterator<Item = Result<(CountPiece, u64), PieceError>> + Send + 'static> Pieced for I {}

/// Counts all words of a text by Nodes over the cluster, while it is read.
///
/// A separate thread reads the text in pieces of [`PIECE_BYTES`](super::PIECE_BYTES) that end at white
/// space. Each piece goes to a Node with free capacity, which counts it into its table. Memory use does not
/// depend on the length of the text: [`PIECES_IN_FLIGHT`] pieces for each Node on both sides, a few pieces
/// read ahead, and the distinct words.
///
/// # Errors
///
/// [`TextError`] if the text cannot be read or is not UTF-8, or if a Node fails. Of several errors it is
/// the first in the order of the text. The table of a Node has to fit into one message.
///
/// # Cancel safety
///
/// Dropping the future cancels the pieces in flight; the reading thread ends after its current read. The
/// Nodes live until the cluster ends.
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

/// Spawns `nodes` Nodes, or stops those already spawned if one fails.
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
    // A failed stop needs no handling: the Node has stopped already, or its worker has ended.
    let _ = join_all(nodes.iter().map(RemoteAddr::stop)).await;
}

pub(super) async fn count_by(
    nodes: &[RemoteAddr<TextNode>],
    pieces: impl Pieced,
) -> Result<TextCounts, TextError> {
    let source = PieceSource::read(pieces);
    let counted = join_all(nodes.iter().map(|node| source.count_by(node))).await;

    // Of several failures, the first in the order of the text is reported, so that the error does not
    // depend on which Node was faster.
    let (mut counted_pieces, mut failure) = (Vec::new(), None);
    for (node, (pieces, failed)) in counted.into_iter().enumerate() {
        counted_pieces.extend(pieces.into_iter().map(|piece| (piece, node)));
        failure = [failure, failed].into_iter().flatten().min_by_key(|failed: &PieceFailure| failed.index);
    }
    if let Some(failed) = failure {
        return Err(failed.err);
    }

    // Nodes finish pieces in any order, but a position is the number of all words before it.
    counted_pieces.sort_unstable_by_key(|(piece, _)| piece.index);
    let mut places = vec![Places::default(); nodes.len()];
    let (mut words, mut bytes) = (0, 0);
    for (piece, node) in counted_pieces {
        places[node].push(piece.words, words);
        words += piece.words;
        bytes += piece.bytes;
    }
    let answers = join_all(nodes.iter().map(|node| node.send(TellCounts))).await;
    let mut parts = Vec::with_capacity(nodes.len());
    for (counts, places) in answers.into_iter().zip(&places) {
        parts.push(counts??.placed(places));
    }
    Ok(TextCounts { bytes, words, counts: total(&parts)? })
}

/// Piece that was read.
#[derive(Debug)]
struct ReadPiece {
    /// Number of pieces before this one.
    index: u64,
    /// Bytes of the text before this piece.
    at: u64,
    /// Message and length in bytes, or the read error.
    message: Result<(CountPiece, u64), PieceError>,
}

/// Piece that was counted.
#[derive(Debug)]
struct CountedPiece {
    index: u64,
    words: u64,
    bytes: u64,
}

/// Piece that was not counted.
#[derive(Debug)]
struct PieceFailure {
    index: u64,
    err: TextError,
}

/// Shared queue of the pieces that were read; the first Node with free capacity takes the next.
#[derive(Debug)]
struct PieceSource {
    pieces: Mutex<mpsc::Receiver<ReadPiece>>,
    /// Set when a piece has failed; no more pieces are needed.
    failed: CancellationToken,
}

impl PieceSource {
    /// Starts the reading thread, which ends with the text, on an error, or when the source is dropped.
    fn read(pieces: impl Pieced) -> Self {
        // The bound stops the reader while the Nodes are slower than the disk, so memory does not grow
        // with the text.
        let (read, source) = mpsc::channel(PIECES_READ_AHEAD);
        // Reads block, and would stop every other future of this thread.
        tokio::task::spawn_blocking(move || {
            let mut at = 0;
            for (index, message) in (0..).zip(pieces) {
                let len = message.as_ref().map_or(0, |(_, len)| *len);
                // The receiver is dropped with the source; the rest of the text is not needed then.
                if read.blocking_send(ReadPiece { index, at, message }).is_err() {
                    break;
                }
                at += len;
            }
        });
        Self { pieces: Mutex::new(source), failed: CancellationToken::new() }
    }

    /// Returns the next piece, or `None` after the last one or after a failure.
    async fn next(&self) -> Option<ReadPiece> {
        // An async lock, since it is held across an await. It is fair, so waiting Nodes take turns.
        let next = async { self.pieces.lock().await.recv().await };
        self.failed.run_until_cancelled(next).await.flatten()
    }

    /// Lets one Node count pieces until the text ends or any piece fails.
    async fn count_by(&self, node: &RemoteAddr<TextNode>) -> (Vec<CountedPiece>, Option<PieceFailure>) {
        let mut pipeline = NodePipeline { node, in_flight: VecDeque::new(), counted: Vec::new() };
        let failure = pipeline.count(self).await.err();
        // Stops the other Nodes after their pieces in flight. They would count the rest of the text for
        // nothing.
        if failure.is_some() {
            self.failed.cancel();
        }
        (pipeline.counted, failure)
    }
}

/// Pieces of one Node, in the order of the text.
#[derive(Debug)]
struct NodePipeline<'a> {
    node: &'a RemoteAddr<TextNode>,
    in_flight: VecDeque<(CountedPiece, u64, Request<CountPiece>)>,
    counted: Vec<CountedPiece>,
}

impl NodePipeline<'_> {
    async fn count(&mut self, source: &PieceSource) -> Result<(), PieceFailure> {
        while let Some(ReadPiece { index, at, message }) = source.next().await {
            match message {
                Ok((message, bytes)) => {
                    self.send(CountedPiece { index, words: 0, bytes }, at, message).await?
                }
                Err(err) => {
                    // An earlier piece may have failed as well, and the first error in the text wins.
                    self.finish(0).await?;
                    return Err(PieceFailure { index, err: err.into() });
                }
            }
            self.finish(PIECES_IN_FLIGHT - 1).await?;
        }
        self.finish(0).await
    }

    /// Sends a piece after all earlier pieces of this Node.
    async fn send(&mut self, piece: CountedPiece, at: u64, message: CountPiece) -> Result<(), PieceFailure> {
        match self.node.try_send(message) {
            Ok(request) => self.in_flight.push_back((piece, at, request)),
            // The send queue is full, or the Node is gone. Waiting here keeps the pieces in order, and a
            // Node derives the first occurrence of a word from that order.
            Err(TrySendError { message, .. }) => {
                self.finish(0).await?;
                self.in_flight.push_back((piece, at, self.node.send(message)));
                self.finish(0).await?;
            }
        }
        Ok(())
    }

    /// Waits until at most `in_flight` pieces are in flight.
    async fn finish(&mut self, in_flight: usize) -> Result<(), PieceFailure> {
        while self.in_flight.len() > in_flight {
            let Some((mut piece, at, request)) = self.in_flight.pop_front() else { break };
            let index = piece.index;
            piece.words = match request.await {
                Ok(Ok(words)) => words,
                Ok(Err(err)) => return Err(PieceFailure { index, err: err.behind(at).into() }),
                Err(err) => return Err(PieceFailure { index, err: err.into() }),
            };
            self.counted.push(piece);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::property_tests;
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

    /// Counts the text through its complete word list, as the reference.
    pub(in crate::words) fn expected(text: &str) -> TextCounts {
        let words = tokenize(text).unwrap();
        let counts = Counting::Hash.count_all(&words);
        TextCounts { bytes: text.len() as u64, words: words.len() as u64, counts }
    }

    proptest! {
        #![proptest_config(property_tests::cases(8))]

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
    async fn error_names_the_first_byte_that_is_not_utf8() {
        let mut text = "word ".repeat(2 * PIECE_BYTES).into_bytes();
        for at in [7 * PIECE_BYTES, 3 * PIECE_BYTES + 7, 8 * PIECE_BYTES] {
            text[at] = 0xff;
        }
        let err = counted(std::io::Cursor::new(text)).await.unwrap_err();
        let expect = 3 * PIECE_BYTES as u64 + 7;
        assert!(matches!(err, TextError::NotUtf8 { at } if at == expect), "{err:?}");
    }

    #[actix::test]
    async fn error_is_the_first_in_the_order_of_the_text() {
        let err = counted((&b"good \xff bad "[..]).chain(Failing)).await.unwrap_err();
        assert!(matches!(err, TextError::Unreadable { at: 11, .. }), "{err:?}");
        let text = std::io::Cursor::new([&b"bad \xff "[..], &b"good ".repeat(PIECE_BYTES)].concat());
        let err = counted(text.chain(Failing)).await.unwrap_err();
        assert!(matches!(err, TextError::NotUtf8 { at: 4 }), "{err:?}");
    }
}
