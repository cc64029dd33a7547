//! Actor that owns a part of a text.

use std::{cell::OnceCell, convert::Infallible, num::NonZeroUsize};

use super::{
    count::{Counting, Counts, WordCount},
    list::WordList,
    top::counts,
    tput::Ranking,
};
use crate::prelude::*;

/// Receives a part of a text once and answers questions about its words.
///
/// The lecture's `Node`: an actor, not a machine.
#[derive(Debug, RemoteActor)]
#[remote(handles(MostFrequent, CountWords, CountAll, BestWords, OtherWords))]
pub struct Node {
    words: WordList,
    counting: Counting,
    /// Computed by the first question that needs it; the second and third round reuse it.
    ranking: OnceCell<Ranking<Box<str>>>,
}

impl Node {
    fn ranking(&self) -> &Ranking<Box<str>> {
        // Sorting costs more than any answer, so the first question pays for it and the later rounds reuse
        // it.
        self.ranking.get_or_init(|| {
            let tallies = self.counting.tallies(&self.words).into_iter();
            Ranking::new(tallies.map(|(word, tally)| (word.into(), tally)))
        })
    }
}

impl Actor for Node {
    type Context = Context<Self>;
}

impl Spawn for Node {
    type Args = (WordList, Counting);
    type Error = Infallible;

    fn spawn((words, counting): Self::Args, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { words, counting, ranking: OnceCell::new() })
    }
}

/// Asks a [`Node`] for the winner of its part: the first of the two rounds.
#[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Option<WordCount>")]
pub struct MostFrequent;

impl Handler<MostFrequent> for Node {
    type Result = Option<WordCount>;

    fn handle(&mut self, MostFrequent: MostFrequent, _ctx: &mut Self::Context) -> Self::Result {
        self.counting.most_frequent(&self.words)
    }
}

/// Asks a [`Node`] for the tallies of these words in its part: the last of two or three rounds.
#[derive(Clone, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Counts")]
pub struct CountWords(pub WordList);

impl Handler<CountWords> for Node {
    type Result = MessageResult<CountWords>;

    fn handle(&mut self, CountWords(wanted): CountWords, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(self.counting.count(&self.words, &wanted))
    }
}

/// Asks a [`Node`] for the tallies of all words of its part: the exact method.
#[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Counts")]
pub struct CountAll;

impl Handler<CountAll> for Node {
    type Result = MessageResult<CountAll>;

    fn handle(&mut self, CountAll: CountAll, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(self.counting.count_all(&self.words))
    }
}

/// Asks a [`Node`] for the tallies of its k most frequent words: the first of the three rounds.
#[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Counts")]
pub struct BestWords(pub NonZeroUsize);

impl Handler<BestWords> for Node {
    type Result = MessageResult<BestWords>;

    fn handle(&mut self, BestWords(k): BestWords, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(counts(self.ranking().best(k)))
    }
}

/// Asks a [`Node`] for the tallies of more of its words: the second of the three rounds.
#[derive(Clone, Copy, Debug, Message, RemoteMessage, Serialize, Deserialize)]
#[rtype(result = "Counts")]
pub struct OtherWords {
    /// Number of words sent in the first round, which are left out.
    pub k: NonZeroUsize,
    /// Minimum count of a word.
    pub at_least: u64,
}

impl Handler<OtherWords> for Node {
    type Result = MessageResult<OtherWords>;

    fn handle(&mut self, OtherWords { k, at_least }: OtherWords, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(counts(self.ranking().rest(k, at_least)))
    }
}
