//! The most frequent word of a text: in sequence, as tasks, and by actors.
//!
//! This is the application that the handbook walks through. [`tokenize`] turns a text into a [`WordList`].
//! [`WordList::partition`] cuts the list into parts whose sizes differ by at most one. The parts are
//! counted in this process ([`sequential`], [`slices`]), by [tasks](tasks()), or by [`Node`] actors under a
//! [`Coordinator`]. The last three share [`candidates`], [`merge`] and the rounds of [`tput`], and differ
//! only in where they count.
//!
//! Invariants:
//! - A word is what Python's `str.lower()`, `str.replace` and `str.split()` make of the text.
//! - The answer is the word with the highest count; among equals, the one seen first in the text.
//! - [`Method::Exact`] and [`Method::Tput`] give the answer of [`sequential`] for every text and every
//! number of parts. [`Method::TwoRound`] does not; it shows why a third round is needed.
//! - A text without words has no answer: `None`.
//!
//! The module uses the public interface of this crate alone, as any program would.
//!
//! # Examples
//!
//! ```
//! use std::num::NonZeroUsize;
//! use roadshow::words::{Counting, Method, sequential, slices, tokenize};
//!
//! let words = tokenize("aaa xx bbb xx ccc xx ddd xx: 'aaa', aaa!")?;
//! let two = NonZeroUsize::MIN.saturating_add(1);
//! let best = sequential(&words, Counting::Hash).ok_or("no words")?;
//! assert_eq!((best.word.as_str(), best.count), ("xx", 4));
//! assert_eq!(slices(&words, two, Counting::Hash, Method::Exact), Some(best));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod coordinator;
mod count;
mod counter;
mod error;
mod file;
mod file_id;
mod list;
mod method;
mod node;
mod pieces;
mod range;
mod scan;
mod stream;
mod task;
#[cfg(test)]
mod temporary;
mod text_node;
mod tokenizer;
mod top;
pub mod tput;

pub use coordinator::{Coordinator, Restarts, Solve, TopWords};
pub use count::{Counting, Counts, MalformedCounts, Tally, WordCount};
pub use counter::{Places, TextCounter};
pub use error::{PieceError, SolveError, TextError};
pub use file::{count_file, count_shared_file};
pub use file_id::FileId;
pub use list::{MalformedWordList, TextTooLong, WordList, Words};
pub use method::{Method, candidates, merge, sequential, slices, total};
pub use node::{BestWords, CountAll, CountWords, MostFrequent, Node, OtherWords};
pub use pieces::{PIECE_BYTES, PIECE_BYTES_MAX};
pub use range::FileRange;
pub use stream::{PIECES_IN_FLIGHT, TextCounts, count_stream};
pub use task::{best_words, count_all, count_words, most_frequent, other_words, tasks};
pub use text_node::{CountPiece, SeesFile, TellCounts, TextNode};
pub use tokenizer::tokenize;
pub use top::{Traffic, top_words};
