//! Tests of the distribution: copies of the driver's, rounds, and sources that fail.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::id::{HostId, Incarnation};

fn source(node: u64) -> NodeSource {
    let agent = HostUid { host: HostId(node), incarnation: Incarnation(1) };
    NodeSource { agent, address: SocketAddr::from(([127, 0, 0, 1], 1)) }
}

/// Node that needs the executable.
struct Node {
    number: u64,
    tried: Vec<HostUid>,
    request: Option<Pin<Box<dyn Future<Output = Transfer>>>>,
    transfer: Option<Transfer>,
}

impl Node {
    fn new(number: u64) -> Self {
        Self { number, tried: Vec::new(), request: None, transfer: None }
    }

    /// Takes a source if one is free.
    fn poll(&mut self, sources: &Sources) {
        let (sources, tried) = (sources.clone(), self.tried.clone());
        let request = self.request.get_or_insert_with(|| Box::pin(async move { sources.take(&tried).await }));
        if let Poll::Ready(transfer) = request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            (self.request, self.transfer) = (None, Some(transfer));
        }
    }
}

/// Distributes the executable to a number of nodes, in rounds. In each, the transfers in progress end as `outcome`
/// says. Returns the number of rounds.
fn broadcast(sources: &Sources, nodes: u64, outcome: impl Fn(u64, TransferSource) -> TransferOutcome) -> u64 {
    let mut lacking: Vec<_> = (1..=nodes).map(Node::new).collect();
    let mut rounds = 0;
    while !lacking.is_empty() {
        rounds += 1;
        assert!(rounds < 10 * nodes, "nodes wait for ever: {sources:?}");
        lacking.iter_mut().for_each(|node| node.poll(sources));
        assert!(lacking.iter().any(|node| node.transfer.is_some()), "none has a source: {sources:?}");
        lacking.retain_mut(|node| {
            let Some(transfer) = node.transfer.take() else { return true };
            let (from, outcome) = (transfer.source(), outcome(node.number, transfer.source()));
            match (from, outcome) {
                (_, TransferOutcome::Done) => transfer.done(source(node.number)),
                (TransferSource::Node(from), outcome) => {
                    transfer.failed(outcome);
                    node.tried.push(from.agent);
                }
                (TransferSource::Driver, outcome) => panic!("the driver's copy ends as {outcome:?}"),
            }
            outcome != TransferOutcome::Done
        });
    }
    rounds
}

#[test]
fn the_driver_sends_two_copies_whatever_the_number_of_nodes() {
    for (nodes, rounds_max) in [(1, 1), (2, 1), (3, 2), (16, 3), (1000, 7), (5000, 9)] {
        let sources = Sources::default();
        let rounds = broadcast(&sources, nodes, |_, _| TransferOutcome::Done);
        let TransferTally { sent, fetched, had, .. } = sources.tally();
        let copies = nodes.min(EXECUTABLES_SENT_AT_ONCE as u64);
        assert_eq!((sent, fetched, had), (copies, nodes - copies, 0), "{nodes}");
        assert!(rounds <= rounds_max, "{nodes} nodes in {rounds} rounds");
    }
}

#[test]
fn with_a_node_that_has_the_executable_the_driver_sends_no_copy() {
    let sources = Sources::default();
    sources.add_existing(source(77));
    broadcast(&sources, 20, |_, _| TransferOutcome::Done);
    assert_eq!(sources.tally(), TransferTally { had: 1, fetched: 20, ..TransferTally::default() });
}

#[test]
fn no_source_serves_more_than_its_share_at_the_same_time() {
    let sources = Sources::default();
    sources.add_existing(source(77));
    let mut nodes: Vec<_> = (1..=10).map(Node::new).collect();
    nodes.iter_mut().for_each(|node| node.poll(&sources));
    let served = |nodes: &[Node]| nodes.iter().filter(|node| node.transfer.is_some()).count();
    assert_eq!(served(&nodes), EXECUTABLE_FETCHES_PER_NODE);
    // A freed slot goes to the first node in the order of requests.
    nodes[0].transfer = None;
    nodes.iter_mut().skip(1).filter(|node| node.transfer.is_none()).for_each(|node| node.poll(&sources));
    assert!(nodes[2].transfer.is_some());
    assert_eq!(served(&nodes), EXECUTABLE_FETCHES_PER_NODE);
    assert_eq!(sources.tally(), TransferTally { had: 1, ..TransferTally::default() });
}

#[test]
fn a_cancelled_request_leaves_its_source_to_others() {
    let sources = Sources::default();
    sources.add_existing(source(77));
    let mut nodes: Vec<_> = (1..=4).map(Node::new).collect();
    nodes.iter_mut().for_each(|node| node.poll(&sources));
    // Cancelled before and after the assignment.
    nodes[2].request = None;
    nodes[0].transfer = None;
    nodes[3].request = None;
    nodes[1].transfer = None;
    let mut last = [Node::new(5), Node::new(6)];
    last.iter_mut().for_each(|node| node.poll(&sources));
    assert!(last.iter().all(|node| node.transfer.is_some()), "{sources:?}");
}

#[test]
fn failing_sources_are_excluded_and_the_driver_sends_copies_instead() {
    // Every fetch fails: each node gets a copy of the driver's.
    for outcome in [TransferOutcome::Failed, TransferOutcome::Wrong, TransferOutcome::Busy] {
        let sources = Sources::default();
        broadcast(
            &sources,
            50,
            |_, from| if from == TransferSource::Driver { TransferOutcome::Done } else { outcome },
        );
        assert_eq!((sources.tally().sent, sources.tally().fetched), (50, 0), "{outcome:?}");
    }
    // One source is bad: it costs the others a failure or two, and the driver no copy.
    for bad in [TransferOutcome::Failed, TransferOutcome::Wrong] {
        let sources = Sources::default();
        sources.add_existing(source(77));
        sources.add_existing(source(78));
        broadcast(&sources, 100, |_, from| {
            if from == TransferSource::Node(source(77)) { bad } else { TransferOutcome::Done }
        });
        assert_eq!((sources.tally().sent, sources.tally().fetched), (0, 100), "{bad:?}");
    }
}

#[test]
fn a_slow_transfer_frees_its_slot_for_one_other_node_once() {
    let sources = Sources::default();
    let mut nodes: Vec<_> = (1..=8).map(Node::new).collect();
    let sent = |nodes: &mut [Node]| {
        let idle = nodes.iter_mut().filter(|node| node.transfer.is_none());
        idle.for_each(|node| node.poll(&sources));
        nodes.iter().filter(|node| node.transfer.is_some()).count()
    };
    let most = EXECUTABLES_SENT_AT_ONCE + EXECUTABLES_SENT_SLOWLY_MAX;
    assert_eq!(sent(&mut nodes), EXECUTABLES_SENT_AT_ONCE);
    for _ in 0..2 {
        assert!(nodes[0].transfer.as_mut().unwrap().free_slot());
        assert_eq!(sent(&mut nodes), EXECUTABLES_SENT_AT_ONCE + 1);
    }
    assert!(nodes[1].transfer.as_mut().unwrap().free_slot());
    assert!(!nodes[2].transfer.as_mut().unwrap().free_slot());
    assert_eq!(sent(&mut nodes), most);
    // A transfer that ends frees its slot, slow or not.
    nodes[0].transfer.take().unwrap().failed(TransferOutcome::Cancelled);
    assert!(nodes[2].transfer.as_mut().unwrap().free_slot());
    nodes[3].transfer.take().unwrap().failed(TransferOutcome::Cancelled);
    assert_eq!(sent(&mut nodes), most);
}

#[test]
fn a_node_that_cannot_reach_any_source_does_not_exclude_them_for_others() {
    let sources = Sources::default();
    (70..75).for_each(|node| sources.add_existing(source(node)));
    let outcome = |node, from| match from {
        TransferSource::Node(_) if node == 3 => TransferOutcome::Failed,
        _ => TransferOutcome::Done,
    };
    broadcast(&sources, 100, outcome);
    assert_eq!((sources.tally().sent, sources.tally().fetched), (1, 99));
}

#[test]
fn a_lost_node_is_assigned_no_more_and_its_transfers_end() {
    let sources = Sources::default();
    sources.add_existing(source(77));
    let mut nodes = [Node::new(1), Node::new(2)];
    nodes.iter_mut().for_each(|node| node.poll(&sources));
    sources.forget(source(77).agent);
    sources.forget(source(77).agent);
    for node in &mut nodes {
        node.transfer.take().unwrap().failed(TransferOutcome::Failed);
        node.tried.push(source(77).agent);
        node.poll(&sources);
    }
    assert!(nodes.iter().all(|node| node.transfer.as_ref().unwrap().source() == TransferSource::Driver));
}
