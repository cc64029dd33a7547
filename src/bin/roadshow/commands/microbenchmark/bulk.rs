//! Messages with many bytes: payloads and lists of words.

use std::time::Duration;

use roadshow::Payload;
use roadshow::words::{TextTooLong, WordList};

use super::calls::pipelined;
use super::fixture::{BenchResult, Fixture};
use super::measure::Count;
use super::workload::{EchoBack, Read};

/// Number of words in a list, as in a short book.
const WORDS: usize = 26_000;

/// Repeated text of the word lists; its words have the lengths of English ones.
const TEXT: &str = "a travelling show comes to town with more wagons than the last time and nothing says \
    which road it took the tents go up before the sun does and when the first children arrive there is \
    already music somewhere behind the canvas where an old man counts the chairs again and says that \
    every evening begins with an empty place and that it is the counting which fills it";

/// List of words, and its size on the wire in bytes: the text, and one 4-byte offset more than words.
pub(super) fn words() -> Result<(WordList, usize), TextTooLong> {
    let words = WordList::from_words(TEXT.split_whitespace().cycle().take(WORDS))?;
    let bytes = words.iter().map(str::len).sum::<usize>() + (words.len() + 1) * size_of::<u32>();
    Ok((words, bytes))
}

/// Measures echoes of a payload, `in_flight` at a time.
pub(super) async fn echoes(
    fixture: &Fixture,
    in_flight: usize,
    bytes: usize,
    time: Duration,
) -> BenchResult<Count> {
    let payload = Payload::from(vec![7; bytes]);
    let mut wrong = 0_u64;
    let send = || Some(fixture.subject.send(EchoBack(payload.clone())));
    let received = |answer: Payload| wrong += u64::from(answer.len() != bytes);
    let count = pipelined(in_flight, time, send, received).await?;
    match wrong {
        0 => Ok(count),
        _ => Err(format!("{wrong} payloads came back with another length").into()),
    }
}

/// Measures lists of words whose first word is read, `in_flight` at a time.
pub(super) async fn lists(
    fixture: &Fixture,
    in_flight: usize,
    words: &WordList,
    time: Duration,
) -> BenchResult<Count> {
    pipelined(in_flight, time, || Some(fixture.subject.send(Read(words.clone()))), drop).await
}
