//! Tests of the dashboard over HTTP, with a fake cluster and a client that sends raw requests.

mod access;
mod client;
mod fake_cluster;
mod rest;
mod schema;
mod stream;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::access::{Access, AllowedHosts};
use super::server::{self, Shared, Web};
use crate::cluster::test_dir::TestDir;
use client::Client;
use fake_cluster::FakeCluster;

/// Token of the fake cluster.
const TOKEN: &str = "rs1_token";

/// Dashboard of a fake cluster, on a thread of its own until it is dropped.
struct TestDashboard {
    client: Client,
    cluster: Arc<FakeCluster>,
    access: Arc<Access>,
    dir: TestDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestDashboard {
    fn start() -> Self {
        Self::start_in(TestDir::new(), 1_800_000_000_000)
    }

    /// Starts a dashboard with the history in a directory, at a time of the head's clock.
    fn start_in(dir: TestDir, clock_ms: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (cluster, access) = (Arc::new(FakeCluster::at(clock_ms)), Arc::new(Access::new(TOKEN)));
        let hosts = AllowedHosts::new(address, ["10.0.0.5"], false);
        let source = Arc::clone(&cluster) as _;
        let shared = Shared::new(source, Arc::clone(&access), hosts, address.port());
        let (stop, stopped) = oneshot::channel();
        let history = super::history::path(dir.path());
        let web = Web { listener, credentials: None, shared, history };
        let thread = thread::spawn(move || server::run(web, stopped));
        let client = Client { address };
        Self { client, cluster, access, dir, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops the dashboard, and returns the directory of its history.
    fn stop(mut self) -> TestDir {
        self.end();
        std::mem::replace(&mut self.dir, TestDir::new())
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for TestDashboard {
    fn drop(&mut self) {
        self.end();
    }
}
