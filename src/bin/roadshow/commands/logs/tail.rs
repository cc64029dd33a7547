//! Incremental reading of logs from several nodes.

use std::net::SocketAddr;

use roadshow::admin::{Admin, AdminError, LogFile, LogFrom};
use roadshow::model::{JobId, NodeId, WorkerId};

use crate::cli::cluster_args::AdminConnector;
use crate::error::CliResult;

/// Selector for logs of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogSelector {
    Worker(WorkerId),
    /// All logs of a job.
    Job(JobId),
    /// Output streams of a job's driver.
    Driver(JobId),
    /// Logs that belong to no job: those of the daemons.
    Daemons,
}

impl LogSelector {
    fn matches(self, log: &LogFile) -> bool {
        match self {
            Self::Worker(worker) => log.worker == Some(worker),
            Self::Job(job) => log.job == Some(job),
            Self::Driver(job) => log.job == Some(job) && log.worker.is_none(),
            Self::Daemons => log.job.is_none() && log.worker.is_none(),
        }
    }
}

/// Node that stores logs, and the address of its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSource {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
}

/// Maximum length of a line in bytes; a longer one is printed in parts.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Selected logs, each with its read position.
pub(crate) struct Tail<D: AdminConnector> {
    selector: LogSelector,
    agents: Vec<(LogSource, Admin<D::Exchange>)>,
    logs: Vec<Log>,
}

struct Log {
    /// Index into [`Tail::agents`].
    agent: usize,
    file: String,
    from: LogFrom,
    /// Unfinished last line.
    partial: String,
}

impl Log {
    /// Takes all complete lines, or everything if the unfinished line is too long.
    fn whole_lines(&mut self) -> String {
        let end = match self.partial.len() > LINE_BYTES_MAX {
            true => self.partial.len(),
            false => self.partial.rfind('\n').map_or(0, |end| end + 1),
        };
        let partial = self.partial.split_off(end);
        std::mem::replace(&mut self.partial, partial)
    }
}

impl<D: AdminConnector> Tail<D> {
    /// Finds the existing logs, to be read from `from` on.
    pub(crate) async fn open(
        selector: LogSelector,
        sources: Vec<LogSource>,
        from: LogFrom,
        connector: &D,
    ) -> CliResult<Self> {
        let mut agents = Vec::new();
        for source in sources {
            agents.push((source, connector.agent(source.address).await?));
        }
        let mut tail = Self { selector, agents, logs: Vec::new() };
        tail.poll(from).await?;
        Ok(tail)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Finds logs that are new; they are read from their beginning.
    pub(crate) async fn discover(&mut self) -> CliResult<()> {
        self.poll(LogFrom::Offset(0)).await
    }

    async fn poll(&mut self, from: LogFrom) -> CliResult<()> {
        for (agent, (_, client)) in self.agents.iter_mut().enumerate() {
            for log in client.log_files().await?.into_iter().filter(|log| self.selector.matches(log)) {
                if !self.logs.iter().any(|known| known.agent == agent && known.file == log.file) {
                    self.logs.push(Log { agent, file: log.file, from, partial: String::new() });
                }
            }
        }
        Ok(())
    }

    /// Passes all new complete lines to `sink`, with a flag that is set if there are several logs.
    pub(crate) async fn read(
        &mut self,
        mut sink: impl FnMut(LogSource, &str, &str, bool) -> CliResult<()>,
    ) -> CliResult<()> {
        let many = self.logs.len() > 1;
        for log in &mut self.logs {
            let (source, client) = &mut self.agents[log.agent];
            loop {
                let new = match client.log(log.file.clone(), log.from).await {
                    // The agent removed the log, to make room for newer ones, after it was found.
                    Err(AdminError::Unknown(_)) => break,
                    new => new?,
                };
                let before = std::mem::replace(&mut log.from, LogFrom::Offset(new.offset));
                // The agent has no more for now: an empty reply, or one that does not advance.
                if new.text.is_empty() || before == log.from {
                    break;
                }
                // Only complete lines leave: pieces of two logs would else mix within a line.
                log.partial.push_str(&new.text);
                let lines = log.whole_lines();
                if !lines.is_empty() {
                    sink(*source, &log.file, &lines, many)?;
                }
            }
        }
        Ok(())
    }

    /// Passes unfinished last lines to `sink`.
    pub(crate) fn rest(
        &mut self,
        mut sink: impl FnMut(LogSource, &str, &str) -> CliResult<()>,
    ) -> CliResult<()> {
        for log in &mut self.logs {
            let partial = std::mem::take(&mut log.partial);
            if !partial.is_empty() {
                sink(self.agents[log.agent].0, &log.file, &partial)?;
            }
        }
        Ok(())
    }
}
