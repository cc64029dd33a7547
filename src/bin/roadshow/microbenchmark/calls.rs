//! Calls and one-way messages, of which only the way costs anything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use actix::Addr;
use roadshow::RemoteAddr;

use super::lab::{Lab, Outcome};
use super::measure::{Timing, percentiles};
use super::subject::{Add, Local, Note, Noted, Subject};

/// How many calls are made between two looks at the clock.
const BETWEEN_LOOKS: u64 = 64;

/// One call at a time: how long each takes.
pub(super) async fn round_trip(lab: &Lab, time: Duration) -> Outcome<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    while start.elapsed() < time {
        let sent = Instant::now();
        lab.subject.send(Add(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// The same to an actor of this process, on another thread.
pub(super) async fn local_round_trip(lab: &Lab, time: Duration) -> Outcome<Timing> {
    let (mut taken, start) = (Vec::new(), Instant::now());
    while start.elapsed() < time {
        let sent = Instant::now();
        lab.local.send(Add(1)).await?;
        taken.push(sent.elapsed());
    }
    Ok(percentiles(taken))
}

/// Calls a second with so many under way: when the oldest is answered, another is made.
pub(super) async fn rate(subject: &RemoteAddr<Subject>, in_flight: usize, time: Duration) -> Outcome<f64> {
    let mut open = VecDeque::with_capacity(in_flight);
    for _ in 0..in_flight {
        open.push_back(subject.try_send(Add(1))?);
    }
    let (start, mut count) = (Instant::now(), 0_u64);
    loop {
        for _ in 0..BETWEEN_LOOKS {
            let oldest = open.pop_front().ok_or("no call is under way")?;
            oldest.await?;
            open.push_back(subject.try_send(Add(1))?);
        }
        count += BETWEEN_LOOKS;
        let elapsed = start.elapsed();
        if elapsed >= time {
            for rest in open {
                rest.await?;
            }
            return Ok(count as f64 / elapsed.as_secs_f64());
        }
    }
}

/// The same to an actor of this process, on another thread.
pub(super) async fn local_rate(local: &Addr<Local>, in_flight: usize, time: Duration) -> Outcome<f64> {
    let mut open = VecDeque::with_capacity(in_flight);
    for _ in 0..in_flight {
        open.push_back(local.send(Add(1)));
    }
    let (start, mut count) = (Instant::now(), 0_u64);
    loop {
        for _ in 0..BETWEEN_LOOKS {
            let oldest = open.pop_front().ok_or("no call is under way")?;
            oldest.await?;
            open.push_back(local.send(Add(1)));
        }
        count += BETWEEN_LOOKS;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(count as f64 / elapsed.as_secs_f64());
        }
    }
}

/// One-way messages a second, from the first that is sent until the last is handled.
pub(super) async fn one_way(subject: &RemoteAddr<Subject>, time: Duration) -> Outcome<f64> {
    let before = subject.send(Noted).await?;
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        for _ in 0..BETWEEN_LOOKS {
            subject.tell(Note(1)).await?;
        }
        count += BETWEEN_LOOKS;
    }
    let handled = subject.send(Noted).await? - before;
    if handled != count {
        return Err(format!("{count} one-way messages were sent and {handled} handled").into());
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
