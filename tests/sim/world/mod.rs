//! One run: a few hosts on one thread, their senders, the faults between them, and the judgement.

mod cast;
mod chosen;
mod faults;
mod guests;
mod place;
mod record;
mod script;
mod senders;

use std::rc::Rc;
use std::time::Duration;

use actix_rt::System;
use roadshow::Memory;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use place::{Places, tasks_alive};
use record::Record;
pub(crate) use script::Script;

/// By then every message has its end, whatever happened before.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often budgets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a run has come to.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All that happened, with its moment.
    pub(crate) log: Vec<String>,
    /// The promises that were broken.
    pub(crate) violations: Vec<String>,
}

/// Runs a script in virtual time.
pub(crate) fn run(script: Script) -> Outcome {
    let runtime =
        || Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime starts");
    System::with_tokio_rt(runtime).block_on(async move {
        let record = Rc::new(Record::new());
        cast::note_in(&record);
        let tasks_before = tasks_alive();
        play(&script, &record).await;
        // What was spawned for the hosts drops its part when it notices their end.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if Rc::strong_count(&record) == 1 && tasks_alive() == tasks_before {
                break;
            }
        }
        if tasks_alive() != tasks_before {
            let left = tasks_alive();
            record.violation(format_args!(
                "{left} tasks are left of all hosts, and {tasks_before} were before"
            ));
        }
        match Rc::try_unwrap(record) {
            Ok(record) => {
                let (log, violations) = record.into_parts();
                Outcome { log, violations }
            }
            Err(held) => Outcome {
                log: Vec::new(),
                violations: vec![format!(
                    "{} parts are left after all hosts ended",
                    Rc::strong_count(&held) - 1
                )],
            },
        }
    })
}

async fn play(script: &Script, record: &Rc<Record>) {
    let network = Memory::new(script.seed);
    let places = Rc::new(Places::start(script, &network, record).await);
    if script.acquainted {
        senders::greet(script, &places).await;
    } else {
        disturb_all(script, record);
    }
    if script.strays_after.is_some() {
        (1..script.hosts).for_each(|host| record.disturb(0, host));
    }
    let mut tasks = JoinSet::new();
    for from in 0..script.hosts {
        senders::start(script, &places, from, 0, &mut tasks);
    }
    let faults = faults::play(script, &network, &places, &mut tasks);
    let looks = look(script, &places);
    tokio::select! {
        biased;
        () = faults => {}
        () = looks => {}
    }
    places.note("the faults are over");
    // A side that has dropped a session tells the other on their next link, and one that listens
    // on nothing has to make it.
    if timeout(PATIENCE, senders::greet(script, &places)).await.is_err() {
        places.record.violation("a host does not answer when all is well");
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(PATIENCE, all).await.is_err() {
        places.record.violation("some messages have no end");
        tasks.abort_all();
    }
    places.settle(script).await;
    let dead_letters = places.dead_letters();
    places.record.judge(dead_letters);
    if script.seed.is_multiple_of(2) {
        places.part_for_good().await;
    }
    places.end().await;
}

/// The first contact may come to nothing, for any two hosts.
fn disturb_all(script: &Script, record: &Record) {
    for (one, other) in (0..script.hosts).flat_map(|one| (0..one).map(move |other| (one, other))) {
        record.disturb(one, other);
    }
}

/// Looks at budgets while the faults go on.
async fn look(script: &Script, places: &Places) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        places.check_budgets(script);
    }
}
