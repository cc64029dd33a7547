//! Lists, as an operator asks for them: a page, all pages, or what a text may mean.

use super::client::{Admin, AdminError, AdminTransport};
use super::request::{AdminReply, AdminRequest};
use crate::cluster::listing::{Filter, Page, Query, Row, joined};
use crate::cluster::model::{ActorInfo, JobInfo, NodeInfo, TaskInfo, WorkerSummary};

/// A row that a head lists.
pub trait AdminRow: Row + Send {
    /// The page in a reply, if it is one of these rows.
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
    NodeInfo => Nodes, JobInfo => Jobs, ActorInfo => Actors, WorkerSummary => Workers, TaskInfo => Tasks
}

impl<E: AdminTransport> Admin<E> {
    /// A part of a table, in the order of its list.
    ///
    /// # Errors
    ///
    /// [`AdminError`] as the desk says, or if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// The connection is of no use after a dropped future: connect anew.
    pub async fn page<T: AdminRow>(&mut self, query: Query) -> Result<Page<T>, AdminError> {
        let reply = self.ask(AdminRequest::List { of: T::KIND, query }).await?;
        T::page(reply).ok_or(AdminError::UnexpectedReply { asked: "a list" })
    }

    /// All rows that pass filters, page by page, in the order in which people read them.
    ///
    /// # Errors
    ///
    /// [`AdminError`] as the desk says, or if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// The connection is of no use after a dropped future: connect anew.
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

    /// The rows that may be meant by a text: an id, the beginning of ids, or a name. Of many that begin so it
    /// is some.
    ///
    /// # Errors
    ///
    /// [`AdminError`] as the desk says, or if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// The connection is of no use after a dropped future: connect anew.
    pub async fn meant<T: AdminRow>(&mut self, text: &str) -> Result<Vec<T>, AdminError> {
        Ok(joined(self.page(Query::called(text)).await?.rows))
    }

    /// The row of a complete id, if there is one.
    ///
    /// # Errors
    ///
    /// [`AdminError`] as the desk says, or if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// The connection is of no use after a dropped future: connect anew.
    pub async fn row<T: AdminRow>(
        &mut self,
        id: impl ToString,
        key: T::Key,
    ) -> Result<Option<T>, AdminError> {
        Ok(self.meant::<T>(&id.to_string()).await?.into_iter().find(|row| row.key() == key))
    }
}
