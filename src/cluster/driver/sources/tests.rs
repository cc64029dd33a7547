//! How an executable spreads: copies of the driver, rounds, and nodes that fail.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::id::{HostId, Incarnation};

fn source(node: u64) -> Source {
    let agent = HostUid { host: HostId(node), incarnation: Incarnation(1) };
    Source { agent, address: SocketAddr::from(([127, 0, 0, 1], 1)) }
}

/// A node that is to get the executable.
struct Node {
    number: u64,
    tried: Vec<HostUid>,
    waits: Option<Pin<Box<dyn Future<Output = Transfer>>>>,
    transfer: Option<Transfer>,
}

impl Node {
    fn new(number: u64) -> Self {
        Self { number, tried: Vec::new(), waits: None, transfer: None }
    }

    /// Takes a source if there is one for it.
    fn poll(&mut self, sources: &Sources) {
        let (sources, tried) = (sources.clone(), self.tried.clone());
        let waits = self.waits.get_or_insert_with(|| Box::pin(async move { sources.take(&tried).await }));
        if let Poll::Ready(transfer) = waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            (self.waits, self.transfer) = (None, Some(transfer));
        }
    }
}

/// Spreads the executable to that number of nodes, by rounds in which each transfer that is under way ends as `outcome`
/// says; gives the number of rounds.
fn broadcast(sources: &Sources, nodes: u64, outcome: impl Fn(u64, Turn) -> Outcome) -> u64 {
    let mut lacking: Vec<_> = (1..=nodes).map(Node::new).collect();
    let mut rounds = 0;
    while !lacking.is_empty() {
        rounds += 1;
        assert!(rounds < 10 * nodes, "nodes wait for ever: {sources:?}");
        lacking.iter_mut().for_each(|node| node.poll(sources));
        assert!(lacking.iter().any(|node| node.transfer.is_some()), "none has a source: {sources:?}");
        lacking.retain_mut(|node| {
            let Some(transfer) = node.transfer.take() else { return true };
            let (turn, outcome) = (transfer.turn(), outcome(node.number, transfer.turn()));
            match (turn, outcome) {
                (_, Outcome::Done) => transfer.done(source(node.number)),
                (Turn::Fetch(from), outcome) => {
                    transfer.failed(outcome);
                    node.tried.push(from.agent);
                }
                (Turn::Send, outcome) => panic!("the driver's copy ends as {outcome:?}"),
            }
            outcome != Outcome::Done
        });
    }
    rounds
}

#[test]
fn the_driver_sends_two_copies_whatever_the_number_of_nodes() {
    for (nodes, rounds_max) in [(1, 1), (2, 1), (3, 2), (16, 3), (1000, 7), (5000, 9)] {
        let sources = Sources::default();
        let rounds = broadcast(&sources, nodes, |_, _| Outcome::Done);
        let Tally { sent, fetched, had, .. } = sources.tally();
        let copies = nodes.min(EXECUTABLES_SENT_AT_ONCE as u64);
        assert_eq!((sent, fetched, had), (copies, nodes - copies, 0), "{nodes}");
        assert!(rounds <= rounds_max, "{nodes} nodes in {rounds} rounds");
    }
}

#[test]
fn a_node_that_has_it_already_spares_the_driver_all_copies() {
    let sources = Sources::default();
    sources.stored_bytes(source(77));
    broadcast(&sources, 20, |_, _| Outcome::Done);
    assert_eq!(sources.tally(), Tally { had: 1, fetched: 20, ..Tally::default() });
}

#[test]
fn no_source_serves_more_than_its_share_at_the_same_time() {
    let sources = Sources::default();
    sources.stored_bytes(source(77));
    let mut nodes: Vec<_> = (1..=10).map(Node::new).collect();
    nodes.iter_mut().for_each(|node| node.poll(&sources));
    let served = |nodes: &[Node]| nodes.iter().filter(|node| node.transfer.is_some()).count();
    assert_eq!(served(&nodes), EXECUTABLE_FETCHES_PER_NODE);
    // The next in the order in which they came has the place of one that is gone.
    nodes[0].transfer = None;
    nodes.iter_mut().skip(1).filter(|node| node.transfer.is_none()).for_each(|node| node.poll(&sources));
    assert!(nodes[2].transfer.is_some());
    assert_eq!(served(&nodes), EXECUTABLE_FETCHES_PER_NODE);
    assert_eq!(sources.tally(), Tally { had: 1, ..Tally::default() });
}

#[test]
fn a_node_that_waits_no_more_leaves_its_source_to_others() {
    let sources = Sources::default();
    sources.stored_bytes(source(77));
    let mut nodes: Vec<_> = (1..=4).map(Node::new).collect();
    nodes.iter_mut().for_each(|node| node.poll(&sources));
    // Before and after it was told of its source.
    nodes[2].waits = None;
    nodes[0].transfer = None;
    nodes[3].waits = None;
    nodes[1].transfer = None;
    let mut last = [Node::new(5), Node::new(6)];
    last.iter_mut().for_each(|node| node.poll(&sources));
    assert!(last.iter().all(|node| node.transfer.is_some()), "{sources:?}");
}

#[test]
fn sources_that_fail_are_not_named_for_long_and_the_driver_helps_in_the_end() {
    // Every fetch fails: each node gets its copy from the driver.
    for outcome in [Outcome::Failed, Outcome::Wrong, Outcome::Busy] {
        let sources = Sources::default();
        broadcast(&sources, 50, |_, turn| if turn == Turn::Send { Outcome::Done } else { outcome });
        assert_eq!((sources.tally().sent, sources.tally().fetched), (50, 0), "{outcome:?}");
    }
    // One node is a bad source: it costs the others a failure or two, and the driver no copy.
    for bad in [Outcome::Failed, Outcome::Wrong] {
        let sources = Sources::default();
        sources.stored_bytes(source(77));
        sources.stored_bytes(source(78));
        broadcast(&sources, 100, |_, turn| if turn == Turn::Fetch(source(77)) { bad } else { Outcome::Done });
        assert_eq!((sources.tally().sent, sources.tally().fetched), (0, 100), "{bad:?}");
    }
}

#[test]
fn a_node_that_leaves_its_turn_lets_another_be_sent_a_copy_once() {
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
        assert!(nodes[0].transfer.as_mut().unwrap().leave_turn());
        assert_eq!(sent(&mut nodes), EXECUTABLES_SENT_AT_ONCE + 1);
    }
    assert!(nodes[1].transfer.as_mut().unwrap().leave_turn());
    assert!(!nodes[2].transfer.as_mut().unwrap().leave_turn());
    assert_eq!(sent(&mut nodes), most);
    // One that ends leaves its place, slow or not.
    nodes[0].transfer.take().unwrap().failed(Outcome::GivenUp);
    assert!(nodes[2].transfer.as_mut().unwrap().leave_turn());
    nodes[3].transfer.take().unwrap().failed(Outcome::GivenUp);
    assert_eq!(sent(&mut nodes), most);
}

#[test]
fn a_node_that_reaches_no_other_does_not_cost_the_others_their_sources() {
    let sources = Sources::default();
    (70..75).for_each(|node| sources.stored_bytes(source(node)));
    let outcome = |node, turn| match turn {
        Turn::Fetch(_) if node == 3 => Outcome::Failed,
        _ => Outcome::Done,
    };
    broadcast(&sources, 100, outcome);
    assert_eq!((sources.tally().sent, sources.tally().fetched), (1, 99));
}

#[test]
fn a_node_that_is_lost_is_named_no_more_and_what_it_served_ends() {
    let sources = Sources::default();
    sources.stored_bytes(source(77));
    let mut nodes = [Node::new(1), Node::new(2)];
    nodes.iter_mut().for_each(|node| node.poll(&sources));
    sources.forget(source(77).agent);
    sources.forget(source(77).agent);
    for node in &mut nodes {
        node.transfer.take().unwrap().failed(Outcome::Failed);
        node.tried.push(source(77).agent);
        node.poll(&sources);
    }
    assert!(nodes.iter().all(|node| node.transfer.as_ref().unwrap().turn() == Turn::Send));
}
