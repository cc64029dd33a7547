//! Hosts and links, and whole clusters, under seeded faults, on one thread and in virtual time.
//!
//! Each seed is run twice, and both logs have to be equal. The example `simulate` runs the same simulation
//! over any number of seeds.

mod cluster;
mod world;

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use roadshow::internals::config::InjectedBug;
use world::{Outcome, Script};

/// Seeds of every test run.
const FIXED_SEEDS: std::ops::Range<u64> = 0..24;

/// Seeds of clusters in every test run.
const CLUSTER_SEEDS: std::ops::Range<u64> = 0..12;

/// Virtual time for which an idle cluster is observed.
const IDLE: Duration = Duration::from_secs(600);

/// Number of seeds within which each injected bug has to be found.
const SEEDS_TO_FIND: u64 = 200;

/// Held shared by every run, and exclusively by the test that counts the open descriptors.
static RUNS: RwLock<()> = RwLock::new(());

fn run(script: Script) -> Outcome {
    let _run = RUNS.read().unwrap_or_else(PoisonError::into_inner);
    world::run(script)
}

fn twice(seed: u64) -> Outcome {
    // A difference means that something other than the seed decides, so failures could not be repeated.
    let [outcome, again] = [0, 1].map(|_| run(Script::of(seed)));
    assert_eq!(outcome.log, again.log, "seed {seed} gives two different logs");
    outcome
}

#[track_caller]
fn check(seed: u64) {
    let outcome = twice(seed);
    // The end of the log shows the cause in most cases, and the whole would hide it.
    let tail = &outcome.log[outcome.log.len().saturating_sub(40)..];
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{tail:#?}", outcome.violations);
}

#[test]
fn guarantees_hold_for_the_fixed_seeds() {
    FIXED_SEEDS.for_each(check);
}

#[test]
fn a_run_leaves_no_descriptor_open() {
    // Other runs open descriptors at the same time.
    let _alone = RUNS.write().unwrap_or_else(PoisonError::into_inner);
    let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open();
    FIXED_SEEDS.take(4).for_each(|seed| drop(world::run(Script::of(seed))));
    assert_eq!(open(), before);
}

/// Returns the number of seeds until an injected bug is found.
fn seeds_to_find(bug: InjectedBug) -> Option<u64> {
    (0..SEEDS_TO_FIND).find(|seed| !run(Script::of(*seed).with_bug(bug)).violations.is_empty())
}

#[test]
fn a_premature_ack_is_found() {
    assert!(seeds_to_find(InjectedBug::EarlyAck).is_some());
}

#[test]
fn a_credit_lost_on_a_cancel_is_found() {
    assert!(seeds_to_find(InjectedBug::LostCredit).is_some());
}

#[test]
fn a_retransmission_after_a_close_is_found() {
    assert!(seeds_to_find(InjectedBug::ResendAfterClose).is_some());
}

#[test]
fn a_forgotten_host_that_is_mistaken_for_a_resuming_one_is_found() {
    assert!(seeds_to_find(InjectedBug::LostGeneration).is_some());
}

#[test]
fn a_stop_that_overtakes_a_message_is_found() {
    assert!(seeds_to_find(InjectedBug::OvertakingStop).is_some());
}

fn cluster_run(script: cluster::Script) -> cluster::Outcome {
    let _run = RUNS.read().unwrap_or_else(PoisonError::into_inner);
    cluster::run(script)
}

fn check_cluster(seed: u64) {
    let [outcome, again] = [0, 1].map(|_| cluster_run(cluster::Script::of(seed)));
    assert_eq!(outcome.log, again.log, "seed {seed} gives two different logs");
    let tail = &outcome.log[outcome.log.len().saturating_sub(40)..];
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{tail:#?}", outcome.violations);
}

#[test]
fn guarantees_of_clusters_hold_for_the_fixed_seeds() {
    CLUSTER_SEEDS.for_each(check_cluster);
}

#[test]
fn requests_to_the_head_end_once_the_job_is_over() {
    // The head restarts and the driver loses its lease, while the reply to a look-up or a watch is held up.
    [283, 459].into_iter().for_each(check_cluster);
}

/// Returns the number of seeds until a bug of clusters is found.
fn cluster_seeds_to_find(bug: InjectedBug) -> Option<u64> {
    (0..SEEDS_TO_FIND)
        .find(|seed| !cluster_run(cluster::Script::of(*seed).with_bug(bug)).violations.is_empty())
}

#[test]
fn actors_that_the_head_forgets_with_their_node_are_found() {
    assert!(cluster_seeds_to_find(InjectedBug::ForgottenActors).is_some());
}

#[test]
fn an_end_of_a_worker_that_an_agent_drops_as_it_joins_is_found() {
    assert!(cluster_seeds_to_find(InjectedBug::LostWorkerEnd).is_some());
}

#[test]
fn heartbeats_of_a_dead_node_that_the_head_accepts_are_found() {
    assert!(cluster_seeds_to_find(InjectedBug::StaleHeartbeat).is_some());
}

#[test]
fn watchers_of_an_actor_that_the_head_forgets_are_found() {
    assert!(cluster_seeds_to_find(InjectedBug::LostTermination).is_some());
}

#[test]
fn children_that_outlive_the_incarnation_of_their_parent_are_found() {
    assert!(cluster_seeds_to_find(InjectedBug::OrphanedChildren).is_some());
}

#[test]
fn a_report_of_an_earlier_incarnation_that_ends_the_present_one_is_found() {
    assert!(cluster_seeds_to_find(InjectedBug::StaleIncarnation).is_some());
}

#[test]
fn exclusive_actors_that_restart_before_their_lease_ends_are_found() {
    assert!(cluster_seeds_to_find(InjectedBug::IgnoredLease).is_some());
}

#[test]
fn an_idle_cluster_stays_as_it_is() {
    let outcome = cluster::idle(IDLE);
    assert_eq!(outcome.violations, [""; 0]);
    let is_lost = |line: &&String| line.contains("lost the head") || line.contains("ended");
    let lost: Vec<_> = outcome.log.iter().filter(is_lost).collect();
    // The workers end with the driver.
    assert!(lost.iter().all(|line| line.contains("it was stopped")), "{lost:#?}");
}
