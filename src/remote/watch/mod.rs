//! Watches: the end of an actor, a node or a job, told once to those who wait for it; and links of actors.
//!
//! ```text
//!   watcher's host                              host of the actor
//!     Watch --> task on the I/O runtime --call--> serve_watch: open until the actor ends
//!                 |  <------- End --------------
//!                 |  the call fails: what does the cluster know of the host?
//!                 '---> Placement::host_status: Ended(End), or call again
//! ```
//! The call is open for as long as the watch, holds no credit, and outlives broken links as any call does.

mod link;
mod lookup;
mod running;
mod serve;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix::{Addr, Handler, Message};

use super::addr::RemoteAddr;
use super::cluster_ref::ClusterRef;
use crate::background;
use crate::host::{Host, SendError, Watched};
use crate::registry::{Attachment, ControlMessage, RemoteActor};
use crate::spec::{ActorLocation, End, EndReason, JobId, NodeId};
use running::Running;

pub(super) use link::{LINK, serve_link};
pub(super) use serve::{WATCH, serve_watch};

/// End of a watched actor.
///
/// It is the output of a [`Watch`], and the message that a watching actor handles.
#[derive(Clone, Debug, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Terminated {
    /// Actor that has ended.
    pub actor: ActorLocation,
    /// Reason and explanation.
    pub end: End,
}

impl Terminated {
    /// True if the address is that of the actor.
    #[must_use]
    pub fn is<A: RemoteActor>(&self, addr: &RemoteAddr<A>) -> bool {
        let (watched, actor) = (self.actor.target.actor, addr.address().location.target.actor);
        match watched.managed_number() {
            Some(_) => watched == actor,
            None => addr.address().location == self.actor,
        }
    }
}

impl ClusterRef {
    /// Watches an actor, which may have ended already.
    ///
    /// An actor with a [`Restart`](crate::Restart) policy ends when it is not restarted any more.
    ///
    /// The watch begins with the first poll of the future, or with [`Watch::notify`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the watch, at the actor's host as well.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("../counter_example.txt")]
    /// use roadshow::EndReason;
    ///
    /// let counter = cluster.spawn::<Counter>(40).await?;
    /// let watch = cluster.watch(&counter);
    /// counter.stop().await?;
    /// let terminated = watch.await;
    /// assert!(terminated.is(&counter));
    /// assert_eq!(terminated.end.reason, EndReason::Killed);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch<A: RemoteActor>(&self, addr: &RemoteAddr<A>) -> Watch {
        Watch { host: self.host.clone(), actor: addr.address().location, running: None }
    }

    /// Links two actors: when either ends, the other is stopped with the reason [`EndReason::Linked`].
    ///
    /// The hosts of the two actors keep the link, so the process that calls this may end. If one of the actors
    /// has ended already, the other is stopped. A second link of the same actors has no effect.
    ///
    /// An actor with a [`Restart`](crate::Restart) policy ends when it is not restarted any more. After a restart it is no
    /// longer stopped at the end of the other one.
    ///
    /// # Errors
    ///
    /// [`SendError`] if a host did not confirm its half. The other half may exist: then only one of the actors
    /// is stopped at the end of the other.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped after its first poll, the link may exist, or a half of it.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("../counter_example.txt")]
    /// use roadshow::EndReason;
    ///
    /// let one = cluster.spawn::<Counter>(1).await?;
    /// let other = cluster.spawn::<Counter>(2).await?;
    /// cluster.link(&one, &other).await?;
    /// one.stop().await?;
    /// assert_eq!(cluster.watch(&other).await.end.reason, EndReason::Linked);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn link<A: RemoteActor, B: RemoteActor>(
        &self,
        one: &RemoteAddr<A>,
        other: &RemoteAddr<B>,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<A, B> {
        let ends =
            [(one.address().present(), one.to_string()), (other.address().present(), other.to_string())];
        link::link(self.host.clone(), ends)
    }

    /// Waits for the end of a node, which may be gone already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the watch.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("../counter_example.txt")]
    /// use std::time::Duration;
    ///
    /// let nodes = cluster.nodes().await?;
    /// let end = cluster.watch_node(nodes[0].node_id);
    /// // A local cluster is a node that ends with its driver.
    /// assert!(tokio::time::timeout(Duration::from_millis(1), end).await.is_err());
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch_node(&self, node: NodeId) -> impl Future<Output = End> + Send + use<> {
        watch_object(self.host.clone(), Watched::Node(node))
    }

    /// Waits for the end of a job, which may be over already.
    ///
    /// A job that succeeds ends with the reason [`EndReason::Stopped`], one that is stopped with
    /// [`EndReason::Killed`], and one that fails with [`EndReason::Exited`] or, if it has no exit code,
    /// [`EndReason::JobEnded`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the watch.
    pub fn watch_job(&self, job: JobId) -> impl Future<Output = End> + Send + use<> {
        watch_object(self.host.clone(), Watched::Job(job))
    }
}

async fn watch_object(host: Host, watched: Watched) -> End {
    let watching = match host.placement() {
        Some(placement) => placement.watch(&host, watched),
        None => return End::new(EndReason::Unknown, "this process belongs to no cluster"),
    };
    Running::start(&host, watching).await
}

/// Watch of an actor; resolves to its [`Terminated`].
///
/// Returned by [`ClusterRef::watch`]. It resolves once, when the actor has ended, for whatever cause: a panic,
/// a stop, the end of its worker or of its node. If this process leaves the cluster first, it resolves with
/// [`EndReason::JobEnded`].
///
/// # Cancel safety
///
/// Dropping it ends the watch.
#[must_use = "a watch begins when it is polled, or with `notify`"]
pub struct Watch {
    host: Host,
    actor: ActorLocation,
    running: Option<Running>,
}

impl Watch {
    /// Delivers the [`Terminated`] to an actor of this process, once.
    ///
    /// The watch does not keep that actor alive, and ends with it. It does not depend on the actor's thread: if
    /// that computes, the message waits in the mailbox.
    ///
    /// # Examples
    ///
    /// ```
    #[doc = include_str!("../counter_example.txt")]
    /// use roadshow::{EndReason, Terminated};
    ///
    /// #[derive(RemoteActor)]
    /// #[remote(local, handles())]
    /// struct Watcher(ClusterRef, RemoteAddr<Counter>, tokio::sync::mpsc::Sender<EndReason>);
    ///
    /// impl Actor for Watcher {
    ///     type Context = Context<Self>;
    ///     fn started(&mut self, ctx: &mut Context<Self>) {
    ///         self.0.watch(&self.1).notify(ctx.address());
    ///     }
    /// }
    ///
    /// impl Handler<Terminated> for Watcher {
    ///     type Result = ();
    ///     fn handle(&mut self, terminated: Terminated, _: &mut Context<Self>) {
    ///         assert!(terminated.is(&self.1));
    ///         let _ = self.2.try_send(terminated.end.reason);
    ///     }
    /// }
    ///
    /// let counter = cluster.spawn::<Counter>(40).await?;
    /// let (sender, mut reasons) = tokio::sync::mpsc::channel(1);
    /// let watcher = Watcher(cluster.handle(), counter.clone(), sender).start();
    /// counter.stop().await?;
    /// assert_eq!(reasons.recv().await, Some(EndReason::Killed));
    /// # drop(watcher);
    /// # cluster.shutdown().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn notify<A: RemoteActor + Handler<Terminated>>(self, watcher: Addr<A>) {
        let (weak, host, actor) = (watcher.downgrade(), self.host.clone(), self.actor);
        let running = self.running.unwrap_or_else(|| start(&host, actor));
        // Ends the task with the watching actor, and the attachment with the task.
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (attachment, release) = Attachment::new(move |_| drop(stop));
        background::spawn_on(host.io(), async move {
            tokio::select! {
                biased;
                end = running => if let Some(watcher) = weak.upgrade() {
                    watcher.do_send(Terminated { actor, end });
                },
                _ = stopped => {}
            }
            drop(release);
        });
        watcher.do_send(ControlMessage::Attach(attachment));
    }
}

fn start(host: &Host, actor: ActorLocation) -> Running {
    let watching = host.clone();
    Running::start(host, Box::pin(async move { lookup::end_of(&watching, actor).await }))
}

impl Future for Watch {
    type Output = Terminated;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Terminated> {
        let this = &mut *self;
        let running = this.running.get_or_insert_with(|| start(&this.host, this.actor));
        let actor = this.actor;
        Pin::new(running).poll(task).map(|end| Terminated { actor, end })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("actor", &self.actor).finish_non_exhaustive()
    }
}
