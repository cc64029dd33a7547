//! Page of a report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::html::{Cell, duration, escaped, micros, size, table, utc};
use super::timeline::timeline;
use super::{JobReport, LogTail};
use crate::cluster::model::{ActorState, EventInfo, WorkerState};

const STYLE: &str = include_str!("style.css");

/// Formats the whole file.
pub(super) fn page(report: &JobReport) -> String {
    let job = &report.job;
    let mut out = String::with_capacity(64 << 10);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Job {0} {1}: {2}</title><style>{STYLE}</style>\
         </head><body><header><h1>Job {0} <small>{1}</small></h1><p><code>{2}</code></p></header><main>",
        job.job_id,
        job.state.word(),
        escaped(&job.entrypoint)
    );
    summary(report, &mut out);
    missing(report, &mut out);
    section("Timeline", &mut out);
    timeline(report, &mut out);
    section("What ended, and why", &mut out);
    deaths(report, &mut out);
    section("Events", &mut out);
    events(report, &mut out);
    section("Tasks", &mut out);
    tasks(report, &mut out);
    section("Messages", &mut out);
    messages(report, &mut out);
    section("Workers", &mut out);
    workers(report, &mut out);
    section("Actors", &mut out);
    actors(report, &mut out);
    section("Nodes", &mut out);
    nodes(report, &mut out);
    section("Logs", &mut out);
    report.logs.iter().for_each(|log| self::log(log, &mut out));
    if report.logs.is_empty() {
        out.push_str("<p class=\"z\">There is no log: nothing was written, or no node has it any more.</p>");
    }
    data(report, &mut out);
    let _ = writeln!(
        out,
        "</main><footer>Roadshow {}, {} UTC. This file needs no network. Its data is in it as JSON.</footer>\
         </body></html>",
        escaped(&report.version),
        utc(report.time_ms)
    );
    out
}

fn section(name: &str, out: &mut String) {
    let _ = write!(out, "<h2>{name}</h2>");
}

/// Facts of the job in pairs of a name and a value.
fn summary(report: &JobReport, out: &mut String) {
    let job = &report.job;
    let end = job.ended_ms.unwrap_or(report.time_ms);
    let mut facts = vec![
        ("Started", format!("{} UTC", utc(job.started_ms))),
        ("Ended", job.ended_ms.map_or("it goes on".to_owned(), |ended| format!("{} UTC", utc(ended)))),
        ("Duration", duration(end.saturating_sub(job.started_ms))),
        ("Driver", format!("process {} on {}", job.pid, job.hostname)),
    ];
    if let Some(code) = job.exit_code {
        facts.push(("Exit code", code.to_string()));
    }
    if let Some(message) = &job.message {
        facts.push(("Message", message.clone()));
    }
    let (finished, failed) = report.tasks.rows.iter().fold((0, 0), |(finished, failed), task| {
        (finished + task.count.finished, failed + task.count.failed)
    });
    let handled: u64 = report.messages.rows.iter().map(|message| message.count.handled).sum();
    let count = |rows: usize, left_out: u64| (rows as u64 + left_out).to_string();
    facts.extend([
        ("Workers", count(report.workers.rows.len(), report.workers.left_out)),
        ("Actors", count(report.actors.rows.len(), report.actors.left_out)),
        ("Tasks", format!("{finished} finished, {failed} failed")),
        ("Messages handled", handled.to_string()),
    ]);
    out.push_str("<dl>");
    for (name, value) in facts {
        let _ = write!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&value));
    }
    out.push_str("</dl>");
}

fn missing(report: &JobReport, out: &mut String) {
    if !report.missing.is_empty() {
        out.push_str("<h2>Not in this report</h2><ul>");
        for text in &report.missing {
            let _ = write!(out, "<li>{}</li>", escaped(text));
        }
        out.push_str("</ul>");
    }
}

/// Ends with a cause, with equal causes in one row.
fn deaths(report: &JobReport, out: &mut String) {
    let workers = report.workers.rows.iter().filter(|worker| worker.state == WorkerState::Dead);
    let workers = workers.map(|worker| ("worker", worker.cause.as_deref(), worker.worker_id.to_string()));
    let actors = report.actors.rows.iter().filter(|actor| actor.state == ActorState::Dead);
    let actors = actors.map(|actor| ("actor", actor.cause.as_deref(), actor.actor_id.to_string()));
    let mut causes: BTreeMap<(&str, &str), (u64, String)> = BTreeMap::new();
    for (kind, cause, id) in workers.chain(actors) {
        let (count, example) = causes.entry((kind, cause.unwrap_or("no cause is known"))).or_default();
        *count += 1;
        *example = id;
    }
    let mut rows: Vec<_> = causes.into_iter().collect();
    rows.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let rows = rows.into_iter().map(|((kind, cause), (count, example))| {
        let text = |text: &str| Cell::Text(text.to_owned());
        vec![text(kind), text(cause), Cell::number(count), Cell::code(example)]
    });
    table(out, &["Kind", "Cause", "Count", "Last"], rows, 0, "No worker and no actor has ended.");
}

fn events(report: &JobReport, out: &mut String) {
    let place = |event: &EventInfo| {
        let actor = event.actor_id.map(|id| format!("actor {id}"));
        let worker = event.worker_id.map(|id| format!("worker {id}"));
        actor.or(worker).or(event.node_id.map(|id| format!("node {id}")))
    };
    let rows = report.events.rows.iter().map(|event| {
        vec![
            Cell::code(utc(event.time_ms)),
            Cell::State(event.severity.word()),
            Cell::code(event.kind.word()),
            Cell::optional(place(event)),
            Cell::Text(event.text.clone()),
        ]
    });
    let empty = "The head has no event of this job.";
    table(out, &["Time (UTC)", "Severity", "Kind", "Of", "Event"], rows, report.events.left_out, empty);
}

fn tasks(report: &JobReport, out: &mut String) {
    let rows = report.tasks.rows.iter().map(|task| {
        vec![
            Cell::code(&task.count.name),
            Cell::code(task.worker_id),
            Cell::number(task.count.finished),
            Cell::number(task.count.failed),
            Cell::number(task.count.running),
            Cell::number(task.count.queued),
            task.count.p50_us.map_or(Cell::Nothing, |us| Cell::Number(micros(us))),
            task.count.p99_us.map_or(Cell::Nothing, |us| Cell::Number(micros(us))),
        ]
    });
    let headers = ["Function", "Worker", "Finished", "Failed", "Running", "Queued", "p50", "p99"];
    table(out, &headers, rows, report.tasks.left_out, "The job has run no task.");
}

fn messages(report: &JobReport, out: &mut String) {
    let rows = report.messages.rows.iter().map(|message| {
        vec![
            Cell::code(&message.count.class),
            Cell::code(&message.count.message),
            Cell::code(message.worker_id),
            Cell::number(message.count.handled),
            message.count.p50_us.map_or(Cell::Nothing, |us| Cell::Number(micros(us))),
            message.count.p99_us.map_or(Cell::Nothing, |us| Cell::Number(micros(us))),
        ]
    });
    let headers = ["Actor", "Message", "Worker", "Handled", "p50", "p99"];
    table(out, &headers, rows, report.messages.left_out, "No actor of the job has reported a message.");
}

fn workers(report: &JobReport, out: &mut String) {
    let rows = report.workers.rows.iter().map(|worker| {
        let usage = worker.usage.as_ref();
        vec![
            Cell::code(worker.worker_id),
            Cell::State(worker.state.word()),
            Cell::code(worker.node_id),
            Cell::number(worker.pid),
            Cell::number(worker.actors),
            usage.map_or(Cell::Nothing, |usage| Cell::Number(format!("{:.1} s", usage.cpu_seconds))),
            usage.map_or(Cell::Nothing, |usage| Cell::Number(size(usage.memory_bytes))),
            usage.map_or(Cell::Nothing, |usage| Cell::number(usage.handled)),
            Cell::optional(worker.cause.as_deref()),
        ]
    });
    let headers =
        ["Worker", "State", "Node", "PID", "Actors", "CPU", "Memory", "Handled", "Cause of the end"];
    table(out, &headers, rows, report.workers.left_out, "The job has no worker.");
}

fn actors(report: &JobReport, out: &mut String) {
    let rows = report.actors.rows.iter().map(|actor| {
        vec![
            Cell::code(actor.actor_id),
            Cell::code(&actor.class),
            Cell::State(actor.state.word()),
            Cell::optional(actor.name.as_deref()),
            actor.worker_id.map_or(Cell::Nothing, Cell::code),
            Cell::number(actor.restarts),
            actor.handled.map_or(Cell::Nothing, Cell::number),
            Cell::optional(actor.cause.as_deref().or(actor.restart_cause.as_deref())),
        ]
    });
    let headers = ["Actor", "Class", "State", "Name", "Worker", "Restarts", "Handled", "Cause"];
    table(out, &headers, rows, report.actors.left_out, "The job has no actor.");
}

fn nodes(report: &JobReport, out: &mut String) {
    let rows = report.nodes.iter().map(|node| {
        vec![
            Cell::code(node.node_id),
            Cell::State(node.state.word()),
            Cell::Text(node.hostname.clone()),
            Cell::code(node.address),
            Cell::number(node.workers),
            Cell::number(node.actors),
            Cell::optional(node.cause.as_deref()),
        ]
    });
    let headers = ["Node", "State", "Host", "Address", "Workers", "Actors", "Cause of the end"];
    table(out, &headers, rows, 0, "The cluster has no node.");
}

fn log(log: &LogTail, out: &mut String) {
    let rest = log.size.saturating_sub(log.text.len() as u64);
    let cut = if rest > 0 {
        format!(", the last {} of {}", size(log.text.len() as u64), size(log.size))
    } else {
        String::new()
    };
    let _ = write!(
        out,
        "<details><summary><code>{}</code> on the node {}{cut}</summary><pre>{}</pre></details>",
        escaped(&log.file),
        log.node_id,
        escaped(&crate::cluster::admin::harmless(&log.text))
    );
}

/// Appends the data, for programs.
fn data(report: &JobReport, out: &mut String) {
    // The types have no maps with keys that are not text, so this does not fail.
    if let Ok(json) = serde_json::to_string(report) {
        // Within a script element only `</` and `<!--` have a meaning.
        let json = json.replace('<', "\\u003c");
        let _ = write!(out, "<script type=\"application/json\" id=\"report\">{json}</script>");
    }
}
