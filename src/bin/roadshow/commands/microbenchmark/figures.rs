//! Figures of the benchmark, and the contenders of each.

use std::time::Duration;

use super::fixture::{BenchResult, Fixture};
use super::report::Better::{Higher, Lower};
use super::report::{Contender, Figure};
use super::{actors, bulk, calls, echo, processes};

/// Rounds and times of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) rounds: u32,
    /// Time of each contender in each round.
    pub(super) turn: Duration,
}

/// Figures that come from one measurement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Group {
    RoundTrip,
    InFlight(&'static str, usize),
    Callers(&'static str, usize),
    OneWay(&'static str, Option<u64>),
    NToN,
    Payload(&'static str, usize),
    WordList,
    Spawns,
    ActorMemory,
    Tasks,
    TaskLatency,
    ClusterStart,
    WorkerMemory,
}

const ROADSHOW: &str = "roadshow";
const RAW_ECHO: &str = "raw_echo";
const RAW_TCP: &str = "raw_tcp";
const ACTIX: &str = "actix_other_arbiter";

/// Number of operations in flight where the name of a figure does not say it.
const MANY: usize = 1024;
const PAYLOADS: usize = 8;
const LISTS: usize = 4;

/// Number of clients that call an actor each, and calls in flight of each.
const CLIENTS: usize = 4;
const CALLS_OF_EACH: usize = 64;

impl Group {
    /// All groups in the order of measurement. The last ones unpin the driver from its core.
    pub(super) const ALL: &[Self] = &[
        Self::RoundTrip,
        Self::InFlight("calls_in_flight_1", 1),
        Self::InFlight("calls_in_flight_64", 64),
        Self::InFlight("calls_in_flight_1024", 1024),
        Self::Callers("callers_64", 64),
        Self::Callers("callers_1024", 1024),
        Self::OneWay("one_way", None),
        Self::OneWay("one_way_bursts_of_16", Some(16)),
        Self::NToN,
        Self::Payload("payload_1kib", 1 << 10),
        Self::Payload("payload_64kib", 64 << 10),
        Self::Payload("payload_1mib", 1 << 20),
        Self::WordList,
        Self::Spawns,
        Self::ActorMemory,
        Self::Tasks,
        Self::TaskLatency,
        Self::ClusterStart,
        Self::WorkerMemory,
    ];

    pub(super) const fn names(&self) -> &[&'static str] {
        match self {
            Self::RoundTrip => &["call_round_trip", "call_round_trip_p99"],
            Self::InFlight(name, _)
            | Self::Callers(name, _)
            | Self::OneWay(name, _)
            | Self::Payload(name, _) => std::slice::from_ref(name),
            Self::NToN => &["calls_n_to_n"],
            Self::WordList => &["word_list"],
            Self::Spawns => &["spawns"],
            Self::ActorMemory => &["actor_memory"],
            Self::Tasks => &["tasks"],
            Self::TaskLatency => &["task_latency"],
            Self::ClusterStart => &["cluster_start"],
            Self::WorkerMemory => &["worker_memory"],
        }
    }

    /// Reports if one of the figures has this text in its name.
    pub(super) fn matches(&self, filter: &str) -> bool {
        self.names().iter().any(|name| name.contains(filter))
    }

    pub(super) fn names_listed() -> String {
        Self::ALL.iter().flat_map(|group| group.names()).copied().collect::<Vec<_>>().join(", ")
    }

    pub(super) async fn measure(self, fixture: &Fixture, schedule: &Schedule) -> BenchResult<Vec<Figure>> {
        let figure = match self {
            Self::RoundTrip => return round_trip(fixture, schedule).await,
            Self::InFlight(name, width) => in_flight(fixture, schedule, name, width).await,
            Self::Callers(name, width) => callers(fixture, schedule, name, width).await,
            Self::OneWay(name, burst) => one_way(fixture, schedule, name, burst).await,
            Self::NToN => n_to_n(fixture, schedule).await,
            Self::Payload(name, bytes) => payload(fixture, schedule, name, bytes).await,
            Self::WordList => word_list(fixture, schedule).await,
            Self::Spawns => spawns(fixture, schedule).await,
            Self::ActorMemory => actor_memory(schedule).await,
            Self::Tasks => tasks(fixture, schedule).await,
            Self::TaskLatency => task_latency(fixture, schedule).await,
            Self::ClusterStart => cluster_start(fixture, schedule).await,
            Self::WorkerMemory => worker_memory(schedule).await,
        };
        Ok(vec![figure?])
    }
}

async fn round_trip(fixture: &Fixture, schedule: &Schedule) -> BenchResult<Vec<Figure>> {
    const SIDES: [&str; 4] = [ROADSHOW, RAW_ECHO, "blocking_sockets", ACTIX];
    let (mut medians, mut tails) = (SIDES.map(Contender::new), SIDES.map(Contender::new));
    // All contenders take turns within a round, so that a change in the machine's load hits each of them.
    for _ in 0..schedule.rounds {
        let timings = [
            calls::round_trip(fixture, schedule.turn).await?,
            echo::round_trip(fixture.ports, schedule.turn).await?,
            echo::blocking_round_trip(fixture.ports, schedule.turn).await?,
            calls::local_round_trip(fixture, schedule.turn).await?,
        ];
        for (side, timing) in timings.iter().enumerate() {
            medians[side].push(timing.p50);
            tails[side].push(timing.p99);
        }
    }
    let figure = |name, [ours, raw, blocking, actix]: &[Contender; 4]| {
        Figure::new((name, "us", Lower), ours, raw)?.beside(blocking)?.beside(actix)
    };
    Ok(vec![figure("call_round_trip", &medians)?, figure("call_round_trip_p99", &tails)?])
}

async fn in_flight(
    fixture: &Fixture,
    schedule: &Schedule,
    name: &'static str,
    width: usize,
) -> BenchResult<Figure> {
    let [mut ours, mut raw, mut actix] = [ROADSHOW, RAW_ECHO, ACTIX].map(Contender::new);
    let mut cpus = Vec::new();
    for _ in 0..schedule.rounds {
        let (rate, cpu) = fixture.with_cpu(calls::calls(&fixture.subject, width, schedule.turn)).await?;
        ours.push(rate);
        cpus.push(cpu);
        raw.push(echo::echoes(fixture.ports, width, echo::SMALL_BYTES, schedule.turn).await?.per_second());
        actix.push(calls::local_calls(&fixture.local, width, schedule.turn).await?.per_second());
    }
    Ok(Figure::new((name, "per s", Higher), &ours, &raw)?.beside(&actix)?.with_cpu(&cpus))
}

async fn callers(
    fixture: &Fixture,
    schedule: &Schedule,
    name: &'static str,
    width: usize,
) -> BenchResult<Figure> {
    let [mut ours, mut raw, mut together] = [ROADSHOW, RAW_ECHO, "calls_of_one_task"].map(Contender::new);
    let mut cpus = Vec::new();
    for _ in 0..schedule.rounds {
        let calls = calls::calls_of_tasks(&fixture.subject, width, schedule.turn);
        let (rate, cpu) = fixture.with_cpu(calls).await?;
        ours.push(rate);
        cpus.push(cpu);
        raw.push(echo::echoes(fixture.ports, width, echo::SMALL_BYTES, schedule.turn).await?.per_second());
        together.push(calls::calls(&fixture.subject, width, schedule.turn).await?.per_second());
    }
    Ok(Figure::new((name, "per s", Higher), &ours, &raw)?.beside(&together)?.with_cpu(&cpus))
}

async fn one_way(
    fixture: &Fixture,
    schedule: &Schedule,
    name: &'static str,
    burst: Option<u64>,
) -> BenchResult<Figure> {
    let [mut ours, mut raw, mut answered] = [ROADSHOW, RAW_ECHO, "calls_in_flight_1024"].map(Contender::new);
    let mut cpus = Vec::new();
    for _ in 0..schedule.rounds {
        let (rate, cpu) = fixture.with_cpu(calls::one_way(&fixture.subject, burst, schedule.turn)).await?;
        ours.push(rate);
        cpus.push(cpu);
        raw.push(echo::one_way(fixture.ports, schedule.turn).await?.per_second());
        answered.push(calls::calls(&fixture.subject, MANY, schedule.turn).await?.per_second());
    }
    Ok(Figure::new((name, "per s", Higher), &ours, &raw)?.beside(&answered)?.with_cpu(&cpus))
}

/// Compares with one link that has the same number of frames in flight, which it can write together.
async fn n_to_n(fixture: &Fixture, schedule: &Schedule) -> BenchResult<Figure> {
    let [mut ours, mut raw] = [ROADSHOW, RAW_ECHO].map(Contender::new);
    let (mut subjects, mut cpus) = (Vec::with_capacity(CLIENTS), Vec::new());
    for _ in 0..CLIENTS {
        subjects.push(fixture.cluster.spawn(()).await?);
    }
    for _ in 0..schedule.rounds {
        let (rate, cpu) =
            fixture.with_cpu(calls::calls_of_each(&subjects, CALLS_OF_EACH, schedule.turn)).await?;
        ours.push(rate);
        cpus.push(cpu);
        let width = CLIENTS * CALLS_OF_EACH;
        raw.push(echo::echoes(fixture.ports, width, echo::SMALL_BYTES, schedule.turn).await?.per_second());
    }
    // The worker must be idle again for the figures that follow.
    for subject in subjects {
        subject.stop().await?;
    }
    Ok(Figure::new(("calls_n_to_n", "per s", Higher), &ours, &raw)?.with_cpu(&cpus))
}

async fn payload(
    fixture: &Fixture,
    schedule: &Schedule,
    name: &'static str,
    bytes: usize,
) -> BenchResult<Figure> {
    let [mut ours, mut raw] = [ROADSHOW, RAW_TCP].map(Contender::new);
    for _ in 0..schedule.rounds {
        ours.push(bulk::echoes(fixture, PAYLOADS, bytes, schedule.turn).await?.megabytes(bytes));
        raw.push(echo::echoes(fixture.ports, PAYLOADS, bytes, schedule.turn).await?.megabytes(bytes));
    }
    Figure::new((name, "MB/s", Higher), &ours, &raw)
}

async fn word_list(fixture: &Fixture, schedule: &Schedule) -> BenchResult<Figure> {
    let [mut ours, mut raw] = [ROADSHOW, RAW_TCP].map(Contender::new);
    let (words, bytes) = bulk::words()?;
    for _ in 0..schedule.rounds {
        ours.push(bulk::lists(fixture, LISTS, &words, schedule.turn).await?.megabytes(bytes));
        raw.push(echo::confirmed(fixture.ports, LISTS, bytes, schedule.turn).await?.megabytes(bytes));
    }
    Figure::new(("word_list", "MB/s", Higher), &ours, &raw)
}

async fn spawns(fixture: &Fixture, schedule: &Schedule) -> BenchResult<Figure> {
    let [mut ours, mut actix] = [ROADSHOW, ACTIX].map(Contender::new);
    for _ in 0..schedule.rounds {
        ours.push(actors::spawns(fixture, MANY, schedule.turn).await?.per_second());
        actix.push(actors::local_spawns(fixture, schedule.turn).await?.per_second());
    }
    Figure::new(("spawns", "per s", Higher), &ours, &actix)
}

async fn actor_memory(schedule: &Schedule) -> BenchResult<Figure> {
    let [mut ours, mut actix] = [ROADSHOW, "actix_actor"].map(Contender::new);
    for _ in 0..schedule.rounds {
        ours.push(actors::bytes_of_an_actor(MANY).await?);
        actix.push(actors::bytes_of_a_local_actor().await?);
    }
    Figure::new(("actor_memory", "bytes", Lower), &ours, &actix)
}

async fn tasks(fixture: &Fixture, schedule: &Schedule) -> BenchResult<Figure> {
    let [mut ours, mut called, mut together] =
        [ROADSHOW, "calls_in_flight_1024", "run_all"].map(Contender::new);
    for _ in 0..schedule.rounds {
        ours.push(actors::tasks(fixture, MANY, schedule.turn).await?.per_second());
        called.push(calls::calls(&fixture.subject, MANY, schedule.turn).await?.per_second());
        together.push(actors::tasks_together(fixture, schedule.turn).await?.per_second());
    }
    Figure::new(("tasks", "per s", Higher), &ours, &called)?.beside(&together)
}

async fn task_latency(fixture: &Fixture, schedule: &Schedule) -> BenchResult<Figure> {
    let [mut ours, mut called] = [ROADSHOW, "call_round_trip"].map(Contender::new);
    for _ in 0..schedule.rounds {
        ours.push(calls::task_round_trip(fixture, schedule.turn).await?.p50);
        called.push(calls::round_trip(fixture, schedule.turn).await?.p50);
    }
    Figure::new(("task_latency", "us", Lower), &ours, &called)
}

async fn cluster_start(fixture: &Fixture, schedule: &Schedule) -> BenchResult<Figure> {
    // New processes inherit this one's affinity, and four of them on one core would measure the scheduler.
    fixture.spread()?;
    let [mut ours, mut bare] = [ROADSHOW, "bare_processes"].map(Contender::new);
    for _ in 0..schedule.rounds {
        ours.push(processes::cluster_start(schedule.turn).await?);
        bare.push(processes::bare_start(schedule.turn)?);
    }
    Figure::new(("cluster_start", "ms", Lower), &ours, &bare)
}

async fn worker_memory(schedule: &Schedule) -> BenchResult<Figure> {
    let [mut ours, mut bare] = [ROADSHOW, "bare_actix_system"].map(Contender::new);
    for _ in 0..schedule.rounds {
        ours.push(processes::worker_memory().await?);
        bare.push(processes::bare_memory()?);
    }
    Figure::new(("worker_memory", "MiB", Lower), &ours, &bare)
}
