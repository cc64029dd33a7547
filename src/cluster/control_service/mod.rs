//! Shell of the control plane: the pure state, its pending requests, and the execution of its actions.
//!
//! The head of a cluster has one, and so has the driver of a local cluster. Other processes reach it through
//! the service [`CONTROL`] of its host.
//!
//! ```text
//!   member --ControlRequest--> serve --> ask --Event--> State::handle --Action--> ActionExecutor
//!          <-------Reply-------------- ReplyGuard <--Action::Reply--'
//! ```

#[cfg(feature = "cli")]
pub(crate) mod bench;
pub(super) mod client;
mod commit;
pub(super) mod head_route;
mod request;
mod versions;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::control_plane::state::{
    Action, ClusterState, ControlError, ControlEvent, ControlReply, Listed, Millis, RequestId, Search,
    Settings, Ticket,
};
use super::listing::{Kind, Page, Query, QueryError};
use super::model::{JobId, NodeId};
use crate::background;
use crate::config::TICK_EVERY;
use crate::host::entropy::unix_time;
use crate::host::{Host, SendError};
use crate::id::HostUid;
use crate::lock::{Locked, Mutex};
use crate::registry::{Inbound, Responder, decode};
use crate::remote::call_host;
use crate::spec::HolderAddress;
use crate::wire::CallFailure;
use client::{CancellableRequest, PendingRequests, PlacementCall, REQUESTER_GONE, assigned_actor};
pub(super) use request::{CONTROL, ControlRequest, ControlResult};
pub(in crate::cluster) use versions::TableVersions;

/// Carries out the actions of one event, except its replies. Its records become durable together or not at all.
///
/// Runs under the lock of the state, so it must neither block nor call the control plane.
pub(super) type ActionExecutor = Box<dyn Fn(&[Action]) + Send + Sync>;

/// Returns a future that resolves once all writes requested so far are durable, or with the storage error.
pub(super) type Persistence = Box<dyn Fn() -> CommitFuture + Send + Sync>;

/// Future of a [`Persistence`].
pub(super) type CommitFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Starts the holder of states of the only node at its first call, and returns its address.
pub(super) type HolderStart = Box<dyn Fn() -> HolderStarting + Send + Sync>;

/// Future of a [`HolderStart`].
pub(super) type HolderStarting =
    Pin<Box<dyn Future<Output = Result<(NodeId, HolderAddress), String>> + Send>>;

/// Control plane of a cluster.
pub(super) struct ControlPlane {
    inner: Mutex<ControlPlaneInner>,
    clock: Clock,
    executor: ActionExecutor,
    /// Waits for writes; `None` where nothing outlives the process.
    persistence: Option<Persistence>,
    /// Requests of other hosts that can still be cancelled.
    pending: PendingRequests,
    /// Notified when a delayed restart is added.
    delayed: Arc<Notify>,
    /// Starts the holder of a local cluster; unset in a cluster of nodes.
    holder: OnceLock<HolderStart>,
}

/// Everything behind the lock of the control plane.
struct ControlPlaneInner {
    state: ClusterState,
    actions: Vec<Action>,
    reply_channels: FxHashMap<Ticket, oneshot::Sender<Result<ControlReply, ControlError>>>,
    last_ticket: u64,
    versions: TableVersions,
}

impl ControlPlane {
    pub(super) fn new(
        settings: Settings,
        executor: ActionExecutor,
        persistence: Option<Persistence>,
    ) -> Self {
        let inner = ControlPlaneInner {
            state: ClusterState::new(settings),
            actions: Vec::new(),
            reply_channels: FxHashMap::default(),
            last_ticket: 0,
            versions: TableVersions::default(),
        };
        Self {
            inner: Mutex::new(inner),
            clock: Clock::new(),
            executor,
            persistence,
            pending: PendingRequests::default(),
            delayed: Arc::default(),
            holder: OnceLock::new(),
        }
    }

    /// Sets the start of the holder of states.
    pub(super) fn set_holder(&self, start: HolderStart) {
        // Only a cluster's start sets it.
        let _ = self.holder.set(start);
    }

    /// Handles an event.
    pub(super) fn apply(&self, event: ControlEvent) {
        self.handle(&mut self.lock(), event);
    }

    /// Handles an event that is a request, and waits for its reply.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the request.
    pub(super) async fn ask(
        self: Arc<Self>,
        request: impl FnOnce(Ticket) -> ControlEvent,
    ) -> Result<ControlReply, ControlError> {
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut inner = self.lock();
            inner.last_ticket += 1;
            let ticket = Ticket(inner.last_ticket);
            // Registered under the lock that handles the event, since the reply may be among its actions.
            inner.reply_channels.insert(ticket, sender);
            self.handle(&mut inner, request(ticket));
            ticket
        };
        let mut guard = ReplyGuard { control: self, ticket, reply: receiver, received: false };
        let reply = (&mut guard.reply).await;
        guard.received = true;
        reply.unwrap_or_else(|_| Err(ControlError::Unknown("the control plane has ended".to_owned())))
    }

    /// Future that resolves when the state's next tick is due. It holds the control plane only weakly.
    pub(super) fn next_tick(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let (control, delayed) = (Arc::downgrade(self), Arc::clone(&self.delayed));
        let latest = Instant::now() + TICK_EVERY;
        async move {
            // Only while it waits for nothing: the control plane may be dropped meanwhile.
            while let Some(next) = control.upgrade().map(|control| control.time_to_restart()) {
                let due = next.map_or(latest, |next| latest.min(Instant::now() + next));
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(due) => return,
                    () = delayed.notified() => {}
                }
            }
        }
    }

    /// Time until the next delayed start of a worker or an actor.
    fn time_to_restart(&self) -> Option<Duration> {
        let now = self.clock.now();
        let at = self.read(ClusterState::next_restart)?;
        // At least a millisecond: the state compares whole ones.
        Some(Duration::from_millis(at.since(now).max(1)))
    }

    /// Reads the current state.
    pub(super) fn read<T>(&self, read: impl FnOnce(&ClusterState) -> T) -> T {
        read(&self.lock().state)
    }

    /// Versions of the tables.
    #[cfg_attr(not(feature = "dashboard"), expect(dead_code, reason = "only the dashboard watches them"))]
    pub(super) fn versions(&self) -> TableVersions {
        self.lock().versions
    }

    /// Time by the clock of the state, in milliseconds since 1970.
    #[cfg(feature = "cli")]
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now().0
    }

    /// Ends all pending requests, as the end of the process does.
    #[cfg(feature = "sim")]
    pub(super) fn abandon_requests(&self) {
        self.lock().reply_channels.clear();
    }

    fn handle(&self, inner: &mut ControlPlaneInner, event: ControlEvent) {
        // A reply that nothing waits for may contain an assignment. Its resources must be released, by an
        // event that is handled after the present one: `ClusterState::handle` is not reentrant.
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = std::mem::take(&mut inner.actions);
            let (changed, before) = (versions::changed_by(&event), inner.state.version());
            inner.state.handle(self.clock.now(), event, &mut actions);
            // A tick or a heartbeat may change any row, as when a lease expires.
            let has_effects = changed.is_empty() && inner.state.version() != before;
            let changed = if has_effects { &Kind::ALL } else { changed };
            inner.versions.count(changed, inner.state.version());
            if !actions.is_empty() {
                (self.executor)(&actions);
            }
            for action in actions.drain(..) {
                let Action::Reply { ticket, reply } = action else { continue };
                let undelivered = match inner.reply_channels.remove(&ticket) {
                    Some(channel) => channel.send(reply).err(),
                    None => Some(reply),
                };
                events.extend(reclaim(undelivered));
            }
            inner.actions = actions;
            if inner.state.next_restart().is_some() {
                self.delayed.notify_one();
            }
        }
    }

    fn lock(&self) -> Locked<'_, ControlPlaneInner> {
        self.inner.lock()
    }

    /// Serves a request of a member.
    pub(super) fn serve(self: &Arc<Self>, host: &Host, inbound: Inbound) {
        let from = inbound.from();
        let (body, _, mut responder) = inbound.into_parts();
        let request = match decode::<ControlRequest>(&body) {
            Ok(request) => request,
            Err(failure) => return responder.fail(failure),
        };
        if let Err(error) = self.read(|state| check_sender(state, from, &request)) {
            tracing::warn!(%from, %error, "refused a request to the control plane");
            return responder.reply(Err(error));
        }
        responder.start();
        // The request may stay pending for long; its sender must be able to send others meanwhile.
        responder.release_credit();
        // Registered in order of arrival, before the task is spawned: a cancellation that arrives next finds
        // the request.
        let cancellable = match request {
            ControlRequest::Cancel { number } => {
                self.pending.cancel(from, number);
                return self.abandon(host, RequestId { from, number }, responder);
            }
            ControlRequest::Place { number, .. } => Some(self.pending.begin(from, number)),
            // Open for as long as the node or the job: it must neither outlive its caller nor delay a shutdown.
            ControlRequest::WatchNode { .. }
            | ControlRequest::Locate { .. }
            | ControlRequest::WatchJob { .. }
            | ControlRequest::WatchActor { .. } => {
                let watch = Arc::clone(self).reply_to_watch(host.clone(), request, responder);
                background::spawn_on(host.io(), watch);
                return;
            }
            _ => None,
        };
        background::spawn_on(host.io(), Arc::clone(self).reply(from, request, cancellable, responder));
    }

    async fn reply(
        self: Arc<Self>,
        from: HostUid,
        request: ControlRequest,
        cancellable: Option<CancellableRequest>,
        mut responder: Responder<ControlResult>,
    ) {
        let replying = async {
            match cancellable {
                Some(cancellable) => cancellable.or_cancelled(self.request(request, Some(from))).await,
                None => self.request(request, Some(from)).await,
            }
        };
        let reply = tokio::select! {
            biased;
            reply = replying => reply,
            // Cancelled, or its session is lost: a reply would find nothing that takes it.
            () = std::future::poll_fn(|task| responder.poll_abandoned(task)) => return,
        };
        responder.reply(reply);
    }

    async fn reply_to_watch(
        self: Arc<Self>,
        host: Host,
        request: ControlRequest,
        mut responder: Responder<ControlResult>,
    ) {
        let reply = tokio::select! {
            biased;
            reply = self.request(request, None) => reply,
            () = std::future::poll_fn(|task| responder.poll_abandoned(task)) => return,
            () = host.closing() => return responder.fail(CallFailure::Closing),
        };
        responder.reply(reply);
    }

    /// Carries out a request of another host, or, without one, of this process.
    pub(super) async fn request(
        self: Arc<Self>,
        request: ControlRequest,
        from: Option<HostUid>,
    ) -> ControlResult {
        match request {
            ControlRequest::Place { job, mut spec, recipe, number } => {
                // Both options qualify a name; without one they would be ignored silently.
                if spec.name.is_none() && (spec.get_if_exists || !spec.namespace.is_empty()) {
                    let what = if spec.get_if_exists { "get_if_exists()" } else { "namespace(..)" };
                    let text = format!("{what} is about a name: give the actor one with name(..)");
                    return Err(ControlError::Infeasible(text));
                }
                if spec.namespace.is_empty() {
                    spec.namespace = self.namespace_of(job);
                }
                let is_durable = spec.is_durable();
                let recipe = recipe.map(Arc::new);
                let id = from.map(|from| RequestId { from, number });
                let place = |ticket| ControlEvent::Place { ticket, job, spec, recipe, id };
                let reply = Arc::clone(&self).ask(place).await?;
                match is_durable {
                    true => self.commit_placement(reply).await,
                    false => Ok(reply),
                }
            }
            ControlRequest::Find { job, namespace, name } => {
                let namespace = namespace.unwrap_or_else(|| self.namespace_of(job));
                self.ask(|ticket| ControlEvent::Find { ticket, namespace, name }).await
            }
            ControlRequest::Locate { actor, gone } => {
                let locate = |ticket| ControlEvent::Locate { ticket, actor, gone };
                let reply = Arc::clone(&self).ask(locate).await;
                self.end_when_durable(reply).await
            }
            // Only a local requester gets here, and dropping its own future has cancelled the request.
            ControlRequest::Cancel { .. } => Ok(ControlReply::Done),
            ControlRequest::Nodes(query) => {
                self.list(&query).await.map(ControlReply::Nodes).map_err(invalid_query)
            }
            ControlRequest::Actors(query) => {
                self.list(&query).await.map(ControlReply::Actors).map_err(invalid_query)
            }
            ControlRequest::HostStatus { host } => {
                Ok(ControlReply::End(self.read(|state| state.host_end(host))))
            }
            ControlRequest::WatchNode { node } => {
                self.ask(|ticket| ControlEvent::WatchNode { ticket, node }).await
            }
            ControlRequest::WatchJob { job } => {
                self.ask(|ticket| ControlEvent::WatchJob { ticket, job }).await
            }
            ControlRequest::WatchActor { actor } => {
                let reply = Arc::clone(&self).ask(|ticket| ControlEvent::WatchActor { ticket, actor }).await;
                self.end_when_durable(reply).await
            }
            ControlRequest::Kill { actor } => {
                self.kill(actor, |ticket| ControlEvent::Kill { ticket, actor }).await
            }
            ControlRequest::CheckHolders { copies } => {
                self.start_holder().await?;
                self.ask(|ticket| ControlEvent::CheckHolders { ticket, copies }).await
            }
            ControlRequest::ProposeHolders(request) => {
                self.start_holder().await?;
                let propose = |ticket| ControlEvent::ProposeHolders { ticket, request };
                let reply = Arc::clone(&self).ask(propose).await?;
                self.persisted().await.map(|()| reply)
            }
            ControlRequest::ActivateHolders { actor, incarnation, number } => {
                let activate = |ticket| ControlEvent::ActivateHolders { ticket, actor, incarnation, number };
                let reply = Arc::clone(&self).ask(activate).await?;
                self.persisted().await.map(|()| reply)
            }
            ControlRequest::SpawnFailed { actor, why } => {
                let cause = format!("it was not spawned: {why}");
                self.apply(ControlEvent::SpawnCancelled { actor, cause });
                Ok(ControlReply::Done)
            }
            ControlRequest::SpawnGivenUp { actor } => {
                self.apply(ControlEvent::SpawnGivenUp { actor });
                Ok(ControlReply::Done)
            }
        }
    }
}

impl ControlPlane {
    /// Starts the holder of a local cluster, unless it runs. Agents have started those of other clusters.
    async fn start_holder(&self) -> Result<(), ControlError> {
        let Some(start) = self.holder.get() else { return Ok(()) };
        let (node, holder) = start().await.map_err(ControlError::Infeasible)?;
        self.apply(ControlEvent::HolderStarted { node, holder });
        Ok(())
    }

    /// Answers a query slice by slice; other requests get the lock in between.
    pub(super) async fn list<T: Listed>(&self, query: &Query) -> Result<Page<T>, QueryError> {
        let mut search = Search::new(query)?;
        loop {
            let is_done = self.read(|state| search.step(state));
            search.fit_reply();
            if is_done {
                return Ok(search.page());
            }
            // Lets other tasks take the lock before the next slice.
            tokio::task::yield_now().await;
        }
    }

    /// Namespace of a job: the one its driver chose, or one of its own.
    fn namespace_of(&self, job: JobId) -> String {
        let chosen =
            self.read(|state| state.job_descriptor(job).map(|descriptor| descriptor.namespace.clone()));
        chosen.filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| format!("job-{job}"))
    }
}

fn invalid_query(error: QueryError) -> ControlError {
    ControlError::Unknown(error.to_string())
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").finish_non_exhaustive()
    }
}

/// Checks that a member may send a request.
///
/// A member acts for its own job only. Any member may end an actor, as any may send messages to it.
fn check_sender(state: &ClusterState, from: HostUid, request: &ControlRequest) -> Result<(), ControlError> {
    let job = match request {
        ControlRequest::Place { job, .. } | ControlRequest::Find { job, .. } => *job,
        // An unknown actor holds nothing that could be released.
        ControlRequest::SpawnFailed { actor, .. } | ControlRequest::SpawnGivenUp { actor } => {
            match state.job_of_actor(*actor) {
                Some(job) => job,
                None => return Ok(()),
            }
        }
        ControlRequest::Cancel { .. }
        | ControlRequest::Kill { .. }
        | ControlRequest::CheckHolders { .. }
        | ControlRequest::ProposeHolders(_)
        | ControlRequest::ActivateHolders { .. }
        | ControlRequest::Locate { .. }
        | ControlRequest::Nodes(_)
        | ControlRequest::Actors(_)
        | ControlRequest::WatchNode { .. }
        | ControlRequest::WatchJob { .. }
        | ControlRequest::WatchActor { .. }
        | ControlRequest::HostStatus { .. } => return Ok(()),
    };
    match state.may_speak_for(from, job) {
        true => Ok(()),
        false => {
            Err(ControlError::Unknown(format!("host {} is of no worker or driver of job {job}", from.host)))
        }
    }
}

/// Pending request; dropped before the reply was received, it cancels the request.
struct ReplyGuard {
    control: Arc<ControlPlane>,
    ticket: Ticket,
    reply: oneshot::Receiver<Result<ControlReply, ControlError>>,
    received: bool,
}

impl Drop for ReplyGuard {
    fn drop(&mut self) {
        if self.received {
            return;
        }
        // Replies are sent under this lock, so from here on either a reply is in the channel, or none will
        // come.
        let mut inner = self.control.lock();
        inner.reply_channels.remove(&self.ticket);
        let event = match self.reply.try_recv() {
            Ok(reply) => reclaim(Some(reply)),
            Err(_) => Some(ControlEvent::Cancelled { ticket: self.ticket }),
        };
        if let Some(event) = event {
            self.control.handle(&mut inner, event);
        }
    }
}

/// Event that releases the assignment in a reply that nothing received.
fn reclaim(reply: Option<Result<ControlReply, ControlError>>) -> Option<ControlEvent> {
    let actor = assigned_actor(&reply?.ok()?)?;
    Some(ControlEvent::SpawnCancelled { actor, cause: REQUESTER_GONE.to_owned() })
}

/// Milliseconds since 1970 that never go back, even if the system clock is set back.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
    epoch: Duration,
}

impl Clock {
    fn new() -> Self {
        Self { started: Instant::now(), epoch: unix_time() }
    }

    fn now(&self) -> Millis {
        // `Instant` never goes back, unlike the system clock, which is read once. Tokio's can be paused by tests.
        let since = self.epoch + self.started.elapsed();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Path from this process to the control plane of its cluster.
#[derive(Clone, Debug)]
pub(super) enum HeadHandle {
    /// Control plane in this process.
    Local(Arc<ControlPlane>),
    /// Control plane of another host.
    Remote(HostUid),
}

impl HeadHandle {
    /// Checks for another incarnation of the head, or another head.
    pub(super) fn differs_from(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Remote(now), Self::Remote(before)) => now != before,
            _ => false,
        }
    }

    /// Sends a request.
    pub(super) async fn ask(self, host: Host, request: ControlRequest) -> Result<ControlResult, SendError> {
        match self {
            Self::Local(control) => Ok(control.request(request, None).await),
            Self::Remote(head) => match request {
                // Only a placement holds something that a cancellation would leak.
                ControlRequest::Place { number, .. } => PlacementCall::new(head, host, number, request).await,
                request => call_host(&host, head, CONTROL, request, None).await,
            },
        }
    }
}
