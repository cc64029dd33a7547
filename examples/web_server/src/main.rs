//! A web server: axum answers HTTP, remote actors and tasks do the work.
//!
//! ```text
//! cargo run -- 127.0.0.1:3000
//! curl http://127.0.0.1:3000/square/12
//! curl -X POST http://127.0.0.1:3000/visits/home
//! ```
//!
//! The cluster is shared by all requests as `Arc<Cluster>`, on tokio's runtime with many threads. SIGINT and
//! SIGTERM end the server gracefully: open requests are answered, then the cluster shuts down.
//!
//! [`work`] is what runs in the workers, [`routes`] is what HTTP makes of it, [`failure`] has the status of each
//! error.

mod failure;
mod routes;
mod work;

use std::error::Error;
use std::sync::Arc;

use roadshow::Cluster;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use routes::App;
use work::Visits;

fn main() -> Result<(), Box<dyn Error>> {
    // Workers are processes of this program, and go no further. Nothing comes before, a runtime least of all.
    roadshow::divert();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(address))
}

async fn serve(address: String) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(address).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cluster = Arc::new(Cluster::init().await?);
    let visits = cluster.spawn::<Visits>(()).await?;
    let app = routes::routes(App { cluster: Arc::clone(&cluster), visits });

    println!("listening on http://{}", listener.local_addr()?);
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    sole_owner(cluster).await.shutdown().await?;
    Ok(())
}

/// The cluster, once no request has it any more. The last connection lets go of it just after axum is done.
async fn sole_owner(mut cluster: Arc<Cluster>) -> Cluster {
    loop {
        match Arc::try_unwrap(cluster) {
            Ok(cluster) => return cluster,
            Err(shared) => cluster = shared,
        }
        tokio::task::yield_now().await;
    }
}
