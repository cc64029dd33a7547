//! Faults of machines, processes and links, as decided by the seed.

use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::sim::{Machine, World};
use tokio::time::{Instant, sleep};

use super::drivers::Drivers;
use super::script::{Script, Severity};

/// Longest absence of a machine that ends nothing, in milliseconds. It is shorter than a lease, and than the time in which
/// the first link to a host has to come up.
const SHORT_CUT_MS: u64 = 3_500;

/// Time in which all members come back after a short absence.
const CALM: Duration = Duration::from_secs(5);

/// Plays the faults of a script, and heals everything at the end.
pub(crate) async fn play(script: &Script, drivers: &Drivers) {
    let (world, mut rng) = (&drivers.world, script.rng(1));
    let until = Instant::now() + script.faults_for;
    slow_down(world, &mut rng);
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.u64(50..script.fault_pause_ms))).await;
        let kinds = match script.severity {
            Severity::Calm => 1,
            Severity::Breaks => 6,
            Severity::Nodes => 12,
            Severity::All => 15,
        };
        match rng.u8(..kinds) {
            0 => slow_down(world, &mut rng),
            1..=3 => {
                let (one, other) = two(script, &mut rng);
                world.break_links(one, other);
            }
            4 | 5 => {
                let machine = any(script, &mut rng);
                cut_off(world, machine, &mut rng, SHORT_CUT_MS);
                // Another one would add up with it to a longer absence than a lease.
                if script.severity == Severity::Breaks {
                    sleep(Duration::from_millis(SHORT_CUT_MS) + CALM).await;
                }
            }
            6 | 7 => world.kill_worker(rng.usize(..script.plan.nodes), rng.usize(..4)),
            8 | 9 => kill_agent(world, rng.usize(..script.plan.nodes), &mut rng),
            10 => {
                let node = Machine::Node(rng.usize(..script.plan.nodes));
                cut_off(world, node, &mut rng, 30_000);
            }
            11 => pause(world, rng.usize(..script.plan.nodes), &mut rng),
            12 => kill_head(world, &mut rng),
            13 => {
                let machine = any(script, &mut rng);
                cut_off(world, machine, &mut rng, 30_000);
            }
            _ => kill_driver(drivers, rng.usize(..script.plan.drivers)),
        }
    }
    heal(script, world).await;
}

/// Ends all faults.
async fn heal(script: &Script, world: &World) {
    // Those that end later by themselves find nothing to do.
    world.latency(Duration::ZERO..=Duration::from_millis(5));
    machines(script).for_each(|machine| world.cut_off(machine, [false; 2]));
    for node in 0..script.plan.nodes {
        world.resume(node);
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
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        sleep(after).await;
        world.cut_off(machine, [false; 2]);
    });
}

/// Pauses the processes of a node for a while.
fn pause(world: &Rc<World>, node: usize, rng: &mut Rng) {
    let after = Duration::from_millis(rng.u64(50..30_000));
    world.pause(node);
    let world = Rc::clone(world);
    tokio::task::spawn_local(async move {
        sleep(after).await;
        world.resume(node);
    });
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

fn kill_head(world: &Rc<World>, rng: &mut Rng) {
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
