//! Actors that come and go, what they weigh, and tasks.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use roadshow::{Cluster, RemoteAddr};

use super::calls::pipelined;
use super::fixture::{Fixture, Outcome};
use super::measure::{Count, anonymous_bytes};
use super::workload::{Add, Empty, Hold, Idle, NoteCount, Subject, increment};

/// How many actors are started before they are stopped again.
const ACTORS_MAX: usize = 20_000;

/// How many actors are weighed together.
const WEIGHED: usize = 5_000;

/// How many of the actors of this process are started before one of them is asked whether it lives.
const BATCH: usize = 512;

/// Spawns with so many under way. The actors are stopped meanwhile, which is not counted.
pub(super) async fn spawns(lab: &Fixture, in_flight: usize, time: Duration) -> Outcome<Count> {
    let mut all = Count::default();
    while all.count == 0 || all.elapsed < time {
        let (mut actors, left) = (Vec::new(), time.saturating_sub(all.elapsed));
        all += spawn(&lab.cluster, in_flight, ACTORS_MAX, left, &mut actors).await?;
        stop(in_flight, actors).await?;
    }
    Ok(all)
}

async fn spawn(
    cluster: &Cluster,
    in_flight: usize,
    most: usize,
    time: Duration,
    actors: &mut Vec<RemoteAddr<Idle>>,
) -> Outcome<Count> {
    let mut left = most;
    let begin = || {
        left = left.checked_sub(1)?;
        Some(cluster.spawn::<Idle>(()).into_future())
    };
    pipelined(in_flight, time, begin, |actor| actors.push(actor)).await
}

async fn stop(in_flight: usize, actors: Vec<RemoteAddr<Idle>>) -> Outcome<()> {
    let mut actors = actors.into_iter();
    pipelined(in_flight, Duration::MAX, || actors.next().map(|actor| actor.stop()), drop).await?;
    Ok(())
}

/// Actors of actix that are started in this process, on another thread.
///
/// They stop when nobody has their addresses any more, which is not counted.
pub(super) async fn local_spawns(lab: &Fixture, time: Duration) -> Outcome<Count> {
    let mut all = Count::default();
    while all.count == 0 || all.elapsed < time {
        let (mut actors, left) = (Vec::new(), time.saturating_sub(all.elapsed));
        all += local_spawn(lab, left, &mut actors).await?;
        drop(actors);
        // Their thread answers when it has come to their end.
        lab.local.send(Add(1)).await?;
    }
    Ok(all)
}

/// With two batches under way.
async fn local_spawn(lab: &Fixture, time: Duration, actors: &mut Vec<Addr<Empty>>) -> Outcome<Count> {
    let there = lab.arbiter.handle();
    let (mut open, start) = (VecDeque::new(), Instant::now());
    while actors.is_empty() || (start.elapsed() < time && actors.len() < ACTORS_MAX) {
        actors.extend((0..BATCH).map(|_| Empty::start_in_arbiter(&there, |_| Empty)));
        open.extend(actors.last().map(|last| last.send(NoteCount)));
        if open.len() > 1
            && let Some(oldest) = open.pop_front()
        {
            oldest.await?;
        }
    }
    for rest in open {
        rest.await?;
    }
    Ok(Count { count: actors.len() as u64, elapsed: start.elapsed() })
}

/// What an idle actor adds to the memory that its worker has written, in bytes.
///
/// In a worker of its own, since memory that was used before is not given back.
pub(super) async fn bytes_of_an_actor(in_flight: usize) -> Outcome<f64> {
    let (cluster, pid) = fresh().await?;
    let before = anonymous_bytes(pid)?;
    let mut actors = Vec::with_capacity(WEIGHED);
    spawn(&cluster, in_flight, WEIGHED, Duration::MAX, &mut actors).await?;
    let after = anonymous_bytes(pid)?;
    drop(actors);
    cluster.shutdown().await?;
    Ok((after - before) / WEIGHED as f64)
}

/// The same of an actor that only its own process knows.
pub(super) async fn bytes_of_a_local_actor() -> Outcome<f64> {
    let (cluster, pid) = fresh().await?;
    let subject = cluster.spawn::<Subject>(()).await?;
    let before = anonymous_bytes(pid)?;
    subject.send(Hold(WEIGHED)).await?;
    // They have begun when a message that was sent behind their start is handled.
    subject.send(NoteCount).await?;
    let after = anonymous_bytes(pid)?;
    cluster.shutdown().await?;
    Ok((after - before) / WEIGHED as f64)
}

/// A cluster with one worker, and its process.
pub(super) async fn fresh() -> Outcome<(Cluster, u32)> {
    let cluster = Cluster::local(1).await?;
    let pid = cluster.workers().first().map(|worker| worker.pid).ok_or("a cluster has no worker")?;
    Ok((cluster, pid))
}

/// Tasks, each run by itself, with so many under way.
pub(super) async fn tasks(lab: &Fixture, in_flight: usize, time: Duration) -> Outcome<Count> {
    pipelined(in_flight, time, || Some(lab.cluster.run(increment::task(1)).into_future()), drop).await
}

/// Tasks that are run together, with as many under way as the cluster thinks fit.
pub(super) async fn tasks_together(lab: &Fixture, time: Duration) -> Outcome<Count> {
    let (start, mut first) = (Instant::now(), true);
    let more = std::iter::from_fn(move || {
        (std::mem::take(&mut first) || start.elapsed() < time).then(|| increment::task(1))
    });
    let count = lab.cluster.run_all(more).await?.len() as u64;
    Ok(Count { count, elapsed: start.elapsed() })
}
