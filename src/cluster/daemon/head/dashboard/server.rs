//! Thread and actix system of the dashboard.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::{App, HttpServer, middleware, web};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::access::{Access, AllowedHosts};
use super::history::sampler::Observation;
use super::history::{History, HistoryFile};
use super::routes::logs::Downloads;
use super::source::ClusterSource;
use super::stream::Broadcaster;
use super::{guard, routes, stream};
use crate::config::{
    DASHBOARD_BODY_BYTES_MAX, DASHBOARD_CONNECTIONS_MAX, DASHBOARD_DOWNLOADS_MAX, DASHBOARD_KEEP_ALIVE,
    DASHBOARD_READ_TIMEOUT, DASHBOARD_REQUESTS_MAX,
};
use crate::transport::Credentials;

/// Threads that handle requests. Handlers wait for the head or the network, so one suffices.
const THREADS: usize = 1;

/// Connections that the kernel queues for the dashboard.
const BACKLOG: u32 = 128;

/// Threads for blocking work of requests; there is none.
const BLOCKING_THREADS: usize = 1;

/// State that all requests share.
pub(super) struct Shared {
    pub(super) source: Arc<dyn ClusterSource>,
    pub(super) access: Arc<Access>,
    pub(super) hosts: AllowedHosts,
    pub(super) is_tls: bool,
    /// Name of the session cookie. It has the port, since cookies of all ports of a host are one set.
    pub(super) cookie: String,
    pub(super) broadcaster: Broadcaster,
    history: Mutex<History>,
    observation: Mutex<Option<Arc<Observation>>>,
}

impl Shared {
    pub(super) fn new(
        source: Arc<dyn ClusterSource>,
        access: Arc<Access>,
        hosts: AllowedHosts,
        port: u16,
    ) -> Self {
        Self {
            source,
            access,
            is_tls: hosts.is_tls(),
            hosts,
            cookie: format!("roadshow-session-{port}"),
            broadcaster: Broadcaster::default(),
            history: Mutex::new(History::new()),
            observation: Mutex::new(None),
        }
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        // A panic within a sample leaves single points wrong, and no invariant broken.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Latest observation; `None` before the first.
    pub(super) fn observation(&self) -> Option<Arc<Observation>> {
        self.observation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the latest observation.
    pub(super) fn observe(&self, observation: Observation) {
        *self.observation.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(observation));
    }
}

/// Server that is to be run.
pub(super) struct Web {
    pub(super) listener: TcpListener,
    /// Certificate, if the server speaks TLS.
    pub(super) credentials: Option<Credentials>,
    pub(super) shared: Shared,
    /// Path of the history's file.
    pub(super) history: PathBuf,
}

/// Runs the server until `stopped` resolves.
pub(super) fn run(web: Web, stopped: oneshot::Receiver<()>) {
    let system = actix_rt::System::new();
    if let Err(error) = system.block_on(serve(web, stopped)) {
        tracing::error!(%error, "the dashboard has ended; restart the head to have it again");
    }
}

async fn serve(web: Web, stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let Web { listener, credentials, shared, history } = web;
    let (file, history) = HistoryFile::open(&history);
    *shared.history() = history;
    let (shared, file) = (web::Data::new(shared), file.map(Arc::new));
    let routes = limited_routes(&shared);
    let background = background(&shared, file.as_ref());
    let server =
        HttpServer::new(move || App::new().wrap(middleware::from_fn(guard::guard)).configure(routes.clone()))
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
    let outcome = tokio::select! {
        ended = server => ended,
        // The sender is dropped with the dashboard, so both results mean the end.
        _ = stopped => {
            handle.stop(false).await;
            Ok(())
        }
    };
    background.iter().for_each(JoinHandle::abort);
    if let Some(file) = file {
        stream::write(&file, &shared.history());
    }
    outcome
}

/// Routes with their limits and the state that they share.
fn limited_routes(shared: &web::Data<Shared>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + use<> {
    let shared = shared.clone();
    let requests = web::Data::new(Semaphore::new(DASHBOARD_REQUESTS_MAX));
    let downloads = web::Data::new(Downloads(Arc::new(Semaphore::new(DASHBOARD_DOWNLOADS_MAX))));
    move |config| {
        config
            .app_data(shared.clone())
            .app_data(requests.clone())
            .app_data(downloads.clone())
            .app_data(web::PayloadConfig::new(DASHBOARD_BODY_BYTES_MAX))
            .configure(routes::configure);
    }
}

/// Starts the samples, the events and the writes of the history.
fn background(shared: &web::Data<Shared>, file: Option<&Arc<HistoryFile>>) -> Vec<JoinHandle<()>> {
    let mut tasks = vec![
        actix_rt::spawn(stream::sample(shared.clone())),
        actix_rt::spawn(stream::watch_changes(shared.clone())),
        actix_rt::spawn(stream::keep_alive(shared.clone())),
    ];
    tasks.extend(file.map(|file| actix_rt::spawn(stream::flush(shared.clone(), Arc::clone(file)))));
    tasks
}
