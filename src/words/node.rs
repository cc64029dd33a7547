//! The actor that owns a part of a text.

use std::convert::Infallible;

use super::{
    count::{Counting, Counts, WordCount},
    list::WordList,
};
use crate::prelude::*;

/// Owns a part of a text, which it received once, and answers questions about its words.
///
/// The lecture's `Node`: an actor, and no machine.
#[derive(Debug, RemoteActor)]
#[remote(handles(MostFrequent, CountWords, CountAll))]
pub struct Node {
    words: WordList,
    counting: Counting,
}

impl Actor for Node {
    type Context = Context<Self>;
}

impl Spawn for Node {
    type Args = (WordList, Counting);
    type Error = Infallible;

    fn spawn((words, counting): Self::Args, _at: &SpawnContext<Self>) -> Result<Self, Infallible> {
        Ok(Self { words, counting })
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

/// Asks a [`Node`] for the tallies of these words in its part: the second of the two rounds.
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
