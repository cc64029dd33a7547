//! Arguments of a peer's process.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::Load;

/// Role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Server,
    Client,
}

/// Runtime of tokio that a process runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Single thread.
    CurrentThread,
    /// Work stealing, with tokio's own choice of the number of threads if there is none.
    Workers(Option<usize>),
}

/// Checked arguments.
#[derive(Debug)]
pub struct Args {
    pub(crate) mode: Mode,
    pub(crate) runtime: Runtime,
    /// Form of the peer; empty for the only one.
    pub variant: String,
    /// Servers to connect to, in the order of their actors.
    pub servers: Vec<SocketAddr>,
    /// Number of servers that the client uses, also where it starts them itself.
    pub server_count: usize,
    /// Core for the threads of servers that the client starts itself.
    pub server_core: Option<usize>,
    /// Address of this machine that is not loopback.
    pub host: Option<IpAddr>,
    /// Path of the command `roadshow`.
    pub command: Option<PathBuf>,
    pub(crate) pids: Vec<u32>,
    pub(crate) loads: Vec<Load>,
    pub(crate) time: Duration,
    pub(crate) words: Option<PathBuf>,
}

impl Args {
    /// Reads the arguments of this process.
    ///
    /// # Errors
    ///
    /// An unknown option, or a malformed value.
    pub fn from_env() -> Result<Self> {
        Self::parse(std::env::args().skip(1))
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mode = match words.next().as_deref() {
            Some("server") => Mode::Server,
            Some("client") => Mode::Client,
            _ => bail!(
                "this program is started by benches/peers/run; its first argument is `server` or `client`"
            ),
        };
        let mut args = Self {
            mode,
            runtime: Runtime::Workers(None),
            variant: String::new(),
            servers: Vec::new(),
            server_count: 1,
            server_core: None,
            host: None,
            command: None,
            pids: Vec::new(),
            loads: Vec::new(),
            time: Duration::from_millis(1500),
            words: None,
        };
        while let Some(option) = words.next() {
            let value = words.next().with_context(|| format!("{option} needs a value"))?;
            args.set(&option, &value).with_context(|| format!("{option} {value}"))?;
        }
        Ok(args)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<()> {
        let list = || value.split(',').filter(|part| !part.is_empty());
        match option {
            "--variant" => self.variant = value.to_owned(),
            "--runtime" if value == "current_thread" => self.runtime = Runtime::CurrentThread,
            "--runtime" => self.runtime = Runtime::Workers(Some(value.parse()?)),
            "--servers" => self.servers = list().map(str::parse).collect::<Result<_, _>>()?,
            "--server-count" => self.server_count = value.parse()?,
            "--server-core" => self.server_core = Some(value.parse()?),
            "--host" => self.host = Some(value.parse()?),
            "--command" => self.command = Some(value.into()),
            "--pids" => self.pids = list().map(str::parse).collect::<Result<_, _>>()?,
            "--loads" => self.loads = list().map(Load::parse).collect::<Result<_>>()?,
            "--seconds" => self.time = Duration::try_from_secs_f64(value.parse()?)?,
            "--words" => self.words = Some(value.into()),
            _ => bail!("no such option"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn lists_are_read() {
        let args =
            parse("client --servers 127.0.0.1:1,127.0.0.1:2 --loads calls-64,words --pids 3,4").unwrap();
        assert_eq!((args.servers.len(), args.pids), (2, vec![3, 4]));
        assert_eq!(args.loads, [Load::Calls64, Load::Words]);
    }

    #[test]
    fn malformed_arguments_are_rejected() {
        for line in ["", "client --loads nothing", "client --seconds -1", "server --what x", "client --pids"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
