//! The control plane in action: the pure state, those who wait for its answers, and what carries out what
//! it wants done.
//!
//! A head has one for its cluster, and the driver of a local cluster has one for its workers. Everybody
//! else reaches it through the host that it lives on ([`CONTROL`]).

#[cfg(feature = "cli")]
pub(crate) mod bench;
pub(super) mod client;
pub(super) mod head_route;
mod request;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::control_plane::state::{
    Action, Answer, ControlError, Event, Listed, Millis, Search, Settings, State, Ticket,
};
use super::listing::{Page, Query, QueryError};
use super::model::{ActorKey, JobId};
use crate::host::{Host, SendError};
use crate::id::HostUid;
use crate::lock::{Locked, Mutex};
use crate::registry::{Inbound, Responder, decode};
use crate::remote::call_host;
use client::{CancellableRequest, PendingRequests, PlacementCall, REQUESTER_GONE, assigned_actor};
pub(super) use request::{CONTROL, ControlRequest, Reply};

/// Carries out what the state wants done. It must not call back, and not wait.
pub(super) type ActionExecutor = Box<dyn Fn(&Action) + Send + Sync>;

/// Waits until what the state has wanted kept so far is kept; else says why it is not.
pub(super) type Persistence = Box<dyn Fn() -> CommitFuture + Send + Sync>;

pub(super) type CommitFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The state, and who waits for it.
pub(super) struct ControlPlane {
    plane: Mutex<Inner>,
    clock: Clock,
    executor: ActionExecutor,
    /// None where nothing outlives the process.
    persistence: Option<Persistence>,
    /// The questions of other hosts.
    pending: PendingRequests,
}

struct Inner {
    state: State,
    actions: Vec<Action>,
    waiting: FxHashMap<Ticket, oneshot::Sender<Result<Answer, ControlError>>>,
    last_ticket: u64,
}

impl ControlPlane {
    pub(super) fn new(settings: Settings, hands: ActionExecutor, keeper: Option<Persistence>) -> Self {
        let plane = Inner {
            state: State::new(settings),
            actions: Vec::new(),
            waiting: FxHashMap::default(),
            last_ticket: 0,
        };
        Self {
            plane: Mutex::new(plane),
            clock: Clock::new(),
            executor: hands,
            persistence: keeper,
            pending: PendingRequests::default(),
        }
    }

    /// Takes note of what has happened.
    pub(super) fn apply(&self, event: Event) {
        self.handle(&mut self.lock(), event);
    }

    /// Asks, and waits for the answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the question.
    pub(super) async fn ask(
        self: Arc<Self>,
        question: impl FnOnce(Ticket) -> Event,
    ) -> Result<Answer, ControlError> {
        let (answer, answered) = oneshot::channel();
        let ticket = {
            let mut plane = self.lock();
            plane.last_ticket += 1;
            let ticket = Ticket(plane.last_ticket);
            plane.waiting.insert(ticket, answer);
            self.handle(&mut plane, question(ticket));
            ticket
        };
        let mut asked = AnswerGuard { control: self, ticket, answer: answered, received: false };
        let answer = (&mut asked.answer).await;
        asked.received = true;
        answer.unwrap_or_else(|_| Err(ControlError::Unknown("the control plane has ended".to_owned())))
    }

    /// What the state says, as it is now.
    pub(super) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock().state)
    }

    fn handle(&self, plane: &mut Inner, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = std::mem::take(&mut plane.actions);
            plane.state.handle(self.clock.now(), event, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Answer { ticket, answer } => {
                        let unheard = match plane.waiting.remove(&ticket) {
                            Some(waiting) => waiting.send(answer).err(),
                            None => Some(answer),
                        };
                        events.extend(reclaim(unheard));
                    }
                    action => (self.executor)(&action),
                }
            }
            plane.actions = actions;
        }
    }

    fn lock(&self) -> Locked<'_, Inner> {
        self.plane.lock()
    }

    /// Answers a member that asks.
    pub(super) fn serve(self: &Arc<Self>, host: &Host, inbound: Inbound) {
        let from = inbound.from();
        let (body, _, mut responder) = inbound.into_parts();
        let request = match decode::<ControlRequest>(&body) {
            Ok(request) => request,
            Err(failure) => return responder.fail(failure),
        };
        if let Err(denied) = self.read(|state| check_sender(state, from, &request)) {
            tracing::warn!(%from, %denied, "a request to the control plane is refused");
            return responder.answer(Err(denied));
        }
        responder.start();
        // It may wait long, and others are to be heard meanwhile.
        responder.release_credit();
        // In the order in which they come, so that none is withdrawn before it is known.
        let withdrawable = match request {
            ControlRequest::Cancel { number } => {
                self.pending.cancel(from, number);
                return responder.answer(Ok(Answer::Done));
            }
            ControlRequest::Place { number, .. } => Some(self.pending.begin(from, number)),
            _ => None,
        };
        host.io().spawn(Arc::clone(self).answer(request, withdrawable, responder));
    }

    async fn answer(
        self: Arc<Self>,
        request: ControlRequest,
        withdrawable: Option<CancellableRequest>,
        mut responder: Responder<Reply>,
    ) {
        let answering = async {
            match withdrawable {
                Some(withdrawable) => withdrawable.or_cancelled(self.request(request)).await,
                None => self.request(request).await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = answering => answer,
            () = std::future::poll_fn(|task| responder.poll_cancelled(task)) => return,
        };
        responder.answer(answer);
    }

    /// Does what a member asks for.
    pub(super) async fn request(self: Arc<Self>, request: ControlRequest) -> Reply {
        match request {
            ControlRequest::Place { job, mut spec, .. } => {
                // Without a name these two would change nothing.
                if spec.name.is_none() && (spec.get_if_exists || !spec.namespace.is_empty()) {
                    let what = if spec.get_if_exists { "get_if_exists()" } else { "namespace(..)" };
                    let text = format!("{what} is about a name: give the actor one with name(..)");
                    return Err(ControlError::Infeasible(text));
                }
                if spec.namespace.is_empty() {
                    spec.namespace = self.namespace_of(job);
                }
                let has_to_last = spec.is_durable();
                let answer = Arc::clone(&self).ask(|ticket| Event::Place { ticket, job, spec }).await?;
                match has_to_last {
                    true => self.commit_placement(answer).await,
                    false => Ok(answer),
                }
            }
            ControlRequest::Find { job, namespace, name } => {
                let namespace = namespace.unwrap_or_else(|| self.namespace_of(job));
                self.ask(|ticket| Event::Find { ticket, namespace, name }).await
            }
            // Of a host that asks itself, and whose own question is dropped with it.
            ControlRequest::Cancel { .. } => Ok(Answer::Done),
            ControlRequest::Nodes(query) => self.list(&query).await.map(Answer::Nodes).map_err(refused),
            ControlRequest::Actors(query) => self.list(&query).await.map(Answer::Actors).map_err(refused),
            ControlRequest::HostStatus { host } => {
                Ok(Answer::End(self.read(|state| state.host_exit_cause(host))))
            }
            ControlRequest::Kill { actor } => self.ask(|ticket| Event::Kill { ticket, actor }).await,
            ControlRequest::SpawnFailed { actor, why } => {
                let cause = format!("it was not spawned: {why}");
                self.apply(Event::NotSpawned { actor, cause });
                Ok(Answer::Done)
            }
        }
    }
}

impl ControlPlane {
    /// Gives a place once what a later life of the head has to know of it is kept: whoever has it may count
    /// on the actor's name, and that it lives on.
    async fn commit_placement(self: Arc<Self>, answer: Answer) -> Reply {
        let Some((keeper, actor)) = self.persistence.as_ref().zip(assigned_actor(&answer)) else {
            return Ok(answer);
        };
        let mut place =
            AssignmentGuard { control: &self, actor, cause: REQUESTER_GONE.to_owned(), committed: false };
        match keeper().await {
            Ok(()) => {
                place.committed = true;
                Ok(answer)
            }
            Err(why) => {
                let denied = ControlError::NotPersisted(why);
                place.cause = denied.to_string();
                Err(denied)
            }
        }
    }

    /// Answers a query, one slice of the table after the other: others have their turn between two.
    pub(super) async fn list<T: Listed>(&self, query: &Query) -> Result<Page<T>, QueryError> {
        let mut search = Search::new(query)?;
        loop {
            let is_done = self.read(|state| search.step(state));
            search.weigh();
            if is_done {
                return Ok(search.page());
            }
            tokio::task::yield_now().await;
        }
    }

    /// The namespace of a job's names: what its driver says, or one that it has to itself.
    fn namespace_of(&self, job: JobId) -> String {
        let said = self.read(|state| state.job_facts(job).map(|facts| facts.namespace.clone()));
        said.filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| format!("job-{job}"))
    }
}

fn refused(error: QueryError) -> ControlError {
    ControlError::Unknown(error.to_string())
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// Whether a member may ask for this. It speaks for its own job alone; any member may end an actor, as any
/// may send it a message.
fn check_sender(state: &State, from: HostUid, request: &ControlRequest) -> Result<(), ControlError> {
    let job = match request {
        ControlRequest::Place { job, .. } | ControlRequest::Find { job, .. } => *job,
        // One that is not known has no place to give back.
        ControlRequest::SpawnFailed { actor, .. } => match state.job_of_actor(*actor) {
            Some(job) => job,
            None => return Ok(()),
        },
        ControlRequest::Cancel { .. }
        | ControlRequest::Kill { .. }
        | ControlRequest::Nodes(_)
        | ControlRequest::Actors(_)
        | ControlRequest::HostStatus { .. } => return Ok(()),
    };
    match state.may_speak_for(from, job) {
        true => Ok(()),
        false => {
            Err(ControlError::Unknown(format!("host {} is of no worker or driver of job {job}", from.host)))
        }
    }
}

/// A question; dropped before its answer was taken it is withdrawn.
struct AnswerGuard {
    control: Arc<ControlPlane>,
    ticket: Ticket,
    answer: oneshot::Receiver<Result<Answer, ControlError>>,
    received: bool,
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        if self.received {
            return;
        }
        // Answers are given under this lock: there is one by now, or there will be none.
        let mut plane = self.control.lock();
        plane.waiting.remove(&self.ticket);
        let event = match self.answer.try_recv() {
            Ok(answer) => reclaim(Some(answer)),
            Err(_) => Some(Event::Cancelled { ticket: self.ticket }),
        };
        if let Some(event) = event {
            self.control.handle(&mut plane, event);
        }
    }
}

/// A place that is about to be given; dropped before that it is free again.
struct AssignmentGuard<'a> {
    control: &'a ControlPlane,
    actor: ActorKey,
    cause: String,
    committed: bool,
}

impl Drop for AssignmentGuard<'_> {
    fn drop(&mut self) {
        if !self.committed {
            let cause = std::mem::take(&mut self.cause);
            self.control.apply(Event::ActorEnded { actor: self.actor, cause });
        }
    }
}

/// What becomes of an answer that nobody takes: a place is free again.
fn reclaim(answer: Option<Result<Answer, ControlError>>) -> Option<Event> {
    let actor = assigned_actor(&answer?.ok()?)?;
    Some(Event::ActorEnded { actor, cause: REQUESTER_GONE.to_owned() })
}

/// Milliseconds since 1970 that never go back, whatever is done to the machine's clock meanwhile.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    epoch: Duration,
}

impl Clock {
    fn new() -> Self {
        Self { started: Instant::now(), epoch: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default() }
    }

    fn now(&self) -> Millis {
        let since = self.epoch + self.started.elapsed();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// How this process reaches the control plane of its cluster.
#[derive(Clone, Debug)]
pub(super) enum HeadHandle {
    /// It is here.
    Local(Arc<ControlPlane>),
    /// It is on another host.
    Remote(HostUid),
}

impl HeadHandle {
    /// Whether it is another life of the head, or another one.
    pub(super) fn differs_from(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Remote(now), Self::Remote(before)) => now != before,
            _ => false,
        }
    }

    /// Asks it.
    pub(super) async fn ask(self, host: Host, request: ControlRequest) -> Result<Reply, SendError> {
        match self {
            Self::Local(control) => Ok(control.request(request).await),
            Self::Remote(head) => match request {
                ControlRequest::Place { number, .. } => PlacementCall::new(head, host, number, request).await,
                request => call_host(&host, head, CONTROL, request, None).await,
            },
        }
    }
}
