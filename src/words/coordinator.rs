//! Coordinator: the actor that spawns Nodes and merges their answers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::{
    count::{Counting, Counts, WordCount},
    error::SolveError,
    list::WordList,
    method::{Method, candidates, merge},
    node::{BestWords, CountAll, CountWords, MostFrequent, Node, OtherWords},
    top::{questions, settle},
    tput::Threshold,
};
use crate::errors::DisconnectReason;
use crate::{Handles, NotDelivered, OutcomeUnknown, SpawnError, prelude::*};

/// Spawns [`Node`]s over the cluster, asks them and merges their answers.
///
/// An ordinary actix actor in the driver process. Each [`Solve`] and each [`TopWords`] spawns its own
/// Nodes, and they are stopped whatever the outcome is.
///
/// A Node whose worker ends is spawned again from its part, and asked again: a question changes nothing in a
/// Node, so it does no harm that the first one may have been answered. [`Restarts`] counts these Nodes.
///
/// # Examples
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use roadshow::prelude::*;
/// use roadshow::words::{Coordinator, Counting, Method, Solve, tokenize};
///
/// # async fn run(cluster: Cluster) -> Result<(), Box<dyn std::error::Error>> {
/// let coordinator = Coordinator::new(cluster.handle()).start();
/// let words = tokenize("to be or not to be")?;
/// let nodes = NonZeroUsize::MIN.saturating_add(3);
/// let solve = Solve { words, nodes, counting: Counting::Hash, method: Method::Exact };
/// let best = coordinator.send(solve).await??;
/// assert_eq!(best.map(|best| best.word).as_deref(), Some("to"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Coordinator {
    cluster: ClusterRef,
    /// Number of Nodes that were spawned again.
    restarts: Arc<AtomicU64>,
}

impl Coordinator {
    /// Creates a coordinator of Nodes in this cluster.
    pub fn new(cluster: ClusterRef) -> Self {
        Self { cluster, restarts: Arc::default() }
    }
}

impl Coordinator {
    /// Nodes of the next question; none is spawned yet.
    fn nodes(&self, counting: Counting) -> Nodes {
        let (cluster, restarts) = (self.cluster.clone(), Arc::clone(&self.restarts));
        Nodes { spawner: Spawner { cluster, counting, restarts }, nodes: Vec::new() }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;
}

/// Asks a [`Coordinator`] how many Nodes it has spawned again, since their workers had ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "u64")]
pub struct Restarts;

impl Handler<Restarts> for Coordinator {
    type Result = u64;

    fn handle(&mut self, Restarts: Restarts, _ctx: &mut Self::Context) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }
}

/// Asks a [`Coordinator`] for the most frequent word. `None` is the answer without words.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Option<WordCount>, SolveError>")]
pub struct Solve {
    /// The text.
    pub words: WordList,
    /// Number of Nodes that share the text.
    pub nodes: NonZeroUsize,
    /// Algorithm of each Node.
    pub counting: Counting,
    /// Method that combines the parts into one answer.
    pub method: Method,
}

impl Handler<Solve> for Coordinator {
    type Result = ResponseFuture<Result<Option<WordCount>, SolveError>>;

    fn handle(&mut self, solve: Solve, _ctx: &mut Self::Context) -> Self::Result {
        let nodes = self.nodes(solve.counting);
        Box::pin(async move {
            let mut nodes = nodes.spawn(&solve.words, solve.nodes).await?;
            let answer = match solve.method {
                Method::TwoRound => nodes.two_rounds().await.map(|counts| merge(&counts)),
                Method::Exact => nodes.ask_all(CountAll).await.map(|counts| merge(&counts)),
                Method::Tput => nodes.three_rounds(NonZeroUsize::MIN).await.map(|mut top| top.pop()),
            };
            nodes.stop().await;
            answer
        })
    }
}

/// Asks a [`Coordinator`] for the k most frequent words, best first.
///
/// The rounds are those of [`tput`](super::tput).
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<WordCount>, SolveError>")]
pub struct TopWords {
    /// The text.
    pub words: WordList,
    /// Number of Nodes that share the text.
    pub nodes: NonZeroUsize,
    /// Number of words wanted.
    pub k: NonZeroUsize,
    /// Algorithm of each Node.
    pub counting: Counting,
}

impl Handler<TopWords> for Coordinator {
    type Result = ResponseFuture<Result<Vec<WordCount>, SolveError>>;

    fn handle(&mut self, top: TopWords, _ctx: &mut Self::Context) -> Self::Result {
        let nodes = self.nodes(top.counting);
        Box::pin(async move {
            let mut nodes = nodes.spawn(&top.words, top.nodes).await?;
            let answer = nodes.three_rounds(top.k).await;
            nodes.stop().await;
            answer
        })
    }
}

/// Number of times that a Node is spawned again for one question, with an increasing delay in between.
///
/// Workers may be lost one after the other. A part that ends each of them must not be tried for ever.
const RESPAWNS_MAX: u32 = 30;

/// Delay before the second time; it doubles each time.
const RESPAWN_DELAY: Duration = Duration::from_millis(10);

/// Longest delay between two of them.
const RESPAWN_DELAY_MAX: Duration = Duration::from_millis(640);

/// Nodes of one question, in the order of their parts.
struct Nodes {
    spawner: Spawner,
    nodes: Vec<PartNode>,
}

/// Part of the text, and the Node that has it.
struct PartNode {
    part: WordList,
    node: RemoteAddr<Node>,
}

/// Settings of the Nodes of one question.
struct Spawner {
    cluster: ClusterRef,
    counting: Counting,
    restarts: Arc<AtomicU64>,
}

/// Number of times that a Node was spawned again for one question.
#[derive(Default)]
struct Respawns(u32);

impl Respawns {
    /// Waits before the next one; returns false if there were enough.
    async fn next(&mut self) -> bool {
        if self.0 >= RESPAWNS_MAX {
            return false;
        }
        // The first one is not delayed: mostly one worker alone is lost.
        if let Some(doublings) = self.0.checked_sub(1) {
            let delay = RESPAWN_DELAY.saturating_mul(1 << doublings.min(16));
            tokio::time::sleep(delay.min(RESPAWN_DELAY_MAX)).await;
        }
        self.0 += 1;
        true
    }
}

impl Spawner {
    /// Spawns a Node, and spawns it again if its worker ends meanwhile.
    async fn spawn(&self, part: &WordList, respawns: &mut Respawns) -> Result<RemoteAddr<Node>, SolveError> {
        loop {
            let spawned = self.cluster.spawn::<Node>((part.clone(), self.counting)).await;
            let is_lost = match &spawned {
                Err(SpawnError::NotDelivered { reason, .. }) => is_gone(reason),
                Err(SpawnError::OutcomeUnknown { reason, .. }) => has_lost_host(reason),
                _ => false,
            };
            if !is_lost || !respawns.next().await {
                return Ok(spawned?);
            }
        }
    }

    /// Asks a Node, and spawns it again as long as its worker ends.
    async fn ask<M>(&self, part: &mut PartNode, question: M) -> Result<M::Result, SolveError>
    where
        M: RemoteMessage + Clone,
        Node: Handles<M>,
    {
        let mut respawns = Respawns::default();
        loop {
            let answer = part.node.send(question.clone()).await;
            let is_lost = match &answer {
                Err(SendError::NotDelivered(reason)) => is_gone(reason),
                Err(SendError::OutcomeUnknown(reason)) => has_lost_host(reason),
                _ => false,
            };
            if !is_lost || !respawns.next().await {
                return Ok(answer?);
            }
            // Stored at once: whatever happens next, the Node is stopped in the end.
            part.node = self.spawn(&part.part, &mut respawns).await?;
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Nodes {
    /// Spawns a Node for each part.
    async fn spawn(mut self, words: &WordList, nodes: NonZeroUsize) -> Result<Self, SolveError> {
        let spawner = &self.spawner;
        let spawning = words.partition(nodes).into_iter().map(async |part| {
            let node = spawner.spawn(&part, &mut Respawns::default()).await?;
            Ok::<_, SolveError>(PartNode { part, node })
        });
        let (mut spawned, mut failure) = (Vec::new(), None);
        // All spawns are awaited before a failure is returned: a Node that is still being spawned could not
        // be stopped.
        for outcome in join_all(spawning).await {
            match outcome {
                Ok(node) => spawned.push(node),
                Err(err) => failure = failure.or(Some(err)),
            }
        }
        self.nodes = spawned;
        let Some(err) = failure else { return Ok(self) };
        self.stop().await;
        Err(err)
    }

    async fn two_rounds(&mut self) -> Result<Vec<Counts>, SolveError> {
        let winners = self.ask_all(MostFrequent).await?;
        let candidates = candidates(winners.iter().flatten())?;
        self.ask_all(CountWords(candidates)).await
    }

    async fn three_rounds(&mut self, k: NonZeroUsize) -> Result<Vec<WordCount>, SolveError> {
        let best = self.ask_all(BestWords(k)).await?;
        let threshold = Threshold::new(k, best.iter().map(Counts::iter));
        let others = self.ask_all(OtherWords { k, at_least: threshold.at_least() }).await?;
        let survivors = threshold.prune(others.iter().map(Counts::iter));
        let mut asked: Vec<_> = self.nodes.iter().map(|_| None).collect();
        for (part, wanted) in questions(&survivors)? {
            asked[part] = Some(CountWords(wanted));
        }
        let answers = self.ask(asked).await?;
        Ok(settle(survivors, &answers))
    }

    /// Sends one question to all Nodes, which work on it concurrently.
    async fn ask_all<M>(&mut self, question: M) -> Result<Vec<M::Result>, SolveError>
    where
        M: RemoteMessage + Clone,
        Node: Handles<M>,
    {
        self.ask(self.nodes.iter().map(|_| Some(question.clone())).collect()).await
    }

    /// Sends each Node its question, if it has one; returns the answers in the order of the Nodes.
    async fn ask<M>(&mut self, questions: Vec<Option<M>>) -> Result<Vec<M::Result>, SolveError>
    where
        M: RemoteMessage + Clone,
        Node: Handles<M>,
    {
        let spawner = &self.spawner;
        let asked = self.nodes.iter_mut().zip(questions);
        let asked = asked.filter_map(|(part, question)| Some(spawner.ask(part, question?)));
        // Requests are sent by their first poll, so `join_all` lets all Nodes work at the same time.
        join_all(asked).await.into_iter().collect()
    }

    /// Stops the Nodes that are still reachable.
    async fn stop(self) {
        // A failed stop needs no handling: the Node has stopped already, or its worker has ended.
        let _ = join_all(self.nodes.iter().map(|part| part.node.stop())).await;
    }
}

/// Returns whether a message was not delivered since the worker has ended.
fn is_gone(reason: &NotDelivered) -> bool {
    matches!(
        reason,
        NotDelivered::Unreachable { .. } | NotDelivered::StaleHost { .. } | NotDelivered::UnknownHost { .. }
    )
}

/// Returns whether the worker has ended before it replied. The end of this process is another reason.
fn has_lost_host(reason: &OutcomeUnknown) -> bool {
    matches!(reason, OutcomeUnknown::SessionLost { reason, .. } if *reason != DisconnectReason::Shutdown)
}
