//! A whole cluster under seeded faults: a head, agents, workers and drivers.

mod actors;
mod checks;
mod drivers;
mod faults;
mod lives;
mod record;
mod script;
mod trees;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use roadshow::sim::{Plan, World};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use drivers::Drivers;
use record::Record;
pub(crate) use script::Script;
use script::Severity;

/// Outcome of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Log of all events with their times.
    pub(crate) log: Vec<String>,
    /// Violated guarantees.
    pub(crate) violations: Vec<String>,
}

/// Virtual time after the faults within which every operation has an outcome.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a script in virtual time.
pub(crate) fn run(script: Script) -> Outcome {
    let journal = World::run(script.plan.clone(), async |world| play(Rc::new(script), world).await);
    Outcome { log: journal.lines(), violations: journal.violations() }
}

/// Runs a cluster of five nodes with one driver that does nothing for this time.
pub(crate) fn idle(time: Duration) -> Outcome {
    let mut plan = Plan::new(0);
    plan.nodes = 5;
    let journal = World::run(plan, async |world| match world.driver(0).await {
        Ok(driver) => {
            sleep(time).await;
            driver.end().await;
        }
        Err(error) => world.journal().violation(error),
    });
    Outcome { log: journal.lines(), violations: journal.violations() }
}

async fn play(script: Rc<Script>, world: Rc<World>) {
    let record = Rc::new(Record::new(&world, script.severity));
    actors::set_run(&world, &record);
    record.note(format_args!("{script:?}"));
    let drivers = Rc::new(Drivers {
        world: Rc::clone(&world),
        record: Rc::clone(&record),
        present: RefCell::new(vec![None; script.plan.drivers]),
        is_over: Cell::new(false),
        kills_in_vain: script.severity == Severity::All,
        paused: RefCell::default(),
    });
    let steps = async {
        let mut working = JoinSet::new();
        for machine in 0..script.plan.drivers {
            working.spawn_local(drivers::run(Rc::clone(&drivers), Rc::clone(&script), machine));
        }
        faults::play(&script, &drivers).await;
        record.lives.heal();
        drivers.is_over.set(true);
        let all = async { while working.join_next().await.is_some() {} };
        if timeout(PATIENCE, all).await.is_err() {
            record.violation(format_args!("drivers do not end; open: {:?}", record.open()));
            working.abort_all();
        }
        let ended = async {
            while !record.open().is_empty() {
                sleep(Duration::from_millis(500)).await;
            }
        };
        if timeout(PATIENCE, ended).await.is_err() {
            record.violation(format_args!("operations have no outcome: {:?}", record.open()));
        }
        checks::probe(&drivers, &script).await;
        checks::settle(&world).await;
    };
    tokio::select! {
        biased;
        () = steps => {}
        // The checks never end.
        () = checks::step(&world, &record) => {}
    }
    record.check_all();
}
