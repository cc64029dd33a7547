//! Logs that are read piece by piece, from several nodes.

use std::net::SocketAddr;

use roadshow::admin::{Admin, AdminError, LogFile, LogFrom};
use roadshow::model::{JobId, NodeId, WorkerId};

use crate::cli::cluster_args::AdminConnector;
use crate::error::CliResult;

/// Which of a node's logs are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogSelector {
    Worker(WorkerId),
    /// All of a job's.
    Job(JobId),
    /// What a job's driver writes.
    Driver(JobId),
    /// What belongs to no job: the daemons'.
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

/// A node that has logs, and where its agent is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogSource {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
}

/// How long a line may be until it is shown in parts.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The logs that are wanted, each as far as it was read.
pub(crate) struct Tail<D: AdminConnector> {
    wanted: LogSelector,
    agents: Vec<(LogSource, Admin<D::Exchange>)>,
    logs: Vec<Log>,
}

struct Log {
    /// Which of the agents has it.
    agent: usize,
    file: String,
    from: LogFrom,
    /// The beginning of a line whose end was not there yet.
    begun: String,
}

impl Log {
    /// Takes the lines whose ends are there, or all if the last one grows too long.
    fn whole_lines(&mut self) -> String {
        let end = match self.begun.len() > LINE_BYTES_MAX {
            true => self.begun.len(),
            false => self.begun.rfind('\n').map_or(0, |end| end + 1),
        };
        let begun = self.begun.split_off(end);
        std::mem::replace(&mut self.begun, begun)
    }
}

impl<D: AdminConnector> Tail<D> {
    /// The logs that there are, read from `from` on.
    pub(crate) async fn open(
        wanted: LogSelector,
        places: Vec<LogSource>,
        from: LogFrom,
        desks: &D,
    ) -> CliResult<Self> {
        let mut agents = Vec::new();
        for place in places {
            agents.push((place, desks.agent(place.address).await?));
        }
        let mut tail = Self { wanted, agents, logs: Vec::new() };
        tail.poll(from).await?;
        Ok(tail)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Finds logs that were not there before; they are read from their beginning.
    pub(crate) async fn discover(&mut self) -> CliResult<()> {
        self.poll(LogFrom::Offset(0)).await
    }

    async fn poll(&mut self, from: LogFrom) -> CliResult<()> {
        for (agent, (_, desk)) in self.agents.iter_mut().enumerate() {
            for log in desk.log_files().await?.into_iter().filter(|log| self.wanted.matches(log)) {
                if !self.logs.iter().any(|known| known.agent == agent && known.file == log.file) {
                    self.logs.push(Log { agent, file: log.file, from, begun: String::new() });
                }
            }
        }
        Ok(())
    }

    /// Gives all whole lines that are new to `sink`, with whether there are several logs.
    pub(crate) async fn read(
        &mut self,
        mut sink: impl FnMut(LogSource, &str, &str, bool) -> CliResult<()>,
    ) -> CliResult<()> {
        let many = self.logs.len() > 1;
        for log in &mut self.logs {
            let (place, desk) = &mut self.agents[log.agent];
            loop {
                let new = match desk.log(log.file.clone(), log.from).await {
                    // It was removed to make room for others since it was found.
                    Err(AdminError::Unknown(_)) => break,
                    new => new?,
                };
                let before = std::mem::replace(&mut log.from, LogFrom::Offset(new.offset));
                if new.text.is_empty() || before == log.from {
                    break;
                }
                log.begun.push_str(&new.text);
                let lines = log.whole_lines();
                if !lines.is_empty() {
                    sink(*place, &log.file, &lines, many)?;
                }
            }
        }
        Ok(())
    }

    /// Gives what was begun and will have no end to `sink`.
    pub(crate) fn rest(
        &mut self,
        mut sink: impl FnMut(LogSource, &str, &str) -> CliResult<()>,
    ) -> CliResult<()> {
        for log in &mut self.logs {
            let begun = std::mem::take(&mut log.begun);
            if !begun.is_empty() {
                sink(self.agents[log.agent].0, &log.file, &begun)?;
            }
        }
        Ok(())
    }
}
