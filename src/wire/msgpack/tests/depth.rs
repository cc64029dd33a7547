//! Depth limit for every way in which a type can contain itself.

use super::*;

/// A recursive type whose values can be built level by level.
trait Nest: Serialize + DeserializeOwned + PartialEq + Debug {
    /// Returns a value of depth one.
    fn leaf() -> Self;

    /// Wraps the value in another level.
    fn around(self) -> Self;
}

macro_rules! nest {
    ($item:item $name:ident: $leaf:expr, $inner:ident => $around:expr;) => {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        $item

        impl Nest for $name {
            fn leaf() -> Self {
                $leaf
            }

            fn around(self) -> Self {
                let $inner = self;
                $around
            }
        }
    };
}

nest! {
    enum OfNewtypes { End(u8), Next(Box<Self>) }
    OfNewtypes: Self::End(1), inner => Self::Next(inner.into());
}
nest! {
    enum OfTuples { End(u8), Next(u8, Box<Self>) }
    OfTuples: Self::End(1), inner => Self::Next(2, inner.into());
}
nest! {
    enum OfStructs { End(u8), Next { next: Box<Self> } }
    OfStructs: Self::End(1), inner => Self::Next { next: inner.into() };
}
nest! {
    #[serde(tag = "kind")]
    enum Tagged { End { value: u8 }, Next { next: Box<Self> } }
    Tagged: Self::End { value: 1 }, inner => Self::Next { next: inner.into() };
}
nest! {
    #[serde(tag = "kind", content = "content")]
    enum Adjacently { End(u8), Next(Box<Self>) }
    Adjacently: Self::End(1), inner => Self::Next(inner.into());
}
nest! {
    #[serde(untagged)]
    enum Untagged { End { value: u8 }, Next { next: Box<Self> } }
    Untagged: Self::End { value: 1 }, inner => Self::Next { next: inner.into() };
}
nest! {
    struct Linked { next: Option<Box<Self>> }
    Linked: Self { next: None }, inner => Self { next: Some(inner.into()) };
}
nest! {
    struct Sequence(Vec<Self>);
    Sequence: Self(Vec::new()), inner => Self(vec![inner]);
}
nest! {
    struct Pair(u8, Option<Newtype<Box<Self>>>);
    Pair: Self(1, None), inner => Self(1, Some(Newtype(inner.into())));
}
nest! {
    struct Map(BTreeMap<u8, Self>);
    Map: Self(BTreeMap::new()), inner => Self([(1, inner)].into());
}
nest! {
    struct Flattened { id: u8, #[serde(flatten)] rest: BTreeMap<String, Self> }
    Flattened: Self { id: 1, rest: BTreeMap::new() },
        inner => Self { id: 1, rest: [("next".to_owned(), inner)].into() };
}

/// A type that serde buffers when it reads it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Buffered<T> {
    Value(T),
}

impl<T: Nest> Nest for Buffered<T> {
    fn leaf() -> Self {
        Self::Value(T::leaf())
    }

    fn around(self) -> Self {
        let Self::Value(inner) = self;
        Self::Value(inner.around())
    }
}

/// A type that is recursive through a wrapper alone.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Count(Option<Box<Self>>);

fn nested<T: Nest>(levels: usize) -> T {
    (1..levels).fold(T::leaf(), |inner, _| inner.around())
}

fn check<T: Nest>() {
    check_up_to::<T>(MESSAGE_DEPTH_MAX);
}

/// As [`check`], for a type that nests `values_max` values at the limit.
fn check_up_to<T: Nest>(values_max: usize) {
    let name = std::any::type_name::<T>();
    let limit = MESSAGE_DEPTH_MAX;
    let value = nested::<T>(values_max);
    assert_eq!(round_trip(&value), value, "{name}");
    for levels in [values_max + 1, values_max + 2, 1_000] {
        assert_eq!(body_of(&nested::<T>(levels)), Err(EncodeError::TooDeep { limit }), "{levels} of {name}");
    }
    let unlimited = rmp_serde::to_vec_named(&nested::<T>(400)).unwrap();
    assert_eq!(read::<T>(&unlimited), Err(DecodeError::TooDeep { limit }), "{name}");
}

#[test]
fn every_recursive_type_has_the_same_limit_on_both_sides() {
    check::<OfNewtypes>();
    check_up_to::<OfTuples>(MESSAGE_DEPTH_MAX / 2);
    check_up_to::<OfStructs>(MESSAGE_DEPTH_MAX / 2);
    check::<Tagged>();
    check::<Untagged>();
    check::<Linked>();
    check::<Sequence>();
    check::<Pair>();
    check::<Map>();
    check::<Flattened>();
}

/// If one side counted fewer levels, an accepted message could not be decoded.
#[test]
fn buffered_value_has_the_same_limit_on_both_sides() {
    check::<Buffered<OfNewtypes>>();
    check_up_to::<Buffered<OfTuples>>(MESSAGE_DEPTH_MAX / 2);
    check_up_to::<Buffered<OfStructs>>(MESSAGE_DEPTH_MAX / 2);
}

/// Tag and content form a struct, which is a level of its own.
#[test]
fn adjacently_tagged_value_has_the_limit() {
    check::<Adjacently>();
}

#[test]
fn nested_wrappers_have_the_limit() {
    let limit = MESSAGE_DEPTH_MAX;
    let nested = |somes: usize| (0..somes).fold(Count(None), |inner, _| Count(Some(Box::new(inner))));
    check_round_trip(nested(limit));
    assert_eq!(body_of(&nested(limit + 1)), Err(EncodeError::TooDeep { limit }));
    // A single byte, which each level would pass on to the next.
    assert_eq!(read::<Count>(&[5]), Err(DecodeError::TooDeep { limit }));
    assert_eq!(read::<Count>(&[0xd4, 0x53, 129]), Err(DecodeError::TooDeep { limit }));
    assert_eq!(read::<Endless>(&[5]), Err(DecodeError::TooDeep { limit }));
    // Values inside of counted `Some`s.
    assert_eq!(read::<Option<Endless>>(&[0xd4, 0x53, 1]), Err(DecodeError::TooDeep { limit }));
    assert_eq!(read::<Option<Option<Endless>>>(&[0xd4, 0x53, 2]), Err(DecodeError::TooDeep { limit }));
    assert_eq!(read::<Newtype<Option<Endless>>>(&[0xd4, 0x53, 1]), Err(DecodeError::TooDeep { limit }));
}

/// A recursive type without values.
#[derive(Debug, PartialEq, Deserialize)]
struct Endless(Box<Self>);

/// Each level takes only a marker of a few bytes, so a short message can be arbitrarily deep.
#[test]
fn deep_bytes_are_an_error_and_no_stack_overflow_for_every_type() {
    const LEVELS: usize = 200_000;
    let deep = |level: &[u8]| [level.repeat(LEVELS), vec![1]].concat();
    let arrays = deep(&[0x91]);
    let maps = deep(b"\x81\xa4Next");
    let both = deep(b"\x81\xa4Next\x91");
    for bytes in [arrays, maps, both] {
        for error in [
            read::<OfNewtypes>(&bytes).unwrap_err(),
            read::<OfTuples>(&bytes).unwrap_err(),
            read::<Untagged>(&bytes).unwrap_err(),
            read::<Sequence>(&bytes).unwrap_err(),
            read::<serde::de::IgnoredAny>(&bytes).unwrap_err(),
            read::<serde_json::Value>(&bytes).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                error == DecodeError::TooDeep { limit: MESSAGE_DEPTH_MAX } || text.contains("type"),
                "{text}"
            );
        }
    }
}
