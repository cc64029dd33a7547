//! Drivers of the workload: each joins, works for a while and ends, again and again until the faults are over.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use roadshow::model::{ActorInfo, ActorKey};
use roadshow::sim::{Machine, Paused, SimDriver, World, spawn_local};
use roadshow::{FindError, RemoteAddr, Resources, Restart, Retry, SpawnError, TaskError};
use tokio::time::{sleep, timeout};

use super::actors::{Counter, Errand, Fail, Note, Seed, triple};
use super::faults;
use super::lives::Life;
use super::record::{End, Kind, Op, Record, of_send};
use super::script::{Script, Severity};
use super::trees::Tree;

/// Names that the jobs compete for.
const NAMES: u64 = 3;

/// Virtual time after the faults within which a managed actor answers.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);

/// Virtual time after the faults within which a watch resolves once its actor was stopped.
const RESOLVES_WITHIN: Duration = Duration::from_secs(120);

/// Failures that the default policy allows.
const DEFAULT_FAILURES_MAX: u32 = 5;

/// Actors that one driver keeps in use.
const ACTORS_MAX: usize = 6;

/// State that the drivers of a run share.
pub(crate) struct Drivers {
    pub(crate) world: Rc<World>,
    pub(crate) record: Rc<Record>,
    /// Present driver of each machine, with the number of its run.
    pub(crate) present: RefCell<Vec<Option<(u64, SimDriver)>>>,
    pub(crate) is_over: Cell<bool>,
    /// True if the head may end right after it has acknowledged a kill.
    pub(crate) kills_in_vain: bool,
    /// Processes that are paused, by the number of the pause.
    pub(crate) paused: RefCell<BTreeMap<u64, Paused>>,
}

/// Actor that a driver has an address of, and the stream of its messages through it.
#[derive(Clone)]
struct Known {
    address: RemoteAddr<Counter>,
    /// Operation that spawned it; `None` for one that was found by its name.
    spawn: Option<Op>,
    stream: u64,
    is_stopped: bool,
    is_managed: bool,
}

/// Runs drivers on one machine until the faults are over.
pub(crate) async fn run(drivers: Rc<Drivers>, script: Rc<Script>, machine: usize) {
    let mut rng = script.rng(100 + machine as u64);
    sleep(Duration::from_millis(rng.u64(..2_000))).await;
    while !drivers.is_over.get() {
        let run = drivers.record.number();
        match drivers.world.driver(machine).await {
            Ok(driver) => {
                drivers.present.borrow_mut()[machine] = Some((run, driver.clone()));
                let work = Work::new(&drivers, &driver, run);
                driver.program(work.play(&mut rng)).await;
                let was_present = drivers.present.borrow_mut()[machine].take().is_some();
                if was_present {
                    drivers.record.excuse_driver(run);
                    driver.end().await;
                }
            }
            Err(error) => {
                drivers.record.note(format_args!("driver {machine} does not start: {error}"));
                if script.severity == Severity::Calm {
                    drivers.record.violation("a driver does not start although nothing is wrong");
                }
            }
        }
        sleep(Duration::from_millis(rng.u64(..3_000))).await;
    }
}

/// Work of one run of a driver.
pub(super) struct Work<'a> {
    drivers: &'a Rc<Drivers>,
    pub(super) driver: &'a SimDriver,
    pub(super) run: u64,
    actors: Vec<Known>,
    pub(super) trees: Vec<Tree>,
    watches: Vec<Watched>,
}

/// Actor that a driver watches.
struct Watched {
    watch: Op,
    actor: Op,
    address: RemoteAddr<Counter>,
}

impl<'a> Work<'a> {
    fn new(drivers: &'a Rc<Drivers>, driver: &'a SimDriver, run: u64) -> Self {
        Self { drivers, driver, run, actors: Vec::new(), trees: Vec::new(), watches: Vec::new() }
    }

    async fn play(mut self, rng: &mut Rng) {
        for _ in 0..rng.usize(10..80) {
            if self.driver.has_ended() {
                return;
            }
            if self.drivers.is_over.get() {
                self.call_managed().await;
                self.check_trees(rng).await;
                return self.end_watched().await;
            }
            sleep(Duration::from_millis(rng.u64(..1_200))).await;
            match rng.u8(..20) {
                0..=2 if self.actors.len() < ACTORS_MAX => self.spawn(rng).await,
                0..=6 => self.burst(rng).await,
                7 | 8 => self.retry(rng),
                9..=11 => self.tasks(rng),
                12 => self.find(rng).await,
                13 => self.kill(rng).await,
                14 => self.stop(rng).await,
                16..=18 => self.tend(rng).await,
                19 => self.fail(rng),
                _ => self.errand(rng),
            }
        }
    }

    /// Calls the managed actors that were not stopped: once everything is healed, each of them answers.
    async fn call_managed(&self) {
        for Known { address, stream, .. } in self.actors.iter().filter(|it| it.is_managed && !it.is_stopped) {
            let answered = timeout(ANSWERS_WITHIN, async {
                loop {
                    let op = self.record().send(Kind::Call, self.run, None, true, 1);
                    let answer = address.send(Note(op)).await;
                    let is_over = answer.is_ok() || self.driver.has_ended();
                    self.record().answer(op, answer);
                    if is_over {
                        return;
                    }
                    sleep(Duration::from_millis(500)).await;
                }
            });
            if answered.await.is_err() {
                self.record().violation(format_args!("the managed actor of stream {stream} does not answer"));
            }
        }
    }

    pub(super) fn record(&self) -> &Rc<Record> {
        &self.drivers.record
    }

    /// Watches an actor until it ends.
    pub(super) fn watch(&mut self, actor: Op, address: &RemoteAddr<Counter>) {
        let op = self.record().send(Kind::Watch, self.run, None, true, 0);
        self.watches.push(Watched { watch: op, actor, address: address.clone() });
        let watch = self.driver.cluster().watch(address);
        let (record, address) = (Rc::clone(self.record()), address.clone());
        spawn_local(async move {
            let terminated = watch.await;
            record.watch_resolved(op, actor, &terminated.end);
            if !terminated.is(&address) {
                record.violation(format_args!("{op} learns the end of {:?}", terminated.actor));
            }
        });
    }

    /// Ends all actors that are watched; once everything is healed, each watch resolves.
    async fn end_watched(&self) {
        // A request that was just made is sent first: one that follows the stop fails.
        tokio::task::yield_now().await;
        let resolved = timeout(RESOLVES_WITHIN, async {
            loop {
                let mut open = self.watches.iter().filter(|it| self.record().is_open(it.watch)).peekable();
                if open.peek().is_none() || self.driver.has_ended() {
                    return;
                }
                for Watched { actor, address, .. } in open {
                    self.record().lives.may_end(*actor);
                    // An actor that waits for room has no location yet.
                    let _ = timeout(Duration::from_secs(5), self.end_one(address)).await;
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
        if resolved.await.is_err() {
            let open = self.watches.iter().filter(|it| self.record().is_open(it.watch));
            let open: Vec<_> = open.map(|it| (it.watch, it.actor)).collect();
            self.record().violation(format_args!("watches of ended actors do not resolve: {open:?}"));
        }
    }

    async fn end_one(&self, address: &RemoteAddr<Counter>) {
        match key_of(address) {
            Some(key) => drop(self.driver.end_actor(key).await),
            None => drop(address.stop().await),
        }
    }

    async fn spawn(&mut self, rng: &mut Rng) {
        // Actors with resources may wait for others to end, and a name may be taken.
        let (cpus, name) = (rng.u8(..3) == 0, rng.u8(..3) == 0);
        let limit = (cpus || rng.u8(..4) == 0).then(|| Duration::from_millis(rng.u64(1..8_000)));
        let is_managed = rng.u8(..3) == 0;
        // Each restart creates a managed actor again.
        let starts_max = if is_managed { u32::MAX } else { 1 };
        let op = self.record().send(Kind::Spawn, self.run, None, name || limit.is_some(), starts_max);
        let failures_max = is_managed.then_some(DEFAULT_FAILURES_MAX);
        // Every other one, without a draw.
        let is_exclusive = is_managed && op.is_multiple_of(2);
        let life = Life::new(self.run, failures_max);
        self.record().lives.add(op, if is_exclusive { life.exclusive() } else { life });
        if name {
            // Others may find it, and stop it.
            self.record().lives.may_end(op);
        }
        let seed = if is_exclusive { Seed::exclusive(op) } else { Seed::of(op) };
        let mut request = self.driver.cluster().spawn::<Counter>(seed);
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        if is_managed {
            let policy = Restart::on_failure();
            request = request.restart(if is_exclusive { policy.exclusive() } else { policy });
        }
        if cpus {
            request = request.resources(Resources::none().with(Resources::CPU, 1.0));
        }
        if name {
            request = request.name(format!("name-{}", rng.u64(..NAMES)));
        }
        // A future is dropped now and then, in any phase of its request.
        let spawned = match rng.u8(..6) {
            0 => timeout(Duration::from_millis(rng.u64(..100)), request).await.ok(),
            _ => Some(request.await),
        };
        match spawned {
            None => {
                self.record().end(op, End::Dropped);
                self.record().lives.give_up(op);
            }
            Some(Ok(address)) => {
                self.record().end(op, End::Answered);
                let stream = self.record().number();
                if is_managed {
                    self.record().is_managed(stream);
                }
                self.record().lives.is_known_as(op, key_of(&address));
                if rng.bool() {
                    self.watch(op, &address);
                }
                // Others may find a named actor, and stop it.
                self.actors.push(Known { address, spawn: Some(op), stream, is_stopped: name, is_managed });
            }
            Some(Err(error)) => self.spawn_failed(op, &error, is_managed),
        }
    }

    /// Records a spawn without an address, of which nothing may be left if the head has created the actor.
    pub(super) fn spawn_failed(&self, op: Op, error: &SpawnError, is_managed: bool) {
        self.record().end(op, of_spawn(error, is_managed));
        self.record().lives.give_up(op);
    }

    fn pick(&self, rng: &mut Rng) -> Option<usize> {
        (!self.actors.is_empty()).then(|| rng.usize(..self.actors.len()))
    }

    /// Sends some ordered messages to an actor, by calls and one way.
    async fn burst(&self, rng: &mut Rng) {
        let Some(at) = self.pick(rng) else { return };
        let Known { address, stream, is_stopped, .. } = self.actors[at].clone();
        for _ in 0..rng.usize(1..6) {
            let kind = if rng.bool() { Kind::Call } else { Kind::Tell };
            let op = self.record().send(kind, self.run, Some(stream), is_stopped, 1);
            if kind == Kind::Tell {
                match address.tell(Note(op)).await {
                    Ok(()) => self.record().end(op, End::Sent),
                    Err(error) => self.record().answer(op, Err(error.into())),
                }
                continue;
            }
            // The order counts from the first poll, or from here for a request that is sent at once.
            match address.try_send(Note(op)) {
                Ok(request) => self.await_answer(op, request, None),
                Err(error) => self.record().answer(op, Err(error.reason.into())),
            }
        }
    }

    fn retry(&self, rng: &mut Rng) {
        let Some(at) = self.pick(rng) else { return };
        let Known { address, stream, is_stopped, .. } = self.actors[at].clone();
        let op = self.record().send(Kind::Retry, self.run, Some(stream), is_stopped, 1);
        let policy = Retry::times(6).delay(Duration::from_millis(20));
        self.await_answer(op, address.send(Note(op)).retry(policy), None);
    }

    fn errand(&self, rng: &mut Rng) {
        let Some(at) = self.pick(rng) else { return };
        let Known { address, .. } = self.actors[at].clone();
        let limit = rng.bool().then(|| Duration::from_millis(rng.u64(1..3_000)));
        let drop_after = (rng.u8(..4) == 0).then(|| Duration::from_millis(rng.u64(..500)));
        // Others may stop the actor while it works.
        let op = self.record().send(Kind::Call, self.run, None, true, 1);
        let mut request = address.send(Errand { op, takes_ms: rng.u64(..2_000) });
        if let Some(limit) = limit {
            request = request.timeout(limit);
        }
        self.await_answer(op, request, drop_after);
    }

    pub(super) fn await_answer(
        &self,
        op: Op,
        answer: impl Future<Output = Result<Op, roadshow::SendError>> + 'static,
        drop_after: Option<Duration>,
    ) {
        let record = Rc::clone(self.record());
        spawn_local(async move {
            let answered = match drop_after {
                None => Some(answer.await),
                Some(drop_after) => timeout(drop_after, answer).await.ok(),
            };
            match answered {
                Some(answer) => record.answer(op, answer),
                None => record.end(op, End::Dropped),
            }
        });
    }

    fn tasks(&self, rng: &mut Rng) {
        for _ in 0..rng.usize(1..5) {
            let retries = rng.u32(0..4);
            let op = self.record().send(Kind::Task, self.run, None, false, 1 + retries);
            let (cluster, record) = (self.driver.cluster(), Rc::clone(self.record()));
            spawn_local(async move {
                match cluster.run(triple::task(op)).retries(retries).await {
                    Ok(result) => {
                        record.end(op, End::Answered);
                        if result != 3 * op {
                            record.violation(format_args!("task {op} has the result {result}"));
                        }
                    }
                    Err(error) => record.end(op, of_task(&error)),
                }
            });
        }
    }

    async fn find(&mut self, rng: &mut Rng) {
        let op = self.record().send(Kind::Find, self.run, None, true, 0);
        let name = format!("name-{}", rng.u64(..NAMES));
        match self.driver.cluster().actor::<Counter>(&name).await {
            Ok(address) => {
                self.record().end(op, End::Answered);
                let stream = self.record().number();
                // Its own driver may stop it at any time.
                // It may be managed, as far as this driver knows.
                self.record().is_managed(stream);
                self.actors.push(Known { address, spawn: None, stream, is_stopped: true, is_managed: false });
            }
            Err(FindError::NotFound(error)) => self.record().end(op, End::NotRun(error.to_string())),
            Err(error) => {
                self.record().end(op, End::NotRun(error.to_string()));
                self.record().violation(format_args!("{op} finds {name}: {error}"));
            }
        }
    }

    /// Ends an actor of this job through the head.
    async fn kill(&mut self, rng: &mut Rng) {
        let own: Vec<_> = self.drivers.world.lists().into_iter().flat_map(|lists| lists.actors).collect();
        let own: Vec<_> = own.iter().filter(|actor| actor.job_id == self.driver.job()).collect();
        if own.is_empty() {
            return;
        }
        let info = own[rng.usize(..own.len())];
        let actor = info.actor_id;
        // The list does not tell which address it has, so any may be.
        self.actors.iter_mut().for_each(|known| known.is_stopped = true);
        self.actors.iter().for_each(|known| self.record().excuse_stream(known.stream));
        self.record().lives.may_end_by_key(self.run, actor);
        let op = self.record().send(Kind::Kill, self.run, None, true, 0);
        // A kill that has no effect before the head ends: the node of the actor cannot be reached meanwhile.
        let node = (0..self.drivers.world.nodes()).map(Machine::Node);
        let node = info.node_id.and(node.clone().find(|it| lists_node(&self.drivers.world, info, *it)));
        let in_vain = node.filter(|_| self.drivers.kills_in_vain && rng.u8(..3) == 0);
        if let Some(node) = in_vain {
            faults::cut_off_for(&self.drivers.world, node, Duration::from_millis(rng.u64(500..2_800)));
        }
        match self.driver.end_actor(actor).await {
            Ok(()) => {
                self.record().end(op, End::Answered);
                self.record().lives.give_up_key(self.run, actor);
                if in_vain.is_some() {
                    faults::kill_head(&self.drivers.world, rng);
                }
            }
            Err(error) => self.record().end(op, End::Unknown(error.to_string())),
        }
    }

    /// Stops an actor through its address, and forgets it after a last message.
    async fn stop(&mut self, rng: &mut Rng) {
        let Some(at) = self.pick(rng) else { return };
        let known = self.actors.swap_remove(at);
        self.record().excuse_stream(known.stream);
        if let Some(spawn) = known.spawn {
            self.record().lives.may_end(spawn);
        }
        let op = self.record().send(Kind::Kill, self.run, None, true, 0);
        match known.address.stop().await {
            Ok(()) => {
                self.record().end(op, End::Answered);
                known.spawn.into_iter().for_each(|spawn| self.record().lives.give_up(spawn));
            }
            Err(error) => self.record().end(op, of_send(&error)),
        }
        let op = self.record().send(Kind::Call, self.run, Some(known.stream), true, 1);
        self.await_answer(op, known.address.send(Note(op)), None);
        if let Some(spawn) = known.spawn.filter(|_| rng.u8(..3) == 0) {
            self.watch(spawn, &known.address);
        }
    }

    /// Makes an actor fail that is not restarted, and forgets it.
    fn fail(&mut self, rng: &mut Rng) {
        let Some(at) = self.pick(rng).filter(|at| !self.actors[*at].is_managed) else { return };
        let Known { address, spawn, stream, .. } = self.actors[at].clone();
        // One that was found may be restartable, and the messages to it in no order any more.
        let Some(spawn) = spawn else { return };
        self.actors.swap_remove(at);
        self.record().excuse_stream(stream);
        self.record().lives.may_end(spawn);
        let op = self.record().send(Kind::Fail, self.run, None, true, 1);
        self.await_answer(op, address.send(Fail(op)), None);
    }
}

/// Checks whether the head lists an actor on a machine.
fn lists_node(world: &World, actor: &ActorInfo, machine: Machine) -> bool {
    let nodes = world.lists().map(|lists| lists.nodes).unwrap_or_default();
    let node = nodes.iter().find(|node| Some(node.node_id) == actor.node_id);
    node.is_some_and(|node| node.hostname == machine.to_string())
}

/// Key of an actor, if it is restartable.
pub(super) fn key_of(address: &RemoteAddr<Counter>) -> Option<ActorKey> {
    address.actor().managed_number().map(ActorKey)
}

pub(super) fn of_spawn(error: &SpawnError, is_managed: bool) -> End {
    match error {
        SpawnError::OutcomeUnknown { .. } => End::Unknown(error.to_string()),
        // The head creates a managed actor, and may have done so before the request failed.
        SpawnError::PlacementTimedOut { .. } | SpawnError::Placement { .. } if is_managed => {
            End::Unknown(error.to_string())
        }
        _ => End::NotRun(error.to_string()),
    }
}

fn of_task(error: &TaskError) -> End {
    match error {
        TaskError::NotDelivered { .. } | TaskError::NoWorker { .. } => End::NotRun(error.to_string()),
        _ => End::Unknown(error.to_string()),
    }
}
