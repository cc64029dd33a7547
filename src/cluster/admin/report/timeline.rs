//! Timeline of a job as an SVG picture: when the job, its workers and its actors began and ended, and what ran.

use std::fmt::Write as _;

use super::JobReport;
use super::busy::BusyTimes;
use super::html::{duration, escaped};
use crate::cluster::model::{Severity, WorkerId};

/// Maximum number of workers and of actors in the picture.
const BARS_MAX: usize = 60;

/// Width of the picture. Its units are about pixels.
pub(super) const WIDTH: f64 = 1000.0;

/// Width of the column of names.
pub(super) const NAMES: f64 = 210.0;

/// Height of a row.
const ROW: f64 = 18.0;

/// Part of the picture behind the end of the job, for spans of machines whose clocks are ahead.
const CLOCK_DIFFERENCE_MS_MAX: u64 = 1000;

/// Life of something that ran.
struct Bar {
    name: String,
    /// Worker whose life it is.
    worker: Option<WorkerId>,
    kind: &'static str,
    start_ms: u64,
    /// `None` while it goes on.
    end_ms: Option<u64>,
    /// Explanation of its end, and of the bar.
    title: String,
}

/// Appends the picture.
pub(super) fn timeline(report: &JobReport, out: &mut String) {
    let (bars, left_out) = bars(report);
    let busy = BusyTimes::of(report);
    let start = bars.iter().map(|bar| bar.start_ms).min().unwrap_or(report.job.started_ms);
    let latest = report.job.ended_ms.unwrap_or(report.time_ms);
    let end = bars.iter().filter_map(|bar| bar.end_ms).chain(busy.end_ms()).max().unwrap_or(latest);
    // Clocks of machines differ: a time far off must not squeeze the picture.
    let end = end.min(latest.saturating_add(CLOCK_DIFFERENCE_MS_MAX)).max(latest).max(start + 1);
    let scale = Scale { start, span: end - start };
    let height = ROW * (bars.len() as f64 + 2.0);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<svg class=\"timeline\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"When the job, its workers and its actors began and ended\">"
    );
    scale.axis(height, out);
    for (row, bar) in bars.iter().enumerate() {
        bar.write(&scale, end, &busy, ROW * (row as f64 + 1.0), out);
    }
    for event in report.events.rows.iter().filter(|event| event.severity != Severity::Info) {
        let x = scale.x(event.time_ms);
        let _ = write!(
            out,
            "<line class=\"event\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{ROW}\" y2=\"{:.0}\"><title>{}</title></line>",
            height - ROW,
            escaped(&event.text)
        );
    }
    out.push_str("</svg>");
    busy.legend(out);
    if left_out > 0 {
        let _ = write!(out, "<p class=\"z\">{left_out} more workers and actors are not in the picture.</p>");
    }
}

/// Lives of the job, of its workers and of its actors, each by the time of the start.
fn bars(report: &JobReport) -> (Vec<Bar>, usize) {
    let job = Bar {
        name: "job".to_owned(),
        worker: None,
        kind: "job",
        start_ms: report.job.started_ms,
        end_ms: report.job.ended_ms,
        title: report.job.message.clone().unwrap_or_default(),
    };
    let workers = report.workers.rows.iter().filter_map(|worker| {
        Some(Bar {
            name: format!("worker {}", worker.worker_id),
            worker: Some(worker.worker_id),
            kind: "worker",
            start_ms: worker.started_ms?,
            end_ms: worker.ended_ms,
            title: worker.cause.clone().unwrap_or_default(),
        })
    });
    let actors = report.actors.rows.iter().filter_map(|actor| {
        let class = actor.class.rsplit("::").next().unwrap_or(&actor.class);
        Some(Bar {
            name: actor.name.clone().unwrap_or_else(|| format!("{class} {}", actor.actor_id)),
            worker: None,
            kind: "actor",
            start_ms: actor.started_ms?,
            end_ms: actor.ended_ms,
            title: actor.cause.clone().unwrap_or_default(),
        })
    });
    let (mut bars, mut left_out) = (vec![job], 0);
    for mut kind in [workers.collect::<Vec<_>>(), actors.collect()] {
        kind.sort_by_key(|bar| bar.start_ms);
        left_out += kind.len().saturating_sub(BARS_MAX);
        kind.truncate(BARS_MAX);
        bars.append(&mut kind);
    }
    (bars, left_out)
}

impl Bar {
    fn write(&self, scale: &Scale, now: u64, busy: &BusyTimes<'_>, y: f64, out: &mut String) {
        let (from, to) = (scale.x(self.start_ms), scale.x(self.end_ms.unwrap_or(now)));
        let lived = duration(self.end_ms.unwrap_or(now).saturating_sub(self.start_ms));
        let still = if self.end_ms.is_none() { " so far" } else { "" };
        let spans = self.worker.map_or(0, |worker| busy.count(worker));
        let drawn = if spans > 0 { format!(" {spans} messages and tasks are drawn.") } else { String::new() };
        // Names may be long; the tooltip has all of them.
        let name: String = self.name.chars().take(32).collect();
        let _ = write!(
            out,
            "<g><title>{}: {lived}{still}.{drawn} {}</title><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}{}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.0}\" rx=\"2\"/>",
            escaped(&self.name),
            escaped(&self.title),
            NAMES - 8.0,
            y + ROW * 0.7,
            escaped(&name),
            self.kind,
            // Pale behind its messages and tasks.
            if spans > 0 { " pale" } else { "" },
            y + 3.0,
            // A life of a few milliseconds must be visible.
            (to - from).max(2.0),
            ROW - 6.0,
        );
        if let Some(worker) = self.worker {
            busy.write(worker, scale, y + 3.0, ROW - 6.0, out);
        }
        out.push_str("</g>");
    }
}

/// Time axis: from times to positions.
pub(super) struct Scale {
    start: u64,
    /// Length of the axis in milliseconds, at least 1.
    span: u64,
}

impl Scale {
    fn x(&self, time_ms: u64) -> f64 {
        let part = time_ms.saturating_sub(self.start).min(self.span) as f64 / self.span as f64;
        NAMES + part * (WIDTH - NAMES - 10.0)
    }

    /// Position of a time in microseconds since 1970.
    pub(super) fn x_us(&self, time_us: u64) -> f64 {
        let part = (time_us as f64 / 1e3 - self.start as f64).clamp(0.0, self.span as f64) / self.span as f64;
        NAMES + part * (WIDTH - NAMES - 10.0)
    }

    fn axis(&self, height: f64, out: &mut String) {
        for tick in 0..=4 {
            let at = self.span * tick / 4;
            let x = self.x(self.start + at);
            let anchor = if tick == 4 { "end" } else { "middle" };
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{ROW}\" y2=\"{:.0}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{}</text>",
                height - ROW,
                ROW - 5.0,
                duration(at)
            );
        }
    }
}
