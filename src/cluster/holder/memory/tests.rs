//! Tests of states in memory.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::config::STATE_GROUP_BYTES_MAX;
use crate::durable::protocol::StatePage;
use crate::property_tests;
use crate::spec::ActorKey;

const KEY: StateKey = StateKey { job: JobId(1), actor: ActorKey(1) };
const GROUP: u64 = STATE_GROUP_BYTES_MAX as u64;

impl MemoryStates {
    fn seal(&mut self, number: u64) -> Result<Position, StateError> {
        match self.handle(StateRequest::Seal { key: KEY, number })? {
            StateReply::Sealed(position) => Ok(position),
            other => panic!("{other:?}"),
        }
    }

    fn append(&mut self, number: u64, first: u64, records: &[&[u8]]) -> StateResult {
        let records: Vec<_> = records.iter().map(|record| Bytes::copy_from_slice(record)).collect();
        let records = PackedRecords::pack(&records);
        self.handle(StateRequest::Append { key: KEY, number, first, records })
    }

    fn part(
        &mut self,
        number: u64,
        (up_to, replaces): (u64, Replaced),
        part: (u32, &[u8], bool),
    ) -> StateResult {
        let (index, bytes, is_last) = part;
        let bytes = Bytes::copy_from_slice(bytes).into();
        let part = SnapshotPart { up_to, index, is_last, replaces, bytes };
        self.handle(StateRequest::Snapshot { key: KEY, number, part })
    }

    fn complete(&mut self, number: u64, next: u64) -> StateResult {
        self.handle(StateRequest::Complete { key: KEY, number, next })
    }

    fn page(&mut self, number: u64, position: u64, bytes_max: u64) -> Result<StatePage, StateError> {
        match self.handle(StateRequest::Read { key: KEY, number, position, bytes_max })? {
            StateReply::Page(page) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    /// All that a new incarnation reads: the snapshot, the number of the first record, and the records.
    fn read(&mut self, number: u64, bytes_max: u64) -> (Vec<Bytes>, u64, Vec<Bytes>) {
        let mut page = self.page(number, 0, bytes_max).unwrap();
        let (mut parts, mut first, mut records) = (Vec::new(), None, Vec::new());
        loop {
            parts.extend(page.snapshot.into_iter().map(Bytes::from));
            let read = page.records.unpack().unwrap();
            if !read.is_empty() {
                first.get_or_insert(page.first);
            }
            records.extend(read);
            let Some(position) = page.next else { break };
            page = self.page(number, position, bytes_max).unwrap();
        }
        (parts, first.unwrap_or(page.first), records)
    }
}

fn is_full(result: &StateResult) -> bool {
    matches!(result, Err(StateError::Full { .. }))
}

#[test]
fn requests_of_other_configurations_are_refused() {
    let mut states = MemoryStates::default();
    assert_eq!(states.append(3, 0, &[b"a"]), Err(StateError::Fenced));
    states.seal(3).unwrap();
    states.append(3, 0, &[b"a"]).unwrap();
    states.seal(5).unwrap();
    let earlier = (1, Replaced::Earlier);
    for number in [3, 4, 6] {
        assert_eq!(states.append(number, 1, &[b"b"]), Err(StateError::Fenced));
        // A barrier is refused, too.
        assert_eq!(states.append(number, 1, &[]), Err(StateError::Fenced));
        assert_eq!(states.part(number, earlier, (0, b"old", true)), Err(StateError::Fenced));
        assert_eq!(states.complete(number, 1), Err(StateError::Fenced));
        assert_eq!(states.page(number, 0, GROUP), Err(StateError::Fenced));
    }
    assert_eq!(states.seal(4), Err(StateError::Fenced));
    states.append(5, 1, &[b"b"]).unwrap();
    assert_eq!(states.read(5, GROUP).2, [&b"a"[..], b"b"]);
    states.remove(KEY);
    assert_eq!(states.append(5, 2, &[b"c"]), Err(StateError::Fenced));
    states.check();
}

#[test]
fn a_repeated_append_has_no_effect_and_a_gap_is_refused() {
    let mut states = MemoryStates::default();
    states.seal(1).unwrap();
    for _ in 0..2 {
        states.append(1, 0, &[b"a", b"b"]).unwrap();
    }
    let gap = states.append(1, 3, &[b"d"]);
    assert!(matches!(gap, Err(StateError::Failed { .. })), "{gap:?}");
    states.append(1, 2, &[b"c"]).unwrap();
    assert_eq!(states.read(1, GROUP), (Vec::new(), 0, vec!["a".into(), "b".into(), "c".into()]));
}

#[test]
fn a_complete_snapshot_replaces_the_records_before_it() {
    let mut states = MemoryStates::default();
    states.seal(1).unwrap();
    states.append(1, 0, &[b"a", b"b", b"c"]).unwrap();
    let earlier = |up_to| (up_to, Replaced::Earlier);
    states.part(1, earlier(4), (0, b"ahead", true)).unwrap_err();
    states.part(1, earlier(2), (0, b"one", false)).unwrap();
    // Not complete, so nothing is replaced.
    assert_eq!(states.read(1, GROUP).2.len(), 3);
    states.part(1, earlier(2), (2, b"three", true)).unwrap_err();
    for _ in 0..2 {
        states.part(1, earlier(2), (1, b"two", true)).unwrap();
    }
    assert_eq!(states.read(1, GROUP), (vec!["one".into(), "two".into()], 2, vec!["c".into()]));
    states.append(1, 3, &[b"d"]).unwrap();
    states.part(1, earlier(4), (0, b"all", true)).unwrap();
    assert_eq!(states.read(1, GROUP), (vec!["all".into()], 4, Vec::new()));
    // A snapshot that a later one has overtaken.
    states.part(1, earlier(3), (0, b"old", true)).unwrap();
    assert_eq!(states.read(1, GROUP), (vec!["all".into()], 4, Vec::new()));
    states.check();
}

#[test]
fn a_copy_replaces_nothing_until_it_is_complete() {
    let mut states = MemoryStates::default();
    states.seal(1).unwrap();
    states.append(1, 0, &[b"a", b"b", b"c"]).unwrap();
    states.complete(1, 3).unwrap();
    let old = (Vec::new(), 0, vec!["a".into(), "b".into(), "c".into()]);

    // Its source dies within the snapshot, then after it, then within the records.
    states.seal(2).unwrap();
    states.part(2, (7, Replaced::All), (0, b"half a", false)).unwrap();
    states.complete(2, 3).unwrap_err();
    for number in 3..5 {
        assert_eq!(states.seal(number), Ok(Position { complete_in: 1, next: 3 }));
        states.part(number, (7, Replaced::All), (0, b"copy", true)).unwrap();
        assert_eq!(states.read(number, GROUP), old);
    }
    states.append(4, 7, &[b"h"]).unwrap();
    states.complete(4, 7).unwrap_err();
    assert_eq!(states.read(4, GROUP), old);
    assert_eq!(states.seal(5), Ok(Position { complete_in: 1, next: 3 }));
    states.check();

    // A whole copy, which may be shorter than what it replaces.
    for (number, up_to) in [(6, 7), (7, 2)] {
        states.seal(number).unwrap();
        states.part(number, (up_to, Replaced::All), (0, b"copy", true)).unwrap();
        states.append(number, up_to, &[b"h"]).unwrap();
        states.complete(number, up_to + 1).unwrap();
        assert_eq!(states.seal(number), Ok(Position { complete_in: number, next: up_to + 1 }));
        assert_eq!(states.read(number, GROUP), (vec!["copy".into()], up_to, vec!["h".into()]));
    }
    states.check();
}

#[test]
fn a_new_writer_reads_what_an_earlier_one_has_appended_last() {
    let mut states = MemoryStates::default();
    states.seal(1).unwrap();
    states.append(1, 0, &[b"a"]).unwrap();
    states.complete(1, 1).unwrap();
    states.append(1, 1, &[b"tail"]).unwrap();
    assert_eq!(states.seal(2), Ok(Position { complete_in: 1, next: 2 }));
    // The earlier writer goes on without effect.
    assert_eq!(states.append(1, 2, &[b"late"]), Err(StateError::Fenced));
    assert_eq!(states.read(2, GROUP).2, [&b"a"[..], b"tail"]);
}

#[test]
fn a_large_state_is_read_in_pages() {
    let mut states = MemoryStates::default();
    states.seal(1).unwrap();
    let large = &*vec![7; STATE_GROUP_BYTES_MAX / 2];
    states.append(1, 0, &[large, large, large, b"end"]).unwrap();
    let first = states.page(1, 0, GROUP).unwrap();
    assert_eq!((first.records.unpack().unwrap().len(), first.next), (2, Some(2)));
    assert_eq!(states.read(1, GROUP).2.len(), 4);
    // A record over the limit is a page of its own.
    assert_eq!(states.read(1, 1).2.len(), 4);
}

#[test]
fn a_job_without_room_is_refused_until_a_snapshot_or_a_removal_makes_room() {
    let mut states = MemoryStates::new(1000);
    states.seal(1).unwrap();
    let record: &[u8] = &[7; 100];
    states.append(1, 0, &[record; 4]).unwrap();
    assert!(is_full(&states.append(1, 4, &[record])));
    let error = states.append(1, 4, &[record]).unwrap_err().to_string();
    assert!(error.contains("exceed the limit of 1000"), "{error}");
    // Barriers, reads and repeated appends need no room. Nothing of a refused append is there.
    states.append(1, 4, &[]).unwrap();
    states.append(1, 0, &[record; 4]).unwrap();
    assert_eq!(states.read(1, GROUP).2.len(), 4);
    // Nor has the job room for another state. Other jobs have.
    let seal = |job, actor| StateRequest::Seal {
        key: StateKey { job: JobId(job), actor: ActorKey(actor) },
        number: 1,
    };
    assert!(is_full(&states.handle(seal(1, 2))));
    states.handle(seal(2, 3)).unwrap();
    // A snapshot is let through, since it makes room.
    states.part(1, (4, Replaced::Earlier), (0, record, true)).unwrap();
    states.append(1, 4, &[record]).unwrap();
    states.check();
    // A copy is not.
    states.seal(2).unwrap();
    let copied = states.part(2, (9, Replaced::All), (0, &[7; 600], true));
    assert!(is_full(&copied), "{copied:?}");
    states.remove(KEY);
    states.handle(seal(1, 2)).unwrap();
    states.check();
}

#[test]
fn the_states_of_a_job_are_removed_together() {
    let mut states = MemoryStates::default();
    let key = |job, actor| StateKey { job: JobId(job), actor: ActorKey(actor) };
    for key in [key(1, 1), key(1, 2), key(2, 3)] {
        states.handle(StateRequest::Seal { key, number: 1 }).unwrap();
    }
    assert_eq!(states.remove_job(JobId(1)).len(), 2);
    assert_eq!(states.keys(), [key(2, 3)]);
    states.check();
}

/// Step of the present writer.
#[derive(Clone, Debug)]
enum Step {
    /// Begins a configuration.
    Seal,
    /// Appends a number of records, and sends some earlier ones a second time.
    Append(usize, u64),
    /// Stores a snapshot of all but the last records, in a number of parts, the last of which may not come.
    Snapshot(u64, u32, bool),
    /// Copies a state from another holder, and may end before the copy is complete.
    Copy(u64, usize, bool),
    /// Sends an append of an earlier configuration.
    Late(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Seal),
        6 => (0..5_usize, 0..4_u64).prop_map(|(count, again)| Step::Append(count, again)),
        2 => (0..6_u64, 1..4_u32, any::<bool>()).prop_map(|(kept, parts, ends)| Step::Snapshot(kept, parts, ends)),
        1 => (0..20_u64, 0..4_usize, any::<bool>()).prop_map(|(first, count, ends)| Step::Copy(first, count, ends)),
        1 => (1..4_u64).prop_map(Step::Late),
    ]
}

/// Content of a state: what its snapshot stands for, and the records after it.
#[derive(Clone, Debug, Default)]
struct Model {
    number: u64,
    complete_in: u64,
    snapshot: Vec<Bytes>,
    first: u64,
    records: Vec<Bytes>,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

/// Record that differs from all others.
fn record(made: &mut u64) -> Bytes {
    *made += 1;
    Bytes::from(made.to_be_bytes().repeat(1 + *made as usize % 3))
}

fn slices(records: &[Bytes]) -> Vec<&[u8]> {
    records.iter().map(|record| &record[..]).collect()
}

proptest! {
    #![proptest_config(property_tests::cases(256))]

    /// A holder has what its present writer has stored, after every step, and knows how much that is.
    #[test]
    fn a_holder_is_a_log(steps in prop::collection::vec(step(), 1..60), bytes_max in 1..100_u64) {
        let (mut states, mut model, mut made) = (MemoryStates::default(), Model::default(), 0);
        states.seal(0).unwrap();
        for step in steps {
            match step {
                Step::Seal => {
                    model.number += 1;
                    let position = Position { complete_in: model.complete_in, next: model.next() };
                    prop_assert_eq!(states.seal(model.number), Ok(position));
                }
                Step::Append(count, again) => {
                    let known = again.min(model.records.len() as u64);
                    let first = model.next() - known;
                    model.records.extend((0..count).map(|_| record(&mut made)));
                    let sent = &model.records[(first - model.first) as usize..];
                    states.append(model.number, first, &slices(sent)).unwrap();
                }
                Step::Snapshot(kept, parts, ends) => {
                    let up_to = model.next() - kept.min(model.records.len() as u64);
                    let snapshot: Vec<_> = (0..parts).map(|_| record(&mut made)).collect();
                    let sent = if ends { parts } else { parts - 1 };
                    for (index, part) in (0..sent).zip(&snapshot) {
                        let part = (index, &part[..], index + 1 == parts);
                        states.part(model.number, (up_to, Replaced::Earlier), part).unwrap();
                    }
                    if ends {
                        model.records.drain(..(up_to - model.first) as usize);
                        (model.snapshot, model.first) = (snapshot, up_to);
                    }
                }
                Step::Copy(first, count, ends) => {
                    model.number += 1;
                    states.seal(model.number).unwrap();
                    let (snapshot, records) = (record(&mut made), (0..count).map(|_| record(&mut made)));
                    let records: Vec<_> = records.collect();
                    states.part(model.number, (first, Replaced::All), (0, &snapshot, true)).unwrap();
                    states.append(model.number, first, &slices(&records)).unwrap();
                    if ends {
                        let copy = Model { first, records, snapshot: vec![snapshot], ..model };
                        model = Model { complete_in: model.number, ..copy };
                        states.complete(model.number, model.next()).unwrap();
                    } else {
                        // The next configuration finds what was there before.
                        model.number += 1;
                        states.seal(model.number).unwrap();
                    }
                }
                Step::Late(before) => {
                    let Some(number) = model.number.checked_sub(before) else { continue };
                    let late = states.append(number, model.next(), &[b"late"]);
                    prop_assert_eq!(late, Err(StateError::Fenced));
                }
            }
            let read = states.read(model.number, bytes_max);
            prop_assert_eq!(read, (model.snapshot.clone(), model.first, model.records.clone()));
            states.check();
        }
    }
}
