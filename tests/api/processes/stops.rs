//! User code that stops actix's system ends the whole worker; stopping an arbiter ends nothing.

use std::time::Duration;

use actix::System;
use roadshow::prelude::*;
use tokio::sync::mpsc;

use super::driver::PATIENCE;
use super::fixtures::{Began, Listener, Never, Pid, Stop, StopTarget, Worker, pid, stop};
use super::process_table::wait_until;

#[derive(Clone, Copy, Debug)]
enum StopContext {
    Handler,
    Task,
}

async fn stops(cluster: &Cluster, actor: &RemoteAddr<Worker>, what: StopTarget, context: StopContext) {
    // The answer races with the end of the worker, so both outcomes are accepted.
    match context {
        StopContext::Handler => drop(actor.send(Stop(what)).await),
        StopContext::Task => drop(cluster.run(stop::task(what)).retries(0).await),
    }
}

/// Waits until the cluster reports the end of a worker, and returns the cause.
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
    .expect("the cluster detects the end")
}

async fn ends_with_its_system(cluster: Cluster, what: StopTarget, context: StopContext) {
    let stopping = cluster.spawn::<Worker>(()).await.unwrap();
    let (sender, mut began) = mpsc::channel(1);
    let listener = cluster.register(Listener(sender).start());
    let other = cluster.spawn::<Worker>(()).await.unwrap();
    if let StopContext::Handler = context {
        assert_ne!(other.host(), stopping.host());
    }
    let pending = stopping.try_send(Never { began: listener.recipient::<Began>() }).unwrap();
    began.recv().await.unwrap();

    stops(&cluster, &stopping, what, context).await;
    let cause = cause(&cluster).await;
    assert!(cause.contains("System::current().stop()"), "{what:?} in a {context:?}: {cause}");
    let ended = cluster.workers().into_iter().find(|worker| worker.ended.is_some()).unwrap();
    if ended.host == stopping.host() {
        let lost = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap_err();
        assert!(lost.is_outcome_unknown(), "{what:?} in a {context:?}: {lost}");
    }
    // Everything later is contextd on the remaining worker.
    for _ in 0..4 {
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        assert_ne!(actor.host(), ended.host);
        actor.send(Pid).await.unwrap();
        cluster.run(pid::task()).await.unwrap();
    }
    cluster.shutdown().await.unwrap();
}

async fn goes_on_without_its_arbiter(cluster: Cluster, context: StopContext) {
    let before = cluster.spawn::<Worker>(()).await.unwrap();
    stops(&cluster, &before, StopTarget::Arbiter, context).await;
    for _ in 0..3 {
        before.send(Pid).await.unwrap();
        cluster.run(pid::task()).await.unwrap();
        cluster.spawn::<Worker>(()).await.unwrap().send(Pid).await.unwrap();
    }
    assert!(cluster.workers().iter().all(|worker| worker.ended.is_none()));
    cluster.shutdown().await.unwrap();
}

const CASES: [(StopTarget, StopContext); 3] = [
    (StopTarget::System, StopContext::Handler),
    (StopTarget::SystemInStopped, StopContext::Handler),
    (StopTarget::System, StopContext::Task),
];

#[test]
fn worker_whose_system_is_stopped_ends_and_reports_the_cause() {
    for (what, context) in CASES {
        System::new().block_on(async {
            ends_with_its_system(Cluster::local(2).await.unwrap(), what, context).await;
        });
    }
}

#[test]
fn in_process_worker_whose_system_is_stopped_ends_alone_and_reports_the_cause() {
    for (what, context) in CASES {
        System::new().block_on(async {
            ends_with_its_system(Cluster::in_process(2).await.unwrap(), what, context).await;
        });
    }
}

#[test]
fn stopping_an_arbiter_does_not_affect_its_worker() {
    for context in [StopContext::Handler, StopContext::Task] {
        System::new().block_on(async {
            goes_on_without_its_arbiter(Cluster::local(1).await.unwrap(), context).await;
            goes_on_without_its_arbiter(Cluster::in_process(1).await.unwrap(), context).await;
        });
    }
}

#[test]
fn cluster_whose_only_worker_stopped_itself_reports_the_cause() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        let worker = cluster.workers()[0].pid;
        stops(&cluster, &actor, StopTarget::System, StopContext::Handler).await;
        let known = actix_rt::task::spawn_blocking({
            let actor = actor.clone();
            move || wait_until(PATIENCE, || !actor.connected())
        });
        assert!(known.await.unwrap(), "the driver does not detect the end");
        let error = actor.send(Pid).await.unwrap_err().to_string();
        assert!(error.contains(&worker.to_string()) && error.contains("System::current().stop()"), "{error}");
        assert_ne!(cluster.run(pid::task()).await.unwrap(), worker, "another worker replaces it");
        cluster.shutdown().await.unwrap();
    });
}
