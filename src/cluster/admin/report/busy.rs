//! Handlers and tasks within the bars of the timeline's workers.
//!
//! A bar is divided into columns. A column has the colour of the name that takes most of its time, so the number of
//! shapes is bounded, and no span is too short to be seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::JobReport;
use super::html::{escaped, micros};
use super::timeline::{NAMES, Scale, WIDTH};
use crate::cluster::model::{Span, WorkerId};

/// Number of names with a colour of their own; the others share one.
const COLOURS: usize = 6;

/// Width of a column.
const COLUMN: f64 = 2.0;

/// Columns of a bar.
const COLUMNS: usize = ((WIDTH - NAMES) / COLUMN) as usize;

/// Spans of a report by worker, and the colours of their names.
pub(super) struct BusyTimes<'a> {
    report: &'a JobReport,
    workers: BTreeMap<WorkerId, Vec<&'a Span>>,
    /// Names with the sum of their times, the largest first.
    names: Vec<(u16, u64)>,
}

impl<'a> BusyTimes<'a> {
    pub(super) fn of(report: &'a JobReport) -> Self {
        let (mut workers, mut times) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<u16, u64>::new());
        for span in &report.spans.spans {
            let Some(lane) = report.spans.lanes.get(usize::from(span.lane)) else { continue };
            workers.entry(lane.worker_id).or_default().push(span);
            let time = times.entry(span.name).or_default();
            // At least a microsecond, so that the quickest name has a colour.
            *time = time.saturating_add(span.duration_us.max(1));
        }
        let mut names: Vec<_> = times.into_iter().collect();
        names.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        Self { report, workers, names }
    }

    /// Number of spans of a worker.
    pub(super) fn count(&self, worker: WorkerId) -> usize {
        self.workers.get(&worker).map_or(0, Vec::len)
    }

    /// Latest end of all spans, in milliseconds since 1970.
    pub(super) fn end_ms(&self) -> Option<u64> {
        let ends = self.report.spans.spans.iter();
        ends.map(|span| span.start_us.saturating_add(span.duration_us).div_ceil(1000)).max()
    }

    /// Appends the shapes of a worker, between `y` and `y + height`.
    pub(super) fn write(&self, worker: WorkerId, scale: &Scale, y: f64, height: f64, out: &mut String) {
        let Some(spans) = self.workers.get(&worker) else { return };
        let mut paths = [const { String::new() }; COLOURS + 1];
        for (from, to, colour) in runs(&self.columns(spans, scale)) {
            let (x, width) = (NAMES + from as f64 * COLUMN, (to - from) as f64 * COLUMN);
            // Writing to a string cannot fail.
            let _ = write!(paths[colour], "M{x:.0} {y:.0}h{width:.0}v{height:.0}h-{width:.0}z");
        }
        for (colour, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
            let _ = write!(out, "<path class=\"k{colour}\" d=\"{path}\"/>");
        }
    }

    /// Colour of each column.
    fn columns(&self, spans: &[&Span], scale: &Scale) -> Vec<Option<usize>> {
        let mut times = vec![[0.0; COLOURS + 1]; COLUMNS];
        for span in spans {
            let end_us = span.start_us.saturating_add(span.duration_us);
            let [from, to] = [span.start_us, end_us].map(|us| (scale.x_us(us) - NAMES) / COLUMN);
            let first = (from as usize).min(COLUMNS - 1);
            let last = (to as usize).clamp(first, COLUMNS - 1);
            let colour = self.colour(span.name);
            for (column, times) in times.iter_mut().enumerate().take(last + 1).skip(first) {
                let covered = to.min(column as f64 + 1.0) - from.max(column as f64);
                times[colour] += covered.max(f64::EPSILON);
            }
        }
        let longest = |times: [f64; COLOURS + 1]| {
            let longest = times.into_iter().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
            longest.filter(|(_, time)| *time > 0.0).map(|(colour, _)| colour)
        };
        times.into_iter().map(longest).collect()
    }

    fn colour(&self, name: u16) -> usize {
        self.names.iter().take(COLOURS).position(|(other, _)| *other == name).unwrap_or(COLOURS)
    }

    /// Appends the names of the colours.
    pub(super) fn legend(&self, out: &mut String) {
        if self.names.is_empty() {
            return;
        }
        out.push_str("<p class=\"key\">");
        for (colour, (name, time)) in self.names.iter().take(COLOURS).enumerate() {
            let name = self.report.spans.names.get(usize::from(*name));
            let name = name.map_or_else(String::new, |name| name.short());
            let _ = write!(
                out,
                "<span><i class=\"k{colour}\"></i>{} <span class=\"z\">{}</span></span> ",
                escaped(&name),
                micros(*time)
            );
        }
        if self.names.len() > COLOURS {
            let _ =
                write!(out, "<span><i class=\"k{COLOURS}\"></i>{} others</span>", self.names.len() - COLOURS);
        }
        let shown = self.report.spans.spans.len() as u64;
        let _ = write!(
            out,
            "</p><p class=\"z\">{shown} messages and tasks are drawn, of {} that were timed.</p>",
            shown.saturating_add(self.report.spans.left_out)
        );
    }
}

/// Columns of one colour in a row: first, end and colour.
fn runs(columns: &[Option<usize>]) -> Vec<(usize, usize, usize)> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (column, colour) in columns.iter().enumerate().filter_map(|(at, colour)| Some((at, (*colour)?))) {
        match runs.last_mut() {
            Some((_, end, last)) if *end == column && *last == colour => *end += 1,
            _ => runs.push((column, column + 1, colour)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_colour_are_one_shape() {
        let columns = [None, Some(1), Some(1), Some(0), None, Some(0)];
        assert_eq!(runs(&columns), [(1, 3, 1), (3, 4, 0), (5, 6, 0)]);
    }
}
