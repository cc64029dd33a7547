//! Thread and actix system of the dashboard.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, middleware, web};
use tokio::sync::{Semaphore, oneshot};

use super::access::{Access, AllowedHosts};
use super::source::ClusterSource;
use super::{guard, routes};
use crate::config::{
    DASHBOARD_BODY_BYTES_MAX, DASHBOARD_CONNECTIONS_MAX, DASHBOARD_KEEP_ALIVE, DASHBOARD_READ_TIMEOUT,
    DASHBOARD_REQUESTS_MAX,
};
use crate::transport::Credentials;

/// Threads that handle requests. Handlers wait for the head or the network, so one suffices.
const THREADS: usize = 1;

/// Connections that the kernel queues for the dashboard.
const BACKLOG: u32 = 128;

/// Threads for blocking work, which is the write of the history.
const BLOCKING_THREADS: usize = 1;

/// State that all requests share.
pub(super) struct Shared {
    pub(super) source: Arc<dyn ClusterSource>,
    pub(super) access: Arc<Access>,
    pub(super) hosts: AllowedHosts,
    pub(super) is_tls: bool,
    /// Name of the session cookie. It has the port, since cookies of all ports of a host are one set.
    pub(super) cookie: String,
}

/// Server that is to be run.
pub(super) struct Web {
    pub(super) listener: TcpListener,
    /// Certificate, if the server speaks TLS.
    pub(super) credentials: Option<Credentials>,
    pub(super) shared: Shared,
}

/// Runs the server until `stopped` resolves.
pub(super) fn run(web: Web, stopped: oneshot::Receiver<()>) {
    let system = actix_rt::System::new();
    if let Err(error) = system.block_on(serve(web, stopped)) {
        tracing::error!(%error, "the dashboard has ended; restart the head to have it again");
    }
}

async fn serve(web: Web, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let Web { listener, credentials, shared } = web;
    let shared = web::Data::new(shared);
    let requests = web::Data::new(Semaphore::new(DASHBOARD_REQUESTS_MAX));
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .app_data(requests.clone())
            .app_data(web::PayloadConfig::new(DASHBOARD_BODY_BYTES_MAX))
            .wrap(middleware::from_fn(guard::guard))
            .configure(routes::configure)
    };
    let server = HttpServer::new(app)
        .workers(THREADS)
        .worker_max_blocking_threads(BLOCKING_THREADS)
        .max_connections(DASHBOARD_CONNECTIONS_MAX)
        .backlog(BACKLOG)
        .client_request_timeout(DASHBOARD_READ_TIMEOUT)
        .client_disconnect_timeout(Duration::from_secs(1))
        .tls_handshake_timeout(DASHBOARD_READ_TIMEOUT)
        .keep_alive(DASHBOARD_KEEP_ALIVE)
        // The daemon handles signals.
        .disable_signals();
    let server = match credentials {
        Some(credentials) => server.listen_rustls_0_23(listener, credentials.web_server_config())?,
        None => server.listen(listener)?,
    };
    let server = server.run();
    let handle = server.handle();
    tokio::select! {
        ended = server => ended,
        // The sender is dropped with the dashboard, so both results mean the end.
        _ = stopped => {
            handle.stop(false).await;
            Ok(())
        }
    }
}
