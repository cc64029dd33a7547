//! The dashboard's way to the head and the agents: admin requests, in process or over the token RPC.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use tokio::task::JoinHandle;

use crate::cluster::admin::{
    Admin, AdminEndpoint, AdminError, AdminReply, AdminRequest, AdminTransport, TokenRpcClient,
};
use crate::cluster::control_service::TableVersions;
use crate::cluster::daemon::head::Head;

/// Process that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Head,
    /// Agent of the node at this address.
    Agent(SocketAddr),
}

/// Future of a reply.
pub(super) type Answer = Pin<Box<dyn Future<Output = Result<AdminReply, AdminError>> + Send>>;

/// Cluster as the dashboard sees it; tests fake it.
pub(super) trait ClusterSource: Send + Sync {
    /// Sends an admin request.
    fn ask(&self, to: Destination, request: AdminRequest) -> Answer;

    /// Versions of the head's tables.
    fn versions(&self) -> TableVersions;

    /// Time of the head's clock, in milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// Head of this process, and the agents of its cluster.
#[derive(Debug)]
pub(super) struct HeadSource(Weak<Head>);

impl HeadSource {
    /// Source that does not keep the head alive: the head's store flushes when the head is dropped.
    pub(super) fn of(head: &Arc<Head>) -> Self {
        Self(Arc::downgrade(head))
    }
}

impl ClusterSource for HeadSource {
    fn ask(&self, to: Destination, request: AdminRequest) -> Answer {
        let head = self.0.upgrade();
        Box::pin(async move {
            let head = head.ok_or_else(|| AdminError::Lost { why: "the head is ending".to_owned() })?;
            match to {
                Destination::Head => {
                    // On the head's thread, as the request of an operator: a list yields to heartbeats after each
                    // slice. From this thread it would take the lock again before a waiting heartbeat gets it.
                    let is_scan = matches!(
                        request,
                        AdminRequest::List { .. } | AdminRequest::Classes | AdminRequest::Functions { .. }
                    );
                    let io = head.host.io().clone();
                    let mut task =
                        HeadTask { is_scan, handle: io.spawn(async move { head.reply(request).await }) };
                    (&mut task.handle).await.map_err(|error| AdminError::Lost { why: error.to_string() })
                }
                Destination::Agent(address) => {
                    let token = head.authority.token().to_string();
                    drop(head);
                    // A connection for each request: logs are read about once a second, and a kept connection
                    // would have to be watched for its node's end.
                    let agent =
                        Admin::<TokenRpcClient>::connect(AdminEndpoint::Agent, address, &token).await?;
                    agent.into_transport().exchange(request).await
                }
            }
        })
    }

    fn versions(&self) -> TableVersions {
        self.0.upgrade().map_or_else(TableVersions::default, |head| head.control.versions())
    }

    fn now_ms(&self) -> u64 {
        self.0.upgrade().map_or(0, |head| head.control.now_ms())
    }
}

/// Request that runs on the head's thread.
struct HeadTask {
    /// The request only reads. It ends with its caller, such as a browser that has left the page.
    is_scan: bool,
    handle: JoinHandle<AdminReply>,
}

impl Drop for HeadTask {
    fn drop(&mut self) {
        if self.is_scan {
            self.handle.abort();
        }
    }
}

/// Transport of the admin client over a source.
pub(super) struct SourceTransport {
    source: Arc<dyn ClusterSource>,
    to: Destination,
}

/// Admin client of the head or an agent.
pub(super) fn admin(source: &Arc<dyn ClusterSource>, to: Destination) -> Admin<SourceTransport> {
    Admin::new(SourceTransport { source: Arc::clone(source), to })
}

impl AdminTransport for SourceTransport {
    async fn exchange(&mut self, request: AdminRequest) -> Result<AdminReply, AdminError> {
        self.source.ask(self.to, request).await
    }
}
