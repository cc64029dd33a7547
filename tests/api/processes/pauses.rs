//! Processes that do nothing for a while live all the same.

use std::time::{Duration, Instant};

use actix::System;
use roadshow::Limits;
use roadshow::prelude::*;
use rustix::process::Signal;

use super::cast::{Pid, Worker};
use super::table::{signal, wait_until};

/// So short that many heartbeats are missed.
const LOST: Duration = Duration::from_millis(100);

/// Many times as long as a link may be silent.
const PAUSE: Duration = Duration::from_secs(2);

async fn start(workers: usize) -> Cluster {
    let mut limits = Limits::default();
    limits.heartbeat_interval = LOST / 5;
    limits.heartbeat_timeout = LOST;
    Cluster::builder().workers(workers).limits(limits).start().await.unwrap()
}

fn links(cluster: &Cluster, host: roadshow::id::HostUid) -> u64 {
    let peers = cluster.snapshot().peers;
    peers.iter().find(|peer| peer.identity == host).map_or(0, |peer| peer.links)
}

/// Lets a stopped process go on, also when its test fails.
struct Stopped(u32);

impl Stopped {
    fn stop(pid: u32) -> Self {
        signal(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended by now.
        let _ = signal(self.0, Signal::CONT);
    }
}

#[test]
fn a_worker_that_is_stopped_is_known_to_be_and_answers_when_it_goes_on() {
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
        // Its link is given up in vain, again and again; it is not.
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
fn a_driver_that_computes_keeps_its_links_and_its_workers() {
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
