//! The lecture's program over processes: its known defects, and its answers compared with the sequential
//! ones.

use std::num::NonZeroUsize;

use actix::{Addr, System, SystemRunner};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use roadshow::prelude::*;
use roadshow::words::{
    BestWords, Coordinator, CountAll, CountWords, Counting, Counts, Method, MostFrequent, Node, OtherWords,
    Solve, TopWords, WordCount, WordList, candidates, merge, sequential, slices, tasks, tokenize, top_words,
};

const COUNTINGS: [Counting; 2] = [Counting::List, Counting::Hash];
const METHODS: [Method; 3] = [Method::TwoRound, Method::Exact, Method::Tput];

/// Cluster of two processes, and a coordinator on this thread.
struct Fixture {
    system: SystemRunner,
    cluster: Cluster,
    coordinator: Addr<Coordinator>,
}

impl Fixture {
    fn start() -> Self {
        let system = System::new();
        let cluster = system.block_on(Cluster::local(2)).unwrap();
        let coordinator = system.block_on(async { Coordinator::new(cluster.handle()).start() });
        Self { system, cluster, coordinator }
    }

    fn by_actors(
        &self,
        words: &WordList,
        nodes: usize,
        counting: Counting,
        method: Method,
    ) -> Option<WordCount> {
        let solve = Solve { words: words.clone(), nodes: parts(nodes), counting, method };
        self.system.block_on(self.coordinator.send(solve)).unwrap().unwrap()
    }

    fn by_tasks(
        &self,
        words: &WordList,
        nodes: usize,
        counting: Counting,
        method: Method,
    ) -> Option<WordCount> {
        self.system.block_on(tasks(&self.cluster, words, parts(nodes), counting, method)).unwrap()
    }

    /// Compares actors and tasks over processes with slices in this process.
    #[track_caller]
    fn check(&self, words: &WordList, nodes: usize, counting: Counting, method: Method) -> Option<WordCount> {
        let expect = slices(words, parts(nodes), counting, method);
        assert_eq!(self.by_actors(words, nodes, counting, method), expect, "actors, {nodes} nodes");
        assert_eq!(self.by_tasks(words, nodes, counting, method), expect, "tasks, {nodes} nodes");
        expect
    }
}

fn parts(parts: usize) -> NonZeroUsize {
    NonZeroUsize::new(parts).unwrap()
}

fn answer(word: &str, count: u64, first: u64) -> Option<WordCount> {
    Some(WordCount { word: word.into(), count, first })
}

#[test]
fn two_rounds_miss_a_word_that_wins_in_no_part_and_exact_finds_it() {
    let fixture = Fixture::start();
    let words = tokenize("a a a x x, b b b x x, c c c x x, d d d x x").unwrap();
    for counting in COUNTINGS {
        assert_eq!(fixture.check(&words, 4, counting, Method::TwoRound), answer("a", 3, 0));
        assert_eq!(fixture.check(&words, 4, counting, Method::Exact), answer("x", 8, 3));
        assert_eq!(fixture.check(&words, 4, counting, Method::Tput), answer("x", 8, 3));
    }
}

#[test]
fn words_after_the_last_whole_part_are_counted() {
    let fixture = Fixture::start();
    let words = tokenize("a b c d a b c d z z z").unwrap();
    for method in METHODS {
        assert_eq!(fixture.check(&words, 4, Counting::Hash, method), answer("z", 3, 8));
    }
}

#[test]
fn fewer_words_than_nodes_have_an_answer_and_no_words_have_none() {
    let fixture = Fixture::start();
    let words = tokenize("Oh -- no, no!").unwrap();
    for method in METHODS {
        assert_eq!(fixture.check(&words, 9, Counting::List, method), answer("no", 2, 1));
        assert_eq!(fixture.check(&WordList::default(), 3, Counting::List, method), None);
    }
}

#[test]
fn tie_goes_to_the_word_seen_first_whichever_node_answers_first() {
    let fixture = Fixture::start();
    let words = tokenize("b a a b c c a b c").unwrap();
    for method in METHODS {
        for nodes in 1..=4 {
            // Any number of nodes changes which answer arrives first.
            fixture.check(&words, nodes, Counting::Hash, method);
        }
        assert_eq!(fixture.by_actors(&words, 1, Counting::Hash, method), answer("b", 3, 0));
    }
    for method in [Method::Exact, Method::Tput] {
        assert_eq!(fixture.by_actors(&words, 4, Counting::Hash, method), answer("b", 3, 0));
    }
}

#[test]
fn words_from_another_process_are_those_of_python() {
    let fixture = Fixture::start();
    // Final sigma, a separator of Python's `split`, and a letter whose lower case is two characters.
    let words = tokenize("ΟΔΟΣ\u{1c}οδος ΟΔΟΣ'Α İ").unwrap();
    let expect = answer("οδος", 2, 0);
    assert_eq!(fixture.check(&words, 2, Counting::Hash, Method::Exact), expect);
}

#[test]
fn no_word_is_lost_for_any_length_and_number_of_nodes() {
    let fixture = Fixture::start();
    for len in 1..=40_u64 {
        let words = WordList::from_words((0..len).map(|word| word.to_string())).unwrap();
        for nodes in 1..=9 {
            let counted = fixture.system.block_on(count_by_nodes(&fixture.cluster, &words, nodes));
            assert_eq!(counted, words.iter().collect::<Vec<_>>(), "{len} words, {nodes} nodes");
        }
    }
}

/// Collects the words of all Nodes, in the order of the parts.
async fn count_by_nodes(cluster: &ClusterRef, words: &WordList, nodes: usize) -> Vec<String> {
    let mut counted = Vec::new();
    for part in words.partition(parts(nodes)) {
        let node = cluster.spawn::<Node>((part, Counting::Hash)).await.unwrap();
        let counts = node.send(CountAll).await.unwrap();
        counted.extend(counts.iter().map(|(word, _)| word.to_owned()));
        node.stop().await.unwrap();
    }
    counted
}

#[test]
fn node_answers_both_rounds_with_positions_in_the_whole_text() {
    let fixture = Fixture::start();
    let words = tokenize("x x x a b b").unwrap();
    fixture.system.block_on(async {
        let part = words.partition(parts(2)).remove(1);
        let node = fixture.cluster.spawn::<Node>((part, Counting::Hash)).await.unwrap();
        let winner = node.send(MostFrequent).await.unwrap();
        assert_eq!(winner, answer("b", 2, 4));
        let wanted = candidates(winner.iter()).unwrap();
        let counts = node.send(CountWords(wanted)).await.unwrap();
        assert_eq!(merge([&counts]), winner);
    });
}

#[test]
fn node_answers_the_question_of_each_of_three_rounds() {
    let fixture = Fixture::start();
    let words = tokenize("x x x a b b c c a c d").unwrap();
    fixture.system.block_on(async {
        let part = words.slice(3..words.len());
        for counting in COUNTINGS {
            let node = fixture.cluster.spawn::<Node>((part.clone(), counting)).await.unwrap();
            let tallies = |counts: &Counts| -> Vec<(String, u64, u64)> {
                counts.iter().map(|(word, counted)| (word.to_owned(), counted.count, counted.first)).collect()
            };
            let tally = |word: &str, count, first| (word.to_owned(), count, first);
            let best = node.send(BestWords(parts(1))).await.unwrap();
            assert_eq!(tallies(&best), [tally("c", 3, 6)]);
            let others = node.send(OtherWords { k: parts(1), at_least: 2 }).await.unwrap();
            assert_eq!(tallies(&others), [tally("a", 2, 3), tally("b", 2, 4)]);
            let wanted = WordList::from_words(["d", "x"]).unwrap();
            let missing = node.send(CountWords(wanted)).await.unwrap();
            assert_eq!(tallies(&missing), [tally("d", 1, 10)]);
            node.stop().await.unwrap();
        }
    });
}

#[test]
fn top_words_by_actors_are_those_in_this_process() {
    let fixture = Fixture::start();
    let text = prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "Δ", "e", "f", "g--g"]), 0..60);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(30) });
    runner
        .run(&(text, 1_usize..10, 1_usize..10), |(text, nodes, k)| {
            let words = tokenize(&text.join(" ")).unwrap();
            let (nodes, k, counting) = (parts(nodes), parts(k), Counting::Hash);
            let top = TopWords { words: words.clone(), nodes, k, counting };
            let top = fixture.system.block_on(fixture.coordinator.send(top)).unwrap().unwrap();
            prop_assert_eq!(&top, &top_words(&words, nodes, k, counting));
            // With one part no key can be pruned.
            prop_assert_eq!(top, top_words(&words, parts(1), k, counting));
            Ok(())
        })
        .unwrap();
}

#[test]
fn exact_methods_give_the_sequential_answer_for_random_texts_and_node_counts() {
    let fixture = Fixture::start();
    let text =
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "Δ", "e", "'f", "g--g"]), 0..60);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(40) });
    runner
        .run(&(text, 1_usize..10), |(text, nodes)| {
            let words = tokenize(&text.join(" ")).unwrap();
            for counting in COUNTINGS {
                let expect = sequential(&words, counting);
                for method in [Method::Exact, Method::Tput] {
                    prop_assert_eq!(fixture.check(&words, nodes, counting, method), expect.clone());
                }
                fixture.check(&words, nodes, counting, Method::TwoRound);
            }
            Ok(())
        })
        .unwrap();
}
