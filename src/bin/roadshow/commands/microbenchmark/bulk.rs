//! Messages with many bytes: payloads that come back, and lists of words.

use std::time::Duration;

use roadshow::Payload;
use roadshow::words::{TextTooLong, WordList};

use super::calls::pipelined;
use super::fixture::{Fixture, Outcome};
use super::measure::Count;
use super::workload::{EchoBack, Read};

/// As many words as a short book has.
const WORDS: usize = 26_000;

/// What is repeated to make the words; their lengths are those of English.
const TEXT: &str = "a travelling show comes to town with more wagons than the last time and nobody knows \
    who sent for it the tents go up before the sun does and when the first children arrive there is \
    already music somewhere behind the canvas where an old man counts the chairs again he says that \
    every evening begins with an empty place and that it is the counting which fills it";

/// So many words, and how many bytes of them travel: the text, and a bound of four bytes before and
/// behind each word.
pub(super) fn words() -> Result<(WordList, usize), TextTooLong> {
    let words = WordList::from_words(TEXT.split_whitespace().cycle().take(WORDS))?;
    let bytes = words.iter().map(str::len).sum::<usize>() + (words.len() + 1) * size_of::<u32>();
    Ok((words, bytes))
}

/// Payloads that come back, with so many under way.
pub(super) async fn echoes(lab: &Fixture, in_flight: usize, bytes: usize, time: Duration) -> Outcome<Count> {
    let payload = Payload::from(vec![7; bytes]);
    let mut wrong = 0_u64;
    let send = || Some(lab.subject.send(EchoBack(payload.clone())));
    let heard = |answer: Payload| wrong += u64::from(answer.len() != bytes);
    let count = pipelined(in_flight, time, send, heard).await?;
    match wrong {
        0 => Ok(count),
        _ => Err(format!("{wrong} payloads came back with another length").into()),
    }
}

/// Lists of words that somebody begins to read, with so many under way.
pub(super) async fn lists(
    lab: &Fixture,
    in_flight: usize,
    words: &WordList,
    time: Duration,
) -> Outcome<Count> {
    pipelined(in_flight, time, || Some(lab.subject.send(Read(words.clone()))), drop).await
}
