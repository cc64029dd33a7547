//! Calls and one-way messages with trivial handlers, so that only delivery costs anything.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::Addr;
use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use roadshow::{RemoteAddr, SendError};

use super::fixture::{BenchResult, Fixture};
use super::measure::{Count, Timing, percentiles};
use super::workload::{Add, Local, Note, NoteCount, Subject, increment};

/// Number of calls between two readings of the clock, which costs as much as a part of a call.
const CLOCK_INTERVAL: u64 = 64;

/// Measures the latency of one call at a time.
pub(super) async fn round_trip(fixture: &Fixture, time: Duration) -> BenchResult<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    // One sample at least, however short the time is.
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        fixture.subject.send(Add(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// Measures the latency of one call at a time to an actix actor on another thread of this process.
pub(super) async fn local_round_trip(fixture: &Fixture, time: Duration) -> BenchResult<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        fixture.local.send(Add(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// Measures the latency of one task at a time.
pub(super) async fn task_round_trip(fixture: &Fixture, time: Duration) -> BenchResult<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    while taken.is_empty() || start.elapsed() < time {
        let sent = Instant::now();
        fixture.cluster.run(increment::task(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// Measures calls, `in_flight` at a time; the reply to the oldest call starts the next one.
pub(super) async fn calls(
    subject: &RemoteAddr<Subject>,
    in_flight: usize,
    time: Duration,
) -> BenchResult<Count> {
    // The replies of one actor arrive in order, so a queue is enough. `pipelined` allocates for each future.
    let (mut open, start) = (VecDeque::with_capacity(in_flight), Instant::now());
    for _ in 0..in_flight {
        open.push_back(subject.try_send(Add(1))?);
    }
    let mut count = 0;
    while count == 0 || start.elapsed() < time {
        for _ in 0..CLOCK_INTERVAL {
            let oldest = open.pop_front().ok_or("no call is under way")?;
            oldest.await?;
            open.push_back(subject.try_send(Add(1))?);
        }
        count += CLOCK_INTERVAL;
    }
    for rest in open {
        rest.await?;
        count += 1;
    }
    Ok(Count { count, elapsed: start.elapsed() })
}

/// Measures calls of `width` tasks, each of which has one call in flight.
pub(super) async fn calls_of_tasks(
    subject: &RemoteAddr<Subject>,
    width: usize,
    time: Duration,
) -> BenchResult<Count> {
    let (over, start) = (Rc::new(Cell::new(false)), Instant::now());
    let tasks: Vec<_> = (0..width)
        .map(|_| {
            let (subject, over) = (subject.clone(), Rc::clone(&over));
            tokio::task::spawn_local(async move {
                let mut count = 0_u64;
                while count == 0 || !over.get() {
                    subject.send(Add(1)).await?;
                    count += 1;
                }
                Ok::<_, SendError>(count)
            })
        })
        .collect();
    // A timer, since each task would otherwise read the clock for each of its calls.
    tokio::time::sleep(time).await;
    over.set(true);
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(Count { count, elapsed: start.elapsed() })
}

/// Measures calls to an actix actor on another thread of this process, `in_flight` at a time.
pub(super) async fn local_calls(local: &Addr<Local>, in_flight: usize, time: Duration) -> BenchResult<Count> {
    let (mut open, start) = (VecDeque::with_capacity(in_flight), Instant::now());
    for _ in 0..in_flight {
        open.push_back(local.send(Add(1)));
    }
    let mut count = 0;
    while count == 0 || start.elapsed() < time {
        for _ in 0..CLOCK_INTERVAL {
            let oldest = open.pop_front().ok_or("no call is under way")?;
            oldest.await?;
            open.push_back(local.send(Add(1)));
        }
        count += CLOCK_INTERVAL;
    }
    for rest in open {
        rest.await?;
        count += 1;
    }
    Ok(Count { count, elapsed: start.elapsed() })
}

/// Measures calls of one client for each subject, `in_flight` for each client.
pub(super) async fn calls_of_each(
    subjects: &[RemoteAddr<Subject>],
    in_flight: usize,
    time: Duration,
) -> BenchResult<Count> {
    let start = Instant::now();
    let counts = try_join_all(subjects.iter().map(|subject| calls(subject, in_flight, time))).await?;
    Ok(Count { count: counts.iter().map(|count| count.count).sum(), elapsed: start.elapsed() })
}

/// Measures one-way messages, from the first send to the handling of the last.
///
/// The sender yields to the other tasks of its thread after each `burst` messages, if there is one.
pub(super) async fn one_way(
    subject: &RemoteAddr<Subject>,
    burst: Option<u64>,
    time: Duration,
) -> BenchResult<Count> {
    let before = subject.send(NoteCount).await?;
    let (start, mut count) = (Instant::now(), 0);
    while count == 0 || start.elapsed() < time {
        for _ in 0..CLOCK_INTERVAL {
            subject.tell(Note(1)).await?;
            count += 1;
            if burst.is_some_and(|burst| count % burst == 0) {
                tokio::task::yield_now().await;
            }
        }
    }
    let handled = subject.send(NoteCount).await? - before;
    if handled != count {
        return Err(format!("{count} one-way messages were sent and {handled} handled").into());
    }
    Ok(Count { count, elapsed: start.elapsed() })
}

/// Runs the futures of `begin`, `width` at a time, and passes their results to `done`.
///
/// Ends when all futures are done, after `begin` has returned `None` or the time has elapsed.
pub(super) async fn pipelined<F, T, E>(
    width: usize,
    time: Duration,
    mut begin: impl FnMut() -> Option<F>,
    mut done: impl FnMut(T),
) -> BenchResult<Count>
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
        over |= count.is_multiple_of(CLOCK_INTERVAL.min(width as u64)) && start.elapsed() >= time;
        if !over {
            open.extend(begin());
        }
    }
    Ok(Count { count, elapsed: start.elapsed() })
}
