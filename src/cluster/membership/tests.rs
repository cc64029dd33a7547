//! Tests of the choice of a worker.

use super::*;
use std::net::SocketAddr;

use crate::id::{HostId, HostUid, Incarnation};

fn members(count: u64) -> Membership {
    let identity = |host| HostUid { host: HostId(host), incarnation: Incarnation(1) };
    let at = SocketAddr::from(([127, 0, 0, 1], 1));
    let entries = (0..count).map(|n| {
        let (actors, tasks) = (identity(n), identity(100 + n));
        MemberEntry::new(WorkerAddress { actors, actors_at: at, tasks, tasks_at: at })
    });
    Membership { workers: RwLock::new(entries.collect()), ..Membership::default() }
}

#[test]
fn actors_are_placed_round_robin() {
    let members = members(3);
    let hosts: Vec<_> = (0..6).map(|_| members.next_for_actor().unwrap().host.host.0).collect();
    assert_eq!(hosts, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_task_is_placed_on_the_worker_with_the_fewest() {
    let members = members(2);
    let first = members.place_task(&[]).unwrap();
    let second = members.place_task(&[]).unwrap();
    assert_ne!(first.host, second.host);
    let (kept, freed) = (second.host, first.host);
    drop(first);
    let third = members.place_task(&[]).unwrap();
    assert_eq!(third.host, freed);
    assert_ne!(third.host, kept);
    drop(third);
    assert_eq!(members.place_task(&[freed]).unwrap().host, kept);
}

/// Task hosts of a number of tasks that are in flight together, in ascending order.
fn place(members: &Membership, avoided: &[HostUid], count: usize) -> Vec<u64> {
    let slots: Vec<TaskSlot> = (0..count).map(|_| members.place_task(avoided).unwrap()).collect();
    let mut hosts: Vec<u64> = slots.iter().map(|slot| slot.host.host.0).collect();
    hosts.sort_unstable();
    hosts
}

#[test]
fn a_task_goes_to_a_worker_of_an_unreachable_node_only_if_no_other_is_left() {
    let members = members(2);
    let hosts: Vec<HostUid> = members.list().into_iter().map(|member| member.tasks).collect();
    members.set_reachability(&hosts[..1], false);
    assert_eq!(place(&members, &[], 3), [101; 3]);
    assert_eq!(place(&members, &hosts[1..], 3), [101; 3], "a worker that refused it may take it later");
    members.set_reachability(&hosts[1..], false);
    assert_eq!(place(&members, &[], 2), [100, 101]);
    members.set_reachability(&hosts[..1], true);
    assert_eq!(place(&members, &[], 3), [100; 3]);
}

#[test]
fn a_snapshot_has_the_unreachable_workers() {
    let members = members(3);
    let silent = members.list()[1].tasks;
    members.set_reachability(&[silent], false);
    let head = HeadInfo { head: silent, at: None, job: JobId(1), tracks_all_actors: true };
    let MembershipUpdate::Several(updates) = members.snapshot(head) else { panic!("it has two updates") };
    let [
        MembershipUpdate::Snapshot { members: listed, .. },
        MembershipUpdate::Reachability { workers, is_reachable },
    ] = &updates[..]
    else {
        panic!("{updates:?}")
    };
    assert_eq!((listed.len(), &workers[..], *is_reachable), (3, &[silent][..], false));
}

#[test]
fn a_cluster_without_workers_places_nothing() {
    assert_eq!(members(0).next_for_actor(), Err(PlacementError::NoWorker));
    assert!(members(0).place_task(&[]).is_none());
}
