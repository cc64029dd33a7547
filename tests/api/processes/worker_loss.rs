//! Death of a worker: it fails the calls open to that worker, and nothing else.

use std::time::{Duration, Instant};

use actix::System;
use roadshow::SpawnError;
use roadshow::prelude::*;
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::driver::PATIENCE;
use super::fixtures::{Began, Listener, Never, Pid, Worker, pid};
use super::process_table::{signal, wait_until};

/// Maximum time of an error that needs no network.
const IMMEDIATE: Duration = Duration::from_secs(1);

/// Spawns two actors on different workers: one that the test will kill, and one that it will not.
async fn two_actors(cluster: &Cluster) -> (RemoteAddr<Worker>, u32, RemoteAddr<Worker>, u32) {
    let victim = cluster.spawn::<Worker>(()).await.unwrap();
    let other = cluster.spawn::<Worker>(()).await.unwrap();
    let (victim_pid, other_pid) = (victim.send(Pid).await.unwrap(), other.send(Pid).await.unwrap());
    assert_ne!(victim_pid, other_pid);
    (victim, victim_pid, other, other_pid)
}

#[test]
fn call_to_a_worker_that_is_killed_has_an_unknown_outcome_and_later_ones_are_not_delivered() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let (victim, victim_pid, other, other_pid) = two_actors(&cluster).await;
        let (sender, mut began) = mpsc::channel(1);
        let listener = cluster.register(Listener(sender).start());
        let pending = victim.try_send(Never { began: listener.recipient::<Began>() }).unwrap();
        began.recv().await.unwrap();
        assert!(victim.connected());

        signal(victim_pid, Signal::KILL).unwrap();
        let lost = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap_err();
        assert!(lost.is_outcome_unknown() && lost.to_string().contains("SIGKILL"), "{lost}");
        let known = actix_rt::task::spawn_blocking({
            let victim = victim.clone();
            move || wait_until(PATIENCE, || !victim.connected())
        });
        assert!(known.await.unwrap(), "the driver does not detect the end");

        let start = Instant::now();
        let rejected = victim.send(Pid).await.unwrap_err();
        assert!(start.elapsed() < IMMEDIATE, "{:?}", start.elapsed());
        assert!(rejected.is_not_delivered(), "{rejected}");
        let text = rejected.to_string();
        assert!(text.contains(&format!("worker {victim_pid}")) && text.contains("SIGKILL"), "{text}");

        assert_eq!(other.send(Pid).await.unwrap(), other_pid);
        assert!(other.connected());
        let snapshot = cluster.snapshot();
        let peer = |host| snapshot.peers.iter().find(|peer| peer.identity == host).unwrap();
        assert!(!peer(victim.host()).linked && peer(other.host()).linked, "{snapshot:#?}");
        assert_eq!(peer(victim.host()).calls_open, 0);
    });
}

#[test]
fn actors_and_tasks_are_placed_on_the_remaining_workers() {
    System::new().block_on(async {
        let cluster = Cluster::local(3).await.unwrap();
        let (victim, victim_pid, ..) = two_actors(&cluster).await;
        signal(victim_pid, Signal::KILL).unwrap();
        let known = actix_rt::task::spawn_blocking(move || wait_until(PATIENCE, || !victim.connected()));
        assert!(known.await.unwrap(), "the driver does not detect the end");

        for _ in 0..4 {
            let actor = cluster.spawn::<Worker>(()).await.unwrap();
            assert_ne!(actor.send(Pid).await.unwrap(), victim_pid);
        }
        let ran = cluster.run_all((0..9).map(|_| pid::task())).await.unwrap();
        assert!(!ran.contains(&victim_pid), "{victim_pid} in {ran:?}");
    });
}

#[test]
fn spawn_fails_after_the_last_worker_died() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        signal(cluster.workers()[0].pid, Signal::KILL).unwrap();
        let known = actix_rt::task::spawn_blocking(move || wait_until(PATIENCE, || !actor.connected()));
        assert!(known.await.unwrap(), "the driver does not detect the end");

        let rejected = cluster.spawn::<Worker>(()).await.unwrap_err();
        assert!(matches!(rejected, SpawnError::NoWorker { .. }), "{rejected}");
        let rejected = cluster.run(pid::task()).await.unwrap_err();
        assert!(matches!(rejected, TaskError::NoWorker { .. }), "{rejected}");
        cluster.shutdown().await.unwrap();
    });
}
