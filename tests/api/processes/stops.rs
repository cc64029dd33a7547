//! User code that stops actix's system or arbiter ends its worker, or nothing; never half a worker.

use std::time::Duration;

use actix::System;
use roadshow::prelude::*;
use tokio::sync::mpsc;

use super::cast::{Began, Listener, Never, Pid, Stop, Stops, Worker, pid, stop};
use super::driver::PATIENCE;
use super::table::wait_until;

#[derive(Clone, Copy, Debug)]
enum In {
    Handler,
    Task,
}

async fn stops(cluster: &Cluster, actor: &RemoteAddr<Worker>, what: Stops, place: In) {
    // Whether it is answered is a race with the end.
    match place {
        In::Handler => drop(actor.send(Stop(what)).await),
        In::Task => drop(cluster.run(stop::task(what)).await),
    }
}

/// Waits until the cluster knows of the end of one worker, and gives the cause.
async fn cause(cluster: &Cluster) -> String {
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(cause) = cluster.workers().into_iter().find_map(|worker| worker.ended) {
                return cause;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the cluster learns of the end")
}

async fn ends_with_its_system(cluster: Cluster, what: Stops, place: In) {
    let stopping = cluster.spawn::<Worker>(()).await.unwrap();
    let (tell, mut began) = mpsc::channel(1);
    let listener = cluster.register(Listener(tell).start());
    let other = cluster.spawn::<Worker>(()).await.unwrap();
    if let In::Handler = place {
        assert_ne!(other.host(), stopping.host());
    }
    let pending = stopping.try_send(Never { began: listener.recipient::<Began>() }).unwrap();
    began.recv().await.unwrap();

    stops(&cluster, &stopping, what, place).await;
    let cause = cause(&cluster).await;
    assert!(cause.contains("System::current().stop()"), "{what:?} in a {place:?}: {cause}");
    let ended = cluster.workers().into_iter().find(|worker| worker.ended.is_some()).unwrap();
    if ended.host == stopping.host() {
        let lost = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap_err();
        assert!(lost.is_outcome_unknown(), "{what:?} in a {place:?}: {lost}");
    }
    // All that comes later goes to the worker that is left.
    for _ in 0..4 {
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        assert_ne!(actor.host(), ended.host);
        actor.send(Pid).await.unwrap();
        cluster.run(pid::task()).await.unwrap();
    }
    cluster.shutdown().await.unwrap();
}

async fn goes_on_without_its_arbiter(cluster: Cluster, place: In) {
    let before = cluster.spawn::<Worker>(()).await.unwrap();
    stops(&cluster, &before, Stops::Arbiter, place).await;
    for _ in 0..3 {
        before.send(Pid).await.unwrap();
        cluster.run(pid::task()).await.unwrap();
        cluster.spawn::<Worker>(()).await.unwrap().send(Pid).await.unwrap();
    }
    assert!(cluster.workers().iter().all(|worker| worker.ended.is_none()));
    cluster.shutdown().await.unwrap();
}

const WAYS: [(Stops, In); 3] =
    [(Stops::System, In::Handler), (Stops::SystemInTheEnd, In::Handler), (Stops::System, In::Task)];

#[test]
fn worker_whose_system_is_stopped_ends_and_says_why() {
    for (what, place) in WAYS {
        System::new().block_on(async {
            ends_with_its_system(Cluster::local(2).await.unwrap(), what, place).await;
        });
    }
}

#[test]
fn worker_within_this_process_whose_system_is_stopped_ends_alone_and_says_why() {
    for (what, place) in WAYS {
        System::new().block_on(async {
            ends_with_its_system(Cluster::in_process(2).await.unwrap(), what, place).await;
        });
    }
}

#[test]
fn stopping_an_arbiter_stops_nothing_of_its_worker() {
    for place in [In::Handler, In::Task] {
        System::new().block_on(async {
            goes_on_without_its_arbiter(Cluster::local(1).await.unwrap(), place).await;
            goes_on_without_its_arbiter(Cluster::in_process(1).await.unwrap(), place).await;
        });
    }
}

#[test]
fn cluster_whose_only_worker_has_stopped_itself_says_so() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        let worker = cluster.workers()[0].pid;
        stops(&cluster, &actor, Stops::System, In::Handler).await;
        let known = actix_rt::task::spawn_blocking({
            let actor = actor.clone();
            move || wait_until(PATIENCE, || !actor.connected())
        });
        assert!(known.await.unwrap(), "the driver does not learn of the end");
        let refused = actor.send(Pid).await.unwrap_err().to_string();
        assert!(
            refused.contains(&worker.to_string()) && refused.contains("System::current().stop()"),
            "{refused}"
        );
        let refused = cluster.run(pid::task()).await.unwrap_err();
        assert!(matches!(refused, TaskError::NoWorker { .. }), "{refused}");
        cluster.shutdown().await.unwrap();
    });
}
