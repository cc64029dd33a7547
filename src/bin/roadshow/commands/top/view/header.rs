//! Lines above the table: connection, counts, alerts, what waits, and the views.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use roadshow::model::{NodeInfo, NodeState, Quantity, Resources};

use super::Look;
use crate::cli::values::significant;
use crate::commands::top::columns::{Tone, per_second};
use crate::commands::top::model::{CLUSTER, Connection, Model};
use crate::commands::top::sample::{Summary, View};
use crate::output::rows::{last_part, quantity, word};
use crate::output::table::{memory, safe};

/// Maximum number of lines for alerts, and as many for what waits.
const NOTES_MAX: usize = 3;

/// Indentation below the heading of a note.
const INDENT: &str = "        ";

/// Age in seconds from which a sample is called old. A refresh takes at most a few seconds.
const OLD_SECONDS: u64 = 5;

/// Title, and counts of the cluster.
pub(super) fn lines<'a>(model: &'a Model, look: Look, width: u16) -> Vec<Line<'a>> {
    let mut lines = vec![title(model, look, width)];
    match &model.summary {
        Some(summary) => lines.extend(counts(summary, model)),
        None => lines.push(Line::from("waiting for the head")),
    }
    lines
}

fn title<'a>(model: &'a Model, look: Look, width: u16) -> Line<'a> {
    let age = model.now.saturating_sub(model.sampled_at).as_secs();
    let (state, style) = match &model.connection {
        Connection::Opening => ("connecting".to_owned(), Style::new()),
        Connection::Live if age >= OLD_SECONDS => (format!("updated {age} s ago"), look.tone(Tone::Waiting)),
        Connection::Live => ("live".to_owned(), look.tone(Tone::Good)),
        Connection::Lost { retry_at, .. } => {
            let left = retry_at.saturating_sub(model.now).as_secs_f64().ceil();
            (format!("CONNECTION LOST, retrying in {left} s"), look.bad())
        }
    };
    // The state of the connection matters more than the name, for which a narrow terminal has no room.
    let room = usize::from(width).saturating_sub(state.len() + 2);
    let names = [format!("roadshow top  {}", model.address), model.address.clone(), String::new()];
    let name = names.into_iter().find(|name| name.len() <= room).unwrap_or_default();
    let gap = usize::from(width).saturating_sub(name.len() + state.len());
    Line::from(vec![
        Span::styled(name, Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(" ".repeat(gap)),
        Span::styled(state, style),
    ])
}

fn counts<'a>(summary: &Summary, model: &Model) -> [Line<'a>; 4] {
    let Summary { nodes, actors, tasks, .. } = summary;
    let in_state = |state: NodeState| nodes.iter().filter(|node| node.state == state).count();
    let alive = nodes.iter().filter(|node| node.state != NodeState::Dead);
    let alive: Vec<&NodeInfo> = alive.collect();
    // The head lists dead nodes last, so only they can be among those that it left out.
    let total = nodes.len() as u64 + summary.more_nodes;
    let mut nodes_text = format!("Nodes   {}/{total} alive", in_state(NodeState::Alive));
    let others = [NodeState::Draining, NodeState::Unreachable, NodeState::Rejoining];
    for (state, count) in others.map(|state| (state, in_state(state))) {
        if count > 0 {
            nodes_text += &format!(", {count} {}", word(&state).to_lowercase());
        }
    }
    let workers: usize = alive.iter().map(|node| node.workers).sum();
    let restarting = match actors.restarting {
        0 => String::new(),
        restarting => format!(", {restarting} restarting"),
    };
    let rate = model.rates.of(CLUSTER, "done").map_or_else(|| "-".to_owned(), per_second);
    [
        Line::from(format!(
            "{nodes_text}   Workers {workers}   Jobs {} running, {} pending",
            summary.jobs_running, summary.jobs_pending
        )),
        Line::from(machines(&alive)),
        Line::from(format!(
            "Actors  {} alive, {} pending{restarting}, {} dead",
            actors.alive, actors.pending, actors.dead
        )),
        Line::from(format!(
            "Tasks   {rate}   {} queued, {} running, {} finished, {} failed",
            tasks.queued, tasks.running, tasks.finished, tasks.failed
        )),
    ]
}

/// CPU and memory of the nodes together.
fn machines(nodes: &[&NodeInfo]) -> String {
    let sum = |resource: fn(&NodeInfo) -> u64| nodes.iter().map(|node| resource(node)).sum::<u64>();
    let total = Quantity(sum(|node| quantity(&node.resources, Resources::CPU).0));
    let available = sum(|node| quantity(&node.available, Resources::CPU).0);
    let held = Quantity(total.0.saturating_sub(available));
    let usages: Vec<_> = nodes.iter().filter_map(|node| node.usage).collect();
    if usages.is_empty() {
        return format!("CPU     {held}/{total} held   load -   Memory -");
    }
    let load: f64 = usages.iter().map(|usage| usage.load).sum();
    let used: u64 = usages.iter().map(|usage| usage.memory_bytes).sum();
    let workers: u64 = usages.iter().map(|usage| usage.workers_memory_bytes).sum();
    format!(
        "CPU     {held}/{total} held   load {load:.2}   Memory {} used, {} by workers",
        memory(used as f64),
        memory(workers as f64)
    )
}

/// Alerts, and what waits and why.
pub(super) fn notes<'a>(model: &Model, look: Look, width: u16) -> Vec<Line<'a>> {
    let Some(summary) = &model.summary else { return Vec::new() };
    let mut lines: Vec<Line<'a>> = Vec::new();
    for alert in summary.alerts.iter().take(NOTES_MAX) {
        let text = format!("ALERT   {}: {}", word(&alert.kind), safe(&alert.text));
        lines.extend(wrapped(&text, width).map(|line| Line::styled(line, look.bad())));
    }
    lines.extend(more(summary.alerts.len(), summary.alerts.len(), "alerts; `roadshow status` shows them"));
    for pending in summary.waiting.iter().take(NOTES_MAX) {
        let (class, reason) = (safe(last_part(&pending.class)), safe(&pending.reason));
        let job = pending.job_id.to_string();
        let text = format!("WAITS   {class} of job {}: {reason}", significant(&job));
        lines.extend(wrapped(&text, width).map(|line| Line::styled(line, look.tone(Tone::Waiting))));
    }
    lines.extend(more(
        summary.waiting_count,
        summary.waiting.len(),
        "wait; `roadshow list actors` has the reasons",
    ));
    lines
}

/// Lines of a note, at most two: the cause, which is at its end, is what a reader looks for.
fn wrapped(text: &str, width: u16) -> impl Iterator<Item = String> {
    let width = usize::from(width);
    let end = text.char_indices().nth(width).map_or(text.len(), |(end, _)| end);
    let at = match end < text.len() {
        // Behind the heading of eight characters: a word that is longer than the line is cut.
        true => text[..end].rfind(' ').filter(|at| *at > INDENT.len()).unwrap_or(end),
        false => end,
    };
    let rest = text[at..].trim_start();
    let second = (!rest.is_empty()).then(|| format!("{INDENT}{rest}"));
    [text[..at].to_owned()].into_iter().chain(second)
}

/// Number of entries behind the shown ones. The head sends only the first `sent` of `count`.
fn more<'a>(count: usize, sent: usize, what: &str) -> Option<Line<'a>> {
    let hidden = count.saturating_sub(sent.min(NOTES_MAX));
    (hidden > 0).then(|| Line::from(format!("{INDENT}and {hidden} more {what}")))
}

/// Views, the shown one in brackets, and the number of its rows.
pub(super) fn views<'a>(model: &Model) -> Line<'a> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let (open, close) = if view == model.view { ("[", "]") } else { (" ", " ") };
        let style = if view == model.view { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        spans.push(Span::styled(format!("{open}{number} {}{close}", view.title()), style));
    }
    spans.push(Span::raw(format!("  {}", extent(model))));
    Line::from(spans)
}

/// Number of shown rows, and of those that the head left out.
fn extent(model: &Model) -> String {
    let Some(table) = model.table.as_ref().filter(|table| table.view == model.view) else {
        return String::new();
    };
    let (loaded, visible) = (table.rows.len(), model.visible().len());
    let mut text = match visible == loaded {
        true => format!("{loaded}"),
        false => format!("{visible} of {loaded}"),
    };
    if table.more > 0 {
        let total = loaded as u64 + table.more;
        text += &format!(", first {loaded} of {total}");
    }
    match model.state().filter.as_str() {
        "" => text,
        filter => format!("{text}, filter {filter:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_note_goes_on_in_a_second_line() {
        let lines = |text: &str, width| wrapped(text, width).collect::<Vec<_>>();
        assert_eq!(lines("WAITS   A: no cpu", 20), ["WAITS   A: no cpu"]);
        assert_eq!(lines("WAITS   A: no cpu is left", 23), ["WAITS   A: no cpu is", "        left"]);
        assert_eq!(
            lines("WAITS   \u{e4}\u{e4}\u{e4}\u{e4}", 10),
            ["WAITS   \u{e4}\u{e4}", "        \u{e4}\u{e4}"]
        );
    }
}
