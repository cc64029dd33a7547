//! `roadshow get`: all fields of one entity.

use roadshow::admin::{Admin, AdminTransport};
use roadshow::model::{ActorInfo, EventInfo, JobInfo, NodeInfo, TaskCount, WorkerSummary};

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::cli::resolve_id::resolve_at_head;
use crate::commands::list::ListKind;
use crate::error::{CliError, CliResult};
use crate::output::CliOutput;
use crate::output::rows::{TableRow, last_part};
use crate::output::table::{plain, sheet};

/// Shows all fields of one node, actor, job, worker or event, or the task counts of one function.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example:\n  roadshow get actor counter\n\nAn id may be shortened to its first four \
    characters, and its leading zeros may be omitted."
)]
pub(crate) struct GetArgs {
    /// Kind of the entity.
    #[arg(value_enum)]
    kind: ListKind,
    /// Id of the entity, or its name
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

pub(crate) async fn run(
    arguments: &GetArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    match arguments.kind {
        ListKind::Nodes => show::<NodeInfo, _>(&mut head, arguments, output).await,
        ListKind::Actors => show::<ActorInfo, _>(&mut head, arguments, output).await,
        ListKind::Tasks => {
            // The head matches last parts, since operators leave out the module path.
            let part = Some(last_part(&arguments.id).to_owned());
            show_function(&head.functions(part).await?.rows, arguments, output)
        }
        ListKind::Jobs => show::<JobInfo, _>(&mut head, arguments, output).await,
        ListKind::Workers => show::<WorkerSummary, _>(&mut head, arguments, output).await,
        ListKind::Events => show::<EventInfo, _>(&mut head, arguments, output).await,
        ListKind::Messages => {
            let next = format!("run `roadshow list messages --filter message={}`", arguments.id);
            Err(CliError::usage("messages have no id, and a row for each worker", next))
        }
    }
}

async fn show<T: TableRow, E: AdminTransport>(
    head: &mut Admin<E>,
    arguments: &GetArgs,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let row: T = resolve_at_head(head, &arguments.id).await?;
    if arguments.json {
        return output.json(&row);
    }
    let json = serde_json::to_value(&row).map_err(|error| CliError::failed(error, ""))?;
    let entries: Vec<_> = T::FIELDS.iter().map(|field| (*field, plain(&json[field]))).collect();
    output.print(&sheet(&entries))
}

/// Shows the task counts of a function over all workers, by its full name or the last part of it.
fn show_function(functions: &[TaskCount], arguments: &GetArgs, output: &mut CliOutput<'_>) -> CliResult<()> {
    let text = &arguments.id;
    let is_it = |function: &&TaskCount| function.name == *text;
    let is_last_part = |function: &&TaskCount| last_part(&function.name) == text;
    // A full name wins over the last part of another one.
    let named: [Vec<&TaskCount>; 2] =
        [functions.iter().filter(is_it).collect(), functions.iter().filter(is_last_part).collect()];
    for found in named {
        match found[..] {
            [] => {}
            [function] if arguments.json => return output.json(function),
            [TaskCount { name, queued, running, finished, failed, .. }] => {
                let counts =
                    [("queued", queued), ("running", running), ("finished", finished), ("failed", failed)];
                let counts = counts.map(|(title, count)| (title, count.to_string()));
                let entries: Vec<_> = [("name", name.clone())].into_iter().chain(counts).collect();
                return output.print(&sheet(&entries));
            }
            [one, other, ..] => {
                let text = format!("{text:?} matches {} and {}", one.name, other.name);
                return Err(CliError::unknown(text, "give the full name"));
            }
        }
    }
    let next = "`roadshow summary tasks` lists all";
    Err(CliError::unknown(format!("there is no task function {text:?}"), next))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::exit;
    use crate::test_cluster::FakeCluster;

    async fn got(kind: ListKind, id: &str, json: bool) -> (CliResult<()>, String) {
        let cluster_args = ClusterArgs { address: None, token_file: None };
        let arguments = GetArgs { kind, id: id.to_owned(), json, cluster_args };
        let cluster = FakeCluster::new();
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        (outcome, out)
    }

    #[tokio::test]
    async fn all_fields_of_one_entity_are_shown() {
        let (outcome, out) = got(ListKind::Actors, "counter", false).await;
        outcome.unwrap();
        assert!(out.starts_with("actor_id       0000000000000001\nclass          app::Counter\n"), "{out}");
        assert!(out.contains("resources      cpu=0.5\n") && out.contains("cause          -\n"), "{out}");

        let (outcome, out) = got(ListKind::Jobs, "2", true).await;
        outcome.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["exit_code"], 7);
    }

    #[tokio::test]
    async fn tasks_of_a_function_are_counted_over_all_workers() {
        for name in ["app::square", "square"] {
            let (outcome, out) = got(ListKind::Tasks, name, true).await;
            outcome.unwrap();
            let counts: Value = serde_json::from_str(&out).unwrap();
            assert_eq!((&counts["name"], &counts["finished"]), (&"app::square".into(), &42.into()));
        }
        let (outcome, out) = got(ListKind::Tasks, "square", false).await;
        outcome.unwrap();
        assert!(out.contains("queued") && out.contains("42"), "{out}");
        assert_eq!(got(ListKind::Tasks, "app", false).await.0.unwrap_err().code, exit::NO_SUCH_THING);
    }

    #[tokio::test]
    async fn unknown_entity_has_its_own_exit_code() {
        let (outcome, out) = got(ListKind::Workers, "77", false).await;
        let failure = outcome.unwrap_err();
        assert_eq!((failure.code, out.as_str()), (exit::NO_SUCH_THING, ""));
        assert_eq!(failure.to_string(), "there is no worker \"77\"; `roadshow list workers` lists all");
    }
}
