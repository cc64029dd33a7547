//! An operator's side of a desk: typed questions over whatever carries requests and replies.
//!
//! Owns which reply belongs to which request, how long one is waited for, and how an executable is sent
//! in pieces. Knows no socket and no proof: those are the [`Exchange`]'s.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use super::request::{AdminReply, AdminRequest, LogFile, LogFrom, Submission};
use super::submission::Program;
use crate::cluster::executable::ExecutableError;
use crate::cluster::listing::Counts;
use crate::cluster::model::{ActorKey, Alert, ClassCount, JobId, NodeId, PendingActor, TaskCount};
use crate::config::EXECUTABLE_CHUNK_BYTES;

/// How long an answer may take.
///
/// A desk answers from memory or from a file; ten seconds are a machine that swaps, or one that is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose desk is meant, on a node that may have both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminEndpoint {
    /// The head's, which knows the cluster.
    Head,
    /// The agent's, which has the node's files.
    Agent,
}

/// What carries requests to a desk, and its replies back.
pub trait AdminTransport {
    /// Asks, and waits for the answer. [`AdminReply::Failed`] is an answer.
    ///
    /// # Errors
    ///
    /// [`AdminError`] if there is no answer.
    ///
    /// # Cancel safety
    ///
    /// None: the answer of a dropped call may be taken for that of the next.
    fn exchange(
        &mut self,
        request: AdminRequest,
    ) -> impl Future<Output = Result<AdminReply, AdminError>> + Send;
}

/// Why an operator's request has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Nobody answers at the address.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended before the answer, or there was none in time.
    #[error("no answer came: {why}")]
    Lost {
        /// What became of the connection.
        why: String,
    },
    /// One of the two sides is not what the other expects: a wrong token, another cluster, a certificate
    /// that does not fit.
    #[error("{0}")]
    Refused(String),
    /// There is no such thing, in the desk's words.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done, in the desk's words.
    #[error("{0}")]
    Failed(String),
    /// The answer is none to what was asked.
    #[error("what came back is no answer to {asked}; use the same version of roadshow on both sides")]
    UnexpectedReply {
        /// What was asked.
        asked: &'static str,
    },
    /// The executable cannot be read, or is not the same any more.
    #[error("{0}")]
    Executable(String),
}

/// One desk, as an operator uses it.
#[derive(Debug)]
pub struct Admin<E> {
    exchange: E,
}

/// Where a submitted job is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmittedJob {
    /// The job.
    pub job: JobId,
    /// The node.
    pub node: NodeId,
    /// Where its agent is reached.
    pub address: SocketAddr,
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogText {
    /// The part: whole lines but for the last.
    pub text: String,
    /// Where it ends.
    pub offset: u64,
}

macro_rules! questions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*), $asked:literal,
        $request:expr => $reply:pat => $result:expr, $answer:ty;)*) => {
        impl<E: AdminTransport> Admin<E> {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// [`AdminError`] as the desk says, or if it does not answer.
                ///
                /// # Cancel safety
                ///
                /// The connection is of no use after a dropped future: connect anew.
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

questions! {
    /// How many actors of each class are in which state.
    classes(), "actors by class", AdminRequest::Classes => AdminReply::Classes(counts) => counts,
        Counts<ClassCount>;
    /// How many tasks of each function are in which state; only of functions with that part of a name, if one
    /// is given.
    functions(part: Option<String>), "tasks by function", AdminRequest::Functions { part } =>
        AdminReply::Functions(counts) => counts, Counts<TaskCount>;
    /// What has waited longest for a place, and why; and how many wait, with these.
    waiting(), "what waits", AdminRequest::PendingActors =>
        AdminReply::PendingActors { first, count } => (first, count), (Vec<PendingActor>, usize);
    /// Alerts: what an operator should see to. Those about the head come first; at most a hundred.
    alerts(), "the alerts",
        AdminRequest::Alerts => AdminReply::Alerts(alerts) => alerts, Vec<Alert>;
    /// Asks an actor to end, which it does once it handles no message.
    kill(actor: ActorKey), "the end of an actor",
        AdminRequest::Kill { actor } => AdminReply::Done => (), ();
    /// Has the worker end that an actor lives in, with all its actors: by force after
    /// [`WORKER_STOP_TIMEOUT`](crate::config::WORKER_STOP_TIMEOUT).
    kill_worker_of(actor: ActorKey), "the end of a worker",
        AdminRequest::KillWorkerOf { actor } => AdminReply::Done => (), ();
    /// Has a node take nothing new, and end when its jobs have.
    drain(node: NodeId), "the draining of a node",
        AdminRequest::Drain { node } => AdminReply::Done => (), ();
    /// Has a job end.
    stop_job(job: JobId), "the end of a job", AdminRequest::StopJob { job } => AdminReply::Done => (), ();
    /// Announces a job to the head, which says whose agent is to start its driver. The agent of the head's
    /// node is to have the executable before, and to be asked within
    /// [`SUBMITTED_LEASE`](crate::config::SUBMITTED_LEASE).
    submit(submission: Submission), "a job", AdminRequest::Submit(submission) =>
        AdminReply::Submitted { job, node, address } => SubmittedJob { job, node, address }, SubmittedJob;
    /// Has an agent start the driver of a job whose executable it has.
    begin(job: JobId, submission: Submission), "the start of a job",
        AdminRequest::StartDriver { job, submission } => AdminReply::Done => (), ();
    /// A part of one of an agent's logs.
    log(file: String, from: LogFrom), "a log", AdminRequest::Log { file, from } =>
        AdminReply::Log { text, offset } => LogText { text, offset }, LogText;
}

impl<E: AdminTransport> Admin<E> {
    /// The desk at the other end of `exchange`.
    pub const fn new(exchange: E) -> Self {
        Self { exchange }
    }

    /// Sends an agent what it does not have yet of an executable; `sent` hears how much it has.
    ///
    /// # Errors
    ///
    /// [`AdminError`] if it cannot be read, or the agent does not take it.
    ///
    /// # Cancel safety
    ///
    /// What the agent has it keeps. The connection is of no use after a dropped future: connect anew.
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
            if now <= have {
                return Err(AdminError::UnexpectedReply { asked: "more of an executable" });
            }
            have = now;
            sent(have);
        }
        Ok(())
    }

    /// The names of an agent's logs.
    ///
    /// # Errors
    ///
    /// [`AdminError`] as the desk says, or if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// The connection is of no use after a dropped future: connect anew.
    pub async fn log_files(&mut self) -> Result<Vec<LogFile>, AdminError> {
        let mut all: Vec<LogFile> = Vec::new();
        loop {
            let after = all.last().map(|log| log.file.clone());
            match self.ask(AdminRequest::LogFiles { after }).await? {
                AdminReply::LogFiles { files, more } => {
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

    pub(super) async fn ask(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange.exchange(request)).await;
        match answer.unwrap_or_else(|_| Err(silence())) {
            Ok(AdminReply::Failed { text, unknown: true }) => Err(AdminError::Unknown(text)),
            Ok(AdminReply::Failed { text, unknown: false }) => Err(AdminError::Failed(text)),
            answer => answer,
        }
    }
}

fn silence() -> AdminError {
    AdminError::Lost { why: format!("silence for {} s", ANSWER_TIMEOUT.as_secs()) }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cluster::listing::Page;
    use crate::cluster::model::{JobInfo, NodeInfo};

    /// A desk that stores what it is sent, and answers all else with one reply.
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
                // The desk that never answers.
                AdminRequest::PendingActors => std::future::pending().await,
                _ => Ok(self.reply.clone()),
            }
        }
    }

    /// What reads an executable of these bytes.
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
    async fn the_desk_s_refusal_is_an_error_in_its_words() {
        let failed = |unknown| AdminReply::Failed { text: "no".to_owned(), unknown };

        let unknown = Scripted::with(failed(true)).kill(ActorKey(1)).await;
        assert_eq!(unknown, Err(AdminError::Unknown("no".to_owned())));
        let refused = Scripted::with(failed(false)).drain(NodeId(1)).await;
        assert_eq!(refused, Err(AdminError::Failed("no".to_owned())));
    }

    #[tokio::test]
    async fn an_answer_to_something_else_is_no_answer() {
        let page = Page { rows: Vec::new(), next: None, more: None };
        let mut admin = Scripted::with(AdminReply::Nodes(page));
        assert_eq!(admin.all::<NodeInfo>(Vec::new()).await, Ok(Vec::new()));
        assert_eq!(
            admin.all::<JobInfo>(Vec::new()).await,
            Err(AdminError::UnexpectedReply { asked: "a list" })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_desk_is_waited_for_ten_seconds() {
        let silent = Scripted::with(AdminReply::Done).waiting().await;
        assert_eq!(silent, Err(silence()));
    }

    #[tokio::test]
    async fn an_executable_is_sent_in_pieces_from_where_the_agent_is() {
        let bytes: Vec<u8> = (0..3 * EXECUTABLE_CHUNK_BYTES + 5).map(|n| (n % 251) as u8).collect();
        let mut admin = Scripted::with(AdminReply::Done);
        admin.exchange.stored = bytes[..1000].to_vec();
        let mut seen = Vec::new();
        let submission = submission(bytes.len() as u64);
        admin.store_from(&submission, reader(&bytes), |have| seen.push(have)).await.unwrap();
        assert_eq!(admin.exchange.stored, bytes);
        assert_eq!((seen[0], seen.len()), (1000, 4));

        // The second time there is nothing to send.
        admin.store_from(&submission, reader(&[]), |_| ()).await.unwrap();
    }

    #[tokio::test]
    async fn sending_ends_when_the_file_is_short_or_nothing_is_taken() {
        let mut admin = Scripted::with(AdminReply::Done);
        let short = admin.store_from(&submission(10), reader(&[1; 9]), |_| ()).await;
        assert!(matches!(short, Err(AdminError::Executable(_))), "{short:?}");

        admin.exchange.takes_max = 0;
        let refused = admin.store_from(&submission(10), reader(&[1; 10]), |_| ()).await;
        assert_eq!(refused, Err(AdminError::UnexpectedReply { asked: "more of an executable" }));
    }
}
