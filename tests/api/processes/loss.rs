//! A worker that dies takes what was open to it along, and nothing else.

use std::time::{Duration, Instant};

use actix::System;
use roadshow::SpawnError;
use roadshow::prelude::*;
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::cast::{Began, Listener, Never, Pid, Worker, pid};
use super::driver::PATIENCE;
use super::table::{signal, wait_until};

/// An answer that needs no network.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Spawns actors in two workers: the one that will die, and one that will not.
async fn two_actors(cluster: &Cluster) -> (RemoteAddr<Worker>, u32, RemoteAddr<Worker>, u32) {
    let doomed = cluster.spawn::<Worker>(()).await.unwrap();
    let spared = cluster.spawn::<Worker>(()).await.unwrap();
    let (dies, lives) = (doomed.send(Pid).await.unwrap(), spared.send(Pid).await.unwrap());
    assert_ne!(dies, lives);
    (doomed, dies, spared, lives)
}

#[test]
fn call_to_a_worker_that_is_killed_has_an_unknown_outcome_and_later_ones_are_not_delivered() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let (doomed, dies, spared, lives) = two_actors(&cluster).await;
        let (tell, mut began) = mpsc::channel(1);
        let listener = cluster.register(Listener(tell).start());
        let pending = doomed.try_send(Never { began: listener.recipient::<Began>() }).unwrap();
        began.recv().await.unwrap();
        assert!(doomed.connected());

        signal(dies, Signal::KILL).unwrap();
        let lost = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap_err();
        assert!(lost.is_outcome_unknown() && lost.to_string().contains("SIGKILL"), "{lost}");
        let known = actix_rt::task::spawn_blocking({
            let doomed = doomed.clone();
            move || wait_until(PATIENCE, || !doomed.connected())
        });
        assert!(known.await.unwrap(), "the driver does not learn of the end");

        let start = Instant::now();
        let refused = doomed.send(Pid).await.unwrap_err();
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(refused.is_not_delivered(), "{refused}");
        let text = refused.to_string();
        assert!(text.contains(&format!("worker {dies}")) && text.contains("SIGKILL"), "{text}");

        assert_eq!(spared.send(Pid).await.unwrap(), lives);
        assert!(spared.connected());
        let snapshot = cluster.snapshot();
        let peer = |host| snapshot.peers.iter().find(|peer| peer.identity == host).unwrap();
        assert!(!peer(doomed.host()).linked && peer(spared.host()).linked, "{snapshot:#?}");
        assert_eq!(peer(doomed.host()).calls_open, 0);
    });
}

#[test]
fn actors_and_tasks_go_to_the_workers_that_are_left() {
    System::new().block_on(async {
        let cluster = Cluster::local(3).await.unwrap();
        let (doomed, dies, ..) = two_actors(&cluster).await;
        signal(dies, Signal::KILL).unwrap();
        let known = actix_rt::task::spawn_blocking(move || wait_until(PATIENCE, || !doomed.connected()));
        assert!(known.await.unwrap(), "the driver does not learn of the end");

        for _ in 0..4 {
            let actor = cluster.spawn::<Worker>(()).await.unwrap();
            assert_ne!(actor.send(Pid).await.unwrap(), dies);
        }
        let ran = cluster.run_all((0..9).map(|_| pid::task())).await.unwrap();
        assert!(!ran.contains(&dies), "{dies} in {ran:?}");
    });
}

#[test]
fn cluster_whose_last_worker_died_says_so() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        signal(cluster.workers()[0].pid, Signal::KILL).unwrap();
        let known = actix_rt::task::spawn_blocking(move || wait_until(PATIENCE, || !actor.connected()));
        assert!(known.await.unwrap(), "the driver does not learn of the end");

        let refused = cluster.spawn::<Worker>(()).await.unwrap_err();
        assert!(matches!(refused, SpawnError::NoWorker { .. }), "{refused}");
        let refused = cluster.run(pid::task()).await.unwrap_err();
        assert!(matches!(refused, TaskError::NoWorker { .. }), "{refused}");
        cluster.shutdown().await.unwrap();
    });
}
