//! Who is in the cluster, and whose turn it is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};

use crate::host::{Host, Placement, Seat};
use crate::id::{Identity, TypeHash};
use crate::registry::{Inbound, decode};

/// The service by which a driver tells its workers about each other.
pub(super) const MEMBERSHIP: TypeHash = TypeHash::of("roadshow::Membership");

/// One worker: its two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) actors: Identity,
    pub(super) actors_at: SocketAddr,
    pub(super) tasks: Identity,
    pub(super) tasks_at: SocketAddr,
}

/// What has changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Change {
    /// These are the workers.
    Are(Vec<Member>),
    /// This one has ended.
    Ended { member: Member, cause: String },
}

/// The workers that are left, as one process knows them.
#[derive(Debug, Default)]
pub(super) struct Members {
    seats: RwLock<Vec<Seated>>,
    actor_turn: AtomicUsize,
    task_turn: AtomicUsize,
}

#[derive(Debug)]
struct Seated {
    member: Member,
    /// Tasks that this process has under way there.
    tasks: Arc<AtomicUsize>,
}

impl Members {
    /// Takes up a change, for the members and for the hosts of this process.
    pub(super) fn apply(&self, change: &Change, host: &Host) {
        match change {
            Change::Are(members) => self.set(members, host),
            Change::Ended { member, cause } => {
                self.seats
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|seated| seated.member != *member);
                host.peer_gone(member.actors, cause);
                host.peer_gone(member.tasks, cause);
            }
        }
    }

    fn set(&self, members: &[Member], host: &Host) {
        for member in members {
            for (identity, address) in [(member.actors, member.actors_at), (member.tasks, member.tasks_at)] {
                if identity != host.identity() {
                    host.introduce(identity, address);
                }
            }
        }
        let seats = members.iter().map(|&member| Seated { member, tasks: Arc::default() }).collect();
        *self.seats.write().unwrap_or_else(PoisonError::into_inner) = seats;
    }

    /// The membership service of a worker's host.
    pub(super) fn serve(&self, host: &Host, inbound: Inbound) {
        let (body, _, mut responder) = inbound.into_parts::<()>();
        match decode::<Change>(&body) {
            Ok(change) => {
                responder.start();
                self.apply(&change, host);
                responder.answer(());
            }
            Err(failure) => responder.fail(failure),
        }
    }

    /// The workers that are left.
    pub(super) fn list(&self) -> Vec<Member> {
        self.seats().iter().map(|seated| seated.member).collect()
    }

    fn seats(&self) -> RwLockReadGuard<'_, Vec<Seated>> {
        self.seats.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Placement for Members {
    fn place_actor(&self) -> Option<Identity> {
        let seats = self.seats();
        let turn = self.actor_turn.fetch_add(1, Ordering::Relaxed).checked_rem(seats.len())?;
        Some(seats[turn].member.actors)
    }

    /// The worker with the fewest tasks of this process under way; those that have as few take turns.
    fn place_task(&self) -> Option<Seat> {
        let seats = self.seats();
        let turn = self.task_turn.fetch_add(1, Ordering::Relaxed).checked_rem(seats.len())?;
        let (before, after) = seats.split_at(turn);
        let seated = after.iter().chain(before).min_by_key(|seated| seated.tasks.load(Ordering::Relaxed))?;
        Some(Seat::take(seated.member.tasks, Arc::clone(&seated.tasks)))
    }

    fn task_hosts(&self) -> usize {
        self.seats().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostId, Incarnation};

    fn members(count: u64) -> Members {
        let identity = |host| Identity { host: HostId(host), incarnation: Incarnation(1) };
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let seats = (0..count).map(|n| Seated {
            member: Member { actors: identity(n), actors_at: at, tasks: identity(100 + n), tasks_at: at },
            tasks: Arc::default(),
        });
        Members { seats: RwLock::new(seats.collect()), ..Members::default() }
    }

    #[test]
    fn actors_go_to_the_workers_in_turn() {
        let members = members(3);
        let hosts: Vec<_> = (0..6).map(|_| members.place_actor().unwrap().host.0).collect();
        assert_eq!(hosts, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_task_goes_to_the_worker_with_the_fewest() {
        let members = members(2);
        let first = members.place_task().unwrap();
        let second = members.place_task().unwrap();
        assert_ne!(first.host, second.host);
        let (kept, freed) = (second.host, first.host);
        drop(first);
        let third = members.place_task().unwrap();
        assert_eq!(third.host, freed);
        assert_ne!(third.host, kept);
    }

    #[test]
    fn a_cluster_without_workers_places_nothing() {
        assert!(members(0).place_actor().is_none());
        assert!(members(0).place_task().is_none());
    }
}
