//! Changes of a job's workers, told to all of its workers: many changes in one message.
//!
//! A message for each pair of workers would be quadratic: a thousand workers would cost a million messages.
//! Changes are gathered for a time that grows with the number of workers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::Shared;
use crate::cluster::model::WorkerAddress;
use crate::cluster::protocol::MEMBERSHIP;
use crate::cluster::protocol::MembershipUpdate;
use crate::lock::Mutex;
use crate::observe::log;
use crate::remote::{SharedArgs as Encoded, ask_host_shared};

/// Time for which changes are gathered: the least, and what each worker adds.
const GATHER: Duration = Duration::from_millis(5);
const GATHER_PER_WORKER: Duration = Duration::from_micros(500);

/// Changes that the workers have not been told of.
#[derive(Debug, Default)]
pub(super) struct Spread {
    changes: Mutex<Vec<MembershipUpdate>>,
    more: Notify,
}

impl Spread {
    /// Adds a change, which this process has taken up.
    pub(super) fn add(&self, change: MembershipUpdate) {
        self.changes.lock().push(change);
        self.more.notify_one();
    }

    fn take(&self) -> Vec<MembershipUpdate> {
        std::mem::take(&mut *self.changes.lock())
    }
}

/// Tells the workers of changes, as long as there is a cluster.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.spread.more.notified().await;
        tokio::time::sleep(gather(shared.members.list().len())).await;
        let changes = shared.spread.take();
        let (shared, workers) = (Arc::clone(&shared), shared.members.list());
        // A worker that is stopped answers late, and delays no other.
        tokio::spawn(async move { tell_all(&shared, workers, &MembershipUpdate::Several(changes)).await });
    }
}

/// Tells workers of a change, which is encoded once for all of them.
pub(super) async fn tell_all(shared: &Arc<Shared>, workers: Vec<WorkerAddress>, change: &MembershipUpdate) {
    let encoded = match Encoded::new(change, shared.host.limits().frame_bytes_max) {
        Ok(encoded) => encoded,
        Err(error) => return log::warn!(%error, "the workers cannot be told of a change"),
    };
    join_all(workers.into_iter().map(|member| tell(shared, member, encoded.clone()))).await;
}

fn gather(workers: usize) -> Duration {
    GATHER + GATHER_PER_WORKER * u32::try_from(workers).unwrap_or(u32::MAX)
}

/// Tells both hosts of a worker. The user's host calls them, on a thread that may compute: nothing waits for it.
async fn tell(shared: &Arc<Shared>, member: WorkerAddress, change: Encoded) {
    let told = [member.actors, member.tasks].map(|to| {
        let change = change.clone();
        async move {
            let told: Result<(), _> = ask_host_shared(&shared.host, to, MEMBERSHIP, change).await;
            if let Err(error) = told {
                log::debug!(%to, %error, "a worker was not told of a change");
            }
        }
    });
    join_all(told).await;
}
