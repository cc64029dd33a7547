//! Tables of `top`: the columns of each row type, in one place.
//!
//! A new column is one line of `COLUMNS`. A counter for a rate is one line of `counters` besides.

use roadshow::model::{
    ActorInfo, ActorKey, JobId, JobInfo, NodeId, NodeInfo, NodeState, Quantity, Resources, TaskInfo,
    WorkerSummary,
};

use super::rates::Rates;
use crate::cli::values::significant;
use crate::output::rows::{TableRow, last_part, quantity, shown, word};
use crate::output::table::{duration, memory, plain, safe, short};

/// Value of one cell, with its sort order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    /// Value to sort by, and its text.
    Number(f64, String),
    Missing,
}

impl Cell {
    fn text(text: impl AsRef<str>) -> Self {
        Self::Text(safe(text.as_ref()))
    }

    fn optional(text: Option<impl AsRef<str>>) -> Self {
        text.map_or(Self::Missing, Self::text)
    }

    fn count(number: impl TryInto<u64>) -> Self {
        let number = number.try_into().unwrap_or(u64::MAX);
        Self::Number(number as f64, number.to_string())
    }

    fn rate(rate: Option<f64>) -> Self {
        rate.map_or(Self::Missing, |rate| Self::Number(rate, per_second(rate)))
    }

    /// Text on the screen.
    pub(super) fn shown(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(_, text) => text,
            Self::Missing => crate::output::table::PLACEHOLDER,
        }
    }
}

/// Formats a rate.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        // The first decimal place is noise in a large rate.
        100.0.. => format!("{rate:.0}/s"),
        _ => format!("{rate:.1}/s"),
    }
}

/// Meaning of a row's state, which chooses its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Waiting,
    Bad,
    Ended,
    Plain,
}

/// Change that a key asks of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    KillActor(ActorKey),
    StopJob(JobId),
    DrainNode(NodeId),
}

impl Action {
    /// Verb for the confirmation.
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::KillActor(_) => "Kill",
            Self::StopJob(_) => "Stop",
            Self::DrainNode(_) => "Drain",
        }
    }

    /// Effect, for the confirmation.
    pub(super) const fn effect(self) -> &'static str {
        match self {
            Self::KillActor(_) => "It ends behind the messages in its mailbox.",
            Self::StopJob(_) => "Its driver, workers and actors end, except detached actors.",
            Self::DrainNode(_) => "It gets no new work, and ends when its jobs have ended.",
        }
    }
}

/// Heading of a column, without the type of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) title: &'static str,
    /// Order of omission on a narrow terminal: the highest rank first, 0 never.
    pub(super) rank: u8,
}

/// Column of a table.
pub(super) struct Column<T> {
    heading: Heading,
    cell: fn(&T, &Facts<'_>) -> Cell,
}

const fn column<T>(title: &'static str, rank: u8, cell: fn(&T, &Facts<'_>) -> Cell) -> Column<T> {
    Column { heading: Heading { title, rank }, cell }
}

/// Facts that a row itself does not have.
pub(super) struct Facts<'a> {
    /// Wall-clock time in milliseconds since 1970.
    pub(super) now_ms: u64,
    pub(super) rates: &'a Rates,
}

/// Row of a table, without its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Identity within its table, by which the selection follows the row.
    pub(super) key: String,
    /// Noun and name, for the confirmation.
    pub(super) label: String,
    pub(super) tone: Tone,
    pub(super) cells: Vec<Cell>,
    /// Action of the row, or the reason why it has none.
    pub(super) action: Result<Action, &'static str>,
}

/// Row type with its columns, counters and action.
pub(super) trait TopRow: TableRow + 'static {
    const COLUMNS: &'static [Column<Self>];

    /// Identity within the table.
    fn identity(&self) -> String {
        self.id()
    }

    /// Name for the confirmation, behind the noun.
    fn called(&self) -> String;

    fn tone(&self) -> Tone;

    /// Monotonic counters, from which rates are made.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn action(&self) -> Result<Action, &'static str>;
}

/// Headings of a row type.
pub(super) fn headings<T: TopRow>() -> Vec<Heading> {
    T::COLUMNS.iter().map(|column| column.heading).collect()
}

/// Converts a row for display. Text of the cluster loses its control characters here.
pub(super) fn convert<T: TopRow>(row: &T, facts: &Facts<'_>) -> Row {
    Row {
        key: row.identity(),
        label: safe(&format!("{} {}", T::NOUN, row.called())),
        tone: row.tone(),
        cells: T::COLUMNS.iter().map(|column| (column.cell)(row, facts)).collect(),
        action: row.action(),
    }
}

/// Name and value of a field.
pub(super) type Field = (&'static str, String);

/// All fields of a row, as `get` shows them.
pub(super) fn fields<T: TopRow>(row: &T) -> Vec<Field> {
    let json = serde_json::to_value(row).unwrap_or_default();
    T::FIELDS.iter().map(|field| (*field, safe(&plain(&json[field])))).collect()
}

fn rate<T: TopRow>(row: &T, counter: &str, facts: &Facts<'_>) -> Cell {
    Cell::rate(facts.rates.of(&row.identity(), counter))
}

/// Id without its leading zeros, in the order of its value.
fn id_cell(id: impl Into<u64>) -> Cell {
    let id = id.into();
    Cell::Number(id as f64, format!("{id:x}"))
}

fn tone_of(state: &str) -> Tone {
    match state {
        "ALIVE" | "RUNNING" => Tone::Good,
        "PENDING" | "PENDING_CREATION" | "STARTING" | "RESTARTING" | "DRAINING" | "REJOINING" => {
            Tone::Waiting
        }
        "FAILED" | "SUSPENDED" | "UNREACHABLE" => Tone::Bad,
        "DEAD" | "STOPPED" | "SUCCEEDED" => Tone::Ended,
        _ => Tone::Plain,
    }
}

impl TopRow for NodeInfo {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NODE", 0, |node, _| Cell::text(short(node.node_id))),
        column("STATE", 0, |node, _| Cell::text(word(&node.state))),
        column("ADDRESS", 2, |node, _| Cell::text(node.address.to_string())),
        column("HEAD", 8, |node, _| Cell::text(if node.is_head { "yes" } else { "no" })),
        column("CPU", 1, |node, _| held(node, Resources::CPU)),
        column("LOAD", 3, |node, _| match node.usage {
            Some(usage) => Cell::Number(usage.load, format!("{:.2}", usage.load)),
            None => Cell::Missing,
        }),
        column("MEMORY", 4, |node, _| bytes(node.usage.map(|usage| usage.memory_bytes))),
        column("OF WORKERS", 7, |node, _| bytes(node.usage.map(|usage| usage.workers_memory_bytes))),
        column("WORKERS", 6, |node, _| Cell::count(node.workers)),
        column("ACTORS", 5, |node, _| Cell::count(node.actors)),
        column("NAME", 9, |node, _| Cell::text(&node.hostname)),
        column("CAUSE", 10, |node, _| Cell::optional(node.cause.as_ref())),
    ];

    fn called(&self) -> String {
        format!("{} ({}, {})", self.node_id, self.hostname, self.address)
    }

    fn tone(&self) -> Tone {
        tone_of(&word(&self.state))
    }

    fn action(&self) -> Result<Action, &'static str> {
        match self.state {
            _ if self.is_head => {
                Err("the head's own node cannot be drained; `roadshow stop` ends the cluster")
            }
            NodeState::Alive | NodeState::Unreachable | NodeState::Rejoining => {
                Ok(Action::DrainNode(self.node_id))
            }
            NodeState::Draining => Err("the node is draining already"),
            NodeState::Dead => Err("the node is dead already"),
        }
    }
}

/// Amount of a resource that actors hold, of the total.
fn held(node: &NodeInfo, resource: &str) -> Cell {
    let (total, available) = (quantity(&node.resources, resource), quantity(&node.available, resource));
    // The last known amounts of a dead node would look like capacity.
    if node.has_ended() || total == Quantity::default() {
        return Cell::Missing;
    }
    let used = Quantity(total.0.saturating_sub(available.0));
    Cell::Number(used.into(), shown(resource, used, total))
}

fn bytes(bytes: Option<u64>) -> Cell {
    bytes.map_or(Cell::Missing, |bytes| Cell::Number(bytes as f64, memory(bytes as f64)))
}

impl TopRow for JobInfo {
    const COLUMNS: &'static [Column<Self>] = &[
        column("JOB", 0, |job, _| id_cell(job.job_id.0)),
        column("STATE", 0, |job, _| Cell::text(word(&job.state))),
        column("TIME", 1, |job, facts| {
            // The start is by the clock of another machine, which may be ahead of this one.
            let ms = job.ended_ms.unwrap_or(facts.now_ms).saturating_sub(job.started_ms);
            Cell::Number(ms as f64, duration(ms))
        }),
        column("EXIT", 4, |job, _| match job.exit_code {
            Some(code) => Cell::Number(f64::from(code), code.to_string()),
            None => Cell::Missing,
        }),
        column("DRIVER ON", 5, |job, _| Cell::text(&job.hostname)),
        column("PROGRAM", 2, |job, _| Cell::text(program(&job.entrypoint))),
        column("MESSAGE", 3, |job, _| Cell::optional(job.message.as_ref())),
    ];

    fn called(&self) -> String {
        format!("{} ({})", significant(&self.id()), self.entrypoint)
    }

    fn tone(&self) -> Tone {
        tone_of(&word(&self.state))
    }

    fn action(&self) -> Result<Action, &'static str> {
        match self.has_ended() {
            true => Err("the job has ended already"),
            false => Ok(Action::StopJob(self.job_id)),
        }
    }
}

/// Command line without the directory of its program, which would fill the column.
fn program(entrypoint: &str) -> &str {
    let end = entrypoint.find(char::is_whitespace).unwrap_or(entrypoint.len());
    entrypoint[..end].rfind('/').map_or(entrypoint, |at| &entrypoint[at + 1..])
}

impl TopRow for ActorInfo {
    const COLUMNS: &'static [Column<Self>] = &[
        column("ACTOR", 0, |actor, _| id_cell(actor.actor_id.0)),
        column("STATE", 0, |actor, _| Cell::text(word(&actor.state))),
        column("CLASS", 1, |actor, _| Cell::text(last_part(&actor.class))),
        column("NAME", 3, |actor, _| Cell::optional(actor.name.as_ref())),
        column("JOB", 2, |actor, _| id_cell(actor.job_id.0)),
        column("NODE", 4, |actor, _| Cell::optional(actor.node_id.map(short))),
        column("PID", 6, |actor, _| actor.pid.map_or(Cell::Missing, Cell::count)),
        column("CAUSE", 5, |actor, _| Cell::optional(actor.cause.as_ref())),
    ];

    fn called(&self) -> String {
        let name = self.name.as_ref().map_or_else(String::new, |name| format!("{name:?}, "));
        format!("{} ({name}{})", self.actor_id, self.class)
    }

    fn tone(&self) -> Tone {
        tone_of(&word(&self.state))
    }

    fn action(&self) -> Result<Action, &'static str> {
        match self.has_ended() {
            true => Err("the actor has ended already"),
            false => Ok(Action::KillActor(self.actor_id)),
        }
    }
}

impl TopRow for WorkerSummary {
    const COLUMNS: &'static [Column<Self>] = &[
        column("WORKER", 0, |worker, _| id_cell(worker.worker_id.0)),
        column("STATE", 0, |worker, _| Cell::text(word(&worker.state))),
        column("JOB", 1, |worker, _| id_cell(worker.job_id.0)),
        column("NODE", 2, |worker, _| Cell::text(short(worker.node_id))),
        // A worker has the pid 0 until its process has started.
        column("PID", 3, |worker, _| match worker.pid {
            0 => Cell::Missing,
            pid => Cell::count(pid),
        }),
        column("ACTORS", 4, |worker, _| Cell::count(worker.actors)),
        column("CAUSE", 5, |worker, _| Cell::optional(worker.cause.as_ref())),
    ];

    fn called(&self) -> String {
        self.id()
    }

    fn tone(&self) -> Tone {
        tone_of(&word(&self.state))
    }

    fn action(&self) -> Result<Action, &'static str> {
        Err("no action on workers; stop its job, or kill its actors")
    }
}

impl TopRow for TaskInfo {
    const COLUMNS: &'static [Column<Self>] = &[
        column("FUNCTION", 0, |task, _| Cell::text(last_part(&task.count.name))),
        column("JOB", 4, |task, _| id_cell(task.job_id.0)),
        column("WORKER", 3, |task, _| id_cell(task.worker_id.0)),
        column("QUEUED", 1, |task, _| Cell::count(task.count.queued)),
        column("RUNNING", 0, |task, _| Cell::count(task.count.running)),
        column("FINISHED", 0, |task, _| Cell::count(task.count.finished)),
        column("FAILED", 1, |task, _| Cell::count(task.count.failed)),
        column("RATE", 2, |task, facts| rate(task, "done", facts)),
    ];

    fn identity(&self) -> String {
        // Each worker has a row of the function.
        format!("{} {}", self.worker_id, self.count.name)
    }

    fn called(&self) -> String {
        self.count.name.clone()
    }

    fn tone(&self) -> Tone {
        match () {
            () if self.count.running > 0 => Tone::Good,
            () if self.count.queued > 0 => Tone::Waiting,
            () => Tone::Ended,
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("done", self.count.finished + self.count.failed)]
    }

    fn action(&self) -> Result<Action, &'static str> {
        Err("no action on tasks; stop their job")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_cluster;

    const NO_RATES: Facts<'static> = Facts { now_ms: 5000, rates: &Rates::NONE };

    #[test]
    fn text_of_a_job_loses_its_control_characters() {
        let mut actor = test_cluster::actors().remove(0);
        actor.class = "app::\x1b[2JEvil\u{9b}2J".to_owned();
        actor.name = Some("a\u{202e}b\nc".to_owned());
        let row = convert(&actor, &NO_RATES);
        assert_eq!(row.cells[2].shown(), "?[2JEvil?2J");
        assert_eq!(row.cells[3].shown(), "a?b c");
        let fields = fields(&actor).into_iter().map(|(_, value)| value);
        let everything = fields.collect::<String>() + &row.label;
        assert!(!everything.contains(|c: char| c.is_control() || c == '\u{202e}'), "{everything}");
    }

    #[test]
    fn rows_name_what_their_action_changes() {
        let nodes = test_cluster::nodes();
        assert!(nodes[0].action().unwrap_err().contains("head's own node"));
        assert_eq!(nodes[1].action(), Err("the node is draining already"));
        assert_eq!(nodes[2].action(), Err("the node is dead already"));
        let actor = test_cluster::actors().remove(0);
        assert_eq!(actor.action(), Ok(Action::KillActor(ActorKey(1))));
        assert_eq!(convert(&actor, &NO_RATES).label, "actor 0000000000000001 (\"counter\", app::Counter)");
        assert!(test_cluster::jobs()[0].action().is_err(), "the job has ended");
    }

    #[test]
    fn program_has_no_directory_and_keeps_its_arguments() {
        let programs = ["/usr/bin/count book/one.txt", "count a/b", "./count", "", "/"];
        assert_eq!(programs.map(program), ["count book/one.txt", "count a/b", "count", "", ""]);
    }

    #[test]
    fn dead_node_shows_no_capacity() {
        assert_eq!(held(&test_cluster::nodes()[2], Resources::CPU), Cell::Missing);
        assert_eq!(held(&test_cluster::nodes()[0], Resources::CPU).shown(), "0.5/4");
    }
}
