//! Processes and actors of a measurement.

use actix::{Actor, Addr, Arbiter};
use clap::ValueEnum;
use roadshow::{Cluster, RemoteAddr};

use super::measure::{self, Count};
use super::report::Cpu;
use super::workload::{CpuSeconds, Local, OpenLimits, PinTo, Ports, Subject};

/// Result of a measurement; any error ends it, since a figure needs all of its parts.
pub(super) type BenchResult<T> = Result<T, Box<dyn std::error::Error>>;

/// CPU cores that the processes may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Pin {
    /// All processes share one core: shows the cost of the code, without waking another core.
    OneCore,
    /// Driver and worker have a core each: realistic, with the least noise.
    TwoCores,
    /// The operating system places the processes: realistic, with the most noise.
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

/// Worker with the actor under test, and the contenders of the limits.
pub(super) struct Fixture {
    pub(super) cluster: Cluster,
    pub(super) subject: RemoteAddr<Subject>,
    /// Ports of the raw servers in the worker's process.
    pub(super) ports: Ports,
    /// Actix actor of this process, on a thread of its own.
    pub(super) local: Addr<Local>,
    pub(super) arbiter: Arbiter,
    cores: Vec<usize>,
}

impl Fixture {
    pub(super) async fn open(pin: Pin) -> BenchResult<Self> {
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
            // The local actor shares the worker's core, so that a local call crosses cores as a remote one does.
            arbiter.spawn_fn(move || drop(measure::pin_thread(worker)));
        }
        let ports = subject.send(OpenLimits).await??;
        let local = Actor::start_in_arbiter(&arbiter.handle(), |_| Local::default());
        Ok(Self { cluster, subject, ports, local, arbiter, cores })
    }

    pub(super) fn cores(&self) -> Vec<usize> {
        self.cores.clone()
    }

    /// Unpins this process, and the processes that it starts from now on, from the driver's core.
    ///
    /// Later measurements in the same run are no longer pinned.
    pub(super) fn spread(&self) -> BenchResult<()> {
        Ok(measure::pin(&self.cores)?)
    }

    /// Measures the rate of some work, and the CPU time of both processes.
    pub(super) async fn with_cpu(
        &self,
        work: impl Future<Output = BenchResult<Count>>,
    ) -> BenchResult<(f64, Cpu)> {
        let (driver, worker) = (measure::cpu_seconds(), self.subject.send(CpuSeconds).await?);
        let count = work.await?;
        let millions = count.count as f64 / 1e6;
        let cpu = Cpu {
            driver: (measure::cpu_seconds() - driver) / millions,
            worker: (self.subject.send(CpuSeconds).await? - worker) / millions,
        };
        Ok((count.per_second(), cpu))
    }

    pub(super) async fn close(self) -> BenchResult<()> {
        self.arbiter.stop();
        Ok(self.cluster.shutdown().await?)
    }
}
