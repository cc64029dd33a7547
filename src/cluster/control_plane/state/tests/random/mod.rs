//! Random events in random order, with invariants checked after each.

mod checks;
mod fair;
mod jobs;
mod world;

use proptest::prelude::*;

use super::*;
use crate::cluster::model::{Labels, Strategy};
use crate::config::RESERVE_AFTER_PASSED;
use world::World;

/// Random event. A number selects one of the candidates that exist when the step runs.
#[expect(clippy::large_enum_variant, reason = "few steps are held at a time")]
#[derive(Clone, Debug)]
pub(super) enum Step {
    Join(u8),
    NewIncarnation(u8),
    Rejoin(u8),
    LoseLink(u8),
    Leave(u8),
    Drain(u8),
    StartJob,
    SubmitJob(u8),
    DriverStarts(u8),
    DriverConnects(u8),
    DriverLeaves(u8),
    EndJob(u8, u8),
    Launch(u8, u8),
    Provision(u8, u8),
    Ready(u8),
    WorkerEnds(u8),
    Place(u8, ActorSpec),
    Cancel(u8),
    /// Repeats a request for a managed actor, as after a restart of the head.
    Repeat(u8),
    /// Gives up a request for a managed actor whose reply was lost.
    Abandon(u8),
    Find(u8),
    /// Kills the actor, or with `true` its worker.
    Kill(u8, bool),
    CreateActor(u8),
    SpawnCancelled(u8),
    SpawnGivenUp(u8),
    /// Ends an actor of the number, with a reason of the second one.
    ActorEnds(u8, u8),
    /// Lets the constructor of a managed actor fail.
    StartFails(u8),
    Locate(u8, Option<u8>),
    /// Reports an earlier incarnation of a managed actor as ended, or with `true` as started.
    StaleReport(u8, bool),
    UnknownIds(u8),
    Heartbeat,
    /// Lets time pass after heartbeats, if set; in one step if the number is odd, as for a suspended head.
    Advance(u16, bool),
    /// Makes writes fail from now on; the head notices if set.
    DiskFills(bool),
    DiskFrees,
    Restart,
}

fn any_policy() -> impl Strategy_<Value = Restart> {
    (0..4_u32, 1..20_u64, prop_oneof![Just(0_u64), 1..3000_u64]).prop_map(|(failures, period, backoff)| {
        let backoff = Duration::from_millis(backoff)..Duration::from_secs(4);
        Restart::on_failure().at_most(failures).within(Duration::from_secs(period)).backoff(backoff)
    })
}

fn any_spec() -> impl Strategy_<Value = ActorSpec> {
    let cpus = prop_oneof![3 => Just(0.0), 3 => Just(1.0), 2 => Just(2.5), 1 => Just(4.0), 1 => Just(9.0)];
    let name = proptest::option::weighted(0.3, 0..3_u8);
    let node = proptest::option::weighted(0.2, 1..7_u64);
    let zone = proptest::option::weighted(0.3, 0..3_u8);
    let flags = (any::<bool>(), proptest::bool::weighted(0.3), any::<bool>());
    let restart = proptest::option::weighted(0.4, any_policy());
    let all = (cpus, name, node, zone, flags, restart);
    all.prop_map(|(cpus, name, node, zone, (pack, detached, get_if_exists), restart)| {
        let resources = Resources::none().with(Resources::CPU, cpus);
        ActorSpec {
            class: "Plain".to_owned(),
            name: name.map(|name| format!("a{name}")),
            resources,
            strategy: if pack { Strategy::Pack } else { Strategy::Spread },
            node: node.map(NodeId),
            labels: zone.map_or_else(Labels::new, |zone| [("zone".to_owned(), zone.to_string())].into()),
            lifetime: if detached { Lifetime::Detached } else { Lifetime::Job },
            get_if_exists,
            restart,
            ..ActorSpec::default()
        }
    })
}

use crate::property_tests;
use proptest::strategy::Strategy as Strategy_;

fn any_step() -> impl Strategy_<Value = Step> {
    let n = any::<u8>;
    prop_oneof![
        8 => n().prop_map(Step::Join),
        1 => n().prop_map(Step::NewIncarnation),
        8 => n().prop_map(Step::Rejoin),
        2 => n().prop_map(Step::LoseLink),
        1 => n().prop_map(Step::Leave),
        1 => n().prop_map(Step::Drain),
        4 => Just(Step::StartJob),
        1 => n().prop_map(Step::SubmitJob),
        1 => n().prop_map(Step::DriverStarts),
        1 => n().prop_map(Step::DriverConnects),
        1 => n().prop_map(Step::DriverLeaves),
        1 => (n(), n()).prop_map(|(job, how)| Step::EndJob(job, how)),
        2 => (n(), n()).prop_map(|(job, node)| Step::Launch(job, node)),
        16 => (n(), n()).prop_map(|(job, node)| Step::Provision(job, node)),
        40 => n().prop_map(Step::Ready),
        2 => n().prop_map(Step::WorkerEnds),
        40 => (n(), any_spec()).prop_map(|(job, spec)| Step::Place(job, spec)),
        4 => n().prop_map(Step::Cancel),
        4 => n().prop_map(Step::Repeat),
        2 => n().prop_map(Step::Abandon),
        4 => n().prop_map(Step::Find),
        4 => (n(), proptest::bool::weighted(0.3)).prop_map(|(actor, hard)| Step::Kill(actor, hard)),
        40 => n().prop_map(Step::CreateActor),
        4 => n().prop_map(Step::SpawnCancelled),
        2 => n().prop_map(Step::SpawnGivenUp),
        12 => (n(), n()).prop_map(|(actor, how)| Step::ActorEnds(actor, how)),
        3 => n().prop_map(Step::StartFails),
        6 => (n(), proptest::option::of(0..3_u8)).prop_map(|(actor, gone)| Step::Locate(actor, gone)),
        3 => (n(), any::<bool>()).prop_map(|(actor, started)| Step::StaleReport(actor, started)),
        1 => n().prop_map(Step::UnknownIds),
        6 => Just(Step::Heartbeat),
        8 => (0..4000_u16, proptest::bool::weighted(0.8)).prop_map(|(ms, send_heartbeats)| Step::Advance(ms, send_heartbeats)),
        1 => any::<bool>().prop_map(Step::DiskFills),
        1 => Just(Step::DiskFrees),
        1 => Just(Step::Restart),
    ]
}

/// Steps that set up four nodes and a job with workers, so that few random steps are spent on that.
fn setup() -> Vec<Step> {
    let nodes = (0..4).flat_map(|node| [Step::Join(node), Step::Provision(0, node)]);
    let ready = (0..6).map(Step::Ready);
    [Step::StartJob].into_iter().chain(nodes).chain(ready).collect()
}

proptest! {
    #![proptest_config(property_tests::cases(64))]

    #[test]
    fn invariants_hold_after_every_event(steps in proptest::collection::vec(any_step(), 0..250)) {
        // Run twice, to find actions that depend on the order of a hash map.
        let logs = [(); 2].map(|()| run(&steps));
        let differs = logs[0].iter().zip(&logs[1]).position(|(one, other)| one != other);
        assert_eq!((differs, logs[0].len()), (None, logs[1].len()), "the same events lead to the same actions");
    }
}

fn run(steps: &[Step]) -> Vec<Action> {
    let mut world = World::new();
    for step in setup().iter().chain(steps) {
        world.step(step);
        world.check();
    }
    world.silence_all();
    world.log
}
