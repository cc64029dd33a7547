//! Processes that are suspended or busy for a while are not given up.

use std::time::{Duration, Instant};

use actix::System;
use roadshow::Limits;
use roadshow::prelude::*;
use rustix::process::Signal;

use super::fixtures::{Pid, Worker};
use super::process_table::{signal, wait_until};

/// Heartbeat timeout, short enough for a pause to miss many heartbeats.
const LOST: Duration = Duration::from_millis(100);

/// Length of a pause: 20 times the heartbeat timeout.
const PAUSE: Duration = Duration::from_secs(2);

async fn start(workers: usize) -> Cluster {
    let mut limits = Limits::default();
    limits.heartbeat_interval = LOST / 5;
    limits.heartbeat_timeout = LOST;
    Cluster::builder().workers(workers).limits(limits).start().await.unwrap()
}

fn links(cluster: &Cluster, host: roadshow::internals::id::HostUid) -> u64 {
    let peers = cluster.snapshot().peers;
    peers.iter().find(|peer| peer.identity == host).map_or(0, |peer| peer.links)
}

/// Suspended process that is resumed on drop, also when its test fails.
struct Stopped(u32);

impl Stopped {
    fn stop(pid: u32) -> Self {
        signal(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // An error means that the process has ended.
        let _ = signal(self.0, Signal::CONT);
    }
}

#[test]
fn a_suspended_worker_is_reported_and_answers_after_it_is_resumed() {
    System::new().block_on(async {
        let cluster = start(2).await;
        let (one, other) =
            (cluster.spawn::<Worker>(()).await.unwrap(), cluster.spawn::<Worker>(()).await.unwrap());
        let pid = one.send(Pid).await.unwrap();
        let stopped = |cluster: &Cluster| {
            let workers = cluster.workers();
            let worker = workers.iter().find(|worker| worker.pid == pid).unwrap();
            assert_eq!(worker.ended, None);
            worker.stopped
        };
        assert!(!stopped(&cluster));

        let paused = Stopped::stop(pid);
        let waiting = one.try_send(Pid).unwrap();
        assert!(wait_until(PAUSE, || stopped(&cluster)));
        // The driver replaces the worker's link again and again, but must not give up the worker.
        let since = Instant::now();
        while since.elapsed() < PAUSE {
            other.send(Pid).await.unwrap();
        }
        assert!(one.connected());
        drop(paused);
        assert_eq!(waiting.await, Ok(pid));
        assert!(wait_until(PAUSE, || !stopped(&cluster)));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_busy_driver_keeps_its_links_and_its_workers() {
    System::new().block_on(async {
        let cluster = start(1).await;
        let worker = cluster.spawn::<Worker>(()).await.unwrap();
        let pid = worker.send(Pid).await.unwrap();
        let waiting = worker.try_send(Pid).unwrap();
        let since = Instant::now();
        while since.elapsed() < PAUSE {
            std::hint::spin_loop();
        }
        assert_eq!(waiting.await, Ok(pid));
        assert_eq!(worker.send(Pid).await, Ok(pid));
        assert_eq!(links(&cluster, worker.host()), 1, "no link was given up");
        cluster.shutdown().await.unwrap();
    });
}
