//! History: series of the cluster and of its nodes over a day, in a fixed amount of memory.
//!
//! | range | step | points |
//! |---|---|---|
//! | 15 min | 2 s | 450 |
//! | 1 h | 15 s | 240 |
//! | 24 h | 60 s | 1,440 |
//!
//! A point is the mean of the samples in its step. A step without a sample, as while the head was down, has no value.
//! All series of a range share its time axis: a ring of steps that are counted from 1970, with the newest as its end.

mod file;
pub(super) mod rates;
pub(super) mod sampler;
pub(super) mod series;

use std::collections::BTreeMap;
use std::ops::Range;

pub(super) use file::{HistoryFile, path};
use series::{Reading, Sample};

use crate::cluster::model::NodeId;
use crate::config::HISTORY_NODES_MAX;

/// Range of the history with its step.
#[derive(Clone, Copy, Debug)]
struct Resolution {
    name: &'static str,
    step_ms: u64,
    points: usize,
}

const RESOLUTIONS: [Resolution; 3] = [
    Resolution { name: "15m", step_ms: 2_000, points: 450 },
    Resolution { name: "1h", step_ms: 15_000, points: 240 },
    Resolution { name: "24h", step_ms: 60_000, points: 1_440 },
];

/// Points of one series, of all ranges.
const POINTS: usize = RESOLUTIONS[0].points + RESOLUTIONS[1].points + RESOLUTIONS[2].points;

/// Steps by which the clock may be behind the newest point, as after a restart of the head.
const STEPS_BACK_MAX: u64 = 5;

/// Absence after which a node gives its place to a new one.
const FORGET_AFTER_MS: u64 = 60_000;

/// Series of the cluster and of its nodes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct History {
    /// Newest step of each range; 0 before the first sample.
    newest: [u64; RESOLUTIONS.len()],
    cluster: Rings,
    nodes: BTreeMap<NodeId, NodeRings>,
}

#[derive(Clone, Debug, PartialEq)]
struct NodeRings {
    /// Time of the latest sample.
    last_ms: u64,
    rings: Rings,
}

/// Rings of the series of one owner, each with the points of all ranges. NaN is a point without a value.
#[derive(Clone, Debug)]
struct Rings {
    points: Vec<f32>,
    /// Samples in the newest step of each series and range.
    samples: Vec<u16>,
}

/// Time axis of one range.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TimeAxis {
    pub(super) time_ms: Vec<u64>,
    /// Slots of the points within a ring, in order of time.
    slots: Vec<usize>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { newest: [0; RESOLUTIONS.len()], cluster: Rings::new(series::COUNT), nodes: BTreeMap::new() }
    }

    /// Adds a sample.
    pub(super) fn record(&mut self, sample: &Sample) {
        self.make_places(sample);
        for (at, resolution) in RESOLUTIONS.iter().enumerate() {
            let step = self.advance(at, resolution, sample.time_ms / resolution.step_ms);
            let slot = offset(at) + slot(step, resolution);
            self.cluster.add(at, slot, &sample.cluster);
            for (node, reading) in &sample.nodes {
                if let Some(kept) = self.nodes.get_mut(node) {
                    kept.last_ms = sample.time_ms;
                    kept.rings.add(at, slot, reading);
                }
            }
        }
    }

    /// Gives new nodes places, in the stead of nodes that are gone if there are too many.
    fn make_places(&mut self, sample: &Sample) {
        for node in sample.nodes.keys() {
            if self.nodes.contains_key(node) {
                continue;
            }
            if self.nodes.len() >= HISTORY_NODES_MAX {
                let gone = self.nodes.iter().filter(|(node, _)| !sample.nodes.contains_key(node));
                let oldest = gone.min_by_key(|(_, kept)| kept.last_ms);
                match oldest.map(|(node, kept)| (*node, kept.last_ms)) {
                    Some((gone, last_ms)) if last_ms + FORGET_AFTER_MS < sample.time_ms => {
                        self.nodes.remove(&gone);
                    }
                    _ => continue,
                }
            }
            let rings = Rings::new(series::OF_NODES);
            self.nodes.insert(*node, NodeRings { last_ms: sample.time_ms, rings });
        }
    }

    /// Moves the end of a range to a step, and returns the step that takes the sample.
    fn advance(&mut self, at: usize, resolution: &Resolution, step: u64) -> u64 {
        let newest = self.newest[at];
        if step <= newest && newest - step <= STEPS_BACK_MAX {
            return newest;
        }
        // A clock that was set back by more makes the old points meaningless.
        let first = if step > newest { newest + 1 } else { 0 };
        let count = step.saturating_sub(first).saturating_add(1).min(resolution.points as u64);
        let cleared: Vec<usize> = match step > newest {
            true => (0..count).map(|back| slot(step - back, resolution)).collect(),
            false => (0..resolution.points).collect(),
        };
        for rings in self.nodes.values_mut().map(|kept| &mut kept.rings).chain([&mut self.cluster]) {
            rings.clear(at, &cleared);
        }
        self.newest[at] = step;
        step
    }

    /// Time axis of a range; `None` if there is no such range.
    pub(super) fn range(&self, name: &str) -> Option<TimeAxis> {
        let at = RESOLUTIONS.iter().position(|resolution| resolution.name == name)?;
        let (resolution, newest) = (&RESOLUTIONS[at], self.newest[at]);
        let count = newest.min(resolution.points as u64);
        let steps = || (newest - count + 1)..=newest;
        Some(TimeAxis {
            time_ms: steps().map(|step| step * resolution.step_ms).collect(),
            slots: steps().map(|step| offset(at) + slot(step, resolution)).collect(),
        })
    }

    /// Points of a series of the cluster, or of a node; `None` if the owner has no such series.
    pub(super) fn points(
        &self,
        range: &TimeAxis,
        node: Option<NodeId>,
        series: usize,
    ) -> Option<Vec<Option<f32>>> {
        let rings = match node {
            None => &self.cluster,
            Some(node) => &self.nodes.get(&node)?.rings,
        };
        let ring = rings.points.get(Rings::ring(series))?;
        Some(range.slots.iter().map(|slot| Some(ring[*slot]).filter(|value| value.is_finite())).collect())
    }

    /// Nodes with series.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }
}

impl Rings {
    fn new(series: usize) -> Self {
        Self { points: vec![f32::NAN; series * POINTS], samples: vec![0; series * RESOLUTIONS.len()] }
    }

    fn ring(series: usize) -> Range<usize> {
        series * POINTS..(series + 1) * POINTS
    }

    /// Adds a sample to the points of a slot in the newest step of a range.
    fn add(&mut self, at: usize, slot: usize, reading: &Reading) {
        let series = self.points.len() / POINTS;
        for (series, value) in reading.iter().take(series).enumerate() {
            let Some(value) = value else { continue };
            // Charts have fewer digits than the mantissa of 24 bits.
            let value = *value as f32;
            let point = &mut self.points[series * POINTS + slot];
            let samples = &mut self.samples[series * RESOLUTIONS.len() + at];
            *samples = samples.saturating_add(1);
            *point = if point.is_finite() { *point + (value - *point) / f32::from(*samples) } else { value };
        }
    }

    /// Clears slots of a range, of all series.
    fn clear(&mut self, at: usize, slots: &[usize]) {
        for ring in self.points.chunks_exact_mut(POINTS) {
            slots.iter().for_each(|slot| ring[offset(at) + slot] = f32::NAN);
        }
        for samples in self.samples.chunks_exact_mut(RESOLUTIONS.len()) {
            samples[at] = 0;
        }
    }
}

impl PartialEq for Rings {
    /// Compares the points bit by bit: a point without a value equals another one.
    fn eq(&self, other: &Self) -> bool {
        self.points.len() == other.points.len()
            && self.points.iter().zip(&other.points).all(|(one, other)| one.to_bits() == other.to_bits())
    }
}

/// Start of a range within a ring.
fn offset(at: usize) -> usize {
    RESOLUTIONS[..at].iter().map(|resolution| resolution.points).sum()
}

/// Slot of a step within its range.
fn slot(step: u64, resolution: &Resolution) -> usize {
    // The remainder is smaller than the number of points, which is a usize.
    (step % resolution.points as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Start of a minute, so that all ranges begin a step.
    const START_MS: u64 = 1_800_000_000_000;

    fn sample(time_ms: u64, actors: f64, cpu: &[(u64, f64)]) -> Sample {
        let mut sample = Sample { time_ms, ..Sample::default() };
        sample.cluster[series::number("actors").unwrap()] = Some(actors);
        for (node, percent) in cpu {
            let mut reading = Reading::default();
            reading[series::number("cpu_percent").unwrap()] = Some(*percent);
            sample.nodes.insert(NodeId(*node), reading);
        }
        sample
    }

    fn shown(history: &History, range: &str, node: Option<u64>, name: &str) -> Vec<Option<f32>> {
        let range = history.range(range).unwrap();
        history.points(&range, node.map(NodeId), series::number(name).unwrap()).unwrap()
    }

    #[test]
    fn points_are_means_of_their_steps_and_gaps_have_no_value() {
        let mut history = History::new();
        for (after_ms, actors) in [(0, 1.0), (2_000, 3.0), (4_000, 5.0), (30_000, 7.0)] {
            history.record(&sample(START_MS + after_ms, actors, &[]));
        }
        let minutes = shown(&history, "15m", None, "actors");
        assert_eq!(minutes.len(), 450);
        assert_eq!(minutes[449 - 15..449 - 12], [Some(1.0), Some(3.0), Some(5.0)]);
        assert_eq!(minutes[449 - 12..449], [None; 12]);
        assert_eq!(minutes[449], Some(7.0));
        assert_eq!(shown(&history, "1h", None, "actors")[237..], [Some(3.0), None, Some(7.0)]);
        assert_eq!(shown(&history, "24h", None, "actors")[1439], Some(4.0));
        let range = history.range("1h").unwrap();
        assert_eq!(range.time_ms.last(), Some(&(START_MS + 30_000)));
        assert_eq!(history.range("2h"), None);
    }

    #[test]
    fn old_points_are_overwritten_and_a_long_gap_clears_a_range() {
        let mut history = History::new();
        for step in 0..1000 {
            history.record(&sample(START_MS + 2_000 * step, step as f64, &[]));
        }
        let points = shown(&history, "15m", None, "actors");
        assert_eq!((points[0], points[449]), (Some(550.0), Some(999.0)));
        history.record(&sample(START_MS + 10_000_000, 1.0, &[]));
        assert_eq!(shown(&history, "15m", None, "actors").iter().flatten().count(), 1);
        assert!(shown(&history, "24h", None, "actors").iter().flatten().count() > 30);
    }

    #[test]
    fn clock_that_was_set_back_clears_what_was_later() {
        let mut history = History::new();
        history.record(&sample(START_MS, 1.0, &[]));
        history.record(&sample(START_MS - 2_000, 3.0, &[]));
        assert_eq!(shown(&history, "15m", None, "actors")[449], Some(2.0));
        history.record(&sample(START_MS - 3_600_000, 9.0, &[]));
        assert_eq!(shown(&history, "15m", None, "actors").iter().flatten().collect::<Vec<_>>(), [&9.0]);
    }

    #[test]
    fn nodes_are_bounded_and_a_node_that_is_gone_gives_its_place() {
        let mut history = History::new();
        let all: Vec<(u64, f64)> = (0..HISTORY_NODES_MAX as u64 + 1).map(|node| (node, 1.0)).collect();
        history.record(&sample(START_MS, 0.0, &all));
        assert_eq!(history.nodes().count(), HISTORY_NODES_MAX);
        let last = NodeId(HISTORY_NODES_MAX as u64);
        assert!(!history.nodes().any(|node| node == last));
        history.record(&sample(START_MS + 2 * FORGET_AFTER_MS, 0.0, &all[1..]));
        history.record(&sample(START_MS + 2 * FORGET_AFTER_MS + 2_000, 0.0, &all[1..]));
        assert!(history.nodes().any(|node| node == last), "the node that is gone keeps its place");
        assert_eq!(shown(&history, "15m", Some(last.0), "cpu_percent")[449], Some(1.0));
    }

    #[test]
    fn points_take_the_documented_memory() {
        assert_eq!(POINTS, 2130);
        let of_node = series::OF_NODES * POINTS * size_of::<f32>();
        assert_eq!(of_node, 51_120);
    }
}
