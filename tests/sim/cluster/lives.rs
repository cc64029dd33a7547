//! Lives of actors: their incarnations, as the processes see them, and the ends that watches report.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::Duration;

use roadshow::internals::id::HostUid;
use roadshow::model::ActorKey;
use roadshow::sim::World;
use roadshow::{End, EndReason};
use tokio::time::Instant;

use super::record::Op;
use super::script::Severity;

/// Time after the last fault, and after the end of a parent, in which its children end everywhere: nodes have rejoined
/// by then, and a restarted head has given up what none of them reported.
pub(crate) const CHILDREN_END_WITHIN: Duration = Duration::from_secs(60);

/// Actor as its job knows it, by the operation that spawned it.
#[derive(Debug)]
pub(crate) struct Life {
    /// Run of its driver.
    driver: u64,
    /// Failures that its policy allows; `None` for an actor that is not restartable.
    failures_max: Option<u32>,
    is_child: bool,
    is_exclusive: bool,
    /// Set once a stop or a kill may end it for good.
    may_end: bool,
    /// Set once nothing of it may run: its kill was acknowledged, or its spawn has failed.
    is_given_up: bool,
    key: Option<ActorKey>,
    /// Its incarnations, in the order of their constructors.
    incarnations: Vec<u64>,
}

impl Life {
    pub(crate) fn new(driver: u64, failures_max: Option<u32>) -> Self {
        Self {
            driver,
            failures_max,
            is_child: false,
            is_exclusive: false,
            may_end: false,
            is_given_up: false,
            key: None,
            incarnations: Vec::new(),
        }
    }

    pub(crate) fn exclusive(self) -> Self {
        Self { is_exclusive: true, ..self }
    }

    pub(crate) fn child(driver: u64, failures_max: u32) -> Self {
        Self { is_child: true, ..Self::new(driver, Some(failures_max)) }
    }
}

/// Incarnation of an actor in a process.
#[derive(Clone, Copy, Debug)]
struct Incarnation {
    actor: Op,
    host: HostUid,
    /// Incarnation that spawned it as a child.
    parent: Option<u64>,
    /// Time at which it was dropped.
    dropped: Option<Instant>,
}

/// Lives of all actors of a run.
#[derive(Debug)]
pub(crate) struct Lives {
    world: Weak<World>,
    severity: Severity,
    all: RefCell<BTreeMap<Op, Life>>,
    incarnations: RefCell<BTreeMap<u64, Incarnation>>,
    /// Runs of drivers that have left the cluster, or are about to.
    left: RefCell<BTreeSet<u64>>,
    /// Restartable actors whose final end was reported.
    ended: RefCell<BTreeSet<ActorKey>>,
    /// Time of the last fault, once the faults are over.
    healed: Cell<Option<Instant>>,
}

impl Lives {
    pub(crate) fn new(world: &Rc<World>, severity: Severity) -> Self {
        Self {
            world: Rc::downgrade(world),
            severity,
            all: RefCell::default(),
            incarnations: RefCell::default(),
            left: RefCell::default(),
            ended: RefCell::default(),
            healed: Cell::new(None),
        }
    }

    /// Marks the end of all faults.
    pub(crate) fn heal(&self) {
        self.healed.set(Some(Instant::now()));
    }

    /// Adds an actor that is about to be spawned.
    pub(crate) fn add(&self, actor: Op, life: Life) {
        self.all.borrow_mut().insert(actor, life);
    }

    /// Adds the key of a restartable actor that was spawned.
    pub(crate) fn is_known_as(&self, actor: Op, key: Option<ActorKey>) {
        if let Some(life) = self.all.borrow_mut().get_mut(&actor) {
            life.key = key;
        }
    }

    /// Allows an actor to end for good.
    pub(crate) fn may_end(&self, actor: Op) {
        if let Some(life) = self.all.borrow_mut().get_mut(&actor) {
            life.may_end = true;
        }
    }

    /// Allows the actor with a key to end. It may be any that is not restartable, since their addresses have no keys.
    pub(crate) fn may_end_by_key(&self, driver: u64, key: ActorKey) {
        let mut all = self.all.borrow_mut();
        let of_driver = all.values_mut().filter(|life| life.driver == driver);
        of_driver
            .filter(|life| life.key == Some(key) || life.failures_max.is_none())
            .for_each(|it| it.may_end = true);
    }

    /// Marks a restartable actor that must end everywhere: it was killed, or its spawner has no address of it.
    pub(crate) fn give_up(&self, actor: Op) {
        let mut all = self.all.borrow_mut();
        if let Some(life) = all.get_mut(&actor).filter(|life| life.failures_max.is_some()) {
            life.is_given_up = true;
        }
    }

    /// The same for the restartable actor with a key.
    pub(crate) fn give_up_key(&self, driver: u64, key: ActorKey) {
        let mut all = self.all.borrow_mut();
        let life = all.values_mut().find(|life| life.driver == driver && life.key == Some(key));
        life.into_iter().for_each(|life| life.is_given_up = true);
    }

    /// Marks the end of a driver's run.
    pub(crate) fn leave(&self, driver: u64) {
        self.left.borrow_mut().insert(driver);
    }

    /// Adds an incarnation, whose constructor runs.
    pub(crate) fn created(&self, actor: Op, number: u64, host: HostUid, parent: Option<u64>) {
        self.incarnations.borrow_mut().insert(number, Incarnation { actor, host, parent, dropped: None });
        if let Some(life) = self.all.borrow_mut().get_mut(&actor) {
            life.incarnations.push(number);
        }
    }

    /// Marks the end of an incarnation.
    pub(crate) fn dropped(&self, number: u64) {
        if let Some(incarnation) = self.incarnations.borrow_mut().get_mut(&number) {
            incarnation.dropped = Some(Instant::now());
        }
    }

    fn is_running(&self, incarnation: Incarnation) -> bool {
        let world = self.world.upgrade();
        incarnation.dropped.is_none() && world.is_some_and(|world| world.is_running(incarnation.host))
    }

    /// Checks whether an incarnation has neither ended nor lost its process.
    pub(crate) fn runs(&self, number: u64) -> bool {
        let incarnation = self.incarnations.borrow().get(&number).copied();
        incarnation.is_some_and(|it| self.is_running(it))
    }

    /// Incarnations of an actor that run: more than one only during and shortly after a partition.
    pub(crate) fn running(&self, actor: Op) -> Vec<u64> {
        let all = self.all.borrow();
        let numbers = all.get(&actor).map(|life| life.incarnations.as_slice()).unwrap_or_default();
        numbers.iter().copied().filter(|number| self.runs(*number)).collect()
    }

    /// Incarnation that spawned an incarnation as a child.
    pub(crate) fn parent_of(&self, number: u64) -> Option<u64> {
        self.incarnations.borrow().get(&number)?.parent
    }

    /// Checks that an incarnation may handle a message now.
    pub(crate) fn check_handles(&self, number: u64) -> Result<(), String> {
        self.check_exclusive(number)?;
        let Some(parent) = self.parent_of(number) else { return Ok(()) };
        let is_late =
            |since: Option<Instant>| since.is_some_and(|since| since.elapsed() >= CHILDREN_END_WITHIN);
        let ended = self.incarnations.borrow().get(&parent).copied();
        // The end of a process has no time here, but none ends so late after the faults.
        let is_orphan = ended.is_some_and(|it| {
            !self.is_running(it) && it.dropped.is_none_or(|dropped| is_late(Some(dropped)))
        });
        match is_orphan && is_late(self.healed.get()) {
            true => {
                Err(format!("incarnation {number} handles a message after the end of its parent {parent}"))
            }
            false => Ok(()),
        }
    }

    /// Checks that no incarnation of an exclusive actor runs code once the constructor of the next one has run.
    fn check_exclusive(&self, number: u64) -> Result<(), String> {
        let Some(actor) = self.incarnations.borrow().get(&number).map(|it| it.actor) else { return Ok(()) };
        let all = self.all.borrow();
        let life = all.get(&actor).filter(|life| life.is_exclusive);
        match life.and_then(|life| life.incarnations.last()) {
            Some(last) if *last != number => {
                Err(format!("incarnation {number} of the exclusive actor {actor} runs after {last} began"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the reported end of an actor.
    pub(crate) fn check_end(&self, actor: Op, end: &End) -> Result<(), String> {
        let all = self.all.borrow();
        let Some(life) = all.get(&actor) else { return Ok(()) };
        if self.left.borrow().contains(&life.driver) {
            return Ok(());
        }
        if let Some(key) = life.key {
            self.ended.borrow_mut().insert(key);
        }
        let (loses_nodes, loses_jobs) = (self.severity >= Severity::Nodes, self.severity >= Severity::All);
        let runs = life.incarnations.iter().any(|number| self.runs(*number));
        let is_possible = match (end.reason, life.failures_max) {
            // The driver may not know yet that it has lost its lease.
            (EndReason::JobEnded, _) => loses_jobs,
            // A lost node may run on, and does not know that it was given up.
            (EndReason::NodeLost, None) => loses_nodes,
            // A node that does not rejoin a restarted head in time was lost, too.
            (EndReason::Unknown, None) => loses_jobs,
            (_, None) => !runs,
            // An absence of 3 s moves the parent, and its earlier incarnation runs until its node hears of it.
            (EndReason::Linked, Some(_)) => {
                life.is_child && (self.severity > Severity::Calm || !self.has_parent(life))
            }
            (EndReason::Panicked, Some(failures_max)) => life.incarnations.len() > failures_max as usize,
            // Only a head that has ended since knew the reason, which was one of those above.
            (EndReason::Unknown, Some(failures_max)) => {
                loses_jobs && (life.is_child || life.incarnations.len() > failures_max as usize)
            }
            // A worker that is killed as it starts counts as one that has failed.
            (EndReason::Signalled(_) | EndReason::Exited(_), Some(_)) => loses_nodes,
            (_, Some(_)) => life.may_end,
        };
        match is_possible || life.may_end {
            true => Ok(()),
            false => Err(format!("nothing ended actor {actor}, but its watch says {:?}: {end}", end.reason)),
        }
    }

    /// Checks whether the parents of a child's incarnations run.
    fn has_parent(&self, life: &Life) -> bool {
        life.incarnations.iter().filter_map(|it| self.parent_of(*it)).any(|parent| self.runs(parent))
    }

    /// Takes an actor that the head lists as not dead, if its final end was reported.
    pub(crate) fn take_ended(&self, key: ActorKey) -> bool {
        self.ended.borrow_mut().remove(&key)
    }

    /// Checks that each actor of a driver has at most one incarnation, and one that was given up none.
    pub(crate) fn check_incarnations(&self, driver: u64) -> Result<(), String> {
        let all = self.all.borrow();
        let of_driver = all.iter().filter(|(_, life)| life.driver == driver).map(|(actor, _)| *actor);
        for actor in of_driver {
            let running = self.running(actor);
            if running.len() > usize::from(!all[&actor].is_given_up) {
                return Err(format!("actor {actor} has the incarnations {running:?}"));
            }
        }
        Ok(())
    }
}
