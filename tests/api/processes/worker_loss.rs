//! Death of a worker: it fails the calls open to that worker, and nothing else.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use actix::System;
use roadshow::NotDelivered;
use roadshow::prelude::*;
use rustix::process::Signal;
use tokio::sync::mpsc;

use super::driver::PATIENCE;
use super::fixtures::{Began, Listener, Never, Pid, PidOf, Worker, pid};
use super::process_table::{signal, wait_until};
use super::tracing::SETUP;

/// Maximum time of an error that needs no network.
const IMMEDIATE: Duration = Duration::from_secs(1);

/// Kills its worker if the file does not exist, which it creates.
#[roadshow::task]
fn die_once(file: PathBuf, number: u32) -> u32 {
    if std::fs::File::create_new(file).is_ok() {
        signal(std::process::id(), Signal::KILL).unwrap();
    }
    number
}

/// Crashes its worker.
#[roadshow::task]
fn crash() {
    std::process::abort();
}

#[roadshow::task]
fn die() {
    signal(std::process::id(), Signal::KILL).unwrap();
}

/// Counts its runs in a file. Fails until the given run, in which it panics, and succeeds afterwards.
#[roadshow::task]
fn fail_until(file: PathBuf, run: usize) -> Result<usize, usize> {
    let runs = std::fs::read(&file).map_or(1, |bytes| bytes.len() + 1);
    std::fs::write(file, vec![0; runs]).unwrap();
    assert!(runs != run, "as asked");
    if runs < run { Err(runs) } else { Ok(runs) }
}

/// Directory that is removed with its content.
struct TestDir(PathBuf);

impl TestDir {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("roadshow-{}-{name}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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

/// Waits, beside the cluster's links, until a condition holds.
async fn until(holds: impl Fn() -> bool + Send + 'static) {
    let held = actix_rt::task::spawn_blocking(move || wait_until(PATIENCE, holds));
    assert!(held.await.unwrap(), "the condition holds in time");
}

#[test]
fn the_only_worker_is_replaced_and_spawns_and_tasks_wait_for_it() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let first = cluster.workers()[0].pid;
        let actor = cluster.spawn::<Worker>(()).await.unwrap();
        signal(first, Signal::KILL).unwrap();
        until(move || !actor.connected()).await;

        let (ran, spawned) =
            tokio::join!(cluster.run(pid::task()).into_future(), cluster.spawn::<Worker>(()));
        let second = spawned.unwrap().send(Pid).await.unwrap();
        assert_eq!((ran.unwrap(), cluster.workers().len()), (second, 2));
        assert_ne!(first, second);
        let workers = cluster.workers();
        assert!(workers[0].ended.is_some() && workers[1].ended.is_none() && workers[1].pid == second);
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_replacement_and_the_other_workers_know_each_other() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let (victim, victim_pid, other, other_pid) = two_actors(&cluster).await;
        signal(victim_pid, Signal::KILL).unwrap();
        until(move || !victim.connected()).await;
        // Round robin over the workers: one of two actors is in the new worker, once that has joined.
        let spawned = tokio::time::timeout(PATIENCE, async {
            loop {
                let spawned = cluster.spawn::<Worker>(()).await.unwrap();
                if spawned.send(Pid).await.unwrap() != other_pid {
                    break spawned;
                }
                spawned.stop().await.unwrap();
            }
        });
        let spawned = spawned.await.unwrap();
        let new_pid = spawned.send(Pid).await.unwrap();
        assert_ne!(new_pid, victim_pid);
        assert_eq!(spawned.send(PidOf(other.clone())).await.unwrap(), Some(other_pid));
        assert_eq!(other.send(PidOf(spawned)).await.unwrap(), Some(new_pid));
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn tasks_of_killed_workers_run_again() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let directory = TestDir::new("die-once");
        // Each task kills its worker at its first run, and loses the tasks that wait behind it.
        let tasks = (0..6).map(|number| die_once::task(directory.0.join(number.to_string()), number));
        assert_eq!(cluster.run_all(tasks).retries(10).await.unwrap(), [0, 1, 2, 3, 4, 5]);
        assert!(cluster.workers().len() > 2, "workers were replaced");
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_task_that_kills_each_of_its_workers_ends_with_an_error_that_says_so() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let error = cluster.run(die::task()).retries(2).await.unwrap_err();
        assert!(matches!(error, TaskError::WorkersLost { runs: 3, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("lost with 3 of its workers") && text.contains("SIGKILL"), "{text}");
        let error = cluster.run(die::task()).retries(0).await.unwrap_err();
        assert!(matches!(error, TaskError::OutcomeUnknown { .. }), "{error}");
        // The cluster goes on.
        cluster.run(pid::task()).await.unwrap();
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_task_runs_again_on_its_own_error_if_asked() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let directory = TestDir::new("fail-until");
        let count = |retries| {
            let task = cluster.run(fail_until::task(directory.0.join("runs"), 3)).retries(retries);
            task.retry_if(|outcome| matches!(outcome, Ok(Err(_)) | Err(TaskError::Panicked { .. })))
        };
        assert_eq!(count(1).await.unwrap(), Err(2), "two runs");
        assert_eq!(count(1).await.unwrap(), Ok(4), "the third run panics");
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn a_spawn_and_a_task_wait_for_a_delayed_worker_until_their_deadline() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        // The second crash in a row delays the next worker by a second.
        for _ in 0..2 {
            cluster.run(crash::task()).retries(0).await.unwrap_err();
        }
        let soon = Duration::from_millis(50);
        let (spawned, ran) = tokio::join!(
            cluster.spawn::<Worker>(()).timeout(soon).into_future(),
            cluster.run(pid::task()).timeout(soon).into_future(),
        );
        let late = spawned.unwrap_err();
        assert!(matches!(late, SpawnError::PlacementTimedOut { .. }), "{late}");
        let expired = ran.unwrap_err();
        assert!(
            matches!(expired, TaskError::NotDelivered { reason: NotDelivered::Expired, .. }),
            "{expired}"
        );
        cluster.run(pid::task()).await.unwrap();
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn workers_that_fail_at_their_start_are_not_replaced_for_ever() {
    System::new().block_on(async {
        let directory = TestDir::new("no-start");
        let file = directory.0.join("exit");
        let cluster =
            Cluster::builder().workers(1).local().env(SETUP, file.to_str().unwrap()).start().await.unwrap();
        std::fs::write(file, "").unwrap();
        signal(cluster.workers()[0].pid, Signal::KILL).unwrap();
        // It may be sent to the worker that is killed.
        cluster.run(pid::task()).await.unwrap_err();
        // Waits for no timeout: the cluster knows that no further worker comes.
        let start = Instant::now();
        let error = cluster.run(pid::task()).await.unwrap_err();
        assert!(matches!(error, TaskError::NoWorker { .. }), "{error}");
        assert!(start.elapsed() < PATIENCE / 3, "{:?}", start.elapsed());
        cluster.shutdown().await.unwrap();
    });
}

/// Policy that restarts often enough for these tests.
fn often() -> Restart {
    Restart::on_failure().at_most(100)
}

#[test]
fn restarted_actor_answers_after_its_worker_was_killed_and_an_open_call_has_an_unknown_outcome() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let worker = cluster.spawn::<Worker>(()).restart(often()).await.unwrap();
        let pid = worker.send(Pid).await.unwrap();
        let (sender, mut began) = mpsc::channel(1);
        let listener = cluster.register(Listener(sender).start());
        let pending = worker.try_send(Never { began: listener.recipient::<Began>() }).unwrap();
        began.recv().await.unwrap();

        let start = Instant::now();
        signal(pid, Signal::KILL).unwrap();
        let lost = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap_err();
        let failed_after = start.elapsed();
        assert!(lost.is_outcome_unknown() && lost.to_string().contains("SIGKILL"), "{lost}");
        let next = worker.send(Pid).await.unwrap();
        println!("error after {failed_after:?}, reply of the next incarnation after {:?}", start.elapsed());
        assert_ne!(next, pid);
        // A kill from outside has no back-off, however often it comes.
        for _ in 0..3 {
            let pid = worker.send(Pid).await.unwrap();
            signal(pid, Signal::KILL).unwrap();
            until_not(&worker, pid).await;
        }
        let actors = cluster.actors().await.unwrap();
        let [actor] = &actors[..] else { panic!("{actors:#?}") };
        assert_eq!((actor.restarts, actor.cause.as_deref()), (4, None));
        cluster.shutdown().await.unwrap();
    });
}

/// Waits for a reply from another process than `pid`.
async fn until_not(worker: &RemoteAddr<Worker>, pid: u32) {
    let replied = async {
        loop {
            match worker.send(Pid).await {
                Ok(now) if now != pid => return,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => assert!(error.is_outcome_unknown(), "{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, replied).await.expect("the actor restarts");
}

#[test]
fn call_that_may_be_repeated_goes_on_at_the_next_incarnation() {
    System::new().block_on(async {
        let cluster = Cluster::local(2).await.unwrap();
        let worker = cluster.spawn::<Worker>(()).restart(often()).await.unwrap();
        let pid = worker.send(Pid).await.unwrap();
        let (sender, mut began) = mpsc::channel(2);
        let listener = cluster.register(Listener(sender).start());
        let never = Never { began: listener.recipient::<Began>() };
        let call = worker.send(never).retry(Retry::times(1).across_restarts()).into_future();
        let call = actix_rt::spawn(call);
        began.recv().await.unwrap();
        signal(pid, Signal::KILL).unwrap();
        // The handler of the next incarnation has it.
        tokio::time::timeout(PATIENCE, began.recv()).await.unwrap().unwrap();
        let next = worker.send(Pid).await.unwrap();
        signal(next, Signal::KILL).unwrap();
        let lost = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err();
        assert!(lost.is_outcome_unknown(), "{lost}");
        cluster.shutdown().await.unwrap();
    });
}

#[test]
fn crash_of_the_worker_counts_as_a_failure_of_its_actors() {
    System::new().block_on(async {
        let cluster = Cluster::local(1).await.unwrap();
        let worker = cluster.spawn::<Worker>(()).restart(Restart::on_failure().at_most(1)).await.unwrap();
        let pid = worker.send(Pid).await.unwrap();
        signal(pid, Signal::ABORT).unwrap();
        until_not(&worker, pid).await;
        signal(worker.send(Pid).await.unwrap(), Signal::ABORT).unwrap();
        let ending = async {
            loop {
                match worker.send(Pid).await {
                    Err(error) if error.is_not_delivered() => return Err::<u32, _>(error),
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, ending).await.unwrap();
        assert!(matches!(&ended, Err(SendError::NotDelivered(NotDelivered::ActorEnded { text })) if text.contains("signal 6")), "{ended:?}");
        cluster.shutdown().await.unwrap();
    });
}
