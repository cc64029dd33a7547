//! The most frequent word: in sequence and in slices, compared with tasks and actors in other processes.
//!
//! The limit is `slices`, which does the same work in this process. The text is the handbook. For the hash
//! table it is repeated a hundred times, since counting it once is faster than one message.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use actix::System;
use criterion::Criterion;
use roadshow::prelude::*;
use roadshow::words::{Coordinator, Counting, Method, Solve, WordList, sequential, slices, tasks, tokenize};

const TEXT: &str = include_str!("../docs/handbook.md");

/// Number of parts, and of workers that count them.
const NODES: NonZeroUsize = NonZeroUsize::new(4).expect("four is not zero");

fn main() {
    roadshow::run_if_worker();
    let mut criterion = Criterion::default()
        // Few samples and short times: list counting is slow, and there are many rows.
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let system = System::new();
    let cluster = system.block_on(Cluster::local(NODES.get())).expect("the cluster starts");
    let words = tokenize(TEXT).expect("the handbook is a short text");
    let many = words.repeat(100).expect("a hundred handbooks are a short text");
    compare(&mut criterion, "words/list", &system, &cluster, &words, Counting::List);
    compare(&mut criterion, "words/hash x100", &system, &cluster, &many, Counting::Hash);
    system.block_on(cluster.shutdown()).expect("the cluster stops");
    criterion.final_summary();
}

fn compare(
    criterion: &mut Criterion,
    name: &str,
    system: &actix::SystemRunner,
    cluster: &Cluster,
    words: &WordList,
    counting: Counting,
) {
    let mut group = criterion.benchmark_group(name);
    group.bench_function("sequential", |bencher| {
        bencher.iter(|| sequential(black_box(words), counting));
    });
    for (method, method_name) in [(Method::TwoRound, "two-round"), (Method::Exact, "exact")] {
        group.bench_function(format!("slices {method_name}"), |bencher| {
            bencher.iter(|| slices(black_box(words), NODES, counting, method));
        });
        group.bench_function(format!("tasks {method_name}"), |bencher| {
            bencher.iter(|| {
                let answer = system.block_on(tasks(cluster, words, NODES, counting, method));
                answer.expect("the tasks answer")
            });
        });
        let coordinator = system.block_on(async { Coordinator::new(cluster.handle()).start() });
        group.bench_function(format!("actors {method_name}"), |bencher| {
            bencher.iter(|| {
                let solve = Solve { words: words.clone(), nodes: NODES, counting, method };
                let answer = system.block_on(coordinator.send(solve));
                answer.expect("the coordinator is alive").expect("the nodes answer")
            });
        });
    }
    group.finish();
}
