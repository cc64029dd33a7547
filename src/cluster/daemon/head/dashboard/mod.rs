//! Dashboard of the head: a web server with a page, REST, an event stream, history and metrics.
//!
//! The dashboard has a thread and an actix system of its own. It reaches the head only by admin requests, through
//! [`ClusterSource`], and agents by the token RPC, as the command does. It owns its listener, its sessions and its
//! history file. Leases, heartbeats and placements never wait for it: the head makes a list slice by slice, and
//! connections, requests and stream clients are bounded.
//!
//! ```text
//!  browser ──▶ guard: host, origin, log-in, limits ──▶ routes ──▶ ClusterSource ──▶ Head::reply
//!     ▲                                                  │                    └───▶ agents (logs)
//!     └── events ◀── Broadcaster ◀── sampler ──▶ History ┘──▶ dashboard.redb
//! ```

mod access;
mod guard;
mod history;
mod metrics;
mod reply;
mod routes;
mod server;
mod source;
mod stream;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;

use super::Head;
use crate::cluster::daemon::options::DashboardOptions;
use crate::cluster::security::CertificateRequest;
use crate::transport::Credentials;

use access::{Access, AllowedHosts};
use server::{Shared, Web};
use source::HeadSource;

/// Time limit for the thread of the dashboard to write its history and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Reason that no dashboard is served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(super) enum DashboardError {
    /// The address cannot be listened at.
    #[error(
        "the dashboard cannot listen at {address}: {error}; stop what listens there, or give another \
         --dashboard-port or --dashboard-host, or --include-dashboard 0"
    )]
    Bind {
        /// Address of the dashboard.
        address: SocketAddr,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The cluster's authority issued no certificate.
    #[error(
        "the dashboard has no certificate: {0}; give --include-dashboard 0, or a loopback --dashboard-host"
    )]
    Certificate(String),
    /// The thread of the dashboard cannot be started.
    #[error(
        "the dashboard's thread cannot start: {0}; raise the limit of processes, or give --include-dashboard 0"
    )]
    Thread(io::Error),
}

/// Dashboard that is served.
pub(super) struct Dashboard {
    access: Arc<Access>,
    /// Scheme, host and port of its links.
    url: String,
    thread: Mutex<Option<DashboardThread>>,
}

struct DashboardThread {
    stop: oneshot::Sender<()>,
    handle: JoinHandle<()>,
}

impl Dashboard {
    /// Binds the dashboard's address, and serves it on a thread of its own.
    ///
    /// # Errors
    ///
    /// [`DashboardError`] if the address is taken, or there is no certificate or thread.
    pub(super) fn start(
        head: &Arc<Head>,
        options: &DashboardOptions,
        state_dir: &Path,
    ) -> Result<Self, DashboardError> {
        let address = SocketAddr::new(options.host, options.port);
        let bind_failed = |error| DashboardError::Bind { address, error };
        let listener = TcpListener::bind(address).map_err(bind_failed)?;
        let bound = listener.local_addr().map_err(bind_failed)?;
        let credentials = match options.host.is_loopback() {
            true => None,
            false => Some(certify(head, options)?),
        };
        let access = Arc::new(Access::new(&head.authority.token().to_string()));
        let names = options.names.iter().map(String::as_str).chain([options.link_host.as_str()]);
        let hosts = AllowedHosts::new(bound, names, credentials.is_some());
        let source = Arc::new(HeadSource::of(head));
        let shared = Shared::new(source, Arc::clone(&access), hosts, bound.port());
        if let Some(credentials) = &credentials {
            tokio::spawn(renew_loop(Arc::downgrade(head), options.clone(), credentials.clone()));
        }
        let scheme = if credentials.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}:{}", in_url(&options.link_host), bound.port());
        let (stop, stopped) = oneshot::channel();
        let web = Web { listener, credentials, shared, history: history::path(state_dir) };
        let handle = thread::Builder::new()
            .name("dashboard".to_owned())
            .spawn(move || server::run(web, stopped))
            .map_err(DashboardError::Thread)?;
        Ok(Self { access, url, thread: Mutex::new(Some(DashboardThread { stop, handle })) })
    }

    /// Makes a link that logs one browser in.
    pub(super) fn link(&self) -> String {
        format!("{}/login?ticket={}", self.url, self.access.ticket(Instant::now()))
    }

    /// Ends the thread, and waits until it has written its history.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the thread to end by itself.
    pub(super) async fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(DashboardThread { stop, handle }) = thread else { return };
        // Fails only for a thread that has ended already.
        let _ = stop.send(());
        let ended = tokio::task::spawn_blocking(move || handle.join());
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!(
                "the dashboard did not end in time, and may have lost the last minute of its history"
            );
        }
    }
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Host as a URL has it: addresses of IPv6 in brackets.
fn in_url(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Issues a certificate for the names of the dashboard.
fn certify(head: &Head, options: &DashboardOptions) -> Result<Credentials, DashboardError> {
    let failed = |error: &dyn fmt::Display| DashboardError::Certificate(error.to_string());
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), options.link_host.clone()];
    names.extend(options.names.iter().cloned());
    names.sort_unstable();
    names.dedup();
    let request = CertificateRequest::new().map_err(|error| failed(&error))?;
    let chain = head.authority.issue_web(request.csr(), &names).map_err(|error| failed(&error))?;
    request.credentials(chain).map_err(|error| failed(&error))
}

/// Renews the certificate of the dashboard, long before it expires.
async fn renew_loop(head: std::sync::Weak<Head>, options: DashboardOptions, credentials: Credentials) {
    loop {
        credentials.wait_for_renewal().await;
        let Some(head) = head.upgrade() else { return };
        let renewed = certify(&head, &options).map_err(|error| error.to_string());
        if let Err(error) = renewed.and_then(|fresh| credentials.renew(&fresh).map_err(|it| it.to_string())) {
            tracing::error!(error, "cannot renew the dashboard's certificate");
        }
    }
}

#[cfg(test)]
mod tests;
