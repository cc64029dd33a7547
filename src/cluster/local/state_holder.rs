//! Holder of the states of a local cluster's durable actors, on a host of its own.
//!
//! The host starts with the first durable actor. It runs on the I/O thread, where the driver's own code does not delay
//! it, and listens on the loopback interface. The cluster's secret protects it, as it does the hosts of workers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::cluster::control_service::HolderStart;
use crate::cluster::holder::Holder;
use crate::config::Limits;
use crate::durable::protocol::STATE;
use crate::host::{Executor, Host, HostConfig, HostError, fresh_identity};
use crate::session::Secret;
use crate::spec::{HolderAddress, NodeId, StateKey};
use crate::transport::Transport;
use crate::wire::CallFailure;

/// Holder of a local cluster.
#[derive(Debug)]
pub(super) struct StateHolder {
    host: OnceCell<Host>,
    states: Arc<Holder>,
    settings: HolderSettings,
}

/// Settings of the holder's host.
#[derive(Clone, Debug)]
pub(super) struct HolderSettings {
    pub(super) secret: [u8; 32],
    pub(super) limits: Limits,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) io: Handle,
    /// The only node.
    pub(super) node: NodeId,
}

impl StateHolder {
    pub(super) fn new(settings: HolderSettings) -> Arc<Self> {
        Arc::new(Self { host: OnceCell::new(), states: Arc::new(Holder::new()), settings })
    }

    /// Start of the holder, for the control plane.
    pub(super) fn start(self: &Arc<Self>) -> HolderStart {
        let holder = Arc::downgrade(self);
        Box::new(move || {
            let holder = holder.upgrade();
            Box::pin(async move {
                let holder = holder.ok_or("the cluster is shutting down")?;
                let host = holder.host.get_or_try_init(|| holder.start_host()).await;
                let host = host.map_err(|error| format!("the holder of states cannot start: {error}"))?;
                let at = host.address().ok_or("the holder of states does not listen")?;
                let address = HolderAddress { holder: holder.states.id(), host: host.identity(), at };
                Ok((holder.settings.node, address))
            })
        })
    }

    async fn start_host(&self) -> Result<Host, HostError> {
        let HolderSettings { secret, limits, transport, io, .. } = self.settings.clone();
        let states = Arc::clone(&self.states);
        Host::start(HostConfig {
            identity: fresh_identity(),
            secret: Secret::from_bytes(secret),
            limits,
            transport,
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            io: io.clone(),
            executor: Executor::Runtime(io),
            services: Box::new(move |host, service, inbound| match service {
                STATE => states.serve(host, inbound),
                _ => inbound.fail(&CallFailure::Refused { text: "this host holds states".to_owned() }),
            }),
        })
        .await
    }

    /// Removes the state of an actor that has ended for good.
    pub(super) fn remove(&self, key: StateKey) {
        self.states.remove(key);
    }
}

impl Drop for StateHolder {
    fn drop(&mut self) {
        if let Some(host) = self.host.get() {
            host.abort();
        }
    }
}
