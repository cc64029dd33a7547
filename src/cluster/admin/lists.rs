//! List requests of the admin client: one page, all pages, or the rows that match a name.

use super::client::{Admin, AdminError, AdminTransport};
use super::request::{AdminReply, AdminRequest};
use crate::cluster::listing::{Filter, Page, Query, Row, joined};
use crate::cluster::model::{ActorInfo, EventInfo, JobInfo, MessageInfo, NodeInfo, TaskInfo, WorkerSummary};

/// Row type of a list that the head serves.
pub trait AdminRow: Row + Send {
    /// Returns the page in a reply, if the reply holds rows of this type.
    fn page(reply: AdminReply) -> Option<Page<Self>>;
}

macro_rules! rows {
    ($($row:ty => $reply:ident),*) => {
        $(
            impl AdminRow for $row {
                fn page(reply: AdminReply) -> Option<Page<Self>> {
                    match reply {
                        AdminReply::$reply(page) => Some(page),
                        _ => None,
                    }
                }
            }
        )*
    };
}

rows! {
    NodeInfo => Nodes, JobInfo => Jobs, ActorInfo => Actors, WorkerSummary => Workers, TaskInfo => Tasks,
    MessageInfo => Messages, EventInfo => Events
}

impl<E: AdminTransport> Admin<E> {
    /// Requests one page of a list, in the order of that list.
    ///
    /// # Errors
    ///
    /// [`AdminError`] from the server, or if no reply arrives.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection together with the future, and connect again.
    pub async fn page<T: AdminRow>(&mut self, query: Query) -> Result<Page<T>, AdminError> {
        let reply = self.ask(AdminRequest::List { of: T::KIND, query }).await?;
        T::page(reply).ok_or(AdminError::UnexpectedReply { asked: "a list" })
    }

    /// Requests all rows that pass the filters, page by page, in display order.
    ///
    /// # Errors
    ///
    /// [`AdminError`] from the server, or if no reply arrives.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection together with the future, and connect again.
    pub async fn all<T: AdminRow>(&mut self, filters: Vec<Filter>) -> Result<Vec<T>, AdminError> {
        let (mut rows, mut query) = (Vec::new(), Query::filtered(filters));
        loop {
            let page = self.page::<T>(query.clone()).await?;
            rows.extend(page.rows);
            query.after = page.next;
            if query.after.is_none() {
                return Ok(joined(rows));
            }
        }
    }

    /// Requests the rows that match a text: an id, a prefix of an id, or a name. A prefix of many ids returns only
    /// the first page of them.
    ///
    /// # Errors
    ///
    /// [`AdminError`] from the server, or if no reply arrives.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection together with the future, and connect again.
    pub async fn meant<T: AdminRow>(&mut self, text: &str) -> Result<Vec<T>, AdminError> {
        Ok(joined(self.page(Query::called(text)).await?.rows))
    }

    /// Requests the row of a complete id, if it exists.
    ///
    /// # Errors
    ///
    /// [`AdminError`] from the server, or if no reply arrives.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: drop the connection together with the future, and connect again.
    pub async fn row<T: AdminRow>(
        &mut self,
        id: impl ToString,
        key: T::Key,
    ) -> Result<Option<T>, AdminError> {
        Ok(self.meant::<T>(&id.to_string()).await?.into_iter().find(|row| row.key() == key))
    }
}
