//! Round trips of values in every serde representation, and rejected values.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroI16;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::property_tests;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::*;
use crate::wire::{Body, DecodeError, EncodeError, Payload, decode, encode, encode_message};

mod depth;

fn body_of<T: Serialize + ?Sized>(value: &T) -> Result<Body, EncodeError> {
    encode(value, 1 << 24, |body| Body {
        message: body.message.into(),
        attachments: body.attachments.into(),
        trace: None,
    })
}

/// Encodes and decodes a value.
fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> T {
    decode(&body_of(value).unwrap()).unwrap()
}

#[track_caller]
fn check_round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    assert_eq!(round_trip(&value), value);
}

#[track_caller]
fn has_bytes<T: Serialize + ?Sized>(value: &T, expected: &[u8]) {
    assert_eq!(*body_of(value).unwrap().message, *expected);
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct NoFields {}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct NoParts();

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Newtype<T>(T);

/// A user type with two forms, the compact one of which cannot be read as the other.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Color(u32);

impl Serialize for Color {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("#{:08x}", self.0))
        } else {
            serializer.serialize_u32(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Color {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            let digits = text.strip_prefix('#').ok_or_else(|| serde::de::Error::custom("no #"))?;
            u32::from_str_radix(digits, 16).map(Self).map_err(serde::de::Error::custom)
        } else {
            u32::deserialize(deserializer).map(Self)
        }
    }
}

/// Values that can be part of every representation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Parts {
    ip: IpAddr,
    socket: SocketAddr,
    color: Color,
    twice: Option<Option<u32>>,
    unit: Option<()>,
    nothing: Option<Nothing>,
    deep: Option<Option<Option<Newtype<Option<bool>>>>>,
    list: Vec<Option<Option<i8>>>,
    empty: ([u8; 0], NoFields, NoParts, Nothing, ()),
    number: i64,
    single: f32,
    double: f64,
    letter: char,
    text: String,
    bytes: Payload,
    time: Duration,
    range: Range<u16>,
    result: Result<Option<()>, String>,
    by_number: BTreeMap<i32, Option<()>>,
    path: PathBuf,
    not_zero: NonZeroI16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum External {
    Unit,
    Newtype(Parts),
    Maybe(Option<Option<u8>>),
    Tuple(Parts, Option<()>),
    Struct { parts: Parts, more: Option<Box<Self>> },
    Empty(),
    NoFields {},
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
#[expect(clippy::large_enum_variant, reason = "the variants are different on purpose")]
enum Internal {
    Unit,
    Newtype(Box<Parts>),
    Struct { parts: Parts, more: Option<Box<Self>> },
    Nested(External2),
}

/// An internally tagged type can contain only maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "inner")]
enum External2 {
    Tuple { pair: (Option<Option<u8>>, IpAddr) },
    Unit,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "content")]
enum Adjacent {
    Unit,
    Newtype(Parts),
    Maybe(Option<Option<u8>>),
    Tuple(Parts, Option<()>),
    Struct { parts: Parts, more: Option<Box<Self>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Newtype(Box<Parts>),
    Tuple(bool, Box<Parts>, Option<()>),
    Struct { more: Vec<Self> },
    // Without a required field serde would accept any map as this variant.
    Maybe { always: bool, maybe: Option<Option<()>> },
    External { external: Box<External> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u64,
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    rest: HashMap<u32, Option<Option<IpAddr>>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    color: Color,
    ip: IpAddr,
    flags: Option<Option<bool>>,
}

fn ips() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|ip| IpAddr::V4(Ipv4Addr::from_bits(ip))),
        any::<u128>().prop_map(|ip| IpAddr::V6(Ipv6Addr::from_bits(ip))),
    ]
}

fn maybe<T: Strategy + 'static>(inner: T) -> impl Strategy<Value = Option<T::Value>> {
    option::of(inner)
}

fn parts() -> impl Strategy<Value = Parts> {
    let addresses = (ips(), any::<u16>(), any::<u32>());
    let options = (
        maybe(maybe(any::<u32>())),
        maybe(Just(())),
        maybe(Just(Nothing)),
        maybe(maybe(maybe(maybe(any::<bool>()).prop_map(Newtype)))),
        vec(maybe(maybe(any::<i8>())), 0..4),
    );
    // A NaN equals nothing; another test compares bits.
    let floats =
        (any::<f32>().prop_filter("NaN", |n| !n.is_nan()), any::<f64>().prop_filter("NaN", |n| !n.is_nan()));
    let values = (any::<i64>(), floats, any::<char>(), ".{0,12}", vec(any::<u8>(), 0..9), any::<Duration>());
    let rest = (
        any::<(u16, u16)>(),
        prop_oneof![maybe(Just(())).prop_map(Ok), ".{0,4}".prop_map(Err)],
        btree_map(any::<i32>(), maybe(Just(())), 0..3),
        "[a-z/]{0,9}",
        any::<NonZeroI16>(),
    );
    (addresses, options, values, rest).prop_map(|(addresses, options, values, rest)| {
        let (ip, port, color) = addresses;
        let (twice, unit, nothing, deep, list) = options;
        let (number, (single, double), letter, text, bytes, time) = values;
        let ((start, end), result, by_number, path, not_zero) = rest;
        Parts {
            ip,
            socket: (ip, port).into(),
            color: Color(color),
            twice,
            unit,
            nothing,
            deep,
            list,
            empty: ([], NoFields {}, NoParts(), Nothing, ()),
            number,
            single,
            double,
            letter,
            text,
            bytes: bytes.into(),
            time,
            range: start..end,
            result,
            by_number,
            path: path.into(),
            not_zero,
        }
    })
}

fn externals() -> impl Strategy<Value = External> {
    let leaf = prop_oneof![
        Just(External::Unit),
        Just(External::Empty()),
        Just(External::NoFields {}),
        parts().prop_map(External::Newtype),
        maybe(maybe(any::<u8>())).prop_map(External::Maybe),
        (parts(), maybe(Just(()))).prop_map(|(parts, unit)| External::Tuple(parts, unit)),
    ];
    leaf.prop_recursive(3, 4, 1, |inner| {
        (parts(), maybe(inner.prop_map(Box::new))).prop_map(|(parts, more)| External::Struct { parts, more })
    })
}

fn internals() -> impl Strategy<Value = Internal> {
    let nested = prop_oneof![
        (maybe(maybe(any::<u8>())), ips()).prop_map(|pair| External2::Tuple { pair }),
        Just(External2::Unit),
    ];
    let leaf = prop_oneof![
        Just(Internal::Unit),
        parts().prop_map(|parts| Internal::Newtype(parts.into())),
        nested.prop_map(Internal::Nested),
    ];
    leaf.prop_recursive(3, 4, 1, |inner| {
        (parts(), maybe(inner.prop_map(Box::new))).prop_map(|(parts, more)| Internal::Struct { parts, more })
    })
}

fn adjacents() -> impl Strategy<Value = Adjacent> {
    let leaf = prop_oneof![
        Just(Adjacent::Unit),
        parts().prop_map(Adjacent::Newtype),
        maybe(maybe(any::<u8>())).prop_map(Adjacent::Maybe),
        (parts(), maybe(Just(()))).prop_map(|(parts, unit)| Adjacent::Tuple(parts, unit)),
    ];
    leaf.prop_recursive(3, 4, 1, |inner| {
        (parts(), maybe(inner.prop_map(Box::new))).prop_map(|(parts, more)| Adjacent::Struct { parts, more })
    })
}

fn untagged() -> impl Strategy<Value = Untagged> {
    let leaf = prop_oneof![
        parts().prop_map(|parts| Untagged::Newtype(parts.into())),
        (any::<bool>(), parts(), maybe(Just(()))).prop_map(|(flag, parts, unit)| Untagged::Tuple(
            flag,
            parts.into(),
            unit
        )),
        maybe(maybe(Just(()))).prop_map(|maybe| Untagged::Maybe { always: true, maybe }),
        externals().prop_map(|external| Untagged::External { external: external.into() }),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| vec(inner, 0..2).prop_map(|more| Untagged::Struct { more }))
}

fn flats() -> impl Strategy<Value = Flat> {
    let rest = proptest::collection::hash_map(any::<u32>(), maybe(maybe(ips())), 0..4);
    (any::<u64>(), any::<u32>(), ips(), maybe(maybe(any::<bool>())), rest).prop_map(
        |(id, color, ip, flags, rest)| Flat { id, inner: Inner { color: Color(color), ip, flags }, rest },
    )
}

proptest! {
    #![proptest_config(property_tests::cases(96))]

    #[test]
    fn value_of_every_representation_round_trips(
        external in externals(),
        internal in internals(),
        adjacent in adjacents(),
        untagged in untagged(),
        flat in flats(),
    ) {
        prop_assert_eq!(&round_trip(&external), &external);
        prop_assert_eq!(&round_trip(&internal), &internal);
        prop_assert_eq!(&round_trip(&adjacent), &adjacent);
        prop_assert_eq!(&round_trip(&untagged), &untagged);
        prop_assert_eq!(&round_trip(&flat), &flat);
    }

    #[test]
    fn float_round_trips_bit_by_bit(single in any::<u32>(), double in any::<u64>()) {
        let (single, double) = (f32::from_bits(single), f64::from_bits(double));
        let decoded = round_trip(&(single, double, Some(single)));
        prop_assert_eq!(decoded.0.to_bits(), single.to_bits());
        prop_assert_eq!(decoded.1.to_bits(), double.to_bits());
        prop_assert_eq!(decoded.2.map(f32::to_bits), Some(single.to_bits()));
    }

    /// Values without a special encoding are readable by any MessagePack reader.
    #[test]
    fn plain_value_is_encoded_as_by_rmp_serde(
        numbers in any::<(u8, u16, u32, u64, i8, i16, i32, i64)>(),
        others in any::<(bool, f32, f64, char, Option<u8>)>(),
        lists in (vec(any::<u64>(), 0..20), vec(".{0,40}", 0..20), btree_map(any::<u32>(), ".{0,3}", 0..20)),
    ) {
        let value = (numbers, others, Ok::<_, ()>(lists));
        let expected = rmp_serde::to_vec_named(&value).unwrap();
        prop_assert_eq!(&*body_of(&value).unwrap().message, &*expected);
    }

    #[test]
    fn arbitrary_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200)) {
        let _ = read::<Untagged>(&bytes);
        let _ = read::<(External, Flat)>(&bytes);
        let _ = read::<serde::de::IgnoredAny>(&bytes);
    }
}

#[test]
fn nested_empty_options_stay_distinct() {
    type Three = Option<Option<Option<()>>>;
    let all: [(Three, &[u8]); 4] = [
        (None, &[0xc0]),
        (Some(None), &[0xd4, 0x53, 1]),
        (Some(Some(None)), &[0xd4, 0x53, 2]),
        (Some(Some(Some(()))), &[0xd4, 0x53, 3]),
    ];
    for (value, bytes) in all {
        has_bytes(&value, bytes);
        check_round_trip(value);
        check_round_trip(vec![value; 3]);
        check_round_trip(BTreeMap::from([(value, value)]));
    }
    // Options of other values need no mark, and stay compatible with rmp-serde.
    has_bytes(&Some(Some(5)), &[5]);
    check_round_trip(Some(Nothing));
    check_round_trip(Some(Newtype(Some(Newtype(())))));
    check_round_trip(HashMap::from([(Some(()), Some(None::<u8>)), (None, None)]));
}

#[test]
fn option_of_a_type_that_serializes_as_nil_round_trips() {
    #[derive(Debug, PartialEq)]
    struct Quiet;
    impl Serialize for Quiet {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            // The serializer sees a nil and cannot know that it is no `Option`.
            serializer.serialize_none()
        }
    }
    impl<'de> Deserialize<'de> for Quiet {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Option::<()>::deserialize(deserializer).map(|_| Self)
        }
    }
    check_round_trip(Some(Quiet));
    check_round_trip(None::<Quiet>);
}

#[test]
fn wide_integer_round_trips_and_is_rejected_where_serde_cannot_read_it() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Buffered {
        Number { number: u128 },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flattened {
        #[serde(flatten)]
        inner: BTreeMap<String, i128>,
    }

    check_round_trip((u128::MAX, i128::MIN, Some(1_u128), BTreeMap::from([(u128::MAX, -1_i128)])));
    // Two bytes of header, and sixteen of the integer.
    assert_eq!(encode_message(&u128::MAX, 100, |body| body.len()), Ok(18));
    for refused in [
        encode_message(&Buffered::Number { number: 1 }, 1000, |_| ()),
        encode_message(&Flattened { inner: [("a".into(), 1)].into() }, 1000, |_| ()),
    ] {
        let Err(EncodeError::Serialize(text)) = refused else { panic!("{refused:?}") };
        assert!(text.contains("128-bit integers"), "{text}");
    }
    // The value contains nothing that could not be read.
    encode_message(&Flattened { inner: BTreeMap::new() }, 1000, |_| ()).unwrap();
}

#[test]
fn path_that_is_not_utf_8_is_an_error_at_the_sender() {
    use std::os::unix::ffi::OsStringExt;
    let path = PathBuf::from(std::ffi::OsString::from_vec(vec![0xe9]));
    assert!(matches!(body_of(&path), Err(EncodeError::Serialize(text)) if text.contains("UTF-8")));
    // `OsString` has a representation of its own for such bytes, which `Path` has not.
    check_round_trip(std::ffi::OsString::from_vec(vec![0xe9]));
}

#[test]
fn payload_round_trips_in_every_representation() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Bytes(Payload),
    }
    check_round_trip(Either::Bytes(vec![1, 2, 3].into()));
    check_round_trip(Either::Number(0));
    check_round_trip(vec![Some(Payload::default()), None]);
    // In a tagged variant, which serde buffers, the bytes are in the message itself.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Outer {
        Inner(Middle),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Middle {
        Struct { bytes: Payload, ip: IpAddr },
    }
    check_round_trip(Outer::Inner(Middle::Struct {
        bytes: vec![7; 9].into(),
        ip: Ipv4Addr::LOCALHOST.into(),
    }));
}

#[test]
fn sequence_of_unknown_length_takes_no_memory_beyond_the_limit() {
    #[derive(Serialize)]
    struct Flattened {
        id: u8,
        #[serde(flatten)]
        rest: BTreeMap<u32, u8>,
    }
    let value = Flattened { id: 1, rest: (0..100).map(|key| (key, 0)).collect() };
    has_bytes(&Flattened { id: 1, rest: [(2, 3)].into() }, &[0xdf, 0, 0, 0, 2, 0xa2, b'i', b'd', 1, 2, 3]);
    // The 32-bit header, the field `id`, and 100 pairs of one byte each.
    let size = 5 + 4 + 100 * 2;
    assert_eq!(encode(&value, size - 1, |_| ()), Err(EncodeError::TooLarge { size, limit: size - 1 }));
    assert_eq!(encode(&value, size, |body| body.len()), Ok(size));
}

#[test]
fn serialize_with_a_wrong_length_is_an_error_at_the_sender() {
    struct Liar;
    impl Serialize for Liar {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut parts = serializer.serialize_seq(Some(2))?;
            // One element less than announced: the receiver would take the next value for it.
            parts.serialize_element(&1)?;
            parts.end()
        }
    }
    assert!(
        matches!(body_of(&Liar), Err(EncodeError::Serialize(text)) if text.contains("announces 2 parts"))
    );
}

#[test]
fn unsigned_integer_has_its_shortest_form() {
    // Both sides of every change of the encoding.
    let bounds = [0, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
    for value in bounds {
        has_bytes(&value, &rmp_serde::to_vec(&value).unwrap());
        check_round_trip(value);
    }
    has_bytes(&0xffff_u16, &[0xcd, 0xff, 0xff]);
    has_bytes(&0x8000_0000_u32, &[0xce, 0x80, 0, 0, 0]);
}

#[test]
fn surplus_or_missing_parts_are_an_error() {
    assert!(matches!(read::<(u8, u8)>(&[0x93, 1, 2, 3]), Err(DecodeError::Deserialize(_))));
    assert!(matches!(read::<(u8, u8)>(&[0x91, 1]), Err(DecodeError::Deserialize(_))));
    assert!(matches!(read::<Vec<u8>>(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0]), Err(DecodeError::Deserialize(_))));
    assert!(matches!(read::<Option<()>>(&[0xd4, 0x53, 0]), Err(DecodeError::Deserialize(_))));
    assert!(matches!(read::<u8>(&[0xd4, 0x53, 1]), Err(DecodeError::Deserialize(_))));
}
