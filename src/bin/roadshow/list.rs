//! `roadshow list`: the nodes, actors, tasks, jobs or workers of a cluster.

use std::num::NonZero;

use roadshow::model::{ActorInfo, JobInfo, NodeInfo, TaskInfo, WorkerSummary};
use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::reach::{Desks, Reach};
use crate::rows::Row;
use crate::table::Table;
use crate::values::Filter;

/// How many rows a table has, unless it is said otherwise.
const ROWS: NonZero<usize> = NonZero::new(100).unwrap();

/// Lists the nodes, actors, tasks, jobs or workers of a cluster.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// What to list.
    #[arg(value_enum)]
    kind: Kind,
    /// Only those of which this holds; may be given again for more conditions.
    #[arg(long, value_name = "KEY=VALUE|KEY!=VALUE")]
    filter: Vec<Filter>,
    /// How many to show at most: rather those that go on than those that have ended, and rather the latest.
    /// 100 in a table, all in JSON by default.
    #[arg(long, value_name = "N")]
    limit: Option<NonZero<usize>>,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

const EXAMPLE: &str = "\
Example:
  roadshow list actors --filter state=ALIVE --filter class=app::Counter

Keys are the fields of --json; ids may be given without the zeros before them.";

/// What a cluster consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
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

impl Kind {
    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => NodeInfo::FIELDS,
            Self::Actors => ActorInfo::FIELDS,
            Self::Tasks => TaskInfo::FIELDS,
            Self::Jobs => JobInfo::FIELDS,
            Self::Workers => WorkerSummary::FIELDS,
        }
    }
}

impl Arguments {
    /// `roadshow job list`.
    pub(crate) const fn of_jobs(reach: Reach, limit: Option<NonZero<usize>>, json: bool) -> Self {
        Self { kind: Kind::Jobs, filter: Vec::new(), limit, json, reach }
    }

    /// What clap cannot check, since it depends on two arguments.
    pub(crate) fn check(&self) -> Outcome<()> {
        let fields = self.kind.fields();
        match self.filter.iter().find(|filter| !fields.contains(&filter.key.as_str())) {
            None => Ok(()),
            Some(filter) => Err(Failure::usage(
                format!("--filter has the key {:?}, which no row has", filter.key),
                format!("the keys are {}", fields.join(", ")),
            )),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments, desks: &impl Desks, output: &mut Output<'_>) -> Outcome<()> {
    let mut head = desks.head().await?;
    match arguments.kind {
        Kind::Nodes => show(&head.nodes().await?, arguments, output),
        Kind::Actors => show(&head.actors().await?, arguments, output),
        Kind::Tasks => show(&head.tasks().await?, arguments, output),
        Kind::Jobs => show(&head.jobs().await?, arguments, output),
        Kind::Workers => show(&head.workers().await?, arguments, output),
    }
}

fn show<T: Row>(rows: &[T], arguments: &Arguments, output: &mut Output<'_>) -> Outcome<()> {
    let mut taken = Vec::new();
    for row in rows {
        let json = serde_json::to_value(row).map_err(|error| Failure::failed(error, ""))?;
        if arguments.filter.iter().all(|filter| filter.takes(&json)) {
            taken.push((row, json));
        }
    }
    let all = taken.len();
    let limit = arguments.limit.unwrap_or(if arguments.json { NonZero::<usize>::MAX } else { ROWS });
    keep_latest(&mut taken, limit.get(), |(row, _)| row.is_over());
    if arguments.json {
        output.json(&taken.iter().map(|(_, json)| json).collect::<Vec<&Value>>())?;
    } else if taken.is_empty() {
        let such = if rows.is_empty() { "" } else { " such" };
        output.print(&format!("There is no{such} {}.\n", T::ONE))?;
    } else {
        let mut table = Table::new(T::HEADERS);
        taken.iter().for_each(|(row, _)| table.push(row.cells()));
        output.print(&table.to_string())?;
    }
    if taken.len() < all {
        output.note(&format!("{} of {all} are shown; --limit {all} shows all", taken.len()));
    }
    Ok(())
}

/// Keeps so many, in their order: the last of those that go on, then the last of those that are over.
fn keep_latest<T>(all: &mut Vec<T>, limit: usize, is_over: impl Fn(&T) -> bool) {
    let over = all.iter().filter(|one| is_over(one)).count();
    let mut too_many = all.len().saturating_sub(limit);
    let mut over_too_many = too_many.min(over);
    too_many -= over_too_many;
    all.retain(|one| {
        let left = if is_over(one) { &mut over_too_many } else { &mut too_many };
        let goes = *left > 0;
        *left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;
    use crate::given::Cluster;

    fn arguments(kind: Kind, filter: &[&str], json: bool) -> Arguments {
        Arguments {
            kind,
            filter: filter.iter().map(|filter| filter.parse().unwrap()).collect(),
            limit: None,
            json,
            reach: Reach { address: None, token_file: None },
        }
    }

    async fn listed(arguments: Arguments) -> (String, String) {
        let cluster = Cluster::new();
        let (outcome, out, err) =
            cluster.run(async |desks, output| run(&arguments, desks, output).await).await;
        outcome.unwrap();
        (out, err)
    }

    #[tokio::test]
    async fn nodes_are_a_table_that_fits_a_terminal() {
        let (out, err) = listed(arguments(Kind::Nodes, &[], false)).await;
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
        let (out, _) = listed(arguments(Kind::Nodes, &["state=alive"], true)).await;
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
            (Kind::Actors, "ACTOR", "Counter"),
            (Kind::Tasks, "FUNCTION", "square"),
            (Kind::Jobs, "JOB", "./count book.txt"),
            (Kind::Workers, "WORKER", "STARTING"),
        ] {
            let (out, _) = listed(arguments(kind, &[], false)).await;
            assert!(out.starts_with(header) && out.contains(cell), "{out}");
        }
    }

    #[tokio::test]
    async fn what_is_left_out_is_said() {
        let some = Arguments { limit: NonZero::new(1), ..arguments(Kind::Nodes, &[], true) };
        let (out, err) = listed(some).await;
        assert_eq!(serde_json::from_str::<Vec<Value>>(&out).unwrap().len(), 1);
        assert_eq!(err, "1 of 3 are shown; --limit 3 shows all\n");

        let (out, _) = listed(arguments(Kind::Jobs, &["state=RUNNING"], false)).await;
        assert_eq!(out, "There is no such job.\n");
        let (out, _) = listed(arguments(Kind::Jobs, &["state=RUNNING"], true)).await;
        assert_eq!(out, "[]\n");
    }

    #[test]
    fn the_latest_are_kept_and_first_those_that_go_on() {
        let kept = |limit| {
            let mut all = vec!['a', 'B', 'c', 'D', 'e'];
            keep_latest(&mut all, limit, char::is_ascii_uppercase);
            all.into_iter().collect::<String>()
        };
        assert_eq!([1, 2, 3, 4, 5, 6].map(kept), ["e", "ce", "ace", "acDe", "aBcDe", "aBcDe"]);
    }

    #[test]
    fn a_filter_needs_a_key_that_rows_have() {
        assert_eq!(arguments(Kind::Nodes, &["state=x", "node_id!=y"], false).check(), Ok(()));
        let refused = arguments(Kind::Nodes, &["class=x"], false).check().unwrap_err();
        assert_eq!(refused.code, exit::USAGE);
        assert!(refused.to_string().contains("node_id, state"), "{refused}");
    }
}
