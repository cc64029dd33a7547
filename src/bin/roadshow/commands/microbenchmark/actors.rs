//! Spawns, memory of actors, and tasks.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::time::{Duration, Instant};

use actix::{Actor, Addr};
use roadshow::{Cluster, RemoteAddr};

use super::calls::pipelined;
use super::fixture::{BenchResult, Fixture};
use super::measure::{Count, anonymous_bytes};
use super::workload::{Add, Empty, Hold, Idle, NoteCount, Subject, increment};

/// Number of actors spawned before all of them are stopped again.
const ACTORS_MAX: usize = 20_000;

/// Number of actors over which the memory of one is averaged.
const WEIGHED: usize = 5_000;

/// Number of local actors started before the benchmark waits for the last of them.
const BATCH: usize = 512;

/// Measures spawns, `in_flight` at a time. The actors are stopped in between, which is not timed.
pub(super) async fn spawns(fixture: &Fixture, in_flight: usize, time: Duration) -> BenchResult<Count> {
    let mut all = Count::default();
    while all.count == 0 || all.elapsed < time {
        let (mut actors, left) = (Vec::new(), time.saturating_sub(all.elapsed));
        all += spawn(&fixture.cluster, in_flight, ACTORS_MAX, left, &mut actors).await?;
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
) -> BenchResult<Count> {
    let mut left = most;
    let begin = || {
        left = left.checked_sub(1)?;
        Some(cluster.spawn::<Idle>(()).into_future())
    };
    pipelined(in_flight, time, begin, |actor| actors.push(actor)).await
}

async fn stop(in_flight: usize, actors: Vec<RemoteAddr<Idle>>) -> BenchResult<()> {
    let mut actors = actors.into_iter();
    pipelined(in_flight, Duration::MAX, || actors.next().map(|actor| actor.stop()), drop).await?;
    Ok(())
}

/// Measures actix actors that are started in this process, on another thread.
///
/// They stop when their last address is dropped, which is not timed.
pub(super) async fn local_spawns(fixture: &Fixture, time: Duration) -> BenchResult<Count> {
    let mut all = Count::default();
    while all.count == 0 || all.elapsed < time {
        let (mut actors, left) = (Vec::new(), time.saturating_sub(all.elapsed));
        all += local_spawn(fixture, left, &mut actors).await?;
        drop(actors);
        // The reply comes from the same arbiter, after the end of the dropped actors: it must not overlap with
        // the next round.
        fixture.local.send(Add(1)).await?;
    }
    Ok(all)
}

/// Starts actors with two batches in flight, so that the other thread never idles.
async fn local_spawn(fixture: &Fixture, time: Duration, actors: &mut Vec<Addr<Empty>>) -> BenchResult<Count> {
    let arbiter = fixture.arbiter.handle();
    let (mut open, start) = (VecDeque::new(), Instant::now());
    while actors.is_empty() || (start.elapsed() < time && actors.len() < ACTORS_MAX) {
        actors.extend((0..BATCH).map(|_| Empty::start_in_arbiter(&arbiter, |_| Empty)));
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

/// Memory that an idle actor adds to its worker, in bytes.
///
/// Each measurement uses a new worker: an allocator that has freed pages of earlier actors would hide the cost.
pub(super) async fn bytes_of_an_actor(in_flight: usize) -> BenchResult<f64> {
    let (cluster, pid) = fresh().await?;
    let before = anonymous_bytes(pid)?;
    let mut actors = Vec::with_capacity(WEIGHED);
    spawn(&cluster, in_flight, WEIGHED, Duration::MAX, &mut actors).await?;
    let after = anonymous_bytes(pid)?;
    drop(actors);
    cluster.shutdown().await?;
    Ok((after - before) / WEIGHED as f64)
}

/// Memory that an idle local actor adds to its process, in bytes.
pub(super) async fn bytes_of_a_local_actor() -> BenchResult<f64> {
    let (cluster, pid) = fresh().await?;
    let subject = cluster.spawn::<Subject>(()).await?;
    let before = anonymous_bytes(pid)?;
    subject.send(Hold(WEIGHED)).await?;
    // The mailbox is ordered: all actors of `Hold` have started when this later message is handled.
    subject.send(NoteCount).await?;
    let after = anonymous_bytes(pid)?;
    cluster.shutdown().await?;
    Ok((after - before) / WEIGHED as f64)
}

/// Starts a cluster with one worker, and returns the worker's process id.
pub(super) async fn fresh() -> BenchResult<(Cluster, u32)> {
    let cluster = Cluster::local(1).await?;
    let pid = cluster.workers().first().map(|worker| worker.pid).ok_or("a cluster has no worker")?;
    Ok((cluster, pid))
}

/// Measures single tasks, `in_flight` at a time.
pub(super) async fn tasks(fixture: &Fixture, in_flight: usize, time: Duration) -> BenchResult<Count> {
    pipelined(in_flight, time, || Some(fixture.cluster.run(increment::task(1)).into_future()), drop).await
}

/// Measures `run_all`, which chooses the number of tasks in flight itself.
pub(super) async fn tasks_together(fixture: &Fixture, time: Duration) -> BenchResult<Count> {
    let (start, mut first) = (Instant::now(), true);
    let more = std::iter::from_fn(move || {
        (std::mem::take(&mut first) || start.elapsed() < time).then(|| increment::task(1))
    });
    let count = fixture.cluster.run_all(more).await?.len() as u64;
    Ok(Count { count, elapsed: start.elapsed() })
}
