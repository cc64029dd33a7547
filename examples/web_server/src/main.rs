//! A web server: axum answers HTTP, remote actors and tasks do the work.
//!
//! ```text
//! cargo run -- 127.0.0.1:3000
//! curl http://127.0.0.1:3000/square/12
//! curl -X POST http://127.0.0.1:3000/visits/home
//! ```
//!
//! All requests share the cluster as `Arc<Cluster>` on tokio's multi-threaded runtime. SIGINT and SIGTERM
//! end the server gracefully: it answers open requests and then shuts down the cluster. After
//! [`END_WITHIN`], or at a second signal, the server ends with an error, and its workers end with it.
//!
//! With the feature `otlp`, requests, handlers and tasks are exported as traces to an OpenTelemetry collector:
//!
//! ```text
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 cargo run --features otlp -- 127.0.0.1:3000
//! ```
//!
//! [`work`] runs in the workers, [`routes`] maps HTTP to it, and [`failure`] has the status of each error.

mod failure;
mod routes;
#[cfg(feature = "otlp")]
mod spans;
mod work;

use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use roadshow::Cluster;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::sleep;

use routes::App;
use work::Visits;

/// Time limit for open requests and the cluster's shutdown. A client that sends half a request would
/// otherwise block the end forever.
///
/// A request is answered within 2 s, and the cluster's shutdown takes at most as long.
const END_WITHIN: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    // Workers run this program and enter their loop here. The call comes first: a runtime started before it
    // would exist in every worker.
    roadshow::run_if_worker();
    #[cfg(feature = "otlp")]
    spans::subscribe();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(address));
    roadshow::observe::trace::flush();
    served
}

async fn serve(address: String) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    // Installed before the cluster starts: a signal during the start is kept, and ends the server
    // gracefully.
    let mut signals = Signals::new()?;
    let cluster = Arc::new(Cluster::init().await?);
    let visits = cluster.spawn::<Visits>(()).await?;
    let app = routes::routes(App { cluster: Arc::clone(&cluster), visits });
    #[cfg(feature = "otlp")]
    let app = app.route_layer(axum::middleware::from_fn(spans::of_request));

    println!("listening on http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) });
    let mut end = pin!(async {
        serving.await?;
        sole_owner(cluster).await.shutdown().await?;
        Ok::<_, Box<dyn Error>>(())
    });
    tokio::select! {
        ended = &mut end => return ended,
        // The dropped sender resolves the shutdown future of axum, which then accepts no further
        // connection.
        () = signals.next() => drop(stop),
    }
    tokio::select! {
        ended = end => ended,
        () = signals.next() => Err("a second signal has ended the server".into()),
        () = sleep(END_WITHIN) => Err(format!("the server did not end within {END_WITHIN:?}").into()),
    }
}

/// Signals that end the server.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Waits until no request shares the cluster. The last connection drops it only just after axum has
/// finished.
async fn sole_owner(mut cluster: Arc<Cluster>) -> Cluster {
    loop {
        match Arc::try_unwrap(cluster) {
            Ok(cluster) => return cluster,
            Err(shared) => cluster = shared,
        }
        tokio::task::yield_now().await;
    }
}
