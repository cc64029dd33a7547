//! Coordinator: the actor that spawns Nodes and merges their answers.

use std::num::NonZeroUsize;

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
use crate::{Handles, prelude::*};

/// Spawns [`Node`]s over the cluster, asks them and merges their answers.
///
/// An ordinary actix actor in the driver process. Each [`Solve`] and each [`TopWords`] spawns its own
/// Nodes, and they are stopped whatever the outcome is.
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
}

impl Coordinator {
    /// Creates a coordinator of Nodes in this cluster.
    pub fn new(cluster: ClusterRef) -> Self {
        Self { cluster }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;
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
        let cluster = self.cluster.clone();
        Box::pin(async move {
            let nodes = Nodes::spawn(&cluster, &solve.words, solve.nodes, solve.counting).await?;
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
        let cluster = self.cluster.clone();
        Box::pin(async move {
            let nodes = Nodes::spawn(&cluster, &top.words, top.nodes, top.counting).await?;
            let answer = nodes.three_rounds(top.k).await;
            nodes.stop().await;
            answer
        })
    }
}

/// Nodes of one question, in the order of their parts.
#[derive(Debug, Default)]
struct Nodes(Vec<RemoteAddr<Node>>);

impl Nodes {
    async fn spawn(
        cluster: &ClusterRef,
        words: &WordList,
        nodes: NonZeroUsize,
        counting: Counting,
    ) -> Result<Self, SolveError> {
        let parts = words.partition(nodes).into_iter();
        let spawning = parts.map(|part| cluster.spawn::<Node>((part, counting)).into_future());
        let (mut nodes, mut failure) = (Self::default(), None);
        // All spawns are awaited before a failure is returned: a Node that is still being spawned could not
        // be stopped.
        for spawned in join_all(spawning).await {
            match spawned {
                Ok(node) => nodes.0.push(node),
                Err(err) => failure = failure.or(Some(err)),
            }
        }
        let Some(err) = failure else { return Ok(nodes) };
        nodes.stop().await;
        Err(err.into())
    }

    async fn two_rounds(&self) -> Result<Vec<Counts>, SolveError> {
        let winners = self.ask_all(MostFrequent).await?;
        let candidates = candidates(winners.iter().flatten())?;
        self.ask_all(CountWords(candidates)).await
    }

    async fn three_rounds(&self, k: NonZeroUsize) -> Result<Vec<WordCount>, SolveError> {
        let best = self.ask_all(BestWords(k)).await?;
        let threshold = Threshold::new(k, best.iter().map(Counts::iter));
        let others = self.ask_all(OtherWords { k, at_least: threshold.at_least() }).await?;
        let survivors = threshold.prune(others.iter().map(Counts::iter));
        let questions = questions(&survivors)?.into_iter();
        let asked = questions.map(|(part, wanted)| self.0[part].send(CountWords(wanted)));
        // Requests are sent by their first poll, so `join_all` lets all Nodes work at the same time.
        let answers = join_all(asked).await.into_iter().collect::<Result<Vec<_>, SendError>>()?;
        Ok(settle(survivors, &answers))
    }

    /// Sends one question to all Nodes, which work on it concurrently.
    async fn ask_all<M>(&self, question: M) -> Result<Vec<M::Result>, SolveError>
    where
        M: RemoteMessage + Clone,
        Node: Handles<M>,
    {
        let asked = self.0.iter().map(|node| node.send(question.clone()));
        let answers = join_all(asked).await.into_iter().collect::<Result<_, SendError>>();
        Ok(answers?)
    }

    /// Stops the Nodes that are still reachable.
    async fn stop(self) {
        // A failed stop needs no handling: the Node has stopped already, or its worker has ended.
        let _ = join_all(self.0.iter().map(RemoteAddr::stop)).await;
    }
}
