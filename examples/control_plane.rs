//! Measures the control plane on a simulated cluster: `cargo run --release --features cli --example
//! control_plane`.
//!
//! It prints the time and the memory of a decision, a heartbeat and an actor, and their growth with the
//! number of nodes. Times are in nanoseconds, memory is the bytes allocated meanwhile. On a busy machine
//! the median is the most reliable figure. Nothing is sent or written to disk.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use clap::Parser;
use roadshow::internals::ControlPlaneBench;

/// Measures the control plane.
#[derive(Debug, Parser)]
struct Args {
    /// Nodes of the largest cluster; a tenth and a hundredth of them are measured as well
    #[arg(long, default_value_t = 10_000)]
    nodes: u64,
    /// Actors on each node, which fill it
    #[arg(long, default_value_t = 100)]
    actors: u32,
    /// Decisions of each kind
    #[arg(long, default_value_t = 100_000)]
    decisions: u64,
}

/// Number of heartbeats of every node.
const HEARTBEATS: u64 = 30;

/// Number of lists, and number of nodes that join.
const LISTS: u64 = 20;
const JOINS: u64 = 50;

/// System allocator with counters.
struct Counting;

static HELD_BYTES: AtomicUsize = AtomicUsize::new(0);
static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator is unsafe to write; this one forwards to the system's")]
// SAFETY: every call is forwarded unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD_BYTES.fetch_add(layout.size(), Relaxed);
        ALLOCATED_BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller upholds the contract of the system allocator, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD_BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD_BYTES.fetch_add(size, Relaxed);
        HELD_BYTES.fetch_sub(layout.size(), Relaxed);
        ALLOCATED_BYTES.fetch_add(size, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Cost of an operation.
struct Cost {
    /// Duration of each operation, in nanoseconds.
    took: Vec<u64>,
    allocated: usize,
}

impl Cost {
    /// Creates a cost with capacity for `count` operations, so that its own allocations are not counted.
    fn of_up_to(count: u64) -> Self {
        Self { took: Vec::with_capacity(usize::try_from(count).unwrap_or(0)), allocated: 0 }
    }

    fn of<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let (allocated, start) = (ALLOCATED_BYTES.load(Relaxed), Instant::now());
        let result = what();
        self.took.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.allocated += ALLOCATED_BYTES.load(Relaxed) - allocated;
        result
    }

    /// Prints the cost of one of `parts` equal parts of an operation.
    fn print(mut self, what: &str, parts: u64) {
        self.took.sort_unstable();
        let count = self.took.len();
        let [median, longest] = [count / 2, count - 1].map(|at| self.took[at] / parts);
        let mean = self.took.iter().sum::<u64>() / count as u64 / parts;
        let allocated = self.allocated as u64 / count as u64 / parts;
        println!("  {what:<48} {median:>8} {mean:>8} {longest:>11} {allocated:>8}");
    }
}

fn measure(nodes: u64, args: &Args) {
    let held = |since: usize| HELD_BYTES.load(Relaxed).saturating_sub(since) as f64;
    let before = HELD_BYTES.load(Relaxed);
    let mut cluster = ControlPlaneBench::new(nodes, args.actors);
    let actors = nodes * u64::from(args.actors);
    println!(
        "{nodes} nodes with 4 workers each ({:.0} bytes a node), {actors} actors",
        held(before) / nodes as f64
    );

    let [mut place, mut begin] = [(); 2].map(|()| Cost::of_up_to(actors + 1));
    let before = HELD_BYTES.load(Relaxed);
    while place.of(|| cluster.place(None)) {
        begin.of(|| cluster.begin());
    }
    assert_eq!(begin.took.len() as u64, actors, "every slot gets an actor");
    println!("  an actor takes {:.0} bytes", held(before) / actors as f64);
    println!("  {:48} {:>8} {:>8} {:>11} {:>8}", "", "median", "mean", "longest ns", "bytes");
    place.print("a placement while there is capacity", 1);
    begin.print("an actor starts", 1);

    // The actor without a slot waits, and gets the first one that becomes free.
    cluster.choose();
    assert!(cluster.end(), "the waiting actor gets the slot");
    cluster.begin();

    let [mut end, mut place, mut labelled] = [(); 3].map(|()| Cost::of_up_to(args.decisions));
    for _ in 0..args.decisions {
        cluster.choose();
        end.of(|| cluster.end());
        assert!(place.of(|| cluster.place(None)), "one slot is free");
        cluster.begin();
    }
    end.print("an actor ends on a full cluster", 1);
    place.print("a placement on a cluster with one free slot", 1);
    for _ in 0..args.decisions {
        let zone = cluster.choose();
        cluster.end();
        assert!(labelled.of(|| cluster.place(Some(zone))), "one slot is free");
        cluster.begin();
    }
    labelled.print("the same by label, on every third node", 1);

    let [mut wait, mut next] = [(); 2].map(|()| Cost::of_up_to(args.decisions));
    for _ in 0..args.decisions {
        assert!(!wait.of(|| cluster.place(None)), "the cluster is full");
    }
    for _ in 0..args.decisions {
        cluster.choose();
        assert!(next.of(|| cluster.end()), "an actor waits");
        cluster.begin();
    }
    wait.print("a placement that has to wait", 1);
    next.print(&format!("an actor ends while up to {} wait", args.decisions), 1);

    let [mut heartbeats, mut ticks] = [(); 2].map(|()| Cost::of_up_to(HEARTBEATS));
    for _ in 0..HEARTBEATS {
        heartbeats.of(|| cluster.heartbeat_all());
        ticks.of(|| cluster.tick());
    }
    heartbeats.print("a heartbeat, when all nodes send one", nodes + 1);
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
    let sent: usize = (0..JOINS).map(|join| joins.of(|| cluster.join(nodes + join, actors))).sum();
    joins.print("a node joins with 4 workers", 1);
    let [all, same] = ControlPlaneBench::membership_bytes(4 * nodes);
    println!("    {} bytes to the driver", sent as u64 / JOINS);
    println!("  {} workers of a job: a new one receives all in {all} bytes, and all of", 4 * nodes);
    println!("    as many that join at the same time in {same} bytes each");
}

fn main() {
    let args = Args::parse();
    for nodes in [args.nodes / 100, args.nodes / 10, args.nodes] {
        measure(nodes.max(1), &args);
    }
}
