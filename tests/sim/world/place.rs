//! The hosts: where they are, who they are now, and what they hold.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use roadshow::host::{Executor, Host, HostConfig};
use roadshow::id::{HostId, Identity, Incarnation};
use roadshow::observe::PeerSnapshot;
use roadshow::remote::host_calls;
use roadshow::session::Secret;
use roadshow::transport::Memory;
use roadshow::{ClusterRef, RemoteAddr};
use tokio::runtime::Handle;

use super::cast::Ledger;
use super::record::Record;
use super::script::Script;

/// Actors of each host: a quick one and a slow one.
pub(crate) const ACTORS: usize = 2;

/// Within so long after the last message everything is acknowledged and given back.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// One host in its present life.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) host: Host,
    cluster: ClusterRef,
    ledgers: [RemoteAddr<Ledger>; ACTORS],
}

/// All hosts.
pub(crate) struct Places {
    pub(crate) record: Rc<Record>,
    places: RefCell<Vec<Place>>,
    /// Those that were there before, whose dead letters count still.
    former: RefCell<Vec<Place>>,
}

pub(crate) fn ip_of(place: usize) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + place as u32).into()
}

impl Places {
    pub(crate) async fn start(script: &Script, network: &Memory, record: &Rc<Record>) -> Self {
        let places =
            Self { record: Rc::clone(record), places: RefCell::default(), former: RefCell::default() };
        for at in 0..script.hosts {
            let place = begin(script, network, record, at, 0).await;
            places.places.borrow_mut().push(place);
        }
        places.introduce_all();
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
            other.host.peer_gone(before.host.identity(), "it was killed");
        }
        self.introduce_all();
    }

    fn introduce_all(&self) {
        let all = self.all();
        for (place, other) in all.iter().flat_map(|place| all.iter().map(move |other| (place, other))) {
            if let (true, Some(address)) = (place.host != other.host, other.host.address()) {
                place.host.introduce(other.host.identity(), address);
            }
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
        // One message is taken whatever its size.
        let most = limits.outgoing_bytes_max + limits.frame_bytes_max;
        for (at, place) in self.all().iter().enumerate() {
            for peer in place.host.snapshot().peers {
                // Replies are outside of the budget; they are as small as the calls that they end.
                let replies = 200 * (peer.calls_accepted + 200);
                if peer.outgoing_bytes > most + replies || peer.parked_bytes > most {
                    self.record.violation(format_args!("host {at} holds too much for another: {peer:?}"));
                }
                // The two ledgers, and the host itself.
                if peer.accepted_bytes + peer.owed_bytes > (ACTORS as u64 + 1) * limits.window_bytes as u64 {
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

    /// Ends all hosts in order.
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

async fn begin(script: &Script, network: &Memory, record: &Rc<Record>, at: usize, life: u64) -> Place {
    let listens = !(script.driver && at == 0);
    let host = Host::start(HostConfig {
        identity: Identity { host: HostId(at as u64 + 1), incarnation: Incarnation(life + 1) },
        secret: Secret::from_bytes([7; 32]),
        limits: script.limits.clone(),
        transport: Arc::new(network.at(ip_of(at))),
        listen: listens.then(|| SocketAddr::new(ip_of(at), 0)),
        io: Handle::current(),
        executor: Executor::here_or(&Handle::current()),
        calls: Box::new(host_calls),
    })
    .await
    .expect("a host starts");
    let cluster = ClusterRef::new(host.clone());
    let ledgers = [false, true].map(|slow| {
        let record = Rc::clone(record);
        cluster.serve(Ledger { record, slow }.start())
    });
    Place { host, cluster, ledgers }
}

impl Place {
    /// An actor of another host, for messages from here.
    pub(crate) fn ledger_of(&self, other: &Self, actor: usize) -> RemoteAddr<Ledger> {
        self.cluster.bind(&other.ledgers[actor])
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
