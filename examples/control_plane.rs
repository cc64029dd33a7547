//! Measures the control plane on a cluster that exists in it alone:
//! `cargo run --release --features cli --example control_plane`.
//!
//! It prints what a decision, a heartbeat and an actor cost in time and memory, and how that grows with
//! the number of nodes: nanoseconds, and the bytes that were allocated meanwhile. On a machine that does
//! other things as well, the median says most. Nothing is sent, and nothing is written to disk.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use clap::Parser;
use roadshow::ControlPlaneBench;

/// Measures the control plane.
#[derive(Debug, Parser)]
struct Args {
    /// How many nodes the largest cluster has; it is measured with a tenth and a hundredth of them, too.
    #[arg(long, default_value_t = 10_000)]
    nodes: u64,
    /// How many actors live on each node, which then is full.
    #[arg(long, default_value_t = 100)]
    actors: u32,
    /// How many decisions of each kind.
    #[arg(long, default_value_t = 100_000)]
    decisions: u64,
}

/// How many heartbeats of every node.
const BEATS: u64 = 30;

/// How many lists, and how many nodes that join.
const LISTS: u64 = 20;
const JOINS: u64 = 50;

/// Counts what is asked of the system's allocator.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe to write; this one hands on to the system's")]
// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        ASKED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promises are those that this needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(size, Relaxed);
        HELD.fetch_sub(layout.size(), Relaxed);
        ASKED.fetch_add(size, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What something costs.
struct Cost {
    /// How long each took, in nanoseconds.
    took: Vec<u64>,
    asked: usize,
}

impl Cost {
    /// With room for so many, lest that count as theirs.
    fn of_up_to(count: u64) -> Self {
        Self { took: Vec::with_capacity(usize::try_from(count).unwrap_or(0)), asked: 0 }
    }

    fn of<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let (asked, start) = (ASKED.load(Relaxed), Instant::now());
        let result = what();
        self.took.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.asked += ASKED.load(Relaxed) - asked;
        result
    }

    /// Prints what one of `parts` equal parts costs.
    fn print(mut self, what: &str, parts: u64) {
        self.took.sort_unstable();
        let count = self.took.len();
        let [median, longest] = [count / 2, count - 1].map(|at| self.took[at] / parts);
        let mean = self.took.iter().sum::<u64>() / count as u64 / parts;
        let asked = self.asked as u64 / count as u64 / parts;
        println!("  {what:<48} {median:>8} {mean:>8} {longest:>11} {asked:>8}");
    }
}

fn measure(nodes: u64, args: &Args) {
    let held = |since: usize| HELD.load(Relaxed).saturating_sub(since) as f64;
    let before = HELD.load(Relaxed);
    let mut cluster = ControlPlaneBench::new(nodes, args.actors);
    let actors = nodes * u64::from(args.actors);
    println!(
        "{nodes} nodes with 4 workers each ({:.0} bytes a node), {actors} actors",
        held(before) / nodes as f64
    );

    let [mut place, mut begin] = [(); 2].map(|()| Cost::of_up_to(actors + 1));
    let before = HELD.load(Relaxed);
    while place.of(|| cluster.place(None)) {
        begin.of(|| cluster.begin());
    }
    assert_eq!(begin.took.len() as u64, actors, "as many actors are placed as there is room for");
    println!("  an actor takes {:.0} bytes", held(before) / actors as f64);
    println!("  {:48} {:>8} {:>8} {:>11} {:>8}", "", "median", "mean", "longest ns", "bytes");
    place.print("a place, while there is room", 1);
    begin.print("an actor begins", 1);

    // The one who found no room waits, and gets the first place that is free.
    cluster.choose();
    assert!(cluster.end(), "who waits gets the place");
    cluster.begin();

    let [mut end, mut place, mut labelled] = [(); 3].map(|()| Cost::of_up_to(args.decisions));
    for _ in 0..args.decisions {
        cluster.choose();
        end.of(|| cluster.end());
        assert!(place.of(|| cluster.place(None)), "there is room for one");
        cluster.begin();
    }
    end.print("an actor ends on a full cluster", 1);
    place.print("a place on a cluster with room for one", 1);
    for _ in 0..args.decisions {
        let zone = cluster.choose();
        cluster.end();
        assert!(labelled.of(|| cluster.place(Some(zone))), "there is room for one");
        cluster.begin();
    }
    labelled.print("the same by label, every third node having it", 1);

    let [mut wait, mut next] = [(); 2].map(|()| Cost::of_up_to(args.decisions));
    for _ in 0..args.decisions {
        assert!(!wait.of(|| cluster.place(None)), "it is full");
    }
    for _ in 0..args.decisions {
        cluster.choose();
        assert!(next.of(|| cluster.end()), "there is one who waits");
        cluster.begin();
    }
    wait.print("a place that has to be waited for", 1);
    next.print(&format!("an actor ends while up to {} wait", args.decisions), 1);

    let [mut beats, mut ticks] = [(); 2].map(|()| Cost::of_up_to(BEATS));
    for _ in 0..BEATS {
        beats.of(|| cluster.heartbeat_all());
        ticks.of(|| cluster.tick());
    }
    beats.print("a heartbeat, when all nodes send one", nodes + 1);
    ticks.print("a tick", 1);
    lists_and_joins(&mut cluster, nodes, args.actors);
}

fn lists_and_joins(cluster: &mut ControlPlaneBench, nodes: u64, actors: u32) {
    let mut page = Cost::of_up_to(LISTS);
    let listings: Vec<_> = (0..LISTS).map(|_| page.of(|| cluster.list(100))).collect();
    page.print("100 actors listed, and the others counted", 1);
    let mut slices: Vec<_> = listings.iter().map(|listing| listing.longest_slice).collect();
    slices.sort_unstable();
    let [median, longest] = [slices.len() / 2, slices.len() - 1].map(|at| slices[at].as_micros());
    let (count, bytes) = (listings[0].slices, listings[0].bytes);
    println!("    in {count} slices, the longest {median} us ({longest} us at most), {bytes} bytes sent");

    let mut joins = Cost::of_up_to(JOINS);
    let told: usize = (0..JOINS).map(|join| joins.of(|| cluster.join(nodes + join, actors))).sum();
    joins.print("a node joins with 4 workers", 1);
    let [all, same] = ControlPlaneBench::membership_bytes(4 * nodes);
    println!("    {} bytes to the driver", told as u64 / JOINS);
    println!("  {} workers of a job: a new one is told of all in {all} bytes, and all of", 4 * nodes);
    println!("    as many that have joined at the same time in {same} bytes each");
}

fn main() {
    let args = Args::parse();
    for nodes in [args.nodes / 100, args.nodes / 10, args.nodes] {
        measure(nodes.max(1), &args);
    }
}
