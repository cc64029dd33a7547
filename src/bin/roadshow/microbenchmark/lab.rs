//! The processes and actors that take part in a measurement.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use actix::{Addr, Arbiter};
use clap::ValueEnum;
use roadshow::{Cluster, RemoteAddr};

use super::measure;
use super::subject::{CpuSeconds, Local, OpenEcho, PinTo, Subject};

/// What goes wrong in a measurement ends it: there is no figure without all of its parts.
pub(super) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Which cores the processes may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Pin {
    /// All processes share one core: the cost of the code, without waking another core.
    OneCore,
    /// The driver has one core and the worker another.
    TwoCores,
    /// Wherever the operating system puts them.
    None,
}

/// A worker with the actor to be called, and what the limits need.
pub(super) struct Lab {
    pub(super) cluster: Cluster,
    pub(super) subject: RemoteAddr<Subject>,
    /// Where the worker's process echoes without Roadshow.
    pub(super) echo: SocketAddr,
    /// The actor of this process, on a thread of its own.
    pub(super) local: Addr<Local>,
    arbiter: Arbiter,
}

impl Lab {
    pub(super) async fn open(pin: Pin) -> Outcome<Self> {
        let cores = measure::cores()?;
        let pins = match (pin, &cores[..]) {
            (Pin::None, _) => None,
            (Pin::OneCore, [core, ..]) => Some((*core, *core)),
            (Pin::TwoCores, [core, other, ..]) => Some((*core, *other)),
            _ => return Err("this process may run on one core only; use --pin one-core".into()),
        };
        let cluster = Cluster::local(1).await?;
        let subject = cluster.spawn::<Subject>(()).await?;
        if let Some((driver, worker)) = pins {
            measure::pin(driver)?;
            subject.send(PinTo(worker)).await??;
        }
        let port = subject.send(OpenEcho).await?.map_err(io::Error::other)?;
        let arbiter = Arbiter::new();
        let local = actix::Actor::start_in_arbiter(&arbiter.handle(), |_| Local::default());
        let echo = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { cluster, subject, echo, local, arbiter })
    }

    /// The processor time that the driver and the worker have taken, in seconds.
    pub(super) async fn cpu_seconds(&self) -> Outcome<(f64, f64)> {
        Ok((measure::cpu_seconds(), self.subject.send(CpuSeconds).await?))
    }

    pub(super) async fn close(self) -> Outcome<()> {
        self.arbiter.stop();
        Ok(self.cluster.shutdown().await?)
    }
}
