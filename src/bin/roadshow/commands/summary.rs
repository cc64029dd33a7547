//! `roadshow summary`: numbers of actors by class, or of tasks by function, and by state.

use roadshow::admin::GroupCounts;
use roadshow::internals::config::SUMMARY_ROWS_MAX;
use roadshow::model::{ClassCount, TaskCount};

use crate::cli::cluster_args::{AdminConnector, ClusterArgs};
use crate::error::CliResult;
use crate::output::CliOutput;
use crate::output::table::TextTable;

/// Counts actors by class, or tasks by function.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow summary tasks")]
pub(crate) struct SummaryArgs {
    /// Kind of entity to count.
    #[arg(value_enum)]
    kind: SummaryKind,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) cluster_args: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SummaryKind {
    #[value(alias = "actor")]
    Actors,
    #[value(alias = "task")]
    Tasks,
}

pub(crate) async fn run(
    arguments: &SummaryArgs,
    connector: &impl AdminConnector,
    output: &mut CliOutput<'_>,
) -> CliResult<()> {
    let mut head = connector.head().await?;
    // The head limits its reply: a program can have any number of classes and functions.
    let more = match arguments.kind {
        SummaryKind::Actors => {
            let GroupCounts { rows, more } = head.classes().await?;
            show_classes(&rows, arguments.json, output)?;
            more
        }
        SummaryKind::Tasks => {
            let GroupCounts { rows, more } = head.functions(None).await?;
            show_functions(&rows, arguments.json, output)?;
            more
        }
    };
    if more > 0 {
        output.note(&format!("{SUMMARY_ROWS_MAX} rows shown; {more} more are left out"));
    }
    Ok(())
}

fn show_classes(classes: &[ClassCount], json: bool, output: &mut CliOutput<'_>) -> CliResult<()> {
    if json {
        return output.json(&classes);
    }
    let mut table = TextTable::new(&["CLASS", "PENDING", "ALIVE", "RESTARTING", "DEAD"]);
    for class in classes {
        let counts = [class.pending_creation, class.alive, class.restarting, class.dead];
        table.push([class.class.clone()].into_iter().chain(counts.map(|n| n.to_string())).collect());
    }
    let total: u64 = classes
        .iter()
        .map(|class| class.pending_creation + class.alive + class.restarting + class.dead)
        .sum();
    output.print(&format!("{total} actors\n\n{table}"))
}

fn show_functions(functions: &[TaskCount], json: bool, output: &mut CliOutput<'_>) -> CliResult<()> {
    if json {
        return output.json(&functions);
    }
    let mut table = TextTable::new(&["FUNCTION", "QUEUED", "RUNNING", "FINISHED", "FAILED"]);
    for function in functions {
        let counts = [function.queued, function.running, function.finished, function.failed];
        table.push([function.name.clone()].into_iter().chain(counts.map(|n| n.to_string())).collect());
    }
    let total: u64 = functions.iter().map(|f| f.queued + f.running + f.finished + f.failed).sum();
    output.print(&format!("{total} tasks\n\n{table}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::test_cluster::FakeCluster;

    async fn counted(kind: SummaryKind, json: bool) -> String {
        let arguments =
            SummaryArgs { kind, json, cluster_args: ClusterArgs { address: None, token_file: None } };
        let cluster = FakeCluster::new();
        let (outcome, out, _) =
            cluster.run(async |connector, output| run(&arguments, connector, output).await).await;
        outcome.unwrap();
        out
    }

    #[tokio::test]
    async fn actors_are_counted_by_class_and_tasks_by_function() {
        let expected = "\
2 actors

CLASS         PENDING  ALIVE  RESTARTING  DEAD
app::Counter        0      1           0     1
";
        assert_eq!(counted(SummaryKind::Actors, false).await, expected);
        let expected = "\
46 tasks

FUNCTION     QUEUED  RUNNING  FINISHED  FAILED
app::square       2        1        42       1
";
        assert_eq!(counted(SummaryKind::Tasks, false).await, expected);
    }

    #[tokio::test]
    async fn json_has_the_same_counts() {
        let classes: Value = serde_json::from_str(&counted(SummaryKind::Actors, true).await).unwrap();
        assert_eq!((&classes[0]["class"], &classes[0]["alive"]), (&"app::Counter".into(), &1.into()));
        let functions: Value = serde_json::from_str(&counted(SummaryKind::Tasks, true).await).unwrap();
        assert_eq!((&functions[0]["name"], &functions[0]["finished"]), (&"app::square".into(), &42.into()));
    }
}
