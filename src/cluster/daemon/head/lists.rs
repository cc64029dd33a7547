//! Lists and counts of the head.
//!
//! Each search holds the lock of the state for a slice of the table, then yields. A list of a million actors must
//! not delay heartbeats and placements.

use super::Head;
use super::admin_service::failed;
use crate::cluster::admin::AdminReply;
use crate::cluster::control_plane::state::{ClassSearch, FunctionSearch};
use crate::cluster::listing::{GroupCounts, Kind, Page, Query, QueryError};
use crate::cluster::model::{ClassCount, NodeInfo, NodeState, TaskCount};

impl Head {
    pub(super) async fn list(&self, of: Kind, query: &Query) -> AdminReply {
        let control = &self.control;
        let listed = match of {
            Kind::Nodes => self.nodes(query).await.map(AdminReply::Nodes),
            Kind::Jobs => control.list(query).await.map(AdminReply::Jobs),
            Kind::Actors => control.list(query).await.map(AdminReply::Actors),
            Kind::Workers => control.list(query).await.map(AdminReply::Workers),
            Kind::Tasks => control.list(query).await.map(AdminReply::Tasks),
            Kind::Messages => control.list(query).await.map(AdminReply::Messages),
            Kind::Events => control.list(query).await.map(AdminReply::Events),
        };
        listed.unwrap_or_else(|error| failed(&error.to_string()))
    }

    async fn nodes(&self, query: &Query) -> Result<Page<NodeInfo>, QueryError> {
        let mut page = self.control.list::<NodeInfo>(query).await?;
        // The usage is not part of the state, since every heartbeat changes it.
        let outbox = self.core.outbox();
        for node in page.rows.iter_mut().filter(|node| node.state != NodeState::Dead) {
            node.usage = outbox.usage(node.node_id);
        }
        Ok(page)
    }

    pub(super) async fn classes(&self) -> GroupCounts<ClassCount> {
        let mut search = ClassSearch::default();
        while !self.control.read(|state| search.step(state)) {
            tokio::task::yield_now().await;
        }
        search.counts()
    }

    pub(super) async fn functions(&self, part: Option<String>) -> GroupCounts<TaskCount> {
        let mut search = FunctionSearch::new(part);
        while !self.control.read(|state| search.step(state)) {
            tokio::task::yield_now().await;
        }
        search.counts()
    }
}
