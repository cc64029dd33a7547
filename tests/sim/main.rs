//! Hosts and links under seeded faults, on one thread and in virtual time.
//!
//! Each seed is run twice: the two logs have to be equal. The example `simulate` runs the same over
//! as many seeds as one likes.

mod world;

use std::sync::{PoisonError, RwLock};

use roadshow::internals::config::InjectedBug;
use world::{Outcome, Script};

/// Seeds that are tried every time.
const FIXED_SEEDS: std::ops::Range<u64> = 0..24;

/// Within so many seeds each planted bug has to be found.
const SEEDS_TO_FIND: u64 = 200;

/// Held by every run; alone by the test that counts what the process has open.
static RUNS: RwLock<()> = RwLock::new(());

fn run(script: Script) -> Outcome {
    let _run = RUNS.read().unwrap_or_else(PoisonError::into_inner);
    world::run(script)
}

fn twice(seed: u64) -> Outcome {
    let [outcome, again] = [0, 1].map(|_| run(Script::of(seed)));
    assert_eq!(outcome.log, again.log, "seed {seed} gives two logs");
    outcome
}

#[track_caller]
fn check(seed: u64) {
    let outcome = twice(seed);
    let tail = &outcome.log[outcome.log.len().saturating_sub(40)..];
    assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}\n{tail:#?}", outcome.violations);
}

#[test]
fn promises_hold_for_the_fixed_seeds() {
    FIXED_SEEDS.for_each(check);
}

#[test]
fn a_run_leaves_no_descriptor_open() {
    let _alone = RUNS.write().unwrap_or_else(PoisonError::into_inner);
    let open = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open();
    FIXED_SEEDS.take(4).for_each(|seed| drop(world::run(Script::of(seed))));
    assert_eq!(open(), before);
}

/// The number of seeds until a planted bug is found.
fn seeds_to_find(planted: InjectedBug) -> Option<u64> {
    (0..SEEDS_TO_FIND).find(|seed| !run(Script::of(*seed).planted(planted)).violations.is_empty())
}

#[test]
fn an_acknowledgement_too_early_is_found() {
    assert!(seeds_to_find(InjectedBug::EarlyAck).is_some());
}

#[test]
fn a_credit_lost_on_a_cancel_is_found() {
    assert!(seeds_to_find(InjectedBug::LostCredit).is_some());
}

#[test]
fn what_is_sent_again_after_a_close_is_found() {
    assert!(seeds_to_find(InjectedBug::ResendAfterClose).is_some());
}

#[test]
fn a_forgotten_host_that_is_taken_for_one_that_resumes_is_found() {
    assert!(seeds_to_find(InjectedBug::LostGeneration).is_some());
}

#[test]
fn a_stop_that_overtakes_is_found() {
    assert!(seeds_to_find(InjectedBug::OvertakingStop).is_some());
}
