//! Calls and one-way messages, of which only the way costs anything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use actix::Addr;
use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use roadshow::RemoteAddr;

use super::fixture::{Fixture, Outcome};
use super::measure::{Count, Timing, percentiles};
use super::workload::{Add, Local, Note, NoteCount, Subject, increment};

/// How many calls are made between two looks at the clock.
const BETWEEN_LOOKS: u64 = 64;

/// One call at a time: how long each takes.
pub(super) async fn round_trip(lab: &Fixture, time: Duration) -> Outcome<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        lab.subject.send(Add(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// The same to an actor of this process, on another thread.
pub(super) async fn local_round_trip(lab: &Fixture, time: Duration) -> Outcome<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        lab.local.send(Add(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// The same with a task in place of a call.
pub(super) async fn task_round_trip(lab: &Fixture, time: Duration) -> Outcome<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        lab.cluster.run(increment::task(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// Calls with so many under way: when the oldest is answered, another is made.
pub(super) async fn calls(subject: &RemoteAddr<Subject>, in_flight: usize, time: Duration) -> Outcome<Count> {
    let (mut open, start) = (VecDeque::with_capacity(in_flight), Instant::now());
    for _ in 0..in_flight {
        open.push_back(subject.try_send(Add(1))?);
    }
    let mut count = 0;
    while count == 0 || start.elapsed() < time {
        for _ in 0..BETWEEN_LOOKS {
            let oldest = open.pop_front().ok_or("no call is under way")?;
            oldest.await?;
            open.push_back(subject.try_send(Add(1))?);
        }
        count += BETWEEN_LOOKS;
    }
    for rest in open {
        rest.await?;
        count += 1;
    }
    Ok(Count { count, elapsed: start.elapsed() })
}

/// The same to an actor of this process, on another thread.
pub(super) async fn local_calls(local: &Addr<Local>, in_flight: usize, time: Duration) -> Outcome<Count> {
    let (mut open, start) = (VecDeque::with_capacity(in_flight), Instant::now());
    for _ in 0..in_flight {
        open.push_back(local.send(Add(1)));
    }
    let mut count = 0;
    while count == 0 || start.elapsed() < time {
        for _ in 0..BETWEEN_LOOKS {
            let oldest = open.pop_front().ok_or("no call is under way")?;
            oldest.await?;
            open.push_back(local.send(Add(1)));
        }
        count += BETWEEN_LOOKS;
    }
    for rest in open {
        rest.await?;
        count += 1;
    }
    Ok(Count { count, elapsed: start.elapsed() })
}

/// A client for each subject, each with so many calls under way.
pub(super) async fn calls_of_each(
    subjects: &[RemoteAddr<Subject>],
    in_flight: usize,
    time: Duration,
) -> Outcome<Count> {
    let start = Instant::now();
    let counts = try_join_all(subjects.iter().map(|subject| calls(subject, in_flight, time))).await?;
    Ok(Count { count: counts.iter().map(|count| count.count).sum(), elapsed: start.elapsed() })
}

/// One-way messages, from the first that is sent until the last is handled.
pub(super) async fn one_way(subject: &RemoteAddr<Subject>, time: Duration) -> Outcome<Count> {
    let before = subject.send(NoteCount).await?;
    let (start, mut count) = (Instant::now(), 0);
    while count == 0 || start.elapsed() < time {
        for _ in 0..BETWEEN_LOOKS {
            subject.tell(Note(1)).await?;
        }
        count += BETWEEN_LOOKS;
    }
    let handled = subject.send(NoteCount).await? - before;
    if handled != count {
        return Err(format!("{count} one-way messages were sent and {handled} handled").into());
    }
    Ok(Count { count, elapsed: start.elapsed() })
}

/// Whatever `begin` makes, with `width` under way, and what it gives handed to `done`.
///
/// It ends when the time is over or `begin` has no more, and all that was begun is done.
pub(super) async fn pipelined<F, T, E>(
    width: usize,
    time: Duration,
    mut begin: impl FnMut() -> Option<F>,
    mut done: impl FnMut(T),
) -> Outcome<Count>
where
    F: Future<Output = Result<T, E>>,
    E: Into<Box<dyn std::error::Error>>,
{
    let (mut open, mut count, start) = (FuturesUnordered::new(), 0_u64, Instant::now());
    open.extend((0..width).map_while(|_| begin()));
    let mut over = false;
    while let Some(ended) = open.next().await {
        done(ended.map_err(Into::into)?);
        count += 1;
        over |= count.is_multiple_of(BETWEEN_LOOKS.min(width as u64)) && start.elapsed() >= time;
        if !over {
            open.extend(begin());
        }
    }
    Ok(Count { count, elapsed: start.elapsed() })
}
