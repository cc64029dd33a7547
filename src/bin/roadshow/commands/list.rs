//! `roadshow list`: nodes, actors, tasks, jobs or workers of a cluster.

use std::num::NonZero;

use roadshow::admin::{self, Admin, AdminTransport, Query, Sort, joined};
use roadshow::internals::config::{LIST_ROWS_MAX, LIST_SORTED_MAX};
use roadshow::model::{ActorInfo, JobInfo, NodeInfo, TaskInfo, WorkerSummary};

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::values::FilterArg;
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::output::rows::TableRow;
use crate::output::table::TextTable;

/// Default maximum number of rows of a table.
const ROWS: NonZero<usize> = NonZero::new(100).unwrap();

/// Lists the nodes, actors, tasks, jobs or workers of a cluster.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub(crate) struct ListArgs {
    /// Kind of entity to list.
    #[arg(value_enum)]
    kind: ListKind,
    /// Show only the rows that meet this condition; give it again for more conditions.
    #[arg(long, value_name = "KEY=VALUE|KEY!=VALUE")]
    filter: Vec<FilterArg>,
    /// Show only rows with this text in an id, a name or a word; case is ignored.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// Sort by this key; -KEY shows the largest values first. At most 20,000 rows can be sorted.
    #[arg(long, value_name = "KEY|-KEY", allow_hyphen_values = true, conflicts_with = "after")]
    sort: Option<String>,
    /// Maximum number of rows [default: 100 in a table, unlimited with --json]
    ///
    /// Entities that have not ended come first, and the newest first. A note on standard error reports how many
    /// rows were left out.
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Continue an earlier list at the cursor from its note.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

const EXAMPLE: &str = "\
Example:
  roadshow list actors --filter state=ALIVE --filter class=app::Counter

Keys are the fields of --json except resources, available, labels and usage. The suffix _id may be omitted, as in
job=3, and so may the leading zeros of an id. The head filters the rows before it sends them.";

/// Kind of entity in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ListKind {
    #[value(alias = "node")]
    Nodes,
    #[value(alias = "actor")]
    Actors,
    #[value(alias = "task")]
    Tasks,
    #[value(alias = "job")]
    Jobs,
    #[value(alias = "worker")]
    Workers,
}

impl ListKind {
    const fn table(self) -> admin::Kind {
        match self {
            Self::Nodes => admin::Kind::Nodes,
            Self::Actors => admin::Kind::Actors,
            Self::Tasks => admin::Kind::Tasks,
            Self::Jobs => admin::Kind::Jobs,
            Self::Workers => admin::Kind::Workers,
        }
    }
}

impl ListArgs {
    /// Arguments of `roadshow job list`.
    pub(crate) const fn of_jobs(
        cluster_args: ClusterArgs,
        limit: Option<NonZero<usize>>,
        json: bool,
    ) -> Self {
        Self {
            kind: ListKind::Jobs,
            filter: Vec::new(),
            search: None,
            sort: None,
            limit,
            after: None,
            json,
            cluster_args,
        }
    }

    /// Checks the filters against the kind, which clap cannot do for two dependent arguments.
    pub(crate) fn check(&self) -> CliResult<()> {
        let checked = self.query(1).check(self.kind.table());
        checked.map_err(|error| CliError::usage(error, "see `roadshow list --help`"))
    }

    fn query(&self, limit: usize) -> Query {
        let filters = self.filter.iter().map(|filter| filter.0.clone()).collect();
        let sort = self.sort.as_ref().map(|text| {
            let (key, is_descending) =
                text.strip_prefix('-').map_or((text.as_str(), false), |key| (key, true));
            Sort { key: key.to_owned(), is_descending }
        });
        let (after, contains) = (self.after.clone(), self.search.clone());
        Query { limit, after, contains, sort, ..Query::filtered(filters) }
    }
}

pub(crate) async fn run(
    arguments: &ListArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    match arguments.kind {
        ListKind::Nodes => show::<NodeInfo, _>(&mut head, arguments, output).await,
        ListKind::Actors => show::<ActorInfo, _>(&mut head, arguments, output).await,
        ListKind::Tasks => show::<TaskInfo, _>(&mut head, arguments, output).await,
        ListKind::Jobs => show::<JobInfo, _>(&mut head, arguments, output).await,
        ListKind::Workers => show::<WorkerSummary, _>(&mut head, arguments, output).await,
    }
}

async fn show<T: TableRow, E: AdminTransport>(
    head: &mut Admin<E>,
    arguments: &ListArgs,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    // Scripts need all rows, but a table of thousands of rows helps no reader.
    let limit = arguments.limit.unwrap_or(if arguments.json { NonZero::<usize>::MAX } else { ROWS });
    let mut query = arguments.query(limit.get());
    if query.sort.is_some() {
        let (rows, more) = sorted::<T, E>(head, query, limit.get()).await?;
        print(&rows, arguments, output)?;
        if more > 0 {
            output.note(&format!("{} rows shown, {more} more match", rows.len()));
        }
        return Ok(());
    }
    let mut rows: Vec<T> = Vec::new();
    let more = loop {
        // The head may return fewer rows than the limit: a reply has a maximum size, too.
        query.limit = limit.get() - rows.len();
        // Counting costs the head a scan of the whole list, so only the request for the last page asks for it.
        query.count = query.limit <= LIST_ROWS_MAX;
        let page = head.page::<T>(query.clone()).await?;
        rows.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() || rows.len() >= limit.get() {
            break page.more.unwrap_or(0);
        }
    };
    // A row that changes while pages are read can be in two of them.
    let rows = joined(rows);
    print(&rows, arguments, output)?;
    if let Some(cursor) = query.after {
        output.note(&left_out(rows.len(), more, &cursor, arguments));
    }
    Ok(())
}

/// Reads a sorted list, which goes on by the number of rows, and the number of rows that are left out.
async fn sorted<T: TableRow, E: AdminTransport>(
    head: &mut Admin<E>,
    mut query: Query,
    limit: usize,
) -> CliResult<(Vec<T>, u64)> {
    let limit = limit.min(LIST_SORTED_MAX);
    let mut rows = Vec::new();
    loop {
        (query.offset, query.limit, query.count) = (rows.len(), LIST_ROWS_MAX.min(limit - rows.len()), true);
        let page = head.page::<T>(query.clone()).await?;
        let (is_empty, more) = (page.rows.is_empty(), page.more.unwrap_or(0));
        rows.extend(page.rows);
        if is_empty || more == 0 || rows.len() >= limit {
            return Ok((rows, more));
        }
    }
}

/// Prints rows as JSON, or as a table.
fn print<T: TableRow>(rows: &[T], arguments: &ListArgs, output: &mut CliOutput<'_>) -> CliResult<()> {
    if arguments.json {
        return output.json(&rows);
    }
    if rows.is_empty() {
        let is_narrowed = !arguments.filter.is_empty() || arguments.search.is_some();
        let matching = if is_narrowed { " matching" } else { "" };
        return output.print(&format!("There is no{matching} {}.\n", T::NOUN));
    }
    let mut table = TextTable::new(T::HEADERS);
    rows.iter().for_each(|row| table.push(row.cells()));
    output.print(&table.to_string())
}

/// Note about rows that were left out.
fn left_out(shown: usize, more: u64, cursor: &str, arguments: &ListArgs) -> String {
    let next = format!("--after {cursor} shows the next rows");
    // The number of rows before the cursor is unknown, so no --limit for all can be suggested.
    if arguments.after.is_some() {
        return format!("{shown} rows shown, {more} more follow; {next}");
    }
    let all = shown as u64 + more;
    format!("{shown} of {all} rows shown; --limit {all} shows all, {next}")
}

#[cfg(test)]
mod tests {
    use roadshow::admin::AdminRequest;
    use serde_json::Value;

    use super::*;
    use crate::exit;
    use crate::test_cluster::FakeCluster;

    fn arguments(kind: ListKind, filter: &[&str], json: bool) -> ListArgs {
        ListArgs {
            kind,
            filter: filter.iter().map(|filter| filter.parse().unwrap()).collect(),
            search: None,
            sort: None,
            limit: None,
            after: None,
            json,
            cluster_args: ClusterArgs { address: None, token_file: None },
        }
    }

    async fn listed(arguments: ListArgs) -> (String, String) {
        let cluster = FakeCluster::new();
        let (outcome, out, err) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        (out, err)
    }

    #[tokio::test]
    async fn table_of_nodes_fits_a_terminal() {
        let (out, err) = listed(arguments(ListKind::Nodes, &[], false)).await;
        let expected = "\
NODE              STATE     ADDRESS         HEAD  CPU    WORKERS  ACTORS  NAME
a1b2000000000001  ALIVE     10.0.0.5:6379   yes   0.5/4        4       1  head
c3d4000000000002  DRAINING  10.0.0.6:40001  no    0/2          2       1  other
e5f6000000000003  DEAD      10.0.0.7:40001  no    -            0       0  other
";
        assert_eq!((out.as_str(), err.as_str()), (expected, ""));
    }

    #[tokio::test]
    async fn json_is_an_array_of_objects() {
        let (out, _) = listed(arguments(ListKind::Nodes, &["state=alive"], true)).await;
        let nodes: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(nodes.as_array().unwrap().len(), 1);
        let node = &nodes[0];
        assert_eq!(node["node_id"], "a1b2000000000001");
        assert_eq!(node["state"], "ALIVE");
        assert_eq!(node["address"], "10.0.0.5:6379");
        assert_eq!(node["is_head"], true);
        assert_eq!(node["resources"]["cpu"], 4.0);
    }

    #[tokio::test]
    async fn every_kind_has_its_table() {
        for (kind, header, cell) in [
            (ListKind::Actors, "ACTOR", "Counter"),
            (ListKind::Tasks, "FUNCTION", "square"),
            (ListKind::Jobs, "JOB", "./count book.txt"),
            (ListKind::Workers, "WORKER", "STARTING"),
        ] {
            let (out, _) = listed(arguments(kind, &[], false)).await;
            assert!(out.starts_with(header) && out.contains(cell), "{out}");
        }
    }

    #[tokio::test]
    async fn omitted_rows_are_reported() {
        let some = ListArgs { limit: NonZero::new(1), ..arguments(ListKind::Nodes, &[], true) };
        let (out, err) = listed(some).await;
        assert_eq!(serde_json::from_str::<Vec<Value>>(&out).unwrap().len(), 1);
        assert_eq!(err, "1 of 3 rows shown; --limit 3 shows all, --after 1 shows the next rows\n");

        let (out, _) = listed(arguments(ListKind::Jobs, &["state=RUNNING"], false)).await;
        assert_eq!(out, "There is no matching job.\n");
        let (out, _) = listed(arguments(ListKind::Jobs, &["state=RUNNING"], true)).await;
        assert_eq!(out, "[]\n");
    }

    #[tokio::test]
    async fn page_continues_where_the_previous_one_ended() {
        let page = |after: Option<&str>| ListArgs {
            limit: NonZero::new(2),
            after: after.map(str::to_owned),
            ..arguments(ListKind::Nodes, &[], true)
        };
        let shown = |out: &str| -> Vec<String> {
            let rows: Vec<Value> = serde_json::from_str(out).unwrap();
            rows.iter().map(|row| row["hostname"].as_str().unwrap().to_owned()).collect()
        };
        let (out, err) = listed(page(None)).await;
        assert_eq!(shown(&out), ["head", "other"]);
        assert_eq!(err, "2 of 3 rows shown; --limit 3 shows all, --after 2 shows the next rows\n");
        let (out, err) = listed(page(Some("2"))).await;
        assert_eq!((shown(&out), err.as_str()), (vec!["other".to_owned()], ""));
    }

    #[tokio::test]
    async fn head_filters_and_sends_only_the_rows_shown() {
        let cluster = FakeCluster::new();
        let arguments = arguments(ListKind::Actors, &["state=alive", "job!=2"], false);
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        assert!(out.contains("counter") && !out.contains("old"), "{out}");
        let [AdminRequest::List { of: admin::Kind::Actors, query }] = &cluster.requests()[..] else {
            panic!("{:?}", cluster.requests());
        };
        assert_eq!((query.filters.len(), query.limit, query.count), (2, 100, true));
    }

    #[tokio::test]
    async fn head_sorts_and_searches() {
        let cluster = FakeCluster::new();
        let arguments = ListArgs {
            search: Some("count".to_owned()),
            sort: Some("-class".to_owned()),
            ..arguments(ListKind::Actors, &[], true)
        };
        let (outcome, ..) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        let [AdminRequest::List { query, .. }] = &cluster.requests()[..] else {
            panic!("{:?}", cluster.requests());
        };
        assert_eq!(query.sort, Some(Sort { key: "class".to_owned(), is_descending: true }));
        assert_eq!((query.contains.as_deref(), query.limit, query.offset), (Some("count"), 1000, 0));
        let wrong = ListArgs { sort: Some("cause".to_owned()), ..arguments };
        assert!(wrong.check().unwrap_err().to_string().contains("the keys are actor_id"));
    }

    #[test]
    fn filter_needs_a_key_of_the_kind() {
        assert_eq!(arguments(ListKind::Nodes, &["state=dead", "node!=a1"], false).check(), Ok(()));
        let refused = arguments(ListKind::Nodes, &["class=x"], false).check().unwrap_err();
        assert_eq!(refused.code, exit::USAGE);
        assert!(refused.to_string().contains("node_id, state"), "{refused}");
    }
}
