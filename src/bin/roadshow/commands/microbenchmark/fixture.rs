//! The processes and actors that take part in a measurement.

use actix::{Actor, Addr, Arbiter};
use clap::ValueEnum;
use roadshow::{Cluster, RemoteAddr};

use super::measure::{self, Count};
use super::report::Cpu;
use super::workload::{CpuSeconds, Local, OpenLimits, PinTo, Ports, Subject};

/// What goes wrong in a measurement ends it: there is no figure without all of its parts.
pub(super) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Which cores the processes may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Pin {
    /// All processes share one core: the cost of the code, without waking another core.
    OneCore,
    /// The driver has one core and the worker another: how it will run, at its steadiest.
    TwoCores,
    /// Wherever the operating system puts them: how it will run, and the noisiest.
    None,
}

impl Pin {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OneCore => "one-core",
            Self::TwoCores => "two-cores",
            Self::None => "none",
        }
    }
}

/// A worker with the actor to be called, and what the limits need.
pub(super) struct Fixture {
    pub(super) cluster: Cluster,
    pub(super) subject: RemoteAddr<Subject>,
    /// Where the worker's process answers without Roadshow.
    pub(super) ports: Ports,
    /// The actor of this process, on a thread of its own.
    pub(super) local: Addr<Local>,
    pub(super) arbiter: Arbiter,
    cores: Vec<usize>,
}

impl Fixture {
    pub(super) async fn open(pin: Pin) -> Outcome<Self> {
        let all = measure::cores()?;
        let cores = match (pin, &all[..]) {
            (Pin::None, _) => all,
            (Pin::OneCore, [core, ..]) => vec![*core],
            (Pin::TwoCores, [core, other, ..]) => vec![*core, *other],
            _ => return Err("this process may run on one core only; use `--pin one-core`".into()),
        };
        let cluster = Cluster::local(1).await?;
        let subject = cluster.spawn::<Subject>(()).await?;
        let arbiter = Arbiter::new();
        if let (Pin::OneCore | Pin::TwoCores, [driver, .., worker] | [driver @ worker]) = (pin, &cores[..]) {
            let worker = *worker;
            measure::pin(&[*driver])?;
            subject.send(PinTo(worker)).await??;
            // What is called within this process must not share a core with the caller either.
            arbiter.spawn_fn(move || drop(measure::pin_thread(worker)));
        }
        let ports = subject.send(OpenLimits).await??;
        let local = Actor::start_in_arbiter(&arbiter.handle(), |_| Local::default());
        Ok(Self { cluster, subject, ports, local, arbiter, cores })
    }

    pub(super) fn cores(&self) -> Vec<usize> {
        self.cores.clone()
    }

    /// Lets this process use the worker's core too, and the processes that it starts from now on.
    ///
    /// There is no way back: what is measured later has no place of its own.
    pub(super) fn spread(&self) -> Outcome<()> {
        Ok(measure::pin(&self.cores)?)
    }

    /// Counts something, and what it takes from the processors.
    pub(super) async fn with_cpu(&self, work: impl Future<Output = Outcome<Count>>) -> Outcome<(f64, Cpu)> {
        let (driver, worker) = (measure::cpu_seconds(), self.subject.send(CpuSeconds).await?);
        let count = work.await?;
        let millions = count.count as f64 / 1e6;
        let cpu = Cpu {
            driver: (measure::cpu_seconds() - driver) / millions,
            worker: (self.subject.send(CpuSeconds).await? - worker) / millions,
        };
        Ok((count.per_second(), cpu))
    }

    pub(super) async fn close(self) -> Outcome<()> {
        self.arbiter.stop();
        Ok(self.cluster.shutdown().await?)
    }
}
