//! The hosts: where they are, who they are now, and what they hold.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use roadshow::internals::host::{Executor, Host, HostConfig};
use roadshow::internals::id::{HostId, HostUid, Incarnation};
use roadshow::internals::remote::actor_services;
use roadshow::internals::session::Secret;
use roadshow::internals::task::TaskService;
use roadshow::internals::transport::{Listener, Memory, Transport};
use roadshow::observe::PeerSnapshot;
use roadshow::{ClusterRef, RemoteAddr, TaskFn};
use tokio::runtime::Handle;

use super::cast::{Ledger, chore};
use super::chosen::Chosen;
use super::record::Record;
use super::script::{Script, Weather};

/// Actors that each host has from its start: a quick one, a slow one, and one for probes alone.
pub(crate) const ACTORS: usize = 3;

/// The actor that nothing but a probe is sent to: it has its window for itself.
pub(crate) const PROBED: usize = 2;

/// Within so long after the last message everything is acknowledged and given back.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// A machine that takes connections and says nothing.
const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// One host in its present life.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) host: Host,
    pub(crate) cluster: ClusterRef,
    pub(crate) chosen: Arc<Chosen>,
    ledgers: [RemoteAddr<Ledger>; ACTORS],
    /// The addresses that were made here, each of which serves for as long as its host lives.
    addresses: Rc<RefCell<Addresses>>,
}

/// Addresses by the host and the number of their actors.
type Addresses = BTreeMap<(HostUid, usize), RemoteAddr<Ledger>>;

/// All hosts.
pub(crate) struct Places {
    pub(crate) record: Rc<Record>,
    places: RefCell<Vec<Place>>,
    /// Those that were there before, whose dead letters count still.
    former: RefCell<Vec<Place>>,
    silent: Box<dyn Listener>,
    /// Tasks of the runtime while the hosts know no other.
    tasks_at_start: usize,
}

pub(crate) fn ip_of(place: usize) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + place as u32).into()
}

impl Places {
    pub(crate) async fn start(script: &Script, network: &Memory, record: &Rc<Record>) -> Self {
        let mut places = Vec::new();
        for at in 0..script.hosts {
            places.push(begin(script, network, record, at, 0).await);
        }
        let silent = network.at(SILENT).listen((SILENT, 0).into()).await.expect("the address is free");
        let places = Self {
            record: Rc::clone(record),
            places: RefCell::new(places),
            former: RefCell::default(),
            silent,
            tasks_at_start: tasks_alive(),
        };
        places.announce_members();
        places
    }

    /// A host dies and comes again as another: the others learn of it after a while.
    pub(crate) async fn restart(&self, script: &Script, network: &Memory, at: usize, life: u64) {
        let before = self.at(at);
        before.host.abort();
        tokio::time::sleep(Duration::from_millis(30)).await;
        let place = begin(script, network, &self.record, at, life).await;
        self.former.borrow_mut().push(std::mem::replace(&mut self.places.borrow_mut()[at], place));
        for other in self.all() {
            other.host.mark_peer_down(before.host.identity(), "it was killed");
        }
        self.announce_members();
    }

    /// A host forgets another, which lives and knows nothing of it.
    pub(crate) fn forget(&self, at: usize, other: usize) {
        self.at(at).host.forget(self.at(other).host.identity());
    }

    /// A host learns where another is, as it does at the start.
    pub(crate) fn introduce(&self, at: usize, other: usize) {
        let other = self.at(other).host;
        if let Some(address) = other.address() {
            self.at(at).host.add_peer(other.identity(), address);
        }
    }

    /// A host is told that another is where a machine takes connections and says nothing.
    pub(crate) fn misdirect(&self, at: usize, other: usize) {
        self.at(at).host.add_peer(self.at(other).host.identity(), self.silent.address());
    }

    fn announce_members(&self) {
        for at in 0..self.places.borrow().len() {
            self.others(at).for_each(|other| self.introduce(at, other));
        }
    }

    pub(crate) fn at(&self, place: usize) -> Place {
        self.places.borrow()[place].clone()
    }

    fn all(&self) -> Vec<Place> {
        self.places.borrow().clone()
    }

    pub(crate) fn address_of(&self, place: usize) -> Option<SocketAddr> {
        self.places.borrow()[place].host.address()
    }

    pub(crate) fn others(&self, than: usize) -> impl Iterator<Item = usize> {
        (0..self.places.borrow().len()).filter(move |at| *at != than)
    }

    pub(crate) fn note(&self, what: &str) {
        self.record.note(what);
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        let former = self.former.borrow().clone();
        self.all().iter().chain(&former).map(|place| place.host.snapshot().dead_letters).sum()
    }

    /// Nothing holds more than it may.
    pub(crate) fn check_budgets(&self, script: &Script) {
        let limits = &script.limits;
        // The actors, the host itself and its tasks.
        let windows = ACTORS + 2 + self.record.spawned();
        // One message is taken whatever its size.
        let most = limits.outgoing_bytes_max + limits.frame_bytes_max;
        for (at, place) in self.all().iter().enumerate() {
            for peer in place.host.snapshot().peers {
                // Replies are outside of the budget; they are as small as the calls that they end.
                let replies = 200 * (peer.calls_accepted + 200);
                if peer.outgoing_bytes > most + replies || peer.parked_bytes > most {
                    self.record.violation(format_args!("host {at} holds too much for another: {peer:?}"));
                }
                if peer.accepted_bytes + peer.owed_bytes > (windows * limits.window_bytes) as u64 {
                    self.record.violation(format_args!("host {at} has taken on too much: {peer:?}"));
                }
            }
        }
    }

    /// Waits until all is quiet, and checks that credit is conserved.
    pub(crate) async fn settle(&self, script: &Script) {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        let quiet = async {
            while !self.all().iter().all(is_quiet) {
                look.tick().await;
            }
        };
        if tokio::time::timeout(QUIET_WITHIN, quiet).await.is_err() {
            let loud = self.all().iter().map(|place| place.host.snapshot().peers).collect::<Vec<_>>();
            return self.record.violation(format_args!("it does not get quiet: {loud:?}"));
        }
        self.check_budgets(script);
        let all = self.all();
        for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (from, to))) {
            let (Some(out), Some(back)) = (toward(from, to), toward(to, from)) else { continue };
            if out.charged_bytes != back.owed_bytes {
                self.record.violation(format_args!("credit is lost: {out:?} and {back:?}"));
            }
        }
    }

    /// Has all hosts forget each other, and checks that nothing is kept of any.
    pub(crate) async fn part_for_good(&self) {
        let mut left = String::new();
        let mut look = tokio::time::interval(Duration::from_millis(50));
        let gone = async {
            loop {
                for at in 0..self.places.borrow().len() {
                    self.others(at).for_each(|other| self.forget(at, other));
                }
                look.tick().await;
                let peers = self.all().iter().map(|place| place.host.snapshot().peers.len()).sum::<usize>();
                let tasks = tasks_alive();
                if peers == 0 && tasks == self.tasks_at_start {
                    return;
                }
                left = format!("{peers} peers and {tasks} tasks of {}", self.tasks_at_start);
            }
        };
        if tokio::time::timeout(QUIET_WITHIN, gone).await.is_err() {
            self.record.violation(format_args!("left after all hosts forgot each other: {left}"));
        }
    }

    /// Ends all hosts gracefully.
    pub(crate) async fn end(&self) {
        for place in self.all() {
            place.host.shutdown("the simulation is over").await;
            for peer in place.host.snapshot().peers {
                if peer.linked || peer.calls_open > 0 || peer.outgoing_bytes > 0 || peer.parked_bytes > 0 {
                    self.record.violation(format_args!("left after a shutdown: {peer:?}"));
                }
            }
        }
    }
}

/// Tasks that are alive on the runtime of this run.
pub(crate) fn tasks_alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn begin(script: &Script, network: &Memory, record: &Rc<Record>, at: usize, life: u64) -> Place {
    let listens = !(script.driver && at == 0);
    let tasks = TaskService::new(Handle::current());
    let host = Host::start(HostConfig {
        identity: HostUid { host: HostId(at as u64 + 1), incarnation: Incarnation(life + 1) },
        secret: Secret::from_bytes([7; 32]),
        limits: script.limits.clone(),
        transport: Arc::new(network.at(ip_of(at))),
        listen: listens.then(|| SocketAddr::new(ip_of(at), 0)),
        io: Handle::current(),
        executor: Executor::here_or(&Handle::current()),
        services: Box::new(move |host, name, inbound| match name {
            <chore as TaskFn>::HASH => tasks.run(host, name, inbound),
            _ => actor_services(host, name, inbound),
        }),
    })
    .await
    .expect("a host starts");
    let chosen = Arc::new(Chosen::new(host.identity()));
    host.set_placement(Arc::clone(&chosen) as _);
    if let (true, Some(away)) = (script.weather >= Weather::Forgets && listens, script.strays_after) {
        host.expire_inbound_peers(away);
    }
    let cluster = ClusterRef::new(host.clone());
    let ledgers = [false, true, false].map(|slow| cluster.register(Ledger::new(record, slow).start()));
    Place { host, cluster, chosen, ledgers, addresses: Rc::default() }
}

impl Place {
    /// An actor of another host, for messages from here: always by the same address.
    pub(crate) fn ledger_of(&self, other: &Self, actor: usize) -> RemoteAddr<Ledger> {
        let mut addresses = self.addresses.borrow_mut();
        let address = addresses.entry((other.host.identity(), actor));
        address.or_insert_with(|| self.cluster.bind(&other.ledgers[actor])).clone()
    }

    /// One-way messages that this host has dropped.
    pub(crate) fn dead_letters(&self) -> u64 {
        self.host.snapshot().dead_letters
    }
}

fn is_quiet(place: &Place) -> bool {
    place.host.snapshot().peers.iter().all(|peer| {
        peer.outgoing_bytes == 0
            && peer.parked_bytes == 0
            && peer.accepted_bytes == 0
            && peer.calls_open == 0
            && peer.calls_accepted == 0
    })
}

fn toward(from: &Place, to: &Place) -> Option<PeerSnapshot> {
    let peers = from.host.snapshot().peers;
    peers.into_iter().find(|peer| peer.identity == to.host.identity())
}
