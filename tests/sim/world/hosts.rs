//! Hosts of the simulation: addresses, incarnations, and open resources.

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

use super::actors::{Ledger, chore};
use super::placement::Chosen;
use super::record::Record;
use super::script::{Script, Severity};

/// Actors of each host from its start: a quick one, a slow one, and one that only probes call.
pub(crate) const ACTORS: usize = 3;

/// Index of the actor that only probes call, so that its window is always free.
pub(crate) const PROBED: usize = 2;

/// Maximum time after the last message until everything is acknowledged and all credit is returned.
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// Address that accepts connections and never answers.
const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// Current incarnation of one host.
#[derive(Clone)]
pub(crate) struct SimHost {
    pub(crate) host: Host,
    pub(crate) cluster: ClusterRef,
    pub(crate) chosen: Arc<Chosen>,
    ledgers: [RemoteAddr<Ledger>; ACTORS],
    /// Addresses bound by this host; each is used for as long as its target exists.
    addresses: Rc<RefCell<Addresses>>,
}

/// Addresses by the host and the index of their actors.
type Addresses = BTreeMap<(HostUid, usize), RemoteAddr<Ledger>>;

/// All hosts of a run.
pub(crate) struct SimHosts {
    pub(crate) record: Rc<Record>,
    hosts: RefCell<Vec<SimHost>>,
    /// Earlier incarnations, whose dead letters still count.
    former: RefCell<Vec<SimHost>>,
    silent: Box<dyn Listener>,
    /// Number of tasks of the runtime before the hosts know each other.
    tasks_at_start: usize,
}

pub(crate) fn ip_of(index: usize) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + index as u32).into()
}

impl SimHosts {
    pub(crate) async fn start(script: &Script, network: &Memory, record: &Rc<Record>) -> Self {
        let mut hosts = Vec::new();
        for at in 0..script.hosts {
            hosts.push(start_host(script, network, record, at, 0).await);
        }
        let silent = network.at(SILENT).listen((SILENT, 0).into()).await.expect("the address is free");
        let hosts = Self {
            record: Rc::clone(record),
            hosts: RefCell::new(hosts),
            former: RefCell::default(),
            silent,
            tasks_at_start: tasks_alive(),
        };
        hosts.announce_members();
        hosts
    }

    /// Kills a host and restarts it with a new incarnation; the others learn of it after a while.
    pub(crate) async fn restart(&self, script: &Script, network: &Memory, at: usize, incarnation: u64) {
        let before = self.at(at);
        before.host.abort();
        // The others notice a closed connection before they learn of the end.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let sim_host = start_host(script, network, &self.record, at, incarnation).await;
        self.former.borrow_mut().push(std::mem::replace(&mut self.hosts.borrow_mut()[at], sim_host));
        for other in self.all() {
            other.host.mark_peer_down(before.host.identity(), "it was killed");
        }
        self.announce_members();
    }

    /// Lets a host forget another, which is alive and not informed.
    pub(crate) fn forget(&self, at: usize, other: usize) {
        self.at(at).host.forget(self.at(other).host.identity());
    }

    /// Gives a host the address of another, as at the start.
    pub(crate) fn introduce(&self, at: usize, other: usize) {
        let other = self.at(other).host;
        if let Some(address) = other.address() {
            self.at(at).host.add_peer(other.identity(), address);
        }
    }

    /// Gives a host a wrong address of another, which accepts connections and never answers.
    pub(crate) fn misdirect(&self, at: usize, other: usize) {
        self.at(at).host.add_peer(self.at(other).host.identity(), self.silent.address());
    }

    fn announce_members(&self) {
        for at in 0..self.hosts.borrow().len() {
            self.others(at).for_each(|other| self.introduce(at, other));
        }
    }

    pub(crate) fn at(&self, index: usize) -> SimHost {
        self.hosts.borrow()[index].clone()
    }

    fn all(&self) -> Vec<SimHost> {
        self.hosts.borrow().clone()
    }

    pub(crate) fn address_of(&self, index: usize) -> Option<SocketAddr> {
        self.hosts.borrow()[index].host.address()
    }

    pub(crate) fn others(&self, than: usize) -> impl Iterator<Item = usize> {
        (0..self.hosts.borrow().len()).filter(move |at| *at != than)
    }

    pub(crate) fn note(&self, what: &str) {
        self.record.note(what);
    }

    pub(crate) fn dead_letters(&self) -> u64 {
        let former = self.former.borrow().clone();
        self.all().iter().chain(&former).map(|sim_host| sim_host.host.snapshot().dead_letters).sum()
    }

    /// Checks that no host holds more bytes than its limits allow.
    pub(crate) fn check_budgets(&self, script: &Script) {
        let limits = &script.limits;
        // One window each for the actors, for the host itself, and for its tasks.
        let windows = ACTORS + 2 + self.record.spawned();
        // A queue accepts one message of any size when it is empty.
        let most = limits.outgoing_bytes_max + limits.frame_bytes_max;
        for (at, sim_host) in self.all().iter().enumerate() {
            for peer in sim_host.host.snapshot().peers {
                // Replies are not limited by the budget; these are as small as their calls.
                let replies = 200 * (peer.calls_accepted + 200);
                if peer.outgoing_bytes > most + replies || peer.send_queue_bytes > most {
                    self.record.violation(format_args!("host {at} holds too much for another: {peer:?}"));
                }
                if peer.accepted_bytes + peer.owed_bytes > (windows * limits.window_bytes) as u64 {
                    self.record.violation(format_args!("host {at} has accepted too much: {peer:?}"));
                }
            }
        }
    }

    /// Waits until every host is idle, and checks that all credit is accounted for.
    pub(crate) async fn settle(&self, script: &Script) {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        let idle = async {
            while !self.all().iter().all(is_idle) {
                interval.tick().await;
            }
        };
        if tokio::time::timeout(IDLE_WITHIN, idle).await.is_err() {
            let busy = self.all().iter().map(|sim_host| sim_host.host.snapshot().peers).collect::<Vec<_>>();
            return self.record.violation(format_args!("the hosts do not become idle: {busy:?}"));
        }
        self.check_budgets(script);
        let all = self.all();
        for (from, to) in all.iter().flat_map(|from| all.iter().map(move |to| (from, to))) {
            let (Some(out), Some(back)) = (toward(from, to), toward(to, from)) else { continue };
            // Only after all messages are handled: before, both sides count different ones.
            if out.charged_bytes != back.owed_bytes {
                self.record.violation(format_args!("credit is lost: {out:?} and {back:?}"));
            }
        }
    }

    /// Lets all hosts forget each other, and checks that no peer and no task remains.
    pub(crate) async fn forget_all(&self) {
        let mut left = String::new();
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        let gone = async {
            loop {
                for at in 0..self.hosts.borrow().len() {
                    // Repeated, because a host that still has messages for another dials it again.
                    self.others(at).for_each(|other| self.forget(at, other));
                }
                interval.tick().await;
                let peers =
                    self.all().iter().map(|sim_host| sim_host.host.snapshot().peers.len()).sum::<usize>();
                let tasks = tasks_alive();
                if peers == 0 && tasks == self.tasks_at_start {
                    return;
                }
                left = format!("{peers} peers and {tasks} tasks of {}", self.tasks_at_start);
            }
        };
        if tokio::time::timeout(IDLE_WITHIN, gone).await.is_err() {
            self.record.violation(format_args!("left after all hosts forgot each other: {left}"));
        }
    }

    /// Shuts down all hosts gracefully.
    pub(crate) async fn end(&self) {
        for sim_host in self.all() {
            sim_host.host.shutdown("the simulation is over").await;
            for peer in sim_host.host.snapshot().peers {
                if peer.linked || peer.calls_open > 0 || peer.outgoing_bytes > 0 || peer.send_queue_bytes > 0
                {
                    self.record.violation(format_args!("left after a shutdown: {peer:?}"));
                }
            }
        }
    }
}

/// Returns the number of live tasks of this run's runtime.
pub(crate) fn tasks_alive() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn start_host(
    script: &Script,
    network: &Memory,
    record: &Rc<Record>,
    at: usize,
    incarnation: u64,
) -> SimHost {
    let listens = !(script.driver && at == 0);
    let tasks = TaskService::new(Handle::current());
    let host = Host::start(HostConfig {
        identity: HostUid { host: HostId(at as u64 + 1), incarnation: Incarnation(incarnation + 1) },
        secret: Secret::from_bytes([7; 32]),
        limits: script.limits.clone(),
        transport: Arc::new(network.at(ip_of(at))),
        listen: listens.then(|| SocketAddr::new(ip_of(at), 0)),
        io: Handle::current(),
        executor: Executor::here_or(&Handle::current()),
        services: Box::new(move |host, name, inbound| match name {
            // Tasks and actors share the host, as in a worker.
            <chore as TaskFn>::HASH => tasks.run(host, name, inbound),
            _ => actor_services(host, name, inbound),
        }),
    })
    .await
    .expect("a host starts");
    let chosen = Arc::new(Chosen::new(host.identity()));
    host.set_placement(Arc::clone(&chosen) as _);
    if let (true, Some(absence)) = (script.severity >= Severity::Forgets && listens, script.expire_after) {
        host.expire_inbound_peers(absence);
    }
    let cluster = ClusterRef::new(host.clone());
    let ledgers = [false, true, false].map(|slow| cluster.register(Ledger::new(record, slow).start()));
    SimHost { host, cluster, chosen, ledgers, addresses: Rc::default() }
}

impl SimHost {
    /// Returns the address of an actor of another host; always the same one, since the order is guaranteed
    /// for one address.
    pub(crate) fn ledger_of(&self, other: &Self, actor: usize) -> RemoteAddr<Ledger> {
        let mut addresses = self.addresses.borrow_mut();
        let address = addresses.entry((other.host.identity(), actor));
        address.or_insert_with(|| self.cluster.bind(&other.ledgers[actor])).clone()
    }

    /// Returns the number of one-way messages that this host has dropped.
    pub(crate) fn dead_letters(&self) -> u64 {
        self.host.snapshot().dead_letters
    }
}

fn is_idle(sim_host: &SimHost) -> bool {
    sim_host.host.snapshot().peers.iter().all(|peer| {
        peer.outgoing_bytes == 0
            && peer.send_queue_bytes == 0
            && peer.accepted_bytes == 0
            && peer.calls_open == 0
            && peer.calls_accepted == 0
    })
}

fn toward(from: &SimHost, to: &SimHost) -> Option<PeerSnapshot> {
    let peers = from.host.snapshot().peers;
    peers.into_iter().find(|peer| peer.identity == to.host.identity())
}
