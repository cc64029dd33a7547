//! `roadshow summary`: how many actors of each class, or tasks of each function, are in which state.

use std::collections::BTreeMap;

use roadshow::model::{ActorInfo, ActorState, TaskCount, TaskInfo};
use serde::Serialize;

use crate::failure::Outcome;
use crate::output::Output;
use crate::reach::{Desks, Reach};
use crate::table::Table;

/// Counts actors by class, or tasks by function.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  roadshow summary tasks")]
pub(crate) struct Arguments {
    /// What to count.
    #[arg(value_enum)]
    kind: Kind,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    #[value(alias = "actor")]
    Actors,
    #[value(alias = "task")]
    Tasks,
}

/// The actors of one class.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Class {
    class: String,
    pending_creation: usize,
    alive: usize,
    restarting: usize,
    dead: usize,
}

pub(crate) async fn run(arguments: &Arguments, desks: &impl Desks, output: &mut Output<'_>) -> Outcome<()> {
    let mut head = desks.head().await?;
    match arguments.kind {
        Kind::Actors => show_classes(&by_class(&head.actors().await?), arguments.json, output),
        Kind::Tasks => show_functions(&by_function(&head.tasks().await?), arguments.json, output),
    }
}

fn by_class(actors: &[ActorInfo]) -> Vec<Class> {
    let mut classes: BTreeMap<&str, Class> = BTreeMap::new();
    for actor in actors {
        let class = classes.entry(&actor.class).or_default();
        actor.class.clone_into(&mut class.class);
        *match actor.state {
            ActorState::PendingCreation => &mut class.pending_creation,
            ActorState::Alive => &mut class.alive,
            ActorState::Restarting => &mut class.restarting,
            ActorState::Dead => &mut class.dead,
        } += 1;
    }
    classes.into_values().collect()
}

/// The tasks of all workers, by function.
pub(crate) fn by_function(tasks: &[TaskInfo]) -> Vec<TaskCount> {
    let mut functions: BTreeMap<&str, TaskCount> = BTreeMap::new();
    for TaskInfo { count, .. } in tasks {
        let sum = functions.entry(&count.name).or_default();
        count.name.clone_into(&mut sum.name);
        sum.queued += count.queued;
        sum.running += count.running;
        sum.finished += count.finished;
        sum.failed += count.failed;
    }
    functions.into_values().collect()
}

fn show_classes(classes: &[Class], json: bool, output: &mut Output<'_>) -> Outcome<()> {
    if json {
        return output.json(&classes);
    }
    let mut table = Table::new(&["CLASS", "PENDING", "ALIVE", "RESTARTING", "DEAD"]);
    for class in classes {
        let counts = [class.pending_creation, class.alive, class.restarting, class.dead];
        table.push([class.class.clone()].into_iter().chain(counts.map(|n| n.to_string())).collect());
    }
    let total: usize = classes
        .iter()
        .map(|class| class.pending_creation + class.alive + class.restarting + class.dead)
        .sum();
    output.print(&format!("{total} actors\n\n{table}"))
}

fn show_functions(functions: &[TaskCount], json: bool, output: &mut Output<'_>) -> Outcome<()> {
    if json {
        return output.json(&functions);
    }
    let mut table = Table::new(&["FUNCTION", "QUEUED", "RUNNING", "FINISHED", "FAILED"]);
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
    use crate::given::Cluster;

    async fn counted(kind: Kind, json: bool) -> String {
        let arguments = Arguments { kind, json, reach: Reach { address: None, token_file: None } };
        let cluster = Cluster::new();
        let (outcome, out, _) = cluster.run(async |desks, output| run(&arguments, desks, output).await).await;
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
        assert_eq!(counted(Kind::Actors, false).await, expected);
        let expected = "\
46 tasks

FUNCTION     QUEUED  RUNNING  FINISHED  FAILED
app::square       2        1        42       1
";
        assert_eq!(counted(Kind::Tasks, false).await, expected);
    }

    #[tokio::test]
    async fn json_has_the_same_counts() {
        let classes: Value = serde_json::from_str(&counted(Kind::Actors, true).await).unwrap();
        assert_eq!((&classes[0]["class"], &classes[0]["alive"]), (&"app::Counter".into(), &1.into()));
        let functions: Value = serde_json::from_str(&counted(Kind::Tasks, true).await).unwrap();
        assert_eq!((&functions[0]["name"], &functions[0]["finished"]), (&"app::square".into(), &42.into()));
    }
}
