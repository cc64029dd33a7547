//! A simulated run: some hosts on one thread, their senders, the faults between them, and the final checks.

mod actors;
mod faults;
mod hosts;
mod placement;
mod record;
mod script;
mod senders;
mod spawned_actors;

use std::rc::Rc;
use std::time::Duration;

use actix_rt::System;
use roadshow::Memory;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use hosts::{SimHosts, tasks_alive};
use record::Record;
pub(crate) use script::Script;

/// Virtual time after which every message has an outcome, whatever happened before.
const PATIENCE: Duration = Duration::from_secs(600);

/// Interval of the budget checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Outcome of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Log of all events with their times.
    pub(crate) log: Vec<String>,
    /// Violated guarantees.
    pub(crate) violations: Vec<String>,
}

/// Runs a script in virtual time.
pub(crate) fn run(script: Script) -> Outcome {
    let runtime =
        || Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime starts");
    System::with_tokio_rt(runtime).block_on(async move {
        let record = Rc::new(Record::new());
        // Spawned actors are created by the library, which cannot pass them the record.
        actors::set_record(&record);
        let tasks_before = tasks_alive();
        play(&script, &record).await;
        // Tasks of the hosts drop their part of the record when they notice the end.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if Rc::strong_count(&record) == 1 && tasks_alive() == tasks_before {
                break;
            }
        }
        if tasks_alive() != tasks_before {
            let left = tasks_alive();
            record
                .violation(format_args!("{left} tasks are left of all hosts, {tasks_before} existed before"));
        }
        match Rc::try_unwrap(record) {
            Ok(record) => {
                let (log, violations) = record.into_parts();
                Outcome { log, violations }
            }
            Err(held) => Outcome {
                log: Vec::new(),
                violations: vec![format!(
                    "{} references are left after all hosts ended",
                    Rc::strong_count(&held) - 1
                )],
            },
        }
    })
}

async fn play(script: &Script, record: &Rc<Record>) {
    let network = Memory::new(script.seed);
    let hosts = Rc::new(SimHosts::start(script, &network, record).await);
    if script.connected_first {
        senders::greet(script, &hosts).await;
    } else {
        disturb_all(script, record);
    }
    if script.expire_after.is_some() {
        // Any long absence of the driver may end its sessions.
        (1..script.hosts).for_each(|host| record.disturb(0, host));
    }
    let mut tasks = JoinSet::new();
    for from in 0..script.hosts {
        senders::start(script, &hosts, from, 0, &mut tasks);
    }
    let faults = faults::play(script, &network, &hosts, &mut tasks);
    let checks = check_periodically(script, &hosts);
    tokio::select! {
        biased;
        () = faults => {}
        // The checks never end, so the faults decide how long both take.
        () = checks => {}
    }
    hosts.note("the faults are over");
    // A side that has reset a session reports it on the next link. A host without a listener has to dial that
    // link itself, so every host calls every other.
    if timeout(PATIENCE, senders::greet(script, &hosts)).await.is_err() {
        hosts.record.violation("a host does not answer although everything is healed");
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(PATIENCE, all).await.is_err() {
        hosts.record.violation("some messages have no outcome");
        // Otherwise these tasks would keep the hosts alive, and hide the real violation.
        tasks.abort_all();
    }
    hosts.settle(script).await;
    let dead_letters = hosts.dead_letters();
    hosts.record.check_all(dead_letters);
    // The other half shuts down with peers that are still known.
    if script.seed.is_multiple_of(2) {
        hosts.forget_all().await;
    }
    hosts.end().await;
}

/// Marks every pair of hosts as disturbed, since the first contact may fail.
fn disturb_all(script: &Script, record: &Record) {
    for (one, other) in (0..script.hosts).flat_map(|one| (0..one).map(move |other| (one, other))) {
        record.disturb(one, other);
    }
}

/// Checks the budgets while the faults are played.
async fn check_periodically(script: &Script, hosts: &SimHosts) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        hosts.check_budgets(script);
    }
}
