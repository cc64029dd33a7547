//! One run: a few hosts on one thread, their senders, the faults between them, and the judgement.

mod cast;
mod faults;
mod place;
mod record;
mod script;
mod senders;

use std::rc::Rc;
use std::time::Duration;

use actix_rt::System;
use roadshow::transport::Memory;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use place::Places;
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
        let record = Rc::new(Record::new(script.hosts));
        play(&script, &record).await;
        // What was spawned for the hosts drops its part when it notices their end.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if Rc::strong_count(&record) == 1 {
                break;
            }
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
        (0..script.hosts).for_each(|host| record.disturb(host));
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
    places.end().await;
}

/// Looks at budgets while the faults go on.
async fn look(script: &Script, places: &Places) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        places.check_budgets(script);
    }
}
