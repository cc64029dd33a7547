//! States of durable actors at their holder: requests and records of a hostile worker, and records of a hostile holder.
//!
//! Input: one byte for the kind, then the bytes of a value, or a series of requests.

#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use roadshow::internals::durable::{
    MemoryStates, PackedRecords, Replaced, SnapshotPart, StateError, StateReply, StateRequest, decode, encode,
};
use roadshow::internals::spec::{ActorKey, JobId, StateKey};
use roadshow::internals::wire::Payload;
use roadshow_fuzz::{Script, peak_of};

/// Above every value that an input makes: a decoded value must be encodable again.
const VALUE_BYTES_MAX: usize = 1 << 24;

/// Memory for the states of a job, so that inputs reach it.
const JOB_BYTES_MAX: u64 = 4096;

/// Record as a durable actor's: events, the reply, messages to others, numbers.
type Record = (Vec<(u64, Payload)>, Option<(String, Payload)>, Vec<Payload>, Vec<u64>);

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    match script.one_of(4) {
        0 => check_request(script.rest()),
        1 => check_record(script.rest()),
        2 => check_packed(script.rest()),
        _ => check_holder(&mut script),
    }
});

fn check_request(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let (request, peak) = peak_of(|| decode::<StateRequest>(bytes.clone()));
    assert!(peak <= (1 << 20) + 64 * bytes.len(), "{peak} bytes are held for {}", bytes.len());
    let Ok(request) = request else { return };
    let encoded = encode(&request, VALUE_BYTES_MAX).expect("a decoded request can be encoded");
    let again: StateRequest = decode(encoded.clone()).expect("it was encoded here");
    assert_eq!(encode(&again, VALUE_BYTES_MAX).expect("as above"), encoded);
    let mut states = MemoryStates::new(JOB_BYTES_MAX);
    let (key, number) = (request.key(), 0);
    let _ = states.handle(StateRequest::Seal { key, number });
    let _ = states.handle(request);
    states.check();
}

fn check_record(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let (record, peak) = peak_of(|| decode::<Record>(bytes.clone()));
    assert!(peak <= (8 << 20) + 256 * bytes.len(), "{peak} bytes are held for {}", bytes.len());
    let Ok(record) = record else { return };
    let encoded = encode(&record, VALUE_BYTES_MAX).expect("a decoded record can be encoded");
    assert_eq!(decode::<Record>(encoded).expect("it was encoded here"), record);
}

fn check_packed(bytes: &[u8]) {
    let payload = Payload::from(bytes.to_vec());
    let encoded = encode(&payload, VALUE_BYTES_MAX).expect("a payload can be encoded");
    let packed: PackedRecords = decode(encoded).expect("packed records are a payload");
    let Some(records) = packed.unpack() else { return };
    assert_eq!(bytes.len(), records.iter().map(|record| 4 + record.len()).sum::<usize>());
    assert_eq!(PackedRecords::pack(&records).unpack(), Some(records));
}

fn key(script: &mut Script<'_>) -> StateKey {
    let number = script.one_of(4) as u64;
    StateKey { job: JobId((number % 2) as u32), actor: ActorKey(number) }
}

/// Sends a holder any requests: those of other configurations have no effect, and only a complete copy takes records
/// away.
fn check_holder(script: &mut Script<'_>) {
    let mut states = MemoryStates::new(JOB_BYTES_MAX);
    // Number of the present configuration, and of the next record.
    let mut known = BTreeMap::<StateKey, (u64, u64)>::new();
    while !script.is_over() {
        let (key, number) = (key(script), script.one_of(4) as u64);
        let request = request(script, key, number);
        let is_seal = matches!(request, StateRequest::Seal { .. });
        let is_complete = matches!(request, StateRequest::Complete { .. });
        let result = states.handle(request);
        states.check();
        let before = known.get(&key).copied();
        let is_fenced = match (is_seal, before) {
            (true, before) => before.is_some_and(|(present, _)| number < present),
            (false, before) => before.is_none_or(|(present, _)| number != present),
        };
        assert_eq!(is_fenced, result == Err(StateError::Fenced), "{result:?}");
        let present = match (before, is_seal && result.is_ok()) {
            (_, true) => number,
            (Some((present, _)), false) => present,
            (None, false) => continue,
        };
        let next = read_all(&mut states, key, present);
        assert!(is_complete || before.is_none_or(|(_, before)| next >= before), "records are lost");
        known.insert(key, (present, next));
    }
}

/// Reads a state page by page; returns the number of the next record.
fn read_all(states: &mut MemoryStates, key: StateKey, number: u64) -> u64 {
    let (mut position, mut next) = (0, None);
    loop {
        let read = StateRequest::Read { key, number, position, bytes_max: 100 };
        let Ok(StateReply::Page(page)) = states.handle(read) else { panic!("the present writer may read") };
        let records = page.records.unpack().expect("a holder packs whole records");
        if page.snapshot.is_empty() {
            assert!(next.is_none_or(|next| next == page.first), "the pages have a gap");
            next = Some(page.first + records.len() as u64);
        }
        let Some(following) = page.next else { return next.unwrap_or(page.first) };
        assert!(following > position, "the pages do not end");
        position = following;
    }
}

fn request(script: &mut Script<'_>, key: StateKey, number: u64) -> StateRequest {
    match script.one_of(5) {
        0 => StateRequest::Seal { key, number },
        1 => {
            let (position, bytes_max) = (script.byte().into(), script.byte().into());
            StateRequest::Read { key, number, position, bytes_max }
        }
        2 => {
            let (first, count) = (script.byte().into(), script.one_of(5));
            let records: Vec<_> = (0..count).map(|_| bytes(script)).collect();
            StateRequest::Append { key, number, first, records: PackedRecords::pack(&records) }
        }
        3 => {
            let part = SnapshotPart {
                up_to: script.byte().into(),
                index: script.one_of(3) as u32,
                is_last: script.one_of(2) == 0,
                replaces: [Replaced::Earlier, Replaced::All][script.one_of(2)],
                bytes: bytes(script).into(),
            };
            StateRequest::Snapshot { key, number, part }
        }
        _ => StateRequest::Complete { key, number, next: script.byte().into() },
    }
}

fn bytes(script: &mut Script<'_>) -> Bytes {
    let length = usize::from(script.byte()) * 8;
    Bytes::copy_from_slice(script.bytes(length))
}
