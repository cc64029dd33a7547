//! Admin client: typed requests to a head or an agent over any transport.
//!
//! Owns the match of replies to requests, the reply timeout, and the chunked upload of an executable. It does
//! not own sockets or authentication: those belong to the [`AdminTransport`].

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::request::{AdminReply, AdminRequest, LogFile, LogFrom, Submission};
use super::submission::Program;
use crate::cluster::executable::ExecutableError;
use crate::cluster::listing::GroupCounts;
use crate::cluster::model::{
    ActorKey, Alert, ClassCount, JobId, JobSpans, NodeId, PendingActor, RestartCounts, TaskCount,
};
use crate::config::EXECUTABLE_CHUNK_BYTES;

/// Time limit for one reply.
///
/// The server answers from memory or from one file, so ten seconds of silence mean that its machine swaps or
/// is gone.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Server that a request is addressed to, on a node that may run both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminEndpoint {
    /// The head, which holds the state of the cluster.
    Head,
    /// The agent, which holds the logs and executables of its node.
    Agent,
}

/// Carries admin requests to a server, and its replies back.
pub trait AdminTransport {
    /// Sends a request and waits for its reply. [`AdminReply::Failed`] is a reply.
    ///
    /// # Errors
    ///
    /// [`AdminError`] if no reply arrives.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the reply to a dropped call may be read as the reply to the next one.
    fn exchange(
        &mut self,
        request: AdminRequest,
    ) -> impl Future<Output = Result<AdminReply, AdminError>> + Send;
}

/// Reason that an admin request has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No process answers at the address.
    #[error("{0}")]
    Unreachable(String),
    /// The connection closed before the reply, or the reply timed out.
    #[error("no reply from the server: {why}")]
    Lost {
        /// State of the connection.
        why: String,
    },
    /// The two sides do not match: a wrong token, another cluster, or a certificate that is not valid here.
    #[error("{0}")]
    Refused(String),
    /// The named object does not exist, in the server's words.
    #[error("{0}")]
    Unknown(String),
    /// The server cannot do it, in the server's words.
    #[error("{0}")]
    Failed(String),
    /// The reply does not match the request.
    #[error("unexpected reply to the request for {asked}; use the same version of roadshow on both sides")]
    UnexpectedReply {
        /// Result that was requested, as a noun.
        asked: &'static str,
    },
    /// The executable cannot be read, or has changed since it was opened.
    #[error("{0}")]
    Executable(String),
}

/// Admin client of one head or agent.
#[derive(Debug)]
pub struct Admin<E> {
    exchange: E,
}

/// Job that the head has accepted, and the node that runs its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmittedJob {
    /// Id of the job.
    pub job: JobId,
    /// Node that runs the driver.
    pub node: NodeId,
    /// Address of that node's agent.
    pub address: SocketAddr,
}

/// Part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogText {
    /// Text of the part: whole lines, except that the last may be incomplete.
    pub text: String,
    /// Byte offset in the log of the end of the part.
    pub offset: u64,
}

// One method a request, each with the same two doc sections: `name(arguments), "noun for the error",
// request => expected reply => result, type of the result;`. A macro, since the sections would otherwise be
// copied a dozen times and drift apart.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*), $asked:literal,
        $request:expr => $reply:pat => $result:expr, $answer:ty;)*) => {
        impl<E: AdminTransport> Admin<E> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// [`AdminError`] from the server, or if no reply arrives.
                ///
                /// # Cancel safety
                ///
                /// Not cancel safe: drop the connection together with the future, and connect again.
                pub async fn $name(&mut self $(, $argument: $type)*) -> Result<$answer, AdminError> {
                    match self.ask($request).await? {
                        $reply => Ok($result),
                        _ => Err(AdminError::UnexpectedReply { asked: $asked }),
                    }
                }
            )*
        }
    };
}

requests! {
    /// Counts the actors of each class by state.
    classes(), "actors by class", AdminRequest::Classes => AdminReply::Classes(counts) => counts,
        GroupCounts<ClassCount>;
    /// Counts the tasks of each function by state. `part` selects the functions whose name contains it.
    functions(part: Option<String>), "tasks by function", AdminRequest::Functions { part } =>
        AdminReply::Functions(counts) => counts, GroupCounts<TaskCount>;
    /// Lists the longest-waiting actors and tasks with the reason, and the total count.
    waiting(), "pending actors", AdminRequest::PendingActors =>
        AdminReply::PendingActors { first, count } => (first, count), (Vec<PendingActor>, usize);
    /// Counts the restarts of actors.
    restarts(), "restarts", AdminRequest::Restarts => AdminReply::Restarts(counts) => counts, RestartCounts;
    /// Asks for the version of the head's state, which grows whenever rows may have changed, and for the time by the
    /// head's clock, in milliseconds since 1970.
    snapshot(), "the version of the state", AdminRequest::Snapshot =>
        AdminReply::Snapshot { version, time_ms } => (version, time_ms), (u64, u64);
    /// Lists the alerts that an operator should handle, the head's own first, at most a hundred.
    alerts(), "alerts",
        AdminRequest::Alerts => AdminReply::Alerts(alerts) => alerts, Vec<Alert>;
    /// Asks for the spans of a job's timeline: handlers and tasks that its workers have timed and chosen.
    spans(job: JobId), "the spans of a job", AdminRequest::Spans { job } => AdminReply::Spans(spans) => spans,
        JobSpans;
    /// Stops an actor after the message that it handles now.
    kill(actor: ActorKey), "the end of an actor",
        AdminRequest::Kill { actor } => AdminReply::Done => (), ();
    /// Stops the worker of an actor, with all its actors. The agent kills it after
    /// [`WORKER_STOP_TIMEOUT`](crate::config::WORKER_STOP_TIMEOUT).
    kill_worker_of(actor: ActorKey), "the end of a worker",
        AdminRequest::KillWorkerOf { actor } => AdminReply::Done => (), ();
    /// Drains a node: it accepts no new work, and stops when its jobs have ended.
    drain(node: NodeId), "the draining of a node",
        AdminRequest::Drain { node } => AdminReply::Done => (), ();
    /// Stops a job.
    stop_job(job: JobId), "the end of a job", AdminRequest::StopJob { job } => AdminReply::Done => (), ();
    /// Makes a link that logs one browser in to the head's dashboard, once and within
    /// [`DASHBOARD_TICKET_VALID`](crate::config::DASHBOARD_TICKET_VALID).
    dashboard_link(), "a link to the dashboard", AdminRequest::DashboardLink =>
        AdminReply::DashboardLink { link } => link, String;
    /// Submits a job to the head, which assigns the node that runs its driver. Upload the executable to the agent
    /// of the head's node before, and start the driver within [`SUBMITTED_LEASE`](crate::config::SUBMITTED_LEASE).
    submit(submission: Submission), "a job", AdminRequest::Submit(submission) =>
        AdminReply::Submitted { job, node, address } => SubmittedJob { job, node, address }, SubmittedJob;
    /// Starts the driver of a job on an agent that has its executable.
    begin(job: JobId, submission: Submission), "the start of a job",
        AdminRequest::StartDriver { job, submission } => AdminReply::Done => (), ();
    /// Reads a part of one of an agent's logs.
    log(file: String, from: LogFrom), "a log", AdminRequest::Log { file, from } =>
        AdminReply::Log { text, offset } => LogText { text, offset }, LogText;
}

impl<E: AdminTransport> Admin<E> {
    /// Creates a client of the server at the other end of `exchange`.
    pub const fn new(exchange: E) -> Self {
        Self { exchange }
    }

    /// Returns the transport.
    #[cfg(feature = "dashboard")]
    pub(in crate::cluster) fn into_transport(self) -> E {
        self.exchange
    }

    /// Uploads the missing part of an executable to an agent, and reports the bytes that the agent has to `sent`.
    ///
    /// # Errors
    ///
    /// [`AdminError`] if the executable cannot be read, or the agent rejects it.
    ///
    /// # Cancel safety
    ///
    /// The agent keeps the bytes that it has received. Not cancel safe otherwise: drop the connection together
    /// with the future, and connect again.
    pub async fn store(
        &mut self,
        submission: &Submission,
        program: &Program,
        sent: impl FnMut(u64),
    ) -> Result<(), AdminError> {
        self.store_from(submission, |from, bytes_max| program.read(from, bytes_max), sent).await
    }

    async fn store_from(
        &mut self,
        submission: &Submission,
        read: impl Fn(u64, usize) -> Result<Vec<u8>, ExecutableError>,
        mut sent: impl FnMut(u64),
    ) -> Result<(), AdminError> {
        let Submission { digest, size, .. } = *submission;
        let mut have = self.stored(AdminRequest::ExecutableStatus { digest, size }).await?;
        sent(have);
        while have < size {
            let bytes = read(have, EXECUTABLE_CHUNK_BYTES)
                .map_err(|error| AdminError::Executable(error.to_string()))?;
            let now =
                self.stored(AdminRequest::UploadExecutable { digest, size, offset: have, bytes }).await?;
            // A reply without progress would make this loop endless.
            if now <= have {
                return Err(AdminError::UnexpectedReply { asked: "more of an executable" });
            }
            have = now;
            sent(have);
        }
        Ok(())
    }

    /// Lists the names of an agent's logs.
    ///
    /// # Errors
    ///
    /// [`AdminError`] from the server, or if no reply arrives.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection together with the future, and connect again.
    pub async fn log_files(&mut self) -> Result<Vec<LogFile>, AdminError> {
        let mut all: Vec<LogFile> = Vec::new();
        loop {
            let after = all.last().map(|log| log.file.clone());
            match self.ask(AdminRequest::LogFiles { after }).await? {
                AdminReply::LogFiles { files, more } => {
                    // An empty page that promises more would make this loop endless.
                    let is_last = !more || files.is_empty();
                    all.extend(files);
                    if is_last {
                        return Ok(all);
                    }
                }
                _ => return Err(AdminError::UnexpectedReply { asked: "the logs" }),
            }
        }
    }

    async fn stored(&mut self, request: AdminRequest) -> Result<u64, AdminError> {
        match self.ask(request).await? {
            AdminReply::ExecutableStatus { have } => Ok(have),
            _ => Err(AdminError::UnexpectedReply { asked: "an executable" }),
        }
    }

    pub(in crate::cluster) async fn ask(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        let reply = tokio::time::timeout(REPLY_TIMEOUT, self.exchange.exchange(request)).await;
        match reply.unwrap_or_else(|_| Err(silence())) {
            Ok(AdminReply::Failed { text, unknown: true }) => Err(AdminError::Unknown(text)),
            Ok(AdminReply::Failed { text, unknown: false }) => Err(AdminError::Failed(text)),
            reply => reply,
        }
    }
}

fn silence() -> AdminError {
    AdminError::Lost { why: format!("no reply within {} s", REPLY_TIMEOUT.as_secs()) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cluster::listing::Page;
    use crate::cluster::model::{JobInfo, NodeInfo};

    /// Transport that stores uploaded bytes, and answers every other request with one reply.
    struct Scripted {
        reply: AdminReply,
        stored: Vec<u8>,
        takes_max: usize,
    }

    impl Scripted {
        fn with(reply: AdminReply) -> Admin<Self> {
            Admin::new(Self { reply, stored: Vec::new(), takes_max: usize::MAX })
        }
    }

    impl AdminTransport for Scripted {
        async fn exchange(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
            if let AdminRequest::UploadExecutable { offset, bytes, .. } = &request {
                assert_eq!(*offset, self.stored.len() as u64);
                assert!(bytes.len() <= EXECUTABLE_CHUNK_BYTES);
                self.stored.extend(&bytes[..bytes.len().min(self.takes_max)]);
            }
            match request {
                AdminRequest::ExecutableStatus { .. } | AdminRequest::UploadExecutable { .. } => {
                    Ok(AdminReply::ExecutableStatus { have: self.stored.len() as u64 })
                }
                // Simulates a server that never replies.
                AdminRequest::PendingActors => std::future::pending().await,
                _ => Ok(self.reply.clone()),
            }
        }
    }

    /// Reads from an executable of these bytes.
    fn reader(bytes: &[u8]) -> impl Fn(u64, usize) -> Result<Vec<u8>, ExecutableError> {
        move |from, bytes_max| match bytes.get(from as usize..) {
            Some(rest) if !rest.is_empty() => Ok(rest[..rest.len().min(bytes_max)].to_vec()),
            _ => Err(ExecutableError::Changed { path: PathBuf::from("p") }),
        }
    }

    fn submission(size: u64) -> Submission {
        Submission {
            program: "p".into(),
            args: Vec::new(),
            env: Vec::new(),
            digest: [7; 32],
            size,
            platform: "x86_64-linux-gnu".to_owned(),
        }
    }

    #[tokio::test]
    async fn server_failure_becomes_an_error_with_its_text() {
        let failed = |unknown| AdminReply::Failed { text: "no".to_owned(), unknown };

        let unknown = Scripted::with(failed(true)).kill(ActorKey(1)).await;
        assert_eq!(unknown, Err(AdminError::Unknown("no".to_owned())));
        let refused = Scripted::with(failed(false)).drain(NodeId(1)).await;
        assert_eq!(refused, Err(AdminError::Failed("no".to_owned())));
    }

    #[tokio::test]
    async fn reply_to_another_request_is_an_error() {
        let page = Page { rows: Vec::new(), next: None, more: None, skipped: 0 };
        let mut admin = Scripted::with(AdminReply::Nodes(page));
        assert_eq!(admin.all::<NodeInfo>(Vec::new()).await, Ok(Vec::new()));
        assert_eq!(
            admin.all::<JobInfo>(Vec::new()).await,
            Err(AdminError::UnexpectedReply { asked: "a list" })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silent_server_times_out_after_ten_seconds() {
        let silent = Scripted::with(AdminReply::Done).waiting().await;
        assert_eq!(silent, Err(silence()));
    }

    #[tokio::test]
    async fn upload_resumes_where_the_agent_stands() {
        let bytes: Vec<u8> = (0..3 * EXECUTABLE_CHUNK_BYTES + 5).map(|n| (n % 251) as u8).collect();
        let mut admin = Scripted::with(AdminReply::Done);
        admin.exchange.stored = bytes[..1000].to_vec();
        let mut seen = Vec::new();
        let submission = submission(bytes.len() as u64);
        admin.store_from(&submission, reader(&bytes), |have| seen.push(have)).await.unwrap();
        assert_eq!(admin.exchange.stored, bytes);
        assert_eq!((seen[0], seen.len()), (1000, 4));

        // The second upload has nothing to send.
        admin.store_from(&submission, reader(&[]), |_| ()).await.unwrap();
    }

    #[tokio::test]
    async fn upload_fails_when_the_file_is_short_or_the_agent_takes_nothing() {
        let mut admin = Scripted::with(AdminReply::Done);
        let short = admin.store_from(&submission(10), reader(&[1; 9]), |_| ()).await;
        assert!(matches!(short, Err(AdminError::Executable(_))), "{short:?}");

        admin.exchange.takes_max = 0;
        let refused = admin.store_from(&submission(10), reader(&[1; 10]), |_| ()).await;
        assert_eq!(refused, Err(AdminError::UnexpectedReply { asked: "more of an executable" }));
    }
}
