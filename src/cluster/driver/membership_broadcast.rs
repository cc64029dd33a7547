//! Broadcast of membership changes to all workers of a job, many changes in one message.
//!
//! One message for each pair of workers would be quadratic: a thousand workers would cost a million messages.
//! Changes are collected for a time that grows with the number of workers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::DriverShared;
use crate::background;
use crate::cluster::model::WorkerAddress;
use crate::cluster::protocol::MEMBERSHIP;
use crate::cluster::protocol::MembershipUpdate;
use crate::lock::Mutex;
use crate::observe::log;
use crate::remote::{SharedArgs as Encoded, ask_host_shared};

/// Least time for which changes are collected.
const COLLECT_MIN: Duration = Duration::from_millis(5);
/// Additional time for each worker, since the cost of a broadcast grows with their number.
const COLLECT_PER_WORKER: Duration = Duration::from_micros(500);

/// Changes that have not been sent to the workers.
#[derive(Debug, Default)]
pub(super) struct MembershipBroadcast {
    changes: Mutex<Vec<MembershipUpdate>>,
    more: Notify,
}

impl MembershipBroadcast {
    /// Queues a change that this process has applied.
    pub(super) fn add(&self, change: MembershipUpdate) {
        self.changes.lock().push(change);
        // `Notify` stores a permit if the broadcast task is busy, so a change is never left in the queue.
        self.more.notify_one();
    }

    fn take(&self) -> Vec<MembershipUpdate> {
        std::mem::take(&mut *self.changes.lock())
    }
}

/// Sends queued changes to the workers until it is aborted.
pub(super) async fn run(shared: Arc<DriverShared>) {
    loop {
        shared.broadcast.more.notified().await;
        // Changes that arrive during this pause join the same message.
        tokio::time::sleep(collect_time(shared.members.list().len())).await;
        let changes = shared.broadcast.take();
        let (shared, workers) = (Arc::clone(&shared), shared.members.list());
        // In a task of its own: a stopped worker answers late and must not delay the next broadcast.
        background::spawn(
            async move { send_to_all(&shared, workers, &MembershipUpdate::Several(changes)).await },
        );
    }
}

/// Sends a change to workers; it is encoded once for all of them.
pub(super) async fn send_to_all(
    shared: &Arc<DriverShared>,
    workers: Vec<WorkerAddress>,
    change: &MembershipUpdate,
) {
    let encoded = match Encoded::new(change, shared.host.limits().frame_bytes_max) {
        Ok(encoded) => encoded,
        Err(error) => return log::warn!(%error, "a membership change cannot be encoded; workers miss it"),
    };
    join_all(workers.into_iter().map(|member| send_to(shared, member, encoded.clone()))).await;
}

fn collect_time(workers: usize) -> Duration {
    COLLECT_MIN + COLLECT_PER_WORKER * u32::try_from(workers).unwrap_or(u32::MAX)
}

/// Sends a change to both hosts of a worker, from the user's host, whose links to the workers exist anyway.
async fn send_to(shared: &Arc<DriverShared>, member: WorkerAddress, change: Encoded) {
    let sent = [member.actors, member.tasks].map(|to| {
        let change = change.clone();
        async move {
            let sent: Result<(), _> = ask_host_shared(&shared.host, to, MEMBERSHIP, change).await;
            if let Err(error) = sent {
                log::debug!(%to, %error, "a worker did not receive a membership change");
            }
        }
    });
    join_all(sent).await;
}
