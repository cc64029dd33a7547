//! Values of a peer: bodies decoded as types like a user's, and as the crate's own types.
//!
//! Input: one byte for the type, two for the number of attachments, then the body.

#![no_main]

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use roadshow::internals::config::FAILURE_TEXT_CHARS_MAX;
use roadshow::internals::registry::{Registry, SchemaTable};
use roadshow::internals::wire::{
    Body, CallFailure, EncodeError, Frame, FrameCodec, FrameKind, Payload, TELL_HEADER_BYTES,
};
use roadshow::words::{Counting, Counts, WordList};
use roadshow_fuzz::{Script, peak_of};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::codec::Decoder;

// `worker.rs` is compiled as a module of this target and finds its imports by these names.
use roadshow::internals::{config, id, spec, transport, wire};

mod cluster {
    pub(crate) use roadshow::model;
}

#[path = "../../../src/cluster/protocol/worker.rs"]
#[expect(dead_code, reason = "the target reads, and writes nothing")]
mod bootstrap;

/// Maximum length of an encoded body, above every body that an input makes: a decoded value must be
/// encodable again.
const BODY_BYTES_MAX: usize = 1 << 24;

/// Maximum bytes that serde reserves for the announced elements of one sequence or map.
const RESERVED_BYTES_MAX: usize = 1 << 20;

/// Maximum nesting of a body plus one: each level may announce many elements.
const DEEP: usize = 129;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let kind = script.one_of(21);
    let attachments = script.short();
    let bytes = script.rest();
    if kind == 11 {
        // These messages are no bodies of frames.
        return check_bootstrap(bytes);
    }
    if kind == 13 {
        return check_made(bytes);
    }
    let Some(body) = body_of(attachments, bytes) else { return };
    match kind {
        0 => drop(check::<Order>(&body, 8)),
        1 => drop(check::<Shape>(&body, 8)),
        2 => drop(check::<Untagged>(&body, DEEP)),
        3 => drop(check::<Tagged>(&body, DEEP)),
        4 => drop(check::<Flat>(&body, DEEP)),
        5 => drop(check::<Tree>(&body, DEEP)),
        6 => drop(check::<CallFailure>(&body, 1)),
        7 => drop(check::<Payload>(&body, 1)),
        8 => check_words(&body),
        9 => check_counts(&body),
        12 => check_table(&body),
        14 => drop(check::<Expression>(&body, DEEP)),
        15 => drop(check::<Count>(&body, DEEP)),
        16 => drop(check::<Linked>(&body, DEEP)),
        17 => drop(check::<Adjacent>(&body, DEEP)),
        18 => drop(check::<FlatTree>(&body, DEEP)),
        19 => drop(check::<BTreeMap<u8, Made>>(&body, DEEP)),
        20 => drop(check::<Option<Endless>>(&body, DEEP)),
        _ => drop(check::<(Vec<Payload>, HashMap<u8, Payload>, Option<WordList>, String)>(&body, 8)),
    }
});

/// Decodes the body of a Tell frame that ends with these bytes, if they are valid.
fn body_of(attachments: u16, bytes: &[u8]) -> Option<Body> {
    let frame_bytes = TELL_HEADER_BYTES + bytes.len();
    let mut frame = BytesMut::with_capacity(frame_bytes);
    frame.put_u32(frame_bytes as u32 - 4);
    frame.put_u8(FrameKind::Tell as u8);
    frame.put_u8(0);
    frame.put_u16(attachments);
    // Target and message do not influence the decoding of the body.
    frame.put_bytes(0, TELL_HEADER_BYTES - 8);
    frame.put_slice(bytes);
    match FrameCodec::established(frame_bytes).decode(&mut frame) {
        Ok(Some(Frame::Tell(tell))) => Some(tell.body),
        Ok(other) => panic!("a tell was written, and {other:?} read"),
        Err(_) => None,
    }
}

/// Decodes a value with memory in proportion to its body, and checks that its encoding decodes to the same
/// value.
fn check<T: Serialize + DeserializeOwned>(body: &Body, levels: usize) -> Option<T> {
    let (value, peak) = peak_of(|| wire::decode::<T>(body));
    // A body may announce more elements than it has, and serde reserves space for some of them.
    let fair = levels * RESERVED_BYTES_MAX + 256 * body.len() + 4096;
    assert!(peak <= fair, "{peak} bytes are held for a body of {}", body.len());
    let value = value.ok()?;
    let first = encoded(&value);
    let again: T = wire::decode(&first).expect("what was encoded here decodes");
    let second = encoded(&again);
    // The iteration order of a hash map is random, so only the length of its encoding is compared.
    assert_eq!(second.len(), first.len());
    assert!(std::any::type_name::<T>().contains("HashMap") || second == first, "it changes on its way");
    Some(value)
}

fn encoded<T: Serialize>(value: &T) -> Body {
    wire::encode(value, BODY_BYTES_MAX, |body| Body {
        message: body.message.into(),
        attachments: body.attachments.into(),
        trace: None,
    })
    .expect("a decoded value can be encoded")
}

fn check_words(body: &Body) {
    let Some(words) = check::<WordList>(body, 1) else { return };
    let all: Vec<&str> = words.iter().collect();
    assert_eq!(all.len(), words.len());
    for (index, word) in all.iter().enumerate() {
        assert_eq!(words.get(index), Some(*word));
    }
    assert_eq!(words.get(all.len()), None);
    assert_eq!(words.slice(0..all.len()), words);
    let parts = words.partition(NonZeroUsize::MIN.saturating_add(2));
    assert!(parts.iter().flatten().eq(&words));
    // The position after the last word must fit as well.
    assert!(words.position().checked_add(words.len() as u64).is_some());
    assert_eq!(encoded(&words), encoded(&wire::decode::<WordList>(&encoded(&words)).expect("as above")));
    let counts = [Counting::Hash, Counting::List].map(|counting| counting.count_all(&words));
    // Both algorithms have to agree on any list.
    assert_eq!(counts[0], counts[1]);
    assert_eq!(Counting::Hash.count(&words, &words), counts[0]);
}

fn check_counts(body: &Body) {
    let Some(counts) = check::<Counts>(body, 2) else { return };
    assert_eq!(counts.iter().count(), counts.len());
    assert_eq!(counts.is_empty(), counts.len() == 0);
    assert_eq!(wire::decode::<Counts>(&encoded(&counts)).expect("as above"), counts);
}

/// Registry of this executable: the messages of the word count.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::collect().expect("no names collide"));

/// Compares the schema table of a peer with the table of this executable.
fn check_table(body: &Body) {
    let Some(theirs) = check::<SchemaTable>(body, 4) else { return };
    let (differing, peak) = peak_of(|| REGISTRY.compare(&theirs));
    assert!(peak <= (256 << 10) + 16 * body.len(), "{peak} bytes are held for a table of {}", body.len());
    for (name, text) in differing {
        assert_ne!(REGISTRY.name_of(name), format!("type {name}"), "it is declared here as well");
        assert!(text.chars().count() <= FAILURE_TEXT_CHARS_MAX, "it travels whole: {text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    // The comparison must not have changed the registry.
    assert!(REGISTRY.compare(REGISTRY.table()).is_empty());
    let again: SchemaTable = wire::decode(&encoded(&theirs)).expect("it was encoded here");
    assert_eq!(again, theirs);
}

/// Decodes the messages that a worker and its driver exchange before they have a link.
fn check_bootstrap(bytes: &[u8]) {
    let (report, peak) = peak_of(|| bootstrap::read::<bootstrap::WorkerMessage>(bytes));
    assert!(peak <= (256 << 10) + 16 * bytes.len(), "{peak} bytes are held for {}", bytes.len());
    if let Ok(report) = report {
        let written = bootstrap::encode(&report).expect("a decoded report can be encoded");
        bootstrap::read::<bootstrap::WorkerMessage>(&*written).expect("it was written here");
    }
    if let Ok(orders) = bootstrap::read::<bootstrap::WorkerInit>(bytes) {
        let written = bootstrap::encode(&orders).expect("decoded orders can be encoded");
        let again: bootstrap::WorkerInit = bootstrap::read(&*written).expect("they were written here");
        assert_eq!((again.actors, again.limits), (orders.actors, orders.limits));
    }
}

/// Message as users write them: numbers, texts, options, defaults and payloads.
#[derive(Serialize, Deserialize)]
struct Order {
    number: u64,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<Box<str>>,
    prices: Vec<f64>,
    sizes: (i8, u16, i32, i64),
    wide: Option<i128>,
    letter: char,
    tags: BTreeMap<String, Vec<Option<bool>>>,
    #[serde(with = "roadshow::payload", default)]
    picture: Bytes,
    more: Vec<Payload>,
}

/// Enum with every kind of variant.
#[derive(Serialize, Deserialize)]
enum Shape {
    Unit,
    One(Payload),
    Two(u8, String),
    Named { x: i32, inner: Option<Box<Self>> },
}

/// Enum that serde buffers before it knows the variant.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
    Parcel { label: String, content: Payload },
    Many(Vec<Payload>),
    Nested(BTreeMap<String, Self>),
}

/// Enum that serde buffers to find its tag.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Tagged {
    Ping,
    Parcel { content: Payload, times: u8 },
    Wrapped { inner: Box<Self> },
}

/// Map that collects the undeclared fields.
#[derive(Serialize, Deserialize)]
struct Flat {
    id: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, Payload>,
}

/// Tree whose depth the body controls.
#[derive(Serialize, Deserialize)]
struct Tree(Vec<Self>);

/// Recursion through each kind of variant.
#[derive(Serialize, Deserialize)]
enum Expression {
    Number(i64),
    Negated(Box<Self>),
    Sum(Box<Self>, Box<Self>),
    Let { name: String, value: Box<Self>, within: Option<Box<Self>> },
}

/// Recursion through an option, which takes no bytes.
#[derive(Serialize, Deserialize)]
struct Count(Option<Box<Self>>);

/// Endless recursion that takes no bytes.
#[derive(Serialize, Deserialize)]
struct Endless(Box<Self>);

/// Recursion through an option of a struct.
#[derive(Serialize, Deserialize)]
struct Linked {
    next: Option<Box<Self>>,
}

/// Recursion through the content next to a tag.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", content = "content")]
enum Adjacent {
    Unit,
    One(Box<Self>),
    Two(Option<Option<()>>, Box<Self>),
}

/// Recursion through a flattened map.
#[derive(Serialize, Deserialize)]
struct FlatTree {
    id: u32,
    #[serde(flatten)]
    rest: BTreeMap<String, Self>,
}

/// Value made from the input; it must be equal after encoding and decoding.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Made {
    Unit,
    Options(Option<Option<Option<()>>>),
    Newtype(Box<Self>),
    Tuple(Option<Box<Self>>, Box<Self>),
    List { list: Vec<Option<Self>>, map: BTreeMap<i8, Self> },
    Wide(u128, i128),
    Bits(f32, f64),
    Address(IpAddr),
    Tagged(MadeTagged),
    Untagged(MadeUntagged),
    Payload(Payload),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum MadeTagged {
    Unit,
    Parts { address: IpAddr, unit: Option<()>, more: Option<Box<Self>>, bytes: Payload },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum MadeUntagged {
    Address { address: IpAddr },
    Options { options: Vec<Option<Option<()>>> },
    Nested { nested: Box<Made> },
}

impl Made {
    fn read(script: &mut Script<'_>, depth: usize) -> Self {
        // At depth 0 only the kinds without an inner value remain.
        let kind = script.one_of(if depth == 0 { 6 } else { 12 });
        let inner = |script: &mut Script<'_>| Self::read(script, depth - 1);
        match kind {
            0 => Self::Unit,
            1 => Self::Options(options(script)),
            2 => Self::Wide(long(script).into(), -i128::from(long(script))),
            3 => Self::Bits(finite(f32::from(script.short())), finite_wide(long(script))),
            4 => Self::Address(address(script)),
            5 => Self::Payload(long(script).to_be_bytes().to_vec().into()),
            6 => Self::Newtype(inner(script).into()),
            7 => Self::Tuple((script.one_of(2) == 0).then(|| inner(script).into()), inner(script).into()),
            8 => Self::List {
                list: vec![None, Some(inner(script))],
                map: BTreeMap::from([(-1, inner(script))]),
            },
            9 => Self::Tagged(MadeTagged::read(script, depth)),
            10 => {
                Self::Untagged(MadeUntagged::Options { options: vec![options(script).map(Option::flatten)] })
            }
            _ => Self::Untagged(match script.one_of(2) {
                0 => MadeUntagged::Address { address: address(script) },
                _ => MadeUntagged::Nested { nested: inner(script).into() },
            }),
        }
    }
}

impl MadeTagged {
    fn read(script: &mut Script<'_>, depth: usize) -> Self {
        if depth == 0 {
            return Self::Unit;
        }
        Self::Parts {
            address: address(script),
            unit: (script.one_of(2) == 0).then_some(()),
            more: (script.one_of(2) == 0).then(|| Self::read(script, depth - 1).into()),
            bytes: long(script).to_be_bytes().to_vec().into(),
        }
    }
}

fn long(script: &mut Script<'_>) -> u64 {
    script.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn options(script: &mut Script<'_>) -> Option<Option<Option<()>>> {
    [None, Some(None), Some(Some(None)), Some(Some(Some(())))][script.one_of(4)]
}

fn address(script: &mut Script<'_>) -> IpAddr {
    match script.one_of(2) {
        0 => IpAddr::V4((long(script) as u32).into()),
        _ => IpAddr::V6(u128::from(long(script)).into()),
    }
}

/// Replaces NaN, which is equal to nothing.
fn finite(value: f32) -> f32 {
    if value.is_nan() { 0.0 } else { value }
}

fn finite_wide(bits: u64) -> f64 {
    let value = f64::from_bits(bits);
    if value.is_nan() { 0.0 } else { value }
}

/// Checks that a value arrives unchanged, or that its sender rejects it as unreadable for serde.
fn check_made(bytes: &[u8]) {
    let made = Made::read(&mut Script::new(bytes), 40);
    match wire::encode_message(&made, BODY_BYTES_MAX, |body| Body {
        message: body.message.into(),
        attachments: body.attachments.into(),
        trace: None,
    }) {
        Ok(body) => assert_eq!(wire::decode::<Made>(&body).expect("it was encoded here"), made),
        Err(EncodeError::Serialize(text)) => assert!(text.contains("128-bit"), "{text}"),
        // A rejection at the sender is correct; a failure at the receiver would not be.
        Err(EncodeError::TooDeep { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}
