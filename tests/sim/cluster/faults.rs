//! Faults of machines, processes and links, as decided by the seed.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::sim::{Machine, Pausable, World};
use tokio::time::{Instant, sleep};

use super::drivers::Drivers;
use super::script::{Script, Severity};

/// Longest absence of a machine that ends nothing, in milliseconds. It is shorter than a lease, and than the time in which
/// the first link to a host has to come up.
const SHORT_CUT_MS: u64 = 3_500;

/// Time in which all members come back after a short absence.
const CALM: Duration = Duration::from_secs(5);

/// Longest absence of a machine or a process, in milliseconds: longer than any lease.
const LONG_CUT_MS: u64 = 30_000;

/// Number of restarts of actors of which one is followed by the ends of the head and of the node.
const CRASHES: u8 = 4;

/// Plays the faults of a script, and heals everything at the end.
pub(crate) async fn play(script: &Script, drivers: &Rc<Drivers>) {
    let (world, mut rng) = (&drivers.world, script.rng(1));
    let until = Instant::now() + script.faults_for;
    slow_down(world, &mut rng);
    let mut crashes = script.rng(2);
    let crashing = async {
        loop {
            let machine = world.actor_restarted().await;
            if script.severity == Severity::All && crashes.u8(..CRASHES) == 0 {
                crash(world, machine, &mut crashes);
            }
        }
    };
    let playing = async {
        while Instant::now() < until {
            sleep(Duration::from_millis(rng.u64(50..script.fault_pause_ms))).await;
            play_one(script, drivers, &mut rng).await;
        }
    };
    tokio::select! {
        biased;
        () = playing => {}
        () = crashing => {}
    }
    heal(script, drivers).await;
}

async fn play_one(script: &Script, drivers: &Rc<Drivers>, rng: &mut Rng) {
    let world = &drivers.world;
    let kinds = match script.severity {
        Severity::Calm => 1,
        Severity::Breaks => 8,
        Severity::Nodes => 16,
        Severity::All => 21,
    };
    let node = rng.usize(..script.plan.nodes);
    match rng.u8(..kinds) {
        0 => slow_down(world, rng),
        1..=3 => {
            let (one, other) = two(script, rng);
            world.break_links(one, other);
        }
        short @ 4..=7 => {
            match short {
                4 | 5 => cut_off(world, any(script, rng), rng, SHORT_CUT_MS),
                _ => pause_any(script, drivers, rng, SHORT_CUT_MS),
            }
            // Another one would add up with it to a longer absence than a lease.
            if script.severity == Severity::Breaks {
                sleep(Duration::from_millis(SHORT_CUT_MS) + CALM).await;
            }
        }
        8 | 9 => world.kill_worker(node, rng.usize(..4)),
        10 | 11 => kill_agent(world, node, rng),
        12 => cut_off(world, Machine::Node(node), rng, LONG_CUT_MS),
        13 => pause(drivers, Pausable::Node(node), rng, LONG_CUT_MS),
        14 => pause(drivers, Pausable::Agent(node), rng, LONG_CUT_MS),
        15 => pause(drivers, Pausable::Worker(node, rng.usize(..4)), rng, LONG_CUT_MS),
        16 | 17 => kill_head(world, rng),
        18 => cut_off(world, any(script, rng), rng, LONG_CUT_MS),
        19 => pause_any(script, drivers, rng, LONG_CUT_MS),
        _ => kill_driver(drivers, rng.usize(..script.plan.drivers)),
    }
}

/// Ends all faults.
async fn heal(script: &Script, drivers: &Drivers) {
    let world = &drivers.world;
    // Those that end later by themselves find nothing to do.
    world.latency(Duration::ZERO..=Duration::from_millis(5));
    machines(script).for_each(|machine| world.cut_off(machine, [false; 2]));
    drivers.paused.borrow_mut().clear();
    for node in 0..script.plan.nodes {
        world.start_agent(node).await;
    }
    world.start_head().await;
    world.journal().note("the faults are over");
}

fn machines(script: &Script) -> impl Iterator<Item = Machine> {
    let nodes = (0..script.plan.nodes).map(Machine::Node);
    std::iter::once(Machine::Head).chain(nodes).chain((0..script.plan.drivers).map(Machine::Driver))
}

fn any(script: &Script, rng: &mut Rng) -> Machine {
    let all: Vec<_> = machines(script).collect();
    all[rng.usize(..all.len())]
}

fn two(script: &Script, rng: &mut Rng) -> (Machine, Machine) {
    let all: Vec<_> = machines(script).collect();
    let one = rng.usize(..all.len());
    // The offset is at least 1, so the two differ.
    (all[one], all[(one + rng.usize(1..all.len())) % all.len()])
}

fn slow_down(world: &World, rng: &mut Rng) {
    let least = Duration::from_micros(rng.u64(0..20_000));
    world.latency(least..=least + Duration::from_micros(rng.u64(0..50_000)));
}

/// Cuts a machine off, and connects it again after a while.
fn cut_off(world: &Rc<World>, machine: Machine, rng: &mut Rng, most_ms: u64) {
    let (direction, after) = (rng.u8(..3), Duration::from_millis(rng.u64(50..most_ms)));
    world.cut_off(machine, [direction != 1, direction != 0]);
    connect_after(world, machine, after);
}

/// Cuts a machine off in both directions for this time.
pub(super) fn cut_off_for(world: &Rc<World>, machine: Machine, time: Duration) {
    world.cut_off(machine, [true; 2]);
    connect_after(world, machine, time);
}

fn connect_after(world: &Rc<World>, machine: Machine, time: Duration) {
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        sleep(time).await;
        world.cut_off(machine, [false; 2]);
    });
}

/// Pauses processes for a while.
fn pause(drivers: &Rc<Drivers>, what: Pausable<'_>, rng: &mut Rng, most_ms: u64) {
    let (id, after) = (rng.u64(..), Duration::from_millis(rng.u64(50..most_ms)));
    let Some(paused) = drivers.world.pause(what) else { return };
    drivers.paused.borrow_mut().insert(id, paused);
    let drivers = Rc::clone(drivers);
    tokio::task::spawn_local(async move {
        sleep(after).await;
        drop(drivers.paused.borrow_mut().remove(&id));
    });
}

/// Pauses the head, a driver, or processes of a node.
fn pause_any(script: &Script, drivers: &Rc<Drivers>, rng: &mut Rng, most_ms: u64) {
    let (node, number) = (rng.usize(..script.plan.nodes), rng.usize(..4));
    let driver = drivers.present.borrow()[rng.usize(..script.plan.drivers)].clone();
    let what = match (rng.u8(..5), &driver) {
        (0, _) => Pausable::Head,
        (1, Some((_, driver))) => Pausable::Driver(driver),
        (2, _) => Pausable::Worker(node, number),
        (3, _) => Pausable::Agent(node),
        _ => Pausable::Node(node),
    };
    pause(drivers, what, rng, most_ms);
}

/// Ends the head and a node at once, as a failure of power does.
fn crash(world: &Rc<World>, machine: Machine, rng: &mut Rng) {
    kill_head(world, rng);
    if let Machine::Node(node) = machine {
        kill_agent(world, node, rng);
    }
}

fn kill_agent(world: &Rc<World>, node: usize, rng: &mut Rng) {
    let after = Duration::from_millis(rng.u64(50..20_000));
    world.kill_agent(node);
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        sleep(after).await;
        world.start_agent(node).await;
    });
}

pub(super) fn kill_head(world: &Rc<World>, rng: &mut Rng) {
    let after = Duration::from_millis(rng.u64(50..20_000));
    // A worker that ends while its agent rejoins is in neither its report nor a session.
    let (and_worker, delay) = (rng.u8(..3) > 0, Duration::from_millis(rng.u64(..1_200)));
    let (node, number) = (rng.usize(..world.nodes()), rng.usize(..4));
    world.kill_head();
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        sleep(after).await;
        world.start_head().await;
        if and_worker {
            sleep(delay).await;
            world.kill_worker(node, number);
        }
    });
}

fn kill_driver(drivers: &Drivers, machine: usize) {
    let Some((run, driver)) = drivers.present.borrow_mut()[machine].take() else { return };
    drivers.record.excuse_driver(run);
    drivers.world.kill_driver(&driver);
}
