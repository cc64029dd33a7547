//! Checks of the cluster's state: at each step, and once everything is healed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use roadshow::Resources;
use roadshow::model::{ActorState, NodeState, WorkerState};
use roadshow::observe::PeerSnapshot;
use roadshow::sim::{Lists, Machine, World};
use tokio::time::{sleep, timeout};

use super::actors::{Counter, Note, Seed, triple};
use super::drivers::Drivers;
use super::record::{End, Kind, Record};
use super::script::Script;

/// Interval of the checks at each step.
const STEP: Duration = Duration::from_millis(250);

/// Time without a fault after which the head and an agent agree: an agent finds out that it lost the head, finds it and
/// joins.
const AGREE: Duration = Duration::from_secs(15);

/// Virtual time after the last fault within which everything is as without faults.
const SETTLE: Duration = Duration::from_secs(180);

/// Number of looks at the open calls of daemons.
const MOMENTS: u32 = 100;

/// Time after which daemons have forgotten hosts that have ended, with some room.
const FORGET: Duration = Duration::from_secs(100);

/// Checks the state at each step, for ever.
pub(crate) async fn step(world: &World, record: &Record) {
    loop {
        sleep(STEP).await;
        if let Some(lists) = world.lists() {
            check_lists(world, &lists);
            check_ended(record, &lists);
            (0..world.nodes()).for_each(|node| check_node(world, &lists, node));
        }
        check_workers(world);
    }
}

/// Checks the lists of the head against each other.
fn check_lists(world: &World, lists: &Lists) {
    let violation = |what: std::fmt::Arguments<'_>| world.journal().violation(what);
    let mut owners = BTreeMap::new();
    let working: BTreeSet<_> =
        lists.workers.iter().filter(|it| it.state != WorkerState::Dead).map(|it| it.worker_id).collect();
    for actor in lists.actors.iter().filter(|actor| actor.state != ActorState::Dead) {
        if let Some(name) = &actor.name
            && let Some(other) = owners.insert((&actor.namespace, name), actor.actor_id)
        {
            violation(format_args!("{name} is the name of {other} and of {}", actor.actor_id));
        }
        if actor.state == ActorState::Alive && actor.worker_id.is_none_or(|it| !working.contains(&it)) {
            violation(format_args!("actor {} is alive without a worker", actor.actor_id));
        }
    }
    for node in lists.nodes.iter().filter(|node| node.state != NodeState::Dead) {
        let cpus = |resources: &Resources| resources.0.get(Resources::CPU).map_or(0, |amount| amount.0);
        let on_node = lists
            .actors
            .iter()
            .filter(|actor| actor.node_id == Some(node.node_id) && actor.state != ActorState::Dead);
        let held: u64 = on_node.map(|actor| cpus(&actor.resources)).sum();
        let taken = cpus(&node.resources).wrapping_sub(cpus(&node.available));
        if held != taken {
            violation(format_args!("node {}: {taken} are allocated, and actors hold {held}", node.node_id));
        }
    }
}

/// Checks that no actor goes on whose watchers have learned its final end.
fn check_ended(record: &Record, lists: &Lists) {
    for actor in lists.actors.iter().filter(|actor| actor.state != ActorState::Dead) {
        if record.lives.take_ended(actor.actor_id) {
            record.violation(format_args!(
                "actor {} is {:?} after its watch resolved",
                actor.actor_id, actor.state
            ));
        }
    }
}

/// Checks that the head and the agent of a node agree, once both were undisturbed for a while.
fn check_node(world: &World, lists: &Lists, node: usize) {
    let machine = Machine::Node(node);
    let is_calm = [Machine::Head, machine].into_iter().all(|it| world.calm_for(it) >= AGREE);
    if !is_calm || !world.agent_runs(node) {
        return;
    }
    let name = machine.to_string();
    let row = lists.nodes.iter().find(|row| row.hostname == name && row.state == NodeState::Alive);
    let Some(row) = row else {
        return world.journal().violation(format_args!("{machine} runs, and the head does not know it"));
    };
    let listed =
        lists.workers.iter().filter(|it| it.node_id == row.node_id && it.state == WorkerState::Alive);
    let running = world.workers_on(node);
    for worker in listed.filter(|it| !running.contains(&it.worker_id)) {
        let calm = world.journal().since_last(&format!("worker {} on", worker.worker_id));
        if calm.is_none_or(|calm| calm >= AGREE) {
            world.journal().violation(format_args!(
                "worker {} has ended, and the head does not know it",
                worker.worker_id
            ));
        }
    }
}

/// Checks that no two workers have one id.
fn check_workers(world: &World) {
    let mut seen = BTreeSet::new();
    for worker in (0..world.nodes()).flat_map(|node| world.workers_on(node)) {
        if !seen.insert(worker) {
            world.journal().violation(format_args!("worker {worker} runs twice"));
        }
    }
}

/// Lets a driver on each machine use the healed cluster: all of it has to succeed.
pub(crate) async fn probe(drivers: &Drivers, script: &Script) {
    for machine in 0..script.plan.drivers {
        if timeout(SETTLE, probe_from(drivers, machine)).await.is_err() {
            drivers.record.violation(format_args!("driver {machine} cannot use the healed cluster"));
        }
    }
}

async fn probe_from(drivers: &Drivers, machine: usize) {
    let record = &drivers.record;
    let (run, driver) = loop {
        // The head may still wait for nodes to rejoin it.
        match drivers.world.driver(machine).await {
            Ok(driver) => break (record.number(), driver),
            Err(error) => record.note(format_args!("driver {machine} does not start yet: {error}")),
        }
        sleep(Duration::from_secs(1)).await;
    };
    loop {
        let op = record.send(Kind::Spawn, run, None, true, 1);
        let request = driver.cluster().spawn::<Counter>(Seed::of(op)).num_cpus(1.0).name("probe");
        match request.await {
            Ok(address) => {
                record.end(op, End::Answered);
                let call = record.send(Kind::Call, run, None, true, 1);
                record.answer(call, address.send(Note(call)).await);
                break;
            }
            Err(error) => record.end(op, End::Unknown(error.to_string())),
        }
        sleep(Duration::from_secs(1)).await;
    }
    let op = record.send(Kind::Task, run, None, false, 4);
    match driver.cluster().run(triple::task(op)).retries(3).await {
        Ok(result) if result == 3 * op => record.end(op, End::Answered),
        other => {
            record.end(op, End::Unknown(format!("{other:?}")));
            record.violation(format_args!("a task fails in the healed cluster: {other:?}"));
        }
    }
    let op = record.send(Kind::Find, run, None, false, 0);
    let found = driver.cluster().actor::<Counter>("probe").await;
    record.end(op, End::Answered);
    if let Err(error) = found {
        record.violation(format_args!("a name is not found in the healed cluster: {error}"));
    }
    driver.end().await;
}

/// Waits until the cluster is idle after all jobs have ended, and checks that nothing is left.
pub(crate) async fn settle(world: &Rc<World>) {
    let mut left = String::new();
    let idle = async {
        loop {
            left = remains(world);
            if left.is_empty() {
                return;
            }
            sleep(STEP).await;
        }
    };
    if timeout(SETTLE, idle).await.is_err() {
        world.journal().violation(format_args!("left after all jobs have ended: {left}"));
    }
    sleep(FORGET).await;
    // A heartbeat may be on its way at any moment, so one idle moment suffices.
    let mut open = Vec::new();
    for _ in 0..MOMENTS {
        open = open_calls(world);
        if open.is_empty() {
            break;
        }
        sleep(STEP / 7).await;
    }
    if !open.is_empty() {
        world.journal().violation(format_args!("calls are open although nothing happens: {open:?}"));
    }
    let sessions = world.daemons().iter().map(|(_, snapshot)| snapshot.peers.len()).sum::<usize>();
    // The head has one with each agent, and each agent one with the head.
    if sessions != 2 * world.nodes() {
        let daemons: Vec<_> = world
            .daemons()
            .into_iter()
            .map(|(process, snapshot)| {
                (process, snapshot.peers.iter().map(|it| it.identity).collect::<Vec<_>>())
            })
            .collect();
        world.journal().violation(format_args!("{sessions} sessions are left: {daemons:?}"));
    }
}

/// Sessions of the daemons with open calls.
fn open_calls(world: &World) -> Vec<(Machine, PeerSnapshot)> {
    let all = world.daemons().into_iter();
    let sessions = all.flat_map(|(machine, it)| it.peers.into_iter().map(move |peer| (machine, peer)));
    sessions.filter(|(_, it)| it.calls_open + it.calls_accepted + it.send_queue_bytes > 0).collect()
}

/// Describes what is not as in an idle cluster.
fn remains(world: &World) -> String {
    let Some(lists) = world.lists() else { return "the head does not run".to_owned() };
    let mut left = Vec::new();
    let alive = lists.nodes.iter().filter(|node| node.state == NodeState::Alive).count();
    if alive != world.nodes() {
        left.push(format!("{alive} of {} nodes are alive", world.nodes()));
    }
    for node in lists.nodes.iter().filter(|node| node.state == NodeState::Alive) {
        if node.available != node.resources {
            left.push(format!("{} of {} on node {}", node.available, node.resources, node.node_id));
        }
    }
    left.extend(lists.jobs.iter().filter(|it| it.state.is_open()).map(|it| format!("job {}", it.job_id)));
    let workers = lists.workers.iter().filter(|it| it.state != WorkerState::Dead);
    left.extend(workers.map(|it| format!("worker {} of the head", it.worker_id)));
    let actors = lists.actors.iter().filter(|it| it.state != ActorState::Dead);
    left.extend(actors.map(|it| format!("actor {} {:?}", it.actor_id, it.state)));
    if lists.waiting > 0 {
        left.push(format!("{} waiting actors", lists.waiting));
    }
    let running = (0..world.nodes()).flat_map(|node| world.workers_on(node));
    left.extend(running.map(|worker| format!("worker {worker} of an agent")));
    left.join(", ")
}
