//! Samples of the cluster: the facts that one refresh reads from the head.

use roadshow::admin::{Admin, AdminError, AdminTransport, Alert, Filter, PendingActor, Query, joined};
use roadshow::internals::config::LIST_ROWS_MAX;
use roadshow::model::{ActorInfo, JobInfo, NodeInfo, TaskInfo, WorkerSummary};

use super::columns::{Facts, Field, Heading, Row, TopRow, convert, fields, headings};

/// Maximum number of rows of a table. The head counts the others.
///
/// A screen has about fifty. The rest is for sorting and for text filters, which see only these rows.
pub(super) const ROWS_MAX: usize = 500;

/// Table that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum View {
    Nodes,
    Jobs,
    Actors,
    Workers,
    Tasks,
}

impl View {
    pub(super) const ALL: [Self; 5] = [Self::Nodes, Self::Jobs, Self::Actors, Self::Workers, Self::Tasks];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Nodes => "Nodes",
            Self::Jobs => "Jobs",
            Self::Actors => "Actors",
            Self::Workers => "Workers",
            Self::Tasks => "Tasks",
        }
    }

    pub(super) fn index(self) -> usize {
        Self::ALL.iter().position(|view| *view == self).expect("ALL has every view")
    }
}

/// Selection of the next sample: a view, and the conditions that the head checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) view: View,
    pub(super) conditions: Vec<Filter>,
}

/// Facts of one refresh.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) wanted: Wanted,
    pub(super) summary: Summary,
    pub(super) rows: Rows,
    /// Number of matching rows that the head left out.
    pub(super) more: u64,
}

/// Counts for the header.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    /// First nodes of the list, and the number of the others.
    pub(super) nodes: Vec<NodeInfo>,
    pub(super) more_nodes: u64,
    pub(super) jobs_running: u64,
    pub(super) jobs_pending: u64,
    pub(super) actors: ActorCounts,
    pub(super) tasks: TaskCounts,
    /// Actors and tasks that have waited longest, and the number of all.
    pub(super) waiting: Vec<PendingActor>,
    pub(super) waiting_count: usize,
    pub(super) alerts: Vec<Alert>,
}

/// Actors of all classes, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ActorCounts {
    pub(super) alive: u64,
    pub(super) pending: u64,
    pub(super) restarting: u64,
    pub(super) dead: u64,
}

/// Tasks of all functions, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskCounts {
    pub(super) queued: u64,
    pub(super) running: u64,
    pub(super) finished: u64,
    pub(super) failed: u64,
}

/// Rows of the shown table.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    Nodes(Vec<NodeInfo>),
    Jobs(Vec<JobInfo>),
    Actors(Vec<ActorInfo>),
    Workers(Vec<WorkerSummary>),
    Tasks(Vec<TaskInfo>),
}

/// Runs an expression with the rows of any type.
macro_rules! with_rows {
    ($rows:expr, $name:ident => $result:expr) => {
        match $rows {
            Rows::Nodes($name) => $result,
            Rows::Jobs($name) => $result,
            Rows::Actors($name) => $result,
            Rows::Workers($name) => $result,
            Rows::Tasks($name) => $result,
        }
    };
}

impl Rows {
    pub(super) fn headings(&self) -> Vec<Heading> {
        fn of<T: TopRow>(_: &[T]) -> Vec<Heading> {
            headings::<T>()
        }
        with_rows!(self, rows => of(rows))
    }

    pub(super) fn converted(&self, facts: &Facts<'_>) -> Vec<Row> {
        with_rows!(self, rows => rows.iter().map(|row| convert(row, facts)).collect())
    }

    /// All fields of a row.
    ///
    /// They are made for one row alone: those of all rows would be most of the cost of a refresh.
    pub(super) fn fields(&self, key: &str) -> Option<Vec<Field>> {
        with_rows!(self, rows => rows.iter().find(|row| row.identity() == key).map(fields))
    }

    /// Counters of each row that has any.
    pub(super) fn counters(&self) -> Vec<(String, Vec<(&'static str, u64)>)> {
        fn of<T: TopRow>(rows: &[T]) -> Vec<(String, Vec<(&'static str, u64)>)> {
            let counters = rows.iter().map(|row| (row.identity(), row.counters()));
            counters.filter(|(_, counters)| !counters.is_empty()).collect()
        }
        with_rows!(self, rows => of(rows))
    }
}

/// Reads a sample, one request after the other.
pub(super) async fn take<E: AdminTransport>(
    head: &mut Admin<E>,
    wanted: &Wanted,
) -> Result<Sample, AdminError> {
    let summary = summary(head).await?;
    let (rows, more) = match wanted.view {
        View::Nodes => page(head, wanted, Rows::Nodes).await?,
        View::Jobs => page(head, wanted, Rows::Jobs).await?,
        View::Actors => page(head, wanted, Rows::Actors).await?,
        View::Workers => page(head, wanted, Rows::Workers).await?,
        View::Tasks => page(head, wanted, Rows::Tasks).await?,
    };
    Ok(Sample { wanted: wanted.clone(), summary, rows, more })
}

async fn page<T: TopRow, E: AdminTransport>(
    head: &mut Admin<E>,
    wanted: &Wanted,
    rows: fn(Vec<T>) -> Rows,
) -> Result<(Rows, u64), AdminError> {
    let query = Query { limit: ROWS_MAX, count: true, ..Query::filtered(wanted.conditions.clone()) };
    let page = head.page::<T>(query).await?;
    Ok((rows(joined(page.rows)), page.more.unwrap_or(0)))
}

async fn summary<E: AdminTransport>(head: &mut Admin<E>) -> Result<Summary, AdminError> {
    let query = Query { limit: LIST_ROWS_MAX, count: true, ..Query::default() };
    let nodes = head.page::<NodeInfo>(query).await?;
    let (jobs_running, jobs_pending) = (jobs_in(head, "RUNNING").await?, jobs_in(head, "PENDING").await?);
    let mut actors = ActorCounts::default();
    for class in head.classes().await?.rows {
        actors.alive += class.alive;
        actors.pending += class.pending_creation;
        actors.restarting += class.restarting;
        actors.dead += class.dead;
    }
    let mut tasks = TaskCounts::default();
    for function in head.functions(None).await?.rows {
        tasks.queued += function.queued;
        tasks.running += function.running;
        tasks.finished += function.finished;
        tasks.failed += function.failed;
    }
    let (waiting, waiting_count) = head.waiting().await?;
    Ok(Summary {
        nodes: nodes.rows,
        more_nodes: nodes.more.unwrap_or(0),
        jobs_running,
        jobs_pending,
        actors,
        tasks,
        waiting,
        waiting_count,
        alerts: head.alerts().await?,
    })
}

/// Number of jobs in a state.
async fn jobs_in<E: AdminTransport>(head: &mut Admin<E>, state: &str) -> Result<u64, AdminError> {
    let filter = Filter { key: "state".to_owned(), value: state.to_owned(), is_equal: true };
    // Without rows: only the count is shown.
    let query = Query { limit: 0, count: true, ..Query::filtered(vec![filter]) };
    Ok(head.page::<JobInfo>(query).await?.more.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::cluster_args::AdminConnector;
    use crate::test_cluster::FakeCluster;

    #[tokio::test]
    async fn sample_has_counts_of_the_cluster_and_rows_of_the_view() {
        let cluster = FakeCluster::new();
        let mut head = cluster.head().await.unwrap();
        let condition = Filter { key: "state".to_owned(), value: "ALIVE".to_owned(), is_equal: true };
        let wanted = Wanted { view: View::Actors, conditions: vec![condition] };
        let sample = take(&mut head, &wanted).await.unwrap();
        let Rows::Actors(actors) = &sample.rows else { panic!("rows of another view") };
        assert_eq!((actors.len(), sample.more), (1, 0));
        assert_eq!(sample.summary.actors, ActorCounts { alive: 1, dead: 1, ..ActorCounts::default() });
        assert_eq!(sample.summary.tasks, TaskCounts { queued: 2, running: 1, finished: 42, failed: 1 });
        assert_eq!((sample.summary.nodes.len(), sample.summary.waiting_count), (3, 8));
        assert_eq!(sample.summary.jobs_running, 0);
    }

    #[tokio::test]
    async fn every_request_for_rows_is_bounded() {
        use roadshow::admin::AdminRequest;
        for view in View::ALL {
            let cluster = FakeCluster::new();
            let mut head = cluster.head().await.unwrap();
            take(&mut head, &Wanted { view, conditions: Vec::new() }).await.unwrap();
            for request in cluster.requests() {
                let AdminRequest::List { query, .. } = request else { continue };
                assert!(query.limit <= LIST_ROWS_MAX, "{query:?}");
            }
        }
    }
}
